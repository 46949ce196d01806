/* fakenode.c - a node that keeps blocks in a list and misbehaves when told to. */
#include "lib/fakenode.h"

#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <stdlib.h>
#include <string.h>

#include "base/crc.h"
#include "headrace/batch.h"

enum { IN_BYTES = 80 << 20 };

struct fake_conn {
	struct list_head link;
	struct fakenode *node;
	struct io_conn *conn;
	uint8_t *in;
	size_t have;
	struct wire_buf out; /* being sent */
	struct wire_buf next;
	bool sending, receiving, closed, hello_done;
	uint8_t nonces[32];
	struct wire_buf hello;
	struct iovec iov_in, iov_out;
};

static void conn_recv(struct fake_conn *conn);

static void
conn_free_if_idle(struct fake_conn *conn)
{
	if (conn->closed && !conn->sending && !conn->receiving) {
		list_del(&conn->link);
		wire_buf_free(&conn->out);
		wire_buf_free(&conn->next);
		wire_buf_free(&conn->hello);
		free(conn->in);
		free(conn);
	}
}

static void
conn_close(struct fake_conn *conn)
{
	if (!conn->closed) {
		conn->closed = true;
		io_conn_close(conn->conn);
	}
	conn_free_if_idle(conn);
}

static void
sent(void *arg, int64_t result)
{
	struct fake_conn *conn = arg;

	conn->sending = false;
	if (result < 0 || conn->closed) {
		conn_close(conn);
		return;
	}
	wire_buf_reset(&conn->out);
	if (conn->next.len > 0) {
		struct wire_buf swap = conn->out;

		conn->out = conn->next;
		conn->next = swap;
		conn->sending = true;
		conn->iov_out = (struct iovec){ conn->out.bytes, conn->out.len };
		io_conn_send(conn->conn, &conn->iov_out, 1, sent, conn);
	}
}

static void
bytes_add(struct wire_buf *buf, const void *bytes, size_t len)
{
	if (len > 0 && wire_buf_reserve(buf, len) == 0) {
		memcpy(buf->bytes + buf->len, bytes, len);
		buf->len += len;
	}
}

/* A whole answer. */
static void
answer(struct fake_conn *conn, const struct wire_header *to, uint16_t flags, uint16_t status,
       struct wire_buf *items, uint32_t count, const struct wire_buf *payload, uint64_t payload_sent)
{
	struct wire_header header = { .version = WIRE_VERSION,
				      .op = to->op,
				      .flags = WIRE_FLAG_ANSWER | flags,
				      .request_id = to->request_id,
				      .status = status,
				      .items_count = count,
				      .items_bytes = (uint32_t)items->len,
				      .payload_bytes = payload != NULL ? payload->len : 0,
				      .items_crc = crc32c(0, items->bytes, items->len),
				      .priority = 2 };
	uint8_t bytes[WIRE_HEADER_BYTES];

	if (conn->node->mutate != NULL && items->len > 0 && prng_below(conn->node->mutate, 4) == 0) {
		items->bytes[prng_below(conn->node->mutate, items->len)] ^=
		    (uint8_t)(1u << prng_below(conn->node->mutate, 8));
		header.items_crc = crc32c(0, items->bytes, items->len);
	}
	wire_header_encode(&header, bytes);
	bytes_add(&conn->next, bytes, sizeof(bytes));
	bytes_add(&conn->next, items->bytes, items->len);
	if (payload != NULL) {
		bytes_add(&conn->next, payload->bytes, payload_sent);
	}
	if (!conn->sending) {
		sent(conn, 0);
	}
}

/* The client's nonce within its hello. */
static const uint8_t *
payload_of_hello(struct wire_reader reader)
{
	return reader.at + 24;
}

/* docs/protocol/README.md, AUTH: HMAC over both nonces, the label and the HELLO's items. */
static bool
proof_holds(struct fake_conn *conn, struct wire_reader reader)
{
	struct wire_buf text = { 0 };
	uint8_t proof[EVP_MAX_MD_SIZE];
	unsigned len = 0;

	bytes_add(&text, conn->nonces, 32);
	bytes_add(&text, "headrace auth 1", 15);
	bytes_add(&text, conn->hello.bytes, conn->hello.len);
	(void)HMAC(EVP_sha256(), conn->node->secret, (int)strlen(conn->node->secret), text.bytes,
		   text.len, proof, &len);
	wire_buf_free(&text);
	return reader.end - reader.at == len && memcmp(reader.at, proof, len) == 0;
}

