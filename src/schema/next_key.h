/*
 * The key that nearly always comes next, for the two readers: inline, since there is one for every
 * field of a document.
 */
#ifndef SCHEMA_NEXT_KEY_H
#define SCHEMA_NEXT_KEY_H

#include <string.h>

#include "parser.h"

/* False: it was there already. */
static inline bool enter_field(struct frame *frame, size_t index)
{
    uint64_t bit = UINT64_C(1) << index % 64, seen = frame->seen[index / 64];

    frame->field = &frame->type->fields[index];
    frame->seen[index / 64] = seen | bit;
    frame->next = index + 1;
    return !(seen & bit);
}

#define SAME(type, a, b, at)                                                                       \
    __extension__({                                                                                \
        type word_a, word_b;                                                                       \
        memcpy(&word_a, (a) + (at), sizeof(type));                                                 \
        memcpy(&word_b, (b) + (at), sizeof(type));                                                 \
        word_a == word_b;                                                                          \
    })

/* Names are short: a call of memcmp() would take longer than what it does. The last word overlaps
 * the one before where the length is no multiple. */
static inline bool same_bytes(const char *a, const char *b, size_t length)
{
    if (length >= 8) {
        for (size_t i = 0; i + 8 < length; i += 8)
            if (!SAME(uint64_t, a, b, i))
                return false;
        return SAME(uint64_t, a, b, length - 8);
    }
    if (length >= 4)
        return SAME(uint32_t, a, b, 0) && SAME(uint32_t, a, b, length - 4);
    if (length >= 2)
        return SAME(uint16_t, a, b, 0) && SAME(uint16_t, a, b, length - 2);
    return length == 0 || *a == *b;
}

enum { FIELDS_AHEAD = 8 }; /* of an object whose optional fields are mostly absent */

/* As open_key() if it is one of the fields behind the last one, which it nearly always is: most
 * documents have the order of the schema. False: it is not, and nothing has happened. */
static inline bool open_next_key(struct parser *parser, const char *text, size_t length)
{
    struct frame *frame = parser_frame(parser);

    if (frame->kind != FRAME_OBJECT)
        return false;
    const struct json_field *fields = frame->type->fields;
    size_t at = frame->next, end = frame->type->fields_count;
    if (end - at > FIELDS_AHEAD)
        end = at + FIELDS_AHEAD;
    while (at < end &&
           (fields[at].name_length != length || !same_bytes(fields[at].name, text, length)))
        at++;
    /* A field behind the last one may have come before that. */
    if (at == end || frame->seen[at / 64] >> at % 64 & 1)
        return false;
    frame->value_begun = true;
    return enter_field(frame, at);
}

#endif
