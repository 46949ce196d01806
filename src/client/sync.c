/* sync.c - one block at a time, waiting for it. */
#include <errno.h>

#include "client/handle.h"

/* 0, a reason, or an error. */
static int
item_do(struct hr_space *space, enum hr_op op, struct hr_item *item,
	const struct hr_submit_options *options)
{
	struct hr_submit_options copy;
	hr_ticket_t ticket;
	int rc;

	if (options != NULL) {
		if (options->size < sizeof(copy)) {
			return -EINVAL;
		}
		copy = *options;
	} else {
		hr_submit_options_init(&copy);
	}
	copy.item_size = sizeof(*item); /* it is ours */
	ticket = hr_submit(space, op, item, 1, &copy);
	if (ticket < 0) {
		return (int)ticket;
	}
	rc = hr_wait(space->client, ticket, UINT32_MAX, NULL);
	if (rc != 0) {
		return rc;
	}
	switch (item->status) {
	case HR_STATUS_OK:
		return 0;
	case HR_STATUS_INVALID:
		return -EINVAL;
	default:
		return item->reason != HR_REASON_NONE ? (int)item->reason : HR_REASON_ABSENT;
	}
}

static int
key_check(const struct hr_space *space, const void *key, size_t key_len)
{
	return space == NULL || key == NULL || key_len == 0 || key_len > HR_KEY_BYTES_MAX ? -EINVAL
											  : 0;
}

int
hr_put(struct hr_space *space, const void *key, size_t key_len, const void *value, size_t value_len,
       const struct hr_submit_options *options)
{
	struct iovec iov = { (void *)(uintptr_t)value, value_len };
	struct hr_item item = {
		.key = key, .key_len = (uint32_t)key_len, .iov = &iov, .iov_count = 1
	};

	if (key_check(space, key, key_len) != 0 || (value == NULL && value_len > 0) ||
	    value_len > HR_BLOCK_BYTES_MAX) {
		return -EINVAL;
	}
	return item_do(space, HR_OP_PUT, &item, options);
}

int
hr_get(struct hr_space *space, const void *key, size_t key_len, void *buf, size_t buf_bytes,
       size_t *ret_len, const struct hr_submit_options *options)
{
	struct iovec iov = { buf, HR_MIN(buf_bytes, (size_t)HR_BLOCK_BYTES_MAX) };
	struct hr_item item = { .key = key,
				.key_len = (uint32_t)key_len,
				.iov = &iov,
				.iov_count = 1,
				.expected_len = HR_LEN_ANY };
	int rc;

	if (key_check(space, key, key_len) != 0 || (buf == NULL && buf_bytes > 0)) {
		return -EINVAL;
	}
	rc = item_do(space, HR_OP_GET, &item, options);
	if (rc != 0) {
		return rc;
	}
	if (ret_len != NULL) {
		*ret_len = item.len;
	}
	return item.len > buf_bytes ? HR_REASON_SIZE : 0;
}

int
hr_exists(struct hr_space *space, const void *key, size_t key_len, uint64_t *ret_len,
	  const struct hr_submit_options *options)
{
	struct hr_item item = { .key = key, .key_len = (uint32_t)key_len };
	int rc;

	if (key_check(space, key, key_len) != 0) {
		return -EINVAL;
	}
	rc = item_do(space, HR_OP_EXISTS, &item, options);
	if (rc == 0 && ret_len != NULL) {
		*ret_len = item.len;
	}
	return rc;
}

int
hr_delete(struct hr_space *space, const void *key, size_t key_len,
	  const struct hr_submit_options *options)
{
	struct hr_item item = { .key = key, .key_len = (uint32_t)key_len };

	if (key_check(space, key, key_len) != 0) {
		return -EINVAL;
	}
	return item_do(space, HR_OP_DELETE, &item, options);
}
