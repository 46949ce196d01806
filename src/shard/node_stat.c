/* node_stat.c - statistics of the whole node: each thread copies its own, a thread of its own puts them together. */
#include <errno.h>
#include <stdlib.h>
#include <time.h>

#include "shard/node_impl.h"

/* What one thread knows. */
struct snapshot_part {
	bool there;
	struct shard_stat sessions;
	struct io_backend backend;
	struct io_counters io;
	struct stat_engine *engines;
	struct node_device **devices; /* of each engine; compared, not followed */
	unsigned engines_count;
};

/* Shared by whoever asks and the threads that answer: the last one frees it, so that a thread that answers too late harms nothing. */
struct snapshot {
	_Atomic unsigned refs;
	pthread_mutex_t mutex;
	pthread_cond_t cond;
	unsigned pending;
	struct snapshot_part parts[NODE_THREADS_MAX];
};

struct snapshot_msg {
	struct node_msg msg;
	struct snapshot *snapshot;
};

static void
snapshot_unref(struct snapshot *snapshot)
{
	if (atomic_fetch_sub_explicit(&snapshot->refs, 1, memory_order_acq_rel) > 1) {
		return;
	}
	for (unsigned i = 0; i < NODE_THREADS_MAX; i++) {
		struct snapshot_part *part = &snapshot->parts[i];

		for (unsigned j = 0; j < part->engines_count; j++) {
			stat_engine_fini(&part->engines[j]);
		}
		free(part->engines);
		free(part->devices);
	}
	pthread_cond_destroy(&snapshot->cond);
	pthread_mutex_destroy(&snapshot->mutex);
	free(snapshot);
}

static void
part_take(struct node_thread *thread, struct snapshot_part *part)
{
	struct node_shard *ns;
	unsigned count = 0;

	list_for_each_entry(ns, &thread->shards, own_link) {
		count++;
	}
	part->engines = calloc((size_t)count + 1, sizeof(*part->engines));
	part->devices = calloc((size_t)count + 1, sizeof(struct node_device *));
	if (part->engines == NULL || part->devices == NULL) {
		return;
	}
	list_for_each_entry(ns, &thread->shards, own_link) {
		if (stat_engine_take(ns->engine, &part->engines[part->engines_count]) != 0) {
			return;
		}
		part->devices[part->engines_count++] = ns->device;
	}
	shard_stat_get(thread->shard, &part->sessions);
	io_backend_get(thread->io, &part->backend);
	io_counters_get(thread->io, &part->io);
	part->there = true;
}

static void
snapshot_run(struct node_thread *thread, struct node_msg *msg)
{
	struct snapshot_msg *take = container_of(msg, struct snapshot_msg, msg);
	struct snapshot *snapshot = take->snapshot;
	struct snapshot_part part = { 0 };

	part_take(thread, &part);
	pthread_mutex_lock(&snapshot->mutex);
	snapshot->parts[thread->idx] = part;
	snapshot->pending--;
	pthread_cond_signal(&snapshot->cond);
	pthread_mutex_unlock(&snapshot->mutex);
	snapshot_unref(snapshot);
	free(take);
}

static struct snapshot *
snapshot_take(struct node *node)
{
	struct snapshot *snapshot = calloc(1, sizeof(*snapshot));
	struct timespec until;
	int rc = 0;

	if (snapshot == NULL) {
		return NULL;
	}
	pthread_mutex_init(&snapshot->mutex, NULL);
	pthread_cond_init(&snapshot->cond, NULL);
	atomic_init(&snapshot->refs, 1);
	snapshot->pending = node->threads_count;
	for (unsigned i = 0; i < node->threads_count; i++) {
		struct snapshot_msg *take = malloc(sizeof(*take));

		atomic_fetch_add_explicit(&snapshot->refs, 1, memory_order_relaxed);
		if (take != NULL) {
			*take =
			    (struct snapshot_msg){ .msg.run = snapshot_run, .snapshot = snapshot };
		}
		if (take == NULL || !node_thread_send(&node->threads[i], &take->msg)) {
			free(take);
			pthread_mutex_lock(&snapshot->mutex);
			snapshot->pending--;
			pthread_mutex_unlock(&snapshot->mutex);
			snapshot_unref(snapshot);
		}
	}
	clock_gettime(CLOCK_REALTIME, &until);
	until.tv_sec += NODE_STAT_WAIT_MS / 1000;
	pthread_mutex_lock(&snapshot->mutex);
	while (snapshot->pending > 0 && rc == 0) {
		rc = pthread_cond_timedwait(&snapshot->cond, &snapshot->mutex, &until);
	}
	return snapshot; /* locked: late parts wait until it has been read */
}

