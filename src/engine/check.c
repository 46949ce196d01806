/* check.c - recovery's rules without recovery's haste: everything is read, and what is wrong is said.
 *
 * Per shard: superblocks and space table; then each segment as recover.c would take it. Sealed segments are compared with their unit
 * headers as well: the footer says where values lie, so what lies between them must be headers, and one that is damaged does not hide
 * the next. Records are collected and sorted by identity; then each identity is decided.
 */
#include "engine/check.h"

#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <headrace/error.h>

#include "base/crc.h"
#include "base/error.h"
#include "engine/blocking.h"
#include "engine/layout.h"
#include "engine/walk.h"

enum { FINDINGS_MAX = 1000, HEAD_BYTES = 16 << 10, WINDOW_BYTES = 4 << 20 };

struct rec {
	uint8_t id[16];
	uint64_t birth, generation, put_number, block_bytes, expiry_ms, route;
	uint32_t space_number, space_generation;
	uint16_t part, parts_count;
	uint8_t kind;
	bool corrupt;
};

/* Descriptors gathered from a segment, encoded. */
struct gathered {
	uint8_t *descs;
	uint32_t bytes, room, count;
	/* of walked ones, a unit each */
	struct {
		uint64_t sequence;
		uint32_t records_count;
	} * units;
	uint32_t units_count, units_room;
	uint32_t segment;
	uint64_t generation;
	bool check_all;
	int rc;
	bool done;
};

struct checker {
	struct io *io;
	struct io_device *device;
	const struct check_options *options;
	struct check_report *report;
	uint32_t findings_max;
	const struct superblock *slice;
	uint64_t now_ms;
	uint64_t stable_max;
	struct gathered *walked; /* of this shard */
	uint32_t walked_count;
	struct rec *recs;
	size_t recs_count, recs_room;
	uint8_t *window;
	uint64_t window_off;
	uint32_t window_bytes;
	uint64_t progress_bytes, total_bytes;
};

static const char *const kind_names[CHECK_KINDS_COUNT] = { "superblock",  "space_table", "footer",
							   "unit_header", "payload",	 "segment" };

const char *
check_kind_name(enum check_kind kind)
{
	return kind_names[kind];
}

void
check_report_fini(struct check_report *report)
{
	free(report->findings);
	free(report->spaces);
	report->findings = NULL;
	report->spaces = NULL;
}

HR_PRINTF(6, 7)
static void
found(struct checker *c, enum check_kind kind, uint32_t segment, uint64_t off, const uint8_t *id,
      const char *fmt, ...)
{
	struct check_report *r = c->report;
	struct check_finding *f;
	va_list ap;

	r->damaged++;
	r->damaged_by_kind[kind]++;
	if (r->findings_count == c->findings_max) {
		return;
	}
	if ((r->findings_count & (r->findings_count - 1)) == 0) {
		uint32_t room = r->findings_count > 0 ? 2 * r->findings_count : 1;

		f = realloc(r->findings, room * sizeof(*f));
		if (f == NULL) {
			return; /* It is counted. */
		}
		r->findings = f;
	}
	f = &r->findings[r->findings_count++];
	memset(f, 0, sizeof(*f));
	f->kind = kind;
	f->shard = c->slice->shard_idx;
	f->segment = segment;
	f->off = off;
	if (id != NULL) {
		memcpy(f->id, id, 16);
	}
	va_start(ap, fmt);
	vsnprintf(f->text, sizeof(f->text), fmt, ap);
	va_end(ap);
}

static int
device_read(struct checker *c, uint64_t off, void *buf, size_t len)
{
	int rc = blocking_read(c->io, c->device, off, buf, len);

	c->report->bytes_read += rc == 0 ? len : 0;
	return rc;
}

static uint64_t
segment_off(const struct checker *c, uint32_t segment)
{
	return c->slice->slice_off_bytes + META_BYTES + segment * c->slice->segment_bytes;
}

