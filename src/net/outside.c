/*
 * Of a port one request and one answer, over a connection of its own (SOCK_SEQPACKET), host byte
 * order, exact sizes. Both ends are of one version: whoever starts an engine finds this process or
 * makes it, and it goes with the namespaces.
 */
#include <errno.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

#include <base/alloc.h>
#include <base/socket.h>

#include "hold.h"
#include "outside.h"

enum {
    OUTSIDE_VERSION = 1,
    ASK_SECONDS = 2,    /* after which who asks goes on without an answer */
    LISTEN_SECONDS = 1, /* for which who connects may be silent */
};

struct outside_request {
    uint16_t version;
    uint16_t protocol; /* IPPROTO_TCP, IPPROTO_UDP */
    uint16_t family;
    uint16_t port;
    uint16_t released; /* as for port_open_serving() */
    uint8_t address[16];
};

/* 0 and a descriptor, or -errno. */
struct outside_answer {
    int32_t result;
};

static int set_patience(int fd, int seconds)
{
    const struct timeval time = {.tv_sec = seconds};

    return setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &time, sizeof(time)) < 0 ||
                   setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &time, sizeof(time)) < 0
               ? -errno
               : 0;
}

/* --- inside ----------------------------------------------------------------------------------- */

static int ask(int fd, const struct outside_request *request)
{
    struct outside_answer answer;
    int socket_fd = -1;
    size_t count = 1;
    ssize_t size = socket_send(fd, request, sizeof(*request), NULL, 0);

    if (size >= 0)
        size = socket_receive(fd, &answer, sizeof(answer), &socket_fd, &count);
    if (size < 0)
        return size == -EAGAIN ? -ETIMEDOUT : (int)size;
    if (count == 0)
        return size == sizeof(answer) && answer.result < 0 ? answer.result : -EPROTO;
    return socket_fd;
}

int outside_open(const char *path, const struct net_publication *publication, bool released)
{
    const struct net_ip *host = &publication->host_address;
    struct outside_request request = {
        .version = OUTSIDE_VERSION,
        .protocol = (uint16_t)publication->protocol,
        .family = host->family,
        .port = publication->host_port,
        .released = released,
    };
    _cleanup_close_ int fd = socket_connect_unix(path, SOCK_SEQPACKET | SOCK_CLOEXEC, NULL);

    memcpy(request.address, &host->v4,
           host->family == AF_INET6 ? sizeof(host->v6) : sizeof(host->v4));
    int r = fd < 0 ? fd : set_patience(fd, ASK_SECONDS);
    return r < 0 ? r : ask(fd, &request);
}

/* --- outside ---------------------------------------------------------------------------------- */

static int open_asked(const struct outside_request *request)
{
    struct net_ip host = {.family = request->family};

    if (request->version != OUTSIDE_VERSION ||
        (request->protocol != NET_TCP && request->protocol != NET_UDP) ||
        (request->family != AF_INET && request->family != AF_INET6) || request->port == 0)
        return -EINVAL;
    memcpy(&host.v4, request->address, host.family == AF_INET6 ? sizeof(host.v6) : sizeof(host.v4));
    return port_open_serving((enum net_protocol)request->protocol, &host, request->port,
                             request->released);
}

static void serve_one(int listen_fd)
{
    struct outside_request request;
    size_t none = 0;
    _cleanup_close_ int fd = accept4(listen_fd, NULL, NULL, SOCK_CLOEXEC);

    if (fd < 0 || set_patience(fd, LISTEN_SECONDS) < 0 ||
        socket_receive(fd, &request, sizeof(request), NULL, &none) != sizeof(request))
        return;
    _cleanup_close_ int socket_fd = open_asked(&request);
    const struct outside_answer answer = {.result = socket_fd < 0 ? socket_fd : 0};
    (void)socket_send(fd, &answer, sizeof(answer), &socket_fd, socket_fd < 0 ? 0 : 1);
}

void net_outside_serve(int listen_fd, int until_fd)
{
    struct pollfd waited[] = {{.fd = listen_fd, .events = POLLIN},
                              {.fd = until_fd, .events = POLLIN}};

    for (;;) {
        if (poll(waited, ARRAY_SIZE(waited), -1) < 0 && errno != EINTR)
            return;
        if (waited[1].revents)
            return;
        if (waited[0].revents)
            serve_one(listen_fd);
    }
}
