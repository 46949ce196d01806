/* test_host.c - file: who hosts, who takes over, and that nothing is lost on the way; devices without a store.
 *
 * Each test has a folder of its own. Other processes are this program again: "test_host hold|put|fork URL".
 */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include <headrace/headrace.h>
#include <jansson.h>

static char folder[64], url[260], image[96];

/* -- other processes -------------------------------------------------------------------------------------------------------------- */

/* Opens the store, says so on standard output, and stays until it is killed or standard input ends. */
static int
other_hold(const char *other_url)
{
	struct hr_client *client;
	char c;

	if (hr_open(other_url, NULL, &client, NULL) != 0 || hr_client_ready(client, 20000) != 0) {
		return 1;
	}
	(void)!write(1, "+", 1);
	(void)!read(0, &c, 1);
	hr_close(client);
	return 0;
}

/* The same, with a child that outlives it and keeps every descriptor. */
static int
other_fork(const char *other_url)
{
	struct hr_client *client;

	if (hr_open(other_url, NULL, &client, NULL) != 0 || hr_client_ready(client, 20000) != 0) {
		return 1;
	}
	if (fork() == 0) {
		char c;

		(void)!write(1, "+", 1);
		(void)!read(0, &c, 1); /* until the test ends */
		_exit(0);
	}
	(void)pause();
	return 0;
}

struct other {
	pid_t pid;
	int in, out;
};

static struct other
other_start(const char *what)
{
	int in[2], out[2];
	struct other other;
	char c;

	assert_int_equal(pipe2(in, O_CLOEXEC), 0);
	assert_int_equal(pipe2(out, O_CLOEXEC), 0);
	other.pid = fork();
	if (other.pid == 0) {
		(void)dup2(in[0], 0);
		(void)dup2(out[1], 1);
		execl("/proc/self/exe", "test_host", what, url, NULL);
		_exit(127);
	}
	(void)close(in[0]);
	(void)close(out[1]);
	other.in = in[1];
	other.out = out[0];
	assert_int_equal(read(other.out, &c, 1), 1);
	return other;
}

static void
other_end(struct other *other, int how)
{
	int status;

	if (how != 0) {
		(void)kill(other->pid, how);
	} else {
		(void)close(other->in);
	}
	assert_int_equal(waitpid(other->pid, &status, 0), other->pid);
	if (how != 0) {
		(void)close(other->in);
	}
	(void)close(other->out);
}

/* -- helpers ---------------------------------------------------------------------------------------------------------------------- */

static int
setup(void **state)
{
	(void)state;
	(void)snprintf(folder, sizeof(folder), "%s/hr-host-XXXXXX",
		       getenv("TMPDIR") != NULL ? getenv("TMPDIR") : "/tmp");
	assert_non_null(mkdtemp(folder));
	(void)snprintf(image, sizeof(image), "%s/a.img", folder);
	(void)snprintf(url, sizeof(url), "file:%s?size=256MiB&dram=32MiB", image);
	return 0;
}

static int
teardown(void **state)
{
	char command[128];

	(void)state;
	(void)snprintf(command, sizeof(command), "rm -rf '%s'", folder);
	return system(command);
}

static struct hr_client *
open_ready(struct hr_space **ret_space)
{
	struct hr_client *client;
	char detail[HR_DETAIL_BYTES] = "";
	int rc = hr_open(url, NULL, &client, detail);

	if (rc != 0) {
		fprintf(stderr, "# hr_open: %d %s\n", rc, detail);
	}
	assert_int_equal(rc, 0);
	assert_int_equal(hr_space_open_name(client, "test", ret_space), 0);
	return client;
}

static void
fill(uint8_t *bytes, size_t len, unsigned n)
{
	for (size_t i = 0; i < len; i++) {
		bytes[i] = (uint8_t)(i * 31 + n * 7 + (i >> 8));
	}
}

static void
put_n(struct hr_space *space, unsigned from, unsigned count, size_t len, uint8_t ack)
{
	struct hr_submit_options options;
	uint8_t *bytes = malloc(len);

	hr_submit_options_init(&options);
	options.ack = ack;
	options.deadline_us = 30 * 1000 * 1000;
	for (unsigned i = from; i < from + count; i++) {
		fill(bytes, len, i);
		assert_int_equal(hr_put(space, &i, sizeof(i), bytes, len, &options), 0);
	}
	free(bytes);
}

