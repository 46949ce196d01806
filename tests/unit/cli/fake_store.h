/* fake_store.h — the public C API over a table in memory, for tests of what uses it: it can lose, refuse, damage and go away.
 *
 * What:       blocks in a table with exact LRU at fake.capacity_blocks; every batch is done inside hr_submit(), its completion
 *             waits to be reaped. Include it once in a test program: it defines the calls, so libheadrace is not linked.
 * Threads:    one lock around everything.
 */
#ifndef HR_TEST_CLI_FAKE_STORE_H
#define HR_TEST_CLI_FAKE_STORE_H

#include <errno.h>
#include <headrace/headrace.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "base/hash.h"

enum { FAKE_BUCKETS = 1 << 16, FAKE_QUEUE = 4096 };

struct fake_block {
	uint8_t id[16];
	uint64_t route;
	uint8_t parent[16];
	uint32_t position;
	uint8_t *value;
	size_t len;
	char key[128];
	struct fake_block *next, *newer, *older;
};

static struct {
	uint64_t capacity_blocks;
	unsigned busy_every;	     /* every n-th PUT is refused as busy; 0: none */
	unsigned damage_every;	     /* every n-th GET gives wrong bytes and says OK */
	unsigned lose_every;	     /* every n-th GET misses although EXISTS said yes */
	unsigned full_every;	     /* every n-th hr_submit() but EXISTS says -HR_EFULL */
	unsigned down_from, down_to; /* puts in [from, to) are answered as if the node were away */
	bool never_ready;
	/* What was seen. */
	uint64_t blocks_count, puts, gets, submits, leases_given, leases_released, route_misses,
	    puts_out_of_order;
	uint64_t batch_max, quota_bytes, pin_budget_bytes, formatted_bytes;
	struct fake_block *buckets[FAKE_BUCKETS];
	struct fake_block lru; /* newer: the oldest, older: the newest */
	pthread_mutex_t lock;
} fake = { .capacity_blocks = UINT64_MAX, .lock = PTHREAD_MUTEX_INITIALIZER };

struct hr_client {
	int event_fd;
	struct hr_completion queue[FAKE_QUEUE];
	unsigned head, count;
	hr_ticket_t next_ticket;
};
struct hr_space {
	struct hr_client *client;
	uint64_t seed;
	uint32_t last_put_position;
};

static void
fake_unlink(struct fake_block *block)
{
	block->newer->older = block->older;
	block->older->newer = block->newer;
}

static void
fake_push(struct fake_block *block)
{
	block->newer = &fake.lru;
	block->older = fake.lru.older;
	fake.lru.older->newer = block;
	fake.lru.older = block;
}

static struct fake_block **
fake_find(const uint8_t id[16])
{
	struct fake_block **at = &fake.buckets[get_le64(id) % FAKE_BUCKETS];

	while (*at != NULL && memcmp((*at)->id, id, 16) != 0) {
		at = &(*at)->next;
	}
	return at;
}

static void
fake_drop(struct fake_block **at)
{
	struct fake_block *block = *at;

	*at = block->next;
	fake_unlink(block);
	free(block->value);
	free(block);
	fake.blocks_count--;
}

HR_UNUSED static void
fake_reset(void)
{
	while (fake.blocks_count > 0) {
		fake_drop(fake_find(fake.lru.newer->id));
	}
	memset(&fake, 0, sizeof(fake));
	pthread_mutex_init(&fake.lock, NULL);
	fake.capacity_blocks = UINT64_MAX;
	fake.lru.newer = fake.lru.older = &fake.lru;
}

/* -- handles ------------------------------------------------------------------------------------------------------------- */

void
hr_options_init(struct hr_options *options)
{
	*options = (struct hr_options){ .size = sizeof(*options) };
}

int
hr_open(const char *url, const struct hr_options *options, struct hr_client **ret_client,
	char *detail)
{
	(void)options;
	if (strncmp(url, "fake:", 5) != 0) {
		snprintf(detail, HR_DETAIL_BYTES, "fake: is wanted");
		return -HR_EURL;
	}
	*ret_client = calloc(1, sizeof(**ret_client));
	(*ret_client)->event_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
	return 0;
}

int
hr_client_ready(struct hr_client *client, uint32_t timeout_ms)
{
	(void)client;
	(void)timeout_ms;
	return fake.never_ready ? -ETIMEDOUT : 0;
}

void
hr_close(struct hr_client *client)
{
	if (client != NULL) {
		close(client->event_fd);
		free(client);
	}
}

void
hr_client_detail(struct hr_client *client, char *buf, size_t buf_bytes)
{
	(void)client;
	snprintf(buf, buf_bytes, "%s", "");
}

int
hr_register(struct hr_client *client, void *base, size_t len, int fd)
{
	(void)client;
	(void)base;
	(void)len;
	return fd < 0 ? -EINVAL : 0;
}

