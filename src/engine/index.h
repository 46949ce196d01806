/* index.h - where each live record is: 18 bytes an entry, in DRAM.
 *
 * What:       a hash table of (tag, place, length, check, recency, flags), made of sub-tables of two-cache-line buckets (7 entries of 18 bytes), each
 *             sub-table a bucketized cuckoo table (two choices inside the sub-table, both computable from the stored tag, entries moved a bounded number of steps on insertion) that grows
 *             by an eighth, one sub-table at a time, so that no step is longer than a unit's write.
 * Not here:   the meaning of a record (record.h), policy (evict.h).
 * Identity:   (space number, space generation, id, part) -> 64-bit keyed hash (key drawn at start): top bits choose the sub-table, 36 others are the tag. Two
 *             records may share a tag: look-ups return candidates, and `check` (CRC-32C over identity, length, chunk CRCs) tells them apart.
 * Limits:     at most 24 bytes a live entry + fixed part, at any size from 100,000 entries up, shown by index_bytes().
 * Source:     bucketized cuckoo hashing: Dietzfelbinger & Weidling 2007; MemC3 (Fan et al., NSDI'13) for the entry moves.
 * Tests:      tests/unit/engine/test_index.c, bench/index_memory
 */
#ifndef HR_ENGINE_INDEX_H
#define HR_ENGINE_INDEX_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct index;

struct index_key {
	uint64_t hash;	 /* of the identity: index_key_make() */
	uint64_t tag;	 /* private */
	uint32_t subtable; /* private */
};

/* 34 bits. Either a page number in the slice's segment area, or (PLACE_PENDING | slot) while the record is not on flash yet. */
typedef uint64_t place_t;
#define PLACE_PENDING (UINT64_C(1) << 33)
#define PLACE_NONE UINT64_MAX

enum { INDEX_FLAG_PINNED = 1, INDEX_FLAG_MULTIPART = 2, INDEX_FLAG_TTL = 4 };

struct index_entry {
	place_t place;
	uint32_t bytes; /* logical length of the record, 0 … 4 MiB: 23 bits */
	uint32_t check;
	uint16_t recency; /* evict.h */
	uint8_t flags;	  /* INDEX_FLAG_*: 3 bits */
};

int index_create(uint64_t seed, struct index **ret_index);
void index_destroy(struct index *index);
struct index_key index_key_make(const struct index *index, uint32_t space_number, uint32_t space_generation, const uint8_t id[16],
				uint16_t part);
uint32_t index_check_make(uint32_t space_number, uint32_t space_generation, const uint8_t id[16], uint16_t part, uint32_t bytes,
			  const uint32_t *crcs, uint32_t crcs_count);
void index_prefetch(const struct index *index, const struct index_key *key);

/* Candidates with the key's tag, one after the other: *cursor = 0 at first; false at the end. */
bool index_next(const struct index *index, const struct index_key *key, uint32_t *cursor, struct index_entry *ret_entry);
/* Adds an entry (even when others have the same tag). -ENOMEM. */
int index_insert(struct index *index, const struct index_key *key, const struct index_entry *entry);
/* Finds the entry with this key and place, and changes or removes it. False: there is none. */
bool index_update(struct index *index, const struct index_key *key, place_t place, const struct index_entry *entry);
bool index_remove(struct index *index, const struct index_key *key, place_t place);
uint64_t index_count(const struct index *index);
size_t index_bytes(const struct index *index); /* everything it allocated */

/* During recovery each entry carries a birth (8 bytes more); ended by index_births_end(). */
int index_births_begin(struct index *index);
bool index_birth_get(const struct index *index, const struct index_key *key, place_t place, uint64_t *ret_birth);
bool index_birth_set(struct index *index, const struct index_key *key, place_t place, uint64_t birth);
void index_births_end(struct index *index);

/* All entries, for sweeps in small steps: visits one sub-table per call; false when *cursor came round. `visit` may ask to remove (true). */
bool index_sweep(struct index *index, uint32_t *cursor, bool (*visit)(void *arg, const struct index_entry *entry), void *arg);
void index_check(const struct index *index);

#endif
