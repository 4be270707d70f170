#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/magic.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <base/alloc.h>
#include <base/clock.h>
#include <base/file.h>
#include <base/socket.h>
#include <base/text.h>

#include "annotations.h"
#include "config_check.h"
#include "config_version.h"
#include "container_cgroup.h"
#include "create.h"
#include "device_nodes.h"
#include "delete.h"
#include "filter_cache.h"
#include "foreground.h"
#include "hooks.h"
#include "init.h"
#include "intel_rdt.h"
#include "kernel.h"
#include "labels.h"
#include "listener.h"
#include "mounts.h"
#include "net_devices.h"
#include "notify.h"
#include "pidfd_socket.h"
#include "rootfs.h"
#include "seal.h"
#include "workload.h"
#include "state.h"
#include "sync.h"
#include "sysctl.h"
#include "terminal.h"
#include "users.h"

int create_open_proc(struct error *err)
{
    struct statfs status;
    _cleanup_close_ int fd = open("/proc", O_PATH | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);

    if (fd < 0 || fstatfs(fd, &status) < 0)
        return error_errno(err, errno, "open /proc");
    if (status.f_type != PROC_SUPER_MAGIC)
        return error_set(err, -EINVAL, "/proc is not a proc file system");
    return steal_fd(&fd);
}

int create_write_pid_file(const char *path, pid_t pid, struct error *err)
{
    char text[16];

    if (!path)
        return 0;
    int length = snprintf(text, sizeof(text), "%d", pid);
    return file_replace_at(AT_FDCWD, path, text, (size_t)length, 0644, err);
}

/* Absolute, with its symbolic links: hooks and `state` are to see the name that the caller knows.
 */
static char *absolute_path(const char *path)
{
    char current[PATH_MAX];
    size_t length = strlen(path);

    while (length > 1 && path[length - 1] == '/')
        length--;
    if (path[0] == '/')
        return xasprintf("%.*s", (int)length, path);
    if (!getcwd(current, sizeof(current)))
        return NULL;
    return text_equal(path, ".") ? xstrdup(current)
                                 : xasprintf("%s/%.*s", current, (int)length, path);
}

static int load_config(struct container *container, const char *bundle, const char *name,
                       struct error *err)
{
    container->bundle = absolute_path(text_empty(bundle) ? "." : bundle);
    if (!container->bundle)
        return error_errno(err, errno, "the current directory");
    _cleanup_free_ char *path =
        name && name[0] == '/' ? xstrdup(name)
                               : xasprintf("%s/%s", container->bundle, name ? name : "config.json");
    int r = file_read_foreign(path, CONFIG_FILE_MAX, &container->config_text,
                              &container->config_length, err);
    if (r == 0)
        r = oci_config_parse(container->config_text, container->config_length, "config.json",
                             &container->config, err);
    if (r < 0)
        return r;
    if (!container->config->linux)
        container->config->linux = xnew(struct oci_linux);
    config_modernize(container->config);
    annotations_apply(container->config);
    users_fill_maps(container->config->linux);
    r = config_check(container->config, err);
    if (r < 0)
        error_context(err, "config.json");
    else
        labels_warn_of_mounts(container->config->linux, &container->warnings);
    return r;
}

static int find_rootfs(struct container *container, struct error *err)
{
    const char *path = container->config->root->path;
    _cleanup_free_ char *full =
        path[0] == '/' ? xstrdup(path) : xasprintf("%s/%s", container->bundle, path);
    char link[32], resolved[PATH_MAX];
    _cleanup_close_ int fd = open(full, O_PATH | O_CLOEXEC);
    struct stat status;

    /* The kernel's name for it: realpath(3) would ask for each component. */
    snprintf(link, sizeof(link), "/proc/self/fd/%d", fd);
    ssize_t length = fd < 0 ? -1 : readlink(link, resolved, sizeof(resolved) - 1);
    if (length < 0 || fstat(fd, &status) < 0)
        return error_errno(err, errno, "root.path: %s", full);
    resolved[length] = '\0';
    if (!S_ISDIR(status.st_mode))
        return error_set(err, -ENOTDIR, "root.path: %s is not a directory", full);
    if (text_equal(resolved, "/"))
        return error_set(err, -EINVAL, "root.path: the host's root cannot be a container's");
    container->rootfs = xstrdup(resolved);
    return 0;
}

