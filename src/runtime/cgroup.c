#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

#include <base/alloc.h>
#include <base/file.h>
#include <base/text.h>

#include "cgroup.h"

#define UNIFIED "unified" /* where systemd mounts the v2 tree beside v1's */

static const char *const v1_controllers[] = {
    "cpuset",   "cpu",     "cpuacct",    "blkio", "memory", "devices", "freezer", "net_cls",
    "net_prio", "hugetlb", "perf_event", "pids",  "rdma",   "misc",    "systemd", "unified"};

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

static void add_hierarchy(struct cgroup *cgroup, const char *name, int root_fd, bool is_v2)
{
    struct cgroup_hierarchy *hierarchy = &cgroup->hierarchies[cgroup->count++];

    *hierarchy = (struct cgroup_hierarchy){.root_fd = root_fd, .fd = -1, .is_v2 = is_v2};
    snprintf(hierarchy->name, sizeof(hierarchy->name), "%s", name);
}

/* Controllers mounted together are links to one folder ("cpu" -> "cpu,cpuacct"): one hierarchy.
 * Returns the folder's name, NULL when there is none that is not known yet. */
static const char *follow_link(struct cgroup *cgroup, int base_fd, const char *name)
{
    struct cgroup_alias *alias = &cgroup->aliases[cgroup->alias_count];
    char target[sizeof(alias->target)];
    ssize_t length = readlinkat(base_fd, name, target, sizeof(target) - 1);

    if (length <= 0 || memchr(target, '/', (size_t)length))
        return NULL;
    target[length] = '\0';
    snprintf(alias->name, sizeof(alias->name), "%s", name);
    memcpy(alias->target, target, (size_t)length + 1);
    cgroup->alias_count++;
    for (size_t i = 0; i < cgroup->count; i++) {
        if (text_equal(cgroup->hierarchies[i].name, target))
            return NULL;
    }
    return alias->target;
}

static void add_v1_controller(struct cgroup *cgroup, int base_fd, const char *name)
{
    const int flags = O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW;
    int fd = openat(base_fd, name, flags);

    if (fd < 0 && errno != ENOENT && (name = follow_link(cgroup, base_fd, name)))
        fd = openat(base_fd, name, flags);
    if (fd < 0)
        return;
    bool is_v2 = text_equal(name, UNIFIED);
    if (is_filesystem(fd, is_v2 ? CGROUP2_SUPER_MAGIC : CGROUP_SUPER_MAGIC))
        add_hierarchy(cgroup, name, fd, is_v2);
    else
        close(fd);
}

