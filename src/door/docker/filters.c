#include "filters.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include <base/alloc.h>
#include <base/text.h>
#include <schema/docker.h>
#include <schema/json.h>

/* Those that are true, of {"value": true}. */
static int parse_set(const char *text, char ***ret, struct error *err)
{
    struct json_string_map *map;
    void *value;

    int r = json_parse(&json_raw_map_type, text, strlen(text), NULL, &value, err);
    if (r < 0)
        return r;
    map = value;
    for (size_t i = 0; i < map->count; i++) {
        if (!text_equal(map->values[i], "false"))
            strv_append(ret, map->keys[i]);
    }
    json_free(&json_raw_map_type, map);
    return 0;
}

static int parse_list(const char *text, char ***ret, struct error *err)
{
    struct docker_filter_values *list;

    int r = docker_filter_values_parse(text, strlen(text), NULL, &list, err);
    if (r < 0)
        return r;
    *ret = strv_copy(list->items);
    docker_filter_values_free(list);
    return 0;
}

static int add(struct filters *filters, const char *key, const char *text, struct error *err)
{
    if (filters->count == FILTERS_MAX)
        return error_set(err, -EINVAL, "more than %d filters", FILTERS_MAX);
    struct filter filter = {.key = xstrdup(key)};
    int r = text[0] == '[' ? parse_list(text, &filter.values, err)
                           : parse_set(text, &filter.values, err);
    if (r == 0 && filter.values && filter.values[0]) {
        filters->items[filters->count++] = filter;
        return 0;
    }
    /* One without values asks for nothing. */
    free(filter.key);
    strv_free(filter.values);
    return r;
}

int filters_parse(const char *text, struct filters *ret, struct error *err)
{
    void *value;

    *ret = (struct filters){.count = 0};
    if (text_empty(text))
        return 0;
    int r = json_parse(&json_raw_map_type, text, strlen(text), NULL, &value, err);
    if (r < 0)
        return error_context(err, "invalid filter"), r;
    struct json_string_map *map = value;
    for (size_t i = 0; r == 0 && i < map->count; i++)
        r = add(ret, map->keys[i], map->values[i], err);
    json_free(&json_raw_map_type, map);
    if (r < 0) {
        error_context(err, "invalid filter");
        filters_finish(ret);
    }
    return r;
}

void filters_finish(struct filters *filters)
{
    for (size_t i = 0; i < filters->count; i++) {
        free(filters->items[i].key);
        strv_free(filters->items[i].values);
    }
    filters->count = 0;
}

char **filters_get(const struct filters *filters, const char *key)
{
    for (size_t i = 0; i < filters->count; i++)
        if (text_equal(filters->items[i].key, key))
            return filters->items[i].values;
    return NULL;
}
