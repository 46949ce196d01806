/* test_recover.c - what a new owner finds: after clean stops, power cuts, damage; and that what is gone stays gone.
 *
 * Method: tests/lib/loglab.h. Each test makes one situation of docs/format section 6, opens again, and looks at the records that
 * recovery handed out and at what it counted. tests/fault/ makes all situations at once, by chance.
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <headrace/error.h>

#include <cmocka.h>

#include "base/crc.h"
#include "engine/blocking.h"
#include "lib/loglab.h"

enum { SEGMENTS = 8, VALUE = 300000 };

static int
setup(void **state)
{
	struct lab *lab = calloc(1, sizeof(*lab));

	lab_create(lab, 11, SEGMENTS);
	assert_int_equal(lab_open(lab), 0);
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

static void
fill(struct lab *lab, uint64_t first, uint64_t count)
{
	for (uint64_t n = first; n < first + count; n++) {
		assert_int_equal(lab_put_wait(lab, CLASS_FRESH, n, VALUE), 0);
	}
}

/* Numbers from first on are there and right; returns how many there are in a row. */
static uint64_t
run_length(const struct lab *lab, uint64_t first)
{
	uint64_t n = first;
	const struct lab_found *f;

	while ((f = lab_winner(lab, n)) != NULL) {
		assert_true(lab_value_right(lab, f));
		n++;
	}
	return n - first;
}

static uint32_t
sealed_segment(const struct lab *lab)
{
	for (uint32_t s = 0; s < SEGMENTS; s++) {
		if (lab_state(lab, s) == SEG_SEALED) {
			return s;
		}
	}
	fail_msg("no segment is sealed");
	return 0;
}

static void
test_empty(void **state)
{
	struct lab *lab = *state;

	assert_int_equal(lab->found_count, 0);
	assert_int_equal(lab->recovered.segments_free, SEGMENTS);
	assert_int_equal(lab->recovered.segments_walked, 0);
	assert_int_equal(log_free_count(lab->log), SEGMENTS - 1);
	assert_int_equal(lab->recovered.headers_damaged + lab->recovered.footers_damaged, 0);
}

/* 70 values over three segments, the last one open: all come back, three times over. */
static void
test_restart(void **state)
{
	struct lab *lab = *state;
	uint64_t birth;

	fill(lab, 0, 70);
	birth = lab->records->record.desc.birth;
	for (int round = 0; round < 3; round++) {
		lab_crash(lab, SIM_CUT_DROP);
		assert_int_equal(lab_open(lab), 0);
		assert_int_equal(run_length(lab, 0), 70);
		assert_int_equal(lab->found_count, 70 + (round == 2));
		assert_int_equal(lab->recovered.records_torn, 0);
		assert_int_equal(lab->recovered.headers_damaged + lab->recovered.footers_damaged, 0);
		assert_true(log_birth_next(lab->log) > birth);
		assert_true(log_generation_newest(lab->log) > lab->found[69].generation);
		if (round == 0) {
			assert_int_equal(lab->recovered.segments_sealed, 2);
			assert_int_equal(lab->recovered.segments_walked, 1);
		} else if (round == 2) {
			assert_int_equal(lab->recovered.segments_sealed,
					 3); /* The log sealed what it had found open. */
		}
		lab_idle(lab);
		assert_int_equal(lab_flush(lab), 0);
		if (round == 1) {
			/* A footer becomes stable with the next sync, whoever asks for it. */
			assert_int_equal(lab_put_wait(lab, CLASS_PINNED, 1000, 0), 0);
			lab_close(lab);
			assert_int_equal(lab_open(lab), 0);
		}
	}
}

/* Footers longer than the tail that is read first, headers longer than the head. */
static void
test_long_footer_and_header(void **state)
{
	struct lab *lab = *state;
	uint64_t n = 0;

	while (log_free_count(lab->log) > SEGMENTS - 3) {
		struct lab_record *r = lab_put(lab, CLASS_FRESH, n, 5000, false);

		n += r != NULL;
		if (r == NULL || n % 200 == 0) {
			assert_true(io_run(lab->io, UINT64_MAX) >= 0);
		}
	}
	assert_int_equal(lab_flush(lab), 0);
	lab_idle(lab);
	lab_close(lab);
	assert_int_equal(lab_open(lab), 0);
	assert_int_equal(run_length(lab, 0), n);
	assert_true(lab->recovered.segments_sealed == 1 && lab->recovered.segments_walked == 1);
}

