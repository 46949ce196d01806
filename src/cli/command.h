/* command.h — commands as tables: options, defaults, help, shell completion and error messages come from one place.
 *
 * What:       a command is a description, a table of options (base/option.h) that are parsed into a struct of its own, and a
 *             function. Options whose value is called FILE or PATH are completed with files.
 * Threads:    tables are constant; parsing happens in the main thread before any other is started.
 * Ownership:  texts in the values live until run() has returned.
 * Errors:     an EXIT_* code; the line on standard error names the option, what was given and what is wanted.
 * Tests:      tests/unit/cli/test_command.c
 */
#ifndef HR_CLI_COMMAND_H
#define HR_CLI_COMMAND_H

#include <stdio.h>

#include "base/option.h"

/* Scripts depend on these; they are in every --help and in headrace(1). */
enum cli_exit {
	CLI_OK = 0,
	CLI_ABSENT = 1,	   /* a miss: not there */
	CLI_USAGE = 2,	   /* the command line is not usable */
	CLI_UNREACHED = 3, /* the store could not be reached, or input or output failed */
	CLI_DAMAGED = 4,   /* damage was found, or bytes that came back were wrong */
	CLI_REFUSED = 5,   /* the store refused: busy, over quota, in use, foreign content */
};

struct cli_example {
	const char *line, *what;
};

struct cli_command {
	const char *name;
	const char *usage;   /* "KEY [FILE]" */
	const char *summary; /* one line */
	const char *text;    /* paragraphs; NULL: none */
	const struct option *options;
	size_t options_count;
	size_t values_bytes;
	unsigned args_min, args_max; /* positional arguments */
	const char *args_choices;    /* words that the first one may be ("ls|drop"), or NULL */
	bool args_files;	     /* completion offers files for positional arguments */
	const struct cli_example *examples;
	size_t examples_count;
	const char *exits; /* lines that differ from the common ones, or NULL */
	int (*run)(const void *values, int argc, char **argv); /* gets the positional arguments */
};

/* All of them, in the order in which `headrace help` lists them. */
extern const struct cli_command *const cli_commands[];
extern const size_t cli_commands_count;

/* The whole program: argv[0] is its name. Returns the exit code. */
int cli_main(int argc, char **argv);

void cli_help(const struct cli_command *command, FILE *out);

/* "headrace: " and the text, on standard error. Returns code. */
HR_PRINTF(2, 3) int cli_fail(int code, const char *fmt, ...);
/* "THING: what is wrong" of the library's error rc and its line, "" when it has none; the line may begin with the thing itself. */
int cli_fail_on(const char *thing, int rc, const char *detail);
/* The exit code that fits a negative error of the library. */
int cli_exit_of_error(int rc);
/* The same for a miss or a refusal. */
int cli_exit_of_reason(int reason);

#endif
