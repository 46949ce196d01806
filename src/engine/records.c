/* records.c — what is live, what is pending, and blocks of many parts: the book-keeping that PUT, GET and reclaim share. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "engine/engine_impl.h"

/* ---- Places ---- */

place_t
place_make(const struct engine *engine, uint32_t segment, uint32_t value_off)
{
	return (uint64_t)segment * (engine->slice.segment_bytes / ENGINE_PAGE_BYTES) +
	       value_off / ENGINE_PAGE_BYTES;
}

struct pending *
place_pending(const struct engine *engine, place_t place)
{
	uint64_t slot = place & ~PLACE_PENDING;

	if ((place & PLACE_PENDING) == 0) {
		return NULL;
	}
	HR_ASSERTF(slot < engine->slots_count && engine->slots[slot] != NULL, "slot %llu",
		   (unsigned long long)slot);
	return engine->slots[slot];
}

uint32_t
place_segment(const struct engine *engine, place_t place)
{
	struct pending *pending = place_pending(engine, place);

	if (pending != NULL) {
		return pending->rec.segment;
	}
	return (uint32_t)(place / (engine->slice.segment_bytes / ENGINE_PAGE_BYTES));
}

uint32_t
place_value_off(const struct engine *engine, place_t place)
{
	return (uint32_t)(place % (engine->slice.segment_bytes / ENGINE_PAGE_BYTES)) *
	       ENGINE_PAGE_BYTES;
}

/* ---- TTLs ----
 *
 * An entry's place are those 34 bits of the hash that hold what is not in the tag; the time is in its check and length, 54 bits. */

enum { EXPIRY_PLACE_BITS = 34, EXPIRY_BITS = 54 };

static place_t
expiry_place(const struct index_key *key)
{
	return key->hash & ((UINT64_C(1) << EXPIRY_PLACE_BITS) - 1);
}

bool
expiry_get(const struct engine *engine, const struct index_key *key, uint64_t *ret_ms)
{
	struct index_entry entry;
	uint32_t cursor = 0;

	while (engine->expiries != NULL && index_next(engine->expiries, key, &cursor, &entry)) {
		if (entry.place == expiry_place(key)) {
			*ret_ms = (uint64_t)entry.bytes << 32 | entry.check;
			return true;
		}
	}
	return false;
}

int
expiry_put(struct engine *engine, const struct index_key *key, uint64_t ms)
{
	struct index_entry entry = { .place = expiry_place(key) };

	ms = HR_MIN(ms, (UINT64_C(1) << EXPIRY_BITS) - 1);
	entry.bytes = (uint32_t)(ms >> 32);
	entry.check = (uint32_t)ms;
	/* Keys are the other index's, so it needs no seed of its own. */
	if (engine->expiries == NULL && index_create(0, &engine->expiries) != 0) {
		return -ENOMEM;
	}
	return index_update(engine->expiries, key, entry.place, &entry)
		   ? 0
		   : index_insert(engine->expiries, key, &entry);
}

void
expiry_remove(struct engine *engine, const struct index_key *key)
{
	if (engine->expiries != NULL) {
		(void)index_remove(engine->expiries, key, expiry_place(key));
	}
}

/* ---- Finding ---- */

bool
record_expired(const struct engine *engine, const struct found *found)
{
	return found->expiry_ms != 0 && found->expiry_ms <= io_wall_ms(engine->io);
}

/* Fills in what the index does not hold. False: it is another block's with the same tag. Of a value on flash only its bytes can tell, unless it
 * has none. */
static bool
found_complete(struct engine *engine, struct found *found, const uint8_t id[16])
{
	found->multi = NULL;
	found->block_bytes = found->entry.bytes;
	found->expiry_ms = 0;
	if ((found->entry.flags & INDEX_FLAG_TTL) != 0 &&
	    !expiry_get(engine, &found->key, &found->expiry_ms)) {
		return false;
	}
	if ((found->entry.flags & INDEX_FLAG_MULTIPART) != 0) {
		found->multi = hashmap_get_ptr(&engine->multis, found->key.hash);
		if (found->multi == NULL || found->multi->parts[0].place != found->entry.place) {
			return false;
		}
		found->block_bytes = found->multi->block_bytes;
	} else if (found->entry.bytes == 0) {
		return found->entry.check == index_check_make(found->space_number,
							      found->space_generation, id, 0, 0,
							      NULL, 0);
	}
	return true;
}

