/* peer.c - one connection to one shard: its life, what goes out, what comes in.
 *
 * Out: requests wait in `queue` (and items in `groups`), go to `train`, and a train is sent by one io_conn_send() after the other, straight
 * from the caller's memory. In: a small buffer takes headers; items go to their own buffer; payload is received where it belongs, together
 * with the beginning of the next frame in one receive.
 */
#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <stdio.h>
#include <unistd.h>

#include "base/crc.h"
#include "client/core_impl.h"

enum {
	SPACE_RETRY_US = 20 * 1000,
	GAP_HELLO_US =
	    400 * 1000, /* file: a dead host's socket may still take connections, and never answers */
};

static const uint8_t zeros[64 << 10];

static void rx_post(struct peer *peer);
static void peer_timer_cb(void *arg);
static void peer_closed(struct peer *peer);

/* -- requests ------------------------------------------------------------------------------------------------------------------ */

struct request *
req_create(struct peer *peer, enum request_kind kind, uint8_t op)
{
	struct request *req = calloc(1, sizeof(*req));

	if (req == NULL) {
		return NULL;
	}
	req->peer = peer;
	req->kind = kind;
	req->op = op;
	req->fd = -1;
	req->slot = UINT32_MAX;
	req->priority = 3;
	list_init(&req->link);
	list_init(&req->batch_link);
	req->id = ++peer->sequence << 10 | (CORE_REQUESTS_MAX - 1);
	return req;
}

void
req_free(struct request *req)
{
	struct peer *peer = req->peer;

	list_del(&req->link);
	list_del(&req->batch_link);
	if (req->slot != UINT32_MAX) {
		peer->slots[req->slot] = NULL;
		peer->slots_used--;
		if (req->op == WIRE_PUT) {
			peer->put_bytes_inflight -= req->payload_bytes;
		}
	}
	if (req->kind == REQUEST_NOTE) {
		peer->notes_count--;
	}
	if (peer->rx.req == req) {
		peer->rx.req = NULL;
	}
	ops_request_pieces_release(peer->core, req);
	wire_buf_free(&req->items);
	free(req->iov);
	free(req->pieces);
	free(req);
}

/* The last slot stands for "no answer wanted". */
int
req_slot_take(struct peer *peer, struct request *req)
{
	uint32_t max = CORE_REQUESTS_MAX - 1;

	if (peer->state == PEER_READY && peer->hello.requests_max != 0) {
		max = HR_MIN(max, peer->hello.requests_max);
	}
	if (peer->slots_used >= max) {
		return -EAGAIN;
	}
	for (uint32_t i = 0; i < CORE_REQUESTS_MAX - 1; i++) {
		uint32_t slot = (peer->slot_hint + i) % (CORE_REQUESTS_MAX - 1);

		if (peer->slots[slot] == NULL) {
			peer->slots[slot] = req;
			peer->slots_used++;
			peer->slot_hint = slot + 1;
			req->slot = slot;
			req->id = ++peer->sequence << 10 | slot;
			return 0;
		}
	}
	return -EAGAIN;
}

/* -ENOMEM: its items could not be built; it is freed. */
int
req_queue(struct request *req)
{
	if (req->items.failed) {
		req_free(req);
		return -ENOMEM;
	}
	list_add_tail(&req->peer->queue, &req->link);
	return 0;
}

int
req_iov_add(struct request *req, void *base, size_t len)
{
	if (len == 0) {
		return 0;
	}
	if (req->iov_count == req->iov_cap) {
		unsigned cap = req->iov_cap == 0 ? 8 : req->iov_cap * 2;
		struct iovec *more = reallocarray(req->iov, cap, sizeof(*more));

		if (more == NULL) {
			return -ENOMEM;
		}
		req->iov = more;
		req->iov_cap = cap;
	}
	req->iov[req->iov_count++] = (struct iovec){ base, len };
	return 0;
}

/* A frame that nobody answers. Lost when there is no connection: what it would end ended with the connection. */
void
peer_note(struct peer *peer, uint8_t op, struct core_space *space, struct wire_buf *items,
	  uint32_t items_count)
{
	struct request *req;

	if (peer->state != PEER_READY || peer->notes_count >= NOTES_MAX || items->failed ||
	    (space != NULL &&
	     (space->idx >= peer->spaces_count || peer->spaces[space->idx].state != SPACE_OPEN))) {
		wire_buf_free(items);
		return;
	}
	req = req_create(peer, REQUEST_NOTE, op);
	if (req == NULL) {
		wire_buf_free(items);
		return;
	}
	peer->notes_count++;
	req->space = space;
	req->items = *items;
	req->items_count = items_count;
	*items = (struct wire_buf){ 0 };
	(void)req_queue(req);
}

static uint32_t
deadline_left(struct peer *peer, uint64_t deadline_at_us)
{
	uint64_t now = io_now_us(peer->core->io);

	if (deadline_at_us == 0) {
		return 0;
	}
	return deadline_at_us <= now ? 1 : (uint32_t)HR_MIN(deadline_at_us - now, UINT32_MAX);
}

static void
request_header_encode(struct request *req)
{
	struct peer *peer = req->peer;
	struct wire_header header = {
		.version = WIRE_VERSION,
		.op = req->op,
		.priority = req->priority,
		.ack = req->ack,
		.flags = req->kind == REQUEST_NOTE ? WIRE_FLAG_NO_ANSWER : 0,
		.request_id = req->id,
		.deadline_us = deadline_left(peer, req->deadline_at_us),
		.space = req->space != NULL && req->kind != REQUEST_SPACE
			     ? peer->spaces[req->space->idx].number
			     : 0,
		.items_count = req->items_count,
		.items_bytes = (uint32_t)req->items.len,
		.lease_ms = req->lease_ms,
		.payload_bytes = req->payload_bytes,
		.items_crc = crc32c(0, req->items.bytes, req->items.len),
	};

	wire_header_encode(&header, req->header);
}

/* -- out ------------------------------------------------------------------------------------------------------------------------- */

/* The piece of memory that comes next in a request's bytes. */
static bool
request_next(struct request *req, uint8_t **ret_base, size_t *ret_len)
{
	for (;;) {
		uint8_t *base;
		size_t len;

		if (req->iov_at == 0) {
			base = req->header;
			len = WIRE_HEADER_BYTES;
		} else if (req->iov_at == 1) {
			base = req->items.bytes;
			len = req->items.len;
		} else if (req->iov_at - 2 < req->iov_count) {
			base = req->iov[req->iov_at - 2].iov_base;
			len = req->iov[req->iov_at - 2].iov_len;
		} else {
			return false;
		}
		if (req->iov_off < len) {
			*ret_base = base + req->iov_off;
			*ret_len = len - req->iov_off;
			return true;
		}
		req->iov_at++;
		req->iov_off = 0;
	}
}

