/*
 * The engine's side of net: opening it with the networks on record, and its handles in the loop.
 */
#include <errno.h>
#include <string.h>

#include <base/alloc.h>
#include <base/log.h>
#include <base/text.h>

#include "cni.h"
#include "nameserver.h"
#include "networks.h"
#include "relay.h"

/* One network namespace ready for the next container, made when the loop has nothing to do. */
enum { SPARE_NAMESPACES = 2, SPARE_DELAY_MS = 20 };

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

void network_prepare_spare(struct engine *engine)
{
    if (engine->net_handles_open)
        uv_timer_start(&engine->spare_timer, on_spare_time, SPARE_DELAY_MS, 0);
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
    _cleanup_free_ char *state = xasprintf("%s/forwarding", engine->instance->run);
    int r = net_open(engine->instance->nft_table, state, &engine->net, err);

    if (r == 0 && engine->rootless) {
        _cleanup_free_ char *outside = xasprintf("%s/" NET_OUTSIDE_SOCKET, engine->instance->run);

        net_set_outside(engine->net, outside);
    }
    if (r == 0)
        net_ask_for_ports(engine->net, cni_has_port, engine);
    if (r == 0)
        r = networks_load(engine, err);
    for (size_t i = 0; r == 0 && i < engine->containers_count; i++)
        places_resolve(engine->containers[i]);
    return r;
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
    nameserver_close(engine, engine->removing);
    relay_close(engine, engine->removing);
    for (size_t i = 0; i < engine->networks_count; i++)
        engine->networks[i]->bridge = NULL;
    net_close(engine->net);
    engine->net = NULL;
    error_finish(&engine->net_error);
}

void network_free_all(struct engine *engine)
{
    while (engine->networks_count > 0)
        network_free(engine->networks[--engine->networks_count]);
    free(steal_ptr(engine->networks));
}
