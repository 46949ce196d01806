/* test_crafted.c — devices on which every CRC is right and what they cover is absurd: an error, a miss or nothing, never an assertion.
 *
 * Method: a sealed segment is made by hand on a fresh device; the store opens it, reads what it takes for blocks, holds them with leases so
 * that reclaim has to carry them, and writes the device full twice.
 */
#include <headrace/error.h>

#include "engine/engine_impl.h"
#include "engine/layout.h"
#include "engine_rig.h"

/* A sealed segment with these records and nothing else: values are what is on the device at their offsets. */
static void
segment_craft(struct rig *rig, uint32_t segment, uint64_t generation, uint64_t birth_max,
	      struct desc *descs, uint32_t count)
{
	const struct superblock *sb = &rig->slices[0];
	uint8_t *footer = calloc(1, 1 << 20);
	struct trailer t = { .generation = generation,
			     .sequence_first = 1,
			     .sequence_last = 1,
			     .birth_max = birth_max,
			     .segment_idx = segment,
			     .records_count = count,
			     .units_count = 1,
			     .kind = TRAILER_SEALED,
			     .data_bytes = (uint32_t)sb->segment_bytes - (1 << 20) };
	uint64_t end = sb->slice_off_bytes + META_BYTES + (segment + 1) * sb->segment_bytes;

	memcpy(t.shard_uuid, sb->shard_uuid, 16);
	for (uint32_t i = 0; i < count; i++) {
		t.descriptors_bytes += desc_encode(&descs[i], footer + t.descriptors_bytes);
	}
	t.footer_bytes = footer_bytes_for(t.descriptors_bytes);
	t.descriptors_crc = crc32c(0, footer, t.descriptors_bytes);
	trailer_encode(&t, footer + t.footer_bytes - TRAILER_BYTES);
	assert_int_equal(sim_device_poke(rig->sim, "disk", end - t.footer_bytes, footer,
					 t.footer_bytes),
			 0);
	free(footer);
}

static struct desc
value_desc(uint64_t key, uint64_t birth, uint32_t bytes, uint32_t off, uint32_t *crcs)
{
	struct desc d = { .kind = DESC_VALUE,
			  .space_number = 1,
			  .space_generation = 1,
			  .birth = birth,
			  .block_bytes = bytes,
			  .logical_bytes = bytes,
			  .stored_bytes = bytes,
			  .parts_count = 1,
			  .value_off = off,
			  .crcs_count = crcs_count_of(bytes),
			  .crcs = crcs };

	rig_id(key, d.id);
	return d;
}

/* CRCs of zeros. */
static void
crcs_make(uint32_t *crcs, uint32_t bytes)
{
	static uint8_t zeros[CHUNK_BYTES];

	for (uint32_t i = 0; i < crcs_count_of(bytes); i++) {
		crcs[i] = crc32c(0, zeros, HR_MIN((uint32_t)CHUNK_BYTES, bytes - i * CHUNK_BYTES));
	}
}

static void
lease_all(struct rig *rig)
{
	for (uint64_t k = 0; k < 20; k++) {
		(void)rig_exists(rig, k, 10000);
	}
}

static void
use(struct rig *rig, bool gets)
{
	engine_check(rig->engine);
	for (uint64_t k = 0; gets && k < 20; k++) {
		for (uint16_t part = 0; part < 5; part++) {
			struct engine_get get;

			rig_get_part(rig, k, part, &get);
			engine_get_done(rig->engine, &get);
		}
	}
	for (uint64_t k = 100; k < 1500; k++) {
		assert_int_equal(rig_put(rig, k, 0, 65536, HR_ACK_RAM, false).status, HR_STATUS_OK);
		if (k % 10 == 0) {
			lease_all(rig);
		}
	}
	engine_check(rig->engine);
}

static void
use_crafted(struct desc *descs, uint32_t count)
{
	for (int gets = 0; gets < 2; gets++) {
		struct rig rig;

		rig_create(&rig, 1, MiB(64), MiB(8));
		rig_close(&rig);
		segment_craft(&rig, 3, 77, 5, descs, count);
		rig_open(&rig);
		use(&rig, gets);
		rig_close(&rig);
		rig_open(&rig);
		use(&rig, gets);
		rig_destroy(&rig);
	}
}

static int
open_rc(struct rig *rig)
{
	struct rig_wait w = { 0 };
	char detail[DETAIL_BYTES];
	int rc;

	assert_int_equal(io_device_open(rig->io, "disk", 0, &rig->device), 0);
	assert_int_equal(engine_create(rig->io, rig->device, &rig->slices[0], &rig->options,
				       &rig->engine),
			 0);
	rc = engine_start(rig->engine, rig_on_ready, &w, detail);
	if (rc == 0) {
		rig_until(rig, &w);
		rc = w.rc;
		w = (struct rig_wait){ 0 };
		engine_stop(rig->engine, rig_on_done, &w);
		rig_until(rig, &w);
	}
	engine_destroy(rig->engine);
	io_device_close(rig->device);
	return rc;
}

