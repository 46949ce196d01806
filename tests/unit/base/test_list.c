/* test_list.c — order, removal while walking, splicing; the queue's tail after every way to become empty. */
#include "base/list.h"

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

struct item {
	int value;
	struct list_head link;
	struct queue_link qlink;
};

/* The list's values as one decimal number, and a check that both directions agree. */
static int
digits(struct list_head *head)
{
	struct item *item;
	int forward = 0;
	int backward = 0;
	int scale = 1;

	list_for_each_entry(item, head, link) {
		forward = forward * 10 + item->value;
	}
	for (struct list_head *at = head->prev; at != head; at = at->prev) {
		backward += scale * list_entry(at, struct item, link)->value;
		scale *= 10;
	}
	assert_int_equal(forward, backward);
	return forward;
}

static void
test_order(void **state)
{
	struct item items[5] = {
		{ .value = 1 }, { .value = 2 }, { .value = 3 }, { .value = 4 }, { .value = 5 }
	};
	struct list_head head = LIST_HEAD_INIT(head);
	struct list_head other;
	struct item *item, *tmp;

	(void)state;
	assert_null(list_first_entry(&head, struct item, link));
	assert_null(list_last_entry(&head, struct item, link));
	assert_null(list_pop_entry(&head, struct item, link));
	for (int i = 0; i < 5; i++) {
		list_add_tail(&head, &items[i].link);
	}
	assert_int_equal(digits(&head), 12345);
	assert_ptr_equal(list_first_entry(&head, struct item, link), &items[0]);
	assert_ptr_equal(list_last_entry(&head, struct item, link), &items[4]);
	list_for_each_entry_safe(item, tmp, &head, link) {
		if (item->value % 2 == 0) {
			list_del(&item->link);
			assert_true(list_empty(&item->link));
		}
	}
	assert_int_equal(digits(&head), 135);
	list_del(&items[1].link); /* Twice is harmless. */
	list_move_tail(&head, &items[0].link);
	assert_int_equal(digits(&head), 351);
	list_init(&other);
	list_add(&other, &items[1].link);
	list_add(&other, &items[3].link);
	list_splice_tail(&head, &other);
	assert_true(list_empty(&other));
	assert_int_equal(digits(&head), 35142);
	list_splice_tail(&head, &other);
	assert_int_equal(digits(&head), 35142);
	assert_ptr_equal(list_pop_entry(&head, struct item, link), &items[2]);
	assert_int_equal(digits(&head), 5142);
}

static void
test_zeroed_entry_is_on_no_list(void **state)
{
	struct item item = { 0 };

	(void)state;
	list_del(&item.link);
	assert_null(item.link.next);
}

static void
test_queue(void **state)
{
	struct item items[3] = { { .value = 1 }, { .value = 2 }, { .value = 3 } };
	struct queue queue;

	(void)state;
	queue_init(&queue);
	assert_null(queue_pop(&queue));
	for (int round = 0; round < 2; round++) {
		queue_push(&queue, &items[1].qlink);
		queue_push_front(&queue, &items[0].qlink);
		queue_push(&queue, &items[2].qlink);
		for (int i = 0; i < 3; i++) {
			assert_ptr_equal(queue_pop(&queue), &items[i].qlink);
		}
		assert_true(queue_empty(&queue));
	}
	queue_push_front(&queue,
			 &items[0].qlink); /* An empty queue's tail follows a push at the front. */
	queue_push(&queue, &items[1].qlink);
	assert_ptr_equal(queue_pop(&queue), &items[0].qlink);
	assert_ptr_equal(queue_pop(&queue), &items[1].qlink);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_order),
		cmocka_unit_test(test_zeroed_entry_is_on_no_list),
		cmocka_unit_test(test_queue),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
