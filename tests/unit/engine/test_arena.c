/* test_arena.c — the arena's memory: shape of values, tenants, seals, and a random life against a map of bytes. */
#include "engine/arena.h"

#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/base.h"
#include "base/prng.h"

static void
fill(const struct arena_buf *buf, uint8_t byte)
{
	for (uint32_t i = 0; i < buf->iov_count; i++) {
		memset(buf->iov[i].iov_base, byte, buf->iov[i].iov_len);
	}
}

static bool
filled(const struct arena_buf *buf, uint8_t byte)
{
	size_t bytes = 0;

	for (uint32_t i = 0; i < buf->iov_count; i++) {
		const uint8_t *p = buf->iov[i].iov_base;

		if (p[0] != byte || memcmp(p, p + 1, buf->iov[i].iov_len - 1) != 0) {
			return false;
		}
		bytes += buf->iov[i].iov_len;
	}
	return bytes == (size_t)buf->pages * 4096;
}

/* A fresh arena gives any value in one piece, page-aligned, and its tail is exact: nothing is wasted beyond the page. */
static void
test_one_piece(void **state)
{
	static const uint32_t sizes[] = { 1,	 4096,	4097,	 65535,		65536,
					  65537, 20480, 1 << 20, (1 << 20) + 1, 4 << 20 };
	struct arena *arena;
	struct arena_buf bufs[ARRAY_SIZE(sizes)];
	uint64_t used = 0;

	(void)state;
	assert_int_equal(arena_create(MiB(64), &arena), 0);
	assert_int_equal(arena_chunk_bytes(arena), MiB(4));
	assert_int_equal(arena_bytes_max(arena), MiB(64));
	assert_int_equal(arena_chunks_count(arena), 0);
	for (unsigned i = 0; i < ARRAY_SIZE(sizes); i++) {
		assert_int_equal(arena_alloc(arena, 0, sizes[i], &bufs[i]), 0);
		assert_int_equal(bufs[i].iov_count, 1);
		assert_int_equal((uintptr_t)bufs[i].iov[0].iov_base % 4096, 0);
		assert_int_equal(bufs[i].iov[0].iov_len, align_up(sizes[i], 4096));
		used += align_up(sizes[i], 4096);
		assert_int_equal(arena_bytes_used(arena), used);
		fill(&bufs[i], 0xee);
		arena_buf_pad(&bufs[i]);
		if (sizes[i] % 4096 != 0) {
			const uint8_t *p = bufs[i].iov[0].iov_base;

			assert_int_equal(p[sizes[i] - 1], 0xee);
			assert_true(is_all_zero(p + sizes[i], align_up(sizes[i], 4096) - sizes[i]));
		}
		arena_check(arena);
	}
	for (unsigned i = 0; i < ARRAY_SIZE(sizes); i++) {
		arena_free(arena, &bufs[i]);
		arena_free(arena, &bufs[i]);
		arena_check(arena);
	}
	assert_int_equal(arena_bytes_used(arena), 0);
	arena_destroy(arena);
	arena_destroy(NULL);
}

static void
test_empty(void **state)
{
	struct arena *arena;
	struct arena_buf buf;
	struct arena_extent extent;

	(void)state;
	assert_int_equal(arena_create(1, &arena), 0);
	assert_int_equal(arena_bytes_max(arena), MiB(4));
	assert_int_equal(arena_alloc(arena, 9, 0, &buf), 0);
	assert_int_equal(buf.iov_count, 0);
	assert_int_equal(arena_extents(arena, &buf, 0, 0, &extent), 0);
	arena_buf_pad(&buf);
	arena_free(arena, &buf);
	arena_check(arena);
	arena_destroy(arena);
}

