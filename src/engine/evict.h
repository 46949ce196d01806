/* evict.h — eviction policies: a table of functions. LRU is the first.
 *
 * What:       a policy gives each live record a recency (16 bits, stored in its index entry) in logical time, and says which
 *             sealed segment holds the fewest records that it would keep (the victim), and what each record is worth, so that
 *             the survivors are carried most recent first.
 * Not here:   carrying itself and its order in time (engine.c); why records went (reason.h).
 * How LRU does it: logical time advances by one epoch when the newest epoch holds 1/256 of the shard's capacity, in distinct
 *             records, so a hot loop does not age the rest. Epochs are grouped into at most 64 bins of about equal weight (the
 *             lightest neighbours merge); per segment a count of pages per bin. A segment's hot pages are those in the
 *             threshold bin and newer ones. The threshold is set for each victim: the oldest one that leaves a segment whose
 *             hot pages are within the budget, so what is lost is as old as the budget allows, and nothing hot is lost.
 * Weight:     counts are in pages of payload, not records, so that mixed sizes weigh right.
 * Ageing:     16 bits of epochs wrap. While age_due(), the engine passes one more sub-table of the index through age()
 *             (index_sweep_recency()); it comes to one sub-table every 16 epochs.
 * After a restart: recovery inserts live records in the order of their segments' generations: the order of writing stands in
 *             for the order of use, which is not on flash.
 * Threads:    the shard's. Pure code: no io, so that simulators run it too.
 * Errors:     -ENOMEM at creation; nothing fails later.
 * Invariants: E1 live pages of a segment are the sum of its bins. E2 hot pages are the sum of its bins inside the threshold.
 *             E3 bins are disjoint runs of epochs in order.
 * Limits:     64 bins × 4 bytes a segment + 80 KiB. insert, touch, remove: a few additions; a new epoch and a victim: a walk
 *             over the segments' bins.
 * Source:     docs/design/001-reclaim.md, with what was measured.
 * Tests:      tests/unit/engine/test_evict.c, bench/policy_sim.c, tests/func (traces)
 */
#ifndef HR_ENGINE_EVICT_H
#define HR_ENGINE_EVICT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct evict;

struct evict_options {
	uint32_t segments_count;
	uint64_t capacity_pages; /* What the segments can hold. */
};

struct evict_policy {
	const char *name;
	const char *help;
	int (*create)(const struct evict_options *options, struct evict **ret);
	void (*destroy)(struct evict *e);
	/* A record became live in a segment; returns its recency. carried: a survivor's copy, which keeps the recency it had. */
	uint16_t (*insert)(struct evict *e, uint32_t segment, uint32_t pages);
	void (*insert_carried)(struct evict *e, uint32_t segment, uint32_t pages, uint16_t recency);
	/* A live record was used; returns the new recency, which the caller stores. */
	uint16_t (*touch)(struct evict *e, uint32_t segment, uint32_t pages, uint16_t recency);
	/* A record died (deleted, replaced, evicted, carried away). */
	void (*remove)(struct evict *e, uint32_t segment, uint32_t pages, uint16_t recency);
	/* Pages of live records in the segment inside the threshold. */
	uint64_t (*hot_pages)(struct evict *e, uint32_t segment);
	uint64_t (*live_pages)(struct evict *e, uint32_t segment);
	/* How many pages of survivors the next victim may give (evict_budget_pages()); told before each victim(). */
	void (*budget)(struct evict *e, uint64_t pages);
	/* The best victim among segments for which eligible() holds; UINT32_MAX when none. Sets the threshold for hot_pages()
	 * and worth(). */
	uint32_t (*victim)(struct evict *e, bool (*eligible)(void *arg, uint32_t segment),
			   void *arg);
	/* How much worth keeping: greater = more recent; 0 = outside the threshold (not a survivor). */
	uint32_t (*worth)(struct evict *e, uint16_t recency);
	/* True: one more sub-table's recencies are to go through age(), now or soon. Asking counts as doing. */
	bool (*age_due)(struct evict *e);
	uint16_t (*age)(struct evict *e, uint16_t recency);
	size_t (*bytes)(const struct evict *e);
	/* Asserts the invariants; for tests. */
	void (*check)(const struct evict *e);
};

/* How much of a victim may be carried, so that all bytes written over payload stay at or below a limit: what one victim may
 * give by itself in the long run, and a share of what was not used before (the first fill carries nothing). Pure arithmetic;
 * whether the sums are of the store's life or of a window is the caller's choice. With limit 1.17 the traces end at 1.09 to
 * 1.17. */
struct evict_budget {
	uint64_t payload_bytes;	 /* Fresh values, rounded up to pages. */
	uint64_t survivor_bytes; /* Carried values, rounded up to pages. */
	uint64_t written_bytes;	 /* All that went to flash, both of these included. */
	uint64_t victim_bytes;	 /* A segment's room for values. */
	uint32_t segments_count;
	uint32_t limit_permille;
};

/* Pages of survivors that the next victim may give; at most half of it. */
uint64_t evict_budget_pages(const struct evict_budget *budget);

extern const struct evict_policy evict_lru;
/* By name; NULL: none. Names for error texts, separated by ", ": evict_policy_names(). */
const struct evict_policy *evict_policy_find(const char *name);
const char *evict_policy_names(void);

#endif
