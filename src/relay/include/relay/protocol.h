/*
 * What the engine and cloche-relay tell each other: SOCK_SEQPACKET, one message a packet, host byte
 * order, exact sizes. The engine that starts the program gives it one end of a socket pair; later
 * ones connect to RUN/relay.sock. The connection that came last counts.
 *
 * For each container an engine says RELAY_BEGIN, RELAY_PORT for each of its sockets, and RELAY_END:
 * what was not named in between is closed. An engine whose predecessor has opened the socket cannot
 * bind another one; it sends the message without, and is answered: with the socket that the program
 * has, or that it has none.
 */
#ifndef RELAY_PROTOCOL_H
#define RELAY_PROTOCOL_H

#include <stdint.h>

enum {
    RELAY_VERSION = 2,
    RELAY_ID_SIZE = 72,   /* 64 digits and NUL, to a multiple of 8 */
    RELAY_CONTROL_FD = 3, /* numbers in the program */
    RELAY_LISTEN_FD = 4,
};

enum relay_type {
    RELAY_BEGIN = 1, /* the container's sockets follow; its connections go on */
    RELAY_PORT,      /* one; descriptors: a pidfd of the container's monitor, with whose end sockets
                      * and connections are closed, and the socket, if the engine has it */
    RELAY_END,       /* these were all */
    RELAY_GONE,      /* the container has ended: its sockets and connections are closed */

    RELAY_KEPT = 16, /* answers to a RELAY_PORT without socket, with its values: here it is (one
                      * descriptor, a second one of the same socket) */
    RELAY_LACKING,   /* there is none */
};

enum relay_use {
    RELAY_LEAD = 1, /* TCP (listening) and UDP: who comes is led to the container */
    RELAY_HOLD,     /* bound, so that no other program is: nothing comes by it */
};

struct relay_address {
    uint16_t family; /* AF_INET, AF_INET6 */
    uint16_t port;
    uint8_t address[16];
};

struct relay_message {
    uint16_t version;
    uint16_t type;
    uint16_t use; /* of RELAY_PORT: enum relay_use, and IPPROTO_TCP ... */
    uint16_t protocol;
    struct relay_address host;   /* what the socket is bound to */
    struct relay_address target; /* of RELAY_LEAD */
    char container[RELAY_ID_SIZE];
};

/* The whole of the program: serves until nobody needs it. Returns an exit code. */
int relay_serve(void);

#endif
