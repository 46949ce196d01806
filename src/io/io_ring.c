/* io_ring.c - see io_ring.h */
#include "io/io_ring.h"

#include <errno.h>
#include <stdlib.h>

enum { REAP_BATCH = 64, RING_SUBMIT_TRIES_MAX = 1000, RING_ENTRIES_MIN = 32 };

/* What the backends use; a kernel that lacks one of these is treated as one that refuses io_uring. */
static const int ring_opcodes[] = { IORING_OP_READV,   IORING_OP_WRITEV,     IORING_OP_READ,
				    IORING_OP_WRITE,   IORING_OP_READ_FIXED, IORING_OP_WRITE_FIXED,
				    IORING_OP_FSYNC,   IORING_OP_POLL_ADD,   IORING_OP_ASYNC_CANCEL,
				    IORING_OP_SENDMSG, IORING_OP_RECVMSG,    IORING_OP_ACCEPT,
				    IORING_OP_CONNECT };

static int
ring_probe(struct io_uring *uring)
{
	struct io_uring_probe *probe = io_uring_get_probe_ring(uring);
	int rc = 0;
	size_t i;

	if (probe == NULL) {
		return -ENOSYS;
	}
	for (i = 0; i < ARRAY_SIZE(ring_opcodes) && rc == 0; i++) {
		rc = io_uring_opcode_supported(probe, ring_opcodes[i]) ? 0 : -ENOSYS;
	}
	io_uring_free_probe(probe);
	return rc;
}

/* Where the loop sleeps in the ring itself, completions need not interrupt it (COOP_TASKRUN, Linux 5.19). An epoll_wait() beside the
 * ring does want to be interrupted. */
static int
ring_init_sized(struct io *io, struct io_uring *uring, unsigned entries)
{
	int rc;

	if (io->net_ops == &net_uring_ops) {
		rc = io_uring_queue_init(entries, uring,
					 IORING_SETUP_CLAMP | IORING_SETUP_COOP_TASKRUN |
					     IORING_SETUP_TASKRUN_FLAG);
		if (rc != -EINVAL) {
			return rc;
		}
	}
	return io_uring_queue_init(entries, uring, IORING_SETUP_CLAMP);
}

/* Ring memory counts against the memory-lock limit of unprivileged users: a smaller ring is better than none. */
static int
ring_init(struct io *io, struct io_uring *uring)
{
	unsigned entries = io->options.ring_entries;
	int rc;

	rc = ring_init_sized(io, uring, entries);
	while (rc == -ENOMEM && entries > RING_ENTRIES_MIN) {
		entries /= 2;
		rc = ring_init_sized(io, uring, entries);
	}
	return rc;
}

int
io_ring_get(struct io *io, struct io_ring **ret_ring)
{
	struct io_ring *ring = io->ring;
	int rc;

	if (ring == NULL) {
		ring = calloc(1, sizeof(*ring));
		if (ring == NULL) {
			return -ENOMEM;
		}
		rc = ring_init(io, &ring->uring);
		if (rc == 0) {
			rc = ring_probe(&ring->uring);
			if (rc != 0) {
				io_uring_queue_exit(&ring->uring);
			}
		}
		if (rc != 0) {
			free(ring);
			return rc;
		}
		/* A child of fork() must not find the parent's ring in its memory. */
		(void)io_uring_ring_dontfork(&ring->uring);
		io->ring = ring;
	}
	ring->refs++;
	*ret_ring = ring;
	return 0;
}

void
io_ring_put(struct io *io)
{
	struct io_ring *ring = io->ring;

	if (--ring->refs == 0) {
		io_uring_queue_exit(&ring->uring);
		free(ring);
		io->ring = NULL;
	}
}

void
io_ring_submit(struct io_ring *ring)
{
	int rc;

	do {
		rc = io_uring_submit(&ring->uring);
	} while (rc == -EINTR);
	/* -EAGAIN and -EBUSY: no memory, or completions to be collected first. The entries stay; the next turn tries again. */
	HR_ASSERTF(rc >= 0 || rc == -EAGAIN || rc == -EBUSY, "io_uring_submit: %d", rc);
}

struct io_uring_sqe *
io_ring_sqe(struct io *io)
{
	struct io_ring *ring = io->ring;
	struct io_uring_sqe *sqe = io_uring_get_sqe(&ring->uring);
	unsigned tries;

	for (tries = 0; sqe == NULL; tries++) {
		HR_ASSERT(tries < RING_SUBMIT_TRIES_MAX);
		io_ring_submit(ring);
		sqe = io_uring_get_sqe(&ring->uring);
		if (sqe == NULL) {
			io_ring_reap(io);
		}
	}
	return sqe;
}

void
io_ring_reap(struct io *io)
{
	struct io_uring *uring = &io->ring->uring;
	struct io_uring_cqe *cqes[REAP_BATCH];
	struct {
		uintptr_t data;
		int res;
	} batch[REAP_BATCH];
	unsigned count, i;

	if (io_uring_cq_has_overflow(uring)) {
		(void)io_uring_get_events(uring);
	}
	while ((count = io_uring_peek_batch_cqe(uring, cqes, REAP_BATCH)) > 0) {
		/* Copied and given back first: a completion may submit the rest of its operation, and that may come here again. */
		for (i = 0; i < count; i++) {
			batch[i].data = (uintptr_t)io_uring_cqe_get_data64(cqes[i]);
			batch[i].res = cqes[i]->res;
		}
		io_uring_cq_advance(uring, count);
		for (i = 0; i < count; i++) {
			uintptr_t data = batch[i].data;

			if ((data & RING_TAG_OP) != 0 && data != (uintptr_t)LIBURING_UDATA_TIMEOUT) {
				io->ring->op_complete(io, (struct io_op *)(data - RING_TAG_OP),
						      batch[i].res);
			} else if (data != 0 && data != (uintptr_t)LIBURING_UDATA_TIMEOUT) {
				struct ring_req *req = (struct ring_req *)data;

				req->complete(io, req, batch[i].res);
			}
		}
	}
}
