/* fuzz_trace.c - traces from outside, .kvt and JSON lines, plain and .xz: what is read keeps the trace's invariants, what is not
 * says why.
 */
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include "cli/trace_read.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void
walk(const struct trace *trace)
{
	uint32_t *nodes = calloc((size_t)trace->blocks_count_max + 1, sizeof(*nodes));

	HR_ASSERT(nodes != NULL);
	for (size_t i = 0; i < trace->requests_count; i++) {
		size_t count = trace_path(trace, &trace->requests[i], nodes);

		HR_ASSERT(count == trace->requests[i].blocks_count);
		for (size_t k = 1; k < count; k++) {
			HR_ASSERT(trace->parent[nodes[k]] == nodes[k - 1]);
		}
	}
	free(nodes);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	char path[64], detail[TRACE_DETAIL_BYTES];
	int fd = memfd_create("trace", MFD_CLOEXEC);
	struct trace *trace;

	HR_ASSERT(fd >= 0 && write(fd, data, size) == (ssize_t)size);
	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	if (trace_read(path, 0, &trace, detail) == 0) {
		trace_check(trace);
		walk(trace);
		trace_destroy(trace);
	} else {
		HR_ASSERT(detail[0] != '\0');
	}
	close(fd);
	return 0;
}
