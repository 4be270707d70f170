/*
 * A further process in a running container.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/keyctl.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <base/alloc.h>
#include <base/file.h>
#include <base/socket.h>
#include <base/text.h>

#include "annotations.h"
#include "attributes.h"
#include "config_check.h"
#include "cgroup_systemd.h"
#include "container_cgroup.h"
#include "create.h"
#include "exec_process.h"
#include "filter_cache.h"
#include "foreground.h"
#include "id_list.h"
#include "init.h"
#include "intel_rdt.h"
#include "kernel.h"
#include "keyring.h"
#include "listener.h"
#include "pidfd_socket.h"
#include "workload.h"
#include "seal.h"
#include "state.h"
#include "sync.h"
#include "terminal.h"
#include "users.h"

enum { OOM_SCORE_MAX = 16 }; /* bytes of oom_score_adj */

struct execution {
    const struct cloche_runtime_exec_options *options;
    struct stored stored;
    struct oci_config *config;   /* owned; as the container was created */
    struct oci_process *process; /* owned; what is to run */
    struct workload plan;
    struct cgroup cgroup;
    struct cgroup_join join;
    struct preserved preserved;
    /* CLONE_NEW* of the container that are not ours; setns refuses the user namespace one is in
     * already. */
    uint64_t namespaces;
    int proc_fd, sync_fd, console_fd;
    int pidfd_socket; /* of --pidfd-socket; -1 */
    int wait_fifo_fd; /* of --exec-wait-fifo, O_PATH; -1 */
    struct winsize window;
    pid_t pid;
    int pidfd;
    bool in_cgroup;
    bool unprivileged; /* the caller is not root, not even of a user namespace */
    bool aside;        /* another process than this one makes the child */
    bool unexecuted;   /* it was killed before it could execute the program */
    bool unwatched;    /* whether the program was executed is looked at when it has ended */
};

static void execution_finish(struct execution *execution)
{
    workload_finish(&execution->plan);
    oci_process_free(execution->process);
    oci_config_free(execution->config);
    cgroup_join_finish(&execution->join);
    preserved_finish(&execution->preserved);
    cgroup_finish(&execution->cgroup);
    close_fd(execution->proc_fd);
    close_fd(execution->sync_fd);
    close_fd(execution->console_fd);
    close_fd(execution->pidfd_socket);
    close_fd(execution->wait_fifo_fd);
    close_fd(execution->pidfd);
    state_finish(&execution->stored);
}

static int load(struct execution *execution, const char *root, char ***warnings, struct error *err)
{
    int r = state_load(&execution->stored, root, execution->options->id, err);

    if (r < 0)
        return r;
    if (execution->stored.status == CLOCHE_RUNTIME_STOPPED)
        return error_set(err, -EINVAL, "cannot exec in a stopped container");
    if (execution->stored.status == CLOCHE_RUNTIME_PAUSED && !execution->options->ignore_paused)
        return error_set(err, -EINVAL,
                         "cannot exec in a paused container (use --ignore-paused to override)");
    if (execution->stored.pidfd < 0)
        return error_set(err, -EINVAL, "cannot exec in a container that is being created");
    r = state_load_config(&execution->stored, &execution->config, err);
    if (r == 0)
        r = exec_process_read(execution->options, execution->config, &execution->process, err);
    if (r == 0)
        r = config_check_process(execution->process, err);
    if (r == 0)
        r = workload_init(&execution->plan, execution->process, execution->config->linux, warnings,
                          err);
    execution->plan.keeps_groups =
        annotation_value(execution->config->annotations, ANNOTATION_KEEP_GROUPS) != NULL;
    execution->plan.preserved = &execution->preserved;
    execution->plan.stays_hidden = listener_can_take();
    return r;
}

