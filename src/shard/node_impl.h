/* node_impl.h - what the files of the node share.
 *
 * The files: node.c (devices, start, stop, add, drop), node_thread.c (what runs in the shards' threads), node_stat.c.
 *
 * Threads: a node_thread's io, shard and node_shards belong to its thread from the moment it runs; everybody else sends it messages
 * (struct node_msg in its ring, then io_wake()). The table of who is where (node->devices, states, epoch) is under node->mutex: it is
 * control, touched at HELLO, at changes and by statistics. Order of locks: node->mutex alone, never while waiting for a thread.
 */
#ifndef HR_SHARD_NODE_IMPL_H
#define HR_SHARD_NODE_IMPL_H

#include <pthread.h>
#include <stdatomic.h>

#include "base/base.h"
#include "base/list.h"
#include "base/ring.h"
#include "shard/node.h"
#include "shard/stat_json.h"

enum {
	NODE_RING_SLOTS =
	    8192, /* more than conns_max: a storm of connections to one thread goes through it */
	NODE_LISTEN_MAX = 16,
	NODE_THREADS_MAX = 64,
	NODE_STATS_WAITING_MAX = 64,
	NODE_STAT_WAIT_MS = 2000, /* for a thread; one that does not answer is left out, and said */
};

struct node;
struct node_thread;

/* Memory of the sender unless the function frees it. */
struct node_msg {
	void (*run)(struct node_thread *thread, struct node_msg *msg);
};

/* A sender that waits. Lives on the sender's stack: who uses it waits for as long as it takes. */
struct node_wait {
	pthread_mutex_t mutex;
	pthread_cond_t cond;
	unsigned pending;
	int rc;
	char detail[DETAIL_BYTES];
};

enum node_device_state { NODE_DEVICE_OPEN, NODE_DEVICE_FAILED, NODE_DEVICE_MISSING };

struct node_device {
	struct list_head link; /* node->devices */
	char *path;
	uint8_t uuid[16];
	enum node_device_state state; /* under node->mutex, as all below */
	int error;
	char why[DETAIL_BYTES];
	uint64_t size_bytes;
	bool direct, block_device;
	unsigned shards_open; /* engines that still live */
};

struct node_shard {
	struct list_head link;	   /* node->shards, under node->mutex */
	struct list_head own_link; /* thread->shards, the thread's */
	struct node *node;
	struct node_thread *thread;
	struct node_device *device; /* lives as long as the shard does */
	struct superblock slice;
	uint64_t dram_bytes;
	uint8_t state; /* enum wire_node_state; under node->mutex */
	/* the thread's: */
	struct io_device *io_device;
	struct engine *engine;
	struct io_timer drop_timer;
	bool loaded; /* recovery is over, well or not */
	bool dropping;
	int failed;
};

/* What must not be lost because a ring is full: a thread looks at it whenever it is woken. */
enum node_want {
	NODE_WANT_MAP_PUSH = 1u << 0,
	NODE_WANT_DROPS = 1u << 1, /* of the shards whose device has failed */
};

struct node_thread {
	struct node *node;
	unsigned idx;
	pthread_t pthread;
	bool started;
	struct mpsc_ring ring;
	_Atomic unsigned wants; /* enum node_want */
	struct io *io;
	struct shard *shard;
	struct list_head shards;
	/* The map as this thread last asked for it. */
	struct wire_map map;
	struct wire_map_node map_node;
	char *map_text;
	/* stopping */
	bool stopping, drained, exiting;
};

struct node_stat_wanted {
	struct list_head link;
	unsigned thread_idx;
	uint64_t token;
};

struct node {
	struct node_options options;
	uint8_t uuid[16];
	uint64_t started_us;
	char *cluster_name, *policy;
	char *addresses[NODE_LISTEN_MAX];
	char *text; /* of the map: addresses */
	struct node_thread threads[NODE_THREADS_MAX];
	unsigned threads_count;
	struct io *ctl_io; /* of the controlling thread: opens and formats devices */

	pthread_mutex_t mutex;
	pthread_cond_t cond; /* a shard's state or a device's count changed */
	struct list_head devices, shards;
	uint64_t epoch;
	bool stopping;

	/* Statistics are put together by a thread of their own: it waits for the others. */
	pthread_t stat_thread;
	bool stat_started;
	struct list_head stats_wanted;
	unsigned stats_wanted_count;
};

/* -- node.c -- */
void node_wait_init(struct node_wait *wait, unsigned pending);
void node_wait_done(struct node_wait *wait, int rc, const char *detail);
int node_wait_for(struct node_wait *wait, char detail[DETAIL_BYTES]);
/* False: the ring is full. */
bool node_thread_send(struct node_thread *thread, struct node_msg *msg);
void node_thread_want(struct node_thread *thread, enum node_want want);
void node_changed(struct node *node); /* epoch, waiters, map pushes; without node->mutex */

/* -- node_thread.c -- */
int node_thread_start(struct node_thread *thread);
void *node_thread_main(void *arg);
int node_hand_over(void *arg, const uint8_t shard_uuid[16], int fd, const void *hello,
		   size_t hello_bytes);
const struct wire_map *node_map(void *arg);
void node_thread_fini(struct node_thread *thread);
int node_shard_open(struct node_shard *ns, char detail[DETAIL_BYTES]); /* before the thread runs */
void node_thread_stop(struct node_thread *thread, uint64_t drain_us);
/* Adds a shard to a running thread; waits. */
int node_shard_add(struct node_shard *ns, char detail[DETAIL_BYTES]);
void node_device_fail(struct node_device *device, struct node *node, int rc);

/* -- node_stat.c -- */
bool node_stat_request(void *arg, uint64_t token);
void *node_stat_main(void *arg);

#endif
