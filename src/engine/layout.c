/* layout.c - every offset below is from the tables of docs/format/README.md, in their order. */
#include "engine/layout.h"

#include <errno.h>

#include <headrace/error.h>

#include "base/crc.h"
#include "engine/space.h"

/* Descriptors' CRCs are used where they lie in the buffer. */
static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__,
	      "decoders hand out CRCs without swapping them");

static const char superblock_magic[8] = "HRSUPER1";
static const char space_magic[8] = "HRSPACE1";
static const char unit_magic[8] = "HRUNIT01";
static const char trailer_magic[8] = "HRFOOT01";

/* -- superblock ---------------------------------------------------------------------------------------------------------------- */

enum { SUPERBLOCK_CRC_OFF = PAGE_BYTES - 4, ID_SCHEME = 1, CHECKSUM_KIND = 1 };

void
superblock_encode(const struct superblock *sb, uint8_t ret_page[PAGE_BYTES])
{
	uint8_t *p = ret_page;

	memset(p, 0, PAGE_BYTES);
	memcpy(p, superblock_magic, 8);
	put_le32(p + 8, FORMAT_VERSION);
	put_le32(p + 12, sb->flags_compat);
	put_le32(p + 16, sb->flags_ro_compat);
	put_le32(p + 20, sb->flags_incompat);
	memcpy(p + 24, sb->device_uuid, 16);
	memcpy(p + 40, sb->shard_uuid, 16);
	put_le32(p + 56, sb->shard_idx);
	put_le32(p + 60, sb->shards_count);
	put_le64(p + 64, sb->slice_off_bytes);
	put_le64(p + 72, sb->slice_bytes);
	put_le64(p + 80, sb->device_bytes);
	put_le64(p + 88, sb->segment_bytes);
	put_le32(p + 96, sb->segments_count);
	put_le32(p + 100, sb->align_bytes);
	put_le32(p + 104, sb->part_bytes);
	put_le32(p + 108, sb->chunk_bytes);
	put_le16(p + 112, ID_SCHEME);
	put_le16(p + 114, CHECKSUM_KIND);
	put_le32(p + 116, sb->meta_bytes);
	put_le64(p + 120, sb->weight);
	put_le64(p + 128, sb->sequence);
	put_le64(p + 136, sb->created_ms);
	put_le32(p + 144, sb->segments_prepared);
	put_le32(p + 148, sb->unit_bytes_max);
	put_le32(p + 152, sb->space_table_off[0]);
	put_le32(p + 156, sb->space_table_off[1]);
	put_le32(p + 160, sb->space_table_bytes);
	put_le32(p + SUPERBLOCK_CRC_OFF, crc32c(0, p, SUPERBLOCK_CRC_OFF));
}

static bool
superblock_geometry_valid(const struct superblock *sb)
{
	return sb->shards_count >= 1 && sb->shards_count <= SLICES_MAX &&
	       sb->shard_idx < sb->shards_count && sb->slice_bytes > META_BYTES &&
	       sb->slice_bytes <= SLICE_BYTES_MAX && is_aligned(sb->slice_bytes, PAGE_BYTES) &&
	       sb->slice_bytes <= sb->device_bytes / sb->shards_count &&
	       sb->slice_off_bytes == sb->shard_idx * sb->slice_bytes &&
	       is_pow2(sb->segment_bytes) && sb->segment_bytes >= SEGMENT_BYTES_MIN &&
	       sb->segment_bytes <= SEGMENT_BYTES_MAX && sb->segments_count >= SEGMENTS_COUNT_MIN &&
	       sb->segments_count == (sb->slice_bytes - META_BYTES) / sb->segment_bytes &&
	       sb->segments_prepared <= sb->segments_count;
}

static bool
superblock_constants_valid(const struct superblock *sb)
{
	return sb->meta_bytes == META_BYTES && sb->align_bytes == PAGE_BYTES &&
	       sb->chunk_bytes == CHUNK_BYTES &&
	       sb->part_bytes == (sb->segment_bytes < MiB(32) ? MiB(1) : MiB(4)) &&
	       sb->unit_bytes_max == UNIT_VALUES_BYTES_MAX &&
	       sb->space_table_off[0] == SPACE_TABLE_A_OFF &&
	       sb->space_table_off[1] == SPACE_TABLE_B_OFF &&
	       sb->space_table_bytes == SPACE_TABLE_BYTES;
}

