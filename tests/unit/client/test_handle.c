/* test_handle.c - the public handle with its real thread, against a node in another thread of this process, over a real socket. */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include <headrace/headrace.h>
#include <jansson.h>

#include "lib/fakenode.h"

struct rig {
	struct io *io;
	struct fakenode node;
	pthread_t thread;
	atomic_bool stop;
	_Atomic unsigned want; /* what the node is to become; see node_thread() */
	_Atomic unsigned is;
	char url[96];
	struct hr_client *client;
	struct hr_space *space;
};

enum { NODE_GOOD, NODE_SILENT, NODE_BROKEN };

static void *
node_thread(void *arg)
{
	struct rig *rig = arg;

	while (!rig->stop) {
		unsigned want = rig->want;

		if (want != rig->is) {
			rig->node.silent = want == NODE_SILENT;
			if (want == NODE_BROKEN) {
				fakenode_break(&rig->node);
			}
			rig->is = want;
		}
		(void)io_run(rig->io, 20000);
	}
	fakenode_stop(&rig->node);
	(void)io_run(rig->io, 0);
	(void)io_run(rig->io, 0);
	return NULL;
}

static void
node_become(struct rig *rig, unsigned what)
{
	rig->want = what;
	io_wake(rig->io);
	while (rig->is != what) {
		(void)usleep(500);
	}
}

static int
rig_setup(void **state)
{
	struct io_options options = { .disk = IO_DISK_PREAD, .net = IO_NET_POLL };
	struct rig *rig = calloc(1, sizeof(*rig));

	assert_int_equal(io_create(&options, &rig->io), 0);
	assert_int_equal(fakenode_start(rig->io, "tcp:127.0.0.1:0", 1 << 20, &rig->node), 0);
	(void)snprintf(rig->url, sizeof(rig->url), "%s", io_listener_address(rig->node.listener));
	assert_int_equal(pthread_create(&rig->thread, NULL, node_thread, rig), 0);
	assert_int_equal(hr_open(rig->url, NULL, &rig->client, NULL), 0);
	assert_int_equal(hr_space_open_name(rig->client, "test", &rig->space), 0);
	*state = rig;
	return 0;
}

static int
rig_teardown(void **state)
{
	struct rig *rig = *state;

	hr_space_close(rig->space);
	hr_close(rig->client);
	rig->stop = true;
	io_wake(rig->io);
	(void)pthread_join(rig->thread, NULL);
	io_destroy(rig->io);
	free(rig);
	return 0;
}

static bool
readable(int fd, int timeout_ms)
{
	struct pollfd pfd = { .fd = fd, .events = POLLIN };

	return poll(&pfd, 1, timeout_ms) == 1;
}

/* One block at a time. */
static void
test_sync(void **state)
{
	struct rig *rig = *state;
	char buf[64];
	size_t len = 0;
	uint64_t length = 0;

	assert_int_equal(hr_get(rig->space, "k", 1, buf, sizeof(buf), &len, NULL), HR_REASON_ABSENT);
	assert_int_equal(hr_put(rig->space, "k", 1, "value", 5, NULL), 0);
	assert_int_equal(hr_get(rig->space, "k", 1, buf, sizeof(buf), &len, NULL), 0);
	assert_int_equal(len, 5);
	assert_memory_equal(buf, "value", 5);
	assert_int_equal(hr_get(rig->space, "k", 1, buf, 3, &len, NULL), HR_REASON_SIZE);
	assert_int_equal(len, 5);
	assert_int_equal(hr_exists(rig->space, "k", 1, &length, NULL), 0);
	assert_int_equal(length, 5);
	assert_int_equal(hr_delete(rig->space, "k", 1, NULL), 0);
	assert_int_equal(hr_exists(rig->space, "k", 1, &length, NULL), HR_REASON_ABSENT);
	assert_int_equal(hr_put(rig->space, "", 0, "value", 5, NULL), -EINVAL);
	assert_int_equal(hr_put(NULL, "k", 1, "value", 5, NULL), -EINVAL);
}

