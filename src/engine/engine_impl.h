/* engine_impl.h - what the engine's own files share. Not for others.
 *
 * The files: engine.c (life, spaces, statistics), records.c (live records: publish, kill, usage; pending ones; blocks of many parts),
 * put.c, get.c, lookup.c (EXISTS, TOUCH, DELETE, PREFETCH, leases, expiry), reclaim.c, rebuild.c (recovery's visitor), listing.c.
 */
#ifndef HR_ENGINE_ENGINE_IMPL_H
#define HR_ENGINE_ENGINE_IMPL_H

#include "base/base.h"
#include "base/hashmap.h"
#include "base/list.h"
#include "engine/engine.h"
#include "engine/reason.h"

enum {
	ENGINE_PAGE_BYTES = 4096,
	ENGINE_CRCS_MAX = 64, /* of one part: 4 MiB in chunks of 64 KiB */
	ENGINE_APPENDS_WAITING_MAX =
	    256, /* verified values that wait for room in the log; beyond it PUTs are busy */
	ENGINE_SLOTS_MAX = 1 << 16, /* pending records: appended, not on flash yet */
};

enum engine_state { ENGINE_LOADING, ENGINE_READY, ENGINE_STOPPING, ENGINE_STOPPED };

/* A record that was appended and is not on flash yet, or not yet known to be stable. Its index entry's place is PLACE_PENDING | slot. */
struct pending {
	struct log_record rec; /* first: the log's callbacks get this */
	struct engine *engine;
	uint32_t slot;
	uint32_t pages;
	enum segment_class class;
	struct cache_entry *entry; /* the value, with one reference; NULL for tombstones and commits */
	struct multi *multi; /* the block this part belongs to, while that is undecided or live */
	bool on_flash;	     /* written; waits for stable */
	bool transient; /* the DRAM tier does not keep it once it is on flash: reclaim's copies */
	/* Answering whoever waits; NULL when nobody does. Each runs once. */
	void (*on_stable)(struct pending *pending, int rc);
	void *on_stable_arg;
	void (*on_done)(struct pending *pending,
			int rc); /* reclaim counts its copies with this: stable or failed */
	void *on_done_arg;
	uint8_t *key_copy;
	uint32_t crcs[]; /* crcs_count of them */
};

/* A block of several parts: held until complete (unfinished), then live. Only part 0 is in the index. */
struct multi_part {
	place_t place; /* PLACE_NONE: not there yet */
	uint32_t check;
	uint16_t recency;
	uint16_t pad;
};
struct multi {
	struct list_head link; /* owner's or engine's unfinished list; live ones: unlinked */
	struct engine_owner *owner;
	uint32_t space_number, space_generation;
	uint8_t id[16];
	uint64_t hash;	     /* index_key.hash of part 0: key of engine.multis once live */
	uint64_t put_number; /* the caller's, while it is unfinished */
	uint64_t log_number; /* what its records have: unlike the caller's, no other PUT's of this shard */
	uint64_t block_bytes;
	uint64_t birth;
	uint64_t horizon; /* of what it replaced; 0 = nothing */
	uint64_t expiry_ms;
	uint16_t parts_count, parts_held;
	uint32_t refs; /* pending records that point here */
	bool live,
	    dead; /* dead and in engine.held: parts that still come are refused, and counted in parts_held */
	struct multi_part parts[];
};

struct lease_block { /* engine.leases by identity hash */
	uint32_t holders;
	uint64_t until_us; /* the latest */
	uint64_t bytes;
};
struct owner_lease {
	uint64_t until_us;
	uint64_t bytes;
};
struct engine_owner {
	struct list_head link;
	uint32_t tenant;
	struct hashmap leases; /* identity hash -> struct owner_lease * */
	struct list_head unfinished;
	uint32_t unfinished_count;
};

struct tenant {
	uint8_t id[16];
	uint64_t lease_bytes;
};

/* One flash read under way; its waiters hang on the cache entry. */
struct flash_read {
	struct list_head link;
	struct engine *engine;
	struct io_op op;
	struct cache_entry *entry;
	place_t place;
	uint32_t segment;
	uint32_t check;
	uint32_t bytes;
	uint32_t space_number, space_generation;
	uint8_t id[16];
	uint16_t part;
	struct index_key key;
	struct iovec iov[ARENA_IOV_MAX];
};

