/* test_node.c — a node of several threads and devices in files: start, hand-over, statistics, a device that goes, stop and restart. */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>
#include <jansson.h>

#include "base/base.h"
#include "base/crc.h"
#include "base/hash.h"
#include "headrace/error.h"
#include "shard/node.h"
#include "wire/wire.h"

struct folder {
	char path[64], socket[96], listen[104], images[3][96];
};

static int
folder_create(void **state)
{
	struct folder *folder = calloc(1, sizeof(*folder));

	strcpy(folder->path, "/tmp/hr_node_XXXXXX");
	assert_non_null(mkdtemp(folder->path));
	snprintf(folder->socket, sizeof(folder->socket), "%s/hr.sock", folder->path);
	snprintf(folder->listen, sizeof(folder->listen), "unix:%s", folder->socket);
	for (int i = 0; i < 3; i++) {
		snprintf(folder->images[i], sizeof(folder->images[i]), "%s/disk%d.img",
			 folder->path, i);
	}
	*state = folder;
	return 0;
}

static int
folder_remove(void **state)
{
	struct folder *folder = *state;
	char command[160];

	snprintf(command, sizeof(command), "rm -rf %s", folder->path);
	assert_int_equal(system(command), 0);
	free(folder);
	return 0;
}

/* -- a client with blocking sockets --------------------------------------------------------------------------- */

struct client {
	int fd;
	uint8_t shard[16];
	struct wire_map map;
	uint32_t space;
	uint64_t request_id;
};

static void
read_all(int fd, void *buf, size_t len)
{
	for (size_t at = 0; at < len;) {
		ssize_t n = read(fd, (char *)buf + at, len - at);

		assert_true(n > 0);
		at += (size_t)n;
	}
}

static void
client_send(struct client *client, struct wire_header header, const struct wire_buf *items,
	    const void *payload)
{
	uint8_t bytes[WIRE_HEADER_BYTES];

	header.version = WIRE_VERSION;
	header.request_id = ++client->request_id;
	header.space = client->space;
	header.items_bytes = (uint32_t)items->len;
	header.items_crc = crc32c(0, items->bytes, items->len);
	wire_header_encode(&header, bytes);
	assert_int_equal(write(client->fd, bytes, sizeof(bytes)), sizeof(bytes));
	if (items->len > 0) {
		assert_int_equal(write(client->fd, items->bytes, items->len), items->len);
	}
	if (header.payload_bytes > 0) {
		assert_int_equal(write(client->fd, payload, header.payload_bytes),
				 header.payload_bytes);
	}
}

/* The next answer; pushes are passed over. */
static struct wire_header
client_recv(struct client *client, uint8_t **ret_items, uint8_t **ret_payload)
{
	struct wire_header header;
	uint8_t bytes[WIRE_HEADER_BYTES];
	const char *why;

	for (;;) {
		read_all(client->fd, bytes, sizeof(bytes));
		assert_int_equal(wire_header_decode(bytes, &header, &why), 0);
		*ret_items = malloc(header.items_bytes + 1);
		*ret_payload = malloc(header.payload_bytes + 1);
		read_all(client->fd, *ret_items, header.items_bytes);
		read_all(client->fd, *ret_payload, header.payload_bytes);
		(*ret_payload)[header.payload_bytes] = '\0';
		if (header.request_id != 0) {
			return header;
		}
		free(*ret_items);
		free(*ret_payload);
	}
}

/* The status of HELLO's answer; with 0 the map is kept. */
static unsigned
client_open(struct client *client, const struct folder *folder, const uint8_t shard[16])
{
	struct wire_client_hello hello = { .version_min = 1, .version_max = 1 };
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	struct wire_server_hello server;
	struct wire_buf items = { 0 };
	struct wire_header header;
	struct wire_reader reader;
	uint8_t *answer, *payload;
	const char *why;

	*client = (struct client){ .fd = socket(AF_UNIX, SOCK_STREAM, 0) };
	snprintf(address.sun_path, sizeof(address.sun_path), "%s", folder->socket);
	assert_int_equal(connect(client->fd, (struct sockaddr *)&address, sizeof(address)), 0);
	memcpy(hello.shard_uuid, shard, 16);
	wire_client_hello_encode(&items, &hello);
	client_send(client, (struct wire_header){ .op = WIRE_HELLO, .items_count = 1 }, &items,
		    NULL);
	wire_buf_free(&items);
	header = client_recv(client, &answer, &payload);
	reader = (struct wire_reader){ answer, answer + header.items_bytes };
	if (header.status == WIRE_OK) {
		assert_int_equal(wire_server_hello_decode(&reader, &server, &why), 0);
		memcpy(client->shard, server.shard_uuid, 16);
	}
	assert_int_equal(wire_map_decode(&reader, &client->map, &why), 0);
	free(answer);
	free(payload);
	return header.status;
}

