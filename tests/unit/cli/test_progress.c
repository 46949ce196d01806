/* The progress line: its parts, that it fits the terminal, and that a pipe gets nothing. */
#include "cli/progress.h"

#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

static void
the_line_fits(void **state)
{
	char line[256];

	(void)state;
	progress_line(line, sizeof(line), 80, "replay", 50, 200, 10000000, "hits 40 %");
	assert_string_equal(line, "replay [######..................]  25.0 % 30 s left  hits 40 %");
	progress_line(line, sizeof(line), 20, "replay", 50, 200, 10000000, NULL);
	assert_int_equal(strlen(line), 19);
	progress_line(line, sizeof(line), 80, "x", 7, 0, 0, NULL);
	assert_non_null(strstr(line, "0.0 %"));
	progress_line(line, sizeof(line), 80, "x", 9, 3, 0, NULL);
	assert_non_null(strstr(line, "100.0 %"));
}

/* Standard error of a test is no terminal; quiet is quiet anywhere. */
static void
quiet_says_nothing(void **state)
{
	struct progress progress;

	(void)state;
	progress_start(&progress, "x", true);
	assert_null(progress.out);
	progress_show(&progress, 1, 2, NULL);
	progress_end(&progress);
	assert_false(progress.shown);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(the_line_fits),
		cmocka_unit_test(quiet_says_nothing),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
