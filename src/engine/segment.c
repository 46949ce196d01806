/* segment.c - appending and stability.
 *
 * One function, log_progress(), does what has become possible: it advances stability in order within each segment, starts footers,
 * closes units that are due, starts a sync when somebody needs one. It runs after every completion and from a timer; calls from
 * outside only change state and ask for a turn.
 *
 * Why a unit is closed: it is full; its linger time is over; it holds a record that wants to be stable and no write of its segment is
 * under way (so that commits gather while the device is busy: group commit); a flush; the segment ends.
 */
#include "engine/segment.h"

#include <errno.h>
#include <stdlib.h>

#include <headrace/error.h>

#include "base/crc.h"
#include "engine/blocking.h"
#include "engine/seglog.h"

enum { LINGER_US = 2000, DESC_CHUNK_BYTES_MIN = 64 << 10 };

/* -- the store of descriptors ---------------------------------------------------------------------------------------------------- */

int
desc_store_add(struct desc_store *store, const uint8_t *bytes, uint32_t len)
{
	uint32_t chunks = (uint32_t)div_round_up((uint64_t)store->bytes + len, store->chunk_bytes);

	HR_ASSERT(chunks <= DESC_CHUNKS_MAX);
	while (store->chunks_count < chunks) {
		uint8_t *chunk = page_alloc(store->chunk_bytes);

		if (chunk == NULL) {
			return -ENOMEM;
		}
		store->chunks[store->chunks_count++] = chunk;
	}
	store->crc = crc32c(store->crc, bytes, len);
	while (len > 0) {
		uint32_t at = store->bytes % store->chunk_bytes;
		uint32_t n = HR_MIN(len, store->chunk_bytes - at);

		memcpy(store->chunks[store->bytes / store->chunk_bytes] + at, bytes, n);
		store->bytes += n;
		bytes += n;
		len -= n;
	}
	return 0;
}

uint8_t *
desc_store_copy(const struct desc_store *store, uint32_t len)
{
	uint8_t *copy = page_alloc(len > 0 ? len : 1);

	HR_ASSERT(len <= store->bytes);
	for (uint32_t at = 0; copy != NULL && at < len; at += store->chunk_bytes) {
		memcpy(copy + at, store->chunks[at / store->chunk_bytes],
		       HR_MIN(len - at, store->chunk_bytes));
	}
	return copy;
}

void
desc_store_fini(struct desc_store *store)
{
	for (uint32_t i = 0; i < store->chunks_count; i++) {
		free(store->chunks[i]);
	}
	store->chunks_count = 0;
}

/* -- life of the log ------------------------------------------------------------------------------------------------------------- */

int
log_create(struct io *io, struct io_device *device, const struct superblock *slice,
	   const struct log_options *options, struct seglog **ret_log)
{
	struct seglog *log;

	if (slice->flags_ro_compat != 0) {
		return -HR_EVERSION;
	}
	log = calloc(1, sizeof(*log));
	if (log == NULL) {
		return -ENOMEM;
	}
	log->segments = calloc(slice->segments_count, sizeof(*log->segments));
	if (log->segments == NULL) {
		free(log);
		return -ENOMEM;
	}
	log->io = io;
	log->device = device;
	log->slice = *slice;
	if (options != NULL) {
		log->options = *options;
	}
	log->options.linger_us = log->options.linger_us != 0 ? log->options.linger_us : LINGER_US;
	log->options.free_reserve = log->options.free_reserve != 0 ? log->options.free_reserve : 1;
	log->stable_cap = UINT64_MAX;
	list_init(&log->opens);
	list_init(&log->units_live);
	list_init(&log->frees);
	list_init(&log->flushes);
	list_init(&log->answers);
	list_init(&log->reads);
	*ret_log = log;
	return 0;
}

int
open_segment_make(struct seglog *log, uint32_t segment, struct open_segment **ret_open)
{
	struct open_segment *open = calloc(1, sizeof(*open));

	if (open == NULL) {
		return -ENOMEM;
	}
	open->log = log;
	open->segment = segment;
	open->store.chunk_bytes = (uint32_t)HR_MAX(log->slice.segment_bytes / DESC_CHUNKS_MAX,
						   (uint64_t)DESC_CHUNK_BYTES_MIN);
	list_init(&open->units);
	list_add_tail(&log->opens, &open->link);
	log->segments[segment].open = open;
	*ret_open = open;
	return 0;
}

