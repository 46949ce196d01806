/* cmd_replay.c — headrace replay: a trace of LLM requests through the real path. */
#include <errno.h>
#include <jansson.h>
#include <signal.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/size.h"
#include "cli/block_values.h"
#include "cli/commands.h"
#include "cli/progress.h"
#include "cli/replay_report.h"
#include "cli/trace_gen.h"
#include "cli/trace_read.h"
#include "cli/trace_sim.h"

enum { EXIT_INTERRUPTED = 130 };

struct replay_values {
	struct store_values store;
	char *model, *gpu, *generate, *report, *acked, *verify, *write_trace;
	int ack;
	uint64_t block_bytes, block_tokens, clients, requests, skip, seed, window_bytes,
	    capacity_bytes;
	uint64_t lease_us, deadline_us, down_wait_us;
	double pace, tflops, mfu;
	bool json, quiet, simulate_only;
};

static atomic_bool g_stop;

static void
on_signal(int number)
{
	(void)number;
	atomic_store(&g_stop, true);
}

/* The first Ctrl-C ends the replay between two requests and the report tells what was done; the second one kills. */
static void
catch_signals(void)
{
	struct sigaction action = { .sa_handler = on_signal, .sa_flags = (int)SA_RESETHAND };

	sigemptyset(&action.sa_mask);
	sigaction(SIGINT, &action, NULL);
	sigaction(SIGTERM, &action, NULL);
}

static int
load_trace(const struct replay_values *values, int argc, char **argv, struct trace **ret_trace,
	   char *source, size_t source_bytes)
{
	uint64_t wanted = values->requests == 0 ? 0 : values->skip + values->requests;
	char detail[TRACE_DETAIL_BYTES];
	enum trace_gen_kind kind;
	int rc;

	if (values->generate == NULL) {
		if (argc == 0) {
			return cli_fail(
			    CLI_USAGE,
			    "replay: which trace? give a file, or --generate chat (headrace replay --help)");
		}
		snprintf(source, source_bytes, "%s", argv[0]);
		rc = trace_read(argv[0], wanted, ret_trace, detail);
		return rc == 0 ? CLI_OK
			       : cli_fail(rc == -EINVAL || rc == -ENODATA || rc == -E2BIG ||
						  rc == -EBADMSG
					      ? CLI_USAGE
					      : CLI_UNREACHED,
					  "%s", detail);
	}
	if (argc > 0) {
		return cli_fail(CLI_USAGE, "replay: either a trace or --generate, not both");
	}
	if (trace_gen_kind_parse(values->generate, &kind) != 0) {
		return cli_fail(CLI_USAGE, "replay: --generate \"%s\": chat or agent is wanted",
				values->generate);
	}
	snprintf(source, source_bytes, "generated %s workload, seed %llu", values->generate,
		 (unsigned long long)values->seed);
	rc = trace_generate(kind, values->seed,
			    wanted != 0 ? (size_t)wanted : trace_gen_requests_default(kind),
			    ret_trace);
	return rc == 0 ? CLI_OK : cli_fail(CLI_UNREACHED, "replay: %s", hr_strerror(rc));
}

static int
set_cost(const struct replay_values *values, struct cost_model *cost)
{
	const struct gpu *gpu = gpu_find(values->gpu);
	const char *nearest;

	cost->model = model_find(values->model);
	if (cost->model == NULL) {
		nearest = model_nearest(values->model);
		return cli_fail(CLI_USAGE,
				"--model: '%s' is not known%s%s%s (headrace plan --models lists them)",
				values->model, nearest != NULL ? "; did you mean '" : "",
				nearest != NULL ? nearest : "", nearest != NULL ? "'?" : "");
	}
	if (gpu == NULL && values->tflops == 0) {
		return cli_fail(
		    CLI_USAGE,
		    "--gpu: '%s' is not known (a100, h100, h200, b200, mi300x); with --tflops any name goes",
		    values->gpu);
	}
	cost->tflops = values->tflops != 0 ? values->tflops : gpu->tflops;
	cost->mfu = values->mfu;
	if (!(cost->tflops > 0) || !(cost->mfu > 0 && cost->mfu <= 1)) {
		return cli_fail(CLI_USAGE,
				"--tflops above 0 and --mfu above 0 and at most 1 are wanted");
	}
	return CLI_OK;
}

