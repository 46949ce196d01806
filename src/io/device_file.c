/* device_file.c - opening block devices and regular files for the backends that use the kernel's. */
#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "io/io_impl.h"

/* Open flags can lie (some file systems take O_DIRECT and refuse the reads), so one aligned block is really read. Whether writes
 * are refused shows at the first one: see device_file_drop_direct(). */
static int
direct_probe(int fd, uint64_t size_bytes)
{
	void *page;
	ssize_t n;
	int rc = 0;

	if (size_bytes < IO_ALIGN_BYTES) {
		return 0;
	}
	page =
	    mmap(NULL, IO_ALIGN_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (page == MAP_FAILED) {
		return -errno;
	}
	do {
		n = pread(fd, page, IO_ALIGN_BYTES, 0);
	} while (n < 0 && errno == EINTR);
	if (n < 0 && errno != EIO) {
		rc = -errno; /* EIO is the first block's trouble, not O_DIRECT's. */
	}
	(void)munmap(page, IO_ALIGN_BYTES);
	return rc;
}

static bool
direct_is_off_by_env(void)
{
	const char *env = getenv("HEADRACE_DIRECT");

	return env != NULL && strcmp(env, "0") == 0;
}

static void
note_buffered(struct io_device *device, int rc)
{
	device->info.direct = false;
	(void)snprintf(device->info.note, sizeof(device->info.note),
		       "O_DIRECT refused (%s): buffered", strerror(-rc));
}

static int
device_open_fd(struct io_device *device, int how)
{
	int fd = open(device->path, how | O_CLOEXEC);

	if (fd < 0) {
		return -errno;
	}
	device->fd = fd;
	return 0;
}

static int
device_size(struct io_device *device)
{
	struct stat st;

	if (fstat(device->fd, &st) != 0) {
		return -errno;
	}
	if (S_ISREG(st.st_mode)) {
		device->info.size_bytes = (uint64_t)st.st_size;
		return 0;
	}
	if (S_ISBLK(st.st_mode)) {
		device->info.block_device = true;
		return ioctl(device->fd, BLKGETSIZE64, &device->info.size_bytes) == 0 ? 0 : -errno;
	}
	return S_ISDIR(st.st_mode) ? -EISDIR : -ENODEV;
}

static int
device_go_direct(struct io_device *device)
{
	int how, rc;

	if ((device->flags & IO_DEVICE_BUFFERED) != 0) {
		(void)snprintf(device->info.note, sizeof(device->info.note), "buffered as asked");
		return 0;
	}
	how = fcntl(device->fd, F_GETFL);
	if (how < 0) {
		return -errno;
	}
	rc = direct_is_off_by_env() ? -EINVAL : 0;
	if (rc == 0 && fcntl(device->fd, F_SETFL, how | O_DIRECT) != 0) {
		rc = -errno;
	}
	if (rc == 0) {
		rc = direct_probe(device->fd, device->info.size_bytes);
	}
	device->info.direct = rc == 0;
	if (rc != 0) {
		note_buffered(device, rc);
		(void)fcntl(device->fd, F_SETFL, how & ~O_DIRECT);
	}
	return 0;
}

int
device_file_open(struct io_device *device)
{
	struct stat st;
	int rc;

	/* Locked before it is opened for good: opening a block device can have effects (media change, spin-up). */
	if (stat(device->path, &st) != 0) {
		return -errno;
	}
	if ((device->flags & IO_DEVICE_LOCK) != 0 && (S_ISREG(st.st_mode) || S_ISBLK(st.st_mode))) {
		rc = device_lock_take(device->path, S_ISBLK(st.st_mode), &device->lock);
		if (rc != 0) {
			return rc;
		}
	}
	rc = device_open_fd(device, (device->flags & IO_DEVICE_READONLY) != 0 ? O_RDONLY : O_RDWR);
	if (rc == 0) {
		rc = device_size(device);
	}
	if (rc == 0) {
		rc = device_go_direct(device);
	}
	if (rc != 0) {
		device_file_close(device);
		return rc;
	}
	device->info.align_bytes = IO_ALIGN_BYTES;
	return 0;
}

void
device_file_close(struct io_device *device)
{
	if (device->fd >= 0) {
		(void)close(device->fd);
		device->fd = -1;
	}
	device_lock_release(device->lock);
	device->lock = NULL;
}

bool
device_file_drop_direct(struct io_device *device)
{
	int how;

	if (!device->info.direct || device->fd < 0) {
		return false;
	}
	how = fcntl(device->fd, F_GETFL);
	if (how < 0 || fcntl(device->fd, F_SETFL, how & ~O_DIRECT) != 0) {
		return false;
	}
	note_buffered(device, -EINVAL);
	return true;
}
