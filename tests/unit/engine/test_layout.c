/* test_layout.c - durable structures: offsets as the page gives them, round trips, and that no damaged byte is believed.
 *
 * Method: encode known values, look at bytes where docs/format says they are, decode them again; then flip every byte, and feed
 * noise and mutated structures with repaired CRCs, which must be refused or decode to something consistent.
 */
#include "engine/layout.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <headrace/error.h>

#include <cmocka.h>

#include "base/crc.h"
#include "base/prng.h"
#include "engine/space.h"

static struct superblock
slice_make(void)
{
	struct superblock sb = {
		.device_uuid = { 1, 2, 3 },
		.shard_uuid = { 0xa0, 0xa1 },
		.shard_idx = 1,
		.shards_count = 2,
		.slice_off_bytes = MiB(65),
		.slice_bytes = MiB(65),
		.device_bytes = MiB(131),
		.segment_bytes = MiB(16),
		.segments_count = 4,
		.align_bytes = PAGE_BYTES,
		.part_bytes = MiB(1),
		.chunk_bytes = CHUNK_BYTES,
		.meta_bytes = META_BYTES,
		.weight = 77,
		.sequence = 9,
		.created_ms = 1234567890123,
		.segments_prepared = 3,
		.unit_bytes_max = UNIT_VALUES_BYTES_MAX,
		.space_table_off = { SPACE_TABLE_A_OFF, SPACE_TABLE_B_OFF },
		.space_table_bytes = SPACE_TABLE_BYTES,
	};

	return sb;
}

static void
test_superblock(void **state)
{
	struct superblock sb = slice_make();
	struct superblock got;
	uint8_t page[PAGE_BYTES];
	uint64_t off = sb.slice_off_bytes;

	(void)state;
	superblock_encode(&sb, page);
	assert_memory_equal(page, "HRSUPER1", 8);
	assert_int_equal(get_le32(page + 56), 1);
	assert_int_equal(get_le64(page + 88), MiB(16));
	assert_int_equal(get_le32(page + 144), 3);
	assert_int_equal(superblock_decode(page, off, &got), 0);
	assert_memory_equal(&got, &sb, sizeof(sb));
	assert_int_equal(superblock_decode(page, off + SUPERBLOCK_B_OFF, &got), 0);
	assert_int_equal(superblock_decode(page, 0, &got), -HR_ECORRUPT);
	for (size_t i = 0; i < PAGE_BYTES; i++) {
		page[i] ^= 0x10;
		assert_int_equal(superblock_decode(page, off, &got), -HR_ECORRUPT);
		page[i] ^= 0x10;
	}
	put_le32(page + 8, 2);
	put_le32(page + 4092, crc32c(0, page, 4092));
	assert_int_equal(superblock_decode(page, off, &got), -HR_EVERSION);
	put_le32(page + 8, 1);
	put_le32(page + 20, 4);
	put_le32(page + 4092, crc32c(0, page, 4092));
	assert_int_equal(superblock_decode(page, off, &got), -HR_EVERSION);
	put_le32(page + 20, 0);
	put_le32(page + 16, 4); /* ro-compat and compat bits are for the caller */
	put_le32(page + 4092, crc32c(0, page, 4092));
	assert_int_equal(superblock_decode(page, off, &got), 0);
	assert_int_equal(got.flags_ro_compat, 4);
}

/* Fields that contradict each other are refused although the CRC holds. */
static void
test_superblock_contradictions(void **state)
{
	static const struct {
		uint32_t off, len;
		uint64_t value;
	} bad[] = {
		{ 56, 4, 2 },		{ 60, 4, 0 },	  { 60, 4, 65 },       { 64, 8, 4096 },
		{ 72, 8, MiB(65) + 1 }, { 72, 8, 0 },	  { 80, 8, MiB(129) }, { 88, 8, MiB(15) },
		{ 88, 8, MiB(4) },	{ 96, 4, 5 },	  { 96, 4, 3 },	       { 100, 4, 512 },
		{ 104, 4, MiB(4) },	{ 108, 4, 4096 }, { 112, 2, 2 },       { 114, 2, 0 },
		{ 116, 4, 0 },		{ 144, 4, 5 },	  { 148, 4, MiB(8) },  { 152, 4, 0 },
		{ 156, 4, 0 },		{ 160, 4, 4096 }, { 8, 4, 0 },
	};
	struct superblock sb = slice_make();
	struct superblock got;
	uint8_t page[PAGE_BYTES];

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		superblock_encode(&sb, page);
		if (bad[i].len == 8) {
			put_le64(page + bad[i].off, bad[i].value);
		} else if (bad[i].len == 4) {
			put_le32(page + bad[i].off, (uint32_t)bad[i].value);
		} else {
			put_le16(page + bad[i].off, (uint16_t)bad[i].value);
		}
		put_le32(page + 4092, crc32c(0, page, 4092));
		assert_int_equal(superblock_decode(page, sb.slice_off_bytes, &got), -HR_ECORRUPT);
	}
}

