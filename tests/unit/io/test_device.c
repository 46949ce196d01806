/* test_device.c - device operations, locks and O_DIRECT's absence, on every disk backend. */
#include "io_test.h"

#include <fcntl.h>
#include <limits.h>
#include <linux/loop.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/wait.h>

#include "base/prng.h"
#include "io/io_impl.h"

enum { PAGE = 4096, DEVICE_BYTES = 8 << 20 };

/* -- helpers -------------------------------------------------------------------------------------------------------------------- */

static void *
pages(size_t count)
{
	void *p = aligned_alloc(PAGE, count * PAGE);

	assert_non_null(p);
	memset(p, 0, count * PAGE);
	return p;
}

static void
fill(void *buf, size_t len, uint64_t seed)
{
	uint64_t *words = buf;
	struct prng prng;
	size_t i;

	prng_init(&prng, seed);
	for (i = 0; i < len / sizeof(*words); i++) {
		words[i] = prng_u64(&prng);
	}
}

static void
device_path(const struct fixture *f, char *ret_path, size_t len)
{
	(void)snprintf(ret_path, len, "%s/device", f->dir);
}

/* Makes a device of DEVICE_BYTES and opens it. */
static struct io_device *
device_open(struct fixture *f, unsigned flags)
{
	struct io_device *device;
	char path[128];
	int fd;

	device_path(f, path, sizeof(path));
	if (f->sim == NULL) {
		fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
		assert_true(fd >= 0);
		assert_int_equal(ftruncate(fd, DEVICE_BYTES), 0);
		(void)close(fd);
	} else {
		struct sim_device_options options = { .kind = SIM_DEVICE_BYTES,
						      .size_bytes = DEVICE_BYTES,
						      .latency_us_min = 10,
						      .latency_us_max = 100 };

		(void)sim_device_add(f->sim, path, &options);
	}
	assert_int_equal(io_device_open(f->io, path, flags, &device), 0);
	return device;
}

static int64_t
wait_result(struct fixture *f, struct outcome *o)
{
	assert_false(o->done); /* never inside the call */
	run_until(f->io, &o->done);
	assert_int_equal(o->times, 1);
	return o->result;
}

static int64_t
read_now(struct fixture *f, struct io_device *device, void *buf, size_t len, uint64_t off)
{
	struct iovec iov = { buf, len };
	struct outcome o = { 0 };
	struct io_op op = { 0 };

	io_device_read(device, &op, &iov, 1, off, outcome_cb, &o);
	return wait_result(f, &o);
}

static int64_t
write_now(struct fixture *f, struct io_device *device, void *buf, size_t len, uint64_t off,
	  unsigned flags)
{
	struct iovec iov = { buf, len };
	struct outcome o = { 0 };
	struct io_op op = { 0 };

	io_device_write(device, &op, &iov, 1, off, flags, outcome_cb, &o);
	return wait_result(f, &o);
}

static int64_t
sync_now(struct fixture *f, struct io_device *device)
{
	struct outcome o = { 0 };
	struct io_op op = { 0 };

	io_device_sync(device, &op, outcome_cb, &o);
	return wait_result(f, &o);
}

/* In a process of its own: 0 = the lock could be had. */
static int
lock_from_a_child(struct fixture *f, const char *path)
{
	int status;
	pid_t pid = fork();

	if (pid == 0) {
		struct io_device *device;
		struct io *io;
		int rc;

		rc = fixture_io_create(f, &io);
		if (rc == 0) {
			rc = io_device_open(io, path, IO_DEVICE_LOCK, &device);
		}
		_exit(rc < 0 ? -rc : 0);
	}
	assert_true(pid > 0);
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFEXITED(status));
	return -WEXITSTATUS(status);
}

/* -- operations --------------------------------------------------------------------------------------------------------------------- */

