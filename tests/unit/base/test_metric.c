/* test_metric.c — percentiles against a sorted array of the same values, over ranges from microseconds to days. */
#include "base/metric.h"
#include "base/prng.h"

#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

enum { VALUES = 20000 };

static int
compare_u64(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a;
	uint64_t y = *(const uint64_t *)b;

	return x < y ? -1 : x > y;
}

static void
test_percentiles(void **state)
{
	static const double percents[] = { 0, 1, 50, 90, 99, 99.9, 100 };
	static struct histogram histogram, copy;
	static uint64_t values[VALUES];
	struct prng prng;

	(void)state;
	prng_init(&prng, 21);
	for (unsigned bits = 1; bits <= HISTOGRAM_VALUE_BITS; bits += 3) {
		histogram_reset(&histogram);
		for (size_t i = 0; i < VALUES; i++) {
			values[i] = prng_below(&prng, (uint64_t)1 << (1 + prng_below(&prng, bits)));
			histogram_add(&histogram, values[i]);
		}
		qsort(values, VALUES, sizeof(values[0]), compare_u64);
		for (size_t i = 0; i < ARRAY_SIZE(percents); i++) {
			size_t rank = (size_t)(percents[i] / 100 * VALUES + 0.999999);
			uint64_t expected = values[HR_MAX(rank, 1u) - 1];
			uint64_t got = histogram_percentile(&histogram, percents[i]);
			uint64_t off = got > expected ? got - expected : expected - got;

			assert_true(off <= expected / 100);
		}
		assert_true(metric_get(&histogram.max) == values[VALUES - 1]);
		assert_int_equal(histogram_count_at_most(&histogram, UINT64_MAX), VALUES);
	}
	/* Merging twice doubles counts and leaves percentiles and the maximum alone. */
	histogram_reset(&copy);
	histogram_merge(&copy, &histogram);
	histogram_merge(&copy, &histogram);
	assert_int_equal(metric_get(&copy.count), 2 * VALUES);
	assert_true(histogram_percentile(&copy, 99) == histogram_percentile(&histogram, 99));
	assert_true(histogram_mean(&copy) == histogram_mean(&histogram));
	assert_true(metric_get(&copy.max) == metric_get(&histogram.max));
}

static void
test_edges(void **state)
{
	static struct histogram histogram;

	(void)state;
	assert_int_equal(histogram_percentile(&histogram, 99), 0);
	assert_true(histogram_mean(&histogram) == 0.0);
	histogram_add(&histogram,
		      UINT64_MAX /
			  2); /* Beyond the range: in the last step, with its true maximum. */
	assert_true(metric_get(&histogram.max) == UINT64_MAX / 2);
	assert_true(histogram_percentile(&histogram, 50) > (uint64_t)1
							       << (HISTOGRAM_VALUE_BITS - 1));
	histogram_reset(&histogram);
	histogram_add(&histogram, 100);
	histogram_add(&histogram, 127);
	histogram_add(&histogram, 128);
	assert_int_equal(histogram_count_at_most(&histogram, 99), 0);
	assert_int_equal(histogram_count_at_most(&histogram, 100), 1);
	assert_int_equal(histogram_count_at_most(&histogram, 127), 2);
	assert_int_equal(histogram_count_at_most(&histogram, 128), 3);
}

static void
test_words(void **state)
{
	metric_t metric = 0;

	(void)state;
	metric_add(&metric, 5);
	metric_inc(&metric);
	metric_sub(&metric, 2);
	assert_int_equal(metric_get(&metric), 4);
	metric_max(&metric, 3);
	assert_int_equal(metric_get(&metric), 4);
	metric_max(&metric, 9);
	assert_int_equal(metric_get(&metric), 9);
	metric_add_shared(&metric, 1);
	assert_int_equal(metric_get(&metric), 10);
}

static void *
histogram_writer(void *arg)
{
	for (uint64_t i = 0; i < VALUES; i++) {
		histogram_add(arg, i);
	}
	return NULL;
}

/* A reader's copies never go backwards, agree with themselves, and end with everything. */
static void
test_read_while_written(void **state)
{
	static struct histogram histogram, copy;
	uint64_t count_before = 0;
	pthread_t thread;

	(void)state;
	assert_int_equal(pthread_create(&thread, NULL, histogram_writer, &histogram), 0);
	while (count_before < VALUES) {
		histogram_reset(&copy);
		histogram_merge(&copy, &histogram);
		assert_true(metric_get(&copy.count) >= count_before);
		assert_int_equal(histogram_count_at_most(&copy, UINT64_MAX),
				 metric_get(&copy.count));
		count_before = metric_get(&copy.count);
	}
	pthread_join(thread, NULL);
	assert_int_equal(metric_get(&histogram.count), VALUES);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_percentiles),
		cmocka_unit_test(test_edges),
		cmocka_unit_test(test_words),
		cmocka_unit_test(test_read_while_written),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
