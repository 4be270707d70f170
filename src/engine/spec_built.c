/*
 * Fields of the specification that nothing carries out yet. They are refused, so that nobody gets
 * less than what was asked for; a field leaves this list with the code that does it.
 */
#include <errno.h>

#include <base/text.h>

#include "spec.h"

struct field {
    const char *name;
    bool present;
};

static int refuse(const struct field *fields, size_t count, struct error *err)
{
    for (size_t i = 0; i < count; i++) {
        if (fields[i].present)
            return error_set(err, -EOPNOTSUPP, "container_spec.%s is not supported by this engine",
                             fields[i].name);
    }
    return 0;
}

static bool has_entries(const struct json_string_map *map)
{
    return map && map->count > 0;
}

static bool restarts(const struct api_restart_policy *policy)
{
    return policy && ((!text_empty(policy->name) && !text_equal(policy->name, "no")) ||
                      policy->when_unhealthy);
}

static bool checks_health(const struct api_healthcheck *check)
{
    return check && !(check->test_count == 1 && text_equal(check->test[0], "NONE"));
}

static int check_networks(const struct api_container_spec *spec, struct error *err)
{
    const char *mode = spec->network_mode;
    const struct field fields[] = {
        {"networkMode", !text_empty(mode) && !text_equal(mode, "bridge") &&
                            !text_equal(mode, "default") && !text_equal(mode, "none") &&
                            !text_equal(mode, "host")},
        {"networks", spec->networks && spec->networks->count > 0},
        {"macAddress", !text_empty(spec->mac_address)},
        {"links", spec->links_count > 0},
        {"publishAllPorts", spec->publish_all_ports},
    };

    return refuse(fields, ARRAY_SIZE(fields), err);
}

static int check_mounts(const struct api_container_spec *spec, struct error *err)
{
    const struct field fields[] = {
        {"volumes", spec->volumes_count > 0},
        {"mounts", spec->mounts_count > 0},
        {"tmpfs", has_entries(spec->tmpfs)},
        {"volumesFrom", spec->volumes_from_count > 0},
        {"volumeDriver", !text_empty(spec->volume_driver)},
        {"storageOpt", has_entries(spec->storage_opt)},
    };

    return refuse(fields, ARRAY_SIZE(fields), err);
}

static int check_supervision(const struct api_container_spec *spec, struct error *err)
{
    const struct field fields[] = {
        {"init", spec->init},
        {"healthcheck", checks_health(spec->healthcheck)},
        {"restartPolicy", restarts(spec->restart_policy)},
        {"logConfig", spec->log_config && (!text_empty(spec->log_config->type) ||
                                           has_entries(spec->log_config->config))},
    };

    return refuse(fields, ARRAY_SIZE(fields), err);
}

static int check_isolation(const struct api_container_spec *spec, struct error *err)
{
    const struct field fields[] = {
        {"devices", spec->devices_count > 0},
        {"deviceCgroupRules", spec->device_cgroup_rules_count > 0},
        {"capAdd", spec->cap_add_count > 0},
        {"capDrop", spec->cap_drop_count > 0},
        {"privileged", spec->privileged},
        {"securityOpt", spec->security_opt_count > 0},
        {"maskedPaths", spec->masked_paths != NULL},
        {"readonlyPaths", spec->readonly_paths != NULL},
        {"ulimits", spec->ulimits_count > 0},
        {"sysctls", has_entries(spec->sysctls)},
        {"groupAdd", spec->group_add_count > 0},
        {"usernsMode", !text_empty(spec->userns_mode)},
        {"pidMode", !text_empty(spec->pid_mode)},
        {"ipcMode", !text_empty(spec->ipc_mode)},
        {"utsMode", !text_empty(spec->uts_mode)},
        {"cgroupnsMode", !text_empty(spec->cgroupns_mode)},
    };

    return refuse(fields, ARRAY_SIZE(fields), err);
}

static int check_rest(const struct api_container_spec *spec, struct error *err)
{
    const struct field fields[] = {
        {"domainname", !text_empty(spec->domainname)},
        {"annotations", has_entries(spec->annotations)},
        {"platform", !text_empty(spec->platform)},
        {"runtime", !text_empty(spec->runtime) && !text_equal(spec->runtime, "cloche-runtime")},
        {"cgroupParent", !text_empty(spec->cgroup_parent)},
        {"dns", spec->dns_count > 0},
        {"dnsSearch", spec->dns_search_count > 0},
        {"dnsOptions", spec->dns_options_count > 0},
        {"extraHosts", spec->extra_hosts_count > 0},
        {"shmSize", spec->shm_size != 0},
        {"oomScoreAdj", spec->oom_score_adj != 0},
    };

    return refuse(fields, ARRAY_SIZE(fields), err);
}

static int check_limits(const struct api_resources *resources, struct error *err)
{
    const struct field fields[] = {
        {"resources.blkioWeightDevice", resources->blkio_weight_device_count > 0},
        {"resources.blkioDeviceReadBps", resources->blkio_device_read_bps_count > 0},
        {"resources.blkioDeviceWriteBps", resources->blkio_device_write_bps_count > 0},
        {"resources.blkioDeviceReadIops", resources->blkio_device_read_iops_count > 0},
        {"resources.blkioDeviceWriteIops", resources->blkio_device_write_iops_count > 0},
    };

    return refuse(fields, ARRAY_SIZE(fields), err);
}

int spec_check_built(const struct api_container_spec *spec, struct error *err)
{
    int r = check_networks(spec, err);

    if (r == 0)
        r = check_mounts(spec, err);
    if (r == 0)
        r = check_supervision(spec, err);
    if (r == 0)
        r = check_isolation(spec, err);
    if (r == 0)
        r = check_rest(spec, err);
    if (r == 0 && spec->resources)
        r = check_limits(spec->resources, err);
    return r;
}
