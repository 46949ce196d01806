/* layout.h - the durable structures of docs/format/README.md: bytes to structs and back.
 *
 * What:       encoders and decoders of superblock pages, space tables, unit headers, descriptors and footer trailers; which of
 *             several states the first and last page of a segment say it is in.
 * Not here:   any I/O; what the structures are for (superblock.h, space.h, segment.h, recover.h).
 * Threads:    pure functions.
 * Errors:     decoders take bytes from anywhere: -HR_ECORRUPT when they are not what the page says, -HR_EVERSION when they are
 *             whole but of a newer version or carry an incompat flag that is unknown. Outputs are untouched on failure.
 * Invariants: everything on flash is little-endian; a decoder never reads outside the bytes that it was given.
 * Tests:      tests/unit/engine/test_layout.c, tests/data/read_device.py (an independent reader)
 */
#ifndef HR_ENGINE_LAYOUT_H
#define HR_ENGINE_LAYOUT_H

#include "base/base.h"
#include "engine/record.h"
#include "engine/superblock.h"

enum {
	FORMAT_VERSION = 1,
	PAGE_BYTES = 4096,
	CHUNK_BYTES = 65536,
	META_BYTES = 1 << 20,
	SUPERBLOCK_A_OFF = 0,
	SUPERBLOCK_B_OFF = 512 << 10,
	SPACE_TABLE_A_OFF = 8 << 10,
	SPACE_TABLE_B_OFF = 520 << 10,
	SPACE_TABLE_BYTES = 496 << 10,
	SPACE_HEADER_BYTES = 64,
	SPACE_ROW_BYTES = 192,
	SPACE_ROWS_MAX = (SPACE_TABLE_BYTES - SPACE_HEADER_BYTES) / SPACE_ROW_BYTES,
	UNIT_HEADER_BYTES = 128,
	UNIT_HEADER_BYTES_MAX = 1 << 20, /* with descriptors and padding */
	UNIT_VALUES_BYTES_MAX = 4 << 20,
	DESC_BYTES = 160,
	KEY_BYTES_MAX = 1024,
	PART_BYTES_MAX = 4 << 20,
	BLOCK_BYTES_MAX = 128 << 20,
	DESC_CRCS_MAX = PART_BYTES_MAX / CHUNK_BYTES,
	DESC_BYTES_MAX = DESC_BYTES + KEY_BYTES_MAX + 4 * DESC_CRCS_MAX,
	TRAILER_BYTES = 128,
	SEGMENT_BYTES_MIN = 8 << 20,
	SEGMENT_BYTES_MAX = 1 << 30,
	SEGMENTS_COUNT_MIN = 4,
};
static_assert(SPACE_TABLE_A_OFF + SPACE_TABLE_BYTES <= SUPERBLOCK_B_OFF,
	      "slot A ends before copy B");
static_assert(SPACE_TABLE_B_OFF + SPACE_TABLE_BYTES <= META_BYTES, "slot B ends before segment 0");
static_assert(SPACE_TABLE_BYTES % PAGE_BYTES == 0, "slots are whole pages");

/* The index has 33 bits for a page of a slice (index.h): larger devices are cut into more of them. */
#define SLICE_BYTES_MAX (UINT64_C(32) << 40)

/* Numbers of the shard are below these; what is found on flash must leave half of them. */
enum { BIRTH_BITS = 48 };
#define BIRTHS_END (UINT64_C(1) << BIRTH_BITS)
#define SEQUENCES_END UINT64_MAX
#define GENERATIONS_END UINT64_MAX
#define SPACE_NUMBERS_END UINT32_MAX /* of spaces, and of their generations */

enum unit_kind { UNIT_RECORDS = 1, UNIT_FREED = 2 };
enum trailer_kind { TRAILER_SEALED = 1, TRAILER_FREED = 2 };

struct unit_header {
	uint32_t flags_compat, flags_ro_compat, flags_incompat;
	uint8_t shard_uuid[16];
	uint64_t generation;
	uint64_t sequence;
	uint64_t stable_sequence;
	uint64_t birth_max;
	uint32_t segment_idx;
	uint32_t unit_off;
	uint32_t header_bytes;
	uint32_t unit_bytes;
	uint32_t records_count;
	uint32_t descriptors_bytes;
	uint16_t kind; /* enum unit_kind */
	uint16_t class;
	uint64_t made_ms;
};

struct trailer {
	uint32_t flags_compat, flags_ro_compat, flags_incompat;
	uint8_t shard_uuid[16];
	uint64_t generation;
	uint64_t sequence_first, sequence_last;
	uint64_t birth_max;
	uint32_t segment_idx;
	uint32_t footer_bytes;
	uint32_t records_count;
	uint32_t descriptors_bytes;
	uint32_t units_count;
	uint16_t kind; /* enum trailer_kind */
	uint16_t class;
	uint64_t made_ms;
	uint32_t data_bytes;
	uint32_t descriptors_crc;
};

