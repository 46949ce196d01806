/* placement.c - weighted rendezvous in integers.
 *
 * A shard's score is weight / -ln(u), u uniform in (0, 1) and its own for every route: the greatest of such scores falls on a
 * shard with a probability proportional to its weight (Schindelhauer & Schomaker 2005). The base of the logarithm does not
 * matter, so it is 2. Floating point would give different last bits on different machines, and then two clients would look for
 * a block on two shards; so this is fixed point, and the page states each step.
 */
#include "cluster/placement.h"

#include "base/base.h"

/* 2^48 x log2(1 + i / 64), rounded to the nearest. */
static const uint64_t LOG2_TABLE[64] = {
	0x000000000000, 0x05b9e5a170b5, 0x0b5d69bac77f, 0x10eb389fa2a0, 0x1663f6fac913,
	0x1bc84240adac, 0x2118b119b4f4, 0x2655d3c4f15c, 0x2b803473f7ad, 0x309857a05e07,
	0x359ebc5b69d9, 0x3a93dc9864b3, 0x3f782d7204d0, 0x444c1f6b4c2e, 0x49101eac381d,
	0x4dc4933a9338, 0x5269e12f346e, 0x570068e7ef5a, 0x5b8887367433, 0x6002958c5871,
	0x646eea247c5c, 0x68cdd829fd81, 0x6d1fafdce20b, 0x7164beb4a56d, 0x759d4f80cba8,
	0x79c9aa879d53, 0x7dea15a32c1b, 0x81fed45cbccc, 0x86082806b1d5, 0x8a064fd50f2a,
	0x8df988f4ae80, 0x91e20ea1393e, 0x95c01a39fbd7, 0x9993e355a4e5, 0x9d5d9fd5010b,
	0xa11d83f4c355, 0xa4d3c25e68dc, 0xa8808c384548, 0xac241134c4ea, 0xafbe7fa0f04d,
	0xb35004723c46, 0xb6d8cb53b0ca, 0xba58feb2703b, 0xbdd0c7c9a817, 0xc1404eadf384,
	0xc4a7ba58377c, 0xc80730b00016, 0xcb5ed69565b0, 0xceaecfea8086, 0xd1f73f9c70c1,
	0xd53847ac00a7, 0xd8720935e643, 0xdba4a47aa997, 0xded038e633f3, 0xe1f4e5170d03,
	0xe512c6e54999, 0xe829fb693045, 0xeb3a9f019750, 0xee44cd59ffab, 0xf148a170700a,
	0xf446359b1354, 0xf73da38d9d4b, 0xfa2f045e7833, 0xfd1a708bbe12,
};
/* floor(2^63 / k), k = 1 ... 5: the series ln(1 + t) = t (1 - t (1/2 - t (1/3 - t (1/4 - t/5)))). */
static const uint64_t LN_SERIES[5] = { 0x8000000000000000, 0x4000000000000000, 0x2aaaaaaaaaaaaaaa,
				       0x2000000000000000, 0x1999999999999999 };
static const uint64_t LN_TO_LOG2 = 0x5c551d94ae0bf85e; /* 2^62 / ln 2, rounded to the nearest */

typedef unsigned __int128 uint128;

/* a x b / 2^63 */
static uint64_t
mul63(uint64_t a, uint64_t b)
{
	return (uint64_t)((uint128)a * b >> 63);
}

uint64_t
placement_neg_log2(uint64_t u)
{
	unsigned e = log2_floor(u);
	uint64_t x = u << (63 - e);	       /* u = x / 2^63 * 2^e, the top bit of x is set */
	unsigned i = (unsigned)(x >> 57) & 63; /* the interval of the table */
	uint64_t rest = x & ((UINT64_C(1) << 57) - 1);
	uint64_t reciprocal = (uint64_t)(((uint128)1 << 69) / (64 + i));
	uint64_t t =
	    mul63(rest, reciprocal); /* x = (1 + i/64) (1 + t), t < 1/64 in units of 2^-63 */
	uint64_t p = LN_SERIES[4];
	uint64_t log2, result;

	for (int k = 3; k >= 0; k--) {
		p = LN_SERIES[k] - mul63(t, p);
	}
	log2 = (uint64_t)((uint128)mul63(t, p) * LN_TO_LOG2 >> 77);
	log2 += LOG2_TABLE[i] + ((uint64_t)e << 48);
	result = (UINT64_C(53) << 48) - log2;
	/* Close to u = 2^53 the error of the series (4e-12) may reach below zero. */
	return (int64_t)result < 1 ? 1 : result;
}

/* The finalizer of SplitMix64; not mix64() of hash.h, whose constants are others. */
static uint64_t
finalize(uint64_t z)
{
	z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
	z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
	return z ^ (z >> 31);
}

uint64_t
placement_draw(const uint8_t uuid[16], uint64_t route)
{
	uint64_t low = get_le64(uuid), high = get_le64(uuid + 8);
	uint64_t h = finalize(route ^ finalize(low + UINT64_C(0x9e3779b97f4a7c15)) ^
			      (high << 32 | high >> 32));

	return (finalize(h + route) >> 11) | 1;
}

struct candidate {
	uint64_t neg_log2;
	uint32_t idx;
};

/* True when a goes before b. */
static bool
candidate_before(const struct wire_map *map, const struct candidate *a, const struct candidate *b)
{
	const struct wire_map_shard *shard_a = &map->shards[a->idx], *shard_b = &map->shards[b->idx];
	uint128 left = (uint128)shard_a->weight * b->neg_log2;
	uint128 right = (uint128)shard_b->weight * a->neg_log2;

	if (left != right) {
		return left > right;
	}
	return memcmp(shard_a->uuid, shard_b->uuid, 16) > 0;
}

static uint32_t
pick(const struct wire_map *map, uint64_t route, bool draining, uint32_t *ret_order, uint32_t max)
{
	struct candidate best[PLACEMENT_PICK_MAX], candidate;
	uint32_t count = 0, at;

	for (uint32_t i = 0; i < map->shards_count; i++) {
		const struct wire_map_shard *shard = &map->shards[i];
		bool takes_part = draining ? shard->state == WIRE_DRAINING_STATE
					   : shard->state == WIRE_SERVING ||
						 shard->state == WIRE_JOINING;

		if (!takes_part || shard->weight == 0) {
			continue;
		}
		candidate.idx = i;
		candidate.neg_log2 = placement_neg_log2(placement_draw(shard->uuid, route));
		/* Few are asked for (owner and copies), so it is sorted in by insertion; the least falls off. */
		for (at = count; at > 0 && candidate_before(map, &candidate, &best[at - 1]); at--) {
			if (at < max) {
				best[at] = best[at - 1];
			}
		}
		if (at < max) {
			best[at] = candidate;
			count += count < max;
		}
	}
	for (at = 0; at < count; at++) {
		ret_order[at] = best[at].idx;
	}
	return count;
}

uint32_t
placement_pick(const struct wire_map *map, uint64_t route, uint32_t *ret_order, uint32_t max)
{
	uint32_t count;

	max = HR_MIN(max, (uint32_t)PLACEMENT_PICK_MAX);
	count = pick(map, route, false, ret_order, max);
	return count > 0 ? count : pick(map, route, true, ret_order, max);
}
