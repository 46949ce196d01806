/* test_engine.c — the store of one shard, on a simulated device. */
#include "engine/engine_impl.h"
#include "engine/layout.h"
#include "engine_rig.h"

/* Method: put blocks of sizes around every limit, read them from DRAM, then after a restart from flash. */
static void
test_put_get_sizes(void **state)
{
	static const uint64_t sizes[] = {
		0,     1,	   4095,	  4096,	   4097,	  65535,   65536,
		65537, 900 * 1024, (1 << 20) - 1, 1 << 20, (1 << 20) + 1, 5 << 20, (5 << 20) + 77
	};
	struct rig rig;
	uint64_t version, bytes;

	(void)state;
	rig_create(&rig, 1, MiB(256), MiB(8));
	for (size_t i = 0; i < ARRAY_SIZE(sizes); i++) {
		struct engine_put_result r = rig_put(&rig, i, 0, sizes[i], HR_ACK_STABLE, false);

		assert_int_equal(r.status, HR_STATUS_OK);
		assert_false(r.duplicate);
	}
	for (int round = 0; round < 2; round++) {
		for (size_t i = 0; i < ARRAY_SIZE(sizes); i++) {
			assert_int_equal(rig_get(&rig, i, 1, &version, &bytes), 0);
			assert_int_equal(bytes, sizes[i]);
			assert_int_equal(rig_exists(&rig, i, 0).block_bytes, sizes[i]);
		}
		engine_check(rig.engine);
		assert_int_equal(rig.space->usage_blocks, ARRAY_SIZE(sizes));
		rig_close(&rig);
		rig_open(&rig);
	}
	assert_int_equal(rig_get(&rig, 99, 1, &version, &bytes), HR_REASON_ABSENT);
	rig_destroy(&rig);
}

/* Method: the same key again with the same and with other bytes; then `replace`. */
static void
test_first_wins_and_replace(void **state)
{
	struct rig rig;
	struct engine_put_result r;
	uint64_t version, bytes;

	(void)state;
	rig_create(&rig, 2, MiB(128), MiB(8));
	for (uint64_t size = 10000; size < MiB(4); size *= 200) {
		uint64_t key = size;

		r = rig_put(&rig, key, 0, size, HR_ACK_RAM, false);
		assert_true(r.status == HR_STATUS_OK && !r.duplicate);
		r = rig_put(&rig, key, 0, size, HR_ACK_STABLE, false);
		assert_true(r.status == HR_STATUS_OK && r.duplicate && !r.differs);
		r = rig_put(&rig, key, 1, size, HR_ACK_RAM, false);
		assert_true(r.status == HR_STATUS_OK && r.duplicate && r.differs);
		assert_int_equal(rig_get(&rig, key, 3, &version, &bytes), 0);
		assert_int_equal(version, 0);
		r = rig_put(&rig, key, 2, size + 5, HR_ACK_STABLE, true);
		assert_true(r.status == HR_STATUS_OK && !r.duplicate);
		assert_int_equal(rig_get(&rig, key, 3, &version, &bytes), 0);
		assert_int_equal(version, 2);
		assert_int_equal(bytes, size + 5);
	}
	rig_close(&rig);
	rig_open(&rig);
	assert_int_equal(rig_get(&rig, 10000, 3, &version, &bytes), 0);
	assert_int_equal(version, 2);
	/* A duplicate that differs, told by the flash's bytes. */
	r = rig_put(&rig, 10000, 1, 10005, HR_ACK_RAM, false);
	assert_true(r.status == HR_STATUS_OK && r.duplicate && r.differs);
	engine_check(rig.engine);
	rig_destroy(&rig);
}

/* Method: a PUT number with a block of one part, where it means nothing; none with parts. Neither may hold up who comes behind. */
static void
test_put_numbers(void **state)
{
	struct rig rig;
	struct engine_put_args args = { .put_number = 77, .ack = HR_ACK_STABLE };
	struct engine_put *put;
	struct rig_wait w = { 0 };
	enum hr_reason reason;
	uint64_t version, bytes;

	(void)state;
	rig_create(&rig, 9, MiB(128), MiB(8));
	put = rig_put_part(&rig, 1, 0, 5000, 0, &args, &reason);
	engine_put_commit(rig.engine, put, rig_on_put, &w);
	rig_until(&rig, &w);
	assert_int_equal(w.put.status, HR_STATUS_OK);
	args.put_number = 0;
	assert_null(rig_put_part(&rig, 2, 0, MiB(3), 0, &args, &reason));
	assert_int_equal(reason, HR_REASON_SIZE);
	assert_int_equal(rig_put(&rig, 3, 0, 5000, HR_ACK_STABLE, false).status, HR_STATUS_OK);
	rig_close(&rig);
	rig_open(&rig);
	assert_int_equal(rig_get(&rig, 1, 1, &version, &bytes), 0);
	rig_destroy(&rig);
}

/* A block of two parts under this PUT number. */
static void
put_two_parts(struct rig *rig, uint64_t key, uint64_t version, struct engine_put_args args)
{
	for (uint16_t i = 0; i < 2; i++) {
		struct rig_wait w = { 0 };
		enum hr_reason reason;
		struct engine_put *put =
		    rig_put_part(rig, key, version, MiB(1) + 100, i, &args, &reason);

		assert_non_null(put);
		engine_put_commit(rig->engine, put, rig_on_put, &w);
		rig_until(rig, &w);
		assert_int_equal(w.put.status, HR_STATUS_OK);
	}
}

/* Method: PUT numbers are the callers'. Two blocks whose numbers and ids fold to the same, then one number for two PUTs of one key, of which
 * the older one lies in the newer segment: a start still tells them apart. */
static void
test_put_numbers_of_others(void **state)
{
	struct rig rig;
	struct engine_put_args args = { .put_number = 5, .ack = HR_ACK_STABLE };
	struct rig_wait w = { 0 };
	uint64_t version, bytes;
	uint8_t id[2][16];

	(void)state;
	rig_create(&rig, 12, MiB(96), MiB(8));
	engine_space_set(rig.engine, rig.space, 0, MiB(20), rig_on_space, &w);
	rig_until(&rig, &w);
	rig_id(1, id[0]);
	rig_id(2, id[1]);
	put_two_parts(&rig, 1, 0, args);
	args.put_number = 5 ^ get_le64(id[0]) ^ get_le64(id[1]);
	put_two_parts(&rig, 2, 0, args);
	args.put_number = 6;
	args.pinned = true;
	put_two_parts(&rig, 3, 0, args);
	args.pinned = false;
	args.replace = true;
	put_two_parts(&rig, 3, 1, args);
	rig_close(&rig);
	rig_open(&rig);
	for (uint64_t key = 1; key <= 3; key++) {
		assert_int_equal(rig_get(&rig, key, 2, &version, &bytes), 0);
		assert_int_equal(version, key == 3);
	}
	for (uint64_t k = 1000; k < 3000; k++) {
		assert_int_equal(rig_put(&rig, k, 0, 65536, HR_ACK_RAM, false).status, HR_STATUS_OK);
	}
	engine_check(rig.engine);
	rig_destroy(&rig);
}

/* Method: a caller that begins blocks of many parts and never ends one of them: what the store keeps of them is bounded, and other blocks pass. */
static void
test_unfinished_bounded(void **state)
{
	struct engine_put_args args = { .ack = HR_ACK_RAM };
	struct engine_stat stat;
	struct rig rig;

	(void)state;
	rig_create(&rig, 18, MiB(96), MiB(8));
	for (uint64_t k = 0; k < 10000; k++) {
		struct rig_wait w = { 0 };
		enum hr_reason reason;
		struct engine_put *put;

		args.put_number = k + 1;
		put = rig_put_part(&rig, k, 0, MiB(127) + 1, 127, &args, &reason);
		if (put == NULL) {
			assert_int_equal(reason, HR_REASON_BUSY);
			sim_run(rig.sim, rig_never, NULL, 10000);
			continue;
		}
		engine_put_commit(rig.engine, put, rig_on_put, &w);
		rig_until(&rig, &w);
		assert_true(w.put.status == HR_STATUS_OK || w.put.reason == HR_REASON_BUSY);
	}
	engine_stat_get(rig.engine, &stat);
	assert_int_equal(stat.multipart_unfinished_now, rig.owner->unfinished_count);
	assert_true(stat.multipart_unfinished_now <= 1024);
	assert_int_equal(rig_put(&rig, 20000, 0, 5000, HR_ACK_STABLE, false).status, HR_STATUS_OK);
	rig_destroy(&rig);
}