void
open_segment_free(struct open_segment *open)
{
	HR_ASSERT(list_empty(&open->units));
	open->log->segments[open->segment].open = NULL;
	list_del(&open->link);
	desc_store_fini(&open->store);
	free(open->iov);
	free(open);
}

static void
unit_free(struct unit *unit)
{
	if (unit->state == U_WRITTEN) {
		unit->open->log->unsynced_count--;
	}
	list_del(&unit->link);
	list_del(&unit->live_link);
	free(unit->header);
	free(unit->iov);
	free(unit);
}

void
log_destroy(struct seglog *log)
{
	struct unit *unit;
	struct open_segment *open;

	if (log == NULL) {
		return;
	}
	HR_ASSERTF(log->ops_count == 0, "ops_count=%u", log->ops_count);
	HR_ASSERT(list_empty(&log->frees) && list_empty(&log->reads) && list_empty(&log->answers));
	while ((unit = list_first_entry(&log->units_live, struct unit, live_link)) != NULL) {
		unit_free(unit);
	}
	while ((open = list_first_entry(&log->opens, struct open_segment, link)) != NULL) {
		open_segment_free(open);
	}
	io_timer_cancel(log->io, &log->timer);
	free(log->preparing.zeros);
	free(log->segments);
	free(log);
}

static void
timer_due(void *arg)
{
	log_progress(arg);
}

void
log_poke(struct seglog *log)
{
	io_timer_set(log->io, &log->timer, io_now_us(log->io), timer_due, log);
}

/* -- segments -------------------------------------------------------------------------------------------------------------------- */

void
log_segment_became_free(struct seglog *log, uint32_t segment)
{
	struct segment *seg = &log->segments[segment];

	seg->state = SEG_FREE;
	seg->records_count = seg->data_bytes = seg->footer_bytes = 0;
	log->free_count++;
	log->room_new = true;
}

static bool
segment_available(const struct seglog *log, enum segment_class class)
{
	return log->free_count > (class == CLASS_SURVIVOR ? 0 : log->options.free_reserve);
}

static int
segment_open(struct seglog *log, enum segment_class class, struct open_segment **ret_open)
{
	uint32_t count = log->slice.segments_count;
	struct segment *seg;
	uint32_t s;
	int rc;

	if (!segment_available(log, class)) {
		return -EAGAIN;
	}
	/* Round and round, so that flash wears evenly. */
	for (s = log->free_cursor; log->segments[s].state != SEG_FREE; s = (s + 1) % count) {
	}
	rc = open_segment_make(log, s, ret_open);
	if (rc != 0) {
		return rc;
	}
	log->free_cursor = (s + 1) % count;
	log->free_count--;
	seg = &log->segments[s];
	seg->state = SEG_OPEN;
	seg->class = (uint8_t) class;
	seg->generation = ++log->generation_newest;
	log->class_open[class] = *ret_open;
	return 0;
}

/* -- units ----------------------------------------------------------------------------------------------------------------------- */

/* What a record takes in a unit. */
struct demand {
	uint32_t desc_bytes, value_bytes, iov_count;
};

static uint32_t
unit_header_bytes(uint32_t descs_bytes)
{
	return (uint32_t)align_up(UNIT_HEADER_BYTES + (uint64_t)descs_bytes, PAGE_BYTES);
}

/* Room in the unit that is gathering, but for the segment's end. */
static bool
unit_fits(const struct seglog *log, const struct unit *unit, const struct demand *d)
{
	return unit->values_bytes + d->value_bytes <= log->slice.unit_bytes_max &&
	       UNIT_HEADER_BYTES + unit->descs_bytes + d->desc_bytes <= UNIT_HEADER_BYTES_MAX &&
	       1 + unit->iov_count + d->iov_count <= IO_IOV_MAX;
}