static int open_console(struct execution *execution, int *ret_relay_fd, struct error *err)
{
    const struct cloche_runtime_exec_options *options = execution->options;
    int fds[2];

    if (!execution->process->terminal)
        return options->console_socket
                   ? error_set(err, -EINVAL,
                               "cannot use console socket if the runtime will not detach or "
                               "allocate tty")
                   : 0;
    execution->window =
        terminal_first_size(execution->process->console_size, !options->console_socket);
    if (options->console_socket) {
        execution->console_fd = socket_connect_unix(options->console_socket, SOCK_STREAM, err);
        return execution->console_fd < 0 ? execution->console_fd : 0;
    }
    if (options->detach)
        return error_set(err, -EINVAL,
                         "cannot allocate tty if the runtime will detach without setting console "
                         "socket: use --console-socket");
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds) < 0)
        return error_errno(err, errno, "create a socket pair");
    *ret_relay_fd = fds[0];
    execution->console_fd = fds[1];
    return 0;
}

/* The user namespace last: the others may belong to its parent. A child that was made aside is in
 * them already. */
static int enter_namespaces(const struct execution *execution, struct error *err)
{
    uint64_t first = execution->namespaces & ~(uint64_t)(CLONE_NEWUSER | CLONE_NEWPID);

    if (first && !execution->aside && setns(execution->stored.pidfd, (int)first) < 0)
        return error_errno(err, errno, "join the container's namespaces");
    if (!(execution->namespaces & CLONE_NEWUSER))
        return 0;
    if (!execution->aside && setns(execution->stored.pidfd, CLONE_NEWUSER) < 0)
        return error_errno(err, errno, "join the container's user namespace");
    int r = users_become_root(execution->process->user, execution->plan.keeps_groups, err);
    /* Each change of rights sets it to what fs.suid_dumpable says. */
    prctl(PR_SET_DUMPABLE, 0, 0, 0, 0);
    return r;
}

/* config.md, "execCPUAffinity": the final one, when the process is in its cgroup. Without any it is
 * what the cgroup has, whatever the caller's is. */
static int set_affinity(const struct execution *execution, struct error *err)
{
    const struct oci_exec_cpu_affinity *affinity = execution->process->exec_cpu_affinity;

    if (!affinity)
        return attributes_set_affinity("CPU affinity", NULL, err);
    if (text_empty(affinity->final))
        return 0;
    return attributes_set_affinity("process.execCPUAffinity.final", affinity->final, err);
}

static int enter_keyring(const struct execution *execution, struct error *err)
{
    const struct runtime_state *state = execution->stored.state;

    if (state->no_new_keyring)
        return 0;
    return keyring_enter(KEYRING_JOIN, state->id, execution->namespaces & CLONE_NEWUSER,
                         execution->proc_fd, execution->process->selinux_label, err);
}

static int enter_terminal(struct execution *execution, struct error *err)
{
    _cleanup_close_ int root_fd = -1, master_fd = -1, slave_fd = -1;

    if (!execution->process->terminal)
        return 0;
    root_fd = open("/", O_PATH | O_DIRECTORY | O_CLOEXEC);
    if (root_fd < 0)
        return error_errno(err, errno, "open /");
    int r = terminal_open(root_fd, &execution->window, &master_fd, &slave_fd, err);
    if (r == 0 && !execution->options->console_socket)
        terminal_leave_newlines(master_fd);
    if (r == 0)
        r = terminal_send(execution->console_fd, master_fd, err);
    return r < 0 ? r : terminal_enter(slave_fd, err);
}

/* A mount namespace that the container shares has another root than the container's. */
static bool has_shared_mounts(const struct oci_linux *config)
{
    for (size_t i = 0; config && i < config->namespaces_count; i++) {
        if (text_equal(config->namespaces[i]->type, "mount"))
            return !text_empty(config->namespaces[i]->path);
    }
    return true;
}

static int open_shared_root(const struct execution *execution, struct error *err)
{
    char path[48];

    snprintf(path, sizeof(path), "%d/root", execution->stored.state->pid);
    int fd = openat(execution->proc_fd, path, O_PATH | O_DIRECTORY | O_CLOEXEC);
    return fd < 0 ? error_errno(err, errno, "open the container's root") : fd;
}

