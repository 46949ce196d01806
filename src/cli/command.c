/* command.c — see command.h. */
#include "cli/command.h"

#include <errno.h>
#include <headrace/headrace.h>
#include <stdarg.h>
#include <stdlib.h>

enum { WRAP_COLUMNS = 96 };

int
cli_fail(int code, const char *fmt, ...)
{
	va_list args;

	va_start(args, fmt);
	fflush(stdout);
	fputs("headrace: ", stderr);
	vfprintf(stderr, fmt, args);
	fputc('\n', stderr);
	va_end(args);
	return code;
}

int
cli_fail_on(const char *thing, int rc, const char *detail)
{
	bool named = strncmp(detail, thing, strlen(thing)) == 0;

	return cli_fail(cli_exit_of_error(rc), "%s%s%s", named ? "" : thing, named ? "" : ": ",
			detail[0] != '\0' ? detail : hr_strerror(rc));
}

int
cli_exit_of_error(int rc)
{
	switch (rc < 0 ? -rc : rc) {
	case EINVAL:
	case HR_EURL:
		return CLI_USAGE;
	case HR_ECORRUPT:
		return CLI_DAMAGED;
	case HR_EFOREIGN:
	case HR_EINUSE:
	case HR_EAUTH:
	case HR_ESIZE:
	case HR_EVERSION:
	case HR_EFULL:
		return CLI_REFUSED;
	default:
		return CLI_UNREACHED;
	}
}

int
cli_exit_of_reason(int reason)
{
	switch (reason) {
	case HR_REASON_CORRUPT:
		return CLI_DAMAGED;
	case HR_REASON_DOWN:
	case HR_REASON_DEADLINE:
	case HR_REASON_CANCELLED:
		return CLI_UNREACHED;
	case HR_REASON_BUSY:
	case HR_REASON_QUOTA:
		return CLI_REFUSED;
	default:
		return CLI_ABSENT;
	}
}

/* -- one command ---------------------------------------------------------------------------------------------------------- */

static bool
word_is_one_of(const char *choices, const char *word)
{
	size_t len = strlen(word);

	for (const char *at = choices; at != NULL; at = strchr(at, '|')) {
		at += *at == '|';
		if (strncmp(at, word, len) == 0 && (at[len] == '|' || at[len] == '\0') && len > 0) {
			return true;
		}
	}
	return false;
}

static int
check_args(const struct cli_command *command, int argc, char **argv)
{
	if (argc > 0 && command->args_choices != NULL &&
	    !word_is_one_of(command->args_choices, argv[0])) {
		return cli_fail(CLI_USAGE, "%s: \"%s\" is none of %s", command->name, argv[0],
				command->args_choices);
	}
	if (argc < (int)command->args_min) {
		return cli_fail(CLI_USAGE,
				"%s: something is missing; usage: headrace %s [options] %s",
				command->name, command->name, command->usage);
	}
	if (argc > (int)command->args_max) {
		return cli_fail(CLI_USAGE,
				"%s: \"%s\" is one too many; usage: headrace %s [options] %s",
				command->name, argv[command->args_max], command->name,
				command->usage);
	}
	return CLI_OK;
}

/* argv[0] is the command's name. */
static int
run_command(const struct cli_command *command, int argc, char **argv)
{
	void *values = calloc(1, command->values_bytes + 1);
	struct errbuf err = { "" };
	struct option_set set;
	int rc, count = 0;

	if (values == NULL ||
	    option_set_init(&set, command->options, command->options_count, values, &err) != 0) {
		free(values);
		return cli_fail(CLI_USAGE, "%s: %s", command->name,
				err.text[0] != '\0' ? err.text : "no memory");
	}
	rc = option_parse(&set, argc, argv, &count, &err);
	if (rc == OPTION_WANTS_HELP) {
		cli_help(command, stdout);
		rc = CLI_OK;
	} else if (rc == OPTION_WANTS_VERSION) {
		printf("headrace %s\n", hr_version());
		rc = CLI_OK;
	} else if (rc != OPTION_PARSED) {
		rc = cli_fail(CLI_USAGE, "%s: %s (headrace %s --help)", command->name, err.text,
			      command->name);
	} else {
		rc = check_args(command, count, argv + 1);
		rc = rc != CLI_OK ? rc : command->run(values, count, argv + 1);
	}
	option_set_fini(&set);
	free(values);
	/* What could not be written was not said: a full disk behind `headrace get > FILE` is a failure. */
	if ((fflush(stdout) != 0 || ferror(stdout) != 0) && rc == CLI_OK) {
		rc = cli_fail(CLI_UNREACHED, "standard output: %s", strerror(errno));
	}
	return rc;
}

/* -- help ---------------------------------------------------------------------------------------------------------------- */

