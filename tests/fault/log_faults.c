/* log_faults.c - the segment log under failing I/O and power cuts.
 *
 * Method: one workload (puts, replacements, deletions, carrying and freeing of the oldest segment, so that segments are used again) on a
 * small device. "Fail the n-th I/O, n = 1 … until it passes", of the workload and of recovery; a power cut at every operation of the
 * workload and a second one in the life after it. After each: what was acknowledged as stable is there, every value that recovery hands
 * out is right, nothing that was replaced, deleted or freed is back, and check() finds nothing that recovery does not know of.
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

#include "base/prng.h"
#include "engine/blocking.h"
#include "lib/loglab.h"

enum { SEGMENTS = 5, NUMBERS = 7, STEPS = 60, VALUE = 1000000, FREED_MAX = 256 };

struct trial {
	struct lab lab;
	struct prng prng;
	uint64_t cut_at_ops; /* 0: never */
	struct {
		uint32_t segment;
		uint64_t generation;
	} freed[FREED_MAX];
	uint32_t freed_count;
};

/* -- running until the cut ---------------------------------------------------------------------------------------------------------- */

static bool
cut_is_due(struct trial *t)
{
	return t->cut_at_ops != 0 && sim_device_ops(t->lab.sim, "flash") >= t->cut_at_ops;
}

/* False: the cut is due, or the log has failed. */
static bool
turn(struct trial *t)
{
	int err;

	if (cut_is_due(t) || log_failed(t->lab.log, &err)) {
		return false;
	}
	assert_true(io_run(t->lab.io, 100000) >= 0);
	log_check(t->lab.log);
	return true;
}

static bool
wait_stable(struct trial *t, struct lab_record *r)
{
	while (!r->stable_done) {
		if (!turn(t)) {
			return false;
		}
	}
	return r->stable_rc == 0;
}

static struct lab_record *
put(struct trial *t, enum segment_class class, uint64_t number, uint32_t bytes)
{
	struct lab_record *r;

	while ((r = bytes == UINT32_MAX ? lab_tombstone(&t->lab, number)
					: lab_put(&t->lab, class, number, bytes, true)) == NULL) {
		if (!turn(t)) {
			return NULL;
		}
	}
	return r;
}

/* -- the workload ------------------------------------------------------------------------------------------------------------------- */

/* The newest acknowledged copy of the number's newest version. */
static struct lab_record *
newest(struct trial *t, uint64_t number)
{
	struct lab_record *best = NULL;

	for (struct lab_record *r = t->lab.records; r != NULL; r = r->next) {
		if (get_le64(r->record.desc.id) == number && r->stable_done && r->stable_rc == 0 &&
		    (best == NULL || r->record.desc.birth > best->record.desc.birth)) {
			best = r;
		}
	}
	return best;
}

static bool
carry(struct trial *t, uint32_t victim)
{
	for (uint64_t number = 0; number < NUMBERS; number++) {
		struct lab_record *r = newest(t, number);
		struct lab_record *copy;

		if (r == NULL || r->record.segment != victim) {
			continue;
		}
		while ((copy = lab_append(&t->lab, CLASS_SURVIVOR, &r->record.desc, true, NULL)) ==
		       NULL) {
			if (!turn(t)) {
				return false;
			}
		}
		if (!wait_stable(t, copy)) {
			return false;
		}
	}
	return true;
}

struct freed_answer {
	bool done;
	int rc;
};

static void
freed(void *arg, int rc)
{
	struct freed_answer *a = arg;

	a->done = true;
	a->rc = rc;
}

