/* crc.h — CRC-32C (Castagnoli), by ISA-L.
 *
 * What:       the checksum of everything on flash and on the wire: reflected, initial value and final xor ~0, so that
 *             "123456789" gives 0xe3069283. Continuing: crc32c(crc32c(0, a), b) == crc32c(0, ab).
 * Not here:   identity (hash.h): a CRC says that bytes are the ones that were written, not who they are.
 * Threads:    pure functions.
 * Tests:      tests/unit/base/test_crc.c
 */
#ifndef HR_BASE_CRC_H
#define HR_BASE_CRC_H

#include <sys/uio.h>

#include "base/base.h"

/* Start with crc = 0. */
uint32_t crc32c(uint32_t crc, const void *data, size_t len);

/* Over all pieces in order. */
uint32_t crc32c_iov(uint32_t crc, const struct iovec *iov, size_t iov_count);

/* One CRC for each chunk_bytes of the scattered buffer, each from 0; the last chunk may be shorter. Writes
 * ceil(total / chunk_bytes) values to ret_crcs and returns that count (0 for an empty buffer). */
size_t
crc32c_chunks(const struct iovec *iov, size_t iov_count, size_t chunk_bytes, uint32_t *ret_crcs);

#endif