/* -- superblocks and space tables -------------------------------------------------------------------------------------------------- */

static int
superblocks_check(struct checker *c)
{
	static const uint32_t copies[] = { SUPERBLOCK_A_OFF, SUPERBLOCK_B_OFF };
	uint8_t *page = page_alloc(PAGE_BYTES);
	struct superblock sb;

	if (page == NULL) {
		return -ENOMEM;
	}
	for (size_t i = 0; i < ARRAY_SIZE(copies); i++) {
		uint64_t off = c->slice->slice_off_bytes + copies[i];
		int rc = device_read(c, off, page, PAGE_BYTES);

		rc = rc != 0 ? rc : superblock_decode(page, off, &sb);
		if (rc != 0) {
			found(c, CHECK_SUPERBLOCK, UINT32_MAX, off, NULL,
			      "superblock copy %c: %s; %s", "AB"[i], error_text(rc),
			      c -> slice -> segments_count > 0 ? "the other copy counts"
							       : "this shard cannot be used");
		}
	}
	free(page);
	return 0;
}

static int
spaces_take(struct checker *c, const uint8_t *bytes, const struct space_slot *slot)
{
	struct check_report *r = c->report;
	struct check_space *spaces =
	    realloc(r->spaces, (r->spaces_count + slot->rows_count + 1) * sizeof(*spaces));

	if (spaces == NULL) {
		return -ENOMEM;
	}
	r->spaces = spaces;
	for (uint32_t i = 0; i < slot->rows_count; i++) {
		struct check_space *space = &r->spaces[r->spaces_count];

		if (space_row_decode(bytes, i, &space->row) == 0) {
			space->shard = c->slice->shard_idx;
			space->row.usage_bytes = space->row.usage_blocks = 0;
			r->spaces_count++;
		}
	}
	return 0;
}

static int
space_table_check(struct checker *c)
{
	struct space_slot slots[2] = { 0 };
	uint8_t *bytes[2] = { page_alloc(SPACE_TABLE_BYTES), page_alloc(SPACE_TABLE_BYTES) };
	int rcs[2] = { 0 };
	int best = -1;
	int rc = bytes[0] == NULL || bytes[1] == NULL ? -ENOMEM : 0;

	for (int i = 0; i < 2 && rc == 0; i++) {
		rcs[i] = device_read(c, c->slice->slice_off_bytes + c->slice->space_table_off[i],
				     bytes[i], SPACE_TABLE_BYTES);
		rcs[i] = rcs[i] != 0
			     ? rcs[i]
			     : space_slot_decode(c->slice, bytes[i], SPACE_TABLE_BYTES, &slots[i]);
		if (rcs[i] == 0 && (best < 0 || slots[i].sequence > slots[best].sequence)) {
			best = i;
		}
	}
	for (int i = 0; i < 2 && rc == 0; i++) {
		/* The second slot is blank until the first change. */
		if (rcs[i] != 0 && !(best >= 0 && slots[best].sequence <= 2 &&
				     is_all_zero(bytes[i], PAGE_BYTES))) {
			found(c, CHECK_SPACE_TABLE, UINT32_MAX,
			      c->slice->slice_off_bytes + c->slice->space_table_off[i], NULL,
			      "space table slot %c: %s; %s", "AB"[i], error_text(rcs[i]),
			      best >= 0 ? "the other slot counts" : "this shard cannot be used");
		}
	}
	rc = rc == 0 && best >= 0 ? spaces_take(c, bytes[best], &slots[best]) : rc;
	free(bytes[0]);
	free(bytes[1]);
	return rc;
}

/* -- records ----------------------------------------------------------------------------------------------------------------------- */

