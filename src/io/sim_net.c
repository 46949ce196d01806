/* sim_net.c - simulated streams between the ios of one world.
 *
 * What:       a stream has two ends; what one sends arrives at the other in order, each piece after a drawn latency. At most
 *             WINDOW_BYTES are on their way or unread, so that a reader that takes nothing stops its writer, as a socket would.
 * Names:      a listener is known by its address, as written; port 0 becomes a free one. Ends are "sim:N" to each other.
 * Ownership:  a stream lives until both ends are closed and nothing is on its way. Descriptors are really passed (dup'ed).
 * Tests:      tests/unit/io/test_net.c, test_sim.c
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "io/net_socket.h"
#include "io/sim_impl.h"

enum { WINDOW_BYTES = 256 << 10, DETACHED_FD_FIRST = 1 << 20, CONNECT_GIVE_UP_US = 60000000 };

struct sim_stream;

struct sim_chunk {
	struct sim_event event;
	struct list_head link;
	struct sim_end *to;
	bool end_of_stream;
	size_t off, len;
	int fds[IO_FDS_MAX];
	unsigned fds_count;
	uint8_t bytes[];
};

struct sim_end {
	struct sim_stream *stream;
	struct sim_end *peer;
	struct io_conn *conn; /* NULL: not accepted yet, detached or closed */
	bool open;	      /* not closed by its owner */
	bool ended;	      /* the peer's end has arrived */
	bool reset;
	struct list_head arrived; /* struct sim_chunk */
	uint64_t unread_bytes;	  /* on their way to this end or arrived */
	uint64_t last_arrival_us;
	struct list_head detached_link;
	int detached_fd;
};

struct sim_stream {
	struct list_head link;
	struct sim *sim;
	uint32_t id;
	unsigned refs; /* open ends and chunks on their way */
	struct sim_end ends[2];
	struct list_head held; /* chunks that wait for a partition's end */
	struct list_head accept_link;
	char address[IO_ADDRESS_MAX];
};

struct sim_partition {
	struct list_head link;
	char address[IO_ADDRESS_MAX];
};

struct sim_listener {
	struct list_head link;
	struct io_listener *listener;
	uint32_t id;
	struct list_head waiting; /* struct sim_stream by accept_link */
};

struct sim_connect {
	struct sim_event event;
	struct io_connect *connect;
	bool answered;
	struct sim_stream *stream;
	char address[IO_ADDRESS_MAX];
};

struct sim_io_net {
	struct sim_end *opening; /* for io_conn_create() -> conn_open() */
};

/* -- streams ------------------------------------------------------------------------------------------------------------------------ */

static uint64_t
latency_draw(struct sim *sim)
{
	return sim_draw_between(sim, sim->net.latency_us_min, sim->net.latency_us_max);
}

static bool
is_cut(const struct sim *sim, const char *address)
{
	struct sim_partition *p;

	list_for_each_entry(p, &sim->partitions, link) {
		if (strcmp(p->address, address) == 0) {
			return true;
		}
	}
	return false;
}

static void
chunk_free(struct sim_chunk *chunk)
{
	list_del(&chunk->link);
	io_fds_close(chunk->fds, &chunk->fds_count);
	free(chunk);
}

static void
arrived_free(struct sim_end *end)
{
	struct sim_chunk *chunk;

	while ((chunk = list_pop_entry(&end->arrived, struct sim_chunk, link)) != NULL) {
		chunk_free(chunk);
	}
}

static void
stream_unref(struct sim_stream *stream)
{
	HR_ASSERT(stream->refs > 0);
	if (--stream->refs > 0) {
		return;
	}
	arrived_free(&stream->ends[0]);
	arrived_free(&stream->ends[1]);
	list_del(&stream->link);
	free(stream);
}

