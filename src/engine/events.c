/*
 * What happened, told to whoever has the engine: documents of the management API, named as docker's
 * events are.
 */
#include <string.h>

#include <base/alloc.h>
#include <base/clock.h>
#include <base/text.h>

#include "events.h"
#include "filters.h"
#include "inspect.h"
#include "internal.h"

static struct api_event *new_event(const char *type, const char *action, const char *id,
                                   const char *name)
{
    struct api_event *event = xnew(struct api_event);

    event->time = clock_now();
    event->type = xstrdup(type);
    event->action = xstrdup(action);
    event->id = xstrdup(id);
    event->name = text_empty(name) ? NULL : xstrdup(name);
    event->attributes = xnew(struct json_string_map);
    return event;
}

static void add_all(struct api_event *event, const struct event_attribute *attributes)
{
    for (; attributes && attributes->name; attributes++) {
        if (attributes->value)
            json_string_map_set(&event->attributes, attributes->name, attributes->value);
    }
}

static void tell(struct engine *engine, struct api_event *event)
{
    if (engine->on_event)
        engine->on_event(event, engine->on_event_data);
    else
        api_event_free(event);
}

void event_container(const struct container *container, const char *action,
                     const struct event_attribute *attributes)
{
    struct api_event *event = new_event("container", action, container->id, container->name);
    const struct json_string_map *labels =
        container->effective ? container->effective->labels : NULL;

    /* A label cannot stand for what is true: it is overwritten. */
    if (labels) {
        json_string_map_free(event->attributes);
        event->attributes = json_string_map_copy(labels);
    }
    json_string_map_set(&event->attributes, "image", container->spec->image);
    add_all(event, attributes);
    tell(container->engine, event);
}

void event_container_signal(const struct container *container, int number)
{
    _cleanup_free_ char *text = xasprintf("%d", number);

    event_container(container, "kill", (struct event_attribute[]){{"signal", text}, {NULL, NULL}});
}

void event_container_died(const struct container *container, int exit_code, bool oom,
                          int64_t nanoseconds)
{
    _cleanup_free_ char *code = xasprintf("%d", exit_code);
    _cleanup_free_ char *duration =
        nanoseconds >= 0 ? xasprintf("%jd", (intmax_t)(nanoseconds / CLOCK_SECOND)) : NULL;

    if (oom)
        event_container(container, "oom", NULL);
    event_container(
        container, "die",
        (struct event_attribute[]){{"exitCode", code}, {"execDuration", duration}, {NULL, NULL}});
}

static const char *driver_of(const struct network *network)
{
    return network->record->driver;
}

void event_container_network(const struct container *container, const struct network *network,
                             const char *action)
{
    struct api_event *event = new_event("network", action, network->id, network->record->name);

    add_all(event, (struct event_attribute[]){
                       {"container", container->id}, {"type", driver_of(network)}, {NULL, NULL}});
    tell(container->engine, event);
}

void event_network(struct engine *engine, const struct network *network, const char *action)
{
    struct api_event *event = new_event("network", action, network->id, network->record->name);

    add_all(event, (struct event_attribute[]){{"type", driver_of(network)}, {NULL, NULL}});
    tell(engine, event);
}

/* Docker's have no name beside the ID, which is one. */
static struct api_event *new_volume_event(const char *action, const char *name)
{
    struct api_event *event = new_event("volume", action, name, NULL);

    add_all(event, (struct event_attribute[]){{"driver", "local"}, {NULL, NULL}});
    return event;
}

void event_usb(struct engine *engine, const char *action, const char *id,
               const struct event_attribute *attributes)
{
    struct api_event *event = new_event("usb", action, id, NULL);

    add_all(event, attributes);
    tell(engine, event);
}

void event_volume(struct engine *engine, const char *action, const char *name)
{
    tell(engine, new_volume_event(action, name));
}

