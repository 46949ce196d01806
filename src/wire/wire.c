/* wire.c - the codec of docs/protocol/README.md, one pair of functions per table there.
 *
 * Fields are put and taken one after the other, in the order of the tables; each function ends with an assertion that the
 * table's size was met. What arrives is checked here as far as a single item can tell; what needs state (a known space, a
 * request that is in flight) is the session's.
 */
#include "wire/wire.h"

#include <errno.h>
#include <stdlib.h>

#include "base/base.h"
#include "base/crc.h"
#include "headrace/batch.h"
#include "headrace/error.h"

static const uint8_t MAGIC[4] = { 'H', 'R', 'W', '1' };

enum {
	CLIENT_HELLO_BYTES = 96,
	SERVER_HELLO_BYTES = 128,
	MAP_HEAD_BYTES = 16,
	MAP_NODE_BYTES = 48,
	MAP_SHARD_BYTES = 48,
	PUT_ITEM_BYTES = 128,
	PUT_ANSWER_BYTES = 24,
	GET_ITEM_BYTES = 56,
	GET_ANSWER_BYTES = 64,
	ID_ITEM_BYTES = 24,
	EXTENT_BYTES = 16,
	SPACE_ROW_BYTES = 192,
	LIST_ENTRY_BYTES = 72,
};

/* -- names ------------------------------------------------------------------------------------------------------------- */

const char *
wire_status_name(unsigned status)
{
	static const char *const names[WIRE_STATUS_COUNT] = {
		"ok",	       "version not supported", "not authenticated",
		"wrong shard", "unknown space",		"too many connections",
		"busy",	       "space table full",	"shard failed",
		"draining",    "not supported",		"read only",
	};

	return status < WIRE_STATUS_COUNT ? names[status] : "unknown status";
}

static const char *const op_names[64] = {
	[WIRE_HELLO] = "hello",	    [WIRE_AUTH] = "auth",	  [WIRE_SPACE] = "space",
	[WIRE_PING] = "ping",	    [WIRE_MAP] = "map",		  [WIRE_STAT] = "stat",
	[WIRE_PUT] = "put",	    [WIRE_GET] = "get",		  [WIRE_EXISTS] = "exists",
	[WIRE_TOUCH] = "touch",	    [WIRE_DELETE] = "delete",	  [WIRE_PREFETCH] = "prefetch",
	[WIRE_RELEASE] = "release", [WIRE_UNBORROW] = "unborrow", [WIRE_LIST] = "list",
	[WIRE_CANCEL] = "cancel",   [WIRE_GOAWAY] = "goaway",	  [WIRE_CHUNK] = "chunk",
	[WIRE_STAGING] = "staging",
};

static bool
op_known(unsigned op)
{
	return op < ARRAY_SIZE(op_names) && op_names[op] != NULL;
}

const char *
wire_op_name(unsigned op)
{
	return op_known(op) ? op_names[op] : "unknown";
}

const char *
wire_reason_name(unsigned reason)
{
	static const char *const names[HR_REASON_COUNT] = {
#define REASON_NAME(name, value, text) [value] = text,
		HR_REASON_TABLE(REASON_NAME)
#undef REASON_NAME
	};

	return reason < HR_REASON_COUNT ? names[reason] : "unknown";
}

/* -- fields, one after the other ------------------------------------------------------------------------------------------ */

static uint8_t *
put8(uint8_t *at, uint8_t v)
{
	*at = v;
	return at + 1;
}

static uint8_t *
put16(uint8_t *at, uint16_t v)
{
	put_le16(at, v);
	return at + 2;
}

static uint8_t *
put32(uint8_t *at, uint32_t v)
{
	put_le32(at, v);
	return at + 4;
}

static uint8_t *
put64(uint8_t *at, uint64_t v)
{
	put_le64(at, v);
	return at + 8;
}

static uint8_t *
put_bytes(uint8_t *at, const void *bytes, size_t len)
{
	if (len > 0) {
		memcpy(at, bytes, len);
	}
	return at + len;
}

static uint8_t *
put_zeros(uint8_t *at, size_t len)
{
	memset(at, 0, len);
	return at + len;
}

static uint8_t
take8(const uint8_t **at)
{
	return *(*at)++;
}

static uint16_t
take16(const uint8_t **at)
{
	uint16_t v = get_le16(*at);

	*at += 2;
	return v;
}

static uint32_t
take32(const uint8_t **at)
{
	uint32_t v = get_le32(*at);

	*at += 4;
	return v;
}

static uint64_t
take64(const uint8_t **at)
{
	uint64_t v = get_le64(*at);

	*at += 8;
	return v;
}

static void
take_bytes(const uint8_t **at, void *ret, size_t len)
{
	memcpy(ret, *at, len);
	*at += len;
}

static size_t
reader_left(const struct wire_reader *reader)
{
	return (size_t)(reader->end - reader->at);
}

static int
bad(const char **ret_why, const char *why)
{
	*ret_why = why;
	return -HR_EPROTO;
}

