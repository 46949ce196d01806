/* option.c — tables of options; see option.h. */
#include "base/option.h"

#include <ctype.h>
#include <stdlib.h>
#include <strings.h>

#include "base/size.h"

enum { NAME_BYTES_MAX = 64, HELP_COLUMN = 34, HELP_WIDTH = 100, OPTIONS_COUNT_MAX = 256 };

static void *
value_at(const struct option_set *set, const struct option *option)
{
	return (uint8_t *)set->values + option->offset;
}

static void
list_clear(struct option_list *list)
{
	for (size_t i = 0; i < list->count; i++) {
		free(list->items[i]);
	}
	free(list->items);
	list->items = NULL;
	list->count = 0;
}

/* Splits at commas. On failure the list is as it was. */
static int
list_append(struct option_list *list, const char *text)
{
	size_t count_before = list->count;

	while (*text != 0) {
		size_t len = strcspn(text, ",");

		if (len > 0) {
			char **items = reallocarray(list->items, list->count + 1, sizeof(*items));

			if (items == NULL) {
				goto out_undo;
			}
			list->items = items;
			items[list->count] = strndup(text, len);
			if (items[list->count] == NULL) {
				goto out_undo;
			}
			list->count++;
		}
		text += len;
		text += *text == ',';
	}
	return 0;
out_undo:
	while (list->count > count_before) {
		free(list->items[--list->count]);
	}
	return -ENOMEM;
}

static int
bool_parse(const char *text, bool *ret)
{
	static const char *const yes[] = { "true", "yes", "on", "1" };
	static const char *const no[] = { "false", "no", "off", "0" };

	for (size_t i = 0; i < ARRAY_SIZE(yes); i++) {
		if (strcasecmp(text, yes[i]) == 0) {
			*ret = true;
			return 0;
		}
		if (strcasecmp(text, no[i]) == 0) {
			*ret = false;
			return 0;
		}
	}
	return -EINVAL;
}

static int
uint_parse(const char *text, uint64_t *ret)
{
	char *end;

	if (!isdigit((unsigned char)*text)) {
		return -EINVAL;
	}
	errno = 0;
	*ret = strtoull(text, &end, strncmp(text, "0x", 2) == 0 ? 16 : 10);
	return *end != 0 ? -EINVAL : -errno;
}

/* Position of text among "a|b|c", or -1. */
static int
choice_find(const char *choices, const char *text)
{
	size_t text_len = strlen(text);

	for (int i = 0;; i++) {
		size_t len = strcspn(choices, "|");

		if (len == text_len && strncmp(choices, text, len) == 0) {
			return i;
		}
		if (choices[len] == 0) {
			return -1;
		}
		choices += len + 1;
	}
}

static void
choice_copy(const char *choices, int position, char *ret_text, size_t text_bytes)
{
	while (position-- > 0) {
		choices += strcspn(choices, "|") + 1;
	}
	(void)snprintf(ret_text, text_bytes, "%.*s", (int)strcspn(choices, "|"), choices);
}

/* A number of one of the integer kinds, as its option writes it. */
static const char *
number_format(enum option_type type, uint64_t value, char ret_text[SIZE_TEXT_BYTES])
{
	switch (type) {
	case OPTION_SIZE:
		return size_format(value, ret_text);
	case OPTION_DURATION:
		return duration_format(value, ret_text);
	case OPTION_BITRATE:
		return bitrate_format(value, ret_text);
	default:
		(void)snprintf(ret_text, SIZE_TEXT_BYTES, "%llu", (unsigned long long)value);
		return ret_text;
	}
}

static int
number_set(const struct option *option, uint64_t *value, const char *text, struct errbuf *err)
{
	struct errbuf why = { "" };
	char bound[SIZE_TEXT_BYTES];
	uint64_t parsed;
	int rc;

	switch (option->type) {
	case OPTION_SIZE:
		rc = size_parse(text, &parsed, &why);
		break;
	case OPTION_DURATION:
		rc = duration_parse(text, &parsed, &why);
		break;
	case OPTION_BITRATE:
		rc = bitrate_parse(text, &parsed, &why);
		break;
	default:
		rc = uint_parse(text, &parsed);
		(void)errf(&why, 0, "'%.64s' is not a number", text);
		break;
	}
	if (rc != 0) {
		return errf(err, -EINVAL, "%s: %.180s", option->name, why.text);
	}
	if (parsed < option->min) {
		return errf(err, -EINVAL, "%s: '%.64s' is too small, at least %s is wanted",
			    option->name, text, number_format(option->type, option->min, bound));
	}
	if (option->max != 0 && parsed > option->max) {
		return errf(err, -EINVAL, "%s: '%.64s' is too large, at most %s is wanted",
			    option->name, text, number_format(option->type, option->max, bound));
	}
	*value = parsed;
	return 0;
}

