/* metrics.c - the table of metrics.
 *
 * What is counted per shard is there once per shard, with its UUID and device as labels; per space with its label and digest. Sums are
 * left to whoever reads: Prometheus has sum(), and a sum hides the one device that is slow.
 */
#include "server/metrics.h"

#include <stdlib.h>
#include <string.h>

#include "base/base.h"

enum metric_scope { OF_NODE, OF_SHARD, OF_SPACE, OF_DEVICE };
enum metric_kind { COUNTER, GAUGE };

struct metric_row {
	enum metric_scope scope;
	enum metric_kind kind;
	const char *name;  /* without "headrace_" */
	const char *path;  /* in the JSON object of its scope: "dram.hits" */
	const char *label; /* the object there is {label's value: number}; NULL = a number */
	const char *help;
};

/* clang-format off */
static const struct metric_row rows[] = {
	{ OF_NODE, GAUGE, "up_seconds", "uptime_s", NULL, "Seconds since the node started" },
	{ OF_NODE, GAUGE, "ready", "ready", NULL, "1 when every shard that has not failed serves" },
	{ OF_NODE, GAUGE, "map_epoch", "map_epoch", NULL, "Epoch of the map of shards" },
	{ OF_NODE, GAUGE, "threads", "threads", NULL, "Threads with shards" },
	{ OF_NODE, GAUGE, "threads_silent", "threads_silent", NULL, "Threads that did not answer when these figures were collected" },
	{ OF_NODE, COUNTER, "control_refused_total", "control_refused", NULL, "Control messages between threads that found a full queue: connections handed over, statistics" },
	{ OF_NODE, GAUGE, "dram_bytes_max", "dram_bytes_max", NULL, "DRAM tier of the node" },
	{ OF_NODE, COUNTER, "io_device_reads_total", "io.device_reads", NULL, "Device reads" },
	{ OF_NODE, COUNTER, "io_device_writes_total", "io.device_writes", NULL, "Device writes" },
	{ OF_NODE, COUNTER, "io_device_syncs_total", "io.device_syncs", NULL, "Device flushes" },
	{ OF_NODE, COUNTER, "io_device_errors_total", "io.device_errors", NULL, "Device operations that failed" },
	{ OF_NODE, COUNTER, "io_device_read_bytes_total", "io.device_read_bytes", NULL, "Bytes read from devices" },
	{ OF_NODE, COUNTER, "io_device_write_bytes_total", "io.device_write_bytes", NULL, "Bytes written to devices" },
	{ OF_NODE, GAUGE, "io_device_queue_high", "io.device_queue_high", NULL, "Most device operations that waited in a thread's queue" },
	{ OF_NODE, COUNTER, "io_device_queue_refused_total", "io.device_queue_refused", NULL, "Device operations that found that queue full" },
	{ OF_NODE, GAUGE, "io_registered_bytes", "io.registered_bytes", NULL, "Memory that is pinned for device operations (io_uring)" },
	{ OF_NODE, COUNTER, "net_receive_bytes_total", "io.net_recv_bytes", NULL, "Bytes received" },
	{ OF_NODE, COUNTER, "net_send_bytes_total", "io.net_send_bytes", NULL, "Bytes sent" },
	{ OF_NODE, COUNTER, "net_accepts_failed_total", "io.net_accepts_failed", NULL, "Times that a connection could not be taken for want of open files or memory; it waits" },
	{ OF_NODE, GAUGE, "connections", "sessions.conns_now", NULL, "Connections" },
	{ OF_NODE, COUNTER, "connections_total", "sessions.conns_total", NULL, "Connections accepted or taken over from another thread" },
	{ OF_NODE, COUNTER, "connections_refused_total", "sessions.conns_refused", NULL, "Connections refused: too many, wrong shard or version, draining" },
	{ OF_NODE, COUNTER, "connections_handed_over_total", "sessions.conns_handed_over", NULL, "Connections handed to another thread at HELLO" },
	{ OF_NODE, COUNTER, "connections_ended_bad_input_total", "sessions.conns_ended_bad_input", NULL, "Connections ended because the peer broke the protocol" },
	{ OF_NODE, COUNTER, "connections_ended_stalled_total", "sessions.conns_ended_stalled", NULL, "Connections ended because the peer took nothing, or stopped within a frame" },
	{ OF_NODE, COUNTER, "connections_ended_hello_timeout_total", "sessions.conns_ended_hello_timeout", NULL, "Connections ended because the peer said no HELLO" },
	{ OF_NODE, COUNTER, "connections_ended_error_total", "sessions.conns_ended_error", NULL, "Connections ended by an error of the network" },
	{ OF_NODE, COUNTER, "requests_total", "sessions.requests", "op", "Requests" },
	{ OF_NODE, COUNTER, "request_items_total", "sessions.items", "op", "Items of requests" },
	{ OF_NODE, COUNTER, "requests_refused_total", "sessions.requests_refused", NULL, "Requests refused whole" },
	{ OF_NODE, COUNTER, "payload_in_bytes_total", "sessions.payload_bytes_in", NULL, "Payload of puts that were begun" },
	{ OF_NODE, COUNTER, "payload_out_bytes_total", "sessions.payload_bytes_out", NULL, "Payload sent through sockets" },
	{ OF_NODE, COUNTER, "payload_shared_bytes_total", "sessions.payload_bytes_shared", NULL, "Payload given in shared memory" },
	{ OF_NODE, COUNTER, "payload_discarded_bytes_total", "sessions.payload_bytes_discarded", NULL, "Payload of refused puts, read into nowhere" },
	{ OF_NODE, GAUGE, "queue_requests", "sessions.requests_now", NULL, "Requests under way" },
	{ OF_NODE, GAUGE, "queue_requests_high", "sessions.requests_high", NULL, "Most requests under way in a thread, summed over threads" },
	{ OF_NODE, GAUGE, "queue_output_bytes", "sessions.output_bytes_now", NULL, "Answers queued" },
	{ OF_NODE, GAUGE, "queue_output_bytes_high", "sessions.output_bytes_high", NULL, "Most answers queued in a thread, summed over threads" },
	{ OF_NODE, GAUGE, "queue_put_bytes", "sessions.put_bytes_now", NULL, "Payload of puts under way" },
	{ OF_NODE, GAUGE, "queue_put_bytes_high", "sessions.put_bytes_high", NULL, "Most payload of puts under way in a thread, summed over threads" },
	{ OF_NODE, GAUGE, "queue_stores", "sessions.stores_queued_now", NULL, "Values that are complete and wait for loads to go first" },
	{ OF_NODE, GAUGE, "queue_stores_high", "sessions.stores_queued_high", NULL, "Most of them in a thread, summed over threads" },
	{ OF_NODE, COUNTER, "queue_reads_paused_total", "sessions.reads_paused", NULL, "Times that nothing more was read from a connection because one of its bounds was reached" },
	{ OF_NODE, COUNTER, "stores_refused_busy_total", "sessions.stores_refused_busy", NULL, "Puts refused as busy" },
	{ OF_NODE, COUNTER, "deadline_misses_total", "sessions.deadline_misses", NULL, "Items answered as past their deadline" },
	{ OF_NODE, COUNTER, "cancelled_items_total", "sessions.cancelled_items", NULL, "Items answered as cancelled" },
	{ OF_NODE, GAUGE, "borrows", "sessions.borrows_now", NULL, "Values that clients hold in shared memory" },
	{ OF_NODE, GAUGE, "borrow_bytes", "sessions.borrow_bytes_now", NULL, "Bytes of them" },
	{ OF_NODE, COUNTER, "borrows_refused_total", "sessions.borrows_refused", NULL, "Values sent through the socket because the borrows of its connection or its shard were at their bound" },
	{ OF_NODE, GAUGE, "staging_regions", "sessions.staging_regions_now", NULL, "Staging memory regions of clients" },
	{ OF_NODE, GAUGE, "staging_bytes", "sessions.staging_bytes_now", NULL, "Bytes of them" },

	{ OF_DEVICE, GAUGE, "device_up", "state", NULL, "1 when the device is open, 0 when it failed or is missing" },
	{ OF_DEVICE, GAUGE, "device_size_bytes", "size_bytes", NULL, "Size of the device" },
	{ OF_DEVICE, GAUGE, "device_direct", "direct", NULL, "1 when O_DIRECT holds" },

	{ OF_SHARD, GAUGE, "shard_ready", "ready", NULL, "1 when the shard serves" },
	{ OF_SHARD, GAUGE, "shard_failed", "failed", NULL, "1 when its device failed" },
	{ OF_SHARD, GAUGE, "shard_blocks", "blocks", NULL, "Live blocks" },
	{ OF_SHARD, GAUGE, "shard_records", "records", NULL, "Live records: blocks and parts" },
	{ OF_SHARD, GAUGE, "shard_live_bytes", "bytes_live", NULL, "Bytes of live blocks" },
	{ OF_SHARD, GAUGE, "shard_capacity_bytes", "bytes_capacity", NULL, "Flash for values" },
	{ OF_SHARD, GAUGE, "shard_index_bytes", "index_bytes", NULL, "DRAM of the index" },
	{ OF_SHARD, GAUGE, "shard_policy_bytes", "policy_bytes", NULL, "DRAM of the policy" },
	{ OF_SHARD, GAUGE, "shard_reason_bytes", "reason_bytes", NULL, "DRAM of the memory of reasons" },
	{ OF_SHARD, GAUGE, "shard_reason_entries", "reason_entries", NULL, "Blocks whose reason is remembered" },
	{ OF_SHARD, COUNTER, "shard_payload_bytes_total", "payload_bytes", NULL, "Values accepted, rounded up to 4 KiB" },
	{ OF_SHARD, COUNTER, "shard_written_bytes_total", "bytes_written_total", NULL, "Everything written to the device but preparation; ÷ payload = write amplification" },
	{ OF_SHARD, COUNTER, "gets_total", "gets", NULL, "Gets" },
	{ OF_SHARD, COUNTER, "get_hits_dram_total", "get_hits_dram", NULL, "Gets answered from the DRAM tier" },
	{ OF_SHARD, COUNTER, "get_hits_flash_total", "get_hits_flash", NULL, "Gets answered from flash" },
	{ OF_SHARD, COUNTER, "get_misses_total", "get_misses", "reason", "Gets that missed" },
	{ OF_SHARD, COUNTER, "flash_reads_total", "flash_reads", NULL, "Flash reads" },
	{ OF_SHARD, COUNTER, "flash_read_bytes_total", "flash_read_bytes", NULL, "Bytes of flash reads" },
	{ OF_SHARD, COUNTER, "flash_reads_shared_total", "reads_shared", NULL, "Gets that shared a flash read that was under way" },
	{ OF_SHARD, COUNTER, "flash_read_errors_total", "read_errors", NULL, "Flash reads that failed" },
	{ OF_SHARD, COUNTER, "flash_check_mismatches_total", "check_mismatches", NULL, "Flash reads whose bytes were another block's or damaged" },
	{ OF_SHARD, COUNTER, "crc_failures_total", "crc_failures", NULL, "Values whose checksums did not hold" },
	{ OF_SHARD, COUNTER, "puts_total", "puts", NULL, "Puts accepted" },
	{ OF_SHARD, COUNTER, "put_duplicates_total", "put_duplicates", NULL, "Puts of a key that was there" },
	{ OF_SHARD, COUNTER, "put_differs_total", "put_differs", NULL, "… with other bytes" },
	{ OF_SHARD, COUNTER, "puts_lost_total", "puts_lost", NULL, "Puts that another one of the same key completed before" },
	{ OF_SHARD, COUNTER, "put_replaces_total", "replaces", NULL, "Puts that replaced a block" },
	{ OF_SHARD, COUNTER, "puts_refused_total", "put_refused", "reason", "Puts refused" },
	{ OF_SHARD, COUNTER, "deletes_total", "deletes", NULL, "Deletes" },
	{ OF_SHARD, COUNTER, "exists_items_total", "exists_items", NULL, "Items of EXISTS" },
	{ OF_SHARD, COUNTER, "touches_total", "touches", NULL, "Touches" },
	{ OF_SHARD, COUNTER, "prefetches_total", "prefetches", NULL, "Prefetches" },
	{ OF_SHARD, COUNTER, "expired_total", "expired", NULL, "Blocks that expired" },
	{ OF_SHARD, COUNTER, "reclaims_total", "reclaims", NULL, "Segments reclaimed" },
	{ OF_SHARD, COUNTER, "reclaim_survivor_records_total", "reclaim_survivor_records", NULL, "Records that reclaim carried on" },
	{ OF_SHARD, COUNTER, "reclaim_survivor_bytes_total", "reclaim_survivor_bytes", NULL, "Bytes of them" },
	{ OF_SHARD, COUNTER, "reclaim_evicted_blocks_total", "reclaim_evicted_blocks", NULL, "Blocks that reclaim evicted" },
	{ OF_SHARD, COUNTER, "reclaim_skipped_leased_total", "reclaim_skipped_leased", NULL, "Victims passed over because of leases" },
	{ OF_SHARD, COUNTER, "reclaim_carried_leased_total", "reclaim_carried_leased", NULL, "Leased records that reclaim carried on" },
	{ OF_SHARD, COUNTER, "reclaim_corrupt_total", "reclaim_corrupt", NULL, "Records that reclaim found damaged" },
	{ OF_SHARD, COUNTER, "reclaim_evicted_kept_total", "reclaim_evicted_kept", NULL, "Leased or pinned records evicted because no segment was free" },
	{ OF_SHARD, GAUGE, "leases", "leases_now", NULL, "Blocks under lease" },
	{ OF_SHARD, GAUGE, "lease_bytes", "lease_bytes_now", NULL, "Bytes of them" },
	{ OF_SHARD, COUNTER, "leases_refused_total", "leases_refused", NULL, "Leases refused because of their bound" },
	{ OF_SHARD, GAUGE, "queue_flash_reads", "reads_now", NULL, "Flash reads under way" },
	{ OF_SHARD, GAUGE, "queue_flash_reads_waiting", "reads_queued_now", NULL, "Gets that wait for a flash read" },
	{ OF_SHARD, GAUGE, "queue_flash_reads_waiting_high", "reads_queued_high", NULL, "Most of them" },
	{ OF_SHARD, COUNTER, "queue_flash_reads_refused_total", "reads_refused", NULL, "Gets that found that queue full" },
	{ OF_SHARD, GAUGE, "queue_puts", "puts_now", NULL, "Puts begun and not answered" },
	{ OF_SHARD, GAUGE, "queue_puts_high", "puts_high", NULL, "Most of them" },
	{ OF_SHARD, GAUGE, "queue_lists", "lists_now", NULL, "Pages of lists under way" },
	{ OF_SHARD, COUNTER, "queue_lists_refused_total", "lists_refused", NULL, "Pages of lists refused as busy because too many were under way" },
	{ OF_SHARD, GAUGE, "multipart_blocks", "multipart_now", NULL, "Live blocks of several parts" },
	{ OF_SHARD, GAUGE, "multipart_unfinished", "multipart_unfinished_now", NULL, "Blocks of several parts that are not complete" },
	{ OF_SHARD, GAUGE, "dram_used_bytes", "dram.bytes_used", NULL, "DRAM tier in use" },
	{ OF_SHARD, GAUGE, "dram_max_bytes", "dram.bytes_max", NULL, "Size of the DRAM tier" },
	{ OF_SHARD, COUNTER, "dram_hits_total", "dram.hits", NULL, "Look-ups in the DRAM tier that hit" },
	{ OF_SHARD, COUNTER, "dram_misses_total", "dram.misses", NULL, "Look-ups in the DRAM tier that missed" },
	{ OF_SHARD, COUNTER, "dram_inserts_total", "dram.inserts", NULL, "Values taken into the DRAM tier" },
	{ OF_SHARD, COUNTER, "dram_evictions_total", "dram.evictions", NULL, "Values dropped from it" },
	{ OF_SHARD, COUNTER, "dram_ghost_hits_total", "dram.ghost_hits", NULL, "Values taken into it that had been dropped not long before" },
	{ OF_SHARD, COUNTER, "dram_alloc_failures_total", "dram.alloc_failures", NULL, "Times that it had no memory to give" },
	{ OF_SHARD, GAUGE, "dram_values_bytes", "dram.bytes", NULL, "Bytes of values in it" },
	{ OF_SHARD, GAUGE, "dram_values", "dram.entries", NULL, "Values in it" },
	{ OF_SHARD, GAUGE, "dram_pinned_bytes", "dram.bytes_pinned_by_refs", NULL, "Bytes of it that answers, borrows and reads hold" },
	{ OF_SHARD, COUNTER, "log_units_total", "log.units_written", NULL, "Write units" },
	{ OF_SHARD, COUNTER, "log_unit_bytes_total", "log.unit_bytes_written", NULL, "Bytes of them" },
	{ OF_SHARD, COUNTER, "log_footer_bytes_total", "log.footer_bytes_written", NULL, "Bytes of footers" },
	{ OF_SHARD, COUNTER, "log_mark_bytes_total", "log.mark_bytes_written", NULL, "Bytes of freed marks" },
	{ OF_SHARD, COUNTER, "log_prepare_bytes_total", "log.prepare_bytes_written", NULL, "Bytes written to prepare segments of a file" },
	{ OF_SHARD, COUNTER, "log_syncs_total", "log.syncs", NULL, "Group commits" },
	{ OF_SHARD, COUNTER, "log_segments_sealed_total", "log.segments_sealed", NULL, "Segments sealed" },
	{ OF_SHARD, COUNTER, "log_segments_freed_total", "log.segments_freed", NULL, "Segments freed" },
	{ OF_SHARD, COUNTER, "log_appends_refused_total", "log.appends_refused", NULL, "Appends that found no room" },
	{ OF_SHARD, COUNTER, "log_write_errors_total", "log.write_errors", NULL, "Writes that failed" },
	{ OF_SHARD, GAUGE, "queue_log_units", "log.units_inflight", NULL, "Unit writes under way" },
	{ OF_SHARD, GAUGE, "log_segments_free", "log.segments_free", NULL, "Free segments" },
	{ OF_SHARD, GAUGE, "log_segments_open", "log.segments_open", NULL, "Open segments" },
	{ OF_SHARD, GAUGE, "log_segments_sealed", "log.segments_sealed_now", NULL, "Sealed segments" },
	{ OF_SHARD, GAUGE, "recovery_seconds", "recovered.duration_us", NULL, "How long the last recovery took" },
	{ OF_SHARD, GAUGE, "recovery_footers_damaged", "recovered.footers_damaged", NULL, "Damaged footers that it found" },
	{ OF_SHARD, GAUGE, "recovery_headers_damaged", "recovered.headers_damaged", NULL, "Damaged unit headers that it found" },
	{ OF_SHARD, GAUGE, "recovery_segments_unreadable", "recovered.segments_unreadable", NULL, "Segments that it could not read" },
	{ OF_SHARD, COUNTER, "log_footers_damaged_total", "log.footers_damaged", NULL, "Footers that were damaged when read back; the segment was walked instead" },
	{ OF_SHARD, COUNTER, "log_headers_damaged_total", "log.headers_damaged", NULL, "Damaged unit headers of sealed segments, found in the background after the start" },
	{ OF_SHARD, GAUGE, "superblocks_damaged", "log.superblocks_damaged", NULL, "Damaged copies of the superblock, when the device was opened" },
	{ OF_SHARD, GAUGE, "space_tables_damaged", "log.space_tables_damaged", NULL, "Damaged copies of the space table, when the device was opened" },
	{ OF_SHARD, GAUGE, "recovery_records_torn", "recovered.records_torn", NULL, "Records that were not stable and not whole" },

	{ OF_SPACE, GAUGE, "space_blocks", "blocks", NULL, "Live blocks of the space" },
	{ OF_SPACE, GAUGE, "space_bytes", "bytes", NULL, "Bytes of them" },
	{ OF_SPACE, GAUGE, "space_quota_bytes", "quota_bytes", NULL, "Quota; 0 = none" },
	{ OF_SPACE, GAUGE, "space_pin_budget_bytes", "pin_budget_bytes", NULL, "Pin budget" },
	{ OF_SPACE, GAUGE, "space_pinned_bytes", "pinned_bytes", NULL, "Bytes of pinned blocks" },
	{ OF_SPACE, COUNTER, "space_gets_total", "gets", NULL, "Gets in the space since the start" },
	{ OF_SPACE, COUNTER, "space_hits_total", "hits", NULL, "… that hit" },
	{ OF_SPACE, COUNTER, "space_puts_total", "puts", NULL, "Puts in the space since the start" },
	{ OF_SPACE, COUNTER, "space_evicted_blocks_total", "evicted_blocks", NULL, "Blocks of the space that reclaim evicted since the start" },
};
/* clang-format on */

