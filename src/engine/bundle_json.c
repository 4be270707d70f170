#include "bundle_json.h"

#include <base/text.h>

void put_string(struct json_writer *writer, const char *key, const char *value)
{
    json_writer_key(writer, key);
    json_writer_string(writer, value);
}

void put_integer(struct json_writer *writer, const char *key, int64_t value)
{
    json_writer_key(writer, key);
    json_writer_integer(writer, value);
}

void put_boolean(struct json_writer *writer, const char *key, bool value)
{
    json_writer_key(writer, key);
    json_writer_boolean(writer, value);
}

void put_strings(struct json_writer *writer, const char *key, const char *const *values,
                 size_t count)
{
    json_writer_key(writer, key);
    json_writer_array_begin(writer);
    for (size_t i = 0; i < count && values[i]; i++)
        json_writer_string(writer, values[i]);
    json_writer_array_end(writer);
}

void put_strv(struct json_writer *writer, const char *key, char *const *values)
{
    put_strings(writer, key, (const char *const *)values, strv_length(values));
}

void begin_object(struct json_writer *writer, const char *key)
{
    json_writer_key(writer, key);
    json_writer_object_begin(writer);
}

void begin_array(struct json_writer *writer, const char *key)
{
    json_writer_key(writer, key);
    json_writer_array_begin(writer);
}
