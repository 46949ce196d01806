/* replay_report.c — JSON and text of a replay; see replay_report.h. */
#include "cli/replay_report.h"

#include <errno.h>
#include <stdlib.h>

#include "base/size.h"
#include "cli/block_values.h"
#include "cli/trace_sim.h"

int
replay_report_simulate(struct replay_report *report, uint64_t capacity_bytes)
{
	const struct replay_options *options = report->options;
	struct trace_sim_result result;
	int rc;

	report->infinite = calloc(options->count + 1, sizeof(*report->infinite));
	report->lru = calloc(options->count + 1, sizeof(*report->lru));
	if (report->infinite == NULL || report->lru == NULL) {
		return -ENOMEM;
	}
	rc = trace_sim_infinite(options->trace, options->first, options->count, report->infinite,
				&result);
	if (rc != 0) {
		return rc;
	}
	report->infinite_hits = result.prefix_hits;
	report->lru_blocks = options->block_bytes != 0 ? capacity_bytes / options->block_bytes : 0;
	if (report->lru_blocks == 0) {
		return 0;
	}
	rc = trace_sim_lru(options->trace, options->first, options->count, report->lru_blocks,
			   report->lru, &result);
	report->lru_hits = rc == 0 ? result.prefix_hits : 0;
	return rc;
}

void
replay_report_cut(struct replay_report *report)
{
	size_t count = HR_MIN((size_t)report->result->counts.requests, report->options->count);

	if (report->infinite == NULL || count == report->options->count) {
		return;
	}
	report->infinite_hits = 0;
	report->lru_hits = 0;
	for (size_t i = 0; i < count; i++) {
		report->infinite_hits += report->infinite[i];
		report->lru_hits += report->lru[i];
	}
}

/* With --verify nothing is replayed, and there is nothing to compare with. */
static bool
has_comparison(const struct replay_report *report)
{
	return report->infinite != NULL && report->result->counts.requests > 0;
}

void
replay_report_fini(struct replay_report *report)
{
	free(report->infinite);
	free(report->lru);
	report->infinite = report->lru = NULL;
}

const char *
report_number(uint64_t value, char ret_text[REPORT_NUMBER_BYTES])
{
	char digits[24];
	int n = snprintf(digits, sizeof(digits), "%llu", (unsigned long long)value);
	char *at = ret_text;

	for (int i = 0; i < n; i++) {
		if (i > 0 && (n - i) % 3 == 0) {
			*at++ = ',';
		}
		*at++ = digits[i];
	}
	*at = '\0';
	return ret_text;
}

double
report_write_amplification(const struct replay_result *result)
{
	if (!result->has_write_counts || result->payload_bytes == 0) {
		return 0;
	}
	return (double)result->bytes_written / (double)result->payload_bytes;
}

void
report_cost_line(const struct replay_report *report, char *ret_line, size_t bytes)
{
	const struct cost_model *cost = &report->options->cost;

	snprintf(
	    ret_line, bytes,
	    "computing T tokens of %s = (2 × %.4g billion parameters × T + 2 × %u layers × %u wide × T²) FLOPs, on %s at %.0f TFLOPS × %.0f %%",
	    cost->model->name, cost->model->params / 1e9, cost->model->layers, cost->model->width,
	    report->gpu_name, cost->tflops, cost->mfu * 100);
}

static double
ratio(uint64_t part, uint64_t whole)
{
	return whole == 0 ? 0 : (double)part / (double)whole;
}

/* -- JSON ---------------------------------------------------------------------------------------------------------------- */

static json_t *
latency_json(const struct histogram *histogram)
{
	return json_pack("{s:I,s:I,s:I,s:I,s:I}", "p50",
			 (json_int_t)histogram_percentile(histogram, 50), "p90",
			 (json_int_t)histogram_percentile(histogram, 90), "p99",
			 (json_int_t)histogram_percentile(histogram, 99), "max",
			 (json_int_t)metric_get(&histogram->max), "count",
			 (json_int_t)metric_get(&histogram->count));
}

static json_t *
reasons_json(const uint64_t reasons[HR_REASON_COUNT])
{
	json_t *object = json_object();

	for (int i = 1; i < HR_REASON_COUNT; i++) {
		json_object_set_new(object, hr_reason_name(i), json_integer((json_int_t)reasons[i]));
	}
	return object;
}

static void
set(json_t *object, const char *name, uint64_t value)
{
	json_object_set_new(object, name, json_integer((json_int_t)value));
}

static void
add_setup(const struct replay_report *report, json_t *object)
{
	const struct replay_options *options = report->options;

	json_object_set_new(object, "trace", json_string(options->trace->name));
	json_object_set_new(object, "source", json_string(report->source));
	json_object_set_new(object, "model", json_string(options->cost.model->name));
	json_object_set_new(object, "ack", json_string(cli_ack_name(options->ack)));
	set(object, "block_bytes", options->block_bytes);
	set(object, "clients", options->clients_count);
	json_object_set_new(object, "interrupted", json_boolean(report->interrupted));
}

