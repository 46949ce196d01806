/* size.h — sizes, durations and bit rates as people write them.
 *
 * What:       "8GiB", "64KiB", "1.5 MiB", "4096"; "30s", "5ms", "250us", "2h"; "200Gbit". Both ways.
 * Errors:     -EINVAL: not understood; -ERANGE: does not fit 64 bits. Both with a line that says what is wanted.
 * Tests:      tests/unit/base/test_size.c
 */
#ifndef HR_BASE_SIZE_H
#define HR_BASE_SIZE_H

#include "base/error.h"

enum { SIZE_TEXT_BYTES = 32 };

/* Bytes. Units: B, KiB, MiB, GiB, TiB, PiB (powers of 1024) and kB, MB, GB, TB, PB (powers of 1000); without one, bytes. */
HR_WARN_UNUSED int size_parse(const char *text, uint64_t *ret_bytes, struct errbuf *err);

/* Microseconds. Units: us, ms, s, m, min, h, d. A unit is required, except for 0. */
HR_WARN_UNUSED int duration_parse(const char *text, uint64_t *ret_us, struct errbuf *err);

/* Bits per second. Units: bit, kbit, Mbit, Gbit, Tbit, each also with "/s" behind it or as bps, kbps, … */
HR_WARN_UNUSED int bitrate_parse(const char *text, uint64_t *ret_bits_per_s, struct errbuf *err);

/* Exactly, in the largest unit that divides the value: "8GiB", "1537MiB", "4097B"; size_parse() reads it back. */
const char *size_format(uint64_t bytes, char ret_text[SIZE_TEXT_BYTES]);

/* For people, three digits: "8.00 GiB", "1.50 MiB", "117 B". */
const char *size_format_short(uint64_t bytes, char ret_text[SIZE_TEXT_BYTES]);

/* Exactly: "30s", "5ms", "250us"; duration_parse() reads it back. */
const char *duration_format(uint64_t us, char ret_text[SIZE_TEXT_BYTES]);

/* Exactly: "200Gbit"; bitrate_parse() reads it back. */
const char *bitrate_format(uint64_t bits_per_s, char ret_text[SIZE_TEXT_BYTES]);

#endif
