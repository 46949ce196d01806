/* The screenful of an operator: sums over shards, shares, reasons, rates; silent about what did not happen. */
#include "cli/stat_summary.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

#define SHARD(blocks, live, gets, dram, flash, absent, corrupt, failed)                                             \
	"{\"uuid\": \"0011223344\", \"device\": \"/dev/a\", \"error\": \"Input/output error\", \"failed\": " failed \
	", \"blocks\": " blocks ", \"bytes_live\": " live ", \"bytes_capacity\": 4194304, "                         \
	"\"payload_bytes\": 1048576, \"bytes_written_total\": 1153434, \"gets\": " gets                             \
	", \"get_hits_dram\": " dram ", \"get_hits_flash\": " flash                                                 \
	", \"get_misses\": {\"absent\": " absent ", \"evicted\": 0, \"corrupt\": " corrupt                          \
	"}, \"put_refused\": {\"busy\": 0}, \"check_mismatches\": " corrupt                                         \
	", \"dram\": {\"bytes_used\": 65536, \"bytes_max\": 131072}}"
#define NODE(shards)                                                                                                                \
	"{\"nodes\": [{\"node_uuid\": \"abcdef0123456789\", \"version\": \"9.9\", \"ready\": true, \"uptime_s\": 7300, "            \
	"\"addresses\": \"tcp=h:1\", \"threads\": 2, \"backend\": {\"disk\": \"io_uring\", \"net\": \"epoll\", \"note\": \"\"}, "   \
	"\"devices\": [{\"path\": \"/dev/a\", \"state\": \"open\", \"error\": \"\", \"size_bytes\": 8388608, \"direct\": false}], " \
	"\"shards\": [" shards                                                                                                      \
	"], \"spaces\": [{\"label\": \"llama\", \"blocks\": 30, \"bytes\": 2097152, \"gets\": 200, "                                \
	"\"hits\": 150, \"quota_bytes\": 0}], \"sessions\": {\"conns_now\": 1, \"bytes_in\": 1048576, \"bytes_out\": 0, "           \
	"\"requests_high\": 17}}]}"

static char *
print(const char *now_text, const char *before_text, double seconds)
{
	json_t *now = json_loads(now_text, 0, NULL);
	json_t *before = before_text == NULL ? NULL : json_loads(before_text, 0, NULL);
	char *text = NULL;
	size_t len = 0;
	FILE *out = open_memstream(&text, &len);

	assert_non_null(now);
	stat_summary_print(now, before, seconds, out);
	fclose(out);
	json_decref(now);
	json_decref(before);
	return text;
}

static void
shards_are_summed(void **state)
{
	char *text = print(NODE(SHARD("10", "1048576", "100", "50", "30", "20", "0",
				      "false") "," SHARD("20", "1048576", "100", "0", "100", "0",
							 "0", "false")),
			   NULL, 0);

	(void)state;
	assert_non_null(strstr(text, "node abcdef01"));
	assert_non_null(strstr(text, "ready, up 2 h 1 min, version 9.9"));
	assert_non_null(strstr(text, "/dev/a: open, 8.00 MiB, buffered"));
	assert_non_null(
	    strstr(text, "2.00 MiB of 8.00 MiB (25 %), 30 blocks; write amplification 1.10"));
	assert_non_null(strstr(text, "128 KiB of 256 KiB"));
	assert_non_null(strstr(text, "200: 25.0 % from DRAM, 65.0 % from flash, 10.0 % missed"));
	assert_non_null(strstr(text, "absent 20\n"));
	assert_non_null(strstr(text, "requests 17\n"));
	assert_non_null(strstr(text, "llama"));
	assert_non_null(strstr(text, " 75.0%"));
	assert_null(strstr(text, "evicted 0"));
	assert_null(strstr(text, "problems"));
	assert_null(strstr(text, "FAILED"));
	assert_null(strstr(text, "/s)"));
	free(text);
}

static void
problems_are_shown(void **state)
{
	char *text =
	    print(NODE(SHARD("10", "1048576", "100", "50", "30", "17", "3", "true")), NULL, 0);

	(void)state;
	assert_non_null(strstr(text, "absent 17, corrupt 3"));
	assert_non_null(strstr(text, "damaged on flash 3"));
	assert_non_null(strstr(text, "shard 00112233 on /dev/a: Input/output error"));
	free(text);
}

static void
growth_is_a_rate(void **state)
{
	char *text = print(NODE(SHARD("10", "1048576", "1500", "50", "30", "20", "0", "false")),
			   NODE(SHARD("10", "1048576", "500", "50", "30", "20", "0", "false")), 2);

	(void)state;
	assert_non_null(strstr(text, "1,500 (+500/s):"));
	free(text);
}

static void
silent_nodes_are_named(void **state)
{
	char *text = print("{\"nodes\": [{\"error\": \"the node is down\"}]}", NULL, 0);

	(void)state;
	assert_non_null(strstr(text, "the node is down"));
	free(text);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(shards_are_summed),
		cmocka_unit_test(problems_are_shown),
		cmocka_unit_test(growth_is_a_rate),
		cmocka_unit_test(silent_nodes_are_named),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
