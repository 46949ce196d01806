/* handle.c - opening and closing, the I/O thread, submitting and reaping. */
#include "client/handle.h"

#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <linux/magic.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <time.h>
#include <unistd.h>

#include "client/host.h"

enum { ALIVE_BYTES = 4096, TOKEN_BYTES_MAX = 4096, CORE_STAGING_BYTES_MAX = 1 << 30 };

/* A submission. */
struct ticket {
	struct message message;
	struct list_head link; /* on client->finished */
	hr_ticket_t id;
	uint64_t user_data;
	struct hr_space *space;
	uint64_t bytes;
	uint32_t items_count;
	bool finished;
	struct core_batch batch;
};

/* -- the I/O thread -------------------------------------------------------------------------------------------------------------- */

static void
event_set(struct hr_client *client)
{
	uint64_t one = 1;

	while (write(client->event_fd, &one, sizeof(one)) < 0 && errno == EINTR) {
	}
}

static void
event_clear(struct hr_client *client)
{
	uint64_t value;

	while (read(client->event_fd, &value, sizeof(value)) < 0 && errno == EINTR) {
	}
}

/* What has ended becomes a completion. */
static void
batches_reap(struct hr_client *client)
{
	struct core_batch *batch = core_reap(client->core);

	if (batch == NULL) {
		return;
	}
	(void)pthread_mutex_lock(&client->mutex);
	for (; batch != NULL; batch = core_reap(client->core)) {
		struct ticket *ticket = container_of(batch, struct ticket, batch);

		ticket->finished = true;
		client->inflight_bytes -= ticket->bytes;
		client->inflight_items -= ticket->items_count;
		client->under_way_count--;
		if (client->finished_count++ == 0) {
			event_set(client);
		}
		list_add_tail(&client->finished, &ticket->link);
	}
	(void)pthread_cond_broadcast(&client->cond);
	(void)pthread_mutex_unlock(&client->mutex);
}

/* True: to go on. */
static bool
inbox_run(struct hr_client *client, bool *ret_closing)
{
	struct list_head inbox;
	struct message *message, *tmp;
	bool empty;

	list_init(&inbox);
	(void)pthread_mutex_lock(&client->mutex);
	list_splice_tail(&inbox, &client->inbox);
	*ret_closing = client->closing;
	(void)pthread_mutex_unlock(&client->mutex);
	empty = list_empty(&inbox);
	list_for_each_entry_safe(message, tmp, &inbox, link) {
		list_del(&message->link);
		message->run(client, message);
	}
	return !empty;
}

static void *
io_thread(void *arg)
{
	struct hr_client *client = arg;
	bool closing = false, closed = false;

	while (!closed || !core_closed(client->core)) {
		bool more = inbox_run(client, &closing);

		if (closing && !closed) {
			core_close(client->core);
			closed = true;
		}
		batches_reap(client);
		if (closed && core_closed(client->core)) {
			break;
		}
		if (io_run(client->io, more ? 0 : UINT64_MAX) < 0) {
			break; /* the loop itself broke: nothing can be answered any more */
		}
		batches_reap(client);
	}
	(void)inbox_run(client, &closing);
	batches_reap(client);
	return NULL;
}

static void
core_down(void *arg)
{
	struct hr_client *client = arg;

	host_wanted(client->host);
}

static bool
core_gone(void *arg)
{
	struct hr_client *client = arg;

	return host_gone(client->host);
}

static int
core_make(struct hr_client *client)
{
	const char *one;
	struct core_options options = {
		.addresses = (const char *const *)client->url.addresses,
		.addresses_count = client->url.addresses_count,
		.connect_timeout_ms = client->options.connect_timeout_ms,
		.inflight_bytes = client->options.inflight_bytes_max,
		.name = client->options.name,
		.tenant = client->tenant,
		.token = client->token,
		.token_len = client->token_len,
		.arg = client,
	};

	if (client->url.kind != URL_TCP) {
		options.staging_bytes =
		    HR_MIN(client->options.staging_bytes, (uint64_t)CORE_STAGING_BYTES_MAX);
	}
	if (client->url.kind == URL_FILE) {
		one = host_address(client->host);
		options.addresses = &one;
		options.addresses_count = 1;
		options.gap_waits = true;
		options.down = core_down;
		options.gone = core_gone;
	}
	return core_create(client->io, &options, &client->core);
}

static int
thread_start_locked(struct hr_client *client)
{
	struct io_options io_options = { .disk = IO_DISK_PREAD, .net = IO_NET_POLL };
	sigset_t all, old;
	int rc;

	rc = io_create(&io_options, &client->io);
	if (rc != 0) {
		return rc;
	}
	rc = core_make(client);
	if (rc != 0) {
		goto out_io;
	}
	/* Signals are the program's: none is delivered to this thread. */
	(void)sigfillset(&all);
	(void)pthread_sigmask(SIG_SETMASK, &all, &old);
	rc = -pthread_create(&client->thread, NULL, io_thread, client);
	(void)pthread_sigmask(SIG_SETMASK, &old, NULL);
	if (rc != 0) {
		goto out_core;
	}
	(void)pthread_setname_np(client->thread, "headrace-io");
	client->started = true;
	return 0;
out_core:
	core_close(client->core);
	core_destroy(client->core);
	client->core = NULL;
out_io:
	io_destroy(client->io);
	client->io = NULL;
	return rc;
}

