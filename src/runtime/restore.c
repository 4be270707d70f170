#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <runtime/runtime.h>
#include <schema/runtime_state.h>

#include <base/alloc.h>
#include <base/clock.h>
#include <base/file.h>
#include <base/socket.h>
#include <base/text.h>

#include "checkpoint.h"
#include "container_cgroup.h"
#include "create.h"
#include "criu.h"
#include "delete.h"
#include "foreground.h"
#include "hooks.h"
#include "kernel.h"
#include "mounts.h"
#include "protobuf.h"
#include "state.h"
#include "terminal.h"

#define LOG_NAME "restore.log"
#define ROOT_FOLDER "criu-root"

enum { CGROUP_TEXT_MAX = 1 << 16 }; /* bytes of /proc/PID/cgroup */

struct restore {
    struct container *container;
    const struct cloche_runtime_criu_options *options;
    struct criu_folders folders;
    int master_fd; /* owned; the terminal's, in the foreground; -1 */
    int extra_fds[CRIU_EXTRA_FDS_MAX];
    size_t extra_count;
};

/* --- the mounts that criu wants to find ------------------------------------------------------- */

/* criu wants a root that is a mount. It is one in a mount namespace of our own, which nobody else
 * sees and which ends with us. */
static int mount_root(const struct container *container, const char *state_root, char **ret_path,
                      struct error *err)
{
    char resolved[PATH_MAX];

    if (mkdirat(container->state_fd, ROOT_FOLDER, 0755) < 0)
        return error_errno(err, errno, "create " ROOT_FOLDER);
    if (unshare(CLONE_NEWNS) < 0 || mount(NULL, "/", NULL, MS_SLAVE | MS_REC, NULL) < 0)
        return error_errno(err, errno, "create a mount namespace");
    _cleanup_free_ char *path = xasprintf("%s/%s/" ROOT_FOLDER, state_root, container->id);
    if (!realpath(path, resolved) ||
        mount(container->rootfs, resolved, NULL, MS_BIND | MS_REC, NULL) < 0)
        return error_errno(err, errno, "mount the root for criu");
    *ret_path = xstrdup(resolved);
    return 0;
}

static bool is_below_tmpfs(const struct oci_config *config, const char *destination)
{
    for (size_t i = 0; i < config->mounts_count; i++) {
        const struct oci_mount *mount = config->mounts[i];
        size_t length = strlen(mount->destination);
        if (text_equal(mount->type, "tmpfs") && text_starts_with(destination, mount->destination) &&
            destination[length] == '/')
            return true;
    }
    return false;
}

/* Without links and dots, which criu does not take. NULL: error, with the message in err. */
static char *source_of(const struct container *container, const struct oci_mount *mount,
                       struct error *err)
{
    char resolved[PATH_MAX];
    _cleanup_free_ char *path = mount->source[0] == '/'
                                    ? xstrdup(mount->source)
                                    : xasprintf("%s/%s", container->bundle, mount->source);

    if (realpath(path, resolved))
        return xstrdup(resolved);
    error_errno(err, errno, "source: %s", path);
    return NULL;
}

static int make_file(int root_fd, const char *path, struct error *err)
{
    const char *name;
    _cleanup_close_ int parent_fd = file_open_parent_in_root(root_fd, path, 0755, &name, err);

    if (parent_fd < 0)
        return parent_fd;
    int fd = openat(parent_fd, name, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0644);
    close_fd(fd);
    return fd >= 0 || errno == EEXIST ? 0 : error_errno(err, errno, "create %s", path);
}

/* The mount points of later entries may lie on it: made in the host's folder only where the
 * container may write to it. */
static int set_flags(int tree_fd, const struct oci_mount *mount, struct error *err)
{
    struct mount_options options;
    int r = mount_options_parse(mount->options, &options, err);

    if (r == 0)
        r = mounts_set_bind_flags(tree_fd, &options, false, err);
    if (r == 0)
        r = mounts_set_tree(tree_fd, &options, err);
    mount_options_finish(&options);
    return r;
}

