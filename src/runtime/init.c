#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <base/alloc.h>
#include <base/file.h>
#include <base/text.h>

#include "annotations.h"
#include "container_cgroup.h"
#include "hooks.h"
#include "init.h"
#include "kernel.h"
#include "keyring.h"
#include "mounts.h"
#include "net_devices.h"
#include "rootfs.h"
#include "seal.h"
#include "state.h"
#include "sync.h"
#include "sysctl.h"
#include "terminal.h"
#include "users.h"

void init_reset_signals(void)
{
    sigset_t none;

    for (int number = 1; number < NSIG; number++) {
        if (number != SIGKILL && number != SIGSTOP)
            signal(number, SIG_DFL);
    }
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
}

_Noreturn void init_fail(int sync_fd, const struct error *err)
{
    const char *text = error_message(err);

    /* A created container's parent is gone by now: only its own standard error is left. */
    if (sync_fd < 0 || sync_send_error(sync_fd, err) < 0)
        (void)(!write(STDERR_FILENO, text, strlen(text)) || !write(STDERR_FILENO, "\n", 1));
    _exit(err->code == -ENOENT ? 127 : 126);
}

int init_set_limits(int sync_fd, const struct workload *workload, bool by_parent, struct error *err)
{
    if (!by_parent)
        return workload_set_limits(0, workload, err);
    int r = sync_send(sync_fd, SYNC_ROOT_DONE, NULL, 0, err);
    return r < 0 ? r : sync_expect(sync_fd, SYNC_LIMITS_SET, NULL, NULL, err);
}

/* In a user namespace of its own the process is nobody until the maps are written; then it takes
 * the place of the namespace's root for the set-up. */
static int become_mapped_root(struct container *container, struct error *err)
{
    const struct oci_config *config = container->config;

    if (!(container_own_namespaces(container) & CLONE_NEWUSER))
        return 0;
    int r = container->namespaces.create & CLONE_NEWUSER
                ? sync_expect(container->sync_fd, SYNC_USERS_MAPPED, NULL, NULL, err)
                : users_check_joined(container->proc_fd, config->linux, err);
    /* Without privileges the parent cannot open them; here they are opened with the caller's user.
     */
    if (r == 0 && container->unprivileged && (container->namespaces.create & CLONE_NEWNS))
        r = mounts_open_sources(container, err);
    if (r == 0)
        r = users_become_root(config->process->user,
                              annotation_value(config->annotations, ANNOTATION_KEEP_GROUPS), err);
    prctl(PR_SET_DUMPABLE, 0, 0, 0, 0);
    return r;
}

static int enter_keyring(const struct container *container, struct error *err)
{
    if (container->no_new_keyring)
        return 0;
    return keyring_enter(KEYRING_MAKE, container->id,
                         container_own_namespaces(container) & CLONE_NEWUSER, container->proc_fd,
                         container->config->process->selinux_label, err);
}

static int set_up_network(const struct container *container, struct error *err)
{
    int r = container->namespaces.create & CLONE_NEWNET ? namespaces_loopback_up(err) : 0;

    if (r < 0 || !net_devices_wanted(container))
        return r;
    r = sync_send(container->sync_fd, SYNC_NETWORK_MADE, NULL, 0, err);
    return r < 0 ? r : sync_expect(container->sync_fd, SYNC_DEVICES_MOVED, NULL, NULL, err);
}

static int set_names(const struct container *container, struct error *err)
{
    const struct oci_config *config = container->config;

    if (!text_empty(config->hostname) &&
        sethostname(config->hostname, strlen(config->hostname)) < 0)
        return error_errno(err, errno, "hostname");
    if (!text_empty(config->domainname) &&
        setdomainname(config->domainname, strlen(config->domainname)) < 0)
        return error_errno(err, errno, "domainname");
    return 0;
}

/* With the process's number as it is in here and the status that crun's callers know (config.md,
 * "Hooks": the container's namespace). */
