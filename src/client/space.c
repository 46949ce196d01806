/* space.c - spaces, and what is asked about them: usage, list, drop, set; LIST of blocks. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/utf8.h"
#include "client/handle.h"

enum {
	LABEL_BYTES = 64,
	PAIR_VALUE_BYTES_MAX = 65536,
	PAIR_NAME_BYTES_MAX = 255,
	LIST_MAX = 16384
};

struct core_space *
client_core_space(struct hr_client *client, struct hr_space *space)
{
	if (space->core_space == NULL) {
		space->core_space = core_space_get(client->core, space->digest, space->label);
	}
	return space->core_space;
}

void
client_space_ref(struct hr_space *space)
{
	(void)pthread_mutex_lock(&space->client->mutex);
	space->refs++;
	(void)pthread_mutex_unlock(&space->client->mutex);
}

void
client_space_unref(struct hr_space *space)
{
	struct hr_client *client = space->client;
	bool last;

	(void)pthread_mutex_lock(&client->mutex);
	last = --space->refs == 0;
	if (last) {
		list_del(&space->link);
	}
	(void)pthread_mutex_unlock(&client->mutex);
	if (last) {
		free(space);
	}
}

/* -- names ----------------------------------------------------------------------------------------------------------------------- */

/* A copy cut to its room, between characters where it is UTF-8. */
static void
label_copy(char label[LABEL_BYTES], const char *text, size_t len)
{
	size_t n = len == 0 ? 0 : HR_MIN(strnlen(text, len), (size_t)LABEL_BYTES - 1);

	for (size_t i = n; n < len && i > 0 && i + 4 > n; i--) {
		if (((uint8_t)text[i] & 0xc0) != 0x80) { /* a character begins behind the cut */
			n = i;
			break;
		}
	}
	(void)snprintf(label, LABEL_BYTES, "%.*s", (int)n, n > 0 ? text : "");
}

int
hr_space_open_digest(struct hr_client *client, const uint8_t digest[32], const char *label,
		     struct hr_space **ret_space)
{
	struct hr_space *space;

	if (client == NULL || digest == NULL || ret_space == NULL) {
		return -EINVAL;
	}
	if (client_is_child(client)) {
		return -HR_EFORK;
	}
	space = calloc(1, sizeof(*space));
	if (space == NULL) {
		return -ENOMEM;
	}
	space->client = client;
	space->refs = 1;
	memcpy(space->digest, digest, sizeof(space->digest));
	label_copy(space->label, label, label != NULL ? strlen(label) : 0);
	block_id_prefix_init(&space->prefix, digest);
	(void)pthread_mutex_lock(&client->mutex);
	list_add_tail(&client->spaces, &space->link);
	(void)pthread_mutex_unlock(&client->mutex);
	*ret_space = space;
	return 0;
}

/* For people who look at a list of spaces: the value of the pair "name", or else of "model". */
static void
label_of_pairs(const struct hr_pair *pairs, size_t pairs_count, char label[LABEL_BYTES])
{
	static const char *const names[] = { "model", "name" };

	label[0] = 0;
	for (size_t n = 0; n < ARRAY_SIZE(names); n++) {
		for (size_t i = 0; i < pairs_count; i++) {
			if (strcmp(pairs[i].name, names[n]) == 0) {
				label_copy(label, pairs[i].value, pairs[i].value_len);
			}
		}
	}
}

int
hr_space_open(struct hr_client *client, const struct hr_pair *pairs, size_t pairs_count,
	      struct hr_space **ret_space)
{
	struct space_pair *copies;
	uint8_t digest[SPACE_DIGEST_BYTES];
	char label[LABEL_BYTES];
	int rc;

