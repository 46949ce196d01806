/* dram_sim.c — what share of a trace's block references the DRAM tier serves, by replacement policy.
 *
 * What:       S3-FIFO is the engine's own cache.c, over an arena whose memory is never touched; LRU and SIEVE are written here,
 *             with the same capacity. Flash below is endless. References as the engine sees them: the blocks of the prefix
 *             that was seen before are read, first to last; the others are written, last to first, and stay in DRAM.
 * Use:        dram_sim TRACE FRACTION
 */
#include <stdio.h>
#include <stdlib.h>

#include "base/base.h"
#include "cli/trace.h"
#include "cli/trace_read.h"
#include "engine/cache.h"

enum { BLOCK_BYTES = 65536, NONE = 0 }; /* Node 0 is the root and never a block. */

/* A list of nodes, newest at the head: LRU, and SIEVE with its hand. */
struct nodes_list {
	uint32_t *next, *prev;
	uint8_t *resident, *visited;
	uint32_t head, tail, hand;
	uint64_t count;
};

static struct nodes_list
nodes_list_make(size_t nodes_count)
{
	return (struct nodes_list){
		.next = calloc(nodes_count, sizeof(uint32_t)),
		.prev = calloc(nodes_count, sizeof(uint32_t)),
		.resident = calloc(nodes_count, 1),
		.visited = calloc(nodes_count, 1),
	};
}

static void
nodes_list_remove(struct nodes_list *l, uint32_t node)
{
	*(l->prev[node] != NONE ? &l->next[l->prev[node]] : &l->head) = l->next[node];
	*(l->next[node] != NONE ? &l->prev[l->next[node]] : &l->tail) = l->prev[node];
	l->resident[node] = 0;
	l->count--;
}

static void
nodes_list_push(struct nodes_list *l, uint32_t node)
{
	l->prev[node] = NONE;
	l->next[node] = l->head;
	*(l->head != NONE ? &l->prev[l->head] : &l->tail) = node;
	l->head = node;
	l->resident[node] = 1;
	l->count++;
}

static bool
lru_use(struct nodes_list *l, uint32_t node, uint64_t capacity)
{
	bool hit = l->resident[node];

	if (hit) {
		nodes_list_remove(l, node);
	} else if (l->count == capacity) {
		nodes_list_remove(l, l->tail);
	}
	nodes_list_push(l, node);
	return hit;
}

static bool
sieve_use(struct nodes_list *l, uint32_t node, uint64_t capacity)
{
	if (l->resident[node]) {
		l->visited[node] = 1;
		return true;
	}
	if (l->count == capacity) {
		uint32_t at = l->hand != NONE ? l->hand : l->tail;

		while (l->visited[at]) {
			l->visited[at] = 0;
			at = l->prev[at] != NONE ? l->prev[at] : l->tail;
		}
		l->hand = l->prev[at];
		nodes_list_remove(l, at);
	}
	l->visited[node] = 0;
	nodes_list_push(l, node);
	return false;
}

static bool
cache_use(struct cache *cache, uint32_t node)
{
	struct cache_entry *entry = cache_find(cache, node, node, true);
	bool hit = entry != NULL;

	if (!hit) {
		if (cache_new(cache, 0, BLOCK_BYTES, &entry) != 0) {
			exit(1);
		}
		cache_publish(cache, entry, node, node);
	}
	cache_unref(cache, entry);
	return hit;
}

struct sims {
	struct cache *cache;
	struct nodes_list lru, sieve;
	uint64_t capacity;
	uint64_t reads, s3fifo_hits, lru_hits, sieve_hits;
};

static void
use(struct sims *sims, uint32_t node, bool read)
{
	bool s3fifo = cache_use(sims->cache, node);
	bool lru = lru_use(&sims->lru, node, sims->capacity);
	bool sieve = sieve_use(&sims->sieve, node, sims->capacity);

	if (read) {
		sims->reads++;
		sims->s3fifo_hits += s3fifo;
		sims->lru_hits += lru;
		sims->sieve_hits += sieve;
	}
}

int
main(int argc, char **argv)
{
	struct sims sims = { 0 };
	struct arena *arena;
	struct trace *trace;
	char detail[TRACE_DETAIL_BYTES];
	uint32_t *nodes;

	if (argc != 3) {
		fprintf(stderr, "usage: dram_sim TRACE FRACTION\n");
		return 2;
	}
	if (trace_read(argv[1], 0, &trace, detail) != 0) {
		fprintf(stderr, "dram_sim: %s\n", detail);
		return 1;
	}
	sims.capacity = (uint64_t)((double)trace_unique_count(trace) * strtod(argv[2], NULL));
	if (arena_create(sims.capacity * BLOCK_BYTES, &arena) != 0 ||
	    cache_create(arena, &sims.cache) != 0) {
		return 1;
	}
	sims.capacity = arena_bytes_max(arena) / BLOCK_BYTES; /* Whole chunks. */
	sims.lru = nodes_list_make(trace->nodes_count);
	sims.sieve = nodes_list_make(trace->nodes_count);
	nodes = calloc(trace->blocks_count_max, sizeof(*nodes));
	for (size_t r = 0; r < trace->requests_count; r++) {
		const struct trace_request *request = &trace->requests[r];
		size_t n = trace_path(trace, request, nodes);
		size_t seen = n - request->new_count;

		for (size_t i = 0; i < seen; i++) {
			use(&sims, nodes[i], true);
		}
		for (size_t i = n; i > seen; i--) {
			use(&sims, nodes[i - 1], false);
		}
	}
	printf("trace=%s capacity=%llu reads=%llu s3fifo=%.4f sieve=%.4f lru=%.4f\n", trace->name,
	       (unsigned long long)sims.capacity, (unsigned long long)sims.reads,
	       (double)sims.s3fifo_hits / (double)sims.reads,
	       (double)sims.sieve_hits / (double)sims.reads,
	       (double)sims.lru_hits / (double)sims.reads);
	return 0;
}
