/* get.c — GET: DRAM, else one flash read, verified against the index's `check`.
 *
 * Gets of the same record that come while it is read hang on the cache entry that is being filled, so there is one read. What waits for
 * a free read slot is bounded; beyond that a get is a miss `busy`.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/crc.h"
#include "engine/engine_impl.h"

enum { READ_ERRORS_MAX = 16 }; /* in a row: then the device counts as failed */

enum outcome { OUT_DONE, OUT_WAIT, OUT_QUEUE };

static bool
get_miss(struct engine_get *get, enum hr_reason reason)
{
	get->status = HR_STATUS_MISS;
	get->reason = (uint8_t)reason;
	get->entry = NULL;
	return true;
}

static void
get_ok(struct engine *engine, struct engine_get *get, struct cache_entry *entry)
{
	get->status = HR_STATUS_OK;
	get->reason = HR_REASON_NONE;
	get->entry = entry;
	get->space->hits++;
	if (get->from_flash) {
		engine->stat.get_hits_flash++;
	} else {
		engine->stat.get_hits_dram++;
	}
}

static void
get_count_miss(struct engine *engine, const struct engine_get *get)
{
	if (get->status == HR_STATUS_MISS) {
		engine->stat.get_misses[get->reason]++;
	}
}

bool
get_was_tried(const struct engine_get *get, place_t place)
{
	for (unsigned i = 0; i < get->tried_count; i++) {
		if (get->tried[i] == place) {
			return true;
		}
	}
	return false;
}

static place_t
part_place(const struct found *found, uint16_t part)
{
	return found->multi != NULL ? found->multi->parts[part].place : found->entry.place;
}

/* ---- one flash read ---- */

static void waiters_retry(struct engine *engine, struct list_head *waiters);

static void
read_free(struct flash_read *read)
{
	struct engine *engine = read->engine;

	engine->reads_now--;
	engine->seg_reads[read->segment]--;
	cache_unref(engine->cache, read->entry);
	free(read);
	reads_pump(engine);
	reclaim_kick(engine);
	engine_async_end(engine);
}

/* Takes the waiters off the entry and makes it unfindable: nobody may join a read that failed. */
static void
read_give_up(struct flash_read *read, struct list_head *ret_waiters)
{
	list_init(ret_waiters);
	list_splice_tail(ret_waiters, &read->entry->waiters);
	read->entry->filling = false;
	cache_drop(read->engine->cache, read->entry);
}

static void
read_ok(struct flash_read *read, const struct found *found)
{
	struct engine *engine = read->engine;
	struct cache_entry *e = read->entry;
	struct list_head waiters;

	e->filling = false;
	e->block_bytes = found->block_bytes;
	e->expiry_ms = found->expiry_ms;
	e->birth = found->multi != NULL ? found->multi->birth : 0;
	e->part = read->part;
	e->parts_count = found->multi != NULL ? found->multi->parts_count : 1;
	list_init(&waiters);
	list_splice_tail(&waiters, &e->waiters);
	while (!list_empty(&waiters)) {
		struct engine_get *get = list_pop_entry(&waiters, struct engine_get, link);

		get->joined = false;
		get->from_flash = true;
		get->birth = e->birth;
		get->expiry_ms = e->expiry_ms;
		cache_ref(e);
		get_ok(engine, get, e);
		get->cb(get);
	}
}

static void
read_miss(struct flash_read *read, enum hr_reason reason)
{
	struct engine *engine = read->engine;
	struct list_head waiters;

	read_give_up(read, &waiters);
	while (!list_empty(&waiters)) {
		struct engine_get *get = list_pop_entry(&waiters, struct engine_get, link);

		get->joined = false;
		get_miss(get, reason);
		get_count_miss(engine, get);
		get->cb(get);
	}
	read_free(read);
}

/* The record's own bytes are bad, or cannot be read: the block is lost, and only it. */
static void
read_lost(struct flash_read *read)
{
	struct engine *engine = read->engine;
	struct space_row *space = space_by_number(engine->spaces, read->space_number);
	struct found found;

	if (record_at(engine, read->space_number, read->space_generation, read->id, read->part,
		      read->place, &found)) {
		/* The tombstone keeps what it may have replaced from coming back when its segment goes; without room for it the block
		 * stays, and is found damaged again. After a drop none is needed, and in the space's new generation it would be
		 * another block's. */
		if (space->generation != read->space_generation ||
		    tombstone_append(engine, space, read->id, log_birth_next(engine->log),
				     log_generation_newest(engine->log), false, NULL, NULL) == 0) {
			record_kill(engine, &found, HR_REASON_CORRUPT);
		}
	}
	read_miss(read, HR_REASON_CORRUPT);
}

