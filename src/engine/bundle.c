#include <string.h>

#include <base/alloc.h>
#include <base/text.h>
#include <schema/json.h>

#include "bundle.h"
#include "bundle_json.h"
#include "seccomp_profile.h"
#include "spec.h"

#define OCI_VERSION "1.0.2"

/* What images expect a container to have: docker's defaults (its documentation, "Runtime privilege
 * and Linux capabilities"). */
static const char *const default_capabilities[] = {
    "CAP_AUDIT_WRITE", "CAP_CHOWN",   "CAP_DAC_OVERRIDE",     "CAP_FOWNER",     "CAP_FSETID",
    "CAP_KILL",        "CAP_MKNOD",   "CAP_NET_BIND_SERVICE", "CAP_NET_RAW",    "CAP_SETFCAP",
    "CAP_SETGID",      "CAP_SETPCAP", "CAP_SETUID",           "CAP_SYS_CHROOT",
};

static const char *const all_capabilities[] = {
    "CAP_AUDIT_CONTROL",   "CAP_AUDIT_READ",   "CAP_AUDIT_WRITE",
    "CAP_BLOCK_SUSPEND",   "CAP_BPF",          "CAP_CHECKPOINT_RESTORE",
    "CAP_CHOWN",           "CAP_DAC_OVERRIDE", "CAP_DAC_READ_SEARCH",
    "CAP_FOWNER",          "CAP_FSETID",       "CAP_IPC_LOCK",
    "CAP_IPC_OWNER",       "CAP_KILL",         "CAP_LEASE",
    "CAP_LINUX_IMMUTABLE", "CAP_MAC_ADMIN",    "CAP_MAC_OVERRIDE",
    "CAP_MKNOD",           "CAP_NET_ADMIN",    "CAP_NET_BIND_SERVICE",
    "CAP_NET_BROADCAST",   "CAP_NET_RAW",      "CAP_PERFMON",
    "CAP_SETFCAP",         "CAP_SETGID",       "CAP_SETPCAP",
    "CAP_SETUID",          "CAP_SYS_ADMIN",    "CAP_SYS_BOOT",
    "CAP_SYS_CHROOT",      "CAP_SYS_MODULE",   "CAP_SYS_NICE",
    "CAP_SYS_PACCT",       "CAP_SYS_PTRACE",   "CAP_SYS_RAWIO",
    "CAP_SYS_RESOURCE",    "CAP_SYS_TIME",     "CAP_SYS_TTY_CONFIG",
    "CAP_SYSLOG",          "CAP_WAKE_ALARM",
};

static const char *const masked_paths[] = {
    "/proc/acpi",
    "/proc/asound",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/sys/devices/virtual/powercap",
    "/sys/firmware",
};

static const char *const readonly_paths[] = {
    "/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger",
};

static const struct default_mount {
    const char *target;
    const char *type;
    const char *options[10];
} default_mounts[] = {
    {"/proc", "proc", {"nosuid", "noexec", "nodev"}},
    {"/dev", "tmpfs", {"nosuid", "strictatime", "mode=755", "size=65536k"}},
    {"/dev/pts",
     "devpts",
     {"nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"}},
    {"/sys", "sysfs", {"nosuid", "noexec", "nodev", "ro"}},
    {"/sys/fs/cgroup", "cgroup", {"ro", "nosuid", "noexec", "nodev"}},
    {"/dev/mqueue", "mqueue", {"nosuid", "noexec", "nodev"}},
    {"/dev/shm", "tmpfs", {"nosuid", "noexec", "nodev", "mode=1777", "size=67108864"}},
};

/* Everything is denied first; nodes may be made of any device, but only these be opened. */
static const struct device_rule {
    const char *type;
    int major; /* -1: any */
    int minor;
    const char *access;
} device_rules[] = {
    {"c", -1, -1, "m"}, {"b", -1, -1, "m"},    {"c", 1, 3, "rwm"}, {"c", 1, 5, "rwm"},
    {"c", 1, 7, "rwm"}, {"c", 1, 8, "rwm"},    {"c", 1, 9, "rwm"}, {"c", 5, 0, "rwm"},
    {"c", 5, 2, "rwm"}, {"c", 136, -1, "rwm"},
};

