/* test_shard.c — the shard program spoken to by frames, on a simulated world: what is right, what is refused, what ends. */
#include "shard_rig.h"

/* Method: values around every limit in and out again, first from DRAM, also in one batch of many. */
static void
test_put_get(void **state)
{
	static const size_t sizes[] = { 0, 1, 4096, 65535, 65536, 65537, 300000, 1 << 20 };
	struct shard_rig sr;
	struct peer peer;

	(void)state;
	shard_rig_create(&sr, 1, NULL);
	peer_open(&peer, &sr);
	for (size_t i = 0; i < ARRAY_SIZE(sizes); i++) {
		peer_put(&peer, 100 + i, 1, sizes[i], HR_ACK_RAM, HR_STATUS_OK);
		assert_int_equal(peer_get(&peer, 100 + i, sizes[i]), 0);
	}
	peer_put(&peer, 1000, 200, 5000, HR_ACK_STABLE, HR_STATUS_OK);
	for (uint64_t k = 1000; k < 1200; k++) {
		assert_int_equal(peer_get(&peer, k, 5000), 0);
	}
	assert_int_equal(peer_get(&peer, 5, 0), HR_REASON_ABSENT);
	peer_close(&peer);
	shard_rig_destroy(&sr);
}

/* Method: every kind of range of a block of several chunks. */
static void
test_ranges(void **state)
{
	static const uint32_t ranges[][2] = {
		{ 0, 1 },	   { 0, 65536 },	  { 65536, 65536 },
		{ 65536, 134464 }, { 1, 65536 },	  { 65535, 2 },
		{ 199999, 1 },	   { 100, 150000 },	  { 131072, UINT32_MAX },
		{ 200000, 5 },	   { 70000, UINT32_MAX },
	};
	struct shard_rig sr;
	struct peer peer;

	(void)state;
	shard_rig_create(&sr, 2, NULL);
	peer_open(&peer, &sr);
	peer_put(&peer, 1, 1, 200000, HR_ACK_RAM, HR_STATUS_OK);
	for (size_t i = 0; i < ARRAY_SIZE(ranges); i++) {
		uint32_t off = ranges[i][0], want = HR_MIN(ranges[i][1], 200000 - off);

		assert_int_equal(peer_get_range(&peer, 1, off, ranges[i][1], want), 0);
	}
	assert_int_equal(peer_get_range(&peer, 1, 200001, 1, 0), 0xff);
	peer_close(&peer);
	shard_rig_destroy(&sr);
}

/* Method: one request for many blocks of which some are not there; each item is answered once, with its own index. */
static void
test_get_batch(void **state)
{
	enum { COUNT = 3000, BYTES = 9000 };
	struct shard_rig sr;
	struct peer peer;
	struct wire_buf items = { 0 };
	uint8_t seen[COUNT] = { 0 }, expected[BYTES];
	unsigned answered = 0;
	bool last = false;

	(void)state;
	shard_rig_create(&sr, 3, NULL);
	peer_open(&peer, &sr);
	for (uint64_t k = 0; k < COUNT; k += 100) {
		peer_put(&peer, k, 50, BYTES, HR_ACK_RAM, HR_STATUS_OK);
	}
	for (uint64_t k = 0; k < COUNT; k++) {
		get_item_add(&items, k, 0, UINT32_MAX);
	}
	peer_frame(&peer, (struct wire_header){ .op = WIRE_GET, .items_count = COUNT }, &items,
		   NULL, 0);
	while (!last) {
		struct frame frame;
		struct wire_reader reader;
		size_t paid = 0;

		peer_recv(&peer, &frame);
		reader = (struct wire_reader){ frame.items, frame.items + frame.header.items_bytes };
		for (unsigned i = 0; i < frame.header.items_count; i++) {
			struct wire_get_answer answer;
			const char *why;

			assert_int_equal(wire_get_answer_decode(&reader, &answer, &why), 0);
			assert_in_range(answer.item_idx, 0, COUNT - 1);
			assert_int_equal(seen[answer.item_idx]++, 0);
			assert_int_equal(answer.status,
					 answer.item_idx % 100 < 50 ? HR_STATUS_OK : HR_STATUS_MISS);
			if (answer.status == HR_STATUS_OK) {
				rig_bytes(answer.item_idx, 0, 0, expected, BYTES);
				assert_memory_equal(frame.payload + paid, expected, BYTES);
			}
			paid += answer.payload_bytes;
			answered++;
		}
		assert_int_equal(paid, frame.header.payload_bytes);
		last = (frame.header.flags & WIRE_FLAG_LAST) != 0;
		frame_free(&frame);
	}
	assert_int_equal(answered, COUNT);
	wire_buf_free(&items);
	peer_close(&peer);
	shard_rig_destroy(&sr);
}

static void
ids_call(struct peer *peer, uint8_t op, uint64_t key, unsigned count, struct frame *ret)
{
	struct wire_buf items = { 0 };

	for (unsigned i = 0; i < count; i++) {
		id_item_add(&items, key + i);
	}
	peer_frame(peer, (struct wire_header){ .op = op, .items_count = count, .lease_ms = 1000 },
		   &items, NULL, 0);
	wire_buf_free(&items);
	peer_recv(peer, ret);
	assert_int_equal(ret->header.op, op);
	assert_int_equal(ret->header.flags, WIRE_FLAG_ANSWER | WIRE_FLAG_LAST);
	assert_int_equal(ret->header.items_count, count);
}

