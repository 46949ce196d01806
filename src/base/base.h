/* base.h — what every file of Headrace may use without asking.
 *
 * What:       assertions, container_of, alignment, little-endian access, size macros, attribute shorthands.
 * Not here:   error codes (error.h), logging (log.h).
 * Threads:    everything is a pure function of its arguments, except that a failed assertion ends the process.
 * Invariants: HR_ASSERT stays in release builds: a wrong invariant in a store is worse than a stopped one.
 * Tests:      tests/unit/base/test_base.c
 */
#ifndef HR_BASE_BASE_H
#define HR_BASE_BASE_H

#include <assert.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#define HR_PRINTF(fmt, args) __attribute__((format(printf, fmt, args)))
#define HR_WARN_UNUSED __attribute__((warn_unused_result))
#define HR_NORETURN __attribute__((noreturn))
#define HR_UNUSED __attribute__((unused))
#define HR_PURE __attribute__((pure))
#define HR_CONST __attribute__((const))
#define HR_COLD __attribute__((cold, noinline))
#define HR_CLEANUP(fn) __attribute__((cleanup(fn)))

#define likely(x) __builtin_expect(!!(x), 1)
#define unlikely(x) __builtin_expect(!!(x), 0)

#define KiB(n) ((uint64_t)(n) << 10)
#define MiB(n) ((uint64_t)(n) << 20)
#define GiB(n) ((uint64_t)(n) << 30)
#define TiB(n) ((uint64_t)(n) << 40)

#define HR_CACHELINE_BYTES 64
#define HR_CACHELINE_ALIGNED __attribute__((aligned(HR_CACHELINE_BYTES)))

/* Says what was found to be false and where, then ends the process by abort(). */
HR_NORETURN HR_COLD HR_PRINTF(4, 5) void assert_failed(const char *expr, const char *file, int line,
						       const char *fmt, ...);

/* One fact each. Stays in release builds; use HR_DASSERT where the check itself is costly. */
#define HR_ASSERT(cond)                                                                            \
	do {                                                                                       \
		if (unlikely(!(cond))) {                                                           \
			assert_failed(#cond, __FILE__, __LINE__, NULL);                            \
		}                                                                                  \
	} while (0)

/* The same, and prints the values that made it false. */
#define HR_ASSERTF(cond, ...)                                                                      \
	do {                                                                                       \
		if (unlikely(!(cond))) {                                                           \
			assert_failed(#cond, __FILE__, __LINE__, __VA_ARGS__);                     \
		}                                                                                  \
	} while (0)

/* Costly checks: in debug and sanitizer builds (HR_DEBUG), type-checked but not run elsewhere. */
#ifdef HR_DEBUG
#define HR_DASSERT(cond) HR_ASSERT(cond)
#else
#define HR_DASSERT(cond) ((void)sizeof((cond) ? 1 : 0))
#endif

#define container_of(ptr, type, member)                                                            \
	((type *)((char *)(1 ? (ptr) : &((type *)0)->member) - offsetof(type, member)))

/* A pointer instead of an array is a compile-time error. */
#define HR_IS_ARRAY(a) (!__builtin_types_compatible_p(__typeof__(a), __typeof__(&(a)[0])))
#define ARRAY_SIZE(a) (sizeof(a) / sizeof((a)[0]) + 0 * sizeof(char[HR_IS_ARRAY(a) ? 1 : -1]))

/* Arguments are evaluated once. The counter makes the locals of a nested use other ones. */
#define HR_MIN(a, b) HR_MIN_NAMED(a, b, __COUNTER__)
#define HR_MAX(a, b) HR_MAX_NAMED(a, b, __COUNTER__)
#define HR_MIN_NAMED(a, b, n) HR_PICK(<, a, b, n)
#define HR_MAX_NAMED(a, b, n) HR_PICK(>, a, b, n)
#define HR_PICK(op, a, b, n)                                                                       \
	({                                                                                         \
		__typeof__(a) pick_a_##n = (a);                                                    \
		__typeof__(b) pick_b_##n = (b);                                                    \
		pick_a_##n op pick_b_##n ? pick_a_##n : pick_b_##n;                                \
	})

static inline bool
is_pow2(uint64_t v)
{
	return v != 0 && (v & (v - 1)) == 0;
}

/* `align` is a power of two. align_up() wraps to 0 for values within `align` of 2^64: check sizes from outside first. */
static inline uint64_t
align_up(uint64_t v, uint64_t align)
{
	return (v + align - 1) & ~(align - 1);
}

static inline uint64_t
align_down(uint64_t v, uint64_t align)
{
	return v & ~(align - 1);
}

static inline bool
is_aligned(uint64_t v, uint64_t align)
{
	return (v & (align - 1)) == 0;
}

static inline uint64_t
div_round_up(uint64_t v, uint64_t by)
{
	return v / by + (v % by != 0);
}

/* The power of two at or above v; v <= 2^63, and 0 gives 1. */
static inline uint64_t
round_up_pow2(uint64_t v)
{
	return v <= 1 ? 1 : (uint64_t)1 << (64 - __builtin_clzll(v - 1));
}

/* floor(log2(v)), v != 0. */
static inline unsigned
log2_floor(uint64_t v)
{
	return 63u - (unsigned)__builtin_clzll(v);
}

/* Little-endian access at any alignment; the compiler makes one load or store of each on the machines we run on. */
static inline uint16_t
get_le16(const void *p)
{
	const uint8_t *b = p;

	return (uint16_t)(b[0] | b[1] << 8);
}

static inline uint32_t
get_le32(const void *p)
{
	const uint8_t *b = p;

	return (uint32_t)b[0] | (uint32_t)b[1] << 8 | (uint32_t)b[2] << 16 | (uint32_t)b[3] << 24;
}

static inline uint64_t
get_le64(const void *p)
{
	return (uint64_t)get_le32(p) | (uint64_t)get_le32((const uint8_t *)p + 4) << 32;
}

static inline void
put_le16(void *p, uint16_t v)
{
	uint8_t *b = p;

	b[0] = (uint8_t)v;
	b[1] = (uint8_t)(v >> 8);
}

static inline void
put_le32(void *p, uint32_t v)
{
	uint8_t *b = p;

	b[0] = (uint8_t)v;
	b[1] = (uint8_t)(v >> 8);
	b[2] = (uint8_t)(v >> 16);
	b[3] = (uint8_t)(v >> 24);
}

static inline void
put_le64(void *p, uint64_t v)
{
	put_le32(p, (uint32_t)v);
	put_le32((uint8_t *)p + 4, (uint32_t)(v >> 32));
}

/* True when all `len` bytes are zero; a reserve that is not was written by someone who knows more than we do. */
static inline bool
is_all_zero(const void *p, size_t len)
{
	const uint8_t *b = p;

	return len == 0 || (b[0] == 0 && memcmp(b, b + 1, len - 1) == 0);
}

#endif