static struct sim_stream *
stream_new(struct sim *sim, const char *address)
{
	struct sim_stream *stream = calloc(1, sizeof(*stream));
	int i;

	HR_ASSERT(stream != NULL);
	stream->sim = sim;
	stream->id = ++sim->stream_id_last;
	stream->refs = 2;
	list_init(&stream->held);
	list_init(&stream->accept_link);
	(void)snprintf(stream->address, sizeof(stream->address), "%s", address);
	for (i = 0; i < 2; i++) {
		struct sim_end *end = &stream->ends[i];

		end->stream = stream;
		end->peer = &stream->ends[1 - i];
		end->open = true;
		list_init(&end->arrived);
		list_init(&end->detached_link);
	}
	list_add_tail(&sim->streams, &stream->link);
	return stream;
}

static unsigned
end_side(const struct sim_end *end)
{
	return end == &end->stream->ends[1];
}

static void chunk_fire(struct sim *sim, struct sim_event *event);
static void chunk_drop(struct sim *sim, struct sim_event *event);

static struct sim_chunk *
chunk_new(struct sim_end *from, size_t len)
{
	struct sim_chunk *chunk = malloc(sizeof(*chunk) + len);

	HR_ASSERT(chunk != NULL);
	memset(chunk, 0, sizeof(*chunk));
	list_init(&chunk->link);
	chunk->event.fire = chunk_fire;
	chunk->event.drop = chunk_drop;
	chunk->to = from->peer;
	chunk->len = len;
	return chunk;
}

static void
chunk_dispatch(struct sim_chunk *chunk)
{
	struct sim_end *to = chunk->to;
	struct sim *sim = to->stream->sim;

	to->unread_bytes += chunk->len;
	to->stream->refs++;
	to->last_arrival_us = HR_MAX(to->last_arrival_us, sim->now_us + latency_draw(sim));
	sim_trace(sim, "message", to->stream->id, end_side(to), chunk->len, chunk->end_of_stream);
	sim_event_at(sim, &chunk->event, to->last_arrival_us);
}

/* -- receiving -------------------------------------------------------------------------------------------------------------------- */

static void send_try(struct sim_end *end);

/* Copies to where the receive stands; returns what fitted. */
static size_t
scatter(struct io_stream_op *op, const uint8_t *bytes, size_t len)
{
	size_t done = 0;

	while (done < len && op->iov_idx < op->iov_count) {
		const struct iovec *iov = &op->iov[op->iov_idx];
		size_t part = HR_MIN(iov->iov_len - op->iov_skip, len - done);

		if (part > 0) {
			memcpy((char *)iov->iov_base + op->iov_skip, bytes + done, part);
		}
		done += part;
		op->iov_skip += part;
		if (op->iov_skip == iov->iov_len) {
			op->iov_idx++;
			op->iov_skip = 0;
		}
	}
	return done;
}

static int
chunk_take_fds(struct io_conn *conn, struct sim_chunk *chunk)
{
	if (chunk->fds_count > IO_FDS_MAX - conn->fds_count) {
		return -EPROTO;
	}
	memcpy(conn->fds + conn->fds_count, chunk->fds, chunk->fds_count * sizeof(*chunk->fds));
	conn->fds_count += chunk->fds_count;
	chunk->fds_count = 0;
	return 0;
}

/* As Linux does: bytes before a message with descriptors end a receive, and so does such a message. */
static int64_t
recv_arrived(struct sim_end *end, struct io_stream_op *op)
{
	struct sim *sim = end->stream->sim;
	uint64_t limit = sim->net.recv_split_max == 0
			     ? UINT64_MAX
			     : sim_draw_between(sim, 1, sim->net.recv_split_max);
	uint64_t got = 0;
	bool had_fds = false;

	while (!list_empty(&end->arrived) && got < limit && !had_fds) {
		struct sim_chunk *chunk = list_first_entry(&end->arrived, struct sim_chunk, link);
		size_t part;

		if (chunk->fds_count > 0) {
			if (got > 0) {
				break;
			}
			if (chunk_take_fds(op->conn, chunk) != 0) {
				return -EPROTO;
			}
			had_fds = true;
		}
		part = scatter(op, chunk->bytes + chunk->off,
			       HR_MIN(chunk->len - chunk->off, limit - got));
		got += part;
		chunk->off += part;
		if (chunk->off < chunk->len) {
			break; /* no more room, or split here */
		}
		chunk_free(chunk);
	}
	end->unread_bytes -= got;
	return (int64_t)got;
}