struct reclaim; /* reclaim.c */
struct rebuild; /* rebuild.c */

struct engine {
	struct io *io;
	struct io_device *device;
	struct superblock slice;
	struct engine_options options;
	enum engine_state state;
	int failed;
	struct seglog *log;
	struct space_table *spaces;
	struct index *index;
	const struct evict_policy *policy;
	struct evict *evict;
	struct arena *arena;
	struct cache *cache;
	struct reason_memory *reasons;

	struct pending **slots;
	uint32_t slots_count, *slots_free, slots_free_count;
	struct list_head appends_waiting; /* PUTs: verified, waiting for room in the log */
	uint32_t appends_waiting_count;
	struct list_head puts_done; /* decided; their callbacks run in the next turn */
	struct io_timer puts_done_timer;

	struct hashmap multis; /* live blocks of several parts, by identity hash */
	struct hashmap held;   /* unfinished ones, by PUT number folded with the id */
	/* Identity hash -> generation of a segment with a record that does not count and has no tombstone: second copies that the
	 * last start found, what was evicted from a victim that could not be freed. Few, and kept for this life. */
	struct hashmap copies;
	struct index *expiries; /* of live blocks with a TTL (records.c); NULL: there was none yet */
	struct io_timer housekeeping;
	struct io_timer retry; /* runs while something waits for room */

	struct list_head owners;
	struct hashmap leases;
	struct tenant *tenants;
	uint32_t tenants_count;

	uint32_t *seg_reads; /* flash reads under way, by segment: a victim is freed when they are done */
	uint32_t *seg_holds; /* unfinished blocks' parts: never a victim */
	struct list_head reads_queue, reads_queue_low;
	uint32_t reads_now, reads_queued;
	uint32_t read_errors_in_a_row;

	struct reclaim *reclaim;
	struct rebuild *rebuild;
	uint32_t age_next;   /* the index's sub-table whose recencies are next */
	uint32_t sweep_next; /* segments still to be swept after a drop; segments_count = none */
	bool sweep_running;
	uint32_t async_now; /* operations of ours that hold a callback: engine_stop() waits for 0 */
	void (*stop_cb)(void *arg);
	void *stop_arg;
	void (*ready_cb)(void *arg, int rc, const struct recover_result *result);
	void *ready_arg;
	uint64_t pinned_bytes;	/* of all spaces */
	uint32_t drops_pending; /* of spaces, not durable yet */
	uint64_t blocks_unaccounted; /* lost with a segment that nothing could be read of: usage still has them */
	struct engine_stat stat;
};

/* -- records.c: what is live ------------------------------------------------------------------------------------------------- */

static inline uint32_t
value_pages(uint32_t bytes)
{
	return (uint32_t)div_round_up(bytes, ENGINE_PAGE_BYTES);
}

place_t place_make(const struct engine *engine, uint32_t segment, uint32_t value_off);
uint32_t place_segment(const struct engine *engine, place_t place); /* pending places too */
uint32_t place_value_off(const struct engine *engine, place_t place);
struct pending *place_pending(const struct engine *engine, place_t place); /* NULL: it is on flash */

/* The live entry of an identity. With two of the same tag the first counts; GET tells them apart by `check`. */
struct found {
	uint32_t space_number, space_generation;
	struct index_key key;
	struct index_entry entry;
	struct multi *multi; /* of a block of several parts */
	uint64_t block_bytes;
	uint64_t expiry_ms;
};
bool record_find(struct engine *engine, const struct space_row *space, const uint8_t id[16],
		 struct found *ret, uint8_t *ret_reason);
/* As record_find(), starting with candidate *cursor and moving it on. */
bool record_find_next(struct engine *engine, const struct space_row *space, const uint8_t id[16],
		      struct found *found, uint32_t *cursor);
/* When a block with a TTL expires. An index of its own: grown in small steps, and known by all bits of the identity hash. put: -ENOMEM, but for
 * a block that has one already. */
bool expiry_get(const struct engine *engine, const struct index_key *key, uint64_t *ret_ms);
int expiry_put(struct engine *engine, const struct index_key *key, uint64_t ms);
void expiry_remove(struct engine *engine, const struct index_key *key);
/* Two blocks have the tag, and either may be this one. Before one of them is ended, a get of its first part tells which. */
bool record_ambiguous(struct engine *engine, const struct found *found,
		      const struct space_row *space, const uint8_t id[16]);
