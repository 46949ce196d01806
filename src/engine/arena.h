/* arena.h - the DRAM of one shard: memfd chunks cut into frames, and blocks made of frames.
 *
 * What:       memory for values: received, read from flash, kept in the DRAM tier, shared read-only with clients on the host. A chunk is a sealed memfd
 *             (SHRINK, GROW, FUTURE_WRITE after the daemon's own mapping; huge pages when there are any) of one size for the arena:
 *             a power of two between 4 MiB and 1 GiB, about 1/16 of the arena, and belongs to one tenant at a time. Frames are 64 KiB (one CRC chunk); values below
 *             64 KiB, and the tail of larger ones, take sub-frames of 4, 8, 16 or 32 KiB.
 * Threads:    the shard's.
 * Errors:     arena_alloc() answers -EAGAIN when nothing is left: the caller evicts from the cache or refuses.
 * Limits:     bytes_max given at creation. Memory is touched (made resident) as it is used.
 * Tests:      tests/unit/engine/test_arena.c
 */
#ifndef HR_ENGINE_ARENA_H
#define HR_ENGINE_ARENA_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

struct arena;
enum { ARENA_FRAME_BYTES = 65536, ARENA_IOV_MAX = 65 };

struct arena_extent { /* for clients on the host: where in which chunk */
	uint32_t chunk;
	uint32_t bytes;
	uint64_t off;
};

/* A value's memory: iovecs, adjacent frames merged, sum = bytes rounded up to a page. */
struct arena_buf {
	uint32_t iov_count;
	uint32_t bytes; /* asked for */
	uint32_t tenant;
	uint32_t pages;
	struct iovec *iov; /* owned; points to `one` when iov_count is 1 */
	struct iovec one;
};

int arena_create(uint64_t bytes_max, struct arena **ret_arena);
void arena_destroy(struct arena *arena);
/* tenant: a small number of the shard's. -EAGAIN: full for this tenant (a chunk with nothing allocated may change tenant unless `arena_chunk_hold`s are on it). bytes 0: an empty buf. */
int arena_alloc(struct arena *arena, uint32_t tenant, uint32_t bytes, struct arena_buf *ret_buf);
void arena_free(struct arena *arena, struct arena_buf *buf);
/* Zeroes from `bytes` to the end of the last page. */
void arena_buf_pad(struct arena_buf *buf);
/* Extents of [off, off + len) of the value; returns how many (<= ARENA_IOV_MAX). */
unsigned arena_extents(const struct arena *arena, const struct arena_buf *buf, uint32_t off, uint32_t len,
		       struct arena_extent *ret_extents);
/* iovecs of a range of the value; returns how many. */
unsigned arena_iov_slice(const struct arena_buf *buf, uint32_t off, uint32_t len, struct iovec *ret_iov);
/* Read-only descriptor of a chunk (borrowed) for passing to a client, and its size; -ENOENT when the chunk is not `tenant`'s now. */
int arena_chunk_fd(const struct arena *arena, uint32_t chunk, uint32_t tenant, uint64_t *ret_bytes);
uint32_t arena_chunks_count(const struct arena *arena);
uint32_t arena_chunk_epoch(const struct arena *arena, uint32_t chunk); /* changes when the tenant changes */
/* For registration with the io: calls cb for every mapped chunk, and for each later one. */
void arena_on_chunk(struct arena *arena, void (*cb)(void *arg, void *base, size_t bytes), void *arg);
uint64_t arena_bytes_used(const struct arena *arena);
uint64_t arena_bytes_max(const struct arena *arena);
void arena_check(const struct arena *arena);

#endif
