/*
 * Synchronous calls, in the calling thread:
 *
 *     acquire      an endpoint that is in, and an idle connection to it, or a new one
 *     link_call    there and back
 *     put_back     the connection, for the next
 *
 * and again from the start when the connection broke and the call may be sent again.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <base/alloc.h>
#include <rpc/pool.h>
#include <schema/rpc.h>

#include "pool.h"

enum { COURTESY_MS = 100 };

const struct json_method rpc_ping_method = {.name = "rpc.ping", .idempotent = true};

/* ---- a connection ---- */

/* Under the lock, which is not held while it waits: until something has changed, or `until`. */
static void wait_for_change(struct cloche_client *client, uint64_t until)
{
    const struct timespec when = {.tv_sec = (time_t)(until / 1000000000),
                                  .tv_nsec = (long)(until % 1000000000)};

    client->waiters++;
    if (until == NEVER)
        pthread_cond_wait(&client->changed, &client->lock);
    else
        pthread_cond_timedwait(&client->changed, &client->lock, &when);
    client->waiters--;
}

/* Under the lock: there is room for one that waits. */
static void pass_on(struct cloche_client *client)
{
    if (client->waiters)
        pthread_cond_signal(&client->changed);
}

static void put_back(struct cloche_connection *link)
{
    struct endpoint *endpoint = link->endpoint;
    struct cloche_client *client = endpoint->client;
    bool keep;

    client_lock(client);
    link_leave(link);
    keep = link->fd >= 0 && !link->cancelled && endpoint->state == CLOCHE_ENDPOINT_IN;
    if (keep) {
        link->next = endpoint->idle;
        endpoint->idle = link;
    } else {
        endpoint->connections--;
    }
    pass_on(client);
    client_unlock(client);
    if (!keep)
        link_close(link);
}

/* A connection to an endpoint that has been reserved for it. -ECONNREFUSED: the endpoint was taken
 * out; exhaustion and -ETIMEDOUT are told as they are. */
static int connect_to(struct endpoint *endpoint, uint64_t deadline, struct cloche_connection **ret,
                      struct error *err)
{
    struct cloche_client *client = endpoint->client;
    uint64_t limit = deadline_after(monotonic_now(), client->settings.connect_timeout_ms);

    int r = link_open(endpoint, deadline < limit ? deadline : limit, ret, err);
    client_lock(client);
    if (r < 0)
        endpoint_unreserve(endpoint);
    else
        endpoint->connects++;
    client_unlock(client);
    if (r == 0 || is_exhaustion(r) || (r == -ETIMEDOUT && monotonic_now() >= deadline))
        return r;
    endpoint_unreached(endpoint, error_message(err));
    return -ECONNREFUSED;
}

/* A look at an endpoint that is out, for want of a thread that does it: a sign of life brings it in
 * again. The caller's time may end before that of the look: then it tells nothing. */
static void probe(struct endpoint *endpoint, uint64_t deadline, uint64_t timeout_ms)
{
    struct cloche_client *client = endpoint->client;
    uint64_t limit = deadline_after(monotonic_now(), timeout_ms);
    bool ours = limit <= deadline && timeout_ms >= client->settings.connect_timeout_ms;
    struct link_call ping = {.method = &rpc_ping_method,
                             .deadline = limit < deadline ? limit : deadline};
    struct cloche_connection *link = NULL;
    _cleanup_error_ struct error err = ERROR_INIT;

    int r = link_open(endpoint, ping.deadline, &link, &err);
    if (r == 0)
        r = link_call(link, &ping, &err);
    if (r < 0 && (!ping.answered || ping.refused)) {
        link_close(link);
        if (is_exhaustion(r))
            endpoint_put_off(endpoint);
        else if (r == -ETIMEDOUT && !ours)
            endpoint_look_later(endpoint);
        else
            endpoint_unreached(endpoint, error_message(&err));
        return;
    }
    client_lock(client);
    endpoint->connections++;
    endpoint->connects++;
    client_unlock(client);
    endpoint_revive(endpoint);
    put_back(link);
}

