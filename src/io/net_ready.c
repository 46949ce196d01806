/* net_ready.c - sockets by readiness: epoll for programs with many conns, poll() for the library.
 *
 * What:       every operation is tried at once in the next turn when it has a chance, and waits for readiness only when the kernel
 *             said EAGAIN. Under epoll a conn is registered once, edge-triggered, for both directions, so that no operation costs
 *             an epoll_ctl(); under poll() an array entry is kept whose descriptor is -1 while nothing is wanted.
 * Why right:  an edge that comes while nothing is under way is remembered in maybe_readable. It is cleared when a receive found
 *             less than it had room for (on TCP: the socket was empty then, and what comes later is a new edge) or EAGAIN; once the
 *             peer's end has been signalled it stays set, since no edge follows. Unix sockets end a receive at messages with
 *             descriptors, so there only EAGAIN counts.
 * Threads:    the io's own.
 * Tests:      tests/unit/io/test_net.c
 */
#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <unistd.h>

#include "io/net_socket.h"

enum { EVENTS_BATCH = 128, SENDS_PER_TURN = 16, CONNECT_RETRY_US = 2000, ACCEPT_PAUSE_US = 100000 };

struct net_ready {
	int epoll_fd; /* -1: poll() */
	bool no_pwait2;
	struct pollfd *fds;
	struct io_pollee **pollees;
	unsigned fds_count, fds_capacity;
	struct list_head try_list; /* struct io_stream_op */
};

static_assert(POLLIN == EPOLLIN && POLLOUT == EPOLLOUT && POLLERR == EPOLLERR &&
		  POLLHUP == EPOLLHUP && POLLRDHUP == EPOLLRDHUP,
	      "one set of event bits for both");

/* -- registration --------------------------------------------------------------------------------------------------------------- */

static void
poll_slot_update(struct net_ready *net, const struct io_pollee *pollee)
{
	struct pollfd *slot = &net->fds[pollee->slot - 1];

	/* poll() reports POLLHUP whether asked or not: an unwanted descriptor would make it spin. */
	slot->fd = pollee->want != 0 ? pollee->fd : -1;
	slot->events = (short)(pollee->want | ((pollee->want & POLLIN) != 0 ? POLLRDHUP : 0));
}

static int
poll_add(struct net_ready *net, struct io_pollee *pollee)
{
	if (net->fds_count == net->fds_capacity) {
		unsigned capacity = net->fds_capacity == 0 ? 16 : net->fds_capacity * 2;
		struct pollfd *fds = realloc(net->fds, capacity * sizeof(*fds));
		struct io_pollee **pollees;

		if (fds == NULL) {
			return -ENOMEM;
		}
		net->fds = fds;
		pollees = realloc(net->pollees, capacity * sizeof(*pollees));
		if (pollees == NULL) {
			return -ENOMEM;
		}
		net->pollees = pollees;
		net->fds_capacity = capacity;
	}
	net->pollees[net->fds_count] = pollee;
	net->fds[net->fds_count].revents = 0;
	pollee->slot = ++net->fds_count;
	poll_slot_update(net, pollee);
	return 0;
}

static void
poll_del(struct net_ready *net, struct io_pollee *pollee)
{
	unsigned last = net->fds_count--;

	if (pollee->slot != last) {
		struct io_pollee *moved = net->pollees[last - 1];

		net->pollees[pollee->slot - 1] = moved;
		net->fds[pollee->slot - 1] = net->fds[last - 1];
		moved->slot = pollee->slot;
	}
	pollee->slot = 0;
}

static int
ready_pollee_add(struct io *io, struct io_pollee *pollee)
{
	struct net_ready *net = io->net;
	struct epoll_event event;

	if (net->epoll_fd < 0) {
		return poll_add(net, pollee);
	}
	event.events = pollee->level ? (uint32_t)pollee->want
				     : EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET;
	event.data.ptr = pollee;
	return epoll_ctl(net->epoll_fd, EPOLL_CTL_ADD, pollee->fd, &event) == 0 ? 0 : -errno;
}

static void
ready_pollee_want(struct io *io, struct io_pollee *pollee, short want)
{
	struct net_ready *net = io->net;
	struct epoll_event event;

	if (pollee->want == want) {
		return;
	}
	pollee->want = want;
	if (net->epoll_fd < 0) {
		poll_slot_update(net, pollee);
	} else if (pollee->level) {
		event.events = (uint32_t)want;
		event.data.ptr = pollee;
		(void)epoll_ctl(net->epoll_fd, EPOLL_CTL_MOD, pollee->fd, &event);
	}
}