static int mount_over(int place_fd, const char *source, const struct oci_mount *mount,
                      struct error *err)
{
    _cleanup_close_ int tree_fd =
        kernel_open_tree(AT_FDCWD, source, OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | AT_RECURSIVE);
    if (tree_fd < 0)
        return error_errno(err, -tree_fd, "mount %s", source);
    int r = set_flags(tree_fd, mount, err);
    if (r < 0)
        return r;
    r = kernel_move_mount(tree_fd, place_fd);
    return r < 0 ? error_errno(err, -r, "mount %s", source) : 0;
}

/* As create makes them; what lies on a tmpfs comes with its contents. */
static int make_mount_point(const struct container *container, const struct oci_mount *mount,
                            int root_fd, struct error *err)
{
    struct stat status = {.st_mode = S_IFDIR};
    _cleanup_free_ char *source = NULL;

    if (text_equal(mount->type, "cgroup") || is_below_tmpfs(container->config, mount->destination))
        return 0;
    if (checkpoint_is_bind(mount)) {
        source = source_of(container, mount, err);
        if (!source)
            return -ENOENT;
        if (stat(source, &status) < 0)
            return error_errno(err, errno, "source: %s", source);
    }
    if (!S_ISDIR(status.st_mode))
        return make_file(root_fd, mount->destination, err);
    _cleanup_close_ int fd = file_mkdir_in_root(root_fd, mount->destination, 0755, err);
    if (fd < 0)
        return fd;
    return source ? mount_over(fd, source, mount, err) : 0;
}

/* In a mount namespace that the caller leaves: the mounts are there for the points alone. */
static int make_mount_points(const struct container *container, struct error *err)
{
    const struct oci_config *config = container->config;

    if (unshare(CLONE_NEWNS) < 0 || mount(NULL, "/", NULL, MS_SLAVE | MS_REC, NULL) < 0)
        return error_errno(err, errno, "create a mount namespace");
    _cleanup_close_ int root_fd = open(container->rootfs, O_PATH | O_DIRECTORY | O_CLOEXEC);
    if (root_fd < 0)
        return error_errno(err, errno, "open %s", container->rootfs);
    for (size_t i = 0; i < config->mounts_count; i++) {
        int r = make_mount_point(container, config->mounts[i], root_fd, err);
        if (r < 0) {
            error_context(err, "mounts[%zu]", i);
            return r;
        }
    }
    return 0;
}

static int add_mounts(struct buffer *out, const struct container *container, const char *root,
                      struct error *err)
{
    const struct oci_config *config = container->config;
    _cleanup_close_ int root_fd = open(root, O_PATH | O_DIRECTORY | O_CLOEXEC);

    if (root_fd < 0)
        return error_errno(err, errno, "open %s", root);
    for (size_t i = 0; i < config->mounts_count; i++) {
        const struct oci_mount *mount = config->mounts[i];
        if (!checkpoint_is_bind(mount))
            continue;
        _cleanup_free_ char *place = checkpoint_mount_place(root_fd, mount->destination);
        _cleanup_free_ char *source = source_of(container, mount, err);
        if (!source) {
            error_context(err, "mounts[%zu]", i);
            return -ENOENT;
        }
        criu_add_pair(out, CRIU_EXTERNAL_MOUNT, place, source);
    }
    checkpoint_add_devices(out, config); /* with it /dev/null, for masked paths */
    return 0;
}

/* --- namespaces, descriptors, cgroups --------------------------------------------------------- */

static void add_inherited(struct buffer *out, const char *key, int fd)
{
    _cleanup_buffer_ struct buffer pair = BUFFER_INIT;

    protobuf_add_text(&pair, 1, key);
    protobuf_add_number(&pair, 2, (uint64_t)fd);
    protobuf_add_message(out, CRIU_INHERIT_FD, &pair);
}