int
superblock_decode(const uint8_t page[PAGE_BYTES], uint64_t off, struct superblock *ret)
{
	const uint8_t *p = page;
	struct superblock sb = { 0 };

	if (memcmp(p, superblock_magic, 8) != 0 ||
	    get_le32(p + SUPERBLOCK_CRC_OFF) != crc32c(0, p, SUPERBLOCK_CRC_OFF)) {
		return -HR_ECORRUPT;
	}
	sb.flags_compat = get_le32(p + 12);
	sb.flags_ro_compat = get_le32(p + 16);
	sb.flags_incompat = get_le32(p + 20);
	if (get_le32(p + 8) > FORMAT_VERSION || sb.flags_incompat != 0) {
		return -HR_EVERSION;
	}
	memcpy(sb.device_uuid, p + 24, 16);
	memcpy(sb.shard_uuid, p + 40, 16);
	sb.shard_idx = get_le32(p + 56);
	sb.shards_count = get_le32(p + 60);
	sb.slice_off_bytes = get_le64(p + 64);
	sb.slice_bytes = get_le64(p + 72);
	sb.device_bytes = get_le64(p + 80);
	sb.segment_bytes = get_le64(p + 88);
	sb.segments_count = get_le32(p + 96);
	sb.align_bytes = get_le32(p + 100);
	sb.part_bytes = get_le32(p + 104);
	sb.chunk_bytes = get_le32(p + 108);
	sb.meta_bytes = get_le32(p + 116);
	sb.weight = get_le64(p + 120);
	sb.sequence = get_le64(p + 128);
	sb.created_ms = get_le64(p + 136);
	sb.segments_prepared = get_le32(p + 144);
	sb.unit_bytes_max = get_le32(p + 148);
	sb.space_table_off[0] = get_le32(p + 152);
	sb.space_table_off[1] = get_le32(p + 156);
	sb.space_table_bytes = get_le32(p + 160);
	if (get_le32(p + 8) != FORMAT_VERSION || get_le16(p + 112) != ID_SCHEME ||
	    get_le16(p + 114) != CHECKSUM_KIND || !superblock_geometry_valid(&sb) ||
	    !superblock_constants_valid(&sb)) {
		return -HR_ECORRUPT;
	}
	if (off != sb.slice_off_bytes + SUPERBLOCK_A_OFF &&
	    off != sb.slice_off_bytes + SUPERBLOCK_B_OFF) {
		return -HR_ECORRUPT;
	}
	*ret = sb;
	return 0;
}

/* -- space table --------------------------------------------------------------------------------------------------------------- */

static void
space_row_encode(const struct space_row *row, uint8_t *p)
{
	memset(p, 0, SPACE_ROW_BYTES);
	put_le32(p, row->number);
	put_le32(p + 4, row->generation);
	memcpy(p + 16, row->digest, 32);
	memcpy(p + 48, row->tenant, 16);
	put_le64(p + 64, row->quota_bytes);
	put_le64(p + 72, row->pin_budget_bytes);
	put_le64(p + 80, row->usage_bytes);
	put_le64(p + 88, row->usage_blocks);
	put_le64(p + 96, row->created_ms);
	put_le64(p + 104, row->drop_birth);
	put_le64(p + 112, row->drop_generation);
	memcpy(p + 120, row->label, 64);
}

uint32_t
space_slot_encode(const struct superblock *slice, const struct space_slot *slot,
		  const struct space_row *const *rows, uint8_t *ret_slot)
{
	uint8_t *p = ret_slot;
	uint32_t len = SPACE_HEADER_BYTES + slot->rows_count * SPACE_ROW_BYTES;

	HR_ASSERT(slot->rows_count <= SPACE_ROWS_MAX);
	memset(p, 0, align_up(len, PAGE_BYTES));
	memcpy(p, space_magic, 8);
	put_le32(p + 8, FORMAT_VERSION);
	memcpy(p + 16, slice->shard_uuid, 16);
	put_le64(p + 32, slot->sequence);
	put_le32(p + 40, slot->rows_count);
	put_le32(p + 44, slot->next_number);
	for (uint32_t i = 0; i < slot->rows_count; i++) {
		space_row_encode(rows[i], p + SPACE_HEADER_BYTES + i * SPACE_ROW_BYTES);
	}
	put_le32(p + 60, crc32c(crc32c(0, p, 60), p + SPACE_HEADER_BYTES, len - SPACE_HEADER_BYTES));
	return (uint32_t)align_up(len, PAGE_BYTES);
}

