/*
 * Members of a configuration, written one by one: a key and what it has.
 */
#ifndef ENGINE_BUNDLE_JSON_H
#define ENGINE_BUNDLE_JSON_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <schema/json.h>
#include <schema/management.h>

void put_string(struct json_writer *writer, const char *key, const char *value);
void put_integer(struct json_writer *writer, const char *key, int64_t value);
void put_boolean(struct json_writer *writer, const char *key, bool value);
/* Up to count, or to the first NULL. */
void put_strings(struct json_writer *writer, const char *key, const char *const *values,
                 size_t count);
void put_strv(struct json_writer *writer, const char *key, char *const *values);
void begin_object(struct json_writer *writer, const char *key);
void begin_array(struct json_writer *writer, const char *key);

#endif