/* What is written, plainly and with DSYNC, is read back, also after a sync and by another opening; counters tell. */
static void
write_then_read(void **state)
{
	struct fixture *f = *state;
	struct io_device *device = device_open(f, IO_DEVICE_LOCK);
	uint8_t *out = pages(64), *in = pages(64);
	struct io_device_info info;
	struct io_counters counters;

	fill(out, 64 * PAGE, 1);
	io_device_info_get(device, &info);
	assert_int_equal(info.size_bytes, DEVICE_BYTES);
	assert_int_equal(info.align_bytes, PAGE);
	assert_int_equal(write_now(f, device, out, 32 * PAGE, PAGE, 0), 32 * PAGE);
	assert_int_equal(write_now(f, device, out + 32 * PAGE, 32 * PAGE, 33 * PAGE, IO_WRITE_DSYNC),
			 32 * PAGE);
	assert_int_equal(sync_now(f, device), 0);
	assert_int_equal(read_now(f, device, in, 64 * PAGE, PAGE), 64 * PAGE);
	assert_memory_equal(in, out, 64 * PAGE);
	assert_int_equal(read_now(f, device, in, PAGE, DEVICE_BYTES - PAGE), PAGE);
	assert_true(is_all_zero(in, PAGE));
	io_counters_get(f->io, &counters);
	assert_int_equal(counters.device_reads, 2);
	assert_int_equal(counters.device_read_bytes, 65 * PAGE);
	assert_int_equal(counters.device_writes, 2);
	assert_int_equal(counters.device_write_bytes, 64 * PAGE);
	assert_int_equal(counters.device_syncs, 1);
	assert_int_equal(counters.device_errors, 0);
	io_device_close(device);
	device = device_open(f, IO_DEVICE_READONLY);
	memset(in, 0, 64 * PAGE);
	assert_int_equal(read_now(f, device, in, 64 * PAGE, PAGE), 64 * PAGE);
	assert_memory_equal(in, out, 64 * PAGE);
	assert_int_equal(write_now(f, device, in, PAGE, 0, 0), -EBADF);
	io_device_close(device);
	free(in);
	free(out);
}

/* 1,500 iovecs of a page each, in both directions: more than one system call takes. */
static void
more_iovecs_than_a_call_takes(void **state)
{
	enum { COUNT = 1500 };
	struct fixture *f = *state;
	struct io_device *device = device_open(f, 0);
	uint8_t *out = pages(COUNT), *in = pages(COUNT);
	struct iovec *iov = calloc(COUNT, sizeof(*iov));
	struct outcome o = { 0 };
	struct io_op op = { 0 };
	size_t i;

	fill(out, COUNT * PAGE, 2);
	for (i = 0; i < COUNT; i++) {
		iov[i] = (struct iovec){ out + i * PAGE, PAGE };
	}
	io_device_write(device, &op, iov, COUNT, PAGE, 0, outcome_cb, &o);
	assert_int_equal(wait_result(f, &o), COUNT * PAGE);
	for (i = 0; i < COUNT; i++) {
		iov[i] = (struct iovec){ in + (COUNT - 1 - i) * PAGE, PAGE };
	}
	o = (struct outcome){ 0 };
	io_device_read(device, &op, iov, COUNT, PAGE, outcome_cb, &o);
	assert_int_equal(wait_result(f, &o), COUNT * PAGE);
	for (i = 0; i < COUNT; i++) {
		assert_memory_equal(in + i * PAGE, out + (COUNT - 1 - i) * PAGE, PAGE);
	}
	io_device_close(device);
	free(iov);
	free(in);
	free(out);
}

/* Misaligned offsets, lengths and memory, and the device's end: refused alike everywhere, by the callback. */
static void
bad_operations(void **state)
{
	struct fixture *f = *state;
	struct io_device *device = device_open(f, 0);
	uint8_t *buf = pages(4);

	assert_int_equal(read_now(f, device, buf, PAGE, 512), -EINVAL);
	assert_int_equal(read_now(f, device, buf, 512, 0), -EINVAL);
	assert_int_equal(read_now(f, device, buf + 512, PAGE, 0), -EINVAL);
	assert_int_equal(write_now(f, device, buf + 8, PAGE, 0, 0), -EINVAL);
	assert_int_equal(read_now(f, device, buf, PAGE, DEVICE_BYTES), -EIO);
	assert_int_equal(read_now(f, device, buf, 2 * PAGE, DEVICE_BYTES - PAGE), -EIO);
	assert_int_equal(write_now(f, device, buf, 2 * PAGE, DEVICE_BYTES - PAGE, 0), -EIO);
	assert_int_equal(write_now(f, device, buf, PAGE, UINT64_MAX - PAGE + 1, 0), -EIO);
	assert_int_equal(read_now(f, device, buf, 0, 0), 0);
	io_device_close(device);
	free(buf);
}

