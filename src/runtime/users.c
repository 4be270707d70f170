#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <runtime/runtime.h>
#include <schema/oci_config.h>

#include <base/alloc.h>
#include <base/file.h>
#include <base/process.h>
#include <base/text.h>

#include "users.h"

#define INITIAL_USER_NAMESPACE 0xEFFFFFFDU /* inode */

enum {
    MAP_FILE_MAX = 1 << 16,
    TOOL_OUTPUT_MAX = 256, /* bytes of a tool's complaint in the message */
};

/* One of the two maps, and what belongs to it. */
struct user_map {
    const char *file, *field, *tool, *usual_tool, *ranges;
    struct oci_id_mapping *const *map;
    size_t count;
    unsigned own_id;
};

static struct user_map uid_map(const struct oci_linux *config)
{
    return (struct user_map){.file = "uid_map",
                             .field = "linux.uidMappings",
                             .tool = "newuidmap",
                             .usual_tool = "/usr/bin/newuidmap",
                             .ranges = "/etc/subuid",
                             .map = config->uid_mappings,
                             .count = config->uid_mappings_count,
                             .own_id = geteuid()};
}

static struct user_map gid_map(const struct oci_linux *config)
{
    return (struct user_map){.file = "gid_map",
                             .field = "linux.gidMappings",
                             .tool = "newgidmap",
                             .usual_tool = "/usr/bin/newgidmap",
                             .ranges = "/etc/subgid",
                             .map = config->gid_mappings,
                             .count = config->gid_mappings_count,
                             .own_id = getegid()};
}

static bool is_new(const struct oci_linux *config)
{
    for (size_t i = 0; config && i < config->namespaces_count; i++) {
        if (text_equal(config->namespaces[i]->type, "user"))
            return text_empty(config->namespaces[i]->path);
    }
    return false;
}

static void fill_map(struct oci_id_mapping ***map, size_t *count, uint32_t own_id)
{
    free(*map); /* an empty list */
    *map = xnew_array(struct oci_id_mapping *, 1);
    **map = xnew(struct oci_id_mapping);
    ***map = (struct oci_id_mapping){.container_id = 0, .host_id = own_id, .size = 1};
    *count = 1;
}

void users_fill_maps(struct oci_linux *config)
{
    if (!is_new(config) || config->uid_mappings_count || config->gid_mappings_count)
        return;
    fill_map(&config->uid_mappings, &config->uid_mappings_count, geteuid());
    fill_map(&config->gid_mappings, &config->gid_mappings_count, getegid());
}

/* Of the call that the thread is in. */
static _Thread_local enum cloche_runtime_rootless limited;

void runtime_assume_rootless(enum cloche_runtime_rootless value)
{
    limited = value;
}

/* The first one has this number ever since namespaces are files (linux/proc_ns.h), and looking at
 * it costs a tenth of what reading the map does. */
static bool is_initial_namespace(void)
{
    struct stat status;

    return stat("/proc/self/ns/user", &status) == 0 && status.st_ino == INITIAL_USER_NAMESPACE;
}

static bool look_for_limits(void)
{
    _cleanup_free_ char *text = NULL;
    unsigned inside, outside, count;

    if (geteuid() != 0)
        return true;
    if (is_initial_namespace())
        return false;
    if (file_read_at(AT_FDCWD, "/proc/self/uid_map", MAP_FILE_MAX, &text, NULL, NULL) < 0)
        return false; /* a kernel without user namespaces */
    return sscanf(text, "%u %u %u", &inside, &outside, &count) != 3 || inside != 0 ||
           outside != 0 || count != UINT32_MAX;
}

bool runtime_caller_is_limited(void)
{
    if (limited == CLOCHE_RUNTIME_ROOTLESS_AUTO)
        limited = look_for_limits() ? CLOCHE_RUNTIME_ROOTLESS_YES : CLOCHE_RUNTIME_ROOTLESS_NO;
    return limited == CLOCHE_RUNTIME_ROOTLESS_YES;
}

static int write_file(int proc_fd, pid_t pid, const char *file, const char *text)
{
    char path[48];

    snprintf(path, sizeof(path), "%d/%s", pid, file);
    return file_write_existing_at(proc_fd, path, text, strlen(text), NULL);
}

static bool is_own_id_alone(const struct user_map *map)
{
    return map->count == 1 && map->map[0]->size == 1 && map->map[0]->host_id == map->own_id;
}

static char **tool_arguments(const struct user_map *map, pid_t pid)
{
    char **argv = NULL;

    strv_append(&argv, map->tool);
    strv_take(&argv, xasprintf("%d", pid));
    for (size_t i = 0; i < map->count; i++) {
        strv_take(&argv, xasprintf("%u", map->map[i]->container_id));
        strv_take(&argv, xasprintf("%u", map->map[i]->host_id));
        strv_take(&argv, xasprintf("%u", map->map[i]->size));
    }
    return argv;
}

