/* shard.c - the shard program's life: engines, listeners, the work of a turn, map, drain. */
#define HR_LOG_COMPONENT "shard"
#include "shard/shard.h"

#include <errno.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/log.h"
#include "shard/shard_impl.h"

/* -- options -------------------------------------------------------------------------------------------------------------------- */

#define OR_DEFAULT(field, value) ((field) = (field) != 0 ? (field) : (value))

static void
options_fill(struct shard_options *options)
{
	OR_DEFAULT(options->conns_max, (uint32_t)SHARD_CONNS_MAX_DEFAULT);
	OR_DEFAULT(options->requests_max, 1024u);
	OR_DEFAULT(options->request_bytes_max, MiB(128));
	OR_DEFAULT(options->output_bytes_max, MiB(64));
	OR_DEFAULT(options->stalled_reader_s, 30u);
	OR_DEFAULT(options->hello_timeout_s, 10u);
}

/* Values in an output queue hold memory of the arena: no single connection may have more than a quarter of it. */
static void
options_fit(struct shard_options *options, struct engine *engine)
{
	uint64_t quarter = arena_bytes_max(engine_arena(engine)) / 4;

	options->output_bytes_max = HR_MIN(options->output_bytes_max, HR_MAX(quarter, MiB(8)));
	OR_DEFAULT(options->borrow_bytes_max, quarter);
}

int
shard_create(struct io *io, const struct shard_options *options, struct shard **ret_shard)
{
	struct shard *shard = calloc(1, sizeof(*shard));

	if (shard == NULL) {
		return -ENOMEM;
	}
	shard->io = io;
	shard->options = *options;
	options_fill(&shard->options);
	if (options->node_text != NULL) {
		shard->node_text = strdup(options->node_text);
		if (shard->node_text == NULL) {
			free(shard);
			return -ENOMEM;
		}
	}
	list_init(&shard->engines);
	list_init(&shard->listeners);
	list_init(&shard->strangers);
	list_init(&shard->working);
	list_init(&shard->stores);
	list_init(&shard->outs_spare);
	hashmap_init(&shard->stat_tokens, io_random_u64(io));
	/* Not from 1: a log that spans restarts and threads can tell connections apart. */
	shard->conn_id_next = io_random_u64(io) >> 16 << 16;
	*ret_shard = shard;
	return 0;
}

/* -- engines ---------------------------------------------------------------------------------------------------------------------- */

int
shard_engine_add(struct shard *shard, struct engine *engine)
{
	struct shard_engine *eng = calloc(1, sizeof(*eng));

	if (eng == NULL) {
		return -ENOMEM;
	}
	options_fit(&shard->options, engine);
	eng->shard = shard;
	eng->engine = engine;
	eng->output_bytes_fair = HR_MAX(arena_bytes_max(engine_arena(engine)) / 2, MiB(8));
	list_init(&eng->sessions);
	list_init(&eng->orphans);
	list_add_tail(&shard->engines, &eng->link);
	return 0;
}

/* The shard of that UUID, or with zeros the first that is not on its way out. */
struct shard_engine *
shard_engine_find(struct shard *shard, const uint8_t uuid[16])
{
	bool any = is_all_zero(uuid, 16);
	struct shard_engine *eng;

	list_for_each_entry(eng, &shard->engines, link) {
		if (eng->removing) {
			continue;
		}
		if (any ? !engine_failed(eng->engine, NULL)
			: memcmp(engine_slice(eng->engine)->shard_uuid, uuid, 16) == 0) {
			return eng;
		}
	}
	return NULL;
}

static void
shard_drained_check(struct shard *shard)
{
	void (*drained)(void *arg) = shard->drained;

	if (shard->draining && drained != NULL && shard->stat.conns_now == 0) {
		shard->drained = NULL;
		io_timer_cancel(shard->io, &shard->drain_timer);
		drained(shard->drained_arg);
	}
}

/* A session or an orphan of `eng` (NULL: of none) is no more. */
void
shard_session_gone(struct shard *shard, struct shard_engine *eng)
{
	if (eng != NULL && eng->removing && list_empty(&eng->sessions) && list_empty(&eng->orphans)) {
		void (*removed)(void *arg) = eng->removed;
		void *arg = eng->removed_arg;

		HR_DASSERT(eng->output_bytes == 0);
		list_del(&eng->link);
		free(eng);
		removed(arg);
	}
	shard_drained_check(shard);
}

