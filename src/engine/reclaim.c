/* reclaim.c — making room: the coldest segment goes, what is worth keeping moves on.
 *
 * One victim at a time: its descriptors are read, each live record is carried (appended again, with its birth) or evicted, and when all copies are
 * stable and no read is under way in it, the segment is freed. What must be carried: leased and pinned blocks, tombstones and commit
 * records that are still needed. What may be: records inside the policy's threshold, most recent first, within a budget that keeps
 * write amplification under engine_options.wa_limit_permille.
 *
 * Copies need room that only a freed segment gives. A log without a free segment (each crash seals what was open, half empty) takes none, so
 * then nothing is carried, not even what must be: values are evicted, blocks whose commit record cannot move go with it. A tombstone
 * cannot go; its segment is passed over until another one is free.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/crc.h"
#include "engine/engine_impl.h"

enum { CARRY_INFLIGHT_MAX = 16, VICTIM_READS_MAX = 4 };

struct carry {
	struct list_head link; /* blocked */
	struct reclaim *reclaim;
	struct desc desc;
	uint8_t *key;
	uint32_t *crcs;
	place_t place;
	uint32_t worth;
	bool must;
	struct cache_entry *entry;
	bool transient;
	struct io_op op;
};

struct reclaim {
	struct engine *engine;
	bool running;
	bool deciding; /* the victim's descriptors are being read */
	bool flushing; /* what its dead records were replaced by becomes stable */
	bool freeing;
	uint32_t victim;
	struct carry *carries;
	uint32_t carries_count, carries_next;
	uint32_t inflight;	  /* being read, or waiting for room */
	uint32_t unstable;	  /* appended, not stable yet */
	struct list_head blocked; /* read, waiting for room in the log */
	uint64_t budget_pages;	  /* what this victim may give */
	bool stuck;		  /* a tombstone of the victim has nowhere to go */
	bool *passed_over;	  /* by segment: was stuck, and nothing was freed since */
	unsigned unreadable;	  /* victims in a row of which no descriptor could be read */
	uint64_t oldest; /* generation in use besides the victim's, when it was looked at: it only grows */
	struct hashmap evicted; /* identities whose records are only on flash, until the victim is free */
};

static void carry_go(struct reclaim *r);
static void victim_lose(struct reclaim *r);

int
reclaim_create(struct engine *engine)
{
	struct reclaim *r = calloc(1, sizeof(*r));

	if (r == NULL) {
		return -ENOMEM;
	}
	r->passed_over = calloc(engine->slice.segments_count, sizeof(r->passed_over[0]));
	if (r->passed_over == NULL) {
		free(r);
		return -ENOMEM;
	}
	r->engine = engine;
	list_init(&r->blocked);
	hashmap_init(&r->evicted, io_random_u64(engine->io));
	engine->reclaim = r;
	return 0;
}

static void
carries_free(struct reclaim *r)
{
	for (uint32_t i = 0; i < r->carries_count; i++) {
		free(r->carries[i].key);
		free(r->carries[i].crcs);
	}
	free(r->carries);
	r->carries = NULL;
	r->carries_count = 0;
	r->carries_next = 0;
}

void
reclaim_destroy(struct engine *engine)
{
	if (engine->reclaim != NULL) {
		carries_free(engine->reclaim);
		free(engine->reclaim->passed_over);
		hashmap_fini(&engine->reclaim->evicted);
		free(engine->reclaim);
		engine->reclaim = NULL;
	}
}

bool
reclaim_idle(const struct engine *engine)
{
	return !engine->reclaim->running;
}

bool
reclaim_evicted(const struct engine *engine, uint64_t hash)
{
	/* Of a segment that the start could not read, anything may come back when another one can. */
	return engine->stat.recovered.segments_unreadable > 0 ||
	       hashmap_get(&engine->reclaim->evicted, hash, NULL) ||
	       hashmap_get(&engine->copies, hash, NULL);
}

/* ---- the budget ---- */

/* What this victim may give, by the rule of evict.h. */
static uint64_t
budget_pages(struct engine *engine)
{
	struct log_counters c;
	struct evict_budget budget = {
		.payload_bytes = engine->stat.payload_bytes,
		.survivor_bytes = engine->stat.reclaim_survivor_bytes,
		.victim_bytes = engine->slice.segment_bytes,
		.segments_count = engine->slice.segments_count,
		.limit_permille = engine->options.wa_limit_permille,
	};

	log_counters_get(engine->log, &c);
	budget.written_bytes = c.unit_bytes_written + c.footer_bytes_written + c.mark_bytes_written;
	return evict_budget_pages(&budget);
}

