/* host.h - file: the store runs inside the first process that opens it.
 *
 * What:       who hosts an image is who holds a POSIX record lock on PATH.host, taken with F_SETLK: it ends with the process, also when a forked
 *             child lives on (flock and open-file-description locks would not). The host runs a node (shard/node.h) that listens on
 *             PATH.sock (0600); the others, and the host's own handles, connect to it. When the host goes, the others race for the lock and one
 *             takes over, warm.
 * Not here:   what waits meanwhile (core.h, gap_waits).
 * Threads:    any. A take-over runs in a thread of its own, so that deadlines fire meanwhile.
 * State:      a process may open the lock's file only once, because closing any descriptor of it ends the lock: a table per process,
 *             keyed by (device, inode), is the library's one piece of global state. A forked child finds it stale and begins a new one.
 * Long paths: sun_path holds 108 bytes; the socket is reached through /proc/self/fd/N of its folder, and a name that is too long for that
 *             is replaced by .hr-<hash>.sock in the same folder.
 * Tests:      tests/unit/client/test_host.c
 */
#ifndef HR_CLIENT_HOST_H
#define HR_CLIENT_HOST_H

#include <stdbool.h>

#include "base/error.h"

struct host;
struct hr_client;

/* Takes part for client->url and hosts when nobody does. A device that is refused or an image that cannot be made is an error with its line; with
 * 0, the line may say something worth knowing. */
int host_open(struct hr_client *client, struct errbuf *err);
/* The last handle of the process ends hosting, after which another process may take over. NULL is fine. */
void host_close(struct host *host);
const char *host_address(const struct host *host); /* as io_connect() takes it */
/* The connection broke or was refused: takes over if nobody hosts. Does not block. */
void host_wanted(struct host *host);
/* Nobody holds the lock, or it changed hands: whatever the socket says, the host that we were connected to is dead. */
bool host_gone(struct host *host);

/* A line for people in which the socket has the name of its file, where the node and the core know it by the folder's descriptor. */
void host_detail_mend(const struct host *host, char *detail, size_t bytes);

#endif
