/* store.c - PUT and DELETE.
 *
 * A PUT frame's items are looked at as a whole before anything is touched. Then a window over them moves along with the payload:
 * for the values in it there is memory (the engine's), into which the socket is read directly. A value that is complete waits on
 * shard->stores for the next turn, behind every load that had arrived; a value that is refused is answered at once and read into
 * nowhere.
 */
#include <errno.h>
#include <stdlib.h>

#include "shard/shard_impl.h"

/* -- answers -------------------------------------------------------------------------------------------------------------------- */

static void
put_answer(struct put_slot *slot, const struct engine_put_result *result)
{
	struct request *request = slot->request;
	struct wire_put_answer answer = {
		.item_idx = slot->idx,
		.status = result->status,
		.reason = result->reason,
		.birth = result->birth,
	};

	answer.flags = (uint16_t)((result->duplicate ? WIRE_PUT_DUPLICATE : 0) |
				  (result->differs ? WIRE_PUT_DIFFERS : 0) |
				  (result->held ? WIRE_PUT_HELD : 0));
	if (request->session == NULL || request->session->state == SESSION_ENDED) {
		return;
	}
	wire_put_answer_encode(&request_out(request)->head, &answer);
	request_item_answered(request);
}

static void
put_refuse(struct put_slot *slot, uint8_t reason)
{
	struct engine_put_result result = { .status = HR_STATUS_REFUSED, .reason = reason };
	struct shard_stat *stat = &slot->request->eng->shard->stat;

	/* A part whose geometry is not this shard's, an id that is not its key's: no matter of load, the item itself is wrong. */
	if (reason == HR_REASON_SIZE) {
		result.status = HR_STATUS_INVALID;
		result.reason = HR_REASON_NONE;
	}
	stat->stores_refused_busy += reason == HR_REASON_BUSY;
	stat->deadline_misses += reason == HR_REASON_DEADLINE;
	stat->cancelled_items += reason == HR_REASON_CANCELLED;
	put_answer(slot, &result);
}

static void
put_bytes_sub(struct put_slot *slot)
{
	struct request *request = slot->request;

	if (request->session != NULL) {
		request->session->put_bytes -= slot->stored_bytes;
	}
	request->eng->shard->stat.put_bytes_now -= slot->stored_bytes;
}

static void
put_done_cb(void *arg, const struct engine_put_result *result)
{
	struct put_slot *slot = arg;
	struct request *request = slot->request;

	put_bytes_sub(slot);
	put_answer(slot, result);
	request_unref(request);
}

/* A wrong id would be a block that nobody finds, or worse, one that is found under another key. */
static bool
put_id_is_right(struct session *session, uint32_t number, const struct engine_put_args *args)
{
	const struct session_space *space = hashmap_get_ptr(&session->spaces, number);
	uint8_t id[BLOCK_ID_BYTES];

	block_id_compute(&space->prefix, args->key, args->key_bytes, id);
	return memcmp(id, args->id, sizeof(id)) == 0;
}

/* -- a value begins ----------------------------------------------------------------------------------------------------------- */

static enum hr_reason
put_begin_reason(struct request *request, const struct engine_put_args *args,
		 struct engine_put **ret_put)
{
	struct session *session = request->session;
	struct shard *shard = session->shard;

	if (args->space == NULL) {
		return HR_REASON_ABSENT;
	}
	if (request_deadline_passed(request)) {
		return HR_REASON_DEADLINE;
	}
	if (args->part == 0 && !put_id_is_right(session, request->header.space, args)) {
		return HR_REASON_SIZE; /* told as invalid, like every item that is wrong in itself */
	}
	if (shard->draining ||
	    session->put_bytes + args->stored_bytes > shard->options.request_bytes_max) {
		return HR_REASON_BUSY;
	}
	return engine_put_begin(request->eng->engine, args, ret_put);
}

static void
put_args_fill(struct request *request, const struct wire_put_item *item, uint32_t *crcs,
	      struct engine_put_args *ret)
{
	*ret = (struct engine_put_args){
		.space = engine_space_by_number(request->eng->engine, request->header.space),
		.owner = request->owner->owner,
		.route = item->route,
		.parent = is_all_zero(item->parent, 16) ? NULL : item->parent,
		.key = item->key,
		.key_bytes = item->key_len,
		.part = item->part,
		.parts_count = item->parts_count,
		.stored_bytes = item->stored_bytes,
		.block_bytes = item->block_bytes,
		.put_number = item->put_number,
		.ttl_ms = item->ttl_ms,
		.position = item->position,
		.cost_hint_us = item->cost_hint_us,
		.class_hint = item->class_hint,
		.replace = (item->flags & WIRE_PUT_REPLACE) != 0,
		.pinned = (item->flags & WIRE_PUT_PINNED) != 0,
		.ack = request->header.ack >= HR_ACK_STABLE ? HR_ACK_STABLE : HR_ACK_RAM,
		.crcs = crcs,
		.crcs_count = item->crcs_count,
	};
	memcpy(ret->id, item->id, 16);
	for (unsigned i = 0; i < item->crcs_count; i++) {
		crcs[i] = wire_crc_get(item->crcs, i);
	}
}

