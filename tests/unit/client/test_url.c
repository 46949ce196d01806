/* test_url.c - URLs: what is understood, and that what is not is refused with a line that names it. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

#include "client/url.h"

static void
refused(const char *text, const char *word)
{
	struct errbuf err = { { 0 } };
	struct url url = { 0 };

	assert_int_equal(url_parse(text, &url, &err), -HR_EURL);
	assert_non_null(strstr(err.text, word));
	assert_null(url.path);
}

static void
test_tcp(void **state)
{
	struct url url;

	(void)state;
	assert_int_equal(url_parse("tcp:a:1,10.0.0.1,[::1]:99,[::2]", &url, NULL), 0);
	assert_int_equal(url.kind, URL_TCP);
	assert_int_equal(url.addresses_count, 4);
	assert_string_equal(url.addresses[0], "tcp:a:1");
	assert_string_equal(url.addresses[1], "tcp:10.0.0.1:7450");
	assert_string_equal(url.addresses[2], "tcp:[::1]:99");
	assert_string_equal(url.addresses[3], "tcp:[::2]:7450");
	url_fini(&url);
	refused("tcp:", "HOST:PORT");
	refused("tcp:a:1,", "HOST:PORT");
	refused("tcp:a:0", "port");
	refused("tcp:a:65536", "port");
	refused("tcp:a:1x", "port");
	refused("tcp:[::1", "HOST:PORT");
	refused("tcp:::1:7450", "brackets");
	refused("tcp://a:1", "HOST:PORT");
}

static void
test_paths(void **state)
{
	struct url url;

	(void)state;
	assert_int_equal(url_parse("unix:/run/a.sock", &url, NULL), 0);
	assert_string_equal(url.addresses[0], "unix:/run/a.sock");
	url_fini(&url);
	assert_int_equal(
	    url_parse("file:/a/b.img?size=8GiB&dram=1GiB&segment=64MiB&sync=dsync&shards=2", &url,
		      NULL),
	    0);
	assert_string_equal(url.path, "/a/b.img");
	assert_true(url.size_bytes == GiB(8) && url.dram_bytes == GiB(1) &&
		    url.segment_bytes == MiB(64));
	assert_int_equal(url.shards_count, 2);
	assert_string_equal(url.sync, "dsync");
	url_fini(&url);
	assert_int_equal(url_parse("file:b.img", &url, NULL), 0);
	assert_true(url.size_bytes == 0);
	url_fini(&url);
	refused(
	    "unix:/0123456789/0123456789/0123456789/0123456789/0123456789/0123456789/0123456789/0123456789/0123456789/0123456789",
	    "107");
	refused("file:", "path");
	refused("unix:", "path");
	refused("http://x", "http://x");
	refused("file:a?size=12parsecs", "size=12parsecs");
	refused("file:a?sise=1GiB", "sise");
	refused("file:a?size", "size");
	refused("file:a?segment=9MiB", "power of two");
	refused("file:a?sync=maybe", "dsync");
	refused("file:a?shards=0", "shards=0");
}

int
main(void)
{
	const struct CMUnitTest tests[] = { cmocka_unit_test(test_tcp),
					    cmocka_unit_test(test_paths) };

	return cmocka_run_group_tests(tests, NULL, NULL);
}