static int
rec_add(struct checker *c, const struct desc *d, uint64_t generation, bool corrupt)
{
	struct rec *rec;

	if (c->recs_count == c->recs_room) {
		size_t room = c->recs_room > 0 ? 2 * c->recs_room : 1024;
		struct rec *recs = realloc(c->recs, room * sizeof(*recs));

		if (recs == NULL) {
			return -ENOMEM;
		}
		c->recs = recs;
		c->recs_room = room;
	}
	rec = &c->recs[c->recs_count++];
	memcpy(rec->id, d->id, 16);
	rec->birth = d->birth;
	rec->generation = generation;
	rec->put_number = d->put_number;
	rec->block_bytes = d->block_bytes;
	rec->expiry_ms = d->expiry_ms;
	rec->route = d->route;
	rec->space_number = d->space_number;
	rec->space_generation = d->space_generation;
	rec->part = d->part;
	rec->parts_count = d->parts_count;
	rec->kind = d->kind;
	rec->corrupt = corrupt;
	c->report->records++;
	c->report->tombstones += d->kind == DESC_TOMBSTONE;
	return 0;
}

/* The value's bytes, from a window that moves forward; NULL: they cannot be read. */
static const uint8_t *
value_bytes(struct checker *c, uint32_t segment, const struct desc *d)
{
	uint64_t off = segment_off(c, segment) + d->value_off;
	uint64_t end = segment_off(c, segment) + c->slice->segment_bytes;
	uint32_t bytes = pages_bytes(d->stored_bytes);

	if (off >= c->window_off && off + bytes <= c->window_off + c->window_bytes) {
		return c->window + (off - c->window_off);
	}
	c->window_off = off;
	c->window_bytes = (uint32_t)HR_MIN((uint64_t)WINDOW_BYTES, end - off);
	if (device_read(c, off, c->window, c->window_bytes) != 0) {
		c->window_bytes = bytes; /* A bad sector behind it is not its own. */
		if (device_read(c, off, c->window, bytes) != 0) {
			c->window_bytes = 0;
			return NULL;
		}
	}
	return c->window;
}

static bool
value_right(struct checker *c, uint32_t segment, const struct desc *d)
{
	const uint8_t *value;

	if (d->stored_bytes == 0) {
		return true;
	}
	value = value_bytes(c, segment, d);
	c->report->payload_bytes_checked += d->stored_bytes;
	for (uint32_t k = 0; value != NULL && k < d->crcs_count; k++) {
		uint32_t off = k * CHUNK_BYTES;

		if (crc32c(0, value + off, HR_MIN((uint32_t)CHUNK_BYTES, d->stored_bytes - off)) !=
		    d->crcs[k]) {
			return false;
		}
	}
	return value != NULL;
}

static void
payload_found(struct checker *c, uint32_t segment, const struct desc *d, bool torn)
{
	found(c, CHECK_PAYLOAD, segment, segment_off(c, segment) + d->value_off, d->id,
	      "%u bytes of a value differ from their CRC; %s", d->stored_bytes,
	      torn ? "the record is ignored (never stable, or damaged since)"
		   : "a miss when it is read");
}

/* -- one segment ------------------------------------------------------------------------------------------------------------------- */

struct segment_ends {
	uint8_t *head;
	uint32_t head_bytes;
	uint8_t *tail;
	struct unit_header header;
	struct trailer trailer;
	int head_rc, tail_rc; /* 0: valid */
	bool head_read, tail_read;
};

static int
head_take(struct checker *c, uint32_t segment, struct segment_ends *e)
{
	uint32_t bytes = HEAD_BYTES;

	for (;;) {
		free(e->head);
		e->head = page_alloc(bytes);
		if (e->head == NULL) {
			return -ENOMEM;
		}
		e->head_rc = device_read(c, segment_off(c, segment), e->head, bytes);
		if (e->head_rc != 0 && bytes > PAGE_BYTES) {
			bytes = PAGE_BYTES;
			e->head_rc = device_read(c, segment_off(c, segment), e->head, bytes);
		}
		e->head_read = e->head_rc == 0;
		e->head_bytes = bytes;
		if (e->head_rc != 0) {
			return 0;
		}
		e->head_rc = unit_header_decode(c->slice, segment, 0, e->head, bytes, &e->header);
		if (e->head_rc != -ENOBUFS || bytes < HEAD_BYTES ||
		    unit_header_peek(c->slice, segment, 0, e->head, bytes, &e->header) != 0) {
			return 0;
		}
		bytes = e->header.header_bytes;
	}
}

