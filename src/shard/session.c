/* session.c - one connection: bytes in, frames out, and how it ends. */
#define HR_LOG_COMPONENT "session"
#include <errno.h>
#include <stdlib.h>

#include "base/crc.h"
#include "base/log.h"
#include "shard/shard_impl.h"

static void session_receive(struct session *session);
static void session_timer_cb(void *arg);
static void session_send(struct session *session);

/* -- life -------------------------------------------------------------------------------------------------------------------- */

static void
session_timer_arm(struct session *session, uint64_t at_us)
{
	if (session->timer.heap_idx == 0) {
		io_timer_set(session->shard->io, &session->timer, at_us, session_timer_cb, session);
	}
}

static void
session_timer_cb(void *arg)
{
	struct session *session = arg;
	struct shard *shard = session->shard;
	uint64_t reader_at_us = session->sending ? session->stall_at_us : UINT64_MAX;
	uint64_t sender_at_us = session->receiving && session->frame_stall_at_us != 0
				    ? session->frame_stall_at_us
				    : UINT64_MAX;
	uint64_t at_us = HR_MIN(reader_at_us, sender_at_us);

	if (session->state == SESSION_HELLO && !session->sending) {
		shard->stat.conns_ended_hello_timeout++;
		log_warn("hello_timeout", "conn=%llu peer=%s", (unsigned long long)session->id,
			 io_conn_peer(session->conn));
		session_end(session);
		return;
	}
	if (at_us == UINT64_MAX) {
		return;
	}
	/* The timer is not moved with every send: it looks when it runs. */
	if (io_now_us(shard->io) < at_us) {
		session_timer_arm(session, at_us);
		return;
	}
	shard->stat.conns_ended_stalled++;
	if (at_us == reader_at_us) {
		log_warn("stalled_reader", "conn=%llu peer=%s output_bytes=%llu",
			 (unsigned long long)session->id, io_conn_peer(session->conn),
			 (unsigned long long)session->output_bytes);
	} else {
		log_warn("stalled_sender", "conn=%llu peer=%s op=%s put_bytes=%llu",
			 (unsigned long long)session->id, io_conn_peer(session->conn),
			 session->rx == RX_HEADER ? "none" : wire_op_name(session->rx_header.op),
			 (unsigned long long)session->put_bytes);
	}
	session_end(session);
}

int
session_create(struct shard *shard, struct io_conn *conn, struct session **ret_session)
{
	struct session *session = calloc(1, sizeof(*session));

	if (session == NULL) {
		return -ENOMEM;
	}
	session->rbuf = malloc(RBUF_BYTES_MIN);
	if (session->rbuf == NULL) {
		free(session);
		return -ENOMEM;
	}
	session->rbuf_cap = RBUF_BYTES_MIN;
	session->shard = shard;
	session->conn = conn;
	session->id = ++shard->conn_id_next;
	list_init(&session->work_link);
	list_init(&session->put.window);
	list_init(&session->requests);
	list_init(&session->loads);
	list_init(&session->flushing);
	list_init(&session->outs);
	hashmap_init(&session->spaces, io_random_u64(shard->io));
	hashmap_init(&session->requests_by_id, io_random_u64(shard->io));
	hashmap_init(&session->borrows, io_random_u64(shard->io));
	list_add_tail(&shard->strangers, &session->link);
	shard->stat.conns_now++;
	shard->stat.conns_total++;
	io_timer_set(shard->io, &session->timer,
		     io_now_us(shard->io) + (uint64_t)shard->options.hello_timeout_s * 1000000,
		     session_timer_cb, session);
	*ret_session = session;
	return 0;
}

void
session_hello_done(struct session *session)
{
	session->state = SESSION_OPEN;
	io_timer_cancel(session->shard->io, &session->timer);
}

