#include "filters.h"

#include <errno.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>
#include <time.h>

#include <base/alloc.h>
#include <base/clock.h>
#include <base/text.h>
#include <schema/management.h>

#include "human.h"

const struct filter_key prune_filter_keys[] = {
    {"until", FILTER_TIME, offsetof(struct api_prune_filters, until),
     offsetof(struct api_prune_filters, has_until)},
    {"label", FILTER_TEXTS, offsetof(struct api_prune_filters, label),
     offsetof(struct api_prune_filters, label_count)},
    {"label!", FILTER_TEXTS, offsetof(struct api_prune_filters, label_not),
     offsetof(struct api_prune_filters, label_not_count)},
    {.key = NULL},
};

static int parse_number(const char *key, const char *text, int32_t **list, size_t *count,
                        struct error *err)
{
    int64_t value;

    if (text_to_i64(text, INT32_MIN, INT32_MAX, &value) < 0)
        return error_set(err, -EINVAL, "invalid filter '%s=%s': a whole number", key, text);
    *list = xrealloc(*list, *count + 1, sizeof(**list));
    (*list)[(*count)++] = (int32_t)value;
    return 0;
}

static int parse_flag(const char *key, const char *text, bool *value, struct error *err)
{
    static char *const yes[] = {"true", "1", NULL}, *const no[] = {"false", "0", NULL};

    if (!strv_contains(yes, text) && !strv_contains(no, text))
        return error_set(err, -EINVAL, "invalid filter '%s=%s': true or false", key, text);
    *value = strv_contains(yes, text);
    return 0;
}

static int parse_time(const char *key, const char *text, int64_t *ret, struct error *err)
{
    _cleanup_free_ char *point = NULL;
    int r = human_point_in_time(text, time(NULL), &point, err);

    if (r >= 0)
        r = clock_parse(point, ret);
    return r < 0 ? error_context(err, "invalid filter '%s'", key) : 0;
}

static int parse_value(const struct filter_key *key, const char *text, void *document,
                       struct error *err)
{
    void *field = (char *)document + key->offset, *further = (char *)document + key->further;
    int r = 0;

    switch (key->kind) {
    case FILTER_TEXTS:
        strv_append(field, text);
        (*(size_t *)further)++;
        return 0;
    case FILTER_NUMBERS:
        return parse_number(key->key, text, field, further, err);
    case FILTER_FLAG:
        r = parse_flag(key->key, text, field, err);
        break;
    case FILTER_TIME:
        r = parse_time(key->key, text, field, err);
        break;
    }
    if (r >= 0)
        *(bool *)further = true;
    return r;
}

static int unknown_key(const char *text, size_t length, const struct filter_key *keys,
                       struct error *err)
{
    _cleanup_strv_ char **names = NULL;

    for (; keys->key; keys++) {
        if (!text_ends_with(keys->key, "!"))
            strv_append(&names, keys->key);
    }
    _cleanup_free_ char *all = strv_join(names, ", ");
    error_set(err, -EINVAL, "invalid filter '%.*s'", (int)length, text);
    error_hint(err, "There are: %s", all);
    return -EINVAL;
}

int filters_parse(char *const *texts, const struct filter_key *keys, void *document,
                  struct error *err)
{
    for (; texts && *texts; texts++) {
        const struct filter_key *key = keys;
        size_t length = strcspn(*texts, "=");
        if (!(*texts)[length])
            return error_set(err, -EINVAL,
                             "invalid argument \"%s\" for \"--filter\" flag: invalid filter '%s'",
                             *texts, *texts);
        while (key->key &&
               (strlen(key->key) != length || strncasecmp(key->key, *texts, length) != 0))
            key++;
        if (!key->key)
            return unknown_key(*texts, length, keys, err);
        int r = parse_value(key, *texts + length + 1, document, err);
        if (r < 0)
            return r;
    }
    return 0;
}
