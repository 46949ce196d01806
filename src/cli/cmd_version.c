/* cmd_version.c — headrace version. */
#include <headrace/headrace.h>

#include "cli/commands.h"

static int
run(const void *values, int argc, char **argv)
{
	(void)values;
	(void)argc;
	(void)argv;
	printf("headrace %s\n", hr_version());
	return CLI_OK;
}

const struct cli_command cmd_version = {
	.name = "version",
	.usage = "",
	.summary = "prints the version",
	.run = run,
};
