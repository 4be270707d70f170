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
    for (uint16_t lower = 'a'; lower < 0x500; lower++)
        if (lower != unit && unit_upper(lower) == unit)
            return lower;
    return unit;
}

/* Bytes that follow the first one of a character. */
static int followers(uint8_t first)
{
    if (first < 0x80)
        return 0;
    if (first >= 0xC2 && first < 0xE0)
        return 1;
    if ((first & 0xF0) == 0xE0)
        return 2;
    return first >= 0xF0 && first < 0xF5 ? 3 : -EINVAL;
}

static int next_character(const uint8_t **at)
{
    static const uint32_t least[] = {0, 0x80, 0x800, 0x10000};
    static const uint8_t bits[] = {0x7F, 0x1F, 0x0F, 0x07};
    int count = followers(**at);
    if (count < 0)
        return count;
    uint32_t character = *(*at)++ & bits[count];
    for (int i = 0; i < count; i++) {
        if ((**at & 0xC0) != 0x80)
            return -EINVAL;
        character = character << 6 | (*(*at)++ & 0x3F);
    }
    if (character < least[count] || character > 0x10FFFF ||
        (character >= 0xD800 && character < 0xE000))
        return -EINVAL;
    return (int)character;
}

int units_from_utf8(const char *text, uint16_t units[static UNITS_MAX])
{
    const uint8_t *at = (const uint8_t *)text;
    int length = 0;
    while (*at) {
        int character = next_character(&at);
        if (character < 0)
            return character;
        if (length + (character >= 0x10000) >= UNITS_MAX)
            return -ENAMETOOLONG;
        if (character >= 0x10000) {
            units[length++] = (uint16_t)(0xD800 + ((character - 0x10000) >> 10));
            character = 0xDC00 + ((character - 0x10000) & 0x3FF);
        }
        units[length++] = (uint16_t)character;
    }
    return length;
}

static bool is_high(uint16_t unit)
{
    return unit >= 0xD800 && unit < 0xDC00;
}

static bool is_low(uint16_t unit)
{
    return unit >= 0xDC00 && unit < 0xE000;
}

static char *put_character(char *to, uint32_t character)
{
    int count = character < 0x80 ? 0 : character < 0x800 ? 1 : character < 0x10000 ? 2 : 3;
    static const uint8_t marks[] = {0, 0xC0, 0xE0, 0xF0};
    *to++ = (char)(marks[count] | character >> (6 * count));
    while (count-- > 0)
        *to++ = (char)(0x80 | (character >> (6 * count) & 0x3F));
    return to;
}

bool units_to_utf8(const uint16_t *units, unsigned length, char *ret_text)
{
    char *to = ret_text;
    for (unsigned i = 0; i < length; i++) {
        uint32_t character = units[i];
        if (is_high(units[i])) {
            if (i + 1 == length || !is_low(units[i + 1]))
                return false;
            character = 0x10000 + ((character - 0xD800) << 10) + (units[++i] - 0xDC00u);
        } else if (is_low(units[i])) {
            return false;
        }
        to = put_character(to, character);
    }
    *to = '\0';
    return true;
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
