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

    if (exchange->head.upgrade)
        buffer_printf(&connection->out,
                      "HTTP/1.1 101 UPGRADED\r\nContent-Type: %s\r\nConnection: Upgrade\r\n"
                      "Upgrade: tcp\r\n\r\n",
                      type);
    else
        buffer_printf(&connection->out, "HTTP/1.1 200 OK\r\nContent-Type: %s\r\n\r\n", type);
    exchange->begun = true;
    exchange->chunked = connection->keep = false;
    connection->looks = LOOKS_MAX;
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
