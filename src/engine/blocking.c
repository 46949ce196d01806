#include "engine/blocking.h"

#include <stdlib.h>

#include "base/base.h"

struct waiting {
	struct io_op op;
	struct iovec iov;
	int64_t result;
	bool done;
};

static void
op_done(void *arg, int64_t result)
{
	struct waiting *w = arg;

	w->result = result;
	w->done = true;
}

int
blocking_wait(struct io *io, const bool *done)
{
	while (!*done) {
		int rc = io_run(io, UINT64_MAX);

		if (rc < 0) {
			return rc;
		}
	}
	return 0;
}

static int
wait_result(struct io *io, struct waiting *w)
{
	int rc = blocking_wait(io, &w->done);

	/* A loop that broke with the operation under way would leave it pointing into our stack. */
	HR_ASSERTF(rc == 0, "rc=%d", rc);
	return w->result < 0 ? (int)w->result : 0;
}

int
blocking_read(struct io *io, struct io_device *device, uint64_t off, void *buf, size_t len)
{
	struct waiting w = { .iov = { buf, len } };

	io_device_read(device, &w.op, &w.iov, 1, off, op_done, &w);
	return wait_result(io, &w);
}

int
blocking_write(struct io *io, struct io_device *device, uint64_t off, const void *buf, size_t len,
	       unsigned flags)
{
	struct waiting w = { .iov = { (void *)(uintptr_t)buf, len } };

	io_device_write(device, &w.op, &w.iov, 1, off, flags, op_done, &w);
	return wait_result(io, &w);
}

int
blocking_sync(struct io *io, struct io_device *device)
{
	struct waiting w = { .done = false };

	io_device_sync(device, &w.op, op_done, &w);
	return wait_result(io, &w);
}

void *
page_alloc(size_t bytes)
{
	void *p;

	bytes = align_up(bytes, 4096);
	if (posix_memalign(&p, 4096, bytes) != 0) {
		return NULL;
	}
	memset(p, 0, bytes);
	return p;
}
