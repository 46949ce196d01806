/* net_uring.c - sockets by io_uring, in the same ring as the disk where that is io_uring, too: one thread, one ring, one wait.
 *
 * What:       every operation is a request; the kernel tries it at once and waits for readiness itself. Sockets are blocking here:
 *             on a non-blocking one the kernel would answer EAGAIN instead of waiting.
 * Closing:    requests under way are cancelled, and the callbacks run when the kernel has given them back, since until then it may
 *             write to the caller's memory. Objects count their requests in backend_refs and live until the last.
 * Threads:    the io's own.
 * Tests:      tests/unit/io/test_net.c
 */
#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include "io/io_ring.h"
#include "io/net_socket.h"

enum { ACCEPT_PAUSE_US = 100000 };

struct uring_stream {
	struct ring_req req;
	struct io_stream_op *op;
	bool inflight;
	struct msghdr msg;
	struct iovec vec[IO_NET_VEC_MAX];
	union socket_control control;
};

struct uring_conn {
	struct uring_stream recv, send;
};

struct uring_accept {
	struct ring_req req;
	struct io_listener *listener;
};

struct uring_connect {
	struct ring_req req;
	struct io_connect *connect;
};

/* One-shot polls, armed again at the next wait, so that a condition that lasts is told each turn. */
struct uring_poll {
	struct ring_req req;
	struct list_head rearm_link;
	struct io_pollee *pollee; /* NULL: no longer watched, freed with its completion */
	bool inflight;
};

struct net_uring {
	struct io_ring *ring;
	unsigned inflight;
	struct list_head rearm; /* struct uring_poll */
};

static struct io_uring_sqe *
request(struct io *io)
{
	struct net_uring *net = io->net;

	net->inflight++;
	return io_ring_sqe(io);
}

static void
request_done(struct io *io)
{
	struct net_uring *net = io->net;

	HR_ASSERT(net->inflight > 0);
	net->inflight--;
}

static void
request_cancel(struct io *io, struct ring_req *req)
{
	struct io_uring_sqe *sqe = io_ring_sqe(io);

	io_uring_prep_cancel64(sqe, (uintptr_t)req, 0);
	io_uring_sqe_set_data64(sqe, 0);
}

/* -- descriptors that are watched ----------------------------------------------------------------------------------------------- */

static void
poll_arm(struct io *io, struct uring_poll *poll)
{
	struct io_uring_sqe *sqe = request(io);

	poll->inflight = true;
	io_uring_prep_poll_add(sqe, poll->pollee->fd, (unsigned)poll->pollee->want);
	io_uring_sqe_set_data64(sqe, (uintptr_t)&poll->req);
}

static void
poll_complete(struct io *io, struct ring_req *req, int res)
{
	struct uring_poll *poll = container_of(req, struct uring_poll, req);
	struct net_uring *net = io->net;

	request_done(io);
	poll->inflight = false;
	if (poll->pollee == NULL) {
		free(poll);
		return;
	}
	list_add_tail(&net->rearm, &poll->rearm_link);
	if (res > 0) {
		poll->pollee->ready(io, poll->pollee, (unsigned)res);
	}
}

static int
net_uring_pollee_add(struct io *io, struct io_pollee *pollee)
{
	struct net_uring *net = io->net;
	struct uring_poll *poll = calloc(1, sizeof(*poll));

	if (poll == NULL) {
		return -ENOMEM;
	}
	poll->req.complete = poll_complete;
	poll->pollee = pollee;
	pollee->backend = poll;
	list_add_tail(&net->rearm, &poll->rearm_link);
	return 0;
}

static void
net_uring_pollee_del(struct io *io, struct io_pollee *pollee)
{
	struct uring_poll *poll = pollee->backend;

	if (poll == NULL) {
		return;
	}
	pollee->backend = NULL;
	poll->pollee = NULL;
	if (poll->inflight) {
		request_cancel(io, &poll->req);
		return;
	}
	list_del(&poll->rearm_link);
	free(poll);
}

/* -- streams ---------------------------------------------------------------------------------------------------------------------- */

