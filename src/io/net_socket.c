/* net_socket.c - see net_socket.h */
#include "io/net_socket.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

enum {
	LISTEN_BACKLOG = 1024,
	/* A peer whose host is gone says nothing: it is asked after a minute of silence, and given up after another. */
	KEEPALIVE_IDLE_S = 60,
	KEEPALIVE_INTERVAL_S = 10,
	KEEPALIVE_COUNT = 6,
};

/* -- addresses ------------------------------------------------------------------------------------------------------------------ */

static int
address_new(const struct sockaddr *addr, socklen_t len, struct net_address **ret_address)
{
	struct net_address *address = calloc(1, sizeof(*address));

	if (address == NULL) {
		return -ENOMEM;
	}
	address->family = addr->sa_family;
	address->len = len;
	memcpy(&address->addr, addr, len);
	*ret_address = address;
	return 0;
}

static int
resolve_unix(const char *path, struct net_address **ret_addresses)
{
	struct sockaddr_un un = { .sun_family = AF_UNIX };
	size_t len = strlen(path);

	if (len == 0) {
		return -EINVAL;
	}
	if (len >= sizeof(un.sun_path)) {
		return -ENAMETOOLONG;
	}
	memcpy(un.sun_path, path, len + 1);
	return address_new((struct sockaddr *)&un, sizeof(un), ret_addresses);
}

/* HOST:PORT, [HOST]:PORT, *:PORT or :PORT into two strings; NULL host = any. */
static int
host_split(char *text, const char **ret_host, const char **ret_port)
{
	char *colon = strrchr(text, ':');
	char *end;

	if (colon == NULL || colon[1] == '\0' ||
	    strspn(colon + 1, "0123456789") != strlen(colon + 1) ||
	    strtoul(colon + 1, NULL, 10) > 65535) {
		return -EINVAL;
	}
	*colon = '\0';
	*ret_port = colon + 1;
	if (text[0] == '[') {
		end = strchr(text, ']');
		if (end == NULL || end[1] != '\0') {
			return -EINVAL;
		}
		*end = '\0';
		*ret_host = text + 1;
		return 0;
	}
	if (strchr(text, ':') != NULL) {
		return -EINVAL; /* An IPv6 address goes in brackets. */
	}
	*ret_host = text[0] == '\0' || strcmp(text, "*") == 0 ? NULL : text;
	return 0;
}

static int
errno_of_gai(int rc)
{
	switch (rc) {
	case EAI_SYSTEM:
		return errno != 0 ? -errno : -EIO;
	case EAI_MEMORY:
		return -ENOMEM;
	case EAI_AGAIN:
		return -EAGAIN;
	default:
		return -ENXIO; /* There is no such host. */
	}
}

static int
resolve_tcp(const char *address, int ai_flags, struct net_address **ret_addresses)
{
	struct addrinfo hints = { .ai_socktype = SOCK_STREAM,
				  .ai_flags = AI_NUMERICSERV | ai_flags };
	struct net_address *first = NULL, **tail = &first;
	struct addrinfo *found, *ai;
	const char *host, *port;
	char text[IO_ADDRESS_MAX * 2];
	int rc;

	if (strlen(address) >= sizeof(text)) {
		return -ENAMETOOLONG;
	}
	memcpy(text, address, strlen(address) + 1);
	rc = host_split(text, &host, &port);
	if (rc != 0) {
		return rc;
	}
	rc = getaddrinfo(host, port, &hints, &found);
	if (rc != 0) {
		return errno_of_gai(rc);
	}
	for (ai = found, rc = 0; ai != NULL && rc == 0; ai = ai->ai_next) {
		rc = address_new(ai->ai_addr, ai->ai_addrlen, tail);
		if (rc == 0) {
			tail = &(*tail)->next;
		}
	}
	freeaddrinfo(found);
	if (rc != 0) {
		net_address_free(first);
		return rc;
	}
	*ret_addresses = first;
	return 0;
}

