/* request.c - from frames to operations, and the small operations themselves: HELLO, SPACE, LIST, STAT, MAP, PING, CANCEL. */
#define HR_LOG_COMPONENT "session"
#include <errno.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/log.h"
#include "base/utf8.h"
#include "shard/shard_impl.h"

/* -- owners --------------------------------------------------------------------------------------------------------------------- */

int
session_owner_create(struct shard_engine *eng, uint32_t tenant, struct session_owner **ret_owner)
{
	struct session_owner *owner = calloc(1, sizeof(*owner));
	int rc;

	if (owner == NULL) {
		return -ENOMEM;
	}
	rc = engine_owner_create(eng->engine, tenant, &owner->owner);
	if (rc != 0) {
		free(owner);
		return rc;
	}
	owner->eng = eng;
	owner->refs = 1;
	*ret_owner = owner;
	return 0;
}

void
session_owner_unref(struct session_owner *owner)
{
	HR_ASSERT(owner->refs > 0);
	if (--owner->refs == 0) {
		engine_owner_destroy(owner->eng->engine, owner->owner);
		for (uint32_t i = 0; i < owner->rows_count; i++) {
			engine_space_unref(owner->rows[i]);
		}
		free(owner->rows);
		free(owner);
	}
}

/* -- requests ------------------------------------------------------------------------------------------------------------------ */

/* Slots (one per item, zeroed) lie behind the request in the same memory. Its first reference is the session list's. */
int
request_create(struct session *session, const struct wire_header *header, size_t slot_bytes,
	       struct request **ret_request)
{
	const size_t head_bytes = align_up(sizeof(struct request), 16);
	struct shard_stat *stat = &session->shard->stat;
	struct request *request = calloc(1, head_bytes + slot_bytes * header->items_count);

	if (request == NULL ||
	    hashmap_put_ptr(&session->requests_by_id, header->request_id, request) != 0) {
		free(request);
		return -ENOMEM;
	}
	request->session = session;
	request->eng = session->eng;
	request->header = *header;
	request->items_count = header->items_count;
	request->refs = 1;
	request->owner = session->owner;
	request->owner->refs++;
	request->gets = (void *)((char *)request + head_bytes);
	if (header->deadline_us > 0) {
		request->deadline_us = io_now_us(session->shard->io) + header->deadline_us;
	}
	list_init(&request->load_link);
	list_init(&request->flush_link);
	list_add_tail(&session->requests, &request->link);
	session->requests_now++;
	session->items_now += request->items_count;
	stat->requests_now++;
	stat->requests_high = HR_MAX(stat->requests_high, stat->requests_now);
	*ret_request = request;
	return 0;
}

void
request_ref(struct request *request)
{
	request->refs++;
}

void
request_unref(struct request *request)
{
	struct shard_engine *eng = request->eng;
	struct shard *shard = eng->shard;

	HR_ASSERT(request->refs > 0);
	if (--request->refs > 0) {
		return;
	}
	HR_ASSERT(request->out == NULL && list_empty(&request->load_link) &&
		  list_empty(&request->flush_link));
	list_del(&request->link);
	if (request->stat_token != 0) {
		hashmap_remove(&shard->stat_tokens, request->stat_token, NULL);
	}
	session_owner_unref(request->owner);
	free(request->results);
	free(request);
	shard_session_gone(shard, eng);
}

/* It is no longer one of its session's: what the engine still does for it ends silently. */
void
request_orphan(struct request *request)
{
	struct session *session = request->session;

	if (request->out != NULL) {
		/* Through the session's queue, which is about to be emptied, so that there is one way of letting go. */
		out_send(session, request->out);
		request->out = NULL;
	}
	list_del(&request->load_link);
	list_del(&request->flush_link);
	hashmap_remove(&session->requests_by_id, request->header.request_id, NULL);
	session->requests_now--;
	session->items_now -= request->items_count;
	session->shard->stat.requests_now--;
	request->session = NULL;
	list_del(&request->link);
	list_add_tail(&request->eng->orphans, &request->link);
	request_unref(request);
}

