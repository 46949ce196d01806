/* cache.h — the DRAM tier: values in the arena, found by their place on flash.
 *
 * What:       cached values with reference counts, one entry per record, found by place; values under read ("filling") are
 *             entries too, so concurrent reads of one record cost one flash read. Replacement is S3-FIFO over pages, per tenant:
 *             a small queue for what is new (10 % of the pages), a main queue for what was used again, and a memory of the
 *             fingerprints that left the small one lately, whose return goes to the main queue at once. Why not SIEVE:
 *             docs/design/002-dram-tier.md.
 * Not here:   the index; what is on flash. The tier holds nothing that flash does not hold or is about to hold: the engine
 *             drops entries when their record dies.
 * Tenants:    memory of different tenants is in different chunks. A tenant makes room in its own; one with less than its share
 *             (arena / tenants that hold something) empties a whole chunk of the one that holds most, which takes a walk over
 *             that one's entries (some ms a GiB of small values), once a chunk.
 * Threads:    the shard's.
 * Ownership:  cache_ref() holders may read buf until cache_unref(); a dropped entry lives (unfindable) until its last reference
 *             goes. The maker of an entry may write buf until it clears `filling`.
 * Invariants: C1 an entry with references is never evicted. C2 at most one findable entry a place. C3 pages of the queues are
 *             those of the findable entries.
 * Source:     Yang et al., "FIFO queues are all you need for cache eviction", SOSP'23.
 * Tests:      tests/unit/engine/test_cache.c, bench/dram_sim.c
 */
#ifndef HR_ENGINE_CACHE_H
#define HR_ENGINE_CACHE_H

#include <stdbool.h>
#include <stdint.h>

#include "base/list.h"
#include "engine/arena.h"
#include "engine/index.h"

struct cache;

struct cache_entry {
	struct list_head link;	  /* Queue; private. */
	struct list_head waiters; /* Of the engine: who waits for the fill. */
	place_t place;		  /* PLACE_NONE unless findable. */
	uint64_t ident; /* Hash of the identity (index_key.hash), guards against a reused place. */
	struct arena_buf buf;
	uint32_t bytes;
	uint32_t refs;	     /* Read-only outside; cache_ref(). */
	uint8_t queue, freq; /* Private. */
	bool filling;	     /* Contents not valid yet; the engine's. */
	bool findable;	     /* Read-only outside. */
	struct cache *cache; /* Private. */
	uint32_t crcs_count; /* ceil(bytes / 64 KiB) */
	uint32_t *crcs; /* Owned; end-to-end CRCs of its 64 KiB chunks. Contents are the engine's. */
	uint32_t crc_one; /* Used when crcs_count is at most 1: crcs points here. */
	uint64_t birth, block_bytes,
	    expiry_ms; /* The engine's, zero at first, as are the next ones. */
	uint16_t part, parts_count;
	void *user;
};

struct cache_counters {
	uint64_t hits, misses; /* Of cache_find() with `use`. */
	uint64_t inserts, evictions, ghost_hits, alloc_failures;
	uint64_t bytes, entries;       /* Findable or not, whole pages. */
	uint64_t bytes_pinned_by_refs; /* Of these, with references. */
};

/* The arena is borrowed; other users of it may allocate, too. */
int cache_create(struct arena *arena, struct cache **ret_cache);
/* All references must be gone. */
void cache_destroy(struct cache *cache);
/* Memory for a value of `bytes`, evicting unreferenced entries as needed. Returned with one reference, not findable. -EAGAIN:
 * everything is referenced (or used by others than the cache). */
int cache_new(struct cache *cache, uint32_t tenant, uint32_t bytes, struct cache_entry **ret_entry);
/* Makes it findable at a place (the reference of the caller stays the caller's). An older entry at the same place is dropped. */
void cache_publish(struct cache *cache, struct cache_entry *entry, place_t place, uint64_t ident);
/* The record moved (pending -> flash place): same entry, new name. An older entry at that place is dropped. No effect on an
 * entry that was dropped. */
void cache_rename(struct cache *cache, struct cache_entry *entry, place_t place);
/* NULL: not there. Otherwise a new reference; counts as a use (for replacement) when `use`. */
struct cache_entry *cache_find(struct cache *cache, place_t place, uint64_t ident, bool use);
void cache_ref(struct cache_entry *entry);
void cache_unref(struct cache *cache, struct cache_entry *entry);
/* Unfindable from now on; freed with the last reference. Dropping twice is harmless. */
void cache_drop(struct cache *cache, struct cache_entry *entry);
void cache_drop_place(struct cache *cache, place_t place);
/* Evicts at least that many bytes of the tenant's (or makes another's chunk free), for whoever allocates from the arena
 * directly; false: nothing could be evicted. */
bool cache_make_room(struct cache *cache, uint32_t tenant, uint32_t bytes);
void cache_counters_get(const struct cache *cache, struct cache_counters *ret);
/* Asserts the invariants; for tests. */
void cache_check(const struct cache *cache);

#endif