static void
recv_try(struct sim_end *end)
{
	struct io_stream_op *op = &end->conn->recv;
	struct sim *sim = end->stream->sim;
	int64_t result;

	if (!op->active || op->done) {
		return;
	}
	if (end->reset) {
		result = -ECONNRESET;
	} else if (!list_empty(&end->arrived)) {
		result = recv_arrived(end, op);
	} else if (end->ended) {
		result = 0;
	} else {
		return;
	}
	sim_trace(sim, "recv", end->stream->id, end_side(end), 0, result);
	io_stream_op_finish(op, result);
	if (result > 0 && end->peer->conn != NULL) {
		send_try(end->peer);
	}
}

static void
chunk_fire(struct sim *sim, struct sim_event *event)
{
	struct sim_chunk *chunk = container_of(event, struct sim_chunk, event);
	struct sim_end *end = chunk->to;
	struct sim_stream *stream = end->stream;

	if (is_cut(sim, stream->address)) {
		list_add_tail(&stream->held, &chunk->link);
		return;
	}
	if (chunk->end_of_stream) {
		end->ended = true;
		chunk_free(chunk);
	} else if (!end->open || end->reset) {
		chunk_free(chunk);
	} else {
		list_add_tail(&end->arrived, &chunk->link);
	}
	if (end->conn != NULL) {
		recv_try(end);
		send_try(end);
	}
	stream_unref(stream);
}

static void
chunk_drop(struct sim *sim, struct sim_event *event)
{
	struct sim_chunk *chunk = container_of(event, struct sim_chunk, event);
	struct sim_stream *stream = chunk->to->stream;

	(void)sim;
	chunk_free(chunk);
	stream_unref(stream);
}

/* -- sending ------------------------------------------------------------------------------------------------------------------------ */

static void
stream_reset(struct sim_stream *stream)
{
	int i;

	for (i = 0; i < 2; i++) {
		struct sim_end *end = &stream->ends[i];

		end->reset = true;
		arrived_free(end);
	}
	for (i = 0; i < 2; i++) {
		if (stream->ends[i].conn != NULL) {
			recv_try(&stream->ends[i]);
			send_try(&stream->ends[i]);
		}
	}
}

static void
gather(struct io_stream_op *op, uint8_t *bytes, size_t len)
{
	size_t done = 0;

	while (done < len) {
		const struct iovec *iov = &op->iov[op->iov_idx];
		size_t part = HR_MIN(iov->iov_len - op->iov_skip, len - done);

		if (part > 0) {
			memcpy(bytes + done, (const char *)iov->iov_base + op->iov_skip, part);
		}
		done += part;
		(void)socket_sent(op, part);
	}
}

static uint64_t
send_left(const struct io_stream_op *op)
{
	uint64_t left = 0;
	unsigned i;

	for (i = op->iov_idx; i < op->iov_count; i++) {
		left += op->iov[i].iov_len;
	}
	return left - op->iov_skip;
}

/* Moves what the window takes; completes when all has gone. */
static void
send_try(struct sim_end *end)
{
	struct io_conn *conn = end->conn;
	struct io_stream_op *op = &conn->send;
	struct sim_end *peer = end->peer;
	uint64_t left;

	if (!op->active || op->done) {
		return;
	}
	if (end->reset || end->ended) {
		io_stream_op_finish(op, end->reset ? -ECONNRESET : -EPIPE);
		return;
	}
	while ((left = send_left(op)) > 0 && peer->unread_bytes < WINDOW_BYTES) {
		size_t len = (size_t)HR_MIN(left, WINDOW_BYTES - peer->unread_bytes);
		struct sim_chunk *chunk = chunk_new(end, len);

		memcpy(chunk->fds, conn->send_fds, conn->send_fds_count * sizeof(*chunk->fds));
		chunk->fds_count = conn->send_fds_count;
		conn->send_fds_count = 0;
		gather(op, chunk->bytes, len);
		chunk_dispatch(chunk);
	}
	if (left == 0) {
		sim_trace(end->stream->sim, "sent", end->stream->id, end_side(end), 0,
			  (int64_t)op->bytes_done);
		io_stream_op_finish(op, (int64_t)op->bytes_done);
	}
}

