/* put.c — PUT: memory for the value, verification, who wins, the log, the answer.
 *
 * A put goes begin → commit → (waits for room in the log) → decided → answered. What decides is the moment of publication: the first
 * to complete wins, `replace` takes its birth then. Answers are given in the next turn of the loop, or when the log says stable.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/crc.h"
#include "engine/engine_impl.h"

enum {
	RETRY_US = 20000,
	/* How long a put may wait for room: a stall is worse than a refusal. */
	HOLDS_WAIT_US = 1000000,
	UNFINISHED_MAX = 1024, /* blocks of several parts of an owner; beyond it the oldest goes */
	ROOM_WAIT_US = 10000000,
};

struct engine_put {
	struct list_head link; /* appends_waiting, then puts_done */
	struct engine *engine;
	struct engine_put_args args; /* its pointers: into this allocation, or NULL */
	uint8_t parent[16];
	uint32_t crcs[ENGINE_CRCS_MAX];
	struct cache_entry *entry;
	struct multi *multi; /* its part is held; the block is to be decided */
	struct engine_get
	    get; /* reads what is there, to see whose it is; `tried`: other blocks with its tag */
	engine_put_cb cb;
	void *arg;
	struct engine_put_result result;
	uint64_t waits_since_us;	 /* for room in the log; 0: it does not */
	struct iovec iov[ARENA_IOV_MAX]; /* of the value's bytes, without the padding */
	unsigned iov_count;
	uint8_t key[];
};

static void
put_free(struct engine_put *put)
{
	struct engine *engine = put->engine;

	if (put->entry != NULL) {
		cache_unref(engine->cache, put->entry);
	}
	if (put->multi != NULL) {
		multi_unref(engine, put->multi);
	}
	engine->stat.puts_now--;
	free(put);
	engine_async_end(engine);
}

static void
puts_done_run(void *arg)
{
	struct engine *engine = arg;
	struct list_head done;

	list_init(&done);
	list_splice_tail(&done, &engine->puts_done);
	while (!list_empty(&done)) {
		struct engine_put *put = list_pop_entry(&done, struct engine_put, link);

		put->cb(put->arg, &put->result);
		put_free(put);
	}
}

static void
put_answer(struct engine_put *put, enum hr_status status, enum hr_reason reason)
{
	struct engine *engine = put->engine;

	put->result.status = (uint8_t)status;
	put->result.reason = (uint8_t)reason;
	if (status == HR_STATUS_REFUSED) {
		engine->stat.put_refused[reason]++;
	} else if (put->result.duplicate) {
		engine->stat.put_duplicates++;
		engine->stat.put_differs += put->result.differs;
	}
	if (list_empty(&engine->puts_done)) {
		io_timer_set(engine->io, &engine->puts_done_timer, io_now_us(engine->io),
			     puts_done_run, engine);
	}
	list_add_tail(&engine->puts_done, &put->link);
}

/* ---- begin ---- */

static bool
geometry_ok(const struct engine *engine, const struct engine_put_args *a)
{
	uint64_t part_bytes = engine->slice.part_bytes;
	uint64_t parts = a->block_bytes == 0 ? 1 : div_round_up(a->block_bytes, part_bytes);
	uint64_t off = a->part * part_bytes;

	return a->block_bytes <= HR_BLOCK_BYTES_MAX && a->parts_count == parts && a->part < parts &&
	       (parts == 1 || a->put_number != 0) &&
	       a->stored_bytes == HR_MIN(part_bytes, a->block_bytes - off) &&
	       a->crcs_count == div_round_up(a->stored_bytes, engine->slice.chunk_bytes) &&
	       (a->part != 0 || (a->key_bytes > 0 && a->key_bytes <= HR_KEY_BYTES_MAX));
}

/* Within the space's budget, and a quarter of the shard for all spaces: what is pinned is never reclaimed. */
static bool
pin_fits(const struct engine *engine, const struct engine_put_args *a)
{
	return a->space->pinned_bytes + a->block_bytes <= a->space->pin_budget_bytes &&
	       engine->pinned_bytes + a->block_bytes <= engine_capacity_bytes(engine) / 4;
}

/* Against the usage of now: puts under way reserve nothing, so a space may pass its quota by what is under way. */
static enum hr_reason
quota_ask(struct engine *engine, const struct engine_put_args *a)
{
	const struct space_row *s = a->space;

	if (s->quota_bytes != 0 && s->usage_bytes + a->block_bytes > s->quota_bytes) {
		struct found old;
		uint8_t reason;
		bool exists = record_find(engine, s, a->id, &old, &reason);

		/* A duplicate adds nothing, and what is replaced goes. */
		if (!exists) {
			reason_note(engine->reasons, old.key.hash, HR_REASON_QUOTA);
		}
		if (!exists || (a->replace && s->usage_bytes - old.block_bytes + a->block_bytes >
						  s->quota_bytes)) {
			return HR_REASON_QUOTA;
		}
	}
	return a->pinned && !pin_fits(engine, a) ? HR_REASON_QUOTA : HR_REASON_NONE;
}

