/* arena.c — see arena.h.
 *
 * All chunks lie in one reserved range of addresses, so a pointer gives its chunk and page by a shift. Pages are numbered over
 * the whole range. Each tenant has a free list per order, over all its chunks; blocks at their greatest order of 4 MiB never
 * merge further, so an empty chunk is chunk_bytes / 4 MiB such blocks on its tenant's list.
 */
#include "engine/arena.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/base.h"

enum {
	PAGE_SHIFT = 12,
	PAGE_BYTES = 1 << PAGE_SHIFT,
	ORDER_MAX = 10, /* 4 MiB */
	ORDERS = ORDER_MAX + 1,
	/* State of a page that begins a block: its order, and whether it is free. */
	STATE_FREE = 0x80,
	STATE_INSIDE = 0xff,
};

#define NO_PAGE UINT32_MAX
#define NO_TENANT UINT32_MAX
#define CHUNK_BYTES_MIN MiB(4)
#define CHUNK_BYTES_MAX GiB(1)
#define HUGE_BYTES MiB(2)

struct page_links {
	uint32_t next;
	uint32_t prev;
};

struct chunk {
	int fd;		 /* Ours, writable before the seals. */
	int fd_shared;	 /* Read-only. */
	uint32_t epoch;	 /* Of the memory. */
	uint32_t tenant; /* NO_TENANT: it has no memory. */
	uint32_t used_pages;
	uint8_t *states;
	struct page_links *links;
};

struct tenant {
	uint32_t lists[ORDERS]; /* First page of the first free block; NO_PAGE. */
	uint32_t orders;	/* A bit for each list that is not empty. */
};

struct arena {
	uint8_t *reserved;
	size_t reserved_bytes;
	uint8_t *base;
	uint32_t chunk_shift; /* log2 of a chunk's pages */
	bool hugetlb;
	uint32_t chunks_max;
	uint32_t chunks_count;
	uint32_t chunks_empty;
	uint64_t used_pages;
	struct chunk *chunks;
	struct tenant *tenants;
	uint32_t tenants_count;
	struct arena_chunk_events events;
};

/* ---- The memory of a chunk ---- */

static uint64_t
chunk_bytes(const struct arena *arena)
{
	return (uint64_t)PAGE_BYTES << arena->chunk_shift;
}

static uint8_t *
chunk_base(const struct arena *arena, uint32_t chunk)
{
	return arena->base + chunk * chunk_bytes(arena);
}

/* Where there is no /proc, a duplicate serves: the seals forbid writing through it all the same. */
static int
fd_read_only(int fd)
{
	char path[32];
	int ro;

	(void)snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	ro = open(path, O_RDONLY | O_CLOEXEC);
	if (ro < 0) {
		ro = fcntl(fd, F_DUPFD_CLOEXEC, 0);
	}
	return ro < 0 ? -errno : ro;
}

/* Keeps a range ours while nothing is there: a failed mapping may have removed the one before. */
static void
addresses_reserve(uint8_t *base, uint64_t bytes)
{
	(void)mmap(base, bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED,
		   -1, 0);
}

/* A sealed memfd mapped at `base`, in place of whatever is there. On failure nothing is there. */
static int
memory_map(uint8_t *base, uint64_t bytes, bool hugetlb, int *ret_fd, int *ret_fd_shared)
{
	int fd, fd_shared, rc;
	void *mem;

	fd = memfd_create("headrace-arena",
			  MFD_CLOEXEC | MFD_ALLOW_SEALING | (hugetlb ? MFD_HUGETLB : 0));
	if (fd < 0) {
		return -errno;
	}
	if (ftruncate(fd, (off_t)bytes) != 0) {
		rc = -errno;
		goto out;
	}
	mem = mmap(base, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, fd, 0);
	if (mem == MAP_FAILED) {
		rc = -errno;
		goto out;
	}
	/* After the mapping: FUTURE_WRITE leaves only mappings that exist writable. */
	if (fcntl(fd, F_ADD_SEALS,
		  F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_FUTURE_WRITE | F_SEAL_SEAL) != 0) {
		rc = -errno;
		goto out;
	}
	fd_shared = fd_read_only(fd);
	if (fd_shared < 0) {
		rc = fd_shared;
		goto out;
	}
	if (!hugetlb) {
		/* Where the kernel gives huge pages to shared memory on advice; elsewhere it changes nothing. */
		(void)madvise(mem, bytes, MADV_HUGEPAGE);
	}
	*ret_fd = fd;
	*ret_fd_shared = fd_shared;
	return 0;
out:
	addresses_reserve(base, bytes);
	(void)close(fd);
	return rc;
}