static int
set_options(const struct replay_values *values, const struct trace *trace,
	    struct replay_options *options)
{
	if (values->skip >= trace->requests_count) {
		return cli_fail(CLI_USAGE, "--skip %llu: the trace has %zu requests",
				(unsigned long long)values->skip, trace->requests_count);
	}
	if (!(values->pace >= 0)) {
		return cli_fail(CLI_USAGE, "--pace: a number above 0, or 0, is wanted");
	}
	options->trace = trace;
	options->first = (size_t)values->skip;
	options->count = trace->requests_count - (size_t)values->skip;
	options->block_bytes = values->block_bytes != 0
				   ? values->block_bytes
				   : options->cost.model->bytes_per_token * trace->block_tokens;
	if (options->block_bytes > HR_BLOCK_BYTES_MAX) {
		return cli_fail(
		    CLI_USAGE,
		    "blocks of %u tokens x %llu bytes are larger than 128 MiB; give --block-bytes",
		    trace->block_tokens, (unsigned long long)options->cost.model->bytes_per_token);
	}
	options->clients_count = (unsigned)values->clients;
	options->ack = (uint8_t)values->ack;
	options->pace = values->pace;
	options->lease_ms = (uint32_t)HR_MIN(values->lease_us / 1000, (uint64_t)HR_LEASE_MS_MAX);
	options->deadline_us = values->deadline_us;
	options->window_bytes = values->window_bytes;
	options->down_wait_ms = (uint32_t)(values->down_wait_us / 1000);
	options->ready_ms = (uint32_t)(values->store.timeout_us / 1000);
	options->url = values->store.url;
	options->token_file = values->store.token_file;
	options->space = values->store.space;
	options->stop = &g_stop;
	return CLI_OK;
}

static void
show_progress(void *arg, uint64_t done, uint64_t total, uint64_t hits, uint64_t blocks)
{
	char note[64];

	snprintf(note, sizeof(note), "hits %.1f %%",
		 blocks == 0 ? 0.0 : 100.0 * (double)hits / (double)blocks);
	progress_show(arg, done, total, note);
}

/* Found out before the hours that a replay may take. Leaves what is there as it is. */
static int
check_writable(const char *path)
{
	bool is_new = access(path, F_OK) != 0;
	FILE *out = fopen(path, "a");

	if (out == NULL) {
		return cli_fail(CLI_UNREACHED, "--report %s: %s", path, strerror(errno));
	}
	fclose(out);
	if (is_new) {
		unlink(path);
	}
	return CLI_OK;
}

static int
write_html(const struct replay_report *report, const char *path)
{
	FILE *out = fopen(path, "w");
	int rc = out == NULL ? -errno : replay_report_html(report, out);

	if (out != NULL && fclose(out) != 0 && rc == 0) {
		rc = -errno;
	}
	return rc != 0 ? cli_fail(CLI_UNREACHED, "--report %s: %s", path, strerror(-rc)) : CLI_OK;
}

static int
say(const struct replay_values *values, const struct replay_report *report)
{
	if (values->json) {
		json_t *object = replay_report_json(report);

		json_dumpf(object, stdout, JSON_INDENT(2));
		putchar('\n');
		json_decref(object);
	} else {
		replay_report_text(report, stdout);
	}
	return values->report != NULL ? write_html(report, values->report) : CLI_OK;
}

static int
run_replay(const struct replay_values *values, struct replay_options *options,
	   struct replay_report *report)
{
	char detail[REPLAY_DETAIL_BYTES];
	struct replay_result result = { 0 };
	struct progress progress;
	int rc, code;

