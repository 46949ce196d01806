/* pool.h — a fixed number of equal objects, made once.
 *
 * What:       data-path objects come from pools sized at start: running out is backpressure (NULL, counted), not malloc.
 * Threads:    a pool belongs to one thread; the counters may be read from anywhere by way of metric.h's copies.
 * Ownership:  pool_get() lends an object until pool_put(). Its contents are what the last user left, except for the first
 *             pointer, which the free list uses.
 * Errors:     pool_init() -ENOMEM, -EINVAL; pool_get() NULL when all are lent.
 * Invariants: P1 used_count <= count. P2 used_count + length of the free list == count. pool_check() proves both.
 * Cost:       object_bytes rounded up to `align`, and one bit an object that catches an object put twice.
 * Tests:      tests/unit/base/test_pool.c
 */
#ifndef HR_BASE_POOL_H
#define HR_BASE_POOL_H

#include "base/base.h"

struct pool {
	uint8_t *memory;
	uint64_t *lent_bits;
	void *free_first;
	size_t object_bytes;
	size_t count;
	size_t used_count;
	size_t used_count_max;	/* High water. */
	uint64_t refused_count; /* pool_get() that found nothing. */
};

/* `align` is a power of two >= sizeof(void *). */
HR_WARN_UNUSED int pool_init(struct pool *pool, size_t object_bytes, size_t align, size_t count);

/* Every object must be back. A zeroed pool is accepted. */
void pool_fini(struct pool *pool);

void *pool_get(struct pool *pool);

/* NULL is accepted. An object that is not this pool's, or not lent, is an assertion. */
void pool_put(struct pool *pool, void *object);

/* Position of an object in its pool, stable while the pool lives: usable as an id. */
size_t pool_index(const struct pool *pool, const void *object);

void pool_check(const struct pool *pool);

#endif
