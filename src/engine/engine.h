/* engine.h - one shard's store: PUT, GET, EXISTS … on a slice of flash, with DRAM in front.
 *
 * What:       ties together the log (segment.h), index, policy, cache, space table and recovery of one slice.
 * Not here:   sessions, frames, queues per connection (shard/); placement (cluster/).
 * Threads:    the shard's. Pure program over struct io: it runs on the simulated world as on a real one.
 * Ownership:  in each call's comment. Callbacks run from io_run(), exactly once, never inside the call that was given them.
 * Errors:     of the data path are results (status, reason of include/headrace/batch.h), never errno; a device that fails a write makes the
 *             engine failed: gets of what DRAM holds go on, everything else is a miss or refused, and `on_failed` has been called.
 * Invariants: E1 OK means that the bytes were compared with `check` or with the writer's CRCs. E2 the cache holds only what the index names.
 *             E3 an entry's place is a written record or a pending one in DRAM. E4 usage of a space = sum of its live blocks.
 * Limits:     engine_options; each bound has a counter in engine_stat.
 * Tests:      tests/unit/engine/test_engine.c, tests/sim/, tests/fault/
 */
#ifndef HR_ENGINE_ENGINE_H
#define HR_ENGINE_ENGINE_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/uio.h>

#include "base/list.h"
#include "engine/arena.h"
#include "engine/cache.h"
#include "engine/evict.h"
#include "engine/index.h"
#include "engine/recover.h"
#include "engine/segment.h"
#include "engine/space.h"
#include "headrace/batch.h"
#include "io/io.h"

struct engine;

enum { ENGINE_LEASE_SHARE_PERCENT = 10 };

struct engine_options {
	uint64_t dram_bytes; /* arena of this shard: DRAM tier, PUTs under way, reads under way; 0 = 64 MiB */
	enum log_sync sync;
	uint32_t linger_us;	   /* 0 = the log's default */
	const char *policy;	   /* NULL = "lru" */
	uint32_t reads_max;	   /* flash reads under way; 0 = 128 */
	uint32_t reads_queued_max; /* gets that wait for one of them; beyond it they are busy; 0 = 4,096 */
	uint32_t puts_max; /* PUTs begun and not answered, and blocks of several parts that are not complete; 0 = 4,096 */
	uint32_t wa_limit_permille;	      /* all bytes written / payload; 0 = 1,170 */
	size_t reason_bytes;		      /* 0 = 1 MiB */
	uint64_t seed;			      /* 0 = from the io */
	void (*on_failed)(void *arg, int rc); /* the device failed a write or keeps failing; once */
	void *on_failed_arg;
};

/* `device` is open and stays the caller's; `slice` is copied. */
int engine_create(struct io *io, struct io_device *device, const struct superblock *slice,
		  const struct engine_options *options, struct engine **ret_engine);
/* Loads the space table (blocking) and starts recovery; ready(arg, rc, result) when the shard may serve. */
int engine_start(struct engine *engine,
		 void (*ready)(void *arg, int rc, const struct recover_result *result), void *arg,
		 char detail[DETAIL_BYTES]);
/* Finishes what is under way: refuses new work, writes open units, makes them stable (unless failed), then cb. */
void engine_stop(struct engine *engine, void (*cb)(void *arg), void *arg);
/* After engine_stop()'s callback, or when never started. All refs and owners must be gone. */
void engine_destroy(struct engine *engine);
bool engine_ready(const struct engine *engine);
bool engine_failed(const struct engine *engine, int *ret_errno);
const struct superblock *engine_slice(const struct engine *engine);
struct arena *engine_arena(struct engine *engine);
struct cache *engine_cache(struct engine *engine);
uint64_t engine_capacity_bytes(const struct engine *engine); /* of values */

/* -- spaces ---------------------------------------------------------------------------------------------------------------- */
typedef void (*engine_space_cb)(void *arg, int rc, struct space_row *row);
void engine_space_open(struct engine *engine, const uint8_t tenant[16], const uint8_t digest[32],
		       const char *label, engine_space_cb cb, void *arg);
/* Gone at once for every caller; cb when that is durable. */
void engine_space_drop(struct engine *engine, struct space_row *row, engine_space_cb cb, void *arg);
void engine_space_set(struct engine *engine, struct space_row *row, uint64_t quota_bytes,
		      uint64_t pin_budget_bytes, engine_space_cb cb, void *arg);
