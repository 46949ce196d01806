/* index.c — see index.h.
 *
 * Memory. Each sub-table owns a span of address space, so it grows and shrinks in place and leaves no holes behind: with a
 * heap, a thousand blocks that each grow by an eighth fragment it by a third. Only sub-tables below half a page are in the heap
 * (together at most 2 MiB), so that a small store does not touch a page for each. To change size, a sub-table is copied to
 * the scratch buffer, zeroed, and filled again from there; when that does not succeed the copy is put back.
 */
#include "engine/index.h"

#include <errno.h>
#include <malloc.h>
#include <stdlib.h>
#include <sys/mman.h>

#include "base/base.h"
#include "base/crc.h"
#include "base/hash.h"
#include "base/prng.h"

enum {
	BUCKET_SLOTS = 7,
	BUCKET_FULL = (1 << BUCKET_SLOTS) - 1,
	TAG_BITS = 36,
	PLACE_BITS = 34,
	BYTES_MAX = 4 << 20,
	PAGE_BYTES = 4096,
	PAGE_BUCKETS = PAGE_BYTES / 128,
	SMALL_BUCKETS = PAGE_BUCKETS / 2, /* Below, a sub-table is in the heap. */
	/* Buckets looked at for a path; a search that ends without one makes the sub-table grow early. */
	SEARCH_MAX = 192,
	CURSOR_END = 2 * BUCKET_SLOTS,
};

/* Loads in 1/1024: grow above, shrink below, and what to shrink to. 128 bytes a bucket of 7 at 781 is 24 bytes an entry; after
 * a growth the load is 8/9 of LOAD_MAX, well between the two, so that no sequence of operations makes a table go to and fro. */
enum { LOAD_MAX = 960, LOAD_MIN = 786, LOAD_SHRUNK = 886 };

/* Address space for one sub-table; halved until the kernel grants it. */
#define SPAN_BYTES_MAX (UINT64_C(32) << 20)
#define SPAN_BYTES_MIN (UINT64_C(1) << 20)

/* Fields apart, so that nothing needs unpacking: the tags are compared in one cache line. `high`: 4 bits of tag, 2 of place,
 * 7 of bytes, 3 of flags. */
struct bucket {
	uint32_t tag_low[BUCKET_SLOTS];
	uint32_t check[BUCKET_SLOTS];
	uint32_t place_low[BUCKET_SLOTS];
	uint16_t recency[BUCKET_SLOTS];
	uint16_t bytes_low[BUCKET_SLOTS];
	uint16_t high[BUCKET_SLOTS];
	uint8_t used; /* A bit for each slot. */
	uint8_t reserved;
};
static_assert(sizeof(struct bucket) == 128, "two cache lines");

/* One entry as it travels: packed, with its birth. */
struct packed {
	uint32_t tag_low;
	uint32_t check;
	uint32_t place_low;
	uint16_t recency;
	uint16_t bytes_low;
	uint16_t high;
	uint64_t birth;
};

struct subtable {
	struct bucket *buckets; /* In the heap below half a page, otherwise in its span. */
	uint64_t *births;	/* 8 for each bucket; NULL unless births are carried. */
	uint32_t buckets_count;
	uint32_t live;
};

struct index {
	uint64_t key[2];
	uint64_t count;
	size_t heap_bytes;  /* Of sub-tables below half a page. */
	size_t pages_bytes; /* Of the others. */
	uint64_t span_bytes;
	uint8_t *region;
	uint8_t *births_region; /* NULL unless births are carried. */
	uint8_t *scratch;
	size_t scratch_bytes;
	struct subtable subtables[INDEX_SUBTABLES];
};

struct position {
	uint32_t bucket;
	uint32_t slot;
};

/* ---- One bucket and one entry ---- */

static uint64_t
bucket_tag(const struct bucket *b, uint32_t slot)
{
	return b->tag_low[slot] | (uint64_t)(b->high[slot] & 0xf) << 32;
}

static uint64_t
bucket_place(const struct bucket *b, uint32_t slot)
{
	return b->place_low[slot] | (uint64_t)(b->high[slot] >> 4 & 0x3) << 32;
}