/* Columns that a text of UTF-8 takes, near enough. */
static size_t
columns(const char *text, size_t len)
{
	size_t count = 0;

	for (size_t i = 0; i < len; i++) {
		count += ((unsigned char)text[i] & 0xc0) != 0x80;
	}
	return count;
}

/* Words wrapped at WRAP_COLUMNS; the cursor stands at `indent` already; a newline in the text stays one. */
static void
print_wrapped(FILE *out, const char *text, size_t indent)
{
	size_t column = indent;

	while (*text != '\0') {
		size_t len = strcspn(text, " \n");
		size_t wide = columns(text, len);

		if (column > indent && column + 1 + wide > WRAP_COLUMNS) {
			fprintf(out, "\n%*s", (int)indent, "");
			column = indent;
		} else if (column > indent) {
			fputc(' ', out);
			column++;
		}
		fwrite(text, 1, len, out);
		column += wide;
		text += len;
		if (*text == '\n') {
			fprintf(out, "\n%*s", (int)indent, "");
			column = indent;
		}
		text += *text != '\0';
	}
	fputc('\n', out);
}

void
cli_help(const struct cli_command *command, FILE *out)
{
	const struct option_set set = { .options = command->options,
					.count = command->options_count };

	fprintf(out, "headrace %s: %s\n\nusage: headrace %s [options] %s\n", command->name,
		command->summary, command->name, command->usage);
	if (command->text != NULL) {
		fputc('\n', out);
		print_wrapped(out, command->text, 0);
	}
	fputs("\noptions:\n", out);
	option_help_print(&set, out);
	if (command->examples_count > 0) {
		fputs("\nexamples:\n", out);
	}
	for (size_t i = 0; i < command->examples_count; i++) {
		fprintf(out, "  %s\n      %s\n", command->examples[i].line,
			command->examples[i].what);
	}
	fputs("\nexit codes: 0 OK; 1 not there (a miss); 2 the command line is not usable; 3 the store could not\n"
	      "be reached, or input or output failed; 4 damage was found, or wrong bytes came back;\n"
	      "5 the store refused (busy, over quota, in use, foreign content).\n",
	      out);
	if (command->exits != NULL) {
		print_wrapped(out, command->exits, 0);
	}
}

static void
program_help(FILE *out)
{
	fputs("headrace: put KV-cache blocks into a store, get them back, and see what the store does\n\n"
	      "usage: headrace COMMAND [options] …\n\ncommands:\n",
	      out);
	for (size_t i = 0; i < cli_commands_count; i++) {
		fprintf(out, "  %-12s%s\n", cli_commands[i]->name, cli_commands[i]->summary);
	}
	fputs("\n`headrace COMMAND --help` tells its options, with examples. Stores are named by URLs:\n"
	      "  file:PATH?size=8GiB&dram=1GiB   inside this process; made when it is first opened\n"
	      "  unix:PATH                       a headraced on this host\n"
	      "  tcp:HOST:PORT[,HOST:PORT…]      a headraced anywhere\n"
	      "Without --url, $HEADRACE_URL is used.\n",
	      out);
}

/* -- the program --------------------------------------------------------------------------------------------------------- */

static const struct cli_command *
find_command(const char *name)
{
	for (size_t i = 0; i < cli_commands_count; i++) {
		if (strcmp(cli_commands[i]->name, name) == 0) {
			return cli_commands[i];
		}
	}
	return NULL;
}

static int
unknown_command(const char *name)
{
	const char *names[64];
	const char *nearest;
	size_t count = 0;

	for (; count < cli_commands_count && count < ARRAY_SIZE(names); count++) {
		names[count] = cli_commands[count]->name;
	}
	nearest = nearest_name(name, names, count);
	if (nearest != NULL) {
		return cli_fail(CLI_USAGE, "unknown command \"%s\"; did you mean %s?", name,
				nearest);
	}
	return cli_fail(CLI_USAGE, "unknown command \"%s\"; `headrace help` lists the commands",
			name);
}

static int
print_help_of(const char *name)
{
	const struct cli_command *command = find_command(name);

	if (command == NULL) {
		return unknown_command(name);
	}
	cli_help(command, stdout);
	return CLI_OK;
}

int
cli_main(int argc, char **argv)
{
	const struct cli_command *command;

	if (argc < 2) {
		program_help(stderr);
		return CLI_USAGE;
	}
	if (strcmp(argv[1], "--version") == 0) {
		argv[1] = (char *)"version";
	}
	if (strcmp(argv[1], "help") == 0 || strcmp(argv[1], "--help") == 0 ||
	    strcmp(argv[1], "-h") == 0) {
		if (argc > 2) {
			return print_help_of(argv[2]);
		}
		program_help(stdout);
		return CLI_OK;
	}
	command = find_command(argv[1]);
	if (command == NULL) {
		return unknown_command(argv[1]);
	}
	return run_command(command, argc - 1, argv + 1);
}
