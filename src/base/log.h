/* log.h — one key=value line per event.
 *
 *     #define HR_LOG_COMPONENT "engine"	(before the include, once per .c file)
 *     log_info("segment_sealed", "segment=%u records=%u", seg, count);
 * gives
 *     ts=2026-01-31T12:00:00.123Z level=info component=engine event=segment_sealed segment=7 records=512
 *
 * What:       levels, a component per file, and a limit on each calling line that repeats. Ids always, payloads never.
 * Not here:   counters (metric.h): what happens often is counted, not logged.
 * Threads:    any thread may log; the sink gets whole lines, one at a time. Setting level and sink is for start-up and reload.
 * Ownership:  the line is the sink's until it returns.
 * Limits:     LOG_LINE_BYTES a line, longer ones are cut. A line of code that logs more than LOG_BURST times within
 *             LOG_WINDOW_S is suppressed until the window ends; the next one says suppressed=N. That holds for errors
 *             too, so that a broken device cannot fill a disk.
 * Silent:     the level is LOG_NONE until someone sets it: the library never does, the daemon always.
 * Tests:      tests/unit/base/test_log.c
 */
#ifndef HR_BASE_LOG_H
#define HR_BASE_LOG_H

#include <stdatomic.h>

#include "base/error.h"

enum log_level { LOG_NONE, LOG_ERROR, LOG_WARN, LOG_INFO, LOG_DEBUG };

enum { LOG_LINE_BYTES = 1024, LOG_BURST = 10, LOG_WINDOW_S = 10 };

/* Gets a line without its newline. */
typedef void (*log_sink_fn)(void *arg, enum log_level level, const char *line, size_t len);

/* NULL = standard error, which is the default. */
void log_set_sink(log_sink_fn sink, void *arg);
void log_set_level(enum log_level level);
enum log_level log_get_level(void);

/* "none", "error", "warn", "info", "debug". -EINVAL. */
HR_WARN_UNUSED int log_level_parse(const char *text, enum log_level *ret_level, struct errbuf *err);
const char *log_level_name(enum log_level level);

/* Makes a value safe to stand behind `key=`: quoted if it has blanks, quotes or control bytes, which are escaped; cut to fit.
 * For what comes from outside: paths, names, peers' texts. */
const char *log_quote(const char *value, char *ret_text, size_t text_bytes);
/* The same for an argument of a log call, in memory of its own. */
#define LOG_QUOTED(value) log_quote((value), (char[512]){ "" }, 512)

/* One calling line's memory of how often it spoke. */
struct log_site {
	_Atomic uint64_t window_start_s;
	_Atomic uint32_t count;
	_Atomic uint32_t suppressed_count;
};

extern _Atomic int log_level_max;

HR_PRINTF(5, 6)
void log_write(struct log_site *site, enum log_level level, const char *component,
	       const char *event, const char *fmt, ...);

#ifndef HR_LOG_COMPONENT
#define HR_LOG_COMPONENT "headrace"
#endif

#define LOG_AT(level, event, ...)                                                                  \
	do {                                                                                       \
		static struct log_site log_site_;                                                  \
		if (unlikely(atomic_load_explicit(&log_level_max, memory_order_relaxed) >=         \
			     (int)(level))) {                                                      \
			log_write(&log_site_, (level), HR_LOG_COMPONENT, (event), __VA_ARGS__);    \
		}                                                                                  \
	} while (0)

/* The format is never empty: an event without values passes "%s", "". */
#define log_error(event, ...) LOG_AT(LOG_ERROR, event, __VA_ARGS__)
#define log_warn(event, ...) LOG_AT(LOG_WARN, event, __VA_ARGS__)
#define log_info(event, ...) LOG_AT(LOG_INFO, event, __VA_ARGS__)
#define log_debug(event, ...) LOG_AT(LOG_DEBUG, event, __VA_ARGS__)

#endif
