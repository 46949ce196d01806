/* replay_chain.h — the blocks of one request: keys, routes, ids, and the items of its look-up.
 *
 * What:       block `node` of trace T has the key "kvt:T:node". Consecutive blocks share a route in runs of run_blocks: the
 *             first 8 bytes of the id of the run's first block.
 * Threads:    a chain belongs to one thread.
 * Tests:      tests/unit/cli/test_replay.c
 */
#ifndef HR_CLI_REPLAY_CHAIN_H
#define HR_CLI_REPLAY_CHAIN_H

#include <headrace/headrace.h>

#include "cli/trace.h"

enum { REPLAY_KEY_BYTES = 96 };

struct replay_key {
	uint16_t len;
	char text[REPLAY_KEY_BYTES - 2];
};

struct replay_chain {
	const struct trace *trace;
	uint32_t run_blocks;
	char prefix[TRACE_NAME_BYTES + 8]; /* "kvt:NAME:" */
	size_t prefix_len;
	struct hr_space *space; /* of the request's model */
	size_t room, count;
	uint32_t *nodes;
	struct replay_key *keys;
	struct hr_item *look; /* look-up items; keep the leases' flags until they are released */
	uint8_t *got;	      /* GET was OK with the right bytes */
	uint8_t (*ids)[16];   /* those from ids_from on are set */
	size_t ids_from;
};

int replay_chain_init(struct replay_chain *chain, const struct trace *trace, uint32_t run_blocks);
void replay_chain_fini(struct replay_chain *chain);

/* Makes it the chain of a request, every look-up item ready to be submitted. */
void replay_chain_load(struct replay_chain *chain, struct hr_space *space,
		       const struct trace_request *request);
/* Makes it the chain that ends in a node: what the route of that node needs. */
void replay_chain_load_node(struct replay_chain *chain, struct hr_space *space, uint32_t node);
/* Computes the ids of blocks [from, count). */
void replay_chain_ids(struct replay_chain *chain, size_t from);

#endif
