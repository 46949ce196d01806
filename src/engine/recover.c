/* recover.c - section 6 of docs/format/README.md, in its order.
 *
 * 1. Heads and tails of all segments, many in flight; a tail read of 64 KiB holds most footers whole. Sealed segments hand their records
 *    out at once. What has to be walked is walked by the slot that found it, and its descriptors are kept.
 * 2. The greatest stable sequence of all headers walked decides which units are checked value by value.
 * 3. One sync, so that what was found is stable before anybody hears of it; then the records that survived are handed out and their
 *    segments are left to the log to be sealed.
 *
 * Generations that the previous owner gave out and that left no trace must not be given again: a unit that was lost may lie in front of
 * one that was not, and would make it readable if it came back with the same generation. How many were lost cannot be told (nor how
 * often in a row), so the next one is further by a random number that no two owners draw.
 */
#include "engine/recover.h"

#include <errno.h>
#include <stdlib.h>

#include <headrace/error.h>

#include "base/crc.h"
#include "engine/blocking.h"
#include "engine/seglog.h"

enum {
	SLOTS_COUNT = 32,
	HEAD_BYTES = 16 << 10, /* a longer first header costs a second read */
	TAIL_BYTES = 64 << 10,
	CHECK_DEPTH = 4,
	NUMBERS_SKIPPED = 1 << 20, /* of births and sequences: far more than were under way */
};

/* 2^24 starts fit into 64 bits. */
#define GENERATIONS_SKIPPED_MAX (UINT64_C(1) << 40)

struct rec_unit {
	uint64_t sequence;
	uint32_t unit_off, header_bytes, unit_bytes;
	uint32_t descs_off, record_first, records_count;
};

/* A segment without a usable footer. */
struct walked {
	struct list_head link;
	struct recovery *r;
	struct slot *slot;
	struct seg_walk walk;
	uint16_t class;
	bool check_all; /* its footer was lost: what it left out cannot be told any more */
	int rc;
	struct rec_unit *units;
	uint32_t units_count, units_room;
	uint8_t *descs;
	uint32_t descs_bytes, descs_room;
	uint32_t records_count;
	uint8_t *torn; /* a flag for each record */
};

struct slot {
	struct recovery *r;
	uint32_t segment;
	bool busy;
	unsigned pending;
	int head_rc, tail_rc;
	uint8_t *head; /* of head_room bytes */
	uint32_t head_room;
	uint8_t *tail;	 /* TAIL_BYTES */
	uint8_t *footer; /* a footer longer than the tail */
	struct trailer trailer;
	struct iovec iov[2];
	struct io_op op[2];
};

/* One unit's values under check. */
struct checking {
	struct recovery *r;
	struct walked *w;
	const struct rec_unit *unit;
	uint8_t *buf;
	uint32_t record_idx; /* of those read one by one */
	uint32_t desc_off;
	struct desc desc;
	bool busy;
	struct iovec iov;
	struct io_op op;
};

struct recovery {
	struct seglog *log;
	struct recover_visitor visitor;
	struct recover_result result;
	uint64_t started_us, tails_started_us;
	uint32_t segment_next;
	unsigned slots_busy, checks_busy;
	uint64_t generation_max, sequence_max, stable_max;
	struct list_head walked;
	struct walked *check_segment; /* next unit to check */
	uint32_t check_unit;
	bool *remark; /* segments whose freed marks are not both whole */
	struct io_timer timer;
	struct io_op sync_op;
	struct slot slots[SLOTS_COUNT];
	struct checking checks[CHECK_DEPTH];
};

static void slots_fill(struct recovery *r);
static void checks_fill(struct recovery *r);

/* -- the end --------------------------------------------------------------------------------------------------------------------- */

static void
walked_free(struct walked *w)
{
	list_del(&w->link);
	free(w->units);
	free(w->descs);
	free(w->torn);
	free(w);
}