static int
ends_read(struct checker *c, uint32_t segment, struct segment_ends *e)
{
	int rc;

	memset(e, 0, sizeof(*e));
	e->tail = page_alloc(PAGE_BYTES);
	rc = e->tail == NULL ? -ENOMEM : head_take(c, segment, e);
	if (rc != 0) {
		return rc;
	}
	e->tail_rc = device_read(c, segment_off(c, segment) + c->slice->segment_bytes - PAGE_BYTES,
				 e->tail, PAGE_BYTES);
	e->tail_read = e->tail_rc == 0;
	if (e->tail_rc == 0) {
		e->tail_rc = trailer_decode(c->slice, segment, e->tail + PAGE_BYTES - TRAILER_BYTES,
					    &e->trailer);
	}
	return 0;
}

static bool
tail_resembles(struct checker *c, uint32_t segment, const struct segment_ends *e)
{
	return !e->tail_read ||
	       trailer_resembles(c->slice, segment, e->tail + PAGE_BYTES - TRAILER_BYTES);
}

/* Unit headers of a sealed segment: they fill what the values leave, so a damaged one is stepped over with the footer's help. */
static int
sealed_headers_check(struct checker *c, uint32_t segment, const struct trailer *t,
		     const struct desc *descs)
{
	uint8_t *buf = page_alloc(UNIT_HEADER_BYTES_MAX);
	uint32_t at = 0;
	uint32_t i = 0;
	int rc = buf == NULL ? -ENOMEM : 0;

	while (rc == 0 && at < t->data_bytes) {
		uint64_t off = segment_off(c, segment) + at;
		uint32_t bytes = HR_MIN((uint32_t)HEAD_BYTES, t->data_bytes - at);
		struct unit_header h;
		int bad = device_read(c, off, buf, bytes);

		bad = bad != 0 && bytes > PAGE_BYTES ? device_read(c, off, buf, bytes = PAGE_BYTES)
						     : bad;
		bad = bad != 0 ? bad : unit_header_decode(c->slice, segment, at, buf, bytes, &h);
		if (bad == -ENOBUFS && unit_header_peek(c->slice, segment, at, buf, bytes, &h) == 0) {
			bytes = h.header_bytes;
			bad = device_read(c, off, buf, bytes);
			bad = bad != 0 ? bad
				       : unit_header_decode(c->slice, segment, at, buf, bytes, &h);
		}
		if (bad == 0 && h.generation == t->generation) {
			at += h.unit_bytes;
			continue;
		}
		found(c, CHECK_UNIT_HEADER, segment, off, NULL,
		      "unit header of a sealed segment is damaged; its footer has what it said");
		/* Values are in the order of their offsets: over the next run of them without a gap. */
		while (i < t->records_count &&
		       (descs[i].stored_bytes == 0 || descs[i].value_off <= at)) {
			i++;
		}
		at = i < t->records_count ? descs[i].value_off : t->data_bytes;
		while (i < t->records_count &&
		       (descs[i].stored_bytes == 0 || descs[i].value_off == at)) {
			at += pages_bytes(descs[i].stored_bytes);
			i++;
		}
	}
	free(buf);
	return rc;
}

static int
sealed_records_check(struct checker *c, uint32_t segment, const struct trailer *t,
		     const struct desc *descs)
{
	int rc = sealed_headers_check(c, segment, t, descs);

	for (uint32_t i = 0; i < t->records_count && rc == 0; i++) {
		bool corrupt = !c->options->skip_payload && !value_right(c, segment, &descs[i]);

		if (corrupt) {
			payload_found(c, segment, &descs[i], false);
		}
		rc = rec_add(c, &descs[i], t->generation, corrupt);
	}
	return rc;
}

