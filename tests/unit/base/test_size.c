/* test_size.c — what people write, what they get wrong, and that formatting reads back. */
#include "base/prng.h"
#include "base/size.h"

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

static void
test_sizes(void **state)
{
	static const struct {
		const char *text;
		uint64_t bytes;
	} good[] = {
		{ "0", 0 },
		{ "4096", 4096 },
		{ "64KiB", 65536 },
		{ "64kib", 65536 },
		{ " 1 MiB ", 1048576 },
		{ "8GiB", 8589934592 },
		{ "1.5GiB", 1610612736 },
		{ "0.5KiB", 512 },
		{ "2TiB", 2199023255552 },
		{ "16383PiB", 16383ULL << 50 },
		{ "10MB", 10000000 },
		{ "1kB", 1000 },
		{ "18446744073709551615", UINT64_MAX },
	};
	uint64_t bytes;

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(good); i++) {
		assert_int_equal(size_parse(good[i].text, &bytes, NULL), 0);
		assert_true(bytes == good[i].bytes);
	}
}

static void
test_bad_sizes(void **state)
{
	static const struct {
		const char *text;
		int rc;
		const char *says;
	} bad[] = {
		{ "", -EINVAL, "not a size" },
		{ "GiB", -EINVAL, "not a size" },
		{ "-1", -EINVAL, "not a size" },
		{ "1.", -EINVAL, "not a size" },
		{ "8Gib", 0, NULL },
		{ "8Gi", -EINVAL, "unit 'Gi'" },
		{ "8 GiB x", -EINVAL, "unit" },
		{ "8s", -EINVAL, "unit 's'" },
		{ "18446744073709551616", -ERANGE, "too large" },
		{ "16384PiB", -ERANGE, "too large" },
	};
	uint64_t bytes = 7;

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		struct errbuf err = { "" };

		assert_int_equal(size_parse(bad[i].text, &bytes, &err), bad[i].rc);
		if (bad[i].rc != 0) {
			assert_non_null(strstr(err.text, bad[i].says));
			assert_true(bytes == 7 || bytes == GiB(8));
		}
	}
}

static void
test_durations_and_rates(void **state)
{
	uint64_t v;

	(void)state;
	assert_int_equal(duration_parse("30s", &v, NULL), 0);
	assert_int_equal(v, 30000000);
	assert_int_equal(duration_parse("5ms", &v, NULL), 0);
	assert_int_equal(v, 5000);
	assert_int_equal(duration_parse("1.5min", &v, NULL), 0);
	assert_int_equal(v, 90000000);
	assert_int_equal(duration_parse("0", &v, NULL), 0);
	assert_int_equal(v, 0);
	assert_int_equal(duration_parse("30", &v, NULL), -EINVAL);
	assert_int_equal(duration_parse("30S", &v, NULL), -EINVAL);
	assert_int_equal(bitrate_parse("200Gbit", &v, NULL), 0);
	assert_true(v == 200000000000);
	assert_int_equal(bitrate_parse("25 gbit/s", &v, NULL), 0);
	assert_true(v == 25000000000);
	assert_int_equal(bitrate_parse("100Mbps", &v, NULL), 0);
	assert_true(v == 100000000);
	assert_int_equal(bitrate_parse("200", &v, NULL), -EINVAL);
	assert_int_equal(bitrate_parse("200GB", &v, NULL), -EINVAL);
}

static void
test_format(void **state)
{
	char text[SIZE_TEXT_BYTES];
	struct prng prng;

	(void)state;
	assert_string_equal(size_format(GiB(8), text), "8GiB");
	assert_string_equal(size_format(MiB(1537), text), "1537MiB");
	assert_string_equal(size_format(4097, text), "4097B");
	assert_string_equal(size_format(0, text), "0B");
	assert_string_equal(size_format_short(117, text), "117 B");
	assert_string_equal(size_format_short(MiB(1) * 3 / 2, text), "1.50 MiB");
	assert_string_equal(size_format_short(GiB(512), text), "512 GiB");
	assert_string_equal(duration_format(90000000, text), "90s");
	assert_string_equal(duration_format(60000000, text), "1min");
	assert_string_equal(duration_format(0, text), "0us");
	assert_string_equal(bitrate_format(200000000000, text), "200Gbit");
	prng_init(&prng, 9);
	for (int i = 0; i < 1000; i++) {
		uint64_t v = prng_u64(&prng) >> prng_below(&prng, 64) << prng_below(&prng, 20);
		uint64_t back;

		assert_int_equal(size_parse(size_format(v, text), &back, NULL), 0);
		assert_true(back == v);
		assert_int_equal(duration_parse(duration_format(v, text), &back, NULL), 0);
		assert_true(back == v);
	}
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_sizes),
		cmocka_unit_test(test_bad_sizes),
		cmocka_unit_test(test_durations_and_rates),
		cmocka_unit_test(test_format),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
