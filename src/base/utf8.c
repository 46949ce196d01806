/* utf8.c — see utf8.h */
#include "base/utf8.h"

#include <stdint.h>

#include "base/base.h"

/* The length of the character at `at`, 0: none begins there; -1: its end is cut off. */
static int
char_len(const uint8_t *at)
{
	uint32_t code;
	int len;

	if (at[0] < 0x80) {
		return 1;
	}
	len = at[0] >= 0xf0 ? 4 : at[0] >= 0xe0 ? 3 : 2;
	if (at[0] < 0xc2 || at[0] > 0xf4) {
		return 0;
	}
	code = at[0] & (0xffu >> (len + 1));
	for (int i = 1; i < len; i++) {
		if ((at[i] & 0xc0) != 0x80) {
			return at[i] == 0 ? -1 : 0;
		}
		code = code << 6 | (at[i] & 0x3fu);
	}
	/* Longer than need be, a half of a surrogate pair, or beyond the last character. */
	if ((len == 3 && code < 0x800) || (len == 4 && code < 0x10000) || code > 0x10ffff ||
	    (code >= 0xd800 && code <= 0xdfff)) {
		return 0;
	}
	return len;
}

void
utf8_clean(char *text)
{
	uint8_t *at = (uint8_t *)text;

	while (*at != 0) {
		int len = char_len(at);

		if (len < 0) {
			*at = 0;
		} else if (len == 0) {
			*at++ = '?';
		} else {
			at += len;
		}
	}
}
