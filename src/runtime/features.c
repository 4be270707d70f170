/*
 * What `features` prints (runtime-spec features.md), from the tables that the code itself goes by.
 */
#include <ctype.h>
#include <linux/capability.h>
#include <seccomp.h>
#include <string.h>

#include <runtime/runtime.h>
#include <schema/json.h>

#include <base/alloc.h>
#include <base/text.h>

#include "annotations.h"
#include "attributes.h"
#include "capabilities.h"
#include "filter.h"
#include "hooks.h"
#include "mount_options.h"
#include "namespaces.h"

static void write_string(struct json_writer *writer, const char *key, const char *value)
{
    json_writer_key(writer, key);
    json_writer_string(writer, value);
}

static void write_flag(struct json_writer *writer, const char *key, bool value)
{
    json_writer_key(writer, key);
    json_writer_boolean(writer, value);
}

static void begin_object(struct json_writer *writer, const char *key)
{
    json_writer_key(writer, key);
    json_writer_object_begin(writer);
}

static void begin_array(struct json_writer *writer, const char *key)
{
    json_writer_key(writer, key);
    json_writer_array_begin(writer);
}

/* {"enabled": true} */
static void write_enabled(struct json_writer *writer, const char *key, bool value)
{
    begin_object(writer, key);
    write_flag(writer, "enabled", value);
    json_writer_object_end(writer);
}

static void write_names(struct json_writer *writer, const char *key, char *const *names)
{
    begin_array(writer, key);
    for (; *names; names++)
        json_writer_string(writer, *names);
    json_writer_array_end(writer);
}

static int compare_names(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

static void write_namespaces(struct json_writer *writer)
{
    const char *names[NAMESPACES_COUNT + 1] = {NULL};

    for (size_t i = 0; i < NAMESPACES_COUNT; i++)
        names[i] = namespace_kinds[i].name;
    qsort(names, NAMESPACES_COUNT, sizeof(*names), compare_names);
    write_names(writer, "namespaces", (char *const *)names);
}

static void write_capabilities(struct json_writer *writer)
{
    begin_array(writer, "capabilities");
    for (int i = 0; i <= CAP_LAST_CAP; i++) {
        _cleanup_free_ char *name = capability_name(i);
        json_writer_string(writer, name);
    }
    json_writer_array_end(writer);
}

static void write_cgroup(struct json_writer *writer)
{
    begin_object(writer, "cgroup");
    write_flag(writer, "v1", true);
    write_flag(writer, "v2", true);
    write_flag(writer, "systemd", CLOCHE_SYSTEMD);
    write_flag(writer, "systemdUser", CLOCHE_SYSTEMD);
    write_flag(writer, "rdma", true);
    json_writer_object_end(writer);
}

static void write_filter_names(struct json_writer *writer, const char *key, enum filter_names kind)
{
    const char *name;

    begin_array(writer, key);
    for (size_t i = 0; (name = filter_name(kind, i)); i++)
        json_writer_string(writer, name);
    json_writer_array_end(writer);
}

static void write_seccomp(struct json_writer *writer)
{
    const char *name;

    begin_object(writer, "seccomp");
    write_flag(writer, "enabled", true);
    write_filter_names(writer, "actions", FILTER_ACTIONS);
    write_filter_names(writer, "operators", FILTER_OPERATORS);
    write_filter_names(writer, "archs", FILTER_ARCHITECTURES);
    write_filter_names(writer, "knownFlags", FILTER_FLAGS);
    begin_array(writer, "supportedFlags");
    for (size_t i = 0; (name = filter_name(FILTER_FLAGS, i)); i++) {
        if (filter_flag_is_supported(i))
            json_writer_string(writer, name);
    }
    json_writer_array_end(writer);
    json_writer_object_end(writer);
}

static void write_memory_policy(struct json_writer *writer)
{
    const char *name;

    begin_object(writer, "memoryPolicy");
    begin_array(writer, "modes");
    for (size_t i = 0; (name = attributes_memory_mode(i)); i++)
        json_writer_string(writer, name);
    json_writer_array_end(writer);
    begin_array(writer, "flags");
    for (size_t i = 0; (name = attributes_memory_flag(i)); i++)
        json_writer_string(writer, name);
    json_writer_array_end(writer);
    json_writer_object_end(writer);
}

static void write_intel_rdt(struct json_writer *writer)
{
    begin_object(writer, "intelRdt");
    write_flag(writer, "enabled", true);
    write_flag(writer, "schemata", true);
    write_flag(writer, "monitoring", true);
    json_writer_object_end(writer);
}

static void write_linux(struct json_writer *writer)
{
    begin_object(writer, "linux");
    write_namespaces(writer);
    write_capabilities(writer);
    write_cgroup(writer);
    write_seccomp(writer);
    write_enabled(writer, "apparmor", true);
    write_enabled(writer, "selinux", true);
    write_intel_rdt(writer);
    write_memory_policy(writer);
    begin_object(writer, "mountExtensions");
    write_enabled(writer, "idmap", true);
    json_writer_object_end(writer);
    write_enabled(writer, "netDevices", true);
    json_writer_object_end(writer);
}

static void write_annotations(struct json_writer *writer)
{
    const struct scmp_version *version = seccomp_version();
    _cleanup_free_ char *text =
        xasprintf("%u.%u.%u", version->major, version->minor, version->micro);

    begin_object(writer, "annotations");
    write_string(writer, "io.github.seccomp.libseccomp.version", text);
    write_string(writer, "org.opencontainers.runc.checkpoint.enabled", "true");
    json_writer_object_end(writer);
}

void runtime_features_write(struct buffer *out)
{
    const char *options[MOUNT_OPTION_NAMES_MAX + 1] = {NULL};
    struct json_writer writer;

    mount_options_names(options);
    json_writer_init(&writer, out, JSON_PRETTY);
    json_writer_object_begin(&writer);
    write_string(&writer, "ociVersionMin", "1.0.0");
    write_string(&writer, "ociVersionMax", RUNTIME_SPEC_VERSION);
    write_names(&writer, "hooks", hook_kinds);
    write_names(&writer, "mountOptions", (char *const *)options);
    write_linux(&writer);
    write_annotations(&writer);
    write_names(&writer, "potentiallyUnsafeConfigAnnotations", annotation_names);
    json_writer_object_end(&writer);
}
