/* Replaying against a store in memory: hits are exactly those of the simulators, and what a store can do wrong is seen. */
#include "cli/replay.h"

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

#include "cli/trace_gen.h"
#include "cli/trace_sim.h"
#include "fake_store.h"

static char g_detail[REPLAY_DETAIL_BYTES];

static int
setup(void **state)
{
	(void)state;
	fake_reset();
	return 0;
}

static int
teardown(void **state)
{
	(void)state;
	fake_reset();
	return 0;
}

static struct trace *
make_trace(enum trace_gen_kind kind, size_t requests)
{
	struct trace *trace;

	assert_int_equal(trace_generate(kind, 11, requests, &trace), 0);
	return trace;
}

static struct replay_options
options_for(const struct trace *trace)
{
	return (struct replay_options){
		.trace = trace,
		.count = trace->requests_count,
		.block_bytes = 512,
		.clients_count = 1,
		.lease_ms = 10000,
		.deadline_us = 30000000,
		.window_bytes = 4 << 20,
		.url = "fake:",
		.cost = { .model = &models[0], .tflops = 989, .mfu = 0.5 },
	};
}

static void
run(const struct replay_options *options, struct replay_result *result)
{
	int rc = replay_run(options, result, g_detail);

	if (rc != 0) {
		fail_msg("replay: %d: %s", rc, g_detail);
	}
}

static uint64_t
misses_sum(const struct replay_counts *counts)
{
	uint64_t sum = 0;

	for (int i = 0; i < HR_REASON_COUNT; i++) {
		sum += counts->misses[i];
	}
	return sum;
}

/* A store that keeps everything: the hits of an infinite cache, per request; every block put once; every lease given back. */
static void
everything_kept_is_infinite(void **state)
{
	struct trace *trace = make_trace(TRACE_GEN_CHAT, 400);
	struct replay_options options = options_for(trace);
	uint32_t *hits = calloc(trace->requests_count, sizeof(*hits));
	struct trace_sim_result want;
	struct replay_result result;

	(void)state;
	assert_int_equal(trace_sim_infinite(trace, 0, trace->requests_count, hits, &want), 0);
	run(&options, &result);
	assert_int_equal(result.counts.requests, 400);
	assert_int_equal(result.counts.blocks, want.refs_count);
	assert_int_equal(result.counts.prefix_hits, want.prefix_hits);
	assert_memory_equal(result.hits, hits, 400 * sizeof(*hits));
	assert_int_equal(result.counts.wrong_bytes, 0);
	assert_int_equal(result.counts.puts, trace_unique_count(trace));
	assert_int_equal(result.counts.duplicates, 0);
	assert_int_equal(result.counts.bytes_put, trace_unique_count(trace) * 512);
	assert_int_equal(result.counts.bytes_got, want.prefix_hits * 512);
	assert_int_equal(misses_sum(&result.counts), want.refs_count - want.prefix_hits);
	assert_int_equal(result.counts.gets_dram + result.counts.gets_flash, want.prefix_hits);
	assert_int_equal(fake.leases_given, want.prefix_hits);
	assert_int_equal(fake.leases_released, fake.leases_given);
	assert_int_equal(fake.route_misses, 0);
	assert_int_equal(fake.puts_out_of_order, 0);
	assert_true(result.has_write_counts);
	assert_int_equal(result.bytes_written, fake.puts * 110);
	assert_int_equal(result.payload_bytes, fake.puts * 100);
	assert_true(metric_get(&result.exists->count) == 400);
	replay_result_fini(&result);
	trace_destroy(trace);
	free(hits);
}

/* Some blocks of a request may be there behind a hole: of no use, put again, counted as duplicates. */
static void
less_room_is_less_than_infinite(void **state)
{
	struct trace *trace = make_trace(TRACE_GEN_CHAT, 600);
	struct replay_options options = options_for(trace);
	uint64_t capacity = trace_unique_count(trace) / 4;
	struct trace_sim_result lru;
	struct replay_result result;

	(void)state;
	fake.capacity_blocks = capacity;
	assert_int_equal(trace_sim_lru(trace, 0, trace->requests_count, capacity, NULL, &lru), 0);
	run(&options, &result);
	/* The store is LRU, but a request's GETs come before its PUTs, so a few blocks at the edge differ. */
	assert_true(result.counts.prefix_hits >= lru.prefix_hits * 97 / 100);
	assert_true(result.counts.prefix_hits <= lru.prefix_hits * 103 / 100);
	assert_int_equal(result.counts.wrong_bytes, 0);
	assert_int_equal(misses_sum(&result.counts) + result.counts.behind_hole +
			     result.counts.prefix_hits,
			 result.counts.blocks);
	assert_int_equal(result.counts.duplicates, result.counts.behind_hole);
	assert_true(fake.blocks_count <= capacity);
	replay_result_fini(&result);
	trace_destroy(trace);
}

