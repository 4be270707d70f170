#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include <base/alloc.h>
#include <base/file.h>

#include "conntrack.h"
#include "hold.h"
#include "outside.h"
#include "ruleset.h"
#include "state.h"

enum {
    PORT_TEXT = 80,
    RELEASED_MS = 5000, /* for which another process may keep a released socket, at most */
};

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
    if ((publication->container_address.family != publication->host_address.family &&
         !net_is_loopback6(publication)) ||
        !is_ours(net, &publication->container_address))
        return error_set(err, -EINVAL, "publish a port: %s is no container's address",
                         net_ip_format(&publication->container_address, text));
    if (publication->protocol == NET_SCTP && net->outside)
        return error_set(err, -EOPNOTSUPP,
                         "publish a port: the engine of an ordinary user serves no SCTP");
    if (publication->protocol == NET_SCTP && net_is_loopback6(publication))
        return error_set(err, -EINVAL, "publish a port: SCTP is not served at [::1]");
    if (net->publications_count >= NET_PUBLICATIONS_MAX)
        return error_set(err, -ENOSPC, "publish a port: %d ports are published already",
                         NET_PUBLICATIONS_MAX);
    return 0;
}

/* --- sockets of ours that others may still have a descriptor of --- */

static uint64_t now_ms(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

/* For TCP nobody asks. */
static void remember_release(struct net *net, const struct net_publication *publication)
{
    if (publication->protocol == NET_TCP)
        return;
    net->released[net->released_next++ % NET_RELEASED_MAX] = (struct net_released){
        publication->protocol, publication->host_address.family, publication->host_port, now_ms()};
}

static bool was_released(const struct net *net, const struct net_publication *publication)
{
    for (size_t i = 0; i < NET_RELEASED_MAX; i++) {
        const struct net_released *released = &net->released[i];

        if (released->protocol == publication->protocol &&
            released->family == publication->host_address.family &&
            released->port == publication->host_port && now_ms() - released->at_ms < RELEASED_MS)
            return true;
    }
    return false;
}

static int open_socket(const struct net *net, const struct net_publication *publication,
                       bool released)
{
    return net->outside ? outside_open(net->outside, publication, released)
                        : port_hold_open(publication, released);
}

int publication_open(const struct net *net, const struct net_publication *publication)
{
    int fd = open_socket(net, publication, false);

    if (fd == -EADDRINUSE && was_released(net, publication))
        fd = open_socket(net, publication, true);
    return fd;
}

/* One that listens has to be told that it is over, since others have it, too. */
static void close_socket(const struct net *net, int fd)
{
    if (net->outside)
        net_release_loopback(fd);
    else
        port_hold_release(fd);
}

static int refuse(const struct net *net, const struct net_publication *publication, int code,
                  struct error *err)
{
    char text[PORT_TEXT];

    error_errno(err, -code, "publish %s", port_text(publication, text));
    if (net->outside && code == -EACCES)
        error_hint(err,
                   "choose a higher port, or let everybody have it, as root: "
                   "sysctl net.ipv4.ip_unprivileged_port_start=%u",
                   publication->host_port);
    else if (net->outside && (code == -ECONNREFUSED || code == -ENOENT))
        error_hint(err, "the process that opens ports has ended; stop cloched, and the next one "
                        "starts it again");
    return code;
}

static int take_host_port(struct net *net, const struct net_publication *publication, int *ret_hold,
                          struct error *err)
{
    char text[PORT_TEXT];
    int r;

    if (is_published(net, publication) ||
        (net->is_taken && net->is_taken(net->is_taken_data, publication)))
        r = 1;
    else
        r = ruleset_published_elsewhere(net, publication, err);
    if (r < 0)
        return r;
    if (r > 0) {
        error_set(err, -EADDRINUSE, "publish %s: port is already allocated",
                  port_text(publication, text));
        error_hint(err, "another container has it: see the ports in `cloche ps`");
        return -EADDRINUSE;
    }
    r = publication_open(net, publication);
    if (r == -EADDRINUSE) {
        error_set(err, r, "publish %s: address already in use", port_text(publication, text));
        error_hint(err, "a process of the host has it: `ss -lntup` shows which");
        return r;
    }
    if (r < 0 && r != -EPROTONOSUPPORT && r != -EAFNOSUPPORT) /* then nobody else can have it */
        return refuse(net, publication, r, err);
    if (net_is_loopback6(publication) && r >= 0) {
        close_socket(net, r); /* it was to see whether it is free */
        r = -1;
    }
    *ret_hold = r < 0 ? -1 : r;
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
static int choose_host_port(struct net *net, struct net_publication *publication, int *ret_hold,
                            struct error *err)
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
        r = take_host_port(net, &wanted, ret_hold, err);
        if (r == 0) {
            *publication = wanted;
            return 0;
        }
        if (r != -EADDRINUSE)
            return r;
    }
    return error_set(err, -EADDRINUSE, "publish a port: all of %u to %u are in use", first, last);
}

