/* cmd_exists.c — headrace exists: which of the keys are there. */
#include <stdlib.h>

#include "cli/block_values.h"
#include "cli/commands.h"

static int
report(const struct block_values *values, char **keys, const struct hr_item *items, int count)
{
	int code = CLI_OK;

	for (int i = 0; i < count; i++) {
		char text[1024 * 4 + 8];
		bool there = items[i].status == HR_STATUS_OK;

		if (items[i].status == HR_STATUS_INVALID) {
			return block_missed(keys[i], &items[i]);
		}
		if (!values->quiet) {
			cli_key_text(keys[i], strlen(keys[i]), text, sizeof(text));
			if (there) {
				printf("%s: %llu bytes\n", text, (unsigned long long)items[i].len);
			} else {
				printf("%s: not there (%s)\n", text,
				       hr_reason_name((int)items[i].reason));
			}
		}
		if (!there) {
			code = HR_MAX(code, cli_exit_of_reason((int)items[i].reason));
		}
	}
	return code;
}

static int
run(const void *values_arg, int argc, char **argv)
{
	const struct block_values *values = values_arg;
	struct hr_submit_options options;
	struct hr_completion completion;
	struct hr_item *items;
	struct store store;
	int rc = block_check(values, argv, argc);

	rc = rc != CLI_OK ? rc : store_open(&values->store, true, &store);
	if (rc != CLI_OK) {
		return rc;
	}
	items = calloc((size_t)argc, sizeof(*items));
	if (items == NULL) {
		rc = cli_fail(CLI_UNREACHED, "out of memory");
		goto out;
	}
	for (int i = 0; rc == CLI_OK && i < argc; i++) {
		rc = block_item(values, argv[i], true, &items[i]);
	}
	block_submit_options(values, &options);
	rc = rc != CLI_OK
		 ? rc
		 : store_batch(&store, HR_OP_EXISTS, items, (uint32_t)argc, &options, &completion);
	if (rc == CLI_OK) {
		rc = report(values, argv, items, argc);
	}
out:
	free(items);
	store_close(&store);
	return rc;
}

static const struct option options[] = {
	BLOCK_OPTIONS,
	BLOCK_ROUTE_OPTION("all shards are asked"),
	OPTION(block_values, quiet, "quiet", OPTION_BOOL, NULL, "only the exit code"),
};
static const struct cli_example examples[] = {
	{ "headrace exists --url tcp:127.0.0.1:7450 greeting",
	  "tells its length, or why it is not there" },
	{ "headrace exists --quiet key1 key2 && echo both", "for scripts" },
};
const struct cli_command cmd_exists = {
	.name = "exists",
	.usage = "KEY…",
	.summary = "tells which keys are there, and how long their blocks are",
	.options = options,
	.options_count = ARRAY_SIZE(options),
	.values_bytes = sizeof(struct block_values),
	.args_min = 1,
	.args_max = HR_BATCH_ITEMS_MAX,
	.examples = examples,
	.examples_count = ARRAY_SIZE(examples),
	.exits = "With several keys: 1 when any of them is not there.",
	.run = run,
};
