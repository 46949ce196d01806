/* listing.c — walks over the descriptors of all segments: LIST, and the sweep after a drop.
 *
 * Keys are on flash, not in DRAM: a page of LIST reads the footer of the segment where the cursor stands.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "engine/engine_impl.h"

/* ---- LIST ---- */

enum { ENGINE_LISTS_MAX = 64 }; /* each has a footer in memory, and a read under way */

struct listing {
	struct engine *engine;
	uint32_t space_number, space_generation;
	uint32_t segment, first; /* the cursor */
	uint32_t max;
	uint32_t pending_first;
	struct engine_list_entry *entries;
	struct io_timer timer;
	engine_list_cb cb;
	void *arg;
};

/* A cursor is a segment (or, behind the last one, the pending records) and the first descriptor not looked at, plus one so that it is never 0. */
static uint64_t
cursor_make(uint32_t segment, uint32_t first)
{
	return ((uint64_t)segment << 32 | first) + 1;
}

static void
listing_end(struct listing *l, int rc, uint64_t next, uint32_t count)
{
	struct engine *engine = l->engine;

	engine->stat.lists_now--;
	l->cb(l->arg, rc, next, l->entries, count);
	free(l->entries);
	free(l);
	engine_async_end(engine);
}

static void
entry_fill(struct engine_list_entry *e, const struct desc *d)
{
	*e = (struct engine_list_entry){
		.route = d->route,
		.block_bytes = d->block_bytes,
		.expiry_ms = d->expiry_ms,
		.position = d->position,
		.key = d->key,
		.key_bytes = d->key_bytes,
	};
	memcpy(e->id, d->id, sizeof(e->id));
	memcpy(e->parent, d->parent, sizeof(e->parent));
}

static bool
listed(struct listing *l, const struct desc *d, place_t place)
{
	struct found found;

	return d->kind == DESC_VALUE && d->part == 0 && d->space_number == l->space_number &&
	       d->space_generation == l->space_generation &&
	       record_at(l->engine, d->space_number, d->space_generation, d->id, 0, place, &found) &&
	       !record_expired(l->engine, &found);
}

static void
on_list_descs(void *arg, int rc, const struct desc *descs, uint32_t descs_count)
{
	struct listing *l = arg;
	struct hashmap empties;
	uint32_t n = 0, i;

	hashmap_init(&empties, io_random_u64(l->engine->io));
	/* Without memory for it, one of no bytes may be seen twice. */
	(void)empties_find(l->engine, descs, descs_count, &empties);
	for (i = l->first; rc == 0 && i < descs_count && n < l->max; i++) {
		if (!empty_superseded(l->engine, &empties, descs, i) &&
		    listed(l, &descs[i], place_make(l->engine, l->segment, descs[i].value_off))) {
			entry_fill(&l->entries[n++], &descs[i]);
		}
	}
	hashmap_fini(&empties);
	/* A segment that cannot be read is passed over: its blocks are misses, too. */
	listing_end(l, 0,
		    rc == 0 && i < descs_count ? cursor_make(l->segment, i)
					       : cursor_make(l->segment + 1, 0),
		    n);
}

static void
list_refused(void *arg)
{
	listing_end(arg, -EAGAIN, 0, 0);
}

static void
list_pending(void *arg)
{
	struct listing *l = arg;
	struct engine *engine = l->engine;
	uint32_t n = 0, i;

	for (i = l->first; i < engine->slots_count && n < l->max; i++) {
		const struct pending *p = engine->slots[i];

		if (p != NULL && listed(l, &p->rec.desc, PLACE_PENDING | i)) {
			entry_fill(&l->entries[n++], &p->rec.desc);
		}
	}
	listing_end(l, 0, i < engine->slots_count ? cursor_make(l->segment, i) : 0, n);
}