static int join_cgroup(struct execution *execution, struct error *err)
{
    int r = cgroup_join_self(&execution->join, execution->in_cgroup);

    cgroup_join_finish(&execution->join);
    return r < 0 ? error_errno(err, -r, "join the container's cgroup") : 0;
}

/* What we use ourselves until the program is executed should not be the container's: under a tight
 * limit its processes would be killed for it. The v2 tree is one to be born in, or else to be
 * joined with the caller's privileges. */
static bool joins_late(const struct execution *execution)
{
    return execution->join.clone_fd < 0 || execution->in_cgroup;
}

/* State on entry: a child of ours, already in the container's pid namespace (its processes can see
 * it, but not look into it: it is not dumpable). */
static int become_member(struct execution *execution, struct error *err)
{
    int r = joins_late(execution) ? 0 : join_cgroup(execution, err);

    if (r < 0)
        return r;
    _cleanup_close_ int root_fd = -1;
    if (has_shared_mounts(execution->config->linux)) {
        root_fd = open_shared_root(execution, err);
        if (root_fd < 0)
            return root_fd;
    }
    r = enter_namespaces(execution, err);
    if (r == 0)
        r = enter_keyring(execution, err);
    if (r < 0)
        return r;
    if (root_fd >= 0 && (fchdir(root_fd) < 0 || chroot(".") < 0))
        return error_errno(err, errno, "enter the container's root");
    if (setsid() < 0)
        return error_errno(err, errno, "setsid");
    return enter_terminal(execution, err);
}

/* Opening for writing waits for the one who opens for reading. In a call of its own and not in the
 * parent, who may be gone by then. */
static int wait_for_reader(struct execution *execution, struct error *err)
{
    char path[40];
    uint64_t have;

    if (execution->wait_fifo_fd < 0)
        return 0;
    /* The program's user need not have a right to it, whoever started the runtime does. */
    int r = capability_raise_permitted(&have, err);
    if (r < 0)
        return r;
    /* Nobody listens any more: a detached parent ends now. */
    close_fd(steal_fd(&execution->sync_fd));
    snprintf(path, sizeof(path), "thread-self/fd/%d", execution->wait_fifo_fd);
    _cleanup_close_ int fd = openat(execution->proc_fd, path, O_WRONLY | O_CLOEXEC);
    return fd < 0 ? error_errno(err, errno, "wait for a reader of the exec wait fifo") : 0;
}

static _Noreturn void member_main(struct execution *execution)
{
    _cleanup_error_ struct error err = ERROR_INIT;
    void *filter = NULL;
    size_t filter_size = 0;

    execution->plan.proc_fd = execution->proc_fd;
    seal_release();
    init_reset_signals();
    int r = become_member(execution, &err);
    if (r == 0)
        r = init_set_limits(execution->sync_fd, &execution->plan,
                            execution->namespaces & CLONE_NEWUSER, &err);
    if (r == 0)
        r = workload_become(&execution->plan, &err);
    if (r == 0)
        r = join_cgroup(execution, &err);
    if (r == 0)
        r = set_affinity(execution, &err);
    if (r == 0)
        r = sync_expect(execution->sync_fd, SYNC_RELEASE, &filter, &filter_size, &err);
    if (r == 0)
        r = wait_for_reader(execution, &err);
    if (r == 0)
        r = workload_confine(&execution->plan, filter, filter_size, execution->sync_fd, -1, &err);
    if (r == 0)
        workload_execute(&execution->plan, &err);
    init_fail(execution->sync_fd, &err);
}

/* For a caller whom only the user namespace gives the right to join the others, or who could not
 * return from the pid namespace: a process in between joins them all. It is opaque to the container
 * from before that on, and with it its child, which could not even set its own score for the
 * out-of-memory killer: it takes over ours. */