/* *ret_walk: its descriptors are damaged. */
static int
sealed_check(struct checker *c, uint32_t segment, const struct trailer *t, bool *ret_walk)
{
	uint64_t off = segment_off(c, segment) + c->slice->segment_bytes - t->footer_bytes;
	uint8_t *footer = page_alloc(t->footer_bytes);
	struct desc *descs = calloc(t->records_count + 1, sizeof(*descs));
	int rc = footer == NULL || descs == NULL ? -ENOMEM : 0;

	*ret_walk = false;
	if (rc == 0) {
		*ret_walk = device_read(c, off, footer, t->footer_bytes) != 0 ||
			    footer_descs_decode(t, footer, descs) != 0;
	}
	if (*ret_walk) {
		found(c, CHECK_FOOTER, segment, off, NULL,
		      "descriptors of the footer are damaged; the segment was walked instead");
	} else if (rc == 0) {
		c->report->segments_sealed++;
		rc = sealed_records_check(c, segment, t, descs);
	}
	free(descs);
	free(footer);
	return rc;
}

/* -- walking ----------------------------------------------------------------------------------------------------------------------- */

struct walking {
	struct checker *c;
	struct gathered *g;
};

static int
gathered_room(struct gathered *g, uint32_t bytes)
{
	if (g->bytes + bytes > g->room) {
		uint32_t room = (uint32_t)round_up_pow2(g->bytes + bytes);
		uint8_t *descs = realloc(g->descs, room);

		if (descs == NULL) {
			return -ENOMEM;
		}
		g->descs = descs;
		g->room = room;
	}
	if (g->units_count == g->units_room) {
		uint32_t room = g->units_room > 0 ? 2 * g->units_room : 64;
		void *units = realloc(g->units, room * sizeof(*g->units));

		if (units == NULL) {
			return -ENOMEM;
		}
		g->units = units;
		g->units_room = room;
	}
	return 0;
}

static void
walk_unit(void *arg, const struct unit_header *h, const uint8_t *descs)
{
	struct walking *w = arg;
	struct gathered *g = w->g;

	g->rc = g->rc != 0 ? g->rc : gathered_room(g, h->descriptors_bytes);
	if (g->rc == 0) {
		memcpy(g->descs + g->bytes, descs, h->descriptors_bytes);
		g->bytes += h->descriptors_bytes;
		g->count += h->records_count;
		g->units[g->units_count].sequence = h->sequence;
		g->units[g->units_count++].records_count = h->records_count;
		w->c->stable_max = HR_MAX(w->c->stable_max, h->stable_sequence);
	}
}

static void
walk_done(void *arg, int rc)
{
	struct walking *w = arg;

	w->g->rc = w->g->rc != 0 ? w->g->rc : rc;
	w->g->done = true;
}

static int
walk_segment(struct checker *c, uint32_t segment, uint64_t generation, bool check_all)
{
	struct gathered *walked = realloc(c->walked, (c->walked_count + 1) * sizeof(*walked));
	struct walking w = { .c = c };
	struct seg_walk walk = { .device = c->device,
				 .slice = c->slice,
				 .segment = segment,
				 .generation = generation,
				 .unit = walk_unit,
				 .done = walk_done,
				 .arg = &w };
	int rc;

	if (walked == NULL) {
		return -ENOMEM;
	}
	c->walked = walked;
	w.g = &c->walked[c->walked_count++];
	memset(w.g, 0, sizeof(*w.g));
	w.g->segment = segment;
	w.g->generation = generation;
	w.g->check_all = check_all;
	rc = walk_start(&walk);
	if (rc != 0) {
		return rc;
	}
	rc = blocking_wait(c->io, &w.g->done);
	HR_ASSERTF(rc == 0, "rc=%d", rc);
	c->report->segments_open++;
	c->report->bytes_read += walk.bytes_read;
	if (walk.damaged && walk.end_off > 0) {
		found(c, CHECK_UNIT_HEADER, segment, segment_off(c, segment) + walk.end_off, NULL,
		      "unit header is damaged or torn; what lies behind it in this segment is lost");
	}
	return w.g->rc;
}