static void
add_counts(const struct replay_report *report, json_t *object)
{
	const struct replay_counts *counts = &report->result->counts;

	set(object, "requests", counts->requests);
	set(object, "blocks", counts->blocks);
	set(object, "usable_prefix_hits", counts->prefix_hits);
	json_object_set_new(object, "usable_prefix_hit_ratio",
			    json_real(ratio(counts->prefix_hits, counts->blocks)));
	set(object, "wrong_bytes", counts->wrong_bytes);
	set(object, "wrong_blocks", counts->wrong_blocks);
	json_object_set_new(object, "misses", reasons_json(counts->misses));
	set(object, "behind_hole", counts->behind_hole);
	set(object, "lost_after_look", counts->lost_after_look);
	set(object, "leases_refused", counts->leases_refused);
	set(object, "puts", counts->puts);
	set(object, "duplicates", counts->duplicates);
	set(object, "differs", counts->differs);
	set(object, "busy_retries", counts->busy_retries);
	json_object_set_new(object, "refused", reasons_json(counts->refused));
	set(object, "bytes_put", counts->bytes_put);
	set(object, "bytes_got", counts->bytes_got);
}

static json_t *
tiers_json(const struct replay_report *report)
{
	const struct replay_counts *counts = &report->result->counts;
	double seconds = (double)report->result->elapsed_us / 1e6;
	double block = (double)report->options->block_bytes;

	if (seconds <= 0) {
		seconds = 1e-6;
	}
	return json_pack("{s:{s:I,s:I,s:f},s:{s:I,s:I,s:f},s:{s:I},s:{s:I,s:f}}", "dram", "blocks",
			 (json_int_t)counts->gets_dram, "bytes",
			 (json_int_t)counts->gets_dram * (json_int_t)report->options->block_bytes,
			 "bytes_per_second", (double)counts->gets_dram * block / seconds, "flash",
			 "blocks", (json_int_t)counts->gets_flash, "bytes",
			 (json_int_t)counts->gets_flash * (json_int_t)report->options->block_bytes,
			 "bytes_per_second", (double)counts->gets_flash * block / seconds,
			 "not_said", "blocks", (json_int_t)counts->gets_other, "put", "bytes",
			 (json_int_t)counts->bytes_put, "bytes_per_second",
			 (double)counts->bytes_put / seconds);
}

static void
add_savings(const struct replay_report *report, json_t *object)
{
	const struct replay_counts *counts = &report->result->counts;
	const struct cost_model *cost = &report->options->cost;

	json_object_set_new(object, "gpu_seconds_saved", json_real(counts->gpu_seconds_saved));
	json_object_set_new(object, "gpu_seconds_without", json_real(counts->gpu_seconds_total));
	set(object, "tokens_hit", counts->tokens_hit);
	set(object, "tokens_in", counts->tokens_in);
	json_object_set_new(
	    object, "cost_model",
	    json_pack(
		"{s:s,s:f,s:i,s:i,s:s,s:f,s:f,s:s}", "model", cost->model->name, "params",
		cost->model->params, "layers", (int)cost->model->layers, "width",
		(int)cost->model->width, "gpu", report->gpu_name, "tflops", cost->tflops, "mfu",
		cost->mfu, "formula",
		"(2 params T + 2 layers width T^2) / (tflops 1e12 mfu) GPU-seconds for T tokens"));
}

static void
add_comparison(const struct replay_report *report, json_t *object)
{
	json_t *compare = json_object();

	set(compare, "infinite", report->infinite_hits);
	if (report->lru_blocks != 0) {
		set(compare, "lru", report->lru_hits);
		set(compare, "lru_blocks", report->lru_blocks);
	}
	json_object_set_new(object, "compare", compare);
}

json_t *
replay_report_json(const struct replay_report *report)
{
	const struct replay_result *result = report->result;
	json_t *object = json_object();
	double amplification = report_write_amplification(result);

	add_setup(report, object);
	add_counts(report, object);
	json_object_set_new(object, "tiers", tiers_json(report));
	json_object_set_new(object, "latency_us",
			    json_pack("{s:o,s:o,s:o}", "get", latency_json(result->get), "put",
				      latency_json(result->put), "exists",
				      latency_json(result->exists)));
	json_object_set_new(object, "write_amplification",
			    amplification > 0 ? json_real(amplification) : json_null());
	if (result->has_write_counts) {
		set(object, "bytes_written", result->bytes_written);
		set(object, "payload_bytes", result->payload_bytes);
	}
	add_savings(report, object);
	if (has_comparison(report)) {
		add_comparison(report, object);
	}
	json_object_set_new(object, "seconds", json_real((double)result->elapsed_us / 1e6));
	return object;
}

/* -- text ---------------------------------------------------------------------------------------------------------------- */

