/* test_index.c — the index against a model that remembers everything. */
#include "engine/index.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

#include "base/base.h"
#include "base/prng.h"

static struct index_key
key_of(const struct index *index, uint64_t n)
{
	uint8_t id[16] = { 0 };

	put_le64(id, n);
	return index_key_make(index, 1, 1, id, 0);
}

static bool
entries_equal(const struct index_entry *a, const struct index_entry *b)
{
	return a->place == b->place && a->bytes == b->bytes && a->check == b->check &&
	       a->recency == b->recency && a->flags == b->flags;
}

/* Every field at its limits comes back as it went in. */
static void
test_fields(void **state)
{
	static const struct index_entry entries[] = {
		{ 0 },
		{ .place = PLACE_PENDING | (PLACE_PENDING - 1),
		  .bytes = 4 << 20,
		  .check = UINT32_MAX,
		  .recency = UINT16_MAX,
		  .flags = 7 },
		{ .place = PLACE_PENDING,
		  .bytes = (4 << 20) - 1,
		  .check = 1,
		  .recency = 1,
		  .flags = INDEX_FLAG_TTL },
		{ .place = UINT32_MAX, .bytes = 65536, .recency = 0x8000, .flags = INDEX_FLAG_PINNED },
	};
	struct index *index;
	struct index_entry entry;

	(void)state;
	assert_int_equal(index_create(1, &index), 0);
	for (unsigned i = 0; i < ARRAY_SIZE(entries); i++) {
		struct index_key key = key_of(index, i);
		uint32_t cursor = 0;

		assert_false(index_next(index, &key, &cursor, &entry));
		assert_int_equal(index_insert(index, &key, &entries[i]), 0);
		cursor = 0;
		assert_true(index_next(index, &key, &cursor, &entry));
		assert_true(entries_equal(&entry, &entries[i]));
		assert_false(index_next(index, &key, &cursor, &entry));
		assert_false(index_next(index, &key, &cursor, &entry));
		index_prefetch(index, &key);
	}
	assert_int_equal(index_count(index), ARRAY_SIZE(entries));
	index_check(index);
	index_destroy(index);
	index_destroy(NULL);
}

/* Each part of the identity changes the hash; the seed does, too; the fields of the key are the hash's bits. */
static void
test_key(void **state)
{
	uint8_t id[16] = { 1 }, other[16] = { 2 };
	struct index *a, *b;
	uint64_t hash;

	(void)state;
	assert_int_equal(index_create(1, &a), 0);
	assert_int_equal(index_create(2, &b), 0);
	hash = index_key_make(a, 1, 1, id, 0).hash;
	assert_true(index_key_make(a, 1, 1, id, 0).hash == hash);
	assert_true(index_key_make(a, 2, 1, id, 0).hash != hash);
	assert_true(index_key_make(a, 1, 2, id, 0).hash != hash);
	assert_true(index_key_make(a, 1, 1, id, 1).hash != hash);
	assert_true(index_key_make(a, 1, 1, other, 0).hash != hash);
	assert_true(index_key_make(b, 1, 1, id, 0).hash != hash);
	assert_int_equal(index_key_make(a, 1, 1, id, 0).subtable, hash >> 54);
	assert_int_equal(index_key_make(a, 1, 1, id, 0).tag, hash >> 18 & ((UINT64_C(1) << 36) - 1));
	index_destroy(a);
	index_destroy(b);
}

/* The check covers every part of the identity, the length and each CRC, also beyond the first 64 of them. */
static void
test_check_make(void **state)
{
	uint8_t id[16] = { 9 };
	uint32_t crcs[130];
	uint32_t check;

	(void)state;
	for (unsigned i = 0; i < ARRAY_SIZE(crcs); i++) {
		crcs[i] = i * 2654435761u;
	}
	check = index_check_make(1, 1, id, 0, 100, crcs, 130);
	assert_int_equal(index_check_make(1, 1, id, 0, 100, crcs, 130), check);
	assert_int_not_equal(index_check_make(2, 1, id, 0, 100, crcs, 130), check);
	assert_int_not_equal(index_check_make(1, 2, id, 0, 100, crcs, 130), check);
	assert_int_not_equal(index_check_make(1, 1, id, 1, 100, crcs, 130), check);
	assert_int_not_equal(index_check_make(1, 1, id, 0, 101, crcs, 130), check);
	assert_int_not_equal(index_check_make(1, 1, id, 0, 100, crcs, 129), check);
	for (unsigned i = 0; i < ARRAY_SIZE(crcs); i++) {
		crcs[i] ^= 1;
		assert_int_not_equal(index_check_make(1, 1, id, 0, 100, crcs, 130), check);
		crcs[i] ^= 1;
	}
	/* Computed elsewhere, so that the layout is pinned: space 1, generation 2, id 0 … 15, part 3. */
	for (unsigned i = 0; i < sizeof(id); i++) {
		id[i] = (uint8_t)i;
	}
	crcs[0] = 0x11223344;
	crcs[1] = 0x55667788;
	assert_int_equal(index_check_make(1, 2, id, 3, 70000, crcs, 2), 0xfec92ecb);
}