static void
memory_unmap(uint8_t *base, uint64_t bytes, int fd, int fd_shared)
{
	addresses_reserve(base, bytes);
	(void)close(fd);
	(void)close(fd_shared);
}

/* Huge pages are reserved by the mapping, so the pool may run out between two chunks: the rest is of normal pages then. */
static int
chunk_map(struct arena *arena, uint32_t idx)
{
	struct chunk *chunk = &arena->chunks[idx];
	uint8_t *base = chunk_base(arena, idx);
	int rc = -ENOMEM;

	if (arena->hugetlb) {
		rc = memory_map(base, chunk_bytes(arena), true, &chunk->fd, &chunk->fd_shared);
	}
	if (rc != 0) {
		rc = memory_map(base, chunk_bytes(arena), false, &chunk->fd, &chunk->fd_shared);
	}
	return rc;
}

static bool
hugetlb_works(struct arena *arena)
{
	int fd, fd_shared;

	if (chunk_bytes(arena) % HUGE_BYTES != 0 ||
	    memory_map(arena->base, chunk_bytes(arena), true, &fd, &fd_shared) != 0) {
		return false;
	}
	memory_unmap(arena->base, chunk_bytes(arena), fd, fd_shared);
	return true;
}

static int
memory_probe(struct arena *arena)
{
	int fd, fd_shared, rc;

	arena->hugetlb = hugetlb_works(arena);
	if (arena->hugetlb) {
		return 0;
	}
	rc = memory_map(arena->base, chunk_bytes(arena), false, &fd, &fd_shared);
	if (rc == 0) {
		memory_unmap(arena->base, chunk_bytes(arena), fd, fd_shared);
	}
	return rc;
}

/* ---- Blocks ---- */

static struct chunk *
page_chunk(const struct arena *arena, uint32_t page)
{
	return &arena->chunks[page >> arena->chunk_shift];
}

static uint8_t *
page_state(const struct arena *arena, uint32_t page)
{
	return &page_chunk(arena, page)->states[page & ((1u << arena->chunk_shift) - 1)];
}

static struct page_links *
page_links(const struct arena *arena, uint32_t page)
{
	return &page_chunk(arena, page)->links[page & ((1u << arena->chunk_shift) - 1)];
}

static void
list_push(struct arena *arena, struct tenant *tenant, uint32_t page, unsigned order)
{
	struct page_links *links = page_links(arena, page);

	links->prev = NO_PAGE;
	links->next = tenant->lists[order];
	if (links->next != NO_PAGE) {
		page_links(arena, links->next)->prev = page;
	}
	tenant->lists[order] = page;
	tenant->orders |= 1u << order;
	*page_state(arena, page) = (uint8_t)(STATE_FREE | order);
}

static void
list_remove(struct arena *arena, struct tenant *tenant, uint32_t page, unsigned order)
{
	const struct page_links *links = page_links(arena, page);

	if (links->next != NO_PAGE) {
		page_links(arena, links->next)->prev = links->prev;
	}
	if (links->prev != NO_PAGE) {
		page_links(arena, links->prev)->next = links->next;
		return;
	}
	tenant->lists[order] = links->next;
	if (links->next == NO_PAGE) {
		tenant->orders &= ~(1u << order);
	}
}

