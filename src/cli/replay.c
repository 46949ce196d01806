/* replay.c — see replay.h. */
#include "cli/replay.h"

#include <errno.h>
#include <inttypes.h>
#include <jansson.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "cli/content.h"
#include "cli/pipe.h"
#include "cli/progress.h"
#include "cli/replay_chain.h"

enum {
	BATCH_BYTES = 4 << 20, /* Values of one batch: one message of a run or a few. */
	BATCH_ITEMS_MAX = 256,
	SPACES_MAX = 64,
	STAT_TIMEOUT_MS = 5000,
	SLEEP_MS_MAX = 100,
};

/* What the clients of one replay share. */
struct shared {
	const struct replay_options *options;
	struct replay_result *result;
	atomic_size_t next;
	atomic_uint_fast64_t done_requests, done_hits, done_blocks;
	atomic_int rc; /* the first error */
	char *detail;
	pthread_mutex_t lock; /* detail, acked, progress */
	uint64_t started_us;
};

struct client {
	struct shared *shared;
	const struct replay_options *options;
	struct hr_client *handle;
	struct hr_space *spaces[SPACES_MAX];
	unsigned spaces_count;
	struct replay_chain chain;
	struct pipe pipe;
	struct hr_submit_options submit;
	struct replay_counts counts;
	struct histogram *get, *put, *exists;
	size_t low, high; /* of the phase under way: blocks [low, high) are still to be sent */
	bool store_was_down;
	pthread_t thread;
	bool started;
};

uint32_t
replay_run_blocks(uint64_t block_bytes)
{
	uint64_t fit = block_bytes == 0 ? HR_RUN_BLOCKS : HR_RUN_BYTES / block_bytes;

	return (uint32_t)HR_MAX((uint64_t)1, HR_MIN(fit, (uint64_t)HR_RUN_BLOCKS));
}

HR_PRINTF(3, 4) static int shared_fail(struct shared *shared, int rc, const char *fmt, ...)
{
	int none = 0;
	va_list args;

	if (atomic_compare_exchange_strong(&shared->rc, &none, rc)) {
		pthread_mutex_lock(&shared->lock);
		va_start(args, fmt);
		vsnprintf(shared->detail, REPLAY_DETAIL_BYTES, fmt, args);
		va_end(args);
		pthread_mutex_unlock(&shared->lock);
	}
	return rc;
}

/* With what the handle has to say. */
static int
client_fail(struct client *client, int rc, const char *what)
{
	char detail[HR_DETAIL_BYTES] = "";

	hr_client_detail(client->handle, detail, sizeof(detail));
	return shared_fail(client->shared, rc, "%s: %s: %s%s%s", client->options->url, what,
			   hr_strerror(rc), detail[0] != '\0' ? ": " : "", detail);
}

/* -- look-up ------------------------------------------------------------------------------------------------------------- */

static int
look_up(struct client *client)
{
	struct replay_chain *chain = &client->chain;
	struct hr_submit_options submit = client->submit;

	submit.lease_ms = client->options->lease_ms;
	for (size_t at = 0; at < chain->count; at += HR_BATCH_ITEMS_MAX) {
		uint32_t count = (uint32_t)HR_MIN(chain->count - at, (size_t)HR_BATCH_ITEMS_MAX);
		uint64_t started_us = cli_now_us();
		struct hr_completion completion;
		hr_ticket_t ticket =
		    hr_submit(chain->space, HR_OP_EXISTS, &chain->look[at], count, &submit);
		int rc;

		if (ticket < 0) {
			return client_fail(client, (int)ticket, "EXISTS");
		}
		rc = hr_wait(client->handle, ticket, UINT32_MAX, &completion);
		if (rc != 0) {
			return client_fail(client, rc, "EXISTS");
		}
		histogram_add(client->exists, cli_now_us() - started_us);
	}
	return 0;
}

