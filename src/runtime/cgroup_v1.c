/*
 * cgroup v1 through its file systems, one hierarchy per controller (Documentation/admin-guide/
 * cgroup-v1 of the kernel). In the hybrid layout the container is in a cgroup of the v2 tree beside
 * them, too: it would stay in the caller's otherwise, and be killed or frozen with it.
 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include <base/alloc.h>
#include <base/file.h>
#include <base/text.h>

#include "cgroup.h"
#include "cgroup_resources.h"

enum {
    FREEZE_TRIES = 5000, /* a busy machine leaves a process waiting for a while */
    FREEZE_THAW_AFTER = 100,
    FREEZE_PAUSE_US = 1000,
    CPUSET_LIST_MAX = 4096, /* bytes of a list such as "0-3,8" */
};

static int copy_if_empty(int parent_fd, int fd, const char *file, struct error *err)
{
    char text[CPUSET_LIST_MAX];
    _cleanup_close_ int own_fd = openat(fd, file, O_RDWR | O_CLOEXEC);
    ssize_t n = own_fd < 0 ? -1 : read(own_fd, text, sizeof(text));

    if (n < 0)
        return error_errno(err, errno, "read %s", file);
    if (n > 1) /* more than the newline */
        return 0;
    _cleanup_close_ int source_fd = openat(parent_fd, file, O_RDONLY | O_CLOEXEC);
    n = source_fd < 0 ? -1 : read(source_fd, text, sizeof(text));
    if (n < 0)
        return error_errno(err, errno, "read %s of the parent", file);
    if (write(own_fd, text, (size_t)n) != n)
        return error_errno(err, errno, "write %s", file);
    return 0;
}

/* A new cpuset has no CPUs and no memory nodes, and takes no processes until it has (cpusets.rst,
 * 1.5), unless the parent has clone_children set. */
static int fill_cpuset(int parent_fd, int fd, struct error *err)
{
    int r = copy_if_empty(parent_fd, fd, "cpuset.cpus", err);

    return r < 0 ? r : copy_if_empty(parent_fd, fd, "cpuset.mems", err);
}

static int v1_create(struct cgroup *cgroup, struct error *err)
{
    const struct cgroup_hierarchy *cpuset = cgroup_hierarchy_find(cgroup, "cpuset");

    for (size_t i = 0; i < cgroup->count; i++) {
        struct cgroup_hierarchy *hierarchy = &cgroup->hierarchies[i];
        if (hierarchy->fd >= 0)
            continue; /* container_make_birthplace */
        int r = cgroup_make_directories(cgroup, hierarchy, hierarchy == cpuset ? fill_cpuset : NULL,
                                        hierarchy->is_v2 ? NULL : err);
        /* The v2 tree of the hybrid layout limits nothing: doing without it is no failure. */
        if (r < 0 && (!hierarchy->is_v2 || r == -EEXIST))
            return r == -EEXIST && hierarchy->is_v2
                       ? error_set(err, r, "container's cgroup is not empty (in %s)",
                                   hierarchy->name)
                       : r;
    }
    return 0;
}

/* systemd has one only in the hierarchies of the controllers whose properties it was given. */
static int adopt_in(struct cgroup *cgroup, struct cgroup_hierarchy *hierarchy, const char *pid,
                    struct error *err)
{
    const struct cgroup_hierarchy *cpuset = cgroup_hierarchy_find(cgroup, "cpuset");
    int r = 0;

    hierarchy->fd =
        openat(hierarchy->root_fd, cgroup->path, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
    if (hierarchy->fd < 0) {
        /* The slices above it, too, are ours here. */
        r = cgroup_make_directories(cgroup, hierarchy, hierarchy == cpuset ? fill_cpuset : NULL,
                                    err);
    }
    /* Where it puts its units to know them, nobody else moves processes. */
    if (r == 0 && !hierarchy->is_v2 && !text_equal(hierarchy->name, "systemd"))
        r = cgroup_write(hierarchy, "cgroup.procs", pid, err);
    return r;
}

static int v1_adopt(struct cgroup *cgroup, pid_t pid, struct error *err)
{
    int r = 0;
    char number[16];

    snprintf(number, sizeof(number), "%d", pid);
    for (size_t i = 0; r == 0 && i < cgroup->count; i++) {
        r = adopt_in(cgroup, &cgroup->hierarchies[i], number, err);
        if (r < 0)
            error_context(err, "cgroup %s in %s", cgroup->path, cgroup->hierarchies[i].name);
    }
    return r;
}

static int open_join(const struct cgroup *cgroup, const struct cgroup_hierarchy *hierarchy,
                     struct cgroup_join *join, struct error *err)
{
    const char *file = hierarchy->is_v2 ? "cgroup.procs" : "tasks";
    int fd = openat(hierarchy->fd, file, O_WRONLY | O_CLOEXEC);

