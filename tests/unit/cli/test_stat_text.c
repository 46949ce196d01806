/* Statistics for people: everything is there, sizes with units, rates between two looks. */
#include "cli/stat_text.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

static char *
print(const char *now_text, const char *before_text, double seconds)
{
	json_t *now = json_loads(now_text, 0, NULL);
	json_t *before = before_text == NULL ? NULL : json_loads(before_text, 0, NULL);
	char *text = NULL;
	size_t len = 0;
	FILE *out = open_memstream(&text, &len);

	assert_non_null(now);
	stat_text_print(now, before, seconds, out);
	fclose(out);
	json_decref(now);
	json_decref(before);
	return text;
}

static void
numbers_are_readable(void **state)
{
	char *text = print(
	    "{\"gets\": 1234567, \"live_bytes\": 3145728, \"zero\": 0, \"ratio\": 1.25, \"ready\": true, \"device\": \"/dev/x\"}",
	    NULL, 0);

	(void)state;
	assert_non_null(strstr(text, "1,234,567"));
	assert_non_null(strstr(text, "3.00 MiB"));
	assert_non_null(strstr(text, "1.25"));
	assert_non_null(strstr(text, "yes"));
	assert_non_null(strstr(text, "/dev/x"));
	assert_non_null(strstr(text, "zero"));
	free(text);
}

static void
what_is_nested_has_headings(void **state)
{
	char *text = print(
	    "{\"shards\": [{\"gets\": 1}, {\"gets\": 0}, {\"gets\": 2}], \"empty\": {\"a\": 0}}",
	    NULL, 0);

	(void)state;
	assert_non_null(strstr(text, "shards 0\n"));
	assert_non_null(strstr(text, "shards 1\n"));
	assert_non_null(strstr(text, "shards 2\n"));
	assert_non_null(strstr(text, "empty"));
	free(text);
}

static void
growth_is_a_rate(void **state)
{
	char *text = print(
	    "{\"shards\": [{\"gets\": 300, \"bytes_in\": 2097152, \"same\": 5, \"puts_now\": 9}]}",
	    "{\"shards\": [{\"gets\": 100, \"bytes_in\": 0, \"same\": 5, \"puts_now\": 3}]}", 2);
	char *same;

	(void)state;
	assert_non_null(strstr(text, "+100/s"));
	assert_non_null(strstr(text, "+1.00 MiB/s"));
	same = strstr(text, "same");
	assert_non_null(same);
	assert_null(strstr(same, "/s"));
	free(text);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(numbers_are_readable),
		cmocka_unit_test(what_is_nested_has_headings),
		cmocka_unit_test(growth_is_a_rate),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