/* Out of the client's memory before anything is computed from it: what it does there meanwhile is its own affair. */
static void
put_copy_staged(struct put_slot *slot, const uint8_t *from)
{
	for (unsigned i = 0; i < slot->iov_count; i++) {
		memcpy(slot->iov[i].iov_base, from, slot->iov[i].iov_len);
		from += slot->iov[i].iov_len;
	}
}

/* The slot's bytes are all there. */
static void
put_complete(struct put_slot *slot)
{
	struct shard *shard = slot->request->eng->shard;

	list_del(&slot->link);
	if (slot->put == NULL) {
		return;
	}
	list_add_tail(&shard->stores, &slot->link);
	shard->stat.stores_queued_now++;
	shard->stat.stores_queued_high =
	    HR_MAX(shard->stat.stores_queued_high, shard->stat.stores_queued_now);
	shard_work_later(shard);
}

static int
put_begin(struct session *session, const struct wire_put_item *item, const char **ret_why)
{
	struct request *request = session->put.request;
	struct put_slot *slot = &request->puts[session->put.items_next];
	struct shard_stat *stat = &session->shard->stat;
	bool staged = (item->flags & WIRE_PUT_STAGED) != 0;
	const uint8_t *from = NULL;
	struct engine_put_args args;
	uint32_t crcs[WIRE_CRCS_MAX];
	enum hr_reason reason;

	if (staged && !session_staging_range(session, item->staging_region, item->staging_off,
					     item->stored_bytes, &from)) {
		*ret_why = "a value outside of the staging memory";
		return -HR_EPROTO;
	}
	slot->request = request;
	slot->idx = session->put.items_next++;
	slot->stored_bytes = item->stored_bytes;
	slot->left_bytes = staged ? 0 : item->stored_bytes;
	put_args_fill(request, item, crcs, &args);
	reason = put_begin_reason(request, &args, &slot->put);
	list_init(&slot->link);
	list_add_tail(&session->put.window, &slot->link);
	if (reason == HR_REASON_NONE) {
		slot->iov = engine_put_iov(slot->put, &slot->iov_count);
		session->put_bytes += slot->stored_bytes;
		stat->put_bytes_now += slot->stored_bytes;
		stat->put_bytes_high = HR_MAX(stat->put_bytes_high, stat->put_bytes_now);
		stat->payload_bytes_in += slot->stored_bytes;
		if (staged) {
			put_copy_staged(slot, from);
		}
	} else {
		stat->payload_bytes_discarded += slot->left_bytes;
		if (args.space != NULL) {
			engine_part_refused(request->eng->engine, &args);
		}
		put_refuse(slot, (uint8_t)reason);
	}
	if (slot->left_bytes == 0) {
		put_complete(slot);
		return 0;
	}
	session->put.window_count++;
	session->put.window_bytes += slot->left_bytes;
	return 0;
}

/* -- the frame ------------------------------------------------------------------------------------------------------------------ */

/* Every item, before anything is begun: their number, and that the payload is theirs. */
static int
put_items_check(const struct wire_header *header, const uint8_t *items, const char **ret_why)
{
	struct wire_reader reader = { items, items + header->items_bytes };
	struct wire_put_item item;
	uint64_t payload = 0;

	for (uint32_t i = 0; i < header->items_count; i++) {
		int rc = wire_put_item_decode(&reader, &item, ret_why);

		if (rc != 0) {
			return rc;
		}
		payload += (item.flags & WIRE_PUT_STAGED) != 0 ? 0 : item.stored_bytes;
	}
	if (header->items_count == 0 || reader.at != reader.end) {
		*ret_why = "items that do not fill their section";
		return -HR_EPROTO;
	}
	if (payload != header->payload_bytes) {
		*ret_why = "payload of another length than its items say";
		return -HR_EPROTO;
	}
	return 0;
}

