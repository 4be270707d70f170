/*
 * The methods of the protocol itself (runtime-spec/rpc.json), which every server has.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include <base/alloc.h>
#include <base/text.h>
#include <schema/rpc.h>

#include "server_internal.h"

#define PROTOCOL_VERSION "1.0"

/* ---- hello ---- */

static const struct rpc_codec *choose_codec(const struct rpc_hello *hello)
{
    for (size_t i = 0; i < hello->encodings_count; i++) {
        const struct rpc_codec *codec = rpc_codec_find(hello->encodings[i]);
        if (codec)
            return codec;
    }
    return &rpc_codec_json;
}

static void on_hello(struct rpc_request *request, const struct rpc_hello *hello,
                     void *context _unused_)
{
    struct rpc_connection *connection = request->connection;
    const struct rpc_limits *limits = &connection->server->options.limits;
    const struct rpc_codec *codec = choose_codec(hello);
    struct rpc_bounds_of_peer ours = {.message = limits->message,
                                      .depth = limits->depth,
                                      .batch = limits->batch,
                                      .in_flight = limits->in_flight,
                                      .connections = limits->connections_per_peer,
                                      .output = limits->output,
                                      .fds = RPC_FDS_MAX};
    struct rpc_welcome welcome = {.encoding = (char *)(uintptr_t)codec->name,
                                  .version = (char *)PROTOCOL_VERSION,
                                  .limits = &ours};

    if (connection->in_flight > 1 || request->batch || !request->id_length) {
        _cleanup_error_ struct error err = ERROR_INIT;
        error_set(&err, -EBUSY, "rpc.hello has to come alone");
        error_hint(&err, "send it first on a connection, and wait for the answer");
        rpc_fail(request, RPC_CONFLICT, &err);
        return;
    }
    rpc_connection_hold(connection);
    rpc_reply(request, &welcome, NULL, 0);
    connection->codec = codec;
    connection->searched = 0;
    rpc_connection_release(connection);
}

/* ---- cancel ---- */

static bool has_id(const struct rpc_request *request, const char *id)
{
    _cleanup_buffer_ struct buffer own = BUFFER_INIT;

    if (!request->id_length || request->wanted != RPC_STILL_WANTED)
        return false;
    request->codec->to_json((struct rpc_part){.text = request->id, .length = request->id_length},
                            &own);
    return text_equal(buffer_text(&own), id);
}

static void on_cancel(struct rpc_request *request, const struct rpc_cancel *which,
                      void *context _unused_)
{
    struct rpc_request *other = request->connection->requests;
    struct rpc_cancelled answer;

    while (other && (other == request || !has_id(other, which->id)))
        other = other->next;
    answer.cancelled = other != NULL;
    rpc_connection_hold(request->connection);
    if (other)
        request_end_early(other, RPC_CALL_ENDED);
    rpc_connection_release(request->connection);
    rpc_reply(request, &answer, NULL, 0);
}

/* ---- ping, discover ---- */

static void on_ping(struct rpc_request *request, const struct rpc_empty *params _unused_,
                    void *context _unused_)
{
    rpc_reply(request, NULL, NULL, 0);
}

static void on_discover(struct rpc_request *request, const struct rpc_empty *params _unused_,
                        void *context _unused_)
{
    const char *document = request->connection->server->options.document;

    rpc_reply_json(request, document, strlen(document), NULL, 0);
}

/* ---- stats ---- */

static void write_number(struct json_writer *writer, const char *name, uint64_t value)
{
    json_writer_key(writer, name);
    json_writer_unsigned(writer, value);
}

static void write_counters(struct json_writer *writer, const struct rpc_server *server)
{
    write_number(writer, "uptimeMs", (rpc_loop_now(server->loop) - server->started) / 1000000);
    write_number(writer, "connections", server->connections_count);
    write_number(writer, "accepted", server->accepted);
    write_number(writer, "refused", server->refused);
    write_number(writer, "overflowed", server->overflowed);
    write_number(writer, "malformed", server->malformed);
    write_number(writer, "unknown", server->unknown);
    write_number(writer, "notifications", server->notifications);
    write_number(writer, "bytesIn", server->bytes_in);
    write_number(writer, "bytesOut", server->bytes_out);
    write_number(writer, "inFlight", server->in_flight);
}

static void on_stats(struct rpc_request *request, const struct rpc_empty *params _unused_,
                     void *context _unused_)
{
    const struct rpc_server *server = request->connection->server;
    _cleanup_buffer_ struct buffer out = BUFFER_INIT;
    struct json_writer writer;

    json_writer_init(&writer, &out, JSON_COMPACT);
    json_writer_object_begin(&writer);
    write_counters(&writer, server);
    json_writer_key(&writer, "methods");
    json_writer_array_begin(&writer);
    for (size_t i = 0; i < server->methods_count; i++) {
        const struct method *method = server->methods[i];
        if (!method->metrics.calls)
            continue;
        json_writer_object_begin(&writer);
        json_writer_key(&writer, "method");
        json_writer_string(&writer, method->type->name);
        rpc_metrics_write_json(&method->metrics, &writer);
        json_writer_object_end(&writer);
    }
    json_writer_array_end(&writer);
    json_writer_object_end(&writer);
    rpc_reply_json(request, out.data, out.length, NULL, 0);
}

/* ---- */

int builtin_add(struct rpc_server *server, struct error *err)
{
    static const struct rpc_handlers all = {.rpc_hello = on_hello,
                                            .rpc_cancel = on_cancel,
                                            .rpc_ping = on_ping,
                                            .rpc_stats = on_stats,
                                            .rpc_discover = on_discover};
    static const struct rpc_handlers without_document = {
        .rpc_hello = on_hello, .rpc_cancel = on_cancel, .rpc_ping = on_ping, .rpc_stats = on_stats};

    return rpc_server_add_handlers(server, rpc_methods, rpc_methods_count,
                                   server->options.document ? &all : &without_document, err);
}