static void
test_space_slot(void **state)
{
	struct superblock sb = slice_make();
	struct space_row a = { .number = 3,
			       .generation = 2,
			       .quota_bytes = 5,
			       .pin_budget_bytes = 6,
			       .usage_bytes = 7,
			       .usage_blocks = 8,
			       .created_ms = 9,
			       .drop_birth = 10,
			       .drop_generation = 11,
			       .label = "llama" };
	struct space_row b = { .number = 4, .generation = 1 };
	const struct space_row *rows[] = { &a, &b };
	struct space_slot slot = { .sequence = 12, .rows_count = 2, .next_number = 5 };
	struct space_slot got;
	struct space_row row;
	uint8_t *buf = calloc(1, SPACE_TABLE_BYTES);

	(void)state;
	memset(a.digest, 0xd1, 32);
	memset(a.tenant, 0x7e, 16);
	assert_int_equal(space_slot_encode(&sb, &slot, rows, buf), PAGE_BYTES);
	assert_memory_equal(buf, "HRSPACE1", 8);
	assert_int_equal(space_slot_decode(&sb, buf, SPACE_TABLE_BYTES, &got), 0);
	assert_memory_equal(&got, &slot, sizeof(slot));
	assert_int_equal(space_row_decode(buf, 0, &row), 0);
	assert_memory_equal(&row, &a, sizeof(a));
	assert_int_equal(get_le32(buf + 64 + 192), 4);
	for (uint32_t i = 0; i < 64 + 2 * 192; i++) {
		buf[i] ^= 1;
		assert_int_not_equal(space_slot_decode(&sb, buf, SPACE_TABLE_BYTES, &got), 0);
		buf[i] ^= 1;
	}
	assert_int_equal(space_slot_decode(&sb, buf, 64 + 192, &got),
			 -HR_ECORRUPT); /* rows behind the end */
	put_le32(buf + 40, UINT32_MAX);
	assert_int_equal(space_slot_decode(&sb, buf, SPACE_TABLE_BYTES, &got), -HR_ECORRUPT);
	sb.shard_uuid[5] ^= 1;
	put_le32(buf + 40, 2);
	assert_int_equal(space_slot_decode(&sb, buf, SPACE_TABLE_BYTES, &got), -HR_ECORRUPT);
	free(buf);
}

static const uint32_t crcs3[] = { 0x11111111, 0x22222222, 0x33333333 };

static struct desc
value_make(void)
{
	struct desc d = {
		.kind = DESC_VALUE,
		.class_hint = 2,
		.id = { 0xaa, 0xbb },
		.parent = { 0xcc },
		.nonce = { 0 },
		.route = 0x1122334455667788,
		.position = 17,
		.space_number = 3,
		.space_generation = 4,
		.flags = DESC_FLAG_PINNED,
		.birth = 99,
		.expiry_ms = 1000,
		.block_bytes = 131073,
		.logical_bytes = 131073,
		.stored_bytes = 131073,
		.part = 0,
		.parts_count = 1,
		.value_off = 4096,
		.cost_hint_us = 5,
		.key = (const uint8_t *)"hello",
		.key_bytes = 5,
		.crcs_count = 3,
		.crcs = crcs3,
	};

	return d;
}

static void
desc_assert_equal(const struct desc *a, const struct desc *b)
{
	struct desc x = *a;
	struct desc y = *b;

	assert_memory_equal(x.key, y.key, x.key_bytes);
	assert_memory_equal(x.crcs, y.crcs, 4 * x.crcs_count);
	x.key = y.key = NULL;
	x.crcs = y.crcs = NULL;
	assert_memory_equal(&x, &y, sizeof(x));
}

