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
#include <base/clock.h>
#include <base/file.h>
#include <base/text.h>

#include "cgroup.h"

#define CGROUP_ROOT "/sys/fs/cgroup"

enum {
    PROCS_MAX = 4 * 1024 * 1024, /* bytes of a cgroup.procs */
    STATE_MAX = 4096,
    WAIT_STEP_MS = 5,
    FREEZE_MS = 10000,
    REFREEZE_STEPS = 20, /* steps after which those that stand are let go on for a moment */
    KILL_STEPS = 1000,   /* 5 s */
    DEPTH_MAX = 256,     /* nesting of cgroups that a container made */
};

bool cgroup_is_v2(void)
{
    struct statfs status;

    return statfs(CGROUP_ROOT, &status) == 0 && status.f_type == CGROUP2_SUPER_MAGIC;
}

char *cgroup_memory_path(const char *parent, const char *id)
{
    return xasprintf("%s/%s/%s", cgroup_is_v2() ? CGROUP_ROOT : CGROUP_ROOT "/memory", parent, id);
}

char *cgroup_path(const char *hierarchy, const char *parent, const char *id)
{
    if (cgroup_is_v2())
        return xasprintf("%s/%s/%s", CGROUP_ROOT, parent, id);
    return xasprintf("%s/%s/%s/%s", CGROUP_ROOT, hierarchy, parent, id);
}

static void wait_step(void)
{
    struct timespec step = {.tv_nsec = WAIT_STEP_MS * 1000000L};

    nanosleep(&step, NULL);
}

static char *read_small(const char *directory, const char *name, size_t limit)
{
    _cleanup_free_ char *path = xasprintf("%s/%s", directory, name);
    char *text = NULL;

    if (file_read_at(AT_FDCWD, path, limit, &text, NULL, NULL) < 0)
        return NULL;
    return text;
}

static int write_small(const char *directory, const char *name, const char *text, struct error *err)
{
    _cleanup_free_ char *path = xasprintf("%s/%s", directory, name);

    return file_write_existing_at(AT_FDCWD, path, text, strlen(text), err);
}

/* --- freezing --------------------------------------------------------------------------------- */

struct freezer {
    const char *control; /* file that is written */
    const char *frozen;  /* what is written */
    const char *thawed;
    const char *state;     /* file that is read */
    const char *is_frozen; /* text in it when all stand still */
    const char *is_thawed;
};

static const struct freezer freezer_v1 = {
    "freezer.state", "FROZEN", "THAWED", "freezer.state", "FROZEN", "THAWED",
};
static const struct freezer freezer_v2 = {
    "cgroup.freeze", "1", "0", "cgroup.events", "frozen 1", "frozen 0",
};

char *cgroup_freezer_file(const char *parent, const char *id)
{
    bool v2 = cgroup_is_v2();
    const struct freezer *freezer = v2 ? &freezer_v2 : &freezer_v1;

    return xasprintf("%s/%s/%s/%s", v2 ? CGROUP_ROOT : CGROUP_ROOT "/freezer", parent, id,
                     freezer->state);
}

/* Of v1 only: a process that forked meanwhile leaves it at FREEZING, and so does one that waits,
 * uninterruptibly, for one that stands (freezer-subsystem.rst). */
static void freeze_again(const char *path, int step)
{
    if (step % REFREEZE_STEPS == 0)
        write_small(path, freezer_v1.control, freezer_v1.thawed, NULL);
    write_small(path, freezer_v1.control, freezer_v1.frozen, NULL);
}

