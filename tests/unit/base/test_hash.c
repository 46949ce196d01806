/* test_hash.c — golden vectors of identity, checked beside by tests/func/test_identity_page.py, and of the hashes below it. */
#include "base/hash.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>

#include <cmocka.h>

static void
assert_hex(const uint8_t *bytes, size_t len, const char *hex)
{
	char text[129];

	assert_true(len <= 64);
	for (size_t i = 0; i < len; i++) {
		snprintf(text + 2 * i, 3, "%02x", bytes[i]);
	}
	assert_string_equal(text, hex);
}

/* Python 3.11 hashes bytes by SipHash-1-3; with PYTHONHASHSEED=0 under the zero key. */
static void
test_siphash(void **state)
{
	static const uint64_t zero_key[2] = { 0, 0 };
	static const uint64_t other_key[2] = { 0, 1 };
	uint8_t bytes[64];

	(void)state;
	for (size_t i = 0; i < sizeof(bytes); i++) {
		bytes[i] = (uint8_t)i;
	}
	assert_true(hash64_keyed(zero_key, "a", 1) == 0x407448d2b89b1813ULL);
	assert_true(hash64_keyed(zero_key, "12345678", 8) == 0x3489982430560a87ULL);
	assert_true(hash64_keyed(zero_key, "the quick brown fox", 19) == 0x5a17575ad3449cbaULL);
	assert_true(hash64_keyed(zero_key, bytes, 64) == 0x75e05fd5bbc870c6ULL);
	assert_true(hash64_keyed(other_key, bytes, 64) != 0x75e05fd5bbc870c6ULL);
}

/* splitmix64 from the state 1234567 gives 6457827717110365317: mix64() is its last step. Every input bit moves many output bits. */
static void
test_mix(void **state)
{
	(void)state;
	assert_true(mix64(1234567 + 0x9e3779b97f4a7c15ULL) == 6457827717110365317ULL);
	for (int bit = 0; bit < 64; bit++) {
		int flipped = __builtin_popcountll(mix64(12345) ^ mix64(12345 ^ (uint64_t)1 << bit));

		assert_in_range(flipped, 14, 50);
	}
}

static void
test_sha256(void **state)
{
	struct sha256_ctx ctx, copy;
	uint8_t digest[SHA256_BYTES];

	(void)state;
	sha256("abc", 3, digest);
	assert_hex(digest, 32, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
	sha256(NULL, 0, digest);
	assert_hex(digest, 32, "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
	sha256_init(&ctx);
	sha256_update(&ctx, "a", 1);
	sha256_copy(&copy, &ctx);
	sha256_update(&ctx, "garbage", 7); /* The copy is its own. */
	sha256_update(&copy, "bc", 2);
	sha256_final(&copy, digest);
	assert_hex(digest, 32, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
}

static void
test_block_id_golden(void **state)
{
	static const uint8_t zeros[1024];
	uint8_t digest[SPACE_DIGEST_BYTES];
	struct block_id_prefix prefix;
	uint8_t id[BLOCK_ID_BYTES];

	(void)state;
	for (size_t i = 0; i < sizeof(digest); i++) {
		digest[i] = (uint8_t)i;
	}
	block_id_prefix_init(&prefix, digest);
	block_id_compute(&prefix, "k", 1, id);
	assert_hex(id, 16, "6e21725373efe7ee8f70117e145e99ad");
	block_id_compute(&prefix, "block/0", 7, id);
	assert_hex(id, 16, "78019b05b71e26f275b2afddcaaec898");
	block_id_compute(&prefix, zeros, sizeof(zeros), id);
	assert_hex(id, 16, "b2616c9d47e11118b81874760cc4a2e5");
}

#define PAIR(n, v)                                                                                 \
	{                                                                                          \
		n, sizeof(n) - 1, v, sizeof(v) - 1                                                 \
	}

static void
test_space_digest_golden(void **state)
{
	static const struct space_pair name_default[] = { PAIR("name", "default") };
	static const struct space_pair model[] = { PAIR("model", "llama-3.1-8b"),
						   PAIR("kv_dtype", "bf16"),
						   PAIR("block_tokens", "16"), PAIR("adapter", "") };
	static const struct space_pair shuffled[] = { PAIR("adapter", ""),
						      PAIR("block_tokens", "16"),
						      PAIR("model", "llama-3.1-8b"),
						      PAIR("kv_dtype", "bf16") };
	uint8_t digest[SPACE_DIGEST_BYTES];
	struct block_id_prefix prefix;
	uint8_t id[BLOCK_ID_BYTES];

	(void)state;
	assert_int_equal(space_digest_compute(name_default, 1, digest), 0);
	assert_hex(digest, 32, "2992fc966e5d07257afa8bd6577b463f21c8569e6b8ce5784883104c833fba65");
	block_id_prefix_init(&prefix, digest);
	block_id_compute(&prefix, "hello", 5, id);
	assert_hex(id, 16, "d6c8bb7b3be350dfdd9faf1717508250");
	assert_int_equal(space_digest_compute(model, 4, digest), 0);
	assert_hex(digest, 32, "83bd84dd253166c3103a116f519521a61a56429c22c47ab9a33ab20a676d4b69");
	assert_int_equal(space_digest_compute(shuffled, 4, digest), 0);
	assert_hex(digest, 32, "83bd84dd253166c3103a116f519521a61a56429c22c47ab9a33ab20a676d4b69");
}

static void
test_space_digest_refusals(void **state)
{
	static const struct space_pair twice[] = { PAIR("a", "1"), PAIR("b", "2"), PAIR("a", "3") };
	static const struct space_pair nameless[] = { PAIR("", "1") };
	static const struct space_pair prefix_names[] = { PAIR("ab", "1"), PAIR("a", "2") };
	uint8_t digest[SPACE_DIGEST_BYTES];
	uint8_t before[SPACE_DIGEST_BYTES];
	struct space_pair large = PAIR("a", "1");

	(void)state;
	memset(digest, 7, sizeof(digest));
	memcpy(before, digest, sizeof(digest));
	assert_int_equal(space_digest_compute(twice, 3, digest), -EINVAL);
	assert_int_equal(space_digest_compute(nameless, 1, digest), -EINVAL);
	assert_int_equal(space_digest_compute(NULL, 0, digest), -EINVAL);
	assert_int_equal(space_digest_compute(twice, SPACE_PAIRS_MAX + 1, digest), -EINVAL);
	large.value_len = (size_t)UINT32_MAX + 1;
	assert_int_equal(space_digest_compute(&large, 1, digest), -EINVAL);
	assert_memory_equal(digest, before, sizeof(digest));
	assert_int_equal(space_digest_compute(prefix_names, 2, digest), 0);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_siphash),
		cmocka_unit_test(test_mix),
		cmocka_unit_test(test_sha256),
		cmocka_unit_test(test_block_id_golden),
		cmocka_unit_test(test_space_digest_golden),
		cmocka_unit_test(test_space_digest_refusals),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
