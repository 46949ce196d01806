/* io.c - the reactor: timers, due callbacks, choice of backends, clock and randomness.
 *
 * One turn of io_run(): queued device operations go to the disk backend; the net backend tries what was asked since the last turn
 * and waits; what has completed is collected on lists; then timers, device operations and network events run, in that order. A
 * callback that asks for something new is served in the next turn, so that no turn is endless.
 */
#define HR_LOG_COMPONENT "io"
#include "io/io.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <sys/random.h>
#include <time.h>
#include <unistd.h>

#include "base/error.h"
#include "base/log.h"
#include "io/io_impl.h"

/* -- clock and randomness --------------------------------------------------------------------------------------------------- */

uint64_t
clock_monotonic_us(void)
{
	struct timespec ts;

	HR_ASSERT(clock_gettime(CLOCK_MONOTONIC, &ts) == 0);
	return (uint64_t)ts.tv_sec * 1000000 + (uint64_t)ts.tv_nsec / 1000;
}

static void
io_clock_read(struct io *io)
{
	io->now_us = io->sim != NULL ? sim_now_us(io->sim) : clock_monotonic_us();
}

uint64_t
io_now_us(const struct io *io)
{
	return io->sim != NULL ? sim_now_us(io->sim) : io->now_us;
}

uint64_t
io_now_us_fresh(struct io *io)
{
	return io->sim != NULL ? sim_now_us(io->sim) : clock_monotonic_us();
}

uint64_t
io_deadline_us(struct io *io, uint64_t timeout_us)
{
	uint64_t now_us = io_now_us_fresh(io);

	return timeout_us > UINT64_MAX - now_us ? UINT64_MAX : now_us + timeout_us;
}

uint64_t
io_wall_ms(const struct io *io)
{
	struct timespec ts;

	if (io->sim != NULL) {
		return sim_wall_ms(io->sim);
	}
	HR_ASSERT(clock_gettime(CLOCK_REALTIME, &ts) == 0);
	return (uint64_t)ts.tv_sec * 1000 + (uint64_t)ts.tv_nsec / 1000000;
}

uint64_t
io_random_u64(struct io *io)
{
	if (io->sim != NULL) {
		return sim_random(io->sim);
	}
	if (io->random_left == 0) {
		/* 256 bytes and less are given whole and without waiting once the kernel has its entropy. */
		HR_ASSERT(getrandom(io->random, sizeof(io->random), 0) ==
			  (ssize_t)sizeof(io->random));
		io->random_left = ARRAY_SIZE(io->random);
	}
	return io->random[--io->random_left];
}

/* -- timers ----------------------------------------------------------------------------------------------------------------- */

static bool
timer_before(const struct io_timer *a, const struct io_timer *b)
{
	return a->at_us != b->at_us ? a->at_us < b->at_us : a->seq < b->seq;
}

static void
heap_place(struct io *io, uint32_t idx, struct io_timer *timer)
{
	io->heap[idx] = timer;
	timer->heap_idx = idx;
}

static void
heap_up(struct io *io, uint32_t idx)
{
	struct io_timer *timer = io->heap[idx];

	while (idx > 1 && timer_before(timer, io->heap[idx / 2])) {
		heap_place(io, idx, io->heap[idx / 2]);
		idx /= 2;
	}
	heap_place(io, idx, timer);
}

static void
heap_down(struct io *io, uint32_t idx)
{
	struct io_timer *timer = io->heap[idx];

	for (;;) {
		uint32_t child = idx * 2;

		if (child > io->heap_count) {
			break;
		}
		if (child < io->heap_count && timer_before(io->heap[child + 1], io->heap[child])) {
			child++;
		}
		if (!timer_before(io->heap[child], timer)) {
			break;
		}
		heap_place(io, idx, io->heap[child]);
		idx = child;
	}
	heap_place(io, idx, timer);
}

void
io_timer_set(struct io *io, struct io_timer *timer, uint64_t at_us, void (*cb)(void *arg), void *arg)
{
	io_timer_cancel(io, timer);
	if (io->heap_count + 1 >= io->heap_capacity) {
		uint32_t capacity = io->heap_capacity == 0 ? 64 : io->heap_capacity * 2;

		io->heap = realloc(io->heap, capacity * sizeof(*io->heap));
		HR_ASSERT(io->heap != NULL); /* Some bytes per object that holds a timer. */
		io->heap_capacity = capacity;
	}
	/* What is overdue is due now: else a timer set again and again in the past would starve the others. */
	timer->at_us = HR_MAX(at_us, io_now_us(io));
	timer->seq = ++io->timer_seq;
	timer->cb = cb;
	timer->arg = arg;
	io->heap[++io->heap_count] = timer;
	heap_up(io, io->heap_count);
}

