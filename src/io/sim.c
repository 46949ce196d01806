/* sim.c - the simulated world's clock, events, trace, and the turns of its ios. */
#include "io/sim.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/hash.h"
#include "io/sim_impl.h"

/* Simulated clocks start here, so that no program takes 0 for "never", and all worlds begin on the same day. */
#define SIM_START_US 1000000
#define SIM_WALL_START_MS UINT64_C(1735689600000) /* 2025-01-01 */

/* Rounds at one instant after which the world is called endless: callbacks that cause each other without time passing. */
enum { SIM_ROUNDS_MAX = 10000000 };

/* -- events ------------------------------------------------------------------------------------------------------------------- */

static bool
event_before(const struct sim_event *a, const struct sim_event *b)
{
	return a->at_us != b->at_us ? a->at_us < b->at_us : a->seq < b->seq;
}

static void
event_place(struct sim *sim, uint32_t idx, struct sim_event *event)
{
	sim->heap[idx] = event;
	event->heap_idx = idx;
}

static void
event_up(struct sim *sim, uint32_t idx)
{
	struct sim_event *event = sim->heap[idx];

	while (idx > 1 && event_before(event, sim->heap[idx / 2])) {
		event_place(sim, idx, sim->heap[idx / 2]);
		idx /= 2;
	}
	event_place(sim, idx, event);
}

static void
event_down(struct sim *sim, uint32_t idx)
{
	struct sim_event *event = sim->heap[idx];
	uint32_t child;

	while ((child = idx * 2) <= sim->heap_count) {
		if (child < sim->heap_count && event_before(sim->heap[child + 1], sim->heap[child])) {
			child++;
		}
		if (!event_before(sim->heap[child], event)) {
			break;
		}
		event_place(sim, idx, sim->heap[child]);
		idx = child;
	}
	event_place(sim, idx, event);
}

void
sim_event_at(struct sim *sim, struct sim_event *event, uint64_t at_us)
{
	HR_ASSERT(event->heap_idx == 0);
	if (sim->heap_count + 1 >= sim->heap_capacity) {
		uint32_t capacity = sim->heap_capacity == 0 ? 256 : sim->heap_capacity * 2;

		sim->heap = realloc(sim->heap, capacity * sizeof(struct sim_event *));
		HR_ASSERT(sim->heap != NULL);
		sim->heap_capacity = capacity;
	}
	event->at_us = HR_MAX(at_us, sim->now_us);
	event->seq = ++sim->event_seq;
	sim->heap[++sim->heap_count] = event;
	event_up(sim, sim->heap_count);
}

void
sim_event_cancel(struct sim *sim, struct sim_event *event)
{
	uint32_t idx = event->heap_idx;
	struct sim_event *last;

	if (idx == 0) {
		return;
	}
	event->heap_idx = 0;
	last = sim->heap[sim->heap_count--];
	if (last != event) {
		event_place(sim, idx, last);
		event_up(sim, idx);
		event_down(sim, last->heap_idx);
	}
}

static void
events_fire_due(struct sim *sim)
{
	while (sim->heap_count > 0 && sim->heap[1]->at_us <= sim->now_us) {
		struct sim_event *event = sim->heap[1];

		sim_event_cancel(sim, event);
		event->fire(sim, event);
	}
}

/* -- draws and trace ------------------------------------------------------------------------------------------------------------ */

uint64_t
sim_draw_between(struct sim *sim, uint64_t min, uint64_t max)
{
	/* One draw also where there is no choice: options then change times, not the course of all later draws. */
	uint64_t span = max > min ? max - min + 1 : 1;

	return min + prng_below(&sim->prng, span);
}

uint64_t
sim_random(struct sim *sim)
{
	return prng_u64(&sim->prng);
}

static void
hash_fold(struct sim *sim, uint64_t v)
{
	sim->hash = mix64(sim->hash ^ v) + 0x9e3779b97f4a7c15ULL;
}

void
sim_trace(struct sim *sim, const char *what, uint64_t a, uint64_t b, uint64_t c, int64_t d)
{
	const char *p;

	hash_fold(sim, sim->now_us);
	for (p = what; *p != '\0'; p++) {
		hash_fold(sim, (uint8_t)*p);
	}
	hash_fold(sim, a);
	hash_fold(sim, b);
	hash_fold(sim, c);
	hash_fold(sim, (uint64_t)d);
	if (sim->file != NULL) {
		(void)fprintf(sim->file,
			      "%" PRIu64 " %s %" PRIu64 " %" PRIu64 " %" PRIu64 " %" PRId64 "\n",
			      sim->now_us, what, a, b, c, d);
	}
}

void
sim_trace_timer(struct sim *sim, uint32_t io_id, uint64_t at_us)
{
	sim_trace(sim, "timer", io_id, at_us, 0, 0);
}

uint64_t
sim_trace_hash(const struct sim *sim)
{
	return sim->hash;
}

void
sim_trace_to(struct sim *sim, void *file)
{
	sim->file = file;
}

/* -- the world ------------------------------------------------------------------------------------------------------------------ */

int
sim_create(uint64_t seed, struct sim **ret_sim)
{
	struct sim *sim = calloc(1, sizeof(*sim));

	if (sim == NULL) {
		return -ENOMEM;
	}
	sim->seed = seed;
	sim->now_us = SIM_START_US;
	prng_init(&sim->prng, seed);
	list_init(&sim->ios);
	list_init(&sim->devices);
	list_init(&sim->listeners);
	list_init(&sim->streams);
	list_init(&sim->partitions);
	list_init(&sim->detached);
	sim->net.latency_us_min = 20;
	sim->net.latency_us_max = 60;
	sim->port_last = 40000;
	hash_fold(sim, seed);
	*ret_sim = sim;
	return 0;
}

