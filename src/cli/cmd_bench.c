/* cmd_bench.c — headrace bench: how fast a store is. */
#include <jansson.h>
#include <stdlib.h>

#include "base/size.h"
#include "cli/bench.h"
#include "cli/block_values.h"
#include "cli/commands.h"
#include "cli/progress.h"

struct bench_values {
	struct store_values store;
	int op, tier, ack;
	uint64_t size, depth, batch, threads, working_set, deadline_us, seed;
	double seconds;
	bool json, no_verify, quiet;
};

static const enum hr_op ops[] = { HR_OP_GET, HR_OP_PUT, HR_OP_EXISTS };
static const char *const op_names[] = { "get", "put", "exists" };
static const char *const tier_names[] = { "any", "dram", "flash" };

static json_t *
result_json(const struct bench_values *values, const struct bench_result *result)
{
	double seconds = HR_MAX((double)result->elapsed_us / 1e6, 1e-9);
	json_t *reasons = json_object();
	json_t *object;

	for (int i = 1; i < HR_REASON_COUNT; i++) {
		if (result->reasons[i] != 0) {
			json_object_set_new(reasons, hr_reason_name(i),
					    json_integer((json_int_t)result->reasons[i]));
		}
	}
	object = json_pack("{s:s,s:I,s:I,s:I,s:I,s:s,s:s,s:b,s:I,s:f,s:f,s:f}", "op",
			   op_names[values->op], "size", (json_int_t)values->size, "depth",
			   (json_int_t)values->depth, "batch", (json_int_t)values->batch, "threads",
			   (json_int_t)values->threads, "tier", tier_names[values->tier], "ack",
			   cli_ack_name(values->ack), "verified",
			   values->op == 0 && !values->no_verify, "ops", (json_int_t)result->ops,
			   "seconds", seconds, "bytes_per_second",
			   values->op == 2 ? 0.0 : (double)result->bytes / seconds,
			   "ops_per_second", (double)result->ops / seconds);
	json_object_set_new(
	    object, "latency_us",
	    json_pack("{s:I,s:I,s:I,s:I,s:I}", "p50",
		      (json_int_t)histogram_percentile(&result->latency_us, 50), "p90",
		      (json_int_t)histogram_percentile(&result->latency_us, 90), "p99",
		      (json_int_t)histogram_percentile(&result->latency_us, 99), "p999",
		      (json_int_t)histogram_percentile(&result->latency_us, 99.9), "max",
		      (json_int_t)metric_get(&result->latency_us.max)));
	json_object_update_new(
	    object,
	    json_pack("{s:I,s:o,s:I,s:I,s:I,s:I,s:I}", "errors", (json_int_t)result->errors,
		      "error_reasons", reasons, "busy_retries", (json_int_t)result->busy_retries,
		      "wrong_bytes", (json_int_t)result->wrong_bytes, "from_dram",
		      (json_int_t)result->from_dram, "from_flash", (json_int_t)result->from_flash,
		      "working_set_bytes",
		      (json_int_t)(values->op == 1 ? 0 : result->working_set_bytes)));
	return object;
}

static void
print_text(const struct bench_values *values, const struct bench_result *result)
{
	double seconds = HR_MAX((double)result->elapsed_us / 1e6, 1e-9);
	char a[SIZE_TEXT_BYTES], b[SIZE_TEXT_BYTES];

	printf("%s of %s, %llu batches of %llu at a time, %llu thread%s, ack %s%s\n",
	       op_names[values->op], size_format(values->size, a), (unsigned long long)values->depth,
	       (unsigned long long)values->batch, (unsigned long long)values->threads,
	       values->threads == 1 ? "" : "s", cli_ack_name(values->ack),
	       values->op == 0 && !values->no_verify ? ", every byte compared" : "");
	printf("  %.0f operations a second", (double)result->ops / seconds);
	if (values->op != 2) {
		printf(", %s/s", size_format_short((uint64_t)((double)result->bytes / seconds), b));
	}
	printf("; %llu in %.2f s\n", (unsigned long long)result->ops, seconds);
	printf("  latency of a batch, us: p50 %llu, p90 %llu, p99 %llu, p99.9 %llu, max %llu\n",
	       (unsigned long long)histogram_percentile(&result->latency_us, 50),
	       (unsigned long long)histogram_percentile(&result->latency_us, 90),
	       (unsigned long long)histogram_percentile(&result->latency_us, 99),
	       (unsigned long long)histogram_percentile(&result->latency_us, 99.9),
	       (unsigned long long)metric_get(&result->latency_us.max));
	if (values->op == 0) {
		printf("  from DRAM %llu, from flash %llu, out of a working set of %s\n",
		       (unsigned long long)result->from_dram, (unsigned long long)result->from_flash,
		       size_format_short(result->working_set_bytes, a));
	}
	printf("  errors %llu, sent again because the store was busy %llu\n",
	       (unsigned long long)result->errors, (unsigned long long)result->busy_retries);
}

