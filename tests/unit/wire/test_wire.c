/* test_wire.c - what is encoded comes back; what is cut short or made of noise is refused and never read behind its end. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/base.h"
#include "base/crc.h"
#include "base/prng.h"
#include "headrace/error.h"
#include "wire/wire.h"

static void
fill(void *bytes, size_t len, uint8_t first)
{
	for (size_t i = 0; i < len; i++) {
		((uint8_t *)bytes)[i] = (uint8_t)(first + i);
	}
}

/* Every decoder behind one signature, so that truncation and noise run over all of them. */
typedef int (*decode_fn)(struct wire_reader *reader, const char **ret_why);

#define DECODER(name, type)                                                                        \
	static int decode_##name(struct wire_reader *reader, const char **ret_why)                 \
	{                                                                                          \
		struct type out;                                                                   \
		return wire_##name##_decode(reader, &out, ret_why);                                \
	}
DECODER(client_hello, wire_client_hello)
DECODER(server_hello, wire_server_hello)
DECODER(put_item, wire_put_item)
DECODER(put_answer, wire_put_answer)
DECODER(get_item, wire_get_item)
DECODER(get_answer, wire_get_answer)
DECODER(id_item, wire_id_item)
DECODER(space_request, wire_space_request)
DECODER(space_row, wire_space_row)
DECODER(list_head, wire_list_head)
DECODER(list_entry, wire_list_entry)
DECODER(region, wire_region)

static int
decode_map(struct wire_reader *reader, const char **ret_why)
{
	struct wire_map map;
	int rc = wire_map_decode(reader, &map, ret_why);

	if (rc == 0) {
		wire_map_free(&map);
	}
	return rc;
}

static int
decode_u64(struct wire_reader *reader, const char **ret_why)
{
	uint64_t value;

	return wire_u64_decode(reader, &value, ret_why);
}

static const decode_fn decoders[] = {
	decode_client_hello, decode_server_hello, decode_put_item,   decode_put_answer,
	decode_get_item,     decode_get_answer,	  decode_id_item,    decode_space_request,
	decode_space_row,    decode_list_head,	  decode_list_entry, decode_region,
	decode_map,	     decode_u64,
};

/* Method: every proper prefix, in a heap block of exactly that size (so that ASan sees one byte too many), is refused and moves
 * nothing; the whole is accepted and used up. */
static void
check_truncations(decode_fn decode, const struct wire_buf *buf)
{
	const char *why;

	for (size_t len = 0; len <= buf->len; len++) {
		uint8_t *copy = malloc(len + (len == 0));
		struct wire_reader reader = { copy, copy + len };

		memcpy(copy, buf->bytes, len);
		why = NULL;
		if (len < buf->len) {
			assert_int_equal(decode(&reader, &why), -HR_EPROTO);
			assert_non_null(why);
			assert_ptr_equal(reader.at, copy);
		} else {
			assert_int_equal(decode(&reader, &why), 0);
			assert_ptr_equal(reader.at, reader.end);
		}
		free(copy);
	}
}

