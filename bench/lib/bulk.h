/* bulk.h — the real engine on a simulated device that keeps no values, for measuring what it does with a lot of them.
 *
 * What:       a store of one shard whose values are all of one size and follow from a number; the device forgets their pages when
 *             they are written and makes them again, right to the byte, when they are read. So a store of 50 GiB fits into memory.
 * Not here:   power cuts and damage (tests/fault): what the device remembers of its values is not rolled back.
 * Threads:    one. Every call turns the simulated world until it is answered.
 * Ownership:  bulk_destroy() ends everything.
 * Errors:     what cannot go wrong in a measurement ends the program by an assertion, with the reason.
 * Limits:     number × pages of a value + 1 < 2^32.
 * Tests:      tests/sim/engine_memory.c, tests/sim/engine_trace.c
 */
#ifndef HR_BENCH_BULK_H
#define HR_BENCH_BULK_H

#include "base/base.h"
#include "engine/engine.h"

struct bulk_options {
	uint64_t seed;
	uint64_t device_bytes;
	uint64_t segment_bytes; /* 0 = what format takes by itself */
	uint32_t value_bytes;	/* whole pages, one part */
	bool forget_descriptors; /* The device keeps the superblock and the space tables only: no reclaim, no restart. */
	struct engine_options engine;
};

struct bulk;

struct bulk *bulk_create(const struct bulk_options *options);
void bulk_destroy(struct bulk *bulk);
struct engine *bulk_engine(struct bulk *bulk);
/* Simulated time passes. */
void bulk_pass(struct bulk *bulk, uint64_t us);
/* All that was put is on the device. */
void bulk_flush(struct bulk *bulk);

/* Begins a PUT (ram, if_absent) and retries while the store is busy. ttl_ms 0: for ever. */
void bulk_put(struct bulk *bulk, uint32_t number, uint32_t ttl_ms);
/* Waits until every PUT so far is answered. */
void bulk_puts_wait(struct bulk *bulk);
bool bulk_exists(struct bulk *bulk, uint32_t number, uint32_t lease_ms);
void bulk_release(struct bulk *bulk, uint32_t number);
/* GETs of numbers[count - 1] down to numbers[0], many at a time; ret_ok[i] tells whether numbers[i] came, every page of it right. */
void bulk_gets(struct bulk *bulk, const uint32_t *numbers, size_t count, uint8_t *ret_ok);

struct bulk_counters {
	uint64_t puts, put_duplicates, put_busy_retries, put_refused;
	uint64_t gets, get_wrong;
	uint64_t pages_kept; /* by the device: all it has in memory */
};
void bulk_counters_get(const struct bulk *bulk, struct bulk_counters *ret);

/* -- replaying a trace ------------------------------------------------------------------------------------------------------- */
struct trace;

struct bulk_replay {
	uint64_t refs, hits;
	uint64_t lost_after_look; /* leased, or at least seen, and gone when it was to be read */
};
/* Every request as `headrace replay` makes it: EXISTS of the chain with leases, GET of the usable prefix, PUT of the rest from the tail,
 * release. pause_us of simulated time pass between requests. */
void bulk_replay(struct bulk *bulk, const struct trace *trace, uint64_t pause_us,
		 struct bulk_replay *ret);
/* One line of key=value: hits beside LRU's at lru_blocks, and what was written for what. */
void
bulk_replay_report(struct bulk *bulk, const struct trace *trace, const struct bulk_replay *replay,
		   uint64_t lru_blocks, double *ret_ratio, double *ret_write_amplification);

#endif
