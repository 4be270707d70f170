/*
 * What a container may do and see.
 */
#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>

#include <base/alloc.h>
#include <base/file.h>
#include <base/text.h>

#include "spec.h"

enum { PROFILE_MAX = 512 * 1024 };

static const char *const cgroup_words[] = {"host", "private", NULL};
static const char *const host_words[] = {"host", NULL};
static const char *const profile_words[] = {"docker", "kiosk", NULL};
static const char *const users_words[] = {"host", "remap", "auto", NULL};
static const char *const isolation_words[] = {"default", NULL};

static int refuse_gpus(const char *text, void *value, struct error *err)
{
    return error_set(err, -EOPNOTSUPP,
                     "there is no support for GPUs; give the container the devices it needs with "
                     "--device");
}

static const char *const ipc_words[] = {"none", "private", "shareable", "host", NULL};
static const char *const security_words[] = {
    "no-new-privileges",      "seccomp=", "seccomp=unconfined", "apparmor=",
    "systempaths=unconfined", NULL,
};

const struct option isolation_option_table[] = {
    {
        .name = "cap-add",
        .kind = OPTION_LIST,
        .offset = offsetof(struct isolation_options, cap_add),
        .argument = "list",
        .help = "Give it a capability, or ALL",
    },
    {
        .name = "cap-drop",
        .kind = OPTION_LIST,
        .offset = offsetof(struct isolation_options, cap_drop),
        .argument = "list",
        .help = "Take a capability away, or ALL",
    },
    {
        .name = "cgroup-parent",
        .kind = OPTION_TEXT,
        .offset = offsetof(struct isolation_options, cgroup_parent),
        .argument = "string",
        .help = "Cgroup to make its own in",
    },
    {
        .name = "cgroupns",
        .kind = OPTION_TEXT,
        .offset = offsetof(struct isolation_options, cgroupns),
        .argument = "string",
        .help = "Cgroup namespace: host or private",
        .complete = COMPLETE_CHOICES,
        .choices = cgroup_words,
    },
    {
        .name = "device",
        .kind = OPTION_LIST,
        .offset = offsetof(struct isolation_options, devices),
        .argument = "list",
        .help = "Give it a device: PATH[:PATH-THERE][:rwm]",
        .complete = COMPLETE_FILES,
    },
    {
        .name = "device-cgroup-rule",
        .kind = OPTION_LIST,
        .offset = offsetof(struct isolation_options, device_rules),
        .argument = "list",
        .help = "Let it use devices by number: \"c 1:3 rwm\"",
    },
    {
        .name = "device-usb",
        .kind = OPTION_LIST,
        .offset = offsetof(struct isolation_options, usb_devices),
        .argument = "list",
        .help = "Give it a USB device whenever that is plugged in: VENDOR:PRODUCT[:SERIAL]",
        .complete = COMPLETE_USB_DEVICES,
    },
    {
        .name = "disable-content-trust",
        .kind = OPTION_FLAG,
        .offset = offsetof(struct isolation_options, unused),
        .help = "Without effect: images are verified by digest",
    },
    {
        .name = "gpus",
        .kind = OPTION_PARSED,
        .offset = offsetof(struct isolation_options, gpus),
        .argument = "gpu-request",
        .help = "Refused: there is no support for GPUs",
        .parse = refuse_gpus,
    },
    {
        .name = "ipc",
        .kind = OPTION_TEXT,
        .offset = offsetof(struct isolation_options, ipc),
        .argument = "string",
        .help = "IPC: none, private, shareable, host or container:NAME",
        .complete = COMPLETE_EXAMPLES,
        .choices = ipc_words,
    },
    {
        .name = "isolation",
        .kind = OPTION_TEXT,
        .offset = offsetof(struct isolation_options, isolation),
        .argument = "string",
        .help = "Of Windows: default only",
        .complete = COMPLETE_CHOICES,
        .choices = isolation_words,
    },
    {
        .name = "oom-score-adj",
        .kind = OPTION_NUMBER,
        .offset = offsetof(struct isolation_options, oom_score_adj),
        .argument = "int",
        .help = "How readily it is killed when memory is short (-1000 to 1000)",
        .minimum = -1000,
        .maximum = 1000,
    },
    {
        .name = "pid",
        .kind = OPTION_TEXT,
        .offset = offsetof(struct isolation_options, pid),
        .argument = "string",
        .help = "Processes: host or container:NAME",
        .complete = COMPLETE_EXAMPLES,
        .choices = host_words,
    },
    {
        .name = "privileged",
        .kind = OPTION_FLAG,
        .offset = offsetof(struct isolation_options, privileged),
        .help = "Let it do what root may do on this machine",
    },
    {
        .name = "profile",
        .kind = OPTION_TEXT,
        .offset = offsetof(struct isolation_options, profile),
        .argument = "string",
        .help = "What it may do: docker, or kiosk, the strict one",
        .complete = COMPLETE_CHOICES,
        .choices = profile_words,
    },
    {
        .name = "security-opt",
        .kind = OPTION_LIST,
        .offset = offsetof(struct isolation_options, security_opt),
        .argument = "list",
        .help = "seccomp=FILE, no-new-privileges, apparmor=PROFILE and others",
        .complete = COMPLETE_EXAMPLES,
        .choices = security_words,
    },
    {
        .name = "shm-size",
        .kind = OPTION_PARSED,
        .offset = offsetof(struct isolation_options, shm_size),
        .argument = "bytes",
        .help = "Size of /dev/shm (default 64m)",
        .parse = spec_parse_size,
    },
    {
        .name = "sysctl",
        .kind = OPTION_LIST,
        .offset = offsetof(struct isolation_options, sysctls),
        .argument = "map",
        .help = "Set a parameter of its kernel namespaces: NAME=value",
    },
    {
        .name = "ulimit",
        .kind = OPTION_LIST,
        .offset = offsetof(struct isolation_options, ulimits),
        .argument = "ulimit",
        .help = "Limit of its processes: NAME=SOFT[:HARD]",
    },
    {
        .name = "use-api-socket",
        .kind = OPTION_FLAG,
        .offset = offsetof(struct isolation_options, api_socket),
        .help = "Refused: bind the socket with -v instead",
    },
    {
        .name = "userns",
        .kind = OPTION_TEXT,
        .offset = offsetof(struct isolation_options, userns),
        .argument = "string",
        .help = "User namespace: host, remap or auto[:size=N]",
        .complete = COMPLETE_EXAMPLES,
        .choices = users_words,
    },
    {
        .name = "uts",
        .kind = OPTION_TEXT,
        .offset = offsetof(struct isolation_options, uts),
        .argument = "string",
        .help = "Host name: host shares that of this machine",
        .complete = COMPLETE_CHOICES,
        .choices = host_words,
    },
    {.name = NULL},
};