int
client_post(struct hr_client *client, struct message *message)
{
	int rc = 0;
	bool wake;

	(void)pthread_mutex_lock(&client->mutex);
	if (!client->started) {
		rc = thread_start_locked(client);
	}
	wake = list_empty(&client->inbox);
	if (rc == 0) {
		list_add_tail(&client->inbox, &message->link);
	}
	(void)pthread_mutex_unlock(&client->mutex);
	if (rc == 0 && wake) {
		io_wake(client->io);
	}
	return rc;
}

struct run_message {
	struct message message;
	void (*fn)(struct hr_client *client, void *arg);
	void *arg;
	bool done;
};

static void
run_message_run(struct hr_client *client, struct message *message)
{
	struct run_message *run = container_of(message, struct run_message, message);

	run->fn(client, run->arg);
	(void)pthread_mutex_lock(&client->mutex);
	run->done = true;
	(void)pthread_cond_broadcast(&client->cond);
	(void)pthread_mutex_unlock(&client->mutex);
}

int
client_run(struct hr_client *client, void (*fn)(struct hr_client *client, void *arg), void *arg)
{
	struct run_message run = { .message.run = run_message_run, .fn = fn, .arg = arg };
	int rc = client_post(client, &run.message);

	if (rc != 0) {
		return rc;
	}
	(void)pthread_mutex_lock(&client->mutex);
	while (!run.done) {
		(void)pthread_cond_wait(&client->cond, &client->mutex);
	}
	(void)pthread_mutex_unlock(&client->mutex);
	return 0;
}

/* -- asking shards --------------------------------------------------------------------------------------------------------------- */

static void
fan_done(struct core_call *call)
{
	struct fan_call *fan_call = container_of(call, struct fan_call, call);
	struct hr_client *client = call->arg;
	struct fan *fan = fan_call->fan;

	if (--fan->left == 0) {
		(void)pthread_mutex_lock(&client->mutex);
		fan->done = true;
		(void)pthread_cond_broadcast(&client->cond);
		(void)pthread_mutex_unlock(&client->mutex);
	}
}

static bool
fan_wants(const struct fan *fan, const struct core_shard *shards, unsigned i)
{
	if (fan->uuid != NULL) {
		return memcmp(fan->uuid, shards[i].uuid, 16) == 0;
	}
	for (unsigned j = 0; fan->per_node && j < i; j++) {
		if (memcmp(shards[j].node_uuid, shards[i].node_uuid, 16) == 0) {
			return false;
		}
	}
	return true;
}

static void
fan_start(struct hr_client *client, void *arg)
{
	struct fan *fan = arg;
	struct core_space *space = NULL;
	struct core_shard *shards = NULL;
	unsigned count = core_shards(client->core, NULL, 0);
	uint64_t weight_sum = 0;
	bool ok = true;

	shards = calloc(HR_MAX(count, 1u), sizeof(*shards));
	count = shards != NULL ? core_shards(client->core, shards, count) : 0;
	fan->calls = calloc(HR_MAX(count, 1u), sizeof(*fan->calls));
	if (fan->space != NULL) {
		space = client_core_space(client, fan->space);
		ok = space != NULL;
	}
	if (!ok || shards == NULL || fan->calls == NULL) {
		fan->rc = -ENOMEM;
		fan->done = true;
		free(shards);
		return;
	}
	for (unsigned i = 0; i < count; i++) {
		weight_sum += shards[i].weight;
		fan->left += fan_wants(fan, shards, i);
	}
	fan->calls_count = fan->left;
	if (fan->left == 0) {
		fan->rc = fan->uuid != NULL ? -HR_EGONE : -HR_EDOWN;
		fan->done = true;
	}
	for (unsigned i = 0, n = 0; i < count; i++) {
		struct fan_call *fan_call = &fan->calls[n];

		if (!fan_wants(fan, shards, i)) {
			continue;
		}
		n++;
		fan_call->fan = fan;
		fan_call->shard = shards[i];
		fan_call->call.op = fan->op;
		fan_call->call.space = space;
		fan_call->call.deadline_us = HR_MIN(fan->timeout_ms, 4000000u) * 1000u;
		fan_call->call.done = fan_done;
		fan_call->call.arg = client;
		memcpy(fan_call->call.shard_uuid, shards[i].uuid, 16);
		if (fan->build != NULL) {
			fan->build(fan->arg, &shards[i], weight_sum, &fan_call->call.items);
		}
	}
	/* The last of them may end the fan, and its memory with it: nothing of it is used after that. */
	for (unsigned i = 0, n = fan->calls_count; i < n; i++) {
		core_call(client->core, &fan->calls[i].call);
	}
	free(shards);
}

/* Waits until the store answers: the map is known then. */
static void
connect_start(struct hr_client *client, void *arg)
{
	struct fan *fan = arg;

	fan->calls = calloc(1, sizeof(*fan->calls));
	if (fan->calls == NULL) {
		fan->rc = -ENOMEM;
		fan->done = true;
		return;
	}
	fan->calls_count = 1;
	fan->left = 1;
	fan->calls[0].fan = fan;
	fan->calls[0].call.connects = true;
	fan->calls[0].call.deadline_us = HR_MIN(fan->timeout_ms, 4000000u) * 1000u;
	fan->calls[0].call.done = fan_done;
	fan->calls[0].call.arg = client;
	core_kick(client->core);
	core_call(client->core, &fan->calls[0].call);
}

static int
fan_wait(struct hr_client *client, struct fan *fan,
	 void (*start)(struct hr_client *client, void *arg))
{
	int rc = client_run(client, start, fan);

	if (rc != 0) {
		return rc;
	}
	(void)pthread_mutex_lock(&client->mutex);
	while (!fan->done) {
		(void)pthread_cond_wait(&client->cond, &client->mutex);
	}
	(void)pthread_mutex_unlock(&client->mutex);
	return fan->rc;
}

