/* stat_summary.c — see stat_summary.h. */
#include "cli/stat_summary.h"

#include "base/size.h"
#include "cli/stat_text.h"

enum { TEXT_BYTES = 64, LABEL_COLUMNS = 34 };

/* One node now and, where it was there then, before. */
struct look {
	const json_t *now, *before;
	double seconds;
	FILE *out;
};

/* -- figures ------------------------------------------------------------------------------------------------------------- */

/* "a.b" goes into objects and sums over arrays. */
static double
sum(const json_t *value, const char *path)
{
	const char *dot = strchr(path, '.');
	char name[TEXT_BYTES];
	double total = 0;
	json_t *child;
	size_t i;

	if (json_is_array(value)) {
		json_array_foreach((json_t *)value, i, child)
		{
			total += sum(child, path);
		}
		return total;
	}
	snprintf(name, sizeof(name), "%.*s", dot != NULL ? (int)(dot - path) : (int)strlen(path),
		 path);
	child = json_object_get(value, name);
	return dot != NULL ? sum(child, dot + 1) : json_number_value(child);
}

static const char *
text_of(const json_t *object, const char *name)
{
	const char *text = json_string_value(json_object_get(object, name));

	return text != NULL ? text : "";
}

static const char *
number(double value, char text[TEXT_BYTES])
{
	stat_text_number("", value, true, text, TEXT_BYTES);
	return text;
}

static const char *
bytes(double value, char text[TEXT_BYTES])
{
	size_format_short(value < 0 ? 0 : (uint64_t)value, text);
	return text;
}

/* " (+123/s)", or nothing when nothing is known or happened. */
static const char *
rate(const struct look *look, const char *path, bool is_bytes, char text[TEXT_BYTES])
{
	double grown = look->before == NULL ? 0 : sum(look->now, path) - sum(look->before, path);
	char figure[TEXT_BYTES];

	text[0] = '\0';
	if (grown > 0 && look->seconds > 0) {
		grown /= look->seconds;
		if (is_bytes) {
			bytes(grown, figure);
		} else {
			stat_text_number("", grown, grown >= 100, figure, TEXT_BYTES);
		}
		snprintf(text, TEXT_BYTES, " (+%.40s/s)", figure);
	}
	return text;
}

static double
percent(double part, double whole)
{
	return whole > 0 ? 100 * part / whole : 0;
}

static void
heading(const struct look *look, const char *name)
{
	fprintf(look->out, "  %-13s", name);
}

/* "absent 12, evicted 3": those of the listed paths that are not zero. False: all are. */
struct named {
	const char *path, *name;
};
static bool
print_named(const struct look *look, const char *title, const struct named *list, size_t count)
{
	char text[TEXT_BYTES];
	bool any = false;

	for (size_t i = 0; i < count; i++) {
		double value = sum(look->now, list[i].path);

		if (value <= 0) {
			continue;
		}
		if (!any) {
			heading(look, title);
		}
		fprintf(look->out, "%s%s %s", any ? ", " : "", list[i].name, number(value, text));
		any = true;
	}
	if (any) {
		fputc('\n', look->out);
	}
	return any;
}

/* The counters of a {reason: n} object, summed over the shards. */
static void
print_reasons(const struct look *look, const char *title, const char *member)
{
	const json_t *shard = json_array_get(json_object_get(look->now, "shards"), 0);
	const json_t *reasons = json_object_get(shard, member);
	char path[TEXT_BYTES], text[TEXT_BYTES];
	bool any = false;
	const char *name;
	json_t *value;

	json_object_foreach((json_t *)reasons, name, value)
	{
		double count;

		snprintf(path, sizeof(path), "shards.%s.%s", member, name);
		count = sum(look->now, path);
		if (count <= 0) {
			continue;
		}
		if (!any) {
			heading(look, title);
		}
		fprintf(look->out, "%s%s %s", any ? ", " : "", name, number(count, text));
		any = true;
	}
	if (any) {
		fputc('\n', look->out);
	}
}

/* -- lines --------------------------------------------------------------------------------------------------------------- */

static const char *
uptime(double seconds, char text[TEXT_BYTES])
{
	unsigned long long s = (unsigned long long)seconds;

	if (s < 120) {
		snprintf(text, TEXT_BYTES, "%llu s", s);
	} else if (s < 7200) {
		snprintf(text, TEXT_BYTES, "%llu min", s / 60);
	} else if (s < 172800) {
		snprintf(text, TEXT_BYTES, "%llu h %llu min", s / 3600, s / 60 % 60);
	} else {
		snprintf(text, TEXT_BYTES, "%llu days %llu h", s / 86400, s / 3600 % 24);
	}
	return text;
}

