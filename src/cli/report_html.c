/* report_html.c — a replay as one HTML page; see replay_report.h. Plots are inline SVG; colours come from the style sheet, so
 * that the reader's light or dark setting decides. */
#include <errno.h>
#include <math.h>
#include <stdlib.h>

#include "base/size.h"
#include "cli/block_values.h"
#include "cli/replay_report.h"

enum {
	PLOT_WIDTH = 720,
	PLOT_HEIGHT = 240,
	LEFT = 56,
	RIGHT = 16,
	TOP = 12,
	BOTTOM = 36,
	BINS_MAX = 60,
	ROW_HEIGHT = 30,
	BAR_LEFT = 150,
};

struct page {
	const struct replay_report *report;
	const struct replay_counts *counts;
	FILE *out;
};

static const char style[] =
    ":root{--bg:#fbfbfa;--card:#fff;--ink:#1b1f23;--soft:#5f6770;--line:#e2e4e7;--a:#1f6feb;--b:#c2570c;--c:#8a9099;--ok:#1a7f37;--bad:#c6262e}\n"
    "@media (prefers-color-scheme:dark){:root{--bg:#121417;--card:#1b1e23;--ink:#e7e9ec;--soft:#9aa2ac;--line:#2e333a;--a:#5aa0ff;--b:#f0975a;--c:#767e88;--ok:#4ac26b;--bad:#ff6b70}}\n"
    "*{box-sizing:border-box}\n"
    "body{margin:0;background:var(--bg);color:var(--ink);font:15px/1.5 system-ui,-apple-system,'Segoe UI',sans-serif}\n"
    "main{max-width:800px;margin:0 auto;padding:32px 20px 48px}\n"
    "h1{font-size:24px;line-height:1.25;margin:0 0 4px;font-weight:650}\n"
    "h2{font-size:16px;margin:0 0 2px;font-weight:650}\n"
    "p{margin:0 0 12px;color:var(--soft)}\n"
    ".tiles{display:grid;grid-template-columns:repeat(auto-fit,minmax(138px,1fr));gap:12px;margin:20px 0}\n"
    ".tile,section{background:var(--card);border:1px solid var(--line);border-radius:10px;padding:14px 16px}\n"
    ".tile b{display:block;font-size:25px;line-height:1.2;font-weight:650;font-variant-numeric:tabular-nums}\n"
    ".tile span{color:var(--soft);font-size:13px}\n"
    ".good b{color:var(--ok)}.bad b{color:var(--bad)}\n"
    "section{margin:0 0 16px}\n"
    "svg{display:block;width:100%;height:auto;overflow:visible}\n"
    "svg text{fill:var(--soft);font:12px system-ui,-apple-system,'Segoe UI',sans-serif;font-variant-numeric:tabular-nums}\n"
    "svg .v{fill:var(--ink)}\n"
    ".grid{stroke:var(--line);stroke-width:1}\n"
    ".la{stroke:var(--a)}.lb{stroke:var(--b)}.lc{stroke:var(--c)}\n"
    ".curve{fill:none;stroke-width:2;stroke-linejoin:round;stroke-linecap:round}.dash{stroke-dasharray:5 4}.wide{stroke-width:6;opacity:.4}\n"
    ".fa{fill:var(--a)}.fb{fill:var(--b)}.fc{fill:var(--c)}.fbad{fill:var(--bad)}\n"
    ".key{display:flex;flex-wrap:wrap;gap:4px 18px;margin:4px 0 8px;font-size:13px;color:var(--soft)}\n"
    ".key svg{display:inline-block;width:22px;height:10px;margin-right:6px;vertical-align:middle}\n"
    "table{border-collapse:collapse;width:100%;font-variant-numeric:tabular-nums;font-size:14px}\n"
    "th{font-weight:500;color:var(--soft);text-align:right}td{text-align:right}\n"
    "th:first-child,td:first-child{text-align:left}\n"
    "td,th{padding:5px 0 5px 12px;border-top:1px solid var(--line)}tr:first-child th{border-top:0}th:first-child,td:first-child{padding-left:0}\n"
    "code{font:13px ui-monospace,Menlo,Consolas,monospace;overflow-wrap:anywhere}\n"
    "footer{color:var(--soft);font-size:13px;margin-top:20px}\n";

static void
escape(FILE *out, const char *text)
{
	for (; *text != '\0'; text++) {
		switch (*text) {
		case '<':
			fputs("&lt;", out);
			break;
		case '>':
			fputs("&gt;", out);
			break;
		case '&':
			fputs("&amp;", out);
			break;
		case '"':
			fputs("&quot;", out);
			break;
		default:
			fputc(*text, out);
		}
	}
}