/* A figure for a tier that the reads did not come from would be a lie told by omission. */
static void
warn_of_tier(const struct bench_values *values, const struct bench_result *result)
{
	uint64_t right = values->tier == BENCH_DRAM ? result->from_dram : result->from_flash;

	if (values->op == 0 && values->tier != BENCH_ANY && right * 10 < result->ops * 9) {
		(void)cli_fail(
		    CLI_OK,
		    "bench: only %llu of %llu reads came from %s; change --working-set, or the store's --dram",
		    (unsigned long long)right, (unsigned long long)result->ops,
		    tier_names[values->tier]);
	}
}

/* A run of nothing but errors measured nothing. */
static int
tell_errors(const struct bench_result *result)
{
	int most = HR_REASON_NONE;

	for (int i = 1; i < HR_REASON_COUNT; i++) {
		most = result->reasons[i] > result->reasons[most] ? i : most;
	}
	if (result->errors == 0) {
		return CLI_OK;
	}
	return cli_fail(result->ops == 0 ? cli_exit_of_reason(most) : CLI_OK,
			"bench: %llu of %llu operations failed, most of them as %s",
			(unsigned long long)result->errors,
			(unsigned long long)(result->errors + result->ops), hr_reason_name(most));
}

static int
show(const struct bench_values *values, const struct bench_result *result)
{
	if (values->json) {
		json_t *object = result_json(values, result);

		json_dumpf(object, stdout, JSON_INDENT(2));
		putchar('\n');
		json_decref(object);
	} else {
		print_text(values, result);
	}
	warn_of_tier(values, result);
	if (result->wrong_bytes != 0) {
		return cli_fail(CLI_DAMAGED, "bench: %llu wrong bytes",
				(unsigned long long)result->wrong_bytes);
	}
	return tell_errors(result);
}

static void
show_progress(void *arg, const char *what, uint64_t done, uint64_t total)
{
	struct progress *progress = arg;

	if (strcmp(progress->what, what) != 0) {
		progress_end(progress);
		progress_start(progress, what, false);
	}
	progress_show(progress, done, total, NULL);
}

static int
run(const void *values_arg, int argc, char **argv)
{
	const struct bench_values *values = values_arg;
	struct progress progress;
	const struct bench_options options = {
		.url = values->store.url,
		.token_file = values->store.token_file,
		.op = ops[values->op],
		.value_bytes = values->size,
		.depth = (uint32_t)values->depth,
		.batch = (uint32_t)values->batch,
		.threads = (uint32_t)values->threads,
		.us = (uint64_t)(values->seconds * 1e6),
		.working_set_bytes = values->working_set,
		.tier = (enum bench_tier)values->tier,
		.ack = (uint8_t)values->ack,
		.verify = !values->no_verify,
		.deadline_us = values->deadline_us,
		.ready_ms = (uint32_t)(values->store.timeout_us / 1000),
		.seed = values->seed,
		.progress_cb = values->quiet ? NULL : show_progress,
		.cb_arg = &progress,
	};
	char detail[BENCH_DETAIL_BYTES];
	struct bench_result *result;
	int rc;

	(void)argc;
	(void)argv;
	if (options.url == NULL || options.url[0] == '\0') {
		return cli_fail(CLI_USAGE,
				"bench: no store is named: give --url URL or set HEADRACE_URL");
	}
	if (!(values->seconds > 0 && values->seconds <= 86400)) {
		return cli_fail(CLI_USAGE, "bench: --seconds: above 0 and at most 86400 is wanted");
	}
	result = calloc(1, sizeof(*result));
	if (result == NULL) {
		return cli_fail(CLI_UNREACHED, "out of memory");
	}
	progress_start(&progress, "", values->quiet);
	rc = bench_run(&options, result, detail);
	progress_end(&progress);
	rc = rc != 0 ? cli_fail(cli_exit_of_error(rc), "bench: %s", detail) : show(values, result);
	free(result);
	return rc;
}

