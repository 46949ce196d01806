/* seglog.h - the inside of a segment log, for the files that make it up: segment.c (appending, stability), seal.c (footers, freeing,
 * preparing), descs.c (reading descriptors back), recover.c.
 *
 * Not here:   anything that users of the log need (segment.h).
 * Threads:    the shard's. Completions and timers end in log_progress(), which does whatever has become possible; calls from outside
 *             never run callbacks, they ask for a turn of it by log_poke().
 * Invariants: see log_check().
 */
#ifndef HR_ENGINE_SEGLOG_H
#define HR_ENGINE_SEGLOG_H

#include "base/list.h"
#include "engine/layout.h"
#include "engine/segment.h"
#include "engine/walk.h"

enum {
	UNSYNCED_UNITS_MAX =
	    64, /* written but not stable: beyond it a sync is begun although nobody asked; bounds what recovery checks */
	PREPARE_BUF_BYTES = 1 << 20,
	PREPARE_IOV_COUNT = 4,
	DESC_CHUNKS_MAX = 1024, /* chunk size grows with the segment, so that a footer is one write */
};
static_assert((int)DESC_CHUNKS_MAX <= (int)IO_IOV_MAX, "a footer is one write");

/* Encoded descriptors of an open segment, in page-aligned chunks: what the footer will be. */
struct desc_store {
	uint8_t *chunks[DESC_CHUNKS_MAX];
	uint32_t chunk_bytes;
	uint32_t chunks_count;
	uint32_t bytes;
	uint32_t records_count;
	uint32_t crc;
};
int desc_store_add(struct desc_store *store, const uint8_t *bytes, uint32_t len);
/* A copy in one piece of the first `len` bytes; NULL: no memory. free() it. */
uint8_t *desc_store_copy(const struct desc_store *store, uint32_t len);
void desc_store_fini(struct desc_store *store);

enum unit_state {
	U_GATHERING, /* takes records */
	U_WRITING,   /* closed, its write is under way */
	U_WRITTEN,   /* its write completed; stable after a sync and after its predecessors */
};

struct open_segment;
struct unit {
	struct list_head link;	    /* open->units, in order of offset */
	struct list_head live_link; /* log->units_live, in order of creation */
	struct open_segment *open;
	enum unit_state state;
	uint64_t id;	      /* order of creation */
	uint64_t sequence;    /* once closed */
	uint64_t sync_needed; /* U_WRITTEN: number of the sync that makes it stable */
	uint32_t unit_off, header_bytes, values_bytes, descs_bytes, records_count, iov_count;
	uint32_t descs_end, records_end; /* in the segment's store, once closed */
	uint32_t want_stable_count;
	bool close_now;
	uint64_t close_at_us; /* linger */
	struct list_head records;
	struct list_head stable_wait;
	uint8_t *header;
	struct iovec *iov;
	struct io_op op;
};

/* What a segment has in memory while it is OPEN or SEALING. */
struct open_segment {
	struct list_head link; /* log->opens */
	struct seglog *log;
	uint32_t segment;
	struct list_head units; /* not stable yet; the gathering one is the last */
	struct unit *gathering;
	uint32_t writing_count;
	uint32_t end_off; /* of the last closed unit */
	uint32_t units_count;
	uint64_t sequence_first, sequence_last;
	uint32_t descs_written,
	    records_written; /* descriptors of units written, a prefix of the store */
	bool sealing;
	bool footer_writing;
	bool recovered; /* sealed on behalf of the previous owner */
	struct desc_store store;
	struct iovec *iov;
	struct io_op op;
};

struct segment {
	uint8_t state; /* enum segment_state */
	uint8_t class;
	uint32_t records_count, data_bytes, footer_bytes;
	uint64_t generation;
	struct open_segment *open;
};

struct freeing {
	struct list_head link; /* log->frees */
	struct seglog *log;
	uint32_t segment;
	unsigned pending; /* of the two writes */
	bool marked;	  /* both completed */
	int rc;
	uint64_t sync_needed;
	void (*cb)(void *arg, int rc);
	void *arg;
	uint8_t *pages;
	struct iovec iov[2];
	struct io_op op[2];
};

