/* rebuild.c — recovery's visitor: of all records found, which are live (docs/format/README.md section 6, steps 5 and 6).
 *
 * While it runs, index entries carry births; a tombstone is an entry with a pending place. The upper 16 bits of what is stored as a
 * birth are bits of the identity's hash that the index does not use, so that two identities with one tag are not taken for
 * each other; they also make the tombstones' places, for an entry is known by tag and place. Recency is lost with the process: records are as recent as their segments are new.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/hash.h"
#include "engine/engine_impl.h"
#include "engine/layout.h"

/* Parts and commit of one PUT number. */
struct rebuild_put {
	struct multi *multi;
	uint64_t commit_birth;
	bool committed;
	bool pinned;
};

struct rebuild {
	struct engine *engine;
	struct hashmap puts;  /* identity hash folded with the PUT number -> struct rebuild_put * */
	uint64_t *live_pages; /* by segment */
	uint16_t *recency;    /* by segment */
	uint64_t *generation;
	bool out_of_memory;
};

static place_t
tombstone_place(const struct index_key *key)
{
	return PLACE_PENDING | (key->hash & 0xffff);
}

static bool
is_tombstone(place_t place)
{
	return (place & PLACE_PENDING) != 0;
}

static uint64_t
birth_pack(const struct index_key *key, uint64_t birth)
{
	HR_ASSERTF(birth >> BIRTH_BITS == 0, "birth %llu", (unsigned long long)birth);
	return (key->hash & 0xffff) << BIRTH_BITS | birth;
}

/* The entry of this identity, if one is known. */
static bool
known(struct engine *engine, const struct index_key *key, struct index_entry *ret_entry,
      uint64_t *ret_birth)
{
	uint32_t cursor = 0;
	uint64_t packed;

	while (index_next(engine->index, key, &cursor, ret_entry)) {
		if (index_birth_get(engine->index, key, ret_entry->place, &packed) &&
		    packed >> BIRTH_BITS == (key->hash & 0xffff)) {
			*ret_birth = packed & ((UINT64_C(1) << BIRTH_BITS) - 1);
			return true;
		}
	}
	return false;
}

static void
displaced(struct engine *engine, uint32_t space_number, uint32_t generation,
	  const struct index_key *key, const struct index_entry *entry)
{
	int64_t bytes = entry->bytes;
	struct multi *m;

	if (is_tombstone(entry->place)) {
		return;
	}
	if ((entry->flags & INDEX_FLAG_TTL) != 0) {
		expiry_remove(engine, key);
	}
	if ((entry->flags & INDEX_FLAG_MULTIPART) != 0) {
		m = hashmap_remove_ptr(&engine->multis, key->hash);
		bytes = (int64_t)m->block_bytes;
		engine->stat.multipart_now--;
		multi_unref(engine, m);
	}
	block_account(engine, space_number, generation, -bytes, -1,
		      (entry->flags & INDEX_FLAG_PINNED) != 0);
}

/* A record was carried and its victim not freed: both are there. When the one that counts is evicted, the other one must not come back
 * behind what was put since (reclaim.c, tombstone_of()). */
static void
copy_note(struct rebuild *rb, const struct index_key *key, uint64_t generation)
{
	struct hashmap *copies = &rb->engine->copies;
	uint64_t before = 0;

	(void)hashmap_get(copies, key->hash, &before);
	if (hashmap_put(copies, key->hash, HR_MAX(before, generation)) != 0) {
		rb->out_of_memory = true;
	}
}

static uint64_t
generation_at(const struct rebuild *rb, place_t place)
{
	return rb->generation[place_segment(rb->engine, place)];
}