int cgroup_freeze(const char *parent, const char *id, bool freeze, struct error *err)
{
    bool v2 = cgroup_is_v2();
    const struct freezer *freezer = v2 ? &freezer_v2 : &freezer_v1;

    if (!parent)
        return error_set(err, -ENOENT, "there is no cgroup");
    _cleanup_free_ char *path =
        xasprintf("%s/%s/%s", v2 ? CGROUP_ROOT : CGROUP_ROOT "/freezer", parent, id);
    int r = write_small(path, freezer->control, freeze ? freezer->frozen : freezer->thawed, err);
    if (r == -ENODEV) /* removed after it was opened */
        r = error_set(err, -ENOENT, "cgroup %s is gone", path);
    if (r < 0)
        return r;
    int64_t end = clock_milliseconds() + FREEZE_MS;
    for (int i = 1; clock_milliseconds() < end; i++) {
        _cleanup_free_ char *state = read_small(path, freezer->state, STATE_MAX);
        if (state && strstr(state, freeze ? freezer->is_frozen : freezer->is_thawed))
            return 0;
        /* Its processes have ended, and who waited for that has removed it. */
        if (!state && access(path, F_OK) < 0)
            return error_set(err, -ENOENT, "cgroup %s is gone", path);
        wait_step();
        if (freeze && !v2)
            freeze_again(path, i);
    }
    write_small(path, freezer->control, freezer->thawed, NULL);
    return error_set(err, -EBUSY, "the container's processes do not %s within %d s",
                     freeze ? "freeze" : "thaw", FREEZE_MS / 1000);
}

/* --- killing and removing --------------------------------------------------------------------- */

/* Sends SIGKILL to all in the folder's cgroup.procs. Returns how many there were. */
static size_t kill_listed(const char *path)
{
    _cleanup_free_ char *text = read_small(path, "cgroup.procs", PROCS_MAX);
    size_t count = 0;
    char *rest = text;

    for (char *line; rest && (line = strsep(&rest, "\n"));) {
        int64_t pid;
        if (text_to_i64(line, 2, INT32_MAX, &pid) < 0)
            continue;
        kill((pid_t)pid, SIGKILL);
        count++;
    }
    return count;
}

/* --- processes -------------------------------------------------------------------------------- */

struct pid_list {
    int64_t *pids;
    size_t count, most;
};

static void add_listed(const char *path, int depth, struct pid_list *list)
{
    _cleanup_free_ char *text = read_small(path, "cgroup.procs", PROCS_MAX);
    _cleanup_closedir_ DIR *dir = opendir(path);
    char *rest = text;
    struct dirent *entry;

    for (char *line; rest && list->count < list->most && (line = strsep(&rest, "\n"));) {
        if (list->count % 64 == 0)
            list->pids = xrealloc(list->pids, list->count + 64, sizeof(*list->pids));
        if (text_to_i64(line, 1, INT32_MAX, &list->pids[list->count]) == 0)
            list->count++;
    }
    while (dir && depth < DEPTH_MAX && (entry = readdir(dir))) {
        if (entry->d_type != DT_DIR || entry->d_name[0] == '.')
            continue;
        _cleanup_free_ char *below = xasprintf("%s/%s", path, entry->d_name);
        add_listed(below, depth + 1, list);
    }
}

int cgroup_processes(const char *parent, const char *id, size_t most, int64_t **ret,
                     size_t *ret_count, struct error *err)
{
    _cleanup_free_ char *path = cgroup_path("freezer", parent, id);
    struct pid_list list = {.most = most};

    if (access(path, F_OK) < 0)
        return error_errno(err, errno, "open %s", path);
    add_listed(path, 0, &list);
    *ret = list.pids;
    *ret_count = list.count;
    return 0;
}

/* Calls visit for the folder and, before it, everything below. */
static size_t walk(const char *path, int depth, size_t (*visit)(const char *))
{
    _cleanup_closedir_ DIR *dir = opendir(path);
    struct dirent *entry;
    size_t count = 0;

    if (!dir)
        return 0;
    while (depth < DEPTH_MAX && (entry = readdir(dir))) {
        if (entry->d_type != DT_DIR || entry->d_name[0] == '.')
            continue;
        _cleanup_free_ char *below = xasprintf("%s/%s", path, entry->d_name);
        count += walk(below, depth + 1, visit);
    }
    return count + visit(path);
}

static size_t remove_folder(const char *path)
{
    return rmdir(path) < 0 && errno != ENOENT ? 1 : 0;
}