/* -- text --------------------------------------------------------------------------------------------------------------------- */

static const json_t *
value_at(const json_t *object, const char *path)
{
	char name[64];

	while (object != NULL && *path != '\0') {
		size_t len = strcspn(path, ".");

		snprintf(name, sizeof(name), "%.*s", (int)len, path);
		object = json_object_get(object, name);
		path += len + (path[len] == '.');
	}
	return object;
}

static double
value_number(const struct metric_row *row, const json_t *value)
{
	size_t len = strlen(row->path);

	if (json_is_string(value)) {
		return strcmp(json_string_value(value), "open") == 0; /* a device's state */
	}
	if (json_is_boolean(value)) {
		return json_is_true(value);
	}
	/* Microseconds become seconds; bytes_used stay bytes. */
	if (len > 3 && strcmp(row->path + len - 3, "_us") == 0) {
		return json_number_value(value) / 1e6;
	}
	return json_number_value(value);
}

/* A label's value: what would need an escape becomes '_', so that everybody can read it. */
static void
label_put(FILE *out, const char *name, const char *value, bool *first)
{
	fprintf(out, "%s%s=\"", *first ? "" : ",", name);
	for (; value != NULL && *value != '\0'; value++) {
		bool plain = (unsigned char)*value >= 0x20 && *value != '"' && *value != '\\' &&
			     *value != 0x7f;

		fputc(plain ? *value : '_', out);
	}
	fputc('"', out);
	*first = false;
}

