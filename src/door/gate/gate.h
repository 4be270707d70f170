/*
 * The door's parts and what they share.
 *
 *     gate.c       listeners: accepts, within the limits
 *     network.c    of networks: everything down to http.c and websocket.c, which a program for
 *                  Unix sockets alone (no_network.c) does without, and without their libraries
 *     sources.c    how many connections each address has
 *     shares.c     memory and lines of the log, of which each has a share
 *     stream.c     TCP, or TLS over it (tls.c)
 *     peer.c       one connection: moves bytes between outside and inside, keeps the time
 *     http.c       the HTTP phase of a connection (handshake.c: what may open a WebSocket)
 *     websocket.c  frames on one side, lines on the other
 *     inside.c     connections to the daemon, and who stands behind each
 *     docker.c     connections of the Docker Engine API (../docker) from Unix sockets
 *     guest.c      and from networks
 *     jail.c       what the door gives up
 */
#ifndef DOOR_GATE_H
#define DOOR_GATE_H

#include <netinet/in.h>
#include <stdbool.h>
#include <stdint.h>

#include <door/address.h>
#include <door/serve.h>
#include <rpc/loop.h>

#include "flow.h"
#include "stream.h"

struct docker_server;
struct gate;
struct http;
struct tls;
struct websocket;

#define NS_PER_SECOND 1000000000ULL

/* ---- sources ---- */

/* So many things in a second, and some at once. */
struct rate {
    uint64_t paid; /* until when what was taken is paid for; loop time */
};
/* false: that would be too many. */
bool rate_take(struct rate *rate, uint64_t now, uint32_t per_second, uint32_t at_once);

/* An address (of IPv6 its /64, and beside it its /48) with connections, or that had some lately. */
struct source {
    struct source *next;
    struct source *site; /* the /48 of a /64; else NULL */
    unsigned char key[16];
    uint32_t connections;
    uint32_t handshakes;
    size_t bytes; /* that its connections hold */
    struct rate handshake_rate, log_rate;
};

enum { SOURCE_BUCKETS = 256 };

struct sources {
    struct source *buckets[SOURCE_BUCKETS];
};

/* Counts a connection in its handshake. NULL: there are too many of either from there, or of
 * handshakes of TLS too many in a short time. */
struct source *source_enter(struct gate *gate, const struct sockaddr_storage *address, bool tls);
void source_handshake_done(struct gate *gate, struct source *source);
void source_leave(struct gate *gate, struct source *source, bool in_handshake);
/* When there are no connections any more. */
void sources_finish(struct gate *gate);

/* ---- what is shared (shares.c) ---- */

struct peer;

/* Brings to account what the connection holds, in memory. While all of them together hold more than
 * DOOR_BUDGET, the one that holds most is ended, of the address that holds most. */
void share_memory(struct peer *peer);
/* When it holds nothing any more. */
void share_memory_back(struct peer *peer);
/* Whether a line about a client may be written to the log: so many a second, of each source (NULL:
 * one without) and of all. What was left out is counted, and told. */
bool gate_may_log(struct gate *gate, struct source *source);

/* ---- connections ---- */

struct listener {
    struct gate *gate;
    struct rpc_watch watch;
    struct door_address address;
    const char *url; /* as it was configured; the configuration's */
};

enum peer_state {
    PEER_HANDSHAKE, /* TLS is not agreed on yet */
    PEER_HTTP,      /* inside is the HTTP server */
    PEER_RELAY,     /* inside is the daemon */
    PEER_FAREWELL,  /* inside is gone; what waits goes out, and their end is awaited */
    PEER_CLOSED,    /* about to be freed */
};

struct peer {
    struct peer *next, *previous;
    struct gate *gate;
    const struct listener *listener;
    struct source *source;
    bool in_handshake; /* counted as such by its source */
    bool heard_first;  /* without HTTP: a byte has come */
    uint64_t number;
    enum peer_state state;
    struct stream stream;
    struct rpc_watch outside;
    struct rpc_watch inside; /* fd -1: none */
    int upgrade_fd;          /* to the daemon, while the HTTP server says 101; -1: none */
    struct rpc_timer timer;
    struct rpc_task update; /* when somebody else has changed it */
    struct flow flow;
    struct buffer from_inside;   /* of a WebSocket: what is not a frame yet */
    struct websocket *websocket; /* NULL: bytes are moved as they are */
    bool outside_ended, inside_ended;
    bool outside_shut, inside_shut; /* our half */
    bool bye_waits;                 /* our half is to be shut when the descriptor takes more */
    bool reads;                     /* outside is read: else its silence means nothing */
    size_t counted;                 /* of the gate's bytes */
    size_t part;                    /* bytes of the message that is not whole */
    uint64_t whole;                 /* messages when it began */
    uint64_t part_since;            /* its begin; 0: there is none */
    uint64_t part_grew;
    uint64_t since;   /* begin of the state that has a time; all in loop time */
    uint64_t heard;   /* last byte from outside */
    uint64_t moved;   /* last byte either way */
    uint64_t drained; /* out was last empty, or got shorter */
    uint64_t pinged;  /* 0: no answer is awaited */
    char address[DOOR_ADDRESS_TEXT];
    char local[DOOR_ADDRESS_TEXT];
};