/* ---- the end of a victim ---- */

/* The engine stops or has failed: what is not copied stays where it is. */
static bool
gives_up(const struct engine *engine)
{
	return engine->failed != 0 || engine->state != ENGINE_READY;
}

static void
on_freed(void *arg, int rc)
{
	struct reclaim *r = arg;
	struct engine *engine = r->engine;

	r->running = false;
	r->freeing = false;
	if (rc == 0) {
		hashmap_fini(&r->evicted);
		hashmap_init(&r->evicted, io_random_u64(engine->io));
	}
	if (rc == -ECANCELED) {
		HR_ASSERT(gives_up(engine)); /* Nothing has failed. */
	} else if (rc != 0) {
		engine_fail(engine, rc);
	} else {
		engine->stat.reclaims++;
		memset(r->passed_over, 0, engine->slice.segments_count);
		appends_retry(engine);
	}
	reclaim_kick(engine);
	engine_async_end(engine);
}

static void
copy_keep(struct reclaim *r, uint64_t hash, uint64_t generation)
{
	if (hashmap_put(&r->engine->copies, hash, generation) != 0) {
		r->engine->stat.cache.alloc_failures++; /* Then it may come back after a crash. */
	}
}

/* The victim is not freed after all: what was evicted from it, and what was carried out of it, stays on flash for longer. */
static void
evicted_keep(struct reclaim *r)
{
	struct engine *engine = r->engine;
	struct hashmap_slot *slot;
	struct segment_info info;
	size_t pos;

	log_segment_info(engine->log, r->victim, &info);
	hashmap_for_each(&r->evicted, pos, slot) {
		copy_keep(r, slot->key[0], info.generation);
	}
	for (uint32_t i = 0; i < r->carries_count; i++) {
		const struct desc *d = &r->carries[i].desc;

		if (d->kind == DESC_VALUE) {
			copy_keep(r,
				  index_key_make(engine->index, d->space_number,
						 d->space_generation, d->id, 0)
				      .hash,
				  info.generation);
		}
	}
}

static void
on_victim_flushed(void *arg, int rc)
{
	struct reclaim *r = arg;
	struct engine *engine = r->engine;

	if (rc != 0 && rc != -ECANCELED) {
		engine_fail(engine, rc); /* Looks at the victim, too. */
	}
	r->flushing = false;
	if (rc != 0 || gives_up(engine)) {
		r->running = false;
		engine_async_end(engine);
		return;
	}
	HR_ASSERTF(engine->policy->live_pages(engine->evict, r->victim) == 0, "segment %u",
		   r->victim);
	r->freeing = true;
	log_segment_free(engine->log, r->victim, on_freed, r);
}

static void
victim_finish(struct reclaim *r)
{
	struct engine *engine = r->engine;

	if (!r->running || r->deciding || r->flushing || r->freeing ||
	    r->carries_next < r->carries_count || r->inflight > 0 || r->unstable > 0 ||
	    engine->seg_reads[r->victim] > 0) {
		return;
	}
	if (r->stuck) {
		evicted_keep(r);
	}
	carries_free(r);
	if (gives_up(engine)) {
		r->running = false;
		engine_async_end(engine);
		return;
	}
	if (r->stuck) {
		r->stuck = false;
		r->passed_over[r->victim] = true;
		r->running = false;
		reclaim_kick(engine);
		engine_async_end(engine);
		return;
	}
	if (engine->drops_pending > 0) {
		retry_start(engine);
		return;
	}
	/* With a damaged footer and a damaged unit header, no descriptor has named what lies behind that header. */
	if (engine->policy->live_pages(engine->evict, r->victim) > 0) {
		victim_lose(r);
	}
	/* Records died in it because of others, of tombstones, of drops. Were these lost with the power after the segment is free, what was older
	 * still would come back. */
	r->flushing = true;
	log_flush(engine->log, on_victim_flushed, r);
}

/* ---- carrying one record ---- */

/* A record that replaced another one, or of which a start found two copies, must not let the other come back when it goes itself: a tombstone with its birth takes its place
 * as long as an older record may exist. False: none is needed. */