static uint64_t
now_ms(void)
{
	struct timespec ts;

	(void)clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000 + (uint64_t)ts.tv_nsec / 1000000;
}

int
fan_run(struct hr_client *client, struct fan *fan)
{
	uint64_t started_ms = now_ms(), spent_ms;
	int rc = hr_client_ready(client, fan->timeout_ms);

	if (rc != 0) {
		return rc;
	}
	spent_ms = now_ms() - started_ms;
	fan->timeout_ms = spent_ms < fan->timeout_ms ? fan->timeout_ms - (uint32_t)spent_ms : 1;
	return fan_wait(client, fan, fan_start);
}

int
fan_rc(const struct fan *fan)
{
	for (uint32_t i = 0; i < fan->calls_count; i++) {
		if (fan->calls[i].call.rc != 0) {
			return fan->calls[i].call.rc;
		}
	}
	return 0;
}

void
fan_fini(struct fan *fan)
{
	for (uint32_t i = 0; i < fan->calls_count; i++) {
		wire_buf_free(&fan->calls[i].call.answer);
		wire_buf_free(&fan->calls[i].call.payload);
	}
	free(fan->calls);
	fan->calls = NULL;
	fan->calls_count = 0;
}

struct ready_ask {
	bool ready;
	int error;
};

static void
ready_look(struct hr_client *client, void *arg)
{
	struct ready_ask *ask = arg;

	ask->ready = core_ready(client->core);
	ask->error = core_last_error(client->core, NULL, 0);
}

int
hr_client_ready(struct hr_client *client, uint32_t timeout_ms)
{
	struct fan fan = { .timeout_ms = timeout_ms };
	struct ready_ask ask = { 0 };
	int rc;

	if (client == NULL) {
		return -EINVAL;
	}
	if (client_is_child(client)) {
		return -HR_EFORK;
	}
	rc = client_run(client, ready_look, &ask);
	if (rc != 0 || ask.ready) {
		return rc;
	}
	rc = fan_wait(client, &fan, connect_start);
	if (rc == 0) {
		rc = fan_rc(&fan);
	}
	fan_fini(&fan);
	if (rc == -ETIMEDOUT && client_run(client, ready_look, &ask) == 0 && ask.error != 0) {
		rc = ask.error;
	}
	return rc;
}

/* -- opening --------------------------------------------------------------------------------------------------------------------- */

void
hr_options_init(struct hr_options *options)
{
	*options = (struct hr_options){
		.size = sizeof(*options),
		.connect_timeout_ms = 2000,
		.deadline_ms = 5000,
		.inflight_bytes_max = MiB(256),
		.inflight_items_max = 65536,
		.staging_bytes = MiB(64),
	};
}

void
client_detail_set(struct hr_client *client, const char *fmt, ...)
{
	va_list ap;

	(void)pthread_mutex_lock(&client->mutex);
	va_start(ap, fmt);
	(void)vsnprintf(client->detail, sizeof(client->detail), fmt, ap);
	va_end(ap);
	(void)pthread_mutex_unlock(&client->mutex);
}

static void
detail_look(struct hr_client *client, void *arg)
{
	char *buf = arg;

	(void)core_last_error(client->core, buf, HR_DETAIL_BYTES);
}

void
hr_client_detail(struct hr_client *client, char *buf, size_t buf_bytes)
{
	char text[HR_DETAIL_BYTES] = "";
	bool started;

	if (buf_bytes == 0) {
		return;
	}
	buf[0] = 0;
	if (client == NULL || client_is_child(client)) {
		return;
	}
	(void)pthread_mutex_lock(&client->mutex);
	started = client->started;
	(void)pthread_mutex_unlock(&client->mutex);
	if (started) {
		(void)client_run(client, detail_look, text);
	}
	if (client->host != NULL) {
		host_detail_mend(client->host, text, sizeof(text));
	}
	(void)pthread_mutex_lock(&client->mutex);
	(void)snprintf(buf, buf_bytes, "%s", text[0] != 0 ? text : client->detail);
	(void)pthread_mutex_unlock(&client->mutex);
}

/* First line of the file: "TENANT:SECRET", or "SECRET" alone for the default tenant. */
static int
token_read(struct hr_client *client, const char *path, struct errbuf *err)
{
	char text[TOKEN_BYTES_MAX];
	ssize_t n;
	char *colon;
	int fd = open(path, O_RDONLY | O_CLOEXEC);

	if (fd < 0) {
		return errf(err, -errno, "token_file=%s: %s", path, error_text(errno));
	}
	n = read(fd, text, sizeof(text) - 1);
	(void)close(fd);
	if (n < 0) {
		return errf(err, -EIO, "token_file=%s: cannot be read", path);
	}
	text[n] = 0;
	text[strcspn(text, "\r\n")] = 0;
	colon = strchr(text, ':');
	if (colon != NULL) {
		*colon = 0;
		client->tenant = strdup(text);
	}
	client->token = (uint8_t *)strdup(colon != NULL ? colon + 1 : text);
	if (client->token == NULL || (colon != NULL && client->tenant == NULL)) {
		return -ENOMEM;
	}
	client->token_len = strlen((char *)client->token);
	explicit_bzero(text, sizeof(text));
	if (client->token_len == 0) {
		return errf(err, -HR_ECONFIG, "token_file=%s: TENANT:SECRET is wanted", path);
	}
	return 0;
}

