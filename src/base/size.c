/* size.c — a number, perhaps a fraction, and a unit from a table. */
#include "base/size.h"

#include <ctype.h>
#include <stdio.h>
#include <strings.h>

struct unit {
	const char *name;
	uint64_t factor;
};

/* Largest first: formatting takes the first that divides. */
static const struct unit size_units[] = {
	{ "PiB", (uint64_t)1 << 50 }, { "TiB", (uint64_t)1 << 40 }, { "GiB", 1 << 30 },
	{ "MiB", 1 << 20 },	      { "KiB", 1 << 10 },	    { "B", 1 },
};
static const struct unit size_units_decimal[] = {
	{ "PB", 1000000000000000 }, { "TB", 1000000000000 }, { "GB", 1000000000 },
	{ "MB", 1000000 },	    { "kB", 1000 },
};
static const struct unit duration_units[] = {
	{ "d", 86400000000 }, { "h", 3600000000 }, { "min", 60000000 }, { "m", 60000000 },
	{ "s", 1000000 },     { "ms", 1000 },	   { "us", 1 },
};
static const struct unit bitrate_units[] = {
	{ "Tbit", 1000000000000 }, { "Gbit", 1000000000 }, { "Mbit", 1000000 },
	{ "kbit", 1000 },	   { "bit", 1 },
};
static const struct unit bitrate_units_bps[] = {
	{ "Tbps", 1000000000000 }, { "Gbps", 1000000000 }, { "Mbps", 1000000 },
	{ "kbps", 1000 },	   { "bps", 1 },
};

static const struct unit *
unit_find(const struct unit *units, size_t units_count, const char *name, size_t name_len,
	  bool any_case)
{
	for (size_t i = 0; i < units_count; i++) {
		if (strlen(units[i].name) == name_len &&
		    (any_case ? strncasecmp(units[i].name, name, name_len)
			      : strncmp(units[i].name, name, name_len)) == 0) {
			return &units[i];
		}
	}
	return NULL;
}

/* Reads "digits[.digits]" as whole and up to nine fractional digits in billionths. Returns what follows, or NULL. */
static const char *
number_parse(const char *p, uint64_t *ret_whole, uint64_t *ret_billionths, bool *ret_range)
{
	uint64_t scale = 100000000;

	*ret_whole = 0;
	*ret_billionths = 0;
	*ret_range = false;
	if (!isdigit((unsigned char)*p)) {
		return NULL;
	}
	for (; isdigit((unsigned char)*p); p++) {
		if (__builtin_mul_overflow(*ret_whole, 10u, ret_whole) ||
		    __builtin_add_overflow(*ret_whole, (uint64_t)(*p - '0'), ret_whole)) {
			*ret_range = true;
		}
	}
	if (*p != '.') {
		return p;
	}
	p++;
	if (!isdigit((unsigned char)*p)) {
		return NULL;
	}
	for (; isdigit((unsigned char)*p); p++) {
		*ret_billionths += (uint64_t)(*p - '0') * scale;
		scale /= 10;
	}
	return p;
}

struct number {
	uint64_t whole;
	uint64_t billionths;
	const char *unit; /* Inside the text; empty when there is none. */
	size_t unit_len;
};

static int
number_split(const char *text, const char *what, struct number *ret, struct errbuf *err)
{
	const char *p = text;
	bool range;

	while (isspace((unsigned char)*p)) {
		p++;
	}
	p = number_parse(p, &ret->whole, &ret->billionths, &range);
	if (p == NULL) {
		return errf(err, -EINVAL, "'%.64s' is not a %s", text, what);
	}
	if (range) {
		return errf(err, -ERANGE, "'%.64s' is too large for a %s", text, what);
	}
	while (isspace((unsigned char)*p)) {
		p++;
	}
	ret->unit = p;
	ret->unit_len = strlen(p);
	while (ret->unit_len > 0 && isspace((unsigned char)p[ret->unit_len - 1])) {
		ret->unit_len--;
	}
	return 0;
}

static int
number_scale(const char *text, const char *what, const struct number *number, uint64_t factor,
	     uint64_t *ret, struct errbuf *err)
{
	uint64_t fraction = (uint64_t)((unsigned __int128)number->billionths * factor / 1000000000u);
	uint64_t value;

	if (__builtin_mul_overflow(number->whole, factor, &value) ||
	    __builtin_add_overflow(value, fraction, &value)) {
		return errf(err, -ERANGE, "'%.64s' is too large for a %s", text, what);
	}
	*ret = value;
	return 0;
}

