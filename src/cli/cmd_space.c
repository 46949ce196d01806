/* cmd_space.c — headrace space: list, measure, drop and limit spaces. */
#include <jansson.h>
#include <stdlib.h>

#include "base/error.h"
#include "base/size.h"
#include "cli/commands.h"
#include "cli/store.h"

struct space_values {
	struct store_values store;
	bool json;
	char *quota, *pin_budget; /* sizes, or NULL: unchanged */
};

static json_t *
info_json(const struct hr_space_info *info)
{
	char digest[65];

	cli_hex_bytes(info->digest, 32, digest);
	return json_pack("{s:s+,s:s,s:I,s:I,s:I,s:I,s:I,s:I,s:I,s:I,s:I}", "digest",
			 "sha256:", digest, "label", info->label, "blocks",
			 (json_int_t)info->blocks, "bytes", (json_int_t)info->bytes, "quota_bytes",
			 (json_int_t)info->quota_bytes, "pin_budget_bytes",
			 (json_int_t)info->pin_budget_bytes, "pinned_bytes",
			 (json_int_t)info->pinned_bytes, "generation",
			 (json_int_t)info->generation_max, "gets", (json_int_t)info->gets, "hits",
			 (json_int_t)info->hits, "puts", (json_int_t)info->puts);
}

static const char *
limit_text(uint64_t bytes, char text[SIZE_TEXT_BYTES])
{
	return bytes == 0 ? "none" : size_format_short(bytes, text);
}

static void
print_info(const struct hr_space_info *info)
{
	char digest[65], bytes[SIZE_TEXT_BYTES], quota[SIZE_TEXT_BYTES], pin[SIZE_TEXT_BYTES];
	char label[sizeof(info->label) * 4 + 8];

	cli_hex_bytes(info->digest, 32, digest);
	printf("%-20s %10llu blocks  %10s  quota %s  pin budget %s  gets %llu  hits %llu  puts %llu\n"
	       "    sha256:%s\n",
	       info->label[0] != '\0'
		   ? cli_key_text(info->label, strlen(info->label), label, sizeof(label))
		   : "(no name)",
	       (unsigned long long)info->blocks, size_format_short(info->bytes, bytes),
	       limit_text(info->quota_bytes, quota), limit_text(info->pin_budget_bytes, pin),
	       (unsigned long long)info->gets, (unsigned long long)info->hits,
	       (unsigned long long)info->puts, digest);
}

static void
print_infos(const struct space_values *values, const struct hr_space_info *infos, size_t count)
{
	json_t *array;

	if (!values->json) {
		for (size_t i = 0; i < count; i++) {
			print_info(&infos[i]);
		}
		return;
	}
	array = json_array();
	for (size_t i = 0; i < count; i++) {
		json_array_append_new(array, info_json(&infos[i]));
	}
	json_dumpf(array, stdout, JSON_INDENT(2));
	putchar('\n');
	json_decref(array);
}

static int
space_ls(const struct space_values *values, struct store *store)
{
	struct hr_space_info *infos;
	size_t count;
	int rc = hr_space_list(store->client, store->timeout_ms, &infos, &count);

	if (rc != 0) {
		return store_fail(store, rc, "listing the spaces");
	}
	print_infos(values, infos, count);
	free(infos);
	return CLI_OK;
}

static int
space_usage(const struct space_values *values, struct store *store)
{
	struct hr_space_info info;
	int rc = hr_space_usage(store->space, store->timeout_ms, &info);

	if (rc != 0) {
		return store_fail(store, rc, "asking for the usage");
	}
	if (values->json) {
		json_t *object = info_json(&info);

		json_dumpf(object, stdout, JSON_INDENT(2));
		putchar('\n');
		json_decref(object);
	} else {
		print_info(&info);
	}
	return CLI_OK;
}

/* NULL stands for "unchanged". */
static int
parse_limit(const char *name, const char *text, uint64_t *ret_bytes)
{
	struct errbuf err = { "" };

	*ret_bytes = UINT64_MAX;
	if (text != NULL && size_parse(text, ret_bytes, &err) != 0) {
		return cli_fail(CLI_USAGE, "space: %s: %s", name, err.text);
	}
	return CLI_OK;
}

static int
space_set(struct store *store, const char *quota, const char *pin_budget)
{
	uint64_t quota_bytes, pin_budget_bytes;
	int rc = parse_limit("--quota", quota, &quota_bytes);

	rc = rc != CLI_OK ? rc : parse_limit("--pin-budget", pin_budget, &pin_budget_bytes);
	if (rc != CLI_OK) {
		return rc;
	}
	rc = hr_space_set(store->space, quota_bytes, pin_budget_bytes, store->timeout_ms);
	return rc != 0 ? store_fail(store, rc, "setting the limits") : CLI_OK;
}