/* -- buffers ----------------------------------------------------------------------------------------------------------------- */

void
wire_buf_free(struct wire_buf *buf)
{
	free(buf->bytes);
	*buf = (struct wire_buf){ 0 };
}

void
wire_buf_reset(struct wire_buf *buf)
{
	buf->len = 0;
	buf->failed = false;
}

int
wire_buf_reserve(struct wire_buf *buf, size_t more)
{
	size_t cap = buf->cap == 0 ? 512 : buf->cap;
	uint8_t *bytes;

	if (buf->cap - buf->len >= more) {
		return 0;
	}
	while (cap - buf->len < more) {
		cap *= 2;
	}
	bytes = realloc(buf->bytes, cap);
	if (bytes == NULL) {
		buf->failed = true;
		return -ENOMEM;
	}
	buf->bytes = bytes;
	buf->cap = cap;
	return 0;
}

/* Where `len` more bytes go, or NULL (and buf->failed). */
static uint8_t *
buf_extend(struct wire_buf *buf, size_t len)
{
	uint8_t *at;

	if (buf->failed || wire_buf_reserve(buf, len) != 0) {
		return NULL;
	}
	at = buf->bytes + buf->len;
	buf->len += len;
	return at;
}

/* -- header ------------------------------------------------------------------------------------------------------------------ */

void
wire_header_encode(const struct wire_header *header, uint8_t ret[WIRE_HEADER_BYTES])
{
	uint8_t *at = ret;

	at = put_bytes(at, MAGIC, sizeof(MAGIC));
	at = put8(at, header->version);
	at = put8(at, header->op);
	at = put16(at, header->flags);
	at = put64(at, header->request_id);
	at = put32(at, header->deadline_us);
	at = put8(at, header->priority);
	at = put8(at, header->ack);
	at = put16(at, header->status);
	at = put32(at, header->space);
	at = put32(at, header->items_count);
	at = put32(at, header->items_bytes);
	at = put32(at, header->lease_ms);
	at = put64(at, header->payload_bytes);
	at = put32(at, header->items_crc);
	at = put_zeros(at, 8);
	at = put32(at, crc32c(0, ret, WIRE_HEADER_BYTES - 4));
	HR_ASSERT(at == ret + WIRE_HEADER_BYTES);
}

static int
header_check(const struct wire_header *header, const char **ret_why)
{
	const uint16_t flags_known = WIRE_FLAG_ANSWER | WIRE_FLAG_LAST | WIRE_FLAG_REFUSED |
				     WIRE_FLAG_NO_ANSWER;

	if (header->version != WIRE_VERSION) {
		return bad(ret_why, "frame of another version");
	}
	if (!op_known(header->op)) {
		return bad(ret_why, "unknown opcode");
	}
	if ((header->flags & ~flags_known) != 0) {
		return bad(ret_why, "unknown frame flag");
	}
	if (header->items_count > WIRE_ITEMS_MAX) {
		return bad(ret_why, "too many items");
	}
	if (header->items_bytes > WIRE_ITEMS_BYTES_MAX || header->items_bytes % 8 != 0) {
		return bad(ret_why, "absurd length of items");
	}
	if (header->payload_bytes > WIRE_PAYLOAD_BYTES_MAX) {
		return bad(ret_why, "absurd length of payload");
	}
	return 0;
}

int
wire_header_decode(const uint8_t bytes[WIRE_HEADER_BYTES], struct wire_header *ret,
		   const char **ret_why)
{
	const uint8_t *at = bytes + sizeof(MAGIC);
	struct wire_header header;
	int rc;

	if (memcmp(bytes, MAGIC, sizeof(MAGIC)) != 0) {
		return bad(ret_why, "wrong magic");
	}
	if (get_le32(bytes + WIRE_HEADER_BYTES - 4) != crc32c(0, bytes, WIRE_HEADER_BYTES - 4)) {
		return bad(ret_why, "wrong checksum of the header");
	}
	header.version = take8(&at);
	header.op = take8(&at);
	header.flags = take16(&at);
	header.request_id = take64(&at);
	header.deadline_us = take32(&at);
	header.priority = take8(&at);
	header.ack = take8(&at);
	header.status = take16(&at);
	header.space = take32(&at);
	header.items_count = take32(&at);
	header.items_bytes = take32(&at);
	header.lease_ms = take32(&at);
	header.payload_bytes = take64(&at);
	header.items_crc = take32(&at);
	rc = header_check(&header, ret_why);
	if (rc == 0) {
		*ret = header;
	}
	return rc;
}

int
wire_items_verify(const struct wire_header *header, const uint8_t *items, const char **ret_why)
{
	if (crc32c(0, items, header->items_bytes) != header->items_crc) {
		return bad(ret_why, "wrong checksum of the items");
	}
	return 0;
}

/* -- HELLO ------------------------------------------------------------------------------------------------------------------- */

