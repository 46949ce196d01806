/* test_evict.c — the LRU policy against a model of records, its wrap of logical time, and the survivor budget. */
#include "engine/evict.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

#include "base/base.h"
#include "base/prng.h"

static bool
always(void *arg, uint32_t segment)
{
	(void)arg;
	(void)segment;
	return true;
}

static bool
all_but(void *arg, uint32_t segment)
{
	return segment != *(uint32_t *)arg;
}

static struct evict *
make(uint32_t segments_count, uint64_t segment_pages)
{
	struct evict_options options = { segments_count, segments_count * segment_pages };
	struct evict *e;

	assert_int_equal(evict_lru.create(&options, &e), 0);
	return e;
}

static void
test_names(void **state)
{
	(void)state;
	assert_ptr_equal(evict_policy_find("lru"), &evict_lru);
	assert_null(evict_policy_find("LRU"));
	assert_null(evict_policy_find(""));
	assert_string_equal(evict_policy_names(), "lru");
	evict_lru.destroy(NULL);
}

/* Ten segments filled one after the other; the first is used again: the second is the victim, then the third ... */
static void
test_oldest_goes(void **state)
{
	enum { SEGS = 10, RECORDS = 100 };
	uint16_t recency[SEGS][RECORDS];
	struct evict *e = make(SEGS, RECORDS);
	uint32_t not_this = 1;

	(void)state;
	for (uint32_t s = 0; s < SEGS; s++) {
		for (unsigned i = 0; i < RECORDS; i++) {
			recency[s][i] = evict_lru.insert(e, s, 1);
		}
	}
	for (unsigned i = 0; i < RECORDS; i++) {
		recency[0][i] = evict_lru.touch(e, 0, 1, recency[0][i]);
	}
	evict_lru.budget(e, 10);
	assert_int_equal(evict_lru.victim(e, always, NULL), 1);
	assert_true(evict_lru.hot_pages(e, 1) <= 10);
	assert_int_equal(evict_lru.hot_pages(e, 0), RECORDS);
	assert_int_equal(evict_lru.live_pages(e, 1), RECORDS);
	assert_true(evict_lru.worth(e, recency[0][0]) > evict_lru.worth(e, recency[9][0]));
	assert_true(evict_lru.worth(e, recency[9][0]) > evict_lru.worth(e, recency[8][0]));
	assert_int_equal(evict_lru.worth(e, recency[1][0]), 0);
	assert_int_equal(evict_lru.victim(e, all_but, &not_this), 2);
	evict_lru.check(e);
	/* With nothing live, anything will do, and nothing is hot. */
	for (uint32_t s = 0; s < SEGS; s++) {
		for (unsigned i = 0; i < RECORDS; i++) {
			evict_lru.remove(e, s, 1, recency[s][i]);
		}
		assert_int_equal(evict_lru.live_pages(e, s), 0);
	}
	assert_true(evict_lru.victim(e, always, NULL) < SEGS);
	evict_lru.check(e);
	evict_lru.destroy(e);
}

static bool
never(void *arg, uint32_t segment)
{
	(void)arg;
	(void)segment;
	return false;
}

static void
test_no_victim(void **state)
{
	struct evict *e = make(4, 100);

	(void)state;
	(void)evict_lru.insert(e, 0, 5);
	assert_int_equal(evict_lru.victim(e, never, NULL), UINT32_MAX);
	evict_lru.check(e);
	evict_lru.destroy(e);
}

/* A loop over a few records does not age the others: time counts distinct records. */
static void
test_hot_loop(void **state)
{
	struct evict *e = make(16, 256);
	uint16_t first[64], second[64];

	(void)state;
	for (unsigned i = 0; i < 64; i++) {
		first[i] = evict_lru.insert(e, 0, 1);
	}
	for (unsigned i = 0; i < 64; i++) {
		second[i] = evict_lru.insert(e, 1, 1);
	}
	for (unsigned round = 0; round < 1000; round++) {
		for (unsigned i = 0; i < 8; i++) {
			second[i] = evict_lru.touch(e, 1, 1, second[i]);
		}
	}
	/* 8 of 16 pages an epoch: time stood still. */
	assert_true((uint16_t)(second[0] - first[63]) < 8);
	evict_lru.check(e);
	evict_lru.destroy(e);
}

enum { SEGS = 40, SEG_PAGES = 500, RECORDS = 1500 };

struct record {
	bool live;
	uint32_t segment;
	uint32_t pages;
	uint16_t recency;
	uint64_t used_at;
};

struct model {
	struct evict *e;
	struct prng prng;
	struct record records[RECORDS];
	uint32_t aged; /* How many 1024ths went through age(). */
	uint64_t now;
};

static void
model_age(struct model *m)
{
	while (evict_lru.age_due(m->e)) {
		for (unsigned i = m->aged++ % 1024; i < RECORDS; i += 1024) {
			if (m->records[i].live) {
				m->records[i].recency = evict_lru.age(m->e, m->records[i].recency);
			}
		}
	}
}

