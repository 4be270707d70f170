/*
 * Ports of the machine that plug-ins publish: the rules of net do not know of them.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "cni.h"

enum { FREE_PORT_TRIES = 256 };

static bool has_port(const struct container *container, const struct net_publication *wanted)
{
    for (size_t i = 0; i < container->publications_count; i++) {
        const struct net_publication *other = &container->publications[i];

        if (other->protocol == wanted->protocol && other->host_port == wanted->host_port &&
            (net_ip_is_any(&other->host_address) || net_ip_is_any(&wanted->host_address) ||
             net_ip_equal(&other->host_address, &wanted->host_address)))
            return true;
    }
    return false;
}

bool cni_has_port(void *data, const struct net_publication *wanted)
{
    const struct engine *engine = data;

    for (size_t i = 0; i < engine->containers_count; i++) {
        if (engine->containers[i]->ports_by_plugins && has_port(engine->containers[i], wanted))
            return true;
    }
    return false;
}

static bool is_published(const struct engine *engine, const struct net_publication *wanted)
{
    for (size_t i = 0; i < engine->containers_count; i++) {
        if (has_port(engine->containers[i], wanted))
            return true;
    }
    return false;
}

/* A socket of that port, or -errno; port 0 becomes one that is free. */
static int bind_port(struct net_publication *publication)
{
    const uint16_t port = htons(publication->host_port);
    struct sockaddr_in6 v6 = {.sin6_family = AF_INET6, .sin6_port = port};
    struct sockaddr_in v4 = {.sin_family = AF_INET, .sin_port = port};
    const bool is_v6 = publication->host_address.family == AF_INET6;
    const int type = publication->protocol == NET_UDP ? SOCK_DGRAM : SOCK_STREAM;
    _cleanup_close_ int fd = socket(is_v6 ? AF_INET6 : AF_INET, type | SOCK_CLOEXEC, 0);
    struct sockaddr *address = is_v6 ? (struct sockaddr *)&v6 : (struct sockaddr *)&v4;
    socklen_t length = is_v6 ? sizeof(v6) : sizeof(v4);
    const int reuse = port != 0; /* of one that is free nothing lingers */

    v4.sin_addr = publication->host_address.v4;
    if (is_v6)
        v6.sin6_addr = publication->host_address.v6;
    if (fd < 0 || setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &reuse, sizeof(reuse)) < 0 ||
        bind(fd, address, length) < 0 || getsockname(fd, address, &length) < 0)
        return -errno;
    publication->host_port = ntohs(is_v6 ? v6.sin6_port : v4.sin_port);
    return steal_fd(&fd);
}

static int take_port(const struct engine *engine, struct net_publication *wanted)
{
    _cleanup_close_ int fd = is_published(engine, wanted) ? -EADDRINUSE : bind_port(wanted);

    return fd < 0 ? fd : 0;
}

/* The kernel does not know of those that plug-ins have: what it gives is kept until it gives
 * another one. */
static int find_port(const struct engine *engine, struct net_publication *wanted)
{
    int fds[FREE_PORT_TRIES], r = -EADDRINUSE;
    size_t count = 0;

    while (r == -EADDRINUSE && count < ARRAY_SIZE(fds)) {
        wanted->host_port = 0;
        fds[count] = r = bind_port(wanted);
        if (r < 0)
            break;
        count++;
        r = is_published(engine, wanted) ? -EADDRINUSE : 0;
    }
    while (count > 0)
        close(fds[--count]);
    return r;
}

int cni_choose_port(struct engine *engine, struct net_publication *publication, struct error *err)
{
    const unsigned first = publication->host_port;
    const unsigned last = publication->host_port_last ? publication->host_port_last : first;
    char text[NET_IP_TEXT];
    int r = -EADDRINUSE;

    for (unsigned number = first; number <= last; number++) {
        struct net_publication wanted = *publication;

        wanted.host_port = (uint16_t)number;
        r = number ? take_port(engine, &wanted) : find_port(engine, &wanted);
        if (r == 0) {
            publication->host_port = wanted.host_port;
            return 0;
        }
    }
    return error_set(err, r, "publish %s:%u: %s", net_ip_format(&publication->host_address, text),
                     first, r == -EADDRINUSE ? "port is already allocated" : strerror(-r));
}