static const char *const propagations[] = {
    "private", "rprivate", "shared", "rshared", "slave", "rslave",
};

/* --- process ---------------------------------------------------------------------------------- */

static void put_user(struct json_writer *writer, const struct user *user)
{
    begin_object(writer, "user");
    put_integer(writer, "uid", user->uid);
    put_integer(writer, "gid", user->gid);
    begin_array(writer, "additionalGids");
    for (size_t i = 0; i < user->additional_gids_count; i++)
        json_writer_integer(writer, user->additional_gids[i]);
    json_writer_array_end(writer);
    json_writer_object_end(writer);
}

/* A user other than root starts without capabilities, as after an execve(2) of that user. */
static void put_capabilities(struct json_writer *writer, bool root, bool privileged)
{
    const char *const *list = privileged ? all_capabilities : default_capabilities;
    size_t count = privileged ? ARRAY_SIZE(all_capabilities) : ARRAY_SIZE(default_capabilities);

    begin_object(writer, "capabilities");
    put_strings(writer, "bounding", list, count);
    if (root) {
        put_strings(writer, "effective", list, count);
        put_strings(writer, "permitted", list, count);
    }
    json_writer_object_end(writer);
}

struct process_facts {
    char **arguments;
    char **environment;
    const char *directory;
    const struct user *user;
    bool terminal;
    bool privileged;
    uint16_t rows, columns;
};

static void write_process(struct json_writer *writer, const struct process_facts *process)
{
    json_writer_object_begin(writer);
    put_boolean(writer, "terminal", process->terminal);
    if (process->terminal && process->rows && process->columns) {
        begin_object(writer, "consoleSize");
        put_integer(writer, "height", process->rows);
        put_integer(writer, "width", process->columns);
        json_writer_object_end(writer);
    }
    put_user(writer, process->user);
    put_strv(writer, "args", process->arguments);
    put_strv(writer, "env", process->environment);
    put_string(writer, "cwd", process->directory);
    put_capabilities(writer, process->user->uid == 0, process->privileged);
    json_writer_object_end(writer);
}

void bundle_write_process(const struct api_container_spec *effective,
                          const struct bundle_exec *exec, struct buffer *out)
{
    _cleanup_strv_ char **base = spec_environment(effective, exec->user->home);
    _cleanup_strv_ char **environment = environment_merge(base, exec->env);
    _cleanup_strv_ char **arguments = strv_copy(exec->command);
    struct process_facts process = {
        .arguments = arguments,
        .environment = environment,
        .directory = text_empty(exec->working_dir) ? effective->working_dir : exec->working_dir,
        .user = exec->user,
        .terminal = exec->tty,
        .privileged = exec->privileged,
        .rows = exec->rows,
        .columns = exec->columns,
    };
    struct json_writer writer;

    if (exec->tty && !effective->tty) {
        /* The container's own environment was made for no terminal. */
        char **with_terminal = NULL;
        strv_append(&with_terminal, "TERM=xterm");
        char **merged = environment_merge(with_terminal, environment);
        strv_free(with_terminal);
        strv_free(environment);
        environment = process.environment = merged;
    }
    json_writer_init(&writer, out, JSON_COMPACT);
    write_process(&writer, &process);
}

static void put_process(struct json_writer *writer, const struct bundle_facts *facts)
{
    _cleanup_strv_ char **arguments = spec_arguments(facts->effective);
    _cleanup_strv_ char **environment = spec_environment(facts->effective, facts->user->home);
    struct process_facts process = {
        .arguments = arguments,
        .environment = environment,
        .directory = facts->effective->working_dir,
        .user = facts->user,
        .terminal = facts->effective->tty,
    };

    json_writer_key(writer, "process");
    write_process(writer, &process);
}

