/* node.c - devices, start and stop of a set of shards in threads. */
#define HR_LOG_COMPONENT "node"
#include "shard/node.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "base/hash.h"
#include "base/log.h"
#include "shard/node_impl.h"

enum {
	DRAM_BYTES_MIN = 8 << 20,
	DEVICE_WAIT_MS = 10000,
	/* HTTP's 64 connections, loops, listeners: what a node has open beside its own connections, devices and memfds. */
	DESCRIPTORS_OTHER = 128,
	CONNS_FEW = 16,
};

/* -- waiting and sending ------------------------------------------------------------------------------------------------------- */

void
node_wait_init(struct node_wait *wait, unsigned pending)
{
	*wait = (struct node_wait){ .pending = pending };
	pthread_mutex_init(&wait->mutex, NULL);
	pthread_cond_init(&wait->cond, NULL);
}

void
node_wait_done(struct node_wait *wait, int rc, const char *detail)
{
	pthread_mutex_lock(&wait->mutex);
	if (rc != 0 && wait->rc == 0) {
		wait->rc = rc;
		snprintf(wait->detail, sizeof(wait->detail), "%s", detail);
	}
	wait->pending--;
	pthread_cond_signal(&wait->cond);
	pthread_mutex_unlock(&wait->mutex);
}

int
node_wait_for(struct node_wait *wait, char detail[DETAIL_BYTES])
{
	int rc;

	pthread_mutex_lock(&wait->mutex);
	while (wait->pending > 0) {
		pthread_cond_wait(&wait->cond, &wait->mutex);
	}
	rc = wait->rc;
	if (rc != 0) {
		memcpy(detail, wait->detail, DETAIL_BYTES);
	}
	pthread_mutex_unlock(&wait->mutex);
	pthread_cond_destroy(&wait->cond);
	pthread_mutex_destroy(&wait->mutex);
	return rc;
}

bool
node_thread_send(struct node_thread *thread, struct node_msg *msg)
{
	if (!mpsc_ring_push(&thread->ring, msg)) {
		return false;
	}
	io_wake(thread->io);
	return true;
}

void
node_thread_want(struct node_thread *thread, enum node_want want)
{
	atomic_fetch_or_explicit(&thread->wants, want, memory_order_release);
	io_wake(thread->io);
}

void
node_changed(struct node *node)
{
	bool stopping;

	pthread_mutex_lock(&node->mutex);
	node->epoch++;
	stopping = node->stopping;
	pthread_cond_broadcast(&node->cond);
	pthread_mutex_unlock(&node->mutex);
	for (unsigned i = 0; !stopping && i < node->threads_count; i++) {
		node_thread_want(&node->threads[i], NODE_WANT_MAP_PUSH);
	}
}

/* -- devices --------------------------------------------------------------------------------------------------------------------- */

static void
device_free(struct node_device *device)
{
	if (device != NULL) {
		free(device->path);
		free(device);
	}
}

static int
device_open_error(const char *path, int rc, char detail[DETAIL_BYTES])
{
	switch (rc) {
	case -EBUSY:
		snprintf(detail, DETAIL_BYTES, "device %s is in use by another process", path);
		return -HR_EINUSE;
	case -ENOENT:
		snprintf(detail, DETAIL_BYTES,
			 "device %s does not exist; `headrace format %s --size SIZE` makes it",
			 path, path);
		return rc;
	case -EACCES:
	case -EPERM:
		/* The lock is a file beside an image, and was made by whoever opened the image first. */
		snprintf(detail, DETAIL_BYTES,
			 "device %s%s: Permission denied to read and write it (uid %u)", path,
			 access(path, R_OK | W_OK) == 0 ? ".lock" : "", (unsigned)geteuid());
		return rc;
	default:
		snprintf(detail, DETAIL_BYTES, "device %s: %s", path, error_text(rc));
		return rc;
	}
}

