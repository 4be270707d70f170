/*
 * CBOR (RFC 8949): the same values as JSON (json.h), in a form that is shorter and faster to read.
 *
 * Only what JSON can say: maps with text keys, arrays, text, integers, floating-point numbers,
 * true, false and null. Written: definite lengths, integers at their shortest, floats as doubles.
 * Read: also indefinite lengths, all widths; tags are looked through. Byte strings, `undefined`
 * and other simple values are refused.
 */
#ifndef SCHEMA_CBOR_H
#define SCHEMA_CBOR_H

#include <schema/json.h>

enum cbor_major {
    CBOR_UNSIGNED = 0,
    CBOR_NEGATIVE = 1,
    CBOR_BYTES = 2,
    CBOR_TEXT = 3,
    CBOR_ARRAY = 4,
    CBOR_MAP = 5,
    CBOR_TAG = 6,
    CBOR_SIMPLE = 7,
};

enum {
    CBOR_FALSE = 0xf4,
    CBOR_TRUE = 0xf5,
    CBOR_NULL = 0xf6,
    CBOR_DOUBLE = 0xfb,
    CBOR_MAP_BEGIN = 0xbf, /* of indefinite length, up to CBOR_BREAK */
    CBOR_ARRAY_BEGIN = 0x9f,
    CBOR_BREAK = 0xff,
};

/* As json_parse(), with the same limits. */
int cbor_parse(const struct json_type *type, const void *data, size_t length, void **ret,
               struct error *err);
/* As json_parse_positional(). */
int cbor_parse_positional(const struct json_type *type, const void *data, size_t length, void **ret,
                          struct error *err);
/* As json_write(). Raw JSON is written as the values it stands for. */
void cbor_write(const struct json_type *type, const void *value, struct buffer *out);

/* One item of JSON text to CBOR and back. -EINVAL: it is not valid, or has no counterpart. */
int cbor_from_json(const char *text, size_t length, struct buffer *out, struct error *err);
int cbor_to_json(const void *data, size_t length, struct buffer *out, struct error *err);

/*
 * By hand, for envelopes.
 */
struct cbor_scan {
    const unsigned char *at;
    const unsigned char *end;
    const char *problem; /* static; what is wrong at `at` */
};

struct cbor_item {
    enum cbor_major major;
    uint8_t info;   /* low five bits of the first byte: 31 is an indefinite length, or a break */
    uint64_t value; /* the argument: number, length, count, tag, or the bits of a float */
};

/* The head of the next item, tags looked through. False: the data ends, or is malformed. */
bool cbor_scan_head(struct cbor_scan *scan, struct cbor_item *ret);
/* A text of definite length, in place. */
bool cbor_scan_text(struct cbor_scan *scan, const char **ret, size_t *ret_length);
/* A whole item with all that is in it, at most depth levels. */
bool cbor_scan_skip(struct cbor_scan *scan, unsigned depth);

void cbor_append_head(struct buffer *out, enum cbor_major major, uint64_t value);
void cbor_append_text(struct buffer *out, const char *text, size_t length);

#endif