static void
print_node(const struct look *look)
{
	const json_t *backend = json_object_get(look->now, "backend");
	char text[TEXT_BYTES];

	fprintf(look->out, "node %.8s      %s, up %s, version %s\n", text_of(look->now, "node_uuid"),
		json_is_true(json_object_get(look->now, "ready")) ? "ready" : "NOT READY",
		uptime(sum(look->now, "uptime_s"), text), text_of(look->now, "version"));
	heading(look, "addresses");
	fprintf(look->out, "%s\n", text_of(look->now, "addresses"));
	heading(look, "threads");
	fprintf(look->out, "%s (%s, %s%s%s)\n", number(sum(look->now, "threads"), text),
		text_of(backend, "disk"), text_of(backend, "net"),
		text_of(backend, "note")[0] != '\0' ? "; " : "", text_of(backend, "note"));
}

static void
print_devices(const struct look *look)
{
	char size[TEXT_BYTES];
	json_t *device;
	size_t i;

	json_array_foreach(json_object_get(look->now, "devices"), i, device)
	{
		const char *error = text_of(device, "error");

		heading(look, i == 0 ? "devices" : "");
		fprintf(look->out, "%s: %s, %s%s%s%s\n", text_of(device, "path"),
			text_of(device, "state"), bytes(sum(device, "size_bytes"), size),
			json_is_true(json_object_get(device, "direct")) ? "" : ", buffered",
			error[0] != '\0' ? ": " : "", error);
	}
}

static void
print_room(const struct look *look)
{
	double live = sum(look->now, "shards.bytes_live"),
	       capacity = sum(look->now, "shards.bytes_capacity"),
	       payload = sum(look->now, "shards.payload_bytes");
	char a[TEXT_BYTES], b[TEXT_BYTES], c[TEXT_BYTES];

	heading(look, "flash");
	fprintf(look->out, "%s of %s (%.0f %%), %s blocks", bytes(live, a), bytes(capacity, b),
		percent(live, capacity), number(sum(look->now, "shards.blocks"), c));
	if (payload > 0) {
		fprintf(look->out, "; write amplification %.2f",
			sum(look->now, "shards.bytes_written_total") / payload);
	}
	fputc('\n', look->out);
	heading(look, "DRAM");
	fprintf(look->out, "%s of %s\n", bytes(sum(look->now, "shards.dram.bytes_used"), a),
		bytes(sum(look->now, "shards.dram.bytes_max"), b));
}

static void
print_work(const struct look *look)
{
	double gets = sum(look->now, "shards.gets"), dram = sum(look->now, "shards.get_hits_dram"),
	       flash = sum(look->now, "shards.get_hits_flash");
	char a[TEXT_BYTES], b[TEXT_BYTES], c[TEXT_BYTES], d[TEXT_BYTES];

	heading(look, "GET");
	fprintf(look->out, "%s%s: %.1f %% from DRAM, %.1f %% from flash, %.1f %% missed\n",
		number(gets, a), rate(look, "shards.gets", false, b), percent(dram, gets),
		percent(flash, gets), percent(gets - dram - flash, gets));
	print_reasons(look, "  missed", "get_misses");
	heading(look, "PUT");
	fprintf(look->out, "%s%s, %s%s; %s were there already\n",
		number(sum(look->now, "shards.puts"), a), rate(look, "shards.puts", false, b),
		bytes(sum(look->now, "shards.payload_bytes"), c),
		rate(look, "shards.payload_bytes", true, d),
		number(sum(look->now, "shards.put_duplicates"), (char[TEXT_BYTES]){ 0 }));
	print_reasons(look, "  refused", "put_refused");
	heading(look, "EXISTS");
	fprintf(look->out, "%s%s\n", number(sum(look->now, "shards.exists_items"), a),
		rate(look, "shards.exists_items", false, b));
	if (sum(look->now, "shards.reclaims") > 0) {
		heading(look, "reclaim");
		fprintf(look->out, "%s segments%s, %s carried, %s blocks evicted\n",
			number(sum(look->now, "shards.reclaims"), a),
			rate(look, "shards.reclaims", false, b),
			bytes(sum(look->now, "shards.reclaim_survivor_bytes"), c),
			number(sum(look->now, "shards.reclaim_evicted_blocks"), d));
	}
}

