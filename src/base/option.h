/* option.h — options as one table: command line, configuration file, environment, defaults, --help.
 *
 * What:       a program describes its options once, each with the place of its value in a struct; parsing, defaults, help, "where
 *             does this value come from" and shell completion come from the table.
 * Not here:   reading YAML (server/): it ends in option_assign() per key.
 * Threads:    a set belongs to one thread.
 * Ownership:  strings and lists in the values struct are the set's; option_set_fini() frees them. Tables are static.
 * Errors:     -EINVAL with one line that names the option, what was given and what is wanted; -ENOMEM.
 * Invariants: O1 a later source overrides an earlier one: default < environment < configuration < command line.
 *             O2 a value that fails leaves the one before it.
 *             O3 the first value of a list from a stronger source replaces what weaker ones gave; more add to it.
 * Tests:      tests/unit/base/test_option.c
 */
#ifndef HR_BASE_OPTION_H
#define HR_BASE_OPTION_H

#include <stdio.h>

#include "base/error.h"

enum option_type {
	OPTION_BOOL, /* bool; --name, --no-name, or true/false, yes/no, on/off, 1/0 behind '=' */
	OPTION_UINT, /* uint64_t, decimal or 0x… */
	OPTION_SIZE, /* uint64_t bytes (size.h) */
	OPTION_DURATION, /* uint64_t microseconds */
	OPTION_BITRATE,	 /* uint64_t bits per second */
	OPTION_DOUBLE,	 /* double */
	OPTION_STRING,	 /* char *, NULL when not given */
	OPTION_LIST,	 /* struct option_list; repeat the option, or separate by commas */
	OPTION_CHOICE,	 /* int: position in `choices` */
};

enum option_origin { OPTION_FROM_DEFAULT, OPTION_FROM_ENV, OPTION_FROM_CONFIG, OPTION_FROM_CLI };

enum {
	OPTION_HIDDEN = 1u << 0, /* Not in --help. */
	OPTION_LIVE = 1u << 1,	 /* A reload applies it; the others need a restart. */
};

struct option_list {
	char **items;
	size_t count;
};

struct option {
	const char *name; /* long name, words joined by '-' */
	char letter;	  /* short name or 0 */
	enum option_type type;
	size_t offset;		  /* of the value in the values struct */
	const char *default_text; /* as a user would write it; NULL: zero, NULL, empty */
	const char *help;	  /* one line, no full stop */
	const char *value_name;	  /* for --help: "PATH"; NULL: by type */
	const char *env;	  /* environment variable that gives it, or NULL */
	const char *choices;	  /* OPTION_CHOICE: "ram|stable|replicated" */
	uint64_t min, max;	  /* bounds of the integer kinds; max 0 = none */
	unsigned flags;
};

#define OPTION(struct_name, field, name_, type_, default_, help_, ...)                             \
	{                                                                                          \
		.name = (name_), .type = (type_), .offset = offsetof(struct struct_name, field),   \
		.default_text = (default_), .help = (help_), __VA_ARGS__                           \
	}

struct option_set {
	const struct option *options;
	size_t count;
	void *values;
	uint8_t *origins; /* enum option_origin per option */
};

/* Defaults, then the environment. `values` is cleared first. */
HR_WARN_UNUSED int option_set_init(struct option_set *set, const struct option *options,
				   size_t count, void *values, struct errbuf *err);
void option_set_fini(struct option_set *set);

/* One value by name, from a configuration file for instance; '_' and '-' in names are the same. A weaker source than the one
 * that gave the present value is accepted and changes nothing. Unknown: -EINVAL, and the line says the nearest name. */
HR_WARN_UNUSED int option_assign(struct option_set *set, const char *name, const char *text,
				 enum option_origin origin, struct errbuf *err);

/* What option_parse() came to. */
enum { OPTION_PARSED = 0, OPTION_WANTS_HELP = 1, OPTION_WANTS_VERSION = 2 };

/* Parses argv[1 … argc - 1]: --name VALUE, --name=VALUE, -x VALUE, -xVALUE, flags together (-ab); options and operands in any
 * order, "--" ends the options, "-" is an operand. Operands are moved to the front of argv + 1, in order; their number is in
 * *ret_operands_count. --help/-h and --version are understood always. */
HR_WARN_UNUSED int option_parse(struct option_set *set, int argc, char **argv,
				int *ret_operands_count, struct errbuf *err);

/* The table as the lower half of a --help page. */
void option_help_print(const struct option_set *set, FILE *out);

/* The present value as a user would write it; lists joined by commas; "" for a string that is not there. */
const char *
option_value_format(const struct option_set *set, size_t i, char *ret_text, size_t text_bytes);

enum option_origin option_origin_get(const struct option_set *set, const char *name);
const char *option_origin_name(enum option_origin origin);

/* One "--name" a line, for shell completion. */
void option_names_print(const struct option_set *set, FILE *out);

/* The candidate that differs least from `name` (Levenshtein), if that is near enough to be meant; else NULL. */
const char *nearest_name(const char *name, const char *const *candidates, size_t count);

#endif