void
io_timer_cancel(struct io *io, struct io_timer *timer)
{
	uint32_t idx = timer->heap_idx;
	struct io_timer *last;

	if (idx == 0) {
		return;
	}
	HR_ASSERT(idx <= io->heap_count && io->heap[idx] == timer);
	timer->heap_idx = 0;
	last = io->heap[io->heap_count--];
	if (last != timer) {
		heap_place(io, idx, last);
		heap_up(io, idx);
		heap_down(io, last->heap_idx);
	}
}

bool
io_timer_next(const struct io *io, uint64_t *ret_at_us)
{
	if (io->heap_count == 0) {
		return false;
	}
	*ret_at_us = io->heap[1]->at_us;
	return true;
}

static int
timers_run(struct io *io)
{
	uint64_t seq_last = io->timer_seq;
	uint64_t now_us = io_now_us(io);
	int ran = 0;

	while (io->heap_count > 0) {
		struct io_timer *timer = io->heap[1];

		/* Set in this turn: the next one's. Those set before it are due before it (I: at_us >= now when set). */
		if (timer->at_us > now_us || timer->seq > seq_last) {
			break;
		}
		io_timer_cancel(io, timer);
		if (io->sim != NULL) {
			sim_trace_timer(io->sim, io->sim_id, timer->at_us);
		}
		timer->cb(timer->arg);
		ran++;
	}
	return ran;
}

/* -- due callbacks ------------------------------------------------------------------------------------------------------------ */

void
io_task_queue(struct io *io, struct io_task *task)
{
	if (!task->queued) {
		task->queued = true;
		list_add_tail(&io->tasks, &task->link);
	}
}

void
io_task_drop(struct io_task *task)
{
	if (task->queued) {
		task->queued = false;
		list_del(&task->link);
	}
}

void
io_bury(struct io *io, struct io_object *object)
{
	list_add_tail(&io->dead, &object->link);
}

static void
dead_free(struct io *io)
{
	while (!list_empty(&io->dead)) {
		struct io_object *object = list_first_entry(&io->dead, struct io_object, link);

		list_del(&object->link);
		free(object);
	}
}

static int
ops_run(struct io *io)
{
	struct list_head due;
	int ran = 0;

	list_init(&due);
	list_splice_tail(&due, &io->ops_done);
	while (!list_empty(&due)) {
		struct io_op *op = list_first_entry(&due, struct io_op, link);
		io_op_cb cb = op->cb;
		void *arg = op->arg;
		int64_t result = op->result;

		list_del(&op->link);
		HR_ASSERT(op->device->ops_count > 0);
		op->device->ops_count--;
		op->kind = IO_OP_IDLE;
		cb(arg, result);
		ran++;
	}
	return ran;
}

static int
tasks_run(struct io *io)
{
	struct list_head due;
	int ran = 0;

	list_init(&due);
	list_splice_tail(&due, &io->tasks);
	while (!list_empty(&due)) {
		struct io_task *task = list_first_entry(&due, struct io_task, link);

		io_task_drop(task);
		task->run(io, task);
		ran++;
	}
	return ran;
}

bool
io_has_due(const struct io *io)
{
	return !list_empty(&io->ops_done) || !list_empty(&io->tasks) ||
	       (io->heap_count > 0 && io->heap[1]->at_us <= io_now_us(io));
}

int
io_run_due(struct io *io)
{
	int ran;

	ran = timers_run(io);
	ran += ops_run(io);
	ran += tasks_run(io);
	dead_free(io);
	io->callbacks_count += (uint64_t)ran;
	return ran;
}

static uint64_t
wait_limit_us(struct io *io, uint64_t wait_us_max)
{
	uint64_t at_us;

	if (io_has_due(io)) {
		return 0;
	}
	if (io_timer_next(io, &at_us)) {
		return HR_MIN(wait_us_max, at_us - io->now_us);
	}
	return wait_us_max;
}

/* False: there was a wake since the last wait. */
static bool
wake_wait_begin(struct io *io)
{
	enum io_wake_state none = WAKE_NONE;

	return atomic_compare_exchange_strong(&io->wake_state, &none, WAKE_WAITING);
}

