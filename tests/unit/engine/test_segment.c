/* test_segment.c - the segment log: gathering, order, stability, sealing, freeing, preparing, reading back, quiescing.
 *
 * Method: a log on a simulated device (tests/lib/loglab.h); log_check() runs between all events. What is claimed stable is looked up
 * after a power cut in tests/fault/; here it is about who is told what, when, and in how many writes.
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <headrace/error.h>

#include <cmocka.h>

#include "engine/blocking.h"
#include "lib/loglab.h"

static struct log_counters
counters(struct lab *lab)
{
	struct log_counters c;

	log_counters_get(lab->log, &c);
	return c;
}

static int
setup(void **state)
{
	struct lab *lab = calloc(1, sizeof(*lab));

	lab_create(lab, 1, 8);
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

/* Records of one turn go out in one write; stable needs one sync. */
static void
test_gathering(void **state)
{
	struct lab *lab = *state;
	struct lab_record *r[10];
	uint64_t births[10];

	for (int i = 0; i < 10; i++) {
		r[i] = lab_put(lab, CLASS_FRESH, (uint64_t)i, 5000, i == 9);
		assert_non_null(r[i]);
		assert_false(r[i]->written_done);
		births[i] = r[i]->record.desc.birth;
		assert_true(i == 0 || births[i] > births[i - 1]);
	}
	lab_wait(lab, &r[9]->stable_done);
	for (int i = 0; i < 10; i++) {
		assert_true(r[i]->written_done);
		assert_int_equal(r[i]->written_rc, 0);
		assert_int_equal(r[i]->record.segment, r[0]->record.segment);
		assert_int_equal(r[i]->record.desc.value_off, PAGE_BYTES + i * 2 * PAGE_BYTES);
		assert_int_equal(r[i]->stable_done, i == 9);
	}
	assert_int_equal(r[9]->stable_rc, 0);
	assert_int_equal(counters(lab).units_written, 1);
	assert_int_equal(counters(lab).syncs, 1);
	assert_int_equal(counters(lab).unit_bytes_written, 21 * PAGE_BYTES);
	assert_int_equal(counters(lab).payload_bytes_fresh, 20 * PAGE_BYTES);
}

static bool
is_written(void *arg)
{
	return ((struct lab_record *)arg)->written_done;
}

/* Nobody asks for stable: written when the linger time is over, not before, and no sync. */
static void
test_linger(void **state)
{
	struct lab *lab = *state;
	uint64_t begin_us = sim_now_us(lab->sim);
	struct lab_record *r = lab_put(lab, CLASS_FRESH, 1, 100, false);

	assert_true(sim_run(lab->sim, is_written, r, 1000000));
	assert_in_range(sim_now_us(lab->sim) - begin_us, 2000, 3000);
	assert_int_equal(counters(lab).syncs, 0);
	lab_idle(lab);
	assert_int_equal(counters(lab).syncs, 0);
}

/* Commits gather while a write is under way. */
static void
test_group_commit(void **state)
{
	struct lab *lab = *state;
	struct lab_record *first = lab_put(lab, CLASS_FRESH, 0, 100, true);
	struct lab_record *last = NULL;

	assert_true(io_run(lab->io, 1) >= 0); /* The first is on its way now. */
	for (int i = 1; i <= 20; i++) {
		last = lab_put(lab, CLASS_FRESH, (uint64_t)i, 100, true);
	}
	lab_wait(lab, &first->stable_done);
	lab_wait(lab, &last->stable_done);
	assert_int_equal(counters(lab).units_written, 2);
	assert_in_range(counters(lab).syncs, 1, 2);
}

static void
test_full_units_and_refusal(void **state)
{
	struct lab *lab = *state;
	uint64_t number = 0;

	/* Nothing runs in between: eight units of the segments go out, the ninth fills, then it is -EAGAIN. */
	while (lab_put(lab, (enum segment_class)(number % 2), number, (uint32_t)MiB(1), false) !=
	       NULL) {
		number++;
		assert_true(number < 100);
	}
	assert_int_equal(counters(lab).units_inflight, LOG_UNITS_INFLIGHT_MAX);
	assert_false(log_has_room(lab->log, (enum segment_class)(number % 2), (uint32_t)MiB(1)));
	assert_int_equal(counters(lab).appends_refused, 1);
	lab_idle(lab);
	assert_true(log_has_room(lab->log, CLASS_FRESH, (uint32_t)MiB(1)));
	assert_int_equal(counters(lab).units_inflight, 0);
	for (struct lab_record *r = lab->records; r != NULL; r = r->next) {
		assert_true(r->written_done && r->written_rc == 0);
	}
}

