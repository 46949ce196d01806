/* test_error.c — every code has a name and a text of its own, and lines are cut, never overrun. */
#include "base/error.h"

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

static void
test_names(void **state)
{
	(void)state;
	assert_string_equal(error_name(0), "OK");
	assert_string_equal(error_name(-HR_ECORRUPT), "HR_ECORRUPT");
	assert_string_equal(error_name(-ENOSPC), "ENOSPC");
	assert_string_equal(error_name(ENOSPC), "ENOSPC");
	assert_string_equal(error_name(-999999), "UNKNOWN");
	assert_string_equal(error_text(-EIO), "Input/output error");
	assert_string_equal(error_text(-999999), "unknown error 999999");
	assert_non_null(error_text(INT32_MIN));
#define CHECK_ERROR(name, value, text)                                                             \
	assert_int_equal(name, value);                                                             \
	assert_string_equal(error_name(-(value)), #name);                                          \
	assert_string_equal(error_text(-(value)), text);
	HR_ERROR_TABLE(CHECK_ERROR)
}

static void
test_lines(void **state)
{
	struct errbuf err = { "" };
	char large[600];

	(void)state;
	assert_int_equal(errf(&err, -EINVAL, "size=%d", 3), -EINVAL);
	assert_string_equal(err.text, "size=3");
	assert_int_equal(errf_prefix(&err, -EINVAL, "config %s", "f.yaml"), -EINVAL);
	assert_string_equal(err.text, "config f.yaml: size=3");
	err.text[0] = 0;
	errf_prefix(&err, -EIO, "device");
	assert_string_equal(err.text, "device: Input/output error");
	memset(large, 'x', sizeof(large) - 1);
	large[sizeof(large) - 1] = 0;
	errf(&err, -EIO, "%s", large);
	assert_int_equal(strlen(err.text), sizeof(err.text) - 1);
	errf_prefix(&err, -EIO, "%s", large);
	assert_int_equal(strlen(err.text), sizeof(err.text) - 1);
	assert_int_equal(errf(NULL, -EIO, "nobody listens"), -EIO);
	assert_int_equal(errf_prefix(NULL, -EIO, "nobody listens"), -EIO);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_names),
		cmocka_unit_test(test_lines),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