/* Room before the segment's end, with the footer that would list everything; in the gathering unit or in a new one behind it. */
static bool
segment_fits(const struct seglog *log, const struct open_segment *open, bool new_unit,
	     const struct demand *d)
{
	const struct unit *unit = open->gathering;
	uint32_t gathered = unit != NULL ? unit->descs_bytes : 0;
	uint64_t end = open->end_off;

	if (unit != NULL && new_unit) {
		end += unit_header_bytes(unit->descs_bytes) + unit->values_bytes;
	}
	if (unit != NULL && !new_unit) {
		end += unit_header_bytes(unit->descs_bytes + d->desc_bytes) + unit->values_bytes +
		       d->value_bytes;
	} else {
		end += unit_header_bytes(d->desc_bytes) + d->value_bytes;
	}
	return end + footer_bytes_for(open->store.bytes + gathered + d->desc_bytes) <=
	       log->slice.segment_bytes;
}

static struct unit *
unit_gather(struct seglog *log, struct open_segment *open)
{
	struct unit *unit = calloc(1, sizeof(*unit));

	if (unit == NULL) {
		return NULL;
	}
	unit->open = open;
	unit->state = U_GATHERING;
	unit->id = ++log->unit_id_newest;
	unit->unit_off = open->end_off;
	unit->close_at_us = io_now_us(log->io) + log->options.linger_us;
	list_init(&unit->records);
	list_init(&unit->stable_wait);
	list_add_tail(&open->units, &unit->link);
	list_add_tail(&log->units_live, &unit->live_link);
	open->gathering = unit;
	return unit;
}

static bool
submit_possible(const struct seglog *log)
{
	return log->counters.units_inflight < LOG_UNITS_INFLIGHT_MAX && log->failed == 0;
}

/* Every unit with a sequence at or below it is stable. */
static uint64_t
stable_sequence(const struct seglog *log)
{
	const struct unit *unit;
	uint64_t stable = log->sequence_newest;

	list_for_each_entry(unit, &log->units_live, live_link) {
		if (unit->state != U_GATHERING) {
			stable = HR_MIN(stable, unit->sequence - 1);
		}
	}
	return HR_MIN(stable, log->stable_cap);
}

/* Places the values, encodes the descriptors, lists the memory to be written. */
static void
unit_lay_out(struct seglog *log, struct unit *unit)
{
	struct open_segment *open = unit->open;
	struct log_record *record;
	uint32_t value_off = unit->unit_off + unit->header_bytes;
	uint32_t at = UNIT_HEADER_BYTES;
	unsigned iovs = 1;

	unit->iov[0] = (struct iovec){ unit->header, unit->header_bytes };
	list_for_each_entry(record, &unit->records, link) {
		struct desc *d = &record->desc;

		d->value_off = d->stored_bytes > 0 ? value_off : 0;
		value_off += pages_bytes(d->stored_bytes);
		at += desc_encode(d, unit->header + at);
		for (unsigned i = 0; i < record->iov_count; i++) {
			unit->iov[iovs++] = record->iov[i];
		}
	}
	HR_ASSERTF(at == UNIT_HEADER_BYTES + unit->descs_bytes, "at=%u descs_bytes=%u", at,
		   unit->descs_bytes);
	HR_ASSERTF(value_off == unit->unit_off + unit->header_bytes + unit->values_bytes,
		   "value_off=%u", value_off);
	HR_ASSERT(iovs == 1 + unit->iov_count && open->end_off == unit->unit_off);
	(void)log;
}

static void
unit_header_make(struct seglog *log, struct unit *unit)
{
	const struct segment *seg = &log->segments[unit->open->segment];
	struct unit_header h = {
		.generation = seg->generation,
		.sequence = unit->sequence,
		.stable_sequence = stable_sequence(log),
		.birth_max = log->birth_newest,
		.segment_idx = unit->open->segment,
		.unit_off = unit->unit_off,
		.header_bytes = unit->header_bytes,
		.unit_bytes = unit->header_bytes + unit->values_bytes,
		.records_count = unit->records_count,
		.descriptors_bytes = unit->descs_bytes,
		.kind = UNIT_RECORDS,
		.class = seg->class,
		.made_ms = io_wall_ms(log->io),
	};

	memcpy(h.shard_uuid, log->slice.shard_uuid, 16);
	unit_header_encode(&h, unit->header);
}

