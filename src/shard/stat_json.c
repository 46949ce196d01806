/* stat_json.c - names with units for what is counted. docs/ops/stat.md has the same list, with words. */
#include "shard/stat_json.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/base.h"
#include "base/utf8.h"
#include "shard/shard_impl.h"

const char *
stat_uuid_format(const uint8_t uuid[16], char ret_text[37])
{
	char *at = ret_text;

	for (int i = 0; i < 16; i++) {
		at += sprintf(at, "%s%02x", i == 4 || i == 6 || i == 8 || i == 10 ? "-" : "",
			      uuid[i]);
	}
	return ret_text;
}

static void
hex_format(const uint8_t *bytes, size_t len, char *ret_text)
{
	for (size_t i = 0; i < len; i++) {
		sprintf(ret_text + 2 * i, "%02x", bytes[i]);
	}
}

static void
set_u64(json_t *object, const char *name, uint64_t value)
{
	json_object_set_new(object, name, json_integer((json_int_t)value));
}

/* A counter under its own name. */
#define SET(object, from, field) set_u64((object), #field, (from)->field)

int
stat_engine_take(struct engine *engine, struct stat_engine *ret)
{
	struct space_row *row;
	uint32_t cursor = 0, cap = 0;

	ret->rows = NULL;
	ret->rows_count = 0;
	ret->slice = *engine_slice(engine);
	ret->ready = engine_ready(engine);
	engine_stat_get(engine, &ret->stat);
	while ((row = engine_space_next(engine, &cursor)) != NULL) {
		if (ret->rows_count == cap) {
			struct space_row *rows;

			cap = cap == 0 ? 16 : cap * 2;
			rows = realloc(ret->rows, cap * sizeof(*rows));
			if (rows == NULL) {
				stat_engine_fini(ret);
				return -ENOMEM;
			}
			ret->rows = rows;
		}
		ret->rows[ret->rows_count++] = *row;
	}
	return 0;
}

void
stat_engine_fini(struct stat_engine *engine)
{
	free(engine->rows);
	engine->rows = NULL;
	engine->rows_count = 0;
}

static json_t *
reasons_json(const uint64_t counts[HR_REASON_COUNT])
{
	json_t *object = json_object();

	for (int i = 1; i < HR_REASON_COUNT; i++) {
		set_u64(object, wire_reason_name(i), counts[i]);
	}
	return object;
}

static json_t *
dram_json(const struct engine_stat *stat)
{
	json_t *object = json_object();

	set_u64(object, "bytes_used", stat->arena_bytes_used);
	set_u64(object, "bytes_max", stat->arena_bytes_max);
	SET(object, &stat->cache, hits);
	SET(object, &stat->cache, misses);
	SET(object, &stat->cache, inserts);
	SET(object, &stat->cache, evictions);
	SET(object, &stat->cache, ghost_hits);
	SET(object, &stat->cache, alloc_failures);
	SET(object, &stat->cache, bytes);
	SET(object, &stat->cache, entries);
	SET(object, &stat->cache, bytes_pinned_by_refs);
	return object;
}

static json_t *
log_json(const struct log_counters *log)
{
	json_t *object = json_object();

	SET(object, log, units_written);
	SET(object, log, unit_bytes_written);
	SET(object, log, footer_bytes_written);
	SET(object, log, mark_bytes_written);
	SET(object, log, prepare_bytes_written);
	SET(object, log, syncs);
	SET(object, log, payload_bytes_fresh);
	SET(object, log, payload_bytes_survivor);
	SET(object, log, segments_sealed);
	SET(object, log, segments_freed);
	SET(object, log, appends_refused);
	SET(object, log, write_errors);
	SET(object, log, footers_damaged);
	SET(object, log, headers_damaged);
	SET(object, log, superblocks_damaged);
	SET(object, log, space_tables_damaged);
	SET(object, log, units_inflight);
	set_u64(object, "segments_free", log->free_count);
	set_u64(object, "segments_open", log->open_count);
	set_u64(object, "segments_sealed_now", log->sealed_count);
	return object;
}

static json_t *
recovered_json(const struct recover_result *result)
{
	json_t *object = json_object();

	SET(object, result, segments_sealed);
	SET(object, result, segments_free);
	SET(object, result, segments_walked);
	SET(object, result, segments_unreadable);
	SET(object, result, footers_damaged);
	SET(object, result, headers_damaged);
	SET(object, result, units_checked);
	SET(object, result, records_seen);
	SET(object, result, records_torn);
	SET(object, result, bytes_read);
	SET(object, result, duration_us);
	SET(object, result, footers_us);
	SET(object, result, tails_us);
	return object;
}