/* A file made longer after opening is as long as it is; one made shorter gives -EIO, not stale or missing bytes. */
static void
file_changes_its_size(void **state)
{
	struct fixture *f = *state;
	struct io_device *device = device_open(f, 0);
	uint8_t *buf = pages(4);
	char path[128];

	device_path(f, path, sizeof(path));
	assert_int_equal(truncate(path, DEVICE_BYTES + 4 * PAGE), 0);
	assert_int_equal(write_now(f, device, buf, 4 * PAGE, DEVICE_BYTES, 0), 4 * PAGE);
	assert_int_equal(truncate(path, 6 * PAGE), 0);
	assert_int_equal(read_now(f, device, buf, 4 * PAGE, 4 * PAGE), -EIO);
	assert_int_equal(read_now(f, device, buf, 4 * PAGE, 2 * PAGE), 4 * PAGE);
	io_device_close(device);
	free(buf);
}

struct many {
	struct io_op op;
	struct iovec iov;
	struct outcome o;
};

/* Far more operations than the backend holds: all complete; those beyond the queue's bound with -EAGAIN, and are counted. */
static void
queue_is_bounded(void **state)
{
	enum { COUNT = IO_DEVICE_QUEUE_MAX + 100 };
	struct fixture *f = *state;
	struct io_device *device = device_open(f, 0);
	struct many *many = calloc(COUNT, sizeof(*many));
	struct io_counters counters;
	uint8_t *buf = pages(COUNT);
	unsigned i, refused = 0;

	for (i = 0; i < COUNT; i++) {
		many[i].iov = (struct iovec){ buf + (size_t)i * PAGE, PAGE };
		io_device_read(device, &many[i].op, &many[i].iov, 1,
			       (uint64_t)(i % (DEVICE_BYTES / PAGE)) * PAGE, outcome_cb, &many[i].o);
	}
	for (i = 0; i < COUNT; i++) {
		run_until(f->io, &many[i].o.done);
		assert_int_equal(many[i].o.times, 1);
		assert_true(many[i].o.result == PAGE || many[i].o.result == -EAGAIN);
		refused += many[i].o.result == -EAGAIN;
	}
	assert_int_equal(refused, 100);
	io_counters_get(f->io, &counters);
	assert_int_equal(counters.device_queue_refused, 100);
	assert_int_equal(counters.device_queue_high, IO_DEVICE_QUEUE_MAX);
	io_device_close(device);
	free(buf);
	free(many);
}

struct chain {
	struct fixture *f;
	struct io_device *device;
	struct io_op op;
	struct iovec iov;
	unsigned left;
	bool done;
};

static void
chain_cb(void *arg, int64_t result)
{
	struct chain *c = arg;

	assert_int_equal(result, PAGE);
	if (--c->left == 0) {
		c->done = true;
		return;
	}
	io_device_read(c->device, &c->op, &c->iov, 1, c->left * PAGE, chain_cb, c);
}

/* Each callback begins the next operation with the same io_op: nothing waits for a limit in between. */
static void
operations_from_callbacks(void **state)
{
	struct fixture *f = *state;
	struct chain c = { .f = f, .device = device_open(f, 0), .left = 200 };

	c.iov = (struct iovec){ pages(1), PAGE };
	io_device_read(c.device, &c.op, &c.iov, 1, 0, chain_cb, &c);
	while (!c.done) {
		assert_true(io_run(f->io, UINT64_MAX) >= 0);
	}
	io_device_close(c.device);
	free(c.iov.iov_base);
}