/* Takes a block of exactly this order off a list that has one of it or a greater one, splitting. It has no state yet. */
static uint32_t
block_take(struct arena *arena, struct tenant *tenant, unsigned order)
{
	unsigned from = (unsigned)__builtin_ctz(tenant->orders >> order << order);
	uint32_t page = tenant->lists[from];

	list_remove(arena, tenant, page, from);
	while (from > order) {
		from--;
		list_push(arena, tenant, page + (1u << from), from);
	}
	return page;
}

/* Marks the first `pages` of a block of this order as allocated, in blocks of their own, and frees what is behind them. */
static void
block_trim(struct arena *arena, struct tenant *tenant, uint32_t page, unsigned order, uint32_t pages)
{
	while (pages < 1u << order) {
		uint32_t half = 1u << --order;

		if (pages <= half) {
			list_push(arena, tenant, page + half, order);
		} else {
			*page_state(arena, page) = (uint8_t)order;
			page += half;
			pages -= half;
		}
	}
	*page_state(arena, page) = (uint8_t)order;
}

/* Frees a block, merging it with its buddies. */
static void
block_free(struct arena *arena, struct tenant *tenant, uint32_t page, unsigned order)
{
	while (order < ORDER_MAX) {
		uint32_t buddy = page ^ 1u << order;

		if (*page_state(arena, buddy) != (STATE_FREE | order)) {
			break;
		}
		list_remove(arena, tenant, buddy, order);
		*page_state(arena, HR_MAX(page, buddy)) = STATE_INSIDE;
		page = HR_MIN(page, buddy);
		order++;
	}
	list_push(arena, tenant, page, order);
}

static void
chunk_used_change(struct arena *arena, uint32_t page, int32_t pages)
{
	struct chunk *chunk = page_chunk(arena, page);

	arena->chunks_empty -= chunk->used_pages == 0;
	chunk->used_pages += (uint32_t)pages;
	arena->used_pages += (uint64_t)(int64_t)pages;
	arena->chunks_empty += chunk->used_pages == 0;
}

/* Frees the blocks of a run of pages that was allocated. */
static void
run_free(struct arena *arena, struct tenant *tenant, uint32_t page, uint32_t pages)
{
	uint32_t end = page + pages;

	chunk_used_change(arena, page, -(int32_t)pages);
	while (page < end) {
		unsigned order = *page_state(arena, page);

		HR_ASSERTF(order <= ORDER_MAX, "page %u is not an allocated block: %#x", page,
			   order);
		*page_state(arena, page) = STATE_INSIDE;
		block_free(arena, tenant, page, order);
		page += 1u << order;
	}
	HR_ASSERT(page == end);
}

/* ---- Tenants and their chunks ---- */

static struct tenant *
tenant_get(struct arena *arena, uint32_t number)
{
	struct tenant *tenants;
	uint32_t count = (uint32_t)round_up_pow2(number + 1);

	HR_ASSERTF(number < ARENA_TENANTS_MAX, "tenant %u", number);
	if (number < arena->tenants_count) {
		return &arena->tenants[number];
	}
	tenants = realloc(arena->tenants, count * sizeof(*tenants));
	if (tenants == NULL) {
		return NULL;
	}
	for (uint32_t i = arena->tenants_count; i < count; i++) {
		memset(tenants[i].lists, 0xff, sizeof(tenants[i].lists));
		tenants[i].orders = 0;
	}
	arena->tenants = tenants;
	arena->tenants_count = count;
	return &arena->tenants[number];
}

/* Puts all of an empty chunk on its tenant's list, so that it is used from its beginning. */
static void
chunk_give(struct arena *arena, uint32_t idx, struct tenant *tenant)
{
	uint32_t first = idx << arena->chunk_shift;

	for (uint32_t page = 1u << arena->chunk_shift; page > 0; page -= 1u << ORDER_MAX) {
		list_push(arena, tenant, first + page - (1u << ORDER_MAX), ORDER_MAX);
	}
}

