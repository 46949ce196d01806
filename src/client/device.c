/* device.c - devices without a running store: format and check. */
#include <errno.h>
#include <headrace/headrace.h>
#include <jansson.h>
#include <limits.h>
#include <stdio.h>

#include "base/error.h"
#include "base/utf8.h"
#include "engine/check.h"
#include "engine/superblock.h"

static_assert((int)HR_DETAIL_BYTES == (int)DETAIL_BYTES, "one line is one line");

struct progress {
	uint64_t *done, *total; /* read by another thread */
};

static void
progress_cb(void *arg, uint64_t done_bytes, uint64_t total_bytes)
{
	struct progress *progress = arg;

	if (progress->total != NULL) {
		__atomic_store_n(progress->total, total_bytes, __ATOMIC_RELAXED);
	}
	if (progress->done != NULL) {
		__atomic_store_n(progress->done, done_bytes, __ATOMIC_RELAXED);
	}
}

static int
io_make(struct io **ret_io)
{
	struct io_options options = { .disk = IO_DISK_AUTO, .net = IO_NET_POLL };

	return io_create(&options, ret_io);
}

/* Every error has its line. */
static int
detail_give(int rc, const char *path, const char *text, char *detail)
{
	if (detail != NULL && rc != 0) {
		(void)snprintf(detail, HR_DETAIL_BYTES, text[0] != 0 ? "%.255s" : "%.150s: %s",
			       text[0] != 0 ? text : path, error_text(rc));
	} else if (detail != NULL) {
		(void)snprintf(detail, HR_DETAIL_BYTES, "%s", text);
	}
	return rc;
}

void
hr_format_options_init(struct hr_format_options *options)
{
	*options = (struct hr_format_options){ .size = sizeof(*options) };
}

int
hr_format(const char *path, const struct hr_format_options *options, char *detail)
{
	struct hr_format_options defaults;
	struct format_options format;
	struct progress progress;
	char text[DETAIL_BYTES] = "";
	struct io *io;
	int rc;

	hr_format_options_init(&defaults);
	options = options != NULL ? options : &defaults;
	if (path == NULL || options->size < sizeof(*options)) {
		return -EINVAL;
	}
	progress = (struct progress){ options->progress_done, options->progress_total };
	format = (struct format_options){
		.size_bytes = options->size_bytes,
		.segment_bytes = options->segment_bytes,
		.shards_count = options->shards_count,
		.force = options->force != 0,
		.prepare = true,
		.progress = progress_cb,
		.progress_arg = &progress,
	};
	rc = io_make(&io);
	if (rc != 0) {
		return detail_give(rc, path, "", detail);
	}
	rc = device_format(io, path, &format, text);
	io_destroy(io);
	return detail_give(rc, path, text, detail);
}

/* -- check ------------------------------------------------------------------------------------------------------------------------ */

void
hr_check_options_init(struct hr_check_options *options)
{
	*options = (struct hr_check_options){ .size = sizeof(*options), .findings_max = 1000 };
}

static json_t *
number(uint64_t value)
{
	return json_integer((json_int_t)value);
}

static void
hex(const uint8_t *bytes, size_t len, char *ret)
{
	for (size_t i = 0; i < len; i++) {
		(void)snprintf(ret + i * 2, 3, "%02x", bytes[i]);
	}
}

static json_t *
findings_json(const struct check_report *report)
{
	json_t *json = json_array();

	for (uint32_t i = 0; i < report->findings_count; i++) {
		const struct check_finding *finding = &report->findings[i];
		json_t *row = json_object();
		char id[33];

		json_object_set_new(row, "kind", json_string(check_kind_name(finding->kind)));
		json_object_set_new(row, "shard", number(finding->shard));
		if (finding->segment != UINT32_MAX) {
			json_object_set_new(row, "segment", number(finding->segment));
		}
		json_object_set_new(row, "offset", number(finding->off));
		if (finding->kind == CHECK_PAYLOAD) {
			hex(finding->id, sizeof(finding->id), id);
			json_object_set_new(row, "id", json_string(id));
		}
		json_object_set_new(row, "text", json_string(finding->text));
		json_array_append_new(json, row);
	}
	return json;
}