static void
snapshot_release(struct snapshot *snapshot)
{
	pthread_mutex_unlock(&snapshot->mutex);
	snapshot_unref(snapshot);
}

/* -- JSON -------------------------------------------------------------------------------------------------------------------------- */

static const char *
device_state_name(enum node_device_state state)
{
	static const char *const names[] = { "open", "failed", "missing" };

	return names[state];
}

static json_t *
devices_json(struct node *node)
{
	json_t *devices = json_array();
	struct node_device *device;
	char uuid[37];

	list_for_each_entry(device, &node->devices, link) {
		json_t *object = json_object();

		json_object_set_new(object, "path", json_string(device->path));
		json_object_set_new(object, "uuid",
				    json_string(stat_uuid_format(device->uuid, uuid)));
		json_object_set_new(object, "state", json_string(device_state_name(device->state)));
		json_object_set_new(object, "error", json_string(device->why));
		json_object_set_new(object, "size_bytes",
				    json_integer((json_int_t)device->size_bytes));
		json_object_set_new(object, "direct", json_boolean(device->direct));
		json_object_set_new(object, "block_device", json_boolean(device->block_device));
		json_object_set_new(object, "shards_open", json_integer(device->shards_open));
		json_array_append_new(devices, object);
	}
	return devices;
}

/* The device may have been replaced since: by pointer, not by what it points to. */
static const char *
device_path(struct node *node, const struct node_device *wanted)
{
	struct node_device *device;

	list_for_each_entry(device, &node->devices, link) {
		if (device == wanted) {
			return device->path;
		}
	}
	return "";
}

static json_t *
io_json(const struct io_counters *io)
{
	json_t *object = json_object();

#define IO_SET(field) json_object_set_new(object, #field, json_integer((json_int_t)io->field))
	IO_SET(device_reads);
	IO_SET(device_writes);
	IO_SET(device_syncs);
	IO_SET(device_errors);
	IO_SET(device_read_bytes);
	IO_SET(device_write_bytes);
	IO_SET(device_queue_high);
	IO_SET(device_queue_refused);
	IO_SET(registered_bytes);
	IO_SET(net_recv_bytes);
	IO_SET(net_send_bytes);
	IO_SET(net_accepts_failed);
#undef IO_SET
	return object;
}

static void
io_add(struct io_counters *to, const struct io_counters *from)
{
	to->device_reads += from->device_reads;
	to->device_writes += from->device_writes;
	to->device_syncs += from->device_syncs;
	to->device_errors += from->device_errors;
	to->device_read_bytes += from->device_read_bytes;
	to->device_write_bytes += from->device_write_bytes;
	to->device_queue_high = HR_MAX(to->device_queue_high, from->device_queue_high);
	to->device_queue_refused += from->device_queue_refused;
	to->registered_bytes += from->registered_bytes;
	to->net_recv_bytes += from->net_recv_bytes;
	to->net_send_bytes += from->net_send_bytes;
	to->net_accepts_failed += from->net_accepts_failed;
}

static void
parts_json(struct node *node, const struct snapshot *snapshot, json_t *root)
{
	json_t *shards = json_array(), *spaces = json_array(), *backend = json_object();
	struct shard_stat sessions = { 0 };
	struct io_counters io = { 0 };
	unsigned silent = 0;

	for (unsigned i = 0; i < node->threads_count; i++) {
		const struct snapshot_part *part = &snapshot->parts[i];

		if (!part->there) {
			silent++;
			continue;
		}
		stat_sessions_add(&sessions, &part->sessions);
		io_add(&io, &part->io);
		json_object_set_new(backend, "disk", json_string(part->backend.disk));
		json_object_set_new(backend, "net", json_string(part->backend.net));
		json_object_set_new(backend, "note", json_string(part->backend.note));
		for (unsigned j = 0; j < part->engines_count; j++) {
			json_array_append_new(shards,
					      stat_json_engine(&part->engines[j],
							       device_path(node, part->devices[j])));
			stat_json_spaces_add(spaces, &part->engines[j]);
		}
	}
	json_object_set_new(root, "threads_silent", json_integer(silent));
	json_object_set_new(root, "backend", backend);
	json_object_set_new(root, "io", io_json(&io));
	json_object_set_new(root, "shards", shards);
	json_object_set_new(root, "spaces", spaces);
	json_object_set_new(root, "sessions", stat_json_sessions(&sessions));
}