/* --- mounts ----------------------------------------------------------------------------------- */

static void put_bind(struct json_writer *writer, const char *source, const char *target,
                     const char *const *options, size_t options_count)
{
    json_writer_object_begin(writer);
    put_string(writer, "destination", target);
    put_string(writer, "type", "bind");
    put_string(writer, "source", source);
    put_strings(writer, "options", options, options_count);
    json_writer_object_end(writer);
}

static bool is_propagation(const char *option)
{
    for (size_t i = 0; i < ARRAY_SIZE(propagations); i++) {
        if (text_equal(option, propagations[i]))
            return true;
    }
    return false;
}

/* z, Z: SELinux labels, which there are none of; nocopy: volumes. */
static bool is_without_effect(const char *option)
{
    static const char *const known[] = {"rw",         "z",      "Z",         "nocopy",
                                        "consistent", "cached", "delegated", "rbind"};

    for (size_t i = 0; i < ARRAY_SIZE(known); i++) {
        if (text_equal(option, known[i]))
            return true;
    }
    return false;
}

bool bundle_bind_option_known(const char *option)
{
    return is_propagation(option) || is_without_effect(option) || text_equal(option, "ro") ||
           text_equal(option, "bind");
}

static void put_user_bind(struct json_writer *writer, const struct api_bind *bind)
{
    const char *propagation = "rprivate";
    const char *recursion = "rbind";
    bool read_only = bind->read_only;

    for (size_t i = 0; i < bind->options_count; i++) {
        if (is_propagation(bind->options[i]))
            propagation = bind->options[i];
        else if (text_equal(bind->options[i], "ro"))
            read_only = true;
        else if (text_equal(bind->options[i], "bind"))
            recursion = "bind";
    }
    const char *const options[] = {recursion, propagation, read_only ? "ro" : NULL};
    put_bind(writer, bind->source, bind->target, options, ARRAY_SIZE(options));
}

static void put_default_mounts(struct json_writer *writer)
{
    for (size_t i = 0; i < ARRAY_SIZE(default_mounts); i++) {
        const struct default_mount *mount = &default_mounts[i];
        json_writer_object_begin(writer);
        put_string(writer, "destination", mount->target);
        put_string(writer, "type", mount->type);
        put_string(writer, "source",
                   text_starts_with(mount->target, "/dev/shm") ? "shm" : mount->type);
        put_strings(writer, "options", mount->options, ARRAY_SIZE(mount->options));
        json_writer_object_end(writer);
    }
}

static bool is_bound_by_user(const struct bundle_facts *facts, const char *target)
{
    for (size_t i = 0; i < facts->effective->binds_count; i++) {
        if (text_equal(facts->effective->binds[i]->target, target))
            return true;
    }
    return false;
}

static void put_file_binds(struct json_writer *writer, const struct bundle_facts *facts)
{
    static const char *const names[] = {"resolv.conf", "hostname", "hosts"};
    static const char *const options[] = {"rbind", "rprivate"};

    for (size_t i = 0; i < ARRAY_SIZE(names); i++) {
        _cleanup_free_ char *source = xasprintf("%s/%s", facts->files_directory, names[i]);
        _cleanup_free_ char *target = xasprintf("/etc/%s", names[i]);
        if (!is_bound_by_user(facts, target))
            put_bind(writer, source, target, options, ARRAY_SIZE(options));
    }
}

static void put_mounts(struct json_writer *writer, const struct bundle_facts *facts)
{
    begin_array(writer, "mounts");
    for (size_t i = 0; i < facts->mounts_count; i++) {
        const struct bundle_mount *mount = &facts->mounts[i];
        const char *const options[] = {"rbind", "rprivate", mount->read_only ? "ro" : NULL};
        put_bind(writer, mount->source, mount->target, options, ARRAY_SIZE(options));
    }
    put_default_mounts(writer);
    put_file_binds(writer, facts);
    for (size_t i = 0; i < facts->effective->binds_count; i++)
        put_user_bind(writer, facts->effective->binds[i]);
    json_writer_array_end(writer);
}

