/* test_cache.c — the DRAM tier: references, names, replacement, tenants, and a random life against a model. */
#include "engine/cache.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

#include "base/base.h"
#include "base/prng.h"

struct world {
	struct arena *arena;
	struct cache *cache;
};

static struct world
world_make(uint64_t bytes)
{
	struct world w;

	assert_int_equal(arena_create(bytes, &w.arena), 0);
	assert_int_equal(cache_create(w.arena, &w.cache), 0);
	return w;
}

static void
world_end(struct world *w)
{
	cache_check(w->cache);
	cache_destroy(w->cache);
	arena_check(w->arena);
	assert_int_equal(arena_bytes_used(w->arena), 0);
	arena_destroy(w->arena);
}

/* Publishes a value and lets it go. */
static void
put(struct world *w, uint32_t tenant, place_t place, uint32_t bytes)
{
	struct cache_entry *entry;

	assert_int_equal(cache_new(w->cache, tenant, bytes, &entry), 0);
	cache_publish(w->cache, entry, place, place * 3 + 1);
	cache_unref(w->cache, entry);
}

static bool
get(struct world *w, place_t place)
{
	struct cache_entry *entry = cache_find(w->cache, place, place * 3 + 1, true);

	if (entry == NULL) {
		return false;
	}
	assert_true(entry->place == place);
	cache_unref(w->cache, entry);
	return true;
}

static void
test_names(void **state)
{
	struct world w = world_make(MiB(4));
	struct cache_counters counters;
	struct cache_entry *a, *b;

	(void)state;
	assert_int_equal(cache_new(w.cache, 0, 200000, &a), 0);
	assert_int_equal(a->refs, 1);
	assert_int_equal(a->crcs_count, 4);
	assert_int_equal(a->bytes, 200000);
	assert_false(a->findable);
	a->crcs[3] = 1;
	cache_publish(w.cache, a, PLACE_PENDING | 5, 77);
	assert_null(cache_find(w.cache, PLACE_PENDING | 5, 78, true));
	assert_null(cache_find(w.cache, 5, 77, true));
	assert_ptr_equal(cache_find(w.cache, PLACE_PENDING | 5, 77, true), a);
	assert_int_equal(a->refs, 2);
	cache_unref(w.cache, a);
	cache_rename(w.cache, a, 9000);
	cache_rename(w.cache, a, 9000);
	assert_null(cache_find(w.cache, PLACE_PENDING | 5, 77, false));
	assert_ptr_equal(cache_find(w.cache, 9000, 77, false), a);
	cache_unref(w.cache, a);
	/* Another record at the same place: the old one is gone for those who look, not for who holds it. */
	assert_int_equal(cache_new(w.cache, 0, 0, &b), 0);
	assert_int_equal(b->crcs_count, 0);
	cache_publish(w.cache, b, 9000, 78);
	assert_false(a->findable);
	assert_true(a->place == PLACE_NONE);
	memset(a->buf.iov[0].iov_base, 1, a->buf.iov[0].iov_len);
	cache_rename(w.cache, a, 1);
	assert_null(cache_find(w.cache, 1, 77, false));
	cache_drop(w.cache, a);
	cache_unref(w.cache, a);
	cache_counters_get(w.cache, &counters);
	assert_int_equal(counters.entries, 1);
	assert_int_equal(counters.hits, 1);
	assert_int_equal(counters.misses, 2);
	assert_int_equal(counters.inserts, 2);
	cache_drop_place(w.cache, 9000);
	cache_drop_place(w.cache, 9000);
	assert_false(b->findable);
	cache_unref(w.cache, b);
	/* Never published. */
	assert_int_equal(cache_new(w.cache, 0, 1, &a), 0);
	cache_unref(w.cache, a);
	world_end(&w);
}

/* What has references stays and is not offered; when all has, -EAGAIN, and nothing changed. */
static void
test_references_hold(void **state)
{
	enum { N = 64 };
	struct world w = world_make(MiB(4));
	struct cache_entry *entries[N], *entry;
	struct cache_counters counters;

	(void)state;
	for (unsigned i = 0; i < N; i++) {
		assert_int_equal(cache_new(w.cache, 0, 65536, &entries[i]), 0);
		cache_publish(w.cache, entries[i], i, i);
	}
	assert_int_equal(cache_new(w.cache, 0, 1, &entry), -EAGAIN);
	assert_int_equal(cache_new(w.cache, 1, 1, &entry), -EAGAIN);
	cache_counters_get(w.cache, &counters);
	assert_int_equal(counters.alloc_failures, 2);
	assert_int_equal(counters.bytes_pinned_by_refs, MiB(4));
	assert_int_equal(counters.evictions, 0);
	cache_unref(w.cache, entries[40]);
	assert_int_equal(cache_new(w.cache, 0, 65536, &entry), 0);
	assert_null(cache_find(w.cache, 40, 40, false));
	cache_unref(w.cache, entry);
	for (unsigned i = 0; i < N; i++) {
		if (i != 40) {
			cache_unref(w.cache, entries[i]);
		}
	}
	cache_counters_get(w.cache, &counters);
	assert_int_equal(counters.bytes_pinned_by_refs, 0);
	world_end(&w);
}