bool
record_find_next(struct engine *engine, const struct space_row *space, const uint8_t id[16],
		 struct found *found, uint32_t *cursor)
{
	while (index_next(engine->index, &found->key, cursor, &found->entry)) {
		struct pending *pending = place_pending(engine, found->entry.place);

		if (!found_complete(engine, found, id)) {
			continue;
		}
		if (pending != NULL && (memcmp(pending->rec.desc.id, id, 16) != 0 ||
					pending->rec.desc.space_number != space->number)) {
			continue;
		}
		return true;
	}
	return false;
}

bool
record_ambiguous(struct engine *engine, const struct found *found, const struct space_row *space,
		 const uint8_t id[16])
{
	struct found any = *found;
	uint32_t cursor = 0;
	unsigned count = 0;

	while (count < 2 && record_find_next(engine, space, id, &any, &cursor)) {
		count++;
	}
	return count == 2;
}

bool
record_find_identified(struct engine *engine, const struct engine_get *get, struct found *ret)
{
	const struct cache_entry *entry = get->entry;
	uint32_t cursor = 0;
	uint8_t reason;

	(void)record_find(engine, get->space, get->id, ret, &reason);
	while (record_find_next(engine, get->space, get->id, ret, &cursor)) {
		if (entry->findable ? ret->entry.place == entry->place
				    : !get_was_tried(get, ret->entry.place)) {
			return true;
		}
	}
	return false;
}

static void
expire(struct engine *engine, const struct space_row *space, struct found *found,
       const uint8_t id[16])
{
	/* Without room for the tombstone the block stays, unseen, until there is. */
	if (tombstone_append(engine, space, id, log_birth_next(engine->log),
			     log_generation_newest(engine->log), false, NULL, NULL) == 0) {
		engine->stat.expired++;
		record_kill(engine, found, HR_REASON_EXPIRED);
	}
}

bool
record_find(struct engine *engine, const struct space_row *space, const uint8_t id[16],
	    struct found *ret, uint8_t *ret_reason)
{
	uint32_t cursor = 0;

	ret->space_number = space->number;
	ret->space_generation = space->generation;
	ret->key = index_key_make(engine->index, space->number, space->generation, id, 0);
	if (!record_find_next(engine, space, id, ret, &cursor)) {
		*ret_reason = reason_find(engine->reasons, ret->key.hash);
		if (*ret_reason == HR_REASON_NONE) {
			*ret_reason = HR_REASON_ABSENT;
		}
		return false;
	}
	if (record_expired(engine, ret)) {
		expire(engine, space, ret, id);
		*ret_reason = HR_REASON_EXPIRED;
		return false;
	}
	*ret_reason = HR_REASON_NONE;
	return true;
}

/* ---- Use and death ---- */

static uint16_t
touch_place(struct engine *engine, place_t place, uint32_t bytes, uint16_t recency)
{
	return engine->policy->touch(engine->evict, place_segment(engine, place),
				     value_pages(bytes), recency);
}

uint32_t
multi_part_bytes(const struct engine *engine, const struct multi *multi, uint16_t part)
{
	uint64_t off = (uint64_t)part * engine->slice.part_bytes;

	return (uint32_t)HR_MIN(multi->block_bytes - off, (uint64_t)engine->slice.part_bytes);
}

void
record_touch(struct engine *engine, struct found *found, uint16_t part)
{
	struct multi_part *mp;

	if (found->multi != NULL) {
		mp = &found->multi->parts[part];
		mp->recency = touch_place(engine, mp->place,
					  multi_part_bytes(engine, found->multi, part), mp->recency);
		return;
	}
	uint16_t recency =
	    touch_place(engine, found->entry.place, found->entry.bytes, found->entry.recency);

	if (recency != found->entry.recency) {
		found->entry.recency = recency;
		HR_ASSERT(
		    index_update(engine->index, &found->key, found->entry.place, &found->entry));
	}
}