	if (client == NULL || pairs == NULL || pairs_count == 0 || pairs_count > SPACE_PAIRS_MAX) {
		return -EINVAL;
	}
	copies = calloc(pairs_count, sizeof(*copies));
	if (copies == NULL) {
		return -ENOMEM;
	}
	rc = 0;
	for (size_t i = 0; i < pairs_count && rc == 0; i++) {
		if (pairs[i].name == NULL || strlen(pairs[i].name) > PAIR_NAME_BYTES_MAX ||
		    pairs[i].value_len > PAIR_VALUE_BYTES_MAX ||
		    (pairs[i].value == NULL && pairs[i].value_len > 0)) {
			rc = -EINVAL;
			break;
		}
		copies[i] = (struct space_pair){ pairs[i].name, strlen(pairs[i].name),
						 pairs[i].value, pairs[i].value_len };
	}
	if (rc == 0) {
		rc = space_digest_compute(copies, pairs_count, digest);
	}
	free(copies);
	if (rc != 0) {
		return rc;
	}
	label_of_pairs(pairs, pairs_count, label);
	return hr_space_open_digest(client, digest, label, ret_space);
}

static int
hex_digit(char c)
{
	return c >= '0' && c <= '9'   ? c - '0'
	       : c >= 'a' && c <= 'f' ? c - 'a' + 10
	       : c >= 'A' && c <= 'F' ? c - 'A' + 10
				      : -1;
}

static int
digest_parse(const char *hex, uint8_t ret_digest[SPACE_DIGEST_BYTES])
{
	if (strlen(hex) != SPACE_DIGEST_BYTES * 2) {
		return -EINVAL;
	}
	for (size_t i = 0; i < SPACE_DIGEST_BYTES; i++) {
		int high = hex_digit(hex[i * 2]), low = hex_digit(hex[i * 2 + 1]);

		if (high < 0 || low < 0) {
			return -EINVAL;
		}
		ret_digest[i] = (uint8_t)(high << 4 | low);
	}
	return 0;
}

int
hr_space_open_name(struct hr_client *client, const char *name, struct hr_space **ret_space)
{
	uint8_t digest[SPACE_DIGEST_BYTES];
	struct hr_pair pair;
	int rc;

	if (client == NULL || name == NULL || name[0] == 0) {
		return -EINVAL;
	}
	if (strncmp(name, "sha256:", 7) == 0) {
		rc = digest_parse(name + 7, digest);
		if (rc != 0) {
			client_detail_set(client,
					  "space %.80s: sha256: and 64 hexadecimal digits are wanted",
					  name);
			return rc;
		}
		return hr_space_open_digest(client, digest, NULL, ret_space);
	}
	pair = (struct hr_pair){ .name = "name", .value = name, .value_len = strlen(name) };
	return hr_space_open(client, &pair, 1, ret_space);
}

void
hr_space_close(struct hr_space *space)
{
	if (space != NULL && !client_is_child(space->client)) {
		client_space_unref(space);
	}
}

void
hr_space_digest(const struct hr_space *space, uint8_t ret_digest[32])
{
	memcpy(ret_digest, space->digest, SPACE_DIGEST_BYTES);
}

int
hr_block_id(const struct hr_space *space, const void *key, size_t key_len, uint8_t ret_id[16])
{
	if (space == NULL || key == NULL || key_len == 0 || key_len > HR_KEY_BYTES_MAX) {
		return -EINVAL;
	}
	block_id_compute(&space->prefix, key, key_len, ret_id);
	return 0;
}

uint64_t
hr_route_of_id(const uint8_t id[16])
{
	return get_le64(id);
}

/* -- rows ------------------------------------------------------------------------------------------------------------------------ */

struct space_build {
	struct wire_space_request request;
	uint64_t quota_bytes, pin_budget_bytes; /* of the whole */
};

/* A shard's share of a sum, by weight, rounded up. */
static uint64_t
share(uint64_t sum, uint64_t weight, uint64_t weight_sum)
{
	if (sum == UINT64_MAX || sum == 0 || weight_sum == 0) {
		return sum;
	}
	return (uint64_t)(((unsigned __int128)sum * weight + weight_sum - 1) / weight_sum);
}

static void
space_request_build(void *arg, const struct core_shard *shard, uint64_t weight_sum,
		    struct wire_buf *buf)
{
	struct space_build *build = arg;
	struct wire_space_request request = build->request;

