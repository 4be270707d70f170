#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <runtime/runtime.h>
#include <schema/oci_config.h>

#include <base/alloc.h>
#include <base/file.h>
#include <base/text.h>

#include "checkpoint.h"
#include "criu.h"
#include "delete.h"
#include "protobuf.h"
#include "state.h"

#define LOG_NAME "dump.log"

/* criu_page_server_info */
enum { PAGE_SERVER_ADDRESS = 1, PAGE_SERVER_PORT = 2 };

static int check(const struct stored *stored, const struct cloche_runtime_criu_options *options,
                 const struct criu_folders *folders, struct error *err)
{
    struct stat status;

    if (stored->status != CLOCHE_RUNTIME_RUNNING && stored->status != CLOCHE_RUNTIME_PAUSED)
        return error_set(err, -EINVAL, "Container cannot be checkpointed in %s state",
                         cloche_runtime_status_name(stored->status));
    if (options->parent_path && options->parent_path[0] == '/')
        return error_set(err, -EINVAL, "--parent-path must be relative");
    if (options->parent_path && fstatat(folders->images_fd, options->parent_path, &status, 0) < 0)
        return error_errno(err, errno, "invalid --parent-path: %s", options->parent_path);
    if (options->parent_path && !S_ISDIR(status.st_mode))
        return error_set(err, -ENOTDIR, "invalid --parent-path: %s is not a directory",
                         options->parent_path);
    if (options->status_fd) {
        int flags = fcntl(*options->status_fd, F_GETFL);
        if (flags < 0 || (flags & O_ACCMODE) == O_RDONLY)
            return error_set(err, -EBADF, "invalid --status-fd argument %d: not writable",
                             *options->status_fd);
    }
    return 0;
}

/* --- what is not in the images ---------------------------------------------------------------- */

static void add_masked_files(struct buffer *out, const struct oci_linux *config, int root_fd)
{
    for (size_t i = 0; config && i < config->masked_paths_count; i++) {
        struct stat status;
        _cleanup_close_ int fd = file_open_in_root(root_fd, config->masked_paths[i], O_PATH, 0);
        if (fd >= 0 && fstat(fd, &status) == 0 && !S_ISDIR(status.st_mode))
            criu_add_pair(out, CRIU_EXTERNAL_MOUNT, config->masked_paths[i], "/dev/null");
    }
}

/* criu names mounts by where they are: links in the configuration's path do not count. */
char *checkpoint_mount_place(int root_fd, const char *destination)
{
    char link[32], root_path[PATH_MAX], path[PATH_MAX];
    _cleanup_close_ int fd = file_open_in_root(root_fd, destination, O_PATH, 0);

    snprintf(link, sizeof(link), "/proc/self/fd/%d", root_fd);
    ssize_t root_length = readlink(link, root_path, sizeof(root_path));
    snprintf(link, sizeof(link), "/proc/self/fd/%d", fd);
    ssize_t length = fd < 0 ? -1 : readlink(link, path, sizeof(path) - 1);
    if (root_length == 1) /* "/": seen from inside of the container */
        root_length = 0;
    if (length <= root_length || root_length < 0 ||
        memcmp(path, root_path, (size_t)root_length) != 0 || path[root_length] != '/')
        return xasprintf("%s%s", destination[0] == '/' ? "" : "/", destination);
    path[length] = '\0';
    return xstrdup(path + root_length);
}

static void add_cgroup_mount(struct buffer *out, const char *destination,
                             const struct cgroup *cgroup, bool back)
{
    for (size_t i = 0; i < cgroup->count; i++) {
        const struct cgroup_hierarchy *hierarchy = &cgroup->hierarchies[i];
        const char *slash = hierarchy->name[0] ? "/" : "";
        if (hierarchy->fd < 0)
            continue;
        _cleanup_free_ char *place = xasprintf("%s%s%s", destination, slash, hierarchy->name);
        _cleanup_free_ char *source =
            xasprintf(CGROUP_MOUNT "%s%s/%s", slash, hierarchy->name, cgroup->path);
        criu_add_pair(out, CRIU_EXTERNAL_MOUNT, place, back ? source : place);
    }
}

