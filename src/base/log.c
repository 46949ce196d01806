/* log.c — lines are made on the caller's stack and handed to the sink under one lock. */
#include "base/log.h"

#include <pthread.h>
#include <stdio.h>
#include <time.h>
#include <unistd.h>

_Atomic int log_level_max = LOG_NONE;

static pthread_mutex_t g_sink_lock = PTHREAD_MUTEX_INITIALIZER;
static log_sink_fn g_sink;
static void *g_sink_arg;

static const char *const level_names[] = {
	[LOG_NONE] = "none", [LOG_ERROR] = "error", [LOG_WARN] = "warn",
	[LOG_INFO] = "info", [LOG_DEBUG] = "debug",
};

void
log_set_sink(log_sink_fn sink, void *arg)
{
	pthread_mutex_lock(&g_sink_lock);
	g_sink = sink;
	g_sink_arg = arg;
	pthread_mutex_unlock(&g_sink_lock);
}

void
log_set_level(enum log_level level)
{
	atomic_store_explicit(&log_level_max, (int)level, memory_order_relaxed);
}

enum log_level
log_get_level(void)
{
	return (enum log_level)atomic_load_explicit(&log_level_max, memory_order_relaxed);
}

int
log_level_parse(const char *text, enum log_level *ret_level, struct errbuf *err)
{
	for (size_t i = 0; i < ARRAY_SIZE(level_names); i++) {
		if (strcmp(level_names[i], text) == 0) {
			*ret_level = (enum log_level)i;
			return 0;
		}
	}
	return errf(err, -EINVAL, "'%.32s' is not a log level (none, error, warn, info, debug)",
		    text);
}

const char *
log_level_name(enum log_level level)
{
	HR_ASSERT((size_t)level < ARRAY_SIZE(level_names));
	return level_names[level];
}

static bool
needs_quotes(const char *value)
{
	if (*value == 0) {
		return true;
	}
	for (; *value != 0; value++) {
		if ((unsigned char)*value <= ' ' || *value == '"' || *value == '\\' ||
		    *value == '=' || *value == 0x7f) {
			return true;
		}
	}
	return false;
}

const char *
log_quote(const char *value, char *ret_text, size_t text_bytes)
{
	size_t len = 0;

	HR_ASSERT(text_bytes >= 16);
	if (!needs_quotes(value)) {
		(void)snprintf(ret_text, text_bytes, "%s", value);
		return ret_text;
	}
	ret_text[len++] = '"';
	/* The longest escape is four bytes; a quote and the end follow. */
	for (; *value != 0 && len + 4 + 2 <= text_bytes; value++) {
		unsigned char c = (unsigned char)*value;

		if (c == '"' || c == '\\') {
			ret_text[len++] = '\\';
			ret_text[len++] = (char)c;
		} else if (c < ' ' || c == 0x7f) {
			len += (size_t)snprintf(ret_text + len, 5, "\\x%02x", c);
		} else {
			ret_text[len++] = (char)c;
		}
	}
	ret_text[len++] = '"';
	ret_text[len] = 0;
	return ret_text;
}

/* True when the line may go out; *ret_suppressed is how many did not before it. Races between threads only blur the count. */
static bool
site_admits(struct log_site *site, uint64_t now_s, uint32_t *ret_suppressed)
{
	uint64_t start_s = atomic_load_explicit(&site->window_start_s, memory_order_relaxed);

	*ret_suppressed = 0;
	if (start_s == 0 || now_s - start_s >= LOG_WINDOW_S) {
		atomic_store_explicit(&site->window_start_s, now_s, memory_order_relaxed);
		atomic_store_explicit(&site->count, 1, memory_order_relaxed);
		*ret_suppressed =
		    atomic_exchange_explicit(&site->suppressed_count, 0, memory_order_relaxed);
		return true;
	}
	if (atomic_fetch_add_explicit(&site->count, 1, memory_order_relaxed) < LOG_BURST) {
		return true;
	}
	atomic_fetch_add_explicit(&site->suppressed_count, 1, memory_order_relaxed);
	return false;
}

static void
sink_write(enum log_level level, char *line, size_t len)
{
	pthread_mutex_lock(&g_sink_lock);
	if (g_sink != NULL) {
		g_sink(g_sink_arg, level, line, len);
	} else {
		line[len] = '\n';
		if (write(STDERR_FILENO, line, len + 1) < 0) {
			/* A log that cannot be written has nowhere to say so. */
		}
	}
	pthread_mutex_unlock(&g_sink_lock);
}

/* vsnprintf() that appends and cuts: returns the new length, at most bytes - 1. */
HR_PRINTF(4, 0)
static size_t
vappend(char *line, size_t len, size_t bytes, const char *fmt, va_list ap)
{
	int n = vsnprintf(line + len, bytes - len, fmt, ap);

	return n < 0 ? len : HR_MIN(len + (size_t)n, bytes - 1);
}

HR_PRINTF(4, 5)
static size_t
append(char *line, size_t len, size_t bytes, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	len = vappend(line, len, bytes, fmt, ap);
	va_end(ap);
	return len;
}

void
log_write(struct log_site *site, enum log_level level, const char *component, const char *event,
	  const char *fmt, ...)
{
	char line[LOG_LINE_BYTES + 1]; /* Room for the newline. */
	uint32_t suppressed_count;
	struct timespec mono, wall;
	int saved_errno = errno;
	struct tm tm;
	size_t len;
	va_list ap;

	clock_gettime(CLOCK_MONOTONIC, &mono);
	if (!site_admits(site, (uint64_t)mono.tv_sec + 1, &suppressed_count)) {
		return;
	}
	clock_gettime(CLOCK_REALTIME, &wall);
	gmtime_r(&wall.tv_sec, &tm);
	len = strftime(line, LOG_LINE_BYTES, "ts=%Y-%m-%dT%H:%M:%S", &tm);
	len = append(line, len, LOG_LINE_BYTES, ".%03ldZ level=%s component=%s event=%s",
		     wall.tv_nsec / 1000000, level_names[level], component, event);
	if (suppressed_count > 0) {
		len = append(line, len, LOG_LINE_BYTES, " suppressed=%u", suppressed_count);
	}
	if (fmt[0] != 0) {
		size_t before = len;

		len = append(line, len, LOG_LINE_BYTES, " ");
		va_start(ap, fmt);
		len = vappend(line, len, LOG_LINE_BYTES, fmt, ap);
		va_end(ap);
		if (len == before + 1) {
			len = before; /* "%s", "" */
			line[len] = 0;
		}
	}
	sink_write(level, line, len);
	errno = saved_errno;
}
