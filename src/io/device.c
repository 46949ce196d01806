/* device.c - device operations: checks, the bounded queue in front of the backend, continuation of short ones. */
#include <errno.h>
#include <stdlib.h>
#include <sys/stat.h>

#include "io/io_impl.h"

/* Where bytes_done lies in the iovecs, so that a long list is not walked from its start each time; and whether the device was
 * direct when the operation was given to the backend, whose workers must not look at what the loop may change. */
enum { PRIV_IOV_IDX, PRIV_IOV_BYTES, PRIV_DIRECT };

const struct iovec *
io_op_rest(struct io_op *op, unsigned *ret_count, uint64_t *ret_bytes)
{
	uint64_t idx = op->priv[PRIV_IOV_IDX];
	uint64_t before_bytes = op->priv[PRIV_IOV_BYTES];
	uint64_t skip_bytes, bytes = 0;
	unsigned count, i;

	while (idx < op->iov_count && before_bytes + op->iov[idx].iov_len <= op->bytes_done) {
		before_bytes += op->iov[idx].iov_len;
		idx++;
	}
	HR_ASSERT(idx < op->iov_count);
	op->priv[PRIV_IOV_IDX] = idx;
	op->priv[PRIV_IOV_BYTES] = before_bytes;
	skip_bytes = op->bytes_done - before_bytes;
	if (skip_bytes > 0) {
		/* In the middle of one: its rest goes alone, then the list can be used as it is again. */
		op->iov_one.iov_base = (char *)op->iov[idx].iov_base + skip_bytes;
		op->iov_one.iov_len = op->iov[idx].iov_len - skip_bytes;
		*ret_count = 1;
		*ret_bytes = op->iov_one.iov_len;
		return &op->iov_one;
	}
	count = HR_MIN(op->iov_count - (unsigned)idx, (unsigned)IO_IOV_MAX);
	for (i = 0; i < count; i++) {
		bytes += op->iov[idx + i].iov_len;
	}
	*ret_count = count;
	*ret_bytes = bytes;
	return &op->iov[idx];
}

bool
io_op_progress(struct io_op *op, int64_t rc)
{
	uint64_t bytes;

	if (rc == -EINTR || (rc == -EAGAIN && op->kind != IO_OP_SYNC)) {
		return false;
	}
	if (rc < 0 || op->kind == IO_OP_SYNC) {
		op->result = rc;
		return true;
	}
	bytes = op->bytes_done + (uint64_t)rc;
	if (bytes < op->bytes_total && op->priv[PRIV_DIRECT] != 0) {
		/* Goes on where O_DIRECT can; the torn piece is done again. */
		bytes = align_down(bytes, IO_ALIGN_BYTES);
	}
	if (bytes <= op->bytes_done) {
		op->result = -EIO; /* Nothing moved: the device ends here, whatever its size says. */
		return true;
	}
	op->bytes_done = bytes;
	if (bytes < op->bytes_total) {
		return false;
	}
	op->result = (int64_t)op->bytes_total;
	return true;
}

static void
op_count(struct io *io, const struct io_op *op)
{
	struct io_counters *c = &io->counters;

	if (op->result < 0) {
		c->device_errors++;
		return;
	}
	switch (op->kind) {
	case IO_OP_READ:
		c->device_reads++;
		c->device_read_bytes += op->bytes_total;
		break;
	case IO_OP_WRITE:
		c->device_writes++;
		c->device_write_bytes += op->bytes_total;
		break;
	default:
		c->device_syncs++;
		break;
	}
}

void
io_op_complete(struct io *io, struct io_op *op, int64_t result)
{
	if (result == -EINVAL && op->kind != IO_OP_SYNC && device_file_drop_direct(op->device)) {
		/* It was aligned: the file system refuses O_DIRECT for this after all. Again, buffered. */
		list_add_tail(&io->queue, &op->link);
		io->queue_count++;
		return;
	}
	op->result = result;
	op_count(io, op);
	list_add_tail(&io->ops_done, &op->link);
}

void
io_pump(struct io *io)
{
	bool any = false;

	while (!list_empty(&io->queue)) {
		struct io_op *op = list_first_entry(&io->queue, struct io_op, link);

		list_del(&op->link);
		op->priv[PRIV_DIRECT] = op->device->info.direct;
		if (!io->disk_ops->submit(io, op)) {
			list_add(&io->queue, &op->link);
			break;
		}
		io->queue_count--;
		any = true;
	}
	if (any) {
		io->disk_ops->flush(io);
	}
}

/* -- checks ------------------------------------------------------------------------------------------------------------------- */

/* The same rules on every backend, so that what passes on a laptop's tmpfs passes on a raw drive. */
static int
op_check(const struct io_op *op)
{
	unsigned i;

	if (!is_aligned(op->off, IO_ALIGN_BYTES)) {
		return -EINVAL;
	}
	for (i = 0; i < op->iov_count; i++) {
		if (!is_aligned((uintptr_t)op->iov[i].iov_base, IO_ALIGN_BYTES) ||
		    !is_aligned(op->iov[i].iov_len, IO_ALIGN_BYTES)) {
			return -EINVAL;
		}
	}
	return 0;
}

