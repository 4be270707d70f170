#include <arpa/inet.h>
#include <errno.h>
#include <string.h>

#include <base/alloc.h>
#include <base/log.h>
#include <base/text.h>

#include "events.h"
#include "internal.h"

/* One network namespace ready for the next container, made when the loop has nothing to do. */
enum { SPARE_NAMESPACES = 2, SPARE_DELAY_MS = 20 };

/* --- the bridge ------------------------------------------------------------------------------- */

static int recorded_subnet(struct engine *engine, struct net_subnet *ret)
{
    _cleanup_store_statement_ struct store_statement *row = NULL;

    int r = store_db_query(store_database(engine->store), &row, NULL,
                           "SELECT value FROM engine_settings WHERE name = 'subnet'", "");
    if (r < 0 || store_statement_step(row, NULL) <= 0)
        return -ENOENT;
    return net_subnet_parse(store_statement_text(row, 0), ret, NULL);
}

/* The subnet on record, else a free one, which is recorded: containers keep their addresses over
 * restarts of daemon and machine. */
static int decide_subnet(struct engine *engine, struct error *err)
{
    char text[NET_SUBNET_TEXT];

    if (recorded_subnet(engine, &engine->subnet) == 0)
        return 0;
    int r = net_choose_subnet(engine->instance->bridge, &engine->subnet, err);
    if (r < 0)
        return r;
    r = store_db_run(store_database(engine->store), err,
                     "INSERT OR REPLACE INTO engine_settings VALUES ('subnet', ?)", "t",
                     net_subnet_format(&engine->subnet, text));
    if (r < 0)
        return r;
    event_network(engine, "create");
    return 0;
}

static void on_rules_changed(uv_poll_t *poll, int status, int events)
{
    struct engine *engine = poll->data;
    _cleanup_error_ struct error err = ERROR_INIT;

    int r = net_dispatch(engine->net, &err);
    if (r < 0)
        log_failure(LOG_ERROR, &err, "the network's rules were removed and cannot be restored");
    else if (r > 0)
        log_warning("the network's rules were removed by somebody; they are restored");
}

static void on_spare_time(uv_timer_t *timer)
{
    struct engine *engine = timer->data;

    if (net_prepare_spare(engine->net, SPARE_NAMESPACES, NULL) > 0)
        uv_timer_start(timer, on_spare_time, SPARE_DELAY_MS, 0);
}

static void start_handles(struct engine *engine)
{
    uv_timer_init(engine->loop, &engine->spare_timer);
    engine->spare_timer.data = engine;
    uv_poll_init(engine->loop, &engine->net_poll, net_poll_fd(engine->net));
    engine->net_poll.data = engine;
    uv_poll_start(&engine->net_poll, UV_READABLE, on_rules_changed);
    uv_timer_start(&engine->spare_timer, on_spare_time, SPARE_DELAY_MS, 0);
    engine->net_handles_open = true;
}

int network_open(struct engine *engine, struct error *err)
{
    struct net_config config = {
        .bridge = engine->instance->bridge,
        .nft_table = engine->instance->nft_table,
    };
    int r;

    r = decide_subnet(engine, err);
    if (r < 0)
        return r;
    config.subnet = engine->subnet;
    r = net_open(&config, &engine->net, err);
    if (r < 0)
        return r;
    engine->addresses = net_pool_create(&engine->subnet);
    return 0;
}

int network_setup(struct engine *engine, struct error *err)
{
    int r = net_setup(engine->net, err);

    if (r < 0)
        return r;
    start_handles(engine);
    return 0;
}

void network_close(struct engine *engine)
{
    if (engine->net_handles_open) {
        uv_close((uv_handle_t *)&engine->net_poll, NULL);
        uv_close((uv_handle_t *)&engine->spare_timer, NULL);
        engine->net_handles_open = false;
    }
    net_close(engine->net);
    engine->net = NULL;
    net_pool_destroy(engine->addresses);
    engine->addresses = NULL;
    error_finish(&engine->net_error);
}

/* --- a container's place ---------------------------------------------------------------------- */

static enum net_protocol protocol_of(const char *name)
{
    return text_equal(name, "udp") ? NET_UDP : NET_TCP;
}

static bool wants_bridge(const struct container *container)
{
    return text_equal(container->effective->network_mode, "bridge");
}

static void add_publication(struct container *container, const struct net_publication *publication)
{
    container->publications =
        xrealloc(container->publications, container->publications_count + 1, sizeof(*publication));
    container->publications[container->publications_count++] = *publication;
}

