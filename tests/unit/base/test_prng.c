/* test_prng.c — the generators' published numbers; bounds, evenness and tails of what is made from them. */
#include "base/prng.h"

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

/* xoshiro256** from the state 1, 2, 3, 4 and splitmix64 from 1234567, as their authors' code prints them. */
static void
test_vectors(void **state)
{
	static const uint64_t expected[] = {
		11520, 0, 1509978240, 1215971899390074240, 1216172134540287360, 607988272756665600
	};
	struct prng prng = { { 1, 2, 3, 4 } };
	uint64_t seed = 1234567;

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(expected); i++) {
		assert_true(prng_u64(&prng) == expected[i]);
	}
	assert_true(splitmix64(&seed) == 6457827717110365317ULL);
	assert_true(splitmix64(&seed) == 3203168211198807973ULL);
}

static void
test_below(void **state)
{
	struct prng prng;
	unsigned seen[7] = { 0 };

	(void)state;
	prng_init(&prng, 1);
	for (int i = 0; i < 70000; i++) {
		uint64_t v = prng_below(&prng, 7);

		assert_true(v < 7);
		seen[v]++;
	}
	for (int i = 0; i < 7; i++) {
		assert_in_range(seen[i], 9500, 10500); /* Five standard deviations are 463. */
	}
	for (int i = 0; i < 1000; i++) {
		assert_true(prng_below(&prng, 1) == 0);
		assert_true(prng_below(&prng, (UINT64_MAX / 3) * 2) < (UINT64_MAX / 3) * 2);
		assert_true(prng_double(&prng) < 1.0);
		assert_false(prng_chance_ppm(&prng, 0));
		assert_true(prng_chance_ppm(&prng, 1000000));
	}
}

/* The same seed gives the same bytes whatever the length; nothing is written behind the end. */
static void
test_bytes(void **state)
{
	uint8_t whole[32];
	uint8_t part[32];
	struct prng prng;

	(void)state;
	prng_init(&prng, 42);
	prng_bytes(&prng, whole, sizeof(whole));
	for (size_t len = 0; len < sizeof(part); len++) {
		memset(part, 0xa5, sizeof(part));
		prng_init(&prng, 42);
		prng_bytes(&prng, part, len);
		assert_memory_equal(part, whole, len);
		assert_int_equal(part[len], 0xa5);
	}
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_vectors),
		cmocka_unit_test(test_below),
		cmocka_unit_test(test_bytes),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