int
hr_stat_json(struct hr_client *client, uint32_t timeout_ms, char **ret_json)
{
	(void)client;
	(void)timeout_ms;
	return asprintf(
		   ret_json,
		   "{\"nodes\": [{\"shards\": [{\"bytes_written_total\": %llu, \"payload_bytes\": %llu}]}]}",
		   (unsigned long long)fake.puts * 110, (unsigned long long)fake.puts * 100) < 0
		   ? -ENOMEM
		   : 0;
}

static int
fake_space(struct hr_client *client, uint64_t seed, struct hr_space **ret_space)
{
	*ret_space = calloc(1, sizeof(**ret_space));
	(*ret_space)->client = client;
	(*ret_space)->seed = seed;
	return 0;
}

int
hr_space_open(struct hr_client *client, const struct hr_pair *pairs, size_t pairs_count,
	      struct hr_space **ret_space)
{
	static const uint64_t key[2] = { 1, 2 };
	uint64_t seed = 0;

	for (size_t i = 0; i < pairs_count; i++) {
		seed += hash64_keyed(key, pairs[i].name, strlen(pairs[i].name)) ^
			hash64_keyed(key, pairs[i].value, pairs[i].value_len);
	}
	return fake_space(client, seed, ret_space);
}

int
hr_space_open_name(struct hr_client *client, const char *name, struct hr_space **ret_space)
{
	static const uint64_t key[2] = { 3, 4 };

	return fake_space(client, hash64_keyed(key, name, strlen(name)), ret_space);
}

void
hr_space_digest(const struct hr_space *space, uint8_t ret_digest[32])
{
	memset(ret_digest, 0, 32);
	memcpy(ret_digest, &space->seed, sizeof(space->seed));
}

void
hr_space_close(struct hr_space *space)
{
	free(space);
}

int
hr_block_id(const struct hr_space *space, const void *key, size_t key_len, uint8_t ret_id[16])
{
	const uint64_t a[2] = { space->seed, 1 }, b[2] = { space->seed, 2 };

	put_le64(ret_id, hash64_keyed(a, key, key_len));
	put_le64(ret_id + 8, hash64_keyed(b, key, key_len));
	return 0;
}

uint64_t
hr_route_of_id(const uint8_t id[16])
{
	return get_le64(id);
}

/* -- batches ------------------------------------------------------------------------------------------------------------- */

void
hr_submit_options_init(struct hr_submit_options *options)
{
	*options = (struct hr_submit_options){ .size = sizeof(*options),
					       .item_size = sizeof(struct hr_item) };
}

static void
fake_miss(struct hr_item *item, enum hr_reason reason)
{
	item->status = HR_STATUS_MISS;
	item->reason = reason;
}

static void
fake_put(struct hr_space *space, struct hr_item *item, const uint8_t id[16])
{
	struct fake_block **at = fake_find(id);
	struct fake_block *block = *at;
	uint64_t n = ++fake.puts;
	bool down = n >= fake.down_from && n < fake.down_to;

	if (down || (fake.busy_every != 0 && n % fake.busy_every == 0)) {
		item->status = HR_STATUS_REFUSED;
		item->reason = down ? HR_REASON_DOWN : HR_REASON_BUSY;
		return;
	}
	(void)space;
	item->status = HR_STATUS_OK;
	if (block != NULL) {
		item->flags |= HR_ITEM_DUPLICATE;
		fake_unlink(block);
		fake_push(block);
		return;
	}
	while (fake.blocks_count >= fake.capacity_blocks) {
		fake_drop(fake_find(fake.lru.newer->id));
	}
	block = calloc(1, sizeof(*block));
	memcpy(block->id, id, 16);
	if (item->parent != NULL) {
		memcpy(block->parent, item->parent, 16);
	}
	block->route = item->route;
	block->position = item->position;
	block->len = item->iov->iov_len;
	block->value = malloc(block->len);
	memcpy(block->value, item->iov->iov_base, block->len);
	memcpy(block->key, item->key, HR_MIN(item->key_len, (uint32_t)sizeof(block->key) - 1));
	at = fake_find(id);
	*at = block;
	fake_push(block);
	fake.blocks_count++;
}

