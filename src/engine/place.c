/*
 * Containers on networks: what they ask for, what they hold while they run, and what the record
 * says of both.
 */
#include "place.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <base/alloc.h>
#include <base/log.h>
#include <base/text.h>

#include "cni.h"
#include "lingering.h"
#include "nameserver.h"
#include "networks.h"
#include "relay.h"
#include "spec.h"

#define SHARED_PREFIX "container:"

/* --- kinds ------------------------------------------------------------------------------------ */

static const char *mode_of(const struct container *container)
{
    const struct api_container_spec *spec =
        container->effective ? container->effective : container->spec;

    return text_empty(spec->network_mode) ? "bridge" : spec->network_mode;
}

bool network_is_host(const struct container *container)
{
    return text_equal(mode_of(container), "host");
}

const char *network_shared_with(const struct container *container)
{
    const char *mode = mode_of(container);

    return text_starts_with(mode, SHARED_PREFIX) ? mode + strlen(SHARED_PREFIX) : NULL;
}

static bool has_places(const char *mode)
{
    return !text_equal(mode, "none") && !text_equal(mode, "host") &&
           !text_starts_with(mode, SHARED_PREFIX);
}

/* --- the list --------------------------------------------------------------------------------- */

void place_free(struct place *place)
{
    if (!place)
        return;
    free(place->network_name);
    api_endpoint_free(place->wanted);
    free(place);
}

static struct api_endpoint *copy_endpoint(const struct api_endpoint *endpoint)
{
    _cleanup_buffer_ struct buffer text = BUFFER_INIT;
    struct api_endpoint *copy = NULL;

    if (!endpoint)
        return xnew(struct api_endpoint);
    api_endpoint_write(endpoint, &text);
    if (api_endpoint_parse(buffer_text(&text), text.length, "endpoint", &copy, NULL) < 0)
        return xnew(struct api_endpoint);
    return copy;
}

struct place *place_new(struct container *container, const char *network,
                        const struct api_endpoint *wanted)
{
    struct place *place = xnew(struct place);

    place->network_name = xstrdup(text_equal(network, "default") ? "bridge" : network);
    place->wanted = copy_endpoint(wanted);
    container->places =
        xrealloc(container->places, container->places_count + 1, sizeof(struct place *));
    container->places[container->places_count++] = place;
    return place;
}

void place_remove(struct container *container, struct place *place)
{
    for (size_t i = 0; i < container->places_count; i++) {
        if (container->places[i] != place)
            continue;
        container->places_count--;
        memmove(&container->places[i], &container->places[i + 1],
                (container->places_count - i) * sizeof(struct place *));
        place_free(place);
        return;
    }
}

void places_free(struct container *container)
{
    for (size_t i = 0; i < container->places_count; i++)
        place_free(container->places[i]);
    free(steal_ptr(container->places));
    container->places_count = 0;
}

struct place *places_find(const struct container *container, const struct network *network)
{
    for (size_t i = 0; i < container->places_count; i++) {
        if (container->places[i]->network == network)
            return container->places[i];
    }
    return NULL;
}

struct place *places_main(const struct container *container)
{
    struct place *first = NULL;

    for (size_t i = 0; i < container->places_count; i++) {
        struct place *place = container->places[i];

        if (!place->held)
            continue;
        if (!place->network->record->internal)
            return place;
        if (!first)
            first = place;
    }
    return first;
}

unsigned place_prefix(const struct place *place)
{
    return place->network->kind == NETWORK_CNI ? place->found.prefix
                                               : place->network->subnet.prefix;
}

unsigned place_prefix6(const struct place *place)
{
    return place->network->kind == NETWORK_CNI ? place->found.prefix6
                                               : place->network->subnet6.prefix;
}

struct in_addr place_gateway(const struct place *place)
{
    return place->network->kind == NETWORK_CNI ? place->found.gateway
                                               : place->network->subnet.gateway;
}

struct in6_addr place_gateway6(const struct place *place)
{
    return place->network->kind == NETWORK_CNI ? place->found.gateway6
                                               : place->network->subnet6.gateway;
}

