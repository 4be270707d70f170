/*
 * libFuzzer target: a connection to a door, from both sides. The input's first byte says whether it
 * begins with a handshake that is in order; then come pieces, each behind a byte with its length
 * and whether the client or the daemon sends it.
 *
 * Whatever they send: what goes to the client behind the handshake is well-formed frames, unmasked,
 * with no more than 125 bytes in a control frame and nothing behind a close; what goes to the
 * daemon is whole lines of UTF-8, until CBOR is agreed on.
 */
#include <poll.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <base/buffer.h>
#include <base/log.h>
#include <base/socket.h>
#include <door/docker.h>
#include <rpc/server.h>
#include <schema/utf8.h>

#include "gate.h"

enum {
    PIECE_UNIT = 4,    /* bytes, times 1 to 128 */
    ROUNDS = 64,       /* of the loop, at most, after each piece */
    FROM_DAEMON = 0x80 /* of a piece's first byte */
};

static const char handshake[] = "GET /rpc HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\n"
                                "Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
                                "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";

/* The Docker Engine API, which no listener here is for (fuzz_http.c). */

void docker_server_create(struct rpc_loop *loop, struct docker_server **ret)
{
    *ret = NULL;
}

void docker_server_destroy(struct docker_server *server)
{
}

void docker_admit(struct gate *gate, const struct listener *listener, int fd)
{
    abort();
}

int docker_open(struct peer *peer)
{
    abort();
}

struct bench {
    struct door_config config;
    struct gate gate;
    int client_fd, control_fd, daemon_fd;
    struct buffer to_client, to_daemon;
    bool agreed; /* on CBOR, in the daemon's words */
};

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* ---- what comes out ---- */

static void check_frames(const char *text, size_t length)
{
    bool closed = false, open = false;

    while (length >= 2) {
        const unsigned char *head = (const unsigned char *)text;
        unsigned opcode = head[0] & 0x0f;
        bool fin = head[0] & 0x80, control = opcode & 8;
        uint64_t payload = head[1] & 0x7f;
        size_t size = payload == 126 ? 4 : payload == 127 ? 10 : 2;
        if (head[0] & 0x70 || head[1] & 0x80 || closed || (control && (!fin || payload > 125)))
            abort();
        if (length < size)
            return;
        if (size > 2)
            payload = 0;
        for (size_t i = 2; i < size; i++)
            payload = payload << 8 | head[i];
        if (opcode != 0 && opcode != 1 && opcode != 2 && opcode != 8 && opcode != 9 && opcode != 10)
            abort();
        if (!control && open != (opcode == 0))
            abort();
        if (!control)
            open = !fin;
        closed = opcode == 8;
        if (length - size < payload)
            return;
        text += size + payload;
        length -= size + (size_t)payload;
    }
}

static void check_client(const struct buffer *out)
{
    const char *end = out->length ? strstr(out->data, "\r\n\r\n") : NULL;

    if (end && strncmp(out->data, "HTTP/1.1 101 ", 13) == 0)
        check_frames(end + 4, out->length - (size_t)(end + 4 - out->data));
}

/* agreed: the daemon has said that CBOR is to follow; from where on, only a parser of both could
 * tell.
 */
static void check_daemon(const struct buffer *out, bool agreed)
{
    size_t at = 0;

    while (at < out->length && !agreed) {
        const char *text = out->data + at;
        const char *newline = memchr(text, '\n', out->length - at);
        if (!newline || utf8_check(text, (size_t)(newline - text)) != (size_t)(newline - text))
            abort();
        at += (size_t)(newline - text) + 1;
    }
}

/* ---- moving bytes ---- */

static void take(int fd, struct buffer *into)
{
    char part[4096];
    ssize_t n;

    while (fd >= 0 && (n = recv(fd, part, sizeof(part), MSG_DONTWAIT)) > 0)
        buffer_append(into, part, (size_t)n);
}

