/* seal.c - the end of a segment's use and the beginning of the next: footers, freed marks, preparing.
 *
 * A footer is written once all units of its segment are stable; nobody waits for its own stability, because without it the segment
 * is walked and loses nothing. Only footers of recovery are followed until they are stable (stable_cap).
 */
#include <errno.h>
#include <stdlib.h>

#include "engine/blocking.h"
#include "engine/seglog.h"

/* -- footers --------------------------------------------------------------------------------------------------------------------- */

static void
footer_written(void *arg, int64_t result)
{
	struct open_segment *open = arg;
	struct seglog *log = open->log;
	struct segment *seg = &log->segments[open->segment];

	log->ops_count--;
	open->footer_writing = false;
	if (result < 0) {
		log_fail(log, (int)result);
		log_progress(log);
		return;
	}
	seg->state = SEG_SEALED;
	seg->footer_bytes = footer_bytes_for(open->store.bytes);
	log->counters.segments_sealed++;
	log->counters.footer_bytes_written += seg->footer_bytes;
	if (open->recovered) {
		log->recovered_seals--;
		log->recovered_sync_needed =
		    HR_MAX(log->recovered_sync_needed, log_sync_needed(log));
	}
	log->room_new = true; /* There is one more victim to choose from. */
	open_segment_free(open);
	log_progress(log);
}

static void
trailer_make(const struct seglog *log, const struct open_segment *open, uint8_t *ret_bytes)
{
	const struct segment *seg = &log->segments[open->segment];
	struct trailer t = {
		.generation = seg->generation,
		.sequence_first = open->sequence_first,
		.sequence_last = open->sequence_last,
		.birth_max = log->birth_newest,
		.segment_idx = open->segment,
		.footer_bytes = footer_bytes_for(open->store.bytes),
		.records_count = open->store.records_count,
		.descriptors_bytes = open->store.bytes,
		.units_count = open->units_count,
		.kind = TRAILER_SEALED,
		.class = seg->class,
		.made_ms = io_wall_ms(log->io),
		.data_bytes = open->end_off,
		.descriptors_crc = open->store.crc,
	};

	memcpy(t.shard_uuid, log->slice.shard_uuid, 16);
	trailer_encode(&t, ret_bytes);
}

/* The store's chunks become the footer: what lies behind the descriptors in them is zero. */
static int
footer_lay_out(struct open_segment *open)
{
	struct desc_store *store = &open->store;
	uint32_t footer_bytes = footer_bytes_for(store->bytes);
	uint32_t chunks = (uint32_t)div_round_up(footer_bytes, store->chunk_bytes);
	uint32_t trailer_off = footer_bytes - TRAILER_BYTES;

	while (store->chunks_count < chunks) {
		uint8_t *chunk = page_alloc(store->chunk_bytes);

		if (chunk == NULL) {
			return -ENOMEM;
		}
		store->chunks[store->chunks_count++] = chunk;
	}
	open->iov = calloc(chunks, sizeof(*open->iov));
	if (open->iov == NULL) {
		return -ENOMEM;
	}
	for (uint32_t i = 0; i < chunks; i++) {
		uint32_t at = i * store->chunk_bytes;

		open->iov[i] = (struct iovec){ store->chunks[i],
					       HR_MIN(store->chunk_bytes, footer_bytes - at) };
	}
	trailer_make(open->log, open,
		     store->chunks[trailer_off / store->chunk_bytes] +
			 trailer_off % store->chunk_bytes);
	return (int)chunks;
}

static void
footer_write(struct seglog *log, struct open_segment *open)
{
	uint32_t footer_bytes = footer_bytes_for(open->store.bytes);
	uint64_t end = log_segment_off(log, open->segment) + log->slice.segment_bytes;
	int iov_count = footer_lay_out(open);

	HR_ASSERT(list_empty(&open->units)); /* L2 */
	if (iov_count < 0) {
		return; /* No memory: tried again in the next turn. */
	}
	open->footer_writing = true;
	log->ops_count++;
	io_device_write(log->device, &open->op, open->iov, (unsigned)iov_count, end - footer_bytes,
			log_write_flags(log), footer_written, open);
}

