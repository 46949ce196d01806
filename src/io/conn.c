/* conn.c - listeners, connects and conns, as far as all net backends do the same. */
#define HR_LOG_COMPONENT "io"
#include <errno.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/error.h"
#include "base/log.h"
#include "io/net_socket.h"

void
io_fds_close(int *fds, unsigned *count)
{
	unsigned i;

	for (i = 0; i < *count; i++) {
		(void)close(fds[i]);
	}
	*count = 0;
}

/* -- conns -------------------------------------------------------------------------------------------------------------------- */

static void
stream_op_run(struct io *io, struct io_task *task)
{
	struct io_stream_op *op = container_of(task, struct io_stream_op, task);
	struct io_conn *conn = op->conn;

	(void)io;
	HR_ASSERT(op->active && op->done);
	op->active = false;
	op->done = false;
	op->cb(op->arg, op->result);
	io_conn_free_if_idle(conn); /* Closed earlier or by this very callback. */
}

static void
stream_op_init(struct io_stream_op *op, struct io_conn *conn, bool is_send)
{
	op->conn = conn;
	op->is_send = is_send;
	op->task.run = stream_op_run;
	list_init(&op->try_link);
}

int
io_conn_create(struct io *io, int fd, struct io_conn **ret_conn)
{
	struct io_conn *conn;
	int rc;

	conn = calloc(1, sizeof(*conn));
	if (conn == NULL) {
		return -ENOMEM;
	}
	conn->io = io;
	conn->fd = fd;
	stream_op_init(&conn->recv, conn, false);
	stream_op_init(&conn->send, conn, true);
	rc = io->net_ops->conn_open(conn);
	if (rc != 0) {
		free(conn);
		return rc;
	}
	io->conns_count++;
	*ret_conn = conn;
	return 0;
}

void
io_conn_free_if_idle(struct io_conn *conn)
{
	struct io *io = conn->io;

	if (!conn->closed || conn->buried || conn->recv.active || conn->send.active ||
	    conn->backend_refs > 0) {
		return;
	}
	conn->buried = true;
	if (conn->fd >= 0) {
		(void)close(conn->fd);
		conn->fd = -1;
	}
	io_fds_close(conn->fds, &conn->fds_count);
	io_fds_close(conn->send_fds, &conn->send_fds_count);
	free(conn->priv);
	conn->priv = NULL;
	io->conns_count--;
	io_bury(io, &conn->object);
}

void
io_stream_op_finish(struct io_stream_op *op, int64_t result)
{
	struct io *io = op->conn->io;

	HR_ASSERT(op->active && !op->done);
	op->done = true;
	op->result = result;
	list_del(&op->try_link);
	if (result > 0 && op->is_send) {
		io->counters.net_send_bytes += (uint64_t)result;
	} else if (result > 0) {
		io->counters.net_recv_bytes += (uint64_t)result;
	}
	io_task_queue(io, &op->task);
}

static uint64_t
iov_bytes(const struct iovec *iov, unsigned iov_count)
{
	uint64_t bytes = 0;
	unsigned i;

	for (i = 0; i < iov_count; i++) {
		bytes += iov[i].iov_len;
	}
	return bytes;
}

static void
stream_op_start(struct io_stream_op *op, const struct iovec *iov, unsigned iov_count, io_conn_cb cb,
		void *arg)
{
	HR_ASSERT(!op->active && !op->conn->closed);
	op->active = true;
	op->done = false;
	op->iov = iov;
	op->iov_count = iov_count;
	op->iov_idx = 0;
	op->iov_skip = 0;
	op->bytes_done = 0;
	op->cb = cb;
	op->arg = arg;
}

void
io_conn_recv(struct io_conn *conn, const struct iovec *iov, unsigned iov_count, io_conn_cb cb,
	     void *arg)
{
	stream_op_start(&conn->recv, iov, iov_count, cb, arg);
	if (iov_bytes(iov, iov_count) == 0) {
		io_stream_op_finish(&conn->recv, -EINVAL); /* 0 would mean the peer's end. */
		return;
	}
	conn->io->net_ops->recv(conn);
}

void
io_conn_send(struct io_conn *conn, const struct iovec *iov, unsigned iov_count, io_conn_cb cb,
	     void *arg)
{
	stream_op_start(&conn->send, iov, iov_count, cb, arg);
	if (iov_bytes(iov, iov_count) == 0) {
		io_stream_op_finish(&conn->send, conn->send_fds_count > 0 ? -EINVAL : 0);
		return;
	}
	conn->io->net_ops->send(conn);
}

void
io_conn_send_fds(struct io_conn *conn, const struct iovec *iov, unsigned iov_count, const int *fds,
		 unsigned fds_count, io_conn_cb cb, void *arg)
{
	int rc = conn->is_unix && fds_count <= IO_FDS_MAX ? 0 : -EINVAL;
	unsigned i;

	HR_ASSERT(conn->send_fds_count == 0);
	for (i = 0; i < fds_count && rc == 0; i++) {
		int fd = dup(fds[i]);

		if (fd < 0) {
			rc = -errno;
		} else {
			conn->send_fds[conn->send_fds_count++] = fd;
		}
	}
	if (rc != 0) {
		io_fds_close(conn->send_fds, &conn->send_fds_count);
		stream_op_start(&conn->send, iov, iov_count, cb, arg);
		io_stream_op_finish(&conn->send, rc);
		return;
	}
	io_conn_send(conn, iov, iov_count, cb, arg);
}

