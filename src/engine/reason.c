/* reason.c — see reason.h. A set is a queue of words, newest first: 60 bits of fingerprint, 4 of reason; 0 is empty. */
#include "engine/reason.h"

#include <errno.h>
#include <stdlib.h>

#include "base/base.h"

enum { SET_WORDS = 8, REASON_BITS = 4, REASON_MAX = (1 << REASON_BITS) - 1, SETS_MIN = 16 };

struct reason_set {
	uint64_t words[SET_WORDS];
};

struct reason_memory {
	struct reason_set *sets;
	uint64_t sets_count;
	uint64_t entries_count;
};

int
reason_memory_create(size_t bytes, struct reason_memory **ret)
{
	struct reason_memory *memory = calloc(1, sizeof(*memory));

	if (memory == NULL) {
		return -ENOMEM;
	}
	memory->sets_count = HR_MAX(bytes / sizeof(struct reason_set), (size_t)SETS_MIN);
	memory->sets = aligned_alloc(64, memory->sets_count * sizeof(struct reason_set));
	if (memory->sets == NULL) {
		free(memory);
		return -ENOMEM;
	}
	memset(memory->sets, 0, memory->sets_count * sizeof(struct reason_set));
	*ret = memory;
	return 0;
}

void
reason_memory_destroy(struct reason_memory *memory)
{
	if (memory == NULL) {
		return;
	}
	free(memory->sets);
	free(memory);
}

/* The set comes from the top of the hash and the fingerprint is its lower 60 bits: with 16 sets or more, two hashes that
 * agree in both agree in every bit. */
static struct reason_set *
set_of(const struct reason_memory *memory, uint64_t hash)
{
	return &memory->sets[(unsigned __int128)hash * memory->sets_count >> 64];
}

/* SET_WORDS when it is not there. */
static unsigned
set_find(const struct reason_set *set, uint64_t hash)
{
	unsigned i = 0;

	while (i < SET_WORDS && (set->words[i] == 0 || set->words[i] >> REASON_BITS !=
							   hash << REASON_BITS >> REASON_BITS)) {
		i++;
	}
	return i;
}

void
reason_note(struct reason_memory *memory, uint64_t hash, uint8_t reason)
{
	struct reason_set *set = set_of(memory, hash);
	unsigned at;

	HR_ASSERTF(reason >= 1 && reason <= REASON_MAX, "reason %u", reason);
	at = set_find(set, hash);
	if (at == SET_WORDS) {
		at = SET_WORDS - 1;
		memory->entries_count += set->words[at] == 0;
	}
	memmove(&set->words[1], &set->words[0], at * sizeof(uint64_t));
	set->words[0] = hash << REASON_BITS | reason;
}

void
reason_forget(struct reason_memory *memory, uint64_t hash)
{
	struct reason_set *set = set_of(memory, hash);
	unsigned at = set_find(set, hash);

	if (at == SET_WORDS) {
		return;
	}
	memmove(&set->words[at], &set->words[at + 1], (SET_WORDS - 1 - at) * sizeof(uint64_t));
	set->words[SET_WORDS - 1] = 0;
	memory->entries_count--;
}

uint8_t
reason_find(const struct reason_memory *memory, uint64_t hash)
{
	const struct reason_set *set = set_of(memory, hash);
	unsigned at = set_find(set, hash);

	return at == SET_WORDS ? 0 : (uint8_t)(set->words[at] & REASON_MAX);
}

size_t
reason_memory_bytes(const struct reason_memory *memory)
{
	return sizeof(*memory) + memory->sets_count * sizeof(struct reason_set);
}

uint64_t
reason_memory_entries(const struct reason_memory *memory)
{
	return memory->entries_count;
}