static void
test_desc(void **state)
{
	_Alignas(8) uint8_t buf[DESC_BYTES_MAX];
	struct desc d;
	struct desc got;
	uint32_t len;

	(void)state;
	memset(&d, 0, sizeof(d));
	d = value_make();
	assert_int_equal(desc_size(&d), 184); /* 160 + 8 + 12, rounded up to 8 */
	assert_int_equal(desc_encode(&d, buf), 184);
	assert_int_equal(get_le32(buf), 184);
	assert_int_equal(get_le16(buf + 4), 5);
	assert_int_equal(buf[6], 1);
	assert_int_equal(get_le64(buf + 64), 99);
	assert_memory_equal(buf + 160, "hello\0\0\0", 8);
	assert_int_equal(get_le32(buf + 168), 0x11111111);
	assert_int_equal(desc_decode(buf, 184, &got, &len), 0);
	assert_int_equal(len, 184);
	desc_assert_equal(&got, &d);
	for (size_t n = 0; n < 184; n++) {
		assert_int_equal(desc_decode(buf, n, &got, &len), -HR_ECORRUPT);
	}
	assert_int_equal(desc_bytes(0, 0), 160);
	assert_int_equal(desc_bytes(1024, 64), DESC_BYTES_MAX);
}

static void
test_desc_rules(void **state)
{
	struct desc d;
	struct desc tombstone = {
		.kind = DESC_TOMBSTONE, .space_number = 1, .space_generation = 1, .birth = 5
	};
	struct desc commit = { .kind = DESC_COMMIT,
			       .space_number = 1,
			       .space_generation = 1,
			       .birth = 5,
			       .put_number = 7,
			       .parts_count = 2,
			       .block_bytes = MiB(2) };

	(void)state;
	d = value_make();
	assert_true(desc_valid(&d));
	assert_true(desc_valid(&tombstone));
	assert_true(desc_valid(&commit));
#define REFUSED(from, field, value)                                                                \
	do {                                                                                       \
		struct desc bad_ = (from);                                                         \
		bad_.field = (value);                                                              \
		assert_false(desc_valid(&bad_));                                                   \
	} while (0)
	REFUSED(d, kind, 0);
	REFUSED(d, kind, 4);
	REFUSED(d, codec, 1);
	REFUSED(d, key_bytes, 1025);
	REFUSED(d, space_number, 0);
	REFUSED(d, space_generation, 0);
	REFUSED(d, stored_bytes, 131072);
	REFUSED(d, crcs_count, 2);
	REFUSED(d, part, 1);
	REFUSED(d, parts_count, 0);
	REFUSED(d, parts_count, 2); /* without a PUT number */
	REFUSED(d, put_number, 1);
	REFUSED(d, birth, 0);
	REFUSED(d, value_off, 4097);
	REFUSED(d, block_bytes, 131074);
	REFUSED(tombstone, birth, 0);
	REFUSED(tombstone, value_off, 4096);
	REFUSED(tombstone, part, 1);
	REFUSED(commit, put_number, 0);
	REFUSED(commit, parts_count, 1);
	REFUSED(commit, key_bytes, 3);
	REFUSED(commit, block_bytes, (uint64_t)BLOCK_BYTES_MAX + 1);
}

/* A unit of two values and a tombstone at unit_off. */
static uint32_t
unit_make(const struct superblock *sb, uint32_t segment, uint32_t unit_off, uint8_t *buf,
	  struct unit_header *ret)
{
	struct desc d = value_make();
	struct desc tombstone = {
		.kind = DESC_TOMBSTONE, .space_number = 1, .space_generation = 1, .birth = 5
	};
	struct unit_header h = { .generation = 8,
				 .sequence = 31,
				 .stable_sequence = 30,
				 .birth_max = 99,
				 .segment_idx = segment,
				 .unit_off = unit_off,
				 .header_bytes = PAGE_BYTES,
				 .kind = UNIT_RECORDS,
				 .class = CLASS_SURVIVOR,
				 .made_ms = 5 };
	uint32_t at = UNIT_HEADER_BYTES;

	memcpy(h.shard_uuid, sb->shard_uuid, 16);
	memset(buf, 0xee, 2 * PAGE_BYTES);
	d.value_off = unit_off + PAGE_BYTES;
	at += desc_encode(&d, buf + at);
	at += desc_encode(&tombstone, buf + at);
	d.value_off += pages_bytes(131073);
	at += desc_encode(&d, buf + at);
	h.records_count = 3;
	h.descriptors_bytes = at - UNIT_HEADER_BYTES;
	h.unit_bytes = PAGE_BYTES + 2 * pages_bytes(131073);
	unit_header_encode(&h, buf);
	*ret = h;
	return at;
}

