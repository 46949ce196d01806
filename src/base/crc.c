/* crc.c — CRC-32C over plain and scattered buffers. */
#include "base/crc.h"

#include <isa-l/crc.h>

/* ISA-L takes an int and a pointer that is not const; it reads only. */
enum { CRC_STEP_BYTES = 1 << 30 };

uint32_t
crc32c(uint32_t crc, const void *data, size_t len)
{
	unsigned char *p = (unsigned char *)(uintptr_t)data;
	uint32_t state = ~crc;

	while (len > CRC_STEP_BYTES) {
		state = crc32_iscsi(p, CRC_STEP_BYTES, state);
		p += CRC_STEP_BYTES;
		len -= CRC_STEP_BYTES;
	}
	return len == 0 ? ~state : ~crc32_iscsi(p, (int)len, state);
}

uint32_t
crc32c_iov(uint32_t crc, const struct iovec *iov, size_t iov_count)
{
	for (size_t i = 0; i < iov_count; i++) {
		crc = crc32c(crc, iov[i].iov_base, iov[i].iov_len);
	}
	return crc;
}

size_t
crc32c_chunks(const struct iovec *iov, size_t iov_count, size_t chunk_bytes, uint32_t *ret_crcs)
{
	size_t chunk_left = chunk_bytes;
	size_t chunks_count = 0;
	uint32_t crc = 0;

	HR_ASSERT(chunk_bytes > 0);
	for (size_t i = 0; i < iov_count; i++) {
		const uint8_t *p = iov[i].iov_base;
		size_t left = iov[i].iov_len;

		while (left > 0) {
			size_t n = HR_MIN(left, chunk_left);

			crc = crc32c(crc, p, n);
			p += n;
			left -= n;
			chunk_left -= n;
			if (chunk_left == 0) {
				ret_crcs[chunks_count++] = crc;
				chunk_left = chunk_bytes;
				crc = 0;
			}
		}
	}
	if (chunk_left < chunk_bytes) {
		ret_crcs[chunks_count++] = crc;
	}
	return chunks_count;
}