void
wire_client_hello_encode(struct wire_buf *buf, const struct wire_client_hello *hello)
{
	size_t text = (size_t)hello->name_len + hello->tenant_len;
	size_t len = align_up(CLIENT_HELLO_BYTES + text, 8);
	uint8_t *start = buf_extend(buf, len);
	uint8_t *at = start;

	if (start == NULL) {
		return;
	}
	at = put16(at, hello->version_min);
	at = put16(at, hello->version_max);
	at = put32(at, hello->features);
	at = put_bytes(at, hello->shard_uuid, 16);
	at = put_bytes(at, hello->nonce, 16);
	at = put64(at, hello->inflight_bytes);
	at = put32(at, hello->pid);
	at = put16(at, hello->name_len);
	at = put16(at, 0);
	at = put16(at, hello->tenant_len);
	at = put_zeros(at, 38);
	HR_ASSERT(at == start + CLIENT_HELLO_BYTES);
	at = put_bytes(at, hello->name, hello->name_len);
	at = put_bytes(at, hello->tenant, hello->tenant_len);
	put_zeros(at, len - CLIENT_HELLO_BYTES - text);
}

int
wire_client_hello_decode(struct wire_reader *reader, struct wire_client_hello *ret,
			 const char **ret_why)
{
	const uint8_t *at = reader->at;
	struct wire_client_hello hello;
	size_t len;

	if (reader_left(reader) < CLIENT_HELLO_BYTES) {
		return bad(ret_why, "short client hello");
	}
	hello.version_min = take16(&at);
	hello.version_max = take16(&at);
	hello.features = take32(&at);
	take_bytes(&at, hello.shard_uuid, 16);
	take_bytes(&at, hello.nonce, 16);
	hello.inflight_bytes = take64(&at);
	hello.pid = take32(&at);
	hello.name_len = take16(&at);
	at += 2;
	hello.tenant_len = take16(&at);
	at += 38;
	len = align_up(CLIENT_HELLO_BYTES + (size_t)hello.name_len + hello.tenant_len, 8);
	if (len > reader_left(reader)) {
		return bad(ret_why, "client hello shorter than its names");
	}
	if (hello.version_min > hello.version_max) {
		return bad(ret_why, "client hello with an empty range of versions");
	}
	hello.name = (const char *)at;
	hello.tenant = (const char *)at + hello.name_len;
	reader->at += len;
	*ret = hello;
	return 0;
}

void
wire_server_hello_encode(struct wire_buf *buf, const struct wire_server_hello *hello)
{
	uint8_t *start = buf_extend(buf, SERVER_HELLO_BYTES);
	uint8_t *at = start;

	if (start == NULL) {
		return;
	}
	at = put16(at, hello->version);
	at = put16(at, hello->auth);
	at = put32(at, hello->features);
	at = put_bytes(at, hello->shard_uuid, 16);
	at = put_bytes(at, hello->node_uuid, 16);
	at = put_bytes(at, hello->nonce, 16);
	at = put32(at, hello->part_bytes);
	at = put32(at, hello->chunk_bytes);
	at = put32(at, hello->items_max);
	at = put32(at, hello->payload_max);
	at = put64(at, hello->time_ms);
	at = put32(at, hello->requests_max);
	at = put32(at, hello->request_bytes_max);
	at = put32(at, hello->tenant_number);
	at = put64(at, hello->connection_id);
	at = put_zeros(at, 28);
	HR_ASSERT(at == start + SERVER_HELLO_BYTES);
}

int
wire_server_hello_decode(struct wire_reader *reader, struct wire_server_hello *ret,
			 const char **ret_why)
{
	const uint8_t *at = reader->at;

	if (reader_left(reader) < SERVER_HELLO_BYTES) {
		return bad(ret_why, "short server hello");
	}
	ret->version = take16(&at);
	ret->auth = take16(&at);
	ret->features = take32(&at);
	take_bytes(&at, ret->shard_uuid, 16);
	take_bytes(&at, ret->node_uuid, 16);
	take_bytes(&at, ret->nonce, 16);
	ret->part_bytes = take32(&at);
	ret->chunk_bytes = take32(&at);
	ret->items_max = take32(&at);
	ret->payload_max = take32(&at);
	ret->time_ms = take64(&at);
	ret->requests_max = take32(&at);
	ret->request_bytes_max = take32(&at);
	ret->tenant_number = take32(&at);
	ret->connection_id = take64(&at);
	reader->at += SERVER_HELLO_BYTES;
	return 0;
}

/* -- map --------------------------------------------------------------------------------------------------------------------- */

static void
map_node_encode(struct wire_buf *buf, const struct wire_map_node *node)
{
	size_t len = align_up((size_t)MAP_NODE_BYTES + node->text_len, 8);
	uint8_t *start = buf_extend(buf, len);
	uint8_t *at = start;

	if (start == NULL) {
		return;
	}
	at = put_bytes(at, node->uuid, 16);
	at = put8(at, node->state);
	at = put_zeros(at, 3);
	at = put32(at, node->text_len);
	at = put_zeros(at, 24);
	HR_ASSERT(at == start + MAP_NODE_BYTES);
	at = put_bytes(at, node->text, node->text_len);
	put_zeros(at, len - MAP_NODE_BYTES - node->text_len);
}