/* Leading run that is there. Counts what is behind it, by reason, and gives its leases back. */
static size_t
count_look_up(struct client *client)
{
	struct replay_chain *chain = &client->chain;
	size_t prefix = 0;

	while (prefix < chain->count && chain->look[prefix].status == HR_STATUS_OK) {
		prefix++;
	}
	for (size_t i = 0; i < chain->count; i++) {
		const struct hr_item *item = &chain->look[i];

		if (item->status != HR_STATUS_OK) {
			client->counts.misses[HR_MIN(item->reason, HR_REASON_COUNT - 1u)]++;
			client->store_was_down |= item->reason == HR_REASON_DOWN;
			continue;
		}
		client->counts.behind_hole += i >= prefix;
		client->counts.leases_refused += i < prefix && client->options->lease_ms != 0 &&
						 (item->flags & HR_ITEM_LEASED) == 0;
	}
	if (prefix < chain->count) {
		hr_release(chain->space, &chain->look[prefix], (uint32_t)(chain->count - prefix));
	}
	return prefix;
}

static void
release_leases(struct client *client, size_t prefix)
{
	if (prefix > 0) {
		hr_release(client->chain.space, client->chain.look, (uint32_t)prefix);
	}
}

/* -- GET ----------------------------------------------------------------------------------------------------------------- */

/* The next batch of the phase, the last blocks first. */
static uint32_t
next_blocks(struct client *client, struct pipe_slot *slot)
{
	uint32_t count =
	    (uint32_t)HR_MIN(client->high - client->low, (size_t)client->pipe.items_max);

	for (uint32_t i = 0; i < count; i++) {
		size_t block = --client->high;
		const struct hr_item *look = &client->chain.look[block];

		slot->tags[i] = (uint32_t)block;
		slot->items[i] = (struct hr_item){
			.key = look->key,
			.key_len = look->key_len,
			.flags = HR_ITEM_ROUTE,
			.route = look->route,
			.position = (uint32_t)block,
		};
	}
	return count;
}

static uint32_t
get_fill(void *arg, struct pipe_slot *slot)
{
	struct client *client = arg;
	uint32_t count = next_blocks(client, slot);

	for (uint32_t i = 0; i < count; i++) {
		slot->items[i].expected_len = client->options->block_bytes;
	}
	return count;
}

static void
check_got(struct client *client, const struct pipe_slot *slot, uint32_t i)
{
	const struct hr_item *item = &slot->items[i];
	struct replay_counts *counts = &client->counts;
	uint64_t bytes = client->options->block_bytes;
	uint64_t seed = content_seed(item->key, item->key_len);
	const void *data = slot->iovs[i].iov_base;

	counts->bytes_got += bytes;
	counts->gets_dram += (item->flags & HR_ITEM_DRAM) != 0;
	counts->gets_flash += (item->flags & HR_ITEM_FLASH) != 0;
	counts->gets_other += (item->flags & (HR_ITEM_DRAM | HR_ITEM_FLASH)) == 0;
	if (item->bytes == bytes && content_check(data, bytes, seed) == bytes) {
		client->chain.got[slot->tags[i]] = 1;
		return;
	}
	counts->wrong_blocks++;
	counts->wrong_bytes += item->bytes == bytes ? content_wrong_bytes(data, bytes, seed) : bytes;
}

static uint32_t
get_done(void *arg, struct pipe_slot *slot)
{
	struct client *client = arg;

	for (uint32_t i = 0; i < slot->items_count; i++) {
		const struct hr_item *item = &slot->items[i];

		if (item->status == HR_STATUS_OK) {
			check_got(client, slot, i);
			continue;
		}
		client->counts.misses[HR_MIN(item->reason, HR_REASON_COUNT - 1u)]++;
		client->counts.lost_after_look++;
		client->store_was_down |= item->reason == HR_REASON_DOWN;
	}
	return 0;
}

static int
get_blocks(struct client *client, size_t prefix)
{
	const struct pipe_job job = {
		.space = client->chain.space,
		.op = HR_OP_GET,
		.options = &client->submit,
		.latency_us = client->get,
		.arg = client,
		.fill = get_fill,
		.done = get_done,
	};
	int rc;

	client->low = 0;
	client->high = prefix;
	rc = pipe_run(&client->pipe, &job);
	return rc != 0 ? client_fail(client, rc, "GET") : 0;
}

/* -- PUT ----------------------------------------------------------------------------------------------------------------- */