/* The eventfd is readable exactly while something waits to be reaped; waiting for a ticket reaps it. */
static void
test_completions(void **state)
{
	struct rig *rig = *state;
	struct hr_item items[3];
	struct hr_submit_options options;
	struct hr_completion done[4];
	hr_ticket_t tickets[3];
	int fd = hr_event_fd(rig->client), n = 0;

	hr_submit_options_init(&options);
	memset(items, 0, sizeof(items));
	assert_false(readable(fd, 0));
	for (int i = 0; i < 3; i++) {
		items[i].key = "abc";
		items[i].key_len = 3;
		options.user_data = 100 + (uint64_t)i;
		tickets[i] = hr_submit(rig->space, HR_OP_EXISTS, &items[i], 1, &options);
		assert_true(tickets[i] > 0);
	}
	assert_int_equal(hr_drain(rig->client, 10000), 0);
	assert_true(readable(fd, 0));
	assert_int_equal(hr_wait(rig->client, tickets[1], 0, &done[0]), 0);
	assert_int_equal(done[0].user_data, 101);
	assert_int_equal(done[0].items_count, 1);
	assert_int_equal(done[0].ok_count, 0);
	assert_int_equal(hr_wait(rig->client, tickets[1], 0, &done[0]), -ENOENT);
	assert_true(readable(fd, 0));
	while (n < 2) {
		int got = hr_reap(rig->client, &done[n], 1);

		assert_int_equal(got, 1);
		n += got;
	}
	assert_false(readable(fd, 0));
	assert_int_equal(hr_reap(rig->client, done, 4), 0);
	assert_int_equal(hr_cancel(rig->client, tickets[0]), -ENOENT);
	assert_int_equal(hr_wait(rig->client, 999, 0, NULL), -ENOENT);
}

/* Arguments that are not usable take nothing. */
static void
test_submit_arguments(void **state)
{
	struct rig *rig = *state;
	struct hr_submit_options options;
	struct hr_item item = { .key = "a", .key_len = 1 };

	assert_int_equal(hr_submit(rig->space, HR_OP_GET, &item, 0, NULL), -EINVAL);
	assert_int_equal(hr_submit(rig->space, HR_OP_GET, &item, HR_BATCH_ITEMS_MAX + 1, NULL),
			 -EINVAL);
	assert_int_equal(hr_submit(rig->space, 0, &item, 1, NULL), -EINVAL);
	assert_int_equal(hr_submit(rig->space, 7, &item, 1, NULL), -EINVAL);
	hr_submit_options_init(&options);
	options.item_size = 8;
	assert_int_equal(hr_submit(rig->space, HR_OP_GET, &item, 1, &options), -EINVAL);
	hr_submit_options_init(&options);
	options.lease_ms = HR_LEASE_MS_MAX + 1;
	assert_int_equal(hr_submit(rig->space, HR_OP_EXISTS, &item, 1, &options), -EINVAL);
	assert_int_equal(hr_drain(rig->client, 0), 0);
}

/* The bounds refuse, nothing is lost, and after reaping it goes on. */
static void
test_full(void **state)
{
	struct rig *rig = *state;
	struct hr_options options;
	struct hr_client *client;
	struct hr_space *space;
	struct hr_item items[8];
	struct hr_completion done[8];
	int taken = 0, reaped = 0;
	char buf[8];
	struct iovec iov = { buf, 8 };

	hr_options_init(&options);
	options.inflight_bytes_max = 32;
	options.inflight_items_max = 5;
	assert_int_equal(hr_open(rig->url, &options, &client, NULL), 0);
	assert_int_equal(hr_space_open_name(client, "test", &space), 0);
	node_become(rig, NODE_SILENT);
	for (int i = 0; i < 8; i++) {
		hr_ticket_t ticket;

		items[i] = (struct hr_item){ .key = "a", .key_len = 1, .iov = &iov, .iov_count = 1 };
		ticket = hr_submit(space, HR_OP_GET, &items[i], 1, NULL);
		assert_true(ticket > 0 || ticket == -HR_EFULL);
		taken += ticket > 0;
	}
	assert_int_equal(taken, 4); /* 4 × 8 bytes */
	node_become(rig, NODE_BROKEN);
	assert_int_equal(hr_drain(client, 20000), 0);
	while (reaped < taken) {
		reaped += hr_reap(client, done, 8);
	}
	node_become(rig, NODE_GOOD);
	assert_int_equal(hr_client_ready(client, 20000), 0);
	assert_int_equal(hr_put(space, "a", 1, "12345678", 8, NULL), 0);
	hr_close(client);
}

static uint64_t
now_ms(void)
{
	struct timespec ts;

	(void)clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000 + (uint64_t)ts.tv_nsec / 1000000;
}

