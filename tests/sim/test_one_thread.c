/* test_one_thread.c - client, server and engine in one thread, from a seed.
 *
 * A random life: PUTs (also over the part size, also replacing), GETs whole and by range, EXISTS with leases, DELETEs, PREFETCH, cancellations, deadlines
 * and broken connections, on two shards of one simulated device. A model knows which values each key may have; every byte of every GET that is OK is
 * compared with them. The same seed gives the same trace of events.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "base/prng.h"
#include "client/core_impl.h"
#include "engine/engine.h"
#include "io/sim.h"
#include "shard/shard.h"

#define ADDRESS "tcp:10.0.0.1:7450"
enum { SHARDS = 2, KEYS = 40, VERSIONS_MAX = 64, BLOCK_MAX = 5 << 20, JOBS_MAX = 6, ITEMS_MAX = 8 };

/* -- the world ------------------------------------------------------------------------------------------------------------------- */

struct world {
	struct sim *sim;
	struct io *node_io, *client_io;
	struct io_device *device;
	struct superblock slices[SLICES_MAX];
	struct engine *engines[SHARDS];
	struct shard *shard;
	struct core *core;
	struct core_space *space;
	unsigned ready, stopped;
	bool drained;
};

static void
on_ready(void *arg, int rc, const struct recover_result *result)
{
	struct world *w = arg;

	(void)result;
	assert_int_equal(rc, 0);
	w->ready++;
}

static bool
all_ready(void *arg)
{
	return ((struct world *)arg)->ready == SHARDS;
}

static void
on_stopped(void *arg)
{
	((struct world *)arg)->stopped++;
}

static bool
all_stopped(void *arg)
{
	return ((struct world *)arg)->stopped == SHARDS;
}

static void
on_drained(void *arg)
{
	((struct world *)arg)->drained = true;
}

static bool
is_drained(void *arg)
{
	return ((struct world *)arg)->drained;
}

static bool
is_closed(void *arg)
{
	return core_closed(((struct world *)arg)->core);
}

static bool
never(void *arg)
{
	(void)arg;
	return false;
}

static struct io *
inhabitant(struct sim *sim)
{
	struct io_options options = { .disk = IO_DISK_SIM, .net = IO_NET_SIM, .sim = sim };
	struct io *io;

	assert_int_equal(io_create(&options, &io), 0);
	return io;
}

static void
node_begin(struct world *w)
{
	struct format_options format = { .segment_bytes = MiB(32), .shards_count = SHARDS };
	struct engine_options engine_options = { .dram_bytes = MiB(24) };
	struct shard_options shard_options = { .node_text = "tcp=10.0.0.1:7450" };
	char detail[DETAIL_BYTES] = "";
	const char *address;
	uint32_t count;

	memset(shard_options.node_uuid, 0x77, 16);
	assert_int_equal(device_format(w->node_io, "disk", &format, detail), 0);
	assert_int_equal(io_device_open(w->node_io, "disk", 0, &w->device), 0);
	assert_int_equal(device_superblocks_read(w->node_io, w->device, w->slices, &count, detail),
			 0);
	assert_int_equal(count, SHARDS);
	assert_int_equal(shard_create(w->node_io, &shard_options, &w->shard), 0);
	for (int i = 0; i < SHARDS; i++) {
		assert_int_equal(engine_create(w->node_io, w->device, &w->slices[i],
					       &engine_options, &w->engines[i]),
				 0);
		assert_int_equal(engine_start(w->engines[i], on_ready, w, detail), 0);
	}
	assert_true(sim_run(w->sim, all_ready, w, 10 * 1000 * 1000));
	for (int i = 0; i < SHARDS; i++) {
		assert_int_equal(shard_engine_add(w->shard, w->engines[i]), 0);
	}
	assert_int_equal(shard_listen(w->shard, ADDRESS, &address), 0);
}