unsigned
io_conn_take_fds(struct io_conn *conn, int *ret_fds, unsigned fds_max)
{
	unsigned count = HR_MIN(conn->fds_count, fds_max);

	memcpy(ret_fds, conn->fds, count * sizeof(*ret_fds));
	conn->fds_count -= count;
	memmove(conn->fds, conn->fds + count, conn->fds_count * sizeof(*conn->fds));
	return count;
}

static void
stream_op_cancel_done(struct io_stream_op *op)
{
	if (op->active && op->done) {
		op->result = -ECANCELED;
	}
}

void
io_conn_close(struct io_conn *conn)
{
	HR_ASSERT(!conn->closed);
	conn->closed = true;
	/* What has completed but was not told yet: closing came first, as far as the caller can know. */
	stream_op_cancel_done(&conn->recv);
	stream_op_cancel_done(&conn->send);
	conn->io->net_ops->conn_close(conn);
	io_conn_free_if_idle(conn);
}

int
io_conn_detach(struct io_conn *conn)
{
	int fd;

	HR_ASSERT(!conn->closed && !conn->recv.active && !conn->send.active);
	fd = conn->io->net_ops->conn_detach(conn);
	conn->fd = -1;
	conn->closed = true;
	io_conn_free_if_idle(conn);
	return fd;
}

int
io_conn_attach(struct io *io, int fd, struct io_conn **ret_conn)
{
	return io_conn_create(io, fd, ret_conn);
}

const char *
io_conn_peer(const struct io_conn *conn)
{
	return conn->peer;
}

bool
io_conn_is_unix(const struct io_conn *conn)
{
	return conn->is_unix;
}

/* -- listeners ------------------------------------------------------------------------------------------------------------------ */

int
io_listen(struct io *io, const char *address, io_accept_cb cb, void *arg,
	  struct io_listener **ret_listener)
{
	struct io_listener *listener;
	int rc;

	listener = calloc(1, sizeof(*listener));
	if (listener == NULL) {
		return -ENOMEM;
	}
	listener->io = io;
	listener->fd = -1;
	listener->accepted_fd = -1;
	listener->cb = cb;
	listener->arg = arg;
	rc = io->net_ops->listen(listener, address);
	if (rc != 0) {
		free(listener);
		return rc;
	}
	io->listeners_count++;
	*ret_listener = listener;
	return 0;
}

void
io_accept_failed(struct io_listener *listener, int rc)
{
	listener->io->counters.net_accepts_failed++;
	if (!listener->starved) {
		listener->starved = true;
		log_warn("accept_failed", "address=%s error=\"%s\" note=\"clients wait\"",
			 LOG_QUOTED(listener->address), error_text(rc));
	}
}

void
io_listener_release(struct io_listener *listener)
{
	if (listener->closed && listener->backend_refs == 0 && !listener->buried) {
		listener->buried = true;
		io_bury(listener->io, &listener->object);
	}
}

void
io_listener_close(struct io_listener *listener)
{
	struct io *io = listener->io;

	HR_ASSERT(!listener->closed);
	listener->closed = true;
	io_timer_cancel(io, &listener->pause);
	io_task_drop(&listener->task);
	io->net_ops->listener_close(listener);
	io->listeners_count--;
	io_listener_release(listener);
}

const char *
io_listener_address(const struct io_listener *listener)
{
	return listener->address;
}

/* -- connects ----------------------------------------------------------------------------------------------------------------- */

int
io_connect(struct io *io, const char *address, uint64_t timeout_us, io_connect_cb cb, void *arg,
	   struct io_connect **ret_connect)
{
	struct io_connect *connect;
	int rc;

	connect = calloc(1, sizeof(*connect));
	if (connect == NULL) {
		return -ENOMEM;
	}
	connect->io = io;
	connect->fd = -1;
	connect->cb = cb;
	connect->arg = arg;
	rc = io->net_ops->connect(connect, address, timeout_us);
	if (rc != 0) {
		free(connect);
		return rc;
	}
	io->connects_count++;
	if (ret_connect != NULL) {
		*ret_connect = connect;
	}
	return 0;
}

void
io_connect_release(struct io_connect *connect)
{
	struct io *io = connect->io;

	if (!connect->closed || connect->backend_refs > 0 || connect->buried) {
		return;
	}
	connect->buried = true;
	if (connect->fd >= 0) {
		(void)close(connect->fd);
		connect->fd = -1;
	}
	net_address_free(connect->addresses);
	connect->addresses = NULL;
	io_bury(io, &connect->object);
}

void
io_connect_finish(struct io_connect *connect, int rc, struct io_conn *conn)
{
	struct io *io = connect->io;

	HR_ASSERT(!connect->closed);
	connect->closed = true;
	io_timer_cancel(io, &connect->deadline);
	io_timer_cancel(io, &connect->retry);
	io_task_drop(&connect->task);
	io->connects_count--;
	connect->cb(connect->arg, rc, conn);
	io_connect_release(connect);
}

void
io_connect_cancel(struct io_connect *connect)
{
	struct io *io = connect->io;

	HR_ASSERT(!connect->closed);
	connect->closed = true;
	io_timer_cancel(io, &connect->deadline);
	io_timer_cancel(io, &connect->retry);
	io_task_drop(&connect->task);
	io->connects_count--;
	io->net_ops->connect_cancel(connect);
	io_connect_release(connect);
}
