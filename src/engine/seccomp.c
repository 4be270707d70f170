#include "seccomp.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/utsname.h>

#include <base/text.h>
#include <schema/seccomp_profile.h>

#include "bundle_json.h"

#ifdef __x86_64__
#define ARCHITECTURE "SCMP_ARCH_X86_64"
static const char *const go_names[] = {"amd64", "x86", "x32"};
#elif defined(__aarch64__)
#define ARCHITECTURE "SCMP_ARCH_AARCH64"
static const char *const go_names[] = {"arm64", "arm"};
#else
#define ARCHITECTURE ""
static const char *const go_names[] = {""};
#endif

static bool is_ours(const char *architecture)
{
    return text_equal(architecture, go_names[0]);
}

static bool kernel_is_at_least(const char *wanted)
{
    struct utsname name;
    unsigned a = 0, b = 0, major = 0, minor = 0;

    if (uname(&name) < 0 || sscanf(wanted, "%u.%u", &a, &b) < 1 ||
        sscanf(name.release, "%u.%u", &major, &minor) < 1)
        return false;
    return major > a || (major == a && minor >= b);
}

static bool any_architecture(const struct seccomp_condition *condition)
{
    for (size_t i = 0; i < condition->arches_count; i++) {
        if (is_ours(condition->arches[i]))
            return true;
    }
    return false;
}

static size_t capabilities_held(const struct seccomp_condition *condition,
                                char *const *capabilities)
{
    size_t held = 0;

    for (size_t i = 0; i < condition->caps_count; i++)
        held += strv_contains(capabilities, condition->caps[i]);
    return held;
}

/* As dockerd reads them: all that `includes` lists must hold, and nothing that `excludes` lists. */
static bool counts(const struct seccomp_rule *rule, char *const *capabilities)
{
    const struct seccomp_condition *in = rule->includes, *out = rule->excludes;

    if (out && (any_architecture(out) || capabilities_held(out, capabilities) > 0 ||
                (out->min_kernel && kernel_is_at_least(out->min_kernel))))
        return false;
    if (!in)
        return true;
    return (in->arches_count == 0 || any_architecture(in)) &&
           capabilities_held(in, capabilities) == in->caps_count &&
           (!in->min_kernel || kernel_is_at_least(in->min_kernel));
}

static void put_unsigned(struct json_writer *writer, const char *key, uint64_t value)
{
    json_writer_key(writer, key);
    json_writer_unsigned(writer, value);
}

static void put_arguments(struct json_writer *writer, const struct seccomp_rule *rule)
{
    begin_array(writer, "args");
    for (size_t i = 0; i < rule->args_count; i++) {
        const struct seccomp_argument *argument = rule->args[i];
        json_writer_object_begin(writer);
        put_unsigned(writer, "index", argument->index);
        put_unsigned(writer, "value", argument->value);
        if (argument->has_value_two)
            put_unsigned(writer, "valueTwo", argument->value_two);
        put_string(writer, "op", argument->op);
        json_writer_object_end(writer);
    }
    json_writer_array_end(writer);
}

static void put_rule(struct json_writer *writer, const struct seccomp_rule *rule)
{
    const char *const one[] = {rule->name, NULL};

    json_writer_object_begin(writer);
    if (rule->names_count)
        put_strv(writer, "names", rule->names);
    else
        put_strings(writer, "names", one, 1);
    put_string(writer, "action", rule->action);
    if (rule->has_errno_ret)
        put_unsigned(writer, "errnoRet", rule->errno_ret);
    if (rule->args_count)
        put_arguments(writer, rule);
    json_writer_object_end(writer);
}

static void put_architectures(struct json_writer *writer, const struct seccomp_profile *profile)
{
    if (profile->architectures_count) {
        put_strv(writer, "architectures", profile->architectures);
        return;
    }
    for (size_t i = 0; i < profile->arch_map_count; i++) {
        const struct seccomp_architecture *entry = profile->arch_map[i];
        if (!text_equal(entry->architecture, ARCHITECTURE))
            continue;
        begin_array(writer, "architectures");
        json_writer_string(writer, entry->architecture);
        for (size_t j = 0; j < entry->sub_architectures_count; j++)
            json_writer_string(writer, entry->sub_architectures[j]);
        json_writer_array_end(writer);
        return;
    }
}

static int check(const struct seccomp_profile *profile, struct error *err)
{
    if (profile->architectures_count && profile->arch_map_count)
        return error_set(err, -EINVAL,
                         "'architectures' and 'archMap' were specified in the seccomp profile, use "
                         "either 'architectures' or 'archMap'");
    if (profile->syscalls_count > SECCOMP_RULES_MAX)
        return error_set(err, -EINVAL, "a seccomp profile of more than %d rules",
                         SECCOMP_RULES_MAX);
    for (size_t i = 0; i < profile->syscalls_count; i++) {
        const struct seccomp_rule *rule = profile->syscalls[i];
        if (rule->name && rule->names_count)
            return error_set(err, -EINVAL,
                             "'name' and 'names' were specified in the seccomp profile, use either "
                             "'name' or 'names'");
        if (!rule->name && !rule->names_count)
            return error_set(err, -EINVAL, "rule %zu of the seccomp profile names no system call",
                             i + 1);
    }
    return 0;
}

int seccomp_resolve(const char *text, char *const *capabilities, struct buffer *out,
                    struct error *err)
{
    _cleanup_seccomp_profile_ struct seccomp_profile *profile = NULL;
    struct json_writer writer;
    int r;

    r = seccomp_profile_parse(text, strlen(text), "seccomp profile", &profile, err);
    if (r == 0)
        r = check(profile, err);
    if (r < 0)
        return -EINVAL;
    json_writer_init(&writer, out, JSON_COMPACT);
    json_writer_object_begin(&writer);
    put_string(&writer, "defaultAction", profile->default_action);
    if (profile->has_default_errno_ret)
        put_unsigned(&writer, "defaultErrnoRet", profile->default_errno_ret);
    put_architectures(&writer, profile);
    if (profile->flags)
        put_strv(&writer, "flags", profile->flags);
    if (profile->listener_path)
        put_string(&writer, "listenerPath", profile->listener_path);
    if (profile->listener_metadata)
        put_string(&writer, "listenerMetadata", profile->listener_metadata);
    begin_array(&writer, "syscalls");
    for (size_t i = 0; i < profile->syscalls_count; i++) {
        if (counts(profile->syscalls[i], capabilities))
            put_rule(&writer, profile->syscalls[i]);
    }
    json_writer_array_end(&writer);
    json_writer_object_end(&writer);
    return 0;
}
