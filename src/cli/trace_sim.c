/* trace_sim.c — see trace_sim.h. */
#include "cli/trace_sim.h"

#include <errno.h>
#include <stdlib.h>

/* A list through arrays indexed by node: node 0, the root, is never cached and serves as the list's head. */
struct lru {
	struct lru_link {
		uint32_t newer, older; /* of the head: newer = the oldest, older = the newest */
	} * links;
	uint8_t *resident;
	uint64_t count, capacity;
};

static void
lru_unlink(struct lru *lru, uint32_t node)
{
	struct lru_link *link = &lru->links[node];

	lru->links[link->newer].older = link->older;
	lru->links[link->older].newer = link->newer;
}

static void
lru_push(struct lru *lru, uint32_t node)
{
	struct lru_link *head = &lru->links[0];
	struct lru_link *link = &lru->links[node];

	link->newer = 0;
	link->older = head->older;
	lru->links[head->older].newer = node;
	head->older = node;
}

/* True when the block was there. */
static bool
lru_touch(struct lru *lru, uint32_t node)
{
	bool hit = lru->resident[node];

	if (hit) {
		lru_unlink(lru, node);
		lru_push(lru, node);
		return true;
	}
	if (lru->capacity == 0) {
		return false;
	}
	if (lru->count == lru->capacity) {
		uint32_t victim = lru->links[0].newer;

		lru_unlink(lru, victim);
		lru->resident[victim] = 0;
		lru->count--;
	}
	lru_push(lru, node);
	lru->resident[node] = 1;
	lru->count++;
	return false;
}

int
trace_sim_lru(const struct trace *trace, size_t first, size_t count, uint64_t capacity_blocks,
	      uint32_t *hits, struct trace_sim_result *ret_result)
{
	struct lru lru = { .capacity = capacity_blocks };
	struct trace_sim_result result = { 0 };
	uint32_t *path = NULL;
	int rc = -ENOMEM;

	lru.links = calloc(trace->nodes_count, sizeof(*lru.links));
	lru.resident = calloc(trace->nodes_count, 1);
	path = calloc((size_t)trace->blocks_count_max + 1, sizeof(*path));
	if (lru.links == NULL || lru.resident == NULL || path == NULL) {
		goto out;
	}
	for (size_t i = 0; i < count; i++) {
		size_t blocks = trace_path(trace, &trace->requests[first + i], path);
		uint32_t h = 0;

		while (h < blocks && lru.resident[path[h]]) {
			h++;
		}
		for (size_t k = blocks; k-- > 0;) {
			result.block_hits += lru_touch(&lru, path[k]);
		}
		result.refs_count += blocks;
		result.prefix_hits += h;
		if (hits != NULL) {
			hits[i] = h;
		}
	}
	*ret_result = result;
	rc = 0;
out:
	free(lru.links);
	free(lru.resident);
	free(path);
	return rc;
}

/* Marks what was seen; a whole chain becomes resident at once, so the resident part of any chain is a prefix of it. */
static int
walk_seen(const struct trace *trace, size_t first, size_t count, uint32_t *hits,
	  struct trace_sim_result *result, uint64_t *unique)
{
	uint8_t *seen = calloc(trace->nodes_count, 1);
	uint32_t *path = calloc((size_t)trace->blocks_count_max + 1, sizeof(*path));
	int rc = -ENOMEM;

	if (seen == NULL || path == NULL) {
		goto out;
	}
	for (size_t i = 0; i < count; i++) {
		size_t blocks = trace_path(trace, &trace->requests[first + i], path);
		uint32_t h = 0;

		while (h < blocks && seen[path[h]]) {
			h++;
		}
		for (size_t k = h; k < blocks; k++) {
			seen[path[k]] = 1;
		}
		*unique += blocks - h;
		result->refs_count += blocks;
		result->prefix_hits += h;
		result->block_hits += h;
		if (hits != NULL) {
			hits[i] = h;
		}
	}
	rc = 0;
out:
	free(seen);
	free(path);
	return rc;
}

int
trace_sim_infinite(const struct trace *trace, size_t first, size_t count, uint32_t *hits,
		   struct trace_sim_result *ret_result)
{
	struct trace_sim_result result = { 0 };
	uint64_t unique = 0;
	int rc = walk_seen(trace, first, count, hits, &result, &unique);

	if (rc == 0) {
		*ret_result = result;
	}
	return rc;
}

int
trace_sim_unique(const struct trace *trace, size_t first, size_t count, uint64_t *ret_blocks)
{
	struct trace_sim_result result = { 0 };
	uint64_t unique = 0;
	int rc = walk_seen(trace, first, count, NULL, &result, &unique);

	if (rc == 0) {
		*ret_blocks = unique;
	}
	return rc;
}