/* Puts the device's name before what is there, once. */
static void
detail_prefix(const char *path, const char *name_there, char detail[DETAIL_BYTES])
{
	char text[DETAIL_BYTES];
	size_t len = strlen(name_there);

	snprintf(text, sizeof(text), "%s", detail);
	if (strncmp(text, name_there, len) == 0 && strncmp(text + len, ": ", 2) == 0) {
		memmove(text, text + len + 2, strlen(text + len + 2) + 1);
	}
	if (strstr(text, path) == NULL) {
		snprintf(detail, DETAIL_BYTES, "device %.120s: %.120s", path, text);
	}
}

/* Under another name first: whoever is killed meanwhile leaves no half-made device behind. */
static int
device_make(struct node *node, const struct node_device_options *options, char detail[DETAIL_BYTES])
{
	struct format_options format = {
		.size_bytes = options->create_bytes,
		.segment_bytes = options->segment_bytes,
		.shards_count = options->shards_count,
	};
	char path[4096], lock[4096 + 8];
	int rc;

	if (snprintf(path, sizeof(path), "%s.new", options->path) >= (int)sizeof(path)) {
		snprintf(detail, DETAIL_BYTES, "device path is longer than %zu bytes",
			 sizeof(path) - 5);
		return -ENAMETOOLONG;
	}
	(void)unlink(path);
	rc = device_format(node->ctl_io, path, &format, detail);
	if (rc != 0) {
		detail_prefix(options->path, path, detail);
	}
	if (rc == 0 && link(path, options->path) != 0) {
		rc = -errno;
		snprintf(detail, DETAIL_BYTES, "device %s cannot be made: %s", options->path,
			 error_text(rc));
	}
	(void)unlink(path);
	snprintf(lock, sizeof(lock), "%s.lock", path);
	(void)unlink(lock);
	return rc == -EEXIST ? 0
			     : rc; /* somebody else was quicker: then it is theirs that is opened */
}

/* What stands on it; it stays locked by `ret_io_device` until the threads have it. */
static int
device_look(struct node *node, struct node_device *device, struct io_device **ret_io_device,
	    struct superblock *ret_slices, uint32_t *ret_count, char detail[DETAIL_BYTES])
{
	struct io_device_info info;
	struct io_device *io_device;
	int rc = io_device_open(node->ctl_io, device->path, IO_DEVICE_LOCK, &io_device);

	if (rc != 0) {
		return device_open_error(device->path, rc, detail);
	}
	rc = device_superblocks_read(node->ctl_io, io_device, ret_slices, ret_count, detail);
	if (rc != 0) {
		io_device_close(io_device);
		detail_prefix(device->path, device->path, detail);
		return rc;
	}
	io_device_info_get(io_device, &info);
	device->size_bytes = info.size_bytes;
	device->direct = info.direct;
	device->block_device = info.block_device;
	if (!info.direct) {
		log_warn("device_buffered", "device=%s note=%s", LOG_QUOTED(device->path),
			 LOG_QUOTED(info.note));
	}
	*ret_io_device = io_device;
	return 0;
}

static struct node_device *
device_by_uuid(struct node *node, const uint8_t uuid[16])
{
	struct node_device *device;

	list_for_each_entry(device, &node->devices, link) {
		if (device->state == NODE_DEVICE_OPEN && memcmp(device->uuid, uuid, 16) == 0) {
			return device;
		}
	}
	return NULL;
}

static struct node_device *
device_by_path(struct node *node, const char *path)
{
	struct node_device *device;

	list_for_each_entry(device, &node->devices, link) {
		if (strcmp(device->path, path) == 0) {
			return device;
		}
	}
	return NULL;
}

static int
device_create(const char *path, struct node_device **ret_device)
{
	struct node_device *device = calloc(1, sizeof(*device));

	if (device == NULL) {
		return -ENOMEM;
	}
	device->path = strdup(path);
	if (device->path == NULL) {
		free(device);
		return -ENOMEM;
	}
	*ret_device = device;
	return 0;
}

