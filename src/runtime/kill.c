#include <errno.h>
#include <signal.h>

#include <runtime/runtime.h>

#include "cgroup.h"
#include "kernel.h"
#include "members.h"
#include "state.h"

/* What is stopped by the freezer of v1 does not die before it goes on. */
static void thaw(const struct stored *stored)
{
    struct cgroup cgroup;

    if (state_open_cgroup(stored, &cgroup, NULL) < 0)
        return;
    cgroup.ops->freeze(&cgroup, false, NULL);
    cgroup_finish(&cgroup);
}

static int kill_first(const struct stored *stored, int signal, struct error *err)
{
    if (stored->pidfd < 0)
        return error_set(err, -ESRCH, "container not running");
    int r = kernel_pidfd_send_signal(stored->pidfd, signal);
    if (r == -ESRCH)
        return error_set(err, r, "container not running");
    if (r == 0 && signal == SIGKILL && stored->status == CLOCHE_RUNTIME_PAUSED)
        thaw(stored);
    return r < 0 ? error_errno(err, -r, "signal the container's process") : 0;
}

int runtime_kill(const char *root, const char *id, int signal, bool all, struct error *err)
{
    struct stored stored;
    int r = state_load(&stored, root, id, err);

    if (r < 0)
        return r;
    /* Without a pid namespace of its own its other processes outlive the first one. */
    if (all || (signal == SIGKILL && !stored.state->own_pid_namespace))
        r = members_signal(&stored, signal, err);
    else
        r = kill_first(&stored, signal, err);
    state_finish(&stored);
    return r;
}

static int set_frozen(const char *root, const char *id, bool frozen, struct error *err)
{
    struct stored stored;
    struct cgroup cgroup;
    int r = state_load(&stored, root, id, err);

    if (r < 0)
        return r;
    if (frozen ? stored.status != CLOCHE_RUNTIME_RUNNING && stored.status != CLOCHE_RUNTIME_CREATED
               : stored.status != CLOCHE_RUNTIME_PAUSED) {
        state_finish(&stored);
        return frozen ? error_set(err, -EINVAL, "container not running")
                      : error_set(err, -EINVAL, "container not paused");
    }
    r = state_open_cgroup(&stored, &cgroup, err);
    if (r == 0) {
        r = cgroup.ops->freeze(&cgroup, frozen, err);
        cgroup_finish(&cgroup);
    }
    state_finish(&stored);
    return r;
}

int runtime_pause(const char *root, const char *id, struct error *err)
{
    return set_frozen(root, id, true, err);
}

int runtime_resume(const char *root, const char *id, struct error *err)
{
    return set_frozen(root, id, false, err);
}

int runtime_processes(const char *root, const char *id, pid_t **ret, size_t *ret_count,
                      struct error *err)
{
    struct stored stored;
    int r = state_load(&stored, root, id, err);

    if (r < 0)
        return r;
    r = members_list(&stored, ret, ret_count, err);
    state_finish(&stored);
    return r;
}
