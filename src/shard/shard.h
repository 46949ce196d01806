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

struct shard_options {
	uint8_t node_uuid[16];
	const char *
	    node_text; /* "tcp=127.0.0.1:7450 unix=/run/headrace.sock": addresses for the map; may be set later */
	uint32_t conns_max;	    /* 0 = 4,096 */
	uint32_t requests_max;	    /* in flight per connection; 0 = 1,024 */
	uint64_t request_bytes_max; /* PUT payload being received per connection; 0 = 128 MiB */
	uint64_t output_bytes_max; /* queued output per connection; 0 = 64 MiB; beyond it nothing is read from it */
	uint64_t borrow_bytes_max; /* per connection; 0 = a quarter of the arena */
	uint32_t stalled_reader_s; /* a peer that takes nothing for so long while its output is full is ended; 0 = 30 */
	uint32_t hello_timeout_s; /* 0 = 10 */
	/* A HELLO for a shard of another thread: takes over the detached descriptor and the HELLO frame's bytes; false: no such shard. */
	bool (*hand_over)(void *arg, const uint8_t shard_uuid[16], int fd, const void *hello,
			  size_t hello_bytes);
	/* The map for HELLO's answer; the shard fills in its own when NULL. Borrowed until the next call. */
	const struct wire_map *(*map)(void *arg);
	/* STAT of the whole node as JSON (malloc'ed; freed by the shard); NULL: only this shard's. */
	char *(*stat_json)(void *arg);
	void *arg;
};

int shard_create(struct io *io, const struct shard_options *options, struct shard **ret_shard);
/* The engine stays the caller's. Requests for it are refused (shard failed / busy) until it is ready. */
int shard_engine_add(struct shard *shard, struct engine *engine);
void shard_engine_remove(
    struct shard *shard,
    struct engine *engine); /* ends its sessions; after it nothing of the shard refers to it */
int shard_listen(struct shard *shard, const char *address,
		 const char **ret_address); /* the real one; lives as long as the shard */
/* A connection from elsewhere, with the HELLO that was read already (copied). */
int shard_adopt(struct shard *shard, int fd, const void *hello, size_t hello_bytes);
/* Says GOAWAY, refuses new work, lets what is under way finish, then closes; cb once all connections are gone. */
void shard_drain(struct shard *shard, uint64_t limit_us, void (*cb)(void *arg), void *arg);
void shard_destroy(struct shard *shard); /* after drain; no connection is left */
void shard_map_push(struct shard *shard);

struct shard_stat {
	uint64_t conns_now, conns_total, conns_refused, conns_ended_bad_input, conns_ended_stalled,
	    conns_ended_hello_timeout;
	uint64_t requests[64], items[64]; /* by opcode */
	uint64_t bytes_in, bytes_out, payload_bytes_in, payload_bytes_out, payload_bytes_discarded;
	uint64_t requests_now, requests_high, output_bytes_now, output_bytes_high,
	    stores_refused_busy, deadline_misses;
	uint64_t borrows_now, borrow_bytes_now, borrows_refused, staging_regions_now,
	    staging_bytes_now;
};
void shard_stat_get(const struct shard *shard, struct shard_stat *ret);
/* {"shard": …} of one engine and of the sessions, for STAT: malloc'ed text. */
char *shard_stat_json(const struct shard *shard);

#endif