/* The rest of a payload whose owner wants the memory back: the frame must still have its length. */
static int
request_zero_rest(struct request *req)
{
	uint64_t left = 0;

	for (unsigned i = req->iov_at < 2 ? 0 : req->iov_at - 2; i < req->iov_count; i++) {
		left += req->iov[i].iov_len;
	}
	if (req->iov_at >= 2) {
		left -= req->iov_at - 2 < req->iov_count ? req->iov_off : 0;
		req->iov_at = 2;
		req->iov_off = 0;
	}
	req->iov_count = 0;
	while (left > 0) {
		size_t n = HR_MIN(left, sizeof(zeros));

		if (req_iov_add(req, (void *)(uintptr_t)zeros, n) != 0) {
			return -ENOMEM;
		}
		left -= n;
	}
	return 0;
}

static void
request_unhold(struct request *req)
{
	struct core_batch *batch = req->batch;

	if (!req->held) {
		return;
	}
	req->held = false;
	HR_ASSERT(batch != NULL && batch->holds > 0);
	batch->holds--;
	if (batch->ended) {
		list_del(&req->batch_link);
		req->batch = NULL;
	}
	batch_check_done(req->peer->core, batch);
}

/* The items are decided without this request. */
static void
request_detach(struct request *req)
{
	struct peer *peer = req->peer;

	if (req->tx != REQUEST_SENT && !req->sliced && req->iov_at == 0 && req->iov_off == 0 &&
	    !list_empty(&req->link)) { /* on no list: it is being built */
		request_unhold(req);   /* nothing of it has gone out: it never was */
		req_free(req);
		return;
	}
	if (peer->rx.req == req) {
		peer->rx.discard = true;
	}
	if (req->held) {
		req->zero_rest = true;
		return; /* its batch goes on waiting for this send */
	}
	list_del(&req->batch_link);
	req->batch = NULL;
}

/* The server need not go on with it. */
static void
request_cancel_note(struct request *req)
{
	struct wire_buf items = { 0 };

	if (req->answered || req->slot == UINT32_MAX || (req->iov_at == 0 && req->iov_off == 0)) {
		return;
	}
	wire_u64_encode(&items, req->id);
	peer_note(req->peer, WIRE_CANCEL, NULL, &items, 1);
}

static void
peer_batch_ended(struct peer *peer)
{
	if (peer->conn != NULL && peer->grace.heap_idx == 0) {
		io_timer_set(peer->core->io, &peer->grace,
			     io_now_us(peer->core->io) + CORE_GRACE_US, peer->grace.cb, peer);
	}
}

void
peer_batch_requests_end(struct core *core, struct core_batch *batch)
{
	struct request *req, *tmp;

	list_for_each_entry_safe(req, tmp, &batch->requests, batch_link) {
		struct peer *peer = req->peer;

		if (batch->ended) {
			request_cancel_note(req);
		}
		request_detach(req);
		peer_pump(peer);
	}
	if (batch->holds > 0) {
		for (unsigned i = 0; i < core->peers_count; i++) {
			peer_batch_ended(core->peers[i]);
		}
	}
}

static struct request *
next_from_groups(struct peer *peer)
{
	for (int priority = 3; priority >= 1; priority--) {
		struct group *group;

		while ((group = list_first_entry(&peer->groups[priority], struct group, link)) !=
		       NULL) {
			bool blocked = false;
			uint32_t number;
			uint8_t refused = 0;
			struct request *req;

			if (!peer_space_number(peer, group->batch->space, &number, &refused)) {
				if (refused != 0) {
					ops_group_fail(peer->core, group, refused);
					continue;
				}
				break;
			}
			req = ops_request_build(peer, group, &blocked);
			if (req != NULL) {
				return req;
			}
			if (blocked) {
				break;
			}
		}
	}
	return NULL;
}

static struct request *
next_request(struct peer *peer)
{
	struct request *req = list_first_entry(&peer->queue, struct request, link);

	if (req != NULL) {
		list_del(&req->link);
		return req;
	}
	if (peer->state != PEER_READY || peer->draining) {
		return NULL;
	}
	req = next_from_groups(peer);
	if (req == NULL) {
		/* Opening a space puts its request into the queue. */
		req = list_first_entry(&peer->queue, struct request, link);
		if (req != NULL) {
			list_del(&req->link);
		}
	}
	return req;
}

static void
request_begin(struct request *req)
{
	struct peer *peer = req->peer;
	struct core_batch *batch = req->batch;

	req->tx = REQUEST_SENDING;
	request_header_encode(req);
	req->sent_us = io_now_us(peer->core->io);
	if (batch != NULL && req->op == WIRE_PUT && req->payload_bytes > 0) {
		req->held = true;
		batch->holds++;
	}
	list_add_tail(&peer->train, &req->link);
	peer->core->stat.requests++;
}

static void tx_cb(void *arg, int64_t result);

static void
tx_slice(struct peer *peer)
{
	struct request *req;
	unsigned count = 0, fds_count = 0;
	int fd = -1;

	peer->tx_bytes = 0;
	list_for_each_entry(req, &peer->train, link) {
		uint8_t *base;
		size_t len;

		if (fd >= 0 || (req->fd >= 0 && count > 0)) {
			break; /* descriptors go with the first byte of a send, and alone */
		}
		while (count < TX_IOV_MAX && peer->tx_bytes < TX_SLICE_BYTES &&
		       request_next(req, &base, &len)) {
			len = HR_MIN(len, TX_SLICE_BYTES - peer->tx_bytes);
			peer->tx_iov[count++] = (struct iovec){ base, len };
			peer->tx_bytes += len;
			req->iov_off += len;
			req->sliced = true;
			if (req->fd >= 0) {
				fd = req->fd;
				fds_count = 1;
			}
		}
		if (count == TX_IOV_MAX || peer->tx_bytes >= TX_SLICE_BYTES) {
			break;
		}
	}
	HR_ASSERT(count > 0);
	peer->tx_posted = true;
	if (fds_count > 0) {
		io_conn_send_fds(peer->conn, peer->tx_iov, count, &fd, fds_count, tx_cb, peer);
	} else {
		io_conn_send(peer->conn, peer->tx_iov, count, tx_cb, peer);
	}
}

