/* cmd_format.c — headrace format: makes a device or a file a store. */
#include <headrace/headrace.h>

#include "base/size.h"
#include "cli/blocking.h"
#include "cli/commands.h"

struct format_values {
	uint64_t size_bytes, segment_bytes, shards_count;
	bool force, quiet;
};

static int
run(const void *values_arg, int argc, char **argv)
{
	const struct format_values *values = values_arg;
	struct blocking blocking;
	struct hr_format_options options;
	char detail[HR_DETAIL_BYTES] = "";
	char size[SIZE_TEXT_BYTES];
	int rc;

	(void)argc;
	hr_format_options_init(&options);
	options.size_bytes = values->size_bytes;
	options.segment_bytes = values->segment_bytes;
	options.shards_count = (uint32_t)values->shards_count;
	options.force = values->force;
	options.progress_done = &blocking.done;
	options.progress_total = &blocking.total;
	blocking_start(&blocking, "formatting", values->quiet);
	rc = hr_format(argv[0], &options, detail);
	blocking_end(&blocking);
	if (rc != 0) {
		return cli_fail_on(argv[0], rc, detail);
	}
	if (!values->quiet) {
		printf("%s: formatted%s%s, %llu shard%s\n", argv[0],
		       values->size_bytes != 0 ? ", " : "",
		       values->size_bytes != 0 ? size_format(values->size_bytes, size) : "",
		       (unsigned long long)values->shards_count,
		       values->shards_count == 1 ? "" : "s");
	}
	return CLI_OK;
}

static const struct option options[] = {
	OPTION(format_values, size_bytes, "size", OPTION_SIZE, NULL,
	       "bytes to use (default: the whole block device, or the file's present size)",
	       .value_name = "SIZE"),
	OPTION(
	    format_values, segment_bytes, "segment", OPTION_SIZE, NULL,
	    "segment size: a power of two from 8MiB to 1GiB (default: chosen so that a shard has 256 segments or more where it can)",
	    .value_name = "SIZE"),
	OPTION(format_values, shards_count, "shards", OPTION_UINT, "1",
	       "shards to cut it into; a daemon runs a thread for each", .value_name = "N",
	       .min = 1, .max = 256),
	OPTION(format_values, force, "force", OPTION_BOOL, NULL,
	       "overwrite what is there: foreign content or an existing store"),
	OPTION(format_values, quiet, "quiet", OPTION_BOOL, NULL, "say nothing when it is done"),
};
static const struct cli_example examples[] = {
	{ "headrace format /var/lib/headrace.img --size 8GiB",
	  "a file; it is written in full once" },
	{ "headrace format /dev/nvme1n1 --shards 4", "a whole device, served by four threads" },
};
const struct cli_command cmd_format = {
	.name = "format",
	.usage = "PATH",
	.summary = "makes a device or a file a store",
	.text =
	    "A device or file that carries anything is refused (exit code 5) unless --force is given. A file is written in full once, so that what is stored later is stable when the store says so.",
	.options = options,
	.options_count = ARRAY_SIZE(options),
	.values_bytes = sizeof(struct format_values),
	.args_min = 1,
	.args_max = 1,
	.args_files = true,
	.examples = examples,
	.examples_count = ARRAY_SIZE(examples),
	.run = run,
};