static void
get_n(struct hr_space *space, unsigned from, unsigned count, size_t len)
{
	struct hr_submit_options options;
	uint8_t *bytes = malloc(len), *got = malloc(len);

	hr_submit_options_init(&options);
	options.deadline_us = 30 * 1000 * 1000;
	for (unsigned i = from; i < from + count; i++) {
		size_t got_len = 0;

		fill(bytes, len, i);
		assert_int_equal(hr_get(space, &i, sizeof(i), got, len, &got_len, &options), 0);
		assert_int_equal(got_len, len);
		assert_memory_equal(bytes, got, len);
	}
	free(bytes);
	free(got);
}

/* -- tests ------------------------------------------------------------------------------------------------------------------------ */

/* Made at the first open; values of one and of several parts go in and out through shared memory; closed and opened again they are there. */
static void
test_alone(void **state)
{
	struct hr_client *client;
	struct hr_space *space;
	struct stat st;
	char path[128], *text;

	(void)state;
	client = open_ready(&space);
	put_n(space, 0, 40, 100000, HR_ACK_RAM);
	put_n(space, 100, 2, 9 << 20, HR_ACK_STABLE);
	get_n(space, 0, 40, 100000);
	get_n(space, 100, 2, 9 << 20);
	assert_int_equal(hr_stat_json(client, 10000, &text), 0);
	assert_null(strstr(text, "\"bytes_shared\": 0,"));
	assert_null(strstr(text, "\"bytes_staged\": 0,"));
	free(text);
	(void)snprintf(path, sizeof(path), "%s.sock", image);
	assert_int_equal(stat(path, &st), 0);
	assert_int_equal(st.st_mode & 0777, 0600);
	hr_close(client);
	assert_int_equal(stat(path, &st), -1);
	client = open_ready(&space);
	get_n(space, 0, 40, 100000);
	get_n(space, 100, 2, 9 << 20);
	hr_close(client);
}

/* Borrowed pages are the block's, stay while others write, and come back. */
static void
test_borrow(void **state)
{
	struct hr_client *client;
	struct hr_space *space;
	uint8_t *bytes = malloc(3 << 20);
	unsigned key = 5;
	struct hr_item item = { .key = &key, .key_len = sizeof(key), .flags = HR_GET_BORROW };
	struct hr_completion done;
	size_t at = 0;

	(void)state;
	client = open_ready(&space);
	put_n(space, key, 1, 3 << 20, HR_ACK_STABLE);
	assert_int_equal(hr_wait(client, hr_submit(space, HR_OP_GET, &item, 1, NULL), 20000, &done),
			 0);
	assert_int_equal(item.status, HR_STATUS_OK);
	assert_true(item.flags & HR_ITEM_BORROWED);
	assert_int_equal(item.bytes, 3 << 20);
	put_n(space, 100, 60, 1 << 20, HR_ACK_RAM);
	fill(bytes, 3 << 20, key);
	for (uint32_t i = 0; i < item.borrowed_count; i++) {
		assert_memory_equal(item.borrowed[i].iov_base, bytes + at, item.borrowed[i].iov_len);
		at += item.borrowed[i].iov_len;
	}
	assert_int_equal(at, 3 << 20);
	assert_int_equal(hr_release(space, &item, 1), 0);
	assert_false(item.flags & HR_ITEM_BORROWED);
	hr_close(client);
	free(bytes);
}