/* Method: the footer and the first header of the coldest segments cannot be read: they are given up after some tries, and PUTs go on. */
static void
test_victim_unreadable(void **state)
{
	struct rig rig;
	struct engine_stat stat;
	uint64_t first = 0;

	(void)state;
	rig_create(&rig, 10, MiB(96), MiB(8));
	for (uint64_t k = 0; k < 500; k++) {
		assert_int_equal(rig_put(&rig, k, 0, 65536, HR_ACK_STABLE, false).status,
				 HR_STATUS_OK);
	}
	first = rig.slices[0].slice_off_bytes + rig.slices[0].meta_bytes;
	for (uint64_t s = 0; s < 3; s++) {
		sim_device_bad_range(rig.sim, "disk", first + s * MiB(8), 4096);
		sim_device_bad_range(rig.sim, "disk", first + (s + 1) * MiB(8) - 4096, 4096);
	}
	for (uint64_t k = 1000; k < 4000; k++) {
		assert_int_equal(rig_put(&rig, k, 0, 65536, HR_ACK_RAM, false).status, HR_STATUS_OK);
	}
	engine_stat_get(rig.engine, &stat);
	assert_true(stat.reclaim_corrupt >= 3);
	assert_true(stat.reclaims > 10);
	assert_false(rig_exists(&rig, 10, 0).present);
	engine_check(rig.engine);
	rig_destroy(&rig);
}

/* Method: the footers of the coldest segments go bad, and a unit header in the middle of each: what lies behind that header cannot be found
 * any more. It is given up with its segment, PUTs go on, and what is in the index is there. */
static void
test_victim_half_readable(void **state)
{
	struct rig rig;
	uint64_t first, version, bytes;
	uint8_t page[4096];

	(void)state;
	rig_create(&rig, 11, MiB(96), MiB(8));
	for (uint64_t k = 0; k < 500; k++) {
		assert_int_equal(
		    rig_put(&rig, k, 0, k % 50 == 7 ? MiB(2) : 65536, HR_ACK_STABLE, false).status,
		    HR_STATUS_OK);
	}
	first = rig.slices[0].slice_off_bytes + rig.slices[0].meta_bytes;
	for (uint64_t s = 0; s < 3; s++) {
		uint64_t end = first + (s + 1) * MiB(8);

		assert_int_equal(sim_device_peek(rig.sim, "disk", end - 4096, page, 4096), 0);
		page[4096 - 30] ^= 1;
		assert_int_equal(sim_device_poke(rig.sim, "disk", end - 4096, page, 4096), 0);
		for (uint64_t off = first + s * MiB(8) + MiB(3); off < end; off += 4096) {
			assert_int_equal(sim_device_peek(rig.sim, "disk", off, page, 4096), 0);
			if (memcmp(page, "HRUNIT01", 8) == 0) {
				page[50] ^= 1;
				assert_int_equal(sim_device_poke(rig.sim, "disk", off, page, 4096),
						 0);
				break;
			}
		}
	}
	for (uint64_t k = 1000; k < 4000; k++) {
		assert_int_equal(rig_put(&rig, k, 0, 65536, HR_ACK_RAM, false).status, HR_STATUS_OK);
	}
	for (uint64_t k = 0; k < 500; k++) {
		assert_true(rig_get(&rig, k, 1, &version, &bytes) >= 0);
	}
	engine_check(rig.engine);
	rig_destroy(&rig);
}

struct listing_seen {
	bool done;
	uint64_t cursor;
	uint64_t keys; /* a bit each */
};

static void
on_listed(void *arg, int rc, uint64_t cursor_next, const struct engine_list_entry *entries,
	  uint32_t count)
{
	struct listing_seen *seen = arg;

	assert_int_equal(rc, 0);
	for (uint32_t i = 0; i < count; i++) {
		uint64_t key = get_le64(entries[i].key);

		if (key < 8) {
			assert_false(seen->keys >> key & 1);
			seen->keys |= UINT64_C(1) << key;
		}
	}
	seen->cursor = cursor_next;
	seen->done = true;
}

/* Method: blocks that were acknowledged in DRAM a moment ago are on their way to flash while LIST goes over the segments: each is seen, once. */
static void
test_list_sees_what_is_pending(void **state)
{
	struct rig rig;

	(void)state;
	rig_create(&rig, 14, MiB(96), MiB(8));
	for (uint64_t k = 100; k < 1600; k++) {
		rig_put(&rig, k, 0, 65536, HR_ACK_RAM,
			false); /* Behind the open segment there is something to read. */
	}
	for (uint64_t wait_us = 0; wait_us < 5000; wait_us += 50) {
		struct listing_seen seen = { 0 };

		for (uint64_t k = 0; k < 8; k++) {
			rig_put(&rig, k, 0, 5000, HR_ACK_RAM, false);
		}
		sim_run(rig.sim, rig_never, NULL, wait_us);
		do {
			seen.done = false;
			engine_list(rig.engine, rig.space, seen.cursor, 50, on_listed, &seen);
			rig_until(&rig, (struct rig_wait *)&seen);
		} while (seen.cursor != 0);
		assert_int_equal(seen.keys, 0xff);
		for (uint64_t k = 0; k < 8; k++) {
			rig_delete(&rig, k, HR_ACK_RAM);
		}
	}
	rig_destroy(&rig);
}

struct endless_list {
	struct rig *rig;
	struct rig_wait end;
	bool stop;
};

static void
on_listed_again(void *arg, int rc, uint64_t cursor_next, const struct engine_list_entry *entries,
		uint32_t count)
{
	struct endless_list *list = arg;

	(void)entries;
	(void)count;
	assert_int_equal(rc, 0);
	if (list->stop) {
		list->end.done = true;
	} else {
		/* Not from the start, which would flush. */
		engine_list(list->rig->engine, list->rig->space, HR_MAX(cursor_next, 1u), 4096,
			    on_listed_again, list);
	}
}

/* Method: LIST goes round and round while reclaim frees and uses the segments that it reads: none of their footers is damaged. */
static void
test_list_beside_reclaim(void **state)
{
	struct endless_list list = { 0 };
	struct engine_stat stat;
	struct rig rig;

	(void)state;
	rig_create(&rig, 17, MiB(96), MiB(8));
	list.rig = &rig;
	for (uint64_t k = 100; k < 9000; k++) {
		rig_put(&rig, k, 0, 65536, HR_ACK_RAM, false);
		if (k == 1000) {
			engine_list(rig.engine, rig.space, 1, 4096, on_listed_again, &list);
		}
	}
	list.stop = true;
	rig_until(&rig, &list.end);
	engine_stat_get(rig.engine, &stat);
	assert_true(stat.reclaims > 40);
	assert_int_equal(stat.log.footers_damaged, 0);
	rig_destroy(&rig);
}

/* Keys of the rig whose ids have one tag in the index of seed 1 (found by trying 2^25 of them). */
static const uint64_t one_tag[][2] = { { 1528077, 20032524 },
				       { 1632363, 8591294 },
				       { 16514646, 29847163 },
				       { 9968603, 21816293 },
				       { 29551809, 31791027 } };

/* The version of each of the two, or -1: it is not there. */
static void
two_check(struct rig *rig, const uint64_t keys[2], int first, int second)
{
	const int wanted[2] = { first, second };
	uint64_t version, bytes, present = 0;

	for (unsigned i = 0; i < 2; i++) {
		int rc = rig_get(rig, keys[i], 3, &version, &bytes);

		if (wanted[i] < 0) {
			assert_true(rc > 0);
			continue;
		}
		assert_int_equal(rc, 0);
		assert_int_equal(bytes == 0 ? 0 : version, wanted[i]);
		assert_true(rig_exists(rig, keys[i], 0).present);
		present++;
	}
	assert_int_equal(rig->space->usage_blocks, present);
}

static void
two_restart(struct rig *rig, bool restart)
{
	if (restart) {
		rig_close(rig);
		rig_open(rig);
	}
}

