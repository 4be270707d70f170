/*
 * UDP: a flow is a client's address at a port. It has a socket of its own towards the container, so
 * that the container tells clients apart and its answers find back. A flow ends when nothing came
 * either way for a while, with its port, or when there are too many: then the one that was quiet
 * for longest goes, like in the kernel's own tables.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <time.h>
#include <unistd.h>

#include <base/alloc.h>

#include "server.h"

enum {
    FLOWS_MAX = 4096, /* a descriptor each */
    FLOWS_EACH = 512, /* of one container */
    BUCKETS = 1024,
    IDLE_MS = 120 * 1000,      /* as connection tracking has it for UDP (udp_timeout_stream) */
    DATAGRAMS_MAX = 64,        /* of one socket, before others have their turn */
    DATAGRAM_SIZE = 64 * 1024, /* bytes; no datagram is larger */
};

/* Who sends, and where to: all bytes count, those between the fields are 0. */
struct client {
    union {
        struct sockaddr any;
        struct sockaddr_in v4;
        struct sockaddr_in6 v6;
    } peer;
    union {
        struct in_addr v4;
        struct in6_addr v6;
    } here; /* the address of the machine that it came to, if the socket tells; from there it is
             * answered */
    bool has_here;
};

struct flow {
    struct flow *older, *newer;
    struct flow *next; /* of its bucket */
    struct port *port;
    struct source source; /* connected to the container */
    struct client client;
    uint64_t used_ms;
};

union control {
    struct cmsghdr part;
    char room[CMSG_SPACE(sizeof(struct in6_pktinfo))]; /* the larger one */
};

static uint8_t datagram[DATAGRAM_SIZE];

