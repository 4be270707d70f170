/*
 * What the container shares with others: their PID, IPC and network namespaces with the user
 * namespace that these belong to, and their /dev/shm, or its own /dev/shm that others may share.
 * All of it is found anew for each run, as a container that was joined may have been started anew
 * meanwhile, and needs no daemon: another container is known by its bundle, whose status file names
 * its monitor and its first process. That these are still they is looked at after what is theirs
 * was opened.
 *
 * What was found is mounted in the bundle, in our own mount namespace, where config.json names it:
 * userns, pidns, ipcns, netns, shm. The runtime therefore joins what was looked at, whatever
 * becomes of the numbers of processes. System calls: setns, open_tree, move_mount (Linux 5.2),
 * mount, umount2.
 */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/magic.h>
#include <linux/nsfs.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/vfs.h>
#include <unistd.h>

#include <base/alloc.h>
#include <base/file.h>
#include <base/process.h>
#include <base/text.h>
#include <monitor/status.h>

#include "monitor_internal.h"

#ifndef OPEN_TREE_CLONE
#define OPEN_TREE_CLONE 1
#endif
#ifndef MOVE_MOUNT_F_EMPTY_PATH
#define MOVE_MOUNT_F_EMPTY_PATH 0x00000004
#endif

enum { COMMAND_LINE_MAX = 64 * 1024 };

static const char shm_name[] = "shm";

/* Another container. */
struct other {
    const char *bundle;
    const char *id; /* the last part of bundle */
    pid_t monitor;
    uint64_t monitor_started; /* as process_start_time() tells; 0: not known */
    pid_t pid;                /* 0: it is between two runs */
};

static int not_running(const struct other *other, const char *what, struct error *err)
{
    error_set(err, -EBUSY, "cannot join %s of a non running container: %s", what, other->id);
    return error_hint(err, "start %.12s, then this container", other->id);
}

/* ---- who it is ---- */

/* A process in the container can have got the number, but not the time. */
static bool began_then(const struct other *other)
{
    uint64_t started;

    return process_start_time(other->monitor, &started) == 0 &&
           (!other->monitor_started || started == other->monitor_started);
}

/* Only a monitor of this bundle has these two words one after the other; or who poses as it. */
static bool has_its_words(const struct other *other)
{
    _cleanup_free_ char *path = xasprintf("/proc/%d/cmdline", (int)other->monitor);
    _cleanup_free_ char *line = NULL;
    static const char option[] = "--bundle";
    size_t length, bundle = strlen(other->bundle) + 1;

    if (file_read_at(AT_FDCWD, path, COMMAND_LINE_MAX, &line, &length, NULL) < 0)
        return false;
    for (const char *at = line; at < line + length; at += strlen(at) + 1) {
        if (strcmp(at, option) == 0 && (size_t)(line + length - at) >= sizeof(option) + bundle &&
            memcmp(at + sizeof(option), other->bundle, bundle) == 0)
            return true;
    }
    return false;
}

/* proc_pid_stat(5) */
static pid_t parent_of(pid_t pid)
{
    const int parent_field = 4;
    char state;
    uint64_t parent;

    return process_stat(pid, parent_field, &state, &parent) < 0 ? -1 : (pid_t)parent;
}

/* A first process is its monitor's child. */
static bool is_still(const struct other *other)
{
    return other->monitor > 0 && began_then(other) && has_its_words(other) &&
           (!other->pid || parent_of(other->pid) == other->monitor);
}

