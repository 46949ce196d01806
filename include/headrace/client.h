/* client.h - a handle on a store.
 *
 * A client is thread-safe. Each handle has one I/O thread, started at its first use; nothing spins when idle. No signals, no callbacks into the
 * caller, no global state. After fork() the child's calls on the parent's handle answer -HR_EFORK and touch nothing; open a new one.
 */
#ifndef HEADRACE_CLIENT_H
#define HEADRACE_CLIENT_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif
#pragma GCC visibility push(default)

struct hr_client;

enum { HR_DETAIL_BYTES = 256 };

struct hr_options {
	size_t size;		     /* sizeof(struct hr_options): set by hr_options_init() */
	uint32_t connect_timeout_ms; /* of one try; default 2,000 */
	uint32_t deadline_ms;	     /* default of a submission without one; 0 = 5,000 */
	uint64_t inflight_bytes_max; /* PUT and GET payload under way; default 256 MiB; beyond it hr_submit() says -HR_EFULL */
	uint32_t inflight_items_max; /* default 65,536 */
	const char *token_file;	     /* tenant's token; NULL = none */
	const char *name; /* said to the server for its logs; copied; NULL = the program's name */
	uint64_t staging_bytes; /* unix:, file: shared memory for PUT; default 64 MiB */
	uint64_t reserve[8];
};
void hr_options_init(struct hr_options *options);

/* URL: file:PATH?size=8GiB&dram=1GiB[&segment=…][&sync=flush|dsync] · unix:PATH · tcp:HOST:PORT[,HOST:PORT…]; NULL = $HEADRACE_URL.
 * file: the store runs inside the first process that opens it (made at the first open), others reach it through a socket beside the file, and
 * another takes over when that process goes. Connecting happens in the background: only misuse (a URL that cannot be parsed), a device that is refused
 * or (file:) an image that cannot be made is an error here; a node that is away is not.
 * options NULL = defaults. On failure *ret_client is untouched, and `detail` (NULL, or HR_DETAIL_BYTES) gets one line naming the thing and the value wanted. */
int hr_open(const char *url, const struct hr_options *options, struct hr_client **ret_client,
	    char *detail);
/* Waits (at most timeout_ms; 0 = does not wait) until the store answers. 0, -ETIMEDOUT, or the error of the last try. */
int hr_client_ready(struct hr_client *client, uint32_t timeout_ms);
/* Cancels what is under way and frees everything, spaces included. NULL is fine. Borrowed pages must have been released. */
void hr_close(struct hr_client *client);
/* One factual line on the last error of this handle, "" when none; copied into buf. */
void hr_client_detail(struct hr_client *client, char *buf, size_t buf_bytes);

/* Optional: tells the library of memory that items will use; makes it direct where the transport can (unix: and file:, with `fd` a memfd of ordinary
 * pages, sealed against shrinking, whose first `len` bytes are mapped at `base`; or -1).
 * -EINVAL: an fd that is not sealed, or is shorter. The memory must stay until hr_unregister() or hr_close(). */
int hr_register(struct hr_client *client, void *base, size_t len, int fd);
int hr_unregister(struct hr_client *client, void *base);

/* Statistics of client and node(s) as one JSON object; free(*ret_json). Blocks up to timeout_ms. */
int hr_stat_json(struct hr_client *client, uint32_t timeout_ms, char **ret_json);

/* "0.1.0" of the library that runs. */
const char *hr_version(void);

#pragma GCC visibility pop
#ifdef __cplusplus
}
#endif
#endif
