/* test_net.c - streams, listeners, connects and descriptors over every net backend. */
#include "io_test.h"

#include <arpa/inet.h>
#include <dlfcn.h>
#include <fcntl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/un.h>

#include "base/log.h"
#include "base/prng.h"

/* -- helpers -------------------------------------------------------------------------------------------------------------------- */

struct server {
	struct io_listener *listener;
	struct io_conn *conn;
	bool accepted;
	unsigned times;
};

static void
accept_cb(void *arg, struct io_conn *conn)
{
	struct server *s = arg;

	s->conn = conn;
	s->accepted = true;
	s->times++;
}

struct client {
	struct io_conn *conn;
	bool done;
	unsigned times;
	int rc;
};

static void
connect_cb(void *arg, int rc, struct io_conn *conn)
{
	struct client *c = arg;

	c->conn = conn;
	c->rc = rc;
	c->done = true;
	c->times++;
}

static void
server_open(struct fixture *f, const char *address, struct server *ret_server)
{
	memset(ret_server, 0, sizeof(*ret_server));
	assert_int_equal(io_listen(f->io, address, accept_cb, ret_server, &ret_server->listener), 0);
}

struct pair {
	struct server server;
	struct client client;
	struct io_conn *a, *b; /* the connecting side, the accepting side */
};

static void
pair_open_at(struct fixture *f, const char *address, struct pair *p)
{
	memset(p, 0, sizeof(*p));
	server_open(f, address, &p->server);
	assert_int_equal(io_connect(f->io, io_listener_address(p->server.listener), 5000000,
				    connect_cb, &p->client, NULL),
			 0);
	assert_false(p->client.done); /* never inside the call */
	run_until(f->io, &p->client.done);
	assert_int_equal(p->client.rc, 0);
	run_until(f->io, &p->server.accepted);
	p->a = p->client.conn;
	p->b = p->server.conn;
}

static void
unix_address(const struct fixture *f, char *ret_address, size_t len)
{
	(void)snprintf(ret_address, len, "unix:%s/sock", f->dir);
}

static void
pair_open(struct fixture *f, bool is_unix, struct pair *p)
{
	char address[128];

	unix_address(f, address, sizeof(address));
	pair_open_at(f, is_unix ? address : "tcp:127.0.0.1:0", p);
}

static void
pair_close(struct fixture *f, struct pair *p)
{
	if (p->a != NULL) {
		io_conn_close(p->a);
	}
	if (p->b != NULL) {
		io_conn_close(p->b);
	}
	io_listener_close(p->server.listener);
	run_turns(f->io, 3);
}

static int64_t
recv_now(struct fixture *f, struct io_conn *conn, void *buf, size_t len)
{
	struct iovec iov = { buf, len };
	struct outcome o = { 0 };

	io_conn_recv(conn, &iov, 1, outcome_cb, &o);
	assert_false(o.done);
	run_until(f->io, &o.done);
	assert_int_equal(o.times, 1);
	return o.result;
}

static int64_t
send_now(struct fixture *f, struct io_conn *conn, const void *buf, size_t len)
{
	struct iovec iov = { (void *)buf, len };
	struct outcome o = { 0 };

	io_conn_send(conn, &iov, 1, outcome_cb, &o);
	assert_false(o.done);
	run_until(f->io, &o.done);
	return o.result;
}

/* -- names ------------------------------------------------------------------------------------------------------------------------ */

static struct {
	pthread_mutex_t mutex;
	pthread_cond_t changed;
	bool hangs;
	unsigned waiting;
} g_resolver = { .mutex = PTHREAD_MUTEX_INITIALIZER, .changed = PTHREAD_COND_INITIALIZER };

static void
resolver_hang(bool hangs)
{
	(void)pthread_mutex_lock(&g_resolver.mutex);
	g_resolver.hangs = hangs;
	(void)pthread_cond_broadcast(&g_resolver.changed);
	while (!hangs && g_resolver.waiting > 0) {
		(void)pthread_cond_wait(&g_resolver.changed, &g_resolver.mutex);
	}
	(void)pthread_mutex_unlock(&g_resolver.mutex);
}

/* Stands before the C library's. "here.test" is this machine; names are not answered while the resolver hangs. */
int
getaddrinfo(const char *host, const char *port, const struct addrinfo *hints, struct addrinfo **ret)
{
	int (*real)(const char *host, const char *port, const struct addrinfo *hints,
		    struct addrinfo **ret);

	*(void **)&real = dlsym(RTLD_NEXT, "getaddrinfo");
	if (host == NULL || strstr(host, ".test") == NULL ||
	    (hints->ai_flags & AI_NUMERICHOST) != 0) {
		return real(host, port, hints, ret);
	}
	(void)pthread_mutex_lock(&g_resolver.mutex);
	g_resolver.waiting++;
	while (g_resolver.hangs) {
		(void)pthread_cond_wait(&g_resolver.changed, &g_resolver.mutex);
	}
	g_resolver.waiting--;
	(void)pthread_cond_broadcast(&g_resolver.changed);
	(void)pthread_mutex_unlock(&g_resolver.mutex);
	return strcmp(host, "here.test") == 0 ? real("127.0.0.1", port, hints, ret) : EAI_NONAME;
}