/* A send of several requests has ended well. */
static void
tx_advance(struct peer *peer)
{
	struct request *req, *tmp;

	list_for_each_entry_safe(req, tmp, &peer->train, link) {
		uint8_t *base;
		size_t len;

		if (!req->sliced) {
			break;
		}
		req->sliced = false;
		if (req->zero_rest) {
			req->zero_rest = false;
			if (request_zero_rest(req) != 0) {
				peer_fail(peer, -ENOMEM, "no memory");
				return;
			}
			request_unhold(req);
		}
		if (request_next(req, &base, &len)) {
			break;
		}
		list_del(&req->link);
		req->tx = REQUEST_SENT;
		request_unhold(req);
		if (req->answered || req->slot == UINT32_MAX) {
			req_free(req);
		}
	}
}

static void
tx_cb(void *arg, int64_t result)
{
	struct peer *peer = arg;

	peer->tx_posted = false;
	if (peer->state == PEER_CLOSING) {
		peer_closed(peer);
		return;
	}
	if (result < 0) {
		peer_fail(peer, (int)result, "sending");
		return;
	}
	peer->pumping = true;
	tx_advance(peer);
	peer->pumping = false;
	peer_pump(peer);
}

static void
train_fill(struct peer *peer)
{
	uint64_t bytes = 0;
	unsigned iovs = 0;

	shm_unborrows_send(peer);
	while (bytes < TX_TRAIN_BYTES && iovs < TX_IOV_MAX / 2) {
		struct request *req = next_request(peer);

		if (req == NULL) {
			break;
		}
		request_begin(req);
		bytes += WIRE_HEADER_BYTES + req->items.len + req->payload_bytes;
		iovs += 2 + req->iov_count;
	}
}

/* What is decided on the way may ask for more to be sent: that is left to the call that is under way. */
void
peer_pump(struct peer *peer)
{
	if (peer->conn == NULL || peer->tx_posted || peer->pumping || peer->state == PEER_CLOSING) {
		return;
	}
	peer->pumping = true;
	if (list_empty(&peer->train)) {
		train_fill(peer);
	}
	if (!list_empty(&peer->train) && peer->conn != NULL) {
		tx_slice(peer);
	}
	peer->pumping = false;
}

/* -- in -------------------------------------------------------------------------------------------------------------------------- */

static void
protocol_error(struct peer *peer, const char *why)
{
	peer->core->stat.protocol_errors++;
	peer_fail(peer, -HR_EPROTO, why);
}

static void
rx_reset(struct peer *peer)
{
	struct rx *rx = &peer->rx;

	for (uint32_t i = rx->pieces_next; i < rx->pieces_count; i++) {
		free(rx->pieces[i].base);
	}
	rx->state = RX_HEADER;
	rx->req = NULL;
	rx->discard = false;
	rx->items_got = 0;
	rx->pieces_count = 0;
	rx->pieces_next = 0;
	rx->dst_count = 0;
	rx->dst_at = 0;
	rx->dst_off = 0;
	rx->payload_got = 0;
}

/* The next piece of memory that payload goes to, at most `max` bytes. */
static struct iovec
rx_destination(struct peer *peer, unsigned at, size_t off, bool *ret_user)
{
	struct rx *rx = &peer->rx;
	struct iovec dst = rx->dst[at];

	*ret_user = dst.iov_base != NULL && !rx->discard;
	if (!*ret_user) {
		return (struct iovec){ peer->core->scratch,
				       HR_MIN(dst.iov_len - off, (size_t)SCRATCH_BYTES) };
	}
	return (struct iovec){ (uint8_t *)dst.iov_base + off, dst.iov_len - off };
}

static void
rx_payload_advance(struct peer *peer, size_t n)
{
	struct rx *rx = &peer->rx;

	rx->payload_got += n;
	while (n > 0) {
		size_t step = HR_MIN(n, rx->dst[rx->dst_at].iov_len - rx->dst_off);

		if (rx->discard || rx->dst[rx->dst_at].iov_base == NULL) {
			peer->core->stat.bytes_discarded += step;
		}
		rx->dst_off += step;
		n -= step;
		if (rx->dst_off == rx->dst[rx->dst_at].iov_len) {
			rx->dst_at++;
			rx->dst_off = 0;
		}
	}
	if (!rx->discard && rx->req != NULL) {
		ops_answer_landed(peer);
	}
}

/* Payload that came with the header is copied; the rest is received where it belongs. */
static void
rx_payload_copy(struct peer *peer)
{
	struct rx *rx = &peer->rx;
	size_t copied = 0;
	unsigned at = rx->dst_at;
	size_t off = rx->dst_off;

	while (rx->at < rx->have && at < rx->dst_count) {
		bool user;
		struct iovec dst = rx_destination(peer, at, off, &user);
		size_t n = HR_MIN(rx->have - rx->at, dst.iov_len);

		if (user) {
			memcpy(dst.iov_base, rx->buf + rx->at, n);
		}
		rx->at += n;
		copied += n;
		off += n;
		if (off == rx->dst[at].iov_len) {
			at++;
			off = 0;
		}
	}
	if (copied > 0) {
		rx_payload_advance(peer, copied);
	}
}

static void hello_answer(struct peer *peer, struct request *req);
static void space_answer(struct peer *peer, struct request *req);
static void call_answer(struct peer *peer, struct request *req);

static int
reader_of_items(struct peer *peer, struct wire_reader *ret)
{
	ret->at = peer->rx.items;
	ret->end = peer->rx.items + peer->rx.header.items_bytes;
	return 0;
}

static void
push_chunk(struct peer *peer)
{
	struct wire_reader reader;
	struct wire_region region;
	const char *why = "CHUNK without its descriptor";
	int fd = -1;

	reader_of_items(peer, &reader);
	if (!peer->shm || wire_region_decode(&reader, &region, &why) != 0 ||
	    io_conn_take_fds(peer->conn, &fd, 1) != 1 ||
	    shm_chunk_take(peer, &region, fd, &why) != 0) {
		protocol_error(peer, why);
	}
	if (fd >= 0) {
		(void)close(fd);
	}
}

static void
push_take(struct peer *peer)
{
	struct core *core = peer->core;
	struct wire_reader reader;
	struct wire_map map;
	const char *why = "push";

	switch (peer->rx.header.op) {
	case WIRE_MAP:
		reader_of_items(peer, &reader);
		if (wire_map_decode(&reader, &map, &why) != 0) {
			protocol_error(peer, why);
			return;
		}
		core_map_take(core, &map, peer);
		return;
	case WIRE_GOAWAY:
		/* What is in flight will be answered; nothing new goes to it, and the connection ends by itself. */
		core->stat.pushes_goaway++;
		peer->draining = true;
		if (peer->slots_used == 0) {
			peer_fail(peer, -HR_EDOWN, "the node drains");
		}
		return;
	case WIRE_CHUNK:
		push_chunk(peer);
		return;
	default:
		protocol_error(peer, "unknown push");
	}
}