/* The slices that can be served become shards on a list of the caller; damaged ones are said and left. */
static int
device_shards(struct node *node, struct node_device *device, const struct superblock *slices,
	      uint32_t count, struct list_head *shards, char detail[DETAIL_BYTES])
{
	unsigned usable = 0;

	for (uint32_t i = 0; i < count; i++) {
		struct node_shard *ns;

		if (slices[i].segments_count == 0) {
			log_error("shard_damaged",
				  "device=%s shard=%u error=\"both superblocks are damaged\"",
				  LOG_QUOTED(device->path), i);
			continue;
		}
		ns = calloc(1, sizeof(*ns));
		if (ns == NULL) {
			return -ENOMEM;
		}
		ns->node = node;
		ns->device = device;
		ns->slice = slices[i];
		ns->state = WIRE_JOINING;
		list_add_tail(shards, &ns->own_link);
		memcpy(device->uuid, slices[i].device_uuid, 16);
		usable++;
	}
	if (usable == 0) {
		snprintf(detail, DETAIL_BYTES, "device %s: both superblocks are damaged",
			 device->path);
		return -HR_ECORRUPT;
	}
	return 0;
}

static void
shards_free(struct list_head *shards)
{
	struct node_shard *ns;

	while ((ns = list_pop_entry(shards, struct node_shard, own_link)) != NULL) {
		free(ns);
	}
}

/* Looks at a device and gives its shards, none of them open yet. */
static int
device_prepare(struct node *node, const struct node_device_options *options,
	       struct node_device **ret_device, struct io_device **ret_io_device,
	       struct list_head *shards, char detail[DETAIL_BYTES])
{
	struct superblock *slices = calloc(SLICES_MAX, sizeof(*slices));
	struct node_device *device = NULL, *other;
	struct io_device *io_device = NULL;
	struct stat st;
	uint32_t count;
	int rc = slices == NULL ? -ENOMEM : device_create(options->path, &device);

	if (rc == 0 && options->create_bytes > 0 && stat(options->path, &st) != 0 &&
	    errno == ENOENT) {
		rc = device_make(node, options, detail);
	}
	if (rc == 0) {
		rc = device_look(node, device, &io_device, slices, &count, detail);
	}
	if (rc == 0) {
		rc = device_shards(node, device, slices, count, shards, detail);
	}
	free(slices);
	if (rc == 0 && (other = device_by_uuid(node, device->uuid)) != NULL) {
		snprintf(detail, DETAIL_BYTES, "device %s is the same as %s, or a copy of it",
			 device->path, other->path);
		rc = -EEXIST;
	}
	if (rc != 0) {
		shards_free(shards);
		if (io_device != NULL) {
			io_device_close(io_device);
		}
		device_free(device);
		return rc;
	}
	*ret_device = device;
	*ret_io_device = io_device;
	return 0;
}

/* A device that is away is something that a node of several lives with; one that is not what it should be is a mistake of somebody,
 * who wants to know now. */
static bool
is_away(int rc)
{
	return rc == -ENOENT || rc == -ENXIO || rc == -ENODEV || rc == -EIO;
}

/* One that should be there and is not: shown by statistics and the health page until it comes, or is wanted no more. */
static int
device_missing_add(struct node *node, const char *path, int error, const char *why)
{
	struct node_device *device;
	int rc = device_create(path, &device);

	if (rc != 0) {
		return rc;
	}
	device->state = NODE_DEVICE_MISSING;
	device->error = error;
	snprintf(device->why, sizeof(device->why), "%s", why);
	pthread_mutex_lock(&node->mutex);
	list_add_tail(&node->devices, &device->link);
	pthread_mutex_unlock(&node->mutex);
	return 0;
}

/* -- start ---------------------------------------------------------------------------------------------------------------------------- */

static uint64_t
dram_bytes_default(void)
{
	uint64_t memory = (uint64_t)sysconf(_SC_PHYS_PAGES) * (uint64_t)sysconf(_SC_PAGESIZE);

	return HR_MIN(GiB(1), memory / 4);
}

static uint64_t
shard_dram_bytes(const struct node *node, uint64_t weight, uint64_t weights)
{
	uint64_t bytes = (uint64_t)((unsigned __int128)node->options.dram_bytes * weight / weights);

	return HR_MAX(bytes, (uint64_t)DRAM_BYTES_MIN);
}

