/* test_reactor.c - timers, wake-ups, clocks and watched descriptors of the event loop, on every backend. */
#include "io_test.h"

#include <linux/filter.h>
#include <linux/seccomp.h>
#include <pthread.h>
#include <stdatomic.h>
#include <sys/eventfd.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include "base/prng.h"

struct tick {
	struct io *io;
	struct io_timer timer;
	uint64_t at_us;
	unsigned fired;
	unsigned *order;
	unsigned place;
};

static void
tick_cb(void *arg)
{
	struct tick *t = arg;

	t->fired++;
	t->place = (*t->order)++;
	assert_true(io_now_us(t->io) >= t->at_us);
}

/* Sets timers in a shuffled order, among them equal ones, and expects them by time, then by the order of setting. */
static void
timers_run_in_order(void **state)
{
	enum { COUNT = 200 };
	struct fixture *f = *state;
	struct tick *ticks = calloc(COUNT, sizeof(*ticks));
	unsigned order = 0, i, j;
	uint64_t now_us = io_now_us(f->io);
	struct prng prng;

	prng_init(&prng, 7);
	for (i = 0; i < COUNT; i++) {
		ticks[i] = (struct tick){ .io = f->io, .order = &order };
		ticks[i].at_us = now_us + 1000 + prng_u64(&prng) % 20 * 500;
		io_timer_set(f->io, &ticks[i].timer, ticks[i].at_us, tick_cb, &ticks[i]);
	}
	while (order < COUNT) {
		assert_true(io_run(f->io, 100000) >= 0);
	}
	for (i = 0; i < COUNT; i++) {
		assert_int_equal(ticks[i].fired, 1);
		for (j = i + 1; j < COUNT; j++) {
			assert_int_equal(ticks[i].place < ticks[j].place,
					 ticks[i].at_us <= ticks[j].at_us);
		}
	}
	free(ticks);
}

/* A cancelled timer never runs, a moved one runs at its new time, once. */
static void
timers_cancel_and_move(void **state)
{
	struct fixture *f = *state;
	unsigned order = 0;
	struct tick a = { .io = f->io, .order = &order }, b = a, c = a;
	uint64_t now_us = io_now_us(f->io);

	io_timer_cancel(f->io, &a.timer); /* zeroed: nothing happens */
	io_timer_set(f->io, &a.timer, now_us + 1000, tick_cb, &a);
	io_timer_set(f->io, &b.timer, now_us + 2000, tick_cb, &b);
	c.at_us = now_us + 3000;
	io_timer_set(f->io, &c.timer, c.at_us, tick_cb, &c);
	io_timer_cancel(f->io, &a.timer);
	b.at_us = now_us + 6000;
	io_timer_set(f->io, &b.timer, b.at_us, tick_cb, &b);
	while (order < 2) {
		assert_true(io_run(f->io, 100000) >= 0);
	}
	assert_int_equal(a.fired, 0);
	assert_int_equal(c.place, 0);
	assert_int_equal(b.place, 1);
	assert_int_equal(b.fired, 1);
}

static void
again_cb(void *arg)
{
	struct tick *t = arg;

	t->fired++;
	io_timer_set(t->io, &t->timer, 0, again_cb, t);
}

/* A timer that sets itself to the past runs once a turn and lets others run. */
static void
timer_in_the_past_does_not_starve(void **state)
{
	struct fixture *f = *state;
	unsigned order = 0;
	struct tick busy = { .io = f->io }, other = { .io = f->io, .order = &order };

	if (f->sim != NULL) {
		skip(); /* A world in which something is always due has no next moment. */
	}
	io_timer_set(f->io, &busy.timer, 0, again_cb, &busy);
	io_timer_set(f->io, &other.timer, io_now_us(f->io) + 1000, tick_cb, &other);
	while (other.fired == 0) {
		unsigned before = busy.fired;

		assert_true(io_run(f->io, UINT64_MAX) >= 1);
		assert_int_equal(busy.fired, before + 1);
	}
	io_timer_cancel(f->io, &busy.timer);
}

/* Without anything to do, io_run() comes back after its limit or a little earlier (the kernel may interrupt it); with 0 it does not
 * wait. A loop that would spin instead of waiting shows in the number of turns. */
static void
run_waits_at_most_its_limit(void **state)
{
	struct fixture *f = *state;
	uint64_t before_us = io_now_us_fresh(f->io), wall_ms = io_wall_ms(f->io);
	unsigned turns = 0;

	assert_int_equal(io_run(f->io, 0), 0);
	while (f->sim == NULL && io_now_us_fresh(f->io) - before_us < 3000) {
		assert_int_equal(io_run(f->io, 3000), 0);
		assert_true(++turns < 20);
	}
	assert_true(io_wall_ms(f->io) >= wall_ms);
	assert_true(wall_ms > 1500000000000);
	assert_true(io_random_u64(f->io) != io_random_u64(f->io));
}

struct waker {
	struct io *io;
	atomic_bool stop;
	atomic_uint wakes;
};

static void *
waker_main(void *arg)
{
	struct waker *w = arg;

	while (!atomic_load(&w->stop)) {
		io_wake(w->io);
		atomic_fetch_add(&w->wakes, 1);
		(void)usleep(200);
	}
	return NULL;
}