/* Births, generations: so great that no greater ones could be given. The shard is refused. */
static void
test_numbers(void **state)
{
	static const struct {
		uint64_t birth, birth_max, generation;
	} cases[] = { { UINT64_C(1) << 50, 5, 77 },	 { UINT64_MAX, 5, 77 },
		      { UINT64_C(1) << 47, 5, 77 },	 { 5, UINT64_C(1) << 47, 77 },
		      { 5, (UINT64_C(1) << 63), 77 },	 { 5, UINT64_MAX, 77 },
		      { 5, 5, (UINT64_C(1) << 63) + 1 }, { 5, 5, UINT64_MAX } };
	uint32_t crcs[64];

	(void)state;
	crcs_make(crcs, 4096);
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		struct desc d = value_desc(1, cases[i].birth, 4096, 4096, crcs);
		struct rig rig;

		rig_create(&rig, 1, MiB(64), MiB(8));
		rig_close(&rig);
		segment_craft(&rig, 3, cases[i].generation, cases[i].birth_max, &d, 1);
		assert_int_equal(open_rc(&rig), -HR_ECORRUPT);
		segment_craft(&rig, 3, 77, 5, &d, 0);
		rig_open(&rig);
		use(&rig, true);
		rig_destroy(&rig);
	}
}

/* Numbers and generations of spaces after which none would be left. */
static void
test_spaces(void **state)
{
	static const struct {
		uint32_t off, value;
	} cases[] = { { 44, UINT32_MAX }, { 44, 0 }, { SPACE_HEADER_BYTES + 4, UINT32_MAX } };
	static const uint32_t slots[] = { SPACE_TABLE_A_OFF, SPACE_TABLE_B_OFF };

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		struct rig rig;
		uint8_t page[PAGE_BYTES];

		rig_create(&rig, 1, MiB(64), MiB(8));
		rig_close(&rig);
		for (size_t s = 0; s < ARRAY_SIZE(slots); s++) {
			uint32_t crc;

			sim_device_peek(rig.sim, "disk", slots[s], page, sizeof(page));
			assert_int_equal(get_le32(page + 40), 1); /* row */
			put_le32(page + cases[i].off, cases[i].value);
			crc =
			    crc32c(crc32c(0, page, 60), page + SPACE_HEADER_BYTES, SPACE_ROW_BYTES);
			put_le32(page + 60, crc);
			sim_device_poke(rig.sim, "disk", slots[s], page, sizeof(page));
		}
		assert_int_equal(open_rc(&rig), -HR_ECORRUPT);
		io_destroy(rig.io);
		sim_destroy(rig.sim);
	}
}

/* Values longer than this slice's parts. */
static void
test_part_bytes(void **state)
{
	uint32_t crcs[64];
	struct desc d[2];

	(void)state;
	crcs_make(crcs, MiB(4));
	d[0] = value_desc(1, 1, MiB(2), 4096, crcs);
	d[1] = value_desc(2, 2, MiB(4), 4096 + MiB(2), crcs);
	use_crafted(d, 2);
}

/* Parts that do not make up their block. */
static void
test_parts_count(void **state)
{
	static const uint64_t lengths[] = { 4096, 16384, MiB(4), MiB(128) };
	uint32_t crcs[64];
	struct desc d[5];

	(void)state;
	crcs_make(crcs, 4096);
	for (size_t i = 0; i < ARRAY_SIZE(lengths); i++) {
		for (uint16_t part = 0; part < 5; part++) {
			d[part] = value_desc(1, part < 4 ? 0 : 3, part < 4 ? 4096 : 0,
					     part < 4 ? 4096 * (part + 1) : 0, crcs);
			d[part].put_number = 9;
			d[part].part = part < 4 ? part : 0;
			d[part].parts_count = 4;
			d[part].block_bytes = lengths[i];
		}
		d[4].kind = DESC_COMMIT;
		use_crafted(d, 5);
	}
}

/* Many records in one place, several of one identity. */
static void
test_overlap(void **state)
{
	uint32_t crcs[64];
	struct desc d[100];

	(void)state;
	crcs_make(crcs, MiB(1));
	for (uint32_t i = 0; i < ARRAY_SIZE(d); i++) {
		d[i] = value_desc(i % 20, 1 + i / 30, MiB(1), 4096, crcs);
	}
	use_crafted(d, ARRAY_SIZE(d));
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_numbers),	   cmocka_unit_test(test_spaces),
		cmocka_unit_test(test_part_bytes), cmocka_unit_test(test_parts_count),
		cmocka_unit_test(test_overlap),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
