/* bench.h — how fast a store is: one operation, at a depth, for a time.
 *
 * What:       threads with a handle each keep `depth` batches of `batch` items under way for `us` microseconds. What a GET or an
 *             EXISTS needs is stored first. PUTs always store new keys. Every GET is compared byte by byte with what was
 *             stored, unless `verify` is off.
 * Threads:    bench_run() starts and joins its own.
 * Errors:     0 or a negative error with a line in detail.
 * Tests:      tests/unit/cli/test_bench.c (against a store in memory)
 */
#ifndef HR_CLI_BENCH_H
#define HR_CLI_BENCH_H

#include <headrace/headrace.h>

#include "base/metric.h"

enum { BENCH_DETAIL_BYTES = 512 };

enum bench_tier { BENCH_ANY, BENCH_DRAM, BENCH_FLASH };

struct bench_options {
	const char *url, *token_file;
	enum hr_op op; /* GET, PUT or EXISTS */
	uint64_t value_bytes;
	uint32_t depth, batch, threads;
	uint64_t us;
	uint64_t working_set_bytes; /* stored first, for GET and EXISTS; 0: chosen by tier and by what the store says */
	enum bench_tier tier;
	uint8_t ack;
	bool verify;
	uint64_t deadline_us;
	uint32_t ready_ms;
	uint64_t seed; /* of the keys; 0: new ones each time */
	/* Called now and then from the thread of bench_run(); NULL: nobody watches. */
	void (*progress_cb)(void *arg, const char *what, uint64_t done, uint64_t total);
	void *cb_arg;
};

struct bench_result {
	uint64_t ops, errors, busy_retries, wrong_bytes;
	uint64_t from_dram, from_flash;
	uint64_t elapsed_us, bytes;
	uint64_t working_set_bytes;
	uint64_t reasons[HR_REASON_COUNT]; /* of what was not OK */
	struct histogram latency_us;	   /* of a batch */
};

/* ret_result: 18 KiB, the caller's. */
int bench_run(const struct bench_options *options, struct bench_result *ret_result, char *detail);

/* Bytes to store first when nobody says: within half of what the store holds, and for the flash tier twice its DRAM. */
uint64_t bench_working_set(const char *stat_json, enum bench_tier tier);

#endif
