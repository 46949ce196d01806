/* content.h — what is in a block: bytes made from its seed, fast, so that every byte of every GET can be checked.
 *
 * What:       content_seed() makes a seed of a key; byte i of the block is byte (i mod 4096) of a random page, xored with a
 *             64-bit word of its own for each 4 KiB. Pages differ within a block and between blocks, and a page that is
 *             shifted, swapped, stale or of another block does not pass.
 * Threads:    pure functions (the page is made once, by the first caller).
 * Invariants: the same seed gives the same bytes in every version: stores filled by one are checked by another.
 * Limits:     more than 10 GB/s a core, so that checking does not hide the store's speed.
 * Tests:      tests/unit/cli/test_content.c
 */
#ifndef HR_CLI_CONTENT_H
#define HR_CLI_CONTENT_H

#include "base/base.h"

enum { CONTENT_PAGE_BYTES = 4096 };

uint64_t content_seed(const void *key, size_t key_len);
void content_fill(void *ret, size_t len, uint64_t seed);
/* Offset of the first wrong byte, or len when all are right. */
size_t content_check(const void *data, size_t len, uint64_t seed);
/* Wrong bytes, all of them; slower, for what content_check() found to be wrong. */
uint64_t content_wrong_bytes(const void *data, size_t len, uint64_t seed);

#endif
