/*
 * Values of generated types back to text, and back to the allocator: the same walk over the same
 * tables as the reader's.
 */
#include <string.h>

#include <base/text.h>
#include <schema/json_type.h>

static void write_struct(struct json_writer *writer, const struct json_type *type,
                         const char *value);

static const char *const *array_items(const char *base, const struct json_field *field)
{
    return *(const char *const *const *)(base + field->offset);
}

/* Arrays of strings end with NULL, whatever their count says: they may have been made with
 * strv_append(). */
static size_t array_count(const char *base, const struct json_field *field)
{
    if (field->kind == JSON_STRING)
        return strv_length((char *const *)array_items(base, field));
    return *(const size_t *)(base + field->count_offset);
}

static int64_t read_integer(const void *at, uint8_t size)
{
    switch (size) {
    case 1:
        return *(const int8_t *)at;
    case 2:
        return *(const int16_t *)at;
    case 4:
        return *(const int32_t *)at;
    default:
        return *(const int64_t *)at;
    }
}

static uint64_t read_unsigned(const void *at, uint8_t size)
{
    switch (size) {
    case 1:
        return *(const uint8_t *)at;
    case 2:
        return *(const uint16_t *)at;
    case 4:
        return *(const uint32_t *)at;
    default:
        return *(const uint64_t *)at;
    }
}

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
        json_writer_integer(writer, read_integer(at, field->size));
        break;
    case JSON_UNSIGNED:
        json_writer_unsigned(writer, read_unsigned(at, field->size));
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
    const char *items = (const char *)array_items(base, field);
    size_t count = items ? array_count(base, field) : 0;

    if (field->flags & JSON_STRING_OR_ARRAY && count == 1 &&
        *(const bool *)(base + field->was_string_offset)) {
        write_element(writer, field, items);
        return;
    }
    json_writer_array_begin(writer);
    for (size_t i = 0; i < count; i++)
        write_element(writer, field, items + i * field->size);
    json_writer_array_end(writer);
}

static bool is_pointer(const struct json_field *field)
{
    return field->flags & JSON_ARRAY || field->kind == JSON_STRING || field->kind == JSON_RAW ||
           field->kind == JSON_OBJECT;
}

static bool is_present(const struct json_field *field, const char *base)
{
    if (is_pointer(field))
        return *(const void *const *)(base + field->offset);
    return !field->has_offset || *(const bool *)(base + field->has_offset);
}

/* A required array or map that was left NULL is an empty one. */
static void write_absent(struct json_writer *writer, const struct json_field *field)
{
    bool is_map = field->kind == JSON_OBJECT && field->type->shape == JSON_SHAPE_MAP;
    bool is_array = field->flags & JSON_ARRAY ||
                    (field->kind == JSON_OBJECT && field->type->shape == JSON_SHAPE_ARRAY);

    if (!(field->flags & JSON_REQUIRED) || !(is_array || is_map))
        return;
    json_writer_key(writer, field->name);
    json_writer_raw(writer, is_array ? "[]" : "{}");
}

static void write_field(struct json_writer *writer, const struct json_field *field,
                        const char *base)
{
    if (field->null_offset && *(const bool *)(base + field->null_offset)) {
        json_writer_key(writer, field->name);
        json_writer_null(writer);
    } else if (!is_present(field, base)) {
        write_absent(writer, field);
    } else {
        json_writer_key(writer, field->name);
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
        free_elements(field, items, array_count(base, field));
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
