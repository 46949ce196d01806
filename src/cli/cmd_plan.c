/* cmd_plan.c — headrace plan: how large a store is needed, with every formula and assumption said. */
#include <jansson.h>
#include <math.h>

#include "base/size.h"
#include "cli/commands.h"
#include "cli/plan.h"

struct plan_values {
	char *model, *gpu;
	uint64_t bytes_per_token, gpus, context, sessions, link, gpus_per_host, tp, copies;
	uint64_t turn_gap_us, latency_us, node_bytes, node_read, node_link, node_endurance;
	double hits, fill, link_share, tflops, mfu, write_amplification;
	bool json, models;
};

static int
set_cost(const struct plan_values *values, struct cost_model *cost)
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
	return CLI_OK;
}

static int
set_input(const struct plan_values *values, struct plan_input *input)
{
	int rc = set_cost(values, &input->cost);

	if (rc != CLI_OK) {
		return rc;
	}
	input->bytes_per_token = values->bytes_per_token != 0 ? values->bytes_per_token
							      : input->cost.model->bytes_per_token;
	input->gpus = (double)values->gpus;
	input->context_tokens = (double)values->context;
	input->sessions = (double)values->sessions;
	input->turn_gap_s = (double)values->turn_gap_us / 1e6;
	input->hit_share = values->hits;
	input->copies = (double)values->copies;
	input->fill = values->fill;
	input->gpus_per_host = (double)values->gpus_per_host;
	input->link_bits_per_s = (double)values->link;
	input->link_share = values->link_share;
	input->tp = values->tp != 0 ? (double)values->tp : input->cost.model->gpus_min;
	input->load_latency_us = (double)values->latency_us;
	input->node_bytes = (double)values->node_bytes;
	input->node_read_bytes_per_s = (double)values->node_read;
	input->node_link_bits_per_s = (double)values->node_link;
	input->node_write_bytes_per_day = (double)values->node_endurance;
	input->write_amplification = values->write_amplification;
	return CLI_OK;
}

/* -- JSON ---------------------------------------------------------------------------------------------------------------- */

static json_t *
assumptions_json(const struct plan_values *values, const struct plan_input *input)
{
	json_t *object = json_object();
	const struct {
		const char *name;
		double value;
	} rows[] = {
		{ "params", input->cost.model->params },
		{ "layers", input->cost.model->layers },
		{ "width", input->cost.model->width },
		{ "tflops", input->cost.tflops },
		{ "mfu", input->cost.mfu },
		{ "tp", input->tp },
		{ "gpus", input->gpus },
		{ "gpus_per_host", input->gpus_per_host },
		{ "context_tokens", input->context_tokens },
		{ "sessions", input->sessions },
		{ "turn_gap_s", input->turn_gap_s },
		{ "hit_share", input->hit_share },
		{ "copies", input->copies },
		{ "fill", input->fill },
		{ "link_bits_per_s", input->link_bits_per_s },
		{ "link_share", input->link_share },
		{ "load_latency_us", input->load_latency_us },
		{ "node_bytes", input->node_bytes },
		{ "node_read_bytes_per_s", input->node_read_bytes_per_s },
		{ "node_link_bits_per_s", input->node_link_bits_per_s },
		{ "node_write_bytes_per_day", input->node_write_bytes_per_day },
		{ "write_amplification", input->write_amplification },
	};

	json_object_set_new(object, "model", json_string(input->cost.model->name));
	json_object_set_new(object, "gpu", json_string(values->gpu));
	for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
		json_object_set_new(object, rows[i].name, json_real(rows[i].value));
	}
	return object;
}