static void unit_written(void *arg, int64_t result);

/* Closes the gathering unit and writes it. -ENOMEM leaves it gathering. */
static int
unit_submit(struct seglog *log, struct open_segment *open)
{
	struct unit *unit = open->gathering;
	struct segment *seg = &log->segments[open->segment];

	HR_ASSERT(submit_possible(log) && unit->records_count > 0);
	unit->header_bytes = unit_header_bytes(unit->descs_bytes);
	unit->header = page_alloc(unit->header_bytes);
	unit->iov = calloc(1 + unit->iov_count, sizeof(*unit->iov));
	if (unit->header == NULL || unit->iov == NULL) {
		goto no_memory;
	}
	unit_lay_out(log, unit);
	if (desc_store_add(&open->store, unit->header + UNIT_HEADER_BYTES, unit->descs_bytes) != 0) {
		goto no_memory;
	}
	unit->state = U_WRITING; /* Before the header is made: its own sequence is not stable. */
	unit->sequence = ++log->sequence_newest;
	unit_header_make(log, unit);
	open->store.records_count += unit->records_count;
	unit->descs_end = open->store.bytes;
	unit->records_end = open->store.records_count;
	open->end_off += unit->header_bytes + unit->values_bytes;
	open->gathering = NULL;
	open->sequence_first = open->units_count++ == 0 ? unit->sequence : open->sequence_first;
	open->sequence_last = unit->sequence;
	seg->records_count = open->store.records_count;
	seg->data_bytes = open->end_off;
	open->writing_count++;
	log->ops_count++;
	log->counters.units_inflight++;
	log->counters.units_written++;
	log->counters.unit_bytes_written += unit->header_bytes + unit->values_bytes;
	io_device_write(log->device, &unit->op, unit->iov, 1 + unit->iov_count,
			log_segment_off(log, open->segment) + unit->unit_off, log_write_flags(log),
			unit_written, unit);
	return 0;
no_memory:
	free(unit->header);
	free(unit->iov);
	unit->header = NULL;
	unit->iov = NULL;
	return -ENOMEM;
}

/* Hands the records back. Those that want to hear of stability are kept on stable_wait. */
static void
unit_answer_written(struct unit *unit, int rc)
{
	struct log_record *record;

	while ((record = list_pop_entry(&unit->records, struct log_record, link)) != NULL) {
		if (record->want_stable) {
			list_add_tail(&unit->stable_wait, &record->link);
		}
		if (record->written != NULL) {
			record->written(record, rc);
		}
	}
}

static void
unit_answer_stable(struct unit *unit, int rc)
{
	struct log_record *record;

	while ((record = list_pop_entry(&unit->stable_wait, struct log_record, link)) != NULL) {
		if (record->stable != NULL) {
			record->stable(record, rc);
		}
	}
}

/* A prefix of the store is on the device, in the order of the units. */
static void
written_prefix_advance(struct open_segment *open)
{
	struct unit *unit;

	list_for_each_entry(unit, &open->units, link) {
		if (unit->state != U_WRITTEN) {
			break;
		}
		if (unit->descs_end > open->descs_written) {
			open->descs_written = unit->descs_end;
			open->records_written = unit->records_end;
		}
	}
}

static void
unit_written(void *arg, int64_t result)
{
	struct unit *unit = arg;
	struct open_segment *open = unit->open;
	struct seglog *log = open->log;
	int rc = result < 0 ? (int)result : 0;

	log->ops_count--;
	log->counters.units_inflight--;
	open->writing_count--;
	log->room_new = true;
	unit->state = U_WRITTEN;
	unit->sync_needed = log_sync_needed(log);
	log->unsynced_count++;
	free(unit->header);
	free(unit->iov);
	unit->header = NULL;
	unit->iov = NULL;
	if (rc != 0) {
		log_fail(log, rc);
		unit_answer_written(unit, rc);
		unit_answer_stable(unit, rc);
		unit_free(unit);
	} else {
		written_prefix_advance(open);
		unit_answer_written(unit, 0);
	}
	log_progress(log);
}

/* -- appending ------------------------------------------------------------------------------------------------------------------- */