static void
test_unit_header(void **state)
{
	struct superblock sb = slice_make();
	_Alignas(8) uint8_t buf[2 * PAGE_BYTES];
	struct unit_header h;
	struct unit_header got;
	uint32_t used;

	(void)state;
	used = unit_make(&sb, 2, 3 * PAGE_BYTES, buf, &h);
	assert_memory_equal(buf, "HRUNIT01", 8);
	assert_true(is_all_zero(buf + used, PAGE_BYTES - used));
	assert_int_equal(buf[PAGE_BYTES], 0xee);
	assert_int_equal(unit_header_decode(&sb, 2, 3 * PAGE_BYTES, buf, PAGE_BYTES, &got), 0);
	assert_memory_equal(&got, &h, sizeof(h));
	assert_int_equal(unit_header_decode(&sb, 2, 3 * PAGE_BYTES, buf, PAGE_BYTES - 1, &got),
			 -ENOBUFS);
	assert_int_equal(unit_header_decode(&sb, 1, 3 * PAGE_BYTES, buf, PAGE_BYTES, &got),
			 -HR_ECORRUPT);
	assert_int_equal(unit_header_decode(&sb, 2, 4 * PAGE_BYTES, buf, PAGE_BYTES, &got),
			 -HR_ECORRUPT);
	for (uint32_t i = 0; i < used; i++) {
		buf[i] ^= 4;
		assert_int_not_equal(unit_header_decode(&sb, 2, 3 * PAGE_BYTES, buf, PAGE_BYTES,
							&got),
				     0);
		assert_true(unit_header_resembles(&sb, 2, 3 * PAGE_BYTES, buf));
		buf[i] ^= 4;
	}
	memset(buf, 0, sizeof(buf));
	assert_false(unit_header_resembles(&sb, 0, 0, buf));
}

static void
test_trailer(void **state)
{
	struct superblock sb = slice_make();
	struct desc d = value_make();
	_Alignas(8) uint8_t descs[1024];
	uint8_t buf[TRAILER_BYTES];
	struct desc decoded[2];
	struct trailer t = { .generation = 8,
			     .sequence_first = 1,
			     .sequence_last = 3,
			     .birth_max = 4,
			     .segment_idx = 2,
			     .records_count = 2,
			     .units_count = 1,
			     .kind = TRAILER_SEALED,
			     .made_ms = 1,
			     .data_bytes = MiB(1) };
	struct trailer got;

	(void)state;
	memcpy(t.shard_uuid, sb.shard_uuid, 16);
	t.descriptors_bytes = desc_encode(&d, descs);
	t.descriptors_bytes += desc_encode(&d, descs + t.descriptors_bytes);
	t.footer_bytes = footer_bytes_for(t.descriptors_bytes);
	t.descriptors_crc = crc32c(0, descs, t.descriptors_bytes);
	trailer_encode(&t, buf);
	assert_int_equal(trailer_decode(&sb, 2, buf, &got), 0);
	assert_memory_equal(&got, &t, sizeof(t));
	assert_int_equal(trailer_decode(&sb, 3, buf, &got), -HR_ECORRUPT);
	assert_int_equal(footer_descs_decode(&t, descs, decoded), 0);
	desc_assert_equal(&decoded[1], &d);
	for (uint32_t i = 0; i < TRAILER_BYTES; i++) {
		buf[i] ^= 4;
		assert_int_not_equal(trailer_decode(&sb, 2, buf, &got), 0);
		buf[i] ^= 4;
	}
	for (uint32_t i = 0; i < t.descriptors_bytes; i++) {
		descs[i] ^= 4;
		assert_int_equal(footer_descs_decode(&t, descs, decoded), -HR_ECORRUPT);
		descs[i] ^= 4;
	}
	t.data_bytes = 4096; /* a value behind the end of the units */
	assert_int_equal(footer_descs_decode(&t, descs, decoded), -HR_ECORRUPT);
	assert_int_equal(footer_bytes_for(0), PAGE_BYTES);
	assert_int_equal(footer_bytes_for(PAGE_BYTES - TRAILER_BYTES), PAGE_BYTES);
	assert_int_equal(footer_bytes_for(PAGE_BYTES - TRAILER_BYTES + 8), 2 * PAGE_BYTES);
}