static void
hello(struct fake_conn *conn, const struct wire_header *header, struct wire_reader reader)
{
	struct fakenode *node = conn->node;
	struct wire_server_hello hello = { .version = WIRE_VERSION,
					   .part_bytes = node->part_bytes,
					   .chunk_bytes = WIRE_CHUNK_BYTES,
					   .items_max = WIRE_ITEMS_MAX,
					   .payload_max = WIRE_PAYLOAD_BYTES_MAX,
					   .requests_max = 64,
					   .request_bytes_max = 32 << 20,
					   .tenant_number = 1,
					   .connection_id = 1 };
	struct wire_map_node map_nodes[5];
	struct wire_map_shard map_shards[5];
	struct wire_map map = { .epoch = 1,
				.nodes_count = 1 + node->others_count,
				.shards_count = 1 + node->others_count,
				.nodes = map_nodes,
				.shards = map_shards };
	struct wire_buf items = { 0 };

	node->hellos++;
	conn->hello_done = true;
	memcpy(hello.shard_uuid, node->shard_uuid, 16);
	memcpy(hello.node_uuid, node->node_uuid, 16);
	memset(map_nodes, 0, sizeof(map_nodes));
	memset(map_shards, 0, sizeof(map_shards));
	for (uint32_t i = 0; i < map.nodes_count; i++) {
		const struct fakenode *of = i == 0 ? node : node->others[i - 1];

		memcpy(map_nodes[i].uuid, of->node_uuid, 16);
		memcpy(map_shards[i].uuid, of->shard_uuid, 16);
		map_nodes[i].state = map_shards[i].state = WIRE_SERVING;
		map_nodes[i].text = of->address_text != NULL ? of->address_text : "";
		map_nodes[i].text_len = (uint32_t)strlen(map_nodes[i].text);
		map_shards[i].weight = 1 << 30;
		map_shards[i].node_idx = i;
	}
	if (header->op == WIRE_HELLO) {
		memcpy(conn->nonces, payload_of_hello(reader), 16);
		memset(conn->nonces + 16, 0xab, 16);
		wire_buf_reset(&conn->hello);
		bytes_add(&conn->hello, reader.at, (size_t)(reader.end - reader.at));
		hello.auth = node->secret != NULL;
	} else if (!proof_holds(conn, reader)) {
		answer(conn, header, WIRE_FLAG_LAST | WIRE_FLAG_REFUSED, WIRE_NOT_AUTHENTICATED,
		       &items, 0, NULL, 0);
		return;
	}
	memset(hello.nonce, 0xab, 16);
	if (node->hello_status != 0) {
		answer(conn, header, WIRE_FLAG_LAST | WIRE_FLAG_REFUSED, node->hello_status, &items,
		       0, NULL, 0);
	} else {
		wire_server_hello_encode(&items, &hello);
		wire_map_encode(&items, &map);
		answer(conn, header, WIRE_FLAG_LAST, 0, &items, 2, NULL, 0);
	}
	wire_buf_free(&items);
}

struct fakenode_block *
fakenode_find(struct fakenode *node, const uint8_t id[16], unsigned part)
{
	struct fakenode_block *block;

	list_for_each_entry(block, &node->blocks, link) {
		if (memcmp(block->id, id, 16) == 0 && block->part == part) {
			return block;
		}
	}
	return NULL;
}

static void
put(struct fake_conn *conn, const struct wire_header *header, struct wire_reader reader,
    const uint8_t *payload)
{
	struct fakenode *node = conn->node;
	struct wire_buf items = { 0 };
	const char *why;

	for (uint32_t i = 0; i < header->items_count; i++) {
		struct wire_put_item item;
		struct wire_put_answer one = { .item_idx = i };
		struct fakenode_block *block;
		struct iovec iov;
		uint32_t crcs[WIRE_CRCS_MAX];
		bool good = true;

		if (wire_put_item_decode(&reader, &item, &why) != 0) {
			abort();
		}
		node->put_items++;
		iov = (struct iovec){ (void *)(uintptr_t)payload, item.stored_bytes };
		for (size_t n = crc32c_chunks(&iov, 1, WIRE_CHUNK_BYTES, crcs), c = 0; c < n; c++) {
			good &= crcs[c] == wire_crc_get(item.crcs, (unsigned)c);
		}
		block = fakenode_find(node, item.id, item.part);
		if (node->refuse_puts || !good) {
			one.status = HR_STATUS_REFUSED;
			one.reason = good ? HR_REASON_BUSY : HR_REASON_CORRUPT;
		} else if (block != NULL && (item.flags & WIRE_PUT_REPLACE) == 0) {
			one.flags = WIRE_PUT_DUPLICATE;
			one.flags |= block->len != item.stored_bytes ||
					     memcmp(block->bytes, payload, item.stored_bytes) != 0
					 ? WIRE_PUT_DIFFERS
					 : 0;
		} else {
			if (block == NULL) {
				block = calloc(1, sizeof(*block));
				list_add_tail(&node->blocks, &block->link);
			}
			memcpy(block->id, item.id, 16);
			block->part = item.part;
			block->block_bytes = item.block_bytes;
			block->birth = item.put_number != 0 ? item.put_number : ++node->births;
			block->bytes = realloc(block->bytes, item.stored_bytes + 1);
			memcpy(block->bytes, payload, item.stored_bytes);
			block->len = item.stored_bytes;
			one.flags = item.part + 1 < item.parts_count ? WIRE_PUT_HELD : 0;
		}
		payload += item.stored_bytes;
		wire_put_answer_encode(&items, &one);
	}
	answer(conn, header, WIRE_FLAG_LAST, 0, &items, header->items_count, NULL, 0);
	wire_buf_free(&items);
}

