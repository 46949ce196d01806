/* handle.h - the public handle: one I/O thread that runs a core, and what other threads see of it.
 *
 * What:       messages to the thread (a list under the mutex), tickets, completions, the eventfd, waiting.
 * Threads:    `mutex` guards everything but `core` and `io`, which are the I/O thread's. It is never held while something blocks. The mutex
 *             of host.c comes before it where both are taken.
 * After fork: every call asks client_is_child() first and touches nothing when it is one.
 * Tests:      tests/unit/client/test_handle.c
 */
#ifndef HR_CLIENT_HANDLE_H
#define HR_CLIENT_HANDLE_H

#include <headrace/headrace.h>
#include <pthread.h>
#include <stdatomic.h>
#include <sys/types.h>
#include <unistd.h>

#include "base/hashmap.h"
#include "client/core.h"
#include "client/url.h"

struct host;

/* Something for the I/O thread to do; embedded in what it is about. */
struct message {
	struct list_head link;
	void (*run)(struct hr_client *client, struct message *message);
};

struct hr_client {
	pid_t pid;
	uint8_t *alive; /* a page that a fork wipes: 1 here, 0 in a child. NULL where the kernel cannot do that */
	struct url url;
	struct hr_options options; /* strings are owned */
	char *tenant;
	uint8_t *token;
	size_t token_len;
	struct host *host; /* file: */
	int event_fd;

	pthread_mutex_t mutex;
	pthread_cond_t cond; /* something ended: a ticket, a synchronous message */
	bool started, closing;
	pthread_t thread;
	struct list_head inbox;
	struct hashmap tickets;	   /* not reaped */
	struct list_head finished; /* struct ticket, in the order they ended */
	uint32_t finished_count;
	uint32_t under_way_count;
	uint64_t inflight_bytes;
	uint32_t inflight_items;
	hr_ticket_t ticket_last;
	struct list_head spaces;
	uint64_t refused_full;
	char detail[HR_DETAIL_BYTES];

	struct io *io;
	struct core *core;
};

struct hr_space {
	struct hr_client *client;
	struct list_head link; /* on client->spaces */
	uint32_t refs;	       /* under the mutex: the user's and one per ticket */
	uint8_t digest[SPACE_DIGEST_BYTES];
	char label[64];
	struct block_id_prefix prefix;
	struct core_space *core_space; /* the I/O thread's */
};

/* Asked by every call, so it is worth no system call. */
static inline bool
client_is_child(const struct hr_client *client)
{
	return client->alive != NULL ? __atomic_load_n(client->alive, __ATOMIC_RELAXED) == 0
				     : client->pid != getpid();
}

/* Hands a message to the I/O thread, which is started for the first one. */
int client_post(struct hr_client *client, struct message *message);
/* Runs fn(client, arg) on the I/O thread and waits for it. */
int client_run(struct hr_client *client, void (*fn)(struct hr_client *client, void *arg), void *arg);
void client_detail_set(struct hr_client *client, const char *fmt, ...) HR_PRINTF(2, 3);
struct core_space *
client_core_space(struct hr_client *client, struct hr_space *space); /* I/O thread */
void client_space_ref(struct hr_space *space);
void client_space_unref(struct hr_space *space);

/* One frame to one shard, to one of each node, or to each shard, and their answers. */
struct fan_call {
	struct core_call call;
	struct core_shard shard;
	struct fan *fan;
};
struct fan {
	/* in */
	uint8_t op;
	bool per_node;
	struct hr_space *space; /* or NULL */
	const uint8_t *uuid;	/* only this shard; or NULL */
	/* Fills the request of a shard; or NULL. */
	void (*build)(void *arg, const struct core_shard *shard, uint64_t weight_sum,
		      struct wire_buf *buf);
	void *arg;
	uint32_t timeout_ms;
	/* out */
	struct fan_call *calls;
	uint32_t calls_count;
	/* private */
	uint32_t left;
	bool done;
	int rc;
};
/* Blocks until all have answered or the time is over. 0: every call has its own rc; or why nothing was asked. */
int fan_run(struct hr_client *client, struct fan *fan);
int fan_rc(const struct fan *fan); /* the first error of its calls, 0 when all were answered */
void fan_fini(struct fan *fan);

#endif