static void
bucket_entry(const struct bucket *b, uint32_t slot, struct index_entry *ret_entry)
{
	ret_entry->place = bucket_place(b, slot);
	ret_entry->bytes = b->bytes_low[slot] | (uint32_t)(b->high[slot] >> 6 & 0x7f) << 16;
	ret_entry->check = b->check[slot];
	ret_entry->recency = b->recency[slot];
	ret_entry->flags = b->high[slot] >> 13;
}

static void
packed_make(uint64_t tag, const struct index_entry *entry, uint64_t birth, struct packed *ret)
{
	HR_ASSERTF(entry->place >> PLACE_BITS == 0, "place %#llx", (unsigned long long)entry->place);
	HR_ASSERTF(entry->bytes <= BYTES_MAX, "bytes %u", entry->bytes);
	HR_ASSERTF(entry->flags < 8, "flags %u", entry->flags);
	*ret = (struct packed){
		.tag_low = (uint32_t)tag,
		.check = entry->check,
		.place_low = (uint32_t)entry->place,
		.recency = entry->recency,
		.bytes_low = (uint16_t)entry->bytes,
		.high = (uint16_t)(tag >> 32 | entry->place >> 32 << 4 | entry->bytes >> 16 << 6 |
				   (uint32_t)entry->flags << 13),
		.birth = birth,
	};
}

static void
subtable_get(const struct subtable *sub, struct position at, struct packed *ret)
{
	const struct bucket *b = &sub->buckets[at.bucket];

	ret->tag_low = b->tag_low[at.slot];
	ret->check = b->check[at.slot];
	ret->place_low = b->place_low[at.slot];
	ret->recency = b->recency[at.slot];
	ret->bytes_low = b->bytes_low[at.slot];
	ret->high = b->high[at.slot];
	ret->birth = sub->births != NULL ? sub->births[at.bucket * 8 + at.slot] : 0;
}

static void
subtable_put(struct subtable *sub, struct position at, const struct packed *packed)
{
	struct bucket *b = &sub->buckets[at.bucket];

	b->tag_low[at.slot] = packed->tag_low;
	b->check[at.slot] = packed->check;
	b->place_low[at.slot] = packed->place_low;
	b->recency[at.slot] = packed->recency;
	b->bytes_low[at.slot] = packed->bytes_low;
	b->high[at.slot] = packed->high;
	b->used |= (uint8_t)(1 << at.slot);
	if (sub->births != NULL) {
		sub->births[at.bucket * 8 + at.slot] = packed->birth;
	}
}

static bool
bucket_free_slot(const struct bucket *b, uint32_t *ret_slot)
{
	uint32_t holes = ~(uint32_t)b->used & BUCKET_FULL;

	if (holes == 0) {
		return false;
	}
	*ret_slot = (uint32_t)__builtin_ctz(holes);
	return true;
}

/* Slots whose tag is this one, as bits. Only the first cache line is read unless something matches. */
static uint32_t
bucket_match(const struct bucket *b, uint64_t tag)
{
	uint32_t found = 0;

	for (uint32_t slot = 0; slot < BUCKET_SLOTS; slot++) {
		found |= (uint32_t)(b->tag_low[slot] == (uint32_t)tag) << slot;
	}
	if (likely(found == 0)) {
		return 0;
	}
	found &= b->used;
	for (uint32_t bits = found; bits != 0; bits &= bits - 1) {
		uint32_t slot = (uint32_t)__builtin_ctz(bits);

		if ((b->high[slot] & 0xf) != tag >> 32) {
			found &= ~(1u << slot);
		}
	}
	return found;
}

/* ---- One sub-table ---- */

/* The two buckets of a tag; the same twice only when there is one bucket. Each is a half of the tag's mix, reduced by
 * multiplication, so any number of buckets will do. */
static void
tag_buckets(uint64_t tag, uint32_t buckets_count, uint32_t ret_buckets[2])
{
	uint64_t mix = mix64(tag + UINT64_C(0x9e3779b97f4a7c15));

	ret_buckets[0] = (uint32_t)((mix >> 32) * buckets_count >> 32);
	ret_buckets[1] = (uint32_t)((mix & UINT32_MAX) * buckets_count >> 32);
	if (ret_buckets[1] == ret_buckets[0]) {
		ret_buckets[1] = ret_buckets[0] + 1 == buckets_count ? 0 : ret_buckets[0] + 1;
	}
}

