#include <errno.h>
#include <sched.h>

#include <runtime/runtime.h>

#include <base/file.h>
#include <base/socket.h>
#include <base/text.h>

#include "attributes.h"
#include "cgroup_systemd.h"
#include "container_cgroup.h"
#include "state.h"
#include "sync.h"

_Static_assert((int)CGROUP_HIERARCHIES_MAX <= (int)SOCKET_FDS_MAX,
               "one message carries what is needed to join");

int container_cgroup_init(struct container *container, struct error *err)
{
    struct cgroup *cgroup = &container->cgroup;
    const char *path = container->config->linux->cgroups_path;

    container->join.clone_fd = -1;
    if (container->no_cgroup)
        return cgroup_choose_none(cgroup, container->id, err);
    if (container->systemd_cgroup) { /* a scope has to wait for a process */
        container->cgroup_late = true;
        return cgroup_systemd_init(cgroup, path, container->id, err);
    }
    int r = cgroup_choose(cgroup, path, container->id, err);
    /* Through an intermediate process the cgroup is joined before the user namespace is, and
     * without privileges it is not certain that there will be one. */
    container->cgroup_late = r == 0 && cgroup->ops->version == 1 && !runtime_caller_is_limited() &&
                             !namespaces_need_intermediate(&container->namespaces);
    return r;
}

/* Said before it is done: what ends us here leaves nothing that delete --force does not know. */
static int record(struct container *container, struct error *err)
{
    if (container->cgroup_recorded)
        return 0;
    container->cgroup_recorded = true;
    if (!container->systemd_cgroup && !container->no_cgroup)
        cgroup_foresee(&container->cgroup);
    return state_write(container, 0, err);
}

int container_make_birthplace(struct container *container, struct error *err)
{
    struct cgroup_hierarchy *hierarchy = cgroup_v2_tree(&container->cgroup);

    if (!hierarchy || container->systemd_cgroup || container->no_cgroup)
        return 0;
    int r = record(container, err);
    if (r < 0)
        return r;
    r = cgroup_make_directories(&container->cgroup, hierarchy, NULL, NULL);
    /* Doing without it is no failure; the other hierarchies say whether the cgroup is in use. */
    container->join.clone_fd = r < 0 ? -1 : hierarchy->fd;
    return 0;
}

int container_make_cgroup(struct container *container, struct error *err)
{
    const struct oci_linux *config = container->config->linux;
    struct cgroup *cgroup = &container->cgroup;
    const char *warning = cgroup_left_out(cgroup, config->resources);
    int r = record(container, err);

    if (warning)
        strv_append(&container->warnings, warning);
    if (r == 0 && container->systemd_cgroup)
        return cgroup_systemd_start(cgroup, container->pid, container->config, err);
    if (r == 0)
        r = cgroup_create_or_none(cgroup, config->cgroups_path, container->id, err);
    /* The process would stop in it for good, and we with it. */
    if (r == 0 && cgroup->ops->is_frozen(cgroup) > 0)
        r = error_set(err, -EBUSY, "container's cgroup unexpectedly frozen (/%s)", cgroup->path);
    if (r == 0)
        r = cgroup_limit(cgroup, config->resources, err);
    if (r == 0)
        r = cgroup_delegate(cgroup, container->config, err);
    if (r == 0)
        r = cgroup->ops->prepare_join(cgroup, &container->join, err);
    return r;
}

int container_hand_over_cgroup(struct container *container, struct error *err)
{
    int r = sync_send_fds(container->sync_fd, SYNC_CGROUP, container->join.fds,
                          container->join.count, err);

    cgroup_join_finish(&container->join);
    return r;
}

int container_join_cgroup(struct container *container, struct error *err)
{
    int r = 0;

    if (container->cgroup_joined)
        return 0;
    if (container->cgroup_late) {
        container->join.count = CGROUP_HIERARCHIES_MAX;
        r = sync_expect_fds(container->sync_fd, SYNC_CGROUP, container->join.fds,
                            &container->join.count, err);
        if (r < 0) {
            container->join.count = 0;
            return r;
        }
    }
    r = cgroup_join_self(&container->join, container->in_cgroup);
    cgroup_join_finish(&container->join);
    if (r < 0)
        return error_errno(err, -r, "join the cgroup %s", container->cgroup.path);
    container->cgroup_joined = true;
    /* The CPUs that the cgroup has, whichever the caller was bound to. */
    attributes_set_affinity("CPU affinity", NULL, NULL);
    return namespaces_enter_cgroup(&container->namespaces, err);
}
