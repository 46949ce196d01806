/* test_base.c — alignment, little-endian access, and that an assertion ends the process with its values. */
#include "base/base.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

static void
test_align(void **state)
{
	(void)state;
	assert_int_equal(align_up(0, 4096), 0);
	assert_int_equal(align_up(1, 4096), 4096);
	assert_int_equal(align_up(4096, 4096), 4096);
	assert_int_equal(align_down(4097, 4096), 4096);
	assert_true(is_aligned(8192, 4096));
	assert_false(is_aligned(8193, 4096));
	assert_int_equal(div_round_up(9, 4), 3);
	assert_int_equal(div_round_up(8, 4), 2);
	assert_int_equal(div_round_up(UINT64_MAX, 2), (uint64_t)1 << 63);
	assert_true(is_pow2(1));
	assert_true(is_pow2((uint64_t)1 << 63));
	assert_false(is_pow2(0));
	assert_false(is_pow2(6));
	assert_int_equal(round_up_pow2(0), 1);
	assert_int_equal(round_up_pow2(5), 8);
	assert_int_equal(round_up_pow2(8), 8);
	assert_int_equal(log2_floor(1), 0);
	assert_int_equal(log2_floor(4097), 12);
	assert_int_equal(KiB(64), 65536);
	assert_int_equal(GiB(8), 8589934592);
}

static void
test_little_endian(void **state)
{
	uint8_t b[9] = { 0 };

	(void)state;
	/* At an odd address, so that an implementation by cast would be caught by UBSan. */
	put_le64(b + 1, 0x0123456789abcdefULL);
	assert_int_equal(b[1], 0xef);
	assert_int_equal(b[8], 0x01);
	assert_int_equal(get_le64(b + 1), 0x0123456789abcdefULL);
	put_le32(b + 1, 0xfedcba98u);
	assert_int_equal(get_le32(b + 1), 0xfedcba98u);
	put_le16(b + 1, 0x8001);
	assert_int_equal(b[1], 0x01);
	assert_int_equal(get_le16(b + 1), 0x8001);
}

static void
test_misc(void **state)
{
	struct pair {
		int a, b;
	} p = { 1, 2 };
	int arr[7];
	int n = 0;
	uint8_t zeros[33] = { 0 };

	(void)state;
	assert_ptr_equal(container_of(&p.b, struct pair, b), &p);
	assert_int_equal(ARRAY_SIZE(arr), 7);
	assert_int_equal(HR_MAX(n++, -1), 0); /* Arguments are evaluated once. */
	assert_int_equal(n, 1);
	assert_int_equal(HR_MIN(3, 2), 2);
	assert_true(is_all_zero(zeros, sizeof(zeros)));
	assert_true(is_all_zero(zeros, 0));
	zeros[32] = 1;
	assert_false(is_all_zero(zeros, sizeof(zeros)));
	assert_true(is_all_zero(zeros, 32));
}

/* A child fails an assertion; the parent reads what it said and how it ended. */
static void
test_assert(void **state)
{
	char text[256];
	int pipe_fds[2];
	int status;
	ssize_t len;
	pid_t pid;

	(void)state;
	assert_int_equal(pipe(pipe_fds), 0);
	pid = fork();
	assert_true(pid >= 0);
	if (pid == 0) {
		dup2(pipe_fds[1], STDERR_FILENO);
		HR_ASSERTF(pipe_fds[0] < 0, "fd=%d", pipe_fds[0]);
		_exit(0);
	}
	close(pipe_fds[1]);
	len = read(pipe_fds[0], text, sizeof(text) - 1);
	assert_true(len > 0);
	text[len] = 0;
	assert_non_null(strstr(text, "pipe_fds[0] < 0"));
	assert_non_null(strstr(text, "fd="));
	assert_non_null(strstr(text, "test_base.c:"));
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFSIGNALED(status));
	assert_int_equal(WTERMSIG(status), SIGABRT);
	close(pipe_fds[0]);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_align),
		cmocka_unit_test(test_little_endian),
		cmocka_unit_test(test_misc),
		cmocka_unit_test(test_assert),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