static int clone_aside(struct execution *execution, struct error *err)
{
    struct namespaces namespaces;
    _cleanup_free_ char *score = NULL;
    size_t length = 0;
    int r = namespaces_of_process(&namespaces, execution->proc_fd, execution->stored.state->pid,
                                  execution->namespaces, err);

    if (r == 0)
        r = file_read_at(execution->proc_fd, "self/oom_score_adj", OOM_SCORE_MAX, &score, &length,
                         err);
    if (r == 0)
        r = workload_set_own_oom_score(execution->proc_fd, execution->process, err);
    if (r == 0)
        r = namespaces_clone(&namespaces, NULL, &execution->join, &execution->pid,
                             &execution->pidfd, &execution->in_cgroup, err);
    namespaces_finish(&namespaces);
    if (r != 0 && execution->process->has_oom_score_adj)
        file_write_existing_at(execution->proc_fd, "self/oom_score_adj", score, length, NULL);
    return r > 0 ? execution->pid : r;
}

static int clone_member(struct execution *execution, struct error *err)
{
    if (execution->aside)
        return clone_aside(execution, err);
    if (execution->join.clone_fd >= 0) {
        int pid = kernel_clone(CLONE_INTO_CGROUP, execution->join.clone_fd, &execution->pidfd);
        execution->in_cgroup = pid >= 0;
        if (pid >= 0)
            return pid;
    }
    int pid = kernel_clone(0, -1, &execution->pidfd);
    return pid < 0 ? error_errno(err, -pid, "start a process") : pid;
}

/* The initial affinity is for the time before the process is in its cgroup: the child has it from
 * its first instruction on, and we have it ourselves for that moment only. */
static int clone_with_affinity(struct execution *execution, struct error *err)
{
    const struct oci_exec_cpu_affinity *affinity = execution->process->exec_cpu_affinity;
    unsigned long own[ID_LIST_CPUS_MAX / ID_LIST_WORD_BITS];

    if (!affinity || text_empty(affinity->initial))
        return clone_member(execution, err);
    long size = syscall(SYS_sched_getaffinity, 0, sizeof(own), own);
    int r = attributes_set_affinity("process.execCPUAffinity.initial", affinity->initial, err);
    if (r < 0)
        return r;
    int pid = clone_member(execution, err);
    if (pid != 0 && size > 0)
        syscall(SYS_sched_setaffinity, 0, size, own);
    return pid;
}

/* The pid namespace is for children: it is set here and taken back. */
static int launch(struct execution *execution, struct error *err)
{
    int parent_fd;
    bool other_pids = execution->namespaces & CLONE_NEWPID;
    _cleanup_close_ int own_pids_fd =
        openat(execution->proc_fd, "self/ns/pid", O_RDONLY | O_CLOEXEC);
    int r = sync_pair(&parent_fd, &execution->sync_fd, err);

    if (r < 0)
        return r;
    execution->aside =
        execution->unprivileged || (other_pids && setns(own_pids_fd, CLONE_NEWPID) < 0);
    other_pids = other_pids && !execution->aside;
    if (own_pids_fd < 0 || (other_pids && setns(execution->stored.pidfd, CLONE_NEWPID) < 0)) {
        close(parent_fd);
        return error_errno(err, errno, "join the container's pid namespace");
    }
    pid_t pid = clone_with_affinity(execution, err);
    if (pid == 0) {
        close(parent_fd);
        member_main(execution);
    }
    close(execution->sync_fd);
    execution->sync_fd = parent_fd;
    close_fd(steal_fd(&execution->console_fd));
    if (pid < 0)
        return pid;
    execution->pid = pid;
    if (other_pids && setns(own_pids_fd, CLONE_NEWPID) < 0)
        return error_errno(err, errno, "return to the own pid namespace");
    return 0;
}

static int killed_early(struct error *err)
{
    error_set(err, -ECHILD, "the process was killed before it could execute the program");
    error_hint(err, "the container's memory limit may be too low for one more");
    return -ECHILD;
}

