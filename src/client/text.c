/* text.c - names and texts of the public API. */
#include <headrace/headrace.h>

#include "base/error.h"

const char *
hr_strerror(int code)
{
	return error_text(code);
}

const char *
hr_reason_name(int reason)
{
	static const char *const names[HR_REASON_COUNT] = {
#define REASON_NAME(name, value, text) [value] = text,
		HR_REASON_TABLE(REASON_NAME)
#undef REASON_NAME
	};

	return reason >= 0 && reason < HR_REASON_COUNT ? names[reason] : "unknown";
}

const char *
hr_version(void)
{
	return HR_VERSION;
}
