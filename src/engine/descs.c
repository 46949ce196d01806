/* descs.c - reading the descriptors of a segment back: from memory while it is open, from its footer, or by walking it.
 */
#include <errno.h>
#include <stdlib.h>

#include <headrace/error.h>

#include "engine/blocking.h"
#include "engine/seglog.h"

struct reading {
	struct list_head link; /* log->reads, once the answer is due */
	struct seglog *log;
	uint32_t segment;
	uint64_t generation;
	log_descs_cb cb;
	void *arg;
	int rc;
	uint8_t *buf; /* the footer, or descriptors gathered by walking */
	uint32_t descs_bytes, descs_count;
	uint32_t buf_bytes;
	struct seg_walk walk;
	struct iovec iov;
	struct io_op op;
};

static void
reading_due(struct reading *r, int rc)
{
	r->rc = rc;
	list_add_tail(&r->log->reads, &r->link);
}

static int
descs_parse(const struct reading *r, struct desc *descs)
{
	uint32_t at = 0;

	for (uint32_t i = 0; i < r->descs_count; i++) {
		uint32_t len;
		int rc = desc_decode(r->buf + at, r->descs_bytes - at, &descs[i], &len);

		if (rc != 0) {
			return rc;
		}
		at += len;
	}
	return 0;
}

static void
reading_answer(struct reading *r)
{
	struct desc *descs = NULL;

	if (r->rc == 0) {
		descs = calloc(r->descs_count + 1, sizeof(*descs));
		r->rc = descs == NULL ? -ENOMEM : descs_parse(r, descs);
	}
	r->cb(r->arg, r->rc, r->rc == 0 ? descs : NULL, r->rc == 0 ? r->descs_count : 0);
	free(descs);
	free(r->buf);
	free(r);
}

void
reads_progress(struct seglog *log)
{
	struct list_head due;
	struct reading *r;
	struct pending_cb *answer;

	list_init(&due);
	list_splice_tail(&due, &log->answers);
	while ((answer = list_pop_entry(&due, struct pending_cb, link)) != NULL) {
		answer->cb(answer->arg, answer->rc);
		free(answer);
	}
	list_splice_tail(&due, &log->reads);
	while ((r = list_pop_entry(&due, struct reading, link)) != NULL) {
		reading_answer(r);
	}
}

/* -- by walking ------------------------------------------------------------------------------------------------------------------ */

static void
walked_unit(void *arg, const struct unit_header *header, const uint8_t *descs)
{
	struct reading *r = arg;

	if (r->rc == 0 && r->descs_bytes + header->descriptors_bytes > r->buf_bytes) {
		uint32_t bytes = (uint32_t)round_up_pow2(r->descs_bytes + header->descriptors_bytes);
		uint8_t *buf = realloc(r->buf, bytes);

		if (buf == NULL) {
			r->rc = -ENOMEM;
		} else {
			r->buf = buf;
			r->buf_bytes = bytes;
		}
	}
	if (r->rc == 0) {
		memcpy(r->buf + r->descs_bytes, descs, header->descriptors_bytes);
		r->descs_bytes += header->descriptors_bytes;
		r->descs_count += header->records_count;
	}
}

static void
walked(void *arg, int rc)
{
	struct reading *r = arg;
	struct seglog *log = r->log;

	log->ops_count--;
	rc = rc != 0 ? rc : r->rc;
	reading_due(r, rc == 0 && r->descs_count == 0 ? -HR_ECORRUPT : rc);
	log_progress(log);
}

static void
walk_instead(struct reading *r)
{
	int rc;

	r->log->counters.footers_damaged++;
	free(r->buf);
	r->buf = NULL;
	r->buf_bytes = 0;
	r->walk = (struct seg_walk){ .device = r->log->device,
				     .slice = &r->log->slice,
				     .segment = r->segment,
				     .generation = r->generation,
				     .unit = walked_unit,
				     .done = walked,
				     .arg = r };
	rc = walk_start(&r->walk);
	if (rc != 0) {
		walked(r, rc);
	}
}

/* -- from the footer ------------------------------------------------------------------------------------------------------------- */

static void
footer_read(void *arg, int64_t result)
{
	struct reading *r = arg;
	struct seglog *log = r->log;
	const struct segment *seg = &log->segments[r->segment];
	struct trailer t;

	if (seg->state != SEG_SEALED || seg->generation != r->generation) {
		/* Freed meanwhile, and used again perhaps: what was read may be a freed mark. */
		log->ops_count--;
		reading_due(r, -ENOENT);
		log_progress(log);
		return;
	}
	if (result < 0 ||
	    trailer_decode(&log->slice, r->segment, r->buf + r->buf_bytes - TRAILER_BYTES, &t) != 0 ||
	    t.kind != TRAILER_SEALED || t.generation != r->generation ||
	    t.footer_bytes != r->buf_bytes || footer_descs_decode(&t, r->buf, NULL) != 0) {
		walk_instead(r);
		return;
	}
	r->descs_bytes = t.descriptors_bytes;
	r->descs_count = t.records_count;
	log->ops_count--;
	reading_due(r, 0);
	log_progress(log);
}

static int
footer_read_start(struct reading *r, const struct segment *seg)
{
	struct seglog *log = r->log;
	uint64_t end = log_segment_off(log, r->segment) + log->slice.segment_bytes;

	r->buf_bytes = seg->footer_bytes;
	r->buf = page_alloc(r->buf_bytes);
	if (r->buf == NULL) {
		return -ENOMEM;
	}
	r->iov = (struct iovec){ r->buf, r->buf_bytes };
	log->ops_count++;
	io_device_read(log->device, &r->op, &r->iov, 1, end - r->buf_bytes, footer_read, r);
	return 0;
}

/* -- from memory ----------------------------------------------------------------------------------------------------------------- */

static int
open_copy(struct reading *r, const struct open_segment *open)
{
	r->buf = desc_store_copy(&open->store, open->descs_written);
	if (r->buf == NULL) {
		return -ENOMEM;
	}
	r->descs_bytes = open->descs_written;
	r->descs_count = open->records_written;
	reading_due(r, 0);
	log_poke(r->log);
	return 0;
}

int
log_read_descs(struct seglog *log, uint32_t segment, log_descs_cb cb, void *arg)
{
	const struct segment *seg = &log->segments[segment];
	struct reading *r;
	int rc = -ENOENT;

	if (seg->state != SEG_SEALED && seg->open == NULL) {
		return -ENOENT;
	}
	r = calloc(1, sizeof(*r));
	if (r == NULL) {
		return -ENOMEM;
	}
	r->log = log;
	r->segment = segment;
	r->generation = seg->generation;
	r->cb = cb;
	r->arg = arg;
	rc = seg->open != NULL ? open_copy(r, seg->open) : footer_read_start(r, seg);
	if (rc != 0) {
		free(r);
	}
	return rc;
}