/* The record competes for its identity. True: it counts, for now. */
static bool
compete(struct rebuild *rb, const struct desc *d, const struct index_key *key, uint64_t birth,
	const struct index_entry *entry)
{
	struct engine *engine = rb->engine;
	struct index_entry old;
	uint64_t old_birth;

	if (known(engine, key, &old, &old_birth)) {
		if (old_birth > birth || (old_birth == birth && is_tombstone(old.place))) {
			return false;
		}
		if (old_birth == birth && !is_tombstone(entry->place)) {
			bool newer = generation_at(rb, entry->place) > generation_at(rb, old.place);

			copy_note(rb, key, generation_at(rb, newer ? old.place : entry->place));
			if (!newer) {
				return false;
			}
		}
		displaced(engine, d->space_number, d->space_generation, key, &old);
		HR_ASSERT(index_update(engine->index, key, old.place, entry));
	} else if (index_insert(engine->index, key, entry) != 0) {
		rb->out_of_memory = true;
		return false;
	}
	HR_ASSERT(index_birth_set(engine->index, key, entry->place, birth_pack(key, birth)));
	return true;
}

static bool
is_expired(struct engine *engine, uint64_t expiry_ms)
{
	return expiry_ms != 0 && expiry_ms <= io_wall_ms(engine->io);
}

static void
visit_tombstone(struct rebuild *rb, const struct desc *d, uint64_t birth)
{
	struct index_key key =
	    index_key_make(rb->engine->index, d->space_number, d->space_generation, d->id, 0);
	struct index_entry entry = { .place = tombstone_place(&key) };

	(void)compete(rb, d, &key, birth, &entry);
}

static void
visit_single(struct rebuild *rb, const struct desc *d, uint32_t segment)
{
	struct engine *engine = rb->engine;
	struct index_key key =
	    index_key_make(engine->index, d->space_number, d->space_generation, d->id, 0);
	struct index_entry entry = {
		.place = place_make(engine, segment, d->value_off),
		.bytes = d->stored_bytes,
		.check = index_check_make(d->space_number, d->space_generation, d->id, 0,
					  d->stored_bytes, d->crcs, d->crcs_count),
		.flags = (uint8_t)(((d->flags & DESC_FLAG_PINNED) != 0 ? INDEX_FLAG_PINNED : 0) |
				   (d->expiry_ms != 0 ? INDEX_FLAG_TTL : 0)),
	};

	if (is_expired(engine, d->expiry_ms)) {
		visit_tombstone(rb, d, d->birth);
		return;
	}
	if (!compete(rb, d, &key, d->birth, &entry)) {
		return;
	}
	if (d->expiry_ms != 0 && expiry_put(engine, &key, d->expiry_ms) != 0) {
		rb->out_of_memory = true;
	}
	block_account(engine, d->space_number, d->space_generation, d->stored_bytes, 1,
		      (d->flags & DESC_FLAG_PINNED) != 0);
}

/* NULL: no memory, or a PUT that is another one's for all its bits. */
static struct rebuild_put *
put_of(struct rebuild *rb, const struct desc *d, const struct index_key *key)
{
	uint64_t number = key->hash ^ mix64(d->put_number);
	struct rebuild_put *rp = hashmap_get_ptr(&rb->puts, number);

	if (rp != NULL) {
		const struct multi *m = rp->multi;

		return m->log_number == d->put_number && memcmp(m->id, d->id, 16) == 0 &&
			       m->space_number == d->space_number
			   ? rp
			   : NULL;
	}
	rp = calloc(1, sizeof(*rp));
	if (rp != NULL) {
		rp->multi = multi_create(d->parts_count);
	}
	if (rp == NULL || rp->multi == NULL || hashmap_put_ptr(&rb->puts, number, rp) != 0) {
		if (rp != NULL) {
			free(rp->multi);
		}
		free(rp);
		rb->out_of_memory = true;
		return NULL;
	}
	memcpy(rp->multi->id, d->id, 16);
	rp->multi->space_number = d->space_number;
	rp->multi->space_generation = d->space_generation;
	rp->multi->log_number = d->put_number;
	rp->multi->block_bytes = d->block_bytes;
	return rp;
}

