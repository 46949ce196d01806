/* evict_lru.c — least recently used, by the segment. See evict.h and docs/design/001-reclaim.md.
 *
 * A bin is a run of epochs. bin_of[] maps each of the 65,536 epochs to its bin; the oldest bin also has every epoch that is
 * not in use, so that a recency older than anything remembered counts as the oldest. Bins are numbered by slots that are used
 * again; order[] lists the slots from the oldest bin to the newest.
 */
#include "engine/evict.h"

#include <errno.h>
#include <stdlib.h>

#include "base/base.h"

enum {
	BINS_MAX = 64,
	EPOCHS = 65536,
	/* An epoch's share of the capacity. */
	EPOCHS_A_CAPACITY = 256,
	/* Epochs older than this are all in the oldest bin. */
	AGE_OLDEST_BIN = 16384,
	/* age() makes older ones this old; they were in the oldest bin before and after. All sub-tables pass it within
	 * 1,024 × 16 = 16,384 epochs, so nothing gets older than 49,152 of 65,536. */
	AGE_MAX = 32768,
	EPOCHS_A_SWEEP_STEP = 16,
};

/* Of a segment: what a victim may give when nobody says. */
enum { BUDGET_PERCENT = 12 };

struct bin {
	uint16_t first; /* Epoch; meaningless in the oldest bin. */
	uint64_t pages;
};

struct segment_counts {
	uint64_t live;
	uint64_t hot;
	uint32_t bins[BINS_MAX]; /* By slot. */
};

struct evict {
	uint32_t segments_count;
	uint64_t budget_pages;
	uint64_t epoch_pages_max;
	uint16_t epoch;
	uint64_t epochs_total;
	uint64_t sweep_steps;
	uint32_t bins_count;
	uint32_t threshold; /* Position in order[]: this bin and newer ones are hot. */
	struct bin bins[BINS_MAX];
	uint8_t order[BINS_MAX];       /* Slots, oldest first. */
	uint8_t position_of[BINS_MAX]; /* Slot -> position in order[]. */
	uint8_t bin_of[EPOCHS];
	struct segment_counts segments[];
};

static uint8_t
newest_bin(const struct evict *e)
{
	return e->order[e->bins_count - 1];
}

static bool
bin_is_hot(const struct evict *e, uint8_t bin)
{
	return e->position_of[bin] >= e->threshold;
}

static void
count_add(struct evict *e, uint32_t segment, uint8_t bin, uint32_t pages)
{
	struct segment_counts *seg = &e->segments[segment];

	HR_ASSERT(segment < e->segments_count);
	seg->bins[bin] += pages;
	seg->live += pages;
	seg->hot += bin_is_hot(e, bin) ? pages : 0;
	e->bins[bin].pages += pages;
}

static void
count_sub(struct evict *e, uint32_t segment, uint8_t bin, uint32_t pages)
{
	struct segment_counts *seg = &e->segments[segment];

	HR_ASSERT(segment < e->segments_count);
	HR_ASSERTF(seg->bins[bin] >= pages, "segment %u bin %u has %u pages, not %u", segment, bin,
		   seg->bins[bin], pages);
	seg->bins[bin] -= pages;
	seg->live -= pages;
	seg->hot -= bin_is_hot(e, bin) ? pages : 0;
	e->bins[bin].pages -= pages;
}

/* ---- Bins and the threshold ---- */

static void
positions_set(struct evict *e)
{
	for (uint32_t i = 0; i < e->bins_count; i++) {
		e->position_of[e->order[i]] = (uint8_t)i;
	}
}

/* Moves the younger of two neighbours into the older one; the younger one's slot is free then. */
static uint8_t
bins_merge(struct evict *e, uint32_t position)
{
	uint8_t to = e->order[position];
	uint8_t from = e->order[position + 1];
	uint16_t end = position + 2 < e->bins_count ? e->bins[e->order[position + 2]].first
						    : (uint16_t)(e->epoch + 1);

	for (uint16_t epoch = e->bins[from].first; epoch != end; epoch++) {
		e->bin_of[epoch] = to;
	}
	for (uint32_t i = 0; i < e->segments_count; i++) {
		uint32_t *counts = e->segments[i].bins;

		/* Across the threshold: what was outside is inside from now on. */
		e->segments[i].hot += e->threshold == position + 1 ? counts[to] : 0;
		counts[to] += counts[from];
		counts[from] = 0;
	}
	e->bins[to].pages += e->bins[from].pages;
	e->bins[from].pages = 0;
	e->bins_count--;
	e->threshold -= e->threshold > position;
	memmove(&e->order[position + 1], &e->order[position + 2],
		(e->bins_count - position - 1) * sizeof(e->order[0]));
	positions_set(e);
	return from;
}