static uint32_t
tag_other_bucket(uint64_t tag, uint32_t buckets_count, uint32_t bucket)
{
	uint32_t two[2];

	tag_buckets(tag, buckets_count, two);
	return two[0] == bucket ? two[1] : two[0];
}

struct search_node {
	uint32_t bucket;
	uint8_t parent;	     /* Index of the node it was reached from. */
	uint8_t parent_slot; /* Whose entry could move here. */
};
static_assert(SEARCH_MAX <= UINT8_MAX, "parents fit");

/* Moves entries along the path that ends at `hole`, last one first, so that a slot of the path's first bucket is free. False
 * when a move is not possible any more, because the path crossed itself; the table is consistent then, too. */
static bool
search_move(struct subtable *sub, const struct search_node *nodes, uint32_t node,
	    struct position hole, struct position *ret_at)
{
	while (node >= 2) {
		struct position from = { nodes[nodes[node].parent].bucket, nodes[node].parent_slot };
		struct bucket *b = &sub->buckets[from.bucket];
		struct packed packed;

		if ((b->used >> from.slot & 1) == 0 ||
		    tag_other_bucket(bucket_tag(b, from.slot), sub->buckets_count, from.bucket) !=
			hole.bucket) {
			return false;
		}
		subtable_get(sub, from, &packed);
		subtable_put(sub, hole, &packed);
		b->used &= (uint8_t) ~(1 << from.slot);
		hole = from;
		node = nodes[node].parent;
	}
	*ret_at = hole;
	return true;
}

/* Breadth first from both buckets, which are full: the shortest path to a hole. */
static bool
search_room(struct subtable *sub, const uint32_t two[2], struct position *ret_at)
{
	struct search_node nodes[SEARCH_MAX];
	uint32_t nodes_count = 2;

	nodes[0] = (struct search_node){ .bucket = two[0] };
	nodes[1] = (struct search_node){ .bucket = two[1] };
	for (uint32_t i = 0; i < nodes_count; i++) {
		const struct bucket *b = &sub->buckets[nodes[i].bucket];

		for (uint32_t slot = 0; slot < BUCKET_SLOTS && nodes_count < SEARCH_MAX; slot++) {
			struct search_node *node = &nodes[nodes_count];
			struct position hole;

			node->bucket = tag_other_bucket(bucket_tag(b, slot), sub->buckets_count,
							nodes[i].bucket);
			node->parent = (uint8_t)i;
			node->parent_slot = (uint8_t)slot;
			hole.bucket = node->bucket;
			if (bucket_free_slot(&sub->buckets[hole.bucket], &hole.slot)) {
				return search_move(sub, nodes, nodes_count, hole, ret_at);
			}
			nodes_count++;
		}
	}
	return false;
}

/* Puts an entry into one of its buckets, the emptier one, making room if needed. False: there was none. */
static bool
subtable_add(struct subtable *sub, const struct packed *packed)
{
	uint64_t tag = packed->tag_low | (uint64_t)(packed->high & 0xf) << 32;
	struct position at;
	uint32_t two[2];
	int used0, used1;

	tag_buckets(tag, sub->buckets_count, two);
	used0 = __builtin_popcount(sub->buckets[two[0]].used);
	used1 = __builtin_popcount(sub->buckets[two[1]].used);
	at.bucket = used1 < used0 ? two[1] : two[0];
	if (!bucket_free_slot(&sub->buckets[at.bucket], &at.slot) && !search_room(sub, two, &at)) {
		return false;
	}
	subtable_put(sub, at, packed);
	sub->live++;
	return true;
}

static bool
subtable_find(const struct subtable *sub, uint64_t tag, place_t place, struct position *ret_at)
{
	uint32_t two[2];

	if (sub->buckets_count == 0) {
		return false;
	}
	tag_buckets(tag, sub->buckets_count, two);
	for (int i = 0; i < 2; i++) {
		const struct bucket *b = &sub->buckets[two[i]];

		for (uint32_t found = bucket_match(b, tag); found != 0; found &= found - 1) {
			uint32_t slot = (uint32_t)__builtin_ctz(found);

			if (bucket_place(b, slot) == place) {
				*ret_at = (struct position){ two[i], slot };
				return true;
			}
		}
	}
	return false;
}

