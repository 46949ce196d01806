/* blocking.h — shows the progress of a library call that blocks: another thread looks at the counters it writes.
 *
 * Threads:    blocking_start() starts the watching thread, blocking_end() ends and joins it; on a pipe there is none.
 */
#ifndef HR_CLI_BLOCKING_H
#define HR_CLI_BLOCKING_H

#include <pthread.h>
#include <stdatomic.h>

#include "cli/progress.h"

struct blocking {
	struct progress progress;
	uint64_t done, total; /* written by the call, which says that another thread may read them */
	atomic_bool ended;
	bool watched;
	pthread_t thread;
};

void blocking_start(struct blocking *blocking, const char *what, bool quiet);
void blocking_end(struct blocking *blocking);

#endif