/* An endpoint that may be looked at by us, since nobody else does. */
static struct endpoint *claim(struct cloche_client *client, bool none)
{
    if (client->threaded)
        return NULL;
    return endpoint_claim(client, monotonic_now(), none ? 0 : PROBE_GRACE_MS * NS_PER_MS);
}

static int none_in(struct cloche_client *client, struct error *err)
{
    const struct endpoint *first = &client->endpoints[0];

    if (client->endpoints_count == 1)
        return error_set(err, -ECONNREFUSED, "%s", first->why);
    return error_set(err, -ECONNREFUSED, "none of %zu endpoints answers; the first: %s",
                     client->endpoints_count, first->why);
}

/* What a call needs to get a connection. */
struct search {
    struct cloche_client *client;
    uint64_t deadline;
    struct error problem; /* of the last try, for the message */
    bool exhausted;       /* no descriptors were left for it, or its server has too many of us */
    bool keep;            /* the caller keeps it for more than a call */
    uint64_t avoid;       /* endpoints that have refused the call */
    unsigned interrupts;  /* of the client, when it began */
    struct cloche_cancel *cancel;
    unsigned rounds;
};

/* It may have been this one that was told of the room that there is. */
static int no_time(const struct search *search, bool none, struct error *err)
{
    const char *why = none ? search->client->endpoints[0].why : search->problem.message;

    pass_on(search->client);
    if (why)
        return error_set(err, -ETIMEDOUT, "no connection in time: %s", why);
    return error_set(err, -ETIMEDOUT, "no connection in time: all are in use");
}

/* Under the lock: somebody wants the call to end. */
static bool is_cancelled(const struct search *search)
{
    return search->client->interrupts != search->interrupts ||
           (search->cancel && search->cancel->fired);
}

/* Under the lock. Nothing can be had now: waits for what may change that. */
static int wait_for_room(struct search *search, bool none, struct error *err)
{
    struct cloche_client *client = search->client;
    uint64_t until = search->deadline, now = monotonic_now();

    if (now >= search->deadline)
        return no_time(search, none, err);
    if (none && client->settings.fail_fast && endpoints_all_out(client))
        return none_in(client, err);
    if (search->exhausted && now + EXHAUSTED_MS * NS_PER_MS < until)
        until = now + EXHAUSTED_MS * NS_PER_MS;
    uint64_t next = none && !client->threaded ? endpoint_next_probe(client) : NEVER;
    wait_for_change(client, next < until ? next : until);
    search->exhausted = false;
    return 0;
}

/* With another endpoint at hand a look is a courtesy, which leaves the call most of its time. */
static uint64_t look_ms(const struct search *search, bool none)
{
    uint64_t now = monotonic_now(), limit = search->client->settings.connect_timeout_ms;
    uint64_t left = search->deadline > now ? (search->deadline - now) / NS_PER_MS : 0;

    if (none)
        return limit;
    limit = limit < COURTESY_MS ? limit : COURTESY_MS;
    return limit < left / 4 ? limit : left / 4 + 1;
}

/* An idle connection, or NULL and room for one at *ret_endpoint, or neither: looked at another, or
 * waited. Under the lock. */
static int find_room(struct search *search, struct endpoint **ret_endpoint,
                     struct cloche_connection **ret, struct error *err)
{
    struct cloche_client *client = search->client;
    bool none;
    struct endpoint *endpoint = endpoint_choose(
        client, search->exhausted ? WANT_IDLE : WANT_CONNECTION, search->avoid, &none);
    if (none && search->avoid) { /* those that did not refuse it are gone */
        search->avoid = 0;
        return 0;
    }

    if (is_cancelled(search)) {
        pass_on(client);
        return error_set(err, -ECANCELED, "cancelled");
    }
    if (search->rounds++ && monotonic_now() >= search->deadline)
        return no_time(search, none, err);
    struct endpoint *look_at = claim(client, none);
    if (look_at) {
        client_unlock(client);
        probe(look_at, search->deadline, look_ms(search, none));
        client_lock(client);
        return 0;
    }
    if (!endpoint)
        return wait_for_room(search, none, err);
    *ret_endpoint = endpoint;
    *ret = endpoint->idle;
    if (*ret)
        endpoint->idle = (*ret)->next;
    else
        endpoint->connections++;
    return 0;
}