static void
stream_submit(struct uring_stream *s)
{
	struct io_stream_op *op = s->op;
	struct io_conn *conn = op->conn;
	struct io_uring_sqe *sqe = request(conn->io);

	HR_ASSERT(!s->inflight);
	s->inflight = true;
	conn->backend_refs++;
	if (op->is_send) {
		socket_send_msg(op, &s->msg, s->vec, &s->control);
		/* All of it, so that a full socket does not cost a completion each time it drains. */
		io_uring_prep_sendmsg(sqe, conn->fd, &s->msg, MSG_NOSIGNAL | MSG_WAITALL);
	} else {
		socket_recv_msg(op, &s->msg, s->vec, &s->control);
		io_uring_prep_recvmsg(sqe, conn->fd, &s->msg, MSG_NOSIGNAL | MSG_CMSG_CLOEXEC);
	}
	io_uring_sqe_set_data64(sqe, (uintptr_t)&s->req);
}

static void
stream_complete(struct io *io, struct ring_req *req, int res)
{
	struct uring_stream *s = container_of(req, struct uring_stream, req);
	struct io_stream_op *op = s->op;
	struct io_conn *conn = op->conn;
	int rc = 0;

	request_done(io);
	s->inflight = false;
	conn->backend_refs--;
	if (res >= 0 && !op->is_send && s->msg.msg_control != NULL) {
		rc = socket_take_fds(conn, &s->msg);
	}
	if (conn->closed) {
		io_stream_op_finish(op, -ECANCELED);
		return;
	}
	if (res == -EINTR || res == -EAGAIN ||
	    (res > 0 && op->is_send && !socket_sent(op, (size_t)res))) {
		stream_submit(s);
		return;
	}
	if (res >= 0) {
		io_stream_op_finish(op, rc != 0 ? rc : op->is_send ? (int64_t)op->bytes_done : res);
	} else {
		io_stream_op_finish(op, res);
	}
}

static void
net_uring_recv(struct io_conn *conn)
{
	struct uring_conn *c = conn->priv;

	stream_submit(&c->recv);
}

static void
net_uring_send(struct io_conn *conn)
{
	struct uring_conn *c = conn->priv;

	stream_submit(&c->send);
}

static int
net_uring_conn_open(struct io_conn *conn)
{
	struct uring_conn *c;
	int rc;

	rc = socket_conn_init(conn, false);
	if (rc != 0) {
		return rc;
	}
	c = calloc(1, sizeof(*c));
	if (c == NULL) {
		return -ENOMEM;
	}
	c->recv.req.complete = stream_complete;
	c->recv.op = &conn->recv;
	c->send.req.complete = stream_complete;
	c->send.op = &conn->send;
	conn->priv = c;
	return 0;
}

static void
net_uring_conn_close(struct io_conn *conn)
{
	struct uring_conn *c = conn->priv;

	if (c->recv.inflight) {
		request_cancel(conn->io, &c->recv.req);
	}
	if (c->send.inflight) {
		request_cancel(conn->io, &c->send.req);
	}
	if (conn->backend_refs > 0) {
		/* The peer hears of it now; the descriptor stays until the requests are back. */
		(void)shutdown(conn->fd, SHUT_RDWR);
	}
}

static int
net_uring_conn_detach(struct io_conn *conn)
{
	return conn->fd;
}

/* -- listeners ------------------------------------------------------------------------------------------------------------------ */

static void
accept_arm(void *arg)
{
	struct io_listener *listener = arg;
	struct uring_accept *a = listener->priv;
	struct io_uring_sqe *sqe = request(listener->io);

	listener->backend_refs++;
	io_uring_prep_accept(sqe, listener->fd, NULL, NULL, SOCK_CLOEXEC);
	io_uring_sqe_set_data64(sqe, (uintptr_t)&a->req);
}

static void
listener_end(struct io_listener *listener)
{
	if (listener->accepted_fd >= 0) {
		(void)close(listener->accepted_fd);
		listener->accepted_fd = -1;
	}
	free(listener->priv);
	listener->priv = NULL;
	io_listener_release(listener);
}

static void
accept_complete(struct io *io, struct ring_req *req, int res)
{
	struct uring_accept *a = container_of(req, struct uring_accept, req);
	struct io_listener *listener = a->listener;

	request_done(io);
	listener->backend_refs--;
	if (res >= 0) {
		listener->accepted_fd = res;
	}
	if (listener->closed) {
		listener_end(listener);
	} else if (res >= 0) {
		io_task_queue(io, &listener->task);
	} else if (res == -EMFILE || res == -ENFILE || res == -ENOMEM || res == -ENOBUFS) {
		io_accept_failed(listener, res);
		io_timer_set(io, &listener->pause, io_now_us(io) + ACCEPT_PAUSE_US, accept_arm,
			     listener);
	} else {
		accept_arm(listener); /* A client that gave up. */
	}
}