static uint32_t
put_fill(void *arg, struct pipe_slot *slot)
{
	struct client *client = arg;
	const struct replay_chain *chain = &client->chain;
	double tokens = chain->trace->block_tokens;
	uint32_t count = next_blocks(client, slot);

	for (uint32_t i = 0; i < count; i++) {
		struct hr_item *item = &slot->items[i];
		size_t block = slot->tags[i];
		double us = 1e6 * cost_gpu_seconds(&client->options->cost, (double)block * tokens,
						   (double)(block + 1) * tokens);

		item->parent = block == 0 ? NULL : chain->ids[block - 1];
		item->cost_hint_us = us > UINT32_MAX ? UINT32_MAX : (uint32_t)us;
		content_fill(slot->iovs[i].iov_base, client->options->block_bytes,
			     content_seed(item->key, item->key_len));
	}
	return count;
}

static void
note_acked(struct client *client, uint32_t block)
{
	FILE *acked = client->options->acked;

	if (acked != NULL) {
		pthread_mutex_lock(&client->shared->lock);
		fprintf(acked, "%u\n", client->chain.nodes[block]);
		pthread_mutex_unlock(&client->shared->lock);
	}
}

static void
count_put(struct client *client, const struct hr_item *item, uint32_t block)
{
	struct replay_counts *counts = &client->counts;

	if (item->status != HR_STATUS_OK) {
		counts->refused[HR_MIN(item->reason, HR_REASON_COUNT - 1u)]++;
		client->store_was_down |= item->reason == HR_REASON_DOWN;
		return;
	}
	counts->puts++;
	if (item->flags & HR_ITEM_DUPLICATE) {
		counts->duplicates++;
		counts->differs += (item->flags & HR_ITEM_DIFFERS) != 0;
	} else {
		counts->bytes_put += client->options->block_bytes;
	}
	note_acked(client, block);
}

/* Moves what the store was too busy for to the front, values and all, and has it sent again. */
static uint32_t
put_done(void *arg, struct pipe_slot *slot)
{
	struct client *client = arg;
	uint32_t again = 0;

	for (uint32_t i = 0; i < slot->items_count; i++) {
		struct hr_item *item = &slot->items[i];
		struct iovec iov = slot->iovs[again];

		if (item->status != HR_STATUS_REFUSED || item->reason != HR_REASON_BUSY) {
			count_put(client, item, slot->tags[i]);
			continue;
		}
		client->counts.busy_retries++;
		slot->items[again] = *item;
		slot->items[again].flags = HR_ITEM_ROUTE;
		slot->items[again].status = slot->items[again].reason = 0;
		slot->tags[again] = slot->tags[i];
		slot->iovs[again] = slot->iovs[i];
		slot->iovs[i] = iov;
		again++;
	}
	return again;
}

static int
put_blocks(struct client *client, size_t from)
{
	struct replay_chain *chain = &client->chain;
	const struct pipe_job job = {
		.space = chain->space,
		.op = HR_OP_PUT,
		.options = &client->submit,
		.latency_us = client->put,
		.arg = client,
		.fill = put_fill,
		.done = put_done,
	};
	int rc;

	replay_chain_ids(chain, from == 0 ? 0 : from - 1);
	client->low = from;
	client->high = chain->count;
	rc = pipe_run(&client->pipe, &job);
	return rc != 0 ? client_fail(client, rc, "PUT") : 0;
}

/* -- requests ------------------------------------------------------------------------------------------------------------ */

static void
count_request(struct client *client, const struct trace_request *request, size_t hits)
{
	struct replay_counts *counts = &client->counts;
	uint64_t hit_tokens = HR_MIN((uint64_t)hits * client->options->trace->block_tokens,
				     (uint64_t)request->in_tokens);

	counts->requests++;
	counts->blocks += client->chain.count;
	counts->prefix_hits += hits;
	counts->tokens_hit += hit_tokens;
	counts->tokens_in += request->in_tokens;
	counts->gpu_seconds_saved += cost_gpu_seconds(&client->options->cost, 0, (double)hit_tokens);
	counts->gpu_seconds_total += cost_gpu_seconds(&client->options->cost, 0, request->in_tokens);
}

