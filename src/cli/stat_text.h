/* stat_text.h — any statistics as JSON, for people: an outline, sizes with units, zeroes left out, and rates between two looks.
 *
 * Tests:      tests/unit/cli/test_stat_text.c
 */
#ifndef HR_CLI_STAT_TEXT_H
#define HR_CLI_STAT_TEXT_H

#include <jansson.h>
#include <stdio.h>

#include "base/base.h"

/* before: an earlier look at the same statistics, or NULL; then numbers that grew show how much a second. all: zeroes too. */
void stat_text_print(const json_t *now, const json_t *before, double seconds, bool all, FILE *out);

#endif
