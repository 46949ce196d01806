/* disk_uring.c - device operations by io_uring.
 *
 * What:       registered files; registered buffers for operations of one iovec inside memory that io_memory_register() was told of;
 *             vectored requests for the others. Completions wake the loop by an eventfd, unless the net backend waits in the same
 *             ring. Memory is registered piece by piece, one a turn, when warm.c has made the piece's pages resident.
 * Limits:     at most `ring_entries` requests in the kernel; DISK_FILES_MAX devices and DISK_BUFFERS_MAX pieces are registered,
 *             others work unregistered.
 * Tests:      tests/unit/io/test_device.c
 */
#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "io/io_ring.h"
#include "io/warm.h"

enum { DISK_FILES_MAX = 64, DISK_BUFFERS_MAX = 4096 };
#define DISK_REQUEST_BYTES_MAX GiB(1)

/* A registered piece of memory. */
struct disk_piece {
	uint8_t *base;
	size_t len;
	unsigned slot; /* in the ring's table */
};

struct disk_uring {
	struct io_ring *ring;
	unsigned inflight_max;
	bool files_registered;
	bool files_used[DISK_FILES_MAX];
	struct warm *warm;	   /* NULL: no memory is to be registered */
	struct disk_piece *pieces; /* by address; DISK_BUFFERS_MAX of them, with `warm` */
	unsigned pieces_count;
	bool slots_used[DISK_BUFFERS_MAX];
	struct io_pollee event;
};

/* -- requests ------------------------------------------------------------------------------------------------------------------- */

/* The first piece that ends behind `at`. */
static unsigned
piece_behind(const struct disk_uring *disk, const uint8_t *at)
{
	unsigned low = 0, high = disk->pieces_count;

	while (low < high) {
		unsigned mid = (low + high) / 2;

		if (disk->pieces[mid].base + disk->pieces[mid].len <= at) {
			low = mid + 1;
		} else {
			high = mid;
		}
	}
	return low;
}

static int
buffer_find(const struct disk_uring *disk, const struct iovec *iov)
{
	const uint8_t *at = iov->iov_base;
	unsigned i = piece_behind(disk, at);
	const struct disk_piece *piece = &disk->pieces[i];

	if (i == disk->pieces_count || at < piece->base ||
	    iov->iov_len > (size_t)(piece->base + piece->len - at)) {
		return -1;
	}
	return (int)piece->slot;
}

static void
prep_single(struct disk_uring *disk, struct io_uring_sqe *sqe, const struct io_op *op, int fd,
	    const struct iovec *iov)
{
	unsigned len = (unsigned)HR_MIN((uint64_t)iov->iov_len, DISK_REQUEST_BYTES_MAX);
	uint64_t off = op->off + op->bytes_done;
	int buffer = buffer_find(disk, iov);

	if (buffer >= 0 && op->kind == IO_OP_READ) {
		io_uring_prep_read_fixed(sqe, fd, iov->iov_base, len, off, buffer);
	} else if (buffer >= 0) {
		io_uring_prep_write_fixed(sqe, fd, iov->iov_base, len, off, buffer);
	} else if (op->kind == IO_OP_READ) {
		io_uring_prep_read(sqe, fd, iov->iov_base, len, off);
	} else {
		io_uring_prep_write(sqe, fd, iov->iov_base, len, off);
	}
}

static void
op_prep(struct io *io, struct io_op *op)
{
	struct disk_uring *disk = io->disk;
	struct io_uring_sqe *sqe = io_ring_sqe(io);
	struct io_device *device = op->device;
	int fd = device->file_slot >= 0 ? device->file_slot : device->fd;
	uint64_t off = op->off + op->bytes_done, bytes;
	const struct iovec *iov;
	unsigned count;

	if (op->kind == IO_OP_SYNC) {
		io_uring_prep_fsync(sqe, fd, IORING_FSYNC_DATASYNC);
	} else {
		iov = io_op_rest(op, &count, &bytes);
		if (count == 1) {
			prep_single(disk, sqe, op, fd, iov);
		} else if (op->kind == IO_OP_READ) {
			io_uring_prep_readv(sqe, fd, iov, count, off);
		} else {
			io_uring_prep_writev(sqe, fd, iov, count, off);
		}
		if ((op->flags & IO_WRITE_DSYNC) != 0) {
			sqe->rw_flags = RWF_DSYNC;
		}
	}
	if (device->file_slot >= 0) {
		sqe->flags |= IOSQE_FIXED_FILE;
	}
	io_uring_sqe_set_data64(sqe, (uintptr_t)op | RING_TAG_OP);
}