/* The class's next record needs another segment, and there is one: the open one is closed for good. */
static void
seal_begin(struct seglog *log, struct open_segment *open)
{
	struct segment *seg = &log->segments[open->segment];

	open->sealing = true;
	log->class_open[seg->class] = NULL;
	seg->state = SEG_SEALING;
	log_poke(log); /* Its units may all be stable already. */
}

/* Makes place for the record. 0: the class's open segment takes it, in its gathering unit or a new one. */
static int
place_make(struct seglog *log, enum segment_class class, const struct demand *d)
{
	struct open_segment *open = log->class_open[class];
	int rc;

	if (open == NULL) {
		return segment_open(log, class, &open);
	}
	if (open->gathering == NULL
		? segment_fits(log, open, true, d)
		: unit_fits(log, open->gathering, d) && segment_fits(log, open, false, d)) {
		return 0;
	}
	if (open->gathering != NULL && !submit_possible(log)) {
		return -EAGAIN;
	}
	if (!segment_fits(log, open, true, d) && !segment_available(log, class)) {
		return -EAGAIN; /* Stays open: something smaller may still fit. */
	}
	if (open->gathering != NULL) {
		rc = unit_submit(log, open);
		if (rc != 0) {
			return rc;
		}
	}
	if (segment_fits(log, open, true, d)) {
		return 0;
	}
	seal_begin(log, open);
	return segment_open(log, class, &open);
}

bool
log_has_room(const struct seglog *log, enum segment_class class, uint32_t value_bytes)
{
	const struct open_segment *open = log->class_open[class];
	const struct demand d = { desc_bytes(KEY_BYTES_MAX, crcs_count_of(value_bytes)),
				  pages_bytes(value_bytes),
				  (uint32_t)div_round_up(value_bytes, CHUNK_BYTES) + 1 };

	if (log->failed != 0 || log->quiescing || !log->recovered) {
		return false;
	}
	if (open == NULL) {
		return segment_available(log, class);
	}
	if (open->gathering != NULL) {
		if (unit_fits(log, open->gathering, &d) && segment_fits(log, open, false, &d)) {
			return true;
		}
		if (!submit_possible(log)) {
			return false;
		}
	}
	return segment_fits(log, open, true, &d) || segment_available(log, class);
}

static void
record_add(struct seglog *log, enum segment_class class, struct unit *unit,
	   struct log_record *record, const struct demand *d)
{
	record->segment = unit->open->segment;
	list_add_tail(&unit->records, &record->link);
	unit->records_count++;
	unit->descs_bytes += d->desc_bytes;
	unit->values_bytes += d->value_bytes;
	unit->iov_count += d->iov_count;
	unit->want_stable_count += record->want_stable;
	*(class == CLASS_SURVIVOR ? &log->counters.payload_bytes_survivor
				  : &log->counters.payload_bytes_fresh) += d->value_bytes;
}

static bool
record_valid(const struct log_record *record)
{
	size_t bytes = 0;
	struct desc d = record->desc;

	for (unsigned i = 0; i < record->iov_count; i++) {
		bytes += record->iov[i].iov_len;
		if (!is_aligned((uintptr_t)record->iov[i].iov_base | record->iov[i].iov_len,
				PAGE_BYTES)) {
			return false;
		}
	}
	d.value_off = 0;
	return desc_valid(&d) && bytes == pages_bytes(d.stored_bytes);
}

int
log_append(struct seglog *log, enum segment_class class, struct log_record *record)
{
	const struct demand d = { desc_size(&record->desc), pages_bytes(record->desc.stored_bytes),
				  record->iov_count };
	struct unit *unit;
	int rc;

	if (log->failed != 0) {
		return -EIO;
	}
	if (record->desc.stored_bytes > log->slice.part_bytes || record->iov_count >= IO_IOV_MAX ||
	    !record_valid(record)) {
		return -EINVAL;
	}
	rc = log->recovered && !log->quiescing ? place_make(log, class, &d) : -EAGAIN;
	if (rc == 0) {
		unit = log->class_open[class]->gathering;
		unit = unit != NULL ? unit : unit_gather(log, log->class_open[class]);
		rc = unit != NULL ? 0 : -ENOMEM;
	}
	if (rc != 0) {
		log->counters.appends_refused++;
		return -EAGAIN; /* Out of memory passes, too. */
	}
	record_add(log, class, unit, record, &d);
	if (unit->values_bytes == log->slice.unit_bytes_max && submit_possible(log) &&
	    unit_submit(log, unit->open) == 0) {
		return 0;
	}
	if (record->want_stable || unit->records_count == 1) {
		log_poke(log);
	}
	return 0;
}

