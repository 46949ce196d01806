/* hash.h — hashes: keyed 64-bit ones for tables, SHA-256 for identity, and the block id and space digest made of it.
 *
 * What:       hash64_keyed() is SipHash-1-3; mix64() spreads one word; sha256_*() are OpenSSL's with the state in the
 *             caller's memory, so that it can be copied for the price of 112 bytes. Byte tables: docs/format/identity.md.
 * Not here:   checksums (crc.h).
 * Threads:    pure functions, and states that belong to the caller.
 * Invariants: what block_id_compute() and space_digest_compute() give never changes: it is on flash, on the wire and in other
 *             people's indexes. Golden vectors pin it.
 * Tests:      tests/unit/base/test_hash.c, tests/func/test_identity_page.py (an independent implementation)
 */
#ifndef HR_BASE_HASH_H
#define HR_BASE_HASH_H

#include "base/base.h"

enum {
	SHA256_BYTES = 32,
	BLOCK_ID_BYTES = 16,
	SPACE_DIGEST_BYTES = 32,
	BLOCK_ID_VERSION = 1,	  /* First byte of what a block id is the hash of. */
	SPACE_DIGEST_VERSION = 1, /* First byte of what a space digest is the hash of. */
	SPACE_PAIRS_MAX = 1024, /* More pairs than this are refused; real spaces have about ten. */
};

/* The finaliser of SplitMix64: a bijection on 64 bits that spreads every input bit over the whole word. Placement uses it
 * (docs/protocol/placement.md), so it never changes. */
static inline uint64_t
mix64(uint64_t x)
{
	x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9ULL;
	x = (x ^ (x >> 27)) * 0x94d049bb133111ebULL;
	return x ^ (x >> 31);
}

/* SipHash-1-3 with a secret key: table positions that an outsider cannot aim at. */
uint64_t hash64_keyed(const uint64_t key[2], const void *data, size_t len);

struct sha256_ctx {
	uint64_t opaque[14];
};

void sha256_init(struct sha256_ctx *ctx);
void sha256_update(struct sha256_ctx *ctx, const void *data, size_t len);
void sha256_final(struct sha256_ctx *ctx, uint8_t ret_digest[SHA256_BYTES]);
void sha256_copy(struct sha256_ctx *to, const struct sha256_ctx *from);
void sha256(const void *data, size_t len, uint8_t ret_digest[SHA256_BYTES]);

/* The state of a space after the first 64 bytes of what its block ids are the hashes of; made once per space. */
struct block_id_prefix {
	struct sha256_ctx mid;
};

void block_id_prefix_init(struct block_id_prefix *prefix,
			  const uint8_t space_digest[SPACE_DIGEST_BYTES]);

/* The first 16 bytes of SHA-256(version byte, space digest, zeros up to 64 bytes, key). */
void block_id_compute(const struct block_id_prefix *prefix, const void *key, size_t key_len,
		      uint8_t ret_id[BLOCK_ID_BYTES]);

/* One (name, value) of what a space stands for. Borrowed. Any bytes; the name is not empty. */
struct space_pair {
	const void *name;
	size_t name_len;
	const void *value;
	size_t value_len;
};

/* SHA-256 over the version byte and the length-framed pairs, sorted by the bytes of their names.
 * -EINVAL: no pair, too many, an empty name, a name twice, or a length that needs more than 32 bits. */
HR_WARN_UNUSED int space_digest_compute(const struct space_pair *pairs, size_t pairs_count,
					uint8_t ret_digest[SPACE_DIGEST_BYTES]);

#endif
