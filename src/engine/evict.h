/* evict.h - eviction policies: a table of functions. LRU is the first.
 *
 * What:       a policy gives each live record a recency (16 bits, stored in its index entry) in logical time, and says which sealed segment
 *             holds the fewest records that it would keep (the victim), which of its records are worth carrying, most recent first.
 * How LRU does it: logical time advances by one epoch when the newest epoch holds 1/256 of the shard's record capacity (distinct records, so a
 *             hot loop does not age the rest). Epochs are grouped into at most 64 bins; per segment a count of records per bin; a threshold bin such that the records
 *             newer than it are as many as LRU would hold; `hot` of a segment = its records inside the threshold, kept incrementally. Old bins merge pairwise.
 * Bytes or records: counts are in pages of payload, not records, so that mixed sizes weigh right.
 * Threads:    the shard's. Pure code: no io, so that simulators run it too.
 * Limits:     64 bins x 4 bytes a segment + 64 KiB.
 * Tests:      tests/unit/engine/test_evict.c, tests/func (traces)
 */
#ifndef HR_ENGINE_EVICT_H
#define HR_ENGINE_EVICT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct evict_policy;
struct evict;

struct evict_options {
	uint32_t segments_count;
	uint64_t capacity_pages; /* what the segments can hold */
};

struct evict_policy {
	const char *name;
	const char *help;
	int (*create)(const struct evict_options *options, struct evict **ret);
	void (*destroy)(struct evict *e);
	/* A record became live in a segment; returns its recency. carried: a survivor's copy, which keeps the recency it had. */
	uint16_t (*insert)(struct evict *e, uint32_t segment, uint32_t pages);
	void (*insert_carried)(struct evict *e, uint32_t segment, uint32_t pages, uint16_t recency);
	/* A live record was used; returns the new recency. */
	uint16_t (*touch)(struct evict *e, uint32_t segment, uint32_t pages, uint16_t recency);
	/* A record died (deleted, replaced, evicted, carried away). */
	void (*remove)(struct evict *e, uint32_t segment, uint32_t pages, uint16_t recency);
	/* Pages of live records in the segment inside the threshold. */
	uint64_t (*hot_pages)(struct evict *e, uint32_t segment);
	uint64_t (*live_pages)(struct evict *e, uint32_t segment);
	/* The best victim among segments for which eligible() holds; UINT32_MAX when none. */
	uint32_t (*victim)(struct evict *e, bool (*eligible)(void *arg, uint32_t segment), void *arg);
	/* How much worth keeping: greater = more recent; 0 = outside the threshold (not a survivor). */
	uint32_t (*worth)(struct evict *e, uint16_t recency);
	size_t (*bytes)(const struct evict *e);
};

extern const struct evict_policy evict_lru;
/* By name; NULL: none. Names for error texts: evict_policy_names(). */
const struct evict_policy *evict_policy_find(const char *name);
const char *evict_policy_names(void);

#endif