struct out *
request_out(struct request *request)
{
	struct out *out = request->out;

	if (out != NULL &&
	    (out->head.len > OUT_ITEMS_BYTES_MAX || out->iov_count + ARENA_IOV_MAX > OUT_IOV_MAX ||
	     out->payload_bytes >= OUT_PAYLOAD_BYTES_MAX)) {
		out_send(request->session, out);
		request->out = NULL;
	}
	if (request->out == NULL) {
		request->out =
		    out_create(request->session, request->header.op, request->header.request_id);
		request->out->header.flags = WIRE_FLAG_ANSWER;
		request->out->header.space = request->header.space;
		list_move_tail(&request->session->flushing, &request->flush_link);
		session_work_later(request->session);
	}
	return request->out;
}

void
request_flush(struct request *request)
{
	struct session *session = request->session;
	struct out *out = request->out;
	bool last = request->items_answered == request->items_count;

	list_del(&request->flush_link);
	if (out != NULL) {
		request->out = NULL;
		if (last) {
			out->header.flags |= WIRE_FLAG_LAST;
		}
		out_send(session, out);
	}
	if (last) {
		list_del(&request->load_link);
		hashmap_remove(&session->requests_by_id, request->header.request_id, NULL);
		session->requests_now--;
		session->items_now -= request->items_count;
		session->shard->stat.requests_now--;
		request->session = NULL;
		list_del(&request->link);
		list_add_tail(&request->eng->orphans, &request->link);
		request_unref(request);
	}
}

void
request_item_answered(struct request *request)
{
	request->items_answered++;
	request->out->header.items_count++;
	HR_ASSERT(request->items_answered <= request->items_count);
}

void
request_finish(struct request *request)
{
	request->items_answered = request->items_count;
	request_flush(request);
	/* What it held back may be read now. */
}

bool
request_deadline_passed(const struct request *request)
{
	return request->deadline_us != 0 &&
	       io_now_us(request->eng->shard->io) >= request->deadline_us;
}

struct space_row *
session_space(struct session *session, uint32_t number)
{
	if (!hashmap_get(&session->spaces, number, NULL)) {
		return NULL;
	}
	return engine_space_by_number(session->eng->engine, number);
}

static int
owner_row_add(struct session_owner *owner, struct space_row *row)
{
	struct space_row **rows =
	    reallocarray(owner->rows, owner->rows_count + 1, sizeof(struct space_row *));

	if (rows == NULL) {
		return -ENOMEM;
	}
	owner->rows = rows;
	owner->rows[owner->rows_count++] = row;
	engine_space_ref(row);
	return 0;
}

int
session_space_add(struct session *session, struct space_row *row)
{
	struct session_space *space;
	int rc;

	if (hashmap_get(&session->spaces, row->number, NULL)) {
		return 0;
	}
	space = malloc(sizeof(*space));
	if (space == NULL) {
		return -ENOMEM;
	}
	block_id_prefix_init(&space->prefix, row->digest);
	rc = hashmap_put_ptr(&session->spaces, row->number, space);
	if (rc == 0) {
		rc = owner_row_add(session->owner, row);
		if (rc != 0) {
			(void)hashmap_remove_ptr(&session->spaces, row->number);
		}
	}
	if (rc != 0) {
		free(space);
	}
	return rc;
}

/* Ready, not draining, not failed. */
bool
session_requests_allowed(struct session *session, unsigned *ret_status)
{
	if (session->shard->draining || session->eng->removing) {
		*ret_status = WIRE_DRAINING;
		return false;
	}
	if (!engine_ready(session->eng->engine)) {
		*ret_status = engine_failed(session->eng->engine, NULL) ? WIRE_SHARD_FAILED
									: WIRE_BUSY;
		return false;
	}
	return true;
}

/* -- HELLO --------------------------------------------------------------------------------------------------------------------- */

