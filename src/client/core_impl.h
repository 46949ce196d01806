/* core_impl.h - what the files of the core share: core.c (map, batches), ops.c (items and their frames), peer.c (connections), shm.c. */
#ifndef HR_CLIENT_CORE_IMPL_H
#define HR_CLIENT_CORE_IMPL_H

#include "client/core.h"

#include <errno.h>
#include <stdlib.h>

#include "base/error.h"

enum {
	RX_BUF_BYTES =
	    4096, /* headers and small items; payload takes this way only by accident, at most so much of a frame */
	SCRATCH_BYTES = 256 << 10,
	TX_IOV_MAX = 512,
	TX_TRAIN_BYTES = 1 << 20,
	TX_SLICE_BYTES = 4 << 20,
	REGIONS_MAX = 16,
	STAGING_REGION = 1,
	NOTES_MAX = 4096,
};

struct core_space {
	struct list_head link;
	uint8_t digest[SPACE_DIGEST_BYTES];
	char label[64];
	uint32_t idx; /* into peer.spaces */
	struct block_id_prefix prefix;
};

/* An item's way through the core. */
enum item_phase {
	ITEM_PLAIN, /* pieces of a known number are asked for */
	ITEM_LEARN, /* GET of unknown length: part 0 tells it */
	ITEM_ASK,   /* ALL_SHARDS: every shard is asked */
};

struct core_item {
	uint8_t id[16];
	uint64_t route;
	uint64_t len;	    /* PUT: of the value. GET: expected of the block, UINT64_MAX = any */
	uint64_t off, want; /* GET */
	uint64_t put_number;
	uint64_t birth; /* of the first part that came; 0 = none yet */
	uint64_t got;
	uint32_t pieces_left;
	uint32_t flags_out;
	uint16_t part_first, part_end;
	uint8_t phase, status, reason;
	bool planned, done, failed, mixed, restarted, touched, decided_put;
	uint8_t found_uuid[16]; /* ITEM_ASK: the first shard that has it */
	bool found;
	uint64_t len_out;
	uint8_t *staged;
	struct borrow *borrow;
};

/* Items of one batch that go to one shard, in order, not yet in frames. */
struct group {
	struct list_head link;	     /* on peer->groups[] */
	struct list_head batch_link; /* on batch->groups */
	struct peer *peer;
	struct core_batch *batch;
	uint8_t op; /* enum wire_op */
	uint32_t count, next;
	uint32_t part_next; /* of item `next`; UINT32_MAX = not begun */
	uint32_t idx[];
};

struct piece {
	uint32_t item_idx;
	uint16_t part;
	bool done;
	bool staged;	  /* PUT: staging_at is held */
	uint32_t bytes;	  /* PUT: sent. GET: wanted */
	uint32_t off;	  /* GET: in the part */
	uint64_t dst_off; /* GET: in the item's buffer */
	uint64_t staging_at;
};

enum request_kind {
	REQUEST_HELLO,
	REQUEST_AUTH,
	REQUEST_SPACE,
	REQUEST_STAGING,
	REQUEST_ITEMS,
	REQUEST_CALL,
	REQUEST_NOTE
};
enum request_tx { REQUEST_QUEUED, REQUEST_SENDING, REQUEST_SENT };

/* One frame and what waits for its answer. */
struct request {
	struct list_head link;	     /* on peer->queue or peer->train until sent */
	struct list_head batch_link; /* on batch->requests */
	struct peer *peer;
	struct core_batch *batch; /* NULL: nobody waits any more */
	struct core_call *call;
	struct core_space *space;
	uint8_t kind, tx, op;
	bool answered;
	bool sliced;	/* in the send that is under way */
	bool zero_rest; /* its batch ended while it was being sent: the rest goes out as zeros */
	bool held;	/* counts in batch->holds */
	uint8_t priority, ack;
	uint32_t lease_ms;
	uint64_t deadline_at_us;
	uint64_t id;
	uint32_t slot; /* UINT32_MAX: none, no answer is wanted */
	uint32_t items_count;
	uint64_t payload_bytes;
	uint64_t sent_us;
	uint8_t header[WIRE_HEADER_BYTES];
	struct wire_buf items;
	struct iovec *iov; /* of the payload */
	unsigned iov_count, iov_cap;
	unsigned iov_at; /* 0 header, 1 items, 2 … payload */
	size_t iov_off;
	int fd; /* goes with it, or -1; borrowed */
	struct piece *pieces;
	uint32_t pieces_count;
};

enum peer_state {
	PEER_IDLE,	 /* not wanted yet */
	PEER_CONNECTING, /* io_connect() is under way */
	PEER_HELLO,	 /* HELLO was sent */
	PEER_AUTH,	 /* AUTH was sent */
	PEER_READY,	 /* serves */
	PEER_CLOSING,	 /* the connection was closed; its callbacks have not all run */
	PEER_OPEN,	 /* the breaker is open: requests fail at once until the timer ends */
};

