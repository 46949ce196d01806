/* sim.h - a simulated world: one clock, one random source, devices and networks, all driven by one seed in one thread.
 *
 * What:       several `struct io`s (client's, server's) share one world. sim_run_until_idle()/sim_step() move time from event to
 *             event; the same seed and the same program give the same sequence of events, which sim_trace_hash() condenses.
 * Threads:    one.
 * Tests:      tests/unit/io/test_sim.c
 */
#ifndef HR_IO_SIM_H
#define HR_IO_SIM_H

#include <stdbool.h>
#include <stdint.h>

struct sim;
struct io;

int sim_create(uint64_t seed, struct sim **ret_sim);
void sim_destroy(struct sim *sim);
uint64_t sim_seed(const struct sim *sim);

/* Runs every io of the world until no callback is due now, then jumps to the next event and runs what is due there. False when nothing
 * happened and nothing is left to happen. io_run() on an io of the world moves the whole world until that io had something to do or
 * its limit has passed; where it would wait for ever it returns -EDEADLK. */
bool sim_step(struct sim *sim);
/* sim_step() until done(arg) or until simulated time has moved by limit_us. True when done(arg) held. */
bool sim_run(struct sim *sim, bool (*done)(void *arg), void *arg, uint64_t limit_us);
uint64_t sim_now_us(const struct sim *sim);

/* Every event (operation, completion, message, timer) is folded into the hash, and written as a line to `file` when one is set. */
uint64_t sim_trace_hash(const struct sim *sim);
void sim_trace_to(struct sim *sim, void *file /* FILE *, borrowed, or NULL */);

/* -- devices --------------------------------------------------------------------------------------------------------------- */
enum sim_device_kind {
	SIM_DEVICE_BYTES, /* Keeps what was written, in memory, sparse. */
	SIM_DEVICE_PAYLOAD_FREE, /* Keeps pages for which `keep_page` answers true; makes the others again by `make_page`. */
};
struct sim_device_options {
	enum sim_device_kind kind;
	uint64_t size_bytes;
	uint64_t latency_us_min, latency_us_max; /* per operation, drawn from the seed */
	uint64_t bytes_per_second;		 /* 0 = no limit */
	bool block_device; /* Looks like a raw device: stable zeros, no preparation needed. */
	/* PAYLOAD_FREE: called with each 4 KiB page written; true keeps its bytes. */
	bool (*keep_page)(void *arg, uint64_t off, const void *page);
	void (*make_page)(void *arg, uint64_t off, void *ret_page);
	void *arg;
};
int sim_device_add(struct sim *sim, const char *name, const struct sim_device_options *options);

/* Power cut: every write that was not stable is kept, dropped, torn at a 512-byte boundary or (garble) replaced by noise, each drawn from the seed. Operations under
 * way complete with -EIO. The devices' contents are then what a next owner finds: what was opened before the cut answers -EIO to
 * everything and changes nothing, so open it again. */
enum { SIM_CUT_DROP = 1, SIM_CUT_TEAR = 2, SIM_CUT_GARBLE = 4 };
void sim_power_cut(struct sim *sim, const char *name, unsigned how);

/* The n-th operation from now (1 = the next) fails with err, once (or for ever with `sticky`). 0 = no fault. Of a write that fails a drawn
 * part may have reached the device. */
void sim_device_fail_nth(struct sim *sim, const char *name, uint64_t n, int err, bool sticky);
/* Reads that touch [off, off + len) fail with -EIO until cleared (len 0 clears all). */
void sim_device_bad_range(struct sim *sim, const char *name, uint64_t off, uint64_t len);
void sim_device_gone(struct sim *sim, const char *name, bool gone); /* every operation -ENODEV */
/* Direct access to the contents, for tests that damage them. */
int sim_device_peek(struct sim *sim, const char *name, uint64_t off, void *buf, uint64_t len);
int sim_device_poke(struct sim *sim, const char *name, uint64_t off, const void *buf, uint64_t len);
uint64_t sim_device_ops(const struct sim *sim, const char *name); /* operations begun so far */

/* -- network --------------------------------------------------------------------------------------------------------------- */
struct sim_net_options {
	uint64_t latency_us_min, latency_us_max;
	uint32_t drop_conn_ppm; /* chance per send that the connection breaks instead */
	uint32_t recv_split_max; /* 0 = as sent; else receives are split at random lengths up to this */
};
void sim_net_set(struct sim *sim, const struct sim_net_options *options);
void sim_net_partition(struct sim *sim, const char *address,
		       bool cut);	 /* connects fail, streams to it stall */
void sim_net_break_all(struct sim *sim); /* every stream ends with -ECONNRESET */

#endif