static void
visit_part(struct rebuild *rb, const struct desc *d, uint32_t segment, uint64_t generation)
{
	place_t place = place_make(rb->engine, segment, d->value_off);
	struct index_key key =
	    index_key_make(rb->engine->index, d->space_number, d->space_generation, d->id, 0);
	struct rebuild_put *rp = put_of(rb, d, &key);
	struct multi *m;

	if (rp == NULL) {
		return;
	}
	m = rp->multi;
	if (d->parts_count != m->parts_count || d->part >= m->parts_count ||
	    d->block_bytes != m->block_bytes) {
		return;
	}
	if (d->kind == DESC_COMMIT) {
		if (rp->committed && rp->commit_birth >= d->birth) {
			return;
		}
		rp->committed = true;
		rp->commit_birth = d->birth;
		rp->pinned = (d->flags & DESC_FLAG_PINNED) != 0;
		m->expiry_ms = d->expiry_ms;
		m->horizon = d->horizon;
		return;
	}
	if (m->parts[d->part].place == PLACE_NONE) {
		m->parts_held++;
	} else if (generation_at(rb, m->parts[d->part].place) > generation) {
		copy_note(rb, &key, generation);
		return; /* The copy in the newer use of a segment counts. */
	} else {
		copy_note(rb, &key, generation_at(rb, m->parts[d->part].place));
	}
	m->parts[d->part].place = place;
	m->parts[d->part].check = index_check_make(d->space_number, d->space_generation, d->id,
						   d->part, d->stored_bytes, d->crcs, d->crcs_count);
}

static void
visit(void *arg, const struct desc *d, uint32_t segment, uint64_t generation)
{
	struct rebuild *rb = arg;
	struct space_row *row = space_by_number(rb->engine->spaces, d->space_number);

	rb->generation[segment] = generation;
	if (row == NULL || row->generation != d->space_generation) {
		return;
	}
	row->used = true;
	/* The CRCs are right, but no store has written this. Of an absurd birth recovery tells in the end. */
	if (d->birth >= BIRTHS_END || !desc_fits(&rb->engine->slice, d)) {
		return;
	}
	if (d->kind == DESC_TOMBSTONE) {
		visit_tombstone(rb, d, d->birth);
	} else if (d->parts_count > 1) {
		visit_part(rb, d, segment, generation);
	} else if (d->kind == DESC_VALUE) {
		visit_single(rb, d, segment);
	}
}

/* ---- the end ---- */

static void
multi_finish(struct rebuild *rb, struct rebuild_put *rp)
{
	struct engine *engine = rb->engine;
	struct multi *m = rp->multi;
	struct desc d = { .space_number = m->space_number, .space_generation = m->space_generation };
	struct index_entry entry = {
		.place = m->parts[0].place,
		.bytes = engine->slice.part_bytes,
		.check = m->parts[0].check,
		.flags = (uint8_t)(INDEX_FLAG_MULTIPART | (rp->pinned ? INDEX_FLAG_PINNED : 0) |
				   (m->expiry_ms != 0 ? INDEX_FLAG_TTL : 0)),
	};
	struct index_key key =
	    index_key_make(engine->index, m->space_number, m->space_generation, m->id, 0);

	memcpy(d.id, m->id, 16);
	if (!rp->committed || m->parts_held < m->parts_count || m->parts[0].place == PLACE_NONE) {
		multi_unref(engine, m);
		return;
	}
	if (is_expired(engine, m->expiry_ms)) {
		visit_tombstone(rb, &d, rp->commit_birth);
		multi_unref(engine, m);
		return;
	}
	if (!compete(rb, &d, &key, rp->commit_birth, &entry)) {
		multi_unref(engine, m);
		return;
	}
	m->hash = key.hash;
	m->birth = rp->commit_birth;
	m->live = true;
	if (hashmap_put_ptr(&engine->multis, key.hash, m) != 0 ||
	    (m->expiry_ms != 0 && expiry_put(engine, &key, m->expiry_ms) != 0)) {
		rb->out_of_memory = true;
	}
	engine->stat.multipart_now++;
	block_account(engine, m->space_number, m->space_generation, (int64_t)m->block_bytes, 1,
		      rp->pinned);
}

static bool
visit_live(void *arg, const struct index_entry *entry)
{
	struct rebuild *rb = arg;

	if (is_tombstone(entry->place)) {
		return true;
	}
	if ((entry->flags & INDEX_FLAG_MULTIPART) == 0) {
		rb->live_pages[place_segment(rb->engine, entry->place)] += value_pages(entry->bytes);
	}
	return false;
}