/* Adds all entries of one to another, which is empty. */
static bool
subtable_add_all(struct subtable *to, const struct subtable *from)
{
	for (uint32_t bucket = 0; bucket < from->buckets_count; bucket++) {
		uint32_t used = from->buckets[bucket].used;

		for (; used != 0; used &= used - 1) {
			struct packed packed;

			subtable_get(from,
				     (struct position){ bucket, (uint32_t)__builtin_ctz(used) },
				     &packed);
			if (!subtable_add(to, &packed)) {
				return false;
			}
		}
	}
	return true;
}

/* ---- Sizes ---- */

static bool
is_small(uint32_t buckets_count)
{
	return buckets_count < SMALL_BUCKETS;
}

static size_t
pages_bytes(uint32_t buckets_count)
{
	return align_up((uint64_t)buckets_count * sizeof(struct bucket), PAGE_BYTES);
}

/* An eighth more, in whole pages once there are any: the memory is there anyway. */
static uint32_t
buckets_grown(uint32_t buckets_count)
{
	uint32_t pages = buckets_count / PAGE_BUCKETS;

	if (pages == 0) {
		return buckets_count + HR_MAX(buckets_count / 8, 1u);
	}
	return (pages + HR_MAX(pages / 8, 1u)) * PAGE_BUCKETS;
}

/* What `live` entries need at LOAD_SHRUNK. */
static uint32_t
buckets_shrunk(uint32_t live)
{
	uint64_t buckets = div_round_up((uint64_t)live * 1024, (uint64_t)LOAD_SHRUNK * BUCKET_SLOTS);

	buckets = HR_MAX(buckets, UINT64_C(1));
	return (uint32_t)(buckets < PAGE_BUCKETS ? buckets : align_up(buckets, PAGE_BUCKETS));
}

static bool
load_above(uint32_t live, uint32_t buckets_count, uint32_t load)
{
	return (uint64_t)live * 1024 > (uint64_t)buckets_count * BUCKET_SLOTS * load;
}

static struct bucket *
span_of(const struct index *index, uint32_t idx)
{
	return (struct bucket *)(index->region + idx * index->span_bytes);
}

static uint64_t *
births_span_of(const struct index *index, uint32_t idx)
{
	return index->births_region == NULL
		   ? NULL
		   : (uint64_t *)(index->births_region + idx * (index->span_bytes / 2));
}

static int
scratch_reserve(struct index *index, size_t bytes)
{
	uint8_t *scratch;

	if (bytes <= index->scratch_bytes) {
		return 0;
	}
	scratch = aligned_alloc(128, align_up(bytes, 128));
	if (scratch == NULL) {
		return -ENOMEM;
	}
	free(index->scratch);
	index->scratch = scratch;
	index->scratch_bytes = align_up(bytes, 128);
	return 0;
}

/* Copies what a sub-table holds into the scratch buffer; ret_copy reads from there. */
static int
subtable_save(struct index *index, const struct subtable *sub, struct subtable *ret_copy)
{
	size_t buckets_bytes = sub->buckets_count * sizeof(struct bucket);
	size_t births_bytes = sub->births == NULL ? 0 : sub->buckets_count * 8 * sizeof(uint64_t);
	int rc;

	rc = scratch_reserve(index, buckets_bytes + births_bytes);
	if (rc != 0) {
		return rc;
	}
	*ret_copy = *sub;
	if (sub->buckets_count > 0) {
		ret_copy->buckets = (struct bucket *)index->scratch;
		memcpy(ret_copy->buckets, sub->buckets, buckets_bytes);
	}
	if (births_bytes > 0) {
		ret_copy->births = (uint64_t *)(index->scratch + buckets_bytes);
		memcpy(ret_copy->births, sub->births, births_bytes);
	}
	return 0;
}