/* Busy stores and full handles: everything is accepted in the end, and counted. */
static void
busy_is_retried(void **state)
{
	struct trace *trace = make_trace(TRACE_GEN_CHAT, 100);
	struct replay_options options = options_for(trace);
	struct trace_sim_result want;
	struct replay_result result;

	(void)state;
	fake.busy_every = 7;
	assert_int_equal(trace_sim_infinite(trace, 0, trace->requests_count, NULL, &want), 0);
	run(&options, &result);
	assert_int_equal(result.counts.prefix_hits, want.prefix_hits);
	assert_int_equal(result.counts.wrong_bytes, 0);
	assert_int_equal(fake.blocks_count, trace_unique_count(trace));
	assert_int_equal(result.counts.busy_retries, fake.puts / 7);
	assert_int_equal(result.counts.puts, trace_unique_count(trace));
	replay_result_fini(&result);
	trace_destroy(trace);
}

/* Bytes that are wrong are found, counted, and are no hits, although the store said OK. */
static void
wrong_bytes_are_found(void **state)
{
	struct trace *trace = make_trace(TRACE_GEN_CHAT, 200);
	struct replay_options options = options_for(trace);
	struct trace_sim_result want;
	struct replay_result result;

	(void)state;
	fake.damage_every = 50;
	assert_int_equal(trace_sim_infinite(trace, 0, trace->requests_count, NULL, &want), 0);
	run(&options, &result);
	assert_int_equal(result.counts.wrong_blocks, fake.gets / 50);
	assert_int_equal(result.counts.wrong_bytes, fake.gets / 50);
	assert_true(result.counts.wrong_bytes > 5);
	assert_true(result.counts.prefix_hits < want.prefix_hits);
	replay_result_fini(&result);
	trace_destroy(trace);
}

/* A GET that misses after EXISTS said yes ends the usable prefix there. */
static void
lost_blocks_end_the_prefix(void **state)
{
	struct trace *trace = make_trace(TRACE_GEN_CHAT, 200);
	struct replay_options options = options_for(trace);
	struct trace_sim_result want;
	struct replay_result result;

	(void)state;
	fake.lose_every = 40;
	assert_int_equal(trace_sim_infinite(trace, 0, trace->requests_count, NULL, &want), 0);
	run(&options, &result);
	assert_int_equal(result.counts.misses[HR_REASON_EVICTED], fake.gets / 40);
	assert_int_equal(result.counts.lost_after_look, fake.gets / 40);
	assert_true(result.counts.prefix_hits < want.prefix_hits);
	assert_true(result.counts.duplicates > 0);
	assert_int_equal(result.counts.wrong_bytes, 0);
	replay_result_fini(&result);
	trace_destroy(trace);
}

/* Four clients, a window of one batch, a handle that is full now and then: nothing is lost or doubled. */
static void
many_clients_do_the_same_work(void **state)
{
	struct trace *trace = make_trace(TRACE_GEN_AGENT, 300);
	struct replay_options options = options_for(trace);
	struct replay_result result;

	(void)state;
	options.clients_count = 4;
	options.window_bytes = 1;
	fake.full_every = 5;
	run(&options, &result);
	assert_int_equal(result.counts.requests, 300);
	assert_int_equal(result.counts.blocks, trace->refs_count);
	assert_int_equal(result.counts.wrong_bytes, 0);
	assert_int_equal(fake.blocks_count, trace_unique_count(trace));
	replay_result_fini(&result);
	trace_destroy(trace);
}

static void
what_was_acknowledged_can_be_verified(void **state)
{
	struct trace *trace = make_trace(TRACE_GEN_CHAT, 60);
	struct replay_options options = options_for(trace);
	char path[] = "/tmp/test_replay_XXXXXX";
	struct replay_result result;

	(void)state;
	options.acked = fdopen(mkstemp(path), "w");
	run(&options, &result);
	replay_result_fini(&result);
	fclose(options.acked);
	options.acked = NULL;

	assert_int_equal(replay_verify(&options, path, &result, g_detail), 0);
	assert_int_equal(result.counts.blocks, trace_unique_count(trace));
	assert_int_equal(result.counts.prefix_hits, trace_unique_count(trace));
	replay_result_fini(&result);

	fake_drop(fake_find(fake.lru.newer->id));
	fake.damage_every = 100;
	fake.gets = 0;
	assert_int_equal(replay_verify(&options, path, &result, g_detail), 0);
	assert_int_equal(result.counts.misses[HR_REASON_ABSENT], 1);
	assert_int_equal(result.counts.wrong_blocks, fake.gets / 100);
	replay_result_fini(&result);
	unlink(path);
	trace_destroy(trace);
}

