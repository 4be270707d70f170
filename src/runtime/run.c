#include <base/alloc.h>

#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include "create.h"
#include "delete.h"
#include "foreground.h"
#include "kernel.h"
#include "notify.h"
#include "start.h"
#include "state.h"
#include "terminal.h"

static int stay(struct container *container, int relay_fd, struct notify *notify,
                int *ret_exit_code, struct error *err)
{
    _cleanup_close_ int master_fd = -1;

    if (relay_fd >= 0) {
        int r = terminal_receive(relay_fd, &master_fd, err);
        if (r < 0)
            return r;
    }
    return foreground_wait(container->pid, master_fd, notify, ret_exit_code, &container->unexecuted,
                           err);
}

/* A poststart hook failed: the container is no more. */
static void stop(struct container *container, const char *root, const struct runtime_state *state)
{
    kernel_pidfd_send_signal(container->pidfd, SIGKILL);
    waitpid(container->pid, NULL, 0);
    delete_leftovers(root, container->id, &container->cgroup, container->config, state,
                     &container->warnings, NULL);
}

int runtime_run(const char *root, const struct cloche_runtime_create_options *options,
                char ***warnings, int *ret_exit_code, struct error *err)
{
    struct container container;
    int relay_fd = -1;

    container_init(&container, options->id);
    int r = create_container(&container, root, options, false, &relay_fd, err);
    struct notify notify = {
        .fd = container.notify_fd, .host = options->notify_socket, .pid = container.pid};
    if (r == 0) {
        const struct runtime_state state = container_describe(&container);
        *ret_exit_code = 0;
        r = start_run_hooks(container.config, &state, err);
        if (r < 0)
            stop(&container, root, &state);
        if (r == 0 && options->detach)
            r = notify_wait(&notify, container.pidfd, err);
        if (r == 0 && !options->detach) {
            r = stay(&container, relay_fd, &notify, ret_exit_code, err);
            if (r == 0)
                r = create_check_executed(&container, root, err);
            if (r == 0 && !options->keep && container.unwatched)
                r = delete_unwatched(root, &container, &state, err);
            else if (r == 0 && !options->keep)
                r = delete_leftovers(root, options->id, &container.cgroup, container.config, &state,
                                     &container.warnings, err);
        }
    }
    close_fd(relay_fd);
    *warnings = steal_ptr(container.warnings);
    container_finish(&container);
    return r;
}
