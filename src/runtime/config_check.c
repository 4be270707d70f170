#include <errno.h>
#include <limits.h>
#include <string.h>
#include <unistd.h>

#include <base/text.h>

#include "attributes.h"
#include "cgroup_resources.h"
#include "annotations.h"
#include "config_check.h"
#include "environment.h"
#include "filter.h"
#include "intel_rdt.h"

enum {
    ARGUMENTS_MAX = 1 << 20,
    ID_MAPPINGS_MAX = 340,    /* user_namespaces(7) */
    DEVICE_MAJOR_MAX = 0xfff, /* linux/kdev_t.h */
    DEVICE_MINOR_MAX = 0xfffff,
};

int config_check_process(const struct oci_process *process, struct error *err)
{
    if (!text_empty(process->command_line))
        return error_set(err, -EINVAL, "process.commandLine is for Windows");
    if (process->args_count > ARGUMENTS_MAX || process->env_count > ARGUMENTS_MAX)
        return error_set(err, -E2BIG, "process: more than %d arguments or variables",
                         ARGUMENTS_MAX);
    if (process->args_count == 0)
        return error_set(err, -EINVAL, "process.args must not be empty");
    if (process->cwd[0] != '/')
        return error_set(err, -EINVAL, "process.cwd: '%s': Cwd must be an absolute path",
                         process->cwd);
    int r = environment_check("process.env", process->env, process->env_count, err);
    return r < 0 ? r : attributes_check(process, err);
}

static bool is_own(const struct oci_linux *config, const char *type, bool new_only)
{
    for (size_t i = 0; config && i < config->namespaces_count; i++) {
        if (text_equal(config->namespaces[i]->type, type))
            return !new_only || text_empty(config->namespaces[i]->path);
    }
    return false;
}

/* Everybody is who they are: what is so without a user namespace, too. Some callers write it down.
 */
static bool is_identity(struct oci_id_mapping *const *map, size_t count)
{
    return count == 0 || (count == 1 && map[0]->container_id == 0 && map[0]->host_id == 0 &&
                          map[0]->size == UINT32_MAX);
}

/* An ordinary user can do next to nothing outside of a user namespace. */
static int check_unprivileged(const struct oci_linux *config, struct error *err)
{
    if (geteuid() == 0)
        return 0;
    if (!is_own(config, "user", false))
        return error_set(
            err, -EINVAL,
            "linux.namespaces: rootless container requires user namespaces: add {\"type\": "
            "\"user\"} with linux.uidMappings and linux.gidMappings (spec --rootless writes such a "
            "config.json)");
    if (!is_own(config, "mount", false))
        return error_set(err, -EINVAL,
                         "linux.namespaces: only root mounts in the host's mount namespace: add "
                         "{\"type\": \"mount\"}");
    return 0;
}

static int check_users(const struct oci_linux *config, struct error *err)
{
    bool mapped = !is_identity(config->uid_mappings, config->uid_mappings_count) ||
                  !is_identity(config->gid_mappings, config->gid_mappings_count);

    if (config->uid_mappings_count > ID_MAPPINGS_MAX ||
        config->gid_mappings_count > ID_MAPPINGS_MAX)
        return error_set(err, -E2BIG, "linux.uidMappings: more than %d", ID_MAPPINGS_MAX);
    if (is_own(config, "user", true) &&
        (!config->uid_mappings_count || !config->gid_mappings_count))
        return error_set(err, -EINVAL, "linux.%s: a new user namespace needs mappings",
                         config->uid_mappings_count ? "gidMappings" : "uidMappings");
    if (mapped && !is_own(config, "user", false))
        return error_set(err, -EINVAL, "linux.%s: there is no user namespace in linux.namespaces",
                         config->uid_mappings_count ? "uidMappings" : "gidMappings");
    if (config->time_offsets && config->time_offsets->count && !is_own(config, "time", true))
        return error_set(err, -EINVAL, "linux.timeOffsets: needs a new time namespace");
    return 0;
}

/* Masks would be on the host. */
static int check_mount_namespace(const struct oci_linux *linux, struct error *err)
{
    if (is_own(linux, "mount", false) ||
        (!linux->masked_paths_count && !linux->readonly_paths_count))
        return 0;
    return error_set(err, -EINVAL,
                     "linux.%s: unable to restrict sys entries without a private MNT namespace",
                     linux->masked_paths_count ? "maskedPaths" : "readonlyPaths");
}

/* The kernel would take such a number modulo 2^32, for another device. */
static int check_throttles(const char *field, struct oci_throttle_device *const *devices,
                           size_t count, struct error *err)
{
    for (size_t i = 0; i < count; i++) {
        if (devices[i]->major < 0 || devices[i]->major > DEVICE_MAJOR_MAX ||
            devices[i]->minor < 0 || devices[i]->minor > DEVICE_MINOR_MAX)
            return error_set(err, -EINVAL,
                             "linux.resources.blockIO.%s[%zu]: major and minor must be numbers of "
                             "a device",
                             field, i);
    }
    return 0;
}

