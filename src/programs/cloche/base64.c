#include <stdint.h>
#include <string.h>

#include <base/alloc.h>
#include <base/buffer.h>

#include "base64.h"

static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

char *base64_encode(const char *text)
{
    _cleanup_buffer_ struct buffer out = BUFFER_INIT;
    size_t length = strlen(text);

    for (size_t i = 0; i < length; i += 3) {
        uint32_t bits = 0;
        size_t count = length - i < 3 ? length - i : 3;
        for (size_t j = 0; j < 3; j++)
            bits = bits << 8 | (j < count ? (unsigned char)text[i + j] : 0);
        for (size_t j = 0; j < 4; j++)
            buffer_append_char(&out, j <= count ? digits[bits >> (18 - 6 * j) & 63] : '=');
    }
    return buffer_steal(&out);
}

char *base64_decode(const char *text)
{
    _cleanup_buffer_ struct buffer out = BUFFER_INIT;
    uint32_t bits = 0;
    unsigned count = 0;

    for (; *text && *text != '='; text++) {
        const char *digit = strchr(digits, *text);
        if (!digit)
            return NULL;
        bits = bits << 6 | (uint32_t)(digit - digits);
        count += 6;
        if (count < 8)
            continue;
        count -= 8;
        char c = (char)(bits >> count & 255);
        if (!c)
            return NULL;
        buffer_append_char(&out, c);
    }
    return text[strspn(text, "=")] ? NULL : buffer_steal(&out);
}
