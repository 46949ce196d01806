/* shard_impl.h - what the files of the shard program share.
 *
 * The files: shard.c (life, engines, listeners, work of a turn, drain), session.c (bytes in, frames out, end of a connection),
 * request.c (frames to operations, HELLO, SPACE, LIST, STAT, CANCEL), load.c (GET, EXISTS and their kin), store.c (PUT, DELETE), shm.c (chunks,
 * borrows, staging), stat_json.c.
 *
 * One turn: what was received is parsed; loads are given to the engine at once; values that are complete wait on `stores` for the
 * next turn's work, so that every load that had arrived goes first; answers that are ready are gathered into one frame a request
 * and sent together.
 *
 * Ownership: a session owns its requests while it lives. A request whose session has ended while the engine still works on it is
 * an orphan of its engine until the last callback. A request lives as long as someone counts on it (refs): the session's list, each
 * operation under way.
 */
#ifndef HR_SHARD_SHARD_IMPL_H
#define HR_SHARD_SHARD_IMPL_H

#include "base/base.h"
#include "base/hash.h"
#include "base/hashmap.h"
#include "base/list.h"
#include "headrace/error.h"
#include "shard/shard.h"

enum {
	RBUF_BYTES_MIN = 8192,	/* of a new connection: a thousand idle ones are to be cheap */
	RBUF_BYTES_MAX = 65536, /* grown to when a receive fills it */
	BULK_BYTES_MIN = 16384, /* of a PUT's payload: what comes behind such a frame is taken … */
	BULK_TAIL_BYTES =
	    1024, /* … so little at a time, since payload that lands in rbuf is copied once more */
	ITEMS_INFLIGHT_MAX =
	    32768, /* of a connection; beyond it nothing is read: bounds the memory of requests */
	SEND_IOV_MAX = 256,	  /* of one send */
	SEND_BYTES_MAX = 1 << 20, /* of one send: what a peer must take within stalled_reader_s */
	RECV_BYTES_MIN =
	    1 << 20, /* what must come within that time of a frame that has begun, or its rest */
	OUT_IOV_MAX = 1024,		 /* of one answer frame … */
	OUT_PAYLOAD_BYTES_MAX = 4 << 20, /* … and where it is closed */
	OUT_ITEMS_BYTES_MAX = 256 << 10,
	OUTS_SPARE_MAX = 256,  /* kept for the next answer */
	PUT_WINDOW_COUNT = 64, /* values of one frame whose memory is there before their bytes are */
	PUT_WINDOW_BYTES = 1 << 20,
	LOADS_PER_TURN = 512, /* items of a connection, before others get their turn */
	STORES_PER_TURN = 64,
	STORE_BYTES_PER_TURN = 8 << 20,
	LIST_ENTRIES_MAX = 1024,
	SPACE_ROWS_MAX = 1024,
	SPACES_OPEN_MAX = 4096, /* of a connection */
	STATS_PENDING_MAX = 64,
	STAGING_REGIONS_MAX = 16,
};
#define STAGING_BYTES_MAX GiB(1)

struct shard_engine {
	struct list_head link; /* shard->engines */
	struct shard *shard;
	struct engine *engine;
	struct list_head sessions;
	struct list_head orphans; /* struct request */
	uint64_t output_bytes; /* queued for its sessions, and what their loads under way will add */
	uint64_t output_bytes_fair; /* beyond it each has one load under way */
	uint64_t borrow_bytes;	    /* by all its sessions; at most as many as output_bytes_fair */
	bool removing;
	void (*removed)(void *arg);
	void *removed_arg;
};

struct shard_listener {
	struct list_head link;
	struct shard *shard;
	struct io_listener *listener;
};

struct shard {
	struct io *io;
	struct shard_options options;
	char *node_text;
	struct list_head engines;
	struct list_head listeners;
	struct list_head strangers; /* sessions before HELLO */
	struct list_head working; /* sessions with loads to dispatch or answers to flush (work_link) */
	struct list_head stores; /* struct put_slot, complete, in order of arrival */
	struct list_head outs_spare;
	unsigned outs_spare_count;
	struct io_timer work_timer;
	struct io_timer drain_timer;
	bool draining, destroying;
	void (*drained)(void *arg);
	void *drained_arg;
	uint64_t drain_limit_us;
	uint64_t conn_id_next, stat_token_next;
	struct hashmap stat_tokens; /* token -> struct request */
	struct shard_stat stat;
	uint8_t scratch[65536]; /* where refused payload goes */
};