struct opening {
	struct list_head shards; /* own_link */
	struct io_device *io_devices[SLICES_MAX];
	unsigned io_devices_count;
};

static int
devices_open(struct node *node, struct opening *opening, char detail[DETAIL_BYTES])
{
	int rc_away = 0;

	for (uint32_t i = 0; i < node->options.devices_count; i++) {
		const struct node_device_options *options = &node->options.devices[i];
		struct list_head shards;
		struct node_device *device;
		struct io_device *io_device;
		int rc;

		if (i >= SLICES_MAX) {
			snprintf(detail, DETAIL_BYTES, "more than %d devices", SLICES_MAX);
			return -EINVAL;
		}
		list_init(&shards);
		rc = device_prepare(node, options, &device, &io_device, &shards, detail);
		if (rc != 0 && is_away(rc) && !node->options.host_mode &&
		    node->options.devices_count > 1) {
			log_error("device_missing",
				  "device=%s error=%s action=\"the node goes on without it\"",
				  LOG_QUOTED(options->path), LOG_QUOTED(detail));
			rc_away = rc;
			rc = device_missing_add(node, options->path, rc_away, detail);
			if (rc == 0) {
				continue;
			}
		}
		if (rc != 0) {
			return rc;
		}
		list_add_tail(&node->devices, &device->link);
		list_splice_tail(&opening->shards, &shards);
		opening->io_devices[opening->io_devices_count++] = io_device;
	}
	return list_empty(&opening->shards) ? rc_away != 0 ? rc_away : -EINVAL : 0;
}

static unsigned
threads_wanted(const struct node *node, unsigned shards_count)
{
	long processors = sysconf(_SC_NPROCESSORS_ONLN);
	unsigned count = node->options.threads;

	if (count == 0) {
		count = processors > 0 ? (unsigned)processors : 1;
	}
	return HR_MAX(1u, HR_MIN(HR_MIN(count, shards_count), (unsigned)NODE_THREADS_MAX));
}

/* Connections come to their bound before the process comes to that of its descriptors: who asks beyond the first is told, beyond
 * the second nothing is accepted any more, the health page's connections neither. */
static void
conns_fit(struct node *node)
{
	uint32_t *conns_max = &node->options.shard.conns_max;
	uint64_t others = DESCRIPTORS_OTHER + UINT64_C(4) * node->options.devices_count +
			  node->options.dram_bytes / GiB(1);
	struct rlimit limit;
	uint64_t fit;

	if (getrlimit(RLIMIT_NOFILE, &limit) != 0 || limit.rlim_cur == RLIM_INFINITY) {
		return;
	}
	fit = (limit.rlim_cur - HR_MIN((uint64_t)limit.rlim_cur, others)) / node->threads_count;
	fit = HR_MAX(fit - HR_MIN(fit, (uint64_t)SHARD_CONNS_SLACK), (uint64_t)CONNS_FEW);
	if (*conns_max == 0) {
		*conns_max = SHARD_CONNS_MAX_DEFAULT;
	}
	if (*conns_max > fit) {
		log_warn(
		    "fewer_connections",
		    "conns_max=%u wanted=%u limit_nofile=%llu note=\"the limit of open files allows no more\"",
		    (unsigned)fit, *conns_max, (unsigned long long)limit.rlim_cur);
		*conns_max = (uint32_t)fit;
	}
}

static void
shard_place(struct node *node, struct node_shard *ns, struct node_thread *thread)
{
	ns->thread = thread;
	pthread_mutex_lock(&node->mutex);
	list_add_tail(&node->shards, &ns->link);
	ns->device->shards_open++;
	pthread_mutex_unlock(&node->mutex);
}

static void
shard_unplace(struct node *node, struct node_shard *ns)
{
	pthread_mutex_lock(&node->mutex);
	list_del(&ns->link);
	ns->device->shards_open--;
	pthread_mutex_unlock(&node->mutex);
	free(ns);
}