static void
world_begin(struct world *w, uint64_t seed)
{
	static const char *addresses[] = { ADDRESS };
	struct sim_device_options device = { .kind = SIM_DEVICE_BYTES,
					     .size_bytes = GiB(1),
					     .latency_us_min = 20,
					     .latency_us_max = 200,
					     .block_device = true };
	struct core_options options = { .addresses = addresses,
					.addresses_count = 1,
					.name = "test" };
	struct sim_net_options net = { .latency_us_min = 10,
				       .latency_us_max = 100,
				       .recv_split_max = 200000 };
	static const uint8_t digest[32] = { 9, 9 };

	*w = (struct world){ 0 };
	assert_int_equal(sim_create(seed, &w->sim), 0);
	assert_int_equal(sim_device_add(w->sim, "disk", &device), 0);
	sim_net_set(w->sim, &net);
	w->node_io = inhabitant(w->sim);
	w->client_io = inhabitant(w->sim);
	node_begin(w);
	assert_int_equal(core_create(w->client_io, &options, &w->core), 0);
	w->space = core_space_get(w->core, digest, "life");
}

/* Returns the hash of everything that has happened. */
static uint64_t
world_end(struct world *w)
{
	struct shard_stat stat;
	uint64_t hash;

	core_close(w->core);
	assert_true(sim_run(w->sim, is_closed, w, 10 * 1000 * 1000));
	assert_null(core_reap(w->core));
	core_destroy(w->core);
	shard_drain(w->shard, 1000 * 1000, on_drained, w);
	assert_true(sim_run(w->sim, is_drained, w, 10 * 1000 * 1000));
	(void)sim_run(w->sim, never, NULL, 1000 * 1000);
	shard_stat_get(w->shard, &stat);
	assert_int_equal(stat.conns_now, 0);
	assert_int_equal(stat.requests_now, 0);
	assert_int_equal(stat.conns_ended_bad_input, 0);
	for (int i = 0; i < SHARDS; i++) {
		engine_stop(w->engines[i], on_stopped, w);
	}
	assert_true(sim_run(w->sim, all_stopped, w, 10 * 1000 * 1000));
	shard_destroy(w->shard);
	for (int i = 0; i < SHARDS; i++) {
		engine_check(w->engines[i]);
		engine_destroy(w->engines[i]);
	}
	io_device_close(w->device);
	hash = sim_trace_hash(w->sim);
	io_destroy(w->client_io);
	io_destroy(w->node_io);
	sim_destroy(w->sim);
	return hash;
}

/* -- the model ------------------------------------------------------------------------------------------------------------------- */

/* A value is made from its version's number. What a key may hold: any version whose PUT may have taken effect since the last operation
 * that is known to have taken effect. */
struct key_model {
	char name[16];
	uint64_t route;
	uint32_t versions[VERSIONS_MAX];
	unsigned versions_count; /* that a GET may find */
	bool surely;		 /* one of them is there */
	unsigned busy;		 /* operations under way on it */
};

struct job {
	struct core_batch batch;
	bool used;
	struct hr_item items[ITEMS_MAX];
	struct iovec iov[ITEMS_MAX][2];
	unsigned keys[ITEMS_MAX];
	uint32_t versions[ITEMS_MAX];
	uint64_t from[ITEMS_MAX];
	uint8_t *bufs[ITEMS_MAX];
	uint32_t values_len[ITEMS_MAX];
};

struct life {
	struct world w;
	struct prng prng;
	struct key_model keys[KEYS];
	struct job jobs[JOBS_MAX];
	uint32_t version_last;
	unsigned gets_ok, puts_ok, deletes_ok, parts_ok, ends_early;
};

static uint32_t
version_len(uint32_t version)
{
	uint64_t state = version;
	uint64_t x = splitmix64(&state);

	return x % 10 < 7   ? (uint32_t)(x >> 8) % 200000
	       : x % 10 < 9 ? (uint32_t)(x >> 8) % BLOCK_MAX
			    : 0;
}