static void
text_hits(const struct replay_report *report, FILE *out)
{
	const struct replay_counts *counts = &report->result->counts;
	char a[REPORT_NUMBER_BYTES], b[REPORT_NUMBER_BYTES];
	int gap;

	fprintf(out, "  usable-prefix hits  %14s of %s blocks  %5.1f %%\n",
		report_number(counts->prefix_hits, a), report_number(counts->blocks, b),
		100 * ratio(counts->prefix_hits, counts->blocks));
	gap = (int)strlen(b) + 13;
	if (has_comparison(report)) {
		fprintf(out, "    infinite cache    %14s%*s%5.1f %%%s\n",
			report_number(report->infinite_hits, a), gap, "",
			100 * ratio(report->infinite_hits, counts->blocks),
			counts->prefix_hits > report->infinite_hits
			    ? "  from empty; this store was not"
			    : "");
	}
	if (has_comparison(report) && report->lru_blocks != 0) {
		fprintf(out, "    LRU               %14s%*s%5.1f %%  at %s blocks\n",
			report_number(report->lru_hits, a), gap, "",
			100 * ratio(report->lru_hits, counts->blocks),
			report_number(report->lru_blocks, b));
	}
	fprintf(out, "  wrong bytes         %14s\n", report_number(counts->wrong_bytes, a));
}

static void
text_reasons(const char *what, const uint64_t reasons[HR_REASON_COUNT], FILE *out)
{
	char a[REPORT_NUMBER_BYTES];
	const char *sep = "";

	for (int i = 0; i < HR_REASON_COUNT; i++) {
		if (reasons[i] != 0) {
			fprintf(out, "%s%s %s", sep[0] == '\0' ? what : sep, hr_reason_name(i),
				report_number(reasons[i], a));
			sep = ", ";
		}
	}
	if (sep[0] != '\0') {
		fputc('\n', out);
	}
}

static void
text_bytes(const char *what, uint64_t bytes, uint64_t blocks, double seconds, FILE *out)
{
	char a[SIZE_TEXT_BYTES], b[SIZE_TEXT_BYTES], c[REPORT_NUMBER_BYTES];

	fprintf(out, "  %-18s  %14s  %s/s, %s blocks\n", what, size_format_short(bytes, a),
		size_format_short(seconds > 0 ? (uint64_t)((double)bytes / seconds) : 0, b),
		report_number(blocks, c));
}

static void
text_latency(const char *what, const struct histogram *histogram, FILE *out)
{
	fprintf(out, "  %-18s  %10llu %10llu %10llu %10llu\n", what,
		(unsigned long long)histogram_percentile(histogram, 50),
		(unsigned long long)histogram_percentile(histogram, 90),
		(unsigned long long)histogram_percentile(histogram, 99),
		(unsigned long long)metric_get(&histogram->max));
}

static void
text_savings(const struct replay_report *report, FILE *out)
{
	const struct replay_counts *counts = &report->result->counts;
	char line[512];

	fprintf(out, "  GPU time saved      %12.0f s of %.0f s (%.1f %%)\n",
		counts->gpu_seconds_saved, counts->gpu_seconds_total,
		counts->gpu_seconds_total > 0
		    ? 100 * counts->gpu_seconds_saved / counts->gpu_seconds_total
		    : 0);
	report_cost_line(report, line, sizeof(line));
	fprintf(out, "    if %s\n    (--model, --gpu, --tflops and --mfu change that)\n", line);
}

void
replay_report_text(const struct replay_report *report, FILE *out)
{
	const struct replay_options *options = report->options;
	const struct replay_result *result = report->result;
	const struct replay_counts *counts = &result->counts;
	double seconds = (double)result->elapsed_us / 1e6;
	char a[SIZE_TEXT_BYTES], b[REPORT_NUMBER_BYTES];

	fprintf(out, "%s: %s requests in %.1f s, blocks of %s, %u client%s, ack %s%s\n",
		options->trace->name, report_number(counts->requests, b), seconds,
		size_format(options->block_bytes, a), options->clients_count,
		options->clients_count == 1 ? "" : "s", cli_ack_name(options->ack),
		report->interrupted ? " (interrupted)" : "");
	text_hits(report, out);
	text_reasons("  misses              ", counts->misses, out);
	text_reasons("  refused             ", counts->refused, out);
	fprintf(out, "  behind a hole       %14s\n", report_number(counts->behind_hole, b));
	fprintf(out, "  duplicates          %14s\n", report_number(counts->duplicates, b));
	fprintf(out, "  busy, sent again    %14s\n", report_number(counts->busy_retries, b));
	text_bytes("stored", counts->bytes_put, counts->puts - counts->duplicates, seconds, out);
	text_bytes("read, from DRAM", counts->gets_dram * options->block_bytes, counts->gets_dram,
		   seconds, out);
	text_bytes("read, from flash", counts->gets_flash * options->block_bytes,
		   counts->gets_flash, seconds, out);
	if (report_write_amplification(result) > 0) {
		fprintf(out, "  write amplification %14.3f\n", report_write_amplification(result));
	}
	fputs("  latency of a batch, us     p50        p90        p99        max\n", out);
	text_latency("GET", result->get, out);
	text_latency("PUT", result->put, out);
	text_latency("EXISTS", result->exists, out);
	text_savings(report, out);
}
