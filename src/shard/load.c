/* load.c - GET, and what is answered at once: EXISTS, TOUCH, PREFETCH, RELEASE. */
#include <stdlib.h>

#include "base/crc.h"
#include "shard/shard_impl.h"

/* -- GET: answers ------------------------------------------------------------------------------------------------------------- */

/* Checksums of a range: the writer's where the range is whole chunks. Otherwise made from bytes that were compared with the
 * writer's first. False: the copy in DRAM is not what was written. */
static bool
range_crcs(const struct cache_entry *entry, uint32_t off, uint32_t bytes, uint32_t *ret_crcs,
	   unsigned *ret_count)
{
	const uint32_t end = off + bytes;
	unsigned first = off / WIRE_CHUNK_BYTES,
		 count = (unsigned)div_round_up(bytes, WIRE_CHUNK_BYTES);
	struct iovec iov[ARENA_IOV_MAX];
	uint32_t covered_off = first * WIRE_CHUNK_BYTES, covered_end, covered[WIRE_CRCS_MAX];
	unsigned iov_count, covered_count;

	*ret_count = count;
	if (off % WIRE_CHUNK_BYTES == 0 && (end % WIRE_CHUNK_BYTES == 0 || end == entry->bytes)) {
		if (count > 0) {
			memcpy(ret_crcs, entry->crcs + first, count * sizeof(*ret_crcs));
		}
		return true;
	}
	covered_end = HR_MIN((uint32_t)align_up(end, WIRE_CHUNK_BYTES), entry->bytes);
	iov_count = arena_iov_slice(&entry->buf, covered_off, covered_end - covered_off, iov);
	covered_count = (unsigned)crc32c_chunks(iov, iov_count, WIRE_CHUNK_BYTES, covered);
	if (memcmp(covered, entry->crcs + first, covered_count * sizeof(covered[0])) != 0) {
		return false;
	}
	iov_count = arena_iov_slice(&entry->buf, off, bytes, iov);
	crc32c_chunks(iov, iov_count, WIRE_CHUNK_BYTES, ret_crcs);
	return true;
}

/* The range that was asked for, as far as the part has it. */
static bool
get_range(const struct get_slot *slot, uint32_t part_bytes, uint32_t *ret_bytes)
{
	if (slot->off > part_bytes) {
		return false;
	}
	*ret_bytes = HR_MIN(slot->bytes, part_bytes - slot->off);
	return true;
}

static void
get_answer_ok(struct get_slot *slot, struct wire_get_answer *answer)
{
	struct request *request = slot->request;
	struct session *session = request->session;
	struct shard_stat *stat = &session->shard->stat;
	struct engine *engine = request->eng->engine;
	struct cache_entry *entry = slot->get.entry;
	struct wire_extent extents[WIRE_EXTENTS_MAX];
	uint32_t crcs[WIRE_CRCS_MAX], bytes;
	struct iovec iov[ARENA_IOV_MAX];
	struct out *out;
	unsigned count;

	answer->part_bytes = entry->bytes;
	if (!get_range(slot, entry->bytes, &bytes)) {
		answer->status = HR_STATUS_INVALID;
		goto out_without;
	}
	if (!range_crcs(entry, slot->off, bytes, crcs, &count)) {
		engine_suspect(engine, slot->get.space, slot->get.id, slot->get.part);
		answer->status = HR_STATUS_MISS;
		answer->reason = HR_REASON_CORRUPT;
		goto out_without;
	}
	answer->crc_off = slot->off;
	answer->crcs_count = (uint16_t)count;
	answer->flags = slot->get.from_flash ? WIRE_GOT_FLASH : WIRE_GOT_DRAM;
	if (slot->get.expiry_ms != 0) {
		uint64_t now_ms = io_wall_ms(session->shard->io);

		answer->expiry_left_ms = slot->get.expiry_ms > now_ms ? slot->get.expiry_ms - now_ms
								      : 1;
	}
	if ((slot->flags & WIRE_GET_SHM) != 0 &&
	    session_shm_answer(session, slot, answer, slot->off, bytes, extents)) {
		stat->payload_bytes_shared += bytes;
		out = request_out(request);
		wire_get_answer_encode(&out->head, answer, crcs, extents);
		return;
	}
	answer->payload_bytes = bytes;
	out = request_out(request);
	wire_get_answer_encode(&out->head, answer, crcs, NULL);
	out_add_iov(out, iov, arena_iov_slice(&entry->buf, slot->off, bytes, iov));
	/* The reference goes along until the bytes are sent. */
	out_add_entry(out, entry);
	slot->get.entry = NULL;
	return;
out_without:
	engine_get_done(engine, &slot->get);
	out = request_out(request);
	wire_get_answer_encode(&out->head, answer, NULL, NULL);
}