static enum hr_reason
begin_refuse(struct engine *engine, enum hr_reason reason)
{
	engine->stat.put_refused[reason]++;
	return reason;
}

enum hr_reason
engine_put_begin(struct engine *engine, const struct engine_put_args *args,
		 struct engine_put **ret_put)
{
	struct engine_put *put;
	enum hr_reason reason;
	uint16_t key_bytes = args->part == 0 ? args->key_bytes : 0;

	if (!geometry_ok(engine, args)) {
		return begin_refuse(engine, HR_REASON_SIZE);
	}
	if (engine->failed != 0) {
		return begin_refuse(engine, HR_REASON_DOWN);
	}
	if (engine->state != ENGINE_READY || engine->stat.puts_now >= engine->options.puts_max ||
	    engine->appends_waiting_count >= ENGINE_APPENDS_WAITING_MAX) {
		return begin_refuse(engine, HR_REASON_BUSY);
	}
	reason = quota_ask(engine, args);
	if (reason != HR_REASON_NONE) {
		return begin_refuse(engine, reason);
	}
	put = calloc(1, sizeof(*put) + key_bytes);
	if (put == NULL) {
		return begin_refuse(engine, HR_REASON_BUSY);
	}
	put->engine = engine;
	put->args = *args;
	if (cache_new(engine->cache, engine_tenant_number(engine, args->space->tenant),
		      args->stored_bytes, &put->entry) != 0) {
		free(put);
		return begin_refuse(engine, HR_REASON_BUSY);
	}
	if (args->parent != NULL) {
		memcpy(put->parent, args->parent, sizeof(put->parent));
		put->args.parent = put->parent;
	}
	if (key_bytes > 0) {
		memcpy(put->key, args->key, key_bytes);
	}
	put->args.key = put->key;
	put->args.key_bytes = key_bytes;
	if (args->crcs_count > 0) {
		memcpy(put->crcs, args->crcs, args->crcs_count * sizeof(put->crcs[0]));
	}
	put->args.crcs = put->crcs;
	put->iov_count = arena_iov_slice(&put->entry->buf, 0, args->stored_bytes, put->iov);
	list_init(&put->link);
	args->space->used = true;
	engine->async_now++;
	engine->stat.puts_now++;
	engine->stat.puts_high = HR_MAX(engine->stat.puts_high, engine->stat.puts_now);
	*ret_put = put;
	return HR_REASON_NONE;
}

const struct iovec *
engine_put_iov(const struct engine_put *put, unsigned *ret_count)
{
	*ret_count = put->iov_count;
	return put->iov;
}

void
engine_put_abort(struct engine *engine, struct engine_put *put)
{
	HR_ASSERT(put->engine == engine && put->cb == NULL);
	engine_part_refused(engine, &put->args);
	put_free(put);
}

/* ---- who wins ---- */

/* m: of a block of many parts. */
static struct desc
desc_make(const struct engine_put *put, const struct multi *m, uint8_t kind)
{
	const struct engine_put_args *a = &put->args;
	struct desc d = {
		.kind = kind,
		.class_hint = a->class_hint,
		.route = a->route,
		.position = a->position,
		.space_number = a->space->number,
		.space_generation = a->space->generation,
		.flags = a->pinned ? DESC_FLAG_PINNED : 0,
		.expiry_ms = a->ttl_ms == 0 ? 0 : io_wall_ms(put->engine->io) + a->ttl_ms,
		.put_number = m != NULL ? m->log_number : 0,
		.block_bytes = a->block_bytes,
		.part = a->part,
		.parts_count = a->parts_count,
		.cost_hint_us = a->cost_hint_us,
	};

	memcpy(d.id, a->id, sizeof(d.id));
	if (a->parent != NULL) {
		memcpy(d.parent, a->parent, sizeof(d.parent));
	}
	if (kind == DESC_VALUE) {
		d.logical_bytes = a->stored_bytes;
		d.stored_bytes = a->stored_bytes;
		d.crcs_count = a->crcs_count;
		d.key_bytes = a->part == 0 ? a->key_bytes : 0;
	}
	return d;
}

static void
on_record_stable(struct pending *pending, int rc)
{
	put_answer(pending->on_stable_arg, rc == 0 ? HR_STATUS_OK : HR_STATUS_REFUSED,
		   rc == 0 ? HR_REASON_NONE : HR_REASON_DOWN);
}