static void
fake_get(struct hr_item *item, const uint8_t id[16])
{
	struct fake_block *block = *fake_find(id);
	uint64_t n = ++fake.gets;

	if (block == NULL || ((item->flags & HR_ITEM_ROUTE) != 0 && block->route != item->route)) {
		fake.route_misses += block != NULL;
		fake_miss(item, HR_REASON_ABSENT);
		return;
	}
	if (fake.lose_every != 0 && n % fake.lose_every == 0) {
		fake_miss(item, HR_REASON_EVICTED);
		return;
	}
	if (item->expected_len != HR_LEN_ANY && item->expected_len != block->len) {
		fake_miss(item, HR_REASON_SIZE);
		return;
	}
	fake_unlink(block);
	fake_push(block);
	item->bytes = HR_MIN(block->len, item->iov->iov_len);
	memcpy(item->iov->iov_base, block->value, item->bytes);
	if (fake.damage_every != 0 && n % fake.damage_every == 0) {
		((uint8_t *)item->iov->iov_base)[block->len / 2] ^= 1;
	}
	item->status = HR_STATUS_OK;
	item->len = block->len;
	item->flags |= n % 2 != 0 ? HR_ITEM_DRAM : HR_ITEM_FLASH;
}

static void
fake_exists(struct hr_item *item, const uint8_t id[16], uint32_t lease_ms)
{
	struct fake_block *block = *fake_find(id);

	if (block == NULL || ((item->flags & HR_ITEM_ROUTE) != 0 && block->route != item->route)) {
		fake.route_misses += block != NULL;
		fake_miss(item, HR_REASON_ABSENT);
		return;
	}
	item->status = HR_STATUS_OK;
	item->len = block->len;
	if (lease_ms != 0) {
		item->flags |= HR_ITEM_LEASED;
		fake.leases_given++;
	}
}

static void
fake_do(struct hr_space *space, enum hr_op op, struct hr_item *item, uint32_t lease_ms)
{
	uint8_t id[16];

	hr_block_id(space, item->key, item->key_len, id);
	item->status = item->reason = 0;
	if (op == HR_OP_PUT) {
		fake_put(space, item, id);
	} else if (op == HR_OP_GET) {
		fake_get(item, id);
	} else if (op == HR_OP_DELETE) {
		fake_exists(item, id, 0);
		if (item->status == HR_STATUS_OK) {
			fake_drop(fake_find(id));
		}
	} else {
		fake_exists(item, id, lease_ms);
	}
}

static void
fake_complete(struct hr_client *client, const struct hr_completion *completion)
{
	uint64_t one = 1;

	HR_ASSERT(client->count < FAKE_QUEUE);
	client->queue[(client->head + client->count++) % FAKE_QUEUE] = *completion;
	HR_ASSERT(write(client->event_fd, &one, sizeof(one)) == sizeof(one));
}

hr_ticket_t
hr_submit(struct hr_space *space, enum hr_op op, struct hr_item *items, uint32_t items_count,
	  const struct hr_submit_options *options)
{
	struct hr_completion completion = { .user_data = options->user_data,
					    .items_count = items_count };

	HR_ASSERT(items_count > 0 && items_count <= HR_BATCH_ITEMS_MAX);
	pthread_mutex_lock(&fake.lock);
	if (op != HR_OP_EXISTS && fake.full_every != 0 && ++fake.submits % fake.full_every == 0) {
		pthread_mutex_unlock(&fake.lock);
		return -HR_EFULL;
	}
	fake.batch_max = HR_MAX(fake.batch_max, (uint64_t)items_count);
	for (uint32_t i = 0; i < items_count; i++) {
		fake_do(space, op, &items[i], options->lease_ms);
		fake.puts_out_of_order += op == HR_OP_PUT && i > 0 &&
					  items[i].position >= items[i - 1].position;
		completion.ok_count += items[i].status == HR_STATUS_OK;
	}
	completion.ticket = ++space->client->next_ticket;
	fake_complete(space->client, &completion);
	pthread_mutex_unlock(&fake.lock);
	return completion.ticket;
}

int
hr_event_fd(struct hr_client *client)
{
	return client->event_fd;
}

int
hr_reap(struct hr_client *client, struct hr_completion *ret_completions, uint32_t max)
{
	uint64_t drained;
	int n = 0;

	pthread_mutex_lock(&fake.lock);
	while (client->count > 0 && (uint32_t)n < max) {
		ret_completions[n++] = client->queue[client->head];
		client->head = (client->head + 1) % FAKE_QUEUE;
		client->count--;
	}
	if (client->count == 0 && read(client->event_fd, &drained, sizeof(drained)) < 0) {
		HR_ASSERT(errno == EAGAIN);
	}
	pthread_mutex_unlock(&fake.lock);
	return n;
}

/* Only what replay does: it waits for the one ticket that is under way. */
int
hr_wait(struct hr_client *client, hr_ticket_t ticket, uint32_t timeout_ms,
	struct hr_completion *ret_completion)
{
	(void)timeout_ms;
	if (hr_reap(client, ret_completion, 1) != 1 || ret_completion->ticket != ticket) {
		return -ENOENT;
	}
	return 0;
}