/* --- linux ------------------------------------------------------------------------------------ */

static void put_devices(struct json_writer *writer)
{
    begin_array(writer, "devices");
    json_writer_object_begin(writer);
    put_boolean(writer, "allow", false);
    put_string(writer, "access", "rwm");
    json_writer_object_end(writer);
    for (size_t i = 0; i < ARRAY_SIZE(device_rules); i++) {
        const struct device_rule *rule = &device_rules[i];
        json_writer_object_begin(writer);
        put_boolean(writer, "allow", true);
        put_string(writer, "type", rule->type);
        if (rule->major >= 0)
            put_integer(writer, "major", rule->major);
        if (rule->minor >= 0)
            put_integer(writer, "minor", rule->minor);
        put_string(writer, "access", rule->access);
        json_writer_object_end(writer);
    }
    json_writer_array_end(writer);
}

static void put_resources(struct json_writer *writer, const struct api_container_spec *spec)
{
    begin_object(writer, "resources");
    put_devices(writer);
    if (spec->resources)
        bundle_put_limits(writer, spec->resources);
    json_writer_object_end(writer);
}

static void put_namespace(struct json_writer *writer, const char *type, const char *path)
{
    json_writer_object_begin(writer);
    put_string(writer, "type", type);
    if (path)
        put_string(writer, "path", path);
    json_writer_object_end(writer);
}

static void put_namespaces(struct json_writer *writer, const struct bundle_facts *facts)
{
    begin_array(writer, "namespaces");
    put_namespace(writer, "mount", NULL);
    put_namespace(writer, "uts", NULL);
    put_namespace(writer, "pid", NULL);
    put_namespace(writer, "ipc", NULL);
    if (facts->network == BUNDLE_NETWORK_PRIVATE)
        put_namespace(writer, "network", facts->netns_path);
    if (facts->cgroup_v2)
        put_namespace(writer, "cgroup", NULL);
    json_writer_array_end(writer);
}

/* In a network namespace of its own a container may listen on any port and send ICMP echo
 * requests, whatever its user. */
static void put_sysctl(struct json_writer *writer, const struct bundle_facts *facts)
{
    if (facts->network != BUNDLE_NETWORK_PRIVATE)
        return;
    begin_object(writer, "sysctl");
    put_string(writer, "net.ipv4.ip_unprivileged_port_start", "0");
    put_string(writer, "net.ipv4.ping_group_range", "0 2147483647");
    json_writer_object_end(writer);
}

static void put_linux(struct json_writer *writer, const struct bundle_facts *facts)
{
    _cleanup_free_ char *cgroup = xasprintf("/%s/%s", facts->cgroup_parent, facts->id);

    begin_object(writer, "linux");
    put_sysctl(writer, facts);
    put_resources(writer, facts->effective);
    put_string(writer, "cgroupsPath", cgroup);
    put_namespaces(writer, facts);
    json_writer_key(writer, "seccomp");
    json_writer_raw(writer, seccomp_profile);
    put_strings(writer, "maskedPaths", masked_paths, ARRAY_SIZE(masked_paths));
    put_strings(writer, "readonlyPaths", readonly_paths, ARRAY_SIZE(readonly_paths));
    json_writer_object_end(writer);
}

void bundle_write_config(const struct bundle_facts *facts, struct buffer *out)
{
    struct json_writer writer;

    json_writer_init(&writer, out, JSON_COMPACT);
    json_writer_object_begin(&writer);
    put_string(&writer, "ociVersion", OCI_VERSION);
    put_process(&writer, facts);
    begin_object(&writer, "root");
    put_string(&writer, "path", facts->rootfs);
    put_boolean(&writer, "readonly", facts->effective->read_only_root);
    json_writer_object_end(&writer);
    put_string(&writer, "hostname", facts->effective->hostname);
    put_mounts(&writer, facts);
    put_linux(&writer, facts);
    json_writer_object_end(&writer);
}