/* ---- devices */

static bool is_access(const char *text)
{
    return text[0] && strspn(text, "rwm") == strlen(text);
}

static int add_device(struct api_container_spec *spec, const char *text, struct error *err)
{
    _cleanup_strv_ char **parts = strv_split(text, ':');
    size_t count = strv_length(parts);
    struct api_device *device;

    if (count < 1 || count > 3 || parts[0][0] != '/')
        return error_set(err, -EINVAL, "invalid device specification: %s", text);
    if (count == 3 && !is_access(parts[2]))
        return error_set(err, -EINVAL, "bad mode specified: %s", parts[2]);
    device = xnew(struct api_device);
    device->path_on_host = xstrdup(parts[0]);
    if (count > 1 && !(count == 2 && is_access(parts[1])))
        device->path_in_container = xstrdup(parts[1]);
    else if (count == 2)
        device->cgroup_permissions = xstrdup(parts[1]);
    if (count == 3)
        device->cgroup_permissions = xstrdup(parts[2]);
    spec->devices = xrealloc(spec->devices, spec->devices_count + 1, sizeof(*spec->devices));
    spec->devices[spec->devices_count++] = device;
    return 0;
}

/* ---- limits of setrlimit(2) */

static int add_ulimit(struct api_container_spec *spec, const char *text, struct error *err)
{
    const char *equals = strchr(text, '=');
    int64_t soft, hard = 0;

    if (!equals || equals == text)
        return error_set(err, -EINVAL, "invalid ulimit argument: %s", text);
    _cleanup_strv_ char **numbers = strv_split(equals + 1, ':');
    size_t count = strv_length(numbers);
    if (count < 1 || count > 2 || text_to_i64(numbers[0], -1, INT64_MAX, &soft) < 0 ||
        (count == 2 && text_to_i64(numbers[1], -1, INT64_MAX, &hard) < 0))
        return error_set(err, -EINVAL, "invalid ulimit argument: %s", text);
    if (count == 2 && hard >= 0 && (soft > hard || soft < 0))
        return error_set(err, -EINVAL,
                         "ulimit soft limit must be less than or equal to hard limit: %lld > %lld",
                         (long long)soft, (long long)hard);
    struct api_ulimit *limit = xnew(struct api_ulimit);
    limit->name = xstrndup(text, (size_t)(equals - text));
    limit->soft = soft;
    limit->hard = count == 2 ? hard : soft;
    limit->has_hard = true;
    spec->ulimits = xrealloc(spec->ulimits, spec->ulimits_count + 1, sizeof(*spec->ulimits));
    spec->ulimits[spec->ulimits_count++] = limit;
    return 0;
}

