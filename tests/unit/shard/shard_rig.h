/* shard_rig.h - a shard program on a simulated world, and peers that speak frames to it by hand. For tests. */
#ifndef HR_TESTS_SHARD_RIG_H
#define HR_TESTS_SHARD_RIG_H

#include "../engine/engine_rig.h"
#include "base/hash.h"
#include "shard/shard.h"
#include "wire/wire.h"

struct shard_rig {
	struct rig rig; /* world, device, engine; its own owner and space serve nobody here */
	struct shard *shard;
	struct io *peer_io;
	const char *address;
};

struct peer {
	struct shard_rig *sr;
	struct io_conn *conn;
	bool ended, sending, receiving, failed, lazy;
	uint8_t *bytes; /* received and not taken */
	size_t len, cap;
	uint8_t chunk[65536];
	struct iovec iov, send_iov;
	uint8_t *send_copy;
	uint64_t request_id;
	uint32_t space;
};

struct frame {
	struct wire_header header;
	uint8_t *items, *payload;
};

static inline void
shard_rig_create(struct shard_rig *sr, uint64_t seed, const struct shard_options *options)
{
	struct io_options io = { .disk = IO_DISK_SIM, .net = IO_NET_SIM };
	struct shard_options defaults = { 0 };

	rig_create(&sr->rig, seed, MiB(256), MiB(8));
	io.sim = sr->rig.sim;
	assert_int_equal(io_create(&io, &sr->peer_io), 0);
	assert_int_equal(shard_create(sr->rig.io, options != NULL ? options : &defaults, &sr->shard),
			 0);
	assert_int_equal(shard_engine_add(sr->shard, sr->rig.engine), 0);
	assert_int_equal(shard_listen(sr->shard, "tcp:10.0.0.1:7450", &sr->address), 0);
}

static inline struct shard_stat
shard_rig_stat(struct shard_rig *sr)
{
	struct shard_stat stat;

	shard_stat_get(sr->shard, &stat);
	return stat;
}

static inline void
shard_rig_settle(struct shard_rig *sr, uint64_t us)
{
	sim_run(sr->rig.sim, rig_never, NULL, us);
}

static inline void
shard_rig_destroy(struct shard_rig *sr)
{
	struct rig_wait w = { 0 };

	shard_drain(sr->shard, 1000000, rig_on_done, &w);
	rig_until(&sr->rig, &w);
	shard_rig_settle(sr, 1000000);
	assert_int_equal(shard_rig_stat(sr).conns_now, 0);
	assert_int_equal(shard_rig_stat(sr).requests_now, 0);
	assert_int_equal(shard_rig_stat(sr).output_bytes_now, 0);
	assert_int_equal(shard_rig_stat(sr).put_bytes_now, 0);
	assert_int_equal(shard_rig_stat(sr).stores_queued_now, 0);
	assert_int_equal(shard_rig_stat(sr).borrows_now, 0);
	shard_destroy(sr->shard);
	io_destroy(sr->peer_io);
	rig_destroy(&sr->rig);
}

/* -- a peer --------------------------------------------------------------------------------- */

static void peer_receive(struct peer *peer);

static inline void
peer_recv_cb(void *arg, int64_t result)
{
	struct peer *peer = arg;

	peer->receiving = false;
	if (result <= 0) {
		peer->ended = true;
		return;
	}
	if (peer->len + (size_t)result > peer->cap) {
		peer->cap = (peer->len + (size_t)result) * 2;
		peer->bytes = realloc(peer->bytes, peer->cap);
	}
	memcpy(peer->bytes + peer->len, peer->chunk, (size_t)result);
	peer->len += (size_t)result;
	if (!peer->lazy) {
		peer_receive(peer);
	}
}

static inline void
peer_receive(struct peer *peer)
{
	peer->iov = (struct iovec){ peer->chunk, sizeof(peer->chunk) };
	peer->receiving = true;
	io_conn_recv(peer->conn, &peer->iov, 1, peer_recv_cb, peer);
}

static inline void
peer_connect_cb(void *arg, int rc, struct io_conn *conn)
{
	struct peer *peer = arg;

	assert_int_equal(rc, 0);
	peer->conn = conn;
}

static inline bool
peer_connected(void *arg)
{
	return ((struct peer *)arg)->conn != NULL;
}