int
session_put(struct session *session, const uint8_t *items, const char **ret_why)
{
	const struct wire_header *header = &session->rx_header;
	unsigned status;
	int rc;

	session->shard->stat.requests[WIRE_PUT]++;
	session->shard->stat.items[WIRE_PUT] += header->items_count;
	if (session->state != SESSION_OPEN ||
	    hashmap_get(&session->requests_by_id, header->request_id, NULL)) {
		*ret_why = "a request id that is in flight already";
		return -HR_EPROTO;
	}
	rc = put_items_check(header, items, ret_why);
	if (rc != 0) {
		return rc;
	}
	session->put.request = NULL;
	session->put.items_next = 0;
	session->put.discard_bytes = header->payload_bytes;
	if (!session_requests_allowed(session, &status)) {
		session->shard->stat.payload_bytes_discarded += header->payload_bytes;
		session_refuse(session, header, status);
		return 0;
	}
	if (session_space(session, header->space) == NULL) {
		session->shard->stat.payload_bytes_discarded += header->payload_bytes;
		session_refuse(session, header, WIRE_UNKNOWN_SPACE);
		return 0;
	}
	session->put.discard_bytes = 0;
	rc = request_create(session, header, sizeof(struct put_slot), &session->put.request);
	if (rc != 0) {
		*ret_why = "out of memory";
		return rc;
	}
	session->put.reader = (struct wire_reader){ items, items + header->items_bytes };
	/* The frame under way holds a reference: a refusal of every item must not end the request under our hands. */
	request_ref(session->put.request);
	return 0;
}

static int
put_window_fill(struct session *session, const char **ret_why)
{
	struct request *request = session->put.request;
	struct wire_put_item item;
	int rc = 0;

	while (rc == 0 && request != NULL && session->put.items_next < request->items_count &&
	       session->put.window_count < PUT_WINDOW_COUNT &&
	       session->put.window_bytes < PUT_WINDOW_BYTES) {
		HR_ASSERT(wire_put_item_decode(&session->put.reader, &item, ret_why) ==
			  0); /* checked before */
		rc = put_begin(session, &item, ret_why);
	}
	return rc;
}

/* `bytes` have arrived in the window's memory, or are copied from `from` into it. Returns how many were its. */
static size_t
put_window_take(struct session *session, const uint8_t *from, size_t bytes)
{
	size_t taken = 0;
	struct put_slot *slot;

	while (taken < bytes &&
	       (slot = list_first_entry(&session->put.window, struct put_slot, link)) != NULL) {
		size_t step = (size_t)HR_MIN((uint64_t)(bytes - taken), slot->left_bytes);

		if (slot->put != NULL) {
			const struct iovec *iov = &slot->iov[slot->iov_idx];

			step = HR_MIN(step, iov->iov_len - slot->iov_skip);
			if (from != NULL) {
				memcpy((char *)iov->iov_base + slot->iov_skip, from + taken, step);
			}
			slot->iov_skip += step;
			if (slot->iov_skip == iov->iov_len) {
				slot->iov_idx++;
				slot->iov_skip = 0;
			}
		}
		taken += step;
		slot->left_bytes -= step;
		session->put.window_bytes -= step;
		if (slot->left_bytes == 0) {
			session->put.window_count--;
			put_complete(slot);
		}
	}
	return taken;
}

bool
session_put_done(const struct session *session)
{
	return session->rx != RX_PAYLOAD ||
	       (session->put.discard_bytes == 0 && session->put.request == NULL);
}

static void
put_frame_end(struct session *session)
{
	struct request *request = session->put.request;

	if (request != NULL && session->put.items_next == request->items_count &&
	    list_empty(&session->put.window)) {
		session->put.request = NULL;
		request_unref(request);
	}
}

int
session_put_pump(struct session *session, const char **ret_why)
{
	int rc;

	for (;;) {
		uint32_t left = session->rbuf_len - session->rbuf_at;
		size_t step;

		rc = put_window_fill(session, ret_why);
		if (rc != 0) {
			return rc;
		}
		step = (size_t)HR_MIN(session->put.discard_bytes, (uint64_t)left);
		session->put.discard_bytes -= step;
		if (step == 0) {
			step = put_window_take(session, session->rbuf + session->rbuf_at, left);
		}
		session->rbuf_at += (uint32_t)step;
		if (step == 0) {
			break;
		}
	}
	put_frame_end(session);
	return 0;
}

/* Where the payload to come goes. Always something while the frame is not done. */
unsigned
session_put_iov(struct session *session, struct iovec *ret_iov, unsigned max)
{
	struct shard *shard = session->shard;
	struct put_slot *slot;
	unsigned count = 0;

	if (session->put.discard_bytes > 0) {
		ret_iov[0] =
		    (struct iovec){ shard->scratch, HR_MIN(session->put.discard_bytes,
							   (uint64_t)sizeof(shard->scratch)) };
		return 1;
	}
	list_for_each_entry(slot, &session->put.window, link) {
		uint64_t left = slot->left_bytes;

		if (slot->put == NULL) {
			for (; left > 0 && count < max; count++) {
				size_t step = (size_t)HR_MIN(left, (uint64_t)sizeof(shard->scratch));

				ret_iov[count] = (struct iovec){ shard->scratch, step };
				left -= step;
			}
		} else {
			for (unsigned i = slot->iov_idx; i < slot->iov_count && count < max;
			     i++, count++) {
				size_t skip = i == slot->iov_idx ? slot->iov_skip : 0;

				ret_iov[count] =
				    (struct iovec){ (char *)slot->iov[i].iov_base + skip,
						    slot->iov[i].iov_len - skip };
			}
		}
		if (count == max) {
			break;
		}
	}
	return count;
}

