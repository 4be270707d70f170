/*
 * What the engine tells of containers: one line each, or everything.
 */
#include <stdio.h>
#include <string.h>

#include <base/alloc.h>
#include <base/clock.h>
#include <base/text.h>

#include "inspect.h"
#include "internal.h"
#include "pause.h"
#include "spec.h"
#include "status.h"
#include "supervision.h"

/* --- pieces ----------------------------------------------------------------------------------- */

/* "starting" is nobody else's business: it has been created, or had exited, until it runs. */
const char *inspect_state(const struct container *container)
{
    if (container->state == CONTAINER_STARTING)
        return container->record->started_at ? "exited" : "created";
    if (container_is_paused(container))
        return "paused";
    if (container->supervision.revival)
        return container_state_names[CONTAINER_RESTARTING];
    return container_state_names[container->state];
}

static char *status_of(const struct container *container)
{
    const struct record_container *record = container->record;
    struct status_facts facts = {
        .state = inspect_state(container),
        .started_at = record->started_at,
        .finished_at = record->finished_at,
        .exit_code = record->exit_code,
        .health = record->health,
    };

    return status_text(&facts, clock_now());
}

static struct api_port *port_of(const struct net_publication *publication)
{
    struct api_port *port = xnew(struct api_port);
    char address[NET_ADDRESS_TEXT];

    port->host_address = xstrdup(net_address_format(publication->host_address, address));
    port->host_port = publication->host_port;
    port->has_host_port = true;
    port->container_port = publication->container_port;
    port->protocol = xstrdup(publication->protocol == NET_UDP ? "udp" : "tcp");
    return port;
}

static struct api_port **ports_of(const struct container *container, size_t *ret_count)
{
    struct api_port **ports = xnew_array(struct api_port *, container->publications_count + 1);

    for (size_t i = 0; i < container->publications_count; i++)
        ports[i] = port_of(&container->publications[i]);
    *ret_count = container->publications_count;
    return ports;
}

/* --- ps --------------------------------------------------------------------------------------- */

static void add_places(const struct api_container_spec *spec, struct api_container_summary *summary)
{
    for (size_t i = 0; i < spec->mounts_count; i++) {
        const struct api_mount *mount = spec->mounts[i];
        if (text_empty(mount->source))
            continue;
        strv_append(&summary->mounts, mount->source);
        summary->mounts_count++;
        summary->local_volumes += text_equal(mount->type, "volume");
    }
    for (size_t i = 0; spec->networks && i < spec->networks->count; i++)
        strv_append(&summary->networks, spec->networks->keys[i]);
    if (!summary->networks && spec->network_mode)
        strv_append(&summary->networks, spec->network_mode);
    summary->networks_count = strv_length(summary->networks);
    summary->has_local_volumes = true;
}

struct api_container_summary *inspect_summary(const struct container *container)
{
    struct api_container_summary *summary = xnew(struct api_container_summary);
    const struct record_container *record = container->record;
    _cleanup_strv_ char **arguments = spec_arguments(container->effective);

    summary->id = xstrdup(container->id);
    strv_append(&summary->names, container->name);
    summary->names_count = 1;
    summary->image = xstrdup(container->spec->image);
    summary->image_id = xstrdup(record->image_id);
    summary->command = strv_join(arguments, " ");
    summary->created_at = clock_format(record->created_at);
    summary->state = xstrdup(inspect_state(container));
    summary->status = status_of(container);
    summary->exit_code = record->exit_code;
    summary->has_exit_code = record->has_exit_code;
    summary->pid = record->pid;
    summary->has_pid = record->has_pid;
    summary->ports = ports_of(container, &summary->ports_count);
    summary->labels = json_string_map_copy(container->effective->labels);
    add_places(container->effective, summary);
    return summary;
}

/* --- inspect ---------------------------------------------------------------------------------- */

static struct api_container_state *state_of(const struct container *container)
{
    const struct record_container *record = container->record;
    struct api_container_state *state = xnew(struct api_container_state);