int
io_run(struct io *io, uint64_t wait_us_max)
{
	uint64_t wait_us;
	int rc;

	if (io->sim != NULL) {
		return sim_io_run(io, wait_us_max);
	}
	HR_ASSERT(!io->running);
	io->running = true;
	io_clock_read(io);
	io_pump(io);
	wait_us = wait_limit_us(io, wait_us_max);
	if (wait_us > 0 && (io->disk_ops->wait_prepare(io) || !wake_wait_begin(io))) {
		wait_us = 0;
	}
	rc = io->net_ops->wait(io, wait_us);
	atomic_store(&io->wake_state, WAKE_NONE);
	if (rc == 0) {
		io->disk_ops->reap(io);
		io_clock_read(io);
		rc = io_run_due(io);
	}
	io->running = false;
	return rc;
}

void
io_wake(struct io *io)
{
	uint64_t one = 1;

	if (io->sim != NULL) {
		io->sim_woken = true;
		return;
	}
	if (atomic_exchange(&io->wake_state, WAKE_PENDING) == WAKE_WAITING &&
	    write(io->wake.fd, &one, sizeof(one)) < 0) {
		/* EAGAIN: the counter is full, so the wake is already there. */
	}
}

static void
wake_ready(struct io *io, struct io_pollee *pollee, unsigned revents)
{
	uint64_t count;

	(void)io;
	(void)revents;
	if (read(pollee->fd, &count, sizeof(count)) < 0) {
		/* EAGAIN: told twice of one wake. */
	}
}

/* -- watched descriptors ---------------------------------------------------------------------------------------------------- */

static void
watch_ready(struct io *io, struct io_pollee *pollee, unsigned revents)
{
	struct io_watch *watch = pollee->priv;

	(void)revents;
	io_task_queue(io, &watch->task);
}

static void
watch_run(struct io *io, struct io_task *task)
{
	struct io_watch *watch = container_of(task, struct io_watch, task);

	(void)io;
	watch->cb(watch->arg);
}

int
io_watch_fd(struct io *io, int fd, void (*cb)(void *arg), void *arg, struct io_watch **ret_watch)
{
	struct io_watch *watch;
	int rc;

	if (io->sim != NULL) {
		return -EOPNOTSUPP;
	}
	watch = calloc(1, sizeof(*watch));
	if (watch == NULL) {
		return -ENOMEM;
	}
	watch->io = io;
	watch->cb = cb;
	watch->arg = arg;
	watch->task.run = watch_run;
	watch->pollee = (struct io_pollee){
		.fd = fd, .want = POLLIN, .level = true, .ready = watch_ready, .priv = watch
	};
	rc = io->net_ops->pollee_add(io, &watch->pollee);
	if (rc != 0) {
		free(watch);
		return rc;
	}
	io->watches_count++;
	*ret_watch = watch;
	return 0;
}

void
io_watch_close(struct io_watch *watch)
{
	struct io *io = watch->io;

	HR_ASSERT(!watch->closed);
	watch->closed = true;
	io->net_ops->pollee_del(io, &watch->pollee);
	io_task_drop(&watch->task);
	io->watches_count--;
	io_bury(io, &watch->object);
}

/* -- choice of backends ------------------------------------------------------------------------------------------------------- */

static void
note_add(struct io *io, const char *what, int rc)
{
	size_t len = strlen(io->backend.note);

	(void)snprintf(io->backend.note + len, sizeof(io->backend.note) - len, "%s%s refused: %s",
		       len > 0 ? "; " : "", what, strerror(-rc));
}

void
io_memory_unregistered(struct io *io, int rc)
{
	static atomic_flag said = ATOMIC_FLAG_INIT;

	if (io->unregistered_noted) {
		return;
	}
	io->unregistered_noted = true;
	note_add(io, "registered memory", rc);
	if (!atomic_flag_test_and_set(&said)) {
		log_warn(
		    "memory_unregistered",
		    "error=\"%s\" note=\"works, with more CPU time; the limit is LimitMEMLOCK, ulimit -l\"",
		    error_text(rc));
	}
}

static enum io_disk_kind
disk_kind_of_env(void)
{
	const char *env = getenv("HEADRACE_IO");

	if (env != NULL && strcmp(env, "pread") == 0) {
		return IO_DISK_PREAD;
	}
	if (env != NULL && strcmp(env, "uring") == 0) {
		return IO_DISK_URING;
	}
	return IO_DISK_AUTO;
}

static enum io_net_kind
net_kind_of_env(void)
{
	const char *env = getenv("HEADRACE_NET");

	if (env != NULL && strcmp(env, "epoll") == 0) {
		return IO_NET_EPOLL;
	}
	if (env != NULL && strcmp(env, "poll") == 0) {
		return IO_NET_POLL;
	}
	if (env != NULL && strcmp(env, "uring") == 0) {
		return IO_NET_URING;
	}
	return IO_NET_AUTO;
}