static void
recovery_free(struct recovery *r)
{
	struct walked *w;

	while ((w = list_first_entry(&r->walked, struct walked, link)) != NULL) {
		walked_free(w);
	}
	for (int i = 0; i < SLOTS_COUNT; i++) {
		free(r->slots[i].head);
		free(r->slots[i].tail);
	}
	for (int i = 0; i < CHECK_DEPTH; i++) {
		free(r->checks[i].buf);
	}
	free(r->remark);
	free(r);
}

static void
numbers_set(struct recovery *r)
{
	struct seglog *log = r->log;

	log->generation_newest = r->generation_max +
				 io_random_u64(log->io) % GENERATIONS_SKIPPED_MAX;
	log->sequence_newest = r->sequence_max + NUMBERS_SKIPPED;
	log->birth_newest += NUMBERS_SKIPPED;
	log->stable_cap = log->recovered_seals > 0 ? r->stable_max : UINT64_MAX;
}

/* Without room for more of them the next start could not tell what is newer. */
static bool
numbers_sane(const struct recovery *r)
{
	return r->log->birth_newest < BIRTHS_END / 2 && r->sequence_max < SEQUENCES_END / 2 &&
	       r->generation_max < GENERATIONS_END / 2;
}

static void
remarked(void *arg, int rc)
{
	struct seglog *log = arg;

	/* After a failure nothing is written any more that could claim too much. */
	log->recovered_seals -= rc == 0;
}

static void
remark_start(struct recovery *r)
{
	struct seglog *log = r->log;

	for (uint32_t s = 0; s < log->slice.segments_count; s++) {
		if (!r->remark[s]) {
			continue;
		}
		log->recovered_seals++;
		if (freeing_start(log, s, remarked, log) != 0) {
			log->segments[s].state = SEG_BAD; /* The cap stays for this life. */
		}
	}
}

static void
recovery_end(struct recovery *r, int rc)
{
	struct seglog *log = r->log;
	uint64_t now_us = io_now_us(log->io);

	rc = rc == 0 && !numbers_sane(r) ? -HR_ECORRUPT : rc;
	r->result.rc = rc;
	r->result.duration_us = now_us - r->started_us;
	r->result.tails_us = now_us - r->tails_started_us;
	log->ops_count--;
	if (rc == 0) {
		remark_start(r);
		numbers_set(r);
		log->recovered = true;
		scrub_start(log);
		log->room_new = true;
	}
	r->visitor.done(r->visitor.arg, &r->result);
	log_poke(log);
	recovery_free(r);
}

/* -- segments that were walked, at the end ----------------------------------------------------------------------------------------- */

/* Hands out what survived and puts it into the store that becomes the footer. */
static int
survivors_install(struct recovery *r, struct walked *w, struct open_segment *open)
{
	uint32_t at = 0;

	for (uint32_t i = 0; i < w->records_count; i++) {
		struct desc desc;
		uint32_t len;
		int rc = desc_decode(w->descs + at, w->descs_bytes - at, &desc, &len);

		HR_ASSERTF(rc == 0, "rc=%d", rc);
		if (!w->torn[i]) {
			rc = desc_store_add(&open->store, w->descs + at, len);
			if (rc != 0) {
				return rc;
			}
			open->store.records_count++;
			r->result.records_seen++;
			log_birth_seen(r->log, desc.birth);
			r->visitor.record(r->visitor.arg, &desc, w->walk.segment,
					  w->walk.generation);
		}
		at += len;
	}
	return 0;
}

static int
walked_install(struct recovery *r, struct walked *w)
{
	struct seglog *log = r->log;
	struct segment *seg = &log->segments[w->walk.segment];
	struct open_segment *open;
	uint32_t torn = 0;
	int rc;

	for (uint32_t i = 0; i < w->records_count; i++) {
		torn += w->torn[i];
	}
	r->result.records_torn += torn;
	if (torn == w->records_count) {
		r->remark[w->walk.segment] =
		    true; /* Nothing to seal: free, once it says so on flash. */
		return 0;
	}
	if (w->walk.end_off + (uint64_t)footer_bytes_for(w->descs_bytes) > log->slice.segment_bytes) {
		r->result.segments_unreadable++; /* No owner leaves so little room. */
		seg->state = SEG_BAD;
		return 0;
	}
	rc = open_segment_make(log, w->walk.segment, &open);
	if (rc != 0) {
		return rc;
	}
	seg->state = SEG_SEALING;
	seg->class = (uint8_t)w->class;
	open->sealing = open->recovered = true;
	open->end_off = w->walk.end_off;
	open->units_count = w->units_count;
	open->sequence_first = w->units[0].sequence;
	open->sequence_last = w->units[w->units_count - 1].sequence;
	log->recovered_seals++;
	rc = survivors_install(r, w, open);
	open->descs_written = open->store.bytes;
	open->records_written = open->store.records_count;
	seg->records_count = open->store.records_count;
	seg->data_bytes = open->end_off;
	return rc;
}

