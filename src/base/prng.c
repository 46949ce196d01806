/* prng.c — the two that need a loop. */
#include "base/prng.h"

uint64_t
prng_below(struct prng *prng, uint64_t bound)
{
	unsigned __int128 product;
	uint64_t low;

	HR_ASSERT(bound > 0);
	/* Lemire's multiplication: reject only the few low halves that would make some results likelier. */
	product = (unsigned __int128)prng_u64(prng) * bound;
	low = (uint64_t)product;
	if (low < bound) {
		uint64_t threshold = -bound % bound;

		while (low < threshold) {
			product = (unsigned __int128)prng_u64(prng) * bound;
			low = (uint64_t)product;
		}
	}
	return (uint64_t)(product >> 64);
}

void
prng_bytes(struct prng *prng, void *ret, size_t len)
{
	uint8_t *out = ret;

	while (len >= 8) {
		put_le64(out, prng_u64(prng));
		out += 8;
		len -= 8;
	}
	if (len > 0) {
		uint8_t last[8];

		put_le64(last, prng_u64(prng));
		memcpy(out, last, len);
	}
}
