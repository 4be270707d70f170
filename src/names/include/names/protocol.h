/*
 * What the engine tells cloche-names: SOCK_SEQPACKET, one message a packet, host byte order, exact
 * sizes. Nothing is answered. The engine that starts the program gives it one end of a socket pair;
 * later ones connect to RUN/names.sock. The connection that came last counts; it begins with
 * NAMES_RESET and says everything anew, so that neither side has to know what the other remembers.
 */
#ifndef NAMES_PROTOCOL_H
#define NAMES_PROTOCOL_H

#include <netinet/in.h>
#include <stdint.h>

enum {
    NAMES_VERSION = 1,
    NAMES_MESSAGE_MAX = 16384, /* bytes */
    NAMES_ID_SIZE = 72,        /* 64 digits and NUL, to a multiple of 8 */
    NAMES_RESOLVERS_MAX = 3,   /* as resolv.conf(5) */
    NAMES_CONTROL_FD = 3,      /* numbers in the program */
    NAMES_LISTEN_FD = 4,
};

enum names_type {
    NAMES_RESET = 1, /* forget all places; sockets stay until they are replaced */
    NAMES_PLACE,     /* struct names_place: a container's addresses and names on one network */
    NAMES_LEAVE,     /* struct names_place without names: it is not on that network any more */
    NAMES_SANDBOX,   /* struct names_sandbox; descriptors: UDP socket, TCP listener, and a pidfd of
                        the container's monitor, with whose end all of it is forgotten */
    NAMES_GONE,      /* the container has ended */
    NAMES_POLICY,    /* struct names_sandbox without descriptors: who may be asked from now on */
};

struct names_header {
    uint16_t version;
    uint16_t type;
    uint32_t reserved;
    char container[NAMES_ID_SIZE];
};

struct names_place {
    struct names_header header;
    char network[NAMES_ID_SIZE];
    char network_name[NAMES_ID_SIZE * 2]; /* for answers by address, and NAME.NETWORK */
    struct in_addr address;
    uint32_t has_address6;
    struct in6_addr address6;
    char names[]; /* to the end of the message, each with its NUL; the first one is the best known.
                   * "ALIAS=NAME": for this container alone, ALIAS is who has NAME on the network */
};

struct names_resolver {
    uint32_t family; /* AF_INET, AF_INET6; 0: none */
    uint8_t address[16];
};

struct names_sandbox {
    struct names_header header;
    uint32_t may_ask_others; /* 0: every network of it is internal */
    uint32_t reserved;
    struct names_resolver resolvers[NAMES_RESOLVERS_MAX];
};

/* The whole of the program: serves until nobody needs it. Returns an exit code. */
int names_serve(void);

#endif
