#include <errno.h>
#include <fcntl.h>
#include <unistd.h>

#include <base/alloc.h>

#include "delete.h"
#include "hooks.h"
#include "notify.h"
#include "start.h"
#include "state.h"

int start_run_hooks(const struct oci_config *config, const struct runtime_state *state,
                    struct error *err)
{
    _cleanup_buffer_ struct buffer text = BUFFER_INIT;
    struct hook_output output;

    if (!config->hooks || !config->hooks->poststart_count)
        return 0;
    int r = hook_output_open(&output, config->annotations, err);
    if (r < 0)
        return r;
    state_for_hooks(state, "running", state->pid, &text);
    const struct hook_call call = {.kind = "poststart",
                                   .hooks = config->hooks->poststart,
                                   .count = config->hooks->poststart_count,
                                   .state = buffer_text(&text),
                                   .output = &output};
    r = hooks_run(&call, err);
    hook_output_finish(&output);
    return r;
}

static int refuse(const struct stored *stored, struct error *err)
{
    if (stored->status == CLOCHE_RUNTIME_STOPPED)
        return error_set(err, -EINVAL, "cannot start a container that has stopped");
    if (stored->status == CLOCHE_RUNTIME_RUNNING)
        return error_set(err, -EINVAL, "cannot start an already running container");
    return error_set(err, -EINVAL, "cannot start a container in the %s state",
                     cloche_runtime_status_name(stored->status));
}

/* Who removes the pipe's name is the one who starts. The child holds both ends, so that this open
 * fails only when it is gone. */
static int release(const struct stored *stored, struct error *err)
{
    _cleanup_close_ int fd = openat(stored->fd, STATE_FIFO, O_WRONLY | O_NONBLOCK | O_CLOEXEC);

    if (fd < 0)
        return error_errno(err, errno, "open " STATE_FIFO ": the container's process is gone");
    if (unlinkat(stored->fd, STATE_FIFO, 0) < 0)
        return error_set(err, -EINVAL, "cannot start an already running container");
    if (write(fd, "0", 1) != 1)
        return error_errno(err, errno, "write to " STATE_FIFO);
    return 0;
}

int runtime_start(const char *root, const char *id, const char *notify_socket, char ***warnings,
                  struct error *err)
{
    struct stored stored;
    struct oci_config *config = NULL;
    struct notify notify = NOTIFY_INIT;
    int r = state_load(&stored, root, id, err);

    if (r < 0)
        return r;
    r = stored.status == CLOCHE_RUNTIME_CREATED ? 0 : refuse(&stored, err);
    if (r == 0)
        r = state_load_config(&stored, &config, err);
    if (r == 0)
        r = notify_listen(&notify, stored.fd, notify_socket, err);
    if (r == 0)
        r = release(&stored, err);
    if (r == 0) {
        r = start_run_hooks(config, stored.state, err);
        if (r < 0)
            delete_stored(root, id, &stored, true, warnings, NULL);
    }
    notify.pid = stored.state->pid;
    if (r == 0)
        r = notify_wait(&notify, stored.pidfd, err);
    notify_finish(&notify);
    oci_config_free(config);
    state_finish(&stored);
    return r;
}