static int add_namespaces(struct buffer *out, struct restore *restore, struct error *err)
{
    const struct oci_config *config = restore->container->config;

    for (size_t i = 0; i < NAMESPACES_COUNT; i++) {
        const struct namespace_kind *kind = &namespace_kinds[i];
        const char *path = criu_namespace_path(config, kind->name);
        if (!path)
            continue;
        if (kind->flag == CLONE_NEWCGROUP)
            return error_set(err, -ENOTSUP, "Do not know how to handle namespace cgroup");
        if (kind->flag != CLONE_NEWNET && kind->flag != CLONE_NEWPID) {
            criu_add_pair(out, CRIU_JOIN_NAMESPACE, kind->file, path);
            continue;
        }
        int fd = open(path, O_RDONLY | O_CLOEXEC);
        if (fd < 0)
            return error_errno(err, errno, "Requested %s namespace %s", kind->name, path);
        add_inherited(out, kind->flag == CLONE_NEWNET ? CHECKPOINT_NETWORK_KEY : CHECKPOINT_PID_KEY,
                      CRIU_FIRST_EXTRA_FD + (int)restore->extra_count);
        restore->extra_fds[restore->extra_count++] = fd;
    }
    return 0;
}

static int add_descriptors(struct buffer *out, const struct criu_folders *folders,
                           struct error *err)
{
    _cleanup_free_ char *list = NULL;
    struct runtime_descriptors *descriptors;
    int r = file_read_at(folders->images_fd, CHECKPOINT_DESCRIPTORS, CHECKPOINT_DESCRIPTORS_MAX,
                         &list, NULL, err);

    if (r < 0) {
        error_context(err, "no checkpoint of a container");
        return r;
    }
    _cleanup_free_ char *text = xasprintf("{\"list\": %s}", list);
    r = runtime_descriptors_parse(text, strlen(text), CHECKPOINT_DESCRIPTORS, &descriptors, err);
    if (r < 0)
        return r;
    for (size_t i = 0; i < descriptors->list_count && i <= STDERR_FILENO; i++) {
        if (strstr(descriptors->list[i], "pipe:"))
            add_inherited(out, descriptors->list[i], (int)i);
    }
    runtime_descriptors_free(descriptors);
    return 0;
}

/* Its processes go where criu is, controller by controller. */
static int add_cgroups(struct buffer *out, pid_t pid, struct error *err)
{
    _cleanup_free_ char *path = xasprintf("/proc/%d/cgroup", pid), *text = NULL;
    int r = file_read_at(AT_FDCWD, path, CGROUP_TEXT_MAX, &text, NULL, err);

    if (r < 0)
        return r;
    _cleanup_strv_ char **lines = strv_split(text, '\n');
    for (char **line = lines; line && *line; line++) {
        char *names = strchr(*line, ':'), *place = names ? strchr(names + 1, ':') : NULL;
        if (!place)
            continue;
        *place++ = '\0';
        _cleanup_strv_ char **controllers = strv_split(names + 1, ',');
        for (size_t i = 0; controllers && controllers[i]; i++)
            criu_add_pair(out, CRIU_CGROUP_ROOT, controllers[i], place);
        if (!controllers)
            criu_add_pair(out, CRIU_CGROUP_ROOT, "", place);
    }
    return 0;
}

/* criu is put into the new cgroup, and whom it makes is in it from the start. */
static int enter_cgroup(struct container *container, pid_t pid, struct error *err)
{
    container->pid = pid;
    int r = container_make_cgroup(container, err);
    container->pid = 0;
    for (size_t i = 0; r == 0 && i < container->join.count; i++) {
        if (dprintf(container->join.fds[i], "%d", pid) < 0)
            r = error_errno(err, errno, "put criu into cgroup %s", container->cgroup.path);
    }
    cgroup_join_finish(&container->join);
    return r;
}

/* --- the request ------------------------------------------------------------------------------ */