/* Twenty values used in every round survive scans that are each larger than the tier. */
static void
test_scan_resistant(void **state)
{
	enum { HOT = 20, ROUNDS = 20, SCAN = 100 };
	struct world w = world_make(MiB(4)); /* 64 values. */
	struct cache_counters counters;
	unsigned hits = 0;
	place_t next = 1000;

	(void)state;
	for (unsigned round = 0; round < ROUNDS; round++) {
		for (unsigned use = 0; use < 3; use++) {
			for (unsigned i = 0; i < HOT; i++) {
				if (get(&w, i)) {
					hits += round > 0;
				} else {
					put(&w, 0, i, 65536);
				}
			}
		}
		for (unsigned i = 0; i < SCAN; i++) {
			put(&w, 0, next++, 65536);
		}
		cache_check(w.cache);
	}
	assert_true(hits >= HOT * 3 * (ROUNDS - 2));
	cache_counters_get(w.cache, &counters);
	assert_int_equal(counters.entries, 64);
	assert_true(counters.evictions > SCAN * ROUNDS - 64 - HOT);
	world_end(&w);
}

/* What left lately and comes back goes to the main queue: it outlives those that come once. */
static void
test_ghosts(void **state)
{
	struct world w = world_make(MiB(4));
	struct cache_counters counters;

	(void)state;
	for (unsigned i = 0; i < 80; i++) {
		put(&w, 0, i, 65536);
	}
	assert_false(get(&w, 10));
	put(&w, 0, 10, 65536);
	cache_counters_get(w.cache, &counters);
	assert_int_equal(counters.ghost_hits, 1);
	for (unsigned i = 100; i < 150; i++) {
		put(&w, 0, i, 65536);
	}
	assert_true(get(&w, 10));
	world_end(&w);
}

/* A tenant that comes late gets its share from the one that had all, a chunk at a time, and both keep something. */
static void
test_tenants(void **state)
{
	struct world w = world_make(MiB(64)); /* 16 chunks of 64 values. */
	struct cache_entry *held;
	unsigned first = 0, second = 0;

	(void)state;
	for (unsigned i = 0; i < 1024; i++) {
		put(&w, 1, i, 65536);
	}
	held = cache_find(w.cache, 0, 1, false);
	assert_non_null(held);
	for (unsigned i = 0; i < 1024; i++) {
		put(&w, 2, 10000 + i, 65536);
		if (i % 100 == 0) {
			cache_check(w.cache);
			arena_check(w.arena);
		}
	}
	for (unsigned i = 0; i < 1024; i++) {
		first += get(&w, i);
		second += get(&w, 10000 + i);
	}
	assert_in_range(first, 1024 / 2 - 64, 1024 / 2 + 64);
	assert_in_range(second, 1024 / 2 - 64, 1024 / 2 + 64);
	assert_true(get(&w, 0));
	cache_unref(w.cache, held);
	world_end(&w);
}

/* Values without bytes are bounded, too. */
static void
test_empty_values(void **state)
{
	struct world w = world_make(MiB(4));
	struct cache_counters counters;

	(void)state;
	for (unsigned i = 0; i < 5000; i++) {
		put(&w, 0, i, 0);
	}
	cache_counters_get(w.cache, &counters);
	assert_true(counters.entries <= 1024);
	assert_true(counters.evictions >= 5000 - 1024);
	world_end(&w);
}

/* The model knows which values may be there and which are held; contents tell which record they are. */
enum { PLACES = 3000, HELD = 40, OPS = 200000 };

struct model {
	struct world w;
	struct prng prng;
	uint64_t ident[PLACES]; /* Of the last record at the place; 0: dropped. */
	uint32_t bytes[PLACES];
	struct cache_entry *held[HELD];
	uint64_t held_ident[HELD];
	uint64_t next_ident;
};