static void
chunk_announce(const struct arena *arena, uint32_t idx)
{
	if (arena->events.made != NULL && arena->chunks[idx].tenant != NO_TENANT) {
		arena->events.made(arena->events.arg, chunk_base(arena, idx), chunk_bytes(arena));
	}
}

static void
chunk_unmap(struct arena *arena, uint32_t idx)
{
	struct chunk *chunk = &arena->chunks[idx];

	if (arena->events.gone != NULL) {
		arena->events.gone(arena->events.arg, chunk_base(arena, idx), chunk_bytes(arena));
	}
	memory_unmap(chunk_base(arena, idx), chunk_bytes(arena), chunk->fd, chunk->fd_shared);
	chunk->tenant = NO_TENANT;
}

/* Takes an empty chunk off its tenant's list and lets its memory go. */
static void
chunk_take_back(struct arena *arena, uint32_t idx)
{
	struct chunk *chunk = &arena->chunks[idx];
	struct tenant *tenant = &arena->tenants[chunk->tenant];
	uint32_t first = idx << arena->chunk_shift;

	for (uint32_t page = 0; page < 1u << arena->chunk_shift; page += 1u << ORDER_MAX) {
		HR_ASSERT(*page_state(arena, first + page) == (STATE_FREE | ORDER_MAX));
		list_remove(arena, tenant, first + page, ORDER_MAX);
	}
	chunk_unmap(arena, idx);
}

static int
chunk_make(struct arena *arena, uint32_t *ret_idx)
{
	struct chunk *chunk = &arena->chunks[arena->chunks_count];
	size_t pages = (size_t)1 << arena->chunk_shift;
	int rc;

	chunk->states = malloc(pages);
	chunk->links = malloc(pages * sizeof(*chunk->links));
	rc = chunk->states == NULL || chunk->links == NULL ? -ENOMEM
							   : chunk_map(arena, arena->chunks_count);
	if (rc != 0) {
		free(chunk->states);
		free(chunk->links);
		return rc;
	}
	memset(chunk->states, STATE_INSIDE, pages);
	*ret_idx = arena->chunks_count++;
	arena->chunks_empty++;
	return 0;
}

/* A chunk of another tenant with nothing in it, with new memory: who has the old one mapped sees what was there, and nothing
 * of what comes. When there is no new memory it belongs to nobody until the next try. */
static int
chunk_steal(struct arena *arena, uint32_t *ret_idx)
{
	for (uint32_t i = 0; arena->chunks_empty > 0 && i < arena->chunks_count; i++) {
		int rc;

		if (arena->chunks[i].used_pages > 0) {
			continue;
		}
		if (arena->chunks[i].tenant != NO_TENANT) {
			chunk_take_back(arena, i);
		}
		rc = chunk_map(arena, i);
		if (rc == 0) {
			*ret_idx = i;
		}
		return rc;
	}
	return -EAGAIN;
}

/* Gives the tenant one more chunk. */
static int
tenant_grow(struct arena *arena, uint32_t number)
{
	struct chunk *chunk;
	uint32_t idx;
	int rc = arena->chunks_count < arena->chunks_max ? chunk_make(arena, &idx)
							 : chunk_steal(arena, &idx);

	if (rc != 0) {
		return -EAGAIN;
	}
	chunk = &arena->chunks[idx];
	chunk->tenant = number;
	chunk->epoch++;
	chunk_give(arena, idx, &arena->tenants[number]);
	chunk_announce(arena, idx);
	return 0;
}

/* ---- Values ---- */

static void
iov_append(struct arena *arena, uint32_t page, uint32_t pages, struct iovec *iov, uint32_t *count)
{
	uint8_t *base = arena->base + ((uint64_t)page << PAGE_SHIFT);
	size_t bytes = (size_t)pages << PAGE_SHIFT;
	bool starts_chunk = (page & ((1u << arena->chunk_shift) - 1)) == 0;

	if (*count > 0 && !starts_chunk) {
		struct iovec *last = &iov[*count - 1];

		if ((uint8_t *)last->iov_base + last->iov_len == base) {
			last->iov_len += bytes;
			return;
		}
	}
	iov[(*count)++] = (struct iovec){ base, bytes };
}