static void
two_put(struct rig *rig, uint64_t key, uint64_t version, uint64_t block_bytes)
{
	struct engine_put_result r =
	    rig_put(rig, key, version, block_bytes, HR_ACK_STABLE, version > 0);

	assert_int_equal(r.status, HR_STATUS_OK);
	assert_false(r.duplicate);
}

/* Method: two blocks with one tag, of one part, of several and of no bytes, are put, replaced and deleted, from DRAM and, with a restart after each
 * step, from flash: each is the one that its id names. */
static void
test_one_tag(void **state)
{
	static const uint64_t sizes[][2] = { { 5000, 6000 },
					     { MiB(1) + 5000, 6000 },
					     { 0, 6000 },
					     { MiB(1) + 5000, MiB(2) + 7 },
					     { 7000, 0 } };
	struct rig rig;

	(void)state;
	rig_create(&rig, 20, MiB(256), MiB(8));
	rig_close(&rig);
	rig.options.seed = 1;
	rig_open(&rig);
	for (unsigned i = 0; i < 2 * ARRAY_SIZE(sizes); i++) {
		const uint64_t *keys = one_tag[i / 2];
		const uint64_t *bytes = sizes[i / 2];
		bool restart = i % 2 == 0;

		two_put(&rig, keys[0], 0, bytes[0]);
		two_restart(&rig, restart);
		two_put(&rig, keys[1], 0, bytes[1]);
		two_restart(&rig, restart);
		two_check(&rig, keys, 0, 0);
		/* A version of no bytes is like any other. */
		two_put(&rig, keys[0], 1, HR_MAX(bytes[0], 100u));
		two_check(&rig, keys, 1, 0);
		two_restart(&rig, restart);
		two_check(&rig, keys, 1, 0);
		two_put(&rig, keys[1], 1, HR_MAX(bytes[1], 100u));
		two_check(&rig, keys, 1, 1);
		two_restart(&rig, restart);
		two_check(&rig, keys, 1, 1);
		assert_int_equal(rig_delete(&rig, keys[1], HR_ACK_STABLE), HR_REASON_NONE);
		two_check(&rig, keys, 1, -1);
		two_restart(&rig, restart);
		two_check(&rig, keys, 1, -1);
		assert_int_equal(rig_delete(&rig, keys[0], HR_ACK_STABLE), HR_REASON_NONE);
		two_check(&rig, keys, -1, -1);
		rig_close(&rig);
		rig_open(&rig);
		two_check(&rig, keys, -1, -1);
		engine_check(rig.engine);
	}
	rig_destroy(&rig);
}

/* Method: delete, then every kind of restart: what was deleted stays so, and the reason is known while it is remembered. */
static void
test_delete(void **state)
{
	struct rig rig;
	uint64_t version, bytes;

	(void)state;
	rig_create(&rig, 3, MiB(128), MiB(8));
	for (uint64_t k = 0; k < 10; k++) {
		assert_int_equal(
		    rig_put(&rig, k, 0, k < 8 ? 50000 : MiB(3), HR_ACK_STABLE, false).status,
		    HR_STATUS_OK);
	}
	assert_int_equal(rig_delete(&rig, 3, HR_ACK_STABLE), HR_REASON_NONE);
	assert_int_equal(rig_delete(&rig, 9, HR_ACK_STABLE), HR_REASON_NONE);
	assert_int_equal(rig_delete(&rig, 3, HR_ACK_STABLE), HR_REASON_DELETED);
	assert_int_equal(rig_get(&rig, 3, 1, &version, &bytes), HR_REASON_DELETED);
	assert_int_equal(rig_put(&rig, 4, 1, 60000, HR_ACK_STABLE, true).status, HR_STATUS_OK);
	assert_int_equal(rig_delete(&rig, 4, HR_ACK_STABLE), HR_REASON_NONE);
	rig_close(&rig);
	rig_open(&rig);
	assert_int_equal(rig_get(&rig, 3, 1, &version, &bytes), HR_REASON_ABSENT);
	assert_int_equal(rig_get(&rig, 4, 1, &version, &bytes), HR_REASON_ABSENT);
	assert_int_equal(rig_get(&rig, 9, 1, &version, &bytes), HR_REASON_ABSENT);
	assert_int_equal(rig_get(&rig, 8, 1, &version, &bytes), 0);
	assert_int_equal(rig.space->usage_blocks, 7);
	rig_destroy(&rig);
}

/* Method: a block that is stable is deleted at the lower level, then again at the higher one, which finds it absent. The power goes: the second
 * answer was a promise. */
static void
test_delete_twice(void **state)
{
	struct rig rig;
	uint64_t version, bytes;

	(void)state;
	rig_create(&rig, 15, MiB(96), MiB(8));
	for (uint64_t k = 0; k < 50; k++) {
		assert_int_equal(rig_put(&rig, k, 0, 50000, HR_ACK_STABLE, false).status,
				 HR_STATUS_OK);
	}
	for (uint64_t k = 0; k < 50; k++) {
		assert_int_equal(rig_delete(&rig, k, HR_ACK_RAM), HR_REASON_NONE);
	}
	assert_int_equal(rig_delete(&rig, 49, HR_ACK_STABLE), HR_REASON_DELETED);
	sim_power_cut(rig.sim, "disk", SIM_CUT_DROP);
	sim_device_gone(rig.sim, "disk", true);
	rig_close(&rig);
	sim_device_gone(rig.sim, "disk", false);
	rig_open(&rig);
	assert_int_equal(rig_get(&rig, 49, 1, &version, &bytes), HR_REASON_ABSENT);
	rig_destroy(&rig);
}

/* Method: blocks of no bytes are put, deleted and put again within one segment, where all of them have one place. Reclaim carries what is live, with
 * its own birth and TTL, and LIST shows it once, though an older segment keeps the tombstones alive. */
static void
test_empty_blocks(void **state)
{
	struct engine_put_args args = { .pinned = true };
	struct rig rig;
	struct rig_wait w = { 0 };
	struct listing_seen seen = { 0 };
	struct engine_stat stat;
	enum hr_reason reason;

	(void)state;
	rig_create(&rig, 16, MiB(96), MiB(8));
	engine_space_set(rig.engine, rig.space, 0, MiB(20), rig_on_space, &w);
	rig_until(&rig, &w);
	for (uint64_t k = 100; k < 106; k++) {
		struct engine_put *put = rig_put_part(&rig, k, 0, MiB(1), 0, &args, &reason);

		w = (struct rig_wait){ 0 };
		engine_put_commit(rig.engine, put, rig_on_put, &w);
		rig_until(&rig, &w);
	}
	for (uint64_t round = 0; round < 3; round++) {
		for (uint64_t k = 0; k < 8; k++) {
			struct engine_put *put;

			args = (struct engine_put_args){ .ack = HR_ACK_STABLE,
							 .replace = k % 2 == 0,
							 .ttl_ms = round == 0 ? 3600000 : 0 };
			put = rig_put_part(&rig, k, 0, 0, 0, &args, &reason);
			w = (struct rig_wait){ 0 };
			engine_put_commit(rig.engine, put, rig_on_put, &w);
			rig_until(&rig, &w);
			assert_int_equal(w.put.status, HR_STATUS_OK);
			if (round < 2 && k % 2 == 1) {
				rig_delete(&rig, k, HR_ACK_RAM);
			}
		}
	}
	do {
		seen.done = false;
		engine_list(rig.engine, rig.space, seen.cursor, 50, on_listed, &seen);
		rig_until(&rig, (struct rig_wait *)&seen);
	} while (seen.cursor != 0);
	assert_int_equal(seen.keys, 0xff);
	for (uint64_t k = 1000; k < 4000; k++) {
		assert_int_equal(rig_put(&rig, k, 0, 65536, HR_ACK_RAM, false).status, HR_STATUS_OK);
		for (uint64_t j = 0; j < 8 && k % 10 == 0; j++) {
			assert_true(rig_exists(&rig, j, 10000).leased);
		}
	}
	engine_stat_get(rig.engine, &stat);
	assert_true(stat.reclaims > 10);
	rig_close(&rig);
	rig_open(&rig);
	for (uint64_t k = 0; k < 8; k++) {
		struct engine_get get;

		rig_get_part(&rig, k, 0, &get);
		assert_int_equal(get.status, HR_STATUS_OK);
		assert_int_equal(get.expiry_ms, 0);
		engine_get_done(rig.engine, &get);
	}
	engine_check(rig.engine);
	rig_destroy(&rig);
}

