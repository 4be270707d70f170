#include <errno.h>
#include <string.h>

#include <schema/oci_config.h>

#include <base/alloc.h>

#include "cgroup_resources.h"

/* What every container may use (config-linux.md, "Default Devices", plus ptmx, the pts and mknod of
 * anything, as every runtime allows: without access a node is harmless). */
static const struct device_rule default_rules[] = {
    {.allow = true, .type = 'c', .major = -1, .minor = -1, .mknod = true},
    {.allow = true, .type = 'b', .major = -1, .minor = -1, .mknod = true},
    {true, 'c', 1, 3, true, true, true},    /* null */
    {true, 'c', 1, 5, true, true, true},    /* zero */
    {true, 'c', 1, 7, true, true, true},    /* full */
    {true, 'c', 1, 8, true, true, true},    /* random */
    {true, 'c', 1, 9, true, true, true},    /* urandom */
    {true, 'c', 5, 0, true, true, true},    /* tty */
    {true, 'c', 5, 2, true, true, true},    /* ptmx */
    {true, 'c', 136, -1, true, true, true}, /* pts/N */
};

static int take_access(const char *access, struct device_rule *ret, struct error *err)
{
    for (const char *c = access ? access : "rwm"; *c; c++) {
        if (*c == 'r')
            ret->read = true;
        else if (*c == 'w')
            ret->write = true;
        else if (*c == 'm')
            ret->mknod = true;
        else if (*c != 'a') /* runc takes "rwa", and the a for nothing */
            return error_set(err, -EINVAL, "access: '%s' holds more than r, w and m", access);
    }
    return 0;
}

static int take_rule(const struct oci_device_rule *rule, struct device_rule *ret, struct error *err)
{
    *ret = (struct device_rule){
        .allow = rule->allow,
        .type = rule->type ? rule->type[0] : 'a',
        .major = rule->has_major ? rule->major : -1,
        .minor = rule->has_minor ? rule->minor : -1,
    };
    if (ret->type == 'u' || ret->type == 'p')
        return error_set(err, -EINVAL, "type: '%s' is no device that a cgroup controls",
                         rule->type);
    if (ret->major < -1 || ret->major > UINT32_MAX >> 1)
        return error_set(err, -EINVAL, "major: out of range");
    if (ret->minor < -1 || ret->minor > UINT32_MAX >> 1)
        return error_set(err, -EINVAL, "minor: out of range");
    int r = take_access(rule->access, ret, err);
    if (r < 0)
        return r;
    /* v1 takes "a" as all of everything, whatever else the rule says (devices.rst). */
    if (ret->type == 'a' &&
        (ret->major >= 0 || ret->minor >= 0 || !ret->read || !ret->write || !ret->mknod))
        return error_set(err, -ENOTSUP,
                         "a rule for all types with single numbers or accesses is not supported");
    return 0;
}

int device_rules(const struct oci_resources *resources, struct device_rule **ret, size_t *ret_count,
                 struct error *err)
{
    size_t count = resources ? resources->devices_count : 0, next = 0;

    if (count > DEVICE_RULES_MAX)
        return error_set(err, -E2BIG, "linux.resources.devices: more than %d rules",
                         DEVICE_RULES_MAX);
    _cleanup_free_ struct device_rule *rules =
        xnew_array(struct device_rule, 1 + count + ARRAY_SIZE(default_rules));
    rules[next++] = (struct device_rule){false, 'a', -1, -1, true, true, true};
    for (size_t i = 0; i < count; i++, next++) {
        int r = take_rule(resources->devices[i], &rules[next], err);
        if (r < 0) {
            error_context(err, "linux.resources.devices[%zu]", i);
            return r;
        }
    }
    memcpy(rules + next, default_rules, sizeof(default_rules));
    *ret = steal_ptr(rules);
    *ret_count = next + ARRAY_SIZE(default_rules);
    return 0;
}