static void
uring_op_complete(struct io *io, struct io_op *op, int res)
{
	struct disk_uring *disk = io->disk;

	if (!io_op_progress(op, res)) {
		op_prep(io, op); /* Goes to the kernel with the next turn's submission. */
		return;
	}
	disk->ring->disk_inflight--;
	io_op_complete(io, op, op->result);
}

static bool
uring_submit(struct io *io, struct io_op *op)
{
	struct disk_uring *disk = io->disk;

	if (disk->ring->disk_inflight >= disk->inflight_max) {
		return false;
	}
	disk->ring->disk_inflight++;
	op_prep(io, op);
	return true;
}

static void
uring_flush(struct io *io)
{
	struct disk_uring *disk = io->disk;

	/* Without an eventfd the net backend waits in this ring and submits with the same call. */
	if (disk->event.fd >= 0 && io_uring_sq_ready(&disk->ring->uring) > 0) {
		io_ring_submit(disk->ring);
	}
}

/* -- waiting -------------------------------------------------------------------------------------------------------------------- */

/* The eventfd is only told while somebody sleeps. Order: enable, then look at the queue, then sleep. */
static bool
uring_wait_prepare(struct io *io)
{
	struct disk_uring *disk = io->disk;

	uring_flush(io);
	if (disk->event.fd >= 0) {
		(void)io_uring_cq_eventfd_toggle(&disk->ring->uring, true);
		atomic_thread_fence(memory_order_seq_cst);
	}
	return io_uring_cq_ready(&disk->ring->uring) > 0;
}

/* One piece a turn. A refusal (the memory-lock limit, most often) ends it: I/O goes on without. */
static void
piece_register(struct io *io)
{
	struct disk_uring *disk = io->disk;
	unsigned slot = 0, at;
	struct iovec piece;
	__u64 tag = 0;
	int rc;

	if (!warm_next(disk->warm, &piece)) {
		return;
	}
	while (slot < DISK_BUFFERS_MAX && disk->slots_used[slot]) {
		slot++;
	}
	rc = slot == DISK_BUFFERS_MAX
		 ? -ENOBUFS
		 : io_uring_register_buffers_update_tag(&disk->ring->uring, slot, &piece, &tag, 1);
	if (rc < 0) {
		io_memory_unregistered(io, rc);
		warm_destroy(disk->warm);
		disk->warm = NULL;
		return;
	}
	at = piece_behind(disk, piece.iov_base);
	memmove(&disk->pieces[at + 1], &disk->pieces[at],
		(disk->pieces_count - at) * sizeof(disk->pieces[0]));
	disk->pieces[at] =
	    (struct disk_piece){ .base = piece.iov_base, .len = piece.iov_len, .slot = slot };
	disk->pieces_count++;
	disk->slots_used[slot] = true;
	io->counters.registered_bytes += piece.iov_len;
	io_wake(io); /* for the next one */
}

static void
uring_reap(struct io *io)
{
	struct disk_uring *disk = io->disk;

	if (disk->event.fd >= 0) {
		(void)io_uring_cq_eventfd_toggle(&disk->ring->uring, false);
	}
	io_ring_reap(io);
	uring_flush(io);
	if (disk->warm != NULL) {
		piece_register(io);
	}
}

static void
event_ready(struct io *io, struct io_pollee *pollee, unsigned revents)
{
	uint64_t count;

	(void)io;
	(void)revents;
	if (read(pollee->fd, &count, sizeof(count)) < 0) {
		/* EAGAIN: told twice of one completion. */
	}
}

static int
event_create(struct io *io, struct disk_uring *disk)
{
	int rc;

	disk->event.fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
	if (disk->event.fd < 0) {
		return -errno;
	}
	disk->event.want = POLLIN;
	disk->event.level = true;
	disk->event.ready = event_ready;
	rc = io_uring_register_eventfd(&disk->ring->uring, disk->event.fd);
	if (rc == 0) {
		rc = io->net_ops->pollee_add(io, &disk->event);
	}
	if (rc != 0) {
		(void)close(disk->event.fd);
		disk->event.fd = -1;
	}
	return rc;
}

/* -- set-up ---------------------------------------------------------------------------------------------------------------------- */