static void
found_is_stable(void *arg, int64_t result)
{
	struct recovery *r = arg;
	struct walked *w;
	int rc = result < 0 ? (int)result : 0;

	list_for_each_entry(w, &r->walked, link) {
		rc = rc != 0 ? rc : walked_install(r, w);
	}
	recovery_end(r, rc);
}

/* -- checking values --------------------------------------------------------------------------------------------------------------- */

static bool
value_right(const struct desc *desc, const uint8_t *value)
{
	for (uint32_t k = 0; k < desc->crcs_count; k++) {
		uint32_t off = k * CHUNK_BYTES;
		uint32_t len = HR_MIN((uint32_t)CHUNK_BYTES, desc->stored_bytes - off);

		if (crc32c(0, value + off, len) != desc->crcs[k]) {
			return false;
		}
	}
	return true;
}

/* The record at the cursor; the cursor moves behind it. */
static void
check_next_desc(struct checking *c)
{
	uint32_t len;
	int rc =
	    desc_decode(c->w->descs + c->desc_off, c->w->descs_bytes - c->desc_off, &c->desc, &len);

	HR_ASSERTF(rc == 0, "rc=%d", rc);
	c->desc_off += len;
	c->record_idx++;
}

static void
check_over(struct checking *c)
{
	c->busy = false;
	c->r->checks_busy--;
	c->r->result.units_checked++;
	checks_fill(c->r);
}

static void check_record_read(struct checking *c);

static void
check_record_done(void *arg, int64_t result)
{
	struct checking *c = arg;

	c->r->result.bytes_read += result > 0 ? (uint64_t)result : 0;
	if (result < 0 || !value_right(&c->desc, c->buf)) {
		c->w->torn[c->unit->record_first + c->record_idx - 1] = 1;
	}
	check_record_read(c);
}

/* The unit could not be read in one piece: value by value, so that a bad sector takes only its own. */
static void
check_record_read(struct checking *c)
{
	while (c->record_idx < c->unit->records_count) {
		check_next_desc(c);
		if (c->desc.stored_bytes > 0) {
			c->iov = (struct iovec){ c->buf, pages_bytes(c->desc.stored_bytes) };
			io_device_read(c->r->log->device, &c->op, &c->iov, 1,
				       log_value_offset(c->r->log, c->w->walk.segment,
							c->desc.value_off),
				       check_record_done, c);
			return;
		}
	}
	check_over(c);
}

static void
check_unit_done(void *arg, int64_t result)
{
	struct checking *c = arg;
	uint32_t values_off = c->unit->unit_off + c->unit->header_bytes;

	if (result < 0) {
		check_record_read(c);
		return;
	}
	c->r->result.bytes_read += (uint64_t)result;
	while (c->record_idx < c->unit->records_count) {
		check_next_desc(c);
		if (c->desc.stored_bytes > 0 &&
		    !value_right(&c->desc, c->buf + (c->desc.value_off - values_off))) {
			c->w->torn[c->unit->record_first + c->record_idx - 1] = 1;
		}
	}
	check_over(c);
}