	request.quota_bytes = share(build->quota_bytes, shard->weight, weight_sum);
	request.pin_budget_bytes = share(build->pin_budget_bytes, shard->weight, weight_sum);
	wire_space_request_encode(buf, &request);
}

static void
row_add(struct hr_space_info *info, const struct wire_space_row *row)
{
	memcpy(info->digest, row->digest, sizeof(info->digest));
	if (info->label[0] == 0) {
		memcpy(info->label, row->label, sizeof(info->label));
		info->label[sizeof(info->label) - 1] = 0;
		utf8_clean(info->label);
	}
	info->blocks += row->blocks;
	info->bytes += row->bytes;
	info->quota_bytes += row->quota_bytes;
	info->pin_budget_bytes += row->pin_budget_bytes;
	info->pinned_bytes += row->pinned_bytes;
	info->generation_max = HR_MAX(info->generation_max, (uint64_t)row->generation);
	info->gets += row->gets;
	info->hits += row->hits;
	info->puts += row->puts;
}

/* One sub-operation on all shards; the rows that come back are summed. */
static int
space_all(struct hr_space *space, uint32_t sub, uint64_t quota_bytes, uint64_t pin_budget_bytes,
	  uint32_t timeout_ms, struct hr_space_info *ret_info)
{
	struct space_build build = { .request.sub = sub,
				     .quota_bytes = quota_bytes,
				     .pin_budget_bytes = pin_budget_bytes };
	struct fan fan = { .op = WIRE_SPACE,
			   .build = space_request_build,
			   .arg = &build,
			   .timeout_ms = timeout_ms,
			   .space = space };
	struct hr_space_info info = { 0 };
	const char *why;
	int rc;

	if (space == NULL) {
		return -EINVAL;
	}
	if (client_is_child(space->client)) {
		return -HR_EFORK;
	}
	rc = fan_run(space->client, &fan);
	if (rc == 0) {
		rc = fan_rc(&fan);
	}
	for (uint32_t i = 0; i < fan.calls_count && rc == 0; i++) {
		struct wire_buf *answer = &fan.calls[i].call.answer;
		struct wire_reader reader = { answer->bytes, answer->bytes + answer->len };
		struct wire_space_row row;

		rc = wire_space_row_decode(&reader, &row, &why);
		if (rc == 0) {
			row_add(&info, &row);
		}
	}
	fan_fini(&fan);
	if (rc == 0 && ret_info != NULL) {
		*ret_info = info;
	}
	return rc;
}

int
hr_space_usage(struct hr_space *space, uint32_t timeout_ms, struct hr_space_info *ret_info)
{
	return space_all(space, WIRE_SPACE_USAGE, 0, 0, timeout_ms, ret_info);
}

int
hr_space_drop(struct hr_space *space, uint32_t timeout_ms)
{
	return space_all(space, WIRE_SPACE_DROP, 0, 0, timeout_ms, NULL);
}

int
hr_space_set(struct hr_space *space, uint64_t quota_bytes, uint64_t pin_budget_bytes,
	     uint32_t timeout_ms)
{
	return space_all(space, WIRE_SPACE_SET, quota_bytes, pin_budget_bytes, timeout_ms, NULL);
}

/* -- all spaces ------------------------------------------------------------------------------------------------------------------ */

struct info_list {
	struct hr_space_info *infos;
	size_t count;
};

static int
info_list_add(struct info_list *list, const struct wire_space_row *row)
{
	struct hr_space_info *more;

	for (size_t i = 0; i < list->count; i++) {
		if (memcmp(list->infos[i].digest, row->digest, SPACE_DIGEST_BYTES) == 0) {
			row_add(&list->infos[i], row);
			return 0;
		}
	}
	more = reallocarray(list->infos, list->count + 1, sizeof(*more));
	if (more == NULL) {
		return -ENOMEM;
	}
	list->infos = more;
	more[list->count] = (struct hr_space_info){ 0 };
	row_add(&more[list->count++], row);
	return 0;
}

