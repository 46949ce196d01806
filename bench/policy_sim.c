/* policy_sim.c — what the segment log and its eviction policy make of a trace, without any io.
 *
 * What:       drives a policy of evict.h with the block references of a trace the way the engine does: one open segment for
 *             what is new and one for survivors, a reserve of free segments, victims and survivors by the policy's word, the
 *             survivor budget of evict.h. Resident is exactly what the segments hold. Order R of the traces' expected results:
 *             look up the prefix, then touch or insert each block of the request from its last to its first.
 * Use:        policy_sim TRACE BLOCK_BYTES FRACTION [SEGMENT_BYTES]
 * Prints:     one line of key=value: hits, LRU's hits at the same capacity, their ratio, write amplification.
 */
#include <stdio.h>
#include <stdlib.h>

#include "base/base.h"
#include "cli/trace.h"
#include "cli/trace_read.h"
#include "cli/trace_sim.h"
#include "engine/evict.h"

enum {
	PAGE_BYTES = 4096,
	META_BYTES = 1 << 20,
	UNIT_BYTES = 4 << 20,
	DESC_BYTES = 204, /* 160, a key of 40, one CRC */
	RESERVE_SEGMENTS = 1,
	FREED_MARKS_BYTES = 2 * PAGE_BYTES,
	LIMIT_PERMILLE = 1170,
};

struct block {
	uint32_t segment; /* UINT32_MAX: not resident. */
	uint16_t recency;
};

struct segment {
	enum { FREE, OPEN, SEALED } state;
	uint32_t blocks_count;
	uint32_t *blocks;
};

struct sim {
	const struct trace *trace;
	const struct evict_policy *policy;
	struct evict *evict;
	struct block *blocks;
	struct segment *segments;
	uint32_t segments_count, blocks_a_segment, free_count;
	uint32_t pages_a_block;
	uint64_t block_bytes;
	uint64_t segment_meta_bytes;
	uint32_t open[2]; /* Fresh, survivors; UINT32_MAX: none. */
	struct evict_budget budget;
	size_t aged;
	uint64_t hits, victims, carried_blocks, evicted_blocks, hot_lost;
};

enum { FRESH, SURVIVOR };

static uint32_t
segment_take(struct sim *sim)
{
	for (uint32_t i = 0; i < sim->segments_count; i++) {
		if (sim->segments[i].state == FREE) {
			sim->segments[i].state = OPEN;
			sim->segments[i].blocks_count = 0;
			sim->free_count--;
			return i;
		}
	}
	fprintf(stderr, "no free segment\n");
	exit(1);
}

static uint32_t
append(struct sim *sim, int which, uint32_t node)
{
	struct segment *seg;

	if (sim->open[which] == UINT32_MAX) {
		sim->open[which] = segment_take(sim);
	}
	seg = &sim->segments[sim->open[which]];
	seg->blocks[seg->blocks_count++] = node;
	sim->budget.written_bytes += sim->block_bytes;
	*(which == FRESH ? &sim->budget.payload_bytes : &sim->budget.survivor_bytes) +=
	    sim->block_bytes;
	return sim->open[which];
}

static void
seal_if_full(struct sim *sim, int which)
{
	struct segment *seg;

	if (sim->open[which] == UINT32_MAX) {
		return;
	}
	seg = &sim->segments[sim->open[which]];
	if (seg->blocks_count == sim->blocks_a_segment) {
		seg->state = SEALED;
		sim->open[which] = UINT32_MAX;
		sim->budget.written_bytes += sim->segment_meta_bytes;
	}
}

static bool
eligible(void *arg, uint32_t segment)
{
	const struct sim *sim = arg;

	return sim->segments[segment].state == SEALED;
}

static const struct sim *g_sorting;

static int
by_worth(const void *a, const void *b)
{
	const struct sim *sim = g_sorting;
	uint32_t na = *(const uint32_t *)a, nb = *(const uint32_t *)b;
	uint32_t wa = sim->policy->worth(sim->evict, sim->blocks[na].recency);
	uint32_t wb = sim->policy->worth(sim->evict, sim->blocks[nb].recency);

	return wa < wb ? 1 : wa > wb ? -1 : (na < nb ? -1 : 1);
}