static void
client_close(struct client *client)
{
	close(client->fd);
	wire_map_free(&client->map);
}

static void
client_space_open(struct client *client)
{
	struct wire_space_request sub = {
		.sub = WIRE_SPACE_OPEN, .label = "node", .label_len = 4, .digest = { 5 }
	};
	struct wire_buf items = { 0 };
	struct wire_header header;
	uint8_t *answer, *payload;

	wire_space_request_encode(&items, &sub);
	client_send(client, (struct wire_header){ .op = WIRE_SPACE, .items_count = 1 }, &items,
		    NULL);
	header = client_recv(client, &answer, &payload);
	assert_int_equal(header.flags & WIRE_FLAG_REFUSED, 0);
	client->space = header.space;
	wire_buf_free(&items);
	free(answer);
	free(payload);
}

static void
key_id(uint8_t key, uint8_t id[16])
{
	static const uint8_t digest[32] = { 5 };
	struct block_id_prefix prefix;

	block_id_prefix_init(&prefix, digest);
	block_id_compute(&prefix, &key, 1, id);
}

static struct wire_put_answer
client_put(struct client *client, uint8_t key, size_t len)
{
	struct wire_put_item item = { .block_bytes = len,
				      .stored_bytes = (uint32_t)len,
				      .parts_count = 1,
				      .key = &key,
				      .key_len = 1 };
	uint8_t *value = malloc(len), *answer, *payload;
	struct iovec iov = { value, len };
	struct wire_buf items = { 0 };
	struct wire_put_answer ret;
	struct wire_header header;
	struct wire_reader reader;
	uint32_t crcs[WIRE_CRCS_MAX];
	const char *why;

	key_id(key, item.id);
	memset(value, key, len);
	item.crcs_count = (uint16_t)crc32c_chunks(&iov, 1, WIRE_CHUNK_BYTES, crcs);
	wire_put_item_encode(&items, &item, crcs);
	client_send(client,
		    (struct wire_header){ .op = WIRE_PUT,
					  .items_count = 1,
					  .ack = HR_ACK_STABLE,
					  .payload_bytes = len },
		    &items, value);
	header = client_recv(client, &answer, &payload);
	reader = (struct wire_reader){ answer, answer + header.items_bytes };
	assert_int_equal(wire_put_answer_decode(&reader, &ret, &why), 0);
	wire_buf_free(&items);
	free(value);
	free(answer);
	free(payload);
	return ret;
}

static bool
client_get(struct client *client, uint8_t key, size_t len)
{
	struct wire_get_item item = { .block_bytes = len, .bytes = UINT32_MAX };
	struct wire_buf items = { 0 };
	struct wire_get_answer got;
	struct wire_header header;
	struct wire_reader reader;
	uint8_t *answer, *payload;
	const char *why;
	bool ok;

	key_id(key, item.id);
	wire_get_item_encode(&items, &item);
	client_send(client, (struct wire_header){ .op = WIRE_GET, .items_count = 1 }, &items, NULL);
	header = client_recv(client, &answer, &payload);
	reader = (struct wire_reader){ answer, answer + header.items_bytes };
	assert_int_equal(wire_get_answer_decode(&reader, &got, &why), 0);
	ok = got.status == HR_STATUS_OK;
	if (ok) {
		assert_int_equal(header.payload_bytes, len);
		for (size_t i = 0; i < len; i++) {
			assert_int_equal(payload[i], key);
		}
	}
	wire_buf_free(&items);
	free(answer);
	free(payload);
	return ok;
}

/* -- nodes ---------------------------------------------------------------------------------------------------- */

static struct node *
node_run(const struct folder *folder, unsigned devices_count, uint32_t shards_count,
	 unsigned threads)
{
	struct node_device_options devices[3] = { 0 };
	const char *listen = folder->listen;
	struct node_options options = {
		.devices = devices,
		.devices_count = devices_count,
		.dram_bytes = MiB(64),
		.threads = threads,
		.listen = &listen,
		.listen_count = 1,
	};
	char detail[DETAIL_BYTES] = "";
	struct node *node = NULL;

	for (unsigned i = 0; i < devices_count; i++) {
		devices[i] = (struct node_device_options){ .path = folder->images[i],
							   .create_bytes = MiB(96),
							   .shards_count = shards_count };
	}
	if (node_start(&options, &node, detail) != 0) {
		print_error("%s\n", detail);
		fail();
	}
	assert_int_equal(node_wait_ready(node, 60000), 0);
	assert_true(node_ready(node));
	return node;
}