static void
get(struct fake_conn *conn, const struct wire_header *header, struct wire_reader reader)
{
	struct fakenode *node = conn->node;
	struct wire_buf items = { 0 }, payload = { 0 };
	const char *why;

	for (uint32_t i = 0; i < header->items_count; i++) {
		struct wire_get_item item;
		struct wire_get_answer one = { .item_idx = i,
					       .status = HR_STATUS_MISS,
					       .reason = HR_REASON_ABSENT };
		struct fakenode_block *block;
		uint32_t crcs[WIRE_CRCS_MAX], n;
		struct iovec iov;

		if (wire_get_item_decode(&reader, &item, &why) != 0) {
			abort();
		}
		node->get_items++;
		block = fakenode_find(node, item.id, item.part);
		if (block != NULL && item.block_bytes != UINT64_MAX &&
		    item.block_bytes != block->block_bytes) {
			one.reason = HR_REASON_SIZE;
			one.block_bytes = block->block_bytes;
		} else if (block != NULL) {
			n = item.off >= block->len ? 0 : HR_MIN(item.bytes, block->len - item.off);
			iov = (struct iovec){ block->bytes + item.off, n };
			one.status = HR_STATUS_OK;
			one.reason = 0;
			one.flags = WIRE_GOT_DRAM;
			one.block_bytes = block->block_bytes;
			one.birth = block->birth;
			if (node->mixed_births > 0 && item.part == 0) {
				node->mixed_births--;
				one.birth ^= 1;
				one.block_bytes -= node->mixed_shorter;
			}
			one.payload_bytes = n;
			one.part_bytes = block->len;
			one.crcs_count = (uint16_t)crc32c_chunks(&iov, 1, WIRE_CHUNK_BYTES, crcs);
			bytes_add(&payload, block->bytes + item.off, n);
			if (node->corrupt && n > 0) {
				payload.bytes[payload.len - 1] ^= 1;
			}
		}
		wire_get_answer_encode(&items, &one, crcs, NULL);
	}
	answer(conn, header, WIRE_FLAG_LAST, 0, &items, header->items_count, &payload,
	       node->payload_stall != 0 ? HR_MIN(node->payload_stall, payload.len) : payload.len);
	if (node->payload_stall != 0) {
		node->silent = true;
	}
	wire_buf_free(&items);
	wire_buf_free(&payload);
}

static void
ids(struct fake_conn *conn, const struct wire_header *header, struct wire_reader reader)
{
	struct fakenode *node = conn->node;
	struct wire_buf items = { 0 };
	uint8_t *bytes = calloc(1, align_up(header->items_count, 8));
	uint64_t *lens = calloc(header->items_count, 8);
	const char *why;

	for (uint32_t i = 0; i < header->items_count; i++) {
		struct wire_id_item item;
		struct fakenode_block *block;

		if (wire_id_item_decode(&reader, &item, &why) != 0) {
			abort();
		}
		block = fakenode_find(node, item.id, 0);
		bytes[i] = block == NULL ? HR_REASON_ABSENT
					 : WIRE_PRESENT | (header->lease_ms != 0 ? WIRE_LEASED : 0);
		put_le64(&lens[i], block != NULL ? block->block_bytes : 0);
		if (header->op == WIRE_DELETE && block != NULL) {
			list_del(&block->link);
			free(block->bytes);
			free(block);
		}
	}
	node->lease_ms = header->lease_ms;
	bytes_add(&items, bytes, align_up(header->items_count, 8));
	if (header->op == WIRE_EXISTS) {
		bytes_add(&items, lens, (size_t)header->items_count * 8);
	}
	answer(conn, header, WIRE_FLAG_LAST, 0, &items, header->items_count, NULL, 0);
	wire_buf_free(&items);
	free(bytes);
	free(lens);
}

