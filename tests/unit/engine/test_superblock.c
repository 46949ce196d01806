/* test_superblock.c - formatting and opening devices, on real files.
 *
 * Method: every rule of superblock.h and of docs/format section 2 once: what is refused and with which words, that nothing is changed
 * when it is, that one damaged copy does not matter and two do.
 */
#include "engine/superblock.h"

#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <headrace/error.h>

#include <cmocka.h>

#include "engine/blocking.h"
#include "engine/layout.h"

struct fixture {
	struct io *io;
	char dir[64];
	char path[96];
	char detail[DETAIL_BYTES];
	struct superblock slices[SLICES_MAX];
	uint32_t count;
};

static int
setup(void **state)
{
	struct fixture *f = calloc(1, sizeof(*f));
	struct io_options options = { .disk = IO_DISK_PREAD, .net = IO_NET_POLL };

	strcpy(f->dir, "/tmp/hr_superblock_XXXXXX");
	assert_non_null(mkdtemp(f->dir));
	snprintf(f->path, sizeof(f->path), "%s/dev", f->dir);
	assert_int_equal(io_create(&options, &f->io), 0);
	*state = f;
	return 0;
}

static int
teardown(void **state)
{
	struct fixture *f = *state;
	char lock[128];

	io_destroy(f->io);
	unlink(f->path);
	snprintf(lock, sizeof(lock), "%s.lock", f->path);
	unlink(lock);
	rmdir(f->dir);
	free(f);
	return 0;
}

static int
format(struct fixture *f, struct format_options options)
{
	return device_format(f->io, f->path, &options, f->detail);
}

static int
read_slices(struct fixture *f)
{
	struct io_device *device;
	int rc;

	assert_int_equal(io_device_open(f->io, f->path, IO_DEVICE_READONLY, &device), 0);
	rc = device_superblocks_read(f->io, device, f->slices, &f->count, f->detail);
	io_device_close(device);
	return rc;
}

static void
poke(struct fixture *f, off_t off, const char *bytes, size_t len)
{
	int fd = open(f->path, O_RDWR | O_CREAT, 0600);

	assert_true(fd >= 0);
	assert_int_equal(pwrite(fd, bytes, len, off), len);
	close(fd);
}

static void
flip(struct fixture *f, off_t off)
{
	int fd = open(f->path, O_RDWR);
	char c;

	assert_int_equal(pread(fd, &c, 1, off), 1);
	c ^= 0x20;
	assert_int_equal(pwrite(fd, &c, 1, off), 1);
	close(fd);
}

static void
test_format(void **state)
{
	struct fixture *f = *state;
	const struct superblock *sb = f->slices;
	struct stat st;

	assert_int_equal(format(f, (struct format_options){ .size_bytes = MiB(100) }), 0);
	assert_int_equal(stat(f->path, &st), 0);
	assert_int_equal(st.st_size, MiB(100));
	assert_int_equal(read_slices(f), 0);
	assert_int_equal(f->count, 1);
	assert_int_equal(sb->segment_bytes, MiB(8));
	assert_int_equal(sb->segments_count, 12);
	assert_int_equal(sb->segments_prepared, 0);
	assert_int_equal(sb->part_bytes, MiB(1));
	assert_int_equal(sb->weight, MiB(100));
}

static unsigned g_progress_calls;
static uint64_t g_progress_done;

static void
progress(void *arg, uint64_t done, uint64_t total)
{
	(void)arg;
	g_progress_calls++;
	assert_true(done >= g_progress_done && done <= total);
	g_progress_done = done;
	if (done == total) {
		g_progress_calls += 1000000;
	}
}

static void
test_prepare_and_shards(void **state)
{
	struct fixture *f = *state;

	assert_int_equal(format(f, (struct format_options){ .size_bytes = MiB(140),
							    .segment_bytes = MiB(16),
							    .shards_count = 2,
							    .prepare = true,
							    .progress = progress }),
			 0);
	assert_true(g_progress_calls > 1000000);
	assert_int_equal(read_slices(f), 0);
	assert_int_equal(f->count, 2);
	for (uint32_t i = 0; i < 2; i++) {
		assert_int_equal(f->slices[i].shard_idx, i);
		assert_int_equal(f->slices[i].slice_off_bytes, i * MiB(70));
		assert_int_equal(f->slices[i].segments_count, 4);
		assert_int_equal(f->slices[i].segments_prepared, 4);
	}
	assert_memory_not_equal(f->slices[0].shard_uuid, f->slices[1].shard_uuid, 16);
	/* A slice other than the first that lost both copies is a row without segments. */
	flip(f, MiB(70) + 3);
	assert_int_equal(read_slices(f), 0);
	assert_int_equal(f->slices[1].segments_count, 4);
	flip(f, MiB(70) + SUPERBLOCK_B_OFF + 3);
	assert_int_equal(read_slices(f), 0);
	assert_int_equal(f->slices[1].segments_count, 0);
	assert_int_equal(f->slices[0].segments_count, 4);
}

