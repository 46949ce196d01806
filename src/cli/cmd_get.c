/* cmd_get.c — headrace get: one block into a file or to standard output. */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>

#include "cli/block_values.h"
#include "cli/commands.h"

/* A first guess; a longer block tells its length and is asked for again. */
enum { FIRST_BYTES = 4 << 20, TRIES_MAX = 4 };

/* Returns CLI_OK and a block whose bytes were verified end to end. */
static int
get_one(const struct block_values *values, const struct store *store, const char *key,
	uint8_t **ret_value, size_t *ret_len)
{
	size_t room = FIRST_BYTES;

	for (int i = 0; i < TRIES_MAX; i++) {
		struct hr_submit_options options;
		struct hr_completion completion;
		struct hr_item item;
		struct iovec iov = { .iov_base = malloc(room), .iov_len = room };
		int rc;

		if (iov.iov_base == NULL) {
			return cli_fail(CLI_UNREACHED, "out of memory");
		}
		block_submit_options(values, &options);
		rc = block_item(values, key, true, &item);
		item.iov = &iov;
		item.iov_count = 1;
		item.expected_len = HR_LEN_ANY;
		rc = rc != CLI_OK ? rc
				  : store_batch(store, HR_OP_GET, &item, 1, &options, &completion);
		if (rc == CLI_OK && item.status == HR_STATUS_OK && item.len <= room) {
			*ret_value = iov.iov_base;
			*ret_len = item.len;
			return CLI_OK;
		}
		free(iov.iov_base);
		if (rc != CLI_OK) {
			return rc;
		}
		if (item.status != HR_STATUS_OK &&
		    (item.reason != HR_REASON_SIZE || item.len <= room)) {
			return block_missed(key, &item);
		}
		room = item.len;
	}
	return cli_fail(CLI_UNREACHED, "%s: replaced again and again while it was read", key);
}

static int
write_value(const char *path, const uint8_t *value, size_t len)
{
	bool is_stdout = path == NULL || strcmp(path, "-") == 0;
	int fd = is_stdout ? STDOUT_FILENO
			   : open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
	int rc = fd < 0 ? -errno : 0;

	while (rc == 0 && len > 0) {
		ssize_t n = write(fd, value, len);

		if (n < 0) {
			rc = errno == EINTR ? 0 : -errno;
			continue;
		}
		value += n;
		len -= (size_t)n;
	}
	if (fd >= 0 && !is_stdout && close(fd) != 0 && rc == 0) {
		rc = -errno;
	}
	if (rc != 0) {
		return cli_fail(CLI_UNREACHED, "%s: %s", is_stdout ? "standard output" : path,
				strerror(-rc));
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

	rc = rc != CLI_OK ? rc : store_open(&values->store, true, &store);
	if (rc != CLI_OK) {
		return rc;
	}
	rc = get_one(values, &store, argv[0], &value, &len);
	store_close(&store);
	if (rc == CLI_OK) {
		/* Only now: a miss leaves an existing file as it is. */
		rc = write_value(argc > 1 ? argv[1] : NULL, value, len);
	}
	free(value);
	return rc;
}

static const struct option options[] = {
	BLOCK_OPTIONS,
	BLOCK_ROUTE_OPTION("all shards are asked"),
};
static const struct cli_example examples[] = {
	{ "headrace get --url tcp:127.0.0.1:7450 greeting hello.txt", "into a file" },
	{ "headrace get key1 | sha256sum", "to standard output, from $HEADRACE_URL" },
};
const struct cli_command cmd_get = {
	.name = "get",
	.usage = "KEY [FILE]",
	.summary = "writes one block to FILE or standard output",
	.text =
	    "Every byte was verified from the writer's memory to ours when this says OK. On a miss FILE is not touched, and the reason is told.",
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