static uint8_t
bin_slot_free(struct evict *e)
{
	uint32_t best = 0;
	uint64_t best_pages = UINT64_MAX;

	if (e->bins_count < BINS_MAX) {
		bool used[BINS_MAX] = { false };
		uint8_t slot = 0;

		for (uint32_t i = 0; i < e->bins_count; i++) {
			used[e->order[i]] = true;
		}
		while (used[slot]) {
			slot++;
		}
		return slot;
	}
	for (uint32_t i = 0; i + 2 < e->bins_count; i++) {
		uint64_t pages = e->bins[e->order[i]].pages + e->bins[e->order[i + 1]].pages;

		if (pages < best_pages) {
			best_pages = pages;
			best = i;
		}
	}
	return bins_merge(e, best);
}

static void
threshold_set(struct evict *e, uint32_t threshold)
{
	e->threshold = threshold;
	for (uint32_t i = 0; i < e->segments_count; i++) {
		struct segment_counts *seg = &e->segments[i];

		seg->hot = 0;
		for (uint32_t j = e->threshold; j < e->bins_count; j++) {
			seg->hot += seg->bins[e->order[j]];
		}
	}
}

static void
epoch_advance(struct evict *e)
{
	uint8_t slot;

	while (e->bins_count > 2 &&
	       (uint16_t)(e->epoch - e->bins[e->order[1]].first) >= AGE_OLDEST_BIN) {
		(void)bins_merge(e, 0);
	}
	slot = bin_slot_free(e);
	e->epoch++;
	e->epochs_total++;
	e->bins[slot] = (struct bin){ .first = e->epoch };
	e->bin_of[e->epoch] = slot;
	e->order[e->bins_count++] = slot;
	positions_set(e);
}

/* ---- The policy ---- */

static int
lru_create(const struct evict_options *options, struct evict **ret)
{
	struct evict *e = calloc(1, sizeof(*e) + options->segments_count * sizeof(e->segments[0]));

	if (e == NULL) {
		return -ENOMEM;
	}
	e->segments_count = options->segments_count;
	e->budget_pages = options->capacity_pages / options->segments_count * BUDGET_PERCENT / 100;
	e->epoch_pages_max = HR_MAX(options->capacity_pages / EPOCHS_A_CAPACITY, UINT64_C(1));
	/* The oldest bin is slot 0 for ever: it has all epochs but those of the others. */
	e->bins_count = 1;
	epoch_advance(e);
	*ret = e;
	return 0;
}

static void
lru_destroy(struct evict *e)
{
	free(e);
}

static uint16_t
lru_insert(struct evict *e, uint32_t segment, uint32_t pages)
{
	if (e->bins[newest_bin(e)].pages >= e->epoch_pages_max) {
		epoch_advance(e);
	}
	count_add(e, segment, newest_bin(e), pages);
	return e->epoch;
}

static void
lru_insert_carried(struct evict *e, uint32_t segment, uint32_t pages, uint16_t recency)
{
	count_add(e, segment, e->bin_of[recency], pages);
}

static void
lru_remove(struct evict *e, uint32_t segment, uint32_t pages, uint16_t recency)
{
	count_sub(e, segment, e->bin_of[recency], pages);
}

static uint16_t
lru_touch(struct evict *e, uint32_t segment, uint32_t pages, uint16_t recency)
{
	if (recency == e->epoch) {
		return recency;
	}
	lru_remove(e, segment, pages, recency);
	return lru_insert(e, segment, pages);
}

static uint64_t
lru_hot_pages(struct evict *e, uint32_t segment)
{
	HR_ASSERT(segment < e->segments_count);
	return e->segments[segment].hot;
}

static uint64_t
lru_live_pages(struct evict *e, uint32_t segment)
{
	HR_ASSERT(segment < e->segments_count);
	return e->segments[segment].live;
}

static void
lru_budget(struct evict *e, uint64_t pages)
{
	e->budget_pages = pages;
}