static bool same_network(const char *a, const char *b)
{
    return text_equal(a, b) || (text_equal(a, "default") && text_equal(b, "bridge")) ||
           (text_equal(a, "bridge") && text_equal(b, "default"));
}

void places_plan(struct container *container)
{
    const struct api_container_spec *spec = container->spec;
    const struct api_endpoints *networks = spec->networks;
    const char *mode = mode_of(container);
    const struct api_endpoint *wanted = NULL;

    if (!has_places(mode))
        return;
    for (size_t i = 0; networks && i < networks->count; i++) {
        if (same_network(networks->keys[i], mode))
            wanted = networks->values[i];
    }
    struct place *first = place_new(container, mode, wanted);
    if (text_empty(first->wanted->mac_address) && !text_empty(spec->mac_address))
        first->wanted->mac_address = xstrdup(spec->mac_address);
    if (first->wanted->links_count == 0 && !network_is_builtin(first->network_name)) {
        first->wanted->links = strv_copy(spec->links);
        first->wanted->links_count = spec->links_count;
    }
    for (size_t i = 0; networks && i < networks->count; i++) {
        if (!same_network(networks->keys[i], mode))
            place_new(container, networks->keys[i], networks->values[i]);
    }
    places_resolve(container);
}

int place_check_aliases(const char *network, const struct api_endpoint *wanted, struct error *err)
{
    if (!wanted || wanted->aliases_count == 0 ||
        (!network_is_builtin(network) && !text_equal(network, "default")))
        return 0;
    return error_set(err, -EINVAL,
                     "network-scoped alias is supported only for containers in user defined "
                     "networks");
}

/* By name also of networks that it will have no place on; places know what an ID stands for. */
int places_check(const struct container *container, struct error *err)
{
    const struct api_endpoints *networks = container->spec->networks;
    int r = 0;

    for (size_t i = 0; r == 0 && networks && i < networks->count; i++)
        r = place_check_aliases(networks->keys[i], networks->values[i], err);
    for (size_t i = 0; r == 0 && i < container->places_count; i++) {
        const struct place *place = container->places[i];
        if (place->network)
            r = place_check_aliases(place->network->record->name, place->wanted, err);
    }
    return r;
}

void places_resolve(struct container *container)
{
    for (size_t i = 0; i < container->places_count; i++)
        (void)place_resolve(container, container->places[i], NULL);
}

int place_resolve(struct container *container, struct place *place, struct error *err)
{
    struct engine *engine = container->engine;

    if (place->network)
        return 0;
    if (place->network_id[0])
        place->network = network_by_id(engine, place->network_id);
    if (!place->network) {
        struct network *network = NULL;
        int r = network_find(engine, place->network_name, &network, err);

        if (r < 0)
            return r;
        place->network = network;
    }
    memcpy(place->network_id, place->network->id, sizeof(place->network_id));
    return 0;
}

/* --- the record ------------------------------------------------------------------------------- */

static char *text_of_mac(const uint8_t mac[static 6])
{
    return xasprintf("%02x:%02x:%02x:%02x:%02x:%02x", mac[0], mac[1], mac[2], mac[3], mac[4],
                     mac[5]);
}

static struct record_place *record_of(const struct place *place)
{
    struct record_place *record = xnew(struct record_place);
    char text[NET_IP_TEXT];

    record->network = xstrdup(place->network_name);
    record->network_id = place->network_id[0] ? xstrdup(place->network_id) : NULL;
    record->wanted = copy_endpoint(place->wanted);
    if (!place->held)
        return record;
    record->endpoint_id = xstrdup(place->endpoint_id);
    record->link = xstrdup(place->interface.name);
    record->host_link = xstrdup(place->interface.host_name);
    if (place_prefix(place) > 0)
        record->address = xstrdup(net_address_format(place->interface.address, text));
    if (place_prefix6(place) > 0) {
        const struct net_ip address = net_ip_v6(place->interface.address6);

        record->address6 = xstrdup(net_ip_format(&address, text));
    }
    record->mac_address = text_of_mac(place->interface.mac);
    if (place->network->kind == NETWORK_CNI)
        cni_write_place(place, record);
    return record;
}