static void
on_flushed(void *arg, int rc)
{
	struct engine_put *put = arg;

	if (rc != 0 && rc != -ECANCELED) {
		engine_fail(put->engine, rc);
	}
	put_answer(arg, rc == 0 ? HR_STATUS_OK : HR_STATUS_REFUSED,
		   rc == 0 ? HR_REASON_NONE : HR_REASON_DOWN);
}

/* A sealed segment is stable (segment.h, L2). */
static bool
place_stable(struct engine *engine, place_t place)
{
	struct segment_info info;

	if (place_pending(engine, place) != NULL) {
		return false;
	}
	log_segment_info(engine->log, place_segment(engine, place), &info);
	return info.state == SEG_SEALED;
}

static bool
found_stable(struct engine *engine, const struct found *found)
{
	if (found->multi == NULL) {
		return place_stable(engine, found->entry.place);
	}
	return false; /* Its commit may be in an open segment: ask the log. */
}

/* The key is there: its bytes stay, and the answer waits until they have reached the level asked for. */
static void
put_duplicate(struct engine_put *put, struct found *found, bool differs)
{
	struct engine *engine = put->engine;

	put->result.duplicate = true;
	put->result.differs = differs;
	for (uint16_t i = 0; i < (found->multi != NULL ? found->multi->parts_count : 1); i++) {
		record_touch(engine, found, i);
	}
	if (put->multi != NULL) {
		multi_kill_held(engine, put->multi);
		multi_unref(engine, put->multi);
		put->multi = NULL;
	}
	if (put->args.ack >= HR_ACK_STABLE && !found_stable(engine, found)) {
		log_flush(engine->log, on_flushed, put);
		return;
	}
	put_answer(put, HR_STATUS_OK, HR_REASON_NONE);
}

static void put_decide(struct engine_put *put);
static void put_publish(struct engine_put *put, struct found *old);

/* -- unfinished blocks, by PUT number folded with the id -- */

static uint64_t
held_number(const struct engine_put_args *a)
{
	return a->put_number ^ get_le64(a->id);
}

/* The part is one of its, and has not come before. */
static bool
held_wants(const struct multi *m, const struct engine_put_args *a)
{
	return m->put_number == a->put_number && memcmp(m->id, a->id, 16) == 0 &&
	       m->space_number == a->space->number && m->parts_count == a->parts_count &&
	       m->block_bytes == a->block_bytes && m->owner == a->owner &&
	       m->parts[a->part].place == PLACE_NONE;
}

/* One of its parts came and was refused, or never comes: it is dead, and is remembered for the parts that still come. */
static void
held_part_lost(struct engine *engine, struct multi *m)
{
	m->parts_held++;
	if (!m->dead) {
		multi_cancel(engine, m);
	} else if (m->parts_held == m->parts_count) {
		multi_forget(engine, m);
	}
}

static struct multi *held_create(struct engine *engine, const struct engine_put_args *a);

void
engine_part_refused(struct engine *engine, const struct engine_put_args *args)
{
	struct multi *m;

	if (args->parts_count < 2 || !geometry_ok(engine, args)) {
		return;
	}
	m = hashmap_get_ptr(&engine->held, held_number(args));
	if (m == NULL) {
		/* The first part that is heard of: the others are not to wait for it. */
		m = held_create(engine, args);
		if (m != NULL) {
			m->dead = true;
			m->parts_held = 1;
		}
	} else if (held_wants(m, args)) {
		held_part_lost(engine, m);
	}
}

/* The block that it is a part of cannot be complete any more. */
static void
put_refuse(struct engine_put *put, enum hr_reason reason)
{
	struct multi *m = put->multi;

	if (m == NULL) {
		engine_part_refused(put->engine, &put->args);
	} else if (!m->dead && !m->live) {
		multi_kill_held(put->engine, m);
	}
	put_answer(put, HR_STATUS_REFUSED, reason);
}

/* The block under this tag that may be the put's, perhaps one that has expired and found no room for its tombstone. False: there is
 * none but those known to be others. */
static bool
rival_find(struct engine_put *put, struct found *ret)
{
	struct engine *engine = put->engine;
	const struct engine_put_args *a = &put->args;
	uint32_t cursor = 0;
	uint8_t reason;

	(void)record_find(engine, a->space, a->id, ret, &reason);
	while (record_find_next(engine, a->space, a->id, ret, &cursor)) {
		if (!get_was_tried(&put->get, ret->entry.place)) {
			return true;
		}
	}
	return false;
}

/* The block that has the tag was read: it is this key's, with other bytes, and the put is a duplicate or takes its place; or it is another
 * block's, or gone by now, and the put is decided anew. Of a read that was not done nothing is known: two blocks of one key must not stand side
 * by side. */
