/* borrow.c - reading a block where it lies: pages of the store's own memory, without a copy.
 *
 * On unix: and file: the pages are the store's, read-only, verified, and stay as they are until hr_release(). Over tcp: they are a copy that the
 * library made; the program is the same.
 *
 *	./borrow URL KEY		prints how the block lies in memory, and its checksum by addition
 */
#include <headrace/headrace.h>
#include <stdio.h>
#include <string.h>

int
main(int argc, char **argv)
{
	char detail[HR_DETAIL_BYTES];
	struct hr_completion done;
	struct hr_client *client;
	struct hr_space *space;
	struct hr_item item;
	uint64_t sum = 0;
	hr_ticket_t ticket;
	int rc = 1;

	if (argc != 3) {
		fprintf(stderr, "usage: borrow URL KEY\n");
		return 2;
	}
	if (hr_open(argv[1], NULL, &client, detail) != 0) {
		fprintf(stderr, "borrow: %s\n", detail);
		return 1;
	}
	memset(&item, 0, sizeof(item));
	item.key = argv[2];
	item.key_len = (uint32_t)strlen(argv[2]);
	item.flags = HR_GET_BORROW;
	item.expected_len = HR_LEN_ANY;
	if (hr_space_open_name(client, "default", &space) != 0) {
		hr_close(client);
		return 1;
	}
	ticket = hr_submit(space, HR_OP_GET, &item, 1, NULL);
	if (ticket > 0 && hr_wait(client, ticket, UINT32_MAX, &done) == 0) {
		if (item.status == HR_STATUS_OK) {
			for (uint32_t i = 0; i < item.borrowed_count; i++) {
				const unsigned char *bytes = item.borrowed[i].iov_base;

				for (size_t j = 0; j < item.borrowed[i].iov_len; j++) {
					sum += bytes[j];
				}
			}
			printf("%llu bytes in %u pieces, sum %llu\n", (unsigned long long)item.bytes,
			       item.borrowed_count, (unsigned long long)sum);
			rc = 0;
		} else {
			printf("%s: %s\n", argv[2], hr_reason_name((int)item.reason));
		}
		hr_release(space, &item, 1);
	}
	hr_close(client);
	return rc;
}
