/*
 * The asynchronous connections of an endpoint, and looks at an endpoint that is out. All of it is
 * for the thread that runs the loop.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <base/alloc.h>

#include "pool.h"

/* ---- lanes ---- */

static void unlink_lane(struct lane *lane)
{
    struct endpoint *endpoint = lane->endpoint;
    struct lane **at = &endpoint->lanes;

    while (*at && *at != lane)
        at = &(*at)->next;
    if (!*at)
        return; /* one that is only being looked at */
    *at = lane->next;
    endpoint->lanes_count -= !lane->retired;
}

static void lane_destroy(struct lane *lane)
{
    struct cloche_client *client = lane->endpoint->client;

    client_lock(client);
    lane->endpoint->lanes_open--;
    client_unlock(client);
    unlink_lane(lane);
    rpc_channel_close(lane->channel);
    free(lane);
}

/* After the callbacks of its calls. */
static void on_ended(void *data, const struct error *why _unused_)
{
    lane_destroy(data);
}

void lane_release(struct lane *lane)
{
    if (--lane->in_flight == 0 && lane->retired && rpc_channel_is_open(lane->channel))
        lane_destroy(lane);
}

/* Not in the endpoint's list yet. */
static int lane_open(struct endpoint *endpoint, struct lane **ret, struct error *err)
{
    struct cloche_client *client = endpoint->client;
    struct lane *lane = xnew(struct lane);
    const struct rpc_channel_events events = {
        .ended = on_ended, .data = lane, .metrics = &client->metrics};

    lane->endpoint = endpoint;
    int r = endpoint->address.transport->connect(&endpoint->address, 0, err);
    if (r >= 0)
        r = rpc_channel_open(client->loop, r, &events, &lane->channel, err);
    if (r == 0 && client->settings.encoding == CLOCHE_ENCODING_CBOR)
        rpc_channel_negotiate(lane->channel, "cbor");
    if (r < 0) {
        free(lane);
        error_context(err, "%s", endpoint->name);
        return r;
    }
    client_lock(client);
    endpoint->connects++;
    endpoint->lanes_open++;
    client_unlock(client);
    *ret = lane;
    return 0;
}

static void add_lane(struct lane *lane)
{
    lane->next = lane->endpoint->lanes;
    lane->endpoint->lanes = lane;
    lane->endpoint->lanes_count++;
}

int lane_get(struct endpoint *endpoint, struct lane **ret, struct error *err)
{
    struct lane *best = NULL;

    for (struct lane *lane = endpoint->lanes; lane; lane = lane->next) {
        if (!lane->retired && rpc_channel_is_open(lane->channel) &&
            (!best || lane->in_flight < best->in_flight))
            best = lane;
    }
    if (best && (best->in_flight < LANE_WIDTH ||
                 endpoint->lanes_count >= endpoint->client->settings.connections)) {
        *ret = best;
        return 0;
    }
    int r = lane_open(endpoint, ret, err);
    if (r == 0) {
        add_lane(*ret);
    } else if (best) {
        *ret = best;
        r = 0;
    } else if (!is_exhaustion(r)) {
        endpoint_break(endpoint, false, error_message(err));
        r = -ECONNREFUSED;
    }
    return r;
}

void lanes_retire(struct endpoint *endpoint)
{
    struct lane *next;

    for (struct lane *lane = endpoint->lanes; lane; lane = next) {
        next = lane->next;
        if (!lane->retired)
            endpoint->lanes_count--;
        lane->retired = true;
        if (lane->in_flight == 0 && rpc_channel_is_open(lane->channel))
            lane_destroy(lane);
    }
}

void lanes_drop(struct endpoint *endpoint)
{
    while (endpoint->lanes)
        lane_destroy(endpoint->lanes);
}

void lanes_close(struct endpoint *endpoint)
{
    lanes_drop(endpoint);
    if (endpoint->probe)
        lane_destroy(steal_ptr(endpoint->probe));
    rpc_loop_clear_timer(endpoint->client->loop, &endpoint->probe_timer);
}

/* ---- looks at an endpoint that is out ---- */

/* Any answer is a sign of life, an error, too. */
static void on_pong(void *data, const struct rpc_outcome *outcome)
{
    struct endpoint *endpoint = data;
    struct lane *lane = steal_ptr(endpoint->probe);

    if (!lane)
        return; /* it is being closed */
    if (outcome->code < 0 && !outcome->fault) {
        lane_destroy(lane);
        endpoint_break(endpoint, false, error_message(outcome->error));
        return;
    }
    add_lane(lane);
    endpoint_revive(endpoint);
    async_go_on(endpoint->client);
}

static void begin_probe(struct endpoint *endpoint)
{
    _cleanup_error_ struct error err = ERROR_INIT;
    struct rpc_call ping = {.method = &rpc_ping_method,
                            .timeout_ms = endpoint->client->settings.connect_timeout_ms,
                            .done = on_pong,
                            .data = endpoint};

    int64_t r = lane_open(endpoint, &endpoint->probe, &err);
    if (r == 0)
        r = rpc_channel_call(endpoint->probe->channel, &ping);
    if (r >= 0)
        return;
    if (endpoint->probe)
        lane_destroy(steal_ptr(endpoint->probe));
    endpoint_break(endpoint, false, error_message(&err));
}

static void on_probe(struct rpc_timer *timer)
{
    struct endpoint *endpoint =
        (struct endpoint *)((char *)timer - offsetof(struct endpoint, probe_timer));
    struct cloche_client *client = endpoint->client;

    client_lock(client);
    bool ours = endpoint->state == CLOCHE_ENDPOINT_OUT && !endpoint->probe;
    if (ours)
        endpoint->state = CLOCHE_ENDPOINT_PROBED;
    client_unlock(client);
    if (ours)
        begin_probe(endpoint);
}

void probe_init(struct endpoint *endpoint)
{
    endpoint->probe_timer.callback = on_probe;
}

void probes_arm(struct cloche_client *client)
{
    for (size_t i = 0; i < client->endpoints_count; i++) {
        struct endpoint *endpoint = &client->endpoints[i];
        client_lock(client);
        uint64_t due = endpoint->state == CLOCHE_ENDPOINT_OUT ? endpoint->probe_due : 0;
        client_unlock(client);
        if (due)
            rpc_loop_set_timer(client->loop, &endpoint->probe_timer, due);
    }
}
