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
    endpoint->lanes_count[lane->kind] -= !lane->retired;
    endpoint->full[lane->kind] = false;
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

/* Endpoints of which it will soon be known whether they take calls. */
static size_t about_to_be_ready(const struct cloche_client *client, enum lane_kind kind)
{
    size_t count = 0;

    for (size_t i = 0; i < client->endpoints_count; i++) {
        const struct lane *lane = client->endpoints[i].lanes;
        while (lane && (lane->kind != kind || lane->ready))
            lane = lane->next;
        count += lane != NULL;
    }
    return count;
}

/* The server takes calls. Those that wait are for others, too, that are only a moment slower. */
static void on_ready(void *data)
{
    struct lane *lane = data;
    struct cloche_client *client = lane->endpoint->client;

    lane->ready = true;
    lane->endpoint->full[lane->kind] = false;
    size_t sharers = 1 + about_to_be_ready(client, lane->kind),
           share = (client->waiting[lane->kind].count + sharers - 1) / sharers,
           width = rpc_channel_width(lane->channel);
    async_go_on(client, lane->kind,
                share <= width ? share : width + 1); /* one makes the next lane */
}

/* The answer to a call that had ended. */
static void on_room(void *data)
{
    struct lane *lane = data;

    lane->endpoint->full[lane->kind] = false;
    async_go_on(lane->endpoint->client, lane->kind, 1);
}

/* Of one that is not ready: a server that says it has no room, or we who have none, is no reason to
 * take the endpoint out. It stays full for a while. */
static void end_early(struct endpoint *endpoint, enum lane_kind kind, const struct error *why)
{
    _cleanup_free_ char *message = xasprintf("%s: %s", endpoint->name, error_message(why));

    if (is_exhaustion(why->code)) {
        endpoint->full[kind] = true;
        async_again(endpoint->client);
    } else {
        endpoint_unreached(endpoint, message);
    }
}

/* After the callbacks of its calls. */
static void on_ended(void *data, const struct error *why)
{
    struct lane *lane = data;
    struct endpoint *endpoint = lane->endpoint;
    enum lane_kind kind = lane->kind;
    bool ready = lane->ready;

    lane_destroy(lane);
    if (!ready)
        end_early(endpoint, kind, why);
    else if (why->code == -EPROTO)
        endpoint_garbled(endpoint, error_message(why));
    if (ready)
        async_go_on(endpoint->client, kind, 1);
}

void lane_release(struct lane *lane)
{
    lane->endpoint->full[lane->kind] = false;
    if (--lane->in_flight == 0 && lane->retired && rpc_channel_is_open(lane->channel))
        lane_destroy(lane);
}

/* Not in the endpoint's list yet. */
static int lane_open(struct endpoint *endpoint, enum lane_kind kind, struct lane **ret,
                     struct error *err)
{
    struct cloche_client *client = endpoint->client;
    struct lane *lane = xnew(struct lane);
    const struct rpc_channel_events events = {.ended = on_ended,
                                              .ready = on_ready,
                                              .has_room = on_room,
                                              .data = lane,
                                              .metrics = &client->metrics};
    bool cbor = client->settings.encoding == CLOCHE_ENCODING_CBOR;

    lane->endpoint = endpoint;
    lane->kind = kind;
    int r = endpoint->address.transport->connect(&endpoint->address, 0, err);
    if (r >= 0)
        r = rpc_channel_open(client->loop, r, &events, &lane->channel, err);
    if (r < 0) {
        free(lane);
        error_context(err, "%s", endpoint->name);
        return r;
    }
    rpc_channel_negotiate(lane->channel, cbor ? "cbor" : "json",
                          client->settings.connect_timeout_ms);
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
    lane->endpoint->lanes_count[lane->kind]++;
}

/* So many calls more, and the server still reads. Those that ended here may not have there. */
static size_t room_of(const struct lane *lane)
{
    size_t width = rpc_channel_width(lane->channel),
           used = lane->in_flight + rpc_channel_owed(lane->channel);

    return used < width ? width - used : 0;
}

