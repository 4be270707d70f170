#include <ctype.h>
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <base/alloc.h>
#include <base/buffer.h>
#include <base/text.h>

#include "gvariant.h"

#define MICROSECONDS 1000000

struct reader {
    const char *at;
    int depth;
};

static const struct {
    const char *word;
    char type;
} keywords[] = {
    {"boolean", 'b'}, {"byte", 'y'},   {"int16", 'n'},      {"uint16", 'q'},
    {"int32", 'i'},   {"uint32", 'u'}, {"int64", 'x'},      {"uint64", 't'},
    {"double", 'd'},  {"string", 's'}, {"objectpath", 'o'}, {"signature", 'g'},
};

static const struct {
    char type;
    int64_t min;
    uint64_t max;
} ranges[] = {
    {'y', 0, UINT8_MAX},         {'n', INT16_MIN, INT16_MAX}, {'q', 0, UINT16_MAX},
    {'i', INT32_MIN, INT32_MAX}, {'u', 0, UINT32_MAX},        {'x', INT64_MIN, INT64_MAX},
    {'t', 0, UINT64_MAX},
};

static int parse_value(struct reader *reader, const char *expected, struct gvariant **ret,
                       struct error *err);

void gvariant_free(struct gvariant *value)
{
    if (!value)
        return;
    for (size_t i = 0; i < value->count; i++)
        gvariant_free(value->items[i]);
    free(value->items);
    free(value->text);
    free(value);
}

static void cleanup_gvariant(struct gvariant **value)
{
    gvariant_free(*value);
}
#define _cleanup_gvariant_ _cleanup_(cleanup_gvariant)

/* Length of the one complete type that a signature begins with; 0: there is none. */
static size_t type_length(const char *signature, int depth)
{
    size_t length = 1;

    if (depth > GVARIANT_DEPTH_MAX || !*signature)
        return 0;
    if (*signature == 'a') {
        size_t element = type_length(signature + 1, depth + 1);
        return element ? 1 + element : 0;
    }
    if (*signature != '(')
        return strchr("bynqiuxtdsogv", *signature) ? 1 : 0;
    while (signature[length] != ')') {
        size_t member = type_length(signature + length, depth + 1);
        if (!member)
            return 0;
        length += member;
    }
    return length > 1 ? length + 1 : 0;
}

static int fail(const struct reader *reader, const char *what, struct error *err)
{
    return error_set(err, -EINVAL, "%s at '%.24s'", what, reader->at);
}

static void skip_space(struct reader *reader)
{
    while (isspace((unsigned char)*reader->at))
        reader->at++;
}

static bool take(struct reader *reader, char c)
{
    skip_space(reader);
    if (*reader->at != c)
        return false;
    reader->at++;
    return true;
}

static void set_signature(struct gvariant *value, char type)
{
    value->signature[0] = type;
    value->signature[1] = '\0';
}

static int append_signature(struct gvariant *value, const char *more, struct error *err)
{
    if (strlen(value->signature) + strlen(more) > GVARIANT_SIGNATURE_MAX)
        return error_set(err, -E2BIG, "the type is longer than %d characters",
                         GVARIANT_SIGNATURE_MAX);
    strcat(value->signature, more);
    return 0;
}

/* The end of the type of an array or a tuple: what its members' types make together may be deeper
 * than each of them, and is asked for by type_length() from then on. */
static int complete_signature(struct gvariant *value, const char *more, struct error *err)
{
    int r = append_signature(value, more, err);

    if (r == 0 && !type_length(value->signature, 0))
        r = error_set(err, -E2BIG, "the type is nested deeper than %d", GVARIANT_DEPTH_MAX);
    return r;
}

static int take_escape(struct reader *reader, struct buffer *out, struct error *err)
{
    static const char from[] = "abfnrtv", to[] = "\a\b\f\n\r\t\v";
    char c = *++reader->at;
    const char *found = c ? strchr(from, c) : NULL;

    if (!c)
        return fail(reader, "the string does not end", err);
    if (c == 'u' || c == 'U')
        return fail(reader, "\\u and \\U are not taken (write the character itself)", err);
    buffer_append_char(out, found ? to[found - from] : c);
    return 0;
}

static int parse_text(struct reader *reader, struct gvariant *value, struct error *err)
{
    _cleanup_buffer_ struct buffer text = BUFFER_INIT;
    char quote = *reader->at++;

    for (; *reader->at != quote; reader->at++) {
        int r = 0;
        if (!*reader->at)
            return fail(reader, "the string does not end", err);
        if (*reader->at == '\\')
            r = take_escape(reader, &text, err);
        else
            buffer_append_char(&text, *reader->at);
        if (r < 0)
            return r;
    }
    reader->at++;
    value->text = buffer_steal(&text);
    return 0;
}

