/* batch.h - batches of operations on blocks: submit, reap, wait, cancel, drain.
 *
 * hr_submit() never blocks and costs microseconds. Exactly one completion per ticket, always, in any order; after it nothing touches the
 * caller's memory. Until then the items, their keys, iovecs and buffers belong to the library.
 */
#ifndef HEADRACE_BATCH_H
#define HEADRACE_BATCH_H

#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

#include "headrace/space.h"

#ifdef __cplusplus
extern "C" {
#endif
#pragma GCC visibility push(default)

#define HR_KEY_BYTES_MAX 1024u
#define HR_BLOCK_BYTES_MAX (UINT64_C(128) << 20)
#define HR_BATCH_ITEMS_MAX 16384u
#define HR_LEASE_MS_MAX 10000u
#define HR_LEN_ANY UINT64_MAX
#define HR_RUN_BLOCKS 16u /* callers that know their chain: blocks of a run share a route … */
#define HR_RUN_BYTES (UINT64_C(16) << 20) /* … 16 blocks or 16 MiB, whichever is less */

enum hr_op {
	HR_OP_PUT = 1,
	HR_OP_GET = 2,
	HR_OP_EXISTS = 3,
	HR_OP_TOUCH = 4,
	HR_OP_DELETE = 5,
	HR_OP_PREFETCH = 6
};

enum hr_status {
	HR_STATUS_OK =
	    0, /* GET: every byte verified. PUT: stored (or already there) at the level asked for. */
	HR_STATUS_MISS = 1,    /* not there; `reason` says why */
	HR_STATUS_REFUSED = 2, /* PUT: not stored; `reason` says why (busy: try again later) */
	HR_STATUS_INVALID =
	    3 /* the item itself is not usable: empty or long key, value over 128 MiB, range behind the end */
};

/* Also on the wire and in metrics. X(name, value, text) */
#define HR_REASON_TABLE(X)                                                                         \
	X(HR_REASON_NONE, 0, "none")                                                               \
	X(HR_REASON_ABSENT, 1, "absent")                                                           \
	X(HR_REASON_EVICTED, 2, "evicted")                                                         \
	X(HR_REASON_EXPIRED, 3, "expired")                                                         \
	X(HR_REASON_DELETED, 4, "deleted")                                                         \
	X(HR_REASON_QUOTA, 5, "quota")                                                             \
	X(HR_REASON_DEADLINE, 6, "deadline")                                                       \
	X(HR_REASON_CORRUPT, 7, "corrupt")                                                         \
	X(HR_REASON_SIZE, 8, "size_mismatch")                                                      \
	X(HR_REASON_DOWN, 9, "owner_down")                                                         \
	X(HR_REASON_BUSY, 10, "busy")                                                              \
	X(HR_REASON_CANCELLED, 11, "cancelled")
enum hr_reason {
#define HR_REASON_ENUM(name, value, text) name = value,
	HR_REASON_TABLE(HR_REASON_ENUM)
#undef HR_REASON_ENUM
	    HR_REASON_COUNT = 12
};
const char *hr_reason_name(int reason);

enum hr_item_flags {
	/* in */
	HR_ITEM_ROUTE = 1u << 0, /* `route` is set; otherwise the id's own */
	HR_ITEM_ALL_SHARDS =
	    1u << 1, /* no route is known: ask every shard (GET: the first that has it; DELETE: all) */
	HR_PUT_REPLACE = 1u << 2, /* take the key's place; default: first to complete wins */
	HR_PUT_PINNED = 1u << 3,  /* within the space's pin budget */
	HR_GET_STAGED = 1u << 4,  /* the buffer is untouched or verified, for the price of a copy */
	HR_GET_BORROW = 1u << 5,  /* give pages instead of copying: see `iov` and hr_release() */
	/* out */
	HR_ITEM_TOUCHED = 1u << 16,   /* not OK, and the buffer's contents are undefined */
	HR_ITEM_DUPLICATE = 1u << 17, /* PUT: the key was there already; its bytes stay */
	HR_ITEM_DIFFERS = 1u << 18,   /* … and they were other bytes */
	HR_ITEM_LEASED = 1u << 19,    /* EXISTS: the lease was granted */
	HR_ITEM_DRAM = 1u << 20,      /* GET: came from DRAM */
	HR_ITEM_FLASH = 1u << 21,     /* GET: came from flash */
	HR_ITEM_BORROWED = 1u << 22   /* GET: `borrow` must be given back with hr_release() */
};

struct hr_item {
	/* in */
	const void *key;
	uint32_t key_len; /* 1 … 1024 */
	uint32_t flags;	  /* enum hr_item_flags, in and out */
	uint64_t route;	  /* with HR_ITEM_ROUTE */
	const struct iovec *
	    iov; /* PUT: the value. GET: where it goes; sum = bytes wanted. With HR_GET_BORROW: NULL */
	uint32_t iov_count;
	uint32_t position;     /* PUT: in its chain */
	uint64_t object_off;   /* GET: the range starts here; 0 otherwise */
	uint64_t expected_len; /* GET: length of the whole block; another length is a miss (size_mismatch). HR_LEN_ANY: whatever it is;
				   * the buffer gets min(sum of iov, length − object_off) bytes. 0 = object_off + sum of iov */
	const uint8_t *parent; /* PUT: id (16 bytes) of the block before it in its chain, or NULL */
	uint32_t ttl_ms;       /* PUT: 0 = none */
	uint32_t cost_hint_us; /* PUT: time to compute it again; 0 = unknown */
	uint8_t class_hint;    /* PUT: the caller's */
	uint8_t pad[3];
	/* out */
	uint32_t status;	/* enum hr_status */
	uint32_t reason;	/* enum hr_reason */
	uint64_t len;		/* length of the whole block (GET, EXISTS) */
	uint64_t bytes;		/* GET: bytes in the buffer */
	struct iovec *borrowed; /* with HR_ITEM_BORROWED: read-only pages, until hr_release() */
	uint32_t borrowed_count;
	uint32_t pad2;
	uint64_t borrow; /* handle */
	uint64_t reserve[4];
};

enum hr_ack {
	HR_ACK_RAM = 0,
	HR_ACK_STABLE = 1,
	HR_ACK_REPLICATED = 2 /* -ENOTSUP: nodes keep one copy yet */
};
enum hr_priority {
	HR_PRIORITY_DEFAULT = 0,
	HR_PRIORITY_LOW = 1,
	HR_PRIORITY_NORMAL = 2,
	HR_PRIORITY_HIGH = 3
}; /* default: loads high, stores normal, prefetch low */

struct hr_submit_options {
	size_t size;	    /* sizeof(struct hr_submit_options): set by _init() */
	size_t item_size;   /* sizeof(struct hr_item): set by _init() */
	uint64_t user_data; /* comes back in the completion */
	uint32_t deadline_us; /* from now; 0 = the handle's default. Past it, what is not done is a miss */
	uint32_t lease_ms; /* EXISTS: 0 = none; at most HR_LEASE_MS_MAX */
	uint8_t priority;  /* enum hr_priority */
	uint8_t ack;	   /* PUT: enum hr_ack; default HR_ACK_RAM */
	uint8_t pad[6];
	uint64_t reserve[4];
};
void hr_submit_options_init(struct hr_submit_options *options);

typedef int64_t hr_ticket_t; /* > 0 */

struct hr_completion {
	hr_ticket_t ticket;
	uint64_t user_data;
	uint32_t items_count;
	uint32_t ok_count;     /* items with HR_STATUS_OK */
	uint32_t prefix_count; /* leading items with HR_STATUS_OK: what an engine can use */
	uint32_t cancelled;    /* 1: hr_cancel() or hr_close() ended it */
};

/* A ticket, or a negative error, and then nothing was taken: -EINVAL (op, n = 0 or > HR_BATCH_ITEMS_MAX, sizes), -ENOTSUP (ack level), -HR_EFULL (inflight bounds: reap, then
 * try again), -HR_EFORK, -ENOMEM. options NULL = defaults. */
hr_ticket_t hr_submit(struct hr_space *space, enum hr_op op, struct hr_item *items,
		      uint32_t items_count, const struct hr_submit_options *options);
/* An eventfd, level-triggered: readable while completions wait to be reaped. Borrowed; do not read it: hr_reap() does. */
int hr_event_fd(struct hr_client *client);
/* Takes up to max completions without waiting. Returns how many, or a negative error. */
int hr_reap(struct hr_client *client, struct hr_completion *ret_completions, uint32_t max);
/* Waits for this ticket (timeout_ms 0 = does not wait, UINT32_MAX = as long as it takes) and reaps it. 0; -ETIMEDOUT: still under way; -ENOENT: not under way, or reaped. */
int hr_wait(struct hr_client *client, hr_ticket_t ticket, uint32_t timeout_ms,
	    struct hr_completion *ret_completion);
/* Asks to end it early. Its completion still comes, exactly once. 0, or -ENOENT when it is not under way. */
int hr_cancel(struct hr_client *client, hr_ticket_t ticket);
/* Waits until nothing is under way (completions stay to be reaped). 0 or -ETIMEDOUT. */
int hr_drain(struct hr_client *client, uint32_t timeout_ms);
/* Ends leases of the items' keys (items with HR_ITEM_LEASED) and borrows (HR_ITEM_BORROWED) and clears these flags. Never blocks. */
int hr_release(struct hr_space *space, struct hr_item *items, uint32_t items_count);

/* -- synchronous helpers: one block ------------------------------------------------------------------------------------------ */
/* 0 = OK; > 0: a miss or refusal, the value is an enum hr_reason; < 0: error. */
int hr_put(struct hr_space *space, const void *key, size_t key_len, const void *value,
	   size_t value_len, const struct hr_submit_options *options);
/* Fills buf with up to buf_bytes; *ret_len = length of the block. A block that is longer than buf is a miss (HR_REASON_SIZE) and sets *ret_len;
 * buf then holds its beginning. */
int hr_get(struct hr_space *space, const void *key, size_t key_len, void *buf, size_t buf_bytes,
	   size_t *ret_len, const struct hr_submit_options *options);
int hr_exists(struct hr_space *space, const void *key, size_t key_len, uint64_t *ret_len,
	      const struct hr_submit_options *options);
int hr_delete(struct hr_space *space, const void *key, size_t key_len,
	      const struct hr_submit_options *options);

#pragma GCC visibility pop
#ifdef __cplusplus
}
#endif
#endif
