/*
 * The HTTP phase, by libmicrohttpd on one end of a socket pair; the other is the peer's inside. So
 * the server sees neither TLS nor addresses, and its time and the number of its connections are the
 * peer's to limit.
 *
 *     GET /rpc with Upgrade    checked by handshake.c, then the peer's inside becomes the daemon
 *     GET /                    the page, where one is configured
 */
#include <errno.h>
#include <fcntl.h>
#include <microhttpd.h>
#include <string.h>
#include <strings.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <base/alloc.h>
#include <base/file.h>
#include <base/log.h>
#include <base/text.h>

#include "gate.h"
#include "handshake.h"

#define PAGE_POLICY                                                                                \
    "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data:; "   \
    "connect-src 'self' ws: wss:; frame-ancestors 'none'; base-uri 'none'"

struct http {
    struct gate *gate;
    struct MHD_Daemon *daemon;
    struct rpc_watch watch;
    struct rpc_task again;
    char *page; /* NULL: none */
    size_t page_length;
};

/* ---- requests ---- */

struct collected {
    struct handshake_request *request;
    struct buffer protocols, connection;
};

/* A list may be spread over several headers (RFC 9110, 5.3). */
static void add_to_list(struct buffer *list, const char *value)
{
    if (list->length)
        buffer_append_char(list, ',');
    buffer_append_text(list, value);
}

static enum MHD_Result on_header(void *data, enum MHD_ValueKind kind _unused_, const char *name,
                                 const char *value)
{
    struct collected *collected = data;
    struct handshake_request *request = collected->request;

    value = value ? value : "";
    if (strcasecmp(name, "Host") == 0) {
        request->host = value;
        request->hosts++;
    } else if (strcasecmp(name, "Origin") == 0) {
        request->origin = value;
        request->origins++;
    } else if (strcasecmp(name, "Sec-WebSocket-Key") == 0) {
        request->key = value;
        request->keys++;
    } else if (strcasecmp(name, "Upgrade") == 0) {
        request->upgrade = value;
    } else if (strcasecmp(name, "Sec-WebSocket-Version") == 0) {
        request->websocket_version = value;
    } else if (strcasecmp(name, "Connection") == 0) {
        add_to_list(&collected->connection, value);
    } else if (strcasecmp(name, "Sec-WebSocket-Protocol") == 0) {
        add_to_list(&collected->protocols, value);
    }
    return MHD_YES;
}

static struct peer *find_peer(struct http *http, struct MHD_Connection *connection)
{
    const union MHD_ConnectionInfo *info =
        MHD_get_connection_info(connection, MHD_CONNECTION_INFO_SOCKET_CONTEXT);

    return info ? peer_find(http->gate, (uint64_t)(uintptr_t)info->socket_context) : NULL;
}

/* ---- answers ---- */

static enum MHD_Result answer(struct MHD_Connection *connection, unsigned status,
                              struct MHD_Response *response)
{
    MHD_add_response_header(response, MHD_HTTP_HEADER_X_CONTENT_TYPE_OPTIONS, "nosniff");
    /* A browser comes again for its WebSocket: one that keeps this would only take up room. */
    MHD_add_response_header(response, MHD_HTTP_HEADER_CONNECTION, "close");
    enum MHD_Result result = MHD_queue_response(connection, status, response);
    MHD_destroy_response(response);
    return result;
}

static enum MHD_Result answer_text(struct MHD_Connection *connection, unsigned status,
                                   const char *text)
{
    _cleanup_free_ char *line = xasprintf("%s\n", text);
    struct MHD_Response *response =
        MHD_create_response_from_buffer(strlen(line), line, MHD_RESPMEM_MUST_COPY);

    MHD_add_response_header(response, MHD_HTTP_HEADER_CONTENT_TYPE, "text/plain; charset=utf-8");
    if (status == MHD_HTTP_UPGRADE_REQUIRED) {
        MHD_add_response_header(response, MHD_HTTP_HEADER_UPGRADE, "websocket");
        MHD_add_response_header(response, "Sec-WebSocket-Version", "13");
    } else if (status == MHD_HTTP_METHOD_NOT_ALLOWED) {
        MHD_add_response_header(response, MHD_HTTP_HEADER_ALLOW, "GET");
    } else if (status == MHD_HTTP_SERVICE_UNAVAILABLE) {
        MHD_add_response_header(response, MHD_HTTP_HEADER_RETRY_AFTER, "1");
    }
    return answer(connection, status, response);
}

static enum MHD_Result answer_page(struct http *http, struct MHD_Connection *connection)
{
    struct MHD_Response *response =
        MHD_create_response_from_buffer(http->page_length, http->page, MHD_RESPMEM_PERSISTENT);

