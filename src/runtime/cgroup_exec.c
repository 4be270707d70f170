/*
 * Where in the container's cgroup a further process goes: its top, or a cgroup below that the
 * container has made.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include <base/alloc.h>
#include <base/file.h>
#include <base/text.h>

#include "cgroup.h"

enum { CONTROLLERS_MAX = 4096, PROC_CGROUP_MAX = 1 << 16 };

static int check_path(const char *path, struct error *err)
{
    _cleanup_strv_ char **parts = strv_split(path, '/');

    return strv_contains(parts, "..")
               ? error_set(err, -EINVAL,
                           "bad sub cgroup path: %s leads out of the container's cgroup", path)
               : 0;
}

/* Opens a cgroup of the hierarchy, by its path from the container's or from the top, and the file
 * to join it by. */
static int join_place(const struct cgroup *cgroup, const struct cgroup_hierarchy *hierarchy,
                      bool below, const char *path, struct cgroup_join *join, struct error *err)
{
    _cleanup_free_ char *clean = xasprintf("./%s", path);
    _cleanup_close_ int fd = openat(below ? hierarchy->fd : hierarchy->root_fd, clean,
                                    O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    int procs_fd =
        fd < 0 ? -1 : openat(fd, hierarchy->is_v2 ? "cgroup.procs" : "tasks", O_WRONLY | O_CLOEXEC);

    if (procs_fd < 0) {
        int failure = errno;
        _cleanup_free_ char *shown =
            xasprintf("%s%s%s", below ? cgroup->path : "", below ? "/" : "", path);
        if (failure != ENOENT)
            return error_errno(err, failure, "open the cgroup /%s", shown);
        return error_set(err, -ENOENT,
                         "error adding pid %d to cgroups: open " CGROUP_MOUNT "/%s%s%s/"
                         "cgroup.procs: no such file or directory",
                         getpid(), hierarchy->name, hierarchy->name[0] ? "/" : "", shown);
    }
    join->fds[join->count++] = procs_fd;
    if (hierarchy->is_v2)
        join->clone_fd = join->owned_fd = steal_fd(&fd);
    return 0;
}

/* ---- exec --cgroup */

struct places {
    const char *all; /* without a controller; NULL: none */
    struct {
        struct cgroup_hierarchy *hierarchy;
        const char *path;
    } single[CGROUP_HIERARCHIES_MAX];
    size_t count;
};

static int take_controllers(struct cgroup *cgroup, const char *text, const char *path,
                            struct places *ret, struct error *err)
{
    _cleanup_strv_ char **names = strv_split(text, ',');

    for (char **name = names; name && *name; name++) {
        struct cgroup_hierarchy *hierarchy = cgroup_hierarchy_find(cgroup, *name);
        if (cgroup->ops->version == 2 || !hierarchy || hierarchy->is_v2)
            return error_set(err, -EINVAL, "--cgroup: unknown controller %s", *name);
        for (size_t i = 0; i < ret->count; i++) {
            if (ret->single[i].hierarchy == hierarchy && !text_equal(ret->single[i].path, path))
                return error_set(err, -EINVAL, "--cgroup: two places for controller %s", *name);
        }
        if (ret->count == CGROUP_HIERARCHIES_MAX)
            return error_set(err, -E2BIG, "--cgroup: more controllers than there are");
        ret->single[ret->count].hierarchy = hierarchy;
        ret->single[ret->count++].path = path;
    }
    return 0;
}

static int take_place(struct cgroup *cgroup, char *text, bool only, struct places *ret,
                      struct error *err)
{
    char *colon = strchr(text, ':');
    const char *path = colon ? colon + 1 : text;
    int r = check_path(path, err);

    if (r < 0)
        return r;
    if (!colon && !only)
        return error_set(err, -EINVAL,
                         "invalid --cgroup argument: %s (missing <controller>: prefix)", text);
    if (!colon) {
        ret->all = path;
        return 0;
    }
    *colon = '\0';
    return take_controllers(cgroup, text, path, ret, err);
}

static const char *place_in(const struct places *places, const struct cgroup_hierarchy *hierarchy)
{
    for (size_t i = 0; i < places->count; i++) {
        if (places->single[i].hierarchy == hierarchy)
            return places->single[i].path;
    }
    return places->all && !(hierarchy->is_v2 && hierarchy->name[0]) ? places->all : "";
}

static int join_at(struct cgroup *cgroup, char **texts, struct cgroup_join *ret, struct error *err)
{
    struct places places = {0};
    size_t given = strv_length(texts);
    int r = 0;

    for (size_t i = 0; r == 0 && i < given; i++)
        r = take_place(cgroup, texts[i], given == 1, &places, err);
    for (size_t i = cgroup->count; r == 0 && i-- > 0;) { /* the v2 tree is the first to be joined */
        const struct cgroup_hierarchy *hierarchy = &cgroup->hierarchies[i];
        if (hierarchy->fd >= 0)
            r = join_place(cgroup, hierarchy, true, place_in(&places, hierarchy), ret, err);
    }
    return r;
}

/* ---- the top may take no processes */

/* A v2 cgroup that hands controllers down has no processes of its own, but for the controllers that
 * work on threads (cgroup-v2.rst, "No Internal Process Constraint"). */
static bool takes_no_processes(int fd)
{
    static const char *const threaded[] = {"cpu", "cpuset", "perf_event", "pids"};
    char text[CONTROLLERS_MAX];

    if (cgroup_read_line(fd, "cgroup.subtree_control", text, sizeof(text)) < 0)
        return false;
    for (char *rest = text, *name; (name = strsep(&rest, " "));) {
        bool known = !name[0];
        for (size_t i = 0; i < ARRAY_SIZE(threaded); i++)
            known |= text_equal(name, threaded[i]);
        if (!known)
            return true;
    }
    return false;
}

/* Where the container's first process is: below the container's cgroup, or wherever it went, for
 * the container itself can be there. The path is from the top of our own cgroup namespace. */
static int join_init(const struct cgroup *cgroup, pid_t init, struct cgroup_join *ret,
                     struct error *err)
{
    static const char unified[] = "0::/";
    _cleanup_free_ char *path = xasprintf("/proc/%d/cgroup", init), *text = NULL;
    int r = file_read_at(AT_FDCWD, path, PROC_CGROUP_MAX, &text, NULL, err);

    if (r < 0)
        return r;
    for (char *rest = text, *line; (line = strsep(&rest, "\n"));) {
        if (!text_starts_with(line, unified))
            continue;
        r = check_path(line + strlen(unified), err);
        return r < 0 ? r
                     : join_place(cgroup, &cgroup->hierarchies[0], false, line + strlen(unified),
                                  ret, err);
    }
    return error_set(err, -EBUSY,
                     "the container's cgroup /%s takes no processes, and its first process is in "
                     "none",
                     cgroup->path);
}

int cgroup_prepare_join_init(struct cgroup *cgroup, pid_t init, struct cgroup_join *ret,
                             struct error *err)
{
    *ret = (struct cgroup_join){.clone_fd = -1};
    int r = join_init(cgroup, init, ret, err);
    if (r < 0)
        cgroup_join_finish(ret);
    return r;
}

int cgroup_prepare_join_further(struct cgroup *cgroup, char *const *places, pid_t init,
                                struct cgroup_join *ret, struct error *err)
{
    struct cgroup_hierarchy *top = &cgroup->hierarchies[0];
    bool is_v2 = cgroup->ops->version == 2 && cgroup->count;
    _cleanup_strv_ char **texts = NULL;
    int r;

    *ret = (struct cgroup_join){.clone_fd = -1};
    if (places && *places) {
        texts = strv_copy(places);
        r = join_at(cgroup, texts, ret, err);
        if (r == 0 && is_v2 && top->fd < 0)
            r = error_set(err, -ENOENT, "--cgroup: the container's cgroup /%s is gone",
                          cgroup->path);
        if (r == 0 && is_v2 && takes_no_processes(ret->clone_fd))
            r = error_set(err, -EBUSY,
                          "error adding pid %d to cgroups: write " CGROUP_MOUNT "/%s/%s/"
                          "cgroup.procs: device or resource busy",
                          getpid(), cgroup->path, places[0]);
    } else if (is_v2 && (top->fd < 0 || takes_no_processes(top->fd))) {
        r = join_init(cgroup, init, ret, err);
    } else {
        return cgroup->ops->prepare_join(cgroup, ret, err);
    }
    if (r < 0)
        cgroup_join_finish(ret);
    return r;
}