static void
session_free(struct session *session)
{
	struct shard *shard = session->shard;
	struct shard_engine *eng = session->eng;
	struct hashmap_slot *slot;
	size_t pos;

	list_del(&session->link);
	list_del(&session->work_link);
	hashmap_for_each(&session->spaces, pos, slot) {
		free((void *)(uintptr_t)slot->value);
	}
	hashmap_fini(&session->spaces);
	hashmap_fini(&session->requests_by_id);
	free(session->items);
	free(session->rbuf);
	free(session->chunk_epochs);
	free(session);
	shard->stat.conns_now--;
	shard_session_gone(shard, eng);
}

static void out_free(struct session *session, struct out *out);

/* Nothing of the io refers to the session's memory any more: values under way, references and owners go. */
static void
session_teardown(struct session *session)
{
	struct request *request, *next;
	struct out *out;

	session_put_abort(session);
	session_stores_abort(session);
	list_for_each_entry_safe(request, next, &session->requests, link) {
		request_cancel_gets(request, false);
		request_orphan(request);
	}
	while ((out = list_pop_entry(&session->outs, struct out, link)) != NULL) {
		out_free(session, out);
	}
	session_shm_fini(session);
	if (session->owner != NULL) {
		session_owner_unref(session->owner);
	}
	session_free(session);
}

static void
session_teardown_if_idle(struct session *session)
{
	if (session->state == SESSION_ENDED && !session->receiving && !session->sending) {
		session_teardown(session);
	}
}

void
session_end(struct session *session)
{
	if (session->state == SESSION_ENDED) {
		return;
	}
	session->state = SESSION_ENDED;
	io_timer_cancel(session->shard->io, &session->timer);
	list_del(&session->work_link);
	if (session->conn != NULL) {
		io_conn_close(session->conn);
		session->conn = NULL;
	}
	/* The callers are still using it: memory goes in the next turn, or when the operations are back. */
	if (!session->receiving && !session->sending) {
		list_add_tail(&session->shard->working, &session->work_link);
		shard_work_later(session->shard);
	}
}

void
session_end_bad(struct session *session, const char *why)
{
	char name[160];

	if (session->state == SESSION_ENDED) {
		return;
	}
	session->shard->stat.conns_ended_bad_input++;
	log_warn("bad_input", "conn=%llu peer=%s name=%s why=\"%s\"",
		 (unsigned long long)session->id, io_conn_peer(session->conn),
		 log_quote(session->name, name, sizeof(name)), why);
	session_end(session);
}

void
session_end_after_output(struct session *session)
{
	if (session->state == SESSION_ENDED) {
		return;
	}
	session->state = SESSION_LAST_WORDS;
	session_flush(session);
	if (session->state == SESSION_LAST_WORDS && !session->sending && list_empty(&session->outs)) {
		session_end(session);
	}
}

void
session_detached(struct session *session)
{
	session->conn = NULL;
	session_end(session);
}

bool
session_idle(const struct session *session)
{
	return list_empty(&session->requests) && list_empty(&session->outs) && !session->sending &&
	       session->rx != RX_PAYLOAD;
}

/* -- frames out --------------------------------------------------------------------------------------------------------------- */

struct out *
out_create(struct session *session, unsigned op, uint64_t request_id)
{
	struct shard *shard = session->shard;
	struct out *out = list_pop_entry(&shard->outs_spare, struct out, link);

	if (out != NULL) {
		shard->outs_spare_count--;
	} else {
		out = calloc(1, sizeof(*out));
		HR_ASSERT(out != NULL);
		list_init(&out->link);
	}
	out->header = (struct wire_header){ .version = WIRE_VERSION,
					    .op = (uint8_t)op,
					    .request_id = request_id };
	wire_buf_reset(&out->head);
	HR_ASSERT(wire_buf_reserve(&out->head, WIRE_HEADER_BYTES) == 0);
	out->head.len = WIRE_HEADER_BYTES;
	out->iov_count = 1;
	if (out->iov_cap == 0) {
		out->iov_cap = 16;
		out->iov = malloc(out->iov_cap * sizeof(*out->iov));
		HR_ASSERT(out->iov != NULL);
	}
	out->entries_count = 0;
	out->payload_bytes = 0;
	out->counted_bytes = 0;
	out->text = NULL;
	out->fd = -1;
	return out;
}

