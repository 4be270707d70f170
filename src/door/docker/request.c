/*
 * Requests: heads and bodies out of what has come, up to the handler, and the body into its stream.
 */
#include <string.h>
#include <strings.h>

#include <base/alloc.h>
#include <base/text.h>

#include "exchange.h"

static void refuse(struct exchange *exchange, unsigned status, const char *problem)
{
    exchange->connection->keep = false;
    answer_fail(exchange, status, "%s", problem);
}

static bool check_version(struct exchange *exchange)
{
    const struct target *target = &exchange->target;

    if (target->major > 1 || (target->major == 1 && target->minor > DOCKER_API_MAX)) {
        answer_fail(exchange, 400,
                    "client version %u.%u is too new. Maximum supported API version is 1.%d",
                    target->major, target->minor, DOCKER_API_MAX);
        return false;
    }
    if (target->major < 1 || target->minor < DOCKER_API_MIN) {
        answer_fail(exchange, 400,
                    "client version %u.%u is too old. Minimum supported API version is 1.%d, "
                    "please upgrade your client to a newer version",
                    target->major, target->minor, DOCKER_API_MIN);
        return false;
    }
    return true;
}

/* ---- pages of the web ---- */

/* An address, or a name that no name server of a stranger's can point here: without a dot it is of
 * this network (tcp://docker:2375, as services of compose and of CI systems are named). */
static bool is_own_host(const char *host)
{
    static const char local[] = "localhost";

    if (*host == '[')
        return true;
    size_t length = strcspn(host, ":"), name = strlen(local);
    if (strspn(host, "0123456789.") == length || !memchr(host, '.', length))
        return true;
    return length >= name && strncasecmp(host + length - name, local, name) == 0 &&
           (length == name || host[length - name - 1] == '.');
}

/* Clients of WebSockets that are no browsers name the host they ask as their origin, too. A browser
 * would do so for a page of ours, of which there are none. */
static bool is_own_origin(const struct exchange *exchange)
{
    bool tls = exchange->connection->ops->kind == DOCKER_CLIENT_TLS;
    const char *scheme = tls ? "https://" : "http://";
    const char *upgrade = head_field(&exchange->head, "Upgrade");
    const char *host = head_field(&exchange->head, "Host");
    const char *origin = head_field(&exchange->head, "Origin");

    return upgrade && strcasecmp(upgrade, "websocket") == 0 && host &&
           text_starts_with(origin, scheme) && strcasecmp(origin + strlen(scheme), host) == 0;
}

/* A browser sends requests to whatever address a page names, in the page's name (Origin), or, after
 * its name has come to mean this address, as to the page's own host: in TLS that one has no
 * certificate. Pages have no way to a Unix socket. */
static bool check_sender(struct exchange *exchange)
{
    enum docker_client_kind kind = exchange->connection->ops->kind;
    const char *host = head_field(&exchange->head, "Host");

    if (kind != DOCKER_CLIENT_LOCAL && head_field(&exchange->head, "Origin") &&
        !is_own_origin(exchange)) {
        refuse(exchange, 403, "pages of the web are not served");
        return false;
    }
    if (kind == DOCKER_CLIENT_PLAIN && host && !is_own_host(host)) {
        refuse(exchange, 403, "this host is not known by that name; use its address");
        return false;
    }
    return true;
}

/* ---- begin ---- */

static void call_handler(struct exchange *exchange)
{
    exchange->connection->state = CONNECTION_EXCHANGE;
    if (!exchange->ended)
        exchange->route->handler(exchange);
}

static void begin_body(struct connection *connection)
{
    struct exchange *exchange = connection->exchange;

    body_begin(&connection->body, &exchange->head);
    if (exchange->head.expects && connection->body.state != BODY_DONE && !exchange->ended)
        buffer_append_text(&connection->out, "HTTP/1.1 100 Continue\r\n\r\n");
    if (exchange->ended || exchange->route->flags & ROUTE_STREAMS) {
        connection->swallow = exchange->ended;
        call_handler(exchange);
    } else {
        connection->state = CONNECTION_BODY;
    }
}

static struct exchange *new_exchange(struct connection *connection)
{
    struct exchange *exchange = xnew(struct exchange);

    exchange->connection = connection;
    connection->exchange = exchange;
    connection->swallow = false;
    connection->searched = 0;
    buffer_clear(&connection->headers);
    return exchange;
}

/* Nothing behind a head that makes no sense can be read. */
static void begin_refusal(struct connection *connection, struct exchange *exchange, unsigned status,
                          const char *problem)
{
    connection->body.state = BODY_DONE;
    connection->state = CONNECTION_EXCHANGE;
    refuse(exchange, status, problem);
}