static void
version_bytes(uint32_t version, uint64_t from, uint8_t *ret, size_t len)
{
	for (size_t i = 0; i < len; i++) {
		uint64_t at = from + i;

		ret[i] = (uint8_t)((at * 2654435761u + version * 40503u) >> 13 ^ at >> 8 ^ version);
	}
}

static void
may_hold(struct key_model *key, uint32_t version)
{
	assert_true(key->versions_count < VERSIONS_MAX);
	key->versions[key->versions_count++] = version;
}

/* -- jobs ------------------------------------------------------------------------------------------------------------------------ */

static unsigned
key_pick(struct life *life, const struct job *job, unsigned count, bool alone)
{
	for (int tries = 0; tries < 1000; tries++) {
		unsigned k = (unsigned)prng_below(&life->prng, KEYS);
		bool taken = alone && life->keys[k].busy > 0;

		for (unsigned i = 0; i < count; i++) {
			taken |= job->keys[i] == k;
		}
		if (!taken) {
			return k;
		}
	}
	return KEYS;
}

static void
item_put(struct life *life, struct job *job, unsigned i)
{
	struct hr_item *item = &job->items[i];
	uint32_t len;

	job->versions[i] = ++life->version_last;
	len = job->values_len[i] = version_len(job->versions[i]);
	job->bufs[i] = malloc(len + 1);
	version_bytes(job->versions[i], 0, job->bufs[i], len);
	job->iov[i][0] = (struct iovec){ job->bufs[i], len / 2 };
	job->iov[i][1] = (struct iovec){ job->bufs[i] + len / 2, len - len / 2 };
	item->iov = job->iov[i];
	item->iov_count = 2;
	if (prng_below(&life->prng, 2) == 0) {
		item->flags |= HR_PUT_REPLACE;
	}
}

static void
item_get(struct life *life, struct job *job, unsigned i)
{
	struct hr_item *item = &job->items[i];
	uint64_t space = BLOCK_MAX;

	item->expected_len = HR_LEN_ANY;
	if (prng_below(&life->prng, 3) == 0) {
		job->from[i] = item->object_off = prng_below(&life->prng, 100000);
		space = prng_below(&life->prng, 300000);
	}
	if (prng_below(&life->prng, 4) == 0) {
		item->flags |= HR_GET_STAGED;
	}
	job->bufs[i] = malloc(space + 1);
	job->iov[i][0] = (struct iovec){ job->bufs[i], space };
	item->iov = job->iov[i];
	item->iov_count = 1;
}

static void
job_begin(struct life *life, struct job *job)
{
	static const uint8_t ops[] = { HR_OP_PUT,    HR_OP_PUT,	  HR_OP_PUT,	 HR_OP_GET,
				       HR_OP_GET,    HR_OP_GET,	  HR_OP_GET,	 HR_OP_EXISTS,
				       HR_OP_DELETE, HR_OP_TOUCH, HR_OP_PREFETCH };
	uint8_t op = ops[prng_below(&life->prng, sizeof(ops))];
	bool changes = op == HR_OP_PUT || op == HR_OP_DELETE;
	unsigned count = 1 + (unsigned)prng_below(&life->prng, ITEMS_MAX), n = 0;

	memset(job, 0, sizeof(*job));
	for (; n < count; n++) {
		struct hr_item *item = &job->items[n];

		job->keys[n] = key_pick(life, job, n, true);
		if (job->keys[n] == KEYS) {
			break;
		}
		item->key = life->keys[job->keys[n]].name;
		item->key_len = (uint32_t)strlen(item->key);
		item->route = life->keys[job->keys[n]].route;
		item->flags = HR_ITEM_ROUTE;
		if (!changes && prng_below(&life->prng, 4) == 0) {
			item->flags = HR_ITEM_ALL_SHARDS;
		}
		if (op == HR_OP_PUT) {
			item_put(life, job, n);
		} else if (op == HR_OP_GET) {
			item_get(life, job, n);
		}
	}
	if (n == 0) {
		return;
	}
	for (unsigned i = 0; i < n; i++) {
		life->keys[job->keys[i]].busy++;
	}
	job->used = true;
	job->batch = (struct core_batch){ .space = life->w.space,
					  .op = op,
					  .items = job->items,
					  .item_size = sizeof(struct hr_item),
					  .items_count = n,
					  .deadline_us = prng_below(&life->prng, 8) == 0
							     ? 500
							     : 20 * 1000 * 1000,
					  .ack = (uint8_t)prng_below(&life->prng, 2),
					  .lease_ms = op == HR_OP_EXISTS ? 100 : 0 };
	core_submit(life->w.core, &job->batch);
}

