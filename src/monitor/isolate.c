/*
 * The monitor sets itself apart, in stages:
 *   1. a session of its own, so that no terminal and no signal to the daemon's group reaches it;
 *   2. child subreaper: the container's init becomes its child when the runtime has ended
 *      (PR_SET_CHILD_SUBREAPER, Linux 3.4);
 *   3. the last to be killed for want of memory, where it is allowed to say so; its children get
 *      back what it came with;
 *   4. a mount namespace that receives the host's mounts and gives none back, with the container's
 *      root and network namespace in it: they vanish with the monitor, whatever ends it. Only binds
 *      that are asked for as shared give back what is mounted below them.
 * System calls: setsid, prctl, unshare, mount, open_tree and move_mount (Linux 5.2), umount2.
 */
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <base/alloc.h>
#include <base/file.h>

#include "monitor_internal.h"

#ifndef AT_RECURSIVE
#define AT_RECURSIVE 0x8000
#endif
#ifndef OPEN_TREE_CLONE
#define OPEN_TREE_CLONE 1
#endif
#ifndef MOVE_MOUNT_F_EMPTY_PATH
#define MOVE_MOUNT_F_EMPTY_PATH 0x00000004
#endif

static const char oom_file[] = "/proc/self/oom_score_adj";
static const char oom_least[] = "-999"; /* not -1000: when nothing else is left, it may go */
static char oom_before[16];             /* "": not changed */

static void protect_from_oom(void)
{
    _cleanup_free_ char *before = NULL;
    size_t length;

    if (file_read_at(AT_FDCWD, oom_file, sizeof(oom_before) - 1, &before, &length, NULL) < 0)
        return;
    /* Needs CAP_SYS_RESOURCE (proc(5)): without it the score stays, which is no failure. */
    if (file_write_existing_at(AT_FDCWD, oom_file, oom_least, strlen(oom_least), NULL) == 0)
        memcpy(oom_before, before, length + 1);
}

void isolate_begin_child(void)
{
    if (oom_before[0])
        file_write_existing_at(AT_FDCWD, oom_file, oom_before, strlen(oom_before), NULL);
}

void isolate_end_child(void)
{
    if (oom_before[0])
        file_write_existing_at(AT_FDCWD, oom_file, oom_least, strlen(oom_least), NULL);
}

int isolate_process(struct error *err)
{
    /* EPERM: we lead a session already. */
    if (setsid() < 0 && errno != EPERM)
        return error_errno(err, errno, "start a session");
    if (prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) < 0)
        return error_errno(err, errno, "become child subreaper");
    prctl(PR_SET_NAME, "cloche-monitor");
    protect_from_oom();
    return 0;
}

static int place_rootfs(const struct monitor_options *options, struct error *err)
{
    _cleanup_free_ char *path = xasprintf("%s/rootfs", options->bundle);

    if (syscall(SYS_move_mount, options->rootfs_fd, "", AT_FDCWD, path, MOVE_MOUNT_F_EMPTY_PATH) <
        0)
        return error_errno(err, errno, "mount the container's root on %s", path);
    return 0;
}

/* ---- binds of which the machine is to see what is mounted below them, and parts of volumes ----
 */

/* Below the volume, whatever the links in it say. */
static int open_part(const struct monitor_bind *bind, struct error *err)
{
    _cleanup_close_ int volume = open(bind->path, O_PATH | O_DIRECTORY | O_CLOEXEC);
    _cleanup_close_ int part =
        volume < 0 ? -1 : file_open_in_root(volume, bind->subpath, O_PATH, 0);

    if (volume < 0)
        return error_errno(err, errno, "open %s", bind->path);
    if (part < 0)
        return error_errno(err, -part, "open subpath %s of the volume at %s", bind->subpath,
                           bind->path);
    int fd = (int)syscall(SYS_open_tree, part, "",
                          OPEN_TREE_CLONE | O_CLOEXEC | AT_RECURSIVE | AT_EMPTY_PATH);
    return fd < 0 ? error_errno(err, errno, "take %s", bind->subpath) : fd;
}