static double
percent(uint64_t part, uint64_t whole)
{
	return whole == 0 ? 0 : 100.0 * (double)part / (double)whole;
}

/* -- head ---------------------------------------------------------------------------------------------------------------- */

static void
tile(const struct page *page, const char *kind, const char *value, const char *what)
{
	fprintf(page->out, "<div class=\"tile %s\"><b>%s</b><span>", kind, value);
	escape(page->out, what);
	fputs("</span></div>\n", page->out);
}

static void
head(const struct page *page)
{
	const struct replay_report *report = page->report;
	const struct replay_options *options = report->options;
	char a[REPORT_NUMBER_BYTES], b[REPORT_NUMBER_BYTES], c[SIZE_TEXT_BYTES];

	fputs("<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n"
	      "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n"
	      "<meta name=\"color-scheme\" content=\"light dark\">\n<title>Headrace replay: ",
	      page->out);
	escape(page->out, options->trace->name);
	fprintf(page->out, "</title>\n<style>\n%s</style>\n</head>\n<body>\n<main>\n<h1>", style);
	escape(page->out, options->trace->name);
	fputs(" through Headrace</h1>\n<p>", page->out);
	fprintf(
	    page->out,
	    "%s requests, %s blocks of %s, in %.1f s; %u client%s, acknowledged at <em>%s</em>; every byte that came back was compared.%s</p>\n<p>Workload: <code>",
	    report_number(page->counts->requests, a), report_number(page->counts->blocks, b),
	    size_format(options->block_bytes, c), (double)report->result->elapsed_us / 1e6,
	    options->clients_count, options->clients_count == 1 ? "" : "s",
	    cli_ack_name(options->ack), report->interrupted ? " Interrupted." : "");
	escape(page->out, report->source);
	fputs("</code></p>\n", page->out);
}

static void
tiles(const struct page *page)
{
	const struct replay_report *report = page->report;
	const struct replay_counts *counts = page->counts;
	double amplification = report_write_amplification(report->result);
	char value[64], what[128], a[REPORT_NUMBER_BYTES], b[REPORT_NUMBER_BYTES];

	fputs("<div class=\"tiles\">\n", page->out);
	snprintf(value, sizeof(value), "%.1f %%", percent(counts->prefix_hits, counts->blocks));
	snprintf(what, sizeof(what), "usable-prefix hits: %s of %s blocks",
		 report_number(counts->prefix_hits, a), report_number(counts->blocks, b));
	tile(page, "", value, what);
	snprintf(value, sizeof(value), "%.1f %%",
		 percent(counts->prefix_hits, report->infinite_hits));
	tile(page, "", value,
	     counts->prefix_hits > report->infinite_hits
		 ? "of what an infinite cache would hit from empty: this one was not"
		 : "of what an infinite cache would hit");
	tile(page, counts->wrong_bytes == 0 ? "good" : "bad", report_number(counts->wrong_bytes, a),
	     "wrong bytes");
	snprintf(value, sizeof(value), "%.0f s", counts->gpu_seconds_saved);
	snprintf(what, sizeof(what), "of %.0f s of GPU time saved (%.0f %%)",
		 counts->gpu_seconds_total,
		 counts->gpu_seconds_total > 0
		     ? 100 * counts->gpu_seconds_saved / counts->gpu_seconds_total
		     : 0);
	tile(page, "", value, what);
	if (amplification > 0) {
		snprintf(value, sizeof(value), "%.3f", amplification);
		tile(page, "", value, "write amplification");
	}
	fputs("</div>\n", page->out);
}

/* -- hits over time ------------------------------------------------------------------------------------------------------ */

struct bins {
	unsigned count;
	size_t requests; /* of a bin */
	double store[BINS_MAX], infinite[BINS_MAX], lru[BINS_MAX];
	double top; /* of the axis, percent */
};

static size_t
requests_done(const struct page *page)
{
	return HR_MIN((size_t)page->counts->requests, page->report->options->count);
}