static bool
stop(void *arg)
{
	(void)arg;
	return true;
}

static void
test_sizes(void **state)
{
	struct fixture *f = *state;
	struct stat st;

	assert_int_equal(format(f, (struct format_options){ 0 }), -EINVAL);
	assert_non_null(strstr(f->detail, "size is wanted"));
	assert_int_equal(format(f, (struct format_options){ .size_bytes = MiB(32) }), -HR_ESIZE);
	assert_non_null(strstr(f->detail, "33 MiB"));
	/* More pages than an index entry can name. */
	assert_int_equal(format(f, (struct format_options){ .size_bytes = UINT64_C(40) << 40 }),
			 -HR_ESIZE);
	assert_non_null(strstr(f->detail, "at least 2 shards"));
	assert_int_equal(format(f, (struct format_options){ .size_bytes = MiB(256),
							    .segment_bytes = MiB(64) }),
			 -HR_ESIZE);
	assert_int_equal(format(f, (struct format_options){ .size_bytes = MiB(256),
							    .segment_bytes = MiB(12) }),
			 -EINVAL);
	assert_int_equal(format(f, (struct format_options){ .size_bytes = MiB(256),
							    .segment_bytes = MiB(4) }),
			 -EINVAL);
	assert_int_equal(format(f, (struct format_options){ .size_bytes = MiB(256),
							    .shards_count = 65 }),
			 -EINVAL);
	assert_int_equal(format(f, (struct format_options){ .size_bytes = MiB(64),
							    .shards_count = 2 }),
			 -HR_ESIZE);
	assert_int_equal(format(f, (struct format_options){ .size_bytes = MiB(64), .stop = stop }),
			 -EINTR);
	assert_int_equal(format(f, (struct format_options){ .size_bytes = (uint64_t)1 << 50,
							    .shards_count = 64 }),
			 -EFBIG);
	assert_int_equal(stat(f->path, &st), -1); /* none of them left a file behind */
	assert_int_equal(format(f, (struct format_options){ .size_bytes = MiB(33) }), 0);
	assert_int_equal(truncate(f->path, (off_t)MiB(33) - 1), 0);
	assert_int_equal(read_slices(f), -HR_ESIZE);
	assert_non_null(strstr(f->detail, "34603008"));
	assert_int_equal(truncate(f->path, 100), 0);
	assert_int_equal(read_slices(f), -HR_EFOREIGN);
}

static void
test_foreign(void **state)
{
	static const struct {
		off_t off;
		const char *bytes;
		size_t len;
		const char *name;
	} kinds[] = {
		{ 0x438, "\x53\xef", 2, "ext4" },
		{ 0, "XFSB", 4, "XFS" },
		{ 512, "EFI PART", 8, "GPT" },
		{ 512, "LABELONE", 8, "LVM" },
		{ 0x10040, "_BHRfS_M", 8, "btrfs" },
		{ 700000, "someone's", 9, "9 bytes of unknown data" },
	};
	struct fixture *f = *state;
	struct stat st;

	for (size_t i = 0; i < ARRAY_SIZE(kinds); i++) {
		unlink(f->path);
		poke(f, kinds[i].off, kinds[i].bytes, kinds[i].len);
		assert_int_equal(truncate(f->path, (off_t)MiB(40)), 0);
		assert_int_equal(format(f, (struct format_options){ .size_bytes = MiB(50) }),
				 -HR_EFOREIGN);
		assert_non_null(strstr(f->detail, kinds[i].name));
		assert_non_null(strstr(f->detail, "--force"));
		assert_int_equal(stat(f->path, &st), 0);
		assert_int_equal(st.st_size, MiB(40));
		assert_int_equal(read_slices(f), -HR_EFOREIGN);
		assert_int_equal(format(f, (struct format_options){ .size_bytes = MiB(50),
								    .force = true }),
				 0);
		assert_int_equal(read_slices(f), 0);
		assert_int_equal(f->slices[0].device_bytes, MiB(50));
	}
	/* A store is refused as well, and goes by force; a blank file of the right size needs none. */
	assert_int_equal(format(f, (struct format_options){ .size_bytes = 0 }), -HR_EFOREIGN);
	assert_non_null(strstr(f->detail, "already a Headrace device"));
	assert_int_equal(format(f, (struct format_options){ .force = true }), 0);
	unlink(f->path);
	poke(f, (off_t)MiB(40) - 1, "", 1);
	assert_int_equal(read_slices(f), -HR_EFOREIGN);
	assert_non_null(strstr(f->detail, "blank"));
	assert_int_equal(format(f, (struct format_options){ 0 }), 0);
	assert_int_equal(read_slices(f), 0);
	assert_int_equal(f->slices[0].device_bytes, MiB(40));
}