/* Method: a block is deleted at the lower level, and put again at the higher one into the next segment. The power goes when that is answered, with
 * the tombstone's unit perhaps still under way. Later the new block is evicted, and the store starts again. */
static void
test_put_over_lost_tombstone(void **state)
{
	(void)state;
	for (uint64_t seed = 0; seed < 20; seed++) {
		struct engine_put_args args = { .ack = HR_ACK_STABLE };
		struct segment_info info;
		struct rig rig;
		struct rig_wait w = { 0 };
		struct engine_put *put;
		enum hr_reason reason;
		uint64_t version, bytes, key = 1000;

		rig_create(&rig, seed, MiB(64), MiB(8));
		rig_put(&rig, 1, 0, 4096, HR_ACK_STABLE, false);
		do {
			rig_put(&rig, key++, 0, 500000, HR_ACK_STABLE, false);
			log_segment_info(rig.engine->log, 0, &info);
		} while (info.data_bytes <=
			 MiB(7)); /* The next value of 1 MiB needs another segment. */
		assert_int_equal(rig_delete(&rig, 1, HR_ACK_RAM), HR_REASON_NONE);
		put = rig_put_part(&rig, 1, 1, MiB(1), 0, &args, &reason);
		engine_put_commit(rig.engine, put, rig_on_put, &w);
		rig_until(&rig, &w);
		assert_int_equal(w.put.status, HR_STATUS_OK);
		sim_power_cut(rig.sim, "disk", SIM_CUT_DROP);
		sim_device_gone(rig.sim, "disk", true);
		rig_close(&rig);
		sim_device_gone(rig.sim, "disk", false);
		rig_open(&rig);
		assert_int_equal(rig_get(&rig, 1, 2, &version, &bytes), 0);
		assert_int_equal(version, 1);
		rig.engine->seg_holds[0]++;
		for (unsigned i = 0; i < 300; i++) {
			rig_put(&rig, key++, 0, 500000, HR_ACK_RAM, false);
		}
		rig.engine->seg_holds[0]--;
		assert_int_equal(rig_get(&rig, 1, 2, &version, &bytes), HR_REASON_EVICTED);
		rig_close(&rig);
		rig_open(&rig);
		assert_int_equal(rig_get(&rig, 1, 2, &version, &bytes), HR_REASON_ABSENT);
		rig_destroy(&rig);
	}
}

/* Method: the write of the space table fails: the device has failed a write, as if it had been a value's. */
static void
test_space_write_fails(void **state)
{
	(void)state;
	for (int what = 0; what < 4; what++) {
		const uint8_t digest[32] = { 77 };
		struct rig_wait w = { 0 };
		struct rig rig;

		rig_create(&rig, 23, MiB(64), MiB(8));
		/* The second write brings the other slot up to date, and nobody waits for it. */
		sim_device_fail_nth(rig.sim, "disk", what == 3 ? 2 : 1, -EIO, false);
		if (what == 0 || what == 3) {
			engine_space_open(rig.engine, rig_tenant, digest, "new", rig_on_space, &w);
		} else if (what == 1) {
			engine_space_set(rig.engine, rig.space, MiB(1), 0, rig_on_space, &w);
		} else {
			engine_space_drop(rig.engine, rig.space, rig_on_space, &w);
		}
		rig_until(&rig, &w);
		assert_int_equal(w.rc, what == 3 ? 0 : -EIO);
		sim_run(rig.sim, rig_never, NULL, 100000);
		assert_int_equal(rig.failed, -EIO);
		rig_destroy(&rig);
	}
}

/* Method: twice as many spaces as the table has rows are opened, most for nothing, some for a block that is deleted. Those that somebody uses or
 * that hold a block stay; the others make room. What is left at a restart is forgotten then. */
static void
test_spaces_come_and_go(void **state)
{
	struct space_row *kept, *full = NULL;
	struct rig rig;
	uint64_t version, bytes;
	uint32_t kept_number;

	(void)state;
	rig_create(&rig, 25, MiB(64), MiB(8));
	kept = rig.space;
	engine_space_ref(kept);
	kept_number = kept->number;
	for (uint32_t i = 0; i < SPACE_ROWS_MAX * 2; i++) {
		const uint8_t digest[32] = { 9, (uint8_t)i, (uint8_t)(i >> 8) };
		struct rig_wait w = { 0 };

		engine_space_open(rig.engine, rig_tenant, digest, "passing", rig_on_space, &w);
		rig_until(&rig, &w);
		assert_int_equal(w.rc, 0);
		if (i % 50 == 0) {
			rig.space = w.row;
			engine_space_ref(w.row);
			assert_int_equal(rig_put(&rig, 1, i, 5000, HR_ACK_RAM, false).status,
					 HR_STATUS_OK);
			if (i == 100) {
				full = w.row;
			} else {
				assert_int_equal(rig_delete(&rig, 1, HR_ACK_RAM), 0);
			}
			engine_space_unref(w.row);
		}
	}
	rig.space = full;
	assert_int_equal(rig_get(&rig, 1, 101, &version, &bytes), 0);
	assert_int_equal(version, 100);
	assert_ptr_equal(engine_space_by_number(rig.engine, kept_number), kept);
	engine_space_unref(kept);
	engine_check(rig.engine);
	rig_destroy(&rig);
}

/* Method: a segment cannot be read when the store starts, and can at the start after that. What was deleted and what was put meanwhile counts. */
static void
test_unreadable_for_one_life(void **state)
{
	struct rig rig;
	uint64_t version, bytes, first;

	(void)state;
	rig_create(&rig, 24, MiB(128), MiB(8));
	for (uint64_t k = 0; k < 300; k++) {
		rig_put(&rig, k, 0, 65536, HR_ACK_STABLE, false);
	}
	first = rig.slices[0].slice_off_bytes + rig.slices[0].meta_bytes;
	rig_close(&rig);
	sim_device_bad_range(rig.sim, "disk", first, 4096);
	sim_device_bad_range(rig.sim, "disk", first + MiB(8) - 4096, 4096);
	rig_open(&rig);
	for (uint64_t k = 5; k < 8; k++) {
		assert_int_equal(rig_get(&rig, k, 1, &version, &bytes), HR_REASON_ABSENT);
	}
	assert_int_equal(rig_delete(&rig, 5, HR_ACK_STABLE), HR_REASON_ABSENT);
	assert_int_equal(rig_put(&rig, 6, 1, 65536, HR_ACK_STABLE, false).duplicate, false);
	rig_close(&rig);
	sim_device_bad_range(rig.sim, "disk", 0, 0);
	rig_open(&rig);
	assert_int_equal(rig_get(&rig, 5, 1, &version, &bytes), HR_REASON_ABSENT);
	assert_int_equal(rig_get(&rig, 6, 2, &version, &bytes), 0);
	assert_int_equal(version, 1);
	assert_int_equal(rig_get(&rig, 7, 1, &version, &bytes), 0);
	rig_destroy(&rig);
}