static void
subtable_restore(struct subtable *sub, const struct subtable *before, const struct subtable *copy)
{
	*sub = *before;
	memcpy(sub->buckets, copy->buckets, sub->buckets_count * sizeof(struct bucket));
	if (sub->births != NULL) {
		memcpy(sub->births, copy->births, sub->buckets_count * 8 * sizeof(uint64_t));
	}
}

/* Gives back the pages of a range beyond its first `keep_bytes`. */
static void
pages_trim(void *base, size_t used_bytes, size_t keep_bytes)
{
	size_t from = align_up(keep_bytes, PAGE_BYTES);
	size_t to = align_up(used_bytes, PAGE_BYTES);

	if (to > from) {
		(void)madvise((uint8_t *)base + from, to - from, MADV_DONTNEED);
	}
}

/* Gives back what a sub-table of `before` buckets used beyond what one of `after` buckets does. */
static void
span_trim(struct index *index, uint32_t idx, uint32_t before, uint32_t after)
{
	if (!is_small(before)) {
		pages_trim(span_of(index, idx), before * sizeof(struct bucket),
			   is_small(after) ? 0 : after * sizeof(struct bucket));
	}
	if (index->births_region != NULL) {
		pages_trim(births_span_of(index, idx), before * 8 * sizeof(uint64_t),
			   after * 8 * sizeof(uint64_t));
	}
}

static void
account(struct index *index, uint32_t buckets_count, bool add)
{
	size_t *total = is_small(buckets_count) ? &index->heap_bytes : &index->pages_bytes;
	/* The heap's own word and rounding come on top of what was asked. */
	size_t bytes = is_small(buckets_count) ? buckets_count * sizeof(struct bucket) + 16
					       : pages_bytes(buckets_count);

	if (buckets_count > 0) {
		*total = add ? *total + bytes : *total - bytes;
	}
}

/* Gives a sub-table another size. -ENOMEM: no memory; -EAGAIN: the entries did not find places. The table is as it was then. */
static int
subtable_resize(struct index *index, uint32_t idx, uint32_t buckets_count)
{
	struct subtable *sub = &index->subtables[idx];
	struct subtable before = *sub;
	struct subtable copy;
	int rc;

	if ((uint64_t)buckets_count * sizeof(struct bucket) > index->span_bytes) {
		return -ENOMEM;
	}
	rc = subtable_save(index, sub, &copy);
	if (rc != 0) {
		return rc;
	}
	sub->buckets = is_small(buckets_count)
			   ? aligned_alloc(128, buckets_count * sizeof(struct bucket))
			   : span_of(index, idx);
	if (sub->buckets == NULL) {
		*sub = before;
		return -ENOMEM;
	}
	sub->births = births_span_of(index, idx);
	sub->buckets_count = buckets_count;
	sub->live = 0;
	memset(sub->buckets, 0, buckets_count * sizeof(struct bucket));
	if (!subtable_add_all(sub, &copy)) {
		if (is_small(buckets_count)) {
			free(sub->buckets);
		}
		subtable_restore(sub, &before, &copy);
		span_trim(index, idx, buckets_count, before.buckets_count);
		return -EAGAIN;
	}
	HR_ASSERT(sub->live == before.live);
	if (is_small(before.buckets_count)) {
		free(before.buckets);
	}
	span_trim(index, idx, before.buckets_count, buckets_count);
	account(index, before.buckets_count, false);
	account(index, buckets_count, true);
	if (is_small(before.buckets_count) && before.buckets_count > 0 && index->heap_bytes == 0) {
		/* The last of them has left the heap: its pages are nobody's now. Once in the life of a large index. */
		(void)malloc_trim(0);
	}
	return 0;
}

/* A larger sub-table, by as many eighths as its entries need to find places: one, but for bad luck. */
static int
subtable_grow(struct index *index, uint32_t idx)
{
	uint32_t buckets_count = index->subtables[idx].buckets_count;
	int rc;

	do {
		buckets_count = buckets_grown(buckets_count);
		rc = subtable_resize(index, idx, buckets_count);
	} while (rc == -EAGAIN);
	return rc;
}

