/* trace.h — a trace of LLM requests with their block structure, in memory.
 *
 * What:       requests in order of arrival, and the tree of the blocks they refer to. A node of the tree is one block: its
 *             content and everything before it. Node 0 is the root (the empty prefix); nodes are numbered from 1 in order of
 *             first appearance, so that a request is path(root … hit_node) followed by new_count fresh nodes.
 * Not here:   where traces come from (trace_read.h, trace_gen.h), what a cache makes of them (trace_sim.h).
 * Threads:    read-only once built; any number of readers.
 * Ownership:  trace_destroy() frees everything; NULL is fine.
 * Errors:     0 or a negative errno.
 * Invariants: T1 parent[n] < n. T2 depth[n] == depth[parent[n]] + 1. T3 a request's hit_node appeared in an earlier request
 *             or is 0. T4 requests of different models share no node but the root.
 * Limits:     2^32 − 2 nodes.
 * Tests:      tests/unit/cli/test_trace.c
 */
#ifndef HR_CLI_TRACE_H
#define HR_CLI_TRACE_H

#include "base/base.h"

enum {
	TRACE_NAME_BYTES = 64,
	TRACE_DETAIL_BYTES = 512,
	TRACE_MODELS_MAX = 4096,
	TRACE_CHAIN_MAX = 16 << 20, /* Blocks of one request; a trace that says more is damaged. */
};

struct trace_request {
	int64_t t_ms;
	int64_t session; /* −1: unknown */
	uint32_t model;
	uint32_t in_tokens;
	uint32_t out_tokens;
	uint32_t hit_node;
	uint32_t first_new; /* Number of its first fresh node; meaningless when new_count is 0. */
	uint32_t new_count;
	uint32_t blocks_count;
	uint32_t pad; /* Zero: equal requests are equal bytes. */
};

struct trace {
	char name[TRACE_NAME_BYTES];
	uint32_t block_tokens;
	uint32_t models_count;
	struct trace_request *requests;
	size_t requests_count, requests_room;
	uint32_t *parent; /* [nodes_count], [0] is the root */
	uint32_t *depth;
	uint32_t *node_model;
	size_t nodes_count, nodes_room; /* The root included. */
	uint64_t refs_count;		/* Sum of blocks_count. */
	uint32_t blocks_count_max;
};

int trace_create(const char *name, uint32_t block_tokens, struct trace **ret_trace);
void trace_destroy(struct trace *trace);

/* What a caller says of a request; the rest follows from the tree. */
struct trace_row {
	int64_t t_ms;
	int64_t session;
	uint32_t model;
	uint32_t in_tokens;
	uint32_t out_tokens;
	uint32_t hit_node;
	uint32_t new_count;
};

/* Adds a request and its fresh nodes. -EINVAL: hit_node is not there yet or belongs to another model; -E2BIG: too many blocks
 * or models; -ENOMEM. On failure nothing was added. */
HR_WARN_UNUSED int trace_append(struct trace *trace, const struct trace_row *row);

/* The request's nodes, root side first; nodes[] has room for blocks_count. Returns blocks_count. */
size_t trace_path(const struct trace *trace, const struct trace_request *request, uint32_t *nodes);

/* Blocks that occur: nodes without the root. */
static inline uint64_t
trace_unique_count(const struct trace *trace)
{
	return trace->nodes_count - 1;
}

/* Writes it as .kvt. detail (TRACE_DETAIL_BYTES) names what failed. */
int trace_write(const struct trace *trace, const char *path, char *detail);

/* T1 … T4, by assertion; for tests and fuzzers. */
void trace_check(const struct trace *trace);

#endif
