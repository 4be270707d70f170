/*
 * Floating-point numbers of CBOR (RFC 8949, 3.3; half precision: appendix D).
 */
#ifndef SCHEMA_CBOR_FLOAT_H
#define SCHEMA_CBOR_FLOAT_H

#include <string.h>

#include <schema/cbor.h>

static inline double cbor_half_double(uint64_t bits)
{
    int exponent = bits >> 10 & 0x1f;
    double fraction = (double)(bits & 0x3ff) / 1024;
    double value = exponent == 0    ? __builtin_ldexp(fraction, -14)
                   : exponent == 31 ? __builtin_inf() /* or NaN: refused either way */
                                    : __builtin_ldexp(1 + fraction, exponent - 15);

    return bits & 0x8000 ? -value : value;
}

static inline double cbor_item_double(const struct cbor_item *item)
{
    uint32_t single = (uint32_t)item->value;
    float narrow;
    double wide;

    if (item->info == 25)
        return cbor_half_double(item->value);
    if (item->info == 26) {
        memcpy(&narrow, &single, sizeof(narrow));
        return (double)narrow;
    }
    memcpy(&wide, &item->value, sizeof(wide));
    return wide;
}

/* Big-endian, as all numbers of CBOR. */
static inline void cbor_append_double(struct buffer *out, double value)
{
    unsigned char item[9] = {CBOR_DOUBLE};
    uint64_t bits;

    memcpy(&bits, &value, sizeof(bits));
    for (size_t i = 8; i > 0; i--, bits >>= 8)
        item[i] = (unsigned char)bits;
    buffer_append(out, item, sizeof(item));
}

#endif