static const struct option options[] = {
	STORE_URL_OPTIONS(bench_values, store),
	OPTION(bench_values, op, "op", OPTION_CHOICE, "get", "the operation",
	       .choices = "get|put|exists"),
	OPTION(bench_values, size, "size", OPTION_SIZE, "1MiB", "bytes of a value", .min = 1,
	       .max = 134217728),
	OPTION(bench_values, depth, "depth", OPTION_UINT, "16",
	       "batches under way at a time, in each thread", .min = 1, .max = 256),
	OPTION(bench_values, seconds, "seconds", OPTION_DOUBLE, "5", "how long to measure"),
	OPTION(bench_values, batch, "batch", OPTION_UINT, "1", "items of a batch", .min = 1,
	       .max = 16384),
	OPTION(
	    bench_values, tier, "tier", OPTION_CHOICE, "any",
	    "where a GET should find its value: chooses the working set, warms DRAM up, and says so when the reads came from elsewhere",
	    .choices = "any|dram|flash"),
	OPTION(bench_values, threads, "threads", OPTION_UINT, "1",
	       "threads, each with a connection of its own", .min = 1, .max = 256),
	OPTION(
	    bench_values, working_set, "working-set", OPTION_SIZE, NULL,
	    "bytes of values stored first and then read at random (default: 64MiB, at most half of DRAM for dram, at least four times DRAM for flash, at most half of the store)",
	    .min = 1),
	OPTION(
	    bench_values, ack, "ack", OPTION_CHOICE, "ram",
	    "when a PUT is done: ram (visible, may be lost) or stable (survives kill -9 and power loss)",
	    .choices = ACK_CHOICES),
	OPTION(bench_values, no_verify, "no-verify", OPTION_BOOL, NULL,
	       "do not compare what GETs bring (the library still verifies its checksums)"),
	OPTION(bench_values, deadline_us, "deadline", OPTION_DURATION, "30s", "of each batch",
	       .min = 1000, .max = 4200000000),
	OPTION(bench_values, seed, "seed", OPTION_UINT, NULL,
	       "of the keys (default: new keys each time)"),
	OPTION(bench_values, json, "json", OPTION_BOOL, NULL, "print one JSON object"),
	OPTION(bench_values, quiet, "quiet", OPTION_BOOL, NULL, "no progress bar"),
};
static const struct cli_example examples[] = {
	{ "headrace bench --url tcp:127.0.0.1:7450 --op get --size 1MiB --depth 16 --seconds 5 --tier dram",
	  "reads from the DRAM tier" },
	{ "headrace bench --op put --size 64KiB --ack stable --threads 4 --json",
	  "durable writes, for scripts" },
};
const struct cli_command cmd_bench = {
	.name = "bench",
	.usage = "",
	.summary = "measures how fast a store is, with latency percentiles",
	.text =
	    "GET and EXISTS first store what they need; PUT stores new keys only. Every GET is compared byte by byte. Values are made fast enough (more than 10 GB/s) not to hide the store's speed. Latency is that of a batch, from submission to completion.",
	.options = options,
	.options_count = ARRAY_SIZE(options),
	.values_bytes = sizeof(struct bench_values),
	.examples = examples,
	.examples_count = ARRAY_SIZE(examples),
	.exits = "When no operation succeeds, the code of the most frequent reason.",
	.run = run,
};
