/* content.c — see content.h. */
#include "cli/content.h"

#include <pthread.h>

#include "base/hash.h"
#include "base/prng.h"

enum { PAGE_WORDS = CONTENT_PAGE_BYTES / 8, VECTOR_WORDS = 4 };

/* Unaligned on purpose: callers' buffers may start anywhere. */
typedef uint64_t vector __attribute__((vector_size(8 * VECTOR_WORDS), aligned(1), may_alias));

static uint64_t g_page[PAGE_WORDS] HR_CACHELINE_ALIGNED;
static pthread_once_t g_page_once = PTHREAD_ONCE_INIT;

static void
make_page(void)
{
	struct prng prng;

	prng_init(&prng, 0x68656164726163ULL);
	for (int i = 0; i < PAGE_WORDS; i++) {
		g_page[i] = prng_u64(&prng);
	}
}

uint64_t
content_seed(const void *key, size_t key_len)
{
	static const uint64_t seed_key[2] = { 0x636f6e74656e7431ULL, 0x6865616472616365ULL };

	return hash64_keyed(seed_key, key, key_len);
}

static uint64_t
page_word(uint64_t seed, uint64_t page)
{
	return mix64(seed + page * 0x9e3779b97f4a7c15ULL);
}

static void
fill_page(uint8_t *to, uint64_t word)
{
	vector mask = { word, word, word, word };

	for (int i = 0; i < PAGE_WORDS; i += VECTOR_WORDS) {
		*(vector *)(to + i * 8) = *(const vector *)&g_page[i] ^ mask;
	}
}

static bool
page_is_right(const uint8_t *data, uint64_t word)
{
	vector mask = { word, word, word, word };
	vector wrong = { 0 };

	for (int i = 0; i < PAGE_WORDS; i += VECTOR_WORDS) {
		wrong |= *(const vector *)(data + i * 8) ^ *(const vector *)&g_page[i] ^ mask;
	}
	return (wrong[0] | wrong[1] | wrong[2] | wrong[3]) == 0;
}

static size_t
first_wrong(const uint8_t *data, size_t len, uint64_t word)
{
	uint8_t want[CONTENT_PAGE_BYTES];

	fill_page(want, word);
	for (size_t i = 0; i < len; i++) {
		if (data[i] != want[i]) {
			return i;
		}
	}
	return len;
}

void
content_fill(void *ret, size_t len, uint64_t seed)
{
	uint8_t *to = ret;
	uint8_t tail[CONTENT_PAGE_BYTES];
	uint64_t page = 0;

	pthread_once(&g_page_once, make_page);
	for (; len >= CONTENT_PAGE_BYTES; len -= CONTENT_PAGE_BYTES) {
		fill_page(to, page_word(seed, page++));
		to += CONTENT_PAGE_BYTES;
	}
	if (len > 0) {
		fill_page(tail, page_word(seed, page));
		memcpy(to, tail, len);
	}
}

size_t
content_check(const void *data, size_t len, uint64_t seed)
{
	const uint8_t *at = data;
	size_t off = 0;
	uint64_t page = 0;

	pthread_once(&g_page_once, make_page);
	for (; len - off >= CONTENT_PAGE_BYTES; off += CONTENT_PAGE_BYTES) {
		uint64_t word = page_word(seed, page++);

		if (!page_is_right(at + off, word)) {
			return off + first_wrong(at + off, CONTENT_PAGE_BYTES, word);
		}
	}
	return off + first_wrong(at + off, len - off, page_word(seed, page));
}

uint64_t
content_wrong_bytes(const void *data, size_t len, uint64_t seed)
{
	const uint8_t *at = data;
	uint8_t want[CONTENT_PAGE_BYTES];
	uint64_t count = 0;

	pthread_once(&g_page_once, make_page);
	for (size_t off = 0; off < len; off += CONTENT_PAGE_BYTES) {
		size_t bytes = HR_MIN(len - off, (size_t)CONTENT_PAGE_BYTES);

		fill_page(want, page_word(seed, off / CONTENT_PAGE_BYTES));
		for (size_t i = 0; i < bytes; i++) {
			count += at[off + i] != want[i];
		}
	}
	return count;
}
