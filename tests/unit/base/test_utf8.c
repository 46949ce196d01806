/* test_utf8.c — what is text stays; each foreign byte becomes '?'; a cut character goes. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include <jansson.h>

#include "base/base.h"
#include "base/prng.h"
#include "base/utf8.h"

static void
test_examples(void **state)
{
	static const struct {
		const char *text, *clean;
	} rows[] = {
		{ "", "" },
		{ "plain", "plain" },
		{ "\xc3\xa4\xe2\x82\xac\xf0\x9f\x8c\x8a", "\xc3\xa4\xe2\x82\xac\xf0\x9f\x8c\x8a" },
		{ "caf\xe9 noir", "caf? noir" },
		{ "caf\xe9", "caf" }, /* may be a cut character */
		{ "\xff\x80z", "?\?z" },
		{ "\xc0\xaf \xed\xa0\x80 \xf5\x80 .", "?\? ?\?? ?\? ." },
		{ "cut \xe2\x82", "cut " },
		{ "cut \xf0\x9f\x8c", "cut " },
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
		char text[64];

		snprintf(text, sizeof(text), "%s", rows[i].text);
		utf8_clean(text);
		assert_string_equal(text, rows[i].clean);
	}
}

/* Method: random bytes, mostly of the kinds that make and break characters; what is left is what jansson takes, and is left alone
 * the second time. */
static void
test_any_bytes(void **state)
{
	static const uint8_t kinds[] = { 'a',  0x80, 0xbf, 0xc1, 0xc2, 0xdf, 0xe0, 0xa0,
					 0xed, 0x9f, 0xef, 0xf0, 0x90, 0xf4, 0x8f, 0xf5 };
	struct prng prng;

	(void)state;
	prng_init(&prng, 3);
	for (unsigned round = 0; round < 100000; round++) {
		char text[17] = { 0 }, again[17];
		json_t *json;

		for (unsigned i = 0; i < 16; i++) {
			text[i] = (char)(prng_below(&prng, 8) == 0
					     ? 1 + prng_below(&prng, 255)
					     : kinds[prng_below(&prng, ARRAY_SIZE(kinds))]);
		}
		utf8_clean(text);
		json = json_string(text);
		assert_non_null(json);
		json_decref(json);
		memcpy(again, text, sizeof(text));
		utf8_clean(again);
		assert_string_equal(again, text);
	}
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_examples),
		cmocka_unit_test(test_any_bytes),
	};

	return cmocka_run_group_tests_name("utf8", tests, NULL, NULL);
}