static void
reclaim(struct sim *sim)
{
	uint64_t budget_pages = evict_budget_pages(&sim->budget);
	struct segment *seg;
	uint32_t *live;
	uint32_t victim, live_count = 0;

	sim->policy->budget(sim->evict, budget_pages);
	victim = sim->policy->victim(sim->evict, eligible, sim);
	seg = &sim->segments[victim];
	live = malloc(seg->blocks_count * sizeof(*live));
	for (uint32_t i = 0; i < seg->blocks_count; i++) {
		if (sim->blocks[seg->blocks[i]].segment == victim) {
			live[live_count++] = seg->blocks[i];
		}
	}
	g_sorting = sim;
	qsort(live, live_count, sizeof(*live), by_worth);
	for (uint32_t i = 0; i < live_count; i++) {
		struct block *block = &sim->blocks[live[i]];
		bool hot = sim->policy->worth(sim->evict, block->recency) > 0;

		sim->policy->remove(sim->evict, victim, sim->pages_a_block, block->recency);
		if (hot && budget_pages >= sim->pages_a_block) {
			budget_pages -= sim->pages_a_block;
			block->segment = append(sim, SURVIVOR, live[i]);
			sim->policy->insert_carried(sim->evict, block->segment, sim->pages_a_block,
						    block->recency);
			seal_if_full(sim, SURVIVOR);
			sim->carried_blocks++;
		} else {
			block->segment = UINT32_MAX;
			sim->evicted_blocks++;
			sim->hot_lost += hot;
		}
	}
	free(live);
	sim->victims++;
	seg->state = FREE;
	sim->free_count++;
	sim->budget.written_bytes += FREED_MARKS_BYTES;
}

static void
use(struct sim *sim, uint32_t node)
{
	struct block *block = &sim->blocks[node];

	if (block->segment != UINT32_MAX) {
		block->recency = sim->policy->touch(sim->evict, block->segment, sim->pages_a_block,
						    block->recency);
		return;
	}
	if (sim->open[FRESH] == UINT32_MAX) {
		while (sim->free_count <= RESERVE_SEGMENTS) {
			reclaim(sim);
		}
	}
	block->segment = append(sim, FRESH, node);
	block->recency = sim->policy->insert(sim->evict, block->segment, sim->pages_a_block);
	seal_if_full(sim, FRESH);
}

/* As the engine does with a sub-table of its index. */
static void
age_some(struct sim *sim)
{
	for (size_t i = sim->aged++ % 1024; i < sim->trace->nodes_count; i += 1024) {
		if (sim->blocks[i].segment != UINT32_MAX) {
			sim->blocks[i].recency =
			    sim->policy->age(sim->evict, sim->blocks[i].recency);
		}
	}
}

static void
run(struct sim *sim)
{
	uint32_t *nodes = malloc(sim->trace->blocks_count_max * sizeof(*nodes));

	for (size_t r = 0; r < sim->trace->requests_count; r++) {
		size_t n = trace_path(sim->trace, &sim->trace->requests[r], nodes);
		size_t hits = 0;

		while (hits < n && sim->blocks[nodes[hits]].segment != UINT32_MAX) {
			hits++;
		}
		sim->hits += hits;
		for (size_t i = n; i > 0; i--) {
			use(sim, nodes[i - 1]);
		}
		while (sim->policy->age_due(sim->evict)) {
			age_some(sim);
		}
	}
	free(nodes);
}

