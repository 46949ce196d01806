/* test_core.c - the client's core against a node that misbehaves, both in one thread on the simulated io. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "base/crc.h"
#include "base/prng.h"
#include "client/core_impl.h"
#include "io/sim.h"
#include "lib/fakenode.h"

#define ADDRESS "tcp:10.0.0.9:7450"
enum { PART = 1 << 20 };

struct world {
	struct sim *sim;
	struct io *client_io, *node_io;
	struct fakenode node;
	struct core *core;
	struct core_space *space;
};

static struct io *
inhabitant(struct sim *sim)
{
	struct io_options options = { .disk = IO_DISK_SIM, .net = IO_NET_SIM, .sim = sim };
	struct io *io;

	assert_int_equal(io_create(&options, &io), 0);
	return io;
}

/* No node yet. With `gap`, the client expects another host when one goes, as with file:. */
static void
world_begin(struct world *w, uint64_t seed, bool gap)
{
	static const char *addresses[] = { ADDRESS };
	struct core_options options = {
		.addresses = addresses, .addresses_count = 1, .name = "test", .gap_waits = gap
	};
	struct sim_net_options net = { .latency_us_min = 20,
				       .latency_us_max = 200,
				       .recv_split_max = 100000 };
	static const uint8_t digest[32] = { 1, 2, 3 };

	*w = (struct world){ 0 };
	assert_int_equal(sim_create(seed, &w->sim), 0);
	sim_net_set(w->sim, &net);
	w->client_io = inhabitant(w->sim);
	w->node_io = inhabitant(w->sim);
	list_init(&w->node.conns);
	list_init(&w->node.blocks);
	assert_int_equal(core_create(w->client_io, &options, &w->core), 0);
	w->space = core_space_get(w->core, digest, "test");
}

static void
node_up(struct world *w)
{
	assert_int_equal(fakenode_start(w->node_io, ADDRESS, PART, &w->node), 0);
}

static bool
is_closed(void *arg)
{
	return core_closed(arg);
}

static bool
never(void *arg)
{
	(void)arg;
	return false;
}

static void
pass(struct world *w, uint64_t us)
{
	(void)sim_run(w->sim, never, NULL, us);
}

static void
world_end(struct world *w)
{
	core_close(w->core);
	assert_true(sim_run(w->sim, is_closed, w->core, 10 * 1000 * 1000));
	while (core_reap(w->core) != NULL) {
	}
	core_destroy(w->core);
	fakenode_stop(&w->node);
	pass(w, 1000 * 1000);
	io_destroy(w->client_io);
	io_destroy(w->node_io);
	sim_destroy(w->sim);
}

struct job {
	struct core_batch batch;
	struct hr_item items[64];
	struct iovec iov[64][4];
	char keys[64][16];
};

/* Item i: key "key-i", a value of `len` bytes at base + i × len, in pieces, so that every path walks scattered memory. */
static struct job *
job_make(struct world *w, enum hr_op op, uint32_t count, uint8_t *base, size_t len)
{
	struct job *job = calloc(1, sizeof(*job));

	for (uint32_t i = 0; i < count; i++) {
		(void)snprintf(job->keys[i], sizeof(job->keys[i]), "key-%u", i);
		job->items[i].key = job->keys[i];
		job->items[i].key_len = (uint32_t)strlen(job->keys[i]);
		if (base != NULL) {
			uint8_t *at = base + i * len;

			job->iov[i][0] = (struct iovec){ at, len / 3 };
			job->iov[i][1] = (struct iovec){ at + len / 3, 0 };
			job->iov[i][2] = (struct iovec){ at + len / 3, len - len / 3 };
			job->items[i].iov = job->iov[i];
			job->items[i].iov_count = 3;
		}
	}
	job->batch = (struct core_batch){ .space = w->space,
					  .op = (uint8_t)op,
					  .items = job->items,
					  .item_size = sizeof(struct hr_item),
					  .items_count = count,
					  .deadline_us = 5 * 1000 * 1000 };
	return job;
}

static bool
has_done(void *arg)
{
	struct core *core = arg;

	return !list_empty(&core->done);
}

static void
job_wait(struct world *w, struct job *job, uint64_t limit_us)
{
	assert_true(has_done(w->core) || sim_run(w->sim, has_done, w->core, limit_us));
	assert_ptr_equal(core_reap(w->core), &job->batch);
}

/* Until this batch comes back; returns how long that took. */
static uint64_t
job_run(struct world *w, struct job *job)
{
	uint64_t from = sim_now_us(w->sim);

	core_submit(w->core, &job->batch);
	job_wait(w, job, 30 * 1000 * 1000);
	return sim_now_us(w->sim) - from;
}

