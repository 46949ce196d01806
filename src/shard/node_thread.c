/* node_thread.c - a thread of the node: its io, its shard program, its engines, and the messages it gets. */
#define HR_LOG_COMPONENT "node"
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/log.h"
#include "shard/node_impl.h"

/* -- shards: open, ready, failed, gone ------------------------------------------------------------------------------------------ */

static void
shard_state_set(struct node_shard *ns, uint8_t state)
{
	pthread_mutex_lock(&ns->node->mutex);
	ns->state = state;
	pthread_mutex_unlock(&ns->node->mutex);
	node_changed(ns->node);
}

/* The last reference to the engine is gone. */
static void
shard_removed_cb(void *arg)
{
	struct node_shard *ns = arg;
	struct node *node = ns->node;
	struct node_thread *thread = ns->thread;

	engine_destroy(ns->engine);
	io_device_close(ns->io_device);
	io_timer_cancel(thread->io, &ns->drop_timer);
	list_del(&ns->own_link);
	pthread_mutex_lock(&node->mutex);
	list_del(&ns->link);
	ns->device->shards_open--;
	pthread_mutex_unlock(&node->mutex);
	free(ns);
	node_changed(node);
	if (thread->drained && list_empty(&thread->shards)) {
		thread->exiting = true;
	}
}

static void
shard_stopped_cb(void *arg)
{
	struct node_shard *ns = arg;

	shard_engine_remove(ns->thread->shard, ns->engine, shard_removed_cb, ns);
}

static void
shard_drop_cb(void *arg)
{
	struct node_shard *ns = arg;

	/* An engine that is still finding out what it holds is stopped when it knows: shard_ready_cb() comes back here. */
	if (ns->loaded) {
		engine_stop(ns->engine, shard_stopped_cb, ns);
	}
}

/* Not inside whatever call of the engine told us. */
static void
shard_drop(struct node_shard *ns)
{
	struct node_thread *thread = ns->thread;

	if (ns->dropping) {
		return;
	}
	ns->dropping = true;
	io_timer_set(thread->io, &ns->drop_timer, io_now_us(thread->io), shard_drop_cb, ns);
}

static void
shard_failed_cb(void *arg, int rc)
{
	struct node_shard *ns = arg;

	if (ns->failed != 0) {
		return;
	}
	ns->failed = rc;
	shard_state_set(ns, WIRE_FAILED);
	node_device_fail(ns->device, ns->node, rc);
}

static void
shard_ready_cb(void *arg, int rc, const struct recover_result *result)
{
	struct node_shard *ns = arg;
	char uuid[37];

	ns->loaded = true;
	if (ns->dropping) {
		io_timer_set(ns->thread->io, &ns->drop_timer, io_now_us(ns->thread->io),
			     shard_drop_cb, ns);
	}
	if (rc != 0) {
		shard_failed_cb(ns, rc);
		return;
	}
	log_info(
	    "shard_ready",
	    "shard=%s device=%s records=%llu footers_damaged=%u headers_damaged=%u recovery_us=%llu",
	    stat_uuid_format(ns->slice.shard_uuid, uuid), LOG_QUOTED(ns->device->path),
	    (unsigned long long)result->records_seen, result->footers_damaged,
	    result->headers_damaged, (unsigned long long)result->duration_us);
	if (ns->failed == 0) {
		shard_state_set(ns, WIRE_SERVING);
	}
}

static void
nothing(void *arg)
{
	(void)arg;
}

/* In the thread, or before it runs. On failure nothing is left of it in the thread. */
int
node_shard_open(struct node_shard *ns, char detail[DETAIL_BYTES])
{
	struct node_thread *thread = ns->thread;
	struct engine_options options = ns->node->options.engine;
	int rc;

	options.dram_bytes = ns->dram_bytes;
	options.on_failed = shard_failed_cb;
	options.on_failed_arg = ns;
	rc = io_device_open(thread->io, ns->device->path, IO_DEVICE_LOCK, &ns->io_device);
	if (rc != 0) {
		snprintf(detail, DETAIL_BYTES, "device %s: %s", ns->device->path, error_text(rc));
		return rc;
	}
	rc = engine_create(thread->io, ns->io_device, &ns->slice, &options, &ns->engine);
	if (rc != 0) {
		snprintf(detail, DETAIL_BYTES, "device %s: shard %u: %s", ns->device->path,
			 ns->slice.shard_idx, error_text(rc));
		goto out_close;
	}
	rc = shard_engine_add(thread->shard, ns->engine);
	if (rc != 0) {
		engine_destroy(ns->engine);
		goto out_close;
	}
	list_add_tail(&thread->shards, &ns->own_link);
	rc = engine_start(ns->engine, shard_ready_cb, ns, detail);
	if (rc != 0) {
		/* It has never started: the shard program lets it go at once. */
		list_del(&ns->own_link);
		shard_engine_remove(thread->shard, ns->engine, nothing, NULL);
		engine_destroy(ns->engine);
		goto out_close;
	}
	return 0;
out_close:
	io_device_close(ns->io_device);
	return rc;
}