/* Copies that are peers of the machine's mounts: made before ours are cut off from these. */
static int open_bind(const struct monitor_bind *bind, struct error *err)
{
    if (bind->subpath)
        return open_part(bind, err);
    int fd = (int)syscall(SYS_open_tree, AT_FDCWD, bind->path,
                          OPEN_TREE_CLONE | O_CLOEXEC | AT_RECURSIVE);
    return fd < 0 ? error_errno(err, errno, "take the mounts at %s", bind->path) : fd;
}

static int open_binds(const struct monitor_options *options, int *fds, struct error *err)
{
    for (unsigned i = 0; i < options->binds_count; i++) {
        fds[i] = open_bind(&options->binds[i], err);
        if (fds[i] < 0)
            return fds[i];
    }
    return 0;
}

static char *bind_path(const struct monitor_options *options, unsigned number)
{
    return xasprintf("%s/bind.%u", options->bundle, number);
}

static int place_bind(const struct monitor_options *options, unsigned number, int fd,
                      struct error *err)
{
    _cleanup_free_ char *path = bind_path(options, number);
    struct stat status;
    int r = fstat(fd, &status) < 0 ? -errno : 0;

    if (r == 0 && S_ISDIR(status.st_mode))
        r = mkdir(path, 0700) < 0 ? -errno : 0;
    else if (r == 0)
        r = mknod(path, S_IFREG | 0600, 0) < 0 ? -errno : 0;
    if (r == 0 && syscall(SYS_move_mount, fd, "", AT_FDCWD, path, MOVE_MOUNT_F_EMPTY_PATH) < 0)
        r = -errno;
    if (r == 0 && options->binds[number].subpath)
        r = mount(NULL, path, NULL, MS_REC | MS_SLAVE, NULL) < 0 ? -errno : 0;
    return r < 0 ? error_errno(err, -r, "mount %s on %s", options->binds[number].path, path) : 0;
}

static int place_binds(const struct monitor_options *options, const int *fds, struct error *err)
{
    int r = 0;

    for (unsigned i = 0; r == 0 && i < options->binds_count; i++)
        r = place_bind(options, i, fds[i], err);
    return r;
}

/* Private first: else what lies below them would be unmounted on the machine as well. */
static void release_binds(const struct monitor_options *options)
{
    for (unsigned i = 0; i < options->binds_count; i++) {
        _cleanup_free_ char *path = bind_path(options, i);
        if (mount(NULL, path, NULL, MS_REC | MS_PRIVATE, NULL) == 0)
            umount2(path, MNT_DETACH | UMOUNT_NOFOLLOW);
    }
}

static int set_apart(struct error *err)
{
    if (unshare(CLONE_NEWNS) < 0)
        return error_errno(err, errno, "make a mount namespace");
    if (mount(NULL, "/", NULL, MS_REC | MS_SLAVE, NULL) < 0)
        return error_errno(err, errno, "make the mounts receive only");
    return 0;
}

int isolate_mounts(const struct monitor_options *options, struct error *err)
{
    int binds[MONITOR_BINDS_MAX];

    memset(binds, -1, sizeof(binds));
    int r = open_binds(options, binds, err);
    if (r == 0)
        r = set_apart(err);
    if (r == 0)
        r = place_binds(options, binds, err);
    for (unsigned i = 0; i < options->binds_count; i++)
        close_fd(binds[i]);
    if (r == 0 && options->rootfs_fd >= 0)
        r = place_rootfs(options, err);
    if (r == 0 && options->netns_fd >= 0)
        r = joined_bind(options, options->netns_fd, "netns", err);
    if (r == 0 && options->userns_fd >= 0)
        r = joined_bind(options, options->userns_fd, "userns", err);
    /* The mounts hold them now: nothing else of ours may keep them alive. */
    close_fd(options->rootfs_fd);
    close_fd(options->netns_fd);
    close_fd(options->userns_fd);
    return r;
}

void isolate_release_mounts(const struct monitor_options *options)
{
    _cleanup_free_ char *rootfs = xasprintf("%s/rootfs", options->bundle);

    joined_release(options);
    release_binds(options);
    umount2(rootfs, MNT_DETACH | UMOUNT_NOFOLLOW);
}