/* Descriptors with long keys and no values: the header's limit closes units, and the room for the footer is always there. */
static void
test_small_records_fill_a_segment(void **state)
{
	struct lab *lab = *state;
	uint8_t key[KEY_BYTES_MAX] = { 1 };
	struct desc d = { .kind = DESC_TOMBSTONE,
			  .space_number = 1,
			  .space_generation = 1,
			  .key = key,
			  .key_bytes = 30 };
	struct segment_info info;
	uint32_t appended = 0;

	while (counters(lab).segments_sealed == 0) {
		struct lab_record *r;

		put_le64(d.id, appended);
		d.birth = log_birth_next(lab->log);
		r = lab_append(lab, CLASS_FRESH, &d, false, NULL);
		appended += r != NULL;
		if (r == NULL || appended % 1000 == 0) {
			assert_true(io_run(lab->io, UINT64_MAX) >= 0);
		}
	}
	log_segment_info(lab->log, 0, &info);
	assert_int_equal(info.state, SEG_SEALED);
	/* Half of the segment is units, the other half the footer that lists the same descriptors. */
	assert_in_range(info.records_count, 15000, 8 * 1024 * 1024 / 192 / 2);
	assert_true(info.data_bytes + (uint64_t)footer_bytes_for(info.records_count * 192) <=
		    MiB(8));
}

static struct read_back {
	bool done;
	int rc;
	uint32_t count;
	uint64_t numbers[256];
} g_read;

static void
read_cb(void *arg, int rc, const struct desc *descs, uint32_t count)
{
	(void)arg;
	g_read.done = true;
	g_read.rc = rc;
	g_read.count = count;
	for (uint32_t i = 0; i < count && i < 256; i++) {
		g_read.numbers[i] = get_le64(descs[i].id);
		assert_int_equal(descs[i].crcs_count, crcs_count_of(descs[i].stored_bytes));
	}
}

static int
read_back(struct lab *lab, uint32_t segment)
{
	int rc;

	memset(&g_read, 0, sizeof(g_read));
	rc = log_read_descs(lab->log, segment, read_cb, NULL);
	assert_false(g_read.done);
	if (rc == 0) {
		lab_wait(lab, &g_read.done);
	}
	return rc != 0 ? rc : g_read.rc;
}

/* The footer of a full segment lists what was put. */
static void
test_seal_and_read_back(void **state)
{
	struct lab *lab = *state;
	uint32_t first;
	uint32_t number = 0;
	struct lab_record *r = lab_put(lab, CLASS_FRESH, number++, (uint32_t)MiB(1), true);

	first = r->record.segment;
	assert_int_equal(read_back(lab, first), 0);
	assert_int_equal(g_read.count, 0); /* Nothing is written yet. */
	lab_wait(lab, &r->stable_done);
	assert_int_equal(read_back(lab, first), 0);
	assert_int_equal(g_read.count, 1);
	assert_int_equal(lab_state(lab, first), SEG_OPEN);
	while (lab_state(lab, first) == SEG_OPEN) {
		assert_int_equal(lab_put_wait(lab, CLASS_FRESH, number++, (uint32_t)MiB(1)), 0);
	}
	lab_wait_state(lab, first, SEG_SEALED);
	assert_int_equal(counters(lab).segments_sealed, 1);
	assert_int_equal(read_back(lab, first), 0);
	assert_int_equal(g_read.count, number - 1);
	for (uint32_t i = 0; i < g_read.count; i++) {
		assert_int_equal(g_read.numbers[i], i);
	}
	/* A damaged footer is walked around, and counted; a damaged header as well does cost the rest. */
	lab_flip(lab, lab_segment_off(lab, first) + MiB(8) - 4096 + 50);
	assert_int_equal(read_back(lab, first), 0);
	assert_int_equal(g_read.count, number - 1);
	assert_int_equal(counters(lab).footers_damaged, 1);
	lab_flip(lab, lab_segment_off(lab, first) + 60);
	assert_int_equal(read_back(lab, first), -HR_ECORRUPT);
	assert_int_equal(read_back(lab, 7), -ENOENT);
}

static unsigned g_rooms;

static void
on_room(void *arg)
{
	(void)arg;
	g_rooms++;
}