static int
run_request(struct client *client, size_t index)
{
	const struct trace_request *request =
	    &client->options->trace->requests[client->options->first + index];
	struct replay_chain *chain = &client->chain;
	uint64_t started_us = cli_now_us();
	size_t prefix, hits = 0;
	int rc;

	client->store_was_down = false;
	replay_chain_load(chain, client->spaces[request->model % client->spaces_count], request);
	rc = look_up(client);
	if (rc != 0) {
		return rc;
	}
	prefix = count_look_up(client);
	rc = get_blocks(client, prefix);
	while (hits < prefix && chain->got[hits]) {
		hits++;
	}
	if (rc == 0 && hits < chain->count) {
		rc = put_blocks(client, hits);
	}
	release_leases(client, prefix);
	count_request(client, request, hits);
	client->shared->result->hits[index] = (uint32_t)hits;
	client->shared->result->latency_us[index] =
	    (uint32_t)HR_MIN(cli_now_us() - started_us, (uint64_t)UINT32_MAX);
	return rc;
}

/* A store that went away is given time to come back: without it the rest of the trace would be misses in no time. */
static int
wait_if_down(struct client *client)
{
	int rc;

	if (!client->store_was_down) {
		return 0;
	}
	rc = hr_client_ready(client->handle, client->options->down_wait_ms);
	return rc != 0 ? client_fail(client, -HR_EDOWN, "the store went away") : 0;
}

static void
sleep_until(const struct shared *shared, uint64_t due_us)
{
	const struct replay_options *options = shared->options;
	uint64_t now_us;

	while ((now_us = cli_now_us()) < due_us) {
		uint64_t pause_us = HR_MIN(due_us - now_us, (uint64_t)SLEEP_MS_MAX * 1000);
		struct timespec pause = { .tv_sec = 0, .tv_nsec = (long)pause_us * 1000 };

		if (options->stop != NULL && atomic_load(options->stop)) {
			return;
		}
		nanosleep(&pause, NULL);
	}
}

static void
wait_for_turn(struct client *client, size_t index)
{
	const struct replay_options *options = client->options;
	const struct trace_request *requests = &options->trace->requests[options->first];
	int64_t after_ms = requests[index].t_ms - requests[0].t_ms;

	if (options->pace > 0 && after_ms > 0) {
		sleep_until(client->shared, client->shared->started_us +
						(uint64_t)((double)after_ms * 1000 / options->pace));
	}
}

static void
tell_progress(struct client *client, uint64_t hits, uint64_t blocks)
{
	struct shared *shared = client->shared;
	const struct replay_options *options = client->options;
	uint64_t done = atomic_fetch_add(&shared->done_requests, 1) + 1;

	hits += atomic_fetch_add(&shared->done_hits, hits);
	blocks += atomic_fetch_add(&shared->done_blocks, blocks);
	if (options->progress_cb != NULL && pthread_mutex_trylock(&shared->lock) == 0) {
		options->progress_cb(options->cb_arg, done, options->count, hits, blocks);
		pthread_mutex_unlock(&shared->lock);
	}
}

static void *
client_main(void *arg)
{
	struct client *client = arg;
	struct shared *shared = client->shared;
	const struct replay_options *options = client->options;

	while (atomic_load(&shared->rc) == 0 &&
	       !(options->stop != NULL && atomic_load(options->stop))) {
		size_t index = atomic_fetch_add(&shared->next, 1);

		if (index >= options->count) {
			break;
		}
		wait_for_turn(client, index);
		if (run_request(client, index) != 0 || wait_if_down(client) != 0) {
			break;
		}
		tell_progress(client, shared->result->hits[index], client->chain.count);
	}
	return NULL;
}

/* -- clients ------------------------------------------------------------------------------------------------------------- */

static int
open_spaces(struct client *client)
{
	const struct replay_options *options = client->options;
	const struct trace *trace = options->trace;

	if (options->space != NULL) {
		client->spaces_count = 1;
		return hr_space_open_name(client->handle, options->space, &client->spaces[0]);
	}
	client->spaces_count = trace->models_count <= SPACES_MAX ? HR_MAX(trace->models_count, 1u)
								 : 1;
	for (unsigned i = 0; i < client->spaces_count; i++) {
		char model[16], block_bytes[24];
		const struct hr_pair pairs[] = {
			{ "workload", "headrace replay 1", strlen("headrace replay 1") },
			{ "name", trace->name, strlen(trace->name) },
			{ "model", options->cost.model->name, strlen(options->cost.model->name) },
			{ "trace model", model, (size_t)snprintf(model, sizeof(model), "%u", i) },
			{ "block bytes", block_bytes,
			  (size_t)snprintf(block_bytes, sizeof(block_bytes), "%" PRIu64,
					   options->block_bytes) },
		};
		int rc = hr_space_open(client->handle, pairs, ARRAY_SIZE(pairs), &client->spaces[i]);

		if (rc != 0) {
			return rc;
		}
	}
	return 0;
}