/* A silent node: cancelling ends it, a deadline ends it, waiting with a limit does not. */
static void
test_cancel_and_deadline(void **state)
{
	struct rig *rig = *state;
	struct hr_item item = { .key = "a", .key_len = 1 };
	struct hr_submit_options options;
	struct hr_completion done;
	hr_ticket_t ticket;
	uint64_t from;

	assert_int_equal(hr_client_ready(rig->client, 10000), 0);
	assert_int_equal(hr_put(rig->space, "x", 1, "y", 1, NULL), 0);
	node_become(rig, NODE_SILENT);
	ticket = hr_submit(rig->space, HR_OP_EXISTS, &item, 1, NULL);
	assert_int_equal(hr_wait(rig->client, ticket, 30, &done), -ETIMEDOUT);
	assert_int_equal(hr_drain(rig->client, 10), -ETIMEDOUT);
	assert_int_equal(hr_cancel(rig->client, ticket), 0);
	assert_int_equal(hr_wait(rig->client, ticket, 10000, &done), 0);
	assert_int_equal(done.cancelled, 1);
	assert_int_equal(item.reason, HR_REASON_CANCELLED);
	hr_submit_options_init(&options);
	options.deadline_us = 50000;
	from = now_ms();
	ticket = hr_submit(rig->space, HR_OP_EXISTS, &item, 1, &options);
	assert_int_equal(hr_wait(rig->client, ticket, 10000, &done), 0);
	assert_int_equal(item.reason, HR_REASON_DEADLINE);
	assert_in_range(now_ms() - from, 49, 49 + 20 * 50);
}

/* Closing with a silent node and work under way does not hang. */
static void
test_close_under_way(void **state)
{
	struct rig *rig = *state;
	struct hr_client *client;
	struct hr_space *space;
	struct hr_item item = { .key = "a", .key_len = 1 };

	assert_int_equal(hr_open(rig->url, NULL, &client, NULL), 0);
	assert_int_equal(hr_space_open_name(client, "test", &space), 0);
	node_become(rig, NODE_SILENT);
	assert_true(hr_submit(space, HR_OP_EXISTS, &item, 1, NULL) > 0);
	hr_close(client);
	assert_int_equal(item.reason, HR_REASON_CANCELLED);
}

/* In a child every call on the parent's handle says so, a handle of its own works, and the parent does not notice. */
static void
test_fork(void **state)
{
	struct rig *rig = *state;
	struct hr_item item = { .key = "a", .key_len = 1 };
	struct hr_completion done;
	pid_t pid;
	int status;
#ifdef __SANITIZE_THREAD__
	skip(); /* it does not take threads behind a fork */
#endif

	assert_int_equal(hr_put(rig->space, "a", 1, "parent", 6, NULL), 0);
	pid = fork();
	if (pid == 0) {
		struct hr_client *own;
		struct hr_space *space;
		char buf[16];
		size_t len;
		int bad = 0;

		bad |= (hr_submit(rig->space, HR_OP_EXISTS, &item, 1, NULL) != -HR_EFORK) << 0;
		bad |= (hr_reap(rig->client, &done, 1) != -HR_EFORK) << 1;
		bad |= (hr_event_fd(rig->client) != -HR_EFORK) << 2;
		bad |= (hr_drain(rig->client, 0) != -HR_EFORK) << 3;
		hr_close(rig->client); /* touches nothing */
		bad |= (hr_open(rig->url, NULL, &own, NULL) != 0) << 4;
		bad |= (hr_space_open_name(own, "test", &space) != 0) << 5;
		bad |= (hr_get(space, "a", 1, buf, sizeof(buf), &len, NULL) != 0 || len != 6) << 6;
		hr_close(own);
		_exit(bad);
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFEXITED(status));
	assert_int_equal(WEXITSTATUS(status), 0);
	assert_int_equal(hr_exists(rig->space, "a", 1, NULL, NULL), 0);
}

struct worker {
	struct rig *rig;
	unsigned idx, wrong;
};

static void *
worker_run(void *arg)
{
	struct worker *worker = arg;

	for (unsigned i = 0; i < 200; i++) {
		char key[32], buf[32];
		size_t len;

		(void)snprintf(key, sizeof(key), "w%u-%u", worker->idx, i);
		worker->wrong +=
		    hr_put(worker->rig->space, key, strlen(key), key, strlen(key), NULL) != 0;
		worker->wrong +=
		    hr_get(worker->rig->space, key, strlen(key), buf, sizeof(buf), &len, NULL) != 0;
		worker->wrong += len != strlen(key) || memcmp(buf, key, len) != 0;
	}
	return NULL;
}