static void
identity_known(struct engine_put *put)
{
	struct engine *engine = put->engine;
	uint8_t reason = put->get.reason;
	struct found found;
	bool known;

	if (put->get.status != HR_STATUS_OK) {
		if (reason == HR_REASON_BUSY || reason == HR_REASON_DOWN) {
			put_refuse(put, reason);
		} else {
			put_decide(put);
		}
		return;
	}
	known = (put->multi == NULL || !put->multi->dead) &&
		record_find_identified(engine, &put->get, &found) &&
		!record_expired(engine, &found);
	engine_get_done(engine, &put->get);
	if (!known) {
		put_decide(put);
	} else if (put->args.replace) {
		put_publish(put, &found);
	} else {
		put_duplicate(put, &found, true);
	}
}

static void
on_identity_read(struct engine_get *get)
{
	identity_known(container_of(get, struct engine_put, get));
}

/* Only the bytes of what has the tag tell whose it is. */
static void
identity_read(struct engine_put *put)
{
	put->get = (struct engine_get){
		.space = put->args.space,
		.part = 0,
		.block_bytes = UINT64_MAX,
		.cb = on_identity_read,
	};
	memcpy(put->get.id, put->args.id, sizeof(put->get.id));
	if (engine_get(put->engine, &put->get)) {
		identity_known(put);
	}
}

/* The key has a block already, or another key's block has its tag: answers, now or later. */
static void
duplicate_check(struct engine_put *put, struct found *found)
{
	struct engine *engine = put->engine;
	const struct engine_put_args *a = &put->args;
	uint32_t check;
	bool exact = place_pending(engine, found->entry.place) != NULL;

	if (put->multi != NULL || found->multi != NULL) {
		bool same = put->multi != NULL && found->multi != NULL &&
			    put->multi->block_bytes == found->multi->block_bytes;

		for (uint16_t i = 0; same && i < put->multi->parts_count; i++) {
			same = put->multi->parts[i].check == found->multi->parts[i].check;
		}
		if (same || exact) {
			put_duplicate(put, found, !same);
			return;
		}
	} else {
		check = index_check_make(a->space->number, a->space->generation, a->id, 0,
					 a->stored_bytes, a->crcs, a->crcs_count);
		if (check == found->entry.check && a->stored_bytes == found->entry.bytes) {
			put_duplicate(put, found, false);
			return;
		}
		if (exact) {
			put_duplicate(put, found, true);
			return;
		}
	}
	identity_read(put); /* Other bytes, or another block. */
}

/* ---- publication ---- */

static uint8_t
entry_flags(const struct engine_put_args *a, uint64_t expiry_ms)
{
	return (uint8_t)((a->pinned ? INDEX_FLAG_PINNED : 0) |
			 (a->parts_count > 1 ? INDEX_FLAG_MULTIPART : 0) |
			 (expiry_ms != 0 ? INDEX_FLAG_TTL : 0));
}

/* A record that others of its id may lie behind says up to which segment. Those that were deleted lately are among them: their tombstone may be
 * in the last unit of another segment, and be lost with the power when this record is already stable. */
static uint64_t
horizon_of(const struct engine *engine, const struct index_key *key, const struct found *old)
{
	uint8_t reason = reason_find(engine->reasons, key->hash);
	bool ended = reason != HR_REASON_NONE && reason != HR_REASON_EVICTED;

	return old != NULL || ended || reclaim_evicted(engine, key->hash)
		   ? log_generation_newest(engine->log)
		   : 0;
}

/* All memory that a publication needs, before anything is changed or written; the entry is in the index, but nobody looks before the
 * caller has filled it in or taken it out again. */
static bool
publication_reserve(struct engine *engine, const struct index_key *key,
		    const struct index_entry *entry, uint64_t expiry_ms, bool *ret_expiry_made)
{
	uint64_t before;

	/* The old block of the key may have one, which stays as it is until then. */
	*ret_expiry_made = expiry_ms != 0 && !expiry_get(engine, key, &before);
	if (*ret_expiry_made && expiry_put(engine, key, expiry_ms) != 0) {
		return false;
	}
	if (hashmap_reserve(&engine->multis, engine->multis.count + 1) != 0 ||
	    index_insert(engine->index, key, entry) != 0) {
		if (*ret_expiry_made) {
			expiry_remove(engine, key);
		}
		return false;
	}
	return true;
}

static void
publication_cancel(struct engine *engine, const struct index_key *key,
		   const struct index_entry *entry, bool expiry_made)
{
	HR_ASSERT(index_remove(engine->index, key, entry->place));
	if (expiry_made) {
		expiry_remove(engine, key);
	}
}

