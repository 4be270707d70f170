/*
 * Changing a container's network while it exists, and while it runs: connect, disconnect, further
 * published ports, fewer of them. Each is an operation of the container: what it changes in the
 * kernel is done on the loop's thread (half a millisecond), the record and the deletion of a link
 * (20 to 30 ms) on the disk thread.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>

#include <base/alloc.h>
#include <base/file.h>
#include <base/log.h>
#include <base/text.h>

#include "bundle.h"
#include "cni.h"
#include "events.h"
#include "linked.h"
#include "nameserver.h"
#include "networks.h"
#include "place.h"
#include "ports.h"
#include "relay.h"
#include "spec.h"

struct change_operation {
    struct operation base;
    struct disk_job job;
    char *network;                 /* owned; connect, disconnect */
    struct api_endpoint *endpoint; /* owned; connect */
    struct api_container_ports *ports;
    struct record_change change;
    struct place *place; /* of a network of plug-ins, while these are called */
    char *link;          /* owned: of the host, to be deleted */
    bool had_names;      /* before its plug-ins were called */
    bool names_begin;    /* its resolv.conf has to say so */
    struct error err;
};

/* --- what all share --------------------------------------------------------------------------- */

/* It finds names by their addresses then; that is no reason to take a network away again. */
static void write_resolv_conf(const struct container *container)
{
    _cleanup_free_ char *path = container_root_path(container, NULL);
    _cleanup_error_ struct error err = ERROR_INIT;

    if (bundle_begin_names(path, container->effective, &err) < 0)
        log_failure(LOG_WARNING, &err, "resolv.conf of %.12s stays what it was", container->id);
}

static void change_work(struct disk_job *job)
{
    struct change_operation *change = disk_job_of(job, struct change_operation, job);
    int r = 0;

    if (!text_empty(change->link))
        r = net_link_delete(change->link, &change->err);
    if (r >= 0)
        r = record_change_run(&change->change, &change->err);
    if (change->names_begin)
        write_resolv_conf(change->base.container);
    engine_settle(&change->err, r);
}

static void change_done(struct disk_job *job)
{
    struct change_operation *change = disk_job_of(job, struct change_operation, job);

    operation_finish(&change->base, change->err.code < 0 ? &change->err : NULL, true);
}

/* Whether it has a network now; its monitor keeps that between two lives, too. */
static bool is_live(const struct container *container)
{
    return container->state == CONTAINER_RUNNING || container->state == CONTAINER_RESTARTING;
}

static void commit(struct change_operation *change)
{
    struct container *container = change->base.container;

    if (is_live(container))
        relay_update(container);
    places_write(container);
    record_change_update(&change->change, container);
    change->job.work = change_work;
    change->job.done = change_done;
    disk_submit(container->engine->disk, &change->job);
}

static void change_applied(struct change_operation *change, int r)
{
    engine_settle(&change->err, r);
    if (r < 0)
        operation_finish(&change->base, &change->err, false);
    else
        commit(change);
}

/* Plug-ins are called meanwhile; change_applied() comes later. */
enum { APPLIES_LATER = 1 };

static void change_begin(struct change_operation *change, int (*apply)(struct change_operation *))
{
    struct container *container = change->base.container;
    int r = 0;

    if (container->state == CONTAINER_REMOVING)
        r = error_set(&change->err, -ENOENT, "No such container: %s", container->name);
    else if (container->state == CONTAINER_DEAD) /* its row may be one that is not to be touched */
        r = error_set(&change->err, -EEXIST, "container %s is dead: it can only be removed",
                      container->name);
    else
        r = apply(change);
    if (r != APPLIES_LATER)
        change_applied(change, r);
}

static void change_release(struct operation *operation)
{
    struct change_operation *change = (struct change_operation *)operation;

    record_change_finish(&change->change);
    api_endpoint_free(change->endpoint);
    api_container_ports_free(change->ports);
    error_finish(&change->err);
    free(change->network);
    free(change->link);
    free(change);
}

static int publish_again(struct container *container, struct error *err)
{
    ports_withdraw(container);
    int r = ports_publish(container, err);
    relay_update(container);
    return r;
}

/* --- connect ---------------------------------------------------------------------------------- */

/* A container's places are told apart by the names of their networks. */
static bool has_namesake(const struct container *container, const struct network *network)
{
    for (size_t i = 0; i < container->places_count; i++) {
        if (text_equal(container->places[i]->network_name, network->record->name))
            return true;
    }
    return false;
}