void event_container_volumes(const struct container *container, const char *action)
{
    const struct api_container_spec *spec = container->effective;
    bool where = text_equal(action, "mount");

    for (size_t i = 0; i < spec->mounts_count; i++) {
        const struct api_mount *mount = spec->mounts[i];
        if (!text_equal(mount->type, "volume"))
            continue;
        struct api_event *event = new_volume_event(action, mount->source);
        add_all(event, (struct event_attribute[]){{"container", container->id}, {NULL, NULL}});
        if (where)
            add_all(event,
                    (struct event_attribute[]){{"destination", mount->target},
                                               {"propagation", inspect_propagation(mount)},
                                               {"read/write", mount->read_only ? "false" : "true"},
                                               {NULL, NULL}});
        tell(container->engine, event);
    }
}

void event_exec(const struct container *container, const char *action, const char *exec_id,
                const char *exit_code)
{
    event_container(
        container, action,
        (struct event_attribute[]){{"execID", exec_id}, {"exitCode", exit_code}, {NULL, NULL}});
}

void event_pruned(struct engine *engine, const char *type, uint64_t reclaimed)
{
    _cleanup_free_ char *bytes = xasprintf("%llu", (unsigned long long)reclaimed);
    struct api_event *event = new_event(type, "prune", "", NULL);

    add_all(event, (struct event_attribute[]){{"reclaimed", bytes}, {NULL, NULL}});
    tell(engine, event);
}

void event_image(struct engine *engine, const char *action, const char *id, const char *name)
{
    tell(engine, new_event("image", action, id, text_empty(name) ? id : name));
}

/* ---- filters ---- */

static bool one_begins(char *const *wanted, const char *text)
{
    for (; *wanted; wanted++) {
        if (text && **wanted && text_starts_with(text, *wanted))
            return true;
    }
    return false;
}

/* Where the tag begins, or the end: a colon before the last slash is of a port. */
static size_t repository_length(const char *name)
{
    const char *slash = strrchr(name, '/');
    const char *colon = strrchr(name, ':');

    return colon && (!slash || colon > slash) ? (size_t)(colon - name) : strlen(name);
}

static bool is_image(const char *wanted, const char *name)
{
    size_t length = name ? repository_length(name) : 0;

    return name && (text_equal(wanted, name) ||
                    (strlen(wanted) == length && strncmp(wanted, name, length) == 0));
}

static bool is_id(const char *wanted, const char *id)
{
    static const char algorithm[] = "sha256:";
    size_t skip = text_starts_with(id, algorithm) && !text_starts_with(wanted, algorithm)
                      ? strlen(algorithm)
                      : 0;

    return *wanted && text_starts_with(id + skip, wanted);
}

static bool has_image(char *const *wanted, const struct api_event *event)
{
    bool image = text_equal(event->type, "image");
    const char *name = image ? event->name : json_string_map_get(event->attributes, "image");

    for (; *wanted; wanted++) {
        if (is_image(*wanted, name) || (image && is_id(*wanted, event->id)))
            return true;
    }
    return false;
}

/* What happened to one of a kind that is named so. */
static bool is_one_of(char *const *wanted, const char *type, const struct api_event *event)
{
    return text_equal(event->type, type) &&
           (one_begins(wanted, event->id) || (event->name && strv_contains(wanted, event->name)));
}

/* "health_status" stands for "health_status: healthy", too. */
static bool has_action(char *const *wanted, const char *action)
{
    size_t length = strcspn(action, ":");

    for (; *wanted; wanted++) {
        if (text_equal(*wanted, action) ||
            (strlen(*wanted) == length && strncmp(*wanted, action, length) == 0))
            return true;
    }
    return false;
}

bool engine_event_matches(const struct api_event_filters *filters, const struct api_event *event)
{
    return (!filters->type_count || strv_contains(filters->type, event->type)) &&
           (!filters->action_count || has_action(filters->action, event->action)) &&
           (!filters->container_count || is_one_of(filters->container, "container", event)) &&
           (!filters->network_count || is_one_of(filters->network, "network", event)) &&
           (!filters->volume_count || is_one_of(filters->volume, "volume", event)) &&
           (!filters->daemon_count || is_one_of(filters->daemon, "daemon", event)) &&
           (!filters->image_count || has_image(filters->image, event)) &&
           (!filters->label_count || filter_has_labels(event->attributes, filters->label));
}
