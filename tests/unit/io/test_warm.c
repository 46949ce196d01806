/* test_warm.c - memory becomes resident piece by piece, and is let go at any moment. */
#include "io/warm.h"

#include <sys/mman.h>
#include <unistd.h>

#include "io_test.h"

enum { PAGE = 4096, PIECES = 3 };

struct world {
	struct io *io;
	struct warm *warm;
};

static int
setup(void **state)
{
	struct io_options options = { .disk = IO_DISK_PREAD, .net = IO_NET_POLL };
	struct world *w = calloc(1, sizeof(*w));

	assert_non_null(w);
	assert_int_equal(io_create(&options, &w->io), 0);
	assert_int_equal(warm_create(w->io, &w->warm), 0);
	*state = w;
	return 0;
}

static int
teardown(void **state)
{
	struct world *w = *state;

	warm_destroy(w->warm);
	io_destroy(w->io);
	free(w);
	return 0;
}

static uint8_t *
memory(size_t bytes)
{
	void *p = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	assert_true(p != MAP_FAILED);
	return p;
}

static struct iovec
next_piece(struct world *w)
{
	struct iovec piece;

	while (!warm_next(w->warm, &piece)) {
		assert_true(io_run(w->io, UINT64_MAX) >= 0); /* the worker wakes it */
	}
	return piece;
}

static size_t
resident_bytes(void *base, size_t bytes)
{
	static unsigned char there[PIECES * WARM_PIECE_BYTES / PAGE];
	size_t sum = 0;

	assert_int_equal(mincore(base, bytes, there), 0);
	for (size_t i = 0; i < bytes / PAGE; i++) {
		sum += (there[i] & 1) * (size_t)PAGE;
	}
	return sum;
}

/* In order, each byte once, and resident. */
static void
test_pieces(void **state)
{
	const size_t bytes = 2 * WARM_PIECE_BYTES + 5 * PAGE;
	uint8_t *base = memory(bytes), *at = base;
	struct world *w = *state;
	struct iovec piece;

	assert_false(warm_next(w->warm, &piece));
	assert_int_equal(warm_add(w->warm, base, bytes), 0);
	while (at < base + bytes) {
		piece = next_piece(w);
		assert_ptr_equal(piece.iov_base, at);
		assert_true(piece.iov_len > 0 && piece.iov_len <= WARM_PIECE_BYTES);
		assert_int_equal(resident_bytes(piece.iov_base, piece.iov_len), piece.iov_len);
		at += piece.iov_len;
	}
	assert_ptr_equal(at, base + bytes);
	assert_false(warm_next(w->warm, &piece));
	(void)munmap(base, bytes);
}

/* What was forgotten is not touched: the pages go, and stay away, whatever the worker was at. */
static void
test_forget(void **state)
{
	const size_t bytes = (size_t)PIECES * WARM_PIECE_BYTES;
	uint8_t *base = memory(bytes), *other = memory(PAGE);
	struct world *w = *state;
	struct iovec piece;

	for (unsigned round = 0; round < 8; round++) {
		assert_int_equal(warm_add(w->warm, base, bytes), 0);
		if (round % 2 == 0) {
			(void)next_piece(w);
		}
		warm_forget(w->warm, base, bytes);
		assert_int_equal(madvise(base, bytes, MADV_DONTNEED), 0);
		/* The worker takes things in order: it is done with the other one after anything of the first. */
		assert_int_equal(warm_add(w->warm, other, PAGE), 0);
		piece = next_piece(w);
		assert_ptr_equal(piece.iov_base, other);
		assert_int_equal(resident_bytes(base, bytes), 0);
	}
	(void)munmap(base, bytes);
	(void)munmap(other, PAGE);
}

/* Addresses with nothing behind them are handed over all the same: who pins them hears of it. */
static void
test_no_pages(void **state)
{
	struct world *w = *state;
	void *base = mmap(NULL, PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	struct iovec piece;

	assert_true(base != MAP_FAILED);
	assert_int_equal(warm_add(w->warm, base, PAGE), 0);
	piece = next_piece(w);
	assert_ptr_equal(piece.iov_base, base);
	(void)munmap(base, PAGE);
}

/* Destroyed in the middle of its work. */
static void
test_destroy_early(void **state)
{
	const size_t bytes = (size_t)PIECES * WARM_PIECE_BYTES;
	uint8_t *base = memory(bytes);
	struct world *w = *state;

	assert_int_equal(warm_add(w->warm, base, bytes), 0);
	warm_destroy(w->warm);
	w->warm = NULL;
	(void)munmap(base, bytes);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_pieces, setup, teardown),
		cmocka_unit_test_setup_teardown(test_forget, setup, teardown),
		cmocka_unit_test_setup_teardown(test_no_pages, setup, teardown),
		cmocka_unit_test_setup_teardown(test_destroy_early, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
