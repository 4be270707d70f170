#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

#include <base/alloc.h>
#include <base/socket.h>
#include <base/text.h>

#include "pool.h"

bool is_exhaustion(int code)
{
    return code == -EMFILE || code == -ENFILE || code == -ENOBUFS || code == -ENOMEM;
}

/* ---- Unix sockets ---- */

static int parse_unix(const char *text, struct address *ret, struct error *err)
{
    if (text[0] != '/')
        return error_set(err, -EINVAL, "endpoint '%s': a path begins with '/'", text);
    ret->path = xstrdup(text);
    return 0;
}

/* connect(2) of a Unix socket does not block but for a listener whose queue is full, and then for
 * no longer than the time-out for sending; a signal begins that anew with what is left of it. */
static int connect_before(int fd, const struct sockaddr_un *at, uint64_t deadline)
{
    for (;;) {
        uint64_t now = monotonic_now();
        const struct timeval limit = link_wait(deadline > now ? deadline - now : 1);
        setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof(limit));
        if (connect(fd, (const struct sockaddr *)at, sizeof(*at)) == 0)
            return setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &(struct timeval){0}, sizeof(limit));
        if (errno != EINTR)
            return errno == EAGAIN ? -ETIMEDOUT : -errno;
        if (monotonic_now() >= deadline)
            return -ETIMEDOUT;
    }
}

static int connect_unix(const struct address *address, uint64_t timeout_ms, struct error *err)
{
    _cleanup_close_ int fd = -1, dir_fd = -1;
    struct sockaddr_un at;

    int r = socket_unix_address(address->path, &at, &dir_fd, err);
    if (r < 0)
        return r;
    fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | (timeout_ms ? 0 : SOCK_NONBLOCK), 0);
    if (fd < 0)
        return error_errno(err, errno, "socket");
    if (timeout_ms)
        r = connect_before(fd, &at, deadline_after(monotonic_now(), timeout_ms));
    else if (connect(fd, (struct sockaddr *)&at, sizeof(at)) < 0)
        r = errno == EAGAIN ? -ETIMEDOUT : -errno;
    if (r < 0)
        return error_errno(err, -r, "connect to %s", address->path);
    return steal_fd(&fd);
}

/* ---- TCP: numbers only, since looking a name up blocks ---- */

static int parse_tcp(const char *text, struct address *ret, struct error *err)
{
    struct sockaddr_in *v4 = (struct sockaddr_in *)&ret->socket;
    struct sockaddr_in6 *v6 = (struct sockaddr_in6 *)&ret->socket;
    const char *colon = strrchr(text, ':');
    uint64_t port = 0;

    if (!colon || text_to_u64(colon + 1, 1, 65535, &port) < 0)
        return error_set(err, -EINVAL, "endpoint 'tcp:%s': a port is missing", text);
    bool bracketed = text[0] == '[' && colon[-1] == ']';
    _cleanup_free_ char *host = bracketed ? xstrndup(text + 1, (size_t)(colon - text) - 2)
                                          : xstrndup(text, (size_t)(colon - text));
    if (bracketed && inet_pton(AF_INET6, host, &v6->sin6_addr) == 1) {
        v6->sin6_family = AF_INET6;
        v6->sin6_port = htons((uint16_t)port);
        ret->length = sizeof(*v6);
        return 0;
    }
    if (inet_pton(AF_INET, text_equal(host, "localhost") ? "127.0.0.1" : host, &v4->sin_addr) != 1)
        return error_set(err, -EINVAL,
                         "endpoint 'tcp:%s': '%s' is no address (names are not looked up)", text,
                         host);
    v4->sin_family = AF_INET;
    v4->sin_port = htons((uint16_t)port);
    ret->length = sizeof(*v4);
    return 0;
}