static const char *
text_of(const json_t *object, const char *name)
{
	return json_string_value(json_object_get(object, name));
}

static void
sample_put(FILE *out, const struct metric_row *row, const json_t *owner, const char *label_value,
	   double number)
{
	bool first = true;

	fprintf(out, "headrace_%s", row->name);
	if (row->scope != OF_NODE || label_value != NULL) {
		fputc('{', out);
		if (row->scope == OF_SHARD) {
			label_put(out, "shard", text_of(owner, "uuid"), &first);
			label_put(out, "device", text_of(owner, "device"), &first);
		} else if (row->scope == OF_SPACE) {
			label_put(out, "space", text_of(owner, "label"), &first);
			label_put(out, "digest", text_of(owner, "digest"), &first);
			label_put(out, "tenant", text_of(owner, "tenant"), &first);
		} else if (row->scope == OF_DEVICE) {
			label_put(out, "device", text_of(owner, "path"), &first);
		}
		if (label_value != NULL) {
			label_put(out, row->label, label_value, &first);
		}
		fputc('}', out);
	}
	fprintf(out, " %.17g\n", number);
}

static void
row_put_owner(FILE *out, const struct metric_row *row, const json_t *owner)
{
	const json_t *value = value_at(owner, row->path), *number;
	const char *name;

	if (value == NULL) {
		return;
	}
	if (row->label == NULL) {
		sample_put(out, row, owner, NULL, value_number(row, value));
		return;
	}
	json_object_foreach((json_t *)(uintptr_t)value, name, number)
	{
		sample_put(out, row, owner, name, value_number(row, number));
	}
}