static int
check_start(struct recovery *r, struct walked *w, const struct rec_unit *unit)
{
	struct checking *c = r->checks;

	while (c->busy) {
		c++;
	}
	if (c->buf == NULL && (c->buf = page_alloc(UNIT_VALUES_BYTES_MAX)) == NULL) {
		return -ENOMEM;
	}
	c->r = r;
	c->w = w;
	c->unit = unit;
	c->record_idx = 0;
	c->desc_off = unit->descs_off;
	c->busy = true;
	r->checks_busy++;
	c->iov = (struct iovec){ c->buf, unit->unit_bytes - unit->header_bytes };
	io_device_read(r->log->device, &c->op, &c->iov, 1,
		       log_value_offset(r->log, w->walk.segment,
					unit->unit_off + unit->header_bytes),
		       check_unit_done, c);
	return 0;
}

/* The next unit that needs a check; NULL: none is left. */
static const struct rec_unit *
check_next_unit(struct recovery *r, struct walked **ret_walked)
{
	while (r->check_segment != NULL) {
		struct walked *w = r->check_segment;

		while (r->check_unit < w->units_count) {
			const struct rec_unit *unit = &w->units[r->check_unit++];

			if ((w->check_all || unit->sequence > r->stable_max) &&
			    unit->unit_bytes > unit->header_bytes) {
				*ret_walked = w;
				return unit;
			}
		}
		r->check_unit = 0;
		r->check_segment = w->link.next == &r->walked
				       ? NULL
				       : list_entry(w->link.next, struct walked, link);
	}
	return NULL;
}

static void
checks_fill(struct recovery *r)
{
	const struct rec_unit *unit = NULL;
	struct walked *w = NULL;

	while (r->checks_busy < CHECK_DEPTH && r->result.rc == 0 &&
	       (unit = check_next_unit(r, &w)) != NULL) {
		r->result.rc = check_start(r, w, unit);
	}
	if (r->checks_busy > 0) {
		return;
	}
	if (r->result.rc != 0 || list_empty(&r->walked)) {
		recovery_end(r, r->result.rc);
		return;
	}
	io_device_sync(r->log->device, &r->sync_op, found_is_stable, r);
}

static void
tails_start(struct recovery *r)
{
	struct walked *w;

	r->tails_started_us = io_now_us(r->log->io);
	r->result.footers_us = r->tails_started_us - r->started_us;
	list_for_each_entry(w, &r->walked, link) {
		w->torn = calloc(w->records_count + 1, 1);
		r->result.rc = w->rc != 0 ? w->rc : w->torn == NULL ? -ENOMEM : r->result.rc;
	}
	if (r->result.segments_unreadable > 0 &&
	    r->result.segments_unreadable == r->log->slice.segments_prepared) {
		r->result.rc = -EIO;
	}
	r->check_segment = list_first_entry(&r->walked, struct walked, link);
	checks_fill(r);
}

/* -- walking ----------------------------------------------------------------------------------------------------------------------- */

static void
slot_over(struct slot *slot)
{
	free(slot->footer);
	slot->footer = NULL;
	slot->busy = false;
	slot->r->slots_busy--;
	slots_fill(slot->r);
}

static int
walked_room(struct walked *w, const struct unit_header *h)
{
	if (w->units_count == w->units_room) {
		uint32_t room = w->units_room > 0 ? 2 * w->units_room : 64;
		struct rec_unit *units = realloc(w->units, room * sizeof(*units));

		if (units == NULL) {
			return -ENOMEM;
		}
		w->units = units;
		w->units_room = room;
	}
	if (w->descs_bytes + h->descriptors_bytes > w->descs_room) {
		uint32_t room = (uint32_t)round_up_pow2(w->descs_bytes + h->descriptors_bytes);
		uint8_t *descs = realloc(w->descs, room);

		if (descs == NULL) {
			return -ENOMEM;
		}
		w->descs = descs;
		w->descs_room = room;
	}
	return 0;
}

static void
walked_unit(void *arg, const struct unit_header *h, const uint8_t *descs)
{
	struct walked *w = arg;
	struct recovery *r = w->r;

	w->rc = w->rc != 0 ? w->rc : walked_room(w, h);
	if (w->rc != 0) {
		return;
	}
	w->units[w->units_count++] =
	    (struct rec_unit){ h->sequence,    h->unit_off,	 h->header_bytes, h->unit_bytes,
			       w->descs_bytes, w->records_count, h->records_count };
	memcpy(w->descs + w->descs_bytes, descs, h->descriptors_bytes);
	w->descs_bytes += h->descriptors_bytes;
	w->records_count += h->records_count;
	w->class = h->class;
	r->sequence_max = HR_MAX(r->sequence_max, h->sequence);
	r->stable_max = HR_MAX(r->stable_max, h->stable_sequence);
	log_birth_seen(r->log, h->birth_max);
}

