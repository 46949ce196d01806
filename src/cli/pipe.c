/* pipe.c — see pipe.h. */
#include "cli/pipe.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include "cli/progress.h"

enum { AGAIN_US_MIN = 1000, AGAIN_US_MAX = 64000, REAP_MAX = 64, FULL_PAUSE_MS = 1 };

/* Memory that a node on this host can map itself, so that the values of PUTs need no copy through a staging area; over TCP
 * it is memory like any other. What cannot be had is done without: registering is never needed for correctness. */
static int
map_memory(struct pipe *pipe)
{
	int fd = memfd_create("headrace values", MFD_CLOEXEC | MFD_ALLOW_SEALING);
	int flags = fd >= 0 ? MAP_SHARED : MAP_PRIVATE | MAP_ANONYMOUS;

	if (fd >= 0 && (ftruncate(fd, (off_t)pipe->memory_bytes) != 0 ||
			fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW) != 0)) {
		close(fd);
		fd = -1;
		flags = MAP_PRIVATE | MAP_ANONYMOUS;
	}
	pipe->memory =
	    mmap(NULL, pipe->memory_bytes, PROT_READ | PROT_WRITE, flags | MAP_NORESERVE, fd, 0);
	if (pipe->memory == MAP_FAILED) {
		pipe->memory = NULL;
	} else if (fd >= 0) {
		(void)hr_register(pipe->client, pipe->memory, pipe->memory_bytes, fd);
	}
	if (fd >= 0) {
		close(fd);
	}
	return pipe->memory == NULL ? -ENOMEM : 0;
}

int
pipe_init(struct pipe *pipe, struct hr_client *client, unsigned slots_count, uint32_t items_max,
	  uint64_t value_bytes)
{
	size_t stride = align_up(value_bytes, 4096);

	HR_ASSERT(slots_count > 0 && slots_count <= PIPE_SLOTS_MAX && items_max > 0);
	*pipe = (struct pipe){
		.client = client,
		.slots_count = slots_count,
		.items_max = items_max,
		.value_bytes = value_bytes,
		.slots = calloc(slots_count, sizeof(*pipe->slots)),
	};
	if (pipe->slots == NULL) {
		return -ENOMEM;
	}
	if (value_bytes != 0) {
		pipe->memory_bytes = stride * items_max * slots_count;
		if (map_memory(pipe) != 0) {
			pipe_fini(pipe);
			return -ENOMEM;
		}
	}
	for (unsigned i = 0; i < slots_count; i++) {
		struct pipe_slot *slot = &pipe->slots[i];

		slot->items = calloc(items_max, sizeof(*slot->items));
		slot->iovs = calloc(items_max, sizeof(*slot->iovs));
		slot->tags = calloc(items_max, sizeof(*slot->tags));
		if (slot->items == NULL || slot->iovs == NULL || slot->tags == NULL) {
			pipe_fini(pipe);
			return -ENOMEM;
		}
		if (pipe->memory != NULL) {
			slot->buf = (uint8_t *)pipe->memory + stride * items_max * i;
		}
	}
	return 0;
}

void
pipe_fini(struct pipe *pipe)
{
	for (unsigned i = 0; pipe->slots != NULL && i < pipe->slots_count; i++) {
		free(pipe->slots[i].items);
		free(pipe->slots[i].iovs);
		free(pipe->slots[i].tags);
	}
	if (pipe->memory != NULL) {
		munmap(pipe->memory, pipe->memory_bytes);
	}
	free(pipe->slots);
	*pipe = (struct pipe){ 0 };
}

static void
reset_iovs(struct pipe *pipe, struct pipe_slot *slot)
{
	size_t stride = align_up(pipe->value_bytes, 4096);

	for (uint32_t i = 0; i < pipe->items_max && slot->buf != NULL; i++) {
		slot->iovs[i].iov_base = slot->buf + stride * i;
		slot->iovs[i].iov_len = pipe->value_bytes;
	}
}

/* 0, or -HR_EFULL when the handle takes no more now, or another error. */
static int
submit(struct pipe *pipe, const struct pipe_job *job, struct pipe_slot *slot)
{
	struct hr_submit_options options = *job->options;
	hr_ticket_t ticket;

	for (uint32_t i = 0; i < slot->items_count && slot->buf != NULL; i++) {
		slot->items[i].iov = &slot->iovs[i];
		slot->items[i].iov_count = 1;
	}
	options.user_data = (uint64_t)(slot - pipe->slots);
	if (slot->tries == 0) {
		slot->submitted_us = cli_now_us();
	}
	ticket = hr_submit(job->space, job->op, slot->items, slot->items_count, &options);
	if (ticket < 0) {
		return (int)ticket;
	}
	slot->state = PIPE_UNDER_WAY;
	return 0;
}

