/* replay_chain.c — see replay_chain.h. */
#include "cli/replay_chain.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

int
replay_chain_init(struct replay_chain *chain, const struct trace *trace, uint32_t run_blocks)
{
	size_t room = (size_t)trace->blocks_count_max + 1;

	*chain = (struct replay_chain){ .trace = trace, .run_blocks = run_blocks, .room = room };
	chain->prefix_len =
	    (size_t)snprintf(chain->prefix, sizeof(chain->prefix), "kvt:%s:", trace->name);
	chain->nodes = calloc(room, sizeof(*chain->nodes));
	chain->keys = calloc(room, sizeof(*chain->keys));
	chain->look = calloc(room, sizeof(*chain->look));
	chain->got = calloc(room, sizeof(*chain->got));
	chain->ids = calloc(room, sizeof(*chain->ids));
	if (chain->nodes == NULL || chain->keys == NULL || chain->look == NULL ||
	    chain->got == NULL || chain->ids == NULL) {
		replay_chain_fini(chain);
		return -ENOMEM;
	}
	return 0;
}

void
replay_chain_fini(struct replay_chain *chain)
{
	free(chain->nodes);
	free(chain->keys);
	free(chain->look);
	free(chain->got);
	free(chain->ids);
	*chain = (struct replay_chain){ 0 };
}

static void
make_key(const struct replay_chain *chain, uint32_t node, struct replay_key *key)
{
	char digits[16];
	size_t n = 0;

	do {
		digits[n++] = (char)('0' + node % 10);
		node /= 10;
	} while (node != 0);
	memcpy(key->text, chain->prefix, chain->prefix_len);
	key->len = (uint16_t)(chain->prefix_len + n);
	for (char *at = key->text + chain->prefix_len; n > 0; at++) {
		*at = digits[--n];
	}
}

static void
make_items(struct replay_chain *chain)
{
	uint64_t route = 0;

	for (size_t i = 0; i < chain->count; i++) {
		struct replay_key *key = &chain->keys[i];

		make_key(chain, chain->nodes[i], key);
		if (i % chain->run_blocks == 0) {
			uint8_t id[16];

			HR_ASSERT(hr_block_id(chain->space, key->text, key->len, id) == 0);
			route = hr_route_of_id(id);
		}
		chain->got[i] = 0;
		chain->look[i] = (struct hr_item){
			.key = key->text,
			.key_len = key->len,
			.flags = HR_ITEM_ROUTE,
			.route = route,
			.position = (uint32_t)i,
		};
	}
	chain->ids_from = chain->count;
}

void
replay_chain_load(struct replay_chain *chain, struct hr_space *space,
		  const struct trace_request *request)
{
	chain->space = space;
	chain->count = trace_path(chain->trace, request, chain->nodes);
	make_items(chain);
}

void
replay_chain_load_node(struct replay_chain *chain, struct hr_space *space, uint32_t node)
{
	const struct trace_request request = { .hit_node = node,
					       .blocks_count = chain->trace->depth[node] };

	replay_chain_load(chain, space, &request);
}

void
replay_chain_ids(struct replay_chain *chain, size_t from)
{
	for (size_t i = from; i < chain->ids_from; i++) {
		HR_ASSERT(hr_block_id(chain->space, chain->keys[i].text, chain->keys[i].len,
				      chain->ids[i]) == 0);
	}
	chain->ids_from = HR_MIN(chain->ids_from, from);
}
