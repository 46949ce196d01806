/* cmd_stat.c — headrace stat: what a store does, once or live. */
#include <jansson.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#include "cli/commands.h"
#include "cli/progress.h"
#include "cli/stat_summary.h"
#include "cli/stat_text.h"
#include "cli/store.h"

struct stat_values {
	struct store_values store;
	uint64_t watch_us, count;
	bool json, all;
};

static int
look(const struct store *store, json_t **ret_stat)
{
	char *text;
	int rc = hr_stat_json(store->client, store->timeout_ms, &text);

	if (rc != 0) {
		return store_fail(store, rc, "asking for statistics");
	}
	*ret_stat = json_loads(text, 0, NULL);
	free(text);
	if (*ret_stat == NULL) {
		return cli_fail(CLI_UNREACHED, "%s: the statistics are not JSON", store->url);
	}
	return CLI_OK;
}

static void
show(const struct stat_values *values, const json_t *now, const json_t *before, double seconds)
{
	if (values->json) {
		/* One object a line when there are several, so that a reader can tell them apart. */
		json_dumpf(now, stdout, values->watch_us != 0 ? JSON_COMPACT : JSON_INDENT(2));
		putchar('\n');
	} else {
		if (values->watch_us != 0 && isatty(STDOUT_FILENO)) {
			fputs("\033[H\033[2J", stdout);
		}
		if (values->all) {
			stat_text_print(now, before, seconds, stdout);
		} else {
			stat_summary_print(now, before, seconds, stdout);
		}
		if (values->watch_us != 0 && !isatty(STDOUT_FILENO)) {
			putchar('\n');
		}
	}
	fflush(stdout);
}

static int
watch(const struct stat_values *values, const struct store *store)
{
	json_t *before = NULL, *now = NULL;
	uint64_t before_us = 0;
	int rc;

	for (uint64_t i = 0;; i++) {
		const struct timespec pause = { .tv_sec = (time_t)(values->watch_us / 1000000),
						.tv_nsec = (long)(values->watch_us % 1000000) *
							   1000 };
		uint64_t now_us = cli_now_us();

		rc = look(store, &now);
		if (rc != CLI_OK) {
			break;
		}
		show(values, now, before, before == NULL ? 0 : (double)(now_us - before_us) / 1e6);
		json_decref(before);
		before = now;
		before_us = now_us;
		if (values->watch_us == 0 || (values->count != 0 && i + 1 >= values->count) ||
		    ferror(stdout) != 0) {
			break;
		}
		nanosleep(&pause, NULL);
	}
	json_decref(before);
	return rc;
}

static int
run(const void *values_arg, int argc, char **argv)
{
	const struct stat_values *values = values_arg;
	struct store store;
	int rc = store_open(&values->store, false, &store);

	(void)argc;
	(void)argv;
	if (rc != CLI_OK) {
		return rc;
	}
	rc = watch(values, &store);
	store_close(&store);
	return rc;
}

static const struct option options[] = {
	STORE_URL_OPTIONS(stat_values, store),
	OPTION(stat_values, json, "json", OPTION_BOOL, NULL,
	       "print one JSON object (with --watch: one a line)"),
	OPTION(stat_values, watch_us, "watch", OPTION_DURATION, NULL,
	       "look again and again at this interval, with rates, until Ctrl-C (default: once)",
	       .min = 1000),
	OPTION(stat_values, count, "count", OPTION_UINT, NULL,
	       "with --watch: end after so many looks (default: never)", .min = 1),
	OPTION(stat_values, all, "all", OPTION_BOOL, NULL,
	       "show every counter (docs/ops/stat.md), instead of a summary"),
};
static const struct cli_example examples[] = {
	{ "headrace stat --url tcp:127.0.0.1:7450",
	  "a summary: room, hits, misses, queues, problems, spaces" },
	{ "headrace stat --watch 1s", "live, of the store in $HEADRACE_URL" },
	{ "headrace stat --url unix:/run/headrace.sock --json | jq .", "for scripts" },
};
const struct cli_command cmd_stat = {
	.name = "stat",
	.usage = "",
	.summary = "shows what a store does, once or live",
	.options = options,
	.options_count = ARRAY_SIZE(options),
	.values_bytes = sizeof(struct stat_values),
	.examples = examples,
	.examples_count = ARRAY_SIZE(examples),
	.run = run,
};