static void
flag_cb(void *arg)
{
	*(bool *)arg = true;
}

/* While a resolver does not answer, timers run and connects end at their time or when they are given up; the answer that comes too late is
 * nobody's. A name that is known leads to a connection, another is -ENXIO. */
static void
connect_by_name(void **state)
{
	struct fixture *f = *state;
	struct io_timer timer = { 0 };
	struct client c[4] = { 0 };
	struct io_connect *connect;
	struct server s;
	char address[64];
	bool passed = false;

	if (f->combo->net == IO_NET_URING) {
		skip();
	}
	server_open(f, "tcp:127.0.0.1:0", &s);
	(void)snprintf(address, sizeof(address), "tcp:here.test%s",
		       strrchr(io_listener_address(s.listener), ':'));
	resolver_hang(true);
	assert_int_equal(io_connect(f->io, address, 10000, connect_cb, &c[0], NULL), 0);
	assert_int_equal(io_connect(f->io, address, 5000000, connect_cb, &c[1], &connect), 0);
	io_timer_set(f->io, &timer, io_now_us(f->io) + 1000, flag_cb, &passed);
	run_until(f->io, &passed);
	run_until(f->io, &c[0].done);
	assert_int_equal(c[0].rc, -ETIMEDOUT);
	io_connect_cancel(connect);
	resolver_hang(false);
	run_turns(f->io, 3);
	assert_int_equal(c[0].times, 1);
	assert_int_equal(c[1].times, 0);
	assert_int_equal(io_connect(f->io, address, 5000000, connect_cb, &c[2], NULL), 0);
	assert_int_equal(io_connect(f->io, "tcp:nowhere.test:1", 5000000, connect_cb, &c[3], NULL),
			 0);
	run_until(f->io, &c[2].done);
	run_until(f->io, &c[3].done);
	assert_int_equal(c[2].rc, 0);
	assert_int_equal(c[3].rc, -ENXIO);
	run_until(f->io, &s.accepted);
	io_conn_close(c[2].conn);
	io_conn_close(s.conn);
	io_listener_close(s.listener);
	run_turns(f->io, 3);
}

/* -- streams ------------------------------------------------------------------------------------------------------------------------ */

/* Sends 4 MiB as 300 iovecs of odd lengths; the other side receives into 3 small iovecs at a time. Every byte must arrive. */
static void
stream_body(struct fixture *f, bool is_unix)
{
	enum { BYTES = 4 << 20, PIECES = 300 };
	uint8_t *out = malloc(BYTES), *in = malloc(BYTES);
	struct iovec iov[PIECES];
	struct outcome sent = { 0 };
	struct io_counters counters;
	size_t off = 0, got = 0;
	struct prng prng;
	struct pair p;
	unsigned i;

	pair_open(f, is_unix, &p);
	assert_int_equal(io_conn_is_unix(p.a), is_unix);
	prng_init(&prng, 1);
	for (i = 0; i < BYTES; i++) {
		out[i] = (uint8_t)prng_u32(&prng);
	}
	for (i = 0; i < PIECES; i++) {
		size_t len = i == PIECES - 1 ? BYTES - off : prng_u64(&prng) % (2 * BYTES / PIECES);

		len = HR_MIN(len, BYTES - off); /* zero lengths are among them */
		iov[i] = (struct iovec){ out + off, len };
		off += len;
	}
	io_conn_send(p.a, iov, PIECES, outcome_cb, &sent);
	while (got < BYTES) {
		size_t room = HR_MIN((size_t)BYTES - got, (size_t)50000);
		struct iovec to[3] = { { in + got, room / 3 },
				       { NULL, 0 },
				       { in + got + room / 3, room - room / 3 } };
		struct outcome o = { 0 };

		io_conn_recv(p.b, to, 3, outcome_cb, &o);
		run_until(f->io, &o.done);
		assert_true(o.result > 0 && (size_t)o.result <= room);
		got += (size_t)o.result;
	}
	run_until(f->io, &sent.done);
	assert_int_equal(sent.result, BYTES);
	assert_memory_equal(in, out, BYTES);
	io_counters_get(f->io, &counters);
	assert_int_equal(counters.net_recv_bytes, BYTES);
	assert_int_equal(counters.net_send_bytes, BYTES);
	pair_close(f, &p);
	free(in);
	free(out);
}

static void
stream_tcp(void **state)
{
	stream_body(*state, false);
}

static void
stream_unix(void **state)
{
	stream_body(*state, true);
}

struct bounce {
	struct io_conn *conn;
	uint8_t bytes[64];
	struct iovec iov;
	unsigned left;
	bool done;
};

static void bounce_recv(struct bounce *b);

static void
bounce_sent(void *arg, int64_t result)
{
	struct bounce *b = arg;

	assert_true(result == sizeof(b->bytes));
	if (--b->left == 0) {
		b->done = true;
		return;
	}
	bounce_recv(b);
}

