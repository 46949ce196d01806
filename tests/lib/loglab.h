/* loglab.h - a segment log on a simulated device, for tests that cut its power, fail its I/O and damage what it wrote.
 *
 * What:       one device, one shard, one log at a time; blocks made from a number, so that any copy of one can be checked; what recovery
 *             found, and which copy of a number wins by the rules of docs/format section 6.
 * Ownership:  everything belongs to the lab.
 */
#ifndef HR_TESTS_LOGLAB_H
#define HR_TESTS_LOGLAB_H

#include "engine/layout.h"
#include "engine/recover.h"
#include "engine/segment.h"
#include "io/sim.h"

struct lab_record {
	struct log_record record;
	struct lab *lab;
	struct iovec iov[64];
	uint32_t crcs[DESC_CRCS_MAX];
	uint8_t key[32];
	uint8_t *value;
	bool written_done, stable_done;
	int written_rc, stable_rc;
	struct lab_record *next;
};

struct lab_found {
	struct desc desc; /* key and crcs are copies */
	uint64_t number;
	uint32_t segment;
	uint64_t generation;
	uint32_t crcs[DESC_CRCS_MAX];
	uint8_t key[KEY_BYTES_MAX];
};

struct lab {
	struct sim *sim;
	struct io *io;
	struct io_device *device;
	struct superblock slice;
	struct seglog *log;
	struct log_options options;
	struct lab_record *records; /* newest first */
	struct lab_found *found;
	uint32_t found_count, found_room;
	struct recover_result recovered;
	bool recovery_done;
	char detail[DETAIL_BYTES];
};

/* A formatted block device of `segments` segments of 8 MiB; no log is open. */
void lab_create(struct lab *lab, uint64_t seed, uint32_t segments);
void lab_destroy(struct lab *lab);

/* Opens the device and recovers; found[] is what recovery handed out. Returns recovery's rc. */
int lab_open(struct lab *lab);
void lab_close(struct lab *lab); /* quiesces; what was not written is lost */
void lab_crash(struct lab *lab, unsigned how);

/* A value of `bytes` bytes made from its number, with the log's next birth. NULL: refused (the reason in *ret_rc unless NULL). */
struct lab_record *lab_put(struct lab *lab, enum segment_class class, uint64_t number,
			   uint32_t bytes, bool want_stable);
struct lab_record *lab_append(struct lab *lab, enum segment_class class, const struct desc *desc,
			      bool want_stable, int *ret_rc);
struct lab_record *lab_tombstone(struct lab *lab, uint64_t number);
/* The same, waiting for room and for the answer; returns the answer's rc. */
int lab_put_wait(struct lab *lab, enum segment_class class, uint64_t number, uint32_t bytes);
int lab_flush(struct lab *lab);
int lab_free(struct lab *lab, uint32_t segment);
/* Runs the world until *flag, or fails the test. */
void lab_wait(struct lab *lab, const bool *flag);
void lab_idle(struct lab *lab); /* until nothing is left to happen */
/* Waits until the segment has that state. */
void lab_wait_state(struct lab *lab, uint32_t segment, enum segment_state state);

/* The copy of a number that counts, a tombstone too; NULL: none. */
const struct lab_found *lab_winner(const struct lab *lab, uint64_t number);
/* True when the value on the device is the number's. */
bool lab_value_right(const struct lab *lab, const struct lab_found *found);
void lab_value_make(uint64_t number, uint32_t bytes, uint8_t *ret_value);
uint64_t lab_segment_off(const struct lab *lab, uint32_t segment);
void lab_flip(struct lab *lab, uint64_t off); /* one bit on the device */
enum segment_state lab_state(const struct lab *lab, uint32_t segment);

#endif