static void remember(struct net *net, const struct net_publication *publication, int hold)
{
    if (net->publications_count == net->publications_capacity) {
        net->publications_capacity = 2 * net->publications_capacity + 16;
        net->publications =
            xrealloc(net->publications, net->publications_capacity, sizeof(*net->publications));
        net->holds = xrealloc(net->holds, net->publications_capacity, sizeof(*net->holds));
    }
    net->holds[net->publications_count] = hold;
    net->publications[net->publications_count++] = *publication;
}

static void forget(struct net *net, size_t index)
{
    if (net->holds[index] >= 0 || net_is_loopback6(&net->publications[index]))
        remember_release(net, &net->publications[index]);
    close_socket(net, net->holds[index]);
    net->publications_count--;
    net->publications[index] = net->publications[net->publications_count];
    net->holds[index] = net->holds[net->publications_count];
}

void publications_forget(struct net *net)
{
    while (net->publications_count > 0)
        forget(net, net->publications_count - 1);
}

void net_ask_for_ports(struct net *net, net_is_taken *is_taken, void *data)
{
    net->is_taken = is_taken;
    net->is_taken_data = data;
}

int net_publish(struct net *net, struct net_publication *publication, struct error *err)
{
    struct net_publication wanted = *publication;
    char text[PORT_TEXT];
    int hold = -1;
    int r;

    r = check(net, &wanted, err);
    if (r < 0)
        return r;
    r = wanted.host_port == 0 || wanted.host_port_last > wanted.host_port
            ? choose_host_port(net, &wanted, &hold, err)
            : take_host_port(net, &wanted, &hold, err);
    if (r < 0)
        return r;
    remember(net, &wanted, hold);
    r = ruleset_publish(net, &wanted, err);
    if (r == -ENOENT && net->rules_active) /* flushed by somebody, not yet told to net_dispatch() */
        r = ruleset_replace(net, err);
    if (r < 0) {
        forget(net, net->publications_count - 1);
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
    remember(net, publication, -1);
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

static size_t index_of(const struct net *net, const struct net_publication *publication)
{
    size_t i = 0;

    while (i < net->publications_count && !same(&net->publications[i], publication))
        i++;
    return i;
}

int net_hold(struct net *net, const struct net_publication *publication)
{
    size_t i = index_of(net, publication);

    if (i == net->publications_count)
        return -ENOENT;
    if (net->holds[i] < 0) {
        int fd = publication_open(net, publication);

        if (fd < 0)
            return fd;
        net->holds[i] = fd;
    }
    return net->holds[i];
}

void net_take_hold(struct net *net, const struct net_publication *publication, int fd)
{
    size_t i = index_of(net, publication);

    if (i < net->publications_count && net->holds[i] < 0)
        net->holds[i] = fd;
    else
        close_fd(fd);
}

int net_unpublish(struct net *net, const struct net_publication *publication, struct error *err)
{
    char text[PORT_TEXT];
    size_t i = index_of(net, publication);

    if (i == net->publications_count)
        return 0;
    forget(net, i);
    int r = ruleset_unpublish(net, publication, err);
    if (r < 0)
        error_context(err, "unpublish %s", port_text(publication, text));
    return r;
}