/* An answer or a push: header and items in `head`, payload straight from the cache. */
struct out {
	struct list_head link; /* session->outs, or shard->outs_spare */
	struct wire_header header;
	struct wire_buf head; /* the first 64 bytes are the header's */
	struct iovec *iov;    /* [0] is head, set when it is closed */
	unsigned iov_count, iov_cap;
	struct cache_entry **entries; /* one reference each, until it is sent */
	unsigned entries_count, entries_cap;
	uint64_t payload_bytes;
	uint64_t counted_bytes; /* as far as the session's output counts it */
	char *text;		/* owned payload (STAT) */
	int fd;			/* borrowed; goes with its first byte; -1 = none */
};

struct get_slot {
	struct engine_get get;
	struct request *request;
	uint32_t idx, off, bytes, flags;
	uint32_t charge_bytes; /* counted in session->load_bytes while under way */
	bool busy;	       /* the engine has it */
};

struct put_slot {
	struct list_head link; /* session->put.window, then shard->stores */
	struct request *request;
	uint32_t idx, stored_bytes;
	struct engine_put *put; /* NULL: its payload is discarded */
	const struct iovec *iov;
	unsigned iov_count, iov_idx;
	size_t iov_skip;
	uint64_t left_bytes; /* to come */
};

struct delete_slot {
	struct request *request;
	uint32_t idx;
};

struct request {
	struct list_head link;	     /* session->requests or eng->orphans */
	struct list_head load_link;  /* session->loads: items are to be dispatched */
	struct list_head flush_link; /* session->flushing: has an open out */
	struct session *session;     /* NULL: orphan */
	struct shard_engine *eng;
	struct wire_header header;
	uint64_t deadline_us; /* io time; 0 = none */
	uint32_t refs;
	uint32_t items_count, items_answered, items_next;
	bool cancelled;
	struct out *out;
	uint8_t *results; /* a byte per item (DELETE) */
	uint64_t stat_token;
	struct session_owner *owner;
	union {
		struct get_slot *gets;
		struct put_slot *puts;
		struct delete_slot *deletes;
	};
};

/* Who holds leases and unfinished parts in the engine, and rows of spaces. The engine knows it as long as PUTs of it are under way, so it
 * outlives its connection by them. */
struct session_owner {
	struct shard_engine *eng;
	struct engine_owner *owner;
	uint32_t refs; /* the session's, and one of each request */
	struct space_row **rows;
	uint32_t rows_count;
};

struct session_space {
	struct block_id_prefix prefix; /* ids are checked against keys with it */
};

struct borrow {
	struct cache_entry *entry;
	uint32_t bytes;
};

struct staging {
	void *base; /* NULL: not in use */
	uint64_t bytes;
	uint32_t number;
};

enum session_state {
	SESSION_HELLO, /* nothing but HELLO is allowed */
	SESSION_OPEN,
	SESSION_LAST_WORDS, /* ends once its output is sent; what comes is not read */
	SESSION_ENDED,	    /* the conn is closed; memory goes once its operations are back */
};
enum rx_state { RX_HEADER, RX_ITEMS, RX_PAYLOAD };

struct session {
	struct list_head link; /* eng->sessions or shard->strangers */
	struct list_head work_link;
	struct shard *shard;
	struct shard_engine *eng; /* NULL before HELLO */
	struct io_conn *conn;
	enum session_state state;
	bool adopted, receiving, sending, goaway_sent, paused;
	uint64_t id;
	uint32_t features, tenant;
	struct session_owner *owner; /* NULL before HELLO */
	char name[64];
	struct hashmap spaces; /* number -> struct session_space, of those it opened */
	struct io_timer timer; /* HELLO, then a stalled peer */

	/* bytes in */
	uint8_t *rbuf;
	uint32_t rbuf_cap, rbuf_at, rbuf_len;
	enum rx_state rx;
	struct wire_header rx_header;
	uint8_t *items; /* of a frame whose items do not fit rbuf, or that a PUT needs while its payload comes */
	size_t items_cap, items_len;
	bool items_apart; /* they are received into `items` */
	struct {
		struct request *request; /* NULL: all is discarded */
		struct wire_reader reader;
		struct list_head window;
		uint32_t window_count, items_next;
		uint64_t window_bytes, discard_bytes;
	} put;
	struct iovec recv_iov[PUT_WINDOW_COUNT * 2 + 2];
	size_t recv_direct_bytes; /* of the receive under way, before rbuf */
	bool bulk; /* the last frame was a PUT of large values: the next one may be, too */
	uint64_t frame_bytes,
	    frame_stall_at_us; /* since when RECV_BYTES_MIN is counted; 0 = not within a frame */

	/* under way */
	struct list_head requests, loads, flushing;
	struct hashmap requests_by_id;
	uint32_t requests_now, items_now;
	uint64_t put_bytes, load_bytes;

