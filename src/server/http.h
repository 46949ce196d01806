/* http.h - /healthz and /metrics, by libmicrohttpd.
 *
 * What:       GET and HEAD of two pages; anything else is 404 or 405.
 * Threads:    libmicrohttpd's own one, which calls node_health() and node_stat_json(); start and stop from the main thread.
 * Errors:     -errno with one line naming the address.
 * Limits:     64 connections, 10 s of silence each.
 */
#ifndef HR_SERVER_HTTP_H
#define HR_SERVER_HTTP_H

#include "base/error.h"
#include "shard/node.h"

struct http;

/* "HOST:PORT". Until http_node_set() the node is said to be starting. */
int http_start(const char *address, struct http **ret_http, struct errbuf *err);
/* NULL: stopping; waits until no page refers to the node any more. */
void http_node_set(struct http *http, struct node *node);
const char *http_address(const struct http *http); /* with the real port */
void http_stop(struct http *http);

#endif