static void begin_exchange(struct connection *connection, size_t length)
{
    struct exchange *exchange = new_exchange(connection);
    const char *problem;

    unsigned status = head_parse(connection->in.data, length, &exchange->head, &problem);
    buffer_consume(&connection->in, length);
    if (status) {
        begin_refusal(connection, exchange, status, problem);
        return;
    }
    connection->keep = exchange->head.keep;
    if (!target_parse(exchange->head.target, &exchange->target)) {
        refuse(exchange, 400, "the address of the request makes no sense");
    } else if (check_sender(exchange) && check_version(exchange)) {
        exchange->route = route_find(exchange->head.method, exchange->target.path, exchange->words);
        if (!exchange->route)
            answer_fail(exchange, 404, "page not found");
    }
    begin_body(connection);
}

/* What was searched before is not searched again, for a head that comes byte by byte. */
static size_t whole_head(struct connection *connection)
{
    size_t from = connection->searched > 3 ? connection->searched - 3 : 0;
    const struct buffer *in = &connection->in;

    if (in->length < from || !memmem(buffer_text(in) + from, in->length - from, "\r\n\r\n", 4)) {
        connection->searched = in->length;
        return 0;
    }
    return head_length(in->data, in->length);
}

bool request_waits(struct connection *connection)
{
    return connection->state == CONNECTION_HEAD && whole_head(connection) > 0;
}

static void read_head(struct connection *connection)
{
    size_t length = whole_head(connection);

    if (length > HEAD_MAX || (!length && connection->in.length > HEAD_MAX)) {
        buffer_clear(&connection->in);
        begin_refusal(connection, new_exchange(connection), 431, "the headers are too long");
    } else if (length) {
        begin_exchange(connection, length);
    }
}

/* ---- bodies ---- */

/* Takes of the body what there is room for. */
static void read_body(struct connection *connection)
{
    struct exchange *exchange = connection->exchange;
    bool streams = connection->state == CONNECTION_EXCHANGE && !connection->swallow;
    struct buffer *to = streams ? &connection->to_stream : &exchange->body;
    size_t most = SIZE_MAX;
    size_t used = 0, read = 1, length;
    const char *data;

    if (streams)
        most = to->length < DOCKER_PAUSE && connection->stream.fd >= 0 ? DOCKER_PAUSE : 0;
    else if (!connection->swallow)
        most = (size_t)DOCKER_BODY_MAX + 1 - exchange->body.length;
    while (read && used < connection->in.length && most) {
        read = body_read(&connection->body, connection->in.data + used,
                         connection->in.length - used, most, &data, &length);
        if (length && !connection->swallow)
            buffer_append(to, data, length);
        used += read;
        most -= connection->swallow ? 0 : length < most ? length : most;
    }
    buffer_consume(&connection->in, used);
}

static void continue_body(struct connection *connection)
{
    struct exchange *exchange = connection->exchange;

    read_body(connection);
    if (connection->body.state == BODY_BROKEN) {
        refuse(exchange, 400, "the body of the request is broken");
    } else if (exchange->body.length > DOCKER_BODY_MAX) {
        refuse(exchange, 413, "the body of the request is too long");
    } else if (connection->body.state != BODY_DONE) {
        return;
    }
    connection->swallow = true;
    call_handler(exchange);
}

static void on_revoked(struct exchange *exchange, const struct rpc_outcome *outcome _unused_)
{
    connection_close_stream(exchange->connection);
    answer_fail(exchange, 400, "unexpected EOF");
}

/* A stream that ends is whole to whoever reads it: the daemon has to know that the call is revoked
 * before the stream is closed. */
void request_cut_off(struct connection *connection)
{
    struct exchange *exchange = connection->exchange;
    bool streams = !exchange->ended && connection->stream.fd >= 0 &&
                   connection->directions & STREAM_IN && !connection->swallow;

    connection->body.state = BODY_DONE;
    connection->swallow = true;
    connection->keep = false;
    buffer_clear(&connection->to_stream);
    if (!streams) {
        connection_close_stream(connection);
        return;
    }
    connection->directions = STREAM_IN;
    connection->cut_off = true;
    calls_revoke(exchange, on_revoked);
}

static void feed_stream(struct connection *connection)
{
    read_body(connection);
    if (connection->body.state == BODY_BROKEN)
        request_cut_off(connection);
}

void request_advance(struct connection *connection)
{
    if (connection->state == CONNECTION_HEAD && connection->in.length)
        read_head(connection);
    if (connection->state == CONNECTION_BODY)
        continue_body(connection);
    if (connection->state == CONNECTION_EXCHANGE && connection->body.state != BODY_DONE)
        feed_stream(connection);
}
