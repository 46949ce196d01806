/* disk_pread.c - device operations by plain system calls in worker threads.
 *
 * What:       the backend for kernels and containers that refuse io_uring. Workers take operations from a list, do them to their
 *             end, and put them on another list; an eventfd tells the loop.
 * Threads:    `mutex` guards the two lists and `stopping`. An operation belongs to the worker between the lists.
 * Ownership:  the threads start with the first operation and are joined by destroy.
 * Tests:      tests/unit/io/test_device.c
 */
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <sys/uio.h>
#include <unistd.h>

#include "io/io_impl.h"

struct disk_pread {
	pthread_mutex_t mutex;
	pthread_cond_t work;
	struct list_head todo, done;
	bool stopping;
	atomic_bool any_done;
	struct io_pollee event;
	pthread_t *threads;
	unsigned threads_count;
	unsigned inflight; /* the loop's */
};

static int64_t
op_call(struct io_op *op)
{
	uint64_t off = op->off + op->bytes_done, bytes;
	const struct iovec *iov;
	unsigned count;
	int64_t rc;

	if (op->kind == IO_OP_SYNC) {
		rc = fdatasync(op->device->fd);
		return rc < 0 ? -errno : rc;
	}
	iov = io_op_rest(op, &count, &bytes);
	if (op->kind == IO_OP_READ) {
		rc = preadv(op->device->fd, iov, (int)count, (off_t)off);
	} else {
		rc = pwritev2(op->device->fd, iov, (int)count, (off_t)off,
			      (op->flags & IO_WRITE_DSYNC) != 0 ? RWF_DSYNC : 0);
	}
	return rc < 0 ? -errno : rc;
}

static void *
worker_main(void *arg)
{
	struct disk_pread *disk = arg;
	uint64_t one = 1;

	(void)pthread_mutex_lock(&disk->mutex);
	while (!disk->stopping) {
		struct io_op *op = list_pop_entry(&disk->todo, struct io_op, link);
		bool first;

		if (op == NULL) {
			(void)pthread_cond_wait(&disk->work, &disk->mutex);
			continue;
		}
		(void)pthread_mutex_unlock(&disk->mutex);
		while (!io_op_progress(op, op_call(op))) {
			/* short: the rest */
		}
		(void)pthread_mutex_lock(&disk->mutex);
		first = list_empty(&disk->done);
		list_add_tail(&disk->done, &op->link);
		atomic_store_explicit(&disk->any_done, true, memory_order_release);
		if (first && write(disk->event.fd, &one, sizeof(one)) < 0) {
			/* Full: the loop has been told. */
		}
	}
	(void)pthread_mutex_unlock(&disk->mutex);
	return NULL;
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

/* Workers take no signals: those are the program's. */
static int
threads_start(struct io *io)
{
	struct disk_pread *disk = io->disk;
	unsigned want = io->options.pread_threads;
	sigset_t all, old;
	int rc = 0;

	disk->threads = calloc(want, sizeof(*disk->threads));
	if (disk->threads == NULL) {
		return -ENOMEM;
	}
	(void)sigfillset(&all);
	(void)pthread_sigmask(SIG_SETMASK, &all, &old);
	while (disk->threads_count < want) {
		rc = pthread_create(&disk->threads[disk->threads_count], NULL, worker_main, disk);
		if (rc != 0) {
			break;
		}
		disk->threads_count++;
	}
	(void)pthread_sigmask(SIG_SETMASK, &old, NULL);
	if (disk->threads_count > 0) {
		return 0; /* Fewer do, too. */
	}
	free(disk->threads);
	disk->threads = NULL;
	return -rc;
}

static int
pread_create(struct io *io)
{
	struct disk_pread *disk;
	int rc;

	disk = calloc(1, sizeof(*disk));
	if (disk == NULL) {
		return -ENOMEM;
	}
	disk->event.fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
	if (disk->event.fd < 0) {
		rc = -errno;
		free(disk);
		return rc;
	}
	disk->event.want = POLLIN;
	disk->event.level = true;
	disk->event.ready = event_ready;
	rc = io->net_ops->pollee_add(io, &disk->event);
	if (rc != 0) {
		(void)close(disk->event.fd);
		free(disk);
		return rc;
	}
	(void)pthread_mutex_init(&disk->mutex, NULL);
	(void)pthread_cond_init(&disk->work, NULL);
	list_init(&disk->todo);
	list_init(&disk->done);
	io->disk = disk;
	return 0;
}

static void
pread_destroy(struct io *io)
{
	struct disk_pread *disk = io->disk;
	unsigned i;

	(void)pthread_mutex_lock(&disk->mutex);
	disk->stopping = true;
	(void)pthread_cond_broadcast(&disk->work);
	(void)pthread_mutex_unlock(&disk->mutex);
	for (i = 0; i < disk->threads_count; i++) {
		(void)pthread_join(disk->threads[i], NULL);
	}
	free(disk->threads);
	io->net_ops->pollee_del(io, &disk->event);
	(void)close(disk->event.fd);
	(void)pthread_cond_destroy(&disk->work);
	(void)pthread_mutex_destroy(&disk->mutex);
	free(disk);
	io->disk = NULL;
}

static bool
pread_submit(struct io *io, struct io_op *op)
{
	struct disk_pread *disk = io->disk;
	int rc;

	if (disk->threads_count == 0) {
		rc = threads_start(io);
		if (rc != 0) {
			io_op_complete(io, op, rc);
			return true;
		}
	}
	if (disk->inflight >= IO_DISK_INFLIGHT_MAX) {
		return false;
	}
	disk->inflight++;
	(void)pthread_mutex_lock(&disk->mutex);
	list_add_tail(&disk->todo, &op->link);
	(void)pthread_cond_signal(&disk->work);
	(void)pthread_mutex_unlock(&disk->mutex);
	return true;
}

static void
pread_flush(struct io *io)
{
	(void)io;
}

static bool
pread_wait_prepare(struct io *io)
{
	struct disk_pread *disk = io->disk;

	return atomic_load_explicit(&disk->any_done, memory_order_relaxed);
}

static void
pread_reap(struct io *io)
{
	struct disk_pread *disk = io->disk;
	struct list_head done;
	struct io_op *op;

	if (!atomic_load_explicit(&disk->any_done, memory_order_acquire)) {
		return;
	}
	list_init(&done);
	(void)pthread_mutex_lock(&disk->mutex);
	list_splice_tail(&done, &disk->done);
	atomic_store_explicit(&disk->any_done, false, memory_order_relaxed);
	(void)pthread_mutex_unlock(&disk->mutex);
	while ((op = list_pop_entry(&done, struct io_op, link)) != NULL) {
		disk->inflight--;
		io_op_complete(io, op, op->result);
	}
}

/* Plain calls have nothing to register; the memory is as good as any. */
static int
pread_memory_register(struct io *io, void *base, size_t len)
{
	(void)io;
	(void)base;
	(void)len;
	return 0;
}

static void
pread_memory_unregister(struct io *io, void *base, size_t len)
{
	(void)io;
	(void)base;
	(void)len;
}

const struct io_disk_ops disk_pread_ops = {
	.name = "pread",
	.create = pread_create,
	.destroy = pread_destroy,
	.device_open = device_file_open,
	.device_close = device_file_close,
	.submit = pread_submit,
	.flush = pread_flush,
	.wait_prepare = pread_wait_prepare,
	.reap = pread_reap,
	.memory_register = pread_memory_register,
	.memory_unregister = pread_memory_unregister,
};
