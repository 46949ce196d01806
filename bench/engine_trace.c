/* engine_trace.c — what the real engine makes of a trace: hits beside LRU's, and what it writes for them.
 *
 * What:       replays a trace request by request on a simulated device that keeps no values (lib/bulk.h), so that neither flash
 *             nor time is needed. policy_sim.c has the same for the policy alone.
 * Use:        engine_trace TRACE BLOCK_BYTES FRACTION [SEGMENT_BYTES [PAUSE_US]]
 *             FRACTION of the unique blocks × BLOCK_BYTES is the device, metadata and all. SEGMENT_BYTES 0: what format takes.
 *             PAUSE_US: simulated time between requests; 0 is back to back, 10000 lets every unit's linger end.
 * Prints:     one line of key=value.
 */
#include <stdio.h>
#include <stdlib.h>

#include "cli/trace.h"
#include "cli/trace_read.h"
#include "lib/bulk.h"

int
main(int argc, char **argv)
{
	char detail[TRACE_DETAIL_BYTES];
	struct bulk_options options = { .seed = 1, .engine = { .dram_bytes = MiB(64) } };
	struct bulk_replay replay;
	struct bulk *bulk;
	struct trace *trace;
	double ratio, write_amplification;
	uint64_t capacity;

	if (argc < 4 || argc > 6) {
		fprintf(
		    stderr,
		    "usage: engine_trace TRACE BLOCK_BYTES FRACTION [SEGMENT_BYTES [PAUSE_US]]\n");
		return 2;
	}
	if (trace_read(argv[1], 0, &trace, detail) != 0) {
		fprintf(stderr, "engine_trace: %s\n", detail);
		return 1;
	}
	options.value_bytes = (uint32_t)strtoul(argv[2], NULL, 0);
	capacity = (uint64_t)((double)trace_unique_count(trace) * strtod(argv[3], NULL));
	options.device_bytes = capacity * options.value_bytes;
	options.segment_bytes = argc > 4 ? strtoull(argv[4], NULL, 0) : 0;
	bulk = bulk_create(&options);
	bulk_replay(bulk, trace, argc > 5 ? strtoull(argv[5], NULL, 0) : 0, &replay);
	bulk_replay_report(bulk, trace, &replay, capacity, &ratio, &write_amplification);
	bulk_destroy(bulk);
	trace_destroy(trace);
	return 0;
}
