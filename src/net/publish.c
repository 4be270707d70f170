#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>

#include <base/alloc.h>
#include <base/file.h>

#include "conntrack.h"
#include "ruleset.h"
#include "state.h"

enum { PORT_TEXT = 80 };

/* What the kernel itself begins with (net/ipv4/af_inet.c), when /proc cannot be read. */
enum { EPHEMERAL_FIRST = 32768, EPHEMERAL_LAST = 60999 };

static const char *protocol_name(enum net_protocol protocol)
{
    switch (protocol) {
    case NET_TCP:
        return "tcp";
    case NET_UDP:
        return "udp";
    case NET_SCTP:
        return "sctp";
    }
    return "?";
}

static const char *port_text(const struct net_publication *publication, char text[static PORT_TEXT])
{
    const bool v6 = publication->host_address.family == AF_INET6;
    char address[NET_IP_TEXT];

    snprintf(text, PORT_TEXT, "%s%s%s:%u/%s", v6 ? "[" : "",
             net_ip_format(&publication->host_address, address), v6 ? "]" : "",
             publication->host_port, protocol_name(publication->protocol));
    return text;
}

static bool conflict(const struct net_publication *a, const struct net_publication *b)
{
    return a->protocol == b->protocol && a->host_port == b->host_port &&
           a->host_address.family == b->host_address.family &&
           (net_ip_equal(&a->host_address, &b->host_address) || net_ip_is_any(&a->host_address) ||
            net_ip_is_any(&b->host_address));
}

static bool is_published(const struct net *net, const struct net_publication *publication)
{
    for (size_t i = 0; i < net->publications_count; i++) {
        if (conflict(&net->publications[i], publication))
            return true;
    }
    return false;
}

static bool is_ours(const struct net *net, const struct net_ip *address)
{
    for (size_t i = 0; i < net->bridges_count; i++) {
        const struct net_bridge_config *config = &net->bridges[i]->config;

        if (address->family == AF_INET6 ? net_subnet6_contains(&config->subnet6, &address->v6)
                                        : net_subnet_contains(&config->subnet, address->v4))
            return true;
    }
    return false;
}

static int check(const struct net *net, const struct net_publication *publication,
                 struct error *err)
{
    char text[NET_IP_TEXT];

    if (publication->protocol != NET_TCP && publication->protocol != NET_UDP &&
        publication->protocol != NET_SCTP)
        return error_set(err, -EINVAL, "publish a port: unknown protocol %d",
                         (int)publication->protocol);
    if (publication->container_port == 0)
        return error_set(err, -EINVAL, "publish a port: the container's port is 0");
    if (publication->container_address.family != publication->host_address.family ||
        !is_ours(net, &publication->container_address))
        return error_set(err, -EINVAL, "publish a port: %s is no container's address",
                         net_ip_format(&publication->container_address, text));
    if (net->publications_count >= NET_PUBLICATIONS_MAX)
        return error_set(err, -ENOSPC, "publish a port: %d ports are published already",
                         NET_PUBLICATIONS_MAX);
    return 0;
}

/*
 * Binds to the port for a moment. TCP: with SO_REUSEADDR, so that connections in TIME_WAIT do not
 * count; a listener still does, but for that of our relay at [::1], which lets its port be shared
 * with who is of the same user and wants to (SO_REUSEPORT). UDP: without, since it would let two
 * sockets share the port. Returns 0 or -errno.
 */
static int try_bind(const struct net_publication *publication)
{
    const bool v6 = publication->host_address.family == AF_INET6;
    const struct sockaddr_in address = {
        .sin_family = AF_INET,
        .sin_addr = publication->host_address.v4,
        .sin_port = htons(publication->host_port),
    };
    const struct sockaddr_in6 address6 = {
        .sin6_family = AF_INET6,
        .sin6_addr = publication->host_address.v6,
        .sin6_port = htons(publication->host_port),
    };
    const int type = publication->protocol == NET_UDP ? SOCK_DGRAM : SOCK_STREAM;
    const int on = 1;
    _cleanup_close_ int fd =
        socket(v6 ? AF_INET6 : AF_INET, type | SOCK_CLOEXEC, (int)publication->protocol);

    if (fd < 0) /* then nobody else can have it */
        return errno == EPROTONOSUPPORT || errno == EAFNOSUPPORT ? 0 : -errno;
    if (v6 && setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &on, sizeof(on)) < 0)
        return -errno;
    if (publication->protocol == NET_TCP &&
        (setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on)) < 0 ||
         (v6 && setsockopt(fd, SOL_SOCKET, SO_REUSEPORT, &on, sizeof(on)) < 0)))
        return -errno;
    int r = v6 ? bind(fd, (const struct sockaddr *)&address6, sizeof(address6))
               : bind(fd, (const struct sockaddr *)&address, sizeof(address));
    return r < 0 ? -errno : 0;
}

static int check_host_port(struct net *net, const struct net_publication *publication,
                           struct error *err)
{
    char text[PORT_TEXT];
    int r;

