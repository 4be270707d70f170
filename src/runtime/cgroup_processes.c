/*
 * The processes of a cgroup and those below it, and its removal.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <base/alloc.h>
#include <base/file.h>
#include <base/text.h>

#include "cgroup.h"
#include "cgroup_systemd.h"

enum {
    PROCESSES_MAX = 64 << 20, /* bytes of cgroup.procs: 2^22 numbers (PID_MAX_LIMIT) have 30 MB */
    DESTROY_TRIES = 200,
    DESTROY_PAUSE_US = 5000,
    WALK_DEPTH_MAX = 1 << 16, /* a container may make cgroups in its own, if it may write there */
    SIGNAL_ROUNDS_MAX = 16,
};

struct pid_list {
    pid_t *pids;
    size_t count, capacity;
};

static int read_pids(int directory_fd, struct pid_list *list, struct error *err)
{
    _cleanup_free_ char *text = NULL;
    int r = file_read_at(directory_fd, "cgroup.procs", PROCESSES_MAX, &text, NULL, err);

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

/* A folder on the way down. Only the lowest one is open: a container may nest them deeper than
 * there are descriptors. */
struct level {
    char **names; /* owned, as each of them; of the folders in it */
    size_t count, next;
};

static void level_finish(struct level *level)
{
    for (size_t i = 0; i < level->count; i++)
        free(level->names[i]);
    free(level->names);
}

static int level_init(struct level *level, int fd)
{
    size_t capacity = 0;
    int copy_fd = openat(fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);

    *level = (struct level){0};
    if (copy_fd < 0) /* removed meanwhile */
        return errno == ENOENT || errno == ENODEV ? 0 : -errno;
    _cleanup_closedir_ DIR *directory = fdopendir(copy_fd);
    if (!directory) {
        close(copy_fd);
        return -ENOMEM;
    }
    for (struct dirent *entry; (entry = readdir(directory));) {
        /* One that is called ".hidden" is a cgroup as any other. */
        if (entry->d_type != DT_DIR || text_equal(entry->d_name, ".") ||
            text_equal(entry->d_name, ".."))
            continue;
        if (level->count == capacity) {
            capacity = capacity ? 2 * capacity : 16;
            level->names = xrealloc(level->names, capacity, sizeof(char *));
        }
        level->names[level->count++] = xstrdup(entry->d_name);
    }
    return 0;
}

struct walk {
    struct level *levels;
    size_t depth;
    int fd; /* owned; the lowest one */
};

static int walk_down(struct walk *walk, int fd)
{
    struct level level;
    int r = walk->depth < WALK_DEPTH_MAX ? level_init(&level, fd) : -ELOOP;

    if (r < 0) {
        close(fd);
        return r;
    }
    close_fd(walk->fd);
    walk->fd = fd;
    walk->levels = xrealloc(walk->levels, walk->depth + 1, sizeof(level));
    walk->levels[walk->depth++] = level;
    return 0;
}

static int walk_up(struct walk *walk, int (*visit)(int parent_fd, const char *name, int fd, void *),
                   void *context)
{
    level_finish(&walk->levels[--walk->depth]);
    if (walk->depth == 0)
        return 0;
    struct level *level = &walk->levels[walk->depth - 1];
    int parent_fd = openat(walk->fd, "..", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (parent_fd < 0)
        return -errno;
    int r = visit(parent_fd, level->names[level->next++], walk->fd, context);
    close(walk->fd);
    walk->fd = parent_fd;
    return r;
}

int cgroup_walk_below(int fd, int (*visit)(int parent_fd, const char *name, int fd, void *),
                      void *context)
{
    struct walk walk = {.fd = -1};
    int first_fd = openat(fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    int r = first_fd >= 0 ? walk_down(&walk, first_fd) : errno == ENOENT ? 0 : -errno;

    while (r == 0 && walk.depth) {
        struct level *level = &walk.levels[walk.depth - 1];
        const char *name = level->next < level->count ? level->names[level->next] : NULL;
        if (name) {
            int child_fd = openat(walk.fd, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
            if (child_fd < 0)
                level->next++;
            else
                r = walk_down(&walk, child_fd);
        } else {
            r = walk_up(&walk, visit, context);
        }
    }
    while (walk.depth)
        level_finish(&walk.levels[--walk.depth]);
    free(walk.levels);
    close_fd(walk.fd);
    return r;
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
        r = cgroup_walk_below(hierarchy->fd, visit_pids, &list);
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
            r = cgroup_walk_below(hierarchy->fd, visit_remove, NULL);
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
    int result = cgroup->unit ? cgroup_systemd_stop(cgroup, err) : 0;

    for (size_t i = 0; i < cgroup->count; i++) {
        int r = destroy_in(cgroup, &cgroup->hierarchies[i]);
        if (r < 0)
            result = error_errno(err, -r, "remove cgroup %s in %s", cgroup->path,
                                 cgroup->hierarchies[i].name);
    }
    return result;
}