static void
test_ids(void **state)
{
	struct shard_rig sr;
	struct peer peer;
	struct frame frame;
	struct engine_stat stat;

	(void)state;
	shard_rig_create(&sr, 4, NULL);
	peer_open(&peer, &sr);
	peer_put(&peer, 10, 3, 7000, HR_ACK_RAM, HR_STATUS_OK);
	ids_call(&peer, WIRE_EXISTS, 11, 3, &frame);
	assert_int_equal(frame.header.items_bytes, 8 + 24);
	assert_int_equal(frame.items[0] & ~WIRE_REASON_MASK, WIRE_PRESENT | WIRE_LEASED);
	assert_int_equal(frame.items[2], HR_REASON_ABSENT);
	assert_int_equal(get_le64(frame.items + 8), 7000);
	frame_free(&frame);
	engine_stat_get(sr.rig.engine, &stat);
	assert_int_equal(stat.leases_now, 2);
	ids_call(&peer, WIRE_RELEASE, 11, 1, &frame);
	frame_free(&frame);
	engine_stat_get(sr.rig.engine, &stat);
	assert_int_equal(stat.leases_now, 1);
	ids_call(&peer, WIRE_TOUCH, 12, 2, &frame);
	assert_int_equal(frame.items[0], WIRE_PRESENT);
	assert_int_equal(frame.items[1], HR_REASON_ABSENT);
	frame_free(&frame);
	ids_call(&peer, WIRE_PREFETCH, 12, 1, &frame);
	assert_int_equal(frame.items[0], WIRE_PRESENT);
	frame_free(&frame);
	ids_call(&peer, WIRE_DELETE, 10, 4, &frame);
	assert_int_equal(frame.items[0], WIRE_PRESENT);
	assert_int_equal(frame.items[3], HR_REASON_ABSENT);
	frame_free(&frame);
	assert_int_equal(peer_get(&peer, 11, 0), HR_REASON_DELETED);
	/* What a connection held ends with it. */
	peer_put(&peer, 20, 1, 7000, HR_ACK_RAM, HR_STATUS_OK);
	ids_call(&peer, WIRE_EXISTS, 20, 1, &frame);
	frame_free(&frame);
	peer_close(&peer);
	engine_stat_get(sr.rig.engine, &stat);
	assert_int_equal(stat.leases_now, 0);
	shard_rig_destroy(&sr);
}

/* Method: each a connection of its own; it ends with a counter, and the one beside it goes on. */
static void
test_bad_input(void **state)
{
	struct shard_rig sr;
	struct peer good, bad;
	uint8_t bytes[256];
	const struct wire_header ping = { .version = 1, .op = WIRE_PING, .request_id = 1 };
	uint64_t ended = 0;

	(void)state;
	shard_rig_create(&sr, 5, NULL);
	peer_open(&good, &sr);
	for (int what = 0; what < 12; what++) {
		struct wire_header header = ping;
		struct wire_buf items = { 0 };
		size_t len = WIRE_HEADER_BYTES;

		peer_connect(&bad, &sr, true);
		if (what >= 3) {
			peer_hello(&bad);
		}
		memset(bytes, 0xa5, sizeof(bytes));
		switch (what) {
		case 0:
			break; /* noise */
		case 1:
			wire_header_encode(&header, bytes);
			break; /* not HELLO */
		case 2:
			len = 10;
			break; /* cut short: the peer ends */
		case 3:
			header.op = WIRE_GET;
			header.items_bytes = UINT32_MAX & ~7u;
			wire_header_encode(&header, bytes);
			break;
		case 4:
			header.op = 99;
			wire_header_encode(&header, bytes);
			break;
		case 5:
			wire_header_encode(&header, bytes);
			bytes[20] ^= 1;
			break;
		case 6:
			header.request_id = 0;
			wire_header_encode(&header, bytes);
			break;
		case 7:
			header.op = WIRE_GET;
			header.payload_bytes = 5;
			wire_header_encode(&header, bytes);
			break;
		case 8:
			header.op = WIRE_EXISTS;
			header.items_count = 3;
			header.items_bytes = 24;
			header.items_crc = crc32c(0, bytes + WIRE_HEADER_BYTES, 24);
			header.space = 1;
			wire_header_encode(&header, bytes);
			len += 24;
			break;
		case 9:
			header.op = WIRE_CHUNK;
			wire_header_encode(&header, bytes);
			break;
		case 10:
			header.op = WIRE_UNBORROW;
			header.items_count = 1;
			header.items_bytes = 8;
			header.items_crc = crc32c(0, bytes + WIRE_HEADER_BYTES, 8);
			wire_header_encode(&header, bytes);
			len += 8;
			break;
		case 11:
			header.flags = WIRE_FLAG_ANSWER;
			wire_header_encode(&header, bytes);
			break;
		}
		if (what == 8) {
			peer_space_open(&bad, 9);
			header.space = bad.space;
			wire_header_encode(&header, bytes);
		}
		peer_send(&bad, bytes, len);
		if (what == 2) {
			peer_close(&bad);
		} else {
			assert_true(peer_is_ended(&bad, 1000000));
			peer_close(&bad);
		}
		wire_buf_free(&items);
		assert_int_equal(shard_rig_stat(&sr).conns_ended_bad_input, ++ended);
		assert_int_equal(shard_rig_stat(&sr).conns_now, 1);
		peer_put(&good, 500 + (uint64_t)what, 1, 1000, HR_ACK_RAM, HR_STATUS_OK);
	}
	peer_close(&good);
	shard_rig_destroy(&sr);
}

