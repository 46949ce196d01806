/* utf8.h — text from outside made fit for JSON and for people.
 *
 * What:       labels of spaces and paths may be any bytes; JSON may not.
 * Threads:    any.
 * Tests:      tests/unit/base/test_utf8.c
 */
#ifndef HR_BASE_UTF8_H
#define HR_BASE_UTF8_H

/* Replaces, in place, each byte that belongs to no UTF-8 character by '?'. The beginning of one that was cut at the end goes. */
void utf8_clean(char *text);

#endif
