/*
 * Names between the UTF-16 of volumes and the UTF-8 of programs. A unit that is half of a pair,
 * which a stick may hold though it is no letter, becomes three bytes as if it were one (as in
 * WTF-8), so that every name of a volume has one of its own here, and it is found again.
 */
#ifndef FILES_UTF16_H
#define FILES_UTF16_H

#include <stddef.h>
#include <stdint.h>

/* Returns how many units; -EILSEQ: it is no UTF-8, -ENAMETOOLONG: there are more than `room`. */
int utf16_from_utf8(const char *text, uint16_t *units, size_t room);

/* Writes at most 3 bytes a unit and a NUL to text. Returns its length. */
size_t utf8_from_utf16(const uint16_t *units, size_t count, char *text);

#endif
