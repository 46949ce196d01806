/* shm.c - shared memory on Unix sockets: the server's chunks, the staging ring for PUT, registered regions, borrows.
 *
 * The staging memory is one memfd of the core, sealed against shrinking and growing and announced on each connection. Ranges of it are
 * taken in a ring and given back in any order when their items are answered; while it is full, values go through the socket.
 */
#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include "client/core_impl.h"

enum { STAGING_ALIGN = 64, STAGING_RANGES_MIN = 256 };

/* -- staging --------------------------------------------------------------------------------------------------------------------- */

int
shm_staging_create(struct core *core)
{
	struct region *region = &core->regions[STAGING_REGION];
	uint64_t len = align_up(core->options.staging_bytes, 4096);
	void *base;
	int fd;

	if (len == 0) {
		return 0;
	}
	fd = memfd_create("headrace-staging", MFD_CLOEXEC | MFD_ALLOW_SEALING);
	if (fd < 0) {
		return -errno;
	}
	if (ftruncate(fd, (off_t)len) != 0 ||
	    fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW) != 0) {
		(void)close(fd);
		return -EIO;
	}
	base = mmap(NULL, len, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (base == MAP_FAILED) {
		(void)close(fd);
		return -ENOMEM;
	}
	/* A child would share the pages with its parent and could change values on their way. */
	(void)madvise(base, len, MADV_DONTFORK);
	*region = (struct region){ .base = base, .len = len, .fd = fd, .own = true };
	return 0;
}

uint64_t
shm_staging_off(const struct core *core, uint64_t at)
{
	return at % core->regions[STAGING_REGION].len;
}

static struct staging_range *
staging_range(struct staging *staging, uint32_t i)
{
	return &staging->ranges[(staging->first + i) % staging->cap];
}

static int
staging_grow(struct staging *staging)
{
	uint32_t cap = staging->cap == 0 ? STAGING_RANGES_MIN : staging->cap * 2;
	struct staging_range *more = calloc(cap, sizeof(*more));

	if (more == NULL) {
		return -ENOMEM;
	}
	for (uint32_t i = 0; i < staging->count; i++) {
		more[i] = *staging_range(staging, i);
	}
	free(staging->ranges);
	staging->ranges = more;
	staging->first = 0;
	staging->cap = cap;
	return 0;
}

bool
shm_staging_get(struct core *core, uint64_t bytes, uint64_t *ret_at, uint8_t **ret_base)
{
	struct staging *staging = &core->staging;
	struct region *region = &core->regions[STAGING_REGION];
	uint64_t at = align_up(staging->head, STAGING_ALIGN);

	if (region->base == NULL || bytes > region->len) {
		return false;
	}
	if (at % region->len + bytes > region->len) {
		at = div_round_up(at, region->len) * region->len; /* a range does not wrap */
	}
	if (at + bytes - staging->tail > region->len ||
	    (staging->count == staging->cap && staging_grow(staging) != 0)) {
		core->stat.staging_full++;
		return false;
	}
	*staging_range(staging, staging->count++) =
	    (struct staging_range){ .at = at, .end = at + bytes };
	staging->head = at + bytes;
	*ret_at = at;
	*ret_base = region->base + at % region->len;
	return true;
}

void
shm_staging_put(struct core *core, uint64_t at)
{
	struct staging *staging = &core->staging;
	uint32_t lo = 0, hi = staging->count;

	while (lo < hi) { /* ranges are in the order of their positions */
		uint32_t mid = (lo + hi) / 2;

		if (staging_range(staging, mid)->at < at) {
			lo = mid + 1;
		} else {
			hi = mid;
		}
	}
	while (lo < staging->count && staging_range(staging, lo)->free) {
		lo++; /* an empty range shares its position with the next */
	}
	HR_ASSERT(lo < staging->count && staging_range(staging, lo)->at == at);
	staging_range(staging, lo)->free = true;
	while (staging->count > 0 && staging_range(staging, 0)->free) {
		staging->tail = staging_range(staging, 0)->end;
		staging->first = (staging->first + 1) % staging->cap;
		staging->count--;
	}
	if (staging->count == 0) {
		staging->tail = staging->head;
	}
}

/* -- regions --------------------------------------------------------------------------------------------------------------------- */

static void
region_send(struct peer *peer, uint32_t idx)
{
	struct region *region = &peer->core->regions[idx];
	struct wire_region items = { .number = idx, .bytes = region->len };
	struct request *req = req_create(peer, REQUEST_STAGING, WIRE_STAGING);

	if (req == NULL || req_slot_take(peer, req) != 0) {
		if (req != NULL) {
			req_free(req);
		}
		return; /* values of this region go through the socket */
	}
	wire_region_encode(&req->items, &items);
	req->items_count = 1;
	req->fd = region->fd;
	peer->regions_sent[idx] = req_queue(req) == 0;
}