static uint8_t *
noise(uint64_t seed, size_t len)
{
	struct prng prng;
	uint8_t *bytes = malloc(len);

	prng_init(&prng, seed);
	prng_bytes(&prng, bytes, len);
	return bytes;
}

static void
put_all(struct world *w, uint32_t count, uint8_t *base, size_t len)
{
	struct job *job = job_make(w, HR_OP_PUT, count, base, len);

	(void)job_run(w, job);
	assert_int_equal(job->batch.ok_count, count);
	free(job);
}

/* PUT, EXISTS with a lease, GET, DELETE, and a block of no bytes; what is sent and said is compared. */
static void
test_round(void **state)
{
	struct world w;
	uint8_t *in = noise(1, 16 * 100000), *out = calloc(16, 100000);
	struct job *job;

	(void)state;
	world_begin(&w, 1, false);
	node_up(&w);
	put_all(&w, 16, in, 100000);
	job = job_make(&w, HR_OP_GET, 16, out, 100000);
	(void)job_run(&w, job);
	assert_int_equal(job->batch.ok_count, 16);
	assert_memory_equal(in, out, 16 * 100000);
	assert_int_equal(job->items[3].bytes, 100000);
	assert_true(job->items[3].flags & HR_ITEM_DRAM);
	assert_int_equal(w.node.priority_last, HR_PRIORITY_HIGH);
	free(job);
	job = job_make(&w, HR_OP_EXISTS, 20, NULL, 0);
	job->batch.lease_ms = 500;
	(void)job_run(&w, job);
	assert_int_equal(job->batch.ok_count, 16);
	assert_int_equal(job->batch.prefix_count, 16);
	assert_int_equal(job->items[2].len, 100000);
	assert_true(job->items[2].flags & HR_ITEM_LEASED);
	assert_int_equal(job->items[17].status, HR_STATUS_MISS);
	assert_int_equal(job->items[17].reason, HR_REASON_ABSENT);
	assert_int_equal(w.node.lease_ms, 500);
	free(job);
	job = job_make(&w, HR_OP_DELETE, 1, NULL, 0);
	(void)job_run(&w, job);
	assert_int_equal(job->batch.ok_count, 1);
	(void)job_run(&w, job);
	assert_int_equal(job->items[0].reason, HR_REASON_ABSENT);
	free(job);
	put_all(&w, 1, in, 0);
	job = job_make(&w, HR_OP_GET, 2, out, 0);
	(void)job_run(&w, job);
	assert_int_equal(job->items[0].status, HR_STATUS_OK);
	assert_int_equal(job->items[1].reason, HR_REASON_SIZE);
	assert_int_equal(job->items[1].len, 100000);
	free(job);
	free(in);
	free(out);
	world_end(&w);
}

/* Values over the part size: whole, by ranges over the parts' edges, and with a length that nobody knows. */
static void
test_parts(void **state)
{
	size_t len = 3 * PART + 12345;
	struct world w;
	uint8_t *in = noise(2, len), *out = malloc(len);
	uint64_t ranges[][2] = { { 0, len },	 { PART - 10, 20 },
				 { PART, PART }, { 2 * PART + 7, PART + 100 },
				 { len - 1, 1 }, { len, 0 },
				 { 0, 0 },	 { 5, 10 } };

	(void)state;
	world_begin(&w, 2, false);
	node_up(&w);
	put_all(&w, 1, in, len);
	assert_int_equal(w.node.put_items, 4);
	for (int any = 0; any < 2; any++) {
		for (size_t i = 0; i < ARRAY_SIZE(ranges); i++) {
			struct job *job = job_make(&w, HR_OP_GET, 1, out, ranges[i][1]);

			memset(out, 0, len);
			job->items[0].object_off = ranges[i][0];
			job->items[0].expected_len = any ? HR_LEN_ANY : len;
			(void)job_run(&w, job);
			assert_int_equal(job->items[0].status, HR_STATUS_OK);
			assert_int_equal(job->items[0].len, len);
			assert_int_equal(job->items[0].bytes, ranges[i][1]);
			assert_memory_equal(out, in + ranges[i][0], ranges[i][1]);
			free(job);
		}
	}
	free(in);
	free(out);
	world_end(&w);
}

