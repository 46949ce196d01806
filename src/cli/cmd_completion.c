/* cmd_completion.c — headrace completion: scripts for bash, zsh and fish, made from the tables of the commands. */
#include "cli/commands.h"

/* "a|b|c" as words with a blank between. */
static void
print_words(const char *choices)
{
	for (; *choices != '\0'; choices++) {
		putchar(*choices == '|' ? ' ' : *choices);
	}
}

static const char *
value_name(const struct option *option)
{
	return option->value_name != NULL ? option->value_name : "value";
}

static bool
takes_a_file(const struct option *option)
{
	return strncmp(value_name(option), "FILE", 4) == 0 ||
	       strcmp(value_name(option), "PATH") == 0;
}

static void
bash_option_values(const struct cli_command *command)
{
	for (size_t i = 0; i < command->options_count; i++) {
		const struct option *option = &command->options[i];

		if (option->type == OPTION_BOOL) {
			continue;
		}
		printf("\t%s:--%s) ", command->name, option->name);
		if (option->type == OPTION_CHOICE) {
			fputs("COMPREPLY=($(compgen -W '", stdout);
			print_words(option->choices);
			fputs("' -- \"$cur\"))", stdout);
		} else {
			fputs(takes_a_file(option) ? "COMPREPLY=($(compgen -f -- \"$cur\"))"
						   : "COMPREPLY=()",
			      stdout);
		}
		fputs("; return ;;\n", stdout);
	}
}

static void
bash_words_of(const struct cli_command *command)
{
	printf("\t%s) words='", command->name);
	for (size_t i = 0; i < command->options_count; i++) {
		printf("--%s ", command->options[i].name);
	}
	fputs("--help'", stdout);
	if (command->args_choices != NULL) {
		fputs("; args='", stdout);
		print_words(command->args_choices);
		fputs("'", stdout);
	}
	if (command->args_files) {
		fputs("; files=1", stdout);
	}
	fputs(" ;;\n", stdout);
}

static void
print_bash(void)
{
	fputs("# Completion of headrace for bash; made by `headrace completion bash`.\n"
	      "_headrace()\n{\n"
	      "\tlocal cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD-1]}\n"
	      "\tlocal command=${COMP_WORDS[1]} words= args= files=\n"
	      "\tif [ \"$COMP_CWORD\" = 1 ]; then\n\t\tCOMPREPLY=($(compgen -W 'help",
	      stdout);
	for (size_t i = 0; i < cli_commands_count; i++) {
		printf(" %s", cli_commands[i]->name);
	}
	fputs("' -- \"$cur\"))\n\t\treturn\n\tfi\n\tcase $command:$prev in\n", stdout);
	for (size_t i = 0; i < cli_commands_count; i++) {
		bash_option_values(cli_commands[i]);
	}
	fputs("\tesac\n\tcase $command in\n", stdout);
	for (size_t i = 0; i < cli_commands_count; i++) {
		bash_words_of(cli_commands[i]);
	}
	fputs("\tesac\n"
	      "\tcase $cur in\n"
	      "\t-*) COMPREPLY=($(compgen -W \"$words\" -- \"$cur\")) ;;\n"
	      "\t*) COMPREPLY=($(compgen -W \"$args\" -- \"$cur\") ${files:+$(compgen -f -- \"$cur\")}) ;;\n"
	      "\tesac\n}\ncomplete -o filenames -F _headrace headrace\n",
	      stdout);
}

/* A text inside '…' of a shell, without what zsh's specifications give a meaning. */
static void
print_plain(const char *text)
{
	for (; *text != '\0'; text++) {
		if (strchr("'[]:\\", *text) == NULL) {
			putchar(*text);
		}
	}
}

static void
zsh_option(const struct option *option)
{
	printf(" \\\n\t\t'--%s", option->name);
	fputs(option->type == OPTION_BOOL ? "[" : "=[", stdout);
	print_plain(option->help);
	putchar(']');
	if (option->type != OPTION_BOOL) {
		printf(":%s:", value_name(option));
		if (option->type == OPTION_CHOICE) {
			putchar('(');
			print_words(option->choices);
			putchar(')');
		} else if (takes_a_file(option)) {
			fputs("_files", stdout);
		}
	}
	putchar('\'');
}

static void
print_zsh(void)
{
	fputs("#compdef headrace\n# Made by `headrace completion zsh`.\n"
	      "_headrace() {\n\tlocal -a commands\n\tcommands=(\n",
	      stdout);
	for (size_t i = 0; i < cli_commands_count; i++) {
		printf("\t\t'%s:", cli_commands[i]->name);
		print_plain(cli_commands[i]->summary);
		fputs("'\n", stdout);
	}
	fputs("\t)\n\tif (( CURRENT == 2 )); then\n\t\t_describe command commands\n\t\treturn\n\tfi\n"
	      "\tlocal command=$words[2]\n\tshift words; (( CURRENT-- ))\n\tcase $command in\n",
	      stdout);
	for (size_t i = 0; i < cli_commands_count; i++) {
		const struct cli_command *command = cli_commands[i];

		printf("\t%s) _arguments '--help[this text]'", command->name);
		for (size_t k = 0; k < command->options_count; k++) {
			zsh_option(&command->options[k]);
		}
		if (command->args_choices != NULL) {
			fputs(" \\\n\t\t'1:what:(", stdout);
			print_words(command->args_choices);
			fputs(")'", stdout);
		} else if (command->args_files) {
			fputs(" \\\n\t\t'*:file:_files'", stdout);
		}
		fputs(" ;;\n", stdout);
	}
	fputs("\tesac\n}\n_headrace \"$@\"\n", stdout);
}

static void
print_fish(void)
{
	fputs("# Completion of headrace for fish; made by `headrace completion fish`.\n"
	      "complete -c headrace -n __fish_use_subcommand -f -a help -d 'help'\n",
	      stdout);
	for (size_t i = 0; i < cli_commands_count; i++) {
		const struct cli_command *command = cli_commands[i];

		printf("complete -c headrace -n __fish_use_subcommand -f -a %s -d '", command->name);
		print_plain(command->summary);
		fputs("'\n", stdout);
		for (size_t k = 0; k < command->options_count; k++) {
			const struct option *option = &command->options[k];

			printf("complete -c headrace -n '__fish_seen_subcommand_from %s' -l %s",
			       command->name, option->name);
			if (option->type == OPTION_CHOICE) {
				fputs(" -x -a '", stdout);
				print_words(option->choices);
				putchar('\'');
			} else if (option->type != OPTION_BOOL) {
				fputs(takes_a_file(option) ? " -r" : " -x", stdout);
			}
			fputs(" -d '", stdout);
			print_plain(option->help);
			fputs("'\n", stdout);
		}
	}
}

static int
run(const void *values, int argc, char **argv)
{
	(void)values;
	(void)argc;
	if (strcmp(argv[0], "bash") == 0) {
		print_bash();
	} else if (strcmp(argv[0], "zsh") == 0) {
		print_zsh();
	} else {
		print_fish();
	}
	return CLI_OK;
}

static const struct cli_example examples[] = {
	{ "headrace completion bash > /etc/bash_completion.d/headrace", "for all users" },
	{ "source <(headrace completion bash)", "for this shell" },
};
const struct cli_command cmd_completion = {
	.name = "completion",
	.usage = "bash | zsh | fish",
	.summary = "prints a completion script for a shell",
	.args_min = 1,
	.args_max = 1,
	.args_choices = "bash|zsh|fish",
	.examples = examples,
	.examples_count = ARRAY_SIZE(examples),
	.run = run,
};
