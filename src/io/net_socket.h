/* net_socket.h - what the socket backends share: addresses, making sockets, iovec bookkeeping, descriptors as control messages.
 *
 * Threads:    none of its own.
 * Errors:     0 or -errno.
 * Tests:      tests/unit/io/test_net.c
 */
#ifndef HR_IO_NET_SOCKET_H
#define HR_IO_NET_SOCKET_H

#include <sys/socket.h>

#include "io/io_impl.h"

struct net_address {
	struct net_address *next;
	int family;
	socklen_t len;
	struct sockaddr_storage addr;
};

/* "tcp:HOST:PORT" or "unix:PATH"; several when a name has several. Names that are not numeric may block. -ENXIO: there is no such host;
 * -EAGAIN: nobody knows now. */
int net_address_resolve(const char *address, bool passive, struct net_address **ret_addresses);
/* The same for connecting, and never blocks: -EINPROGRESS when it is a name, for net_lookup_start(). */
int net_address_numeric(const char *address, struct net_address **ret_addresses);

/* net_lookup.c. Each look-up that was started is ended once; before its descriptor is readable that gives it up (-ECANCELED). */
struct net_lookup;
int net_lookup_start(const char *address, struct net_lookup **ret_lookup);
int net_lookup_fd(const struct net_lookup *lookup);
int net_lookup_end(struct net_lookup *lookup, struct net_address **ret_addresses);

int net_address_check(const char *address); /* the form only */
void net_address_free(struct net_address *addresses);

/* Binds and listens; fills fd, is_unix and address. A socket file that nobody listens on any more is replaced. */
int socket_listen(struct io_listener *listener, const char *address, bool nonblock);
/* Closes, and removes the socket file if it is still ours. */
void socket_listener_close(struct io_listener *listener);

/* Names the peer, turns Nagle off, sets or clears O_NONBLOCK. */
int socket_conn_init(struct io_conn *conn, bool nonblock);
int socket_error(int fd); /* SO_ERROR as -errno */

enum { SOCKET_CONTROL_BYTES = CMSG_SPACE(IO_FDS_MAX * sizeof(int)) };
union socket_control {
	char bytes[SOCKET_CONTROL_BYTES];
	size_t align; /* as struct cmsghdr, which ends in an array of no size */
};

/* The next piece of an operation as a message: at most IO_NET_VEC_MAX iovecs, and the descriptors with the first byte. */
void socket_send_msg(struct io_stream_op *op, struct msghdr *msg, struct iovec *vec,
		     union socket_control *control);
void socket_recv_msg(struct io_stream_op *op, struct msghdr *msg, struct iovec *vec,
		     union socket_control *control);
/* n bytes have gone. Returns true when all have. */
bool socket_sent(struct io_stream_op *op, size_t n);
/* Moves received descriptors into the conn; -EPROTO when there are too many. */
int socket_take_fds(struct io_conn *conn, struct msghdr *msg);

#endif