static void
ready_pollee_del(struct io *io, struct io_pollee *pollee)
{
	struct net_ready *net = io->net;

	if (net->epoll_fd >= 0) {
		/* Explicitly: a duplicate of the descriptor elsewhere would keep the registration alive after close(). */
		(void)epoll_ctl(net->epoll_fd, EPOLL_CTL_DEL, pollee->fd, NULL);
	} else if (pollee->slot != 0) {
		poll_del(net, pollee);
	}
}

/* -- streams ---------------------------------------------------------------------------------------------------------------------- */

static void
recv_try(struct io_stream_op *op)
{
	struct io_conn *conn = op->conn;
	struct iovec vec[IO_NET_VEC_MAX];
	union socket_control control;
	struct msghdr msg;
	size_t room = 0;
	ssize_t n;
	size_t i;
	int rc;

	socket_recv_msg(op, &msg, vec, &control);
	for (i = 0; i < msg.msg_iovlen; i++) {
		room += vec[i].iov_len;
	}
	do {
		n = recvmsg(conn->fd, &msg, MSG_DONTWAIT | MSG_NOSIGNAL | MSG_CMSG_CLOEXEC);
	} while (n < 0 && errno == EINTR);
	if (n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK)) {
		conn->maybe_readable = false;
		conn->io->net_ops->pollee_want(conn->io, &conn->pollee,
					       (short)(conn->pollee.want | POLLIN));
		return;
	}
	if (n < 0) {
		io_stream_op_finish(op, -errno);
		return;
	}
	rc = msg.msg_control != NULL ? socket_take_fds(conn, &msg) : 0;
	if (!conn->is_unix && !conn->ended && (size_t)n < room) {
		conn->maybe_readable = false;
	}
	conn->io->net_ops->pollee_want(conn->io, &conn->pollee,
				       (short)(conn->pollee.want & ~POLLIN));
	io_stream_op_finish(op, rc != 0 ? rc : n);
}

static void
send_try(struct net_ready *net, struct io_stream_op *op)
{
	struct io_conn *conn = op->conn;
	struct iovec vec[IO_NET_VEC_MAX];
	union socket_control control;
	struct msghdr msg;
	unsigned calls;
	ssize_t n;

	for (calls = 0; calls < SENDS_PER_TURN; calls++) {
		socket_send_msg(op, &msg, vec, &control);
		do {
			n = sendmsg(conn->fd, &msg, MSG_DONTWAIT | MSG_NOSIGNAL);
		} while (n < 0 && errno == EINTR);
		if (n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK)) {
			conn->io->net_ops->pollee_want(conn->io, &conn->pollee,
						       (short)(conn->pollee.want | POLLOUT));
			return;
		}
		if (n >= 0 && !socket_sent(op, (size_t)n)) {
			continue;
		}
		conn->io->net_ops->pollee_want(conn->io, &conn->pollee,
					       (short)(conn->pollee.want & ~POLLOUT));
		io_stream_op_finish(op, n < 0 ? -errno : (int64_t)op->bytes_done);
		return;
	}
	list_add_tail(&net->try_list, &op->try_link); /* A fast peer: others first, then on. */
}

static void
conn_ready(struct io *io, struct io_pollee *pollee, unsigned revents)
{
	struct io_conn *conn = pollee->priv;

	if ((revents & (POLLIN | POLLRDHUP | POLLHUP | POLLERR)) != 0) {
		conn->maybe_readable = true;
		conn->ended |= (revents & (POLLRDHUP | POLLHUP | POLLERR)) != 0;
		if (conn->recv.active && !conn->recv.done && list_empty(&conn->recv.try_link)) {
			recv_try(&conn->recv);
		}
	}
	if ((revents & (POLLOUT | POLLHUP | POLLERR)) != 0 && conn->send.active &&
	    !conn->send.done && list_empty(&conn->send.try_link)) {
		send_try(io->net, &conn->send);
	}
}

static int
ready_conn_open(struct io_conn *conn)
{
	int rc;

	rc = socket_conn_init(conn, true);
	if (rc != 0) {
		return rc;
	}
	conn->maybe_readable = true;
	conn->pollee = (struct io_pollee){ .fd = conn->fd, .ready = conn_ready, .priv = conn };
	return ready_pollee_add(conn->io, &conn->pollee);
}

static void
stream_op_cancel(struct io_stream_op *op)
{
	if (op->active && !op->done) {
		io_stream_op_finish(op, -ECANCELED);
	}
}

static void
ready_conn_close(struct io_conn *conn)
{
	ready_pollee_del(conn->io, &conn->pollee);
	(void)close(conn->fd);
	conn->fd = -1;
	stream_op_cancel(&conn->recv);
	stream_op_cancel(&conn->send);
}

