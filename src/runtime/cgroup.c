#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <time.h>
#include <unistd.h>

#include <base/alloc.h>
#include <base/file.h>
#include <base/text.h>

#include "cgroup.h"

enum {
    DESTROY_TRIES = 200,
    DESTROY_PAUSE_US = 5000,
    CGROUP_DEPTH_MAX = 64,
    SIGNAL_ROUNDS_MAX = 16,
};

static const char *const v1_controllers[] = {
    "cpuset",   "cpu",     "cpuacct",    "blkio", "memory", "devices", "freezer", "net_cls",
    "net_prio", "hugetlb", "perf_event", "pids",  "rdma",   "misc",    "systemd"};

static bool is_filesystem(int fd, long magic)
{
    struct statfs status;

    return fstatfs(fd, &status) == 0 && (long)status.f_type == magic;
}

bool cgroup_is_v2(void)
{
    _cleanup_close_ int fd = open(CGROUP_MOUNT, O_PATH | O_DIRECTORY | O_CLOEXEC);

    return fd >= 0 && is_filesystem(fd, CGROUP2_SUPER_MAGIC);
}

static void add_hierarchy(struct cgroup *cgroup, const char *name, int root_fd)
{
    struct cgroup_hierarchy *hierarchy = &cgroup->hierarchies[cgroup->count++];

    *hierarchy = (struct cgroup_hierarchy){.root_fd = root_fd, .fd = -1};
    snprintf(hierarchy->name, sizeof(hierarchy->name), "%s", name);
}