/* Frees the oldest sealed segment, its newest versions carried. */
static bool
reclaim(struct trial *t)
{
	static struct freed_answer answers[FREED_MAX];
	struct freed_answer *a = &answers[t->freed_count % FREED_MAX];
	struct segment_info info;
	uint64_t oldest = UINT64_MAX;
	uint32_t victim = UINT32_MAX;

	for (uint32_t s = 0; s < SEGMENTS; s++) {
		log_segment_info(t->lab.log, s, &info);
		if (info.state == SEG_SEALED && info.generation < oldest) {
			oldest = info.generation;
			victim = s;
		}
	}
	if (victim == UINT32_MAX) {
		return turn(t);
	}
	if (!carry(t, victim)) {
		return false;
	}
	*a = (struct freed_answer){ 0 };
	log_segment_free(t->lab.log, victim, freed, a);
	while (!a->done) {
		if (!turn(t)) {
			break;
		}
	}
	if (!a->done || a->rc != 0) {
		return false;
	}
	assert_true(t->freed_count < FREED_MAX);
	t->freed[t->freed_count].segment = victim;
	t->freed[t->freed_count++].generation = oldest;
	return true;
}

/* True: it went through to its end. */
static bool
workload(struct trial *t, unsigned steps)
{
	for (unsigned i = 0; i < steps; i++) {
		uint64_t number = prng_below(&t->prng, NUMBERS);
		bool delete = prng_below(&t->prng, 6) == 0;
		/* Now and then several at once, of which only the last is waited for. */
		unsigned burst = 1 + (unsigned)prng_below(&t->prng, 3);
		struct lab_record *r = NULL;

		while (log_free_count(t->lab.log) == 0) {
			if (!reclaim(t)) {
				return false;
			}
		}
		for (unsigned b = 0; b < burst; b++) {
			r = put(t, CLASS_FRESH, (number + b) % NUMBERS,
				delete ? UINT32_MAX : (uint32_t)prng_below(&t->prng, VALUE) + 1);
			if (r == NULL) {
				return false;
			}
		}
		if (!wait_stable(t, r)) {
			return false;
		}
	}
	return true;
}

/* -- what must hold ------------------------------------------------------------------------------------------------------------------ */

static struct lab_record *
record_of(struct trial *t, const struct lab_found *f)
{
	for (struct lab_record *r = t->lab.records; r != NULL; r = r->next) {
		if (get_le64(r->record.desc.id) == f->number &&
		    r->record.desc.birth == f->desc.birth) {
			return r;
		}
	}
	return NULL;
}

static void
found_verify(struct trial *t)
{
	for (uint32_t i = 0; i < t->lab.found_count; i++) {
		const struct lab_found *f = &t->lab.found[i];

		assert_non_null(record_of(t, f)); /* nobody else's */
		assert_true(lab_value_right(&t->lab, f));
		for (uint32_t k = 0; k < t->freed_count; k++) {
			assert_false(f->segment == t->freed[k].segment &&
				     f->generation == t->freed[k].generation);
		}
	}
}

static void
acknowledged_verify(struct trial *t)
{
	for (uint64_t number = 0; number < NUMBERS; number++) {
		const struct lab_found *winner = lab_winner(&t->lab, number);
		struct lab_record *acked = newest(t, number);

		if (acked != NULL) {
			assert_non_null(winner);
			assert_true(winner->desc.birth >= acked->record.desc.birth);
		}
	}
}

/* What recovery hands out is stable, whatever its writer heard: the next life goes on from there. */
static void
found_adopt(struct trial *t)
{
	for (uint64_t number = 0; number < NUMBERS; number++) {
		const struct lab_found *winner = lab_winner(&t->lab, number);
		struct lab_record *r = winner != NULL ? record_of(t, winner) : NULL;

		if (r != NULL) {
			r->stable_done = true;
			r->stable_rc = 0;
			r->record.segment = winner->segment;
		}
	}
}

static void
reopen_and_verify(struct trial *t)
{
	assert_int_equal(lab_open(&t->lab), 0);
	found_verify(t);
	acknowledged_verify(t);
	found_adopt(t);
}

static struct trial *
trial_begin(uint64_t seed)
{
	struct trial *t = calloc(1, sizeof(*t));

	assert_non_null(t);
	lab_create(&t->lab, seed, SEGMENTS);
	prng_init(&t->prng, seed);
	assert_int_equal(lab_open(&t->lab), 0);
	return t;
}

static void
trial_end(struct trial *t)
{
	lab_destroy(&t->lab);
	free(t);
}

/* -- tests --------------------------------------------------------------------------------------------------------------------------- */