/* A receive brought `bytes` into session_put_iov()'s memory. */
void
session_put_received(struct session *session, size_t bytes)
{
	if (session->put.discard_bytes > 0) {
		session->put.discard_bytes -= bytes;
		return;
	}
	HR_ASSERT(put_window_take(session, NULL, bytes) == bytes);
}

/* The connection ends within a frame. */
void
session_put_abort(struct session *session)
{
	struct request *request = session->put.request;
	struct put_slot *slot;

	while ((slot = list_pop_entry(&session->put.window, struct put_slot, link)) != NULL) {
		if (slot->put != NULL) {
			put_bytes_sub(slot);
			engine_put_abort(request->eng->engine, slot->put);
		}
	}
	session->put.request = NULL;
	if (request != NULL) {
		request_unref(request);
	}
}

/* Those of a connection that has ended, before the engine was given them. */
void
session_stores_abort(struct session *session)
{
	struct shard *shard = session->shard;
	struct put_slot *slot, *next;

	list_for_each_entry_safe(slot, next, &shard->stores, link) {
		if (slot->request->session == session) {
			list_del(&slot->link);
			shard->stat.stores_queued_now--;
			put_bytes_sub(slot);
			engine_put_abort(slot->request->eng->engine, slot->put);
		}
	}
}

void
shard_stores_run(struct shard *shard)
{
	uint64_t bytes = 0;

	for (unsigned n = 0; n < STORES_PER_TURN && bytes < STORE_BYTES_PER_TURN; n++) {
		struct put_slot *slot = list_pop_entry(&shard->stores, struct put_slot, link);
		struct request *request;

		if (slot == NULL) {
			return;
		}
		shard->stat.stores_queued_now--;
		request = slot->request;
		bytes += slot->stored_bytes;
		if (request->cancelled || request_deadline_passed(request)) {
			put_bytes_sub(slot);
			engine_put_abort(request->eng->engine, slot->put);
			put_refuse(slot,
				   request->cancelled ? HR_REASON_CANCELLED : HR_REASON_DEADLINE);
			continue;
		}
		request_ref(request);
		engine_put_commit(request->eng->engine, slot->put, put_done_cb, slot);
	}
	if (!list_empty(&shard->stores)) {
		shard_work_later(shard);
	}
}

/* -- DELETE --------------------------------------------------------------------------------------------------------------------- */

static void
delete_done_cb(void *arg, uint8_t reason)
{
	struct delete_slot *slot = arg;
	struct request *request = slot->request;
	struct session *session = request->session;
	struct out *out;

	request->results[slot->idx] = reason == HR_REASON_NONE ? WIRE_PRESENT : reason;
	request->items_answered++;
	if (request->items_answered == request->items_count && session != NULL &&
	    session->state != SESSION_ENDED) {
		size_t bytes = align_up(request->items_count, 8);

		out = request_out(request);
		HR_ASSERT(wire_buf_reserve(&out->head, bytes) == 0);
		memcpy(out->head.bytes + out->head.len, request->results, bytes);
		out->head.len += bytes;
		out->header.items_count = request->items_count;
		request_finish(request);
		session_work_later(session);
	}
	request_unref(request);
}

int
session_delete(struct session *session, const uint8_t *items, const char **ret_why)
{
	const struct wire_header *header = &session->rx_header;
	struct wire_reader reader = { items, items + header->items_bytes };
	struct space_row *space = session_space(session, header->space);
	uint8_t ack = header->ack >= HR_ACK_STABLE ? HR_ACK_STABLE : HR_ACK_RAM;
	struct wire_id_item item;
	struct request *request;
	int rc;

	rc = request_create(session, header, sizeof(struct delete_slot), &request);
	if (rc == 0) {
		request->results = calloc(1, align_up(header->items_count, 8));
	}
	if (rc != 0 || request->results == NULL) {
		*ret_why = "out of memory";
		return -ENOMEM;
	}
	for (uint32_t i = 0; i < request->items_count; i++) {
		struct delete_slot *slot = &request->deletes[i];

		HR_ASSERT(wire_id_item_decode(&reader, &item, ret_why) == 0);
		slot->request = request;
		slot->idx = i;
		request_ref(request);
		engine_delete(session->eng->engine, space, item.id, ack, delete_done_cb, slot);
	}
	return 0;
}