/* The whole frame is refused. */
static void
refused_take(struct peer *peer, struct request *req)
{
	uint16_t status = peer->rx.header.status;

	if (req->kind == REQUEST_ITEMS && req->batch != NULL) {
		if (status == WIRE_UNKNOWN_SPACE && req->space != NULL) {
			peer->spaces[req->space->idx].state = SPACE_NONE;
		}
		ops_request_fail(peer->core, req, ops_reason_of_status(status));
	}
}

/* The items of a frame are here and whole. Payload destinations are set before anything of it is taken. */
static int
frame_begin(struct peer *peer)
{
	struct rx *rx = &peer->rx;
	struct wire_header *header = &rx->header;
	const char *why = "payload where none belongs";
	uint64_t before = 0;
	int rc = 0;

	rx->dst_count = 0;
	rx->dst_at = 0;
	rx->dst_off = 0;
	rx->payload_got = 0;
	if (rx->req != NULL && rx->req->kind == REQUEST_ITEMS && rx->req->batch != NULL &&
	    !rx->req->zero_rest && (header->flags & WIRE_FLAG_REFUSED) == 0) {
		rc = ops_answer(peer, rx->req, &why);
		if (peer->conn == NULL) {
			return -ECANCELED;
		}
	} else {
		rx->discard = true;
	}
	if (rx->req != NULL && rx->req->kind == REQUEST_CALL && rx->req->call != NULL &&
	    header->payload_bytes > 0) {
		/* Not into the call's own buffer: the call may end while this is being received. */
		rx->discard = false;
		wire_buf_reset(&rx->own);
		if (wire_buf_reserve(&rx->own, header->payload_bytes) != 0) {
			why = "no memory";
			rc = -ENOMEM;
		} else {
			rx->own.len = header->payload_bytes;
			rx->dst[0] = (struct iovec){ rx->own.bytes, rx->own.len };
			rx->dst_count = 1;
		}
	}
	for (unsigned i = 0; i < rx->dst_count; i++) {
		before += rx->dst[i].iov_len;
	}
	if (rc == 0 && rx->discard && before < header->payload_bytes) {
		rx->dst[0] = (struct iovec){ NULL, header->payload_bytes };
		rx->dst_count = 1;
	} else if (rc == 0 && before != header->payload_bytes) {
		rc = -HR_EPROTO;
	}
	if (rc != 0) {
		protocol_error(peer, why);
	}
	return rc;
}

static void
frame_end(struct peer *peer)
{
	struct rx *rx = &peer->rx;
	struct request *req = rx->req;
	uint16_t flags = rx->header.flags;

	if ((flags & WIRE_FLAG_ANSWER) == 0) {
		push_take(peer);
		rx_reset(peer);
		return;
	}
	if (req == NULL) {
		rx_reset(peer);
		return;
	}
	peer->core->stat.answers++;
	if (flags & WIRE_FLAG_REFUSED) {
		refused_take(peer, req);
	}
	req = rx->req; /* may have been ended by what its answer decided */
	if (req != NULL && req->kind != REQUEST_ITEMS) {
		switch (req->kind) {
		case REQUEST_HELLO:
		case REQUEST_AUTH:
			hello_answer(peer, req);
			break;
		case REQUEST_SPACE:
			space_answer(peer, req);
			break;
		case REQUEST_CALL:
			call_answer(peer, req);
			break;
		default:
			break;
		}
	}
	if (peer->conn == NULL) {
		return;
	}
	req = rx->req;
	rx_reset(peer);
	if (req == NULL || (flags & WIRE_FLAG_LAST) == 0) {
		return;
	}
	if (peer->state == PEER_READY && req->kind != REQUEST_HELLO && req->kind != REQUEST_AUTH) {
		peer->failures = 0;
	}
	if (req->kind == REQUEST_ITEMS && req->batch != NULL && !req->zero_rest) {
		/* The last answer has come and some items were not in it. */
		ops_request_fail(peer->core, req, HR_REASON_DOWN);
	}
	req->answered = true;
	if (req->tx == REQUEST_SENT) {
		req_free(req);
	}
	if (peer->draining && peer->slots_used == 0) {
		peer_fail(peer, -HR_EDOWN, "the node drains");
	}
}

/* False: the connection is over. */
static bool
rx_header(struct peer *peer)
{
	struct rx *rx = &peer->rx;
	const char *why = "header";
	uint32_t slot;

	if (wire_header_decode(rx->buf + rx->at, &rx->header, &why) != 0) {
		protocol_error(peer, why);
		return false;
	}
	rx->at += WIRE_HEADER_BYTES;
	rx->req = NULL;
	rx->discard = false;
	if (rx->header.flags & WIRE_FLAG_ANSWER) {
		slot = rx->header.request_id & (CORE_REQUESTS_MAX - 1);
		rx->req = peer->slots[slot];
		if (rx->req != NULL &&
		    (rx->req->id != rx->header.request_id || rx->req->op != rx->header.op)) {
			rx->req = NULL;
		}
		if (rx->req == NULL && slot != CORE_REQUESTS_MAX - 1) {
			protocol_error(peer, "an answer to nothing that was asked");
			return false;
		}
	}
	if (rx->header.items_bytes > rx->items_cap) {
		uint8_t *more = realloc(rx->items, rx->header.items_bytes);

		if (more == NULL) {
			peer_fail(peer, -ENOMEM, "no memory");
			return false;
		}
		rx->items = more;
		rx->items_cap = rx->header.items_bytes;
	}
	if (rx->dst_cap == 0) {
		rx->dst = calloc(16, sizeof(*rx->dst));
		if (rx->dst == NULL) {
			peer_fail(peer, -ENOMEM, "no memory");
			return false;
		}
		rx->dst_cap = 16;
	}
	rx->items_got = 0;
	rx->state = RX_ITEMS;
	return true;
}

static bool
rx_items(struct peer *peer)
{
	struct rx *rx = &peer->rx;
	size_t n = HR_MIN(rx->have - rx->at, rx->header.items_bytes - rx->items_got);
	const char *why = "items";

	if (n > 0) {
		memcpy(rx->items + rx->items_got, rx->buf + rx->at, n);
		rx->at += n;
		rx->items_got += n;
	}
	if (rx->items_got < rx->header.items_bytes) {
		return false;
	}
	if (wire_items_verify(&rx->header, rx->items, &why) != 0) {
		protocol_error(peer, why);
		return false;
	}
	rx->state = RX_PAYLOAD;
	return frame_begin(peer) == 0;
}