/* -- superblock ---------------------------------------------------------------------------------------------------------------- */

void superblock_encode(const struct superblock *superblock, uint8_t ret_page[PAGE_BYTES]);
/* `off`: where on the device the page was read; it must agree with what the page says. */
int superblock_decode(const uint8_t page[PAGE_BYTES], uint64_t off, struct superblock *ret);

/* -- space table --------------------------------------------------------------------------------------------------------------- */

struct space_row;
struct space_slot {
	uint64_t sequence;
	uint32_t rows_count;
	uint32_t next_number;
};
/* Writes the header and rows to `ret_slot` (SPACE_TABLE_BYTES long) and zeroes up to the next page boundary; returns that length. */
uint32_t space_slot_encode(const struct superblock *slice, const struct space_slot *slot,
			   const struct space_row *const *rows, uint8_t *ret_slot);
int space_slot_decode(const struct superblock *slice, const uint8_t *bytes, size_t len,
		      struct space_slot *ret);
/* Row idx of a slot that was decoded. */
int space_row_decode(const uint8_t *bytes, uint32_t idx, struct space_row *ret);

/* -- descriptors --------------------------------------------------------------------------------------------------------------- */

static inline uint32_t
pages_bytes(uint32_t bytes)
{
	return (uint32_t)align_up(bytes, PAGE_BYTES);
}
static inline uint32_t
crcs_count_of(uint32_t stored_bytes)
{
	return (uint32_t)div_round_up(stored_bytes, CHUNK_BYTES);
}
uint32_t desc_bytes(uint32_t key_bytes, uint32_t crcs_count);
static inline uint32_t
desc_size(const struct desc *desc)
{
	return desc_bytes(desc->key_bytes, desc->crcs_count);
}
/* True when the fields agree with each other as the page demands. What is appended must be; what was read may not be. */
bool desc_valid(const struct desc *desc);
/* True when its lengths are those of a block that was cut into parts of the slice's part_bytes (section 6, step 5). */
bool desc_fits(const struct superblock *slice, const struct desc *desc);
/* Returns desc_size(). */
uint32_t desc_encode(const struct desc *desc, uint8_t *ret_bytes);
/* `bytes` is 8-byte aligned; key and crcs of the result point into it. */
int desc_decode(const uint8_t *bytes, size_t len, struct desc *ret, uint32_t *ret_len);

/* -- units --------------------------------------------------------------------------------------------------------------------- */

/* Fills in bytes 0 … 127 of a header whose descriptors are in place; header->header_bytes of `bytes` are defined after it. */
void unit_header_encode(const struct unit_header *header, uint8_t *bytes);
/* Looks at the fixed part only: enough to know how much more to read. Not yet to be believed. */
int unit_header_peek(const struct superblock *slice, uint32_t segment, uint32_t unit_off,
		     const uint8_t *bytes, size_t len, struct unit_header *ret);
/* The whole validity rule, descriptors included. `bytes` (8-byte aligned) must hold header_bytes; -ENOBUFS when it does not. */
int unit_header_decode(const struct superblock *slice, uint32_t segment, uint32_t unit_off,
		       const uint8_t *bytes, size_t len, struct unit_header *ret);
/* Bytes that are not a valid header, but were one of ours for this place: damaged or torn, rather than never written. */
bool unit_header_resembles(const struct superblock *slice, uint32_t segment, uint32_t unit_off,
			   const uint8_t *bytes);

/* -- footers ------------------------------------------------------------------------------------------------------------------- */

static inline uint32_t
footer_bytes_for(uint32_t descriptors_bytes)
{
	return (uint32_t)align_up((uint64_t)descriptors_bytes + TRAILER_BYTES, PAGE_BYTES);
}
void trailer_encode(const struct trailer *trailer, uint8_t *ret_bytes);
int trailer_decode(const struct superblock *slice, uint32_t segment, const uint8_t *bytes,
		   struct trailer *ret);
bool trailer_resembles(const struct superblock *slice, uint32_t segment, const uint8_t *bytes);
/* Descriptors of a footer: CRC, count, and that every value lies inside data_bytes. `descs` has room for trailer->records_count or
 * is NULL. */
int footer_descs_decode(const struct trailer *trailer, const uint8_t *bytes, struct desc *descs);

/* -- what a segment is (section 6, step 2) ------------------------------------------------------------------------------------- */

enum segment_verdict { VERDICT_FREE, VERDICT_SEALED, VERDICT_WALK };
/* NULL: not valid. *ret_clean: a free segment may be used as it is; otherwise its freed marks must be written again first. */
enum segment_verdict
segment_classify(const struct unit_header *head, const struct trailer *trailer, bool *ret_clean);

#endif
