/* cache.h - the DRAM tier: values in the arena, found by their place on flash.
 *
 * What:       cached values with reference counts, one entry per record, found by place; values under read ("filling") are entries too, so concurrent reads of
 *             one record cost one flash read. Replacement is scan-resistant (S3-FIFO over pages; small queue 10 %, ghost of fingerprints); which of S3-FIFO and SIEVE: measured on the traces,
 *             said in the commit.
 * Not here:   the index; what is on flash. The tier holds nothing that flash does not hold or is about to hold: the engine drops entries
 *             when their record dies.
 * Threads:    the shard's.
 * Ownership:  cache_ref() holders may read buf until cache_unref(); a dropped entry lives (unfindable) until its last reference goes.
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
	struct list_head link;	  /* queue; private */
	struct list_head waiters; /* of the engine: who waits for the fill */
	place_t place;		  /* PLACE_NONE once dropped */
	uint64_t ident;		  /* hash of the identity (index_key.hash), guards against a reused place */
	struct arena_buf buf;
	uint32_t bytes;
	uint32_t refs;
	uint8_t queue, freq;	  /* private */
	bool filling;		  /* contents not valid yet */
	bool findable;
	uint32_t crcs_count;
	uint32_t *crcs;		  /* owned; end to end CRCs of its 64 KiB chunks */
	uint32_t crc_one;	  /* used when crcs_count is 1: crcs points here */
	uint64_t birth, block_bytes, expiry_ms;
	uint16_t part, parts_count;
	void *user;		  /* the engine's */
};

struct cache_counters {
	uint64_t hits, misses, inserts, evictions, ghost_hits, alloc_failures;
	uint64_t bytes, entries, bytes_pinned_by_refs;
};

int cache_create(struct arena *arena, struct cache **ret_cache);
void cache_destroy(struct cache *cache);
/* Memory for a value of `bytes`, evicting unreferenced entries of the tenant as needed (and of others when chunks can change hands). Returned with one reference, not
 * findable. -EAGAIN: everything is referenced. crcs has room for its chunks. */
int cache_new(struct cache *cache, uint32_t tenant, uint32_t bytes, struct cache_entry **ret_entry);
/* Makes it findable at a place (the reference of the caller stays the caller's). An older entry at the same place is dropped. */
void cache_publish(struct cache *cache, struct cache_entry *entry, place_t place, uint64_t ident);
/* The record moved (pending -> flash place): same entry, new name. */
void cache_rename(struct cache *cache, struct cache_entry *entry, place_t place);
/* NULL: not there. Otherwise a new reference; counts as a use (for replacement) when `use`. */
struct cache_entry *cache_find(struct cache *cache, place_t place, uint64_t ident, bool use);
void cache_ref(struct cache_entry *entry);
void cache_unref(struct cache *cache, struct cache_entry *entry);
/* Unfindable from now on; freed with the last reference. */
void cache_drop(struct cache *cache, struct cache_entry *entry);
void cache_drop_place(struct cache *cache, place_t place);
void cache_counters_get(const struct cache *cache, struct cache_counters *ret);
void cache_check(const struct cache *cache);

#endif
