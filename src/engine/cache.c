/* cache.c — see cache.h. */
#include "engine/cache.h"

#include <errno.h>
#include <stdlib.h>

#include "base/base.h"
#include "base/hash.h"

enum {
	PAGE_BYTES = 4096,
	CRC_CHUNK_BYTES = 65536,
	FREQ_MAX = 3,
	FREQ_PROMOTE = 1, /* Uses in the small queue that lead to the main one. */
	SMALL_PERCENT = 10,
	TABLE_SLOTS_MIN = 256,
	GHOST_WAYS = 4,
};

enum queue_kind { QUEUE_NONE, QUEUE_SMALL, QUEUE_MAIN };

struct place_slot {
	place_t place;
	struct cache_entry *entry; /* NULL: empty. */
};

/* Who left the small queue, and when: in pages that have left it so far. Ident 0 is empty (one hash in 2^64 is forgotten). */
struct ghost_slot {
	uint64_t ident;
	uint64_t left_at;
};

struct cache_tenant {
	struct list_head small; /* Oldest at the head. */
	struct list_head main;
	uint64_t small_pages;
	uint64_t main_pages;
	uint64_t idle_pages; /* Findable and without references: what eviction can get. */
};

struct cache {
	struct arena *arena;
	struct place_slot *table;
	uint64_t table_slots; /* A power of two. */
	uint64_t findable_count;
	struct ghost_slot *ghost; /* As many slots as the table. */
	uint64_t ghost_clock;
	struct cache_tenant **tenants; /* By number; NULL: has had nothing yet. */
	uint32_t tenants_count;
	struct cache_counters counters;
};

static uint32_t
entry_tenant(const struct cache_entry *entry)
{
	return entry->buf.tenant;
}

static struct cache_tenant *
tenant_of(const struct cache_entry *entry)
{
	return entry->cache->tenants[entry_tenant(entry)];
}

static int
tenant_ensure(struct cache *cache, uint32_t number)
{
	struct cache_tenant *tenant;

	if (number >= cache->tenants_count) {
		uint32_t count = (uint32_t)round_up_pow2(number + 1);
		struct cache_tenant **tenants =
		    realloc(cache->tenants, count * sizeof(*cache->tenants));

		if (tenants == NULL) {
			return -EAGAIN;
		}
		memset(tenants + cache->tenants_count, 0,
		       (count - cache->tenants_count) * sizeof(*tenants));
		cache->tenants = tenants;
		cache->tenants_count = count;
	}
	if (cache->tenants[number] == NULL) {
		tenant = calloc(1, sizeof(*tenant));
		if (tenant == NULL) {
			return -EAGAIN;
		}
		list_init(&tenant->small);
		list_init(&tenant->main);
		cache->tenants[number] = tenant;
	}
	return 0;
}

/* ---- The memory of those who left ---- */

static struct ghost_slot *
ghost_set(const struct cache *cache, uint64_t ident)
{
	uint64_t sets = cache->table_slots / GHOST_WAYS;

	return &cache->ghost[(mix64(ident) & (sets - 1)) * GHOST_WAYS];
}

static void
ghost_put(struct cache *cache, uint64_t ident, uint64_t left_at)
{
	struct ghost_slot *set = ghost_set(cache, ident);
	unsigned oldest = 0;

	for (unsigned i = 0; i < GHOST_WAYS; i++) {
		if (set[i].ident == 0) {
			oldest = i;
			break;
		}
		if (set[i].left_at < set[oldest].left_at) {
			oldest = i;
		}
	}
	set[oldest] = (struct ghost_slot){ ident, left_at };
}

/* True, and forgotten, when it left so lately that it would still be here, had it been in the main queue. */
static bool
ghost_take(struct cache *cache, const struct cache_tenant *tenant, uint64_t ident)
{
	struct ghost_slot *set = ghost_set(cache, ident);
	uint64_t pages = tenant->small_pages + tenant->main_pages;

	for (unsigned i = 0; ident != 0 && i < GHOST_WAYS; i++) {
		if (set[i].ident == ident) {
			set[i].ident = 0;
			return cache->ghost_clock - set[i].left_at <=
			       pages * (100 - SMALL_PERCENT) / 100;
		}
	}
	return false;
}

