/* replay.h — replays a trace against a store, the way an inference engine would use it, checking every byte.
 *
 * What:       per request: EXISTS of the chain with a lease; leases behind the first hole released; GET of the leading run
 *             that is there; PUT of the rest; the other leases released. GETs and PUTs go tail before head, in batches of which
 *             several are under way. A PUT that is refused as busy is sent again until it is accepted. Contents come from
 *             the key (content.h) and every byte of every GET is compared.
 *             Usable-prefix hits of a request = the leading run of its blocks whose GET was OK with the right bytes.
 * Not here:   printing (replay_report.h, report_html.h); what other caches would do (trace_sim.h).
 * Threads:    clients_count threads, each with a handle of its own and taking the next request in order; with one client
 *             requests run strictly one after the other, so that hits are exact.
 * Ownership:  the trace and the options are borrowed; replay_result_fini() frees what the result holds.
 * Errors:     0 or a negative error, with one line in detail; the result then holds what was done until then.
 * Limits:     buffers of window_bytes in all (at least one block a client).
 * Tests:      tests/unit/cli/test_replay.c (against a store in memory that loses, refuses and damages blocks)
 */
#ifndef HR_CLI_REPLAY_H
#define HR_CLI_REPLAY_H

#include <headrace/headrace.h>
#include <stdatomic.h>
#include <stdio.h>

#include "base/metric.h"
#include "cli/model.h"
#include "cli/trace.h"

enum { REPLAY_DETAIL_BYTES = 512 };

struct replay_options {
	const struct trace *trace;
	size_t first, count; /* requests [first, first + count) */
	uint64_t block_bytes;
	unsigned clients_count;
	uint8_t ack;
	double pace; /* 0: as fast as possible; 2: twice the trace's own pace */
	uint32_t lease_ms;
	uint64_t deadline_us; /* of each batch */
	uint64_t window_bytes;
	uint32_t down_wait_ms; /* how long to wait for a store that went away; then the replay ends */
	uint32_t ready_ms;     /* how long to wait for it at the beginning */
	const char *url;
	const char *token_file;
	const char *
	    space; /* NULL: a space made from trace, model and block size for each model of the trace */
	struct cost_model cost;
	FILE *acked; /* NULL, or gets the number of the node of each acknowledged block, one a line */
	/* Called now and then from one of the clients' threads, never from two at once. NULL: not. */
	void (*progress_cb)(void *cb_arg, uint64_t done, uint64_t total, uint64_t hits,
			    uint64_t blocks);
	void *cb_arg;
	const atomic_bool *stop; /* NULL, or ends the replay between two requests */
};

struct replay_counts {
	uint64_t requests;
	uint64_t blocks;		  /* references */
	uint64_t prefix_hits;		  /* usable-prefix hits */
	uint64_t behind_hole;		  /* there, but behind a block that was not: of no use */
	uint64_t misses[HR_REASON_COUNT]; /* by reason: not there at look-up, or their GET was not OK */
	uint64_t refused[HR_REASON_COUNT]; /* PUTs that were given up, by reason */
	uint64_t puts, duplicates, differs;
	uint64_t busy_retries; /* PUTs sent again because the store was busy */
	uint64_t wrong_blocks, wrong_bytes;
	uint64_t bytes_put; /* of blocks that were stored: not duplicates */
	uint64_t bytes_got; /* of GETs that were OK */
	uint64_t gets_dram, gets_flash, gets_other;
	uint64_t leases_refused;  /* there at look-up, but not leased */
	uint64_t lost_after_look; /* there at look-up, and their GET was not OK */
	double gpu_seconds_saved;
	double gpu_seconds_total; /* what computing every prompt would have taken */
	uint64_t tokens_hit, tokens_in;
};

struct replay_result {
	struct replay_counts counts;
	struct histogram *get, *put,
	    *exists; /* microseconds of a batch, from submission to completion */
	uint64_t elapsed_us;
	uint32_t *hits;			       /* per request of [first, first + count) */
	uint32_t *latency_us;		       /* per request: its whole time in the store */
	size_t hits_count;		       /* the count that was asked for */
	bool has_write_counts;		       /* the store said how much it wrote */
	uint64_t bytes_written, payload_bytes; /* during the replay */
	char store_version[32];
};

int replay_run(const struct replay_options *options, struct replay_result *ret_result, char *detail);
void replay_result_fini(struct replay_result *result);

/* GETs the nodes that an `acked` file lists. Counts them in requests/blocks/prefix_hits (= OK and right), misses and wrong_*. */
int replay_verify(const struct replay_options *options, const char *path,
		  struct replay_result *ret_result, char *detail);

/* Sum of two numbers over all objects of the store's statistics that carry both. False: there is none. */
bool replay_write_counts(const char *stat_json, uint64_t *ret_written, uint64_t *ret_payload);

/* Blocks that share a route: 16, or as many as make 16 MiB, at least one. */
uint32_t replay_run_blocks(uint64_t block_bytes);

#endif
