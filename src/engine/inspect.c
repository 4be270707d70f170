/*
 * What the engine tells of containers: one line each, or everything.
 */
#include <stdio.h>
#include <string.h>

#include <base/alloc.h>
#include <base/clock.h>
#include <base/text.h>

#include "internal.h"
#include "spec.h"
#include "status.h"

/* --- pieces ----------------------------------------------------------------------------------- */

/* "starting" is nobody else's business: it has been created, or had exited, until it runs. */
static const char *public_state(const struct container *container)
{
    if (container->state == CONTAINER_STARTING)
        return container->record->started_at ? "exited" : "created";
    return container_state_names[container->state];
}

static char *status_of(const struct container *container)
{
    const struct record_container *record = container->record;
    struct status_facts facts = {
        .state = public_state(container),
        .started_at = record->started_at,
        .finished_at = record->finished_at,
        .exit_code = record->exit_code,
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

static struct api_container_summary *summary_of(const struct container *container)
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
    summary->state = xstrdup(public_state(container));
    summary->status = status_of(container);
    summary->exit_code = record->exit_code;
    summary->has_exit_code = record->has_exit_code;
    summary->pid = record->pid;
    summary->has_pid = record->has_pid;
    summary->ports = ports_of(container, &summary->ports_count);
    summary->labels = json_string_map_copy(container->effective->labels);
    return summary;
}

static int mark_wanted(struct engine *engine, const struct api_container_list *which,
                       struct container ***ret, size_t *ret_count, struct error *err)
{
    struct container **wanted = xnew_array(struct container *, which->ids_count + 1);

    for (size_t i = 0; i < which->ids_count; i++) {
        int r = engine_find(engine, which->ids[i], &wanted[i], err);
        if (r < 0) {
            free(wanted);
            return r;
        }
    }
    *ret = wanted;
    *ret_count = which->ids_count;
    return 0;
}

static bool is_wanted(const struct container *container, const struct api_container_list *which,
                      struct container **wanted, size_t wanted_count)
{
    bool named = !which->ids;

    for (size_t i = 0; i < wanted_count && !named; i++)
        named = wanted[i] == container;
    if (container->hidden || !named)
        return false;
    return which->all || which->limit > 0 || which->ids || container->state == CONTAINER_RUNNING;
}

int engine_container_list(struct engine *engine, const struct api_container_list *which,
                          struct api_container_summaries **ret, struct error *err)
{
    _cleanup_free_ struct container **wanted = NULL;
    size_t wanted_count = 0;

    int r = mark_wanted(engine, which, &wanted, &wanted_count, err);
    if (r < 0)
        return r;
    struct api_container_summaries *list = xnew(struct api_container_summaries);
    list->containers = xnew_array(struct api_container_summary *, engine->containers_count + 1);
    size_t limit = which->limit > 0 ? (size_t)which->limit : SIZE_MAX;
    for (size_t i = engine->containers_count; i > 0 && list->containers_count < limit; i--) {
        struct container *container = engine->containers[i - 1];
        if (is_wanted(container, which, wanted, wanted_count))
            list->containers[list->containers_count++] = summary_of(container);
    }
    *ret = list;
    return 0;
}

/* --- inspect ---------------------------------------------------------------------------------- */

static struct api_container_state *state_of(const struct container *container)
{
    const struct record_container *record = container->record;
    struct api_container_state *state = xnew(struct api_container_state);

    state->status = xstrdup(public_state(container));
    state->running = container->state == CONTAINER_RUNNING;
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
    details->has_restart_count = true;
    return details;
}
