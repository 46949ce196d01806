/* replay_report.h — what a replay gave, as JSON, as text for people, and as one HTML page.
 *
 * What:       the page is self-contained: plots are inline SVG, there is no script and nothing to load, and it reads well in
 *             light and dark.
 * Threads:    one.
 * Errors:     0 or a negative errno.
 * Tests:      tests/unit/cli/test_replay_report.c
 */
#ifndef HR_CLI_REPLAY_REPORT_H
#define HR_CLI_REPLAY_REPORT_H

#include <jansson.h>
#include <stdio.h>

#include "cli/replay.h"

struct replay_report {
	const struct replay_options *options;
	const struct replay_result *result;
	const char *gpu_name;
	const char *source; /* what the trace is: a path, or "generated chat, seed 1" */
	bool interrupted;
	/* Exact simulations of the same requests; the arrays have options->count entries. */
	uint64_t infinite_hits;
	uint32_t *infinite;
	uint64_t lru_blocks; /* 0: not simulated */
	uint64_t lru_hits;
	uint32_t *lru;
};

/* Simulates: capacity_bytes 0 = without LRU. */
int replay_report_simulate(struct replay_report *report, uint64_t capacity_bytes);
/* The result is there: of a replay that ended early the simulations count only the requests that were replayed. */
void replay_report_cut(struct replay_report *report);
void replay_report_fini(struct replay_report *report);

json_t *replay_report_json(const struct replay_report *report);
void replay_report_text(const struct replay_report *report, FILE *out);
int replay_report_html(const struct replay_report *report, FILE *out);

/* "1,234,567" */
enum { REPORT_NUMBER_BYTES = 32 };
const char *report_number(uint64_t value, char ret_text[REPORT_NUMBER_BYTES]);
/* The cost model in one line. */
void report_cost_line(const struct replay_report *report, char *ret_line, size_t bytes);
/* Bytes written ÷ payload, or 0 when the store did not say. */
double report_write_amplification(const struct replay_result *result);

#endif
