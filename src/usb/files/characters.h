/*
 * Names as volumes keep them: units of UTF-16, compared by their upper case, and bytes of code
 * pages. tables.c is written by make_tables.py.
 */
#ifndef FILES_CHARACTERS_H
#define FILES_CHARACTERS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { UNITS_MAX = 255 }; /* of a name */

/* Bytes 0x80 to 0xFF of a code page as units; 0: there is no character. */
struct code_page {
    const char *name;
    uint16_t units[128];
};
extern const struct code_page code_pages[]; /* the last one has no name */
extern const uint16_t *const upper_pages[256];

const struct code_page *code_page_find(const char *name); /* NULL: there is none */
uint16_t code_page_unit(const struct code_page *page, uint8_t byte);

/* The byte of a unit. Negative: there is none. */
int code_page_byte(const struct code_page *page, uint16_t unit);

static inline uint16_t unit_upper(uint16_t unit)
{
    const uint16_t *page = upper_pages[unit >> 8];
    return page ? page[unit & 0xFF] : unit;
}
uint16_t unit_lower(uint16_t unit); /* of what code pages have */

bool units_same(const uint16_t *a, unsigned a_length, const uint16_t *b, unsigned b_length);
uint32_t units_hash(const uint16_t *units, unsigned length); /* of the upper case */

#endif