int
hr_release(struct hr_space *space, struct hr_item *items, uint32_t items_count)
{
	(void)space;
	pthread_mutex_lock(&fake.lock);
	for (uint32_t i = 0; i < items_count; i++) {
		fake.leases_released += (items[i].flags & HR_ITEM_LEASED) != 0;
		items[i].flags &= ~(uint32_t)HR_ITEM_LEASED;
	}
	pthread_mutex_unlock(&fake.lock);
	return 0;
}

/* -- the rest of what commands use ---------------------------------------------------------------------------------------- */

/* "default", which has all blocks, and "x". */
int
hr_space_list(struct hr_client *client, uint32_t timeout_ms, struct hr_space_info **ret_infos,
	      size_t *ret_count)
{
	static const char *const names[] = { "default", "x" };
	struct hr_space_info *infos = calloc(ARRAY_SIZE(names), sizeof(*infos));

	(void)timeout_ms;
	for (size_t i = 0; i < ARRAY_SIZE(names); i++) {
		struct hr_space *space;

		hr_space_open_name(client, names[i], &space);
		hr_space_digest(space, infos[i].digest);
		snprintf(infos[i].label, sizeof(infos[i].label), "%s", names[i]);
		hr_space_close(space);
	}
	infos[0].blocks = fake.blocks_count;
	*ret_infos = infos;
	*ret_count = ARRAY_SIZE(names);
	return 0;
}

int
hr_space_usage(struct hr_space *space, uint32_t timeout_ms, struct hr_space_info *ret_info)
{
	(void)space;
	(void)timeout_ms;
	*ret_info = (struct hr_space_info){ .blocks = fake.blocks_count };
	return 0;
}

int
hr_space_drop(struct hr_space *space, uint32_t timeout_ms)
{
	(void)space;
	(void)timeout_ms;
	while (fake.blocks_count > 0) {
		fake_drop(fake_find(fake.lru.newer->id));
	}
	return 0;
}

int
hr_space_set(struct hr_space *space, uint64_t quota_bytes, uint64_t pin_budget_bytes,
	     uint32_t timeout_ms)
{
	(void)space;
	(void)timeout_ms;
	fake.quota_bytes = quota_bytes;
	fake.pin_budget_bytes = pin_budget_bytes;
	return 0;
}

/* One page with everything. */
int
hr_list(struct hr_space *space, struct hr_list_cursor **cursor, uint32_t max, uint32_t timeout_ms,
	struct hr_list_entry **ret_entries, size_t *ret_count)
{
	size_t n = 0;

	(void)space;
	(void)timeout_ms;
	*ret_entries = calloc(max, sizeof(**ret_entries));
	for (struct fake_block *block = fake.lru.newer;
	     *cursor == NULL && block != &fake.lru && n < max; block = block->newer) {
		struct hr_list_entry *entry = &(*ret_entries)[n++];

		memcpy(entry->id, block->id, 16);
		entry->route = block->route;
		entry->bytes = block->len;
		entry->position = block->position;
		entry->key = (const uint8_t *)block->key;
		entry->key_len = (uint16_t)strlen(block->key);
	}
	*cursor = n > 0 ? (struct hr_list_cursor *)&fake : NULL;
	*ret_count = n;
	return 0;
}

void
hr_list_cursor_free(struct hr_list_cursor *cursor)
{
	(void)cursor;
}

void
hr_format_options_init(struct hr_format_options *options)
{
	*options = (struct hr_format_options){ .size = sizeof(*options) };
}

int
hr_format(const char *path, const struct hr_format_options *options, char *detail)
{
	if (!options->force) {
		snprintf(detail, HR_DETAIL_BYTES, "%s: carries something; --force overwrites it",
			 path);
		return -HR_EFOREIGN;
	}
	fake.formatted_bytes = options->size_bytes;
	return 0;
}

void
hr_check_options_init(struct hr_check_options *options)
{
	*options = (struct hr_check_options){ .size = sizeof(*options) };
}

int
hr_check(const char *path, const struct hr_check_options *options, char **ret_json, char *detail)
{
	(void)options;
	(void)detail;
	*ret_json = strdup(
	    strcmp(path, "sound") == 0
		? "{\"blocks\": 3, \"bytes\": 4096, \"damaged\": 0, \"segments\": 2, \"findings\": []}"
		: "{\"blocks\": 3, \"bytes\": 4096, \"damaged\": 1, \"segments\": 2, \"findings\": [{\"segment\": 7, \"what\": \"footer\"}]}");
	return 0;
}

const char *
hr_strerror(int code)
{
	return strerror(code < 0 ? -code : code);
}

const char *
hr_reason_name(int reason)
{
	static const char *const names[] = {
#define HR_REASON_NAME(name, value, text) [value] = text,
		HR_REASON_TABLE(HR_REASON_NAME)
#undef HR_REASON_NAME
	};

	return names[reason];
}

const char *
hr_version(void)
{
	return "fake";
}

#endif
