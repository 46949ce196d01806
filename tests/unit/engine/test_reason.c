/* test_reason.c — the memory of reasons: what it says is right, and what it does not know it does not guess. */
#include "engine/reason.h"

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

#include "base/base.h"
#include "base/prng.h"

/* Notes, changes, forgets one hash among others. */
static void
test_note_find_forget(void **state)
{
	struct reason_memory *memory;

	(void)state;
	assert_int_equal(reason_memory_create(64 << 10, &memory), 0);
	assert_int_equal(reason_find(memory, 0), 0);
	reason_note(memory, 0, 3);
	assert_int_equal(reason_find(memory, 0), 3);
	reason_note(memory, 0, 15);
	assert_int_equal(reason_find(memory, 0), 15);
	assert_int_equal(reason_memory_entries(memory), 1);
	reason_forget(memory, 1);
	assert_int_equal(reason_memory_entries(memory), 1);
	reason_forget(memory, 0);
	assert_int_equal(reason_find(memory, 0), 0);
	assert_int_equal(reason_memory_entries(memory), 0);
	assert_true(reason_memory_bytes(memory) >= 64 << 10);
	assert_true(reason_memory_bytes(memory) < 65 << 10);
	reason_memory_destroy(memory);
	reason_memory_destroy(NULL);
}

/* Hashes that differ in one bit, whichever, are told apart even in the smallest memory. */
static void
test_no_guess(void **state)
{
	struct reason_memory *memory;
	uint64_t hash = 0x0123456789abcdefULL;

	(void)state;
	assert_int_equal(reason_memory_create(0, &memory), 0);
	reason_note(memory, hash, 2);
	for (int bit = 0; bit < 64; bit++) {
		assert_int_equal(reason_find(memory, hash ^ (uint64_t)1 << bit), 0);
	}
	assert_int_equal(reason_find(memory, hash), 2);
	reason_memory_destroy(memory);
}

/* A model that knows everything: many times more notes than fit. Every answer is the model's or "absent"; the newest half of a
 * memory's worth is nearly all there; the count is that of the answers. */
static void
test_overwrites_oldest(void **state)
{
	enum { N = 20000, BYTES = 16 << 10, FITS = BYTES / 8 };
	static uint64_t hashes[N];
	static uint8_t reasons[N];
	struct reason_memory *memory;
	struct prng prng;
	unsigned found = 0, newest = 0;

	(void)state;
	prng_init(&prng, 7);
	assert_int_equal(reason_memory_create(BYTES, &memory), 0);
	for (unsigned i = 0; i < N; i++) {
		hashes[i] = prng_u64(&prng);
		reasons[i] = (uint8_t)(1 + prng_below(&prng, 15));
		reason_note(memory, hashes[i], reasons[i]);
		if (i % 5 == 0) {
			unsigned old = (unsigned)prng_below(&prng, i + 1);

			reason_forget(memory, hashes[old]);
			reasons[old] = 0;
		}
	}
	for (unsigned i = 0; i < N; i++) {
		uint8_t reason = reason_find(memory, hashes[i]);

		assert_true(reason == 0 || reason == reasons[i]);
		found += reason != 0;
		newest += i >= N - FITS / 2 && (reason != 0 || reasons[i] == 0);
	}
	assert_int_equal(found, reason_memory_entries(memory));
	assert_true(found > FITS * 9 / 10);
	assert_true(newest > FITS / 2 * 9 / 10);
	reason_memory_destroy(memory);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_note_find_forget),
		cmocka_unit_test(test_no_guess),
		cmocka_unit_test(test_overwrites_oldest),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
