/* store.h — opening a store for a command: URL, space, waiting until it answers, and saying what is wrong.
 *
 * What:       the options that commands on a store share, as rows for their tables; and one open call.
 * Errors:     an exit code (command.h), already said on standard error.
 * Tests:      tests/unit/cli/test_command.c (the rows), tests/func (the rest)
 */
#ifndef HR_CLI_STORE_H
#define HR_CLI_STORE_H

#include <headrace/headrace.h>

#include "cli/command.h"

struct store_values {
	char *url;
	char *space;
	char *token_file;
	uint64_t timeout_us;
};

/* `type` is the tag of the command's values struct, `member` its struct store_values. */
#define STORE_URL_OPTIONS(type, member)                                                            \
	OPTION(type, member.url, "url", OPTION_STRING, NULL,                                       \
	       "the store: file:PATH?size=8GiB, unix:PATH or tcp:HOST:PORT", .value_name = "URL",  \
	       .env = "HEADRACE_URL"),                                                             \
	    OPTION(type, member.token_file, "token-file", OPTION_STRING, NULL,                     \
		   "file with the tenant's token (default: none)", .value_name = "FILE"),          \
	    OPTION(type, member.timeout_us, "timeout", OPTION_DURATION, "5s",                      \
		   "how long to wait for the store to answer", .min = 1000, .max = 3600000000)
#define STORE_SPACE_OPTION(type, member)                                                           \
	OPTION(type, member.space, "space", OPTION_STRING, "default",                              \
	       "the space: a name, or sha256:HEX for any existing one", .value_name = "NAME")

struct store {
	struct hr_client *client;
	struct hr_space *space; /* NULL when none was asked for */
	uint32_t timeout_ms;
	const char *url; /* as given, for messages; never NULL */
};

/* with_space: opens values->space too. On failure nothing stays open. */
int store_open(const struct store_values *values, bool with_space, struct store *ret_store);
void store_close(struct store *store);

/* Says that `what` failed with the library's error rc, with the handle's own line on it. Returns the exit code. */
int store_fail(const struct store *store, int rc, const char *what);

/* Submits one batch and waits for it as long as it takes (deadlines end it). CLI_OK or an exit code. */
int store_batch(const struct store *store, enum hr_op op, struct hr_item *items, uint32_t count,
		const struct hr_submit_options *options, struct hr_completion *ret_completion);

/* 32 bytes as 64 digits. */
void cli_hex_bytes(const uint8_t *bytes, size_t count, char *ret_text);
/* Bytes of the printable character (UTF-8) that begins here; 0: there is none. */
size_t cli_text_len(const uint8_t *at, size_t left);
/* A key or a label for people: what is printable as it is, other bytes as \xHH. Returns ret_text. */
const char *cli_key_text(const void *key, size_t key_len, char *ret_text, size_t ret_bytes);

#endif
