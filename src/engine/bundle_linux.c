/*
 * linux of config.json: namespaces, resources, devices, filters.
 */
#include <stdio.h>
#include <string.h>

#include <base/alloc.h>
#include <base/text.h>

#include "bundle_internal.h"
#include "devices.h"
#include "seccomp_profile.h"

/* --- devices ---------------------------------------------------------------------------------- */

/* Everything is denied first; nodes may be made of any device, but only these be opened. */
static const struct device_rule {
    char type;
    int64_t major; /* -1: any */
    int64_t minor;
    const char *access;
} device_rules[] = {
    {'c', -1, -1, "m"}, {'b', -1, -1, "m"},    {'c', 1, 3, "rwm"}, {'c', 1, 5, "rwm"},
    {'c', 1, 7, "rwm"}, {'c', 1, 8, "rwm"},    {'c', 1, 9, "rwm"}, {'c', 5, 0, "rwm"},
    {'c', 5, 2, "rwm"}, {'c', 136, -1, "rwm"},
};

static void put_device_rule(struct json_writer *writer, const struct device_rule *rule)
{
    const char type[] = {rule->type, '\0'};

    json_writer_object_begin(writer);
    put_boolean(writer, "allow", true);
    put_string(writer, "type", type);
    if (rule->major >= 0)
        put_integer(writer, "major", rule->major);
    if (rule->minor >= 0)
        put_integer(writer, "minor", rule->minor);
    put_string(writer, "access", rule->access);
    json_writer_object_end(writer);
}

static void put_asked_rule(struct json_writer *writer, const char *text)
{
    char access[DEVICE_ACCESS_MAX + 1];
    struct device_rule rule = {.access = access};

    if (device_rule_parse(text, &rule.type, &rule.major, &rule.minor, access, NULL) == 0)
        put_device_rule(writer, &rule);
}

static void put_device_rules(struct json_writer *writer, const struct bundle_facts *facts)
{
    const struct api_container_spec *spec = facts->effective;

    begin_array(writer, "devices");
    json_writer_object_begin(writer);
    put_boolean(writer, "allow", spec->privileged);
    put_string(writer, "access", "rwm");
    json_writer_object_end(writer);
    for (size_t i = 0; i < ARRAY_SIZE(device_rules) && !spec->privileged; i++)
        put_device_rule(writer, &device_rules[i]);
    for (size_t i = 0; i < facts->devices_count && !spec->privileged; i++) {
        const struct bundle_device *device = &facts->devices[i];
        const struct device_rule rule = {device->type, device->major, device->minor,
                                         device->access};
        put_device_rule(writer, &rule);
    }
    for (size_t i = 0; i < spec->device_cgroup_rules_count && !spec->privileged; i++)
        put_asked_rule(writer, spec->device_cgroup_rules[i]);
    json_writer_array_end(writer);
}

static void put_device_nodes(struct json_writer *writer, const struct bundle_facts *facts)
{
    if (facts->devices_count == 0 || facts->users) /* then they are bound: bundle_mounts.c */
        return;
    begin_array(writer, "devices");
    for (size_t i = 0; i < facts->devices_count; i++) {
        const struct bundle_device *device = &facts->devices[i];
        const char type[] = {device->type, '\0'};
        json_writer_object_begin(writer);
        put_string(writer, "path", device->path);
        put_string(writer, "type", type);
        put_integer(writer, "major", device->major);
        put_integer(writer, "minor", device->minor);
        put_integer(writer, "fileMode", device->mode);
        put_integer(writer, "uid", device->uid);
        put_integer(writer, "gid", device->gid);
        json_writer_object_end(writer);
    }
    json_writer_array_end(writer);
}

/* --- namespaces ------------------------------------------------------------------------------- */

static void put_namespace(struct json_writer *writer, const char *type,
                          const struct bundle_namespace *place)
{
    if (place->kind == BUNDLE_HOST)
        return;
    json_writer_object_begin(writer);
    put_string(writer, "type", type);
    if (place->kind == BUNDLE_JOINED)
        put_string(writer, "path", place->path);
    json_writer_object_end(writer);
}

static void put_namespaces(struct json_writer *writer, const struct bundle_facts *facts)
{
    static const struct bundle_namespace own = {BUNDLE_OWN, NULL};

    begin_array(writer, "namespaces");
    put_namespace(writer, "mount", &own);
    put_namespace(writer, "uts", &facts->uts);
    put_namespace(writer, "pid", &facts->pid);
    put_namespace(writer, "ipc", &facts->ipc);
    put_namespace(writer, "network", &facts->network);
    put_namespace(writer, "cgroup", &facts->cgroup);
    if (facts->users)
        put_namespace(writer, "user", &(struct bundle_namespace){BUNDLE_JOINED, facts->users_path});
    json_writer_array_end(writer);
}