/* The oldest threshold that leaves a victim whose hot pages are within the budget. */
static uint32_t
threshold_choose(const struct evict *e, bool (*eligible)(void *arg, uint32_t segment), void *arg)
{
	uint64_t hot_min[BINS_MAX + 1];
	uint32_t threshold = e->bins_count;

	memset(hot_min, 0xff, sizeof(hot_min));
	for (uint32_t i = 0; i < e->segments_count; i++) {
		const struct segment_counts *seg = &e->segments[i];
		uint64_t hot = 0;

		if (!eligible(arg, i)) {
			continue;
		}
		for (uint32_t j = e->bins_count; j > 0; j--) {
			hot += seg->bins[e->order[j - 1]];
			hot_min[j - 1] = HR_MIN(hot_min[j - 1], hot);
		}
	}
	while (threshold > 0 && hot_min[threshold - 1] <= e->budget_pages) {
		threshold--;
	}
	return threshold;
}

static uint32_t
lru_victim(struct evict *e, bool (*eligible)(void *arg, uint32_t segment), void *arg)
{
	const struct segment_counts *best = NULL;

	threshold_set(e, threshold_choose(e, eligible, arg));
	for (uint32_t i = 0; i < e->segments_count; i++) {
		const struct segment_counts *seg = &e->segments[i];

		if (best != NULL &&
		    (seg->hot > best->hot || (seg->hot == best->hot && seg->live >= best->live))) {
			continue;
		}
		if (eligible(arg, i)) {
			best = seg;
		}
	}
	return best == NULL ? UINT32_MAX : (uint32_t)(best - e->segments);
}

static uint32_t
lru_worth(struct evict *e, uint16_t recency)
{
	if (!bin_is_hot(e, e->bin_of[recency])) {
		return 0;
	}
	return EPOCHS - (uint16_t)(e->epoch - recency);
}

static bool
lru_age_due(struct evict *e)
{
	if (e->sweep_steps >= e->epochs_total / EPOCHS_A_SWEEP_STEP) {
		return false;
	}
	e->sweep_steps++;
	return true;
}

static uint16_t
lru_age(struct evict *e, uint16_t recency)
{
	return (uint16_t)(e->epoch - recency) > AGE_MAX ? (uint16_t)(e->epoch - AGE_MAX) : recency;
}

static size_t
lru_bytes(const struct evict *e)
{
	return sizeof(*e) + e->segments_count * sizeof(e->segments[0]);
}

static void
lru_check(const struct evict *e)
{
	uint64_t pages[BINS_MAX] = { 0 };

	HR_ASSERT(e->bins_count >= 2 && e->bins_count <= BINS_MAX);
	HR_ASSERT(e->order[0] == 0);
	for (uint32_t i = 0; i < e->segments_count; i++) {
		const struct segment_counts *seg = &e->segments[i];
		uint64_t live = 0, hot = 0;

		for (uint8_t bin = 0; bin < BINS_MAX; bin++) {
			live += seg->bins[bin];
			pages[bin] += seg->bins[bin];
		}
		for (uint32_t j = e->threshold; j < e->bins_count; j++) {
			hot += seg->bins[e->order[j]];
		}
		HR_ASSERT(live == seg->live && hot == seg->hot);
	}
	for (uint32_t i = 0; i < e->bins_count; i++) {
		uint8_t bin = e->order[i];

		HR_ASSERT(e->position_of[bin] == i);
		HR_ASSERT(e->bins[bin].pages == pages[bin]);
		pages[bin] = 0;
		HR_ASSERT(i == 0 || e->bin_of[e->bins[bin].first] == bin);
		/* In order of age. */
		HR_ASSERT(i < 2 || (uint16_t)(e->epoch - e->bins[bin].first) <
				       (uint16_t)(e->epoch - e->bins[e->order[i - 1]].first));
	}
	for (uint8_t bin = 0; bin < BINS_MAX; bin++) {
		HR_ASSERT(pages[bin] == 0);
	}
}

const struct evict_policy evict_lru = {
	.name = "lru",
	.help = "least recently used, by the segment",
	.create = lru_create,
	.destroy = lru_destroy,
	.insert = lru_insert,
	.insert_carried = lru_insert_carried,
	.touch = lru_touch,
	.remove = lru_remove,
	.hot_pages = lru_hot_pages,
	.live_pages = lru_live_pages,
	.budget = lru_budget,
	.victim = lru_victim,
	.worth = lru_worth,
	.age_due = lru_age_due,
	.age = lru_age,
	.bytes = lru_bytes,
	.check = lru_check,
};
