#include "name_hash.h"

#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

void name_key_draw(struct name_key *ret_key)
{
    if (getrandom(ret_key, sizeof(*ret_key), 0) != sizeof(*ret_key))
        abort(); /* up to 256 bytes never come short: getrandom(2) */
}

static uint64_t rotate(uint64_t value, unsigned bits)
{
    return value << bits | value >> (64 - bits);
}

static void mix(uint64_t v[static 4])
{
    v[0] += v[1];
    v[2] += v[3];
    v[1] = rotate(v[1], 13) ^ v[0];
    v[3] = rotate(v[3], 16) ^ v[2];
    v[0] = rotate(v[0], 32);
    v[2] += v[1];
    v[0] += v[3];
    v[1] = rotate(v[1], 17) ^ v[2];
    v[3] = rotate(v[3], 21) ^ v[0];
    v[2] = rotate(v[2], 32);
}

static void mix_word(uint64_t v[static 4], uint64_t word)
{
    v[3] ^= word;
    mix(v);
    v[0] ^= word;
}

uint64_t name_hash(const struct name_key *key, const uint16_t *units, unsigned length)
{
    uint64_t v[4] = {
        key->words[0] ^ 0x736f6d6570736575,
        key->words[1] ^ 0x646f72616e646f6d,
        key->words[0] ^ 0x6c7967656e657261,
        key->words[1] ^ 0x7465646279746573,
    };
    uint64_t word = 0;
    unsigned i = 0;
    for (; i + 4 <= length; i += 4) {
        memcpy(&word, units + i, sizeof(word));
        mix_word(v, word);
    }
    word = (uint64_t)(length * 2) << 56;
    for (unsigned shift = 0; i < length; i++, shift += 16)
        word |= (uint64_t)units[i] << shift;
    mix_word(v, word);
    v[2] ^= 0xFF;
    mix(v);
    mix(v);
    mix(v);
    return v[0] ^ v[1] ^ v[2] ^ v[3];
}
