/*
 * Whether a request makes sense by itself. Messages are dockerd's where it has one, since programs
 * look for them.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <string.h>

#include <base/alloc.h>
#include <base/text.h>
#include <store/snapshot.h>

#include "bundle.h"
#include "devices.h"
#include "names.h"
#include "seccomp.h"
#include "security.h"
#include "spec.h"
#include "supervision.h"
#include "usb.h"

/* --- what others check ------------------------------------------------------------------------ */

static int check_mounts(const struct api_container_spec *spec, struct error *err)
{
    if (spec->binds_count + spec->volumes_count + spec->mounts_count == 0 && !spec->tmpfs)
        return 0;
    if (spec->binds_count + spec->volumes_count + spec->mounts_count +
            (spec->tmpfs ? spec->tmpfs->count : 0) >
        SPEC_MOUNTS_MAX)
        return error_set(err, -EINVAL, "more than %d mounts", SPEC_MOUNTS_MAX);
    _cleanup_api_container_spec_ struct api_container_spec *copy = spec_copy(spec);
    return spec_settle_mounts(copy, err);
}

static int check_security(const struct api_container_spec *spec, struct error *err)
{
    _cleanup_buffer_ struct buffer filter = BUFFER_INIT;
    struct security_options options;
    int r;

    r = security_check_capabilities(spec, err);
    if (r == 0)
        r = security_options_read(spec, &options, err);
    if (r == 0 && options.seccomp)
        r = seccomp_resolve(options.seccomp, NULL, &filter, err);
    return r;
}

/* --- limits of processes and kernel settings -------------------------------------------------- */

static int check_ulimit(const struct api_ulimit *limit, struct error *err)
{
    static const char *const names[] = {
        "as",   "core",   "cpu",   "data", "fsize",  "locks",  "memlock",    "msgqueue",
        "nice", "nofile", "nproc", "rss",  "rtprio", "rttime", "sigpending", "stack",
    };
    bool found = false;

    for (size_t i = 0; i < ARRAY_SIZE(names); i++)
        found = found || text_equal(limit->name, names[i]);
    if (!found)
        return error_set(err, -EINVAL, "invalid ulimit type: %.80s", limit->name);
    if (limit->has_hard && limit->hard >= 0 && (limit->soft > limit->hard || limit->soft < 0))
        return error_set(err, -EINVAL,
                         "ulimit soft limit must be less than or equal to hard limit: %lld > %lld",
                         (long long)limit->soft, (long long)limit->hard);
    return 0;
}

static int check_ulimits(const struct api_container_spec *spec, struct error *err)
{
    int r = 0;

    if (spec->ulimits_count > SPEC_ULIMITS_MAX)
        return error_set(err, -EINVAL, "more than %d ulimits", SPEC_ULIMITS_MAX);
    for (size_t i = 0; r == 0 && i < spec->ulimits_count; i++)
        r = check_ulimit(spec->ulimits[i], err);
    return r;
}

static int check_sysctls(const struct api_container_spec *spec, struct error *err)
{
    bool host_network = text_equal(spec->network_mode, "host");
    bool host_ipc = text_equal(spec->ipc_mode, "host");

    for (size_t i = 0; spec->sysctls && i < spec->sysctls->count; i++) {
        const char *name = spec->sysctls->keys[i];
        if (host_network && text_starts_with(name, "net."))
            return error_set(err, -EINVAL, "sysctl %s not allowed in host network namespace", name);
        if (host_ipc && (text_starts_with(name, "kernel.shm") || text_starts_with(name, "fs.mq")))
            return error_set(err, -EINVAL, "sysctl %s not allowed in host ipc namespace", name);
    }
    return 0;
}

/* --- namespaces ------------------------------------------------------------------------------- */

struct mode {
    const char *field; /* docker's name */
    const char *value;
    const char *const *words; /* ends with NULL */
    bool container;           /* container:NAME is fine too */
};

static int check_mode(const struct mode *mode, struct error *err)
{
    if (text_empty(mode->value))
        return 0;
    for (size_t i = 0; mode->words[i]; i++) {
        if (text_equal(mode->value, mode->words[i]))
            return 0;
    }
    if (mode->container && text_starts_with(mode->value, "container:") && mode->value[10])
        return 0;
    return error_set(err, -EINVAL, "invalid %s mode: %.80s", mode->field, mode->value);
}

