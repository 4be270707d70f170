/*
 * Detached overlay mounts, in overlayfs' userxattr format.
 *
 * Kernels from 6.7 take the layers one by one ("lowerdir+") by the mount API. Older ones only know
 * one text of at most a page: there a thread with a mount namespace of its own mounts it with short
 * relative paths, and clones the mount off before the namespace dies with the thread.
 *
 * Mapped layers take that way on every kernel: before 6.15 overlayfs refuses layers that are not
 * attached in the mounter's namespace. The thread clones the store's folder as one mapped mount,
 * attaches it over staging/, and names all layers by paths in there.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <base/alloc.h>
#include <base/file.h>
#include <base/buffer.h>
#include <base/text.h>

#include "internal.h"

/* fsconfig() copies at most 255 bytes of a text value. */
enum { FSCONFIG_TEXT_MAX = 255 };

struct overlay {
    struct store *store;
    char *const *layers; /* highest first */
    const char *container;
    bool passing;
    const struct store_users *users; /* NULL: as on disk */
};

/* Everything that distributions change by module parameters is set: the layers must read the same
 * on every kernel. userxattr excludes following redirects, which "off" may still mean. */
static const char *const options[][2] = {
    {"redirect_dir", "nofollow"},
    {"metacopy", "off"},
    {"index", "off"},
};

/* The path as people would see it in mountinfo; where it is too long, the same folder by its
 * descriptor. */
static char *folder_path(const struct store *store, int parent_fd, const char *parent,
                         const char *name)
{
    char *path = xasprintf("%s/%s/%s", store->root, parent, name);

    if (strlen(path) > FSCONFIG_TEXT_MAX) {
        free(path);
        path = xasprintf("/proc/self/fd/%d/%s", parent_fd, name);
    }
    return path;
}

static int set_text(int fs_fd, const char *key, const char *value)
{
    return fsconfig(fs_fd, FSCONFIG_SET_STRING, key, value, 0) < 0 ? -errno : 0;
}

static int set_layers(int fs_fd, const struct overlay *overlay)
{
    for (size_t i = 0; overlay->layers[i]; i++) {
        _cleanup_free_ char *path =
            folder_path(overlay->store, overlay->store->layers_fd, "layers", overlay->layers[i]);
        int r = set_text(fs_fd, "lowerdir+", path);
        if (r < 0)
            return r;
    }
    return 0;
}

static int set_upper(int fs_fd, const struct overlay *overlay)
{
    const struct store *store = overlay->store;
    _cleanup_free_ char *upper_name = xasprintf("%s/upper", overlay->container);
    _cleanup_free_ char *work_name = xasprintf("%s/work", overlay->container);
    _cleanup_free_ char *upper = folder_path(store, store->containers_fd, "containers", upper_name);
    _cleanup_free_ char *work = folder_path(store, store->containers_fd, "containers", work_name);
    int r = set_text(fs_fd, "upperdir", upper);

    return r < 0 ? r : set_text(fs_fd, "workdir", work);
}

/* What the kernel wrote into the context about the last failure ("e overlay: ..."), or "". */
static void read_kernel_log(int fs_fd, char *ret, size_t size)
{
    ssize_t n = read(fs_fd, ret, size - 1);

    ret[n > 0 ? n : 0] = '\0';
    ret[strcspn(ret, "\n")] = '\0';
}

/* By asking for a layer that cannot be: 6.7 looks for it at once. Before 6.5 overlayfs left its
 * options to the end, whatever they were (fs/fs_context.c, legacy_parse_param); between the two the
 * name is unknown. */
static bool knows_single_layers(void)
{
    static atomic_int known; /* 0: not asked yet */
    int answer = atomic_load(&known);

    if (answer == 0) {
        _cleanup_close_ int fs_fd = fsopen("overlay", FSOPEN_CLOEXEC);
        if (fs_fd < 0)
            return true; /* the mount itself will say why */
        int r = set_text(fs_fd, "lowerdir+", "/proc/self/fd/none");
        answer = r == 0 || r == -EINVAL ? -1 : 1;
        atomic_store(&known, answer);
    }
    return answer > 0;
}