/* ---- The table of places: open addressing, linear probing, no tombstones ---- */

static uint64_t
table_home(const struct cache *cache, place_t place)
{
	return mix64(place + UINT64_C(0x9e3779b97f4a7c15)) & (cache->table_slots - 1);
}

static struct place_slot *
table_slot(const struct cache *cache, place_t place)
{
	uint64_t i = table_home(cache, place);

	while (cache->table[i].entry != NULL && cache->table[i].place != place) {
		i = (i + 1) & (cache->table_slots - 1);
	}
	return &cache->table[i];
}

/* Twice as many slots, for places and ghosts. When there is no memory the table fills further; below its last free slot it
 * must not go, which table_has_room() sees to. */
static void
table_grow(struct cache *cache)
{
	struct place_slot *table = cache->table;
	struct ghost_slot *ghost = cache->ghost;
	uint64_t slots = cache->table_slots;
	struct place_slot *new_table = calloc(slots * 2, sizeof(*table));
	struct ghost_slot *new_ghost = calloc(slots * 2, sizeof(*ghost));

	if (new_table == NULL || new_ghost == NULL) {
		free(new_table);
		free(new_ghost);
		return;
	}
	cache->table = new_table;
	cache->ghost = new_ghost;
	cache->table_slots = slots * 2;
	for (uint64_t i = 0; i < slots; i++) {
		if (table[i].entry != NULL) {
			*table_slot(cache, table[i].place) = table[i];
		}
		if (ghost[i].ident != 0) {
			ghost_put(cache, ghost[i].ident, ghost[i].left_at);
		}
	}
	free(table);
	free(ghost);
}

/* Room for all entries there are, findable or not: publishing cannot fail. */
static bool
table_has_room(struct cache *cache)
{
	if ((cache->counters.entries + 1) * 4 > cache->table_slots * 3) {
		table_grow(cache);
	}
	return cache->counters.entries + 1 < cache->table_slots;
}

static void
table_remove(struct cache *cache, place_t place)
{
	uint64_t mask = cache->table_slots - 1;
	uint64_t hole = (uint64_t)(table_slot(cache, place) - cache->table);

	HR_ASSERT(cache->table[hole].entry != NULL);
	/* Pull back whoever probed over the hole. */
	for (uint64_t i = (hole + 1) & mask; cache->table[i].entry != NULL; i = (i + 1) & mask) {
		uint64_t home = table_home(cache, cache->table[i].place);

		if (((i - home) & mask) >= ((i - hole) & mask)) {
			cache->table[hole] = cache->table[i];
			hole = i;
		}
	}
	cache->table[hole].entry = NULL;
}

/* ---- Entries and queues ---- */

/* What it weighs in its queue: an empty value, too, costs memory. */
static uint64_t
entry_pages(const struct cache_entry *entry)
{
	return HR_MAX(entry->buf.pages, 1u);
}

static uint64_t
entry_bytes(const struct cache_entry *entry)
{
	return (uint64_t)entry->buf.pages * PAGE_BYTES;
}

static void
entry_free(struct cache *cache, struct cache_entry *entry)
{
	HR_ASSERT(entry->refs == 0 && !entry->findable);
	HR_ASSERT(list_empty(&entry->waiters));
	cache->counters.bytes -= entry_bytes(entry);
	cache->counters.entries--;
	arena_free(cache->arena, &entry->buf);
	if (entry->crcs != &entry->crc_one) {
		free(entry->crcs);
	}
	free(entry);
}

static void
queue_enter(struct cache_entry *entry, enum queue_kind kind)
{
	struct cache_tenant *tenant = tenant_of(entry);

	entry->queue = kind;
	if (kind == QUEUE_SMALL) {
		list_add_tail(&tenant->small, &entry->link);
		tenant->small_pages += entry_pages(entry);
	} else {
		list_add_tail(&tenant->main, &entry->link);
		tenant->main_pages += entry_pages(entry);
	}
}