/* The connection goes to the thread that has the shard. True: it is gone, or was ended. False: it is to be refused, with *ret_status. */
static bool
session_hand_over(struct session *session, const uint8_t shard_uuid[16], const uint8_t *items,
		  unsigned *ret_status)
{
	struct shard *shard = session->shard;
	size_t bytes = WIRE_HEADER_BYTES + session->rx_header.items_bytes;
	uint8_t *hello;
	int fd, rc;

	*ret_status = WIRE_WRONG_SHARD;
	if (session->adopted || shard->options.hand_over == NULL) {
		return false;
	}
	if (session->rbuf_at < session->rbuf_len) {
		session_end_bad(session, "more than HELLO before its answer");
		return true;
	}
	hello = malloc(bytes);
	if (hello == NULL) {
		*ret_status = WIRE_BUSY;
		return false;
	}
	wire_header_encode(&session->rx_header, hello);
	memcpy(hello + WIRE_HEADER_BYTES, items, session->rx_header.items_bytes);
	fd = io_conn_detach(session->conn);
	session->conn = NULL;
	rc = shard->options.hand_over(shard->options.arg, shard_uuid, fd, hello, bytes);
	free(hello);
	if (rc == 0) {
		shard->stat.conns_handed_over++;
		session_detached(session);
		return true;
	}
	if (io_conn_attach(shard->io, fd, &session->conn) != 0) {
		(void)close(fd);
		session_detached(session);
		return true;
	}
	*ret_status = rc == -EAGAIN ? WIRE_BUSY : WIRE_WRONG_SHARD;
	return false;
}

static const uint8_t tenant_nobody[16]; /* without tokens everybody is the same tenant */

static void
session_hello_answer(struct session *session, const struct wire_client_hello *hello)
{
	struct shard *shard = session->shard;
	const struct superblock *slice = engine_slice(session->eng->engine);
	struct wire_server_hello answer = {
		.version = WIRE_VERSION,
		.features = session->features,
		.part_bytes = slice->part_bytes,
		.chunk_bytes = slice->chunk_bytes,
		.items_max = WIRE_ITEMS_MAX,
		.payload_max = WIRE_PAYLOAD_BYTES_MAX,
		.time_ms = io_wall_ms(shard->io),
		.requests_max = shard->options.requests_max,
		.request_bytes_max =
		    (uint32_t)HR_MIN(shard->options.request_bytes_max, (uint64_t)UINT32_MAX),
		.tenant_number = session->tenant,
		.connection_id = session->id,
	};
	struct out *out = out_create(session, WIRE_HELLO, session->rx_header.request_id);

	(void)hello;
	memcpy(answer.shard_uuid, slice->shard_uuid, 16);
	memcpy(answer.node_uuid, shard->options.node_uuid, 16);
	put_le64(answer.nonce, io_random_u64(shard->io));
	put_le64(answer.nonce + 8, io_random_u64(shard->io));
	out->header.flags = WIRE_FLAG_ANSWER | WIRE_FLAG_LAST;
	out->header.items_count = 1;
	wire_server_hello_encode(&out->head, &answer);
	shard_map_encode(shard, &out->head);
	out_send(session, out);
}

/* Refused, with the map, so that the client learns where to go. */
static void
session_hello_refuse(struct session *session, unsigned status)
{
	struct shard *shard = session->shard;
	struct out *out = out_create(session, WIRE_HELLO, session->rx_header.request_id);

	shard->stat.conns_refused++;
	log_info("hello_refused", "conn=%llu peer=%s why=\"%s\"", (unsigned long long)session->id,
		 io_conn_peer(session->conn), wire_status_name(status));
	out->header.flags = WIRE_FLAG_ANSWER | WIRE_FLAG_LAST | WIRE_FLAG_REFUSED;
	out->header.status = (uint16_t)status;
	shard_map_encode(shard, &out->head);
	out_send(session, out);
	session_end_after_output(session);
}