/* Asking about a space makes it; a name that is mistyped must neither be dropped with success nor stay in the table. */
static int
check_exists(const struct store *store, const char *name)
{
	struct hr_space_info *infos;
	uint8_t digest[32];
	size_t count;
	bool found = false;
	int rc = hr_space_list(store->client, store->timeout_ms, &infos, &count);

	if (rc != 0) {
		return store_fail(store, rc, "listing the spaces");
	}
	hr_space_digest(store->space, digest);
	for (size_t i = 0; i < count; i++) {
		found |= memcmp(infos[i].digest, digest, sizeof(digest)) == 0;
	}
	free(infos);
	return found ? CLI_OK
		     : cli_fail(CLI_ABSENT, "%s: the store has no such space (headrace space ls)",
				name);
}

static int
run_on_space(const struct space_values *values, struct store *store, char **argv)
{
	if (strcmp(argv[0], "usage") == 0 || strcmp(argv[0], "drop") == 0) {
		int rc = check_exists(store, values->store.space);

		if (rc != CLI_OK) {
			return rc;
		}
	}
	if (strcmp(argv[0], "usage") == 0) {
		return space_usage(values, store);
	}
	if (strcmp(argv[0], "drop") == 0) {
		int rc = hr_space_drop(store->space, store->timeout_ms);

		return rc != 0 ? store_fail(store, rc, "dropping the space") : CLI_OK;
	}
	if (strcmp(argv[0], "pin") == 0) {
		return space_set(store, NULL, argv[2]);
	}
	return space_set(store, values->quota, values->pin_budget);
}

/* How many names and values each sub-command takes. */
static int
check_words(const struct space_values *values, int argc, char **argv)
{
	bool is_pin = strcmp(argv[0], "pin") == 0;
	bool is_set = strcmp(argv[0], "set") == 0;
	int max = strcmp(argv[0], "ls") == 0 ? 1 : is_pin ? 3 : 2;
	int min = is_pin ? 3 : strcmp(argv[0], "drop") == 0 || is_set ? 2 : 1;

	if (argc > max) {
		return cli_fail(CLI_USAGE, "space %s: \"%s\" is one too many", argv[0], argv[max]);
	}
	if (argc < min && !(argc == 1 && !is_pin && values->store.space != NULL)) {
		return cli_fail(CLI_USAGE, "space %s: %s is missing (headrace space --help)",
				argv[0], argc == 1 ? "the space's name" : "the size");
	}
	if (is_set && values->quota == NULL && values->pin_budget == NULL) {
		return cli_fail(CLI_USAGE, "space set: --quota SIZE or --pin-budget SIZE is wanted");
	}
	return CLI_OK;
}

static int
run(const void *values_arg, int argc, char **argv)
{
	struct space_values values = *(const struct space_values *)values_arg;
	bool is_ls = strcmp(argv[0], "ls") == 0;
	struct store store;
	int rc = check_words(&values, argc, argv);

	if (rc != CLI_OK) {
		return rc;
	}
	if (argc > 1) {
		values.store.space = argv[1];
	} else if (values.store.space == NULL) {
		values.store.space = (char *)"default";
	}
	rc = store_open(&values.store, !is_ls, &store);
	if (rc != CLI_OK) {
		return rc;
	}
	rc = is_ls ? space_ls(&values, &store) : run_on_space(&values, &store, argv);
	store_close(&store);
	return rc;
}

static const struct option options[] = {
	STORE_URL_OPTIONS(space_values, store),
	OPTION(space_values, store.space, "space", OPTION_STRING, NULL,
	       "the space, instead of NAME (usage alone: default)", .value_name = "NAME"),
	OPTION(space_values, quota, "quota", OPTION_STRING, NULL,
	       "set: most bytes it may hold; 0 = no limit (default: unchanged)",
	       .value_name = "SIZE"),
	OPTION(space_values, pin_budget, "pin-budget", OPTION_STRING, NULL,
	       "set: most bytes that may be pinned (default: unchanged)", .value_name = "SIZE"),
	OPTION(space_values, json, "json", OPTION_BOOL, NULL, "ls, usage: print JSON"),
};
static const struct cli_example examples[] = {
	{ "headrace space ls --url tcp:127.0.0.1:7450", "all spaces with their sizes" },
	{ "headrace space usage default --json", "one of them" },
	{ "headrace space drop sha256:9f86d0…",
	  "every block of it is gone, durably, when this returns" },
	{ "headrace space pin default 2GiB",
	  "lets blocks put with --pin stay, up to 2 GiB of them" },
	{ "headrace space set default --quota 100GiB", "limits it" },
};
const struct cli_command cmd_space = {
	.name = "space",
	.usage = "ls | usage [NAME] | drop NAME | pin NAME SIZE | set NAME",
	.summary = "lists, measures, drops and limits spaces",
	.text = "NAME is a name given to --space, or sha256:HEX for any existing space.",
	.options = options,
	.options_count = ARRAY_SIZE(options),
	.values_bytes = sizeof(struct space_values),
	.args_min = 1,
	.args_max = 3,
	.args_choices = "ls|usage|drop|pin|set",
	.examples = examples,
	.examples_count = ARRAY_SIZE(examples),
	.exits = "usage, drop: 1 when there is no such space.",
	.run = run,
};