/* ---- --security-opt */

/* A profile goes to the daemon as what it says: the file is ours, not the daemon's. */
static int read_profile(const char *word, char **ret, struct error *err)
{
    size_t name = sizeof("seccomp") - 1;
    const char *value = word + name + 1;
    _cleanup_free_ char *text = NULL;

    if (!text_starts_with(word, "seccomp") || (word[name] != '=' && word[name] != ':') ||
        text_equal(value, "unconfined") || text_equal(value, "builtin")) {
        *ret = xstrdup(word);
        return 0;
    }
    int r = file_read_at(AT_FDCWD, value, PROFILE_MAX, &text, NULL, err);
    if (r < 0)
        return error_context(err, "opening seccomp profile (%s) failed", value), r;
    *ret = xasprintf("seccomp=%s", text);
    return 0;
}

static int add_security_option(struct api_container_spec *spec, const char *word, struct error *err)
{
    char *option;

    if (text_equal(word, "systempaths=unconfined")) {
        spec->masked_paths = xnew_array(char *, 1);
        spec->readonly_paths = xnew_array(char *, 1);
        return 0;
    }
    int r = read_profile(word, &option, err);
    if (r < 0)
        return r;
    strv_take(&spec->security_opt, option);
    spec->security_opt_count++;
    return 0;
}

/* ---- all of it */

static int build_lists(const struct isolation_options *options, struct api_container_spec *spec,
                       struct error *err)
{
    int r = 0;

    for (char **text = options->devices; r >= 0 && text && *text; text++)
        r = add_device(spec, *text, err);
    for (char **text = options->ulimits; r >= 0 && text && *text; text++)
        r = add_ulimit(spec, *text, err);
    for (char **text = options->security_opt; r >= 0 && text && *text; text++)
        r = add_security_option(spec, *text, err);
    for (char **text = options->sysctls; r >= 0 && text && *text; text++) {
        if (!strchr(*text, '='))
            r = error_set(err, -EINVAL, "invalid sysctl '%s': it is NAME=value", *text);
    }
    return r;
}

int isolation_build(const struct isolation_options *options, struct api_container_spec *spec,
                    struct error *err)
{
    if (options->api_socket)
        return error_set(err, -EOPNOTSUPP,
                         "--use-api-socket is not supported: give the container the socket with "
                         "-v /run/cloche/docker.sock:/var/run/docker.sock");
    int r = build_lists(options, spec, err);
    if (r < 0)
        return r;
    spec_fill_list(&spec->cap_add, &spec->cap_add_count, options->cap_add);
    spec_fill_list(&spec->cap_drop, &spec->cap_drop_count, options->cap_drop);
    spec_fill_list(&spec->device_cgroup_rules, &spec->device_cgroup_rules_count,
                   options->device_rules);
    spec_fill_list(&spec->usb_devices, &spec->usb_devices_count, options->usb_devices);
    spec_fill_map(&spec->sysctls, options->sysctls);
    spec->privileged = spec->has_privileged = options->privileged;
    spec->cgroup_parent = xstrdup(options->cgroup_parent);
    spec->cgroupns_mode = xstrdup(options->cgroupns);
    spec->ipc_mode = xstrdup(options->ipc);
    spec->isolation = xstrdup(options->isolation);
    spec->pid_mode = xstrdup(options->pid);
    spec->userns_mode = xstrdup(options->userns);
    spec->uts_mode = xstrdup(options->uts);
    spec->oom_score_adj = (int32_t)options->oom_score_adj.value;
    spec->has_oom_score_adj = options->oom_score_adj.set;
    spec->shm_size = options->shm_size;
    spec->has_shm_size = options->shm_size != 0;
    return 0;
}

/* ---- profiles */

static bool has_word(char *const *words, const char *start)
{
    for (; words && *words; words++) {
        if (text_starts_with(*words, start))
            return true;
    }
    return false;
}

/* For programs that people touch. What another option gives expressly it keeps. */
int isolation_apply_profile(const char *profile, struct api_container_spec *spec, struct error *err)
{
    if (!text_equal(profile, "kiosk"))
        return 0;
    if (spec->privileged)
        return error_set(err, -EINVAL, "--profile kiosk excludes --privileged");
    if (!has_word(spec->security_opt, "no-new-privileges")) {
        strv_append(&spec->security_opt, "no-new-privileges");
        spec->security_opt_count++;
    }
    if (!strv_contains(spec->cap_drop, "ALL")) {
        strv_append(&spec->cap_drop, "ALL");
        spec->cap_drop_count++;
    }
    if (text_empty(spec->userns_mode)) {
        free(spec->userns_mode);
        spec->userns_mode = xstrdup("auto");
    }
    spec->read_only_root = spec->has_read_only_root = true;
    return 0;
}