static void drop_old(struct record_container *record)
{
    record_network_free(steal_ptr(record->network));
    for (size_t i = 0; i < record->places_count; i++)
        record_place_free(record->places[i]);
    free(steal_ptr(record->places));
    record->places_count = 0;
}

void places_write(struct container *container)
{
    struct record_container *record = container->record;

    drop_old(record);
    record->places = xnew_array(struct record_place *, container->places_count + 1);
    for (size_t i = 0; i < container->places_count; i++)
        record->places[record->places_count++] = record_of(container->places[i]);
    ports_write(container);
}

/* What a version before networks wrote. */
static void read_old(struct container *container)
{
    const char *mode = mode_of(container);

    if (has_places(mode))
        place_new(container, mode, NULL);
}

void places_read(struct container *container)
{
    const struct record_container *record = container->record;

    if (!record->places) {
        read_old(container);
        return;
    }
    for (size_t i = 0; i < record->places_count; i++) {
        const struct record_place *from = record->places[i];
        struct place *place = place_new(container, from->network, from->wanted);

        if (from->network_id)
            snprintf(place->network_id, sizeof(place->network_id), "%s", from->network_id);
    }
}

/* --- addresses -------------------------------------------------------------------------------- */

/* Whether somebody on the network has asked for this IPv6 address. */
static bool has_address6(const struct engine *engine, const struct network *network,
                         const struct in6_addr *address)
{
    for (size_t i = 0; i < engine->containers_count; i++) {
        const struct place *place = places_find(engine->containers[i], network);

        if (place && place->held &&
            memcmp(&place->interface.address6, address, sizeof(*address)) == 0)
            return true;
    }
    return memcmp(&network->subnet6.gateway, address, sizeof(*address)) == 0;
}

/* The number of its IPv4 address in the IPv4 subnet, or a further one of the same: no table of what
 * is free is needed for that. */
static struct in6_addr choose_address6(const struct engine *engine, const struct network *network,
                                       struct in_addr address)
{
    uint32_t number = ntohl(address.s_addr) - ntohl(net_subnet_network(&network->subnet).s_addr);
    struct in6_addr chosen = net_subnet6_at(&network->subnet6, number);
    uint32_t step = network->subnet6.prefix <= 96 ? 1U << 24 : 1U << 16;

    for (int i = 0; i < 16 && has_address6(engine, network, &chosen); i++) {
        number += step;
        chosen = net_subnet6_at(&network->subnet6, number);
    }
    return chosen;
}

static int hold_ipv6(struct container *container, struct place *place, struct error *err)
{
    const struct network *network = place->network;
    struct net_interface *interface = &place->interface;

    if (network->subnet6.prefix == 0)
        return 0;
    if (text_empty(place->wanted->ipv6_address)) {
        interface->address6 = choose_address6(container->engine, network, interface->address);
        return 0;
    }
    if (inet_pton(AF_INET6, place->wanted->ipv6_address, &interface->address6) != 1)
        return error_set(err, -EINVAL, "invalid IPv6 address: %s", place->wanted->ipv6_address);
    if (!net_subnet6_contains(&network->subnet6, &interface->address6))
        return error_set(err, -EINVAL,
                         "invalid address %s: It does not belong to any of this "
                         "network's subnets",
                         place->wanted->ipv6_address);
    if (has_address6(container->engine, network, &interface->address6))
        return error_set(err, -EADDRINUSE, "Address already in use");
    return 0;
}

static int hold_ipv4(struct place *place, struct error *err)
{
    struct net_interface *interface = &place->interface;

    if (text_empty(place->wanted->ipv4_address))
        return net_pool_allocate(place->network->addresses, &interface->address, err);
    int r = net_address_parse(place->wanted->ipv4_address, &interface->address, err);
    if (r == 0)
        r = net_pool_reserve(place->network->addresses, interface->address, err);
    return r;
}