/* The old block of the key goes, if there is one, and the new one counts. Needs no memory after publication_reserve(). */
static void
published(struct engine_put *put, const struct index_key *key, struct found *old, uint64_t expiry_ms)
{
	struct engine *engine = put->engine;
	const struct engine_put_args *a = &put->args;

	if (old != NULL) {
		old->entry.flags &= (uint8_t)~INDEX_FLAG_TTL; /* Its expiry is changed below. */
		record_kill(engine, old, HR_REASON_NONE);
		engine->stat.replaces++;
	}
	if (expiry_ms != 0) {
		HR_ASSERT(expiry_put(engine, key, expiry_ms) == 0);
	} else {
		expiry_remove(engine, key);
	}
	reason_forget(engine->reasons, key->hash);
	block_account(engine, a->space->number, a->space->generation, (int64_t)a->block_bytes, 1,
		      a->pinned);
	a->space->puts++;
	engine->stat.puts++;
}

static struct pending *
value_pending(struct engine_put *put, const struct multi *m, uint64_t birth)
{
	struct engine *engine = put->engine;
	struct desc desc = desc_make(put, m, DESC_VALUE);
	struct pending *p;

	desc.birth = birth;
	if (pending_create(engine, &desc, put->key, put->crcs, &p) != 0) {
		return NULL;
	}
	p->class = put->args.pinned ? CLASS_PINNED : CLASS_FRESH;
	p->entry = put->entry;
	cache_ref(p->entry);
	return p;
}

/* The value goes into the log and, by its place, into the DRAM tier. */
static bool
value_append(struct engine_put *put, struct pending *p, const struct index_key *key)
{
	struct engine *engine = put->engine;

	if (pending_append(p) != 0) {
		p->on_stable = NULL;
		pending_destroy(p);
		return false;
	}
	put->entry->block_bytes = put->args.block_bytes;
	put->entry->birth = p->rec.desc.birth;
	put->entry->expiry_ms = p->rec.desc.expiry_ms;
	put->entry->part = put->args.part;
	put->entry->parts_count = put->args.parts_count;
	cache_publish(engine->cache, put->entry, PLACE_PENDING | p->slot, key->hash);
	engine->stat.payload_bytes += (uint64_t)p->pages * ENGINE_PAGE_BYTES;
	return true;
}

/* A block of one part. False: no room in the log yet. */
static bool
put_single(struct engine_put *put, struct found *old)
{
	struct engine *engine = put->engine;
	const struct engine_put_args *a = &put->args;
	uint64_t birth = log_birth_next(engine->log);
	struct pending *p = value_pending(put, NULL, birth);
	struct index_key key =
	    index_key_make(engine->index, a->space->number, a->space->generation, a->id, 0);
	struct index_entry entry;
	bool expiry_made;

	if (p == NULL) {
		return false;
	}
	p->rec.desc.horizon = horizon_of(engine, &key, old);
	if (a->ack >= HR_ACK_STABLE) {
		p->rec.want_stable = true;
		p->on_stable = on_record_stable;
		p->on_stable_arg = put;
	}
	entry = (struct index_entry){
		.place = PLACE_PENDING | p->slot,
		.bytes = a->stored_bytes,
		.check = index_check_make(a->space->number, a->space->generation, a->id, 0,
					  a->stored_bytes, a->crcs, a->crcs_count),
		.flags = entry_flags(a, p->rec.desc.expiry_ms),
	};
	if (!publication_reserve(engine, &key, &entry, p->rec.desc.expiry_ms, &expiry_made)) {
		p->on_stable = NULL;
		pending_destroy(p);
		put_answer(put, HR_STATUS_REFUSED, HR_REASON_BUSY);
		return true;
	}
	if (!value_append(put, p, &key)) {
		publication_cancel(engine, &key, &entry, expiry_made);
		return false;
	}
	published(put, &key, old, p->rec.desc.expiry_ms);
	entry.recency = engine->policy->insert(engine->evict, p->rec.segment, p->pages);
	HR_ASSERT(index_update(engine->index, &key, entry.place, &entry));
	put->result.birth = birth;
	if (a->ack < HR_ACK_STABLE) {
		put_answer(put, HR_STATUS_OK, HR_REASON_NONE);
	}
	return true;
}