static void
test_header(void **state)
{
	struct wire_header in = {
		.version = WIRE_VERSION,
		.op = WIRE_PUT,
		.priority = 3,
		.ack = 1,
		.flags = WIRE_FLAG_ANSWER | WIRE_FLAG_LAST,
		.status = WIRE_BUSY,
		.request_id = 0x1122334455667788,
		.deadline_us = 77,
		.space = 5,
		.items_count = 3,
		.items_bytes = 64,
		.lease_ms = 9000,
		.payload_bytes = 1 << 20,
		.items_crc = 0xdeadbeef,
	};
	struct wire_header out;
	uint8_t bytes[WIRE_HEADER_BYTES], damaged[WIRE_HEADER_BYTES];
	const char *why = NULL;

	(void)state;
	wire_header_encode(&in, bytes);
	assert_memory_equal(bytes, "HRW1", 4);
	assert_int_equal(bytes[4], 1);
	assert_int_equal(bytes[5], 16);
	assert_int_equal(get_le64(bytes + 8), in.request_id);
	assert_int_equal(get_le32(bytes + 28), 3);
	assert_int_equal(get_le64(bytes + 40), 1 << 20);
	memset(&out, 0, sizeof(out));
	assert_int_equal(wire_header_decode(bytes, &out, &why), 0);
	assert_int_equal(out.version, in.version);
	assert_int_equal(out.op, in.op);
	assert_int_equal(out.priority, in.priority);
	assert_int_equal(out.ack, in.ack);
	assert_int_equal(out.flags, in.flags);
	assert_int_equal(out.status, in.status);
	assert_int_equal(out.request_id, in.request_id);
	assert_int_equal(out.deadline_us, in.deadline_us);
	assert_int_equal(out.space, in.space);
	assert_int_equal(out.items_count, in.items_count);
	assert_int_equal(out.items_bytes, in.items_bytes);
	assert_int_equal(out.lease_ms, in.lease_ms);
	assert_int_equal(out.payload_bytes, in.payload_bytes);
	assert_int_equal(out.items_crc, in.items_crc);
	/* Any changed bit is noticed. */
	for (unsigned bit = 0; bit < 8 * WIRE_HEADER_BYTES; bit++) {
		memcpy(damaged, bytes, sizeof(damaged));
		damaged[bit / 8] ^= (uint8_t)(1u << bit % 8);
		why = NULL;
		assert_int_equal(wire_header_decode(damaged, &out, &why), -HR_EPROTO);
		assert_non_null(why);
	}
}

/* Method: one field out of its bounds at a time, with a right checksum. */
static void
test_header_bounds(void **state)
{
	const struct wire_header good = {
		.version = WIRE_VERSION, .op = WIRE_GET, .items_bytes = 56, .items_count = 1
	};
	struct wire_header bad[8];
	struct wire_header out;
	uint8_t bytes[WIRE_HEADER_BYTES];
	const char *why;

	(void)state;
	for (unsigned i = 0; i < ARRAY_SIZE(bad); i++) {
		bad[i] = good;
	}
	bad[0].version = 2;
	bad[1].op = 0;
	bad[2].op = 77;
	bad[3].flags = 16;
	bad[4].items_count = WIRE_ITEMS_MAX + 1;
	bad[5].items_bytes = WIRE_ITEMS_BYTES_MAX + 8;
	bad[6].items_bytes = 57;
	bad[7].payload_bytes = WIRE_PAYLOAD_BYTES_MAX + 1;
	wire_header_encode(&good, bytes);
	assert_int_equal(wire_header_decode(bytes, &out, &why), 0);
	for (unsigned i = 0; i < ARRAY_SIZE(bad); i++) {
		wire_header_encode(&bad[i], bytes);
		assert_int_equal(wire_header_decode(bytes, &out, &why), -HR_EPROTO);
	}
}

static void
test_items_crc(void **state)
{
	uint8_t items[24];
	struct wire_header header = { .items_bytes = sizeof(items) };
	const char *why = NULL;

	(void)state;
	fill(items, sizeof(items), 9);
	header.items_crc = crc32c(0, items, sizeof(items));
	assert_int_equal(wire_items_verify(&header, items, &why), 0);
	items[5] ^= 1;
	assert_int_equal(wire_items_verify(&header, items, &why), -HR_EPROTO);
}