static int search_connect(struct search *search, struct endpoint *endpoint,
                          struct cloche_connection **ret, struct error *err)
{
    int r = connect_to(endpoint, search->deadline, ret, &search->problem);

    search->exhausted = is_exhaustion(r);
    if (r == -ECONNREFUSED || search->exhausted)
        return 0;
    return r < 0 ? error_move(err, &search->problem) : 0;
}

/* Under the lock. The first write to a TCP connection that the server has ended succeeds; a caller
 * who keeps a connection wants one that stands. */
static void check_idle(const struct search *search, struct cloche_connection **link)
{
    struct endpoint *endpoint = (*link)->endpoint;

    if ((endpoint->address.transport->passes_fds && !search->keep) || !link_is_stale(*link))
        return;
    link_close(steal_ptr(*link));
    endpoint->connections--;
}

/* *ret is for the caller alone, and its endpoint counts a call more. */
static int acquire(struct search *search, struct cloche_connection **ret, struct error *err)
{
    struct cloche_client *client = search->client;
    struct cloche_connection *link = NULL;
    int r = 0;

    client_lock(client);
    while (r == 0 && !link) {
        struct endpoint *endpoint = NULL;
        r = find_room(search, &endpoint, &link, err);
        if (link) {
            check_idle(search, &link);
        } else if (endpoint) {
            client_unlock(client);
            r = search_connect(search, endpoint, &link, err);
            client_lock(client);
        }
    }
    if (link) {
        link->endpoint->busy++;
        link->endpoint->calls++;
        if (!search->keep)
            link_enter(link, search->cancel);
        *ret = link;
    }
    client_unlock(client);
    return r;
}

/* ---- a call ---- */

/* The connection is gone: whose fault is it, and may the call go elsewhere? One that lay idle and
 * took nothing any more was closed long ago, and tells nothing of its endpoint but that the others
 * are most likely closed, too. What was not understood comes from one that lives. */
static bool is_lost(struct cloche_connection *link, const struct link_call *call, int code,
                    bool was_idle, const struct error *err)
{
    if (link->fd >= 0 || call->answered || code == -ETIMEDOUT || code == -ECANCELED ||
        code == -ETOOMANYREFS || is_exhaustion(code))
        return false;
    if (code == -EPROTO) {
        endpoint_garbled(link->endpoint, error_message(err));
        return false;
    }
    if (was_idle && call->unsent)
        endpoint_forget_idle(link->endpoint);
    else
        endpoint_break(link->endpoint, false, error_message(err));
    return true;
}

static int call_once(struct cloche_connection *link, struct link_call *call, bool *ret_lost,
                     struct error *err)
{
    bool was_idle = !link->fresh;

    link->fresh = false;
    int r = link_call(link, call, err);
    if (r < 0 && !call->answered && link_cancelled(link))
        r = error_set(err, -ECANCELED, "cancelled");
    *ret_lost = r < 0 && is_lost(link, call, r, was_idle, err);
    call->was_idle = was_idle;
    endpoint_ended(link->endpoint, call->answered, r == -ETIMEDOUT);
    return r;
}

/* By our clock, or by the server's. */
static bool is_timeout(const struct link_call *call, int code)
{
    return call->fault ? call->fault == RPC_DEADLINE_EXCEEDED : code == -ETIMEDOUT;
}

static enum rpc_ended how_it_ended(const struct link_call *call, int code)
{
    if (code == 0)
        return RPC_ENDED_ANSWERED;
    if (is_timeout(call, code))
        return RPC_ENDED_TIMEOUT;
    if (code == -ECANCELED && !call->fault)
        return RPC_ENDED_CANCELLED;
    return call->fault ? RPC_ENDED_FAULT : RPC_ENDED_LOST;
}