/* Memory that is registered with its memfd is taken from where it lies. */
static void
test_register(void **state)
{
	struct hr_client *client;
	struct hr_space *space;
	int fd = memfd_create("test", MFD_CLOEXEC | MFD_ALLOW_SEALING);
	uint8_t *base;
	char *text;

	(void)state;
	assert_int_equal(ftruncate(fd, 1 << 20), 0);
	base = mmap(NULL, 1 << 20, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	client = open_ready(&space);
	assert_int_equal(hr_register(client, base, 1 << 20, fd), -EINVAL); /* not sealed */
	assert_int_equal(fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK), 0);
	assert_int_equal(hr_register(client, base, 1 << 20, fd), 0);
	assert_int_equal(hr_client_ready(client, 20000), 0);
	fill(base + 4096, 500000, 9);
	assert_int_equal(hr_put(space, &(unsigned){ 9 }, sizeof(unsigned), base + 4096, 500000,
				NULL),
			 0);
	get_n(space, 9, 1, 500000);
	assert_int_equal(hr_stat_json(client, 10000, &text), 0);
	assert_non_null(strstr(text, "\"bytes_staged\": 0,"));
	free(text);
	assert_int_equal(hr_unregister(client, base), 0);
	put_n(space, 10, 3, 100000, HR_ACK_RAM);
	get_n(space, 10, 3, 100000);
	hr_close(client);
	(void)munmap(base, 1 << 20);
	(void)close(fd);
}

/* Memory that a node must not touch costs the caller an error, or nothing, and never the connection. */
static void
test_register_unusable(void **state)
{
	struct hr_client *client;
	struct hr_space *space;
	int fd = memfd_create("test", MFD_CLOEXEC | MFD_ALLOW_SEALING);
	int huge = memfd_create("test", MFD_CLOEXEC | MFD_ALLOW_SEALING | MFD_HUGETLB);
	static uint8_t memory[2 << 20];
	char detail[HR_DETAIL_BYTES];

	(void)state;
	client = open_ready(&space);
	assert_int_equal(ftruncate(fd, 4096), 0);
	assert_int_equal(fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK), 0);
	assert_int_equal(hr_register(client, memory, sizeof(memory), fd), -EINVAL);
	hr_client_detail(client, detail, sizeof(detail));
	assert_non_null(strstr(detail, "2097152 bytes"));
	put_n(space, 1, 3, 100000, HR_ACK_RAM);
	if (huge >= 0 && ftruncate(huge, sizeof(memory)) == 0) {
		assert_int_equal(fcntl(huge, F_ADD_SEALS, F_SEAL_SHRINK), 0);
		assert_int_equal(hr_register(client, memory, sizeof(memory), huge), 0);
		put_n(space, 10, 3, 100000, HR_ACK_RAM);
		assert_int_equal(hr_unregister(client, memory), 0);
	}
	get_n(space, 1, 3, 100000);
	hr_close(client);
	(void)close(fd);
	(void)close(huge);
}

/* Two handles of one process share one host; the first may go first. */
static void
test_two_handles(void **state)
{
	struct hr_client *a, *b;
	struct hr_space *space_a, *space_b;

	(void)state;
	a = open_ready(&space_a);
	b = open_ready(&space_b);
	put_n(space_a, 0, 10, 50000, HR_ACK_RAM);
	get_n(space_b, 0, 10, 50000);
	hr_close(a);
	get_n(space_b, 0, 10, 50000);
	put_n(space_b, 10, 10, 50000, HR_ACK_RAM);
	hr_close(b);
}

/* Another process hosts and is killed: what was stable is there, at once, in the same handle; and again when it left by itself. */
static void
test_take_over(void **state)
{
	struct hr_client *client;
	struct hr_space *space;

	(void)state;
	for (int round = 0; round < 4; round++) {
		struct other other = other_start("hold");

		client = open_ready(&space);
		if (round > 0) {
			get_n(space, 0, (unsigned)round * 10, 70000);
		}
		put_n(space, (unsigned)round * 10, 10, 70000, HR_ACK_STABLE);
		other_end(&other, round % 2 == 0 ? SIGKILL : 0);
		get_n(space, 0, (unsigned)round * 10 + 10, 70000);
		hr_close(client);
	}
}

/* The host forked and was killed; its child keeps the sockets open and answers nothing. The lock tells the truth. */
static void
test_take_over_from_forked(void **state)
{
	struct other other = other_start("fork");
	struct hr_client *client;
	struct hr_space *space;

	(void)state;
	client = open_ready(&space);
	put_n(space, 0, 10, 70000, HR_ACK_STABLE);
	(void)kill(other.pid, SIGKILL);
	assert_int_equal(waitpid(other.pid, NULL, 0), other.pid);
	get_n(space, 0, 10, 70000);
	put_n(space, 10, 10, 70000, HR_ACK_STABLE);
	hr_close(client);
	(void)close(other.in);
	(void)close(other.out);
}

