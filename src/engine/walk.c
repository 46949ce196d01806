#include "engine/walk.h"

#include <errno.h>

#include <errno.h>
#include <stdlib.h>

#include "engine/blocking.h"

/* Most headers fit: 80 descriptors of values of 64 KiB. A longer one costs a second read. */
enum { WALK_READ_BYTES = 16 << 10 };

static void walk_read(struct seg_walk *walk, uint32_t bytes);

static void
walk_end(struct seg_walk *walk, int rc)
{
	free(walk->buf);
	walk->buf = NULL;
	walk->done(walk->arg, rc);
}

/* The header does not fit into what was read: again, with room for all of it. */
static void
walk_grow(struct seg_walk *walk, uint32_t bytes)
{
	free(walk->buf);
	walk->buf = page_alloc(bytes);
	walk->buf_bytes = bytes;
	if (walk->buf == NULL) {
		walk_end(walk, -ENOMEM);
		return;
	}
	walk_read(walk, bytes);
}

static void
walk_read_done(void *arg, int64_t result)
{
	struct seg_walk *walk = arg;
	struct unit_header h;
	int rc;

	if (result < 0 && !walk->retried && !walk->stop) {
		walk->retried = true; /* An error that passes must not cost what lies behind. */
		walk_read(walk, (uint32_t)walk->iov.iov_len);
		return;
	}
	walk->retried = false;
	if (result < 0) {
		walk->damaged = true;
		walk_end(walk, 0);
		return;
	}
	walk->bytes_read += (uint64_t)result;
	if (walk->stop) {
		walk_end(walk, -ECANCELED);
		return;
	}
	rc = unit_header_decode(walk->slice, walk->segment, walk->end_off, walk->buf,
				(size_t)result, &h);
	if (rc == -ENOBUFS) {
		/* Not yet to be believed, but its length was checked against the segment. */
		rc = unit_header_peek(walk->slice, walk->segment, walk->end_off, walk->buf,
				      (size_t)result, &h);
		HR_ASSERTF(rc == 0, "rc=%d", rc);
		walk_grow(walk, h.header_bytes);
		return;
	}
	if (rc != 0) {
		walk->damaged =
		    unit_header_resembles(walk->slice, walk->segment, walk->end_off, walk->buf);
		walk_end(walk, 0);
		return;
	}
	if (h.kind != UNIT_RECORDS || (walk->generation != 0 && h.generation != walk->generation)) {
		walk_end(walk, 0);
		return;
	}
	walk->generation = h.generation;
	walk->unit(walk->arg, &h, walk->buf + UNIT_HEADER_BYTES);
	walk->end_off += h.unit_bytes;
	if (walk->end_off + PAGE_BYTES > walk->slice->segment_bytes) {
		walk_end(walk, 0);
		return;
	}
	walk_read(walk, WALK_READ_BYTES);
}

static void
walk_read(struct seg_walk *walk, uint32_t bytes)
{
	uint64_t off = walk->slice->slice_off_bytes + META_BYTES +
		       walk->segment * walk->slice->segment_bytes + walk->end_off;
	uint32_t left = (uint32_t)(walk->slice->segment_bytes - walk->end_off);

	walk->iov = (struct iovec){ walk->buf, HR_MIN(bytes, left) };
	io_device_read(walk->device, &walk->op, &walk->iov, 1, off, walk_read_done, walk);
}

int
walk_start(struct seg_walk *walk)
{
	walk->end_off = 0;
	walk->damaged = false;
	walk->bytes_read = 0;
	memset(&walk->op, 0, sizeof(walk->op));
	walk->buf = page_alloc(WALK_READ_BYTES);
	if (walk->buf == NULL) {
		return -ENOMEM;
	}
	walk->buf_bytes = WALK_READ_BYTES;
	walk_read(walk, WALK_READ_BYTES);
	return 0;
}