static void
queue_leave(struct cache_entry *entry)
{
	struct cache_tenant *tenant = tenant_of(entry);

	if (entry->queue == QUEUE_SMALL) {
		tenant->small_pages -= entry_pages(entry);
	} else {
		tenant->main_pages -= entry_pages(entry);
	}
	list_del(&entry->link);
	entry->queue = QUEUE_NONE;
}

void
cache_drop(struct cache *cache, struct cache_entry *entry)
{
	if (!entry->findable) {
		return;
	}
	table_remove(cache, entry->place);
	queue_leave(entry);
	entry->findable = false;
	entry->place = PLACE_NONE;
	cache->findable_count--;
	if (entry->refs == 0) {
		tenant_of(entry)->idle_pages -= entry_pages(entry);
		entry_free(cache, entry);
	}
}

static void
entry_evict(struct cache *cache, struct cache_entry *entry)
{
	HR_ASSERT(entry->refs == 0);
	if (entry->queue == QUEUE_SMALL) {
		cache->ghost_clock += entry_pages(entry);
		if (entry->ident != 0) {
			ghost_put(cache, entry->ident, cache->ghost_clock);
		}
	}
	cache->counters.evictions++;
	cache_drop(cache, entry);
}

/* One step of S3-FIFO at the head of a queue: the entry there leaves, moves to the main queue's tail, or goes round again
 * because it was used or is in use. True when it left the cache. */
static bool
queue_step(struct cache *cache, struct list_head *queue)
{
	struct cache_entry *entry = list_first_entry(queue, struct cache_entry, link);

	if (entry->refs > 0) {
		list_move_tail(queue, &entry->link);
		return false;
	}
	if (entry->queue == QUEUE_SMALL && entry->freq >= FREQ_PROMOTE) {
		queue_leave(entry);
		entry->freq = 0;
		queue_enter(entry, QUEUE_MAIN);
		return false;
	}
	if (entry->queue == QUEUE_MAIN && entry->freq > 0) {
		entry->freq--;
		list_move_tail(queue, &entry->link);
		return false;
	}
	entry_evict(cache, entry);
	return true;
}

/* Which queue gives: the small one when it has its share. */
static struct list_head *
queue_to_step(struct cache_tenant *tenant)
{
	uint64_t pages = tenant->small_pages + tenant->main_pages;
	bool small = tenant->small_pages * 100 >= pages * SMALL_PERCENT;

	if (list_empty(&tenant->main) || (small && !list_empty(&tenant->small))) {
		return &tenant->small;
	}
	return &tenant->main;
}

/* Evicts from a tenant until `pages` have gone or nothing can. Every entry is looked at FREQ_MAX + 2 times at most before it
 * goes, but those in use may lie at the head of one queue while the other has what we want: then the queues take turns. */
static bool
tenant_evict(struct cache *cache, struct cache_tenant *tenant, uint64_t pages)
{
	uint64_t before = tenant->idle_pages;
	uint64_t steps = 0;

	while (tenant->idle_pages > 0 && before - tenant->idle_pages < pages) {
		struct list_head *queue = queue_to_step(tenant);

		if (steps++ > cache->findable_count && steps % 2 == 0) {
			queue = queue == &tenant->small ? &tenant->main : &tenant->small;
		}
		if (!list_empty(queue) && queue_step(cache, queue)) {
			steps = 0;
		}
	}
	return tenant->idle_pages < before;
}

/* Adds what of each chunk could be evicted from a queue. */
static void
queue_count_idle(const struct cache *cache, const struct list_head *queue, uint64_t *idle_bytes)
{
	struct arena_extent extents[ARENA_IOV_MAX];
	struct cache_entry *entry;

	list_for_each_entry(entry, queue, link) {
		unsigned count = 0;

		if (entry->refs == 0) {
			count = arena_extents(cache->arena, &entry->buf, 0,
					      (uint32_t)entry_bytes(entry), extents);
		}
		for (unsigned i = 0; i < count; i++) {
			idle_bytes[extents[i].chunk] += extents[i].bytes;
		}
	}
}