static void
bounce_received(void *arg, int64_t result)
{
	struct bounce *b = arg;

	assert_true(result > 0);
	b->iov.iov_base = (char *)b->iov.iov_base + result;
	b->iov.iov_len -= (size_t)result;
	if (b->iov.iov_len > 0) {
		io_conn_recv(b->conn, &b->iov, 1, bounce_received, b);
		return;
	}
	b->iov = (struct iovec){ b->bytes, sizeof(b->bytes) };
	io_conn_send(b->conn, &b->iov, 1, bounce_sent, b);
}

static void
bounce_recv(struct bounce *b)
{
	b->iov = (struct iovec){ b->bytes, sizeof(b->bytes) };
	io_conn_recv(b->conn, &b->iov, 1, bounce_received, b);
}

/* A message goes back and forth 500 times, all operations begun in callbacks. */
static void
ping_pong(void **state)
{
	struct fixture *f = *state;
	struct bounce a = { .left = 500 }, b = { .left = 500 };
	struct pair p;

	pair_open(f, false, &p);
	a.conn = p.a;
	b.conn = p.b;
	a.iov = (struct iovec){ a.bytes, sizeof(a.bytes) };
	io_conn_send(a.conn, &a.iov, 1, bounce_sent, &a);
	bounce_recv(&b);
	run_until(f->io, &b.done);
	run_until(f->io, &a.done);
	pair_close(f, &p);
}

/* The end of the stream comes after its bytes and is told again when asked again. */
static void
end_of_stream(void **state)
{
	struct fixture *f = *state;
	char buf[64];
	struct pair p;
	int u;

	for (u = 0; u < 2; u++) {
		pair_open(f, u == 1, &p);
		assert_int_equal(send_now(f, p.a, "last words", 10), 10);
		io_conn_close(p.a);
		p.a = NULL;
		assert_int_equal(recv_now(f, p.b, buf, sizeof(buf)), 10);
		assert_memory_equal(buf, "last words", 10);
		assert_int_equal(recv_now(f, p.b, buf, sizeof(buf)), 0);
		assert_int_equal(recv_now(f, p.b, buf, sizeof(buf)), 0);
		pair_close(f, &p);
	}
}

/* Both directions under way, the send because nobody reads: closing ends both with -ECANCELED, each once, not inside the call. */
static void
close_with_operations_under_way(void **state)
{
	enum { BYTES = 64 << 20 };
	struct fixture *f = *state;
	char *big = calloc(1, BYTES), in[16];
	struct iovec out_iov = { big, BYTES }, in_iov = { in, sizeof(in) };
	struct outcome sent = { 0 }, received = { 0 };
	struct pair p;

	pair_open(f, false, &p);
	io_conn_send(p.a, &out_iov, 1, outcome_cb, &sent);
	io_conn_recv(p.a, &in_iov, 1, outcome_cb, &received);
	run_turns(f->io, 5);
	assert_false(sent.done);
	assert_false(received.done);
	io_conn_close(p.a);
	p.a = NULL;
	assert_false(sent.done);
	assert_false(received.done);
	run_until(f->io, &sent.done);
	run_until(f->io, &received.done);
	run_turns(f->io, 3);
	assert_int_equal(sent.times, 1);
	assert_int_equal(sent.result, -ECANCELED);
	assert_int_equal(received.times, 1);
	assert_int_equal(received.result, -ECANCELED);
	pair_close(f, &p);
	free(big);
}

/* Closed in the very turn in which the operations were asked for: they were never tried, and still end. */
static void
close_at_once(void **state)
{
	struct fixture *f = *state;
	char buf[16];
	struct iovec iov = { buf, sizeof(buf) };
	struct outcome sent = { 0 }, received = { 0 };
	struct pair p;

	pair_open(f, false, &p);
	memset(buf, 0, sizeof(buf));
	io_conn_recv(p.b, &iov, 1, outcome_cb, &received);
	io_conn_send(p.b, &iov, 1, outcome_cb, &sent);
	io_conn_close(p.b);
	p.b = NULL;
	run_until(f->io, &sent.done);
	run_until(f->io, &received.done);
	run_turns(f->io, 2);
	assert_int_equal(sent.times + received.times, 2);
	assert_int_equal(received.result, -ECANCELED);
	assert_int_equal(sent.result, -ECANCELED);
	pair_close(f, &p);
}

struct closer {
	struct io_conn *conn;
	struct outcome received;
	bool closed;
};

static void
closing_cb(void *arg, int64_t result)
{
	struct closer *c = arg;

	(void)result;
	io_conn_close(c->conn);
	c->closed = true;
}

/* A callback closes its own conn while the other direction is under way. */
static void
close_inside_a_callback(void **state)
{
	struct fixture *f = *state;
	struct closer c = { 0 };
	char buf[16] = "x";
	struct iovec iov = { buf, sizeof(buf) }, out = { buf, 1 };
	struct pair p;

	pair_open(f, true, &p);
	c.conn = p.a;
	io_conn_recv(p.a, &iov, 1, outcome_cb, &c.received);
	io_conn_send(p.a, &out, 1, closing_cb, &c);
	run_until(f->io, &c.closed);
	p.a = NULL;
	run_until(f->io, &c.received.done);
	assert_int_equal(c.received.result, -ECANCELED);
	assert_int_equal(c.received.times, 1);
	pair_close(f, &p);
}

