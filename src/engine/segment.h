/* segment.h - the segment log of one shard: segments, units, footers, stability.
 *
 * What:       appends records to the open segment of a lifetime class, gathers them into units (one write each: header, descriptors,
 *             values), keeps units stable in order, seals full segments with a footer, frees segments, reads their descriptors back.
 * Not here:   which record is live (index.h), what to reclaim (evict.h, reclaim.c), DRAM caching (cache.h), recovery (recover.h).
 * Threads:    the shard's.
 * Ownership:  a log_record and all it points to (desc.key, desc.crcs, iov and its memory) is borrowed from log_append() until its
 *             `written` callback has run (and `stable`, for the struct itself, when want_stable).
 * Errors:     a failed device write fails every record of its unit (written(rc < 0)) and marks the log failed: later appends get -EIO.
 * Invariants: L1 units of a segment are contiguous. L2 a footer is written only when all units of its segment are stable.
 *             L3 a freed segment is used again only when both freed marks are stable. L4 generations and sequences only grow.
 * Limits:     LOG_UNITS_INFLIGHT_MAX unit writes; beyond it appends wait in the open unit until it is full (unit_bytes_max), then
 *             log_append() answers -EAGAIN; log_has_room() tells.
 * Inside:     seglog.h
 * Tests:      tests/unit/engine/test_segment.c, tests/fault/
 */
#ifndef HR_ENGINE_SEGMENT_H
#define HR_ENGINE_SEGMENT_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/uio.h>

#include "base/list.h"
#include "engine/record.h"
#include "engine/superblock.h"
#include "io/io.h"

struct seglog;

enum { LOG_UNITS_INFLIGHT_MAX = 8 };
enum segment_state {
	SEG_UNPREPARED,
	SEG_FREE,
	SEG_OPEN,
	SEG_SEALING,
	SEG_SEALED,
	SEG_FREEING,
	SEG_BAD
};
enum log_sync {
	LOG_SYNC_FLUSH,
	LOG_SYNC_DSYNC
}; /* group fdatasync (default) | every unit with RWF_DSYNC */

struct log_record {
	struct list_head link; /* private to the log while appended */
	struct desc desc;      /* value_off is set by the log when the unit is closed */
	const struct iovec *
	    iov; /* value, sum = stored_bytes rounded up to a page (the caller zero-fills); page-aligned pieces */
	unsigned iov_count;
	bool want_stable; /* ask for group commit soon; otherwise stable comes with the seal */
	uint32_t segment; /* out, valid after log_append(): the segment it will be in */
	/* The unit's write completed (0) or failed (-errno). desc.value_off and segment are final. The callback may append again.
	 * A record without want_stable belongs to the caller again; one with it when `stable` runs, which follows always, also after a
	 * failure (with -errno). */
	void (*written)(struct log_record *record, int rc);
	/* The record is stable (0) or will not be (-errno); only with want_stable, after written. */
	void (*stable)(struct log_record *record, int rc);
	void *arg;
};

struct segment_info {
	uint8_t state; /* enum segment_state */
	uint8_t class;
	uint64_t generation;
	uint32_t records_count;
	uint32_t data_bytes;
};

struct log_options {
	enum log_sync sync;
	uint32_t linger_us; /* how long a unit that is not full waits for more when nothing asks for stable; 0 = 2,000 */
	uint32_t free_reserve; /* segments that only CLASS_SURVIVOR may open; 0 = 1 */
};

struct log_counters {
	uint64_t units_written, unit_bytes_written, footer_bytes_written, mark_bytes_written, syncs,
	    prepare_bytes_written;
	uint64_t payload_bytes_fresh; /* values appended in CLASS_FRESH/PINNED, rounded up to a page */
	uint64_t payload_bytes_survivor; /* the same for CLASS_SURVIVOR */
	uint64_t segments_sealed, segments_freed, appends_refused, write_errors;
	uint64_t footers_damaged; /* found so when read back; the segment was walked instead */
	uint64_t headers_damaged; /* of sealed segments, found in the background after the start (scrub.c) */
	uint64_t superblocks_damaged; /* copies, when the device was opened */
	uint64_t space_tables_damaged; /* slots, likewise; filled in by the engine, which has the table */
	uint32_t units_inflight, free_count, open_count, sealed_count;
};

/* `slice` describes where on the device (superblock.h). The log starts empty-handed: recover_start() fills the segment states. */
int log_create(struct io *io, struct io_device *device, const struct superblock *slice,
	       const struct log_options *options, struct seglog **ret_log);
void log_destroy(struct seglog *log); /* Nothing may be under way: see log_quiesce(). */

/* A free segment became available, or room in the open unit: called from io_run(). One listener. */
void log_on_room(struct seglog *log, void (*cb)(void *arg), void *arg);
/* How many segments can still be opened by CLASS_FRESH before reclaim must free one. */
uint32_t log_free_count(const struct seglog *log);
/* True when a record with that value would be accepted now. */
bool log_has_room(const struct seglog *log, enum segment_class class, uint32_t value_bytes);
/* 0, -EAGAIN (no free segment, or too much in flight, or not recovered yet, or quiescing), -EIO (log failed), -EINVAL (value over
 * part_bytes, or a descriptor or iovecs that contradict themselves). */
int log_append(struct seglog *log, enum segment_class class, struct log_record *record);
/* Closes the open units now and makes everything appended so far stable; then cb(arg, 0 or -errno). */
void log_flush(struct seglog *log, void (*cb)(void *arg, int rc), void *arg);
/* Stops writing: waits for what is under way, starts nothing new. Records not yet in a write get written(-ECANCELED). */
void log_quiesce(struct seglog *log, void (*cb)(void *arg), void *arg);
bool log_failed(const struct seglog *log, int *ret_errno);

uint32_t log_segments_count(const struct seglog *log);
void log_segment_info(const struct seglog *log, uint32_t segment, struct segment_info *ret);
uint64_t
log_generation_oldest(const struct seglog *log,
		      uint32_t segment_except); /* of segments in use; UINT64_MAX when none */
uint64_t log_generation_newest(const struct seglog *log);
uint64_t log_value_offset(const struct seglog *log, uint32_t segment,
			  uint32_t value_off); /* on the device */

/* Births: the shard's only source of them. */
uint64_t log_birth_next(struct seglog *log);
void log_birth_seen(struct seglog *log, uint64_t birth);

/* Reads all descriptors of a sealed (or open, as far as written) segment: from the footer, or by walking when that is damaged (counted). cb gets a borrowed array, valid
 * until it returns; rc < 0: none could be read. */
typedef void (*log_descs_cb)(void *arg, int rc, const struct desc *descs, uint32_t descs_count);
/* -ENOENT: nothing is in that segment. */
int log_read_descs(struct seglog *log, uint32_t segment, log_descs_cb cb, void *arg);

/* Only of a sealed segment. Writes both freed marks, stable, then the segment is free. The caller has made the survivors stable before. */
void
log_segment_free(struct seglog *log, uint32_t segment, void (*cb)(void *arg, int rc), void *arg);
/* Writes unprepared segments of a file in full, one after the other in the background, and moves segments_prepared on. */
void log_prepare_start(struct seglog *log);
void log_counters_get(const struct seglog *log, struct log_counters *ret);
/* Asserts the invariants. For tests and debug builds. */
void log_check(const struct seglog *log);

#endif
