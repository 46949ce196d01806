/* warm.h - makes memory resident in a thread of its own, so that pinning it in a turn of the loop is short.
 *
 * What:       pinning a GiB that nobody has touched takes the kernel a quarter of a second, nearly all of it for clearing pages: in the
 *             loop's thread that would be a stall of every connection. Here a thread asks for the pages (MADV_POPULATE_WRITE), step by step,
 *             and the loop pins each piece when it is there.
 * Not here:   the pinning (disk_uring.c).
 * Threads:    warm_* from the io's own; the worker shares only what the mutex guards. It begins with the first memory, takes no signals.
 * Errors:     pages that cannot be had are not an error: the piece is handed over as it is.
 * Limits:     WARM_PIECE_BYTES a piece; the list of memory grows with the regions given.
 * Tests:      tests/unit/io/test_warm.c
 */
#ifndef HR_IO_WARM_H
#define HR_IO_WARM_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/uio.h>

#include "base/base.h"

#define WARM_PIECE_BYTES MiB(64)

struct io;
struct warm;

int warm_create(struct io *io, struct warm **ret_warm);
/* Ends the worker. */
void warm_destroy(struct warm *warm);
/* Borrows the memory until warm_forget(). The loop is woken for each piece that is ready. -ENOMEM, or -errno of the thread. */
int warm_add(struct warm *warm, void *base, size_t len);
/* After it the worker does not touch [base, base + len), and no piece of it comes any more. Waits for one step of the worker at most. */
void warm_forget(struct warm *warm, void *base, size_t len);
/* A piece whose pages are there; it belongs to the caller. Cheap when there is none. */
bool warm_next(struct warm *warm, struct iovec *ret_piece);

#endif
