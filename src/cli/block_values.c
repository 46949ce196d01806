/* block_values.c — see block_values.h. */
#include "cli/block_values.h"

#include <stdlib.h>

const char *
cli_ack_name(int ack)
{
	static const char *const names[] = { "ram", "stable", "replicated" };

	return (size_t)ack < ARRAY_SIZE(names) ? names[ack] : "?";
}

int
cli_route_parse(const char *text, uint64_t *ret_route)
{
	const char *digits = text[0] == '0' && (text[1] | 32) == 'x' ? text + 2 : text;
	size_t len = strlen(digits);

	if (len == 0 || len > 16 || strspn(digits, "0123456789abcdefABCDEF") != len) {
		return cli_fail(CLI_USAGE, "--route: \"%s\" is not 1 to 16 hexadecimal digits",
				text);
	}
	*ret_route = strtoull(digits, NULL, 16);
	return CLI_OK;
}

void
block_submit_options(const struct block_values *values, struct hr_submit_options *ret_options)
{
	hr_submit_options_init(ret_options);
	ret_options->deadline_us = (uint32_t)HR_MIN(values->store.timeout_us, (uint64_t)UINT32_MAX);
	ret_options->ack = (uint8_t)values->ack;
}

int
block_item(const struct block_values *values, const char *key, bool all_shards,
	   struct hr_item *ret_item)
{
	size_t len = strlen(key);

	if (len == 0 || len > HR_KEY_BYTES_MAX) {
		return cli_fail(CLI_USAGE, "the key has %zu bytes; 1 to %u are wanted", len,
				HR_KEY_BYTES_MAX);
	}
	*ret_item = (struct hr_item){ .key = key, .key_len = (uint32_t)len };
	if (values->route != NULL) {
		ret_item->flags = HR_ITEM_ROUTE;
		return cli_route_parse(values->route, &ret_item->route);
	}
	if (all_shards) {
		ret_item->flags = HR_ITEM_ALL_SHARDS;
	}
	return CLI_OK;
}

int
block_check(const struct block_values *values, char **keys, int count)
{
	struct hr_item item;
	int rc = CLI_OK;

	for (int i = 0; rc == CLI_OK && i < count; i++) {
		rc = block_item(values, keys[i], true, &item);
	}
	return rc;
}

int
block_missed(const char *key, const struct hr_item *item)
{
	char text[256];

	cli_key_text(key, strlen(key), text, sizeof(text));
	if (item->status == HR_STATUS_INVALID) {
		return cli_fail(
		    CLI_USAGE,
		    "%s: not a usable block: a key of 1 to %u bytes and a value of at most 128 MiB are wanted",
		    text, HR_KEY_BYTES_MAX);
	}
	if (item->status == HR_STATUS_REFUSED) {
		return cli_fail(cli_exit_of_reason((int)item->reason), "%s: refused (%s)", text,
				hr_reason_name((int)item->reason));
	}
	return cli_fail(cli_exit_of_reason((int)item->reason), "%s: not there (%s)", text,
			hr_reason_name((int)item->reason));
}
