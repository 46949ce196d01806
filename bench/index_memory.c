/* index_memory.c — DRAM per live record of the index and the eviction policy, by their own account and by the kernel's.
 *
 * What:       for each size, in a process of its own: inserts that many records of 64 KiB with random ids, looks them up, and
 *             removes a third; prints bytes a record, the longest single insertion (a sub-table's growth), and rates.
 * Use:        index_memory [MILLIONS...]          default: 1 3 7 10 13
 * Exit:       1 when a size needs more than 24 bytes a record + 4 MiB.
 */
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "base/base.h"
#include "base/prng.h"
#include "engine/evict.h"
#include "engine/index.h"

enum { RECORD_PAGES = 16, SEGMENT_PAGES = 262144, RECORD_BYTES_MAX = 24 };
#define FIXED_BYTES_MAX MiB(4)

/* Of this thread: a busy machine must not look like a long step. */
static double
now_us(void)
{
	struct timespec t;

	clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
	return (double)t.tv_sec * 1e6 + (double)t.tv_nsec / 1e3;
}

static uint64_t
resident_bytes(void)
{
	unsigned long long size, resident;
	FILE *f = fopen("/proc/self/statm", "r");

	if (f == NULL || fscanf(f, "%llu %llu", &size, &resident) != 2) {
		exit(2);
	}
	(void)fclose(f);
	return resident * (uint64_t)sysconf(_SC_PAGESIZE);
}

struct world {
	struct index *index;
	struct evict *evict;
	uint64_t resident_before;
	bool ok;
};

static struct index_key
key_of(const struct world *w, uint64_t n)
{
	uint8_t id[16];
	uint64_t state = n;

	put_le64(id, splitmix64(&state));
	put_le64(id + 8, splitmix64(&state));
	return index_key_make(w->index, 1, 1, id, 0);
}

static void
report(struct world *w, const char *when)
{
	uint64_t count = index_count(w->index);
	uint64_t bytes = index_bytes(w->index) + evict_lru.bytes(w->evict);
	uint64_t resident = resident_bytes() - w->resident_before;
	uint64_t limit = count * RECORD_BYTES_MAX + FIXED_BYTES_MAX;

	printf("%10llu records %-13s %6.2f bytes each by account, %6.2f resident, limit %6.2f%s\n",
	       (unsigned long long)count, when, (double)bytes / (double)count,
	       (double)resident / (double)count, (double)limit / (double)count,
	       bytes > limit || resident > limit ? "  EXCEEDED" : "");
	w->ok = w->ok && bytes <= limit && resident <= limit;
}

static void
insert_all(struct world *w, uint64_t count)
{
	double longest = 0, t0 = now_us();

	for (uint64_t i = 0; i < count; i++) {
		struct index_key key = key_of(w, i);
		uint32_t segment = (uint32_t)(i * RECORD_PAGES / SEGMENT_PAGES);
		struct index_entry entry = {
			.place = i * RECORD_PAGES,
			.bytes = RECORD_PAGES * 4096,
			.check = (uint32_t)i,
			.recency = evict_lru.insert(w->evict, segment, RECORD_PAGES),
		};
		double t = now_us();

		if (index_insert(w->index, &key, &entry) != 0) {
			exit(2);
		}
		longest = HR_MAX(longest, now_us() - t);
	}
	printf("%10llu records inserted: %.2f million/s, longest %.0f us\n",
	       (unsigned long long)count, (double)count / (now_us() - t0), longest);
}

static void
find_all(struct world *w, uint64_t count)
{
	double t0 = now_us();

	for (uint64_t i = 0; i < count; i++) {
		struct index_key key = key_of(w, i * 7919 % count);
		struct index_entry entry;
		uint32_t cursor = 0;
		bool found = false;

		while (!found && index_next(w->index, &key, &cursor, &entry)) {
			found = entry.place == i * 7919 % count * RECORD_PAGES;
		}
		if (!found) {
			exit(2);
		}
	}
	printf("%10llu records found: %.2f million/s, one after the other\n",
	       (unsigned long long)count, (double)count / (now_us() - t0));
}

static int
run(uint64_t count)
{
	struct world w = { .resident_before = resident_bytes(), .ok = true };
	struct evict_options options = {
		.segments_count = (uint32_t)(count * RECORD_PAGES / SEGMENT_PAGES + 1),
		.capacity_pages = count * RECORD_PAGES,
	};

	if (index_create(1, &w.index) != 0 || evict_lru.create(&options, &w.evict) != 0) {
		return 2;
	}
	insert_all(&w, count);
	report(&w, "inserted");
	find_all(&w, count);
	for (uint64_t i = 0; i < count; i += 3) {
		struct index_key key = key_of(&w, i);

		if (!index_remove(w.index, &key, i * RECORD_PAGES)) {
			return 2;
		}
	}
	report(&w, "after removal");
	index_destroy(w.index);
	evict_lru.destroy(w.evict);
	return w.ok ? 0 : 1;
}

/* In a child, so that one size's memory is not the next one's. */
static int
run_apart(uint64_t count)
{
	pid_t pid;
	int status;

	(void)fflush(stdout);
	pid = fork();
	if (pid == 0) {
		int rc = run(count);

		(void)fflush(stdout);
		_exit(rc);
	}
	if (pid < 0 || waitpid(pid, &status, 0) != pid || !WIFEXITED(status)) {
		return 2;
	}
	return WEXITSTATUS(status);
}

int
main(int argc, char **argv)
{
	static const char *const sizes[] = { "1", "3", "7", "10", "13" };
	int rc = 0;

	for (int i = 0; i < (argc > 1 ? argc - 1 : (int)ARRAY_SIZE(sizes)); i++) {
		const char *millions = argc > 1 ? argv[i + 1] : sizes[i];

		rc = HR_MAX(rc, run_apart((uint64_t)(strtod(millions, NULL) * 1e6)));
	}
	return rc;
}
