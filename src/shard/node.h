/* node.h - a set of shards in threads: what headraced runs, and what libheadrace runs for `file:`.
 *
 * What:       opens devices, makes an engine per slice, spreads them over threads, listens, hands connections to the thread that owns the shard asked for, collects
 *             statistics, drops a device that failed and takes its replacement, drains and stops.
 * Not here:   configuration files, HTTP, signals (server/).
 * Threads:    calls from one controlling thread; the shards run in their own. Control goes through message rings.
 * Errors:     -errno/-HR_E* and one line of detail naming the thing and the value wanted.
 */
#ifndef HR_SHARD_NODE_H
#define HR_SHARD_NODE_H

#include <stdbool.h>
#include <stdint.h>

#include "engine/engine.h"
#include "shard/shard.h"

struct node;

struct node_device_options {
	const char *path;
	uint64_t create_bytes; /* > 0: a file that does not exist is made with this size (prepared in the background) */
	uint64_t segment_bytes; /* for that; 0 = chosen */
	uint32_t shards_count;	/* for that; 0 = 1 */
};

struct node_options {
	const struct node_device_options *devices;
	uint32_t devices_count;
	uint64_t dram_bytes; /* of the node, divided over shards by weight; 0 = 1 GiB or a quarter of the machine's memory, the smaller */
	uint32_t threads;    /* 0 = min(shards, processors) */
	const char *const *listen; /* addresses as io_listen() takes them */
	uint32_t listen_count;
	enum io_disk_kind disk;
	enum io_net_kind net;
	struct engine_options engine; /* dram_bytes is filled in per shard */
	struct shard_options shard;   /* the callbacks are the node's */
	const char *cluster_name;
	bool host_mode; /* `file:`: no device may be missing, no log lines */
};

/* Returns when all listeners are open and every device is open and recovering; serving begins shard by shard. */
int
node_start(const struct node_options *options, struct node **ret_node, char detail[DETAIL_BYTES]);
bool node_ready(struct node *node); /* every shard that is not failed serves */
/* The same, with one line that says why not, or what is amiss though it is. */
bool node_health(struct node *node, char why[DETAIL_BYTES]);
int node_wait_ready(struct node *node, uint32_t timeout_ms); /* 0 or -ETIMEDOUT */
const char *node_address(const struct node *node, uint32_t listen_idx);
/* Drains (at most drain_ms), makes everything stable, stops the threads, closes the devices, frees. */
void node_stop(struct node *node, uint32_t drain_ms);
char *node_stat_json(struct node *node); /* malloc'ed; any thread */
/* A replacement for a failed or missing device, or one more, without restart. */
int node_device_add(struct node *node, const struct node_device_options *device,
		    char detail[DETAIL_BYTES]);
int node_device_drop(struct node *node, const char *path, char detail[DETAIL_BYTES]);

#endif