int
space_slot_decode(const struct superblock *slice, const uint8_t *p, size_t len,
		  struct space_slot *ret)
{
	struct space_slot slot;
	uint32_t crc;

	if (len < SPACE_HEADER_BYTES || memcmp(p, space_magic, 8) != 0) {
		return -HR_ECORRUPT;
	}
	slot.sequence = get_le64(p + 32);
	slot.rows_count = get_le32(p + 40);
	slot.next_number = get_le32(p + 44);
	if (slot.rows_count > SPACE_ROWS_MAX ||
	    SPACE_HEADER_BYTES + (size_t)slot.rows_count * SPACE_ROW_BYTES > len) {
		return -HR_ECORRUPT;
	}
	crc = crc32c(crc32c(0, p, 60), p + SPACE_HEADER_BYTES,
		     (size_t)slot.rows_count * SPACE_ROW_BYTES);
	if (crc != get_le32(p + 60)) {
		return -HR_ECORRUPT;
	}
	if (get_le32(p + 8) > FORMAT_VERSION || get_le32(p + 12) != 0) {
		return -HR_EVERSION;
	}
	if (get_le32(p + 8) != FORMAT_VERSION || memcmp(p + 16, slice->shard_uuid, 16) != 0 ||
	    slot.next_number == 0 || slot.next_number > SPACE_NUMBERS_END / 2) {
		return -HR_ECORRUPT;
	}
	*ret = slot;
	return 0;
}

int
space_row_decode(const uint8_t *bytes, uint32_t idx, struct space_row *ret)
{
	const uint8_t *p = bytes + SPACE_HEADER_BYTES + (size_t)idx * SPACE_ROW_BYTES;
	struct space_row row = { 0 };

	row.number = get_le32(p);
	row.generation = get_le32(p + 4);
	memcpy(row.digest, p + 16, 32);
	memcpy(row.tenant, p + 48, 16);
	row.quota_bytes = get_le64(p + 64);
	row.pin_budget_bytes = get_le64(p + 72);
	row.usage_bytes = get_le64(p + 80);
	row.usage_blocks = get_le64(p + 88);
	row.created_ms = get_le64(p + 96);
	row.drop_birth = get_le64(p + 104);
	row.drop_generation = get_le64(p + 112);
	memcpy(row.label, p + 120, 64);
	row.label[63] = 0;
	if (row.number == 0 || row.generation == 0 || row.generation > SPACE_NUMBERS_END / 2) {
		return -HR_ECORRUPT;
	}
	*ret = row;
	return 0;
}

/* -- descriptors --------------------------------------------------------------------------------------------------------------- */

uint32_t
desc_bytes(uint32_t key_bytes, uint32_t crcs_count)
{
	return (uint32_t)align_up(DESC_BYTES + align_up(key_bytes, 4) + 4 * crcs_count, 8);
}

static bool
desc_value_valid(const struct desc *d)
{
	if (d->stored_bytes != d->logical_bytes || d->stored_bytes > PART_BYTES_MAX ||
	    d->block_bytes > BLOCK_BYTES_MAX || d->logical_bytes > d->block_bytes ||
	    d->parts_count == 0 || d->part >= d->parts_count ||
	    !is_aligned(d->value_off, PAGE_BYTES) || (d->stored_bytes == 0 && d->value_off != 0)) {
		return false;
	}
	if (d->parts_count == 1) {
		return d->block_bytes == d->logical_bytes && d->put_number == 0 && d->birth != 0;
	}
	return d->put_number != 0 && (d->part == 0 || d->key_bytes == 0);
}

bool
desc_valid(const struct desc *d)
{
	if (d->key_bytes > KEY_BYTES_MAX || d->codec != 0 || d->space_number == 0 ||
	    d->space_generation == 0 || d->crcs_count != crcs_count_of(d->stored_bytes)) {
		return false;
	}
	if (d->kind == DESC_VALUE) {
		return desc_value_valid(d);
	}
	if (d->stored_bytes != 0 || d->logical_bytes != 0 || d->value_off != 0 || d->part != 0 ||
	    d->birth == 0) {
		return false;
	}
	if (d->kind == DESC_COMMIT) {
		return d->parts_count >= 2 && d->put_number != 0 && d->key_bytes == 0 &&
		       d->block_bytes <= BLOCK_BYTES_MAX;
	}
	return d->kind == DESC_TOMBSTONE && d->parts_count <= 1;
}