int
net_address_check(const char *address)
{
	char text[IO_ADDRESS_MAX * 2];
	const char *host, *port;

	if (strncmp(address, "unix:", 5) == 0) {
		return address[5] == '\0' ? -EINVAL
		       : strlen(address + 5) >= sizeof(((struct sockaddr_un *)0)->sun_path)
			   ? -ENAMETOOLONG
			   : 0;
	}
	if (strncmp(address, "tcp:", 4) != 0) {
		return -EINVAL;
	}
	if (strlen(address) >= sizeof(text)) {
		return -ENAMETOOLONG;
	}
	memcpy(text, address + 4, strlen(address + 4) + 1);
	return host_split(text, &host, &port);
}

int
net_address_resolve(const char *address, bool passive, struct net_address **ret_addresses)
{
	if (strncmp(address, "unix:", 5) == 0) {
		return resolve_unix(address + 5, ret_addresses);
	}
	if (strncmp(address, "tcp:", 4) == 0) {
		return resolve_tcp(address + 4, passive ? AI_PASSIVE : 0, ret_addresses);
	}
	return -EINVAL;
}

int
net_address_numeric(const char *address, struct net_address **ret_addresses)
{
	int rc;

	if (strncmp(address, "tcp:", 4) != 0) {
		return net_address_resolve(address, false, ret_addresses);
	}
	rc = resolve_tcp(address + 4, AI_NUMERICHOST, ret_addresses);
	return rc == -ENXIO ? -EINPROGRESS : rc;
}

void
net_address_free(struct net_address *addresses)
{
	while (addresses != NULL) {
		struct net_address *next = addresses->next;

		free(addresses);
		addresses = next;
	}
}

static void
name_inet(const struct sockaddr_storage *addr, char *ret_name, size_t len)
{
	char host[INET6_ADDRSTRLEN] = "?";
	struct sockaddr_in6 in6;
	struct sockaddr_in in4;

	if (addr->ss_family == AF_INET6) {
		memcpy(&in6, addr, sizeof(in6));
		(void)inet_ntop(AF_INET6, &in6.sin6_addr, host, sizeof(host));
		(void)snprintf(ret_name, len, "tcp:[%s]:%u", host, ntohs(in6.sin6_port));
	} else {
		memcpy(&in4, addr, sizeof(in4));
		(void)inet_ntop(AF_INET, &in4.sin_addr, host, sizeof(host));
		(void)snprintf(ret_name, len, "tcp:%s:%u", host, ntohs(in4.sin_port));
	}
}

/* -- listeners ------------------------------------------------------------------------------------------------------------------ */

/* Nobody answers on the file: a process died without removing it. */
static bool
unix_is_stale(const struct net_address *address)
{
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	bool stale;

	if (fd < 0) {
		return false;
	}
	stale = connect(fd, (const struct sockaddr *)&address->addr, address->len) != 0 &&
		errno == ECONNREFUSED;
	(void)close(fd);
	return stale;
}

static int
unix_bind(struct io_listener *listener, int fd, const struct net_address *address)
{
	const char *path = ((const struct sockaddr_un *)&address->addr)->sun_path;
	struct stat st;
	int rc;

	rc = bind(fd, (const struct sockaddr *)&address->addr, address->len);
	if (rc != 0 && errno == EADDRINUSE && stat(path, &st) == 0 && S_ISSOCK(st.st_mode) &&
	    unix_is_stale(address) && unlink(path) == 0) {
		rc = bind(fd, (const struct sockaddr *)&address->addr, address->len);
	}
	if (rc != 0) {
		return -errno;
	}
	if (stat(path, &st) != 0) {
		return -errno;
	}
	listener->unix_dev = st.st_dev;
	listener->unix_ino = st.st_ino;
	return 0;
}

static int
inet_bind(int fd, const struct net_address *address)
{
	int one = 1;

	(void)setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
	return bind(fd, (const struct sockaddr *)&address->addr, address->len) == 0 ? 0 : -errno;
}

static void
listener_name(struct io_listener *listener, const char *address)
{
	struct sockaddr_storage addr = { 0 };
	socklen_t len = sizeof(addr);

	if (listener->is_unix || getsockname(listener->fd, (struct sockaddr *)&addr, &len) != 0) {
		(void)snprintf(listener->address, sizeof(listener->address), "%s", address);
		return;
	}
	name_inet(&addr, listener->address, sizeof(listener->address));
}