int
size_parse(const char *text, uint64_t *ret_bytes, struct errbuf *err)
{
	static const struct unit bytes = { "", 1 };
	const struct unit *unit = &bytes;
	struct number number;
	int rc;

	rc = number_split(text, "size (such as 64KiB, 8GiB)", &number, err);
	if (rc != 0) {
		return rc;
	}
	if (number.unit_len > 0) {
		unit = unit_find(size_units, ARRAY_SIZE(size_units), number.unit, number.unit_len,
				 true);
		if (unit == NULL) {
			unit = unit_find(size_units_decimal, ARRAY_SIZE(size_units_decimal),
					 number.unit, number.unit_len, true);
		}
		if (unit == NULL) {
			return errf(
			    err, -EINVAL,
			    "'%.64s': unit '%.16s' is not one of B, KiB, MiB, GiB, TiB, kB, MB, GB, TB",
			    text, number.unit);
		}
	}
	return number_scale(text, "size", &number, unit->factor, ret_bytes, err);
}

int
duration_parse(const char *text, uint64_t *ret_us, struct errbuf *err)
{
	const struct unit *unit;
	struct number number;
	int rc;

	rc = number_split(text, "duration (such as 30s, 5ms)", &number, err);
	if (rc != 0) {
		return rc;
	}
	if (number.unit_len == 0 && number.whole == 0 && number.billionths == 0) {
		*ret_us = 0;
		return 0;
	}
	unit = unit_find(duration_units, ARRAY_SIZE(duration_units), number.unit, number.unit_len,
			 false);
	if (unit == NULL) {
		return errf(err, -EINVAL,
			    "'%.64s': a duration ends with one of us, ms, s, min, h, d", text);
	}
	return number_scale(text, "duration", &number, unit->factor, ret_us, err);
}

int
bitrate_parse(const char *text, uint64_t *ret_bits_per_s, struct errbuf *err)
{
	const struct unit *unit;
	struct number number;
	int rc;

	rc = number_split(text, "bit rate (such as 200Gbit)", &number, err);
	if (rc != 0) {
		return rc;
	}
	if (number.unit_len > 2 && strncmp(number.unit + number.unit_len - 2, "/s", 2) == 0) {
		number.unit_len -= 2;
	}
	unit =
	    unit_find(bitrate_units, ARRAY_SIZE(bitrate_units), number.unit, number.unit_len, true);
	if (unit == NULL) {
		unit = unit_find(bitrate_units_bps, ARRAY_SIZE(bitrate_units_bps), number.unit,
				 number.unit_len, true);
	}
	if (unit == NULL) {
		return errf(err, -EINVAL,
			    "'%.64s': a bit rate ends with one of bit, kbit, Mbit, Gbit, Tbit",
			    text);
	}
	return number_scale(text, "bit rate", &number, unit->factor, ret_bits_per_s, err);
}

static const char *
exact_format(const struct unit *units, uint64_t value, char *ret_text)
{
	/* The last unit's factor is 1; 0 takes it rather than "0PiB". */
	while (units->factor != 1 && (value == 0 || value % units->factor != 0)) {
		units++;
	}
	(void)snprintf(ret_text, SIZE_TEXT_BYTES, "%llu%s",
		       (unsigned long long)(value / units->factor), units->name);
	return ret_text;
}

const char *
size_format(uint64_t bytes, char ret_text[SIZE_TEXT_BYTES])
{
	return exact_format(size_units, bytes, ret_text);
}

const char *
size_format_short(uint64_t bytes, char ret_text[SIZE_TEXT_BYTES])
{
	for (size_t i = 0; i < ARRAY_SIZE(size_units) - 1; i++) {
		if (bytes >= size_units[i].factor) {
			double value = (double)bytes / (double)size_units[i].factor;
			int digits = value < 9.995 ? 2 : value < 99.95 ? 1 : 0;

			(void)snprintf(ret_text, SIZE_TEXT_BYTES, "%.*f %s", digits, value,
				       size_units[i].name);
			return ret_text;
		}
	}
	(void)snprintf(ret_text, SIZE_TEXT_BYTES, "%llu B", (unsigned long long)bytes);
	return ret_text;
}

const char *
duration_format(uint64_t us, char ret_text[SIZE_TEXT_BYTES])
{
	return exact_format(duration_units, us, ret_text);
}

const char *
bitrate_format(uint64_t bits_per_s, char ret_text[SIZE_TEXT_BYTES])
{
	return exact_format(bitrate_units, bits_per_s, ret_text);
}