/* Values that no stable sequence covers must be right to count; the others are damaged if they are not. */
static int
walked_check(struct checker *c, const struct gathered *g)
{
	uint32_t at = 0;

	for (uint32_t u = 0; u < g->units_count; u++) {
		bool unsure = g->check_all || g->units[u].sequence > c->stable_max;

		for (uint32_t i = 0; i < g->units[u].records_count; i++) {
			struct desc d;
			uint32_t len;
			bool wrong;
			int rc = desc_decode(g->descs + at, g->bytes - at, &d, &len);

			HR_ASSERTF(rc == 0, "rc=%d", rc);
			at += len;
			wrong = (unsure || !c->options->skip_payload) &&
				!value_right(c, g->segment, &d);
			if (wrong) {
				payload_found(c, g->segment, &d, unsure);
			}
			rc = wrong && unsure ? 0 : rec_add(c, &d, g->generation, wrong);
			if (rc != 0) {
				return rc;
			}
		}
	}
	return 0;
}

static int
segment_judge(struct checker *c, uint32_t segment, const struct segment_ends *e)
{
	const struct unit_header *head = e->head_rc == 0 ? &e->header : NULL;
	const struct trailer *trailer = e->tail_rc == 0 ? &e->trailer : NULL;
	bool sealed_like = trailer != NULL && trailer->kind == TRAILER_SEALED;
	enum segment_verdict verdict;
	bool clean;
	bool walk;
	int rc;

	if (!e->head_read && !e->tail_read) {
		c->report->segments_unreadable++;
		found(c, CHECK_SEGMENT, segment, segment_off(c, segment), NULL,
		      "neither the first nor the last page can be read");
		return 0;
	}
	verdict = segment_classify(head, trailer, &clean);
	if (trailer == NULL && tail_resembles(c, segment, e)) {
		found(c, CHECK_FOOTER, segment,
		      segment_off(c, segment) + c->slice->segment_bytes - TRAILER_BYTES, NULL,
		      "trailer is damaged or torn; unit headers say what is in the segment");
	}
	if (verdict == VERDICT_SEALED) {
		rc = sealed_check(c, segment, trailer, &walk);
		if (rc != 0 || !walk) {
			return rc;
		}
	}
	/* In a sealed segment, sealed_headers_check() has found it. */
	if (head == NULL && (sealed_like || !e->head_read ||
			     unit_header_resembles(c->slice, segment, 0, e->head))) {
		found(c, CHECK_UNIT_HEADER, segment, segment_off(c, segment), NULL,
		      "first unit header is damaged or torn; nothing of this segment can be found");
	}
	if (verdict == VERDICT_FREE) {
		c->report->segments_free++;
		return 0;
	}
	return walk_segment(c, segment,
			    verdict == VERDICT_SEALED ? trailer->generation : head->generation,
			    verdict == VERDICT_SEALED ||
				(trailer == NULL && tail_resembles(c, segment, e)));
}

static int
segment_check(struct checker *c, uint32_t segment)
{
	struct segment_ends e;
	int rc = ends_read(c, segment, &e);

	rc = rc != 0 ? rc : segment_judge(c, segment, &e);
	free(e.head);
	free(e.tail);
	c->progress_bytes += c->slice->segment_bytes;
	if (c->options->progress != NULL) {
		c->options->progress(c->options->arg, c->progress_bytes, c->total_bytes);
	}
	return rc == 0 && c->options->stop != NULL && c->options->stop(c->options->arg) ? -EINTR
											: rc;
}

