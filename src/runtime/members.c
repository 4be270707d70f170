#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/nsfs.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <base/alloc.h>
#include <base/file.h>

#include "members.h"

enum { NAMESPACE_DEPTH_MAX = 32 }; /* MAX_PID_NS_LEVEL of the kernel */

struct pid_list {
    pid_t *pids;
    size_t count;
};

static void append(struct pid_list *list, pid_t pid)
{
    list->pids = xrealloc(list->pids, list->count + 1, sizeof(pid_t));
    list->pids[list->count++] = pid;
}

/* Whether a process is in the pid namespace, or in one below it. */
static bool is_inside(int proc_fd, pid_t pid, const struct stat *wanted)
{
    char path[48];
    struct stat status;

    snprintf(path, sizeof(path), "%d/ns/pid", pid);
    int fd = openat(proc_fd, path, O_RDONLY | O_CLOEXEC);
    for (int depth = 0; fd >= 0 && depth < NAMESPACE_DEPTH_MAX; depth++) {
        if (fstat(fd, &status) == 0 && status.st_ino == wanted->st_ino &&
            status.st_dev == wanted->st_dev) {
            close(fd);
            return true;
        }
        int parent_fd = ioctl(fd, NS_GET_PARENT); /* EPERM above our own */
        close(fd);
        fd = parent_fd;
    }
    close_fd(fd);
    return false;
}

static int list_namespace(pid_t init, struct pid_list *list, struct error *err)
{
    char own[48];
    struct stat wanted;
    _cleanup_closedir_ DIR *directory = opendir("/proc");

    snprintf(own, sizeof(own), "%d/ns/pid", init);
    if (!directory || fstatat(dirfd(directory), own, &wanted, 0) < 0)
        return error_errno(err, errno, "look at the container's pid namespace");
    for (struct dirent *entry; (entry = readdir(directory));) {
        pid_t pid = (pid_t)strtol(entry->d_name, NULL, 10); /* 0: not a process */
        if (pid > 0 && is_inside(dirfd(directory), pid, &wanted))
            append(list, pid);
    }
    return 0;
}

static int list_without_cgroup(const struct stored *stored, pid_t **ret, size_t *ret_count,
                               struct error *err)
{
    struct pid_list list = {0};
    int r = 0;

    if (stored->pidfd >= 0) {
        if (stored->state->own_pid_namespace)
            r = list_namespace(stored->state->pid, &list, err);
        else
            append(&list, stored->state->pid);
    }
    if (r < 0)
        return r;
    *ret = list.pids;
    *ret_count = list.count;
    return 0;
}

int members_list(const struct stored *stored, pid_t **ret, size_t *ret_count, struct error *err)
{
    struct cgroup cgroup;
    int r = state_open_cgroup(stored, &cgroup, err);

    if (r < 0)
        return r;
    r = cgroup_is_none(&cgroup) ? list_without_cgroup(stored, ret, ret_count, err)
                                : cgroup_processes(&cgroup, ret, ret_count, err);
    cgroup_finish(&cgroup);
    return r;
}

static int signal_listed(const struct stored *stored, int signal, struct error *err)
{
    _cleanup_free_ pid_t *pids = NULL;
    size_t count = 0;
    int r = list_without_cgroup(stored, &pids, &count, err);

    for (size_t i = 0; r == 0 && i < count; i++)
        kill(pids[i], signal);
    return r;
}

int members_signal(const struct stored *stored, int signal, struct error *err)
{
    struct cgroup cgroup;
    int r = state_open_cgroup(stored, &cgroup, err);

    if (r < 0)
        return r;
    if (cgroup_is_none(&cgroup))
        r = signal_listed(stored, signal, err);
    else
        r = signal == SIGKILL ? cgroup.ops->kill(&cgroup, err)
                              : cgroup_signal_all(&cgroup, signal, err);
    cgroup_finish(&cgroup);
    return r;
}