static bool
tombstone_of(const struct reclaim *r, const struct desc *d, const struct found *found,
	     struct desc *ret)
{
	uint64_t horizon = found->multi != NULL ? found->multi->horizon : d->horizon;
	struct segment_info info;
	uint64_t copy = 0;
	struct desc tombstone = {
		.kind = DESC_TOMBSTONE,
		.space_number = d->space_number,
		.space_generation = d->space_generation,
		.birth = found->multi != NULL ? found->multi->birth : d->birth,
		.parts_count = 1,
		.horizon = horizon,
	};

	(void)hashmap_get(&r->engine->copies, found->key.hash, &copy);
	tombstone.horizon = HR_MAX(horizon, copy);
	if (tombstone.horizon == 0 || r->oldest > tombstone.horizon) {
		return false;
	}
	/* Should the victim not be freed, it covers the record itself, too: that may be newer than its horizon. */
	log_segment_info(r->engine->log, r->victim, &info);
	tombstone.horizon = HR_MAX(tombstone.horizon, info.generation);
	memcpy(tombstone.id, d->id, sizeof(tombstone.id));
	*ret = tombstone;
	return true;
}

static bool
is_kept(struct engine *engine, const struct found *found)
{
	return (found->entry.flags & INDEX_FLAG_PINNED) != 0 || lease_holds(engine, found->key.hash);
}

static void
carry_becomes(struct carry *c, const struct desc *tombstone)
{
	free(c->key);
	free(c->crcs);
	c->key = NULL;
	c->crcs = NULL;
	c->desc = *tombstone;
	c->must = true;
	if (c->entry != NULL) {
		cache_unref(c->reclaim->engine->cache, c->entry);
		c->entry = NULL;
	}
}

/* What takes the block's place before the victim is free replaces it on flash (reclaim_evicted()). There is room: as many as the victim
 * has records were reserved. */
static void
evicted_note(struct reclaim *r, const struct found *found)
{
	HR_ASSERT(hashmap_put(&r->evicted, found->key.hash, 0) == 0);
}

/* The record of a carry goes. True: the carry is its tombstone from now on. */
static bool
carry_evict(struct carry *c, uint8_t reason)
{
	struct engine *engine = c->reclaim->engine;
	struct desc tombstone;
	struct found found;
	bool needed;

	if (c->desc.kind != DESC_VALUE ||
	    !record_at(engine, c->desc.space_number, c->desc.space_generation, c->desc.id,
		       c->desc.part, c->place, &found)) {
		return false;
	}
	needed = tombstone_of(c->reclaim, &c->desc, &found, &tombstone);
	evicted_note(c->reclaim, &found);
	engine->stat.reclaim_evicted_kept += reason == HR_REASON_EVICTED && is_kept(engine, &found);
	record_kill(engine, &found, reason);
	engine->stat.reclaim_evicted_blocks++;
	if (needed) {
		carry_becomes(c, &tombstone);
	}
	return needed;
}

/* The block whose commit record has nowhere to go. As carry_evict(). */
static bool
commit_evict(struct carry *c)
{
	struct engine *engine = c->reclaim->engine;
	struct desc tombstone;
	struct index_key key = index_key_make(engine->index, c->desc.space_number,
					      c->desc.space_generation, c->desc.id, 0);
	struct multi *m = hashmap_get_ptr(&engine->multis, key.hash);
	struct found found;
	bool needed;

	if (m == NULL || m->log_number != c->desc.put_number ||
	    !record_at(engine, c->desc.space_number, c->desc.space_generation, c->desc.id, 0,
		       m->parts[0].place, &found)) {
		return false;
	}
	needed = tombstone_of(c->reclaim, &c->desc, &found, &tombstone);
	evicted_note(c->reclaim, &found);
	engine->stat.reclaim_evicted_kept += is_kept(engine, &found);
	record_kill(engine, &found, HR_REASON_EVICTED);
	engine->stat.reclaim_evicted_blocks++;
	if (needed) {
		carry_becomes(c, &tombstone);
	}
	return needed;
}

static void
on_carry_done(struct pending *p, int rc)
{
	struct reclaim *r = p->on_done_arg;

	(void)rc; /* A failed write has failed the engine. */
	HR_ASSERT(r->unstable > 0);
	r->unstable--;
	victim_finish(r);
}

