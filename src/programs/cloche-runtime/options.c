#include <errno.h>
#include <stdint.h>
#include <string.h>

#include <base/alloc.h>
#include <base/text.h>

#include "options.h"

static const struct option_spec *find(const struct option_spec *specs, const char *name,
                                      size_t length)
{
    for (; specs->name; specs++) {
        if ((strlen(specs->name) == length && memcmp(specs->name, name, length) == 0) ||
            (length == 1 && specs->letter == name[0]))
            return specs;
    }
    return NULL;
}

static bool is_one_of(const char *text, const char *const *list)
{
    while (*list && !text_equal(*list, text))
        list++;
    return *list;
}

/* The words that Go's strconv.ParseBool takes. */
static int take_flag(const struct option_spec *spec, const char *value, struct error *err)
{
    static const char *const yes[] = {"true", "1", "t", "T", "TRUE", "True", NULL};
    static const char *const no[] = {"false", "0", "f", "F", "FALSE", "False", NULL};

    if (!value || is_one_of(value, yes))
        *spec->flag = true;
    else if (is_one_of(value, no))
        *spec->flag = false;
    else
        return error_set(err, -EINVAL, "invalid boolean value \"%s\" for -%s: parse error", value,
                         spec->name);
    return 0;
}

/* Returns how many arguments it took: 1, or 2 with a value of its own. */
static int take_option(const struct option_spec *specs, char **argv, struct error *err)
{
    const char *name = argv[0] + 1 + (argv[0][1] == '-');
    const char *equals = strchr(name, '=');
    size_t length = equals ? (size_t)(equals - name) : strlen(name);
    const struct option_spec *spec = find(specs, name, length);

    if (!spec)
        return error_set(err, -EINVAL, "flag provided but not defined: -%.*s", (int)length, name);
    if (spec->refused)
        return error_set(err, -ENOTSUP, "--%s %s", spec->name, spec->refused);
    if (spec->flag) {
        int r = take_flag(spec, equals ? equals + 1 : NULL, err);
        return r < 0 ? r : 1;
    }
    const char *value = equals ? equals + 1 : argv[1];
    if (!value)
        return error_set(err, -EINVAL, "flag needs an argument: -%s", spec->name);
    if (spec->value)
        *spec->value = value;
    else
        strv_append(spec->list, value);
    return equals ? 1 : 2;
}

int options_parse(const struct option_spec *specs, bool anywhere, int argc, char **argv,
                  struct error *err)
{
    int kept = 0, i = 1;

    while (i < argc) {
        bool option = argv[i][0] == '-' && argv[i][1];
        if (option && text_equal(argv[i], "--")) {
            i++;
            break;
        }
        if (option) {
            int r = take_option(specs, argv + i, err);
            if (r < 0)
                return r;
            i += r;
        } else if (anywhere) {
            argv[1 + kept++] = argv[i++];
        } else {
            break;
        }
    }
    while (i < argc)
        argv[1 + kept++] = argv[i++];
    argv[1 + kept] = NULL;
    return kept;
}

int options_number(const char *name, const char *text, unsigned max, unsigned *ret,
                   struct error *err)
{
    uint64_t value;

    if (text_to_u64(text, 0, max, &value) < 0)
        return error_set(err, -EINVAL, "--%s: '%s' is not a number up to %u", name, text, max);
    *ret = (unsigned)value;
    return 0;
}