static void
test_classify(void **state)
{
	enum { NONE = -1 };
	static const struct {
		int head_kind, head_generation, trailer_kind, trailer_generation;
		enum segment_verdict verdict;
		bool clean;
	} cases[] = {
		{ NONE, 0, NONE, 0, VERDICT_FREE, true },
		{ UNIT_RECORDS, 5, NONE, 0, VERDICT_WALK, false },
		{ UNIT_FREED, 5, NONE, 0, VERDICT_FREE, true },
		{ NONE, 0, TRAILER_SEALED, 5, VERDICT_SEALED, false },
		{ UNIT_RECORDS, 5, TRAILER_SEALED, 5, VERDICT_SEALED, false },
		{ UNIT_RECORDS, 6, TRAILER_SEALED, 5, VERDICT_WALK, false },
		{ UNIT_FREED, 5, TRAILER_SEALED, 5, VERDICT_FREE, false }, /* cut between the marks */
		{ UNIT_FREED, 4, TRAILER_SEALED, 5, VERDICT_SEALED, false },
		{ NONE, 0, TRAILER_FREED, 5, VERDICT_FREE, true },
		{ UNIT_FREED, 5, TRAILER_FREED, 5, VERDICT_FREE, true },
		{ UNIT_RECORDS, 5, TRAILER_FREED, 5, VERDICT_FREE,
		  false }, /* cut the other way round */
		{ UNIT_RECORDS, 6, TRAILER_FREED, 5, VERDICT_WALK, false },
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		struct unit_header h = { .kind = (uint16_t)cases[i].head_kind,
					 .generation = (uint64_t)cases[i].head_generation };
		struct trailer t = { .kind = (uint16_t)cases[i].trailer_kind,
				     .generation = (uint64_t)cases[i].trailer_generation };
		bool clean;

		assert_int_equal(segment_classify(cases[i].head_kind == NONE ? NULL : &h,
						  cases[i].trailer_kind == NONE ? NULL : &t, &clean),
				 cases[i].verdict);
		assert_int_equal(clean, cases[i].clean);
	}
}

/* Mutations whose CRC is repaired: what still decodes must be consistent, and nothing reads outside (sanitizers watch). */
static void
test_mutations(void **state)
{
	struct superblock sb = slice_make();
	uint8_t *buf = aligned_alloc(8, 2 * PAGE_BYTES);
	struct unit_header h;
	struct unit_header got;
	struct prng prng;
	unsigned refused = 0;

	(void)state;
	prng_init(&prng, 42);
	for (int round = 0; round < 20000; round++) {
		uint32_t used = unit_make(&sb, 2, 3 * PAGE_BYTES, buf, &h);

		for (uint64_t n = 1 + prng_below(&prng, 4); n > 0; n--) {
			buf[prng_below(&prng, used)] = (uint8_t)prng_u64(&prng);
		}
		put_le32(buf + 124,
			 crc32c(crc32c(0, buf, 124), buf + 128, HR_MIN(get_le32(buf + 92), 3968u)));
		if (unit_header_decode(&sb, 2, 3 * PAGE_BYTES, buf, PAGE_BYTES, &got) != 0) {
			refused++;
			continue;
		}
		assert_true(got.unit_off + got.unit_bytes <= sb.segment_bytes);
		assert_true(got.header_bytes <= PAGE_BYTES);
	}
	assert_true(refused > 1000 && refused < 19000);
	for (int round = 0; round < 20000; round++) {
		struct desc d;
		uint32_t len;
		uint32_t bytes = (uint32_t)(8 * prng_below(&prng, 64));
		uint8_t *exact = aligned_alloc(8, bytes + 8);

		for (uint32_t i = 0; i < bytes; i++) {
			exact[i] = (uint8_t)prng_u64(&prng);
		}
		if (bytes >= DESC_BYTES) {
			struct desc v = value_make();
			_Alignas(8) uint8_t whole[DESC_BYTES_MAX];

			desc_encode(&v, whole);
			memcpy(exact, whole, HR_MIN(bytes, 184u));
			exact[prng_below(&prng, HR_MIN(bytes, 184u))] = (uint8_t)prng_u64(&prng);
		}
		if (desc_decode(exact, bytes, &d, &len) == 0) {
			assert_true(len <= bytes && desc_valid(&d));
		}
		free(exact);
	}
	free(buf);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_superblock), cmocka_unit_test(test_superblock_contradictions),
		cmocka_unit_test(test_space_slot), cmocka_unit_test(test_desc),
		cmocka_unit_test(test_desc_rules), cmocka_unit_test(test_unit_header),
		cmocka_unit_test(test_trailer),	   cmocka_unit_test(test_classify),
		cmocka_unit_test(test_mutations),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