/* Filled to the end: refusal, the reserve for survivors, freeing, room again; generations only grow. */
static void
test_full_log_and_freeing(void **state)
{
	struct lab *lab = *state;
	struct segment_info info;
	struct segment_info before;
	uint64_t number = 0;
	uint32_t victim = UINT32_MAX;

	log_on_room(lab->log, on_room, NULL);
	assert_int_equal(log_free_count(lab->log), 7);
	for (;;) {
		struct lab_record *r = lab_put(lab, CLASS_FRESH, number, (uint32_t)MiB(1), true);

		if (r == NULL && counters(lab).units_inflight == 0 && log_free_count(lab->log) == 0) {
			break;
		}
		number += r != NULL;
		assert_true(io_run(lab->io, UINT64_MAX) >= 0 || r == NULL);
	}
	assert_int_equal(counters(lab).free_count, 1);
	assert_false(log_has_room(lab->log, CLASS_FRESH, (uint32_t)MiB(1)));
	assert_true(log_has_room(lab->log, CLASS_SURVIVOR, (uint32_t)MiB(1)));
	assert_false(log_has_room(lab->log, CLASS_PINNED, (uint32_t)MiB(1)));
	assert_int_equal(lab_put_wait(lab, CLASS_SURVIVOR, 1000, 4096), 0);
	assert_int_equal(counters(lab).payload_bytes_survivor, 4096);
	assert_int_equal(counters(lab).free_count, 0);
	for (uint32_t s = 0; s < 8 && victim == UINT32_MAX; s++) {
		victim = lab_state(lab, s) == SEG_SEALED ? s : victim;
	}
	log_segment_info(lab->log, victim, &before);
	assert_int_equal(log_generation_oldest(lab->log, UINT32_MAX), before.generation);
	assert_int_equal(log_generation_oldest(lab->log, victim), before.generation + 1);
	g_rooms = 0;
	assert_int_equal(lab_free(lab, victim), 0);
	assert_true(g_rooms > 0);
	assert_int_equal(lab_state(lab, victim), SEG_FREE);
	assert_int_equal(log_free_count(lab->log), 0); /* it is the reserve */
	assert_int_equal(read_back(lab, victim), -ENOENT);
	assert_int_equal(log_generation_oldest(lab->log, UINT32_MAX), before.generation + 1);
	for (uint32_t s = 0; s < 8; s++) {
		if (lab_state(lab, s) == SEG_SEALED) {
			assert_int_equal(lab_free(lab, s), 0);
			break;
		}
	}
	assert_int_equal(log_free_count(lab->log), 1);
	assert_int_equal(lab_put_wait(lab, CLASS_FRESH, 2000, (uint32_t)MiB(1)), 0);
	log_segment_info(lab->log, lab->records->record.segment, &info);
	assert_true(info.generation > before.generation + 6);
	assert_int_equal(info.generation, log_generation_newest(lab->log));
}

static void
test_flush(void **state)
{
	struct lab *lab = *state;
	struct lab_record *a = lab_put(lab, CLASS_FRESH, 1, 100, false);
	struct lab_record *b = lab_put(lab, CLASS_SURVIVOR, 2, 100, false);
	uint64_t begin_us = sim_now_us(lab->sim);
	uint64_t syncs;

	assert_int_equal(lab_flush(lab), 0);
	assert_true(a->written_done && b->written_done);
	assert_true(sim_now_us(lab->sim) - begin_us < 2000); /* did not linger */
	syncs = counters(lab).syncs;
	assert_in_range(syncs, 1, 2);	     /* one write each, which need not complete together */
	assert_int_equal(lab_flush(lab), 0); /* nothing to do: still answered */
	assert_int_equal(counters(lab).syncs, syncs);
}

/* DSYNC: no sync at all, and stable all the same. */
static void
test_dsync(void **state)
{
	struct lab *lab = *state;

	lab_close(lab);
	lab->options.sync = LOG_SYNC_DSYNC;
	assert_int_equal(lab_open(lab), 0);
	assert_int_equal(lab_put_wait(lab, CLASS_FRESH, 1, 4096), 0);
	assert_int_equal(counters(lab).syncs, 0);
	sim_power_cut(lab->sim, "flash", SIM_CUT_DROP);
	lab_close(lab);
	assert_int_equal(lab_open(lab), 0);
	assert_non_null(lab_winner(lab, 1));
}

