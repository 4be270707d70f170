#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <schema/scan.h>

static bool wrong(struct json_scan *scan, const char *problem)
{
    scan->problem = problem;
    return false;
}

static bool ended(struct json_scan *scan)
{
    return wrong(scan, "the text ends in the middle");
}

/* ---- strings ---- */

enum { BLOCK = 16 };

typedef uint8_t block __attribute__((vector_size(BLOCK)));

/* Bytes from at on that stand for themselves in a string. Sixteen at a time while it is easy. */
static size_t plain_bytes(const char *at, const char *end)
{
    const char *start = at;

#if __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
    for (; end - at >= BLOCK; at += BLOCK) {
        uint64_t special[2]; /* 0xff for each byte that is */
        block bytes;
        memcpy(&bytes, at, BLOCK);
        bytes = (block)((bytes < 0x20) | (bytes == '"') | (bytes == '\\'));
        memcpy(special, &bytes, BLOCK);
        if (special[0])
            return (size_t)(at - start) + (size_t)__builtin_ctzll(special[0]) / 8;
        if (special[1])
            return (size_t)(at - start) + 8 + (size_t)__builtin_ctzll(special[1]) / 8;
    }
#endif
    while (at < end && (unsigned char)*at >= 0x20 && *at != '"' && *at != '\\')
        at++;
    return (size_t)(at - start);
}