/* Method: drop, put again in the new generation, restart. */
static void
test_drop(void **state)
{
	struct rig rig;
	struct rig_wait w = { 0 };
	uint64_t version, bytes;

	(void)state;
	rig_create(&rig, 4, MiB(128), MiB(8));
	for (uint64_t k = 0; k < 50; k++) {
		rig_put(&rig, k, 0, 100000, HR_ACK_STABLE, false);
	}
	engine_space_drop(rig.engine, rig.space, rig_on_space, &w);
	assert_int_equal(rig_get(&rig, 7, 1, &version, &bytes), HR_REASON_ABSENT);
	/* Until the drop is durable, nothing in the new generation is promised to be. */
	if (!w.done) {
		struct engine_put_args args = { .ack = HR_ACK_STABLE };
		struct rig_wait early = { 0 };
		enum hr_reason refused;
		struct engine_put *put = rig_put_part(&rig, 9, 1, 5000, 0, &args, &refused);

		engine_put_commit(rig.engine, put, rig_on_put, &early);
		rig_until(&rig, &early);
		assert_int_equal(early.put.reason, HR_REASON_BUSY);
	}
	rig_until(&rig, &w);
	assert_int_equal(w.rc, 0);
	assert_int_equal(rig_put(&rig, 7, 1, 100000, HR_ACK_STABLE, false).status, HR_STATUS_OK);
	assert_int_equal(rig_get(&rig, 7, 2, &version, &bytes), 0);
	assert_int_equal(version, 1);
	rig_close(&rig);
	rig_open(&rig);
	assert_int_equal(rig_get(&rig, 7, 2, &version, &bytes), 0);
	assert_int_equal(version, 1);
	assert_int_equal(rig_get(&rig, 8, 2, &version, &bytes), HR_REASON_ABSENT);
	assert_int_equal(rig.space->usage_blocks, 1);
	engine_check(rig.engine);
	rig_destroy(&rig);
}

/* Method: many more blocks than fit, a few of them read again and again: these stay, write amplification keeps its limit. */
static void
test_reclaim_keeps_the_hot(void **state)
{
	struct rig rig;
	struct engine_stat stat;
	uint64_t version, bytes;
	unsigned hot_lost = 0;

	(void)state;
	rig_create(&rig, 5, MiB(160), MiB(8));
	for (uint64_t k = 0; k < 6000; k++) {
		struct engine_put_result r = rig_put(&rig, k, 0, 65536, HR_ACK_RAM, false);

		assert_int_equal(r.status, HR_STATUS_OK);
		if (k % 4 == 0) {
			int rc = rig_get(&rig, k / 4 % 40, 1, &version, &bytes);

			if (rc == HR_REASON_EVICTED) {
				hot_lost++;
				rig_put(&rig, k / 4 % 40, 0, 65536, HR_ACK_RAM, false);
			} else {
				assert_int_equal(rc, 0);
			}
		}
	}
	engine_stat_get(rig.engine, &stat);
	assert_true(stat.reclaims > 30);
	assert_true(hot_lost < 20);
	assert_true(stat.bytes_written_total * 100 <= stat.payload_bytes * 118);
	assert_int_equal(rig_get(&rig, 1000, 1, &version, &bytes), HR_REASON_EVICTED);
	engine_check(rig.engine);
	rig_destroy(&rig);
}

/* Method: lease old blocks, then write three times the device: they are still there; when the lease has ended they go. */
static void
test_lease(void **state)
{
	struct rig rig;
	uint64_t version, bytes;
	unsigned gone = 0;

	(void)state;
	rig_create(&rig, 6, MiB(160), MiB(8));
	for (uint64_t k = 0; k < 400; k++) {
		rig_put(&rig, k, 0, 65536, HR_ACK_RAM, false);
	}
	for (uint64_t k = 0; k < 400; k += 10) {
		assert_true(rig_exists(&rig, k, 10000).leased);
	}
	for (uint64_t k = 1000; k < 3000; k++) {
		assert_int_equal(rig_put(&rig, k, 0, 65536, HR_ACK_RAM, false).status, HR_STATUS_OK);
	}
	for (uint64_t k = 0; k < 400; k += 10) {
		assert_true(rig_exists(&rig, k, 0).present);
		assert_int_equal(rig_get(&rig, k, 1, &version, &bytes), 0);
	}
	for (uint64_t k = 0; k < 400; k += 10) {
		uint8_t id[16];

		rig_id(k, id);
		engine_release(rig.engine, rig.space, id, rig.owner);
	}
	for (uint64_t k = 3000; k < 7000; k++) {
		rig_put(&rig, k, 0, 65536, HR_ACK_RAM, false);
	}
	for (uint64_t k = 0; k < 400; k += 10) {
		gone += !rig_exists(&rig, k, 0).present;
	}
	assert_true(gone > 30);
	rig_destroy(&rig);
}

/* Method: leases on more blocks of no bytes than a tenant may have pages leased. */
static void
test_leases_of_empty_blocks(void **state)
{
	struct rig rig;
	struct engine_stat stat;
	uint64_t most, leased = 0;

	(void)state;
	rig_create(&rig, 25, MiB(64), MiB(8));
	most = engine_capacity_bytes(rig.engine) / 100 * ENGINE_LEASE_SHARE_PERCENT / 4096;
	for (uint64_t k = 0; k < 2 * most; k++) {
		rig_put(&rig, k, 0, 0, HR_ACK_RAM, false);
		leased += rig_exists(&rig, k, 10000).leased;
	}
	assert_int_equal(leased, most);
	engine_stat_get(rig.engine, &stat);
	assert_int_equal(stat.leases_now, most);
	rig_destroy(&rig);
}

/* Method: the copies of leased blocks in DRAM go bad, as memory does; reclaim carries what flash has. */
static void
test_carried_from_damaged_dram(void **state)
{
	struct rig rig;
	struct engine_stat stat;
	uint64_t version, bytes;

	(void)state;
	rig_create(&rig, 22, MiB(96), MiB(8));
	for (uint64_t k = 0; k < 20; k++) {
		rig_put(&rig, k, 0, 50000, HR_ACK_STABLE, false);
	}
	for (uint64_t k = 1000; k < 3000; k++) {
		rig_put(&rig, k, 0, 65536, HR_ACK_RAM, false);
		for (uint64_t j = 0; j < 20; j++) {
			struct engine_get get;

			assert_true(rig_exists(&rig, j, 10000).leased);
			if (k % 100 == 0) {
				rig_get_part(&rig, j, 0, &get);
				assert_int_equal(get.status, HR_STATUS_OK);
				((uint8_t *)get.entry->buf.iov[0].iov_base)[100] ^= k == 1000 ||
										    get.from_flash;
				engine_get_done(rig.engine, &get);
			}
		}
	}
	engine_stat_get(rig.engine, &stat);
	assert_true(stat.reclaim_survivor_records >= 20);
	rig_close(&rig);
	rig_open(&rig);
	for (uint64_t k = 0; k < 20; k++) {
		assert_int_equal(rig_get(&rig, k, 1, &version, &bytes), 0);
	}
	rig_destroy(&rig);
}

/* Method: a TTL passes on the simulated clock. */
static void
test_ttl(void **state)
{
	struct rig rig;
	struct engine_put_args args = { .ttl_ms = 5000 };
	struct engine_put *put;
	struct rig_wait w = { 0 };
	enum hr_reason reason;
	uint64_t version, bytes;

	(void)state;
	rig_create(&rig, 7, MiB(128), MiB(8));
	rig_put(&rig, 1, 0, 5000, HR_ACK_STABLE, false);
	args.replace = true;
	args.ack = HR_ACK_STABLE;
	put = rig_put_part(&rig, 1, 1, 6000, 0, &args, &reason);
	engine_put_commit(rig.engine, put, rig_on_put, &w);
	rig_until(&rig, &w);
	assert_int_equal(rig_get(&rig, 1, 2, &version, &bytes), 0);
	assert_int_equal(version, 1);
	sim_run(rig.sim, rig_never, NULL, 6000000);
	assert_int_equal(rig_get(&rig, 1, 2, &version, &bytes), HR_REASON_EXPIRED);
	rig_close(&rig);
	rig_open(&rig);
	/* The block that it had replaced does not come back. */
	assert_int_equal(rig_get(&rig, 1, 2, &version, &bytes), HR_REASON_ABSENT);
	rig_destroy(&rig);
}