static void
test_refused_arguments(void **state)
{
	struct lab *lab = *state;
	struct desc d = { .kind = DESC_VALUE,
			  .space_number = 1,
			  .space_generation = 1,
			  .parts_count = 1,
			  .birth = 1,
			  .stored_bytes = (uint32_t)MiB(1) + 1,
			  .logical_bytes = (uint32_t)MiB(1) + 1,
			  .block_bytes = MiB(1) + 1 };
	int rc;

	assert_null(lab_append(lab, CLASS_FRESH, &d, false, &rc));
	assert_int_equal(rc, -EINVAL);
	d.stored_bytes = d.logical_bytes = 10;
	assert_null(lab_append(lab, CLASS_FRESH, &d, false, &rc));
	assert_int_equal(rc, -EINVAL); /* block_bytes contradicts */
}

/* The first failed write is the end: everybody is told, nothing is written after it. */
static void
test_failure(void **state)
{
	struct lab *lab = *state;
	struct lab_record *a = lab_put(lab, CLASS_FRESH, 1, 100, true);
	struct lab_record *b;
	struct lab_record *c;
	uint64_t ops;
	int err = 0;

	assert_true(io_run(lab->io, 1) >= 0); /* a is under way, the others gather */
	b = lab_put(lab, CLASS_FRESH, 2, 100, true);
	c = lab_put(lab, CLASS_SURVIVOR, 3, 100, false);
	sim_device_fail_nth(lab->sim, "flash", 1, EIO, false);
	lab_wait(lab, &c->written_done);
	lab_wait(lab, &b->stable_done);
	assert_true(a->stable_done && a->written_done);
	assert_true(a->written_rc != 0 || b->written_rc != 0 || c->written_rc != 0 ||
		    a->stable_rc != 0);
	assert_true(log_failed(lab->log, &err));
	assert_int_equal(err, EIO);
	ops = sim_device_ops(lab->sim, "flash");
	assert_null(lab_put(lab, CLASS_FRESH, 4, 100, true));
	assert_int_equal(lab_flush(lab), -EIO);
	lab_idle(lab);
	assert_int_equal(sim_device_ops(lab->sim, "flash"), ops);
	assert_int_equal(counters(lab).write_errors, 1);
}

/* A unit fails, and the one behind it does not: that one cannot be reached by recovery, so it is not stable, whichever ended first. */
static void
test_failure_in_front(void **state)
{
	(void)state;
	for (uint64_t seed = 1; seed <= 20; seed++) {
		struct lab lab;
		struct lab_record *records[7]; /* of one segment */

		lab_create(&lab, seed, 8);
		lab.options = (struct log_options){ .sync = LOG_SYNC_DSYNC, .linger_us = 1 };
		assert_int_equal(lab_open(&lab), 0);
		lab_idle(&lab);
		sim_device_fail_nth(lab.sim, "flash", 1, EIO, false);
		for (unsigned i = 0; i < ARRAY_SIZE(records); i++) {
			records[i] = lab_put(&lab, CLASS_FRESH, i, (uint32_t)MiB(1), true);
			assert_non_null(records[i]);
		}
		for (unsigned i = 0; i < ARRAY_SIZE(records); i++) {
			lab_wait(&lab, &records[i]->stable_done);
			assert_int_not_equal(records[i]->stable_rc, 0);
		}
		lab_close(&lab);
		lab_destroy(&lab);
	}
}

/* Two units under way, of which only the one behind has somebody who waits, and whose writes end in any order: it gets its sync. */
static void
test_sync_in_front(void **state)
{
	(void)state;
	for (uint64_t seed = 1; seed <= 40; seed++) {
		struct lab lab;
		struct lab_record *last;

		lab_create(&lab, seed, 8);
		lab.options.linger_us = 1;
		assert_int_equal(lab_open(&lab), 0);
		lab_idle(&lab);
		for (unsigned i = 0; i < 4; i++) {
			assert_non_null(lab_put(&lab, CLASS_FRESH, i, (uint32_t)MiB(1), false));
		}
		last = lab_put(&lab, CLASS_FRESH, 4, 100, true);
		assert_non_null(last);
		lab_wait(&lab, &last->stable_done);
		assert_int_equal(last->stable_rc, 0);
		lab_close(&lab);
		lab_destroy(&lab);
	}
}

