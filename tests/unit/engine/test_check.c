/* test_check.c - what `check` says of a device, beside an independent reader written from the format page.
 *
 * Method: a log with every kind of record, sealed and open segments, is cut by power loss; check counts its blocks, and so does
 * tests/data/read_device.py on a copy in a file; the lists must be the same, undamaged and damaged. Then each kind of byte is changed once
 * and check must count exactly that.
 */
#include "engine/check.h"

#include <errno.h>
#include <jansson.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include <headrace/error.h>

#include <cmocka.h>

#include "engine/blocking.h"
#include "engine/layout.h"
#include "engine/space.h"
#include "lib/loglab.h"

enum { SEGMENTS = 5, LINES_MAX = 512, LINE_BYTES = 160, NOW_MS = 5000 };

struct lines {
	char text[LINES_MAX][LINE_BYTES];
	uint32_t count;
};

/* -- the device -------------------------------------------------------------------------------------------------------------------- */

static void
space_made(void *arg, int rc, struct space_row *row)
{
	assert_int_equal(rc, 0);
	assert_int_equal(row->number, 1);
	*(bool *)arg = true;
}

static void
space_make(struct lab *lab)
{
	struct space_table *table;
	bool done = false;
	uint8_t zeros[32] = { 0 };

	assert_int_equal(space_table_create(lab->io, lab->device, &lab->slice, &table), 0);
	assert_int_equal(space_table_load(table, lab->detail), 0);
	space_open(table, zeros, zeros, "test", space_made, &done);
	lab_wait(lab, &done);
	while (space_table_busy(table)) {
		assert_true(io_run(lab->io, UINT64_MAX) >= 0);
	}
	space_table_destroy(table);
}

static void
append_wait(struct lab *lab, const struct desc *d)
{
	struct lab_record *r = lab_append(lab, CLASS_FRESH, d, true, NULL);

	assert_non_null(r);
	lab_wait(lab, &r->stable_done);
	assert_int_equal(r->stable_rc, 0);
}

static struct desc
desc_of(struct lab *lab, uint8_t kind, uint64_t number, uint32_t bytes)
{
	struct desc d = { .kind = kind,
			  .space_number = 1,
			  .space_generation = 1,
			  .birth = log_birth_next(lab->log),
			  .stored_bytes = bytes,
			  .logical_bytes = bytes,
			  .block_bytes = bytes,
			  .parts_count = kind == DESC_VALUE };

	put_le64(d.id, number);
	return d;
}

/* Parts of one PUT; `missing` is left out; the commit only if asked for. */
static void
parts_put(struct lab *lab, uint64_t number, uint16_t parts, uint16_t missing, bool commit)
{
	static uint64_t put_number = 100;
	struct desc d;

	put_number++;
	for (uint16_t part = 0; part < parts; part++) {
		d = desc_of(lab, DESC_VALUE, number, 70000);
		d.birth = 0;
		d.put_number = put_number;
		d.parts_count = parts;
		d.part = part;
		d.block_bytes = parts * UINT64_C(70000);
		if (part != missing) {
			append_wait(lab, &d);
		}
	}
	if (commit) {
		d = desc_of(lab, DESC_COMMIT, number, 0);
		d.put_number = put_number;
		d.parts_count = parts;
		d.block_bytes = parts * UINT64_C(70000);
		append_wait(lab, &d);
	}
}

static void
odd_records_put(struct lab *lab)
{
	struct desc d;

	assert_int_equal(lab_put_wait(lab, CLASS_FRESH, 1000, 300), 0); /* replaced below */
	assert_int_equal(lab_put_wait(lab, CLASS_SURVIVOR, 1000, 400), 0);
	assert_int_equal(lab_put_wait(lab, CLASS_FRESH, 1001, 300), 0); /* deleted */
	lab_wait(lab, &lab_tombstone(lab, 1001)->stable_done);
	assert_int_equal(lab_put_wait(lab, CLASS_FRESH, 1002, 300), 0); /* deleted and put again */
	lab_wait(lab, &lab_tombstone(lab, 1002)->stable_done);
	assert_int_equal(lab_put_wait(lab, CLASS_FRESH, 1002, 0), 0);
	parts_put(lab, 1003, 3, 9, true);
	parts_put(lab, 1004, 3, 1, true);  /* incomplete */
	parts_put(lab, 1005, 2, 9, false); /* never committed */
	assert_int_equal(lab_put_wait(lab, CLASS_FRESH, 1011, 300), 0);
	parts_put(lab, 1011, 3, 1, true); /* would have replaced it, but is incomplete */
	parts_put(lab, 1006, 2, 9, true); /* two PUTs of one id; the second counts */
	parts_put(lab, 1006, 3, 9, true);
	d = desc_of(lab, DESC_VALUE, 1007, 100);
	d.expiry_ms = NOW_MS;
	append_wait(lab, &d);
	d = desc_of(lab, DESC_VALUE, 1008, 100);
	d.expiry_ms = UINT64_MAX;
	append_wait(lab, &d);
	d = desc_of(lab, DESC_VALUE, 1009, 100); /* a space that is not in the table */
	d.space_number = 2;
	append_wait(lab, &d);
	d = desc_of(lab, DESC_VALUE, 1010, 100); /* of a later generation */
	d.space_generation = 2;
	append_wait(lab, &d);
}