/* A store that goes away and does not come back ends the replay; one that comes back does not. */
static void
a_store_that_went_away_is_waited_for(void **state)
{
	struct trace *trace = make_trace(TRACE_GEN_CHAT, 100);
	struct replay_options options = options_for(trace);
	struct replay_result result;

	(void)state;
	fake.down_from = 100;
	fake.down_to = 150;
	run(&options, &result);
	assert_int_equal(result.counts.refused[HR_REASON_DOWN], 50);
	assert_int_equal(result.counts.requests, 100);
	replay_result_fini(&result);

	fake.never_ready = true;
	assert_true(replay_run(&options, &result, g_detail) < 0);
	assert_non_null(strstr(g_detail, "does not answer"));
	replay_result_fini(&result);
	trace_destroy(trace);
}

static void
a_bad_url_is_said(void **state)
{
	struct trace *trace = make_trace(TRACE_GEN_CHAT, 1);
	struct replay_options options = options_for(trace);
	struct replay_result result;

	(void)state;
	options.url = "nonsense:";
	assert_int_equal(replay_run(&options, &result, g_detail), -HR_EURL);
	assert_string_equal(g_detail, "nonsense:: fake: is wanted");
	replay_result_fini(&result);
	trace_destroy(trace);
}

/* Runs of 16 blocks or 16 MiB; a run's blocks have one route, its first block's; parents and positions are set. */
static void
routes_come_in_runs(void **state)
{
	struct trace_row row = { .new_count = 40 };
	struct replay_options options;
	struct replay_result result;
	struct trace *trace;
	uint8_t ids[40][16];
	struct hr_space space;

	(void)state;
	assert_int_equal(replay_run_blocks(64 << 10), 16);
	assert_int_equal(replay_run_blocks(2 << 20), 8);
	assert_int_equal(replay_run_blocks(64 << 20), 1);
	assert_int_equal(trace_create("runs", 16, &trace), 0);
	assert_int_equal(trace_append(trace, &row), 0);
	options = options_for(trace);
	options.space = "here";
	run(&options, &result);
	space.seed = hash64_keyed((uint64_t[2]){ 3, 4 }, "here", 4);
	for (int i = 0; i < 40; i++) {
		char key[32];
		int n = snprintf(key, sizeof(key), "kvt:runs:%d", i + 1);
		const struct fake_block *block;

		hr_block_id(&space, key, (size_t)n, ids[i]);
		block = *fake_find(ids[i]);
		assert_non_null(block);
		assert_string_equal(block->key, key);
		assert_int_equal(block->position, i);
		assert_int_equal(block->route, get_le64(ids[i - i % 16]));
		if (i > 0) {
			assert_memory_equal(block->parent, ids[i - 1], 16);
		}
	}
	replay_result_fini(&result);
	trace_destroy(trace);
}

static void
write_counts_are_found_anywhere(void **state)
{
	uint64_t written = 7, payload = 7;

	(void)state;
	assert_true(replay_write_counts(
	    "{\"a\": [{\"b\": {\"bytes_written_total\": 3, \"payload_bytes\": 2}}, {\"bytes_written_total\": 4, \"payload_bytes\": 4}]}",
	    &written, &payload));
	assert_int_equal(written, 7);
	assert_int_equal(payload, 6);
	assert_false(replay_write_counts("{\"bytes_written_total\": 3}", &written, &payload));
	assert_false(replay_write_counts("nonsense", &written, &payload));
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(everything_kept_is_infinite, setup, teardown),
		cmocka_unit_test_setup_teardown(less_room_is_less_than_infinite, setup, teardown),
		cmocka_unit_test_setup_teardown(busy_is_retried, setup, teardown),
		cmocka_unit_test_setup_teardown(wrong_bytes_are_found, setup, teardown),
		cmocka_unit_test_setup_teardown(lost_blocks_end_the_prefix, setup, teardown),
		cmocka_unit_test_setup_teardown(many_clients_do_the_same_work, setup, teardown),
		cmocka_unit_test_setup_teardown(what_was_acknowledged_can_be_verified, setup,
						teardown),
		cmocka_unit_test_setup_teardown(a_store_that_went_away_is_waited_for, setup,
						teardown),
		cmocka_unit_test_setup_teardown(a_bad_url_is_said, setup, teardown),
		cmocka_unit_test_setup_teardown(routes_come_in_runs, setup, teardown),
		cmocka_unit_test(write_counts_are_found_anywhere),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