static uint64_t
control_refused(struct node *node)
{
	uint64_t count = 0;

	for (unsigned i = 0; i < node->threads_count; i++) {
		count += atomic_load_explicit(&node->threads[i].ring.refused_count,
					      memory_order_relaxed);
	}
	return count;
}

char *
node_stat_json(struct node *node)
{
	struct snapshot *snapshot = snapshot_take(node);
	json_t *root = json_object();
	struct timespec now;
	char uuid[37], *text;

	if (snapshot == NULL || root == NULL) {
		json_decref(root);
		return NULL;
	}
	clock_gettime(CLOCK_MONOTONIC, &now);
	pthread_mutex_lock(&node->mutex);
	json_object_set_new(root, "version", json_string(HR_VERSION));
	json_object_set_new(root, "node_uuid", json_string(stat_uuid_format(node->uuid, uuid)));
	json_object_set_new(root, "cluster", json_string(node->cluster_name));
	json_object_set_new(root, "addresses", json_string(node->text != NULL ? node->text : ""));
	json_object_set_new(root, "uptime_s",
			    json_integer((json_int_t)now.tv_sec -
					 (json_int_t)(node->started_us / 1000000)));
	json_object_set_new(root, "map_epoch", json_integer((json_int_t)node->epoch));
	json_object_set_new(root, "threads", json_integer(node->threads_count));
	json_object_set_new(root, "control_refused",
			    json_integer((json_int_t)control_refused(node)));
	json_object_set_new(root, "dram_bytes_max",
			    json_integer((json_int_t)node->options.dram_bytes));
	json_object_set_new(root, "devices", devices_json(node));
	parts_json(node, snapshot, root);
	pthread_mutex_unlock(&node->mutex);
	snapshot_release(snapshot);
	json_object_set_new(root, "ready", json_boolean(node_ready(node)));
	text = json_dumps(root, JSON_COMPACT);
	json_decref(root);
	return text;
}

/* -- STAT over the wire ---------------------------------------------------------------------------------------------------------------- */

struct answer_msg {
	struct node_msg msg;
	uint64_t token;
	char *json;
};

static void
answer_run(struct node_thread *thread, struct node_msg *msg)
{
	struct answer_msg *answer = container_of(msg, struct answer_msg, msg);

	shard_stat_answer(thread->shard, answer->token, answer->json);
	free(answer);
}

bool
node_stat_request(void *arg, uint64_t token)
{
	struct node_thread *thread = arg;
	struct node *node = thread->node;
	struct node_stat_wanted *wanted = malloc(sizeof(*wanted));
	bool room;

	if (wanted == NULL) {
		return false;
	}
	*wanted = (struct node_stat_wanted){ .thread_idx = thread->idx, .token = token };
	pthread_mutex_lock(&node->mutex);
	room = node->stats_wanted_count < NODE_STATS_WAITING_MAX && !node->stopping;
	if (room) {
		node->stats_wanted_count++;
		list_add_tail(&node->stats_wanted, &wanted->link);
		pthread_cond_broadcast(&node->cond);
	}
	pthread_mutex_unlock(&node->mutex);
	if (!room) {
		free(wanted);
	}
	return room;
}

static void
stat_answer(struct node *node, struct node_stat_wanted *wanted, char *json)
{
	struct answer_msg *answer = malloc(sizeof(*answer));

	if (answer != NULL) {
		*answer = (struct answer_msg){ .msg.run = answer_run,
					       .token = wanted->token,
					       .json = json };
		if (node_thread_send(&node->threads[wanted->thread_idx], &answer->msg)) {
			return;
		}
		free(answer);
	}
	free(json);
}

void *
node_stat_main(void *arg)
{
	struct node *node = arg;
	struct node_stat_wanted *wanted;

	pthread_mutex_lock(&node->mutex);
	for (;;) {
		wanted = list_pop_entry(&node->stats_wanted, struct node_stat_wanted, link);
		if (wanted == NULL && node->stopping) {
			break;
		}
		if (wanted == NULL) {
			pthread_cond_wait(&node->cond, &node->mutex);
			continue;
		}
		node->stats_wanted_count--;
		pthread_mutex_unlock(&node->mutex);
		stat_answer(node, wanted, node_stat_json(node));
		free(wanted);
		pthread_mutex_lock(&node->mutex);
	}
	pthread_mutex_unlock(&node->mutex);
	return NULL;
}
