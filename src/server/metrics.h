/* metrics.h - statistics as Prometheus text (docs/ops/metrics.md): names, types and help in one table over STAT's JSON.
 *
 * Threads:    pure functions.
 * Invariants: a name has one HELP, one TYPE, and no two samples with the same labels.
 * Tests:      tests/unit/server/test_metrics.c (also that the page lists every name)
 */
#ifndef HR_SERVER_METRICS_H
#define HR_SERVER_METRICS_H

#include <jansson.h>
#include <stdio.h>

/* malloc'ed text; NULL: out of memory. */
char *metrics_format(const json_t *stat);
/* The table as the page has it: one Markdown row per metric. */
void metrics_doc_print(FILE *out);

#endif