    MHD_add_response_header(response, MHD_HTTP_HEADER_CONTENT_TYPE, "text/html; charset=utf-8");
    MHD_add_response_header(response, MHD_HTTP_HEADER_CACHE_CONTROL, "no-cache");
    MHD_add_response_header(response, "Content-Security-Policy", PAGE_POLICY);
    return answer(connection, MHD_HTTP_OK, response);
}

/* The answer is sent. What the client has sent since lies in `early` and in the socket. The
 * connection to the daemon is the peer's, since this is not called if either ends before. */
static void on_upgraded(void *data, struct MHD_Connection *connection, void *request _unused_,
                        const char *early, size_t early_length, MHD_socket fd,
                        struct MHD_UpgradeResponseHandle *handle)
{
    struct peer *peer = find_peer(data, connection);
    _cleanup_buffer_ struct buffer rest = BUFFER_INIT;
    char part[4096];
    ssize_t n;

    buffer_append(&rest, early, early_length);
    while ((n = recv(fd, part, sizeof(part), MSG_DONTWAIT)) > 0)
        buffer_append(&rest, part, (size_t)n);
    if (peer && peer->state == PEER_HTTP && peer->upgrade_fd >= 0)
        peer_upgrade(peer, rest.data, rest.length);
    MHD_upgrade_action(handle, MHD_UPGRADE_ACTION_CLOSE);
}

static enum MHD_Result answer_upgrade(struct http *http, struct MHD_Connection *connection,
                                      struct peer *peer, const char *origin,
                                      const struct handshake_answer *checked)
{
    _cleanup_error_ struct error err = ERROR_INIT;

    if (peer->upgrade_fd >= 0)
        return MHD_NO; /* a request behind one that has become a WebSocket */
    peer->upgrade_fd = inside_open_peer(peer, origin, &err);
    if (peer->upgrade_fd < 0) {
        peer->upgrade_fd = -1;
        log_failure(LOG_WARNING, &err, "%s: no connection to the daemon", peer->address);
        return answer_text(connection, MHD_HTTP_SERVICE_UNAVAILABLE, "the daemon is not there");
    }
    struct MHD_Response *response = MHD_create_response_for_upgrade(on_upgraded, http);
    MHD_add_response_header(response, MHD_HTTP_HEADER_UPGRADE, "websocket");
    MHD_add_response_header(response, "Sec-WebSocket-Accept", checked->accept);
    if (checked->protocol)
        MHD_add_response_header(response, "Sec-WebSocket-Protocol", HANDSHAKE_PROTOCOL);
    enum MHD_Result result = MHD_queue_response(connection, MHD_HTTP_SWITCHING_PROTOCOLS, response);
    MHD_destroy_response(response);
    return result;
}

static enum MHD_Result answer_rpc(struct http *http, struct MHD_Connection *connection,
                                  struct peer *peer, const char *method, const char *version)
{
    struct handshake_request request = {.method = method, .version = version};
    struct collected collected = {.request = &request};
    struct handshake_answer checked;
    const struct handshake_rules rules = {
        .origins = peer->gate->config->origins,
        .local = peer->local,
        .tls = door_transport_is_tls(peer->listener->address.transport),
        .loopback = peer->listener->address.loopback,
    };

    MHD_get_connection_values(connection, MHD_HEADER_KIND, on_header, &collected);
    request.protocols = collected.protocols.length ? collected.protocols.data : NULL;
    request.connection = buffer_text(&collected.connection);
    handshake_check(&request, &rules, &checked);
    buffer_finish(&collected.protocols);
    buffer_finish(&collected.connection);
    if (checked.status == MHD_HTTP_SWITCHING_PROTOCOLS)
        return answer_upgrade(http, connection, peer, request.origin, &checked);
    if (gate_may_log(peer->gate, peer->source))
        log_info("%s at %s: %s%s%s", peer->address, peer->listener->url, checked.problem,
                 request.origin ? ": " : "", request.origin ? request.origin : "");
    return answer_text(connection, checked.status, checked.problem);
}

static enum MHD_Result on_request(void *data, struct MHD_Connection *connection, const char *url,
                                  const char *method, const char *version,
                                  const char *upload _unused_, size_t *upload_size, void **seen)
{
    struct http *http = data;
    struct peer *peer = find_peer(http, connection);

    if (!peer)
        return MHD_NO;
    if (!*seen && !*upload_size && text_equal(method, MHD_HTTP_METHOD_GET)) {
        *seen = http; /* an answer to the first call would close the connection */
        return MHD_YES;
    }
    /* No request here has a body. */
    if (*upload_size)
        return MHD_NO;
    if (text_equal(url, HANDSHAKE_PATH))
        return answer_rpc(http, connection, peer, method, version);
    if (!text_equal(method, MHD_HTTP_METHOD_GET))
        return answer_text(connection, MHD_HTTP_METHOD_NOT_ALLOWED, "only GET is known here");
    if (text_equal(url, "/") && http->page)
        return answer_page(http, connection);
    return answer_text(connection, MHD_HTTP_NOT_FOUND,
                       "there is nothing here; see " HANDSHAKE_PATH);
}

