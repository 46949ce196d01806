/* engine.c — an engine's life, its spaces, and what it says of itself. */
#include "engine/engine.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "engine/engine_impl.h"
#include "engine/layout.h"

enum { DRAM_BYTES_DEFAULT = 64 << 20, REASON_BYTES_DEFAULT = 1 << 20 };

static void
options_complete(struct engine_options *o, struct io *io)
{
	o->dram_bytes = o->dram_bytes != 0 ? o->dram_bytes : DRAM_BYTES_DEFAULT;
	o->policy = o->policy != NULL ? o->policy : "lru";
	o->reads_max = o->reads_max != 0 ? o->reads_max : 128;
	o->reads_queued_max = o->reads_queued_max != 0 ? o->reads_queued_max : 4096;
	o->puts_max = o->puts_max != 0 ? o->puts_max : 4096;
	o->wa_limit_permille = o->wa_limit_permille != 0 ? o->wa_limit_permille : 1170;
	o->reason_bytes = o->reason_bytes != 0 ? o->reason_bytes : REASON_BYTES_DEFAULT;
	o->seed = o->seed != 0 ? o->seed : io_random_u64(io);
}

uint64_t
engine_capacity_bytes(const struct engine *engine)
{
	return (uint64_t)engine->slice.segments_count * engine->slice.segment_bytes;
}

static int
slots_create(struct engine *engine)
{
	engine->slots_count = ENGINE_SLOTS_MAX;
	engine->slots = calloc(engine->slots_count, sizeof(engine->slots[0]));
	engine->slots_free = calloc(engine->slots_count, sizeof(engine->slots_free[0]));
	if (engine->slots == NULL || engine->slots_free == NULL) {
		return -ENOMEM;
	}
	for (uint32_t i = engine->slots_count; i > 0; i--) {
		engine->slots_free[engine->slots_free_count++] = i - 1;
	}
	return 0;
}

static void
on_room(void *arg)
{
	struct engine *engine = arg;

	if (engine->state == ENGINE_READY || engine->state == ENGINE_STOPPING) {
		reclaim_retry(engine);
		appends_retry(engine);
		reclaim_kick(engine);
	}
}

static void
on_chunk_made(void *arg, void *base, size_t bytes)
{
	struct engine *engine = arg;

	/* Serving never waits for it, and goes on without it where the memory-lock limit is small. */
	(void)io_memory_register(engine->io, base, bytes);
}

static void
on_chunk_gone(void *arg, void *base, size_t bytes)
{
	struct engine *engine = arg;

	io_memory_unregister(engine->io, base, bytes);
}

/* The device has failed a write, as if it had been a value's. */
static void
on_space_error(void *arg, int rc)
{
	engine_fail(arg, rc);
}

static int
parts_create(struct engine *engine)
{
	const struct engine_options *o = &engine->options;
	uint32_t segments = engine->slice.segments_count;
	struct log_options log_options = { .sync = o->sync, .linger_us = o->linger_us };
	struct evict_options evict_options = {
		.segments_count = segments,
		.capacity_pages = engine_capacity_bytes(engine) / ENGINE_PAGE_BYTES,
	};
	int rc;

	engine->policy = evict_policy_find(o->policy);
	if (engine->policy == NULL) {
		return -EINVAL;
	}
	if ((rc = slots_create(engine)) != 0 ||
	    (rc = log_create(engine->io, engine->device, &engine->slice, &log_options,
			     &engine->log)) != 0 ||
	    (rc = space_table_create(engine->io, engine->device, &engine->slice, &engine->spaces)) !=
		0 ||
	    (rc = index_create(o->seed, &engine->index)) != 0 ||
	    (rc = engine->policy->create(&evict_options, &engine->evict)) != 0 ||
	    (rc = arena_create(o->dram_bytes, &engine->arena)) != 0 ||
	    (rc = cache_create(engine->arena, &engine->cache)) != 0 ||
	    (rc = reason_memory_create(o->reason_bytes, &engine->reasons)) != 0 ||
	    (rc = reclaim_create(engine)) != 0) {
		return rc;
	}
	engine->seg_reads = calloc(segments, sizeof(engine->seg_reads[0]));
	engine->seg_holds = calloc(segments, sizeof(engine->seg_holds[0]));
	return engine->seg_reads == NULL || engine->seg_holds == NULL ? -ENOMEM : 0;
}