/* Never needed, so what fails is tried again at the next removal. */
static void
subtable_shrink_maybe(struct index *index, uint32_t idx)
{
	const struct subtable *sub = &index->subtables[idx];
	uint32_t buckets_count;

	if (sub->buckets_count == 1 || load_above(sub->live, sub->buckets_count, LOAD_MIN)) {
		return;
	}
	buckets_count = buckets_shrunk(sub->live);
	if (buckets_count < sub->buckets_count) {
		(void)subtable_resize(index, idx, buckets_count);
	}
}

/* ---- The index ---- */

static void *
reserve(size_t bytes)
{
	void *base = mmap(NULL, bytes, PROT_READ | PROT_WRITE,
			  MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	if (base == MAP_FAILED) {
		return NULL;
	}
	/* A huge page for the first bytes of each span would be 2 GiB of them. */
	(void)madvise(base, bytes, MADV_NOHUGEPAGE);
	return base;
}

int
index_create(uint64_t seed, struct index **ret_index)
{
	struct index *index = calloc(1, sizeof(*index));

	if (index == NULL) {
		return -ENOMEM;
	}
	index->key[0] = splitmix64(&seed);
	index->key[1] = splitmix64(&seed);
	for (uint64_t span = SPAN_BYTES_MAX; span >= SPAN_BYTES_MIN && index->region == NULL;
	     span /= 2) {
		index->region = reserve(span * INDEX_SUBTABLES);
		index->span_bytes = span;
	}
	if (index->region == NULL) {
		free(index);
		return -ENOMEM;
	}
	*ret_index = index;
	return 0;
}

void
index_destroy(struct index *index)
{
	if (index == NULL) {
		return;
	}
	index_births_end(index);
	for (uint32_t i = 0; i < INDEX_SUBTABLES; i++) {
		if (is_small(index->subtables[i].buckets_count)) {
			free(index->subtables[i].buckets);
		}
	}
	(void)munmap(index->region, index->span_bytes * INDEX_SUBTABLES);
	free(index->scratch);
	free(index);
}

struct index_key
index_key_make(const struct index *index, uint32_t space_number, uint32_t space_generation,
	       const uint8_t id[16], uint16_t part)
{
	uint8_t identity[26];
	uint64_t hash;

	put_le32(identity, space_number);
	put_le32(identity + 4, space_generation);
	memcpy(identity + 8, id, 16);
	put_le16(identity + 24, part);
	hash = hash64_keyed(index->key, identity, sizeof(identity));
	return (struct index_key){
		.hash = hash,
		.tag = hash << 10 >> (64 - TAG_BITS),
		.subtable = (uint32_t)(hash >> 54),
	};
}

uint32_t
index_check_make(uint32_t space_number, uint32_t space_generation, const uint8_t id[16],
		 uint16_t part, uint32_t bytes, const uint32_t *crcs, uint32_t crcs_count)
{
	uint8_t buf[30 + 64 * 4];
	uint32_t check;

	put_le32(buf, space_number);
	put_le32(buf + 4, space_generation);
	memcpy(buf + 8, id, 16);
	put_le16(buf + 24, part);
	put_le32(buf + 26, bytes);
	check = crc32c(0, buf, 30);
	for (uint32_t done = 0; done < crcs_count;) {
		uint32_t n = HR_MIN(crcs_count - done, 64u);

		for (uint32_t i = 0; i < n; i++) {
			put_le32(buf + 4 * i, crcs[done + i]);
		}
		check = crc32c(check, buf, 4 * n);
		done += n;
	}
	return check;
}

void
index_prefetch(const struct index *index, const struct index_key *key)
{
	const struct subtable *sub = &index->subtables[key->subtable];
	uint32_t two[2];

	if (sub->buckets_count == 0) {
		return;
	}
	tag_buckets(key->tag, sub->buckets_count, two);
	for (int i = 0; i < 2; i++) {
		__builtin_prefetch(&sub->buckets[two[i]]);
		__builtin_prefetch((const uint8_t *)&sub->buckets[two[i]] + 64);
	}
}

bool
index_next(const struct index *index, const struct index_key *key, uint32_t *cursor,
	   struct index_entry *ret_entry)
{
	const struct subtable *sub = &index->subtables[key->subtable];
	uint32_t two[2];

	if (sub->buckets_count == 0 || *cursor >= CURSOR_END) {
		return false;
	}
	tag_buckets(key->tag, sub->buckets_count, two);
	for (uint32_t i = *cursor / BUCKET_SLOTS; i < (two[0] == two[1] ? 1 : 2); i++) {
		const struct bucket *b = &sub->buckets[two[i]];
		uint32_t found = bucket_match(b, key->tag);

		if (i == *cursor / BUCKET_SLOTS) {
			found &= ~0u << *cursor % BUCKET_SLOTS;
		}
		if (found != 0) {
			uint32_t slot = (uint32_t)__builtin_ctz(found);

			bucket_entry(b, slot, ret_entry);
			*cursor = i * BUCKET_SLOTS + slot + 1;
			return true;
		}
	}
	*cursor = CURSOR_END;
	return false;
}

/* True when both buckets of the tag hold nothing else: no growth would make room. */
static bool
tag_exhausted(const struct subtable *sub, uint64_t tag)
{
	uint32_t two[2];

	tag_buckets(tag, sub->buckets_count, two);
	return two[0] != two[1] && bucket_match(&sub->buckets[two[0]], tag) == BUCKET_FULL &&
	       bucket_match(&sub->buckets[two[1]], tag) == BUCKET_FULL;
}

int
index_insert(struct index *index, const struct index_key *key, const struct index_entry *entry)
{
	struct subtable *sub = &index->subtables[key->subtable];
	struct packed packed;
	int rc;

	packed_make(key->tag, entry, 0, &packed);
	while (load_above(sub->live + 1, sub->buckets_count, LOAD_MAX) ||
	       !subtable_add(sub, &packed)) {
		if (sub->buckets_count > 0 && tag_exhausted(sub, key->tag)) {
			return -ENOMEM;
		}
		rc = subtable_grow(index, key->subtable);
		if (rc != 0) {
			return rc;
		}
	}
	index->count++;
	return 0;
}

bool
index_update(struct index *index, const struct index_key *key, place_t place,
	     const struct index_entry *entry)
{
	struct subtable *sub = &index->subtables[key->subtable];
	struct position at;
	struct packed packed;

	if (!subtable_find(sub, key->tag, place, &at)) {
		return false;
	}
	packed_make(key->tag, entry, sub->births == NULL ? 0 : sub->births[at.bucket * 8 + at.slot],
		    &packed);
	subtable_put(sub, at, &packed);
	return true;
}

bool
index_remove(struct index *index, const struct index_key *key, place_t place)
{
	struct subtable *sub = &index->subtables[key->subtable];
	struct position at;

	if (!subtable_find(sub, key->tag, place, &at)) {
		return false;
	}
	sub->buckets[at.bucket].used &= (uint8_t) ~(1 << at.slot);
	sub->live--;
	index->count--;
	subtable_shrink_maybe(index, key->subtable);
	return true;
}

uint64_t
index_count(const struct index *index)
{
	return index->count;
}

size_t
index_bytes(const struct index *index)
{
	size_t bytes = sizeof(*index) + index->heap_bytes + index->pages_bytes +
		       index->scratch_bytes;

	/* Half of the buckets' pages, each sub-table rounded up. */
	return index->births_region == NULL
		   ? bytes
		   : bytes + index->pages_bytes / 2 + INDEX_SUBTABLES * PAGE_BYTES;
}

/* ---- Births ---- */

int
index_births_begin(struct index *index)
{
	HR_ASSERT(index->births_region == NULL);
	index->births_region = reserve(index->span_bytes / 2 * INDEX_SUBTABLES);
	if (index->births_region == NULL) {
		return -ENOMEM;
	}
	for (uint32_t i = 0; i < INDEX_SUBTABLES; i++) {
		index->subtables[i].births = births_span_of(index, i);
	}
	return 0;
}

bool
index_birth_get(const struct index *index, const struct index_key *key, place_t place,
		uint64_t *ret_birth)
{
	const struct subtable *sub = &index->subtables[key->subtable];
	struct position at;

	HR_ASSERT(index->births_region != NULL);
	if (!subtable_find(sub, key->tag, place, &at)) {
		return false;
	}
	*ret_birth = sub->births[at.bucket * 8 + at.slot];
	return true;
}

bool
index_birth_set(struct index *index, const struct index_key *key, place_t place, uint64_t birth)
{
	struct subtable *sub = &index->subtables[key->subtable];
	struct position at;

	HR_ASSERT(index->births_region != NULL);
	if (!subtable_find(sub, key->tag, place, &at)) {
		return false;
	}
	sub->births[at.bucket * 8 + at.slot] = birth;
	return true;
}

void
index_births_end(struct index *index)
{
	if (index->births_region == NULL) {
		return;
	}
	(void)munmap(index->births_region, index->span_bytes / 2 * INDEX_SUBTABLES);
	index->births_region = NULL;
	for (uint32_t i = 0; i < INDEX_SUBTABLES; i++) {
		index->subtables[i].births = NULL;
	}
}

/* ---- Sweeps ---- */

static bool
cursor_step(uint32_t *cursor)
{
	*cursor = (*cursor + 1) % INDEX_SUBTABLES;
	return *cursor != 0;
}

bool
index_sweep(struct index *index, uint32_t *cursor,
	    bool (*visit)(void *arg, const struct index_entry *entry), void *arg)
{
	struct subtable *sub = &index->subtables[*cursor];

	for (uint32_t bucket = 0; bucket < sub->buckets_count; bucket++) {
		struct bucket *b = &sub->buckets[bucket];

		for (uint32_t used = b->used; used != 0; used &= used - 1) {
			uint32_t slot = (uint32_t)__builtin_ctz(used);
			struct index_entry entry;

			bucket_entry(b, slot, &entry);
			if (visit(arg, &entry)) {
				b->used &= (uint8_t) ~(1 << slot);
				sub->live--;
				index->count--;
			}
		}
	}
	if (sub->buckets_count > 0) {
		subtable_shrink_maybe(index, *cursor);
	}
	return cursor_step(cursor);
}

bool
index_sweep_recency(struct index *index, uint32_t *cursor,
		    uint16_t (*map)(void *arg, const struct index_entry *entry), void *arg)
{
	struct subtable *sub = &index->subtables[*cursor];

	for (uint32_t bucket = 0; bucket < sub->buckets_count; bucket++) {
		struct bucket *b = &sub->buckets[bucket];

		for (uint32_t used = b->used; used != 0; used &= used - 1) {
			uint32_t slot = (uint32_t)__builtin_ctz(used);
			struct index_entry entry;

			bucket_entry(b, slot, &entry);
			b->recency[slot] = map(arg, &entry);
		}
	}
	return cursor_step(cursor);
}

void
index_check(const struct index *index)
{
	uint64_t count = 0;
	size_t heap_bytes = 0, span_bytes = 0;

	for (uint32_t i = 0; i < INDEX_SUBTABLES; i++) {
		const struct subtable *sub = &index->subtables[i];
		uint32_t live = 0;

		for (uint32_t bucket = 0; bucket < sub->buckets_count; bucket++) {
			const struct bucket *b = &sub->buckets[bucket];

			HR_ASSERT((b->used & ~BUCKET_FULL) == 0);
			for (uint32_t used = b->used; used != 0; used &= used - 1) {
				uint32_t slot = (uint32_t)__builtin_ctz(used);
				uint32_t two[2];

				tag_buckets(bucket_tag(b, slot), sub->buckets_count, two);
				HR_ASSERT(two[0] == bucket || two[1] == bucket);
				live++;
			}
		}
		HR_ASSERTF(live == sub->live, "%u, counted %u", sub->live, live);
		HR_ASSERT((sub->births != NULL) == (index->births_region != NULL));
		count += live;
		if (is_small(sub->buckets_count)) {
			heap_bytes += sub->buckets_count * sizeof(struct bucket) +
				      (sub->buckets_count > 0 ? 16 : 0);
		} else {
			HR_ASSERT(sub->buckets == span_of(index, i));
			span_bytes += pages_bytes(sub->buckets_count);
		}
	}
	HR_ASSERT(count == index->count);
	HR_ASSERT(heap_bytes == index->heap_bytes);
	HR_ASSERT(span_bytes == index->pages_bytes);
}