	progress_start(&progress, options->trace->name, values->quiet);
	options->progress_cb = show_progress;
	options->cb_arg = &progress;
	catch_signals();
	rc = values->verify != NULL ? replay_verify(options, values->verify, &result, detail)
				    : replay_run(options, &result, detail);
	progress_end(&progress);
	report->result = &result;
	replay_report_cut(report);
	report->interrupted = rc == 0 && atomic_load(&g_stop);
	if (rc != 0) {
		code = cli_fail(cli_exit_of_error(rc), "replay: %s", detail);
		if (result.counts.requests > 0) {
			(void)say(values, report);
		}
	} else {
		code = say(values, report);
	}
	if (code == CLI_OK && result.counts.wrong_bytes != 0) {
		code = cli_fail(CLI_DAMAGED, "replay: %llu wrong bytes in %llu blocks",
				(unsigned long long)result.counts.wrong_bytes,
				(unsigned long long)result.counts.wrong_blocks);
	}
	if (code == CLI_OK && values->verify != NULL &&
	    result.counts.prefix_hits != result.counts.blocks) {
		code =
		    cli_fail(CLI_ABSENT, "replay: %llu of %llu blocks are not there",
			     (unsigned long long)(result.counts.blocks - result.counts.prefix_hits),
			     (unsigned long long)result.counts.blocks);
	}
	if (code == CLI_OK && report->interrupted) {
		code = EXIT_INTERRUPTED;
	}
	replay_result_fini(&result);
	return code;
}

/* Without a store: what the trace is, and what caches would make of it. */
static int
simulate(const struct replay_report *report)
{
	const struct replay_options *options = report->options;
	uint64_t unique = 0, refs = 0;
	json_t *object;

	if (trace_sim_unique(options->trace, options->first, options->count, &unique) != 0) {
		return cli_fail(CLI_UNREACHED, "out of memory");
	}
	for (size_t i = 0; i < options->count; i++) {
		refs += options->trace->requests[options->first + i].blocks_count;
	}
	object = json_pack("{s:s,s:s,s:I,s:I,s:I,s:I,s:I}", "trace", options->trace->name, "source",
			   report->source, "requests", (json_int_t)options->count, "blocks",
			   (json_int_t)refs, "unique_blocks", (json_int_t)unique, "block_tokens",
			   (json_int_t)options->trace->block_tokens, "infinite",
			   (json_int_t)report->infinite_hits);
	if (report->lru_blocks != 0) {
		json_object_set_new(object, "lru", json_integer((json_int_t)report->lru_hits));
		json_object_set_new(object, "lru_blocks",
				    json_integer((json_int_t)report->lru_blocks));
	}
	json_dumpf(object, stdout, JSON_INDENT(2));
	putchar('\n');
	json_decref(object);
	return CLI_OK;
}

static int
run_on_trace(const struct replay_values *values, struct trace *trace, const char *source)
{
	struct replay_options options = { 0 };
	struct replay_report report = { .options = &options,
					.gpu_name = values->gpu,
					.source = source };
	int rc = set_cost(values, &options.cost);

	rc = rc != CLI_OK ? rc : set_options(values, trace, &options);
	if (rc != CLI_OK) {
		return rc;
	}
	if (replay_report_simulate(&report, values->capacity_bytes) != 0) {
		rc = cli_fail(CLI_UNREACHED, "out of memory");
		goto out;
	}
	if (values->simulate_only) {
		rc = simulate(&report);
		goto out;
	}
	rc = values->report != NULL ? check_writable(values->report) : CLI_OK;
	if (rc != CLI_OK) {
		goto out;
	}
	if (values->acked != NULL && (options.acked = fopen(values->acked, "a")) == NULL) {
		rc = cli_fail(CLI_UNREACHED, "--acked %s: %s", values->acked, strerror(errno));
		goto out;
	}
	rc = run_replay(values, &options, &report);
	if (options.acked != NULL && fclose(options.acked) != 0 && rc == CLI_OK) {
		rc = cli_fail(CLI_UNREACHED, "--acked %s: %s", values->acked, strerror(errno));
	}
out:
	replay_report_fini(&report);
	return rc;
}