static int
double_set(const struct option *option, double *value, const char *text, struct errbuf *err)
{
	char *end;
	double parsed = strtod(text, &end);

	if (end == text || *end != 0 || parsed != parsed) {
		return errf(err, -EINVAL, "%s: '%.64s' is not a number", option->name, text);
	}
	*value = parsed;
	return 0;
}

static int
value_set(const struct option_set *set, const struct option *option, const char *text,
	  bool replace_list, struct errbuf *err)
{
	void *value = value_at(set, option);
	struct option_list made = { 0 };
	char *copy;
	int position;
	int rc;

	switch (option->type) {
	case OPTION_BOOL:
		if (bool_parse(text, value) != 0) {
			return errf(err, -EINVAL, "%s: '%.64s' is not true or false", option->name,
				    text);
		}
		return 0;
	case OPTION_DOUBLE:
		return double_set(option, value, text, err);
	case OPTION_STRING:
		copy = strdup(text);
		if (copy == NULL) {
			return errf(err, -ENOMEM, "%s: no memory", option->name);
		}
		free(*(char **)value);
		*(char **)value = copy;
		return 0;
	case OPTION_LIST:
		rc = list_append(replace_list ? &made : value, text);
		if (rc != 0) {
			list_clear(&made);
			return errf(err, rc, "%s: no memory", option->name);
		}
		if (replace_list) {
			list_clear(value);
			*(struct option_list *)value = made;
		}
		return 0;
	case OPTION_CHOICE:
		position = choice_find(option->choices, text);
		if (position < 0) {
			return errf(err, -EINVAL, "%s: '%.64s' is not one of %s", option->name,
				    text, option->choices);
		}
		*(int *)value = position;
		return 0;
	default:
		return number_set(option, value, text, err);
	}
}

static void
value_clear(const struct option_set *set, const struct option *option)
{
	switch (option->type) {
	case OPTION_STRING:
		free(*(char **)value_at(set, option));
		*(char **)value_at(set, option) = NULL;
		break;
	case OPTION_LIST:
		list_clear(value_at(set, option));
		break;
	default:
		break;
	}
}

static size_t
value_bytes(enum option_type type)
{
	switch (type) {
	case OPTION_BOOL:
		return sizeof(bool);
	case OPTION_DOUBLE:
		return sizeof(double);
	case OPTION_STRING:
		return sizeof(char *);
	case OPTION_LIST:
		return sizeof(struct option_list);
	case OPTION_CHOICE:
		return sizeof(int);
	default:
		return sizeof(uint64_t);
	}
}

/* Names with '_' are the same as with '-': YAML writes one, command lines the other. */
static bool
name_equal(const char *a, const char *b, size_t b_len)
{
	size_t i;

	for (i = 0; i < b_len && a[i] != 0; i++) {
		char x = a[i] == '_' ? '-' : a[i];
		char y = b[i] == '_' ? '-' : b[i];

		if (x != y) {
			return false;
		}
	}
	return i == b_len && a[i] == 0;
}

static const struct option *
option_find(const struct option_set *set, const char *name, size_t name_len)
{
	for (size_t i = 0; i < set->count; i++) {
		if (name_equal(set->options[i].name, name, name_len)) {
			return &set->options[i];
		}
	}
	return NULL;
}

static int
unknown(const struct option_set *set, const char *dashes, const char *name, size_t name_len,
	struct errbuf *err)
{
	const char *names[OPTIONS_COUNT_MAX];
	char given[NAME_BYTES_MAX];
	const char *nearest;
	size_t n = 0;

