/* reason.h - a bounded memory of why records went: evicted, expired, deleted, quota.
 *
 * What:       fixed-size table of fingerprints (hash of the identity without part) with a reason and an age; newer ones overwrite older ones. Beyond it the
 *             answer is "absent", never a guess: 60 fingerprint bits.
 * Threads:    the shard's.
 */
#ifndef HR_ENGINE_REASON_H
#define HR_ENGINE_REASON_H

#include <stddef.h>
#include <stdint.h>

struct reason_memory;
int reason_memory_create(size_t bytes, struct reason_memory **ret);
void reason_memory_destroy(struct reason_memory *memory);
void reason_note(struct reason_memory *memory, uint64_t hash, uint8_t reason); /* reason 1 … 15 (types of include/headrace/types.h) */
void reason_forget(struct reason_memory *memory, uint64_t hash);
uint8_t reason_find(const struct reason_memory *memory, uint64_t hash); /* 0: not remembered */
size_t reason_memory_bytes(const struct reason_memory *memory);
uint64_t reason_memory_entries(const struct reason_memory *memory);

#endif