void
shard_engine_remove(struct shard *shard, struct engine *engine, void (*cb)(void *arg), void *arg)
{
	struct session *session, *next;
	struct shard_engine *eng;

	list_for_each_entry(eng, &shard->engines, link) {
		if (eng->engine == engine) {
			break;
		}
	}
	HR_ASSERT(&eng->link != &shard->engines && !eng->removing);
	eng->removing = true;
	eng->removed = cb;
	eng->removed_arg = arg;
	list_for_each_entry_safe(session, next, &eng->sessions, link) {
		session_end(session);
	}
	if (list_empty(&eng->sessions) && list_empty(&eng->orphans)) {
		shard_session_gone(shard, eng);
	}
}

/* -- listeners and connections ------------------------------------------------------------------------------------------------------ */

static void
shard_accept(struct shard *shard, struct io_conn *conn)
{
	struct session *session;

	if (shard->draining ||
	    shard->stat.conns_now >= (uint64_t)shard->options.conns_max + SHARD_CONNS_SLACK ||
	    session_create(shard, conn, &session) != 0) {
		shard->stat.conns_refused++;
		log_warn("connection_refused", "peer=%s conns=%llu", io_conn_peer(conn),
			 (unsigned long long)shard->stat.conns_now);
		io_conn_close(conn);
		return;
	}
	session_run(session);
}

static void
accept_cb(void *arg, struct io_conn *conn)
{
	struct shard_listener *listener = arg;

	shard_accept(listener->shard, conn);
}

int
shard_listen(struct shard *shard, const char *address, const char **ret_address)
{
	struct shard_listener *listener = calloc(1, sizeof(*listener));
	int rc;

	if (listener == NULL) {
		return -ENOMEM;
	}
	listener->shard = shard;
	rc = io_listen(shard->io, address, accept_cb, listener, &listener->listener);
	if (rc != 0) {
		free(listener);
		return rc;
	}
	list_add_tail(&shard->listeners, &listener->link);
	*ret_address = io_listener_address(listener->listener);
	return 0;
}

int
shard_adopt(struct shard *shard, int fd, const void *hello, size_t hello_bytes)
{
	struct session *session;
	struct io_conn *conn;
	int rc = io_conn_attach(shard->io, fd, &conn);

	if (rc != 0) {
		(void)close(fd);
		return rc;
	}
	rc = session_create(shard, conn, &session);
	if (rc == 0) {
		session->adopted = true;
		rc = session_preload(session, hello, hello_bytes);
		if (rc != 0) {
			session_end(session);
			return rc;
		}
	}
	if (rc != 0) {
		io_conn_close(conn);
		return rc;
	}
	session_run(session);
	return 0;
}

/* -- the work of a turn ---------------------------------------------------------------------------------------------------------------- */

/* Loads of all connections first, then the stores that had arrived before. */
static void
work_cb(void *arg)
{
	struct shard *shard = arg;
	struct list_head working;
	struct session *session;

	list_init(&working);
	list_splice_tail(&working, &shard->working);
	while ((session = list_pop_entry(&working, struct session, work_link)) != NULL) {
		session_run(session);
	}
	shard_stores_run(shard);
}

void
shard_work_later(struct shard *shard)
{
	if (shard->work_timer.heap_idx == 0) {
		io_timer_set(shard->io, &shard->work_timer, io_now_us(shard->io), work_cb, shard);
	}
}

/* -- map ---------------------------------------------------------------------------------------------------------------------------------- */

static void
map_own_encode(struct shard *shard, struct wire_buf *buf)
{
	struct wire_map_node node = { .state = shard->draining ? WIRE_DRAINING_STATE
							       : WIRE_SERVING };
	struct wire_map map = { .epoch = 1, .nodes_count = 1, .nodes = &node };
	struct shard_engine *eng;

	memcpy(node.uuid, shard->options.node_uuid, 16);
	node.text = shard->node_text != NULL ? shard->node_text : "";
	node.text_len = (uint32_t)strlen(node.text);
	list_for_each_entry(eng, &shard->engines, link) {
		map.shards_count++;
	}
	map.shards = calloc((size_t)map.shards_count + 1, sizeof(*map.shards));
	HR_ASSERT(map.shards != NULL);
	map.shards_count = 0;
	list_for_each_entry(eng, &shard->engines, link) {
		struct wire_map_shard *row = &map.shards[map.shards_count++];

		memcpy(row->uuid, engine_slice(eng->engine)->shard_uuid, 16);
		row->weight = engine_slice(eng->engine)->weight;
		row->state = eng->removing || engine_failed(eng->engine, NULL) ? WIRE_FAILED
			     : engine_ready(eng->engine)		       ? WIRE_SERVING
									       : WIRE_JOINING;
	}
	wire_map_encode(buf, &map);
	free(map.shards);
}

