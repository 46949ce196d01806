/* fault.c — armed points in a small table; wrapped allocators (the linker's --wrap, see meson.build). */
#include "base/fault.h"

#ifdef HR_WITH_FAULT

#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/prng.h"

struct point {
	char name[FAULT_NAME_BYTES];
	struct fault_rule rule;
	struct fault_counts counts;
	struct prng prng;
};

static pthread_mutex_t g_lock = PTHREAD_MUTEX_INITIALIZER;
static struct point g_points[FAULT_POINTS_MAX];
static _Atomic unsigned g_points_count;
static pthread_once_t g_env_once = PTHREAD_ONCE_INIT;

static struct point *
point_find_locked(const char *name)
{
	for (unsigned i = 0; i < g_points_count; i++) {
		if (strcmp(g_points[i].name, name) == 0) {
			return &g_points[i];
		}
	}
	return NULL;
}

int
fault_arm(const char *name, const struct fault_rule *rule)
{
	struct point *point;
	int rc = 0;

	if (name[0] == 0 || strlen(name) >= FAULT_NAME_BYTES) {
		return -EINVAL;
	}
	pthread_mutex_lock(&g_lock);
	point = point_find_locked(name);
	if (point == NULL && g_points_count == FAULT_POINTS_MAX) {
		rc = -ENOSPC;
		goto out_unlock;
	}
	if (point == NULL) {
		point = &g_points[g_points_count];
		(void)snprintf(point->name, sizeof(point->name), "%s", name);
		g_points_count++;
	}
	point->rule = *rule;
	point->counts = (struct fault_counts){ 0 };
	prng_init(&point->prng, rule->seed);
out_unlock:
	pthread_mutex_unlock(&g_lock);
	return rc;
}

void
fault_disarm_all(void)
{
	pthread_mutex_lock(&g_lock);
	g_points_count = 0;
	memset(g_points, 0, sizeof(g_points));
	pthread_mutex_unlock(&g_lock);
}

void
fault_counts_get(const char *name, struct fault_counts *ret_counts)
{
	const struct point *point;

	pthread_mutex_lock(&g_lock);
	point = point_find_locked(name);
	*ret_counts = point == NULL ? (struct fault_counts){ 0 } : point->counts;
	pthread_mutex_unlock(&g_lock);
}

static void
arm_from_env(void)
{
	struct errbuf err;
	const char *text = getenv("HR_FAULTS");

	if (text != NULL && fault_arm_text(text, &err) != 0) {
		fprintf(stderr, "headrace: HR_FAULTS: %s\n", err.text);
		abort();
	}
}

static bool
point_decides_locked(struct point *point)
{
	const struct fault_rule *rule = &point->rule;

	point->counts.passed++;
	if (rule->max != 0 && point->counts.fired >= rule->max) {
		return false;
	}
	if (rule->interval != 0 && point->counts.passed % rule->interval != 0) {
		return false;
	}
	if (rule->interval == 0 && rule->ppm != 0 && !prng_chance_ppm(&point->prng, rule->ppm)) {
		return false;
	}
	point->counts.fired++;
	return true;
}

bool
fault_passes(const char *name)
{
	struct point *point;
	bool fires;

	pthread_once(&g_env_once, arm_from_env);
	if (atomic_load_explicit(&g_points_count, memory_order_relaxed) == 0) {
		return false;
	}
	pthread_mutex_lock(&g_lock);
	point = point_find_locked(name);
	fires = point != NULL && point_decides_locked(point);
	pthread_mutex_unlock(&g_lock);
	return fires;
}

/* "key=N" of a rule. */
static int
rule_set(struct fault_rule *rule, const char *text, size_t len, struct errbuf *err)
{
	unsigned long long value;
	char item[64];
	char key[16];

	(void)snprintf(item, sizeof(item), "%.*s", (int)HR_MIN(len, sizeof(item) - 1), text);
	if (sscanf(item, "%15[a-z]=%llu", key, &value) != 2) {
		return errf(err, -EINVAL, "'%s' is not key=number", item);
	}
	if (strcmp(key, "ppm") == 0) {
		rule->ppm = (uint32_t)value;
	} else if (strcmp(key, "interval") == 0) {
		rule->interval = (uint32_t)value;
	} else if (strcmp(key, "max") == 0) {
		rule->max = value;
	} else if (strcmp(key, "seed") == 0) {
		rule->seed = value;
	} else {
		return errf(err, -EINVAL, "'%s' is not one of ppm, interval, max, seed", key);
	}
	return 0;
}