/* The folder /PARENT/ID of each hierarchy. Returns the sum of what visit returned. */
static size_t each_hierarchy(const char *parent, const char *id, size_t (*visit)(const char *))
{
    _cleanup_closedir_ DIR *dir = opendir(CGROUP_ROOT);
    const char *slash = id ? "/" : "";
    struct dirent *entry;
    size_t count = 0;

    if (!parent)
        return 0;
    id = id ? id : "";
    if (cgroup_is_v2()) {
        _cleanup_free_ char *path = xasprintf(CGROUP_ROOT "/%s%s%s", parent, slash, id);
        return walk(path, 0, visit);
    }
    while (dir && (entry = readdir(dir))) {
        if (entry->d_type != DT_DIR || entry->d_name[0] == '.')
            continue;
        _cleanup_free_ char *path =
            xasprintf(CGROUP_ROOT "/%s/%s%s%s", entry->d_name, parent, slash, id);
        count += walk(path, 0, visit);
    }
    return count;
}

int cgroup_check_empty(const char *parent, const char *id, struct error *err)
{
    if (!parent)
        return 0;
    _cleanup_free_ char *path = cgroup_path("freezer", parent, id);
    if (access(path, F_OK) < 0 || !each_hierarchy(parent, id, kill_listed))
        return 0;
    error_set(err, -EBUSY, "processes of an earlier run of container %.12s are still there", id);
    return error_hint(err, "they were killed once more; try again");
}

int cgroup_kill_and_remove(const char *parent, const char *id, struct error *err)
{
    bool v2 = cgroup_is_v2();
    const struct freezer *freezer = v2 ? &freezer_v2 : &freezer_v1;

    if (!parent)
        return 0;
    _cleanup_free_ char *path =
        xasprintf("%s/%s/%s", v2 ? CGROUP_ROOT : CGROUP_ROOT "/freezer", parent, id);
    size_t alive = 0;

    for (int i = 0; i < KILL_STEPS; i++) {
        alive = each_hierarchy(parent, id, kill_listed);
        if (!alive)
            break;
        /* On v1 a frozen process does not die. */
        write_small(path, freezer->control, freezer->thawed, NULL);
        wait_step();
    }
    if (alive)
        return error_set(err, -EBUSY, "processes of container %.12s do not die", id);
    if (each_hierarchy(parent, id, remove_folder))
        return error_set(err, -EBUSY, "cgroups of container %.12s cannot be removed", id);
    return 0;
}

static size_t make_parent(const char *path)
{
    _cleanup_free_ char *copy = xstrdup(path);
    struct statfs status;

    *strrchr(copy, '/') = '\0';
    /* Whatever else is mounted there is none of ours. */
    if (statfs(copy, &status) < 0 ||
        (status.f_type != CGROUP_SUPER_MAGIC && status.f_type != CGROUP2_SUPER_MAGIC))
        return 0;
    return mkdir(path, 0755) < 0;
}

static size_t drop_parent(const char *path)
{
    return rmdir(path) < 0;
}

static void each_parent(const char *parent, size_t (*visit)(const char *))
{
    _cleanup_closedir_ DIR *dir = cgroup_is_v2() ? NULL : opendir(CGROUP_ROOT);
    struct dirent *entry;

    if (!parent)
        return;
    if (!dir) {
        _cleanup_free_ char *path = xasprintf(CGROUP_ROOT "/%s", parent);
        visit(path);
    }
    while (dir && (entry = readdir(dir))) {
        if (entry->d_type != DT_DIR || entry->d_name[0] == '.')
            continue;
        _cleanup_free_ char *path = xasprintf(CGROUP_ROOT "/%s/%s", entry->d_name, parent);
        visit(path);
    }
}

void cgroup_keep_parent(const char *parent)
{
    each_parent(parent, make_parent);
}

void cgroup_drop_parent(const char *parent)
{
    each_parent(parent, drop_parent);
}

int cgroup_remove_parent(const char *parent, struct error *err)
{
    if (each_hierarchy(parent, NULL, remove_folder))
        return error_set(err, -EBUSY, "cgroups named %s cannot be removed", parent);
    return 0;
}

/* --- processes of the engine's own ------------------------------------------------------------ */

/* With v2 there is one folder, that of the first. */
static const char *const small_hierarchies[CGROUP_SMALL_FILES] = {"memory", "pids", "cpu"};

enum { CPU_PERIOD_US = 100 * 1000 };