void
shard_map_encode(struct shard *shard, struct wire_buf *buf)
{
	const struct wire_map *map =
	    shard->options.map != NULL ? shard->options.map(shard->options.arg) : NULL;

	if (map != NULL) {
		wire_map_encode(buf, map);
	} else {
		map_own_encode(shard, buf);
	}
}

static void
session_push(struct session *session, unsigned op)
{
	struct out *out = out_create(session, op, 0);

	if (op == WIRE_MAP) {
		out->header.items_count = 1;
		shard_map_encode(session->shard, &out->head);
	}
	out_send(session, out);
}

/* To everybody who has said HELLO. Who does not read is not sent more: its output is full, and its time runs. */
static void
push_all(struct shard *shard, unsigned op)
{
	struct shard_engine *eng;
	struct session *session;

	list_for_each_entry(eng, &shard->engines, link) {
		list_for_each_entry(session, &eng->sessions, link) {
			if (session->state == SESSION_OPEN && !session_output_full(session)) {
				session_push(session, op);
			}
		}
	}
}

void
shard_map_push(struct shard *shard)
{
	push_all(shard, WIRE_MAP);
}

/* -- drain ------------------------------------------------------------------------------------------------------------------------------ */

static void
listeners_close(struct shard *shard)
{
	struct shard_listener *listener;

	while ((listener = list_pop_entry(&shard->listeners, struct shard_listener, link)) != NULL) {
		io_listener_close(listener->listener);
		free(listener);
	}
}

static void
sessions_end_all(struct shard *shard)
{
	struct shard_engine *eng;
	struct session *session, *next;

	list_for_each_entry_safe(session, next, &shard->strangers, link) {
		session_end(session);
	}
	list_for_each_entry(eng, &shard->engines, link) {
		list_for_each_entry_safe(session, next, &eng->sessions, link) {
			session_end(session);
		}
	}
}

static void
drain_limit_cb(void *arg)
{
	struct shard *shard = arg;

	log_warn("drain_limit", "conns=%llu", (unsigned long long)shard->stat.conns_now);
	sessions_end_all(shard);
	shard_drained_check(shard);
}

/* Also says so when there was nothing to drain, but never inside the call. */
static void
drain_first_cb(void *arg)
{
	struct shard *shard = arg;
	uint64_t limit_us = shard->drain_limit_us;

	io_timer_set(shard->io, &shard->drain_timer, io_now_us(shard->io) + limit_us,
		     drain_limit_cb, shard);
	shard_drained_check(shard);
}

void
shard_drain(struct shard *shard, uint64_t limit_us, void (*cb)(void *arg), void *arg)
{
	struct session *session, *next;

	HR_ASSERT(!shard->draining);
	push_all(shard, WIRE_GOAWAY);
	shard->draining = true;
	shard->drained = cb;
	shard->drained_arg = arg;
	shard->drain_limit_us = limit_us;
	listeners_close(shard);
	list_for_each_entry_safe(session, next, &shard->strangers, link) {
		session_end(session);
	}
	io_timer_set(shard->io, &shard->drain_timer, io_now_us(shard->io), drain_first_cb, shard);
}

void
shard_destroy(struct shard *shard)
{
	struct shard_engine *eng;
	struct out *out;

	if (shard == NULL) {
		return;
	}
	listeners_close(shard);
	HR_ASSERTF(shard->stat.conns_now == 0, "conns_now=%llu",
		   (unsigned long long)shard->stat.conns_now);
	HR_ASSERT(list_empty(&shard->stores));
	while ((eng = list_pop_entry(&shard->engines, struct shard_engine, link)) != NULL) {
		HR_ASSERT(list_empty(&eng->orphans));
		HR_DASSERT(eng->output_bytes == 0);
		free(eng);
	}
	while ((out = list_pop_entry(&shard->outs_spare, struct out, link)) != NULL) {
		wire_buf_free(&out->head);
		free(out->iov);
		free(out->entries);
		free(out);
	}
	io_timer_cancel(shard->io, &shard->work_timer);
	io_timer_cancel(shard->io, &shard->drain_timer);
	hashmap_fini(&shard->stat_tokens);
	free(shard->node_text);
	free(shard);
}

void
shard_stat_get(const struct shard *shard, struct shard_stat *ret)
{
	*ret = shard->stat;
}

void
shard_node_text_set(struct shard *shard, const char *text)
{
	char *copy = strdup(text);

	HR_ASSERT(copy != NULL);
	free(shard->node_text);
	shard->node_text = copy;
}