/* Runs the loop until memory is registered, where this backend does that. */
static void
wait_registered(struct fixture *f, uint64_t bytes)
{
	struct io_counters counters;

	io_counters_get(f->io, &counters);
	while (f->combo->disk == IO_DISK_URING && counters.registered_bytes != bytes) {
		assert_true(io_run(f->io, UINT64_MAX) >= 0);
		io_counters_get(f->io, &counters);
	}
}

/* Operations inside registered memory, across two of its pieces, and outside. */
static void
registered_memory(void **state)
{
	struct fixture *f = *state;
	struct io_device *device = device_open(f, 0);
	uint8_t *area = pages(64), *other = pages(16);

	assert_int_equal(io_memory_register(f->io, area, 32 * PAGE), 0);
	assert_int_equal(io_memory_register(f->io, area + 32 * PAGE, 32 * PAGE), 0);
	wait_registered(f, 64 * PAGE);
	fill(area, 64 * PAGE, 3);
	assert_int_equal(write_now(f, device, area, 16 * PAGE, 0, IO_WRITE_DSYNC), 16 * PAGE);
	assert_int_equal(write_now(f, device, area + 24 * PAGE, 16 * PAGE, 16 * PAGE, 0), 16 * PAGE);
	assert_int_equal(read_now(f, device, other, 16 * PAGE, 16 * PAGE), 16 * PAGE);
	assert_memory_equal(other, area + 24 * PAGE, 16 * PAGE);
	assert_int_equal(read_now(f, device, area + 40 * PAGE, 16 * PAGE, 0), 16 * PAGE);
	assert_memory_equal(area + 40 * PAGE, area, 16 * PAGE);
	io_device_close(device);
	io_memory_unregister(f->io, area + 32 * PAGE, 32 * PAGE);
	wait_registered(f, 32 * PAGE);
	io_memory_unregister(f->io, area, 32 * PAGE);
	wait_registered(f, 0);
	io_memory_unregister(f->io, area, 64 * PAGE); /* nothing is left of it */
	free(other);
	free(area);
}

/* Other pages at the same addresses: what is written are their bytes, not those of the pages that were registered there before. */
static void
registered_memory_is_replaced(void **state)
{
	const size_t bytes = 16 * PAGE;
	struct fixture *f = *state;
	struct io_device *device = device_open(f, 0);
	uint8_t *other = pages(16), *area;

	area = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS | MAP_POPULATE,
		    -1, 0);
	assert_true(area != MAP_FAILED);
	fill(area, bytes, 4);
	assert_int_equal(io_memory_register(f->io, area, bytes), 0);
	wait_registered(f, bytes);
	assert_int_equal(write_now(f, device, area, bytes, 0, 0), bytes);
	io_memory_unregister(f->io, area, bytes);
	assert_true(mmap(area, bytes, PROT_READ | PROT_WRITE,
			 MAP_SHARED | MAP_ANONYMOUS | MAP_FIXED, -1, 0) == area);
	for (unsigned again = 0; again < 2; again++) {
		fill(area, bytes, 5 + again);
		assert_int_equal(write_now(f, device, area, bytes, 0, 0), bytes);
		assert_int_equal(read_now(f, device, other, bytes, 0), bytes);
		assert_memory_equal(other, area, bytes);
		if (again == 0) { /* and once they are registered, too */
			assert_int_equal(io_memory_register(f->io, area, bytes), 0);
			wait_registered(f, bytes);
		}
	}
	io_device_close(device);
	io_memory_unregister(f->io, area, bytes);
	(void)munmap(area, bytes);
	free(other);
}

/* -- opening ------------------------------------------------------------------------------------------------------------------------ */