int
engine_create(struct io *io, struct io_device *device, const struct superblock *slice,
	      const struct engine_options *options, struct engine **ret_engine)
{
	struct engine *engine = calloc(1, sizeof(*engine));
	int rc;

	if (engine == NULL) {
		return -ENOMEM;
	}
	engine->io = io;
	engine->device = device;
	engine->slice = *slice;
	engine->options = options != NULL ? *options : (struct engine_options){ 0 };
	options_complete(&engine->options, io);
	engine->sweep_next = slice->segments_count;
	list_init(&engine->appends_waiting);
	list_init(&engine->puts_done);
	list_init(&engine->owners);
	list_init(&engine->reads_queue);
	list_init(&engine->reads_queue_low);
	hashmap_init(&engine->multis, io_random_u64(io));
	hashmap_init(&engine->held, io_random_u64(io));
	hashmap_init(&engine->copies, io_random_u64(io));
	hashmap_init(&engine->leases, io_random_u64(io));
	rc = parts_create(engine);
	if (rc != 0) {
		engine_destroy(engine);
		return rc;
	}
	log_on_room(engine->log, on_room, engine);
	space_table_on_error(engine->spaces, on_space_error, engine);
	arena_on_chunk(engine->arena, &(struct arena_chunk_events){ .made = on_chunk_made,
								    .gone = on_chunk_gone,
								    .arg = engine });
	*ret_engine = engine;
	return 0;
}

void
engine_destroy(struct engine *engine)
{
	struct hashmap_slot *slot;
	size_t pos;

	if (engine == NULL) {
		return;
	}
	HR_ASSERTF(engine->async_now == 0 && list_empty(&engine->owners), "%u under way",
		   engine->async_now);
	io_timer_cancel(engine->io, &engine->housekeeping);
	io_timer_cancel(engine->io, &engine->retry);
	io_timer_cancel(engine->io, &engine->puts_done_timer);
	hashmap_for_each(&engine->multis, pos, slot) {
		free((void *)(uintptr_t)slot->value);
	}
	hashmap_fini(&engine->multis);
	hashmap_fini(&engine->held);
	index_destroy(engine->expiries);
	hashmap_fini(&engine->copies);
	hashmap_fini(&engine->leases);
	reclaim_destroy(engine);
	if (engine->cache != NULL) {
		cache_destroy(engine->cache);
	}
	if (engine->arena != NULL) {
		arena_destroy(engine->arena);
	}
	if (engine->evict != NULL) {
		engine->policy->destroy(engine->evict);
	}
	if (engine->index != NULL) {
		index_destroy(engine->index);
	}
	if (engine->reasons != NULL) {
		reason_memory_destroy(engine->reasons);
	}
	if (engine->spaces != NULL) {
		space_table_destroy(engine->spaces);
	}
	if (engine->log != NULL) {
		log_destroy(engine->log);
	}
	free(engine->tenants);
	free(engine->seg_reads);
	free(engine->seg_holds);
	free(engine->slots);
	free(engine->slots_free);
	free(engine);
}

/* ---- start ---- */

int
engine_start(struct engine *engine,
	     void (*ready)(void *arg, int rc, const struct recover_result *result), void *arg,
	     char detail[DETAIL_BYTES])
{
	struct space_row *row;
	uint32_t cursor = 0;
	int rc = space_table_load(engine->spaces, detail);

	if (rc != 0) {
		return rc;
	}
	/* Usage is counted again from the records. */
	while ((row = space_next(engine->spaces, &cursor)) != NULL) {
		row->usage_bytes = 0;
		row->usage_blocks = 0;
		row->pinned_bytes = 0;
	}
	engine->ready_cb = ready;
	engine->ready_arg = arg;
	engine->async_now++;
	rc = rebuild_start(engine);
	if (rc != 0) {
		engine->async_now--;
	}
	return rc;
}

static void
on_idle_dropped(void *arg, int rc, struct space_row *row)
{
	(void)arg;
	(void)rc; /* has failed the engine */
	(void)row;
}

/* Rows that stand for nothing go. drop_idle: those of which only dead records are left are dropped, so that the next call takes them, too. */
static void
spaces_trim(struct engine *engine, bool drop_idle)
{
	struct space_row **idle = calloc(SPACE_ROWS_MAX, sizeof(struct space_row *));
	uint32_t count;

	/* What the sweep still kills is in the index under numbers that had a row. */
	if (idle != NULL && engine->sweep_next >= engine->slice.segments_count) {
		count = space_table_trim(engine->spaces, idle);
		for (uint32_t i = 0; drop_idle && engine->failed == 0 && i < count; i++) {
			engine_space_drop(engine, idle[i], on_idle_dropped, NULL);
		}
	}
	free(idle);
}

void
engine_recovered(struct engine *engine, int rc)
{
	if (engine->state == ENGINE_STOPPING) {
		rc = rc != 0
			 ? rc
			 : -ECANCELED; /* engine_stop() came first, and goes on when this has ended. */
	} else if (rc == 0) {
		engine->state = ENGINE_READY;
		spaces_trim(engine, false);
		log_prepare_start(engine->log);
		reclaim_kick(engine);
	} else {
		engine->failed = rc;
		engine->state = ENGINE_STOPPED;
	}
	engine->ready_cb(engine->ready_arg, rc, &engine->stat.recovered);
	engine_async_end(engine);
}

