/*
 * A relay that an engine before this one has started may speak version 1 of the protocol. It cannot
 * be told of ports any more; its listening sockets are in our way, and connections go through it.
 * It lets go of the former and keeps the latter until they end, and one of ours is started beside.
 *
 * Which version it speaks shows in what it answers: one of version 1 says nothing, and passes over
 * what it does not know, as ours does with what version 1 had. So both are said, and the end of
 * its answers is waited for, which comes when it has read everything.
 */
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <base/alloc.h>
#include <base/file.h>
#include <base/log.h>
#include <base/socket.h>
#include <relay/protocol.h>

#include "relay.h"

enum { ANSWER_TIMEOUT_MS = 2000 };

/* Of version 1: no port of the container is served any more; connections go on. */
enum { OLD_VERSION = 1, OLD_CLEAR = 1 };
struct old_message {
    uint16_t version;
    uint16_t type;
    uint16_t target_family;
    uint16_t target_port;
    uint8_t target[16];
    char container[RELAY_ID_SIZE];
};

/* A port that nobody has: ours answers that it has not, either. */
static int ask(int fd)
{
    const struct relay_message message = {
        .version = RELAY_VERSION, .type = RELAY_PORT, .use = RELAY_HOLD};
    _cleanup_close_ int pidfd = (int)syscall(SYS_pidfd_open, getpid(), 0U);

    if (pidfd < 0)
        return -errno;
    ssize_t n = socket_send(fd, &message, sizeof(message), &pidfd, 1);
    return n < 0 ? (int)n : 0;
}

static int clear_old(const struct engine *engine, int fd)
{
    for (size_t i = 0; i < engine->containers_count; i++) {
        struct old_message clear = {.version = OLD_VERSION, .type = OLD_CLEAR};

        snprintf(clear.container, sizeof(clear.container), "%s", engine->containers[i]->id);
        ssize_t n = socket_send(fd, &clear, sizeof(clear), NULL, 0);
        if (n < 0)
            return (int)n;
    }
    return shutdown(fd, SHUT_WR) < 0 ? -errno : 0;
}

/* 1: it has answered; 0: it has read everything without. */
static int read_answer(int fd)
{
    struct pollfd poller = {.fd = fd, .events = POLLIN};
    struct relay_message answer;

    if (poll(&poller, 1, ANSWER_TIMEOUT_MS) <= 0)
        return -ETIMEDOUT;
    size_t none = 0;
    ssize_t n = socket_receive_now(fd, &answer, sizeof(answer), NULL, &none);
    return n < 0 ? (int)n : n > 0;
}

void relay_replace_old(struct engine *engine)
{
    const struct timeval limit = {.tv_sec = ANSWER_TIMEOUT_MS / 1000};
    _cleanup_free_ char *path = xasprintf("%s/relay.sock", engine->instance->run);
    _cleanup_close_ int fd = socket_connect_unix(path, SOCK_SEQPACKET | SOCK_CLOEXEC, NULL);

    if (fd < 0)
        return;
    (void)setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof(limit));
    int r = ask(fd);
    if (r == 0)
        r = clear_old(engine, fd);
    if (r == 0)
        r = read_answer(fd);
    if (r == 0) {
        log_info("cloche-relay is of an engine before this one; another takes its place");
        unlink(path);
    } else if (r < 0) {
        log_warning("cloche-relay does not say which version it is of: %s", strerror(-r));
    }
}
