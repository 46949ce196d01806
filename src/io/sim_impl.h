/* sim_impl.h - what the files of the simulated world share: its events, its draws, its trace.
 *
 * Invariants: W1 events fire by (time, order of scheduling). W2 every draw comes from `prng`, and no address, pointer or real time
 *             decides anything, so that the seed alone does.
 * Tests:      tests/unit/io/test_sim.c
 */
#ifndef HR_IO_SIM_IMPL_H
#define HR_IO_SIM_IMPL_H

#include "base/hashmap.h"
#include "base/prng.h"
#include "io/io_impl.h"
#include "io/sim.h"

struct sim_event {
	uint64_t at_us;
	uint64_t seq;
	uint32_t heap_idx; /* 1-based, 0 = not scheduled */
	void (*fire)(struct sim *sim, struct sim_event *event);
	void (*drop)(struct sim *sim, struct sim_event *event); /* the world ends before */
};

struct sim {
	uint64_t seed;
	struct prng prng;
	uint64_t now_us;
	uint64_t event_seq;
	struct sim_event **heap; /* 1-based */
	uint32_t heap_count, heap_capacity;
	struct list_head ios;
	uint32_t ios_changes; /* counts attaching and detaching: a walk over the list starts again */
	uint32_t io_id_last;
	bool running;
	uint64_t hash;
	void *file;
	struct list_head devices;
	uint32_t device_id_last;
	struct sim_net_options net;
	struct list_head listeners, streams, partitions, detached;
	uint32_t stream_id_last, listener_id_last, detached_last;
	uint16_t port_last;
};

void sim_event_at(struct sim *sim, struct sim_event *event, uint64_t at_us);
void sim_event_cancel(struct sim *sim, struct sim_event *event);
uint64_t sim_draw_between(struct sim *sim, uint64_t min, uint64_t max);
void sim_trace(struct sim *sim, const char *what, uint64_t a, uint64_t b, uint64_t c, int64_t d);

void sim_devices_free(struct sim *sim);
void sim_net_free(struct sim *sim);

#endif
