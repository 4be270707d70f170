/*
 * HostConfig: what a container was given of the machine, in docker's words. What was not asked for
 * has docker's empty value.
 */
#include <base/alloc.h>
#include <base/text.h>

#include "fields.h"
#include "inspect.h"

const char *inspect_network_mode(const struct api_container_details *container)
{
    return text_empty(container->network->mode) ? "bridge" : container->network->mode;
}

/* null for none. */
static void write_words(struct json_writer *writer, const char *key, char *const *words)
{
    field_list(writer, key, words && *words ? words : NULL);
}

/* [] for none. */
static void write_list(struct json_writer *writer, const char *key, char *const *words)
{
    static char *const none[] = {NULL};

    field_list(writer, key, words ? words : none);
}

static void write_map_if(struct json_writer *writer, const char *key,
                         const struct json_string_map *map)
{
    if (map && map->count)
        field_map(writer, key, map);
}

/* ---- mounts ---- */

static void write_binds(struct json_writer *writer, const struct api_container_spec *spec)
{
    _cleanup_strv_ char **binds = NULL;

    for (size_t i = 0; i < spec->binds_count; i++) {
        const struct api_bind *bind = spec->binds[i];
        _cleanup_free_ char *options = inspect_bind_options(bind);
        strv_take(&binds, xasprintf("%s:%s%s%s", bind->source, bind->target, options[0] ? ":" : "",
                                    options));
    }
    field_list(writer, "Binds", binds);
}

static void write_mount_options(struct json_writer *writer, const struct api_mount *mount)
{
    if (mount->bind_options) {
        field_object_begin(writer, "BindOptions");
        if (mount->bind_options->propagation)
            field_text(writer, "Propagation", mount->bind_options->propagation);
        if (mount->bind_options->non_recursive)
            field_boolean(writer, "NonRecursive", true);
        json_writer_object_end(writer);
    }
    if (mount->volume_options) {
        field_object_begin(writer, "VolumeOptions");
        if (mount->volume_options->no_copy)
            field_boolean(writer, "NoCopy", true);
        write_map_if(writer, "Labels", mount->volume_options->labels);
        json_writer_object_end(writer);
    }
    if (mount->tmpfs_options) {
        field_object_begin(writer, "TmpfsOptions");
        if (mount->tmpfs_options->has_size_bytes)
            field_unsigned(writer, "SizeBytes", mount->tmpfs_options->size_bytes);
        if (mount->tmpfs_options->has_mode)
            field_unsigned(writer, "Mode", mount->tmpfs_options->mode);
        json_writer_object_end(writer);
    }
}

/* As they were asked for: the merged specification has all kinds of mounts there. */
static void write_mounts(struct json_writer *writer, const struct api_container_spec *spec)
{
    if (!spec->mounts_count)
        return;
    json_writer_key(writer, "Mounts");
    json_writer_array_begin(writer);
    for (size_t i = 0; i < spec->mounts_count; i++) {
        json_writer_object_begin(writer);
        field_text(writer, "Type", spec->mounts[i]->type);
        if (spec->mounts[i]->source)
            field_text(writer, "Source", spec->mounts[i]->source);
        field_text(writer, "Target", spec->mounts[i]->target);
        if (spec->mounts[i]->read_only)
            field_boolean(writer, "ReadOnly", true);
        write_mount_options(writer, spec->mounts[i]);
        json_writer_object_end(writer);
    }
    json_writer_array_end(writer);
}

/* ---- resources ---- */

static void write_throttles(struct json_writer *writer, const char *key,
                            struct api_throttle_device *const *devices, size_t count)
{
    if (!count) {
        field_null(writer, key);
        return;
    }
    json_writer_key(writer, key);
    json_writer_array_begin(writer);
    for (size_t i = 0; i < count; i++) {
        json_writer_object_begin(writer);
        field_text(writer, "Path", devices[i]->path);
        field_unsigned(writer, "Rate", devices[i]->rate);
        json_writer_object_end(writer);
    }
    json_writer_array_end(writer);
}

static void write_weights(struct json_writer *writer, const struct api_resources *resources)
{
    json_writer_key(writer, "BlkioWeightDevice");
    json_writer_array_begin(writer);
    for (size_t i = 0; i < resources->blkio_weight_device_count; i++) {
        json_writer_object_begin(writer);
        field_text(writer, "Path", resources->blkio_weight_device[i]->path);
        field_unsigned(writer, "Weight", resources->blkio_weight_device[i]->weight);
        json_writer_object_end(writer);
    }
    json_writer_array_end(writer);
}