/* -- what has become possible ---------------------------------------------------------------------------------------------------- */

/* In order within each segment. */
static void
stability_advance(struct seglog *log)
{
	struct open_segment *open;
	struct open_segment *tmp;

	list_for_each_entry_safe(open, tmp, &log->opens, link) {
		struct unit *unit;

		while ((unit = list_first_entry(&open->units, struct unit, link)) != NULL &&
		       unit->state == U_WRITTEN && unit->sync_needed <= log->syncs_done) {
			unit_answer_stable(unit, 0);
			unit_free(unit);
		}
	}
}

static bool
unit_due(const struct seglog *log, const struct unit *unit)
{
	return unit->close_now || unit->close_at_us <= io_now_us(log->io) ||
	       unit->values_bytes == log->slice.unit_bytes_max ||
	       (unit->want_stable_count > 0 && unit->open->writing_count == 0);
}

/* Closes what is due; for the rest, the timer is set to the earliest end of a linger. */
static void
units_close(struct seglog *log)
{
	uint64_t at_us = UINT64_MAX;

	for (int class = 0; class < CLASS_COUNT; class ++) {
		struct open_segment *open = log->class_open[class];
		struct unit *unit = open != NULL ? open->gathering : NULL;

		if (unit == NULL) {
			continue;
		}
		if (!unit_due(log, unit)) {
			at_us = HR_MIN(at_us, unit->close_at_us);
		} else if (submit_possible(log) && unit_submit(log, open) != 0) {
			at_us =
			    HR_MIN(at_us, io_now_us(log->io) +
					      log->options.linger_us); /* no memory: again later */
		}
	}
	if (at_us != UINT64_MAX) {
		io_timer_set(log->io, &log->timer, at_us, timer_due, log);
	}
}

static uint64_t
flush_id_max(const struct seglog *log)
{
	const struct pending_cb *flush = list_last_entry(&log->flushes, struct pending_cb, link);

	return flush != NULL ? flush->unit_id_max : 0;
}

/* Somebody waits for the unit, or for a written one behind it, which is stable only when it is, too. */
static bool
unit_awaited(const struct unit *unit)
{
	const struct unit *behind = unit;
	bool awaited = false;

	while (!awaited && &behind->link != &unit->open->units) {
		awaited = behind->state == U_WRITTEN && behind->want_stable_count > 0;
		behind = list_entry(behind->link.next, struct unit, link);
	}
	return awaited;
}

/* A sync begun now would bring somebody further. */
static bool
sync_wanted(const struct seglog *log)
{
	const struct unit *unit;
	uint64_t flush_id = flush_id_max(log);

	if (log->unsynced_count >= UNSYNCED_UNITS_MAX) {
		return true;
	}
	list_for_each_entry(unit, &log->units_live, live_link) {
		if (unit->state == U_WRITTEN && unit->sync_needed > log->syncs_done &&
		    (unit->open->sealing || unit->id <= flush_id || unit_awaited(unit))) {
			return true;
		}
	}
	return freeing_wants_sync(log);
}

static void
sync_done(void *arg, int64_t result)
{
	struct seglog *log = arg;

	log->ops_count--;
	log->sync_running = false;
	if (result < 0) {
		/* What it should have made stable may be lost without a trace (fsyncgate): never tried again. */
		log_fail(log, (int)result);
	} else {
		log->syncs_done = log->syncs_started;
	}
	log_progress(log);
}

static void
sync_start(struct seglog *log)
{
	if (log->sync_running || log->failed != 0 || log->quiescing || !sync_wanted(log)) {
		return;
	}
	log->sync_running = true;
	log->syncs_started++;
	log->ops_count++;
	log->counters.syncs++;
	io_device_sync(log->device, &log->sync_op, sync_done, log);
}

