#include "tree.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <sched.h>
#include <signal.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <base/alloc.h>
#include <base/file.h>
#include <base/text.h>
#include <image/descriptors.h>

enum { STACKED_MAX = 16 /* mounts over each other that are taken off a place */ };

/* The mounts of the container's process, seen from its mount namespace's root: where the process
 * itself has chosen to have its root does not matter. */
static int take_process_root(struct tree_mounts *mounts, struct error *err)
{
    unsigned flags = OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC;
    _cleanup_close_ int home = open("/proc/self/ns/mnt", O_RDONLY | O_CLOEXEC);

    if (home < 0)
        return error_errno(err, errno, "jail: open the own mount namespace");
    if (setns(IMAGE_FD_TREE, CLONE_NEWNS) < 0)
        return errno == ESRCH ? error_set(err, -ESRCH, "the container has ended")
                              : error_errno(err, errno, "jail: join the container's mounts");
    mounts->root_fd = open_tree(AT_FDCWD, "/", flags | (mounts->tree->alone ? 0U : AT_RECURSIVE));
    int code = errno;
    if (setns(home, CLONE_NEWNS) < 0)
        return error_errno(err, errno, "jail: leave the container's mounts");
    return mounts->root_fd < 0 ? error_errno(err, code, "jail: copy the container's mounts") : 0;
}

/* A volume's content decides what is there: the path is resolved inside it. */
static int take_part(const struct image_worker_tree_mount *mount, int *ret_fd, struct error *err)
{
    unsigned flags = OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | AT_RECURSIVE | AT_EMPTY_PATH;
    _cleanup_close_ int source = open(mount->source, O_PATH | O_DIRECTORY | O_CLOEXEC);

    if (source < 0)
        return error_errno(err, errno, "open %s", mount->source);
    _cleanup_close_ int part = file_open_in_root(source, mount->subpath, O_PATH, 0);
    if (part < 0)
        return error_set(err, -EINVAL, "open subpath %s of the volume at %s: %s", mount->subpath,
                         mount->source, strerror(-part));
    *ret_fd = open_tree(part, "", flags);
    return *ret_fd < 0 ? error_errno(err, errno, "jail: %s", mount->source) : 0;
}

static int take_source(const struct image_worker_tree_mount *mount, int *ret_fd, struct error *err)
{
    if (mount->subpath)
        return take_part(mount, ret_fd, err);
    *ret_fd =
        open_tree(AT_FDCWD, mount->source, OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | AT_RECURSIVE);
    if (*ret_fd < 0 && errno != ENOENT)
        return error_errno(err, errno, "jail: %s", mount->source);
    return 0;
}

/* No mount of the tree can start a program, open a device or tell the machine of a mount. */
static int restrict_mounts(int fd, struct error *err)
{
    struct mount_attr attributes = {
        .attr_set = MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV | MOUNT_ATTR_NOEXEC,
        .propagation = MS_PRIVATE,
    };

    if (mount_setattr(fd, "", AT_EMPTY_PATH | AT_RECURSIVE, &attributes, sizeof(attributes)) < 0)
        return error_errno(err, errno, "jail: restrict the container's mounts");
    return 0;
}

static int map_owners(const struct image_worker_tree_mount *mount, int fd, struct error *err)
{
    struct mount_attr attributes = {.attr_set = MOUNT_ATTR_IDMAP, .userns_fd = IMAGE_FD_USERS};

    if (mount_setattr(fd, "", AT_EMPTY_PATH, &attributes, sizeof(attributes)) < 0)
        return error_errno(err, errno, "jail: map the owners of %s", mount->target);
    return 0;
}

int tree_take(struct tree_mounts *mounts, struct error *err)
{
    const struct image_worker_tree *tree = mounts->tree;
    int r = 0;

    mounts->root_fd = -1;
    mounts->mount_fds = xnew_array(int, tree->mounts_count + 1);
    if (text_equal(tree->kind, "process"))
        r = take_process_root(mounts, err);
    else if ((mounts->root_fd = fcntl(IMAGE_FD_TREE, F_DUPFD_CLOEXEC, IMAGE_FD_COUNT)) < 0)
        r = error_errno(err, errno, "jail: the container's root");
    if (r == 0)
        r = restrict_mounts(mounts->root_fd, err);
    for (size_t i = 0; r == 0 && i < tree->mounts_count; i++) {
        r = take_source(tree->mounts[i], &mounts->mount_fds[i], err);
        if (r == 0 && mounts->mount_fds[i] >= 0)
            r = restrict_mounts(mounts->mount_fds[i], err);
        if (r == 0 && mounts->mount_fds[i] >= 0 && tree->users && tree->mounts[i]->id_map)
            r = map_owners(tree->mounts[i], mounts->mount_fds[i], err);
    }
    return r;
}

/* --- in the new mount namespace --------------------------------------------------------------- */

static int set_read_only(int fd, const char *what, struct error *err)
{
    struct mount_attr attributes = {.attr_set = MOUNT_ATTR_RDONLY};

    if (mount_setattr(fd, "", AT_EMPTY_PATH | AT_RECURSIVE, &attributes, sizeof(attributes)) < 0)
        return error_errno(err, errno, "jail: make %s read-only", what);
    return 0;
}

int tree_enter_users(struct error *err)
{
    if (setns(IMAGE_FD_USERS, CLONE_NEWUSER) < 0)
        return error_errno(err, errno, "jail: join the container's users");
    if (setgroups(0, NULL) < 0 || setresgid(0, 0, 0) < 0 || setresuid(0, 0, 0) < 0)
        return error_errno(err, errno, "jail: become the container's root");
    /* Another user has lost it (prctl(2)). */
    if (prctl(PR_SET_PDEATHSIG, SIGKILL) < 0)
        return error_errno(err, errno, "jail: set the parent-death signal");
    return 0;
}