void
sim_destroy(struct sim *sim)
{
	if (sim == NULL) {
		return;
	}
	HR_ASSERT(!sim->running && list_empty(&sim->ios));
	while (sim->heap_count > 0) {
		struct sim_event *event = sim->heap[1];

		sim_event_cancel(sim, event);
		event->drop(sim, event);
	}
	sim_net_free(sim);
	sim_devices_free(sim);
	free(sim->heap);
	free(sim);
}

uint64_t
sim_seed(const struct sim *sim)
{
	return sim->seed;
}

uint64_t
sim_now_us(const struct sim *sim)
{
	return sim->now_us;
}

uint64_t
sim_wall_ms(const struct sim *sim)
{
	return SIM_WALL_START_MS + sim->now_us / 1000;
}

int
sim_io_attach(struct sim *sim, struct io *io)
{
	int rc;

	rc = io->disk_ops->create(io);
	if (rc == 0) {
		rc = io->net_ops->create(io);
	}
	if (rc != 0) {
		return rc;
	}
	io->sim_id = ++sim->io_id_last;
	list_add_tail(&sim->ios, &io->sim_link);
	sim->ios_changes++;
	return 0;
}

void
sim_io_detach(struct sim *sim, struct io *io)
{
	list_del(&io->sim_link);
	sim->ios_changes++;
}

/* -- running -------------------------------------------------------------------------------------------------------------------- */

static bool
io_turn(struct io *io)
{
	uint64_t queued = io->queue_count;
	bool any;

	HR_ASSERT(!io->running);
	io->running = true;
	io_pump(io);
	any = io->queue_count != queued;
	if (io_has_due(io)) {
		(void)io_run_due(io);
		any = true;
	}
	io->running = false;
	return any;
}

/* Until no callback of any io and no event is due now. */
static bool
world_settle(struct sim *sim)
{
	uint32_t rounds = 0, changes;
	bool any = false, again;
	struct io *io, *next;

	do {
		again = false;
		events_fire_due(sim);
restart:
		changes = sim->ios_changes;
		list_for_each_entry_safe(io, next, &sim->ios, sim_link) {
			again |= io_turn(io);
			if (sim->ios_changes != changes) {
				goto restart;
			}
		}
		any |= again;
		HR_ASSERTF(++rounds < SIM_ROUNDS_MAX, "no end at %" PRIu64 " us", sim->now_us);
	} while (again || (sim->heap_count > 0 && sim->heap[1]->at_us <= sim->now_us));
	return any;
}

static bool
world_next_at(struct sim *sim, uint64_t *ret_at_us)
{
	uint64_t at_us, next_us = UINT64_MAX;
	struct io *io;

	if (sim->heap_count > 0) {
		next_us = sim->heap[1]->at_us;
	}
	list_for_each_entry(io, &sim->ios, sim_link) {
		if (io_timer_next(io, &at_us)) {
			next_us = HR_MIN(next_us, at_us);
		}
	}
	*ret_at_us = next_us;
	return next_us != UINT64_MAX; /* A timer at the end of time is nobody's event. */
}

/* Settles; then, unless `stop` held meanwhile or nothing lies before end_us, jumps to the next event and settles again. */
static bool
world_advance(struct sim *sim, uint64_t end_us)
{
	uint64_t at_us;

	if (!world_next_at(sim, &at_us) || at_us > end_us) {
		return false;
	}
	sim->now_us = HR_MAX(sim->now_us, at_us);
	(void)world_settle(sim);
	return true;
}

bool
sim_step(struct sim *sim)
{
	bool any;

	HR_ASSERT(!sim->running);
	sim->running = true;
	any = world_settle(sim);
	any |= world_advance(sim, UINT64_MAX);
	sim->running = false;
	return any;
}

bool
sim_run(struct sim *sim, bool (*done)(void *arg), void *arg, uint64_t limit_us)
{
	uint64_t end_us = limit_us > UINT64_MAX - sim->now_us ? UINT64_MAX : sim->now_us + limit_us;
	bool more = true;

	HR_ASSERT(!sim->running);
	sim->running = true;
	(void)world_settle(sim);
	while (!done(arg) && more) {
		more = world_advance(sim, end_us);
		if (!more && end_us != UINT64_MAX) {
			sim->now_us = HR_MAX(sim->now_us, end_us);
		}
	}
	sim->running = false;
	return done(arg);
}

/* A program that turns its own loop: the whole world moves until this io had something to do. */
int
sim_io_run(struct io *io, uint64_t wait_us_max)
{
	struct sim *sim = io->sim;
	uint64_t before = io->callbacks_count;
	uint64_t end_us = wait_us_max > UINT64_MAX - sim->now_us ? UINT64_MAX
								 : sim->now_us + wait_us_max;
	int rc = 0;

	HR_ASSERT(!sim->running);
	sim->running = true;
	(void)world_settle(sim);
	while (wait_us_max > 0 && io->callbacks_count == before && !io->sim_woken) {
		if (world_advance(sim, end_us)) {
			continue;
		}
		if (end_us == UINT64_MAX) {
			rc = -EDEADLK; /* Waits for ever in a world where nothing will happen. */
		} else {
			sim->now_us = end_us;
		}
		break;
	}
	io->sim_woken = false;
	sim->running = false;
	return rc != 0 ? rc : (int)(io->callbacks_count - before);
}
