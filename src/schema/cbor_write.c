/*
 * Values of generated types to CBOR: the walk of write.c, with heads in place of brackets.
 */
#include <string.h>

#include <schema/cbor.h>
#include <schema/utf8.h>

#include "cbor_float.h"
#include "field.h"

static void write_value(const struct json_type *type, const void *value, struct buffer *out);

static void append_byte(struct buffer *out, int byte)
{
    buffer_append_char(out, (char)byte);
}

static void write_double(double value, struct buffer *out)
{
    if (__builtin_isfinite(value))
        cbor_append_double(out, value);
    else
        append_byte(out, CBOR_NULL); /* as JSON has it */
}

static void write_integer(int64_t value, struct buffer *out)
{
    cbor_append_head(out, value < 0 ? CBOR_NEGATIVE : CBOR_UNSIGNED,
                     value < 0 ? ~(uint64_t)value : (uint64_t)value);
}

/* Text that is not UTF-8 cannot be said: as in JSON, such bytes become U+FFFD. */
static void write_text(const char *text, struct buffer *out)
{
    if (!text) {
        append_byte(out, CBOR_NULL);
        return;
    }
    size_t length = strlen(text);
    if (utf8_check(text, length) == length) {
        cbor_append_text(out, text, length);
        return;
    }
    _cleanup_buffer_ struct buffer mended = BUFFER_INIT;
    utf8_mend(text, length, &mended);
    cbor_append_text(out, mended.data, mended.length);
}

static void write_raw(const char *json, struct buffer *out)
{
    /* It came from the reader, or from our own hands: valid. */
    if (!json || cbor_from_json(json, strlen(json), out, NULL) < 0)
        append_byte(out, CBOR_NULL);
}

static void write_element(const struct json_field *field, const char *at, struct buffer *out)
{
    switch ((enum json_kind)field->kind) {
    case JSON_STRING:
        write_text(*(const char *const *)at, out);
        break;
    case JSON_BOOLEAN:
        append_byte(out, *(const bool *)at ? CBOR_TRUE : CBOR_FALSE);
        break;
    case JSON_INTEGER:
        write_integer(field_integer(at, field->size), out);
        break;
    case JSON_UNSIGNED:
        cbor_append_head(out, CBOR_UNSIGNED, field_unsigned(at, field->size));
        break;
    case JSON_DOUBLE:
        write_double(*(const double *)at, out);
        break;
    case JSON_RAW:
        write_raw(*(const char *const *)at, out);
        break;
    case JSON_OBJECT:
        write_value(field->type, *(const void *const *)at, out);
        break;
    }
}

static void write_array(const struct json_field *field, const char *base, struct buffer *out)
{
    const char *items = (const char *)field_items(base, field);
    size_t count = items ? field_count(base, field) : 0;

    if (field_was_string(field, base, count)) {
        write_element(field, items, out);
        return;
    }
    cbor_append_head(out, CBOR_ARRAY, count);
    for (size_t i = 0; i < count; i++)
        write_element(field, items + i * field->size, out);
}

/* Whether there was something to write. */
static bool write_field(const struct json_field *field, const char *base, struct buffer *out)
{
    bool present = field_is_present(field, base), null = field_is_null(field, base);

    if (!present && !null && !field_is_written_empty(field))
        return false;
    cbor_append_text(out, field->name, field->name_length);
    if (null)
        append_byte(out, CBOR_NULL);
    else if (!present)
        cbor_append_head(out, field_is_map(field) ? CBOR_MAP : CBOR_ARRAY, 0);
    else if (field->flags & JSON_ARRAY)
        write_array(field, base, out);
    else
        write_element(field, base + field->offset, out);
    return true;
}

/* The head of a map whose members are written behind it already: from start on. Nearly always they
 * are few and the head is the one byte that was left for it. */
static void put_map_head(struct buffer *out, size_t start, size_t count)
{
    if (count < 24) {
        out->data[start] = (char)(CBOR_MAP << 5 | count);
        return;
    }
    _cleanup_buffer_ struct buffer head = BUFFER_INIT;
    cbor_append_head(&head, CBOR_MAP, count);
    size_t body = out->length - start - 1;
    buffer_reserve(out, head.length);
    memmove(out->data + start + head.length, out->data + start + 1, body);
    memcpy(out->data + start, head.data, head.length);
    out->length = start + head.length + body;
}

static void write_struct(const struct json_type *type, const char *value, struct buffer *out)
{
    const struct json_string_map *unknown = NULL;
    size_t start = out->length, count = 0;

    append_byte(out, 0);
    for (size_t i = 0; i < type->fields_count; i++)
        count += write_field(&type->fields[i], value, out);
    if (type->unknown == JSON_UNKNOWN_KEEP)
        unknown = *(struct json_string_map *const *)(value + type->unknown_offset);
    for (size_t i = 0; unknown && i < unknown->count; i++, count++) {
        write_text(unknown->keys[i], out);
        write_raw(unknown->values[i], out);
    }
    put_map_head(out, start, count);
}

static void write_map(const struct json_type *type, const void *value, struct buffer *out)
{
    const struct json_string_map *map = value;
    const char *values = (const char *)map->values;

    cbor_append_head(out, CBOR_MAP, map->count);
    for (size_t i = 0; i < map->count; i++) {
        write_text(map->keys[i], out);
        write_element(type->fields, values + i * type->fields->size, out);
    }
}

static void write_value(const struct json_type *type, const void *value, struct buffer *out)
{
    if (!value)
        append_byte(out, CBOR_NULL);
    else if (type->shape == JSON_SHAPE_MAP)
        write_map(type, value, out);
    else if (type->shape == JSON_SHAPE_ARRAY)
        write_array(type->fields, value, out);
    else
        write_struct(type, value, out);
}

void cbor_write(const struct json_type *type, const void *value, struct buffer *out)
{
    write_value(type, value, out);
}