/* Sending to a peer that is gone is an error of the operation, never a signal. */
static void
send_to_a_closed_peer(void **state)
{
	struct fixture *f = *state;
	char buf[4096] = { 0 };
	int64_t rc = 0;
	struct pair p;
	int u, i;

	for (u = 0; u < 2; u++) {
		pair_open(f, u == 1, &p);
		io_conn_close(p.b);
		p.b = NULL;
		run_turns(f->io, 3);
		for (i = 0, rc = 0; i < 50 && rc >= 0; i++) {
			rc = send_now(f, p.a, buf, sizeof(buf));
			run_turns(f->io, 1);
		}
		assert_true(rc == -EPIPE || rc == -ECONNRESET);
		pair_close(f, &p);
	}
}

/* No room and nothing to send are told apart from the stream's end. */
static void
empty_operations(void **state)
{
	struct fixture *f = *state;
	struct pair p;
	char c;

	pair_open(f, false, &p);
	assert_int_equal(recv_now(f, p.a, &c, 0), -EINVAL);
	assert_int_equal(send_now(f, p.a, &c, 0), 0);
	pair_close(f, &p);
}

/* -- listeners and connects ----------------------------------------------------------------------------------------------------- */

/* Port 0 becomes a real one, which two clients reach; both ends know each other's name. */
static void
listener_on_any_port(void **state)
{
	struct fixture *f = *state;
	struct server s;
	struct client c[2] = { { 0 } };
	struct io_conn *accepted[2];
	int i;

	server_open(f, "tcp:127.0.0.1:0", &s);
	assert_true(strncmp(io_listener_address(s.listener), "tcp:127.0.0.1:", 14) == 0);
	assert_string_not_equal(io_listener_address(s.listener), "tcp:127.0.0.1:0");
	for (i = 0; i < 2; i++) {
		s.accepted = false;
		assert_int_equal(io_connect(f->io, io_listener_address(s.listener), 5000000,
					    connect_cb, &c[i], NULL),
				 0);
		run_until(f->io, &c[i].done);
		assert_int_equal(c[i].rc, 0);
		run_until(f->io, &s.accepted);
		accepted[i] = s.conn;
		if (f->sim == NULL) {
			assert_string_equal(io_conn_peer(c[i].conn),
					    io_listener_address(s.listener));
		}
		assert_true(strlen(io_conn_peer(s.conn)) > 4);
	}
	assert_int_equal(s.times, 2);
	io_listener_close(s.listener);
	for (i = 0; i < 2; i++) {
		io_conn_close(c[i].conn);
		io_conn_close(accepted[i]);
	}
	run_turns(f->io, 2);
}

/* A port that nobody listens on any more refuses; the listener's closing is what makes it so. */
static void
connect_refused(void **state)
{
	struct fixture *f = *state;
	char address[128];
	struct server s;
	int u;

	for (u = 0; u < 2; u++) {
		struct client c = { 0 };

		unix_address(f, address, sizeof(address));
		server_open(f, u == 1 ? address : "tcp:127.0.0.1:0", &s);
		(void)snprintf(address, sizeof(address), "%s", io_listener_address(s.listener));
		io_listener_close(s.listener);
		run_turns(f->io, 2);
		assert_int_equal(io_connect(f->io, address, 5000000, connect_cb, &c, NULL), 0);
		assert_false(c.done);
		run_until(f->io, &c.done);
		assert_true(c.rc == -ECONNREFUSED || (u == 1 && c.rc == -ENOENT));
		assert_null(c.conn);
		assert_int_equal(c.times, 1);
	}
}

/* A listening socket that never accepts and whose queue is full: TCP drops the SYNs, Unix says EAGAIN. */
static int
full_listener(struct fixture *f, bool is_unix, char *ret_address, size_t len, int *ret_fillers)
{
	struct sockaddr_in in = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	struct sockaddr_un un = { .sun_family = AF_UNIX };
	struct sockaddr *addr = is_unix ? (struct sockaddr *)&un : (struct sockaddr *)&in;
	socklen_t addr_len = is_unix ? sizeof(un) : sizeof(in);
	int fd = socket(addr->sa_family, SOCK_STREAM | SOCK_CLOEXEC, 0), i;

	(void)snprintf(un.sun_path, sizeof(un.sun_path), "%s/full", f->dir);
	assert_int_equal(bind(fd, addr, addr_len), 0);
	assert_int_equal(listen(fd, 0), 0);
	assert_int_equal(getsockname(fd, addr, &addr_len), 0);
	for (i = 0; i < 4; i++) {
		ret_fillers[i] = socket(addr->sa_family, SOCK_STREAM | SOCK_NONBLOCK, 0);
		(void)connect(ret_fillers[i], addr, addr_len);
	}
	if (is_unix) {
		(void)snprintf(ret_address, len, "unix:%s", un.sun_path);
	} else {
		(void)snprintf(ret_address, len, "tcp:127.0.0.1:%u", ntohs(in.sin_port));
	}
	return fd;
}