static void
flushes_answer(struct seglog *log)
{
	struct pending_cb *flush;

	while ((flush = list_first_entry(&log->flushes, struct pending_cb, link)) != NULL) {
		struct unit *oldest = list_first_entry(&log->units_live, struct unit, live_link);
		int rc = log->failed != 0 ? -EIO : log->quiescing ? -ECANCELED : 0;

		if (rc == 0 && oldest != NULL && oldest->id <= flush->unit_id_max) {
			break;
		}
		list_del(&flush->link);
		flush->cb(flush->arg, rc);
		free(flush);
	}
}

/* Nothing that is not under way will be written any more: says so to everybody who waits for it. */
static void
units_give_up(struct seglog *log, int rc)
{
	struct unit *unit;
	struct unit *tmp;

	list_for_each_entry_safe(unit, tmp, &log->units_live, live_link) {
		if (unit->state == U_WRITING) {
			continue;
		}
		if (unit->state == U_GATHERING) {
			unit->open->gathering = NULL;
			unit_answer_written(unit, rc);
		}
		unit_answer_stable(unit, rc);
		unit_free(unit);
	}
}

void
log_fail(struct seglog *log, int rc)
{
	log->counters.write_errors++;
	if (log->failed == 0) {
		log->failed = rc;
	}
}

static void
progress_turn(struct seglog *log)
{
	/* After a failure nothing becomes stable any more: a unit behind one that is missing cannot be reached by recovery. */
	if (log->failed == 0) {
		stability_advance(log);
	}
	if (log->failed != 0 || log->quiescing) {
		log->scrubbing.walk.stop = true;
		units_give_up(log, log->failed != 0 ? -EIO : -ECANCELED);
	} else {
		units_close(log);
		seal_progress(log);
		prepare_progress(log);
		scrub_progress(log);
	}
	freeing_progress(log);
	flushes_answer(log);
	reads_progress(log);
	sync_start(log);
}

void
log_progress(struct seglog *log)
{
	/* Callbacks of users do not come here (they may only poke), but completions of one turn may. */
	HR_ASSERT(!log->progressing);
	log->progressing = true;
	progress_turn(log);
	log->progressing = false;
	if (log->quiescing && log->ops_count == 0 && list_empty(&log->frees) &&
	    list_empty(&log->reads) && list_empty(&log->answers)) {
		void (*cb)(void *arg) = log->quiesce_cb;

		log->quiesce_cb = NULL;
		if (cb != NULL) {
			cb(log->quiesce_arg); /* may destroy the log */
		}
		return;
	}
	if (log->room_new && log->recovered && !log->quiescing) {
		log->room_new = false;
		if (log->room_cb != NULL) {
			log->room_cb(log->room_arg);
		}
	}
}

/* -- calls ----------------------------------------------------------------------------------------------------------------------- */

void
log_flush(struct seglog *log, void (*cb)(void *arg, int rc), void *arg)
{
	struct pending_cb *flush = calloc(1, sizeof(*flush));

	HR_ASSERT(flush != NULL);
	for (int class = 0; class < CLASS_COUNT; class ++) {
		if (log->class_open[class] != NULL && log->class_open[class]->gathering != NULL) {
			log->class_open[class]->gathering->close_now = true;
		}
	}
	flush->unit_id_max = log->unit_id_newest;
	flush->cb = cb;
	flush->arg = arg;
	list_add_tail(&log->flushes, &flush->link);
	log_poke(log);
}

void
log_quiesce(struct seglog *log, void (*cb)(void *arg), void *arg)
{
	log->quiescing = true;
	log->quiesce_cb = cb;
	log->quiesce_arg = arg;
	log_poke(log);
}

bool
log_failed(const struct seglog *log, int *ret_errno)
{
	if (log->failed != 0) {
		*ret_errno = -log->failed;
	}
	return log->failed != 0;
}

void
log_on_room(struct seglog *log, void (*cb)(void *arg), void *arg)
{
	log->room_cb = cb;
	log->room_arg = arg;
}