/* Method: HELLO in all ways that are refused. */
static void
test_hello(void **state)
{
	const uint8_t other[16] = { 9, 9, 9 };
	struct wire_client_hello hello = { .version_min = 7, .version_max = 9 };
	struct wire_buf items = { 0 };
	struct shard_options options = { .hello_timeout_s = 3 };
	struct shard_rig sr;
	struct peer peer;
	struct frame frame;
	struct wire_reader reader;
	struct wire_map map;
	const char *why;

	(void)state;
	shard_rig_create(&sr, 6, &options);
	peer_connect(&peer, &sr, true);
	peer_hello_shard(&peer, other, &frame);
	assert_int_equal(frame.header.status, WIRE_WRONG_SHARD);
	assert_int_equal(frame.header.flags & WIRE_FLAG_REFUSED, WIRE_FLAG_REFUSED);
	reader = (struct wire_reader){ frame.items, frame.items + frame.header.items_bytes };
	assert_int_equal(wire_map_decode(&reader, &map, &why), 0);
	assert_int_equal(map.shards_count, 1);
	assert_int_equal(map.shards[0].state, WIRE_SERVING);
	assert_memory_equal(map.shards[0].uuid, engine_slice(sr.rig.engine)->shard_uuid, 16);
	wire_map_free(&map);
	frame_free(&frame);
	assert_true(peer_is_ended(&peer, 1000000));
	peer_close(&peer);

	peer_connect(&peer, &sr, true);
	wire_client_hello_encode(&items, &hello);
	peer_frame(&peer, (struct wire_header){ .op = WIRE_HELLO, .items_count = 1 }, &items, NULL,
		   0);
	peer_recv(&peer, &frame);
	assert_int_equal(frame.header.status, WIRE_BAD_VERSION);
	frame_free(&frame);
	assert_true(peer_is_ended(&peer, 1000000));
	peer_close(&peer);
	wire_buf_free(&items);

	/* The right UUID. */
	peer_connect(&peer, &sr, true);
	peer_hello_shard(&peer, engine_slice(sr.rig.engine)->shard_uuid, &frame);
	assert_int_equal(frame.header.status, WIRE_OK);
	frame_free(&frame);
	peer_close(&peer);

	/* Silence. */
	peer_connect(&peer, &sr, true);
	assert_false(peer_is_ended(&peer, 2000000));
	assert_true(peer_is_ended(&peer, 2000000));
	assert_int_equal(shard_rig_stat(&sr).conns_ended_hello_timeout, 1);
	peer_close(&peer);
	shard_rig_destroy(&sr);
}

/* Method: a frame for a space that the connection did not open is refused whole, its payload is taken, and the connection goes on. */
static void
test_unknown_space(void **state)
{
	uint8_t value[100000];
	struct wire_buf items = { 0 };
	struct shard_rig sr;
	struct peer peer;
	struct frame frame;

	(void)state;
	shard_rig_create(&sr, 7, NULL);
	peer_open(&peer, &sr);
	rig_bytes(1, 0, 0, value, sizeof(value));
	put_item_add(&items, 1, value, sizeof(value), 0);
	peer_frame(&peer, (struct wire_header){ .op = WIRE_PUT, .items_count = 1, .space = 77 },
		   &items, value, sizeof(value));
	peer_recv(&peer, &frame);
	assert_int_equal(frame.header.flags, WIRE_FLAG_ANSWER | WIRE_FLAG_LAST | WIRE_FLAG_REFUSED);
	assert_int_equal(frame.header.status, WIRE_UNKNOWN_SPACE);
	frame_free(&frame);
	assert_int_equal(shard_rig_stat(&sr).payload_bytes_discarded, sizeof(value));
	peer_put(&peer, 2, 1, 3000, HR_ACK_RAM, HR_STATUS_OK);
	assert_int_equal(peer_get(&peer, 1, 0), HR_REASON_ABSENT);
	wire_buf_free(&items);
	peer_close(&peer);
	shard_rig_destroy(&sr);
}

/* Method: a reader that takes nothing asks for more than the bound of its output; nothing more is read from it, memory stays
 * within the bound, and after its time it is ended. */
static void
test_stalled_reader(void **state)
{
	struct shard_options options = { .stalled_reader_s = 30, .output_bytes_max = 1 << 20 };
	struct shard_rig sr;
	struct peer peer, lazy;
	struct shard_stat stat;

	(void)state;
	shard_rig_create(&sr, 8, &options);
	peer_open(&peer, &sr);
	peer_put(&peer, 1, 8, 500000, HR_ACK_RAM, HR_STATUS_OK);
	peer_connect(&lazy, &sr, true);
	peer_hello(&lazy);
	peer_space_open(&lazy, 7);
	lazy.lazy = true;
	for (int i = 0; i < 50; i++) {
		struct wire_buf items = { 0 };

		for (uint64_t k = 1; k <= 8; k++) {
			get_item_add(&items, k, 0, UINT32_MAX);
		}
		peer_frame_start(&lazy, (struct wire_header){ .op = WIRE_GET, .items_count = 8 },
				 &items, NULL, 0);
		wire_buf_free(&items);
		shard_rig_settle(&sr, 1000);
	}
	stat = shard_rig_stat(&sr);
	assert_true(stat.output_bytes_now >= 1 << 20);
	assert_true(stat.output_bytes_high < (1 << 20) + 2 * 600000);
	assert_int_equal(stat.conns_now, 2);
	shard_rig_settle(&sr, 20 * 1000000);
	assert_int_equal(shard_rig_stat(&sr).conns_now, 2);
	assert_int_equal(peer_get(&peer, 3, 500000), 0);
	shard_rig_settle(&sr, 50 * 1000000);
	stat = shard_rig_stat(&sr);
	assert_int_equal(stat.conns_ended_stalled, 1);
	assert_int_equal(stat.conns_now, 1);
	assert_int_equal(stat.output_bytes_now, 0);
	peer_close(&lazy);
	peer_close(&peer);
	shard_rig_destroy(&sr);
}

/* Method: six readers that take nothing ask for more than the whole of the DRAM tier: what waits for them leaves room in it, so that a
 * seventh peer's PUTs and GETs are served as if they were not there. */
