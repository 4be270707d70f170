/*
 * How the kernel is made to keep a port. For TCP a socket that is bound without SO_REUSEADDR keeps
 * others out, but is refused itself where an old connection is in TIME_WAIT. With it it is not
 * refused; but then the kernel remembers of the port that all who have it share it
 * (inet_csk_get_port), until one listens. So it is bound with, listens for an instant, and is
 * bound only from then on, without. For UDP the option would let it share the port with others at
 * once, and it is not needed: there is no TIME_WAIT.
 */
#include "hold.h"

#include <errno.h>
#include <linux/filter.h>
#include <sys/socket.h>
#include <unistd.h>

#include <base/alloc.h>

#include "state.h"

static int bind_to(int fd, const struct net_ip *ip, uint16_t port)
{
    const struct sockaddr_in v4 = {
        .sin_family = AF_INET, .sin_addr = ip->v4, .sin_port = htons(port)};
    const struct sockaddr_in6 v6 = {
        .sin6_family = AF_INET6, .sin6_addr = ip->v6, .sin6_port = htons(port)};
    int r = ip->family == AF_INET6 ? bind(fd, (const struct sockaddr *)&v6, sizeof(v6))
                                   : bind(fd, (const struct sockaddr *)&v4, sizeof(v4));

    return r < 0 ? -errno : 0;
}

void port_hold_share(int fd, bool shared)
{
    const int value = shared;

    (void)setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &value, sizeof(value));
}

static int open_socket(enum net_protocol protocol, int family)
{
    const int type = protocol == NET_UDP ? SOCK_DGRAM : SOCK_STREAM;
    const int on = 1;
    _cleanup_close_ int fd = socket(family, type | SOCK_CLOEXEC | SOCK_NONBLOCK, (int)protocol);

    if (fd < 0 ||
        (family == AF_INET6 && setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &on, sizeof(on)) < 0))
        return -errno;
    return steal_fd(&fd);
}

/* What comes when the rules are flushed for a moment would else wait in its memory for ever. */
static int receive_nothing(int fd)
{
    struct sock_filter none = BPF_STMT(BPF_RET | BPF_K, 0);
    const struct sock_fprog program = {1, &none};

    return setsockopt(fd, SOL_SOCKET, SO_ATTACH_FILTER, &program, sizeof(program)) < 0 ? -errno : 0;
}

/* Closed again it stays bound, since it was bound to this very port (SOCK_BINDPORT_LOCK). */
static int listen_for_an_instant(int fd)
{
    return listen(fd, 0) < 0 || shutdown(fd, SHUT_RD) < 0 ? -errno : 0;
}

int port_hold_open(const struct net_publication *publication, bool released)
{
    _cleanup_close_ int fd = open_socket(publication->protocol, publication->host_address.family);
    int r = fd < 0 ? fd : 0;

    if (r == 0 && publication->protocol == NET_UDP)
        r = receive_nothing(fd);
    if (r == 0 && (publication->protocol == NET_TCP || released))
        port_hold_share(fd, true);
    if (r == 0)
        r = bind_to(fd, &publication->host_address, publication->host_port);
    if (r == 0 && publication->protocol == NET_TCP)
        r = listen_for_an_instant(fd);
    if (r < 0)
        return r;
    port_hold_share(fd, false);
    return steal_fd(&fd);
}

void port_hold_release(int fd)
{
    if (fd < 0)
        return;
    port_hold_share(fd, true);
    close_fd(fd);
}

/* --- [::1] ------------------------------------------------------------------------------------ */

bool net_is_loopback6(const struct net_publication *publication)
{
    return publication->host_address.family == AF_INET6 &&
           net_ip_is_loopback(&publication->host_address);
}

static int hold_of_all(const struct net *net, enum net_protocol protocol, uint16_t port)
{
    for (size_t i = 0; i < net->publications_count; i++) {
        const struct net_publication *publication = &net->publications[i];

        if (publication->protocol == protocol && publication->host_port == port &&
            publication->host_address.family == AF_INET6 &&
            net_ip_is_any(&publication->host_address))
            return net->holds[i];
    }
    return -1;
}

/* Of each datagram, so that it is answered from there. */
static void tell_destination(int fd, int family)
{
    const int on = 1;

    if (family == AF_INET6)
        (void)setsockopt(fd, IPPROTO_IPV6, IPV6_RECVPKTINFO, &on, sizeof(on));
    else
        (void)setsockopt(fd, IPPROTO_IP, IP_PKTINFO, &on, sizeof(on));
}

int port_open_serving(enum net_protocol protocol, const struct net_ip *address, uint16_t port,
                      bool shared)
{
    _cleanup_close_ int fd = open_socket(protocol, address->family);

    if (fd < 0)
        return fd;
    /* TCP: also beside connections that are in TIME_WAIT. */
    port_hold_share(fd, shared || protocol == NET_TCP);
    if (protocol == NET_UDP)
        tell_destination(fd, address->family);
    int r = bind_to(fd, address, port);
    if (r == 0 && protocol == NET_TCP && listen(fd, SOMAXCONN) < 0)
        r = -errno;
    if (r < 0)
        return r;
    if (protocol == NET_UDP)
        port_hold_share(fd, false);
    return steal_fd(&fd);
}

int net_open_loopback(struct net *net, enum net_protocol protocol, uint16_t port)
{
    const struct net_publication publication = {
        .protocol = protocol, .host_address = net_ip_v6(in6addr_loopback), .host_port = port};
    int hold = hold_of_all(net, protocol, port);

    if (net->outside)
        return publication_open(net, &publication);
    if (hold >= 0)
        port_hold_share(hold, true);
    int fd = port_open_serving(protocol, &publication.host_address, port, hold >= 0);
    if (hold >= 0)
        port_hold_share(hold, false);
    return fd;
}

void net_release_loopback(int fd)
{
    if (fd < 0)
        return;
    (void)shutdown(fd, SHUT_RD);
    port_hold_release(fd);
}
