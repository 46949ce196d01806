/* reason.h — a bounded memory of why records went: evicted, expired, deleted, quota.
 *
 * What:       a table of fixed size of fingerprints (hash of the identity without its part) with a reason each, in sets of
 *             eight ordered by age: a new one pushes out the oldest of its set. Beyond it the answer is "absent", never a
 *             guess: set and fingerprint together are all 64 bits of the hash.
 * Not here:   what the reasons mean (include/headrace/types.h); durable deletion (tombstones, record.h).
 * Threads:    the shard's.
 * Limits:     8 bytes an entry; no allocation after creation; a note, a look-up: one cache line.
 * Tests:      tests/unit/engine/test_reason.c
 */
#ifndef HR_ENGINE_REASON_H
#define HR_ENGINE_REASON_H

#include <stddef.h>
#include <stdint.h>

struct reason_memory;
/* `bytes` is rounded down to sets of 64 bytes; below 1 KiB it is 1 KiB. -ENOMEM. */
int reason_memory_create(size_t bytes, struct reason_memory **ret);
void reason_memory_destroy(struct reason_memory *memory);
/* reason: 1 … 15. What was noted before for the hash is replaced. */
void reason_note(struct reason_memory *memory, uint64_t hash, uint8_t reason);
/* The record is there again. */
void reason_forget(struct reason_memory *memory, uint64_t hash);
uint8_t reason_find(const struct reason_memory *memory, uint64_t hash); /* 0: not remembered. */
size_t reason_memory_bytes(const struct reason_memory *memory);
uint64_t
reason_memory_entries(const struct reason_memory *memory); /* How many are remembered now. */

#endif
