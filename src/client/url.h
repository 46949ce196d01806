/* url.h - where a store is: file:PATH?size=8GiB&dram=1GiB, unix:PATH, tcp:HOST:PORT[,HOST:PORT…].
 *
 * What:       parses, checks, and copies into one struct. Nothing is opened.
 * Errors:     -HR_EURL and one line that names the part and the value wanted.
 * Limits:     URL_ADDRESSES_MAX addresses. A tcp: host without a port has URL_TCP_PORT.
 * Tests:      tests/unit/client/test_url.c
 */
#ifndef HR_CLIENT_URL_H
#define HR_CLIENT_URL_H

#include "base/error.h"

enum { URL_ADDRESSES_MAX = 64, URL_TCP_PORT = 7450 };

enum url_kind { URL_FILE, URL_UNIX, URL_TCP };

struct url {
	enum url_kind kind;
	char *path;	  /* file:, unix: */
	char **addresses; /* as io_connect() takes them; none for file: */
	unsigned addresses_count;
	/* file: only; 0 = not given */
	uint64_t size_bytes;
	uint64_t dram_bytes;
	uint64_t segment_bytes;
	uint32_t shards_count;
	char sync[8]; /* "", "flush" or "dsync" */
};

HR_WARN_UNUSED int url_parse(const char *text, struct url *ret_url, struct errbuf *err);
void url_fini(struct url *url); /* A zeroed one is fine. */

#endif