static void
net_sim_send(struct io_conn *conn)
{
	struct sim_end *end = conn->priv;
	struct sim *sim = end->stream->sim;

	if (prng_chance_ppm(&sim->prng, sim->net.drop_conn_ppm)) {
		sim_trace(sim, "conn-drop", end->stream->id, end_side(end), 0, 0);
		stream_reset(end->stream);
		return;
	}
	send_try(end);
}

static void
net_sim_recv(struct io_conn *conn)
{
	recv_try(conn->priv);
}

/* -- conns ------------------------------------------------------------------------------------------------------------------------ */

static struct sim_end *
detached_take(struct sim *sim, int fd)
{
	struct sim_end *end;

	list_for_each_entry(end, &sim->detached, detached_link) {
		if (end->detached_fd == fd) {
			list_del(&end->detached_link);
			return end;
		}
	}
	return NULL;
}

static int
net_sim_conn_open(struct io_conn *conn)
{
	struct sim_io_net *net = conn->io->net;
	struct sim_end *end = net->opening;

	if (end == NULL) {
		end = detached_take(conn->io->sim, conn->fd);
		if (end == NULL) {
			return -EBADF;
		}
	}
	conn->fd = -1;
	conn->priv = end;
	conn->is_unix = strncmp(end->stream->address, "unix:", 5) == 0;
	(void)snprintf(conn->peer, sizeof(conn->peer), "sim:%u", end->stream->id);
	end->conn = conn;
	return 0;
}

static int
end_conn_create(struct io *io, struct sim_end *end, struct io_conn **ret_conn)
{
	struct sim_io_net *net = io->net;
	int rc;

	net->opening = end;
	rc = io_conn_create(io, -1, ret_conn);
	net->opening = NULL;
	return rc;
}

static void
end_close(struct sim_end *end)
{
	struct sim_chunk *last;

	end->conn = NULL;
	end->open = false;
	arrived_free(end);
	if (end->peer->open) {
		last = chunk_new(end, 0);
		last->end_of_stream = true;
		chunk_dispatch(last);
	}
	stream_unref(end->stream);
}

static void
net_sim_conn_close(struct io_conn *conn)
{
	struct sim_end *end = conn->priv;

	sim_trace(conn->io->sim, "close", end->stream->id, end_side(end), 0, 0);
	conn->priv = NULL;
	end_close(end);
	if (conn->recv.active && !conn->recv.done) {
		io_stream_op_finish(&conn->recv, -ECANCELED);
	}
	if (conn->send.active && !conn->send.done) {
		io_stream_op_finish(&conn->send, -ECANCELED);
	}
}

static int
net_sim_conn_detach(struct io_conn *conn)
{
	struct sim_end *end = conn->priv;
	struct sim *sim = conn->io->sim;

	conn->priv = NULL;
	end->conn = NULL;
	end->detached_fd = DETACHED_FD_FIRST + (int)++sim->detached_last;
	list_add_tail(&sim->detached, &end->detached_link);
	return end->detached_fd;
}

/* -- listeners ------------------------------------------------------------------------------------------------------------------ */

static struct sim_listener *
listener_find(const struct sim *sim, const char *address)
{
	struct sim_listener *l;

	list_for_each_entry(l, &sim->listeners, link) {
		if (strcmp(l->listener->address, address) == 0) {
			return l;
		}
	}
	return NULL;
}

static void
listener_run(struct io *io, struct io_task *task)
{
	struct io_listener *listener = container_of(task, struct io_listener, task);
	struct sim_listener *l = listener->priv;
	struct sim_stream *stream;
	struct io_conn *conn;

	while (!listener->closed &&
	       (stream = list_pop_entry(&l->waiting, struct sim_stream, accept_link)) != NULL) {
		sim_trace(io->sim, "accept", stream->id, l->id, 0, 0);
		if (end_conn_create(io, &stream->ends[1], &conn) != 0) {
			end_close(&stream->ends[1]);
			continue;
		}
		listener->cb(listener->arg, conn);
	}
}