/* Fourteen entries may share a tag; the next is refused and changes nothing, whatever else is in the sub-table. */
static void
test_same_tag(void **state)
{
	struct index_key key = { .tag = 0xfedcba987, .subtable = 5 };
	struct index_entry entry = { 0 };
	struct index *index;
	uint32_t cursor = 0;
	unsigned seen = 0;

	(void)state;
	assert_int_equal(index_create(1, &index), 0);
	for (unsigned i = 0; i < 1000; i++) {
		struct index_key other = { .tag = i, .subtable = 5 };

		entry.place = 1000 + i;
		assert_int_equal(index_insert(index, &other, &entry), 0);
	}
	for (unsigned i = 0; i < 14; i++) {
		entry.place = i;
		assert_int_equal(index_insert(index, &key, &entry), 0);
	}
	entry.place = 14;
	assert_int_equal(index_insert(index, &key, &entry), -ENOMEM);
	assert_int_equal(index_count(index), 1014);
	while (index_next(index, &key, &cursor, &entry)) {
		seen |= 1u << entry.place;
	}
	assert_int_equal(seen, (1u << 14) - 1);
	assert_true(index_remove(index, &key, 3));
	assert_false(index_remove(index, &key, 3));
	entry.place = 14;
	assert_int_equal(index_insert(index, &key, &entry), 0);
	index_check(index);
	index_destroy(index);
}

/* The model: PLACES records, each at a place of its own, under one of KEYS keys. A few tags in a few sub-tables collide all the
 * time; the others are as they are in production. */
enum { PLACES = 40000, KEYS = 20000, OPS = 2000000 };

struct model {
	struct index *index;
	struct prng prng;
	struct index_key keys[KEYS];
	uint8_t key_count[KEYS]; /* Records under it. */
	struct record {
		bool live;
		uint32_t key;
		struct index_entry entry;
		uint64_t birth;
	} records[2 * PLACES]; /* By place; the second half are places that updates move to. */
	uint64_t live;
	bool births;
};

static void
model_init(struct model *m, uint64_t seed)
{
	memset(m, 0, sizeof(*m));
	prng_init(&m->prng, seed);
	assert_int_equal(index_create(seed, &m->index), 0);
	for (unsigned i = 0; i < KEYS; i++) {
		m->keys[i] = key_of(m->index, i);
		if (i % 4 == 0) {
			/* Colliding, but never the same key twice. */
			m->keys[i].tag = (uint64_t)(i / 64) << 34 | i / 64;
			m->keys[i].tag &= (UINT64_C(1) << 36) - 1;
			m->keys[i].subtable = i / 4 % 16;
		}
	}
}

static struct index_entry
model_entry(struct model *m, place_t place)
{
	return (struct index_entry){
		.place = place,
		.bytes = (uint32_t)prng_below(&m->prng, (4 << 20) + 1),
		.check = prng_u32(&m->prng),
		.recency = (uint16_t)prng_u32(&m->prng),
		.flags = (uint8_t)prng_below(&m->prng, 8),
	};
}

/* All candidates of a key are the model's records of it, each once. */
static void
model_look_up(struct model *m, uint32_t key)
{
	struct index_entry entry;
	uint32_t cursor = 0;
	unsigned count = 0;
	place_t seen[16];

	while (index_next(m->index, &m->keys[key], &cursor, &entry)) {
		const struct record *record = &m->records[entry.place];
		uint64_t birth = 0;

		assert_true(record->live && record->key == key);
		assert_true(entries_equal(&record->entry, &entry));
		for (unsigned i = 0; i < count; i++) {
			assert_true(seen[i] != entry.place);
		}
		assert_true(count < ARRAY_SIZE(seen));
		seen[count++] = entry.place;
		if (m->births) {
			assert_true(index_birth_get(m->index, &m->keys[key], entry.place, &birth));
			assert_true(birth == record->birth);
		}
	}
	assert_int_equal(count, m->key_count[key]);
}

static void
model_insert(struct model *m, place_t place)
{
	struct record *record = &m->records[place];
	int rc;

	record->key = (uint32_t)prng_below(&m->prng, KEYS);
	record->entry = model_entry(m, place);
	record->birth = 0;
	rc = index_insert(m->index, &m->keys[record->key], &record->entry);
	if (m->key_count[record->key] == 14) {
		assert_int_equal(rc, -ENOMEM);
		return;
	}
	assert_int_equal(rc, 0);
	record->live = true;
	m->key_count[record->key]++;
	m->live++;
	if (m->births) {
		record->birth = prng_u64(&m->prng);
		assert_true(index_birth_set(m->index, &m->keys[record->key], place, record->birth));
	}
}

static void
model_remove(struct model *m, place_t place)
{
	struct record *record = &m->records[place];

	assert_true(index_remove(m->index, &m->keys[record->key], place));
	assert_false(index_remove(m->index, &m->keys[record->key], place));
	record->live = false;
	m->key_count[record->key]--;
	m->live--;
}