/* Method: damage the value on flash: a miss that says corrupt, once; the others stay. */
static void
test_corrupt(void **state)
{
	struct rig rig;
	uint64_t version, bytes;
	uint8_t page[4096], want[4096];
	bool hit = false;

	(void)state;
	rig_create(&rig, 8, MiB(128), MiB(8));
	for (uint64_t k = 0; k < 20; k++) {
		rig_put(&rig, k, 0, 4096, HR_ACK_STABLE, false);
	}
	rig_close(&rig);
	rig_bytes(5, 0, 0, want, sizeof(want));
	for (uint64_t off = MiB(1); off < MiB(9) && !hit; off += sizeof(page)) {
		assert_int_equal(sim_device_peek(rig.sim, "disk", off, page, sizeof(page)), 0);
		if (memcmp(page, want, sizeof(page)) == 0) {
			page[1234] ^= 1;
			assert_int_equal(sim_device_poke(rig.sim, "disk", off, page, sizeof(page)),
					 0);
			hit = true;
		}
	}
	assert_true(hit);
	rig_open(&rig);
	for (uint64_t k = 0; k < 20; k++) {
		assert_int_equal(rig_get(&rig, k, 1, &version, &bytes),
				 k == 5 ? HR_REASON_CORRUPT : 0);
	}
	assert_int_equal(rig_put(&rig, 5, 0, 4096, HR_ACK_STABLE, false).duplicate, false);
	assert_int_equal(rig_get(&rig, 5, 1, &version, &bytes), 0);
	rig_destroy(&rig);
}

/* Method: a value that replaced another one is found damaged while the log has no room for a tombstone. Its segment is reclaimed; the other's is
 * still in use when the store starts again. */
static void
test_corrupt_without_room(void **state)
{
	struct rig rig;
	uint64_t version, bytes, key = 1000;
	uint8_t page[4096], want[4096];
	bool hit = false;
	uint32_t segments;

	(void)state;
	rig_create(&rig, 19, MiB(96), MiB(8));
	segments = rig.slices[0].segments_count;
	for (uint32_t i = 0; i < segments; i++) {
		rig.engine->seg_holds[i]++; /* No victim. */
	}
	rig_put(&rig, 1, 0, 4096, HR_ACK_STABLE, false);
	for (unsigned i = 0; i < 130; i++) {
		rig_put(&rig, key++, 0, 65536, HR_ACK_STABLE, false);
	}
	rig_put(&rig, 1, 1, 4096, HR_ACK_STABLE, true);
	while (rig_put(&rig, key++, 0, 65536, HR_ACK_RAM, false).status == HR_STATUS_OK) {
	}
	while (rig_put(&rig, key++, 0, 0, HR_ACK_RAM, false).status == HR_STATUS_OK) {
	}
	rig_bytes(1, 1, 0, want, sizeof(want));
	for (uint64_t off = MiB(1); off < MiB(96) && !hit; off += sizeof(page)) {
		assert_int_equal(sim_device_peek(rig.sim, "disk", off, page, sizeof(page)), 0);
		hit = memcmp(page, want, sizeof(page)) == 0;
		page[1234] ^= 1;
		if (hit) {
			assert_int_equal(sim_device_poke(rig.sim, "disk", off, page, sizeof(page)),
					 0);
		}
	}
	assert_true(hit);
	assert_int_equal(rig_get(&rig, 1, 2, &version, &bytes), HR_REASON_CORRUPT);
	for (uint32_t i = 1; i < segments; i++) {
		rig.engine->seg_holds[i]--;
	}
	for (unsigned i = 0; i < 3000; i++) {
		assert_int_equal(rig_put(&rig, key++, 0, 65536, HR_ACK_RAM, false).status,
				 HR_STATUS_OK);
	}
	rig.engine->seg_holds[0]--;
	rig_close(&rig);
	rig_open(&rig);
	assert_true(rig_get(&rig, 1, 2, &version, &bytes) > 0);
	rig_destroy(&rig);
}

/* Method: several spaces with great budgets pin all they can, each with many puts under way: no more than a quarter of the shard is pinned, and
 * others can still put. */
static void
test_pins_of_all_spaces(void **state)
{
	struct engine_put_args args = { .pinned = true };
	struct rig rig;
	struct space_row *unpinned;
	uint64_t pinned = 0, key = 0;

	(void)state;
	rig_create(&rig, 21, MiB(128), MiB(8));
	unpinned = rig.space;
	for (uint8_t s = 0; s < 5; s++) {
		static struct rig_wait waits[20];
		const uint8_t digest[32] = { 10, s };
		struct rig_wait w = { 0 };
		enum hr_reason reason;

		engine_space_open(rig.engine, rig_tenant, digest, "pins", rig_on_space, &w);
		rig_until(&rig, &w);
		rig.space = w.row;
		w = (struct rig_wait){ 0 };
		engine_space_set(rig.engine, rig.space, 0, MiB(1000), rig_on_space, &w);
		rig_until(&rig, &w);
		for (unsigned round = 0; round < 3; round++) {
			struct engine_put *puts[ARRAY_SIZE(waits)];

			for (unsigned i = 0; i < ARRAY_SIZE(waits); i++) {
				puts[i] = rig_put_part(&rig, key++, 0, MiB(1), 0, &args, &reason);
				assert_true(puts[i] != NULL || reason == HR_REASON_QUOTA ||
					    reason == HR_REASON_BUSY);
			}
			for (unsigned i = 0; i < ARRAY_SIZE(waits); i++) {
				waits[i] = (struct rig_wait){ .done = puts[i] == NULL };
				if (puts[i] != NULL) {
					engine_put_commit(rig.engine, puts[i], rig_on_put,
							  &waits[i]);
				}
			}
			for (unsigned i = 0; i < ARRAY_SIZE(waits); i++) {
				rig_until(&rig, &waits[i]);
			}
		}
		pinned += rig.space->pinned_bytes;
	}
	assert_true(pinned > 0 && pinned <= engine_capacity_bytes(rig.engine) / 4);
	engine_check(rig.engine);
	rig.space = unpinned;
	for (unsigned i = 0; i < 3000; i++) {
		assert_int_equal(rig_put(&rig, key++, 0, 65536, HR_ACK_RAM, false).status,
				 HR_STATUS_OK);
	}
	rig_destroy(&rig);
}

/* Method: random operations against a model, with clean and unclean stops; only right bytes, nothing that was deleted or replaced
 * comes back, what was acknowledged as stable is there unless it was evicted, deleted or replaced. */
enum { MODEL_KEYS = 300, MODEL_VERSIONS = 400 };

struct model {
	uint64_t newest[MODEL_KEYS];	/* version + 1 that counts; 0: none */
	uint64_t oldest_ok[MODEL_KEYS]; /* versions below never come back */
	bool stable[MODEL_KEYS];	/* the newest is stable */
	uint64_t next[MODEL_KEYS];
};

static void
model_check(struct rig *rig, struct model *m, uint64_t key)
{
	uint64_t version, bytes;
	int rc = rig_get(rig, key, MODEL_VERSIONS, &version, &bytes);

	assert_true(rc >= 0);
	if (rc == 0) {
		assert_true(m->newest[key] != 0);
		assert_int_equal(version, m->newest[key] - 1);
	} else if (m->newest[key] != 0) {
		assert_int_equal(rc, HR_REASON_EVICTED);
		m->newest[key] = 0;
	}
}

/* After a power cut: a version that was stable is there, or was evicted before; one that was not may be any that was acknowledged since. */
static void
model_recovered(struct rig *rig, struct model *m, bool clean)
{
	for (uint64_t key = 0; key < MODEL_KEYS; key++) {
		uint64_t version, bytes;
		int rc = rig_get(rig, key, MODEL_VERSIONS, &version, &bytes);

		assert_true(rc >= 0);
		if (rc == 0) {
			assert_true(version < m->next[key]);
			if (clean || m->stable[key]) {
				/* An evicted block may come back, a deleted or replaced one may not. */
				assert_true(version >= m->oldest_ok[key]);
			}
			m->newest[key] = version + 1;
		} else {
			m->newest[key] = 0;
		}
		m->stable[key] = true;
		m->oldest_ok[key] = rc == 0 ? version : m->next[key];
	}
}

