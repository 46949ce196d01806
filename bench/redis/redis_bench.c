/* redis_bench.c — GET and SET against Redis, doing what `headrace bench` does: as many requests under way, values made from the
 * key and compared byte by byte, latencies in the same histogram. For bench/run.py; built by it with hiredis.
 *
 *   redis_bench --port P --op get|put --size BYTES --depth N --seconds S [--working-set BYTES] [--no-verify]
 */
#include <getopt.h>
#include <hiredis/hiredis.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "base/metric.h"
#include "base/prng.h"
#include "cli/content.h"

enum { DEPTH_MAX = 256, KEY_BYTES = 48 };

struct key {
	size_t len;
	char text[KEY_BYTES];
};

/* One request under way; answers come in the order of the requests. */
struct slot {
	struct key key;
	uint64_t sent_us;
};

struct bench {
	redisContext *redis;
	bool is_get, verify;
	size_t size;
	unsigned depth;
	double seconds;
	uint64_t working_set, keys_count, put_count, seed;
	struct slot slots[DEPTH_MAX];
	unsigned head, count;
	struct prng prng;
	char *value;
	uint64_t ops, errors, wrong;
	struct histogram latency_us;
};

static uint64_t
now_us(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * 1000000 + (uint64_t)now.tv_nsec / 1000;
}

static void
die(const char *what)
{
	fprintf(stderr, "redis_bench: %s\n", what);
	exit(1);
}

static struct slot *
next_slot(struct bench *bench)
{
	return &bench->slots[(bench->head + bench->count++) % DEPTH_MAX];
}

static void
make_key(struct bench *bench, struct key *key, const char *kind, uint64_t number)
{
	key->len = (size_t)snprintf(key->text, sizeof(key->text), "%s:%" PRIx64 ":%" PRIu64, kind,
				    bench->seed, number);
}

static void
send_set(struct bench *bench, const char *kind, uint64_t number)
{
	struct slot *slot = next_slot(bench);
	const char *argv[3];
	size_t lens[3];

	make_key(bench, &slot->key, kind, number);
	content_fill(bench->value, bench->size, content_seed(slot->key.text, slot->key.len));
	argv[0] = "SET";
	lens[0] = 3;
	argv[1] = slot->key.text;
	lens[1] = slot->key.len;
	argv[2] = bench->value;
	lens[2] = bench->size;
	slot->sent_us = now_us();
	if (redisAppendCommandArgv(bench->redis, 3, argv, lens) != REDIS_OK) {
		die(bench->redis->errstr);
	}
}

static void
send_get(struct bench *bench, uint64_t number)
{
	struct slot *slot = next_slot(bench);
	const char *argv[2];
	size_t lens[2];

	make_key(bench, &slot->key, "bench", number);
	argv[0] = "GET";
	lens[0] = 3;
	argv[1] = slot->key.text;
	lens[1] = slot->key.len;
	slot->sent_us = now_us();
	if (redisAppendCommandArgv(bench->redis, 2, argv, lens) != REDIS_OK) {
		die(bench->redis->errstr);
	}
}

static void
check(struct bench *bench, const struct slot *slot, const redisReply *reply, bool is_get)
{
	bool ok = is_get ? reply->type == REDIS_REPLY_STRING && reply->len == bench->size
			 : reply->type == REDIS_REPLY_STATUS;

	if (!ok) {
		bench->errors++;
		return;
	}
	bench->ops++;
	if (is_get && bench->verify &&
	    content_check(reply->str, bench->size, content_seed(slot->key.text, slot->key.len)) !=
		bench->size) {
		bench->wrong++;
	}
}

static void
take_answer(struct bench *bench, bool is_get)
{
	struct slot *slot = &bench->slots[bench->head];
	void *reply;

	if (redisGetReply(bench->redis, &reply) != REDIS_OK) {
		die(bench->redis->errstr);
	}
	histogram_add(&bench->latency_us, now_us() - slot->sent_us);
	check(bench, slot, reply, is_get);
	freeReplyObject(reply);
	bench->head = (bench->head + 1) % DEPTH_MAX;
	bench->count--;
}

