#ifndef SCHEMA_UTF8_H
#define SCHEMA_UTF8_H

#include <stddef.h>

#include <base/buffer.h>

/* Bytes of the well-formed sequence at text (Unicode 15, table 3-7: no surrogates, nothing longer
 * than needed, nothing above U+10FFFF), or 0. */
size_t utf8_sequence(const char *text, size_t length);

/* Offset of the first byte that begins no well-formed sequence; length when all is well. */
size_t utf8_check(const char *text, size_t length);

/* Characters in well-formed text. */
size_t utf8_count(const char *text, size_t length);

/* Appends text with U+FFFD in place of each byte that begins no well-formed sequence. */
void utf8_mend(const char *text, size_t length, struct buffer *out);

#endif
