/* The simulators, against a list that is searched from end to end, and by hand. */
#include "cli/trace_sim.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

#include "base/prng.h"
#include "cli/trace_gen.h"

/* A cache as a plain array, newest first: slow, and too simple to be wrong. */
struct plain {
	uint32_t nodes[4096];
	size_t count, capacity;
};

static bool
plain_has(const struct plain *plain, uint32_t node, size_t *ret_at)
{
	for (size_t i = 0; i < plain->count; i++) {
		if (plain->nodes[i] == node) {
			*ret_at = i;
			return true;
		}
	}
	return false;
}

static bool
plain_touch(struct plain *plain, uint32_t node)
{
	size_t at;
	bool hit = plain_has(plain, node, &at);

	if (!hit) {
		at = plain->count < plain->capacity ? plain->count++ : plain->count - 1;
	}
	memmove(&plain->nodes[1], &plain->nodes[0], at * sizeof(plain->nodes[0]));
	plain->nodes[0] = node;
	return hit;
}

static void
plain_run(const struct trace *trace, size_t capacity, struct trace_sim_result *result)
{
	static struct plain plain;
	uint32_t *path = calloc(trace->blocks_count_max, sizeof(*path));

	plain = (struct plain){ .capacity = capacity };
	*result = (struct trace_sim_result){ 0 };
	for (size_t i = 0; i < trace->requests_count; i++) {
		size_t blocks = trace_path(trace, &trace->requests[i], path);
		size_t h = 0, at;

		while (h < blocks && plain_has(&plain, path[h], &at)) {
			h++;
		}
		result->prefix_hits += h;
		result->refs_count += blocks;
		for (size_t k = blocks; k-- > 0;) {
			result->block_hits += plain_touch(&plain, path[k]);
		}
	}
	free(path);
}

static void
lru_is_exact(void **state)
{
	static const size_t capacities[] = { 1, 2, 7, 50, 300, 1000, 4000 };
	struct trace *trace;

	(void)state;
	assert_int_equal(trace_generate(TRACE_GEN_CHAT, 3, 220, &trace), 0);
	for (size_t i = 0; i < ARRAY_SIZE(capacities); i++) {
		struct trace_sim_result got, want;

		plain_run(trace, capacities[i], &want);
		assert_int_equal(trace_sim_lru(trace, 0, trace->requests_count, capacities[i], NULL,
					       &got),
				 0);
		assert_int_equal(got.prefix_hits, want.prefix_hits);
		assert_int_equal(got.block_hits, want.block_hits);
		assert_int_equal(got.refs_count, want.refs_count);
	}
	trace_destroy(trace);
}

/* 1 2 3, then 1 2 3 with room for two: last to first leaves 1 2, so two of three are there. First to last would leave none. */
static void
heads_are_kept(void **state)
{
	struct trace_row row = { .new_count = 3 };
	struct trace_row again = { .hit_node = 3 };
	struct trace_sim_result result;
	struct trace *trace;
	uint32_t hits[2];

	(void)state;
	assert_int_equal(trace_create("t", 16, &trace), 0);
	assert_int_equal(trace_append(trace, &row), 0);
	assert_int_equal(trace_append(trace, &again), 0);
	assert_int_equal(trace_sim_lru(trace, 0, 2, 2, hits, &result), 0);
	assert_int_equal(result.prefix_hits, 2);
	assert_int_equal(hits[0], 0);
	assert_int_equal(hits[1], 2);
	assert_int_equal(trace_sim_lru(trace, 0, 2, 0, hits, &result), 0);
	assert_int_equal(result.prefix_hits, 0);
	trace_destroy(trace);
}

/* An infinite cache gives the depth of each request's hit_node, and so does LRU with room for everything. */
static void
infinite_is_the_depth(void **state)
{
	struct trace_sim_result infinite, lru;
	struct trace *trace;
	uint64_t depth = 0, unique;

	(void)state;
	assert_int_equal(trace_generate(TRACE_GEN_AGENT, 5, 400, &trace), 0);
	for (size_t i = 0; i < trace->requests_count; i++) {
		depth += trace->depth[trace->requests[i].hit_node];
	}
	assert_int_equal(trace_sim_infinite(trace, 0, 400, NULL, &infinite), 0);
	assert_int_equal(trace_sim_unique(trace, 0, 400, &unique), 0);
	assert_int_equal(trace_sim_lru(trace, 0, 400, unique, NULL, &lru), 0);
	assert_int_equal(infinite.prefix_hits, depth);
	assert_int_equal(lru.prefix_hits, depth);
	assert_int_equal(unique, trace_unique_count(trace));
	assert_int_equal(infinite.refs_count, trace->refs_count);
	assert_int_equal(trace_sim_unique(trace, 399, 1, &unique), 0);
	assert_int_equal(unique, trace->requests[399].blocks_count);
	trace_destroy(trace);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(lru_is_exact),
		cmocka_unit_test(heads_are_kept),
		cmocka_unit_test(infinite_is_the_depth),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
