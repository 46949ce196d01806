/* hashmap.h — a small open-addressing map from 8- or 16-byte keys to a 64-bit value or a pointer.
 *
 * What:       control-path look-ups: spaces by digest head, requests by id, GETs under way by block id.
 * Not here:   the shard's index of blocks (engine/index.h), which counts bytes.
 * Threads:    belongs to one thread.
 * Ownership:  keys are copied; what a pointer points at stays the caller's.
 * Errors:     put: -ENOMEM, with the map as it was. Everything else cannot fail.
 * Invariants: M1 at most 3/4 full. M2 every key is reachable from its home slot without an empty slot between.
 * Limits:     32 bytes a slot; grows by doubling, in one step: keep maps that live on a data path reserved.
 * Tests:      tests/unit/base/test_hashmap.c (against a list of pairs)
 */
#ifndef HR_BASE_HASHMAP_H
#define HR_BASE_HASHMAP_H

#include "base/base.h"

struct hashmap_slot {
	uint64_t key[2];
	uint64_t value;
	uint64_t used; /* 0 or 1 */
};

struct hashmap {
	struct hashmap_slot *slots;
	size_t mask; /* slots - 1; 0 when there are none yet */
	size_t count;
	uint64_t hash_key;
};

/* hash_key: a random word where keys come from outside. Allocates nothing yet. */
void hashmap_init(struct hashmap *map, uint64_t hash_key);
void hashmap_fini(struct hashmap *map);

/* Room for `count` keys without growing. -ENOMEM. */
HR_WARN_UNUSED int hashmap_reserve(struct hashmap *map, size_t count);

/* 16-byte keys; any alignment. put replaces the value of a key that is there. */
HR_WARN_UNUSED int hashmap_put16(struct hashmap *map, const void *key, uint64_t value);
bool hashmap_get16(const struct hashmap *map, const void *key, uint64_t *ret_value);
bool hashmap_remove16(struct hashmap *map, const void *key, uint64_t *ret_value);

HR_WARN_UNUSED int hashmap_put(struct hashmap *map, uint64_t key, uint64_t value);
bool hashmap_get(const struct hashmap *map, uint64_t key, uint64_t *ret_value);
bool hashmap_remove(struct hashmap *map, uint64_t key, uint64_t *ret_value);

/* Pointers: NULL says "not there". ret_value above may be NULL, too. */
HR_WARN_UNUSED static inline int
hashmap_put_ptr(struct hashmap *map, uint64_t key, void *ptr)
{
	return hashmap_put(map, key, (uintptr_t)ptr);
}

static inline void *
hashmap_get_ptr(const struct hashmap *map, uint64_t key)
{
	uint64_t value;

	return hashmap_get(map, key, &value) ? (void *)(uintptr_t)value : NULL;
}

static inline void *
hashmap_remove_ptr(struct hashmap *map, uint64_t key)
{
	uint64_t value;

	return hashmap_remove(map, key, &value) ? (void *)(uintptr_t)value : NULL;
}

HR_WARN_UNUSED static inline int
hashmap_put16_ptr(struct hashmap *map, const void *key, void *ptr)
{
	return hashmap_put16(map, key, (uintptr_t)ptr);
}

static inline void *
hashmap_get16_ptr(const struct hashmap *map, const void *key)
{
	uint64_t value;

	return hashmap_get16(map, key, &value) ? (void *)(uintptr_t)value : NULL;
}

static inline void *
hashmap_remove16_ptr(struct hashmap *map, const void *key)
{
	uint64_t value;

	return hashmap_remove16(map, key, &value) ? (void *)(uintptr_t)value : NULL;
}

/* The first used slot at or after *pos, which then stands behind it; NULL at the end. Start with *pos = 0. The map must not
 * change meanwhile: remove while walking with another pass. */
struct hashmap_slot *hashmap_next(const struct hashmap *map, size_t *pos);

#define hashmap_for_each(map, pos, slot)                                                           \
	for ((pos) = 0; ((slot) = hashmap_next((map), &(pos))) != NULL;)

void hashmap_check(const struct hashmap *map);

#endif