static void
queue_empty_chunk(struct cache *cache, struct list_head *queue, uint32_t chunk)
{
	struct arena_extent extents[ARENA_IOV_MAX];
	struct cache_entry *entry, *next;

	list_for_each_entry_safe(entry, next, queue, link) {
		unsigned count = 0, i = 0;

		if (entry->refs == 0) {
			count = arena_extents(cache->arena, &entry->buf, 0,
					      (uint32_t)entry_bytes(entry), extents);
		}
		while (i < count && extents[i].chunk != chunk) {
			i++;
		}
		if (i < count) {
			entry_evict(cache, entry);
		}
	}
}

/* Empties a chunk of another tenant: of those in which nothing is in use, the one with the least in it. */
static bool
chunk_empty(struct cache *cache, uint32_t victim)
{
	struct cache_tenant *tenant = cache->tenants[victim];
	uint32_t chunks_count = arena_chunks_count(cache->arena);
	uint64_t *idle_bytes = calloc(chunks_count, sizeof(*idle_bytes));
	uint64_t best_bytes = UINT64_MAX;
	uint32_t best = UINT32_MAX;

	if (idle_bytes == NULL) {
		return false;
	}
	queue_count_idle(cache, &tenant->small, idle_bytes);
	queue_count_idle(cache, &tenant->main, idle_bytes);
	for (uint32_t i = 0; i < chunks_count; i++) {
		uint32_t owner;
		uint64_t used;

		if (arena_chunk_usage(cache->arena, i, &owner, &used) && owner == victim &&
		    used > 0 && used == idle_bytes[i] && used < best_bytes) {
			best = i;
			best_bytes = used;
		}
	}
	free(idle_bytes);
	if (best == UINT32_MAX) {
		return false;
	}
	queue_empty_chunk(cache, &tenant->small, best);
	queue_empty_chunk(cache, &tenant->main, best);
	return true;
}

static uint64_t
tenant_pages(const struct cache_tenant *tenant)
{
	return tenant == NULL ? 0 : tenant->small_pages + tenant->main_pages;
}

struct shares {
	uint32_t holders;	/* Tenants that hold something, `number` included. */
	uint32_t largest;	/* The other one that holds most. */
	uint64_t largest_pages; /* 0: there is no other. */
};

static struct shares
shares_get(const struct cache *cache, uint32_t number)
{
	struct shares shares = { .holders = 1 };

	for (uint32_t i = 0; i < cache->tenants_count; i++) {
		uint64_t pages = tenant_pages(cache->tenants[i]);

		if (i == number || pages == 0) {
			continue;
		}
		shares.holders++;
		if (pages > shares.largest_pages) {
			shares.largest_pages = pages;
			shares.largest = i;
		}
	}
	return shares;
}

bool
cache_make_room(struct cache *cache, uint32_t tenant, uint32_t bytes)
{
	uint64_t pages = div_round_up(HR_MAX(bytes, 1u), PAGE_BYTES);
	uint64_t chunk_pages = arena_chunk_bytes(cache->arena) / PAGE_BYTES;
	struct shares shares;
	uint64_t share_pages;
	bool below;

	if (tenant_ensure(cache, tenant) != 0) {
		return false;
	}
	shares = shares_get(cache, tenant);
	share_pages = arena_bytes_max(cache->arena) / PAGE_BYTES / shares.holders;
	/* A chunk's width of play, so that tenants at their share do not take the same chunk from each other for ever. */
	below = shares.largest_pages > share_pages &&
		tenant_pages(cache->tenants[tenant]) + chunk_pages <= share_pages;
	if (below && chunk_empty(cache, shares.largest)) {
		return true;
	}
	if (tenant_evict(cache, cache->tenants[tenant], pages)) {
		return true;
	}
	/* It holds nothing that could go: whoever holds most gives, whatever the shares. */
	return shares.largest_pages > 0 && !below && chunk_empty(cache, shares.largest);
}

