/* commands.h — the commands, one cmd_*.c each. */
#ifndef HR_CLI_COMMANDS_H
#define HR_CLI_COMMANDS_H

#include "cli/command.h"

extern const struct cli_command cmd_format, cmd_put, cmd_get, cmd_exists, cmd_rm, cmd_ls, cmd_space,
    cmd_stat, cmd_check, cmd_bench, cmd_replay, cmd_plan, cmd_completion, cmd_version;

#endif