static int publish(struct container *container, const struct api_port *port, struct error *err)
{
    struct net_publication publication = {
        .protocol = protocol_of(port->protocol),
        .host_port = port->host_port,
        .container_address = container->address,
        .container_port = port->container_port,
    };
    int r = 0;

    if (!text_empty(port->host_address))
        r = net_address_parse(port->host_address, &publication.host_address, err);
    if (r == 0)
        r = net_publish(container->engine->net, &publication, err);
    if (r < 0)
        return r;
    add_publication(container, &publication);
    return 0;
}

static struct record_port *record_of(const struct net_publication *publication)
{
    struct record_port *port = xnew(struct record_port);
    char address[NET_ADDRESS_TEXT];

    port->host_address = xstrdup(net_address_format(publication->host_address, address));
    port->host_port = publication->host_port;
    port->container_port = publication->container_port;
    port->protocol = xstrdup(publication->protocol == NET_UDP ? "udp" : "tcp");
    return port;
}

static void write_record(struct container *container)
{
    struct record_network *network = NULL;
    char address[NET_ADDRESS_TEXT];

    record_network_free(container->record->network);
    if (container->has_address) {
        network = xnew(struct record_network);
        network->address = xstrdup(net_address_format(container->address, address));
        network->ports = xnew_array(struct record_port *, container->publications_count + 1);
        network->ports_count = container->publications_count;
        for (size_t i = 0; i < container->publications_count; i++)
            network->ports[i] = record_of(&container->publications[i]);
    }
    container->record->network = network;
}

int network_reserve(struct container *container, struct error *err)
{
    const struct api_container_spec *spec = container->effective;
    struct engine *engine = container->engine;
    int r;

    if (!wants_bridge(container))
        return 0;
    if (engine->net_error.code)
        return error_set(err, -ENETDOWN, "there is no network: %s",
                         error_message(&engine->net_error));
    r = net_pool_allocate(engine->addresses, &container->address, err);
    if (r < 0)
        return r;
    container->has_address = true;
    for (size_t i = 0; r == 0 && i < spec->ports_count; i++)
        r = publish(container, spec->ports[i], err);
    if (r < 0) {
        network_release(container);
        return r;
    }
    write_record(container);
    return 0;
}

void network_release(struct container *container)
{
    struct engine *engine = container->engine;
    _cleanup_error_ struct error err = ERROR_INIT;

    for (size_t i = 0; engine->net && i < container->publications_count; i++) {
        if (net_unpublish(engine->net, &container->publications[i], &err) < 0)
            log_failure(LOG_WARNING, &err, "a port of %.12s stays published", container->id);
    }
    container->publications_count = 0;
    if (container->has_address && engine->addresses)
        net_pool_release(engine->addresses, container->address);
    container->has_address = false;
    write_record(container);
}

int network_create(struct container *container, int *ret_netns_fd, struct error *err)
{
    struct engine *engine = container->engine;
    char name[16];

    if (text_equal(container->effective->network_mode, "host")) {
        *ret_netns_fd = -1;
        return 0;
    }
    if (!engine->net)
        return error_set(err, -ENETDOWN, "there is no network: %s",
                         error_message(&engine->net_error));
    if (engine->net_handles_open)
        uv_timer_start(&engine->spare_timer, on_spare_time, SPARE_DELAY_MS, 0);
    if (!container->has_address)
        return net_endpoint_create_none(engine->net, ret_netns_fd, err);
    snprintf(name, sizeof(name), "v%.8s", container->id);
    struct net_endpoint endpoint = {.address = container->address, .link_name = name};
    return net_endpoint_create(engine->net, &endpoint, ret_netns_fd, err);
}

/* --- after a restart -------------------------------------------------------------------------- */

static void restore_port(struct container *container, const struct record_port *port)
{
    struct net_publication publication = {
        .protocol = protocol_of(port->protocol),
        .host_port = port->host_port,
        .container_address = container->address,
        .container_port = port->container_port,
    };
    _cleanup_error_ struct error err = ERROR_INIT;

    int r = net_address_parse(port->host_address, &publication.host_address, &err);
    if (r == 0)
        r = net_restore_publication(container->engine->net, &publication, &err);
    if (r < 0)
        log_failure(LOG_ERROR, &err, "a port of %.12s is lost", container->id);
    else
        add_publication(container, &publication);
}

void network_restore(struct container *container)
{
    const struct record_network *network = container->record->network;
    struct engine *engine = container->engine;
    _cleanup_error_ struct error err = ERROR_INIT;

    if (!network || !engine->net)
        return;
    int r = net_address_parse(network->address, &container->address, &err);
    if (r == 0)
        r = net_pool_reserve(engine->addresses, container->address, &err);
    if (r < 0) {
        log_failure(LOG_ERROR, &err, "the address of %.12s is lost", container->id);
        return;
    }
    container->has_address = true;
    for (size_t i = 0; i < network->ports_count; i++)
        restore_port(container, network->ports[i]);
}
