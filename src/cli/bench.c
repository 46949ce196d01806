/* bench.c — see bench.h. */
#include "cli/bench.h"

#include <errno.h>
#include <inttypes.h>
#include <jansson.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/hash.h"
#include "base/prng.h"
#include "cli/content.h"
#include "cli/pipe.h"
#include "cli/progress.h"

enum {
	KEY_BYTES = 48,
	WORKING_SET_BYTES = 64 << 20,
	PAGE_BYTES = 4096,
	STAT_TIMEOUT_MS = 5000,
	WARM_ROUNDS = 2,
};

struct bench_key {
	uint32_t len;
	char text[KEY_BYTES];
};

struct worker {
	const struct bench_options *options;
	unsigned number;
	uint64_t seed;
	uint64_t keys_count; /* of the working set, all workers' */
	struct hr_client *handle;
	struct hr_space *space;
	struct pipe pipe;
	struct bench_key *keys; /* by slot and item */
	struct prng prng;
	uint64_t next, end; /* of a pass over the working set: every threads-th key */
	bool warming;	    /* a pass that reads */
	uint64_t stop_us;   /* of a timed run; 0: a pass */
	uint64_t put_count;
	struct bench_result result;
	int rc;
	char detail[BENCH_DETAIL_BYTES];
	pthread_t thread;
	bool started;
};

HR_PRINTF(3, 4) static int worker_fail(struct worker *worker, int rc, const char *fmt, ...)
{
	va_list args;

	va_start(args, fmt);
	vsnprintf(worker->detail, sizeof(worker->detail), fmt, args);
	va_end(args);
	worker->rc = rc;
	return rc;
}

static int
fail_with_detail(struct worker *worker, int rc, const char *what)
{
	char detail[HR_DETAIL_BYTES] = "";

	hr_client_detail(worker->handle, detail, sizeof(detail));
	return worker_fail(worker, rc, "%s: %s: %s%s%s", worker->options->url, what,
			   hr_strerror(rc), detail[0] != '\0' ? ": " : "", detail);
}

/* -- batches ------------------------------------------------------------------------------------------------------------- */

static struct bench_key *
key_of(struct worker *worker, const struct pipe_slot *slot, uint32_t i)
{
	size_t slot_index = (size_t)(slot - worker->pipe.slots);

	return &worker->keys[slot_index * worker->pipe.items_max + i];
}

static void
set_item(struct worker *worker, struct pipe_slot *slot, uint32_t i, const char *kind,
	 uint64_t number)
{
	struct bench_key *key = key_of(worker, slot, i);

	key->len = (uint32_t)snprintf(key->text, sizeof(key->text), "%s:%" PRIx64 ":%" PRIu64, kind,
				      worker->seed, number);
	slot->items[i] = (struct hr_item){ .key = key->text, .key_len = key->len };
}

/* The first worker speaks for all: they are about as far. */
static void
tell_progress(const struct worker *worker, const char *what, uint64_t done, uint64_t total)
{
	const struct bench_options *options = worker->options;

	if (worker->number == 0 && options->progress_cb != NULL) {
		options->progress_cb(options->cb_arg, what, done, total);
	}
}

static bool
time_is_up(const struct worker *worker)
{
	uint64_t now_us = cli_now_us(), us = worker->options->us;

	if (worker->stop_us == 0) {
		return false;
	}
	if (now_us >= worker->stop_us) {
		return true;
	}
	tell_progress(worker, "measuring", us - HR_MIN(worker->stop_us - now_us, us), us);
	return false;
}

static uint32_t
put_new_fill(void *arg, struct pipe_slot *slot)
{
	struct worker *worker = arg;

	if (time_is_up(worker)) {
		return 0;
	}
	for (uint32_t i = 0; i < worker->options->batch; i++) {
		uint64_t number = worker->put_count++ * worker->options->threads + worker->number;

		set_item(worker, slot, i, "bench-put", number);
		content_fill(slot->iovs[i].iov_base, worker->options->value_bytes,
			     content_seed(slot->items[i].key, slot->items[i].key_len));
	}
	return worker->options->batch;
}

/* A pass: this worker's share of the working set, once. */
static uint32_t
pass_fill(void *arg, struct pipe_slot *slot)
{
	struct worker *worker = arg;
	uint32_t count = 0;

	while (count < worker->options->batch && worker->next < worker->end) {
		set_item(worker, slot, count, "bench", worker->next);
		slot->items[count].expected_len = worker->options->value_bytes;
		worker->next += worker->options->threads;
		count++;
	}
	tell_progress(worker, worker->warming ? "warming up" : "storing the working set",
		      worker->next, worker->end);
	return count;
}