static int
options_take(struct hr_client *client, const struct hr_options *options, struct errbuf *err)
{
	hr_options_init(&client->options);
	if (options != NULL) {
		if (options->size < sizeof(*options)) {
			return errf(err, -EINVAL, "hr_options.size: hr_options_init() sets it");
		}
		client->options = *options;
	}
	client->options.token_file = NULL;
	if (client->options.deadline_ms == 0) {
		client->options.deadline_ms = 5000;
	}
	if (client->options.connect_timeout_ms == 0) {
		client->options.connect_timeout_ms = 2000;
	}
	if (client->options.inflight_bytes_max == 0) {
		client->options.inflight_bytes_max = MiB(256);
	}
	if (client->options.inflight_items_max == 0) {
		client->options.inflight_items_max = 65536;
	}
	client->options.name = strdup(client->options.name != NULL ? client->options.name
								   : program_invocation_short_name);
	if (client->options.name == NULL) {
		return -ENOMEM;
	}
	return options != NULL && options->token_file != NULL
		   ? token_read(client, options->token_file, err)
		   : 0;
}

static void
client_free(struct hr_client *client)
{
	struct hr_space *space, *space_next;
	struct ticket *ticket, *ticket_next;

	list_for_each_entry_safe(ticket, ticket_next, &client->finished, link) {
		free(ticket);
	}
	list_for_each_entry_safe(space, space_next, &client->spaces, link) {
		free(space);
	}
	core_destroy(client->core);
	if (client->io != NULL) {
		io_destroy(client->io);
	}
	host_close(client->host);
	hashmap_fini(&client->tickets);
	if (client->event_fd >= 0) {
		(void)close(client->event_fd);
	}
	(void)pthread_mutex_destroy(&client->mutex);
	(void)pthread_cond_destroy(&client->cond);
	url_fini(&client->url);
	free((void *)(uintptr_t)client->options.name);
	free(client->tenant);
	free(client->token);
	if (client->alive != NULL) {
		(void)munmap(client->alive, ALIVE_BYTES);
	}
	free(client);
}