/* Chunk sizes for arenas of many sizes: a power of two, about a sixteenth, within the limits. */
static void
test_chunk_sizes(void **state)
{
	static const uint64_t sizes[][2] = {
		{ MiB(1), MiB(4) },  { MiB(127), MiB(4) }, { MiB(128), MiB(8) },
		{ GiB(1), MiB(64) }, { GiB(100), GiB(1) },
	};

	(void)state;
	for (unsigned i = 0; i < ARRAY_SIZE(sizes); i++) {
		struct arena *arena;

		assert_int_equal(arena_create(sizes[i][0], &arena), 0);
		assert_int_equal(arena_chunk_bytes(arena), sizes[i][1]);
		arena_destroy(arena);
	}
}

/* Every second page in use: values are made of pieces, as many as allowed and no more; slices and extents walk them. */
static void
test_fragmented(void **state)
{
	enum { PAGES = 1024 };
	static struct arena_buf pages[PAGES];
	struct arena *arena;
	struct arena_buf buf;
	struct iovec iov[ARENA_IOV_MAX];
	struct arena_extent extents[ARENA_IOV_MAX];

	(void)state;
	assert_int_equal(arena_create(MiB(4), &arena), 0);
	for (unsigned i = 0; i < PAGES; i++) {
		assert_int_equal(arena_alloc(arena, 1, 4096, &pages[i]), 0);
	}
	assert_int_equal(arena_alloc(arena, 1, 1, &buf), -EAGAIN);
	for (unsigned i = 0; i < PAGES; i += 2) {
		arena_free(arena, &pages[i]);
	}
	arena_check(arena);
	assert_int_equal(arena_alloc(arena, 1, 66 * 4096, &buf), -EAGAIN);
	arena_check(arena);
	assert_int_equal(arena_bytes_used(arena), MiB(2));
	assert_int_equal(arena_alloc(arena, 1, 64 * 4096 + 1, &buf), 0);
	assert_int_equal(buf.iov_count, ARENA_IOV_MAX);
	assert_int_equal(arena_iov_slice(&buf, 0, 65 * 4096, iov), ARENA_IOV_MAX);
	assert_int_equal(arena_iov_slice(&buf, 4000, 5000, iov), 3);
	assert_ptr_equal(iov[0].iov_base, (uint8_t *)buf.iov[0].iov_base + 4000);
	assert_int_equal(iov[0].iov_len, 96);
	assert_int_equal(iov[1].iov_len, 4096);
	assert_ptr_equal(iov[2].iov_base, buf.iov[2].iov_base);
	assert_int_equal(iov[2].iov_len, 808);
	assert_int_equal(arena_extents(arena, &buf, 4096, 4097, extents), 2);
	assert_int_equal(extents[1].bytes, 1);
	assert_int_equal(extents[0].chunk, 0);
	arena_free(arena, &buf);
	for (unsigned i = 1; i < PAGES; i += 2) {
		arena_free(arena, &pages[i]);
	}
	arena_check(arena);
	assert_int_equal(arena_alloc(arena, 1, 4 << 20, &buf), 0);
	assert_int_equal(buf.iov_count, 1);
	arena_free(arena, &buf);
	arena_destroy(arena);
}

/* A client with the descriptor reads what is written and can change nothing: neither bytes nor length. */
static void
test_shared_read_only(void **state)
{
	struct arena *arena;
	struct arena_buf buf;
	struct arena_extent extent;
	uint64_t bytes;
	uint8_t *map;
	int fd;

	(void)state;
	assert_int_equal(arena_create(MiB(8), &arena), 0);
	assert_int_equal(arena_chunk_fd(arena, 0, 3, &bytes), -ENOENT);
	assert_int_equal(arena_alloc(arena, 3, 10000, &buf), 0);
	assert_int_equal(arena_extents(arena, &buf, 0, 10000, &extent), 1);
	assert_int_equal(arena_chunk_fd(arena, extent.chunk, 2, &bytes), -ENOENT);
	fd = arena_chunk_fd(arena, extent.chunk, 3, &bytes);
	assert_true(fd >= 0);
	assert_int_equal(bytes, MiB(4));
	assert_true(mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0) == MAP_FAILED);
	assert_int_equal(pwrite(fd, "x", 1, 0), -1);
	assert_int_equal(ftruncate(fd, 0), -1);
	assert_int_equal(ftruncate(fd, (off_t)bytes * 2), -1);
	assert_int_equal(fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, 4096), -1);
	map = mmap(NULL, bytes, PROT_READ, MAP_SHARED, fd, 0);
	assert_true(map != MAP_FAILED);
	fill(&buf, 0x5a);
	assert_int_equal(map[extent.off], 0x5a);
	assert_int_equal(map[extent.off + 9999], 0x5a);
	assert_int_equal(mprotect(map, bytes, PROT_READ | PROT_WRITE), -1);
	munmap(map, bytes);
	arena_free(arena, &buf);
	arena_destroy(arena);
}

