/* cmd_check.c — headrace check: walks a device that nobody has open. */
#include <headrace/headrace.h>
#include <jansson.h>
#include <stdlib.h>

#include "base/size.h"
#include "cli/blocking.h"
#include "cli/commands.h"

struct check_values {
	bool json, skip_payload, quiet;
	uint64_t findings_max;
};

static uint64_t
number(const json_t *object, const char *name)
{
	return (uint64_t)json_integer_value(json_object_get(object, name));
}

/* Any value on one line, for people. */
static void
print_line_of(const json_t *value)
{
	if (json_is_string(value)) {
		fputs(json_string_value(value), stdout);
		return;
	}
	json_dumpf(value, stdout, JSON_COMPACT | JSON_ENCODE_ANY);
}

static void
print_findings(const json_t *findings)
{
	size_t i;
	json_t *finding;

	json_array_foreach(findings, i, finding)
	{
		const char *name;
		json_t *value;
		const char *sep = "  ";

		if (!json_is_object(finding)) {
			fputs(sep, stdout);
			print_line_of(finding);
			putchar('\n');
			continue;
		}
		json_object_foreach(finding, name, value)
		{
			printf("%s%s=", sep, name);
			print_line_of(value);
			sep = " ";
		}
		putchar('\n');
	}
}

static void
print_report(const char *path, const json_t *report)
{
	char bytes[SIZE_TEXT_BYTES];
	uint64_t damaged = number(report, "damaged");

	printf("%s: %llu blocks, %s, in %llu segments; %s", path,
	       (unsigned long long)number(report, "blocks"),
	       size_format_short(number(report, "bytes"), bytes),
	       (unsigned long long)number(report, "segments"), damaged == 0 ? "no damage" : "");
	if (damaged != 0) {
		printf("%llu damaged", (unsigned long long)damaged);
	}
	putchar('\n');
	print_findings(json_object_get(report, "findings"));
}

static int
show(const struct check_values *values, const char *path, const char *text)
{
	json_error_t error;
	json_t *report = json_loads(text, 0, &error);
	uint64_t damaged;

	if (report == NULL) {
		return cli_fail(CLI_UNREACHED, "%s: the report is not JSON: %s", path, error.text);
	}
	if (values->json) {
		json_dumpf(report, stdout, JSON_INDENT(2));
		putchar('\n');
	} else {
		print_report(path, report);
	}
	damaged = number(report, "damaged");
	json_decref(report);
	return damaged != 0 ? CLI_DAMAGED : CLI_OK;
}

static int
run(const void *values_arg, int argc, char **argv)
{
	const struct check_values *values = values_arg;
	struct blocking blocking;
	struct hr_check_options options;
	char detail[HR_DETAIL_BYTES] = "";
	char *text;
	int rc;

	(void)argc;
	hr_check_options_init(&options);
	options.skip_payload = values->skip_payload;
	options.findings_max = (uint32_t)values->findings_max;
	options.progress_done = &blocking.done;
	options.progress_total = &blocking.total;
	blocking_start(&blocking, "checking", values->quiet);
	rc = hr_check(argv[0], &options, &text, detail);
	blocking_end(&blocking);
	if (rc != 0) {
		return cli_fail_on(argv[0], rc, detail);
	}
	rc = show(values, argv[0], text);
	free(text);
	return rc;
}

static const struct option options[] = {
	OPTION(check_values, json, "json", OPTION_BOOL, NULL,
	       "print one JSON object: blocks, bytes, damaged, segments, spaces, findings"),
	OPTION(check_values, skip_payload, "skip-payload", OPTION_BOOL, NULL,
	       "headers and footers only; faster"),
	OPTION(check_values, findings_max, "findings", OPTION_UINT, "1000",
	       "at most so many in the report", .value_name = "N", .min = 1, .max = 1000000),
	OPTION(check_values, quiet, "quiet", OPTION_BOOL, NULL, "no progress bar"),
};
static const struct cli_example examples[] = {
	{ "headrace check /var/lib/headrace.img", "what is on it, and what is damaged" },
	{ "headrace check /dev/nvme1n1 --json | jq .damaged", "for scripts" },
};
const struct cli_command cmd_check = {
	.name = "check",
	.usage = "PATH",
	.summary = "walks a device that is not in use and says what is on it and what is damaged",
	.text = "Reads only. The device must not be open in a daemon.",
	.options = options,
	.options_count = ARRAY_SIZE(options),
	.values_bytes = sizeof(struct check_values),
	.args_min = 1,
	.args_max = 1,
	.args_files = true,
	.examples = examples,
	.examples_count = ARRAY_SIZE(examples),
	.run = run,
};