static void
fill_bins(const struct page *page, struct bins *bins)
{
	const struct replay_report *report = page->report;
	const struct replay_options *options = report->options;
	size_t done = requests_done(page);

	*bins = (struct bins){ 0 };
	bins->requests = HR_MAX((size_t)1, (done + BINS_MAX - 1) / BINS_MAX);
	bins->count = (unsigned)((done + bins->requests - 1) / bins->requests);
	for (unsigned i = 0; i < bins->count; i++) {
		uint64_t blocks = 0, store = 0, infinite = 0, lru = 0;

		for (size_t r = i * bins->requests; r < HR_MIN(done, (i + 1) * bins->requests);
		     r++) {
			blocks += options->trace->requests[options->first + r].blocks_count;
			store += report->result->hits[r];
			infinite += report->infinite[r];
			lru += report->lru[r];
		}
		bins->store[i] = percent(store, blocks);
		bins->infinite[i] = percent(infinite, blocks);
		bins->lru[i] = percent(lru, blocks);
		bins->top = HR_MAX(bins->top,
				   HR_MAX(bins->store[i], HR_MAX(bins->infinite[i], bins->lru[i])));
	}
	/* A multiple of 20 that holds them all, so that the four lines of the grid have round numbers. */
	bins->top = bins->top <= 10 ? 10 : HR_MIN(100.0, ceil(bins->top / 20) * 20);
}

static double
x_of(const struct bins *bins, unsigned i)
{
	return LEFT + (PLOT_WIDTH - LEFT - RIGHT) * (i + 0.5) / HR_MAX(bins->count, 1u);
}

static double
y_of(double value, double top)
{
	return TOP + (PLOT_HEIGHT - TOP - BOTTOM) * (1 - value / top);
}

static void
curve(const struct page *page, const struct bins *bins, const double *values, const char *kind)
{
	fprintf(page->out, "<polyline class=\"curve %s\" points=\"", kind);
	for (unsigned i = 0; i < bins->count; i++) {
		fprintf(page->out, "%.1f,%.1f ", x_of(bins, i), y_of(values[i], bins->top));
	}
	fputs("\"/>\n", page->out);
}

static void
axes(const struct page *page, const struct bins *bins)
{
	size_t done = requests_done(page);
	char a[REPORT_NUMBER_BYTES];

	for (int i = 0; i <= 4; i++) {
		double value = bins->top * i / 4;
		double y = y_of(value, bins->top);

		fprintf(
		    page->out,
		    "<line class=\"grid\" x1=\"%d\" x2=\"%d\" y1=\"%.1f\" y2=\"%.1f\"/><text x=\"%d\" y=\"%.1f\" text-anchor=\"end\">%.3g %%</text>\n",
		    LEFT, PLOT_WIDTH - RIGHT, y, y, LEFT - 8, y + 4, value);
	}
	for (int i = 0; i <= 4; i++) {
		double x = LEFT + (PLOT_WIDTH - LEFT - RIGHT) * i / 4.0;

		fprintf(page->out, "<text x=\"%.1f\" y=\"%d\" text-anchor=\"%s\">%s</text>\n", x,
			PLOT_HEIGHT - BOTTOM + 18,
			i == 0	 ? "start"
			: i == 4 ? "end"
				 : "middle",
			report_number(done * (unsigned)i / 4, a));
	}
	fprintf(page->out, "<text x=\"%d\" y=\"%d\" text-anchor=\"middle\">requests</text>\n",
		LEFT + (PLOT_WIDTH - LEFT - RIGHT) / 2, PLOT_HEIGHT - 2);
}

static void
key_entry(const struct page *page, const char *kind, const char *text)
{
	fprintf(
	    page->out,
	    "<span><svg viewBox=\"0 0 22 10\"><line class=\"curve %s\" x1=\"1\" x2=\"21\" y1=\"5\" y2=\"5\"/></svg>%s</span>\n",
	    kind, text);
}

static void
hits_over_time(const struct page *page)
{
	const struct replay_report *report = page->report;
	struct bins bins;
	char text[160], a[REPORT_NUMBER_BYTES], b[REPORT_NUMBER_BYTES];

	fill_bins(page, &bins);
	fprintf(
	    page->out,
	    "<section>\n<h2>Hits over time</h2>\n<p>Usable-prefix hits in percent of the blocks asked for, in steps of %s requests.</p>\n<div class=\"key\">\n",
	    report_number(bins.requests, a));
	snprintf(text, sizeof(text), "this store: %s", report_number(page->counts->prefix_hits, a));
	key_entry(page, "la", text);
	snprintf(text, sizeof(text), "an infinite cache: %s",
		 report_number(report->infinite_hits, a));
	key_entry(page, "lc dash", text);
	if (report->lru_blocks != 0) {
		snprintf(text, sizeof(text), "LRU with %s blocks: %s",
			 report_number(report->lru_blocks, a), report_number(report->lru_hits, b));
		key_entry(page, "lb wide", text);
	}
	fprintf(page->out,
		"</div>\n<svg viewBox=\"0 0 %d %d\" role=\"img\" aria-label=\"hits over time\">\n",
		PLOT_WIDTH, PLOT_HEIGHT);
	axes(page, &bins);
	curve(page, &bins, bins.infinite, "lc dash");
	if (report->lru_blocks != 0) {
		curve(page, &bins, bins.lru, "lb wide");
	}
	curve(page, &bins, bins.store, "la");
	fputs("</svg>\n</section>\n", page->out);
}