    state->status = xstrdup(inspect_state(container));
    state->restarting = state->has_restarting = text_equal(state->status, "restarting");
    state->running = container->state == CONTAINER_RUNNING || state->restarting;
    state->health = supervision_health(container);
    state->pid = record->pid;
    state->exit_code = record->exit_code;
    state->error = xstrdup(record->error);
    state->oom_killed = state->has_oom_killed = record->oom_killed;
    if (record->started_at)
        state->started_at = clock_format(record->started_at);
    if (record->finished_at)
        state->finished_at = clock_format(record->finished_at);
    if (container->link && record->has_monitor_pid) {
        state->monitor_pid = record->monitor_pid;
        state->has_monitor_pid = true;
    }
    return state;
}

static char *mac_text(struct in_addr address)
{
    uint8_t mac[6];

    net_address_mac(address, mac);
    return xasprintf("%02x:%02x:%02x:%02x:%02x:%02x", mac[0], mac[1], mac[2], mac[3], mac[4],
                     mac[5]);
}

static struct api_container_network *network_of(const struct container *container)
{
    struct api_container_network *network = xnew(struct api_container_network);
    const struct net_subnet *subnet = &container->engine->subnet;
    char text[NET_ADDRESS_TEXT];

    network->mode = xstrdup(container->effective->network_mode);
    if (container->has_address) {
        network->address = xstrdup(net_address_format(container->address, text));
        network->prefix_length = (int32_t)subnet->prefix;
        network->has_prefix_length = true;
        network->gateway = xstrdup(net_address_format(subnet->gateway, text));
        network->mac_address = mac_text(container->address);
    }
    network->ports = ports_of(container, &network->ports_count);
    return network;
}

struct api_container_details *engine_container_inspect(const struct container *container)
{
    struct api_container_details *details = xnew(struct api_container_details);
    _cleanup_strv_ char **arguments = spec_arguments(container->effective);

    details->id = xstrdup(container->id);
    details->name = xstrdup(container->name);
    details->created_at = clock_format(container->record->created_at);
    details->path = xstrdup(arguments[0]);
    details->args = strv_copy(arguments + 1);
    if (!details->args)
        details->args = xnew_array(char *, 1);
    details->args_count = strv_length(details->args);
    details->image = xstrdup(container->spec->image);
    details->image_id = xstrdup(container->record->image_id);
    details->state = state_of(container);
    details->spec = spec_copy(container->spec);
    details->effective = spec_copy(container->effective);
    details->network = network_of(container);
    details->log_path = container_root_path(container, "log");
    details->bundle = container_run_path(container, NULL);
    details->root_dir = container_root_path(container, NULL);
    details->upper_dir = container_root_path(container, "upper");
    details->restart_count = (int32_t)container->record->restart_count;
    details->has_restart_count = true;
    details->exec_ids = exec_running_ids(container);
    details->exec_ids_count = strv_length(details->exec_ids);
    return details;
}

/* --- what its files take ---------------------------------------------------------------------- */

struct size_call {
    uv_work_t work;
    struct container *container; /* a reference */
    struct api_file_sizes sizes;
    engine_image_done done;
    void *data;
    struct error err;
};

static void size_work(uv_work_t *work)
{
    struct size_call *call = work->data;
    const struct container *container = call->container;
    struct store *store = container->engine->store;
    _cleanup_store_image_ struct store_image *image = NULL;

    int r = store_snapshot_usage(store, container->id, &call->sizes.size_rw, &call->err);
    /* The image's record may have gone with force. */
    if (r >= 0)
        store_image_find(store, container->record->image_id, &image, NULL);
    call->sizes.size_root_fs = call->sizes.size_rw + (image ? image->size : 0);
    engine_settle(&call->err, r);
}

static void size_done(uv_work_t *work, int status)
{
    struct size_call *call = work->data;

    call->container->engine->image_calls--;
    call->done(call->err.code ? &call->err : NULL, &call->sizes, call->data);
    error_finish(&call->err);
    container_unref(call->container);
    free(call);
}

void engine_container_size(struct container *container, engine_image_done done, void *data)
{
    _cleanup_error_ struct error err = ERROR_INIT;

    if (container->engine->removing) {
        error_set(&err, -EAGAIN, "the instance is being removed");
        done(&err, NULL, data);
        return;
    }
    struct size_call *call = xnew(struct size_call);
    call->container = container_ref(container);
    call->done = done;
    call->data = data;
    call->work.data = call;
    container->engine->image_calls++;
    uv_queue_work(container->engine->loop, &call->work, size_work, size_done);
}