void
seal_progress(struct seglog *log)
{
	struct open_segment *open;

	list_for_each_entry(open, &log->opens, link) {
		if (open->sealing && !open->footer_writing && list_empty(&open->units)) {
			footer_write(log, open);
		}
	}
	/* From here on, a header may claim again that everything before it is stable. */
	if (log->stable_cap != UINT64_MAX && log->recovered && log->recovered_seals == 0 &&
	    log->recovered_sync_needed <= log->syncs_done) {
		log->stable_cap = UINT64_MAX;
	}
}

/* -- freeing --------------------------------------------------------------------------------------------------------------------- */

bool
freeing_wants_sync(const struct seglog *log)
{
	const struct freeing *f;

	list_for_each_entry(f, &log->frees, link) {
		if (f->marked && f->sync_needed > log->syncs_done) {
			return true;
		}
	}
	return false;
}

static void
mark_written(void *arg, int64_t result)
{
	struct freeing *f = arg;
	struct seglog *log = f->log;

	log->ops_count--;
	f->pending--;
	f->rc = result < 0 ? (int)result : f->rc;
	if (f->pending == 0) {
		f->marked = true;
		f->sync_needed = log_sync_needed(log);
		log->counters.mark_bytes_written += 2 * PAGE_BYTES;
		if (f->rc != 0) {
			log_fail(log, f->rc);
		}
	}
	log_progress(log);
}

static void
marks_make(const struct seglog *log, uint32_t segment, uint8_t *pages)
{
	struct unit_header h = {
		.generation = log->segments[segment].generation,
		.sequence = log->sequence_newest,
		.birth_max = log->birth_newest,
		.segment_idx = segment,
		.header_bytes = PAGE_BYTES,
		.unit_bytes = PAGE_BYTES,
		.kind = UNIT_FREED,
		.made_ms = io_wall_ms(log->io),
	};
	struct trailer t = {
		.generation = h.generation,
		.sequence_last = h.sequence,
		.birth_max = h.birth_max,
		.segment_idx = segment,
		.footer_bytes = PAGE_BYTES,
		.kind = TRAILER_FREED,
		.made_ms = h.made_ms,
	};

	memcpy(h.shard_uuid, log->slice.shard_uuid, 16);
	memcpy(t.shard_uuid, log->slice.shard_uuid, 16);
	unit_header_encode(&h, pages);
	trailer_encode(&t, pages + 2 * PAGE_BYTES - TRAILER_BYTES);
}

int
freeing_start(struct seglog *log, uint32_t segment, void (*cb)(void *arg, int rc), void *arg)
{
	struct freeing *f = calloc(1, sizeof(*f));
	uint64_t off = log_segment_off(log, segment);

	if (f == NULL || (f->pages = page_alloc(2 * PAGE_BYTES)) == NULL) {
		free(f);
		return -ENOMEM;
	}
	f->log = log;
	f->segment = segment;
	f->cb = cb;
	f->arg = arg;
	f->pending = 2;
	f->iov[0] = (struct iovec){ f->pages, PAGE_BYTES };
	f->iov[1] = (struct iovec){ f->pages + PAGE_BYTES, PAGE_BYTES };
	marks_make(log, segment, f->pages);
	log->segments[segment].state = SEG_FREEING;
	list_add_tail(&log->frees, &f->link);
	log->ops_count += 2;
	io_device_write(log->device, &f->op[0], &f->iov[0], 1, off, log_write_flags(log),
			mark_written, f);
	io_device_write(log->device, &f->op[1], &f->iov[1], 1,
			off + log->slice.segment_bytes - PAGE_BYTES, log_write_flags(log),
			mark_written, f);
	return 0;
}

void
log_segment_free(struct seglog *log, uint32_t segment, void (*cb)(void *arg, int rc), void *arg)
{
	struct pending_cb *refused;
	int rc = log->failed != 0 ? -EIO : log->quiescing ? -ECANCELED : 0;

	HR_ASSERTF(log->segments[segment].state == SEG_SEALED, "segment=%u state=%u", segment,
		   log->segments[segment].state);
	rc = rc != 0 ? rc : freeing_start(log, segment, cb, arg);
	if (rc == 0) {
		return;
	}
	refused = calloc(1, sizeof(*refused));
	HR_ASSERT(refused != NULL);
	refused->rc = rc;
	refused->cb = cb;
	refused->arg = arg;
	list_add_tail(&log->answers, &refused->link);
	log_poke(log);
}

