/* error.h — names and texts of error codes, and a place for the one line that says more.
 *
 * What:       our own codes come from <headrace/error.h> (1001 and up); everything else is an errno. Functions return 0 or a
 *             negative code.
 * Threads:    any. An errbuf belongs to its caller.
 * Tests:      tests/unit/base/test_error.c
 */
#ifndef HR_BASE_ERROR_H
#define HR_BASE_ERROR_H

#include <errno.h>
#include <headrace/error.h>
#include <stdarg.h>

#include "base/base.h"

/* "HR_ECORRUPT", "ENOSPC", "OK", or "UNKNOWN"; the sign is ignored. Static. */
const char *error_name(int rc);

/* The text of <headrace/error.h> or of the C library; the sign is ignored. Static or thread-local, never NULL. */
const char *error_text(int rc);

/* One short factual line about the last failure: it names the thing and the value wanted. */
struct errbuf {
	char text[256];
};

/* Writes the line, if err is not NULL, and gives rc: `return errf(err, -EINVAL, "size=%s: …", text);`. Macros, so that the
 * compiler and its analyzer see what is returned. */
#define errf(err, rc, ...)                                                                         \
	({                                                                                         \
		int errf_rc_ = (rc);                                                               \
		errf_write((err), __VA_ARGS__);                                                    \
		errf_rc_;                                                                          \
	})

/* Puts "prefix: " before what is there; an empty text becomes the text of rc. Gives rc. */
#define errf_prefix(err, rc, ...)                                                                  \
	({                                                                                         \
		int errf_rc_ = (rc);                                                               \
		errf_write_prefix((err), errf_rc_, __VA_ARGS__);                                   \
		errf_rc_;                                                                          \
	})

HR_PRINTF(2, 3) void errf_write(struct errbuf *err, const char *fmt, ...);
HR_PRINTF(3, 4) void errf_write_prefix(struct errbuf *err, int rc, const char *fmt, ...);

#endif
