/* Readers of traces: both formats, xz, and what they say of damaged lines. */
#include "cli/trace_read.h"

#include <errno.h>
#include <lzma.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include <cmocka.h>

static char g_path[64];
static char g_detail[TRACE_DETAIL_BYTES];

static const char *
file_of_bytes(const void *data, size_t len)
{
	int fd;

	snprintf(g_path, sizeof(g_path), "/tmp/test_trace_read_XXXXXX");
	fd = mkstemp(g_path);
	assert_true(fd >= 0);
	assert_int_equal(write(fd, data, len), len);
	close(fd);
	return g_path;
}

static struct trace *
read_text(const char *text, uint64_t requests_max)
{
	struct trace *trace;
	int rc = trace_read(file_of_bytes(text, strlen(text)), requests_max, &trace, g_detail);

	unlink(g_path);
	if (rc != 0) {
		fail_msg("%s", g_detail);
	}
	trace_check(trace);
	return trace;
}

static void
expect_refused(const char *text, const char *line, const char *what)
{
	struct trace *trace;
	int rc = trace_read(file_of_bytes(text, strlen(text)), 0, &trace, g_detail);

	unlink(g_path);
	assert_true(rc < 0);
	if (strstr(g_detail, line) == NULL || strstr(g_detail, what) == NULL ||
	    strstr(g_detail, g_path) != g_detail) {
		fail_msg("\"%s\" does not begin with %s and say \"%s\" and \"%s\"", g_detail,
			 g_path, line, what);
	}
}

#define KVT_HEAD "#name tiny\n#block_tokens 64\n#columns …\n"
#define KVT_ROWS "0\t-1\t0\t100\t5\t0\t2\n5\t3\t0\t200\t6\t1\t3\n"

static void
kvt_is_read(void **state)
{
	struct trace *trace = read_text(KVT_HEAD KVT_ROWS, 0);

	(void)state;
	assert_string_equal(trace->name, "tiny");
	assert_int_equal(trace->block_tokens, 64);
	assert_int_equal(trace->requests_count, 2);
	assert_int_equal(trace->requests[0].session, -1);
	assert_int_equal(trace->requests[1].t_ms, 5);
	assert_int_equal(trace->requests[1].session, 3);
	assert_int_equal(trace->requests[1].in_tokens, 200);
	assert_int_equal(trace->requests[1].out_tokens, 6);
	assert_int_equal(trace->requests[1].hit_node, 1);
	assert_int_equal(trace->requests[1].blocks_count, 4);
	assert_int_equal(trace->refs_count, 6);
	trace_destroy(trace);
}

/* No newline at the end, CRLF, an empty line, and a limit on the requests. */
static void
lines_may_end_in_any_way(void **state)
{
	struct trace *trace = read_text("0\t0\t0\t1\t1\t0\t1\r\n\n1\t0\t0\t1\t1\t1\t1", 0);

	(void)state;
	assert_int_equal(trace->requests_count, 2);
	trace_destroy(trace);
	trace = read_text(KVT_HEAD KVT_ROWS, 1);
	assert_int_equal(trace->requests_count, 1);
	trace_destroy(trace);
}

#define JSON_ARRAYS                                                                                        \
	"{\"timestamp\": 0, \"input_length\": 1500, \"output_length\": 9, \"hash_ids\": [0, 1, 2]}\n"      \
	"{\"timestamp\": 3.5, \"input_length\": 2000, \"output_length\": 9, \"hash_ids\": [0, 1, 7, 8]}\n" \
	"{\"timestamp\": 4, \"input_length\": 100, \"hash_ids\": [7]}\n"
#define JSON_RUNS                                                                                         \
	"{\"timestamp\": 0, \"input_length\": 1500, \"output_length\": 9, \"hash_ids\": \"0+2\"}\n"       \
	"{\"timestamp\": 3.5, \"input_length\": 2000, \"output_length\": 9, \"hash_ids\": \"0 1 7+1\"}\n" \
	"{\"timestamp\": 4, \"input_length\": 100, \"hash_ids\": \"7\"}\n"

/* Arrays and runs are the same trace; a block is its id and all before it, so 7 at the start is not 7 behind 0 1. */
static void
mooncake_is_read(void **state)
{
	struct trace *arrays = read_text(JSON_ARRAYS, 0);
	struct trace *runs = read_text(JSON_RUNS, 0);

	(void)state;
	assert_int_equal(arrays->block_tokens, 512);
	assert_int_equal(arrays->requests_count, 3);
	assert_int_equal(trace_unique_count(arrays), 6);
	assert_int_equal(arrays->requests[1].hit_node, 2);
	assert_int_equal(arrays->requests[1].new_count, 2);
	assert_int_equal(arrays->requests[1].t_ms, 3);
	assert_int_equal(arrays->requests[2].hit_node, 0);
	assert_int_equal(runs->requests_count, 3);
	assert_memory_equal(runs->requests, arrays->requests, 3 * sizeof(arrays->requests[0]));
	assert_memory_equal(runs->parent, arrays->parent,
			    arrays->nodes_count * sizeof(arrays->parent[0]));
	trace_destroy(arrays);
	trace_destroy(runs);
}

