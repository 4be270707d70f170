#include "members.h"

#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <sys/stat.h>

#include <base/alloc.h>
#include <base/file.h>
#include <base/process.h>
#include <base/text.h>

#include "cgroup.h"

enum { PATH_SIZE = 64, STEP = 64, PARENT_FIELD = 4, /* proc_pid_stat(5) */ ANCESTORS_MAX = 1024 };

static bool pid_namespace_of(const char *process, struct stat *ret)
{
    char path[PATH_SIZE];

    snprintf(path, sizeof(path), "/proc/%.16s/ns/pid", process);
    return stat(path, ret) == 0;
}

static bool same(const struct stat *a, const struct stat *b)
{
    return a->st_dev == b->st_dev && a->st_ino == b->st_ino;
}

static bool descends_from(pid_t pid, pid_t ancestor)
{
    for (int i = 0; i < ANCESTORS_MAX && pid > 1; i++) {
        uint64_t parent;
        char state;

        if (pid == ancestor)
            return true;
        if (process_stat(pid, PARENT_FIELD, &state, &parent) < 0)
            return false;
        pid = (pid_t)parent;
    }
    return false;
}

static int list_from_proc(pid_t first, size_t most, int64_t **ret, size_t *ret_count,
                          struct error *err)
{
    _cleanup_closedir_ DIR *dir = opendir("/proc");
    char name[PATH_SIZE];
    struct stat own, wanted, other;
    size_t count = 0;
    int64_t *pids = NULL, pid;

    snprintf(name, sizeof(name), "%d", first);
    if (!dir || !pid_namespace_of(name, &wanted) || !pid_namespace_of("self", &own))
        return error_errno(err, errno, "look at process %d", first);
    const bool by_descent = same(&wanted, &own);
    for (struct dirent *entry; count < most && (entry = readdir(dir));) {
        if (text_to_i64(entry->d_name, 1, INT32_MAX, &pid) < 0 ||
            !(by_descent ? descends_from((pid_t)pid, first)
                         : pid_namespace_of(entry->d_name, &other) && same(&other, &wanted)))
            continue;
        if (count % STEP == 0)
            pids = xrealloc(pids, count + STEP, sizeof(*pids));
        pids[count++] = pid;
    }
    *ret = pids;
    *ret_count = count;
    return 0;
}

int members_list(const struct members *members, size_t most, int64_t **ret, size_t *ret_count,
                 struct error *err)
{
    return members->parent
               ? cgroup_processes(members->parent, members->id, most, ret, ret_count, err)
               : list_from_proc(members->first, most, ret, ret_count, err);
}