/* A loop that waits for ever is woken by another thread, again and again. */
static void
wake_from_another_thread(void **state)
{
	struct fixture *f = *state;
	struct waker w = { .io = f->io };
	pthread_t thread;
	unsigned i;

	assert_int_equal(pthread_create(&thread, NULL, waker_main, &w), 0);
	for (i = 0; i < 50; i++) {
		assert_int_equal(io_run(f->io, UINT64_MAX), 0);
	}
	atomic_store(&w.stop, true);
	assert_int_equal(pthread_join(thread, NULL), 0);
	assert_true(atomic_load(&w.wakes) >= 1);
}

struct watched {
	int fd;
	unsigned times;
	bool read, seen;
	struct io_watch *watch;
};

static void
watched_cb(void *arg)
{
	struct watched *w = arg;
	uint64_t count;

	w->times++;
	w->seen = true;
	if (w->read) {
		assert_int_equal(read(w->fd, &count, sizeof(count)), sizeof(count));
	}
}

/* A watched eventfd is told while it is readable, not after it was read, and not after the watch is closed. */
static void
watch_reports_while_readable(void **state)
{
	struct fixture *f = *state;
	struct watched w = { .fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK) };
	uint64_t one = 1;
	unsigned times;

	assert_int_equal(io_watch_fd(f->io, w.fd, watched_cb, &w, &w.watch), 0);
	run_turns(f->io, 3);
	assert_int_equal(w.times, 0);
	assert_int_equal(write(w.fd, &one, sizeof(one)), sizeof(one));
	while (w.times < 3) {
		assert_true(io_run(f->io, 1000000) >= 0);
	}
	w.read = true;
	w.seen = false;
	run_until(f->io, &w.seen);
	times = w.times;
	run_turns(f->io, 3);
	assert_int_equal(w.times, times);
	assert_int_equal(write(w.fd, &one, sizeof(one)), sizeof(one));
	io_watch_close(w.watch);
	run_turns(f->io, 3);
	assert_int_equal(w.times, times);
	(void)close(w.fd);
}

/* Says what was chosen. */
static void
backend_is_named(void **state)
{
	struct fixture *f = *state;
	struct io_backend backend;
	char name[64];

	io_backend_get(f->io, &backend);
	(void)snprintf(name, sizeof(name), "%s %s", backend.disk, backend.net);
	if (f->combo->disk == IO_DISK_SIM) {
		assert_string_equal(name, "simulated simulated");
	} else {
		assert_string_equal(backend.disk,
				    f->combo->disk == IO_DISK_URING ? "io_uring" : "pread");
	}
	assert_string_equal(backend.note, "");
}

/* AUTO follows the environment; a kind asked for by name does not. */
static void
environment_chooses_auto(void **state)
{
	struct io_options options = { .disk = IO_DISK_AUTO, .net = IO_NET_AUTO };
	struct io_backend backend;
	struct io *io;

	(void)state;
	assert_int_equal(setenv("HEADRACE_IO", "pread", 1), 0);
	assert_int_equal(setenv("HEADRACE_NET", "poll", 1), 0);
	assert_int_equal(io_create(&options, &io), 0);
	io_backend_get(io, &backend);
	assert_string_equal(backend.disk, "pread");
	assert_string_equal(backend.net, "poll");
	io_destroy(io);
	options.net = IO_NET_EPOLL;
	assert_int_equal(io_create(&options, &io), 0);
	io_backend_get(io, &backend);
	assert_string_equal(backend.net, "epoll");
	io_destroy(io);
	assert_int_equal(unsetenv("HEADRACE_IO"), 0);
	assert_int_equal(unsetenv("HEADRACE_NET"), 0);
}

/* io_uring_setup() answers EPERM from here on, as in many containers. */
static void
forbid_io_uring(void)
{
	struct sock_filter code[] = {
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, __NR_io_uring_setup, 0, 1),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EPERM),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
	};
	struct sock_fprog program = { .len = ARRAY_SIZE(code), .filter = code };

	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0 ||
	    prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) != 0) {
		_exit(77);
	}
}

/* In a child that may not use io_uring: AUTO goes on with pread and says why, asking for io_uring by name is an error. */
static void
auto_without_io_uring(void **state)
{
	struct io_options options = { .disk = IO_DISK_AUTO, .net = IO_NET_EPOLL };
	struct io_backend backend;
	struct io *io;
	int status;
	pid_t pid;

	(void)state;
	pid = fork();
	if (pid == 0) {
		forbid_io_uring();
		if (io_create(&options, &io) != 0) {
			_exit(1);
		}
		io_backend_get(io, &backend);
		io_destroy(io);
		options.disk = IO_DISK_URING;
		_exit(strcmp(backend.disk, "pread") != 0				       ? 2
		      : strcmp(backend.note, "io_uring refused: Operation not permitted") != 0 ? 3
		      : io_create(&options, &io) != -EPERM				       ? 4
											       : 0);
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFEXITED(status));
	if (WEXITSTATUS(status) == 77) {
		print_message("# skipped: no seccomp filters here\n");
		skip();
	}
	assert_int_equal(WEXITSTATUS(status), 0);
}

int
main(void)
{
	const struct body bodies[] = {
		BODY(timers_run_in_order),
		BODY(timers_cancel_and_move),
		BODY(timer_in_the_past_does_not_starve),
		BODY(run_waits_at_most_its_limit),
		BODY_REAL(wake_from_another_thread),
		BODY_REAL(watch_reports_while_readable),
		BODY(backend_is_named),
		BODY_REAL(environment_chooses_auto),
		BODY_REAL(auto_without_io_uring),
	};

	return run_bodies("reactor", bodies, ARRAY_SIZE(bodies));
}