static void
run_model(uint64_t seed, bool cuts, unsigned steps)
{
	struct rig rig;
	struct model *m = calloc(1, sizeof(*m));
	struct prng prng;

	prng_init(&prng, seed);
	rig_create(&rig, seed, MiB(96), MiB(8));
	for (unsigned step = 0; step < steps; step++) {
		uint64_t key = prng_below(&prng, MODEL_KEYS);
		uint64_t what = prng_below(&prng, 1000);
		bool stable = prng_below(&prng, 4) == 0;
		uint64_t size = prng_below(&prng, 20) == 0 ? prng_below(&prng, MiB(3))
							   : prng_below(&prng, 300000);
		struct engine_put_result r;

		if (what < 500 && m->next[key] < MODEL_VERSIONS) {
			bool replace = what < 150;

			r = rig_put(&rig, key, m->next[key], HR_MAX(size, 64u),
				    stable ? HR_ACK_STABLE : HR_ACK_RAM, replace);
			assert_int_equal(r.status, HR_STATUS_OK);
			if (!r.duplicate) {
				if (m->newest[key] != 0 && replace) {
					m->oldest_ok[key] = m->next[key];
				}
				m->newest[key] = m->next[key] + 1;
				m->stable[key] = stable;
			} else if (stable) {
				m->stable[key] = true;
			}
			m->next[key]++;
		} else if (what < 600) {
			uint8_t reason = rig_delete(&rig, key, HR_ACK_STABLE);

			assert_true(reason == HR_REASON_NONE || m->newest[key] == 0 ||
				    reason == HR_REASON_EVICTED);
			if (reason == HR_REASON_NONE) {
				m->oldest_ok[key] = m->next[key];
			}
			m->newest[key] = 0;
			m->stable[key] = true;
		} else if (what < 997) {
			model_check(&rig, m, key);
		} else {
			if (cuts && prng_below(&prng, 2) == 0) {
				sim_power_cut(rig.sim, "disk",
					      SIM_CUT_DROP | SIM_CUT_TEAR | SIM_CUT_GARBLE);
				/* Nothing that the process does after the cut reaches the device. */
				sim_device_gone(rig.sim, "disk", true);
				rig_close(&rig);
				sim_device_gone(rig.sim, "disk", false);
				rig_open(&rig);
				model_recovered(&rig, m, false);
			} else {
				rig_close(&rig);
				rig_open(&rig);
				model_recovered(&rig, m, true);
			}
			engine_check(rig.engine);
		}
	}
	engine_check(rig.engine);
	rig_destroy(&rig);
	free(m);
}

static void
test_model(void **state)
{
	(void)state;
	run_model(100, false, 2500);
	run_model(101, true, 2500);
	run_model(102, true, 2500);
}

/* The survivors' unit: nothing else can be written while only they may open a segment. */
static bool
last_segment_written(void *arg)
{
	struct rig *rig = arg;
	struct engine_stat stat;
	struct segment_info info;

	engine_stat_get(rig->engine, &stat);
	for (uint32_t i = 0; stat.log.free_count == 0 && i < rig->slices[0].segments_count; i++) {
		log_segment_info(rig->engine->log, i, &info);
		if (info.state == SEG_OPEN && info.class == CLASS_SURVIVOR && info.data_bytes > 0) {
			return stat.log.units_inflight == 0;
		}
	}
	return false;
}

static bool
only_the_reserve_free(struct rig *rig)
{
	struct engine_stat stat;

	engine_stat_get(rig->engine, &stat);
	return stat.log.free_count <= 1;
}

/* Method: a full store, whose last free segment has gone to copies of leased blocks, loses its process before their victim is free. What was
 * open is sealed half empty, so no segment is free: the store must still take new blocks, though there is no room for a copy. */
static void
test_no_segment_free(void **state)
{
	static struct rig_wait waits[1000];
	struct engine_put_args args = { .ack = HR_ACK_RAM };
	struct engine_stat stat;
	struct engine_put *put;
	enum hr_reason reason;
	struct rig rig;
	uint64_t key = 0;
	uint32_t segments;

	(void)state;
	rig_create(&rig, 9, MiB(96), MiB(8));
	segments = rig.slices[0].segments_count;
	for (uint32_t i = 0; i < segments; i++) {
		rig.engine->seg_holds[i]++; /* No victim. */
	}
	while (!only_the_reserve_free(&rig)) {
		rig_put(&rig, key++, 0, 65536, HR_ACK_RAM, false);
	}
	for (unsigned i = 0; i < 20; i++) { /* So that the newest segment is not empty. */
		rig_put(&rig, key++, 0, 65536, HR_ACK_STABLE, false);
	}
	for (uint64_t k = 0; k < key; k++) {
		rig_exists(&rig, k, 60000);
	}
	for (uint32_t i = 0; i < segments; i++) {
		rig.engine->seg_holds[i]--;
	}
	for (unsigned i = 0; i < ARRAY_SIZE(waits); i++) {
		put = rig_put_part(&rig, key++, 0, 65536, 0, &args, &reason);
		if (put != NULL) {
			engine_put_commit(rig.engine, put, rig_on_put, &waits[i]);
		}
		if (sim_run(rig.sim, last_segment_written, &rig, 1000)) {
			break;
		}
	}
	assert_true(last_segment_written(&rig));
	sim_device_gone(rig.sim, "disk", true);
	rig_close(&rig);
	sim_device_gone(rig.sim, "disk", false);
	rig_open(&rig);
	engine_stat_get(rig.engine, &stat);
	assert_int_equal(stat.log.free_count, 0);
	for (uint64_t k = 0; k < key; k++) {
		rig_exists(&rig, k, 60000);
	}
	for (unsigned i = 0; i < 2000; i++) {
		assert_int_equal(rig_put(&rig, key++, 0, 65536, HR_ACK_RAM, false).status,
				 HR_STATUS_OK);
	}
	engine_check(rig.engine);
	rig_destroy(&rig);
}

/* The last part, of one byte, of a block of two: it is held, and nothing else of it ever comes. */
static struct engine_put_result
unfinished_put(struct rig *rig, uint64_t key)
{
	struct engine_put_args args = { .ack = HR_ACK_RAM, .put_number = key * 7919 + 1 };
	struct rig_wait w = { 0 };
	uint64_t bytes = engine_slice(rig->engine)->part_bytes + 1;
	struct engine_put *put;
	enum hr_reason reason;

	while ((put = rig_put_part(rig, key, 0, bytes, 1, &args, &reason)) == NULL) {
		/* Memory is full of what is on its way to flash. */
		assert_int_equal(reason, HR_REASON_BUSY);
		assert_false(sim_run(rig->sim, rig_never, NULL, 1000));
	}
	engine_put_commit(rig->engine, put, rig_on_put, &w);
	rig_until(rig, &w);
	return w.put;
}

enum part_how { PART_RIGHT, PART_CORRUPT, PART_ABORTED };

/* One part of a block of three; the reason of its answer. */
static uint8_t
part_send(struct rig *rig, uint64_t key, uint16_t part, enum part_how how)
{
	struct engine_put_args args = { .put_number = key };
	uint64_t bytes = engine_slice(rig->engine)->part_bytes * 3;
	struct rig_wait w = { 0 };
	struct engine_put *put;
	enum hr_reason reason;
	unsigned count;

	while ((put = rig_put_part(rig, key, 0, bytes, part, &args, &reason)) == NULL) {
		/* Memory is full of what is on its way to flash. */
		assert_false(sim_run(rig->sim, rig_never, NULL, 1000));
	}
	if (how == PART_ABORTED) {
		engine_put_abort(rig->engine, put);
		return HR_REASON_CANCELLED;
	}
	if (how == PART_CORRUPT) {
		((uint8_t *)engine_put_iov(put, &count)[0].iov_base)[7] ^= 1;
	}
	engine_put_commit(rig->engine, put, rig_on_put, &w);
	rig_until(rig, &w);
	assert_true((w.put.status == HR_STATUS_OK) == (w.put.reason == HR_REASON_NONE));
	return w.put.reason;
}

/* Method: one part of a block of three is refused, in each order and in two ways: the others that come later are refused too, and
 * nothing of the block is kept once all have come. */
