/* url.c - where a store is. */
#include "client/url.h"

#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/un.h>

#include "base/size.h"

void
url_fini(struct url *url)
{
	for (unsigned i = 0; i < url->addresses_count; i++) {
		free(url->addresses[i]);
	}
	free(url->addresses);
	free(url->path);
	*url = (struct url){ 0 };
}

static int
address_add(struct url *url, char *address)
{
	char **more;

	if (address == NULL) {
		return -ENOMEM;
	}
	more = reallocarray(url->addresses, url->addresses_count + 1, sizeof(*more));
	if (more == NULL) {
		free(address);
		return -ENOMEM;
	}
	more[url->addresses_count++] = address;
	url->addresses = more;
	return 0;
}

/* "HOST", "HOST:PORT", "[V6]" or "[V6]:PORT". */
static int
tcp_address_add(struct url *url, const char *text, size_t len, struct errbuf *err)
{
	const char *end = text + len;
	const char *host_end, *colon;
	unsigned long port = URL_TCP_PORT;
	char *address, *rest;

	if (len > 0 && text[0] == '[') {
		host_end = memchr(text, ']', len);
		host_end = host_end != NULL ? host_end + 1 : NULL;
	} else {
		colon = memrchr(text, ':', len);
		host_end = colon != NULL ? colon : end;
	}
	/* Neither is a name to look up: tcp://HOST:PORT, and an IPv6 address without its brackets. */
	if (host_end == NULL || host_end == text || (host_end != end && *host_end != ':') ||
	    memchr(text, '/', len) != NULL ||
	    (text[0] != '[' && memchr(text, ':', (size_t)(host_end - text)) != NULL)) {
		return errf(err, -HR_EURL,
			    "tcp:%.*s: HOST:PORT is wanted (an IPv6 address in brackets)",
			    (int)HR_MIN(len, (size_t)100), text);
	}
	if (host_end != end) {
		port = strtoul(host_end + 1, &rest, 10);
		if (rest != end || rest == host_end + 1 || port == 0 || port > 65535) {
			return errf(err, -HR_EURL, "tcp:%.*s: the port must be 1 … 65535", (int)len,
				    text);
		}
	}
	if (asprintf(&address, "tcp:%.*s:%lu", (int)(host_end - text), text, port) < 0) {
		return -ENOMEM;
	}
	return address_add(url, address);
}

static int
tcp_parse(struct url *url, const char *text, struct errbuf *err)
{
	for (;;) {
		size_t len = strcspn(text, ",");
		int rc = tcp_address_add(url, text, len, err);

		if (rc != 0) {
			return rc;
		}
		if (text[len] == 0) {
			return 0;
		}
		if (url->addresses_count == URL_ADDRESSES_MAX) {
			return errf(err, -HR_EURL, "tcp: at most %d addresses", URL_ADDRESSES_MAX);
		}
		text += len + 1;
	}
}

static int
file_size_option(const char *name, const char *value, uint64_t *ret, struct errbuf *err)
{
	uint64_t bytes;

	if (size_parse(value, &bytes, NULL) != 0 || bytes == 0) {
		return errf(err, -HR_EURL, "file: %s=%s: a size such as 8GiB is wanted", name,
			    value);
	}
	*ret = bytes;
	return 0;
}

static int
file_option(struct url *url, const char *name, const char *value, struct errbuf *err)
{
	char *rest;
	unsigned long n;

	if (strcmp(name, "size") == 0) {
		return file_size_option(name, value, &url->size_bytes, err);
	}
	if (strcmp(name, "dram") == 0) {
		return file_size_option(name, value, &url->dram_bytes, err);
	}
	if (strcmp(name, "segment") == 0) {
		int rc = file_size_option(name, value, &url->segment_bytes, err);

		if (rc == 0 && (!is_pow2(url->segment_bytes) || url->segment_bytes < MiB(8) ||
				url->segment_bytes > GiB(1))) {
			return errf(err, -HR_EURL,
				    "file: segment=%s: a power of two from 8MiB to 1GiB is wanted",
				    value);
		}
		return rc;
	}
	if (strcmp(name, "shards") == 0) {
		n = strtoul(value, &rest, 10);
		if (*rest != 0 || rest == value || n == 0 || n > 64) {
			return errf(err, -HR_EURL, "file: shards=%s: 1 … 64 is wanted", value);
		}
		url->shards_count = (uint32_t)n;
		return 0;
	}
	if (strcmp(name, "sync") == 0) {
		if (strcmp(value, "flush") != 0 && strcmp(value, "dsync") != 0) {
			return errf(err, -HR_EURL, "file: sync=%s: flush or dsync is wanted", value);
		}
		(void)snprintf(url->sync, sizeof(url->sync), "%s", value);
		return 0;
	}
	return errf(err, -HR_EURL,
		    "file: unknown option %s; size, dram, segment, shards and sync are known", name);
}

static int
file_parse(struct url *url, const char *text, struct errbuf *err)
{
	const char *question = strchr(text, '?');
	char *options, *save = NULL;
	int rc = 0;

	url->path = question != NULL ? strndup(text, (size_t)(question - text)) : strdup(text);
	if (url->path == NULL) {
		return -ENOMEM;
	}
	if (question == NULL) {
		return 0;
	}
	options = strdup(question + 1);
	if (options == NULL) {
		return -ENOMEM;
	}
	for (char *option = strtok_r(options, "&", &save); option != NULL && rc == 0;
	     option = strtok_r(NULL, "&", &save)) {
		char *equal = strchr(option, '=');

		if (equal == NULL) {
			rc = errf(err, -HR_EURL, "file: %s: name=value is wanted behind ?", option);
			break;
		}
		*equal = 0;
		rc = file_option(url, option, equal + 1, err);
	}
	free(options);
	return rc;
}

int
url_parse(const char *text, struct url *ret_url, struct errbuf *err)
{
	struct url url = { 0 };
	int rc;

	if (strncmp(text, "file:", 5) == 0) {
		url.kind = URL_FILE;
		rc = file_parse(&url, text + 5, err);
	} else if (strncmp(text, "unix:", 5) == 0) {
		url.kind = URL_UNIX;
		url.path = strdup(text + 5);
		rc = url.path == NULL ? -ENOMEM : address_add(&url, strdup(text));
	} else if (strncmp(text, "tcp:", 4) == 0) {
		url.kind = URL_TCP;
		rc = tcp_parse(&url, text + 4, err);
	} else {
		rc = errf(err, -HR_EURL,
			  "%.100s: file:PATH?size=SIZE, unix:PATH or tcp:HOST:PORT is wanted", text);
	}
	if (rc == 0 && url.kind == URL_UNIX &&
	    strlen(url.path) >= sizeof(((struct sockaddr_un *)0)->sun_path)) {
		rc = errf(err, -HR_EURL, "%.100s…: the path of a socket has at most 107 bytes",
			  text);
	}
	if (rc == 0 && url.kind != URL_TCP && url.path[0] == 0) {
		rc = errf(err, -HR_EURL, "%.100s: a path is wanted", text);
	}
	if (rc != 0) {
		url_fini(&url);
		return rc;
	}
	*ret_url = url;
	return 0;
}