/* Without HELLO. `reading` false: takes nothing. */
static inline void
peer_connect(struct peer *peer, struct shard_rig *sr, bool reading)
{
	*peer = (struct peer){ .sr = sr };
	assert_int_equal(io_connect(sr->peer_io, sr->address, 1000000, peer_connect_cb, peer, NULL),
			 0);
	assert_true(sim_run(sr->rig.sim, peer_connected, peer, 1000000));
	if (reading) {
		peer_receive(peer);
	}
}

static inline void
peer_send_cb(void *arg, int64_t result)
{
	struct peer *peer = arg;

	peer->sending = false;
	peer->failed = result < 0;
	free(peer->send_copy);
	peer->send_copy = NULL;
}

static inline bool
peer_sent(void *arg)
{
	return !((struct peer *)arg)->sending;
}

static inline void
peer_send_start(struct peer *peer, const void *bytes, size_t len)
{
	assert_true(sim_run(peer->sr->rig.sim, peer_sent, peer, RIG_WAIT_US));
	peer->send_copy = malloc(len + 1);
	memcpy(peer->send_copy, bytes, len);
	peer->send_iov = (struct iovec){ peer->send_copy, len };
	peer->sending = true;
	io_conn_send(peer->conn, &peer->send_iov, 1, peer_send_cb, peer);
}

static inline void
peer_send(struct peer *peer, const void *bytes, size_t len)
{
	peer_send_start(peer, bytes, len);
	assert_true(sim_run(peer->sr->rig.sim, peer_sent, peer, RIG_WAIT_US));
}

static inline bool
peer_ended(void *arg)
{
	return ((struct peer *)arg)->ended;
}

/* The server ends the connection within the time. */
static inline bool
peer_is_ended(struct peer *peer, uint64_t us)
{
	return sim_run(peer->sr->rig.sim, peer_ended, peer, us);
}

static inline void
peer_close(struct peer *peer)
{
	if (peer->conn != NULL) {
		io_conn_close(peer->conn);
		peer->conn = NULL;
	}
	while (peer->receiving || peer->sending) {
		sim_step(peer->sr->rig.sim);
	}
	shard_rig_settle(peer->sr, 10000);
	free(peer->bytes);
	peer->bytes = NULL;
}

/* -- frames ------------------------------------------------------------------------------------ */

static inline uint64_t
peer_frame_start(struct peer *peer, struct wire_header header, const struct wire_buf *items,
		 const void *payload, size_t payload_bytes)
{
	size_t items_bytes = items != NULL ? items->len : 0;
	uint8_t *bytes = malloc(WIRE_HEADER_BYTES + items_bytes + payload_bytes);

	header.version = WIRE_VERSION;
	header.request_id = header.request_id != 0 ? header.request_id : ++peer->request_id;
	header.space = header.space != 0 ? header.space : peer->space;
	header.items_bytes = (uint32_t)items_bytes;
	header.payload_bytes = payload_bytes;
	header.items_crc = items_bytes > 0 ? crc32c(0, items->bytes, items_bytes) : 0;
	wire_header_encode(&header, bytes);
	if (items_bytes > 0) {
		memcpy(bytes + WIRE_HEADER_BYTES, items->bytes, items_bytes);
	}
	if (payload_bytes > 0) {
		memcpy(bytes + WIRE_HEADER_BYTES + items_bytes, payload, payload_bytes);
	}
	peer_send_start(peer, bytes, WIRE_HEADER_BYTES + items_bytes + payload_bytes);
	free(bytes);
	return header.request_id;
}

static inline uint64_t
peer_frame(struct peer *peer, struct wire_header header, const struct wire_buf *items,
	   const void *payload, size_t payload_bytes)
{
	uint64_t id = peer_frame_start(peer, header, items, payload, payload_bytes);

	assert_true(sim_run(peer->sr->rig.sim, peer_sent, peer, RIG_WAIT_US));
	return id;
}

static inline bool
peer_has_frame(void *arg)
{
	struct peer *peer = arg;
	struct wire_header header;
	const char *why = "";

	if (peer->len < WIRE_HEADER_BYTES) {
		return false;
	}
	assert_int_equal(wire_header_decode(peer->bytes, &header, &why), 0);
	return peer->len >= WIRE_HEADER_BYTES + header.items_bytes + header.payload_bytes;
}

static inline void
frame_free(struct frame *frame)
{
	free(frame->items);
	free(frame->payload);
	*frame = (struct frame){ 0 };
}

