/* trace_read.c — see trace_read.h. */
#include "cli/trace_read.h"

#include <ctype.h>
#include <errno.h>
#include <inttypes.h>
#include <jansson.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/hash.h"
#include "cli/trace_lines.h"

/* (parent, key) → node, for formats that name blocks by ids of their own. Open addressing, at most three quarters full. */
struct node_map {
	struct node_slot {
		uint64_t key;
		uint32_t parent;
		uint32_t node; /* 0: free */
	} * slots;
	size_t slots_count, used_count;
};

struct reader {
	const char *path;
	struct trace_lines *lines;
	struct trace *trace;
	struct node_map map;
	uint64_t *ids;
	size_t ids_count, ids_room;
	char *detail;
};

HR_PRINTF(3, 4) static int bad_line(struct reader *reader, int rc, const char *fmt, ...)
{
	char what[320];
	va_list args;

	va_start(args, fmt);
	vsnprintf(what, sizeof(what), fmt, args);
	va_end(args);
	snprintf(reader->detail, TRACE_DETAIL_BYTES, "%.180s:%" PRIu64 ": %s", reader->path,
		 trace_lines_number(reader->lines), what);
	return rc;
}

static int
append(struct reader *reader, const struct trace_row *row)
{
	struct trace *trace = reader->trace;
	int rc = trace_append(trace, row);

	if (rc == -EINVAL && row->hit_node >= trace->nodes_count) {
		return bad_line(reader, rc,
				"hit_node is %u, but only nodes up to %zu have appeared so far",
				row->hit_node, trace->nodes_count - 1);
	}
	if (rc == -EINVAL) {
		return bad_line(reader, rc, "hit_node %u belongs to model %u, the request to %u",
				row->hit_node, trace->node_model[row->hit_node], row->model);
	}
	if (rc == -E2BIG) {
		return bad_line(
		    reader, rc,
		    "too large: %u new blocks, model %u (at most %d blocks a request, %d models)",
		    row->new_count, row->model, TRACE_CHAIN_MAX, TRACE_MODELS_MAX);
	}
	return rc;
}

/* -- .kvt ---------------------------------------------------------------------------------------------------------------- */

static int
kvt_header(struct reader *reader, const char *line)
{
	unsigned long tokens;
	char *end;

	if (strncmp(line, "#name ", 6) == 0 && line[6] != '\0') {
		snprintf(reader->trace->name, sizeof(reader->trace->name), "%s", line + 6);
		return 0;
	}
	if (strncmp(line, "#block_tokens ", 14) != 0) {
		return 0;
	}
	errno = 0;
	tokens = strtoul(line + 14, &end, 10);
	if (errno != 0 || *end != '\0' || tokens == 0 || tokens > 1 << 20) {
		return bad_line(reader, -EINVAL,
				"block_tokens is \"%.40s\"; a number from 1 to 1048576 is wanted",
				line + 14);
	}
	reader->trace->block_tokens = (uint32_t)tokens;
	return 0;
}

static const char *const kvt_columns[] = { "t_ms",	 "session",  "model", "in_tokens",
					   "out_tokens", "hit_node", "n_new" };

static int
kvt_field(struct reader *reader, size_t i, char **at, int64_t *ret_value)
{
	bool last = i + 1 == ARRAY_SIZE(kvt_columns);
	bool may_be_negative = i < 2;
	char *end;
	long long value;

	errno = 0;
	value = strtoll(*at, &end, 10);
	if (end == *at || errno != 0) {
		return bad_line(reader, -EINVAL, "column %zu (%s) is \"%.*s\"; a number is wanted",
				i + 1, kvt_columns[i], (int)strcspn(*at, "\t"), *at);
	}
	if (*end != (last ? '\0' : '\t')) {
		return bad_line(reader, -EINVAL, "seven columns parted by tabs are wanted; %s",
				*end == '\0' ? "the line ends early" : "something follows a number");
	}
	if (value < INT32_MIN || (value < 0 && !may_be_negative) || (value > UINT32_MAX && i != 0)) {
		return bad_line(reader, -EINVAL, "column %zu (%s) is %lld, out of range", i + 1,
				kvt_columns[i], value);
	}
	*at = end + !last;
	*ret_value = value;
	return 0;
}

static int
kvt_line(struct reader *reader, char *line)
{
	int64_t v[ARRAY_SIZE(kvt_columns)];
	struct trace_row row;

	if (line[0] == '#') {
		return kvt_header(reader, line);
	}
	for (size_t i = 0; i < ARRAY_SIZE(kvt_columns); i++) {
		int rc = kvt_field(reader, i, &line, &v[i]);

		if (rc != 0) {
			return rc;
		}
	}
	row = (struct trace_row){
		.t_ms = v[0],
		.session = v[1],
		.model = (uint32_t)v[2],
		.in_tokens = (uint32_t)v[3],
		.out_tokens = (uint32_t)v[4],
		.hit_node = (uint32_t)v[5],
		.new_count = (uint32_t)v[6],
	};
	return append(reader, &row);
}