/* It takes no calls any more, mostly for answers that do not come. */
static bool is_wearing(const struct lane *lane)
{
    return rpc_channel_owed(lane->channel) * 2 >= rpc_channel_width(lane->channel);
}

/* And have not come for so long that they will not: a server that is only slow gets its time. */
static bool is_worn(const struct lane *lane)
{
    const struct cloche_client *client = lane->endpoint->client;
    uint64_t since = rpc_channel_owed_since(lane->channel), now = rpc_loop_now(client->loop);

    return now > since && now - since > client->settings.connect_timeout_ms * NS_PER_MS;
}

static void retire(struct lane *lane)
{
    struct endpoint *endpoint = lane->endpoint;

    if (!lane->retired)
        endpoint->lanes_count[lane->kind]--;
    lane->retired = true;
    if (lane->in_flight == 0 && rpc_channel_is_open(lane->channel))
        lane_destroy(lane);
}

/* What the lanes of a kind are good for. */
struct survey {
    struct lane *best; /* with the most room */
    struct lane *worn; /* without, and it will not have any */
    bool wearing;      /* of one this may come true */
    bool connecting;
    unsigned retired;
};

static struct survey survey_lanes(const struct endpoint *endpoint, enum lane_kind kind)
{
    struct survey survey = {0};

    for (struct lane *lane = endpoint->lanes; lane; lane = lane->next) {
        survey.retired += lane->retired;
        if (lane->kind != kind || lane->retired || !rpc_channel_is_open(lane->channel))
            continue;
        if (!lane->ready)
            survey.connecting = true;
        else if (room_of(lane) && (!survey.best || lane->in_flight < survey.best->in_flight))
            survey.best = lane;
        else if (!room_of(lane) && is_wearing(lane)) {
            survey.wearing = true;
            if (is_worn(lane))
                survey.worn = lane;
        }
    }
    return survey;
}

/* Until it is ready, calls wait, or go to another endpoint: they are not bound to one of which
 * nobody knows whether it answers. */
static int make_lane(struct endpoint *endpoint, enum lane_kind kind, struct error *err)
{
    struct lane *lane;

    int r = lane_open(endpoint, kind, &lane, err);
    if (r == 0) {
        add_lane(lane);
        return -EAGAIN;
    }
    if (is_exhaustion(r))
        return r;
    endpoint_unreached(endpoint, error_message(err));
    return -ECONNREFUSED;
}

int lane_get(struct endpoint *endpoint, enum lane_kind kind, struct lane **ret, struct error *err)
{
    const struct survey survey = survey_lanes(endpoint, kind);
    unsigned most = endpoint->client->settings.connections;
    int r = -EAGAIN;

    if (!survey.best && !survey.connecting && survey.worn && endpoint->lanes_count[kind] >= most &&
        survey.retired < most)
        retire(survey.worn);
    bool wanted = !survey.best || survey.best->in_flight >= LANE_WIDTH;
    if (wanted && !survey.connecting && endpoint->lanes_count[kind] < most)
        r = make_lane(endpoint, kind, err);
    if (survey.best) {
        *ret = survey.best;
        return 0;
    }
    if (survey.wearing)
        async_again(endpoint->client);
    endpoint->full[kind] = r == -EAGAIN;
    return r;
}

void lanes_retire(struct endpoint *endpoint)
{
    struct lane *next;

    for (struct lane *lane = endpoint->lanes; lane; lane = next) {
        next = lane->next;
        retire(lane);
    }
}

void lanes_close(struct endpoint *endpoint)
{
    while (endpoint->lanes)
        lane_destroy(endpoint->lanes);
    if (endpoint->probe)
        lane_destroy(steal_ptr(endpoint->probe));
    rpc_loop_clear_timer(endpoint->client->loop, &endpoint->probe_timer);
}