/* The copy is in the log: the index names it from now on. */
static void
carry_moved(struct carry *c, struct pending *p, struct found *found)
{
	struct engine *engine = c->reclaim->engine;
	struct index_key part_key;
	uint16_t recency = found->multi != NULL ? found->multi->parts[c->desc.part].recency
						: found->entry.recency;

	engine->policy->remove(engine->evict, c->reclaim->victim, p->pages, recency);
	if (lease_holds(engine, found->key.hash)) {
		/* Somebody is about to read it. As cold as it was it would make the next victim, over and over while the lease lasts. */
		recency = engine->policy->insert(engine->evict, p->rec.segment, p->pages);
		*(found->multi != NULL ? &found->multi->parts[c->desc.part].recency
				       : &found->entry.recency) = recency;
	} else {
		engine->policy->insert_carried(engine->evict, p->rec.segment, p->pages, recency);
	}
	record_move(engine, found, c->desc.part, PLACE_PENDING | p->slot);
	part_key = index_key_make(engine->index, c->desc.space_number, c->desc.space_generation,
				  c->desc.id, c->desc.part);
	if (c->transient) {
		cache_publish(engine->cache, p->entry, PLACE_PENDING | p->slot, part_key.hash);
	} else {
		cache_rename(engine->cache, p->entry, PLACE_PENDING | p->slot);
	}
	engine->stat.reclaim_survivor_records++;
	engine->stat.reclaim_survivor_bytes += (uint64_t)p->pages * ENGINE_PAGE_BYTES;
}

static bool
generation_current(const struct engine *engine, const struct desc *d)
{
	const struct space_row *row = space_by_number(engine->spaces, d->space_number);

	return row != NULL && row->generation == d->space_generation;
}

/* True: done with it, one way or the other. False: no room in the log. */
static bool
carry_append(struct carry *c)
{
	struct reclaim *r = c->reclaim;
	struct engine *engine = r->engine;
	bool value = c->desc.kind == DESC_VALUE;
	struct pending *p;
	struct found found;
	int rc;

	if (gives_up(engine)) {
		return true;
	}
	if (value && !record_at(engine, c->desc.space_number, c->desc.space_generation, c->desc.id,
				c->desc.part, c->place, &found)) {
		return true; /* It died meanwhile. */
	}
	if (value && !generation_current(engine, &c->desc)) {
		record_kill(engine, &found, HR_REASON_NONE); /* Its space was dropped meanwhile. */
		return true;
	}
	if (pending_create(engine, &c->desc, c->key, c->crcs, &p) != 0) {
		return false;
	}
	p->class = (c->desc.flags & DESC_FLAG_PINNED) != 0 ? CLASS_PINNED : CLASS_SURVIVOR;
	p->rec.want_stable = true;
	p->transient = c->transient;
	if (value) {
		p->entry = c->entry;
		cache_ref(p->entry);
		if (found.multi != NULL) {
			p->multi = found.multi;
			p->multi->refs++;
			p->rec.desc.birth = found.multi->birth;
		}
	}
	rc = pending_append(p);
	if (rc == -EAGAIN && p->class == CLASS_PINNED) {
		p->class =
		    CLASS_SURVIVOR; /* Only they have a segment in reserve, and nothing else will make room. */
		rc = pending_append(p);
	}
	if (rc != 0) {
		pending_destroy(p);
		return false;
	}
	p->on_done = on_carry_done;
	p->on_done_arg = r;
	r->unstable++;
	if (value) {
		carry_moved(c, p, &found);
	}
	return true;
}

static void
carry_end(struct carry *c)
{
	if (c->entry != NULL) {
		cache_unref(c->reclaim->engine->cache, c->entry);
		c->entry = NULL;
	}
	c->reclaim->inflight--;
}

/* No segment is free and no write that is under way will make room: only this victim can. */
static bool
room_never_comes(const struct engine *engine)
{
	struct log_counters c;

	log_counters_get(engine->log, &c);
	return c.free_count == 0 && c.units_inflight < LOG_UNITS_INFLIGHT_MAX;
}

/* True: done with it, one way or the other. False: waits for room in the log. */
static bool
carry_settle(struct carry *c)
{
	bool tombstone;

	while (!carry_append(c)) {
		if (!room_never_comes(c->reclaim->engine)) {
			return false;
		}
		if (c->desc.kind == DESC_TOMBSTONE) {
			c->reclaim->stuck = true;
			return true;
		}
		tombstone = c->desc.kind == DESC_COMMIT ? commit_evict(c)
							: carry_evict(c, HR_REASON_EVICTED);
		if (!tombstone) {
			return true;
		}
	}
	return true;
}

static void
carry_try(struct carry *c)
{
	if (carry_settle(c)) {
		carry_end(c);
	} else {
		list_add_tail(&c->reclaim->blocked, &c->link);
		retry_start(c->reclaim->engine);
	}
}