bool
desc_fits(const struct superblock *slice, const struct desc *d)
{
	uint64_t parts = HR_MAX(div_round_up(d->block_bytes, slice->part_bytes), UINT64_C(1));
	uint64_t off = (uint64_t)d->part * slice->part_bytes;

	if (d->kind == DESC_TOMBSTONE) {
		return true;
	}
	if (d->parts_count != parts) {
		return false;
	}
	return d->kind == DESC_COMMIT ||
	       d->stored_bytes == HR_MIN(d->block_bytes - off, (uint64_t)slice->part_bytes);
}

uint32_t
desc_encode(const struct desc *d, uint8_t *p)
{
	uint32_t len = desc_size(d);
	uint32_t crcs_off = DESC_BYTES + (uint32_t)align_up(d->key_bytes, 4);

	memset(p, 0, len);
	put_le32(p, len);
	put_le16(p + 4, d->key_bytes);
	p[6] = d->kind;
	p[7] = d->codec;
	memcpy(p + 8, d->id, 16);
	put_le64(p + 24, d->route);
	memcpy(p + 32, d->parent, 16);
	put_le32(p + 48, d->position);
	put_le32(p + 52, d->space_number);
	put_le32(p + 56, d->space_generation);
	put_le32(p + 60, d->flags);
	put_le64(p + 64, d->birth);
	put_le64(p + 72, d->expiry_ms);
	put_le64(p + 80, d->put_number);
	put_le64(p + 88, d->block_bytes);
	put_le32(p + 96, d->logical_bytes);
	put_le32(p + 100, d->stored_bytes);
	put_le16(p + 104, d->part);
	put_le16(p + 106, d->parts_count);
	put_le32(p + 108, d->value_off);
	put_le32(p + 112, d->cost_hint_us);
	put_le32(p + 116, d->encryption_key_id);
	p[120] = d->class_hint;
	put_le64(p + 128, d->horizon);
	memcpy(p + 136, d->nonce, 16);
	if (d->key_bytes > 0) {
		memcpy(p + DESC_BYTES, d->key, d->key_bytes);
	}
	for (uint32_t i = 0; i < d->crcs_count; i++) {
		put_le32(p + crcs_off + 4 * i, d->crcs[i]);
	}
	return len;
}

static void
desc_fields_decode(const uint8_t *p, struct desc *d)
{
	d->key_bytes = get_le16(p + 4);
	d->kind = p[6];
	d->codec = p[7];
	memcpy(d->id, p + 8, 16);
	d->route = get_le64(p + 24);
	memcpy(d->parent, p + 32, 16);
	d->position = get_le32(p + 48);
	d->space_number = get_le32(p + 52);
	d->space_generation = get_le32(p + 56);
	d->flags = get_le32(p + 60);
	d->birth = get_le64(p + 64);
	d->expiry_ms = get_le64(p + 72);
	d->put_number = get_le64(p + 80);
	d->block_bytes = get_le64(p + 88);
	d->logical_bytes = get_le32(p + 96);
	d->stored_bytes = get_le32(p + 100);
	d->part = get_le16(p + 104);
	d->parts_count = get_le16(p + 106);
	d->value_off = get_le32(p + 108);
	d->cost_hint_us = get_le32(p + 112);
	d->encryption_key_id = get_le32(p + 116);
	d->class_hint = p[120];
	d->horizon = get_le64(p + 128);
	memcpy(d->nonce, p + 136, 16);
}

int
desc_decode(const uint8_t *p, size_t len, struct desc *ret, uint32_t *ret_len)
{
	struct desc d = { 0 };
	uint32_t bytes;

	HR_ASSERT(is_aligned((uintptr_t)p, 4));
	if (len < DESC_BYTES) {
		return -HR_ECORRUPT;
	}
	bytes = get_le32(p);
	if (bytes > len || bytes > DESC_BYTES_MAX) {
		return -HR_ECORRUPT;
	}
	desc_fields_decode(p, &d);
	d.crcs_count = crcs_count_of(d.stored_bytes);
	if (!desc_valid(&d) || bytes != desc_size(&d)) {
		return -HR_ECORRUPT;
	}
	d.key = d.key_bytes > 0 ? p + DESC_BYTES : NULL;
	d.crcs = d.crcs_count > 0
		     ? (const uint32_t *)(const void *)(p + DESC_BYTES + align_up(d.key_bytes, 4))
		     : NULL;
	*ret = d;
	*ret_len = bytes;
	return 0;
}

