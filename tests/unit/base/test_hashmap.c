/* test_hashmap.c — random puts, gets and removals against a plain array of pairs, with the map's own check in between. */
#include "base/hashmap.h"
#include "base/prng.h"

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

enum { KEYS = 3000 };

static void
test_against_model(void **state)
{
	uint64_t model[KEYS] = { 0 }; /* 0 = not there; values are never 0 */
	struct hashmap map;
	struct prng prng;
	size_t count = 0;

	(void)state;
	prng_init(&prng, 11);
	hashmap_init(&map, 99);
	for (int i = 0; i < 200000; i++) {
		/* Phases that mostly put, then mostly remove, so that it grows and then empties. */
		bool mostly_put = i / 40000 % 2 == 0;
		uint64_t key = prng_below(&prng, KEYS);
		uint64_t value = 0;

		if (prng_below(&prng, 10) < (mostly_put ? 7 : 3)) {
			value = prng_u64(&prng) | 1;
			assert_int_equal(hashmap_put(&map, key * 4096, value), 0);
			count += model[key] == 0;
			model[key] = value;
		} else {
			assert_int_equal(hashmap_remove(&map, key * 4096, &value), model[key] != 0);
			assert_true(value == model[key]);
			count -= model[key] != 0;
			model[key] = 0;
		}
		key = prng_below(&prng, KEYS);
		value = 0;
		assert_int_equal(hashmap_get(&map, key * 4096, &value), model[key] != 0);
		assert_true(value == model[key]);
		assert_int_equal(map.count, count);
		if (i % 5000 == 0) {
			hashmap_check(&map);
		}
	}
	hashmap_fini(&map);
}

static void
test_walk_and_keys16(void **state)
{
	struct hashmap map;
	struct hashmap_slot *slot;
	uint8_t seen[256] = { 0 };
	uint64_t value;
	size_t pos;

	(void)state;
	hashmap_init(&map, 1);
	hashmap_for_each(&map, pos, slot) {
		fail();
	}
	/* Keys that differ only in their last byte, at an odd address. */
	for (int i = 0; i < 256; i++) {
		uint8_t key[17] = { 0 };

		key[16] = (uint8_t)i;
		assert_int_equal(hashmap_put16(&map, key + 1, (uint64_t)i), 0);
	}
	hashmap_for_each(&map, pos, slot) {
		seen[slot->value]++;
	}
	for (int i = 0; i < 256; i++) {
		uint8_t key[17] = { 0 };

		assert_int_equal(seen[i], 1);
		key[16] = (uint8_t)i;
		assert_true(hashmap_get16(&map, key + 1, &value));
		assert_int_equal(value, i);
		assert_true(hashmap_remove16(&map, key + 1, NULL));
		assert_false(hashmap_remove16(&map, key + 1, NULL));
	}
	assert_int_equal(map.count, 0);
	assert_null(hashmap_get_ptr(&map, 5));
	assert_int_equal(hashmap_put_ptr(&map, 5, &map), 0);
	assert_ptr_equal(hashmap_get_ptr(&map, 5), &map);
	assert_ptr_equal(hashmap_remove_ptr(&map, 5), &map);
	assert_null(hashmap_remove_ptr(&map, 5));
	hashmap_fini(&map);
}

/* After reserve(n), n puts do not move the slots. */
static void
test_reserve(void **state)
{
	struct hashmap map;
	struct hashmap_slot *slots;

	(void)state;
	hashmap_init(&map, 0);
	assert_int_equal(hashmap_reserve(&map, 1000), 0);
	slots = map.slots;
	for (uint64_t i = 0; i < 1000; i++) {
		assert_int_equal(hashmap_put(&map, i, i), 0);
	}
	assert_ptr_equal(map.slots, slots);
	hashmap_check(&map);
	assert_int_equal(hashmap_reserve(&map, SIZE_MAX / 2), -12);
	hashmap_check(&map);
	hashmap_fini(&map);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_against_model),
		cmocka_unit_test(test_walk_and_keys16),
		cmocka_unit_test(test_reserve),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