int create_load_bundle(struct container *container, const char *bundle, struct error *err)
{
    int r = load_config(container, bundle, NULL, err);

    return r < 0 ? r : find_rootfs(container, err);
}

/* Where the terminal's master goes: the caller's socket, or ours. */
static int open_console(struct container *container,
                        const struct cloche_runtime_create_options *options, bool wait_for_start,
                        int *ret_relay_fd, struct error *err)
{
    int fds[2];

    if (!container->config->process->terminal) {
        if (options->console_socket)
            return error_set(err, -EINVAL,
                             "cannot use console socket if the runtime will not detach or allocate "
                             "tty");
        return 0;
    }
    container->window =
        terminal_first_size(container->config->process->console_size, !options->console_socket);
    if (options->console_socket) {
        container->console_fd = socket_connect_unix(options->console_socket, SOCK_STREAM, err);
        return container->console_fd < 0 ? container->console_fd : 0;
    }
    if (wait_for_start || options->detach)
        return error_set(err, -EINVAL,
                         "cannot allocate tty if the runtime will detach without setting console "
                         "socket: use --console-socket");
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds) < 0)
        return error_errno(err, errno, "create a socket pair");
    *ret_relay_fd = fds[0];
    container->console_fd = fds[1];
    container->relays_console = true;
    return 0;
}

static int open_fifo(struct container *container, struct error *err)
{
    if (mkfifoat(container->state_fd, STATE_FIFO, 0600) < 0)
        return error_errno(err, errno, "create " STATE_FIFO);
    /* Both ends: no wait for the other side here, and no end of file for the child before start. */
    container->fifo_fd = openat(container->state_fd, STATE_FIFO, O_RDWR | O_CLOEXEC);
    return container->fifo_fd < 0 ? error_errno(err, errno, "open " STATE_FIFO) : 0;
}

static int check_system_calls(const struct container *container, struct error *err)
{
    const char *value = annotation_value(container->config->annotations, ANNOTATION_SECCOMP_FAIL);

    return text_equal(value, "0") ? 0 : filter_check_known(container->config->linux->seccomp, err);
}

static int connect_pidfd_socket(struct container *container,
                                const struct cloche_runtime_create_options *options,
                                struct error *err)
{
    const char *path = options->pidfd_socket;

    if (!path)
        path = annotation_value(container->config->annotations, ANNOTATION_PIDFD_RECEIVER);
    return pidfd_socket_connect(path, &container->pidfd_socket, err);
}

/* What the child cannot open from inside. */
static int open_resources(struct container *container,
                          const struct cloche_runtime_create_options *options, bool wait_for_start,
                          int *ret_relay_fd, struct error *err)
{
    int r = namespaces_init(&container->namespaces, container->config->linux, err);

    if (r == 0)
        r = sysctl_check(container, err);
    if (r == 0)
        r = net_devices_check(container, err);
    if (r == 0 && annotation_value(container->config->annotations, ANNOTATION_SECCOMP_FAIL))
        r = check_system_calls(container, err);
    if (r == 0)
        r = container->proc_fd = create_open_proc(err);
    if (r >= 0)
        r = connect_pidfd_socket(container, options, err);
    if (r == 0)
        r = open_console(container, options, wait_for_start, ret_relay_fd, err);
    if (r == 0)
        r = mounts_prepare(container, err);
    if (r == 0)
        r = rootfs_note_shared(container, err);
    if (r == 0)
        r = device_nodes_prepare(container, err);
    if (r >= 0 && container->config->hooks)
        r = hook_output_open(&container->hook_output, container->config->annotations, err);
    if (r == 0 && wait_for_start)
        r = open_fifo(container, err);
    if (r == 0)
        r = container_cgroup_init(container, err);
    return r < 0 ? r : 0;
}