/* Which seams were chosen; all threads probe alike. */
static void
backend_say(struct node *node)
{
	struct io_backend backend;

	io_backend_get(node->threads[0].io, &backend);
	log_info("backend", "disk=%s net=%s note=%s", backend.disk, backend.net,
		 LOG_QUOTED(backend.note));
}

/* Shards of one device go to threads one after the other. */
static int
shards_open(struct node *node, struct opening *opening, char detail[DETAIL_BYTES])
{
	unsigned count = 0, next = 0;
	uint64_t weights = 0;
	struct node_shard *ns;
	int rc;

	list_for_each_entry(ns, &opening->shards, own_link) {
		count++;
		weights += ns->slice.weight;
	}
	node->threads_count = threads_wanted(node, count);
	conns_fit(node);
	for (unsigned i = 0; i < node->threads_count; i++) {
		node->threads[i].node = node;
		node->threads[i].idx = i;
		rc = node_thread_start(&node->threads[i]);
		if (rc != 0) {
			node->threads_count = i;
			snprintf(detail, DETAIL_BYTES, "cannot set up a thread: %s", error_text(rc));
			return rc;
		}
	}
	backend_say(node);
	while ((ns = list_pop_entry(&opening->shards, struct node_shard, own_link)) != NULL) {
		ns->dram_bytes =
		    shard_dram_bytes(node, ns->slice.weight, HR_MAX(weights, UINT64_C(1)));
		shard_place(node, ns, &node->threads[next++ % node->threads_count]);
		rc = node_shard_open(ns, detail);
		if (rc != 0) {
			shard_unplace(node, ns);
			return rc;
		}
	}
	return 0;
}

static int
listeners_open(struct node *node, char detail[DETAIL_BYTES])
{
	size_t len = 1;

	for (uint32_t i = 0; i < node->options.listen_count; i++) {
		const char *address;
		int rc = i < NODE_LISTEN_MAX ? shard_listen(node->threads[0].shard,
							    node->options.listen[i], &address)
					     : -E2BIG;

		if (rc != 0) {
			snprintf(detail, DETAIL_BYTES, "cannot listen on %s: %s",
				 node->options.listen[i], error_text(rc));
			return rc;
		}
		node->addresses[i] = strdup(address);
		HR_ASSERT(node->addresses[i] != NULL);
		len += strlen(address) + 1;
	}
	node->text = calloc(1, len);
	HR_ASSERT(node->text != NULL);
	for (uint32_t i = 0; i < node->options.listen_count; i++) {
		char *at = node->text + strlen(node->text), *colon;

		/* "tcp:HOST:PORT" is written "tcp=HOST:PORT" in the map. */
		sprintf(at, "%s%s", i > 0 ? " " : "", node->addresses[i]);
		colon = strchr(at, ':');
		if (colon != NULL) {
			*colon = '=';
		}
	}
	return 0;
}

static int
threads_run(struct node *node, char detail[DETAIL_BYTES])
{
	sigset_t all, old;
	int rc = 0;

	/* Signals are for the program, not for the shards' threads. */
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &old);
	for (unsigned i = 0; rc == 0 && i < node->threads_count; i++) {
		struct node_thread *thread = &node->threads[i];
		char name[16];

		if (thread->started) {
			continue;
		}
		rc = -pthread_create(&thread->pthread, NULL, node_thread_main, thread);
		thread->started = rc == 0;
		if (rc == 0) {
			snprintf(name, sizeof(name), "hr-shard-%u", i);
			pthread_setname_np(thread->pthread, name);
		}
	}
	if (rc == 0 && !node->stat_started) {
		rc = -pthread_create(&node->stat_thread, NULL, node_stat_main, node);
		node->stat_started = rc == 0;
	}
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	if (rc != 0) {
		snprintf(detail, DETAIL_BYTES, "cannot start a thread: %s", error_text(rc));
	}
	return rc;
}

/* That of the first device that is there: one that is missing has no UUID that we know, and would make all such nodes the same. */
static void
node_uuid_make(struct node *node)
{
	uint8_t digest[SHA256_BYTES], text[32] = "headrace node 1";
	struct node_device *device;

	list_for_each_entry(device, &node->devices, link) {
		if (device->state == NODE_DEVICE_OPEN) {
			memcpy(text + 16, device->uuid, 16);
			break;
		}
	}
	sha256(text, sizeof(text), digest);
	memcpy(node->uuid, digest, 16);
}