static void
test_quiesce(void **state)
{
	struct lab *lab = *state;
	struct lab_record *a = lab_put(lab, CLASS_FRESH, 1, 100, true);
	struct lab_record *b;

	assert_true(io_run(lab->io, 1) >= 0);
	b = lab_put(lab, CLASS_FRESH, 2, 100, true);
	lab_close(lab);
	assert_int_equal(a->written_rc, 0); /* was under way */
	assert_int_equal(b->written_rc, -ECANCELED);
	assert_int_equal(b->stable_rc, -ECANCELED);
	assert_true(a->stable_done && b->stable_done);
	assert_int_equal(lab_open(lab), 0);
	assert_non_null(lab_winner(lab, 1));
	assert_null(lab_winner(lab, 2));
}

/* A file's segments are free one by one as they have been written in full; a restart goes on where it was. */
static void
test_prepare(void **state)
{
	struct lab *lab = *state;
	struct superblock sb;
	uint8_t page[PAGE_BYTES];
	uint8_t *noise = malloc(MiB(8));

	lab_close(lab);
	assert_int_equal(sim_device_peek(lab->sim, "flash", 0, page, PAGE_BYTES), 0);
	assert_int_equal(superblock_decode(page, 0, &sb), 0);
	sb.segments_prepared = 2;
	sb.sequence++;
	superblock_encode(&sb, page);
	assert_int_equal(sim_device_poke(lab->sim, "flash", 0, page, PAGE_BYTES), 0);
	memset(noise, 0x5a, MiB(8));
	assert_int_equal(sim_device_poke(lab->sim, "flash", META_BYTES + 2 * MiB(8), noise, MiB(8)),
			 0);
	assert_int_equal(lab_open(lab), 0);
	assert_int_equal(log_free_count(lab->log), 1);
	assert_int_equal(lab_state(lab, 2), SEG_UNPREPARED);
	g_rooms = 0;
	log_on_room(lab->log, on_room, NULL);
	log_prepare_start(lab->log);
	lab_wait_state(lab, 3, SEG_FREE);
	assert_true(g_rooms >= 2);
	assert_int_equal(lab_state(lab, 2), SEG_FREE);
	assert_int_equal(sim_device_peek(lab->sim, "flash", META_BYTES + 2 * MiB(8), noise, MiB(8)),
			 0);
	assert_true(is_all_zero(noise, MiB(8)));
	sim_power_cut(lab->sim, "flash", SIM_CUT_DROP);
	lab_close(lab);
	assert_int_equal(lab_open(lab), 0);
	assert_in_range(lab->slice.segments_prepared, 4, 5);
	log_prepare_start(lab->log);
	lab_wait_state(lab, 7, SEG_FREE);
	lab_idle(lab);
	assert_int_equal(counters(lab).free_count, 8);
	free(noise);
}

/* Headers say how far everything is stable, and never too much. */
static void
test_stable_sequence(void **state)
{
	struct lab *lab = *state;
	struct unit_header h[3];
	uint8_t *page = page_alloc(PAGE_BYTES);
	uint64_t off;
	uint32_t unit_off = 0;

	for (uint64_t i = 0; i < 3; i++) {
		assert_int_equal(lab_put_wait(lab, CLASS_FRESH, i, 4096), 0);
	}
	off = lab_segment_off(lab, lab->records->record.segment);
	for (int i = 0; i < 3; i++) {
		assert_int_equal(sim_device_peek(lab->sim, "flash", off + unit_off, page,
						 PAGE_BYTES),
				 0);
		assert_int_equal(unit_header_decode(&lab->slice, lab->records->record.segment,
						    unit_off, page, PAGE_BYTES, &h[i]),
				 0);
		unit_off += h[i].unit_bytes;
	}
	assert_int_equal(h[1].sequence, h[0].sequence + 1);
	assert_true(h[0].stable_sequence < h[0].sequence);
	assert_int_equal(h[1].stable_sequence, h[0].sequence);
	assert_int_equal(h[2].stable_sequence, h[1].sequence);
	assert_true(h[2].birth_max >= lab->records->record.desc.birth);
	free(page);
}

int
main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
	const struct CMUnitTest tests[] = {
		TEST(test_gathering),
		TEST(test_linger),
		TEST(test_group_commit),
		TEST(test_full_units_and_refusal),
		TEST(test_small_records_fill_a_segment),
		TEST(test_seal_and_read_back),
		TEST(test_full_log_and_freeing),
		TEST(test_flush),
		TEST(test_dsync),
		TEST(test_refused_arguments),
		TEST(test_failure),
		cmocka_unit_test(test_failure_in_front),
		cmocka_unit_test(test_sync_in_front),
		TEST(test_quiesce),
		TEST(test_prepare),
		TEST(test_stable_sequence),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
