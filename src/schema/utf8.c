#include <stdint.h>
#include <string.h>

#include <schema/utf8.h>

static unsigned char byte_at(const char *text, size_t i)
{
    return (unsigned char)text[i];
}

static int is_trail(const char *text, size_t i)
{
    return (byte_at(text, i) & 0xc0) == 0x80;
}

size_t utf8_sequence(const char *text, size_t length)
{
    if (length == 0)
        return 0;
    unsigned char lead = byte_at(text, 0);
    if (lead < 0x80)
        return 1;
    size_t size = lead >= 0xc2 && lead <= 0xdf   ? 2
                  : lead >= 0xe0 && lead <= 0xef ? 3
                  : lead >= 0xf0 && lead <= 0xf4 ? 4
                                                 : 0;
    if (size == 0 || size > length)
        return 0;
    for (size_t i = 1; i < size; i++)
        if (!is_trail(text, i))
            return 0;

    unsigned char second = byte_at(text, 1);
    if ((lead == 0xe0 && second < 0xa0) || (lead == 0xed && second > 0x9f) ||
        (lead == 0xf0 && second < 0x90) || (lead == 0xf4 && second > 0x8f))
        return 0;
    return size;
}

size_t utf8_check(const char *text, size_t length)
{
    size_t i = 0;

    while (i < length) {
        uint64_t eight, more[4];
        while (length - i >= sizeof(more)) {
            memcpy(more, text + i, sizeof(more));
            if ((more[0] | more[1] | more[2] | more[3]) & UINT64_C(0x8080808080808080))
                break;
            i += sizeof(more);
        }
        while (length - i >= sizeof(eight)) {
            memcpy(&eight, text + i, sizeof(eight));
            if (eight & UINT64_C(0x8080808080808080))
                break;
            i += sizeof(eight);
        }
        if (i == length)
            break;
        size_t size = utf8_sequence(text + i, length - i);
        if (size == 0)
            return i;
        i += size;
    }
    return length;
}

size_t utf8_count(const char *text, size_t length)
{
    size_t count = 0;

    for (size_t i = 0; i < length; i++)
        count += !is_trail(text, i);
    return count;
}

void utf8_mend(const char *text, size_t length, struct buffer *out)
{
    while (length > 0) {
        size_t size = utf8_check(text, length);
        buffer_append(out, text, size);
        if (size < length) {
            buffer_append_text(out, "\xef\xbf\xbd");
            size++;
        }
        text += size;
        length -= size;
    }
}