/* Goes as far as the bytes that are here allow, then asks for more. */
static void
rx_process(struct peer *peer)
{
	struct rx *rx = &peer->rx;

	while (peer->conn != NULL) {
		if (rx->state == RX_HEADER) {
			if (rx->have - rx->at < WIRE_HEADER_BYTES) {
				break;
			}
			if (!rx_header(peer)) {
				return;
			}
		}
		if (rx->state == RX_ITEMS && !rx_items(peer)) {
			if (peer->conn == NULL) {
				return;
			}
			break;
		}
		if (rx->state == RX_PAYLOAD) {
			rx_payload_copy(peer);
			if (peer->conn == NULL) {
				return;
			}
			if (rx->payload_got < rx->header.payload_bytes) {
				break;
			}
			frame_end(peer);
		}
	}
	if (peer->conn != NULL) {
		rx_post(peer);
	}
}

static void
rx_cb(void *arg, int64_t result)
{
	struct peer *peer = arg;
	struct rx *rx = &peer->rx;
	struct core_batch *held = rx->held;
	size_t n = result > 0 ? (size_t)result : 0;

	rx->posted = false;
	rx->held = NULL;
	if (held != NULL) {
		held->holds--;
	}
	if (peer->state == PEER_CLOSING) {
		if (held != NULL) {
			batch_check_done(peer->core, held);
		}
		peer_closed(peer);
		return;
	}
	if (result <= 0) {
		peer_fail(peer, result == 0 ? -ECONNRESET : (int)result, "the connection was ended");
		if (held != NULL) {
			batch_check_done(peer->core, held);
		}
		return;
	}
	peer->rx_us = io_now_us(peer->core->io);
	if (rx->state == RX_ITEMS) {
		size_t step = HR_MIN(n, rx->header.items_bytes - rx->items_got);

		rx->items_got += step;
		n -= step;
	} else if (rx->state == RX_PAYLOAD) {
		size_t step = HR_MIN(n, rx->header.payload_bytes - rx->payload_got);

		n -= step;
		rx_payload_advance(peer, step);
	}
	if (held != NULL) {
		batch_check_done(peer->core, held);
	}
	rx->have += n;
	rx_process(peer);
	peer_pump(peer);
}

static void
rx_post(struct peer *peer)
{
	struct rx *rx = &peer->rx;
	unsigned count = 0;
	bool user = false;

	memmove(rx->buf, rx->buf + rx->at, rx->have - rx->at);
	rx->have -= rx->at;
	rx->at = 0;
	if (rx->state == RX_ITEMS) {
		rx->iov[count++] = (struct iovec){ rx->items + rx->items_got,
						   rx->header.items_bytes - rx->items_got };
	} else if (rx->state == RX_PAYLOAD) {
		unsigned at = rx->dst_at;
		size_t off = rx->dst_off;
		bool whole = true;

		while (at < rx->dst_count && count < TX_IOV_MAX - 1 && whole) {
			bool is_user;
			struct iovec dst = rx_destination(peer, at, off, &is_user);

			user |= is_user;
			whole = dst.iov_len == rx->dst[at].iov_len - off;
			rx->iov[count++] = dst;
			at++;
			off = 0;
		}
		if (at < rx->dst_count || !whole) {
			goto post; /* the next frame does not begin within this receive */
		}
	}
	rx->iov[count++] = (struct iovec){ rx->buf + rx->have, RX_BUF_BYTES - rx->have };
post:
	if (user && rx->req != NULL && rx->req->batch != NULL) {
		rx->held = rx->req->batch;
		rx->held->holds++;
	}
	rx->posted = true;
	io_conn_recv(peer->conn, rx->iov, count, rx_cb, peer);
}

/* -- spaces and calls ------------------------------------------------------------------------------------------------------------ */

bool
peer_space_number(struct peer *peer, struct core_space *space, uint32_t *ret_number,
		  uint8_t *ret_refused)
{
	struct wire_space_request open = { .sub = WIRE_SPACE_OPEN };
	struct request *req;
	struct peer_space *row;

	if (space->idx >= peer->spaces_count) {
		uint32_t count = peer->core->spaces_count;
		struct peer_space *more = reallocarray(peer->spaces, count, sizeof(*more));

		if (more == NULL) {
			*ret_refused = HR_REASON_BUSY;
			return false;
		}
		memset(more + peer->spaces_count, 0, (count - peer->spaces_count) * sizeof(*more));
		peer->spaces = more;
		peer->spaces_count = count;
	}
	row = &peer->spaces[space->idx];
	if (row->state == SPACE_OPEN) {
		*ret_number = row->number;
		return true;
	}
	if (row->state == SPACE_OPENING) {
		return false;
	}
	if (io_now_us(peer->core->io) < row->retry_us) {
		return false;
	}
	req = req_create(peer, REQUEST_SPACE, WIRE_SPACE);
	if (req == NULL || req_slot_take(peer, req) != 0) {
		if (req != NULL) {
			req_free(req);
			return false; /* an answer frees a slot */
		}
		*ret_refused = HR_REASON_BUSY;
		return false;
	}
	memcpy(open.digest, space->digest, sizeof(open.digest));
	open.label = space->label;
	open.label_len = (uint16_t)strlen(space->label);
	wire_space_request_encode(&req->items, &open);
	req->items_count = 1;
	req->space = space;
	if (req_queue(req) != 0) {
		*ret_refused = HR_REASON_BUSY;
		return false;
	}
	row->state = SPACE_OPENING;
	return false;
}

static int call_rc_of_status(uint16_t status);

/* Those that waited for a space that cannot be opened are told now. */
static void
space_waiters_fail(struct peer *peer, struct core_space *space, uint16_t status)
{
	struct core_call *call, *next;

	for (int priority = 1; priority <= 3; priority++) {
		struct group *group, *tmp;

		list_for_each_entry_safe(group, tmp, &peer->groups[priority], link) {
			if (group->batch->space == space) {
				ops_group_fail(peer->core, group, ops_reason_of_status(status));
			}
		}
	}
	list_for_each_entry_safe(call, next, &peer->calls, link) {
		if (call->space == space) {
			core_call_end(peer->core, call, call_rc_of_status(status));
		}
	}
}

static void
peer_again_cb(void *arg)
{
	peer_want(arg);
}

static void
space_answer(struct peer *peer, struct request *req)
{
	struct core *core = peer->core;
	struct peer_space *row = &peer->spaces[req->space->idx];
	uint16_t status = peer->rx.header.status;
	struct wire_space_row answer;
	struct wire_reader reader;
	const char *why = "SPACE";

	if ((peer->rx.header.flags & WIRE_FLAG_REFUSED) == 0) {
		reader_of_items(peer, &reader);
		if (wire_space_row_decode(&reader, &answer, &why) != 0) {
			protocol_error(peer, why);
			return;
		}
		row->state = SPACE_OPEN;
		row->number = answer.number;
		peer_want(peer); /* calls that waited for it are looked at again */
		return;
	}
	row->state = SPACE_NONE;
	if (status == WIRE_BUSY && core->options.gap_waits) {
		/* A host that has just taken over is still finding out what it has. */
		row->retry_us = io_now_us(core->io) + SPACE_RETRY_US;
		io_timer_set(core->io, &peer->again, row->retry_us, peer_again_cb, peer);
		return;
	}
	core_error_set(core, call_rc_of_status(status), "%s: the space was not opened: %s",
		       peer->address, wire_status_name(status));
	space_waiters_fail(peer, req->space, status);
}