static void
list_go(struct listing *l)
{
	struct engine *engine = l->engine;
	struct segment_info info;

	for (; l->segment < engine->slice.segments_count; l->segment++, l->first = 0) {
		log_segment_info(engine->log, l->segment, &info);
		if (engine->policy->live_pages(engine->evict, l->segment) == 0 &&
		    info.state != SEG_SEALED && info.state != SEG_OPEN &&
		    info.state != SEG_SEALING) {
			continue;
		}
		if (log_read_descs(engine->log, l->segment, on_list_descs, l) == 0) {
			return;
		}
	}
	l->segment = engine->slice.segments_count;
	io_timer_set(engine->io, &l->timer, io_now_us(engine->io), list_pending, l);
}

static void
on_list_flushed(void *arg, int rc)
{
	(void)rc; /* What is on flash can be listed all the same. */
	list_go(arg);
}

void
engine_list(struct engine *engine, struct space_row *space, uint64_t cursor, uint32_t max,
	    engine_list_cb cb, void *arg)
{
	struct listing *l = calloc(1, sizeof(*l));

	HR_ASSERTF(l != NULL, "no memory for a listing of %u", max);
	l->engine = engine;
	l->space_number = space->number;
	l->space_generation = space->generation;
	l->max = HR_MAX(1u, HR_MIN(max, 4096u));
	l->cb = cb;
	l->arg = arg;
	engine->async_now++;
	if (engine->stat.lists_now++ >= ENGINE_LISTS_MAX || io_device_crowded(engine->device)) {
		engine->stat.lists_refused++;
		io_timer_set(engine->io, &l->timer, io_now_us(engine->io), list_refused, l);
		return;
	}
	l->entries = calloc(l->max, sizeof(l->entries[0]));
	HR_ASSERTF(l->entries != NULL, "no memory for a listing of %u", l->max);
	if (cursor != 0) {
		l->segment = (uint32_t)((cursor - 1) >> 32);
		l->first = (uint32_t)(cursor - 1);
		list_go(l);
		return;
	}
	/* What is pending now would be written behind the cursor, and be seen neither there nor among the pending records at the end. */
	log_flush(engine->log, on_list_flushed, l);
}

/* ---- the sweep after a drop ---- */

static void sweep_go(struct engine *engine);

static void
on_sweep_descs(void *arg, int rc, const struct desc *descs, uint32_t descs_count)
{
	struct engine *engine = arg;
	uint32_t segment = engine->sweep_next++;

	for (uint32_t i = 0; rc == 0 && i < descs_count; i++) {
		const struct desc *d = &descs[i];
		struct space_row *row = space_by_number(engine->spaces, d->space_number);
		struct found found;

		if (d->kind == DESC_VALUE &&
		    (row == NULL || row->generation != d->space_generation) &&
		    record_at(engine, d->space_number, d->space_generation, d->id, d->part,
			      place_make(engine, segment, d->value_off), &found)) {
			record_kill(engine, &found, HR_REASON_NONE);
		}
	}
	engine->sweep_running = false;
	sweep_go(engine);
	engine_async_end(engine);
}

/* One segment after the other: a drop is O(1) for who asks; this gives back what its records hold in index and DRAM. */
static void
sweep_go(struct engine *engine)
{
	while (!engine->sweep_running && engine->state == ENGINE_READY && engine->failed == 0 &&
	       engine->sweep_next < engine->slice.segments_count) {
		/* Also where no page is live: values of no bytes have none. */
		engine->async_now++;
		engine->sweep_running = true;
		if (log_read_descs(engine->log, engine->sweep_next, on_sweep_descs, engine) != 0) {
			engine->sweep_running = false;
			engine->sweep_next++;
			engine_async_end(engine);
		}
	}
}

void
sweep_start(struct engine *engine)
{
	/* When one runs, it begins again: it may have passed records of the space that was dropped now. */
	engine->sweep_next = 0;
	if (engine->sweep_running) {
		engine->sweep_next = UINT32_MAX; /* on_sweep_descs() makes 0 of it. */
	}
	sweep_go(engine);
}
