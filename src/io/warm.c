/* warm.c - see warm.h. */
#include "io/warm.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/mman.h>

#include "base/list.h"
#include "io/io.h"

/* What the worker does between two looks at what it is told: some hundred microseconds. */
#define STEP_BYTES MiB(2)

struct region {
	struct list_head link; /* warm->cold or warm->ready */
	uint8_t *base;
	size_t len;
};

struct warm {
	struct io *io;
	pthread_mutex_t mutex;
	pthread_cond_t cond;   /* to both sides */
	struct list_head cold; /* the worker takes pieces off the first one's beginning */
	struct list_head ready;
	atomic_bool has_ready;
	struct region *at; /* the piece that the worker is in */
	bool busy;	   /* in a step, without the mutex */
	bool ending, started;
	pthread_t thread;
};

static void
ready_note(struct warm *warm)
{
	atomic_store_explicit(&warm->has_ready, !list_empty(&warm->ready), memory_order_release);
}

/* The piece at the beginning of what is cold. NULL: there is none, or no memory to name it. */
static struct region *
piece_take_locked(struct warm *warm)
{
	struct region *first = list_first_entry(&warm->cold, struct region, link), *piece;

	if (first == NULL || first->len <= WARM_PIECE_BYTES) {
		if (first != NULL) {
			list_del(&first->link);
		}
		return first;
	}
	piece = malloc(sizeof(*piece));
	if (piece == NULL) {
		return NULL;
	}
	*piece = (struct region){ .base = first->base, .len = WARM_PIECE_BYTES };
	list_init(&piece->link);
	first->base += WARM_PIECE_BYTES;
	first->len -= WARM_PIECE_BYTES;
	return piece;
}

/* One piece, a step at a time; warm_forget() takes it away between two. */
static void
piece_warm_locked(struct warm *warm, struct region *piece)
{
	size_t done = 0;

	warm->at = piece;
	while (done < piece->len && !warm->ending && warm->at == piece) {
		uint8_t *step = piece->base + done;
		size_t bytes = HR_MIN(piece->len - done, (size_t)STEP_BYTES);

		warm->busy = true;
		(void)pthread_mutex_unlock(&warm->mutex);
		/* Not known before Linux 5.14, refused where memory is short: pinning brings the pages then. */
		(void)madvise(step, bytes, MADV_POPULATE_WRITE);
		(void)pthread_mutex_lock(&warm->mutex);
		warm->busy = false;
		(void)pthread_cond_broadcast(&warm->cond);
		done += bytes;
	}
	if (warm->at != piece || warm->ending) {
		free(piece);
	} else {
		list_add_tail(&warm->ready, &piece->link);
		ready_note(warm);
		io_wake(warm->io);
	}
	warm->at = NULL;
}

static void *
worker_main(void *arg)
{
	struct warm *warm = arg;

	(void)pthread_mutex_lock(&warm->mutex);
	while (!warm->ending) {
		struct region *piece = piece_take_locked(warm);

		if (piece == NULL) {
			(void)pthread_cond_wait(&warm->cond, &warm->mutex);
		} else {
			piece_warm_locked(warm, piece);
		}
	}
	(void)pthread_mutex_unlock(&warm->mutex);
	return NULL;
}

int
warm_create(struct io *io, struct warm **ret_warm)
{
	struct warm *warm = calloc(1, sizeof(*warm));

	if (warm == NULL) {
		return -ENOMEM;
	}
	warm->io = io;
	(void)pthread_mutex_init(&warm->mutex, NULL);
	(void)pthread_cond_init(&warm->cond, NULL);
	list_init(&warm->cold);
	list_init(&warm->ready);
	*ret_warm = warm;
	return 0;
}

static void
regions_free(struct list_head *regions)
{
	struct region *region;

	while ((region = list_pop_entry(regions, struct region, link)) != NULL) {
		free(region);
	}
}

void
warm_destroy(struct warm *warm)
{
	if (warm == NULL) {
		return;
	}
	(void)pthread_mutex_lock(&warm->mutex);
	warm->ending = true;
	(void)pthread_cond_broadcast(&warm->cond);
	(void)pthread_mutex_unlock(&warm->mutex);
	if (warm->started) {
		(void)pthread_join(warm->thread, NULL);
	}
	regions_free(&warm->cold);
	regions_free(&warm->ready);
	(void)pthread_mutex_destroy(&warm->mutex);
	(void)pthread_cond_destroy(&warm->cond);
	free(warm);
}

static int
worker_start(struct warm *warm)
{
	sigset_t all, old;
	int rc;

	(void)sigfillset(&all);
	(void)pthread_sigmask(SIG_SETMASK, &all, &old);
	rc = -pthread_create(&warm->thread, NULL, worker_main, warm);
	(void)pthread_sigmask(SIG_SETMASK, &old, NULL);
	if (rc == 0) {
		(void)pthread_setname_np(warm->thread, "hr-warm");
		warm->started = true;
	}
	return rc;
}

int
warm_add(struct warm *warm, void *base, size_t len)
{
	struct region *region = calloc(1, sizeof(*region));
	int rc = 0;

	if (region == NULL) {
		return -ENOMEM;
	}
	region->base = base;
	region->len = len;
	if (!warm->started) {
		rc = worker_start(warm);
	}
	if (rc != 0) {
		free(region);
		return rc;
	}
	(void)pthread_mutex_lock(&warm->mutex);
	list_add_tail(&warm->cold, &region->link);
	(void)pthread_cond_broadcast(&warm->cond);
	(void)pthread_mutex_unlock(&warm->mutex);
	return 0;
}

static bool
overlaps(const struct region *region, const uint8_t *base, size_t len)
{
	return region->base < base + len && base < region->base + region->len;
}

static void
regions_forget(struct list_head *regions, const uint8_t *base, size_t len)
{
	struct region *region, *next;

	list_for_each_entry_safe(region, next, regions, link) {
		if (overlaps(region, base, len)) {
			list_del(&region->link);
			free(region);
		}
	}
}

void
warm_forget(struct warm *warm, void *base, size_t len)
{
	(void)pthread_mutex_lock(&warm->mutex);
	regions_forget(&warm->cold, base, len);
	regions_forget(&warm->ready, base, len);
	ready_note(warm);
	if (warm->at != NULL && overlaps(warm->at, base, len)) {
		warm->at = NULL; /* the worker frees it */
		while (warm->busy) {
			(void)pthread_cond_wait(&warm->cond, &warm->mutex);
		}
	}
	(void)pthread_mutex_unlock(&warm->mutex);
}

bool
warm_next(struct warm *warm, struct iovec *ret_piece)
{
	struct region *region;

	if (!atomic_load_explicit(&warm->has_ready, memory_order_acquire)) {
		return false;
	}
	(void)pthread_mutex_lock(&warm->mutex);
	region = list_pop_entry(&warm->ready, struct region, link);
	ready_note(warm);
	(void)pthread_mutex_unlock(&warm->mutex);
	if (region == NULL) {
		return false;
	}
	*ret_piece = (struct iovec){ region->base, region->len };
	free(region);
	return true;
}
