/* test_pool.c — every object once, backpressure when none is left, counters, alignment, and misuse that must not pass. */
#include "base/pool.h"
#include "base/prng.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

static void
test_exhaustion(void **state)
{
	struct pool pool;
	void *objects[100];

	(void)state;
	assert_int_equal(pool_init(&pool, 24, 64, 100), 0);
	for (int i = 0; i < 100; i++) {
		objects[i] = pool_get(&pool);
		assert_non_null(objects[i]);
		assert_true(is_aligned((uintptr_t)objects[i], 64));
		assert_int_equal(pool_index(&pool, objects[i]), i);
		memset(objects[i], 0xff, 24);
	}
	assert_null(pool_get(&pool));
	assert_null(pool_get(&pool));
	assert_int_equal(pool.refused_count, 2);
	assert_int_equal(pool.used_count_max, 100);
	pool_put(&pool, objects[57]);
	pool_put(&pool, NULL);
	pool_check(&pool);
	assert_ptr_equal(pool_get(&pool), objects[57]);
	for (int i = 0; i < 100; i++) {
		pool_put(&pool, objects[i]);
	}
	pool_check(&pool);
	assert_int_equal(pool.used_count, 0);
	pool_fini(&pool);
	pool_fini(&pool); /* A zeroed pool is accepted. */
}

/* Gets and puts at random against a set of what is lent. */
static void
test_random(void **state)
{
	enum { COUNT = 70 };
	void *lent[COUNT];
	size_t lent_count = 0;
	struct prng prng;
	struct pool pool;

	(void)state;
	prng_init(&prng, 5);
	assert_int_equal(pool_init(&pool, 8, 8, COUNT), 0);
	for (int i = 0; i < 20000; i++) {
		if (prng_below(&prng, 2) == 0) {
			void *object = pool_get(&pool);

			assert_true((object == NULL) == (lent_count == COUNT));
			for (size_t k = 0; object != NULL && k < lent_count; k++) {
				assert_ptr_not_equal(lent[k], object);
			}
			if (object != NULL) {
				lent[lent_count++] = object;
			}
		} else if (lent_count > 0) {
			size_t k = prng_below(&prng, lent_count);

			pool_put(&pool, lent[k]);
			lent[k] = lent[--lent_count];
		}
		if (i % 100 == 0) {
			pool_check(&pool);
		}
	}
	while (lent_count > 0) {
		pool_put(&pool, lent[--lent_count]);
	}
	pool_fini(&pool);
}

static void
test_bad_arguments(void **state)
{
	struct pool pool;

	(void)state;
	assert_int_equal(pool_init(&pool, 8, 3, 1), -EINVAL);
	assert_int_equal(pool_init(&pool, 0, 8, 1), -EINVAL);
	assert_int_equal(pool_init(&pool, 8, 8, 0), -EINVAL);
	assert_int_equal(pool_init(&pool, SIZE_MAX / 4, 8, 16), -ENOMEM);
}

static void
put_twice(struct pool *pool)
{
	void *object = pool_get(pool);

	pool_put(pool, object);
	pool_put(pool, object);
}

static void
put_foreign(struct pool *pool)
{
	pool_put(pool, (uint8_t *)pool_get(pool) + 1);
}

/* A child misuses the pool and must end by SIGABRT. */
static void
assert_aborts(void (*misuse)(struct pool *pool))
{
	int status;
	pid_t pid;

	pid = fork();
	assert_true(pid >= 0);
	if (pid == 0) {
		struct pool pool;

		close(STDERR_FILENO);
		if (pool_init(&pool, 16, 16, 4) == 0) {
			misuse(&pool);
		}
		_exit(0);
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFSIGNALED(status));
	assert_int_equal(WTERMSIG(status), SIGABRT);
}

static void
test_misuse(void **state)
{
	(void)state;
	assert_aborts(put_twice);
	assert_aborts(put_foreign);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_exhaustion),
		cmocka_unit_test(test_random),
		cmocka_unit_test(test_bad_arguments),
		cmocka_unit_test(test_misuse),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
