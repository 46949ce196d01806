/* fakenode.h - a node that keeps blocks in a list and misbehaves when told to: the other side in tests of the client.
 *
 * Threads:    the io's. Speaks docs/protocol/README.md with the project's codec; one shard; no shared memory.
 */
#ifndef HR_TESTS_FAKENODE_H
#define HR_TESTS_FAKENODE_H

#include "base/list.h"
#include "base/prng.h"
#include "io/io.h"
#include "wire/wire.h"

struct fakenode_block {
	struct list_head link;
	uint8_t id[16];
	uint32_t space;
	uint16_t part;
	uint64_t block_bytes, birth;
	uint8_t *bytes;
	uint32_t len;
};

struct fakenode {
	struct io *io;
	struct io_listener *listener;
	struct list_head conns, blocks;
	uint8_t shard_uuid[16], node_uuid[16];
	uint64_t births;
	uint32_t part_bytes;
	/* misbehaviour */
	bool silent;		/* reads and never answers, after HELLO */
	uint64_t payload_stall; /* a GET's answer stops after so many bytes of payload; 0 = never */
	bool corrupt;		/* one bit of each payload is wrong */
	unsigned mixed_births;	/* so many answers for a part 0 carry another birth … */
	uint64_t mixed_shorter; /* … and a length that is shorter by so much */
	bool deaf;		/* does not read after HELLO */
	uint16_t hello_status;	/* refuses HELLO */
	bool refuse_puts;	/* busy */
	bool extra_answer;	/* answers what nobody asked */
	struct prng *mutate; /* one answer in four has a byte of its items changed, under a right CRC */
	const char *secret;	    /* HELLO asks for a proof of it */
	struct fakenode *others[4]; /* the map has these nodes, too */
	unsigned others_count;
	const char *address_text; /* "tcp=…" of the map */
	/* what was seen */
	unsigned hellos, frames, cancels, releases, put_items, get_items;
	uint32_t lease_ms;
	uint8_t priority_last;
};

int
fakenode_start(struct io *io, const char *address, uint32_t part_bytes, struct fakenode *ret_node);
void fakenode_break(struct fakenode *node); /* ends every connection */
void fakenode_stop(struct fakenode *node);  /* the io must run once more before it is destroyed */
struct fakenode_block *fakenode_find(struct fakenode *node, const uint8_t id[16], unsigned part);

#endif