/* The log has room: copies go before new values, because they free a segment. */
void
reclaim_retry(struct engine *engine)
{
	struct reclaim *r = engine->reclaim;

	while (!list_empty(&r->blocked)) {
		struct carry *c = list_pop_entry(&r->blocked, struct carry, link);

		if (!carry_settle(c)) {
			list_add(&r->blocked, &c->link);
			return;
		}
		carry_end(c);
	}
	carry_go(r);
}

/* The bytes in memory are those of the descriptor. */
static bool
carry_right(const struct carry *c)
{
	struct iovec iov[ARENA_IOV_MAX];
	uint32_t crcs[ENGINE_CRCS_MAX];
	unsigned iov_count = arena_iov_slice(&c->entry->buf, 0, c->desc.stored_bytes, iov);

	if (c->desc.crcs_count == 0) {
		return true;
	}
	crc32c_chunks(iov, iov_count, c->reclaim->engine->slice.chunk_bytes, crcs);
	return memcmp(crcs, c->crcs, c->desc.crcs_count * sizeof(crcs[0])) == 0;
}

static void
on_carry_read(void *arg, int64_t result)
{
	struct carry *c = arg;
	struct reclaim *r = c->reclaim;
	struct engine *engine = r->engine;

	engine->seg_reads[r->victim]--;
	if (result < 0 || !carry_right(c)) {
		engine->stat.reclaim_corrupt++;
		engine->stat.read_errors += result < 0;
		if (carry_evict(c, HR_REASON_CORRUPT)) {
			carry_try(c);
		} else {
			carry_end(c);
		}
	} else {
		memcpy(c->entry->crcs, c->crcs, c->desc.crcs_count * sizeof(c->crcs[0]));
		arena_buf_pad(&c->entry->buf);
		carry_try(c);
	}
	carry_go(r);
	engine_async_end(engine);
}

/* Memory for a copy: false when there is none now. */
static bool
carry_memory(struct carry *c, struct found *found)
{
	struct engine *engine = c->reclaim->engine;
	struct space_row *row = space_by_number(engine->spaces, c->desc.space_number);
	struct cache_entry *e;

	if (cache_new(engine->cache, engine_tenant_number(engine, row->tenant),
		      c->desc.stored_bytes, &e) != 0) {
		return false;
	}
	e->crcs_count = c->desc.crcs_count;
	e->block_bytes = found->block_bytes;
	e->birth = c->desc.birth;
	e->expiry_ms = found->expiry_ms;
	e->part = c->desc.part;
	e->parts_count = c->desc.parts_count;
	c->entry = e;
	c->transient = true;
	return true;
}

/* False: must wait until one under way has ended. */
static bool
carry_start(struct carry *c)
{
	struct reclaim *r = c->reclaim;
	struct engine *engine = r->engine;
	struct index_key part_key;
	struct found found;

	if (gives_up(engine)) {
		return true;
	}
	if (c->desc.kind != DESC_VALUE) {
		r->inflight++;
		carry_try(c);
		return true;
	}
	if (!record_at(engine, c->desc.space_number, c->desc.space_generation, c->desc.id,
		       c->desc.part, c->place, &found)) {
		return true;
	}
	part_key = index_key_make(engine->index, c->desc.space_number, c->desc.space_generation,
				  c->desc.id, c->desc.part);
	c->entry = cache_find(engine->cache, c->place, part_key.hash, false);
	if (c->entry != NULL && !c->entry->filling && carry_right(c)) {
		r->inflight++;
		carry_try(c);
		return true;
	}
	if (c->entry != NULL) {
		if (!c->entry->filling) {
			engine->stat.crc_failures++; /* Damaged in DRAM: flash has it. */
			cache_drop(engine->cache, c->entry);
		}
		cache_unref(engine->cache, c->entry);
		c->entry = NULL;
	}
	if (!carry_memory(c, &found)) {
		if (r->inflight > 0) {
			return false;
		}
		if (c->must || lease_holds(engine, found.key.hash)) {
			/* Promised to stay: it waits until a reader gives memory back, or a put that waits for this segment. */
			(void)put_shed(engine);
			retry_start(engine);
			return false;
		}
		if (carry_evict(c, HR_REASON_EVICTED)) {
			r->inflight++;
			carry_try(c);
		}
		return true;
	}
	r->inflight++;
	if (c->desc.stored_bytes == 0) {
		carry_try(c);
		return true;
	}
	engine->seg_reads[r->victim]++;
	engine->async_now++;
	io_device_read(engine->device, &c->op, c->entry->buf.iov, c->entry->buf.iov_count,
		       log_value_offset(engine->log, r->victim, c->desc.value_off), on_carry_read,
		       c);
	return true;
}

