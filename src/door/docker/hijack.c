/*
 * Streams that a connection has beside its client: bodies into them, answers out of them, and both
 * at once where a request takes the connection over. connection.c moves the bytes.
 */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <base/alloc.h>
#include <base/socket.h>

#include "exchange.h"

void exchange_pump(struct exchange *exchange, int fd)
{
    struct connection *connection = exchange->connection;

    connection_close_stream(connection);
    socket_set_nonblocking(fd);
    connection->stream.fd = fd;
    connection->directions = STREAM_OUT;
    connection_touch(connection);
}

int exchange_take_body(struct exchange *exchange, struct error *err)
{
    struct connection *connection = exchange->connection;
    int fds[2];

    if (pipe2(fds, O_CLOEXEC) < 0)
        return error_errno(err, errno, "make a pipe");
    fcntl(fds[1], F_SETPIPE_SZ, 1 << 20); /* fewer turns; without the right to it, more */
    socket_set_nonblocking(fds[1]);
    connection->stream.fd = fds[1];
    connection->directions = STREAM_IN;
    connection_touch(connection);
    return fds[0];
}

int exchange_converse(struct exchange *exchange, struct error *err)
{
    struct connection *connection = exchange->connection;
    int pair[2];

    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) < 0)
        return error_errno(err, errno, "make a stream");
    socket_set_nonblocking(pair[1]);
    connection->stream.fd = pair[1];
    connection->directions = STREAM_IN | STREAM_OUT;
    connection_touch(connection);
    return pair[0];
}

void exchange_drop_body(struct exchange *exchange)
{
    exchange->connection->swallow = true;
}

static void begin_hijack(struct exchange *exchange, bool tty)
{
    struct connection *connection = exchange->connection;
    const char *type = tty || !exchange_since(exchange, 42)
                           ? "application/vnd.docker.raw-stream"
                           : "application/vnd.docker.multiplexed-stream";

    if (exchange->websocket)
        buffer_printf(&connection->out,
                      "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n"
                      "Connection: Upgrade\r\n%s\r\n",
                      buffer_text(&connection->headers));
    else if (exchange->head.upgrade)
        buffer_printf(&connection->out,
                      "HTTP/1.1 101 UPGRADED\r\nContent-Type: %s\r\nConnection: Upgrade\r\n"
                      "Upgrade: tcp\r\n\r\n",
                      type);
    else
        buffer_printf(&connection->out, "HTTP/1.1 200 OK\r\nContent-Type: %s\r\n\r\n", type);
    exchange->begun = true;
    exchange->chunked = connection->keep = false;
    connection->looks = exchange->websocket ? 0 : LOOKS_MAX;
    if (exchange->websocket)
        exchange->websocket->multiplexed = !tty;
    connection_touch(connection);
}

void answer_raw(struct exchange *exchange, bool tty)
{
    begin_hijack(exchange, tty);
}

static void write_frame_head(struct buffer *out, size_t length)
{
    const char head[8] = {
        1, 0, 0, 0, (char)(length >> 24), (char)(length >> 16), (char)(length >> 8), (char)length};

    buffer_append(out, head, sizeof(head));
}

void answer_frame(struct exchange *exchange, size_t length)
{
    write_frame_head(&exchange->connection->out, length);
}

void answer_last_words(struct exchange *exchange, const char *text, bool tty)
{
    struct buffer *words = &exchange->connection->last_words;

    begin_hijack(exchange, tty);
    if (!tty)
        write_frame_head(words, strlen(text) + 2);
    buffer_printf(words, "%s\r\n", text);
    answer_end(exchange);
}

void answer_hijack(struct exchange *exchange, int fd, bool tty)
{
    struct connection *connection = exchange->connection;

    begin_hijack(exchange, tty);
    exchange->ended = true;
    connection_close_stream(connection);
    socket_set_nonblocking(fd);
    connection->stream.fd = fd;
    connection->directions = STREAM_IN | STREAM_OUT;
    connection->state = CONNECTION_RELAY;
}

/* ---- WebSockets */

bool exchange_want_websocket(struct exchange *exchange)
{
    char accept[FRAMES_ACCEPT_LENGTH + 1];
    const char *problem;

    if (!frames_handshake(&exchange->head, accept, &problem)) {
        answer_fail(exchange, 400, "%s", problem);
        return false;
    }
    exchange->websocket = xnew(struct websocket);
    answer_header(exchange, "Sec-WebSocket-Accept", accept);
    return true;
}

/* What is left of the data without the heads of docker's frames. */
static void write_unframed(struct websocket *websocket, const char *data, size_t length,
                           struct buffer *out)
{
    const unsigned char *head = websocket->head;

    while (length) {
        size_t part = websocket->left < length ? websocket->left : length;
        frames_write(&websocket->frames, data, part, out);
        websocket->left -= (uint32_t)part;
        data += part;
        length -= part;
        while (length && !websocket->left && websocket->head_length < sizeof(websocket->head)) {
            websocket->head[websocket->head_length++] = (unsigned char)*data++;
            length--;
        }
        if (websocket->head_length < sizeof(websocket->head))
            continue;
        websocket->head_length = 0;
        websocket->left =
            (uint32_t)head[4] << 24 | (uint32_t)head[5] << 16 | (uint32_t)head[6] << 8 | head[7];
    }
}

void relay_output(struct exchange *exchange, const char *data, size_t length)
{
    struct buffer *out = &exchange->connection->out;

    if (exchange->websocket && exchange->websocket->multiplexed) {
        write_unframed(exchange->websocket, data, length, out);
        return;
    }
    if (exchange->websocket) {
        frames_write(&exchange->websocket->frames, data, length, out);
        return;
    }
    if (exchange->framed)
        answer_frame(exchange, length);
    buffer_append(out, data, length);
}

/* The monitor does it; here it is only seen that it will. */
static void look_for_detach(struct exchange *exchange, const char *typed, size_t count)
{
    unsigned char passed[512 + DETACH_KEYS_MAX];
    size_t length;

    for (size_t at = 0; exchange->detach_keys.count && at < count && !exchange->detached; at += 512)
        exchange->detached =
            detach_keys_filter(&exchange->detach_keys, (const unsigned char *)typed + at,
                               count - at < 512 ? count - at : 512, passed, &length);
}

void relay_input(struct exchange *exchange)
{
    struct connection *connection = exchange->connection;
    struct buffer *in = &connection->in, *to = &connection->to_stream;
    size_t before = to->length;

    if (exchange->websocket)
        frames_read(&exchange->websocket->frames, in->data, in->length, to, &connection->out,
                    DOCKER_PAUSE);
    else
        buffer_append(to, in->data, in->length);
    buffer_clear(in);
    look_for_detach(exchange, buffer_text(to) + before, to->length - before);
}
