#include "characters.h"

#include <errno.h>
#include <string.h>

const struct code_page *code_page_find(const char *name)
{
    for (const struct code_page *page = code_pages; page->name; page++)
        if (strcmp(page->name, name) == 0)
            return page;
    return NULL;
}

uint16_t code_page_unit(const struct code_page *page, uint8_t byte)
{
    return byte < 0x80 ? byte : page->units[byte - 0x80];
}

int code_page_byte(const struct code_page *page, uint16_t unit)
{
    if (unit < 0x80)
        return unit;
    for (int i = 0; i < 128; i++)
        if (page->units[i] == unit)
            return i + 0x80;
    return -ENOENT;
}

/* Code pages have Latin, Greek and Cyrillic letters only. */
uint16_t unit_lower(uint16_t unit)
{
    if (unit < 0x80)
        return unit >= 'A' && unit <= 'Z' ? unit + ('a' - 'A') : unit;
    for (uint16_t lower = 0x80; lower < 0x500; lower++)
        if (lower != unit && unit_upper(lower) == unit)
            return lower;
    return unit;
}

bool units_same(const uint16_t *a, unsigned a_length, const uint16_t *b, unsigned b_length)
{
    if (a_length != b_length)
        return false;
    for (unsigned i = 0; i < a_length; i++)
        if (unit_upper(a[i]) != unit_upper(b[i]))
            return false;
    return true;
}

uint32_t units_hash(const uint16_t *units, unsigned length)
{
    uint32_t hash = 2166136261u;
    for (unsigned i = 0; i < length; i++)
        hash = (hash ^ unit_upper(units[i])) * 16777619u;
    return hash;
}