static void
model_compare(struct model *m)
{
	uint64_t live[SEGS] = { 0 }, hot[SEGS] = { 0 };
	uint64_t budget = prng_below(&m->prng, SEG_PAGES);
	uint32_t victim;

	evict_lru.budget(m->e, budget);
	victim = evict_lru.victim(m->e, always, NULL);
	evict_lru.check(m->e);
	for (unsigned i = 0; i < RECORDS; i++) {
		const struct record *r = &m->records[i];

		if (r->live) {
			live[r->segment] += r->pages;
			hot[r->segment] += evict_lru.worth(m->e, r->recency) > 0 ? r->pages : 0;
		}
	}
	for (uint32_t s = 0; s < SEGS; s++) {
		assert_int_equal(evict_lru.live_pages(m->e, s), live[s]);
		assert_int_equal(evict_lru.hot_pages(m->e, s), hot[s]);
		assert_true(hot[victim] <= hot[s]);
	}
	assert_true(hot[victim] <= budget);
}

/* Greater worth means used later, but for records of one epoch. */
static void
model_order(struct model *m)
{
	for (unsigned n = 0; n < 100; n++) {
		const struct record *a = &m->records[prng_below(&m->prng, RECORDS)];
		const struct record *b = &m->records[prng_below(&m->prng, RECORDS)];

		if (a->live && b->live && a->used_at < b->used_at) {
			assert_true(evict_lru.worth(m->e, a->recency) <=
				    evict_lru.worth(m->e, b->recency));
		}
	}
}

/* Random lives of records through more than two wraps of the 16 bits, with the ageing that is asked for. One record is never
 * used again: it must stay the oldest. */
static void
test_model(void **state)
{
	struct model *m = calloc(1, sizeof(*m));
	uint64_t epochs = 0;
	uint16_t last = 0;

	(void)state;
	assert_non_null(m);
	m->e = make(SEGS, SEG_PAGES);
	prng_init(&m->prng, 3);
	for (m->now = 1; epochs < 140000; m->now++) {
		unsigned i = m->now == 1 ? 0 : 1 + (unsigned)prng_below(&m->prng, RECORDS - 1);
		struct record *r = &m->records[i];

		if (!r->live) {
			r->segment = (uint32_t)prng_below(&m->prng, SEGS);
			r->pages = (uint32_t)prng_below(&m->prng, 20);
			r->recency = evict_lru.insert(m->e, r->segment, r->pages);
			r->live = true;
			r->used_at = m->now;
		} else if (m->now % 8 == 0) {
			evict_lru.remove(m->e, r->segment, r->pages, r->recency);
			r->live = false;
		} else if (m->now % 8 == 1) {
			evict_lru.remove(m->e, r->segment, r->pages, r->recency);
			r->segment = (uint32_t)prng_below(&m->prng, SEGS);
			evict_lru.insert_carried(m->e, r->segment, r->pages, r->recency);
		} else {
			r->recency = evict_lru.touch(m->e, r->segment, r->pages, r->recency);
			r->used_at = m->now;
		}
		if (r->live && r->used_at == m->now) {
			epochs += (uint16_t)(r->recency - last);
			last = r->recency;
		}
		model_age(m);
		if (m->now % 10000 == 0) {
			model_compare(m);
			model_order(m);
			for (unsigned k = 1; k < RECORDS; k++) {
				assert_true(!m->records[k].live ||
					    evict_lru.worth(m->e, m->records[k].recency) >=
						evict_lru.worth(m->e, m->records[0].recency));
			}
		}
	}
	model_compare(m);
	evict_lru.destroy(m->e);
	free(m);
}

static void
test_bytes(void **state)
{
	struct evict *e = make(1000, 2048);

	(void)state;
	assert_true(evict_lru.bytes(e) <= 80 * 1024 + 1000 * 64 * 4 + 1000 * 16);
	evict_lru.destroy(e);
}

/* A store that writes what the budget allows, victim after victim, ends at the limit and never above it by more than a victim;
 * with an overhead above the limit nothing is carried. */
static void
test_budget(void **state)
{
	enum { VICTIM = 8 << 20, SEGMENTS = 100 };
	struct evict_budget b = { .victim_bytes = VICTIM,
				  .segments_count = SEGMENTS,
				  .limit_permille = 1170 };
	uint64_t first = 0, last = 0;

	(void)state;
	/* The first fill carries nothing and pays 2 % for headers. */
	b.payload_bytes = (uint64_t)VICTIM * SEGMENTS;
	b.written_bytes = b.payload_bytes / 100 * 102;
	for (unsigned i = 0; i < 20 * SEGMENTS; i++) {
		uint64_t carried = evict_budget_pages(&b) * 4096;

		assert_true(carried <= VICTIM / 2);
		first = i == 0 ? carried : first;
		last = carried;
		b.survivor_bytes += carried;
		b.payload_bytes += VICTIM - carried;
		b.written_bytes += VICTIM / 100 * 102;
		assert_true((double)b.written_bytes <= 1.1701 * (double)b.payload_bytes);
	}
	assert_true((double)b.written_bytes > 1.165 * (double)b.payload_bytes);
	assert_true(first > VICTIM / 100 * 40);
	assert_in_range(last, VICTIM / 100 * 12, VICTIM / 100 * 14);
	b = (struct evict_budget){ .payload_bytes = 1000000,
				   .written_bytes = 1250000,
				   .victim_bytes = VICTIM,
				   .segments_count = 4,
				   .limit_permille = 1170 };
	assert_int_equal(evict_budget_pages(&b), 0);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_names),	  cmocka_unit_test(test_oldest_goes),
		cmocka_unit_test(test_no_victim), cmocka_unit_test(test_hot_loop),
		cmocka_unit_test(test_model),	  cmocka_unit_test(test_bytes),
		cmocka_unit_test(test_budget),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
