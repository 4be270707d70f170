#include "devices.h"

#include <errno.h>
#include <string.h>

#include <base/alloc.h>
#include <base/text.h>

#include "spec.h"

bool device_access_valid(const char *text)
{
    size_t length = strlen(text);

    return length >= 1 && length <= DEVICE_ACCESS_MAX && strspn(text, "rwm") == length;
}

static bool parse_number(const char *text, int64_t *ret)
{
    *ret = -1;
    return text_equal(text, "*") || text_to_i64(text, 0, UINT32_MAX, ret) == 0;
}

int device_rule_parse(const char *text, char *ret_type, int64_t *ret_major, int64_t *ret_minor,
                      char *ret_access, struct error *err)
{
    _cleanup_strv_ char **words = strv_split(text, ' ');
    char *colon = strv_length(words) == 3 ? strchr(words[1], ':') : NULL;

    if (colon)
        *colon++ = '\0';
    if (!colon || strlen(words[0]) != 1 || !strchr("abc", words[0][0]) ||
        !parse_number(words[1], ret_major) || !parse_number(colon, ret_minor) ||
        !device_access_valid(words[2]))
        return error_set(err, -EINVAL, "invalid device cgroup rule format: '%.80s'", text);
    *ret_type = words[0][0];
    memcpy(ret_access, words[2], strlen(words[2]) + 1);
    return 0;
}

static int check_device(const struct api_device *device, struct error *err)
{
    if (device->path_on_host[0] != '/')
        return error_set(
            err, -EINVAL,
            "error gathering device information while adding custom device \"%s\": not "
            "a device node",
            device->path_on_host);
    if (!text_empty(device->path_in_container) && device->path_in_container[0] != '/')
        return error_set(err, -EINVAL, "invalid device path in the container: '%s'",
                         device->path_in_container);
    if (!text_empty(device->cgroup_permissions) && !device_access_valid(device->cgroup_permissions))
        return error_set(err, -EINVAL, "invalid device permissions: '%s'",
                         device->cgroup_permissions);
    return 0;
}

int devices_check(const struct api_container_spec *spec, struct error *err)
{
    char type, access[DEVICE_ACCESS_MAX + 1];
    int64_t major, minor;
    int r = 0;

    if (spec->devices_count > SPEC_DEVICES_MAX ||
        spec->device_cgroup_rules_count > SPEC_DEVICES_MAX)
        return error_set(err, -EINVAL, "more than %d devices", SPEC_DEVICES_MAX);
    for (size_t i = 0; r == 0 && i < spec->devices_count; i++)
        r = check_device(spec->devices[i], err);
    for (size_t i = 0; r == 0 && i < spec->device_cgroup_rules_count; i++)
        r = device_rule_parse(spec->device_cgroup_rules[i], &type, &major, &minor, access, err);
    return r;
}