static void
test_hello(void **state)
{
	struct wire_client_hello in = { .version_min = 1,
					.version_max = 3,
					.features = 3,
					.inflight_bytes = 1ull << 40,
					.pid = 4711,
					.name = "vllm",
					.tenant = "blue team",
					.name_len = 4,
					.tenant_len = 9 };
	struct wire_server_hello server = { .version = 1,
					    .auth = 1,
					    .features = 2,
					    .part_bytes = 4 << 20,
					    .chunk_bytes = 65536,
					    .items_max = 16384,
					    .payload_max = 64 << 20,
					    .time_ms = 1234567890123,
					    .requests_max = 1024,
					    .request_bytes_max = 1 << 27,
					    .tenant_number = 7,
					    .connection_id = 0x0102030405060708 };
	struct wire_client_hello out;
	struct wire_server_hello server_out;
	struct wire_buf buf = { 0 };
	struct wire_reader reader;
	const char *why;

	(void)state;
	fill(in.shard_uuid, 16, 1);
	fill(in.nonce, 16, 100);
	wire_client_hello_encode(&buf, &in);
	assert_int_equal(buf.len, 112);
	reader = (struct wire_reader){ buf.bytes, buf.bytes + buf.len };
	assert_int_equal(wire_client_hello_decode(&reader, &out, &why), 0);
	assert_int_equal(out.version_min, 1);
	assert_int_equal(out.version_max, 3);
	assert_int_equal(out.features, 3);
	assert_int_equal(out.inflight_bytes, 1ull << 40);
	assert_int_equal(out.pid, 4711);
	assert_memory_equal(out.shard_uuid, in.shard_uuid, 16);
	assert_memory_equal(out.nonce, in.nonce, 16);
	assert_int_equal(out.name_len, 4);
	assert_memory_equal(out.name, "vllm", 4);
	assert_int_equal(out.tenant_len, 9);
	assert_memory_equal(out.tenant, "blue team", 9);
	check_truncations(decode_client_hello, &buf);

	wire_buf_reset(&buf);
	fill(server.shard_uuid, 16, 2);
	fill(server.node_uuid, 16, 3);
	fill(server.nonce, 16, 4);
	wire_server_hello_encode(&buf, &server);
	assert_int_equal(buf.len, 128);
	memset(&server_out, 0, sizeof(server_out));
	reader = (struct wire_reader){ buf.bytes, buf.bytes + buf.len };
	assert_int_equal(wire_server_hello_decode(&reader, &server_out, &why), 0);
	assert_memory_equal(server_out.node_uuid, server.node_uuid, 16);
	assert_int_equal(server_out.part_bytes, 4 << 20);
	assert_int_equal(server_out.request_bytes_max, 1 << 27);
	assert_int_equal(server_out.tenant_number, 7);
	assert_int_equal(server_out.connection_id, server.connection_id);
	assert_int_equal(server_out.time_ms, server.time_ms);
	check_truncations(decode_server_hello, &buf);
	wire_buf_free(&buf);
}

static void
test_map(void **state)
{
	struct wire_map_node nodes[2] = {
		{ .state = WIRE_SERVING, .text = "tcp=10.0.0.1:7450", .text_len = 17 },
		{ .state = WIRE_JOINING, .text = "", .text_len = 0 }
	};
	struct wire_map_shard shards[3] = {
		{ .weight = 1ull << 40, .node_idx = 1, .state = WIRE_FAILED },
		{ .weight = 5, .node_idx = 0, .state = WIRE_SERVING },
		{ .weight = 6, .node_idx = 0, .state = WIRE_DRAINING_STATE }
	};
	struct wire_map in = { .epoch = 99,
			       .nodes_count = 2,
			       .shards_count = 3,
			       .nodes = nodes,
			       .shards = shards },
			out;
	struct wire_buf buf = { 0 };
	struct wire_reader reader;
	const char *why;

	(void)state;
	fill(nodes[0].uuid, 16, 11);
	fill(shards[2].uuid, 16, 22);
	wire_map_encode(&buf, &in);
	assert_int_equal(buf.len, 16 + 72 + 48 + 3 * 48);
	reader = (struct wire_reader){ buf.bytes, buf.bytes + buf.len };
	assert_int_equal(wire_map_decode(&reader, &out, &why), 0);
	assert_int_equal(out.epoch, 99);
	assert_int_equal(out.nodes_count, 2);
	assert_string_equal(out.nodes[0].text, "tcp=10.0.0.1:7450");
	assert_string_equal(out.nodes[1].text, "");
	assert_memory_equal(out.nodes[0].uuid, nodes[0].uuid, 16);
	assert_int_equal(out.shards_count, 3);
	assert_int_equal(out.shards[0].weight, 1ull << 40);
	assert_int_equal(out.shards[0].node_idx, 1);
	assert_int_equal(out.shards[2].state, WIRE_DRAINING_STATE);
	assert_memory_equal(out.shards[2].uuid, shards[2].uuid, 16);
	wire_map_free(&out);
	check_truncations(decode_map, &buf);
	/* A shard of a node that is not there. */
	put_le32(buf.bytes + buf.len - 24, 2);
	reader = (struct wire_reader){ buf.bytes, buf.bytes + buf.len };
	assert_int_equal(wire_map_decode(&reader, &out, &why), -HR_EPROTO);
	/* Counts that would need more memory than was sent. */
	put_le32(buf.bytes + 8, UINT32_MAX);
	put_le32(buf.bytes + 12, UINT32_MAX);
	reader = (struct wire_reader){ buf.bytes, buf.bytes + buf.len };
	assert_int_equal(wire_map_decode(&reader, &out, &why), -HR_EPROTO);
	wire_buf_free(&buf);
}

