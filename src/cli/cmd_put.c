/* cmd_put.c — headrace put: one block from a file or standard input. */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>

#include "cli/block_values.h"
#include "cli/commands.h"

/* All of it, or CLI_*. One byte over the limit is read, to tell a value that is too long from one that just fits. */
static int
read_value(const char *path, uint8_t **ret_value, size_t *ret_len)
{
	bool is_stdin = path == NULL || strcmp(path, "-") == 0;
	int fd = is_stdin ? STDIN_FILENO : open(path, O_RDONLY | O_CLOEXEC);
	size_t len = 0, room = 0;
	uint8_t *value = NULL;
	ssize_t n = 1;

	while (fd >= 0 && n > 0 && len <= HR_BLOCK_BYTES_MAX) {
		if (len == room) {
			uint8_t *grown;

			room = HR_MIN(room * 2 + (1 << 20), (size_t)HR_BLOCK_BYTES_MAX + 1);
			grown = realloc(value, room);
			if (grown == NULL) {
				free(value);
				return cli_fail(CLI_UNREACHED, "out of memory");
			}
			value = grown;
		}
		n = read(fd, value + len, room - len);
		if (n < 0 && errno == EINTR) {
			n = 1;
			continue;
		}
		len += n > 0 ? (size_t)n : 0;
	}
	if (fd < 0 || n < 0) {
		n = -1;
		free(value);
		value = NULL;
		cli_fail(CLI_UNREACHED, "%s: %s", is_stdin ? "standard input" : path,
			 strerror(errno));
	}
	if (fd >= 0 && !is_stdin) {
		close(fd);
	}
	if (n < 0) {
		return CLI_UNREACHED;
	}
	if (len > HR_BLOCK_BYTES_MAX) {
		free(value);
		return cli_fail(CLI_USAGE, "%s: longer than 128 MiB, which a block can be at most",
				is_stdin ? "standard input" : path);
	}
	*ret_value = value;
	*ret_len = len;
	return CLI_OK;
}

static int
put_one(const struct block_values *values, const struct store *store, const char *key,
	uint8_t *value, size_t len)
{
	struct iovec iov = { .iov_base = value, .iov_len = len };
	struct hr_submit_options options;
	struct hr_completion completion;
	struct hr_item item;
	const char *said = "stored";
	char text[HR_KEY_BYTES_MAX * 4 + 8];
	int rc;

	block_submit_options(values, &options);
	rc = block_item(values, key, false, &item);
	if (rc != CLI_OK) {
		return rc;
	}
	item.iov = &iov;
	item.iov_count = 1;
	item.ttl_ms = (uint32_t)(values->ttl_us / 1000);
	item.flags |= (values->replace ? (uint32_t)HR_PUT_REPLACE : 0) |
		      (values->pin ? (uint32_t)HR_PUT_PINNED : 0);
	rc = store_batch(store, HR_OP_PUT, &item, 1, &options, &completion);
	if (rc != CLI_OK) {
		return rc;
	}
	if (item.status != HR_STATUS_OK) {
		return block_missed(key, &item);
	}
	if (item.flags & HR_ITEM_DIFFERS) {
		said = "was there already with other bytes, which stay (--replace takes its place)";
	} else if (item.flags & HR_ITEM_DUPLICATE) {
		said = "was there already";
	}
	if (!values->quiet) {
		printf("%s: %s, %zu bytes (ack %s)\n",
		       cli_key_text(key, strlen(key), text, sizeof(text)), said, len,
		       cli_ack_name(values->ack));
	}
	return CLI_OK;
}

static int
run(const void *values_arg, int argc, char **argv)
{
	const struct block_values *values = values_arg;
	struct store store;
	uint8_t *value = NULL;
	size_t len = 0;
	int rc = block_check(values, argv, 1);

	rc = rc != CLI_OK ? rc : read_value(argc > 1 ? argv[1] : NULL, &value, &len);
	if (rc != CLI_OK) {
		return rc;
	}
	rc = store_open(&values->store, true, &store);
	if (rc == CLI_OK) {
		rc = put_one(values, &store, argv[0], value, len);
		store_close(&store);
	}
	free(value);
	return rc;
}

static const struct option options[] = {
	BLOCK_OPTIONS,
	BLOCK_ROUTE_OPTION("the block id's own"),
	BLOCK_ACK_OPTION(
	    "when the PUT is done: ram (visible, may be lost) or stable (survives kill -9 and power loss)"),
	OPTION(block_values, ttl_us, "ttl", OPTION_DURATION, NULL,
	       "the block expires after this time (default: none)", .value_name = "TIME",
	       .max = 4294967295000),
	OPTION(block_values, replace, "replace", OPTION_BOOL, NULL,
	       "take the place of a block with the same key; without it the first one stays"),
	OPTION(block_values, pin, "pin", OPTION_BOOL, NULL,
	       "never reclaim it, within the space's pin budget"),
	OPTION(block_values, quiet, "quiet", OPTION_BOOL, NULL, "say nothing when it is stored"),
};
static const struct cli_example examples[] = {
	{ "headrace put --url tcp:127.0.0.1:7450 greeting hello.txt", "stores a file" },
	{ "head -c 1M /dev/urandom | headrace put --ack stable key1",
	  "from standard input into $HEADRACE_URL; done when it survives a power loss" },
};
const struct cli_command cmd_put = {
	.name = "put",
	.usage = "KEY [FILE]",
	.summary = "stores one block from FILE or standard input",
	.options = options,
	.options_count = ARRAY_SIZE(options),
	.values_bytes = sizeof(struct block_values),
	.args_min = 1,
	.args_max = 2,
	.args_files = true,
	.examples = examples,
	.examples_count = ARRAY_SIZE(examples),
	.run = run,
};
