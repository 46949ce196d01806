/* The whole engine on generated traces, on a device that holds a part of their blocks: hits beside LRU's, bytes written beside
 * payload, right bytes. The same from production traces: bench/engine_trace.c. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "cli/trace_gen.h"
#include "lib/bulk.h"

struct wanted {
	enum trace_gen_kind kind;
	size_t requests;
	uint32_t block_bytes;
	uint64_t pause_us;
	unsigned share; /* of the unique blocks, in percent */
	double ratio_min;
};

#define WRITE_AMPLIFICATION_MAX 1.18

static void
run(const struct wanted *w)
{
	struct bulk_options options = { .seed = 1,
					.value_bytes = w->block_bytes,
					.engine = { .dram_bytes = MiB(64) } };
	struct bulk_counters counters;
	struct bulk_replay replay;
	struct engine_stat stat;
	struct bulk *bulk;
	struct trace *trace;
	double ratio, write_amplification;
	uint64_t capacity;

	assert_int_equal(trace_generate(w->kind, 1, w->requests, &trace), 0);
	capacity = trace_unique_count(trace) * w->share / 100;
	options.device_bytes = capacity * w->block_bytes;
	bulk = bulk_create(&options);
	bulk_replay(bulk, trace, w->pause_us, &replay);
	printf("# ");
	bulk_replay_report(bulk, trace, &replay, capacity, &ratio, &write_amplification);
	engine_check(bulk_engine(bulk));
	engine_stat_get(bulk_engine(bulk), &stat);
	bulk_counters_get(bulk, &counters);
	assert_int_equal(counters.get_wrong, 0);
	assert_int_equal(counters.put_refused, 0);
	assert_int_equal(replay.lost_after_look, 0);
	assert_int_equal(stat.reclaim_corrupt, 0);
	/* It was worth something: the device has been written over. */
	assert_true(stat.reclaims > 100);
	assert_true(ratio >= w->ratio_min);
	assert_true(write_amplification <= WRITE_AMPLIFICATION_MAX);
	bulk_destroy(bulk);
	trace_destroy(trace);
}

/* Method: requests back to back, so that many blocks share a unit. */
static void
test_chat_back_to_back(void **state)
{
	const struct wanted w = { TRACE_GEN_CHAT, 3000, 65536, 0, 25, 0.97 };

	(void)state;
	run(&w);
}

/* Method: a pause after each request, so that every unit's linger ends and each request pays for headers of its own. */
static void
test_agent_with_pauses(void **state)
{
	const struct wanted w = { TRACE_GEN_AGENT, 1500, 65536, 10000, 50, 0.998 };

	(void)state;
	run(&w);
}

/* Method: fill a small store far beyond its size and stop it, again and again at another moment of its reclaim; that is no failure
 * (which would end the program), whatever was under way. */
static void
test_stop_while_reclaiming(void **state)
{
	(void)state;
	for (uint32_t stop = 0; stop < 40; stop++) {
		struct bulk_options options = { .seed = stop,
						.device_bytes = MiB(42),
						.segment_bytes = MiB(8),
						.value_bytes = 65536,
						.engine = { .dram_bytes = MiB(64) } };
		struct bulk *bulk = bulk_create(&options);

		for (uint32_t i = 0; i < 900; i++) {
			bulk_put(bulk, i, 0);
		}
		bulk_pass(bulk, stop * 200);
		bulk_destroy(bulk);
	}
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_chat_back_to_back),
		cmocka_unit_test(test_agent_with_pauses),
		cmocka_unit_test(test_stop_while_reclaiming),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
