/*
 * What the engine tells cloche-relay: SOCK_SEQPACKET, one message a packet, host byte order, exact
 * sizes. Nothing is answered. The engine that starts the program gives it one end of a socket pair;
 * later ones connect to RUN/relay.sock. The connection that came last counts.
 *
 * For each container an engine says RELAY_CLEAR, and RELAY_ADD for each of its ports, so that it
 * does not have to know what the program has. It opens every listening socket anew, with
 * SO_REUSEPORT: the one that it replaces may still be open for a moment.
 */
#ifndef RELAY_PROTOCOL_H
#define RELAY_PROTOCOL_H

#include <stdint.h>

enum {
    RELAY_VERSION = 1,
    RELAY_ID_SIZE = 72,   /* 64 digits and NUL, to a multiple of 8 */
    RELAY_CONTROL_FD = 3, /* numbers in the program */
    RELAY_LISTEN_FD = 4,
};

enum relay_type {
    RELAY_CLEAR = 1, /* no port of the container is served any more; connections go on */
    RELAY_ADD,  /* one is; descriptors: its listening TCP socket, and a pidfd of the container's
                 * monitor, with whose end ports and connections are closed */
    RELAY_GONE, /* the container has ended: its ports and connections are closed */
};

struct relay_message {
    uint16_t version;
    uint16_t type;
    uint16_t target_family; /* AF_INET, AF_INET6; of RELAY_ADD */
    uint16_t target_port;
    uint8_t target[16];
    char container[RELAY_ID_SIZE];
};

/* The whole of the program: serves until nobody needs it. Returns an exit code. */
int relay_serve(void);

#endif