static int check_block_io(const struct oci_block_io *io, struct error *err)
{
    struct throttle_list lists[THROTTLE_LISTS];
    int r = 0;

    resource_throttle_lists(io, lists);
    for (size_t i = 0; r == 0 && i < THROTTLE_LISTS; i++)
        r = check_throttles(lists[i].field, lists[i].devices, lists[i].count, err);
    for (size_t i = 0; r == 0 && i < io->weight_device_count; i++) {
        const struct oci_weight_device *device = io->weight_device[i];
        if (device->major < 0 || device->major > DEVICE_MAJOR_MAX || device->minor < 0 ||
            device->minor > DEVICE_MINOR_MAX)
            r = error_set(err, -EINVAL,
                          "linux.resources.blockIO.weightDevice[%zu]: major and minor must be "
                          "numbers of a device",
                          i);
        else if (!device->has_weight && !device->has_leaf_weight)
            r = error_set(err, -EINVAL,
                          "linux.resources.blockIO.weightDevice[%zu]: needs weight or leafWeight",
                          i);
    }
    return r;
}

static int check_rdma(const struct oci_rdma *rdma, struct error *err)
{
    for (size_t i = 0; rdma && i < rdma->count; i++) {
        const struct oci_rdma_limit *limit = rdma->values[i];
        if (!limit->has_hca_handles && !limit->has_hca_objects)
            return error_set(err, -EINVAL,
                             "linux.resources.rdma.%s: needs hcaHandles or hcaObjects",
                             rdma->keys[i]);
    }
    return 0;
}

int config_check_resources(const struct oci_resources *resources, struct error *err)
{
    int r = resources->block_io ? check_block_io(resources->block_io, err) : 0;

    return r < 0 ? r : check_rdma(resources->rdma, err);
}

static int check_linux(const struct oci_config *config, struct error *err)
{
    const struct oci_linux *linux = config->linux;

    int r = check_unprivileged(linux, err);
    if (r == 0)
        r = check_users(linux, err);
    if (r == 0)
        r = attributes_check_linux(linux, err);
    if (r == 0)
        r = filter_check(linux->seccomp, err);
    if (r == 0)
        r = intel_rdt_check(linux->intel_rdt, err);
    if (r == 0 && linux->resources)
        r = config_check_resources(linux->resources, err);
    return r < 0 ? r : check_mount_namespace(linux, err);
}

/* Before anything is done: poststart and poststop would be too late to tell (config.md, "POSIX-
 * platform Hooks"). */
static int check_hooks(const struct oci_hooks *hooks, struct error *err)
{
    const struct {
        const char *name;
        struct oci_hook *const *list;
        size_t count;
    } kinds[] = {
        {"prestart", hooks->prestart, hooks->prestart_count},
        {"createRuntime", hooks->create_runtime, hooks->create_runtime_count},
        {"createContainer", hooks->create_container, hooks->create_container_count},
        {"startContainer", hooks->start_container, hooks->start_container_count},
        {"poststart", hooks->poststart, hooks->poststart_count},
        {"poststop", hooks->poststop, hooks->poststop_count},
    };

    for (size_t i = 0; i < ARRAY_SIZE(kinds); i++) {
        for (size_t k = 0; k < kinds[i].count; k++) {
            const struct oci_hook *hook = kinds[i].list[k];
            if (hook->path[0] != '/')
                return error_set(err, -EINVAL, "hooks.%s[%zu].path: '%s' is not absolute",
                                 kinds[i].name, k, hook->path);
            if (hook->has_timeout && hook->timeout <= 0)
                return error_set(err, -EINVAL, "hooks.%s[%zu].timeout: must be more than 0",
                                 kinds[i].name, k);
        }
    }
    return 0;
}

static int check_platform(const struct oci_config *config, struct error *err)
{
    const struct {
        const char *name;
        const void *value;
    } others[] = {
        {"windows", config->windows}, {"solaris", config->solaris}, {"vm", config->vm},
        {"zos", config->zos},         {"freebsd", config->freebsd},
    };

    for (size_t i = 0; i < ARRAY_SIZE(others); i++) {
        if (others[i].value)
            return error_set(err, -ENOTSUP, "%s is not supported: this is a runtime for Linux",
                             others[i].name);
    }
    return 0;
}

static int check_name(const char *field, const char *value, const struct oci_config *config,
                      struct error *err)
{
    enum { NAME_MAX_LENGTH = 64 }; /* __NEW_UTS_LEN */

    if (text_empty(value))
        return 0;
    if (strlen(value) > NAME_MAX_LENGTH)
        return error_set(err, -EINVAL, "%s: longer than %d bytes", field, NAME_MAX_LENGTH);
    if (!is_own(config->linux, "uts", false))
        return error_set(err, -EINVAL, "%s: cannot be set without a UTS namespace", field);
    return 0;
}

int config_check(const struct oci_config *config, struct error *err)
{
    if (!text_starts_with(config->oci_version, "1."))
        return error_set(err, -ENOTSUP, "ociVersion: '%s' is not a version 1", config->oci_version);
    if (!config->process)
        return error_set(err, -EINVAL, "process: missing");
    if (!config->root)
        return error_set(err, -EINVAL, "root: missing");
    if (text_empty(config->root->path))
        return error_set(err, -EINVAL, "root.path: must not be empty");
    int r = check_platform(config, err);
    if (r == 0)
        r = config_check_process(config->process, err);
    if (r == 0)
        r = check_name("hostname", config->hostname, config, err);
    if (r == 0)
        r = check_name("domainname", config->domainname, config, err);
    if (r == 0)
        r = check_linux(config, err);
    if (r == 0 && config->hooks)
        r = check_hooks(config->hooks, err);
    return r < 0 ? r : annotations_check(config, err);
}