static void
carry_go(struct reclaim *r)
{
	while (r->carries_next < r->carries_count && r->inflight < CARRY_INFLIGHT_MAX) {
		if (!carry_start(&r->carries[r->carries_next])) {
			break;
		}
		r->carries_next++;
	}
	victim_finish(r);
}

/* ---- deciding ---- */

static int
worth_cmp(const void *va, const void *vb)
{
	const struct carry *a = va, *b = vb;

	if (a->must != b->must) {
		return a->must ? -1 : 1;
	}
	return a->worth < b->worth ? 1 : a->worth > b->worth ? -1 : 0;
}

static bool
carry_add(struct reclaim *r, const struct desc *d, uint32_t worth, bool must)
{
	struct carry *c = &r->carries[r->carries_count];

	*c = (struct carry){ .reclaim = r, .desc = *d, .worth = worth, .must = must };
	if (d->key_bytes > 0) {
		c->key = malloc(d->key_bytes);
		if (c->key == NULL) {
			return false;
		}
		memcpy(c->key, d->key, d->key_bytes);
	}
	if (d->crcs_count > 0) {
		c->crcs = malloc(d->crcs_count * sizeof(uint32_t));
		if (c->crcs == NULL) {
			free(c->key);
			return false;
		}
		memcpy(c->crcs, d->crcs, d->crcs_count * sizeof(uint32_t));
	}
	c->desc.key = c->key;
	c->desc.crcs = c->crcs;
	c->place = place_make(r->engine, r->victim, d->value_off);
	r->carries_count++;
	return true;
}

static void
evict(struct reclaim *r, const struct desc *d, struct found *found, uint8_t reason)
{
	struct desc tombstone;
	bool needed = tombstone_of(r, d, found, &tombstone);

	evicted_note(r, found);
	record_kill(r->engine, found, reason);
	r->engine->stat.reclaim_evicted_blocks++;
	if (needed) {
		(void)carry_add(r, &tombstone, UINT32_MAX, true);
	}
}

/* What had expired when a start found it is dead without a tombstone. As long as it is on flash it keeps what it had replaced dead; now that
 * it goes, a tombstone has to. One too many does no harm: nothing older than it is alive. */
static void
consider_expired(struct reclaim *r, const struct desc *d)
{
	struct segment_info info;
	struct desc tombstone = {
		.kind = DESC_TOMBSTONE,
		.space_number = d->space_number,
		.space_generation = d->space_generation,
		.birth = d->birth,
		.parts_count = 1,
		.horizon = d->horizon,
	};

	if (d->birth == 0 || d->expiry_ms == 0 || d->expiry_ms > io_wall_ms(r->engine->io) ||
	    d->horizon < r->oldest || !generation_current(r->engine, d)) {
		return;
	}
	log_segment_info(r->engine->log, r->victim, &info);
	tombstone.horizon = HR_MAX(tombstone.horizon, info.generation);
	memcpy(tombstone.id, d->id, sizeof(tombstone.id));
	(void)carry_add(r, &tombstone, UINT32_MAX, true);
}

static void
consider_value(struct reclaim *r, const struct desc *d)
{
	struct engine *engine = r->engine;
	place_t place = place_make(engine, r->victim, d->value_off);
	struct found found;
	uint16_t recency;
	uint32_t worth;
	bool leased, pinned;

	if (!record_at(engine, d->space_number, d->space_generation, d->id, d->part, place, &found)) {
		if (d->parts_count == 1) {
			consider_expired(r, d);
		}
		return;
	}
	if (!generation_current(engine, d)) {
		record_kill(engine, &found, HR_REASON_NONE);
		return;
	}
	if (found.expiry_ms != 0 && found.expiry_ms <= io_wall_ms(engine->io)) {
		engine->stat.expired++;
		evict(r, d, &found, HR_REASON_EXPIRED);
		return;
	}
	recency = found.multi != NULL ? found.multi->parts[d->part].recency : found.entry.recency;
	worth = engine->policy->worth(engine->evict, recency);
	leased = lease_holds(engine, found.key.hash);
	pinned = (found.entry.flags & INDEX_FLAG_PINNED) != 0;
	engine->stat.reclaim_carried_leased += leased;
	if (worth == 0 && !leased && !pinned) {
		evict(r, d, &found, HR_REASON_EVICTED);
	} else if (!carry_add(r, d, worth, leased || pinned)) {
		evict(r, d, &found, HR_REASON_EVICTED);
	}
}

