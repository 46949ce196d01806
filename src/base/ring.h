/* ring.h — bounded lock-free rings of pointers between threads: one or many producers, one consumer.
 *
 * What:       control messages (map changes, drain, statistics) go through these; never the data path. A full ring refuses.
 * Not here:   waking the consumer: the producer does that itself (io_wake()) after a push that succeeded.
 * Threads:    spsc: one pushing thread, one popping thread. mpsc: any pushing threads, one popping thread. init and fini alone.
 * Ownership:  a pointer pushed is passed on to the consumer.
 * Errors:     push says false when the ring is full; counted in refused_count.
 * Invariants: pops give what one producer pushed in its order. Whatever the producer wrote before push is visible after pop.
 * Limits:     a power of two of slots, chosen at init.
 * Tests:      tests/unit/base/test_ring.c, also under TSan
 */
#ifndef HR_BASE_RING_H
#define HR_BASE_RING_H

#include <errno.h>
#include <stdatomic.h>
#include <stdlib.h>

#include "base/base.h"

struct spsc_ring {
	/* Each side's own counter on its own line, so that neither steals the other's. */
	HR_CACHELINE_ALIGNED _Atomic uint64_t head; /* Next to pop; written by the consumer. */
	HR_CACHELINE_ALIGNED _Atomic uint64_t tail; /* Next to push; written by the producer. */
	_Atomic uint64_t refused_count;
	HR_CACHELINE_ALIGNED void **slots;
	uint64_t mask;
};

/* slots_count is a power of two. -EINVAL, -ENOMEM. */
HR_WARN_UNUSED static inline int
spsc_ring_init(struct spsc_ring *ring, size_t slots_count)
{
	void **slots;

	if (!is_pow2(slots_count)) {
		return -EINVAL;
	}
	slots = calloc(slots_count, sizeof(*slots));
	if (slots == NULL) {
		return -ENOMEM;
	}
	atomic_init(&ring->head, 0);
	atomic_init(&ring->tail, 0);
	atomic_init(&ring->refused_count, 0);
	ring->slots = slots;
	ring->mask = slots_count - 1;
	return 0;
}

/* What is still inside is the caller's to drain first. */
static inline void
spsc_ring_fini(struct spsc_ring *ring)
{
	free(ring->slots);
	ring->slots = NULL;
}

HR_WARN_UNUSED static inline bool
spsc_ring_push(struct spsc_ring *ring, void *message)
{
	uint64_t tail = atomic_load_explicit(&ring->tail, memory_order_relaxed);
	/* Pairs with the release in pop: the slot was read before it is written again. */
	uint64_t head = atomic_load_explicit(&ring->head, memory_order_acquire);

	if (tail - head > ring->mask) {
		atomic_fetch_add_explicit(&ring->refused_count, 1, memory_order_relaxed);
		return false;
	}
	ring->slots[tail & ring->mask] = message;
	/* Pairs with the acquire in pop: the message is visible before the counter says so. */
	atomic_store_explicit(&ring->tail, tail + 1, memory_order_release);
	return true;
}

/* NULL when empty. */
static inline void *
spsc_ring_pop(struct spsc_ring *ring)
{
	uint64_t head = atomic_load_explicit(&ring->head, memory_order_relaxed);
	uint64_t tail = atomic_load_explicit(&ring->tail, memory_order_acquire);
	void *message;

	if (head == tail) {
		return NULL;
	}
	message = ring->slots[head & ring->mask];
	atomic_store_explicit(&ring->head, head + 1, memory_order_release);
	return message;
}

/* Vyukov's bounded queue with a sequence number in each slot: slot i takes push number n when its sequence is n, and gives it
 * to pop when it is n + 1; after the pop it is n + slots, ready for the next round. */
struct mpsc_slot {
	_Atomic uint64_t seq;
	void *message;
};

struct mpsc_ring {
	HR_CACHELINE_ALIGNED uint64_t head; /* The consumer's alone. */
	HR_CACHELINE_ALIGNED _Atomic uint64_t tail;
	_Atomic uint64_t refused_count;
	HR_CACHELINE_ALIGNED struct mpsc_slot *slots;
	uint64_t mask;
};

HR_WARN_UNUSED static inline int
mpsc_ring_init(struct mpsc_ring *ring, size_t slots_count)
{
	struct mpsc_slot *slots;

	if (!is_pow2(slots_count)) {
		return -EINVAL;
	}
	slots = calloc(slots_count, sizeof(*slots));
	if (slots == NULL) {
		return -ENOMEM;
	}
	for (size_t i = 0; i < slots_count; i++) {
		atomic_init(&slots[i].seq, i);
	}
	ring->head = 0;
	atomic_init(&ring->tail, 0);
	atomic_init(&ring->refused_count, 0);
	ring->slots = slots;
	ring->mask = slots_count - 1;
	return 0;
}

static inline void
mpsc_ring_fini(struct mpsc_ring *ring)
{
	free(ring->slots);
	ring->slots = NULL;
}

HR_WARN_UNUSED static inline bool
mpsc_ring_push(struct mpsc_ring *ring, void *message)
{
	uint64_t tail = atomic_load_explicit(&ring->tail, memory_order_relaxed);

	for (;;) {
		struct mpsc_slot *slot = &ring->slots[tail & ring->mask];
		/* Pairs with the release in pop. */
		uint64_t seq = atomic_load_explicit(&slot->seq, memory_order_acquire);

		if (seq == tail) {
			/* Relaxed: the claim orders nothing, the slot's sequence does. */
			if (atomic_compare_exchange_weak_explicit(&ring->tail, &tail, tail + 1,
								  memory_order_relaxed,
								  memory_order_relaxed)) {
				slot->message = message;
				/* Pairs with the acquire in pop. */
				atomic_store_explicit(&slot->seq, tail + 1, memory_order_release);
				return true;
			}
		} else if ((int64_t)(seq - tail) < 0) {
			atomic_fetch_add_explicit(&ring->refused_count, 1, memory_order_relaxed);
			return false;
		} else {
			tail = atomic_load_explicit(&ring->tail, memory_order_relaxed);
		}
	}
}

/* NULL when empty, or when the oldest push has claimed its slot and not yet filled it: its producer wakes us when it has. */
static inline void *
mpsc_ring_pop(struct mpsc_ring *ring)
{
	struct mpsc_slot *slot = &ring->slots[ring->head & ring->mask];
	uint64_t seq = atomic_load_explicit(&slot->seq, memory_order_acquire);
	void *message;

	if (seq != ring->head + 1) {
		return NULL;
	}
	message = slot->message;
	atomic_store_explicit(&slot->seq, ring->head + ring->mask + 1, memory_order_release);
	ring->head++;
	return message;
}

#endif