/* Where O_DIRECT is refused, and where it is not wanted, the device works buffered and says so. */
static void
goes_buffered_and_says_so(void **state)
{
	struct fixture *f = *state;
	struct io_device_info info;
	struct io_device *device;
	uint8_t *out = pages(2), *in = pages(2);
	int i;

	for (i = 0; i < 2; i++) {
		if (i == 0) {
			assert_int_equal(setenv("HEADRACE_DIRECT", "0", 1), 0);
		}
		device = device_open(f, i == 0 ? 0 : IO_DEVICE_BUFFERED);
		assert_int_equal(unsetenv("HEADRACE_DIRECT"), 0);
		io_device_info_get(device, &info);
		assert_false(info.direct);
		assert_string_equal(info.note, i == 0
						   ? "O_DIRECT refused (Invalid argument): buffered"
						   : "buffered as asked");
		fill(out, 2 * PAGE, 4 + (uint64_t)i);
		assert_int_equal(write_now(f, device, out, 2 * PAGE, PAGE, IO_WRITE_DSYNC),
				 2 * PAGE);
		assert_int_equal(read_now(f, device, in, 2 * PAGE, PAGE), 2 * PAGE);
		assert_memory_equal(in, out, 2 * PAGE);
		io_device_close(device);
	}
	free(in);
	free(out);
}

/* On tmpfs, which knows O_DIRECT in some kernels and refuses it in others, both must work. */
static void
works_on_tmpfs(void **state)
{
	struct fixture *f = *state;
	char path[] = "/dev/shm/hr-io-XXXXXX";
	uint8_t *out = pages(4), *in = pages(4);
	struct io_device *device;
	int fd = mkstemp(path);

	if (fd < 0) {
		free(in);
		free(out);
		skip();
		return;
	}
	assert_int_equal(ftruncate(fd, 1 << 20), 0);
	(void)close(fd);
	assert_int_equal(io_device_open(f->io, path, 0, &device), 0);
	fill(out, 4 * PAGE, 5);
	assert_int_equal(write_now(f, device, out, 4 * PAGE, 0, 0), 4 * PAGE);
	assert_int_equal(sync_now(f, device), 0);
	assert_int_equal(read_now(f, device, in, 4 * PAGE, 0), 4 * PAGE);
	assert_memory_equal(in, out, 4 * PAGE);
	io_device_close(device);
	assert_int_equal(unlink(path), 0);
	free(in);
	free(out);
}

/* What is not a device: clear errors, nothing left open. */
static void
open_errors(void **state)
{
	struct fixture *f = *state;
	struct io_device *device;
	char path[PATH_MAX + 2];

	(void)snprintf(path, sizeof(path), "%s/absent", f->dir);
	assert_int_equal(io_device_open(f->io, path, IO_DEVICE_LOCK, &device),
			 f->sim != NULL ? -ENODEV : -ENOENT);
	memset(path, 'x', sizeof(path) - 1);
	path[sizeof(path) - 1] = '\0';
	assert_int_equal(io_device_open(f->io, path, 0, &device), -ENAMETOOLONG);
	if (f->sim == NULL) {
		assert_int_equal(io_device_open(f->io, f->dir, IO_DEVICE_READONLY, &device),
				 -EISDIR);
		assert_int_equal(io_device_open(f->io, "/dev/null", IO_DEVICE_LOCK, &device),
				 -ENODEV);
	}
}

/* A file system that takes O_DIRECT and answers EINVAL to a write later on: the operation is done again, buffered, and succeeds. The
 * kernel's answer is played by hand. */
static void
direct_refused_later(void **state)
{
	struct fixture *f = *state;
	struct io_device *device = device_open(f, 0);
	struct iovec iov = { pages(1), PAGE };
	struct io_device_info info;
	struct outcome o = { 0 };
	struct io_op op = { 0 };

	io_device_info_get(device, &info);
	if (!info.direct) {
		io_device_close(device);
		free(iov.iov_base);
		skip(); /* This file system refuses at once. */
		return;
	}
	fill(iov.iov_base, PAGE, 6);
	io_device_write(device, &op, &iov, 1, 0, 0, outcome_cb, &o);
	list_del(&op.link);
	f->io->queue_count--;
	io_op_complete(f->io, &op, -EINVAL);
	assert_int_equal(wait_result(f, &o), PAGE);
	io_device_info_get(device, &info);
	assert_false(info.direct);
	assert_string_equal(info.note, "O_DIRECT refused (Invalid argument): buffered");
	/* Buffered already: now it is an error like others. */
	o = (struct outcome){ 0 };
	io_device_write(device, &op, &iov, 1, 0, 0, outcome_cb, &o);
	list_del(&op.link);
	f->io->queue_count--;
	io_op_complete(f->io, &op, -EINVAL);
	assert_int_equal(wait_result(f, &o), -EINVAL);
	io_device_close(device);
	free(iov.iov_base);
}