static uint16_t
recency_of(void *arg, const struct index_entry *entry)
{
	struct rebuild *rb = arg;

	return rb->recency[place_segment(rb->engine, entry->place)];
}

struct by_age {
	uint64_t generation;
	uint32_t segment;
};

static int
age_cmp(const void *va, const void *vb)
{
	const struct by_age *a = va, *b = vb;

	return a->generation < b->generation ? -1 : a->generation > b->generation;
}

/* The policy learns of the live records, oldest segment first. */
static void
policy_fill(struct rebuild *rb)
{
	struct engine *engine = rb->engine;
	uint32_t n = engine->slice.segments_count;
	struct by_age *ages = calloc(n, sizeof(*ages));
	struct hashmap_slot *slot;
	size_t pos;
	uint32_t cursor = 0;

	if (ages == NULL) {
		rb->out_of_memory = true;
		return;
	}
	while (index_sweep(engine->index, &cursor, visit_live, rb)) {
	}
	hashmap_for_each(&engine->multis, pos, slot) {
		struct multi *m = (void *)(uintptr_t)slot->value;

		for (uint16_t i = 0; i < m->parts_count; i++) {
			rb->live_pages[place_segment(engine, m->parts[i].place)] +=
			    value_pages(multi_part_bytes(engine, m, i));
		}
	}
	for (uint32_t i = 0; i < n; i++) {
		ages[i] = (struct by_age){ rb->generation[i], i };
	}
	qsort(ages, n, sizeof(ages[0]), age_cmp);
	for (uint32_t i = 0; i < n; i++) {
		uint32_t segment = ages[i].segment;

		if (rb->live_pages[segment] > 0) {
			rb->recency[segment] =
			    engine->policy->insert(engine->evict, segment,
						   (uint32_t)rb->live_pages[segment]);
		}
	}
	cursor = 0;
	while (index_sweep_recency(engine->index, &cursor, recency_of, rb)) {
	}
	hashmap_for_each(&engine->multis, pos, slot) {
		struct multi *m = (void *)(uintptr_t)slot->value;

		for (uint16_t i = 0; i < m->parts_count; i++) {
			m->parts[i].recency = rb->recency[place_segment(engine, m->parts[i].place)];
		}
	}
	free(ages);
}

static void
rebuild_free(struct rebuild *rb)
{
	hashmap_fini(&rb->puts);
	free(rb->live_pages);
	free(rb->recency);
	free(rb->generation);
	free(rb);
}

static void
done(void *arg, const struct recover_result *result)
{
	struct rebuild *rb = arg;
	struct engine *engine = rb->engine;
	struct hashmap_slot *slot;
	size_t pos;
	int rc = result->rc;

	hashmap_for_each(&rb->puts, pos, slot) {
		struct rebuild_put *rp = (void *)(uintptr_t)slot->value;

		multi_finish(rb, rp);
		free(rp);
	}
	policy_fill(rb);
	index_births_end(engine->index);
	if (rc == 0 && rb->out_of_memory) {
		rc = -ENOMEM;
	}
	engine->stat.recovered = *result;
	engine->rebuild = NULL;
	rebuild_free(rb);
	engine_recovered(engine, rc);
}

int
rebuild_start(struct engine *engine)
{
	struct rebuild *rb = calloc(1, sizeof(*rb));
	uint32_t n = engine->slice.segments_count;
	struct recover_visitor visitor = { .record = visit, .done = done, .arg = rb };
	int rc = -ENOMEM;

	if (rb == NULL) {
		return -ENOMEM;
	}
	rb->engine = engine;
	hashmap_init(&rb->puts, io_random_u64(engine->io));
	rb->live_pages = calloc(n, sizeof(rb->live_pages[0]));
	rb->recency = calloc(n, sizeof(rb->recency[0]));
	rb->generation = calloc(n, sizeof(rb->generation[0]));
	if (rb->live_pages != NULL && rb->recency != NULL && rb->generation != NULL) {
		rc = index_births_begin(engine->index);
	}
	if (rc == 0) {
		rc = recover_start(engine->log, &visitor);
	}
	if (rc != 0) {
		rebuild_free(rb);
		return rc;
	}
	engine->rebuild = rb;
	return 0;
}