static int run_hooks(struct container *container, pid_t pid, struct error *err)
{
    const struct oci_hooks *hooks = container->config->hooks;
    const struct runtime_state state = container_describe(container);
    _cleanup_buffer_ struct buffer text = BUFFER_INIT;

    if (!hooks)
        return 0;
    state_for_hooks(&state, "creating", pid, &text);
    struct hook_call call = {.kind = "prestart",
                             .hooks = hooks->prestart,
                             .count = hooks->prestart_count,
                             .state = buffer_text(&text),
                             .directory = container->bundle,
                             .output = &container->hook_output};
    int r = hooks_run(&call, err);
    call.kind = "createRuntime";
    call.hooks = hooks->create_runtime;
    call.count = hooks->create_runtime_count;
    return r < 0 ? r : hooks_run(&call, err);
}

static int take_terminal(struct restore *restore, struct criu_event *event, struct error *err)
{
    const char *path = restore->options->console_socket;

    if (event->fd < 0)
        return error_set(err, -EPROTO, "criu: a terminal without its descriptor");
    if (!path) {
        close_fd(restore->master_fd);
        restore->master_fd = steal_fd(&event->fd);
        return 0;
    }
    _cleanup_close_ int socket_fd = socket_connect_unix(path, SOCK_STREAM, err);
    return socket_fd < 0 ? socket_fd : terminal_send(socket_fd, event->fd, err);
}

static int on_event(struct criu_event *event, void *context, struct error *err)
{
    struct restore *restore = context;

    if (text_equal(event->script, "setup-namespaces"))
        return run_hooks(restore->container, event->pid, err);
    if (text_equal(event->script, "post-restore"))
        restore->container->pid = event->pid;
    else if (text_equal(event->script, "orphan-pts-master"))
        return take_terminal(restore, event, err);
    return 0;
}

static int add_all(struct buffer *out, struct restore *restore, const char *root, struct error *err)
{
    const struct cloche_runtime_criu_options *options = restore->options;

    criu_add_common(out, options, restore->container->config, &restore->folders, LOG_NAME);
    protobuf_add_text(out, CRIU_ROOT, root);
    protobuf_add_number(out, CRIU_EVASIVE_DEVICES, true);
    protobuf_add_number(out, CRIU_RESTORE_SIBLING, true);
    if (options->lsm_profile)
        protobuf_add_text(out, CRIU_LSM_PROFILE, options->lsm_profile);
    if (options->lsm_mount_context)
        protobuf_add_text(out, CRIU_LSM_MOUNT_CONTEXT, options->lsm_mount_context);
    int r = add_namespaces(out, restore, err);
    if (r == 0)
        r = add_mounts(out, restore->container, root, err);
    return r < 0 ? r : add_descriptors(out, &restore->folders, err);
}

static int call(struct restore *restore, struct buffer *request, struct error *err)
{
    struct container *container = restore->container;
    struct criu criu;
    int r =
        criu_start(restore->options->criu, restore->extra_fds, restore->extra_count, &criu, err);

    if (r < 0)
        return r;
    r = enter_cgroup(container, criu.process.pid, err);
    checkpoint_add_cgroups(request, container->config, &container->cgroup, true);
    if (r == 0)
        r = add_cgroups(request, criu.process.pid, err);
    if (r == 0)
        r = criu_call(&criu, CRIU_RESTORE, request, on_event, restore, err);
    criu_finish(&criu, r == 0);
    if (r == 0 && container->pid <= 0)
        r = error_set(err, -EPROTO, "criu did not say which process it restored");
    if (r < 0)
        return r;
    container->pidfd = kernel_pidfd_open(container->pid);
    return container->pidfd < 0 ? error_errno(err, -container->pidfd, "the restored process") : 0;
}

