/*
 * What a list of containers shows to those who want more of it: networks, mounts, exposed ports.
 */
#include <base/alloc.h>
#include <base/text.h>

#include "inspect.h"
#include "internal.h"
#include "volumes.h"

/* Of a mount that was asked for by -v, what was said there. */
static char *mode_of(const struct api_container_spec *asked, const char *target)
{
    for (size_t i = 0; i < asked->binds_count; i++) {
        const struct api_bind *bind = asked->binds[i];
        if (!text_equal(bind->target, target))
            continue;
        _cleanup_free_ char *more = strv_join(bind->options, ",");
        if (!bind->has_read_only)
            return steal_ptr(more);
        return xasprintf("%s%s%s", bind->read_only ? "ro" : "rw", more[0] ? "," : "", more);
    }
    return xstrdup("");
}

const char *inspect_propagation(const struct api_mount *mount)
{
    if (mount->bind_options && !text_empty(mount->bind_options->propagation))
        return mount->bind_options->propagation;
    return text_equal(mount->type, "bind") ? "rprivate" : "";
}

static struct api_mount_point *mount_point_of(const struct container *container,
                                              const struct api_mount *mount)
{
    struct api_mount_point *point = xnew(struct api_mount_point);
    bool volume = text_equal(mount->type, "volume");

    point->type = xstrdup(mount->type);
    point->name = volume ? xstrdup(mount->source) : NULL;
    point->source = volume ? volume_path(container->engine, mount->source)
                           : xstrdup(mount->source ? mount->source : "");
    point->target = xstrdup(mount->target);
    point->mode = mode_of(container->spec, mount->target);
    point->read_only = mount->read_only;
    point->has_read_only = true;
    point->propagation = xstrdup(inspect_propagation(mount));
    return point;
}

/* docker shows a tmpfs of --mount only. */
static bool is_shown(const struct container *container, const struct api_mount *mount)
{
    return !text_equal(mount->type, "tmpfs") ||
           !json_string_map_get(container->spec->tmpfs, mount->target);
}

struct api_container_summary_details *inspect_details(const struct container *container)
{
    struct api_container_summary_details *details = xnew(struct api_container_summary_details);
    const struct api_container_spec *spec = container->effective;

    details->network_mode = xstrdup(spec->network_mode);
    details->networks = inspect_endpoints(container, &details->networks_count);
    details->mounts = xnew_array(struct api_mount_point *, spec->mounts_count + 1);
    for (size_t i = 0; i < spec->mounts_count; i++)
        if (is_shown(container, spec->mounts[i]))
            details->mounts[details->mounts_count++] = mount_point_of(container, spec->mounts[i]);
    if (container->state == CONTAINER_RUNNING)
        details->exposed_ports = strv_copy(spec->exposed_ports);
    else
        details->exposed_ports = xnew_array(char *, 1);
    details->exposed_ports_count = strv_length(details->exposed_ports);
    return details;
}