static json_t *
stat_of(struct node *node)
{
	char *text = node_stat_json(node);
	json_t *root;

	assert_non_null(text);
	root = json_loads(text, 0, NULL);
	assert_non_null(root);
	free(text);
	return root;
}

/* Method: two devices of two shards in two threads; every shard of the map is reached by its UUID through the one listener, keeps
 * a block of its own, and has it again after a restart. */
static void
test_shards_and_restart(void **state)
{
	const struct folder *folder = *state;
	const uint8_t any[16] = { 0 };
	struct node *node = node_run(folder, 2, 2, 2);
	struct client first, client;
	uint8_t uuids[4][16];
	json_t *root;

	assert_int_equal(client_open(&first, folder, any), WIRE_OK);
	assert_int_equal(first.map.shards_count, 4);
	assert_int_equal(first.map.nodes_count, 1);
	assert_non_null(strstr(first.map.nodes[0].text, "unix=/tmp/hr_node_"));
	for (int i = 0; i < 4; i++) {
		memcpy(uuids[i], first.map.shards[i].uuid, 16);
		assert_int_equal(first.map.shards[i].state, WIRE_SERVING);
		assert_int_equal(client_open(&client, folder, uuids[i]), WIRE_OK);
		assert_memory_equal(client.shard, uuids[i], 16);
		client_space_open(&client);
		assert_int_equal(client_put(&client, (uint8_t)(i + 1), 100000).status, HR_STATUS_OK);
		assert_true(client_get(&client, (uint8_t)(i + 1), 100000));
		assert_false(client_get(&client, (uint8_t)(i + 2), 100000));
		client_close(&client);
	}
	assert_int_equal(client_open(&client, folder, (const uint8_t[16]){ 1, 2, 3 }),
			 WIRE_WRONG_SHARD);
	client_close(&client);
	root = stat_of(node);
	assert_int_equal(json_array_size(json_object_get(root, "shards")), 4);
	assert_int_equal(json_array_size(json_object_get(root, "devices")), 2);
	assert_int_equal(json_integer_value(
			     json_object_get(json_array_get(json_object_get(root, "spaces"), 0),
					     "blocks")),
			 4);
	assert_true(json_is_true(json_object_get(root, "ready")));
	json_decref(root);
	client_close(&first);
	node_stop(node, 500);

	node = node_run(folder, 2, 2, 1);
	for (int i = 0; i < 4; i++) {
		assert_int_equal(client_open(&client, folder, uuids[i]), WIRE_OK);
		client_space_open(&client);
		assert_true(client_get(&client, (uint8_t)(i + 1), 100000));
		client_close(&client);
	}
	node_stop(node, 500);
}

/* Method: STAT over the wire, from both threads at once, many times: nobody waits for ever. */
static void
test_stat_over_the_wire(void **state)
{
	const struct folder *folder = *state;
	struct node *node = node_run(folder, 2, 1, 2);
	struct client clients[2], first;
	struct wire_buf none = { 0 };

	assert_int_equal(client_open(&first, folder, (const uint8_t[16]){ 0 }), WIRE_OK);
	for (int i = 0; i < 2; i++) {
		assert_int_equal(client_open(&clients[i], folder, first.map.shards[i].uuid),
				 WIRE_OK);
	}
	for (int round = 0; round < 50; round++) {
		for (int i = 0; i < 2; i++) {
			client_send(&clients[i], (struct wire_header){ .op = WIRE_STAT }, &none,
				    NULL);
		}
		for (int i = 0; i < 2; i++) {
			uint8_t *items, *payload;
			struct wire_header header = client_recv(&clients[i], &items, &payload);
			json_t *root = json_loads((char *)payload, 0, NULL);

			assert_int_equal(header.flags, WIRE_FLAG_ANSWER | WIRE_FLAG_LAST);
			assert_int_equal(json_array_size(json_object_get(root, "shards")), 2);
			assert_int_equal(json_integer_value(json_object_get(root, "threads_silent")),
					 0);
			json_decref(root);
			free(items);
			free(payload);
		}
	}
	client_close(&clients[0]);
	client_close(&clients[1]);
	client_close(&first);
	node_stop(node, 500);
}