static int
ready_conn_detach(struct io_conn *conn)
{
	ready_pollee_del(conn->io, &conn->pollee);
	return conn->fd;
}

static void
ready_recv(struct io_conn *conn)
{
	struct net_ready *net = conn->io->net;

	if (conn->maybe_readable) {
		list_add_tail(&net->try_list, &conn->recv.try_link);
	} else {
		ready_pollee_want(conn->io, &conn->pollee, (short)(conn->pollee.want | POLLIN));
	}
}

static void
ready_send(struct io_conn *conn)
{
	struct net_ready *net = conn->io->net;

	list_add_tail(&net->try_list, &conn->send.try_link);
}

/* -- listeners ------------------------------------------------------------------------------------------------------------------ */

static void
listener_ready(struct io *io, struct io_pollee *pollee, unsigned revents)
{
	struct io_listener *listener = pollee->priv;

	(void)revents;
	io_task_queue(io, &listener->task);
}

static void
listener_resume(void *arg)
{
	struct io_listener *listener = arg;

	ready_pollee_want(listener->io, &listener->pollee, POLLIN);
}

/* Out of descriptors or memory: the queue would be reported ready for ever, so it is left alone for a while. */
static void
listener_pause(struct io_listener *listener)
{
	ready_pollee_want(listener->io, &listener->pollee, 0);
	io_timer_set(listener->io, &listener->pause, io_now_us(listener->io) + ACCEPT_PAUSE_US,
		     listener_resume, listener);
}