static void
test_put(void **state)
{
	const uint32_t crcs[3] = { 0x11111111, 0x22222222, 0x33333333 };
	struct wire_put_item in = { .route = 42,
				    .block_bytes = 140000,
				    .put_number = 9,
				    .staging_off = 1ull << 33,
				    .ttl_ms = 1,
				    .position = 2,
				    .cost_hint_us = 3,
				    .stored_bytes = 140000,
				    .staging_region = 4,
				    .part = 0,
				    .parts_count = 1,
				    .key_len = 5,
				    .crcs_count = 3,
				    .flags = WIRE_PUT_REPLACE | WIRE_PUT_STAGED,
				    .class_hint = 6,
				    .key = (const uint8_t *)"hello" };
	struct wire_put_item bad[8], out;
	struct wire_buf buf = { 0 };
	struct wire_reader reader;
	const char *why;

	(void)state;
	fill(in.id, 16, 50);
	fill(in.parent, 16, 60);
	wire_put_item_encode(&buf, &in, crcs);
	assert_int_equal(buf.len, 128 + 8 + 12 + 4);
	reader = (struct wire_reader){ buf.bytes, buf.bytes + buf.len };
	assert_int_equal(wire_put_item_decode(&reader, &out, &why), 0);
	assert_memory_equal(out.id, in.id, 16);
	assert_memory_equal(out.parent, in.parent, 16);
	assert_int_equal(out.route, 42);
	assert_int_equal(out.block_bytes, 140000);
	assert_int_equal(out.put_number, 9);
	assert_int_equal(out.staging_off, 1ull << 33);
	assert_int_equal(out.ttl_ms, 1);
	assert_int_equal(out.position, 2);
	assert_int_equal(out.cost_hint_us, 3);
	assert_int_equal(out.stored_bytes, 140000);
	assert_int_equal(out.staging_region, 4);
	assert_int_equal(out.parts_count, 1);
	assert_int_equal(out.flags, in.flags);
	assert_int_equal(out.class_hint, 6);
	assert_memory_equal(out.key, "hello", 5);
	assert_int_equal(out.crcs_count, 3);
	assert_int_equal(wire_crc_get(out.crcs, 2), 0x33333333);
	check_truncations(decode_put_item, &buf);
	for (unsigned i = 0; i < ARRAY_SIZE(bad); i++) {
		bad[i] = in;
	}
	bad[0].flags = 8;
	bad[1].parts_count = 0;
	bad[2].part = 1;
	bad[3].key_len = 0;
	bad[4].block_bytes = (128ull << 20) + 1;
	bad[5].stored_bytes = 140001;
	bad[6].crcs_count = 2;
	bad[7].part = 1;
	bad[7].parts_count = 2; /* a key with a later part */
	for (unsigned i = 0; i < ARRAY_SIZE(bad); i++) {
		wire_buf_reset(&buf);
		wire_put_item_encode(&buf, &bad[i], crcs);
		reader = (struct wire_reader){ buf.bytes, buf.bytes + buf.len };
		assert_int_equal(wire_put_item_decode(&reader, &out, &why), -HR_EPROTO);
	}
	wire_buf_free(&buf);
}

