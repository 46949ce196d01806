/* block_values.h — what put, get, exists, rm and ls have in common. */
#ifndef HR_CLI_BLOCK_VALUES_H
#define HR_CLI_BLOCK_VALUES_H

#include "cli/store.h"

struct block_values {
	struct store_values store;
	char *route; /* hexadecimal, or NULL */
	int ack;     /* enum hr_ack: the position in the choices */
	uint64_t ttl_us;
	bool replace, pin, quiet, json, all_columns;
};

#define ACK_CHOICES "ram|stable"
#define BLOCK_OPTIONS                                                                              \
	STORE_URL_OPTIONS(block_values, store), STORE_SPACE_OPTION(block_values, store)
#define BLOCK_ROUTE_OPTION(by_default)                                                             \
	OPTION(block_values, route, "route", OPTION_STRING, NULL,                                  \
	       "the block's route, 1 to 16 hexadecimal digits (default: " by_default ")",          \
	       .value_name = "HEX")
#define BLOCK_ACK_OPTION(what)                                                                     \
	OPTION(block_values, ack, "ack", OPTION_CHOICE, "ram", what, .choices = ACK_CHOICES)
#define BLOCK_JSON_OPTION OPTION(block_values, json, "json", OPTION_BOOL, NULL, "print JSON")

/* Of --ack. */
const char *cli_ack_name(int ack);
/* Of --route: 1 … 16 hexadecimal digits, with or without 0x. CLI_OK, or CLI_USAGE and said. */
int cli_route_parse(const char *text, uint64_t *ret_route);
void block_submit_options(const struct block_values *values, struct hr_submit_options *ret_options);
/* The item for a key as the command line gives it; without a route, all_shards decides. CLI_OK, or CLI_USAGE and said. */
int block_item(const struct block_values *values, const char *key, bool all_shards,
	       struct hr_item *ret_item);
/* The same for all keys at once, before a store is opened: what is wrong on the command line is said first. */
int block_check(const struct block_values *values, char **keys, int count);
/* "KEY: not there (evicted)" on standard error; returns the exit code. */
int block_missed(const char *key, const struct hr_item *item);

#endif
