/* test_space.c - the space table: durable before it answers, both slots brought up to date, numbers never given twice.
 *
 * Method: change the table, look at what a fresh load of the same file finds, also with either slot damaged.
 */
#include "engine/space.h"

#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include <headrace/error.h>

#include <cmocka.h>

#include "engine/blocking.h"
#include "engine/layout.h"

struct fixture {
	struct io *io;
	struct io_device *device;
	struct superblock slices[SLICES_MAX];
	struct space_table *table;
	char path[64];
	char detail[DETAIL_BYTES];
};

static const uint8_t tenant0[16];
static const uint8_t tenant1[16] = { 1 };

static void
reload(struct fixture *f)
{
	while (f->table != NULL && space_table_busy(f->table)) {
		io_run(f->io, UINT64_MAX);
	}
	space_table_destroy(f->table);
	assert_int_equal(space_table_create(f->io, f->device, &f->slices[0], &f->table), 0);
	assert_int_equal(space_table_load(f->table, f->detail), 0);
}

static int
setup(void **state)
{
	struct fixture *f = calloc(1, sizeof(*f));
	struct io_options options = { .disk = IO_DISK_PREAD, .net = IO_NET_POLL };
	struct format_options format = { .size_bytes = MiB(33) };
	uint32_t count;

	strcpy(f->path, "/tmp/hr_space_XXXXXX");
	close(mkstemp(f->path));
	assert_int_equal(io_create(&options, &f->io), 0);
	assert_int_equal(device_format(f->io, f->path, &format, f->detail), 0);
	assert_int_equal(io_device_open(f->io, f->path, 0, &f->device), 0);
	assert_int_equal(device_superblocks_read(f->io, f->device, f->slices, &count, f->detail), 0);
	reload(f);
	*state = f;
	return 0;
}

static int
teardown(void **state)
{
	struct fixture *f = *state;
	char lock[80];

	while (space_table_busy(f->table)) {
		io_run(f->io, UINT64_MAX);
	}
	space_table_destroy(f->table);
	io_device_close(f->device);
	io_destroy(f->io);
	unlink(f->path);
	snprintf(lock, sizeof(lock), "%s.lock", f->path);
	unlink(lock);
	free(f);
	return 0;
}

struct answer {
	bool done;
	int rc;
	struct space_row *row;
};

static void
opened(void *arg, int rc, struct space_row *row)
{
	struct answer *a = arg;

	assert_false(a->done);
	*a = (struct answer){ true, rc, row };
}

static void
changed(void *arg, int rc)
{
	opened(arg, rc, NULL);
}

static struct space_row *
open_wait(struct fixture *f, const uint8_t *tenant, uint8_t digest_first, const char *label)
{
	uint8_t digest[32] = { digest_first };
	struct answer a = { 0 };

	space_open(f->table, tenant, digest, label, opened, &a);
	assert_false(a.done); /* never inside the call */
	assert_int_equal(blocking_wait(f->io, &a.done), 0);
	assert_int_equal(a.rc, 0);
	return a.row;
}

static void
slot_flip(struct fixture *f, int slot)
{
	int fd = open(f->path, O_RDWR);
	off_t off = (slot == 0 ? SPACE_TABLE_A_OFF : SPACE_TABLE_B_OFF) + 33;
	char c;

	assert_int_equal(pread(fd, &c, 1, off), 1);
	c ^= 1;
	assert_int_equal(pwrite(fd, &c, 1, off), 1);
	close(fd);
}

static void
test_open(void **state)
{
	struct fixture *f = *state;
	uint8_t digest[32] = { 7 };
	struct space_row *row;
	uint32_t cursor = 0;

	assert_null(space_find(f->table, tenant0, digest));
	row = open_wait(f, tenant0, 7, "llama");
	assert_int_equal(row->number, 1);
	assert_int_equal(row->generation, 1);
	assert_ptr_equal(open_wait(f, tenant0, 7, "other"), row);
	assert_int_equal(open_wait(f, tenant1, 7, NULL)->number, 2);
	reload(f);
	assert_int_equal(space_table_slots_damaged(f->table), 0);
	row = space_find(f->table, tenant0, digest);
	assert_non_null(row);
	assert_string_equal(row->label, "llama");
	assert_ptr_equal(space_by_number(f->table, 1), row);
	assert_memory_equal(space_by_number(f->table, 2)->tenant, tenant1, 16);
	assert_null(space_by_number(f->table, 3));
	assert_int_equal(space_next(f->table, &cursor)->number, 1);
	assert_int_equal(space_next(f->table, &cursor)->number, 2);
	assert_null(space_next(f->table, &cursor));
	assert_int_equal(space_count(f->table), 2);
}

/* Many changes while one write is under way: all are answered, few writes are made. */
static void
test_coalescing(void **state)
{
	struct fixture *f = *state;
	struct answer answers[100] = { 0 };
	struct io_counters before;
	struct io_counters after;

	io_counters_get(f->io, &before);
	for (int i = 0; i < 100; i++) {
		uint8_t digest[32] = { (uint8_t)i };

		space_open(f->table, tenant0, digest, NULL, opened, &answers[i]);
		assert_null(space_find(f->table, tenant0, digest)); /* invisible until durable */
	}
	for (int i = 0; i < 100; i++) {
		assert_int_equal(blocking_wait(f->io, &answers[i].done), 0);
		assert_int_equal(answers[i].rc, 0);
		assert_int_equal(answers[i].row->number, i + 1);
	}
	reload(f);
	io_counters_get(f->io, &after);
	assert_true(after.device_writes - before.device_writes <= 4);
	assert_int_equal(space_count(f->table), 100);
}

