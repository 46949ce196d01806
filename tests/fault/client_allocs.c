/* client_allocs.c - the client's core while the n-th allocation fails, n = 1, 2, … until a whole round needs fewer.
 *
 * The node is another process, so that only the client's allocations count. Whatever fails, each batch comes back once, what is OK is right, and
 * after it a new core does the round as if nothing had been.
 */
#include <errno.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/fault.h"
#include "client/core.h"
#include "lib/fakenode.h"

enum { PART = 1 << 20, COUNT = 12, LEN = 3000, LARGE = 2 * PART + 77 };

static char address[64];
static pid_t node_pid;

static void
node_process(int out)
{
	struct io_options options = { .disk = IO_DISK_PREAD, .net = IO_NET_POLL };
	struct fakenode node;
	struct io *io;

	(void)prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (io_create(&options, &io) != 0 ||
	    fakenode_start(io, "tcp:127.0.0.1:0", PART, &node) != 0) {
		_exit(1);
	}
	(void)!write(out, io_listener_address(node.listener), sizeof(address) - 1);
	for (;;) {
		(void)io_run(io, UINT64_MAX);
	}
}

static int
setup(void **state)
{
	int out[2];

	(void)state;
	assert_int_equal(pipe(out), 0);
	node_pid = fork();
	if (node_pid == 0) {
		node_process(out[1]);
	}
	assert_true(read(out[0], address, sizeof(address) - 1) > 0);
	return 0;
}

static int
teardown(void **state)
{
	(void)state;
	(void)kill(node_pid, SIGKILL);
	(void)waitpid(node_pid, NULL, 0);
	return 0;
}

struct round {
	struct io *io;
	struct core *core;
	struct core_space *space;
	uint8_t *in, *out;
};

static void
value_fill(uint8_t *bytes, size_t len, unsigned n)
{
	for (size_t i = 0; i < len; i++) {
		bytes[i] = (uint8_t)(i * 7 + n * 13 + (i >> 9));
	}
}

/* One batch, submitted and waited for; how many items were OK. */
static unsigned
batch_run(struct round *round, enum hr_op op, uint8_t *base, size_t len, unsigned count,
	  unsigned first)
{
	struct hr_item items[COUNT] = { { 0 } };
	struct iovec iov[COUNT];
	unsigned keys[COUNT];
	struct core_batch batch = { .space = round->space,
				    .op = (uint8_t)op,
				    .items = items,
				    .item_size = sizeof(items[0]),
				    .items_count = count,
				    .deadline_us = 20 * 1000 * 1000 };
	struct core_batch *done = NULL;

	for (unsigned i = 0; i < count; i++) {
		keys[i] = first + i;
		iov[i] = base != NULL ? (struct iovec){ base + i * len, len } : (struct iovec){ 0 };
		items[i].key = &keys[i];
		items[i].key_len = sizeof(keys[i]);
		items[i].iov = base != NULL ? &iov[i] : NULL;
		items[i].iov_count = base != NULL;
		items[i].flags = op == HR_OP_GET && i % 3 == 0 ? HR_GET_STAGED : 0;
		items[i].expected_len = op == HR_OP_GET && i % 2 == 0 ? HR_LEN_ANY : 0;
	}
	core_submit(round->core, &batch);
	while ((done = core_reap(round->core)) == NULL) {
		assert_true(io_run(round->io, UINT64_MAX) >= 0);
	}
	assert_ptr_equal(done, &batch);
	if (op == HR_OP_GET) {
		uint8_t *expected = malloc(len);

		for (unsigned i = 0; i < count && expected != NULL; i++) {
			value_fill(expected, len, first + i);
			assert_true(items[i].status != HR_STATUS_OK ||
				    memcmp(base + i * len, expected, len) == 0);
		}
		free(expected);
	}
	return batch.ok_count;
}

static unsigned
round_run(struct round *round)
{
	unsigned ok = 0;

	ok += batch_run(round, HR_OP_PUT, round->in, LEN, COUNT, 0);
	ok += batch_run(round, HR_OP_EXISTS, NULL, 0, COUNT, 0);
	ok += batch_run(round, HR_OP_GET, round->out, LEN, COUNT, 0);
	ok += batch_run(round, HR_OP_PUT, round->in + COUNT * LEN, LARGE, 1, 100);
	ok += batch_run(round, HR_OP_GET, round->out, LARGE, 1, 100);
	return ok;
}

/* A core of its own, so that connecting is part of what fails. */
static int
round_with_fault(struct round *round, uint64_t n, unsigned *ret_ok, uint64_t *ret_allocs)
{
	static const uint8_t digest[32] = { 5 };
	const char *addresses[] = { address };
	struct core_options options = { .addresses = addresses, .addresses_count = 1 };
	int rc;

	fault_alloc_fail_nth(n);
	rc = core_create(round->io, &options, &round->core);
	if (rc == 0) {
		round->space = core_space_get(round->core, digest, "x");
		*ret_ok = round->space != NULL ? round_run(round) : 0;
		core_close(round->core);
		while (!core_closed(round->core)) {
			assert_true(io_run(round->io, UINT64_MAX) >= 0);
		}
		assert_null(core_reap(round->core));
		core_destroy(round->core);
	}
	*ret_allocs = fault_alloc_count();
	fault_alloc_fail_nth(0);
	return rc;
}

static void
test_nth_allocation(void **state)
{
	struct io_options options = { .disk = IO_DISK_PREAD, .net = IO_NET_POLL };
	const unsigned all = COUNT * 3 + 2;
	struct round round = { 0 };
	uint64_t n = 0, allocs = UINT64_MAX;
	unsigned ok = 0;
	int rc;

	(void)state;
#ifndef HR_WITH_FAULT
	print_message("# built without -Dfault=true\n");
	skip();
#endif
	round.in = malloc(COUNT * LEN + LARGE);
	round.out = malloc(LARGE);
	for (unsigned i = 0; i < COUNT; i++) {
		value_fill(round.in + i * LEN, LEN, i);
	}
	value_fill(round.in + COUNT * LEN, LARGE, 100);
	assert_int_equal(io_create(&options, &round.io), 0);
	do { /* Fail the n-th allocation until a round needs fewer … */
		ok = 0;
		rc = round_with_fault(&round, ++n, &ok, &allocs);
		assert_true(rc == 0 || rc == -ENOMEM);
		assert_int_equal(waitpid(node_pid, NULL, WNOHANG), 0); /* it was told no nonsense */
		if (n % 8 == 0) { /* … and now and then a whole round on the way. */
			assert_int_equal(round_with_fault(&round, 0, &ok, &allocs), 0);
			assert_int_equal(ok, all);
			allocs = UINT64_MAX;
		}
	} while (allocs >= n);
	print_message("# %llu allocations, %u of %u ok\n", (unsigned long long)n, ok, all);
	assert_true(n > 20);
	assert_int_equal(ok, all);
	io_destroy(round.io);
	free(round.in);
	free(round.out);
}

int
main(void)
{
	const struct CMUnitTest tests[] = { cmocka_unit_test_setup_teardown(test_nth_allocation,
									    setup, teardown) };

	return cmocka_run_group_tests(tests, NULL, NULL);
}