static void
test_many_stalled_readers(void **state)
{
	enum { EACH = 20, VALUES = 6 * EACH, BYTES = 500000 };
	struct peer peer, lazy[6];
	struct shard_rig sr;

	(void)state;
	shard_rig_create(&sr, 22, NULL);
	peer_open(&peer, &sr);
	for (unsigned k = 1; k <= VALUES; k += 4) {
		peer_put(&peer, k, 4, BYTES, HR_ACK_STABLE, HR_STATUS_OK);
	}
	for (unsigned i = 0; i < ARRAY_SIZE(lazy); i++) {
		struct wire_buf items = { 0 };

		peer_connect(&lazy[i], &sr, true);
		peer_hello(&lazy[i]);
		peer_space_open(&lazy[i], 7);
		lazy[i].lazy = true;
		for (unsigned k = 0; k < EACH; k++) {
			get_item_add(&items, 1 + i * EACH + k, 0, UINT32_MAX);
		}
		peer_frame_start(&lazy[i],
				 (struct wire_header){ .op = WIRE_GET, .items_count = EACH },
				 &items, NULL, 0);
		wire_buf_free(&items);
	}
	shard_rig_settle(&sr, 1000000);
	for (unsigned k = 200; k < 280; k += 4) {
		peer_put(&peer, k, 4, BYTES, HR_ACK_STABLE, HR_STATUS_OK);
		assert_int_equal(peer_get(&peer, k, BYTES), 0);
		assert_int_equal(peer_get(&peer, 1 + k % VALUES, BYTES), 0);
	}
	assert_int_equal(shard_rig_stat(&sr).conns_now, 1 + ARRAY_SIZE(lazy));
	for (unsigned i = 0; i < ARRAY_SIZE(lazy); i++) {
		peer_close(&lazy[i]);
	}
	peer_close(&peer);
	shard_rig_destroy(&sr);
}

/* Method: peers stop at every kind of place in a PUT; each is ended after its time and what it held is free. One that goes on, however
 * slowly, and one that is between two frames, are not. */
static void
test_stalled_sender(void **state)
{
	enum { BYTES = 200000, STEP = 20000 };
	static const size_t cuts[] = { 1, 63, 64, 100, 5000, 150000 };
	struct shard_options options = { .stalled_reader_s = 30 };
	struct peer peer, slow, stopped[ARRAY_SIZE(cuts)];
	struct shard_rig sr;
	struct frame frame;
	uint8_t *value = malloc(BYTES), *bytes = malloc(BYTES + 4096);
	struct wire_header header = { .version = 1,
				      .op = WIRE_PUT,
				      .request_id = 50,
				      .items_count = 1,
				      .payload_bytes = BYTES };
	struct wire_buf items = { 0 };
	struct engine_stat stat;
	size_t len;

	(void)state;
	shard_rig_create(&sr, 21, &options);
	rig_bytes(1, 0, 0, value, BYTES);
	put_item_add(&items, 1, value, BYTES, 0);
	peer_open(&peer, &sr);
	header.space = peer.space;
	header.items_bytes = (uint32_t)items.len;
	header.items_crc = crc32c(0, items.bytes, items.len);
	wire_header_encode(&header, bytes);
	memcpy(bytes + WIRE_HEADER_BYTES, items.bytes, items.len);
	memcpy(bytes + WIRE_HEADER_BYTES + items.len, value, BYTES);
	len = WIRE_HEADER_BYTES + items.len + BYTES;
	for (size_t i = 0; i < ARRAY_SIZE(cuts); i++) {
		peer_open(&stopped[i], &sr);
		peer_send(&stopped[i], bytes, cuts[i]);
	}
	peer_open(&slow, &sr);
	for (size_t at = 0; at < len; at += STEP) {
		peer_send(&slow, bytes + at, HR_MIN(len - at, (size_t)STEP));
		shard_rig_settle(&sr, 2 * 1000000);
	}
	assert_int_equal(shard_rig_stat(&sr).conns_ended_stalled, 0);
	assert_int_equal(shard_rig_stat(&sr).put_bytes_now, 2 * BYTES);
	shard_rig_settle(&sr, 20 * 1000000);
	for (size_t i = 0; i < ARRAY_SIZE(cuts); i++) {
		assert_true(stopped[i].ended);
		peer_close(&stopped[i]);
	}
	assert_int_equal(shard_rig_stat(&sr).conns_ended_stalled, ARRAY_SIZE(cuts));
	assert_int_equal(shard_rig_stat(&sr).put_bytes_now, 0);
	engine_stat_get(sr.rig.engine, &stat);
	assert_int_equal(stat.puts_now, 0);
	assert_int_equal(stat.blocks, 1);
	shard_rig_settle(&sr, 100 * 1000000);
	assert_false(slow.ended || peer.ended);
	peer_recv(&slow, &frame);
	assert_int_equal(frame.header.request_id, 50);
	frame_free(&frame);
	assert_int_equal(peer_get(&slow, 1, BYTES), 0);
	peer_close(&slow);
	peer_close(&peer);
	shard_rig_destroy(&sr);
	wire_buf_free(&items);
	free(value);
	free(bytes);
}