void
out_add_iov(struct out *out, const struct iovec *iov, unsigned count)
{
	if (out->iov_count + count > out->iov_cap) {
		out->iov_cap = (unsigned)round_up_pow2(out->iov_count + count);
		out->iov = realloc(out->iov, out->iov_cap * sizeof(*out->iov));
		HR_ASSERT(out->iov != NULL);
	}
	for (unsigned i = 0; i < count; i++) {
		out->iov[out->iov_count++] = iov[i];
		out->payload_bytes += iov[i].iov_len;
	}
}

void
out_add_entry(struct out *out, struct cache_entry *entry)
{
	if (out->entries_count == out->entries_cap) {
		out->entries_cap = out->entries_cap == 0 ? 16 : out->entries_cap * 2;
		out->entries =
		    realloc(out->entries, out->entries_cap * sizeof(struct cache_entry *));
		HR_ASSERT(out->entries != NULL);
	}
	out->entries[out->entries_count++] = entry;
}

/* One that was not handed over. */
void
out_drop(struct session *session, struct out *out)
{
	struct shard *shard = session->shard;

	for (unsigned i = 0; i < out->entries_count; i++) {
		cache_unref(engine_cache(session->eng->engine), out->entries[i]);
	}
	free(out->text);
	/* Kept for the next answer, unless it is a giant. */
	if (shard->outs_spare_count < OUTS_SPARE_MAX && out->head.cap <= 65536 &&
	    out->iov_cap <= 256) {
		list_add(&shard->outs_spare, &out->link);
		shard->outs_spare_count++;
		return;
	}
	wire_buf_free(&out->head);
	free(out->iov);
	free(out->entries);
	free(out);
}

static void
out_free(struct session *session, struct out *out)
{
	session->output_bytes -= out->counted_bytes;
	session->shard->stat.output_bytes_now -= out->counted_bytes;
	if (session->eng != NULL) {
		session->eng->output_bytes -= out->counted_bytes;
	}
	out_drop(session, out);
}

void
out_count(struct session *session, struct out *out)
{
	struct shard_stat *stat = &session->shard->stat;
	uint64_t more = out->head.len + out->payload_bytes - out->counted_bytes;

	out->counted_bytes += more;
	session->output_bytes += more;
	if (session->eng != NULL) {
		session->eng->output_bytes += more;
	}
	stat->output_bytes_now += more;
	stat->output_bytes_high = HR_MAX(stat->output_bytes_high, stat->output_bytes_now);
}

void
out_send(struct session *session, struct out *out)
{
	size_t items_bytes;

	HR_ASSERT(!out->head.failed);
	items_bytes = out->head.len - WIRE_HEADER_BYTES;
	HR_ASSERTF(items_bytes % 8 == 0, "op=%u items_bytes=%zu", out->header.op, items_bytes);
	out->header.items_bytes = (uint32_t)items_bytes;
	out->header.items_crc = crc32c(0, out->head.bytes + WIRE_HEADER_BYTES, items_bytes);
	out->header.payload_bytes = out->payload_bytes;
	wire_header_encode(&out->header, out->head.bytes);
	out->iov[0] = (struct iovec){ out->head.bytes, out->head.len };
	list_add_tail(&session->outs, &out->link);
	out_count(session, out);
	session_work_later(session);
}

void
session_refuse(struct session *session, const struct wire_header *header, unsigned status)
{
	struct out *out;

	session->shard->stat.requests_refused++;
	if ((header->flags & WIRE_FLAG_NO_ANSWER) != 0) {
		return;
	}
	out = out_create(session, header->op, header->request_id);
	out->header.flags = WIRE_FLAG_ANSWER | WIRE_FLAG_LAST | WIRE_FLAG_REFUSED;
	out->header.status = (uint16_t)status;
	out_send(session, out);
}

