/* trace.c — see trace.h. */
#include "cli/trace.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

int
trace_create(const char *name, uint32_t block_tokens, struct trace **ret_trace)
{
	struct trace *trace = calloc(1, sizeof(*trace));

	if (trace == NULL) {
		return -ENOMEM;
	}
	snprintf(trace->name, sizeof(trace->name), "%s", name);
	trace->block_tokens = block_tokens;
	trace->nodes_room = 1024;
	trace->parent = calloc(trace->nodes_room, sizeof(*trace->parent));
	trace->depth = calloc(trace->nodes_room, sizeof(*trace->depth));
	trace->node_model = calloc(trace->nodes_room, sizeof(*trace->node_model));
	if (trace->parent == NULL || trace->depth == NULL || trace->node_model == NULL) {
		trace_destroy(trace);
		return -ENOMEM;
	}
	trace->nodes_count = 1;
	trace->node_model[0] = UINT32_MAX;
	*ret_trace = trace;
	return 0;
}

void
trace_destroy(struct trace *trace)
{
	if (trace == NULL) {
		return;
	}
	free(trace->requests);
	free(trace->parent);
	free(trace->depth);
	free(trace->node_model);
	free(trace);
}

static int
grow_u32(uint32_t **array, size_t room)
{
	uint32_t *grown = realloc(*array, room * sizeof(**array));

	if (grown == NULL) {
		return -ENOMEM;
	}
	*array = grown;
	return 0;
}

static int
reserve_nodes(struct trace *trace, size_t count)
{
	size_t room = trace->nodes_room;

	if (trace->nodes_count + count > UINT32_MAX - 1) {
		return -E2BIG;
	}
	while (room < trace->nodes_count + count) {
		room *= 2;
	}
	if (room == trace->nodes_room) {
		return 0;
	}
	if (grow_u32(&trace->parent, room) != 0 || grow_u32(&trace->depth, room) != 0 ||
	    grow_u32(&trace->node_model, room) != 0) {
		return -ENOMEM;
	}
	trace->nodes_room = room;
	return 0;
}

static int
reserve_request(struct trace *trace)
{
	size_t room = trace->requests_room == 0 ? 256 : trace->requests_room * 2;
	struct trace_request *grown;

	if (trace->requests_count < trace->requests_room) {
		return 0;
	}
	grown = realloc(trace->requests, room * sizeof(*grown));
	if (grown == NULL) {
		return -ENOMEM;
	}
	trace->requests = grown;
	trace->requests_room = room;
	return 0;
}

static void
add_nodes(struct trace *trace, const struct trace_row *row)
{
	uint32_t parent = row->hit_node;

	for (uint32_t i = 0; i < row->new_count; i++) {
		size_t node = trace->nodes_count++;

		trace->parent[node] = parent;
		trace->depth[node] = trace->depth[parent] + 1;
		trace->node_model[node] = row->model;
		parent = (uint32_t)node;
	}
}

int
trace_append(struct trace *trace, const struct trace_row *row)
{
	struct trace_request *request;
	int rc;

	if (row->hit_node >= trace->nodes_count) {
		return -EINVAL;
	}
	if (row->hit_node != 0 && trace->node_model[row->hit_node] != row->model) {
		return -EINVAL;
	}
	if (row->new_count > TRACE_CHAIN_MAX || row->model >= TRACE_MODELS_MAX ||
	    trace->depth[row->hit_node] + row->new_count > TRACE_CHAIN_MAX) {
		return -E2BIG;
	}
	rc = reserve_nodes(trace, row->new_count);
	if (rc == 0) {
		rc = reserve_request(trace);
	}
	if (rc != 0) {
		return rc;
	}
	request = &trace->requests[trace->requests_count++];
	*request = (struct trace_request){
		.t_ms = row->t_ms,
		.session = row->session,
		.model = row->model,
		.in_tokens = row->in_tokens,
		.out_tokens = row->out_tokens,
		.hit_node = row->hit_node,
		.first_new = (uint32_t)trace->nodes_count,
		.new_count = row->new_count,
		.blocks_count = trace->depth[row->hit_node] + row->new_count,
	};
	add_nodes(trace, row);
	trace->refs_count += request->blocks_count;
	trace->blocks_count_max = HR_MAX(trace->blocks_count_max, request->blocks_count);
	trace->models_count = HR_MAX(trace->models_count, row->model + 1);
	return 0;
}

size_t
trace_path(const struct trace *trace, const struct trace_request *request, uint32_t *nodes)
{
	uint32_t depth = trace->depth[request->hit_node];
	uint32_t node = request->hit_node;

	for (uint32_t i = depth; i > 0; i--) {
		nodes[i - 1] = node;
		node = trace->parent[node];
	}
	for (uint32_t i = 0; i < request->new_count; i++) {
		nodes[depth + i] = request->first_new + i;
	}
	return request->blocks_count;
}

int
trace_write(const struct trace *trace, const char *path, char *detail)
{
	FILE *out = fopen(path, "w");
	int rc = 0;

	if (out == NULL) {
		rc = -errno;
		snprintf(detail, TRACE_DETAIL_BYTES, "cannot write %s: %s", path, strerror(-rc));
		return rc;
	}
	fprintf(out, "#name %s\n#block_tokens %u\n", trace->name, trace->block_tokens);
	fprintf(out, "#columns t_ms session model in_tokens out_tokens hit_node n_new\n");
	for (size_t i = 0; i < trace->requests_count; i++) {
		const struct trace_request *r = &trace->requests[i];

		fprintf(out, "%" PRId64 "\t%" PRId64 "\t%u\t%u\t%u\t%u\t%u\n", r->t_ms, r->session,
			r->model, r->in_tokens, r->out_tokens, r->hit_node, r->new_count);
	}
	if (ferror(out) != 0) {
		rc = -EIO;
	}
	if (fclose(out) != 0 && rc == 0) {
		rc = -errno;
	}
	if (rc != 0) {
		snprintf(detail, TRACE_DETAIL_BYTES, "cannot write %s: %s", path, strerror(-rc));
	}
	return rc;
}

void
trace_check(const struct trace *trace)
{
	uint64_t refs = 0;
	size_t nodes = 1;

	for (size_t n = 1; n < trace->nodes_count; n++) {
		uint32_t parent = trace->parent[n];

		HR_ASSERTF(parent < n, "T1 node=%zu parent=%u", n, parent);
		HR_ASSERTF(trace->depth[n] == trace->depth[parent] + 1, "T2 node=%zu", n);
		HR_ASSERTF(parent == 0 || trace->node_model[parent] == trace->node_model[n],
			   "T4 node=%zu", n);
	}
	for (size_t i = 0; i < trace->requests_count; i++) {
		const struct trace_request *request = &trace->requests[i];

		HR_ASSERTF(request->hit_node < nodes, "T3 request=%zu", i);
		HR_ASSERTF(request->hit_node == 0 ||
			       trace->node_model[request->hit_node] == request->model,
			   "T4 request=%zu", i);
		HR_ASSERT(request->new_count == 0 || request->first_new == nodes);
		HR_ASSERT(request->blocks_count ==
			  trace->depth[request->hit_node] + request->new_count);
		nodes += request->new_count;
		refs += request->blocks_count;
	}
	HR_ASSERT(nodes == trace->nodes_count && refs == trace->refs_count);
}