/* Method: a connection goes in the middle of a PUT and of a GET, at every 997th byte of the conversation. */
static void
test_killed_peer(void **state)
{
	enum { BYTES = 200000 };
	uint8_t *value = malloc(BYTES);
	struct wire_buf items = { 0 }, gets = { 0 };
	struct shard_rig sr;
	struct peer peer;
	uint8_t header_bytes[WIRE_HEADER_BYTES];
	struct wire_header header = { .version = 1,
				      .op = WIRE_PUT,
				      .request_id = 50,
				      .items_count = 1,
				      .payload_bytes = BYTES };
	struct engine_stat stat;

	(void)state;
	shard_rig_create(&sr, 9, NULL);
	rig_bytes(1, 0, 0, value, BYTES);
	put_item_add(&items, 1, value, BYTES, 0);
	for (uint64_t k = 5; k < 9; k++) {
		get_item_add(&gets, k, 0, UINT32_MAX);
	}
	for (size_t cut = 0; cut < WIRE_HEADER_BYTES + items.len + BYTES;
	     cut += cut < 400 ? 13 : 9973) {
		uint8_t *all = malloc(WIRE_HEADER_BYTES + items.len + BYTES);

		peer_open(&peer, &sr);
		if (cut == 0) {
			peer_put(&peer, 5, 4, 150000, HR_ACK_STABLE, HR_STATUS_OK);
		}
		peer_frame(&peer, (struct wire_header){ .op = WIRE_GET, .items_count = 4 }, &gets,
			   NULL, 0);
		header.space = peer.space;
		header.items_bytes = (uint32_t)items.len;
		header.items_crc = crc32c(0, items.bytes, items.len);
		wire_header_encode(&header, header_bytes);
		memcpy(all, header_bytes, WIRE_HEADER_BYTES);
		memcpy(all + WIRE_HEADER_BYTES, items.bytes, items.len);
		memcpy(all + WIRE_HEADER_BYTES + items.len, value, BYTES);
		if (cut > 0) {
			peer_send(&peer, all, cut);
		}
		peer_close(&peer);
		shard_rig_settle(&sr, 100000);
		assert_int_equal(shard_rig_stat(&sr).conns_now, 0);
		assert_int_equal(shard_rig_stat(&sr).put_bytes_now, 0);
		free(all);
	}
	engine_stat_get(sr.rig.engine, &stat);
	assert_int_equal(stat.puts_now, 0);
	assert_int_equal(stat.blocks, 4);
	assert_int_equal(stat.cache.bytes_pinned_by_refs, 0);
	wire_buf_free(&items);
	wire_buf_free(&gets);
	free(value);
	shard_rig_destroy(&sr);
}

/* Method: the first part of a block is sent whole and the connection goes at every moment after it, also while the engine has it. */
static void
test_killed_between_parts(void **state)
{
	struct shard_rig sr;
	struct peer peer;
	struct engine_stat stat;
	uint32_t part_bytes, crcs[WIRE_CRCS_MAX];
	uint8_t *value;

	(void)state;
	shard_rig_create(&sr, 27, NULL);
	part_bytes = engine_slice(sr.rig.engine)->part_bytes;
	value = malloc(part_bytes);
	rig_bytes(1, 0, 0, value, part_bytes);
	for (uint64_t wait_us = 0; wait_us < 600; wait_us += 7) {
		struct wire_put_item item = { .block_bytes = part_bytes + 5,
					      .stored_bytes = part_bytes,
					      .parts_count = 2,
					      .put_number = wait_us + 1,
					      .key = (const uint8_t *)&wait_us,
					      .key_len = 8 };
		struct iovec iov = { value, part_bytes };
		struct wire_buf items = { 0 };

		peer_open(&peer, &sr);
		key_id(wait_us, item.id);
		item.crcs_count = (uint16_t)crc32c_chunks(&iov, 1, WIRE_CHUNK_BYTES, crcs);
		wire_put_item_encode(&items, &item, crcs);
		peer_frame(&peer, (struct wire_header){ .op = WIRE_PUT, .items_count = 1 }, &items,
			   value, part_bytes);
		shard_rig_settle(&sr, wait_us);
		peer_close(&peer);
		wire_buf_free(&items);
	}
	shard_rig_settle(&sr, 1000000);
	engine_stat_get(sr.rig.engine, &stat);
	assert_int_equal(stat.multipart_unfinished_now, 0);
	assert_int_equal(stat.puts_now, 0);
	assert_int_equal(stat.blocks, 0);
	free(value);
	shard_rig_destroy(&sr);
}

/* Method: more PUT payload than the connection may have under way is refused as busy, read, and what was accepted is there. */
static void
test_put_busy(void **state)
{
	struct shard_options options = { .request_bytes_max = 300000 };
	struct shard_rig sr;
	struct peer peer;
	struct wire_buf items = { 0 };
	uint8_t *values = malloc(10 * 100000);
	unsigned answered = 0, ok = 0, busy = 0;

	(void)state;
	shard_rig_create(&sr, 10, &options);
	peer_open(&peer, &sr);
	for (uint64_t k = 0; k < 10; k++) {
		rig_bytes(k, 0, 0, values + k * 100000, 100000);
		put_item_add(&items, k, values + k * 100000, 100000, 0);
	}
	peer_frame(&peer,
		   (struct wire_header){ .op = WIRE_PUT, .items_count = 10, .ack = HR_ACK_STABLE },
		   &items, values, 1000000);
	while (answered < 10) {
		struct frame frame;
		struct wire_reader reader;

		peer_recv(&peer, &frame);
		reader = (struct wire_reader){ frame.items, frame.items + frame.header.items_bytes };
		for (unsigned i = 0; i < frame.header.items_count; i++, answered++) {
			struct wire_put_answer answer;
			const char *why;

			assert_int_equal(wire_put_answer_decode(&reader, &answer, &why), 0);
			ok += answer.status == HR_STATUS_OK;
			busy += answer.status == HR_STATUS_REFUSED &&
				answer.reason == HR_REASON_BUSY;
			assert_int_equal(peer.ended, false);
			if (answer.status == HR_STATUS_OK) {
				values[answer.item_idx * 100000] = 1; /* marks, read below */
			} else {
				values[answer.item_idx * 100000] = 2;
			}
		}
		frame_free(&frame);
	}
	assert_int_equal(ok + busy, 10);
	assert_true(ok >= 3 && busy >= 1);
	assert_int_equal(shard_rig_stat(&sr).stores_refused_busy, busy);
	assert_int_equal(shard_rig_stat(&sr).payload_bytes_discarded, busy * 100000);
	for (uint64_t k = 0; k < 10; k++) {
		bool there = values[k * 100000] == 1;

		assert_int_equal(peer_get(&peer, k, 100000), there ? 0 : HR_REASON_ABSENT);
	}
	wire_buf_free(&items);
	free(values);
	peer_close(&peer);
	shard_rig_destroy(&sr);
}

