/*
 * No cgroup: for an ordinary user whom nobody has delegated one. The container's processes stay in
 * the cgroup of the caller, under the caller's limits.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include <runtime/runtime.h>
#include <schema/oci_config.h>

#include <base/alloc.h>
#include <base/file.h>
#include <base/text.h>

#include "cgroup.h"
#include "cgroup_resources.h"

/* The first kind of limit that is asked for; NULL: none. Device rules are none: whoever may not
 * make cgroups may not make devices either. */
static const char *first_limit(const struct oci_resources *resources)
{
    if (!resources)
        return NULL;
    const struct {
        const char *name;
        bool wanted;
    } limits[] = {
        {"cpu", resources->cpu},
        {"memory", resources->memory},
        {"pids", resources->pids},
        {"blkio", resources->block_io},
        {"hugetlb", resources->hugepage_limits_count},
        {"net_cls", resources->network},
        {"rdma", resources->rdma},
        {"unified", resources->unified && resources->unified->count},
    };

    for (size_t i = 0; i < ARRAY_SIZE(limits); i++) {
        if (limits[i].wanted)
            return limits[i].name;
    }
    return NULL;
}

static int none_create(struct cgroup *cgroup _unused_, struct error *err _unused_)
{
    return 0;
}

/* The texts are runc's. */
static int none_apply(struct cgroup *cgroup, const struct oci_resources *resources,
                      struct error *err)
{
    const char *limit = first_limit(resources);

    if (!limit)
        return 0;
    if (cgroup->ops->version == 2)
        return error_set(err, -EACCES,
                         "linux.resources (%s): rootless needs no limits + no cgrouppath when no "
                         "permission is granted for cgroups",
                         limit);
    return error_set(err, -EACCES,
                     "linux.resources: cannot set %s limit: container could not join or create "
                     "cgroup",
                     limit);
}

static int none_set_devices(struct cgroup *cgroup _unused_,
                            const struct device_rule *rules _unused_, size_t count _unused_,
                            bool live _unused_, struct error *err _unused_)
{
    return 0;
}

static int none_delegate(struct cgroup *cgroup _unused_, uid_t uid _unused_,
                         struct error *err _unused_)
{
    return 0;
}

static int none_prepare_join(struct cgroup *cgroup _unused_, struct cgroup_join *ret,
                             struct error *err _unused_)
{
    *ret = (struct cgroup_join){.clone_fd = -1};
    return 0;
}

static int none_freeze(struct cgroup *cgroup _unused_, bool frozen, struct error *err)
{
    return error_set(err, -ENOTSUP,
                     "the container has no cgroup, so it cannot be %s: its user was not allowed to "
                     "make one (linux.cgroupsPath in a delegated cgroup helps)",
                     frozen ? "paused" : "resumed");
}

static int none_is_frozen(struct cgroup *cgroup _unused_)
{
    return 0;
}

static int none_kill(struct cgroup *cgroup _unused_, struct error *err _unused_)
{
    return 0;
}

static struct cgroup_hierarchy *none_processes(struct cgroup *cgroup _unused_)
{
    return NULL;
}

#define NONE_OPS(number)                                                                           \
    {                                                                                              \
        .name = "none", .version = (number), .create = none_create, .apply = none_apply,           \
        .set_devices = none_set_devices, .delegate = none_delegate,                                \
        .prepare_join = none_prepare_join, .freeze = none_freeze, .is_frozen = none_is_frozen,     \
        .kill = none_kill, .processes = none_processes,                                            \
    }

/* By the version that the machine has. */
static const struct cgroup_ops none_v1_ops = NONE_OPS(1), none_v2_ops = NONE_OPS(2);

bool cgroup_is_none(const struct cgroup *cgroup)
{
    return cgroup->ops == &none_v1_ops || cgroup->ops == &none_v2_ops;
}

/* The caller's own cgroup of v2, without the leading slash; NULL when it is not known. */
static char *own_cgroup(void)
{
    _cleanup_free_ char *text = NULL;

    if (file_read_at(AT_FDCWD, "/proc/self/cgroup", CGROUP_FILE_MAX, &text, NULL, NULL) < 0)
        return NULL;
    for (char *rest = text, *line; (line = strsep(&rest, "\n"));) {
        if (text_starts_with(line, "0::/") && !strstr(line, "/.."))
            return xstrdup(line + strlen("0::/"));
    }
    return NULL;
}

/* Beside the caller's own: that one holds processes, so no controller could be handed down in it.
 * Moving there takes the right to write to cgroup.procs of the parent (cgroup-v2.rst, "Delegation
 * Containment"). */
static char *delegated_path(const char *id)
{
    _cleanup_free_ char *own = own_cgroup();
    char *slash = own ? strrchr(own, '/') : NULL;

    if (!slash)
        return NULL;
    *slash = '\0';
    _cleanup_free_ char *procs = xasprintf(CGROUP_MOUNT "/%s/cgroup.procs", own);
    return access(procs, W_OK) == 0 ? xasprintf("/%s/%s", own, id) : NULL;
}

static bool is_permission(int failure)
{
    return failure == -EACCES || failure == -EPERM || failure == -EROFS;
}

int cgroup_forgive_devices(int r, struct error *err)
{
    if (!is_permission(r) || !runtime_caller_is_limited())
        return r;
    error_finish(err);
    return 0;
}

/* Without cgroup file systems at all there is none either. */
static int make_none(struct cgroup *cgroup, const char *id, struct error *err)
{
    cgroup_finish(cgroup);
    error_finish(err);
    if (cgroup_init(cgroup, NULL, id, NULL) < 0)
        *cgroup = (struct cgroup){.path = xstrdup("")};
    cgroup->ops = cgroup->ops == &cgroup_v2_ops ? &none_v2_ops : &none_v1_ops;
    cgroup->path[0] = '\0';
    return 0;
}

static bool may_do_without(const char *path)
{
    return text_empty(path) && runtime_caller_is_limited();
}

int cgroup_choose(struct cgroup *cgroup, const char *path, const char *id, struct error *err)
{
    bool optional = may_do_without(path);
    _cleanup_free_ char *delegated = optional ? delegated_path(id) : NULL;
    int r = cgroup_init(cgroup, delegated ? delegated : path, id, err);

    return r == -ENOTSUP && optional ? make_none(cgroup, id, err) : r;
}

int cgroup_create_or_none(struct cgroup *cgroup, const char *path, const char *id,
                          struct error *err)
{
    int r = cgroup->ops->create(cgroup, err);

    if (r < 0 && may_do_without(path) && (is_permission(r) || r == -ENOENT)) {
        cgroup_destroy(cgroup, NULL);
        return make_none(cgroup, id, err);
    }
    return r;
}

int cgroup_choose_none(struct cgroup *cgroup, const char *id, struct error *err)
{
    *cgroup = (struct cgroup){0};
    return make_none(cgroup, id, err);
}

int cgroup_open_none(struct cgroup *cgroup)
{
    *cgroup = (struct cgroup){.ops = &none_v1_ops, .path = xstrdup("")};
    return 0;
}