static void
entry_fill(struct cache_entry *entry, uint64_t ident)
{
	for (uint32_t i = 0; i < entry->buf.iov_count; i++) {
		put_le64(entry->buf.iov[i].iov_base, ident);
	}
	for (uint32_t i = 0; i < entry->crcs_count; i++) {
		entry->crcs[i] = (uint32_t)ident + i;
	}
}

static void
entry_verify(const struct cache_entry *entry, uint64_t ident)
{
	assert_int_equal(entry->crcs_count, div_round_up(entry->bytes, 65536));
	for (uint32_t i = 0; i < entry->buf.iov_count; i++) {
		assert_true(get_le64(entry->buf.iov[i].iov_base) == ident);
	}
	for (uint32_t i = 0; i < entry->crcs_count; i++) {
		assert_int_equal(entry->crcs[i], (uint32_t)ident + i);
	}
}

static void
model_put(struct model *m, place_t place)
{
	uint32_t bytes = (uint32_t)prng_below(&m->prng, 100000);
	struct cache_entry *entry;

	if (cache_new(m->w.cache, (uint32_t)(place % 2), bytes, &entry) != 0) {
		assert_true(false); /* 40 held values of 100 KB leave room in 8 MiB. */
	}
	m->ident[place] = ++m->next_ident;
	m->bytes[place] = bytes;
	entry_fill(entry, m->ident[place]);
	cache_publish(m->w.cache, entry, place, m->ident[place]);
	cache_unref(m->w.cache, entry);
}

/* Puts what is found into a slot of held references; sometimes one that was held is let go instead. */
static bool
model_get(struct model *m, place_t place, unsigned slot)
{
	struct cache_entry *entry;

	if (m->held[slot] != NULL) {
		entry_verify(m->held[slot], m->held_ident[slot]);
		cache_unref(m->w.cache, m->held[slot]);
		m->held[slot] = NULL;
	}
	assert_null(cache_find(m->w.cache, place, UINT64_MAX, true));
	entry = cache_find(m->w.cache, place, m->ident[place], true);
	if (entry == NULL) {
		return false;
	}
	assert_true(m->ident[place] != 0 && entry->bytes == m->bytes[place]);
	entry_verify(entry, m->ident[place]);
	m->held[slot] = entry;
	m->held_ident[slot] = m->ident[place];
	return true;
}

static void
model_rename(struct model *m, place_t from, place_t to)
{
	struct cache_entry *entry = cache_find(m->w.cache, from, m->ident[from], false);

	if (entry == NULL || from == to) {
		if (entry != NULL) {
			cache_unref(m->w.cache, entry);
		}
		return;
	}
	cache_rename(m->w.cache, entry, to);
	cache_unref(m->w.cache, entry);
	m->ident[to] = m->ident[from];
	m->bytes[to] = m->bytes[from];
	m->ident[from] = 0;
}

static void
test_model(void **state)
{
	struct model *m = calloc(1, sizeof(*m));
	struct cache_counters counters;
	unsigned found = 0;

	(void)state;
	assert_non_null(m);
	m->w = world_make(MiB(16));
	prng_init(&m->prng, 5);
	for (unsigned op = 0; op < OPS; op++) {
		/* Skewed, so that some are hot. */
		place_t place = prng_below(&m->prng, 1 + prng_below(&m->prng, PLACES));
		unsigned slot = (unsigned)prng_below(&m->prng, HELD);

		switch (prng_below(&m->prng, 16)) {
		case 0:
			cache_drop_place(m->w.cache, place);
			m->ident[place] = 0;
			break;
		case 1:
			model_rename(m, place, prng_below(&m->prng, PLACES));
			break;
		default:
			if (model_get(m, place, slot)) {
				found++;
			} else {
				model_put(m, place);
			}
		}
		if (op % 5000 == 0) {
			cache_check(m->w.cache);
			arena_check(m->w.arena);
		}
	}
	for (unsigned i = 0; i < HELD; i++) {
		if (m->held[i] != NULL) {
			cache_unref(m->w.cache, m->held[i]);
		}
	}
	cache_counters_get(m->w.cache, &counters);
	assert_true(found > OPS / 8);
	assert_true(counters.evictions > 10000);
	assert_true(counters.bytes <= MiB(16));
	assert_int_equal(counters.bytes, arena_bytes_used(m->w.arena));
	assert_int_equal(counters.bytes_pinned_by_refs, 0);
	world_end(&m->w);
	free(m);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_names),	       cmocka_unit_test(test_references_hold),
		cmocka_unit_test(test_scan_resistant), cmocka_unit_test(test_ghosts),
		cmocka_unit_test(test_tenants),	       cmocka_unit_test(test_empty_values),
		cmocka_unit_test(test_model),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