static const char *
scope_array(enum metric_scope scope)
{
	static const char *const names[] = { NULL, "shards", "spaces", "devices" };

	return names[scope];
}

static const char *
kind_name(enum metric_kind kind)
{
	return kind == COUNTER ? "counter" : "gauge";
}

static void
build_info_put(FILE *out, const json_t *stat)
{
	bool first = true;

	fprintf(
	    out,
	    "# HELP headrace_build_info What runs\n# TYPE headrace_build_info gauge\nheadrace_build_info{");
	label_put(out, "version", text_of(stat, "version"), &first);
	label_put(out, "node", text_of(stat, "node_uuid"), &first);
	label_put(out, "disk", json_string_value(value_at(stat, "backend.disk")), &first);
	label_put(out, "net", json_string_value(value_at(stat, "backend.net")), &first);
	fprintf(out, "} 1\n");
}

char *
metrics_format(const json_t *stat)
{
	char *text = NULL;
	size_t len = 0;
	FILE *out = open_memstream(&text, &len);

	if (out == NULL) {
		return NULL;
	}
	build_info_put(out, stat);
	for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
		const struct metric_row *row = &rows[i];
		const json_t *owner;
		size_t at;

		fprintf(out, "# HELP headrace_%s %s\n# TYPE headrace_%s %s\n", row->name, row->help,
			row->name, kind_name(row->kind));
		if (row->scope == OF_NODE) {
			row_put_owner(out, row, stat);
			continue;
		}
		json_array_foreach(json_object_get(stat, scope_array(row->scope)), at, owner)
		{
			row_put_owner(out, row, owner);
		}
	}
	if (fclose(out) != 0) {
		free(text);
		return NULL;
	}
	return text;
}

void
metrics_doc_print(FILE *out)
{
	static const char *const labels[] = { "", "shard, device", "space, digest, tenant",
					      "device" };

	fprintf(out, "| metric | type | labels | what |\n|---|---|---|---|\n");
	fprintf(out, "| headrace_build_info | gauge | version, node, disk, net | What runs |\n");
	for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
		const struct metric_row *row = &rows[i];

		fprintf(out, "| headrace_%s | %s | %s%s%s | %s |\n", row->name, kind_name(row->kind),
			labels[row->scope], row->label != NULL && row->scope != OF_NODE ? ", " : "",
			row->label != NULL ? row->label : "", row->help);
	}
}