struct space_row *engine_space_next(struct engine *engine, uint32_t *cursor);
struct space_row *
engine_space_by_number(struct engine *engine, uint32_t number); /* NULL: no such row */
/* A row stays while somebody says that they use it; otherwise it may go as soon as the callback that gave it has returned. */
void engine_space_ref(struct space_row *row);
void engine_space_unref(struct space_row *row);
/* The arena's tenant number of a tenant id (1 …). */
uint32_t engine_tenant_number(struct engine *engine, const uint8_t tenant[16]);

/* -- owners: who holds leases (a connection) -------------------------------------------------------------------------------- */
struct engine_owner;
int engine_owner_create(struct engine *engine, uint32_t tenant, struct engine_owner **ret_owner);
void
engine_owner_destroy(struct engine *engine,
		     struct engine_owner *owner); /* ends its leases and drops its unfinished parts */

/* -- PUT --------------------------------------------------------------------------------------------------------------------- */
struct engine_put; /* one part under way */

struct engine_put_args {
	struct space_row *space;
	struct engine_owner *owner; /* parts of an unfinished PUT are dropped with it */
	uint8_t id[16];
	uint64_t route;
	const uint8_t *parent; /* 16 bytes or NULL; copied */
	const uint8_t *key;    /* copied */
	uint16_t key_bytes;
	uint16_t part, parts_count;
	uint32_t stored_bytes;
	uint64_t block_bytes;
	uint64_t put_number;
	uint32_t ttl_ms;
	uint32_t position;
	uint32_t cost_hint_us;
	uint8_t class_hint;
	bool replace, pinned;
	uint8_t ack;	      /* HR_ACK_RAM or HR_ACK_STABLE */
	const uint32_t *crcs; /* of the writer; copied */
	uint32_t crcs_count;
};

struct engine_put_result {
	uint8_t status, reason; /* enum hr_status, hr_reason */
	bool duplicate, differs;
	bool held; /* a part of an unfinished block: the block is not decided yet */
	uint64_t birth;
};
typedef void (*engine_put_cb)(void *arg, const struct engine_put_result *result);

/* Finds memory for the value. HR_REASON_NONE and *ret_put, or why not: BUSY, QUOTA. HR_REASON_SIZE: the part's geometry is wrong. A put begun reserves nothing but memory. */
enum hr_reason engine_put_begin(struct engine *engine, const struct engine_put_args *args,
				struct engine_put **ret_put);
/* Where the value's bytes go: sum = stored_bytes. */
const struct iovec *engine_put_iov(const struct engine_put *put, unsigned *ret_count);
/* All bytes are there. Verifies them, appends, publishes (visible before cb for RAM), answers at the ack level. The put is the engine's from now on. */
void engine_put_commit(struct engine *engine, struct engine_put *put, engine_put_cb cb, void *arg);
void engine_put_abort(struct engine *engine, struct engine_put *put); /* instead of commit */
/* A part was refused, by engine_put_begin() or before that: its block cannot be complete any more, and holds nothing. No-op for blocks of one part. */
void engine_part_refused(struct engine *engine, const struct engine_put_args *args);

/* -- GET ---------------------------------------------------------------------------------------------------------------------- */
struct engine_get {
	/* in */
	struct space_row *space;
	uint8_t id[16];
	uint16_t part;
	uint64_t block_bytes; /* expected; UINT64_MAX = any */
	uint64_t deadline_us; /* io_now_us() time; 0 = none */
	bool low_priority;    /* prefetch: waits behind others */
	void (*cb)(struct engine_get *get);
	void *arg;
	/* out */
	uint8_t status, reason;
	bool from_flash;
	uint64_t len_block; /* real length, also with HR_REASON_SIZE */
	uint64_t birth;
	uint64_t expiry_ms;
	struct cache_entry *
	    entry; /* with OK: one reference, ended with engine_get_done(); buf holds the whole part; crcs are the writer's */
	/* private */
	struct list_head link;
	bool queued, joined;
	uint8_t tried_count;
	place_t tried[4]; /* places with the same tag that hold another block */
};
/* True: the answer is there now (DRAM hit or miss), cb will not run. False: cb runs later. The struct stays the caller's and must live until then. */
bool engine_get(struct engine *engine, struct engine_get *get);
/* A get under way is given up: its cb does not run. */
void engine_get_cancel(struct engine *engine, struct engine_get *get);
void engine_get_done(struct engine *engine, struct engine_get *get); /* gives the reference back */
/* A client found other bytes than `entry`'s CRCs say: checks DRAM's copy and drops it when it is bad. */
void
engine_suspect(struct engine *engine, struct space_row *space, const uint8_t id[16], uint16_t part);