static int
open_handle(struct client *client)
{
	const struct replay_options *options = client->options;
	struct hr_options handle_options;
	char detail[HR_DETAIL_BYTES] = "";
	int rc;

	hr_options_init(&handle_options);
	handle_options.token_file = options->token_file;
	handle_options.name = "headrace replay";
	rc = hr_open(options->url, &handle_options, &client->handle, detail);
	if (rc != 0) {
		return shared_fail(client->shared, rc, "%s: %s", options->url,
				   detail[0] != '\0' ? detail : hr_strerror(rc));
	}
	rc = hr_client_ready(client->handle, options->ready_ms);
	if (rc != 0) {
		return client_fail(client, rc, "the store does not answer");
	}
	rc = open_spaces(client);
	return rc != 0 ? client_fail(client, rc, "opening the space") : 0;
}

static int
open_pipe(struct client *client)
{
	const struct replay_options *options = client->options;
	uint64_t window = options->window_bytes / options->clients_count;
	uint64_t stride = align_up(HR_MAX(options->block_bytes, (uint64_t)1), 4096);
	uint64_t items =
	    HR_MIN((uint64_t)BATCH_ITEMS_MAX, HR_MAX((uint64_t)1, BATCH_BYTES / stride));
	uint64_t slots = HR_MIN((uint64_t)16, HR_MAX((uint64_t)1, window / (items * stride)));

	return pipe_init(&client->pipe, client->handle, (unsigned)slots, (uint32_t)items,
			 options->block_bytes);
}

static int
client_open(struct client *client, struct shared *shared)
{
	const struct replay_options *options = shared->options;
	int rc;

	*client = (struct client){ .shared = shared, .options = options };
	client->get = calloc(1, sizeof(*client->get));
	client->put = calloc(1, sizeof(*client->put));
	client->exists = calloc(1, sizeof(*client->exists));
	if (client->get == NULL || client->put == NULL || client->exists == NULL) {
		return shared_fail(shared, -ENOMEM, "out of memory");
	}
	hr_submit_options_init(&client->submit);
	client->submit.deadline_us = (uint32_t)HR_MIN(options->deadline_us, (uint64_t)UINT32_MAX);
	client->submit.ack = options->ack;
	rc = open_handle(client);
	if (rc != 0) {
		return rc;
	}
	rc = replay_chain_init(&client->chain, options->trace,
			       replay_run_blocks(options->block_bytes));
	if (rc == 0) {
		rc = open_pipe(client);
	}
	return rc != 0 ? shared_fail(shared, rc, "buffers: %s", hr_strerror(rc)) : 0;
}

static void
client_close(struct client *client)
{
	for (unsigned i = 0; i < client->spaces_count; i++) {
		if (client->spaces[i] != NULL) {
			hr_space_close(client->spaces[i]);
		}
	}
	hr_close(client->handle); /* Before the buffers go: what is under way still uses them. */
	pipe_fini(&client->pipe);
	replay_chain_fini(&client->chain);
	free(client->get);
	free(client->put);
	free(client->exists);
}

static void
add_counts(struct replay_counts *to, const struct replay_counts *from)
{
	to->requests += from->requests;
	to->blocks += from->blocks;
	to->prefix_hits += from->prefix_hits;
	to->behind_hole += from->behind_hole;
	for (int i = 0; i < HR_REASON_COUNT; i++) {
		to->misses[i] += from->misses[i];
		to->refused[i] += from->refused[i];
	}
	to->puts += from->puts;
	to->duplicates += from->duplicates;
	to->differs += from->differs;
	to->busy_retries += from->busy_retries;
	to->wrong_blocks += from->wrong_blocks;
	to->wrong_bytes += from->wrong_bytes;
	to->bytes_put += from->bytes_put;
	to->bytes_got += from->bytes_got;
	to->gets_dram += from->gets_dram;
	to->gets_flash += from->gets_flash;
	to->gets_other += from->gets_other;
	to->leases_refused += from->leases_refused;
	to->lost_after_look += from->lost_after_look;
	to->gpu_seconds_saved += from->gpu_seconds_saved;
	to->gpu_seconds_total += from->gpu_seconds_total;
	to->tokens_hit += from->tokens_hit;
	to->tokens_in += from->tokens_in;
}