/* -- Mooncake's JSON lines ----------------------------------------------------------------------------------------------- */

static struct node_slot *
map_find(struct node_map *map, uint32_t parent, uint64_t key)
{
	size_t i = mix64(key * 0x9e3779b97f4a7c15ULL + parent) & (map->slots_count - 1);

	while (map->slots[i].node != 0 &&
	       (map->slots[i].parent != parent || map->slots[i].key != key)) {
		i = (i + 1) & (map->slots_count - 1);
	}
	return &map->slots[i];
}

static int
map_reserve(struct node_map *map, size_t count)
{
	struct node_map grown = { .slots_count = HR_MAX(map->slots_count, (size_t)4096),
				  .used_count = map->used_count };

	if ((map->used_count + count) * 4 <= map->slots_count * 3) {
		return 0;
	}
	while ((grown.used_count + count) * 4 > grown.slots_count * 3) {
		grown.slots_count *= 2;
	}
	grown.slots = calloc(grown.slots_count, sizeof(*grown.slots));
	if (grown.slots == NULL) {
		return -ENOMEM;
	}
	for (size_t i = 0; i < map->slots_count; i++) {
		struct node_slot *s = &map->slots[i];

		if (s->node != 0) {
			*map_find(&grown, s->parent, s->key) = *s;
		}
	}
	free(map->slots);
	*map = grown;
	return 0;
}

static int
ids_push(struct reader *reader, uint64_t id)
{
	if (reader->ids_count == TRACE_CHAIN_MAX) {
		return bad_line(reader, -E2BIG, "hash_ids has more than %d entries",
				TRACE_CHAIN_MAX);
	}
	if (reader->ids_count == reader->ids_room) {
		size_t room = reader->ids_room * 2 + 1024;
		uint64_t *grown = realloc(reader->ids, room * sizeof(*grown));

		if (grown == NULL) {
			return -ENOMEM;
		}
		reader->ids = grown;
		reader->ids_room = room;
	}
	reader->ids[reader->ids_count++] = id;
	return 0;
}

/* "0 14+13": 0, then 14 … 27. */
static int
parse_runs(struct reader *reader, const char *runs)
{
	const char *at = runs;

	for (;;) {
		unsigned long long first, more = 0;
		char *end;

		while (*at == ' ') {
			at++;
		}
		if (*at == '\0') {
			return 0;
		}
		errno = 0;
		first = isdigit((unsigned char)*at) ? strtoull(at, &end, 10) : (end = (char *)at, 0);
		if (end != at && *end == '+' && isdigit((unsigned char)end[1])) {
			more = strtoull(end + 1, &end, 10);
		}
		if (end == at || errno != 0 || (*end != ' ' && *end != '\0') ||
		    more >= TRACE_CHAIN_MAX) {
			return bad_line(
			    reader, -EINVAL,
			    "hash_ids has \"%.40s\"; runs like \"14+13\" or numbers are wanted", at);
		}
		for (unsigned long long i = 0; i <= more; i++) {
			int rc = ids_push(reader, first + i);

			if (rc != 0) {
				return rc;
			}
		}
		at = end;
	}
}

static int
parse_hash_ids(struct reader *reader, const json_t *value)
{
	size_t count = json_array_size(value);

	reader->ids_count = 0;
	if (json_is_string(value)) {
		return parse_runs(reader, json_string_value(value));
	}
	if (!json_is_array(value)) {
		return bad_line(reader, -EINVAL,
				value == NULL ? "hash_ids is missing"
					      : "hash_ids is neither an array nor runs");
	}
	for (size_t i = 0; i < count; i++) {
		const json_t *id = json_array_get(value, i);
		int rc;

		if (!json_is_integer(id)) {
			return bad_line(reader, -EINVAL, "hash_ids[%zu] is not an integer", i);
		}
		rc = ids_push(reader, (uint64_t)json_integer_value(id));
		if (rc != 0) {
			return rc;
		}
	}
	return 0;
}

static int
number_field(struct reader *reader, const json_t *object, const char *name, bool needed, double max,
	     int64_t *ret_value)
{
	const json_t *value = json_object_get(object, name);
	double v;

	if (value == NULL && !needed) {
		return 0;
	}
	if (!json_is_number(value)) {
		return bad_line(reader, -EINVAL, "%s is %s; a number is wanted", name,
				value == NULL ? "missing" : "not a number");
	}
	v = json_number_value(value);
	if (!(v >= 0 && v <= max)) {
		return bad_line(reader, -EINVAL, "%s is %g, out of range", name, v);
	}
	*ret_value = (int64_t)v;
	return 0;
}