static int
session_hello_bind(struct session *session, struct shard_engine *eng,
		   const struct wire_client_hello *hello)
{
	uint32_t tenant = engine_tenant_number(eng->engine, tenant_nobody);
	int rc = session_owner_create(eng, tenant, &session->owner);

	if (rc != 0) {
		return rc;
	}
	session->tenant = tenant;
	session->eng = eng;
	list_del(&session->link);
	list_add_tail(&eng->sessions, &session->link);
	if (io_conn_is_unix(session->conn)) {
		session->features = hello->features & (WIRE_FEATURE_SHM | WIRE_FEATURE_BORROW);
	}
	memcpy(session->name, hello->name,
	       HR_MIN((size_t)hello->name_len, sizeof(session->name) - 1));
	return 0;
}

static int
session_hello(struct session *session, const uint8_t *items, const char **ret_why)
{
	struct shard *shard = session->shard;
	struct wire_reader reader = { items, items + session->rx_header.items_bytes };
	struct wire_client_hello hello;
	struct shard_engine *eng;
	unsigned status;
	int rc;

	if (session->state != SESSION_HELLO) {
		*ret_why = "a second HELLO";
		return -HR_EPROTO;
	}
	rc = wire_client_hello_decode(&reader, &hello, ret_why);
	if (rc != 0) {
		return rc;
	}
	if (hello.version_min > WIRE_VERSION || hello.version_max < WIRE_VERSION) {
		session_hello_refuse(session, WIRE_BAD_VERSION);
		return 0;
	}
	eng = shard_engine_find(shard, hello.shard_uuid);
	if (eng == NULL && session_hand_over(session, hello.shard_uuid, items, &status)) {
		return 0;
	}
	if (eng == NULL || shard->draining || shard->stat.conns_now > shard->options.conns_max) {
		session_hello_refuse(session, eng == NULL	? status
					      : shard->draining ? WIRE_DRAINING
								: WIRE_TOO_MANY);
		return 0;
	}
	if (session_hello_bind(session, eng, &hello) != 0) {
		session_hello_refuse(session, WIRE_BUSY);
		return 0;
	}
	session_hello_done(session);
	session_hello_answer(session, &hello);
	log_debug("hello", "conn=%llu peer=%s", (unsigned long long)session->id,
		  io_conn_peer(session->conn));
	return 0;
}

/* -- SPACE --------------------------------------------------------------------------------------------------------------------- */

static void
row_encode(struct wire_buf *buf, const struct space_row *row)
{
	struct wire_space_row wire = {
		.number = row->number,
		.generation = row->generation,
		.blocks = row->usage_blocks,
		.bytes = row->usage_bytes,
		.quota_bytes = row->quota_bytes,
		.pin_budget_bytes = row->pin_budget_bytes,
		.pinned_bytes = row->pinned_bytes,
		.gets = row->gets,
		.hits = row->hits,
		.puts = row->puts,
	};

	memcpy(wire.digest, row->digest, sizeof(wire.digest));
	memcpy(wire.label, row->label, sizeof(wire.label));
	wire_space_row_encode(buf, &wire);
}

/* Of a request whose answer is one row. */
static void
space_done_cb(void *arg, int rc, struct space_row *row)
{
	struct request *request = arg;
	struct session *session = request->session;

	if (session != NULL && session->state != SESSION_ENDED) {
		struct out *out;

		if (rc == 0) {
			/* A number that was opened stays known; there are not many. */
			rc = session_space_add(session, row);
		}
		out = request_out(request);
		out->header.space = rc == 0 ? row->number : 0;
		if (rc == 0) {
			row_encode(&out->head, row);
			out->header.items_count = 1;
		} else {
			out->header.flags |= WIRE_FLAG_REFUSED;
			out->header.status = rc == -ENOSPC ? WIRE_TABLE_FULL
					     : rc == -EIO  ? WIRE_SHARD_FAILED
							   : WIRE_BUSY;
			session->shard->stat.requests_refused++;
		}
		request_finish(request);
		session_work_later(session);
	}
	request_unref(request);
}