/* A callback that is due without any I/O of its own, or a flush that waits. */
struct pending_cb {
	struct list_head link;
	uint64_t unit_id_max; /* flush: all units up to this one */
	int rc;		      /* answers: what to say */
	void (*cb)(void *arg, int rc);
	void *arg;
};

struct preparing {
	bool running, wanted;
	uint32_t off;
	uint8_t *zeros;
	struct iovec iov[PREPARE_IOV_COUNT];
	struct io_op op;
};

/* scrub.c */
struct scrubbing {
	bool running;
	uint32_t segment_next, segments_end;
	uint64_t generation_max;
	struct seg_walk walk;
};

struct seglog {
	struct io *io;
	struct io_device *device;
	struct superblock slice;
	struct log_options options;
	struct log_counters counters;
	bool recovered, quiescing, progressing, progress_again, room_new;
	int failed; /* 0 or -errno, for ever */

	struct segment *segments;
	uint32_t free_cursor; /* where the search for a free segment goes on */
	uint32_t free_count;
	uint64_t generation_newest, sequence_newest, birth_newest;
	uint64_t stable_cap; /* UINT64_MAX, or what recovery found: until what it sealed is stable, headers may claim no more */
	uint32_t recovered_seals; /* footers and freed marks of recovery that are not written yet */
	uint64_t recovered_sync_needed; /* the sync that makes the last of them stable */

	struct open_segment *class_open[CLASS_COUNT];
	struct list_head opens;
	struct list_head units_live;
	uint64_t unit_id_newest;
	uint32_t unsynced_count;

	bool sync_running;
	uint64_t syncs_started, syncs_done;
	struct io_op sync_op;

	struct list_head frees;
	struct list_head flushes;
	struct list_head answers; /* pending_cb that only wait for a turn */
	struct list_head reads;	  /* descs.c: answers due */
	struct preparing preparing;
	struct scrubbing scrubbing;
	struct io_timer timer;
	uint32_t ops_count; /* device operations and walks under way */

	void (*room_cb)(void *arg);
	void *room_arg;
	void (*quiesce_cb)(void *arg);
	void *quiesce_arg;
};

/* segment.c */
void log_poke(struct seglog *log);     /* a turn of log_progress() soon */
void log_progress(struct seglog *log); /* from callbacks of the io only */
void log_fail(struct seglog *log, int rc);
static inline uint64_t
log_segment_off(const struct seglog *log, uint32_t segment)
{
	return log->slice.slice_off_bytes + META_BYTES + segment * log->slice.segment_bytes;
}
static inline unsigned
log_write_flags(const struct seglog *log)
{
	return log->options.sync == LOG_SYNC_DSYNC ? IO_WRITE_DSYNC : 0;
}
/* The sync after which a write that has just completed is stable. */
static inline uint64_t
log_sync_needed(const struct seglog *log)
{
	return log->options.sync == LOG_SYNC_DSYNC ? 0 : log->syncs_started + 1;
}
int open_segment_make(struct seglog *log, uint32_t segment, struct open_segment **ret_open);
void open_segment_free(struct open_segment *open);
void log_segment_became_free(struct seglog *log, uint32_t segment);

/* seal.c */
void seal_progress(struct seglog *log);	   /* footers that can be written */
void freeing_progress(struct seglog *log); /* marks that became stable */
bool freeing_wants_sync(const struct seglog *log);
/* For recovery: a segment that is to be free once its marks are whole again. Any state; becomes SEG_FREEING. */
int freeing_start(struct seglog *log, uint32_t segment, void (*cb)(void *arg, int rc), void *arg);
void prepare_progress(struct seglog *log);

/* scrub.c */
void scrub_start(struct seglog *log);
void scrub_progress(struct seglog *log);

/* descs.c */
void reads_progress(struct seglog *log);

#endif