/* Whose bytes are they? The segment's descriptors tell a damaged record from another block with the same tag. */
static void
on_descs(void *arg, int rc, const struct desc *descs, uint32_t descs_count)
{
	struct flash_read *read = arg;
	struct engine *engine = read->engine;
	uint32_t value_off = place_value_off(engine, read->place);
	struct list_head waiters;

	for (uint32_t i = 0; rc == 0 && i < descs_count; i++) {
		const struct desc *d = &descs[i];

		if (d->kind != DESC_VALUE || d->value_off != value_off || d->stored_bytes == 0) {
			continue;
		}
		if (memcmp(d->id, read->id, 16) != 0 || d->part != read->part ||
		    d->space_number != read->space_number) {
			struct engine_get *get;

			list_for_each_entry(get, &read->entry->waiters, link) {
				if (get->tried_count < ARRAY_SIZE(get->tried)) {
					get->tried[get->tried_count++] = read->place;
				}
			}
			read_give_up(read, &waiters);
			waiters_retry(engine, &waiters);
			read_free(read);
			return;
		}
	}
	engine->stat.check_mismatches++;
	read_lost(read);
}

static void
on_read(void *arg, int64_t result)
{
	struct flash_read *read = arg;
	struct engine *engine = read->engine;
	struct iovec iov[ARENA_IOV_MAX];
	unsigned iov_count;
	struct found found;
	struct list_head waiters;
	uint32_t check;

	if (engine->state != ENGINE_READY ||
	    !record_at(engine, read->space_number, read->space_generation, read->id, read->part,
		       read->place, &found)) {
		/* It died, or moved, while it was read; or the engine stops, and asks the log for nothing any more. */
		read_give_up(read, &waiters);
		waiters_retry(engine, &waiters);
		read_free(read);
		return;
	}
	if (result == -EAGAIN || result == -ENOMEM) {
		/* The queue or the kernel had no room: that says nothing of the block. */
		read_miss(read, HR_REASON_BUSY);
		return;
	}
	if (result < 0) {
		engine->stat.read_errors++;
		if (++engine->read_errors_in_a_row >= READ_ERRORS_MAX || result == -ENODEV ||
		    result == -ENXIO) {
			engine_fail(engine, (int)result);
		}
		read_lost(read);
		return;
	}
	engine->read_errors_in_a_row = 0;
	iov_count = arena_iov_slice(&read->entry->buf, 0, read->bytes, iov);
	crc32c_chunks(iov, iov_count, engine->slice.chunk_bytes, read->entry->crcs);
	check = index_check_make(read->space_number, read->space_generation, read->id, read->part,
				 read->bytes, read->entry->crcs, read->entry->crcs_count);
	if (check == read->check) {
		read_ok(read, &found);
		read_free(read);
		return;
	}
	if (log_read_descs(engine->log, read->segment, on_descs, read) != 0) {
		engine->stat.check_mismatches++;
		read_lost(read);
	}
}

static enum outcome
read_start(struct engine *engine, struct engine_get *get, const struct found *found, place_t place,
	   uint32_t bytes)
{
	struct flash_read *read;
	struct index_key part_key;

	/* With one under way, there is somebody whose end goes on with those that wait. */
	if (engine->reads_now >= engine->options.reads_max ||
	    (engine->reads_now > 0 && io_device_crowded(engine->device))) {
		return OUT_QUEUE;
	}
	read = calloc(1, sizeof(*read));
	if (read == NULL) {
		get_miss(get, HR_REASON_BUSY);
		return OUT_DONE;
	}
	if (cache_new(engine->cache, engine_tenant_number(engine, get->space->tenant), bytes,
		      &read->entry) != 0) {
		free(read);
		if (engine->reads_now > 0) {
			return OUT_QUEUE; /* A read that ends may free memory. */
		}
		get_miss(get, HR_REASON_BUSY);
		return OUT_DONE;
	}
	part_key = index_key_make(engine->index, found->space_number, found->space_generation,
				  get->id, get->part);
	read->engine = engine;
	read->place = place;
	read->segment = place_segment(engine, place);
	read->check = found->multi != NULL ? found->multi->parts[get->part].check
					   : found->entry.check;
	read->bytes = bytes;
	read->space_number = found->space_number;
	read->space_generation = found->space_generation;
	memcpy(read->id, get->id, 16);
	read->part = get->part;
	list_init(&read->entry->waiters);
	read->entry->filling = true;
	read->entry->crcs_count = (uint32_t)div_round_up(bytes, engine->slice.chunk_bytes);
	cache_publish(engine->cache, read->entry, place, part_key.hash);
	list_add_tail(&read->entry->waiters, &get->link);
	get->joined = true;
	engine->reads_now++;
	engine->seg_reads[read->segment]++;
	engine->async_now++;
	engine->stat.flash_reads++;
	engine->stat.flash_read_bytes += (uint64_t)value_pages(bytes) * ENGINE_PAGE_BYTES;
	io_device_read(engine->device, &read->op, read->entry->buf.iov, read->entry->buf.iov_count,
		       log_value_offset(engine->log, read->segment, place_value_off(engine, place)),
		       on_read, read);
	return OUT_WAIT;
}