static int
listen_on(struct io_listener *listener, const struct net_address *address, bool nonblock)
{
	int fd, rc;

	fd = socket(address->family, SOCK_STREAM | SOCK_CLOEXEC | (nonblock ? SOCK_NONBLOCK : 0), 0);
	if (fd < 0) {
		return -errno;
	}
	listener->is_unix = address->family == AF_UNIX;
	rc = listener->is_unix ? unix_bind(listener, fd, address) : inet_bind(fd, address);
	if (rc == 0 && listen(fd, LISTEN_BACKLOG) != 0) {
		rc = -errno;
	}
	if (rc != 0) {
		(void)close(fd);
		return rc;
	}
	listener->fd = fd;
	return 0;
}

int
socket_listen(struct io_listener *listener, const char *address, bool nonblock)
{
	struct net_address *addresses = NULL, *a;
	int rc;

	rc = net_address_resolve(address, true, &addresses);
	if (rc != 0) {
		return rc;
	}
	for (a = addresses, rc = -EADDRNOTAVAIL; a != NULL && rc != 0; a = a->next) {
		rc = listen_on(listener, a, nonblock);
	}
	net_address_free(addresses);
	if (rc == 0) {
		listener_name(listener, address);
	}
	return rc;
}

void
socket_listener_close(struct io_listener *listener)
{
	const char *path = listener->address + strlen("unix:");
	struct stat st;

	if (listener->is_unix && stat(path, &st) == 0 && st.st_dev == listener->unix_dev &&
	    st.st_ino == listener->unix_ino) {
		(void)unlink(path);
	}
	(void)close(listener->fd);
	listener->fd = -1;
}

/* -- conns ------------------------------------------------------------------------------------------------------------------------ */

static void
conn_name(struct io_conn *conn, const struct sockaddr_storage *peer)
{
	struct ucred cred;
	socklen_t len = sizeof(cred);

	if (!conn->is_unix) {
		name_inet(peer, conn->peer, sizeof(conn->peer));
	} else if (getsockopt(conn->fd, SOL_SOCKET, SO_PEERCRED, &cred, &len) == 0) {
		(void)snprintf(conn->peer, sizeof(conn->peer), "unix:pid=%d,uid=%u", (int)cred.pid,
			       (unsigned)cred.uid);
	} else {
		(void)snprintf(conn->peer, sizeof(conn->peer), "unix:");
	}
}

static void
tcp_options_set(int fd)
{
	const struct {
		int level, name, value;
	} options[] = {
		{ IPPROTO_TCP, TCP_NODELAY, 1 },
		{ IPPROTO_TCP, TCP_KEEPIDLE, KEEPALIVE_IDLE_S },
		{ IPPROTO_TCP, TCP_KEEPINTVL, KEEPALIVE_INTERVAL_S },
		{ IPPROTO_TCP, TCP_KEEPCNT, KEEPALIVE_COUNT },
		{ SOL_SOCKET, SO_KEEPALIVE, 1 },
	};

	for (size_t i = 0; i < ARRAY_SIZE(options); i++) {
		(void)setsockopt(fd, options[i].level, options[i].name, &options[i].value,
				 sizeof(options[i].value));
	}
}

int
socket_conn_init(struct io_conn *conn, bool nonblock)
{
	struct sockaddr_storage peer = { 0 };
	socklen_t len = sizeof(peer);
	int how = fcntl(conn->fd, F_GETFL);

	if (how < 0 ||
	    fcntl(conn->fd, F_SETFL, nonblock ? how | O_NONBLOCK : how & ~O_NONBLOCK) != 0) {
		return -errno;
	}
	/* A peer that is gone already shows as the stream's end or error, not here. */
	if (getpeername(conn->fd, (struct sockaddr *)&peer, &len) != 0 && errno != ENOTCONN) {
		return -errno;
	}
	if (peer.ss_family == AF_UNSPEC) {
		len = sizeof(peer);
		(void)getsockname(conn->fd, (struct sockaddr *)&peer, &len);
	}
	conn->is_unix = peer.ss_family == AF_UNIX;
	if (!conn->is_unix) {
		tcp_options_set(conn->fd);
	}
	conn_name(conn, &peer);
	return 0;
}

