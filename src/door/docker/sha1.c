#include "sha1.h"

#include <stdint.h>
#include <string.h>

enum { BLOCK = 64, ROUNDS = 80 };

static uint32_t rotate(uint32_t value, unsigned by)
{
    return value << by | value >> (32 - by);
}

static uint32_t mix(unsigned round, uint32_t b, uint32_t c, uint32_t d)
{
    static const uint32_t constants[] = {0x5a827999, 0x6ed9eba1, 0x8f1bbcdc, 0xca62c1d6};
    uint32_t mixed = round / 20 == 0   ? (b & c) | (~b & d)
                     : round / 20 == 2 ? (b & c) | (b & d) | (c & d)
                                       : b ^ c ^ d;

    return mixed + constants[round / 20];
}

static void add_block(uint32_t state[5], const unsigned char *block)
{
    uint32_t words[ROUNDS];
    uint32_t a = state[0], b = state[1], c = state[2], d = state[3], e = state[4];

    for (unsigned i = 0; i < 16; i++)
        words[i] = (uint32_t)block[4 * i] << 24 | (uint32_t)block[4 * i + 1] << 16 |
                   (uint32_t)block[4 * i + 2] << 8 | block[4 * i + 3];
    for (unsigned i = 16; i < ROUNDS; i++)
        words[i] = rotate(words[i - 3] ^ words[i - 8] ^ words[i - 14] ^ words[i - 16], 1);
    for (unsigned i = 0; i < ROUNDS; i++) {
        uint32_t next = rotate(a, 5) + mix(i, b, c, d) + e + words[i];
        e = d;
        d = c;
        c = rotate(b, 30);
        b = a;
        a = next;
    }
    state[0] += a;
    state[1] += b;
    state[2] += c;
    state[3] += d;
    state[4] += e;
}

void sha1(const char *data, size_t length, unsigned char ret[SHA1_LENGTH])
{
    uint32_t state[5] = {0x67452301, 0xefcdab89, 0x98badcfe, 0x10325476, 0xc3d2e1f0};
    unsigned char text[2 * BLOCK] = {0};
    size_t end = length + 9 <= BLOCK ? BLOCK : 2 * BLOCK;

    memcpy(text, data, length);
    text[length] = 0x80;
    text[end - 2] = (unsigned char)(length * 8 >> 8);
    text[end - 1] = (unsigned char)(length * 8);
    for (size_t at = 0; at < end; at += BLOCK)
        add_block(state, text + at);
    for (unsigned i = 0; i < SHA1_LENGTH; i++)
        ret[i] = (unsigned char)(state[i / 4] >> (24 - 8 * (i % 4)));
}