/* The next frame that comes; freed with frame_free(). */
static inline void
peer_recv(struct peer *peer, struct frame *ret)
{
	const char *why;
	size_t bytes;

	assert_true(sim_run(peer->sr->rig.sim, peer_has_frame, peer, RIG_WAIT_US));
	assert_int_equal(wire_header_decode(peer->bytes, &ret->header, &why), 0);
	bytes = WIRE_HEADER_BYTES + ret->header.items_bytes + ret->header.payload_bytes;
	ret->items = malloc(ret->header.items_bytes + 1);
	ret->payload = malloc(ret->header.payload_bytes + 1);
	memcpy(ret->items, peer->bytes + WIRE_HEADER_BYTES, ret->header.items_bytes);
	memcpy(ret->payload, peer->bytes + WIRE_HEADER_BYTES + ret->header.items_bytes,
	       ret->header.payload_bytes);
	assert_int_equal(wire_items_verify(&ret->header, ret->items, &why), 0);
	memmove(peer->bytes, peer->bytes + bytes, peer->len - bytes);
	peer->len -= bytes;
}

static inline void
peer_hello_shard(struct peer *peer, const uint8_t uuid[16], struct frame *ret)
{
	struct wire_client_hello hello = {
		.version_min = 1, .version_max = 1, .name = "rig", .name_len = 3
	};
	struct wire_buf items = { 0 };

	memcpy(hello.shard_uuid, uuid, 16);
	wire_client_hello_encode(&items, &hello);
	peer_frame(peer, (struct wire_header){ .op = WIRE_HELLO, .items_count = 1 }, &items, NULL,
		   0);
	peer_recv(peer, ret);
	wire_buf_free(&items);
}

static inline void
peer_hello(struct peer *peer)
{
	const uint8_t any[16] = { 0 };
	struct frame frame;

	peer_hello_shard(peer, any, &frame);
	assert_int_equal(frame.header.status, WIRE_OK);
	assert_int_equal(frame.header.flags, WIRE_FLAG_ANSWER | WIRE_FLAG_LAST);
	frame_free(&frame);
}

static inline void
peer_space_open(struct peer *peer, uint8_t digest)
{
	struct wire_space_request sub = { .sub = WIRE_SPACE_OPEN, .label = "rig", .label_len = 3 };
	struct wire_buf items = { 0 };
	struct wire_space_row row;
	struct wire_reader reader;
	struct frame frame;
	const char *why;

	sub.digest[0] = digest;
	wire_space_request_encode(&items, &sub);
	peer_frame(peer, (struct wire_header){ .op = WIRE_SPACE, .items_count = 1 }, &items, NULL,
		   0);
	wire_buf_free(&items);
	peer_recv(peer, &frame);
	assert_int_equal(frame.header.flags, WIRE_FLAG_ANSWER | WIRE_FLAG_LAST);
	reader = (struct wire_reader){ frame.items, frame.items + frame.header.items_bytes };
	assert_int_equal(wire_space_row_decode(&reader, &row, &why), 0);
	assert_int_equal(row.digest[0], digest);
	assert_int_equal(row.number, frame.header.space);
	peer->space = row.number;
	frame_free(&frame);
}

/* Connected, HELLO said, a space open. */
static inline void
peer_open(struct peer *peer, struct shard_rig *sr)
{
	peer_connect(peer, sr, true);
	peer_hello(peer);
	peer_space_open(peer, 7);
}

/* Ids of the space that peer_open() opens. */
static inline void
key_id(uint64_t key, uint8_t id[16])
{
	static const uint8_t digest[32] = { 7 };
	struct block_id_prefix prefix;

	block_id_prefix_init(&prefix, digest);
	block_id_compute(&prefix, &key, sizeof(key), id);
}

static inline void
put_item_add(struct wire_buf *items, uint64_t key, const uint8_t *value, size_t len, uint16_t flags)
{
	struct wire_put_item item = {
		.block_bytes = len,
		.stored_bytes = (uint32_t)len,
		.parts_count = 1,
		.key = (const uint8_t *)&key,
		.key_len = 8,
		.flags = flags,
	};
	struct iovec iov = { (void *)(uintptr_t)value, len };
	uint32_t crcs[WIRE_CRCS_MAX];

	key_id(key, item.id);
	item.crcs_count = (uint16_t)crc32c_chunks(&iov, 1, WIRE_CHUNK_BYTES, crcs);
	wire_put_item_encode(items, &item, crcs);
}