static void
test_put_key_bounds(void **state)
{
	uint8_t key[1026];
	struct wire_put_item item = { .parts_count = 1, .key = key };
	struct wire_put_item out;
	struct wire_buf buf = { 0 };
	const char *why;

	(void)state;
	fill(key, sizeof(key), 0);
	for (unsigned len = 1; len <= 1025; len++) {
		struct wire_reader reader;

		wire_buf_reset(&buf);
		item.key_len = (uint16_t)len;
		wire_put_item_encode(&buf, &item, NULL);
		assert_int_equal(buf.len % 8, 0);
		reader = (struct wire_reader){ buf.bytes, buf.bytes + buf.len };
		assert_int_equal(wire_put_item_decode(&reader, &out, &why),
				 len <= 1024 ? 0 : -HR_EPROTO);
		if (len <= 1024) {
			assert_memory_equal(out.key, key, len);
			assert_ptr_equal(reader.at, reader.end);
		}
	}
	wire_buf_free(&buf);
}

static void
test_get(void **state)
{
	const uint32_t crcs[3] = { 1, 2, 3 };
	const struct wire_extent extents[2] = { { 7, 65536, 1ull << 20 }, { 8, 100, 1ull << 35 } };
	struct wire_get_item item = { .route = 1,
				      .block_bytes = UINT64_MAX,
				      .part = 3,
				      .flags = 3,
				      .off = 5,
				      .bytes = UINT32_MAX },
			     item_out;
	struct wire_get_answer in = { .item_idx = 16383,
				      .status = 1,
				      .reason = 8,
				      .flags = WIRE_GOT_SHM | WIRE_GOT_FLASH,
				      .block_bytes = 1ull << 27,
				      .birth = 77,
				      .borrow = 88,
				      .expiry_left_ms = 99,
				      .part_bytes = 4 << 20,
				      .payload_bytes = 12,
				      .crc_off = 13,
				      .crcs_count = 3,
				      .extents_count = 2 },
			       out;
	struct wire_put_answer put = { .item_idx = 3,
				       .status = 2,
				       .reason = 10,
				       .flags = 7,
				       .birth = 1ull << 50 },
			       put_out;
	struct wire_extent extent;
	struct wire_buf buf = { 0 };
	struct wire_reader reader;
	const char *why;

	(void)state;
	fill(item.id, 16, 5);
	wire_get_item_encode(&buf, &item);
	assert_int_equal(buf.len, 56);
	reader = (struct wire_reader){ buf.bytes, buf.bytes + buf.len };
	assert_int_equal(wire_get_item_decode(&reader, &item_out, &why), 0);
	assert_memory_equal(item_out.id, item.id, 16);
	assert_int_equal(item_out.part, 3);
	assert_int_equal(item_out.flags, 3);
	assert_int_equal(item_out.off, 5);
	assert_int_equal(item_out.bytes, UINT32_MAX);
	check_truncations(decode_get_item, &buf);
	buf.bytes[34] = 4;
	reader = (struct wire_reader){ buf.bytes, buf.bytes + buf.len };
	assert_int_equal(wire_get_item_decode(&reader, &item_out, &why), -HR_EPROTO);

	wire_buf_reset(&buf);
	wire_get_answer_encode(&buf, &in, crcs, extents);
	assert_int_equal(buf.len, 64 + 16 + 32);
	reader = (struct wire_reader){ buf.bytes, buf.bytes + buf.len };
	assert_int_equal(wire_get_answer_decode(&reader, &out, &why), 0);
	assert_int_equal(out.item_idx, 16383);
	assert_int_equal(out.status, 1);
	assert_int_equal(out.reason, 8);
	assert_int_equal(out.flags, in.flags);
	assert_int_equal(out.block_bytes, in.block_bytes);
	assert_int_equal(out.birth, 77);
	assert_int_equal(out.borrow, 88);
	assert_int_equal(out.expiry_left_ms, 99);
	assert_int_equal(out.part_bytes, 4 << 20);
	assert_int_equal(out.payload_bytes, 12);
	assert_int_equal(out.crc_off, 13);
	assert_int_equal(wire_crc_get(out.crcs, 1), 2);
	wire_extent_get(out.extents, 1, &extent);
	assert_int_equal(extent.chunk, 8);
	assert_int_equal(extent.bytes, 100);
	assert_int_equal(extent.off, 1ull << 35);
	check_truncations(decode_get_answer, &buf);

	wire_buf_reset(&buf);
	wire_put_answer_encode(&buf, &put);
	reader = (struct wire_reader){ buf.bytes, buf.bytes + buf.len };
	assert_int_equal(wire_put_answer_decode(&reader, &put_out, &why), 0);
	assert_int_equal(put_out.item_idx, 3);
	assert_int_equal(put_out.status, 2);
	assert_int_equal(put_out.reason, 10);
	assert_int_equal(put_out.flags, 7);
	assert_int_equal(put_out.birth, 1ull << 50);
	check_truncations(decode_put_answer, &buf);
	wire_buf_free(&buf);
}