static void
iov_free(struct arena *arena, uint32_t tenant, const struct iovec *iov, uint32_t count)
{
	for (uint32_t i = 0; i < count; i++) {
		uint64_t off = (uint64_t)((uint8_t *)iov[i].iov_base - arena->base);

		run_free(arena, &arena->tenants[tenant], (uint32_t)(off >> PAGE_SHIFT),
			 (uint32_t)(iov[i].iov_len >> PAGE_SHIFT));
	}
}

/* One piece when a block is large enough for the rest, otherwise the largest block there is and on with the rest. */
static int
pages_alloc(struct arena *arena, uint32_t number, uint32_t pages, struct iovec iov[ARENA_IOV_MAX],
	    uint32_t *ret_count)
{
	struct tenant *tenant = &arena->tenants[number];
	uint32_t count = 0;

	while (pages > 0) {
		unsigned order = log2_floor(round_up_pow2(pages));
		uint32_t take = pages;
		uint32_t page;

		if (tenant->orders >> order == 0 && tenant_grow(arena, number) != 0) {
			if (tenant->orders == 0 || count == ARENA_IOV_MAX) {
				iov_free(arena, number, iov, count);
				return -EAGAIN;
			}
			order = log2_floor(tenant->orders);
			take = 1u << order;
		} else if (count == ARENA_IOV_MAX) {
			iov_free(arena, number, iov, count);
			return -EAGAIN;
		}
		page = block_take(arena, tenant, order);
		block_trim(arena, tenant, page, order, take);
		chunk_used_change(arena, page, (int32_t)take);
		iov_append(arena, page, take, iov, &count);
		pages -= take;
	}
	*ret_count = count;
	return 0;
}

int
arena_alloc(struct arena *arena, uint32_t tenant, uint32_t bytes, struct arena_buf *ret_buf)
{
	struct iovec iov[ARENA_IOV_MAX];
	struct iovec *owned = &ret_buf->one;
	uint32_t count = 0;
	int rc;

	HR_ASSERTF(bytes <= ARENA_VALUE_BYTES_MAX, "%u bytes", bytes);
	if (tenant_get(arena, tenant) == NULL) {
		return -EAGAIN;
	}
	rc = pages_alloc(arena, tenant, (uint32_t)div_round_up(bytes, PAGE_BYTES), iov, &count);
	if (rc != 0) {
		return rc;
	}
	if (count > 1) {
		owned = malloc(count * sizeof(*owned));
		if (owned == NULL) {
			iov_free(arena, tenant, iov, count);
			return -EAGAIN;
		}
	}
	memcpy(owned, iov, count * sizeof(*owned));
	ret_buf->iov = owned;
	ret_buf->iov_count = count;
	ret_buf->bytes = bytes;
	ret_buf->tenant = tenant;
	ret_buf->pages = (uint32_t)div_round_up(bytes, PAGE_BYTES);
	return 0;
}

void
arena_free(struct arena *arena, struct arena_buf *buf)
{
	HR_ASSERT(buf->iov_count != 1 || buf->iov == &buf->one);
	if (buf->iov_count > 0) {
		iov_free(arena, buf->tenant, buf->iov, buf->iov_count);
	}
	if (buf->iov_count > 1) {
		free(buf->iov);
	}
	buf->iov = &buf->one;
	buf->iov_count = 0;
	buf->bytes = 0;
	buf->pages = 0;
}

void
arena_buf_pad(struct arena_buf *buf)
{
	uint32_t tail = buf->pages * PAGE_BYTES - buf->bytes;

	if (tail > 0) {
		struct iovec *last = &buf->iov[buf->iov_count - 1];

		memset((uint8_t *)last->iov_base + last->iov_len - tail, 0, tail);
	}
}