static void
get_answer(struct get_slot *slot)
{
	struct request *request = slot->request;
	struct wire_get_answer answer = {
		.item_idx = slot->idx,
		.status = slot->get.status,
		.reason = slot->get.reason,
		.block_bytes = slot->get.len_block,
		.birth = slot->get.birth,
	};

	if (slot->get.status == HR_STATUS_OK) {
		get_answer_ok(slot, &answer);
	} else {
		request->session->shard->stat.deadline_misses += slot->get.reason ==
								 HR_REASON_DEADLINE;
		wire_get_answer_encode(&request_out(request)->head, &answer, NULL, NULL);
	}
	out_count(request->session, request->out);
	request_item_answered(request);
}

static void
get_answer_miss(struct get_slot *slot, uint8_t reason)
{
	slot->get.status = HR_STATUS_MISS;
	slot->get.reason = reason;
	get_answer(slot);
}

/* What its answer will take of the output's bounds, while the engine has it. */
static void
get_charge(struct get_slot *slot, int64_t bytes)
{
	slot->request->session->load_bytes += (uint64_t)bytes;
	slot->request->eng->output_bytes += (uint64_t)bytes;
}

/* The engine is done with it. */
static void
get_ready(struct get_slot *slot)
{
	struct request *request = slot->request;

	slot->busy = false;
	get_charge(slot, -(int64_t)slot->charge_bytes);
	get_answer(slot);
	session_work_later(request->session);
	request_unref(request);
}

static void
get_cb(struct engine_get *get)
{
	get_ready(get->arg);
}

/* -- GET: the request ----------------------------------------------------------------------------------------------------------- */

static void
get_slot_init(struct get_slot *slot, struct request *request, uint32_t idx,
	      const struct wire_get_item *item)
{
	const struct superblock *slice = engine_slice(request->eng->engine);
	uint64_t part_off = (uint64_t)item->part * slice->part_bytes;
	uint64_t expected = slice->part_bytes;

	slot->request = request;
	slot->idx = idx;
	slot->off = item->off;
	slot->bytes = item->bytes;
	slot->flags = item->flags;
	memcpy(slot->get.id, item->id, 16);
	slot->get.part = item->part;
	slot->get.block_bytes = item->block_bytes;
	slot->get.deadline_us = request->deadline_us;
	slot->get.low_priority = request->header.priority == HR_PRIORITY_LOW;
	slot->get.cb = get_cb;
	slot->get.arg = slot;
	/* What its answer will take of the output's bound, as far as is known before. */
	if (item->block_bytes != UINT64_MAX && part_off <= item->block_bytes) {
		expected = HR_MIN(expected, item->block_bytes - part_off);
	}
	slot->charge_bytes = (uint32_t)HR_MIN(expected, (uint64_t)item->bytes);
}

int
session_get(struct session *session, const uint8_t *items, const char **ret_why)
{
	const struct wire_header *header = &session->rx_header;
	struct wire_reader reader = { items, items + header->items_bytes };
	struct wire_get_item item;
	struct request *request;
	int rc;

	rc = request_create(session, header, sizeof(struct get_slot), &request);
	if (rc != 0) {
		*ret_why = "out of memory";
		return rc;
	}
	for (uint32_t i = 0; i < request->items_count; i++) {
		HR_ASSERT(wire_get_item_decode(&reader, &item, ret_why) == 0); /* checked before */
		get_slot_init(&request->gets[i], request, i, &item);
	}
	if (header->priority == HR_PRIORITY_HIGH) {
		list_add(&session->loads, &request->load_link);
	} else {
		list_add_tail(&session->loads, &request->load_link);
	}
	return 0;
}

static bool
get_dispatch(struct get_slot *slot, struct space_row *space)
{
	struct request *request = slot->request;

	if (space == NULL) {
		get_answer_miss(slot, HR_REASON_ABSENT);
		return true;
	}
	if (request_deadline_passed(request)) {
		get_answer_miss(slot, HR_REASON_DEADLINE);
		return true;
	}
	slot->get.space = space;
	slot->busy = true;
	get_charge(slot, slot->charge_bytes);
	request_ref(request);
	if (engine_get(request->eng->engine, &slot->get)) {
		get_ready(slot);
	}
	return true;
}