/* The server has done nothing, and said so: another is asked. When it is for its many connections,
 * and there is no other, one that we have is waited for. */
static bool is_turned_away(struct search *search, struct endpoint *endpoint, struct link_call *call,
                           const struct error *err)
{
    if (!call->fault)
        return false;
    bool another = endpoint_may_ask_another(search->client, endpoint, call->fault, &search->avoid);
    bool crowded = call->refused && call->fault == RPC_TOO_MANY;
    search->exhausted = crowded && !another;
    if (crowded)
        error_set(&search->problem, -ENOBUFS, "%s", error_message(err));
    call->unsent = another || crowded;
    return another || crowded;
}

/* As often as it takes and the deadline lets it. What never left, since the connection was closed
 * while it lay idle, was no attempt. */
static int call_somewhere(struct search *search, struct link_call *call, bool idempotent,
                          struct error *err)
{
    struct cloche_client *client = search->client;
    unsigned attempt = 1;

    for (;;) {
        struct cloche_connection *link = NULL;
        bool lost = false;
        int r = acquire(search, &link, err);
        if (r < 0)
            return r;
        call->deadline = attempt_deadline(client, search->deadline, idempotent, attempt);
        struct endpoint *endpoint = link->endpoint;
        r = call_once(link, call, &lost, err);
        put_back(link);
        if (is_timeout(call, r) && monotonic_now() < search->deadline)
            lost = idempotent;
        bool begun = !lost || !(call->was_idle && call->unsent);
        lost = lost || is_turned_away(search, endpoint, call, err);
        if (!lost || attempt >= client->settings.attempts || !(idempotent || call->unsent))
            return r;
        attempt += begun && !call->refused;
        rpc_metrics_add(&client->metrics.retries, 1);
    }
}

static int call_on(struct search *search, struct cloche_connection *link, struct link_call *call,
                   struct error *err)
{
    struct cloche_client *client = search->client;
    bool lost;

    client_lock(client);
    bool cancelled = is_cancelled(search);
    if (!cancelled) {
        link->endpoint->busy++;
        link->endpoint->calls++;
        link_enter(link, search->cancel);
    }
    client_unlock(client);
    if (cancelled)
        return error_set(err, -ECANCELED, "cancelled");
    int r = call_once(link, call, &lost, err);
    client_lock(client);
    link_leave(link);
    client_unlock(client);
    return r;
}

static int call_as_told(struct search *search, struct link_call *call,
                        const struct cloche_call_options *options, struct error *err)
{
    if (options->connection)
        return call_on(search, options->connection, call, err);
    return call_somewhere(search, call, call->method->idempotent || options->idempotent, err);
}

static int check_owners(const struct cloche_client *client,
                        const struct cloche_call_options *options, struct error *err)
{
    if (options->connection && options->connection->endpoint->client != client)
        return error_set(err, -EINVAL, "the connection is another client's");
    if (options->cancel && options->cancel->client != client)
        return error_set(err, -EINVAL, "what is to cancel the call is another client's");
    return 0;
}

static int run_within(struct cloche_client *client, struct link_call *call,
                      const struct cloche_call_options *options, struct error *err)
{
    uint64_t begun = monotonic_now();
    struct search search = {
        .client = client,
        .deadline = deadline_after(begun, client_timeout(client, call->method, options)),
        .problem = ERROR_INIT,
        .interrupts = client->interrupts,
        .cancel = options->cancel};

    call->progress = options->progress;
    call->progress_data = options->progress_data;
    call->deadline = search.deadline;
    rpc_metrics_begin(&client->metrics);
    int r = call_as_told(&search, call, options, err);
    rpc_metrics_end(&client->metrics, how_it_ended(call, r), call->fault, monotonic_now() - begun);
    error_finish(&search.problem);
    if ((r == -ETIMEDOUT || r == -ECANCELED) && !call->fault)
        error_context(err, "%s", call->method->name);
    return r;
}

