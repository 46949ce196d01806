/* put_get.c - one block in, the same block out.
 *
 *	cc put_get.c $(pkg-config --cflags --libs libheadrace) -o put_get
 *	./put_get 'file:/tmp/example.img?size=256MiB'		(or unix:PATH, tcp:HOST:PORT; default $HEADRACE_URL)
 */
#include <headrace/headrace.h>
#include <stdio.h>
#include <string.h>

int
main(int argc, char **argv)
{
	const struct hr_pair pairs[] = {
		{ "model", "llama-3.1-8b", 12 }, /* everything that makes bytes interchangeable */
		{ "kv_dtype", "fp8_e4m3", 8 },
		{ "block_tokens", "16", 2 },
	};
	const char value[] = "what another process computed";
	char buf[64], detail[HR_DETAIL_BYTES];
	struct hr_client *client;
	struct hr_space *space;
	size_t len;
	int rc;

	rc = hr_open(argc > 1 ? argv[1] : NULL, NULL, &client, detail);
	if (rc != 0) {
		fprintf(stderr, "put_get: %s\n", detail);
		return 1;
	}
	rc = hr_space_open(client, pairs, sizeof(pairs) / sizeof(pairs[0]), &space);
	if (rc == 0) {
		rc = hr_put(space, "block-1", 7, value, sizeof(value), NULL);
		printf("put: %s\n", rc == 0  ? "stored"
				    : rc > 0 ? hr_reason_name(rc)
					     : hr_strerror(rc));
	}
	if (rc == 0) {
		rc = hr_get(space, "block-1", 7, buf, sizeof(buf), &len, NULL);
		printf("get: %s\n", rc == 0 ? buf : rc > 0 ? hr_reason_name(rc) : hr_strerror(rc));
	}
	hr_close(client);
	return rc == 0 && memcmp(buf, value, sizeof(value)) == 0 ? 0 : 1;
}