	/* bytes out */
	struct list_head outs;
	uint64_t output_bytes;
	unsigned out_iov_idx;
	size_t out_iov_skip;
	struct iovec send_iov[SEND_IOV_MAX];
	uint64_t send_bytes, stall_at_us;

	/* shared memory */
	uint32_t *chunk_epochs; /* epoch + 1 of each chunk that the peer has */
	uint32_t chunks_count;
	struct hashmap borrows; /* handle -> struct borrow */
	uint64_t borrow_next, borrow_bytes;
	struct staging staging[STAGING_REGIONS_MAX];
};

/* -- shard.c -- */
void shard_work_later(struct shard *shard);
void shard_session_gone(struct shard *shard, struct shard_engine *eng);
void shard_map_encode(struct shard *shard, struct wire_buf *buf);
struct shard_engine *shard_engine_find(struct shard *shard, const uint8_t uuid[16]);

/* -- session.c -- */
int session_create(struct shard *shard, struct io_conn *conn, struct session **ret_session);
int session_preload(struct session *session, const void *bytes, size_t len);
void session_run(struct session *session); /* parse, dispatch, flush, receive on */
void session_work_later(struct session *session);
void session_flush(struct session *session);
void session_dispatch(struct session *session, unsigned *budget);
void session_end(struct session *session);
void session_end_bad(struct session *session, const char *why); /* one log line, one counter */
void session_detached(struct session *session); /* its conn is another thread's now */
void session_end_after_output(struct session *session);
bool session_idle(const struct session *session);
void session_hello_done(struct session *session);
bool session_output_full(const struct session *session);
bool session_loads_wait(const struct session *session);

struct out *out_create(struct session *session, unsigned op, uint64_t request_id);
void out_add_iov(struct out *out, const struct iovec *iov, unsigned count);
void out_add_entry(struct out *out, struct cache_entry *entry);
void out_send(struct session *session, struct out *out); /* closes it and hands it over */
void out_drop(struct session *session, struct out *out);
void out_count(struct session *session, struct out *out); /* what was added since */
void session_refuse(struct session *session, const struct wire_header *header, unsigned status);

/* -- request.c -- */
void
session_frame(struct session *session, const uint8_t *items); /* of session->rx_header; not PUT */
int request_create(struct session *session, const struct wire_header *header, size_t slot_bytes,
		   struct request **ret_request);
int
session_owner_create(struct shard_engine *eng, uint32_t tenant, struct session_owner **ret_owner);
void session_owner_unref(struct session_owner *owner);
void request_ref(struct request *request);
void request_unref(struct request *request);
struct out *request_out(struct request *request);
void
request_item_answered(struct request *request); /* the last one lets the request go, once flushed */
void request_finish(struct request *request);	/* closes its out with LAST, ends it */
void request_flush(struct request *request);
void request_orphan(struct request *request);
bool request_deadline_passed(const struct request *request);
struct space_row *session_space(struct session *session, uint32_t number);
int session_space_add(struct session *session, struct space_row *row);
bool session_requests_allowed(struct session *session, unsigned *ret_status);

/* -- load.c -- */
int session_get(struct session *session, const uint8_t *items, const char **ret_why);
void request_dispatch_gets(struct request *request, unsigned *budget);
void request_cancel_gets(struct request *request, bool answer);
int
session_ids(struct session *session, const uint8_t *items); /* EXISTS, TOUCH, PREFETCH, RELEASE */

/* -- store.c -- */
int session_put(struct session *session, const uint8_t *items, const char **ret_why);
void session_put_refused(struct session *session); /* the frame's payload is discarded */
int session_put_pump(struct session *session, const char **ret_why); /* takes payload from rbuf */
unsigned session_put_iov(struct session *session, struct iovec *ret_iov, unsigned max);
void session_put_received(struct session *session, size_t bytes);
bool session_put_done(const struct session *session);
void session_put_abort(struct session *session);
void session_stores_abort(struct session *session);
void shard_stores_run(struct shard *shard);
int session_delete(struct session *session, const uint8_t *items, const char **ret_why);

/* -- shm.c -- */
bool
session_shm_answer(struct session *session, struct get_slot *slot, struct wire_get_answer *answer,
		   uint32_t off, uint32_t bytes, struct wire_extent *ret_extents);
int session_unborrow(struct session *session, const uint8_t *items, const char **ret_why);
int session_staging(struct session *session, const uint8_t *items, const char **ret_why);
bool session_staging_range(struct session *session, uint32_t region, uint64_t off, uint64_t bytes,
			   const uint8_t **ret_bytes);
void session_shm_fini(struct session *session);

#endif
