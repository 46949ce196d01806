/* blocking.h - device operations that run the io until they are done; for opening, formatting and checking.
 *
 * What:       one operation at a time on top of the asynchronous seam. Other callbacks of the io run meanwhile.
 * Not here:   anything that serves.
 * Threads:    the io's. Never from inside a callback of the same io.
 * Errors:     0 or -errno.
 */
#ifndef HR_ENGINE_BLOCKING_H
#define HR_ENGINE_BLOCKING_H

#include "io/io.h"

/* `buf` and `len` are multiples of a page. */
int blocking_read(struct io *io, struct io_device *device, uint64_t off, void *buf, size_t len);
/* flags: IO_WRITE_DSYNC */
int blocking_write(struct io *io, struct io_device *device, uint64_t off, const void *buf,
		   size_t len, unsigned flags);
int blocking_sync(struct io *io, struct io_device *device);
/* Runs the io until *done. */
int blocking_wait(struct io *io, const bool *done);
/* Page-aligned and zeroed; free() it. NULL: no memory. */
void *page_alloc(size_t bytes);

#endif