/* Returns in the parent only. */
static int launch(struct container *container, struct workload *workload, struct error *err)
{
    int parent_fd = -1;
    int r = sync_pair(&parent_fd, &container->sync_fd, err);

    if (r < 0)
        return r;
    r = namespaces_clone(&container->namespaces, container->config->linux, &container->join,
                         &container->pid, &container->pidfd, &container->in_cgroup, err);
    if (r == 0) {
        close(parent_fd);
        init_main(container, workload);
    }
    close_fd(container->sync_fd);
    container->sync_fd = parent_fd;
    cgroup_join_finish(&container->join);
    close_fd(steal_fd(&container->fifo_fd));
    close_fd(steal_fd(&container->console_fd));
    return r < 0 ? r : 0;
}

static int map_users(struct container *container, struct error *err)
{
    if (!(container->namespaces.create & CLONE_NEWUSER))
        return 0;
    int r = users_map(container->proc_fd, container->pid, container->config->linux, err);
    if (r == 0)
        r = mounts_map_users(container, err);
    return r < 0 ? r : sync_send(container->sync_fd, SYNC_USERS_MAPPED, NULL, 0, err);
}

static int serve_devices(struct container *container, struct error *err)
{
    int r = sync_expect(container->sync_fd, SYNC_NETWORK_MADE, NULL, NULL, err);

    if (r == 0)
        r = net_devices_move(container, err);
    return r < 0 ? r : sync_send(container->sync_fd, SYNC_DEVICES_MOVED, NULL, 0, err);
}

/* prestart and createRuntime run out here, in the bundle as with runc; createContainer in the
 * child. */
static int serve_hooks(struct container *container, struct error *err)
{
    const struct oci_hooks *hooks = container->config->hooks;
    const struct runtime_state state = container_describe(container);
    _cleanup_buffer_ struct buffer text = BUFFER_INIT;

    if (!hooks)
        return 0;
    int r = sync_expect(container->sync_fd, SYNC_MOUNTS_DONE, NULL, NULL, err);
    if (r < 0)
        return r;
    /* "creating" by the letter; who wrote hooks for crun and runtime-tools' checks go by this. */
    state_for_hooks(&state, "created", container->pid, &text);
    struct hook_call call = {.kind = "prestart",
                             .hooks = hooks->prestart,
                             .count = hooks->prestart_count,
                             .state = buffer_text(&text),
                             .directory = container->bundle,
                             .output = &container->hook_output};
    r = hooks_run(&call, err);
    call.kind = "createRuntime";
    call.hooks = hooks->create_runtime;
    call.count = hooks->create_runtime_count;
    if (r == 0)
        r = hooks_run(&call, err);
    return r < 0 ? r : sync_send(container->sync_fd, SYNC_HOOKS_DONE, NULL, 0, err);
}

int create_serve_limits(int sync_fd, pid_t pid, const struct workload *workload, struct error *err)
{
    int r = sync_expect(sync_fd, SYNC_ROOT_DONE, NULL, NULL, err);

    if (r == 0)
        r = workload_set_limits(pid, workload, err);
    return r < 0 ? r : sync_send(sync_fd, SYNC_LIMITS_SET, NULL, 0, err);
}

static int get_filter(struct container *container, struct filter **ret, size_t *ret_size,
                      struct error *err)
{
    _cleanup_close_ int root_fd =
        openat(container->state_fd, "..", O_PATH | O_DIRECTORY | O_CLOEXEC);
    int r = filter_get(root_fd, container->config->linux->seccomp, ret, ret_size, err);

    if (r == 0 && (*ret)->length)
        strv_take(&container->warnings,
                  xasprintf(RUNTIME_DEBUG "seccomp filter flags: %u", (*ret)->flags));
    return r;
}

/* What the child needs first, and what takes long, is done first: it mounts meanwhile. */
static int serve(struct container *container, const struct workload *workload, struct error *err)
{
    _cleanup_free_ struct filter *filter = NULL;
    size_t size = 0;
    int r = map_users(container, err);

    if (r == 0 && net_devices_wanted(container))
        r = serve_devices(container, err);
    if (r == 0 && container->cgroup_late)
        r = container_make_cgroup(container, err);
    if (r == 0 && container->cgroup_late)
        r = container_hand_over_cgroup(container, err);
    if (r == 0)
        r = mounts_serve(container, err);
    if (r == 0)
        r = get_filter(container, &filter, &size, err);
    if (r == 0 && !container->unprivileged)
        r = workload_set_oom_score(container->proc_fd, container->pid, workload->config, err);
    if (r == 0)
        r = serve_hooks(container, err);
    if (r == 0 && container->config->linux->intel_rdt)
        r = intel_rdt_join(container->config->linux->intel_rdt, container->id, container->pid, err);
    if (r == 0 && (container_own_namespaces(container) & CLONE_NEWUSER))
        r = create_serve_limits(container->sync_fd, container->pid, workload, err);
    if (r == 0)
        r = state_write(container, container->pid, err);
    if (r < 0)
        return r;
    if (container->foreground)
        foreground_block_signals(); /* from here on they are the program's */
    r = sync_send(container->sync_fd, SYNC_RELEASE, filter, size, err);
    seal_release();
    return r;
}