static void
space(struct fake_conn *conn, const struct wire_header *header, struct wire_reader reader)
{
	struct wire_space_request request;
	struct wire_space_row row = { .number = 7, .generation = 1 };
	struct wire_buf items = { 0 };
	const char *why;

	if (wire_space_request_decode(&reader, &request, &why) != 0) {
		abort();
	}
	memcpy(row.digest, request.digest, 32);
	wire_space_row_encode(&items, &row);
	answer(conn, header, WIRE_FLAG_LAST, 0, &items, 1, NULL, 0);
	wire_buf_free(&items);
}

static void
frame(struct fake_conn *conn, const struct wire_header *header, const uint8_t *items,
      const uint8_t *payload)
{
	struct wire_reader reader = { items, items + header->items_bytes };
	struct wire_buf none = { 0 };
	struct wire_header wrong = *header;

	conn->node->frames++;
	conn->node->cancels += header->op == WIRE_CANCEL;
	conn->node->releases += header->op == WIRE_RELEASE;
	conn->node->priority_last = header->priority;
	if (header->op == WIRE_HELLO || header->op == WIRE_AUTH) {
		hello(conn, header, reader);
	} else if (header->op == WIRE_SPACE) {
		space(conn, header, reader);
	} else if (conn->node->silent || (header->flags & WIRE_FLAG_NO_ANSWER) != 0) {
		return;
	} else if (conn->node->extra_answer) {
		wrong.request_id += 1;
		answer(conn, &wrong, WIRE_FLAG_LAST, 0, &none, 0, NULL, 0);
	} else if (header->op == WIRE_PUT) {
		put(conn, header, reader, payload);
	} else if (header->op == WIRE_GET) {
		get(conn, header, reader);
	} else if (header->op == WIRE_STAT) {
		struct wire_buf text = { 0 };

		bytes_add(&text, "{\"node\":1}", 10);
		answer(conn, header, WIRE_FLAG_LAST, 0, &none, 0, &text, text.len);
		wire_buf_free(&text);
	} else {
		ids(conn, header, reader);
	}
}

static void
received(void *arg, int64_t result)
{
	struct fake_conn *conn = arg;
	const char *why;
	size_t at = 0;

	conn->receiving = false;
	if (result <= 0 || conn->closed) {
		conn_close(conn);
		return;
	}
	conn->have += (size_t)result;
	while (conn->have - at >= WIRE_HEADER_BYTES) {
		struct wire_header header;
		size_t whole;

		if (wire_header_decode(conn->in + at, &header, &why) != 0) {
			abort();
		}
		whole = WIRE_HEADER_BYTES + header.items_bytes + header.payload_bytes;
		if (conn->have - at < whole) {
			break;
		}
		if (wire_items_verify(&header, conn->in + at + WIRE_HEADER_BYTES, &why) != 0) {
			abort();
		}
		frame(conn, &header, conn->in + at + WIRE_HEADER_BYTES,
		      conn->in + at + WIRE_HEADER_BYTES + header.items_bytes);
		at += whole;
	}
	memmove(conn->in, conn->in + at, conn->have - at);
	conn->have -= at;
	conn_recv(conn);
}

static void
conn_recv(struct fake_conn *conn)
{
	if (conn->closed || (conn->node->deaf && conn->hello_done && conn->node->frames > 1)) {
		return;
	}
	conn->receiving = true;
	conn->iov_in = (struct iovec){ conn->in + conn->have, IN_BYTES - conn->have };
	io_conn_recv(conn->conn, &conn->iov_in, 1, received, conn);
}

static void
accepted(void *arg, struct io_conn *io_conn)
{
	struct fakenode *node = arg;
	struct fake_conn *conn = calloc(1, sizeof(*conn));

	conn->node = node;
	conn->conn = io_conn;
	conn->in = malloc(IN_BYTES);
	list_add_tail(&node->conns, &conn->link);
	conn_recv(conn);
}

int
fakenode_start(struct io *io, const char *address, uint32_t part_bytes, struct fakenode *ret_node)
{
	*ret_node = (struct fakenode){ .io = io, .part_bytes = part_bytes };
	list_init(&ret_node->conns);
	list_init(&ret_node->blocks);
	memset(ret_node->shard_uuid, 0x51, 16);
	memset(ret_node->node_uuid, 0x52, 16);
	return io_listen(io, address, accepted, ret_node, &ret_node->listener);
}

void
fakenode_break(struct fakenode *node)
{
	struct fake_conn *conn, *tmp;

	list_for_each_entry_safe(conn, tmp, &node->conns, link) {
		conn_close(conn);
	}
}

void
fakenode_stop(struct fakenode *node)
{
	struct fakenode_block *block, *tmp;

	fakenode_break(node);
	if (node->listener != NULL) {
		io_listener_close(node->listener);
		node->listener = NULL;
	}
	list_for_each_entry_safe(block, tmp, &node->blocks, link) {
		list_del(&block->link);
		free(block->bytes);
		free(block);
	}
}