static void
alive_create(struct hr_client *client)
{
	uint8_t *alive =
	    mmap(NULL, ALIVE_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (alive == MAP_FAILED) {
		return;
	}
	if (madvise(alive, ALIVE_BYTES, MADV_WIPEONFORK) != 0) {
		(void)munmap(alive, ALIVE_BYTES);
		return;
	}
	*alive = 1;
	client->alive = alive;
}

static int
client_create(struct hr_client **ret_client)
{
	struct hr_client *client = calloc(1, sizeof(*client));
	pthread_condattr_t attr;

	if (client == NULL) {
		return -ENOMEM;
	}
	client->pid = getpid();
	alive_create(client);
	list_init(&client->inbox);
	list_init(&client->finished);
	list_init(&client->spaces);
	hashmap_init(&client->tickets, 0);
	(void)pthread_mutex_init(&client->mutex, NULL);
	(void)pthread_condattr_init(&attr);
	(void)pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	(void)pthread_cond_init(&client->cond, &attr);
	(void)pthread_condattr_destroy(&attr);
	client->event_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (client->event_fd < 0) {
		int rc = -errno;

		client_free(client);
		return rc;
	}
	*ret_client = client;
	return 0;
}

int
hr_open(const char *url, const struct hr_options *options, struct hr_client **ret_client,
	char *detail)
{
	struct errbuf err = { { 0 } };
	struct hr_client *client = NULL;
	int rc;

	if (ret_client == NULL) {
		return -EINVAL;
	}
	rc = client_create(&client);
	if (rc != 0) {
		return rc;
	}
	if (url == NULL) {
		url = getenv("HEADRACE_URL");
	}
	rc = url == NULL ? errf(&err, -HR_EURL, "no URL: give one, or set HEADRACE_URL")
			 : url_parse(url, &client->url, &err);
	if (rc == 0) {
		rc = options_take(client, options, &err);
	}
	if (rc == 0 && client->url.kind == URL_FILE) {
		rc = host_open(client, &err);
	}
	if (detail != NULL) {
		(void)snprintf(detail, HR_DETAIL_BYTES, "%s",
			       rc == 0 || err.text[0] != 0 ? err.text : error_text(rc));
	}
	if (rc != 0) {
		client_free(client);
		return rc;
	}
	if (err.text[0] != 0) { /* opened, and there is something to say */
		client_detail_set(client, "%s", err.text);
		if (getenv("HEADRACE_LOG") != NULL) {
			(void)fprintf(stderr, "headrace: %s\n", err.text);
		}
	}
	*ret_client = client;
	return 0;
}

void
hr_close(struct hr_client *client)
{
	bool started;

	if (client == NULL || client_is_child(client)) {
		return;
	}
	(void)pthread_mutex_lock(&client->mutex);
	client->closing = true;
	started = client->started;
	(void)pthread_mutex_unlock(&client->mutex);
	if (started) {
		io_wake(client->io);
		(void)pthread_join(client->thread, NULL);
	}
	client_free(client);
}

/* -- submitting ------------------------------------------------------------------------------------------------------------------ */

void
hr_submit_options_init(struct hr_submit_options *options)
{
	*options = (struct hr_submit_options){ .size = sizeof(*options),
					       .item_size = sizeof(struct hr_item) };
}

static void
ticket_run(struct hr_client *client, struct message *message)
{
	struct ticket *ticket = container_of(message, struct ticket, message);
	struct core_space *space = client_core_space(client, ticket->space);

	/* The core has its own copy of what a space is. */
	client_space_unref(ticket->space);
	ticket->space = NULL;
	ticket->batch.space = space;
	if (space == NULL) {
		ticket->batch.items_count =
		    0; /* no memory: every item was set to busy by hr_submit() */
	}
	core_submit(client->core, &ticket->batch);
}

static uint64_t
item_bytes(const struct hr_item *item)
{
	uint64_t sum = 0;

	for (uint32_t i = 0; item->iov != NULL && i < item->iov_count; i++) {
		sum += item->iov[i].iov_len;
	}
	if ((item->flags & HR_GET_BORROW) != 0 && item->expected_len != HR_LEN_ANY) {
		sum = item->expected_len;
	}
	return HR_MIN(sum, HR_BLOCK_BYTES_MAX);
}

static int
submit_check(const struct hr_space *space, enum hr_op op, const struct hr_item *items,
	     uint32_t items_count, const struct hr_submit_options *options)
{
	if (space == NULL || items == NULL || items_count == 0 ||
	    items_count > HR_BATCH_ITEMS_MAX || op < HR_OP_PUT || op > HR_OP_PREFETCH) {
		return -EINVAL;
	}
	if (options->size < sizeof(*options) || options->item_size < sizeof(struct hr_item) ||
	    options->item_size % _Alignof(struct hr_item) != 0 || options->ack > HR_ACK_REPLICATED ||
	    options->priority > HR_PRIORITY_HIGH || options->lease_ms > HR_LEASE_MS_MAX) {
		return -EINVAL;
	}
	if (client_is_child(space->client)) {
		return -HR_EFORK;
	}
	/* A promise that no node can keep is not made: each keeps one copy yet. */
	return options->ack == HR_ACK_REPLICATED ? -ENOTSUP : 0;
}

/* Room within the bounds, and a place in the table. One batch alone may be larger than the bound, else it could never go. */
static int
ticket_enter(struct hr_client *client, struct ticket *ticket)
{
	int rc = 0;

	(void)pthread_mutex_lock(&client->mutex);
	if ((client->under_way_count > 0 &&
	     (client->inflight_bytes + ticket->bytes > client->options.inflight_bytes_max ||
	      client->inflight_items + ticket->items_count > client->options.inflight_items_max)) ||
	    client->finished_count >= client->options.inflight_items_max) {
		client->refused_full++;
		rc = -HR_EFULL;
	} else {
		ticket->id = ++client->ticket_last;
		rc = hashmap_put_ptr(&client->tickets, (uint64_t)ticket->id, ticket);
	}
	if (rc == 0) {
		client->inflight_bytes += ticket->bytes;
		client->inflight_items += ticket->items_count;
		client->under_way_count++;
		ticket->space->refs++;
	}
	(void)pthread_mutex_unlock(&client->mutex);
	return rc;
}

static void
ticket_leave(struct hr_client *client, struct ticket *ticket)
{
	(void)pthread_mutex_lock(&client->mutex);
	(void)hashmap_remove(&client->tickets, (uint64_t)ticket->id, NULL);
	client->inflight_bytes -= ticket->bytes;
	client->inflight_items -= ticket->items_count;
	client->under_way_count--;
	(void)pthread_mutex_unlock(&client->mutex);
	client_space_unref(ticket->space);
}

hr_ticket_t
hr_submit(struct hr_space *space, enum hr_op op, struct hr_item *items, uint32_t items_count,
	  const struct hr_submit_options *options)
{
	struct hr_submit_options defaults;
	struct hr_client *client;
	struct ticket *ticket;
	hr_ticket_t id;
	int rc;

	if (options == NULL) {
		hr_submit_options_init(&defaults);
		options = &defaults;
	}
	rc = submit_check(space, op, items, items_count, options);
	if (rc != 0) {
		return rc;
	}
	client = space->client;
	ticket = calloc(1, sizeof(*ticket));
	if (ticket == NULL) {
		return -ENOMEM;
	}
	ticket->message.run = ticket_run;
	ticket->user_data = options->user_data;
	ticket->space = space;
	ticket->items_count = items_count;
	ticket->batch = (struct core_batch){
		.op = (uint8_t)op,
		.priority = options->priority,
		.ack = options->ack,
		.lease_ms = options->lease_ms,
		.deadline_us = options->deadline_us != 0
				   ? options->deadline_us
				   : (uint32_t)HR_MIN((uint64_t)client->options.deadline_ms * 1000,
						      UINT32_MAX),
		.items = items,
		.item_size = options->item_size,
		.items_count = items_count,
	};
	for (uint32_t i = 0; i < items_count; i++) {
		struct hr_item *item =
		    (struct hr_item *)((uint8_t *)items + (size_t)i * options->item_size);

		item->status = op == HR_OP_PUT ? HR_STATUS_REFUSED : HR_STATUS_MISS;
		item->reason = HR_REASON_BUSY;
		if (op == HR_OP_PUT || op == HR_OP_GET) {
			ticket->bytes += item_bytes(item);
		}
	}
	rc = ticket_enter(client, ticket);
	if (rc != 0) {
		free(ticket);
		return rc;
	}
	id = ticket->id;
	rc = client_post(client, &ticket->message);
	if (rc != 0) {
		ticket_leave(client, ticket);
		free(ticket);
		return rc;
	}
	return id;
}

/* -- completions ----------------------------------------------------------------------------------------------------------------- */

static void
ticket_take_locked(struct hr_client *client, struct ticket *ticket, struct hr_completion *ret)
{
	*ret = (struct hr_completion){
		.ticket = ticket->id,
		.user_data = ticket->user_data,
		.items_count = ticket->items_count,
		.ok_count = ticket->batch.ok_count,
		.prefix_count = ticket->batch.prefix_count,
		.cancelled = ticket->batch.cancelled,
	};
	list_del(&ticket->link);
	(void)hashmap_remove(&client->tickets, (uint64_t)ticket->id, NULL);
	if (--client->finished_count == 0) {
		event_clear(client);
	}
	free(ticket);
}

int
hr_event_fd(struct hr_client *client)
{
	if (client == NULL) {
		return -EINVAL;
	}
	return client_is_child(client) ? -HR_EFORK : client->event_fd;
}

int
hr_reap(struct hr_client *client, struct hr_completion *ret_completions, uint32_t max)
{
	int n = 0;

	if (client == NULL || (ret_completions == NULL && max > 0)) {
		return -EINVAL;
	}
	if (client_is_child(client)) {
		return -HR_EFORK;
	}
	(void)pthread_mutex_lock(&client->mutex);
	while ((uint32_t)n < max && n < INT32_MAX && !list_empty(&client->finished)) {
		ticket_take_locked(client, list_first_entry(&client->finished, struct ticket, link),
				   &ret_completions[n++]);
	}
	(void)pthread_mutex_unlock(&client->mutex);
	return n;
}

static void
deadline_after(uint32_t timeout_ms, struct timespec *ret)
{
	(void)clock_gettime(CLOCK_MONOTONIC, ret);
	ret->tv_sec += timeout_ms / 1000;
	ret->tv_nsec += (long)(timeout_ms % 1000) * 1000000;
	if (ret->tv_nsec >= 1000000000) {
		ret->tv_nsec -= 1000000000;
		ret->tv_sec++;
	}
}

/* 0, or -ETIMEDOUT. */
static int
cond_wait_until(struct hr_client *client, uint32_t timeout_ms, const struct timespec *at)
{
	if (timeout_ms == UINT32_MAX) {
		return -pthread_cond_wait(&client->cond, &client->mutex);
	}
	return timeout_ms == 0 ? -ETIMEDOUT
			       : -pthread_cond_timedwait(&client->cond, &client->mutex, at);
}

int
hr_wait(struct hr_client *client, hr_ticket_t id, uint32_t timeout_ms,
	struct hr_completion *ret_completion)
{
	struct hr_completion completion;
	struct ticket *ticket;
	struct timespec at;
	int rc = 0;

	if (client == NULL || id <= 0) {
		return -EINVAL;
	}
	if (client_is_child(client)) {
		return -HR_EFORK;
	}
	deadline_after(timeout_ms, &at);
	(void)pthread_mutex_lock(&client->mutex);
	for (;;) {
		ticket = hashmap_get_ptr(&client->tickets, (uint64_t)id);
		if (ticket == NULL) {
			rc = -ENOENT;
			break;
		}
		if (ticket->finished) {
			ticket_take_locked(client, ticket, &completion);
			if (ret_completion != NULL) {
				*ret_completion = completion;
			}
			rc = 0;
			break;
		}
		if (rc == -ETIMEDOUT) {
			break;
		}
		rc = cond_wait_until(client, timeout_ms, &at);
	}
	(void)pthread_mutex_unlock(&client->mutex);
	return rc;
}

int
hr_drain(struct hr_client *client, uint32_t timeout_ms)
{
	struct timespec at;
	int rc = 0;

	if (client == NULL) {
		return -EINVAL;
	}
	if (client_is_child(client)) {
		return -HR_EFORK;
	}
	deadline_after(timeout_ms, &at);
	(void)pthread_mutex_lock(&client->mutex);
	while (client->under_way_count > 0 && rc != -ETIMEDOUT) {
		rc = cond_wait_until(client, timeout_ms, &at);
	}
	rc = client->under_way_count > 0 ? -ETIMEDOUT : 0;
	(void)pthread_mutex_unlock(&client->mutex);
	return rc;
}

struct cancel_message {
	struct message message;
	hr_ticket_t id;
};

static void
cancel_run(struct hr_client *client, struct message *message)
{
	struct cancel_message *cancel = container_of(message, struct cancel_message, message);
	struct ticket *ticket;

	/* It may have ended, and been reaped, since: only this thread finishes tickets, so what is not finished now stays. */
	(void)pthread_mutex_lock(&client->mutex);
	ticket = hashmap_get_ptr(&client->tickets, (uint64_t)cancel->id);
	if (ticket != NULL && ticket->finished) {
		ticket = NULL;
	}
	(void)pthread_mutex_unlock(&client->mutex);
	if (ticket != NULL) {
		core_cancel(client->core, &ticket->batch);
	}
	free(cancel);
}

int
hr_cancel(struct hr_client *client, hr_ticket_t id)
{
	struct cancel_message *cancel;
	struct ticket *ticket;
	bool under_way;
	int rc;

	if (client == NULL || id <= 0) {
		return -EINVAL;
	}
	if (client_is_child(client)) {
		return -HR_EFORK;
	}
	(void)pthread_mutex_lock(&client->mutex);
	ticket = hashmap_get_ptr(&client->tickets, (uint64_t)id);
	under_way = ticket != NULL && !ticket->finished;
	(void)pthread_mutex_unlock(&client->mutex);
	if (!under_way) {
		return -ENOENT;
	}
	cancel = calloc(1, sizeof(*cancel));
	if (cancel == NULL) {
		return -ENOMEM;
	}
	cancel->message.run = cancel_run;
	cancel->id = id;
	rc = client_post(client, &cancel->message);
	if (rc != 0) {
		free(cancel);
	}
	return rc;
}

/* -- giving back ----------------------------------------------------------------------------------------------------------------- */

struct release_message {
	struct message message;
	struct hr_space *space;
	uint32_t leases_count, all_count, borrows_count;
	uint8_t *ids; /* of leases with a route, then of those without */
	uint64_t *routes;
	uint64_t *borrows;
};

static void
release_free(struct release_message *release)
{
	free(release->ids);
	free(release->routes);
	free(release->borrows);
	free(release);
}

static void
release_run(struct hr_client *client, struct message *message)
{
	struct release_message *release = container_of(message, struct release_message, message);
	struct core_space *space = client_core_space(client, release->space);
	uint32_t first = release->leases_count;

	for (uint32_t i = 0; i < release->borrows_count; i++) {
		core_unborrow(client->core, release->borrows[i]);
	}
	if (space != NULL && release->leases_count > 0) {
		core_release(client->core, space, release->ids, release->routes,
			     release->leases_count, false);
	}
	if (space != NULL && release->all_count > 0) {
		core_release(client->core, space, release->ids + (size_t)first * 16,
			     release->routes + first, release->all_count, true);
	}
	client_space_unref(release->space);
	release_free(release);
}

static void
release_lease_take(struct release_message *release, struct hr_item *item, uint32_t at)
{
	block_id_compute(&release->space->prefix, item->key, item->key_len,
			 release->ids + (size_t)at * 16);
	release->routes[at] = (item->flags & HR_ITEM_ROUTE) != 0
				  ? item->route
				  : get_le64(release->ids + (size_t)at * 16);
}

static void
release_take(struct release_message *release, struct hr_item *items, uint32_t items_count)
{
	uint32_t at = 0;

	for (int all = 0; all < 2; all++) {
		for (uint32_t i = 0; i < items_count; i++) {
			struct hr_item *item = &items[i];

			if ((item->flags & HR_ITEM_LEASED) == 0 ||
			    ((item->flags & HR_ITEM_ALL_SHARDS) != 0) != (all == 1)) {
				continue;
			}
			release_lease_take(release, item, at++);
			release->leases_count += all == 0;
			release->all_count += all == 1;
		}
	}
	for (uint32_t i = 0; i < items_count; i++) {
		struct hr_item *item = &items[i];

		if ((item->flags & HR_ITEM_BORROWED) != 0) {
			release->borrows[release->borrows_count++] = item->borrow;
			item->borrow = 0;
			item->borrowed = NULL;
			item->borrowed_count = 0;
		}
		item->flags &= ~(uint32_t)(HR_ITEM_LEASED | HR_ITEM_BORROWED);
	}
}

int
hr_release(struct hr_space *space, struct hr_item *items, uint32_t items_count)
{
	struct release_message *release;
	uint32_t count = 0;
	int rc;

	if (space == NULL || (items == NULL && items_count > 0)) {
		return -EINVAL;
	}
	if (client_is_child(space->client)) {
		return -HR_EFORK;
	}
	for (uint32_t i = 0; i < items_count; i++) {
		count += (items[i].flags & (HR_ITEM_LEASED | HR_ITEM_BORROWED)) != 0;
	}
	if (count == 0) {
		return 0;
	}
	release = calloc(1, sizeof(*release));
	if (release == NULL) {
		return -ENOMEM;
	}
	release->message.run = release_run;
	release->space = space;
	release->ids = malloc((size_t)count * 16);
	release->routes = malloc(count * sizeof(uint64_t));
	release->borrows = malloc(count * sizeof(uint64_t));
	if (release->ids == NULL || release->routes == NULL || release->borrows == NULL) {
		release_free(release);
		return -ENOMEM;
	}
	release_take(release, items, items_count);
	client_space_ref(space);
	rc = client_post(space->client, &release->message);
	if (rc != 0) {
		client_space_unref(space);
		release_free(release);
	}
	return rc;
}

/* -- memory ---------------------------------------------------------------------------------------------------------------------- */

struct region_ask {
	void *base;
	size_t len;
	int fd;
	int rc;
};

static void
region_add(struct hr_client *client, void *arg)
{
	struct region_ask *ask = arg;

	ask->rc = core_region_add(client->core, ask->base, ask->len, ask->fd);
}

static void
region_remove(struct hr_client *client, void *arg)
{
	struct region_ask *ask = arg;

	ask->rc = core_region_remove(client->core, ask->base);
}

/* A node ends a connection that offers it memory it must not touch, so that is found out here. 0, or -EINVAL with a line. */
static int
region_check(struct hr_client *client, size_t len, int fd, bool *ret_direct)
{
	int seals = fcntl(fd, F_GET_SEALS);
	struct statfs fs;
	struct stat st;

	if (seals < 0 || (seals & F_SEAL_SHRINK) == 0) {
		client_detail_set(client,
				  "hr_register: fd %d: a memfd sealed with F_SEAL_SHRINK is wanted",
				  fd);
		return -EINVAL;
	}
	if (fstat(fd, &st) != 0 || st.st_size < 0 || (uint64_t)st.st_size < len) {
		client_detail_set(client,
				  "hr_register: fd %d: a memfd of %zu bytes or more is wanted", fd,
				  len);
		return -EINVAL;
	}
	*ret_direct = fstatfs(fd, &fs) == 0 && fs.f_type == TMPFS_MAGIC; /* not of huge pages */
	return 0;
}

int
hr_register(struct hr_client *client, void *base, size_t len, int fd)
{
	struct region_ask ask = { .base = base, .len = len };
	bool direct;
	int rc;

	if (client == NULL || base == NULL || len == 0) {
		return -EINVAL;
	}
	if (client_is_child(client)) {
		return -HR_EFORK;
	}
	if (fd < 0 || client->url.kind == URL_TCP || len > GiB(1)) {
		return 0; /* nothing that a socket could use */
	}
	rc = region_check(client, len, fd, &direct);
	if (rc != 0 || !direct) {
		return rc;
	}
	ask.fd = fcntl(fd, F_DUPFD_CLOEXEC, 0);
	if (ask.fd < 0) {
		return -errno;
	}
	rc = client_run(client, region_add, &ask);
	rc = rc != 0 ? rc : ask.rc;
	if (rc != 0) {
		(void)close(ask.fd);
	}
	return rc == -ENOSPC
		   ? 0
		   : rc; /* goes through staging or the socket, as unregistered memory does */
}

int
hr_unregister(struct hr_client *client, void *base)
{
	struct region_ask ask = { .base = base };
	int rc;

	if (client == NULL || base == NULL) {
		return -EINVAL;
	}
	if (client_is_child(client)) {
		return -HR_EFORK;
	}
	rc = client_run(client, region_remove, &ask);
	return rc != 0 ? rc : ask.rc == -ENOENT ? 0 : ask.rc;
}

/* -- statistics ------------------------------------------------------------------------------------------------------------------ */

static void
stat_look(struct hr_client *client, void *arg)
{
	core_stat_get(client->core, arg);
}

static const char *const op_names[] = { NULL, "put", "get", "exists", "touch", "delete", "prefetch" };

static json_t *
client_stat_json(struct hr_client *client, const struct core_stat *stat)
{
	json_t *json = json_object(), *items = json_object(), *reasons = json_object();
	struct {
		const char *name;
		uint64_t value;
	} rows[] = {
		{ "batches", stat->batches },
		{ "bytes_put", stat->bytes_put },
		{ "bytes_got", stat->bytes_got },
		{ "bytes_discarded", stat->bytes_discarded },
		{ "bytes_staged", stat->bytes_staged },
		{ "bytes_shared", stat->bytes_shared },
		{ "requests", stat->requests },
		{ "answers", stat->answers },
		{ "requests_now", stat->requests_now },
		{ "connects", stat->connects },
		{ "connects_failed", stat->connects_failed },
		{ "conns_now", stat->conns_now },
		{ "conns_broken", stat->conns_broken },
		{ "conns_ended_grace", stat->conns_ended_grace },
		{ "breakers_open_now", stat->breakers_open_now },
		{ "protocol_errors", stat->protocol_errors },
		{ "crc_failures", stat->crc_failures },
		{ "restarts_mixed_births", stat->restarts_mixed_births },
		{ "retries_gap", stat->retries_gap },
		{ "staging_full", stat->staging_full },
		{ "borrows_now", stat->borrows_now },
		{ "goaways", stat->pushes_goaway },
		{ "maps", stat->maps },
	};

	for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
		json_object_set_new(json, rows[i].name, json_integer((json_int_t)rows[i].value));
	}
	for (unsigned op = HR_OP_PUT; op <= HR_OP_PREFETCH; op++) {
		json_object_set_new(items, op_names[op],
				    json_pack("{s:I,s:I}", "items", (json_int_t)stat->items[op],
					      "ok", (json_int_t)stat->items_ok[op]));
	}
	for (int reason = 1; reason < HR_REASON_COUNT; reason++) {
		json_object_set_new(reasons, hr_reason_name(reason),
				    json_integer((json_int_t)stat->reasons[reason]));
	}
	json_object_set_new(json, "items", items);
	json_object_set_new(json, "not_ok", reasons);
	(void)pthread_mutex_lock(&client->mutex);
	json_object_set_new(json, "inflight_bytes",
			    json_integer((json_int_t)client->inflight_bytes));
	json_object_set_new(json, "inflight_items",
			    json_integer((json_int_t)client->inflight_items));
	json_object_set_new(json, "unreaped", json_integer((json_int_t)client->finished_count));
	json_object_set_new(json, "refused_full", json_integer((json_int_t)client->refused_full));
	(void)pthread_mutex_unlock(&client->mutex);
	return json;
}

