/* fuzz_layout.c - bytes from a device: every decoder of layout.h, with its CRC as it came and repaired. What decodes keeps the page's
 * promises and comes out the same when it is encoded and decoded again.
 *
 * Input: a byte that chooses the decoder (low bits) and whether the CRC is repaired (bit 7), seven ignored, then the structure.
 */
#include <stdlib.h>

#include "base/crc.h"
#include "engine/layout.h"
#include "engine/space.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const struct superblock g_slice = { .segment_bytes = 8 << 20,
					   .segments_count = 4,
					   .part_bytes = 1 << 20 };

static void
superblock_try(uint8_t *p, size_t size, bool repair)
{
	struct superblock sb, again;
	uint8_t page[PAGE_BYTES];

	if (size < PAGE_BYTES) {
		return;
	}
	if (repair) {
		put_le32(p + 4092, crc32c(0, p, 4092));
	}
	if (superblock_decode(p, get_le64(p + 64), &sb) == 0) {
		HR_ASSERT(sb.slice_off_bytes + sb.slice_bytes <= sb.device_bytes);
		HR_ASSERT(META_BYTES + sb.segments_count * sb.segment_bytes <= sb.slice_bytes);
		superblock_encode(&sb, page);
		HR_ASSERT(superblock_decode(page, sb.slice_off_bytes, &again) == 0);
		/* Both were cleared whole before they were filled in: padding is zero. */
		/* NOLINTNEXTLINE(bugprone-suspicious-memory-comparison) */
		HR_ASSERT(memcmp(&sb, &again, sizeof(sb)) == 0);
	}
}

static void
space_try(uint8_t *p, size_t size, bool repair)
{
	struct space_slot slot;
	struct space_row row;

	if (repair && size >= SPACE_HEADER_BYTES) {
		size_t rows =
		    HR_MIN((size_t)get_le32(p + 40) * SPACE_ROW_BYTES, size - SPACE_HEADER_BYTES);

		put_le32(p + 60, crc32c(crc32c(0, p, 60), p + SPACE_HEADER_BYTES, rows));
	}
	if (space_slot_decode(&g_slice, p, size, &slot) == 0) {
		for (uint32_t i = 0; i < slot.rows_count; i++) {
			if (space_row_decode(p, i, &row) == 0) {
				HR_ASSERT(row.number != 0 && row.label[63] == 0);
			}
		}
	}
}

static uint32_t
descs_try(const uint8_t *p, size_t size)
{
	uint8_t *copy = aligned_alloc(8, DESC_BYTES_MAX + 8);
	struct desc d, again;
	uint32_t at = 0;
	uint32_t len, len_again;

	HR_ASSERT(copy != NULL);
	while (desc_decode(p + at, size - at, &d, &len) == 0) {
		HR_ASSERT(len <= size - at && desc_valid(&d) && desc_encode(&d, copy) == len);
		HR_ASSERT(desc_decode(copy, len, &again, &len_again) == 0 && len_again == len);
		HR_ASSERT(again.birth == d.birth && again.value_off == d.value_off &&
			  again.crcs_count == d.crcs_count);
		at += len;
	}
	free(copy);
	return at;
}

static void
unit_try(uint8_t *p, size_t size, bool repair)
{
	struct unit_header h;
	uint32_t segment, off;

	if (size < UNIT_HEADER_BYTES) {
		return;
	}
	segment = get_le32(p + 72);
	off = get_le32(p + 76);
	if (repair) {
		size_t descs = HR_MIN((size_t)get_le32(p + 92), size - UNIT_HEADER_BYTES);

		put_le32(p + 124, crc32c(crc32c(0, p, 124), p + UNIT_HEADER_BYTES, descs));
	}
	(void)unit_header_resembles(&g_slice, segment, off, p);
	if (unit_header_decode(&g_slice, segment, off, p, size, &h) == 0) {
		HR_ASSERT((uint64_t)h.unit_off + h.unit_bytes <= g_slice.segment_bytes &&
			  h.header_bytes <= size);
		HR_ASSERT(descs_try(p + UNIT_HEADER_BYTES, h.descriptors_bytes) ==
			  h.descriptors_bytes);
	}
}

/* A footer: its descriptors, then the trailer in the last 128 bytes. */
static void
footer_try(uint8_t *p, size_t size, bool repair)
{
	struct trailer t;
	struct desc *descs;
	uint8_t *end;

	if (size < TRAILER_BYTES) {
		return;
	}
	end = p + size - TRAILER_BYTES;
	if (repair) {
		put_le32(end + 116,
			 crc32c(0, p, HR_MIN((size_t)get_le32(end + 84), size - TRAILER_BYTES)));
		put_le32(end + 124, crc32c(0, end, 124));
	}
	(void)trailer_resembles(&g_slice, get_le32(end + 72), end);
	if (trailer_decode(&g_slice, get_le32(end + 72), end, &t) != 0 ||
	    t.descriptors_bytes > size - TRAILER_BYTES) {
		return;
	}
	HR_ASSERT((uint64_t)t.data_bytes + t.footer_bytes <= g_slice.segment_bytes);
	descs = calloc(t.records_count + 1, sizeof(*descs));
	HR_ASSERT(descs != NULL);
	if (footer_descs_decode(&t, p, descs) == 0) {
		for (uint32_t i = 0; i < t.records_count; i++) {
			HR_ASSERT(descs[i].value_off + pages_bytes(descs[i].stored_bytes) <=
				  t.data_bytes);
		}
	}
	free(descs);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	size_t len = size < 8 ? 0 : size - 8;
	uint8_t *p = aligned_alloc(8, align_up(len + 1, 8));
	bool repair;

	HR_ASSERT(p != NULL);
	if (size >= 8) {
		memcpy(p, data + 8, len);
		repair = (data[0] & 0x80) != 0;
		switch (data[0] & 7) {
		case 0:
			superblock_try(p, len, repair);
			break;
		case 1:
			space_try(p, len, repair);
			break;
		case 2:
			unit_try(p, len, repair);
			break;
		case 3:
			footer_try(p, len, repair);
			break;
		default:
			(void)descs_try(p, len);
			break;
		}
	}
	free(p);
	return 0;
}