static int check_modes(const struct api_container_spec *spec, struct error *err)
{
    static const char *const host[] = {"host", NULL};
    static const char *const ipc[] = {"none", "private", "shareable", "host", NULL};
    static const char *const cgroup[] = {"host", "private", NULL};
    static const char *const users[] = {"host", "remap", "auto", NULL};
    bool is_auto = spec->userns_mode && text_starts_with(spec->userns_mode, "auto:");
    const struct mode modes[] = {
        {"PID", spec->pid_mode, host, true},
        {"IPC", spec->ipc_mode, ipc, true},
        {"UTS", spec->uts_mode, host, false},
        {"USER", is_auto ? NULL : spec->userns_mode, users, false},
        {"cgroup namespace", spec->cgroupns_mode, cgroup, false},
    };
    int r = 0;

    for (size_t i = 0; r == 0 && i < ARRAY_SIZE(modes); i++)
        r = check_mode(&modes[i], err);
    if (r == 0 && text_equal(spec->uts_mode, "host") && !text_empty(spec->hostname))
        r = error_set(err, -EINVAL, "conflicting options: hostname and the UTS mode");
    if (r == 0 && text_equal(spec->uts_mode, "host") && !text_empty(spec->domainname))
        r = error_set(err, -EINVAL, "conflicting options: domainname and the UTS mode");
    if (r == 0 && !text_empty(spec->isolation) && !text_equal(spec->isolation, "default"))
        r = error_set(err, -EINVAL, "invalid isolation '%s' on linux", spec->isolation);
    return r;
}

/* --- names, ports, labels --------------------------------------------------------------------- */

static int check_ports(const struct api_container_spec *spec, struct error *err)
{
    struct in6_addr address;

    if (spec->ports_count > SPEC_PORTS_MAX)
        return error_set(err, -EINVAL, "more than %d published ports", SPEC_PORTS_MAX);
    for (size_t i = 0; i < spec->ports_count; i++) {
        const struct api_port *port = spec->ports[i];
        if (port->container_port == 0)
            return error_set(err, -EINVAL, "invalid container port: 0");
        if (!text_empty(port->host_address) &&
            inet_pton(AF_INET, port->host_address, &address) != 1 &&
            inet_pton(AF_INET6, port->host_address, &address) != 1)
            return error_set(err, -EINVAL, "invalid IP address to publish a port on: %s",
                             port->host_address);
    }
    return 0;
}

static int check_labels(const struct json_string_map *labels, struct error *err)
{
    size_t bytes = 0;

    if (labels && labels->count > SPEC_LABELS_MAX)
        return error_set(err, -EINVAL, "more than %d labels", SPEC_LABELS_MAX);
    for (size_t i = 0; labels && i < labels->count; i++)
        bytes += strlen(labels->keys[i]) + strlen(labels->values[i]);
    if (bytes > SPEC_LABELS_BYTES_MAX)
        return error_set(err, -EINVAL, "labels of more than %d bytes", SPEC_LABELS_BYTES_MAX);
    return 0;
}

static int check_environment(char *const *env, struct error *err)
{
    for (size_t i = 0; env && env[i]; i++) {
        if (!env[i][0] || env[i][0] == '=')
            return error_set(err, -EINVAL, "invalid environment variable: '%s'", env[i]);
    }
    return 0;
}

/* --- resources -------------------------------------------------------------------------------- */

static int check_memory(const struct api_resources *resources, struct error *err)
{
    if (resources->memory && resources->memory < SPEC_MEMORY_MIN)
        return error_set(err, -EINVAL, "Minimum memory limit allowed is 6MB");
    if (resources->memory > INT64_MAX / 2 || resources->memory_reservation > INT64_MAX / 2)
        return error_set(err, -EINVAL, "memory limit out of range");
    if (resources->memory_swap < -1)
        return error_set(err, -EINVAL, "invalid memory swap limit: %lld",
                         (long long)resources->memory_swap);
    if (resources->memory_swap > 0 && !resources->memory)
        return error_set(err, -EINVAL,
                         "You should always set the Memory limit when using Memoryswap limit, see "
                         "usage");
    if (resources->memory_swap > 0 && (uint64_t)resources->memory_swap < resources->memory)
        return error_set(err, -EINVAL,
                         "Minimum memoryswap limit should be larger than memory limit, see usage");
    if (resources->memory_swappiness < -1 || resources->memory_swappiness > 100)
        return error_set(err, -EINVAL,
                         "Invalid value: %lld, valid memory swappiness range is 0-100",
                         (long long)resources->memory_swappiness);
    if (resources->memory_reservation && resources->memory_reservation < SPEC_MEMORY_MIN)
        return error_set(err, -EINVAL, "Minimum memory reservation allowed is 6MB");
    if (resources->memory && resources->memory < resources->memory_reservation)
        return error_set(err, -EINVAL,
                         "Minimum memory limit can not be less than memory reservation limit, see "
                         "usage");
    if (resources->kernel_memory && resources->kernel_memory < SPEC_MEMORY_MIN)
        return error_set(err, -EINVAL, "Minimum kernel memory limit allowed is 6MB");
    return 0;
}