/* What the tool said, and which line would let it do what is asked for. */
static int report_refusal(const struct user_map *map, int output_fd, struct error *err)
{
    char output[TOOL_OUTPUT_MAX];
    const struct oci_id_mapping *wanted = map->map[0];
    ssize_t n = pread(output_fd, output, sizeof(output) - 1, 0);

    output[n > 0 ? n : 0] = '\0';
    output[strcspn(output, "\n")] = '\0';
    for (size_t i = 0; i < map->count; i++) {
        if (map->map[i]->host_id != map->own_id) {
            wanted = map->map[i];
            break;
        }
    }
    return error_set(err, -EPERM,
                     "%s refused the mappings (%s): does %s have a range for this user, as "
                     "'%u:%u:%u'?",
                     map->tool, output, map->ranges, geteuid(), wanted->host_id, wanted->size);
}

static int run_tool(const struct user_map *map, pid_t pid, struct error *err)
{
    _cleanup_strv_ char **argv = tool_arguments(map, pid);
    _cleanup_close_ int output_fd = memfd_create("newidmap-output", MFD_CLOEXEC);
    struct process_spec spec = {
        .path = map->tool,
        .argv = argv,
        .fds = (int[]){-1, output_fd, output_fd},
        .fds_count = 3,
    };
    struct process process;
    int status;

    if (output_fd < 0)
        return error_errno(err, errno, "memfd_create");
    int r = process_spawn(&spec, &process, NULL);
    if (r < 0) { /* a PATH that does not hold it, or none */
        spec.path = map->usual_tool;
        r = process_spawn(&spec, &process, NULL);
    }
    if (r < 0)
        return error_errno(err, -r,
                           "only root maps more than itself without the program %s (Debian: "
                           "package uidmap): execute it",
                           map->tool);
    r = process_wait(&process, &status, err);
    if (r < 0)
        return r;
    return process_exit_code(status) ? report_refusal(map, output_fd, err) : 0;
}

static int write_map(int proc_fd, pid_t pid, const struct user_map *map, struct error *err)
{
    _cleanup_buffer_ struct buffer text = BUFFER_INIT;

    for (size_t i = 0; i < map->count; i++)
        buffer_printf(&text, "%u %u %u\n", map->map[i]->container_id, map->map[i]->host_id,
                      map->map[i]->size);
    int r = write_file(proc_fd, pid, map->file, buffer_text(&text));
    if (r != -EPERM)
        return r < 0 ? error_errno(err, -r, "write %s", map->file) : 0;
    if (!is_own_id_alone(map))
        return run_tool(map, pid, err);
    /* Groups that one could drop may be what keeps one out of a file (CVE-2014-8989): who maps its
     * own group without being allowed to change groups gives setgroups up. */
    r = write_file(proc_fd, pid, "setgroups", "deny");
    if (r == 0)
        r = write_file(proc_fd, pid, map->file, buffer_text(&text));
    return r < 0 ? error_errno(err, -r, "map the own id") : 0;
}

int users_map(int proc_fd, pid_t pid, const struct oci_linux *config, struct error *err)
{
    const struct user_map maps[] = {gid_map(config), uid_map(config)};

    for (size_t i = 0; i < ARRAY_SIZE(maps); i++) {
        int r = write_map(proc_fd, pid, &maps[i], err);
        if (r < 0) {
            error_context(err, "%s", maps[i].field);
            return r;
        }
    }
    return 0;
}

/* EINVAL: the id is mapped to nobody. */
static int become(long call, unsigned preferred, unsigned other)
{
    if (syscall(call, preferred, preferred, preferred) == 0)
        return 0;
    if (errno != EINVAL || other == preferred)
        return -errno;
    return syscall(call, other, other, other) < 0 ? -errno : 0;
}

int users_become_root(const struct oci_user *user, bool keeps_groups, struct error *err)
{
    int r = become(SYS_setresgid, 0, user ? user->gid : 0);

    if (r < 0)
        return error_errno(err, -r,
                           "linux.gidMappings: become group 0 of the container, or process.user's");
    if (!keeps_groups && syscall(SYS_setgroups, 0, NULL) < 0 && errno != EPERM)
        return error_errno(err, errno, "drop supplementary groups");
    r = become(SYS_setresuid, 0, user ? user->uid : 0);
    if (r < 0)
        return error_errno(err, -r,
                           "linux.uidMappings: become user 0 of the container, or process.user");
    return 0;
}

static int check_map(int proc_fd, const struct user_map *map, struct error *err)
{
    _cleanup_free_ char *path = xasprintf("self/%s", map->file), *text = NULL;
    unsigned inside, outside, size;
    int length;

    if (!map->count)
        return 0;
    int r = file_read_at(proc_fd, path, MAP_FILE_MAX, &text, NULL, err);
    if (r < 0)
        return r;
    const char *at = text;
    size_t same = 0;
    for (; same < map->count; same++, at += length) {
        if (sscanf(at, "%u %u %u%n", &inside, &outside, &size, &length) != 3 ||
            inside != map->map[same]->container_id || outside != map->map[same]->host_id ||
            size != map->map[same]->size)
            break;
    }
    if (same < map->count || at[strspn(at, " \n")])
        return error_set(err, -EINVAL,
                         "%s: user namespaces enabled, but both namespace path and non-matching "
                         "mapping specified -- you may only provide one",
                         map->field);
    return 0;
}

int users_check_joined(int proc_fd, const struct oci_linux *config, struct error *err)
{
    const struct user_map uids = uid_map(config), gids = gid_map(config);
    int r = check_map(proc_fd, &uids, err);

    return r < 0 ? r : check_map(proc_fd, &gids, err);
}
