#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <runtime/runtime.h>
#include <schema/oci_config.h>

#include <base/alloc.h>
#include <base/file.h>
#include <base/process.h>
#include <base/text.h>

#include "cgroup_resources.h"
#include "cgroup_systemd.h"

#define HELPER "cloche-runtime-systemd"

enum {
    OUTPUT_MAX = 4096,   /* bytes of the helper's answer or message */
    UNIT_NAME_MAX = 255, /* systemd's UNIT_NAME_MAX */
    HELPER_ARGUMENTS_MAX = 4,
};

/* --- the program that speaks D-Bus ------------------------------------------------------------ */

/* As the daemon finds its programs: where it is told, beside this one (the build tree), where they
 * were installed. Owned by the caller. */
static char *find_helper(void)
{
    const char *set = getenv("CLOCHE_LIBEXEC");
    char self[PATH_MAX];

    if (!text_empty(set))
        return xasprintf("%s/" HELPER, set);
    ssize_t length = readlink("/proc/self/exe", self, sizeof(self) - 1);
    if (length > 0) {
        self[length] = '\0';
        *strrchr(self, '/') = '\0';
        char *beside = xasprintf("%s/" HELPER, self);
        if (access(beside, X_OK) == 0)
            return beside;
        free(beside);
    }
    return xstrdup(CLOCHE_LIBEXECDIR "/" HELPER);
}

void runtime_systemd_find_helper(void)
{
    _cleanup_free_ char *path = find_helper();

    *strrchr(path, '/') = '\0';
    setenv("CLOCHE_LIBEXEC", path, 0);
}

static void read_text(int fd, char *ret)
{
    ssize_t n = pread(fd, ret, OUTPUT_MAX - 1, 0);

    ret[n > 0 ? n : 0] = '\0';
    ret[strcspn(ret, "\n")] = '\0';
}

static int spawn_and_wait(const char *path, char *const *argv, const int *fds, struct error *err)
{
    const struct process_spec spec = {.path = path, .argv = argv, .fds = fds, .fds_count = 3};
    struct process process;
    int status, r = process_spawn(&spec, &process, err);

    if (r == -ENOENT) {
        error_set(err, r, "--systemd-cgroup: %s is not there", path);
        error_hint(err, "build cloche with libsystemd and install it, or set CLOCHE_LIBEXEC to its "
                        "folder");
    }
    if (r == 0)
        r = process_wait(&process, &status, err);
    return r < 0 ? r : process_exit_code(status);
}

/* words: the verb and its arguments, NULL-terminated. input may be NULL. answer: OUTPUT_MAX bytes.
 */
static int ask(const struct cgroup *cgroup, const char *const *words, const struct buffer *input,
               char *answer, struct error *err)
{
    _cleanup_close_ int input_fd = memfd_create("properties", MFD_CLOEXEC);
    _cleanup_close_ int output_fd = memfd_create("answer", MFD_CLOEXEC);
    _cleanup_close_ int message_fd = memfd_create("message", MFD_CLOEXEC);
    _cleanup_free_ char *path = find_helper();
    const char *argv[HELPER_ARGUMENTS_MAX + 3] = {HELPER};
    size_t count = 1;
    int r = 0;

    if (cgroup->user_manager)
        argv[count++] = "--user";
    while (*words)
        argv[count++] = *words++;
    if (input_fd < 0 || output_fd < 0 || message_fd < 0)
        return error_errno(err, errno, "memfd_create");
    if (input)
        r = file_write_all(input_fd, input->data, input->length);
    if (r < 0 || lseek(input_fd, 0, SEEK_SET) < 0)
        return error_errno(err, r < 0 ? -r : errno, "write properties");
    r = spawn_and_wait(path, (char *const *)argv, (int[]){input_fd, output_fd, message_fd}, err);
    if (r < 0)
        return r;
    read_text(r == 0 ? output_fd : message_fd, answer);
    return r == 0 ? 0
                  : error_set(err, -EIO, "systemd: unit %s: %s", cgroup->unit,
                              answer[0] ? answer : "its helper failed without a word");
}

/* --- names ------------------------------------------------------------------------------------ */

/* Root of the machine has the system's manager, everybody else one of their own. */
static bool has_user_manager(void)
{
    unsigned inside = 1, outside = 1, count = 0;

    if (geteuid() != 0)
        return true;
    _cleanup_fclose_ FILE *file = fopen("/proc/self/uid_map", "re");
    return file && (fscanf(file, "%u %u %u", &inside, &outside, &count) != 3 || outside != 0 ||
                    count != UINT32_MAX);
}