static int may_connect(struct container *container, const struct network *network,
                       struct error *err)
{
    if (network_is_host(container) || network->kind == NETWORK_HOST)
        return error_set(err, -EPERM,
                         "container cannot be disconnected from host network or connected to host "
                         "network");
    if (network_shared_with(container))
        return error_set(err, -EPERM,
                         "container sharing network namespace with another container or host "
                         "cannot be connected to any other network");
    if (network->kind == NETWORK_NONE)
        return error_set(err, -EPERM, "container cannot be connected to the network none");
    if (places_find(container, network))
        return error_set(err, -EPERM, "endpoint with name %s already exists in network %s",
                         container->name, network->record->name);
    if (has_namesake(container, network))
        return error_set(err, -EPERM,
                         "the container is on another network with the name %s already",
                         network->record->name);
    if (container->places_count >= ENGINE_PLACES_MAX)
        return error_set(err, -ENOBUFS, "the container is on %d networks already",
                         ENGINE_PLACES_MAX);
    return 0;
}

/* Its ports lead to the new place before that is there: what cannot be published is known before
 * anything else is done. */
static int connect_interface(struct container *container, int netns, struct place *place,
                             bool publish, struct error *err)
{
    int r = publish ? publish_again(container, err) : 0;

    if (r == 0)
        r = net_interface_add(container->engine->net, netns, &place->interface, err);
    if (r == 0)
        return 0;
    place_release(place);
    if (publish)
        (void)publish_again(container, NULL);
    return r;
}

static void is_connected(struct change_operation *change, struct place *place, bool had_names)
{
    struct container *container = change->base.container;

    nameserver_place(container, place);
    change->names_begin = place_has_names(place) && !had_names;
    if (change->names_begin)
        nameserver_adopt(container);
    else
        nameserver_policy(container);
    event_container_network(container, place->network, "connect");
}

static int connect_running(struct change_operation *change, struct place *place)
{
    struct container *container = change->base.container;
    struct error *err = &change->err;
    const struct place *before = places_main(container);
    const bool had_names = nameserver_is_needed(container);
    _cleanup_close_ int netns = -1;
    int r = container_open_netns(container, &netns, err);

    if (r == 0)
        r = place_hold(container, place, err);
    if (r < 0)
        return r;
    const bool main = places_main(container) == place;
    place->interface.default_route = main && !place->network->record->internal;
    r = connect_interface(container, netns, place, main && before != place, err);
    if (r < 0)
        return r;
    is_connected(change, place, had_names);
    return 0;
}

/* Plug-ins get ports at the start alone. */
static int may_be_main(const struct container *container, const struct place *place,
                       struct error *err)
{
    const struct api_container_spec *spec = container->effective;

    if (places_main(container) != place ||
        (container->publications_count == 0 && spec->ports_count == 0 && !spec->publish_all_ports))
        return 0;
    error_set(err, -EPERM,
              "network %s is one of plug-ins: the container's ports would lead there, which its "
              "plug-ins get at the start",
              place->network->record->name);
    return error_hint(err, "connect it while it is stopped"), -EPERM;
}

static void on_plugins_added(const struct error *err, struct cni_dns *dns, void *data)
{
    struct change_operation *change = data;
    struct container *container = change->base.container;
    struct place *place = change->place;

    cni_dns_free(dns); /* the container has its resolv.conf */
    if (!err) {
        is_connected(change, place, change->had_names);
        change_applied(change, 0);
        return;
    }
    error_set(&change->err, err->code, "%s", error_message(err));
    if (err->hint)
        error_hint(&change->err, "%s", err->hint);
    if (place->attached)
        cni_leave_place(container, place);
    place_release(place);
    place_remove(container, place);
    change_applied(change, change->err.code);
}

static int connect_plugins(struct change_operation *change, struct place *place)
{
    struct container *container = change->base.container;
    _cleanup_close_ int netns = -1;
    int r = container_open_netns(container, &netns, &change->err);

    if (r == 0)
        r = place_hold(container, place, &change->err);
    if (r == 0)
        r = may_be_main(container, place, &change->err);
    change->place = place;
    change->had_names = nameserver_is_needed(container);
    if (r == 0)
        r = cni_connect(container, place, netns, on_plugins_added, change, &change->err);
    if (r == 0)
        return APPLIES_LATER;
    place_release(place);
    return r;
}

static int connect_apply(struct change_operation *change)
{
    struct container *container = change->base.container;
    struct network *network = NULL;
    int r = network_find(container->engine, change->network, &network, &change->err);

    if (r == 0)
        r = may_connect(container, network, &change->err);
    if (r == 0)
        r = place_check_aliases(network->record->name, change->endpoint, &change->err);
    if (r == 0 && change->endpoint)
        r = linked_check(change->endpoint->links, &change->err);
    if (r == 0 && change->endpoint)
        r = spec_check_endpoint(change->endpoint, &change->err);
    if (r < 0)
        return r;
    struct place *place = place_new(container, network->record->name, change->endpoint);
    place->network = network;
    memcpy(place->network_id, network->id, sizeof(place->network_id));
    if (is_live(container))
        r = network->kind == NETWORK_CNI ? connect_plugins(change, place)
                                         : connect_running(change, place);
    if (r < 0)
        place_remove(container, place);
    return r;
}

