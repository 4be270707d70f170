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

struct flow {
    struct flow *older, *newer;
    struct flow *next; /* of its bucket */
    struct port *port;
    struct source source; /* connected to the container */
    struct sockaddr_in6 client;
    uint64_t used_ms;
};

static uint8_t datagram[DATAGRAM_SIZE];

static uint64_t now_ms(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

/* --- which there are -------------------------------------------------------------------------- */

static struct flow **bucket_of(struct server *server, const struct sockaddr_in6 *client)
{
    if (!server->flow_buckets)
        server->flow_buckets = xcalloc(BUCKETS, sizeof(struct flow *));
    return &server->flow_buckets[ntohs(client->sin6_port) % BUCKETS];
}

static bool is_of(const struct flow *flow, const struct port *port,
                  const struct sockaddr_in6 *client)
{
    return flow->port == port && flow->client.sin6_port == client->sin6_port &&
           memcmp(&flow->client.sin6_addr, &client->sin6_addr, sizeof(client->sin6_addr)) == 0 &&
           flow->client.sin6_scope_id == client->sin6_scope_id;
}

static struct flow *find(struct server *server, const struct port *port,
                         const struct sockaddr_in6 *client)
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

static struct flow *begin(struct server *server, struct port *port,
                          const struct sockaddr_in6 *client)
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
    flow->client = *client;
    struct flow **bucket = bucket_of(server, client);
    flow->next = *bucket;
    *bucket = flow;
    port->group->flows++;
    server->flows_count++;
    link_newest(server, flow);
    return flow;
}

/* --- datagrams -------------------------------------------------------------------------------- */

/* One that the other side does not take now is lost, as on any way. */
void flows_receive(struct server *server, struct port *port)
{
    for (int i = 0; i < DATAGRAMS_MAX; i++) {
        struct sockaddr_in6 client = {0};
        socklen_t size = sizeof(client);
        ssize_t length = recvfrom(port->source.fd, datagram, sizeof(datagram), MSG_DONTWAIT,
                                  (struct sockaddr *)&client, &size);

        if (length < 0 && (errno == EAGAIN || errno == EBADF))
            return;
        if (length < 0 || client.sin6_family != AF_INET6)
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
        (void)sendto(flow->port->source.fd, datagram, (size_t)length, MSG_DONTWAIT | MSG_NOSIGNAL,
                     (const struct sockaddr *)&flow->client, sizeof(flow->client));
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