static int run_inside(struct container *container, const char *kind, struct oci_hook *const *hooks,
                      size_t count, const char *directory, struct error *err)
{
    const struct runtime_state state = container_describe(container);
    _cleanup_buffer_ struct buffer text = BUFFER_INIT;

    if (!count)
        return 0;
    state_for_hooks(&state, "created", getpid(), &text);
    const struct hook_call call = {.kind = kind,
                                   .hooks = hooks,
                                   .count = count,
                                   .state = buffer_text(&text),
                                   .directory = directory,
                                   .output = &container->hook_output};
    return hooks_run(&call, err);
}

static int run_container_hooks(struct container *container, struct error *err)
{
    const struct oci_hooks *hooks = container->config->hooks;

    if (!hooks)
        return 0;
    int r = sync_send(container->sync_fd, SYNC_MOUNTS_DONE, NULL, 0, err);
    if (r == 0)
        r = sync_expect(container->sync_fd, SYNC_HOOKS_DONE, NULL, NULL, err);
    /* The working directory is the root, as with runc. */
    return r < 0 ? r
                 : run_inside(container, "createContainer", hooks->create_container,
                              hooks->create_container_count, container->rootfs, err);
}

/* Everything is mounted below root_fd while the host's root is still ours. */
static int build_root(struct container *container, int *slave_fd, struct error *err)
{
    const struct oci_process *process = container->config->process;
    int r = rootfs_attach(container, err);

    if (r == 0)
        r = mounts_apply(container, err);
    if (r == 0)
        r = container_join_cgroup(container, err);
    if (r == 0)
        r = rootfs_devices(container, err);
    if (r == 0)
        r = rootfs_working_directory(container, err);
    if (r == 0 && process->terminal) {
        _cleanup_close_ int master_fd = -1;
        r = terminal_open(container->root_fd, &container->window, &master_fd, slave_fd, err);
        if (r == 0 && container->relays_console)
            terminal_leave_newlines(master_fd);
        if (r == 0)
            r = rootfs_console(container, *slave_fd, err);
        if (r == 0)
            r = terminal_send(container->console_fd, master_fd, err);
    }
    return r;
}

static int close_root(struct container *container, struct error *err)
{
    int r = sysctl_apply(container, err);

    if (r == 0)
        r = mounts_complete(container, err);
    if (r == 0)
        r = rootfs_readonly_paths(container, err);
    if (r == 0)
        r = rootfs_mask_paths(container, err);
    if (r == 0)
        r = rootfs_enter(container, err);
    return r;
}

static int enter_root(struct container *container, struct error *err)
{
    _cleanup_close_ int slave_fd = -1;

    int r = build_root(container, &slave_fd, err);
    if (r == 0)
        r = run_container_hooks(container, err);
    if (r == 0)
        r = close_root(container, err);
    if (r == 0 && slave_fd >= 0)
        r = terminal_enter(slave_fd, err);
    return r;
}

/* State on entry: a fresh child of the runtime in its new namespaces, with its descriptors. State
 * at the end: everything but the user, the capabilities and the program is the container's. */
static int become_container(struct container *container, struct error *err)
{
    int r = container->cgroup_late ? 0 : container_join_cgroup(container, err);

    if (r == 0)
        r = namespaces_enter(&container->namespaces, container->config->linux, err);
    if (r == 0)
        r = become_mapped_root(container, err);
    if (r == 0)
        r = namespaces_enter_as_root(&container->namespaces, err);
    if (r == 0 && setsid() < 0)
        r = error_errno(err, errno, "setsid");
    if (r == 0)
        r = enter_keyring(container, err);
    if (r == 0)
        r = set_up_network(container, err);
    if (r == 0)
        r = set_names(container, err);
    if (r == 0)
        r = enter_root(container, err);
    return r;
}

/* 128 and the signal's number, as a shell says it. */
static void end_by_signal(int number)
{
    _exit(128 + number);
}

/* The kernel keeps from the first process of a pid namespace what it has no handler for, KILL but
 * not TERM; runc's init ends. Executing the program takes these away. */
