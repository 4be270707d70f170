/*
 * A server on a loop of its own, in the test's process, spoken to byte by byte: what the tests of
 * the protocol share.
 */
#ifndef TEST_RPC_TALK_H
#define TEST_RPC_TALK_H

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>
#include <cmocka.h>

#include <base/alloc.h>
#include <base/buffer.h>
#include <base/socket.h>
#include <base/text.h>
#include <rpc/loop.h>
#include <rpc/server.h>
#include <schema/cbor.h>
#include <schema/json.h>

#define CALL(rest) "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":" rest "}\n"

static struct rpc_loop *loop;
static struct rpc_server *server;
static size_t heard_length;

static inline void turn(int times)
{
    while (times--)
        rpc_loop_run_once(loop, 0);
}

static inline void wait_a_while(void)
{
    uint64_t end = rpc_loop_update_now(loop) + 60 * 1000000;

    while (rpc_loop_update_now(loop) < end)
        rpc_loop_run_once(loop, 10);
}

static inline int connect_one(void)
{
    int fds[2];

    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds), 0);
    assert_int_equal(rpc_server_adopt(server, fds[0], NULL, NULL), 0);
    return fds[1];
}

static inline void say_bytes(int fd, const void *data, size_t length)
{
    const char *at = data;

    for (size_t i = 0; i < length; i++) {
        assert_int_equal(send(fd, at + i, 1, MSG_NOSIGNAL), 1);
        turn(1);
    }
    turn(3);
}

static inline void say(int fd, const char *text)
{
    say_bytes(fd, text, strlen(text));
}

/* In as few pieces as the socket takes. */
static inline void say_at_once(int fd, const void *data, size_t length)
{
    for (const char *at = data; length;) {
        ssize_t n = send(fd, at, length, MSG_NOSIGNAL | MSG_DONTWAIT);
        if (n < 0) {
            assert_int_equal(errno, EAGAIN);
            n = 0;
        }
        at += n;
        length -= (size_t)n;
        turn(2);
    }
}

/* What the server has sent so far, at most 64 KiB of it. */
static inline const char *hear(int fd)
{
    static char data[1 << 16];

    turn(3);
    ssize_t n = recv(fd, data, sizeof(data) - 1, MSG_DONTWAIT);
    heard_length = n > 0 ? (size_t)n : 0;
    data[heard_length] = '\0';
    return data;
}

/* All of it. Owned by the caller. */
static inline char *hear_all(int fd)
{
    _cleanup_buffer_ struct buffer all = BUFFER_INIT;

    for (int quiet = 0; quiet < 5; quiet++) {
        const char *data = hear(fd);
        buffer_append(&all, data, heard_length);
        if (heard_length)
            quiet = 0;
    }
    return buffer_steal(&all);
}

static inline bool has_ended(int fd)
{
    char byte;

    turn(5);
    return recv(fd, &byte, 1, MSG_DONTWAIT | MSG_PEEK) == 0 || errno != EAGAIN;
}

static inline void say_cbor(int fd, const char *json)
{
    _cleanup_buffer_ struct buffer out = BUFFER_INIT;

    buffer_append(&out, "\0\0\0", 4);
    assert_int_equal(cbor_from_json(json, strlen(json), &out, NULL), 0);
    size_t length = out.length - 4;
    out.data[2] = (char)(length >> 8);
    out.data[3] = (char)length;
    say_bytes(fd, out.data, out.length);
}

static inline const char *hear_cbor(int fd)
{
    static struct buffer out;
    const char *data = hear(fd);

    buffer_clear(&out);
    for (size_t at = 0; at < heard_length;) {
        size_t length = (size_t)(unsigned char)data[at + 2] << 8 | (unsigned char)data[at + 3];
        assert_int_equal(data[at], 0);
        assert_true(at + 4 + length <= heard_length);
        assert_int_equal(cbor_to_json(data + at + 4, length, &out, NULL), 0);
        at += 4 + length;
    }
    static char kept[1 << 14];
    snprintf(kept, sizeof(kept), "%s", buffer_text(&out));
    buffer_finish(&out);
    return kept;
}

#endif
