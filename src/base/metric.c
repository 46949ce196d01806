/* metric.c — the log-linear histogram. Values below 128 have a step of their own; above, each doubling has 64 steps. */
#include "base/metric.h"

#include <math.h>

enum { STEPS = 1 << HISTOGRAM_STEP_BITS };

static size_t
bucket_of(uint64_t value)
{
	unsigned shift;

	value = HR_MIN(value, ((uint64_t)1 << HISTOGRAM_VALUE_BITS) - 1);
	if (value < 2 * STEPS) {
		return value;
	}
	shift = log2_floor(value) - HISTOGRAM_STEP_BITS;
	return ((size_t)shift << HISTOGRAM_STEP_BITS) + (value >> shift);
}

static uint64_t
bucket_first(size_t bucket)
{
	size_t shift;

	if (bucket < 2 * STEPS) {
		return bucket;
	}
	shift = (bucket >> HISTOGRAM_STEP_BITS) - 1;
	return (uint64_t)((bucket & (STEPS - 1)) + STEPS) << shift;
}

void
histogram_reset(struct histogram *histogram)
{
	metric_set(&histogram->count, 0);
	metric_set(&histogram->sum, 0);
	metric_set(&histogram->max, 0);
	for (size_t i = 0; i < HISTOGRAM_BUCKETS; i++) {
		metric_set(&histogram->buckets[i], 0);
	}
}

void
histogram_add(struct histogram *histogram, uint64_t value)
{
	metric_inc(&histogram->buckets[bucket_of(value)]);
	metric_inc(&histogram->count);
	metric_add(&histogram->sum, value);
	metric_max(&histogram->max, value);
}

void
histogram_merge(struct histogram *to, const struct histogram *from)
{
	uint64_t count = 0;

	/* The count is what the buckets say, so that the copy agrees with itself whatever the writer does meanwhile. */
	for (size_t i = 0; i < HISTOGRAM_BUCKETS; i++) {
		uint64_t n = metric_get(&from->buckets[i]);

		if (n != 0) {
			metric_add(&to->buckets[i], n);
			count += n;
		}
	}
	metric_add(&to->count, count);
	metric_add(&to->sum, metric_get(&from->sum));
	metric_max(&to->max, metric_get(&from->max));
}

uint64_t
histogram_percentile(const struct histogram *histogram, double percent)
{
	uint64_t count = metric_get(&histogram->count);
	uint64_t seen = 0;
	uint64_t rank;

	if (count == 0) {
		return 0;
	}
	rank = (uint64_t)ceil(percent / 100.0 * (double)count);
	rank = HR_MIN(HR_MAX(rank, 1u), count);
	for (size_t i = 0; i < HISTOGRAM_BUCKETS; i++) {
		seen += metric_get(&histogram->buckets[i]);
		if (seen >= rank) {
			uint64_t first = bucket_first(i);
			uint64_t middle = first + (bucket_first(i + 1) - first) / 2;

			return HR_MIN(middle, metric_get(&histogram->max));
		}
	}
	return metric_get(&histogram->max);
}

double
histogram_mean(const struct histogram *histogram)
{
	uint64_t count = metric_get(&histogram->count);

	return count == 0 ? 0.0 : (double)metric_get(&histogram->sum) / (double)count;
}

uint64_t
histogram_count_at_most(const struct histogram *histogram, uint64_t value)
{
	size_t last = bucket_of(value);
	uint64_t seen = 0;

	for (size_t i = 0; i <= last; i++) {
		seen += metric_get(&histogram->buckets[i]);
	}
	return seen;
}