static int
uring_create(struct io *io)
{
	struct disk_uring *disk;
	int files[DISK_FILES_MAX];
	unsigned i;
	int rc;

	disk = calloc(1, sizeof(*disk));
	if (disk == NULL) {
		return -ENOMEM;
	}
	disk->event.fd = -1;
	rc = io_ring_get(io, &disk->ring);
	if (rc != 0) {
		free(disk);
		return rc;
	}
	if (io->net_ops != &net_uring_ops) {
		rc = event_create(io, disk);
		if (rc != 0) {
			io_ring_put(io);
			free(disk);
			return rc;
		}
	}
	for (i = 0; i < DISK_FILES_MAX; i++) {
		files[i] = -1;
	}
	disk->files_registered =
	    io_uring_register_files(&disk->ring->uring, files, DISK_FILES_MAX) == 0;
	disk->inflight_max = disk->ring->uring.sq.ring_entries;
	disk->ring->op_complete = uring_op_complete;
	io->disk = disk;
	return 0;
}

static void
uring_destroy(struct io *io)
{
	struct disk_uring *disk = io->disk;

	HR_ASSERT(disk->ring->disk_inflight == 0);
	if (disk->event.fd >= 0) {
		io->net_ops->pollee_del(io, &disk->event);
		(void)io_uring_unregister_eventfd(&disk->ring->uring);
		(void)close(disk->event.fd);
	}
	io_ring_put(io);
	warm_destroy(disk->warm);
	free(disk->pieces);
	free(disk);
	io->disk = NULL;
}

static int
uring_device_open(struct io_device *device)
{
	struct disk_uring *disk = device->io->disk;
	int rc, slot;

	rc = device_file_open(device);
	if (rc != 0 || !disk->files_registered) {
		return rc;
	}
	for (slot = 0; slot < DISK_FILES_MAX; slot++) {
		if (!disk->files_used[slot] &&
		    io_uring_register_files_update(&disk->ring->uring, (unsigned)slot, &device->fd,
						   1) == 1) {
			disk->files_used[slot] = true;
			device->file_slot = slot;
			break;
		}
	}
	return 0;
}

static void
uring_device_close(struct io_device *device)
{
	struct disk_uring *disk = device->io->disk;
	int none = -1;

	if (device->file_slot >= 0) {
		(void)io_uring_register_files_update(&disk->ring->uring,
						     (unsigned)device->file_slot, &none, 1);
		disk->files_used[device->file_slot] = false;
		device->file_slot = -1;
	}
	device_file_close(device);
}

static int
uring_memory_register(struct io *io, void *base, size_t len)
{
	struct disk_uring *disk = io->disk;
	int rc;

	if (disk->pieces == NULL) {
		rc = io_uring_register_buffers_sparse(&disk->ring->uring, DISK_BUFFERS_MAX);
		if (rc != 0) {
			return rc;
		}
		disk->pieces = calloc(DISK_BUFFERS_MAX, sizeof(*disk->pieces));
		rc = disk->pieces == NULL ? -ENOMEM : warm_create(io, &disk->warm);
		if (rc != 0) {
			return rc;
		}
	}
	/* Without it there was a refusal before. */
	return disk->warm == NULL ? -ENOMEM : warm_add(disk->warm, base, len);
}

static void
uring_memory_unregister(struct io *io, void *base, size_t len)
{
	struct disk_uring *disk = io->disk;
	unsigned first, end;

	if (disk->warm != NULL) {
		warm_forget(disk->warm, base, len);
	}
	first = piece_behind(disk, base);
	for (end = first;
	     end < disk->pieces_count && disk->pieces[end].base < (uint8_t *)base + len; end++) {
		struct iovec nothing = { 0 };
		__u64 tag = 0;
		unsigned slot = disk->pieces[end].slot;

		io->counters.registered_bytes -= disk->pieces[end].len;
		/* A slot that cannot be emptied is not used again: it may still stand for the old pages. */
		disk->slots_used[slot] = io_uring_register_buffers_update_tag(&disk->ring->uring,
									      slot, &nothing, &tag,
									      1) < 0;
	}
	if (end > first) {
		memmove(&disk->pieces[first], &disk->pieces[end],
			(disk->pieces_count - end) * sizeof(disk->pieces[0]));
		disk->pieces_count -= end - first;
	}
}

const struct io_disk_ops disk_uring_ops = {
	.name = "io_uring",
	.create = uring_create,
	.destroy = uring_destroy,
	.device_open = uring_device_open,
	.device_close = uring_device_close,
	.submit = uring_submit,
	.flush = uring_flush,
	.wait_prepare = uring_wait_prepare,
	.reap = uring_reap,
	.memory_register = uring_memory_register,
	.memory_unregister = uring_memory_unregister,
};