enum space_state { SPACE_NONE, SPACE_OPENING, SPACE_OPEN };
struct peer_space {
	uint8_t state;
	uint32_t number;
	uint64_t retry_us; /* not asked for again before that */
};

enum rx_state { RX_HEADER, RX_ITEMS, RX_PAYLOAD };

/* A part whose payload is on its way: where it ends in the frame's payload and what it must be. */
struct rx_piece {
	uint32_t piece_idx;
	struct wire_get_answer answer; /* crcs point into rx.items */
	uint64_t payload_end;
	unsigned dst_first, dst_count; /* in rx.dst */
	uint8_t *base;		       /* own memory instead of the caller's, or NULL */
};

struct rx {
	uint8_t state;
	bool posted, user_memory, discard;
	struct request *req;
	struct wire_header header;
	size_t have, at; /* valid bytes of buf, and how far they are used */
	uint8_t *items;
	size_t items_cap, items_got;
	struct rx_piece *pieces;
	uint32_t pieces_count, pieces_cap, pieces_next;
	struct iovec *dst; /* iov_base NULL: thrown away */
	unsigned dst_count, dst_cap, dst_at;
	size_t dst_off;
	uint64_t payload_got;
	struct wire_buf own;	 /* the payload of a call */
	struct core_batch *held; /* the batch whose holds count the receive that is posted */
	struct iovec iov[TX_IOV_MAX];
	uint8_t buf[RX_BUF_BYTES];
};

/* A chunk of the server's arena, mapped. */
struct mapping {
	uint8_t *base;
	size_t len;
	uint32_t refs; /* the peer's, and each borrow's */
	uint32_t chunk, epoch;
};

struct peer {
	struct core *core;
	uint8_t uuid[16]; /* zeros: any shard of the node (how a map is got) */
	uint8_t node_uuid[16];
	char *address;
	uint64_t weight;
	uint8_t map_state; /* enum wire_node_state of the shard */
	bool boot;
	struct list_head link; /* on core->buried */
	bool gone;	       /* no longer in the map: freed once nothing is under way */
	bool half_open;	       /* this try decides whether the breaker closes */
	bool draining;	       /* GOAWAY was received */
	uint8_t state;
	struct io_connect *connect;
	struct io_conn *conn;
	uint64_t epoch; /* counts connections */
	uint64_t connected_us;
	struct io_timer timer; /* handshake, or the breaker's */
	struct io_timer grace;
	struct io_timer again; /* a space that could not be opened yet is asked for again */
	unsigned failures;
	int error;
	uint8_t nonce[16];
	struct wire_server_hello hello;
	bool shm, borrow;

	struct peer_space *spaces;
	uint32_t spaces_count;

	struct request *slots[CORE_REQUESTS_MAX];
	uint32_t slots_used, slot_hint;
	uint64_t sequence;
	uint64_t put_bytes_inflight;

	struct list_head calls;	    /* calls that wait for the connection */
	struct list_head groups[4]; /* by priority, 1 … 3 */
	struct list_head queue;	    /* requests ready to go */
	uint32_t notes_count;
	struct list_head train; /* requests of the send under way */
	bool tx_posted, pumping;
	struct iovec tx_iov[TX_IOV_MAX];
	size_t tx_bytes;
	struct rx rx;
	uint64_t rx_us; /* when bytes last came */

	struct mapping **chunks;
	uint32_t chunks_count, chunks_cap;
	uint64_t *unborrows;
	uint32_t unborrows_count, unborrows_cap;
	bool regions_sent[REGIONS_MAX];
};

struct borrow_segment {
	uint16_t part;
	uint16_t order;
	bool owned;
	struct mapping *mapping;
	struct iovec iov;
};
struct borrow {
	struct peer *peer; /* NULL: gone */
	uint64_t epoch;
	struct list_head link; /* on core->borrows */
	uint64_t *handles;
	uint32_t handles_count, segments_count;
	struct borrow_segment *segments;
	struct iovec *iov;
};

struct region {
	uint8_t *base; /* NULL: free */
	uint64_t len;
	int fd;
	bool own; /* the staging ring: ours to unmap */
};

/* Ranges of the staging memory, taken at the head, given back in any order. */
struct staging_range {
	uint64_t at, end; /* running positions; offset = at % bytes */
	bool free;
};
struct staging {
	uint64_t head, tail;	      /* running positions */
	struct staging_range *ranges; /* a ring */
	uint32_t first, count, cap;
};

struct core {
	struct io *io;
	struct core_options options;
	char **addresses;
	unsigned address_next;
	struct list_head spaces;
	uint32_t spaces_count;

	bool have_map;
	struct wire_map map;
	struct peer **peers; /* one per shard of the map, same order */
	unsigned peers_count;
	struct peer *boot;	      /* asks any node for the map; NULL when not needed */
	struct list_head calls;	      /* that wait for a map */
	struct list_head ready_calls; /* that wait until core_ready() */

