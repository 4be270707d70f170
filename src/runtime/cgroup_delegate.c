#include <stdint.h>

#include <schema/oci_config.h>

#include <base/text.h>

#include "cgroup.h"

static bool has_own_namespace(const struct oci_linux *config)
{
    for (size_t i = 0; config && i < config->namespaces_count; i++) {
        if (text_equal(config->namespaces[i]->type, "cgroup"))
            return text_empty(config->namespaces[i]->path);
    }
    return false;
}

/* As runc: the mount at /sys/fs/cgroup itself, of type cgroup. */
static bool is_writable_inside(const struct oci_config *config)
{
    bool writable = false;

    for (size_t i = 0; i < config->mounts_count; i++) {
        const struct oci_mount *mount = config->mounts[i];
        if (text_equal(mount->destination, CGROUP_MOUNT) &&
            (text_equal(mount->type, "cgroup") || text_equal(mount->type, "cgroup2")))
            writable = !strv_contains(mount->options, "ro");
    }
    return writable;
}

/* The container's user as the host has it; -1 when it is not mapped. */
static int64_t host_user(const struct oci_config *config)
{
    const struct oci_linux *linux = config->linux;
    uint32_t uid = config->process->user ? config->process->user->uid : 0;

    if (!linux->uid_mappings_count)
        return uid;
    for (size_t i = 0; i < linux->uid_mappings_count; i++) {
        const struct oci_id_mapping *map = linux->uid_mappings[i];
        if (uid >= map->container_id && uid - map->container_id < map->size)
            return (int64_t)map->host_id + (uid - map->container_id);
    }
    return -1;
}

int cgroup_delegate(struct cgroup *cgroup, const struct oci_config *config, struct error *err)
{
    if (!has_own_namespace(config->linux) || !is_writable_inside(config))
        return 0;
    return cgroup_delegate_to(cgroup, config, err);
}

int cgroup_delegate_to(struct cgroup *cgroup, const struct oci_config *config, struct error *err)
{
    int64_t uid = host_user(config);

    return uid <= 0 ? 0 : cgroup->ops->delegate(cgroup, (uid_t)uid, err);
}