static int serve(struct execution *execution, struct error *err)
{
    const struct oci_linux *config = execution->config->linux;
    _cleanup_free_ struct filter *filter = NULL;
    size_t size;
    int r =
        filter_get(execution->stored.root_fd, config ? config->seccomp : NULL, &filter, &size, err);

    if (r == 0 && !execution->aside)
        r = workload_set_oom_score(execution->proc_fd, execution->pid, execution->process, err);
    if (r == 0 && execution->cgroup.user_manager && !execution->options->cgroups)
        r = cgroup_systemd_attach(&execution->cgroup, execution->pid, err);
    if (r == 0 && config && config->intel_rdt)
        r = intel_rdt_add(config->intel_rdt, execution->options->id, execution->pid, err);
    if (r == 0 && (execution->namespaces & CLONE_NEWUSER))
        r = create_serve_limits(execution->sync_fd, execution->pid, &execution->plan, err);
    if (!execution->options->detach)
        foreground_block_signals();
    if (r == 0)
        r = sync_send(execution->sync_fd, SYNC_RELEASE, filter, size, err);
    seal_release();
    if (r == 0 && config && filter_wants_listener(config->seccomp))
        r = listener_serve(execution->sync_fd, execution->pidfd, config->seccomp,
                           execution->stored.state, "running", execution->stored.state->pid,
                           execution->pid, err);
    if (r == 0 && !execution->unwatched) {
        r = sync_expect_end(execution->sync_fd, err);
        /* One that waits for a reader does not talk to us any more. */
        if (r == 0 && execution->wait_fifo_fd < 0 && state_never_executed(execution->pid))
            r = killed_early(err);
    }
    if (r == 0)
        r = pidfd_socket_send(execution->pidfd_socket, "setns", execution->pidfd, err);
    return r < 0 ? r : create_write_pid_file(execution->options->pid_file, execution->pid, err);
}

/* As create_check_executed. */
static int check_executed(struct execution *execution, struct error *err)
{
    int r = execution->unwatched ? sync_expect_end(execution->sync_fd, err) : 0;

    if (r == 0 && execution->unexecuted)
        r = killed_early(err);
    if (r < 0)
        error_context(err, "exec failed: unable to start container process");
    return r;
}

static bool is_nobody_told(const struct execution *execution)
{
    const struct cloche_runtime_exec_options *options = execution->options;
    const struct oci_linux *config = execution->config->linux;

    return !options->detach && !execution->process->terminal && !options->pid_file &&
           execution->pidfd_socket < 0 && !(config && filter_wants_listener(config->seccomp));
}

static int start_member(struct execution *execution, struct error *err)
{
    int r = launch(execution, err);

    execution->unwatched = is_nobody_told(execution);
    if (r == 0)
        r = serve(execution, err);
    if (r < 0) {
        if (execution->pid > 0 && sync_prefer_childs_error(execution->sync_fd, err))
            r = err->code;
        if (execution->pid > 0) {
            kernel_pidfd_send_signal(execution->pidfd, SIGKILL);
            waitpid(execution->pid, NULL, 0);
        }
        error_context(err, "exec failed: unable to start container process");
    }
    return r;
}

static int open_wait_fifo(struct execution *execution, struct error *err)
{
    const char *path = execution->options->wait_fifo;
    struct stat status;

    if (text_empty(path))
        return 0;
    execution->wait_fifo_fd = open(path, O_PATH | O_CLOEXEC);
    if (execution->wait_fifo_fd < 0 || fstat(execution->wait_fifo_fd, &status) < 0)
        return error_errno(err, errno, "failed to open exec wait fifo %s", path);
    if (!S_ISFIFO(status.st_mode))
        return error_set(err, -EINVAL, "exec wait fifo: %s is not a fifo", path);
    if (execution->config->linux && filter_wants_listener(execution->config->linux->seccomp))
        return error_set(err, -ENOTSUP,
                         "--exec-wait-fifo: not together with linux.seccomp.listenerPath");
    return 0;
}

