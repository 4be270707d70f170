/*
 * cloche-door itself: everything its main() does behind its options.
 */
#ifndef DOOR_SERVE_H
#define DOOR_SERVE_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include <base/error.h>

enum {
    DOOR_LISTENERS_MAX = 16,
    DOOR_CONNECTIONS = 256,            /* unless told otherwise, as those below */
    DOOR_CONNECTIONS_PER_ADDRESS = 64, /* of one IPv4 address or IPv6 /64 */
    DOOR_HANDSHAKES_PER_ADDRESS = 16,  /* of those, not through TLS and HTTP yet */
    DOOR_HANDSHAKE_SECONDS = 10,       /* for TLS and HTTP together */
    DOOR_PING_SECONDS = 30,            /* of silence, then a WebSocket is pinged, and as much again
                                          to answer */
    DOOR_STALL_SECONDS = 60,           /* without taking anything of what waits for it */
    DOOR_CLOSE_SECONDS = 5,            /* for the other side's half of the farewell */
    DOOR_DRAIN_SECONDS = 120,          /* for what waits to be taken before, if it is at all */
    DOOR_MESSAGE_SECONDS = 300,        /* for a message in a WebSocket to become whole */
    DOOR_HEADERS_MAX = 16 * 1024,      /* bytes of an HTTP request */
    DOOR_PAUSE = 64 * 1024,            /* bytes waiting in one direction; then no more are read */
    DOOR_BUDGET = 64 * 1024 * 1024,    /* bytes waiting of all connections */
    DOOR_FILE_MAX = 1024 * 1024,       /* bytes of a certificate file, a key, a page */
    DOOR_ORIGINS_MAX = 64,
    DOOR_INTRODUCTION_MAX = 64 * 1024, /* bytes of what the daemon is told of a client */
    DOOR_SEARCH_SECONDS = 1,           /* between attempts to accept when descriptors run out */
};

/* The daemon's word over the control socket, beside which are descriptors of what is trusted now
 * (authorities, revoked certificates; none: no certificates are asked for): the door listens no
 * more, closes those whose certificate is not trusted any more, and ends with its last client. */
#define DOOR_RETIRE "retire"

/* Strings and lists stay the caller's. */
struct door_config {
    char **listen;        /* URLs (door/address.h) */
    int sockets_from;     /* their sockets are open, from this descriptor on; -1: to be made */
    int control_fd;       /* of the daemon: connections are handed to it there; -1: none */
    const char *connect;  /* else: the daemon's Unix socket */
    const char *tls_cert; /* PEM files; NULL: none */
    const char *tls_key;
    const char *tls_client_ca;
    const char *tls_crl;
    char **origins;         /* of pages that may use a WebSocket, besides the door's own */
    const char *page;       /* HTML file for GET /; NULL: none */
    bool insecure_loopback; /* loopback listeners may do without client certificates */
    bool to_user;           /* root only: go on as this one, in a jail */
    uid_t uid;
    gid_t gid;
    uint32_t connections;
    uint32_t connections_per_address;
    uint32_t handshakes_per_address;
    uint32_t handshake_seconds;
    uint32_t ping_seconds;
    uint32_t stall_seconds;
    uint32_t idle_seconds; /* a connection that says nothing for so long is closed; 0: never */
    uint32_t exit_seconds; /* the door ends when it has had no connection for so long; 0: never */
};
#define DOOR_CONFIG_INIT                                                                           \
    {                                                                                              \
        .sockets_from = -1, .control_fd = -1, .connections = DOOR_CONNECTIONS,                     \
        .connections_per_address = DOOR_CONNECTIONS_PER_ADDRESS,                                   \
        .handshakes_per_address = DOOR_HANDSHAKES_PER_ADDRESS,                                     \
        .handshake_seconds = DOOR_HANDSHAKE_SECONDS, .ping_seconds = DOOR_PING_SECONDS,            \
        .stall_seconds = DOOR_STALL_SECONDS,                                                       \
    }

/* What can be known without listening: addresses, what may be open without certificates, that the
 * files are there and fit each other. -errno with what to change. */
int door_check(const struct door_config *config, struct error *err);

/* Listens, isolates itself, calls ready(data) and serves until SIGTERM or SIGINT, the end of the
 * control socket, or exit_seconds without a connection: 0. -errno when it could not begin. */
int door_serve(const struct door_config *config, void (*ready)(void *data), void *data,
               struct error *err);

#endif