/* The lowest ethN that no other place has. */
static void choose_link(const struct container *container, struct place *place)
{
    for (unsigned number = 0; number <= ENGINE_PLACES_MAX; number++) {
        bool taken = false;

        snprintf(place->interface.name, sizeof(place->interface.name), "eth%u", number);
        for (size_t i = 0; i < container->places_count; i++) {
            const struct place *other = container->places[i];

            taken = taken || (other != place && other->held &&
                              text_equal(other->interface.name, place->interface.name));
        }
        if (taken)
            continue;
        snprintf(place->interface.host_name, sizeof(place->interface.host_name),
                 number > 0 ? "v%.8sn%u" : "v%.8s", container->id, number);
        return;
    }
}

static int choose_mac(struct place *place, struct error *err)
{
    if (!text_empty(place->wanted->mac_address))
        return net_mac_parse(place->wanted->mac_address, place->interface.mac, err);
    net_address_mac(place->interface.address, place->interface.mac);
    return 0;
}

int place_hold(struct container *container, struct place *place, struct error *err)
{
    struct network *network;
    int r = place_resolve(container, place, err);

    if (r < 0)
        return r;
    network = place->network;
    if (network->kind == NETWORK_CNI) {
        if (place->wanted->link_local_ips_count)
            return error_set(err, -EOPNOTSUPP,
                             "network %s is one of plug-ins, which take no link-local addresses",
                             network->record->name);
        memset(&place->interface, 0, sizeof(place->interface));
        choose_link(container, place);
        text_random_hex(place->endpoint_id, NETWORK_ID_DIGITS);
        place->held = true;
        return 0;
    }
    if (network->kind != NETWORK_BRIDGE)
        return error_set(err, -EPERM, "container cannot be connected to network %s among others",
                         network->record->name);
    if (!network->bridge)
        return error_set(err, -ENETDOWN, "there is no network: %s",
                         error_message(&container->engine->net_error));
    memset(&place->interface, 0, sizeof(place->interface));
    r = hold_ipv4(place, err);
    if (r < 0)
        return r;
    r = hold_ipv6(container, place, err);
    if (r == 0)
        r = choose_mac(place, err);
    if (r == 0)
        r = spec_link_local(place->wanted, &place->interface, err);
    if (r < 0) {
        net_pool_release(network->addresses, place->interface.address);
        return r;
    }
    lingering_give_way(container->engine, place->interface.address);
    place->interface.bridge = network->bridge;
    choose_link(container, place);
    text_random_hex(place->endpoint_id, NETWORK_ID_DIGITS);
    place->held = true;
    return 0;
}

void place_release(struct place *place)
{
    if (place->held && place->network && place->network->kind == NETWORK_BRIDGE)
        net_pool_release(place->network->addresses, place->interface.address);
    place->held = place->attached = false;
    place->found = (struct cni_addresses){0};
    place->endpoint_id[0] = '\0';
}

/* --- a container that starts ------------------------------------------------------------------ */

int network_reserve(struct container *container, struct error *err)
{
    struct engine *engine = container->engine;
    int r = 0;

    if (container->places_count > 0 && engine->net_error.code)
        return error_set(err, -ENETDOWN, "there is no network: %s",
                         error_message(&engine->net_error));
    for (size_t i = 0; r == 0 && i < container->places_count; i++)
        r = place_hold(container, container->places[i], err);
    if (r == 0)
        r = ports_publish(container, err);
    if (r < 0) {
        network_release(container);
        return r;
    }
    places_write(container);
    return 0;
}

void network_release(struct container *container)
{
    if (container->publications_count > 0)
        relay_gone(container);
    ports_withdraw(container);
    if (cni_is_attached(container))
        cni_leave(container, NULL, NULL);
    if (nameserver_is_needed(container))
        nameserver_gone(container);
    nameserver_drop(container);
    for (size_t i = 0; i < container->places_count; i++) {
        struct place *place = container->places[i];

        if (place->held && place->network && place->network->kind == NETWORK_BRIDGE)
            lingering_add(container->engine, place->interface.host_name, place->interface.address);
        place_release(place);
    }
    places_write(container);
}

