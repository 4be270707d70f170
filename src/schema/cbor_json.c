/*
 * JSON text and CBOR into each other, without a type: for what is carried on unread.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include <base/text.h>
#include <schema/cbor.h>
#include <schema/number.h>
#include <schema/scan.h>
#include <schema/utf8.h>

#include "cbor_float.h"

/* ---- JSON -> CBOR ---- */

static bool convert_value(struct json_scan *scan, unsigned depth, struct buffer *out);

static bool wrong(struct json_scan *scan, const char *problem)
{
    if (!scan->problem)
        scan->problem = scan->at == scan->end ? "the text ends in the middle" : problem;
    return false;
}

static bool convert_string(struct json_scan *scan, struct buffer *out)
{
    _cleanup_buffer_ struct buffer text = BUFFER_INIT;
    struct json_problem problem;
    struct json_token token;

    if (!json_scan_string(scan, &token))
        return false;
    if (!token.escaped) {
        cbor_append_text(out, token.text, token.length);
        return true;
    }
    if (!json_unescape(&token, &text, &problem))
        return wrong(scan, "a NUL, or half of a surrogate pair");
    cbor_append_text(out, buffer_text(&text), text.length);
    return true;
}

static bool convert_number(struct json_scan *scan, struct buffer *out)
{
    struct json_token token;
    uint64_t magnitude;

    if (!json_scan_number(scan, &token))
        return false;
    _cleanup_free_ char *text = xstrndup(token.text, token.length);
    bool negative = text[0] == '-';
    if (text_to_u64(text + negative, 0, UINT64_MAX, &magnitude) == 0 &&
        (!negative || magnitude > 0)) { /* -0 is a float */
        cbor_append_head(out, negative ? CBOR_NEGATIVE : CBOR_UNSIGNED, magnitude - negative);
        return true;
    }
    double value = json_to_double(text);
    if (!__builtin_isfinite(value))
        return wrong(scan, "a number out of range");
    cbor_append_double(out, value);
    return true;
}

static bool convert_literal(struct json_scan *scan, const char *literal, int byte,
                            struct buffer *out)
{
    buffer_append_char(out, (char)byte);
    return json_scan_literal(scan, literal);
}

static bool convert_key(struct json_scan *scan, struct buffer *out)
{
    if (json_scan_peek(scan) != '"')
        return wrong(scan, "a key in quotes is expected");
    if (!convert_string(scan, out))
        return false;
    json_scan_blank(scan);
    if (json_scan_peek(scan) != ':')
        return wrong(scan, "':' is expected behind the key");
    scan->at++;
    return true;
}

static bool convert_nested(struct json_scan *scan, unsigned depth, char close, struct buffer *out)
{
    if (depth == 0)
        return wrong(scan, "nested too deep");
    buffer_append_char(out, (char)(close == '}' ? CBOR_MAP_BEGIN : CBOR_ARRAY_BEGIN));
    scan->at++;
    json_scan_blank(scan);
    bool more = json_scan_peek(scan) != close;
    while (more) {
        json_scan_blank(scan);
        if ((close == '}' && !convert_key(scan, out)) || !convert_value(scan, depth - 1, out))
            return false;
        json_scan_blank(scan);
        more = json_scan_peek(scan) == ',';
        if (!more && json_scan_peek(scan) != close)
            return wrong(scan, "',' or a bracket is expected");
        scan->at += more;
    }
    scan->at++;
    buffer_append_char(out, (char)CBOR_BREAK);
    return true;
}

static bool convert_value(struct json_scan *scan, unsigned depth, struct buffer *out)
{
    json_scan_blank(scan);
    switch (json_scan_peek(scan)) {
    case '"':
        return convert_string(scan, out);
    case '{':
        return convert_nested(scan, depth, '}', out);
    case '[':
        return convert_nested(scan, depth, ']', out);
    case 't':
        return convert_literal(scan, "true", CBOR_TRUE, out);
    case 'f':
        return convert_literal(scan, "false", CBOR_FALSE, out);
    case 'n':
        return convert_literal(scan, "null", CBOR_NULL, out);
    case '-':
    case '0' ... '9':
        return convert_number(scan, out);
    default:
        return wrong(scan, "a value is expected");
    }
}

int cbor_from_json(const char *text, size_t length, struct buffer *out, struct error *err)
{
    struct json_scan scan = {.at = text, .end = text + length};
    size_t start = out->length;

    if (utf8_check(text, length) < length)
        return error_set(err, -EINVAL, "not UTF-8");
    bool ok = convert_value(&scan, JSON_DEPTH_MAX, out);
    json_scan_blank(&scan);
    if (ok && scan.at == scan.end)
        return 0;
    out->length = start;
    return error_set(err, -EINVAL, "not JSON: byte %zu: %s", (size_t)(scan.at - text),
                     scan.problem ? scan.problem : "something follows the value");
}

/* ---- CBOR -> JSON ---- */

static bool render_item(struct cbor_scan *scan, unsigned depth, struct json_writer *writer);

static bool refuse(struct cbor_scan *scan, const char *problem)
{
    scan->problem = problem;
    return false;
}