static int
net_sim_listen(struct io_listener *listener, const char *address)
{
	struct sim *sim = listener->io->sim;
	size_t len = strlen(address);
	struct sim_listener *l;
	int rc;

	rc = net_address_check(address);
	if (rc != 0) {
		return rc;
	}
	if (strncmp(address, "tcp:", 4) == 0 && len > 2 && strcmp(address + len - 2, ":0") == 0) {
		(void)snprintf(listener->address, sizeof(listener->address), "%.*s:%u",
			       (int)(len - 2), address, ++sim->port_last);
	} else {
		(void)snprintf(listener->address, sizeof(listener->address), "%s", address);
	}
	if (listener_find(sim, listener->address) != NULL) {
		return -EADDRINUSE;
	}
	l = calloc(1, sizeof(*l));
	if (l == NULL) {
		return -ENOMEM;
	}
	l->listener = listener;
	l->id = ++sim->listener_id_last;
	list_init(&l->waiting);
	listener->priv = l;
	listener->task.run = listener_run;
	list_add_tail(&sim->listeners, &l->link);
	return 0;
}

static void
net_sim_listener_close(struct io_listener *listener)
{
	struct sim_listener *l = listener->priv;
	struct sim_stream *stream;

	while ((stream = list_pop_entry(&l->waiting, struct sim_stream, accept_link)) != NULL) {
		end_close(&stream->ends[1]);
	}
	list_del(&l->link);
	listener->priv = NULL;
	free(l);
}

/* -- connects --------------------------------------------------------------------------------------------------------------------- */

static void
sim_connect_free(struct io_connect *connect)
{
	struct sim_connect *c = connect->priv;

	if (c != NULL) {
		sim_event_cancel(connect->io->sim, &c->event);
		connect->priv = NULL;
		free(c);
	}
}

static void
connect_run(struct io *io, struct io_task *task)
{
	struct io_connect *connect = container_of(task, struct io_connect, task);
	struct sim_connect *c = connect->priv;
	struct sim_stream *stream = c->stream;
	struct io_conn *conn = NULL;
	int rc = connect->result;

	sim_connect_free(connect);
	if (rc == 0) {
		rc = end_conn_create(io, &stream->ends[0], &conn);
		if (rc != 0) {
			end_close(&stream->ends[0]);
		}
	}
	sim_trace(io->sim, "connected", stream != NULL ? stream->id : 0, 0, 0, rc);
	io_connect_finish(connect, rc, conn);
}

/* First at the listener's place, where the stream comes to be, then back with the answer. */
static void
connect_fire(struct sim *sim, struct sim_event *event)
{
	struct sim_connect *c = container_of(event, struct sim_connect, event);
	struct sim_listener *l;

	if (c->answered) {
		io_task_queue(c->connect->io, &c->connect->task);
		return;
	}
	if (is_cut(sim, c->address)) {
		sim_event_at(sim, event, sim->now_us + CONNECT_GIVE_UP_US);
		c->connect->result = -ETIMEDOUT;
		c->answered = true;
		return;
	}
	c->answered = true;
	l = listener_find(sim, c->address);
	if (l == NULL) {
		c->connect->result = -ECONNREFUSED;
	} else {
		c->stream = stream_new(sim, c->address);
		list_add_tail(&l->waiting, &c->stream->accept_link);
		io_task_queue(l->listener->io, &l->listener->task);
	}
	sim_event_at(sim, event, sim->now_us + latency_draw(sim));
}

static void
connect_drop(struct sim *sim, struct sim_event *event)
{
	(void)sim;
	(void)event;
	HR_ASSERT(!"a connect outlives its io");
}

static void
connect_abandon(struct io_connect *connect)
{
	struct sim_connect *c = connect->priv;

	if (c != NULL && c->stream != NULL) {
		end_close(&c->stream->ends[0]);
	}
	sim_connect_free(connect);
}

static void
connect_timeout(void *arg)
{
	struct io_connect *connect = arg;

	connect_abandon(connect);
	sim_trace(connect->io->sim, "connected", 0, 0, 0, -ETIMEDOUT);
	io_connect_finish(connect, -ETIMEDOUT, NULL);
}

