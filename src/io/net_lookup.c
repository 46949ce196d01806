/* net_lookup.c - host names looked up beside the loop: a resolver that does not answer takes its half minute, and deadlines must pass meanwhile.
 *
 * What:       one thread a look-up, since the C library offers nothing that can be given up. Numeric addresses never come here.
 * Threads:    net_lookup_* are the loop's; the thread shares the look-up alone, which the last of both frees.
 * Limits:     LOOKUPS_MAX in the process; more are -EAGAIN, as a resolver that says "later" is.
 * Tests:      tests/unit/io/test_net.c
 */
#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "io/net_socket.h"

enum { LOOKUPS_MAX = 64 };

struct net_lookup {
	atomic_uint refs; /* the loop's and the thread's */
	atomic_bool done;
	int fd; /* eventfd, readable once it is done */
	int rc;
	struct net_address *addresses;
	char address[];
};

static atomic_uint g_lookups_count;

static void
lookup_unref(struct net_lookup *lookup)
{
	if (atomic_fetch_sub(&lookup->refs, 1) == 1) {
		net_address_free(lookup->addresses);
		(void)close(lookup->fd);
		free(lookup);
	}
}

static void *
lookup_main(void *arg)
{
	struct net_lookup *lookup = arg;
	uint64_t one = 1;

	lookup->rc = net_address_resolve(lookup->address, false, &lookup->addresses);
	atomic_store(&lookup->done, true);
	(void)!write(lookup->fd, &one, sizeof(one));
	(void)atomic_fetch_sub(&g_lookups_count, 1);
	lookup_unref(lookup);
	return NULL;
}

/* Detached, and without signals: those are the program's. */
static int
thread_start(struct net_lookup *lookup)
{
	pthread_attr_t attr;
	pthread_t thread;
	sigset_t all, old;
	int rc;

	(void)pthread_attr_init(&attr);
	(void)pthread_attr_setdetachstate(&attr, PTHREAD_CREATE_DETACHED);
	(void)sigfillset(&all);
	(void)pthread_sigmask(SIG_SETMASK, &all, &old);
	rc = -pthread_create(&thread, &attr, lookup_main, lookup);
	(void)pthread_sigmask(SIG_SETMASK, &old, NULL);
	(void)pthread_attr_destroy(&attr);
	return rc;
}

int
net_lookup_start(const char *address, struct net_lookup **ret_lookup)
{
	size_t len = strlen(address) + 1;
	struct net_lookup *lookup;
	int rc;

	if (atomic_fetch_add(&g_lookups_count, 1) >= LOOKUPS_MAX) {
		rc = -EAGAIN;
		goto out_count;
	}
	lookup = calloc(1, sizeof(*lookup) + len);
	if (lookup == NULL) {
		rc = -ENOMEM;
		goto out_count;
	}
	memcpy(lookup->address, address, len);
	atomic_init(&lookup->refs, 2);
	lookup->fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
	rc = lookup->fd < 0 ? -errno : thread_start(lookup);
	if (rc == 0) {
		*ret_lookup = lookup;
		return 0;
	}
	if (lookup->fd >= 0) {
		(void)close(lookup->fd);
	}
	free(lookup);
out_count:
	(void)atomic_fetch_sub(&g_lookups_count, 1);
	return rc;
}

int
net_lookup_fd(const struct net_lookup *lookup)
{
	return lookup->fd;
}

int
net_lookup_end(struct net_lookup *lookup, struct net_address **ret_addresses)
{
	int rc = -ECANCELED;

	if (atomic_load(&lookup->done)) {
		rc = lookup->rc;
	}
	if (rc == 0) {
		*ret_addresses = lookup->addresses;
		lookup->addresses = NULL;
	}
	lookup_unref(lookup);
	return rc;
}