/* A buffer larger than a block of unknown length gets the block; borrowing works without shared memory, too. */
static void
test_unknown_length_and_borrow(void **state)
{
	size_t len = 2 * PART + 5, at = 0;
	struct world w;
	uint8_t *in = noise(3, len), *out = malloc(4 * PART);
	struct job *job;

	(void)state;
	world_begin(&w, 3, false);
	node_up(&w);
	put_all(&w, 1, in, len);
	job = job_make(&w, HR_OP_GET, 1, out, 4 * PART);
	job->items[0].expected_len = HR_LEN_ANY;
	(void)job_run(&w, job);
	assert_int_equal(job->items[0].bytes, len);
	assert_memory_equal(in, out, len);
	memset(out, 0, len);
	job->iov[0][0] =
	    (struct iovec){ out, SIZE_MAX / 2 }; /* a region that is larger than any block */
	(void)job_run(&w, job);
	assert_int_equal(job->items[0].status, HR_STATUS_OK);
	assert_int_equal(job->items[0].bytes, len);
	assert_memory_equal(in, out, len);
	job->items[0].expected_len = 0;
	(void)job_run(&w, job);
	assert_int_equal(job->items[0].status, HR_STATUS_INVALID);
	free(job);
	job = job_make(&w, HR_OP_GET, 1, NULL, 0);
	job->items[0].flags = HR_GET_BORROW;
	(void)job_run(&w, job);
	assert_int_equal(job->items[0].status, HR_STATUS_OK);
	assert_true(job->items[0].flags & HR_ITEM_BORROWED);
	for (uint32_t i = 0; i < job->items[0].borrowed_count; i++) {
		const struct iovec *iov = &job->items[0].borrowed[i];

		assert_memory_equal(iov->iov_base, in + at, iov->iov_len);
		at += iov->iov_len;
	}
	assert_int_equal(at, len);
	core_unborrow(w.core, job->items[0].borrow);
	free(job);
	free(in);
	free(out);
	world_end(&w);
}

/* Items that cannot be used are said to be so, and do not harm the others. */
static void
test_invalid_items(void **state)
{
	struct world w;
	uint8_t *in = noise(4, 4 * 100), *out = malloc(400);
	struct job *job;
	char key[1025] = { 1 };

	(void)state;
	world_begin(&w, 4, false);
	node_up(&w);
	job = job_make(&w, HR_OP_PUT, 4, in, 100);
	job->items[0].key_len = 0;
	job->items[1].key = key;
	job->items[1].key_len = 1025;
	job->iov[2][2].iov_len = HR_BLOCK_BYTES_MAX + 1;
	(void)job_run(&w, job);
	assert_int_equal(job->items[0].status, HR_STATUS_INVALID);
	assert_int_equal(job->items[1].status, HR_STATUS_INVALID);
	assert_int_equal(job->items[2].status, HR_STATUS_INVALID);
	assert_int_equal(job->items[3].status, HR_STATUS_OK);
	free(job);
	job = job_make(&w, HR_OP_GET, 1, out, 100);
	job->items[0].object_off = 101;
	job->items[0].expected_len = 100;
	(void)job_run(&w, job);
	assert_int_equal(job->items[0].status, HR_STATUS_INVALID);
	job->items[0].object_off = 1;
	(void)job_run(&w, job);
	assert_int_equal(job->items[0].status, HR_STATUS_INVALID);
	free(job);
	free(in);
	free(out);
	world_end(&w);
}

/* A silent node: the deadline ends the batch when it says, with untouched buffers, and the node is told. */
static void
test_deadline_silent(void **state)
{
	struct world w;
	uint8_t *in = noise(5, 8 * 50000), *out = calloc(8, 50000), *zero = calloc(8, 50000);
	struct job *job;
	uint64_t took;

	(void)state;
	world_begin(&w, 5, false);
	node_up(&w);
	put_all(&w, 8, in, 50000);
	w.node.silent = true;
	job = job_make(&w, HR_OP_GET, 8, out, 50000);
	job->batch.deadline_us = 30000;
	took = job_run(&w, job);
	assert_in_range(took, 30000, 31000);
	for (int i = 0; i < 8; i++) {
		assert_int_equal(job->items[i].status, HR_STATUS_MISS);
		assert_int_equal(job->items[i].reason, HR_REASON_DEADLINE);
		assert_false(job->items[i].flags & HR_ITEM_TOUCHED);
	}
	assert_memory_equal(out, zero, 8 * 50000);
	free(job);
	job = job_make(&w, HR_OP_PUT, 1, in, 50000);
	job->batch.deadline_us = 30000;
	took = job_run(&w, job);
	assert_in_range(took, 30000, 31000);
	assert_int_equal(job->items[0].status, HR_STATUS_REFUSED);
	assert_int_equal(job->items[0].reason, HR_REASON_DEADLINE);
	free(job);
	pass(&w, 10000);
	assert_int_equal(w.node.cancels, 2);
	free(in);
	free(out);
	free(zero);
	world_end(&w);
}