/* -- units --------------------------------------------------------------------------------------------------------------------- */

enum { UNIT_CRC_OFF = UNIT_HEADER_BYTES - 4 };

void
unit_header_encode(const struct unit_header *h, uint8_t *p)
{
	memset(p, 0, UNIT_HEADER_BYTES);
	memcpy(p, unit_magic, 8);
	put_le32(p + 8, FORMAT_VERSION);
	put_le32(p + 12, h->flags_compat);
	put_le32(p + 16, h->flags_ro_compat);
	put_le32(p + 20, h->flags_incompat);
	memcpy(p + 24, h->shard_uuid, 16);
	put_le64(p + 40, h->generation);
	put_le64(p + 48, h->sequence);
	put_le64(p + 56, h->stable_sequence);
	put_le64(p + 64, h->birth_max);
	put_le32(p + 72, h->segment_idx);
	put_le32(p + 76, h->unit_off);
	put_le32(p + 80, h->header_bytes);
	put_le32(p + 84, h->unit_bytes);
	put_le32(p + 88, h->records_count);
	put_le32(p + 92, h->descriptors_bytes);
	put_le16(p + 96, h->kind);
	put_le16(p + 98, h->class);
	put_le64(p + 104, h->made_ms);
	memset(p + UNIT_HEADER_BYTES + h->descriptors_bytes, 0,
	       h->header_bytes - UNIT_HEADER_BYTES - h->descriptors_bytes);
	put_le32(p + UNIT_CRC_OFF,
		 crc32c(crc32c(0, p, UNIT_CRC_OFF), p + UNIT_HEADER_BYTES, h->descriptors_bytes));
}

static bool
unit_lengths_valid(const struct superblock *slice, const struct unit_header *h)
{
	if (!is_aligned(h->header_bytes, PAGE_BYTES) || !is_aligned(h->unit_bytes, PAGE_BYTES) ||
	    h->header_bytes == 0 || h->header_bytes > UNIT_HEADER_BYTES_MAX ||
	    h->header_bytes > h->unit_bytes ||
	    h->descriptors_bytes > h->header_bytes - UNIT_HEADER_BYTES ||
	    (uint64_t)h->unit_off + h->unit_bytes > slice->segment_bytes ||
	    h->unit_bytes - h->header_bytes > UNIT_VALUES_BYTES_MAX ||
	    (uint64_t)h->records_count * DESC_BYTES > h->descriptors_bytes) {
		return false;
	}
	if (h->kind == UNIT_FREED) {
		return h->records_count == 0 && h->descriptors_bytes == 0 && h->unit_off == 0 &&
		       h->unit_bytes == PAGE_BYTES;
	}
	return h->kind == UNIT_RECORDS && h->records_count > 0;
}

int
unit_header_peek(const struct superblock *slice, uint32_t segment, uint32_t unit_off,
		 const uint8_t *p, size_t len, struct unit_header *ret)
{
	struct unit_header h = { 0 };

	if (len < UNIT_HEADER_BYTES || memcmp(p, unit_magic, 8) != 0 || get_le32(p + 8) == 0) {
		return -HR_ECORRUPT;
	}
	h.flags_compat = get_le32(p + 12);
	h.flags_ro_compat = get_le32(p + 16);
	h.flags_incompat = get_le32(p + 20);
	if (get_le32(p + 8) > FORMAT_VERSION || h.flags_incompat != 0) {
		return -HR_EVERSION;
	}
	memcpy(h.shard_uuid, p + 24, 16);
	h.generation = get_le64(p + 40);
	h.sequence = get_le64(p + 48);
	h.stable_sequence = get_le64(p + 56);
	h.birth_max = get_le64(p + 64);
	h.segment_idx = get_le32(p + 72);
	h.unit_off = get_le32(p + 76);
	h.header_bytes = get_le32(p + 80);
	h.unit_bytes = get_le32(p + 84);
	h.records_count = get_le32(p + 88);
	h.descriptors_bytes = get_le32(p + 92);
	h.kind = get_le16(p + 96);
	h.class = get_le16(p + 98);
	h.made_ms = get_le64(p + 104);
	if (memcmp(h.shard_uuid, slice->shard_uuid, 16) != 0 || h.segment_idx != segment ||
	    h.unit_off != unit_off || h.generation == 0 || h.class >= CLASS_COUNT ||
	    !unit_lengths_valid(slice, &h)) {
		return -HR_ECORRUPT;
	}
	*ret = h;
	return 0;
}