/* A regular file may have been made longer since it was opened. */
static bool
device_holds(struct io_device *device, uint64_t off, uint64_t len)
{
	struct io_device_info *info = &device->info;
	struct stat st;

	if (off <= info->size_bytes && len <= info->size_bytes - off) {
		return true;
	}
	if (device->fd < 0 || info->block_device || fstat(device->fd, &st) != 0) {
		return false;
	}
	info->size_bytes = (uint64_t)st.st_size;
	return off <= info->size_bytes && len <= info->size_bytes - off;
}

bool
io_device_crowded(const struct io_device *device)
{
	return device->io->queue_count >= IO_DEVICE_QUEUE_MAX / 2;
}

static int64_t
op_admit(struct io_device *device, struct io_op *op)
{
	struct io *io = device->io;
	unsigned i;
	int rc;

	if (io->queue_count >= IO_DEVICE_QUEUE_MAX) {
		io->counters.device_queue_refused++;
		return -EAGAIN;
	}
	if (op->kind == IO_OP_SYNC) {
		return 1;
	}
	if (op->kind == IO_OP_WRITE && (device->flags & IO_DEVICE_READONLY) != 0) {
		return -EBADF;
	}
	rc = op_check(op);
	if (rc != 0) {
		return rc;
	}
	for (i = 0; i < op->iov_count; i++) {
		op->bytes_total += op->iov[i].iov_len;
	}
	if (!device_holds(device, op->off, op->bytes_total)) {
		return -EIO;
	}
	return op->bytes_total > 0; /* 0 bytes are there already */
}

static void
op_start(struct io_device *device, struct io_op *op, enum io_op_kind kind, io_op_cb cb, void *arg)
{
	struct io *io = device->io;
	int64_t rc;

	HR_ASSERT(op->kind == IO_OP_IDLE);
	op->device = device;
	op->kind = kind;
	op->cb = cb;
	op->arg = arg;
	op->bytes_total = 0;
	op->bytes_done = 0;
	op->result = 0;
	memset(op->priv, 0, sizeof(op->priv));
	device->ops_count++;
	rc = op_admit(device, op);
	if (rc <= 0) {
		op->result = rc;
		io->counters.device_errors += rc < 0;
		list_add_tail(&io->ops_done, &op->link);
		return;
	}
	list_add_tail(&io->queue, &op->link);
	io->queue_count++;
	io->counters.device_queue_high = HR_MAX(io->counters.device_queue_high, io->queue_count);
}

/* -- calls of io.h -------------------------------------------------------------------------------------------------------------- */

int
io_device_open(struct io *io, const char *path, unsigned flags, struct io_device **ret_device)
{
	struct io_device *device;
	int rc;

	if (strlen(path) >= sizeof(device->path)) {
		return -ENAMETOOLONG;
	}
	device = calloc(1, sizeof(*device));
	if (device == NULL) {
		return -ENOMEM;
	}
	device->io = io;
	device->fd = -1;
	device->file_slot = -1;
	device->flags = flags;
	memcpy(device->path, path, strlen(path) + 1);
	rc = io->disk_ops->device_open(device);
	if (rc != 0) {
		free(device);
		return rc;
	}
	io->devices_count++;
	*ret_device = device;
	return 0;
}

void
io_device_close(struct io_device *device)
{
	struct io *io = device->io;

	HR_ASSERTF(device->ops_count == 0, "%u operations are under way", device->ops_count);
	io->disk_ops->device_close(device);
	io->devices_count--;
	io_bury(io, &device->object);
}

void
io_device_info_get(const struct io_device *device, struct io_device_info *ret)
{
	*ret = device->info;
}

void
io_device_read(struct io_device *device, struct io_op *op, const struct iovec *iov,
	       unsigned iov_count, uint64_t off, io_op_cb cb, void *arg)
{
	op->iov = iov;
	op->iov_count = iov_count;
	op->off = off;
	op->flags = 0;
	op_start(device, op, IO_OP_READ, cb, arg);
}

void
io_device_write(struct io_device *device, struct io_op *op, const struct iovec *iov,
		unsigned iov_count, uint64_t off, unsigned flags, io_op_cb cb, void *arg)
{
	op->iov = iov;
	op->iov_count = iov_count;
	op->off = off;
	op->flags = flags;
	op_start(device, op, IO_OP_WRITE, cb, arg);
}

void
io_device_sync(struct io_device *device, struct io_op *op, io_op_cb cb, void *arg)
{
	op->iov = NULL;
	op->iov_count = 0;
	op->off = 0;
	op->flags = 0;
	op_start(device, op, IO_OP_SYNC, cb, arg);
}

int
io_memory_register(struct io *io, void *base, size_t len)
{
	int rc = io->disk_ops->memory_register(io, base, len);

	if (rc < 0) {
		io_memory_unregistered(io, rc);
	}
	return rc;
}

void
io_memory_unregister(struct io *io, void *base, size_t len)
{
	io->disk_ops->memory_unregister(io, base, len);
}