int
socket_error(int fd)
{
	int error = 0;
	socklen_t len = sizeof(error);

	if (getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &len) != 0) {
		return -errno;
	}
	return -error;
}

/* -- messages --------------------------------------------------------------------------------------------------------------------- */

static unsigned
vec_fill(const struct io_stream_op *op, struct iovec *vec)
{
	size_t skip = op->iov_skip;
	unsigned count = 0, i;

	for (i = op->iov_idx; i < op->iov_count && count < IO_NET_VEC_MAX; i++) {
		if (op->iov[i].iov_len > skip) {
			vec[count].iov_base = (char *)op->iov[i].iov_base + skip;
			vec[count].iov_len = op->iov[i].iov_len - skip;
			count++;
		}
		skip = 0;
	}
	return count;
}

void
socket_send_msg(struct io_stream_op *op, struct msghdr *msg, struct iovec *vec,
		union socket_control *control)
{
	struct io_conn *conn = op->conn;
	struct cmsghdr *cmsg;

	memset(msg, 0, sizeof(*msg));
	msg->msg_iov = vec;
	msg->msg_iovlen = vec_fill(op, vec);
	if (conn->send_fds_count == 0) {
		return;
	}
	memset(control, 0, sizeof(*control));
	msg->msg_control = control->bytes;
	msg->msg_controllen = CMSG_SPACE(conn->send_fds_count * sizeof(int));
	cmsg = CMSG_FIRSTHDR(msg);
	cmsg->cmsg_level = SOL_SOCKET;
	cmsg->cmsg_type = SCM_RIGHTS;
	cmsg->cmsg_len = CMSG_LEN(conn->send_fds_count * sizeof(int));
	memcpy(CMSG_DATA(cmsg), conn->send_fds, conn->send_fds_count * sizeof(int));
}

void
socket_recv_msg(struct io_stream_op *op, struct msghdr *msg, struct iovec *vec,
		union socket_control *control)
{
	memset(msg, 0, sizeof(*msg));
	msg->msg_iov = vec;
	msg->msg_iovlen = vec_fill(op, vec);
	if (op->conn->is_unix) {
		msg->msg_control = control->bytes;
		msg->msg_controllen = sizeof(control->bytes);
	}
}

bool
socket_sent(struct io_stream_op *op, size_t n)
{
	if (n > 0) {
		io_fds_close(op->conn->send_fds, &op->conn->send_fds_count);
	}
	op->bytes_done += n;
	while (op->iov_idx < op->iov_count && n >= op->iov[op->iov_idx].iov_len - op->iov_skip) {
		n -= op->iov[op->iov_idx].iov_len - op->iov_skip;
		op->iov_idx++;
		op->iov_skip = 0;
	}
	op->iov_skip += n;
	HR_ASSERT(op->iov_idx < op->iov_count || n == 0);
	return op->iov_idx == op->iov_count;
}

int
socket_take_fds(struct io_conn *conn, struct msghdr *msg)
{
	int rc = (msg->msg_flags & MSG_CTRUNC) != 0 ? -EPROTO : 0;
	struct cmsghdr *cmsg;

	for (cmsg = CMSG_FIRSTHDR(msg); cmsg != NULL; cmsg = CMSG_NXTHDR(msg, cmsg)) {
		size_t count = (cmsg->cmsg_len - CMSG_LEN(0)) / sizeof(int);
		size_t i;

		if (cmsg->cmsg_level != SOL_SOCKET || cmsg->cmsg_type != SCM_RIGHTS) {
			continue;
		}
		for (i = 0; i < count; i++) {
			int fd;

			memcpy(&fd, CMSG_DATA(cmsg) + i * sizeof(int), sizeof(int));
			if (conn->fds_count < IO_FDS_MAX) {
				conn->fds[conn->fds_count++] = fd;
			} else {
				(void)close(fd);
				rc = -EPROTO;
			}
		}
	}
	return rc;
}