/* All parts are there: the commit record decides. False: no room yet. */
static bool
put_commit_parts(struct engine_put *put, struct found *old)
{
	struct engine *engine = put->engine;
	struct multi *m = put->multi;
	struct desc desc = desc_make(put, m, DESC_COMMIT);
	struct index_key key =
	    index_key_make(engine->index, m->space_number, m->space_generation, m->id, 0);
	struct index_entry entry = {
		.place = m->parts[0].place,
		.bytes = engine->slice.part_bytes,
		.check = m->parts[0].check,
		.flags = entry_flags(&put->args, m->expiry_ms),
	};
	struct pending *p;
	bool expiry_made;

	desc.birth = log_birth_next(engine->log);
	desc.expiry_ms = m->expiry_ms;
	desc.part = 0;
	desc.horizon = horizon_of(engine, &key, old);
	if (pending_create(engine, &desc, NULL, NULL, &p) != 0) {
		return false;
	}
	if (!publication_reserve(engine, &key, &entry, m->expiry_ms, &expiry_made)) {
		pending_destroy(p);
		put_refuse(put, HR_REASON_BUSY);
		return true;
	}
	p->class = put->args.pinned ? CLASS_PINNED : CLASS_FRESH;
	if (pending_append(p) != 0) {
		publication_cancel(engine, &key, &entry, expiry_made);
		pending_destroy(p);
		return false;
	}
	(void)hashmap_remove(&engine->held, m->put_number ^ get_le64(m->id), NULL);
	list_del(&m->link);
	list_init(&m->link);
	m->owner->unfinished_count--;
	m->owner = NULL;
	published(put, &key, old, m->expiry_ms);
	m->hash = key.hash;
	m->birth = desc.birth;
	m->horizon = desc.horizon;
	m->live = true;
	for (uint16_t i = 0; i < m->parts_count; i++) {
		multi_unhold(engine, m, i);
		m->parts[i].recency =
		    engine->policy->insert(engine->evict, place_segment(engine, m->parts[i].place),
					   value_pages(multi_part_bytes(engine, m, i)));
	}
	HR_ASSERT(hashmap_put_ptr(&engine->multis, key.hash, m) == 0);
	engine->stat.multipart_now++;
	put->result.birth = desc.birth;
	multi_unref(engine, put->multi); /* The map keeps the first reference. */
	put->multi = NULL;
	if (put->args.ack >= HR_ACK_STABLE) {
		log_flush(engine->log, on_flushed, put);
	} else {
		put_answer(put, HR_STATUS_OK, HR_REASON_NONE);
	}
	return true;
}

/* ---- parts ---- */

/* The block that an owner began first goes; the parts of it that still come begin another one, which will never be whole. */
static void
oldest_unfinished_drop(struct engine *engine, struct engine_owner *owner)
{
	struct multi *m = list_first_entry(&owner->unfinished, struct multi, link);

	if (m != NULL && m->dead) {
		multi_forget(engine, m);
	} else if (m != NULL) {
		multi_kill_held(engine, m);
	}
}

/* Who begins blocks and does not end them would fill DRAM: an owner has UNFINISHED_MAX, all of them puts_max, at the cost of whoever
 * has the most. */
static void
held_room(struct engine *engine, struct engine_owner *owner)
{
	struct engine_owner *other;

	if (owner->unfinished_count < UNFINISHED_MAX) {
		if (engine->held.count < engine->options.puts_max) {
			return;
		}
		list_for_each_entry(other, &engine->owners, link) {
			owner = other->unfinished_count > owner->unfinished_count ? other : owner;
		}
	}
	oldest_unfinished_drop(engine, owner);
}

static struct multi *
held_create(struct engine *engine, const struct engine_put_args *a)
{
	struct engine_owner *owner = a->owner;
	struct multi *m;

	held_room(engine, owner);
	m = multi_create(a->parts_count);
	if (m == NULL || hashmap_put_ptr(&engine->held, held_number(a), m) != 0) {
		free(m);
		return NULL;
	}
	m->owner = owner;
	m->space_number = a->space->number;
	m->space_generation = a->space->generation;
	memcpy(m->id, a->id, 16);
	m->put_number = a->put_number;
	/* A caller may use a number again, and two callers the same one: a start would mix their parts. Births are given once. */
	m->log_number = log_birth_next(engine->log);
	m->block_bytes = a->block_bytes;
	m->expiry_ms = a->ttl_ms == 0 ? 0 : io_wall_ms(engine->io) + a->ttl_ms;
	list_add_tail(&owner->unfinished, &m->link);
	owner->unfinished_count++;
	return m;
}

/* The unfinished block that the part belongs to; the first part makes it. NULL: there is none to which it fits, for *ret_reason. */
static struct multi *
held_find(struct engine_put *put, enum hr_reason *ret_reason)
{
	struct engine *engine = put->engine;
	const struct engine_put_args *a = &put->args;
	struct multi *m = hashmap_get_ptr(&engine->held, held_number(a));

	*ret_reason = HR_REASON_BUSY;
	if (m == NULL) {
		return held_create(engine, a);
	}
	if (!held_wants(m, a)) {
		*ret_reason = HR_REASON_SIZE;
		return NULL;
	}
	/* A part of it was refused, or the space was dropped meanwhile. */
	if (m->dead || m->space_generation != a->space->generation) {
		held_part_lost(engine, m);
		return NULL;
	}
	return m;
}

