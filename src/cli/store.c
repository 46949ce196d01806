/* store.c — see store.h. */
#include "cli/store.h"

#include <errno.h>
#include <stdlib.h>

int
store_fail(const struct store *store, int rc, const char *what)
{
	char detail[HR_DETAIL_BYTES] = "";

	if (store->client != NULL) {
		hr_client_detail(store->client, detail, sizeof(detail));
	}
	/* The handle's line says why in more words than the code. */
	return cli_fail(cli_exit_of_error(rc), "%s: %s: %s", store->url, what,
			detail[0] != '\0' ? detail : hr_strerror(rc));
}

static int
open_space(struct store *store, const char *name)
{
	int rc = hr_space_open_name(store->client, name, &store->space);

	if (rc == -EINVAL) {
		return cli_fail(
		    CLI_USAGE,
		    "--space \"%s\": a name, or sha256: and 64 hexadecimal digits, is wanted", name);
	}
	return rc != 0 ? store_fail(store, rc, "opening the space") : CLI_OK;
}

int
store_open(const struct store_values *values, bool with_space, struct store *ret_store)
{
	const char *url = values->url;
	struct store store = { .url = url, .timeout_ms = (uint32_t)(values->timeout_us / 1000) };
	struct hr_options options;
	char detail[HR_DETAIL_BYTES] = "";
	int rc;

	if (url == NULL || url[0] == '\0') {
		return cli_fail(
		    CLI_USAGE,
		    "no store is named: give --url URL or set HEADRACE_URL (file:PATH?size=8GiB, unix:PATH or tcp:HOST:PORT)");
	}
	hr_options_init(&options);
	options.token_file = values->token_file;
	options.name = "headrace";
	rc = hr_open(url, &options, &store.client, detail);
	if (rc != 0) {
		return cli_fail_on(url, rc, detail);
	}
	if (detail[0] != '\0') { /* an image that keeps its size, though another is asked for */
		fprintf(stderr, "headrace: %s\n", detail);
	}
	rc = hr_client_ready(store.client, store.timeout_ms);
	if (rc != 0) {
		rc = store_fail(&store, rc, "the store does not answer");
		goto out_close;
	}
	if (with_space) {
		rc = open_space(&store, values->space);
		if (rc != CLI_OK) {
			goto out_close;
		}
	}
	*ret_store = store;
	return CLI_OK;
out_close:
	store_close(&store);
	return rc;
}

void
store_close(struct store *store)
{
	if (store->space != NULL) {
		hr_space_close(store->space);
	}
	hr_close(store->client);
	store->space = NULL;
	store->client = NULL;
}

int
store_batch(const struct store *store, enum hr_op op, struct hr_item *items, uint32_t count,
	    const struct hr_submit_options *options, struct hr_completion *ret_completion)
{
	hr_ticket_t ticket = hr_submit(store->space, op, items, count, options);
	int rc;

	if (ticket < 0) {
		return store_fail(store, (int)ticket, "submitting");
	}
	rc = hr_wait(store->client, ticket, UINT32_MAX, ret_completion);
	return rc != 0 ? store_fail(store, rc, "waiting") : CLI_OK;
}

void
cli_hex_bytes(const uint8_t *bytes, size_t count, char *ret_text)
{
	for (size_t i = 0; i < count; i++) {
		ret_text[2 * i] = "0123456789abcdef"[bytes[i] >> 4];
		ret_text[2 * i + 1] = "0123456789abcdef"[bytes[i] & 15];
	}
	ret_text[2 * count] = '\0';
}

size_t
cli_text_len(const uint8_t *at, size_t left)
{
	size_t len = at[0] < 0x80 ? 1 : at[0] < 0xc2 ? 0 : at[0] < 0xe0 ? 2 : at[0] < 0xf0 ? 3 : 4;

	if (len == 1) {
		return at[0] >= 0x20 && at[0] != 0x7f ? 1 : 0;
	}
	if (len == 0 || len > left || at[0] > 0xf4) {
		return 0;
	}
	for (size_t i = 1; i < len; i++) {
		if ((at[i] & 0xc0) != 0x80) {
			return 0;
		}
	}
	/* Not the shortest form, surrogates, beyond the last character; and control characters of two bytes. */
	if ((at[0] == 0xe0 && at[1] < 0xa0) || (at[0] == 0xed && at[1] > 0x9f) ||
	    (at[0] == 0xf0 && at[1] < 0x90) || (at[0] == 0xf4 && at[1] > 0x8f) ||
	    (at[0] == 0xc2 && at[1] < 0xa0)) {
		return 0;
	}
	return len;
}

const char *
cli_key_text(const void *key, size_t key_len, char *ret_text, size_t ret_bytes)
{
	const uint8_t *at = key;
	size_t n = 0;

	for (size_t i = 0; i < key_len && n + 5 < ret_bytes;) {
		size_t len = at[i] == '\\' ? 0 : cli_text_len(at + i, key_len - i);

		if (len > 0) {
			memcpy(ret_text + n, at + i, len);
			n += len;
			i += len;
		} else {
			n += (size_t)snprintf(ret_text + n, 5, "\\x%02x", at[i++]);
		}
	}
	ret_text[n] = '\0';
	return ret_text;
}
