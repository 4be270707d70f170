/*
 * What the engine tells of containers: one line each, or everything.
 */
#include <stdio.h>
#include <string.h>

#include <base/alloc.h>
#include <base/clock.h>
#include <base/text.h>

#include "idmap.h"
#include "inspect.h"
#include "internal.h"
#include "linked.h"
#include "nameserver.h"
#include "pause.h"
#include "ports.h"
#include "security.h"
#include "spec.h"
#include "status.h"
#include "supervision.h"

/* --- pieces ----------------------------------------------------------------------------------- */

/* "starting" is nobody else's business: it has been created, or had exited, until it runs. Nor is
 * it that plug-ins take its networks back. */
const char *inspect_state(const struct container *container)
{
    if (container->state == CONTAINER_STARTING || container->leaving)
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
    char address[NET_IP_TEXT];

    port->host_address = xstrdup(net_ip_format(&publication->host_address, address));
    port->host_port = publication->host_port;
    port->has_host_port = true;
    port->container_port = publication->container_port;
    port->protocol = xstrdup(ports_protocol_name(publication->protocol));
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

/* Arguments with blanks in single quotes, as docker shows them; the program as it is. */
static char *command_of(const struct container *container)
{
    _cleanup_strv_ char **arguments = spec_arguments(container->effective);
    struct buffer text = BUFFER_INIT;

    for (size_t i = 0; arguments && arguments[i]; i++) {
        const char *quote = i && strchr(arguments[i], ' ') ? "'" : "";
        if (i)
            buffer_append_char(&text, ' ');
        buffer_append_text(&text, quote);
        buffer_append_text(&text, arguments[i]);
        buffer_append_text(&text, quote);
    }
    return buffer_steal(&text);
}

struct api_container_summary *inspect_summary(const struct container *container)
{
    struct api_container_summary *summary = xnew(struct api_container_summary);
    const struct record_container *record = container->record;

    summary->id = xstrdup(container->id);
    strv_append(&summary->names, container->name);
    summary->names_count = 1;
    summary->image = xstrdup(container->spec->image);
    summary->image_id = xstrdup(record->image_id);
    summary->command = command_of(container);
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
    state->running =
        (container->state == CONTAINER_RUNNING && !container->leaving) || state->restarting;
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

/* Not by printf: a list of containers has one of each. */
static char *mac_text(const uint8_t mac[static 6])
{
    static const char digits[] = "0123456789abcdef";
    char *text = xstrdup("00:00:00:00:00:00");

    for (size_t i = 0; i < 6; i++) {
        text[3 * i] = digits[mac[i] >> 4];
        text[3 * i + 1] = digits[mac[i] & 15];
    }
    return text;
}

static char *address6_text(struct in6_addr address)
{
    const struct net_ip ip = net_ip_v6(address);
    char text[NET_IP_TEXT];

    return xstrdup(net_ip_format(&ip, text));
}

static void add_addresses(const struct place *place, struct api_container_endpoint *endpoint)
{
    char text[NET_ADDRESS_TEXT];

    endpoint->link = xstrdup(place->interface.name);
    endpoint->mac_address = mac_text(place->interface.mac);
    if (place_prefix(place)) {
        endpoint->address = xstrdup(net_address_format(place->interface.address, text));
        endpoint->prefix_length = (int32_t)place_prefix(place);
        endpoint->has_prefix_length = true;
        endpoint->gateway = xstrdup(net_address_format(place_gateway(place), text));
    }
    if (place_prefix6(place) == 0)
        return;
    endpoint->address6 = address6_text(place->interface.address6);
    endpoint->prefix_length6 = (int32_t)place_prefix6(place);
    endpoint->has_prefix_length6 = true;
    endpoint->gateway6 = address6_text(place_gateway6(place));
}

static struct api_container_endpoint *endpoint_of(const struct container *container,
                                                  const struct place *place)
{
    struct api_container_endpoint *endpoint = xnew(struct api_container_endpoint);
    const struct api_endpoint *wanted = place->wanted;

    endpoint->network =
        xstrdup(place->network ? place->network->record->name : place->network_name);
    endpoint->network_id = xstrdup(place->network_id);
    endpoint->endpoint_id = xstrdup(place->endpoint_id);
    endpoint->aliases = strv_copy(wanted->aliases);
    endpoint->aliases_count = wanted->aliases_count;
    endpoint->links = strv_copy(wanted->links);
    endpoint->links_count = wanted->links_count;
    endpoint->wanted_ipv4 = xstrdup(wanted->ipv4_address);
    endpoint->wanted_ipv6 = xstrdup(wanted->ipv6_address);
    endpoint->wanted_link_local = strv_copy(wanted->link_local_ips);
    endpoint->wanted_link_local_count = wanted->link_local_ips_count;
    endpoint->driver_opts = wanted->driver_opts ? json_string_map_copy(wanted->driver_opts) : NULL;
    if (place_has_names(place)) {
        endpoint->dns_names = place_names(container, place);
        endpoint->dns_names_count = strv_length(endpoint->dns_names);
    }
    if (place->held)
        add_addresses(place, endpoint);
    return endpoint;
}

/* host and none are networks, too, for those who look (docker). */
static struct api_container_endpoint *builtin_endpoint(const struct container *container)
{
    const char *mode = container->effective->network_mode;
    const struct network *network = network_by_name(container->engine, mode);
    struct api_container_endpoint *endpoint = xnew(struct api_container_endpoint);

    endpoint->network = xstrdup(mode);
    endpoint->network_id = xstrdup(network ? network->id : "");
    endpoint->endpoint_id = xstrdup("");
    return endpoint;
}

struct api_container_endpoint **inspect_endpoints(const struct container *container,
                                                  size_t *ret_count)
{
    struct api_container_endpoint **endpoints =
        xnew_array(struct api_container_endpoint *, container->places_count + 2);
    size_t count = 0;

    for (size_t i = 0; i < container->places_count; i++)
        endpoints[count++] = endpoint_of(container, container->places[i]);
    if (count == 0 && !network_shared_with(container))
        endpoints[count++] = builtin_endpoint(container);
    *ret_count = count;
    return endpoints;
}

struct api_container_network *inspect_network(const struct container *container)
{
    struct api_container_network *network = xnew(struct api_container_network);
    const struct place *main = places_main(container);

    network->mode = xstrdup(container->effective->network_mode);
    if (main) {
        _cleanup_api_container_endpoint_ struct api_container_endpoint *endpoint =
            endpoint_of(container, main);

        network->address = steal_ptr(endpoint->address);
        network->prefix_length = endpoint->prefix_length;
        network->has_prefix_length = endpoint->has_prefix_length;
        network->gateway = steal_ptr(endpoint->gateway);
        network->mac_address = steal_ptr(endpoint->mac_address);
        network->address6 = steal_ptr(endpoint->address6);
        network->prefix_length6 = endpoint->prefix_length6;
        network->has_prefix_length6 = endpoint->has_prefix_length6;
        network->gateway6 = steal_ptr(endpoint->gateway6);
    }
    network->ports = ports_of(container, &network->ports_count);
    network->networks = inspect_endpoints(container, &network->networks_count);
    return network;
}

struct api_published_ports *engine_container_ports(const struct container *container)
{
    struct api_published_ports *list = xnew(struct api_published_ports);

    list->ports = ports_of(container, &list->ports_count);
    return list;
}

/* What applies, with what nobody asked for but docker's images and clients expect. */
static struct api_container_spec *effective_of(const struct container *container)
{
    struct api_container_spec *spec = spec_copy(container->effective);

    linked_show(container, spec);
    if (!spec->masked_paths) {
        spec->masked_paths = strv_copy(security_masked_paths(spec));
        spec->masked_paths_count = strv_length(spec->masked_paths);
    }
    if (!spec->readonly_paths) {
        spec->readonly_paths = strv_copy(security_readonly_paths(spec));
        spec->readonly_paths_count = strv_length(spec->readonly_paths);
    }
    return spec;
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
    details->effective = effective_of(container);
    linked_show(container, details->spec);
    details->network = inspect_network(container);
    details->user_namespace = idmap_copy(container->record->user_namespace);
    details->log_path = container_root_path(container, "log");
    details->bundle = container_run_path(container, NULL);
    details->root_dir = container_root_path(container, NULL);
    details->upper_dir = container_root_path(container, "upper");
    details->restart_count = (int32_t)container->record->restart_count;
    details->has_restart_count = true;
    details->exec_ids = exec_live_ids(container);
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
