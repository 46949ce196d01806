/* Generated traces have the statistics of what they are made after, and depend on the seed alone. */
#include "cli/trace_gen.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

#include "cli/trace_sim.h"

struct wanted {
	enum trace_gen_kind kind;
	double ratio_min, ratio_max;   /* of an infinite cache */
	double blocks_min, blocks_max; /* a request, on average */
	double unique_min, unique_max;
	int64_t ms_min, ms_max;
};

/* Published: 0.366, 24.0, 182,790, 3,536,999 ms; 0.962, 360, 51,459, 1,559,367 ms. */
static const struct wanted wanted[] = {
	{ TRACE_GEN_CHAT, 0.33, 0.40, 21, 27, 160000, 205000, 3300000, 3800000 },
	{ TRACE_GEN_AGENT, 0.945, 0.975, 300, 420, 40000, 63000, 1450000, 1670000 },
};

static void
statistics_are_those_published(void **state)
{
	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(wanted); i++) {
		const struct wanted *w = &wanted[i];
		size_t count = trace_gen_requests_default(w->kind);

		for (uint64_t seed = 1; seed <= 3; seed++) {
			struct trace_sim_result result;
			struct trace *trace;
			double ratio, blocks;

			assert_int_equal(trace_generate(w->kind, seed, count, &trace), 0);
			assert_int_equal(trace_sim_infinite(trace, 0, count, NULL, &result), 0);
			trace_check(trace);
			ratio = (double)result.prefix_hits / (double)result.refs_count;
			blocks = (double)result.refs_count / (double)count;
			print_message("# kind %d seed %d: ratio %.3f blocks %.1f unique %d ms %d\n",
				      (int)w->kind, (int)seed, ratio, blocks,
				      (int)trace_unique_count(trace),
				      (int)trace->requests[count - 1].t_ms);
			assert_true(ratio > w->ratio_min && ratio < w->ratio_max);
			assert_true(blocks > w->blocks_min && blocks < w->blocks_max);
			assert_true((double)trace_unique_count(trace) > w->unique_min &&
				    (double)trace_unique_count(trace) < w->unique_max);
			assert_true(trace->requests[count - 1].t_ms > w->ms_min &&
				    trace->requests[count - 1].t_ms < w->ms_max);
			trace_destroy(trace);
		}
	}
}

static void
a_seed_is_a_trace(void **state)
{
	struct trace *a, *b, *c;

	(void)state;
	assert_int_equal(trace_generate(TRACE_GEN_CHAT, 7, 500, &a), 0);
	assert_int_equal(trace_generate(TRACE_GEN_CHAT, 7, 500, &b), 0);
	assert_int_equal(trace_generate(TRACE_GEN_CHAT, 8, 500, &c), 0);
	assert_memory_equal(a->requests, b->requests, 500 * sizeof(a->requests[0]));
	assert_memory_not_equal(a->requests, c->requests, 500 * sizeof(a->requests[0]));
	assert_string_equal(a->name, "generated_chat_7");
	trace_destroy(a);
	trace_destroy(b);
	trace_destroy(c);
}

/* A shorter trace of the same seed is the beginning of the longer one. */
static void
requests_do_not_change_what_came_before(void **state)
{
	struct trace *a, *b;

	(void)state;
	assert_int_equal(trace_generate(TRACE_GEN_AGENT, 7, 100, &a), 0);
	assert_int_equal(trace_generate(TRACE_GEN_AGENT, 7, 300, &b), 0);
	assert_memory_equal(a->requests, b->requests, 100 * sizeof(a->requests[0]));
	trace_destroy(a);
	trace_destroy(b);
}

static void
kinds_have_names(void **state)
{
	enum trace_gen_kind kind;

	(void)state;
	assert_int_equal(trace_gen_kind_parse("chat", &kind), 0);
	assert_int_equal(kind, TRACE_GEN_CHAT);
	assert_int_equal(trace_gen_kind_parse("agent", &kind), 0);
	assert_int_equal(kind, TRACE_GEN_AGENT);
	assert_int_equal(trace_gen_kind_parse("Chat", &kind), -EINVAL);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(statistics_are_those_published),
		cmocka_unit_test(a_seed_is_a_trace),
		cmocka_unit_test(requests_do_not_change_what_came_before),
		cmocka_unit_test(kinds_have_names),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