static void
take_results(struct replay_result *result, const struct client *client)
{
	add_counts(&result->counts, &client->counts);
	histogram_merge(result->get, client->get);
	histogram_merge(result->put, client->put);
	histogram_merge(result->exists, client->exists);
}

/* -- statistics of the store --------------------------------------------------------------------------------------------- */

static bool
sum_write_counts(const json_t *value, uint64_t *written, uint64_t *payload)
{
	const json_t *w = json_object_get(value, "bytes_written_total");
	const json_t *p = json_object_get(value, "payload_bytes");
	const char *name;
	json_t *child;
	bool found = false;
	size_t i;

	if (json_is_number(w) && json_is_number(p)) {
		*written += (uint64_t)json_number_value(w);
		*payload += (uint64_t)json_number_value(p);
		return true;
	}
	json_object_foreach((json_t *)value, name, child)
	{
		found |= sum_write_counts(child, written, payload);
	}
	json_array_foreach(value, i, child)
	{
		found |= sum_write_counts(child, written, payload);
	}
	return found;
}

bool
replay_write_counts(const char *stat_json, uint64_t *ret_written, uint64_t *ret_payload)
{
	json_t *stat = json_loads(stat_json, 0, NULL);
	uint64_t written = 0, payload = 0;
	bool found = stat != NULL && sum_write_counts(stat, &written, &payload);

	json_decref(stat);
	if (found) {
		*ret_written = written;
		*ret_payload = payload;
	}
	return found;
}

static bool
ask_write_counts(struct client *client, uint64_t *ret_written, uint64_t *ret_payload)
{
	char *text;
	bool found;

	if (hr_stat_json(client->handle, STAT_TIMEOUT_MS, &text) != 0) {
		return false;
	}
	found = replay_write_counts(text, ret_written, ret_payload);
	free(text);
	return found;
}

/* -- the whole ----------------------------------------------------------------------------------------------------------- */

static int
result_init(struct replay_result *result, size_t count)
{
	*result = (struct replay_result){ .hits_count = count };
	result->get = calloc(1, sizeof(*result->get));
	result->put = calloc(1, sizeof(*result->put));
	result->exists = calloc(1, sizeof(*result->exists));
	result->hits = calloc(count + 1, sizeof(*result->hits));
	result->latency_us = calloc(count + 1, sizeof(*result->latency_us));
	if (result->get == NULL || result->put == NULL || result->exists == NULL ||
	    result->hits == NULL || result->latency_us == NULL) {
		replay_result_fini(result);
		return -ENOMEM;
	}
	return 0;
}

void
replay_result_fini(struct replay_result *result)
{
	free(result->get);
	free(result->put);
	free(result->exists);
	free(result->hits);
	free(result->latency_us);
	*result = (struct replay_result){ 0 };
}

static void
run_clients(struct shared *shared, struct client *clients, unsigned count)
{
	shared->started_us = cli_now_us();
	for (unsigned i = 1; i < count; i++) {
		int rc = pthread_create(&clients[i].thread, NULL, client_main, &clients[i]);

		clients[i].started = rc == 0;
		if (rc != 0) {
			shared_fail(shared, -rc, "starting client %u: %s", i, strerror(rc));
		}
	}
	client_main(&clients[0]);
	for (unsigned i = 1; i < count; i++) {
		if (clients[i].started) {
			pthread_join(clients[i].thread, NULL);
		}
	}
	shared->result->elapsed_us = cli_now_us() - shared->started_us;
}

static void
measure_writes(struct shared *shared, struct client *clients, unsigned count)
{
	struct replay_result *result = shared->result;
	uint64_t written[2] = { 0 }, payload[2] = { 0 };
	bool before = ask_write_counts(&clients[0], &written[0], &payload[0]);

	run_clients(shared, clients, count);
	if (before && atomic_load(&shared->rc) == 0 &&
	    ask_write_counts(&clients[0], &written[1], &payload[1]) && written[1] >= written[0] &&
	    payload[1] >= payload[0]) {
		result->has_write_counts = true;
		result->bytes_written = written[1] - written[0];
		result->payload_bytes = payload[1] - payload[0];
	}
}