/* What was written but never stable may be there or not; when it is, it is right, and a torn one is ignored for good. */
static void
test_torn_tail(void **state)
{
	struct lab *lab = *state;
	struct lab_record *r = NULL;
	uint64_t off;
	uint32_t found;

	fill(lab, 0, 3);
	for (uint64_t n = 3; n < 6; n++) {
		r = lab_put(lab, CLASS_FRESH, n, VALUE, false);
	}
	lab_wait(lab, &r->written_done);
	off = lab_segment_off(lab, r->record.segment) + r->record.desc.value_off + 100000;
	lab_close(lab);
	lab_flip(lab, off); /* as if the write had been cut short there */
	assert_int_equal(lab_open(lab), 0);
	assert_int_equal(run_length(lab, 0), 5);
	assert_int_equal(lab->recovered.records_torn, 1);
	assert_true(lab->recovered.units_checked >= 1);
	/* Later units say that everything before them is stable; the torn one must not count then, before and after the seal. */
	assert_int_equal(lab_put_wait(lab, CLASS_FRESH, 100, 10), 0);
	assert_int_equal(lab_put_wait(lab, CLASS_FRESH, 101, 10), 0);
	lab_crash(lab, SIM_CUT_DROP);
	assert_int_equal(lab_open(lab), 0);
	found = lab->found_count;
	assert_int_equal(found, 7);
	assert_null(lab_winner(lab, 5));
	lab_idle(lab);
	assert_int_equal(lab_put_wait(lab, CLASS_FRESH, 102, 10), 0);
	assert_int_equal(lab_put_wait(lab, CLASS_FRESH, 103, 10), 0);
	lab_crash(lab, SIM_CUT_DROP);
	assert_int_equal(lab_open(lab), 0);
	assert_null(lab_winner(lab, 5));
	assert_int_equal(lab->found_count, 9);
}

/* The same when the second owner's footer is lost, as a power cut right after its first stable units would do. */
static void
test_torn_stays_torn_without_footer(void **state)
{
	struct lab *lab = *state;
	struct lab_record *r;
	uint64_t off;
	uint8_t zeros[PAGE_BYTES] = { 0 };
	uint64_t trailer_off;

	fill(lab, 0, 3);
	r = lab_put(lab, CLASS_FRESH, 3, VALUE, false);
	lab_wait(lab, &r->written_done);
	off = lab_segment_off(lab, r->record.segment) + r->record.desc.value_off + 100000;
	trailer_off = lab_segment_off(lab, r->record.segment) + MiB(8) - PAGE_BYTES;
	lab_close(lab);
	lab_flip(lab, off);
	assert_int_equal(lab_open(lab), 0);
	/* Not yet stable: so headers made now must not cover the torn unit. */
	assert_int_equal(lab_put_wait(lab, CLASS_SURVIVOR, 100, 10), 0);
	lab_close(lab);
	assert_int_equal(sim_device_poke(lab->sim, "flash", trailer_off, zeros, PAGE_BYTES), 0);
	assert_int_equal(lab_open(lab), 0);
	assert_int_equal(lab->recovered.records_torn, 1);
	assert_null(lab_winner(lab, 3));
	assert_int_equal(run_length(lab, 0), 3);
}

static void
test_damaged_footer(void **state)
{
	static const uint64_t from_end[] = { 1, 128, 120, 60, 4000 };
	struct lab *lab = *state;
	uint32_t s;

	fill(lab, 0, 40);
	lab_idle(lab);
	s = sealed_segment(lab);
	for (size_t i = 0; i < ARRAY_SIZE(from_end); i++) {
		uint64_t off = lab_segment_off(lab, s) + MiB(8) - from_end[i];

		lab_close(lab);
		lab_flip(lab, off);
		assert_int_equal(lab_open(lab), 0);
		assert_int_equal(run_length(lab, 0), 40);
		assert_int_equal(lab->recovered.footers_damaged, 1);
		assert_int_equal(lab->recovered.headers_damaged, 0);
		lab_wait_state(lab, s, SEG_SEALED); /* with a new footer */
		lab_idle(lab);
	}
}