static int find(const char *bundle, const char *what, struct other *ret, struct error *err)
{
    _cleanup_close_ int fd = open(bundle, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
    struct monitor_status status;

    *ret = (struct other){.bundle = bundle, .id = strrchr(bundle, '/') + 1};
    if (fd < 0 || monitor_status_read_monitor(fd, &status, &ret->monitor_started, NULL) < 0 ||
        status.state == MONITOR_STATE_EXITED)
        return not_running(ret, what, err);
    ret->monitor = status.monitor_pid;
    ret->pid = status.state == MONITOR_STATE_RUNNING ? status.pid : 0;
    return is_still(ret) ? 0 : not_running(ret, what, err);
}

/* ---- namespaces ---- */

static char *in_bundle(const struct monitor_options *options, const char *name)
{
    return xasprintf("%s/%s", options->bundle, name);
}

int joined_bind(const struct monitor_options *options, int fd, const char *name, struct error *err)
{
    _cleanup_free_ char *path = in_bundle(options, name);
    char source[64];
    int file = open(path, O_RDONLY | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);

    if (file < 0)
        return error_errno(err, errno, "create %s", path);
    close(file);
    snprintf(source, sizeof(source), "/proc/self/fd/%d", fd);
    if (mount(source, path, NULL, MS_BIND, NULL) < 0)
        return error_errno(err, errno, "bind a namespace on %s", path);
    return 0;
}

static void release(const struct monitor_options *options, const char *name)
{
    _cleanup_free_ char *path = in_bundle(options, name);

    umount2(path, MNT_DETACH | UMOUNT_NOFOLLOW);
}

static bool is_namespace(int fd)
{
    struct statfs status;

    return fstatfs(fd, &status) == 0 && status.f_type == NSFS_MAGIC;
}

/* -errno; -ESRCH: nobody to ask. */
static int open_of_process(const struct other *other, const char *kind)
{
    _cleanup_free_ char *path = xasprintf("/proc/%d/ns/%s", (int)other->pid, kind);
    int fd = other->pid ? open(path, O_RDONLY | O_CLOEXEC) : -ESRCH;

    return fd < 0 && other->pid ? -errno : fd;
}

/* As its monitor holds it, which it also does between two runs, and whatever its processes have
 * made themselves. One that has the machine's network has no such file; its monitor's is that. */
static int open_of_monitor(const struct other *other, const char *kind)
{
    _cleanup_free_ char *bound =
        xasprintf("/proc/%d/root%s/%sns", (int)other->monitor, other->bundle, kind);
    _cleanup_free_ char *own = xasprintf("/proc/%d/ns/%s", (int)other->monitor, kind);
    int fd = open(bound, O_RDONLY | O_CLOEXEC);

    if (fd < 0 && errno == ENOENT && strcmp(kind, "net") == 0)
        fd = open(own, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return -errno;
    if (is_namespace(fd))
        return fd;
    close(fd);
    return -ESRCH;
}

/* Those of a partner that was started anew belong to its new user namespace, where this container's
 * root has no rights: the kernel's refusals would say nothing of that (NS_GET_USERNS, Linux 4.9).
 */
static bool belongs_to_our_users(const struct monitor_options *options, int fd)
{
    _cleanup_free_ char *path = in_bundle(options, "userns");
    _cleanup_close_ int own = open(path, O_RDONLY | O_CLOEXEC);
    struct stat ours, theirs;

    if (own < 0 || !is_namespace(own))
        return true;
    _cleanup_close_ int owner = ioctl(fd, NS_GET_USERNS);
    return owner >= 0 && fstat(own, &ours) == 0 && fstat(owner, &theirs) == 0 &&
           ours.st_ino == theirs.st_ino;
}

static int other_users(const struct other *other, const char *what, struct error *err)
{
    error_set(err, -EBUSY,
              "cannot join %s of container %s: it was started anew, with another user namespace",
              what, other->id);
    return error_hint(err, "restart this container, for it to get that one");
}

static int join_namespace(const struct monitor_options *options, const struct other *other,
                          const char *kind, const char *what, struct error *err)
{
    bool held = strcmp(kind, "net") == 0 || strcmp(kind, "user") == 0;
    char name[16];
    _cleanup_close_ int fd = held ? open_of_monitor(other, kind) : open_of_process(other, kind);

    if (fd < 0 || !is_still(other))
        return not_running(other, what, err);
    if (strcmp(kind, "user") != 0 && !belongs_to_our_users(options, fd))
        return other_users(other, what, err);
    snprintf(name, sizeof(name), "%sns", kind);
    release(options, name);
    return joined_bind(options, fd, name, err);
}

/* ---- /dev/shm ---- */

static int make_folder(const char *path, struct error *err)
{
    if (mkdir(path, 0700) < 0 && errno != EEXIST)
        return error_errno(err, errno, "create %s", path);
    return 0;
}

/* Its own, for this run. */
static int place_own_shm(const struct monitor_options *options, struct error *err)
{
    _cleanup_free_ char *path = in_bundle(options, shm_name);
    _cleanup_free_ char *how =
        xasprintf("mode=1777,size=%llu", (unsigned long long)options->shm_size);
    int r = make_folder(path, err);

    if (r < 0)
        return r;
    release(options, shm_name);
    if (mount("shm", path, "tmpfs", MS_NOSUID | MS_NODEV | MS_NOEXEC, how) < 0)
        return error_errno(err, errno, "mount %s", path);
    return 0;
}

/* A detached copy of a mount of the other's monitor. open_tree(2) takes only what lies in the mount
 * namespace of the caller, so that we go there and come back. -ENOENT: nothing is mounted there. */
static int clone_shm(const struct other *other, struct error *err)
{
    _cleanup_free_ char *theirs = xasprintf("/proc/%d/ns/mnt", (int)other->monitor);
    _cleanup_free_ char *path = xasprintf("%s/%s", other->bundle, shm_name);
    _cleanup_close_ int own = open("/proc/self/ns/mnt", O_RDONLY | O_CLOEXEC);
    _cleanup_close_ int there = open(theirs, O_RDONLY | O_CLOEXEC);
    struct stat status, parent;
    int fd = -1, r = 0;

    if (own < 0)
        return error_errno(err, errno, "open our mount namespace");
    if (there < 0 || setns(there, CLONE_NEWNS) < 0)
        return error_errno(err, errno, "enter the mounts of container %.12s", other->id);
    if (stat(path, &status) < 0 || stat(other->bundle, &parent) < 0)
        r = -errno;
    else if (status.st_dev == parent.st_dev) /* the folder, and nothing on it */
        r = -ENOENT;
    else
        fd = (int)syscall(SYS_open_tree, AT_FDCWD, path,
                          OPEN_TREE_CLONE | O_CLOEXEC | AT_SYMLINK_NOFOLLOW);
    if (r == 0 && fd < 0)
        r = -errno;
    if (setns(own, CLONE_NEWNS) < 0) {
        r = error_errno(err, errno, "return to our own mounts");
        close_fd(fd);
        return r;
    }
    return r < 0 ? error_errno(err, -r, "take /dev/shm of container %.12s", other->id) : fd;
}

static int join_shm(const struct monitor_options *options, const struct other *other,
                    struct error *err)
{
    _cleanup_free_ char *path = in_bundle(options, shm_name);
    _cleanup_close_ int fd = clone_shm(other, err);

    if (fd == -ENOENT) {
        error_set(err, -EINVAL, "can't join IPC of container %s: non-shareable IPC", other->id);
        return error_hint(err, "give that container --ipc shareable");
    }
    if (fd < 0)
        return fd;
    if (!is_still(other))
        return not_running(other, "IPC", err);
    int r = make_folder(path, err);
    if (r < 0)
        return r;
    release(options, shm_name);
    if (syscall(SYS_move_mount, fd, "", AT_FDCWD, path, MOVE_MOUNT_F_EMPTY_PATH) < 0)
        return error_errno(err, errno, "mount %s", path);
    return 0;
}

/* ---- all of it ---- */

/* Whether a network of its own belongs to the users that were found now. */
static bool network_fits(const struct monitor_options *options)
{
    _cleanup_free_ char *path = in_bundle(options, "netns");
    _cleanup_close_ int fd =
        options->joined[MONITOR_JOINED_NETWORK] ? -1 : open(path, O_RDONLY | O_CLOEXEC);

    return fd < 0 || !is_namespace(fd) || belongs_to_our_users(options, fd);
}

static int join(const struct monitor_options *options, enum monitor_joined kind, struct error *err)
{
    static const struct {
        const char *kind, *what;
    } kinds[] = {
        [MONITOR_JOINED_USER] = {"user", "the users"},
        [MONITOR_JOINED_PID] = {"pid", "PID"},
        [MONITOR_JOINED_IPC] = {"ipc", "IPC"},
        [MONITOR_JOINED_NETWORK] = {"net", "network"},
    };
    struct other other;

    if (!options->joined[kind])
        return 0;
    int r = find(options->joined[kind], kinds[kind].what, &other, err);
    if (r == 0 && kind == MONITOR_JOINED_IPC)
        r = join_shm(options, &other, err);
    if (r == 0)
        r = join_namespace(options, &other, kinds[kind].kind, kinds[kind].what, err);
    if (r == 0 && kind == MONITOR_JOINED_USER && !network_fits(options))
        r = other_users(&other, kinds[kind].what, err);
    return r;
}

int joined_prepare(const struct monitor_options *options, struct error *err)
{
    int r = options->shm_size ? place_own_shm(options, err) : 0;

    for (int kind = 0; r == 0 && kind < MONITOR_JOINED_COUNT; kind++)
        r = join(options, (enum monitor_joined)kind, err);
    return r;
}

void joined_release(const struct monitor_options *options)
{
    static const char *const names[] = {"userns", "netns", "pidns", "ipcns", shm_name};

    for (size_t i = 0; i < ARRAY_SIZE(names); i++)
        release(options, names[i]);
}