/* What has been sent is let go; the rest stands at its beginning. */
static void
session_sent(struct session *session, uint64_t bytes)
{
	while (bytes > 0) {
		struct out *out = list_first_entry(&session->outs, struct out, link);
		uint64_t left = out->iov[session->out_iov_idx].iov_len - session->out_iov_skip;
		uint64_t step = HR_MIN(left, bytes);

		bytes -= step;
		session->out_iov_skip += step;
		if (step < left) {
			return;
		}
		session->out_iov_skip = 0;
		session->out_iov_idx++;
		if (session->out_iov_idx == out->iov_count) {
			session->out_iov_idx = 0;
			list_del(&out->link);
			session->shard->stat.payload_bytes_out += out->payload_bytes;
			out_free(session, out);
		}
	}
}

static void
session_send_cb(void *arg, int64_t result)
{
	struct session *session = arg;

	session->sending = false;
	if (session->state == SESSION_ENDED) {
		session_teardown_if_idle(session);
		return;
	}
	if (result < 0) {
		session->shard->stat.conns_ended_error++;
		session_end(session);
		return;
	}
	session->shard->stat.bytes_out += (uint64_t)result;
	session_sent(session, (uint64_t)result);
	session_run(session);
}

static void
session_send(struct session *session)
{
	struct shard *shard = session->shard;
	struct out *out;
	unsigned count = 0;
	uint64_t bytes = 0;
	int fd = -1;
	bool first = true;

	if (session->sending || list_empty(&session->outs) || session->state == SESSION_ENDED) {
		return;
	}
	list_for_each_entry(out, &session->outs, link) {
		unsigned i = first ? session->out_iov_idx : 0;
		size_t skip = first ? session->out_iov_skip : 0;

		/* A descriptor goes with the first byte of a send: its frame begins one. */
		if (out->fd >= 0 && i == 0 && skip == 0) {
			if (!first) {
				break;
			}
			fd = out->fd;
		}
		first = false;
		for (; i < out->iov_count && count < SEND_IOV_MAX && bytes < SEND_BYTES_MAX; i++) {
			size_t len =
			    HR_MIN(out->iov[i].iov_len - skip, (size_t)(SEND_BYTES_MAX - bytes));

			session->send_iov[count++] =
			    (struct iovec){ (char *)out->iov[i].iov_base + skip, len };
			bytes += len;
			skip = 0;
		}
		if (count == SEND_IOV_MAX || bytes == SEND_BYTES_MAX) {
			break;
		}
	}
	session->sending = true;
	session->stall_at_us = io_now_us(shard->io) +
			       (uint64_t)shard->options.stalled_reader_s * 1000000;
	session_timer_arm(session, session->stall_at_us);
	if (fd >= 0) {
		io_conn_send_fds(session->conn, session->send_iov, count, &fd, 1, session_send_cb,
				 session);
	} else {
		io_conn_send(session->conn, session->send_iov, count, session_send_cb, session);
	}
}

bool
session_output_full(const struct session *session)
{
	return session->output_bytes + session->load_bytes >=
	       session->shard->options.output_bytes_max;
}

/* Values in output queues hold memory of the arena. Where those of all connections hold half of it, each has what is under way and
 * no more, so that some that take nothing do not leave the others without: what is under way is what brings it back here. */
bool
session_loads_wait(const struct session *session)
{
	const struct shard_engine *eng = session->eng;

	return session_output_full(session) || (session->output_bytes + session->load_bytes > 0 &&
						eng->output_bytes >= eng->output_bytes_fair);
}

void
session_flush(struct session *session)
{
	struct request *request;

	while ((request = list_first_entry(&session->flushing, struct request, flush_link)) != NULL) {
		request_flush(request);
	}
	session_send(session);
}

/* -- bytes in ----------------------------------------------------------------------------------------------------------------- */

int
session_preload(struct session *session, const void *bytes, size_t len)
{
	if (len > session->rbuf_cap) {
		return -EMSGSIZE;
	}
	memcpy(session->rbuf, bytes, len);
	session->rbuf_len = (uint32_t)len;
	return 0;
}