/* On a block device, where the machine lets us make one: its size, its data, and a lock that other claims respect. */
static void
block_device(void **state)
{
	struct fixture *f = *state;
	struct loop_info64 info64 = { .lo_flags = LO_FLAGS_AUTOCLEAR };
	struct io_device *device;
	struct io_device_info info;
	bool skipped = false;
	uint8_t *out = pages(2), *in = pages(2);
	char path[128], loop[32];
	int control = open("/dev/loop-control", O_RDWR | O_CLOEXEC), number, fd, back;

	device_path(f, path, sizeof(path));
	io_device_close(device_open(f, 0));
	number = control >= 0 ? ioctl(control, LOOP_CTL_GET_FREE) : -1;
	(void)snprintf(loop, sizeof(loop), "/dev/loop%d", number);
	fd = number >= 0 ? open(loop, O_RDWR | O_CLOEXEC) : -1;
	back = open(path, O_RDWR | O_CLOEXEC);
	if (fd < 0 || ioctl(fd, LOOP_SET_FD, back) != 0 ||
	    ioctl(fd, LOOP_SET_STATUS64, &info64) != 0) {
		print_message("# skipped: no loop devices for us here\n");
		skipped = true;
		goto out;
	}
	assert_int_equal(io_device_open(f->io, loop, IO_DEVICE_LOCK, &device), 0);
	io_device_info_get(device, &info);
	assert_true(info.block_device);
	assert_int_equal(info.size_bytes, DEVICE_BYTES);
	fill(out, 2 * PAGE, 9);
	assert_int_equal(write_now(f, device, out, 2 * PAGE, DEVICE_BYTES - 2 * PAGE,
				   IO_WRITE_DSYNC),
			 2 * PAGE);
	assert_int_equal(read_now(f, device, in, 2 * PAGE, DEVICE_BYTES - 2 * PAGE), 2 * PAGE);
	assert_memory_equal(in, out, 2 * PAGE);
	assert_int_equal(lock_from_a_child(f, loop), -EBUSY);
	assert_int_equal(open(loop, O_RDWR | O_EXCL | O_CLOEXEC), -1); /* what mount and mkfs do */
	assert_int_equal(errno, EBUSY);
	io_device_close(device);
	assert_int_equal(lock_from_a_child(f, loop), 0);
out:
	if (fd >= 0) {
		(void)close(fd);
	}
	if (back >= 0) {
		(void)close(back);
	}
	if (control >= 0) {
		(void)close(control);
	}
	free(in);
	free(out);
	if (skipped) {
		skip();
	}
}

/* -- locks -------------------------------------------------------------------------------------------------------------------------- */

/* A second process is told -EBUSY as long as the first has any device open with the lock; unlocked openings do not disturb it, nor
 * does another's closing. The same process may open twice. */
static void
lock_excludes_other_processes(void **state)
{
	struct fixture *f = *state;
	struct io_device *first, *second, *third;
	char path[128];

	device_path(f, path, sizeof(path));
	first = device_open(f, IO_DEVICE_LOCK);
	assert_int_equal(lock_from_a_child(f, path), -EBUSY);
	second = device_open(f, IO_DEVICE_LOCK);
	third = device_open(f, IO_DEVICE_READONLY);
	io_device_close(third);
	(void)close(open(path, O_RDONLY | O_CLOEXEC));
	io_device_close(second);
	assert_int_equal(lock_from_a_child(f, path), -EBUSY);
	io_device_close(first);
	assert_int_equal(lock_from_a_child(f, path), 0);
	first = device_open(f, IO_DEVICE_LOCK);
	assert_int_equal(lock_from_a_child(f, path), -EBUSY);
	io_device_close(first);
}