static void
test_part_refused(void **state)
{
	static const uint16_t orders[][3] = { { 0, 1, 2 }, { 0, 2, 1 }, { 1, 0, 2 },
					      { 1, 2, 0 }, { 2, 0, 1 }, { 2, 1, 0 } };
	static const uint8_t reasons[] = { HR_REASON_NONE, HR_REASON_CORRUPT, HR_REASON_CANCELLED };
	struct engine_stat stat;
	uint64_t key = 0;
	struct rig rig;

	(void)state;
	rig_create(&rig, 11, MiB(64), MiB(8));
	for (unsigned order = 0; order < ARRAY_SIZE(orders); order++) {
		for (unsigned lost = 0; lost < 6; lost++) {
			enum part_how how = lost % 2 == 0 ? PART_CORRUPT : PART_ABORTED;

			key++;
			for (unsigned i = 0; i < 3; i++) {
				assert_int_equal(part_send(&rig, key, orders[order][i],
							   i == lost / 2 ? how : PART_RIGHT),
						 i == lost / 2	? reasons[how]
						 : i > lost / 2 ? HR_REASON_BUSY
								: HR_REASON_NONE);
			}
			engine_stat_get(rig.engine, &stat);
			assert_int_equal(stat.multipart_unfinished_now, 0);
			assert_int_equal(rig.owner->unfinished_count, 0);
		}
	}
	for (unsigned i = 0; i < rig.slices[0].segments_count; i++) {
		assert_int_equal(rig.engine->seg_holds[i], 0);
	}
	assert_int_equal(rig_put(&rig, ++key, 0, 3 * MiB(1), HR_ACK_STABLE, false).status,
			 HR_STATUS_OK);
	engine_check(rig.engine);
	rig_destroy(&rig);
}

/* Method: many owners begin blocks of two parts and finish none: their number is bounded, nobody is refused for what others began, and
 * where they hold every segment of the device, blocks of others are taken all the same, within seconds. */
static void
test_unfinished(void **state)
{
	enum { OWNERS = 40, UNFINISHED = 1024 };
	struct engine_owner *owners[OWNERS], *own;
	struct engine_put_result result;
	struct engine_stat stat;
	uint64_t began_us, key = 0;
	unsigned count = 0;
	struct rig rig;

	(void)state;
	rig_create(&rig, 10, MiB(64), MiB(8));
	own = rig.owner;
	for (; count < OWNERS; count++) {
		assert_int_equal(engine_owner_create(rig.engine, own->tenant, &owners[count]), 0);
		rig.owner = owners[count];
		for (unsigned i = 0; i < UNFINISHED * 5 / 4; i++) {
			result = unfinished_put(&rig, ++key);
			assert_int_equal(result.status, HR_STATUS_OK);
			assert_true(result.held);
		}
	}
	engine_stat_get(rig.engine, &stat);
	assert_int_equal(stat.multipart_unfinished_now, 4096);
	rig.owner = own;
	began_us = io_now_us(rig.io);
	for (unsigned i = 0; i < 500; i++) {
		assert_int_equal(rig_put(&rig, ++key, 0, 65536, HR_ACK_RAM, false).status,
				 HR_STATUS_OK);
	}
	assert_true(io_now_us(rig.io) - began_us < 20 * 1000000);
	assert_int_equal(rig_put(&rig, ++key, 0, 3 * MiB(1), HR_ACK_STABLE, false).status,
			 HR_STATUS_OK);
	engine_check(rig.engine);
	while (count > 0) {
		engine_owner_destroy(rig.engine, owners[--count]);
	}
	engine_stat_get(rig.engine, &stat);
	assert_int_equal(stat.multipart_unfinished_now, 0);
	rig_destroy(&rig);
}

struct list_wait {
	unsigned done, refused, blocks;
};

static void
on_list_page(void *arg, int rc, uint64_t cursor_next, const struct engine_list_entry *entries,
	     uint32_t count)
{
	struct list_wait *w = arg;

	(void)cursor_next;
	(void)entries;
	w->done++;
	w->refused += rc == -EAGAIN;
	w->blocks += count;
}

static bool
hundred_lists_done(void *arg)
{
	return ((struct list_wait *)arg)->done == 100;
}

/* Method: a hundred lists at once: those beyond the bound are refused, and none of the others lacks a block. */
static void
test_lists_are_bounded(void **state)
{
	struct list_wait w = { 0 };
	struct engine_stat stat;
	struct rig rig;

	(void)state;
	rig_create(&rig, 12, MiB(64), MiB(8));
	for (uint64_t key = 1; key <= 50; key++) {
		rig_put(&rig, key, 0, 1000, HR_ACK_STABLE, false);
	}
	rig_close(&rig);
	rig_open(&rig);
	for (unsigned i = 0; i < 100; i++) {
		engine_list(rig.engine, rig.space, 0, 100, on_list_page, &w);
	}
	assert_int_equal(w.done, 0);
	assert_true(sim_run(rig.sim, hundred_lists_done, &w, RIG_WAIT_US));
	engine_stat_get(rig.engine, &stat);
	assert_int_equal(w.refused, 36);
	assert_int_equal(w.blocks, 64 * 50);
	assert_int_equal(stat.lists_refused, 36);
	assert_int_equal(stat.lists_now, 0);
	rig_destroy(&rig);
}

struct raw_read {
	struct io_op op;
	struct iovec iov;
	bool done;
};

static void
on_raw_read(void *arg, int64_t result)
{
	(void)result;
	((struct raw_read *)arg)->done = true;
}

static bool
raw_read_done(void *arg)
{
	return ((struct raw_read *)arg)->done;
}

/* Method: a block is asked for while the queue of the device is full of other reads: a miss, for the moment; the block is whole. */
static void
test_device_queue_full(void **state)
{
	static struct raw_read reads[IO_DEVICE_QUEUE_MAX];
	uint8_t *page = aligned_alloc(4096, 4096);
	struct engine_stat stat;
	struct engine_get get;
	struct rig rig;

	(void)state;
	rig_create(&rig, 13, MiB(64), MiB(8));
	rig_put(&rig, 1, 0, 1000, HR_ACK_STABLE, false);
	rig_close(&rig);
	rig_open(&rig);
	for (unsigned i = 0; i < ARRAY_SIZE(reads); i++) {
		assert_true(io_device_crowded(rig.device) == (i >= ARRAY_SIZE(reads) / 2));
		reads[i] = (struct raw_read){ .iov = { page, 4096 } };
		io_device_read(rig.device, &reads[i].op, &reads[i].iov, 1, 0, on_raw_read,
			       &reads[i]);
	}
	rig_get_part(&rig, 1, 0, &get);
	assert_int_equal(get.status, HR_STATUS_MISS);
	assert_int_equal(get.reason, HR_REASON_BUSY);
	for (unsigned i = 0; i < ARRAY_SIZE(reads); i++) {
		assert_true(sim_run(rig.sim, raw_read_done, &reads[i], RIG_WAIT_US));
	}
	rig_get_part(&rig, 1, 0, &get);
	assert_int_equal(get.status, HR_STATUS_OK);
	engine_get_done(rig.engine, &get);
	engine_stat_get(rig.engine, &stat);
	assert_int_equal(stat.read_errors, 0);
	rig_destroy(&rig);
	free(page);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_put_get_sizes),
		cmocka_unit_test(test_first_wins_and_replace),
		cmocka_unit_test(test_put_numbers),
		cmocka_unit_test(test_put_numbers_of_others),
		cmocka_unit_test(test_unfinished_bounded),
		cmocka_unit_test(test_victim_unreadable),
		cmocka_unit_test(test_victim_half_readable),
		cmocka_unit_test(test_list_sees_what_is_pending),
		cmocka_unit_test(test_list_beside_reclaim),
		cmocka_unit_test(test_one_tag),
		cmocka_unit_test(test_delete),
		cmocka_unit_test(test_delete_twice),
		cmocka_unit_test(test_empty_blocks),
		cmocka_unit_test(test_put_over_lost_tombstone),
		cmocka_unit_test(test_spaces_come_and_go),
		cmocka_unit_test(test_space_write_fails),
		cmocka_unit_test(test_unreadable_for_one_life),
		cmocka_unit_test(test_drop),
		cmocka_unit_test(test_reclaim_keeps_the_hot),
		cmocka_unit_test(test_lease),
		cmocka_unit_test(test_leases_of_empty_blocks),
		cmocka_unit_test(test_carried_from_damaged_dram),
		cmocka_unit_test(test_ttl),
		cmocka_unit_test(test_corrupt),
		cmocka_unit_test(test_corrupt_without_room),
		cmocka_unit_test(test_pins_of_all_spaces),
		cmocka_unit_test(test_model),
		cmocka_unit_test(test_no_segment_free),
		cmocka_unit_test(test_part_refused),
		cmocka_unit_test(test_unfinished),
		cmocka_unit_test(test_lists_are_bounded),
		cmocka_unit_test(test_device_queue_full),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