/* Values lie in the order of their descriptors, without gaps, and fill the unit. */
static bool
unit_descs_valid(const struct superblock *slice, const struct unit_header *h, const uint8_t *descs)
{
	uint32_t at = 0;
	uint32_t value_off = h->unit_off + h->header_bytes;

	for (uint32_t i = 0; i < h->records_count; i++) {
		struct desc d;
		uint32_t len;

		if (desc_decode(descs + at, h->descriptors_bytes - at, &d, &len) != 0) {
			return false;
		}
		if (d.stored_bytes > slice->part_bytes ||
		    (d.stored_bytes > 0 && d.value_off != value_off)) {
			return false;
		}
		at += len;
		value_off += pages_bytes(d.stored_bytes);
		if (value_off > h->unit_off + h->unit_bytes) {
			return false;
		}
	}
	return at == h->descriptors_bytes && value_off == h->unit_off + h->unit_bytes;
}

int
unit_header_decode(const struct superblock *slice, uint32_t segment, uint32_t unit_off,
		   const uint8_t *p, size_t len, struct unit_header *ret)
{
	struct unit_header h;
	uint32_t crc;
	int rc;

	rc = unit_header_peek(slice, segment, unit_off, p, len, &h);
	if (rc != 0) {
		return rc;
	}
	if (h.header_bytes > len) {
		return -ENOBUFS;
	}
	crc = crc32c(crc32c(0, p, UNIT_CRC_OFF), p + UNIT_HEADER_BYTES, h.descriptors_bytes);
	if (crc != get_le32(p + UNIT_CRC_OFF) ||
	    !unit_descs_valid(slice, &h, p + UNIT_HEADER_BYTES)) {
		return -HR_ECORRUPT;
	}
	*ret = h;
	return 0;
}

bool
unit_header_resembles(const struct superblock *slice, uint32_t segment, uint32_t unit_off,
		      const uint8_t *p)
{
	/* One damaged byte spoils one of the four. */
	return (memcmp(p, unit_magic, 8) == 0) + (memcmp(p + 24, slice->shard_uuid, 16) == 0) +
		   (get_le32(p + 72) == segment) + (get_le32(p + 76) == unit_off) >=
	       3;
}

/* -- footers ------------------------------------------------------------------------------------------------------------------- */

enum { TRAILER_CRC_OFF = TRAILER_BYTES - 4 };

void
trailer_encode(const struct trailer *t, uint8_t *p)
{
	memset(p, 0, TRAILER_BYTES);
	memcpy(p, trailer_magic, 8);
	put_le32(p + 8, FORMAT_VERSION);
	put_le32(p + 12, t->flags_compat);
	put_le32(p + 16, t->flags_ro_compat);
	put_le32(p + 20, t->flags_incompat);
	memcpy(p + 24, t->shard_uuid, 16);
	put_le64(p + 40, t->generation);
	put_le64(p + 48, t->sequence_first);
	put_le64(p + 56, t->sequence_last);
	put_le64(p + 64, t->birth_max);
	put_le32(p + 72, t->segment_idx);
	put_le32(p + 76, t->footer_bytes);
	put_le32(p + 80, t->records_count);
	put_le32(p + 84, t->descriptors_bytes);
	put_le32(p + 88, t->units_count);
	put_le16(p + 92, t->kind);
	put_le16(p + 94, t->class);
	put_le64(p + 96, t->made_ms);
	put_le32(p + 112, t->data_bytes);
	put_le32(p + 116, t->descriptors_crc);
	put_le32(p + TRAILER_CRC_OFF, crc32c(0, p, TRAILER_CRC_OFF));
}

static bool
trailer_lengths_valid(const struct superblock *slice, const struct trailer *t)
{
	if (t->footer_bytes > slice->segment_bytes || t->descriptors_bytes > slice->segment_bytes ||
	    t->footer_bytes != footer_bytes_for(t->descriptors_bytes) ||
	    !is_aligned(t->data_bytes, PAGE_BYTES) ||
	    (uint64_t)t->data_bytes + t->footer_bytes > slice->segment_bytes ||
	    (uint64_t)t->records_count * DESC_BYTES > t->descriptors_bytes) {
		return false;
	}
	if (t->kind == TRAILER_FREED) {
		return t->records_count == 0 && t->descriptors_bytes == 0;
	}
	return t->kind == TRAILER_SEALED;
}