    if (fd < 0)
        return error_errno(err, errno, "open %s of cgroup %s in %s", file, cgroup->path,
                           hierarchy->name);
    join->fds[join->count++] = fd;
    return 0;
}

static int v1_prepare_join(struct cgroup *cgroup, struct cgroup_join *ret, struct error *err)
{
    *ret = (struct cgroup_join){.clone_fd = -1};
    for (size_t i = cgroup->count; i-- > 0;) { /* the v2 tree is the last, and joined first */
        const struct cgroup_hierarchy *hierarchy = &cgroup->hierarchies[i];
        if (hierarchy->fd < 0)
            continue;
        int r = open_join(cgroup, hierarchy, ret, err);
        if (r < 0) {
            cgroup_join_finish(ret);
            return r;
        }
        if (hierarchy->is_v2)
            ret->clone_fd = hierarchy->fd;
    }
    return 0;
}

static int v1_freeze(struct cgroup *cgroup, bool frozen, struct error *err)
{
    const struct cgroup_hierarchy *freezer = cgroup_hierarchy_find(cgroup, "freezer");
    const char *wanted = frozen ? "FROZEN" : "THAWED";
    char state[32] = "";

    if (!freezer || freezer->fd < 0)
        return error_set(err, -ENOTSUP, "the freezer cgroup is not mounted");
    for (int i = 0; i < FREEZE_TRIES; i++) {
        /* Written again each time: a process that forked in between leaves it at FREEZING
         * (freezer-subsystem.rst). */
        /* Who waits for one that is frozen already, goes on. */
        if (frozen && i % FREEZE_THAW_AFTER == FREEZE_THAW_AFTER - 1)
            cgroup_write(freezer, "freezer.state", "THAWED", NULL);
        int r = cgroup_write(freezer, "freezer.state", wanted, err);
        if (r == 0)
            r = cgroup_read_line(freezer->fd, "freezer.state", state, sizeof(state));
        if (r < 0)
            return error_errno(err, -r, "freezer.state of cgroup %s", cgroup->path);
        if (text_equal(state, wanted))
            return 0;
        usleep(FREEZE_PAUSE_US);
    }
    if (frozen)
        cgroup_write(freezer, "freezer.state", "THAWED", NULL);
    return error_set(err, -ETIMEDOUT, "cgroup %s stays in state %s", cgroup->path, state);
}

static int v1_is_frozen(struct cgroup *cgroup)
{
    const struct cgroup_hierarchy *freezer = cgroup_hierarchy_find(cgroup, "freezer");
    char state[32];

    if (!freezer || freezer->fd < 0)
        return -ENOTSUP;
    int r = cgroup_read_line(freezer->fd, "freezer.state", state, sizeof(state));
    return r < 0 ? r : text_equal(state, "FROZEN") || text_equal(state, "FREEZING");
}

static int v1_kill(struct cgroup *cgroup, struct error *err)
{
    const struct cgroup_hierarchy *tree = cgroup_v2_tree(cgroup);

    /* A process is born there, and comes into the others later. */
    if (tree && tree->fd >= 0 && tree->made_depth)
        cgroup_write(tree, "cgroup.kill", "1", NULL);
    int r = cgroup_signal_all(cgroup, SIGKILL, err);

    /* A frozen process dies when it is thawed. */
    if (r == 0 && v1_is_frozen(cgroup) > 0)
        r = v1_freeze(cgroup, false, err);
    return r;
}

/* v1 gives nothing safely: whoever owns a cgroup also sets its own limits. */
static int v1_delegate(struct cgroup *cgroup _unused_, uid_t uid _unused_,
                       struct error *err _unused_)
{
    return 0;
}

static struct cgroup_hierarchy *v1_processes(struct cgroup *cgroup)
{
    static const char *const preferred[] = {"freezer", "pids", "devices", "memory"};

    for (size_t i = 0; i < ARRAY_SIZE(preferred); i++) {
        struct cgroup_hierarchy *found = cgroup_hierarchy_find(cgroup, preferred[i]);
        if (found)
            return found;
    }
    return &cgroup->hierarchies[0];
}

const struct cgroup_ops cgroup_v1_ops = {
    .name = "cgroupfs v1",
    .version = 1,
    .create = v1_create,
    .adopt = v1_adopt,
    .apply = cgroup_v1_apply,
    .set_devices = cgroup_v1_set_devices,
    .delegate = v1_delegate,
    .prepare_join = v1_prepare_join,
    .freeze = v1_freeze,
    .is_frozen = v1_is_frozen,
    .kill = v1_kill,
    .processes = v1_processes,
};