/* 1000, 1002, 1003, 1006, 1008, 1011 and the plain ones. */
enum { ODD_LIVE = 6, PLAIN = 60 };

static int
setup(void **state)
{
	struct lab *lab = calloc(1, sizeof(*lab));

	lab_create(lab, 5, SEGMENTS);
	assert_int_equal(lab_open(lab), 0);
	space_make(lab);
	odd_records_put(lab);
	for (uint64_t n = 0; n < PLAIN; n++) {
		assert_int_equal(lab_put_wait(lab, CLASS_FRESH, n, 150000 + (uint32_t)n), 0);
	}
	lab_idle(lab);
	lab_crash(lab, SIM_CUT_DROP | SIM_CUT_TEAR | SIM_CUT_GARBLE);
	*state = lab;
	return 0;
}

static int
teardown(void **state)
{
	lab_destroy(*state);
	free(*state);
	return 0;
}

/* -- the two readers --------------------------------------------------------------------------------------------------------------- */

static void
block_line(void *arg, const struct check_block *b)
{
	struct lines *lines = arg;
	char *line = lines->text[lines->count++];
	int at = 0;

	assert_true(lines->count <= LINES_MAX);
	for (int i = 0; i < 16; i++) {
		at += snprintf(line + at, LINE_BYTES - (size_t)at, "%02x", b->id[i]);
	}
	snprintf(line + at, LINE_BYTES - (size_t)at, " %llu %s", (unsigned long long)b->block_bytes,
		 b->right ? "right" : "corrupt");
}

static struct check_report
check(struct lab *lab, struct lines *lines)
{
	struct check_options options = { .now_ms = NOW_MS,
					 .block = lines != NULL ? block_line : NULL,
					 .arg = lines };
	struct check_report report;

	if (lines != NULL) {
		lines->count = 0;
	}
	assert_int_equal(device_check(lab->io, "flash", &options, &report, lab->detail), 0);
	return report;
}

static int
line_compare(const void *a, const void *b)
{
	return strcmp(a, b);
}

static void
image_write(struct lab *lab, const char *path)
{
	uint64_t size = META_BYTES + SEGMENTS * MiB(8);
	uint8_t *buf = malloc(MiB(1));
	FILE *file = fopen(path, "wb");

	assert_non_null(file);
	for (uint64_t off = 0; off < size; off += MiB(1)) {
		assert_int_equal(sim_device_peek(lab->sim, "flash", off, buf, MiB(1)), 0);
		assert_int_equal(fwrite(buf, 1, MiB(1), file), MiB(1));
	}
	fclose(file);
	free(buf);
}

static void
python_lines(struct lab *lab, struct lines *lines)
{
	const char *root = getenv("HR_SOURCE_ROOT");
	char path[] = "/tmp/hr_check_XXXXXX";
	char command[512];
	json_t *report;
	json_t *block;
	size_t i;
	FILE *pipe;

	close(mkstemp(path));
	image_write(lab, path);
	snprintf(command, sizeof(command), "python3 %s/tests/data/read_device.py %s",
		 root != NULL ? root : ".", path);
	pipe = popen(command, "r");
	assert_non_null(pipe);
	report = json_loadf(pipe, 0, NULL);
	assert_int_equal(pclose(pipe), 0);
	assert_non_null(report);
	lines->count = 0;
	json_array_foreach(json_object_get(report, "blocks"), i, block)
	{
		snprintf(lines->text[lines->count++], LINE_BYTES, "%s %llu %s",
			 json_string_value(json_object_get(block, "id")),
			 (unsigned long long)json_integer_value(json_object_get(block, "bytes")),
			 json_is_true(json_object_get(block, "right")) ? "right" : "corrupt");
	}
	json_decref(report);
	unlink(path);
}