static void take_connection(struct bench *bench)
{
    char introduction[DOOR_INTRODUCTION_MAX];
    size_t count = 1;
    int fd;

    if (bench->daemon_fd < 0 &&
        socket_receive(bench->control_fd, introduction, sizeof(introduction), &fd, &count) > 0)
        bench->daemon_fd = count ? fd : -1;
}

static void run(struct bench *bench)
{
    struct pollfd ready = {.fd = rpc_loop_fd(bench->gate.loop), .events = POLLIN};

    for (int i = 0; i < ROUNDS && poll(&ready, 1, 0) > 0; i++) {
        rpc_loop_dispatch(bench->gate.loop);
        take_connection(bench);
        take(bench->client_fd, &bench->to_client);
        take(bench->daemon_fd, &bench->to_daemon);
    }
}

static void say(struct bench *bench, int fd, const void *data, size_t length)
{
    if (fd >= 0)
        (void)send(fd, data, length, MSG_DONTWAIT | MSG_NOSIGNAL);
    run(bench);
}

/* ---- the door ---- */

static void open_bench(struct bench *bench, struct listener *listener)
{
    const struct sockaddr_storage nobody = {.ss_family = AF_INET};
    int control[2], client[2];
    struct http *http = NULL;

    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_NONBLOCK, 0, control) < 0 ||
        socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, client) < 0)
        abort();
    bench->config = (struct door_config)DOOR_CONFIG_INIT;
    bench->config.control_fd = control[0];
    bench->control_fd = control[1];
    bench->client_fd = client[0];
    bench->daemon_fd = -1;
    bench->gate.config = &bench->config;
    if (rpc_loop_create(&bench->gate.loop, NULL) < 0 || http_create(&bench->gate, &http, NULL) < 0)
        abort();
    bench->gate.http = http;
    *listener = (struct listener){.gate = &bench->gate, .url = "ws://127.0.0.1:80"};
    listener->address.transport = DOOR_WS;
    listener->address.loopback = true;
    struct source *source = source_enter(&bench->gate, &nobody, false);
    bench->gate.peers_count = 0;
    peer_create(&bench->gate, listener, client[1], source, &nobody);
    run(bench);
}

static void close_bench(struct bench *bench)
{
    bench->gate.ending = true;
    peers_end(&bench->gate);
    sources_finish(&bench->gate);
    http_destroy(bench->gate.http);
    rpc_loop_clear_timer(bench->gate.loop, &bench->gate.exit);
    rpc_loop_destroy(bench->gate.loop);
    close(bench->config.control_fd);
    close(bench->control_fd);
    take(bench->client_fd, &bench->to_client);
    take(bench->daemon_fd, &bench->to_daemon);
    close(bench->client_fd);
    close_fd(bench->daemon_fd);
    if (bench->gate.bytes || bench->gate.peers_count || bench->gate.handshakes)
        abort();
}

static void play(struct bench *bench, const uint8_t *data, size_t size)
{
    while (size > 1) {
        size_t length = ((data[0] & 0x7fU) + 1) * PIECE_UNIT;
        bool from_daemon = data[0] & FROM_DAEMON;
        if (length > size - 1)
            length = size - 1;
        if (from_daemon && memmem(data + 1, length, "cbor", 4))
            bench->agreed = true;
        say(bench, from_daemon ? bench->daemon_fd : bench->client_fd, data + 1, length);
        data += 1 + length;
        size -= 1 + length;
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct bench bench = {.daemon_fd = -1};
    struct listener listener;

    if (!size)
        return 0;
    log_configure("fuzz-door", -1, LOG_ERROR, LOG_FORMAT_JSON);
    open_bench(&bench, &listener);
    if (data[0] & 1)
        say(&bench, bench.client_fd, handshake, strlen(handshake));
    play(&bench, data + 1, size - 1);
    if (data[0] & 2) {
        shutdown(bench.client_fd, SHUT_WR);
        run(&bench);
    }
    close_bench(&bench);
    check_client(&bench.to_client);
    check_daemon(&bench.to_daemon, bench.agreed);
    buffer_finish(&bench.to_client);
    buffer_finish(&bench.to_daemon);
    return 0;
}