static void
consider(struct reclaim *r, const struct desc *d)
{
	struct engine *engine = r->engine;
	struct index_key key;
	struct multi *m;

	switch (d->kind) {
	case DESC_VALUE:
		consider_value(r, d);
		break;
	case DESC_TOMBSTONE:
		if (r->oldest <= d->horizon) {
			(void)carry_add(r, d, UINT32_MAX, true);
		}
		break;
	case DESC_COMMIT:
		key = index_key_make(engine->index, d->space_number, d->space_generation, d->id, 0);
		m = hashmap_get_ptr(&engine->multis, key.hash);
		if (m != NULL && m->log_number == d->put_number) {
			(void)carry_add(r, d, UINT32_MAX, true);
		} else {
			consider_expired(r, d);
		}
		break;
	default:
		break;
	}
}

/* What does not fit the budget is evicted, least recent first. */
static void
budget_apply(struct reclaim *r)
{
	uint64_t left = r->budget_pages;
	uint32_t kept = 0;

	qsort(r->carries, r->carries_count, sizeof(r->carries[0]), worth_cmp);
	for (uint32_t i = 0; i < r->carries_count; i++) {
		struct carry *c = &r->carries[i];
		uint64_t pages = c->desc.kind == DESC_VALUE ? value_pages(c->desc.stored_bytes) : 0;

		if (!c->must && pages > left) {
			if (!carry_evict(c, HR_REASON_EVICTED)) {
				free(c->key);
				free(c->crcs);
				continue;
			}
			pages = 0;
		}
		left -= HR_MIN(pages, left);
		r->carries[kept++] = *c;
	}
	r->carries_count = kept;
}

/* Copies in the order in which they lay: neighbours stay neighbours. */
static int
place_cmp(const void *va, const void *vb)
{
	const struct carry *a = va, *b = vb;

	return a->desc.value_off < b->desc.value_off ? -1 : a->desc.value_off > b->desc.value_off;
}

/* A block of one part that lies in the victim. */
static bool
lose_single(void *arg, const struct index_entry *entry)
{
	struct reclaim *r = arg;
	struct engine *engine = r->engine;

	if ((entry->flags & INDEX_FLAG_MULTIPART) != 0 || (entry->place & PLACE_PENDING) != 0 ||
	    place_segment(engine, entry->place) != r->victim) {
		return false;
	}
	engine->policy->remove(engine->evict, r->victim, value_pages(entry->bytes), entry->recency);
	cache_drop_place(engine->cache, entry->place);
	engine->stat.blocks--;
	engine->stat.bytes_live -= entry->bytes;
	engine->blocks_unaccounted++;
	return true;
}

/* A block of many parts of which one lies in the victim. */
static bool
lose_multi(struct reclaim *r)
{
	struct engine *engine = r->engine;
	struct hashmap_slot *slot;
	size_t pos;

	hashmap_for_each(&engine->multis, pos, slot) {
		struct multi *m = (void *)(uintptr_t)slot->value;

		for (uint16_t i = 0; i < m->parts_count; i++) {
			struct found found;

			if (place_segment(engine, m->parts[i].place) == r->victim) {
				HR_ASSERT(record_at(engine, m->space_number, m->space_generation,
						    m->id, i, m->parts[i].place, &found));
				record_kill(engine, &found, HR_REASON_CORRUPT);
				return true; /* The map has changed. */
			}
		}
	}
	return false;
}

/* Neither footer nor headers can be read, again and again (or the headers only in part): nothing says what the records there are, only
 * the index that there are some, by their places. They go, so that the segment can be used again. Whose they were is not known: the usage of their spaces stays too
 * high until the next start counts again. What they may have replaced could come back at a start with or without this: it could not
 * read the segment either. */
static void
victim_lose(struct reclaim *r)
{
	struct engine *engine = r->engine;
	uint32_t cursor = 0;

	while (lose_multi(r)) {
	}
	while (index_sweep(engine->index, &cursor, lose_single, r)) {
	}
	engine->stat.reclaim_corrupt++;
}

