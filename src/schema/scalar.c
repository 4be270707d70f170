#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include <schema/number.h>
#include <schema/utf8.h>

#include "parser.h"

static bool fail_choice(struct parser *parser, const char *const *choices, const char *text,
                        size_t length)
{
    _cleanup_buffer_ struct buffer list = BUFFER_INIT;
    _cleanup_free_ char *excerpt = quoted_excerpt(text, length);

    for (size_t i = 0; choices[i]; i++)
        buffer_printf(&list, "%s\"%s\"", i == 0 ? "" : ", ", choices[i]);
    return parser_fail(parser, -EINVAL, parser_position(parser), "expected %s%s, got %s",
                       choices[1] ? "one of " : "", buffer_text(&list), excerpt);
}

static bool check_choice(struct parser *parser, const char *const *choices, const char *text,
                         size_t length)
{
    for (size_t i = 0; choices[i]; i++)
        if (strlen(choices[i]) == length && memcmp(choices[i], text, length) == 0)
            return true;
    return fail_choice(parser, choices, text, length);
}

/* Not asked of strings without limits, which are nearly all. */
static bool check_length(struct parser *parser, const struct json_field *field, const char *text,
                         size_t length)
{
    uint64_t characters = utf8_count(text, length);

    if (characters < (uint64_t)field->minimum)
        return field->minimum == 1
                   ? parser_fail(parser, -EINVAL, parser_position(parser), "must not be empty")
                   : parser_fail(parser, -EINVAL, parser_position(parser),
                                 "has %" PRIu64 " characters, at least %" PRId64 " are needed",
                                 characters, field->minimum);
    if (characters > field->maximum)
        return parser_fail(parser, -EINVAL, parser_position(parser),
                           "has %" PRIu64 " characters, at most %" PRIu64 " are allowed",
                           characters, field->maximum);
    return true;
}

bool scalar_store_string(struct parser *parser, const struct place *place, const char *text,
                         size_t length)
{
    const struct json_field *field = place->field;

    if (field->choices && !check_choice(parser, field->choices, text, length))
        return false;
    if ((field->minimum > 0 || field->maximum != UINT64_MAX) &&
        !check_length(parser, field, text, length))
        return false;
    if (!parser_take(parser, length + 1))
        return false;
    char *copy = xmalloc(length + 1); /* not xstrndup(): it would look for a NUL first */
    memcpy(copy, text, length);
    copy[length] = '\0';
    *(char **)place->slot = copy;
    return true;
}

static bool fail_range(struct parser *parser, const struct json_field *field, const char *text,
                       size_t length)
{
    if (field->flags & JSON_FORMAT_VERSION)
        return parser_fail(parser, -EINVAL, parser_position(parser),
                           "format version %.*s is not known here (%" PRId64 " to %" PRIu64 " are)",
                           (int)(length < 24 ? length : 24), text, field->minimum, field->maximum);
    return parser_fail(parser, -EINVAL, parser_position(parser),
                       "%.*s%s is out of range (%" PRId64 " to %" PRIu64 ")",
                       (int)(length < 24 ? length : 24), text, length < 24 ? "" : "...",
                       field->minimum, field->maximum);
}

/* Digits only. False: does not fit into 64 bits. */
static bool read_digits(const char *text, size_t length, uint64_t *ret)
{
    uint64_t value = 0;

    for (size_t i = 0; i < length; i++)
        if (__builtin_mul_overflow(value, 10, &value) ||
            __builtin_add_overflow(value, (uint64_t)(text[i] - '0'), &value))
            return false;
    *ret = value;
    return true;
}

static bool in_range(const struct json_field *field, bool negative, uint64_t magnitude)
{
    if (negative && magnitude > 0)
        return field->minimum < 0 && magnitude <= (uint64_t)0 - (uint64_t)field->minimum;
    return magnitude <= field->maximum &&
           (field->minimum <= 0 || magnitude >= (uint64_t)field->minimum);
}

static void store_integer(void *slot, uint8_t size, uint64_t bits)
{
    switch (size) {
    case 1:
        *(uint8_t *)slot = (uint8_t)bits;
        break;
    case 2:
        *(uint16_t *)slot = (uint16_t)bits;
        break;
    case 4:
        *(uint32_t *)slot = (uint32_t)bits;
        break;
    default:
        *(uint64_t *)slot = bits;
        break;
    }
}

static bool store_integer_text(struct parser *parser, const struct place *place, const char *text,
                               size_t length)
{
    bool negative = text[0] == '-';
    uint64_t magnitude;

    if (memchr(text, '.', length) || memchr(text, 'e', length) || memchr(text, 'E', length))
        return parser_fail(parser, -EINVAL, parser_position(parser),
                           "expected an integer, got %.*s%s", (int)(length < 24 ? length : 24),
                           text, length < 24 ? "" : "...");
    if (!read_digits(text + negative, length - negative, &magnitude) ||
        !in_range(place->field, negative, magnitude))
        return fail_range(parser, place->field, text, length);
    store_integer(place->slot, place->field->size, negative ? 0 - magnitude : magnitude);
    return true;
}

bool scalar_store_number(struct parser *parser, const struct place *place, const char *text,
                         size_t length)
{
    if (place->field->kind != JSON_DOUBLE)
        return store_integer_text(parser, place, text, length);

    _cleanup_free_ char *copy = xstrndup(text, length);
    double value = json_to_double(copy);
    if (!isfinite(value))
        return parser_fail(parser, -EINVAL, parser_position(parser), "%.*s%s is out of range",
                           (int)(length < 24 ? length : 24), text, length < 24 ? "" : "...");
    *(double *)place->slot = value;
    return true;
}

bool scalar_store_integer(struct parser *parser, const struct place *place, bool negative,
                          uint64_t magnitude)
{
    if (place->field->kind == JSON_DOUBLE)
        return scalar_store_double(parser, place,
                                   negative ? -(double)magnitude : (double)magnitude);
    if (!in_range(place->field, negative, magnitude)) {
        char text[24];
        int length = snprintf(text, sizeof(text), "%s%" PRIu64, negative ? "-" : "", magnitude);
        return fail_range(parser, place->field, text, (size_t)length);
    }
    store_integer(place->slot, place->field->size, negative ? 0 - magnitude : magnitude);
    return true;
}

bool scalar_store_double(struct parser *parser, const struct place *place, double value)
{
    if (!isfinite(value))
        return parser_fail(parser, -EINVAL, parser_position(parser), "the number is not finite");
    if (place->field->kind != JSON_DOUBLE)
        return parser_fail(parser, -EINVAL, parser_position(parser),
                           "expected an integer, got %.17g", value);
    *(double *)place->slot = value;
    return true;
}
