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

enum { SHARED_DEPTH_MAX = 16 }; /* of containers that share the network of one that does ... */

/* Whose files they are. */
static int find_shared(struct container *container, struct container **ret, struct error *err)
{
    int r = 0;

    *ret = container;
    for (int i = 0; r == 0 && i < SHARED_DEPTH_MAX && network_shared_with(*ret); i++)
        r = engine_find(container->engine, network_shared_with(*ret), ret, err);
    return r;
}

/* What it has bound over the file itself counts. */
static char *file_of(const struct container *container, const char *name)
{
    const struct api_container_spec *spec = container->effective;
    _cleanup_free_ char *target = xasprintf("/etc/%s", name);

    for (size_t i = 0; i < spec->mounts_count; i++) {
        if (text_equal(spec->mounts[i]->type, "bind") &&
            text_equal(spec->mounts[i]->target, target))
            return xstrdup(spec->mounts[i]->source);
    }
    return container_root_path(container, name);
}

static void set_text(char **field, const char *value)
{
    free(*field);
    *field = value ? xstrdup(value) : NULL;
}

int namespaces_share_files(struct container *container, char ***ret_files, struct error *err)
{
    struct api_container_spec *effective = container->effective;
    struct container *other;
    int r = find_shared(container, &other, err);

    if (r < 0 || other == container)
        return r;
    for (size_t i = 0; i < BUNDLE_FILES; i++)
        strv_take(ret_files, file_of(other, bundle_files[i]));
    if (text_equal(effective->uts_mode, "host"))
        return 0;
    set_text(&effective->hostname, other->effective->hostname);
    set_text(&effective->domainname, other->effective->domainname);
    return 0;
}

void namespaces_finish(struct namespaces *namespaces)
{
    free(namespaces->pid.path);
    free(namespaces->ipc.path);
    free(namespaces->uts.path);
    free(namespaces->cgroup.path);
    *namespaces = (struct namespaces){0};
}