static int parse_real(struct reader *reader, struct gvariant *value, struct error *err)
{
    char *end;

    value->real = strtod(reader->at, &end);
    if (end == reader->at || !isfinite(value->real))
        return fail(reader, "not a number", err);
    reader->at = end;
    return 0;
}

static int parse_integer(struct reader *reader, struct gvariant *value, struct error *err)
{
    char type = value->signature[0], *end;
    bool negative = *reader->at == '-';
    size_t i = 0;

    if (!isdigit((unsigned char)reader->at[*reader->at == '-' || *reader->at == '+']))
        return fail(reader, "not a number", err);
    errno = 0;
    unsigned long long amount =
        strtoull(reader->at + (*reader->at == '-' || *reader->at == '+'), &end, 0);
    while (ranges[i].type != type)
        i++;
    uint64_t lowest = (uint64_t)0 - (uint64_t)ranges[i].min;
    if (errno || (negative ? amount > lowest : amount > ranges[i].max))
        return fail(reader, "the number is out of the range of its type", err);
    reader->at = end;
    if (strchr("nix", type))
        value->integer = (int64_t)(negative ? (uint64_t)0 - amount : amount);
    else
        value->unsigned_integer = amount;
    return 0;
}

static bool looks_real(const char *text)
{
    size_t digits = strspn(text, "+-0123456789");

    return text[digits] == '.' || (digits && (text[digits] == 'e' || text[digits] == 'E'));
}

static int parse_boolean(struct reader *reader, struct gvariant *value, struct error *err)
{
    for (int i = 0; i < 2; i++) {
        const char *word = i ? "true" : "false";
        size_t length = strlen(word);
        if (strncmp(reader->at, word, length) == 0 && !isalnum((unsigned char)reader->at[length])) {
            value->boolean = i;
            reader->at += length;
            return 0;
        }
    }
    return fail(reader, "neither true nor false", err);
}

/* The type of a value without one is what its first character says. */
static char guess_type(const char *text)
{
    if (*text == '\'' || *text == '"')
        return 's';
    if (*text == '[')
        return 'a';
    if (*text == '<')
        return 'v';
    if (*text == '(')
        return *text;
    if (isdigit((unsigned char)*text) || strchr("+-.", *text))
        return looks_real(text) ? 'd' : 'i';
    return 'b';
}

static void add_item(struct gvariant *value, struct gvariant *item)
{
    value->items = xrealloc(value->items, value->count + 1, sizeof(struct gvariant *));
    value->items[value->count++] = item;
}

static int parse_array(struct reader *reader, const char *expected, struct gvariant *value,
                       struct error *err)
{
    char element[GVARIANT_SIGNATURE_MAX + 1] = "";

    if (expected)
        memcpy(element, expected + 1, type_length(expected, 0) - 1);
    reader->at++;
    while (!take(reader, ']')) {
        struct gvariant *item = NULL;
        if (value->count && !take(reader, ','))
            return fail(reader, "expected ',' or ']'", err);
        int r = parse_value(reader, element[0] ? element : NULL, &item, err);
        if (r < 0)
            return r;
        add_item(value, item);
        memcpy(element, item->signature, sizeof(element));
    }
    if (!element[0])
        return fail(reader, "an empty array needs its type, as in @as []", err);
    set_signature(value, 'a');
    return complete_signature(value, element, err);
}

static int parse_tuple(struct reader *reader, const char *expected, struct gvariant *value,
                       struct error *err)
{
    const char *member = expected ? expected + 1 : NULL;

    reader->at++;
    set_signature(value, '(');
    while (!take(reader, ')')) {
        struct gvariant *item = NULL;
        if (value->count && !take(reader, ','))
            return fail(reader, "expected ',' or ')'", err);
        if (value->count && take(reader, ')'))
            break;
        if (member && *member == ')')
            return fail(reader, "more members than the type has", err);
        int r = parse_value(reader, member, &item, err);
        if (r < 0)
            return r;
        add_item(value, item);
        if (member)
            member += type_length(member, 0);
        r = append_signature(value, item->signature, err);
        if (r < 0)
            return r;
    }
    if (!value->count || (member && *member != ')'))
        return fail(reader, "fewer members than the type has", err);
    return complete_signature(value, ")", err);
}