static int hex_value(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    c |= 0x20;
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* -1: not four digits. */
static int hex4(const char *digits)
{
    int value = 0;

    for (int i = 0; i < 4; i++) {
        int digit = hex_value(digits[i]);
        if (digit < 0)
            return -1;
        value = value << 4 | digit;
    }
    return value;
}

/* At a backslash. */
static bool scan_escape(struct json_scan *scan)
{
    if (scan->end - scan->at < 2)
        return ended(scan);
    if (scan->at[1] == 'u') {
        if (scan->end - scan->at < 6)
            return ended(scan);
        if (hex4(scan->at + 2) < 0)
            return wrong(scan, "\\u is not followed by four hexadecimal digits");
        scan->at += 6;
        return true;
    }
    if (!memchr("\"\\/bfnrt", scan->at[1], 8))
        return wrong(scan, "a character follows \\ that has no meaning there");
    scan->at += 2;
    return true;
}

bool json_scan_string(struct json_scan *scan, struct json_token *ret)
{
    const char *start = ++scan->at;

    ret->escaped = false;
    for (;;) {
        scan->at += plain_bytes(scan->at, scan->end);
        if (scan->at == scan->end)
            return ended(scan);
        if (*scan->at == '"')
            break;
        if (*scan->at != '\\')
            return wrong(scan, "a control character in a string has to be written as \\u00XX");
        if (!scan_escape(scan))
            return false;
        ret->escaped = true;
    }
    ret->text = start;
    ret->length = (size_t)(scan->at - start);
    scan->at++;
    return true;
}

static bool refuse(struct json_problem *problem, const char *format, ...) _printf_(2, 3);

static bool refuse(struct json_problem *problem, const char *format, ...)
{
    va_list args;

    va_start(args, format);
    vsnprintf(problem->text, sizeof(problem->text), format, args);
    va_end(args);
    return false;
}

static void append_utf8(struct buffer *out, unsigned int point)
{
    char bytes[4];
    size_t size = point < 0x80 ? 1 : point < 0x800 ? 2 : point < 0x10000 ? 3 : 4;

    for (size_t i = size - 1; i > 0; i--, point >>= 6)
        bytes[i] = (char)(0x80 | (point & 0x3f));
    bytes[0] = (char)(size == 1 ? point : (0xf00U >> size & 0xff) | point);
    buffer_append(out, bytes, size);
}

/* At \u. Moves behind what it is, which may be a pair. */
static bool unescape_unicode(const char **at, const char *end, struct buffer *out,
                             struct json_problem *problem)
{
    unsigned int unit = (unsigned int)hex4(*at + 2), low;

    *at += 6;
    if (unit == 0)
        return refuse(problem, "a string must not contain \\u0000");
    if (unit >= 0xd800 && unit <= 0xdfff) {
        if (unit >= 0xdc00 || end - *at < 6 || (*at)[0] != '\\' || (*at)[1] != 'u' ||
            ((low = (unsigned int)hex4(*at + 2)) & 0xfc00) != 0xdc00)
            return refuse(problem, "\\u%04x is half of a surrogate pair", unit);
        *at += 6;
        unit = 0x10000 + ((unit & 0x3ff) << 10 | (low & 0x3ff));
    }
    append_utf8(out, unit);
    return true;
}

bool json_unescape(const struct json_token *token, struct buffer *out, struct json_problem *problem)
{
    static const char letters[] = "\"\\/bfnrt", meanings[] = "\"\\/\b\f\n\r\t";
    const char *at = token->text, *end = at + token->length;

    while (at < end) {
        const char *backslash = memchr(at, '\\', (size_t)(end - at));
        if (!backslash)
            backslash = end;
        buffer_append(out, at, (size_t)(backslash - at));
        at = backslash;
        if (at == end)
            break;
        if (at[1] == 'u') {
            if (!unescape_unicode(&at, end, out, problem))
                return false;
        } else {
            const char *letter = memchr(letters, at[1], sizeof(letters) - 1);
            buffer_append_char(out, meanings[letter - letters]);
            at += 2;
        }
    }
    return true;
}

/* ---- the rest ---- */

static bool scan_digits(struct json_scan *scan)
{
    const char *start = scan->at;

    while (scan->at < scan->end && *scan->at >= '0' && *scan->at <= '9')
        scan->at++;
    if (scan->at > start)
        return true;
    return scan->at == scan->end ? ended(scan) : wrong(scan, "a digit is missing in the number");
}

bool json_scan_number(struct json_scan *scan, struct json_token *ret)
{
    const char *start = scan->at;

    if (*scan->at == '-')
        scan->at++;
    const char *first = scan->at;
    if (!scan_digits(scan))
        return false;
    if (*first == '0' && scan->at - first > 1)
        return wrong(scan, "a number must not begin with 0");
    if (json_scan_peek(scan) == '.') {
        scan->at++;
        if (!scan_digits(scan))
            return false;
    }
    if (json_scan_peek(scan) == 'e' || json_scan_peek(scan) == 'E') {
        scan->at++;
        if (json_scan_peek(scan) == '+' || json_scan_peek(scan) == '-')
            scan->at++;
        if (!scan_digits(scan))
            return false;
    }
    *ret = (struct json_token){.text = start, .length = (size_t)(scan->at - start)};
    return true;
}

bool json_scan_literal(struct json_scan *scan, const char *literal)
{
    size_t length = strlen(literal), left = (size_t)(scan->end - scan->at);

    if (left < length && memcmp(scan->at, literal, left) == 0)
        return ended(scan);
    if (left < length || memcmp(scan->at, literal, length) != 0)
        return wrong(scan, "a value is expected");
    scan->at += length;
    return true;
}

static bool skip_value(struct json_scan *scan, unsigned depth);

static bool skip_key(struct json_scan *scan)
{
    struct json_token key;

    if (json_scan_peek(scan) != '"')
        return scan->at == scan->end ? ended(scan) : wrong(scan, "a key in quotes is expected");
    if (!json_scan_string(scan, &key))
        return false;
    json_scan_blank(scan);
    if (json_scan_peek(scan) != ':')
        return scan->at == scan->end ? ended(scan) : wrong(scan, "':' is expected behind the key");
    scan->at++;
    json_scan_blank(scan);
    return true;
}

/* At the bracket that opens. */
static bool skip_nested(struct json_scan *scan, unsigned depth, char close)
{
    scan->at++;
    if (depth == 0)
        return wrong(scan, "nested too deep");
    json_scan_blank(scan);
    if (json_scan_peek(scan) == close) {
        scan->at++;
        return true;
    }
    for (;;) {
        if ((close == '}' && !skip_key(scan)) || !skip_value(scan, depth - 1))
            return false;
        json_scan_blank(scan);
        char c = json_scan_peek(scan);
        if (c != ',' && c != close)
            return scan->at == scan->end ? ended(scan)
                                         : wrong(scan, close == '}' ? "',' or '}' is expected"
                                                                    : "',' or ']' is expected");
        scan->at++;
        if (c == close)
            return true;
        json_scan_blank(scan);
    }
}

static bool skip_value(struct json_scan *scan, unsigned depth)
{
    struct json_token token;

    switch (json_scan_peek(scan)) {
    case '"':
        return json_scan_string(scan, &token);
    case '{':
        return skip_nested(scan, depth, '}');
    case '[':
        return skip_nested(scan, depth, ']');
    case 't':
        return json_scan_literal(scan, "true");
    case 'f':
        return json_scan_literal(scan, "false");
    case 'n':
        return json_scan_literal(scan, "null");
    case '-':
    case '0' ... '9':
        return json_scan_number(scan, &token);
    default:
        return scan->at == scan->end ? ended(scan) : wrong(scan, "a value is expected");
    }
}

bool json_scan_skip(struct json_scan *scan, unsigned depth, struct json_token *ret)
{
    *ret = (struct json_token){.text = scan->at};
    if (!skip_value(scan, depth))
        return false;
    ret->length = (size_t)(scan->at - ret->text);
    return true;
}