static int
node_create(const struct node_options *options, struct node **ret_node)
{
	struct node *node = calloc(1, sizeof(*node));
	struct io_options io_options = { .disk = options->disk, .net = IO_NET_POLL };
	pthread_condattr_t attr;
	int rc;

	if (node == NULL) {
		return -ENOMEM;
	}
	node->options = *options;
	if (node->options.dram_bytes == 0) {
		node->options.dram_bytes = dram_bytes_default();
	}
	node->cluster_name = strdup(options->cluster_name != NULL ? options->cluster_name : "");
	HR_ASSERT(node->cluster_name != NULL);
	/* Devices that come later are opened with it, when the caller's configuration may be another one. */
	node->policy = options->engine.policy != NULL ? strdup(options->engine.policy) : NULL;
	HR_ASSERT(node->policy != NULL || options->engine.policy == NULL);
	node->options.engine.policy = node->policy;
	pthread_mutex_init(&node->mutex, NULL);
	pthread_condattr_init(&attr);
	pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	pthread_cond_init(&node->cond, &attr);
	pthread_condattr_destroy(&attr);
	list_init(&node->devices);
	list_init(&node->shards);
	list_init(&node->stats_wanted);
	rc = io_create(&io_options, &node->ctl_io);
	if (rc != 0) {
		pthread_cond_destroy(&node->cond);
		pthread_mutex_destroy(&node->mutex);
		free(node->cluster_name);
		free(node->policy);
		free(node);
		return rc;
	}
	/* Greater than what an earlier life of this node told its clients. */
	node->epoch = io_wall_ms(node->ctl_io);
	node->started_us = io_now_us_fresh(node->ctl_io);
	*ret_node = node;
	return 0;
}

int
node_start(const struct node_options *options, struct node **ret_node, char detail[DETAIL_BYTES])
{
	char later[DETAIL_BYTES];
	struct opening opening = { 0 };
	struct node *node;
	int rc = node_create(options, &node);

	if (rc != 0) {
		snprintf(detail, DETAIL_BYTES, "cannot start: %s", error_text(rc));
		return rc;
	}
	list_init(&opening.shards);
	rc = devices_open(node, &opening, detail);
	if (rc == 0) {
		node_uuid_make(node);
		rc = shards_open(node, &opening, detail);
	}
	/* The shards hold the lock now. */
	for (unsigned i = 0; i < opening.io_devices_count; i++) {
		io_device_close(opening.io_devices[i]);
	}
	if (rc == 0) {
		rc = listeners_open(node, detail);
	}
	if (rc == 0) {
		rc = threads_run(node, detail);
	}
	if (rc != 0) {
		/* What is half open is closed the way in which everything is. */
		shards_free(&opening.shards);
		(void)threads_run(node, later);
		node_stop(node, 0);
		return rc;
	}
	/* Those are the caller's, and it may let them go. */
	node->options.devices = NULL;
	node->options.listen = NULL;
	*ret_node = node;
	return 0;
}

/* -- ready, stop ------------------------------------------------------------------------------------------------------------------------- */

static bool
ready_locked(struct node *node)
{
	struct node_shard *ns;
	unsigned serving = 0;

	list_for_each_entry(ns, &node->shards, link) {
		if (ns->state == WIRE_JOINING) {
			return false;
		}
		serving += ns->state == WIRE_SERVING;
	}
	return serving > 0;
}

bool
node_ready(struct node *node)
{
	bool ready;

	pthread_mutex_lock(&node->mutex);
	ready = ready_locked(node) && !node->stopping;
	pthread_mutex_unlock(&node->mutex);
	return ready;
}

static void
time_after_ms(struct timespec *ret, uint32_t ms)
{
	clock_gettime(CLOCK_MONOTONIC, ret);
	ret->tv_sec += ms / 1000;
	ret->tv_nsec += (long)(ms % 1000) * 1000000;
	if (ret->tv_nsec >= 1000000000) {
		ret->tv_nsec -= 1000000000;
		ret->tv_sec++;
	}
}