static void let_parents_limit(const char *parent)
{
    static const char *const controllers[] = {"+memory", "+pids", "+cpu"};
    _cleanup_free_ char *above = xasprintf("%s/%s", CGROUP_ROOT, parent);

    for (size_t i = 0; i < ARRAY_SIZE(controllers); i++) {
        (void)write_small(CGROUP_ROOT, "cgroup.subtree_control", controllers[i], NULL);
        (void)write_small(above, "cgroup.subtree_control", controllers[i], NULL);
    }
}

static int make_small_folder(const char *path, struct error *err)
{
    return mkdir(path, 0755) < 0 && errno != EEXIST
               ? error_errno(err, errno, "make the cgroup %s", path)
               : 0;
}

static void limit_tasks(const char *path, const struct cgroup_small *limits)
{
    _cleanup_free_ char *tasks = xasprintf("%u", limits->tasks);

    (void)write_small(path, "pids.max", tasks, NULL);
}

static void limit_processors(const char *path, const struct cgroup_small *limits, bool v2)
{
    unsigned quota = limits->processors * CPU_PERIOD_US;
    _cleanup_free_ char *text =
        v2 ? xasprintf("%u %u", quota, CPU_PERIOD_US) : xasprintf("%u", quota);

    if (limits->processors)
        (void)write_small(path, v2 ? "cpu.max" : "cpu.cfs_quota_us", text, NULL);
}

int cgroup_make_small(const char *parent, const char *name, const struct cgroup_small *limits,
                      struct error *err)
{
    bool v2 = cgroup_is_v2();
    _cleanup_free_ char *memory = xasprintf("%llu", (unsigned long long)limits->memory);

    if (!parent)
        return 0;
    _cleanup_free_ char *path = cgroup_path("memory", parent, name);
    _cleanup_free_ char *tasks = cgroup_path("pids", parent, name);
    _cleanup_free_ char *processors = cgroup_path("cpu", parent, name);
    cgroup_keep_parent(parent);
    if (v2)
        let_parents_limit(parent);
    int r = make_small_folder(path, err);
    if (r == 0)
        r = write_small(path, v2 ? "memory.max" : "memory.limit_in_bytes", memory, err);
    if (r == 0 && make_small_folder(tasks, NULL) == 0)
        limit_tasks(tasks, limits);
    if (r == 0 && limits->processors && make_small_folder(processors, NULL) == 0)
        limit_processors(processors, limits, v2);
    return r;
}

int cgroup_open_small(const char *parent, const char *name, int ret_fds[CGROUP_SMALL_FILES])
{
    bool v2 = cgroup_is_v2();
    int count = 0;

    for (int i = 0; parent && i < (v2 ? 1 : CGROUP_SMALL_FILES); i++) {
        _cleanup_free_ char *folder = cgroup_path(small_hierarchies[i], parent, name);
        _cleanup_free_ char *path = xasprintf("%s/%s", folder, v2 ? "cgroup.procs" : "tasks");
        int fd = open(path, O_WRONLY | O_CLOEXEC);
        if (fd >= 0)
            ret_fds[count++] = fd;
    }
    return count;
}

bool cgroup_drop_small(const char *parent, const char *name)
{
    bool v2 = cgroup_is_v2(), all = true;

    for (int i = 0; parent && i < (v2 ? 1 : CGROUP_SMALL_FILES); i++) {
        _cleanup_free_ char *path = cgroup_path(small_hierarchies[i], parent, name);
        all &= rmdir(path) == 0 || errno == ENOENT || errno == ENOTDIR;
    }
    return all;
}

void cgroup_sweep_small(const char *parent, const char *prefix)
{
    for (int i = 0; parent && i < (cgroup_is_v2() ? 1 : CGROUP_SMALL_FILES); i++) {
        _cleanup_free_ char *path = cgroup_path(small_hierarchies[i], parent, ".");
        _cleanup_closedir_ DIR *dir = opendir(path);
        for (struct dirent *entry; dir && (entry = readdir(dir));)
            if (text_starts_with(entry->d_name, prefix))
                (void)unlinkat(dirfd(dir), entry->d_name, AT_REMOVEDIR);
    }
}
