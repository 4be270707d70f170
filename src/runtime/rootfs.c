#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#include <base/alloc.h>
#include <base/file.h>
#include <base/text.h>

#include "kernel.h"
#include "mount_options.h"
#include "rootfs.h"
#include "rootfs_change.h"

/* 0: not configured. */
static int parse_propagation(const struct container *container, unsigned long *ret,
                             struct error *err)
{
    const struct oci_linux *config = container->config->linux;
    const char *word = config ? config->rootfs_propagation : NULL;
    char *words[] = {(char *)(uintptr_t)word, NULL};
    struct mount_options options;

    *ret = 0;
    if (text_empty(word))
        return 0;
    int r = mount_options_parse(words, &options, err);
    if (r < 0)
        return r;
    *ret = options.propagation_count ? options.propagation[0] : 0;
    mount_options_finish(&options);
    return *ret ? 0
                : error_set(err, -EINVAL,
                            "linux.rootfsPropagation: rootfsPropagation=%s is not "
                            "supported",
                            word);
}

int rootfs_check_propagation(const struct container *container, struct error *err)
{
    unsigned long wanted;
    int r = parse_propagation(container, &wanted, err);

    if (r == 0 && container->no_pivot && (wanted & MS_PRIVATE))
        r = error_set(err, -EINVAL,
                      "linux.rootfsPropagation: rootfsPropagation of [r]private is not safe "
                      "without pivot_root");
    return r;
}

/* Our copy of the host's mounts: by default changes on the host still reach binds that ask for it
 * (slave), ours never reach the host. The mount that the root is put on must not be shared
 * (pivot_root(2)). */
static int isolate_mounts(struct container *container, struct error *err)
{
    unsigned long wanted;
    int r = parse_propagation(container, &wanted, err);

    if (r < 0)
        return r;
    wanted &= ~(unsigned long)MS_REC;
    if (!wanted)
        wanted = MS_SLAVE;
    if (wanted == MS_UNBINDABLE) /* the root could not be bound any more */
        wanted = MS_PRIVATE;
    r = kernel_mount(NULL, "/", NULL, wanted | MS_REC, NULL);
    if (r == 0 && wanted == MS_SHARED)
        r = kernel_mount(NULL, "/", NULL, MS_PRIVATE, NULL);
    return r < 0 ? error_errno(err, -r, "set the propagation of /") : 0;
}

static int open_root_tree(struct container *container, struct error *err)
{
    if (container->root_tree_fd < 0)
        container->root_tree_fd =
            kernel_open_tree(AT_FDCWD, container->rootfs, OPEN_TREE_CLONE | AT_RECURSIVE);
    return container->root_tree_fd < 0
               ? error_errno(err, -container->root_tree_fd, "root.path: open %s", container->rootfs)
               : 0;
}

/* Hooks that enter the mount namespace know the container's root by the host's path: then it is
 * where runc puts it, unless that is below a shared mount (pivot_root(2)). */
static bool hooks_look_for_root(const struct container *container)
{
    const struct oci_hooks *hooks = container->config->hooks;
    const char *propagation = container->config->linux->rootfs_propagation;

    return hooks &&
           (hooks->prestart_count || hooks->create_runtime_count ||
            hooks->create_container_count) &&
           !(propagation && strstr(propagation, "shared"));
}

/* On top of "/": lookups from our root do not see it there, pivot_root does, and no path has to be
 * walked with the rights of the container's user namespace. A namespace that others live in keeps
 * its root. */
static int open_place(struct container *container, struct error *err)
{
    bool shared = !(container->namespaces.create & CLONE_NEWNS);
    int fd = -1;

    if (shared || hooks_look_for_root(container))
        fd = open(container->rootfs, O_PATH | O_DIRECTORY | O_CLOEXEC);
    container->root_in_place = fd >= 0;
    if (fd < 0 && !shared)
        fd = open("/", O_PATH | O_DIRECTORY | O_CLOEXEC);
    return fd < 0 ? error_errno(err, errno, "root.path: open %s", container->rootfs) : fd;
}