static void
listener_run(struct io *io, struct io_task *task)
{
	struct io_listener *listener = container_of(task, struct io_listener, task);
	int fd = listener->accepted_fd;
	struct io_conn *conn;

	listener->accepted_fd = -1;
	listener->starved = false;
	accept_arm(listener);
	if (io_conn_create(io, fd, &conn) != 0) {
		(void)close(fd);
		return;
	}
	listener->cb(listener->arg, conn);
}

static int
net_uring_listen(struct io_listener *listener, const char *address)
{
	struct uring_accept *a = calloc(1, sizeof(*a));
	int rc;

	if (a == NULL) {
		return -ENOMEM;
	}
	rc = socket_listen(listener, address, false);
	if (rc != 0) {
		free(a);
		return rc;
	}
	a->req.complete = accept_complete;
	a->listener = listener;
	listener->priv = a;
	listener->task.run = listener_run;
	accept_arm(listener);
	return 0;
}

static void
net_uring_listener_close(struct io_listener *listener)
{
	struct uring_accept *a = listener->priv;

	/* The kernel holds the socket as long as the request lives: refusing begins here all the same. */
	(void)shutdown(listener->fd, SHUT_RDWR);
	socket_listener_close(listener);
	if (listener->backend_refs > 0) {
		request_cancel(listener->io, &a->req);
	} else {
		listener_end(listener);
	}
}

/* -- connects --------------------------------------------------------------------------------------------------------------------- */

static void
connect_end(struct io_connect *connect)
{
	free(connect->priv);
	connect->priv = NULL;
	io_connect_release(connect);
}

static void
connect_complete(struct io *io, struct ring_req *req, int res)
{
	struct uring_connect *c = container_of(req, struct uring_connect, req);
	struct io_connect *connect = c->connect;

	request_done(io);
	connect->backend_refs--;
	if (connect->closed) {
		connect_end(connect);
		return;
	}
	connect->result = res;
	io_task_queue(io, &connect->task);
}