void
request_dispatch_gets(struct request *request, unsigned *budget)
{
	struct session *session = request->session;
	/* Looked up anew each time: a row may go between two turns. */
	struct space_row *space =
	    engine_space_by_number(request->eng->engine, request->header.space);

	while (request->items_next<request->items_count && * budget> 0) {
		if (session_loads_wait(session)) {
			return;
		}
		(*budget)--;
		get_dispatch(&request->gets[request->items_next++], space);
	}
	if (request->items_next == request->items_count) {
		list_del(&request->load_link);
	}
}

void
request_cancel_gets(struct request *request, bool answer)
{
	struct session *session = request->session;

	if (request->header.op != WIRE_GET) {
		return;
	}
	list_del(&request->load_link);
	for (uint32_t i = 0; i < request->items_count; i++) {
		struct get_slot *slot = &request->gets[i];

		if (slot->busy) {
			engine_get_cancel(request->eng->engine, &slot->get);
			slot->busy = false;
			get_charge(slot, -(int64_t)slot->charge_bytes);
			request_unref(request);
		} else if (i < request->items_next) {
			continue;
		}
		if (answer) {
			session->shard->stat.cancelled_items++;
			get_answer_miss(slot, HR_REASON_CANCELLED);
		}
	}
	request->items_next = request->items_count;
}

/* -- what is answered at once --------------------------------------------------------------------------------------------------- */

static void
exists_one(struct session *session, struct space_row *space, const struct wire_id_item *item,
	   uint8_t *ret_byte, uint8_t *ret_bytes_le)
{
	struct engine_exists_result result = { 0 };
	uint32_t lease_ms = HR_MIN(session->rx_header.lease_ms, HR_LEASE_MS_MAX);

	engine_exists(session->eng->engine, space, item->id, lease_ms, session->owner->owner,
		      &result);
	*ret_byte = (uint8_t)((result.present ? WIRE_PRESENT : 0) |
			      (result.leased ? WIRE_LEASED : 0) |
			      (result.reason & WIRE_REASON_MASK));
	put_le64(ret_bytes_le, result.block_bytes);
}

static uint8_t
byte_of_reason(uint8_t reason)
{
	return reason == HR_REASON_NONE ? WIRE_PRESENT : reason;
}

static void
ids_each(struct session *session, struct wire_reader *reader, uint8_t *bytes, uint8_t *lengths)
{
	struct engine *engine = session->eng->engine;
	struct space_row *space = session_space(session, session->rx_header.space);
	struct wire_id_item item;
	const char *why;

	for (uint32_t i = 0; i < session->rx_header.items_count; i++) {
		HR_ASSERT(wire_id_item_decode(reader, &item, &why) == 0);
		switch (session->rx_header.op) {
		case WIRE_EXISTS:
			exists_one(session, space, &item, &bytes[i], lengths + 8 * (size_t)i);
			break;
		case WIRE_TOUCH:
			bytes[i] = byte_of_reason(engine_touch(engine, space, item.id));
			break;
		case WIRE_PREFETCH:
			bytes[i] = byte_of_reason(engine_prefetch(engine, space, item.id));
			break;
		default:
			engine_release(engine, space, item.id, session->owner->owner);
			bytes[i] = WIRE_PRESENT;
			break;
		}
	}
}

int
session_ids(struct session *session, const uint8_t *items)
{
	const struct wire_header *header = &session->rx_header;
	struct wire_reader reader = { items, items + header->items_bytes };
	size_t bytes = align_up(header->items_count, 8);
	size_t lengths = header->op == WIRE_EXISTS ? 8 * (size_t)header->items_count : 0;
	struct out *out;
	uint8_t *at;

	out = out_create(session, header->op, header->request_id);
	out->header.flags = WIRE_FLAG_ANSWER | WIRE_FLAG_LAST;
	out->header.space = header->space;
	out->header.items_count = header->items_count;
	HR_ASSERT(wire_buf_reserve(&out->head, bytes + lengths) == 0);
	at = out->head.bytes + out->head.len;
	memset(at, 0, bytes);
	out->head.len += bytes + lengths;
	ids_each(session, &reader, at, at + bytes);
	if ((header->flags & WIRE_FLAG_NO_ANSWER) != 0 && header->op == WIRE_RELEASE) {
		/* Nothing is said: the frame goes back where it came from. */
		out_drop(session, out);
		return 0;
	}
	out_send(session, out);
	return 0;
}