/* Calls whose space is open become requests. */
static void
calls_start(struct peer *peer)
{
	struct core_call *call, *tmp;

	list_for_each_entry_safe(call, tmp, &peer->calls, link) {
		struct request *req;
		uint32_t number;
		uint8_t refused = 0;

		if (call->space != NULL && !peer_space_number(peer, call->space, &number, &refused)) {
			if (refused != 0) {
				core_call_end(peer->core, call, -HR_EFULL);
			}
			continue;
		}
		req = req_create(peer, REQUEST_CALL, call->op);
		if (req == NULL) {
			core_call_end(peer->core, call, -ENOMEM);
			continue;
		}
		if (req_slot_take(peer, req) != 0) {
			req_free(req);
			return;
		}
		list_del(&call->link);
		call->request = req;
		req->call = call;
		req->space = call->space;
		req->items = call->items;
		call->items = (struct wire_buf){ 0 };
		req->items_count = req->items.len > 0 ? 1 : 0;
		req->deadline_at_us = io_now_us(peer->core->io) + call->deadline_us;
		(void)req_queue(req);
	}
}

static int
call_rc_of_status(uint16_t status)
{
	switch (status) {
	case WIRE_NOT_AUTHENTICATED:
		return -HR_EAUTH;
	case WIRE_UNKNOWN_SPACE:
		return -HR_EGONE;
	case WIRE_BUSY:
	case WIRE_TOO_MANY:
		return -EBUSY;
	case WIRE_TABLE_FULL:
		return -HR_EFULL;
	case WIRE_NOT_SUPPORTED:
		return -ENOTSUP;
	case WIRE_READ_ONLY:
		return -EROFS;
	case WIRE_BAD_VERSION:
		return -HR_EVERSION;
	case WIRE_WRONG_SHARD:
	case WIRE_SHARD_FAILED:
	case WIRE_DRAINING:
	default:
		return -HR_EDOWN;
	}
}

static void
call_answer(struct peer *peer, struct request *req)
{
	struct rx *rx = &peer->rx;
	struct core_call *call = req->call;
	size_t bytes = rx->header.items_bytes;

	if (call == NULL) {
		return;
	}
	if (rx->header.flags & WIRE_FLAG_REFUSED) {
		core_call_end(peer->core, call, call_rc_of_status(rx->header.status));
		return;
	}
	if (wire_buf_reserve(&call->answer, bytes) != 0 ||
	    wire_buf_reserve(&call->payload, rx->own.len) != 0) {
		core_call_end(peer->core, call, -ENOMEM);
		return;
	}
	if (rx->header.payload_bytes > 0) {
		memcpy(call->payload.bytes + call->payload.len, rx->own.bytes, rx->own.len);
		call->payload.len += rx->own.len;
	}
	if (bytes > 0) {
		memcpy(call->answer.bytes + call->answer.len, rx->items, bytes);
		call->answer.len += bytes;
	}
	if (rx->header.flags & WIRE_FLAG_LAST) {
		core_call_end(peer->core, call, 0);
	}
}

/* -- the connection's life ------------------------------------------------------------------------------------------------------- */

bool
peer_down(const struct peer *peer)
{
	return peer->state == PEER_OPEN || peer->half_open || peer->gone;
}

static void
peer_ready(struct peer *peer)
{
	struct core *core = peer->core;

	peer->state = PEER_READY;
	peer->half_open = false;
	peer->error = 0;
	peer->connected_us = io_now_us(core->io);
	io_timer_cancel(core->io, &peer->timer);
	core->stat.conns_now++;
	if (peer->shm) {
		shm_regions_send(peer);
	}
	core_peer_up(core, peer);
	peer_want(peer);
}

static int
auth_send(struct peer *peer, const struct wire_server_hello *hello)
{
	static const char label[] = "headrace auth 1";
	const struct core_options *options = &peer->core->options;
	struct request *req, *first = NULL;
	uint8_t proof[EVP_MAX_MD_SIZE], *text;
	unsigned proof_len = 0;
	size_t len = 32 + sizeof(label) - 1;

	if (options->token_len == 0) {
		return -HR_EAUTH;
	}
	first = peer->rx.req;
	req = req_create(peer, REQUEST_AUTH, WIRE_AUTH);
	text = malloc(len + first->items.len);
	if (req == NULL || text == NULL || req_slot_take(peer, req) != 0) {
		free(text);
		if (req != NULL) {
			req_free(req);
		}
		return -ENOMEM;
	}
	memcpy(text, peer->nonce, 16);
	memcpy(text + 16, hello->nonce, 16);
	memcpy(text + 32, label, sizeof(label) - 1);
	memcpy(text + len, first->items.bytes, first->items.len);
	(void)HMAC(EVP_sha256(), options->token, (int)options->token_len, text,
		   len + first->items.len, proof, &proof_len);
	free(text);
	if (wire_buf_reserve(&req->items, proof_len) != 0) {
		req_free(req);
		return -ENOMEM;
	}
	memcpy(req->items.bytes, proof, proof_len);
	req->items.len = proof_len;
	req->items_count = 1;
	peer->state = PEER_AUTH;
	return req_queue(req);
}

static void
hello_refused(struct peer *peer)
{
	struct rx *rx = &peer->rx;
	struct wire_reader reader;
	struct wire_map map;
	const char *why;
	uint16_t status = rx->header.status;

	if (status == WIRE_WRONG_SHARD && rx->header.items_bytes > 0) {
		reader_of_items(peer, &reader);
		if (wire_map_decode(&reader, &map, &why) == 0) {
			core_map_take(peer->core, &map, NULL);
		}
	}
	if (peer->conn != NULL) {
		peer_fail(peer, call_rc_of_status(status), wire_status_name(status));
	}
}

