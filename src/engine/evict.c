/* evict.c — see evict.h. */
#include "engine/evict.h"

#include "base/base.h"

static const struct evict_policy *const policies[] = { &evict_lru };

const struct evict_policy *
evict_policy_find(const char *name)
{
	for (size_t i = 0; i < ARRAY_SIZE(policies); i++) {
		if (strcmp(policies[i]->name, name) == 0) {
			return policies[i];
		}
	}
	return NULL;
}

const char *
evict_policy_names(void)
{
	return "lru";
}

/* Saved credit is spent over a quarter of the segments: at once, it buys the survival of what is hardly worth it, and over all
 * of them it comes late. Measured: docs/design/001-reclaim.md. */
enum { CREDIT_SHARE = 4, PAGE_BYTES = 4096, OVERHEAD_PERCENT_FIRST = 2 };

/* Headers and footers, over values: as they were so far, because they depend on the sizes of values and of units. */
static double
budget_overhead(const struct evict_budget *budget)
{
	double values = (double)budget->payload_bytes + (double)budget->survivor_bytes;

	return values == 0 ? OVERHEAD_PERCENT_FIRST / 100.0
			   : HR_MAX((double)budget->written_bytes / values - 1, 0.0);
}

uint64_t
evict_budget_pages(const struct evict_budget *budget)
{
	double victim = (double)budget->victim_bytes;
	double limit = budget->limit_permille / 1000.0;
	double credit = (double)budget->payload_bytes - (double)budget->written_bytes / limit;
	uint64_t shares = HR_MAX(budget->segments_count / CREDIT_SHARE, 1u);
	/* A victim of B bytes of which S are carried takes B - S of new payload, and all of it is written with its overhead:
	 * B (1 + overhead) <= limit (B - S) holds the limit by itself. */
	double survivors = victim - victim * (1 + budget_overhead(budget)) / limit;

	/* A debt is paid at once. */
	survivors += credit < 0 ? credit : credit / (double)shares;
	survivors = HR_MIN(survivors, victim / 2);
	return survivors <= 0 ? 0 : (uint64_t)(survivors / PAGE_BYTES);
}