int rootfs_note_shared(struct container *container, struct error *err)
{
    if (container_own_namespaces(container) & CLONE_NEWNS)
        return 0;
    int r = open_root_tree(container, err);
    if (r < 0)
        return r;
    r = kernel_unique_mount_id(container->root_tree_fd, &container->shared_root);
    return r < 0 ? error_errno(err, -r, "root.path: the number of its mount") : 0;
}

void rootfs_detach_shared(const char *rootfs, uint64_t mount)
{
    _cleanup_close_ int fd = -1;
    uint64_t found;
    char path[32];

    if (!mount)
        return;
    fd = open(rootfs, O_PATH | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0 || kernel_unique_mount_id(fd, &found) < 0 || found != mount)
        return;
    snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
    kernel_umount(path, MNT_DETACH);
}

/* The copy of the root must not be the peer of the host's: what is mounted on it would be there,
 * too, and stay. With rootfsPropagation "shared" it shares with copies that are made in the
 * container, and only what the host has mounted below it shares with the host. */
static int isolate_root(struct container *container, struct error *err)
{
    bool own = container->namespaces.create & CLONE_NEWNS;
    struct mount_attr private = {.propagation = MS_PRIVATE};
    unsigned long wanted;
    int r = parse_propagation(container, &wanted, err);

    if (r < 0 || (own && !(wanted & MS_SHARED)))
        return r;
    r = kernel_mount_setattr(container->root_tree_fd, own ? 0 : AT_RECURSIVE, &private);
    return r < 0 ? error_errno(err, -r, "root.path: make the mounts private") : 0;
}

int rootfs_attach(struct container *container, struct error *err)
{
    bool own = container->namespaces.create & CLONE_NEWNS;
    int r = own ? isolate_mounts(container, err) : 0;

    if (r == 0)
        r = open_root_tree(container, err);
    if (r == 0)
        r = isolate_root(container, err);
    if (r < 0)
        return r;
    _cleanup_close_ int place_fd = open_place(container, err);
    if (place_fd < 0)
        return place_fd;
    r = kernel_move_mount(container->root_tree_fd, place_fd);
    if (r < 0)
        return error_errno(err, -r, "attach the root %s", container->rootfs);
    container->root_fd = steal_fd(&container->root_tree_fd);
    return 0;
}

int rootfs_working_directory(struct container *container, struct error *err)
{
    const char *cwd = container->config->process->cwd;
    int fd = file_mkdir_in_root(container->root_fd, cwd, 0755, NULL);

    /* A read-only image: chdir will say what is wrong, as it does for a file. */
    if (fd == -EROFS || fd == -ENOTDIR || fd == -EACCES)
        return 0;
    if (fd < 0)
        return error_errno(err, -fd, "process.cwd: create %s", cwd);
    close(fd);
    return 0;
}

static int make_root_readonly(struct container *container, struct error *err)
{
    struct mount_attr attr = {.attr_set = MOUNT_ATTR_RDONLY};
    int r = kernel_mount_setattr(container->root_fd, 0, &attr);

    return r < 0 ? error_errno(err, -r, "root.readonly") : 0;
}

static int apply_root_propagation(struct container *container, struct error *err)
{
    unsigned long wanted;
    int r = parse_propagation(container, &wanted, err);

    if (r < 0 || !wanted)
        return r;
    struct mount_attr attr = {.propagation = wanted & ~(unsigned long)MS_REC};
    r = kernel_mount_setattr(container->root_fd, wanted & MS_REC ? AT_RECURSIVE : 0, &attr);
    return r < 0 ? error_errno(err, -r, "linux.rootfsPropagation") : 0;
}

int rootfs_enter(struct container *container, struct error *err)
{
    int r = container->config->root->readonly ? make_root_readonly(container, err) : 0;

    if (r < 0)
        return r;
    if (!(container->namespaces.create & CLONE_NEWNS))
        r = rootfs_chroot(container, err);
    else if (container->no_pivot)
        r = rootfs_chroot_hardened(container, err);
    else
        r = rootfs_pivot(container, err);
    return r < 0 ? r : apply_root_propagation(container, err);
}