static void
setup(struct sim *sim, uint64_t device_bytes, uint64_t block_bytes, uint64_t segment_bytes)
{
	uint64_t unit_blocks = UNIT_BYTES / block_bytes;
	uint64_t header_bytes = align_up(128 + unit_blocks * DESC_BYTES, PAGE_BYTES);
	uint64_t blocks = segment_bytes / block_bytes;
	struct evict_options options;

	/* Headers of the units, and a footer with all descriptors. */
	for (;; blocks--) {
		sim->segment_meta_bytes = div_round_up(blocks, unit_blocks) * header_bytes +
					  align_up(128 + blocks * DESC_BYTES, PAGE_BYTES);
		if (blocks * block_bytes + sim->segment_meta_bytes <= segment_bytes) {
			break;
		}
	}
	sim->blocks_a_segment = (uint32_t)blocks;
	sim->block_bytes = block_bytes;
	sim->pages_a_block = (uint32_t)(block_bytes / PAGE_BYTES);
	sim->segments_count = (uint32_t)((device_bytes - META_BYTES) / segment_bytes);
	sim->free_count = sim->segments_count;
	sim->segments = calloc(sim->segments_count, sizeof(*sim->segments));
	for (uint32_t i = 0; i < sim->segments_count; i++) {
		sim->segments[i].blocks = calloc(blocks, sizeof(uint32_t));
	}
	sim->blocks = malloc(sim->trace->nodes_count * sizeof(*sim->blocks));
	memset(sim->blocks, 0xff, sim->trace->nodes_count * sizeof(*sim->blocks));
	sim->open[FRESH] = sim->open[SURVIVOR] = UINT32_MAX;
	options = (struct evict_options){
		.segments_count = sim->segments_count,
		.capacity_pages = sim->segments_count * blocks * sim->pages_a_block,
	};
	sim->budget.victim_bytes = blocks * block_bytes;
	sim->budget.segments_count = sim->segments_count;
	sim->budget.limit_permille = LIMIT_PERMILLE;
	if (sim->policy->create(&options, &sim->evict) != 0) {
		exit(1);
	}
}

int
main(int argc, char **argv)
{
	struct sim sim = { .policy = &evict_lru };
	struct trace_sim_result lru, infinite;
	struct trace *trace;
	char detail[TRACE_DETAIL_BYTES];
	uint64_t block_bytes, segment_bytes, capacity;
	double fraction;

	if (argc < 4 || argc > 5) {
		fprintf(stderr, "usage: policy_sim TRACE BLOCK_BYTES FRACTION [SEGMENT_BYTES]\n");
		return 2;
	}
	block_bytes = strtoull(argv[2], NULL, 0);
	fraction = strtod(argv[3], NULL);
	segment_bytes = argc > 4 ? strtoull(argv[4], NULL, 0) : MiB(8);
	if (trace_read(argv[1], 0, &trace, detail) != 0) {
		fprintf(stderr, "policy_sim: %s\n", detail);
		return 1;
	}
	sim.trace = trace;
	capacity = (uint64_t)((double)trace_unique_count(trace) * fraction);
	setup(&sim, capacity * block_bytes, block_bytes, segment_bytes);
	run(&sim);
	if (trace_sim_lru(trace, 0, trace->requests_count, capacity, NULL, &lru) != 0 ||
	    trace_sim_infinite(trace, 0, trace->requests_count, NULL, &infinite) != 0) {
		return 1;
	}
	printf("trace=%s capacity=%llu segments=%u blocks_a_segment=%u hits=%llu lru=%llu "
	       "infinite=%llu ratio=%.5f write_amplification=%.4f victims=%llu carried=%llu "
	       "evicted=%llu hot_lost=%llu\n",
	       trace->name, (unsigned long long)capacity, sim.segments_count, sim.blocks_a_segment,
	       (unsigned long long)sim.hits, (unsigned long long)lru.prefix_hits,
	       (unsigned long long)infinite.prefix_hits, (double)sim.hits / (double)lru.prefix_hits,
	       (double)sim.budget.written_bytes / (double)sim.budget.payload_bytes,
	       (unsigned long long)sim.victims, (unsigned long long)sim.carried_blocks,
	       (unsigned long long)sim.evicted_blocks, (unsigned long long)sim.hot_lost);
	return 0;
}
