/* walk.h - from unit header to unit header through one segment (docs/format/README.md section 6, step 3).
 *
 * What:       reads the headers of a segment's units in order and hands each valid one out; stops at the first that is not valid or of
 *             another generation.
 * Not here:   what the records mean; checking of values.
 * Threads:    the io's; asynchronous, one read under way.
 * Ownership:  the struct is the caller's until done() has run; header and descriptors are borrowed by unit().
 * Errors:     a header that cannot be read ends the walk like a damaged one; done(-ENOMEM) is the only failure.
 * Tests:      tests/unit/engine/test_recover.c
 */
#ifndef HR_ENGINE_WALK_H
#define HR_ENGINE_WALK_H

#include "engine/layout.h"
#include "io/io.h"

struct seg_walk {
	/* set by the caller */
	struct io_device *device;
	const struct superblock *slice;
	uint32_t segment;
	uint64_t generation; /* 0: that of the first unit */
	/* A valid unit; descs (8-byte aligned) holds header->descriptors_bytes. */
	void (*unit)(void *arg, const struct unit_header *header, const uint8_t *descs);
	void (*done)(void *arg, int rc);
	void *arg;
	bool stop; /* may be set at any time: done(-ECANCELED) soon */
	/* results */
	uint32_t end_off; /* behind the last valid unit */
	bool damaged;	  /* what is at end_off was a header of this use once, or cannot be read */
	uint64_t bytes_read;
	/* private */
	struct io_op op;
	struct iovec iov;
	uint8_t *buf;
	uint32_t buf_bytes;
	bool retried;
};

/* -ENOMEM; otherwise done() runs later. */
int walk_start(struct seg_walk *walk);

#endif