static bool at_break(struct cbor_scan *scan)
{
    if (scan->at == scan->end || *scan->at != CBOR_BREAK)
        return false;
    scan->at++;
    return true;
}

static bool append_piece(struct cbor_scan *scan, uint64_t length, struct buffer *out)
{
    const char *text = (const char *)scan->at;

    if (length > (size_t)(scan->end - scan->at))
        return refuse(scan, "the data ends in the middle");
    if (utf8_check(text, (size_t)length) < length || memchr(text, '\0', (size_t)length))
        return refuse(scan, "a text is not UTF-8, or has a NUL");
    buffer_append(out, text, (size_t)length);
    scan->at += length;
    return true;
}

static bool join_text(struct cbor_scan *scan, const struct cbor_item *item, struct buffer *out)
{
    struct cbor_item piece;

    if (item->info != 31)
        return append_piece(scan, item->value, out);
    while (!at_break(scan)) {
        if (!cbor_scan_head(scan, &piece))
            return false;
        if (piece.major != CBOR_TEXT || piece.info == 31)
            return refuse(scan, "a piece of another kind in a text");
        if (!append_piece(scan, piece.value, out))
            return false;
    }
    return true;
}

static bool render_key(struct cbor_scan *scan, struct json_writer *writer)
{
    _cleanup_buffer_ struct buffer text = BUFFER_INIT;
    struct cbor_item item;

    if (!cbor_scan_head(scan, &item))
        return false;
    if (item.major != CBOR_TEXT)
        return refuse(scan, "the key of a map is no text");
    if (!join_text(scan, &item, &text))
        return false;
    json_writer_key(writer, buffer_text(&text));
    return true;
}

static bool render_text(struct cbor_scan *scan, const struct cbor_item *item,
                        struct json_writer *writer)
{
    _cleanup_buffer_ struct buffer text = BUFFER_INIT;

    if (!join_text(scan, item, &text))
        return false;
    json_writer_string_length(writer, buffer_text(&text), text.length);
    return true;
}

static bool render_nested(struct cbor_scan *scan, const struct cbor_item *item, unsigned depth,
                          struct json_writer *writer)
{
    bool is_map = item->major == CBOR_MAP;

    if (depth == 0)
        return refuse(scan, "nested too deep");
    if (is_map)
        json_writer_object_begin(writer);
    else
        json_writer_array_begin(writer);
    for (uint64_t i = 0; item->info == 31 || i < item->value; i++) {
        if (item->info == 31 && at_break(scan))
            break;
        if ((is_map && !render_key(scan, writer)) || !render_item(scan, depth - 1, writer))
            return false;
    }
    if (is_map)
        json_writer_object_end(writer);
    else
        json_writer_array_end(writer);
    return true;
}

static bool render_number(struct cbor_scan *scan, const struct cbor_item *item,
                          struct json_writer *writer)
{
    if (item->major == CBOR_UNSIGNED) {
        json_writer_unsigned(writer, item->value);
    } else if (item->major == CBOR_SIMPLE) {
        double value = cbor_item_double(item);
        if (!__builtin_isfinite(value))
            return refuse(scan, "a number that is not finite");
        json_writer_number(writer, value);
    } else {
        if (item->value > INT64_MAX)
            return refuse(scan, "a number below -2^63");
        json_writer_integer(writer, -1 - (int64_t)item->value);
    }
    return true;
}

static bool render_simple(struct cbor_scan *scan, const struct cbor_item *item,
                          struct json_writer *writer)
{
    if (item->info >= 25 && item->info <= 27)
        return render_number(scan, item, writer);
    if (item->info == 22)
        json_writer_null(writer);
    else if (item->info == 20 || item->info == 21)
        json_writer_boolean(writer, item->info == 21);
    else
        return refuse(scan, "a value that JSON does not have");
    return true;
}

static bool render_item(struct cbor_scan *scan, unsigned depth, struct json_writer *writer)
{
    struct cbor_item item;

    if (!cbor_scan_head(scan, &item))
        return false;
    switch (item.major) {
    case CBOR_UNSIGNED:
    case CBOR_NEGATIVE:
        return render_number(scan, &item, writer);
    case CBOR_TEXT:
        return render_text(scan, &item, writer);
    case CBOR_ARRAY:
    case CBOR_MAP:
        return render_nested(scan, &item, depth, writer);
    case CBOR_SIMPLE:
        return render_simple(scan, &item, writer);
    default:
        return refuse(scan, "a value that JSON does not have");
    }
}

int cbor_to_json(const void *data, size_t length, struct buffer *out, struct error *err)
{
    const unsigned char *start = data;
    struct cbor_scan scan = {.at = start, .end = start + length};
    struct json_writer writer;
    size_t before = out->length;

    json_writer_init(&writer, out, JSON_COMPACT);
    if (render_item(&scan, JSON_DEPTH_MAX, &writer) && scan.at == scan.end)
        return 0;
    out->length = before;
    return error_set(err, -EINVAL, "not CBOR: byte %zu: %s", (size_t)(scan.at - start),
                     scan.problem ? scan.problem : "something follows the value");
}