static int
disk_create(struct io *io)
{
	enum io_disk_kind kind = io->options.disk;
	bool probing = false;
	int rc;

	if (kind == IO_DISK_AUTO) {
		kind = disk_kind_of_env();
	}
	if (kind == IO_DISK_AUTO) {
		kind = IO_DISK_URING;
		probing = true;
	}
	io->disk_ops = kind == IO_DISK_URING ? &disk_uring_ops : &disk_pread_ops;
	rc = io->disk_ops->create(io);
	if (rc != 0 && probing) {
		note_add(io, "io_uring", rc);
		io->disk_ops = &disk_pread_ops;
		rc = io->disk_ops->create(io);
	}
	if (rc != 0) {
		io->disk_ops = NULL;
	}
	return rc;
}

static int
net_create(struct io *io)
{
	enum io_net_kind kind = io->options.net;
	int rc;

	if (kind == IO_NET_AUTO) {
		kind = net_kind_of_env();
	}
	io->net_ops = kind == IO_NET_URING  ? &net_uring_ops
		      : kind == IO_NET_POLL ? &net_poll_ops
					    : &net_epoll_ops;
	rc = io->net_ops->create(io);
	if (rc != 0) {
		io->net_ops = NULL;
	}
	return rc;
}

static int
wake_create(struct io *io)
{
	io->wake.fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
	if (io->wake.fd < 0) {
		return -errno;
	}
	io->wake.want = POLLIN;
	io->wake.level = true;
	io->wake.ready = wake_ready;
	return io->net_ops->pollee_add(io, &io->wake);
}

static int
sim_backends_create(struct io *io)
{
	if (io->options.disk != IO_DISK_SIM || io->options.net != IO_NET_SIM ||
	    io->options.sim == NULL) {
		return -EINVAL;
	}
	io->sim = io->options.sim;
	io->disk_ops = &disk_sim_ops;
	io->net_ops = &net_sim_ops;
	return sim_io_attach(io->sim, io);
}

static int
real_backends_create(struct io *io)
{
	int rc;

	rc = net_create(io);
	if (rc == 0) {
		rc = disk_create(io);
	}
	if (rc == 0) {
		rc = wake_create(io);
	}
	return rc;
}

int
io_create(const struct io_options *options, struct io **ret_io)
{
	struct io *io;
	int rc;

	io = calloc(1, sizeof(*io));
	if (io == NULL) {
		return -ENOMEM;
	}
	io->options = *options;
	if (io->options.ring_entries == 0) {
		io->options.ring_entries = 256;
	}
	if (io->options.pread_threads == 0) {
		io->options.pread_threads = 4;
	}
	io->wake.fd = -1;
	list_init(&io->queue);
	list_init(&io->ops_done);
	list_init(&io->tasks);
	list_init(&io->dead);
	if (options->disk == IO_DISK_SIM || options->net == IO_NET_SIM) {
		rc = sim_backends_create(io);
	} else {
		rc = real_backends_create(io);
	}
	if (rc != 0) {
		io_destroy(io);
		return rc;
	}
	io->backend.disk = io->disk_ops->name;
	io->backend.net = io->net_ops->name;
	io_clock_read(io);
	*ret_io = io;
	return 0;
}

void
io_destroy(struct io *io)
{
	if (io == NULL) {
		return;
	}
	HR_ASSERT(!io->running);
	HR_ASSERTF(io->devices_count == 0, "%u devices are open", io->devices_count);
	HR_ASSERTF(io->listeners_count == 0, "%u listeners are open", io->listeners_count);
	HR_ASSERTF(io->connects_count == 0, "%u connects are under way", io->connects_count);
	HR_ASSERTF(io->conns_count == 0, "%u conns are open", io->conns_count);
	HR_ASSERTF(io->watches_count == 0, "%u watches are open", io->watches_count);
	HR_ASSERT(list_empty(&io->ops_done) && list_empty(&io->queue));
	if (io->wake.fd >= 0) {
		io->net_ops->pollee_del(io, &io->wake);
		(void)close(io->wake.fd);
	}
	if (io->disk_ops != NULL) {
		io->disk_ops->destroy(io);
	}
	if (io->net_ops != NULL) {
		io->net_ops->destroy(io);
	}
	if (io->sim != NULL) {
		sim_io_detach(io->sim, io);
	}
	dead_free(io);
	free(io->heap);
	free(io);
}

void
io_backend_get(const struct io *io, struct io_backend *ret)
{
	*ret = io->backend;
}

void
io_counters_get(const struct io *io, struct io_counters *ret)
{
	*ret = io->counters;
}
