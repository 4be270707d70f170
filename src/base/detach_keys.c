#include <base/detach_keys.h>

#include <errno.h>
#include <string.h>

#include <base/alloc.h>
#include <base/text.h>

static int parse_key(const char *name, unsigned char *ret)
{
    static const char prefix[] = "ctrl-";

    if (name[0] && !name[1]) {
        *ret = (unsigned char)name[0];
        return 0;
    }
    if (!text_starts_with(name, prefix))
        return -EINVAL;
    char letter = name[sizeof(prefix) - 1];
    if (!letter || name[sizeof(prefix)])
        return -EINVAL;
    if (letter >= 'a' && letter <= 'z')
        *ret = (unsigned char)(letter - 'a' + 1);
    else if (letter >= '@' && letter <= '_' && !(letter >= 'A' && letter <= 'Z'))
        *ret = (unsigned char)(letter - '@');
    else
        return -EINVAL;
    return 0;
}

int detach_keys_parse(const char *text, struct detach_keys *ret, struct error *err)
{
    _cleanup_strv_ char **names = strv_split(text, ',');
    struct detach_keys keys = {.count = 0};

    for (size_t i = 0; names && names[i]; i++) {
        if (keys.count == DETACH_KEYS_MAX)
            return error_set(err, -EINVAL, "invalid detach keys (%s): more than %d", text,
                             DETACH_KEYS_MAX);
        if (parse_key(names[i], &keys.keys[keys.count++]) < 0)
            return error_set(err, -EINVAL, "invalid detach keys (%s): unknown key \"%s\"", text,
                             names[i]);
    }
    *ret = keys;
    return 0;
}

bool detach_keys_filter(struct detach_keys *keys, const unsigned char *data, size_t length,
                        unsigned char *out, size_t *ret_length)
{
    size_t written = 0;

    for (size_t i = 0; i < length; i++) {
        if (keys->matched && data[i] != keys->keys[keys->matched]) {
            /* Not the sequence after all: what was held back belongs to the container. */
            memcpy(out + written, keys->keys, keys->matched);
            written += keys->matched;
            keys->matched = 0;
        }
        if (keys->count && data[i] == keys->keys[keys->matched])
            keys->matched++;
        else
            out[written++] = data[i];
        if (keys->count && keys->matched == keys->count) {
            keys->matched = 0;
            *ret_length = written;
            return true;
        }
    }
    *ret_length = written;
    return false;
}
