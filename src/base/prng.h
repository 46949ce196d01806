/* prng.h — pseudo-random numbers from a seed (xoshiro256**): tests, workloads, the simulated world, sampling.
 *
 * What:       a state of 32 bytes in the caller's memory; the same seed gives the same numbers on every machine.
 * Not here:   secrets and keys; those come from the io seam's randomness, that is from the kernel.
 * Threads:    a state belongs to one thread.
 * Tests:      tests/unit/base/test_prng.c (the generator's published vectors)
 */
#ifndef HR_BASE_PRNG_H
#define HR_BASE_PRNG_H

#include "base/base.h"

struct prng {
	uint64_t s[4];
};

/* The next number of splitmix64; seeds xoshiro and is good enough where one word of state is wanted. */
static inline uint64_t
splitmix64(uint64_t *state)
{
	uint64_t z = (*state += 0x9e3779b97f4a7c15ULL);

	z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ULL;
	z = (z ^ (z >> 27)) * 0x94d049bb133111ebULL;
	return z ^ (z >> 31);
}

static inline void
prng_init(struct prng *prng, uint64_t seed)
{
	for (int i = 0; i < 4; i++) {
		prng->s[i] = splitmix64(&seed);
	}
}

static inline uint64_t
prng_rotl(uint64_t x, int k)
{
	return (x << k) | (x >> (64 - k));
}

static inline uint64_t
prng_u64(struct prng *prng)
{
	uint64_t *s = prng->s;
	uint64_t result = prng_rotl(s[1] * 5, 7) * 9;
	uint64_t t = s[1] << 17;

	s[2] ^= s[0];
	s[3] ^= s[1];
	s[1] ^= s[2];
	s[0] ^= s[3];
	s[2] ^= t;
	s[3] = prng_rotl(s[3], 45);
	return result;
}

static inline uint32_t
prng_u32(struct prng *prng)
{
	return (uint32_t)(prng_u64(prng) >> 32);
}

/* Uniform in [0, bound), without bias; bound > 0. */
uint64_t prng_below(struct prng *prng, uint64_t bound);

/* Uniform in [0, 1). */
static inline double
prng_double(struct prng *prng)
{
	return (double)(prng_u64(prng) >> 11) * 0x1.0p-53;
}

/* True with a chance of `ppm` in a million. */
static inline bool
prng_chance_ppm(struct prng *prng, uint32_t ppm)
{
	return ppm != 0 && prng_below(prng, 1000000) < ppm;
}

void prng_bytes(struct prng *prng, void *ret, size_t len);

#endif