static void
assert_same(struct lab *lab, struct check_report *ret_report)
{
	struct lines *ours = calloc(1, sizeof(*ours));
	struct lines *theirs = calloc(1, sizeof(*theirs));

	*ret_report = check(lab, ours);
	python_lines(lab, theirs);
	qsort(ours->text, ours->count, LINE_BYTES, line_compare);
	qsort(theirs->text, theirs->count, LINE_BYTES, line_compare);
	for (uint32_t i = 0; i < HR_MIN(ours->count, theirs->count); i++) {
		assert_string_equal(ours->text[i], theirs->text[i]);
	}
	assert_int_equal(ours->count, theirs->count);
	free(ours);
	free(theirs);
}

/* -- tests ------------------------------------------------------------------------------------------------------------------------- */

static void
test_sound(void **state)
{
	struct lab *lab = *state;
	struct check_report report;

	assert_same(lab, &report);
	assert_int_equal(report.damaged, 0);
	assert_int_equal(report.blocks, PLAIN + ODD_LIVE);
	assert_int_equal(report.blocks_incomplete, 2);
	assert_int_equal(report.blocks_damaged, 0);
	assert_int_equal(report.tombstones, 2);
	assert_int_equal(report.segments, SEGMENTS);
	assert_int_equal(report.segments_sealed, 1);
	assert_int_equal(report.segments_open, 2);
	assert_int_equal(report.segments_free, 2);
	assert_int_equal(report.spaces_count, 1);
	assert_int_equal(report.spaces[0].row.usage_blocks, report.blocks);
	assert_int_equal(report.spaces[0].row.usage_bytes, report.bytes);
	check_report_fini(&report);
}

/* What check, the other reader and recovery see is the same, with bytes changed all over. */
static void
test_damaged_everywhere(void **state)
{
	struct lab *lab = *state;
	struct check_report report;

	for (uint64_t off = MiB(1) + 12345; off < META_BYTES + SEGMENTS * MiB(8); off += 1234567) {
		lab_flip(lab, off);
	}
	assert_same(lab, &report);
	assert_true(report.damaged > 5 && report.blocks > 20);
	assert_int_equal(report.findings_count, report.damaged);
	check_report_fini(&report);
}

/* Where things are: the sealed segment, and one that was open, by their descriptors. */
static void
places(struct lab *lab, uint32_t *ret_sealed, uint32_t *ret_open)
{
	*ret_sealed = *ret_open = UINT32_MAX;
	for (uint32_t s = 0; s < SEGMENTS; s++) {
		uint8_t page[PAGE_BYTES];
		struct trailer t;
		struct unit_header *h = calloc(1, sizeof(*h));
		uint8_t *head = page_alloc(16384);

		lab->slice.segment_bytes = MiB(8);
		assert_int_equal(sim_device_peek(lab->sim, "flash",
						 lab_segment_off(lab, s) + MiB(8) - PAGE_BYTES,
						 page, PAGE_BYTES),
				 0);
		assert_int_equal(sim_device_peek(lab->sim, "flash", lab_segment_off(lab, s), head,
						 16384),
				 0);
		if (trailer_decode(&lab->slice, s, page + PAGE_BYTES - TRAILER_BYTES, &t) == 0) {
			*ret_sealed = s;
		} else if (unit_header_decode(&lab->slice, s, 0, head, 16384, h) == 0 &&
			   h->class == CLASS_FRESH) {
			*ret_open = s;
		}
		free(head);
		free(h);
	}
	assert_true(*ret_sealed != UINT32_MAX && *ret_open != UINT32_MAX);
}

static void
expect(struct lab *lab, uint64_t off, enum check_kind kind, uint64_t blocks_min, uint64_t blocks_max)
{
	struct check_report report;

	lab_flip(lab, off);
	report = check(lab, NULL);
	assert_int_equal(report.damaged, 1);
	assert_int_equal(report.damaged_by_kind[kind], 1);
	assert_in_range(report.blocks, blocks_min, blocks_max);
	assert_int_equal(report.findings_count, 1);
	assert_int_equal(report.findings[0].kind, kind);
	assert_true(strlen(report.findings[0].text) > 10);
	check_report_fini(&report);
	lab_flip(lab, off);
}

