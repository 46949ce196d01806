/* check.h - what is on a device and what of it is damaged, without a store (`headrace check`).
 *
 * What:       reads superblocks, space tables, and every segment: footers, unit headers, payload; decides which blocks are live by the
 *             rules of docs/format/README.md section 6.
 * Not here:   repair. Nothing is ever written.
 * Threads:    any one; blocks by running the io.
 * Errors:     -HR_EINUSE: a store has it open (and in_use_ok was not given); -HR_EFOREIGN, -HR_ECORRUPT, -HR_EVERSION, -HR_ESIZE as
 *             device_superblocks_read(); -EINTR: stopped. Damage is not an error of the call: it is in the report.
 * Limits:     about 100 bytes of DRAM per record on the device.
 * Tests:      tests/unit/engine/test_check.c (also against tests/data/read_device.py)
 */
#ifndef HR_ENGINE_CHECK_H
#define HR_ENGINE_CHECK_H

#include <stdbool.h>
#include <stdint.h>

#include "engine/space.h"
#include "engine/superblock.h"

enum check_kind {
	CHECK_SUPERBLOCK,  /* a copy is bad; the other one counts */
	CHECK_SPACE_TABLE, /* a slot is bad; the other one counts */
	CHECK_FOOTER,	   /* found again by walking: loses nothing by itself */
	CHECK_UNIT_HEADER, /* loses nothing in a sealed segment, what lies behind it in one that was open */
	CHECK_PAYLOAD, /* loses one block */
	CHECK_SEGMENT, /* cannot be read at all */
	CHECK_KINDS_COUNT
};
const char *check_kind_name(enum check_kind kind); /* "superblock", "space_table", … */

struct check_finding {
	enum check_kind kind;
	uint32_t shard;
	uint32_t segment; /* UINT32_MAX: not in a segment */
	uint64_t off;	  /* on the device */
	uint8_t id[16];	  /* CHECK_PAYLOAD: the block's */
	char text[160];	  /* what it means, one line */
};

struct check_space {
	uint32_t shard;
	struct space_row row; /* usage_bytes and usage_blocks as counted */
};

struct check_block {
	uint32_t shard, space_number;
	uint8_t id[16];
	uint64_t route, block_bytes, birth;
	uint16_t parts_count;
	bool right; /* every byte agrees with its CRC (always true with skip_payload) */
};

struct check_options {
	bool skip_payload; /* headers and footers only, and what recovery would check */
	bool in_use_ok; /* read it although a store has it open: what is found may be out of date */
	uint32_t findings_max; /* at most so many in the report, 0 = 1,000; all are counted */
	uint64_t now_ms;       /* for expiry; 0: the io's clock */
	void (*block)(void *arg, const struct check_block *block); /* each live block, or NULL */
	void (*progress)(void *arg, uint64_t done_bytes, uint64_t total_bytes);
	bool (*stop)(void *arg);
	void *arg;
};

struct check_report {
	struct superblock slices[SLICES_MAX];
	uint32_t shards_count;
	uint64_t blocks, bytes;	    /* live and, unless skip_payload, right in every byte */
	uint64_t blocks_damaged;    /* live, but for a payload that is damaged */
	uint64_t blocks_incomplete; /* a commit whose parts are not all there */
	uint64_t records, records_dead, tombstones;
	uint64_t damaged; /* sum of damaged_by_kind */
	uint64_t damaged_by_kind[CHECK_KINDS_COUNT];
	uint64_t segments, segments_free, segments_sealed, segments_open, segments_unprepared,
	    segments_unreadable;
	uint64_t payload_bytes_checked, bytes_read;
	struct check_finding *findings;
	uint32_t findings_count;
	struct check_space *spaces;
	uint32_t spaces_count;
};

/* ret_report is filled whatever is returned; end it with check_report_fini(). */
int device_check(struct io *io, const char *path, const struct check_options *options,
		 struct check_report *ret_report, char detail[DETAIL_BYTES]);
void check_report_fini(struct check_report *report);

#endif