void checkpoint_add_cgroups(struct buffer *out, const struct oci_config *config,
                            const struct cgroup *cgroup, bool back)
{
    for (size_t i = 0; i < config->mounts_count; i++) {
        const struct oci_mount *mount = config->mounts[i];
        if (text_equal(mount->type, "cgroup") || text_equal(mount->type, "cgroup2"))
            add_cgroup_mount(out, mount->destination, cgroup, back);
    }
}

static void add_mounts(struct buffer *out, const struct oci_config *config, int root_fd)
{
    for (size_t i = 0; i < config->mounts_count; i++) {
        if (!checkpoint_is_bind(config->mounts[i]))
            continue;
        _cleanup_free_ char *place =
            checkpoint_mount_place(root_fd, config->mounts[i]->destination);
        criu_add_pair(out, CRIU_EXTERNAL_MOUNT, place, place);
    }
    checkpoint_add_devices(out, config);
}

bool checkpoint_is_bind(const struct oci_mount *mount)
{
    for (size_t i = 0; mount->options && mount->options[i]; i++) {
        if (text_equal(mount->options[i], "bind") || text_equal(mount->options[i], "rbind"))
            return true;
    }
    return text_equal(mount->type, "bind");
}

void checkpoint_add_devices(struct buffer *out, const struct oci_config *config)
{
    static const char *const always[] = {"/dev/null",   "/dev/zero",    "/dev/full",
                                         "/dev/random", "/dev/urandom", "/dev/tty"};

    for (size_t i = 0; i < ARRAY_SIZE(always); i++)
        criu_add_pair(out, CRIU_EXTERNAL_MOUNT, always[i], always[i]);
    for (size_t i = 0; config->linux && i < config->linux->devices_count; i++)
        criu_add_pair(out, CRIU_EXTERNAL_MOUNT, config->linux->devices[i]->path,
                      config->linux->devices[i]->path);
}

/* Of a namespace that was joined by its path only the name is saved, by its inode. */
static int add_namespace(struct buffer *out, const struct oci_config *config, const char *type,
                         const char *kind, const char *key, struct error *err)
{
    const char *path = criu_namespace_path(config, type);
    struct stat status;

    if (!path)
        return 0;
    if (stat(path, &status) < 0)
        return error_errno(err, errno, "linux.namespaces: %s", path);
    _cleanup_free_ char *text =
        xasprintf("%s[%llu]:%s", kind, (unsigned long long)status.st_ino, key);
    protobuf_add_text(out, CRIU_EXTERNAL, text);
    return 0;
}

/* --- the request ------------------------------------------------------------------------------ */

static void add_dump_options(struct buffer *out, const struct cloche_runtime_criu_options *options,
                             const struct stored *stored)
{
    _cleanup_buffer_ struct buffer server = BUFFER_INIT;

    protobuf_add_text(out, CRIU_ROOT, stored->state->rootfs);
    protobuf_add_number(out, CRIU_PID, (uint64_t)stored->state->pid);
    protobuf_add_number(out, CRIU_LEAVE_RUNNING, options->leave_running);
    protobuf_add_number(out, CRIU_TCP_SKIP_IN_FLIGHT, options->tcp_skip_in_flight);
    protobuf_add_number(out, CRIU_LINK_REMAP, options->link_remap);
    if (options->parent_path) {
        protobuf_add_text(out, CRIU_PARENT_IMAGE, options->parent_path);
        protobuf_add_number(out, CRIU_TRACK_MEMORY, true);
    }
    if (options->page_address) {
        protobuf_add_text(&server, PAGE_SERVER_ADDRESS, options->page_address);
        protobuf_add_number(&server, PAGE_SERVER_PORT, options->page_port);
        protobuf_add_message(out, CRIU_PAGE_SERVER, &server);
    }
}

static void add_cgroup(struct buffer *out, const struct oci_config *config,
                       const struct stored *stored)
{
    struct cgroup cgroup;

    if (state_open_cgroup(stored, &cgroup, NULL) < 0)
        return;
    const struct cgroup_hierarchy *freezer = cgroup_hierarchy_find(&cgroup, "freezer");
    if (freezer && freezer->fd >= 0 && cgroup.path[0]) {
        _cleanup_free_ char *path = xasprintf(CGROUP_MOUNT "/%s%s%s", freezer->name,
                                              freezer->name[0] ? "/" : "", cgroup.path);
        protobuf_add_text(out, CRIU_FREEZE_CGROUP, path);
    }
    checkpoint_add_cgroups(out, config, &cgroup, false);
    cgroup_finish(&cgroup);
}

