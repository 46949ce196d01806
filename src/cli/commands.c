/* commands.c — the commands there are. */
#include "cli/commands.h"

/* clang-format off */
const struct cli_command *const cli_commands[] = {
	&cmd_format,
	&cmd_put,
	&cmd_get,
	&cmd_exists,
	&cmd_rm,
	&cmd_ls,
	&cmd_space,
	&cmd_stat,
	&cmd_check,
	&cmd_bench,
	&cmd_replay,
	&cmd_plan,
	&cmd_completion,
	&cmd_version,
};
/* clang-format on */
const size_t cli_commands_count = ARRAY_SIZE(cli_commands);
