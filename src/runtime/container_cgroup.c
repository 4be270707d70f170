#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <sys/stat.h>
#include <unistd.h>

#include <runtime/runtime.h>

#include <base/file.h>
#include <base/socket.h>
#include <base/text.h>

#include "annotations.h"
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

/* ---- cgroups below it, of crun's annotations */

static const char *below(const struct json_string_map *annotations, const char *name)
{
    const char *path = annotation_value(annotations, name);

    return text_empty(path) ? NULL : path;
}

static const char *subgroup_of(const struct container *container)
{
    return container->systemd_cgroup ? below(container->config->annotations, ANNOTATION_SUBGROUP)
                                     : NULL;
}

static const char *delegated_of(const struct container *container)
{
    return below(container->config->annotations, ANNOTATION_DELEGATE);
}

bool container_is_below_cgroup(const struct json_string_map *annotations)
{
    return below(annotations, ANNOTATION_SUBGROUP) || below(annotations, ANNOTATION_DELEGATE);
}

/* Each level of the path. Returns the last one. */
static int make_below(int parent_fd, const char *path, struct error *err)
{
    _cleanup_strv_ char **parts = strv_split(path, '/');
    _cleanup_close_ int fd = fcntl(parent_fd, F_DUPFD_CLOEXEC, 0);

    for (char **part = parts; fd >= 0 && *part; part++) {
        if (!**part)
            continue;
        if (mkdirat(fd, *part, 0755) < 0 && errno != EEXIST)
            return error_errno(err, errno, "make the cgroup %s", path);
        int next = openat(fd, *part, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
        int failure = errno;
        close_fd(steal_fd(&fd));
        fd = next;
        errno = failure;
    }
    return fd < 0 ? error_errno(err, errno, "open the cgroup %s", path) : steal_fd(&fd);
}

static int add_place(struct cgroup_join *join, int fd, struct error *err)
{
    int procs_fd = openat(fd, "cgroup.procs", O_WRONLY | O_CLOEXEC);

    if (procs_fd < 0)
        return error_errno(err, errno, "open cgroup.procs");
    join->fds[join->count++] = procs_fd;
    return 0;
}

/* The last place of all is the delegated one: see container_join_cgroup. */
static int prepare_below(struct container *container, struct error *err)
{
    struct cgroup *cgroup = &container->cgroup;
    const char *subgroup = subgroup_of(container), *delegated = delegated_of(container);
    int r = 0;

    if (!subgroup && !delegated)
        return 0;
    if (cgroup->ops->version != 2 || cgroup_is_none(cgroup))
        return error_set(err, -ENOTSUP, "annotations: %s: only cgroup v2 has safe cgroups below",
                         subgroup ? ANNOTATION_SUBGROUP : ANNOTATION_DELEGATE);
    _cleanup_close_ int fd = subgroup ? make_below(cgroup->hierarchies[0].fd, subgroup, err)
                                      : fcntl(cgroup->hierarchies[0].fd, F_DUPFD_CLOEXEC, 0);
    if (fd < 0)
        return fd;
    if (subgroup)
        r = add_place(&container->join, fd, err);
    if (r < 0 || !delegated)
        return r;
    _cleanup_close_ int delegated_fd = make_below(fd, delegated, err);
    if (delegated_fd < 0)
        return delegated_fd;
    struct cgroup part = {.ops = cgroup->ops, .count = 1};
    part.hierarchies[0] = cgroup->hierarchies[0];
    part.hierarchies[0].fd = delegated_fd;
    r = cgroup_delegate_to(&part, container->config, err);
    return r < 0 ? r : add_place(&container->join, delegated_fd, err);
}

/* In the child: from a namespace whose root is the place before. */
static int enter_delegated(int fd, struct error *err)
{
    if (fd < 0)
        return 0;
    ssize_t n = write(fd, "0", 1);
    int failure = errno;
    close(fd);
    return n < 0 ? error_errno(err, failure, "join the delegated cgroup") : 0;
}

/* ---- making it */

static int make_own(struct container *container, struct error *err)
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

int container_make_cgroup(struct container *container, struct error *err)
{
    int r = make_own(container, err);

    return r < 0 ? r : prepare_below(container, err);
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
    _cleanup_close_ int delegated_fd = -1;
    if (delegated_of(container) && container->join.count)
        delegated_fd = container->join.fds[--container->join.count];
    r = cgroup_join_self(&container->join, container->in_cgroup);
    cgroup_join_finish(&container->join);
    if (r < 0)
        return error_errno(err, -r, "join the cgroup %s", container->cgroup.path);
    container->cgroup_joined = true;
    /* The CPUs that the cgroup has, whichever the caller was bound to. */
    attributes_set_affinity("CPU affinity", NULL, NULL);
    r = namespaces_enter_cgroup(&container->namespaces, err);
    return r < 0 ? r : enter_delegated(steal_fd(&delegated_fd), err);
}