static void
send_later(struct pipe_slot *slot)
{
	uint64_t pause_us = (uint64_t)AGAIN_US_MIN << HR_MIN(slot->tries, 6u);

	slot->tries++;
	slot->state = PIPE_AGAIN;
	slot->again_us = cli_now_us() + HR_MIN(pause_us, (uint64_t)AGAIN_US_MAX);
}

struct run {
	struct pipe *pipe;
	const struct pipe_job *job;
	bool nothing_left; /* fill() said so, or an error ended it */
	unsigned under_way, again;
	int rc; /* the first error */
};

static void
fail(struct run *run, int rc)
{
	run->rc = run->rc != 0 ? run->rc : rc;
	run->nothing_left = true;
}

/* Sends what a slot holds; a handle that is full takes it a little later. */
static void
send_slot(struct run *run, struct pipe_slot *slot)
{
	int rc = submit(run->pipe, run->job, slot);

	if (rc == 0) {
		run->under_way++;
	} else if (rc == -HR_EFULL) {
		send_later(slot);
		run->again++;
	} else {
		slot->state = PIPE_FREE;
		fail(run, rc);
	}
}

static void
send_what_waits(struct run *run)
{
	uint64_t now_us = run->again > 0 ? cli_now_us() : 0;

	for (unsigned i = 0; i < run->pipe->slots_count; i++) {
		struct pipe_slot *slot = &run->pipe->slots[i];

		if (slot->state == PIPE_AGAIN && run->rc != 0) {
			slot->state = PIPE_FREE;
			run->again--;
		} else if (slot->state == PIPE_AGAIN && slot->again_us <= now_us) {
			run->again--;
			send_slot(run, slot);
		} else if (slot->state == PIPE_FREE && !run->nothing_left) {
			slot->tries = 0;
			reset_iovs(run->pipe, slot);
			slot->items_count = run->job->fill(run->job->arg, slot);
			if (slot->items_count == 0) {
				run->nothing_left = true;
			} else {
				send_slot(run, slot);
			}
		}
	}
}

/* Until something completes or the next slot may be sent again. */
static int
wait_timeout_ms(const struct run *run)
{
	uint64_t first_us = UINT64_MAX, now_us;

	if (run->again == 0) {
		return -1;
	}
	for (unsigned i = 0; i < run->pipe->slots_count; i++) {
		if (run->pipe->slots[i].state == PIPE_AGAIN) {
			first_us = HR_MIN(first_us, run->pipe->slots[i].again_us);
		}
	}
	now_us = cli_now_us();
	return first_us <= now_us ? 0 : (int)((first_us - now_us) / 1000 + 1);
}

static void
complete(struct run *run, struct pipe_slot *slot)
{
	uint32_t again;

	HR_ASSERT(slot->state == PIPE_UNDER_WAY);
	slot->state = PIPE_FREE;
	run->under_way--;
	again = run->job->done(run->job->arg, slot);
	if (again > 0) {
		slot->items_count = again;
		send_later(slot);
		run->again++;
	}
}

static void
reap(struct run *run)
{
	struct hr_completion completions[REAP_MAX];
	struct pollfd pollfd = { .fd = hr_event_fd(run->pipe->client), .events = POLLIN };
	int n = hr_reap(run->pipe->client, completions, REAP_MAX);

	if (n == 0) {
		int ready = poll(&pollfd, 1, wait_timeout_ms(run));

		if (ready < 0 && errno != EINTR) {
			fail(run, -errno);
		}
		n = hr_reap(run->pipe->client, completions, REAP_MAX);
	}
	if (n < 0) {
		/* Nothing can be waited for on such a handle: hr_close() ends what is under way. */
		fail(run, n);
		run->under_way = 0;
		return;
	}
	/* All times first: checking the contents of one must not count as the latency of the next. */
	for (int i = 0; i < n; i++) {
		histogram_add(run->job->latency_us,
			      cli_now_us() -
				  run->pipe->slots[completions[i].user_data].submitted_us);
	}
	for (int i = 0; i < n; i++) {
		complete(run, &run->pipe->slots[completions[i].user_data]);
	}
}

int
pipe_run(struct pipe *pipe, const struct pipe_job *job)
{
	struct run run = { .pipe = pipe, .job = job };

	for (;;) {
		send_what_waits(&run);
		if (run.under_way + run.again > 0) {
			reap(&run);
		} else if (run.nothing_left) {
			return run.rc;
		}
	}
}