/* ---- The calls ---- */

int
cache_create(struct arena *arena, struct cache **ret_cache)
{
	struct cache *cache = calloc(1, sizeof(*cache));

	if (cache == NULL) {
		return -ENOMEM;
	}
	cache->arena = arena;
	cache->table_slots = TABLE_SLOTS_MIN;
	cache->table = calloc(cache->table_slots, sizeof(*cache->table));
	cache->ghost = calloc(cache->table_slots, sizeof(*cache->ghost));
	if (cache->table == NULL || cache->ghost == NULL) {
		free(cache->table);
		free(cache->ghost);
		free(cache);
		return -ENOMEM;
	}
	*ret_cache = cache;
	return 0;
}

static void
queue_drop_all(struct cache *cache, struct list_head *queue)
{
	struct cache_entry *entry, *next;

	list_for_each_entry_safe(entry, next, queue, link) {
		cache_drop(cache, entry);
	}
}

void
cache_destroy(struct cache *cache)
{
	if (cache == NULL) {
		return;
	}
	for (uint32_t i = 0; i < cache->tenants_count; i++) {
		if (cache->tenants[i] != NULL) {
			queue_drop_all(cache, &cache->tenants[i]->small);
			queue_drop_all(cache, &cache->tenants[i]->main);
			free(cache->tenants[i]);
		}
	}
	HR_ASSERTF(cache->counters.entries == 0, "%llu entries with references",
		   (unsigned long long)cache->counters.entries);
	free(cache->tenants);
	free(cache->table);
	free(cache->ghost);
	free(cache);
}

static int
entry_alloc(struct cache *cache, uint32_t tenant, uint32_t bytes, struct arena_buf *buf)
{
	int rc = arena_alloc(cache->arena, tenant, bytes, buf);

	while (rc == -EAGAIN && cache_make_room(cache, tenant, bytes)) {
		rc = arena_alloc(cache->arena, tenant, bytes, buf);
	}
	return rc;
}

int
cache_new(struct cache *cache, uint32_t tenant, uint32_t bytes, struct cache_entry **ret_entry)
{
	struct cache_entry *entry = NULL;

	if (tenant_ensure(cache, tenant) == 0 && table_has_room(cache)) {
		entry = calloc(1, sizeof(*entry));
	}
	if (entry == NULL) {
		goto fail;
	}
	/* Values without bytes fill no arena; their number is bounded all the same. */
	if (cache->counters.entries >= arena_bytes_max(cache->arena) / PAGE_BYTES) {
		(void)cache_make_room(cache, tenant, PAGE_BYTES);
	}
	list_init(&entry->link);
	list_init(&entry->waiters);
	entry->cache = cache;
	entry->place = PLACE_NONE;
	entry->bytes = bytes;
	entry->refs = 1;
	entry->crcs_count = (uint32_t)div_round_up(bytes, CRC_CHUNK_BYTES);
	entry->crcs = &entry->crc_one;
	if (entry->crcs_count > 1) {
		entry->crcs = calloc(entry->crcs_count, sizeof(*entry->crcs));
		if (entry->crcs == NULL) {
			goto fail;
		}
	}
	if (entry_alloc(cache, tenant, bytes, &entry->buf) != 0) {
		goto fail;
	}
	cache->counters.entries++;
	cache->counters.bytes += entry_bytes(entry);
	cache->counters.bytes_pinned_by_refs += entry_bytes(entry);
	*ret_entry = entry;
	return 0;
fail:
	if (entry != NULL && entry->crcs != &entry->crc_one) {
		free(entry->crcs);
	}
	free(entry);
	cache->counters.alloc_failures++;
	return -EAGAIN;
}

static void
table_insert(struct cache *cache, struct cache_entry *entry, place_t place)
{
	struct place_slot *slot;

	cache_drop_place(cache, place);
	slot = table_slot(cache, place);
	*slot = (struct place_slot){ place, entry };
	entry->place = place;
}