int
trailer_decode(const struct superblock *slice, uint32_t segment, const uint8_t *p,
	       struct trailer *ret)
{
	struct trailer t = { 0 };

	if (memcmp(p, trailer_magic, 8) != 0 ||
	    get_le32(p + TRAILER_CRC_OFF) != crc32c(0, p, TRAILER_CRC_OFF)) {
		return -HR_ECORRUPT;
	}
	t.flags_compat = get_le32(p + 12);
	t.flags_ro_compat = get_le32(p + 16);
	t.flags_incompat = get_le32(p + 20);
	if (get_le32(p + 8) > FORMAT_VERSION || t.flags_incompat != 0) {
		return -HR_EVERSION;
	}
	memcpy(t.shard_uuid, p + 24, 16);
	t.generation = get_le64(p + 40);
	t.sequence_first = get_le64(p + 48);
	t.sequence_last = get_le64(p + 56);
	t.birth_max = get_le64(p + 64);
	t.segment_idx = get_le32(p + 72);
	t.footer_bytes = get_le32(p + 76);
	t.records_count = get_le32(p + 80);
	t.descriptors_bytes = get_le32(p + 84);
	t.units_count = get_le32(p + 88);
	t.kind = get_le16(p + 92);
	t.class = get_le16(p + 94);
	t.made_ms = get_le64(p + 96);
	t.data_bytes = get_le32(p + 112);
	t.descriptors_crc = get_le32(p + 116);
	if (get_le32(p + 8) != FORMAT_VERSION || memcmp(t.shard_uuid, slice->shard_uuid, 16) != 0 ||
	    t.segment_idx != segment || t.generation == 0 || t.class >= CLASS_COUNT ||
	    !trailer_lengths_valid(slice, &t)) {
		return -HR_ECORRUPT;
	}
	*ret = t;
	return 0;
}

bool
trailer_resembles(const struct superblock *slice, uint32_t segment, const uint8_t *p)
{
	return (memcmp(p, trailer_magic, 8) == 0) + (memcmp(p + 24, slice->shard_uuid, 16) == 0) +
		   (get_le32(p + 72) == segment) + (get_le32(p + 8) == FORMAT_VERSION) >=
	       3;
}

int
footer_descs_decode(const struct trailer *t, const uint8_t *bytes, struct desc *descs)
{
	uint32_t at = 0;

	if (crc32c(0, bytes, t->descriptors_bytes) != t->descriptors_crc) {
		return -HR_ECORRUPT;
	}
	for (uint32_t i = 0; i < t->records_count; i++) {
		struct desc d;
		uint32_t len;

		if (desc_decode(bytes + at, t->descriptors_bytes - at, &d, &len) != 0 ||
		    (uint64_t)d.value_off + pages_bytes(d.stored_bytes) > t->data_bytes) {
			return -HR_ECORRUPT;
		}
		if (descs != NULL) {
			descs[i] = d;
		}
		at += len;
	}
	return at == t->descriptors_bytes ? 0 : -HR_ECORRUPT;
}

/* -- what a segment is --------------------------------------------------------------------------------------------------------- */

enum segment_verdict
segment_classify(const struct unit_header *head, const struct trailer *trailer, bool *ret_clean)
{
	bool head_unit = head != NULL && head->kind == UNIT_RECORDS;
	bool head_freed = head != NULL && head->kind == UNIT_FREED;
	bool trailer_sealed = trailer != NULL && trailer->kind == TRAILER_SEALED;

	*ret_clean = false;
	if (trailer_sealed) {
		if (head_freed && head->generation >= trailer->generation) {
			return VERDICT_FREE; /* The free was cut between its two marks: the footer must go before reuse. */
		}
		/* A unit of a later use means that the footer was never overwritten by that use's own. */
		return head_unit && head->generation > trailer->generation ? VERDICT_WALK
									   : VERDICT_SEALED;
	}
	if (head_unit && (trailer == NULL || head->generation > trailer->generation)) {
		return VERDICT_WALK;
	}
	*ret_clean = !head_unit;
	return VERDICT_FREE;
}
