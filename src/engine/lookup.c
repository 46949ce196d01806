/* lookup.c — EXISTS, TOUCH, DELETE, PREFETCH; leases; blocks whose time has passed.
 *
 * A lease protects a block, not a segment: reclaim carries leased blocks of its victim along (reclaim.c), so that leases that are spread
 * over all segments do not stop it.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "engine/engine_impl.h"

enum { HOUSEKEEPING_US = 1000000 };

/* ---- leases ---- */

bool
lease_holds(struct engine *engine, uint64_t hash)
{
	struct lease_block *lb = hashmap_get_ptr(&engine->leases, hash);

	return lb != NULL && lb->until_us > io_now_us(engine->io);
}

static void
lease_end(struct engine *engine, struct engine_owner *owner, uint64_t hash)
{
	struct owner_lease *ol = hashmap_remove_ptr(&owner->leases, hash);
	struct lease_block *lb;

	if (ol == NULL) {
		return;
	}
	engine->tenants[owner->tenant - 1].lease_bytes -= ol->bytes;
	engine->stat.lease_bytes_now -= ol->bytes;
	engine->stat.leases_now--;
	free(ol);
	lb = hashmap_get_ptr(&engine->leases, hash);
	HR_ASSERT(lb != NULL && lb->holders > 0);
	if (--lb->holders == 0) {
		(void)hashmap_remove(&engine->leases, hash, NULL);
		free(lb);
	}
}

static bool
lease_block_add(struct engine *engine, uint64_t hash, uint64_t until_us)
{
	struct lease_block *lb = hashmap_get_ptr(&engine->leases, hash);

	if (lb == NULL) {
		lb = calloc(1, sizeof(*lb));
		if (lb == NULL || hashmap_put_ptr(&engine->leases, hash, lb) != 0) {
			free(lb);
			return false;
		}
	}
	lb->holders++;
	lb->until_us = HR_MAX(lb->until_us, until_us);
	return true;
}

static bool
lease_grant(struct engine *engine, struct engine_owner *owner, const struct found *found,
	    uint32_t lease_ms)
{
	uint64_t until_us = io_now_us(engine->io) +
			    (uint64_t)HR_MIN(lease_ms, HR_LEASE_MS_MAX) * 1000;
	/* One of no bytes takes DRAM for its lease all the same. */
	uint64_t bytes = align_up(HR_MAX(found->block_bytes, UINT64_C(1)), ENGINE_PAGE_BYTES);
	struct tenant *tenant = &engine->tenants[owner->tenant - 1];
	struct owner_lease *ol = hashmap_get_ptr(&owner->leases, found->key.hash);
	struct lease_block *lb;

	if (ol != NULL) {
		ol->until_us = HR_MAX(ol->until_us, until_us);
		lb = hashmap_get_ptr(&engine->leases, found->key.hash);
		lb->until_us = HR_MAX(lb->until_us, until_us);
		return true;
	}
	if (tenant->lease_bytes + bytes >
	    engine_capacity_bytes(engine) / 100 * ENGINE_LEASE_SHARE_PERCENT) {
		engine->stat.leases_refused++;
		return false;
	}
	ol = calloc(1, sizeof(*ol));
	if (ol == NULL || hashmap_put_ptr(&owner->leases, found->key.hash, ol) != 0) {
		free(ol);
		return false;
	}
	if (!lease_block_add(engine, found->key.hash, until_us)) {
		(void)hashmap_remove(&owner->leases, found->key.hash, NULL);
		free(ol);
		return false;
	}
	ol->until_us = until_us;
	ol->bytes = bytes;
	tenant->lease_bytes += bytes;
	engine->stat.lease_bytes_now += bytes;
	engine->stat.leases_now++;
	housekeeping_start(engine);
	return true;
}

static void
owner_leases_end(struct engine *engine, struct engine_owner *owner, uint64_t before_us)
{
	struct hashmap_slot *slot;
	size_t pos = 0;

	/* A removal moves other slots: start again after each batch that was found. */
	for (;;) {
		uint64_t hashes[64];
		unsigned n = 0;

		pos = 0;
		while (n < ARRAY_SIZE(hashes) &&
		       (slot = hashmap_next(&owner->leases, &pos)) != NULL) {
			const struct owner_lease *ol = (void *)(uintptr_t)slot->value;

			if (ol->until_us <= before_us) {
				hashes[n++] = slot->key[0];
			}
		}
		for (unsigned i = 0; i < n; i++) {
			lease_end(engine, owner, hashes[i]);
		}
		if (n < ARRAY_SIZE(hashes)) {
			return;
		}
	}
}

void
leases_expire(struct engine *engine)
{
	struct engine_owner *owner;

	list_for_each_entry(owner, &engine->owners, link) {
		owner_leases_end(engine, owner, io_now_us(engine->io));
	}
}

int
engine_owner_create(struct engine *engine, uint32_t tenant, struct engine_owner **ret_owner)
{
	struct engine_owner *owner = calloc(1, sizeof(*owner));

	if (owner == NULL) {
		return -ENOMEM;
	}
	HR_ASSERT(tenant >= 1 && tenant <= engine->tenants_count);
	owner->tenant = tenant;
	hashmap_init(&owner->leases, io_random_u64(engine->io));
	list_init(&owner->unfinished);
	list_add_tail(&engine->owners, &owner->link);
	*ret_owner = owner;
	return 0;
}