static void
print_json(const struct plan_values *values, const struct plan_input *input, const struct plan *plan)
{
	const struct {
		const char *name;
		double value;
	} rows[] = {
		{ "bytes_per_token", (double)input->bytes_per_token },
		{ "session_bytes", plan->session_bytes },
		{ "capacity_bytes", plan->capacity_bytes },
		{ "requests_per_s", plan->requests_per_s },
		{ "read_bytes_per_s", plan->read_bytes_per_s },
		{ "write_bytes_per_s", plan->write_bytes_per_s },
		{ "flash_write_bytes_per_day", plan->flash_write_bytes_per_day },
		{ "hosts", plan->hosts },
		{ "host_bits_per_s", plan->host_bits_per_s },
		{ "link_used_share", plan->link_used_share },
		{ "nodes", plan->nodes },
		{ "nodes_for_capacity", plan->nodes_for_capacity },
		{ "nodes_for_reads", plan->nodes_for_reads },
		{ "nodes_for_links", plan->nodes_for_links },
		{ "nodes_for_writes", plan->nodes_for_writes },
		{ "gpu_s_without", plan->gpu_s_without },
		{ "gpu_s_with", plan->gpu_s_with },
		{ "gpus_busy_without", plan->gpus_busy_without },
		{ "gpus_busy_with", plan->gpus_busy_with },
		{ "load_bytes_per_s_shared", plan->load_bytes_per_s_shared },
		{ "load_bytes_per_s_alone", plan->load_bytes_per_s_alone },
		{ "break_even_tokens", ceil(plan->break_even_tokens_shared) },
		{ "break_even_tokens_alone", ceil(plan->break_even_tokens_alone) },
		{ "load_s", plan->load_s },
		{ "compute_s", plan->compute_s },
	};
	json_t *object = json_object();

	for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
		bool whole = rows[i].value == floor(rows[i].value) && rows[i].value < 9e15;

		json_object_set_new(object, rows[i].name,
				    whole ? json_integer((json_int_t)rows[i].value)
					  : json_real(rows[i].value));
	}
	json_object_set_new(object, "assumptions", assumptions_json(values, input));
	json_dumpf(object, stdout, JSON_INDENT(2));
	putchar('\n');
	json_decref(object);
}

/* -- text ---------------------------------------------------------------------------------------------------------------- */

static const char *
bytes_text(double bytes, char text[SIZE_TEXT_BYTES])
{
	return size_format_short(bytes < 1.8e19 ? (uint64_t)bytes : UINT64_MAX, text);
}

static void
print_sizes(const struct plan_input *input, const struct plan *plan)
{
	char a[SIZE_TEXT_BYTES], b[SIZE_TEXT_BYTES];

	printf("%s: %llu bytes of KV a token (%s)\n", input->cost.model->name,
	       (unsigned long long)input->bytes_per_token,
	       bytes_text((double)input->bytes_per_token, a));
	printf(
	    "\ncapacity              %14s   = %s a session (bytes a token × %.0f tokens) × %.0f sessions × %.0f cop%s / %.0f %% fill\n",
	    bytes_text(plan->capacity_bytes, a), bytes_text(plan->session_bytes, b),
	    input->context_tokens, input->sessions, input->copies, input->copies == 1 ? "y" : "ies",
	    input->fill * 100);
	printf(
	    "requests              %12.1f/s   = %.0f sessions / %.0f s between two requests of one\n",
	    plan->requests_per_s, input->sessions, input->turn_gap_s);
	printf(
	    "reads                 %12s/s   = requests × %.0f tokens × %.0f %% hits × bytes a token\n",
	    bytes_text(plan->read_bytes_per_s, a), input->context_tokens, input->hit_share * 100);
	printf(
	    "writes                %12s/s   = requests × %.0f tokens × %.0f %% not hit × bytes a token × copies\n",
	    bytes_text(plan->write_bytes_per_s, a), input->context_tokens,
	    (1 - input->hit_share) * 100);
	printf("flash writes        %12s a day   = writes × %.2f write amplification × 86,400 s\n",
	       bytes_text(plan->flash_write_bytes_per_day, a), input->write_amplification);
}

static void
print_nodes(const struct plan_input *input, const struct plan *plan)
{
	char a[SIZE_TEXT_BYTES], b[SIZE_TEXT_BYTES], c[SIZE_TEXT_BYTES];

	printf("\nnodes                 %14.0f   = the most of:\n", plan->nodes);
	printf("    for capacity      %14.0f     at %s each\n", plan->nodes_for_capacity,
	       bytes_text(input->node_bytes, a));
	printf("    for reads         %14.0f     at %s/s from flash each\n", plan->nodes_for_reads,
	       bytes_text(input->node_read_bytes_per_s, a));
	printf("    for their links   %14.0f     at %s × %.0f %% each\n", plan->nodes_for_links,
	       bitrate_format((uint64_t)input->node_link_bits_per_s, a), input->link_share * 100);
	printf("    for endurance     %14.0f     at %s written a day each\n",
	       plan->nodes_for_writes, bytes_text(input->node_write_bytes_per_day, b));
	printf(
	    "link of a GPU host    %12.1f %%   = (reads + writes) / %.0f hosts of %.0f GPUs / %s; %.1f Gbit/s of it\n",
	    plan->link_used_share * 100, plan->hosts, input->gpus_per_host,
	    bitrate_format((uint64_t)input->link_bits_per_s, c), plan->host_bits_per_s / 1e9);
	if (plan->link_used_share > input->link_share) {
		printf(
		    "    This does not fit: at most %.0f %% of the link is meant for KV. More hosts, a faster link, or fewer hits.\n",
		    input->link_share * 100);
	}
}

