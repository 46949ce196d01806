/* cmd_rm.c — headrace rm: removes blocks, on all shards unless a route is given. */
#include <stdlib.h>

#include "cli/block_values.h"
#include "cli/commands.h"

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
		 : store_batch(&store, HR_OP_DELETE, items, (uint32_t)argc, &options, &completion);
	for (int i = 0, asked = rc == CLI_OK ? argc : 0; i < asked; i++) {
		if (items[i].status != HR_STATUS_OK) {
			int code = block_missed(argv[i], &items[i]);

			rc = HR_MAX(rc, code);
		}
	}
out:
	free(items);
	store_close(&store);
	return rc;
}

static const struct option options[] = {
	BLOCK_OPTIONS,
	BLOCK_ROUTE_OPTION("it is removed on all shards"),
	BLOCK_ACK_OPTION(
	    "when it is done: ram (gone, may come back after a power loss) or stable (gone for good)"),
};
static const struct cli_example examples[] = {
	{ "headrace rm --url tcp:127.0.0.1:7450 greeting", "removes one block" },
	{ "headrace rm --ack stable key1 key2", "done when they stay removed after a power loss" },
};
const struct cli_command cmd_rm = {
	.name = "rm",
	.usage = "KEY…",
	.summary = "removes blocks",
	.options = options,
	.options_count = ARRAY_SIZE(options),
	.values_bytes = sizeof(struct block_values),
	.args_min = 1,
	.args_max = HR_BATCH_ITEMS_MAX,
	.examples = examples,
	.examples_count = ARRAY_SIZE(examples),
	.exits = "1 when a key was not there.",
	.run = run,
};