static inline void
get_item_add(struct wire_buf *items, uint64_t key, uint32_t off, uint32_t bytes)
{
	struct wire_get_item item = { .block_bytes = UINT64_MAX, .off = off, .bytes = bytes };

	key_id(key, item.id);
	wire_get_item_encode(items, &item);
}

static inline void
id_item_add(struct wire_buf *items, uint64_t key)
{
	struct wire_id_item item = { 0 };

	key_id(key, item.id);
	wire_id_item_encode(items, &item);
}

/* Puts `count` blocks key, key + 1, … of `len` bytes in one frame; every answer is expected to be `status`. */
static inline void
peer_put(struct peer *peer, uint64_t key, unsigned count, size_t len, uint8_t ack, uint8_t status)
{
	uint8_t *values = malloc(count * len + 1);
	struct wire_buf items = { 0 };
	unsigned answered = 0;
	uint64_t id;

	for (unsigned i = 0; i < count; i++) {
		rig_bytes(key + i, 0, 0, values + i * len, len);
		put_item_add(&items, key + i, values + i * len, len, 0);
	}
	id = peer_frame(peer,
			(struct wire_header){ .op = WIRE_PUT, .items_count = count, .ack = ack },
			&items, values, count * len);
	while (answered < count) {
		struct frame frame;
		struct wire_reader reader;

		peer_recv(peer, &frame);
		assert_int_equal(frame.header.request_id, id);
		assert_true(frame.header.items_count > 0);
		reader = (struct wire_reader){ frame.items, frame.items + frame.header.items_bytes };
		for (unsigned i = 0; i < frame.header.items_count; i++) {
			struct wire_put_answer answer;
			const char *why;

			assert_int_equal(wire_put_answer_decode(&reader, &answer, &why), 0);
			assert_int_equal(answer.status, status);
			answered++;
		}
		assert_int_equal((frame.header.flags & WIRE_FLAG_LAST) != 0, answered == count);
		frame_free(&frame);
	}
	wire_buf_free(&items);
	free(values);
}

/* Gets one range; the reason, and with 0 every byte was compared with what rig_bytes() gives. */
static inline uint8_t
peer_get_range(struct peer *peer, uint64_t key, uint32_t off, uint32_t bytes, size_t want)
{
	struct wire_buf items = { 0 };
	struct wire_get_answer answer;
	struct wire_reader reader;
	struct frame frame;
	const char *why;
	uint8_t reason;

	get_item_add(&items, key, off, bytes);
	peer_frame(peer, (struct wire_header){ .op = WIRE_GET, .items_count = 1 }, &items, NULL, 0);
	wire_buf_free(&items);
	peer_recv(peer, &frame);
	assert_int_equal(frame.header.flags, WIRE_FLAG_ANSWER | WIRE_FLAG_LAST);
	reader = (struct wire_reader){ frame.items, frame.items + frame.header.items_bytes };
	assert_int_equal(wire_get_answer_decode(&reader, &answer, &why), 0);
	assert_int_equal(answer.payload_bytes, frame.header.payload_bytes);
	reason = answer.reason;
	if (answer.status == HR_STATUS_OK) {
		uint8_t *expected = malloc(want + 1);
		struct iovec iov = { frame.payload, answer.payload_bytes };
		uint32_t crcs[WIRE_CRCS_MAX];

		assert_int_equal(answer.payload_bytes, want);
		assert_int_equal(answer.crc_off, off);
		rig_bytes(key, 0, off, expected, want);
		assert_memory_equal(frame.payload, expected, want);
		assert_int_equal(crc32c_chunks(&iov, 1, WIRE_CHUNK_BYTES, crcs), answer.crcs_count);
		for (unsigned i = 0; i < answer.crcs_count; i++) {
			assert_int_equal(crcs[i], wire_crc_get(answer.crcs, i));
		}
		free(expected);
	} else if (answer.status == HR_STATUS_INVALID) {
		reason = 0xff;
	}
	frame_free(&frame);
	return reason;
}

static inline uint8_t
peer_get(struct peer *peer, uint64_t key, size_t want)
{
	return peer_get_range(peer, key, 0, UINT32_MAX, want);
}

#endif