int
node_wait_ready(struct node *node, uint32_t timeout_ms)
{
	struct timespec until;
	int rc = 0;

	time_after_ms(&until, timeout_ms);
	pthread_mutex_lock(&node->mutex);
	while (!ready_locked(node) && !list_empty(&node->shards) && rc == 0) {
		rc = -pthread_cond_timedwait(&node->cond, &node->mutex, &until);
	}
	if (rc == 0 && !ready_locked(node)) {
		rc = -ENODEV; /* every shard has failed */
	}
	pthread_mutex_unlock(&node->mutex);
	return rc;
}

bool
node_health(struct node *node, char why[DETAIL_BYTES])
{
	struct node_device *device;
	struct node_shard *ns;
	unsigned recovering = 0;
	bool ready;

	pthread_mutex_lock(&node->mutex);
	ready = ready_locked(node) && !node->stopping;
	snprintf(why, DETAIL_BYTES, "%s", ready ? "ready" : "no shard is left");
	list_for_each_entry(ns, &node->shards, link) {
		recovering += ns->state == WIRE_JOINING;
	}
	if (node->stopping) {
		snprintf(why, DETAIL_BYTES, "stopping");
	} else if (recovering > 0) {
		snprintf(why, DETAIL_BYTES, "%u shards are recovering", recovering);
	} else {
		list_for_each_entry(device, &node->devices, link) {
			if (device->state != NODE_DEVICE_OPEN) {
				snprintf(why, DETAIL_BYTES, "%s%.200s",
					 ready ? "ready, without: " : "failed: ", device->why);
			}
		}
	}
	pthread_mutex_unlock(&node->mutex);
	return ready;
}

const char *
node_address(const struct node *node, uint32_t listen_idx)
{
	return listen_idx < NODE_LISTEN_MAX ? node->addresses[listen_idx] : NULL;
}

void
node_stop(struct node *node, uint32_t drain_ms)
{
	struct node_device *device;

	if (node == NULL) {
		return;
	}
	pthread_mutex_lock(&node->mutex);
	node->stopping = true;
	pthread_cond_broadcast(&node->cond);
	pthread_mutex_unlock(&node->mutex);
	if (node->stat_started) {
		pthread_join(node->stat_thread, NULL);
	}
	for (unsigned i = 0; i < node->threads_count; i++) {
		node_thread_stop(&node->threads[i], (uint64_t)drain_ms * 1000);
	}
	for (unsigned i = 0; i < node->threads_count; i++) {
		HR_ASSERT(node->threads[i].started);
		pthread_join(node->threads[i].pthread, NULL);
	}
	/* All of them: the last messages of one may be for another. */
	for (unsigned i = 0; i < node->threads_count; i++) {
		node_thread_fini(&node->threads[i]);
	}
	while ((device = list_pop_entry(&node->devices, struct node_device, link)) != NULL) {
		device_free(device);
	}
	for (unsigned i = 0; i < NODE_LISTEN_MAX; i++) {
		free(node->addresses[i]);
	}
	io_destroy(node->ctl_io);
	pthread_cond_destroy(&node->cond);
	pthread_mutex_destroy(&node->mutex);
	free(node->text);
	free(node->cluster_name);
	free(node->policy);
	free(node);
}

/* -- changes while it runs ------------------------------------------------------------------------------------------------------------------ */

/* Waits until no engine of the device lives any more. */
static int
device_wait_closed(struct node *node, struct node_device *device)
{
	struct timespec until;
	int rc = 0;

	time_after_ms(&until, DEVICE_WAIT_MS);
	pthread_mutex_lock(&node->mutex);
	while (device->shards_open > 0 && rc == 0) {
		rc = -pthread_cond_timedwait(&node->cond, &node->mutex, &until);
	}
	pthread_mutex_unlock(&node->mutex);
	return rc;
}