void
shm_regions_send(struct peer *peer)
{
	for (uint32_t idx = 0; idx < REGIONS_MAX; idx++) {
		if (peer->core->regions[idx].base != NULL && !peer->regions_sent[idx]) {
			region_send(peer, idx);
		}
	}
}

uint32_t
shm_region_find(const struct core *core, const void *base, size_t len, uint64_t *ret_off)
{
	for (uint32_t idx = STAGING_REGION + 1; idx < REGIONS_MAX; idx++) {
		const struct region *region = &core->regions[idx];
		uint64_t off = (uint64_t)((const uint8_t *)base - region->base);

		if (region->base != NULL && (const uint8_t *)base >= region->base &&
		    off <= region->len && len <= region->len - off) {
			*ret_off = off;
			return idx;
		}
	}
	return 0;
}

int
core_region_add(struct core *core, void *base, size_t len, int fd)
{
	for (uint32_t idx = STAGING_REGION + 1; idx < REGIONS_MAX; idx++) {
		if (core->regions[idx].base != NULL) {
			continue;
		}
		core->regions[idx] = (struct region){ .base = base, .len = len, .fd = fd };
		for (unsigned i = 0; i < core->peers_count; i++) {
			if (core->peers[i]->state == PEER_READY && core->peers[i]->shm) {
				shm_regions_send(core->peers[i]);
				peer_pump(core->peers[i]);
			}
		}
		return 0;
	}
	return -ENOSPC;
}

int
core_region_remove(struct core *core, void *base)
{
	for (uint32_t idx = STAGING_REGION + 1; idx < REGIONS_MAX; idx++) {
		struct region *region = &core->regions[idx];

		if (region->base != base) {
			continue;
		}
		for (unsigned i = 0; i < core->peers_count; i++) {
			struct peer *peer = core->peers[i];
			struct wire_region items = { .number = idx };
			struct wire_buf buf = { 0 };

			if (peer->regions_sent[idx]) {
				peer->regions_sent[idx] = false;
				wire_region_encode(&buf, &items);
				peer_note(peer, WIRE_STAGING, NULL, &buf, 1);
				peer_pump(peer);
			}
		}
		(void)close(region->fd);
		*region = (struct region){ 0 };
		return 0;
	}
	return -ENOENT;
}

/* -- chunks ---------------------------------------------------------------------------------------------------------------------- */

void
shm_mapping_unref(struct mapping *mapping)
{
	if (mapping != NULL && --mapping->refs == 0) {
		(void)munmap(mapping->base, mapping->len);
		free(mapping);
	}
}

struct mapping *
shm_chunk_find(struct peer *peer, uint32_t chunk)
{
	for (uint32_t i = 0; i < peer->chunks_count; i++) {
		if (peer->chunks[i]->chunk == chunk) {
			return peer->chunks[i];
		}
	}
	return NULL;
}

/* A chunk that came again (it had another tenant meanwhile) takes the place of the old mapping, which lives on in borrows. */
static int
chunk_keep(struct peer *peer, struct mapping *mapping)
{
	struct mapping **more;

	for (uint32_t i = 0; i < peer->chunks_count; i++) {
		if (peer->chunks[i]->chunk == mapping->chunk) {
			shm_mapping_unref(peer->chunks[i]);
			peer->chunks[i] = mapping;
			return 0;
		}
	}
	if (peer->chunks_count == peer->chunks_cap) {
		uint32_t cap = peer->chunks_cap == 0 ? 8 : peer->chunks_cap * 2;

		more = reallocarray(peer->chunks, cap, sizeof(struct mapping *));
		if (more == NULL) {
			return -ENOMEM;
		}
		peer->chunks = more;
		peer->chunks_cap = cap;
	}
	peer->chunks[peer->chunks_count++] = mapping;
	return 0;
}

int
shm_chunk_take(struct peer *peer, const struct wire_region *region, int fd, const char **ret_why)
{
	struct mapping *mapping;
	int seals = fcntl(fd, F_GET_SEALS);
	off_t len = lseek(fd, 0, SEEK_END);

	/* Without the seal a truncation would end us by SIGBUS. */
	if (seals < 0 || (seals & F_SEAL_SHRINK) == 0 || region->bytes == 0 || len < 0 ||
	    (uint64_t)len < region->bytes) {
		*ret_why = "a chunk that can shrink or is too small";
		return -HR_EPROTO;
	}
	mapping = calloc(1, sizeof(*mapping));
	if (mapping == NULL) {
		*ret_why = "no memory";
		return -ENOMEM;
	}
	mapping->len = region->bytes;
	mapping->base = mmap(NULL, mapping->len, PROT_READ, MAP_SHARED, fd, 0);
	if (mapping->base == MAP_FAILED) {
		free(mapping);
		*ret_why = "a chunk that cannot be mapped";
		return -ENOMEM;
	}
	mapping->refs = 1;
	mapping->chunk = region->number;
	mapping->epoch = region->epoch;
	if (chunk_keep(peer, mapping) != 0) {
		shm_mapping_unref(mapping);
		*ret_why = "no memory";
		return -ENOMEM;
	}
	return 0;
}

