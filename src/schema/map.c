#include <string.h>

#include <schema/json_type.h>

static const struct json_field string_values = {
    .name = "",
    .maximum = UINT64_MAX,
    .items_maximum = UINT32_MAX,
    .offset = offsetof(struct json_string_map, values),
    .count_offset = offsetof(struct json_string_map, count),
    .kind = JSON_STRING,
    .size = sizeof(char *),
};

static const struct json_field raw_values = {
    .name = "",
    .items_maximum = UINT32_MAX,
    .offset = offsetof(struct json_string_map, values),
    .count_offset = offsetof(struct json_string_map, count),
    .kind = JSON_RAW,
    .size = sizeof(char *),
};

const struct json_type json_string_map_type = {
    .name = "json_string_map",
    .fields = &string_values,
    .fields_count = 1,
    .size = sizeof(struct json_string_map),
    .shape = JSON_SHAPE_MAP,
};

const struct json_type json_raw_map_type = {
    .name = "json_raw_map",
    .fields = &raw_values,
    .fields_count = 1,
    .size = sizeof(struct json_string_map),
    .shape = JSON_SHAPE_MAP,
};

/* Index of the key; count when it is not there. */
static size_t find(const struct json_string_map *map, const char *key)
{
    size_t i = 0;

    while (i < map->count && strcmp(map->keys[i], key) != 0)
        i++;
    return i;
}

const char *json_string_map_get(const struct json_string_map *map, const char *key)
{
    if (!map)
        return NULL;
    size_t i = find(map, key);
    return i < map->count ? map->values[i] : NULL;
}

void json_string_map_set(struct json_string_map **map, const char *key, const char *value)
{
    if (!*map)
        *map = xnew(struct json_string_map);
    struct json_string_map *into = *map;
    size_t i = find(into, key);
    char *copy = xstrdup(value); /* value may be the one that is replaced */

    if (i < into->count) {
        free(into->values[i]);
    } else {
        into->keys = xrealloc(into->keys, i + 1, sizeof(char *));
        into->values = xrealloc(into->values, i + 1, sizeof(char *));
        into->keys[i] = xstrdup(key);
        into->count++;
    }
    into->values[i] = copy;
}

bool json_string_map_remove(struct json_string_map *map, const char *key)
{
    size_t i = map ? find(map, key) : 0;

    if (!map || i == map->count)
        return false;
    free(map->keys[i]);
    free(map->values[i]);
    map->count--;
    memmove(map->keys + i, map->keys + i + 1, (map->count - i) * sizeof(char *));
    memmove(map->values + i, map->values + i + 1, (map->count - i) * sizeof(char *));
    return true;
}

struct json_string_map *json_string_map_copy(const struct json_string_map *map)
{
    if (!map)
        return NULL;
    struct json_string_map *copy = xnew(struct json_string_map);
    copy->keys = xnew_array(char *, map->count + 1);
    copy->values = xnew_array(char *, map->count + 1);
    copy->count = map->count;
    for (size_t i = 0; i < map->count; i++) {
        copy->keys[i] = xstrdup(map->keys[i]);
        copy->values[i] = xstrdup(map->values[i]);
    }
    return copy;
}

void json_string_map_free(struct json_string_map *map)
{
    json_free(&json_string_map_type, map);
}