void
freeing_progress(struct seglog *log)
{
	struct freeing *f;
	struct freeing *tmp;
	struct list_head over;

	/* Callbacks may free further segments; these come in the next turn. */
	list_init(&over);
	list_for_each_entry_safe(f, tmp, &log->frees, link) {
		bool stable = f->marked && f->rc == 0 && f->sync_needed <= log->syncs_done;

		if (f->pending > 0 || (!stable && log->failed == 0 && !log->quiescing)) {
			continue;
		}
		f->rc = stable ? 0 : log->failed != 0 ? -EIO : -ECANCELED;
		list_move_tail(&over, &f->link);
	}
	while ((f = list_pop_entry(&over, struct freeing, link)) != NULL) {
		if (f->rc == 0) {
			log_segment_became_free(log, f->segment); /* L3 */
			log->counters.segments_freed++;
		} else {
			log->segments[f->segment].state = SEG_BAD;
		}
		if (f->cb != NULL) {
			f->cb(f->arg, f->rc);
		}
		free(f->pages);
		free(f);
	}
}

/* -- preparing ------------------------------------------------------------------------------------------------------------------- */

static void prepare_write(struct seglog *log);

/* One segment is done (or none will be): the next turn of log_progress() goes on. */
static void
prepare_over(struct seglog *log, int rc)
{
	log->ops_count--;
	log->preparing.running = false;
	if (rc != 0) {
		log->preparing.wanted = false;
		log_fail(log, rc);
	}
	log_progress(log);
}

static void
prepare_recorded(void *arg, int rc)
{
	struct seglog *log = arg;

	if (rc == 0) {
		log_segment_became_free(log, log->slice.segments_prepared - 1);
	}
	prepare_over(log, rc);
}

static void
prepare_synced(void *arg, int64_t result)
{
	struct seglog *log = arg;

	if (result < 0) {
		prepare_over(log, (int)result);
		return;
	}
	/* Only now may the superblock say so: the segment's blocks are allocated and written for good. */
	log->slice.segments_prepared++;
	superblock_write(log->io, log->device, &log->slice, prepare_recorded, log);
}

static void
prepare_written(void *arg, int64_t result)
{
	struct seglog *log = arg;
	struct preparing *p = &log->preparing;

	if (result < 0 || log->quiescing || log->failed != 0) {
		prepare_over(log, result < 0 ? (int)result : 0);
		return;
	}
	p->off += (uint32_t)result;
	log->counters.prepare_bytes_written += (uint64_t)result;
	if (p->off < log->slice.segment_bytes) {
		prepare_write(log);
	} else {
		io_device_sync(log->device, &p->op, prepare_synced, log);
	}
}

static void
prepare_write(struct seglog *log)
{
	struct preparing *p = &log->preparing;

	io_device_write(log->device, &p->op, p->iov, PREPARE_IOV_COUNT,
			log_segment_off(log, log->slice.segments_prepared) + p->off, 0,
			prepare_written, log);
}

void
prepare_progress(struct seglog *log)
{
	struct preparing *p = &log->preparing;

	if (!p->wanted || p->running || !log->recovered) {
		return;
	}
	if (log->slice.segments_prepared == log->slice.segments_count) {
		p->wanted = false;
		free(p->zeros);
		p->zeros = NULL;
		return;
	}
	p->zeros = p->zeros != NULL ? p->zeros : page_alloc(PREPARE_BUF_BYTES);
	if (p->zeros == NULL) {
		return;
	}
	for (int i = 0; i < PREPARE_IOV_COUNT; i++) {
		p->iov[i] = (struct iovec){ p->zeros, PREPARE_BUF_BYTES };
	}
	p->running = true;
	p->off = 0;
	log->ops_count++;
	prepare_write(log);
}

void
log_prepare_start(struct seglog *log)
{
	log->preparing.wanted = true;
	log_poke(log);
}
