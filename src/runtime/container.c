#include <sched.h>
#include <string.h>
#include <unistd.h>

#include <runtime/runtime.h>

#include <base/alloc.h>
#include <base/text.h>

#include "container.h"
#include "device_nodes.h"
#include "mounts.h"

void container_init(struct container *container, const char *id)
{
    *container = (struct container){
        .id = id,
        .state_fd = -1,
        .proc_fd = -1,
        .sync_fd = -1,
        .fifo_fd = -1,
        .console_fd = -1,
        .pidfd_socket = -1,
        .notify_fd = -1,
        .root_tree_fd = -1,
        .root_fd = -1,
        .map_fds = {-1, -1},
        .pidfd = -1,
        .unprivileged = geteuid() != 0,
        .hook_output = HOOK_OUTPUT_INIT,
    };
    memset(container->namespaces.fds, -1, sizeof(container->namespaces.fds));
}

void container_finish(struct container *container)
{
    mounts_finish(container);
    device_nodes_finish(container);
    preserved_finish(&container->preserved);
    namespaces_finish(&container->namespaces);
    cgroup_join_finish(&container->join);
    cgroup_finish(&container->cgroup);
    const int fds[] = {container->state_fd,  container->proc_fd,    container->sync_fd,
                       container->fifo_fd,   container->console_fd, container->root_tree_fd,
                       container->root_fd,   container->pidfd,      container->map_fds[0],
                       container->map_fds[1]};
    for (size_t i = 0; i < ARRAY_SIZE(fds); i++)
        close_fd(fds[i]);
    oci_config_free(container->config);
    free(container->config_text);
    free(container->bundle);
    free(container->rootfs);
    free(container->created);
    hook_output_finish(&container->hook_output);
    strv_free(container->warnings);
    container_init(container, NULL);
}

struct runtime_state container_describe(const struct container *container)
{
    return (struct runtime_state){
        .oci_version = (char *)(uintptr_t)RUNTIME_SPEC_VERSION,
        .id = (char *)(uintptr_t)container->id,
        .bundle = container->bundle,
        .rootfs = container->rootfs,
        .has_shared_root = container->shared_root,
        .shared_root = container->shared_root,
        .annotations = container->config->annotations,
        .pid = container->pid,
        .own_pid_namespace = container->namespaces.create & CLONE_NEWPID,
    };
}