/* Changes the fields, and half of the time the place, to its twin in the other half. */
static void
model_update(struct model *m, place_t place)
{
	struct record *record = &m->records[place];
	place_t to = place;
	struct index_entry entry;

	if (prng_below(&m->prng, 2) == 0) {
		to = place < PLACES ? place + PLACES : place - PLACES;
	}
	entry = model_entry(m, to);
	if (to != place && m->records[to].live) {
		return;
	}
	assert_true(index_update(m->index, &m->keys[record->key], place, &entry));
	m->records[to] = *record;
	m->records[to].entry = entry;
	if (to != place) {
		record->live = false;
		assert_false(index_update(m->index, &m->keys[record->key], place, &entry));
	}
}

static void
model_compare(struct model *m)
{
	index_check(m->index);
	assert_int_equal(index_count(m->index), m->live);
	for (uint32_t key = 0; key < KEYS; key++) {
		model_look_up(m, key);
	}
}

static bool
sweep_visit(void *arg, const struct index_entry *entry)
{
	struct model *m = arg;
	struct record *record = &m->records[entry->place];

	assert_true(record->live);
	assert_true(entries_equal(&record->entry, entry));
	if (prng_below(&m->prng, 8) != 0) {
		return false;
	}
	record->live = false;
	m->key_count[record->key]--;
	m->live--;
	return true;
}

static uint16_t
recency_halve(void *arg, const struct index_entry *entry)
{
	++*(uint64_t *)arg;
	return entry->recency / 2;
}

static void
model_sweep(struct model *m)
{
	uint32_t cursor = 0;
	unsigned calls = 1;
	uint64_t seen = 0;

	while (index_sweep(m->index, &cursor, sweep_visit, m)) {
		calls++;
	}
	assert_int_equal(calls, INDEX_SUBTABLES);
	while (index_sweep_recency(m->index, &cursor, recency_halve, &seen)) {
	}
	assert_int_equal(seen, m->live);
	for (unsigned i = 0; i < 2 * PLACES; i++) {
		m->records[i].entry.recency /= 2;
	}
}

/* Random operations in phases that fill and empty the table; births are carried in some of them. */
static void
test_model(void **state)
{
	struct model *m = malloc(sizeof(*m));

	(void)state;
	assert_non_null(m);
	model_init(m, 42);
	for (unsigned op = 0; op < OPS; op++) {
		place_t place = prng_below(&m->prng, 2 * PLACES);
		bool fill = op / 200000 % 2 == 0;
		uint64_t dice = prng_below(&m->prng, 10);

		if (op % 500000 == 100000) {
			assert_int_equal(index_births_begin(m->index), 0);
			m->births = true;
			for (unsigned i = 0; i < 2 * PLACES; i++) {
				m->records[i].birth = 0;
			}
		} else if (op % 500000 == 400000) {
			index_births_end(m->index);
			m->births = false;
		}
		if (op % 200000 == 150000) {
			model_sweep(m);
			model_compare(m);
		}
		if (!m->records[place].live) {
			place_t twin = place < PLACES ? place + PLACES : place - PLACES;

			if (!m->records[twin].live && dice < (fill ? 9 : 3)) {
				model_insert(m, place);
			}
		} else if (dice < (fill ? 2 : 8)) {
			model_remove(m, place);
		} else if (dice < 9) {
			model_update(m, place);
		}
		if (dice == 9) {
			model_look_up(m, (uint32_t)prng_below(&m->prng, KEYS));
		}
	}
	model_compare(m);
	index_destroy(m->index);
	free(m);
}

/* The limit, on the way up and down, at sizes about which the sub-tables round up to pages in every way. */
static void
test_bytes(void **state)
{
	enum { N = 400000, FIXED = 3 << 20 };
	struct index *index;
	size_t empty;

	(void)state;
	assert_int_equal(index_create(3, &index), 0);
	empty = index_bytes(index);
	assert_true(empty < 64 << 10);
	for (uint64_t i = 0; i < N; i++) {
		struct index_key key = key_of(index, i);
		struct index_entry entry = { .place = i };

		assert_int_equal(index_insert(index, &key, &entry), 0);
		if (i % 1000 == 0) {
			assert_true(index_bytes(index) <= 24 * (i + 1) + FIXED);
		}
		if (i == 1000) {
			assert_true(index_bytes(index) < 256 << 10);
		}
	}
	index_check(index);
	for (uint64_t i = N; i > 0; i--) {
		struct index_key key = key_of(index, i - 1);

		assert_true(index_remove(index, &key, i - 1));
		if (i % 1000 == 0) {
			assert_true(index_bytes(index) <= 24 * i + FIXED);
		}
	}
	assert_int_equal(index_count(index), 0);
	assert_true(index_bytes(index) < empty + (400 << 10));
	index_check(index);
	index_destroy(index);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_fields),	   cmocka_unit_test(test_key),
		cmocka_unit_test(test_check_make), cmocka_unit_test(test_same_tag),
		cmocka_unit_test(test_model),	   cmocka_unit_test(test_bytes),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
