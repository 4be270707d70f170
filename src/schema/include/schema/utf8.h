#ifndef SCHEMA_UTF8_H
#define SCHEMA_UTF8_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <base/buffer.h>

/* Bytes of the well-formed sequence at text (Unicode 15, table 3-7: no surrogates, nothing longer
 * than needed, nothing above U+10FFFF), or 0. */
size_t utf8_sequence(const char *text, size_t length);

/* Offset of the first byte that begins no well-formed sequence; length when all is well. */
size_t utf8_check(const char *text, size_t length);

/* The high bit of each byte that is above 0x7f, and of the lowest NUL. */
static inline uint64_t utf8_unplain_bytes(uint64_t word)
{
    return (word | (word - UINT64_C(0x0101010101010101))) & UINT64_C(0x8080808080808080);
}

/* Whether it is ASCII without NUL, as nearly all text is. Eight bytes at a time, the last of them
 * once more where their number is no multiple. */
static inline bool utf8_is_plain(const char *text, size_t length)
{
    const char *end = text + length;
    uint64_t word, unplain = 0;

    if (length < sizeof(word)) {
        word = UINT64_C(0x0101010101010101);
        memcpy(&word, text, length);
        return !utf8_unplain_bytes(word);
    }
    for (; (size_t)(end - text) >= sizeof(word); text += sizeof(word)) {
        memcpy(&word, text, sizeof(word));
        unplain |= utf8_unplain_bytes(word);
    }
    memcpy(&word, end - sizeof(word), sizeof(word));
    return !(unplain | utf8_unplain_bytes(word));
}

/* Characters in well-formed text. */
size_t utf8_count(const char *text, size_t length);

/* Appends text with U+FFFD in place of each byte that begins no well-formed sequence. */
void utf8_mend(const char *text, size_t length, struct buffer *out);

#endif