static uint64_t now_ms(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

/* --- which there are -------------------------------------------------------------------------- */

static struct flow **bucket_of(struct server *server, const struct client *client)
{
    const bool v6 = client->peer.any.sa_family == AF_INET6;

    if (!server->flow_buckets)
        server->flow_buckets = xcalloc(BUCKETS, sizeof(struct flow *));
    return &server->flow_buckets[ntohs(v6 ? client->peer.v6.sin6_port : client->peer.v4.sin_port) %
                                 BUCKETS];
}

static bool is_of(const struct flow *flow, const struct port *port, const struct client *client)
{
    return flow->port == port && memcmp(&flow->client, client, sizeof(*client)) == 0;
}

static struct flow *find(struct server *server, const struct port *port,
                         const struct client *client)
{
    struct flow *flow = *bucket_of(server, client);

    while (flow && !is_of(flow, port, client))
        flow = flow->next;
    return flow;
}

static void unlink_use(struct server *server, struct flow *flow)
{
    *(flow->older ? &flow->older->newer : &server->oldest_flow) = flow->newer;
    *(flow->newer ? &flow->newer->older : &server->newest_flow) = flow->older;
    flow->older = flow->newer = NULL;
}

static void link_newest(struct server *server, struct flow *flow)
{
    flow->older = server->newest_flow;
    *(flow->older ? &flow->older->newer : &server->oldest_flow) = flow;
    server->newest_flow = flow;
    flow->used_ms = now_ms();
}

static void touch(struct server *server, struct flow *flow)
{
    unlink_use(server, flow);
    link_newest(server, flow);
}

static void end(struct server *server, struct flow *flow)
{
    struct flow **at = bucket_of(server, &flow->client);

    while (*at != flow)
        at = &(*at)->next;
    *at = flow->next;
    unlink_use(server, flow);
    source_close(server, &flow->source);
    flow->port->group->flows--;
    server->flows_count--;
    release_later(server, flow);
}

/* The container's own one where it has its share, else anybody's. */
static void make_room(struct server *server, const struct group *group)
{
    struct flow *flow = server->oldest_flow;

    if (group->flows >= FLOWS_EACH) {
        while (flow && flow->port->group != group)
            flow = flow->newer;
    } else if (server->flows_count < FLOWS_MAX) {
        return;
    }
    if (flow)
        end(server, flow);
}

static struct flow *begin(struct server *server, struct port *port, const struct client *client)
{
    make_room(server, port->group);
    struct flow *flow = xnew(struct flow);
    source_open(server, &flow->source, SOURCE_FLOW, port_open_target(port, SOCK_DGRAM), flow,
                EPOLLIN);
    if (flow->source.fd < 0) {
        free(flow);
        return NULL;
    }
    flow->port = port;
    memcpy(&flow->client, client, sizeof(*client));
    struct flow **bucket = bucket_of(server, client);
    flow->next = *bucket;
    *bucket = flow;
    port->group->flows++;
    server->flows_count++;
    link_newest(server, flow);
    return flow;
}

/* --- datagrams -------------------------------------------------------------------------------- */

static void read_here(struct msghdr *message, struct client *client)
{
    for (struct cmsghdr *part = CMSG_FIRSTHDR(message); part; part = CMSG_NXTHDR(message, part)) {
        if (part->cmsg_level == IPPROTO_IP && part->cmsg_type == IP_PKTINFO) {
            const struct in_pktinfo *info = (const struct in_pktinfo *)CMSG_DATA(part);
            client->here.v4 = info->ipi_spec_dst;
            client->has_here = true;
        } else if (part->cmsg_level == IPPROTO_IPV6 && part->cmsg_type == IPV6_PKTINFO) {
            const struct in6_pktinfo *info = (const struct in6_pktinfo *)CMSG_DATA(part);
            client->here.v6 = info->ipi6_addr;
            client->has_here = true;
        }
    }
}

static ssize_t receive(int fd, struct client *client)
{
    union control control;
    struct iovec data = {datagram, sizeof(datagram)};
    struct msghdr message = {.msg_name = &client->peer,
                             .msg_namelen = sizeof(client->peer),
                             .msg_iov = &data,
                             .msg_iovlen = 1,
                             .msg_control = &control,
                             .msg_controllen = sizeof(control)};

    memset(client, 0, sizeof(*client));
    ssize_t length = recvmsg(fd, &message, MSG_DONTWAIT);
    if (length >= 0)
        read_here(&message, client);
    return length;
}

static size_t write_here(const struct client *client, struct cmsghdr *part)
{
    if (client->peer.any.sa_family == AF_INET) {
        const struct in_pktinfo info = {.ipi_spec_dst = client->here.v4};

        *part = (struct cmsghdr){CMSG_LEN(sizeof(info)), IPPROTO_IP, IP_PKTINFO};
        memcpy(CMSG_DATA(part), &info, sizeof(info));
        return CMSG_SPACE(sizeof(info));
    }
    const struct in6_pktinfo info = {.ipi6_addr = client->here.v6};
    *part = (struct cmsghdr){CMSG_LEN(sizeof(info)), IPPROTO_IPV6, IPV6_PKTINFO};
    memcpy(CMSG_DATA(part), &info, sizeof(info));
    return CMSG_SPACE(sizeof(info));
}

static void answer(const struct flow *flow, size_t length)
{
    const struct client *client = &flow->client;
    union control control = {0};
    struct iovec data = {datagram, length};
    struct msghdr message = {.msg_name = (void *)&client->peer,
                             .msg_namelen = client->peer.any.sa_family == AF_INET
                                                ? sizeof(client->peer.v4)
                                                : sizeof(client->peer.v6),
                             .msg_iov = &data,
                             .msg_iovlen = 1};

    if (client->has_here) {
        message.msg_control = &control;
        message.msg_controllen = write_here(client, &control.part);
    }
    (void)sendmsg(flow->port->source.fd, &message, MSG_DONTWAIT | MSG_NOSIGNAL);
}

/* One that the other side does not take now is lost, as on any way. */
void flows_receive(struct server *server, struct port *port)
{
    for (int i = 0; i < DATAGRAMS_MAX; i++) {
        struct client client;
        ssize_t length = receive(port->source.fd, &client);

        if (length < 0 && (errno == EAGAIN || errno == EBADF))
            return;
        if (length < 0)
            continue;
        struct flow *flow = find(server, port, &client);
        if (flow)
            touch(server, flow);
        else
            flow = begin(server, port, &client);
        if (flow)
            (void)send(flow->source.fd, datagram, (size_t)length, MSG_DONTWAIT | MSG_NOSIGNAL);
    }
}

/* A failure is that of an earlier datagram, which found nobody at the container's port. */
void flows_event(struct server *server, struct flow *flow)
{
    for (int i = 0; i < DATAGRAMS_MAX; i++) {
        ssize_t length = recv(flow->source.fd, datagram, sizeof(datagram), MSG_DONTWAIT);

        if (length < 0 && errno == EAGAIN)
            return;
        if (length < 0)
            continue;
        touch(server, flow);
        answer(flow, (size_t)length);
    }
}

/* --- the end ---------------------------------------------------------------------------------- */

void flows_end(struct server *server, const struct port *port)
{
    for (struct flow *flow = server->oldest_flow, *newer; flow; flow = newer) {
        newer = flow->newer;
        if (flow->port == port)
            end(server, flow);
    }
}

int flows_expire(struct server *server)
{
    if (!server->oldest_flow)
        return -1;
    const uint64_t now = now_ms();

    while (server->oldest_flow && now - server->oldest_flow->used_ms >= IDLE_MS)
        end(server, server->oldest_flow);
    return server->oldest_flow ? (int)(IDLE_MS - (now - server->oldest_flow->used_ms)) : -1;
}