/* A page of one shard's answer. */
static int
space_page_take(struct wire_buf *answer, struct info_list *list, uint64_t *ret_cursor)
{
	struct wire_reader reader = { answer->bytes, answer->bytes + answer->len };
	struct wire_space_row row;
	const char *why;
	int rc = wire_u64_decode(&reader, ret_cursor, &why);

	while (rc == 0 && reader.at < reader.end) {
		rc = wire_space_row_decode(&reader, &row, &why);
		if (rc == 0) {
			rc = info_list_add(list, &row);
		}
	}
	return rc;
}

/* The pages behind a shard's first one. */
static int
space_pages_rest(struct hr_client *client, const uint8_t uuid[16], uint64_t cursor,
		 uint32_t timeout_ms, struct info_list *list)
{
	int rc = 0;

	while (cursor != 0 && rc == 0) {
		struct space_build build = { .request.sub = WIRE_SPACE_LIST,
					     .request.cursor = cursor };
		struct fan fan = { .op = WIRE_SPACE,
				   .build = space_request_build,
				   .arg = &build,
				   .timeout_ms = timeout_ms,
				   .uuid = uuid };

		rc = fan_run(client, &fan);
		if (rc == 0) {
			rc = fan_rc(&fan);
		}
		if (rc == 0) {
			rc = space_page_take(&fan.calls[0].call.answer, list, &cursor);
		}
		fan_fini(&fan);
	}
	return rc;
}

int
hr_space_list(struct hr_client *client, uint32_t timeout_ms, struct hr_space_info **ret_infos,
	      size_t *ret_count)
{
	struct space_build build = { .request.sub = WIRE_SPACE_LIST };
	struct fan fan = { .op = WIRE_SPACE,
			   .build = space_request_build,
			   .arg = &build,
			   .timeout_ms = timeout_ms };
	struct info_list list = { 0 };
	uint32_t answered = 0;
	int rc;

	if (client == NULL || ret_infos == NULL || ret_count == NULL) {
		return -EINVAL;
	}
	if (client_is_child(client)) {
		return -HR_EFORK;
	}
	rc = fan_run(client, &fan);
	for (uint32_t i = 0; i < fan.calls_count && rc == 0; i++) {
		uint64_t cursor = 0;

		if (fan.calls[i].call.rc != 0) {
			continue;
		}
		answered++;
		rc = space_page_take(&fan.calls[i].call.answer, &list, &cursor);
		if (rc == 0) {
			rc = space_pages_rest(client, fan.calls[i].shard.uuid, cursor, timeout_ms,
					      &list);
		}
	}
	if (rc == 0 && answered == 0) {
		rc = fan_rc(&fan);
	}
	fan_fini(&fan);
	if (rc != 0) {
		free(list.infos);
		return rc;
	}
	*ret_infos = list.infos;
	*ret_count = list.count;
	return 0;
}

/* -- blocks of a space ----------------------------------------------------------------------------------------------------------- */

struct hr_list_cursor {
	struct core_shard *shards;
	unsigned count, at;
	uint64_t cursor; /* of shard `at` */
};

static void
cursor_look(struct hr_client *client, void *arg)
{
	struct hr_list_cursor *cursor = arg;
	unsigned count = core_shards(client->core, NULL, 0);

	cursor->shards = calloc(HR_MAX(count, 1u), sizeof(*cursor->shards));
	if (cursor->shards != NULL) {
		cursor->count = core_shards(client->core, cursor->shards, count);
	}
}

static int
cursor_create(struct hr_client *client, uint32_t timeout_ms, struct hr_list_cursor **ret_cursor)
{
	struct hr_list_cursor *cursor;
	int rc = hr_client_ready(client, timeout_ms);

	if (rc != 0) {
		return rc;
	}
	cursor = calloc(1, sizeof(*cursor));
	if (cursor == NULL) {
		return -ENOMEM;
	}
	rc = client_run(client, cursor_look, cursor);
	if (rc != 0 || cursor->shards == NULL) {
		free(cursor);
		return rc != 0 ? rc : -ENOMEM;
	}
	*ret_cursor = cursor;
	return 0;
}

void
hr_list_cursor_free(struct hr_list_cursor *cursor)
{
	if (cursor != NULL) {
		free(cursor->shards);
		free(cursor);
	}
}