/* Connecting ends with -ETIMEDOUT at its time; a cancelled one is never heard of again. */
static void
connect_timeout_and_cancel(void **state)
{
	struct fixture *f = *state;
	int u, i, fd, fillers[4];
	char address[160];

	for (u = 0; u < 2; u++) {
		struct client c = { 0 }, cancelled = { 0 };
		struct io_connect *connect;
		uint64_t before_us = io_now_us_fresh(f->io);

		fd = full_listener(f, u == 1, address, sizeof(address), fillers);
		assert_int_equal(io_connect(f->io, address, 50000, connect_cb, &c, NULL), 0);
		assert_int_equal(io_connect(f->io, address, 20000, connect_cb, &cancelled, &connect),
				 0);
		run_turns(f->io, 2);
		io_connect_cancel(connect);
		run_until(f->io, &c.done);
		assert_int_equal(c.rc, -ETIMEDOUT);
		assert_null(c.conn);
		assert_true(io_now_us_fresh(f->io) - before_us >= 50000);
		run_turns(f->io, 3);
		assert_int_equal(c.times, 1);
		assert_int_equal(cancelled.times, 0);
		for (i = 0; i < 4; i++) {
			(void)close(fillers[i]);
		}
		(void)close(fd);
	}
}

/* Given up before the loop turned, and given up when all is done but the callback. */
static void
connect_cancel_at_once(void **state)
{
	struct fixture *f = *state;
	struct client c = { 0 };
	struct io_connect *connect;
	struct server s;

	server_open(f, "tcp:127.0.0.1:0", &s);
	assert_int_equal(io_connect(f->io, io_listener_address(s.listener), 5000000, connect_cb, &c,
				    &connect),
			 0);
	io_connect_cancel(connect);
	run_turns(f->io, 5);
	assert_int_equal(c.times, 0);
	if (s.accepted) {
		io_conn_close(s.conn);
	}
	io_listener_close(s.listener);
	run_turns(f->io, 3);
}

/* Addresses that cannot be meant are refused by the call itself. */
static void
bad_addresses(void **state)
{
	static const char *const bad[] = { "",
					   "127.0.0.1:80",
					   "tcp:",
					   "tcp:127.0.0.1",
					   "tcp:127.0.0.1:",
					   "tcp:127.0.0.1:http",
					   "tcp:127.0.0.1:65536",
					   "tcp:::1:80",
					   "tcp:[::1:80",
					   "unix:",
					   "udp:127.0.0.1:80" };
	struct fixture *f = *state;
	struct io_listener *listener;
	struct client c = { 0 };
	struct server s = { 0 };
	char path[256];
	size_t i;

	for (i = 0; i < ARRAY_SIZE(bad); i++) {
		assert_int_equal(io_listen(f->io, bad[i], accept_cb, &s, &listener), -EINVAL);
		assert_int_equal(io_connect(f->io, bad[i], 1000, connect_cb, &c, NULL), -EINVAL);
	}
	memset(path, 'x', sizeof(path) - 1);
	path[sizeof(path) - 1] = '\0';
	memcpy(path, "unix:/", 6);
	assert_int_equal(io_listen(f->io, path, accept_cb, &s, &listener), -ENAMETOOLONG);
	run_turns(f->io, 2);
	assert_int_equal(c.times, 0);
}

/* Two listeners on one address: the second is told. A socket file left by a dead process is replaced; ours goes with us. */
static void
address_in_use(void **state)
{
	struct fixture *f = *state;
	struct io_listener *second;
	struct sockaddr_un un = { .sun_family = AF_UNIX };
	char address[128];
	struct server s;
	int u, fd;

	unix_address(f, address, sizeof(address));
	for (u = 0; u < 2; u++) {
		server_open(f, u == 1 ? address : "tcp:127.0.0.1:0", &s);
		assert_int_equal(io_listen(f->io, io_listener_address(s.listener), accept_cb, &s,
					   &second),
				 -EADDRINUSE);
		io_listener_close(s.listener);
		run_turns(f->io, 3);
	}
	if (f->sim == NULL) {
		assert_int_equal(access(address + 5, F_OK), -1);
		fd = socket(AF_UNIX, SOCK_STREAM, 0);
		(void)snprintf(un.sun_path, sizeof(un.sun_path), "%s/sock", f->dir);
		assert_int_equal(bind(fd, (struct sockaddr *)&un, sizeof(un)), 0);
		(void)close(fd);
	}
	server_open(f, address, &s);
	io_listener_close(s.listener);
	run_turns(f->io, 3);
}

/* A listener closed by its own callback while more are waiting. */
static struct io_listener *g_close_me;

static void
accept_and_close_cb(void *arg, struct io_conn *conn)
{
	struct server *s = arg;

	accept_cb(s, conn);
	io_listener_close(g_close_me);
}