/* Method: a PUT with a wrong checksum is refused as corrupt; nothing of it is there. */
static void
test_put_corrupt(void **state)
{
	uint8_t value[70000];
	struct wire_buf items = { 0 };
	struct shard_rig sr;
	struct peer peer;
	struct frame frame;
	struct wire_reader reader;
	struct wire_put_answer answer;
	const char *why;

	(void)state;
	shard_rig_create(&sr, 11, NULL);
	peer_open(&peer, &sr);
	rig_bytes(1, 0, 0, value, sizeof(value));
	put_item_add(&items, 1, value, sizeof(value), 0);
	value[69999] ^= 4;
	peer_frame(&peer, (struct wire_header){ .op = WIRE_PUT, .items_count = 1 }, &items, value,
		   sizeof(value));
	peer_recv(&peer, &frame);
	reader = (struct wire_reader){ frame.items, frame.items + frame.header.items_bytes };
	assert_int_equal(wire_put_answer_decode(&reader, &answer, &why), 0);
	assert_int_equal(answer.status, HR_STATUS_REFUSED);
	assert_int_equal(answer.reason, HR_REASON_CORRUPT);
	frame_free(&frame);
	assert_int_equal(peer_get(&peer, 1, 0), HR_REASON_ABSENT);
	wire_buf_free(&items);
	peer_close(&peer);
	shard_rig_destroy(&sr);
}

/* Method: an id that is not the key's is told as invalid; nothing is there under either. */
static void
test_put_foreign_id(void **state)
{
	uint8_t value[100] = { 1 };
	struct wire_put_item item = { .block_bytes = 100,
				      .stored_bytes = 100,
				      .parts_count = 1,
				      .crcs_count = 1,
				      .key = (const uint8_t *)"key",
				      .key_len = 3 };
	const uint32_t crc = crc32c(0, value, sizeof(value));
	struct wire_buf items = { 0 };
	struct wire_put_answer answer;
	struct wire_reader reader;
	struct shard_rig sr;
	struct peer peer;
	struct frame frame;
	const char *why;

	(void)state;
	shard_rig_create(&sr, 19, NULL);
	peer_open(&peer, &sr);
	key_id(5, item.id);
	wire_put_item_encode(&items, &item, &crc);
	peer_frame(&peer, (struct wire_header){ .op = WIRE_PUT, .items_count = 1 }, &items, value,
		   sizeof(value));
	peer_recv(&peer, &frame);
	reader = (struct wire_reader){ frame.items, frame.items + frame.header.items_bytes };
	assert_int_equal(wire_put_answer_decode(&reader, &answer, &why), 0);
	assert_int_equal(answer.status, HR_STATUS_INVALID);
	frame_free(&frame);
	assert_int_equal(peer_get(&peer, 5, 0), HR_REASON_ABSENT);
	wire_buf_free(&items);
	peer_close(&peer);
	shard_rig_destroy(&sr);
}

/* Method: what is past its deadline is answered so, without touching flash. */
static void
test_deadline(void **state)
{
	struct shard_rig sr;
	struct peer peer;
	struct wire_buf items = { 0 };
	struct frame frame;
	unsigned deadline = 0, ok = 0;
	bool last = false;

	(void)state;
	shard_rig_create(&sr, 12, NULL);
	peer_open(&peer, &sr);
	peer_put(&peer, 0, 100, 300000, HR_ACK_STABLE, HR_STATUS_OK);
	for (uint64_t k = 0; k < 100; k++) {
		get_item_add(&items, k, 0, UINT32_MAX);
	}
	peer_frame(&peer,
		   (struct wire_header){ .op = WIRE_GET, .items_count = 100, .deadline_us = 300 },
		   &items, NULL, 0);
	while (!last) {
		struct wire_reader reader;

		peer_recv(&peer, &frame);
		reader = (struct wire_reader){ frame.items, frame.items + frame.header.items_bytes };
		for (unsigned i = 0; i < frame.header.items_count; i++) {
			struct wire_get_answer answer;
			const char *why;

			assert_int_equal(wire_get_answer_decode(&reader, &answer, &why), 0);
			ok += answer.status == HR_STATUS_OK;
			deadline += answer.status == HR_STATUS_MISS &&
				    answer.reason == HR_REASON_DEADLINE;
		}
		last = (frame.header.flags & WIRE_FLAG_LAST) != 0;
		frame_free(&frame);
	}
	assert_int_equal(ok + deadline, 100);
	assert_true(deadline > 0);
	assert_int_equal(shard_rig_stat(&sr).deadline_misses, deadline);
	wire_buf_free(&items);
	peer_close(&peer);
	shard_rig_destroy(&sr);
}

/* Method: a cancelled GET's answers all come, once. */
static void
test_cancel(void **state)
{
	struct shard_rig sr;
	struct peer peer;
	struct wire_buf items = { 0 }, which = { 0 };
	unsigned answered = 0;
	uint64_t id;

	(void)state;
	shard_rig_create(&sr, 13, NULL);
	peer_open(&peer, &sr);
	peer_put(&peer, 0, 100, 300000, HR_ACK_STABLE, HR_STATUS_OK);
	for (uint64_t k = 0; k < 100; k++) {
		get_item_add(&items, k, 0, UINT32_MAX);
	}
	id = peer_frame(&peer, (struct wire_header){ .op = WIRE_GET, .items_count = 100 }, &items,
			NULL, 0);
	wire_u64_encode(&which, id);
	peer_frame(&peer, (struct wire_header){ .op = WIRE_CANCEL, .items_count = 1 }, &which, NULL,
		   0);
	while (answered < 100) {
		struct frame frame;

		peer_recv(&peer, &frame);
		assert_int_equal(frame.header.request_id, id);
		answered += frame.header.items_count;
		assert_int_equal((frame.header.flags & WIRE_FLAG_LAST) != 0, answered == 100);
		frame_free(&frame);
	}
	peer_put(&peer, 1000, 1, 10, HR_ACK_RAM, HR_STATUS_OK);
	wire_buf_free(&items);
	wire_buf_free(&which);
	peer_close(&peer);
	shard_rig_destroy(&sr);
}

