#include "utf16.h"

#include <errno.h>
#include <stdbool.h>

static bool is_high(uint32_t unit)
{
    return unit >= 0xD800 && unit < 0xDC00;
}

static bool is_low(uint32_t unit)
{
    return unit >= 0xDC00 && unit < 0xE000;
}

/* One letter from *at on, which is moved behind it; negative: there is none. */
static int32_t next_letter(const unsigned char **at)
{
    static const uint32_t least[] = {0, 0, 0x80, 0x800, 0x10000};
    const unsigned char *p = *at;
    int length = p[0] < 0x80       ? 1
                 : p[0] >> 5 == 6  ? 2
                 : p[0] >> 4 == 14 ? 3
                 : p[0] >> 3 == 30 ? 4
                                   : 0;
    if (length == 0)
        return -1;
    uint32_t letter = length == 1 ? p[0] : p[0] & (0x7Fu >> length);
    for (int i = 1; i < length; i++) {
        if (p[i] >> 6 != 2)
            return -1;
        letter = letter << 6 | (p[i] & 0x3F);
    }
    if (letter < least[length] || letter > 0x10FFFF)
        return -1;
    *at = p + length;
    return (int32_t)letter;
}

int utf16_from_utf8(const char *text, uint16_t *units, size_t room)
{
    const unsigned char *at = (const unsigned char *)text;
    size_t count = 0;
    while (*at) {
        int32_t letter = next_letter(&at);
        if (letter < 0)
            return -EILSEQ;
        size_t needed = letter >= 0x10000 ? 2 : 1;
        if (room - count < needed)
            return -ENAMETOOLONG;
        if (needed == 2) {
            units[count++] = (uint16_t)(0xD800 + ((letter - 0x10000) >> 10));
            units[count++] = (uint16_t)(0xDC00 + ((letter - 0x10000) & 0x3FF));
        } else {
            units[count++] = (uint16_t)letter;
        }
    }
    return (int)count;
}

static size_t put_letter(uint32_t letter, char *text)
{
    if (letter < 0x80) {
        text[0] = (char)letter;
        return 1;
    }
    size_t length = letter < 0x800 ? 2 : letter < 0x10000 ? 3 : 4;
    for (size_t i = length - 1; i > 0; i--, letter >>= 6)
        text[i] = (char)(0x80 | (letter & 0x3F));
    text[0] = (char)((0xF00u >> length & 0xFF) | letter);
    return length;
}

size_t utf8_from_utf16(const uint16_t *units, size_t count, char *text)
{
    size_t length = 0;
    for (size_t i = 0; i < count; i++) {
        uint32_t letter = units[i];
        if (is_high(letter) && i + 1 < count && is_low(units[i + 1]))
            letter = 0x10000 + ((letter - 0xD800) << 10) + (units[++i] - 0xDC00u);
        length += put_letter(letter, text + length);
    }
    text[length] = '\0';
    return length;
}