static void
list_build(void *arg, const struct core_shard *shard, uint64_t weight_sum, struct wire_buf *buf)
{
	(void)shard;
	(void)weight_sum;
	wire_list_head_encode(buf, arg);
}

/* Entries and their keys in one allocation. */
static int
list_entries_make(struct wire_reader reader, uint32_t count, size_t bytes,
		  struct hr_list_entry **ret_entries)
{
	struct hr_list_entry *entries = calloc(1, count * sizeof(*entries) + bytes);
	uint8_t *keys = (uint8_t *)(entries + count);
	const char *why;

	if (entries == NULL) {
		return -ENOMEM;
	}
	for (uint32_t i = 0; i < count; i++) {
		struct wire_list_entry entry;
		int rc = wire_list_entry_decode(&reader, &entry, &why);

		if (rc != 0) {
			free(entries);
			return rc;
		}
		memcpy(entries[i].id, entry.id, 16);
		memcpy(entries[i].parent, entry.parent, 16);
		entries[i].route = entry.route;
		entries[i].bytes = entry.block_bytes;
		entries[i].expiry_ms = entry.expiry_ms;
		entries[i].position = entry.position;
		entries[i].key_len = entry.key_len;
		entries[i].key = keys;
		memcpy(keys, entry.key, entry.key_len); /* never more than the answer's own bytes */
		keys += entry.key_len;
	}
	*ret_entries = entries;
	return 0;
}

static int
list_page(struct hr_space *space, struct hr_list_cursor *cursor, uint32_t max, uint32_t timeout_ms,
	  struct hr_list_entry **ret_entries, size_t *ret_count)
{
	struct wire_list_head head = { .cursor = cursor->cursor, .count = max };
	struct fan fan = { .op = WIRE_LIST,
			   .build = list_build,
			   .arg = &head,
			   .timeout_ms = timeout_ms,
			   .space = space,
			   .uuid = cursor->shards[cursor->at].uuid };
	struct wire_buf *answer;
	struct wire_reader reader;
	const char *why;
	int rc;

	*ret_count = 0;
	rc = fan_run(space->client, &fan);
	if (rc == 0) {
		rc = fan_rc(&fan);
	}
	if (rc == 0) {
		answer = &fan.calls[0].call.answer;
		reader = (struct wire_reader){ answer->bytes, answer->bytes + answer->len };
		rc = wire_list_head_decode(&reader, &head, &why);
		if (rc == 0 && head.count > answer->len) {
			rc = -HR_EPROTO;
		}
		if (rc == 0 && head.count > 0) {
			rc = list_entries_make(reader, head.count, answer->len, ret_entries);
		}
	}
	fan_fini(&fan);
	if (rc != 0) {
		return rc;
	}
	*ret_count = head.count;
	cursor->cursor = head.cursor;
	cursor->at += head.cursor == 0;
	return 0;
}

int
hr_list(struct hr_space *space, struct hr_list_cursor **cursor, uint32_t max, uint32_t timeout_ms,
	struct hr_list_entry **ret_entries, size_t *ret_count)
{
	struct hr_list_entry *entries = NULL;
	size_t count = 0;
	int rc;

	if (space == NULL || cursor == NULL || ret_entries == NULL || ret_count == NULL ||
	    max == 0) {
		return -EINVAL;
	}
	if (client_is_child(space->client)) {
		return -HR_EFORK;
	}
	if (*cursor == NULL) {
		rc = cursor_create(space->client, timeout_ms, cursor);
		if (rc != 0) {
			return rc;
		}
	}
	while (count == 0 && (*cursor)->at < (*cursor)->count) {
		rc = list_page(space, *cursor, HR_MIN(max, (uint32_t)LIST_MAX), timeout_ms,
			       &entries, &count);
		if (rc != 0) {
			return rc;
		}
	}
	if (count == 0) {
		hr_list_cursor_free(*cursor);
		*cursor = NULL;
	}
	*ret_entries = entries;
	*ret_count = count;
	return 0;
}
