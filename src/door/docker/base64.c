#include "base64.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <base/alloc.h>

char *base64_encode(const char *data, size_t length)
{
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    char *text = xmalloc((length + 2) / 3 * 4 + 1), *at = text;

    for (size_t i = 0; i < length; i += 3) {
        size_t left = length - i;
        uint32_t bits = (uint32_t)(unsigned char)data[i] << 16 |
                        (left > 1 ? (uint32_t)(unsigned char)data[i + 1] << 8 : 0) |
                        (left > 2 ? (uint32_t)(unsigned char)data[i + 2] : 0);
        *at++ = digits[bits >> 18];
        *at++ = digits[bits >> 12 & 63];
        *at++ = left > 1 ? digits[bits >> 6 & 63] : '=';
        *at++ = left > 2 ? digits[bits & 63] : '=';
    }
    *at = '\0';
    return text;
}

static int value_of(char c)
{
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    const char *at = c ? strchr(digits, c == '-' ? '+' : c == '_' ? '/' : c) : NULL;

    return at ? (int)(at - digits) : -1;
}

char *base64_decode(const char *text, size_t *ret_length)
{
    size_t length = strcspn(text, "="), used = 0;
    char *data = xmalloc(length + 1);
    uint32_t bits = 0;

    for (size_t i = 0; i < length; i++) {
        int value = value_of(text[i]);
        if (value < 0) {
            free(data);
            return NULL;
        }
        bits = bits << 6 | (uint32_t)value;
        if (i % 4)
            data[used++] = (char)(bits >> (6 - 2 * (i % 4)));
    }
    data[used] = '\0';
    *ret_length = used;
    return data;
}