static void
hello_answer(struct peer *peer, struct request *req)
{
	struct core *core = peer->core;
	struct rx *rx = &peer->rx;
	struct wire_reader reader;
	struct wire_map map;
	const char *why = "HELLO";
	bool have_map;
	int rc;

	if ((rx->header.flags & WIRE_FLAG_REFUSED) || rx->header.status != WIRE_OK) {
		hello_refused(peer);
		return;
	}
	reader_of_items(peer, &reader);
	if (wire_server_hello_decode(&reader, &peer->hello, &why) != 0) {
		protocol_error(peer, why);
		return;
	}
	if (peer->hello.part_bytes == 0 || peer->hello.part_bytes > 4 << 20 ||
	    peer->hello.chunk_bytes != WIRE_CHUNK_BYTES) {
		protocol_error(peer, "part or chunk size");
		return;
	}
	if (req->kind == REQUEST_HELLO && peer->hello.auth != 0) {
		rc = auth_send(peer, &peer->hello);
		if (rc != 0) {
			peer_fail(peer, rc, "the node wants a token (option token_file)");
		}
		return;
	}
	/* After AUTH the map may be the one that came before it. */
	have_map = reader.at < reader.end || req->kind == REQUEST_HELLO || !core->have_map;
	if (have_map && wire_map_decode(&reader, &map, &why) != 0) {
		protocol_error(peer, why);
		return;
	}
	peer->shm = io_conn_is_unix(peer->conn) && (peer->hello.features & WIRE_FEATURE_SHM) != 0;
	peer->borrow = peer->shm && (peer->hello.features & WIRE_FEATURE_BORROW) != 0;
	memcpy(peer->node_uuid, peer->hello.node_uuid, 16);
	if (peer->boot) {
		memcpy(peer->uuid, peer->hello.shard_uuid, 16);
	} else if (memcmp(peer->uuid, peer->hello.shard_uuid, 16) != 0) {
		if (have_map) {
			wire_map_free(&map);
		}
		protocol_error(peer, "another shard answered");
		return;
	}
	if (have_map) {
		core_map_take(core, &map, peer);
	}
	if (peer->conn != NULL) {
		peer_ready(peer);
	}
}

static void
hello_send(struct peer *peer)
{
	struct core *core = peer->core;
	struct wire_client_hello hello = {
		.version_min = WIRE_VERSION,
		.version_max = WIRE_VERSION,
		.features = io_conn_is_unix(peer->conn) ? WIRE_FEATURE_SHM | WIRE_FEATURE_BORROW : 0,
		.inflight_bytes = core->options.inflight_bytes,
		.pid = (uint32_t)getpid(),
		.name = core->options.name,
		.name_len = (uint16_t)strlen(core->options.name),
		.tenant = core->options.tenant,
		.tenant_len = (uint16_t)strlen(core->options.tenant),
	};
	struct request *req = req_create(peer, REQUEST_HELLO, WIRE_HELLO);

	if (req == NULL || req_slot_take(peer, req) != 0) {
		if (req != NULL) {
			req_free(req);
		}
		peer_fail(peer, -ENOMEM, "no memory");
		return;
	}
	memcpy(hello.shard_uuid, peer->uuid, 16);
	put_le64(peer->nonce, io_random_u64(core->io));
	put_le64(peer->nonce + 8, io_random_u64(core->io));
	memcpy(hello.nonce, peer->nonce, 16);
	wire_client_hello_encode(&req->items, &hello);
	req->items_count = 1;
	rx_post(peer);
	if (req_queue(req) != 0) {
		peer_fail(peer, -ENOMEM, "no memory");
		return;
	}
	peer_pump(peer);
}

static const char *
connect_why(int rc)
{
	return rc == -ENXIO    ? "there is no host of this name"
	       : rc == -EAGAIN ? "the host's name cannot be looked up now"
			       : "connecting";
}

static void
connect_cb(void *arg, int rc, struct io_conn *conn)
{
	struct peer *peer = arg;

	peer->connect = NULL;
	if (rc != 0) {
		peer_fail(peer, rc, connect_why(rc));
		return;
	}
	peer->conn = conn;
	peer->epoch++;
	peer->state = PEER_HELLO;
	peer->draining = false;
	peer->rx_us = io_now_us(peer->core->io);
	hello_send(peer);
}

static void
peer_connect(struct peer *peer)
{
	struct core *core = peer->core;
	uint64_t timeout_us = (uint64_t)core->options.connect_timeout_ms * 1000;
	int rc;

	/* Whoever was told that the connection broke may have begun the next one. */
	if (core->closing || peer->gone || (peer->state != PEER_IDLE && peer->state != PEER_OPEN)) {
		return;
	}
	HR_ASSERT(peer->conn == NULL && peer->connect == NULL);
	if (core->options.gap_waits) {
		timeout_us =
		    HR_MIN(timeout_us, (uint64_t)GAP_HELLO_US << HR_MIN(peer->failures, 3u));
	}
	core->stat.connects++;
	peer->state = PEER_CONNECTING;
	io_timer_set(core->io, &peer->timer, io_now_us(core->io) + timeout_us, peer_timer_cb, peer);
	rc = io_connect(core->io, peer->address, timeout_us, connect_cb, peer, &peer->connect);
	if (rc != 0) {
		peer->connect = NULL;
		peer_fail(peer, rc, connect_why(rc));
	}
}

void
peer_want(struct peer *peer)
{
	if (peer->state == PEER_IDLE) {
		peer_connect(peer);
	} else if (peer->state == PEER_READY) {
		calls_start(peer);
		peer_pump(peer);
	}
}

void
peer_retry_now(struct peer *peer)
{
	if (peer->state == PEER_OPEN) {
		peer->half_open = true;
		peer_connect(peer);
	}
}

/* Between half and one and a half of the doubled step, so that many clients do not come back at once. */
static uint64_t
backoff_us(struct peer *peer)
{
	unsigned shift = HR_MIN(peer->failures - 1, 6u);
	uint64_t step =
	    HR_MIN((uint64_t)CORE_BACKOFF_US_MIN << shift, (uint64_t)CORE_BACKOFF_US_MAX);

	step = step / 2 + io_random_u64(peer->core->io) % (step + 1);
	return HR_MAX(step, (uint64_t)10 * 1000);
}

/* The breaker opens: what waits fails now, what comes fails at once, until the timer lets one try through. */
static void
peer_open_breaker(struct peer *peer)
{
	struct core *core = peer->core;

	peer->failures++;
	peer->half_open = false;
	peer->state = PEER_OPEN;
	core->stat.connects_failed++;
	io_timer_set(core->io, &peer->timer, io_now_us(core->io) + backoff_us(peer), peer_timer_cb,
		     peer);
	core_peer_down(core, peer);
}

