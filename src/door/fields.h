/*
 * Members of objects, written by name: a column of these reads like the document it makes.
 */
#ifndef DOOR_FIELDS_H
#define DOOR_FIELDS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <schema/json.h>

void field_text(struct json_writer *writer, const char *key, const char *value); /* NULL: "" */
void field_integer(struct json_writer *writer, const char *key, int64_t value);
void field_unsigned(struct json_writer *writer, const char *key, uint64_t value);
void field_boolean(struct json_writer *writer, const char *key, bool value);
void field_null(struct json_writer *writer, const char *key);

/* A list that is absent is null, as Go writes a nil slice; an empty one is []. */
void field_list(struct json_writer *writer, const char *key, char *const *items);

/* A map that is absent is {}. */
void field_map(struct json_writer *writer, const char *key, const struct json_string_map *map);

/* {"80/tcp": {}}: the keys with empty objects. */
void field_set(struct json_writer *writer, const char *key, char *const *keys, size_t count);

void field_object_begin(struct json_writer *writer, const char *key);

#endif