/* -- EXISTS, TOUCH, DELETE, PREFETCH, leases ------------------------------------------------------------------------------------ */
struct engine_exists_result {
	bool present, leased;
	uint8_t reason;
	uint64_t block_bytes;
};
/* lease_ms 0: none. A lease is the owner's; the same block again renews it. */
void engine_exists(struct engine *engine, struct space_row *space, const uint8_t id[16],
		   uint32_t lease_ms, struct engine_owner *owner, struct engine_exists_result *ret);
void engine_release(struct engine *engine, struct space_row *space, const uint8_t id[16],
		    struct engine_owner *owner);
uint8_t engine_touch(struct engine *engine, struct space_row *space,
		     const uint8_t id[16]); /* reason; NONE = present */
/* cb(arg, reason): NONE = it was there. Gone for every caller at once; cb when the tombstone has reached `ack`. BUSY: the log is full, nothing was deleted. */
void engine_delete(struct engine *engine, struct space_row *space, const uint8_t id[16],
		   uint8_t ack, void (*cb)(void *arg, uint8_t reason), void *arg);
/* Starts reading the block's parts into DRAM; nobody is told. Returns the reason as engine_touch(). */
uint8_t engine_prefetch(struct engine *engine, struct space_row *space, const uint8_t id[16]);

/* -- LIST --------------------------------------------------------------------------------------------------------------------- */
struct engine_list_entry {
	uint8_t id[16], parent[16];
	uint64_t route, block_bytes, expiry_ms;
	uint32_t position;
	uint16_t key_bytes;
	const uint8_t *key; /* borrowed, until the callback returns */
};
/* Live blocks of a space, segment by segment. cursor 0 = start; next cursor 0 = end. One page holds the blocks of at least one segment's part: at most `max`.
 * -EAGAIN: ENGINE_LISTS_MAX are under way. */
typedef void (*engine_list_cb)(void *arg, int rc, uint64_t cursor_next,
			       const struct engine_list_entry *entries, uint32_t count);
void engine_list(struct engine *engine, struct space_row *space, uint64_t cursor, uint32_t max,
		 engine_list_cb cb, void *arg);

/* -- what goes on ------------------------------------------------------------------------------------------------------------- */
struct engine_stat {
	uint64_t blocks, records, bytes_live, bytes_capacity;
	uint64_t index_bytes, policy_bytes, reason_bytes, reason_entries;
	uint64_t arena_bytes_used, arena_bytes_max;
	uint64_t gets, get_hits_dram, get_hits_flash, get_misses[HR_REASON_COUNT], flash_reads,
	    flash_read_bytes, reads_shared, crc_failures, check_mismatches, read_errors;
	uint64_t puts, put_duplicates, put_differs, put_refused[HR_REASON_COUNT], puts_lost,
	    replaces;
	uint64_t deletes, exists_items, touches, prefetches, expired;
	uint64_t reclaims, reclaim_survivor_records, reclaim_survivor_bytes, reclaim_evicted_blocks,
	    reclaim_skipped_leased, reclaim_carried_leased, reclaim_corrupt;
	uint64_t reclaim_evicted_kept; /* leased or pinned, and evicted because no segment was free for the copy */
	uint64_t leases_now, lease_bytes_now, leases_refused;
	uint64_t reads_now, reads_queued_now, reads_queued_high, reads_refused;
	uint64_t puts_now, puts_high;
	uint64_t lists_now, lists_refused; /* pages of LIST */
	uint64_t multipart_now;		   /* live blocks of several parts */
	uint64_t multipart_unfinished_now; /* those that are not complete */
	uint64_t payload_bytes; /* accepted values rounded up to a page: what write amplification divides by */
	uint64_t bytes_written_total; /* everything written to the device but preparation */
	struct cache_counters cache;
	struct log_counters log;
	struct recover_result recovered;
	const char *policy;
	bool failed;
	int failed_errno;
};
void engine_stat_get(const struct engine *engine, struct engine_stat *ret);
/* Asserts the invariants (slow). */
void engine_check(struct engine *engine);

#endif