static int check_cpu(const struct api_resources *resources, unsigned cpus, struct error *err)
{
    uint64_t most = cpus * UINT64_C(1000000000);

    if (resources->nano_cpus && (resources->cpu_period || resources->cpu_quota))
        return error_set(err, -EINVAL,
                         "Conflicting options: Nano CPUs and CPU %s cannot both be set",
                         resources->cpu_period ? "Period" : "Quota");
    if (resources->nano_cpus && (resources->nano_cpus < 10000000 || resources->nano_cpus > most))
        return error_set(err, -EINVAL,
                         "range of CPUs is from 0.01 to %u.00, as there are only %u CPUs available",
                         cpus, cpus);
    if (resources->cpu_period && (resources->cpu_period < 1000 || resources->cpu_period > 1000000))
        return error_set(err, -EINVAL,
                         "CPU cfs period can not be less than 1ms (i.e. 1000) or larger than 1s "
                         "(i.e. 1000000)");
    if (resources->cpu_quota > 0 && resources->cpu_quota < 1000)
        return error_set(err, -EINVAL, "CPU cfs quota can not be less than 1ms (i.e. 1000)");
    if (resources->cpu_realtime_period &&
        resources->cpu_realtime_runtime > (int64_t)resources->cpu_realtime_period)
        return error_set(err, -EINVAL,
                         "cpu real-time runtime cannot be higher than cpu real-time period");
    return 0;
}

static int check_throttles(struct api_throttle_device *const *devices, size_t count,
                           struct error *err)
{
    if (count > SPEC_DEVICES_MAX)
        return error_set(err, -EINVAL, "more than %d devices with a limit", SPEC_DEVICES_MAX);
    for (size_t i = 0; i < count; i++) {
        if (devices[i]->path[0] != '/')
            return error_set(err, -EINVAL, "invalid device path '%s': it must be absolute",
                             devices[i]->path);
    }
    return 0;
}

static int check_block_io(const struct api_resources *resources, struct error *err)
{
    int r = 0;

    if (resources->blkio_weight && (resources->blkio_weight < 10 || resources->blkio_weight > 1000))
        return error_set(err, -EINVAL, "Range of blkio weight is from 10 to 1000");
    if (resources->blkio_weight_device_count > SPEC_DEVICES_MAX)
        return error_set(err, -EINVAL, "more than %d devices with a weight", SPEC_DEVICES_MAX);
    for (size_t i = 0; i < resources->blkio_weight_device_count; i++) {
        const struct api_weight_device *device = resources->blkio_weight_device[i];
        if (device->weight < 10 || device->weight > 1000 || device->path[0] != '/')
            return error_set(err, -EINVAL, "invalid block I/O weight of '%s': %u (10 to 1000)",
                             device->path, device->weight);
    }
    r = check_throttles(resources->blkio_device_read_bps, resources->blkio_device_read_bps_count,
                        err);
    if (r == 0)
        r = check_throttles(resources->blkio_device_write_bps,
                            resources->blkio_device_write_bps_count, err);
    if (r == 0)
        r = check_throttles(resources->blkio_device_read_iops,
                            resources->blkio_device_read_iops_count, err);
    if (r == 0)
        r = check_throttles(resources->blkio_device_write_iops,
                            resources->blkio_device_write_iops_count, err);
    return r;
}

int spec_check_resources(const struct api_resources *resources, unsigned cpus, struct error *err)
{
    int r = check_memory(resources, err);

    if (r == 0)
        r = check_cpu(resources, cpus, err);
    if (r == 0)
        r = check_block_io(resources, err);
    return r;
}

/* --- all of it -------------------------------------------------------------------------------- */

static int check_cgroup_parent(const char *path, struct error *err)
{
    _cleanup_strv_ char **parts = path ? strv_split(path, '/') : NULL;

    for (size_t i = 0; parts && parts[i]; i++) {
        if (text_equal(parts[i], "..") || text_equal(parts[i], "."))
            return error_set(err, -EINVAL, "invalid cgroup parent: %.200s", path);
    }
    return 0;
}

