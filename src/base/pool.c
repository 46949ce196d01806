/* pool.c — the free list runs through the first word of the objects that are not lent. */
#include "base/pool.h"

#include <errno.h>
#include <stdlib.h>

int
pool_init(struct pool *pool, size_t object_bytes, size_t align, size_t count)
{
	struct pool made = { 0 };
	size_t total_bytes;

	if (!is_pow2(align) || align < sizeof(void *) || object_bytes == 0 || count == 0) {
		return -EINVAL;
	}
	made.object_bytes = align_up(HR_MAX(object_bytes, sizeof(void *)), align);
	made.count = count;
	if (__builtin_mul_overflow(made.object_bytes, count, &total_bytes)) {
		return -ENOMEM;
	}
	made.lent_bits = calloc(div_round_up(count, 64), sizeof(uint64_t));
	made.memory = aligned_alloc(align, total_bytes);
	if (made.lent_bits == NULL || made.memory == NULL) {
		free(made.lent_bits);
		free(made.memory);
		return -ENOMEM;
	}
	/* Lowest address first, so that a lightly used pool stays in few pages. */
	for (size_t i = count; i-- > 0;) {
		void *object = made.memory + i * made.object_bytes;

		memset(object, 0, made.object_bytes);
		*(void **)object = made.free_first;
		made.free_first = object;
	}
	*pool = made;
	return 0;
}

void
pool_fini(struct pool *pool)
{
	HR_ASSERTF(pool->used_count == 0, "used=%zu of %zu", pool->used_count, pool->count);
	free(pool->memory);
	free(pool->lent_bits);
	memset(pool, 0, sizeof(*pool));
}

void *
pool_get(struct pool *pool)
{
	void *object = pool->free_first;
	size_t i;

	if (object == NULL) {
		pool->refused_count++;
		return NULL;
	}
	pool->free_first = *(void **)object;
	*(void **)object = NULL;
	i = pool_index(pool, object);
	pool->lent_bits[i / 64] |= (uint64_t)1 << (i % 64);
	pool->used_count++;
	pool->used_count_max = HR_MAX(pool->used_count, pool->used_count_max);
	return object;
}

void
pool_put(struct pool *pool, void *object)
{
	uint64_t bit;
	size_t i;

	if (object == NULL) {
		return;
	}
	i = pool_index(pool, object);
	bit = (uint64_t)1 << (i % 64);
	HR_ASSERTF((pool->lent_bits[i / 64] & bit) != 0, "object %zu of %zu put twice", i,
		   pool->count);
	pool->lent_bits[i / 64] &= ~bit;
	*(void **)object = pool->free_first;
	pool->free_first = object;
	pool->used_count--;
}

size_t
pool_index(const struct pool *pool, const void *object)
{
	size_t off = (size_t)((const uint8_t *)object - pool->memory);
	size_t i = off / pool->object_bytes;

	HR_ASSERT((const uint8_t *)object >= pool->memory && i < pool->count &&
		  off % pool->object_bytes == 0);
	return i;
}

void
pool_check(const struct pool *pool)
{
	size_t free_count = 0;
	size_t lent_count = 0;

	HR_ASSERT(pool->used_count <= pool->count);
	for (void *object = pool->free_first; object != NULL; object = *(void **)object) {
		size_t i = pool_index(pool, object);

		HR_ASSERT((pool->lent_bits[i / 64] & (uint64_t)1 << (i % 64)) == 0);
		free_count++;
		HR_ASSERT(free_count <= pool->count);
	}
	for (size_t i = 0; i < div_round_up(pool->count, 64); i++) {
		lent_count += (size_t)__builtin_popcountll(pool->lent_bits[i]);
	}
	HR_ASSERT(lent_count == pool->used_count);
	HR_ASSERTF(free_count + pool->used_count == pool->count, "free=%zu used=%zu count=%zu",
		   free_count, pool->used_count, pool->count);
}