static void
walk_over(void *arg, int rc)
{
	struct walked *w = arg;
	struct recovery *r = w->r;
	struct slot *slot = w->slot;

	w->rc = w->rc != 0 ? w->rc : rc;
	r->result.bytes_read += w->walk.bytes_read;
	r->result.headers_damaged += w->walk.damaged;
	r->result.segments_walked++;
	r->generation_max = HR_MAX(r->generation_max, w->walk.generation);
	r->log->segments[slot->segment].generation = w->walk.generation;
	slot_over(slot);
}

static int
slot_walk(struct slot *slot, uint64_t generation, bool check_all)
{
	struct recovery *r = slot->r;
	struct walked *w = calloc(1, sizeof(*w));
	int rc;

	if (w == NULL) {
		return -ENOMEM;
	}
	w->r = r;
	w->slot = slot;
	w->check_all = check_all;
	w->walk = (struct seg_walk){ .device = r->log->device,
				     .slice = &r->log->slice,
				     .segment = slot->segment,
				     .generation = generation,
				     .unit = walked_unit,
				     .done = walk_over,
				     .arg = w };
	rc = walk_start(&w->walk);
	if (rc != 0) {
		free(w);
		return rc;
	}
	list_add_tail(&r->walked, &w->link);
	return 0;
}

/* -- heads and tails --------------------------------------------------------------------------------------------------------------- */

static void
slot_failed(struct slot *slot, int rc)
{
	slot->r->result.rc = rc;
	slot_over(slot);
}

/* The records of a footer whose descriptors begin at `descs`. False: they are damaged. */
static bool
sealed_take(struct slot *slot, const uint8_t *descs)
{
	struct recovery *r = slot->r;
	const struct trailer *t = &slot->trailer;
	struct segment *seg = &r->log->segments[slot->segment];
	uint32_t at = 0;

	if (footer_descs_decode(t, descs, NULL) != 0) {
		return false;
	}
	seg->state = SEG_SEALED;
	seg->class = (uint8_t)t->class;
	seg->generation = t->generation;
	seg->records_count = t->records_count;
	seg->data_bytes = t->data_bytes;
	seg->footer_bytes = t->footer_bytes;
	r->result.segments_sealed++;
	r->result.records_seen += t->records_count;
	for (uint32_t i = 0; i < t->records_count; i++) {
		struct desc desc;
		uint32_t len;

		if (desc_decode(descs + at, t->descriptors_bytes - at, &desc, &len) == 0) {
			log_birth_seen(r->log, desc.birth);
			r->visitor.record(r->visitor.arg, &desc, slot->segment, t->generation);
			at += len;
		}
	}
	return true;
}

static void
sealed_or_walk(struct slot *slot, const uint8_t *descs)
{
	int rc;

	if (descs != NULL && sealed_take(slot, descs)) {
		slot_over(slot);
		return;
	}
	slot->r->result.footers_damaged++;
	rc = slot_walk(slot, slot->trailer.generation, true);
	if (rc != 0) {
		slot_failed(slot, rc);
	}
}

static void
footer_read(void *arg, int64_t result)
{
	struct slot *slot = arg;

	slot->r->result.bytes_read += result > 0 ? (uint64_t)result : 0;
	sealed_or_walk(slot, result < 0 ? NULL : slot->footer);
}

static void
slot_sealed(struct slot *slot)
{
	struct seglog *log = slot->r->log;
	uint32_t bytes = slot->trailer.footer_bytes;

	if (bytes <= TAIL_BYTES) {
		sealed_or_walk(slot, slot->tail + TAIL_BYTES - bytes);
		return;
	}
	slot->footer = page_alloc(bytes);
	if (slot->footer == NULL) {
		slot_failed(slot, -ENOMEM);
		return;
	}
	slot->iov[0] = (struct iovec){ slot->footer, bytes };
	io_device_read(log->device, &slot->op[0], &slot->iov[0], 1,
		       log_segment_off(log, slot->segment) + log->slice.segment_bytes - bytes,
		       footer_read, slot);
}

