/* The benchmark against a store in memory: what it counts, and that it sees wrong bytes, misses and busy stores. */
#include "cli/bench.h"

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

#include "fake_store.h"

static char g_detail[BENCH_DETAIL_BYTES];
static struct bench_result g_result;

static int
setup(void **state)
{
	(void)state;
	fake_reset();
	return 0;
}

static struct bench_options
options_for(enum hr_op op)
{
	return (struct bench_options){
		.url = "fake:",
		.op = op,
		.value_bytes = 2048,
		.depth = 4,
		.batch = 3,
		.threads = 2,
		.us = 30000,
		.working_set_bytes = 200 * 2048,
		.verify = true,
		.deadline_us = 1000000,
	};
}

static void
gets_are_counted_and_compared(void **state)
{
	struct bench_options options = options_for(HR_OP_GET);

	(void)state;
	assert_int_equal(bench_run(&options, &g_result, g_detail), 0);
	assert_int_equal(fake.blocks_count, 200);
	assert_true(g_result.ops > 0);
	assert_int_equal(g_result.ops, fake.gets);
	assert_int_equal(g_result.bytes, g_result.ops * 2048);
	assert_int_equal(g_result.from_dram + g_result.from_flash, g_result.ops);
	assert_int_equal(g_result.errors, 0);
	assert_int_equal(g_result.wrong_bytes, 0);
	assert_int_equal(metric_get(&g_result.latency_us.count) * 3, g_result.ops);
	assert_true(g_result.elapsed_us >= 30000);

	fake.gets = 0;
	fake.damage_every = 10;
	assert_int_equal(bench_run(&options, &g_result, g_detail), 0);
	assert_int_equal(g_result.wrong_bytes, fake.gets / 10);
	options.verify = false;
	assert_int_equal(bench_run(&options, &g_result, g_detail), 0);
	assert_int_equal(g_result.wrong_bytes, 0);

	fake.damage_every = 0;
	fake.gets = 0;
	fake.lose_every = 10;
	assert_int_equal(bench_run(&options, &g_result, g_detail), 0);
	assert_int_equal(g_result.errors, fake.gets / 10);
	assert_int_equal(g_result.reasons[HR_REASON_EVICTED], g_result.errors);
}

/* Every PUT stores a key that was not there; a busy store is asked again, and that is no error. */
static void
puts_are_new_keys(void **state)
{
	struct bench_options options = options_for(HR_OP_PUT);

	(void)state;
	fake.busy_every = 20;
	assert_int_equal(bench_run(&options, &g_result, g_detail), 0);
	assert_true(g_result.ops > 0);
	assert_int_equal(g_result.ops, fake.blocks_count);
	assert_int_equal(g_result.errors, 0);
	assert_int_equal(g_result.busy_retries, fake.puts / 20);
}

static void
exists_needs_no_values(void **state)
{
	struct bench_options options = options_for(HR_OP_EXISTS);

	(void)state;
	options.batch = 50;
	assert_int_equal(bench_run(&options, &g_result, g_detail), 0);
	assert_true(g_result.ops > 0);
	assert_int_equal(g_result.errors, 0);
}

static void
a_set_that_does_not_fit_is_said(void **state)
{
	struct bench_options options = options_for(HR_OP_GET);

	(void)state;
	options.tier = BENCH_DRAM; /* Reads it all before the run, so what is gone is noticed. */
	fake.capacity_blocks = 20;
	assert_true(bench_run(&options, &g_result, g_detail) < 0);
	assert_non_null(strstr(g_detail, "--working-set"));
	options.url = "else:";
	assert_int_equal(bench_run(&options, &g_result, g_detail), -HR_EURL);
	assert_non_null(strstr(g_detail, "fake: is wanted"));
}

static void
working_sets_fit_the_tier(void **state)
{
	static const char stat[] =
	    "{\"nodes\": [{\"shards\": [{\"bytes_capacity\": 4000000000, \"dram\": {\"bytes_max\": 50000000}}, "
	    "{\"bytes_capacity\": 4000000000, \"dram\": {\"bytes_max\": 50000000}}]}]}";

	(void)state;
	assert_int_equal(bench_working_set(stat, BENCH_ANY), 64 << 20);
	assert_int_equal(bench_working_set(stat, BENCH_DRAM), 50000000);
	assert_int_equal(bench_working_set(stat, BENCH_FLASH), 400000000);
	assert_int_equal(bench_working_set("{\"bytes_capacity\": 1000}", BENCH_FLASH), 500);
	assert_int_equal(bench_working_set("nonsense", BENCH_FLASH), 64 << 20);
}

/* 64 MiB are not 32 million values of two bytes: they would be 128 GiB of pages. */
static void
small_values_are_not_too_many(void **state)
{
	struct bench_options options = options_for(HR_OP_EXISTS);

	(void)state;
	options.working_set_bytes = 0;
	options.value_bytes = 2;
	options.batch = 1000;
	assert_int_equal(bench_run(&options, &g_result, g_detail), 0);
	assert_int_equal(g_result.working_set_bytes, 2 * (64 << 20) / 4096);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup(gets_are_counted_and_compared, setup),
		cmocka_unit_test_setup(puts_are_new_keys, setup),
		cmocka_unit_test_setup(exists_needs_no_values, setup),
		cmocka_unit_test_setup(a_set_that_does_not_fit_is_said, setup),
		cmocka_unit_test(working_sets_fit_the_tier),
		cmocka_unit_test_setup(small_values_are_not_too_many, setup),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