struct gate {
    const struct door_config *config;
    struct rpc_loop *loop;
    struct tls *tls;              /* NULL: none */
    struct http *http;            /* NULL: no listener needs it */
    struct docker_server *docker; /* the same */
    struct listener listeners[DOOR_LISTENERS_MAX];
    size_t listeners_count;
    struct peer *peers;
    uint32_t peers_count;
    uint64_t last_number;
    struct sources sources;
    uint32_t handshakes;
    size_t bytes; /* that wait, of all connections */
    struct rate log_rate;
    uint64_t unlogged; /* lines left out */
    struct rpc_watch control;
    struct rpc_watch signals;
    struct rpc_timer retry; /* of accepting */
    struct rpc_timer exit;  /* after a time without connections */
    uint64_t http_peer;     /* the peer that the HTTP server is being given */
    bool paused;            /* nothing is accepted */
    bool retired;           /* it ends with the last connection */
    struct tls *trust;      /* what has held since; NULL: none */
    bool ending;
};

/* Takes a connection: fd is taken over, source counted already. */
void peer_create(struct gate *gate, const struct listener *listener, int fd, struct source *source,
                 const struct sockaddr_storage *address);
/* NULL: there is none of that number any more. */
struct peer *peer_find(struct gate *gate, uint64_t number);
/* Turns the HTTP phase into a WebSocket: its inside is from now on upgrade_fd. early: what the HTTP
 * server has read beyond the request. */
void peer_upgrade(struct peer *peer, const void *early, size_t early_length);
/* Ends one that is in its handshake, to make room: of those that have most, the oldest. false:
 * there is none. */
bool peers_drop_handshake(struct gate *gate);
/* Ends those that are not let in yet, and those whose certificate is not trusted; trust NULL: that
 * is not looked at. */
void peers_check(struct gate *gate, struct tls *trust);
/* Says farewell for want of memory; it is freed later. */
void peer_overloaded(struct peer *peer);
/* Ends all of them, politely as far as that goes at once. */
void peers_end(struct gate *gate);

/* The end of one made room. */
void gate_peer_gone(struct gate *gate);

/* ---- inside ---- */

struct rpc_introduction;

/* A new connection to the daemon (non-blocking), which is told who has come. */
int inside_open(struct gate *gate, const struct rpc_introduction *who, struct error *err);
/* The same of a peer. origin: of a page, or NULL. */
int inside_open_peer(struct peer *peer, const char *origin, struct error *err);

/* ---- networks ---- */

/* What a program has that listens beyond Unix sockets. */
struct gate_network {
    /* Files of the configuration. */
    int (*check)(const struct door_config *config, struct error *err);
    /* Once the listeners are open; gate.c calls finish() on failure, too. */
    int (*prepare)(struct gate *gate, struct error *err);
    /* Takes a connection: fd is taken over. */
    void (*admit)(struct gate *gate, struct listener *listener, int fd,
                  const struct sockaddr_storage *address);
    /* Ends connections whose certificate is not trusted by what is in these files; none: that is
     * not looked at. */
    int (*trust)(struct gate *gate, const int *fds, size_t count, struct error *err);
    void (*finish)(struct gate *gate);
};
extern const struct gate_network *const gate_network; /* NULL: Unix sockets alone */

/* ---- the Docker Engine API ---- */

/* Takes a connection of a Unix socket, fd is taken over. */
void docker_admit(struct gate *gate, const struct listener *listener, int fd);
/* The API's end of a connection for the peer, non-blocking; -errno. */
int docker_open(struct peer *peer);

/* ---- HTTP ---- */

int http_create(struct gate *gate, struct http **ret, struct error *err);
void http_destroy(struct http *http);
/* The HTTP server's end of a connection for the peer, non-blocking; -errno. */
int http_open(struct http *http, struct peer *peer);

/* ---- isolation ---- */

/* Before it: listening sockets are open, files are read. After it: no file can be opened, no
 * process started, and with config->to_user no capability is left. */
int jail_enter(const struct door_config *config, struct error *err);

#endif