static void
test_space_ops(void **state)
{
	struct shard_rig sr;
	struct peer peer;
	struct frame frame;
	struct wire_space_request sub = { .sub = WIRE_SPACE_SET,
					  .quota_bytes = 12345678,
					  .pin_budget_bytes = 5 };
	struct wire_buf items = { 0 };
	struct wire_reader reader;
	struct wire_space_row row;
	uint64_t cursor;
	const char *why;

	(void)state;
	shard_rig_create(&sr, 14, NULL);
	peer_open(&peer, &sr);
	peer_put(&peer, 1, 5, 10000, HR_ACK_RAM, HR_STATUS_OK);
	for (sub.sub = WIRE_SPACE_LIST; sub.sub <= WIRE_SPACE_SET; sub.sub++) {
		wire_buf_reset(&items);
		wire_space_request_encode(&items, &sub);
		peer_frame(&peer, (struct wire_header){ .op = WIRE_SPACE, .items_count = 1 },
			   &items, NULL, 0);
		peer_recv(&peer, &frame);
		assert_int_equal(frame.header.flags, WIRE_FLAG_ANSWER | WIRE_FLAG_LAST);
		reader = (struct wire_reader){ frame.items, frame.items + frame.header.items_bytes };
		if (sub.sub == WIRE_SPACE_LIST) {
			assert_int_equal(wire_u64_decode(&reader, &cursor, &why), 0);
			assert_int_equal(cursor, 0);
			assert_int_equal(frame.header.items_count, 2); /* the rig's own and ours */
			assert_int_equal(wire_space_row_decode(&reader, &row, &why), 0);
		}
		assert_int_equal(wire_space_row_decode(&reader, &row, &why), 0);
		assert_int_equal(row.number, peer.space);
		assert_string_equal(row.label, "rig");
		if (sub.sub == WIRE_SPACE_USAGE) {
			assert_int_equal(row.blocks, 5);
			assert_int_equal(row.puts, 5);
		}
		if (sub.sub == WIRE_SPACE_DROP) {
			assert_int_equal(row.blocks, 0);
			assert_int_equal(row.generation, 2);
			assert_int_equal(peer_get(&peer, 1, 0), HR_REASON_ABSENT);
		}
		if (sub.sub == WIRE_SPACE_SET) {
			assert_int_equal(row.quota_bytes, 12345678);
		}
		frame_free(&frame);
	}
	wire_buf_free(&items);
	peer_close(&peer);
	shard_rig_destroy(&sr);
}

static void
test_list(void **state)
{
	struct wire_list_head head = { .count = 7 };
	struct wire_buf items = { 0 };
	struct shard_rig sr;
	struct peer peer;
	unsigned listed = 0;

	(void)state;
	shard_rig_create(&sr, 15, NULL);
	peer_open(&peer, &sr);
	peer_put(&peer, 1, 30, 10000, HR_ACK_STABLE, HR_STATUS_OK);
	do {
		struct frame frame;
		struct wire_reader reader;
		const char *why;

		wire_buf_reset(&items);
		head.count = 7;
		wire_list_head_encode(&items, &head);
		peer_frame(&peer, (struct wire_header){ .op = WIRE_LIST, .items_count = 1 }, &items,
			   NULL, 0);
		peer_recv(&peer, &frame);
		reader = (struct wire_reader){ frame.items, frame.items + frame.header.items_bytes };
		assert_int_equal(wire_list_head_decode(&reader, &head, &why), 0);
		assert_true(head.count <= 7);
		for (uint32_t i = 0; i < head.count; i++) {
			struct wire_list_entry entry;

			assert_int_equal(wire_list_entry_decode(&reader, &entry, &why), 0);
			assert_int_equal(entry.block_bytes, 10000);
			assert_int_equal(entry.key_len, 8);
			listed++;
		}
		assert_ptr_equal(reader.at, reader.end);
		frame_free(&frame);
	} while (head.cursor != 0);
	assert_int_equal(listed, 30);
	wire_buf_free(&items);
	peer_close(&peer);
	shard_rig_destroy(&sr);
}

static void
test_ping_map_stat(void **state)
{
	struct shard_rig sr;
	struct peer peer;
	struct frame frame;

	(void)state;
	shard_rig_create(&sr, 16, NULL);
	peer_open(&peer, &sr);
	peer_frame(&peer, (struct wire_header){ .op = WIRE_PING }, NULL, NULL, 0);
	peer_recv(&peer, &frame);
	assert_int_equal(frame.header.op, WIRE_PING);
	frame_free(&frame);
	peer_frame(&peer, (struct wire_header){ .op = WIRE_MAP }, NULL, NULL, 0);
	peer_recv(&peer, &frame);
	assert_int_equal(frame.header.op, WIRE_MAP);
	assert_true(frame.header.items_bytes >= 16 + 48 + 48);
	frame_free(&frame);
	peer_frame(&peer, (struct wire_header){ .op = WIRE_STAT }, NULL, NULL, 0);
	peer_recv(&peer, &frame);
	frame.payload[frame.header.payload_bytes] = '\0';
	assert_non_null(strstr((char *)frame.payload, "\"bytes_written_total\":"));
	assert_non_null(strstr((char *)frame.payload, "\"label\":\"rig\""));
	frame_free(&frame);
	shard_map_push(sr.shard);
	peer_recv(&peer, &frame);
	assert_int_equal(frame.header.op, WIRE_MAP);
	assert_int_equal(frame.header.request_id, 0);
	frame_free(&frame);
	peer_close(&peer);
	shard_rig_destroy(&sr);
}