static int add_all(struct buffer *out, const struct cloche_runtime_criu_options *options,
                   const struct stored *stored, const struct oci_config *config,
                   const struct criu_folders *folders, struct error *err)
{
    _cleanup_free_ char *path = xasprintf("/proc/%d/root", stored->state->pid);
    _cleanup_close_ int root_fd = open(path, O_PATH | O_DIRECTORY | O_CLOEXEC);

    if (root_fd < 0)
        return error_errno(err, errno, "open the container's root");
    criu_add_common(out, options, config, folders, LOG_NAME);
    add_dump_options(out, options, stored);
    add_cgroup(out, config, stored);
    int r = add_namespace(out, config, "network", "net", CHECKPOINT_NETWORK_KEY, err);
    if (r == 0)
        r = add_namespace(out, config, "pid", "pid", CHECKPOINT_PID_KEY, err);
    if (r == 0 && !options->pre_dump) {
        add_mounts(out, config, root_fd);
        add_masked_files(out, config->linux, root_fd);
    }
    return r;
}

/* What restore has to connect again: the pipes among the standard descriptors. */
static int write_descriptors(const struct criu_folders *folders, pid_t pid, struct error *err)
{
    _cleanup_buffer_ struct buffer text = BUFFER_INIT;
    struct json_writer writer;

    json_writer_init(&writer, &text, JSON_COMPACT);
    json_writer_array_begin(&writer);
    for (int i = 0; i <= STDERR_FILENO; i++) {
        char target[PATH_MAX];
        _cleanup_free_ char *path = xasprintf("/proc/%d/fd/%d", pid, i);
        ssize_t length = readlink(path, target, sizeof(target) - 1);
        target[length > 0 ? length : 0] = '\0';
        json_writer_string(&writer, target);
    }
    json_writer_array_end(&writer);
    return file_replace_at(folders->images_fd, CHECKPOINT_DESCRIPTORS, text.data, text.length, 0600,
                           err);
}

static int on_event(struct criu_event *event, void *context, struct error *err _unused_)
{
    const struct cloche_runtime_criu_options *options = context;

    if (text_equal(event->script, "status-ready") && options->status_fd) {
        (void)!write(*options->status_fd, "", 1);
        close(*options->status_fd);
    }
    return 0;
}

static int dump(const struct cloche_runtime_criu_options *options, const struct stored *stored,
                const struct oci_config *config, const struct criu_folders *folders,
                struct error *err)
{
    _cleanup_buffer_ struct buffer request = BUFFER_INIT;
    struct criu criu;
    int r = add_all(&request, options, stored, config, folders, err);

    if (r == 0 && !options->pre_dump)
        r = write_descriptors(folders, stored->state->pid, err);
    if (r == 0)
        r = criu_start(options->criu, NULL, 0, &criu, err);
    if (r < 0)
        return r;
    r = criu_call(&criu, options->pre_dump ? CRIU_PRE_DUMP : CRIU_DUMP, &request, on_event,
                  (void *)(uintptr_t)options, err);
    criu_finish(&criu, r == 0);
    return r;
}

static int checkpoint(const char *root, struct stored *stored,
                      const struct cloche_runtime_criu_options *options, char ***warnings,
                      struct error *err)
{
    _cleanup_oci_config_ struct oci_config *config = NULL;
    struct criu_folders folders;
    int r = criu_open_folders(options, LOG_NAME, &folders, err);

    if (r < 0)
        return r;
    r = check(stored, options, &folders, err);
    if (r == 0)
        r = state_load_config(stored, &config, err);
    if (r == 0) {
        r = dump(options, stored, config, &folders, err);
        if (r < 0)
            criu_report_log(&folders, warnings);
    }
    criu_folders_finish(&folders);
    if (r == 0 && !options->leave_running && !options->pre_dump)
        r = delete_stored(root, options->id, stored, true, warnings, err);
    return r;
}

int runtime_checkpoint(const char *root, const struct cloche_runtime_criu_options *options,
                       char ***warnings, struct error *err)
{
    struct stored stored;
    int r = state_load(&stored, root, options->id, err);

    if (r < 0)
        return r;
    if (geteuid() != 0)
        strv_append(warnings, "runc checkpoint is untested with rootless containers");
    r = checkpoint(root, &stored, options, warnings, err);
    state_finish(&stored);
    return r;
}
