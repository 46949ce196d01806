/* engine_rig.h — a shard's store on a simulated device, and calls that run the world until they are answered. For tests. */
#ifndef HR_TESTS_ENGINE_RIG_H
#define HR_TESTS_ENGINE_RIG_H

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/base.h"
#include "base/crc.h"
#include "base/prng.h"
#include "engine/engine.h"
#include "engine/superblock.h"
#include "io/io.h"
#include "io/sim.h"

enum { RIG_WAIT_US = 60 * 1000000, RIG_PART_BYTES = 1 << 20 };

struct rig {
	struct sim *sim;
	struct io *io;
	struct io_device *device;
	struct superblock slices[SLICES_MAX];
	struct engine *engine;
	struct engine_owner *owner;
	struct space_row *space;
	struct engine_options options;
	int failed;
};

static const uint8_t rig_tenant[16];

struct rig_wait {
	bool done;
	int rc;
	struct space_row *row;
	struct engine_put_result put;
	uint8_t reason;
};

static inline bool
rig_is_done(void *arg)
{
	return ((struct rig_wait *)arg)->done;
}

static inline void
rig_until(struct rig *rig, struct rig_wait *w)
{
	assert_true(sim_run(rig->sim, rig_is_done, w, RIG_WAIT_US));
}

static inline void
rig_on_ready(void *arg, int rc, const struct recover_result *result)
{
	struct rig_wait *w = arg;

	(void)result;
	w->rc = rc;
	w->done = true;
}

static inline void
rig_on_space(void *arg, int rc, struct space_row *row)
{
	struct rig_wait *w = arg;

	w->rc = rc;
	w->row = row;
	w->done = true;
}

static inline void
rig_on_done(void *arg)
{
	((struct rig_wait *)arg)->done = true;
}

static inline void
rig_on_failed(void *arg, int rc)
{
	((struct rig *)arg)->failed = rc;
}

static inline void
rig_open(struct rig *rig)
{
	struct rig_wait w = { 0 };
	char detail[DETAIL_BYTES] = "";
	uint8_t digest[32] = { 1 };
	uint32_t count;

	assert_int_equal(io_device_open(rig->io, "disk", 0, &rig->device), 0);
	assert_int_equal(device_superblocks_read(rig->io, rig->device, rig->slices, &count, detail),
			 0);
	rig->options.on_failed = rig_on_failed;
	rig->options.on_failed_arg = rig;
	assert_int_equal(engine_create(rig->io, rig->device, &rig->slices[0], &rig->options,
				       &rig->engine),
			 0);
	assert_int_equal(engine_start(rig->engine, rig_on_ready, &w, detail), 0);
	rig_until(rig, &w);
	assert_int_equal(w.rc, 0);
	w = (struct rig_wait){ 0 };
	engine_space_open(rig->engine, rig_tenant, digest, "test", rig_on_space, &w);
	rig_until(rig, &w);
	assert_int_equal(w.rc, 0);
	rig->space = w.row;
	assert_int_equal(engine_owner_create(rig->engine,
					     engine_tenant_number(rig->engine, rig_tenant),
					     &rig->owner),
			 0);
}

static inline void
rig_close(struct rig *rig)
{
	struct rig_wait w = { 0 };

	engine_owner_destroy(rig->engine, rig->owner);
	engine_stop(rig->engine, rig_on_done, &w);
	rig_until(rig, &w);
	engine_destroy(rig->engine);
	io_device_close(rig->device);
}

static inline void
rig_create(struct rig *rig, uint64_t seed, uint64_t device_bytes, uint64_t segment_bytes)
{
	struct sim_device_options device = {
		.kind = SIM_DEVICE_BYTES,
		.size_bytes = device_bytes,
		.latency_us_min = 20,
		.latency_us_max = 200,
		.block_device = true,
	};
	struct io_options io = { .disk = IO_DISK_SIM, .net = IO_NET_SIM };
	struct format_options format = { .segment_bytes = segment_bytes };
	char detail[DETAIL_BYTES] = "";

	*rig = (struct rig){ .options = { .dram_bytes = 32 << 20 } };
	assert_int_equal(sim_create(seed, &rig->sim), 0);
	assert_int_equal(sim_device_add(rig->sim, "disk", &device), 0);
	io.sim = rig->sim;
	assert_int_equal(io_create(&io, &rig->io), 0);
	assert_int_equal(device_format(rig->io, "disk", &format, detail), 0);
	rig_open(rig);
}