static int
run(const void *values_arg, int argc, char **argv)
{
	const struct replay_values *values = values_arg;
	bool needs_store = !values->simulate_only && values->write_trace == NULL;
	char source[256], detail[TRACE_DETAIL_BYTES];
	struct trace *trace;
	int rc;

	if (needs_store && (values->store.url == NULL || values->store.url[0] == '\0')) {
		return cli_fail(CLI_USAGE,
				"replay: no store is named: give --url URL or set HEADRACE_URL");
	}
	rc = load_trace(values, argc, argv, &trace, source, sizeof(source));
	if (rc != CLI_OK) {
		return rc;
	}
	if (values->block_tokens != 0) {
		trace->block_tokens = (uint32_t)values->block_tokens;
	}
	if (values->write_trace == NULL) {
		rc = run_on_trace(values, trace, source);
	} else if (trace_write(trace, values->write_trace, detail) != 0) {
		rc = cli_fail(CLI_UNREACHED, "%s", detail);
	}
	trace_destroy(trace);
	return rc;
}

static const struct option options[] = {
	STORE_URL_OPTIONS(replay_values, store),
	OPTION(
	    replay_values, store.space, "space", OPTION_STRING, NULL,
	    "keep all blocks in this space (default: one made of trace, model and block size for each model of the trace)",
	    .value_name = "NAME"),
	OPTION(
	    replay_values, model, "model", OPTION_STRING, "llama-3.1-8b",
	    "model, for bytes per token and the cost of computing; `headrace plan --models` lists them",
	    .value_name = "NAME"),
	OPTION(replay_values, block_bytes, "block-bytes", OPTION_SIZE, NULL,
	       "bytes of a block (default: bytes per token x tokens per block); scales a replay down",
	       .min = 1, .max = 134217728),
	OPTION(replay_values, block_tokens, "block-tokens", OPTION_UINT, NULL,
	       "tokens of a block (default: as the trace says; 512 for Mooncake's JSON lines)",
	       .min = 1, .max = 1048576),
	OPTION(
	    replay_values, ack, "ack", OPTION_CHOICE, "ram",
	    "when a PUT is done: ram (visible, may be lost) or stable (survives kill -9 and power loss)",
	    .choices = ACK_CHOICES),
	OPTION(
	    replay_values, clients, "clients", OPTION_UINT, "1",
	    "clients, each with a connection of its own; with one, requests run one after the other and hits are exact",
	    .min = 1, .max = 1024),
	OPTION(
	    replay_values, requests, "requests", OPTION_UINT, NULL,
	    "replay so many requests (default: all of a file; as many as the published trace has when generated)",
	    .min = 1),
	OPTION(replay_values, skip, "skip", OPTION_UINT, "0", "leave out the first N requests"),
	OPTION(
	    replay_values, pace, "pace", OPTION_DOUBLE, "0",
	    "factor on the trace's own pace: 1 is real time, 10 ten times as fast, 0 as fast as possible",
	    .value_name = "FACTOR"),
	OPTION(replay_values, window_bytes, "window", OPTION_SIZE, "64MiB",
	       "buffers for values under way, all clients together", .min = 4096),
	OPTION(replay_values, lease_us, "lease", OPTION_DURATION, "10s",
	       "lease on the blocks found by EXISTS; 0 = none", .max = 10000000),
	OPTION(replay_values, deadline_us, "deadline", OPTION_DURATION, "30s",
	       "of each batch; past it what is not done is a miss", .min = 1000, .max = 4200000000),
	OPTION(replay_values, down_wait_us, "down-wait", OPTION_DURATION, "30s",
	       "how long to wait for a store that went away before the replay ends",
	       .max = 3600000000),
	OPTION(replay_values, json, "json", OPTION_BOOL, NULL, "print one JSON object"),
	OPTION(replay_values, report, "report", OPTION_STRING, NULL,
	       "also write the report as one self-contained HTML page", .value_name = "FILE.html"),
	OPTION(
	    replay_values, capacity_bytes, "compare-size", OPTION_SIZE, NULL,
	    "also simulate LRU in a cache of this size, to compare with (an infinite cache always is)",
	    .min = 1),
	OPTION(replay_values, gpu, "gpu", OPTION_STRING, "h100",
	       "cost model: the GPU that would compute (a100, h100, h200, b200, mi300x)",
	       .value_name = "NAME"),
	OPTION(replay_values, tflops, "tflops", OPTION_DOUBLE, NULL,
	       "cost model: its dense 16-bit TFLOPS (default: as the maker says)"),
	OPTION(replay_values, mfu, "mfu", OPTION_DOUBLE, "0.5",
	       "cost model: the share of them that prefill reaches"),
	OPTION(
	    replay_values, generate, "generate", OPTION_STRING, NULL,
	    "replay a generated workload instead of a file: chat (like Mooncake's conversation trace) or agent (like tau2)",
	    .value_name = "KIND"),
	OPTION(replay_values, seed, "seed", OPTION_UINT, "1", "seed of a generated workload"),
	OPTION(replay_values, write_trace, "write-trace", OPTION_STRING, NULL,
	       "write the trace as .kvt and replay nothing", .value_name = "FILE"),
	OPTION(
	    replay_values, simulate_only, "simulate", OPTION_BOOL, NULL,
	    "replay nothing; print what the trace is and what an infinite cache and (--compare-size) LRU make of it, as JSON"),
	OPTION(replay_values, acked, "acked", OPTION_STRING, NULL,
	       "append the number of each block whose PUT was acknowledged, one a line",
	       .value_name = "FILE"),
	OPTION(replay_values, verify, "verify", OPTION_STRING, NULL,
	       "replay nothing; GET the blocks that an --acked file lists and check their bytes",
	       .value_name = "FILE"),
	OPTION(replay_values, quiet, "quiet", OPTION_BOOL, NULL, "no progress bar"),
};
static const struct cli_example examples[] = {
	{ "headrace replay conversation.kvt.xz --url tcp:127.0.0.1:7450 --block-bytes 64KiB --json",
	  "a whole trace, every byte checked" },
	{ "headrace replay --generate agent --url unix:/run/headrace.sock --block-bytes 16KiB --clients 4 --report r.html",
	  "a generated workload, four clients, and a page to look at" },
	{ "headrace replay trace.jsonl --url tcp:node:7450 --model llama-3.1-70b --pace 1",
	  "Mooncake's JSON lines in real time with the model's true block size" },
};
const struct cli_command cmd_replay = {
	.name = "replay",
	.usage = "TRACE",
	.summary = "replays a trace of LLM requests against a store and checks every byte",
	.text =
	    "TRACE is a .kvt trace or Mooncake's JSON lines, plain or .xz; \"-\" is standard input. Per request: EXISTS of the chain with a lease, GET of the usable prefix, PUT of the rest, tail before head, then release of the leases. A PUT that is refused as busy is sent again until it is accepted, and counted. Contents are made from the blocks' keys, and every byte of every GET is compared. Usable-prefix hits of a request are the leading run of its blocks whose GET was OK with the right bytes. Latencies are those of a batch, from submission to completion.",
	.options = options,
	.options_count = ARRAY_SIZE(options),
	.values_bytes = sizeof(struct replay_values),
	.args_min = 0,
	.args_max = 1,
	.args_files = true,
	.examples = examples,
	.examples_count = ARRAY_SIZE(examples),
	.exits =
	    "4 when any byte was wrong; 130 when it was interrupted (the report then tells what was done).",
	.run = run,
};
