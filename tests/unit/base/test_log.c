/* test_log.c — silence by default, the shape of a line, cutting, quoting, and the limit on repetition. */
#define HR_LOG_COMPONENT "test"
#include "base/log.h"

#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>

#include <cmocka.h>

struct sink {
	unsigned lines_count;
	enum log_level level;
	char last[LOG_LINE_BYTES + 64];
};

static void
sink_line(void *arg, enum log_level level, const char *line, size_t len)
{
	struct sink *sink = arg;

	assert_int_equal(strlen(line), len);
	sink->lines_count++;
	sink->level = level;
	snprintf(sink->last, sizeof(sink->last), "%s", line);
}

static void
test_levels_and_shape(void **state)
{
	struct sink sink = { 0 };

	(void)state;
	log_set_sink(sink_line, &sink);
	log_error("never", "%s", "");
	assert_int_equal(sink.lines_count, 0);
	log_set_level(LOG_INFO);
	log_debug("never", "%s", "");
	assert_int_equal(sink.lines_count, 0);
	log_info("segment_sealed", "segment=%u", 7u);
	assert_int_equal(sink.lines_count, 1);
	assert_int_equal(sink.level, LOG_INFO);
	assert_memory_equal(sink.last, "ts=20", 5);
	assert_int_equal(sink.last[strlen("ts=2026-01-31T12:00:00.123")], 'Z');
	assert_string_equal(sink.last + strlen("ts=2026-01-31T12:00:00.123Z"),
			    " level=info component=test event=segment_sealed segment=7");
	log_error("bare", "%s", "");
	assert_string_equal(sink.last + strlen("ts=2026-01-31T12:00:00.123Z"),
			    " level=error component=test event=bare");
	log_set_level(LOG_NONE);
	log_set_sink(NULL, NULL);
}

static void
test_cut(void **state)
{
	struct sink sink = { 0 };
	char large[3000];

	(void)state;
	memset(large, 'x', sizeof(large) - 1);
	large[sizeof(large) - 1] = 0;
	log_set_sink(sink_line, &sink);
	log_set_level(LOG_WARN);
	log_warn("large", "value=%s", large);
	assert_int_equal(strlen(sink.last), LOG_LINE_BYTES - 1);
	log_set_level(LOG_NONE);
	log_set_sink(NULL, NULL);
}

/* One line of code in a loop speaks LOG_BURST times; another line is not affected; the window's end says how many were lost. */
static void
test_repetition(void **state)
{
	struct log_site site = { 0 };
	struct sink sink = { 0 };

	(void)state;
	log_set_sink(sink_line, &sink);
	log_set_level(LOG_WARN);
	for (int i = 0; i < 100; i++) {
		log_write(&site, LOG_WARN, "test", "again", "i=%d", i);
	}
	assert_int_equal(sink.lines_count, LOG_BURST);
	log_warn("other", "%s", "");
	assert_int_equal(sink.lines_count, LOG_BURST + 1);
	site.window_start_s -= LOG_WINDOW_S;
	log_write(&site, LOG_WARN, "test", "again", "i=%d", 100);
	assert_int_equal(sink.lines_count, LOG_BURST + 2);
	assert_non_null(strstr(sink.last, "event=again suppressed=90 i=100"));
	log_set_level(LOG_NONE);
	log_set_sink(NULL, NULL);
}

enum { THREADS = 4, LINES = 2000 };

static void *
log_much(void *arg)
{
	static struct log_site site;

	for (int i = 0; i < LINES; i++) {
		log_write(&site, LOG_WARN, "test", "again", "i=%d", i);
	}
	return arg;
}

/* Threads at one calling line: the limit holds for all of them together, and lines stay whole. */
static void
test_threads(void **state)
{
	struct sink sink = { 0 };
	pthread_t threads[THREADS];

	(void)state;
	log_set_sink(sink_line, &sink);
	log_set_level(LOG_WARN);
	for (int i = 0; i < THREADS; i++) {
		assert_int_equal(pthread_create(&threads[i], NULL, log_much, NULL), 0);
	}
	for (int i = 0; i < THREADS; i++) {
		assert_int_equal(pthread_join(threads[i], NULL), 0);
	}
	/* Each thread may open the window for itself once at the start. */
	assert_in_range(sink.lines_count, LOG_BURST, LOG_BURST * THREADS);
	assert_non_null(strstr(sink.last, " event=again"));
	log_set_level(LOG_NONE);
	log_set_sink(NULL, NULL);
}

static void
test_quote(void **state)
{
	char text[32];

	(void)state;
	assert_string_equal(log_quote("/dev/nvme0n1", text, sizeof(text)), "/dev/nvme0n1");
	assert_string_equal(log_quote("", text, sizeof(text)), "\"\"");
	assert_string_equal(log_quote("a b", text, sizeof(text)), "\"a b\"");
	assert_string_equal(log_quote("a\"\n=", text, sizeof(text)), "\"a\\\"\\x0a=\"");
	log_quote("a \n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n", text, sizeof(text));
	assert_true(strlen(text) < sizeof(text));
	assert_int_equal(text[strlen(text) - 1], '"');
}

static void
test_parse(void **state)
{
	struct errbuf err = { "" };
	enum log_level level;

	(void)state;
	assert_int_equal(log_level_parse("warn", &level, &err), 0);
	assert_int_equal(level, LOG_WARN);
	assert_string_equal(log_level_name(level), "warn");
	assert_int_equal(log_level_parse("loud", &level, &err), -EINVAL);
	assert_non_null(strstr(err.text, "loud"));
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_levels_and_shape),
		cmocka_unit_test(test_cut),
		cmocka_unit_test(test_repetition),
		cmocka_unit_test(test_quote),
		cmocka_unit_test(test_parse),
		cmocka_unit_test(test_threads),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
