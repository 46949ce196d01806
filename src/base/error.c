/* error.c — texts of codes, and the line that says more. */
#include "base/error.h"

#include <stdio.h>
#include <stdlib.h>

const char *
error_name(int rc)
{
	const char *name;

	rc = rc == INT32_MIN ? 0 : abs(rc);
	switch (rc) {
	case 0:
		return "OK";
#define ERROR_NAME_CASE(name, value, text)                                                         \
	case value:                                                                                \
		return #name;
		HR_ERROR_TABLE(ERROR_NAME_CASE)
#undef ERROR_NAME_CASE
	default:
		name = strerrorname_np(rc);
		return name != NULL ? name : "UNKNOWN";
	}
}

const char *
error_text(int rc)
{
	static _Thread_local char unknown[48];
	const char *text;

	rc = rc == INT32_MIN ? 0 : abs(rc);
	switch (rc) {
#define ERROR_TEXT_CASE(name, value, text)                                                         \
	case value:                                                                                \
		return text;
		HR_ERROR_TABLE(ERROR_TEXT_CASE)
#undef ERROR_TEXT_CASE
	default:
		break;
	}
	text = strerrordesc_np(rc);
	if (text == NULL) {
		snprintf(unknown, sizeof(unknown), "unknown error %d", rc);
		text = unknown;
	}
	return text;
}

void
errf_write(struct errbuf *err, const char *fmt, ...)
{
	va_list ap;

	if (err != NULL) {
		va_start(ap, fmt);
		(void)vsnprintf(err->text, sizeof(err->text), fmt, ap);
		va_end(ap);
	}
}

void
errf_write_prefix(struct errbuf *err, int rc, const char *fmt, ...)
{
	struct errbuf old;
	va_list ap;
	size_t len;

	if (err == NULL) {
		return;
	}
	old = *err;
	va_start(ap, fmt);
	(void)vsnprintf(err->text, sizeof(err->text), fmt, ap);
	va_end(ap);
	len = strlen(err->text);
	(void)snprintf(err->text + len, sizeof(err->text) - len, ": %s",
		       old.text[0] != 0 ? old.text : error_text(rc));
}