/* In a mount namespace of our own for as long as criu needs it. */
static int restore_processes(struct restore *restore, const char *state_root, struct error *err)
{
    _cleanup_buffer_ struct buffer request = BUFFER_INIT;
    _cleanup_close_ int mounts_fd = open("/proc/self/ns/mnt", O_RDONLY | O_CLOEXEC);
    _cleanup_close_ int folder_fd = open(".", O_PATH | O_DIRECTORY | O_CLOEXEC);
    _cleanup_free_ char *root = NULL;

    if (mounts_fd < 0 || folder_fd < 0)
        return error_errno(err, errno, "open the own mount namespace");
    int r = make_mount_points(restore->container, err);
    if (r == 0 && (setns(mounts_fd, CLONE_NEWNS) < 0 || fchdir(folder_fd) < 0))
        r = error_errno(err, errno, "return to the own mount namespace");
    if (r == 0)
        r = mount_root(restore->container, state_root, &root, err);
    /* From here on: criu mounts below its working directory, which has to be in its namespace. */
    if (r == 0)
        r = criu_open_folders(restore->options, LOG_NAME, &restore->folders, err);
    if (r == 0)
        r = add_all(&request, restore, root, err);
    if (r == 0)
        r = call(restore, &request, err);
    if ((setns(mounts_fd, CLONE_NEWNS) < 0 || fchdir(folder_fd) < 0) && r == 0)
        r = error_errno(err, errno, "return to the own mount namespace");
    unlinkat(restore->container->state_fd, ROOT_FOLDER, AT_REMOVEDIR);
    return r;
}

/* --- the container ---------------------------------------------------------------------------- */

static int prepare(struct container *container, const char *root,
                   const struct cloche_runtime_criu_options *options, struct error *err)
{
    int r = state_check_id(options->id, err);

    if (r == 0)
        r = create_load_bundle(container, options->bundle, err);
    if (r == 0)
        r = container->state_fd = state_create(root, options->id, err);
    if (r < 0)
        return r;
    container->created = clock_format(clock_now());
    container->systemd_cgroup = options->systemd_cgroup;
    r = namespaces_init(&container->namespaces, container->config->linux, err);
    if (r == 0 && container->config->hooks)
        r = hook_output_open(&container->hook_output, container->config->annotations, err);
    if (r == 0)
        r = container_cgroup_init(container, err);
    return r;
}

static void roll_back(struct container *container, const char *root)
{
    if (container->state_fd < 0)
        return;
    if (container->pid > 0) {
        kill(container->pid, SIGKILL);
        waitpid(container->pid, NULL, 0);
    }
    if (container->cgroup.ops) {
        container->cgroup.ops->kill(&container->cgroup, NULL);
        cgroup_destroy(&container->cgroup, NULL);
    }
    state_remove(root, container->id, NULL);
}

static int restore_container(struct restore *restore, const char *root, struct error *err)
{
    struct container *container = restore->container;
    int r = prepare(container, root, restore->options, err);

    if (r == 0) {
        r = restore_processes(restore, root, err);
        if (r < 0 && restore->folders.log)
            criu_report_log(&restore->folders, &container->warnings);
    }
    if (r == 0)
        r = state_write(container, container->pid, err);
    if (r == 0)
        r = create_write_pid_file(restore->options->pid_file, container->pid, err);
    if (r < 0)
        roll_back(container, root);
    return r;
}

int runtime_restore(const char *root, const struct cloche_runtime_criu_options *options,
                    char ***warnings, int *ret_exit_code, struct error *err)
{
    struct container container;
    struct restore restore = {.container = &container,
                              .options = options,
                              .folders = {.images_fd = -1, .work_fd = -1},
                              .master_fd = -1};

    container_init(&container, options->id);
    *ret_exit_code = 0;
    int r = restore_container(&restore, root, err);
    if (r == 0 && !options->detach) {
        r = foreground_wait(container.pid, restore.master_fd, NULL, ret_exit_code, NULL, err);
        const struct runtime_state state = container_describe(&container);
        if (r == 0)
            r = delete_leftovers(root, options->id, &container.cgroup, container.config, &state,
                                 &container.warnings, err);
    }
    for (size_t i = 0; i < restore.extra_count; i++)
        close_fd(restore.extra_fds[i]);
    close_fd(restore.master_fd);
    criu_folders_finish(&restore.folders);
    *warnings = steal_ptr(container.warnings);
    container_finish(&container);
    return r;
}