static void
map_shard_encode(struct wire_buf *buf, const struct wire_map_shard *shard)
{
	uint8_t *start = buf_extend(buf, MAP_SHARD_BYTES);
	uint8_t *at = start;

	if (start == NULL) {
		return;
	}
	at = put_bytes(at, shard->uuid, 16);
	at = put64(at, shard->weight);
	at = put32(at, shard->node_idx);
	at = put8(at, shard->state);
	at = put_zeros(at, 19);
	HR_ASSERT(at == start + MAP_SHARD_BYTES);
}

void
wire_map_encode(struct wire_buf *buf, const struct wire_map *map)
{
	uint8_t *at = buf_extend(buf, MAP_HEAD_BYTES);

	if (at == NULL) {
		return;
	}
	at = put64(at, map->epoch);
	at = put32(at, map->shards_count);
	put32(at, map->nodes_count);
	for (uint32_t i = 0; i < map->nodes_count; i++) {
		map_node_encode(buf, &map->nodes[i]);
	}
	for (uint32_t i = 0; i < map->shards_count; i++) {
		map_shard_encode(buf, &map->shards[i]);
	}
}

static int
map_node_decode(struct wire_reader *reader, struct wire_map_node *ret, const char **ret_why)
{
	const uint8_t *at = reader->at;
	size_t len;
	char *text;

	if (reader_left(reader) < MAP_NODE_BYTES) {
		return bad(ret_why, "short node in the map");
	}
	take_bytes(&at, ret->uuid, 16);
	ret->state = take8(&at);
	at += 3;
	ret->text_len = take32(&at);
	at += 24;
	len = align_up((uint64_t)MAP_NODE_BYTES + ret->text_len, 8);
	if (len > reader_left(reader)) {
		return bad(ret_why, "node in the map shorter than its text");
	}
	text = malloc((size_t)ret->text_len + 1);
	if (text == NULL) {
		*ret_why = "out of memory";
		return -ENOMEM;
	}
	memcpy(text, at, ret->text_len);
	text[ret->text_len] = '\0';
	ret->text = text;
	reader->at += len;
	return 0;
}

static int
map_shard_decode(struct wire_reader *reader, const struct wire_map *map, struct wire_map_shard *ret,
		 const char **ret_why)
{
	const uint8_t *at = reader->at;

	if (reader_left(reader) < MAP_SHARD_BYTES) {
		return bad(ret_why, "short shard in the map");
	}
	take_bytes(&at, ret->uuid, 16);
	ret->weight = take64(&at);
	ret->node_idx = take32(&at);
	ret->state = take8(&at);
	if (ret->node_idx >= map->nodes_count) {
		return bad(ret_why, "shard of a node that the map does not have");
	}
	reader->at += MAP_SHARD_BYTES;
	return 0;
}

int
wire_map_decode(struct wire_reader *reader, struct wire_map *ret, const char **ret_why)
{
	struct wire_reader rest = *reader;
	struct wire_map map = { 0 };
	uint32_t shards_count, nodes_count;
	int rc = 0;

	if (reader_left(&rest) < MAP_HEAD_BYTES) {
		return bad(ret_why, "short map");
	}
	map.epoch = take64(&rest.at);
	shards_count = take32(&rest.at);
	nodes_count = take32(&rest.at);
	/* Counts are believed only as far as bytes are there for them: memory is bounded by what was received. */
	if ((uint64_t)nodes_count * MAP_NODE_BYTES + (uint64_t)shards_count * MAP_SHARD_BYTES >
	    reader_left(&rest)) {
		return bad(ret_why, "map shorter than its counts");
	}
	map.nodes = calloc((size_t)nodes_count + 1, sizeof(*map.nodes));
	map.shards = calloc((size_t)shards_count + 1, sizeof(*map.shards));
	if (map.nodes == NULL || map.shards == NULL) {
		*ret_why = "out of memory";
		rc = -ENOMEM;
		goto out;
	}
	while (rc == 0 && map.nodes_count < nodes_count) {
		rc = map_node_decode(&rest, &map.nodes[map.nodes_count], ret_why);
		map.nodes_count += rc == 0;
	}
	while (rc == 0 && map.shards_count < shards_count) {
		rc = map_shard_decode(&rest, &map, &map.shards[map.shards_count], ret_why);
		map.shards_count += rc == 0;
	}
out:
	if (rc != 0) {
		wire_map_free(&map);
		return rc;
	}
	*reader = rest;
	*ret = map;
	return 0;
}

void
wire_map_free(struct wire_map *map)
{
	for (uint32_t i = 0; map->nodes != NULL && i < map->nodes_count; i++) {
		free((void *)(uintptr_t)map->nodes[i].text);
	}
	free(map->nodes);
	free(map->shards);
	*map = (struct wire_map){ 0 };
}

/* -- PUT --------------------------------------------------------------------------------------------------------------------- */

