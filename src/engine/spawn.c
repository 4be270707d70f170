#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/socket.h>

#include <base/alloc.h>
#include <base/loop.h>
#include <base/text.h>

#include "cgroup.h"
#include "idmap.h"
#include "logconfig.h"
#include "spawn.h"
#include "spec.h"
#include "volumes.h"

enum {
    CONTROL_FD = 3, /* numbers in the monitor */
    ROOTFS_FD = 4,
    NETNS_FD = 5, /* /dev/null where there is none */
    USERNS_FD = 6,
    MONITOR_FDS = 7,
};

static void add_option(char ***argv, const char *name, char *value)
{
    strv_append(argv, name);
    strv_take(argv, value);
}

static void add_number(char ***argv, const char *name, int value)
{
    add_option(argv, name, xasprintf("%d", value));
}

static void add_users(char ***argv, const struct api_id_mappings *mappings)
{
    add_number(argv, "--userns-fd", USERNS_FD);
    add_option(argv, "--root-uid",
               xasprintf("%u", idmap_root(mappings->uids, mappings->uids_count)));
    add_option(argv, "--root-gid",
               xasprintf("%u", idmap_root(mappings->gids, mappings->gids_count)));
}

/* What is shared with other containers. */
static void add_shared(char ***argv, const struct container *container,
                       const struct namespaces *namespaces)
{
    static const char *const options[] = {
        [MONITOR_JOINED_USER] = "--join-user",
        [MONITOR_JOINED_PID] = "--join-pid",
        [MONITOR_JOINED_IPC] = "--join-ipc",
        [MONITOR_JOINED_NETWORK] = "--join-network",
    };

    for (size_t i = 0; i < MONITOR_JOINED_COUNT; i++) {
        if (namespaces->joined[i])
            add_option(argv, options[i], xstrdup(namespaces->joined[i]));
    }
    if (namespaces->shm && !namespaces->joined[MONITOR_JOINED_IPC])
        add_option(argv, "--shm",
                   xasprintf("%llu", (unsigned long long)bundle_shm_size(container->effective)));
}

/* Sources that the monitor holds: those whose mounts are to reach the machine, and parts of
 * volumes. */
static void add_binds(char ***argv, const struct container *container)
{
    const struct api_container_spec *effective = container->effective;

    for (size_t i = 0; i < effective->mounts_count; i++) {
        const struct api_mount *mount = effective->mounts[i];
        if (bundle_is_shared(mount))
            add_option(argv, "--shared-bind", xstrdup(mount->source));
        if (!bundle_has_subpath(mount))
            continue;
        add_option(argv, "--volume", volume_path(container->engine, mount->source));
        add_option(argv, "--subpath", xstrdup(mount->volume_options->subpath));
    }
}

static char **monitor_arguments(struct container *container, const struct namespaces *namespaces,
                                bool netns, bool userns)
{
    const struct api_container_spec *effective = container->effective;
    const char *cgroups = container_cgroup_parent(container);
    struct engine *engine = container->engine;
    char **argv = NULL;

    strv_append(&argv, "cloche-monitor");
    add_option(&argv, "--protocol", xasprintf("%d", MONITOR_PROTOCOL_VERSION));
    add_option(&argv, "--id", xstrdup(container->id));
    add_option(&argv, "--bundle", container_run_path(container, NULL));
    add_option(&argv, "--runtime", xstrdup(engine->runtime_program));
    add_option(&argv, "--runtime-root", xasprintf("%s/runtime", engine->instance->run));
    add_option(&argv, "--log", container_root_path(container, "log"));
    if (log_config_compresses(effective->log_config))
        add_option(&argv, "--log-packer", xstrdup(engine->logpack_program));
    if (effective->tty)
        strv_append(&argv, "--tty");
    if (effective->open_stdin)
        strv_append(&argv, "--open-stdin");
    if (effective->stdin_once)
        strv_append(&argv, "--stdin-once");
    int signal = signal_parse(effective->stop_signal, NULL);
    add_number(&argv, "--stop-signal", signal > 0 ? signal : SIGTERM);
    add_number(&argv, "--stop-timeout", effective->stop_timeout);
    if (cgroups) {
        add_option(&argv, "--memory-cgroup", cgroup_memory_path(cgroups, container->id));
        add_option(&argv, "--freezer", cgroup_freezer_file(cgroups, container->id));
    }
    add_shared(&argv, container, namespaces);
    add_binds(&argv, container);
    add_number(&argv, "--control-fd", CONTROL_FD);
    add_number(&argv, "--rootfs-fd", ROOTFS_FD);
    if (netns)
        add_number(&argv, "--netns-fd", NETNS_FD);
    if (userns)
        add_users(&argv, container->record->user_namespace);
    return argv;
}

