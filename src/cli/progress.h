/* progress.h — a progress bar on a terminal; nothing in a pipe.
 *
 * What:       one line on standard error that is written over at most ten times a second, and wiped at the end.
 * Threads:    one.
 * Tests:      tests/unit/cli/test_progress.c
 */
#ifndef HR_CLI_PROGRESS_H
#define HR_CLI_PROGRESS_H

#include <stdio.h>

#include "base/base.h"

struct progress {
	FILE *out; /* NULL: not a terminal, say nothing */
	const char *what;
	uint64_t started_us, shown_us;
	bool shown;
};

/* `what` is borrowed. quiet: never show anything. */
void progress_start(struct progress *progress, const char *what, bool quiet);
/* note: more to say behind the bar, or NULL. total 0: not known yet. */
void progress_show(struct progress *progress, uint64_t done, uint64_t total, const char *note);
void progress_end(struct progress *progress);

/* The line itself, for `width` columns. */
void progress_line(char *ret, size_t ret_bytes, unsigned width, const char *what, uint64_t done,
		   uint64_t total, uint64_t elapsed_us, const char *note);

uint64_t cli_now_us(void); /* CLOCK_MONOTONIC */

#endif