void
block_account(struct engine *engine, uint32_t space_number, uint32_t space_generation,
	      int64_t bytes, int blocks, bool pinned)
{
	struct space_row *row = space_by_number(engine->spaces, space_number);

	engine->stat.blocks += (uint64_t)(int64_t)blocks;
	engine->stat.bytes_live += (uint64_t)bytes;
	if (row == NULL || row->generation != space_generation) {
		return; /* A drop has set the usage to zero. */
	}
	row->usage_bytes += (uint64_t)bytes;
	row->usage_blocks += (uint64_t)(int64_t)blocks;
	if (pinned) {
		row->pinned_bytes += (uint64_t)bytes;
		engine->pinned_bytes += (uint64_t)bytes;
	}
}

static void
place_uncache(struct engine *engine, place_t place)
{
	struct pending *pending = place_pending(engine, place);

	if (pending != NULL && pending->entry != NULL) {
		cache_drop(engine->cache, pending->entry);
	} else {
		cache_drop_place(engine->cache, place);
	}
}

static void
place_kill(struct engine *engine, place_t place, uint32_t bytes, uint16_t recency)
{
	engine->policy->remove(engine->evict, place_segment(engine, place), value_pages(bytes),
			       recency);
	place_uncache(engine, place);
}

static void
multi_kill(struct engine *engine, struct multi *multi)
{
	(void)hashmap_remove(&engine->multis, multi->hash, NULL);
	multi->live = false;
	multi->dead = true;
	engine->stat.multipart_now--;
	for (uint16_t i = 0; i < multi->parts_count; i++) {
		place_kill(engine, multi->parts[i].place, multi_part_bytes(engine, multi, i),
			   multi->parts[i].recency);
	}
	multi_unref(engine, multi);
}

bool
record_at(struct engine *engine, uint32_t space_number, uint32_t space_generation,
	  const uint8_t id[16], uint16_t part, place_t place, struct found *ret)
{
	uint32_t cursor = 0;

	ret->space_number = space_number;
	ret->space_generation = space_generation;
	ret->key = index_key_make(engine->index, space_number, space_generation, id, 0);
	while (index_next(engine->index, &ret->key, &cursor, &ret->entry)) {
		if (!found_complete(engine, ret, id)) {
			continue;
		}
		if (ret->multi != NULL) {
			if (part < ret->multi->parts_count &&
			    ret->multi->parts[part].place == place) {
				return true;
			}
		} else if (part == 0 && ret->entry.place == place) {
			return true;
		}
	}
	return false;
}

void
record_kill(struct engine *engine, struct found *found, uint8_t reason)
{
	bool pinned = (found->entry.flags & INDEX_FLAG_PINNED) != 0;

	if (found->multi != NULL) {
		multi_kill(engine, found->multi);
	} else {
		place_kill(engine, found->entry.place, found->entry.bytes, found->entry.recency);
	}
	HR_ASSERT(index_remove(engine->index, &found->key, found->entry.place));
	if ((found->entry.flags & INDEX_FLAG_TTL) != 0) {
		expiry_remove(engine, &found->key);
	}
	block_account(engine, found->space_number, found->space_generation,
		      -(int64_t)found->block_bytes, -1, pinned);
	if (reason != HR_REASON_NONE) {
		reason_note(engine->reasons, found->key.hash, reason);
	}
}

/* The record has a new place: index and parts say so. Policy and cache are the caller's. */
void
record_move(struct engine *engine, struct found *found, uint16_t part, place_t place)
{
	place_t old = found->entry.place;

	if (found->multi != NULL) {
		found->multi->parts[part].place = place;
		if (part != 0) {
			return;
		}
	}
	found->entry.place = place;
	HR_ASSERT(index_update(engine->index, &found->key, old, &found->entry));
}

static bool
is_empty_value(const struct desc *d)
{
	return d->kind == DESC_VALUE && d->stored_bytes == 0;
}

static uint64_t
desc_hash(const struct engine *engine, const struct desc *d)
{
	return index_key_make(engine->index, d->space_number, d->space_generation, d->id, d->part)
	    .hash;
}

int
empties_find(struct engine *engine, const struct desc *descs, uint32_t descs_count,
	     struct hashmap *ret_last)
{
	for (uint32_t i = 0; i < descs_count; i++) {
		if (is_empty_value(&descs[i]) &&
		    hashmap_put(ret_last, desc_hash(engine, &descs[i]), i) != 0) {
			return -ENOMEM;
		}
	}
	return 0;
}