static void
operations_set(json_t *object, const struct engine_stat *stat)
{
	SET(object, stat, gets);
	SET(object, stat, get_hits_dram);
	SET(object, stat, get_hits_flash);
	json_object_set_new(object, "get_misses", reasons_json(stat->get_misses));
	SET(object, stat, flash_reads);
	SET(object, stat, flash_read_bytes);
	SET(object, stat, reads_shared);
	SET(object, stat, crc_failures);
	SET(object, stat, check_mismatches);
	SET(object, stat, read_errors);
	SET(object, stat, puts);
	SET(object, stat, put_duplicates);
	SET(object, stat, put_differs);
	SET(object, stat, puts_lost);
	SET(object, stat, replaces);
	json_object_set_new(object, "put_refused", reasons_json(stat->put_refused));
	SET(object, stat, deletes);
	SET(object, stat, exists_items);
	SET(object, stat, touches);
	SET(object, stat, prefetches);
	SET(object, stat, expired);
	SET(object, stat, reclaims);
	SET(object, stat, reclaim_survivor_records);
	SET(object, stat, reclaim_survivor_bytes);
	SET(object, stat, reclaim_evicted_blocks);
	SET(object, stat, reclaim_skipped_leased);
	SET(object, stat, reclaim_carried_leased);
	SET(object, stat, reclaim_corrupt);
	SET(object, stat, reclaim_evicted_kept);
	SET(object, stat, leases_now);
	SET(object, stat, lease_bytes_now);
	SET(object, stat, leases_refused);
	SET(object, stat, reads_now);
	SET(object, stat, reads_queued_now);
	SET(object, stat, reads_queued_high);
	SET(object, stat, reads_refused);
	SET(object, stat, puts_now);
	SET(object, stat, puts_high);
	SET(object, stat, lists_now);
	SET(object, stat, lists_refused);
	SET(object, stat, multipart_now);
	SET(object, stat, multipart_unfinished_now);
}

json_t *
stat_json_engine(const struct stat_engine *engine, const char *device)
{
	const struct engine_stat *stat = &engine->stat;
	json_t *object = json_object();
	char uuid[37];

	json_object_set_new(object, "uuid",
			    json_string(stat_uuid_format(engine->slice.shard_uuid, uuid)));
	json_object_set_new(object, "device", json_string(device != NULL ? device : ""));
	json_object_set_new(object, "device_uuid",
			    json_string(stat_uuid_format(engine->slice.device_uuid, uuid)));
	set_u64(object, "shard_idx", engine->slice.shard_idx);
	json_object_set_new(object, "ready", json_boolean(engine->ready));
	json_object_set_new(object, "failed", json_boolean(stat->failed));
	if (stat->failed) {
		json_object_set_new(object, "error",
				    json_string(strerror(stat->failed_errno < 0
							     ? -stat->failed_errno
							     : stat->failed_errno)));
	}
	json_object_set_new(object, "policy", json_string(stat->policy != NULL ? stat->policy : ""));
	SET(object, stat, blocks);
	SET(object, stat, records);
	SET(object, stat, bytes_live);
	SET(object, stat, bytes_capacity);
	set_u64(object, "weight_bytes", engine->slice.weight);
	set_u64(object, "segment_bytes", engine->slice.segment_bytes);
	set_u64(object, "segments_count", engine->slice.segments_count);
	set_u64(object, "segments_prepared", engine->slice.segments_prepared);
	set_u64(object, "part_bytes", engine->slice.part_bytes);
	SET(object, stat, index_bytes);
	SET(object, stat, policy_bytes);
	SET(object, stat, reason_bytes);
	SET(object, stat, reason_entries);
	SET(object, stat, payload_bytes);
	SET(object, stat, bytes_written_total);
	json_object_set_new(object, "write_amplification",
			    json_real(stat->payload_bytes == 0 ? 0.0
							       : (double)stat->bytes_written_total /
								     (double)stat->payload_bytes));
	operations_set(object, stat);
	json_object_set_new(object, "dram", dram_json(stat));
	json_object_set_new(object, "log", log_json(&stat->log));
	json_object_set_new(object, "recovered", recovered_json(&stat->recovered));
	return object;
}