void
wire_put_item_encode(struct wire_buf *buf, const struct wire_put_item *item, const uint32_t *crcs)
{
	size_t key_bytes = align_up(item->key_len, 4);
	size_t len = align_up(PUT_ITEM_BYTES + key_bytes + 4 * (size_t)item->crcs_count, 8);
	uint8_t *start = buf_extend(buf, len);
	uint8_t *at = start;

	if (start == NULL) {
		return;
	}
	at = put_bytes(at, item->id, 16);
	at = put64(at, item->route);
	at = put_bytes(at, item->parent, 16);
	at = put64(at, item->block_bytes);
	at = put64(at, item->put_number);
	at = put64(at, item->staging_off);
	at = put32(at, item->ttl_ms);
	at = put32(at, item->position);
	at = put32(at, item->cost_hint_us);
	at = put32(at, item->stored_bytes);
	at = put16(at, item->part);
	at = put16(at, item->parts_count);
	at = put16(at, item->key_len);
	at = put16(at, item->crcs_count);
	at = put16(at, item->flags);
	at = put8(at, item->class_hint);
	at = put8(at, 0);
	at = put32(at, item->staging_region);
	at = put_zeros(at, 32);
	HR_ASSERT(at == start + PUT_ITEM_BYTES);
	at = put_bytes(at, item->key, item->key_len);
	at = put_zeros(at, key_bytes - item->key_len);
	for (unsigned i = 0; i < item->crcs_count; i++) {
		at = put32(at, crcs[i]);
	}
	put_zeros(at, (size_t)(start + len - at));
}

static int
put_item_check(const struct wire_put_item *item, const char **ret_why)
{
	const uint16_t flags_known = WIRE_PUT_REPLACE | WIRE_PUT_PINNED | WIRE_PUT_STAGED;

	if ((item->flags & ~flags_known) != 0) {
		return bad(ret_why, "unknown flag of a PUT item");
	}
	if (item->parts_count == 0 || item->part >= item->parts_count) {
		return bad(ret_why, "part that its block does not have");
	}
	if (item->key_len > WIRE_KEY_BYTES_MAX) {
		return bad(ret_why, "key too long");
	}
	if ((item->part == 0) != (item->key_len > 0)) {
		return bad(ret_why, "the key belongs to part 0, and only there");
	}
	if (item->block_bytes > HR_BLOCK_BYTES_MAX || item->stored_bytes > item->block_bytes) {
		return bad(ret_why, "absurd length of a block");
	}
	if (item->crcs_count != div_round_up(item->stored_bytes, WIRE_CHUNK_BYTES) ||
	    item->crcs_count > WIRE_CRCS_MAX) {
		return bad(ret_why, "wrong number of checksums");
	}
	return 0;
}

int
wire_put_item_decode(struct wire_reader *reader, struct wire_put_item *ret, const char **ret_why)
{
	const uint8_t *at = reader->at;
	struct wire_put_item item;
	size_t key_bytes, len;
	int rc;

	if (reader_left(reader) < PUT_ITEM_BYTES) {
		return bad(ret_why, "short PUT item");
	}
	take_bytes(&at, item.id, 16);
	item.route = take64(&at);
	take_bytes(&at, item.parent, 16);
	item.block_bytes = take64(&at);
	item.put_number = take64(&at);
	item.staging_off = take64(&at);
	item.ttl_ms = take32(&at);
	item.position = take32(&at);
	item.cost_hint_us = take32(&at);
	item.stored_bytes = take32(&at);
	item.part = take16(&at);
	item.parts_count = take16(&at);
	item.key_len = take16(&at);
	item.crcs_count = take16(&at);
	item.flags = take16(&at);
	item.class_hint = take8(&at);
	at += 1;
	item.staging_region = take32(&at);
	at += 32;
	rc = put_item_check(&item, ret_why);
	if (rc != 0) {
		return rc;
	}
	key_bytes = align_up(item.key_len, 4);
	len = align_up(PUT_ITEM_BYTES + key_bytes + 4 * (size_t)item.crcs_count, 8);
	if (len > reader_left(reader)) {
		return bad(ret_why, "PUT item shorter than its key and checksums");
	}
	item.key = at;
	item.crcs = at + key_bytes;
	reader->at += len;
	*ret = item;
	return 0;
}

void
wire_put_answer_encode(struct wire_buf *buf, const struct wire_put_answer *answer)
{
	uint8_t *start = buf_extend(buf, PUT_ANSWER_BYTES);
	uint8_t *at = start;

	if (start == NULL) {
		return;
	}
	at = put32(at, answer->item_idx);
	at = put8(at, answer->status);
	at = put8(at, answer->reason);
	at = put16(at, answer->flags);
	at = put64(at, answer->birth);
	at = put_zeros(at, 8);
	HR_ASSERT(at == start + PUT_ANSWER_BYTES);
}