/* The last change is in both slots once the table is idle, whichever of them is damaged. */
static void
test_both_slots(void **state)
{
	struct fixture *f = *state;

	for (int slot = 0; slot < 2; slot++) {
		struct space_row *row = open_wait(f, tenant0, 7, "x");
		struct answer a = { 0 };
		uint32_t generation = row->generation;

		space_drop(f->table, row, 50, 9, changed, &a);
		assert_int_equal(row->generation, generation + 1);
		assert_int_equal(blocking_wait(f->io, &a.done), 0);
		assert_int_equal(a.rc, 0);
		while (space_table_busy(f->table)) {
			io_run(f->io, UINT64_MAX);
		}
		slot_flip(f, slot);
		reload(f);
		assert_int_equal(space_table_slots_damaged(f->table), 1);
		row = space_by_number(f->table, 1);
		assert_int_equal(row->generation, generation + 1);
		assert_int_equal(row->drop_birth, 50);
		assert_int_equal(row->drop_generation, 9);
		slot_flip(f, slot);
	}
	slot_flip(f, 0);
	slot_flip(f, 1);
	space_table_destroy(f->table);
	assert_int_equal(space_table_create(f->io, f->device, &f->slices[0], &f->table), 0);
	assert_int_equal(space_table_load(f->table, f->detail), -HR_ECORRUPT);
	assert_non_null(strstr(f->detail, "both copies"));
}

static void
test_set(void **state)
{
	struct fixture *f = *state;
	struct space_row *row = open_wait(f, tenant0, 7, "x");
	struct answer a = { 0 };
	char label[80];

	memset(label, 'a', sizeof(label));
	memcpy(label + 62, "\xc3\xa9", 2); /* an é across the end */
	label[79] = 0;
	space_set(f->table, row, 5, UINT64_MAX, label, changed, &a);
	assert_int_equal(blocking_wait(f->io, &a.done), 0);
	reload(f);
	row = space_by_number(f->table, 1);
	assert_int_equal(row->quota_bytes, 5);
	assert_int_equal(row->pin_budget_bytes, 0);
	assert_int_equal(strlen(row->label), 62);
}

/* Method: rows that are used, that have a setting, or dead records, stay; the others go, and their numbers with them. */
static void
test_trim(void **state)
{
	struct space_row *idle[SPACE_ROWS_MAX], *row;
	struct fixture *f = *state;
	struct answer a = { 0 };

	row = open_wait(f, tenant0, 7, "user");
	row->users++;
	open_wait(f, tenant0, 8, "dead records")->used = true;
	space_set(f->table, open_wait(f, tenant0, 9, "quota"), 5, UINT64_MAX, NULL, changed, &a);
	assert_int_equal(blocking_wait(f->io, &a.done), 0);
	open_wait(f, tenant0, 10, "blocks")->usage_blocks = 1;
	open_wait(f, tenant0, 11, "nothing");
	assert_int_equal(space_table_trim(f->table, idle), 1);
	assert_int_equal(space_count(f->table), 4);
	assert_string_equal(idle[0]->label, "dead records");
	assert_null(space_by_number(f->table, 5));

	/* Dropped, it has none of its generation. */
	a = (struct answer){ 0 };
	space_drop(f->table, idle[0], 50, 9, changed, &a);
	idle[0]->drops_pending++; /* as the engine does */
	assert_int_equal(space_table_trim(f->table, idle), 0);
	assert_int_equal(space_count(f->table), 4);
	assert_int_equal(blocking_wait(f->io, &a.done), 0);
	space_by_number(f->table, 2)->drops_pending--;
	row->users--;
	assert_int_equal(space_table_trim(f->table, idle), 0);
	assert_int_equal(space_count(f->table), 2);
	reload(f);
	assert_int_equal(space_count(f->table), 2);
	assert_non_null(space_by_number(f->table, 3));
	assert_int_equal(open_wait(f, tenant0, 8, "again")->number,
			 6); /* numbers are never reused */
}

static void
test_full(void **state)
{
	struct fixture *f = *state;
	struct answer *answers = calloc(SPACE_ROWS_MAX + 1, sizeof(*answers));

	for (uint32_t i = 0; i <= SPACE_ROWS_MAX; i++) {
		uint8_t digest[32] = { (uint8_t)i, (uint8_t)(i >> 8) };

		space_open(f->table, tenant0, digest, NULL, opened, &answers[i]);
	}
	for (uint32_t i = 0; i <= SPACE_ROWS_MAX; i++) {
		assert_int_equal(blocking_wait(f->io, &answers[i].done), 0);
		assert_int_equal(answers[i].rc, i < SPACE_ROWS_MAX ? 0 : -ENOSPC);
	}
	reload(f);
	assert_int_equal(space_count(f->table), SPACE_ROWS_MAX);
	free(answers);
}

int
main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
	const struct CMUnitTest tests[] = {
		TEST(test_open), TEST(test_coalescing), TEST(test_both_slots),
		TEST(test_set),	 TEST(test_trim),	TEST(test_full),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