/* Method: what was begun before the drain is answered, GOAWAY is told, and the connection ends. */
static void
test_drain(void **state)
{
	struct shard_rig sr;
	struct peer peer;
	struct wire_buf items = { 0 };
	struct frame frame;
	struct rig_wait w = { 0 };
	uint8_t value[50000];
	bool goaway = false, answered = false;

	(void)state;
	shard_rig_create(&sr, 17, NULL);
	peer_open(&peer, &sr);
	rig_bytes(1, 0, 0, value, sizeof(value));
	put_item_add(&items, 1, value, sizeof(value), 0);
	peer_frame(&peer,
		   (struct wire_header){ .op = WIRE_PUT, .items_count = 1, .ack = HR_ACK_STABLE },
		   &items, value, sizeof(value));
	shard_rig_settle(&sr, 500);
	shard_drain(sr.shard, 10000000, rig_on_done, &w);
	while (!goaway || !answered) {
		peer_recv(&peer, &frame);
		goaway |= frame.header.op == WIRE_GOAWAY;
		answered |= frame.header.op == WIRE_PUT;
		frame_free(&frame);
	}
	assert_true(peer_is_ended(&peer, 1000000));
	peer_close(&peer);
	rig_until(&sr.rig, &w);
	wire_buf_free(&items);
	shard_destroy(sr.shard);
	io_destroy(sr.peer_io);
	rig_destroy(&sr.rig);
}

/* Method: an engine is taken out under load; its sessions end, nothing refers to it. */
static void
test_engine_remove(void **state)
{
	struct shard_rig sr;
	struct peer peer;
	struct frame frame;
	struct wire_buf items = { 0 };
	struct rig_wait w = { 0 };

	(void)state;
	shard_rig_create(&sr, 18, NULL);
	peer_open(&peer, &sr);
	peer_put(&peer, 0, 50, 300000, HR_ACK_RAM, HR_STATUS_OK);
	for (uint64_t k = 0; k < 50; k++) {
		get_item_add(&items, k, 0, UINT32_MAX);
	}
	peer_frame(&peer, (struct wire_header){ .op = WIRE_GET, .items_count = 50 }, &items, NULL,
		   0);
	engine_owner_destroy(sr.rig.engine, sr.rig.owner);
	engine_stop(sr.rig.engine, rig_on_done, &w);
	rig_until(&sr.rig, &w);
	w.done = false;
	shard_engine_remove(sr.shard, sr.rig.engine, rig_on_done, &w);
	rig_until(&sr.rig, &w);
	engine_destroy(sr.rig.engine);
	io_device_close(sr.rig.device);
	assert_true(peer_is_ended(&peer, 1000000));
	peer_close(&peer);
	/* The next HELLO finds no shard. */
	peer_connect(&peer, &sr, true);
	peer_hello_shard(&peer, (const uint8_t[16]){ 0 }, &frame);
	assert_int_equal(frame.header.status, WIRE_WRONG_SHARD);
	frame_free(&frame);
	peer_close(&peer);
	assert_int_equal(shard_rig_stat(&sr).conns_refused, 1);
	w.done = false;
	shard_drain(sr.shard, 1000000, rig_on_done, &w);
	rig_until(&sr.rig, &w);
	shard_destroy(sr.shard);
	wire_buf_free(&items);
	io_destroy(sr.peer_io);
	io_destroy(sr.rig.io);
	sim_destroy(sr.rig.sim);
}

/* Method: the network splits everything at random; the same conversation comes out right. */
static void
test_split_stream(void **state)
{
	struct sim_net_options net = { .latency_us_min = 1,
				       .latency_us_max = 50,
				       .recv_split_max = 700 };
	struct shard_rig sr;
	struct peer peer;

	(void)state;
	for (uint64_t seed = 20; seed < 26; seed++) {
		shard_rig_create(&sr, seed, NULL);
		net.recv_split_max = 1 + (uint32_t)seed % 5 * 700;
		sim_net_set(sr.rig.sim, &net);
		peer_open(&peer, &sr);
		peer_put(&peer, 1, 20, 3000, HR_ACK_RAM, HR_STATUS_OK);
		peer_put(&peer, 100, 3, net.recv_split_max > 100 ? 200000 : 5000, HR_ACK_STABLE,
			 HR_STATUS_OK);
		for (uint64_t k = 1; k <= 20; k++) {
			assert_int_equal(peer_get(&peer, k, 3000), 0);
		}
		assert_int_equal(peer_get(&peer, 102, net.recv_split_max > 100 ? 200000 : 5000), 0);
		peer_close(&peer);
		shard_rig_destroy(&sr);
	}
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_put_get),
		cmocka_unit_test(test_ranges),
		cmocka_unit_test(test_get_batch),
		cmocka_unit_test(test_ids),
		cmocka_unit_test(test_bad_input),
		cmocka_unit_test(test_hello),
		cmocka_unit_test(test_unknown_space),
		cmocka_unit_test(test_stalled_reader),
		cmocka_unit_test(test_killed_peer),
		cmocka_unit_test(test_put_busy),
		cmocka_unit_test(test_put_corrupt),
		cmocka_unit_test(test_deadline),
		cmocka_unit_test(test_put_foreign_id),
		cmocka_unit_test(test_killed_between_parts),
		cmocka_unit_test(test_cancel),
		cmocka_unit_test(test_space_ops),
		cmocka_unit_test(test_list),
		cmocka_unit_test(test_ping_map_stat),
		cmocka_unit_test(test_drain),
		cmocka_unit_test(test_engine_remove),
		cmocka_unit_test(test_split_stream),
		cmocka_unit_test(test_stalled_sender),
		cmocka_unit_test(test_many_stalled_readers),
	};

	return cmocka_run_group_tests_name("shard", tests, NULL, NULL);
}
