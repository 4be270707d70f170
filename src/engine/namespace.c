#include "namespace.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include <base/alloc.h>
#include <base/text.h>

#include "userns.h"

static const char *other_of(const char *mode)
{
    return mode && text_starts_with(mode, "container:") ? mode + strlen("container:") : NULL;
}

int namespaces_check(struct engine *engine, const struct api_container_spec *spec,
                     struct error *err)
{
    const char *const others[] = {other_of(spec->pid_mode), other_of(spec->ipc_mode)};
    struct container *other;

    for (size_t i = 0; i < ARRAY_SIZE(others); i++) {
        if (others[i] && engine_find(engine, others[i], &other, NULL) < 0)
            return error_set(err, -EINVAL, "No such container: %.128s", others[i]);
    }
    return 0;
}

/* Where the monitor puts what it has found. */
static void choose_found(const struct container *container, const char *name,
                         struct namespace_choice *choice)
{
    choice->path = container_run_path(container, name);
    choice->place = (struct bundle_namespace){BUNDLE_JOINED, choice->path};
}

static int find_other(const struct container *container, const char *name, const char *what,
                      struct container **ret, struct error *err)
{
    int r = engine_find(container->engine, name, ret, err);

    if (r < 0)
        return r;
    if ((*ret)->state != CONTAINER_RUNNING || (*ret)->record->pid <= 0)
        return error_set(err, -EBUSY, "cannot join %s of a non running container: %s", what,
                         (*ret)->id);
    return 0;
}

static void choose(const char *mode, struct namespace_choice *choice)
{
    enum bundle_namespace_kind kind = text_equal(mode, "host") ? BUNDLE_HOST : BUNDLE_OWN;

    choice->place = (struct bundle_namespace){kind, NULL};
}

static int choose_pid(const struct container *container, struct namespaces *ret, struct error *err)
{
    const char *name = other_of(container->effective->pid_mode);
    struct container *other;

    choose(container->effective->pid_mode, &ret->pid);
    if (!name)
        return 0;
    int r = find_other(container, name, "pid namespace", &other, err);
    if (r < 0)
        return r;
    ret->joined[MONITOR_JOINED_PID] = container_run_path(other, NULL);
    choose_found(container, "pidns", &ret->pid);
    return 0;
}

enum { SHARED_DEPTH_MAX = 16 }; /* of containers that share what one shares that does ... */

/* The mode of the one whose IPC it is in the end. Those in between may be gone: "shareable" then,
 * and the monitor sees whether it is. */
static const char *shared_ipc_mode(struct container *other)
{
    for (int i = 0; i < SHARED_DEPTH_MAX && other_of(other->effective->ipc_mode); i++) {
        if (engine_find(other->engine, other_of(other->effective->ipc_mode), &other, NULL) < 0)
            return "shareable";
    }
    return other->effective->ipc_mode;
}

static int join_ipc(const struct container *container, const char *name, struct namespaces *ret,
                    struct error *err)
{
    struct container *other;

    int r = find_other(container, name, "IPC", &other, err);
    if (r < 0)
        return r;
    const char *mode = shared_ipc_mode(other);
    if (text_equal(mode, "host")) {
        ret->ipc.place.kind = BUNDLE_HOST;
        return 0;
    }
    if (!text_equal(mode, "shareable")) {
        error_set(err, -EINVAL, "can't join IPC of container %s: non-shareable IPC", name);
        return error_hint(err, "give that container --ipc shareable");
    }
    ret->joined[MONITOR_JOINED_IPC] = container_run_path(other, NULL);
    ret->shm = container_run_path(container, "shm");
    choose_found(container, "ipcns", &ret->ipc);
    return 0;
}

static int choose_ipc(const struct container *container, struct namespaces *ret, struct error *err)
{
    const char *mode = container->effective->ipc_mode;

    choose(mode, &ret->ipc);
    if (text_equal(mode, "shareable"))
        ret->shm = container_run_path(container, "shm");
    return other_of(mode) ? join_ipc(container, other_of(mode), ret, err) : 0;
}

/* Whose files they are. */
static int find_shared(struct container *container, struct container **ret, struct error *err)
{
    int r = 0;

    *ret = container;
    for (int i = 0; r == 0 && i < SHARED_DEPTH_MAX && network_shared_with(*ret); i++)
        r = engine_find(container->engine, network_shared_with(*ret), ret, err);
    return r;
}

static int choose_network(struct container *container, struct namespaces *ret, struct error *err)
{
    const char *name = network_shared_with(container);
    struct container *other, *last;
    int r = find_shared(container, &last, err);

    if (r < 0)
        return r;
    if (name) {
        r = find_other(container, name, "network", &other, err);
        if (r < 0)
            return r;
    }
    if (network_is_host(last)) {
        ret->network.place.kind = BUNDLE_HOST;
        return 0;
    }
    if (name)
        ret->joined[MONITOR_JOINED_NETWORK] = container_run_path(other, NULL);
    choose_found(container, "netns", &ret->network);
    return 0;
}

/* The namespaces of the other one belong to its user namespace, which is another one in each of its
 * lives. */
static void choose_user(const struct container *container, struct namespaces *ret)
{
    const struct container *other = userns_partner(container);

    if (other && container->record->user_namespace)
        ret->joined[MONITOR_JOINED_USER] = container_run_path(other, NULL);
}

int namespaces_find(struct container *container, struct namespaces *ret, struct error *err)
{
    const struct api_container_spec *spec = container->effective;
    const char *cgroup = spec->cgroupns_mode;
    int r;

    /* docker's default differs by the version of cgroups. */
    if (text_empty(cgroup))
        cgroup = container->engine->cgroup_v2 ? "private" : "host";
    choose(spec->uts_mode, &ret->uts);
    choose(cgroup, &ret->cgroup);
    r = choose_network(container, ret, err);
    if (r == 0)
        r = choose_pid(container, ret, err);
    if (r == 0)
        r = choose_ipc(container, ret, err);
    if (r == 0)
        choose_user(container, ret);
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
    for (size_t i = 0; i < MONITOR_JOINED_COUNT; i++)
        free(namespaces->joined[i]);
    free(namespaces->shm);
    free(namespaces->network.path);
    free(namespaces->pid.path);
    free(namespaces->ipc.path);
    free(namespaces->uts.path);
    free(namespaces->cgroup.path);
    *namespaces = (struct namespaces){0};
}
