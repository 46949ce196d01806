/* fault.h — named places where a test can make things go wrong, and the n-th allocation that fails.
 *
 *     if (HR_FAULT(SEGMENT_BEFORE_SEAL)) {
 *             return -EIO;
 *     }
 *
 * What:       compiled in with `meson -Dfault=true` only; elsewhere HR_FAULT() is false at compile time and costs nothing.
 *             A point fires with a chance, or at every n-th passage, at most so many times. Points are armed by tests, or by the
 *             environment: HR_FAULTS="SEGMENT_BEFORE_SEAL:interval=3,max=1;NET_SEND:ppm=1000,seed=7".
 * Not here:   failing I/O: the simulated device and network do that themselves.
 * Threads:    any; one lock, taken only while something is armed.
 * Errors:     arming: -EINVAL with a line; -ENOSPC beyond FAULT_POINTS_MAX; -ENOTSUP where not compiled in.
 * Tests:      tests/unit/base/test_fault.c (whole only in a build with -Dfault=true)
 */
#ifndef HR_BASE_FAULT_H
#define HR_BASE_FAULT_H

#include "base/error.h"

enum { FAULT_POINTS_MAX = 32, FAULT_NAME_BYTES = 48 };

struct fault_rule {
	uint32_t ppm; /* Chance at each passage, in millionths; 0 with interval 0 = every passage. */
	uint32_t interval; /* Every n-th passage; 0 = by chance. */
	uint64_t max;	   /* At most so many times; 0 = no limit. */
	uint64_t seed;	   /* Of the chance. */
};

struct fault_counts {
	uint64_t passed; /* Passages since it was armed. */
	uint64_t fired;
};

/* Replaces the rule of a point that is armed, and its counts. */
HR_WARN_UNUSED int fault_arm(const char *name, const struct fault_rule *rule);
HR_WARN_UNUSED int fault_arm_text(const char *text, struct errbuf *err);
void fault_disarm_all(void);

/* Zeros for a point that is not armed. */
void fault_counts_get(const char *name, struct fault_counts *ret_counts);

/* The n-th allocation from now fails (1 = the next), once; 0 = none does. Counts malloc, calloc, realloc, reallocarray,
 * aligned_alloc, posix_memalign, strdup and strndup of our own code, on all threads; not those inside libraries. */
void fault_alloc_fail_nth(uint64_t n);

/* How many allocations there were since fault_alloc_fail_nth(). The loop of a test: n = 1, 2, … until fewer than n happen. */
uint64_t fault_alloc_count(void);

bool fault_passes(const char *name);

#ifdef HR_WITH_FAULT
#define HR_FAULT(name) fault_passes(#name)
#else
#define HR_FAULT(name) false
#endif

#endif
