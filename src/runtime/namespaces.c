#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <linux/nsfs.h>
#include <net/if.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <schema/oci_config.h>

#include <base/alloc.h>
#include <base/file.h>
#include <base/text.h>

#include "cgroup.h"
#include "kernel.h"
#include "namespaces.h"

#define OWN_PIDS "/proc/self/ns/pid"
#define OWN_TIME "/proc/self/ns/time"

/* The user namespace is joined last: entering the others needs the rights over them that the
 * caller has by its own. */
const struct namespace_kind namespace_kinds[NAMESPACES_COUNT] = {
    {"pid", "pid", CLONE_NEWPID},          {"network", "net", CLONE_NEWNET},
    {"ipc", "ipc", CLONE_NEWIPC},          {"uts", "uts", CLONE_NEWUTS},
    {"cgroup", "cgroup", CLONE_NEWCGROUP}, {"time", "time", CLONE_NEWTIME},
    {"mount", "mnt", CLONE_NEWNS},         {"user", "user", CLONE_NEWUSER},
};

/* Of the new namespaces these are made by the clone. The rest is made by the process itself: a
 * network namespace takes longer than all else, and meanwhile the parent goes on. */
#define BORN_IN ((uint64_t)(CLONE_NEWPID | CLONE_NEWUSER))
#define MADE_LATER                                                                                 \
    ((uint64_t)(CLONE_NEWNS | CLONE_NEWNET | CLONE_NEWIPC | CLONE_NEWUTS)) /* and cgroup, last */

static int open_namespace(const struct namespace_kind *kind, const char *path, struct error *err)
{
    _cleanup_close_ int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);

    if (fd < 0)
        return error_errno(err, errno, "open %s", path);
    int type = ioctl(fd, NS_GET_NSTYPE);
    if (type < 0)
        return error_set(err, -EINVAL, "%s is not a namespace", path);
    if ((uint64_t)type != kind->flag)
        return error_set(err, -EINVAL, "%s is a namespace of another type than '%s'", path,
                         kind->name);
    return steal_fd(&fd);
}

static int take_namespace(struct namespaces *namespaces, const struct oci_namespace *entry,
                          struct error *err)
{
    for (size_t i = 0; i < NAMESPACES_COUNT; i++) {
        const struct namespace_kind *kind = &namespace_kinds[i];
        if (!text_equal(kind->name, entry->type))
            continue;
        if ((namespaces->create | namespaces->join) & kind->flag)
            return error_set(err, -EINVAL, "type: '%s' is there twice", kind->name);
        if (text_empty(entry->path)) {
            namespaces->create |= kind->flag;
            return 0;
        }
        namespaces->fds[i] = open_namespace(kind, entry->path, err);
        if (namespaces->fds[i] < 0) {
            error_context(err, "path");
            return namespaces->fds[i];
        }
        namespaces->join |= kind->flag;
        return 0;
    }
    return error_set(err, -EINVAL, "type: unknown namespace '%s'", entry->type);
}

/* Then it belongs to the new user namespace, and who made that may set its offsets. */
static bool is_time_made_inside(const struct namespaces *namespaces)
{
    return (namespaces->create & CLONE_NEWTIME) && (namespaces->create & CLONE_NEWUSER);
}

/* Root of a user namespace may set another namespace for its children and not return to its own. */
static bool may_return(uint64_t flag, const char *path)
{
    _cleanup_close_ int fd = open(path, O_RDONLY | O_CLOEXEC);

    return fd >= 0 && setns(fd, (int)flag) == 0;
}

static bool has_to_be_aside(const struct namespaces *namespaces)
{
    if ((namespaces->join & CLONE_NEWUSER) ||
        ((namespaces->create & CLONE_NEWUSER) && namespaces->join))
        return true;
    if ((namespaces->join & CLONE_NEWPID) && !may_return(CLONE_NEWPID, OWN_PIDS))
        return true;
    return (namespaces->create & CLONE_NEWTIME) && !is_time_made_inside(namespaces) &&
           !may_return(CLONE_NEWTIME, OWN_TIME);
}

int namespaces_init(struct namespaces *namespaces, const struct oci_linux *config,
                    struct error *err)
{
    *namespaces = (struct namespaces){0};
    memset(namespaces->fds, -1, sizeof(namespaces->fds));
    for (size_t i = 0; config && i < config->namespaces_count; i++) {
        int r = take_namespace(namespaces, config->namespaces[i], err);
        if (r < 0) {
            error_context(err, "linux.namespaces[%zu]", i);
            namespaces_finish(namespaces);
            return r;
        }
    }
    namespaces->aside = has_to_be_aside(namespaces);
    return 0;
}