static void listen_to_signals(void)
{
    static const int numbers[] = {SIGHUP, SIGINT, SIGQUIT, SIGTERM};

    for (size_t i = 0; i < ARRAY_SIZE(numbers); i++)
        signal(numbers[i], end_by_signal);
}

/* start writes a byte into the pipe; the write end that we hold ourselves keeps us from seeing an
 * end before it does. */
static int wait_for_start(const struct container *container, struct error *err)
{
    char byte;
    ssize_t n;

    if (container->fifo_fd < 0)
        return 0;
    do
        n = read(container->fifo_fd, &byte, 1);
    while (n < 0 && errno == EINTR);
    return n == 1 ? 0 : error_errno(err, n < 0 ? errno : EPIPE, "wait for start");
}

static int run_start_hooks(struct container *container, struct error *err)
{
    const struct oci_hooks *hooks = container->config->hooks;

    if (!hooks)
        return 0;
    return run_inside(container, "startContainer", hooks->start_container,
                      hooks->start_container_count, NULL, err);
}

/* While it waits, exec joins it, which an unprivileged caller may not with an opaque process. What
 * the hooks need would be open for whoever else looks, though. */
static bool is_looked_at(const struct container *container)
{
    const struct oci_hooks *hooks = container->config->hooks;

    return container->unprivileged && container->fifo_fd >= 0 &&
           !(hooks && hooks->start_container_count);
}

/* A filter with a listener is installed while the runtime is still there to pass that on; others as
 * late as possible. */
static int wait_and_confine(struct container *container, struct workload *workload,
                            const struct filter *filter, size_t filter_size, struct error *err)
{
    bool early = filter_has_listener(filter);
    int r = 0;

    if (container->fifo_fd >= 0) /* before `create` says that it is there */
        listen_to_signals();
    if (early)
        r = workload_confine(workload, filter, filter_size, container->sync_fd, container->fifo_fd,
                             err);
    if (r == 0 && container->fifo_fd >= 0)
        close_fd(steal_fd(&container->sync_fd));
    if (r == 0 && !early && is_looked_at(container))
        workload_show(workload->preserved->count, container->fifo_fd, -1);
    if (r == 0)
        r = wait_for_start(container, err);
    if (r == 0 && !early)
        r = workload_confine(workload, filter, filter_size, container->sync_fd, -1, err);
    return r;
}

_Noreturn void init_main(struct container *container, struct workload *workload)
{
    _cleanup_error_ struct error err = ERROR_INIT;
    void *filter = NULL;
    size_t filter_size = 0;

    workload->proc_fd = container->proc_fd;
    memcpy(workload->hook_fds, container->hook_output.fds, sizeof(workload->hook_fds));
    seal_release();
    init_reset_signals();
    umask(0);
    /* Else when the maps are written, for which a process that is not dumpable cannot be opened
     * without privileges. */
    int r = 0;
    if (!container->unprivileged)
        prctl(PR_SET_DUMPABLE, 0, 0, 0, 0);
    else
        r = workload_set_own_oom_score(container->proc_fd, container->config->process, &err);
    if (r == 0)
        r = become_container(container, &err);
    bool own_users = container_own_namespaces(container) & CLONE_NEWUSER;
    if (r == 0)
        r = init_set_limits(container->sync_fd, workload, own_users, &err);
    if (r == 0)
        r = workload_become(workload, &err);
    if (r == 0)
        r = sync_expect(container->sync_fd, SYNC_RELEASE, &filter, &filter_size, &err);
    if (r == 0 && container->fifo_fd >= 0)
        r = sync_send(container->sync_fd, SYNC_READY, NULL, 0, &err);
    if (r == 0)
        r = wait_and_confine(container, workload, filter, filter_size, &err);
    if (r == 0)
        r = run_start_hooks(container, &err);
    if (r == 0)
        workload_execute(workload, &err);
    init_fail(container->sync_fd, &err);
}
