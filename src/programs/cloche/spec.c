#include "spec.h"

#include <ctype.h>
#include <errno.h>
#include <string.h>

#include <base/alloc.h>
#include <base/text.h>

enum { CPU_DIGITS = 9 };

int spec_parse_size(const char *text, void *value, struct error *err)
{
    if (text_to_size(text, value) < 0)
        return error_set(err, -EINVAL, "invalid size: '%s'", text);
    return 0;
}

int spec_parse_cpus(const char *text, void *value, struct error *err)
{
    uint64_t whole = 0, fraction = 0;
    const char *c = text;
    int digits = 0;

    for (; isdigit((unsigned char)*c) && whole < UINT32_MAX; c++)
        whole = whole * 10 + (uint64_t)(*c - '0');
    if (*c == '.') {
        for (c++; isdigit((unsigned char)*c); c++, digits++) {
            if (digits < CPU_DIGITS)
                fraction = fraction * 10 + (uint64_t)(*c - '0');
        }
    }
    if (*c || c == text || text_equal(text, ".") || whole >= UINT32_MAX)
        return error_set(err, -EINVAL, "failed to parse %s as a number of CPUs", text);
    if (digits > CPU_DIGITS)
        return error_set(err, -ERANGE, "value is too precise");
    for (; digits < CPU_DIGITS; digits++)
        fraction *= 10;
    *(uint64_t *)value = whole * 1000000000 + fraction;
    return 0;
}

void spec_fill_map(struct json_string_map **map, char *const *words)
{
    for (; words && *words; words++) {
        size_t length = strcspn(*words, "=");
        _cleanup_free_ char *key = xstrndup(*words, length);
        json_string_map_set(map, key, (*words)[length] ? *words + length + 1 : "");
    }
}

void spec_fill_list(char ***list, size_t *count, char *const *words)
{
    if (!words)
        return;
    *list = strv_copy(words);
    *count = strv_length(*list);
}

int spec_build(const struct spec_options *options, char *const *operands,
               struct api_container_spec **ret, struct error *err)
{
    _cleanup_api_container_spec_ struct api_container_spec *spec = xnew(struct api_container_spec);

    spec->image = xstrdup(operands[0]);
    int r = process_build(options, operands + 1, spec, err);
    if (r >= 0)
        r = resources_build(&options->resources, &spec->resources, err);
    if (r >= 0)
        r = isolation_build(&options->isolation, spec, err);
    if (r >= 0)
        r = network_build(&options->network, spec, err);
    if (r >= 0)
        r = mounts_build(&options->mounts, spec, err);
    if (r >= 0)
        r = supervision_build(&options->supervision, spec, err);
    if (r >= 0)
        r = isolation_apply_profile(options->isolation.profile, spec, err);
    if (r < 0)
        return r;
    *ret = steal_ptr(spec);
    return 0;
}
