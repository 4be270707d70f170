/*
 * Containers whose writable layer is limited: upper and work folder are in an ext4 of that size, in
 * a sparse file, on a loop device.
 *
 *     ROOT/containers/ID/disk.new   a file of the size, until the first mount makes an ext4 of it
 *     ROOT/containers/ID/disk       the file system
 *     ROOT/containers/ID/limited/   where it is mounted for commits, and while an overlay is made
 *
 * The overlay keeps the file system in use, so that it need not stay in anybody's mount table. A
 * loop device lets go of its file by itself with its last user (LO_FLAGS_AUTOCLEAR). Two loop
 * devices for one file would be two caches of it: the one that is there is found by the file's
 * inode.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/loop.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#include <base/alloc.h>
#include <base/file.h>
#include <base/process.h>
#include <base/text.h>

#include "internal.h"

enum { LOOP_TRIES = 100 }; /* another program may take the free device first */

static char *path_of(const struct store *store, const char *container, const char *name)
{
    return xasprintf("%s/containers/%s/%s", store->root, container, name);
}

static bool has(const struct store *store, const char *container, const char *name)
{
    _cleanup_free_ char *path = xasprintf("%s/%s", container, name);

    return faccessat(store->containers_fd, path, F_OK, AT_SYMLINK_NOFOLLOW) == 0;
}

bool disk_is_limited(const struct store *store, const char *container)
{
    return has(store, container, "disk") || has(store, container, "disk.new");
}

int disk_limit(struct store *store, const char *container, uint64_t bytes, struct error *err)
{
    _cleanup_free_ char *path = path_of(store, container, "disk.new");
    _cleanup_close_ int fd = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);

    if (fd < 0 || ftruncate(fd, (off_t)bytes) < 0)
        return error_errno(err, errno, "create %s", path);
    return 0;
}

/* --- making the file system ------------------------------------------------------------------- */

static int run_mkfs(const char *path, struct error *err)
{
    /* Nothing is kept for root, and what is zero already is not written. */
    char *const argv[] = {"mkfs.ext4",
                          "-q",
                          "-F",
                          "-m",
                          "0",
                          "-E",
                          "nodiscard,lazy_itable_init=1,lazy_journal_init=1",
                          (char *)path,
                          NULL};
    char *const environment[] = {"PATH=/usr/sbin:/sbin:/usr/bin:/bin", NULL};
    const int fds[] = {-1, -1, -1};
    const struct process_spec spec = {
        .path = "mkfs.ext4",
        .argv = argv,
        .environment = environment,
        .fds = fds,
        .fds_count = 3,
        .directory = "/",
    };
    struct process process;
    int status;

    int r = process_spawn(&spec, &process, err);
    if (r < 0) {
        error_context(err, "make a file system of a limited size");
        return error_hint(err, "mkfs.ext4 is in the package e2fsprogs"), r;
    }
    r = process_wait(&process, &status, err);
    if (r == 0 && process_exit_code(status) != 0)
        r = error_set(err, -ENOSPC, "mkfs.ext4 cannot make a file system of %s", path);
    return r;
}

static int format(struct store *store, const char *container, struct error *err)
{
    _cleanup_free_ char *fresh = path_of(store, container, "disk.new");
    _cleanup_free_ char *path = path_of(store, container, "disk");
    int r = run_mkfs(fresh, err);

    if (r == 0 && rename(fresh, path) < 0)
        r = error_errno(err, errno, "rename %s", fresh);
    return r;
}

/* --- loop devices ----------------------------------------------------------------------------- */

static bool holds(int loop_fd, const struct stat *file)
{
    struct loop_info64 info;

    return ioctl(loop_fd, LOOP_GET_STATUS64, &info) == 0 && info.lo_device == file->st_dev &&
           info.lo_inode == file->st_ino;
}

/* The device that has the file already; negative: none. */
static int find_loop(const struct stat *file, char *ret_path, size_t size)
{
    _cleanup_closedir_ DIR *dir = opendir("/sys/block");
    struct dirent *entry;

    while (dir && (entry = readdir(dir))) {
        if (!text_starts_with(entry->d_name, "loop"))
            continue;
        snprintf(ret_path, size, "/sys/block/%.32s/loop", entry->d_name);
        if (access(ret_path, F_OK) < 0)
            continue;
        snprintf(ret_path, size, "/dev/%.32s", entry->d_name);
        _cleanup_close_ int fd = open(ret_path, O_RDWR | O_CLOEXEC);
        if (fd >= 0 && holds(fd, file))
            return steal_fd(&fd);
    }
    return -ENOENT;
}

/* 1: somebody else was first. */
static int try_loop(int control_fd, int file_fd, char *ret_path, size_t size, int *ret_fd,
                    struct error *err)
{
    struct loop_config config = {
        .fd = (__u32)file_fd,
        .info = {.lo_flags = LO_FLAGS_AUTOCLEAR},
    };
    int number = ioctl(control_fd, LOOP_CTL_GET_FREE);