int namespaces_of_process(struct namespaces *namespaces, int proc_fd, pid_t pid, uint64_t flags,
                          struct error *err)
{
    char path[48];

    *namespaces = (struct namespaces){.join = flags};
    memset(namespaces->fds, -1, sizeof(namespaces->fds));
    for (size_t i = 0; i < NAMESPACES_COUNT; i++) {
        if (!(flags & namespace_kinds[i].flag))
            continue;
        snprintf(path, sizeof(path), "%d/ns/%s", pid, namespace_kinds[i].file);
        namespaces->fds[i] = openat(proc_fd, path, O_RDONLY | O_CLOEXEC);
        if (namespaces->fds[i] < 0)
            return error_errno(err, errno, "open the %s namespace of process %d",
                               namespace_kinds[i].name, pid);
    }
    namespaces->aside = true;
    return 0;
}

void namespaces_finish(struct namespaces *namespaces)
{
    for (size_t i = 0; i < NAMESPACES_COUNT; i++) {
        close_fd(namespaces->fds[i]);
        namespaces->fds[i] = -1;
    }
}

int namespaces_differing(int proc_fd, pid_t pid, uint64_t *ret, struct error *err)
{
    *ret = 0;
    for (size_t i = 0; i < NAMESPACES_COUNT; i++) {
        char own[32], theirs[48];
        struct stat own_status, status;
        snprintf(own, sizeof(own), "self/ns/%s", namespace_kinds[i].file);
        snprintf(theirs, sizeof(theirs), "%d/ns/%s", pid, namespace_kinds[i].file);
        if (fstatat(proc_fd, own, &own_status, 0) < 0)
            continue; /* a kernel without this kind */
        if (fstatat(proc_fd, theirs, &status, 0) < 0)
            return error_errno(err, errno, "look at the container's namespaces");
        if (own_status.st_ino != status.st_ino)
            *ret |= namespace_kinds[i].flag;
    }
    return 0;
}

static int fd_of(const struct namespaces *namespaces, uint64_t flag)
{
    for (size_t i = 0; i < NAMESPACES_COUNT; i++) {
        if (namespace_kinds[i].flag == flag)
            return namespaces->fds[i];
    }
    return -1;
}

/* The root of a message queue file system belongs to who made its IPC namespace, and in a user
 * namespace that must be a user who is there: the child makes it when it is root in there
 * (namespaces_enter_as_root). */
static uint64_t made_as_root(const struct namespaces *namespaces)
{
    bool own_users = (namespaces->create | namespaces->join) & CLONE_NEWUSER;

    return own_users ? namespaces->create & CLONE_NEWIPC : 0;
}

/* The process that becomes init. */
static pid_t clone_init(uint64_t flags, int cgroup_fd, int *ret_pidfd, bool *ret_in_cgroup)
{
    pid_t pid;

    *ret_in_cgroup = cgroup_fd >= 0;
    if (cgroup_fd >= 0) {
        pid = kernel_clone(flags | CLONE_INTO_CGROUP, cgroup_fd, ret_pidfd);
        /* Before Linux 5.7 EINVAL or E2BIG; EBUSY and others: let the plain way tell. */
        if (pid >= 0)
            return pid;
        *ret_in_cgroup = false;
    }
    return kernel_clone(flags, -1, ret_pidfd);
}

static int write_time_offsets(const struct oci_linux *config, struct error *err)
{
    _cleanup_buffer_ struct buffer text = BUFFER_INIT;

    for (size_t i = 0; config->time_offsets && i < config->time_offsets->count; i++) {
        const struct oci_time_offset *offset = config->time_offsets->values[i];
        buffer_printf(&text, "%s %" PRId64 " %u\n", config->time_offsets->keys[i],
                      offset->has_secs ? offset->secs : 0,
                      offset->has_nanosecs ? offset->nanosecs : 0);
    }
    if (!text.length)
        return 0;
    int r =
        file_write_existing_at(AT_FDCWD, "/proc/self/timens_offsets", text.data, text.length, err);
    if (r < 0)
        error_context(err, "linux.timeOffsets");
    return r;
}

/* A new time namespace is for the caller's children; it takes offsets until the first one is in
 * (time_namespaces(7)). */
static int prepare_time(const struct namespaces *namespaces, const struct oci_linux *config,
                        struct error *err)
{
    if (!(namespaces->create & CLONE_NEWTIME) || is_time_made_inside(namespaces))
        return 0;
    if (unshare(CLONE_NEWTIME) < 0)
        return error_errno(err, errno, "create a time namespace");
    return write_time_offsets(config, err);
}

