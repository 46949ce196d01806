/* wire.h - frames and items of docs/protocol/README.md: encode and decode, nothing else.
 *
 * What:       pure code over bytes. Decoders take bytes from outside: they check every length before they use it and never read behind `len`.
 * Threads:    any; no state.
 * Errors:     -HR_EPROTO with *ret_why a static text for the log line.
 * Tests:      tests/unit/wire/, tests/fuzz/
 */
#ifndef HR_WIRE_WIRE_H
#define HR_WIRE_WIRE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
	WIRE_HEADER_BYTES = 64,
	WIRE_VERSION = 1,
	WIRE_ITEMS_MAX = 16384,
	WIRE_ITEMS_BYTES_MAX = 2 << 20,
	WIRE_PAYLOAD_BYTES_MAX = 64 << 20,
	WIRE_CHUNK_BYTES = 65536,
	WIRE_CRCS_MAX = 64, /* of a part: 4 MiB */
	WIRE_EXTENTS_MAX = 128,
	WIRE_KEY_BYTES_MAX = 1024,
};

enum wire_op {
	WIRE_HELLO = 1,
	WIRE_AUTH = 2,
	WIRE_SPACE = 3,
	WIRE_PING = 4,
	WIRE_MAP = 5,
	WIRE_STAT = 6,
	WIRE_PUT = 16,
	WIRE_GET = 17,
	WIRE_EXISTS = 18,
	WIRE_TOUCH = 19,
	WIRE_DELETE = 20,
	WIRE_PREFETCH = 21,
	WIRE_RELEASE = 22,
	WIRE_UNBORROW = 23,
	WIRE_LIST = 24,
	WIRE_CANCEL = 25,
	WIRE_GOAWAY = 32,
	WIRE_CHUNK = 33,
	WIRE_STAGING = 34,
};
enum { WIRE_FLAG_ANSWER = 1, WIRE_FLAG_LAST = 2, WIRE_FLAG_REFUSED = 4, WIRE_FLAG_NO_ANSWER = 8 };
enum wire_status {
	WIRE_OK,
	WIRE_BAD_VERSION,
	WIRE_NOT_AUTHENTICATED,
	WIRE_WRONG_SHARD,
	WIRE_UNKNOWN_SPACE,
	WIRE_TOO_MANY,
	WIRE_BUSY,
	WIRE_TABLE_FULL,
	WIRE_SHARD_FAILED,
	WIRE_DRAINING,
	WIRE_NOT_SUPPORTED,
	WIRE_READ_ONLY,
	WIRE_STATUS_COUNT
};
const char *wire_status_name(unsigned status);
const char *wire_op_name(unsigned op);
const char *wire_reason_name(unsigned reason); /* of batch.h: "size_mismatch" */

struct wire_header {
	uint8_t version, op, priority, ack;
	uint16_t flags, status;
	uint64_t request_id;
	uint32_t deadline_us;
	uint32_t space;
	uint32_t items_count;
	uint32_t items_bytes;
	uint32_t lease_ms;
	uint64_t payload_bytes;
	uint32_t items_crc;
};
void wire_header_encode(const struct wire_header *header, uint8_t ret[WIRE_HEADER_BYTES]);
int wire_header_decode(const uint8_t bytes[WIRE_HEADER_BYTES], struct wire_header *ret,
		       const char **ret_why);
/* After the items have arrived: their CRC. */
int wire_items_verify(const struct wire_header *header, const uint8_t *items, const char **ret_why);

struct wire_client_hello {
	uint16_t version_min, version_max;
	uint32_t features;
	uint8_t shard_uuid[16], nonce[16];
	uint64_t inflight_bytes;
	uint32_t pid;
	const char *name, *tenant; /* borrowed from the items; not NUL-terminated */
	uint16_t name_len, tenant_len;
};
struct wire_server_hello {
	uint16_t version, auth;
	uint32_t features;
	uint8_t shard_uuid[16], node_uuid[16], nonce[16];
	uint32_t part_bytes, chunk_bytes, items_max, payload_max;
	uint64_t time_ms;
	uint32_t requests_max, request_bytes_max, tenant_number;
	uint64_t connection_id;
};
enum { WIRE_FEATURE_SHM = 1, WIRE_FEATURE_BORROW = 2 };