static uint32_t
pass_put_fill(void *arg, struct pipe_slot *slot)
{
	struct worker *worker = arg;
	uint32_t count = pass_fill(arg, slot);

	for (uint32_t i = 0; i < count; i++) {
		slot->items[i].expected_len = 0;
		content_fill(slot->iovs[i].iov_base, worker->options->value_bytes,
			     content_seed(slot->items[i].key, slot->items[i].key_len));
	}
	return count;
}

/* A timed run over the working set, at random. */
static uint32_t
random_fill(void *arg, struct pipe_slot *slot)
{
	struct worker *worker = arg;
	bool is_get = worker->options->op == HR_OP_GET;

	if (time_is_up(worker)) {
		return 0;
	}
	for (uint32_t i = 0; i < worker->options->batch; i++) {
		set_item(worker, slot, i, "bench", prng_below(&worker->prng, worker->keys_count));
		slot->items[i].expected_len = is_get ? worker->options->value_bytes : 0;
	}
	return worker->options->batch;
}

static void
count_error(struct worker *worker, const struct hr_item *item)
{
	worker->result.errors++;
	worker->result.reasons[HR_MIN(item->reason, HR_REASON_COUNT - 1u)]++;
}

static void
check_got(struct worker *worker, const struct pipe_slot *slot, uint32_t i)
{
	const struct hr_item *item = &slot->items[i];
	uint64_t bytes = worker->options->value_bytes;
	uint64_t seed = content_seed(item->key, item->key_len);

	worker->result.from_dram += (item->flags & HR_ITEM_DRAM) != 0;
	worker->result.from_flash += (item->flags & HR_ITEM_FLASH) != 0;
	if (item->bytes != bytes) {
		worker->result.wrong_bytes += bytes;
	} else if (worker->options->verify &&
		   content_check(slot->iovs[i].iov_base, bytes, seed) != bytes) {
		worker->result.wrong_bytes +=
		    content_wrong_bytes(slot->iovs[i].iov_base, bytes, seed);
	}
}

static uint32_t
get_done(void *arg, struct pipe_slot *slot)
{
	struct worker *worker = arg;

	for (uint32_t i = 0; i < slot->items_count; i++) {
		if (slot->items[i].status != HR_STATUS_OK) {
			count_error(worker, &slot->items[i]);
			continue;
		}
		worker->result.ops++;
		if (worker->options->op == HR_OP_GET) {
			check_got(worker, slot, i);
		}
	}
	return 0;
}

static bool
is_busy(const struct hr_item *item)
{
	return item->status == HR_STATUS_REFUSED && item->reason == HR_REASON_BUSY;
}

/* What the store was too busy for is sent again, with its value. */
static uint32_t
put_done(void *arg, struct pipe_slot *slot)
{
	struct worker *worker = arg;
	uint32_t again = 0;

	for (uint32_t i = 0; i < slot->items_count; i++) {
		struct iovec iov = slot->iovs[again];
		struct bench_key key = *key_of(worker, slot, again);

		if (slot->items[i].status == HR_STATUS_OK) {
			worker->result.ops++;
			continue;
		}
		if (!is_busy(&slot->items[i])) {
			count_error(worker, &slot->items[i]);
			continue;
		}
		worker->result.busy_retries++;
		slot->iovs[again] = slot->iovs[i];
		slot->iovs[i] = iov;
		*key_of(worker, slot, again) = *key_of(worker, slot, i);
		*key_of(worker, slot, i) = key;
		slot->items[again] = (struct hr_item){ .key = key_of(worker, slot, again)->text,
						       .key_len = key_of(worker, slot, again)->len };
		again++;
	}
	return again;
}

/* -- passes and runs ----------------------------------------------------------------------------------------------------- */

static int
worker_run(struct worker *worker, enum hr_op op, uint32_t (*fill)(void *, struct pipe_slot *))
{
	struct hr_submit_options submit;
	struct pipe_job job = {
		.space = worker->space,
		.op = op,
		.options = &submit,
		.latency_us = &worker->result.latency_us,
		.arg = worker,
		.fill = fill,
		.done = op == HR_OP_PUT ? put_done : get_done,
	};
	int rc;

	hr_submit_options_init(&submit);
	submit.deadline_us = (uint32_t)HR_MIN(worker->options->deadline_us, (uint64_t)UINT32_MAX);
	submit.ack = worker->options->ack;
	rc = pipe_run(&worker->pipe, &job);
	return rc != 0 ? fail_with_detail(worker, rc, "submitting") : 0;
}

static int
worker_pass(struct worker *worker, enum hr_op op)
{
	worker->stop_us = 0;
	worker->next = worker->number;
	worker->end = worker->keys_count;
	worker->warming = op != HR_OP_PUT;
	return worker_run(worker, op, op == HR_OP_PUT ? pass_put_fill : pass_fill);
}

