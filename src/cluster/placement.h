/* placement.h - which shard a route lives on (docs/protocol/placement.md).
 *
 * What:       weighted rendezvous hashing over the shards of a map, in integers, the same in clients and nodes.
 * Not here:   who keeps the map (map.h), connections, copies on distinct nodes (the caller skips shards of a node that it has).
 * Threads:    pure functions.
 * Invariants: P1 removing a shard moves its routes and no others; adding one moves routes only to it. P2 what is computed
 *             never changes: blocks are where it said.
 * Cost:       about 10 ns a shard.
 * Tests:      tests/unit/cluster/test_placement.c, tests/func/test_placement.py (written from the page)
 */
#ifndef HR_CLUSTER_PLACEMENT_H
#define HR_CLUSTER_PLACEMENT_H

#include <stdint.h>

#include "wire/wire.h"

enum { PLACEMENT_PICK_MAX = 64 };

/* Indices into map->shards, the owner first, then by falling score; at most `max` and PLACEMENT_PICK_MAX. Returns how many: 0 when the map has no shard
 * that takes part. Serving and joining shards take part; draining ones only where there are no others; failed ones never. */
uint32_t
placement_pick(const struct wire_map *map, uint64_t route, uint32_t *ret_order, uint32_t max);

/* -log2(u / 2^53) with 48 fraction bits, u odd and below 2^53; at least 1. For the tests. */
uint64_t placement_neg_log2(uint64_t u);
/* The 53 bits of a shard for a route. For the tests. */
uint64_t placement_draw(const uint8_t uuid[16], uint64_t route);

#endif
