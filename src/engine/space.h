/* space.h - the space table of one shard: who has which number, durable (docs/format/README.md section 3).
 *
 * What:       rows by number and by (tenant, digest); usage in DRAM; drop raises the generation, durably, in O(1).
 * Threads:    the shard's.
 * Errors:     -ENOSPC when the table is full.
 */
#ifndef HR_ENGINE_SPACE_H
#define HR_ENGINE_SPACE_H

#include <stdbool.h>
#include <stdint.h>

#include "engine/superblock.h"
#include "io/io.h"

struct space_table;
struct space_row {
	uint32_t number;
	uint32_t generation;
	uint8_t digest[32];
	uint8_t tenant[16];
	uint64_t quota_bytes;
	uint64_t pin_budget_bytes;
	uint64_t usage_bytes, usage_blocks; /* live blocks, kept by the engine */
	uint64_t created_ms;
	uint64_t drop_birth, drop_generation;
	char label[64];
	/* not on flash; kept by the engine */
	uint32_t users; /* who may use the row later: it stays meanwhile (space_table_trim()) */
	bool used;	/* records of its generation may be on flash */
	uint32_t drops_pending; /* drops that are not durable yet */
	uint64_t pinned_bytes, dram_bytes;
	uint64_t gets, hits, puts, evicted_blocks;
};

int space_table_create(struct io *io, struct io_device *device, const struct superblock *slice,
		       struct space_table **ret_table);
/* Told of every write that failed, before whoever waits for it: also of those that nobody waits for. */
void space_table_on_error(struct space_table *table, void (*cb)(void *arg, int rc), void *arg);
void space_table_destroy(struct space_table *table);
/* Blocks by running the io; used before serving. */
int space_table_load(struct space_table *table, char detail[DETAIL_BYTES]);
struct space_row *
space_find(struct space_table *table, const uint8_t tenant[16], const uint8_t digest[32]);
struct space_row *space_by_number(struct space_table *table, uint32_t number);
/* Finds or makes the row; a new row is durable before cb(arg, 0, row). */
void space_open(struct space_table *table, const uint8_t tenant[16], const uint8_t digest[32],
		const char *label, void (*cb)(void *arg, int rc, struct space_row *row), void *arg);
/* Raises the generation at once in DRAM (records of the old one are dead from now), makes it durable, then cb. */
void space_drop(struct space_table *table, struct space_row *row, uint64_t birth,
		uint64_t segment_generation, void (*cb)(void *arg, int rc), void *arg);
/* Changes quota / pin budget / label (UINT64_MAX, NULL = leave), durable before cb. */
void
space_set(struct space_table *table, struct space_row *row, uint64_t quota_bytes,
	  uint64_t pin_budget_bytes, const char *label, void (*cb)(void *arg, int rc), void *arg);
/* Takes out rows that nothing can refer to any more, and that nobody has given a quota or a pin budget: without users, and without a record of their
 * generation, because nobody ever stored one or the space was dropped since. Rows with that, but with records that are all dead: *ret_idle
 * (SPACE_ROWS_MAX of them at most) says which, for whoever wants to drop them first. Returns how many. */
uint32_t space_table_trim(struct space_table *table, struct space_row **ret_idle);
/* Walks rows: *cursor = 0 at first; NULL at the end. */
struct space_row *space_next(struct space_table *table, uint32_t *cursor);
uint32_t space_count(const struct space_table *table);
/* Slots that did not hold when the table was loaded. */
uint32_t space_table_slots_damaged(const struct space_table *table);
/* cb once nothing is being written; no change may be asked for meanwhile. */
void space_table_quiesce(struct space_table *table, void (*cb)(void *arg), void *arg);
bool space_table_busy(const struct space_table *table); /* a write is under way */

#endif
