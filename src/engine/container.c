#include <errno.h>
#include <string.h>
#include <time.h>

#include <base/alloc.h>
#include <base/text.h>

#include "internal.h"
#include "volume_mount.h"
#include "relay.h"
#include "supervision.h"

const char *const container_state_names[] = {
    [CONTAINER_CREATED] = "created", [CONTAINER_STARTING] = "starting",
    [CONTAINER_RUNNING] = "running", [CONTAINER_RESTARTING] = "restarting",
    [CONTAINER_EXITED] = "exited",   [CONTAINER_REMOVING] = "removing",
    [CONTAINER_DEAD] = "dead",
};

/* --- one container ---------------------------------------------------------------------------- */

struct container *container_ref(struct container *container)
{
    container->references++;
    return container;
}

void container_unref(struct container *container)
{
    if (!container || --container->references)
        return;
    link_destroy(container->link);
    supervision_finish(container);
    container_drop_attachments(container);
    exec_free_all(container);
    free(container->publications);
    relay_forget(container);
    places_free(container);
    free(container->name);
    free(container->next_name);
    api_container_spec_free(container->spec);
    api_container_spec_free(container->effective);
    record_container_free(container->record);
    free(container);
}

void container_drop_attachments(struct container *container)
{
    while (container->attachments) {
        struct attachment *attachment = container->attachments;
        container->attachments = attachment->next;
        close_fd(attachment->fd);
        free(attachment);
    }
    container->attachments_count = 0;
}

const char *container_id(const struct container *container)
{
    return container->id;
}

const char *container_name(const struct container *container)
{
    return container->name;
}

bool container_is_active(const struct container *container)
{
    return container->state == CONTAINER_STARTING || container->state == CONTAINER_RUNNING ||
           container->state == CONTAINER_RESTARTING;
}

void container_set_state(struct container *container, enum container_state state)
{
    bool active = container_is_active(container);

    container->state = state;
    free(container->record->state);
    container->record->state = xstrdup(container_state_names[state]);
    if (active != container_is_active(container))
        volumes_use_changed(container);
}

void container_set_error(struct container *container, const char *text)
{
    free(container->record->error);
    container->record->error = xstrdup(text);
}

static char *path_of(const char *directory, const struct container *container, const char *name)
{
    return name ? xasprintf("%s/containers/%s/%s", directory, container->id, name)
                : xasprintf("%s/containers/%s", directory, container->id);
}

char *container_run_path(const struct container *container, const char *name)
{
    return path_of(container->engine->instance->run, container, name);
}

char *container_root_path(const struct container *container, const char *name)
{
    return path_of(container->engine->instance->root, container, name);
}

/* --- the table -------------------------------------------------------------------------------- */

void container_table_add(struct engine *engine, struct container *container)
{
    engine->containers =
        xrealloc(engine->containers, engine->containers_count + 1, sizeof(struct container *));
    engine->containers[engine->containers_count++] = container;
}

void container_table_remove(struct container *container)
{
    struct engine *engine = container->engine;

    for (size_t i = 0; i < engine->containers_count; i++) {
        if (engine->containers[i] != container)
            continue;
        engine->containers_count--;
        memmove(&engine->containers[i], &engine->containers[i + 1],
                (engine->containers_count - i) * sizeof(struct container *));
        container_unref(container);
        return;
    }
}

static const struct container *holder_of_name(struct engine *engine, const char *name)
{
    for (size_t i = 0; i < engine->containers_count; i++) {
        const struct container *container = engine->containers[i];
        if (text_equal(container->name, name) ||
            (container->next_name && text_equal(container->next_name, name)))
            return container;
    }
    return NULL;
}

bool container_name_in_use(struct engine *engine, const char *name)
{
    return holder_of_name(engine, name) != NULL;
}

int container_check_name_free(struct engine *engine, const char *name, struct error *err)
{
    const struct container *holder = holder_of_name(engine, name);

    if (!holder)
        return 0;
    return error_set(err, -EEXIST,
                     "Conflict. The container name \"/%s\" is already in use by container "
                     "\"%s\". You have to remove (or rename) that container to be able to "
                     "reuse that name.",
                     name, holder->id);
}

static struct container *find_by_prefix(struct engine *engine, const char *prefix, bool *ambiguous)
{
    struct container *found = NULL;

    *ambiguous = false;
    for (size_t i = 0; i < engine->containers_count; i++) {
        struct container *container = engine->containers[i];
        if (container->hidden || !text_starts_with(container->id, prefix))
            continue;
        *ambiguous = *ambiguous || found;
        found = container;
    }
    return found;
}

static struct container *find_exact(struct engine *engine, const char *reference)
{
    const char *name = reference[0] == '/' ? reference + 1 : reference;

    for (size_t i = 0; i < engine->containers_count; i++) {
        struct container *container = engine->containers[i];
        if (!container->hidden && text_equal(container->id, reference))
            return container;
    }
    for (size_t i = 0; i < engine->containers_count; i++) {
        struct container *container = engine->containers[i];
        if (!container->hidden && text_equal(container->name, name))
            return container;
    }
    return NULL;
}

int engine_find(struct engine *engine, const char *reference, struct container **ret,
                struct error *err)
{
    bool ambiguous = false;

    struct container *container = find_exact(engine, reference);
    if (!container && reference[0])
        container = find_by_prefix(engine, reference, &ambiguous);
    if (ambiguous)
        return error_set(err, -EEXIST, "multiple IDs found with provided prefix: %s", reference);
    if (!container)
        return error_set(err, -ENOENT, "No such container: %.128s", reference);
    *ret = container;
    return 0;
}

int engine_need_cgroups(const struct engine *engine, const char *what, struct error *err)
{
    if (engine->cgroup_parent)
        return 0;
    error_set(err, -EOPNOTSUPP,
              "%s need cgroups, which this engine of an ordinary user does not have", what);
    return error_hint(err, "it has them with cgroup v2 and a systemd of the user: ROOTLESS in "
                           "cloched(8)");
}

const char *container_cgroup_parent(const struct container *container)
{
    const char *own = container->effective->cgroup_parent;

    if (!container->engine->cgroup_parent)
        return NULL;
    return text_empty(own) ? container->engine->cgroup_parent : own;
}
