/* http.c - two pages. */
#define HR_LOG_COMPONENT "http"
#include "server/http.h"

#include <arpa/inet.h>
#include <microhttpd.h>
#include <netdb.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/log.h"
#include "server/metrics.h"

enum { HTTP_CONNECTIONS_MAX = 64, HTTP_TIMEOUT_S = 10 };

struct http {
	struct MHD_Daemon *daemon;
	char address[300];
	/* Held while a page is made: the node does not go meanwhile. */
	pthread_mutex_t mutex;
	struct node *node;
	bool was_there;
};

static enum MHD_Result
answer(struct MHD_Connection *connection, unsigned status, const char *type, char *text)
{
	struct MHD_Response *response =
	    MHD_create_response_from_buffer(strlen(text), text, MHD_RESPMEM_MUST_FREE);
	enum MHD_Result rc;

	if (response == NULL) {
		free(text);
		return MHD_NO;
	}
	MHD_add_response_header(response, MHD_HTTP_HEADER_CONTENT_TYPE, type);
	MHD_add_response_header(response, MHD_HTTP_HEADER_CACHE_CONTROL, "no-store");
	rc = MHD_queue_response(connection, status, response);
	MHD_destroy_response(response);
	return rc;
}

static enum MHD_Result
answer_line(struct MHD_Connection *connection, unsigned status, const char *line)
{
	size_t len = strlen(line) + 2;
	char *text = malloc(len);

	if (text == NULL) {
		return MHD_NO;
	}
	snprintf(text, len, "%s\n", line);
	return answer(connection, status, "text/plain; charset=utf-8", text);
}

static enum MHD_Result
page_health(struct http *http, struct MHD_Connection *connection)
{
	char why[DETAIL_BYTES];
	bool ready = false;

	if (http->node == NULL) {
		snprintf(why, sizeof(why), "%s", http->was_there ? "stopping" : "starting");
	} else {
		ready = node_health(http->node, why);
	}
	return answer_line(connection, ready ? MHD_HTTP_OK : MHD_HTTP_SERVICE_UNAVAILABLE, why);
}

static enum MHD_Result
page_metrics(struct http *http, struct MHD_Connection *connection)
{
	char *stat = http->node != NULL ? node_stat_json(http->node) : NULL, *text = NULL;
	json_t *root = stat != NULL ? json_loads(stat, 0, NULL) : NULL;

	if (root != NULL) {
		text = metrics_format(root);
	}
	json_decref(root);
	free(stat);
	if (text == NULL) {
		return answer_line(connection, MHD_HTTP_SERVICE_UNAVAILABLE, "not yet, or no more");
	}
	return answer(connection, MHD_HTTP_OK, "text/plain; version=0.0.4; charset=utf-8", text);
}

static enum MHD_Result
request_cb(void *arg, struct MHD_Connection *connection, const char *url, const char *method,
	   const char *version, const char *upload, size_t *upload_bytes, void **state)
{
	struct http *http = arg;
	enum MHD_Result rc;

	(void)version;
	(void)upload;
	(void)state;
	if (strcmp(method, MHD_HTTP_METHOD_GET) != 0 && strcmp(method, MHD_HTTP_METHOD_HEAD) != 0) {
		*upload_bytes = 0;
		return answer_line(connection, MHD_HTTP_METHOD_NOT_ALLOWED, "GET and HEAD only");
	}
	if (strcmp(url, "/healthz") != 0 && strcmp(url, "/metrics") != 0) {
		return answer_line(connection, MHD_HTTP_NOT_FOUND,
				   "there are /healthz and /metrics");
	}
	pthread_mutex_lock(&http->mutex);
	rc = strcmp(url, "/healthz") == 0 ? page_health(http, connection)
					  : page_metrics(http, connection);
	pthread_mutex_unlock(&http->mutex);
	return rc;
}

static int
address_resolve(const char *address, struct addrinfo **ret_list, struct errbuf *err)
{
	struct addrinfo hints = { .ai_socktype = SOCK_STREAM, .ai_flags = AI_PASSIVE };
	const char *colon = strrchr(address, ':');
	char host[256];
	int rc;

	snprintf(host, sizeof(host), "%.*s", colon != NULL ? (int)(colon - address) : 0, address);
	if (host[0] == '[') {
		memmove(host, host + 1, strlen(host));
		host[strcspn(host, "]")] = '\0';
	}
	rc = getaddrinfo(host, colon != NULL ? colon + 1 : "", &hints, ret_list);
	return rc == 0 ? 0
		       : errf(err, -EADDRNOTAVAIL, "--http %.120s: %s", address, gai_strerror(rc));
}

static void
uri_log(void *arg, const char *fmt, va_list args)
{
	(void)arg;
	(void)fmt;
	(void)args; /* what strangers send is no event of ours */
}

int
http_start(const char *address, struct http **ret_http, struct errbuf *err)
{
	struct http *http = calloc(1, sizeof(*http));
	const union MHD_DaemonInfo *info;
	struct addrinfo *list = NULL;
	unsigned flags = MHD_USE_INTERNAL_POLLING_THREAD | MHD_USE_AUTO | MHD_USE_ERROR_LOG;
	int rc;

	if (http == NULL) {
		return errf(err, -ENOMEM, "out of memory");
	}
	rc = address_resolve(address, &list, err);
	if (rc != 0) {
		free(http);
		return rc;
	}
	pthread_mutex_init(&http->mutex, NULL);
	if (list->ai_family == AF_INET6) {
		flags |= MHD_USE_IPv6;
	}
	errno = 0;
	http->daemon = MHD_start_daemon(flags, 0, NULL, NULL, request_cb, http,
					MHD_OPTION_EXTERNAL_LOGGER, uri_log, NULL,
					MHD_OPTION_SOCK_ADDR, list->ai_addr,
					MHD_OPTION_CONNECTION_LIMIT, (unsigned)HTTP_CONNECTIONS_MAX,
					MHD_OPTION_CONNECTION_TIMEOUT, (unsigned)HTTP_TIMEOUT_S,
					MHD_OPTION_END);
	rc = errno != 0 ? -errno : -EADDRNOTAVAIL;
	freeaddrinfo(list);
	if (http->daemon == NULL) {
		pthread_mutex_destroy(&http->mutex);
		free(http);
		return errf(err, rc, "cannot listen on http %.120s: %s", address, error_text(rc));
	}
	info = MHD_get_daemon_info(http->daemon, MHD_DAEMON_INFO_BIND_PORT);
	snprintf(http->address, sizeof(http->address), "%.*s:%u",
		 (int)(strrchr(address, ':') - address), address, info != NULL ? info->port : 0u);
	*ret_http = http;
	return 0;
}

void
http_node_set(struct http *http, struct node *node)
{
	if (http == NULL) {
		return;
	}
	pthread_mutex_lock(&http->mutex);
	http->was_there = http->was_there || http->node != NULL;
	http->node = node;
	pthread_mutex_unlock(&http->mutex);
}

const char *
http_address(const struct http *http)
{
	return http->address;
}

void
http_stop(struct http *http)
{
	if (http != NULL) {
		MHD_stop_daemon(http->daemon);
		pthread_mutex_destroy(&http->mutex);
		free(http);
	}
}