    if (number < 0)
        return error_errno(err, errno, "find a free loop device");
    snprintf(ret_path, size, "/dev/loop%d", number);
    _cleanup_close_ int fd = open(ret_path, O_RDWR | O_CLOEXEC);
    if (fd < 0)
        return error_errno(err, errno, "open %s", ret_path);
    if (ioctl(fd, LOOP_CONFIGURE, &config) < 0)
        return errno == EBUSY ? 1 : error_errno(err, errno, "set %s up", ret_path);
    *ret_fd = steal_fd(&fd);
    return 0;
}

static int make_loop(int file_fd, char *ret_path, size_t size, int *ret_fd, struct error *err)
{
    _cleanup_close_ int control_fd = open("/dev/loop-control", O_RDWR | O_CLOEXEC);
    int r = 1;

    if (control_fd < 0) {
        error_errno(err, errno, "open /dev/loop-control");
        return error_hint(err, "a limit of a container's disk needs loop devices (modprobe loop)");
    }
    for (int i = 0; r == 1 && i < LOOP_TRIES; i++)
        r = try_loop(control_fd, file_fd, ret_path, size, ret_fd, err);
    return r == 1 ? error_set(err, -EBUSY, "all loop devices are taken") : r;
}

/* --- mounting --------------------------------------------------------------------------------- */

static int mount_ext4(const char *device, const char *target, struct error *err)
{
    /* Blocks of deleted files go back to the file system below. */
    if (mount(device, target, "ext4", MS_NODEV | MS_NOATIME, "discard") < 0)
        return error_errno(err, errno, "mount %s on %s", device, target);
    return 0;
}

static bool is_mount_point(const char *path)
{
    struct statx status;

    return statx(AT_FDCWD, path, AT_SYMLINK_NOFOLLOW, 0, &status) == 0 &&
           status.stx_attributes & STATX_ATTR_MOUNT_ROOT;
}

/* Its first mount: the folders that other snapshots have beside it (snapshot.c). */
static int make_inner_folders(struct store *store, const char *container, struct error *err)
{
    _cleanup_free_ char *outer = path_of(store, container, "upper");
    _cleanup_free_ char *upper = path_of(store, container, "limited/upper");
    _cleanup_free_ char *work = path_of(store, container, "limited/work");
    struct stat status;

    if (access(work, F_OK) == 0)
        return 0;
    if (stat(outer, &status) < 0 || (mkdir(upper, 0700) < 0 && errno != EEXIST) ||
        chown(upper, status.st_uid, status.st_gid) < 0 ||
        chmod(upper, status.st_mode & 07777) < 0 || mkdir(work, 0700) < 0)
        return error_errno(err, errno, "make folders in %s", upper);
    return 0;
}

static int mount_locked(struct store *store, const char *container, int file_fd, const char *target,
                        struct error *err)
{
    _cleanup_close_ int loop_fd = -1;
    struct stat file;
    char device[64];
    int r = 0;

    if (fstat(file_fd, &file) < 0)
        return error_errno(err, errno, "look at the disk of container %.12s", container);
    loop_fd = find_loop(&file, device, sizeof(device));
    if (loop_fd < 0)
        r = make_loop(file_fd, device, sizeof(device), &loop_fd, err);
    if (r == 0)
        r = mount_ext4(device, target, err);
    return r == 0 ? make_inner_folders(store, container, err) : r;
}

int disk_mount(struct store *store, const char *container, struct error *err)
{
    _cleanup_free_ char *path = path_of(store, container, "disk");
    _cleanup_free_ char *target = path_of(store, container, "limited");

    if (is_mount_point(target))
        return 0;
    if (!has(store, container, "disk")) {
        int r = format(store, container, err);
        if (r < 0)
            return r;
    }
    if (mkdir(target, 0700) < 0 && errno != EEXIST)
        return error_errno(err, errno, "create %s", target);
    _cleanup_close_ int file_fd = open(path, O_RDWR | O_NOFOLLOW | O_CLOEXEC);
    if (file_fd < 0)
        return error_errno(err, errno, "open %s", path);
    return mount_locked(store, container, file_fd, target, err);
}

void disk_unmount(struct store *store, const char *container)
{
    _cleanup_free_ char *target = path_of(store, container, "limited");

    while (is_mount_point(target) && umount2(target, MNT_DETACH) == 0)
        ;
}

void disk_unmount_all(struct store *store)
{
    _cleanup_strv_ char **names = NULL;
    int fd =
        store->containers_fd < 0 ? -1 : openat(store->containers_fd, ".", O_RDONLY | O_DIRECTORY);
    _cleanup_closedir_ DIR *dir = fd < 0 ? NULL : fdopendir(fd);
    struct dirent *entry;

    while (dir && (entry = readdir(dir))) {
        if (entry->d_name[0] != '.')
            strv_append(&names, entry->d_name);
    }
    for (size_t i = 0; names && names[i]; i++)
        disk_unmount(store, names[i]);
}