/* -- messages --------------------------------------------------------------------------------------------------------------------- */

struct add_msg {
	struct node_msg msg;
	struct node_shard *ns;
	struct node_wait wait;
};

static void
add_run(struct node_thread *thread, struct node_msg *msg)
{
	struct add_msg *add = container_of(msg, struct add_msg, msg);
	char detail[DETAIL_BYTES] = "";
	int rc = thread->stopping ? -ECANCELED : node_shard_open(add->ns, detail);

	node_wait_done(&add->wait, rc, detail);
}

int
node_shard_add(struct node_shard *ns, char detail[DETAIL_BYTES])
{
	struct add_msg add = { .msg.run = add_run, .ns = ns };

	node_wait_init(&add.wait, 1);
	if (!node_thread_send(ns->thread, &add.msg)) {
		snprintf(detail, DETAIL_BYTES, "the control queue of a thread is full");
		return -EAGAIN;
	}
	return node_wait_for(&add.wait, detail);
}

static bool
device_has_failed(struct node_device *device, struct node *node)
{
	bool failed;

	pthread_mutex_lock(&node->mutex);
	failed = device->state == NODE_DEVICE_FAILED;
	pthread_mutex_unlock(&node->mutex);
	return failed;
}

static void
drops_run(struct node_thread *thread)
{
	struct node_shard *ns;

	list_for_each_entry(ns, &thread->shards, own_link) {
		if (device_has_failed(ns->device, thread->node)) {
			if (ns->failed == 0) {
				ns->failed = -ENODEV;
				shard_state_set(ns, WIRE_FAILED);
			}
			shard_drop(ns);
		}
	}
}

/* Any thread. The first failure of one of its shards takes the device out of the node: the others' would follow anyway. */
void
node_device_fail(struct node_device *device, struct node *node, int rc)
{
	bool first;

	pthread_mutex_lock(&node->mutex);
	first = device->state == NODE_DEVICE_OPEN;
	if (first) {
		device->state = NODE_DEVICE_FAILED;
		device->error = rc;
		snprintf(device->why, sizeof(device->why), "device %s: %s", device->path,
			 error_text(rc));
	}
	pthread_mutex_unlock(&node->mutex);
	if (!first) {
		return;
	}
	if (rc == -ECANCELED) {
		log_info("device_removing", "device=%s", LOG_QUOTED(device->path));
	} else {
		log_error("device_failed",
			  "device=%s error=\"%s\" action=\"dropped, the node goes on without it\"",
			  LOG_QUOTED(device->path), error_text(rc));
	}
	for (unsigned i = 0; i < node->threads_count; i++) {
		node_thread_want(&node->threads[i], NODE_WANT_DROPS);
	}
}

struct adopt_msg {
	struct node_msg msg;
	int fd;
	size_t hello_bytes;
	uint8_t hello[];
};

static void
adopt_run(struct node_thread *thread, struct node_msg *msg)
{
	struct adopt_msg *adopt = container_of(msg, struct adopt_msg, msg);

	if (thread->stopping) {
		(void)close(adopt->fd);
	} else {
		(void)shard_adopt(thread->shard, adopt->fd, adopt->hello, adopt->hello_bytes);
	}
	free(adopt);
}

/* The thread that has the shard; for zeros, any other that has one. */
static struct node_thread *
thread_of_shard(struct node_thread *asking, const uint8_t uuid[16])
{
	struct node *node = asking->node;
	bool any = is_all_zero(uuid, 16);
	struct node_thread *found = NULL;
	struct node_shard *ns;

	pthread_mutex_lock(&node->mutex);
	list_for_each_entry(ns, &node->shards, link) {
		if (ns->thread != asking && ns->state != WIRE_FAILED &&
		    (any || memcmp(ns->slice.shard_uuid, uuid, 16) == 0)) {
			found = ns->thread;
			break;
		}
	}
	pthread_mutex_unlock(&node->mutex);
	return found;
}

int
node_hand_over(void *arg, const uint8_t shard_uuid[16], int fd, const void *hello,
	       size_t hello_bytes)
{
	struct node_thread *thread = thread_of_shard(arg, shard_uuid);
	struct adopt_msg *adopt;

	if (thread == NULL) {
		return -ENOENT;
	}
	adopt = malloc(sizeof(*adopt) + hello_bytes);
	if (adopt == NULL) {
		return -EAGAIN;
	}
	adopt->msg.run = adopt_run;
	adopt->fd = fd;
	adopt->hello_bytes = hello_bytes;
	memcpy(adopt->hello, hello, hello_bytes);
	if (!node_thread_send(thread, &adopt->msg)) {
		free(adopt);
		return -EAGAIN;
	}
	return 0;
}

/* -- map ---------------------------------------------------------------------------------------------------------------------------- */