/* "a-b.slice" lies in "a.slice" (systemd.slice(5)). */
static int append_slice(struct buffer *path, const char *slice, struct error *err)
{
    size_t length = strlen(slice);

    if (text_equal(slice, "-.slice"))
        return 0;
    if (!text_ends_with(slice, ".slice") || length == strlen(".slice") || strchr(slice, '/') ||
        slice[0] == '-' || strstr(slice, "--") || slice[length - strlen(".slice") - 1] == '-')
        return error_set(err, -EINVAL, "linux.cgroupsPath: invalid slice name: %s", slice);
    for (const char *c = slice; *c; c++) {
        if (*c == '-')
            buffer_printf(path, "%.*s.slice/", (int)(c - slice), slice);
    }
    buffer_printf(path, "%s/", slice);
    return 0;
}

static int check_unit_name(const char *name, struct error *err)
{
    static const char allowed[] =
        "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789:-_.\\@";

    if (strlen(name) > UNIT_NAME_MAX || name[strspn(name, allowed)])
        return error_set(err, -EINVAL, "linux.cgroupsPath: '%s' is no name of a systemd unit",
                         name);
    return 0;
}

static int take_path(struct cgroup *cgroup, const char *path, const char *id, struct error *err)
{
    _cleanup_strv_ char **parts = text_empty(path) ? NULL : strv_split(path, ':');

    if (text_empty(path)) {
        cgroup->unit = xasprintf("cloche-%s.scope", id);
        cgroup->slice = xstrdup("");
    } else if (strv_length(parts) == 3) {
        if (text_ends_with(parts[2], ".slice"))
            return error_set(err, -EINVAL,
                             "linux.cgroupsPath: a container is a scope, and cannot be the slice "
                             "'%s'",
                             parts[2]);
        cgroup->unit = xasprintf("%s-%s.scope", parts[1], parts[2]);
        cgroup->slice = xstrdup(parts[0]);
    } else {
        return error_set(err, -EINVAL,
                         "expected cgroupsPath to be of format \"slice:prefix:name\" for systemd "
                         "cgroups, got \"%s\" instead",
                         path);
    }
    if (!cgroup->slice[0]) {
        free(cgroup->slice);
        cgroup->slice = xstrdup(cgroup->user_manager ? "user.slice" : "system.slice");
    }
    return check_unit_name(cgroup->unit, err);
}

static int check_running(struct error *err)
{
    struct stat status;

    if (lstat("/run/systemd/system", &status) == 0 && S_ISDIR(status.st_mode))
        return 0;
    error_set(err, -ENOTSUP,
              "systemd not running on this host, but systemd cgroups manager is requested");
    error_hint(err, "leave --systemd-cgroup out (podman: --cgroup-manager cgroupfs)");
    return -ENOTSUP;
}

/* A folder that somebody has made and frozen: the process would stop in it for good, and we with
 * it. */
static bool is_there_frozen(struct cgroup *cgroup)
{
    bool v2 = cgroup->ops->version == 2;
    struct cgroup_hierarchy *hierarchy = cgroup_hierarchy_find(cgroup, "freezer");
    _cleanup_free_ char *path =
        xasprintf("%s/%s", cgroup->path, v2 ? "cgroup.freeze" : "freezer.state");
    char text[16];

    return hierarchy && cgroup_read_line(hierarchy->root_fd, path, text, sizeof(text)) >= 0 &&
           !text_equal(text, v2 ? "0" : "THAWED");
}

/* Before the state says that the scope is ours: delete --force will stop it. */
static int check_unused(struct cgroup *cgroup, struct error *err)
{
    struct cgroup_hierarchy *hierarchy = cgroup_hierarchy_find(cgroup, "systemd");
    _cleanup_free_ char *path = xasprintf("%s/cgroup.procs", cgroup->path);
    _cleanup_close_ int fd =
        hierarchy ? openat(hierarchy->root_fd, path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW) : -1;
    char byte;
    int r = 0;

    if (fd >= 0 && read(fd, &byte, 1) == 1)
        r = error_set(err, -EEXIST,
                      "container's cgroup is not empty: systemd's scope %s already exists and has "
                      "processes",
                      cgroup->unit);
    else if (is_there_frozen(cgroup))
        r = error_set(err, -EBUSY, "container's cgroup unexpectedly frozen (/%s)", cgroup->path);
    if (r < 0)
        free(steal_ptr(cgroup->unit));
    return r;
}

int cgroup_systemd_init(struct cgroup *cgroup, const char *path, const char *id, struct error *err)
{
    _cleanup_buffer_ struct buffer expected = BUFFER_INIT;
    struct cgroup named = {.user_manager = has_user_manager()};
    int r = check_running(err);

    if (r == 0)
        r = take_path(&named, path, id, err);
    if (r == 0)
        r = append_slice(&expected, named.slice, err);
    if (r == 0) {
        buffer_append_text(&expected, named.unit);
        r = cgroup_init(cgroup, buffer_text(&expected), id, err);
    }
    if (r < 0) {
        cgroup_finish(&named);
        return r;
    }
    cgroup->unit = named.unit;
    cgroup->slice = named.slice;
    cgroup->user_manager = named.user_manager;
    if (cgroup->user_manager && cgroup->ops->version == 1)
        return error_set(err, -ENOTSUP, "cannot use rootless systemd cgroups manager on cgroup v1");
    return check_unused(cgroup, err);
}