static void put_mapping(struct json_writer *writer, const char *key,
                        struct api_id_range *const *ranges, size_t count)
{
    begin_array(writer, key);
    for (size_t i = 0; i < count; i++) {
        json_writer_object_begin(writer);
        put_integer(writer, "containerID", ranges[i]->container_id);
        put_integer(writer, "hostID", ranges[i]->host_id);
        put_integer(writer, "size", ranges[i]->size);
        json_writer_object_end(writer);
    }
    json_writer_array_end(writer);
}

static void put_mappings(struct json_writer *writer, const struct api_id_mappings *users)
{
    if (!users)
        return;
    put_mapping(writer, "uidMappings", users->uids, users->uids_count);
    put_mapping(writer, "gidMappings", users->gids, users->gids_count);
}

/* All groups of the container that follow one another from 0 on: the kernel refuses others. */
static char *group_range(const struct api_id_mappings *users)
{
    uint32_t last = INT32_MAX;

    for (size_t i = 0; users && i < users->gids_count; i++) {
        if (users->gids[i]->container_id == 0 && users->gids[i]->size <= INT32_MAX)
            last = users->gids[i]->size - 1;
    }
    return xasprintf("0 %u", last);
}

/* In a network namespace of its own a container may listen on any port and send ICMP echo
 * requests, whatever its user. */
static void put_sysctl(struct json_writer *writer, const struct bundle_facts *facts)
{
    _cleanup_free_ char *groups = group_range(facts->users);
    const struct {
        const char *name, *value;
    } defaults[] = {
        {"net.ipv4.ip_unprivileged_port_start", "0"},
        /* The range of an ordinary user has 65536 groups at least. */
        {"net.ipv4.ping_group_range", facts->rootless ? "0 65535" : groups},
    };
    const struct json_string_map *asked = facts->effective->sysctls;

    begin_object(writer, "sysctl");
    for (size_t i = 0; i < ARRAY_SIZE(defaults) && facts->network.kind != BUNDLE_HOST; i++) {
        if (!json_string_map_get(asked, defaults[i].name))
            put_string(writer, defaults[i].name, defaults[i].value);
    }
    for (size_t i = 0; asked && i < asked->count; i++)
        put_string(writer, asked->keys[i], asked->values[i]);
    json_writer_object_end(writer);
}

/* --- filters ---------------------------------------------------------------------------------- */

static void put_seccomp(struct json_writer *writer, const struct bundle_context *context)
{
    if (context->security.seccomp_unconfined)
        return;
    json_writer_key(writer, "seccomp");
    json_writer_raw(writer, context->seccomp->length ? context->seccomp->data : seccomp_default);
}

static void put_paths(struct json_writer *writer, const struct bundle_context *context)
{
    const struct api_container_spec *spec = context->facts->effective;
    char *const *masked = security_masked_paths(spec);
    char *const *readonly = security_readonly_paths(spec);

    if (masked)
        put_strv(writer, "maskedPaths", masked);
    if (readonly)
        put_strv(writer, "readonlyPaths", readonly);
}

/* The root must let through what a mount in it lets through. */
static void put_propagation(struct json_writer *writer, const struct api_container_spec *spec)
{
    const char *wanted = NULL;

    for (size_t i = 0; i < spec->mounts_count; i++) {
        const struct api_bind_options *how = spec->mounts[i]->bind_options;
        if (!how || text_empty(how->propagation))
            continue;
        if (text_ends_with(how->propagation, "shared"))
            wanted = "shared";
        else if (text_ends_with(how->propagation, "slave") && !wanted)
            wanted = "rslave";
    }
    if (wanted)
        put_string(writer, "rootfsPropagation", wanted);
}

void bundle_put_linux(struct json_writer *writer, const struct bundle_context *context)
{
    const struct bundle_facts *facts = context->facts;
    const char *parent = facts->cgroup_parent ? facts->cgroup_parent : "";
    _cleanup_free_ char *cgroup = xasprintf("/%s/%s", parent, facts->id);

    begin_object(writer, "linux");
    put_sysctl(writer, facts);
    begin_object(writer, "resources");
    put_device_rules(writer, facts);
    if (facts->effective->resources && facts->cgroup_parent)
        bundle_put_limits(writer, facts->effective->resources, facts->limits, facts->limits_count);
    json_writer_object_end(writer);
    if (facts->cgroup_parent)
        put_string(writer, "cgroupsPath", cgroup);
    put_namespaces(writer, facts);
    put_mappings(writer, facts->users);
    put_device_nodes(writer, facts);
    put_seccomp(writer, context);
    put_paths(writer, context);
    put_propagation(writer, facts->effective);
    json_writer_object_end(writer);
}
