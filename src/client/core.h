/* core.h - the client as a single-threaded program over a struct io.
 *
 * What:       connections (one per shard used), placement, batches cut into frames and parts, deadlines, cancellation, the circuit breaker,
 *             shared memory. client, server and engine can run in one thread on the simulated io.
 * Not here:   threads, the public handle and its queues (handle.c), hosting of file: (host.h), URLs (url.h).
 * Threads:    one: the io's. Nothing here takes a lock.
 * Ownership:  a batch is the core's from core_submit() until core_reap() gives it back; with it the items, keys, iovecs and buffers. A call
 *             is the core's until its done() has run.
 * Errors:     of items are status and reason (headrace/batch.h).
 * Invariants: C1 every batch comes back exactly once. C2 when it does, no receive or send under way refers to the caller's memory.
 *             C3 an item that is OK was compared with its CRCs where its bytes landed. C4 a deadline that passes ends the batch at once,
 *             or, when the kernel holds the caller's memory at that moment, at most CORE_GRACE_US later (the connection is closed then).
 * Limits:     CORE_REQUESTS_MAX frames in flight per connection, the server's own limits; what waits is bounded by the caller
 *             (hr_options.inflight_*).
 * Tests:      tests/unit/client/test_core.c, tests/sim/test_one_thread.c
 */
#ifndef HR_CLIENT_CORE_H
#define HR_CLIENT_CORE_H

#include <headrace/headrace.h>

#include "base/hash.h"
#include "base/list.h"
#include "io/io.h"
#include "wire/wire.h"

enum {
	CORE_REQUESTS_MAX = 1024,
	CORE_BACKOFF_US_MIN = 50 * 1000,
	CORE_BACKOFF_US_MAX = 2 * 1000 * 1000,
	CORE_GRACE_US = 100 * 1000,
	CORE_GAP_US = 2 * 1000 * 1000, /* file: how long idempotent requests wait for the next host */
	CORE_PUT_FRAME_BYTES = 16 << 20,
};

struct core;

struct core_options {
	const char *const *addresses; /* as io_connect() takes them; copied */
	unsigned addresses_count;
	uint32_t connect_timeout_ms; /* 0 = 2,000 */
	uint64_t inflight_bytes;     /* said to the server */
	const char *name, *tenant;   /* copied; NULL = "" */
	const uint8_t *token;	     /* copied */
	size_t token_len;
	uint64_t staging_bytes; /* shared memory for PUT on unix:; 0 = none */
	/* file: */
	bool gap_waits; /* requests wait up to CORE_GAP_US for the next host instead of a fast miss */
	void (*down)(void *arg); /* a connection broke or could not be made */
	bool (*gone)(
	    void *arg); /* asked while answers are overdue; true: the host is dead although its socket is not */
	void *arg;
};

int core_create(struct io *io, const struct core_options *options, struct core **ret_core);
/* Ends every batch (cancelled) and call, closes the connections. Run the io until core_closed(). */
void core_close(struct core *core);
bool core_closed(const struct core *core);
void core_destroy(struct core *core); /* after core_closed(), and after every batch was reaped */

/* A space of the core; the same one for the same digest. Lives as long as the core. NULL: -ENOMEM. */
struct core_space;
struct core_space *
core_space_get(struct core *core, const uint8_t digest[SPACE_DIGEST_BYTES], const char *label);

struct core_batch {
	/* the caller's, until core_reap() */
	struct core_space *space;
	uint8_t op; /* enum hr_op */
	uint8_t priority, ack;
	uint32_t lease_ms;
	uint32_t deadline_us; /* from now; 0 = none */
	void *items;	      /* struct hr_item, item_size apart */
	size_t item_size;
	uint32_t items_count;
	/* results */
	uint32_t ok_count, prefix_count;
	bool cancelled;
	/* private */
	struct list_head link;	   /* on core->live, then on core->done */
	struct list_head groups;   /* what is not in frames yet */
	struct list_head requests; /* frames under way */
	struct core_item *states;
	uint32_t left_count; /* items that are not decided */
	uint32_t holds;	     /* sends and receives that refer to the caller's memory */
	bool ended, finished;
	struct core *core;
	uint64_t submit_us, deadline_at_us;
	struct io_timer timer;
};

void core_submit(struct core *core, struct core_batch *batch);
/* The next batch that is over, or NULL. */
struct core_batch *core_reap(struct core *core);
/* Ends a batch that was submitted and not reaped. */
void core_cancel(struct core *core, struct core_batch *batch);

/* Leases of these blocks end (nobody is told when). ids: 16 bytes each. */
void core_release(struct core *core, struct core_space *space, const uint8_t *ids,
		  const uint64_t *routes, uint32_t count, bool all_shards);
/* Gives borrowed pages back; `borrow` is hr_item.borrow. */
void core_unborrow(struct core *core, uint64_t borrow);

/* hr_register(): memory behind a memfd sealed against shrinking. -ENOSPC: too many regions. */
int core_region_add(struct core *core, void *base, size_t len, int fd);
int core_region_remove(struct core *core, void *base); /* -ENOENT */

/* One frame to one shard and its answer, for everything that is not about blocks. */
struct core_call {
	uint8_t op;		  /* enum wire_op */
	bool connects;		  /* only waits until the shard answers; nothing is sent */
	struct core_space *space; /* opened first; or NULL */
	uint8_t shard_uuid[16];	  /* zeros: the first shard that answers */
	struct wire_buf items;	  /* passed on; freed by the core */
	uint32_t deadline_us;
	void (*done)(struct core_call *call);
	void *arg;
	/* results */
	int rc; /* 0, -HR_EDOWN, -ETIMEDOUT, -HR_EPROTO, -ENOMEM, or what the frame's status means */
	struct wire_buf answer; /* items; the caller frees it */
	struct wire_buf payload;
	/* private */
	struct list_head link;
	struct io_timer timer;
	struct core *core;
	struct request *request;
};
void core_call(struct core *core, struct core_call *call);

/* The map as it is known; 0 when none is. With NULL: how many there are. */
struct core_shard {
	uint8_t uuid[16];
	uint8_t node_uuid[16];
	uint64_t weight;
};
unsigned core_shards(const struct core *core, struct core_shard *ret_shards, unsigned max);
bool core_ready(const struct core *core); /* a shard answered and is connected */
int core_last_error(const struct core *core, char *ret_text,
		    size_t text_bytes); /* of the last connection that failed; 0 = none */
void core_kick(struct core *core);	/* tries what is down again at once */

struct core_stat {
	uint64_t batches, items[8], items_ok[8], reasons[HR_REASON_COUNT];
	uint64_t bytes_put, bytes_got, bytes_discarded, bytes_staged, bytes_shared;
	uint64_t requests, answers, requests_now, requests_high;
	uint64_t connects, connects_failed, conns_broken, conns_ended_grace, protocol_errors;
	uint64_t crc_failures, restarts_mixed_births, retries_gap, staging_full, borrows_now,
	    pushes_goaway, maps;
	uint64_t conns_now, breakers_open_now;
};
void core_stat_get(const struct core *core, struct core_stat *ret);

#endif