static void
fill(struct bench *bench)
{
	for (uint64_t i = 0; i < bench->keys_count; i++) {
		send_set(bench, "bench", i);
		if (bench->count == bench->depth) {
			take_answer(bench, false);
		}
	}
	while (bench->count > 0) {
		take_answer(bench, false);
	}
}

static void
measure(struct bench *bench)
{
	uint64_t started_us = now_us();
	uint64_t stop_us = started_us + (uint64_t)(bench->seconds * 1e6);
	double seconds;

	bench->ops = 0;
	histogram_reset(&bench->latency_us);
	while (now_us() < stop_us || bench->count > 0) {
		while (bench->count < bench->depth && now_us() < stop_us) {
			if (bench->is_get) {
				send_get(bench, prng_below(&bench->prng, bench->keys_count));
			} else {
				send_set(bench, "bench-put", bench->put_count++);
			}
		}
		take_answer(bench, bench->is_get);
	}
	seconds = (double)(now_us() - started_us) / 1e6;
	printf("{\"op\": \"%s\", \"size\": %zu, \"depth\": %u, \"ops\": %" PRIu64
	       ", \"seconds\": %.6f, \"ops_per_second\": %.1f, \"bytes_per_second\": %.1f, "
	       "\"latency_us\": {\"p50\": %" PRIu64 ", \"p99\": %" PRIu64 ", \"max\": %" PRIu64
	       "}, \"errors\": %" PRIu64 ", \"wrong\": %" PRIu64 "}\n",
	       bench->is_get ? "get" : "put", bench->size, bench->depth, bench->ops, seconds,
	       (double)bench->ops / seconds, (double)bench->ops * (double)bench->size / seconds,
	       histogram_percentile(&bench->latency_us, 50),
	       histogram_percentile(&bench->latency_us, 99), metric_get(&bench->latency_us.max),
	       bench->errors, bench->wrong);
}

int
main(int argc, char **argv)
{
	static const struct option options[] = {
		{ "port", required_argument, NULL, 'p' },
		{ "op", required_argument, NULL, 'o' },
		{ "size", required_argument, NULL, 's' },
		{ "depth", required_argument, NULL, 'd' },
		{ "seconds", required_argument, NULL, 't' },
		{ "working-set", required_argument, NULL, 'w' },
		{ "no-verify", no_argument, NULL, 'n' },
		{ NULL, 0, NULL, 0 },
	};
	static struct bench bench;
	int port = 6379, c;

	bench = (struct bench){ .is_get = true,
				.verify = true,
				.size = 1 << 20,
				.depth = 16,
				.seconds = 5,
				.working_set = 64 << 20,
				.seed = now_us() };
	while ((c = getopt_long(argc, argv, "", options, NULL)) != -1) {
		switch (c) {
		case 'p':
			port = atoi(optarg);
			break;
		case 'o':
			bench.is_get = strcmp(optarg, "get") == 0;
			break;
		case 's':
			bench.size = strtoull(optarg, NULL, 10);
			break;
		case 'd':
			bench.depth = (unsigned)atoi(optarg);
			break;
		case 't':
			bench.seconds = atof(optarg);
			break;
		case 'w':
			bench.working_set = strtoull(optarg, NULL, 10);
			break;
		case 'n':
			bench.verify = false;
			break;
		default:
			return 2;
		}
	}
	if (bench.size == 0 || bench.depth == 0 || bench.depth > DEPTH_MAX) {
		die("--size above 0 and --depth from 1 to 256 are wanted");
	}
	bench.redis = redisConnect("127.0.0.1", port);
	if (bench.redis == NULL || bench.redis->err != 0) {
		die(bench.redis != NULL ? bench.redis->errstr : "no memory");
	}
	prng_init(&bench.prng, bench.seed);
	bench.keys_count = HR_MAX(bench.working_set / bench.size, (uint64_t)1);
	bench.value = malloc(bench.size);
	if (bench.value == NULL) {
		die("no memory");
	}
	if (bench.is_get) {
		fill(&bench);
	}
	measure(&bench);
	redisFree(bench.redis);
	free(bench.value);
	return bench.errors != 0 || bench.wrong != 0;
}