struct chunk_log {
	unsigned calls, gone;
	void *last;
};

static void
on_chunk(void *arg, void *base, size_t bytes)
{
	struct chunk_log *log = arg;

	assert_int_equal(bytes, MiB(4));
	log->calls++;
	log->last = base;
}

/* Told while the memory is still there. */
static void
on_chunk_gone(void *arg, void *base, size_t bytes)
{
	struct chunk_log *log = arg;

	assert_int_equal(bytes, MiB(4));
	assert_ptr_equal(base, log->last);
	(void)*(volatile uint8_t *)base;
	log->gone++;
}

/* A chunk changes tenant only when empty, and the old tenant's mapping never shows the new one's bytes. */
static void
test_tenant_change(void **state)
{
	struct chunk_log log = { 0 };
	const struct arena_chunk_events events = { on_chunk, on_chunk_gone, &log };
	struct arena *arena;
	struct arena_buf a, b;
	uint32_t epoch, tenant;
	uint64_t bytes;
	void *base;
	uint8_t *map;

	(void)state;
	assert_int_equal(arena_create(MiB(4), &arena), 0);
	arena_on_chunk(arena, &events);
	assert_int_equal(arena_alloc(arena, 0, 4 << 20, &a), 0);
	assert_int_equal(log.calls, 1);
	fill(&a, 0xaa);
	base = a.iov[0].iov_base;
	epoch = arena_chunk_epoch(arena, 0);
	map = mmap(NULL, MiB(4), PROT_READ, MAP_SHARED, arena_chunk_fd(arena, 0, 0, &bytes), 0);
	assert_true(map != MAP_FAILED);
	assert_int_equal(arena_alloc(arena, 70, 4096, &b), -EAGAIN);
	assert_int_equal(arena_chunk_epoch(arena, 0), epoch);
	arena_free(arena, &a);
	assert_int_equal(arena_alloc(arena, 70, 4 << 20, &b), 0);
	assert_int_equal(log.calls, 2);
	assert_int_equal(log.gone, 1);
	assert_ptr_equal(log.last, base);
	assert_ptr_equal(b.iov[0].iov_base, base);
	assert_int_not_equal(arena_chunk_epoch(arena, 0), epoch);
	assert_true(filled(&b, 0)); /* New memory. */
	fill(&b, 0xbb);
	assert_true(arena_chunk_usage(arena, 0, &tenant, &bytes));
	assert_int_equal(tenant, 70);
	assert_int_equal(bytes, MiB(4));
	assert_int_equal(map[0], 0xaa);
	assert_int_equal(map[MiB(4) - 1], 0xaa);
	assert_int_equal(arena_chunk_fd(arena, 0, 0, &bytes), -ENOENT);
	assert_true(arena_chunk_fd(arena, 0, 70, &bytes) >= 0);
	munmap(map, MiB(4));
	arena_check(arena);
	arena_free(arena, &b);
	arena_on_chunk(arena, &events);
	assert_int_equal(log.calls, 3);
	arena_destroy(arena);
	assert_int_equal(log.gone, 2);
}