/* Payload that stops in the middle: the batch ends within the grace, and late bytes do not touch the buffer any more. */
static void
test_deadline_mid_payload(void **state)
{
	struct world w;
	uint8_t *in = noise(6, 500000), *out = calloc(1, 500000), *snapshot = malloc(500000);
	struct job *job;
	uint64_t took;
	struct core_stat stat;

	(void)state;
	world_begin(&w, 6, false);
	node_up(&w);
	put_all(&w, 1, in, 500000);
	w.node.payload_stall = 200000;
	job = job_make(&w, HR_OP_GET, 1, out, 500000);
	job->batch.deadline_us = 50000;
	took = job_run(&w, job);
	assert_in_range(took, 50000, 50000 + CORE_GRACE_US + 1000);
	assert_int_equal(job->items[0].reason, HR_REASON_DEADLINE);
	assert_true(job->items[0].flags & HR_ITEM_TOUCHED);
	memcpy(snapshot, out, 500000);
	free(job);
	/* The connection was the price; the next request gets a new one. */
	w.node.payload_stall = 0;
	w.node.silent = false;
	pass(&w, 1000 * 1000);
	assert_memory_equal(out, snapshot, 500000);
	core_stat_get(w.core, &stat);
	assert_int_equal(stat.conns_ended_grace, 1);
	job = job_make(&w, HR_OP_GET, 1, out, 500000);
	(void)job_run(&w, job);
	assert_int_equal(job->items[0].status, HR_STATUS_OK);
	assert_memory_equal(out, in, 500000);
	free(job);
	free(in);
	free(out);
	free(snapshot);
	world_end(&w);
}

/* A node that reads nothing while a large PUT goes out: the memory comes back within the grace. */
static void
test_deadline_mid_send(void **state)
{
	struct world w;
	uint8_t *in = noise(7, 8 * PART);
	struct job *job;
	uint64_t took;

	(void)state;
	world_begin(&w, 7, false);
	node_up(&w);
	put_all(&w, 1, in, 10);
	w.node.deaf = true;
	job = job_make(&w, HR_OP_PUT, 8, in, PART);
	job->batch.deadline_us = 50000;
	took = job_run(&w, job);
	assert_in_range(took, 50000, 50000 + CORE_GRACE_US + 1000);
	assert_int_equal(job->batch.ok_count, 0);
	assert_int_equal(job->items[7].reason, HR_REASON_DEADLINE);
	free(job);
	free(in);
	world_end(&w);
}

/* A PUT that is cancelled while it is being sent: the frame keeps its length, the connection lives on. */
static void
test_cancel_mid_send(void **state)
{
	struct world w;
	uint8_t *in = noise(8, 12 * PART), *out = malloc(1000);
	struct job *job;
	struct core_stat stat;

	(void)state;
	world_begin(&w, 8, false);
	node_up(&w);
	put_all(&w, 1, in, 1000);
	job = job_make(&w, HR_OP_PUT, 12, in, PART);
	core_submit(w.core, &job->batch);
	pass(&w, 300);
	core_cancel(w.core, &job->batch);
	job_wait(&w, job, CORE_GRACE_US + 1000);
	memset(in + 1000, 0xee, 12 * PART - 1000);
	assert_true(job->batch.cancelled);
	assert_int_equal(job->items[1].reason, HR_REASON_CANCELLED);
	free(job);
	job = job_make(&w, HR_OP_GET, 1, out, 1000);
	(void)job_run(&w, job);
	assert_int_equal(job->items[0].status, HR_STATUS_OK);
	core_stat_get(w.core, &stat);
	assert_int_equal(stat.connects, 1);
	free(job);
	free(in);
	free(out);
	world_end(&w);
}

/* Wrong bytes are a miss that says so; staged buffers stay untouched. */
static void
test_corrupt(void **state)
{
	size_t len = 2 * PART + 9;
	struct world w;
	uint8_t *in = noise(9, len), *out = calloc(1, len), *zero = calloc(1, len);
	struct job *job;

	(void)state;
	world_begin(&w, 9, false);
	node_up(&w);
	put_all(&w, 1, in, len);
	w.node.corrupt = true;
	job = job_make(&w, HR_OP_GET, 1, out, len);
	job->items[0].flags = HR_GET_STAGED;
	(void)job_run(&w, job);
	assert_int_equal(job->items[0].reason, HR_REASON_CORRUPT);
	assert_false(job->items[0].flags & HR_ITEM_TOUCHED);
	assert_memory_equal(out, zero, len);
	job->items[0].flags = 0;
	(void)job_run(&w, job);
	assert_int_equal(job->items[0].reason, HR_REASON_CORRUPT);
	assert_true(job->items[0].flags & HR_ITEM_TOUCHED);
	w.node.corrupt = false;
	job->items[0].flags = HR_GET_STAGED;
	(void)job_run(&w, job);
	assert_int_equal(job->items[0].status, HR_STATUS_OK);
	assert_memory_equal(out, in, len);
	free(job);
	free(in);
	free(out);
	free(zero);
	world_end(&w);
}

