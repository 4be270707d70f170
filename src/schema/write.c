/*
 * Values of generated types back to text, and back to the allocator: the same walk over the same
 * tables as the reader's.
 */
#include <string.h>

#include <schema/json_type.h>

#include "field.h"

static void write_struct(struct json_writer *writer, const struct json_type *type,
                         const char *value);

static void write_element(struct json_writer *writer, const struct json_field *field,
                          const char *at)
{
    switch ((enum json_kind)field->kind) {
    case JSON_STRING:
        json_writer_string(writer, *(const char *const *)at);
        break;
    case JSON_BOOLEAN:
        json_writer_boolean(writer, *(const bool *)at);
        break;
    case JSON_INTEGER:
        json_writer_integer(writer, field_integer(at, field->size));
        break;
    case JSON_UNSIGNED:
        json_writer_unsigned(writer, field_unsigned(at, field->size));
        break;
    case JSON_DOUBLE:
        json_writer_number(writer, *(const double *)at);
        break;
    case JSON_RAW:
        json_writer_raw(writer, *(const char *const *)at ? *(const char *const *)at : "null");
        break;
    case JSON_OBJECT:
        json_writer_value(writer, field->type, *(const void *const *)at);
        break;
    }
}

static void write_array(struct json_writer *writer, const struct json_field *field,
                        const char *base)
{
    const char *items = (const char *)field_items(base, field);
    size_t count = items ? field_count(base, field) : 0;

    if (field_was_string(field, base, count)) {
        write_element(writer, field, items);
        return;
    }
    json_writer_array_begin(writer);
    for (size_t i = 0; i < count; i++)
        write_element(writer, field, items + i * field->size);
    json_writer_array_end(writer);
}

static void write_absent(struct json_writer *writer, const struct json_field *field)
{
    if (!field_is_written_empty(field))
        return;
    json_writer_name(writer, field->name, field->name_length);
    json_writer_raw(writer, field_is_map(field) ? "{}" : "[]");
}

static void write_field(struct json_writer *writer, const struct json_field *field,
                        const char *base)
{
    if (field_is_null(field, base)) {
        json_writer_name(writer, field->name, field->name_length);
        json_writer_null(writer);
    } else if (!field_is_present(field, base)) {
        write_absent(writer, field);
    } else {
        json_writer_name(writer, field->name, field->name_length);
        if (field->flags & JSON_ARRAY)
            write_array(writer, field, base);
        else
            write_element(writer, field, base + field->offset);
    }
}

static void write_map(struct json_writer *writer, const struct json_type *type, const char *value)
{
    const struct json_string_map *map = (const struct json_string_map *)value;
    const char *values = (const char *)map->values;

    json_writer_object_begin(writer);
    for (size_t i = 0; i < map->count; i++) {
        json_writer_key(writer, map->keys[i]);
        write_element(writer, type->fields, values + i * type->fields->size);
    }
    json_writer_object_end(writer);
}

static void write_struct(struct json_writer *writer, const struct json_type *type,
                         const char *value)
{
    json_writer_object_begin(writer);
    for (size_t i = 0; i < type->fields_count; i++)
        write_field(writer, &type->fields[i], value);
    if (type->unknown == JSON_UNKNOWN_KEEP) {
        const struct json_string_map *unknown =
            *(struct json_string_map *const *)(value + type->unknown_offset);
        for (size_t i = 0; unknown && i < unknown->count; i++) {
            json_writer_key(writer, unknown->keys[i]);
            json_writer_raw(writer, unknown->values[i]);
        }
    }
    json_writer_object_end(writer);
}

void json_writer_value(struct json_writer *writer, const struct json_type *type, const void *value)
{
    if (!value)
        json_writer_null(writer);
    else if (type->shape == JSON_SHAPE_MAP)
        write_map(writer, type, value);
    else if (type->shape == JSON_SHAPE_ARRAY)
        write_array(writer, type->fields, value);
    else
        write_struct(writer, type, value);
}

static void write_document(const struct json_type *type, const void *value, struct buffer *out,
                           enum json_layout layout)
{
    struct json_writer writer;

    json_writer_init(&writer, out, layout);
    json_writer_value(&writer, type, value);
}

void json_write(const struct json_type *type, const void *value, struct buffer *out)
{
    write_document(type, value, out, JSON_COMPACT);
}

void json_write_pretty(const struct json_type *type, const void *value, struct buffer *out)
{
    write_document(type, value, out, JSON_PRETTY);
}

static void free_elements(const struct json_field *field, char *items, size_t count)
{
    if (field->kind == JSON_OBJECT)
        for (size_t i = 0; i < count; i++)
            json_free(field->type, ((void **)items)[i]);
    else if (field->kind == JSON_STRING || field->kind == JSON_RAW)
        for (size_t i = 0; i < count; i++)
            free(((char **)items)[i]);
    free(items);
}

static void free_array(const struct json_field *field, char *base)
{
    char *items = *(char **)(base + field->offset);

    if (items)
        free_elements(field, items, field_count(base, field));
}

static void free_struct(const struct json_type *type, char *value)
{
    for (size_t i = 0; i < type->fields_count; i++) {
        const struct json_field *field = &type->fields[i];
        if (field->flags & JSON_ARRAY)
            free_array(field, value);
        else if (field->kind == JSON_OBJECT)
            json_free(field->type, *(void **)(value + field->offset));
        else if (field->kind == JSON_STRING || field->kind == JSON_RAW)
            free(*(char **)(value + field->offset));
    }
    if (type->unknown == JSON_UNKNOWN_KEEP)
        json_string_map_free(*(struct json_string_map **)(value + type->unknown_offset));
}

void json_free(const struct json_type *type, void *value)
{
    if (!value)
        return;
    if (type->shape == JSON_SHAPE_MAP) {
        struct json_string_map *map = value;
        for (size_t i = 0; i < map->count; i++)
            free(map->keys[i]);
        free(map->keys);
        free_elements(type->fields, (char *)map->values, map->count);
    } else if (type->shape == JSON_SHAPE_ARRAY) {
        free_array(type->fields, value);
    } else {
        free_struct(type, value);
    }
    free(value);
}

const char *json_type_name(const struct json_type *type)
{
    return type->name;
}
