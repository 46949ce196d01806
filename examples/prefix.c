/* prefix.c - what an inference engine does for each request: which prefix of its chain is there, load it, store the rest.
 *
 * The blocks of a run share a route, so that they lie together and one message asks for them all. EXISTS takes a lease, so that what was promised
 * is still there when it is loaded. Completions are waited for by the eventfd, as an event loop would.
 *
 *	./prefix URL TOKENS		then again with more TOKENS: the prefix is found
 */
#include <headrace/headrace.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { BLOCK_BYTES = 64 << 10, BLOCK_TOKENS = 16, BLOCKS_MAX = 1024 };

struct chain {
	char keys[BLOCKS_MAX][24];
	struct hr_item items[BLOCKS_MAX];
	struct iovec iov[BLOCKS_MAX];
	uint8_t *bytes;
	uint32_t count;
};

/* Position i of the chain: its key, where its bytes are, and the route of its run. */
static void
chain_init(struct chain *chain, struct hr_space *space, uint32_t count)
{
	uint8_t id[16];
	uint64_t route = 0;

	chain->count = count;
	for (uint32_t i = 0; i < count; i++) {
		struct hr_item *item = &chain->items[i];

		snprintf(chain->keys[i], sizeof(chain->keys[i]), "prompt/%u", i);
		if (i % HR_RUN_BLOCKS == 0 &&
		    hr_block_id(space, chain->keys[i], strlen(chain->keys[i]), id) == 0) {
			route = hr_route_of_id(id); /* of the first block of the run */
		}
		chain->iov[i].iov_base = chain->bytes + (size_t)i * BLOCK_BYTES;
		chain->iov[i].iov_len = BLOCK_BYTES;
		memset(item, 0, sizeof(*item));
		item->key = chain->keys[i];
		item->key_len = (uint32_t)strlen(chain->keys[i]);
		item->flags = HR_ITEM_ROUTE;
		item->route = route;
		item->position = i;
		item->iov = &chain->iov[i];
		item->iov_count = 1;
	}
}

/* Submits, and waits as an event loop does. Returns the length of the prefix that was OK, or -1. */
static long
run(struct hr_client *client, struct hr_space *space, enum hr_op op, struct hr_item *items,
    uint32_t count, uint32_t lease_ms)
{
	struct pollfd pfd = { .fd = hr_event_fd(client), .events = POLLIN };
	struct hr_submit_options options;
	struct hr_completion done;
	hr_ticket_t ticket;

	if (count == 0) {
		return 0;
	}
	hr_submit_options_init(&options);
	options.lease_ms = lease_ms;
	ticket = hr_submit(space, op, items, count, &options);
	if (ticket < 0) {
		fprintf(stderr, "prefix: %s\n", hr_strerror((int)ticket));
		return -1;
	}
	while (hr_reap(client, &done, 1) != 1) {
		poll(&pfd, 1, -1);
	}
	return done.prefix_count;
}

int
main(int argc, char **argv)
{
	static struct chain chain;
	char detail[HR_DETAIL_BYTES];
	struct hr_client *client;
	struct hr_space *space;
	uint32_t tokens = argc > 2 ? (uint32_t)strtoul(argv[2], NULL, 10) : 1024;
	uint32_t count = tokens / BLOCK_TOKENS;
	long usable, loaded, stored;

	if (count == 0 || count > BLOCKS_MAX) {
		fprintf(stderr, "prefix: TOKENS: %d to %d are wanted\n", BLOCK_TOKENS,
			BLOCKS_MAX * BLOCK_TOKENS);
		return 2;
	}
	if (hr_open(argc > 1 ? argv[1] : NULL, NULL, &client, detail) != 0) {
		fprintf(stderr, "prefix: %s\n", detail);
		return 1;
	}
	chain.bytes = calloc(count, BLOCK_BYTES);
	if (chain.bytes == NULL || hr_space_open_name(client, "example", &space) != 0) {
		hr_close(client);
		return 1;
	}
	chain_init(&chain, space, count);
	usable = run(client, space, HR_OP_EXISTS, chain.items, count, 5000);
	loaded = run(client, space, HR_OP_GET, chain.items, usable > 0 ? (uint32_t)usable : 0, 0);
	/* ... the engine computes what was not there, and the blocks' bytes are in place ... */
	stored = run(client, space, HR_OP_PUT, chain.items + (loaded > 0 ? loaded : 0),
		     count - (loaded > 0 ? (uint32_t)loaded : 0), 0);
	hr_release(space, chain.items, count);
	printf("%u blocks: %ld usable, %ld loaded, %ld stored\n", count, usable, loaded, stored);
	free(chain.bytes);
	hr_close(client);
	return usable >= 0 && loaded == usable && stored >= 0 ? 0 : 1;
}
