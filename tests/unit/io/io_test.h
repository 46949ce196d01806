/* io_test.h - runs each test body over every pair of backends of this machine, and waits for what it expects. */
#ifndef HR_TESTS_UNIT_IO_IO_TEST_H
#define HR_TESTS_UNIT_IO_IO_TEST_H

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/base.h"
#include "io/io.h"
#include "io/sim.h"

struct combo {
	const char *name;
	enum io_disk_kind disk;
	enum io_net_kind net;
};

/* One test's world. On the simulated backend `sim` is set. */
struct fixture {
	const struct combo *combo;
	struct io *io;
	struct sim *sim;
	char dir[64];
};

static const struct combo combos[] = {
	{ "pread+poll", IO_DISK_PREAD, IO_NET_POLL },
	{ "pread+epoll", IO_DISK_PREAD, IO_NET_EPOLL },
	{ "uring+poll", IO_DISK_URING, IO_NET_POLL },
	{ "uring+epoll", IO_DISK_URING, IO_NET_EPOLL },
	{ "pread+uring", IO_DISK_PREAD, IO_NET_URING },
	{ "uring+uring", IO_DISK_URING, IO_NET_URING },
	{ "sim", IO_DISK_SIM, IO_NET_SIM },
};

/* Under a small memory-lock limit the kernel gives back an old ring's memory a little later than its end: worth waiting for. */
static inline int
fixture_io_create(struct fixture *f, struct io **ret_io)
{
	struct io_options options = { .disk = f->combo->disk, .net = f->combo->net, .sim = f->sim };
	int rc, tries = 0;

	do {
		rc = io_create(&options, ret_io);
	} while (rc == -ENOMEM && ++tries < 100 && usleep(20000) == 0);
	return rc;
}

static int HR_UNUSED
fixture_setup(void **state)
{
	struct fixture *f = calloc(1, sizeof(*f));

	assert_non_null(f);
	f->combo = *state;
	(void)snprintf(f->dir, sizeof(f->dir), "/tmp/hr-io-XXXXXX");
	assert_non_null(mkdtemp(f->dir));
	if (f->combo->disk == IO_DISK_SIM) {
		assert_int_equal(sim_create(42, &f->sim), 0);
	}
	assert_int_equal(fixture_io_create(f, &f->io), 0);
	*state = f;
	return 0;
}

static int HR_UNUSED
fixture_teardown(void **state)
{
	struct fixture *f = *state;
	char command[128];

	io_destroy(f->io);
	sim_destroy(f->sim);
	(void)snprintf(command, sizeof(command), "rm -rf '%s'", f->dir);
	assert_int_equal(system(command), 0); /* NOLINT: our own mkdtemp() name */
	free(f);
	return 0;
}

/* Whether this kernel and sandbox lets us use a combination; what it refuses is left out, and said. */
static inline bool
combo_works(const struct combo *combo)
{
	struct fixture f = { .combo = combo };
	struct io *io = NULL;
	int rc;

	if (combo->disk == IO_DISK_SIM) {
		return true;
	}
	rc = fixture_io_create(&f, &io);
	if (rc != 0) {
		print_message("# %s skipped: %s\n", combo->name, strerror(-rc));
		return false;
	}
	io_destroy(io);
	return true;
}

struct body {
	const char *name;
	CMUnitTestFunction fn;
	bool real_only;
};
#define BODY(fn)                                                                                   \
	{                                                                                          \
#fn, fn, false                                                                     \
	}
#define BODY_REAL(fn)                                                                              \
	{                                                                                          \
#fn, fn, true                                                                      \
	}

static int HR_UNUSED
run_bodies(const char *group, const struct body *bodies, size_t bodies_count)
{
	struct CMUnitTest *tests = calloc(bodies_count * ARRAY_SIZE(combos), sizeof(*tests));
	size_t count = 0, c, b;
	int rc;

	if (tests == NULL) {
		return 1;
	}
	for (c = 0; c < ARRAY_SIZE(combos); c++) {
		if (!combo_works(&combos[c])) {
			continue;
		}
		for (b = 0; b < bodies_count; b++) {
			char *name = NULL;

			if (bodies[b].real_only && combos[c].disk == IO_DISK_SIM) {
				continue;
			}
			if (asprintf(&name, "%s [%s]", bodies[b].name, combos[c].name) < 0) {
				return 1;
			}
			tests[count++] = (struct CMUnitTest){ name, bodies[b].fn, fixture_setup,
							      fixture_teardown, (void *)&combos[c] };
		}
	}
	rc = _cmocka_run_group_tests(group, tests, count, NULL, NULL);
	for (b = 0; b < count; b++) {
		free((void *)tests[b].name);
	}
	free(tests);
	return rc;
}

/* Turns the loop until `*flag`; the limit only ends a test that would hang. */
static inline void
run_until(struct io *io, const bool *flag)
{
	uint64_t end_us = io_now_us_fresh(io) + 20000000;

	while (!*flag) {
		assert_true(io_run(io, 100000) >= 0);
		assert_true(io_now_us_fresh(io) < end_us);
	}
}

/* Some turns, for things that must not happen. */
static inline void HR_UNUSED
run_turns(struct io *io, unsigned turns)
{
	while (turns-- > 0) {
		assert_true(io_run(io, 2000) >= 0);
	}
}

/* A callback's outcome. */
struct outcome {
	bool done;
	unsigned times;
	int64_t result;
};

static inline void
outcome_cb(void *arg, int64_t result)
{
	struct outcome *o = arg;

	o->done = true;
	o->times++;
	o->result = result;
}

#endif