static int serve_listener(struct container *container, struct error *err)
{
    const struct runtime_state state = container_describe(container);

    return listener_serve(container->sync_fd, container->pidfd, container->config->linux->seccomp,
                          &state, "creating", container->pid, container->pid, err);
}

/* What the kernel said to the program itself stays bare, as from runc. */
static bool error_is_of_execve(const struct error *err)
{
    return text_starts_with(error_message(err), "exec /");
}

static bool was_oom_killed(struct container *container)
{
    return container->cgroup.ops && cgroup_oom_kills(&container->cgroup) > 0;
}

/* It could not say anything. The first text is runc's. */
static int killed_early(struct container *container, struct error *err)
{
    return was_oom_killed(container)
               ? error_set(err, -ENOMEM, "container init was OOM-killed (memory limit too low?)")
               : error_set(err, -ECHILD,
                           "container init was killed before it could execute the program");
}

static int expect_execution(struct container *container, struct error *err)
{
    int r = sync_expect_end(container->sync_fd, err);

    if (r == 0 && container->unexecuted)
        r = killed_early(container, err);
    if (r < 0 && !error_is_of_execve(err))
        error_context(err, "unable to start container process");
    return r;
}

/* Nobody is told, before the program ends, that it runs. */
static bool is_nobody_told(const struct container *container,
                           const struct cloche_runtime_create_options *options)
{
    const struct oci_config *config = container->config;

    return container->foreground && !config->process->terminal && !config->hooks &&
           !options->pid_file && container->pidfd_socket < 0 && container->notify_fd < 0 &&
           !filter_wants_listener(config->linux->seccomp);
}

static int build(struct container *container, struct workload *workload,
                 const struct cloche_runtime_create_options *options, bool wait_for_start,
                 int *ret_relay_fd, struct error *err)
{
    int r = open_resources(container, options, wait_for_start, ret_relay_fd, err);

    if (r == 0)
        r = container->cgroup_late ? container_make_birthplace(container, err)
                                   : container_make_cgroup(container, err);
    if (r < 0)
        return r;
    r = launch(container, workload, err);
    if (r == 0)
        r = serve(container, workload, err);
    if (r == 0 && wait_for_start)
        r = sync_expect(container->sync_fd, SYNC_READY, NULL, NULL, err);
    if (r == 0 && filter_wants_listener(container->config->linux->seccomp))
        r = serve_listener(container, err);
    container->unwatched = is_nobody_told(container, options);
    if (r == 0 && !wait_for_start && !container->unwatched) {
        r = sync_expect_end(container->sync_fd, err);
        if (r == 0 && state_never_executed(container->pid))
            r = killed_early(container, err);
    }
    if (r == 0)
        r = create_write_pid_file(options->pid_file, container->pid, err);
    if (r == 0)
        r = pidfd_socket_send(container->pidfd_socket, "standard", container->pidfd, err);
    if (r < 0 && !error_is_of_execve(err))
        error_context(err, "unable to start container process");
    return r;
}

static void prefer_childs_error(struct container *container, struct error *err)
{
    if (container->sync_fd >= 0 && container->pid > 0 &&
        sync_prefer_childs_error(container->sync_fd, err)) {
        error_context(err, "unable to start container process");
        return;
    }
    if (container->pid > 0 && was_oom_killed(container)) {
        killed_early(container, err);
        error_context(err, "unable to start container process");
    }
}