unsigned
arena_iov_slice(const struct arena_buf *buf, uint32_t off, uint32_t len, struct iovec *ret_iov)
{
	unsigned count = 0;

	HR_ASSERTF((uint64_t)off + len <= (uint64_t)buf->pages * PAGE_BYTES, "%u + %u of %u pages",
		   off, len, buf->pages);
	for (uint32_t i = 0; len > 0; i++) {
		const struct iovec *iov = &buf->iov[i];
		uint32_t n;

		if (off >= iov->iov_len) {
			off -= (uint32_t)iov->iov_len;
			continue;
		}
		n = HR_MIN(len, (uint32_t)iov->iov_len - off);
		ret_iov[count++] = (struct iovec){ (uint8_t *)iov->iov_base + off, n };
		len -= n;
		off = 0;
	}
	return count;
}

unsigned
arena_extents(const struct arena *arena, const struct arena_buf *buf, uint32_t off, uint32_t len,
	      struct arena_extent *ret_extents)
{
	struct iovec iov[ARENA_IOV_MAX];
	unsigned count = arena_iov_slice(buf, off, len, iov);

	for (unsigned i = 0; i < count; i++) {
		uint64_t at = (uint64_t)((uint8_t *)iov[i].iov_base - arena->base);

		ret_extents[i] = (struct arena_extent){
			.chunk = (uint32_t)(at / chunk_bytes(arena)),
			.bytes = (uint32_t)iov[i].iov_len,
			.off = at % chunk_bytes(arena),
		};
	}
	return count;
}

/* ---- The arena ---- */