bool
engine_ready(const struct engine *engine)
{
	return engine->state == ENGINE_READY;
}

bool
engine_failed(const struct engine *engine, int *ret_errno)
{
	if (ret_errno != NULL) {
		*ret_errno = engine->failed;
	}
	return engine->failed != 0;
}

void
engine_fail(struct engine *engine, int rc)
{
	if (engine->failed != 0) {
		return;
	}
	engine->failed = rc;
	puts_fail_all(engine);
	reclaim_retry(engine);
	if (engine->options.on_failed != NULL) {
		engine->options.on_failed(engine->options.on_failed_arg, rc);
	}
}

/* ---- stop ---- */

void
engine_async_begin(struct engine *engine)
{
	engine->async_now++;
}

void
engine_async_end(struct engine *engine)
{
	void (*cb)(void *arg);

	HR_ASSERT(engine->async_now > 0);
	if (--engine->async_now == 0 && engine->state == ENGINE_STOPPING && engine->stop_cb != NULL) {
		cb = engine->stop_cb;
		engine->stop_cb = NULL;
		engine->state = ENGINE_STOPPED;
		cb(engine->stop_arg);
	}
}

static void
on_quiet(void *arg)
{
	engine_async_end(arg);
}

static void
on_log_quiet(void *arg)
{
	struct engine *engine = arg;

	space_table_quiesce(engine->spaces, on_quiet, engine);
}

static void
on_stop_flushed(void *arg, int rc)
{
	struct engine *engine = arg;

	(void)rc;
	log_quiesce(engine->log, on_log_quiet, engine);
}

void
engine_stop(struct engine *engine, void (*cb)(void *arg), void *arg)
{
	HR_ASSERT(engine->state == ENGINE_READY || engine->state == ENGINE_STOPPED ||
		  engine->state == ENGINE_LOADING);
	engine->stop_cb = cb;
	engine->stop_arg = arg;
	engine->state = ENGINE_STOPPING;
	engine->async_now++;
	io_timer_cancel(engine->io, &engine->housekeeping);
	io_timer_cancel(engine->io, &engine->retry);
	puts_fail_all(engine);
	reclaim_retry(engine);
	reads_fail_all(engine, HR_REASON_DOWN);
	log_flush(engine->log, on_stop_flushed, engine);
}

const struct superblock *
engine_slice(const struct engine *engine)
{
	return &engine->slice;
}

struct arena *
engine_arena(struct engine *engine)
{
	return engine->arena;
}

struct cache *
engine_cache(struct engine *engine)
{
	return engine->cache;
}

/* ---- spaces ---- */

uint32_t
engine_tenant_number(struct engine *engine, const uint8_t tenant[16])
{
	struct tenant *more;

	for (uint32_t i = 0; i < engine->tenants_count; i++) {
		if (memcmp(engine->tenants[i].id, tenant, 16) == 0) {
			return i + 1;
		}
	}
	more = realloc(engine->tenants, (engine->tenants_count + 1) * sizeof(*more));
	HR_ASSERTF(more != NULL, "no memory for tenant %u", engine->tenants_count);
	engine->tenants = more;
	more[engine->tenants_count] = (struct tenant){ 0 };
	memcpy(more[engine->tenants_count].id, tenant, 16);
	return ++engine->tenants_count;
}

struct space_wait {
	struct engine *engine;
	struct space_row *row;
	engine_space_cb cb;
	void *arg;
};

static struct space_wait *
space_wait_create(struct engine *engine, struct space_row *row, engine_space_cb cb, void *arg)
{
	struct space_wait *w = calloc(1, sizeof(*w));

	HR_ASSERTF(w != NULL, "no memory for a space");
	*w = (struct space_wait){ engine, row, cb, arg };
	engine->async_now++;
	return w;
}

static void
space_wait_end(struct space_wait *w, int rc, struct space_row *row)
{
	struct engine *engine = w->engine;

	w->cb(w->arg, rc, row);
	free(w);
	engine_async_end(engine);
}

/* -ENOSPC: the table is full. */
static void
on_space_opened(void *arg, int rc, struct space_row *row)
{
	space_wait_end(arg, rc, row);
}

static void
on_space_dropped(void *arg, int rc)
{
	struct space_wait *w = arg;

	/* Not durable: after a restart the old generation would count, so nothing may be acknowledged as stable in the new one. */
	w->row->drops_pending -= rc == 0;
	w->engine->drops_pending -= rc == 0;
	space_wait_end(w, rc, w->row);
}