/* Parts of two births: once is forgiven by beginning again, twice is a miss, and never bytes of both. */
static void
test_mixed_births(void **state)
{
	size_t len = 3 * PART;
	struct world w;
	uint8_t *in = noise(10, len), *out = malloc(len);
	struct job *job;
	struct core_stat stat;

	(void)state;
	world_begin(&w, 10, false);
	node_up(&w);
	put_all(&w, 1, in, len);
	w.node.mixed_births = 1;
	job = job_make(&w, HR_OP_GET, 1, out, len);
	(void)job_run(&w, job);
	assert_int_equal(job->items[0].status, HR_STATUS_OK);
	assert_memory_equal(in, out, len);
	w.node.mixed_births = 2; /* in the second round, too */
	(void)job_run(&w, job);
	assert_int_equal(job->items[0].status, HR_STATUS_MISS);
	assert_true(job->items[0].flags & HR_ITEM_TOUCHED);
	core_stat_get(w.core, &stat);
	assert_int_equal(stat.restarts_mixed_births, 2);
	free(job);
	free(in);
	free(out);
	world_end(&w);
}

/* A block of unknown length that is replaced by a longer one while it is read: what the first round learnt is forgotten. */
static void
test_replaced_by_longer(void **state)
{
	size_t len = 3 * PART + 100;
	struct world w;
	uint8_t *in = noise(11, len), *out = malloc(4 * PART);

	(void)state;
	world_begin(&w, 11, false);
	node_up(&w);
	put_all(&w, 1, in, len);
	for (unsigned staged = 0; staged < 2; staged++) {
		struct job *job = job_make(&w, HR_OP_GET, 1, out, 4 * PART);

		memset(out, 0, 4 * PART);
		w.node.mixed_births = 1;
		w.node.mixed_shorter = PART + 50;
		job->items[0].expected_len = HR_LEN_ANY;
		job->items[0].flags = staged != 0 ? HR_GET_STAGED : 0;
		(void)job_run(&w, job);
		assert_int_equal(job->items[0].status, HR_STATUS_OK);
		assert_int_equal(job->items[0].len, len);
		assert_int_equal(job->items[0].bytes, len);
		assert_memory_equal(in, out, len);
		free(job);
	}
	free(in);
	free(out);
	world_end(&w);
}

/* Nobody listens: a miss within a connect's time, then at once; a node that comes is found without help. */
static void
test_breaker(void **state)
{
	struct world w;
	uint8_t *in = noise(11, 100);
	struct job *job;
	uint64_t took;

	(void)state;
	world_begin(&w, 11, false);
	job = job_make(&w, HR_OP_GET, 1, in, 100);
	took = job_run(&w, job);
	assert_in_range(took, 0, 3 * 1000 * 1000);
	assert_int_equal(job->items[0].reason, HR_REASON_DOWN);
	took = job_run(&w, job);
	assert_int_equal(took, 0);
	assert_int_equal(job->items[0].reason, HR_REASON_DOWN);
	pass(&w, 10 * 1000 * 1000);
	took = job_run(&w, job);
	assert_int_equal(took, 0);
	node_up(&w);
	pass(&w, 2 * CORE_BACKOFF_US_MAX);
	put_all(&w, 1, in, 100);
	free(job);
	free(in);
	world_end(&w);
}

/* The connection breaks at many moments with requests in flight: each item ends once, right or owner_down, and the next batch is fine. */
static void
test_broken_connection(void **state)
{
	struct world w;
	uint8_t *in = noise(12, 32 * 70000), *out = malloc(32 * 70000);
	struct job *job;

	(void)state;
	world_begin(&w, 12, false);
	node_up(&w);
	put_all(&w, 32, in, 70000);
	for (uint64_t us = 100; us < 4000; us += 300) {
		memset(out, 0, 32 * 70000);
		job = job_make(&w, HR_OP_GET, 32, out, 70000);
		core_submit(w.core, &job->batch);
		pass(&w, us);
		fakenode_break(&w.node);
		job_wait(&w, job, 1000 * 1000);
		for (int i = 0; i < 32; i++) {
			assert_true(job->items[i].status == HR_STATUS_OK ||
				    job->items[i].reason == HR_REASON_DOWN);
			if (job->items[i].status == HR_STATUS_OK) {
				assert_memory_equal(in + i * 70000, out + i * 70000, 70000);
			}
		}
		free(job);
		pass(&w, 1000); /* the client has seen it, too */
		job = job_make(&w, HR_OP_GET, 32, out, 70000);
		(void)job_run(&w, job);
		assert_int_equal(job->batch.ok_count, 32);
		free(job);
	}
	free(in);
	free(out);
	world_end(&w);
}