static void
listener_closed_by_its_callback(void **state)
{
	struct fixture *f = *state;
	struct server s = { 0 };
	struct client c[3] = { { 0 } };
	int i;

	assert_int_equal(io_listen(f->io, "tcp:127.0.0.1:0", accept_and_close_cb, &s, &g_close_me),
			 0);
	for (i = 0; i < 3; i++) {
		assert_int_equal(io_connect(f->io, io_listener_address(g_close_me), 100000,
					    connect_cb, &c[i], NULL),
				 0);
	}
	for (i = 0; i < 3; i++) {
		run_until(f->io, &c[i].done);
	}
	run_until(f->io, &s.accepted);
	assert_int_equal(s.times, 1);
	io_conn_close(s.conn);
	for (i = 0; i < 3; i++) {
		if (c[i].conn != NULL) {
			io_conn_close(c[i].conn);
		}
	}
	run_turns(f->io, 3);
}

static void
accept_and_end_cb(void *arg, struct io_conn *conn)
{
	accept_cb(arg, conn);
	io_conn_close(conn);
}

static void
count_line(void *arg, enum log_level level, const char *line, size_t len)
{
	unsigned *lines = arg;

	(void)level;
	(void)len;
	*lines += strstr(line, "event=accept_failed") != NULL;
}

/* No descriptor is left for who wants in: counted, said once, and taken as soon as there is one. */
static void
listener_without_descriptors(void **state)
{
	struct fixture *f = *state;
	struct sockaddr_in to = { .sin_family = AF_INET };
	int fds[2] = { socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0),
		       socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0) };
	struct rlimit old, limit;
	struct io_counters counters;
	unsigned lines = 0, i;
	struct server s = { 0 };

	assert_int_equal(io_listen(f->io, "tcp:127.0.0.1:0", accept_and_end_cb, &s, &s.listener), 0);
	run_turns(f->io, 2);
	to.sin_port = htons((uint16_t)atoi(strrchr(io_listener_address(s.listener), ':') + 1));
	to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	log_set_sink(count_line, &lines);
	log_set_level(LOG_WARN);
	assert_int_equal(getrlimit(RLIMIT_NOFILE, &old), 0);
	limit = old;
	limit.rlim_cur = (rlim_t)dup(fds[0]); /* the lowest that is free */
	(void)close((int)limit.rlim_cur);
	assert_int_equal(setrlimit(RLIMIT_NOFILE, &limit), 0);
	/* io_uring takes the first one: the limit of an accept is that of when it was asked for. */
	assert_int_equal(connect(fds[0], (struct sockaddr *)&to, sizeof(to)), 0);
	assert_int_equal(connect(fds[1], (struct sockaddr *)&to, sizeof(to)), 0);
	for (i = 0; i < 1000; i++) {
		assert_true(io_run(f->io, 20000) >= 0);
		io_counters_get(f->io, &counters);
		if (counters.net_accepts_failed >= 3) {
			break;
		}
	}
	assert_true(counters.net_accepts_failed >= 3);
	assert_int_equal(lines, 1);
	assert_true(s.times < 2);
	assert_int_equal(setrlimit(RLIMIT_NOFILE, &old), 0);
	while (s.times < 2) {
		s.accepted = false;
		run_until(f->io, &s.accepted);
	}
	log_set_level(LOG_NONE);
	log_set_sink(NULL, NULL);
	io_listener_close(s.listener);
	(void)close(fds[0]);
	(void)close(fds[1]);
	run_turns(f->io, 3);
}

/* A host that is gone says nothing for ever: both ends of a TCP conn ask after a while. */
static void
tcp_peers_are_asked_for(void **state)
{
	struct fixture *f = *state;
	struct pair p;

	pair_open(f, false, &p);
	for (unsigned i = 0; i < 2; i++) {
		int fd = io_conn_detach(i == 0 ? p.a : p.b), on = 0, idle_s = 0;
		socklen_t len = sizeof(on);

		assert_int_equal(getsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &on, &len), 0);
		assert_int_equal(getsockopt(fd, IPPROTO_TCP, TCP_KEEPIDLE, &idle_s, &len), 0);
		assert_int_equal(on, 1);
		assert_in_range(idle_s, 1, 300);
		(void)close(fd);
	}
	p.a = p.b = NULL;
	pair_close(f, &p);
}

/* -- descriptors -------------------------------------------------------------------------------------------------------------------- */

static int
memfd_with(const char *text)
{
	int fd = memfd_create("test", MFD_CLOEXEC);

	assert_true(fd >= 0);
	assert_int_equal(pwrite(fd, text, strlen(text), 0), (ssize_t)strlen(text));
	return fd;
}

/* Two descriptors go with a message; the sender closes its own at once; the receiver reads what is in them. */
static void
descriptors_are_passed(void **state)
{
	struct fixture *f = *state;
	struct outcome sent = { 0 };
	struct iovec iov = { (void *)"with fds", 8 };
	int fds[2], got[IO_FDS_MAX], i;
	char buf[64];
	struct pair p;

	pair_open(f, true, &p);
	fds[0] = memfd_with("first");
	fds[1] = memfd_with("other");
	io_conn_send_fds(p.a, &iov, 1, fds, 2, outcome_cb, &sent);
	(void)close(fds[0]);
	(void)close(fds[1]);
	run_until(f->io, &sent.done);
	assert_int_equal(sent.result, 8);
	assert_int_equal(recv_now(f, p.b, buf, sizeof(buf)), 8);
	assert_int_equal(io_conn_take_fds(p.b, got, 1), 1);
	assert_int_equal(io_conn_take_fds(p.b, got + 1, IO_FDS_MAX - 1), 1);
	assert_int_equal(io_conn_take_fds(p.b, got + 2, 1), 0);
	for (i = 0; i < 2; i++) {
		assert_int_equal(pread(got[i], buf, sizeof(buf), 0), 5);
		assert_memory_equal(buf, i == 0 ? "first" : "other", 5);
		(void)close(got[i]);
	}
	pair_close(f, &p);
}