int container_open_netns(const struct container *container, int *ret_fd, struct error *err)
{
    _cleanup_free_ char *bound = container_run_path(container, "netns");
    _cleanup_free_ char *path =
        xasprintf("/proc/%jd/root%s", (intmax_t)container->record->monitor_pid, bound);
    int fd = open(path, O_RDONLY | O_CLOEXEC);

    if (fd < 0)
        return error_errno(err, errno, "open the network of container %.12s", container->id);
    *ret_fd = fd;
    return 0;
}

static int create_own(struct container *container, int made_fd, int *ret_netns_fd,
                      struct error *err)
{
    struct net_interface interfaces[ENGINE_PLACES_MAX];
    const struct place *main = places_main(container);
    struct place *held[ENGINE_PLACES_MAX];
    size_t count = 0;

    for (size_t i = 0; i < container->places_count && count < ENGINE_PLACES_MAX; i++) {
        struct place *place = container->places[i];

        if (!place->held || place->network->kind == NETWORK_CNI)
            continue;
        place->interface.default_route = place == main && !place->network->record->internal;
        held[count] = place;
        interfaces[count++] = place->interface;
    }
    int r =
        net_endpoint_create(container->engine->net, made_fd, interfaces, count, ret_netns_fd, err);
    for (size_t i = 0; i < count; i++)
        held[i]->interface = interfaces[i];
    return r < 0 ? r : nameserver_prepare(container, *ret_netns_fd, err);
}

int network_create(struct container *container, int made_fd, int *ret_netns_fd, struct error *err)
{
    struct engine *engine = container->engine;

    *ret_netns_fd = -1;
    if (network_is_host(container) || network_shared_with(container))
        return 0;
    if (!engine->net)
        return error_set(err, -ENETDOWN, "there is no network: %s",
                         error_message(&engine->net_error));
    network_prepare_spare(engine);
    return create_own(container, made_fd, ret_netns_fd, err);
}

/* --- after a restart -------------------------------------------------------------------------- */

static int restore_place(struct place *place, const struct record_place *from, struct error *err)
{
    struct net_interface *interface = &place->interface;
    int r = net_address_parse(from->address, &interface->address, err);

    if (r == 0)
        r = net_pool_reserve(place->network->addresses, interface->address, err);
    if (r < 0)
        return r;
    if (from->address6)
        (void)inet_pton(AF_INET6, from->address6, &interface->address6);
    if (!from->mac_address || net_mac_parse(from->mac_address, interface->mac, NULL) < 0)
        net_address_mac(interface->address, interface->mac);
    snprintf(interface->name, sizeof(interface->name), "%s", from->link ? from->link : "eth0");
    snprintf(interface->host_name, sizeof(interface->host_name), "%s",
             from->host_link ? from->host_link : "");
    snprintf(place->endpoint_id, sizeof(place->endpoint_id), "%s",
             from->endpoint_id ? from->endpoint_id : "");
    interface->bridge = place->network->bridge;
    place->held = true;
    return 0;
}

static void restore_all(struct container *container, struct record_place *const *records,
                        size_t count)
{
    for (size_t i = 0; i < count && i < container->places_count; i++) {
        struct place *place = container->places[i];
        _cleanup_error_ struct error err = ERROR_INIT;

        if (!records[i]->address && !records[i]->endpoint_id)
            continue;
        int r = place_resolve(container, place, &err);
        if (r == 0 && place->network->kind == NETWORK_CNI)
            cni_restore_place(place, records[i]);
        if (r == 0 && place->network->kind == NETWORK_BRIDGE && records[i]->address)
            r = restore_place(place, records[i], &err);
        if (r < 0)
            log_failure(LOG_ERROR, &err, "an address of %.12s is lost", container->id);
    }
}

void network_restore(struct container *container)
{
    const struct record_container *record = container->record;
    char host_link[IFNAMSIZ];

    if (!container->engine->net)
        return;
    if (record->network) { /* of a version before networks */
        snprintf(host_link, sizeof(host_link), "v%.8s", container->id);
        struct record_place old = {.address = record->network->address, .host_link = host_link};

        restore_all(container, (struct record_place *[]){&old}, 1);
    } else {
        restore_all(container, record->places, record->places_count);
    }
    ports_restore(container);
}
