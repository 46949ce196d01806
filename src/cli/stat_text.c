/* stat_text.c — see stat_text.h. */
#include "cli/stat_text.h"

#include "base/size.h"

enum { NAME_COLUMNS = 34, DEPTH_MAX = 16 };

struct printer {
	FILE *out;
	double seconds;
};

static bool
ends_with(const char *text, const char *end)
{
	size_t len = strlen(text), end_len = strlen(end);

	return len >= end_len && strcmp(text + len - end_len, end) == 0;
}

static bool
is_bytes(const char *name)
{
	return strstr(name, "bytes") != NULL && !ends_with(name, "_count");
}

/* Counters grow; a level that happens to be higher than a moment ago has no rate. */
static bool
has_rate(const char *name, const json_t *value)
{
	return json_is_integer(value) && !ends_with(name, "_now") && !ends_with(name, "_high") &&
	       !ends_with(name, "_max");
}

void
stat_text_number(const char *name, double value, bool whole, char *ret, size_t ret_bytes)
{
	char text[SIZE_TEXT_BYTES], digits[48];
	size_t n = 0;

	if (is_bytes(name) && value >= 0) {
		snprintf(ret, ret_bytes, "%s", size_format_short((uint64_t)value, text));
		return;
	}
	if (!whole) {
		snprintf(ret, ret_bytes, "%.4g", value);
		return;
	}
	snprintf(digits, sizeof(digits), "%.0f", value);
	for (size_t i = 0, len = strlen(digits); i < len && n + 2 < ret_bytes; i++) {
		if (i > 0 && digits[i - 1] != '-' && (len - i) % 3 == 0) {
			ret[n++] = ',';
		}
		ret[n++] = digits[i];
	}
	ret[n] = '\0';
}

static void
print_scalar(const struct printer *printer, const char *name, const json_t *now,
	     const json_t *before, int depth)
{
	char text[64];

	if (json_is_number(now)) {
		double value = json_number_value(now);
		double grown = json_is_number(before) ? value - json_number_value(before) : 0;

		stat_text_number(name, value, json_is_integer(now), text, sizeof(text));
		fprintf(printer->out, "%*s%-*s %16s", depth * 2, "", NAME_COLUMNS - depth * 2, name,
			text);
		if (grown != 0 && printer->seconds > 0 && has_rate(name, now)) {
			stat_text_number(name, grown / printer->seconds, false, text, sizeof(text));
			fprintf(printer->out, "  %s%s/s", grown > 0 ? "+" : "", text);
		}
		fputc('\n', printer->out);
		return;
	}
	if (json_is_null(now)) {
		return;
	}
	fprintf(printer->out, "%*s%-*s %16s\n", depth * 2, "", NAME_COLUMNS - depth * 2, name,
		json_is_string(now) ? json_string_value(now)
		: json_is_true(now) ? "yes"
				    : "no");
}

static bool
is_scalar(const json_t *value)
{
	return !json_is_object(value) && !json_is_array(value);
}

static void
print_children(const struct printer *printer, const json_t *now, const json_t *before, int depth);

static void
print_nested(const struct printer *printer, const char *name, const json_t *now,
	     const json_t *before, int depth)
{
	json_t *child;
	size_t i;

	if (depth >= DEPTH_MAX) {
		return;
	}
	if (json_is_object(now)) {
		fprintf(printer->out, "%*s%s\n", depth * 2, "", name);
		print_children(printer, now, before, depth + 1);
		return;
	}
	json_array_foreach(now, i, child)
	{
		char indexed[96];

		snprintf(indexed, sizeof(indexed), "%s %zu", name, i);
		if (is_scalar(child)) {
			print_scalar(printer, indexed, child, json_array_get(before, i), depth);
		} else {
			print_nested(printer, indexed, child, json_array_get(before, i), depth);
		}
	}
}

/* Plain values first, then what is nested. */
static void
print_children(const struct printer *printer, const json_t *now, const json_t *before, int depth)
{
	const char *name;
	json_t *child;

	json_object_foreach((json_t *)now, name, child)
	{
		if (is_scalar(child)) {
			print_scalar(printer, name, child, json_object_get(before, name), depth);
		}
	}
	json_object_foreach((json_t *)now, name, child)
	{
		if (!is_scalar(child)) {
			print_nested(printer, name, child, json_object_get(before, name), depth);
		}
	}
}

void
stat_text_print(const json_t *now, const json_t *before, double seconds, FILE *out)
{
	const struct printer printer = { .out = out, .seconds = seconds };

	print_children(&printer, now, before, 0);
}
