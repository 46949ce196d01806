/* blocking.c — see blocking.h. */
#include "cli/blocking.h"

#include <time.h>

static void *
watch(void *arg)
{
	struct blocking *blocking = arg;
	const struct timespec pause = { .tv_nsec = 100 * 1000 * 1000 };

	while (!atomic_load(&blocking->ended)) {
		progress_show(&blocking->progress,
			      __atomic_load_n(&blocking->done, __ATOMIC_RELAXED),
			      __atomic_load_n(&blocking->total, __ATOMIC_RELAXED), NULL);
		nanosleep(&pause, NULL);
	}
	return NULL;
}

void
blocking_start(struct blocking *blocking, const char *what, bool quiet)
{
	blocking->done = 0;
	blocking->total = 0;
	atomic_init(&blocking->ended, false);
	progress_start(&blocking->progress, what, quiet);
	blocking->watched = blocking->progress.out != NULL &&
			    pthread_create(&blocking->thread, NULL, watch, blocking) == 0;
}

void
blocking_end(struct blocking *blocking)
{
	atomic_store(&blocking->ended, true);
	if (blocking->watched) {
		pthread_join(blocking->thread, NULL);
	}
	progress_end(&blocking->progress);
}
