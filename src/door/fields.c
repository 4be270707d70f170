#include "fields.h"

void field_text(struct json_writer *writer, const char *key, const char *value)
{
    json_writer_key(writer, key);
    json_writer_string(writer, value ? value : "");
}

void field_integer(struct json_writer *writer, const char *key, int64_t value)
{
    json_writer_key(writer, key);
    json_writer_integer(writer, value);
}

void field_unsigned(struct json_writer *writer, const char *key, uint64_t value)
{
    json_writer_key(writer, key);
    json_writer_unsigned(writer, value);
}

void field_boolean(struct json_writer *writer, const char *key, bool value)
{
    json_writer_key(writer, key);
    json_writer_boolean(writer, value);
}

void field_null(struct json_writer *writer, const char *key)
{
    json_writer_key(writer, key);
    json_writer_null(writer);
}

void field_list(struct json_writer *writer, const char *key, char *const *items)
{
    if (!items) {
        field_null(writer, key);
        return;
    }
    json_writer_key(writer, key);
    json_writer_array_begin(writer);
    for (; *items; items++)
        json_writer_string(writer, *items);
    json_writer_array_end(writer);
}

void field_map(struct json_writer *writer, const char *key, const struct json_string_map *map)
{
    field_object_begin(writer, key);
    for (size_t i = 0; map && i < map->count; i++)
        field_text(writer, map->keys[i], map->values[i]);
    json_writer_object_end(writer);
}

void field_set(struct json_writer *writer, const char *key, char *const *keys, size_t count)
{
    field_object_begin(writer, key);
    for (size_t i = 0; i < count; i++) {
        field_object_begin(writer, keys[i]);
        json_writer_object_end(writer);
    }
    json_writer_object_end(writer);
}

void field_object_begin(struct json_writer *writer, const char *key)
{
    json_writer_key(writer, key);
    json_writer_object_begin(writer);
}