static void
slot_free(struct slot *slot, bool clean, uint64_t generation)
{
	struct recovery *r = slot->r;

	r->result.segments_free++;
	r->log->segments[slot->segment].generation = generation;
	if (clean) {
		log_segment_became_free(r->log, slot->segment);
	} else {
		r->remark[slot->segment] = true;
	}
	slot_over(slot);
}

/* What does not hold but was ours once is counted, whatever it turns out to mean. */
static void
damage_count(struct slot *slot, bool head_valid, bool trailer_valid)
{
	struct recovery *r = slot->r;
	const struct superblock *slice = &r->log->slice;
	bool head_like = slot->head_rc < 0 ||
			 unit_header_resembles(slice, slot->segment, 0, slot->head);
	bool tail_like =
	    slot->tail_rc < 0 ||
	    trailer_resembles(slice, slot->segment, slot->tail + TAIL_BYTES - TRAILER_BYTES);

	r->result.headers_damaged +=
	    !head_valid && (head_like || (trailer_valid && slot->trailer.kind == TRAILER_SEALED));
	r->result.footers_damaged += !trailer_valid && tail_like;
}

static void
slot_judge(struct slot *slot)
{
	struct recovery *r = slot->r;
	struct unit_header head = { 0 };
	bool head_valid = slot->head_rc == 0 &&
			  unit_header_decode(&r->log->slice, slot->segment, 0, slot->head,
					     slot->iov[0].iov_len, &head) == 0;
	bool trailer_valid = slot->tail_rc == 0 &&
			     trailer_decode(&r->log->slice, slot->segment,
					    slot->tail + TAIL_BYTES - TRAILER_BYTES,
					    &slot->trailer) == 0;
	enum segment_verdict verdict;
	bool clean;
	int rc = 0;

	damage_count(slot, head_valid, trailer_valid);
	if (!trailer_valid) {
		memset(&slot->trailer, 0, sizeof(slot->trailer));
	}
	r->generation_max =
	    HR_MAX(r->generation_max, HR_MAX(head.generation, slot->trailer.generation));
	r->sequence_max =
	    HR_MAX(r->sequence_max, HR_MAX(head.sequence, slot->trailer.sequence_last));
	log_birth_seen(r->log, HR_MAX(head.birth_max, slot->trailer.birth_max));
	if (slot->head_rc < 0 && slot->tail_rc < 0) {
		r->result.segments_unreadable++;
		r->log->segments[slot->segment].state = SEG_BAD;
		slot_over(slot);
		return;
	}
	verdict = segment_classify(head_valid ? &head : NULL, trailer_valid ? &slot->trailer : NULL,
				   &clean);
	if (verdict == VERDICT_SEALED) {
		slot_sealed(slot);
	} else if (verdict == VERDICT_FREE) {
		slot_free(slot, clean, HR_MAX(head.generation, slot->trailer.generation));
	} else {
		bool footer_lost = !trailer_valid &&
				   (slot->tail_rc < 0 ||
				    trailer_resembles(&r->log->slice, slot->segment,
						      slot->tail + TAIL_BYTES - TRAILER_BYTES));

		rc = slot_walk(slot, head.generation, footer_lost);
	}
	if (rc != 0) {
		slot_failed(slot, rc);
	}
}

static void head_read(struct slot *slot);

/* The whole header is needed: its fixed part alone, damaged, could say anything. True: it is being read again. */
static bool
head_grow(struct slot *slot)
{
	struct unit_header head;
	uint8_t *buf;

	if (unit_header_peek(&slot->r->log->slice, slot->segment, 0, slot->head,
			     slot->iov[0].iov_len, &head) != 0 ||
	    head.header_bytes <= slot->iov[0].iov_len) {
		return false;
	}
	buf = page_alloc(head.header_bytes);
	if (buf == NULL) {
		slot->r->result.rc = -ENOMEM;
		return false;
	}
	free(slot->head);
	slot->head = buf;
	slot->head_room = head.header_bytes;
	head_read(slot);
	return true;
}