/* One part of many goes into the log. False: no room yet. */
static bool
put_part(struct engine_put *put)
{
	struct engine *engine = put->engine;
	const struct engine_put_args *a = &put->args;
	enum hr_reason reason;
	struct multi *m = held_find(put, &reason);
	struct pending *p;
	struct index_key key;

	if (m == NULL) {
		put_answer(put, HR_STATUS_REFUSED, reason);
		return true;
	}
	p = value_pending(put, m, 0);
	if (p == NULL) {
		return false;
	}
	p->multi = m;
	m->refs++;
	key = index_key_make(engine->index, a->space->number, a->space->generation, a->id, a->part);
	if (!value_append(put, p, &key)) {
		return false;
	}
	m->parts[a->part].place = PLACE_PENDING | p->slot;
	m->parts[a->part].check = index_check_make(a->space->number, a->space->generation, a->id,
						   a->part, a->stored_bytes, a->crcs, a->crcs_count);
	engine->seg_holds[p->rec.segment]++;
	if (++m->parts_held < m->parts_count) {
		put->result.held = true;
		put_answer(put, HR_STATUS_OK, HR_REASON_NONE);
		return true;
	}
	put->multi = m;
	m->refs++;
	return false; /* The block is to be decided. */
}

/* ---- the way through ---- */

static bool
multi_holds(struct engine *engine, const struct multi *m, uint32_t segment)
{
	for (uint16_t i = 0; i < m->parts_count && !m->dead; i++) {
		if (m->parts[i].place != PLACE_NONE && place_stable(engine, m->parts[i].place) &&
		    place_segment(engine, m->parts[i].place) == segment) {
			return true;
		}
	}
	return false;
}

/* Unfinished blocks keep the segments of their parts from being victims. Where no other segment is left, those of one segment have
 * to go: of that which the fewest hold. */
static void
holds_break(struct engine *engine)
{
	uint32_t best = UINT32_MAX, count = 0;
	struct segment_info info;
	struct hashmap_slot *slot;
	struct multi **broken;
	size_t pos;

	for (uint32_t i = 0; i < engine->slice.segments_count; i++) {
		log_segment_info(engine->log, i, &info);
		if (info.state == SEG_SEALED && engine->seg_holds[i] > 0 &&
		    (best == UINT32_MAX || engine->seg_holds[i] < engine->seg_holds[best])) {
			best = i;
		}
	}
	broken = best != UINT32_MAX ? malloc(engine->seg_holds[best] * sizeof(*broken)) : NULL;
	if (broken == NULL) {
		return;
	}
	/* Found first: the map may change with each that goes. */
	hashmap_for_each(&engine->held, pos, slot) {
		struct multi *m = (void *)(uintptr_t)slot->value;

		if (multi_holds(engine, m, best)) {
			broken[count++] = m;
		}
	}
	for (uint32_t i = 0; i < count; i++) {
		multi_cancel(engine, broken[i]);
	}
	free(broken);
}

static void
on_retry(void *arg)
{
	struct engine *engine = arg;
	struct engine_put *first;
	uint64_t now_us = io_now_us(engine->io);

	reclaim_retry(engine);
	appends_retry(engine);
	reclaim_kick(engine);
	first = list_first_entry(&engine->appends_waiting, struct engine_put, link);
	if (first != NULL && reclaim_idle(engine) && now_us - first->waits_since_us > HOLDS_WAIT_US) {
		holds_break(engine);
	}
	if (first != NULL && now_us - first->waits_since_us > ROOM_WAIT_US) {
		list_del(&first->link);
		engine->appends_waiting_count--;
		put_refuse(first, HR_REASON_BUSY);
	}
	if (!list_empty(&engine->appends_waiting) || !reclaim_idle(engine)) {
		retry_start(engine);
	}
}

/* Room in the log is announced; that memory is free again, or that a segment may be a victim now, is not. */
void
retry_start(struct engine *engine)
{
	if (engine->retry.heap_idx == 0) {
		io_timer_set(engine->io, &engine->retry, io_now_us(engine->io) + RETRY_US, on_retry,
			     engine);
	}
}

static void
put_wait(struct engine_put *put)
{
	struct engine *engine = put->engine;

	if (engine->failed != 0 || engine->state != ENGINE_READY) {
		put_answer(put, HR_STATUS_REFUSED, HR_REASON_DOWN);
		return;
	}
	put->waits_since_us = put->waits_since_us != 0 ? put->waits_since_us : io_now_us(engine->io);
	list_add(&engine->appends_waiting, &put->link);
	engine->appends_waiting_count++;
	retry_start(engine);
	reclaim_kick(engine);
}