static void
node_down(struct world *w)
{
	io_listener_close(w->node.listener);
	w->node.listener = NULL;
	fakenode_break(&w->node);
}

/* Where another host is to be expected, a GET in flight is asked again there; when none comes, the wait is bounded. */
static void
test_gap(void **state)
{
	struct world w;
	uint8_t *in = noise(13, 1000), *out = malloc(1000);
	struct list_head blocks;
	struct job *job;
	uint64_t took;

	(void)state;
	world_begin(&w, 13, true);
	node_up(&w);
	put_all(&w, 1, in, 1000);
	job = job_make(&w, HR_OP_GET, 1, out, 1000);
	w.node.silent = true;
	core_submit(w.core, &job->batch);
	pass(&w, 1000);
	node_down(&w);
	pass(&w, 300 * 1000);
	assert_true(list_empty(&w.core->done));
	list_init(&blocks);
	list_splice_tail(&blocks, &w.node.blocks);
	node_up(&w);
	list_splice_tail(&w.node.blocks, &blocks);
	job_wait(&w, job, 1000 * 1000);
	assert_int_equal(job->items[0].status, HR_STATUS_OK);
	assert_memory_equal(in, out, 1000);
	node_down(&w);
	took = job_run(&w, job);
	assert_int_equal(job->items[0].reason, HR_REASON_DOWN);
	assert_in_range(took, CORE_GAP_US - 100000, CORE_GAP_US + 200000);
	free(job);
	free(in);
	free(out);
	world_end(&w);
}

/* What a peer must not do ends the connection, is counted, and is a miss. */
static void
test_bad_peer(void **state)
{
	struct world w;
	uint8_t *in = noise(14, 100);
	struct core_stat stat;
	struct job *job;

	(void)state;
	world_begin(&w, 14, false);
	node_up(&w);
	put_all(&w, 1, in, 100);
	w.node.extra_answer = true;
	job = job_make(&w, HR_OP_GET, 1, in, 100);
	(void)job_run(&w, job);
	assert_int_equal(job->items[0].reason, HR_REASON_DOWN);
	core_stat_get(w.core, &stat);
	assert_int_equal(stat.protocol_errors, 1);
	free(job);
	free(in);
	world_end(&w);
}

/* A store that is full says busy; the library reports that and does not try again by itself. */
static void
test_busy(void **state)
{
	struct world w;
	uint8_t *in = noise(15, 6 * PART);
	struct job *job;
	unsigned items;

	(void)state;
	world_begin(&w, 15, false);
	node_up(&w);
	put_all(&w, 1, in, 100);
	w.node.refuse_puts = true;
	items = w.node.put_items;
	job = job_make(&w, HR_OP_PUT, 2, in, 3 * PART);
	job->items[0].key = "other-0";
	job->items[0].key_len = 7;
	(void)job_run(&w, job);
	assert_int_equal(job->items[0].status, HR_STATUS_REFUSED);
	assert_int_equal(job->items[0].reason, HR_REASON_BUSY);
	assert_int_equal(job->items[1].reason, HR_REASON_BUSY);
	assert_in_range(w.node.put_items - items, 2, 6);
	free(job);
	free(in);
	world_end(&w);
}

/* Closing with everything under way gives every batch back, cancelled. */
static void
test_close_under_way(void **state)
{
	struct world w;
	uint8_t *in = noise(16, 8 * PART), *out = malloc(8 * PART);
	struct job *jobs[3];
	unsigned back = 0;

	(void)state;
	world_begin(&w, 16, false);
	node_up(&w);
	put_all(&w, 1, in, 100);
	jobs[0] = job_make(&w, HR_OP_PUT, 8, in, PART);
	jobs[1] = job_make(&w, HR_OP_GET, 8, out, PART);
	jobs[2] = job_make(&w, HR_OP_EXISTS, 8, NULL, 0);
	for (int i = 0; i < 3; i++) {
		core_submit(w.core, &jobs[i]->batch);
	}
	pass(&w, 100);
	core_close(w.core);
	assert_true(sim_run(w.sim, is_closed, w.core, 1000 * 1000));
	while (core_reap(w.core) != NULL) {
		back++;
	}
	assert_int_equal(back, 3);
	assert_true(jobs[0]->batch.cancelled);
	for (int i = 0; i < 3; i++) {
		free(jobs[i]);
	}
	free(in);
	free(out);
	world_end(&w);
}