/* Follows the ids that are known, then adds the rest as one chain. */
static int
add_chain(struct reader *reader, struct trace_row *row)
{
	struct node_map *map = &reader->map;
	uint32_t node = 0;
	size_t i = 0;
	int rc = map_reserve(map, reader->ids_count);

	if (rc != 0) {
		return rc;
	}
	for (; i < reader->ids_count; i++) {
		const struct node_slot *slot = map_find(map, node, reader->ids[i]);

		if (slot->node == 0) {
			break;
		}
		node = slot->node;
	}
	row->hit_node = node;
	row->new_count = (uint32_t)(reader->ids_count - i);
	rc = append(reader, row);
	if (rc != 0) {
		return rc;
	}
	for (; i < reader->ids_count; i++) {
		struct node_slot *slot = map_find(map, node, reader->ids[i]);

		slot->parent = node;
		slot->key = reader->ids[i];
		node = slot->node = (uint32_t)(reader->trace->nodes_count - (reader->ids_count - i));
		map->used_count++;
	}
	return 0;
}

static int
mooncake_line(struct reader *reader, const char *line, size_t len)
{
	int64_t t_ms = 0, in_tokens = 0, out_tokens = 0;
	struct trace_row row = { .session = -1 };
	json_error_t error;
	json_t *object = json_loadb(line, len, 0, &error);
	int rc;

	if (!json_is_object(object)) {
		json_decref(object);
		return bad_line(reader, -EINVAL, "not a JSON object: %.120s",
				object == NULL ? error.text : "another kind of value");
	}
	rc = number_field(reader, object, "timestamp", true, 1e15, &t_ms);
	if (rc == 0) {
		rc = number_field(reader, object, "input_length", true, UINT32_MAX, &in_tokens);
	}
	if (rc == 0) {
		rc = number_field(reader, object, "output_length", false, UINT32_MAX, &out_tokens);
	}
	if (rc == 0) {
		rc = parse_hash_ids(reader, json_object_get(object, "hash_ids"));
	}
	json_decref(object);
	if (rc != 0) {
		return rc;
	}
	row.t_ms = t_ms;
	row.in_tokens = (uint32_t)in_tokens;
	row.out_tokens = (uint32_t)out_tokens;
	return add_chain(reader, &row);
}

/* -- both ---------------------------------------------------------------------------------------------------------------- */

/* "dir/conversation_trace.jsonl.xz" is called "conversation_trace". */
static void
name_from_path(const char *path, char name[TRACE_NAME_BYTES])
{
	const char *base = strrchr(path, '/');

	base = base == NULL ? path : base + 1;
	snprintf(name, TRACE_NAME_BYTES, "%.*s", (int)strcspn(base, "."), base);
	if (name[0] == '\0' || strcmp(path, "-") == 0) {
		snprintf(name, TRACE_NAME_BYTES, "trace");
	}
}

static int
read_lines(struct reader *reader, uint64_t requests_max)
{
	enum { FORMAT_UNKNOWN, FORMAT_KVT, FORMAT_MOONCAKE } format = FORMAT_UNKNOWN;

	while (requests_max == 0 || reader->trace->requests_count < requests_max) {
		char *line;
		size_t len;
		int rc = trace_lines_next(reader->lines, &line, &len, reader->detail);

		if (rc <= 0) {
			return rc;
		}
		if (strspn(line, " \t") == len) {
			continue;
		}
		if (format == FORMAT_UNKNOWN) {
			char first = line[strspn(line, " \t")];

			if (first != '{' && first != '#' && first != '-' &&
			    !isdigit((unsigned char)first)) {
				return bad_line(reader, -EINVAL,
						"neither a .kvt trace nor JSON lines with hash_ids");
			}
			format = first == '{' ? FORMAT_MOONCAKE : FORMAT_KVT;
		}
		rc = format == FORMAT_MOONCAKE ? mooncake_line(reader, line, len)
					       : kvt_line(reader, line);
		if (rc != 0) {
			return rc;
		}
	}
	return 0;
}

int
trace_read(const char *path, uint64_t requests_max, struct trace **ret_trace, char *detail)
{
	struct reader reader = { .path = path, .detail = detail };
	char name[TRACE_NAME_BYTES];
	int rc;

	detail[0] = '\0';
	name_from_path(path, name);
	rc = trace_lines_open(path, &reader.lines, detail);
	if (rc == 0) {
		rc = trace_create(name, TRACE_MOONCAKE_BLOCK_TOKENS, &reader.trace);
	}
	if (rc == 0) {
		rc = read_lines(&reader, requests_max);
	}
	if (rc == 0 && reader.trace->requests_count == 0) {
		snprintf(detail, TRACE_DETAIL_BYTES, "%s: no request in it", path);
		rc = -ENODATA;
	}
	trace_lines_close(reader.lines);
	free(reader.map.slots);
	free(reader.ids);
	if (rc != 0) {
		trace_destroy(reader.trace);
		if (detail[0] == '\0') {
			snprintf(detail, TRACE_DETAIL_BYTES, "%s: %s", path, strerror(-rc));
		}
		return rc;
	}
	*ret_trace = reader.trace;
	return 0;
}