static void
on_victim_descs(void *arg, int rc, const struct desc *descs, uint32_t descs_count)
{
	struct reclaim *r = arg;
	struct engine *engine = r->engine;
	struct hashmap empties;

	r->deciding = false;
	if (gives_up(engine)) {
		victim_finish(r);
		return;
	}
	if (rc != 0 && rc != -ENOMEM) {
		engine->stat.read_errors++;
		if (++r->unreadable == VICTIM_READS_MAX) {
			r->unreadable = 0;
			victim_lose(r);
			victim_finish(r);
			return;
		}
	}
	if (rc == 0) {
		r->unreadable = 0;
		r->carries = calloc(HR_MAX(descs_count, 1u), sizeof(r->carries[0]));
	}
	hashmap_init(&empties, io_random_u64(engine->io));
	if (r->carries == NULL ||
	    hashmap_reserve(&r->evicted, r->evicted.count + descs_count) != 0 ||
	    empties_find(engine, descs, descs_count, &empties) != 0) {
		hashmap_fini(&empties);
		carries_free(
		    r); /* No memory now, or an error that may pass: a victim is chosen again. */
		r->running = false;
		retry_start(engine);
		engine_async_end(engine);
		return;
	}
	r->oldest = log_generation_oldest(engine->log, r->victim);
	for (uint32_t i = 0; i < descs_count; i++) {
		if (!empty_superseded(engine, &empties, descs, i)) {
			consider(r, &descs[i]);
		}
	}
	hashmap_fini(&empties);
	budget_apply(r);
	qsort(r->carries, r->carries_count, sizeof(r->carries[0]), place_cmp);
	for (uint32_t i = 0; i < r->carries_count; i++) {
		list_init(&r->carries[i].link);
	}
	r->carries_next = 0;
	carry_go(r);
}

static bool
eligible(void *arg, uint32_t segment)
{
	struct engine *engine = arg;
	struct segment_info info;

	if (engine->seg_holds[segment] > 0 || engine->reclaim->passed_over[segment]) {
		return false;
	}
	log_segment_info(engine->log, segment, &info);
	if (info.state != SEG_SEALED) {
		return false;
	}
	/* A pinned segment is a victim once more than half of it is dead. */
	return info.class != CLASS_PINNED ||
	       engine->policy->live_pages(engine->evict, segment) * ENGINE_PAGE_BYTES * 2 <
		   engine->slice.segment_bytes;
}

static uint32_t
low_water(const struct engine *engine)
{
	return HR_MAX(1u, HR_MIN(8u, engine->slice.segments_count / 128));
}

/* The policy's recencies are 16 bits of a clock that goes round: now and then a part of the index is brought up to date. */
static uint16_t
age(void *arg, const struct index_entry *entry)
{
	struct engine *engine = arg;

	return engine->policy->age(engine->evict, entry->recency);
}

void
engine_ageing(struct engine *engine)
{
	struct hashmap_slot *slot;
	size_t pos;

	while (engine->policy->age_due(engine->evict)) {
		uint64_t subtable = engine->age_next;

		(void)index_sweep_recency(engine->index, &engine->age_next, age, engine);
		hashmap_for_each(&engine->multis, pos, slot) {
			struct multi *m = (void *)(uintptr_t)slot->value;

			for (uint16_t i = 0; m->hash >> 54 == subtable && i < m->parts_count; i++) {
				m->parts[i].recency =
				    engine->policy->age(engine->evict, m->parts[i].recency);
			}
		}
	}
}

void
reclaim_kick(struct engine *engine)
{
	struct reclaim *r = engine->reclaim;
	struct segment_info last;

	if (r->running) {
		victim_finish(r);
		return;
	}
	engine_ageing(engine);
	if (engine->state != ENGINE_READY || engine->failed != 0 ||
	    log_free_count(engine->log) > low_water(engine)) {
		return;
	}
	/* While a file is still being prepared, free segments come from there. */
	log_segment_info(engine->log, engine->slice.segments_count - 1, &last);
	if (last.state == SEG_UNPREPARED) {
		return;
	}
	r->budget_pages = budget_pages(engine);
	engine->policy->budget(engine->evict, r->budget_pages);
	r->victim = engine->policy->victim(engine->evict, eligible, engine);
	if (r->victim == UINT32_MAX) {
		return;
	}
	r->running = true;
	r->deciding = true;
	engine->async_now++;
	if (log_read_descs(engine->log, r->victim, on_victim_descs, r) != 0) {
		r->running = false;
		r->deciding = false;
		engine_async_end(engine);
	}
}