json_t *
stat_json_sessions(const struct shard_stat *stat)
{
	json_t *object = json_object(), *requests = json_object(), *items = json_object();

	SET(object, stat, conns_now);
	SET(object, stat, conns_total);
	SET(object, stat, conns_refused);
	SET(object, stat, conns_handed_over);
	SET(object, stat, conns_ended_bad_input);
	SET(object, stat, conns_ended_stalled);
	SET(object, stat, conns_ended_hello_timeout);
	SET(object, stat, conns_ended_error);
	for (unsigned op = 0; op < ARRAY_SIZE(stat->requests); op++) {
		if (strcmp(wire_op_name(op), "unknown") != 0) {
			set_u64(requests, wire_op_name(op), stat->requests[op]);
			set_u64(items, wire_op_name(op), stat->items[op]);
		}
	}
	json_object_set_new(object, "requests", requests);
	json_object_set_new(object, "items", items);
	SET(object, stat, bytes_in);
	SET(object, stat, bytes_out);
	SET(object, stat, payload_bytes_in);
	SET(object, stat, payload_bytes_out);
	SET(object, stat, payload_bytes_shared);
	SET(object, stat, payload_bytes_discarded);
	SET(object, stat, requests_now);
	SET(object, stat, requests_high);
	SET(object, stat, requests_refused);
	SET(object, stat, output_bytes_now);
	SET(object, stat, output_bytes_high);
	SET(object, stat, put_bytes_now);
	SET(object, stat, put_bytes_high);
	SET(object, stat, stores_queued_now);
	SET(object, stat, stores_queued_high);
	SET(object, stat, stores_refused_busy);
	SET(object, stat, deadline_misses);
	SET(object, stat, cancelled_items);
	SET(object, stat, reads_paused);
	SET(object, stat, borrows_now);
	SET(object, stat, borrow_bytes_now);
	SET(object, stat, borrows_refused);
	SET(object, stat, staging_regions_now);
	SET(object, stat, staging_bytes_now);
	return object;
}

void
stat_sessions_add(struct shard_stat *to, const struct shard_stat *from)
{
	uint64_t *a = (uint64_t *)to;
	const uint64_t *b = (const uint64_t *)from;

	static_assert(sizeof(*to) % sizeof(uint64_t) == 0, "a shard_stat is all uint64_t");
	for (size_t i = 0; i < sizeof(*to) / sizeof(uint64_t); i++) {
		a[i] += b[i];
	}
}

static void
add_u64(json_t *object, const char *name, uint64_t value)
{
	set_u64(object, name, (uint64_t)json_integer_value(json_object_get(object, name)) + value);
}

static void
max_u64(json_t *object, const char *name, uint64_t value)
{
	set_u64(object, name,
		HR_MAX((uint64_t)json_integer_value(json_object_get(object, name)), value));
}

static json_t *
space_json(json_t *spaces, const struct space_row *row)
{
	char digest[65], tenant[33];
	json_t *space;
	size_t i;

	hex_format(row->digest, 32, digest);
	hex_format(row->tenant, 16, tenant);
	json_array_foreach(spaces, i, space)
	{
		if (strcmp(json_string_value(json_object_get(space, "digest")), digest) == 0 &&
		    strcmp(json_string_value(json_object_get(space, "tenant")), tenant) == 0) {
			return space;
		}
	}
	space = json_object();
	json_object_set_new(space, "digest", json_string(digest));
	json_object_set_new(space, "tenant", json_string(tenant));
	json_array_append_new(spaces, space);
	return space;
}

void
stat_json_spaces_add(json_t *spaces, const struct stat_engine *engine)
{
	for (uint32_t i = 0; i < engine->rows_count; i++) {
		const struct space_row *row = &engine->rows[i];
		json_t *space = space_json(spaces, row);
		char text[65] = { 0 };

		memcpy(text, row->label, sizeof(row->label));
		utf8_clean(text); /* images of before labels were cleaned */
		json_object_set_new(space, "label", json_string(text));
		max_u64(space, "generation", row->generation);
		add_u64(space, "blocks", row->usage_blocks);
		add_u64(space, "bytes", row->usage_bytes);
		add_u64(space, "quota_bytes", row->quota_bytes);
		add_u64(space, "pin_budget_bytes", row->pin_budget_bytes);
		add_u64(space, "pinned_bytes", row->pinned_bytes);
		add_u64(space, "dram_bytes", row->dram_bytes);
		add_u64(space, "gets", row->gets);
		add_u64(space, "hits", row->hits);
		add_u64(space, "puts", row->puts);
		add_u64(space, "evicted_blocks", row->evicted_blocks);
	}
}

char *
shard_stat_json(const struct shard *shard)
{
	json_t *root = json_object(), *shards = json_array(), *spaces = json_array();
	struct shard_engine *eng;
	char *text;

	list_for_each_entry(eng, &shard->engines, link) {
		struct stat_engine engine;

		if (stat_engine_take(eng->engine, &engine) == 0) {
			json_array_append_new(shards, stat_json_engine(&engine, NULL));
			stat_json_spaces_add(spaces, &engine);
			stat_engine_fini(&engine);
		}
	}
	json_object_set_new(root, "version", json_string(HR_VERSION));
	json_object_set_new(root, "shards", shards);
	json_object_set_new(root, "spaces", spaces);
	json_object_set_new(root, "sessions", stat_json_sessions(&shard->stat));
	text = json_dumps(root, JSON_COMPACT);
	json_decref(root);
	return text;
}