static void
test_each_kind(void **state)
{
	const uint64_t all = PLAIN + ODD_LIVE;
	struct lab *lab = *state;
	struct unit_header h;
	uint8_t *head = page_alloc(16384);
	uint32_t sealed;
	uint32_t open;
	uint64_t off;

	places(lab, &sealed, &open);
	off = lab_segment_off(lab, sealed);
	for (uint64_t byte = 0; byte < 128; byte += 9) {
		expect(lab, off + byte, CHECK_UNIT_HEADER, all,
		       all); /* the first header of a sealed segment */
		expect(lab, off + MiB(8) - 128 + byte, CHECK_FOOTER, all, all); /* trailer */
		expect(lab, lab_segment_off(lab, open) + byte, CHECK_UNIT_HEADER, 5, all - 1);
	}
	/* The footer's first descriptor; a header in the middle; the last value before the second header. */
	assert_int_equal(sim_device_peek(lab->sim, "flash", off + MiB(8) - 128, head, 128), 0);
	expect(lab, off + MiB(8) - get_le32(head + 76) + 20, CHECK_FOOTER, all, all);
	assert_int_equal(sim_device_peek(lab->sim, "flash", off, head, 16384), 0);
	assert_int_equal(unit_header_decode(&lab->slice, sealed, 0, head, 16384, &h), 0);
	expect(lab, off + h.unit_bytes + 50, CHECK_UNIT_HEADER, all, all);
	expect(lab, 30, CHECK_SUPERBLOCK, all, all);
	expect(lab, SUPERBLOCK_B_OFF + 4095, CHECK_SUPERBLOCK, all, all);
	expect(lab, SPACE_TABLE_A_OFF + 70, CHECK_SPACE_TABLE, all, all);
	expect(lab, SPACE_TABLE_B_OFF + 70, CHECK_SPACE_TABLE, all, all);
	free(head);
}

static void
test_payload(void **state)
{
	const uint64_t all = PLAIN + ODD_LIVE;
	struct lab *lab = *state;
	struct check_options options = { .now_ms = NOW_MS, .skip_payload = true };
	struct check_report report;
	uint64_t off = 0;
	uint32_t segment = 0;

	for (struct lab_record *r = lab->records; r != NULL; r = r->next) {
		if (get_le64(r->record.desc.id) == 3) {
			segment = r->record.segment;
			off = META_BYTES + segment * MiB(8) + r->record.desc.value_off + 70001;
		}
	}
	lab_flip(lab, off);
	report = check(lab, NULL);
	assert_int_equal(report.damaged_by_kind[CHECK_PAYLOAD], 1);
	assert_int_equal(report.damaged, 1);
	assert_int_equal(report.blocks, all - 1);
	assert_int_equal(report.blocks_damaged, 1);
	assert_int_equal(get_le64(report.findings[0].id), 3);
	assert_int_equal(report.findings[0].segment, segment);
	check_report_fini(&report);
	assert_int_equal(device_check(lab->io, "flash", &options, &report, lab->detail), 0);
	assert_int_equal(report.damaged, 0);
	assert_int_equal(report.blocks, all);
	check_report_fini(&report);
	lab_flip(lab, off);
}

static bool
stop(void *arg)
{
	(void)arg;
	return true;
}

static void
test_refusals(void **state)
{
	struct lab *lab = *state;
	struct check_options options = { .stop = stop };
	struct check_report report;

	assert_int_equal(device_check(lab->io, "flash", &options, &report, lab->detail), -EINTR);
	check_report_fini(&report);
	options.stop = NULL;
	lab_flip(lab, 3);
	lab_flip(lab, SUPERBLOCK_B_OFF + 3);
	assert_int_equal(device_check(lab->io, "flash", &options, &report, lab->detail),
			 -HR_ECORRUPT);
	assert_non_null(strstr(lab->detail, "both superblocks"));
	check_report_fini(&report);
	assert_true(device_check(lab->io, "nothing", &options, &report, lab->detail) < 0);
	check_report_fini(&report);
}

int
main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
	const struct CMUnitTest tests[] = {
		TEST(test_sound),   TEST(test_damaged_everywhere), TEST(test_each_kind),
		TEST(test_payload), TEST(test_refusals),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
