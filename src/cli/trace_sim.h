/* trace_sim.h — what a cache of blocks makes of a trace, exactly: one that never forgets, and LRU at a capacity.
 *
 * What:       per request, in order: the usable-prefix hits are the longest leading run of its blocks that is resident at
 *             look-up; then each block is touched once, last to first (order R: a prefix's head is the newest), a resident one
 *             becoming the most recent, an absent one inserted, the least recent leaving when the cache is full.
 * Not here:   bytes, tiers and time; a block is a block.
 * Threads:    pure functions of their arguments.
 * Errors:     0 or -ENOMEM.
 * Tests:      tests/unit/cli/test_trace_sim.c (against a list that is searched from end to end)
 */
#ifndef HR_CLI_TRACE_SIM_H
#define HR_CLI_TRACE_SIM_H

#include "cli/trace.h"

struct trace_sim_result {
	uint64_t refs_count;
	uint64_t prefix_hits; /* usable-prefix hits */
	uint64_t block_hits;  /* touches that found their block */
};

/* Of requests [first, first + count), from an empty cache. hits[] is NULL or gets the prefix hits of each of them. */
HR_WARN_UNUSED int trace_sim_infinite(const struct trace *trace, size_t first, size_t count,
				      uint32_t *hits, struct trace_sim_result *ret_result);
/* capacity_blocks 0: nothing is ever kept. */
HR_WARN_UNUSED int
trace_sim_lru(const struct trace *trace, size_t first, size_t count, uint64_t capacity_blocks,
	      uint32_t *hits, struct trace_sim_result *ret_result);

/* Distinct blocks that requests [first, first + count) refer to. */
HR_WARN_UNUSED int
trace_sim_unique(const struct trace *trace, size_t first, size_t count, uint64_t *ret_blocks);

#endif