static void
print_wire(const struct look *look)
{
	static const struct named queues[] = {
		{ "sessions.requests_high", "requests" },
		{ "sessions.stores_queued_high", "stores" },
		{ "shards.reads_queued_high", "flash reads" },
		{ "io.device_queue_high", "device operations" },
	};
	static const struct named now[] = {
		{ "sessions.requests_now", "requests" },
		{ "sessions.stores_queued_now", "stores" },
		{ "shards.reads_queued_now", "flash reads" },
		{ "shards.leases_now", "leases" },
		{ "sessions.borrows_now", "borrows" },
	};
	char a[TEXT_BYTES], b[TEXT_BYTES], c[TEXT_BYTES], d[TEXT_BYTES], e[TEXT_BYTES];

	heading(look, "connections");
	fprintf(look->out, "%s now; %s%s in, %s%s out\n",
		number(sum(look->now, "sessions.conns_now"), a),
		bytes(sum(look->now, "sessions.bytes_in"), b),
		rate(look, "sessions.bytes_in", true, c),
		bytes(sum(look->now, "sessions.bytes_out"), d),
		rate(look, "sessions.bytes_out", true, e));
	(void)print_named(look, "queues now", now, ARRAY_SIZE(now));
	(void)print_named(look, "queues most", queues, ARRAY_SIZE(queues));
}

/* What should be zero. */
static void
print_problems(const struct look *look)
{
	static const struct named problems[] = {
		{ "threads_silent", "threads that do not answer" },
		{ "io.device_errors", "device errors" },
		{ "io.device_queue_refused", "device operations refused" },
		{ "shards.read_errors", "flash reads failed" },
		{ "shards.check_mismatches", "damaged on flash" },
		{ "shards.crc_failures", "damaged on the way" },
		{ "shards.reclaim_corrupt", "damaged survivors" },
		{ "shards.log.write_errors", "writes failed" },
		{ "shards.recovered.footers_damaged", "footers damaged at the start" },
		{ "shards.recovered.headers_damaged", "headers damaged at the start" },
		{ "shards.reclaim_evicted_kept", "leased or pinned blocks lost" },
		{ "shards.reads_refused", "reads refused" },
		{ "sessions.conns_refused", "connections refused" },
		{ "sessions.conns_ended_bad_input", "ended for bad input" },
		{ "sessions.conns_ended_stalled", "ended as stalled" },
		{ "sessions.stores_refused_busy", "stores refused as busy" },
		{ "sessions.deadline_misses", "deadlines missed" },
	};
	json_t *shard;
	size_t i;

	json_array_foreach(json_object_get(look->now, "shards"), i, shard)
	{
		if (json_is_true(json_object_get(shard, "failed"))) {
			heading(look, "FAILED");
			fprintf(look->out, "shard %.8s on %s: %s\n", text_of(shard, "uuid"),
				text_of(shard, "device"), text_of(shard, "error"));
		}
	}
	(void)print_named(look, "problems", problems, ARRAY_SIZE(problems));
}

static void
print_spaces(const struct look *look)
{
	const json_t *spaces = json_object_get(look->now, "spaces");
	char a[TEXT_BYTES], b[TEXT_BYTES], c[TEXT_BYTES], d[TEXT_BYTES];
	json_t *space;
	size_t i;

	json_array_foreach(spaces, i, space)
	{
		double gets = sum(space, "gets"), quota = sum(space, "quota_bytes");
		const char *label = text_of(space, "label");

		if (i == 0) {
			fprintf(look->out, "\n  %-*s %12s %11s %12s %7s  %s\n", LABEL_COLUMNS,
				"space", "blocks", "bytes", "GETs", "hits", "quota");
		}
		fprintf(look->out, "  %-*.*s %12s %11s %12s %6.1f%%  %s\n", LABEL_COLUMNS,
			LABEL_COLUMNS, label[0] != '\0' ? label : text_of(space, "digest"),
			number(sum(space, "blocks"), a), bytes(sum(space, "bytes"), b),
			number(gets, c), percent(sum(space, "hits"), gets),
			quota > 0 ? bytes(quota, d) : "-");
	}
}

static const json_t *
node_before(const json_t *before, const char *uuid)
{
	json_t *node;
	size_t i;

	json_array_foreach(json_object_get(before, "nodes"), i, node)
	{
		if (strcmp(text_of(node, "node_uuid"), uuid) == 0) {
			return node;
		}
	}
	return NULL;
}

void
stat_summary_print(const json_t *now, const json_t *before, double seconds, FILE *out)
{
	json_t *node;
	size_t i;

	json_array_foreach(json_object_get(now, "nodes"), i, node)
	{
		const struct look look = { .now = node,
					   .before = node_before(before, text_of(node, "node_uuid")),
					   .seconds = seconds,
					   .out = out };

		if (i > 0) {
			fputc('\n', out);
		}
		if (json_object_get(node, "node_uuid") == NULL) {
			fprintf(out, "a node that does not answer: %s\n", text_of(node, "error"));
			continue;
		}
		print_node(&look);
		print_devices(&look);
		print_room(&look);
		print_work(&look);
		print_wire(&look);
		print_problems(&look);
		print_spaces(&look);
	}
}