/* -- bars ---------------------------------------------------------------------------------------------------------------- */

static void
bar(const struct page *page, unsigned row, const char *name, double part, const char *kind,
    const char *value)
{
	double width = HR_MAX(part > 0 ? 2.0 : 0.0, (PLOT_WIDTH - BAR_LEFT - 190) * part);
	unsigned y = row * ROW_HEIGHT;

	fprintf(
	    page->out,
	    "<text class=\"v\" x=\"%d\" y=\"%u\" text-anchor=\"end\">%s</text><rect class=\"%s\" x=\"%d\" y=\"%u\" width=\"%.1f\" height=\"16\" rx=\"3\"/><text class=\"v\" x=\"%.1f\" y=\"%u\">%s</text>\n",
	    BAR_LEFT - 10, y + 17, name, kind, BAR_LEFT, y + 5, width, BAR_LEFT + width + 8, y + 17,
	    value);
}

static void
svg_rows(const struct page *page, unsigned rows, const char *label)
{
	fprintf(page->out, "<svg viewBox=\"0 0 %d %u\" role=\"img\" aria-label=\"%s\">\n",
		PLOT_WIDTH, rows * ROW_HEIGHT, label);
}

static void
misses_by_reason(const struct page *page)
{
	const struct replay_counts *counts = page->counts;
	uint64_t most = HR_MAX(counts->behind_hole, (uint64_t)1), sum = 0;
	unsigned rows = counts->behind_hole != 0, row = 0;
	char value[96], a[REPORT_NUMBER_BYTES];

	for (int i = 0; i < HR_REASON_COUNT; i++) {
		most = HR_MAX(most, counts->misses[i]);
		sum += counts->misses[i];
		rows += counts->misses[i] != 0;
	}
	fprintf(
	    page->out,
	    "<section>\n<h2>Misses by reason</h2>\n<p>%s blocks were not there. <em>absent</em>: never stored, or gone longer than the store remembers; <em>evicted</em>: made room for others.</p>\n",
	    report_number(sum, a));
	svg_rows(page, HR_MAX(rows, 1u), "misses by reason");
	for (int i = 0; i < HR_REASON_COUNT; i++) {
		if (counts->misses[i] != 0) {
			snprintf(value, sizeof(value), "%s (%.1f %%)",
				 report_number(counts->misses[i], a),
				 percent(counts->misses[i], counts->blocks));
			bar(page, row++, hr_reason_name(i), (double)counts->misses[i] / (double)most,
			    i == HR_REASON_CORRUPT ? "fbad" : "fa", value);
		}
	}
	if (counts->behind_hole != 0) {
		snprintf(value, sizeof(value), "%s (%.1f %%)", report_number(counts->behind_hole, a),
			 percent(counts->behind_hole, counts->blocks));
		bar(page, row++, "behind a hole", (double)counts->behind_hole / (double)most, "fc",
		    value);
	}
	if (rows == 0) {
		bar(page, 0, "none", 0, "fa", "");
	}
	fputs("</svg>\n</section>\n", page->out);
}

