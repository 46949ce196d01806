/* What the engine's index and policy take for each block, filled through PUT on a device that keeps nothing. With millions of blocks:
 * bench/engine_memory.c. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

#include "lib/bulk.h"

enum { BYTES_A_BLOCK_MAX = 24, STEP_BLOCKS = 20000, STEPS = 15 };
#define FIXED_BYTES_MAX MiB(4)
#define FIXED_BYTES_AT_END KiB(1536)

/* Method: up to 300,000 blocks, looking at the account all the way, because sub-tables grow in steps, nearly all at the same time: half
 * way from one step to the next a store needs most. The promise holds throughout; at 300,000 blocks, 1.5 MiB beside the 24 bytes a
 * block do, or a few bytes more for each would go unseen. */
static void
test_bytes_a_block(void **state)
{
	struct bulk_options options = {
		.seed = 1,
		.device_bytes = (uint64_t)STEP_BLOCKS * STEPS * (4096 + 512) + MiB(512),
		.value_bytes = 4096,
		.forget_descriptors = true,
		.engine = { .dram_bytes = MiB(32), .sync = LOG_SYNC_DSYNC },
	};
	struct bulk *bulk = bulk_create(&options);
	int64_t fixed = 0, fixed_most = 0;

	(void)state;
	for (uint32_t i = 1; i <= STEPS * STEP_BLOCKS; i++) {
		struct engine_stat s;
		uint64_t bytes;

		bulk_put(bulk, i, 0);
		if (i % STEP_BLOCKS != 0) {
			continue;
		}
		bulk_puts_wait(bulk);
		engine_stat_get(bulk_engine(bulk), &s);
		bytes = s.index_bytes + s.policy_bytes;
		assert_int_equal(s.blocks, i);
		fixed = (int64_t)bytes - (int64_t)i * BYTES_A_BLOCK_MAX;
		fixed_most = HR_MAX(fixed_most, fixed);
	}
	print_message("# at most 24 bytes a block and %lld; at the end %lld\n",
		      (long long)fixed_most, (long long)fixed);
	assert_true(fixed_most <= (int64_t)FIXED_BYTES_MAX);
	assert_true(fixed <= (int64_t)FIXED_BYTES_AT_END);
	bulk_destroy(bulk);
}

/* Method: the same with a TTL each, whose expiries are in a second index. */
static void
test_bytes_a_block_with_ttl(void **state)
{
	struct bulk_options options = {
		.seed = 1,
		.device_bytes = (uint64_t)STEP_BLOCKS * STEPS * (4096 + 512) + MiB(512),
		.value_bytes = 4096,
		.forget_descriptors = true,
		.engine = { .dram_bytes = MiB(32), .sync = LOG_SYNC_DSYNC },
	};
	struct bulk *bulk = bulk_create(&options);

	(void)state;
	for (uint32_t i = 1; i <= STEPS * STEP_BLOCKS; i++) {
		struct engine_stat s;

		bulk_put(bulk, i, UINT32_MAX);
		if (i % STEP_BLOCKS == 0) {
			bulk_puts_wait(bulk);
			engine_stat_get(bulk_engine(bulk), &s);
			assert_true(s.index_bytes + s.policy_bytes <=
				    2 * (BYTES_A_BLOCK_MAX * (uint64_t)i + FIXED_BYTES_MAX));
		}
	}
	bulk_destroy(bulk);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_bytes_a_block),
		cmocka_unit_test(test_bytes_a_block_with_ttl),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