static int
connect_start(struct io_connect *connect)
{
	struct uring_connect *c = connect->priv;
	struct net_address *a = connect->next;
	struct io_uring_sqe *sqe;

	connect->fd = socket(a->family, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (connect->fd < 0) {
		return -errno;
	}
	sqe = request(connect->io);
	connect->backend_refs++;
	io_uring_prep_connect(sqe, connect->fd, (struct sockaddr *)&a->addr, a->len);
	io_uring_sqe_set_data64(sqe, (uintptr_t)&c->req);
	return 0;
}

static void
connect_finish(struct io_connect *connect, int rc, struct io_conn *conn)
{
	if (connect->backend_refs == 0) {
		free(connect->priv);
		connect->priv = NULL;
	}
	io_connect_finish(connect, rc, conn);
}

static void
connect_succeed(struct io_connect *connect)
{
	struct io_conn *conn = NULL;
	int fd = connect->fd;
	int rc;

	connect->fd = -1;
	rc = io_conn_create(connect->io, fd, &conn);
	if (rc != 0) {
		(void)close(fd);
	}
	connect_finish(connect, rc, conn);
}

/* Begins, goes on to the next address, or ends. */
static void
connect_run(struct io *io, struct io_task *task)
{
	struct io_connect *connect = container_of(task, struct io_connect, task);

	(void)io;
	if (connect->fd >= 0) {
		if (connect->result == 0) {
			connect_succeed(connect);
			return;
		}
		(void)close(connect->fd);
		connect->fd = -1;
		connect->next = connect->next->next;
	}
	while (connect->next != NULL) {
		int rc = connect_start(connect);

		if (rc == 0) {
			return;
		}
		connect->result = rc;
		connect->next = connect->next->next;
	}
	connect_finish(connect, connect->result, NULL);
}

static void
net_uring_connect_cancel(struct io_connect *connect)
{
	struct uring_connect *c = connect->priv;

	if (connect->backend_refs > 0) {
		request_cancel(connect->io, &c->req);
		return;
	}
	free(c);
	connect->priv = NULL;
}

static void
connect_timeout(void *arg)
{
	struct io_connect *connect = arg;

	net_uring_connect_cancel(connect);
	io_connect_finish(connect, -ETIMEDOUT, NULL);
}

static int
net_uring_connect(struct io_connect *connect, const char *address, uint64_t timeout_us)
{
	struct io *io = connect->io;
	struct uring_connect *c;
	int rc;

	rc = net_address_resolve(address, false, &connect->addresses);
	if (rc != 0) {
		return rc;
	}
	c = calloc(1, sizeof(*c));
	if (c == NULL) {
		net_address_free(connect->addresses);
		return -ENOMEM;
	}
	c->req.complete = connect_complete;
	c->connect = connect;
	connect->priv = c;
	connect->next = connect->addresses;
	connect->task.run = connect_run;
	if (timeout_us != UINT64_MAX) {
		io_timer_set(io, &connect->deadline, io_deadline_us(io, timeout_us),
			     connect_timeout, connect);
	}
	io_task_queue(io, &connect->task);
	return 0;
}

/* -- waiting and set-up ------------------------------------------------------------------------------------------------------------- */

static void
polls_arm(struct io *io)
{
	struct net_uring *net = io->net;
	struct uring_poll *poll;

	while ((poll = list_pop_entry(&net->rearm, struct uring_poll, rearm_link)) != NULL) {
		poll_arm(io, poll);
	}
}

static int
net_uring_wait(struct io *io, uint64_t wait_us)
{
	struct net_uring *net = io->net;
	struct io_uring *uring = &net->ring->uring;
	struct __kernel_timespec ts;
	struct io_uring_cqe *cqe;
	int rc = 0;

	polls_arm(io);
	if (wait_us > 0 && list_empty(&io->tasks)) {
		ts.tv_sec = (int64_t)HR_MIN(wait_us / 1000000, (uint64_t)INT32_MAX);
		ts.tv_nsec = (long long)(wait_us % 1000000 * 1000);
		rc = io_uring_submit_and_wait_timeout(uring, &cqe, 1, &ts, NULL);
	} else {
		io_ring_submit(net->ring);
		if ((__atomic_load_n(uring->sq.kflags, __ATOMIC_RELAXED) & IORING_SQ_TASKRUN) != 0) {
			rc = io_uring_get_events(uring);
		}
	}
	if (rc < 0 && rc != -ETIME && rc != -EINTR && rc != -EAGAIN && rc != -EBUSY) {
		return rc;
	}
	io_ring_reap(io);
	return 0;
}

static int
net_uring_create(struct io *io)
{
	struct net_uring *net;
	int rc;

	net = calloc(1, sizeof(*net));
	if (net == NULL) {
		return -ENOMEM;
	}
	list_init(&net->rearm);
	rc = io_ring_get(io, &net->ring);
	if (rc == 0 && (net->ring->uring.features & IORING_FEAT_EXT_ARG) == 0) {
		io_ring_put(io); /* Before Linux 5.11: no time limit to a wait. */
		rc = -ENOSYS;
	}
	if (rc != 0) {
		free(net);
		return rc;
	}
	io->net = net;
	return 0;
}

static void
net_uring_destroy(struct io *io)
{
	struct net_uring *net = io->net;

	/* Cancelled accepts, connects and polls: their memory is ours only when they are back. */
	while (net->inflight > 0) {
		int rc = io_uring_submit_and_wait(&net->ring->uring, 1);

		HR_ASSERTF(rc >= 0 || rc == -EINTR || rc == -EAGAIN || rc == -EBUSY, "%d", rc);
		io_ring_reap(io);
	}
	io_ring_put(io);
	free(net);
	io->net = NULL;
}

const struct io_net_ops net_uring_ops = {
	.name = "io_uring",
	.create = net_uring_create,
	.destroy = net_uring_destroy,
	.wait = net_uring_wait,
	.pollee_add = net_uring_pollee_add,
	.pollee_del = net_uring_pollee_del,
	.listen = net_uring_listen,
	.listener_close = net_uring_listener_close,
	.connect = net_uring_connect,
	.connect_cancel = net_uring_connect_cancel,
	.conn_open = net_uring_conn_open,
	.conn_close = net_uring_conn_close,
	.conn_detach = net_uring_conn_detach,
	.recv = net_uring_recv,
	.send = net_uring_send,
};