/* ---- one get ---- */

/* A value of no bytes has no place on flash to be read: its check, which has been compared, says all. */
static enum outcome
get_empty(struct engine *engine, struct engine_get *get)
{
	struct cache_entry *entry;

	if (cache_new(engine->cache, engine_tenant_number(engine, get->space->tenant), 0, &entry) !=
	    0) {
		get_miss(get, HR_REASON_BUSY);
		return OUT_DONE;
	}
	get_ok(engine, get, entry);
	return OUT_DONE;
}

static enum outcome
get_found(struct engine *engine, struct engine_get *get, struct found *found)
{
	place_t place = part_place(found, get->part);
	struct pending *pending = place_pending(engine, place);
	uint32_t bytes = found->multi != NULL ? multi_part_bytes(engine, found->multi, get->part)
					      : found->entry.bytes;
	struct index_key part_key;
	struct cache_entry *entry;

	get->len_block = found->block_bytes;
	get->expiry_ms = found->expiry_ms;
	get->birth = found->multi != NULL ? found->multi->birth : 0;
	get->from_flash = false;
	record_touch(engine, found, get->part);
	if (pending != NULL) {
		cache_ref(pending->entry);
		get_ok(engine, get, pending->entry);
		return OUT_DONE;
	}
	if (bytes == 0) {
		return get_empty(engine, get);
	}
	part_key = index_key_make(engine->index, found->space_number, found->space_generation,
				  get->id, get->part);
	entry = cache_find(engine->cache, place, part_key.hash, true);
	if (entry != NULL && entry->filling) {
		list_add_tail(&entry->waiters, &get->link);
		get->joined = true;
		engine->stat.reads_shared++;
		cache_unref(engine->cache, entry); /* The read's own reference holds it. */
		return OUT_WAIT;
	}
	if (entry != NULL) {
		get_ok(engine, get, entry);
		return OUT_DONE;
	}
	return read_start(engine, get, found, place, bytes);
}

static bool
get_suits(const struct engine_get *get, const struct found *found)
{
	return !get_was_tried(get, found->entry.place) &&
	       (get->block_bytes == UINT64_MAX || get->block_bytes == found->block_bytes) &&
	       get->part < (found->multi != NULL ? found->multi->parts_count : 1);
}

/* The first candidate that is not known to be another block and has the length and the part that are asked for. */
static enum hr_reason
get_candidate(struct engine *engine, struct engine_get *get, struct found *found)
{
	enum hr_reason reason = HR_REASON_ABSENT;
	uint32_t cursor = 0;

	while (record_find_next(engine, get->space, get->id, found, &cursor)) {
		if (get_suits(get, found)) {
			return HR_REASON_NONE;
		}
		if (!get_was_tried(get, found->entry.place)) {
			get->len_block = found->block_bytes;
			reason = HR_REASON_SIZE;
		}
	}
	return reason;
}

static enum outcome
get_try(struct engine *engine, struct engine_get *get)
{
	struct found found;
	uint8_t reason;

	if (engine->state != ENGINE_READY) {
		get_miss(get, HR_REASON_DOWN);
		return OUT_DONE;
	}
	if (get->deadline_us != 0 && get->deadline_us <= io_now_us(engine->io)) {
		get_miss(get, HR_REASON_DEADLINE);
		return OUT_DONE;
	}
	if (!record_find(engine, get->space, get->id, &found, &reason)) {
		get_miss(get, reason);
		return OUT_DONE;
	}
	reason = get_suits(get, &found) ? HR_REASON_NONE : get_candidate(engine, get, &found);
	if (reason != HR_REASON_NONE) {
		get_miss(get, reason);
		return OUT_DONE;
	}
	if (engine->failed != 0 && place_pending(engine, part_place(&found, get->part)) == NULL) {
		struct index_key key = index_key_make(engine->index, found.space_number,
						      found.space_generation, get->id, get->part);
		struct cache_entry *entry =
		    cache_find(engine->cache, part_place(&found, get->part), key.hash, false);
		bool ready = entry != NULL && !entry->filling;

		if (entry != NULL) {
			cache_unref(engine->cache, entry);
		}
		if (!ready) {
			get_miss(get, HR_REASON_DOWN);
			return OUT_DONE;
		}
	}
	return get_found(engine, get, &found);
}