uint32_t
log_free_count(const struct seglog *log)
{
	return log->free_count > log->options.free_reserve
		   ? log->free_count - log->options.free_reserve
		   : 0;
}

uint32_t
log_segments_count(const struct seglog *log)
{
	return log->slice.segments_count;
}

void
log_segment_info(const struct seglog *log, uint32_t segment, struct segment_info *ret)
{
	const struct segment *seg = &log->segments[segment];

	ret->state = seg->state;
	ret->class = seg->class;
	ret->generation = seg->generation;
	ret->records_count = seg->records_count;
	ret->data_bytes = seg->data_bytes;
}

uint64_t
log_generation_oldest(const struct seglog *log, uint32_t segment_except)
{
	uint64_t oldest = UINT64_MAX;

	for (uint32_t s = 0; s < log->slice.segments_count; s++) {
		const struct segment *seg = &log->segments[s];

		if (s != segment_except && seg->state >= SEG_OPEN && seg->state <= SEG_FREEING) {
			oldest = HR_MIN(oldest, seg->generation);
		}
	}
	return oldest;
}

uint64_t
log_generation_newest(const struct seglog *log)
{
	return log->generation_newest;
}

uint64_t
log_value_offset(const struct seglog *log, uint32_t segment, uint32_t value_off)
{
	return log_segment_off(log, segment) + value_off;
}

uint64_t
log_birth_next(struct seglog *log)
{
	return ++log->birth_newest;
}

void
log_birth_seen(struct seglog *log, uint64_t birth)
{
	log->birth_newest = HR_MAX(log->birth_newest, birth);
}

void
log_counters_get(const struct seglog *log, struct log_counters *ret)
{
	*ret = log->counters;
	ret->superblocks_damaged = log->slice.copies_damaged;
	ret->free_count = log->free_count;
	ret->open_count = ret->sealed_count = 0;
	for (uint32_t s = 0; s < log->slice.segments_count; s++) {
		ret->open_count += log->segments[s].state == SEG_OPEN ||
				   log->segments[s].state == SEG_SEALING;
		ret->sealed_count += log->segments[s].state == SEG_SEALED;
	}
}

static void
open_segment_check(const struct seglog *log, const struct open_segment *open)
{
	const struct segment *seg = &log->segments[open->segment];
	const struct unit *unit;
	uint32_t writing = 0;
	uint64_t off = 0;

	HR_ASSERT(seg->open == open && (seg->state == SEG_OPEN || seg->state == SEG_SEALING));
	list_for_each_entry(unit, &open->units, link) {
		/* L1: contiguous, in order. */
		HR_ASSERTF(off == 0 || unit->unit_off == off, "unit_off=%u", unit->unit_off);
		off = (uint64_t)unit->unit_off + unit->header_bytes + unit->values_bytes;
		writing += unit->state == U_WRITING;
		HR_ASSERT((unit->state == U_GATHERING) == (unit == open->gathering));
		HR_ASSERT(unit->state == U_GATHERING ||
			  (unit->sequence > 0 && unit->sequence <= log->sequence_newest));
	}
	HR_ASSERT(writing == open->writing_count);
	/* L2: no footer before all units are stable. */
	HR_ASSERT(!open->footer_writing || list_empty(&open->units));
	HR_ASSERT(open->end_off + (uint64_t)footer_bytes_for(open->store.bytes) <=
		  log->slice.segment_bytes);
}

void
log_check(const struct seglog *log)
{
	const struct open_segment *open;
	uint32_t free_count = 0;

	for (uint32_t s = 0; s < log->slice.segments_count; s++) {
		const struct segment *seg = &log->segments[s];

		free_count += seg->state == SEG_FREE;
		HR_ASSERT((seg->open != NULL) ==
			  (seg->state == SEG_OPEN || seg->state == SEG_SEALING));
		HR_ASSERT(seg->generation <= log->generation_newest);
	}
	HR_ASSERTF(free_count == log->free_count, "free_count=%u counted=%u", log->free_count,
		   free_count);
	list_for_each_entry(open, &log->opens, link) {
		open_segment_check(log, open);
	}
	HR_ASSERT(log->counters.units_inflight <= LOG_UNITS_INFLIGHT_MAX);
}