static void
space_list(struct session *session, uint64_t cursor)
{
	struct out *out = out_create(session, WIRE_SPACE, session->rx_header.request_id);
	uint32_t at = (uint32_t)cursor, count = 0;
	struct space_row *row;
	size_t head = out->head.len;

	out->header.flags = WIRE_FLAG_ANSWER | WIRE_FLAG_LAST;
	wire_u64_encode(&out->head, 0);
	while (count < SPACE_ROWS_MAX &&
	       (row = engine_space_next(session->eng->engine, &at)) != NULL) {
		if (memcmp(row->tenant, tenant_nobody, 16) == 0) {
			row_encode(&out->head, row);
			count++;
		}
	}
	if (count == SPACE_ROWS_MAX) {
		put_le64(out->head.bytes + head, at);
	}
	out->header.items_count = count;
	out_send(session, out);
}

static int
session_space_op(struct session *session, const uint8_t *items, const char **ret_why)
{
	const struct wire_header *header = &session->rx_header;
	struct wire_reader reader = { items, items + header->items_bytes };
	struct wire_space_request sub;
	struct space_row *row = NULL;
	struct request *request;
	char label[64] = { 0 };
	unsigned status;
	int rc = wire_space_request_decode(&reader, &sub, ret_why);

	if (rc != 0) {
		return rc;
	}
	if (!session_requests_allowed(session, &status)) {
		session_refuse(session, header, status);
		return 0;
	}
	if (sub.sub == WIRE_SPACE_LIST) {
		space_list(session, sub.cursor);
		return 0;
	}
	if (sub.sub == WIRE_SPACE_OPEN && session->spaces.count >= SPACES_OPEN_MAX) {
		session_refuse(session, header, WIRE_TABLE_FULL);
		return 0;
	}
	if (sub.sub != WIRE_SPACE_OPEN) {
		row = session_space(session, header->space);
		if (row == NULL) {
			session_refuse(session, header, WIRE_UNKNOWN_SPACE);
			return 0;
		}
	}
	rc = request_create(session, header, 0, &request);
	if (rc != 0) {
		*ret_why = "out of memory";
		return rc;
	}
	request_ref(request);
	switch (sub.sub) {
	case WIRE_SPACE_OPEN:
		memcpy(label, sub.label, HR_MIN((size_t)sub.label_len, sizeof(label) - 1));
		utf8_clean(label);
		engine_space_open(session->eng->engine, tenant_nobody, sub.digest, label,
				  space_done_cb, request);
		break;
	case WIRE_SPACE_DROP:
		engine_space_drop(session->eng->engine, row, space_done_cb, request);
		break;
	case WIRE_SPACE_SET:
		engine_space_set(session->eng->engine, row, sub.quota_bytes, sub.pin_budget_bytes,
				 space_done_cb, request);
		break;
	default:
		space_done_cb(request, 0, row);
		break;
	}
	return 0;
}

/* -- LIST ---------------------------------------------------------------------------------------------------------------------- */

static void
list_done_cb(void *arg, int rc, uint64_t cursor_next, const struct engine_list_entry *entries,
	     uint32_t count)
{
	struct request *request = arg;
	struct session *session = request->session;

	if (session != NULL && session->state != SESSION_ENDED) {
		struct wire_list_head head = { .cursor = cursor_next, .count = count };
		struct out *out = request_out(request);

		if (rc != 0) {
			out->header.flags |= WIRE_FLAG_REFUSED;
			out->header.status = rc == -EAGAIN ? WIRE_BUSY : WIRE_SHARD_FAILED;
		} else {
			wire_list_head_encode(&out->head, &head);
			for (uint32_t i = 0; i < count; i++) {
				struct wire_list_entry entry = {
					.route = entries[i].route,
					.block_bytes = entries[i].block_bytes,
					.expiry_ms = entries[i].expiry_ms,
					.position = entries[i].position,
					.key_len = entries[i].key_bytes,
					.key = entries[i].key,
				};

				memcpy(entry.id, entries[i].id, 16);
				memcpy(entry.parent, entries[i].parent, 16);
				wire_list_entry_encode(&out->head, &entry);
			}
			out->header.items_count = 1;
		}
		request_finish(request);
		session_work_later(session);
	}
	request_unref(request);
}

