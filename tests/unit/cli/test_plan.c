/* The cost model and the plan: worked examples by hand, and what must hold whatever the numbers. */
#include "cli/plan.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

#include "base/prng.h"

/* 10 parameters, 2 layers 3 wide, 100 bytes a token. */
static const struct model tiny = { "tiny", 100, 10, 2, 3, 1 };

static struct plan_input
example(void)
{
	return (struct plan_input){
		.cost = { .model = &tiny, .tflops = 1e-9, .mfu = 0.5 }, /* 500 FLOPs a second */
		.bytes_per_token = 100,
		.gpus = 16,
		.context_tokens = 1000,
		.sessions = 60,
		.turn_gap_s = 30,
		.hit_share = 0.75,
		.copies = 2,
		.fill = 0.5,
		.gpus_per_host = 8,
		.link_bits_per_s = 8e6,
		.link_share = 0.5,
		.tp = 2,
		.load_latency_us = 1000,
		.node_bytes = 5e6,
		.node_read_bytes_per_s = 1e5,
		.node_link_bits_per_s = 8e6,
		.node_write_bytes_per_day = 1e9,
		.write_amplification = 1.25,
	};
}

#define ASSERT_NEAR(got, want) assert_true(fabs((got) - (want)) <= 1e-9 * fabs((double)(want)))

static void
worked_example(void **state)
{
	struct plan_input input = example();
	struct plan plan;

	(void)state;
	assert_int_equal(plan_compute(&input, &plan, NULL), 0);
	ASSERT_NEAR(plan.session_bytes, 100000);
	ASSERT_NEAR(plan.capacity_bytes, 100000.0 * 60 * 2 / 0.5);
	ASSERT_NEAR(plan.requests_per_s, 2);
	ASSERT_NEAR(plan.read_bytes_per_s, 2 * 750 * 100);
	ASSERT_NEAR(plan.write_bytes_per_s, 2 * 250 * 100 * 2);
	ASSERT_NEAR(plan.flash_write_bytes_per_day, 100000 * 1.25 * 86400);
	ASSERT_NEAR(plan.hosts, 2);
	ASSERT_NEAR(plan.host_bits_per_s, 250000.0 * 8 / 2);
	ASSERT_NEAR(plan.link_used_share, 0.125);
	assert_true(plan.nodes_for_capacity == 5); /* 24 MB at 5 MB */
	assert_true(plan.nodes_for_reads == 2);	   /* 150 kB/s at 100 kB/s */
	assert_true(plan.nodes_for_links == 1);
	assert_true(plan.nodes_for_writes == 11); /* 10.8 GB a day at 1 GB */
	assert_true(plan.nodes == 11);
	/* 2·10·T + 2·2·3·T²: 20,000 + 12,000,000 FLOPs at 500 a second. */
	ASSERT_NEAR(plan.gpu_s_without, 12020000.0 / 500);
	ASSERT_NEAR(plan.gpu_s_with, (20 * 250 + 12.0 * (1e6 - 750.0 * 750)) / 500);
	ASSERT_NEAR(plan.load_bytes_per_s_alone, 500000);
	ASSERT_NEAR(plan.load_bytes_per_s_shared, 125000);
	ASSERT_NEAR(plan.load_s, 0.001 + 75000.0 / 125000);
}

/* At the break-even both sides take equally long; one token less, and computing is faster. */
static void
break_even_is_where_both_meet(void **state)
{
	struct prng prng;

	(void)state;
	prng_init(&prng, 5);
	for (int i = 0; i < 2000; i++) {
		struct plan_input input = example();
		double rate = pow(10, 3 + 8 * prng_double(&prng));
		double tokens, load, compute, load_less, compute_less;

		input.cost.model = &models[prng_below(&prng, models_count)];
		input.cost.tflops = 100 + 1000 * prng_double(&prng);
		input.bytes_per_token = input.cost.model->bytes_per_token;
		input.load_latency_us = 1 + 10000 * prng_double(&prng);
		tokens = plan_break_even(&input, rate);
		load = input.load_latency_us / 1e6 + tokens * (double)input.bytes_per_token / rate;
		compute = cost_gpu_seconds(&input.cost, 0, tokens) / input.tp;
		assert_true(tokens > 0 && isfinite(tokens));
		assert_true(fabs(load - compute) <= 1e-6 * compute);
		load_less = input.load_latency_us / 1e6 +
			    tokens * 0.99 * (double)input.bytes_per_token / rate;
		compute_less = cost_gpu_seconds(&input.cost, 0, tokens * 0.99) / input.tp;
		assert_true(compute_less < load_less);
	}
}

static void
bad_inputs_are_named(void **state)
{
	struct plan_input input = example();
	struct errbuf err;
	struct plan plan;

	(void)state;
	input.hit_share = 1.5;
	assert_int_equal(plan_compute(&input, &plan, &err), -EINVAL);
	assert_non_null(strstr(err.text, "--hits"));
	input = example();
	input.turn_gap_s = 0;
	assert_int_equal(plan_compute(&input, &plan, &err), -EINVAL);
	assert_non_null(strstr(err.text, "--turn-gap"));
	input = example();
	input.cost.mfu = 0;
	assert_int_equal(plan_compute(&input, &plan, &err), -EINVAL);
	assert_non_null(strstr(err.text, "--mfu"));
}

/* Parts of a prefix add up to the whole. */
static void
costs_add_up(void **state)
{
	const struct cost_model cost = { .model = &models[0], .tflops = 989, .mfu = 0.5 };
	double sum = cost_gpu_seconds(&cost, 0, 1000) + cost_gpu_seconds(&cost, 1000, 8000);

	(void)state;
	ASSERT_NEAR(cost_gpu_seconds(&cost, 0, 8000), sum);
	/* 8 B parameters, 8,000 tokens: 128 TFLOPs of matrices, 17 of attention; at 494 a second. */
	assert_true(cost_gpu_seconds(&cost, 0, 8000) > 0.26 &&
		    cost_gpu_seconds(&cost, 0, 8000) < 0.32);
}

/* Bytes a token as the models' shapes give them: 2 (K and V) x layers x KV heads x head dimension x 2 bytes. */
static void
presets_are_right(void **state)
{
	static const struct {
		const char *name;
		uint64_t bytes;
	} known[] = {
		{ "llama-3.1-8b", 2ULL * 32 * 8 * 128 * 2 },
		{ "Llama-3.1-70B", 2ULL * 80 * 8 * 128 * 2 },
		{ "qwen2.5-7b", 2ULL * 28 * 4 * 128 * 2 },
		{ "deepseek-v3", 61ULL * 576 * 2 },
		{ "qwen3-8b", 2ULL * 36 * 8 * 128 * 2 },
		{ "qwen3-32b", 2ULL * 64 * 8 * 128 * 2 },
		{ "qwen3-235b-a22b", 2ULL * 94 * 4 * 128 * 2 },
		{ "minimax-m2", 2ULL * 62 * 8 * 128 * 2 },
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(known); i++) {
		assert_non_null(model_find(known[i].name));
		assert_int_equal(model_find(known[i].name)->bytes_per_token, known[i].bytes);
	}
	assert_null(model_find("gpt-9"));
	assert_string_equal(model_nearest("lama-3.1-8b"), "llama-3.1-8b");
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(worked_example),
		cmocka_unit_test(break_even_is_where_both_meet),
		cmocka_unit_test(bad_inputs_are_named),
		cmocka_unit_test(costs_add_up),
		cmocka_unit_test(presets_are_right),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