enum wire_node_state {
	WIRE_JOINING = 1,
	WIRE_SERVING = 2,
	WIRE_DRAINING_STATE = 3,
	WIRE_FAILED = 4
};
struct wire_map_node {
	uint8_t uuid[16];
	uint8_t state;
	const char *text;
	uint32_t text_len;
};
struct wire_map_shard {
	uint8_t uuid[16];
	uint64_t weight;
	uint32_t node_idx;
	uint8_t state;
};
struct wire_map {
	uint64_t epoch;
	uint32_t nodes_count, shards_count;
	struct wire_map_node *nodes;
	struct wire_map_shard *shards;
};

struct wire_put_item {
	uint8_t id[16], parent[16];
	uint64_t route, block_bytes, put_number, staging_off;
	uint32_t ttl_ms, position, cost_hint_us, stored_bytes, staging_region;
	uint16_t part, parts_count, key_len, crcs_count, flags;
	uint8_t class_hint;
	const uint8_t *key;  /* borrowed */
	const uint8_t *crcs; /* borrowed, little-endian, maybe unaligned: wire_crc_get() */
};
enum { WIRE_PUT_REPLACE = 1, WIRE_PUT_PINNED = 2, WIRE_PUT_STAGED = 4 };
struct wire_put_answer {
	uint32_t item_idx;
	uint8_t status, reason;
	uint16_t flags;
	uint64_t birth;
};
enum { WIRE_PUT_DUPLICATE = 1, WIRE_PUT_DIFFERS = 2, WIRE_PUT_HELD = 4 };

struct wire_get_item {
	uint8_t id[16];
	uint64_t route, block_bytes;
	uint16_t part, flags;
	uint32_t off, bytes;
};
enum { WIRE_GET_SHM = 1, WIRE_GET_BORROW = 2 };
struct wire_extent {
	uint32_t chunk, bytes;
	uint64_t off;
};
struct wire_get_answer {
	uint32_t item_idx;
	uint8_t status, reason;
	uint16_t flags;
	uint64_t block_bytes, birth, borrow, expiry_left_ms;
	uint32_t part_bytes, payload_bytes,
	    crc_off; /* payload_bytes: in the frame's payload; 0 with WIRE_GOT_SHM (the extents' sum is the length then) */
	uint16_t crcs_count, extents_count;
	const uint8_t *crcs;	/* decode: borrowed; encode: see wire_get_answer_encode() */
	const uint8_t *extents; /* decode: borrowed; wire_extent_get() */
};
enum { WIRE_GOT_SHM = 1, WIRE_GOT_DRAM = 2, WIRE_GOT_FLASH = 4 };

struct wire_id_item {
	uint8_t id[16];
	uint64_t route;
};
enum { WIRE_PRESENT = 0x80, WIRE_LEASED = 0x40, WIRE_REASON_MASK = 0x0f };

enum wire_space_op {
	WIRE_SPACE_OPEN = 1,
	WIRE_SPACE_LIST = 2,
	WIRE_SPACE_USAGE = 3,
	WIRE_SPACE_DROP = 4,
	WIRE_SPACE_SET = 5
};
struct wire_space_request {
	uint32_t sub;
	uint8_t digest[32];
	const char *label;
	uint16_t label_len;
	uint64_t cursor, quota_bytes, pin_budget_bytes;
};
struct wire_space_row {
	uint32_t number, generation;
	uint8_t digest[32];
	char label[64];
	uint64_t blocks, bytes, quota_bytes, pin_budget_bytes, pinned_bytes, gets, hits, puts;
};
struct wire_list_entry {
	uint8_t id[16], parent[16];
	uint64_t route, block_bytes, expiry_ms;
	uint32_t position;
	uint16_t key_len;
	const uint8_t *key;
};