static int
session_list(struct session *session, const uint8_t *items, const char **ret_why)
{
	const struct wire_header *header = &session->rx_header;
	struct wire_reader reader = { items, items + header->items_bytes };
	struct space_row *row = session_space(session, header->space);
	struct wire_list_head head;
	struct request *request;
	int rc = wire_list_head_decode(&reader, &head, ret_why);

	if (rc != 0) {
		return rc;
	}
	if (row == NULL) {
		session_refuse(session, header, WIRE_UNKNOWN_SPACE);
		return 0;
	}
	rc = request_create(session, header, 0, &request);
	if (rc != 0) {
		*ret_why = "out of memory";
		return rc;
	}
	request_ref(request);
	engine_list(session->eng->engine, row, head.cursor,
		    HR_MIN(HR_MAX(head.count, 1u), (uint32_t)LIST_ENTRIES_MAX), list_done_cb,
		    request);
	return 0;
}

/* -- STAT, MAP, PING ------------------------------------------------------------------------------------------------------------ */

static void
out_add_text(struct out *out, char *text)
{
	size_t len = strlen(text);

	out->text = text;
	if (len > 0) {
		out_add_iov(out,
			    &(struct iovec){ text, HR_MIN(len, (size_t)WIRE_PAYLOAD_BYTES_MAX) }, 1);
	}
}

static int
session_stat(struct session *session, const char **ret_why)
{
	struct shard *shard = session->shard;
	struct request *request;
	uint64_t token;
	char *text;
	int rc;

	if (shard->options.stat_request == NULL) {
		struct out *out;

		text = shard_stat_json(shard);
		if (text == NULL) {
			session_refuse(session, &session->rx_header, WIRE_BUSY);
			return 0;
		}
		out = out_create(session, WIRE_STAT, session->rx_header.request_id);
		out->header.flags = WIRE_FLAG_ANSWER | WIRE_FLAG_LAST;
		out_add_text(out, text);
		out_send(session, out);
		return 0;
	}
	if (shard->stat_tokens.count >= STATS_PENDING_MAX) {
		session_refuse(session, &session->rx_header, WIRE_BUSY);
		return 0;
	}
	token = ++shard->stat_token_next;
	rc = request_create(session, &session->rx_header, 0, &request);
	if (rc == 0) {
		rc = hashmap_put_ptr(&shard->stat_tokens, token, request);
	}
	if (rc != 0) {
		*ret_why = "out of memory";
		return rc;
	}
	request->stat_token = token;
	if (!shard->options.stat_request(shard->options.arg, token)) {
		shard_stat_answer(shard, token, NULL);
	}
	return 0;
}

void
shard_stat_answer(struct shard *shard, uint64_t token, char *json)
{
	struct request *request = hashmap_remove_ptr(&shard->stat_tokens, token);
	struct session *session;
	struct out *out;

	if (request == NULL || request->session == NULL) {
		free(json);
		return;
	}
	session = request->session;
	request->stat_token = 0;
	out = request_out(request);
	if (json == NULL) {
		out->header.flags |= WIRE_FLAG_REFUSED;
		out->header.status = WIRE_BUSY;
		shard->stat.requests_refused++;
	} else {
		out_add_text(out, json);
	}
	request_finish(request);
	session_work_later(session);
}

static void
session_map(struct session *session)
{
	struct out *out = out_create(session, WIRE_MAP, session->rx_header.request_id);

	out->header.flags = WIRE_FLAG_ANSWER | WIRE_FLAG_LAST;
	out->header.items_count = 1;
	shard_map_encode(session->shard, &out->head);
	out_send(session, out);
}

static void
session_ping(struct session *session)
{
	struct out *out = out_create(session, WIRE_PING, session->rx_header.request_id);

	out->header.flags = WIRE_FLAG_ANSWER | WIRE_FLAG_LAST;
	out_send(session, out);
}

/* -- CANCEL ---------------------------------------------------------------------------------------------------------------------- */