/* Memory for one request more than the bounds allow is not taken: it stays in the socket. */
static bool
session_read_paused(struct session *session)
{
	struct shard *shard = session->shard;
	bool paused = session->requests_now >= shard->options.requests_max ||
		      session->items_now >= ITEMS_INFLIGHT_MAX ||
		      session->output_bytes >= shard->options.output_bytes_max ||
		      !list_empty(&session->loads);

	if (paused && !session->paused) {
		shard->stat.reads_paused++;
	}
	session->paused = paused;
	return paused;
}

static uint32_t
rbuf_left(const struct session *session)
{
	return session->rbuf_len - session->rbuf_at;
}

/* A header that is whole is taken. False: more bytes are needed, or the session has ended. */
static bool
session_parse_header(struct session *session)
{
	struct wire_header *header = &session->rx_header;
	const char *why;

	if (rbuf_left(session) < WIRE_HEADER_BYTES || session_read_paused(session)) {
		return false;
	}
	if (wire_header_decode(session->rbuf + session->rbuf_at, header, &why) != 0) {
		session_end_bad(session, why);
		return false;
	}
	if (header->request_id == 0 || (header->flags & WIRE_FLAG_ANSWER) != 0) {
		session_end_bad(session,
				"a request without an id, or an answer where a request belongs");
		return false;
	}
	if (header->payload_bytes > 0 && header->op != WIRE_PUT) {
		session_end_bad(session, "payload where none belongs");
		return false;
	}
	if (session->state == SESSION_HELLO &&
	    (header->op != WIRE_HELLO || header->items_bytes > 4096)) {
		session_end_bad(session, "the first frame is not HELLO");
		return false;
	}
	session->rbuf_at += WIRE_HEADER_BYTES;
	session->bulk = header->payload_bytes >= BULK_BYTES_MIN;
	session->frame_stall_at_us = 0;
	session->rx = RX_ITEMS;
	session->items_len = 0;
	/* Apart when they do not fit, or when rbuf is needed again before they are done with. */
	session->items_apart = header->items_bytes > RBUF_BYTES_MAX || header->op == WIRE_PUT;
	if (session->items_apart && header->items_bytes > session->items_cap) {
		free(session->items);
		session->items_cap = 0;
		session->items = malloc(header->items_bytes);
		if (session->items == NULL) {
			session_end_bad(session, "out of memory");
			return false;
		}
		session->items_cap = header->items_bytes;
	}
	return true;
}

static void
session_items_done(struct session *session)
{
	session->rx = RX_HEADER;
	/* What a giant left behind is not kept. */
	if (session->items_cap > RBUF_BYTES_MAX) {
		free(session->items);
		session->items = NULL;
		session->items_cap = 0;
	}
}

static bool
session_parse_items(struct session *session)
{
	const struct wire_header *header = &session->rx_header;
	const uint8_t *items = session->rbuf + session->rbuf_at;
	const char *why = NULL;
	int rc;

	if (session->items_apart) {
		size_t more =
		    HR_MIN((size_t)rbuf_left(session), header->items_bytes - session->items_len);

		if (more > 0) {
			memcpy(session->items + session->items_len, items, more);
			session->items_len += more;
			session->rbuf_at += (uint32_t)more;
		}
		if (session->items_len < header->items_bytes) {
			return false;
		}
		items = session->items;
	} else if (rbuf_left(session) < header->items_bytes) {
		return false;
	}
	if (header->items_bytes == 0) {
		items = session->rbuf; /* any address: nothing is read of it */
	}
	if (wire_items_verify(header, items, &why) != 0) {
		session_end_bad(session, why);
		return false;
	}
	if (!session->items_apart) {
		session->rbuf_at += header->items_bytes;
	}
	if (header->op != WIRE_PUT) {
		session->rx = RX_HEADER;
		session_frame(session, items);
		if (session->state != SESSION_ENDED && session->items_apart) {
			session_items_done(session);
		}
		return session->state == SESSION_OPEN || session->state == SESSION_HELLO;
	}
	session->rx = RX_PAYLOAD;
	rc = session_put(session, items, &why);
	if (rc != 0) {
		session_end_bad(session, why);
		return false;
	}
	return true;
}