static inline void
rig_destroy(struct rig *rig)
{
	rig_close(rig);
	io_destroy(rig->io);
	sim_destroy(rig->sim);
}

/* ---- blocks: key number and version decide id and bytes ---- */

static inline void
rig_id(uint64_t key, uint8_t id[16])
{
	memset(id, 0, 16);
	put_le64(id, key * UINT64_C(0x9e3779b97f4a7c15));
	put_le64(id + 8, key);
}

static inline void
rig_bytes(uint64_t key, uint64_t version, uint64_t off, uint8_t *buf, size_t len)
{
	uint64_t state = key * 1000003 + version;

	for (size_t i = 0; i < len; i++) {
		uint64_t at = off + i;

		buf[i] = (uint8_t)((state ^ (at >> 12) * 31 ^ at * 7) >> (at & 7));
	}
}

static inline void
rig_on_put(void *arg, const struct engine_put_result *result)
{
	struct rig_wait *w = arg;

	w->put = *result;
	w->done = true;
}

static inline bool
rig_never(void *arg)
{
	(void)arg;
	return false;
}

/* Begins and fills one part; NULL: refused, with the reason. */
static inline struct engine_put *
rig_put_part(struct rig *rig, uint64_t key, uint64_t version, uint64_t block_bytes, uint16_t part,
	     struct engine_put_args *args, enum hr_reason *ret_reason)
{
	uint64_t part_bytes = engine_slice(rig->engine)->part_bytes;
	uint64_t off = part * part_bytes;
	uint32_t n = (uint32_t)HR_MIN(part_bytes, block_bytes - off);
	uint8_t *buf = malloc(n + 1);
	uint32_t crcs[64];
	struct iovec iov = { buf, n };
	struct engine_put *put = NULL;
	const struct iovec *to;
	unsigned to_count;
	size_t at = 0;

	rig_bytes(key, version, off, buf, n);
	rig_id(key, args->id);
	args->space = rig->space;
	args->owner = rig->owner;
	args->route = get_le64(args->id);
	args->key = (const uint8_t *)&key;
	args->key_bytes = sizeof(key);
	args->part = part;
	args->parts_count = (uint16_t)HR_MAX(1, div_round_up(block_bytes, part_bytes));
	args->stored_bytes = n;
	args->block_bytes = block_bytes;
	args->crcs_count = (uint32_t)crc32c_chunks(&iov, 1, 65536, crcs);
	args->crcs = crcs;
	*ret_reason = engine_put_begin(rig->engine, args, &put);
	if (*ret_reason == HR_REASON_NONE) {
		to = engine_put_iov(put, &to_count);
		for (unsigned i = 0; i < to_count; i++) {
			memcpy(to[i].iov_base, buf + at, to[i].iov_len);
			at += to[i].iov_len;
		}
		assert_int_equal(at, n);
	}
	free(buf);
	return *ret_reason == HR_REASON_NONE ? put : NULL;
}

/* The whole block; the answer of the part that completed it. */
static inline struct engine_put_result
rig_put(struct rig *rig, uint64_t key, uint64_t version, uint64_t block_bytes, uint8_t ack,
	bool replace)
{
	uint16_t parts =
	    (uint16_t)HR_MAX(1, div_round_up(block_bytes, engine_slice(rig->engine)->part_bytes));
	static uint64_t number;
	struct engine_put_args args = { .ack = ack, .replace = replace };
	struct rig_wait w = { 0 };
	enum hr_reason reason;

	args.put_number = parts > 1 ? ++number : 0;
	for (uint16_t i = 0; i < parts; i++) {
		struct engine_put *put =
		    rig_put_part(rig, key, version, block_bytes, i, &args, &reason);

		/* Memory is full of what is on its way to flash: simulated time must pass. */
		for (int tries = 0; put == NULL && reason == HR_REASON_BUSY && tries < 1000;
		     tries++) {
			sim_run(rig->sim, rig_never, NULL, 1000);
			put = rig_put_part(rig, key, version, block_bytes, i, &args, &reason);
		}
		if (put == NULL) {
			return (struct engine_put_result){ .status = HR_STATUS_REFUSED,
							   .reason = (uint8_t)reason };
		}
		w = (struct rig_wait){ 0 };
		engine_put_commit(rig->engine, put, rig_on_put, &w);
		assert_false(w.done);
		rig_until(rig, &w);
		if (w.put.status != HR_STATUS_OK) {
			return w.put;
		}
		assert_true(w.put.held == (i + 1 < parts));
	}
	return w.put;
}