void
engine_owner_destroy(struct engine *engine, struct engine_owner *owner)
{
	if (owner == NULL) {
		return;
	}
	owner_leases_end(engine, owner, UINT64_MAX);
	puts_owner_gone(engine, owner);
	while (!list_empty(&owner->unfinished)) {
		struct multi *m = list_first_entry(&owner->unfinished, struct multi, link);

		if (m->dead) {
			multi_forget(engine, m);
		} else {
			multi_kill_held(engine, m);
		}
	}
	list_del(&owner->link);
	hashmap_fini(&owner->leases);
	free(owner);
	reclaim_kick(engine); /* Its parts kept segments from being victims. */
}

/* ---- EXISTS and others ---- */

void
engine_exists(struct engine *engine, struct space_row *space, const uint8_t id[16],
	      uint32_t lease_ms, struct engine_owner *owner, struct engine_exists_result *ret)
{
	struct found found;

	*ret = (struct engine_exists_result){ .reason = HR_REASON_DOWN };
	engine->stat.exists_items++;
	if (engine->state != ENGINE_READY) {
		return;
	}
	ret->present = record_find(engine, space, id, &found, &ret->reason);
	if (!ret->present) {
		return;
	}
	if (engine->failed != 0 && place_pending(engine, found.entry.place) == NULL) {
		*ret = (struct engine_exists_result){ .reason = HR_REASON_DOWN };
		return;
	}
	ret->block_bytes = found.block_bytes;
	if (lease_ms > 0 && owner != NULL) {
		ret->leased = lease_grant(engine, owner, &found, lease_ms);
	}
}

void
engine_release(struct engine *engine, struct space_row *space, const uint8_t id[16],
	       struct engine_owner *owner)
{
	struct index_key key =
	    index_key_make(engine->index, space->number, space->generation, id, 0);

	lease_end(engine, owner, key.hash);
}

uint8_t
engine_touch(struct engine *engine, struct space_row *space, const uint8_t id[16])
{
	struct found found;
	uint8_t reason = HR_REASON_DOWN;

	engine->stat.touches++;
	engine_ageing(engine);
	if (engine->state == ENGINE_READY && record_find(engine, space, id, &found, &reason)) {
		for (uint16_t i = 0; i < (found.multi != NULL ? found.multi->parts_count : 1); i++) {
			record_touch(engine, &found, i);
		}
	}
	return reason;
}

struct delete_wait {
	struct engine *engine;
	struct io_timer timer;
	struct space_row *space;
	uint8_t id[16];
	bool stable;
	struct engine_get get; /* where two blocks have the tag */
	uint8_t reason;
	void (*cb)(void *arg, uint8_t reason);
	void *arg;
};

static void
delete_answer(void *arg)
{
	struct delete_wait *dw = arg;
	struct engine *engine = dw->engine;

	dw->cb(dw->arg, dw->reason);
	free(dw);
	engine_async_end(engine);
}

static void
on_tombstone_stable(struct pending *pending, int rc)
{
	struct delete_wait *dw = pending->on_stable_arg;

	if (rc != 0) {
		dw->reason = HR_REASON_DOWN;
	}
	delete_answer(dw);
}

static void
on_absence_stable(void *arg, int rc)
{
	struct delete_wait *dw = arg;

	if (rc != 0 && rc != -ECANCELED) {
		engine_fail(dw->engine, rc);
	}
	if (rc != 0) {
		dw->reason = HR_REASON_DOWN;
	}
	delete_answer(dw);
}

/* What is being evicted is absent, but its record is on flash for a moment more. True: on_tombstone_stable() will answer. */
static bool
evicted_delete(struct delete_wait *dw)
{
	struct engine *engine = dw->engine;
	const struct space_row *space = dw->space;
	struct index_key key =
	    index_key_make(engine->index, space->number, space->generation, dw->id, 0);
	int rc;

	if (engine->state != ENGINE_READY || engine->failed != 0 ||
	    !reclaim_evicted(engine, key.hash)) {
		return false;
	}
	rc = tombstone_append(engine, space, dw->id, log_birth_next(engine->log),
			      log_generation_newest(engine->log), dw->stable,
			      dw->stable ? on_tombstone_stable : NULL, dw);
	if (rc != 0) {
		dw->reason = HR_REASON_BUSY;
	}
	return rc == 0 && dw->stable;
}

static void
delete_answer_soon(struct delete_wait *dw)
{
	io_timer_set(dw->engine->io, &dw->timer, io_now_us(dw->engine->io), delete_answer, dw);
}