static void
print_break_even(const struct plan_values *values, const struct plan_input *input,
		 const struct plan *plan)
{
	char a[SIZE_TEXT_BYTES];

	printf(
	    "\nloading beats computing from %.0f tokens on, when all groups of %.0f GPUs load at once (%s/s each);\n",
	    ceil(plan->break_even_tokens_shared), input->tp,
	    bytes_text(plan->load_bytes_per_s_shared, a));
	printf("                        from %.0f tokens on, when one loads alone (%s/s)\n",
	       ceil(plan->break_even_tokens_alone), bytes_text(plan->load_bytes_per_s_alone, a));
	printf(
	    "    where %.0f us + T × bytes a token / rate = (2 × %.4g billion × T + 2 × %u layers × %u wide × T²) FLOPs / (%.0f GPUs × %.0f TFLOPS × %.0f %%)\n",
	    input->load_latency_us, input->cost.model->params / 1e9, input->cost.model->layers,
	    input->cost.model->width, input->tp, input->cost.tflops, input->cost.mfu * 100);
	printf("a hit of %.0f tokens   %10.3f s to load, %.3f s to compute: %.1f times as fast\n",
	       input->context_tokens * input->hit_share, plan->load_s, plan->compute_s,
	       plan->load_s > 0 ? plan->compute_s / plan->load_s : 0);
	printf("prefill keeps busy    %14.1f of %.0f GPUs without the store, %.1f with it\n",
	       plan->gpus_busy_without, input->gpus, plan->gpus_busy_with);
	if (plan->gpus_busy_with > input->gpus) {
		printf(
		    "    Even with the store that is more than there are: fewer sessions, or a longer time between requests.\n");
	}
	printf(
	    "\nassumed (flags change it): %s at %.0f TFLOPS × %.0f %% (--gpu --tflops --mfu), %.0f GPUs a request (--tp), %.0f a host\n"
	    "(--gpus-per-host), %.0f s between requests (--turn-gap), %.0f %% of tokens hit (--hits), %.0f cop%s (--copies), %.0f %% of\n"
	    "the flash live (--fill), %.0f %% of links for KV (--link-share), %.0f us until the first byte (--latency), nodes of\n"
	    "--node-capacity, --node-read, --node-link, --node-endurance, and --write-amplification %.2f; 16-bit KV (--bytes-per-token).\n",
	    values->gpu, input->cost.tflops, input->cost.mfu * 100, input->tp, input->gpus_per_host,
	    input->turn_gap_s, input->hit_share * 100, input->copies,
	    input->copies == 1 ? "y" : "ies", input->fill * 100, input->link_share * 100,
	    input->load_latency_us, input->write_amplification);
}

static void
print_models(void)
{
	char text[SIZE_TEXT_BYTES];

	printf("%-18s %14s %12s %10s %8s %8s\n", "model", "KV a token", "", "parameters", "layers",
	       "width");
	for (size_t i = 0; i < models_count; i++) {
		printf("%-18s %14llu %12s %9.1fB %8u %8u\n", models[i].name,
		       (unsigned long long)models[i].bytes_per_token,
		       bytes_text((double)models[i].bytes_per_token, text), models[i].params / 1e9,
		       models[i].layers, models[i].width);
	}
}

static int
run(const void *values_arg, int argc, char **argv)
{
	const struct plan_values *values = values_arg;
	struct errbuf err = { "" };
	struct plan_input input;
	struct plan plan;
	int rc;

	(void)argc;
	(void)argv;
	if (values->models) {
		print_models();
		return CLI_OK;
	}
	rc = set_input(values, &input);
	if (rc != CLI_OK) {
		return rc;
	}
	if (plan_compute(&input, &plan, &err) != 0) {
		return cli_fail(CLI_USAGE, "plan: %s", err.text);
	}
	if (values->json) {
		print_json(values, &input, &plan);
		return CLI_OK;
	}
	print_sizes(&input, &plan);
	print_nodes(&input, &plan);
	print_break_even(values, &input, &plan);
	return CLI_OK;
}

