/* Contents of blocks: the same for a seed, another for every page, and every changed byte is found. */
#include "cli/content.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

static void
what_is_filled_passes(void **state)
{
	static const size_t lens[] = { 0, 1, 7, 4095, 4096, 4097, 65536, 100001 };
	uint8_t *buf = malloc(100001 + 1);

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(lens); i++) {
		uint64_t seed = content_seed(&lens[i], sizeof(lens[i]));

		content_fill(buf + 1, lens[i], seed); /* + 1: not aligned */
		assert_int_equal(content_check(buf + 1, lens[i], seed), lens[i]);
		assert_int_equal(content_wrong_bytes(buf + 1, lens[i], seed), 0);
	}
	free(buf);
}

static void
any_changed_byte_is_found(void **state)
{
	enum { LEN = 10000 };
	uint8_t *buf = malloc(LEN);

	(void)state;
	content_fill(buf, LEN, 42);
	for (size_t i = 0; i < LEN; i++) {
		buf[i] ^= (uint8_t)(1 << (i % 8));
		assert_int_equal(content_check(buf, LEN, 42), i);
		buf[i] ^= (uint8_t)(1 << (i % 8));
	}
	buf[5] ^= 1;
	buf[9999] ^= 1;
	assert_int_equal(content_wrong_bytes(buf, LEN, 42), 2);
	free(buf);
}

/* Pages swapped, a page shifted by a page, another block's page: none passes. */
static void
pages_are_not_exchangeable(void **state)
{
	uint8_t *a = malloc(8 * CONTENT_PAGE_BYTES);
	uint8_t *b = malloc(8 * CONTENT_PAGE_BYTES);

	(void)state;
	content_fill(a, 8 * CONTENT_PAGE_BYTES, 1);
	content_fill(b, 8 * CONTENT_PAGE_BYTES, 2);
	for (int i = 0; i < 8; i++) {
		for (int j = 0; j < 8; j++) {
			assert_memory_not_equal(a + i * CONTENT_PAGE_BYTES,
						b + j * CONTENT_PAGE_BYTES, 64);
			if (i != j) {
				assert_memory_not_equal(a + i * CONTENT_PAGE_BYTES,
							a + j * CONTENT_PAGE_BYTES, 64);
			}
		}
	}
	memmove(a, a + CONTENT_PAGE_BYTES, 7 * CONTENT_PAGE_BYTES);
	assert_int_equal(content_check(a, 8 * CONTENT_PAGE_BYTES, 1), 0);
	free(a);
	free(b);
}

/* A store filled by one version is checked by the next: these bytes never change. */
static void
golden_bytes(void **state)
{
	static const uint8_t want[16] = { 0x51, 0x31, 0xf5, 0x6b, 0xc6, 0x51, 0x57, 0xf7,
					  0x01, 0xc9, 0x4e, 0xbb, 0x20, 0xe2, 0x96, 0x2f };
	uint8_t got[16];

	(void)state;
	content_fill(got, sizeof(got), content_seed("kvt:golden:1", 12));
	assert_memory_equal(got, want, sizeof(want));
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(what_is_filled_passes),
		cmocka_unit_test(any_changed_byte_is_found),
		cmocka_unit_test(pages_are_not_exchangeable),
		cmocka_unit_test(golden_bytes),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
