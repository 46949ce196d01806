/* net_uring.c - sockets by io_uring: not in this build; io_create() refuses the kind. */
#include <errno.h>

#include "io/io_impl.h"

static int
net_uring_create(struct io *io)
{
	(void)io;
	return -EOPNOTSUPP;
}

const struct io_net_ops net_uring_ops = { .name = "io_uring", .create = net_uring_create };