static inline void
rig_on_get(struct engine_get *get)
{
	((struct rig_wait *)get->arg)->done = true;
}

/* Reads one part; the status and reason are in *get; the caller ends it with engine_get_done(). */
static inline void
rig_get_part(struct rig *rig, uint64_t key, uint16_t part, struct engine_get *get)
{
	struct rig_wait w = { 0 };

	*get = (struct engine_get){ .space = rig->space,
				    .part = part,
				    .block_bytes = UINT64_MAX,
				    .cb = rig_on_get,
				    .arg = &w };
	rig_id(key, get->id);
	if (!engine_get(rig->engine, get)) {
		rig_until(rig, &w);
	}
}

/* 0 and the version whose bytes these are among [0, versions); -1: bytes of no version; > 0: the reason of the miss. */
static inline int
rig_get(struct rig *rig, uint64_t key, uint64_t versions, uint64_t *ret_version, uint64_t *ret_bytes)
{
	uint64_t part_bytes = engine_slice(rig->engine)->part_bytes;
	uint64_t parts = 1, version = UINT64_MAX;

	for (uint16_t i = 0; i < parts; i++) {
		struct engine_get get;
		struct iovec iov[ARENA_IOV_MAX];
		uint8_t *have, *want;
		size_t n, at = 0;
		unsigned iov_count;

		rig_get_part(rig, key, i, &get);
		if (get.status != HR_STATUS_OK) {
			return get.reason;
		}
		parts = HR_MAX(1, div_round_up(get.len_block, part_bytes));
		*ret_bytes = get.len_block;
		n = get.entry->bytes;
		assert_int_equal(n, HR_MIN(part_bytes, get.len_block - i * part_bytes));
		have = malloc(n + 1);
		want = malloc(n + 1);
		iov_count = arena_iov_slice(&get.entry->buf, 0, (uint32_t)n, iov);
		for (unsigned k = 0; k < iov_count; k++) {
			memcpy(have + at, iov[k].iov_base, iov[k].iov_len);
			at += iov[k].iov_len;
		}
		engine_get_done(rig->engine, &get);
		for (uint64_t v = i == 0 ? 0 : version; n > 0; v++) {
			rig_bytes(key, v, i * part_bytes, want, n);
			if (memcmp(have, want, n) == 0) {
				version = v;
				break;
			}
			if (v + 1 >= versions || i > 0) {
				free(have);
				free(want);
				return -1;
			}
		}
		free(have);
		free(want);
	}
	*ret_version = version;
	return 0;
}

static inline void
rig_on_delete(void *arg, uint8_t reason)
{
	struct rig_wait *w = arg;

	w->reason = reason;
	w->done = true;
}

static inline uint8_t
rig_delete(struct rig *rig, uint64_t key, uint8_t ack)
{
	struct rig_wait w = { 0 };
	uint8_t id[16];

	rig_id(key, id);
	engine_delete(rig->engine, rig->space, id, ack, rig_on_delete, &w);
	rig_until(rig, &w);
	return w.reason;
}

static inline struct engine_exists_result
rig_exists(struct rig *rig, uint64_t key, uint32_t lease_ms)
{
	struct engine_exists_result result;
	uint8_t id[16];

	rig_id(key, id);
	engine_exists(rig->engine, rig->space, id, lease_ms, rig->owner, &result);
	return result;
}

#endif
