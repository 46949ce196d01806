/* Traces in memory: the tree, its rules, and reading back what was written. */
#include "cli/trace.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include <cmocka.h>

#include "cli/trace_read.h"

static struct trace *
small_trace(void)
{
	static const struct trace_row rows[] = {
		{ .t_ms = 0,
		  .session = 1,
		  .in_tokens = 50,
		  .out_tokens = 5,
		  .hit_node = 0,
		  .new_count = 3 },
		{ .t_ms = 7, .session = -1, .in_tokens = 40, .hit_node = 2, .new_count = 2 },
		{ .t_ms = 9, .session = 2, .model = 1, .in_tokens = 10, .hit_node = 0, .new_count = 1 },
		{ .t_ms = 9, .session = 1, .in_tokens = 60, .hit_node = 5, .new_count = 0 },
	};
	struct trace *trace;

	assert_int_equal(trace_create("small", 16, &trace), 0);
	for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
		assert_int_equal(trace_append(trace, &rows[i]), 0);
	}
	return trace;
}

/* Paths of a hand-made tree: 0→1→2→3, 2→4→5, 0→6. */
static void
paths_follow_the_tree(void **state)
{
	static const uint32_t want[4][4] = { { 1, 2, 3 }, { 1, 2, 4, 5 }, { 6 }, { 1, 2, 4, 5 } };
	static const size_t want_count[4] = { 3, 4, 1, 4 };
	struct trace *trace = small_trace();
	uint32_t nodes[8];

	(void)state;
	trace_check(trace);
	assert_int_equal(trace->refs_count, 12);
	assert_int_equal(trace_unique_count(trace), 6);
	assert_int_equal(trace->blocks_count_max, 4);
	assert_int_equal(trace->models_count, 2);
	for (size_t i = 0; i < 4; i++) {
		assert_int_equal(trace_path(trace, &trace->requests[i], nodes), want_count[i]);
		assert_memory_equal(nodes, want[i], want_count[i] * sizeof(nodes[0]));
	}
	trace_destroy(trace);
}

/* What breaks T3, T4 or a limit is refused and changes nothing. */
static void
bad_rows_are_refused(void **state)
{
	struct trace *trace = small_trace();
	struct trace_row future = { .hit_node = 7, .new_count = 1 };
	struct trace_row other_model = { .hit_node = 6, .new_count = 1 };
	struct trace_row large = { .hit_node = 0, .new_count = TRACE_CHAIN_MAX + 1 };
	struct trace_row deep = { .hit_node = 3, .new_count = TRACE_CHAIN_MAX };

	(void)state;
	assert_int_equal(trace_append(trace, &future), -EINVAL);
	assert_int_equal(trace_append(trace, &other_model), -EINVAL);
	assert_int_equal(trace_append(trace, &large), -E2BIG);
	assert_int_equal(trace_append(trace, &deep), -E2BIG);
	assert_int_equal(trace->requests_count, 4);
	assert_int_equal(trace->nodes_count, 7);
	trace_destroy(trace);
}

static void
written_is_read_back(void **state)
{
	struct trace *trace = small_trace();
	struct trace *back;
	char path[] = "/tmp/test_trace_XXXXXX";
	char detail[TRACE_DETAIL_BYTES];

	(void)state;
	close(mkstemp(path));
	assert_int_equal(trace_write(trace, path, detail), 0);
	assert_int_equal(trace_read(path, 0, &back, detail), 0);
	assert_string_equal(back->name, "small");
	assert_int_equal(back->block_tokens, 16);
	assert_int_equal(back->requests_count, trace->requests_count);
	assert_memory_equal(back->requests, trace->requests,
			    trace->requests_count * sizeof(trace->requests[0]));
	assert_memory_equal(back->parent, trace->parent,
			    trace->nodes_count * sizeof(trace->parent[0]));
	unlink(path);
	assert_int_equal(trace_write(trace, "/nowhere/x.kvt", detail), -ENOENT);
	assert_non_null(strstr(detail, "/nowhere/x.kvt"));
	trace_destroy(back);
	trace_destroy(trace);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(paths_follow_the_tree),
		cmocka_unit_test(bad_rows_are_refused),
		cmocka_unit_test(written_is_read_back),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