static void
test_fail_nth(void **state)
{
	bool passed = false;
	uint64_t n = 0;

	(void)state;
	while (!passed) { /* Fail the n-th I/O until the workload survives … */
		struct trial *t = trial_begin(3);

		n++;
		sim_device_fail_nth(t->lab.sim, "flash", n, EIO, n % 2 == 0);
		passed = workload(t, STEPS);
		sim_device_fail_nth(t->lab.sim, "flash", 0, 0, false);
		lab_close(&t->lab);
		assert_true(!passed || t->freed_count > 1);
		reopen_and_verify(t); /* … and what it acknowledged on the way holds. */
		if (n % 8 == 0) {
			assert_true(workload(t, 5));
			lab_close(&t->lab);
			reopen_and_verify(t);
		}
		trial_end(t);
	}
	assert_true(n > 120);
}

/* An error that passes, in the middle of recovery, costs nothing; one that stays is said. */
static void
test_fail_nth_of_recovery(void **state)
{
	struct trial *t = trial_begin(4);
	uint64_t ops;
	uint64_t n = 0;

	(void)state;
	assert_true(workload(t, 25));
	lab_crash(&t->lab, SIM_CUT_DROP);
	do {
		sim_device_fail_nth(t->lab.sim, "flash", ++n + 2, EIO,
				    false); /* not the superblocks */
		ops = sim_device_ops(t->lab.sim, "flash");
		if (lab_open(&t->lab) == 0) {
			found_verify(t);
			acknowledged_verify(t);
		}
		ops = sim_device_ops(t->lab.sim, "flash") - ops;
		sim_device_fail_nth(t->lab.sim, "flash", 0, 0, false);
		lab_crash(&t->lab, SIM_CUT_DROP | SIM_CUT_TEAR);
		reopen_and_verify(t);
		lab_crash(&t->lab, SIM_CUT_DROP);
	} while (n < ops && n < 60);
	assert_true(n > 10);
	trial_end(t);
}

/* A cut at every operation (of later ones, a sample), what was not stable kept, dropped, torn or garbled by chance; then a life that is cut as well. */
static void
test_power_cut(void **state)
{
	uint64_t first_op;
	bool passed = false;

	(void)state;
	for (uint64_t n = 1; !passed; n += 1 + n / 64) {
		struct trial *t =
		    trial_begin(1000 + n % 4); /* a few workloads, each cut everywhere */

		first_op = sim_device_ops(t->lab.sim, "flash");
		t->cut_at_ops = first_op + n;
		passed = workload(t, STEPS) && n > 120;
		lab_crash(&t->lab, SIM_CUT_DROP | SIM_CUT_TEAR | SIM_CUT_GARBLE);
		t->cut_at_ops = 0;
		reopen_and_verify(t);
		t->cut_at_ops = sim_device_ops(t->lab.sim, "flash") + 1 + prng_below(&t->prng, 30);
		(void)workload(t, 12);
		lab_crash(&t->lab, SIM_CUT_DROP | SIM_CUT_GARBLE);
		t->cut_at_ops = 0;
		reopen_and_verify(t);
		trial_end(t);
	}
}

/* One device through many lives: numbers, generations and segments go round. */
static void
test_many_lives(void **state)
{
	struct trial *t = trial_begin(77);

	(void)state;
	for (int life = 0; life < 40; life++) {
		t->lab.options.sync = life % 3 == 0 ? LOG_SYNC_DSYNC : LOG_SYNC_FLUSH;
		t->cut_at_ops = sim_device_ops(t->lab.sim, "flash") + 1 + prng_below(&t->prng, 120);
		(void)workload(t, STEPS);
		lab_crash(&t->lab, SIM_CUT_DROP | SIM_CUT_TEAR | SIM_CUT_GARBLE);
		t->cut_at_ops = 0;
		reopen_and_verify(t);
	}
	assert_true(t->freed_count > 20);
	trial_end(t);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_fail_nth),
		cmocka_unit_test(test_fail_nth_of_recovery),
		cmocka_unit_test(test_power_cut),
		cmocka_unit_test(test_many_lives),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