static int
session_cancel(struct session *session, const uint8_t *items, const char **ret_why)
{
	struct wire_reader reader = { items, items + session->rx_header.items_bytes };
	struct request *request;
	uint64_t id;
	int rc = wire_u64_decode(&reader, &id, ret_why);

	if (rc != 0) {
		return rc;
	}
	request = hashmap_get_ptr(&session->requests_by_id, id);
	if (request != NULL && !request->cancelled) {
		/* Stores see the mark when their turn comes; what the engine has begun ends as it ends. */
		request->cancelled = true;
		if (request->header.op == WIRE_GET) {
			request_cancel_gets(request, true);
		}
	}
	return 0;
}

/* -- frames ----------------------------------------------------------------------------------------------------------------------- */

static int
session_op(struct session *session, const uint8_t *items, const char **ret_why)
{
	switch (session->rx_header.op) {
	case WIRE_HELLO:
		return session_hello(session, items, ret_why);
	case WIRE_AUTH:
		session_refuse(session, &session->rx_header, WIRE_NOT_SUPPORTED);
		return 0;
	case WIRE_SPACE:
		return session_space_op(session, items, ret_why);
	case WIRE_PING:
		session_ping(session);
		return 0;
	case WIRE_MAP:
		session_map(session);
		return 0;
	case WIRE_STAT:
		return session_stat(session, ret_why);
	case WIRE_CANCEL:
		return session_cancel(session, items, ret_why);
	case WIRE_UNBORROW:
		return session_unborrow(session, items, ret_why);
	case WIRE_STAGING:
		return session_staging(session, items, ret_why);
	case WIRE_GOAWAY:
	case WIRE_CHUNK:
		*ret_why = "an opcode that only the server sends";
		return -HR_EPROTO;
	default:
		break;
	}
	return -ENOSYS;
}

/* What breaks the protocol ends the connection, whatever the answer would have been. */
static int
block_items_check(const struct wire_header *header, const uint8_t *items, const char **ret_why)
{
	struct wire_reader reader = { items, items + header->items_bytes };
	const uint64_t item_bytes = header->op == WIRE_GET ? 56 : 24;
	struct wire_list_head head;
	struct wire_get_item item;
	int rc = 0;

	if (header->op == WIRE_LIST) {
		return wire_list_head_decode(&reader, &head, ret_why);
	}
	if (header->items_count == 0 || header->items_bytes != header->items_count * item_bytes) {
		*ret_why = "items that do not fill their section";
		return -HR_EPROTO;
	}
	for (uint32_t i = 0; rc == 0 && header->op == WIRE_GET && i < header->items_count; i++) {
		rc = wire_get_item_decode(&reader, &item, ret_why);
	}
	return rc;
}

static int
session_block_op(struct session *session, const uint8_t *items, const char **ret_why)
{
	const struct wire_header *header = &session->rx_header;
	unsigned status;

	int rc = block_items_check(header, items, ret_why);

	if (rc != 0) {
		return rc;
	}
	if (!session_requests_allowed(session, &status)) {
		session_refuse(session, header, status);
		return 0;
	}
	if (session_space(session, header->space) == NULL) {
		session_refuse(session, header, WIRE_UNKNOWN_SPACE);
		return 0;
	}
	switch (header->op) {
	case WIRE_GET:
		return session_get(session, items, ret_why);
	case WIRE_DELETE:
		return session_delete(session, items, ret_why);
	case WIRE_LIST:
		return session_list(session, items, ret_why);
	default:
		return session_ids(session, items);
	}
}

void
session_frame(struct session *session, const uint8_t *items)
{
	const struct wire_header *header = &session->rx_header;
	const char *why = "";
	int rc;

	session->shard->stat.requests[header->op]++;
	session->shard->stat.items[header->op] += header->items_count;
	if (hashmap_get(&session->requests_by_id, header->request_id, NULL)) {
		session_end_bad(session, "a request id that is in flight already");
		return;
	}
	rc = session_op(session, items, &why);
	if (rc == -ENOSYS) {
		rc = session_block_op(session, items, &why);
	}
	if (rc != 0) {
		session_end_bad(session, why);
	}
}