static bool
session_parse_payload(struct session *session)
{
	const char *why = NULL;

	if (session_put_pump(session, &why) != 0) {
		session_end_bad(session, why);
		return false;
	}
	if (!session_put_done(session)) {
		return false;
	}
	session_items_done(session);
	return true;
}

static void
session_parse(struct session *session)
{
	bool more = true;

	while (more && (session->state == SESSION_OPEN || session->state == SESSION_HELLO)) {
		switch (session->rx) {
		case RX_HEADER:
			more = session_parse_header(session);
			break;
		case RX_ITEMS:
			more = session_parse_items(session);
			break;
		case RX_PAYLOAD:
			more = session_parse_payload(session);
			break;
		}
	}
}

static void
session_recv_cb(void *arg, int64_t result)
{
	struct session *session = arg;
	size_t bytes = result > 0 ? (size_t)result : 0, step;

	session->receiving = false;
	if (session->state == SESSION_ENDED) {
		session_teardown_if_idle(session);
		return;
	}
	session->shard->stat.bytes_in += bytes;
	session->frame_bytes += bytes;
	if (result == 0 && (session->rx != RX_HEADER || rbuf_left(session) > 0) &&
	    session->state != SESSION_LAST_WORDS) {
		session_end_bad(session, "the peer ended within a frame");
		return;
	}
	if (result == -EPROTO) {
		session_end_bad(session, "more descriptors than belong to any frame");
		return;
	}
	if (result <= 0) {
		session->shard->stat.conns_ended_error += result < 0;
		session_end(session);
		return;
	}
	/* First came what goes to its place directly, then rbuf: as session_receive() laid it out. */
	step = HR_MIN(bytes, session->recv_direct_bytes);
	if (session->rx == RX_ITEMS && session->items_apart) {
		session->items_len += step;
	} else if (session->rx == RX_PAYLOAD) {
		session_put_received(session, step);
	}
	session->rbuf_len += (uint32_t)(bytes - step);
	HR_ASSERT(session->rbuf_len <= session->rbuf_cap);
	session_run(session);
}

/* What is unread moves to the front; a buffer that a receive has filled becomes larger. */
static void
session_rbuf_prepare(struct session *session)
{
	uint32_t left = rbuf_left(session);
	bool was_full = session->rbuf_len == session->rbuf_cap;

	if (session->rbuf_at > 0) {
		memmove(session->rbuf, session->rbuf + session->rbuf_at, left);
		session->rbuf_at = 0;
		session->rbuf_len = left;
	}
	if (was_full && session->rbuf_cap < RBUF_BYTES_MAX) {
		uint8_t *rbuf = realloc(session->rbuf, (size_t)session->rbuf_cap * 2);

		if (rbuf != NULL) {
			session->rbuf = rbuf;
			session->rbuf_cap *= 2;
		}
	}
	/* Items that are to be whole in rbuf need room for all of them. */
	if (session->rx == RX_ITEMS && !session->items_apart &&
	    session->rx_header.items_bytes > session->rbuf_cap) {
		uint8_t *rbuf = realloc(session->rbuf, RBUF_BYTES_MAX);

		HR_ASSERT(rbuf != NULL);
		session->rbuf = rbuf;
		session->rbuf_cap = RBUF_BYTES_MAX;
	}
}

/* How much of what comes next rbuf takes. */
static uint32_t
session_rbuf_room(const struct session *session)
{
	uint32_t room = session->rbuf_cap - session->rbuf_len;
	bool in_rbuf = session->rx == RX_ITEMS && !session->items_apart;

	return session->bulk && !in_rbuf ? HR_MIN(room, (uint32_t)BULK_TAIL_BYTES) : room;
}