/* Controllers mounted together are links to one folder ("cpu" -> "cpu,cpuacct"): one hierarchy. */
static void add_v1_controller(struct cgroup *cgroup, int base_fd, const char *name)
{
    char target[sizeof(cgroup->aliases[0].target)];
    ssize_t length = readlinkat(base_fd, name, target, sizeof(target) - 1);

    if (length > 0) {
        struct cgroup_alias *alias = &cgroup->aliases[cgroup->alias_count];
        target[length] = '\0';
        if (strchr(target, '/'))
            return;
        snprintf(alias->name, sizeof(alias->name), "%s", name);
        memcpy(alias->target, target, (size_t)length + 1);
        cgroup->alias_count++;
        name = alias->target;
        for (size_t i = 0; i < cgroup->count; i++) {
            if (text_equal(cgroup->hierarchies[i].name, name))
                return;
        }
    }
    int fd = openat(base_fd, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
    if (fd < 0)
        return;
    if (is_filesystem(fd, CGROUP_SUPER_MAGIC))
        add_hierarchy(cgroup, name, fd);
    else
        close(fd);
}

static int detect(struct cgroup *cgroup, struct error *err)
{
    _cleanup_close_ int base_fd = open(CGROUP_MOUNT, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

    if (base_fd < 0)
        return error_errno(err, errno, "open " CGROUP_MOUNT);
    if (is_filesystem(base_fd, CGROUP2_SUPER_MAGIC)) {
        cgroup->ops = &cgroup_v2_ops;
        add_hierarchy(cgroup, "", steal_fd(&base_fd));
        return 0;
    }
    cgroup->ops = &cgroup_v1_ops;
    for (size_t i = 0; i < ARRAY_SIZE(v1_controllers); i++)
        add_v1_controller(cgroup, base_fd, v1_controllers[i]);
    if (cgroup->count == 0)
        return error_set(err, -ENOTSUP, "no cgroup hierarchy is mounted under " CGROUP_MOUNT);
    return 0;
}

/* "/a//b/" -> "a/b". Relative paths mean the same: OCI config-linux.md leaves their base to the
 * runtime. */
static int normalise_path(const char *path, char **ret, struct error *err)
{
    _cleanup_strv_ char **parts = strv_split(path, '/');
    _cleanup_buffer_ struct buffer clean = BUFFER_INIT;
    size_t depth = 0;

    if (strlen(path) > CGROUP_PATH_MAX)
        return error_set(err, -ENAMETOOLONG, "linux.cgroupsPath: longer than %d bytes",
                         CGROUP_PATH_MAX);
    for (size_t i = 0; parts && parts[i]; i++) {
        if (!parts[i][0] || text_equal(parts[i], "."))
            continue;
        if (text_equal(parts[i], ".."))
            return error_set(err, -EINVAL, "linux.cgroupsPath: '..' is not allowed in '%s'", path);
        if (++depth > CGROUP_DEPTH_MAX)
            return error_set(err, -EINVAL, "linux.cgroupsPath: deeper than %d", CGROUP_DEPTH_MAX);
        if (clean.length)
            buffer_append_char(&clean, '/');
        buffer_append_text(&clean, parts[i]);
    }
    if (depth == 0)
        return error_set(err, -EINVAL, "linux.cgroupsPath: '%s' is the root cgroup", path);
    *ret = buffer_steal(&clean);
    return 0;
}

int cgroup_init(struct cgroup *cgroup, const char *path, const char *id, struct error *err)
{
    *cgroup = (struct cgroup){0};
    int r = normalise_path(text_empty(path) ? id : path, &cgroup->path, err);
    if (r == 0)
        r = detect(cgroup, err);
    if (r < 0)
        cgroup_finish(cgroup);
    return r;
}

int cgroup_open(struct cgroup *cgroup, const char *path, int made_depth, struct error *err)
{
    if (!path[0])
        return cgroup_open_none(cgroup);
    int r = cgroup_init(cgroup, path, NULL, err);

    if (r < 0)
        return r;
    cgroup->made_depth = made_depth;
    for (size_t i = 0; i < cgroup->count; i++) {
        struct cgroup_hierarchy *hierarchy = &cgroup->hierarchies[i];
        hierarchy->made_depth = made_depth;
        hierarchy->fd = openat(hierarchy->root_fd, cgroup->path,
                               O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
        if (hierarchy->fd < 0 && errno != ENOENT) {
            r = error_errno(err, errno, "open cgroup %s in %s", cgroup->path, hierarchy->name);
            cgroup_finish(cgroup);
            return r;
        }
    }
    return 0;
}

void cgroup_finish(struct cgroup *cgroup)
{
    for (size_t i = 0; i < cgroup->count; i++) {
        close_fd(cgroup->hierarchies[i].fd);
        close_fd(cgroup->hierarchies[i].root_fd);
    }
    free(cgroup->path);
    *cgroup = (struct cgroup){0};
}

struct cgroup_hierarchy *cgroup_hierarchy_find(struct cgroup *cgroup, const char *controller)
{
    const char *name = controller;

    for (size_t i = 0; i < cgroup->alias_count; i++) {
        if (text_equal(cgroup->aliases[i].name, controller))
            name = cgroup->aliases[i].target;
    }
    for (size_t i = 0; i < cgroup->count; i++) {
        if (text_equal(cgroup->hierarchies[i].name, name))
            return &cgroup->hierarchies[i];
    }
    return NULL;
}

int cgroup_write(const struct cgroup_hierarchy *hierarchy, const char *file, const char *value,
                 struct error *err)
{
    int fd = openat(hierarchy->fd, file, O_WRONLY | O_CLOEXEC | O_NOFOLLOW);

    if (fd < 0 && errno == ENOENT)
        return error_set(err, -ENOTSUP, "this kernel's cgroups have no %s", file);
    if (fd < 0)
        return error_errno(err, errno, "open %s", file);
    ssize_t n = write(fd, value, strlen(value));
    int failure = n < 0 ? errno : 0;
    close(fd);
    if (failure)
        return error_errno(err, failure, "write '%s' to %s", value, file);
    return 0;
}

static bool holds_processes(int fd)
{
    char byte;
    _cleanup_close_ int procs_fd = openat(fd, "cgroup.procs", O_RDONLY | O_CLOEXEC);

    return procs_fd >= 0 && read(procs_fd, &byte, 1) == 1;
}

/* Makes the levels of the path one after another, from the root of the hierarchy down. */
int cgroup_make_directories(struct cgroup *cgroup, struct cgroup_hierarchy *hierarchy,
                            int (*made)(int parent_fd, int fd, struct error *err),
                            struct error *err)
{
    _cleanup_strv_ char **parts = strv_split(cgroup->path, '/');
    int parent_fd = hierarchy->root_fd, fd = -1, r = 0;

    for (int depth = 1; r == 0 && parts[depth - 1]; depth++) {
        const char *name = parts[depth - 1];
        bool last = !parts[depth];
        bool is_new = mkdirat(parent_fd, name, 0755) == 0;
        if (!is_new && errno != EEXIST) {
            r = error_errno(err, errno, "linux.cgroupsPath: create cgroup %s in %s", cgroup->path,
                            hierarchy->name);
            break;
        }
        if (is_new && !hierarchy->made_depth)
            hierarchy->made_depth = depth;
        fd = openat(parent_fd, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
        if (fd < 0)
            r = error_errno(err, errno, "open cgroup %s in %s", cgroup->path, hierarchy->name);
        else if (made)
            r = made(parent_fd, fd, err);
        if (r == 0 && last && !is_new && holds_processes(fd))
            r = error_set(err, -EEXIST, "cgroup /%s already exists and holds processes",
                          cgroup->path);
        if (parent_fd != hierarchy->root_fd)
            close(parent_fd);
        parent_fd = fd;
    }
    if (hierarchy->made_depth &&
        (!cgroup->made_depth || hierarchy->made_depth < cgroup->made_depth))
        cgroup->made_depth = hierarchy->made_depth;
    if (r < 0) {
        if (parent_fd != hierarchy->root_fd)
            close_fd(parent_fd);
        return r;
    }
    hierarchy->fd = fd;
    return 0;
}

int cgroup_join_self(const struct cgroup_join *join)
{
    for (size_t i = 0; i < join->count; i++) {
        if (write(join->fds[i], "0", 1) < 0)
            return -errno;
    }
    return 0;
}

void cgroup_join_finish(struct cgroup_join *join)
{
    for (size_t i = 0; i < join->count; i++)
        close_fd(join->fds[i]);
    join->count = 0;
}

struct pid_list {
    pid_t *pids;
    size_t count, capacity;
};

static int read_pids(int directory_fd, struct pid_list *list, struct error *err)
{
    _cleanup_free_ char *text = NULL;
    int r = file_read_at(directory_fd, "cgroup.procs", CGROUP_FILE_MAX, &text, NULL, err);

    if (r < 0)
        return r == -ENODEV || r == -ENOENT ? 0 : r; /* removed meanwhile */
    for (char *line = text, *end; *line; line = end + (*end == '\n')) {
        long pid = strtol(line, &end, 10);
        if (end == line)
            break;
        if (list->count == list->capacity) {
            list->capacity = list->capacity ? 2 * list->capacity : 16;
            list->pids = xrealloc(list->pids, list->capacity, sizeof(pid_t));
        }
        if (pid > 0)
            list->pids[list->count++] = (pid_t)pid;
    }
    return 0;
}

/* Calls visit for the cgroups below fd, deepest first, then for fd's own entry by its caller. */
static int walk_below(int fd, int depth,
                      int (*visit)(int parent_fd, const char *name, int fd, void *), void *context)
{
    if (depth > CGROUP_DEPTH_MAX)
        return -ELOOP;
    int copy_fd = openat(fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (copy_fd < 0)
        return errno == ENOENT || errno == ENODEV ? 0 : -errno;
    _cleanup_closedir_ DIR *directory = fdopendir(copy_fd);
    if (!directory) {
        close(copy_fd);
        return -ENOMEM;
    }
    for (struct dirent *entry; (entry = readdir(directory));) {
        if (entry->d_type != DT_DIR || entry->d_name[0] == '.')
            continue;
        _cleanup_close_ int child_fd =
            openat(fd, entry->d_name, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
        if (child_fd < 0)
            continue;
        int r = walk_below(child_fd, depth + 1, visit, context);
        if (r == 0)
            r = visit(fd, entry->d_name, child_fd, context);
        if (r < 0)
            return r;
    }
    return 0;
}

static int visit_pids(int parent_fd _unused_, const char *name _unused_, int fd, void *context)
{
    return read_pids(fd, context, NULL);
}

int cgroup_processes(struct cgroup *cgroup, pid_t **ret, size_t *ret_count, struct error *err)
{
    struct cgroup_hierarchy *hierarchy = cgroup->ops->processes(cgroup);
    struct pid_list list = {0};
    int r = 0;

    if (hierarchy && hierarchy->fd >= 0) {
        r = walk_below(hierarchy->fd, 0, visit_pids, &list);
        if (r == 0)
            r = read_pids(hierarchy->fd, &list, err);
        else
            error_errno(err, -r, "list the processes of cgroup %s", cgroup->path);
    }
    if (r < 0) {
        free(list.pids);
        return r;
    }
    *ret = list.pids;
    *ret_count = list.count;
    return 0;
}

static int signal_once(struct cgroup *cgroup, int signal, size_t *ret_count, struct error *err)
{
    _cleanup_free_ pid_t *pids = NULL;
    int r = cgroup_processes(cgroup, &pids, ret_count, err);

    for (size_t i = 0; r == 0 && i < *ret_count; i++)
        kill(pids[i], signal);
    return r;
}

int cgroup_signal_all(struct cgroup *cgroup, int signal, struct error *err)
{
    size_t count;

    /* Without a freezer SIGKILL is repeated until nobody is left who could have forked. */
    bool frozen =
        cgroup->ops->is_frozen(cgroup) == 0 && cgroup->ops->freeze(cgroup, true, NULL) == 0;
    int r = signal_once(cgroup, signal, &count, err);
    if (frozen)
        cgroup->ops->freeze(cgroup, false, NULL);
    for (int round = 0; !frozen && r == 0 && signal == SIGKILL && count; round++) {
        if (round == SIGNAL_ROUNDS_MAX)
            break;
        usleep(1000);
        r = signal_once(cgroup, signal, &count, err);
    }
    return r;
}

static int remove_directory(int parent_fd, const char *name)
{
    for (int i = 0; i < DESTROY_TRIES; i++) {
        if (unlinkat(parent_fd, name, AT_REMOVEDIR) == 0 || errno == ENOENT)
            return 0;
        if (errno != EBUSY && errno != EINTR)
            return -errno;
        if (i > 0) /* the second try is at once: exit of the last process is usually done by then */
            usleep(DESTROY_PAUSE_US);
    }
    return -EBUSY;
}

static int visit_remove(int parent_fd, const char *name, int fd _unused_, void *context _unused_)
{
    return remove_directory(parent_fd, name);
}

static int destroy_in(struct cgroup *cgroup, struct cgroup_hierarchy *hierarchy)
{
    int r = 0;

    if (!hierarchy->made_depth)
        return 0;
    if (unlinkat(hierarchy->root_fd, cgroup->path, AT_REMOVEDIR) < 0 && errno != ENOENT) {
        if (hierarchy->fd >= 0)
            r = walk_below(hierarchy->fd, 0, visit_remove, NULL);
        if (r == 0)
            r = remove_directory(hierarchy->root_fd, cgroup->path);
    }
    if (r < 0)
        return r;
    /* Parents of our making go when nobody else uses them by now (EBUSY, ENOTEMPTY: they do). */
    _cleanup_free_ char *path = xstrdup(cgroup->path);
    int depth = 1;
    for (const char *c = path; *c; c++)
        depth += *c == '/';
    for (char *slash; depth > hierarchy->made_depth && (slash = strrchr(path, '/')); depth--) {
        *slash = '\0';
        if (unlinkat(hierarchy->root_fd, path, AT_REMOVEDIR) < 0)
            break;
    }
    return 0;
}

int cgroup_destroy(struct cgroup *cgroup, struct error *err)
{
    int result = 0;

    for (size_t i = 0; i < cgroup->count; i++) {
        int r = destroy_in(cgroup, &cgroup->hierarchies[i]);
        if (r < 0)
            result = error_errno(err, -r, "remove cgroup %s in %s", cgroup->path,
                                 cgroup->hierarchies[i].name);
    }
    return result;
}
