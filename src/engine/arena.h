/* arena.h — the DRAM of one shard: memfd chunks cut into pages, and values made of runs of pages.
 *
 * What:       memory for values: received, read from flash, kept in the DRAM tier, shared read-only with clients on the host.
 *             A chunk is a memfd, sealed (SHRINK, GROW, FUTURE_WRITE after our own mapping, SEAL; huge pages when there are
 *             any), of one size for the arena: a power of two between 4 MiB and 1 GiB, about 1/16 of the arena. It belongs to
 *             one tenant at a time. Inside, a buddy allocator from 4 KiB to 4 MiB: a value takes the smallest block it fits
 *             in and gives the pages behind its end back, so it is one piece unless memory is fragmented, and then few.
 * Not here:   what is worth keeping (cache.h).
 * Threads:    the shard's.
 * Ownership:  an arena_buf is the caller's until arena_free(). It points into itself: never copy the struct.
 * Errors:     arena_alloc() answers -EAGAIN when nothing is left: the caller evicts from the cache or refuses.
 * Invariants: A1 a page is in one allocated or one free block. A2 no two free buddies. A3 the memory of a chunk is never shown
 *             to two tenants: a chunk without allocations that changes its tenant gets a new memfd at the same address.
 * Limits:     bytes_max given at creation; ARENA_IOV_MAX pieces a value. Memory is made resident as it is used. 9 bytes of
 *             bookkeeping a page. An allocation of 1 MiB and its return: below 0.2 us.
 * Tests:      tests/unit/engine/test_arena.c
 */
#ifndef HR_ENGINE_ARENA_H
#define HR_ENGINE_ARENA_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

struct arena;
enum { ARENA_VALUE_BYTES_MAX = 4 << 20, ARENA_IOV_MAX = 65, ARENA_TENANTS_MAX = 65536 };

/* For clients on the host: where in which chunk. */
struct arena_extent {
	uint32_t chunk;
	uint32_t bytes;
	uint64_t off;
};

/* A value's memory: pieces in order, page-aligned, adjacent ones merged, none across chunks; sum = bytes rounded up to a page. */
struct arena_buf {
	uint32_t iov_count;
	uint32_t bytes; /* Asked for. */
	uint32_t tenant;
	uint32_t pages;
	struct iovec *iov; /* Owned; points to `one` when iov_count is at most 1. */
	struct iovec one;
};

/* bytes_max is rounded down to chunks, one at least. Makes one chunk's memfd to see what the machine gives (and keeps none of
 * its memory); -errno of that. */
int arena_create(uint64_t bytes_max, struct arena **ret_arena);
void arena_destroy(struct arena *arena);
/* tenant: a small number of the shard's, below ARENA_TENANTS_MAX. -EAGAIN: full for this tenant (a chunk with nothing allocated
 * changes tenant when needed). bytes 0: an empty buf. */
int arena_alloc(struct arena *arena, uint32_t tenant, uint32_t bytes, struct arena_buf *ret_buf);
/* The buf is empty then; freeing an empty or zeroed one does nothing. */
void arena_free(struct arena *arena, struct arena_buf *buf);
/* Zeroes from `bytes` to the end of the last page. */
void arena_buf_pad(struct arena_buf *buf);
/* Extents of [off, off + len) of the value; returns how many (<= ARENA_IOV_MAX). */
unsigned arena_extents(const struct arena *arena, const struct arena_buf *buf, uint32_t off,
		       uint32_t len, struct arena_extent *ret_extents);
/* iovecs of a range of the value's pages; returns how many (<= ARENA_IOV_MAX). */
unsigned
arena_iov_slice(const struct arena_buf *buf, uint32_t off, uint32_t len, struct iovec *ret_iov);
/* Read-only descriptor of a chunk (borrowed) for passing to a client, and its size; -ENOENT when the chunk is not `tenant`'s
 * now. */
int arena_chunk_fd(const struct arena *arena, uint32_t chunk, uint32_t tenant, uint64_t *ret_bytes);
uint32_t arena_chunks_count(const struct arena *arena); /* Made so far; they are 0 … this-1. */
/* Changes when the memory behind the chunk changes, that is with its tenant. */
uint32_t arena_chunk_epoch(const struct arena *arena, uint32_t chunk);
/* For registration with the io: `made` for every mapped chunk and for each later one, `gone` before a chunk's memory is unmapped,
 * arena_destroy() included. */
struct arena_chunk_events {
	void (*made)(void *arg, void *base, size_t bytes);
	void (*gone)(void *arg, void *base, size_t bytes);
	void *arg;
};
void arena_on_chunk(struct arena *arena, const struct arena_chunk_events *events); /* copied */
/* Who has a chunk and how much of it is allocated: for whoever wants to empty one for another tenant. False: nobody has. */
bool arena_chunk_usage(const struct arena *arena, uint32_t chunk, uint32_t *ret_tenant,
		       uint64_t *ret_bytes_used);
uint64_t arena_bytes_used(const struct arena *arena);
uint64_t arena_bytes_max(const struct arena *arena);
uint64_t arena_chunk_bytes(const struct arena *arena);
/* "hugetlb" or "normal": which pages the memory is made of, for the log and STAT. */
const char *arena_pages_kind(const struct arena *arena);
/* Asserts the invariants; for tests. */
void arena_check(const struct arena *arena);

#endif