static int
net_sim_connect(struct io_connect *connect, const char *address, uint64_t timeout_us)
{
	struct io *io = connect->io;
	struct sim_connect *c;
	int rc;

	rc = net_address_check(address);
	if (rc != 0) {
		return rc;
	}
	c = calloc(1, sizeof(*c));
	if (c == NULL) {
		return -ENOMEM;
	}
	(void)snprintf(c->address, sizeof(c->address), "%s", address);
	c->connect = connect;
	c->event.fire = connect_fire;
	c->event.drop = connect_drop;
	connect->priv = c;
	connect->task.run = connect_run;
	if (timeout_us != UINT64_MAX) {
		io_timer_set(io, &connect->deadline, io_deadline_us(io, timeout_us),
			     connect_timeout, connect);
	}
	sim_trace(io->sim, "connect", io->sim_id, 0, 0, 0);
	sim_event_at(io->sim, &c->event, io->sim->now_us + latency_draw(io->sim));
	return 0;
}

/* -- the backend -------------------------------------------------------------------------------------------------------------------- */

static int
net_sim_create(struct io *io)
{
	io->net = calloc(1, sizeof(struct sim_io_net));
	return io->net != NULL ? 0 : -ENOMEM;
}

static void
net_sim_destroy(struct io *io)
{
	free(io->net);
	io->net = NULL;
}

const struct io_net_ops net_sim_ops = {
	.name = "simulated",
	.create = net_sim_create,
	.destroy = net_sim_destroy,
	.listen = net_sim_listen,
	.listener_close = net_sim_listener_close,
	.connect = net_sim_connect,
	.connect_cancel = connect_abandon,
	.conn_open = net_sim_conn_open,
	.conn_close = net_sim_conn_close,
	.conn_detach = net_sim_conn_detach,
	.recv = net_sim_recv,
	.send = net_sim_send,
};

/* -- calls of sim.h ------------------------------------------------------------------------------------------------------------------- */

void
sim_net_set(struct sim *sim, const struct sim_net_options *options)
{
	sim->net = *options;
}

static void
held_release(struct sim *sim, const char *address)
{
	struct sim_stream *stream;
	struct sim_chunk *chunk;

	list_for_each_entry(stream, &sim->streams, link) {
		if (strcmp(stream->address, address) != 0) {
			continue;
		}
		while ((chunk = list_pop_entry(&stream->held, struct sim_chunk, link)) != NULL) {
			sim_event_at(sim, &chunk->event, sim->now_us);
		}
	}
}

void
sim_net_partition(struct sim *sim, const char *address, bool cut)
{
	struct sim_partition *p, *next;

	if (cut && !is_cut(sim, address)) {
		p = calloc(1, sizeof(*p));
		HR_ASSERT(p != NULL);
		(void)snprintf(p->address, sizeof(p->address), "%s", address);
		list_add_tail(&sim->partitions, &p->link);
	}
	if (cut) {
		return;
	}
	list_for_each_entry_safe(p, next, &sim->partitions, link) {
		if (strcmp(p->address, address) == 0) {
			list_del(&p->link);
			free(p);
		}
	}
	held_release(sim, address);
}

void
sim_net_break_all(struct sim *sim)
{
	struct sim_stream *stream;

	sim_trace(sim, "break-all", 0, 0, 0, 0);
	list_for_each_entry(stream, &sim->streams, link) {
		stream_reset(stream);
	}
}

void
sim_net_free(struct sim *sim)
{
	struct sim_partition *p;
	struct sim_stream *stream;
	struct sim_end *end;

	while ((p = list_pop_entry(&sim->partitions, struct sim_partition, link)) != NULL) {
		free(p);
	}
	while ((end = list_pop_entry(&sim->detached, struct sim_end, detached_link)) != NULL) {
		stream_unref(end->stream);
	}
	while ((stream = list_first_entry(&sim->streams, struct sim_stream, link)) != NULL) {
		struct sim_chunk *chunk = list_pop_entry(&stream->held, struct sim_chunk, link);

		/* Only pieces that a partition holds are left of it. */
		HR_ASSERT(chunk != NULL);
		chunk_free(chunk);
		stream_unref(stream);
	}
}
