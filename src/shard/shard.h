/* shard.h - the single-threaded program: sessions, frames, queues and one or more engines on one io.
 *
 * What:       speaks docs/protocol/README.md on its connections and turns frames into calls of engine.h. Owns everything that it touches: no locks.
 *             Loads before stores; every queue is bounded and counted; payload goes from the socket into the arena and back, without a bounce buffer.
 * Not here:   threads, devices, configuration (node.h), the codec (wire/).
 * Threads:    one: the io's. node.h runs several of these and hands connections over between them.
 * Limits:     shard_options.
 * Tests:      tests/unit/shard/, tests/sim/, tests/func/
 */
#ifndef HR_SHARD_SHARD_H
#define HR_SHARD_SHARD_H

#include <stdbool.h>
#include <stdint.h>

#include "engine/engine.h"
#include "io/io.h"
#include "wire/wire.h"

struct shard; /* one per thread; serves one or more engines */

enum {
	SHARD_CONNS_MAX_DEFAULT = 4096,
	SHARD_CONNS_SLACK = 64, /* beyond conns_max that are told so, not just closed */
};

struct shard_options {
	uint8_t node_uuid[16];
	const char *
	    node_text; /* "tcp=127.0.0.1:7450 unix=/run/headrace.sock": addresses for the map; may be set later */
	uint32_t conns_max;	    /* 0 = 4,096 */
	uint32_t requests_max;	    /* in flight per connection; 0 = 1,024 */
	uint64_t request_bytes_max; /* PUT payload being received per connection; 0 = 128 MiB */
	uint64_t output_bytes_max; /* queued output per connection; 0 = 64 MiB; beyond it nothing is read from it */
	uint64_t borrow_bytes_max; /* per connection; 0 = a quarter of the arena */
	uint32_t stalled_reader_s; /* a peer that takes nothing for so long while its output is full, or stops within a frame, is ended; 0 = 30 */
	uint32_t hello_timeout_s;  /* 0 = 10 */
	/* A HELLO for a shard of another thread: takes over the detached descriptor and the HELLO frame's bytes. -ENOENT: no such shard;
	 * -EAGAIN: its thread has as many before it as it takes. */
	int (*hand_over)(void *arg, const uint8_t shard_uuid[16], int fd, const void *hello,
			 size_t hello_bytes);
	/* The map for HELLO's answer; the shard fills in its own when NULL. Borrowed until the next call. */
	const struct wire_map *(*map)(void *arg);
	/* STAT of the whole node, which takes the help of other threads: the answer comes by shard_stat_answer() with this token. False: too many are
	 * under way. NULL: STAT says what this shard knows. */
	bool (*stat_request)(void *arg, uint64_t token);
	void *arg;
};

int shard_create(struct io *io, const struct shard_options *options, struct shard **ret_shard);
/* The engine stays the caller's. Requests for it are refused (shard failed / busy) until it is ready. */
int shard_engine_add(struct shard *shard, struct engine *engine);
/* Ends its sessions; cb once nothing of the shard refers to the engine any more. To be called after engine_stop()'s callback. */
void
shard_engine_remove(struct shard *shard, struct engine *engine, void (*cb)(void *arg), void *arg);
int shard_listen(struct shard *shard, const char *address,
		 const char **ret_address); /* the real one; lives as long as the shard */
/* A connection from elsewhere, with the HELLO that was read already (copied). */
int shard_adopt(struct shard *shard, int fd, const void *hello, size_t hello_bytes);
/* Says GOAWAY, refuses new work, lets what is under way finish, then closes; cb once all connections are gone. */
void shard_drain(struct shard *shard, uint64_t limit_us, void (*cb)(void *arg), void *arg);
void shard_destroy(struct shard *shard); /* after drain; no connection is left */
void shard_map_push(struct shard *shard);
/* Addresses for the map, once they are known. Copied. */
void shard_node_text_set(struct shard *shard, const char *text);
/* The answer to a stat_request; json is malloc'ed and becomes the shard's. NULL: refused as busy. A token whose connection is gone is fine. */
void shard_stat_answer(struct shard *shard, uint64_t token, char *json);

struct shard_stat {
	uint64_t conns_now, conns_total, conns_refused, conns_handed_over, conns_ended_bad_input,
	    conns_ended_stalled, conns_ended_hello_timeout, conns_ended_error;
	uint64_t requests[64], items[64]; /* by opcode */
	uint64_t bytes_in, bytes_out, payload_bytes_in, payload_bytes_out, payload_bytes_shared,
	    payload_bytes_discarded;
	uint64_t requests_now, requests_high, output_bytes_now, output_bytes_high, put_bytes_now,
	    put_bytes_high, stores_queued_now, stores_queued_high;
	uint64_t requests_refused, stores_refused_busy, deadline_misses, cancelled_items,
	    reads_paused;
	uint64_t borrows_now, borrow_bytes_now, borrows_refused, staging_regions_now,
	    staging_bytes_now;
};
void shard_stat_get(const struct shard *shard, struct shard_stat *ret);
/* {"shards": […], "sessions": {…}} of this thread, for STAT: malloc'ed text. docs/ops/stat.md */
char *shard_stat_json(const struct shard *shard);

#endif