static void
listener_run(struct io *io, struct io_task *task)
{
	struct io_listener *listener = container_of(task, struct io_listener, task);
	struct io_conn *conn;
	unsigned i;
	int fd;

	for (i = 0; i < IO_ACCEPT_BATCH && !listener->closed; i++) {
		fd = accept4(listener->fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
		if (fd < 0) {
			if (errno == EMFILE || errno == ENFILE || errno == ENOMEM ||
			    errno == ENOBUFS) {
				io_accept_failed(listener, -errno);
				listener_pause(listener);
			}
			return;
		}
		listener->starved = false;
		if (io_conn_create(io, fd, &conn) != 0) {
			(void)close(fd);
			continue;
		}
		listener->cb(listener->arg, conn);
	}
}

static int
ready_listen(struct io_listener *listener, const char *address)
{
	int rc;

	rc = socket_listen(listener, address, true);
	if (rc != 0) {
		return rc;
	}
	listener->task.run = listener_run;
	listener->pollee = (struct io_pollee){ .fd = listener->fd,
					       .want = POLLIN,
					       .level = true,
					       .ready = listener_ready,
					       .priv = listener };
	rc = ready_pollee_add(listener->io, &listener->pollee);
	if (rc != 0) {
		socket_listener_close(listener);
	}
	return rc;
}

static void
ready_listener_close(struct io_listener *listener)
{
	ready_pollee_del(listener->io, &listener->pollee);
	socket_listener_close(listener);
}

/* -- connects --------------------------------------------------------------------------------------------------------------------- */

static void connect_try(void *arg);

static void
connect_ready(struct io *io, struct io_pollee *pollee, unsigned revents)
{
	struct io_connect *connect = pollee->priv;

	(void)revents;
	io_task_queue(io, &connect->task);
}

static void
connect_fd_drop(struct io_connect *connect)
{
	struct net_address *none = NULL;

	if (connect->pollee.priv != NULL) {
		ready_pollee_del(connect->io, &connect->pollee);
		connect->pollee.priv = NULL;
	}
	if (connect->priv != NULL) {
		(void)net_lookup_end(connect->priv, &none);
		net_address_free(none);
		connect->priv = NULL;
	}
	if (connect->fd >= 0) {
		(void)close(connect->fd);
		connect->fd = -1;
	}
}

static void
connect_succeed(struct io_connect *connect)
{
	struct io_conn *conn = NULL;
	int fd = connect->fd;
	int rc;

	if (connect->pollee.priv != NULL) {
		ready_pollee_del(connect->io, &connect->pollee);
		connect->pollee.priv = NULL;
	}
	connect->fd = -1;
	rc = io_conn_create(connect->io, fd, &conn);
	if (rc != 0) {
		(void)close(fd);
	}
	io_connect_finish(connect, rc, conn);
}

/* The host's name has been looked up. */
static void
connect_looked_up(struct io_connect *connect)
{
	struct net_lookup *lookup = connect->priv;
	int rc;

	ready_pollee_del(connect->io, &connect->pollee);
	connect->pollee.priv = NULL;
	connect->priv = NULL;
	rc = net_lookup_end(lookup, &connect->addresses);
	if (rc != 0) {
		io_connect_finish(connect, rc, NULL);
		return;
	}
	connect->next = connect->addresses;
	connect_try(connect);
}

/* The descriptor was reported, or the first attempt ended at once: succeeded, or on to the next address. */
static void
connect_run(struct io *io, struct io_task *task)
{
	struct io_connect *connect = container_of(task, struct io_connect, task);

	(void)io;
	if (connect->priv != NULL) {
		connect_looked_up(connect);
		return;
	}
	if (connect->fd >= 0) {
		connect->result = socket_error(connect->fd);
		if (connect->result == 0) {
			connect_succeed(connect);
			return;
		}
		connect_fd_drop(connect);
	}
	connect_try(connect);
}

/* Begins the attempt on the next address. Only connect_run() reports, so that the first attempt may be made by the caller. */
static int
connect_start(struct io_connect *attempt)
{
	struct net_address *a = attempt->next;
	int rc;

	attempt->fd = socket(a->family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (attempt->fd < 0) {
		return -errno;
	}
	if (connect(attempt->fd, (struct sockaddr *)&a->addr, a->len) != 0 && errno != EINPROGRESS) {
		rc = -errno;
		connect_fd_drop(attempt);
		return rc;
	}
	attempt->pollee = (struct io_pollee){
		.fd = attempt->fd, .want = POLLOUT, .ready = connect_ready, .priv = attempt
	};
	rc = ready_pollee_add(attempt->io, &attempt->pollee);
	if (rc != 0) {
		attempt->pollee.priv = NULL;
		connect_fd_drop(attempt);
	}
	return rc;
}

static void
connect_try(void *arg)
{
	struct io_connect *connect = arg;

	while (connect->next != NULL) {
		int rc = connect_start(connect);

		if (rc == -EAGAIN) {
			/* A Unix listener whose queue is full: there is no readiness for that. */
			io_timer_set(connect->io, &connect->retry,
				     io_now_us(connect->io) + CONNECT_RETRY_US, connect_try,
				     connect);
			return;
		}
		connect->next = connect->next->next;
		if (rc == 0) {
			return;
		}
		connect->result = rc;
	}
	io_connect_finish(connect, connect->result, NULL);
}

static void
connect_timeout(void *arg)
{
	struct io_connect *connect = arg;

	connect_fd_drop(connect);
	io_connect_finish(connect, -ETIMEDOUT, NULL);
}

static int
connect_look_up(struct io_connect *connect, const char *address)
{
	struct net_lookup *lookup;
	int rc = net_lookup_start(address, &lookup);

	if (rc != 0) {
		return rc;
	}
	connect->priv = lookup;
	connect->pollee = (struct io_pollee){ .fd = net_lookup_fd(lookup),
					      .want = POLLIN,
					      .level = true,
					      .ready = connect_ready,
					      .priv = connect };
	rc = ready_pollee_add(connect->io, &connect->pollee);
	if (rc != 0) {
		connect->pollee.priv = NULL;
		connect_fd_drop(connect);
	}
	return rc;
}

static int
ready_connect(struct io_connect *connect, const char *address, uint64_t timeout_us)
{
	struct io *io = connect->io;
	bool is_name;
	int rc;

	rc = net_address_numeric(address, &connect->addresses);
	is_name = rc == -EINPROGRESS;
	if (is_name) {
		rc = connect_look_up(connect, address);
	}
	if (rc != 0) {
		return rc;
	}
	connect->next = connect->addresses;
	connect->task.run = connect_run;
	if (timeout_us != UINT64_MAX) {
		io_timer_set(io, &connect->deadline, io_deadline_us(io, timeout_us),
			     connect_timeout, connect);
	}
	if (!is_name) {
		/* The first attempt is made by the loop, like the others. */
		io_task_queue(io, &connect->task);
	}
	return 0;
}

static void
ready_connect_cancel(struct io_connect *connect)
{
	connect_fd_drop(connect);
}

/* -- waiting -------------------------------------------------------------------------------------------------------------------- */

static void
try_all(struct net_ready *net)
{
	struct io_stream_op *op;
	struct list_head due;

	list_init(&due);
	list_splice_tail(&due, &net->try_list);
	while ((op = list_pop_entry(&due, struct io_stream_op, try_link)) != NULL) {
		if (op->is_send) {
			send_try(net, op);
		} else {
			recv_try(op);
		}
	}
}

static int
ms_of_us(uint64_t wait_us)
{
	return wait_us >= (uint64_t)INT_MAX * 1000 ? (wait_us == UINT64_MAX ? -1 : INT_MAX)
						   : (int)div_round_up(wait_us, 1000);
}

static struct timespec *
ts_of_us(uint64_t wait_us, struct timespec *ts)
{
	if (wait_us == UINT64_MAX) {
		return NULL;
	}
	ts->tv_sec = (time_t)HR_MIN(wait_us / 1000000, (uint64_t)INT32_MAX);
	ts->tv_nsec = (long)(wait_us % 1000000 * 1000);
	return ts;
}

static int
epoll_sleep(struct net_ready *net, struct epoll_event *events, uint64_t wait_us)
{
	struct timespec ts;
	int n;

	/* epoll_pwait2() takes less than a millisecond; sandboxes and kernels before 5.11 do not know it. */
	if (!net->no_pwait2 && wait_us != 0 && wait_us != UINT64_MAX) {
		n = epoll_pwait2(net->epoll_fd, events, EVENTS_BATCH, ts_of_us(wait_us, &ts), NULL);
		if (n >= 0 || (errno != ENOSYS && errno != EPERM)) {
			return n;
		}
		net->no_pwait2 = true;
	}
	return epoll_wait(net->epoll_fd, events, EVENTS_BATCH, ms_of_us(wait_us));
}

static int
epoll_wait_us(struct io *io, uint64_t wait_us)
{
	struct net_ready *net = io->net;
	struct epoll_event events[EVENTS_BATCH];
	int n, i;

	n = epoll_sleep(net, events, wait_us);
	if (n < 0) {
		return errno == EINTR ? 0 : -errno;
	}
	for (i = 0; i < n; i++) {
		struct io_pollee *pollee = events[i].data.ptr;

		pollee->ready(io, pollee, events[i].events);
	}
	return 0;
}

static int
poll_wait_us(struct io *io, uint64_t wait_us)
{
	struct net_ready *net = io->net;
	struct timespec ts;
	unsigned i;
	int n;

	n = ppoll(net->fds, net->fds_count, ts_of_us(wait_us, &ts), NULL);
	if (n < 0) {
		return errno == EINTR ? 0 : -errno;
	}
	for (i = 0; i < net->fds_count && n > 0; i++) {
		unsigned revents = (unsigned short)net->fds[i].revents;

		if (revents != 0) {
			n--;
			net->pollees[i]->ready(io, net->pollees[i], revents);
		}
	}
	return 0;
}

static int
ready_wait(struct io *io, uint64_t wait_us)
{
	struct net_ready *net = io->net;

	try_all(net);
	if (!list_empty(&io->tasks) || !list_empty(&net->try_list)) {
		wait_us = 0;
	}
	return net->epoll_fd >= 0 ? epoll_wait_us(io, wait_us) : poll_wait_us(io, wait_us);
}

/* -- set-up ---------------------------------------------------------------------------------------------------------------------- */

static int
ready_create(struct io *io, bool epoll)
{
	struct net_ready *net;
	int rc;

	net = calloc(1, sizeof(*net));
	if (net == NULL) {
		return -ENOMEM;
	}
	net->epoll_fd = -1;
	list_init(&net->try_list);
	if (epoll) {
		net->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
		if (net->epoll_fd < 0) {
			rc = -errno;
			free(net);
			return rc;
		}
	}
	io->net = net;
	return 0;
}

static int
epoll_create_net(struct io *io)
{
	return ready_create(io, true);
}

static int
poll_create_net(struct io *io)
{
	return ready_create(io, false);
}

static void
ready_destroy(struct io *io)
{
	struct net_ready *net = io->net;

	if (net->epoll_fd >= 0) {
		(void)close(net->epoll_fd);
	}
	free(net->fds);
	free(net->pollees);
	free(net);
	io->net = NULL;
}

#define READY_OPS                                                                                  \
	.destroy = ready_destroy, .wait = ready_wait, .pollee_add = ready_pollee_add,              \
	.pollee_want = ready_pollee_want, .pollee_del = ready_pollee_del, .listen = ready_listen,  \
	.listener_close = ready_listener_close, .connect = ready_connect,                          \
	.connect_cancel = ready_connect_cancel, .conn_open = ready_conn_open,                      \
	.conn_close = ready_conn_close, .conn_detach = ready_conn_detach, .recv = ready_recv,      \
	.send = ready_send

const struct io_net_ops net_epoll_ops = { .name = "epoll", .create = epoll_create_net, READY_OPS };
const struct io_net_ops net_poll_ops = { .name = "poll", .create = poll_create_net, READY_OPS };