static void
head_done(void *arg, int64_t result)
{
	struct slot *slot = arg;

	if (result < 0 && slot->iov[0].iov_len > PAGE_BYTES) {
		slot->head_room =
		    PAGE_BYTES; /* What is behind a short header may be a bad sector of its values. */
		head_read(slot);
		return;
	}
	slot->head_rc = result < 0 ? (int)result : 0;
	slot->r->result.bytes_read += result > 0 ? (uint64_t)result : 0;
	if (result > PAGE_BYTES && head_grow(slot)) {
		return;
	}
	if (--slot->pending == 0) {
		slot_judge(slot);
	}
}

static void
head_read(struct slot *slot)
{
	struct seglog *log = slot->r->log;

	slot->iov[0] = (struct iovec){ slot->head, slot->head_room };
	io_device_read(log->device, &slot->op[0], &slot->iov[0], 1,
		       log_segment_off(log, slot->segment), head_done, slot);
}

static void tail_done(void *arg, int64_t result);

static void
tail_read(struct slot *slot, uint32_t bytes)
{
	struct seglog *log = slot->r->log;

	slot->iov[1] = (struct iovec){ slot->tail + TAIL_BYTES - bytes, bytes };
	io_device_read(log->device, &slot->op[1], &slot->iov[1], 1,
		       log_segment_off(log, slot->segment) + log->slice.segment_bytes - bytes,
		       tail_done, slot);
}

static void
tail_done(void *arg, int64_t result)
{
	struct slot *slot = arg;

	if (result < 0 && slot->iov[1].iov_len > PAGE_BYTES) {
		tail_read(
		    slot,
		    PAGE_BYTES); /* A bad sector in the values before it says nothing about the trailer. */
		return;
	}
	slot->tail_rc = result < 0 ? (int)result : 0;
	slot->r->result.bytes_read += result > 0 ? (uint64_t)result : 0;
	if (--slot->pending == 0) {
		slot_judge(slot);
	}
}

static int
slot_start(struct slot *slot, uint32_t segment)
{
	struct recovery *r = slot->r;

	if (slot->head_room < HEAD_BYTES) {
		free(slot->head);
		slot->head = page_alloc(HEAD_BYTES);
		slot->head_room = HEAD_BYTES;
	}
	slot->tail = slot->tail != NULL ? slot->tail : page_alloc(TAIL_BYTES);
	if (slot->head == NULL || slot->tail == NULL) {
		return -ENOMEM;
	}
	slot->segment = segment;
	slot->busy = true;
	slot->pending = 2;
	r->slots_busy++;
	head_read(slot);
	tail_read(slot, TAIL_BYTES);
	return 0;
}

static void
slots_fill(struct recovery *r)
{
	for (int i = 0; i < SLOTS_COUNT && r->result.rc == 0; i++) {
		if (!r->slots[i].busy && r->segment_next < r->log->slice.segments_prepared) {
			r->slots[i].r = r;
			r->result.rc = slot_start(&r->slots[i], r->segment_next++);
		}
	}
	if (r->slots_busy == 0) {
		tails_start(r);
	}
}

static void
timer_due(void *arg)
{
	slots_fill(arg);
}

int
recover_start(struct seglog *log, const struct recover_visitor *visitor)
{
	struct recovery *r = calloc(1, sizeof(*r));

	HR_ASSERT(!log->recovered && log->ops_count == 0);
	if (r == NULL ||
	    (r->remark = calloc(log->slice.segments_count, sizeof(*r->remark))) == NULL) {
		free(r);
		return -ENOMEM;
	}
	r->log = log;
	r->visitor = *visitor;
	r->started_us = io_now_us(log->io);
	list_init(&r->walked);
	log->ops_count++;
	io_timer_set(log->io, &r->timer, r->started_us, timer_due, r);
	return 0;
}