/* Takes the place of the old block, if there is one, or waits for room. */
static void
put_publish(struct engine_put *put, struct found *old)
{
	if (put->args.pinned && !pin_fits(put->engine, &put->args)) {
		put_refuse(put, HR_REASON_QUOTA); /* Others were quicker. */
		return;
	}
	if (!(put->multi != NULL ? put_commit_parts(put, old) : put_single(put, old))) {
		put_wait(put);
	}
}

static void
put_decide(struct engine_put *put)
{
	struct engine *engine = put->engine;
	const struct engine_put_args *a = &put->args;
	struct found found;
	bool exists;

	if (engine->failed != 0 || engine->state != ENGINE_READY) {
		put_answer(put, HR_STATUS_REFUSED, HR_REASON_DOWN);
		return;
	}
	if (a->parts_count > 1 && put->multi == NULL) {
		if (put_part(put)) {
			return;
		}
		if (put->multi == NULL) {
			put_wait(put);
			return;
		}
	}
	if (a->space->drops_pending > 0 && a->ack >= HR_ACK_STABLE) {
		put_refuse(put, HR_REASON_BUSY);
		return;
	}
	if (put->multi != NULL && put->multi->dead) {
		put_answer(put, HR_STATUS_REFUSED,
			   HR_REASON_BUSY); /* Its owner went, or its segments were needed. */
		return;
	}
	if (put->multi != NULL && put->multi->space_generation != a->space->generation) {
		put_refuse(put, HR_REASON_BUSY); /* The space was dropped meanwhile. */
		return;
	}
	exists = rival_find(put, &found);
	if (exists && !a->replace && !record_expired(engine, &found)) {
		duplicate_check(put, &found);
		return;
	}
	if (exists && a->replace && put->get.tried_count == 0 &&
	    record_ambiguous(engine, &found, a->space, a->id)) {
		identity_read(put);
		return;
	}
	put_publish(put, exists ? &found : NULL);
}

void
engine_put_commit(struct engine *engine, struct engine_put *put, engine_put_cb cb, void *arg)
{
	uint32_t crcs[ENGINE_CRCS_MAX];

	put->cb = cb;
	put->arg = arg;
	crc32c_chunks(put->iov, put->iov_count, engine->slice.chunk_bytes, crcs);
	if (memcmp(crcs, put->crcs, put->args.crcs_count * sizeof(crcs[0])) != 0) {
		engine->stat.crc_failures++;
		put_refuse(put, HR_REASON_CORRUPT);
		return;
	}
	arena_buf_pad(&put->entry->buf);
	memcpy(put->entry->crcs, crcs, put->args.crcs_count * sizeof(crcs[0]));
	if (!list_empty(&engine->appends_waiting)) {
		put->waits_since_us = io_now_us(engine->io);
		list_add_tail(&engine->appends_waiting, &put->link);
		engine->appends_waiting_count++;
		return;
	}
	put_decide(put);
}

/* The log has room: those that wait go on, in their order, until it has none. */
void
appends_retry(struct engine *engine)
{
	while (!list_empty(&engine->appends_waiting)) {
		struct engine_put *put =
		    list_pop_entry(&engine->appends_waiting, struct engine_put, link);
		uint32_t waiting = --engine->appends_waiting_count;

		list_init(&put->link);
		put_decide(put);
		if (engine->appends_waiting_count > waiting) {
			return; /* It went back to the head. */
		}
	}
}

/* The owner of these parts goes. */
void
puts_owner_gone(struct engine *engine, const struct engine_owner *owner)
{
	struct engine_put *put, *next;

	list_for_each_entry_safe(put, next, &engine->appends_waiting, link) {
		if (put->args.owner == owner && put->args.parts_count > 1) {
			list_del(&put->link);
			engine->appends_waiting_count--;
			put_answer(put, HR_STATUS_REFUSED, HR_REASON_CANCELLED);
		}
	}
}

bool
put_shed(struct engine *engine)
{
	struct engine_put *put = list_last_entry(&engine->appends_waiting, struct engine_put, link);

	if (put == NULL) {
		return false;
	}
	list_del(&put->link);
	engine->appends_waiting_count--;
	put_refuse(put, HR_REASON_BUSY);
	return true;
}

void
puts_fail_all(struct engine *engine)
{
	while (!list_empty(&engine->appends_waiting)) {
		struct engine_put *put =
		    list_pop_entry(&engine->appends_waiting, struct engine_put, link);

		engine->appends_waiting_count--;
		put_answer(put, HR_STATUS_REFUSED, HR_REASON_DOWN);
	}
}