/* Random sizes and tenants: every value keeps its byte until it is freed; what is refused is refused for a reason. */
static void
test_random_life(void **state)
{
	enum { BUFS = 400, OPS = 60000, TENANTS = 3 };
	static struct arena_buf bufs[BUFS];
	static uint8_t bytes[BUFS];
	static bool live[BUFS];
	struct arena *arena;
	struct prng prng;
	uint64_t used = 0, refused = 0, pieces = 0, allocs = 0;

	(void)state;
	prng_init(&prng, 11);
	assert_int_equal(arena_create(MiB(64), &arena), 0);
	for (unsigned op = 0; op < OPS; op++) {
		unsigned i = (unsigned)prng_below(&prng, BUFS);

		if (live[i]) {
			assert_true(op % 16 != 0 || filled(&bufs[i], bytes[i]));
			used -= (uint64_t)bufs[i].pages * 4096;
			arena_free(arena, &bufs[i]);
			live[i] = false;
		} else {
			uint32_t max = prng_below(&prng, 4) == 0 ? 1 << 20 : 1 << 17;
			uint32_t size = (uint32_t)prng_below(&prng, max) + 1;
			int rc = arena_alloc(arena, (uint32_t)prng_below(&prng, TENANTS), size,
					     &bufs[i]);

			if (rc != 0) {
				assert_int_equal(rc, -EAGAIN);
				assert_true(used > MiB(64) / 2);
				refused++;
				continue;
			}
			live[i] = true;
			bytes[i] = (uint8_t)op;
			fill(&bufs[i], bytes[i]);
			used += (uint64_t)bufs[i].pages * 4096;
			allocs++;
			pieces += bufs[i].iov_count;
		}
		assert_int_equal(arena_bytes_used(arena), used);
		if (op % 1000 == 0) {
			arena_check(arena);
		}
	}
	assert_true(allocs > OPS / 3);
	assert_true(pieces < allocs * 3 / 2);
	for (unsigned i = 0; i < BUFS; i++) {
		if (live[i]) {
			assert_true(filled(&bufs[i], bytes[i]));
			arena_free(arena, &bufs[i]);
		}
	}
	arena_check(arena);
	assert_int_equal(arena_bytes_used(arena), 0);
	arena_destroy(arena);
}

/* Allocating and freeing at random in a full arena of 1 GiB costs well below a microsecond; no memory is touched for it. */
static void
test_cost(void **state)
{
	enum { BUFS = 1000, OPS = 200000 };
	static struct arena_buf bufs[BUFS];
	struct arena *arena;
	struct prng prng;
	struct timespec t0, t1;
	double ns;

	(void)state;
	prng_init(&prng, 12);
	assert_int_equal(arena_create(GiB(1), &arena), 0);
	for (unsigned i = 0; i < BUFS; i++) {
		assert_int_equal(arena_alloc(arena, 0, 1 << 20, &bufs[i]), 0);
	}
	clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t0);
	for (unsigned op = 0; op < OPS; op++) {
		unsigned i = (unsigned)prng_below(&prng, BUFS);

		arena_free(arena, &bufs[i]);
		assert_int_equal(arena_alloc(arena, 0, 1 << 20, &bufs[i]), 0);
	}
	clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t1);
	ns = (double)(t1.tv_sec - t0.tv_sec) * 1e9 + (double)(t1.tv_nsec - t0.tv_nsec);
	print_message("# %.0f ns for a free and an allocation of 1 MiB\n", ns / OPS);
	assert_true(ns / OPS < 20000); /* A watchdog: sanitizers and loaded machines included. */
	for (unsigned i = 0; i < BUFS; i++) {
		assert_int_equal(bufs[i].iov_count, 1);
		arena_free(arena, &bufs[i]);
	}
	arena_destroy(arena);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_one_piece),	 cmocka_unit_test(test_empty),
		cmocka_unit_test(test_chunk_sizes),	 cmocka_unit_test(test_fragmented),
		cmocka_unit_test(test_shared_read_only), cmocka_unit_test(test_tenant_change),
		cmocka_unit_test(test_random_life),	 cmocka_unit_test(test_cost),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
