#include "target.h"

#include <string.h>
#include <strings.h>

#include <base/alloc.h>
#include <base/text.h>

static int digit_of(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    if (c >= 'a' && c <= 'f')
        return c - 'a' + 10;
    return c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
}

/* Owned by the caller. NULL: a code that is none. plus: "+" is a blank, as in parameters. */
static char *decode(const char *text, size_t length, bool plus)
{
    char *decoded = xmalloc(length + 1);
    size_t used = 0;

    for (size_t i = 0; i < length; i++) {
        char c = text[i];
        if (c == '%') {
            int high = length - i >= 3 ? digit_of(text[i + 1]) : -1;
            int low = high >= 0 ? digit_of(text[i + 2]) : -1;
            if (low < 0 || (high == 0 && low == 0)) {
                free(decoded);
                return NULL;
            }
            c = (char)(high << 4 | low);
            i += 2;
        } else if (c == '+' && plus) {
            c = ' ';
        }
        decoded[used++] = c;
    }
    decoded[used] = '\0';
    return decoded;
}

/* "/v1.41/..." */
static const char *parse_version(const char *text, size_t *length, struct target *target)
{
    unsigned numbers[2] = {0, 0};
    size_t at = 2;

    if (*length < 3 || text[0] != '/' || text[1] != 'v')
        return text;
    for (int i = 0; i < 2; i++) {
        size_t digits = 0;
        while (at < *length && text[at] >= '0' && text[at] <= '9' && digits++ < 6)
            numbers[i] = numbers[i] * 10 + (unsigned)(text[at++] - '0');
        if (!digits || (i == 0 && (at >= *length || text[at++] != '.')))
            return text;
    }
    if (at < *length && text[at] != '/')
        return text;
    target->versioned = true;
    target->major = numbers[0];
    target->minor = numbers[1];
    *length -= at;
    return text + at;
}

static bool parse_parameter(const char *text, size_t length, struct target *target)
{
    const char *equals = memchr(text, '=', length);
    size_t key_length = equals ? (size_t)(equals - text) : length;

    char *key = decode(text, key_length, true);
    char *value = equals ? decode(equals + 1, length - key_length - 1, true) : xstrdup("");
    if (!key || !value) {
        free(key);
        free(value);
        return false;
    }
    strv_take(&target->keys, key);
    strv_take(&target->values, value);
    return true;
}

static bool parse_parameters(const char *text, struct target *target)
{
    size_t count = 0;

    while (*text) {
        size_t length = strcspn(text, "&");
        if (length && (++count > TARGET_PARAMETERS_MAX || !parse_parameter(text, length, target)))
            return false;
        text += length;
        text += *text == '&';
    }
    return true;
}

bool target_parse(const char *text, struct target *ret)
{
    struct target target = {.major = 1, .minor = DOCKER_API_MAX};
    size_t length = strcspn(text, "?#");

    bool good =
        text[length] != '#' && (!text[length] || parse_parameters(text + length + 1, &target));
    const char *path = parse_version(text, &length, &target);
    if (good)
        target.path = decode(path, length, false);
    if (!target.path) {
        target_finish(&target);
        return false;
    }
    *ret = target;
    return true;
}

void target_finish(struct target *target)
{
    free(target->path);
    strv_free(target->keys);
    strv_free(target->values);
    *target = (struct target){0};
}

const char *target_text(const struct target *target, const char *key)
{
    for (size_t i = 0; target->keys && target->keys[i]; i++)
        if (text_equal(target->keys[i], key))
            return target->values[i];
    return NULL;
}

bool target_flag(const struct target *target, const char *key)
{
    static const char *const no[] = {"", "0", "no", "false", "none"};
    const char *value = target_text(target, key);

    for (size_t i = 0; value && i < ARRAY_SIZE(no); i++)
        if (strcasecmp(value, no[i]) == 0)
            return false;
    return value != NULL;
}

int64_t target_number(const struct target *target, const char *key, int64_t fallback)
{
    const char *value = target_text(target, key);
    int64_t number;

    return value && text_to_i64(value, INT64_MIN, INT64_MAX, &number) == 0 ? number : fallback;
}

char **target_list(const struct target *target, const char *key)
{
    char **list = NULL;

    for (size_t i = 0; target->keys && target->keys[i]; i++)
        if (text_equal(target->keys[i], key))
            strv_append(&list, target->values[i]);
    return list;
}
