/* trace_read.h — reads traces: .kvt text and Mooncake's JSON lines, either of them plain or as .xz.
 *
 * What:       .kvt: lines of seven tab-separated integers (t_ms session model in_tokens out_tokens hit_node n_new) below
 *             '#key value' headers. Mooncake: one JSON object a line with timestamp, input_length, output_length and hash_ids,
 *             an array of integers or the packed text "a+n b" (a, a+1 … a+n, b). The first byte that counts tells them apart.
 * Threads:    none shared; blocks on the file.
 * Errors:     0 or a negative errno; detail then says FILE:LINE, what is there and what was wanted. A damaged line ends the
 *             reading: a trace with a hole in it would give wrong figures that look right.
 * Limits:     64 MiB a line.
 * Tests:      tests/unit/cli/test_trace_read.c
 */
#ifndef HR_CLI_TRACE_READ_H
#define HR_CLI_TRACE_READ_H

#include "cli/trace.h"

enum { TRACE_MOONCAKE_BLOCK_TOKENS = 512 };

/* requests_max 0: all. detail has TRACE_DETAIL_BYTES. */
HR_WARN_UNUSED int
trace_read(const char *path, uint64_t requests_max, struct trace **ret_trace, char *detail);

#endif