bool
empty_superseded(struct engine *engine, const struct hashmap *last, const struct desc *descs,
		 uint32_t i)
{
	uint64_t at = i;

	return is_empty_value(&descs[i]) && hashmap_get(last, desc_hash(engine, &descs[i]), &at) &&
	       at != i;
}

/* ---- Pending records ---- */

static void
pending_written(struct log_record *rec, int rc)
{
	struct pending *p = container_of(rec, struct pending, rec);
	struct engine *engine = p->engine;
	place_t old = PLACE_PENDING | p->slot;
	place_t now = PLACE_NONE;
	struct found found;
	bool live = false;

	if (rc == 0) {
		now = place_make(engine, rec->segment, rec->desc.value_off);
	} else if (rc !=
		   -ECANCELED) { /* What comes too late for a stop is not the device's failure. */
		engine_fail(engine, rc);
	}
	if (rec->desc.kind == DESC_VALUE && p->multi != NULL && !p->multi->live) {
		/* A part of a block that is not complete: the index does not know it yet. */
		live = !p->multi->dead && p->multi->parts[rec->desc.part].place == old;
		if (live && rc == 0) {
			p->multi->parts[rec->desc.part].place = now;
		} else if (live) {
			multi_kill_held(engine, p->multi);
		}
	} else if (rec->desc.kind == DESC_VALUE) {
		live = record_at(engine, rec->desc.space_number, rec->desc.space_generation,
				 rec->desc.id, rec->desc.part, old, &found);
		if (live && rc == 0) {
			record_move(engine, &found, rec->desc.part, now);
		} else if (live) {
			/* It was never on flash and will not be: the block is gone. */
			record_kill(engine, &found, HR_REASON_NONE);
			engine->stat.puts_lost++;
		}
	}
	if (p->entry != NULL) {
		if (live && rc == 0 && !p->transient) {
			cache_rename(engine->cache, p->entry, now);
		} else {
			cache_drop(engine->cache, p->entry);
		}
		cache_unref(engine->cache, p->entry);
		p->entry = NULL;
	}
	p->on_flash = true;
	/* From here on nothing in the index names the slot. */
	engine->slots[p->slot] = NULL;
	engine->slots_free[engine->slots_free_count++] = p->slot;
	if (!rec->want_stable) {
		pending_destroy(p);
	}
}

static void
pending_stable(struct log_record *rec, int rc)
{
	struct pending *p = container_of(rec, struct pending, rec);

	HR_ASSERT(p->on_flash); /* `written` came before, also when it failed. */
	if (rc != 0 && rc != -ECANCELED) {
		engine_fail(p->engine, rc);
	}
	if (p->on_stable != NULL) {
		p->on_stable(p, rc);
	}
	if (p->on_done != NULL) {
		p->on_done(p, rc);
	}
	pending_destroy(p);
}

int
pending_create(struct engine *engine, const struct desc *desc, const uint8_t *key,
	       const uint32_t *crcs, struct pending **ret_pending)
{
	struct pending *p;
	uint32_t slot;

	if (engine->slots_free_count == 0) {
		return -EAGAIN;
	}
	p = calloc(1, sizeof(*p) + desc->crcs_count * sizeof(uint32_t) + desc->key_bytes);
	if (p == NULL) {
		return -ENOMEM;
	}
	slot = engine->slots_free[--engine->slots_free_count];
	HR_ASSERT(engine->slots[slot] == NULL);
	engine->slots[slot] = p;
	p->slot = slot;
	p->engine = engine;
	p->rec.desc = *desc;
	p->pages = desc->kind == DESC_VALUE ? value_pages(desc->stored_bytes) : 0;
	p->key_copy = (uint8_t *)&p->crcs[desc->crcs_count];
	if (desc->crcs_count > 0) {
		memcpy(p->crcs, crcs, desc->crcs_count * sizeof(uint32_t));
	}
	if (desc->key_bytes > 0) {
		memcpy(p->key_copy, key, desc->key_bytes);
	}
	p->rec.desc.crcs = p->crcs;
	p->rec.desc.key = p->key_copy;
	p->rec.written = pending_written;
	p->rec.stable = pending_stable;
	engine->async_now++;
	*ret_pending = p;
	return 0;
}