static bool
get_queue(struct engine *engine, struct engine_get *get, bool at_head)
{
	struct list_head *queue = get->low_priority ? &engine->reads_queue_low
						    : &engine->reads_queue;
	/* Prefetches leave half of the room to those who wait for their answer. */
	uint32_t max = engine->options.reads_queued_max / (get->low_priority ? 2 : 1);

	if (engine->reads_queued >= max) {
		engine->stat.reads_refused++;
		return false;
	}
	if (at_head) {
		list_add(queue, &get->link);
	} else {
		list_add_tail(queue, &get->link);
	}
	get->queued = true;
	engine->reads_queued++;
	engine->stat.reads_queued_high =
	    HR_MAX(engine->stat.reads_queued_high, (uint64_t)engine->reads_queued);
	return true;
}

static bool
get_step(struct engine *engine, struct engine_get *get, bool at_head)
{
	engine_ageing(engine);
	switch (get_try(engine, get)) {
	case OUT_WAIT:
		return false;
	case OUT_QUEUE:
		if (get_queue(engine, get, at_head)) {
			return false;
		}
		get_miss(get, HR_REASON_BUSY);
		break;
	case OUT_DONE:
		break;
	}
	get_count_miss(engine, get);
	return true;
}

bool
engine_get(struct engine *engine, struct engine_get *get)
{
	engine->stat.gets++;
	get->space->gets++;
	get->entry = NULL;
	get->len_block = 0;
	get->queued = false;
	get->joined = false;
	get->tried_count = 0;
	return get_step(engine, get, false);
}

static void
waiters_retry(struct engine *engine, struct list_head *waiters)
{
	while (!list_empty(waiters)) {
		struct engine_get *get = list_pop_entry(waiters, struct engine_get, link);

		get->joined = false;
		if (get_step(engine, get, true)) {
			get->cb(get);
		}
	}
}

/* Read slots are free: those that wait get them, loads before prefetches. */
void
reads_pump(struct engine *engine)
{
	struct list_head *queue;

	while (engine->reads_now < engine->options.reads_max && engine->reads_queued > 0) {
		struct engine_get *get;

		queue = !list_empty(&engine->reads_queue) ? &engine->reads_queue
							  : &engine->reads_queue_low;
		get = list_pop_entry(queue, struct engine_get, link);
		get->queued = false;
		engine->reads_queued--;
		if (get_step(engine, get, true)) {
			get->cb(get); /* The get is its owner's again, and may be gone. */
		} else if (get->queued) {
			return; /* No memory: it waits at the head until a read ends. */
		}
	}
}

void
engine_get_cancel(struct engine *engine, struct engine_get *get)
{
	if (get->queued) {
		list_del(&get->link);
		engine->reads_queued--;
	} else if (get->joined) {
		list_del(&get->link);
	}
	get->queued = false;
	get->joined = false;
}

void
engine_get_done(struct engine *engine, struct engine_get *get)
{
	if (get->entry != NULL) {
		cache_unref(engine->cache, get->entry);
		get->entry = NULL;
	}
}

void
reads_fail_all(struct engine *engine, uint8_t reason)
{
	while (engine->reads_queued > 0) {
		struct list_head *queue = !list_empty(&engine->reads_queue)
					      ? &engine->reads_queue
					      : &engine->reads_queue_low;
		struct engine_get *get = list_pop_entry(queue, struct engine_get, link);

		engine->reads_queued--;
		get->queued = false;
		get_miss(get, reason);
		get_count_miss(engine, get);
		get->cb(get);
	}
}

void
engine_suspect(struct engine *engine, struct space_row *space, const uint8_t id[16], uint16_t part)
{
	struct found found;
	struct index_key key;
	struct cache_entry *entry;
	struct iovec iov[ARENA_IOV_MAX];
	uint32_t crcs[ENGINE_CRCS_MAX];
	uint8_t reason;

	if (!record_find(engine, space, id, &found, &reason) ||
	    part >= (found.multi != NULL ? found.multi->parts_count : 1)) {
		return;
	}
	key = index_key_make(engine->index, space->number, space->generation, id, part);
	entry = cache_find(engine->cache, part_place(&found, part), key.hash, false);
	if (entry == NULL) {
		return;
	}
	if (!entry->filling) {
		crc32c_chunks(iov, arena_iov_slice(&entry->buf, 0, entry->bytes, iov),
			      engine->slice.chunk_bytes, crcs);
		if (memcmp(crcs, entry->crcs, entry->crcs_count * sizeof(crcs[0])) != 0) {
			engine->stat.crc_failures++;
			cache_drop(engine->cache, entry);
		}
	}
	cache_unref(engine->cache, entry);
}
