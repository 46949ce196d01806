/* shm.c - shared memory with clients on the same host: the arena's chunks, borrows of pages in them, and staging memory.
 *
 * What a client gets is read-only and its tenant's. What a client gives is mapped read-only too, after it was found to be a memfd
 * that cannot shrink: then reading it cannot fault, whatever the client does, and it is copied before anything is computed from it.
 */
#define HR_LOG_COMPONENT "session"
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "base/log.h"
#include "shard/shard_impl.h"

static const long TMPFS_TYPE = 0x01021994;

/* -- chunks and borrows --------------------------------------------------------------------------------------------------------- */

static bool
chunks_reserve(struct session *session, uint32_t chunk)
{
	uint32_t count = (uint32_t)round_up_pow2((uint64_t)chunk + 1);
	uint32_t *epochs;

	if (chunk < session->chunks_count) {
		return true;
	}
	epochs = realloc(session->chunk_epochs, count * sizeof(*epochs));
	if (epochs == NULL) {
		return false;
	}
	memset(epochs + session->chunks_count, 0, (count - session->chunks_count) * sizeof(*epochs));
	session->chunk_epochs = epochs;
	session->chunks_count = count;
	return true;
}

/* The client has the chunk's descriptor, or gets it before what is queued from now on. */
static bool
chunk_push(struct session *session, uint32_t chunk)
{
	struct arena *arena = engine_arena(session->eng->engine);
	struct wire_region region = { .number = chunk, .epoch = arena_chunk_epoch(arena, chunk) };
	struct out *out;
	int fd;

	if (!chunks_reserve(session, chunk)) {
		return false;
	}
	if (session->chunk_epochs[chunk] == region.epoch + 1) {
		return true;
	}
	fd = arena_chunk_fd(arena, chunk, session->tenant, &region.bytes);
	if (fd < 0) {
		return false;
	}
	out = out_create(session, WIRE_CHUNK, 0);
	out->header.items_count = 1;
	out->fd = fd;
	wire_region_encode(&out->head, &region);
	out_send(session, out);
	session->chunk_epochs[chunk] = region.epoch + 1;
	return true;
}

static bool
borrow_create(struct session *session, struct cache_entry *entry, uint64_t *ret_handle)
{
	struct shard_stat *stat = &session->shard->stat;
	struct shard_engine *eng = session->eng;
	struct borrow *borrow;

	if (session->borrow_bytes + entry->bytes > session->shard->options.borrow_bytes_max ||
	    eng->borrow_bytes + entry->bytes > eng->output_bytes_fair) {
		stat->borrows_refused++;
		return false;
	}
	borrow = malloc(sizeof(*borrow));
	if (borrow == NULL ||
	    hashmap_put_ptr(&session->borrows, session->borrow_next + 1, borrow) != 0) {
		free(borrow);
		stat->borrows_refused++;
		return false;
	}
	borrow->entry = entry;
	borrow->bytes = entry->bytes;
	*ret_handle = ++session->borrow_next;
	session->borrow_bytes += borrow->bytes;
	eng->borrow_bytes += borrow->bytes;
	stat->borrows_now++;
	stat->borrow_bytes_now += borrow->bytes;
	return true;
}

static void
borrow_end(struct session *session, struct borrow *borrow)
{
	struct shard_stat *stat = &session->shard->stat;

	session->borrow_bytes -= borrow->bytes;
	session->eng->borrow_bytes -= borrow->bytes;
	stat->borrows_now--;
	stat->borrow_bytes_now -= borrow->bytes;
	cache_unref(engine_cache(session->eng->engine), borrow->entry);
	free(borrow);
}

/* True: the answer is in shared memory; the slot's reference is the borrow's now. False: it goes through the socket. */
bool
session_shm_answer(struct session *session, struct get_slot *slot, struct wire_get_answer *answer,
		   uint32_t off, uint32_t bytes, struct wire_extent *ret_extents)
{
	struct arena *arena = engine_arena(session->eng->engine);
	struct cache_entry *entry = slot->get.entry;
	struct arena_extent extents[ARENA_IOV_MAX];
	unsigned count;

	if ((session->features & WIRE_FEATURE_SHM) == 0 || bytes == 0) {
		return false;
	}
	count = arena_extents(arena, &entry->buf, off, bytes, extents);
	for (unsigned i = 0; i < count; i++) {
		if (!chunk_push(session, extents[i].chunk)) {
			return false;
		}
		ret_extents[i] =
		    (struct wire_extent){ extents[i].chunk, extents[i].bytes, extents[i].off };
	}
	if (!borrow_create(session, entry, &answer->borrow)) {
		return false;
	}
	slot->get.entry = NULL;
	answer->flags |= WIRE_GOT_SHM;
	answer->extents_count = (uint16_t)count;
	return true;
}