/* The call with its deadline, its metrics and the way to say what went wrong. */
static int run(struct cloche_client *client, struct link_call *call,
               const struct cloche_call_options *options, struct cloche_error *error)
{
    _cleanup_error_ struct error err = ERROR_INIT;

    int r = check_ours(client, &err);
    if (r == 0)
        r = check_owners(client, options, &err);
    if (r == 0)
        r = client_enter(client, &err);
    if (r < 0)
        return error_give(error, &err, 0, NULL);
    r = run_within(client, call, options, &err);
    client_leave(client);
    if (r < 0)
        error_give(error, &err, call->fault, &call->details);
    fault_details_finish(&call->details);
    return r;
}

int rpc_stub_call(struct cloche_client *client, const struct json_method *method,
                  const void *params, int fd, const struct cloche_call_options *options,
                  void **ret_result, int *ret_fd, struct cloche_error *error)
{
    struct cloche_call_options taken;
    _cleanup_error_ struct error err = ERROR_INIT;
    void *result = NULL;
    int came = -1;
    size_t count = 1;

    if (take_stub_options(options, &taken, &err) < 0)
        return error_give(error, &err, 0, NULL);
    struct link_call call = {.method = method,
                             .params = params,
                             .text = params || !method->params ? NULL : "{}",
                             .fds = &fd,
                             .fds_count = fd >= 0,
                             .ret_fds = method->result_fds ? &came : NULL,
                             .ret_fds_count = &count,
                             .result = &result};

    int r = run(client, &call, &taken, error);
    if (r == 0 && ret_fd && came < 0) {
        error_set(&err, -EPROTO, "%s: the answer came without its descriptor", method->name);
        r = error_give(error, &err, 0, NULL);
    }
    if (r == 0 && ret_fd)
        *ret_fd = came;
    else
        close_fd(came);
    if (r == 0 && ret_result)
        *ret_result = result;
    else if (method->result)
        json_free(method->result, result);
    return r;
}

int cloche_client_call(struct cloche_client *client, const char *method, const char *params,
                       const struct cloche_call_options *options, char **ret_result,
                       struct cloche_error *error)
{
    const struct json_method by_name = {.name = method};
    struct cloche_call_options taken;
    _cleanup_free_ char *text = NULL;
    _cleanup_error_ struct error err = ERROR_INIT;
    void *result = NULL;

    int r = take_options(options, &taken, &err);
    if (r == 0)
        r = check_call(client, method, params, &text, &err);
    if (r < 0)
        return error_give(error, &err, 0, NULL);
    struct link_call call = {.method = &by_name,
                             .text = text,
                             .fds = taken.fds,
                             .fds_count = taken.fds_count,
                             .ret_fds = taken.ret_fds,
                             .ret_fds_count = taken.ret_fds_count,
                             .raw = true,
                             .result = &result};

    r = run(client, &call, &taken, error);
    if (r == 0 && ret_result)
        *ret_result = result;
    else
        free(result);
    return r;
}

/* ---- connections for the caller ---- */

int cloche_client_get(struct cloche_client *client, uint64_t timeout_ms,
                      struct cloche_connection **ret, struct cloche_error *error)
{
    const struct cloche_call_options options = {.size = sizeof(options), .timeout_ms = timeout_ms};
    _cleanup_error_ struct error err = ERROR_INIT;
    uint64_t begun = monotonic_now();

    struct search search = {
        .client = client,
        .deadline = deadline_after(begun, client_timeout(client, &rpc_ping_method, &options)),
        .problem = ERROR_INIT,
        .interrupts = client->interrupts,
        .keep = true};

    int r = check_ours(client, &err);
    if (r == 0)
        r = client_enter(client, &err);
    if (r < 0)
        return error_give(error, &err, 0, NULL);
    r = acquire(&search, ret, &err);
    client_leave(client);
    error_finish(&search.problem);
    if (r < 0)
        return error_give(error, &err, 0, NULL);
    client_lock(client);
    (*ret)->endpoint->busy--; /* calls are counted as they are made */
    (*ret)->endpoint->calls--;
    client_unlock(client);
    return 0;
}

void cloche_client_put(struct cloche_client *client, struct cloche_connection *connection)
{
    if (connection)
        put_back(connection);
}
