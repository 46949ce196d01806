/* hash.c — SipHash-1-3, SHA-256, block ids and space digests. */
#include "base/hash.h"

#include <errno.h>
#include <stdlib.h>

/* The low-level calls are deprecated in OpenSSL 3 for lack of providers and the like. They are what lets a mid-state be
 * copied by assignment: a block id of a 32-byte key took 56 ns with them and 76 ns with EVP_MD_CTX_copy_ex(), which also
 * needs a context of its own on the heap for every thread. */
#define OPENSSL_SUPPRESS_DEPRECATED
#include <openssl/sha.h>

static_assert(sizeof(struct sha256_ctx) >= sizeof(SHA256_CTX), "the state must fit");
static_assert(_Alignof(struct sha256_ctx) >= _Alignof(SHA256_CTX), "and be aligned");

static inline SHA256_CTX *
sha(struct sha256_ctx *ctx)
{
	return (SHA256_CTX *)(void *)ctx;
}

void
sha256_init(struct sha256_ctx *ctx)
{
	memset(ctx, 0, sizeof(*ctx));
	HR_ASSERT(SHA256_Init(sha(ctx)) == 1);
}

void
sha256_update(struct sha256_ctx *ctx, const void *data, size_t len)
{
	if (len > 0) {
		HR_ASSERT(SHA256_Update(sha(ctx), data, len) == 1);
	}
}

void
sha256_final(struct sha256_ctx *ctx, uint8_t ret_digest[SHA256_BYTES])
{
	HR_ASSERT(SHA256_Final(ret_digest, sha(ctx)) == 1);
}

void
sha256_copy(struct sha256_ctx *to, const struct sha256_ctx *from)
{
	*to = *from;
}

void
sha256(const void *data, size_t len, uint8_t ret_digest[SHA256_BYTES])
{
	struct sha256_ctx ctx;

	sha256_init(&ctx);
	sha256_update(&ctx, data, len);
	sha256_final(&ctx, ret_digest);
}

void
block_id_prefix_init(struct block_id_prefix *prefix, const uint8_t space_digest[SPACE_DIGEST_BYTES])
{
	uint8_t first[64] = { BLOCK_ID_VERSION };

	memcpy(first + 1, space_digest, SPACE_DIGEST_BYTES);
	sha256_init(&prefix->mid);
	sha256_update(&prefix->mid, first, sizeof(first));
}

void
block_id_compute(const struct block_id_prefix *prefix, const void *key, size_t key_len,
		 uint8_t ret_id[BLOCK_ID_BYTES])
{
	struct sha256_ctx ctx = prefix->mid;
	uint8_t digest[SHA256_BYTES];

	sha256_update(&ctx, key, key_len);
	sha256_final(&ctx, digest);
	memcpy(ret_id, digest, BLOCK_ID_BYTES);
}

static int
pair_compare(const void *a, const void *b)
{
	const struct space_pair *x = *(const struct space_pair *const *)a;
	const struct space_pair *y = *(const struct space_pair *const *)b;
	int cmp = memcmp(x->name, y->name, HR_MIN(x->name_len, y->name_len));

	if (cmp != 0) {
		return cmp;
	}
	return x->name_len < y->name_len ? -1 : x->name_len > y->name_len;
}

static void
sha256_update_framed(struct sha256_ctx *ctx, const void *data, size_t len)
{
	uint8_t len_le[4];

	put_le32(len_le, (uint32_t)len);
	sha256_update(ctx, len_le, sizeof(len_le));
	sha256_update(ctx, data, len);
}

int
space_digest_compute(const struct space_pair *pairs, size_t pairs_count,
		     uint8_t ret_digest[SPACE_DIGEST_BYTES])
{
	const struct space_pair *sorted[SPACE_PAIRS_MAX];
	const uint8_t version = SPACE_DIGEST_VERSION;
	struct sha256_ctx ctx;

	if (pairs_count == 0 || pairs_count > SPACE_PAIRS_MAX) {
		return -EINVAL;
	}
	for (size_t i = 0; i < pairs_count; i++) {
		if (pairs[i].name_len == 0 || pairs[i].name_len > UINT32_MAX ||
		    pairs[i].value_len > UINT32_MAX) {
			return -EINVAL;
		}
		sorted[i] = &pairs[i];
	}
	qsort(sorted, pairs_count, sizeof(sorted[0]), pair_compare);
	for (size_t i = 1; i < pairs_count; i++) {
		if (pair_compare(&sorted[i - 1], &sorted[i]) == 0) {
			return -EINVAL;
		}
	}
	sha256_init(&ctx);
	sha256_update(&ctx, &version, 1);
	for (size_t i = 0; i < pairs_count; i++) {
		sha256_update_framed(&ctx, sorted[i]->name, sorted[i]->name_len);
		sha256_update_framed(&ctx, sorted[i]->value, sorted[i]->value_len);
	}
	sha256_final(&ctx, ret_digest);
	return 0;
}

/* SipHash of Aumasson and Bernstein with one compression and three finalisation rounds, as in Rust's and Python's tables. */
struct sip {
	uint64_t v0, v1, v2, v3;
};

static inline uint64_t
rotl64(uint64_t x, int k)
{
	return (x << k) | (x >> (64 - k));
}

static inline void
sip_round(struct sip *s)
{
	s->v0 += s->v1;
	s->v1 = rotl64(s->v1, 13) ^ s->v0;
	s->v0 = rotl64(s->v0, 32);
	s->v2 += s->v3;
	s->v3 = rotl64(s->v3, 16) ^ s->v2;
	s->v0 += s->v3;
	s->v3 = rotl64(s->v3, 21) ^ s->v0;
	s->v2 += s->v1;
	s->v1 = rotl64(s->v1, 17) ^ s->v2;
	s->v2 = rotl64(s->v2, 32);
}

uint64_t
hash64_keyed(const uint64_t key[2], const void *data, size_t len)
{
	struct sip s = {
		.v0 = key[0] ^ 0x736f6d6570736575ULL,
		.v1 = key[1] ^ 0x646f72616e646f6dULL,
		.v2 = key[0] ^ 0x6c7967656e657261ULL,
		.v3 = key[1] ^ 0x7465646279746573ULL,
	};
	const uint8_t *p = data;
	uint64_t last = (uint64_t)len << 56;
	size_t left = len;

	for (; left >= 8; p += 8, left -= 8) {
		uint64_t m = get_le64(p);

		s.v3 ^= m;
		sip_round(&s);
		s.v0 ^= m;
	}
	for (size_t i = 0; i < left; i++) {
		last |= (uint64_t)p[i] << (8 * i);
	}
	s.v3 ^= last;
	sip_round(&s);
	s.v0 ^= last;
	s.v2 ^= 0xff;
	sip_round(&s);
	sip_round(&s);
	sip_round(&s);
	return s.v0 ^ s.v1 ^ s.v2 ^ s.v3;
}