static const struct option options[] = {
	OPTION(plan_values, model, "model", OPTION_STRING, "llama-3.1-70b",
	       "the model; --models lists the presets", .value_name = "NAME"),
	OPTION(plan_values, gpus, "gpus", OPTION_UINT, "64", "GPUs of the fleet", .min = 1),
	OPTION(plan_values, context, "context", OPTION_UINT, "32768", "tokens of a request",
	       .min = 1, .value_name = "TOKENS"),
	OPTION(plan_values, sessions, "sessions", OPTION_UINT, "1000",
	       "sessions that are to stay in the store", .min = 1),
	OPTION(plan_values, link, "link", OPTION_BITRATE, "200Gbit", "network link of a GPU host",
	       .min = 1),
	OPTION(plan_values, bytes_per_token, "bytes-per-token", OPTION_SIZE, NULL,
	       "KV of a token (default: the model's at 16 bits; 8-bit KV is half)", .min = 1),
	OPTION(plan_values, gpu, "gpu", OPTION_STRING, "h100",
	       "the GPU: a100, h100, h200, b200, mi300x", .value_name = "NAME"),
	OPTION(plan_values, tflops, "tflops", OPTION_DOUBLE, NULL,
	       "its dense 16-bit TFLOPS (default: as the maker says)"),
	OPTION(plan_values, mfu, "mfu", OPTION_DOUBLE, "0.5", "share of them that prefill reaches"),
	OPTION(plan_values, tp, "tp", OPTION_UINT, NULL,
	       "GPUs that work on one request (default: as many as hold the model)", .min = 1),
	OPTION(plan_values, gpus_per_host, "gpus-per-host", OPTION_UINT, "8",
	       "GPUs that share a host's link", .min = 1),
	OPTION(plan_values, turn_gap_us, "turn-gap", OPTION_DURATION, "60s",
	       "time between two requests of a session", .min = 1),
	OPTION(plan_values, hits, "hits", OPTION_DOUBLE, "0.9",
	       "share of a request's tokens that the store has (agents: 0.96, chat: 0.37)"),
	OPTION(plan_values, copies, "copies", OPTION_UINT, "1", "copies of each block", .min = 1),
	OPTION(plan_values, fill, "fill", OPTION_DOUBLE, "0.9",
	       "share of the flash that is live; the rest is room for reclaim and metadata"),
	OPTION(plan_values, link_share, "link-share", OPTION_DOUBLE, "0.8",
	       "share of a link that KV may take"),
	OPTION(plan_values, latency_us, "latency", OPTION_DURATION, "500us",
	       "until the first byte of a load comes"),
	OPTION(plan_values, node_bytes, "node-capacity", OPTION_SIZE, "60TB", "flash of a node"),
	OPTION(plan_values, node_read, "node-read", OPTION_SIZE, "40GB",
	       "bytes a second that a node reads from flash"),
	OPTION(plan_values, node_link, "node-link", OPTION_BITRATE, "400Gbit",
	       "network link of a node"),
	OPTION(plan_values, node_endurance, "node-endurance", OPTION_SIZE, "60TB",
	       "bytes a day that a node's flash may be written (one drive write a day)"),
	OPTION(plan_values, write_amplification, "write-amplification", OPTION_DOUBLE, "1.18",
	       "bytes written for a byte stored"),
	OPTION(plan_values, json, "json", OPTION_BOOL, NULL,
	       "print one JSON object, assumptions included"),
	OPTION(plan_values, models, "models", OPTION_BOOL, NULL, "list the models and end"),
};
static const struct cli_example examples[] = {
	{ "headrace plan --model llama-3.1-70b --gpus 64 --context 32768 --sessions 1000 --link 200Gbit",
	  "the whole answer, with formulas and assumptions" },
	{ "headrace plan --model deepseek-v3 --gpus 256 --sessions 20000 --hits 0.96 --json | jq .nodes",
	  "one figure, for agents" },
};
const struct cli_command cmd_plan = {
	.name = "plan",
	.usage = "",
	.summary = "says how large a store a fleet of GPUs needs, with every formula and assumption",
	.options = options,
	.options_count = ARRAY_SIZE(options),
	.values_bytes = sizeof(struct plan_values),
	.examples = examples,
	.examples_count = ARRAY_SIZE(examples),
	.run = run,
};
