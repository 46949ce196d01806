/* trace_lines.h — lines of a text file, plain or .xz, one at a time.
 *
 * What:       opens PATH ("-" is standard input), looks at its first bytes, and decompresses on the fly when they are xz's.
 * Errors:     0 or a negative errno, with one factual line in detail (TRACE_DETAIL_BYTES).
 * Limits:     TRACE_LINE_BYTES_MAX a line; memory is one line and two buffers of 64 KiB.
 * Tests:      tests/unit/cli/test_trace_read.c
 */
#ifndef HR_CLI_TRACE_LINES_H
#define HR_CLI_TRACE_LINES_H

#include "base/base.h"

enum { TRACE_LINE_BYTES_MAX = 64 << 20 };

struct trace_lines;

HR_WARN_UNUSED int trace_lines_open(const char *path, struct trace_lines **ret_lines, char *detail);
/* 1 and the line without its newline (NUL-terminated, good until the next call); 0 at the end; or a negative error. */
int trace_lines_next(struct trace_lines *lines, char **ret_line, size_t *ret_len, char *detail);
/* Number of the line given last, from 1. */
uint64_t trace_lines_number(const struct trace_lines *lines);
void trace_lines_close(struct trace_lines *lines);

#endif