/* Stores what the run needs, and for the DRAM tier reads it until it is there. */
static int
prepare(struct worker *worker)
{
	int rc = 0;

	if (worker->options->op == HR_OP_PUT) {
		return 0;
	}
	rc = worker_pass(worker, HR_OP_PUT);
	for (int i = 0; rc == 0 && i < WARM_ROUNDS && worker->options->tier == BENCH_DRAM; i++) {
		rc = worker_pass(worker, HR_OP_GET);
	}
	if (rc == 0 && worker->result.errors != 0) {
		int reason = 0;

		for (int i = 1; i < HR_REASON_COUNT; i++) {
			reason = worker->result.reasons[i] != 0 ? i : reason;
		}
		return worker_fail(
		    worker, -HR_ESIZE,
		    "%" PRIu64
		    " of the blocks that the run needs could not be kept (%s); a smaller --working-set, or a larger store, is wanted",
		    worker->result.errors, hr_reason_name(reason));
	}
	return rc;
}

static void *
prepare_main(void *arg)
{
	(void)prepare(arg);
	return NULL;
}

static void *
timed_main(void *arg)
{
	struct worker *worker = arg;
	uint64_t started_us = cli_now_us();

	worker->result = (struct bench_result){ 0 };
	worker->stop_us = started_us + worker->options->us;
	(void)worker_run(worker, worker->options->op,
			 worker->options->op == HR_OP_PUT ? put_new_fill : random_fill);
	worker->result.elapsed_us = cli_now_us() - started_us;
	return NULL;
}

/* -- workers ------------------------------------------------------------------------------------------------------------- */

static int
open_space(struct worker *worker)
{
	char size[24];
	const struct hr_pair pairs[] = {
		{ "workload", "headrace bench 1", strlen("headrace bench 1") },
		{ "name", "bench", strlen("bench") },
		{ "value bytes", size,
		  (size_t)snprintf(size, sizeof(size), "%" PRIu64, worker->options->value_bytes) },
	};

	return hr_space_open(worker->handle, pairs, ARRAY_SIZE(pairs), &worker->space);
}

static int
worker_open(struct worker *worker)
{
	const struct bench_options *options = worker->options;
	struct hr_options handle_options;
	char detail[HR_DETAIL_BYTES] = "";
	int rc;

	hr_options_init(&handle_options);
	handle_options.token_file = options->token_file;
	handle_options.name = "headrace bench";
	handle_options.inflight_bytes_max =
	    HR_MAX((uint64_t)256 << 20,
		   2 * (uint64_t)options->depth * options->batch * options->value_bytes);
	rc = hr_open(options->url, &handle_options, &worker->handle, detail);
	if (rc != 0) {
		return worker_fail(worker, rc, "%s: %s", options->url,
				   detail[0] != '\0' ? detail : hr_strerror(rc));
	}
	rc = hr_client_ready(worker->handle, options->ready_ms);
	if (rc != 0) {
		return fail_with_detail(worker, rc, "the store does not answer");
	}
	rc = open_space(worker);
	if (rc != 0) {
		return fail_with_detail(worker, rc, "opening the space");
	}
	worker->keys = calloc((size_t)options->depth * options->batch, sizeof(*worker->keys));
	rc = pipe_init(&worker->pipe, worker->handle, options->depth, options->batch,
		       options->value_bytes);
	if (rc != 0 || worker->keys == NULL) {
		return worker_fail(worker, -ENOMEM, "out of memory");
	}
	return 0;
}

static void
worker_close(struct worker *worker)
{
	if (worker->space != NULL) {
		hr_space_close(worker->space);
	}
	hr_close(worker->handle);
	pipe_fini(&worker->pipe);
	free(worker->keys);
}

static int
run_all(struct worker *workers, uint32_t count, void *(*main)(void *), char *detail)
{
	for (uint32_t i = 1; i < count; i++) {
		workers[i].started = pthread_create(&workers[i].thread, NULL, main, &workers[i]) ==
				     0;
		if (!workers[i].started) {
			(void)worker_fail(&workers[i], -EAGAIN, "a thread could not be started");
		}
	}
	main(&workers[0]);
	for (uint32_t i = 1; i < count; i++) {
		if (workers[i].started) {
			pthread_join(workers[i].thread, NULL);
		}
	}
	for (uint32_t i = 0; i < count; i++) {
		if (workers[i].rc != 0) {
			snprintf(detail, BENCH_DETAIL_BYTES, "%s", workers[i].detail);
			return workers[i].rc;
		}
	}
	return 0;
}

/* -- the working set ----------------------------------------------------------------------------------------------------- */