	(void)snprintf(given, sizeof(given), "%.*s", (int)HR_MIN(name_len, sizeof(given) - 1), name);
	for (size_t i = 0; i < set->count; i++) {
		if ((set->options[i].flags & OPTION_HIDDEN) == 0) {
			names[n++] = set->options[i].name;
		}
	}
	nearest = nearest_name(given, names, n);
	if (nearest == NULL) {
		return errf(err, -EINVAL, "unknown option '%s%s'", dashes, given);
	}
	return errf(err, -EINVAL, "unknown option '%s%s'; did you mean '%s%s'?", dashes, given,
		    dashes, nearest);
}

static int
assign(struct option_set *set, const struct option *option, const char *text,
       enum option_origin origin, struct errbuf *err)
{
	size_t i = (size_t)(option - set->options);
	int rc;

	if (set->origins[i] > origin) {
		return 0;
	}
	rc = value_set(set, option, text, set->origins[i] < origin, err);
	if (rc == 0) {
		set->origins[i] = (uint8_t)origin;
	}
	return rc;
}

int
option_set_init(struct option_set *set, const struct option *options, size_t count, void *values,
		struct errbuf *err)
{
	int rc = 0;

	HR_ASSERT(count <= OPTIONS_COUNT_MAX);
	*set = (struct option_set){ options, count, values, calloc(count + 1, 1) };
	if (set->origins == NULL) {
		return errf(err, -ENOMEM, "options: no memory");
	}
	for (size_t i = 0; i < count; i++) {
		memset(value_at(set, &options[i]), 0, value_bytes(options[i].type));
	}
	for (size_t i = 0; i < count && rc == 0; i++) {
		const char *env = options[i].env == NULL ? NULL : getenv(options[i].env);

		if (options[i].default_text != NULL) {
			rc = value_set(set, &options[i], options[i].default_text, true, err);
			HR_ASSERTF(rc != -EINVAL, "default of %s: %s", options[i].name,
				   options[i].default_text);
		}
		if (rc == 0 && env != NULL && env[0] != 0) {
			rc = assign(set, &options[i], env, OPTION_FROM_ENV, err);
			if (rc != 0) {
				rc = errf_prefix(err, rc, "environment variable %s", options[i].env);
			}
		}
	}
	if (rc != 0) {
		option_set_fini(set);
	}
	return rc;
}

void
option_set_fini(struct option_set *set)
{
	if (set->origins == NULL) {
		return;
	}
	for (size_t i = 0; i < set->count; i++) {
		value_clear(set, &set->options[i]);
	}
	free(set->origins);
	memset(set, 0, sizeof(*set));
}

int
option_assign(struct option_set *set, const char *name, const char *text, enum option_origin origin,
	      struct errbuf *err)
{
	const struct option *option = option_find(set, name, strlen(name));

	if (option == NULL) {
		return unknown(set, "", name, strlen(name), err);
	}
	return assign(set, option, text, origin, err);
}

/* The place in argv while it is parsed. */
struct cursor {
	int argc;
	char **argv;
	int at;
};

/* What stands behind the option at the cursor, which then stands on it; NULL and a line when there is nothing. */
static const char *
next_value(struct cursor *cursor, const struct option *option, struct errbuf *err)
{
	if (cursor->at + 1 >= cursor->argc) {
		(void)errf(err, 0, "option '--%s' wants a value", option->name);
		return NULL;
	}
	return cursor->argv[++cursor->at];
}

static int
parse_long(struct option_set *set, struct cursor *cursor, struct errbuf *err)
{
	const char *name = cursor->argv[cursor->at] + 2;
	size_t name_len = strcspn(name, "=");
	const char *value = name[name_len] == '=' ? name + name_len + 1 : NULL;
	const struct option *option = option_find(set, name, name_len);

	if (option == NULL && name_equal("help", name, name_len)) {
		return OPTION_WANTS_HELP;
	}
	if (option == NULL && name_equal("version", name, name_len)) {
		return OPTION_WANTS_VERSION;
	}
	if (option == NULL && value == NULL && strncmp(name, "no-", 3) == 0) {
		option = option_find(set, name + 3, name_len - 3);
		if (option != NULL && option->type == OPTION_BOOL) {
			return assign(set, option, "false", OPTION_FROM_CLI, err);
		}
		option = NULL;
	}
	if (option == NULL) {
		return unknown(set, "--", name, name_len, err);
	}
	if (value == NULL && option->type == OPTION_BOOL) {
		value = "true";
	}
	if (value == NULL) {
		value = next_value(cursor, option, err);
	}
	return value == NULL ? -EINVAL : assign(set, option, value, OPTION_FROM_CLI, err);
}

