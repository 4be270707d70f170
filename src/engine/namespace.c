#include "namespace.h"

#include <errno.h>
#include <stdlib.h>

#include <base/alloc.h>
#include <base/text.h>

static void choose_own(struct namespace_choice *choice)
{
    choice->place = (struct bundle_namespace){BUNDLE_OWN, NULL};
}

/* That of another container's first process. */
static int join(const struct container *container, const char *mode, const char *kind,
                struct namespace_choice *choice, struct error *err)
{
    const char *name = mode + sizeof("container:") - 1;
    struct container *other;

    int r = engine_find(container->engine, name, &other, err);
    if (r < 0)
        return r;
    if (other->state != CONTAINER_RUNNING || other->record->pid <= 0)
        return error_set(err, -EBUSY, "cannot join %s namespace of a non running container: %s",
                         kind, other->id);
    choice->path = xasprintf("/proc/%lld/ns/%s", (long long)other->record->pid, kind);
    choice->place = (struct bundle_namespace){BUNDLE_JOINED, choice->path};
    return 0;
}

static int choose(const struct container *container, const char *mode, const char *kind,
                  struct namespace_choice *choice, struct error *err)
{
    choose_own(choice);
    if (text_equal(mode, "host"))
        choice->place.kind = BUNDLE_HOST;
    else if (mode && text_starts_with(mode, "container:"))
        return join(container, mode, kind, choice, err);
    return 0;
}

int namespaces_find(const struct container *container, struct namespaces *ret, struct error *err)
{
    const struct api_container_spec *spec = container->effective;
    const char *cgroup = spec->cgroupns_mode;
    int r;

    /* docker's default differs by the version of cgroups. */
    if (text_empty(cgroup))
        cgroup = container->engine->cgroup_v2 ? "private" : "host";
    r = choose(container, spec->pid_mode, "pid", &ret->pid, err);
    if (r == 0)
        r = choose(container, spec->ipc_mode, "ipc", &ret->ipc, err);
    if (r == 0)
        r = choose(container, spec->uts_mode, "uts", &ret->uts, err);
    if (r == 0)
        r = choose(container, cgroup, "cgroup", &ret->cgroup, err);
    return r;
}

void namespaces_finish(struct namespaces *namespaces)
{
    free(namespaces->pid.path);
    free(namespaces->ipc.path);
    free(namespaces->uts.path);
    free(namespaces->cgroup.path);
    *namespaces = (struct namespaces){0};
}