static int make_place(int root_fd, int source_fd, const char *target)
{
    struct stat status;

    if (fstat(source_fd, &status) < 0)
        return -errno;
    int fd = S_ISDIR(status.st_mode) ? file_mkdir_in_root(root_fd, target, 0755, NULL)
                                     : file_create_in_root(root_fd, target, 0755, 0644, NULL);
    close_fd(fd);
    return fd < 0 ? fd : 0;
}

/* By a child that is the container's root: the machine's is none of the IDs that the tree knows,
 * and may make places in folders of the machine. */
static int make_place_by_users(int root_fd, int source_fd, const char *target)
{
    pid_t child = fork();
    int status;

    if (child == 0) {
        int r = tree_enter_users(NULL);
        _exit(-(r < 0 ? r : make_place(root_fd, source_fd, target)));
    }
    if (child < 0)
        return -errno;
    while (waitpid(child, &status, 0) < 0)
        if (errno != EINTR)
            return -errno;
    return WIFEXITED(status) ? -WEXITSTATUS(status) : -EIO;
}

/* What the runtime would do when the container was started: the place is made where it is missing.
 */
static int open_target(int root_fd, int source_fd, const char *target, bool users,
                       struct error *err)
{
    int fd = file_open_in_root(root_fd, target, O_PATH, 0);

    if (fd == -ENOENT) {
        fd = users ? make_place_by_users(root_fd, source_fd, target)
                   : make_place(root_fd, source_fd, target);
        if (fd == 0)
            fd = file_open_in_root(root_fd, target, O_PATH, 0);
    }
    return fd < 0 ? error_errno(err, -fd, "create %s", target) : fd;
}

static int attach_mount(int root_fd, const struct image_worker_tree_mount *mount, int fd,
                        bool users, struct error *err)
{
    _cleanup_close_ int target = open_target(root_fd, fd, mount->target, users, err);

    if (target < 0)
        return target;
    if (mount->read_only && set_read_only(fd, mount->target, err) < 0)
        return err->code;
    if (move_mount(fd, "", target, "", MOVE_MOUNT_F_EMPTY_PATH | MOVE_MOUNT_T_EMPTY_PATH) < 0)
        return error_errno(err, errno, "jail: attach %s", mount->target);
    return 0;
}

/* The root itself may be read-only to the container, but not what is mounted in it. */
static int attach_mounts(const struct tree_mounts *mounts, int root_fd, struct error *err)
{
    const struct image_worker_tree *tree = mounts->tree;
    struct mount_attr attributes = {.attr_set = MOUNT_ATTR_RDONLY};
    int r = 0;

    for (size_t i = 0; r == 0 && i < tree->mounts_count; i++) {
        if (mounts->mount_fds[i] >= 0)
            r = attach_mount(root_fd, tree->mounts[i], mounts->mount_fds[i], tree->users, err);
        close_fd(mounts->mount_fds[i]);
    }
    if (r == 0 && tree->read_only &&
        mount_setattr(root_fd, "", AT_EMPTY_PATH, &attributes, sizeof(attributes)) < 0)
        r = error_errno(err, errno, "jail: make the root read-only");
    return r;
}

/* Files of the kernel are no files to copy, and writing to some changes the machine. */
static void detach_kernel_files(void)
{
    static const char *const places[] = {"root/proc", "root/sys", "root/dev"};

    for (size_t i = 0; i < ARRAY_SIZE(places); i++)
        for (int n = 0; n < STACKED_MAX; n++)
            if (umount2(places[i], MNT_DETACH | UMOUNT_NOFOLLOW) < 0)
                break;
}

static int attach_root(const struct tree_mounts *mounts, struct error *err)
{
    if (mkdir("root", 0700) < 0 ||
        move_mount(mounts->root_fd, "", AT_FDCWD, "root", MOVE_MOUNT_F_EMPTY_PATH) < 0)
        return error_errno(err, errno, "jail: attach the container's root");
    detach_kernel_files();
    _cleanup_close_ int root_fd = open("root", O_PATH | O_DIRECTORY | O_CLOEXEC);
    if (root_fd < 0)
        return error_errno(err, errno, "jail: open the container's root");
    int r = attach_mounts(mounts, root_fd, err);
    return r == 0 && !mounts->writable ? set_read_only(root_fd, "the tree", err) : r;
}

int tree_enter(struct tree_mounts *mounts, struct error *err)
{
    if (mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0)
        return error_errno(err, errno, "jail: make mounts private");
    if (mount("cloche-image", "/tmp", "tmpfs", MS_NOSUID | MS_NODEV | MS_NOEXEC,
              "size=64k,mode=700") < 0 ||
        chdir("/tmp") < 0)
        return error_errno(err, errno, "jail: make a root");
    int r = attach_root(mounts, err);
    if (r < 0)
        return r;
    /* "." twice stacks the old root over the new one, where it is taken off (pivot_root(2)). */
    if (chdir("root") < 0 || syscall(SYS_pivot_root, ".", ".") < 0 ||
        umount2(".", MNT_DETACH) < 0 || chdir("/") < 0)
        return error_errno(err, errno, "jail: change the root");
    close_fd(steal_fd(&mounts->root_fd));
    _cleanup_close_ int root_fd = open("/", O_PATH | O_DIRECTORY | O_CLOEXEC);
    if (root_fd < 0 || dup3(root_fd, IMAGE_FD_TREE, O_CLOEXEC) < 0)
        return error_errno(err, errno, "jail: open the root");
    return 0;
}