/* runc is the name that docker's clients know ours by. */
static int check_runtime(const char *name, struct error *err)
{
    if (text_empty(name) || text_equal(name, "cloche-runtime") || text_equal(name, "runc"))
        return 0;
    return error_set(err, -EINVAL, "unknown or invalid runtime name: %.80s", name);
}

static int check_numbers(const struct api_container_spec *spec, struct error *err)
{
    if (spec->oom_score_adj < -1000 || spec->oom_score_adj > 1000)
        return error_set(err, -EINVAL, "Invalid value %d, range for oom score adj is [-1000, 1000]",
                         spec->oom_score_adj);
    if (spec->shm_size > INT64_MAX / 2)
        return error_set(err, -EINVAL, "size of /dev/shm out of range");
    return 0;
}

/* What belongs to the network of another container is said there. */
static int check_shared_network(const struct api_container_spec *spec, struct error *err)
{
    const struct {
        bool asked;
        const char *what;
    } conflicts[] = {
        {!text_empty(spec->hostname), "hostname and the network mode"},
        {spec->links_count > 0, "container type network can't be used with links. This would "
                                "result in undefined behavior"},
        {spec->dns_count > 0, "dns and the network mode"},
        {spec->extra_hosts_count > 0, "custom host-to-IP mapping and the network mode"},
        {spec->ports_count > 0 || spec->publish_all_ports,
         "port publishing and the container type network mode"},
        {spec->exposed_ports_count > 0, "port exposing and the container type network mode"},
    };

    if (!spec->network_mode || !text_starts_with(spec->network_mode, "container:"))
        return 0;
    for (size_t i = 0; i < ARRAY_SIZE(conflicts); i++) {
        if (conflicts[i].asked)
            return error_set(err, -EINVAL, "conflicting options: %s", conflicts[i].what);
    }
    return 0;
}

int spec_disk_limit(const struct api_container_spec *spec, uint64_t *ret, struct error *err)
{
    const struct json_string_map *options = spec->storage_opt;

    *ret = 0;
    for (size_t i = 0; options && i < options->count; i++) {
        if (!text_equal(options->keys[i], "size"))
            return error_set(err, -EINVAL, "unknown option %s of --storage-opt: there is size",
                             options->keys[i]);
        if (text_to_size(options->values[i], ret) < 0)
            return error_set(err, -EINVAL, "--storage-opt size: invalid size: '%s'",
                             options->values[i]);
        if (*ret < STORE_DISK_MIN)
            return error_set(err, -EINVAL,
                             "--storage-opt size: %s is too small, %d MiB are the least",
                             options->values[i], STORE_DISK_MIN >> 20);
    }
    return 0;
}

int spec_check(const struct api_container_spec *spec, unsigned cpus, struct error *err)
{
    int r = spec_check_endpoints(spec, err);

    if (r == 0 && spec->name)
        r = name_check(spec->name, err);
    if (r == 0 && !text_empty(spec->hostname))
        r = hostname_check(spec->hostname, err);
    if (r == 0)
        r = check_environment(spec->env, err);
    if (r == 0)
        r = check_labels(spec->labels, err);
    if (r == 0)
        r = check_mounts(spec, err);
    if (r == 0)
        r = check_ports(spec, err);
    if (r == 0)
        r = check_security(spec, err);
    if (r == 0)
        r = devices_check(spec, err);
    if (r == 0)
        r = usb_spec_check(spec, err);
    if (r == 0)
        r = check_ulimits(spec, err);
    if (r == 0)
        r = check_sysctls(spec, err);
    if (r == 0)
        r = check_modes(spec, err);
    if (r == 0)
        r = check_shared_network(spec, err);
    if (r == 0)
        r = bundle_check_files(spec, err);
    if (r == 0)
        r = check_numbers(spec, err);
    if (r == 0)
        r = check_runtime(spec->runtime, err);
    if (r == 0)
        r = check_cgroup_parent(spec->cgroup_parent, err);
    if (r == 0)
        r = spec_disk_limit(spec, &(uint64_t){0}, err);
    if (r == 0)
        r = supervision_check(spec, err);
    if (r == 0 && spec->resources)
        r = spec_check_resources(spec->resources, cpus, err);
    if (r == 0 && !text_empty(spec->stop_signal) && signal_parse(spec->stop_signal, err) < 0)
        r = -EINVAL;
    if (r == 0 && !text_empty(spec->working_dir) && spec->working_dir[0] != '/')
        r = error_set(err, -EINVAL,
                      "the working directory '%s' is invalid, it needs to be an absolute path",
                      spec->working_dir);
    return r;
}