int
arena_create(uint64_t bytes_max, struct arena **ret_arena)
{
	struct arena *arena = calloc(1, sizeof(*arena));
	uint64_t bytes = CHUNK_BYTES_MIN;
	int rc = -ENOMEM;

	if (arena == NULL) {
		return -ENOMEM;
	}
	while (bytes < CHUNK_BYTES_MAX && bytes * 2 * 16 <= bytes_max) {
		bytes *= 2;
	}
	arena->chunk_shift = log2_floor(bytes) - PAGE_SHIFT;
	/* Pages have numbers of 32 bits, and NO_PAGE is none of them. */
	arena->chunks_max = (uint32_t)HR_MIN(HR_MAX(bytes_max / bytes, UINT64_C(1)),
					     (uint64_t)UINT32_MAX >> arena->chunk_shift);
	arena->chunks = calloc(arena->chunks_max, sizeof(*arena->chunks));
	if (arena->chunks == NULL) {
		goto out;
	}
	arena->reserved_bytes = arena->chunks_max * bytes + HUGE_BYTES;
	arena->reserved = mmap(NULL, arena->reserved_bytes, PROT_NONE,
			       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (arena->reserved == MAP_FAILED) {
		goto out;
	}
	arena->base = (uint8_t *)align_up((uintptr_t)arena->reserved, HUGE_BYTES);
	rc = memory_probe(arena);
	if (rc != 0) {
		(void)munmap(arena->reserved, arena->reserved_bytes);
		goto out;
	}
	*ret_arena = arena;
	return 0;
out:
	free(arena->chunks);
	free(arena);
	return rc;
}

void
arena_destroy(struct arena *arena)
{
	if (arena == NULL) {
		return;
	}
	for (uint32_t i = 0; i < arena->chunks_count; i++) {
		if (arena->chunks[i].tenant != NO_TENANT) {
			chunk_unmap(arena, i);
		}
		free(arena->chunks[i].states);
		free(arena->chunks[i].links);
	}
	(void)munmap(arena->reserved, arena->reserved_bytes);
	free(arena->chunks);
	free(arena->tenants);
	free(arena);
}

int
arena_chunk_fd(const struct arena *arena, uint32_t chunk, uint32_t tenant, uint64_t *ret_bytes)
{
	if (chunk >= arena->chunks_count || tenant == NO_TENANT ||
	    arena->chunks[chunk].tenant != tenant) {
		return -ENOENT;
	}
	*ret_bytes = chunk_bytes(arena);
	return arena->chunks[chunk].fd_shared;
}

uint32_t
arena_chunks_count(const struct arena *arena)
{
	return arena->chunks_count;
}

uint32_t
arena_chunk_epoch(const struct arena *arena, uint32_t chunk)
{
	HR_ASSERT(chunk < arena->chunks_count);
	return arena->chunks[chunk].epoch;
}

void
arena_on_chunk(struct arena *arena, const struct arena_chunk_events *events)
{
	arena->events = *events;
	for (uint32_t i = 0; i < arena->chunks_count; i++) {
		chunk_announce(arena, i);
	}
}

bool
arena_chunk_usage(const struct arena *arena, uint32_t chunk, uint32_t *ret_tenant,
		  uint64_t *ret_bytes_used)
{
	HR_ASSERT(chunk < arena->chunks_count);
	*ret_tenant = arena->chunks[chunk].tenant;
	*ret_bytes_used = (uint64_t)arena->chunks[chunk].used_pages << PAGE_SHIFT;
	return *ret_tenant != NO_TENANT;
}

uint64_t
arena_bytes_used(const struct arena *arena)
{
	return arena->used_pages << PAGE_SHIFT;
}

uint64_t
arena_bytes_max(const struct arena *arena)
{
	return arena->chunks_max * chunk_bytes(arena);
}

uint64_t
arena_chunk_bytes(const struct arena *arena)
{
	return chunk_bytes(arena);
}

const char *
arena_pages_kind(const struct arena *arena)
{
	return arena->hugetlb ? "hugetlb" : "normal";
}

/* A1 and A2 of one chunk; counts its free blocks. */
static void
chunk_check(const struct arena *arena, uint32_t idx, uint64_t *free_blocks)
{
	const struct chunk *chunk = &arena->chunks[idx];
	uint32_t pages = 1u << arena->chunk_shift;
	uint32_t used = 0;

	for (uint32_t page = 0; page < pages;) {
		unsigned state = chunk->states[page];
		unsigned order = state & ~(unsigned)STATE_FREE;

		HR_ASSERTF(order <= ORDER_MAX, "chunk %u page %u: %#x", idx, page, state);
		HR_ASSERT((page & ((1u << order) - 1)) == 0);
		for (uint32_t i = 1; i < 1u << order; i++) {
			HR_ASSERT(chunk->states[page + i] == STATE_INSIDE);
		}
		if (state & STATE_FREE) {
			HR_ASSERT(order == ORDER_MAX || chunk->states[page ^ 1u << order] != state);
			*free_blocks += 1;
		} else {
			used += 1u << order;
		}
		page += 1u << order;
	}
	HR_ASSERTF(used == chunk->used_pages, "%u, counted %u", chunk->used_pages, used);
}

void
arena_check(const struct arena *arena)
{
	uint64_t free_blocks = 0, listed = 0, used = 0;
	uint32_t empty = 0;

	for (uint32_t i = 0; i < arena->chunks_count; i++) {
		if (arena->chunks[i].tenant != NO_TENANT) {
			chunk_check(arena, i, &free_blocks);
		}
		used += arena->chunks[i].used_pages;
		empty += arena->chunks[i].used_pages == 0;
	}
	for (uint32_t t = 0; t < arena->tenants_count; t++) {
		const struct tenant *tenant = &arena->tenants[t];

		for (unsigned order = 0; order < ORDERS; order++) {
			uint32_t prev = NO_PAGE;

			HR_ASSERT((tenant->orders >> order & 1) ==
				  (tenant->lists[order] != NO_PAGE));
			for (uint32_t page = tenant->lists[order]; page != NO_PAGE;) {
				HR_ASSERT(*page_state(arena, page) == (STATE_FREE | order));
				HR_ASSERT(page_chunk(arena, page)->tenant == t);
				HR_ASSERT(page_links(arena, page)->prev == prev);
				prev = page;
				page = page_links(arena, page)->next;
				listed++;
			}
		}
	}
	HR_ASSERT(listed == free_blocks);
	HR_ASSERT(used == arena->used_pages);
	HR_ASSERT(empty == arena->chunks_empty);
}