/* A child of the hosting process opens the store anew; the parent still hosts when it has gone. */
static void
test_child_of_host(void **state)
{
	struct hr_client *client;
	struct hr_space *space;
	struct other other;
	int status;
	pid_t pid;
#ifdef __SANITIZE_THREAD__
	skip(); /* it does not take threads behind a fork */
#endif

	(void)state;
	client = open_ready(&space);
	put_n(space, 0, 5, 1000, HR_ACK_RAM);
	pid = fork();
	if (pid == 0) {
		struct hr_client *own;
		struct hr_space *own_space;
		char buf[1000];
		size_t len = 0;
		unsigned key = 3;
		int bad = hr_open(url, NULL, &own, NULL) != 0;

		bad |= hr_space_open_name(own, "test", &own_space) != 0;
		bad |= (hr_get(own_space, &key, sizeof(key), buf, sizeof(buf), &len, NULL) != 0)
		       << 1;
		hr_close(own);
		_exit(bad);
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
	get_n(space, 0, 5, 1000);
	other = other_start(
	    "hold"); /* would host if the lock had been lost, and would find the device in use */
	get_n(space, 0, 5, 1000);
	other_end(&other, 0);
	hr_close(client);
}

/* Errors are errors at once, and name the thing. */
static void
test_errors(void **state)
{
	struct hr_client *client;
	char detail[HR_DETAIL_BYTES], bad[160];
	struct hr_space *space;
	int fd;

	(void)state;
	(void)snprintf(bad, sizeof(bad), "file:%s/none.img", folder);
	assert_int_equal(hr_open(bad, NULL, &client, detail), -ENOENT);
	assert_non_null(strstr(detail, "size="));
	(void)snprintf(bad, sizeof(bad), "file:%s/no/none.img?size=1GiB", folder);
	assert_int_equal(hr_open(bad, NULL, &client, detail), -ENOENT);
	(void)snprintf(bad, sizeof(bad), "%s/foreign", folder);
	fd = open(bad, O_CREAT | O_RDWR, 0600);
	assert_int_equal(ftruncate(fd, 64 << 20), 0);
	assert_int_equal(pwrite(fd, "SQLite format 3", 16, 0), 16);
	(void)close(fd);
	(void)snprintf(bad, sizeof(bad), "file:%s/foreign", folder);
	assert_int_equal(hr_open(bad, NULL, &client, detail), -HR_EFOREIGN);
	assert_non_null(strstr(detail, "foreign"));
	client = open_ready(&space);
	hr_close(client);
	(void)snprintf(bad, sizeof(bad), "file:%s?size=1GiB", image);
	assert_int_equal(hr_open(bad, NULL, &client, detail), 0);
	assert_non_null(strstr(detail, "256MiB"));
	hr_client_detail(client, detail, sizeof(detail));
	assert_non_null(strstr(detail, "1GiB"));
	hr_close(client);
}

/* As many items as a batch may have, in one; more than the staging memory holds; through small inflight windows of the server. */
static void
test_large_batch(void **state)
{
	enum { COUNT = HR_BATCH_ITEMS_MAX, LEN = 5000 };
	struct hr_item *items = calloc(COUNT, sizeof(*items));
	struct iovec *iov = calloc(COUNT, sizeof(*iov));
	unsigned *keys = calloc(COUNT, sizeof(*keys));
	uint8_t *in = malloc((size_t)COUNT * LEN), *out = calloc(COUNT, LEN);
	struct hr_submit_options options;
	struct hr_completion done;
	struct hr_client *client;
	struct hr_space *space;

	(void)state;
	(void)snprintf(url, sizeof(url), "file:%s?size=512MiB&dram=192MiB&shards=2", image);
	client = open_ready(&space);
	hr_submit_options_init(&options);
	options.deadline_us = 60 * 1000 * 1000;
	for (unsigned i = 0; i < COUNT; i++) {
		keys[i] = i;
		fill(in + (size_t)i * LEN, LEN, i);
		iov[i] = (struct iovec){ in + (size_t)i * LEN, LEN };
		items[i] = (struct hr_item){
			.key = &keys[i], .key_len = sizeof(keys[i]), .iov = &iov[i], .iov_count = 1
		};
	}
	for (unsigned left = COUNT; left > 0;) { /* busy is an answer: those are asked again */
		unsigned n = 0;

		assert_int_equal(hr_wait(client, hr_submit(space, HR_OP_PUT, items, left, &options),
					 UINT32_MAX, &done),
				 0);
		for (unsigned i = 0; i < left; i++) {
			if (items[i].status != HR_STATUS_OK) {
				assert_int_equal(items[i].reason, HR_REASON_BUSY);
				items[n++] = items[i];
			}
		}
		left = n;
	}
	for (unsigned i = 0; i < COUNT; i++) {
		iov[i].iov_base = out + (size_t)i * LEN;
		items[i] = (struct hr_item){
			.key = &keys[i], .key_len = sizeof(keys[i]), .iov = &iov[i], .iov_count = 1
		};
	}
	assert_int_equal(hr_wait(client, hr_submit(space, HR_OP_EXISTS, items, COUNT, &options),
				 UINT32_MAX, &done),
			 0);
	assert_int_equal(done.prefix_count, COUNT);
	assert_int_equal(hr_wait(client, hr_submit(space, HR_OP_GET, items, COUNT, &options),
				 UINT32_MAX, &done),
			 0);
	assert_int_equal(done.ok_count, COUNT);
	assert_memory_equal(in, out, (size_t)COUNT * LEN);
	hr_close(client);
	free(items);
	free(iov);
	free(keys);
	free(in);
	free(out);
}

/* Somebody who is no host of ours has the device: an error that says so. */
static void
test_in_use(void **state)
{
	struct hr_client *client;
	struct hr_space *space;
	struct flock lock = { .l_type = F_WRLCK, .l_whence = SEEK_SET };
	char detail[HR_DETAIL_BYTES], path[128];
	int ready[2], end[2], fd;
	pid_t pid;
	char c;

	(void)state;
	client = open_ready(&space);
	hr_close(client);
	assert_int_equal(pipe(ready), 0);
	assert_int_equal(pipe(end), 0);
	pid = fork();
	if (pid == 0) { /* as headraced would hold it */
		(void)snprintf(path, sizeof(path), "%s.lock", image);
		fd = open(path, O_RDWR);
		c = fcntl(fd, F_SETLK, &lock) == 0 ? '+' : '-';
		(void)!write(ready[1], &c, 1);
		(void)close(end[1]);
		(void)!read(end[0], &c, 1);
		_exit(0);
	}
	assert_int_equal(read(ready[0], &c, 1), 1);
	assert_int_equal(c, '+');
	assert_int_equal(hr_open(url, NULL, &client, detail), -HR_EINUSE);
	assert_non_null(strstr(detail, "a.img"));
	(void)kill(pid, SIGKILL);
	(void)waitpid(pid, NULL, 0);
	client = open_ready(&space);
	hr_close(client);
	for (int i = 0; i < 2; i++) {
		(void)close(ready[i]);
		(void)close(end[i]);
	}
}

/* Somebody removes the lock's file: the device is not opened twice. */
static void
test_lock_removed(void **state)
{
	struct hr_client *a, *b;
	struct hr_space *space;
	char detail[HR_DETAIL_BYTES], path[128];

	(void)state;
	a = open_ready(&space);
	put_n(space, 0, 3, 1000, HR_ACK_RAM);
	(void)snprintf(path, sizeof(path), "%s.host", image);
	assert_int_equal(unlink(path), 0);
	assert_int_equal(hr_open(url, NULL, &b, detail), -HR_EINUSE);
	assert_non_null(strstr(detail, "removed"));
	get_n(space, 0, 3, 1000);
	hr_close(a);
}

/* A name that is too long for a socket's address, and a symbolic link to it. */
static void
test_names(void **state)
{
	struct hr_client *a, *b;
	struct hr_space *space_a, *space_b;
	char path[220], link_path[100], link_url[160];

	(void)state;
	(void)snprintf(path, sizeof(path), "%s/%0120d.img", folder, 7);
	(void)snprintf(link_path, sizeof(link_path), "%s/link", folder);
	assert_int_equal(symlink(path, link_path), 0);
	(void)snprintf(url, sizeof(url), "file:%s?size=128MiB&dram=16MiB", path);
	(void)snprintf(link_url, sizeof(link_url), "file:%s", link_path);
	assert_int_equal(hr_open(url, NULL, &a, NULL), 0);
	assert_int_equal(hr_open(link_url, NULL, &b, NULL), 0);
	assert_int_equal(hr_space_open_name(a, "test", &space_a), 0);
	assert_int_equal(hr_space_open_name(b, "test", &space_b), 0);
	put_n(space_a, 0, 3, 1000, HR_ACK_RAM);
	get_n(space_b, 0, 3, 1000);
	hr_close(a);
	hr_close(b);
}

/* format, put, check. */
static void
test_format_and_check(void **state)
{
	struct hr_format_options format;
	struct hr_client *client;
	struct hr_space *space;
	char detail[HR_DETAIL_BYTES], *text;
	struct other other;
	json_t *json;

	(void)state;
	hr_format_options_init(&format);
	format.size_bytes = 128 << 20;
	assert_int_equal(hr_format(image, &format, detail), 0);
	assert_int_equal(hr_format(image, &format, detail), -HR_EFOREIGN);
	client = open_ready(&space);
	put_n(space, 0, 20, 50000, HR_ACK_STABLE);
	hr_close(client);
	other = other_start("hold");
	assert_int_equal(hr_check(image, NULL, &text, detail), -HR_EINUSE);
	other_end(&other, SIGKILL);
	assert_int_equal(hr_check(image, NULL, &text, detail), 0);
	json = json_loads(text, 0, NULL);
	assert_int_equal(json_integer_value(json_object_get(json, "blocks")), 20);
	assert_int_equal(json_integer_value(json_object_get(json, "bytes")), 20 * 50000);
	assert_int_equal(json_integer_value(json_object_get(json, "damaged")), 0);
	assert_true(json_integer_value(json_object_get(json, "segments")) > 0);
	assert_int_equal(json_array_size(json_object_get(json, "spaces")), 1);
	json_decref(json);
	free(text);
}

/* What is asked of spaces: list, usage, drop; and LIST of blocks, page by page. */
static void
test_space_calls(void **state)
{
	struct hr_client *client;
	struct hr_space *space, *other;
	struct hr_space_info *infos, info;
	struct hr_list_cursor *cursor = NULL;
	struct hr_list_entry *entries;
	size_t count, total = 0;
	uint64_t bytes = 0;

	(void)state;
	(void)snprintf(url, sizeof(url), "file:%s?size=512MiB&dram=64MiB&shards=3", image);
	client = open_ready(&space);
	assert_int_equal(hr_space_open_name(client, "other", &other), 0);
	put_n(space, 0, 50, 3000, HR_ACK_STABLE);
	put_n(other, 0, 7, 10, HR_ACK_STABLE);
	assert_int_equal(hr_space_list(client, 10000, &infos, &count), 0);
	assert_int_equal(count, 2);
	assert_int_equal(infos[0].blocks + infos[1].blocks, 57);
	free(infos);
	assert_int_equal(hr_space_usage(space, 10000, &info), 0);
	assert_int_equal(info.blocks, 50);
	assert_string_equal(info.label, "test");
	assert_int_equal(hr_space_set(space, 30 << 20, UINT64_MAX, 10000), 0);
	assert_int_equal(hr_space_usage(space, 10000, &info), 0);
	assert_in_range(info.quota_bytes, 30 << 20, (30 << 20) + 3);
	do {
		assert_int_equal(hr_list(space, &cursor, 8, 10000, &entries, &count), 0);
		for (size_t i = 0; i < count; i++) {
			assert_int_equal(entries[i].key_len, sizeof(unsigned));
			bytes += entries[i].bytes;
		}
		total += count;
		free(entries);
	} while (count > 0);
	assert_null(cursor);
	assert_int_equal(total, 50);
	assert_int_equal(bytes, 50 * 3000);
	assert_int_equal(hr_space_drop(space, 10000), 0);
	assert_int_equal(hr_exists(space, &(unsigned){ 3 }, sizeof(unsigned), NULL, NULL),
			 HR_REASON_ABSENT);
	get_n(other, 0, 7, 10);
	hr_close(client);
}

/* No route is known: every shard is asked. */
static void
test_all_shards(void **state)
{
	struct hr_client *client;
	struct hr_space *space;
	struct hr_item items[32];
	unsigned keys[32];
	char values[32][16], got[32][16];
	struct iovec in[32], out[32];
	struct hr_completion done;

	(void)state;
	(void)snprintf(url, sizeof(url), "file:%s?size=512MiB&dram=64MiB&shards=3", image);
	client = open_ready(&space);
	memset(items, 0, sizeof(items));
	for (unsigned i = 0; i < 32; i++) {
		keys[i] = i;
		memset(values[i], (int)i + 1, 16);
		in[i] = (struct iovec){ values[i], 16 };
		out[i] = (struct iovec){ got[i], 16 };
		items[i] = (struct hr_item){ .key = &keys[i],
					     .key_len = sizeof(keys[i]),
					     .iov = &in[i],
					     .iov_count = 1,
					     .flags = HR_ITEM_ROUTE,
					     .route = 0x1234567 * (i / 4 + 1) };
	}
	assert_int_equal(hr_wait(client, hr_submit(space, HR_OP_PUT, items, 32, NULL), 20000, &done),
			 0);
	assert_int_equal(done.ok_count, 32);
	for (unsigned i = 0; i < 32; i++) {
		items[i].iov = &out[i];
		items[i].flags = HR_ITEM_ALL_SHARDS;
	}
	assert_int_equal(hr_wait(client, hr_submit(space, HR_OP_GET, items, 32, NULL), 20000, &done),
			 0);
	assert_int_equal(done.ok_count, 32);
	assert_memory_equal(values, got, sizeof(values));
	for (unsigned i = 0; i < 32; i++) {
		items[i].flags = HR_ITEM_ALL_SHARDS;
	}
	assert_int_equal(hr_wait(client, hr_submit(space, HR_OP_DELETE, items, 32, NULL), 20000,
				 &done),
			 0);
	assert_int_equal(done.ok_count, 32);
	for (unsigned i = 0; i < 32; i++) {
		items[i].flags = HR_ITEM_ALL_SHARDS;
	}
	assert_int_equal(hr_wait(client, hr_submit(space, HR_OP_EXISTS, items, 32, NULL), 20000,
				 &done),
			 0);
	assert_int_equal(done.ok_count, 0);
	assert_int_equal(items[7].reason, HR_REASON_DELETED);
	hr_close(client);
}

int
main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_alone, setup, teardown),
		cmocka_unit_test_setup_teardown(test_borrow, setup, teardown),
		cmocka_unit_test_setup_teardown(test_register, setup, teardown),
		cmocka_unit_test_setup_teardown(test_register_unusable, setup, teardown),
		cmocka_unit_test_setup_teardown(test_two_handles, setup, teardown),
		cmocka_unit_test_setup_teardown(test_take_over, setup, teardown),
		cmocka_unit_test_setup_teardown(test_take_over_from_forked, setup, teardown),
		cmocka_unit_test_setup_teardown(test_child_of_host, setup, teardown),
		cmocka_unit_test_setup_teardown(test_errors, setup, teardown),
		cmocka_unit_test_setup_teardown(test_large_batch, setup, teardown),
		cmocka_unit_test_setup_teardown(test_in_use, setup, teardown),
		cmocka_unit_test_setup_teardown(test_lock_removed, setup, teardown),
		cmocka_unit_test_setup_teardown(test_names, setup, teardown),
		cmocka_unit_test_setup_teardown(test_format_and_check, setup, teardown),
		cmocka_unit_test_setup_teardown(test_space_calls, setup, teardown),
		cmocka_unit_test_setup_teardown(test_all_shards, setup, teardown),
	};

	if (argc == 3) {
		return strcmp(argv[1], "fork") == 0 ? other_fork(argv[2]) : other_hold(argv[2]);
	}
	return cmocka_run_group_tests(tests, NULL, NULL);
}