int
fault_arm_text(const char *text, struct errbuf *err)
{
	while (*text != 0) {
		size_t len = strcspn(text, ";");
		size_t name_len = HR_MIN(len, strcspn(text, ":"));
		struct fault_rule rule = { 0 };
		char name[FAULT_NAME_BYTES];
		size_t at = name_len;
		int rc;

		if (name_len >= sizeof(name)) {
			return errf(err, -EINVAL, "'%.40s...' is too long for a name", text);
		}
		(void)snprintf(name, sizeof(name), "%.*s", (int)name_len, text);
		while (at < len) {
			size_t item_len;

			at++; /* ':' or ',' */
			item_len = HR_MIN(strcspn(text + at, ","), len - at);
			rc = rule_set(&rule, text + at, item_len, err);
			if (rc != 0) {
				return rc;
			}
			at += item_len;
		}
		rc = fault_arm(name, &rule);
		if (rc != 0) {
			return errf(err, rc, "'%s': %s", name, error_text(rc));
		}
		text += len;
		text += *text == ';';
	}
	return 0;
}

static _Atomic uint64_t g_alloc_nth;
static _Atomic uint64_t g_alloc_count;

void
fault_alloc_fail_nth(uint64_t n)
{
	atomic_store(&g_alloc_count, 0);
	atomic_store(&g_alloc_nth, n);
}

uint64_t
fault_alloc_count(void)
{
	return atomic_load(&g_alloc_count);
}

static bool
alloc_fails(void)
{
	uint64_t count = atomic_fetch_add_explicit(&g_alloc_count, 1, memory_order_relaxed) + 1;

	if (count == atomic_load_explicit(&g_alloc_nth, memory_order_relaxed)) {
		errno = ENOMEM;
		return true;
	}
	return false;
}

/* The linker sends our calls of NAME to __wrap_NAME, and __real_NAME to the C library. */
#define WRAP(type, name, params, args)                                                             \
	type __real_##name params;                                                                 \
	type __wrap_##name params;                                                                 \
	type __wrap_##name params                                                                  \
	{                                                                                          \
		return alloc_fails() ? NULL : __real_##name args;                                  \
	}

WRAP(void *, malloc, (size_t bytes), (bytes))
WRAP(void *, calloc, (size_t count, size_t bytes), (count, bytes))
WRAP(void *, realloc, (void *ptr, size_t bytes), (ptr, bytes))
WRAP(void *, reallocarray, (void *ptr, size_t count, size_t bytes), (ptr, count, bytes))
WRAP(void *, aligned_alloc, (size_t align, size_t bytes), (align, bytes))
WRAP(char *, strdup, (const char *text), (text))
WRAP(char *, strndup, (const char *text, size_t len), (text, len))

int __real_posix_memalign(void **ret_ptr, size_t align, size_t bytes);
int __wrap_posix_memalign(void **ret_ptr, size_t align, size_t bytes);

int
__wrap_posix_memalign(void **ret_ptr, size_t align, size_t bytes)
{
	return alloc_fails() ? ENOMEM : __real_posix_memalign(ret_ptr, align, bytes);
}

#else /* HR_WITH_FAULT */

int
fault_arm(const char *name, const struct fault_rule *rule)
{
	(void)name;
	(void)rule;
	return -ENOTSUP;
}

int
fault_arm_text(const char *text, struct errbuf *err)
{
	(void)text;
	return errf(err, -ENOTSUP, "fault points are not compiled in (meson -Dfault=true)");
}

void
fault_disarm_all(void)
{
}

void
fault_counts_get(const char *name, struct fault_counts *ret_counts)
{
	(void)name;
	*ret_counts = (struct fault_counts){ 0 };
}

void
fault_alloc_fail_nth(uint64_t n)
{
	(void)n;
}

uint64_t
fault_alloc_count(void)
{
	return 0;
}

bool
fault_passes(const char *name)
{
	(void)name;
	return false;
}

#endif /* HR_WITH_FAULT */
