/* bulk.c — see bulk.h. */
#include "lib/bulk.h"

#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>

#include "base/crc.h"
#include "base/prng.h"
#include "cli/trace.h"
#include "cli/trace_sim.h"
#include "engine/superblock.h"
#include "io/sim.h"

enum {
	PAGE_BYTES = 4096,
	CHUNK_BYTES = 65536,
	CRCS_MAX = 64,
	GETS_MAX = 64,	  /* at a time */
	META_PAGES = 256, /* superblock and space tables, at the front of the slice */
	WAIT_US_MAX = 60 * 1000000,
	LEASE_MS = 10000,
};

/* The first word of every page of a value; nothing else begins so. */
#define VALUE_MAGIC UINT64_C(0x9d1f5c0fa5e3b761)

struct get_slot {
	struct engine_get get;
	struct bulk *bulk;
	uint32_t number;
	uint8_t *ok;
	bool busy;
};

struct bulk {
	struct bulk_options options;
	uint32_t pages_a_value;
	struct sim *sim;
	struct io *io;
	struct io_device *device;
	struct superblock slices[SLICES_MAX];
	struct engine *engine;
	struct engine_owner *owner;
	struct space_row *space;
	uint32_t *page_numbers; /* of each page of the device: number × pages_a_value + page + 1 of the value's page there; 0 = none */
	uint8_t *value;
	uint32_t puts_now;
	uint32_t gets_now;
	struct get_slot gets[GETS_MAX];
	struct bulk_counters counters;
	bool answered;
	int rc;
};

/* -- the device ------------------------------------------------------------------------------------------------------------- */

static bool
keep_page(void *arg, uint64_t off, const void *page)
{
	struct bulk *bulk = arg;
	uint64_t no = off / PAGE_BYTES;
	bool is_value = get_le64(page) == VALUE_MAGIC;
	bool keep = !is_value && (!bulk->options.forget_descriptors || no < META_PAGES);

	if (bulk->page_numbers != NULL) {
		bulk->page_numbers[no] = is_value ? (uint32_t)get_le64((const uint8_t *)page + 8)
						  : 0;
	}
	bulk->counters.pages_kept += keep && !is_all_zero(page, PAGE_BYTES);
	return keep;
}

static void
page_fill(uint8_t *page, uint32_t page_number)
{
	put_le64(page, VALUE_MAGIC);
	put_le64(page + 8, page_number);
}

static void
make_page(void *arg, uint64_t off, void *ret_page)
{
	const struct bulk *bulk = arg;

	memset(ret_page, 0, PAGE_BYTES);
	if (bulk->page_numbers[off / PAGE_BYTES] != 0) {
		page_fill(ret_page, bulk->page_numbers[off / PAGE_BYTES]);
	}
}

/* -- life ------------------------------------------------------------------------------------------------------------------- */

static bool
is_answered(void *arg)
{
	return ((struct bulk *)arg)->answered;
}

static void
answer_wait(struct bulk *bulk)
{
	HR_ASSERT(sim_run(bulk->sim, is_answered, bulk, WAIT_US_MAX));
	bulk->answered = false;
	HR_ASSERTF(bulk->rc == 0, "%d", bulk->rc);
}

static void
on_ready(void *arg, int rc, const struct recover_result *result)
{
	struct bulk *bulk = arg;

	(void)result;
	bulk->rc = rc;
	bulk->answered = true;
}

static void
on_space(void *arg, int rc, struct space_row *row)
{
	struct bulk *bulk = arg;

	bulk->rc = rc;
	bulk->space = row;
	bulk->answered = true;
}

static void
on_stopped(void *arg)
{
	((struct bulk *)arg)->answered = true;
}

static void
on_failed(void *arg, int rc)
{
	(void)arg;
	HR_ASSERTF(false, "the engine failed: %d", rc);
}

static void
device_make(struct bulk *bulk)
{
	struct sim_device_options device = {
		.kind = SIM_DEVICE_PAYLOAD_FREE,
		.size_bytes = bulk->options.device_bytes,
		.latency_us_min = 60,
		.latency_us_max = 120,
		.bytes_per_second = UINT64_C(3) << 30,
		.block_device = true,
		.keep_page = keep_page,
		.make_page = make_page,
		.arg = bulk,
	};
	struct format_options format = { .segment_bytes = bulk->options.segment_bytes };
	struct io_options io = { .disk = IO_DISK_SIM, .net = IO_NET_SIM };
	char detail[DETAIL_BYTES] = "";
	int rc;

	HR_ASSERT(sim_create(bulk->options.seed, &bulk->sim) == 0);
	HR_ASSERT(sim_device_add(bulk->sim, "disk", &device) == 0);
	io.sim = bulk->sim;
	HR_ASSERT(io_create(&io, &bulk->io) == 0);
	rc = device_format(bulk->io, "disk", &format, detail);
	HR_ASSERTF(rc == 0, "%d: %s", rc, detail);
}