	struct list_head buried;  /* peers that are gone, freed by core_reap() */
	struct list_head waiting; /* batches without a map (on batch->link) */
	struct list_head live;
	struct list_head done;
	bool closing;
	struct list_head borrows;
	struct region regions[REGIONS_MAX];
	struct staging staging;
	struct io_timer gap; /* file: looks after what waits for the next host */
	uint8_t *scratch;
	int error;
	char error_text[160];
	struct core_stat stat;
};

/* core.c */
void
core_map_take(struct core *core, struct wire_map *map, struct peer *from); /* takes the map over */
void core_peer_down(struct core *core, struct peer *peer);
void core_peer_up(struct core *core, struct peer *peer);
void core_ready_check(struct core *core);
void core_error_set(struct core *core, int rc, const char *fmt, ...) HR_PRINTF(3, 4);
void core_call_end(struct core *core, struct core_call *call, int rc);
void batch_check_done(struct core *core, struct core_batch *batch);
bool batch_may_wait(const struct core *core, const struct core_batch *batch);
struct peer *core_owner(struct core *core, uint64_t route); /* NULL: no shard takes part */

static inline struct hr_item *
batch_item(const struct core_batch *batch, uint32_t idx)
{
	return (struct hr_item *)((uint8_t *)batch->items + (size_t)idx * batch->item_size);
}

/* ops.c */
void
ops_batch_start(struct core *core,
		struct core_batch *batch); /* ids, checks; items that are not usable are decided here */
void
ops_batch_place(struct core *core, struct core_batch *batch); /* gives the items to their shards */
void ops_batch_fail(struct core *core, struct core_batch *batch,
		    uint8_t reason); /* decides everything that is not decided */
void ops_batch_free(struct core *core, struct core_batch *batch);
void ops_group_free(struct group *group);
void ops_group_fail(struct core *core, struct group *group,
		    uint8_t reason); /* decides what is left of it, frees it */
/* The next frame of a group, or NULL: the window is full (*ret_blocked), or nothing was left (the group is freed). */
struct request *ops_request_build(struct peer *peer, struct group *group, bool *ret_blocked);
void ops_request_fail(struct core *core, struct request *req,
		      uint8_t reason); /* all pieces that were not answered */
void ops_request_pieces_release(struct core *core, struct request *req); /* staging ranges */
/* An answer's items have arrived: takes what needs no payload, says where the payload goes. -HR_EPROTO. */
int ops_answer(struct peer *peer, struct request *req, const char **ret_why);
void ops_answer_lost(struct peer *peer); /* what has not landed will not */
/* Payload up to rx->payload_got is there. */
void ops_answer_landed(struct peer *peer);
uint8_t ops_reason_of_status(uint16_t status);

/* peer.c */
int
peer_create(struct core *core, const uint8_t uuid[16], const char *address, struct peer **ret_peer);
void peer_destroy(struct peer *peer); /* idle, nothing queued */
void peer_want(struct peer *peer);    /* there is something to do: connect, or send */
void peer_pump(struct peer *peer);
bool peer_down(const struct peer *peer); /* requests would fail at once */
void peer_fail(struct peer *peer, int rc, const char *why);
void peer_close(struct peer *peer);	  /* for good; frees nothing */
bool peer_quiet(const struct peer *peer); /* no callback is outstanding */
struct request *req_create(struct peer *peer, enum request_kind kind, uint8_t op);
void req_free(struct request *req);
int req_slot_take(struct peer *peer, struct request *req);
int req_queue(struct request *req);
int req_iov_add(struct request *req, void *base, size_t len);
void peer_note(struct peer *peer, uint8_t op, struct core_space *space, struct wire_buf *items,
	       uint32_t items_count);
/* The space's number on this connection; false: not open (it is being opened, or *ret_refused tells why not). */
bool peer_space_number(struct peer *peer, struct core_space *space, uint32_t *ret_number,
		       uint8_t *ret_refused);
void peer_retry_now(struct peer *peer);
/* All items of a batch are decided: its frames are taken back, or cancelled, and memory that the kernel still has is waited for. */
void peer_batch_requests_end(struct core *core, struct core_batch *batch);

/* shm.c */
int shm_staging_create(struct core *core);
void shm_fini(struct core *core);
void shm_regions_send(struct peer *peer);
bool shm_staging_get(struct core *core, uint64_t bytes, uint64_t *ret_at, uint8_t **ret_base);
uint64_t shm_staging_off(const struct core *core, uint64_t at);
void shm_staging_put(struct core *core, uint64_t at);
/* The registered region that holds all of it, or 0. */
uint32_t shm_region_find(const struct core *core, const void *base, size_t len, uint64_t *ret_off);
int
shm_chunk_take(struct peer *peer, const struct wire_region *region, int fd, const char **ret_why);
struct mapping *shm_chunk_find(struct peer *peer, uint32_t chunk);
void shm_mapping_unref(struct mapping *mapping);
void shm_peer_reset(struct peer *peer);
void shm_unborrow(struct peer *peer, uint64_t handle);
void shm_unborrows_send(struct peer *peer);
void shm_borrow_free(struct core *core, struct borrow *borrow, bool say);

#endif