/* Never over TCP, never more than the limit in one message, and waiting ones beyond the limit end the conn. */
static void
descriptors_have_limits(void **state)
{
	struct fixture *f = *state;
	struct iovec iov = { (void *)"x", 1 };
	int fds[IO_FDS_MAX + 1], i;
	char buf[4];
	struct pair p;

	for (i = 0; i <= IO_FDS_MAX; i++) {
		fds[i] = memfd_with("");
	}
	pair_open(f, false, &p);
	{
		struct outcome sent = { 0 };

		io_conn_send_fds(p.a, &iov, 1, fds, 1, outcome_cb, &sent);
		assert_false(sent.done);
		run_until(f->io, &sent.done);
		assert_int_equal(sent.result, -EINVAL);
	}
	pair_close(f, &p);
	pair_open(f, true, &p);
	for (i = 0; i < 3; i++) {
		struct outcome sent = { 0 };

		io_conn_send_fds(p.a, &iov, 1, fds, i == 0 ? IO_FDS_MAX + 1 : IO_FDS_MAX,
				 outcome_cb, &sent);
		run_until(f->io, &sent.done);
		assert_int_equal(sent.result, i == 0 ? -EINVAL : 1);
	}
	assert_int_equal(recv_now(f, p.b, buf, 1), 1);
	assert_int_equal(recv_now(f, p.b, buf, 1), -EPROTO);
	pair_close(f, &p);
	for (i = 0; i <= IO_FDS_MAX; i++) {
		(void)close(fds[i]);
	}
}

/* A conn moves to another loop between two messages, with bytes waiting in it. */
static void
conn_moves_to_another_io(void **state)
{
	struct fixture *f = *state;
	struct fixture other = *f;
	struct io_conn *moved;
	struct outcome o = { 0 };
	struct iovec iov;
	char buf[16];
	struct pair p;
	int fd;

	assert_int_equal(fixture_io_create(f, &other.io), 0);
	pair_open(f, false, &p);
	assert_int_equal(send_now(f, p.a, "hello", 5), 5);
	assert_int_equal(recv_now(f, p.b, buf, 2), 2);
	fd = io_conn_detach(p.b);
	assert_true(fd >= 0);
	p.b = NULL;
	run_turns(f->io, 2);
	assert_int_equal(io_conn_attach(other.io, fd, &moved), 0);
	assert_int_equal(recv_now(&other, moved, buf, sizeof(buf)), 3);
	assert_memory_equal(buf, "llo", 3);
	assert_int_equal(send_now(&other, moved, "back", 4), 4);
	iov = (struct iovec){ buf, sizeof(buf) };
	io_conn_recv(p.a, &iov, 1, outcome_cb, &o);
	run_until(f->io, &o.done);
	assert_int_equal(o.result, 4);
	io_conn_close(moved);
	run_turns(other.io, 2);
	io_destroy(other.io);
	pair_close(f, &p);
}

/* -- a random life ------------------------------------------------------------------------------------------------------------------ */

/* 16 streams whose ends send and receive drawn amounts and are closed at drawn moments, inside callbacks and outside. Every operation
 * ends once; what arrives is a prefix of what was sent; after all is closed nothing is left over (io_destroy() asserts that). */
enum { LIFE_STREAMS = 16, LIFE_BYTES_MAX = 300000 };

struct life_end {
	struct life *life;
	struct io_conn *conn;
	uint64_t sent_bytes,
	    received_bytes; /* bytes i of a stream's direction are life_byte(seed, i) */
	struct iovec in[3], out[3];
	uint8_t *in_buf, *out_buf;
	bool recv_active, send_active, closed;
	uint64_t seed;
	struct life_end *peer;
};

struct life {
	struct prng prng;
	struct life_end ends[LIFE_STREAMS][2];
	unsigned accepted, connected, operations;
	struct fixture *f;
};

static uint8_t
life_byte(uint64_t seed, uint64_t i)
{
	return (uint8_t)((seed * 31 + i) * 0x9e3779b97f4a7c15ULL >> 56);
}

static void
life_close(struct life_end *e)
{
	if (!e->closed && e->conn != NULL) {
		e->closed = true;
		io_conn_close(e->conn);
	}
}

static void
life_cut(struct life *life, struct iovec *iov, uint8_t *buf, uint64_t len)
{
	uint64_t a = prng_below(&life->prng, len + 1);
	uint64_t b = a + prng_below(&life->prng, len - a + 1);

	iov[0] = (struct iovec){ buf, a };
	iov[1] = (struct iovec){ buf + a, b - a };
	iov[2] = (struct iovec){ buf + b, len - b };
}