/* ---- looks at an endpoint that is out, or does not answer ---- */

/* For the next look. One that is due already was put off while another went on. */
static void arm(struct endpoint *endpoint)
{
    struct cloche_client *client = endpoint->client;

    client_lock(client);
    uint64_t due = endpoint->state == CLOCHE_ENDPOINT_OUT ? endpoint->probe_due : 0;
    client_unlock(client);
    if (due)
        rpc_loop_set_timer(client->loop, &endpoint->probe_timer, due);
}

void probes_arm(struct cloche_client *client)
{
    for (size_t i = 0; i < client->endpoints_count; i++)
        arm(&client->endpoints[i]);
}

/* Whatever others did to the endpoint meanwhile, there will be another look if it is out. */
static void look_failed(struct endpoint *endpoint, int code, const char *why)
{
    struct cloche_client *client = endpoint->client;

    client_lock(client);
    bool doubted = endpoint->state == CLOCHE_ENDPOINT_IN;
    endpoint->doubted = false;
    client_unlock(client);
    if (is_exhaustion(code)) {
        endpoint_put_off(endpoint);
    } else {
        if (doubted)
            endpoint_break(endpoint, true, why);
        endpoint_unreached(endpoint, why);
    }
    arm(endpoint);
}

static void look_succeeded(struct endpoint *endpoint)
{
    endpoint_revive(endpoint);
    for (int kind = 0; kind < LANE_KINDS; kind++)
        async_go_on(endpoint->client, kind, SIZE_MAX);
}

/* Any answer is a sign of life, an error, too; one that there is no room for the connection is
 * another. */
static void on_pong(void *data, const struct rpc_outcome *outcome)
{
    struct endpoint *endpoint = data;
    struct lane *lane = steal_ptr(endpoint->probe);

    if (!lane)
        return; /* it is being closed */
    if (outcome->answered &&
        endpoint->lanes_count[LANE_SHORT] < endpoint->client->settings.connections) {
        add_lane(lane);
        lane = NULL;
    }
    if (lane)
        lane_destroy(lane);
    if (outcome->answered || outcome->code == -ENOBUFS)
        look_succeeded(endpoint);
    else
        look_failed(endpoint, outcome->code, error_message(outcome->error));
}

/* Until the ping, which waits for the answer to rpc.hello, is answered. */
static void look_at(struct endpoint *endpoint)
{
    _cleanup_error_ struct error err = ERROR_INIT;
    struct rpc_call ping = {.method = &rpc_ping_method,
                            .timeout_ms = endpoint->client->settings.connect_timeout_ms,
                            .done = on_pong,
                            .data = endpoint};

    int64_t r = lane_open(endpoint, LANE_SHORT, &endpoint->probe, &err);
    if (r == 0)
        r = rpc_channel_call(endpoint->probe->channel, &ping);
    if (r >= 0)
        return;
    if (endpoint->probe)
        lane_destroy(steal_ptr(endpoint->probe));
    look_failed(endpoint, (int)r, error_message(&err));
}

static void on_probe(struct rpc_timer *timer)
{
    struct endpoint *endpoint =
        (struct endpoint *)((char *)timer - offsetof(struct endpoint, probe_timer));
    struct cloche_client *client = endpoint->client;

    client_lock(client);
    bool ours = endpoint->state == CLOCHE_ENDPOINT_OUT && !endpoint->probe;
    if (ours)
        endpoint_begin_look(endpoint);
    client_unlock(client);
    if (ours)
        look_at(endpoint);
}

void probe_doubted(struct endpoint *endpoint)
{
    client_lock(endpoint->client);
    bool ours = endpoint->doubted && endpoint->state == CLOCHE_ENDPOINT_IN && !endpoint->probe;
    client_unlock(endpoint->client);
    if (ours)
        look_at(endpoint);
}

void probe_init(struct endpoint *endpoint)
{
    endpoint->probe_timer.callback = on_probe;
}