/* LIST: of the request {cursor, max}, of the answer {next cursor, count}. */
struct wire_list_head {
	uint64_t cursor;
	uint32_t count;
};
/* CHUNK: chunk, its epoch and size. STAGING: region, 0 and its size. */
struct wire_region {
	uint32_t number, epoch;
	uint64_t bytes;
};

/* A growing byte buffer for building items sections; freed with wire_buf_free(). -ENOMEM is kept in `failed`. */
struct wire_buf {
	uint8_t *bytes;
	size_t len, cap;
	bool failed;
};
void wire_buf_free(struct wire_buf *buf);
void wire_buf_reset(struct wire_buf *buf);
int wire_buf_reserve(struct wire_buf *buf, size_t more);

/* A reader over an items section. Each *_decode() takes one item and moves on; -HR_EPROTO at anything that does not fit. */
struct wire_reader {
	const uint8_t *at, *end;
};

void wire_client_hello_encode(struct wire_buf *buf, const struct wire_client_hello *hello);
int wire_client_hello_decode(struct wire_reader *reader, struct wire_client_hello *ret,
			     const char **ret_why);
void wire_server_hello_encode(struct wire_buf *buf, const struct wire_server_hello *hello);
int wire_server_hello_decode(struct wire_reader *reader, struct wire_server_hello *ret,
			     const char **ret_why);
void wire_map_encode(struct wire_buf *buf, const struct wire_map *map);
int wire_map_decode(
    struct wire_reader *reader, struct wire_map *ret,
    const char **ret_why); /* allocates nodes, shards and copies of texts; wire_map_free() */
void wire_map_free(struct wire_map *map);
void
wire_put_item_encode(struct wire_buf *buf, const struct wire_put_item *item, const uint32_t *crcs);
int
wire_put_item_decode(struct wire_reader *reader, struct wire_put_item *ret, const char **ret_why);
void wire_put_answer_encode(struct wire_buf *buf, const struct wire_put_answer *answer);
int wire_put_answer_decode(struct wire_reader *reader, struct wire_put_answer *ret,
			   const char **ret_why);
void wire_get_item_encode(struct wire_buf *buf, const struct wire_get_item *item);
int
wire_get_item_decode(struct wire_reader *reader, struct wire_get_item *ret, const char **ret_why);
void wire_get_answer_encode(struct wire_buf *buf, const struct wire_get_answer *answer,
			    const uint32_t *crcs, const struct wire_extent *extents);
int wire_get_answer_decode(struct wire_reader *reader, struct wire_get_answer *ret,
			   const char **ret_why);
void wire_id_item_encode(struct wire_buf *buf, const struct wire_id_item *item);
int wire_id_item_decode(struct wire_reader *reader, struct wire_id_item *ret, const char **ret_why);
void wire_space_request_encode(struct wire_buf *buf, const struct wire_space_request *request);
int wire_space_request_decode(struct wire_reader *reader, struct wire_space_request *ret,
			      const char **ret_why);
void wire_space_row_encode(struct wire_buf *buf, const struct wire_space_row *row);
int
wire_space_row_decode(struct wire_reader *reader, struct wire_space_row *ret, const char **ret_why);
void wire_list_entry_encode(struct wire_buf *buf, const struct wire_list_entry *entry);
int wire_list_entry_decode(struct wire_reader *reader, struct wire_list_entry *ret,
			   const char **ret_why);
void wire_list_head_encode(struct wire_buf *buf, const struct wire_list_head *head);
int
wire_list_head_decode(struct wire_reader *reader, struct wire_list_head *ret, const char **ret_why);
void wire_region_encode(struct wire_buf *buf, const struct wire_region *region);
int wire_region_decode(struct wire_reader *reader, struct wire_region *ret, const char **ret_why);
void wire_u64_encode(struct wire_buf *buf, uint64_t value);
int wire_u64_decode(struct wire_reader *reader, uint64_t *ret, const char **ret_why);
uint32_t wire_crc_get(const uint8_t *crcs, unsigned idx);
void wire_extent_get(const uint8_t *extents, unsigned idx, struct wire_extent *ret);

#endif