static void
test_damaged_header_of_sealed(void **state)
{
	struct lab *lab = *state;
	struct log_counters c;
	uint32_t s;

	fill(lab, 0, 40);
	lab_idle(lab);
	s = sealed_segment(lab);
	for (uint64_t byte = 0; byte < 300; byte += 17) {
		lab_close(lab);
		lab_flip(lab, lab_segment_off(lab, s) + byte);
		assert_int_equal(lab_open(lab), 0);
		assert_int_equal(run_length(lab, 0), 40);
		assert_int_equal(lab->recovered.footers_damaged, 0);
		assert_int_equal(lab->recovered.headers_damaged, 1);
		lab_idle(lab);
		lab_close(lab);
		lab_flip(lab, lab_segment_off(lab, s) + byte);
		assert_int_equal(lab_open(lab), 0);
	}
	/* The second header is looked at in the background. */
	log_counters_get(lab->log, &c);
	assert_int_equal(c.headers_damaged, 0);
	lab_close(lab);
	lab_flip(lab, lab_segment_off(lab, s) + PAGE_BYTES + pages_bytes(VALUE) + 130);
	assert_int_equal(lab_open(lab), 0);
	assert_int_equal(run_length(lab, 0), 40);
	lab_idle(lab);
	log_counters_get(lab->log, &c);
	assert_int_equal(c.headers_damaged, 1);
}

/* The n-th header of an open segment: what lies behind it in that segment is lost, nothing else. */
static void
test_damaged_header_of_open(void **state)
{
	struct lab *lab = *state;
	uint64_t unit_bytes = PAGE_BYTES + pages_bytes(VALUE);
	uint8_t zeros[PAGE_BYTES] = { 0 };

	fill(lab, 0, 10);
	assert_int_equal(lab_put_wait(lab, CLASS_PINNED, 100, 10), 0);
	lab_crash(lab, SIM_CUT_DROP);
	for (uint64_t n = 10; n-- > 0;) {
		lab_flip(lab, lab_segment_off(lab, 0) + n * unit_bytes + 40 + n);
		assert_int_equal(lab_open(lab), 0);
		assert_int_equal(run_length(lab, 0), n);
		assert_int_equal(run_length(lab, 100), 1);
		assert_int_equal(lab->recovered.headers_damaged, 1);
		lab_idle(lab);
		lab_close(lab);
		/* The footer that was written meanwhile goes, so that the next round walks again. */
		assert_int_equal(sim_device_poke(lab->sim, "flash",
						 lab_segment_off(lab, 0) + MiB(8) - PAGE_BYTES,
						 zeros, PAGE_BYTES),
				 0);
	}
}

/* A unit that was lost lies in front of one that was not; the next owner uses the segment again and writes a unit of the same length. */
static void
test_numbers_do_not_come_back(void **state)
{
	struct lab *lab = *state;
	uint64_t unit_bytes = PAGE_BYTES + pages_bytes(VALUE);
	uint8_t zeros[PAGE_BYTES] = { 0 };

	fill(lab, 0, 3);
	lab_crash(lab, SIM_CUT_DROP);
	assert_int_equal(sim_device_poke(lab->sim, "flash", lab_segment_off(lab, 0), zeros,
					 PAGE_BYTES),
			 0);
	assert_int_equal(lab_open(lab), 0);
	assert_int_equal(lab->found_count, 0);
	assert_int_equal(lab_state(lab, 0), SEG_FREE);
	assert_int_equal(lab_put_wait(lab, CLASS_FRESH, 50, VALUE), 0);
	assert_int_equal(lab->records->record.segment, 0);
	assert_int_equal(lab->records->record.desc.value_off + pages_bytes(VALUE), unit_bytes);
	lab_crash(lab, SIM_CUT_DROP);
	assert_int_equal(lab_open(lab), 0);
	assert_int_equal(lab->found_count, 1);
	assert_int_equal(lab->found[0].number, 50);
	assert_int_equal(lab->recovered.headers_damaged, 0); /* an old header is not a damaged one */
}

