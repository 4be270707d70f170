/*
 * What `run`, `create` and `update` share: the options that describe a container, and the request
 * they make. One table and one build function for each part.
 */
#ifndef CLOCHE_SPEC_H
#define CLOCHE_SPEC_H

#include <schema/management.h>

#include "options.h"

/* ---- limits: spec_resources.c */

struct resource_options {
    struct option_number blkio_weight, cpu_period, cpu_quota, cpu_rt_period, cpu_rt_runtime,
        cpu_shares, memory_swappiness, pids_limit;
    uint64_t nano_cpus;                  /* billionths of a CPU */
    uint64_t memory, memory_reservation; /* bytes */
    int64_t memory_swap;                 /* bytes; -1: no limit */
    const char *cpuset_cpus, *cpuset_mems;
    char **blkio_weight_device, **read_bps, **read_iops, **write_bps, **write_iops;
    bool oom_kill_disable;
    uint64_t kernel_memory; /* of no effect */
    uint64_t unused;        /* of options that are refused */
};

extern const struct option resource_option_table[]; /* what `update` takes too */
extern const struct option resource_create_table[]; /* further ones of `create` */

/* *ret is owned by the caller. */
int resources_build(const struct resource_options *options, struct api_resources **ret,
                    struct error *err);

/* ---- what it may do and see: spec_isolation.c */

struct isolation_options {
    char **cap_add, **cap_drop, **devices, **device_rules, **security_opt, **sysctls, **ulimits,
        **usb_devices;
    const char *cgroup_parent, *cgroupns, *ipc, *isolation, *pid, *profile, *userns, *uts;
    struct option_number oom_score_adj;
    uint64_t shm_size; /* bytes */
    bool privileged, unused, api_socket;
    uint64_t gpus; /* refused */
};

extern const struct option isolation_option_table[];
int isolation_build(const struct isolation_options *options, struct api_container_spec *spec,
                    struct error *err);

/* What --profile adds to all that the other options say, which must be there already. */
int isolation_apply_profile(const char *profile, struct api_container_spec *spec,
                            struct error *err);

/* ---- networks: spec_network.c */

struct network_options {
    char **add_host, **dns, **dns_options, **dns_search, **expose, **links, **link_local_ips,
        **networks, **aliases, **publish;
    const char *ip, *ip6, *mac_address;
    bool publish_all;
};

extern const struct option network_option_table[];
int network_build(const struct network_options *options, struct api_container_spec *spec,
                  struct error *err);

/* "[address:][hostPort[-last]:]containerPort[-last][/protocol]", as -p takes it; appends to
 * spec->ports, one entry a port. */
int spec_add_port(struct api_container_spec *spec, const char *text, struct error *err);

/* ---- mounts: spec_mounts.c */

struct mount_options {
    char **mounts, **storage_opt, **tmpfs, **usb_block, **usb_storage, **volumes, **volumes_from;
    const char *volume_driver;
    bool read_only;
};

extern const struct option mount_option_table[];
int mounts_build(const struct mount_options *options, struct api_container_spec *spec,
                 struct error *err);

/* "/host:/container[:options]", "name:/container[:options]" or "/container"; appends to
 * spec->binds or spec->volumes. A source that begins with "." is taken from the working directory.
 */
int spec_add_bind(struct api_container_spec *spec, const char *text, struct error *err);

/* "type=bind,source=...,target=..." as --mount takes it; appends to spec->mounts. */
int spec_add_mount(struct api_container_spec *spec, const char *text, struct error *err);

/* --usb-storage, appended to spec->usb_storage: spec_usb.c */
int spec_add_usb_storage(struct api_container_spec *spec, const char *text, struct error *err);
/* --usb-block, the same way. */
int spec_add_usb_block(struct api_container_spec *spec, const char *text, struct error *err);

/* ---- who looks after it: spec_supervision.c */

struct supervision_options {
    const char *health_cmd, *log_driver, *restart;
    int64_t health_interval, health_start_interval, health_start_period,
        health_timeout; /* nanoseconds */
    struct option_number health_retries;
    char **log_opt;
    bool no_healthcheck, restart_unhealthy;
};

extern const struct option supervision_option_table[];
int supervision_build(const struct supervision_options *options, struct api_container_spec *spec,
                      struct error *err);

/* "on-failure:3" and the like. *ret is owned by the caller. */
int restart_policy_parse(const char *text, struct api_restart_policy **ret, struct error *err);

/* ---- the whole: spec.c, spec_process.c */

struct spec_options {
    bool interactive, tty, remove, init;
    const char *name, *workdir, *user, *entrypoint, *hostname, *domainname, *stop_signal, *platform,
        *runtime, *cidfile;
    char **env, **env_file, **labels, **label_file, **annotations, **attach, **group_add;
    struct option_number stop_timeout;
    struct resource_options resources;
    struct isolation_options isolation;
    struct network_options network;
    struct mount_options mounts;
    struct supervision_options supervision;
};

extern const struct option process_option_table[];
int process_build(const struct spec_options *options, char *const *command,
                  struct api_container_spec *spec, struct error *err);

/* The rows of a list of option groups, for a struct whose member is the struct spec_options. */
#define SPEC_OPTION_GROUPS(container, member)                                                      \
    {.options = process_option_table, .offset = offsetof(container, member)},                      \
        {.options = resource_option_table, .offset = offsetof(container, member.resources)},       \
        {.options = resource_create_table, .offset = offsetof(container, member.resources)},       \
        {.options = isolation_option_table, .offset = offsetof(container, member.isolation)},      \
        {.options = network_option_table, .offset = offsetof(container, member.network)},          \
        {.options = mount_option_table, .offset = offsetof(container, member.mounts)},             \
    {                                                                                              \
        .options = supervision_option_table, .offset = offsetof(container, member.supervision)     \
    }

/* Builds the request from options and operands (image, command ...). Reads the files that
 * options name. *ret is owned by the caller. */
int spec_build(const struct spec_options *options, char *const *operands,
               struct api_container_spec **ret, struct error *err);

/* Whether one of our streams is to be attached: those that -a names; without any, output and, with
 * -i, input. */
bool spec_attaches(const struct spec_options *options, const char *stream);

/* ---- parts, for all and for tests */

/* "NAME=value", or "NAME": taken from our environment, left out when it is not there. */
void spec_add_env(char ***list, const char *text);

/* The lines of a file as docker's --env-file has them: blanks in front dropped, empty lines and
 * those that begin with # skipped. */
int spec_add_env_file(char ***list, const char *path, struct error *err);

/* "1.5" -> 1500000000: at most nine digits behind the point. */
int spec_parse_cpus(const char *text, void *value, struct error *err);

/* "64m" -> uint64_t. */
int spec_parse_size(const char *text, void *value, struct error *err);

/* "KEY=value" or "KEY" of each. */
void spec_fill_map(struct json_string_map **map, char *const *words);

/* A copy, with its length, of a list of an option. */
void spec_fill_list(char ***list, size_t *count, char *const *words);

#endif