/* A node whose answers are well-formed nonsense now and then: each batch comes back once, and bytes that are said to be right are. */
static void
test_mutated_answers(void **state)
{
	enum { COUNT = 16, LEN = 90000, LARGE = 2 * PART + 5 };
	uint8_t *in = noise(30, COUNT * LEN + LARGE), *out = malloc(COUNT * LEN + LARGE);
	unsigned ok = 0, not_ok = 0;
	uint64_t errors = 0;

	(void)state;
	for (uint64_t seed = 0; seed < 60; seed++) {
		struct core_stat stat;
		struct prng prng;
		struct world w;

		prng_init(&prng, seed);
		world_begin(&w, seed, false);
		node_up(&w);
		put_all(&w, COUNT, in, LEN);
		w.node.mutate = &prng;
		for (int round = 0; round < 12; round++) {
			enum hr_op op = round % 4 == 3	 ? HR_OP_EXISTS
					: round % 4 == 2 ? HR_OP_PUT
							 : HR_OP_GET;
			size_t len = op == HR_OP_PUT ? LARGE : LEN;
			uint32_t count = op == HR_OP_PUT ? 1 : COUNT;
			struct job *job = job_make(&w, op, count, op == HR_OP_GET ? out : in, len);

			for (uint32_t i = 0; i < count; i++) {
				job->items[i].expected_len =
				    op == HR_OP_GET && i % 2 == 0 ? HR_LEN_ANY : 0;
				job->items[i].flags = op == HR_OP_GET && i % 5 == 0 ? HR_GET_STAGED
										    : 0;
			}
			job->items[0].key = op == HR_OP_PUT ? "large" : job->items[0].key;
			(void)job_run(&w, job);
			for (uint32_t i = 0; i < count; i++) {
				bool good = job->items[i].status == HR_STATUS_OK;

				ok += good;
				not_ok += !good;
				assert_true(op != HR_OP_GET || !good ||
					    (job->items[i].bytes <= LEN &&
					     memcmp(in + i * LEN, out + i * LEN,
						    job->items[i].bytes) == 0));
			}
			free(job);
			pass(&w, 200 * 1000);
		}
		core_stat_get(w.core, &stat);
		errors += stat.protocol_errors;
		world_end(&w);
	}
	assert_true(ok > 1000 && not_ok > 100 && errors > 20);
	free(in);
	free(out);
}

/* -- several nodes and addresses ------------------------------------------------------------------------------------------------ */

struct fleet {
	struct sim *sim;
	struct io *client_io, *node_io;
	struct fakenode nodes[3];
	struct world w; /* sim, core and space of it are the fleet's */
};

static void
fleet_begin(struct fleet *f, uint64_t seed, const char *const *addresses, unsigned addresses_count,
	    const char *secret)
{
	static const char *texts[] = { "label.rack=1 tcp=10.0.0.1:1", "unix=/x tcp=10.0.0.2:1",
				       "tcp=10.0.0.3:1" };
	struct core_options options = { .addresses = addresses,
					.addresses_count = addresses_count,
					.tenant = "t",
					.token = (const uint8_t *)secret,
					.token_len = secret != NULL ? strlen(secret) : 0 };
	static const uint8_t digest[32] = { 1 };
	char address[32];

	memset(f, 0, sizeof(*f));
	assert_int_equal(sim_create(seed, &f->sim), 0);
	f->client_io = inhabitant(f->sim);
	f->node_io = inhabitant(f->sim);
	for (int i = 0; i < 3; i++) {
		(void)snprintf(address, sizeof(address), "tcp:10.0.0.%d:1", i + 1);
		assert_int_equal(fakenode_start(f->node_io, address, PART, &f->nodes[i]), 0);
		memset(f->nodes[i].shard_uuid, 0x30 + i, 16);
		memset(f->nodes[i].node_uuid, 0x40 + i, 16);
		f->nodes[i].address_text = texts[i];
	}
	for (int i = 0; i < 3; i++) {
		for (int j = 0; j < 3; j++) {
			if (j != i) {
				f->nodes[i].others[f->nodes[i].others_count++] = &f->nodes[j];
			}
		}
	}
	assert_int_equal(core_create(f->client_io, &options, &f->w.core), 0);
	f->w.sim = f->sim;
	f->w.space = core_space_get(f->w.core, digest, "fleet");
}