static void write_block_io(struct json_writer *writer, const struct api_resources *resources)
{
    field_unsigned(writer, "BlkioWeight", resources->blkio_weight);
    write_weights(writer, resources);
    write_throttles(writer, "BlkioDeviceReadBps", resources->blkio_device_read_bps,
                    resources->blkio_device_read_bps_count);
    write_throttles(writer, "BlkioDeviceWriteBps", resources->blkio_device_write_bps,
                    resources->blkio_device_write_bps_count);
    write_throttles(writer, "BlkioDeviceReadIOps", resources->blkio_device_read_iops,
                    resources->blkio_device_read_iops_count);
    write_throttles(writer, "BlkioDeviceWriteIOps", resources->blkio_device_write_iops,
                    resources->blkio_device_write_iops_count);
}

static void write_resources(struct json_writer *writer, const struct api_resources *resources)
{
    static const struct api_resources none;

    resources = resources ? resources : &none;
    field_unsigned(writer, "CpuShares", resources->cpu_shares);
    field_unsigned(writer, "Memory", resources->memory);
    field_unsigned(writer, "NanoCpus", resources->nano_cpus);
    write_block_io(writer, resources);
    field_unsigned(writer, "CpuPeriod", resources->cpu_period);
    field_integer(writer, "CpuQuota", resources->cpu_quota);
    field_unsigned(writer, "CpuRealtimePeriod", resources->cpu_realtime_period);
    field_integer(writer, "CpuRealtimeRuntime", resources->cpu_realtime_runtime);
    field_text(writer, "CpusetCpus", resources->cpuset_cpus);
    field_text(writer, "CpusetMems", resources->cpuset_mems);
    field_unsigned(writer, "MemoryReservation", resources->memory_reservation);
    /* Twice the memory is what a limit without a word about swap means. */
    field_integer(writer, "MemorySwap",
                  resources->has_memory_swap ? resources->memory_swap
                                             : (int64_t)(2 * resources->memory));
    if (resources->has_memory_swappiness)
        field_integer(writer, "MemorySwappiness", resources->memory_swappiness);
    else
        field_null(writer, "MemorySwappiness");
    field_boolean(writer, "OomKillDisable", resources->oom_kill_disable);
    if (resources->has_pids_limit)
        field_integer(writer, "PidsLimit", resources->pids_limit);
    else
        field_null(writer, "PidsLimit");
    /* Of other systems. */
    field_integer(writer, "CpuCount", 0);
    field_integer(writer, "CpuPercent", 0);
    field_integer(writer, "IOMaximumIOps", 0);
    field_integer(writer, "IOMaximumBandwidth", 0);
}

/* ---- devices and limits ---- */

static void write_devices(struct json_writer *writer, const struct api_container_spec *spec)
{
    json_writer_key(writer, "Devices");
    json_writer_array_begin(writer);
    for (size_t i = 0; i < spec->devices_count; i++) {
        const struct api_device *device = spec->devices[i];
        json_writer_object_begin(writer);
        field_text(writer, "PathOnHost", device->path_on_host);
        field_text(writer, "PathInContainer",
                   device->path_in_container ? device->path_in_container : device->path_on_host);
        field_text(writer, "CgroupPermissions",
                   device->cgroup_permissions ? device->cgroup_permissions : "rwm");
        json_writer_object_end(writer);
    }
    json_writer_array_end(writer);
    write_words(writer, "DeviceCgroupRules", spec->device_cgroup_rules);
    field_null(writer, "DeviceRequests");
}

static void write_ulimits(struct json_writer *writer, const struct api_container_spec *spec)
{
    json_writer_key(writer, "Ulimits");
    json_writer_array_begin(writer);
    for (size_t i = 0; i < spec->ulimits_count; i++) {
        const struct api_ulimit *ulimit = spec->ulimits[i];
        json_writer_object_begin(writer);
        field_text(writer, "Name", ulimit->name);
        field_integer(writer, "Hard", ulimit->has_hard ? ulimit->hard : ulimit->soft);
        field_integer(writer, "Soft", ulimit->soft);
        json_writer_object_end(writer);
    }
    json_writer_array_end(writer);
}

/* ---- the rest ---- */