static void connect_begin(struct operation *operation)
{
    change_begin((struct change_operation *)operation, connect_apply);
}

static const struct operation_kind connect_kind = {
    .name = "connect", .begin = connect_begin, .release = change_release};

void engine_network_connect(struct container *container, const struct api_network_connect *how,
                            engine_done done, void *data)
{
    struct change_operation *change = xnew(struct change_operation);
    _cleanup_buffer_ struct buffer text = BUFFER_INIT;

    change->base.kind = &connect_kind;
    change->network = xstrdup(how->network);
    if (how->endpoint) {
        api_endpoint_write(how->endpoint, &text);
        (void)api_endpoint_parse(buffer_text(&text), text.length, "endpoint", &change->endpoint,
                                 NULL);
    }
    operation_submit(container, &change->base, done, data);
}

/* --- disconnect ------------------------------------------------------------------------------- */

static struct place *place_by_name(const struct container *container, const char *name)
{
    for (size_t i = 0; i < container->places_count; i++) {
        if (text_equal(container->places[i]->network_name, name) ||
            text_equal(container->places[i]->network_id, name))
            return container->places[i];
    }
    return NULL;
}

/* Another network's gateway is the way out now, and its address the one that ports lead to. */
static int use_other_main(struct container *container, struct error *err)
{
    const struct place *main = places_main(container);
    _cleanup_close_ int netns = -1;
    int r = publish_again(container, err);

    if (r < 0 || !main || main->network->record->internal)
        return r;
    r = container_open_netns(container, &netns, err);
    return r < 0 ? r : net_interface_route(container->engine->net, netns, &main->interface, err);
}

/* All that can fail comes before the place is given up: it stays as it was, or goes as a whole. */
static int change_main(struct container *container, struct place *leaving, struct error *err)
{
    leaving->held = false; /* places_main() looks for another one */
    int r = use_other_main(container, err);
    leaving->held = true;
    if (r < 0)
        (void)publish_again(container, NULL);
    return r;
}

/* Plug-ins get ports, and make routes, at the start alone. */
static int may_leave(const struct container *container, struct place *leaving, struct error *err)
{
    const bool was_main = places_main(container) == leaving;

    leaving->held = false;
    const struct place *next = places_main(container);
    leaving->held = true;
    if (!was_main ||
        (!container->ports_by_plugins && (!next || next->network->kind != NETWORK_CNI)))
        return 0;
    if (container->ports_by_plugins)
        error_set(err, -EPERM, "its ports were published by plug-ins of network %s",
                  leaving->network->record->name);
    else
        error_set(err, -EPERM,
                  "the container's way out would be network %s, whose plug-ins make routes at the "
                  "start",
                  next->network->record->name);
    return error_hint(err, "disconnect it while it is stopped"), -EPERM;
}

static void on_plugins_left(const struct error *err, void *data)
{
    struct change_operation *change = data;
    struct container *container = change->base.container;
    struct place *place = change->place;

    if (err && place->held) {
        error_set(&change->err, err->code, "%s", error_message(err));
        change_applied(change, change->err.code);
        return;
    }
    nameserver_leave(container, place);
    if (place->held)
        event_container_network(container, place->network, "disconnect");
    place_release(place);
    place_remove(container, place);
    nameserver_policy(container);
    change_applied(change, 0);
}

static int disconnect_plugins(struct change_operation *change, struct place *place)
{
    struct container *container = change->base.container;
    int r = may_leave(container, place, &change->err);

    if (r == 0 && places_main(container) == place)
        r = change_main(container, place, &change->err);
    change->place = place;
    if (r == 0)
        r = cni_disconnect(container, place, on_plugins_left, change, &change->err);
    return r < 0 ? r : APPLIES_LATER;
}

static int disconnect_running(struct change_operation *change, struct place *place)
{
    struct container *container = change->base.container;
    struct network *network = place->network;
    int r = may_leave(container, place, &change->err);

    if (r == 0 && places_main(container) == place)
        r = change_main(container, place, &change->err);
    if (r < 0)
        return r;
    change->link = xstrdup(place->interface.host_name);
    nameserver_leave(container, place);
    place_release(place);
    event_container_network(container, network, "disconnect");
    place_remove(container, place);
    nameserver_policy(container);
    return 0;
}