static void
fleet_end(struct fleet *f)
{
	core_close(f->w.core);
	assert_true(sim_run(f->sim, is_closed, f->w.core, 10 * 1000 * 1000));
	while (core_reap(f->w.core) != NULL) {
	}
	core_destroy(f->w.core);
	for (int i = 0; i < 3; i++) {
		fakenode_stop(&f->nodes[i]);
	}
	pass(&f->w, 1000 * 1000);
	io_destroy(f->client_io);
	io_destroy(f->node_io);
	sim_destroy(f->sim);
}

/* Any node tells of all; blocks go where their routes say; who does not know a route asks all; one node away costs its own share, at once. */
static void
test_fleet(void **state)
{
	static const char *addresses[] = { "tcp:10.0.0.99:1", "tcp:10.0.0.2:1" };
	uint8_t *in = noise(21, 64 * 1000), *out = calloc(64, 1000);
	unsigned down = 0;
	struct fleet f;
	struct job *job;

	(void)state;
	fleet_begin(&f, 21, addresses, 2, NULL);
	job = job_make(&f.w, HR_OP_PUT, 64, in, 1000);
	for (int i = 0; i < 64; i++) {
		job->items[i].flags = HR_ITEM_ROUTE;
		job->items[i].route = (uint64_t)i * 0x9e3779b97f4a7c15;
	}
	(void)job_run(&f.w, job);
	assert_int_equal(job->batch.ok_count, 64);
	free(job);
	for (int i = 0; i < 3; i++) {
		assert_in_range(f.nodes[i].put_items, 8, 40);
	}
	job = job_make(&f.w, HR_OP_GET, 64, out, 1000);
	for (int i = 0; i < 64; i++) {
		job->items[i].flags = HR_ITEM_ALL_SHARDS;
	}
	(void)job_run(&f.w, job);
	assert_int_equal(job->batch.ok_count, 64);
	assert_memory_equal(in, out, 64 * 1000);
	/* One node goes. */
	io_listener_close(f.nodes[1].listener);
	f.nodes[1].listener = NULL;
	fakenode_break(&f.nodes[1]);
	pass(&f.w, 10000);
	(void)job_run(&f.w, job);
	for (int i = 0; i < 64; i++) {
		down += job->items[i].reason == HR_REASON_DOWN;
	}
	assert_int_equal(down, f.nodes[1].put_items);
	assert_int_equal(job->batch.ok_count, 64 - down);
	free(job);
	job = job_make(&f.w, HR_OP_DELETE, 64, NULL, 0);
	for (int i = 0; i < 64; i++) {
		job->items[i].flags = HR_ITEM_ALL_SHARDS;
	}
	(void)job_run(&f.w, job);
	assert_int_equal(job->batch.ok_count, 64 - down);
	free(job);
	free(in);
	free(out);
	fleet_end(&f);
}

/* A node that wants a proof gets it, and who has none is told. */
static void
test_token(void **state)
{
	static const char *addresses[] = { "tcp:10.0.0.1:1" };
	uint8_t *in = noise(22, 1000);
	char text[200];
	struct fleet f;
	struct job *job;

	(void)state;
	for (int right = 0; right < 3; right++) {
		fleet_begin(&f, 22, addresses, 1,
			    right == 2	 ? "swordfish"
			    : right == 1 ? "sardine"
					 : NULL);
		for (int i = 0; i < 3; i++) {
			f.nodes[i].secret = "swordfish";
		}
		job = job_make(&f.w, HR_OP_PUT, 1, in, 1000);
		(void)job_run(&f.w, job);
		assert_int_equal(job->batch.ok_count, right == 2);
		assert_int_equal(core_last_error(f.w.core, text, sizeof(text)),
				 right == 2 ? 0 : -HR_EAUTH);
		free(job);
		fleet_end(&f);
	}
	free(in);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_round),
		cmocka_unit_test(test_parts),
		cmocka_unit_test(test_unknown_length_and_borrow),
		cmocka_unit_test(test_invalid_items),
		cmocka_unit_test(test_deadline_silent),
		cmocka_unit_test(test_deadline_mid_payload),
		cmocka_unit_test(test_deadline_mid_send),
		cmocka_unit_test(test_cancel_mid_send),
		cmocka_unit_test(test_corrupt),
		cmocka_unit_test(test_mixed_births),
		cmocka_unit_test(test_replaced_by_longer),
		cmocka_unit_test(test_breaker),
		cmocka_unit_test(test_broken_connection),
		cmocka_unit_test(test_gap),
		cmocka_unit_test(test_bad_peer),
		cmocka_unit_test(test_busy),
		cmocka_unit_test(test_close_under_way),
		cmocka_unit_test(test_mutated_answers),
		cmocka_unit_test(test_fleet),
		cmocka_unit_test(test_token),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