int
hr_stat_json(struct hr_client *client, uint32_t timeout_ms, char **ret_json)
{
	struct fan fan = { .op = WIRE_STAT, .per_node = true, .timeout_ms = timeout_ms };
	struct core_stat stat;
	json_t *json, *nodes;
	char *text;
	int rc;

	if (client == NULL || ret_json == NULL) {
		return -EINVAL;
	}
	if (client_is_child(client)) {
		return -HR_EFORK;
	}
	rc = fan_run(client, &fan);
	if (rc == 0) {
		rc = client_run(client, stat_look, &stat);
	}
	if (rc != 0) {
		fan_fini(&fan);
		return rc;
	}
	json = json_object();
	nodes = json_array();
	json_object_set_new(json, "client", client_stat_json(client, &stat));
	json_object_set_new(json, "nodes", nodes);
	for (uint32_t i = 0; i < fan.calls_count; i++) {
		struct core_call *call = &fan.calls[i].call;
		json_t *node = call->rc != 0 ? NULL
					     : json_loadb((const char *)call->payload.bytes,
							  call->payload.len, 0, NULL);

		if (node == NULL) {
			node = json_pack("{s:s}", "error",
					 error_text(call->rc != 0 ? call->rc : -HR_EPROTO));
		}
		json_array_append_new(nodes, node);
	}
	fan_fini(&fan);
	text = json_dumps(json, JSON_INDENT(2));
	json_decref(json);
	if (text == NULL) {
		return -ENOMEM;
	}
	*ret_json = text;
	return 0;
}