void
cache_publish(struct cache *cache, struct cache_entry *entry, place_t place, uint64_t ident)
{
	bool again;

	HR_ASSERT(!entry->findable && entry->refs > 0);
	HR_ASSERT(place != PLACE_NONE);
	table_insert(cache, entry, place);
	entry->ident = ident;
	entry->findable = true;
	cache->findable_count++;
	again = ghost_take(cache, tenant_of(entry), ident);
	cache->counters.ghost_hits += again;
	cache->counters.inserts++;
	queue_enter(entry, again ? QUEUE_MAIN : QUEUE_SMALL);
}

void
cache_rename(struct cache *cache, struct cache_entry *entry, place_t place)
{
	HR_ASSERT(place != PLACE_NONE);
	if (!entry->findable || entry->place == place) {
		return;
	}
	table_remove(cache, entry->place);
	table_insert(cache, entry, place);
}

struct cache_entry *
cache_find(struct cache *cache, place_t place, uint64_t ident, bool use)
{
	struct cache_entry *entry = table_slot(cache, place)->entry;

	if (entry == NULL || entry->ident != ident) {
		cache->counters.misses += use;
		return NULL;
	}
	if (use) {
		cache->counters.hits++;
		entry->freq = HR_MIN(entry->freq + 1, FREQ_MAX);
	}
	cache_ref(entry);
	return entry;
}

void
cache_ref(struct cache_entry *entry)
{
	if (entry->refs++ == 0) {
		tenant_of(entry)->idle_pages -= entry_pages(entry);
		entry->cache->counters.bytes_pinned_by_refs += entry_bytes(entry);
	}
}

void
cache_unref(struct cache *cache, struct cache_entry *entry)
{
	HR_ASSERT(entry->refs > 0);
	if (--entry->refs > 0) {
		return;
	}
	cache->counters.bytes_pinned_by_refs -= entry_bytes(entry);
	if (entry->findable) {
		tenant_of(entry)->idle_pages += entry_pages(entry);
	} else {
		entry_free(cache, entry);
	}
}

void
cache_drop_place(struct cache *cache, place_t place)
{
	struct cache_entry *entry = table_slot(cache, place)->entry;

	if (entry != NULL) {
		cache_drop(cache, entry);
	}
}

void
cache_counters_get(const struct cache *cache, struct cache_counters *ret)
{
	*ret = cache->counters;
}

static uint64_t
queue_check(const struct cache *cache, const struct list_head *queue, enum queue_kind kind,
	    uint64_t pages_expected, uint64_t *idle_pages)
{
	struct cache_entry *entry;
	uint64_t pages = 0, count = 0;

	list_for_each_entry(entry, queue, link) {
		HR_ASSERT(entry->findable && entry->queue == kind && entry->cache == cache);
		HR_ASSERT(table_slot(cache, entry->place)->entry == entry);
		pages += entry_pages(entry);
		*idle_pages += entry->refs == 0 ? entry_pages(entry) : 0;
		count++;
	}
	HR_ASSERT(pages == pages_expected);
	return count;
}

void
cache_check(const struct cache *cache)
{
	uint64_t queued = 0, slots = 0;

	for (uint32_t i = 0; i < cache->tenants_count; i++) {
		const struct cache_tenant *tenant = cache->tenants[i];
		uint64_t idle_pages = 0;

		if (tenant == NULL) {
			continue;
		}
		queued += queue_check(cache, &tenant->small, QUEUE_SMALL, tenant->small_pages,
				      &idle_pages);
		queued +=
		    queue_check(cache, &tenant->main, QUEUE_MAIN, tenant->main_pages, &idle_pages);
		HR_ASSERT(idle_pages == tenant->idle_pages);
	}
	for (uint64_t i = 0; i < cache->table_slots; i++) {
		slots += cache->table[i].entry != NULL;
	}
	HR_ASSERT(queued == cache->findable_count && slots == cache->findable_count);
	HR_ASSERT(cache->findable_count <= cache->counters.entries);
}