static uint64_t
sum_of(const json_t *value, const char *outer, const char *name)
{
	const char *child_name;
	json_t *child;
	uint64_t sum = 0;
	size_t i;

	json_object_foreach((json_t *)value, child_name, child)
	{
		if (outer == NULL && strcmp(child_name, name) == 0 && json_is_number(child)) {
			sum += (uint64_t)json_number_value(child);
		} else if (outer != NULL && strcmp(child_name, outer) == 0) {
			sum += sum_of(child, NULL, name);
		} else {
			sum += sum_of(child, outer, name);
		}
	}
	json_array_foreach(value, i, child)
	{
		sum += sum_of(child, outer, name);
	}
	return sum;
}

uint64_t
bench_working_set(const char *stat_json, enum bench_tier tier)
{
	json_t *stat = json_loads(stat_json, 0, NULL);
	uint64_t capacity = sum_of(stat, NULL, "bytes_capacity");
	uint64_t dram = sum_of(stat, "dram", "bytes_max");
	uint64_t bytes = WORKING_SET_BYTES;

	json_decref(stat);
	if (tier == BENCH_DRAM && dram != 0) {
		bytes = HR_MIN(bytes, dram / 2);
	} else if (tier == BENCH_FLASH && dram != 0) {
		bytes = HR_MAX(bytes, dram * 4);
	}
	return capacity != 0 ? HR_MIN(bytes, capacity / 2) : bytes;
}

static uint64_t
choose_working_set(struct worker *worker)
{
	uint64_t bytes = worker->options->working_set_bytes;
	char *text;

	if (bytes == 0 && hr_stat_json(worker->handle, STAT_TIMEOUT_MS, &text) == 0) {
		bytes = bench_working_set(text, worker->options->tier);
		free(text);
	}
	return bytes != 0 ? bytes : WORKING_SET_BYTES;
}

/* -- the whole ----------------------------------------------------------------------------------------------------------- */

static void
take_result(struct bench_result *to, const struct bench_result *from)
{
	to->ops += from->ops;
	to->errors += from->errors;
	to->busy_retries += from->busy_retries;
	to->wrong_bytes += from->wrong_bytes;
	to->from_dram += from->from_dram;
	to->from_flash += from->from_flash;
	to->elapsed_us = HR_MAX(to->elapsed_us, from->elapsed_us);
	for (int i = 0; i < HR_REASON_COUNT; i++) {
		to->reasons[i] += from->reasons[i];
	}
	histogram_merge(&to->latency_us, &from->latency_us);
}

static int
open_workers(const struct bench_options *options, struct worker *workers, char *detail)
{
	uint64_t seed = options->seed != 0 ? options->seed
					   : mix64(cli_now_us() ^ ((uint64_t)getpid() << 32));

	for (uint32_t i = 0; i < options->threads; i++) {
		workers[i].options = options;
		workers[i].number = i;
		workers[i].seed = seed;
		prng_init(&workers[i].prng, seed + i);
		if (worker_open(&workers[i]) != 0) {
			snprintf(detail, BENCH_DETAIL_BYTES, "%s", workers[i].detail);
			return workers[i].rc;
		}
	}
	return 0;
}

int
bench_run(const struct bench_options *options, struct bench_result *ret_result, char *detail)
{
	struct worker *workers = calloc(options->threads, sizeof(*workers));
	uint64_t working_set, value_bytes, keys;
	int rc;

	detail[0] = '\0';
	if (workers == NULL) {
		snprintf(detail, BENCH_DETAIL_BYTES, "out of memory");
		return -ENOMEM;
	}
	rc = open_workers(options, workers, detail);
	if (rc != 0) {
		goto out;
	}
	working_set = choose_working_set(&workers[0]);
	/* Who gave none wants no more than the store can hold, and there a value takes a page at least. */
	value_bytes = options->working_set_bytes == 0
			  ? HR_MAX(options->value_bytes, (uint64_t)PAGE_BYTES)
			  : options->value_bytes;
	keys = HR_MAX(working_set / HR_MAX(value_bytes, (uint64_t)1), (uint64_t)options->threads);
	for (uint32_t i = 0; i < options->threads; i++) {
		workers[i].keys_count = keys;
	}
	rc = run_all(workers, options->threads, prepare_main, detail);
	if (rc == 0) {
		rc = run_all(workers, options->threads, timed_main, detail);
	}
	if (rc == 0) {
		*ret_result =
		    (struct bench_result){ .working_set_bytes = keys * options->value_bytes };
		for (uint32_t i = 0; i < options->threads; i++) {
			take_result(ret_result, &workers[i].result);
		}
		ret_result->bytes = ret_result->ops * options->value_bytes;
	}
out:
	for (uint32_t i = 0; i < options->threads; i++) {
		worker_close(&workers[i]);
	}
	free(workers);
	return rc;
}