/* --- the scope -------------------------------------------------------------------------------- */

static int depth_of(const char *path)
{
    int depth = 1;

    for (const char *c = path; *c; c++)
        depth += *c == '/';
    return depth;
}

/* What systemd says is below the hierarchies' mounts; only the scope itself is ours to remove. */
static int take_cgroup(struct cgroup *cgroup, const char *path, struct error *err)
{
    if (path[0] != '/' || !path[1] || strstr(path, "/../") || text_ends_with(path, "/.."))
        return error_set(err, -EPROTO, "systemd: unit %s is in no cgroup of its own: '%s'",
                         cgroup->unit, path);
    free(cgroup->path);
    cgroup->path = xstrdup(path + 1);
    for (size_t i = 0; i < cgroup->count; i++)
        cgroup->hierarchies[i].made_depth = depth_of(cgroup->path);
    return 0;
}

int cgroup_systemd_start(struct cgroup *cgroup, pid_t pid, const struct oci_config *config,
                         struct error *err)
{
    _cleanup_buffer_ struct buffer properties = BUFFER_INIT;
    const struct oci_resources *resources = config->linux ? config->linux->resources : NULL;
    _cleanup_free_ struct device_rule *rules = NULL;
    char number[16], answer[OUTPUT_MAX];
    size_t count;

    snprintf(number, sizeof(number), "%d", pid);
    int r = systemd_unit_properties(cgroup, config, &properties, err);
    if (r == 0)
        r = device_rules(resources, &rules, &count, err);
    if (r == 0) {
        systemd_device_properties(cgroup, rules, count, &properties);
        r = systemd_resource_properties(cgroup, resources, &properties, err);
    }
    if (r == 0)
        r = ask(cgroup, (const char *[]){"start", cgroup->unit, cgroup->slice, number, NULL},
                &properties, answer, err);
    if (r < 0) { /* if there is a scope of that name, it is another's */
        free(steal_ptr(cgroup->unit));
        return r;
    }
    r = take_cgroup(cgroup, answer, err);
    if (r == 0)
        r = cgroup->ops->adopt(cgroup, pid, err);
    if (r == 0)
        r = cgroup_limit(cgroup, resources, err);
    return r < 0 ? r : cgroup_delegate(cgroup, config, err);
}

int cgroup_systemd_set(struct cgroup *cgroup, const struct oci_resources *resources,
                       struct error *err)
{
    _cleanup_buffer_ struct buffer properties = BUFFER_INIT;
    char answer[OUTPUT_MAX];
    int r = systemd_resource_properties(cgroup, resources, &properties, err);

    if (r < 0 || !properties.length)
        return r;
    return ask(cgroup, (const char *[]){"set", cgroup->unit, NULL}, &properties, answer, err);
}

int cgroup_systemd_set_devices(struct cgroup *cgroup, const struct device_rule *rules, size_t count,
                               struct error *err)
{
    _cleanup_buffer_ struct buffer properties = BUFFER_INIT;
    char answer[OUTPUT_MAX];

    systemd_device_properties(cgroup, rules, count, &properties);
    return ask(cgroup, (const char *[]){"set", cgroup->unit, NULL}, &properties, answer, err);
}

/* Its slices in the hierarchies that it manages are systemd's to remove. */
static void keep_slices(struct cgroup *cgroup)
{
    static const char *const managed[] = {"",        "systemd", "cpu",   "cpuacct", "cpu,cpuacct",
                                          "unified", "memory",  "blkio", "devices", "pids"};

    for (size_t i = 0; i < cgroup->count; i++) {
        for (size_t k = 0; k < ARRAY_SIZE(managed); k++) {
            if (text_equal(cgroup->hierarchies[i].name, managed[k]))
                cgroup->hierarchies[i].made_depth = depth_of(cgroup->path);
        }
    }
}

int cgroup_systemd_stop(struct cgroup *cgroup, struct error *err)
{
    char answer[OUTPUT_MAX];

    keep_slices(cgroup);
    return ask(cgroup, (const char *[]){"stop", cgroup->unit, NULL}, NULL, answer, err);
}

int cgroup_systemd_attach(const struct cgroup *cgroup, pid_t pid, struct error *err)
{
    char number[16], answer[OUTPUT_MAX];

    snprintf(number, sizeof(number), "%d", pid);
    return ask(cgroup, (const char *[]){"attach", cgroup->unit, "", number, NULL}, NULL, answer,
               err);
}
