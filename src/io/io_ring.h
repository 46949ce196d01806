/* io_ring.h - one io_uring of one thread, used by disk_uring.c, by net_uring.c, or by both together.
 *
 * What:       set-up and probing, submission entries, and giving completions to whoever asked.
 * Threads:    the io's own.
 * Ownership:  counted by its users; the last put tears it down. Requests must have completed by then, since the kernel holds
 *             their memory.
 * Tests:      tests/unit/io/
 */
#ifndef HR_IO_IO_RING_H
#define HR_IO_IO_RING_H

#include <liburing.h>

#include "io/io_impl.h"

/* What user_data points at, except for device operations, which carry the tag. 0 is for requests whose end nobody awaits. */
struct ring_req {
	void (*complete)(struct io *io, struct ring_req *req, int res);
};
enum { RING_TAG_OP = 1 };

struct io_ring {
	struct io_uring uring;
	unsigned refs;
	unsigned disk_inflight;
	void (*op_complete)(struct io *io, struct io_op *op, int res);
};

int io_ring_get(struct io *io, struct io_ring **ret_ring);
void io_ring_put(struct io *io);
/* Never NULL: a full queue is submitted first, and completions are collected where the kernel wants that before. */
struct io_uring_sqe *io_ring_sqe(struct io *io);
void io_ring_submit(struct io_ring *ring);
void io_ring_reap(struct io *io);

#endif