/* What setns and unshare set for the caller's children is taken back, for the hooks. */
static int restore_own(uint64_t flag, const char *path, struct error *err)
{
    _cleanup_close_ int fd = open(path, O_RDONLY | O_CLOEXEC);

    if (fd < 0 || setns(fd, (int)flag) < 0)
        return error_errno(err, errno, "return to %s", path);
    return 0;
}

static int clone_directly(const struct namespaces *namespaces, const struct oci_linux *config,
                          const struct cgroup_join *join, pid_t *ret_pid, int *ret_pidfd,
                          bool *ret_in_cgroup, struct error *err)
{
    int pid_fd = fd_of(namespaces, CLONE_NEWPID), r = 0;

    if (pid_fd >= 0 && setns(pid_fd, CLONE_NEWPID) < 0)
        return error_errno(err, errno, "join the pid namespace");
    /* Its processes see the child from its first moment on: it must be opaque by then. */
    if (pid_fd >= 0)
        prctl(PR_SET_DUMPABLE, 0, 0, 0, 0);
    r = prepare_time(namespaces, config, err);
    if (r < 0)
        return r;
    pid_t pid = clone_init(namespaces->create & BORN_IN, join->clone_fd, ret_pidfd, ret_in_cgroup);
    if (pid < 0)
        return error_errno(err, -pid, "start a process in new namespaces");
    if (pid == 0)
        return 0;
    *ret_pid = pid;
    if (pid_fd >= 0)
        r = restore_own(CLONE_NEWPID, OWN_PIDS, err);
    if (r == 0 && (namespaces->create & CLONE_NEWTIME) && !is_time_made_inside(namespaces))
        r = restore_own(CLONE_NEWTIME, OWN_TIME, err);
    return r < 0 ? r : 1;
}

/* With the own rights first: who joins a user namespace loses those over the namespaces of its
 * parent, and gains those over its own. What could not be joined before is tried again then. */
static int join_all(const struct namespaces *namespaces, int *ret_failed)
{
    bool retry[NAMESPACES_COUNT] = {false};
    bool joins_users = namespaces->join & CLONE_NEWUSER;

    for (size_t i = 0; i < NAMESPACES_COUNT; i++) {
        *ret_failed = (int)i;
        if (namespaces->fds[i] < 0 || setns(namespaces->fds[i], (int)namespace_kinds[i].flag) == 0)
            continue;
        if (errno != EPERM || !joins_users || namespace_kinds[i].flag == CLONE_NEWUSER)
            return -errno;
        retry[i] = true;
    }
    for (size_t i = 0; i < NAMESPACES_COUNT; i++) {
        *ret_failed = (int)i;
        if (retry[i] && setns(namespaces->fds[i], (int)namespace_kinds[i].flag) < 0)
            return -errno;
    }
    *ret_failed = -1;
    return 0;
}

struct intermediate_report {
    int failure; /* positive errno, 0: pid is the process */
    int kind;    /* index of the namespace that could not be joined, -1 */
    pid_t pid;
};

/* In the intermediate process. Returns only in the container's process. */
static void intermediate_main(const struct namespaces *namespaces, const struct oci_linux *config,
                              struct cgroup_join *join, int report_fd)
{
    struct intermediate_report report = {.kind = -1};
    bool in_cgroup;

    /* Who is already in those namespaces must not look into this process and its child. Where
     * offsets have to be written to our own files in /proc, those are ours until then. */
    if ((namespaces->join & (CLONE_NEWUSER | CLONE_NEWPID)) &&
        !(namespaces->create & CLONE_NEWTIME))
        prctl(PR_SET_DUMPABLE, 0, 0, 0, 0);
    /* Before the user namespace is entered, while the cgroup may still be joined. */
    int r = cgroup_join_self(join, false);
    cgroup_join_finish(join); /* its sibling is born where it is */
    if (r == 0)
        r = join_all(namespaces, &report.kind);
    if (r == 0)
        r = prepare_time(namespaces, config, NULL);
    if (r == 0) {
        report.pid =
            clone_init((namespaces->create & BORN_IN) | CLONE_PARENT, -1, NULL, &in_cgroup);
        if (report.pid == 0)
            return;
        r = report.pid < 0 ? report.pid : 0;
    }
    report.failure = -r;
    (void)!write(report_fd, &report, sizeof(report));
    _exit(0);
}

/* Joining comes before the new user namespace is made (a joined namespace belongs to others, and
 * from inside of the new one it may not be entered), or the new namespaces are made inside of a
 * joined user namespace: a process in between does the first half, its sibling is the container. */