static void
get_judge(struct life *life, struct job *job, unsigned i)
{
	struct key_model *key = &life->keys[job->keys[i]];
	struct hr_item *item = &job->items[i];
	uint8_t *expected;
	bool right = false;

	if (item->status == HR_STATUS_INVALID) {
		assert_true(item->object_off > 0);
		return;
	}
	if (item->status != HR_STATUS_OK) {
		/* Nothing is ever evicted here: a block that is surely there is missed only for a reason that says so. */
		assert_true(!key->surely || item->reason == HR_REASON_DEADLINE ||
			    item->reason == HR_REASON_DOWN || item->reason == HR_REASON_CANCELLED);
		return;
	}
	assert_true(item->len <= BLOCK_MAX && item->bytes <= item->iov[0].iov_len);
	expected = malloc(item->bytes + 1);
	for (unsigned v = 0; v < key->versions_count && !right; v++) {
		uint32_t len = version_len(key->versions[v]);

		if (len != item->len || job->from[i] > len ||
		    item->bytes != HR_MIN(item->iov[0].iov_len, len - job->from[i])) {
			continue;
		}
		version_bytes(key->versions[v], job->from[i], expected, item->bytes);
		right = memcmp(expected, job->bufs[i], item->bytes) == 0;
	}
	free(expected);
	assert_true(right);
	life->gets_ok++;
	life->parts_ok += item->bytes > MiB(4);
}

static void
put_judge(struct life *life, struct job *job, unsigned i)
{
	struct key_model *key = &life->keys[job->keys[i]];
	struct hr_item *item = &job->items[i];

	if (item->status != HR_STATUS_OK) {
		may_hold(key, job->versions[i]); /* it may have arrived all the same */
		life->ends_early += item->reason == HR_REASON_DEADLINE ||
				    item->reason == HR_REASON_DOWN;
		return;
	}
	life->puts_ok++;
	if ((item->flags & HR_ITEM_DUPLICATE) == 0 && (item->flags & HR_PUT_REPLACE) != 0) {
		/* A PUT that was given up before may still complete later, on a connection that was cut, only before this one. */
		key->versions_count = 0;
	}
	if ((item->flags & HR_ITEM_DUPLICATE) == 0) {
		if (key->versions_count > 0 && (item->flags & HR_PUT_REPLACE) == 0) {
			key->versions_count = 0; /* it was absent */
		}
		may_hold(key, job->versions[i]);
	}
	key->surely = true;
}

static void
job_judge(struct life *life, struct job *job)
{
	assert_true(job->used);
	for (unsigned i = 0; i < job->batch.items_count; i++) {
		struct key_model *key = &life->keys[job->keys[i]];
		struct hr_item *item = &job->items[i];

		switch (job->batch.op) {
		case HR_OP_PUT:
			put_judge(life, job, i);
			break;
		case HR_OP_GET:
			get_judge(life, job, i);
			break;
		case HR_OP_DELETE:
			if (item->status == HR_STATUS_OK || item->reason == HR_REASON_ABSENT ||
			    item->reason == HR_REASON_DELETED) {
				key->versions_count = 0;
				key->surely = false;
				life->deletes_ok += item->status == HR_STATUS_OK;
			} else {
				key->surely = false;
			}
			break;
		default:
			if (item->status == HR_STATUS_OK) {
				assert_true(key->versions_count > 0);
			} else {
				assert_true(!key->surely || item->reason == HR_REASON_DEADLINE ||
					    item->reason == HR_REASON_DOWN ||
					    item->reason == HR_REASON_CANCELLED);
			}
			break;
		}
		key->busy--;
		free(job->bufs[i]);
	}
	job->used = false;
}