/* A long chain makes the table of known blocks grow; going down it again must find every one. */
static void
mooncake_finds_long_chains_again(void **state)
{
	char *text = NULL;
	size_t len = 0;
	FILE *out = open_memstream(&text, &len);
	struct trace *trace;

	(void)state;
	for (int i = 0; i < 50; i++) {
		fprintf(out, "{\"timestamp\":%d,\"input_length\":1,\"hash_ids\":\"5+%d %d+99\"}\n",
			i, i * 300, 1000000 + i * 1000);
	}
	fclose(out);
	trace = read_text(text, 0);
	for (int i = 1; i < 50; i++) {
		assert_int_equal(trace->depth[trace->requests[i].hit_node], (i - 1) * 300 + 1);
		assert_int_equal(trace->requests[i].blocks_count, i * 300 + 1 + 100);
	}
	trace_destroy(trace);
	free(text);
}

static void
xz_is_read(void **state)
{
	char *text = NULL;
	size_t len = 0, packed_len = 0;
	FILE *out = open_memstream(&text, &len);
	uint8_t *packed;
	struct trace *trace;

	(void)state;
	fputs(KVT_HEAD, out);
	for (int i = 0; i < 30000; i++) { /* More than one buffer of text. */
		fprintf(out, "%d\t-1\t0\t%d\t5\t0\t2\n", i, i);
	}
	fclose(out);
	packed = malloc(len + 1024);
	assert_int_equal(lzma_easy_buffer_encode(6, LZMA_CHECK_CRC64, NULL, (uint8_t *)text, len,
						 packed, &packed_len, len + 1024),
			 LZMA_OK);
	assert_int_equal(trace_read(file_of_bytes(packed, packed_len), 0, &trace, g_detail), 0);
	unlink(g_path);
	assert_int_equal(trace->requests_count, 30000);
	assert_int_equal(trace->requests[29999].in_tokens, 29999);
	trace_destroy(trace);

	assert_int_equal(trace_read(file_of_bytes(packed, packed_len - 40), 0, &trace, g_detail),
			 -EBADMSG);
	unlink(g_path);
	assert_non_null(strstr(g_detail, "xz"));
	packed[packed_len / 2] ^= 0x40;
	assert_int_equal(trace_read(file_of_bytes(packed, packed_len), 0, &trace, g_detail),
			 -EBADMSG);
	unlink(g_path);
	free(packed);
	free(text);
}

static void
damaged_lines_are_named(void **state)
{
	(void)state;
	expect_refused(KVT_HEAD "0\t0\t0\t1\t1\t0\n", ":4:", "ends early");
	expect_refused(KVT_HEAD "0\t0\t0\t1\t1\t0\t1\t9\n", ":4:", "something follows");
	expect_refused(KVT_HEAD KVT_ROWS "0\tx\t0\t1\t1\t0\t1\n",
		       ":6:", "column 2 (session) is \"x\"");
	expect_refused(KVT_HEAD KVT_ROWS "0\t0\t0\t-5\t1\t0\t1\n", ":6:", "in_tokens");
	expect_refused(KVT_HEAD KVT_ROWS "0\t0\t0\t1\t1\t99\t1\n", ":6:", "nodes up to 5");
	expect_refused(KVT_HEAD KVT_ROWS "0\t0\t1\t1\t1\t3\t1\n", ":6:", "belongs to model 0");
	expect_refused("#block_tokens none\n" KVT_ROWS, ":1:", "block_tokens");
	expect_refused("0\t0\t0\t1\t1\t0\t4294967295\n", ":1:", "too large");
	expect_refused(JSON_RUNS "{\"timestamp\": 1\n", ":4:", "not a JSON object");
	expect_refused(JSON_RUNS "[1]\n", ":4:", "not a JSON object");
	expect_refused("{\"timestamp\":1,\"input_length\":1}", ":1:", "hash_ids is missing");
	expect_refused("{\"input_length\":1,\"hash_ids\":[]}", ":1:", "timestamp is missing");
	expect_refused("{\"timestamp\":1,\"input_length\":\"a\",\"hash_ids\":[]}",
		       ":1:", "input_length");
	expect_refused("{\"timestamp\":1,\"input_length\":1,\"hash_ids\":[1,\"a\"]}",
		       ":1:", "hash_ids[1]");
	expect_refused("{\"timestamp\":1,\"input_length\":1,\"hash_ids\":\"1+a\"}",
		       ":1:", "\"1+a\"");
	expect_refused("{\"timestamp\":1,\"input_length\":1,\"hash_ids\":\"1+99999999\"}",
		       ":1:", "runs like");
	expect_refused("hello\n", ":1:", "neither");
	expect_refused("", "", "no request");
	expect_refused(KVT_HEAD, "", "no request");
}

static void
missing_file_is_named(void **state)
{
	struct trace *trace;

	(void)state;
	assert_int_equal(trace_read("/nowhere/a.kvt", 0, &trace, g_detail), -ENOENT);
	assert_non_null(strstr(g_detail, "/nowhere/a.kvt"));
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(kvt_is_read),
		cmocka_unit_test(lines_may_end_in_any_way),
		cmocka_unit_test(mooncake_is_read),
		cmocka_unit_test(mooncake_finds_long_chains_again),
		cmocka_unit_test(xz_is_read),
		cmocka_unit_test(damaged_lines_are_named),
		cmocka_unit_test(missing_file_is_named),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