/* Method: what cannot be opened is refused with a line that names it, and leaves nothing running. */
static void
test_refusals(void **state)
{
	const struct folder *folder = *state;
	struct node_device_options device = { .path = folder->images[0] };
	const char *listen = folder->listen;
	struct node_options options = {
		.devices = &device, .devices_count = 1, .listen = &listen, .listen_count = 1
	};
	char detail[DETAIL_BYTES] = "";
	struct node *node = NULL;
	uint8_t noise[8192];
	pid_t pid;
	int fd, status;

	assert_int_equal(node_start(&options, &node, detail), -ENOENT);
	assert_non_null(strstr(detail, folder->images[0]));
	fd = open(folder->images[0], O_CREAT | O_WRONLY, 0600);
	memset(noise, 0x5a, sizeof(noise));
	for (int i = 0; i < 4096; i++) {
		assert_int_equal(write(fd, noise, sizeof(noise)), sizeof(noise));
	}
	close(fd);
	assert_int_equal(node_start(&options, &node, detail), -HR_EFOREIGN);
	assert_non_null(strstr(detail, folder->images[0]));
	unlink(folder->images[0]);

	node = node_run(folder, 1, 1, 1);
	/* Another process may not have it. */
	pid = fork();
	if (pid == 0) {
		execl("/proc/self/exe", "test_node", "other", folder->images[0], NULL);
		_exit(127);
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_int_equal(status, 0);
	node_stop(node, 500);

	/* An address that nobody can have. */
	listen = "unix:/nowhere/at/all/hr.sock";
	node = NULL;
	assert_int_not_equal(node_start(&options, &node, detail), 0);
	assert_non_null(strstr(detail, "/nowhere/at/all/hr.sock"));
	assert_null(node);
}

/* Method: one of two devices is missing at the start, is made and added; then one is dropped under a connection; the other serves on. */
static void
test_devices_come_and_go(void **state)
{
	const struct folder *folder = *state;
	struct node_device_options devices[2] = { { .path = folder->images[0],
						    .create_bytes = MiB(96) },
						  { .path = folder->images[1] } };
	const char *listen = folder->listen;
	struct node_options options = { .devices = devices,
					.devices_count = 2,
					.listen = &listen,
					.listen_count = 1,
					.dram_bytes = MiB(64) };
	char detail[DETAIL_BYTES] = "";
	struct node *node = NULL;
	struct client client, other;

	assert_int_equal(node_start(&options, &node, detail), 0);
	assert_int_equal(node_wait_ready(node, 60000), 0);
	assert_true(node_health(node, detail));
	assert_non_null(strstr(detail, folder->images[1]));
	devices[1].create_bytes = MiB(96);
	assert_int_equal(node_device_add(node, &devices[1], detail), 0);
	assert_int_equal(node_device_add(node, &devices[1], detail), -EEXIST);
	assert_int_equal(node_wait_ready(node, 60000), 0);
	assert_int_equal(client_open(&client, folder, (const uint8_t[16]){ 0 }), WIRE_OK);
	assert_int_equal(client.map.shards_count, 2);
	client_space_open(&client);
	assert_int_equal(client_put(&client, 9, 5000).status, HR_STATUS_OK);
	for (int i = 0; i < 2; i++) {
		if (memcmp(client.map.shards[i].uuid, client.shard, 16) != 0) {
			assert_int_equal(client_open(&other, folder, client.map.shards[i].uuid),
					 WIRE_OK);
			client_space_open(&other);
			assert_int_equal(client_put(&other, 8, 5000).status, HR_STATUS_OK);
		}
	}
	assert_int_equal(node_device_drop(node, folder->images[1], detail), 0);
	assert_int_equal(node_device_drop(node, folder->images[1], detail), -ENOENT);
	assert_true(client_get(&client, 9, 5000));
	client_close(&client);
	client_close(&other);
	assert_int_equal(client_open(&client, folder, (const uint8_t[16]){ 0 }), WIRE_OK);
	assert_int_equal(client.map.shards_count, 1);
	client_close(&client);
	/* And back, with what it held. */
	assert_int_equal(node_device_add(node, &devices[1], detail), 0);
	assert_int_equal(node_wait_ready(node, 60000), 0);
	node_stop(node, 500);
}

/* The other process of test_refusals: 0 when the device is refused to it. */
static int
other_main(const char *path)
{
	struct node_device_options device = { .path = path };
	struct node_options options = { .devices = &device, .devices_count = 1 };
	char detail[DETAIL_BYTES] = "";
	struct node *node;

	return node_start(&options, &node, detail) == -HR_EINUSE &&
		       strstr(detail, "in use by another process") != NULL
		   ? 0
		   : 1;
}

int
main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_shards_and_restart, folder_create,
						folder_remove),
		cmocka_unit_test_setup_teardown(test_stat_over_the_wire, folder_create,
						folder_remove),
		cmocka_unit_test_setup_teardown(test_refusals, folder_create, folder_remove),
		cmocka_unit_test_setup_teardown(test_devices_come_and_go, folder_create,
						folder_remove),
	};

	if (argc == 3 && strcmp(argv[1], "other") == 0) {
		return other_main(argv[2]);
	}
	return cmocka_run_group_tests_name("node", tests, NULL, NULL);
}
