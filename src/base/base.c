/* base.c — the end of a process whose invariant does not hold. */
#include "base/base.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

void
assert_failed(const char *expr, const char *file, int line, const char *fmt, ...)
{
	char text[512];
	int len;

	len = snprintf(text, sizeof(text), "headrace: assertion failed: %s at %s:%d", expr, file,
		       line);
	if (fmt != NULL && len > 0 && (size_t)len < sizeof(text) - 3) {
		va_list ap;

		text[len++] = ':';
		text[len++] = ' ';
		va_start(ap, fmt);
		(void)vsnprintf(text + len, sizeof(text) - (size_t)len, fmt, ap);
		va_end(ap);
	}
	/* stdio may be what is broken, or its lock held: one plain write. */
	if (write(STDERR_FILENO, text, strnlen(text, sizeof(text))) < 0 ||
	    write(STDERR_FILENO, "\n", 1) < 0) {
		/* Nobody is left to tell. */
	}
	abort();
}