void spawn_note_monitor(struct container *container, pid_t pid)
{
    struct record_container *record = container->record;

    record->monitor_pid = pid;
    record->has_monitor_pid = true;
    record->has_monitor_started = process_start_time(pid, &record->monitor_started) == 0;
}

static int execute_monitor(struct container *container, const struct namespaces *namespaces,
                           int control_fd, int rootfs_fd, int netns_fd, int userns_fd,
                           struct error *err)
{
    _cleanup_strv_ char **argv =
        monitor_arguments(container, namespaces, netns_fd >= 0, userns_fd >= 0);
    _cleanup_free_ char *complaints = container_run_path(container, "monitor.log");
    _cleanup_close_ int stderr_fd =
        open(complaints, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    const int fds[MONITOR_FDS] = {-1,
                                  -1,
                                  stderr_fd,
                                  [CONTROL_FD] = control_fd,
                                  [ROOTFS_FD] = rootfs_fd,
                                  [NETNS_FD] = netns_fd,
                                  [USERNS_FD] = userns_fd};
    struct process_spec spec = {
        .path = container->engine->monitor_program,
        .argv = argv,
        .fds = fds,
        .fds_count = userns_fd >= 0  ? MONITOR_FDS
                     : netns_fd >= 0 ? USERNS_FD
                                     : NETNS_FD,
        .directory = "/",
        .new_session = true,
    };
    struct process process;

    int r = process_spawn(&spec, &process, err);
    if (r < 0)
        return r;
    spawn_note_monitor(container, process.pid);
    return loop_watch_child(container->engine->loop, &process, 0, NULL, NULL, err);
}

int spawn_monitor(struct container *container, const struct namespaces *namespaces, int rootfs_fd,
                  int netns_fd, int userns_fd, struct error *err)
{
    int pair[2];

    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, pair) < 0)
        return error_errno(err, errno, "make the monitor's socket");
    int r = execute_monitor(container, namespaces, pair[1], rootfs_fd, netns_fd, userns_fd, err);
    close_fd(pair[1]);
    if (r < 0) {
        close_fd(pair[0]);
        return r;
    }
    return link_create(container->engine->loop, pair[0], &container_link_handlers, container,
                       &container->link, err);
}

int spawn_delete_program(const struct engine *engine, const char *id, struct process *ret,
                         struct error *err)
{
    _cleanup_free_ char *root = xasprintf("%s/runtime", engine->instance->run);
    const int fds[] = {-1, -1, -1};
    char *const argv[] = {"cloche-runtime", "--root", root, "delete", "--force", (char *)id, NULL};
    struct process_spec spec = {
        .path = engine->runtime_program,
        .argv = argv,
        .fds = fds,
        .fds_count = ARRAY_SIZE(fds),
        .directory = "/",
    };

    return process_spawn(&spec, ret, err);
}

int spawn_runtime_delete(struct engine *engine, const char *id, void (*ended)(int, void *),
                         void *data, struct error *err)
{
    struct process process;

    int r = spawn_delete_program(engine, id, &process, err);
    if (r < 0)
        return r;
    return loop_watch_child(engine->loop, &process, RUNTIME_DELETE_TIMEOUT_MS, ended, data, err);
}