static void
bytes_per_tier(const struct page *page)
{
	const struct replay_counts *counts = page->counts;
	uint64_t block = page->report->options->block_bytes;
	double seconds = HR_MAX((double)page->report->result->elapsed_us / 1e6, 1e-6);
	const struct {
		const char *name, *kind;
		uint64_t bytes;
	} tiers[] = {
		{ "read from DRAM", "fa", counts->gets_dram * block },
		{ "read from flash", "fb", counts->gets_flash * block },
		{ "read, tier not said", "fc", counts->gets_other * block },
		{ "stored", "fc", counts->bytes_put },
	};
	unsigned rows = counts->gets_other != 0 ? 4 : 3, row = 0;
	uint64_t most = 1;

	for (size_t i = 0; i < ARRAY_SIZE(tiers); i++) {
		most = HR_MAX(most, tiers[i].bytes);
	}
	fputs("<section>\n<h2>Bytes per tier</h2>\n<p>Payload that moved, and its mean rate over the whole replay.</p>\n",
	      page->out);
	svg_rows(page, rows, "bytes per tier");
	for (size_t i = 0; i < ARRAY_SIZE(tiers); i++) {
		char value[96], a[SIZE_TEXT_BYTES], b[SIZE_TEXT_BYTES];

		if (i == 2 && counts->gets_other == 0) {
			continue;
		}
		snprintf(value, sizeof(value), "%s, %s/s", size_format_short(tiers[i].bytes, a),
			 size_format_short((uint64_t)((double)tiers[i].bytes / seconds), b));
		bar(page, row++, tiers[i].name, (double)tiers[i].bytes / (double)most,
		    tiers[i].kind, value);
	}
	fputs("</svg>\n</section>\n", page->out);
}

/* -- latency ------------------------------------------------------------------------------------------------------------- */

static const char *
us_text(uint64_t us, char ret[32])
{
	if (us < 1000) {
		snprintf(ret, 32, "%llu µs", (unsigned long long)us);
	} else if (us < 1000000) {
		snprintf(ret, 32, "%.3g ms", (double)us / 1e3);
	} else {
		snprintf(ret, 32, "%.3g s", (double)us / 1e6);
	}
	return ret;
}

static const double percents[] = { 50, 90, 99, 99.9, 100 };

static uint64_t
latency_at(const struct histogram *histogram, size_t i)
{
	return percents[i] == 100 ? metric_get(&histogram->max)
				  : histogram_percentile(histogram, percents[i]);
}

/* Decades from 10^low to 10^high microseconds. */
static double
latency_x(uint64_t us, int low, int high)
{
	double decade = log10((double)HR_MAX(us, (uint64_t)1));

	return 70 + (PLOT_WIDTH - 70 - 30) * (decade - low) / (high - low);
}

static void
latency_rows(const struct page *page, const struct histogram *const *rows, const char *const *names,
	     size_t count)
{
	int low = 9, high = 1;

	for (size_t i = 0; i < count; i++) {
		if (metric_get(&rows[i]->count) != 0) {
			low = HR_MIN(low, (int)floor(log10((double)HR_MAX(latency_at(rows[i], 0),
									  (uint64_t)1))));
			high = HR_MAX(high,
				      (int)ceil(log10(
					  (double)HR_MAX(latency_at(rows[i], 4), (uint64_t)1) + 1)));
		}
	}
	low = HR_MIN(low, high - 1);
	fprintf(page->out, "<svg viewBox=\"0 0 %d %zu\" role=\"img\" aria-label=\"latency\">\n",
		PLOT_WIDTH, count * 40 + 30);
	for (int decade = low; decade <= high; decade++) {
		char text[32];
		double x = latency_x((uint64_t)pow(10, decade), low, high);

		fprintf(
		    page->out,
		    "<line class=\"grid\" x1=\"%.1f\" x2=\"%.1f\" y1=\"0\" y2=\"%zu\"/><text x=\"%.1f\" y=\"%zu\" text-anchor=\"middle\">%s</text>\n",
		    x, x, count * 40 + 6, x, count * 40 + 22,
		    us_text((uint64_t)pow(10, decade), text));
	}
	for (size_t i = 0; i < count; i++) {
		double y = (double)i * 40 + 22;

		fprintf(page->out,
			"<text class=\"v\" x=\"56\" y=\"%.0f\" text-anchor=\"end\">%s</text>\n",
			y + 4, names[i]);
		if (metric_get(&rows[i]->count) == 0) {
			continue;
		}
		fprintf(
		    page->out,
		    "<line class=\"curve la\" x1=\"%.1f\" x2=\"%.1f\" y1=\"%.0f\" y2=\"%.0f\" opacity=\".35\"/>\n",
		    latency_x(latency_at(rows[i], 0), low, high),
		    latency_x(latency_at(rows[i], 4), low, high), y, y);
		for (size_t k = 0; k < ARRAY_SIZE(percents); k++) {
			char text[32];

			fprintf(
			    page->out,
			    "<circle class=\"%s\" cx=\"%.1f\" cy=\"%.0f\" r=\"%d\"><title>%s %s: %s</title></circle>\n",
			    k == 4   ? "fc"
			    : k == 0 ? "fa"
				     : "fb",
			    latency_x(latency_at(rows[i], k), low, high), y, k == 0 ? 6 : 4,
			    names[i],
			    k == 4   ? "max"
			    : k == 0 ? "p50"
			    : k == 1 ? "p90"
			    : k == 2 ? "p99"
				     : "p99.9",
			    us_text(latency_at(rows[i], k), text));
		}
	}
	fputs("</svg>\n", page->out);
}