void
pending_destroy(struct pending *p)
{
	struct engine *engine = p->engine;

	if (!p->on_flash) {
		engine->slots[p->slot] = NULL;
		engine->slots_free[engine->slots_free_count++] = p->slot;
	}
	if (p->entry != NULL) {
		cache_unref(engine->cache, p->entry);
	}
	if (p->multi != NULL) {
		multi_unref(engine, p->multi);
	}
	free(p);
	engine_async_end(engine);
}

int
pending_append(struct pending *p)
{
	int rc;

	if (p->entry != NULL) {
		p->rec.iov = p->entry->buf.iov;
		p->rec.iov_count = p->entry->buf.iov_count;
	}
	rc = log_append(p->engine->log, p->class, &p->rec);
	HR_ASSERT(rc != -EINVAL); /* It would wait for ever. */
	if (rc == -EIO) {
		engine_fail(p->engine,
			    rc); /* Something that no record waited for has failed: a sync, a footer. */
	}
	return rc;
}

/* ---- Tombstones ---- */

int
tombstone_append(struct engine *engine, const struct space_row *space, const uint8_t id[16],
		 uint64_t birth, uint64_t horizon, bool want_stable,
		 void (*on_stable)(struct pending *, int), void *arg)
{
	struct desc desc = {
		.kind = DESC_TOMBSTONE,
		.space_number = space->number,
		.space_generation = space->generation,
		.birth = birth,
		.parts_count = 1,
		.horizon = horizon,
	};
	struct pending *p;
	int rc;

	memcpy(desc.id, id, 16);
	rc = pending_create(engine, &desc, NULL, NULL, &p);
	if (rc != 0) {
		return rc;
	}
	p->class = CLASS_FRESH;
	p->rec.want_stable = want_stable;
	p->on_stable = on_stable;
	p->on_stable_arg = arg;
	rc = pending_append(p);
	if (rc != 0) {
		p->on_stable = NULL;
		pending_destroy(p);
	}
	return rc;
}

/* ---- Blocks of several parts ---- */

struct multi *
multi_create(uint16_t parts_count)
{
	struct multi *m = calloc(1, sizeof(*m) + parts_count * sizeof(m->parts[0]));

	if (m == NULL) {
		return NULL;
	}
	m->parts_count = parts_count;
	m->refs = 1;
	list_init(&m->link);
	for (uint16_t i = 0; i < parts_count; i++) {
		m->parts[i].place = PLACE_NONE;
	}
	return m;
}

void
multi_unref(struct engine *engine, struct multi *m)
{
	(void)engine;
	HR_ASSERT(m->refs > 0);
	if (--m->refs == 0) {
		HR_ASSERT(list_empty(&m->link));
		free(m);
	}
}

void
multi_unhold(struct engine *engine, struct multi *m, uint16_t part)
{
	uint32_t segment = place_segment(engine, m->parts[part].place);

	HR_ASSERT(engine->seg_holds[segment] > 0);
	engine->seg_holds[segment]--;
}

static void
held_release(struct engine *engine, struct multi *m)
{
	HR_ASSERT(!m->live && !m->dead);
	m->dead = true;
	for (uint16_t i = 0; i < m->parts_count; i++) {
		if (m->parts[i].place != PLACE_NONE) {
			multi_unhold(engine, m, i);
			place_uncache(engine, m->parts[i].place);
		}
	}
}

/* An unfinished block that is dead: nobody asks for it any more. */
void
multi_forget(struct engine *engine, struct multi *m)
{
	HR_ASSERT(m->dead);
	(void)hashmap_remove(&engine->held, m->put_number ^ get_le64(m->id), NULL);
	list_del(&m->link);
	m->owner->unfinished_count--;
	m->owner = NULL;
	multi_unref(engine, m);
}

/* An unfinished block: its parts on flash are garbage from now on. */
void
multi_kill_held(struct engine *engine, struct multi *m)
{
	held_release(engine, m);
	multi_forget(engine, m);
}

/* The same while parts are still to come: these are to be refused, instead of beginning the block anew. */
void
multi_cancel(struct engine *engine, struct multi *m)
{
	held_release(engine, m);
	if (m->parts_held == m->parts_count) {
		multi_forget(engine, m);
	}
}
