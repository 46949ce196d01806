/* space.h - spaces: what makes bytes interchangeable (model, revision, adapter, KV dtype, layout, …).
 *
 * A space is named by its digest: SHA-256 over a version byte and the length-framed (name, value) pairs sorted by name
 * (docs/format/identity.md). Handles are thread-safe and live until hr_space_close() or hr_close().
 */
#ifndef HEADRACE_SPACE_H
#define HEADRACE_SPACE_H

#include <stddef.h>
#include <stdint.h>

#include "headrace/client.h"

#ifdef __cplusplus
extern "C" {
#endif
#pragma GCC visibility push(default)

struct hr_space;

struct hr_pair {
	const char *name; /* NUL-terminated, 1 … 255 bytes, unique in its array */
	const void *value;
	size_t value_len; /* at most 64 KiB */
};

/* Opens (makes, where it is not there yet) the space of these pairs. Does not block: the node learns of it with the first batch.
 * -EINVAL: no pair, a name twice or empty. */
int hr_space_open(struct hr_client *client, const struct hr_pair *pairs, size_t pairs_count,
		  struct hr_space **ret_space);
/* The space with the one pair ("name", NAME); or, for "sha256:HEX", the one with that digest. */
int hr_space_open_name(struct hr_client *client, const char *name, struct hr_space **ret_space);
int hr_space_open_digest(struct hr_client *client, const uint8_t digest[32], const char *label,
			 struct hr_space **ret_space);
void hr_space_close(struct hr_space *space);
void hr_space_digest(const struct hr_space *space, uint8_t ret_digest[32]);

/* The block id of a key in a space: first 16 bytes of SHA-256 (docs/format/identity.md). The default route is its first 8 bytes, little-endian. */
int hr_block_id(const struct hr_space *space, const void *key, size_t key_len, uint8_t ret_id[16]);
uint64_t hr_route_of_id(const uint8_t id[16]);

struct hr_space_info {
	uint8_t digest[32];
	char label[64];
	uint64_t blocks, bytes; /* live, summed over the shards */
	uint64_t quota_bytes, pin_budget_bytes, pinned_bytes;
	uint64_t generation_max;
	uint64_t gets, hits, puts;
};
/* All spaces of the tenant on all nodes that answer; free(*ret_infos). Blocks up to timeout_ms. */
int hr_space_list(struct hr_client *client, uint32_t timeout_ms, struct hr_space_info **ret_infos,
		  size_t *ret_count);
int hr_space_usage(struct hr_space *space, uint32_t timeout_ms, struct hr_space_info *ret_info);
/* Every block of the space is gone, durably, on every shard, when this returns 0. O(1). */
int hr_space_drop(struct hr_space *space, uint32_t timeout_ms);
/* UINT64_MAX leaves a value as it is. Sizes are per shard sums: the library divides them by weight. */
int hr_space_set(struct hr_space *space, uint64_t quota_bytes, uint64_t pin_budget_bytes,
		 uint32_t timeout_ms);

struct hr_list_entry {
	uint8_t id[16];
	uint8_t parent[16];
	uint64_t route;
	uint64_t bytes;
	uint64_t expiry_ms; /* since 1970; 0 = never */
	uint32_t position;
	uint16_t key_len;
	const uint8_t *key; /* inside the same allocation */
};
/* Blocks of a space, page by page: *cursor starts as NULL; the library allocates it and frees it at the end (or hr_list_cursor_free()). Returns
 * entries in *ret_entries (free() it); *ret_count = 0 at the end. A block that moves meanwhile may be listed twice or not at all. */
struct hr_list_cursor;
int hr_list(struct hr_space *space, struct hr_list_cursor **cursor, uint32_t max,
	    uint32_t timeout_ms, struct hr_list_entry **ret_entries, size_t *ret_count);
void hr_list_cursor_free(struct hr_list_cursor *cursor);

#pragma GCC visibility pop
#ifdef __cplusplus
}
#endif
#endif