/* A second name, as a container has it where one file is bound into it, is not a second device. */
static void
lock_excludes_other_names(void **state)
{
	struct fixture *f = *state;
	struct io_device *device = device_open(f, IO_DEVICE_LOCK);
	char path[128], other[160];

	device_path(f, path, sizeof(path));
	(void)snprintf(other, sizeof(other), "%s.other", path);
	assert_int_equal(link(path, other), 0);
	assert_int_equal(lock_from_a_child(f, other), -EBUSY);
	io_device_close(device);
	assert_int_equal(lock_from_a_child(f, other), 0);
}

/* A process takes the lock, forks a child that stays, and dies: the lock is free while that child lives. */
static void
lock_ends_with_its_process(void **state)
{
	struct fixture *f = *state;
	struct io_device *device = device_open(f, 0);
	int stay[2], born[2], status;
	char path[128], c;
	pid_t pid;

	device_path(f, path, sizeof(path));
	assert_int_equal(pipe(stay), 0);
	assert_int_equal(pipe(born), 0);
	pid = fork();
	if (pid == 0) {
		struct io_device *mine;
		struct io *io;

		if (fixture_io_create(f, &io) != 0 ||
		    io_device_open(io, path, IO_DEVICE_LOCK, &mine) != 0) {
			_exit(1);
		}
		if (fork() == 0) {
			(void)close(stay[1]);
			(void)close(born[0]);
			(void)!write(born[1], "x", 1);
			(void)!read(stay[0], &c, 1); /* until the test closes its end */
			_exit(0);
		}
		(void)!read(born[0], &c, 1);
		_exit(0);
	}
	(void)close(born[1]);
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_int_equal(WEXITSTATUS(status), 0);
	assert_int_equal(lock_from_a_child(f, path), 0);
	io_device_close(device);
	(void)close(stay[0]);
	(void)close(stay[1]);
	(void)close(born[0]);
}

/* A forked child that inherited the table of locks does not hold them: it can take one only when the parent has let go. */
static void
lock_is_not_inherited(void **state)
{
	struct fixture *f = *state;
	struct io_device *device = device_open(f, IO_DEVICE_LOCK);
	int go[2], tried[2], status;
	char path[128], c;
	pid_t pid;

	device_path(f, path, sizeof(path));
	assert_int_equal(pipe(go), 0);
	assert_int_equal(pipe(tried), 0);
	pid = fork();
	if (pid == 0) {
		struct io_device *mine;
		struct io *io;

		if (fixture_io_create(f, &io) != 0 ||
		    io_device_open(io, path, IO_DEVICE_LOCK, &mine) != -EBUSY) {
			_exit(1);
		}
		(void)close(go[1]);
		(void)!write(tried[1], "x", 1);
		(void)!read(go[0], &c, 1);
		_exit(io_device_open(io, path, IO_DEVICE_LOCK, &mine) == 0 ? 0 : 2);
	}
	(void)close(tried[1]);
	(void)!read(tried[0], &c, 1); /* or its end, when the child failed */
	io_device_close(device);
	(void)close(go[1]);
	(void)close(tried[0]);
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_int_equal(WEXITSTATUS(status), 0);
	(void)close(go[0]);
}

int
main(void)
{
	const struct body bodies[] = {
		BODY(write_then_read),
		BODY(more_iovecs_than_a_call_takes),
		BODY(bad_operations),
		BODY_REAL(file_changes_its_size),
		BODY(queue_is_bounded),
		BODY(operations_from_callbacks),
		BODY(registered_memory),
		BODY(registered_memory_is_replaced),
		BODY_REAL(goes_buffered_and_says_so),
		BODY_REAL(works_on_tmpfs),
		BODY_REAL(direct_refused_later),
		BODY_REAL(block_device),
		BODY(open_errors),
		BODY_REAL(lock_excludes_other_processes),
		BODY_REAL(lock_excludes_other_names),
		BODY_REAL(lock_ends_with_its_process),
		BODY_REAL(lock_is_not_inherited),
	};

	return run_bodies("device", bodies, ARRAY_SIZE(bodies));
}