/* The entry of what a get that was OK has read. False: it has gone meanwhile. */
bool record_find_identified(struct engine *engine, const struct engine_get *get, struct found *ret);
bool record_expired(const struct engine *engine, const struct found *found);
/* The caller uses it: the policy learns. part: of a block of many. */
void record_touch(struct engine *engine, struct found *found, uint16_t part);
/* The block dies now: index, policy, cache, usage, leases' bytes; `reason` is remembered (0: nothing is). */
void record_kill(struct engine *engine, struct found *found, uint8_t reason);
/* The entry of this identity at this place, of whatever generation. */
bool record_at(struct engine *engine, uint32_t space_number, uint32_t space_generation,
	       const uint8_t id[16], uint16_t part, place_t place, struct found *ret);
void record_move(struct engine *engine, struct found *found, uint16_t part, place_t place);
/* Values of no bytes have one place in their segment, so record_at() finds the live one for each of them. Of one identity the last counts:
 * identity hash -> its position in `descs`. `ret_last` is empty, and stays so where there are none. -ENOMEM. */
int empties_find(struct engine *engine, const struct desc *descs, uint32_t descs_count,
		 struct hashmap *ret_last);
bool empty_superseded(struct engine *engine, const struct hashmap *last, const struct desc *descs,
		      uint32_t i);
void multi_unhold(struct engine *engine, struct multi *multi, uint16_t part);
uint32_t multi_part_bytes(const struct engine *engine, const struct multi *multi, uint16_t part);
/* Usage is not touched when the generation is not the row's: a drop has set it to zero. */
void block_account(struct engine *engine, uint32_t space_number, uint32_t space_generation,
		   int64_t bytes, int blocks, bool pinned);

int pending_create(struct engine *engine, const struct desc *desc, const uint8_t *key,
		   const uint32_t *crcs, struct pending **ret_pending);
/* Frees it and its reference on the value. */
void pending_destroy(struct pending *pending);
/* log_append(): on failure it is still the caller's. */
int pending_append(struct pending *pending);
void appends_retry(struct engine *engine); /* put.c: the log has room */
void puts_fail_all(struct engine *engine);
void retry_start(struct engine *engine);
bool
put_shed(struct engine
	     *engine); /* the newest put that waits is refused, for its memory; false: none waits */
void puts_owner_gone(struct engine *engine, const struct engine_owner *owner);
bool get_was_tried(const struct engine_get *get, place_t place);
/* A tombstone for the id, remembered on flash with this birth. -EAGAIN: no room. */
int tombstone_append(struct engine *engine, const struct space_row *space, const uint8_t id[16],
		     uint64_t birth, uint64_t horizon, bool want_stable,
		     void (*on_stable)(struct pending *pending, int rc), void *arg);

struct multi *multi_create(uint16_t parts_count);
void multi_unref(struct engine *engine, struct multi *multi);
void multi_kill_held(struct engine *engine, struct multi *multi);
void multi_forget(struct engine *engine, struct multi *multi);
void multi_cancel(struct engine *engine, struct multi *multi);

/* -- others ---------------------------------------------------------------------------------------------------------------------- */
void engine_fail(struct engine *engine, int rc);
void engine_async_begin(struct engine *engine);
void engine_async_end(struct engine *engine);
void reads_pump(struct engine *engine);
void reclaim_kick(struct engine *engine);
void engine_ageing(struct engine *engine); /* safe where no `struct found` is in use */
void reclaim_retry(struct engine *engine);
int reclaim_create(struct engine *engine);
void reclaim_destroy(struct engine *engine);
bool reclaim_idle(const struct engine *engine);
/* The block of this identity was evicted from the victim, which is not free yet, or may be in a segment that cannot be read: after a start
 * its record may be there, so what takes its place needs a horizon, and deleting it a tombstone. */
bool reclaim_evicted(const struct engine *engine, uint64_t hash);
bool lease_holds(struct engine *engine, uint64_t hash);
void leases_expire(struct engine *engine);
void housekeeping_start(struct engine *engine);
void sweep_start(struct engine *engine);
int rebuild_start(struct engine *engine);
void engine_recovered(struct engine *engine, int rc);
void reads_fail_all(struct engine *engine, uint8_t reason);

#endif