static int
parse_short(struct option_set *set, struct cursor *cursor, struct errbuf *err)
{
	for (const char *p = cursor->argv[cursor->at] + 1; *p != 0; p++) {
		const struct option *option = NULL;
		const char *value;
		int rc;

		for (size_t i = 0; i < set->count && option == NULL; i++) {
			option = set->options[i].letter == *p ? &set->options[i] : NULL;
		}
		if (option == NULL && *p == 'h') {
			return OPTION_WANTS_HELP;
		}
		if (option == NULL) {
			return errf(err, -EINVAL, "unknown option '-%c'", *p);
		}
		if (option->type == OPTION_BOOL) {
			rc = assign(set, option, "true", OPTION_FROM_CLI, err);
			if (rc != 0) {
				return rc;
			}
			continue;
		}
		value = p[1] != 0 ? p + 1 : next_value(cursor, option, err);
		return value == NULL ? -EINVAL : assign(set, option, value, OPTION_FROM_CLI, err);
	}
	return 0;
}

int
option_parse(struct option_set *set, int argc, char **argv, int *ret_operands_count,
	     struct errbuf *err)
{
	struct cursor cursor = { argc, argv, 1 };
	bool only_operands = false;
	int operands_count = 0;
	int rc;

	for (; cursor.at < argc; cursor.at++) {
		char *arg = argv[cursor.at];

		if (only_operands || arg[0] != '-' || arg[1] == 0) {
			argv[1 + operands_count++] = arg;
			continue;
		}
		if (strcmp(arg, "--") == 0) {
			only_operands = true;
			continue;
		}
		rc = arg[1] == '-' ? parse_long(set, &cursor, err) : parse_short(set, &cursor, err);
		if (rc != 0) {
			return rc;
		}
	}
	*ret_operands_count = operands_count;
	return OPTION_PARSED;
}

static const char *
type_value_name(const struct option *option)
{
	if (option->value_name != NULL) {
		return option->value_name;
	}
	switch (option->type) {
	case OPTION_BOOL:
		return "";
	case OPTION_SIZE:
		return "SIZE";
	case OPTION_DURATION:
		return "DURATION";
	case OPTION_BITRATE:
		return "RATE";
	case OPTION_STRING:
		return "TEXT";
	case OPTION_LIST:
		return "ITEM[,ITEM...]";
	case OPTION_CHOICE:
		return option->choices;
	default:
		return "N";
	}
}

/* Words wrapped at HELP_WIDTH behind HELP_COLUMN; *column is where the line stands. */
static void
print_wrapped(FILE *out, const char *text, int *column)
{
	while (*text != 0) {
		int len = (int)strcspn(text, " ");

		if (*column + 1 + len > HELP_WIDTH) {
			fprintf(out, "\n%*s", HELP_COLUMN, "");
			*column = HELP_COLUMN;
		} else if (*column > HELP_COLUMN) {
			fputc(' ', out);
			(*column)++;
		}
		fprintf(out, "%.*s", len, text);
		*column += len;
		text += len;
		text += strspn(text, " ");
	}
}

void
option_help_print(const struct option_set *set, FILE *out)
{
	for (size_t i = 0; i < set->count; i++) {
		const struct option *option = &set->options[i];
		const char *value_name = type_value_name(option);
		char extra[256];
		int column;

		if ((option->flags & OPTION_HIDDEN) != 0) {
			continue;
		}
		column = option->letter != 0 ? fprintf(out, "  -%c, ", option->letter)
					     : fprintf(out, "      ");
		column += fprintf(out, "--%s%s%s", option->name, value_name[0] != 0 ? " " : "",
				  value_name);
		if (column > HELP_COLUMN - 2) {
			fputc('\n', out);
			column = 0;
		}
		fprintf(out, "%*s", HELP_COLUMN - column, "");
		column = HELP_COLUMN;
		print_wrapped(out, option->help, &column);
		if (option->default_text != NULL && option->default_text[0] != 0 &&
		    option->type != OPTION_BOOL) {
			(void)snprintf(extra, sizeof(extra), "[default: %s]", option->default_text);
			print_wrapped(out, extra, &column);
		} else if (option->type == OPTION_BOOL && option->default_text != NULL &&
			   *option->default_text == 't') {
			print_wrapped(out, "[default: on]", &column);
		}
		if (option->env != NULL) {
			(void)snprintf(extra, sizeof(extra), "[env: %s]", option->env);
			print_wrapped(out, extra, &column);
		}
		fputc('\n', out);
	}
	fprintf(out, "  -h, %-*s%s\n", HELP_COLUMN - 6, "--help", "Print this and exit");
}