static void
test_damage(void **state)
{
	struct fixture *f = *state;

	assert_int_equal(format(f, (struct format_options){ .size_bytes = MiB(40) }), 0);
	assert_int_equal(read_slices(f), 0);
	assert_int_equal(f->slices[0].copies_damaged, 0);
	for (off_t off = 0; off < 164; off += 7) {
		flip(f, off);
		assert_int_equal(read_slices(f), 0);
		assert_int_equal(f->slices[0].copies_damaged, 1);
		flip(f, SUPERBLOCK_B_OFF + off);
		assert_int_equal(read_slices(f), -HR_ECORRUPT);
		assert_non_null(strstr(f->detail, "both superblocks"));
		flip(f, off);
		assert_int_equal(read_slices(f), 0);
		flip(f, SUPERBLOCK_B_OFF + off);
	}
}

static void
test_newer(void **state)
{
	struct fixture *f = *state;
	uint8_t page[PAGE_BYTES];
	struct superblock sb;

	assert_int_equal(format(f, (struct format_options){ .size_bytes = MiB(40) }), 0);
	assert_int_equal(read_slices(f), 0);
	sb = f->slices[0];
	sb.flags_incompat = 1;
	superblock_encode(&sb, page);
	poke(f, SUPERBLOCK_A_OFF, (char *)page, PAGE_BYTES);
	poke(f, SUPERBLOCK_B_OFF, (char *)page, PAGE_BYTES);
	assert_int_equal(read_slices(f), -HR_EVERSION);
	assert_non_null(strstr(f->detail, "made by a newer Headrace"));
	/* Cut short between its two copies. */
	superblock_encode(&f->slices[0], page);
	poke(f, SUPERBLOCK_A_OFF, (char *)page, PAGE_BYTES);
	assert_int_equal(read_slices(f), -HR_EVERSION);
	poke(f, SUPERBLOCK_B_OFF, (char *)page, PAGE_BYTES);
	assert_int_equal(read_slices(f), 0);
}

static void
written(void *arg, int rc)
{
	assert_int_equal(rc, 0);
	*(bool *)arg = true;
}

static void
test_write(void **state)
{
	struct fixture *f = *state;
	struct io_device *device;
	bool done = false;

	assert_int_equal(format(f, (struct format_options){ .size_bytes = MiB(40) }), 0);
	assert_int_equal(read_slices(f), 0);
	assert_int_equal(io_device_open(f->io, f->path, 0, &device), 0);
	f->slices[0].segments_prepared = 3;
	superblock_write(f->io, device, &f->slices[0], written, &done);
	assert_false(done);
	assert_int_equal(blocking_wait(f->io, &done), 0);
	io_device_close(device);
	for (int copy = 0; copy < 2; copy++) {
		assert_int_equal(read_slices(f), 0);
		assert_int_equal(f->slices[0].segments_prepared, 3);
		assert_int_equal(f->slices[0].sequence, 2);
		flip(f, SUPERBLOCK_A_OFF); /* the other one says the same */
	}
}

static void
test_in_use(void **state)
{
	struct fixture *f = *state;
	struct io_device *device;
	int pipe_fds[2];
	int to_child[2];
	char c;
	pid_t pid;

	assert_int_equal(format(f, (struct format_options){ .size_bytes = MiB(40) }), 0);
	assert_int_equal(pipe(pipe_fds), 0);
	assert_int_equal(pipe(to_child), 0);
	pid = fork();
	if (pid == 0) {
		struct io_options options = { .disk = IO_DISK_PREAD, .net = IO_NET_POLL };
		struct io *io;

		if (io_create(&options, &io) != 0 ||
		    io_device_open(io, f->path, IO_DEVICE_LOCK, &device) != 0 ||
		    write(pipe_fds[1], "x", 1) != 1) {
			_exit(1);
		}
		_exit(read(to_child[0], &c, 1) == 1 ? 0 : 1);
	}
	assert_int_equal(read(pipe_fds[0], &c, 1), 1);
	assert_int_equal(format(f, (struct format_options){ .size_bytes = MiB(50), .force = true }),
			 -HR_EINUSE);
	assert_non_null(strstr(f->detail, "in use"));
	assert_int_equal(read_slices(f), 0);
	assert_int_equal(f->slices[0].device_bytes, MiB(40));
	assert_int_equal(write(to_child[1], "x", 1), 1);
	waitpid(pid, NULL, 0);
	for (int i = 0; i < 2; i++) {
		close(pipe_fds[i]);
		close(to_child[i]);
	}
}

int
main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
	const struct CMUnitTest tests[] = {
		TEST(test_format), TEST(test_prepare_and_shards),
		TEST(test_sizes),  TEST(test_foreign),
		TEST(test_damage), TEST(test_newer),
		TEST(test_write),  TEST(test_in_use),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
