/* hello.c - puts a block and gets it back: the shortest whole program on libheadrace.
 *
 *     cc hello.c $(pkg-config --cflags --libs libheadrace) -o hello
 *     HEADRACE_URL='file:/tmp/hello.img?size=64MiB' ./hello
 */
#include <headrace/headrace.h>
#include <stdio.h>

int
main(void)
{
	char detail[HR_DETAIL_BYTES], buf[64];
	struct hr_client *client;
	struct hr_space *space;
	size_t len;
	int rc;

	rc = hr_open(NULL, NULL, &client, detail); /* $HEADRACE_URL */
	if (rc != 0) {
		fprintf(stderr, "%s\n", detail);
		return 1;
	}
	rc = hr_space_open_name(client, "hello", &space);
	if (rc == 0) {
		rc = hr_put(space, "greeting", 8, "hello, headrace", 15, NULL);
	}
	if (rc == 0) {
		rc = hr_get(space, "greeting", 8, buf, sizeof(buf), &len, NULL);
	}
	if (rc == 0) {
		printf("%.*s\n", (int)len, buf);
	} else if (rc > 0) {
		printf("miss: %s\n", hr_reason_name(rc)); /* not an error: compute it */
	} else {
		fprintf(stderr, "%s\n", hr_strerror(rc));
	}
	hr_close(client);
	return rc == 0 ? 0 : 1;
}