static void
list_format(const struct option_list *list, char *ret_text, size_t text_bytes)
{
	size_t len = 0;

	ret_text[0] = 0;
	for (size_t i = 0; i < list->count && len < text_bytes; i++) {
		len += (size_t)snprintf(ret_text + len, text_bytes - len, "%s%s", i > 0 ? "," : "",
					list->items[i]);
	}
}

const char *
option_value_format(const struct option_set *set, size_t i, char *ret_text, size_t text_bytes)
{
	const struct option *option = &set->options[i];
	const void *value = value_at(set, option);
	char number[SIZE_TEXT_BYTES];

	switch (option->type) {
	case OPTION_BOOL:
		(void)snprintf(ret_text, text_bytes, "%s", *(const bool *)value ? "true" : "false");
		break;
	case OPTION_DOUBLE:
		(void)snprintf(ret_text, text_bytes, "%g", *(const double *)value);
		break;
	case OPTION_STRING:
		(void)snprintf(ret_text, text_bytes, "%s",
			       *(char *const *)value == NULL ? "" : *(char *const *)value);
		break;
	case OPTION_LIST:
		list_format(value, ret_text, text_bytes);
		break;
	case OPTION_CHOICE:
		choice_copy(option->choices, *(const int *)value, ret_text, text_bytes);
		break;
	default:
		(void)snprintf(ret_text, text_bytes, "%s",
			       number_format(option->type, *(const uint64_t *)value, number));
		break;
	}
	return ret_text;
}

enum option_origin
option_origin_get(const struct option_set *set, const char *name)
{
	const struct option *option = option_find(set, name, strlen(name));

	HR_ASSERTF(option != NULL, "option=%s", name);
	return (enum option_origin)set->origins[option - set->options];
}

const char *
option_origin_name(enum option_origin origin)
{
	static const char *const names[] = { "default", "environment", "configuration",
					     "command line" };

	HR_ASSERT((size_t)origin < ARRAY_SIZE(names));
	return names[origin];
}

void
option_names_print(const struct option_set *set, FILE *out)
{
	for (size_t i = 0; i < set->count; i++) {
		if ((set->options[i].flags & OPTION_HIDDEN) == 0) {
			fprintf(out, "--%s\n", set->options[i].name);
		}
	}
	fprintf(out, "--help\n");
}

static unsigned
levenshtein(const char *a, const char *b)
{
	unsigned row[NAME_BYTES_MAX + 1];
	size_t b_len = strlen(b);

	if (strlen(a) > NAME_BYTES_MAX || b_len > NAME_BYTES_MAX) {
		return UINT32_MAX;
	}
	for (unsigned j = 0; j <= b_len; j++) {
		row[j] = j;
	}
	for (; *a != 0; a++) {
		unsigned diagonal = row[0]++;

		for (size_t j = 1; j <= b_len; j++) {
			unsigned changed = diagonal + (*a != b[j - 1]);

			diagonal = row[j];
			row[j] = HR_MIN(changed, HR_MIN(row[j], row[j - 1]) + 1);
		}
	}
	return row[b_len];
}

const char *
nearest_name(const char *name, const char *const *candidates, size_t count)
{
	/* A third of the letters may be wrong: "lisen" finds "listen", "foo" finds nothing. */
	unsigned best = (unsigned)strlen(name) / 3 + 1;
	const char *nearest = NULL;

	for (size_t i = 0; i < count; i++) {
		unsigned distance = levenshtein(name, candidates[i]);

		if (distance < best || (distance == best && nearest == NULL)) {
			best = distance;
			nearest = candidates[i];
		}
	}
	return nearest;
}
