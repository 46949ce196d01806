/* pipe.h — batches of one operation, several under way at a time, on one handle.
 *
 * What:       slots with items, iovecs and buffers. A job fills free slots, is told of each completion, and may ask for
 *             items to be sent again (a store that was busy), after a pause that doubles from 1 ms to 64 ms.
 * Threads:    a pipe and its handle belong to one thread; nobody else reaps on that handle.
 * Ownership:  the handle is borrowed. pipe_fini() only when no job runs, and after hr_close(): the handle knows of the buffers.
 * Errors:     0 or the negative error of hr_submit(), hr_reap() or poll(). Whatever happens, pipe_run() returns only when
 *             nothing is under way: the buffers are the caller's again.
 * Tests:      tests/unit/cli/test_replay.c
 */
#ifndef HR_CLI_PIPE_H
#define HR_CLI_PIPE_H

#include <headrace/headrace.h>

#include "base/metric.h"

enum { PIPE_SLOTS_MAX = 256 };

struct pipe_slot {
	struct hr_item *items;
	struct iovec *iovs; /* one an item, into `buf` */
	uint8_t *buf;	    /* items_max × value_bytes; NULL when values are not wanted */
	uint32_t *tags;	    /* the job's: which block an item is */
	uint32_t items_count;
	uint32_t tries;
	uint64_t submitted_us, again_us;
	enum { PIPE_FREE, PIPE_UNDER_WAY, PIPE_AGAIN } state;
};

struct pipe {
	struct hr_client *client;
	struct pipe_slot *slots;
	unsigned slots_count;
	uint32_t items_max; /* of a slot */
	uint64_t value_bytes;
	void *memory;
	size_t memory_bytes;
};

struct pipe_job {
	struct hr_space *space;
	enum hr_op op;
	const struct hr_submit_options *options; /* user_data is the pipe's */
	struct histogram *latency_us;
	void *arg;
	/* Fills items, iovs[] lengths, tags of a free slot; returns how many, 0 = nothing is left. iovs[i].iov_base is set. */
	uint32_t (*fill)(void *arg, struct pipe_slot *slot);
	/* A batch has completed. Returns how many items, moved to the front of items/iovs/tags, are to be sent again. */
	uint32_t (*done)(void *arg, struct pipe_slot *slot);
};

/* value_bytes 0: no buffers. */
int pipe_init(struct pipe *pipe, struct hr_client *client, unsigned slots_count, uint32_t items_max,
	      uint64_t value_bytes);
void pipe_fini(struct pipe *pipe);
int pipe_run(struct pipe *pipe, const struct pipe_job *job);

#endif
