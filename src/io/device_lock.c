/* device_lock.c - exclusive use of a device by this process, which ends with the process.
 *
 * What:       a regular file is locked by a POSIX record lock on "<path>.lock" beside it; a block device by opening it O_EXCL,
 *             which mount and mkfs respect, too.
 * Why so:     flock() and open-file-description locks are inherited by a forked child and outlive the process that took them. A
 *             record lock is not inherited, but ends when the process closes *any* descriptor of the file: so it is on a file that
 *             nobody else opens, and this table of the process makes that one descriptor. The O_EXCL claim would be inherited:
 *             a handler closes it in the child.
 * Two names:  a hard link, or a file that is bound into two containers, has its ".lock" twice. So the image itself is locked too, by an
 *             open-file-description lock, which the handler closes in the child as well.
 * Threads:    any; one mutex, which forks find free.
 * Ownership:  several devices of one process may hold the same lock (shards on one drive); it ends with the last of them. The
 *             ".lock" file stays: removing it would race with the next owner's opening.
 * Tests:      tests/unit/io/test_device.c
 */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "io/io_impl.h"

struct io_device_lock {
	struct list_head link;
	dev_t dev;
	ino_t ino;
	unsigned refs;
	int fd;
	int image_fd; /* -1 for a block device */
	bool stale;   /* inherited by a fork: the parent's, not ours */
};

static struct {
	pthread_mutex_t mutex;
	pthread_once_t once;
	struct list_head locks;
} g_locks = { .mutex = PTHREAD_MUTEX_INITIALIZER,
	      .once = PTHREAD_ONCE_INIT,
	      .locks = LIST_HEAD_INIT(g_locks.locks) };

static void
fork_prepare(void)
{
	(void)pthread_mutex_lock(&g_locks.mutex);
}

static void
fork_parent(void)
{
	(void)pthread_mutex_unlock(&g_locks.mutex);
}

static void
lock_close(struct io_device_lock *lock)
{
	if (lock->fd >= 0) {
		(void)close(lock->fd);
	}
	if (lock->image_fd >= 0) {
		(void)close(lock->image_fd);
	}
	lock->fd = -1;
	lock->image_fd = -1;
}

static void
fork_child(void)
{
	struct io_device_lock *lock;

	list_for_each_entry(lock, &g_locks.locks, link) {
		lock->stale = true;
		lock_close(lock);
	}
	(void)pthread_mutex_unlock(&g_locks.mutex);
}

static void
locks_init(void)
{
	(void)pthread_atfork(fork_prepare, fork_parent, fork_child);
}

static int
lock_beside_file(const char *path, mode_t mode, int *ret_fd)
{
	struct flock fl = { .l_type = F_WRLCK, .l_whence = SEEK_SET };
	char real[PATH_MAX], name[PATH_MAX + 8];
	int fd, rc;

	/* Through another name or a symbolic link it is the same lock. */
	if (realpath(path, real) == NULL) {
		return -errno;
	}
	(void)snprintf(name, sizeof(name), "%s.lock", real);
	fd = open(name, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, mode & 0666);
	if (fd < 0) {
		return -errno;
	}
	if (fcntl(fd, F_SETLK, &fl) != 0) {
		rc = errno == EACCES || errno == EAGAIN ? -EBUSY : -errno;
		(void)close(fd);
		return rc;
	}
	*ret_fd = fd;
	return 0;
}

static int
lock_image(const char *path, int *ret_fd)
{
	struct flock fl = { .l_type = F_WRLCK, .l_whence = SEEK_SET };
	int fd = open(path, O_RDWR | O_CLOEXEC), rc;

	if (fd < 0 && (errno == EACCES || errno == EROFS)) {
		/* Who may only read it still must not read what another one writes. */
		fl.l_type = F_RDLCK;
		fd = open(path, O_RDONLY | O_CLOEXEC);
	}
	if (fd < 0) {
		return -errno;
	}
	if (fcntl(fd, F_OFD_SETLK, &fl) != 0) {
		rc = errno == EACCES || errno == EAGAIN ? -EBUSY : -errno;
		(void)close(fd);
		return rc;
	}
	*ret_fd = fd;
	return 0;
}

static int
lock_block_device(const char *path, int *ret_fd)
{
	int fd = open(path, O_RDONLY | O_EXCL | O_CLOEXEC);

	if (fd < 0) {
		return -errno; /* EBUSY: mounted, or claimed by another. */
	}
	*ret_fd = fd;
	return 0;
}

static struct io_device_lock *
lock_find_locked(const struct stat *st)
{
	struct io_device_lock *lock;

	list_for_each_entry(lock, &g_locks.locks, link) {
		if (!lock->stale && lock->dev == st->st_dev && lock->ino == st->st_ino) {
			return lock;
		}
	}
	return NULL;
}

static int
lock_take_locked(const char *path, const struct stat *st, bool block_device,
		 struct io_device_lock **ret_lock)
{
	struct io_device_lock *lock = lock_find_locked(st);
	int rc;

	if (lock != NULL) {
		lock->refs++;
		*ret_lock = lock;
		return 0;
	}
	lock = calloc(1, sizeof(*lock));
	if (lock == NULL) {
		return -ENOMEM;
	}
	lock->fd = -1;
	lock->image_fd = -1;
	rc = block_device ? lock_block_device(path, &lock->fd)
			  : lock_beside_file(path, st->st_mode, &lock->fd);
	if (rc == 0 && !block_device) {
		rc = lock_image(path, &lock->image_fd);
	}
	if (rc != 0) {
		lock_close(lock);
		free(lock);
		return rc;
	}
	lock->dev = st->st_dev;
	lock->ino = st->st_ino;
	lock->refs = 1;
	list_add_tail(&g_locks.locks, &lock->link);
	*ret_lock = lock;
	return 0;
}

int
device_lock_take(const char *path, bool block_device, struct io_device_lock **ret_lock)
{
	struct stat st;
	int rc;

	if (stat(path, &st) != 0) {
		return -errno;
	}
	(void)pthread_once(&g_locks.once, locks_init);
	(void)pthread_mutex_lock(&g_locks.mutex);
	rc = lock_take_locked(path, &st, block_device, ret_lock);
	(void)pthread_mutex_unlock(&g_locks.mutex);
	return rc;
}

void
device_lock_release(struct io_device_lock *lock)
{
	if (lock == NULL) {
		return;
	}
	(void)pthread_mutex_lock(&g_locks.mutex);
	HR_ASSERT(lock->refs > 0);
	if (--lock->refs == 0) {
		list_del(&lock->link);
		lock_close(lock);
		free(lock);
	}
	(void)pthread_mutex_unlock(&g_locks.mutex);
}