static void
life_received(void *arg, int64_t result)
{
	struct life_end *e = arg;
	int64_t i;

	assert_true(e->recv_active);
	e->recv_active = false;
	assert_true(!e->closed || result == -ECANCELED);
	for (i = 0; i < result; i++) {
		assert_int_equal(e->in_buf[i],
				 life_byte(e->peer->seed, e->received_bytes + (uint64_t)i));
	}
	if (result > 0) {
		e->received_bytes += (uint64_t)result;
	} else if (!e->closed) {
		assert_true(e->peer->closed); /* the end, or an error because of it */
		life_close(e);
	}
	if (prng_below(&e->life->prng, 100) == 0) {
		life_close(e);
	}
}

static void
life_sent(void *arg, int64_t result)
{
	struct life_end *e = arg;

	assert_true(e->send_active);
	e->send_active = false;
	assert_true(!e->closed || result == -ECANCELED);
	if (result >= 0) {
		e->sent_bytes += (uint64_t)result;
	} else if (!e->closed) {
		assert_true(e->peer->closed);
		life_close(e);
	}
	if (prng_below(&e->life->prng, 100) == 0) {
		life_close(e->peer);
	}
}

static void
life_act(struct life_end *e)
{
	struct prng *prng = &e->life->prng;
	uint64_t len, i;

	if (e->closed || e->conn == NULL) {
		return;
	}
	if (!e->recv_active && prng_below(prng, 2) == 0) {
		life_cut(e->life, e->in, e->in_buf, 1 + prng_below(prng, LIFE_BYTES_MAX));
		e->recv_active = true;
		e->life->operations++;
		io_conn_recv(e->conn, e->in, 3, life_received, e);
	}
	if (!e->send_active && prng_below(prng, 2) == 0) {
		len = 1 + prng_below(prng, LIFE_BYTES_MAX);
		for (i = 0; i < len; i++) {
			e->out_buf[i] = life_byte(e->seed, e->sent_bytes + i);
		}
		life_cut(e->life, e->out, e->out_buf, len);
		e->send_active = true;
		e->life->operations++;
		io_conn_send(e->conn, e->out, 3, life_sent, e);
	}
	if (prng_below(prng, 200) == 0) {
		life_close(e);
	}
}

static void
random_life(void **state)
{
	struct fixture *f = *state;
	struct life *life = calloc(1, sizeof(*life));
	unsigned turn, i, j, open = 1, busy;

	prng_init(&life->prng, 77);
	life->f = f;
	for (i = 0; i < LIFE_STREAMS; i++) {
		struct pair p;

		pair_open(f, i % 2 == 1, &p);
		io_listener_close(p.server.listener);
		run_turns(f->io, 3);
		for (j = 0; j < 2; j++) {
			struct life_end *e = &life->ends[i][j];

			e->life = life;
			e->conn = j == 0 ? p.a : p.b;
			e->peer = &life->ends[i][1 - j];
			e->seed = i * 2 + j;
			e->in_buf = malloc(LIFE_BYTES_MAX);
			e->out_buf = malloc(LIFE_BYTES_MAX);
		}
	}
	for (turn = 0; open > 0; turn++) {
		assert_true(turn < 100000);
		open = 0;
		for (i = 0; i < LIFE_STREAMS * 2; i++) {
			life_act(&life->ends[i / 2][i % 2]);
			open += !life->ends[i / 2][i % 2].closed;
		}
		assert_true(io_run(f->io, 1000) >= 0);
	}
	do {
		assert_true(io_run(f->io, 1000) >= 0);
		for (i = 0, busy = 0; i < LIFE_STREAMS * 2; i++) {
			busy += life->ends[i / 2][i % 2].recv_active;
			busy += life->ends[i / 2][i % 2].send_active;
		}
	} while (busy > 0);
	assert_true(life->operations > 100);
	for (i = 0; i < LIFE_STREAMS * 2; i++) {
		struct life_end *e = &life->ends[i / 2][i % 2];

		free(e->in_buf);
		free(e->out_buf);
	}
	free(life);
}

int
main(void)
{
	const struct body bodies[] = {
		BODY(stream_tcp),
		BODY(stream_unix),
		BODY(ping_pong),
		BODY(end_of_stream),
		BODY(close_with_operations_under_way),
		BODY(close_at_once),
		BODY(close_inside_a_callback),
		BODY(send_to_a_closed_peer),
		BODY(empty_operations),
		BODY(listener_on_any_port),
		BODY(connect_refused),
		BODY_REAL(connect_timeout_and_cancel),
		BODY(connect_cancel_at_once),
		BODY_REAL(connect_by_name),
		BODY(bad_addresses),
		BODY(address_in_use),
		BODY(listener_closed_by_its_callback),
		BODY_REAL(listener_without_descriptors),
		BODY_REAL(tcp_peers_are_asked_for),
		BODY(descriptors_are_passed),
		BODY(descriptors_have_limits),
		BODY(conn_moves_to_another_io),
		BODY(random_life),
	};

	return run_bodies("net", bodies, ARRAY_SIZE(bodies));
}