static int wait_connected(int fd, uint64_t timeout_ms, struct error *err)
{
    struct pollfd ready = {.fd = fd, .events = POLLOUT};
    int problem = 0;
    socklen_t length = sizeof(problem);

    uint64_t deadline = deadline_after(monotonic_now(), timeout_ms);
    int r;

    do
        r = poll(&ready, 1, poll_ms(deadline));
    while (r < 0 && errno == EINTR);
    if (r <= 0)
        return error_errno(err, r == 0 ? ETIMEDOUT : errno, "connect");
    getsockopt(fd, SOL_SOCKET, SO_ERROR, &problem, &length);
    return problem ? error_errno(err, problem, "connect") : 0;
}

/* Who waits does so in the system call. */
static int set_blocking(int fd, struct error *err)
{
    int flags = fcntl(fd, F_GETFL);

    if (flags < 0 || fcntl(fd, F_SETFL, flags & ~O_NONBLOCK) < 0)
        return error_errno(err, errno, "connect");
    return 0;
}

/* A host that is gone, or a way to it, is found within two minutes, not hours (tcp(7)): calls may
 * take as long as they want. */
static void keep_alive(int fd)
{
    const int on = 1, idle_s = 30, between_s = 15, times = 6;

    setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof(on));
    setsockopt(fd, IPPROTO_TCP, TCP_KEEPIDLE, &idle_s, sizeof(idle_s));
    setsockopt(fd, IPPROTO_TCP, TCP_KEEPINTVL, &between_s, sizeof(between_s));
    setsockopt(fd, IPPROTO_TCP, TCP_KEEPCNT, &times, sizeof(times));
}

/* Nobody listens: a port that is also given to callers can meet itself (RFC 9293, 3.5). Kept, it
 * would be in the server's way. */
static bool is_own_end(int fd)
{
    struct sockaddr_storage ours, theirs;
    socklen_t our_length = sizeof(ours), their_length = sizeof(theirs);

    return getsockname(fd, (struct sockaddr *)&ours, &our_length) == 0 &&
           getpeername(fd, (struct sockaddr *)&theirs, &their_length) == 0 &&
           our_length == their_length && memcmp(&ours, &theirs, our_length) == 0;
}

static int connect_tcp(const struct address *address, uint64_t timeout_ms, struct error *err)
{
    _cleanup_close_ int fd =
        socket(address->socket.ss_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    int one = 1;

    if (fd < 0)
        return error_errno(err, errno, "socket");
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
    if (connect(fd, (const struct sockaddr *)&address->socket, address->length) < 0 &&
        errno != EINPROGRESS)
        return error_errno(err, errno, "connect");
    keep_alive(fd);
    int r = timeout_ms ? wait_connected(fd, timeout_ms, err) : 0;
    if (r == 0 && is_own_end(fd))
        r = error_errno(err, ECONNREFUSED, "connect");
    if (r == 0 && timeout_ms)
        r = set_blocking(fd, err);
    return r < 0 ? r : steal_fd(&fd);
}

/* ---- */

static const struct transport transports[] = {
    {.scheme = "unix:", .passes_fds = true, .parse = parse_unix, .connect = connect_unix},
    {.scheme = "tcp:", .parse = parse_tcp, .connect = connect_tcp},
    {.scheme = "tls:", .parse = tls_parse, .connect = tls_connect},
};

int address_parse(const char *text, struct address *ret, struct error *err)
{
    if (text[0] == '/') {
        ret->transport = &transports[0];
        return parse_unix(text, ret, err);
    }
    for (size_t i = 0; i < ARRAY_SIZE(transports); i++) {
        if (!text_starts_with(text, transports[i].scheme))
            continue;
        ret->transport = &transports[i];
        return transports[i].parse(text + strlen(transports[i].scheme), ret, err);
    }
    error_set(err, -EINVAL, "endpoint '%s' is of no known kind", text);
    return error_hint(err, "endpoints are /PATH, unix:/PATH, tcp:ADDRESS:PORT and tls:HOST:PORT");
}

void address_finish(struct address *address)
{
    free(address->path);
}