static int mount_by_api(const struct overlay *overlay, int *ret_fd, struct error *err)
{
    _cleanup_close_ int fs_fd = fsopen("overlay", FSOPEN_CLOEXEC);
    char why[256];

    if (fs_fd < 0)
        return error_errno(err, errno, "mount overlay: fsopen");
    int r = set_layers(fs_fd, overlay);
    if (r < 0)
        return error_errno(err, -r, "mount overlay: set a lower layer");
    r = set_upper(fs_fd, overlay);
    for (size_t i = 0; r == 0 && i < ARRAY_SIZE(options); i++)
        r = set_text(fs_fd, options[i][0], options[i][1]);
    if (r == 0)
        r = set_text(fs_fd, "source", "overlay");
    if (r == 0 && fsconfig(fs_fd, FSCONFIG_SET_FLAG, "userxattr", NULL, 0) < 0)
        r = -errno;
    if (r == 0 && overlay->passing && fsconfig(fs_fd, FSCONFIG_SET_FLAG, "volatile", NULL, 0) < 0)
        r = -errno;
    if (r == 0 && fsconfig(fs_fd, FSCONFIG_CMD_CREATE, NULL, NULL, 0) < 0)
        r = -errno;
    if (r < 0) {
        read_kernel_log(fs_fd, why, sizeof(why));
        return error_errno(err, -r, "mount overlay of container %.12s%s%s", overlay->container,
                           why[0] ? ": " : "", why);
    }
    *ret_fd = fsmount(fs_fd, FSMOUNT_CLOEXEC, 0);
    return *ret_fd < 0 ? error_errno(err, errno, "mount overlay: fsmount") : 0;
}

struct legacy {
    const struct overlay *overlay;
    int fd; /* result: the mount or -errno */
    const char *step;
};

static char *legacy_options(const struct overlay *overlay)
{
    _cleanup_buffer_ struct buffer text = BUFFER_INIT;

    buffer_append_text(&text, overlay->passing ? "userxattr,volatile" : "userxattr");
    for (size_t i = 0; i < ARRAY_SIZE(options); i++)
        buffer_printf(&text, ",%s=%s", options[i][0], options[i][1]);
    buffer_append_text(&text, ",lowerdir=");
    for (size_t i = 0; overlay->layers[i]; i++)
        buffer_printf(&text, "%s%s", i ? ":" : "", overlay->layers[i]);
    buffer_printf(&text, ",upperdir=../containers/%s/upper,workdir=../containers/%s/work",
                  overlay->container, overlay->container);
    return buffer_steal(&text);
}

/* --- mapped layers, in the thread's namespace ------------------------------------------------- */

static int attach_mapped(const char *source, const char *target, int namespace_fd)
{
    struct mount_attr attributes = {.attr_set = MOUNT_ATTR_IDMAP,
                                    .userns_fd = (uint64_t)(unsigned)namespace_fd};
    _cleanup_close_ int fd = open_tree(AT_FDCWD, source, OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC);

    if (fd < 0 || mount_setattr(fd, "", AT_EMPTY_PATH, &attributes, sizeof(attributes)) < 0 ||
        move_mount(fd, "", AT_FDCWD, target, MOVE_MOUNT_F_EMPTY_PATH) < 0)
        return -errno;
    return 0;
}

/* The store is one file system; only a limited container's own folder is another one. */
static int attach_layers(const struct overlay *overlay)
{
    const struct store *store = overlay->store;
    int namespace_fd = overlay->users->namespace_fd;
    _cleanup_free_ char *staging = xasprintf("%s/staging", store->root);
    int r = attach_mapped(store->root, staging, namespace_fd);

    if (r < 0 || !strchr(overlay->container, '/'))
        return r;
    _cleanup_free_ char *own = xasprintf("%s/containers/%s", store->root, overlay->container);
    _cleanup_free_ char *seen = xasprintf("%s/containers/%s", staging, overlay->container);
    return attach_mapped(own, seen, namespace_fd);
}

/* overlayfs keeps the mounter's credentials and makes files in its work folder by them: their user
 * must be one that the mapped mount has (else EOVERFLOW). The thread's other user takes rights over
 * files from the effective set (capabilities(7)), which are taken back from the permitted one. */
