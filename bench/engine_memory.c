/* engine_memory.c — DRAM per live block of the whole engine: the account of index and policy, and what the kernel says.
 *
 * What:       fills one engine with blocks of 4 KiB on a simulated device that keeps nothing of them (lib/bulk.h), and at each
 *             size prints what index and policy take by their own account, and how the process has grown since the first 100,000
 *             blocks, when everything whose size does not depend on the number of blocks has reached it: the arena (64 MiB of DRAM
 *             tier and PUTs under way), its entries, pending records, the memory of why blocks went, open segments' descriptors.
 * Note:       a block may be lost: two of some millions share a tag of the index, and the device has forgotten the descriptors that tell them
 *             apart. An engine whose device remembers reads them (get.c).
 * Use:        engine_memory [--ttl] [MILLIONS...]          default: 1 3 7 10 13, cumulative
 *             --ttl: every block has a time to live, which the engine keeps beside the index.
 * Exit:       1 when a size, or by account one on the way there, needs more than 24 bytes a block + 4 MiB.
 */
#include <stdio.h>
#include <stdlib.h>

#include "lib/bulk.h"

enum {
	BLOCK_BYTES = 4096,
	BYTES_A_BLOCK_MAX = 24,
	WARM_BLOCKS = 100000,
	PUTS_AT_ONCE = 512,
	ACCOUNT_EVERY = 8192
};
#define FIXED_BYTES_MAX MiB(4)

/* A line of /proc/self/status, which is in KiB. */
static uint64_t
status_bytes(const char *name)
{
	char line[256];
	uint64_t kib = 0;
	FILE *f = fopen("/proc/self/status", "r");

	HR_ASSERT(f != NULL);
	while (fgets(line, sizeof(line), f) != NULL) {
		if (strncmp(line, name, strlen(name)) == 0) {
			kib = strtoull(line + strlen(name) + 1, NULL, 10);
		}
	}
	(void)fclose(f);
	return kib * 1024;
}

static uint64_t
account_bytes(struct bulk *bulk, struct engine_stat *ret_stat)
{
	engine_stat_get(bulk_engine(bulk), ret_stat);
	return ret_stat->index_bytes + ret_stat->policy_bytes;
}

/* Returns what was needed beside 24 bytes a block where that was most, on the way there: growth comes in steps. */
static int64_t
fill(struct bulk *bulk, uint64_t blocks, uint32_t ttl_ms)
{
	struct bulk_counters c;
	struct engine_stat s;
	int64_t fixed_most = INT64_MIN;

	bulk_counters_get(bulk, &c);
	for (uint64_t i = c.puts; i < blocks; i++) {
		bulk_put(bulk, (uint32_t)i, ttl_ms);
		if (i % PUTS_AT_ONCE == 0) {
			bulk_puts_wait(bulk);
		}
		if (i % ACCOUNT_EVERY == 0) {
			int64_t account = (int64_t)account_bytes(bulk, &s);

			fixed_most =
			    HR_MAX(fixed_most, account - (int64_t)s.blocks * BYTES_A_BLOCK_MAX);
		}
	}
	bulk_flush(bulk);
	bulk_counters_get(bulk, &c);
	HR_ASSERTF(c.puts == blocks && c.put_refused == 0, "%llu puts", (unsigned long long)c.puts);
	return fixed_most;
}

/* A thousand of them, spread over all. */
static void
read_some(struct bulk *bulk, uint64_t blocks)
{
	uint32_t numbers[1000];
	uint8_t ok[ARRAY_SIZE(numbers)];

	for (size_t i = 0; i < ARRAY_SIZE(numbers); i++) {
		numbers[i] = (uint32_t)(blocks * i / ARRAY_SIZE(numbers));
	}
	bulk_gets(bulk, numbers, ARRAY_SIZE(numbers), ok);
	for (size_t i = 0; i < ARRAY_SIZE(numbers); i++) {
		HR_ASSERTF(ok[i], "block %u is not there", numbers[i]);
	}
}

/* What there is when the first blocks are in: `other` has no part in the promise, and stays as it is. */
struct warm {
	uint64_t account, anon, other;
};

static bool
measure(struct bulk *bulk, const struct warm *warm, int64_t fixed_most)
{
	struct engine_stat s;
	struct bulk_counters c;
	uint64_t account = account_bytes(bulk, &s);
	uint64_t resident = status_bytes("RssAnon:") - warm->other;
	uint64_t limit = s.blocks * BYTES_A_BLOCK_MAX + FIXED_BYTES_MAX;
	bool ok = account <= limit && resident <= limit && fixed_most <= (int64_t)FIXED_BYTES_MAX;
	double n = (double)s.blocks;

	bulk_counters_get(bulk, &c);
	printf(
	    "%10llu blocks: index %llu + policy %llu bytes = %.2f a block, resident %.2f, limit %.2f  %s\n",
	    (unsigned long long)s.blocks, (unsigned long long)s.index_bytes,
	    (unsigned long long)s.policy_bytes, (double)account / n, (double)resident / n,
	    (double)limit / n, ok ? "within" : "EXCEEDED");
	printf("%10s on the way, by account: at most 24 a block and %.2f MiB\n", "",
	       (double)fixed_most / 1048576);
	printf("%10s apart: arena %.1f MiB, reasons %.1f MiB, other private memory %.1f MiB "
	       "(pages that the simulated device keeps: %.1f)\n",
	       "", (double)s.arena_bytes_used / 1048576, (double)s.reason_bytes / 1048576,
	       (double)warm->other / 1048576, (double)c.pages_kept * 4096 / 1048576);
	(void)fflush(stdout);
	return ok;
}

int
main(int argc, char **argv)
{
	static const char *const sizes[] = { "1", "3", "7", "10", "13" };
	bool ttl = argc > 1 && strcmp(argv[1], "--ttl") == 0;
	const char *const *millions = argc > 1 + ttl ? (const char *const *)argv + 1 + ttl : sizes;
	int count = argc > 1 + ttl ? argc - 1 - ttl : (int)ARRAY_SIZE(sizes);
	uint64_t blocks_max = (uint64_t)(strtod(millions[count - 1], NULL) * 1e6);
	uint32_t ttl_ms = ttl ? UINT32_MAX : 0;
	struct bulk_options options = {
		.seed = 1,
		/* A descriptor in a header and in a footer, pages of each, the last segments half full. */
		.device_bytes = align_up(blocks_max * (BLOCK_BYTES + 512) + MiB(512), MiB(1)),
		.value_bytes = BLOCK_BYTES,
		.forget_descriptors = true,
		.engine = { .dram_bytes = MiB(64), .sync = LOG_SYNC_DSYNC },
	};
	struct bulk *bulk = bulk_create(&options);
	struct engine_stat s;
	struct warm warm;
	bool ok = true;

	(void)fill(bulk, WARM_BLOCKS, ttl_ms);
	warm.account = account_bytes(bulk, &s);
	warm.anon = status_bytes("RssAnon:");
	warm.other = warm.anon - warm.account;
	for (int i = 0; i < count; i++) {
		int64_t fixed_most;
		uint64_t blocks =
		    HR_MAX((uint64_t)(strtod(millions[i], NULL) * 1e6), (uint64_t)WARM_BLOCKS);

		fixed_most = fill(bulk, blocks, ttl_ms);
		read_some(bulk, blocks);
		ok = measure(bulk, &warm, fixed_most) && ok;
	}
	engine_stat_get(bulk_engine(bulk), &s);
	HR_ASSERT(s.reclaims == 0);
	bulk_destroy(bulk);
	return ok ? 0 : 1;
}