int
replay_run(const struct replay_options *options, struct replay_result *ret_result, char *detail)
{
	struct replay_result result;
	struct shared shared = { .options = options, .result = &result, .detail = detail };
	struct client *clients = calloc(options->clients_count, sizeof(*clients));
	unsigned opened = 0;

	detail[0] = '\0';
	if (clients == NULL || result_init(&result, options->count) != 0) {
		free(clients);
		snprintf(detail, REPLAY_DETAIL_BYTES, "out of memory");
		return -ENOMEM;
	}
	pthread_mutex_init(&shared.lock, NULL);
	while (opened < options->clients_count && atomic_load(&shared.rc) == 0) {
		(void)client_open(&clients[opened++], &shared);
	}
	if (atomic_load(&shared.rc) == 0) {
		measure_writes(&shared, clients, opened);
	}
	for (unsigned i = 0; i < opened; i++) {
		if (clients[i].get != NULL && clients[i].put != NULL && clients[i].exists != NULL) {
			take_results(&result, &clients[i]);
		}
		client_close(&clients[i]);
	}
	pthread_mutex_destroy(&shared.lock);
	free(clients);
	*ret_result = result;
	return atomic_load(&shared.rc);
}

/* -- verifying what was acknowledged ------------------------------------------------------------------------------------- */

static int
verify_node(struct client *client, uint32_t node)
{
	const struct trace *trace = client->options->trace;
	struct replay_chain *chain = &client->chain;
	const struct pipe_job job = {
		.op = HR_OP_GET,
		.options = &client->submit,
		.latency_us = client->get,
		.arg = client,
		.fill = get_fill,
		.done = get_done,
	};
	struct pipe_job node_job = job;
	int rc;

	replay_chain_load_node(chain,
			       client->spaces[trace->node_model[node] % client->spaces_count], node);
	node_job.space = chain->space;
	client->low = chain->count - 1;
	client->high = chain->count;
	rc = pipe_run(&client->pipe, &node_job);
	if (rc != 0) {
		return client_fail(client, rc, "GET");
	}
	client->counts.blocks++;
	client->counts.prefix_hits += chain->got[chain->count - 1];
	return 0;
}

static int
verify_lines(struct client *client, FILE *file, const char *path)
{
	char line[64];

	for (uint64_t number = 1; fgets(line, sizeof(line), file) != NULL; number++) {
		char *end;
		unsigned long node = strtoul(line, &end, 10);
		int rc;

		if (*end != '\n' || node == 0 || node >= client->options->trace->nodes_count) {
			return shared_fail(client->shared, -EINVAL,
					   "%s:%" PRIu64
					   ": not a block of this trace (numbers from 1 to %zu)",
					   path, number, client->options->trace->nodes_count - 1);
		}
		rc = verify_node(client, (uint32_t)node);
		if (rc != 0) {
			return rc;
		}
		tell_progress(client, 0, 0);
	}
	return 0;
}

int
replay_verify(const struct replay_options *options, const char *path,
	      struct replay_result *ret_result, char *detail)
{
	struct replay_result result;
	struct shared shared = { .options = options, .result = &result, .detail = detail };
	struct client client;
	FILE *file = fopen(path, "r");

	detail[0] = '\0';
	if (file == NULL || result_init(&result, 0) != 0) {
		int rc = file == NULL ? -errno : -ENOMEM;

		snprintf(detail, REPLAY_DETAIL_BYTES, "%s: %s", path, strerror(-rc));
		if (file != NULL) {
			fclose(file);
		}
		return rc;
	}
	pthread_mutex_init(&shared.lock, NULL);
	shared.started_us = cli_now_us();
	if (client_open(&client, &shared) == 0) {
		(void)verify_lines(&client, file, path);
		take_results(&result, &client);
	}
	result.elapsed_us = cli_now_us() - shared.started_us;
	client_close(&client);
	pthread_mutex_destroy(&shared.lock);
	fclose(file);
	*ret_result = result;
	return atomic_load(&shared.rc);
}