int
session_unborrow(struct session *session, const uint8_t *items, const char **ret_why)
{
	const struct wire_header *header = &session->rx_header;
	struct wire_reader reader = { items, items + header->items_bytes };
	struct out *out;
	uint64_t handle;

	if (header->items_bytes != (uint64_t)header->items_count * 8) {
		*ret_why = "items that do not fill their section";
		return -HR_EPROTO;
	}
	for (uint32_t i = 0; i < header->items_count; i++) {
		struct borrow *borrow;

		HR_ASSERT(wire_u64_decode(&reader, &handle, ret_why) == 0);
		borrow = hashmap_remove_ptr(&session->borrows, handle);
		if (borrow == NULL) {
			*ret_why = "a borrow that is not there";
			return -HR_EPROTO;
		}
		borrow_end(session, borrow);
	}
	if ((header->flags & WIRE_FLAG_NO_ANSWER) == 0) {
		out = out_create(session, WIRE_UNBORROW, header->request_id);
		out->header.flags = WIRE_FLAG_ANSWER | WIRE_FLAG_LAST;
		out_send(session, out);
	}
	return 0;
}

/* -- staging ---------------------------------------------------------------------------------------------------------------------- */

static struct staging *
staging_find(struct session *session, uint32_t number)
{
	for (unsigned i = 0; i < STAGING_REGIONS_MAX; i++) {
		if (session->staging[i].base != NULL && session->staging[i].number == number) {
			return &session->staging[i];
		}
	}
	return NULL;
}

static void
staging_unmap(struct session *session, struct staging *staging)
{
	munmap(staging->base, staging->bytes);
	session->shard->stat.staging_regions_now--;
	session->shard->stat.staging_bytes_now -= staging->bytes;
	*staging = (struct staging){ 0 };
}

/* Only memory that stays readable, whatever its owner does: a memfd of ordinary pages that cannot shrink. */
static const char *
staging_fd_check(int fd, uint64_t bytes)
{
	int seals = fcntl(fd, F_GET_SEALS);
	struct statfs fs;
	struct stat st;

	if (seals < 0 || (seals & F_SEAL_SHRINK) == 0) {
		return "staging memory that could shrink";
	}
	if (fstat(fd, &st) != 0 || st.st_size < 0 || (uint64_t)st.st_size < bytes) {
		return "staging memory shorter than it says";
	}
	/* Huge pages that were not reserved are missing when they are touched. */
	if (fstatfs(fd, &fs) != 0 || fs.f_type != TMPFS_TYPE) {
		return "staging memory that is not of ordinary pages";
	}
	return NULL;
}

static const char *
staging_add(struct session *session, const struct wire_region *region, int fd)
{
	struct shard_stat *stat = &session->shard->stat;
	struct staging *staging = NULL;
	const char *why;
	void *base;

	for (unsigned i = 0; i < STAGING_REGIONS_MAX && staging == NULL; i++) {
		staging = session->staging[i].base == NULL ? &session->staging[i] : NULL;
	}
	if (staging == NULL || region->bytes > STAGING_BYTES_MAX) {
		return "too much staging memory";
	}
	why = staging_fd_check(fd, region->bytes);
	if (why != NULL) {
		return why;
	}
	base = mmap(NULL, region->bytes, PROT_READ, MAP_SHARED, fd, 0);
	if (base == MAP_FAILED) {
		return "staging memory that cannot be mapped";
	}
	*staging =
	    (struct staging){ .base = base, .bytes = region->bytes, .number = region->number };
	stat->staging_regions_now++;
	stat->staging_bytes_now += region->bytes;
	return NULL;
}

int
session_staging(struct session *session, const uint8_t *items, const char **ret_why)
{
	const struct wire_header *header = &session->rx_header;
	struct wire_reader reader = { items, items + header->items_bytes };
	struct wire_region region;
	struct staging *old;
	struct out *out;
	int fd, rc = wire_region_decode(&reader, &region, ret_why);

	if (rc != 0) {
		return rc;
	}
	if ((session->features & WIRE_FEATURE_SHM) == 0) {
		*ret_why = "staging memory without shared memory";
		return -HR_EPROTO;
	}
	old = staging_find(session, region.number);
	if (region.bytes == 0 && old != NULL) {
		staging_unmap(session, old);
	} else if (region.bytes == 0 || old != NULL) {
		*ret_why = "a staging region that is there already, or is not there";
		return -HR_EPROTO;
	} else {
		if (io_conn_take_fds(session->conn, &fd, 1) != 1) {
			*ret_why = "staging memory without its descriptor";
			return -HR_EPROTO;
		}
		*ret_why = staging_add(session, &region, fd);
		(void)close(fd);
		if (*ret_why != NULL) {
			return -HR_EPROTO;
		}
	}
	out = out_create(session, WIRE_STAGING, header->request_id);
	out->header.flags = WIRE_FLAG_ANSWER | WIRE_FLAG_LAST;
	out_send(session, out);
	return 0;
}

bool
session_staging_range(struct session *session, uint32_t region, uint64_t off, uint64_t bytes,
		      const uint8_t **ret_bytes)
{
	const struct staging *staging = staging_find(session, region);

	if (staging == NULL || off > staging->bytes || bytes > staging->bytes - off) {
		return false;
	}
	*ret_bytes = (const uint8_t *)staging->base + off;
	return true;
}

void
session_shm_fini(struct session *session)
{
	struct hashmap_slot *slot;
	size_t pos;

	hashmap_for_each(&session->borrows, pos, slot) {
		borrow_end(session, (struct borrow *)(uintptr_t)slot->value);
	}
	hashmap_fini(&session->borrows);
	for (unsigned i = 0; i < STAGING_REGIONS_MAX; i++) {
		if (session->staging[i].base != NULL) {
			staging_unmap(session, &session->staging[i]);
		}
	}
}
