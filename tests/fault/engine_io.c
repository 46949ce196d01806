/* engine_io.c — the N-th operation of the device fails, N = 1, 2, 3 … until the workload passes; and power cuts at every write.
 *
 * After each, a new owner finds only right bytes, and every block that was acknowledged as stable (nothing is reclaimed in the first
 * workload) is there.
 */
#include "unit/engine/engine_rig.h"

enum { KEYS = 36, DEVICE_MIB = 96 };

struct seen {
	bool stable[KEYS];
	bool deleted[KEYS];
};

static bool
engine_down(struct rig *rig)
{
	return engine_failed(rig->engine, NULL);
}

/* Values of every kind, some replaced, some deleted. Stops when the engine has failed. */
static void
workload(struct rig *rig, struct seen *seen)
{
	for (uint64_t k = 0; k < KEYS && !engine_down(rig); k++) {
		uint64_t bytes = k % 10 == 9 ? MiB(2) + 5 : 3000 * (k + 1);
		bool stable = k % 3 == 0;
		struct engine_put_result r =
		    rig_put(rig, k, 0, bytes, stable ? HR_ACK_STABLE : HR_ACK_RAM, false);

		seen->stable[k] = stable && r.status == HR_STATUS_OK;
		if (k % 7 == 6 && seen->stable[k]) {
			/* A delete that failed may have been done or not. */
			seen->deleted[k] = rig_delete(rig, k, HR_ACK_STABLE) == HR_REASON_NONE;
			seen->stable[k] = false;
		}
		if (k % 5 == 4) {
			uint64_t version, got;

			assert_true(rig_get(rig, k / 2, 1, &version, &got) >= 0);
		}
	}
}

static void
verify(struct rig *rig, const struct seen *seen)
{
	for (uint64_t k = 0; k < KEYS; k++) {
		uint64_t version, bytes;
		int rc = rig_get(rig, k, 1, &version, &bytes);

		assert_true(rc >= 0);
		if (seen->stable[k]) {
			assert_int_equal(rc, 0);
		}
		if (seen->deleted[k]) {
			assert_int_equal(rc, HR_REASON_ABSENT);
		}
	}
	engine_check(rig->engine);
}

static void
reopen_after_loss(struct rig *rig)
{
	sim_device_fail_nth(rig->sim, "disk", 0, 0, false);
	sim_device_gone(rig->sim, "disk", true);
	rig_close(rig);
	sim_device_gone(rig->sim, "disk", false);
	rig_open(rig);
}

/* Method: one -EIO at the n-th operation; the workload ends early or goes on; then the process is lost. */
static void
test_fail_nth(void **state)
{
	uint64_t n = 0;
	uint64_t ops;

	(void)state;
	do {
		struct rig rig;
		struct seen seen = { 0 };

		rig_create(&rig, 1000 + n, MiB(DEVICE_MIB), MiB(8));
		ops = sim_device_ops(rig.sim, "disk");
		sim_device_fail_nth(rig.sim, "disk", ++n, -EIO, false);
		workload(&rig, &seen);
		ops = sim_device_ops(rig.sim, "disk") - ops;
		reopen_after_loss(&rig);
		verify(&rig, &seen);
		rig_destroy(&rig);
	} while (n <= ops && n < 400);
	assert_true(n > ops);
}

/* Method: the power goes at the n-th operation. */
static void
test_power_cut_nth(void **state)
{
	uint64_t n = 0;
	uint64_t ops;

	(void)state;
	do {
		struct rig rig;
		struct seen seen = { 0 };

		rig_create(&rig, 2000 + n, MiB(DEVICE_MIB), MiB(8));
		ops = sim_device_ops(rig.sim, "disk");
		sim_device_fail_nth(rig.sim, "disk", ++n, -ENODEV, true);
		workload(&rig, &seen);
		ops = sim_device_ops(rig.sim, "disk") - ops;
		sim_power_cut(rig.sim, "disk", SIM_CUT_DROP | SIM_CUT_TEAR | SIM_CUT_GARBLE);
		reopen_after_loss(&rig);
		verify(&rig, &seen);
		rig_destroy(&rig);
	} while (n <= ops && n < 400);
	assert_true(n > ops);
}

/* Method: the n-th operation of a start fails: the start says so, and the next one finds everything. */
static void
test_fail_nth_of_start(void **state)
{
	struct rig rig;
	struct seen seen = { 0 };
	bool started = false;

	(void)state;
	rig_create(&rig, 7, MiB(DEVICE_MIB), MiB(8));
	workload(&rig, &seen);
	for (uint64_t n = 1; !started && n < 400; n++) {
		struct rig_wait w = { 0 };
		char detail[DETAIL_BYTES] = "";
		int rc;

		rig_close(&rig);
		assert_int_equal(io_device_open(rig.io, "disk", 0, &rig.device), 0);
		assert_int_equal(engine_create(rig.io, rig.device, &rig.slices[0], &rig.options,
					       &rig.engine),
				 0);
		sim_device_fail_nth(rig.sim, "disk", n, -EIO, false);
		rc = engine_start(rig.engine, rig_on_ready, &w, detail);
		if (rc == 0) {
			uint64_t before = sim_device_ops(rig.sim, "disk");

			rig_until(&rig, &w);
			started = w.rc == 0 && sim_device_ops(rig.sim, "disk") - before < n;
		}
		sim_device_fail_nth(rig.sim, "disk", 0, 0, false);
		w = (struct rig_wait){ 0 };
		engine_stop(rig.engine, rig_on_done, &w);
		rig_until(&rig, &w);
		engine_destroy(rig.engine);
		io_device_close(rig.device);
		rig_open(&rig);
	}
	assert_true(started);
	verify(&rig, &seen);
	rig_destroy(&rig);
}

/* Method: a full device with reclaim at work, an error now and then, losses of the process: only right bytes. */
static void
test_reclaim_with_errors(void **state)
{
	(void)state;
	for (uint64_t seed = 0; seed < 10; seed++) {
		struct rig rig;
		uint64_t version, bytes;

		rig_create(&rig, 5000 + seed, MiB(72), MiB(8));
		for (uint64_t round = 0; round < 3; round++) {
			sim_device_fail_nth(rig.sim, "disk", 40 + seed * 7 + round * 31, -EIO,
					    false);
			for (uint64_t k = 0; k < 500 && !engine_down(&rig); k++) {
				rig_put(&rig, k, round, 130000, HR_ACK_RAM, true);
				assert_true(rig_get(&rig, k / 2, round + 1, &version, &bytes) >= 0);
			}
			reopen_after_loss(&rig);
			for (uint64_t k = 0; k < 500; k++) {
				assert_true(rig_get(&rig, k, round + 1, &version, &bytes) >= 0);
			}
			engine_check(rig.engine);
		}
		rig_destroy(&rig);
	}
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_fail_nth),
		cmocka_unit_test(test_power_cut_nth),
		cmocka_unit_test(test_fail_nth_of_start),
		cmocka_unit_test(test_reclaim_with_errors),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