int
wire_put_answer_decode(struct wire_reader *reader, struct wire_put_answer *ret, const char **ret_why)
{
	const uint8_t *at = reader->at;

	if (reader_left(reader) < PUT_ANSWER_BYTES) {
		return bad(ret_why, "short PUT answer");
	}
	ret->item_idx = take32(&at);
	ret->status = take8(&at);
	ret->reason = take8(&at);
	ret->flags = take16(&at);
	ret->birth = take64(&at);
	reader->at += PUT_ANSWER_BYTES;
	return 0;
}

/* -- GET --------------------------------------------------------------------------------------------------------------------- */

void
wire_get_item_encode(struct wire_buf *buf, const struct wire_get_item *item)
{
	uint8_t *start = buf_extend(buf, GET_ITEM_BYTES);
	uint8_t *at = start;

	if (start == NULL) {
		return;
	}
	at = put_bytes(at, item->id, 16);
	at = put64(at, item->route);
	at = put64(at, item->block_bytes);
	at = put16(at, item->part);
	at = put16(at, item->flags);
	at = put32(at, item->off);
	at = put32(at, item->bytes);
	at = put_zeros(at, 12);
	HR_ASSERT(at == start + GET_ITEM_BYTES);
}

int
wire_get_item_decode(struct wire_reader *reader, struct wire_get_item *ret, const char **ret_why)
{
	const uint8_t *at = reader->at;

	if (reader_left(reader) < GET_ITEM_BYTES) {
		return bad(ret_why, "short GET item");
	}
	take_bytes(&at, ret->id, 16);
	ret->route = take64(&at);
	ret->block_bytes = take64(&at);
	ret->part = take16(&at);
	ret->flags = take16(&at);
	ret->off = take32(&at);
	ret->bytes = take32(&at);
	if ((ret->flags & ~(WIRE_GET_SHM | WIRE_GET_BORROW)) != 0) {
		return bad(ret_why, "unknown flag of a GET item");
	}
	reader->at += GET_ITEM_BYTES;
	return 0;
}

void
wire_get_answer_encode(struct wire_buf *buf, const struct wire_get_answer *answer,
		       const uint32_t *crcs, const struct wire_extent *extents)
{
	size_t crc_bytes = align_up(4 * (size_t)answer->crcs_count, 8);
	size_t len = GET_ANSWER_BYTES + crc_bytes + EXTENT_BYTES * (size_t)answer->extents_count;
	uint8_t *start = buf_extend(buf, len);
	uint8_t *at = start;

	if (start == NULL) {
		return;
	}
	at = put32(at, answer->item_idx);
	at = put8(at, answer->status);
	at = put8(at, answer->reason);
	at = put16(at, answer->flags);
	at = put64(at, answer->block_bytes);
	at = put64(at, answer->birth);
	at = put32(at, answer->part_bytes);
	at = put32(at, answer->payload_bytes);
	at = put32(at, answer->crc_off);
	at = put16(at, answer->crcs_count);
	at = put16(at, answer->extents_count);
	at = put64(at, answer->borrow);
	at = put64(at, answer->expiry_left_ms);
	at = put_zeros(at, 8);
	HR_ASSERT(at == start + GET_ANSWER_BYTES);
	for (unsigned i = 0; i < answer->crcs_count; i++) {
		at = put32(at, crcs[i]);
	}
	at = put_zeros(at, crc_bytes - 4 * (size_t)answer->crcs_count);
	for (unsigned i = 0; i < answer->extents_count; i++) {
		at = put32(at, extents[i].chunk);
		at = put32(at, extents[i].bytes);
		at = put64(at, extents[i].off);
	}
	HR_ASSERT(at == start + len);
}

int
wire_get_answer_decode(struct wire_reader *reader, struct wire_get_answer *ret, const char **ret_why)
{
	const uint8_t *at = reader->at;
	struct wire_get_answer answer;
	size_t crc_bytes, len;

	if (reader_left(reader) < GET_ANSWER_BYTES) {
		return bad(ret_why, "short GET answer");
	}
	answer.item_idx = take32(&at);
	answer.status = take8(&at);
	answer.reason = take8(&at);
	answer.flags = take16(&at);
	answer.block_bytes = take64(&at);
	answer.birth = take64(&at);
	answer.part_bytes = take32(&at);
	answer.payload_bytes = take32(&at);
	answer.crc_off = take32(&at);
	answer.crcs_count = take16(&at);
	answer.extents_count = take16(&at);
	answer.borrow = take64(&at);
	answer.expiry_left_ms = take64(&at);
	at += 8;
	if (answer.crcs_count > WIRE_CRCS_MAX || answer.extents_count > WIRE_EXTENTS_MAX) {
		return bad(ret_why, "GET answer with too many checksums or extents");
	}
	crc_bytes = align_up(4 * (size_t)answer.crcs_count, 8);
	len = GET_ANSWER_BYTES + crc_bytes + EXTENT_BYTES * (size_t)answer.extents_count;
	if (len > reader_left(reader)) {
		return bad(ret_why, "GET answer shorter than its checksums and extents");
	}
	answer.crcs = at;
	answer.extents = at + crc_bytes;
	reader->at += len;
	*ret = answer;
	return 0;
}

