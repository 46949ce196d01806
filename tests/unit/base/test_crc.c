/* test_crc.c — the RFC 3720 vectors, a bit-by-bit CRC beside ISA-L's, and scattered buffers beside flat ones. */
#include "base/crc.h"
#include "base/prng.h"

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

static uint32_t
crc32c_slow(const uint8_t *p, size_t len)
{
	uint32_t crc = ~0u;

	while (len-- > 0) {
		crc ^= *p++;
		for (int bit = 0; bit < 8; bit++) {
			crc = (crc & 1) != 0 ? crc >> 1 ^ 0x82f63b78u : crc >> 1;
		}
	}
	return ~crc;
}

static void
test_vectors(void **state)
{
	uint8_t bytes[32];

	(void)state;
	assert_int_equal(crc32c(0, "123456789", 9), 0xe3069283u);
	assert_int_equal(crc32c(0, NULL, 0), 0);
	memset(bytes, 0, sizeof(bytes));
	assert_int_equal(crc32c(0, bytes, 32), 0x8a9136aau);
	memset(bytes, 0xff, sizeof(bytes));
	assert_int_equal(crc32c(0, bytes, 32), 0x62a8ab43u);
	for (int i = 0; i < 32; i++) {
		bytes[i] = (uint8_t)i;
	}
	assert_int_equal(crc32c(0, bytes, 32), 0x46dd794eu);
}

static void
test_continues(void **state)
{
	uint8_t bytes[700];
	struct prng prng;

	(void)state;
	prng_init(&prng, 3);
	prng_bytes(&prng, bytes, sizeof(bytes));
	for (size_t cut = 0; cut <= sizeof(bytes); cut += 7) {
		assert_int_equal(crc32c(crc32c(0, bytes, cut), bytes + cut, sizeof(bytes) - cut),
				 crc32c_slow(bytes, sizeof(bytes)));
	}
}

/* Random cuts of a random buffer against the CRCs of its flat chunks; one value behind the last must stay untouched. */
static void
test_chunks(void **state)
{
	enum { TOTAL = 5000 };
	uint8_t bytes[TOTAL];
	struct prng prng;

	(void)state;
	prng_init(&prng, 4);
	prng_bytes(&prng, bytes, sizeof(bytes));
	for (int round = 0; round < 300; round++) {
		size_t total = prng_below(&prng, TOTAL + 1);
		size_t chunk = 1 + prng_below(&prng, 1200);
		size_t expected_count = div_round_up(total, chunk);
		uint32_t crcs[TOTAL + 1];
		struct iovec iov[32];
		size_t iov_count = 0;
		size_t off = 0;

		while (off < total || iov_count == 0) {
			size_t n = iov_count == 30 ? total - off
						   : prng_below(&prng, total - off + 1);

			iov[iov_count++] = (struct iovec){ bytes + off, n };
			off += n;
		}
		crcs[expected_count] = 0xdeadbeef;
		assert_int_equal(crc32c_chunks(iov, iov_count, chunk, crcs), expected_count);
		assert_int_equal(crcs[expected_count], 0xdeadbeef);
		for (size_t i = 0; i < expected_count; i++) {
			size_t len = HR_MIN(chunk, total - i * chunk);

			assert_int_equal(crcs[i], crc32c(0, bytes + i * chunk, len));
		}
		assert_int_equal(crc32c_iov(0, iov, iov_count), crc32c(0, bytes, total));
	}
	assert_int_equal(crc32c_chunks(NULL, 0, 4096, NULL), 0);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_vectors),
		cmocka_unit_test(test_continues),
		cmocka_unit_test(test_chunks),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