/* A frame that has begun holds memory, a PUT's that of the DRAM tier: it must come on. */
static void
session_frame_time(struct session *session)
{
	struct shard *shard = session->shard;

	if (session->rx == RX_HEADER && rbuf_left(session) == 0) {
		session->frame_stall_at_us = 0;
		return;
	}
	if (session->frame_stall_at_us == 0 || session->frame_bytes >= RECV_BYTES_MIN) {
		session->frame_bytes = 0;
		session->frame_stall_at_us = io_now_us(shard->io) +
					     (uint64_t)shard->options.stalled_reader_s * 1000000;
	}
	session_timer_arm(session, session->frame_stall_at_us);
}

static void
session_receive(struct session *session)
{
	unsigned count = 0;
	uint32_t room;

	if (session->receiving ||
	    (session->state != SESSION_OPEN && session->state != SESSION_HELLO)) {
		return;
	}
	if (session->rx == RX_HEADER && session_read_paused(session)) {
		session->frame_stall_at_us = 0; /* that it does not come on is our doing */
		return;
	}
	session_rbuf_prepare(session);
	if (session->rx == RX_ITEMS && session->items_apart) {
		session->recv_iov[count++] =
		    (struct iovec){ session->items + session->items_len,
				    session->rx_header.items_bytes - session->items_len };
	} else if (session->rx == RX_PAYLOAD) {
		count =
		    session_put_iov(session, session->recv_iov, ARRAY_SIZE(session->recv_iov) - 1);
	}
	session->recv_direct_bytes = 0;
	for (unsigned i = 0; i < count; i++) {
		session->recv_direct_bytes += session->recv_iov[i].iov_len;
	}
	room = session_rbuf_room(session);
	if (room > 0) {
		session->recv_iov[count++] =
		    (struct iovec){ session->rbuf + session->rbuf_len, room };
	}
	HR_ASSERT(count > 0);
	session_frame_time(session);
	session->receiving = true;
	io_conn_recv(session->conn, session->recv_iov, count, session_recv_cb, session);
}

/* -- a turn --------------------------------------------------------------------------------------------------------------------- */

void
session_work_later(struct session *session)
{
	if (list_empty(&session->work_link)) {
		list_add_tail(&session->shard->working, &session->work_link);
	}
	shard_work_later(session->shard);
}

void
session_dispatch(struct session *session, unsigned *budget)
{
	struct request *request;

	while (*budget > 0 &&
	       (request = list_first_entry(&session->loads, struct request, load_link)) != NULL) {
		uint32_t before = request->items_next;

		request_dispatch_gets(request, budget);
		if (!list_empty(&session->loads) && request->items_next == before) {
			break; /* the output is full: what is sent brings us back */
		}
	}
}

void
session_run(struct session *session)
{
	unsigned budget = LOADS_PER_TURN;

	if (session->state == SESSION_ENDED) {
		if (!session->receiving && !session->sending) {
			session_teardown(session);
		}
		return;
	}
	/* Parse only while nothing receives into the buffers behind our back. Parsing pauses at loads; once they are
	 * dispatched it goes on here: a receive that is begun with whole frames still in rbuf would wait for bytes
	 * that a peer who waits for its answers never sends. */
	for (bool more = true; more;) {
		if (!session->receiving) {
			session_parse(session);
		}
		if (session->state == SESSION_ENDED) {
			break;
		}
		session_dispatch(session, &budget);
		more = !session->receiving && session->state == SESSION_OPEN && session->paused &&
		       rbuf_left(session) > 0 && !session_read_paused(session);
	}
	if (session->state != SESSION_ENDED) {
		session_flush(session);
	}
	if (session->state == SESSION_LAST_WORDS && !session->sending && list_empty(&session->outs)) {
		session_end(session);
	}
	if (session->state == SESSION_ENDED) {
		return;
	}
	session_receive(session);
	if (budget == 0 && !list_empty(&session->loads)) {
		session_work_later(session);
	}
	if (session->shard->draining && session->state == SESSION_OPEN && session_idle(session)) {
		session_end(session);
	}
}
