/*
 * What a field of a struct holds, for those who walk over values by the tables: base is the struct,
 * at one value.
 */
#ifndef SCHEMA_FIELD_H
#define SCHEMA_FIELD_H

#include <base/text.h>
#include <schema/json_type.h>

static inline const char *const *field_items(const char *base, const struct json_field *field)
{
    return *(const char *const *const *)(base + field->offset);
}

/* Arrays of strings end with NULL, whatever their count says: they may have been made with
 * strv_append(). */
static inline size_t field_count(const char *base, const struct json_field *field)
{
    if (field->kind == JSON_STRING)
        return strv_length((char *const *)field_items(base, field));
    return *(const size_t *)(base + field->count_offset);
}

static inline int64_t field_integer(const void *at, uint8_t size)
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

static inline uint64_t field_unsigned(const void *at, uint8_t size)
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

static inline bool field_is_pointer(const struct json_field *field)
{
    return field->flags & JSON_ARRAY || field->kind == JSON_STRING || field->kind == JSON_RAW ||
           field->kind == JSON_OBJECT;
}

static inline bool field_is_present(const struct json_field *field, const char *base)
{
    if (field_is_pointer(field))
        return *(const void *const *)(base + field->offset);
    return !field->has_offset || *(const bool *)(base + field->has_offset);
}

static inline bool field_is_map(const struct json_field *field)
{
    return !(field->flags & JSON_ARRAY) && field->kind == JSON_OBJECT &&
           field->type->shape == JSON_SHAPE_MAP;
}

static inline bool field_is_array(const struct json_field *field)
{
    return field->flags & JSON_ARRAY ||
           (field->kind == JSON_OBJECT && field->type->shape == JSON_SHAPE_ARRAY);
}

/* A required array or map that was left NULL is an empty one. */
static inline bool field_is_written_empty(const struct json_field *field)
{
    return field->flags & JSON_REQUIRED && (field_is_array(field) || field_is_map(field));
}

/* Null, and said to be. */
static inline bool field_is_null(const struct json_field *field, const char *base)
{
    return field->null_offset && *(const bool *)(base + field->null_offset);
}

/* STRING_OR_ARRAY that was a string. */
static inline bool field_was_string(const struct json_field *field, const char *base, size_t count)
{
    return field->flags & JSON_STRING_OR_ARRAY && count == 1 &&
           *(const bool *)(base + field->was_string_offset);
}

#endif