/* only: of one controller; NULL: all. */
static int detect(struct cgroup *cgroup, const char *only, struct error *err)
{
    _cleanup_close_ int base_fd = open(CGROUP_MOUNT, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

    if (base_fd < 0)
        return error_errno(err, errno, "open " CGROUP_MOUNT);
    if (is_filesystem(base_fd, CGROUP2_SUPER_MAGIC)) {
        cgroup->ops = &cgroup_v2_ops;
        add_hierarchy(cgroup, "", steal_fd(&base_fd), true);
        return 0;
    }
    cgroup->ops = &cgroup_v1_ops;
    for (size_t i = 0; i < ARRAY_SIZE(v1_controllers); i++) {
        if (!only || text_equal(v1_controllers[i], only))
            add_v1_controller(cgroup, base_fd, v1_controllers[i]);
    }
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

static int init(struct cgroup *cgroup, const char *path, const char *only, struct error *err)
{
    *cgroup = (struct cgroup){0};
    int r = normalise_path(path, &cgroup->path, err);
    if (r == 0)
        r = detect(cgroup, only, err);
    if (r < 0)
        cgroup_finish(cgroup);
    return r;
}

int cgroup_init(struct cgroup *cgroup, const char *path, const char *id, struct error *err)
{
    return init(cgroup, text_empty(path) ? id : path, NULL, err);
}

int cgroup_open(struct cgroup *cgroup, const char *path, struct error *err)
{
    return cgroup_open_for(cgroup, path, NULL, err);
}

int cgroup_open_for(struct cgroup *cgroup, const char *path, const char *controller,
                    struct error *err)
{
    if (!path[0])
        return cgroup_open_none(cgroup);
    int r = init(cgroup, path, controller, err);

    if (r < 0)
        return r;
    for (size_t i = 0; i < cgroup->count; i++) {
        struct cgroup_hierarchy *hierarchy = &cgroup->hierarchies[i];
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
    free(cgroup->unit);
    free(cgroup->slice);
    *cgroup = (struct cgroup){0};
}

struct cgroup_hierarchy *cgroup_hierarchy_find(struct cgroup *cgroup, const char *controller)
{
    const char *name = controller;

    if (cgroup->ops->version == 2)
        return &cgroup->hierarchies[0];
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

    if (fd < 0)
        return error_errno(err, errno, "open the cgroup's %s", file);
    ssize_t n = write(fd, value, strlen(value));
    int failure = n < 0 ? errno : 0;
    close(fd);
    if (failure)
        return error_errno(err, failure, "write '%s' to %s", value, file);
    return 0;
}

int cgroup_read_line(int directory_fd, const char *file, char *ret, size_t size)
{
    _cleanup_close_ int fd = openat(directory_fd, file, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    ssize_t n = fd < 0 ? -1 : read(fd, ret, size - 1);

    if (n < 0)
        return -errno;
    ret[n] = '\0';
    ret[strcspn(ret, "\n")] = '\0';
    return 0;
}

int cgroup_read_number(int directory_fd, const char *file, uint64_t *ret)
{
    char text[32];
    int r = cgroup_read_line(directory_fd, file, text, sizeof(text));

    if (r < 0)
        return r;
    if (text_equal(text, "max") || text[0] == '-') { /* v1 writes "no limit" as -1 here and there */
        *ret = UINT64_MAX;
        return 0;
    }
    return text_to_u64(text, 0, UINT64_MAX, ret);
}

uint64_t cgroup_oom_kills(struct cgroup *cgroup)
{
    const struct cgroup_hierarchy *memory = cgroup_hierarchy_find(cgroup, "memory");
    _cleanup_free_ char *text = NULL;
    const char *at;

    if (!memory || memory->fd < 0 ||
        file_read_at(memory->fd, cgroup->ops->version == 2 ? "memory.events" : "memory.oom_control",
                     CGROUP_FILE_MAX, &text, NULL, NULL) < 0)
        return 0;
    at = strstr(text, "\noom_kill ");
    return at ? strtoull(at + strlen("\noom_kill "), NULL, 10) : 0;
}

/* How many lines one read of cgroup.procs has: for a message. */
static size_t count_processes(int fd)
{
    char text[4096];
    size_t count = 0;
    _cleanup_close_ int procs_fd = openat(fd, "cgroup.procs", O_RDONLY | O_CLOEXEC);
    ssize_t n = procs_fd < 0 ? 0 : read(procs_fd, text, sizeof(text));

    for (ssize_t i = 0; i < n; i++)
        count += text[i] == '\n';
    return count;
}

static int check_empty(int fd, struct error *err)
{
    size_t count = count_processes(fd);

    return count ? error_set(err, -EEXIST, "container's cgroup is not empty: %zu process(es) found",
                             count)
                 : 0;
}

struct cgroup_hierarchy *cgroup_v2_tree(struct cgroup *cgroup)
{
    for (size_t i = 0; cgroup->ops->version == 1 && i < cgroup->count; i++) {
        if (cgroup->hierarchies[i].is_v2)
            return &cgroup->hierarchies[i];
    }
    return NULL;
}

/* Makes the levels of the path one after another, from the root of the hierarchy down. */
int cgroup_make_directories(struct cgroup *cgroup, struct cgroup_hierarchy *hierarchy,
                            int (*made)(int parent_fd, int fd, struct error *err),
                            struct error *err)
{
    _cleanup_strv_ char **parts = strv_split(cgroup->path, '/');
    int parent_fd = hierarchy->root_fd, fd = -1, r = 0;

    hierarchy->made_depth = 0;
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
        if (r == 0 && last && !is_new)
            r = check_empty(fd, err);
        if (parent_fd != hierarchy->root_fd)
            close(parent_fd);
        parent_fd = fd;
    }
    if (r < 0) {
        if (parent_fd != hierarchy->root_fd)
            close_fd(parent_fd);
        return r;
    }
    hierarchy->fd = fd;
    return 0;
}

/* The depth from which on the path is not there yet; 0: all of it is. */
static int first_missing(const struct cgroup *cgroup, const struct cgroup_hierarchy *hierarchy)
{
    _cleanup_free_ char *path = xstrdup(cgroup->path);
    int depth = 1;

    for (char *slash = path; (slash = strchr(slash, '/')); depth++) {
        *slash = '\0';
        if (faccessat(hierarchy->root_fd, path, F_OK, 0) < 0)
            return depth;
        *slash++ = '/';
    }
    return faccessat(hierarchy->root_fd, path, F_OK, 0) < 0 ? depth : 0;
}

void cgroup_foresee(struct cgroup *cgroup)
{
    for (size_t i = 0; i < cgroup->count; i++)
        cgroup->hierarchies[i].made_depth = first_missing(cgroup, &cgroup->hierarchies[i]);
}

bool cgroup_was_made(const struct cgroup *cgroup)
{
    for (size_t i = 0; i < cgroup->count; i++) {
        if (cgroup->hierarchies[i].made_depth)
            return true;
    }
    return false;
}

int cgroup_join_self(const struct cgroup_join *join, bool born_there)
{
    for (size_t i = born_there && join->clone_fd >= 0; i < join->count; i++) {
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
    if (join->owned_fd > 0)
        close(join->owned_fd);
    join->owned_fd = 0;
}