static void
latency(const struct page *page)
{
	const struct replay_result *result = page->report->result;
	const struct histogram *const rows[] = { result->get, result->put, result->exists };
	const char *const names[] = { "GET", "PUT", "EXISTS" };

	fputs("<section>\n<h2>Latency percentiles</h2>\n<p>Of a batch, from submission to completion, on a logarithmic axis: the large dot is the median, then p90, p99, p99.9; grey is the slowest.</p>\n",
	      page->out);
	latency_rows(page, rows, names, ARRAY_SIZE(rows));
	fputs("<table>\n<tr><th></th><th>batches</th><th>p50</th><th>p90</th><th>p99</th><th>p99.9</th><th>max</th></tr>\n",
	      page->out);
	for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
		char a[REPORT_NUMBER_BYTES], text[32];

		fprintf(page->out, "<tr><td>%s</td><td>%s</td>", names[i],
			report_number(metric_get(&rows[i]->count), a));
		for (size_t k = 0; k < ARRAY_SIZE(percents); k++) {
			fprintf(page->out, "<td>%s</td>", us_text(latency_at(rows[i], k), text));
		}
		fputs("</tr>\n", page->out);
	}
	fputs("</table>\n</section>\n", page->out);
}

/* -- what it saves, and the small print ---------------------------------------------------------------------------------- */

static void
savings(const struct page *page)
{
	const struct replay_report *report = page->report;
	const struct replay_counts *counts = page->counts;
	char line[512], a[REPORT_NUMBER_BYTES], b[REPORT_NUMBER_BYTES];

	fprintf(
	    page->out,
	    "<section>\n<h2>What it saves</h2>\n<p>%s of %s prompt tokens came from the store: %.1f of %.1f GPU-seconds of prefill need not be spent.</p>\n<p>Cost model: ",
	    report_number(counts->tokens_hit, a), report_number(counts->tokens_in, b),
	    counts->gpu_seconds_saved, counts->gpu_seconds_total);
	report_cost_line(report, line, sizeof(line));
	escape(page->out, line);
	fputs(". An estimate: it leaves out decoding, batching and the time to load.</p>\n</section>\n",
	      page->out);
}

static void
table_row(const struct page *page, const char *name, uint64_t value)
{
	char a[REPORT_NUMBER_BYTES];

	fprintf(page->out, "<tr><td>%s</td><td>%s</td></tr>\n", name, report_number(value, a));
}

static void
all_counts(const struct page *page)
{
	const struct replay_counts *counts = page->counts;

	fputs("<section>\n<h2>Counts</h2>\n<table>\n", page->out);
	table_row(page, "requests", counts->requests);
	table_row(page, "blocks asked for", counts->blocks);
	table_row(page, "usable-prefix hits", counts->prefix_hits);
	table_row(page, "there, but behind a block that was not", counts->behind_hole);
	table_row(page, "there at look-up, but not leased", counts->leases_refused);
	table_row(page, "there at look-up, and their GET was not OK", counts->lost_after_look);
	table_row(page, "blocks put and acknowledged", counts->puts);
	table_row(page, "of these, there already", counts->duplicates);
	table_row(page, "PUTs sent again because the store was busy", counts->busy_retries);
	if (page->report->result->has_write_counts) {
		table_row(page, "bytes written to flash", page->report->result->bytes_written);
		table_row(page, "payload in them, in pages of 4 KiB",
			  page->report->result->payload_bytes);
	}
	table_row(page, "wrong bytes", counts->wrong_bytes);
	fputs("</table>\n</section>\n", page->out);
}

int
replay_report_html(const struct replay_report *report, FILE *out)
{
	const struct page page = { .report = report, .counts = &report->result->counts, .out = out };

	head(&page);
	tiles(&page);
	hits_over_time(&page);
	misses_by_reason(&page);
	latency(&page);
	bytes_per_tier(&page);
	savings(&page);
	all_counts(&page);
	fprintf(out, "<footer>headrace %s</footer>\n</main>\n</body>\n</html>\n", hr_version());
	return ferror(out) != 0 ? -EIO : 0;
}
