/* index.h — where each live record is: 18 bytes an entry, in DRAM.
 *
 * What:       a hash table of (tag, place, length, check, recency, flags), made of 1,024 sub-tables of 128-byte buckets
 *             (7 entries of 18 bytes, 2 bytes of occupancy). A sub-table is a bucketized cuckoo table: an entry is in one of two
 *             buckets, both computable from its tag and the sub-table's size, and a full pair makes room by moving others along
 *             a path found by a bounded search. A sub-table grows by an eighth, in place, one at a time, so that no step is
 *             longer than a unit's write; it shrinks the same way.
 * Not here:   the meaning of a record (record.h), policy (evict.h).
 * Identity:   (space number, space generation, id, part) -> 64-bit keyed hash (key drawn at start): the top 10 bits choose the
 *             sub-table, the next 36 are the tag. Two records may share a tag: look-ups return candidates, and `check` (CRC-32C
 *             over identity, length, chunk CRCs) tells them apart.
 * Threads:    the shard's.
 * Errors:     -ENOMEM leaves the table as it was.
 * Invariants: I1 an entry is in one of the two buckets of its tag. I2 the counts are those of the occupancy bits.
 *             I3 nothing is lost or doubled by a growth that fails.
 * Limits:     at most 24 bytes a live entry + a fixed part below 3 MiB, at any size from 100,000 entries up, also when the
 *             count goes down; shown by index_bytes(). Address space is reserved for sub-tables of up to 1.8 million entries;
 *             memory is touched as it is needed. Entries with one and the same tag: 14, more are -ENOMEM.
 * Source:     bucketized cuckoo hashing: Dietzfelbinger & Weidling 2007; MemC3 (Fan et al., NSDI'13) for the search for a path.
 * Tests:      tests/unit/engine/test_index.c, bench/index_memory.c
 */
#ifndef HR_ENGINE_INDEX_H
#define HR_ENGINE_INDEX_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct index;

struct index_key {
	uint64_t hash;	   /* Of the identity: index_key_make(). */
	uint64_t tag;	   /* Private. */
	uint32_t subtable; /* Private. */
};

/* 34 bits. Either a page number in the slice's segment area, or (PLACE_PENDING | slot) while the record is not on flash yet. */
typedef uint64_t place_t;
#define PLACE_PENDING (UINT64_C(1) << 33)
#define PLACE_NONE UINT64_MAX

enum { INDEX_FLAG_PINNED = 1, INDEX_FLAG_MULTIPART = 2, INDEX_FLAG_TTL = 4 };
enum { INDEX_SUBTABLES = 1024 };

struct index_entry {
	place_t place;
	uint32_t bytes; /* Logical length of the record, 0 … 4 MiB: 23 bits. */
	uint32_t check;
	uint16_t recency; /* evict.h */
	uint8_t flags;	  /* INDEX_FLAG_*: 3 bits. */
};

/* `seed`: 64 random bits in production. */
int index_create(uint64_t seed, struct index **ret_index);
void index_destroy(struct index *index);
struct index_key index_key_make(const struct index *index, uint32_t space_number,
				uint32_t space_generation, const uint8_t id[16], uint16_t part);
uint32_t index_check_make(uint32_t space_number, uint32_t space_generation, const uint8_t id[16],
			  uint16_t part, uint32_t bytes, const uint32_t *crcs, uint32_t crcs_count);
void index_prefetch(const struct index *index, const struct index_key *key);

/* Candidates with the key's tag, one after the other: *cursor = 0 at first; false at the end. An insertion or removal of
 * whatever key may move entries: whoever lets one happen between two calls starts again at 0, and knows the candidates that
 * it has tried by their places. index_update() moves nothing. */
bool index_next(const struct index *index, const struct index_key *key, uint32_t *cursor,
		struct index_entry *ret_entry);
/* Adds an entry, even when others have the same tag. -ENOMEM. */
int index_insert(struct index *index, const struct index_key *key, const struct index_entry *entry);
/* Finds the entry with this key and place, and changes it (place included) or removes it. False: there is none. */
bool index_update(struct index *index, const struct index_key *key, place_t place,
		  const struct index_entry *entry);
bool index_remove(struct index *index, const struct index_key *key, place_t place);
uint64_t index_count(const struct index *index);
size_t index_bytes(const struct index *index); /* Everything it allocated. */

/* During recovery each entry carries a birth (8 bytes more, 0 at first); ended by index_births_end(). */
int index_births_begin(struct index *index);
bool index_birth_get(const struct index *index, const struct index_key *key, place_t place,
		     uint64_t *ret_birth);
bool
index_birth_set(struct index *index, const struct index_key *key, place_t place, uint64_t birth);
void index_births_end(struct index *index);

/* All entries, for sweeps in small steps: visits one sub-table per call; false when *cursor came round (it is 0 again then).
 * `visit` may ask to remove (true); it must not call the index itself. */
bool index_sweep(struct index *index, uint32_t *cursor,
		 bool (*visit)(void *arg, const struct index_entry *entry), void *arg);
/* Sets each recency of one sub-table to map(entry): a policy's ageing (evict.h), and recovery. Cursor as in index_sweep(). */
bool index_sweep_recency(struct index *index, uint32_t *cursor,
			 uint16_t (*map)(void *arg, const struct index_entry *entry), void *arg);
/* Asserts the invariants; for tests. */
void index_check(const struct index *index);

#endif
