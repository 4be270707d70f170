/*
 * What the parts of the relay share: server.c (the engine, containers and ports, the loop),
 * connections.c (TCP) and flows.c (UDP).
 */
#ifndef RELAY_SERVER_H
#define RELAY_SERVER_H

#include <netinet/in.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>

#include <relay/protocol.h>

enum source_kind {
    SOURCE_LISTEN,
    SOURCE_CONTROL,
    SOURCE_MONITOR,
    SOURCE_PORT,
    SOURCE_CLIENT,
    SOURCE_TARGET,
    SOURCE_FLOW,
};

struct source {
    enum source_kind kind;
    int fd;
    void *owner;
};

/* A container. */
struct group {
    struct group *next;
    char container[RELAY_ID_SIZE];
    struct source monitor; /* its pidfd */
    struct port *ports;
    unsigned connections, flows;
};

/* A socket of the engine's, and where it leads to. */
struct port {
    struct port *next;
    struct group *group;
    struct source source;
    struct relay_message is; /* use, protocol and host say which it is */
    bool named;              /* since RELAY_BEGIN */
    socklen_t target_size;
    union {
        struct sockaddr any;
        struct sockaddr_in v4;
        struct sockaddr_in6 v6;
    } target;
};

struct server {
    int epoll_fd;
    int spare_fd; /* socket_accept() */
    struct source listen, control;
    bool answer_waits; /* for the engine to read; until then nothing is read from it */
    struct relay_message answer;
    int answer_fd; /* owned */
    struct group *groups;
    struct connection *connections;
    size_t groups_count, ports_count, connections_count, unfinished_count;
    struct flow *oldest_flow, *newest_flow; /* by their last datagram */
    struct flow **flow_buckets;             /* owned; NULL before the first */
    size_t flows_count;
    void **garbage; /* owned; what is freed after this round of events */
    size_t garbage_count;
};

/* server.c. source_open: takes fd over; without success source->fd is -1. release_later: an event
 * of this round may still point at the memory. */
void source_open(struct server *server, struct source *source, enum source_kind kind, int fd,
                 void *owner, uint32_t events);
void source_close(struct server *server, struct source *source);
void release_later(struct server *server, void *memory);
void group_drop_if_empty(struct server *server, struct group *group);
int port_open_target(const struct port *port, int type); /* a socket, or -errno */

/* connections.c */
void connections_accept(struct server *server, struct port *port);
struct connection;
void connections_event(struct server *server, struct connection *connection, uint32_t events,
                       bool is_target);
void connections_go_on(struct server *server); /* with those that have more to do */
void connections_end(struct server *server, struct group *group);

/* flows.c */
void flows_receive(struct server *server, struct port *port);
struct flow;
void flows_event(struct server *server, struct flow *flow);
void flows_end(struct server *server, const struct port *port);
/* Ends those that were quiet for long. Returns the milliseconds until there is one; -1: there are
 * none. */
int flows_expire(struct server *server);

#endif
