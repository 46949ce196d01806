/* hashmap.c — linear probing; removal shifts the run behind it back, so there are no tombstones to sweep. */
#include "base/hashmap.h"

#include <errno.h>
#include <stdlib.h>

#include "base/hash.h"

enum { SLOTS_COUNT_MIN = 16 };

static size_t
home(const struct hashmap *map, const uint64_t key[2])
{
	return (size_t)mix64(mix64(key[0] ^ map->hash_key) + key[1]) & map->mask;
}

void
hashmap_init(struct hashmap *map, uint64_t hash_key)
{
	memset(map, 0, sizeof(*map));
	map->hash_key = hash_key;
}

void
hashmap_fini(struct hashmap *map)
{
	free(map->slots);
	memset(map, 0, sizeof(*map));
}

/* The slot of the key, or the empty one where it would go. There is always an empty one (M1). */
static size_t
find(const struct hashmap *map, const uint64_t key[2])
{
	size_t i = home(map, key);

	while (map->slots[i].used != 0 &&
	       (map->slots[i].key[0] != key[0] || map->slots[i].key[1] != key[1])) {
		i = (i + 1) & map->mask;
	}
	return i;
}

static int
resize(struct hashmap *map, size_t slots_count)
{
	struct hashmap_slot *old = map->slots;
	size_t old_count = old == NULL ? 0 : map->mask + 1;
	struct hashmap_slot *slots;

	slots = calloc(slots_count, sizeof(*slots));
	if (slots == NULL) {
		return -ENOMEM;
	}
	map->slots = slots;
	map->mask = slots_count - 1;
	for (size_t i = 0; i < old_count; i++) {
		if (old[i].used != 0) {
			map->slots[find(map, old[i].key)] = old[i];
		}
	}
	free(old);
	return 0;
}

int
hashmap_reserve(struct hashmap *map, size_t count)
{
	size_t slots_count;

	if (count > SIZE_MAX / 64) {
		return -ENOMEM;
	}
	slots_count = HR_MAX((size_t)SLOTS_COUNT_MIN, (size_t)round_up_pow2(count + count / 3 + 1));
	if (map->slots != NULL && map->mask + 1 >= slots_count) {
		return 0;
	}
	return resize(map, slots_count);
}

static int
put(struct hashmap *map, const uint64_t key[2], uint64_t value)
{
	size_t i;
	int rc;

	if (map->slots != NULL) {
		i = find(map, key);
		if (map->slots[i].used != 0) {
			map->slots[i].value = value;
			return 0;
		}
	}
	rc = hashmap_reserve(map, map->count + 1);
	if (rc != 0) {
		return rc;
	}
	i = find(map, key);
	map->slots[i] = (struct hashmap_slot){ { key[0], key[1] }, value, 1 };
	map->count++;
	return 0;
}

static bool
get(const struct hashmap *map, const uint64_t key[2], uint64_t *ret_value)
{
	size_t i;

	if (map->count == 0) {
		return false;
	}
	i = find(map, key);
	if (map->slots[i].used == 0) {
		return false;
	}
	if (ret_value != NULL) {
		*ret_value = map->slots[i].value;
	}
	return true;
}

static bool
take(struct hashmap *map, const uint64_t key[2], uint64_t *ret_value)
{
	size_t hole, i;

	if (!get(map, key, ret_value)) {
		return false;
	}
	hole = find(map, key);
	/* Whatever follows in the run and may live at the hole or before it moves there (M2). */
	for (i = (hole + 1) & map->mask; map->slots[i].used != 0; i = (i + 1) & map->mask) {
		size_t distance = (i - home(map, map->slots[i].key)) & map->mask;

		if (distance >= ((i - hole) & map->mask)) {
			map->slots[hole] = map->slots[i];
			hole = i;
		}
	}
	map->slots[hole].used = 0;
	map->count--;
	return true;
}

int
hashmap_put16(struct hashmap *map, const void *key, uint64_t value)
{
	uint64_t words[2];

	memcpy(words, key, sizeof(words));
	return put(map, words, value);
}

bool
hashmap_get16(const struct hashmap *map, const void *key, uint64_t *ret_value)
{
	uint64_t words[2];

	memcpy(words, key, sizeof(words));
	return get(map, words, ret_value);
}

bool
hashmap_remove16(struct hashmap *map, const void *key, uint64_t *ret_value)
{
	uint64_t words[2];

	memcpy(words, key, sizeof(words));
	return take(map, words, ret_value);
}

int
hashmap_put(struct hashmap *map, uint64_t key, uint64_t value)
{
	return put(map, (const uint64_t[2]){ key, 0 }, value);
}

bool
hashmap_get(const struct hashmap *map, uint64_t key, uint64_t *ret_value)
{
	return get(map, (const uint64_t[2]){ key, 0 }, ret_value);
}

bool
hashmap_remove(struct hashmap *map, uint64_t key, uint64_t *ret_value)
{
	return take(map, (const uint64_t[2]){ key, 0 }, ret_value);
}

struct hashmap_slot *
hashmap_next(const struct hashmap *map, size_t *pos)
{
	if (map->slots == NULL) {
		return NULL;
	}
	while (*pos <= map->mask) {
		struct hashmap_slot *slot = &map->slots[(*pos)++];

		if (slot->used != 0) {
			return slot;
		}
	}
	return NULL;
}

void
hashmap_check(const struct hashmap *map)
{
	struct hashmap_slot *slot;
	size_t count = 0;
	size_t pos;

	hashmap_for_each(map, pos, slot) {
		HR_ASSERT(find(map, slot->key) == (size_t)(slot - map->slots));
		count++;
	}
	HR_ASSERTF(count == map->count, "walked=%zu count=%zu", count, map->count);
	HR_ASSERT(map->slots == NULL || count <= (map->mask + 1) / 4 * 3);
}
