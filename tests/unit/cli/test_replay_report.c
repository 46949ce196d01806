/* Reports of a replay: the JSON that scripts read, the text, and the page, from figures made up here. */
#include "cli/replay_report.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

#include "cli/trace_gen.h"
#include "cli/trace_sim.h"
#include "fake_store.h"

struct fixture {
	struct trace *trace;
	struct replay_options options;
	struct replay_result result;
	struct replay_report report;
	struct histogram get, put, exists;
};

static int
setup(void **state)
{
	struct fixture *fix = calloc(1, sizeof(*fix));

	assert_int_equal(trace_generate(TRACE_GEN_CHAT, 2, 130, &fix->trace), 0);
	snprintf(fix->trace->name, sizeof(fix->trace->name), "a <b>&\"c\"");
	fix->options = (struct replay_options){
		.trace = fix->trace,
		.count = 130,
		.block_bytes = 65536,
		.clients_count = 2,
		.cost = { .model = &models[0], .tflops = 1000, .mfu = 0.25 },
	};
	fix->result = (struct replay_result){
		.get = &fix->get,
		.put = &fix->put,
		.exists = &fix->exists,
		.elapsed_us = 2000000,
		.hits = calloc(130, sizeof(uint32_t)),
		.latency_us = calloc(130, sizeof(uint32_t)),
		.has_write_counts = true,
		.bytes_written = 117,
		.payload_bytes = 100,
	};
	fix->result.counts = (struct replay_counts){
		.requests = 130,
		.blocks = fix->trace->refs_count,
		.prefix_hits = 1234,
		.misses = { [HR_REASON_ABSENT] = 77, [HR_REASON_EVICTED] = 5 },
		.bytes_put = 1 << 20,
		.bytes_got = 3 << 20,
		.gets_dram = 40,
		.gets_flash = 8,
		.gpu_seconds_saved = 12.5,
		.gpu_seconds_total = 50,
	};
	for (int i = 1; i <= 100; i++) {
		histogram_add(&fix->get, (uint64_t)i);
	}
	fix->report = (struct replay_report){ .options = &fix->options,
					      .result = &fix->result,
					      .gpu_name = "h100",
					      .source = "somewhere/x.kvt" };
	assert_int_equal(replay_report_simulate(&fix->report, 65536 * 500), 0);
	*state = fix;
	return 0;
}

static int
teardown(void **state)
{
	struct fixture *fix = *state;

	replay_report_fini(&fix->report);
	free(fix->result.hits);
	free(fix->result.latency_us);
	trace_destroy(fix->trace);
	free(fix);
	return 0;
}

static double
number_at(const json_t *object, const char *a, const char *b, const char *c)
{
	const json_t *value = json_object_get(object, a);

	value = b == NULL ? value : json_object_get(value, b);
	value = c == NULL ? value : json_object_get(value, c);
	if (!json_is_number(value)) {
		fail_msg("%s %s %s is not a number", a, b, c);
	}
	return json_number_value(value);
}

static void
json_has_what_scripts_read(void **state)
{
	struct fixture *fix = *state;
	json_t *object = replay_report_json(&fix->report);
	struct trace_sim_result lru;

	assert_true(number_at(object, "requests", NULL, NULL) == 130);
	assert_true(number_at(object, "usable_prefix_hits", NULL, NULL) == 1234);
	assert_true(number_at(object, "misses", "absent", NULL) == 77);
	assert_true(number_at(object, "misses", "evicted", NULL) == 5);
	assert_true(number_at(object, "misses", "corrupt", NULL) == 0);
	assert_true(number_at(object, "wrong_bytes", NULL, NULL) == 0);
	assert_true(number_at(object, "bytes_put", NULL, NULL) == 1 << 20);
	assert_true(number_at(object, "bytes_got", NULL, NULL) == 3 << 20);
	assert_true(number_at(object, "write_amplification", NULL, NULL) == 1.17);
	assert_true(number_at(object, "gpu_seconds_saved", NULL, NULL) == 12.5);
	assert_true(number_at(object, "latency_us", "get", "p50") == 50);
	assert_true(number_at(object, "latency_us", "get", "p99") == 99);
	assert_true(number_at(object, "latency_us", "put", "p99") == 0);
	assert_true(number_at(object, "tiers", "dram", "bytes") == 40 * 65536);
	assert_true(number_at(object, "tiers", "flash", "bytes_per_second") == 4.0 * 65536);
	assert_int_equal(trace_sim_lru(fix->trace, 0, 130, 500, NULL, &lru), 0);
	assert_true(number_at(object, "compare", "lru", NULL) == (double)lru.prefix_hits);
	assert_true(number_at(object, "compare", "lru_blocks", NULL) == 500);
	json_decref(object);
}