static void
test_space(void **state)
{
	struct wire_space_request in = { .label = "default",
					 .label_len = 7,
					 .cursor = 11,
					 .quota_bytes = 12,
					 .pin_budget_bytes = 13 };
	struct wire_space_request out;
	struct wire_space_row row = { .number = 1,
				      .generation = 2,
				      .label = "kv",
				      .blocks = 3,
				      .bytes = 4,
				      .quota_bytes = 5,
				      .pin_budget_bytes = 6,
				      .pinned_bytes = 7,
				      .gets = 8,
				      .hits = 9,
				      .puts = 10 },
			      row_out;
	struct wire_buf buf = { 0 };
	struct wire_reader reader;
	const char *why;

	(void)state;
	fill(in.digest, 32, 70);
	for (in.sub = WIRE_SPACE_OPEN; in.sub <= WIRE_SPACE_SET; in.sub++) {
		wire_buf_reset(&buf);
		wire_space_request_encode(&buf, &in);
		reader = (struct wire_reader){ buf.bytes, buf.bytes + buf.len };
		assert_int_equal(wire_space_request_decode(&reader, &out, &why), 0);
		assert_int_equal(out.sub, in.sub);
		if (in.sub == WIRE_SPACE_OPEN) {
			assert_memory_equal(out.digest, in.digest, 32);
			assert_int_equal(out.label_len, 7);
			assert_memory_equal(out.label, "default", 7);
		}
		if (in.sub == WIRE_SPACE_LIST) {
			assert_int_equal(out.cursor, 11);
		}
		if (in.sub == WIRE_SPACE_SET) {
			assert_int_equal(out.quota_bytes, 12);
			assert_int_equal(out.pin_budget_bytes, 13);
		}
		check_truncations(decode_space_request, &buf);
	}
	put_le32(buf.bytes, 6);
	reader = (struct wire_reader){ buf.bytes, buf.bytes + buf.len };
	assert_int_equal(wire_space_request_decode(&reader, &out, &why), -HR_EPROTO);

	wire_buf_reset(&buf);
	fill(row.digest, 32, 80);
	wire_space_row_encode(&buf, &row);
	assert_int_equal(buf.len, 192);
	reader = (struct wire_reader){ buf.bytes, buf.bytes + buf.len };
	assert_int_equal(wire_space_row_decode(&reader, &row_out, &why), 0);
	assert_int_equal(row_out.number, 1);
	assert_int_equal(row_out.generation, 2);
	assert_memory_equal(row_out.digest, row.digest, 32);
	assert_string_equal(row_out.label, "kv");
	assert_int_equal(row_out.pinned_bytes, 7);
	assert_int_equal(row_out.puts, 10);
	check_truncations(decode_space_row, &buf);
	wire_buf_free(&buf);
}