static int clone_through_intermediate(const struct namespaces *namespaces,
                                      const struct oci_linux *config, struct cgroup_join *join,
                                      pid_t *ret_pid, int *ret_pidfd, struct error *err)
{
    struct intermediate_report report = {.failure = EPIPE, .kind = -1};
    int pipe_fds[2];

    if (pipe2(pipe_fds, O_CLOEXEC) < 0)
        return error_errno(err, errno, "create a pipe");
    _cleanup_close_ int read_fd = pipe_fds[0], write_fd = pipe_fds[1];
    pid_t pid = kernel_clone(0, -1, NULL);
    if (pid < 0)
        return error_errno(err, -pid, "start a process");
    if (pid == 0) {
        intermediate_main(namespaces, config, join, write_fd);
        return 0;
    }
    close_fd(steal_fd(&write_fd));
    if (read(read_fd, &report, sizeof(report)) < 0)
        report.failure = errno;
    waitpid(pid, NULL, 0);
    if (report.failure && report.kind >= 0)
        return error_errno(err, report.failure, "join the %s namespace",
                           namespace_kinds[report.kind].name);
    if (report.failure)
        return error_errno(err, report.failure, "join the namespaces and start a process there");
    *ret_pid = report.pid;
    int pidfd = kernel_pidfd_open(report.pid);
    if (pidfd < 0)
        return error_errno(err, -pidfd, "pidfd_open");
    *ret_pidfd = pidfd;
    return 1;
}

bool namespaces_need_intermediate(const struct namespaces *namespaces)
{
    return namespaces->aside;
}

int namespaces_clone(const struct namespaces *namespaces, const struct oci_linux *config,
                     struct cgroup_join *join, pid_t *ret_pid, int *ret_pidfd, bool *ret_in_cgroup,
                     struct error *err)
{
    if (!namespaces_need_intermediate(namespaces))
        return clone_directly(namespaces, config, join, ret_pid, ret_pidfd, ret_in_cgroup, err);
    *ret_in_cgroup = false;
    return clone_through_intermediate(namespaces, config, join, ret_pid, ret_pidfd, err);
}

/* unshare is for the children; setns is for the process itself. */
static int make_time_inside(const struct oci_linux *config, struct error *err)
{
    if (unshare(CLONE_NEWTIME) < 0)
        return error_errno(err, errno, "create a time namespace");
    int r = write_time_offsets(config, err);
    return r < 0 ? r : restore_own(CLONE_NEWTIME, "/proc/self/ns/time_for_children", err);
}

int namespaces_enter(const struct namespaces *namespaces, const struct oci_linux *config,
                     struct error *err)
{
    uint64_t later = namespaces->create & MADE_LATER & ~made_as_root(namespaces);

    if (later && unshare((int)later) < 0)
        return error_errno(err, errno, "create new namespaces");
    if (is_time_made_inside(namespaces)) {
        int r = make_time_inside(config, err);
        if (r < 0)
            return r;
    }
    if (namespaces_need_intermediate(namespaces))
        return 0;
    for (size_t i = 0; i < NAMESPACES_COUNT; i++) {
        const struct namespace_kind *kind = &namespace_kinds[i];
        if (namespaces->fds[i] < 0 || kind->flag == CLONE_NEWPID || kind->flag == CLONE_NEWCGROUP)
            continue;
        if (setns(namespaces->fds[i], (int)kind->flag) < 0)
            return error_errno(err, errno, "join the %s namespace", kind->name);
    }
    return 0;
}

int namespaces_enter_cgroup(const struct namespaces *namespaces, struct error *err)
{
    int fd = fd_of(namespaces, CLONE_NEWCGROUP);

    if ((namespaces->create & CLONE_NEWCGROUP) && unshare(CLONE_NEWCGROUP) < 0)
        return error_errno(err, errno, "create a cgroup namespace");
    if (fd >= 0 && !namespaces_need_intermediate(namespaces) && setns(fd, CLONE_NEWCGROUP) < 0)
        return error_errno(err, errno, "join the cgroup namespace");
    return 0;
}

int namespaces_enter_as_root(const struct namespaces *namespaces, struct error *err)
{
    uint64_t flags = made_as_root(namespaces);

    if (flags && unshare((int)flags) < 0)
        return error_errno(err, errno, "create an ipc namespace");
    return 0;
}

int namespaces_loopback_up(struct error *err)
{
    _cleanup_close_ int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    /* A new one has no other flag that could be set (netdevice(7)). */
    struct ifreq request = {.ifr_name = "lo", .ifr_flags = IFF_UP};

    if (fd < 0)
        return error_errno(err, errno, "socket");
    if (ioctl(fd, SIOCSIFFLAGS, &request) < 0)
        return error_errno(err, errno, "bring lo up");
    return 0;
}