static bool
has_done(void *arg)
{
	return !list_empty(&((struct life *)arg)->w.core->done);
}

static void
jobs_reap(struct life *life)
{
	struct core_batch *batch;

	while ((batch = core_reap(life->w.core)) != NULL) {
		job_judge(life, container_of(batch, struct job, batch));
	}
}

/* Everything that is under way ends, and what the node still does of it, too. */
static void
life_settle(struct life *life)
{
	for (bool more = true; more;) {
		more = false;
		for (int i = 0; i < JOBS_MAX; i++) {
			more |= life->jobs[i].used;
		}
		if (more) {
			assert_true(has_done(life) ||
				    sim_run(life->w.sim, has_done, life, 60 * 1000 * 1000));
			jobs_reap(life);
		}
	}
	(void)sim_run(life->w.sim, never, NULL, 500 * 1000);
}

static uint64_t
life_run(uint64_t seed, unsigned steps, bool trouble, struct life *life)
{
	memset(life, 0, sizeof(*life));
	prng_init(&life->prng, seed);
	for (unsigned k = 0; k < KEYS; k++) {
		(void)snprintf(life->keys[k].name, sizeof(life->keys[k].name), "key-%u", k);
		life->keys[k].route = prng_u64(&life->prng);
	}
	world_begin(&life->w, seed);
	for (unsigned step = 0; step < steps; step++) {
		struct job *job = &life->jobs[prng_below(&life->prng, JOBS_MAX)];
		unsigned what = (unsigned)prng_below(&life->prng, 100);

		if (!job->used) {
			job_begin(life, job);
		} else if (what < 5 && trouble) {
			core_cancel(life->w.core, &job->batch);
		}
		if (what == 99 && trouble) {
			sim_net_break_all(life->w.sim);
			/* A PUT whose answer was lost may still be on its way through the node: nothing is asked of its key before it is over. */
			life_settle(life);
		}
		(void)sim_run(life->w.sim, has_done, life, prng_below(&life->prng, 2000));
		jobs_reap(life);
	}
	life_settle(life);
	return world_end(&life->w);
}

/* Without trouble every operation succeeds, and is right. */
static void
test_quiet_life(void **state)
{
	struct life life;

	(void)state;
	(void)life_run(7, 600, false, &life);
	assert_true(life.gets_ok > 50 && life.puts_ok > 50 && life.deletes_ok > 5);
	assert_true(life.parts_ok > 0);
}

/* The same seed gives the same trace; another gives another. HEADRACE_SEED adds one of one's own. */
static void
test_seeds(void **state)
{
	const char *own = getenv("HEADRACE_SEED");
	uint64_t seed = own != NULL ? strtoull(own, NULL, 0) : 1;
	struct life life;
	uint64_t hash = life_run(seed, 400, true, &life);

	(void)state;
	printf("# seed %llu: hash %016llx, %u gets, %u puts, %u deletes, %u ended early\n",
	       (unsigned long long)seed, (unsigned long long)hash, life.gets_ok, life.puts_ok,
	       life.deletes_ok, life.ends_early);
	assert_true(life_run(seed, 400, true, &life) == hash);
	assert_true(life_run(seed + 1, 400, true, &life) != hash);
}

/* Many short lives with trouble. */
static void
test_many_lives(void **state)
{
	struct life life;

	(void)state;
	for (uint64_t seed = 100; seed < 112; seed++) {
		printf("# seed %llu\n", (unsigned long long)seed);
		(void)life_run(seed, 200, true, &life);
	}
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_quiet_life),
		cmocka_unit_test(test_seeds),
		cmocka_unit_test(test_many_lives),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