/* The connection is gone, and with it the chunks, the borrows' meaning, and what the server knew of our memory. */
void
shm_peer_reset(struct peer *peer)
{
	struct borrow *borrow;

	for (uint32_t i = 0; i < peer->chunks_count; i++) {
		shm_mapping_unref(peer->chunks[i]);
	}
	peer->chunks_count = 0;
	peer->unborrows_count = 0;
	peer->shm = false;
	peer->borrow = false;
	memset(peer->regions_sent, 0, sizeof(peer->regions_sent));
	list_for_each_entry(borrow, &peer->core->borrows, link) {
		if (borrow->peer == peer) {
			borrow->peer = NULL;
		}
	}
}

/* -- borrows --------------------------------------------------------------------------------------------------------------------- */

void
shm_unborrow(struct peer *peer, uint64_t handle)
{
	if (handle == 0) {
		return;
	}
	if (peer->unborrows_count == peer->unborrows_cap) {
		uint32_t cap = peer->unborrows_cap == 0 ? 64 : peer->unborrows_cap * 2;
		uint64_t *more = reallocarray(peer->unborrows, cap, sizeof(*more));

		if (more == NULL) {
			/* It would stay borrowed for ever; a new connection starts clean. */
			peer_fail(peer, -ENOMEM, "no memory");
			return;
		}
		peer->unborrows = more;
		peer->unborrows_cap = cap;
	}
	peer->unborrows[peer->unborrows_count++] = handle;
}

void
shm_unborrows_send(struct peer *peer)
{
	struct wire_buf items = { 0 };
	uint32_t count = HR_MIN(peer->unborrows_count, (uint32_t)WIRE_ITEMS_MAX);

	if (count == 0 || peer->state != PEER_READY || peer->notes_count >= NOTES_MAX) {
		return;
	}
	for (uint32_t i = 0; i < count; i++) {
		wire_u64_encode(&items, peer->unborrows[i]);
	}
	if (items.failed) {
		wire_buf_free(&items);
		return;
	}
	peer->unborrows_count -= count;
	memmove(peer->unborrows, peer->unborrows + count,
		peer->unborrows_count * sizeof(*peer->unborrows));
	peer_note(peer, WIRE_UNBORROW, NULL, &items, count);
}

void
shm_borrow_free(struct core *core, struct borrow *borrow, bool say)
{
	if (borrow == NULL) {
		return;
	}
	for (uint32_t i = 0; i < borrow->segments_count; i++) {
		struct borrow_segment *segment = &borrow->segments[i];

		if (segment->owned) {
			free(segment->iov.iov_base);
		}
		shm_mapping_unref(segment->mapping);
	}
	if (say && borrow->peer != NULL && borrow->peer->epoch == borrow->epoch) {
		struct peer *peer = borrow->peer;

		for (uint32_t i = 0; i < borrow->handles_count; i++) {
			shm_unborrow(peer, borrow->handles[i]);
		}
		peer_pump(peer);
	}
	if (!list_empty(&borrow->link)) {
		list_del(&borrow->link);
		core->stat.borrows_now--;
	}
	free(borrow->handles);
	free(borrow->segments);
	free(borrow->iov);
	free(borrow);
}

void
core_unborrow(struct core *core, uint64_t borrow)
{
	struct borrow *known;

	list_for_each_entry(known, &core->borrows, link) {
		if ((uint64_t)(uintptr_t)known == borrow) {
			shm_borrow_free(core, known, true);
			return;
		}
	}
}

void
shm_fini(struct core *core)
{
	struct borrow *borrow, *tmp;

	list_for_each_entry_safe(borrow, tmp, &core->borrows, link) {
		shm_borrow_free(core, borrow, false);
	}
	for (uint32_t idx = 0; idx < REGIONS_MAX; idx++) {
		struct region *region = &core->regions[idx];

		if (region->base == NULL) {
			continue;
		}
		if (region->own) {
			(void)munmap(region->base, region->len);
		}
		(void)close(region->fd);
	}
	free(core->staging.ranges);
}
