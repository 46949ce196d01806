/* test_metrics.c — Prometheus text: one HELP and TYPE each, no sample twice, every reason; and the page that lists them. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "server/metrics.h"

static const char STAT[] =
    "{\"version\":\"0.1.0\",\"node_uuid\":\"u\",\"uptime_s\":7,\"ready\":true,\"backend\":{\"disk\":\"pread\",\"net\":\"poll\"},"
    "\"io\":{\"device_reads\":3},\"sessions\":{\"conns_now\":2,\"requests\":{\"get\":5,\"put\":6}},"
    "\"devices\":[{\"path\":\"/a\\\"b\\\\c\",\"state\":\"open\",\"size_bytes\":10},{\"path\":\"/b\",\"state\":\"failed\"}],"
    "\"shards\":[{\"uuid\":\"s1\",\"device\":\"/a\",\"gets\":11,\"get_misses\":{\"absent\":1,\"corrupt\":2},\"dram\":{\"hits\":4},"
    "\"recovered\":{\"duration_us\":1500000}},{\"uuid\":\"s2\",\"device\":\"/b\",\"gets\":12}],"
    "\"spaces\":[{\"label\":\"default\",\"digest\":\"dd\",\"tenant\":\"tt\",\"blocks\":9}]}";

static void
test_text(void **state)
{
	json_t *root = json_loads(STAT, 0, NULL);
	char *text = metrics_format(root);

	(void)state;
	assert_non_null(text);
	assert_non_null(strstr(text, "\nheadrace_up_seconds 7\n"));
	assert_non_null(strstr(text, "\nheadrace_ready 1\n"));
	assert_non_null(strstr(text, "\nheadrace_requests_total{op=\"get\"} 5\n"));
	assert_non_null(strstr(text, "\nheadrace_gets_total{shard=\"s1\",device=\"/a\"} 11\n"));
	assert_non_null(strstr(text, "\nheadrace_gets_total{shard=\"s2\",device=\"/b\"} 12\n"));
	assert_non_null(strstr(
	    text, "\nheadrace_get_misses_total{shard=\"s1\",device=\"/a\",reason=\"corrupt\"} 2\n"));
	assert_non_null(strstr(text, "\nheadrace_dram_hits_total{shard=\"s1\",device=\"/a\"} 4\n"));
	assert_non_null(
	    strstr(text, "\nheadrace_recovery_seconds{shard=\"s1\",device=\"/a\"} 1.5\n"));
	assert_non_null(
	    strstr(text,
		   "\nheadrace_space_blocks{space=\"default\",digest=\"dd\",tenant=\"tt\"} 9\n"));
	assert_non_null(strstr(text, "\nheadrace_device_up{device=\"/a_b_c\"} 1\n"));
	assert_non_null(strstr(text, "\nheadrace_device_up{device=\"/b\"} 0\n"));
	free(text);
	json_decref(root);
}

static unsigned
count_of(const char *text, const char *what)
{
	unsigned count = 0;

	for (const char *at = text; (at = strstr(at, what)) != NULL; at++) {
		count++;
	}
	return count;
}

/* The same table makes the text and the page: names are there once. */
static void
test_page(void **state)
{
	const char *root = getenv("HR_SOURCE_ROOT");
	char path[4096], name[256], *doc = NULL, *page, *rest = NULL;
	size_t doc_len, page_len;
	unsigned rows = 0;
	FILE *out = open_memstream(&doc, &doc_len), *file;

	(void)state;
	metrics_doc_print(out);
	fclose(out);
	snprintf(path, sizeof(path), "%s/docs/ops/metrics.md", root != NULL ? root : ".");
	file = fopen(path, "r");
	assert_non_null(file);
	page = calloc(1, 1 << 20);
	page_len = fread(page, 1, (1 << 20) - 1, file);
	assert_true(page_len > 0);
	fclose(file);
	for (char *line = strtok_r(doc, "\n", &rest); line != NULL;
	     line = strtok_r(NULL, "\n", &rest)) {
		if (strncmp(line, "| headrace_", 11) != 0) {
			continue;
		}
		rows++;
		assert_non_null(strstr(page, line));
		snprintf(name, sizeof(name), "| %.*s |", (int)strcspn(line + 2, " "), line + 2);
		assert_int_equal(count_of(page, name), 1);
	}
	assert_true(rows > 100);
	assert_int_equal(count_of(page, "| headrace_"), rows);
	free(page);
	free(doc);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_text),
		cmocka_unit_test(test_page),
	};

	return cmocka_run_group_tests_name("metrics", tests, NULL, NULL);
}
