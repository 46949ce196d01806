/* list.h — intrusive doubly linked lists, and a singly linked queue that keeps no count.
 *
 * What:       an object embeds a struct list_head; a list is a struct list_head of its own. O(1) everything.
 * Not here:   bounds: a queue that has one counts beside its list.
 * Threads:    none of its own; the list belongs to whoever owns the objects.
 * Ownership:  a list borrows its objects; freeing one that is on a list is the caller's bug.
 * Invariants: after list_init() or list_del() an entry points at itself, so list_empty(&obj->link) says "on no list" and
 *             list_del() twice is harmless.
 * Tests:      tests/unit/base/test_list.c
 */
#ifndef HR_BASE_LIST_H
#define HR_BASE_LIST_H

#include "base/base.h"

struct list_head {
	struct list_head *next;
	struct list_head *prev;
};

#define LIST_HEAD_INIT(name)                                                                       \
	{                                                                                          \
		&(name), &(name)                                                                   \
	}

static inline void
list_init(struct list_head *head)
{
	head->next = head;
	head->prev = head;
}

static inline bool
list_empty(const struct list_head *head)
{
	return head->next == head;
}

static inline void
list_insert_between(struct list_head *entry, struct list_head *prev, struct list_head *next)
{
	next->prev = entry;
	entry->next = next;
	entry->prev = prev;
	prev->next = entry;
}

/* At the front. */
static inline void
list_add(struct list_head *head, struct list_head *entry)
{
	list_insert_between(entry, head, head->next);
}

static inline void
list_add_tail(struct list_head *head, struct list_head *entry)
{
	list_insert_between(entry, head->prev, head);
}

/* Takes the entry off whatever list it is on and leaves it initialised. A zeroed entry is on no list, too. */
static inline void
list_del(struct list_head *entry)
{
	if (entry->next == NULL) {
		return;
	}
	entry->next->prev = entry->prev;
	entry->prev->next = entry->next;
	list_init(entry);
}

static inline void
list_move_tail(struct list_head *head, struct list_head *entry)
{
	list_del(entry);
	list_add_tail(head, entry);
}

/* Moves all of `from` to the tail of `head`; `from` is empty then. */
static inline void
list_splice_tail(struct list_head *head, struct list_head *from)
{
	if (list_empty(from)) {
		return;
	}
	from->next->prev = head->prev;
	head->prev->next = from->next;
	from->prev->next = head;
	head->prev = from->prev;
	list_init(from);
}

/* The first entry taken off, or NULL. */
static inline struct list_head *
list_pop(struct list_head *head)
{
	struct list_head *entry = head->next;

	if (entry == head) {
		return NULL;
	}
	list_del(entry);
	return entry;
}

#define list_entry(ptr, type, member) container_of(ptr, type, member)

/* NULL when the list is empty. */
#define list_first_entry(head, type, member)                                                       \
	(list_empty(head) ? NULL : list_entry((head)->next, type, member))
#define list_last_entry(head, type, member)                                                        \
	(list_empty(head) ? NULL : list_entry((head)->prev, type, member))
#define list_pop_entry(head, type, member)                                                         \
	({                                                                                         \
		struct list_head *popped_ = list_pop(head);                                        \
		popped_ == NULL ? NULL : list_entry(popped_, type, member);                        \
	})

#define list_for_each_entry(pos, head, member)                                                     \
	for ((pos) = list_entry((head)->next, __typeof__(*(pos)), member);                         \
	     &(pos)->member != (head);                                                             \
	     (pos) = list_entry((pos)->member.next, __typeof__(*(pos)), member))

/* The body may remove `pos`. */
#define list_for_each_entry_safe(pos, tmp, head, member)                                           \
	for ((pos) = list_entry((head)->next, __typeof__(*(pos)), member),                         \
	    (tmp) = list_entry((pos)->member.next, __typeof__(*(pos)), member);                    \
	     &(pos)->member != (head);                                                             \
	     (pos) = (tmp), (tmp) = list_entry((tmp)->member.next, __typeof__(*(pos)), member))

/* Oldest first. */
struct queue_link {
	struct queue_link *next;
};

struct queue {
	struct queue_link *first;
	struct queue_link **tail;
};

static inline void
queue_init(struct queue *queue)
{
	queue->first = NULL;
	queue->tail = &queue->first;
}

static inline bool
queue_empty(const struct queue *queue)
{
	return queue->first == NULL;
}

static inline void
queue_push(struct queue *queue, struct queue_link *link)
{
	link->next = NULL;
	*queue->tail = link;
	queue->tail = &link->next;
}

/* Back to the front: what was popped and cannot be done yet. */
static inline void
queue_push_front(struct queue *queue, struct queue_link *link)
{
	link->next = queue->first;
	queue->first = link;
	if (link->next == NULL) {
		queue->tail = &link->next;
	}
}

static inline struct queue_link *
queue_pop(struct queue *queue)
{
	struct queue_link *link = queue->first;

	if (link != NULL) {
		queue->first = link->next;
		if (link->next == NULL) {
			queue->tail = &queue->first;
		}
	}
	return link;
}

#endif
