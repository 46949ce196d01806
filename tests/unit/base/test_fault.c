/* test_fault.c — when points fire; every allocation of some modules failing in turn. Without -Dfault=true: that it is inert. */
#include "base/fault.h"
#include "base/hashmap.h"
#include "base/option.h"
#include "base/pool.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

#ifdef HR_WITH_FAULT

static unsigned
fired_of(unsigned passages)
{
	unsigned fired = 0;

	for (unsigned i = 0; i < passages; i++) {
		fired += HR_FAULT(TEST_POINT);
	}
	return fired;
}

static void
test_rules(void **state)
{
	struct fault_counts counts;
	struct errbuf err = { "" };

	(void)state;
	assert_int_equal(fired_of(100), 0);
	assert_int_equal(fault_arm_text("TEST_POINT:interval=3,max=5;OTHER", &err), 0);
	assert_false(HR_FAULT(TEST_POINT));
	assert_false(HR_FAULT(TEST_POINT));
	assert_true(HR_FAULT(TEST_POINT));
	assert_int_equal(fired_of(100), 4);
	assert_true(HR_FAULT(OTHER));
	fault_counts_get("TEST_POINT", &counts);
	assert_int_equal(counts.passed, 103);
	assert_int_equal(counts.fired, 5);
	assert_int_equal(fault_arm("TEST_POINT", &(struct fault_rule){ .ppm = 100000, .seed = 1 }),
			 0);
	assert_in_range(fired_of(10000), 850, 1150);
	fault_disarm_all();
	assert_int_equal(fired_of(100), 0);
	assert_int_equal(fault_arm_text("TEST_POINT:often=3", &err), -EINVAL);
	assert_non_null(strstr(err.text, "often"));
	assert_int_equal(fault_arm_text("TEST_POINT:ppm", &err), -EINVAL);
	fault_disarm_all();
}

static int
use_pool(void)
{
	struct pool pool;
	int rc = pool_init(&pool, 64, 64, 8);

	if (rc == 0) {
		pool_fini(&pool);
	}
	return rc;
}

static int
use_hashmap(void)
{
	struct hashmap map;
	int rc = 0;

	hashmap_init(&map, 1);
	for (uint64_t i = 0; i < 1000 && rc == 0; i++) {
		rc = hashmap_put(&map, i, i);
		hashmap_check(&map);
		assert_int_equal(map.count, i + (rc == 0));
	}
	hashmap_fini(&map);
	return rc;
}

struct values {
	char *name;
	struct option_list list;
};

static int
use_options(void)
{
	static const struct option table[] = {
		OPTION(values, name, "name", OPTION_STRING, "a", "Name"),
		OPTION(values, list, "list", OPTION_LIST, "a,b", "List"),
	};
	struct option_set set = { 0 };
	struct values values;
	struct errbuf err;
	int rc;

	rc = option_set_init(&set, table, ARRAY_SIZE(table), &values, &err);
	if (rc == 0) {
		rc = option_assign(&set, "list", "c,d,e", OPTION_FROM_CLI, &err);
	}
	if (rc == 0) {
		rc = option_assign(&set, "name", "b", OPTION_FROM_CLI, &err);
	}
	option_set_fini(&set);
	return rc;
}

/* The first, second, … allocation fails until the whole passes; each failure is -ENOMEM, and ASan watches what is left. */
static void
fail_each(int (*use)(void))
{
	uint64_t n = 0;
	int rc;

	do {
		fault_alloc_fail_nth(++n);
		rc = use();
		assert_true(rc == 0 || rc == -ENOMEM);
		assert_int_equal(rc == 0, fault_alloc_count() < n);
		assert_true(n < 1000);
	} while (rc != 0);
	fault_alloc_fail_nth(0);
	assert_true(n > 1);
}

static void
test_allocations(void **state)
{
	(void)state;
	fail_each(use_pool);
	fail_each(use_hashmap);
	fail_each(use_options);
}

#else

static void
test_rules(void **state)
{
	struct errbuf err = { "" };

	(void)state;
	assert_int_equal(fault_arm("TEST_POINT", &(struct fault_rule){ 0 }), -ENOTSUP);
	assert_int_equal(fault_arm_text("TEST_POINT", &err), -ENOTSUP);
	assert_non_null(strstr(err.text, "-Dfault=true"));
	assert_false(HR_FAULT(TEST_POINT));
	assert_false(fault_passes("TEST_POINT"));
}

static void
test_allocations(void **state)
{
	void *memory;

	(void)state;
	fault_alloc_fail_nth(1);
	memory = malloc(16);
	assert_non_null(memory);
	free(memory);
	assert_int_equal(fault_alloc_count(), 0);
}

#endif

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_rules),
		cmocka_unit_test(test_allocations),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
