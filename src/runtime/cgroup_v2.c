/*
 * cgroup v2 through its file system (Documentation/admin-guide/cgroup-v2.rst of the kernel).
 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <unistd.h>

#include <base/alloc.h>
#include <base/file.h>
#include <base/text.h>

#include "cgroup.h"
#include "cgroup_resources.h"

enum {
    FREEZE_TRIES = 5000, /* a busy machine leaves a process waiting for a while */
    FREEZE_PAUSE_US = 1000,
    CONTROLLERS_MAX = 4096, /* bytes of cgroup.controllers and of the list of delegated files */
};

/* Hands all controllers of the parent down. Each by itself: one that cannot be (cpu with real-time
 * processes about, a parent that holds processes) must not keep the others back. A limit that then
 * has no file is reported where it is set. */
static int enable_controllers(int parent_fd, int fd _unused_, struct error *err _unused_)
{
    char available[CONTROLLERS_MAX], enabled[CONTROLLERS_MAX];
    _cleanup_strv_ char **names = NULL, **have = NULL;

    if (cgroup_read_line(parent_fd, "cgroup.controllers", available, sizeof(available)) < 0 ||
        cgroup_read_line(parent_fd, "cgroup.subtree_control", enabled, sizeof(enabled)) < 0 ||
        text_equal(available, enabled))
        return 0;
    names = strv_split(available, ' ');
    have = strv_split(enabled, ' ');
    _cleanup_close_ int control_fd =
        openat(parent_fd, "cgroup.subtree_control", O_WRONLY | O_CLOEXEC);
    for (size_t i = 0; control_fd >= 0 && names && names[i]; i++) {
        _cleanup_free_ char *word = xasprintf("+%s", names[i]);
        if (!strv_contains(have, names[i]))
            (void)!write(control_fd, word, strlen(word));
    }
    return 0;
}

/* From the root of the tree down to the one above the last of path. systemd hands down what a unit
 * needs, of those that it knows; it leaves the others as they are. */
static void enable_controllers_down_to(int root_fd, const char *path)
{
    _cleanup_strv_ char **names = strv_split(path, '/');
    _cleanup_close_ int fd = dup(root_fd);

    for (size_t i = 0; fd >= 0 && names && names[i]; i++) {
        enable_controllers(fd, -1, NULL);
        int below_fd = openat(fd, names[i], O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
        close_fd(fd);
        fd = below_fd;
    }
}

static int v2_create(struct cgroup *cgroup, struct error *err)
{
    return cgroup_make_directories(cgroup, &cgroup->hierarchies[0], enable_controllers, err);
}

static int give(int directory_fd, const char *name, uid_t uid, struct error *err)
{
    if (fchownat(directory_fd, name, uid, (gid_t)-1, AT_SYMLINK_NOFOLLOW | AT_EMPTY_PATH) < 0 &&
        errno != ENOENT)
        return error_errno(err, errno, "give the cgroup's %s to user %u",
                           name[0] ? name : "directory", uid);
    return 0;
}

/* The files that the kernel lists as safe to give away (cgroup-v2.rst, "Delegation"): limits are
 * not among them. */
static int v2_delegate(struct cgroup *cgroup, uid_t uid, struct error *err)
{
    int fd = cgroup->hierarchies[0].fd;
    _cleanup_free_ char *text = NULL;
    _cleanup_strv_ char **names = NULL;

    if (file_read_at(AT_FDCWD, "/sys/kernel/cgroup/delegate", CONTROLLERS_MAX, &text, NULL, NULL) ==
        0)
        names = strv_split(text, '\n');
    else
        names = strv_split("cgroup.procs cgroup.threads cgroup.subtree_control", ' ');
    int r = give(fd, "", uid, err);
    for (size_t i = 0; r == 0 && names && names[i]; i++) {
        if (names[i][0] && !strchr(names[i], '/'))
            r = give(fd, names[i], uid, err);
    }
    return r;
}

static int v2_adopt(struct cgroup *cgroup, pid_t pid _unused_, struct error *err)
{
    struct cgroup_hierarchy *hierarchy = &cgroup->hierarchies[0];

    enable_controllers_down_to(hierarchy->root_fd, cgroup->path);
    hierarchy->fd =
        openat(hierarchy->root_fd, cgroup->path, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
    return hierarchy->fd < 0 ? error_errno(err, errno, "open cgroup %s", cgroup->path) : 0;
}

static int v2_prepare_join(struct cgroup *cgroup, struct cgroup_join *ret, struct error *err)
{
    *ret = (struct cgroup_join){.clone_fd = cgroup->hierarchies[0].fd};
    ret->fds[0] = openat(cgroup->hierarchies[0].fd, "cgroup.procs", O_WRONLY | O_CLOEXEC);
    if (ret->fds[0] < 0)
        return error_errno(err, errno, "open cgroup.procs of cgroup %s", cgroup->path);
    ret->count = 1;
    return 0;
}

static bool frozen_now(int fd)
{
    _cleanup_free_ char *events = NULL;

    return file_read_at(fd, "cgroup.events", CGROUP_FILE_MAX, &events, NULL, NULL) == 0 &&
           strstr(events, "frozen 1");
}

static int v2_freeze(struct cgroup *cgroup, bool frozen, struct error *err)
{
    const struct cgroup_hierarchy *hierarchy = &cgroup->hierarchies[0];
    int r = cgroup_write(hierarchy, "cgroup.freeze", frozen ? "1" : "0", err);

    for (int i = 0; r == 0 && i < FREEZE_TRIES; i++) {
        if (frozen_now(hierarchy->fd) == frozen)
            return 0;
        usleep(FREEZE_PAUSE_US);
    }
    if (r < 0)
        return r;
    if (frozen)
        cgroup_write(hierarchy, "cgroup.freeze", "0", NULL);
    return error_set(err, -ETIMEDOUT, "cgroup %s does not %s", cgroup->path,
                     frozen ? "freeze" : "thaw");
}

static int v2_is_frozen(struct cgroup *cgroup)
{
    char value[8];
    int r = cgroup->hierarchies[0].fd < 0 ? -ENOENT
                                          : cgroup_read_line(cgroup->hierarchies[0].fd,
                                                             "cgroup.freeze", value, sizeof(value));

    return r < 0 ? r : value[0] == '1';
}

static int v2_kill(struct cgroup *cgroup, struct error *err)
{
    if (cgroup->hierarchies[0].fd < 0)
        return 0;
    if (cgroup_write(&cgroup->hierarchies[0], "cgroup.kill", "1", NULL) == 0) /* Linux 5.14 */
        return 0;
    int r = cgroup_signal_all(cgroup, SIGKILL, err);
    if (r == 0 && v2_is_frozen(cgroup) > 0)
        r = v2_freeze(cgroup, false, err);
    return r;
}

static struct cgroup_hierarchy *v2_processes(struct cgroup *cgroup)
{
    return &cgroup->hierarchies[0];
}

const struct cgroup_ops cgroup_v2_ops = {
    .name = "cgroupfs v2",
    .version = 2,
    .create = v2_create,
    .adopt = v2_adopt,
    .apply = cgroup_v2_apply,
    .set_devices = cgroup_v2_set_devices,
    .delegate = v2_delegate,
    .prepare_join = v2_prepare_join,
    .freeze = v2_freeze,
    .is_frozen = v2_is_frozen,
    .kill = v2_kill,
    .processes = v2_processes,
};