static json_t *
spaces_json(const struct check_report *report)
{
	json_t *json = json_array();

	for (uint32_t i = 0; i < report->spaces_count; i++) {
		const struct check_space *space = &report->spaces[i];
		char digest[65], label[sizeof(space->row.label) + 1] = "";
		json_t *row = json_object();

		memcpy(label, space->row.label, sizeof(space->row.label));
		utf8_clean(label);
		hex(space->row.digest, 32, digest);
		json_object_set_new(row, "shard", number(space->shard));
		json_object_set_new(row, "digest", json_string(digest));
		json_object_set_new(row, "label", json_string(label));
		json_object_set_new(row, "blocks", number(space->row.usage_blocks));
		json_object_set_new(row, "bytes", number(space->row.usage_bytes));
		json_object_set_new(row, "generation", number(space->row.generation));
		json_array_append_new(json, row);
	}
	return json;
}

static json_t *
report_json(const char *path, const struct check_report *report)
{
	json_t *json = json_object(), *kinds = json_object();
	char device[PATH_MAX];
	const struct {
		const char *name;
		uint64_t value;
	} rows[] = {
		{ "shards", report->shards_count },
		{ "blocks", report->blocks },
		{ "bytes", report->bytes },
		{ "blocks_damaged", report->blocks_damaged },
		{ "blocks_incomplete", report->blocks_incomplete },
		{ "damaged", report->damaged },
		{ "records", report->records },
		{ "records_dead", report->records_dead },
		{ "tombstones", report->tombstones },
		{ "segments", report->segments },
		{ "segments_free", report->segments_free },
		{ "segments_sealed", report->segments_sealed },
		{ "segments_open", report->segments_open },
		{ "segments_unprepared", report->segments_unprepared },
		{ "segments_unreadable", report->segments_unreadable },
		{ "payload_bytes_checked", report->payload_bytes_checked },
		{ "bytes_read", report->bytes_read },
	};

	snprintf(device, sizeof(device), "%s", path);
	utf8_clean(device);
	json_object_set_new(json, "device", json_string(device));
	for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
		json_object_set_new(json, rows[i].name, number(rows[i].value));
	}
	for (int kind = 0; kind < CHECK_KINDS_COUNT; kind++) {
		json_object_set_new(kinds, check_kind_name((enum check_kind)kind),
				    number(report->damaged_by_kind[kind]));
	}
	json_object_set_new(json, "damaged_by_kind", kinds);
	json_object_set_new(json, "spaces", spaces_json(report));
	json_object_set_new(json, "findings", findings_json(report));
	return json;
}

int
hr_check(const char *path, const struct hr_check_options *options, char **ret_json, char *detail)
{
	struct hr_check_options defaults;
	struct check_options check;
	struct check_report report;
	struct progress progress;
	char text[DETAIL_BYTES] = "";
	char *json_text;
	json_t *json;
	struct io *io;
	int rc;

	hr_check_options_init(&defaults);
	options = options != NULL ? options : &defaults;
	if (path == NULL || ret_json == NULL || options->size < sizeof(*options)) {
		return -EINVAL;
	}
	progress = (struct progress){ options->progress_done, options->progress_total };
	check = (struct check_options){
		.skip_payload = options->skip_payload != 0,
		.findings_max = options->findings_max,
		.progress = progress_cb,
		.arg = &progress,
	};
	rc = io_make(&io);
	if (rc != 0) {
		return detail_give(rc, path, "", detail);
	}
	rc = device_check(io, path, &check, &report, text);
	if (rc == 0) {
		json = report_json(path, &report);
		json_text = json_dumps(json, JSON_INDENT(2));
		json_decref(json);
		if (json_text != NULL) {
			*ret_json = json_text;
		} else {
			rc = -ENOMEM;
		}
	}
	check_report_fini(&report);
	io_destroy(io);
	return detail_give(rc, path, text, detail);
}