/* Freed is freed: with both marks, with either of them damaged, after a cut between them, and after the segment is used again. */
static void
test_freed_stays_freed(void **state)
{
	struct lab *lab = *state;
	uint32_t s;
	uint8_t *copy = malloc(MiB(8));

	fill(lab, 0, 30);
	lab_idle(lab);
	s = sealed_segment(lab);
	assert_int_equal(sim_device_peek(lab->sim, "flash", lab_segment_off(lab, s), copy, MiB(8)),
			 0);
	assert_int_equal(lab_free(lab, s), 0);
	for (int mark = 0; mark < 3; mark++) {
		lab_crash(lab, SIM_CUT_DROP | SIM_CUT_GARBLE);
		if (mark < 2) {
			lab_flip(lab, lab_segment_off(lab, s) + (mark == 0 ? 45 : MiB(8) - 80));
		}
		assert_int_equal(lab_open(lab), 0);
		assert_null(lab_winner(lab, 0));
		assert_non_null(lab_winner(lab, 29));
		assert_int_equal(lab_state(lab, s), SEG_FREE);
		assert_int_equal(lab->recovered.headers_damaged + lab->recovered.footers_damaged,
				 mark < 2);
		if (mark < 2) {
			lab_flip(lab, lab_segment_off(lab, s) + (mark == 0 ? 45 : MiB(8) - 80));
		}
	}
	/* Only the head's mark made it: the footer behind it must go before the segment is used. */
	lab_crash(lab, SIM_CUT_DROP);
	assert_int_equal(sim_device_poke(lab->sim, "flash",
					 lab_segment_off(lab, s) + MiB(8) - PAGE_BYTES,
					 copy + MiB(8) - PAGE_BYTES, PAGE_BYTES),
			 0);
	assert_int_equal(lab_open(lab), 0);
	assert_null(lab_winner(lab, 0));
	assert_int_equal(lab_state(lab, s), SEG_FREEING);
	lab_wait_state(lab, s, SEG_FREE);
	lab_crash(lab, SIM_CUT_DROP);
	lab_flip(lab, lab_segment_off(lab, s) +
			  45); /* the head's mark is damaged now: the other one stands */
	assert_int_equal(lab_open(lab), 0);
	assert_null(lab_winner(lab, 0));
	free(copy);
}

static void
test_unreadable(void **state)
{
	struct lab *lab = *state;
	uint32_t s;

	fill(lab, 0, 40);
	lab_idle(lab);
	s = sealed_segment(lab);
	lab_close(lab);
	/* One end of a sealed segment, then both. */
	sim_device_bad_range(lab->sim, "flash", lab_segment_off(lab, s), PAGE_BYTES);
	assert_int_equal(lab_open(lab), 0);
	assert_int_equal(run_length(lab, 0), 40);
	assert_true(lab->recovered.headers_damaged >= 1);
	lab_idle(lab);
	lab_close(lab);
	sim_device_bad_range(lab->sim, "flash", lab_segment_off(lab, s) + MiB(8) - PAGE_BYTES,
			     PAGE_BYTES);
	assert_int_equal(lab_open(lab), 0);
	assert_int_equal(lab->recovered.segments_unreadable, 1);
	assert_int_equal(lab_state(lab, s), SEG_BAD);
	assert_true(lab->found_count > 5 && lab->found_count < 40);
	lab_close(lab);
	sim_device_bad_range(lab->sim, "flash", META_BYTES, SEGMENTS * MiB(8));
	assert_int_equal(lab_open(lab), -EIO);
	lab_close(lab);
	sim_device_bad_range(lab->sim, "flash", 0, 0);
	assert_int_equal(lab_open(lab), 0);
	assert_int_equal(run_length(lab, 0), 40);
}

/* A bad sector in a unit that needs checking takes one record. */
static void
test_bad_sector_in_the_tail(void **state)
{
	struct lab *lab = *state;
	struct lab_record *r[4];

	for (uint64_t n = 0; n < 4; n++) {
		r[n] = lab_put(lab, CLASS_FRESH, n, VALUE, true);
	}
	lab_wait(lab, &r[3]->stable_done);
	lab_close(lab);
	sim_device_bad_range(lab->sim, "flash",
			     lab_segment_off(lab, 0) + r[1]->record.desc.value_off + 8192, 512);
	assert_int_equal(lab_open(lab), 0);
	assert_int_equal(lab->found_count, 3);
	assert_null(lab_winner(lab, 1));
	assert_int_equal(lab->recovered.records_torn, 1);
}

int
main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
	const struct CMUnitTest tests[] = {
		TEST(test_empty),
		TEST(test_restart),
		TEST(test_long_footer_and_header),
		TEST(test_torn_tail),
		TEST(test_torn_stays_torn_without_footer),
		TEST(test_damaged_footer),
		TEST(test_damaged_header_of_sealed),
		TEST(test_damaged_header_of_open),
		TEST(test_numbers_do_not_come_back),
		TEST(test_freed_stays_freed),
		TEST(test_unreadable),
		TEST(test_bad_sector_in_the_tail),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