/* ---- the server ---- */

static void run(struct http *http)
{
    MHD_UNSIGNED_LONG_LONG wait;

    MHD_run(http->daemon);
    if (MHD_get_timeout(http->daemon, &wait) == MHD_YES && wait == 0)
        rpc_loop_queue_later(http->gate->loop, &http->again);
}

static void on_ready(struct rpc_watch *watch, uint32_t events _unused_)
{
    run((struct http *)((char *)watch - offsetof(struct http, watch)));
}

static void on_again(struct rpc_task *task)
{
    run((struct http *)((char *)task - offsetof(struct http, again)));
}

/* The number of the peer that is being added, for its connection to know it by. */
static void on_connection(void *data, struct MHD_Connection *connection _unused_, void **context,
                          enum MHD_ConnectionNotificationCode code)
{
    struct gate *gate = data;

    if (code == MHD_CONNECTION_NOTIFY_STARTED)
        *context = (void *)(uintptr_t)gate->http_peer;
}

static void on_log(void *data _unused_, const char *format, va_list args)
{
    _cleanup_free_ char *text = xvasprintf(format, args);
    size_t length = strlen(text);

    if (length && text[length - 1] == '\n')
        text[length - 1] = '\0';
    log_debug("HTTP: %s", text);
}

static int start_daemon(struct http *http, struct error *err)
{
    const unsigned flags =
        MHD_USE_EPOLL | MHD_USE_NO_LISTEN_SOCKET | MHD_ALLOW_UPGRADE | MHD_USE_ERROR_LOG;
    const struct MHD_OptionItem options[] = {
        {MHD_OPTION_EXTERNAL_LOGGER, (intptr_t)on_log, NULL},
        {MHD_OPTION_CONNECTION_MEMORY_LIMIT, DOOR_HEADERS_MAX, NULL},
        {MHD_OPTION_CONNECTION_LIMIT, (intptr_t)http->gate->config->connections, NULL},
        {MHD_OPTION_STRICT_FOR_CLIENT, 1, NULL},
        {MHD_OPTION_NOTIFY_CONNECTION, (intptr_t)on_connection, http->gate},
        {MHD_OPTION_END, 0, NULL},
    };

    http->daemon = MHD_start_daemon(flags, 0, NULL, NULL, on_request, http, MHD_OPTION_ARRAY,
                                    options, MHD_OPTION_END);
    if (!http->daemon)
        return error_set(err, -EIO, "the HTTP server does not start");
    const union MHD_DaemonInfo *info = MHD_get_daemon_info(http->daemon, MHD_DAEMON_INFO_EPOLL_FD);
    if (!info || info->epoll_fd < 0)
        return error_set(err, -EIO, "the HTTP server has no epoll descriptor");
    http->watch = (struct rpc_watch){.fd = info->epoll_fd, .callback = on_ready};
    return rpc_loop_watch(http->gate->loop, &http->watch, EPOLLIN);
}

int http_create(struct gate *gate, struct http **ret, struct error *err)
{
    struct http *http = xnew(struct http);

    http->gate = gate;
    http->again.callback = on_again;
    int r = gate->config->page ? file_read_at(AT_FDCWD, gate->config->page, DOOR_FILE_MAX,
                                              &http->page, &http->page_length, err)
                               : 0;
    if (r >= 0)
        r = start_daemon(http, err);
    if (r < 0) {
        http_destroy(http);
        return r;
    }
    *ret = http;
    return 0;
}

void http_destroy(struct http *http)
{
    if (!http)
        return;
    rpc_loop_watch(http->gate->loop, &http->watch, 0);
    rpc_loop_unqueue(http->gate->loop, &http->again);
    if (http->daemon)
        MHD_stop_daemon(http->daemon);
    free(http->page);
    free(http);
}

int http_open(struct http *http, struct peer *peer)
{
    const struct sockaddr_in nobody = {.sin_family = AF_INET};
    int pair[2];

    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, pair) < 0)
        return -errno;
    http->gate->http_peer = peer->number;
    if (MHD_add_connection(http->daemon, pair[1], (const struct sockaddr *)&nobody,
                           sizeof(nobody)) != MHD_YES) {
        close(pair[0]); /* the other end is closed already */
        return -EIO;
    }
    rpc_loop_queue_later(http->gate->loop, &http->again);
    return pair[0];
}
