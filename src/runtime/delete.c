#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <unistd.h>

#include <base/alloc.h>
#include <base/file.h>
#include <base/text.h>

#include "delete.h"
#include "hooks.h"
#include "intel_rdt.h"
#include "kernel.h"
#include "rootfs.h"
#include "state.h"

enum { KILL_WAIT_MS = 10000 };

void delete_run_hooks(const struct oci_config *config, const struct runtime_state *state,
                      char ***warnings)
{
    _cleanup_buffer_ struct buffer text = BUFFER_INIT;
    _cleanup_error_ struct error err = ERROR_INIT;
    struct hook_output output;

    if (!config->hooks || !config->hooks->poststop_count)
        return;
    if (hook_output_open(&output, config->annotations, &err) < 0)
        strv_append(warnings, error_message(&err));
    state_for_hooks(state, "stopped", 0, &text);
    const struct hook_call call = {.kind = "poststop",
                                   .hooks = config->hooks->poststop,
                                   .count = config->hooks->poststop_count,
                                   .state = buffer_text(&text),
                                   .output = &output};
    hooks_run_all(&call, warnings);
    hook_output_finish(&output);
}

static int remove_outside(const char *id, struct cgroup *cgroup, const struct oci_config *config,
                          const struct runtime_state *state, struct error *err)
{
    int r = 0;

    /* Without a number of the first process (a creation that was killed) nobody else ends it; but
     * in a cgroup that was there before, the processes may be those of others. */
    if (cgroup && (!state || (state->pid ? !state->own_pid_namespace : cgroup_was_made(cgroup))))
        r = cgroup->ops->kill(cgroup, err);
    if (r == 0 && cgroup)
        r = cgroup_destroy(cgroup, err);
    if (r == 0 && config && config->linux && config->linux->intel_rdt)
        intel_rdt_remove(config->linux->intel_rdt, id, state && state->rdt_was_there);
    if (r == 0 && state && state->has_shared_root)
        rootfs_detach_shared(state->rootfs, state->shared_root);
    return r;
}

int delete_leftovers(const char *root, const char *id, struct cgroup *cgroup,
                     const struct oci_config *config, const struct runtime_state *state,
                     char ***warnings, struct error *err)
{
    int r = remove_outside(id, cgroup, config, state, err);

    if (r == 0)
        r = state_remove(root, id, err);
    if (r < 0)
        return r;
    if (config && state)
        delete_run_hooks(config, state, warnings);
    return 0;
}

int delete_unwatched(const char *root, struct container *container,
                     const struct runtime_state *state, struct error *err)
{
    int r = remove_outside(container->id, &container->cgroup, container->config, state, err);

    return r < 0 ? r : state_retire(root, container->id, container->state_fd, err);
}

static int kill_and_wait(const struct stored *stored, struct error *err)
{
    struct pollfd polled = {.fd = stored->pidfd, .events = POLLIN};
    struct cgroup cgroup;
    int n;

    if (stored->pidfd < 0)
        return 0;
    kernel_pidfd_send_signal(stored->pidfd, SIGKILL);
    /* A paused process dies when it is thawed. */
    if (stored->status == CLOCHE_RUNTIME_PAUSED && state_open_cgroup(stored, &cgroup, NULL) == 0) {
        cgroup.ops->freeze(&cgroup, false, NULL);
        cgroup_finish(&cgroup);
    }
    do
        n = poll(&polled, 1, KILL_WAIT_MS);
    while (n < 0 && errno == EINTR);
    return n > 0 ? 0
                 : error_set(err, -ETIMEDOUT, "container init still running after %d s",
                             KILL_WAIT_MS / 1000);
}

int delete_stored(const char *root, const char *id, struct stored *stored, bool force,
                  char ***warnings, struct error *err)
{
    _cleanup_oci_config_ struct oci_config *config = NULL;
    struct cgroup cgroup;

    /* A created one has not begun to do anything: runc deletes it without force too. */
    if (!force && stored->status != CLOCHE_RUNTIME_STOPPED &&
        stored->status != CLOCHE_RUNTIME_CREATED)
        return error_set(err, -EBUSY, "cannot delete container %s that is not stopped: %s", id,
                         cloche_runtime_status_name(stored->status));
    int r = kill_and_wait(stored, err);
    if (r < 0)
        return r;
    if (state_load_config(stored, &config, NULL) < 0)
        config = NULL; /* nothing but its hooks is needed of it */
    r = state_open_cgroup(stored, &cgroup, err);
    if (r < 0)
        return r;
    r = delete_leftovers(root, id, &cgroup, config, stored->state, warnings, err);
    cgroup_finish(&cgroup);
    return r;
}

int runtime_delete(const char *root, const char *id, bool force, char ***warnings,
                   struct error *err)
{
    struct stored stored;
    int r = state_load(&stored, root, id, err);

    if (r == 0) {
        r = delete_stored(root, id, &stored, force, warnings, err);
        state_finish(&stored);
        return r;
    }
    if (!force || state_check_id(id, NULL) < 0)
        return r;
    /* Half made, or with a state file that cannot be read: its folder goes. */
    if (r == -ENOENT || r == -EINVAL) {
        error_finish(err);
        r = state_remove(root, id, err);
        if (r == -ENOENT) {
            error_finish(err);
            return 0;
        }
    }
    return r;
}