/* docker's name for logs that are kept in files of its own, which `docker logs` can read. */
static void write_log(struct json_writer *writer, const struct api_log_config *log)
{
    field_object_begin(writer, "LogConfig");
    field_text(writer, "Type", log && !text_empty(log->type) ? log->type : "json-file");
    field_map(writer, "Config", log ? log->config : NULL);
    json_writer_object_end(writer);
}

static void write_restart_policy(struct json_writer *writer,
                                 const struct api_restart_policy *policy)
{
    field_object_begin(writer, "RestartPolicy");
    field_text(writer, "Name", policy && !text_empty(policy->name) ? policy->name : "no");
    field_integer(writer, "MaximumRetryCount", policy ? policy->maximum_retry_count : 0);
    /* Not docker's. */
    if (policy && policy->when_unhealthy)
        field_boolean(writer, "WhenUnhealthy", true);
    json_writer_object_end(writer);
}

static void write_isolation(struct json_writer *writer, const struct api_container_spec *spec)
{
    write_words(writer, "CapAdd", spec->cap_add);
    write_words(writer, "CapDrop", spec->cap_drop);
    field_text(writer, "CgroupnsMode", spec->cgroupns_mode ? spec->cgroupns_mode : "host");
    write_words(writer, "GroupAdd", spec->group_add);
    field_text(writer, "IpcMode", spec->ipc_mode ? spec->ipc_mode : "private");
    field_text(writer, "Cgroup", "");
    field_integer(writer, "OomScoreAdj", spec->oom_score_adj);
    field_text(writer, "PidMode", spec->pid_mode);
    field_boolean(writer, "Privileged", spec->privileged);
    field_boolean(writer, "ReadonlyRootfs", spec->read_only_root);
    write_words(writer, "SecurityOpt", spec->security_opt);
    field_text(writer, "UTSMode", spec->uts_mode);
    field_text(writer, "UsernsMode", spec->userns_mode);
    field_list(writer, "MaskedPaths", spec->masked_paths);
    field_list(writer, "ReadonlyPaths", spec->readonly_paths);
}

static void write_names(struct json_writer *writer, const struct api_container_details *container)
{
    const struct api_container_spec *spec = container->effective;

    field_text(writer, "NetworkMode", inspect_network_mode(container));
    inspect_write_ports(writer, "PortBindings", spec->ports, spec->ports_count, false);
    field_boolean(writer, "PublishAllPorts", spec->publish_all_ports);
    write_list(writer, "Dns", spec->dns);
    write_list(writer, "DnsOptions", spec->dns_options);
    write_list(writer, "DnsSearch", spec->dns_search);
    write_words(writer, "ExtraHosts", spec->extra_hosts);
    write_words(writer, "Links", spec->links);
}

void inspect_write_host_config(struct json_writer *writer,
                               const struct api_container_details *container)
{
    const struct api_container_spec *spec = container->effective;

    field_object_begin(writer, "HostConfig");
    write_binds(writer, container->spec);
    field_text(writer, "ContainerIDFile", "");
    write_log(writer, spec->log_config);
    write_names(writer, container);
    write_restart_policy(writer, spec->restart_policy);
    field_boolean(writer, "AutoRemove", spec->auto_remove);
    field_text(writer, "Isolation", spec->isolation);
    json_writer_key(writer, "ConsoleSize");
    json_writer_raw(writer, "[0,0]");
    field_text(writer, "VolumeDriver", spec->volume_driver);
    write_words(writer, "VolumesFrom", spec->volumes_from);
    write_isolation(writer, spec);
    write_resources(writer, spec->resources);
    write_devices(writer, spec);
    write_ulimits(writer, spec);
    write_mounts(writer, container->spec);
    write_map_if(writer, "Tmpfs", container->spec->tmpfs);
    write_map_if(writer, "Sysctls", spec->sysctls);
    write_map_if(writer, "StorageOpt", spec->storage_opt);
    field_unsigned(writer, "ShmSize",
                   spec->has_shm_size && spec->shm_size ? spec->shm_size : 64U * 1024 * 1024);
    field_text(writer, "Runtime", spec->runtime ? spec->runtime : "cloche-runtime");
    field_text(writer, "CgroupParent", spec->cgroup_parent);
    if (spec->has_init)
        field_boolean(writer, "Init", spec->init);
    json_writer_object_end(writer);
}