/* Without figures from the store there is no amplification, rather than a wrong one. */
static void
what_is_not_known_is_null(void **state)
{
	struct fixture *fix = *state;
	json_t *object;

	fix->result.has_write_counts = false;
	object = replay_report_json(&fix->report);
	assert_true(json_is_null(json_object_get(object, "write_amplification")));
	json_decref(object);
}

static void
text_tells_the_main_figures(void **state)
{
	struct fixture *fix = *state;
	char *text = NULL;
	size_t len = 0;
	FILE *out = open_memstream(&text, &len);

	replay_report_text(&fix->report, out);
	fclose(out);
	assert_non_null(strstr(text, "1,234 of"));
	assert_non_null(strstr(text, "absent 77, evicted 5"));
	assert_non_null(strstr(text, "at 500 blocks"));
	assert_non_null(strstr(text, "1.170"));
	assert_non_null(strstr(text, "1000 TFLOPS"));
	free(text);
}

static size_t
count_of(const char *text, const char *what)
{
	size_t n = 0;

	for (const char *at = text; (at = strstr(at, what)) != NULL; at += strlen(what)) {
		n++;
	}
	return n;
}

static void
page_is_whole_and_loads_nothing(void **state)
{
	static const char *const outside[] = { "http://", "https://", "<script", "<link",
					       "@import", "url(",     "src=" };
	struct fixture *fix = *state;
	char *text = NULL;
	size_t len = 0;
	FILE *out = open_memstream(&text, &len);

	assert_int_equal(replay_report_html(&fix->report, out), 0);
	fclose(out);
	assert_int_equal(strncmp(text, "<!DOCTYPE html>", 15), 0);
	for (size_t i = 0; i < ARRAY_SIZE(outside); i++) {
		assert_null(strstr(text, outside[i]));
	}
	assert_non_null(strstr(text, "prefers-color-scheme:dark"));
	assert_non_null(strstr(text, "a &lt;b&gt;&amp;&quot;c&quot;"));
	assert_null(strstr(text, "a <b>"));
	assert_non_null(strstr(text, "1,234"));
	assert_true(count_of(text, "<svg") == count_of(text, "</svg>"));
	assert_true(count_of(text, "<section>") == count_of(text, "</section>"));
	assert_int_equal(count_of(text, "<polyline"), 3);
	assert_null(strstr(text, "nan"));
	assert_null(strstr(text, "inf,"));
	free(text);
}

/* What other caches make of the trace is told for the requests that were replayed, and not at all when none was. */
static void
comparison_is_of_what_was_done(void **state)
{
	struct fixture *fix = *state;
	struct trace_sim_result infinite, lru;
	json_t *object;
	char *text = NULL;
	size_t len = 0;
	FILE *out;

	assert_int_equal(trace_sim_infinite(fix->trace, 0, 50, NULL, &infinite), 0);
	assert_int_equal(trace_sim_lru(fix->trace, 0, 50, 500, NULL, &lru), 0);
	assert_true(infinite.prefix_hits < fix->report.infinite_hits);
	fix->result.counts.requests = 50;
	replay_report_cut(&fix->report);
	object = replay_report_json(&fix->report);
	assert_true(number_at(object, "compare", "infinite", NULL) == (double)infinite.prefix_hits);
	assert_true(number_at(object, "compare", "lru", NULL) == (double)lru.prefix_hits);
	json_decref(object);
	fix->result.counts.requests = 0;
	replay_report_cut(&fix->report);
	object = replay_report_json(&fix->report);
	assert_null(json_object_get(object, "compare"));
	json_decref(object);
	out = open_memstream(&text, &len);
	replay_report_text(&fix->report, out);
	fclose(out);
	assert_null(strstr(text, "infinite"));
	assert_null(strstr(text, "LRU"));
	free(text);
}

/* Nothing replayed at all: no division by zero, a page all the same. */
static void
empty_is_fine(void **state)
{
	struct fixture *fix = *state;
	char *text = NULL;
	size_t len = 0;
	FILE *out = open_memstream(&text, &len);

	memset(&fix->result.counts, 0, sizeof(fix->result.counts));
	fix->result.elapsed_us = 0;
	fix->result.has_write_counts = false;
	histogram_reset(&fix->get);
	assert_int_equal(replay_report_html(&fix->report, out), 0);
	replay_report_text(&fix->report, out);
	fclose(out);
	assert_null(strstr(text, "nan"));
	free(text);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(json_has_what_scripts_read, setup, teardown),
		cmocka_unit_test_setup_teardown(what_is_not_known_is_null, setup, teardown),
		cmocka_unit_test_setup_teardown(text_tells_the_main_figures, setup, teardown),
		cmocka_unit_test_setup_teardown(page_is_whole_and_loads_nothing, setup, teardown),
		cmocka_unit_test_setup_teardown(comparison_is_of_what_was_done, setup, teardown),
		cmocka_unit_test_setup_teardown(empty_is_fine, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