/* What the caller wants to be told through, opened before anything is made. */
static int open_connections(struct execution *execution, int *ret_relay_fd, struct error *err)
{
    int r = pidfd_socket_connect(execution->options->pidfd_socket, &execution->pidfd_socket, err);

    if (r == 0)
        r = open_wait_fifo(execution, err);
    return r < 0 ? r : open_console(execution, ret_relay_fd, err);
}

/* runc's words: who looks at its debug log looks for them. */
static void tell_steps(const struct execution *execution, char ***warnings)
{
    const struct oci_exec_cpu_affinity *affinity = execution->process->exec_cpu_affinity;

    strv_append(warnings, RUNTIME_DEBUG "nsexec container setup");
    if (affinity && !text_empty(affinity->initial)) {
        _cleanup_free_ char *mask = attributes_affinity_mask(affinity->initial);
        strv_take(warnings,
                  xasprintf(RUNTIME_DEBUG "nsexec[%d]: affinity: %s", execution->pid, mask));
    }
    strv_append(warnings, RUNTIME_DEBUG "child process in init()");
    strv_append(warnings, RUNTIME_DEBUG "setns_init: about to exec");
}

static int prepare_cgroup(struct execution *execution, struct error *err)
{
    char *const *places = execution->options->cgroups;
    const struct runtime_state *state = execution->stored.state;
    struct cgroup *cgroup = &execution->cgroup;

    execution->join.clone_fd = -1;
    /* A user may not move processes between cgroups that have nothing in common but the machine's.
     */
    if (cgroup->user_manager && !places)
        return 0;
    if (!places && cgroup->ops->version == 2 && !cgroup_is_none(cgroup) &&
        container_is_below_cgroup(state->annotations))
        return cgroup_prepare_join_init(cgroup, state->pid, &execution->join, err);
    return cgroup_prepare_join_further(cgroup, places, state->pid, &execution->join, err);
}

static int prepare(struct execution *execution, const char *root, char ***warnings,
                   int *ret_relay_fd, struct error *err)
{
    int r =
        preserved_init(&execution->preserved, execution->options->preserve_fds, 0, warnings, err);

    if (r == 0)
        r = load(execution, root, warnings, err);
    if (r == 0)
        r = execution->proc_fd = create_open_proc(err);
    if (r >= 0)
        r = namespaces_differing(execution->proc_fd, execution->stored.state->pid,
                                 &execution->namespaces, err);
    if (r == 0)
        r = state_open_cgroup(&execution->stored, &execution->cgroup, err);
    if (r == 0)
        r = prepare_cgroup(execution, err);
    return r < 0 ? r : open_connections(execution, ret_relay_fd, err);
}

int runtime_exec(const char *root, const struct cloche_runtime_exec_options *options,
                 char ***warnings, int *ret_exit_code, struct error *err)
{
    struct execution execution = {.options = options,
                                  .stored = {.fd = -1, .root_fd = -1, .pidfd = -1},
                                  .proc_fd = -1,
                                  .sync_fd = -1,
                                  .console_fd = -1,
                                  .pidfd_socket = -1,
                                  .wait_fifo_fd = -1,
                                  .pidfd = -1,
                                  .unprivileged = geteuid() != 0};
    _cleanup_close_ int relay_fd = -1, master_fd = -1;

    if (!execution.unprivileged)
        prctl(PR_SET_DUMPABLE, 0, 0, 0, 0);
    int r = prepare(&execution, root, warnings, &relay_fd, err);
    if (r == 0)
        r = start_member(&execution, err);
    if (r == 0)
        tell_steps(&execution, warnings);
    *ret_exit_code = 0;
    if (r == 0 && !options->detach && relay_fd >= 0)
        r = terminal_receive(relay_fd, &master_fd, err);
    if (r == 0 && !options->detach)
        r = foreground_wait(execution.pid, master_fd, NULL, ret_exit_code, &execution.unexecuted,
                            err);
    if (r == 0)
        r = check_executed(&execution, err);
    execution_finish(&execution);
    return r;
}