/* Many threads on one handle. */
static void
test_threads(void **state)
{
	struct worker workers[8];
	pthread_t threads[8];

	for (unsigned i = 0; i < 8; i++) {
		workers[i] = (struct worker){ .rig = *state, .idx = i };
		assert_int_equal(pthread_create(&threads[i], NULL, worker_run, &workers[i]), 0);
	}
	for (unsigned i = 0; i < 8; i++) {
		(void)pthread_join(threads[i], NULL);
		assert_int_equal(workers[i].wrong, 0);
	}
}

/* Statistics are one JSON object; what is not reachable is an error with a line. */
static void
test_stat_and_errors(void **state)
{
	struct rig *rig = *state;
	struct hr_client *client;
	char detail[HR_DETAIL_BYTES], *text;
	json_t *json;

	assert_int_equal(hr_put(rig->space, "a", 1, "b", 1, NULL), 0);
	assert_int_equal(hr_stat_json(rig->client, 10000, &text), 0);
	json = json_loads(text, 0, NULL);
	assert_non_null(json);
	assert_int_equal(
	    json_integer_value(json_object_get(
		json_object_get(json_object_get(json_object_get(json, "client"), "items"), "put"),
		"ok")),
	    1);
	assert_int_equal(json_integer_value(
			     json_object_get(json_array_get(json_object_get(json, "nodes"), 0),
					     "node")),
			 1);
	json_decref(json);
	free(text);
	assert_int_equal(hr_open("smb:x", NULL, &client, detail), -HR_EURL);
	assert_non_null(strstr(detail, "smb:x"));
	assert_int_equal(hr_open("tcp:127.0.0.1:1", NULL, &client, detail), 0);
	assert_int_equal(hr_client_ready(client, 50), -ECONNREFUSED);
	hr_client_detail(client, detail, sizeof(detail));
	assert_non_null(strstr(detail, "127.0.0.1:1"));
	hr_close(client);
}

/* A space is its pairs, in whatever order; its name and its digest lead to the same. */
static void
test_spaces(void **state)
{
	struct rig *rig = *state;
	struct hr_pair pairs[] = { { "model", "m", 1 }, { "dtype", "fp8", 3 } };
	struct hr_pair turned[] = { { "dtype", "fp8", 3 }, { "model", "m", 1 } };
	struct hr_pair twice[] = { { "a", "m", 1 }, { "a", "n", 1 } };
	struct hr_space *a, *b, *c;
	uint8_t x[32], y[32], id[16], id2[16];
	char name[80] = "sha256:";

	assert_int_equal(hr_space_open(rig->client, pairs, 2, &a), 0);
	assert_int_equal(hr_space_open(rig->client, turned, 2, &b), 0);
	assert_int_equal(hr_space_open(rig->client, twice, 2, &c), -EINVAL);
	assert_int_equal(hr_space_open(rig->client, pairs, 0, &c), -EINVAL);
	hr_space_digest(a, x);
	hr_space_digest(b, y);
	assert_memory_equal(x, y, 32);
	for (int i = 0; i < 32; i++) {
		(void)snprintf(name + 7 + i * 2, 3, "%02x", x[i]);
	}
	assert_int_equal(hr_space_open_name(rig->client, name, &c), 0);
	assert_int_equal(hr_block_id(a, "key", 3, id), 0);
	assert_int_equal(hr_block_id(c, "key", 3, id2), 0);
	assert_memory_equal(id, id2, 16);
	assert_int_equal(hr_block_id(a, "key", 0, id), -EINVAL);
	assert_true(hr_route_of_id((const uint8_t[16]){ 1, 2 }) == 0x0201);
	assert_int_equal(hr_space_open_name(rig->client, "sha256:12", &c), -EINVAL);
	hr_space_close(a);
	hr_space_close(b);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_sync, rig_setup, rig_teardown),
		cmocka_unit_test_setup_teardown(test_completions, rig_setup, rig_teardown),
		cmocka_unit_test_setup_teardown(test_submit_arguments, rig_setup, rig_teardown),
		cmocka_unit_test_setup_teardown(test_full, rig_setup, rig_teardown),
		cmocka_unit_test_setup_teardown(test_cancel_and_deadline, rig_setup, rig_teardown),
		cmocka_unit_test_setup_teardown(test_close_under_way, rig_setup, rig_teardown),
		cmocka_unit_test_setup_teardown(test_fork, rig_setup, rig_teardown),
		cmocka_unit_test_setup_teardown(test_threads, rig_setup, rig_teardown),
		cmocka_unit_test_setup_teardown(test_stat_and_errors, rig_setup, rig_teardown),
		cmocka_unit_test_setup_teardown(test_spaces, rig_setup, rig_teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