static void
engine_begin(struct bulk *bulk)
{
	static const uint8_t tenant[16];
	const uint8_t digest[32] = { 1 };
	char detail[DETAIL_BYTES] = "";
	uint32_t count;
	int rc;

	HR_ASSERT(io_device_open(bulk->io, "disk", 0, &bulk->device) == 0);
	rc = device_superblocks_read(bulk->io, bulk->device, bulk->slices, &count, detail);
	HR_ASSERTF(rc == 0, "%d: %s", rc, detail);
	bulk->options.engine.on_failed = on_failed;
	HR_ASSERT(engine_create(bulk->io, bulk->device, &bulk->slices[0], &bulk->options.engine,
				&bulk->engine) == 0);
	rc = engine_start(bulk->engine, on_ready, bulk, detail);
	HR_ASSERTF(rc == 0, "%d: %s", rc, detail);
	answer_wait(bulk);
	engine_space_open(bulk->engine, tenant, digest, "bulk", on_space, bulk);
	answer_wait(bulk);
	HR_ASSERT(engine_owner_create(bulk->engine, engine_tenant_number(bulk->engine, tenant),
				      &bulk->owner) == 0);
}

static size_t
numbers_bytes(const struct bulk *bulk)
{
	return bulk->options.device_bytes / PAGE_BYTES * sizeof(uint32_t);
}

