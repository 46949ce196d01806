/* stat_summary.h — what an operator looks at first, on a screenful: each node's state, room, hits, misses, refusals, queues and problems.
 *
 * What:       sums over the shards of each node of what STAT tells (docs/ops/stat.md), in words; with an earlier look, what happened
 *             a second. Lines that would say nothing (no miss, nothing refused, no problem) are left out.
 * Not here:   every counter (stat_text.h).
 * Tests:      tests/unit/cli/test_stat_summary.c
 */
#ifndef HR_CLI_STAT_SUMMARY_H
#define HR_CLI_STAT_SUMMARY_H

#include <jansson.h>
#include <stdio.h>

#include "base/base.h"

/* before: an earlier look at the same store, or NULL. */
void stat_summary_print(const json_t *now, const json_t *before, double seconds, FILE *out);

#endif