static struct node_thread *
thread_least_loaded(struct node *node)
{
	unsigned loads[NODE_THREADS_MAX] = { 0 }, best = 0;
	struct node_shard *ns;

	pthread_mutex_lock(&node->mutex);
	list_for_each_entry(ns, &node->shards, link) {
		loads[ns->thread->idx]++;
	}
	pthread_mutex_unlock(&node->mutex);
	for (unsigned i = 1; i < node->threads_count; i++) {
		best = loads[i] < loads[best] ? i : best;
	}
	return &node->threads[best];
}

static uint64_t
weights_sum(struct node *node, const struct list_head *more)
{
	struct node_shard *ns;
	uint64_t weights = 0;

	pthread_mutex_lock(&node->mutex);
	list_for_each_entry(ns, &node->shards, link) {
		weights += ns->slice.weight;
	}
	pthread_mutex_unlock(&node->mutex);
	list_for_each_entry(ns, more, own_link) {
		weights += ns->slice.weight;
	}
	return HR_MAX(weights, UINT64_C(1));
}

static int
device_shards_add(struct node *node, struct list_head *shards, char detail[DETAIL_BYTES])
{
	uint64_t weights = weights_sum(node, shards);
	struct node_shard *ns;
	int rc = 0;

	while (rc == 0 && (ns = list_pop_entry(shards, struct node_shard, own_link)) != NULL) {
		ns->dram_bytes = shard_dram_bytes(node, ns->slice.weight, weights);
		shard_place(node, ns, thread_least_loaded(node));
		rc = node_shard_add(ns, detail);
		if (rc != 0) {
			shard_unplace(node, ns);
		}
	}
	return rc;
}

static void
device_forget(struct node *node, struct node_device *device)
{
	pthread_mutex_lock(&node->mutex);
	list_del(&device->link);
	pthread_mutex_unlock(&node->mutex);
	device_free(device);
}

int
node_device_add(struct node *node, const struct node_device_options *options,
		char detail[DETAIL_BYTES])
{
	struct node_device *device = device_by_path(node, options->path), *old = device;
	struct io_device *io_device;
	struct list_head shards;
	int rc;

	if (old != NULL && old->state == NODE_DEVICE_OPEN) {
		snprintf(detail, DETAIL_BYTES, "device %s is open already", options->path);
		return -EEXIST;
	}
	if (old != NULL && device_wait_closed(node, old) != 0) {
		snprintf(detail, DETAIL_BYTES,
			 "device %s: operations that were begun on it do not end", options->path);
		return -ETIMEDOUT;
	}
	list_init(&shards);
	rc = device_prepare(node, options, &device, &io_device, &shards, detail);
	if (rc != 0) {
		if (old == NULL && rc != -EEXIST) {
			(void)device_missing_add(node, options->path, rc, detail);
		}
		return rc;
	}
	pthread_mutex_lock(&node->mutex);
	list_add_tail(&node->devices, &device->link);
	pthread_mutex_unlock(&node->mutex);
	rc = device_shards_add(node, &shards, detail);
	shards_free(&shards);
	io_device_close(io_device);
	if (rc != 0) {
		node_device_fail(device, node, rc);
		if (device_wait_closed(node, device) == 0) {
			device_forget(node, device);
		}
		return rc;
	}
	if (old != NULL) {
		device_forget(node, old);
	}
	log_info("device_added", "device=%s", LOG_QUOTED(options->path));
	node_changed(node);
	return 0;
}

int
node_device_drop(struct node *node, const char *path, char detail[DETAIL_BYTES])
{
	struct node_device *device = device_by_path(node, path);

	if (device == NULL) {
		snprintf(detail, DETAIL_BYTES, "device %s is not one of this node's", path);
		return -ENOENT;
	}
	node_device_fail(device, node, -ECANCELED);
	if (device_wait_closed(node, device) != 0) {
		snprintf(detail, DETAIL_BYTES,
			 "device %s: operations that were begun on it do not end", path);
		return -ETIMEDOUT;
	}
	device_forget(node, device);
	log_info("device_removed", "device=%s", LOG_QUOTED(path));
	node_changed(node);
	return 0;
}