struct bulk *
bulk_create(const struct bulk_options *options)
{
	struct bulk *bulk = calloc(1, sizeof(*bulk));

	HR_ASSERT(bulk != NULL && options->value_bytes % PAGE_BYTES == 0);
	bulk->options = *options;
	bulk->pages_a_value = options->value_bytes / PAGE_BYTES;
	bulk->value = calloc(1, options->value_bytes);
	/* Shared memory, so that it is not mistaken for the engine's (RssAnon). */
	bulk->page_numbers = mmap(NULL, numbers_bytes(bulk), PROT_READ | PROT_WRITE,
				  MAP_SHARED | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	HR_ASSERT(bulk->value != NULL && bulk->page_numbers != MAP_FAILED);
	device_make(bulk);
	engine_begin(bulk);
	return bulk;
}

void
bulk_destroy(struct bulk *bulk)
{
	if (bulk == NULL) {
		return;
	}
	engine_owner_destroy(bulk->engine, bulk->owner);
	engine_stop(bulk->engine, on_stopped, bulk);
	answer_wait(bulk);
	engine_destroy(bulk->engine);
	io_device_close(bulk->device);
	io_destroy(bulk->io);
	sim_destroy(bulk->sim);
	(void)munmap(bulk->page_numbers, numbers_bytes(bulk));
	free(bulk->value);
	free(bulk);
}

struct engine *
bulk_engine(struct bulk *bulk)
{
	return bulk->engine;
}

static bool
is_never(void *arg)
{
	(void)arg;
	return false;
}

void
bulk_pass(struct bulk *bulk, uint64_t us)
{
	(void)sim_run(bulk->sim, is_never, NULL, us);
}

void
bulk_flush(struct bulk *bulk)
{
	bulk_puts_wait(bulk);
	bulk_pass(bulk, 1000000); /* Far beyond a linger. */
}

void
bulk_counters_get(const struct bulk *bulk, struct bulk_counters *ret)
{
	*ret = bulk->counters;
}

/* -- PUT -------------------------------------------------------------------------------------------------------------------- */

static void
id_make(uint32_t number, uint8_t ret_id[16])
{
	uint64_t state = number;

	put_le64(ret_id, splitmix64(&state));
	put_le64(ret_id + 8, splitmix64(&state));
}

static uint32_t
page_number(const struct bulk *bulk, uint32_t number, uint32_t page)
{
	return number * bulk->pages_a_value + page + 1;
}

static void
on_put(void *arg, const struct engine_put_result *result)
{
	struct bulk *bulk = arg;

	bulk->puts_now--;
	bulk->counters.puts += result->status == HR_STATUS_OK && !result->duplicate;
	bulk->counters.put_duplicates += result->duplicate;
	bulk->counters.put_refused += result->status != HR_STATUS_OK;
}

void
bulk_put(struct bulk *bulk, uint32_t number, uint32_t ttl_ms)
{
	uint32_t bytes = bulk->options.value_bytes;
	struct iovec iov = { bulk->value, bytes };
	struct engine_put_args args = {
		.space = bulk->space,
		.owner = bulk->owner,
		.key = (const uint8_t *)&number,
		.key_bytes = sizeof(number),
		.parts_count = 1,
		.stored_bytes = bytes,
		.block_bytes = bytes,
		.ttl_ms = ttl_ms,
		.ack = HR_ACK_RAM,
	};
	uint32_t crcs[CRCS_MAX];
	struct engine_put *put;
	const struct iovec *to;
	enum hr_reason reason;
	unsigned to_count;
	size_t at = 0;

	for (uint32_t page = 0; page < bulk->pages_a_value; page++) {
		page_fill(bulk->value + (size_t)page * PAGE_BYTES, page_number(bulk, number, page));
	}
	id_make(number, args.id);
	args.route = get_le64(args.id);
	args.crcs = crcs;
	args.crcs_count = (uint32_t)crc32c_chunks(&iov, 1, CHUNK_BYTES, crcs);
	while ((reason = engine_put_begin(bulk->engine, &args, &put)) == HR_REASON_BUSY) {
		bulk->counters.put_busy_retries++;
		bulk_pass(bulk, 100);
	}
	HR_ASSERTF(reason == HR_REASON_NONE, "reason %d", (int)reason);
	to = engine_put_iov(put, &to_count);
	for (unsigned i = 0; i < to_count; i++) {
		memcpy(to[i].iov_base, bulk->value + at, to[i].iov_len);
		at += to[i].iov_len;
	}
	HR_ASSERT(at == bytes);
	bulk->puts_now++;
	engine_put_commit(bulk->engine, put, on_put, bulk);
}

static bool
puts_are_done(void *arg)
{
	return ((struct bulk *)arg)->puts_now == 0;
}

void
bulk_puts_wait(struct bulk *bulk)
{
	HR_ASSERT(sim_run(bulk->sim, puts_are_done, bulk, WAIT_US_MAX));
}

/* -- EXISTS, GET ------------------------------------------------------------------------------------------------------------ */

bool
bulk_exists(struct bulk *bulk, uint32_t number, uint32_t lease_ms)
{
	struct engine_exists_result result;
	uint8_t id[16];

	id_make(number, id);
	engine_exists(bulk->engine, bulk->space, id, lease_ms, bulk->owner, &result);
	return result.present;
}

void
bulk_release(struct bulk *bulk, uint32_t number)
{
	uint8_t id[16];

	id_make(number, id);
	engine_release(bulk->engine, bulk->space, id, bulk->owner);
}

/* The engine has compared every byte with the CRCs that were written; whose bytes they are is told by the pages themselves. */
static bool
value_is_of(const struct bulk *bulk, const struct engine_get *get, uint32_t number)
{
	struct iovec iov[ARENA_IOV_MAX];
	unsigned count = arena_iov_slice(&get->entry->buf, 0, bulk->options.value_bytes, iov);
	uint32_t page = 0;

	for (unsigned i = 0; i < count; i++) {
		for (size_t off = 0; off < iov[i].iov_len; off += PAGE_BYTES, page++) {
			const uint8_t *at = (const uint8_t *)iov[i].iov_base + off;

			if (get_le64(at) != VALUE_MAGIC ||
			    get_le64(at + 8) != page_number(bulk, number, page)) {
				return false;
			}
		}
	}
	return page == bulk->pages_a_value;
}

static void
on_get(struct engine_get *get)
{
	struct get_slot *slot = container_of(get, struct get_slot, get);
	struct bulk *bulk = slot->bulk;
	bool right;

	bulk->counters.gets++;
	if (get->status == HR_STATUS_OK) {
		right = value_is_of(bulk, get, slot->number);
		*slot->ok = right;
		bulk->counters.get_wrong += !right;
		engine_get_done(bulk->engine, get);
	}
	slot->busy = false;
	bulk->gets_now--;
}

static bool
get_may_begin(void *arg)
{
	return ((struct bulk *)arg)->gets_now < GETS_MAX;
}

static bool
gets_are_done(void *arg)
{
	return ((struct bulk *)arg)->gets_now == 0;
}

static void
get_begin(struct bulk *bulk, uint32_t number, uint8_t *ret_ok)
{
	struct get_slot *slot = bulk->gets;

	HR_ASSERT(sim_run(bulk->sim, get_may_begin, bulk, WAIT_US_MAX));
	while (slot->busy) {
		slot++;
	}
	*ret_ok = 0;
	*slot = (struct get_slot){ .bulk = bulk, .number = number, .ok = ret_ok, .busy = true };
	slot->get.space = bulk->space;
	slot->get.block_bytes = bulk->options.value_bytes;
	slot->get.cb = on_get;
	id_make(number, slot->get.id);
	bulk->gets_now++;
	if (engine_get(bulk->engine, &slot->get)) {
		on_get(&slot->get);
	}
}

void
bulk_gets(struct bulk *bulk, const uint32_t *numbers, size_t count, uint8_t *ret_ok)
{
	for (size_t i = count; i > 0; i--) {
		get_begin(bulk, numbers[i - 1], &ret_ok[i - 1]);
	}
	HR_ASSERT(sim_run(bulk->sim, gets_are_done, bulk, WAIT_US_MAX));
}

/* -- replaying a trace ------------------------------------------------------------------------------------------------------- */

/* Returns how many blocks of the prefix came. */
static size_t
request_run(struct bulk *bulk, const uint32_t *nodes, size_t count, uint8_t *ok)
{
	size_t prefix = 0, present, hits = 0;

	for (present = 0; present < count; present++) {
		bool there = bulk_exists(bulk, nodes[present], LEASE_MS);

		prefix += there && prefix == present;
	}
	bulk_gets(bulk, nodes, prefix, ok);
	while (hits < prefix && ok[hits]) {
		hits++;
	}
	for (size_t i = count; i > hits; i--) {
		bulk_put(bulk, nodes[i - 1], 0);
	}
	bulk_puts_wait(bulk);
	for (size_t i = 0; i < count; i++) {
		bulk_release(bulk, nodes[i]);
	}
	return hits;
}

void
bulk_replay(struct bulk *bulk, const struct trace *trace, uint64_t pause_us, struct bulk_replay *ret)
{
	uint32_t *nodes = calloc(trace->blocks_count_max, sizeof(*nodes));
	uint8_t *ok = calloc(trace->blocks_count_max, 1);
	struct bulk_counters before = bulk->counters;

	HR_ASSERT(nodes != NULL && ok != NULL);
	*ret = (struct bulk_replay){ 0 };
	for (size_t r = 0; r < trace->requests_count; r++) {
		size_t count = trace_path(trace, &trace->requests[r], nodes);

		ret->refs += count;
		ret->hits += request_run(bulk, nodes, count, ok);
		if (pause_us > 0) {
			bulk_pass(bulk, pause_us);
		}
	}
	ret->lost_after_look = bulk->counters.gets - before.gets - ret->hits;
	free(nodes);
	free(ok);
}

void
bulk_replay_report(struct bulk *bulk, const struct trace *trace, const struct bulk_replay *replay,
		   uint64_t lru_blocks, double *ret_ratio, double *ret_write_amplification)
{
	const struct bulk_counters *c = &bulk->counters;
	struct trace_sim_result lru;
	struct engine_stat s;
	uint64_t values;

	HR_ASSERT(trace_sim_lru(trace, 0, trace->requests_count, lru_blocks, NULL, &lru) == 0);
	engine_stat_get(bulk->engine, &s);
	values = s.payload_bytes + s.reclaim_survivor_bytes;
	*ret_ratio = (double)replay->hits / (double)lru.prefix_hits;
	*ret_write_amplification = (double)s.bytes_written_total / (double)s.payload_bytes;
	printf("trace=%s capacity=%llu segments=%u hits=%llu lru=%llu ratio=%.5f "
	       "write_amplification=%.4f reclaims=%llu survivors=%llu evicted=%llu "
	       "survivor_share=%.4f header_share=%.4f footer_share=%.4f units=%llu "
	       "unit_fill_kib=%llu leased_carried=%llu leases_refused=%llu lost_after_look=%llu "
	       "busy_retries=%llu wrong=%llu\n",
	       trace->name, (unsigned long long)lru_blocks,
	       engine_slice(bulk->engine)->segments_count, (unsigned long long)replay->hits,
	       (unsigned long long)lru.prefix_hits, *ret_ratio, *ret_write_amplification,
	       (unsigned long long)s.reclaims, (unsigned long long)s.reclaim_survivor_records,
	       (unsigned long long)s.reclaim_evicted_blocks,
	       (double)s.reclaim_survivor_bytes / (double)s.payload_bytes,
	       (double)(s.log.unit_bytes_written - values) / (double)s.payload_bytes,
	       (double)(s.log.footer_bytes_written + s.log.mark_bytes_written) /
		   (double)s.payload_bytes,
	       (unsigned long long)s.log.units_written,
	       (unsigned long long)(s.log.unit_bytes_written / s.log.units_written / 1024),
	       (unsigned long long)s.reclaim_carried_leased, (unsigned long long)s.leases_refused,
	       (unsigned long long)replay->lost_after_look, (unsigned long long)c->put_busy_retries,
	       (unsigned long long)c->get_wrong);
}