/* -- who is live ------------------------------------------------------------------------------------------------------------------- */

static int
identity_compare(const struct rec *a, const struct rec *b)
{
	if (a->space_number != b->space_number) {
		return a->space_number < b->space_number ? -1 : 1;
	}
	if (a->space_generation != b->space_generation) {
		return a->space_generation < b->space_generation ? -1 : 1;
	}
	return memcmp(a->id, b->id, 16);
}

static int
rec_compare(const void *pa, const void *pb)
{
	const struct rec *a = pa;
	const struct rec *b = pb;
	int order = identity_compare(a, b);

	if (order == 0) {
		order = a->birth != b->birth
			    ? (a->birth > b->birth ? -1 : 1)
			    : (a->generation > b->generation ? -1 : a->generation < b->generation);
	}
	return order;
}

/* What stands for the whole block: a block of one part, a commit, a tombstone. */
static bool
competes(const struct rec *rec)
{
	return rec->kind != DESC_VALUE || rec->parts_count == 1;
}

/* All parts of a commit: -1 when one is missing, else whether each has a right copy. */
static int
parts_state(const struct rec *recs, size_t count, const struct rec *commit)
{
	bool right = true;

	for (uint32_t part = 0; part < commit->parts_count; part++) {
		const struct rec *best = NULL;

		for (size_t i = 0; i < count; i++) {
			const struct rec *r = &recs[i];

			if (r->kind == DESC_VALUE && r->parts_count > 1 && r->part == part &&
			    r->put_number == commit->put_number &&
			    (best == NULL || r->generation > best->generation)) {
				best = r;
			}
		}
		if (best == NULL) {
			return -1;
		}
		right = right && !best->corrupt;
	}
	return right;
}

static struct check_space *
space_of(struct checker *c, const struct rec *rec)
{
	for (uint32_t i = 0; i < c->report->spaces_count; i++) {
		struct check_space *space = &c->report->spaces[i];

		if (space->shard == c->slice->shard_idx && space->row.number == rec->space_number) {
			return space->row.generation == rec->space_generation ? space : NULL;
		}
	}
	return NULL;
}

static void
block_count(struct checker *c, struct check_space *space, const struct rec *winner, bool right)
{
	struct check_block block = { .shard = c->slice->shard_idx,
				     .space_number = winner->space_number,
				     .route = winner->route,
				     .block_bytes = winner->block_bytes,
				     .birth = winner->birth,
				     .parts_count = winner->parts_count,
				     .right = right };

	memcpy(block.id, winner->id, 16);
	if (right) {
		c->report->blocks++;
		c->report->bytes += winner->block_bytes;
		space->row.usage_blocks++;
		space->row.usage_bytes += winner->block_bytes;
	} else {
		c->report->blocks_damaged++;
	}
	if (c->options->block != NULL) {
		c->options->block(c->options->arg, &block);
	}
}

/* All records of one identity, the greatest birth first. */
static void
identity_decide(struct checker *c, const struct rec *recs, size_t count)
{
	struct check_space *space = space_of(c, &recs[0]);
	const struct rec *winner = NULL;
	size_t live = 0;
	bool incomplete = false;
	int right = 1;

	for (size_t i = 0; i < count && winner == NULL; i++) {
		if (!competes(&recs[i])) {
			continue;
		}
		right = recs[i].kind == DESC_COMMIT ? parts_state(recs, count, &recs[i])
						    : !recs[i].corrupt;
		incomplete |= right < 0;
		winner = right < 0 ? NULL : &recs[i];
	}
	c->report->blocks_incomplete += space != NULL && incomplete;
	if (space != NULL && winner != NULL && winner->kind != DESC_TOMBSTONE &&
	    (winner->expiry_ms == 0 || winner->expiry_ms > c->now_ms)) {
		block_count(c, space, winner, right > 0);
		live = winner->kind == DESC_COMMIT ? winner->parts_count + 1u : 1;
	}
	c->report->records_dead += count - HR_MIN(live, count);
}

