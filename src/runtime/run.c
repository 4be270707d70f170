#include <base/alloc.h>

#include <sched.h>
#include <unistd.h>

#include "create.h"
#include "delete.h"
#include "foreground.h"
#include "start.h"
#include "state.h"
#include "terminal.h"

static struct runtime_state describe(const struct container *container)
{
    return (struct runtime_state){
        .oci_version = container->config->oci_version,
        .id = (char *)(uintptr_t)container->id,
        .bundle = container->bundle,
        .annotations = container->config->annotations,
        .own_pid_namespace = container->namespaces.create & CLONE_NEWPID,
    };
}

static int stay(struct container *container, int relay_fd, int *ret_exit_code, struct error *err)
{
    _cleanup_close_ int master_fd = -1;

    if (relay_fd >= 0) {
        int r = terminal_receive(relay_fd, &master_fd, err);
        if (r < 0)
            return r;
    }
    return foreground_wait(container->pid, master_fd, ret_exit_code, err);
}

int runtime_run(const char *root, const struct cloche_runtime_create_options *options,
                char ***warnings, int *ret_exit_code, struct error *err)
{
    struct container container;
    int relay_fd = -1;

    container_init(&container, options->id);
    int r = create_container(&container, root, options, false, &relay_fd, err);
    if (r == 0) {
        struct runtime_state state = describe(&container);
        *ret_exit_code = 0;
        start_run_hooks(container.config, &state, container.pid, &container.warnings);
        if (!options->detach) {
            r = stay(&container, relay_fd, ret_exit_code, err);
            if (r == 0 && !options->keep)
                r = delete_leftovers(root, options->id, &container.cgroup, container.config, &state,
                                     &container.warnings, err);
        }
    }
    close_fd(relay_fd);
    *warnings = steal_ptr(container.warnings);
    container_finish(&container);
    return r;
}