    r = is_published(net, publication) ? 1 : ruleset_published_elsewhere(net, publication, err);
    if (r < 0)
        return r;
    if (r > 0) {
        error_set(err, -EADDRINUSE, "publish %s: port is already allocated",
                  port_text(publication, text));
        error_hint(err, "another container has it: see the ports in `cloche ps`");
        return -EADDRINUSE;
    }
    r = try_bind(publication);
    if (r == -EADDRINUSE) {
        error_set(err, r, "publish %s: address already in use", port_text(publication, text));
        error_hint(err, "a process of the host has it: `ss -lntup` shows which");
        return r;
    }
    if (r < 0)
        return error_errno(err, -r, "publish %s", port_text(publication, text));
    return 0;
}

static void read_ephemeral_range(uint16_t *ret_first, uint16_t *ret_last)
{
    _cleanup_free_ char *text = NULL;
    unsigned first, last;

    *ret_first = EPHEMERAL_FIRST;
    *ret_last = EPHEMERAL_LAST;
    if (file_read_at(AT_FDCWD, "/proc/sys/net/ipv4/ip_local_port_range", 64, &text, NULL, NULL) < 0)
        return;
    if (sscanf(text, "%5u %5u", &first, &last) == 2 && first > 0 && first <= last &&
        last <= UINT16_MAX) {
        *ret_first = (uint16_t)first;
        *ret_last = (uint16_t)last;
    }
}

/* Next-fit, so that a port that was given back is not another container's at once. */
static int choose_host_port(struct net *net, struct net_publication *publication, struct error *err)
{
    struct net_publication wanted = *publication;
    uint16_t first, last;
    int r;

    if (publication->host_port > 0) {
        first = publication->host_port;
        last = publication->host_port_last;
    } else {
        read_ephemeral_range(&first, &last);
    }
    if (publication->host_port > 0 || net->next_port < first || net->next_port > last)
        net->next_port = first;
    for (uint32_t tries = (uint32_t)last - first + 1; tries > 0; tries--) {
        wanted.host_port = net->next_port;
        wanted.host_port_last = 0;
        net->next_port = net->next_port == last ? first : (uint16_t)(net->next_port + 1);
        r = check_host_port(net, &wanted, err);
        if (r == 0) {
            *publication = wanted;
            return 0;
        }
        if (r != -EADDRINUSE)
            return r;
    }
    return error_set(err, -EADDRINUSE, "publish a port: all of %u to %u are in use", first, last);
}

static void remember(struct net *net, const struct net_publication *publication)
{
    if (net->publications_count == net->publications_capacity) {
        net->publications_capacity = 2 * net->publications_capacity + 16;
        net->publications =
            xrealloc(net->publications, net->publications_capacity, sizeof(*net->publications));
    }
    net->publications[net->publications_count++] = *publication;
}

int net_publish(struct net *net, struct net_publication *publication, struct error *err)
{
    struct net_publication wanted = *publication;
    char text[PORT_TEXT];
    int r;

    r = check(net, &wanted, err);
    if (r < 0)
        return r;
    r = wanted.host_port == 0 || wanted.host_port_last > wanted.host_port
            ? choose_host_port(net, &wanted, err)
            : check_host_port(net, &wanted, err);
    if (r < 0)
        return r;
    remember(net, &wanted);
    r = ruleset_publish(net, &wanted, err);
    if (r == -ENOENT && net->rules_active) /* flushed by somebody, not yet told to net_dispatch() */
        r = ruleset_replace(net, err);
    if (r < 0) {
        net->publications_count--;
        error_context(err, "publish %s", port_text(&wanted, text));
        return r;
    }
    if (wanted.protocol == NET_UDP)
        conntrack_forget(net, &wanted);
    *publication = wanted;
    return 0;
}

int net_restore_publication(struct net *net, const struct net_publication *publication,
                            struct error *err)
{
    char text[PORT_TEXT];
    int r;

    r = check(net, publication, err);
    if (r < 0)
        return r;
    if (publication->host_port == 0)
        return error_set(err, -EINVAL, "restore a published port: the host's port is 0");
    if (is_published(net, publication))
        return error_set(err, -EADDRINUSE, "restore %s: port is already allocated",
                         port_text(publication, text));
    remember(net, publication);
    return 0;
}

void net_forget_flows(struct net *net, const struct net_publication *publication)
{
    conntrack_forget(net, publication);
}

static bool same(const struct net_publication *a, const struct net_publication *b)
{
    return a->protocol == b->protocol && net_ip_equal(&a->host_address, &b->host_address) &&
           a->host_port == b->host_port &&
           net_ip_equal(&a->container_address, &b->container_address) &&
           a->container_port == b->container_port;
}

int net_unpublish(struct net *net, const struct net_publication *publication, struct error *err)
{
    char text[PORT_TEXT];

    for (size_t i = 0; i < net->publications_count; i++) {
        if (!same(&net->publications[i], publication))
            continue;
        net->publications[i] = net->publications[--net->publications_count];
        int r = ruleset_unpublish(net, publication, err);
        if (r < 0)
            error_context(err, "unpublish %s", port_text(publication, text));
        return r;
    }
    return 0;
}
