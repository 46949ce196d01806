/* metric.h — counters, gauges, and histograms of latencies.
 *
 * What:       plain words that their one writer adds to and that anybody may read; and a log-linear histogram (64 steps to each
 *             doubling) with percentiles that are off by less than 1 %.
 * Not here:   how they are shown: server/ (Prometheus), cli/ (tables, JSON).
 * Threads:    metric_add() and the rest of the writing calls: one writer each, by relaxed loads and stores, which cost what a
 *             plain variable costs. Reading: any thread; values of different counters may be a moment apart. A histogram is
 *             read by others through histogram_merge() into a copy.
 * Limits:     values from 0 to 2^40 - 1 (in microseconds: 12 days; in nanoseconds: 18 minutes); greater ones count as that.
 *             18 KiB a histogram.
 * Tests:      tests/unit/base/test_metric.c
 */
#ifndef HR_BASE_METRIC_H
#define HR_BASE_METRIC_H

#include <stdatomic.h>

#include "base/base.h"

typedef _Atomic uint64_t metric_t;

static inline uint64_t
metric_get(const metric_t *metric)
{
	return atomic_load_explicit(metric, memory_order_relaxed);
}

static inline void
metric_set(metric_t *metric, uint64_t value)
{
	atomic_store_explicit(metric, value, memory_order_relaxed);
}

static inline void
metric_add(metric_t *metric, uint64_t n)
{
	metric_set(metric, metric_get(metric) + n);
}

static inline void
metric_inc(metric_t *metric)
{
	metric_add(metric, 1);
}

/* A gauge that goes below zero is a bug. */
static inline void
metric_sub(metric_t *metric, uint64_t n)
{
	uint64_t value = metric_get(metric);

	HR_ASSERTF(value >= n, "value=%llu n=%llu", (unsigned long long)value,
		   (unsigned long long)n);
	metric_set(metric, value - n);
}

/* High-water mark. */
static inline void
metric_max(metric_t *metric, uint64_t value)
{
	if (value > metric_get(metric)) {
		metric_set(metric, value);
	}
}

/* For the few counters with several writers. */
static inline void
metric_add_shared(metric_t *metric, uint64_t n)
{
	atomic_fetch_add_explicit(metric, n, memory_order_relaxed);
}

enum {
	HISTOGRAM_STEP_BITS = 6,
	HISTOGRAM_VALUE_BITS = 40,
	HISTOGRAM_BUCKETS = (HISTOGRAM_VALUE_BITS - HISTOGRAM_STEP_BITS + 1) << HISTOGRAM_STEP_BITS,
};

struct histogram {
	metric_t count;
	metric_t sum;
	metric_t max;
	metric_t buckets[HISTOGRAM_BUCKETS];
};

/* A zeroed histogram is an empty one. */
void histogram_reset(struct histogram *histogram);
void histogram_add(struct histogram *histogram, uint64_t value);

/* Adds `from`, which another thread may be writing, to `to`, which is ours. */
void histogram_merge(struct histogram *to, const struct histogram *from);

/* The value below or at which `percent` (0 … 100) of the values lie: the middle of its step, never more than the maximum.
 * 0 when there is none. */
uint64_t histogram_percentile(const struct histogram *histogram, double percent);

double histogram_mean(const struct histogram *histogram);

/* How many values were at most `value`, exact to the step: for buckets of Prometheus. */
uint64_t histogram_count_at_most(const struct histogram *histogram, uint64_t value);

#endif