const struct wire_map *
node_map(void *arg)
{
	struct node_thread *thread = arg;
	struct node *node = thread->node;
	struct wire_map *map = &thread->map;
	struct node_shard *ns;
	uint32_t count = 0;

	pthread_mutex_lock(&node->mutex);
	if (map->epoch != node->epoch) {
		list_for_each_entry(ns, &node->shards, link) {
			count++;
		}
		free(map->shards);
		map->shards = calloc((size_t)count + 1, sizeof(*map->shards));
		HR_ASSERT(map->shards != NULL);
		map->epoch = node->epoch;
		map->shards_count = 0;
		list_for_each_entry(ns, &node->shards, link) {
			struct wire_map_shard *row = &map->shards[map->shards_count++];

			memcpy(row->uuid, ns->slice.shard_uuid, 16);
			row->weight = ns->slice.weight;
			row->state = ns->state;
		}
	}
	map->nodes = &thread->map_node;
	map->nodes_count = 1;
	memcpy(thread->map_node.uuid, node->uuid, 16);
	thread->map_node.state = node->stopping ? WIRE_DRAINING_STATE : WIRE_SERVING;
	thread->map_node.text = node->text;
	thread->map_node.text_len = (uint32_t)strlen(node->text);
	pthread_mutex_unlock(&node->mutex);
	return map;
}

/* -- the thread ------------------------------------------------------------------------------------------------------------------------ */

/* Before it runs: io and shard program. */
int
node_thread_start(struct node_thread *thread)
{
	struct node *node = thread->node;
	struct io_options io_options = { .disk = node->options.disk, .net = node->options.net };
	struct shard_options options = node->options.shard;
	int rc;

	list_init(&thread->shards);
	rc = mpsc_ring_init(&thread->ring, NODE_RING_SLOTS);
	if (rc != 0) {
		return rc;
	}
	rc = io_create(&io_options, &thread->io);
	if (rc != 0) {
		mpsc_ring_fini(&thread->ring);
		return rc;
	}
	memcpy(options.node_uuid, node->uuid, 16);
	options.hand_over = node_hand_over;
	options.map = node_map;
	options.stat_request = node_stat_request;
	options.arg = thread;
	rc = shard_create(thread->io, &options, &thread->shard);
	if (rc != 0) {
		io_destroy(thread->io);
		mpsc_ring_fini(&thread->ring);
	}
	return rc;
}

void
node_thread_fini(struct node_thread *thread)
{
	struct node_msg *msg;

	/* Late messages: their senders are gone or have been told. */
	while ((msg = mpsc_ring_pop(&thread->ring)) != NULL) {
		msg->run(thread, msg);
	}
	shard_destroy(thread->shard);
	io_destroy(thread->io);
	mpsc_ring_fini(&thread->ring);
	free(thread->map.shards);
}

static void
thread_drained_cb(void *arg)
{
	struct node_thread *thread = arg;
	struct node_shard *ns;

	thread->drained = true;
	list_for_each_entry(ns, &thread->shards, own_link) {
		shard_drop(ns);
	}
	if (list_empty(&thread->shards)) {
		thread->exiting = true;
	}
}

static void
wants_run(struct node_thread *thread)
{
	unsigned wants = atomic_exchange_explicit(&thread->wants, 0, memory_order_acquire);

	if ((wants & NODE_WANT_DROPS) != 0) {
		drops_run(thread);
	}
	if ((wants & NODE_WANT_MAP_PUSH) != 0 && !thread->stopping) {
		shard_map_push(thread->shard);
	}
}

void *
node_thread_main(void *arg)
{
	struct node_thread *thread = arg;
	struct node_msg *msg;

	while (!thread->exiting) {
		int rc = io_run(thread->io, UINT64_MAX);

		HR_ASSERTF(rc >= 0, "io_run=%d", rc);
		while ((msg = mpsc_ring_pop(&thread->ring)) != NULL) {
			msg->run(thread, msg);
		}
		wants_run(thread);
	}
	/* What was closed last is still being given back. */
	for (int i = 0; i < 3; i++) {
		(void)io_run(thread->io, 0);
	}
	return NULL;
}

struct stop_msg {
	struct node_msg msg;
	uint64_t drain_us;
};

static void
stop_run(struct node_thread *thread, struct node_msg *msg)
{
	struct stop_msg *stop = container_of(msg, struct stop_msg, msg);

	thread->stopping = true;
	shard_drain(thread->shard, stop->drain_us, thread_drained_cb, thread);
	free(stop);
}

void
node_thread_stop(struct node_thread *thread, uint64_t drain_us)
{
	struct stop_msg *stop = malloc(sizeof(*stop));

	HR_ASSERT(stop != NULL);
	*stop = (struct stop_msg){ .msg.run = stop_run, .drain_us = drain_us };
	while (!node_thread_send(thread, &stop->msg)) {
		usleep(1000);
	}
}