uint32_t
wire_crc_get(const uint8_t *crcs, unsigned idx)
{
	return get_le32(crcs + 4 * (size_t)idx);
}

void
wire_extent_get(const uint8_t *extents, unsigned idx, struct wire_extent *ret)
{
	const uint8_t *at = extents + EXTENT_BYTES * (size_t)idx;

	ret->chunk = take32(&at);
	ret->bytes = take32(&at);
	ret->off = take64(&at);
}

/* -- EXISTS, TOUCH, DELETE, PREFETCH, RELEASE ------------------------------------------------------------------------------- */

void
wire_id_item_encode(struct wire_buf *buf, const struct wire_id_item *item)
{
	uint8_t *start = buf_extend(buf, ID_ITEM_BYTES);

	if (start != NULL) {
		put64(put_bytes(start, item->id, 16), item->route);
	}
}

int
wire_id_item_decode(struct wire_reader *reader, struct wire_id_item *ret, const char **ret_why)
{
	const uint8_t *at = reader->at;

	if (reader_left(reader) < ID_ITEM_BYTES) {
		return bad(ret_why, "short item");
	}
	take_bytes(&at, ret->id, 16);
	ret->route = take64(&at);
	reader->at += ID_ITEM_BYTES;
	return 0;
}

/* -- SPACE ------------------------------------------------------------------------------------------------------------------- */

void
wire_space_request_encode(struct wire_buf *buf, const struct wire_space_request *request)
{
	size_t tail = 0, len;
	uint8_t *at;

	switch (request->sub) {
	case WIRE_SPACE_OPEN:
		tail = align_up(40 + (size_t)request->label_len, 8);
		break;
	case WIRE_SPACE_LIST:
		tail = 8;
		break;
	case WIRE_SPACE_SET:
		tail = 16;
		break;
	default:
		break;
	}
	len = 8 + tail;
	at = buf_extend(buf, len);
	if (at == NULL) {
		return;
	}
	put_zeros(at, len);
	at = put32(at, request->sub) + 4;
	switch (request->sub) {
	case WIRE_SPACE_OPEN:
		at = put_bytes(at, request->digest, 32);
		at = put16(at, request->label_len) + 6;
		put_bytes(at, request->label, request->label_len);
		break;
	case WIRE_SPACE_LIST:
		put64(at, request->cursor);
		break;
	case WIRE_SPACE_SET:
		put64(put64(at, request->quota_bytes), request->pin_budget_bytes);
		break;
	default:
		break;
	}
}

static int
space_open_decode(const uint8_t *at, size_t left, struct wire_space_request *request,
		  size_t *ret_len, const char **ret_why)
{
	if (left < 40) {
		return bad(ret_why, "short SPACE OPEN");
	}
	take_bytes(&at, request->digest, 32);
	request->label_len = take16(&at);
	at += 6;
	if (align_up(40 + (size_t)request->label_len, 8) > left) {
		return bad(ret_why, "SPACE OPEN shorter than its label");
	}
	request->label = (const char *)at;
	*ret_len = align_up(40 + (size_t)request->label_len, 8);
	return 0;
}

int
wire_space_request_decode(struct wire_reader *reader, struct wire_space_request *ret,
			  const char **ret_why)
{
	const uint8_t *at = reader->at;
	struct wire_space_request request = { 0 };
	size_t left, len = 0;
	int rc = 0;

	if (reader_left(reader) < 8) {
		return bad(ret_why, "short SPACE");
	}
	request.sub = take32(&at);
	at += 4;
	left = reader_left(reader) - 8;
	switch (request.sub) {
	case WIRE_SPACE_OPEN:
		rc = space_open_decode(at, left, &request, &len, ret_why);
		break;
	case WIRE_SPACE_LIST:
		len = 8;
		if (left < len) {
			return bad(ret_why, "short SPACE LIST");
		}
		request.cursor = take64(&at);
		break;
	case WIRE_SPACE_USAGE:
	case WIRE_SPACE_DROP:
		break;
	case WIRE_SPACE_SET:
		len = 16;
		if (left < len) {
			return bad(ret_why, "short SPACE SET");
		}
		request.quota_bytes = take64(&at);
		request.pin_budget_bytes = take64(&at);
		break;
	default:
		return bad(ret_why, "unknown sub-operation of SPACE");
	}
	if (rc == 0) {
		reader->at += 8 + len;
		*ret = request;
	}
	return rc;
}

void
wire_space_row_encode(struct wire_buf *buf, const struct wire_space_row *row)
{
	uint8_t *start = buf_extend(buf, SPACE_ROW_BYTES);
	uint8_t *at = start;

	if (start == NULL) {
		return;
	}
	at = put32(at, row->number);
	at = put32(at, row->generation);
	at = put_bytes(at, row->digest, 32);
	at = put_bytes(at, row->label, 64);
	at = put64(at, row->blocks);
	at = put64(at, row->bytes);
	at = put64(at, row->quota_bytes);
	at = put64(at, row->pin_budget_bytes);
	at = put64(at, row->pinned_bytes);
	at = put64(at, row->gets);
	at = put64(at, row->hits);
	at = put64(at, row->puts);
	at = put_zeros(at, 24);
	HR_ASSERT(at == start + SPACE_ROW_BYTES);
}