static int disconnect_apply(struct change_operation *change)
{
    struct container *container = change->base.container;
    struct network *network = NULL;
    struct place *place = NULL;

    if (network_is_host(container))
        return error_set(&change->err, -EPERM,
                         "container cannot be disconnected from host network or connected to host "
                         "network");
    if (network_find(container->engine, change->network, &network, NULL) == 0)
        place = places_find(container, network);
    else
        place = place_by_name(container, change->network);
    if (!place)
        return network
                   ? error_set(&change->err, -EPERM, "container %s is not connected to network %s",
                               container->id, network->record->name)
                   : error_set(&change->err, -ENOENT, "network %.128s not found", change->network);
    if (place->held && place->network->kind == NETWORK_CNI)
        return disconnect_plugins(change, place);
    if (place->held)
        return disconnect_running(change, place);
    place_remove(container, place);
    return 0;
}

static void disconnect_begin(struct operation *operation)
{
    change_begin((struct change_operation *)operation, disconnect_apply);
}

static const struct operation_kind disconnect_kind = {
    .name = "disconnect", .begin = disconnect_begin, .release = change_release};

void engine_network_disconnect(struct container *container,
                               const struct api_network_disconnect *how, engine_done done,
                               void *data)
{
    struct change_operation *change = xnew(struct change_operation);

    change->base.kind = &disconnect_kind;
    change->network = xstrdup(how->network);
    operation_submit(container, &change->base, done, data);
}

/* --- ports ------------------------------------------------------------------------------------ */

static int check_port(const struct container *container, const struct api_port *port,
                      struct error *err)
{
    struct net_ip address;

    if (port->container_port == 0)
        return error_set(err, -EINVAL, "invalid container port: 0");
    if (container->places_count == 0)
        return error_set(err, -EINVAL, "container %s has no network of its own to publish from",
                         container->name);
    return text_empty(port->host_address) ? 0 : net_ip_parse(port->host_address, &address, err);
}

static int publish_apply(struct change_operation *change)
{
    struct container *container = change->base.container;
    const struct api_container_ports *wanted = change->ports;
    const size_t before = container->publications_count;
    int r = 0;

    if (is_live(container) && !places_main(container))
        r = error_set(&change->err, -EINVAL, "the container is on no network");
    for (size_t i = 0; r == 0 && i < wanted->ports_count; i++)
        r = check_port(container, wanted->ports[i], &change->err);
    for (size_t i = 0; r == 0 && is_live(container) && i < wanted->ports_count; i++)
        r = ports_publish_one(container, wanted->ports[i], &change->err);
    if (r < 0) { /* all of them or none */
        while (container->publications_count > before)
            (void)net_unpublish(container->engine->net,
                                &container->publications[--container->publications_count], NULL);
        return r;
    }
    for (size_t i = 0; i < wanted->ports_count; i++)
        ports_want(container, wanted->ports[i]);
    return 0;
}

static void publish_begin(struct operation *operation)
{
    change_begin((struct change_operation *)operation, publish_apply);
}

static int unpublish_apply(struct change_operation *change)
{
    struct container *container = change->base.container;

    if (container->ports_by_plugins)
        return error_set(&change->err, -EPERM,
                         "its ports were published by plug-ins: they go when it stops");
    for (size_t i = 0; i < change->ports->ports_count; i++) { /* all of them or none */
        const struct api_port *port = change->ports->ports[i];

        if (!ports_has(container, port))
            return error_set(&change->err, -ENOENT, "No public port '%u/%s' published for %s",
                             port->container_port,
                             ports_protocol_name(ports_protocol(port->protocol)), container->name);
    }
    for (size_t i = 0; i < change->ports->ports_count; i++) {
        ports_unpublish(container, change->ports->ports[i]);
        ports_want_no_more(container, change->ports->ports[i]);
    }
    return 0;
}

static void unpublish_begin(struct operation *operation)
{
    change_begin((struct change_operation *)operation, unpublish_apply);
}

static const struct operation_kind publish_kind = {
    .name = "publish", .begin = publish_begin, .release = change_release};
static const struct operation_kind unpublish_kind = {
    .name = "unpublish", .begin = unpublish_begin, .release = change_release};

static void submit_ports(struct container *container, const struct operation_kind *kind,
                         const struct api_container_ports *which, engine_done done, void *data)
{
    struct change_operation *change = xnew(struct change_operation);
    _cleanup_buffer_ struct buffer text = BUFFER_INIT;

    change->base.kind = kind;
    api_container_ports_write(which, &text);
    (void)api_container_ports_parse(buffer_text(&text), text.length, "ports", &change->ports, NULL);
    operation_submit(container, &change->base, done, data);
}

void engine_container_publish(struct container *container, const struct api_container_ports *which,
                              engine_done done, void *data)
{
    submit_ports(container, &publish_kind, which, done, data);
}

void engine_container_unpublish(struct container *container,
                                const struct api_container_ports *which, engine_done done,
                                void *data)
{
    submit_ports(container, &unpublish_kind, which, done, data);
}
