#include <errno.h>
#include <string.h>

#include <schema/cbor.h>
#include <schema/scan.h>

#include "field.h"

static int too_many(const struct json_type *type, struct error *err)
{
    return error_set(err, -EINVAL, "more than %u values by position", type->fields_count);
}

static bool takes_null(const struct json_field *field)
{
    return field->flags & (JSON_NULLABLE | JSON_NULL_IS_ABSENT) || field->kind == JSON_RAW;
}

static bool is_null(const struct json_token *token)
{
    return token->length == 4 && memcmp(token->text, "null", 4) == 0;
}

static bool skip_comma(struct json_scan *scan)
{
    json_scan_blank(scan);
    if (json_scan_peek(scan) != ',')
        return false;
    scan->at++;
    json_scan_blank(scan);
    return true;
}

/* The array as an object. What is no array at all is for json_parse() to complain about. */
static int name_items(const struct json_type *type, const char *text, size_t length,
                      struct buffer *out, struct error *err)
{
    struct json_scan scan = {.at = text, .end = text + length};
    struct json_token token;
    uint16_t at = 0;

    json_scan_blank(&scan);
    scan.at++;
    json_scan_blank(&scan);
    buffer_append_char(out, '{');
    while (json_scan_peek(&scan) != ']') {
        if (!json_scan_skip(&scan, JSON_DEPTH_MAX, &token))
            return error_set(err, -EINVAL, "not JSON: %s", scan.problem);
        if (at >= type->fields_count)
            return too_many(type, err);
        const struct json_field *field = &type->fields[at++];
        if (!is_null(&token) || takes_null(field)) {
            if (out->length > 1)
                buffer_append_char(out, ',');
            json_quote(out, field->name, field->name_length);
            buffer_append_char(out, ':');
            buffer_append(out, token.text, token.length);
        }
        if (!skip_comma(&scan))
            break;
    }
    if (json_scan_peek(&scan) != ']')
        return error_set(err, -EINVAL, "not JSON: \"]\" is expected");
    buffer_append_char(out, '}');
    return 0;
}

int json_parse_positional(const struct json_type *type, const char *text, size_t length, void **ret,
                          struct error *err)
{
    _cleanup_buffer_ struct buffer named = BUFFER_INIT;

    if (type->shape == JSON_SHAPE_ARRAY)
        return json_parse(type, text, length, NULL, ret, err);
    if (type->shape != JSON_SHAPE_OBJECT)
        return error_set(err, -EINVAL, "the names are free here: send an object");
    int r = name_items(type, text, length, &named, err);
    return r < 0 ? r : json_parse(type, named.data, named.length, NULL, ret, err);
}

/* ---- CBOR ---- */

static bool at_end(const struct cbor_scan *scan, const struct cbor_item *array, uint64_t at)
{
    if (array->info == 31)
        return scan->at < scan->end && *scan->at == CBOR_BREAK;
    return at >= array->value;
}

static int name_cbor_items(const struct json_type *type, const void *data, size_t length,
                           struct buffer *out, struct error *err)
{
    struct cbor_scan scan = {.at = data, .end = (const unsigned char *)data + length};
    const unsigned char map_begin = CBOR_MAP_BEGIN, map_end = CBOR_BREAK;
    struct cbor_item array;
    uint64_t at = 0;

    if (!cbor_scan_head(&scan, &array) || array.major != CBOR_ARRAY)
        return error_set(err, -EINVAL, "expected an array");
    buffer_append(out, &map_begin, 1);
    for (; !at_end(&scan, &array, at); at++) {
        const unsigned char *start = scan.at;
        if (!cbor_scan_skip(&scan, JSON_DEPTH_MAX))
            return error_set(err, -EINVAL, "not CBOR: %s", scan.problem);
        if (at >= type->fields_count)
            return too_many(type, err);
        const struct json_field *field = &type->fields[at];
        if (*start == CBOR_NULL && !takes_null(field))
            continue;
        cbor_append_text(out, field->name, field->name_length);
        buffer_append(out, start, (size_t)(scan.at - start));
    }
    buffer_append(out, &map_end, 1);
    return 0;
}

int cbor_parse_positional(const struct json_type *type, const void *data, size_t length, void **ret,
                          struct error *err)
{
    _cleanup_buffer_ struct buffer named = BUFFER_INIT;

    if (type->shape == JSON_SHAPE_ARRAY)
        return cbor_parse(type, data, length, ret, err);
    if (type->shape != JSON_SHAPE_OBJECT)
        return error_set(err, -EINVAL, "the names are free here: send a map");
    int r = name_cbor_items(type, data, length, &named, err);
    return r < 0 ? r : cbor_parse(type, named.data, named.length, ret, err);
}
