/* test_ring.c — bounds and counters in one thread; order, loss and visibility with real threads (run under TSan, too). */
#include "base/ring.h"

#include <pthread.h>
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

enum { PRODUCERS = 3, MESSAGES = 20000, SLOTS = 64 };

struct message {
	int producer;
	int number;
};

static void
test_bounds(void **state)
{
	struct spsc_ring spsc;
	struct mpsc_ring mpsc;
	int values[9];

	(void)state;
	assert_int_equal(spsc_ring_init(&spsc, 6), -EINVAL);
	assert_int_equal(mpsc_ring_init(&mpsc, 0), -EINVAL);
	assert_int_equal(spsc_ring_init(&spsc, 8), 0);
	assert_int_equal(mpsc_ring_init(&mpsc, 8), 0);
	for (int round = 0; round < 5; round++) {
		assert_null(spsc_ring_pop(&spsc));
		assert_null(mpsc_ring_pop(&mpsc));
		for (int i = 0; i < 8; i++) {
			assert_true(spsc_ring_push(&spsc, &values[i]));
			assert_true(mpsc_ring_push(&mpsc, &values[i]));
		}
		assert_false(spsc_ring_push(&spsc, &values[8]));
		assert_false(mpsc_ring_push(&mpsc, &values[8]));
		for (int i = 0; i < 8; i++) {
			assert_ptr_equal(spsc_ring_pop(&spsc), &values[i]);
			assert_ptr_equal(mpsc_ring_pop(&mpsc), &values[i]);
		}
	}
	assert_int_equal(spsc.refused_count, 5);
	assert_int_equal(mpsc.refused_count, 5);
	spsc_ring_fini(&spsc);
	mpsc_ring_fini(&mpsc);
}

struct spsc_arg {
	struct spsc_ring *ring;
	struct message *messages;
};

static void *
spsc_produce(void *arg_void)
{
	struct spsc_arg *arg = arg_void;

	for (int i = 0; i < MESSAGES; i++) {
		arg->messages[i].number = i; /* Not atomic: the ring must make it visible. */
		while (!spsc_ring_push(arg->ring, &arg->messages[i])) {
			sched_yield();
		}
	}
	return NULL;
}

static void
test_spsc_threads(void **state)
{
	static struct message messages[MESSAGES];
	struct spsc_ring ring;
	struct spsc_arg arg = { &ring, messages };
	pthread_t thread;

	(void)state;
	assert_int_equal(spsc_ring_init(&ring, SLOTS), 0);
	assert_int_equal(pthread_create(&thread, NULL, spsc_produce, &arg), 0);
	for (int i = 0; i < MESSAGES;) {
		struct message *message = spsc_ring_pop(&ring);

		if (message == NULL) {
			sched_yield();
			continue;
		}
		assert_int_equal(message->number, i);
		i++;
	}
	pthread_join(thread, NULL);
	assert_null(spsc_ring_pop(&ring));
	spsc_ring_fini(&ring);
}

struct mpsc_arg {
	struct mpsc_ring *ring;
	struct message *messages;
	int producer;
};

static void *
mpsc_produce(void *arg_void)
{
	struct mpsc_arg *arg = arg_void;

	for (int i = 0; i < MESSAGES; i++) {
		arg->messages[i] = (struct message){ arg->producer, i };
		while (!mpsc_ring_push(arg->ring, &arg->messages[i])) {
			sched_yield();
		}
	}
	return NULL;
}

static void
test_mpsc_threads(void **state)
{
	static struct message messages[PRODUCERS][MESSAGES];
	struct mpsc_arg args[PRODUCERS];
	pthread_t threads[PRODUCERS];
	int next[PRODUCERS] = { 0 };
	struct mpsc_ring ring;

	(void)state;
	assert_int_equal(mpsc_ring_init(&ring, SLOTS), 0);
	for (int i = 0; i < PRODUCERS; i++) {
		args[i] = (struct mpsc_arg){ &ring, messages[i], i };
		assert_int_equal(pthread_create(&threads[i], NULL, mpsc_produce, &args[i]), 0);
	}
	for (int popped = 0; popped < PRODUCERS * MESSAGES;) {
		struct message *message = mpsc_ring_pop(&ring);

		if (message == NULL) {
			sched_yield();
			continue;
		}
		assert_in_range(message->producer, 0, PRODUCERS - 1);
		assert_int_equal(message->number, next[message->producer]);
		next[message->producer]++;
		popped++;
	}
	for (int i = 0; i < PRODUCERS; i++) {
		pthread_join(threads[i], NULL);
	}
	assert_null(mpsc_ring_pop(&ring));
	mpsc_ring_fini(&ring);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_bounds),
		cmocka_unit_test(test_spsc_threads),
		cmocka_unit_test(test_mpsc_threads),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