int
wire_space_row_decode(struct wire_reader *reader, struct wire_space_row *ret, const char **ret_why)
{
	const uint8_t *at = reader->at;

	if (reader_left(reader) < SPACE_ROW_BYTES) {
		return bad(ret_why, "short row of a space");
	}
	ret->number = take32(&at);
	ret->generation = take32(&at);
	take_bytes(&at, ret->digest, 32);
	take_bytes(&at, ret->label, 64);
	ret->label[63] = '\0';
	ret->blocks = take64(&at);
	ret->bytes = take64(&at);
	ret->quota_bytes = take64(&at);
	ret->pin_budget_bytes = take64(&at);
	ret->pinned_bytes = take64(&at);
	ret->gets = take64(&at);
	ret->hits = take64(&at);
	ret->puts = take64(&at);
	reader->at += SPACE_ROW_BYTES;
	return 0;
}

/* -- LIST -------------------------------------------------------------------------------------------------------------------- */

void
wire_list_head_encode(struct wire_buf *buf, const struct wire_list_head *head)
{
	uint8_t *start = buf_extend(buf, 16);

	if (start != NULL) {
		put32(put32(put64(start, head->cursor), head->count), 0);
	}
}

int
wire_list_head_decode(struct wire_reader *reader, struct wire_list_head *ret, const char **ret_why)
{
	if (reader_left(reader) < 16) {
		return bad(ret_why, "short LIST");
	}
	ret->cursor = take64(&reader->at);
	ret->count = take32(&reader->at);
	reader->at += 4;
	return 0;
}

void
wire_list_entry_encode(struct wire_buf *buf, const struct wire_list_entry *entry)
{
	size_t len = align_up(LIST_ENTRY_BYTES + (size_t)entry->key_len, 8);
	uint8_t *start = buf_extend(buf, len);
	uint8_t *at = start;

	if (start == NULL) {
		return;
	}
	at = put32(at, (uint32_t)len);
	at = put16(at, entry->key_len);
	at = put16(at, 0);
	at = put_bytes(at, entry->id, 16);
	at = put_bytes(at, entry->parent, 16);
	at = put64(at, entry->route);
	at = put64(at, entry->block_bytes);
	at = put64(at, entry->expiry_ms);
	at = put32(at, entry->position);
	at = put32(at, 0);
	HR_ASSERT(at == start + LIST_ENTRY_BYTES);
	at = put_bytes(at, entry->key, entry->key_len);
	put_zeros(at, (size_t)(start + len - at));
}

int
wire_list_entry_decode(struct wire_reader *reader, struct wire_list_entry *ret, const char **ret_why)
{
	const uint8_t *at = reader->at;
	uint32_t len;

	if (reader_left(reader) < LIST_ENTRY_BYTES) {
		return bad(ret_why, "short entry of a list");
	}
	len = take32(&at);
	ret->key_len = take16(&at);
	at += 2;
	if (len > reader_left(reader) || len % 8 != 0 || ret->key_len > WIRE_KEY_BYTES_MAX ||
	    len < LIST_ENTRY_BYTES + (uint32_t)ret->key_len) {
		return bad(ret_why, "entry of a list with an absurd length");
	}
	take_bytes(&at, ret->id, 16);
	take_bytes(&at, ret->parent, 16);
	ret->route = take64(&at);
	ret->block_bytes = take64(&at);
	ret->expiry_ms = take64(&at);
	ret->position = take32(&at);
	at += 4;
	ret->key = at;
	reader->at += len; /* Longer ones are of a newer server: what it added is skipped. */
	return 0;
}

/* -- shared memory, single numbers -------------------------------------------------------------------------------------------- */

void
wire_region_encode(struct wire_buf *buf, const struct wire_region *region)
{
	uint8_t *start = buf_extend(buf, 16);

	if (start != NULL) {
		put64(put32(put32(start, region->number), region->epoch), region->bytes);
	}
}

int
wire_region_decode(struct wire_reader *reader, struct wire_region *ret, const char **ret_why)
{
	if (reader_left(reader) < 16) {
		return bad(ret_why, "short CHUNK or STAGING");
	}
	ret->number = take32(&reader->at);
	ret->epoch = take32(&reader->at);
	ret->bytes = take64(&reader->at);
	return 0;
}

void
wire_u64_encode(struct wire_buf *buf, uint64_t value)
{
	uint8_t *start = buf_extend(buf, 8);

	if (start != NULL) {
		put64(start, value);
	}
}

int
wire_u64_decode(struct wire_reader *reader, uint64_t *ret, const char **ret_why)
{
	if (reader_left(reader) < 8) {
		return bad(ret_why, "short number");
	}
	*ret = take64(&reader->at);
	return 0;
}