static void roll_back(struct container *container, const char *root)
{
    if (container->pid > 0) {
        if (container->pidfd >= 0)
            kernel_pidfd_send_signal(container->pidfd, SIGKILL);
        else
            kill(container->pid, SIGKILL);
        waitpid(container->pid, NULL, 0);
        container->cgroup.ops->kill(&container->cgroup, NULL); /* hooks may have started some */
    }
    bool begun = container->pid > 0;
    if (begun && container->config->linux->intel_rdt)
        intel_rdt_remove(container->config->linux->intel_rdt, container->id,
                         container->rdt_was_there);
    if (container->cgroup.ops)
        cgroup_destroy(&container->cgroup, NULL);
    rootfs_detach_shared(container->rootfs, container->shared_root);
    state_remove(root, container->id, NULL);
    /* Other hooks may have made something (runtime.md, "Lifecycle", after each failure). */
    if (begun && container->config->hooks) {
        const struct runtime_state state = container_describe(container);
        delete_run_hooks(container->config, &state, &container->warnings);
    }
}

static int prepare_notification(struct container *container, struct workload *workload,
                                const struct cloche_runtime_create_options *options,
                                bool wait_for_start, struct error *err)
{
    struct notify notify = NOTIFY_INIT;
    int r = notify_prepare(container, workload, options->notify_socket, err);

    if (r == 0 && !wait_for_start)
        r = notify_listen(&notify, container->state_fd, options->notify_socket, err);
    container->notify_fd = notify.fd;
    return r;
}

int create_check_executed(struct container *container, const char *root, struct error *err)
{
    int r = container->unwatched ? expect_execution(container, err) : 0;

    if (r < 0)
        roll_back(container, root);
    return r;
}

int create_container(struct container *container, const char *root,
                     const struct cloche_runtime_create_options *options, bool wait_for_start,
                     int *ret_relay_fd, struct error *err)
{
    struct workload workload = {0};

    *ret_relay_fd = -1;
    int r = state_check_id(options->id, err);
    container->no_pivot = options->no_pivot;
    if (r == 0)
        r = preserved_init(&container->preserved, options->preserve_fds, options->listen_fds,
                           &container->warnings, err);
    if (r == 0)
        r = load_config(container, options->bundle, options->config, err);
    if (r == 0)
        r = find_rootfs(container, err);
    if (r == 0)
        r = notify_mount(container, root, options->notify_socket, err);
    if (r == 0)
        r = mounts_parse(container, err);
    if (r == 0)
        r = rootfs_check_propagation(container, err);
    if (r == 0)
        r = workload_init(&workload, container->config->process, container->config->linux,
                          &container->warnings, err);
    if (r == 0)
        r = container->state_fd = state_create(root, options->id, err);
    if (r < 0) {
        workload_finish(&workload);
        return r;
    }
    container->created = clock_format(clock_now());
    container->rdt_was_there =
        intel_rdt_is_there(container->config->linux->intel_rdt, container->id);
    container->no_new_keyring = options->no_new_keyring;
    container->systemd_cgroup = options->systemd_cgroup;
    container->no_cgroup = options->no_cgroup;
    container->foreground = !wait_for_start && !options->detach;
    workload.keeps_groups =
        annotation_value(container->config->annotations, ANNOTATION_KEEP_GROUPS) != NULL;
    workload.listen_fds = options->listen_fds;
    workload.preserved = &container->preserved;
    if (options->listen_fds && options->listen_names)
        strv_take(&workload.variables, xasprintf("LISTEN_FDNAMES=%s", options->listen_names));
    workload.stays_hidden =
        !filter_wants_listener(container->config->linux->seccomp) || listener_can_take();
    r = prepare_notification(container, &workload, options, wait_for_start, err);
    if (r == 0)
        r = build(container, &workload, options, wait_for_start, ret_relay_fd, err);
    workload_finish(&workload);
    if (r < 0) {
        prefer_childs_error(container, err);
        roll_back(container, root);
        close_fd(*ret_relay_fd);
        *ret_relay_fd = -1;
    }
    return r;
}

int runtime_create(const char *root, const struct cloche_runtime_create_options *options,
                   char ***warnings, struct error *err)
{
    struct container container;
    int relay_fd;

    container_init(&container, options->id);
    int r = create_container(&container, root, options, true, &relay_fd, err);
    close_fd(relay_fd);
    *warnings = steal_ptr(container.warnings);
    container_finish(&container);
    return r;
}