/* dw->reason says why it is not there. */
static void
delete_absent(struct delete_wait *dw)
{
	struct engine *engine = dw->engine;

	if (dw->stable && dw->space->drops_pending > 0) {
		dw->reason =
		    HR_REASON_BUSY; /* Absent for a drop that may still be lost with the power. */
	} else if (evicted_delete(dw)) {
		return;
	} else if (dw->stable && dw->reason != HR_REASON_BUSY && dw->reason != HR_REASON_DOWN) {
		/* The tombstone that made it absent may be in DRAM only: an earlier delete at a lower level, an expiry. */
		log_flush(engine->log, on_absence_stable, dw);
		return;
	}
	delete_answer_soon(dw);
}

static void
delete_found(struct delete_wait *dw, struct found *found)
{
	struct engine *engine = dw->engine;
	int rc = tombstone_append(engine, dw->space, dw->id, log_birth_next(engine->log),
				  log_generation_newest(engine->log), dw->stable,
				  dw->stable ? on_tombstone_stable : NULL, dw);

	if (rc == 0) {
		record_kill(engine, found, HR_REASON_DELETED);
		if (dw->stable) {
			return;
		}
	} else {
		dw->reason = HR_REASON_BUSY;
		reclaim_kick(engine);
	}
	delete_answer_soon(dw);
}

static void
delete_identified(struct delete_wait *dw)
{
	struct engine *engine = dw->engine;
	struct found found;

	dw->reason = dw->get.reason;
	if (dw->get.status != HR_STATUS_OK) {
		delete_absent(dw);
	} else if (engine->failed == 0 && engine->state == ENGINE_READY &&
		   record_find_identified(engine, &dw->get, &found)) {
		delete_found(dw, &found);
	} else {
		dw->reason = HR_REASON_BUSY; /* It changed meanwhile. */
		delete_answer_soon(dw);
	}
	engine_get_done(engine, &dw->get);
}

static void
on_delete_identified(struct engine_get *get)
{
	delete_identified(container_of(get, struct delete_wait, get));
}

void
engine_delete(struct engine *engine, struct space_row *space, const uint8_t id[16], uint8_t ack,
	      void (*cb)(void *arg, uint8_t reason), void *arg)
{
	struct delete_wait *dw = calloc(1, sizeof(*dw));
	struct found found;

	HR_ASSERTF(dw != NULL, "no memory for a delete");
	dw->engine = engine;
	dw->space = space;
	memcpy(dw->id, id, sizeof(dw->id));
	dw->stable = ack >= HR_ACK_STABLE;
	dw->cb = cb;
	dw->arg = arg;
	dw->reason = HR_REASON_DOWN;
	engine->async_now++;
	engine->stat.deletes++;
	if (engine->state != ENGINE_READY || engine->failed != 0) {
		delete_answer_soon(dw);
	} else if (!record_find(engine, space, id, &found, &dw->reason)) {
		delete_absent(dw);
	} else if (!record_ambiguous(engine, &found, space, id)) {
		delete_found(dw, &found);
	} else {
		dw->get = (struct engine_get){
			.space = space,
			.block_bytes = UINT64_MAX,
			.cb = on_delete_identified,
		};
		memcpy(dw->get.id, id, sizeof(dw->get.id));
		if (engine_get(engine, &dw->get)) {
			delete_identified(dw);
		}
	}
}

/* ---- PREFETCH ---- */

struct prefetch {
	struct engine *engine;
	struct engine_get get;
};

static void
prefetch_done(struct engine_get *get)
{
	struct prefetch *pf = container_of(get, struct prefetch, get);
	struct engine *engine = pf->engine;

	engine_get_done(engine, get);
	get->space->users--;
	free(pf);
	engine_async_end(engine);
}

uint8_t
engine_prefetch(struct engine *engine, struct space_row *space, const uint8_t id[16])
{
	struct found found;
	uint8_t reason = HR_REASON_DOWN;
	uint16_t parts;

	if (engine->state != ENGINE_READY || !record_find(engine, space, id, &found, &reason)) {
		return reason;
	}
	engine->stat.prefetches++;
	parts = found.multi != NULL ? found.multi->parts_count : 1;
	for (uint16_t i = 0; i < parts; i++) {
		struct prefetch *pf = calloc(1, sizeof(*pf));

		if (pf == NULL) {
			return HR_REASON_BUSY;
		}
		pf->engine = engine;
		pf->get = (struct engine_get){
			.space = space,
			.part = i,
			.block_bytes = UINT64_MAX,
			.low_priority = true,
			.cb = prefetch_done,
		};
		memcpy(pf->get.id, id, 16);
		space->users++;
		engine->async_now++;
		if (engine_get(engine, &pf->get)) {
			prefetch_done(&pf->get);
		}
	}
	return HR_REASON_NONE;
}

/* ---- time ----
 *
 * A block whose TTL has passed goes when somebody asks for it, or with its segment: reclaim does not carry it. */

static void
housekeeping(void *arg)
{
	struct engine *engine = arg;

	leases_expire(engine);
	if (engine->stat.leases_now > 0) {
		housekeeping_start(engine);
	}
}

void
housekeeping_start(struct engine *engine)
{
	if (engine->housekeeping.heap_idx == 0) {
		io_timer_set(engine->io, &engine->housekeeping,
			     io_now_us(engine->io) + HOUSEKEEPING_US, housekeeping, engine);
	}
}