static int become_root_of(const struct store_users *users)
{
    struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
    struct __user_cap_data_struct data[_LINUX_CAPABILITY_U32S_3];

    if (syscall(SYS_capget, &header, data) < 0)
        return -errno;
    syscall(SYS_setfsgid, users->root_gid);
    syscall(SYS_setfsuid, users->root_uid);
    return syscall(SYS_capset, &header, data) < 0 ? -errno : 0;
}

static int map_layers(const struct overlay *overlay, const char **ret_step)
{
    *ret_step = "map the layers' owners";
    int r = attach_layers(overlay);

    if (r < 0)
        return r;
    *ret_step = "take the container's root for the owner";
    return become_root_of(overlay->users);
}

static void *legacy_thread(void *data)
{
    struct legacy *legacy = data;
    const struct overlay *overlay = legacy->overlay;
    const struct store *store = overlay->store;
    _cleanup_free_ char *layers =
        xasprintf("%s/%slayers", store->root, overlay->users ? "staging/" : "");
    _cleanup_free_ char *text = legacy_options(overlay);
    int r = 0;

    legacy->step = "unshare";
    if (unshare(CLONE_NEWNS) < 0)
        goto fail;
    legacy->step = "make mounts private";
    if (mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0)
        goto fail;
    if (overlay->users && (r = map_layers(overlay, &legacy->step)) < 0) {
        errno = -r;
        goto fail;
    }
    legacy->step = "enter the layers' folder";
    if (chdir(layers) < 0)
        goto fail;
    legacy->step = "mount";
    if (mount("overlay", "../staging", "overlay", 0, text) < 0)
        goto fail;
    legacy->step = "open_tree";
    legacy->fd = open_tree(AT_FDCWD, "../staging", OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC);
    if (legacy->fd < 0)
        goto fail;
    return NULL;
fail:
    legacy->fd = -errno;
    return NULL;
}

static int explain(const struct legacy *legacy, struct error *err)
{
    const struct overlay *overlay = legacy->overlay;

    if (overlay->users && (legacy->fd == -EINVAL || legacy->fd == -EOPNOTSUPP)) {
        error_set(err, -EOPNOTSUPP,
                  "container %.12s cannot have a user namespace: %s: this kernel or the file "
                  "system of %s has no idmapped mounts for overlayfs",
                  overlay->container, legacy->step, overlay->store->root);
        return error_hint(err, "Linux 5.19 with ext4, xfs or btrfs has them; run it with "
                               "--userns=host otherwise"),
               -EOPNOTSUPP;
    }
    return error_errno(err, -legacy->fd, "mount overlay of container %.12s: %s", overlay->container,
                       legacy->step);
}

static int mount_by_thread(const struct overlay *overlay, int *ret_fd, struct error *err)
{
    struct legacy legacy = {.overlay = overlay, .fd = -EIO, .step = "start"};
    pthread_t thread;
    int r = pthread_create(&thread, NULL, legacy_thread, &legacy);

    if (r)
        return error_errno(err, r, "mount overlay: start a thread");
    pthread_join(thread, NULL);
    if (legacy.fd < 0)
        return explain(&legacy, err);
    *ret_fd = legacy.fd;
    return 0;
}

/* An earlier volatile mount left its mark, which forbids another one after a crash of the machine
 * (Documentation/filesystems/overlayfs, "Volatile mount"); what such a snapshot holds need not be
 * whole. */
static int forget_volatile(const struct overlay *overlay, struct error *err)
{
    _cleanup_free_ char *work = xasprintf("%s/work/work", overlay->container);

    return file_remove_tree_at(overlay->store->containers_fd, work, err);
}

int overlay_mount(struct store *store, char *const *layers, const char *container, bool passing,
                  const struct store_users *users, int *ret_fd, struct error *err)
{
    const struct overlay overlay = {store, layers, container, passing, users};
    int r = passing ? forget_volatile(&overlay, err) : 0;

    if (r < 0)
        return r;
    return knows_single_layers() && !users ? mount_by_api(&overlay, ret_fd, err)
                                           : mount_by_thread(&overlay, ret_fd, err);
}