static int parse_variant(struct reader *reader, struct gvariant *value, struct error *err)
{
    struct gvariant *item = NULL;

    reader->at++;
    set_signature(value, 'v');
    int r = parse_value(reader, NULL, &item, err);
    if (r < 0)
        return r;
    add_item(value, item);
    return take(reader, '>') ? 0 : fail(reader, "expected '>'", err);
}

static int parse_of_type(struct reader *reader, const char *expected, struct gvariant *value,
                         struct error *err)
{
    char guessed = guess_type(reader->at), type = expected ? *expected : guessed;
    bool container = strchr("a(v", type), quoted = strchr("sog", type);

    if ((container && guessed != type) || (quoted && guessed != 's'))
        return fail(reader, "not a value of the type", err);
    set_signature(value, type);
    switch (type) {
    case 'a':
        return parse_array(reader, expected, value, err);
    case '(':
        return parse_tuple(reader, expected, value, err);
    case 'v':
        return parse_variant(reader, value, err);
    case 'b':
        return parse_boolean(reader, value, err);
    case 'd':
        return parse_real(reader, value, err);
    case 's':
    case 'o':
    case 'g':
        return parse_text(reader, value, err);
    default:
        return parse_integer(reader, value, err);
    }
}

/* "@as" or "uint64" before a value. */
static int take_type(struct reader *reader, char *ret, struct error *err)
{
    skip_space(reader);
    if (*reader->at == '@') {
        size_t length = type_length(reader->at + 1, 0);
        if (!length || length > GVARIANT_SIGNATURE_MAX)
            return fail(reader, "unknown type", err);
        memcpy(ret, reader->at + 1, length);
        ret[length] = '\0';
        reader->at += 1 + length;
        return 0;
    }
    for (size_t i = 0; i < ARRAY_SIZE(keywords); i++) {
        size_t length = strlen(keywords[i].word);
        if (strncmp(reader->at, keywords[i].word, length) == 0 &&
            isspace((unsigned char)reader->at[length])) {
            ret[0] = keywords[i].type;
            ret[1] = '\0';
            reader->at += length;
            return 0;
        }
    }
    ret[0] = '\0';
    return 0;
}

static int parse_value(struct reader *reader, const char *expected, struct gvariant **ret,
                       struct error *err)
{
    _cleanup_gvariant_ struct gvariant *value = xnew(struct gvariant);
    char type[GVARIANT_SIGNATURE_MAX + 1];

    if (++reader->depth > GVARIANT_DEPTH_MAX)
        return error_set(err, -E2BIG, "nested deeper than %d", GVARIANT_DEPTH_MAX);
    int r = take_type(reader, type, err);
    if (r < 0)
        return r;
    if (type[0] && expected && strncmp(type, expected, strlen(type)) != 0)
        return fail(reader, "another type than the others of the array", err);
    skip_space(reader);
    if (!*reader->at)
        return error_set(err, -EINVAL, "the value is missing");
    r = parse_of_type(reader, type[0] ? type : expected, value, err);
    if (r < 0)
        return r;
    reader->depth--;
    *ret = steal_ptr(value);
    return 0;
}

int gvariant_parse(const char *text, struct gvariant **ret, struct error *err)
{
    struct reader reader = {.at = text};
    _cleanup_gvariant_ struct gvariant *value = NULL;

    if (strlen(text) > GVARIANT_TEXT_MAX)
        return error_set(err, -E2BIG, "longer than %d bytes", GVARIANT_TEXT_MAX);
    int r = parse_value(&reader, NULL, &value, err);
    if (r < 0)
        return r;
    skip_space(&reader);
    if (*reader.at)
        return fail(&reader, "something follows the value", err);
    *ret = steal_ptr(value);
    return 0;
}

int gvariant_to_microseconds(struct gvariant *value, struct error *err)
{
    const char *type = value->signature;
    uint64_t seconds = value->unsigned_integer;

    if (type[1] || !strchr("ynqiuxtd", type[0]))
        return error_set(err, -EINVAL, "not a number");
    if (type[0] == 'd') {
        if (value->real < 0 || value->real >= (double)(UINT64_MAX / MICROSECONDS))
            return error_set(err, -ERANGE, "out of range");
        value->unsigned_integer = (uint64_t)(value->real * MICROSECONDS);
    } else {
        if ((strchr("nix", type[0]) && value->integer < 0) || seconds > UINT64_MAX / MICROSECONDS)
            return error_set(err, -ERANGE, "out of range");
        value->unsigned_integer = seconds * MICROSECONDS;
    }
    set_signature(value, 't');
    return 0;
}