static void
blocks_decide(struct checker *c)
{
	size_t first = 0;

	if (c->recs_count > 0) {
		qsort(c->recs, c->recs_count, sizeof(*c->recs), rec_compare);
	}
	for (size_t i = 1; i <= c->recs_count; i++) {
		if (i == c->recs_count || identity_compare(&c->recs[first], &c->recs[i]) != 0) {
			identity_decide(c, &c->recs[first], i - first);
			first = i;
		}
	}
}

/* -- shards and the device --------------------------------------------------------------------------------------------------------- */

static int
shard_check(struct checker *c)
{
	int rc = superblocks_check(c);

	if (rc != 0 || c->slice->segments_count == 0) {
		return rc;
	}
	rc = space_table_check(c);
	c->report->segments += c->slice->segments_count;
	c->report->segments_unprepared += c->slice->segments_count - c->slice->segments_prepared;
	for (uint32_t s = 0; s < c->slice->segments_prepared && rc == 0; s++) {
		rc = segment_check(c, s);
	}
	for (uint32_t i = 0; i < c->walked_count && rc == 0; i++) {
		rc = walked_check(c, &c->walked[i]);
	}
	if (rc == 0) {
		blocks_decide(c);
	}
	for (uint32_t i = 0; i < c->walked_count; i++) {
		free(c->walked[i].descs);
		free(c->walked[i].units);
	}
	free(c->walked);
	c->walked = NULL;
	c->walked_count = 0;
	c->recs_count = 0;
	c->stable_max = 0;
	return rc;
}

static int
device_check_open(struct checker *c, char *detail)
{
	struct check_report *r = c->report;
	int rc = device_superblocks_read(c->io, c->device, r->slices, &r->shards_count, detail);

	if (rc != 0) {
		return rc;
	}
	for (uint32_t i = 0; i < r->shards_count; i++) {
		c->total_bytes += r->slices[i].segments_prepared * r->slices[i].segment_bytes;
	}
	c->window = page_alloc(WINDOW_BYTES);
	rc = c->window == NULL ? -ENOMEM : 0;
	for (uint32_t i = 0; i < r->shards_count && rc == 0; i++) {
		c->slice = &r->slices[i];
		c->window_bytes = 0;
		rc = shard_check(c);
	}
	if (rc != 0 && detail[0] == 0) {
		snprintf(detail, DETAIL_BYTES, "check ended early: %s", error_text(rc));
	}
	free(c->window);
	free(c->recs);
	return rc;
}

int
device_check(struct io *io, const char *path, const struct check_options *options,
	     struct check_report *ret_report, char detail[DETAIL_BYTES])
{
	struct checker c = { .io = io, .options = options, .report = ret_report };
	int rc;

	memset(ret_report, 0, sizeof(*ret_report));
	detail[0] = 0;
	c.findings_max = options->findings_max != 0 ? options->findings_max : FINDINGS_MAX;
	c.now_ms = options->now_ms != 0 ? options->now_ms : io_wall_ms(io);
	rc = io_device_open(io, path, IO_DEVICE_READONLY | (options->in_use_ok ? 0 : IO_DEVICE_LOCK),
			    &c.device);
	if (rc == -EACCES || rc == -EROFS) {
		/* Nowhere to put a lock. Who cannot write there cannot have a store there, either. */
		rc = io_device_open(io, path, IO_DEVICE_READONLY, &c.device);
	}
	if (rc != 0) {
		snprintf(detail, DETAIL_BYTES,
			 rc == -EBUSY ? "in use by another process, which must be stopped first"
				      : "cannot be opened: %s",
			 error_text(rc));
		return rc == -EBUSY ? -HR_EINUSE : rc;
	}
	rc = device_check_open(&c, detail);
	io_device_close(c.device);
	return rc;
}