static void
on_space_written(void *arg, int rc)
{
	struct space_wait *w = arg;

	space_wait_end(w, rc, w->row);
}

void
engine_space_open(struct engine *engine, const uint8_t tenant[16], const uint8_t digest[32],
		  const char *label, engine_space_cb cb, void *arg)
{
	if (space_count(engine->spaces) >= SPACE_ROWS_MAX * 3 / 4 && engine->state == ENGINE_READY) {
		spaces_trim(engine, true);
	}
	space_open(engine->spaces, tenant, digest, label, on_space_opened,
		   space_wait_create(engine, NULL, cb, arg));
}

void
engine_space_drop(struct engine *engine, struct space_row *row, engine_space_cb cb, void *arg)
{
	space_drop(engine->spaces, row, log_birth_next(engine->log),
		   log_generation_newest(engine->log), on_space_dropped,
		   space_wait_create(engine, row, cb, arg));
	row->drops_pending++;
	engine->drops_pending++;
	row->usage_blocks = 0;
	row->usage_bytes = 0;
	engine->pinned_bytes -= row->pinned_bytes;
	row->pinned_bytes = 0;
	sweep_start(engine);
}

void
engine_space_set(struct engine *engine, struct space_row *row, uint64_t quota_bytes,
		 uint64_t pin_budget_bytes, engine_space_cb cb, void *arg)
{
	space_set(engine->spaces, row, quota_bytes, pin_budget_bytes, NULL, on_space_written,
		  space_wait_create(engine, row, cb, arg));
}

void
engine_space_ref(struct space_row *row)
{
	row->users++;
}

void
engine_space_unref(struct space_row *row)
{
	HR_ASSERT(row->users > 0);
	row->users--;
}

struct space_row *
engine_space_next(struct engine *engine, uint32_t *cursor)
{
	return space_next(engine->spaces, cursor);
}

struct space_row *
engine_space_by_number(struct engine *engine, uint32_t number)
{
	return space_by_number(engine->spaces, number);
}

/* ---- statistics ---- */

void
engine_stat_get(const struct engine *engine, struct engine_stat *ret)
{
	*ret = engine->stat;
	ret->records = index_count(engine->index);
	ret->bytes_capacity = engine_capacity_bytes(engine);
	ret->index_bytes = index_bytes(engine->index) +
			   (engine->expiries != NULL ? index_bytes(engine->expiries) : 0);
	ret->policy_bytes = engine->policy->bytes(engine->evict);
	ret->reason_bytes = reason_memory_bytes(engine->reasons);
	ret->reason_entries = reason_memory_entries(engine->reasons);
	ret->arena_bytes_used = arena_bytes_used(engine->arena);
	ret->arena_bytes_max = arena_bytes_max(engine->arena);
	ret->reads_now = engine->reads_now;
	ret->reads_queued_now = engine->reads_queued;
	ret->multipart_unfinished_now = engine->held.count;
	cache_counters_get(engine->cache, &ret->cache);
	log_counters_get(engine->log, &ret->log);
	ret->log.space_tables_damaged = space_table_slots_damaged(engine->spaces);
	ret->bytes_written_total = ret->log.unit_bytes_written + ret->log.footer_bytes_written +
				   ret->log.mark_bytes_written;
	ret->policy = engine->policy->name;
	ret->failed = engine->failed != 0;
	ret->failed_errno = engine->failed;
}

static bool
check_entry(void *arg, const struct index_entry *entry)
{
	uint64_t *pages = arg;

	(void)entry;
	++*pages;
	return false;
}

void
engine_check(struct engine *engine)
{
	struct space_row *row;
	uint32_t cursor = 0;
	uint64_t blocks = 0, entries = 0, pinned = 0;

	index_check(engine->index);
	engine->policy->check(engine->evict);
	cache_check(engine->cache);
	arena_check(engine->arena);
	log_check(engine->log);
	while (index_sweep(engine->index, &cursor, check_entry, &entries)) {
	}
	HR_ASSERTF(entries == engine->stat.blocks, "%llu entries, %llu blocks",
		   (unsigned long long)entries, (unsigned long long)engine->stat.blocks);
	cursor = 0;
	while ((row = space_next(engine->spaces, &cursor)) != NULL) {
		blocks += row->usage_blocks;
		pinned += row->pinned_bytes;
	}
	HR_ASSERT(pinned == engine->pinned_bytes);
	HR_ASSERTF(blocks <= engine->stat.blocks + engine->blocks_unaccounted,
		   "spaces have %llu of %llu blocks", (unsigned long long)blocks,
		   (unsigned long long)engine->stat.blocks);
}