static void
test_small_items(void **state)
{
	struct wire_id_item id = { .route = 0x99 }, id_out;
	struct wire_list_head head = { .cursor = 5, .count = 6 }, head_out;
	struct wire_region region = { .number = 1, .epoch = 2, .bytes = 1ull << 30 }, region_out;
	struct wire_list_entry entry = { .route = 1,
					 .block_bytes = 2,
					 .expiry_ms = 3,
					 .position = 4,
					 .key_len = 9,
					 .key = (const uint8_t *)"some keys" },
			       entry_out;
	struct wire_buf buf = { 0 };
	struct wire_reader reader;
	uint64_t number;
	const char *why;

	(void)state;
	fill(id.id, 16, 1);
	wire_id_item_encode(&buf, &id);
	wire_list_head_encode(&buf, &head);
	wire_region_encode(&buf, &region);
	wire_u64_encode(&buf, UINT64_MAX - 1);
	fill(entry.id, 16, 2);
	fill(entry.parent, 16, 3);
	wire_list_entry_encode(&buf, &entry);
	assert_false(buf.failed);
	reader = (struct wire_reader){ buf.bytes, buf.bytes + buf.len };
	assert_int_equal(wire_id_item_decode(&reader, &id_out, &why), 0);
	assert_memory_equal(id_out.id, id.id, 16);
	assert_int_equal(id_out.route, 0x99);
	assert_int_equal(wire_list_head_decode(&reader, &head_out, &why), 0);
	assert_int_equal(head_out.cursor, 5);
	assert_int_equal(head_out.count, 6);
	assert_int_equal(wire_region_decode(&reader, &region_out, &why), 0);
	assert_int_equal(region_out.number, 1);
	assert_int_equal(region_out.epoch, 2);
	assert_int_equal(region_out.bytes, 1ull << 30);
	assert_int_equal(wire_u64_decode(&reader, &number, &why), 0);
	assert_int_equal(number, UINT64_MAX - 1);
	assert_int_equal(wire_list_entry_decode(&reader, &entry_out, &why), 0);
	assert_memory_equal(entry_out.id, entry.id, 16);
	assert_memory_equal(entry_out.parent, entry.parent, 16);
	assert_int_equal(entry_out.expiry_ms, 3);
	assert_int_equal(entry_out.position, 4);
	assert_int_equal(entry_out.key_len, 9);
	assert_memory_equal(entry_out.key, "some keys", 9);
	assert_ptr_equal(reader.at, reader.end);
	wire_buf_reset(&buf);
	wire_list_entry_encode(&buf, &entry);
	check_truncations(decode_list_entry, &buf);
	wire_buf_reset(&buf);
	wire_id_item_encode(&buf, &id);
	check_truncations(decode_id_item, &buf);
	wire_buf_free(&buf);
}

/* Method: noise of random length in exactly sized heap blocks; a decoder either refuses it without moving or moves within it. */
static void
test_noise(void **state)
{
	struct prng prng;

	(void)state;
	prng_init(&prng, 20);
	for (unsigned round = 0; round < 20000; round++) {
		size_t len = prng_below(&prng, 400);
		uint8_t *copy = malloc(len + (len == 0));

		prng_bytes(&prng, copy, len);
		/* Small numbers reach deeper than noise does. */
		for (size_t i = 0; i < len; i++) {
			if (prng_below(&prng, 4) != 0) {
				copy[i] = (uint8_t)prng_below(&prng, 3);
			}
		}
		for (unsigned d = 0; d < ARRAY_SIZE(decoders); d++) {
			struct wire_reader reader = { copy, copy + len };
			const char *why = NULL;
			int rc = decoders[d](&reader, &why);

			assert_true(reader.at >= copy && reader.at <= reader.end);
			assert_true(rc == 0 ||
				    (rc == -HR_EPROTO && why != NULL && reader.at == copy));
		}
		free(copy);
	}
}

static void
test_names(void **state)
{
	(void)state;
	assert_string_equal(wire_status_name(WIRE_BUSY), "busy");
	assert_string_equal(wire_status_name(WIRE_STATUS_COUNT), "unknown status");
	assert_string_equal(wire_op_name(WIRE_STAGING), "staging");
	assert_string_equal(wire_op_name(200), "unknown");
	for (unsigned i = 0; i < WIRE_STATUS_COUNT; i++) {
		assert_true(strlen(wire_status_name(i)) > 1);
	}
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_header),
		cmocka_unit_test(test_header_bounds),
		cmocka_unit_test(test_items_crc),
		cmocka_unit_test(test_hello),
		cmocka_unit_test(test_map),
		cmocka_unit_test(test_put),
		cmocka_unit_test(test_put_key_bounds),
		cmocka_unit_test(test_get),
		cmocka_unit_test(test_space),
		cmocka_unit_test(test_small_items),
		cmocka_unit_test(test_noise),
		cmocka_unit_test(test_names),
	};

	return cmocka_run_group_tests_name("wire", tests, NULL, NULL);
}
