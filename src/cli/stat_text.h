/* stat_text.h — any statistics as JSON, for people: an outline of everything, sizes with units, and rates between two looks.
 *
 * Tests:      tests/unit/cli/test_stat_text.c
 */
#ifndef HR_CLI_STAT_TEXT_H
#define HR_CLI_STAT_TEXT_H

#include <jansson.h>
#include <stdio.h>

#include "base/base.h"

/* before: an earlier look at the same statistics, or NULL; then numbers that grew show how much a second. */
void stat_text_print(const json_t *now, const json_t *before, double seconds, FILE *out);

/* "123456" as "123,456"; as a size when the name says bytes. whole: without decimals. */
void stat_text_number(const char *name, double value, bool whole, char *ret, size_t ret_bytes);

#endif