static void
requests_fail(struct peer *peer)
{
	struct list_head lists[2];
	struct request *req, *tmp;

	list_init(&lists[0]);
	list_splice_tail(&lists[0], &peer->train);
	list_splice_tail(&lists[0], &peer->queue);
	list_for_each_entry_safe(req, tmp, &lists[0], link) {
		/* Nothing of it is in the kernel's hands any more. */
		request_unhold(req);
		if (req->slot == UINT32_MAX) {
			req_free(req);
		} else {
			list_del(&req->link);
			req->tx = REQUEST_SENT;
		}
	}
	for (uint32_t slot = 0; slot < CORE_REQUESTS_MAX; slot++) {
		req = peer->slots[slot];
		if (req == NULL) {
			continue;
		}
		if (req->call != NULL) {
			core_call_end(peer->core, req->call, -HR_EDOWN);
		}
		if (req->kind == REQUEST_ITEMS && req->batch != NULL) {
			ops_request_fail(peer->core, req, HR_REASON_DOWN);
		}
		req_free(req);
	}
}

/* All callbacks of the connection have run: what was in flight is decided, and the next step is chosen. */
static void
peer_closed(struct peer *peer)
{
	struct core *core = peer->core;
	bool lived = peer->connected_us != 0 &&
		     (peer->failures == 0 || io_now_us(core->io) - peer->connected_us > 1000 * 1000);

	if (peer->tx_posted || peer->rx.posted || peer->state != PEER_CLOSING) {
		return;
	}
	if (peer->connected_us != 0) {
		core->stat.conns_now--;
		core->stat.conns_broken++;
	}
	peer->connected_us = 0;
	for (uint32_t i = 0; i < peer->spaces_count; i++) {
		peer->spaces[i] = (struct peer_space){ 0 };
	}
	shm_peer_reset(peer);
	ops_answer_lost(peer);
	requests_fail(peer);
	rx_reset(peer);
	peer->rx.have = 0;
	peer->rx.at = 0;
	peer->put_bytes_inflight = 0;
	/* Only now: what was asked again meanwhile waits for the step that is chosen here. */
	peer->state = PEER_IDLE;
	if (core->closing || peer->gone) {
		core_peer_down(core, peer);
		return;
	}
	if (lived) {
		/* One try at once, without making those who wait pay for what broke; a connection that then breaks before it has answered
		 * anything opens the breaker. */
		peer->failures = 1;
		if (core->options.down != NULL) {
			core->options.down(core->options.arg);
		}
		peer_connect(peer);
		return;
	}
	peer_open_breaker(peer);
}

void
peer_fail(struct peer *peer, int rc, const char *why)
{
	struct core *core = peer->core;

	if (peer->state == PEER_IDLE || peer->state == PEER_CLOSING || peer->state == PEER_OPEN) {
		return;
	}
	peer->error = rc;
	core_error_set(core, rc, "%s: %s: %s", peer->address, why, error_text(rc));
	io_timer_cancel(core->io, &peer->timer);
	io_timer_cancel(core->io, &peer->grace);
	io_timer_cancel(core->io, &peer->again);
	if (peer->connect != NULL) {
		io_connect_cancel(peer->connect);
		peer->connect = NULL;
	}
	if (peer->conn == NULL) {
		peer_open_breaker(peer);
		return;
	}
	io_conn_close(peer->conn);
	peer->conn = NULL;
	peer->state = PEER_CLOSING;
	/* Not from here: the caller may be in the middle of an answer. */
	io_timer_set(core->io, &peer->timer, io_now_us(core->io), peer_timer_cb, peer);
}

static void
peer_timer_cb(void *arg)
{
	struct peer *peer = arg;

	switch (peer->state) {
	case PEER_CONNECTING:
	case PEER_HELLO:
	case PEER_AUTH:
		peer_fail(peer, -ETIMEDOUT, "no answer");
		break;
	case PEER_CLOSING:
		peer_closed(peer);
		break;
	case PEER_OPEN:
		peer->half_open = true;
		peer_connect(peer);
		break;
	default:
		break;
	}
}

/* A batch ended and the kernel still had its memory: if that has not changed by now, only closing gets it back. */
static void
peer_grace_cb(void *arg)
{
	struct peer *peer = arg;
	bool stuck = peer->rx.held != NULL && peer->rx.held->ended;
	struct request *req;

	list_for_each_entry(req, &peer->train, link) {
		stuck |= req->held && req->batch->ended;
	}
	if (stuck && peer->conn != NULL) {
		peer->core->stat.conns_ended_grace++;
		peer_fail(peer, -ETIMEDOUT, "the peer took or gave nothing");
	}
}

void
peer_close(struct peer *peer)
{
	struct core *core = peer->core;

	peer->gone = true;
	if (peer->state == PEER_OPEN) {
		io_timer_cancel(core->io, &peer->timer);
		peer->state = PEER_IDLE;
		core_peer_down(core, peer);
	} else if (peer->state == PEER_IDLE) {
		core_peer_down(core, peer);
	} else if (peer->conn == NULL && peer->state == PEER_CONNECTING) {
		io_timer_cancel(core->io, &peer->timer);
		if (peer->connect != NULL) {
			io_connect_cancel(peer->connect);
			peer->connect = NULL;
		}
		peer->state = PEER_IDLE;
		core_peer_down(core, peer);
	} else {
		peer_fail(peer, -ECANCELED, "closed");
	}
}

bool
peer_quiet(const struct peer *peer)
{
	return peer->state == PEER_IDLE || peer->state == PEER_OPEN;
}

int
peer_create(struct core *core, const uint8_t uuid[16], const char *address, struct peer **ret_peer)
{
	struct peer *peer = calloc(1, sizeof(*peer));

	if (peer == NULL) {
		return -ENOMEM;
	}
	peer->address = strdup(address);
	if (peer->address == NULL) {
		free(peer);
		return -ENOMEM;
	}
	peer->core = core;
	memcpy(peer->uuid, uuid, 16);
	list_init(&peer->calls);
	list_init(&peer->queue);
	list_init(&peer->train);
	for (int i = 0; i < 4; i++) {
		list_init(&peer->groups[i]);
	}
	peer->timer.cb = peer_timer_cb;
	peer->grace.cb = peer_grace_cb;
	*ret_peer = peer;
	return 0;
}

void
peer_destroy(struct peer *peer)
{
	if (peer == NULL) {
		return;
	}
	HR_ASSERT(peer_quiet(peer));
	HR_ASSERT(peer->slots_used == 0);
	io_timer_cancel(peer->core->io, &peer->timer);
	io_timer_cancel(peer->core->io, &peer->grace);
	io_timer_cancel(peer->core->io, &peer->again);
	shm_peer_reset(peer);
	free(peer->chunks);
	free(peer->unborrows);
	free(peer->rx.items);
	free(peer->rx.dst);
	free(peer->rx.pieces);
	wire_buf_free(&peer->rx.own);
	free(peer->spaces);
	free(peer->address);
	free(peer);
}
