/* cmd_ls.c — headrace ls: the blocks of a space. */
#include <stdlib.h>

#include "cli/block_values.h"
#include "cli/commands.h"

enum { PAGE_ENTRIES = 1000 };

struct lister {
	const struct block_values *values;
	const char *prefix;
	uint64_t route;
	uint64_t shown_count, shown_bytes;
};

/* A key as a JSON string. One that is not UTF-8 has each byte that is not printable ASCII as \u00XX, and is given in hexadecimal too. */
static void
print_json_key(const uint8_t *key, size_t len)
{
	bool is_text = true;
	char hex[HR_KEY_BYTES_MAX * 2 + 1];

	for (size_t i = 0; i < len && is_text;) {
		size_t n = key[i] < 0x80 ? 1 : cli_text_len(key + i, len - i);

		is_text = n > 0;
		i += n;
	}
	printf("\"key\": \"");
	for (size_t i = 0; i < len; i++) {
		if (key[i] == '"' || key[i] == '\\') {
			printf("\\%c", key[i]);
		} else if (key[i] < 0x20 || key[i] == 0x7f || (key[i] >= 0x80 && !is_text)) {
			printf("\\u%04x", key[i]);
		} else {
			putchar(key[i]);
		}
	}
	putchar('"');
	if (!is_text) {
		cli_hex_bytes(key, len, hex);
		printf(", \"key_hex\": \"%s\"", hex);
	}
}

static void
print_entry(struct lister *lister, const struct hr_list_entry *entry)
{
	char id[33], parent[33], key[HR_KEY_BYTES_MAX * 4 + 8];

	cli_hex_bytes(entry->id, 16, id);
	cli_hex_bytes(entry->parent, 16, parent);
	if (lister->values->json) {
		printf("%s\n  {", lister->shown_count == 0 ? "[" : ",");
		print_json_key(entry->key, entry->key_len);
		printf(
		    ", \"bytes\": %llu, \"id\": \"%s\", \"route\": \"%016llx\", \"parent\": \"%s\", \"position\": %u, \"expiry_ms\": %llu}",
		    (unsigned long long)entry->bytes, id, (unsigned long long)entry->route, parent,
		    entry->position, (unsigned long long)entry->expiry_ms);
		return;
	}
	cli_key_text(entry->key, entry->key_len, key, sizeof(key));
	if (lister->values->all_columns) {
		printf("%12llu  %s  %016llx  %s  %8u  %s\n", (unsigned long long)entry->bytes, id,
		       (unsigned long long)entry->route, parent, entry->position, key);
	} else {
		printf("%12llu  %s\n", (unsigned long long)entry->bytes, key);
	}
}

static void
show_page(struct lister *lister, const struct hr_list_entry *entries, size_t count)
{
	size_t prefix_len = lister->prefix == NULL ? 0 : strlen(lister->prefix);

	for (size_t i = 0; i < count; i++) {
		if (prefix_len > entries[i].key_len ||
		    memcmp(entries[i].key, lister->prefix == NULL ? "" : lister->prefix,
			   prefix_len) != 0 ||
		    (lister->values->route != NULL && lister->route != entries[i].route)) {
			continue;
		}
		print_entry(lister, &entries[i]);
		lister->shown_count++;
		lister->shown_bytes += entries[i].bytes;
	}
}

static int
run(const void *values_arg, int argc, char **argv)
{
	const struct block_values *values = values_arg;
	struct lister lister = { .values = values, .prefix = argc > 0 ? argv[0] : NULL };
	struct hr_list_cursor *cursor = NULL;
	struct hr_list_entry *entries;
	struct store store;
	size_t count = 1;
	int rc = values->route == NULL ? CLI_OK : cli_route_parse(values->route, &lister.route);

	rc = rc != CLI_OK ? rc : store_open(&values->store, true, &store);
	if (rc != CLI_OK) {
		return rc;
	}
	while (rc == CLI_OK && count > 0) {
		rc = hr_list(store.space, &cursor, PAGE_ENTRIES, store.timeout_ms, &entries, &count);
		if (rc != 0) {
			rc = store_fail(&store, rc, "listing");
			break;
		}
		show_page(&lister, entries, count);
		free(entries);
	}
	if (values->json) {
		fputs(lister.shown_count == 0 ? "[]\n" : "\n]\n", stdout);
	}
	/* The library ends the cursor with the last page; a listing that stopped earlier leaves it to us. */
	if (rc != CLI_OK) {
		hr_list_cursor_free(cursor);
	}
	store_close(&store);
	return rc;
}

static const struct option options[] = {
	BLOCK_OPTIONS,
	BLOCK_ROUTE_OPTION("any"),
	OPTION(block_values, all_columns, "long", OPTION_BOOL, NULL,
	       "bytes, id, route, parent, position, key"),
	BLOCK_JSON_OPTION,
};
static const struct cli_example examples[] = {
	{ "headrace ls --url tcp:127.0.0.1:7450",
	  "bytes and key of each block of the space \"default\"" },
	{ "headrace ls --space sha256:9f86d0… --long kvt:", "those whose key begins with kvt:" },
};
const struct cli_command cmd_ls = {
	.name = "ls",
	.usage = "[PREFIX]",
	.summary = "lists the blocks of a space",
	.text =
	    "A block that moves while the list is made may be listed twice or not at all. What is not text in a key is shown as \\xHH; in JSON, a key that is not text has key_hex, too.",
	.options = options,
	.options_count = ARRAY_SIZE(options),
	.values_bytes = sizeof(struct block_values),
	.args_min = 0,
	.args_max = 1,
	.examples = examples,
	.examples_count = ARRAY_SIZE(examples),
	.run = run,
};
