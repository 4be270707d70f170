/*
 * Whether an HTTP request opens a WebSocket here (RFC 6455, 4.2). No state, no input or output.
 */
#ifndef DOOR_HANDSHAKE_H
#define DOOR_HANDSHAKE_H

#include <stdbool.h>

enum {
    HANDSHAKE_ACCEPT_LENGTH = 28, /* base64 of a SHA-1 */
};
#define HANDSHAKE_PROTOCOL "cloche-rpc"
#define HANDSHAKE_PATH "/rpc"

/* Values of headers; NULL: there is none. Those that may not come twice count how often they do. */
struct handshake_request {
    const char *method;
    const char *version;
    const char *host;
    const char *origin;
    const char *upgrade;
    const char *connection;
    const char *key;
    const char *websocket_version;
    const char *protocols; /* several headers joined by commas */
    unsigned hosts, origins, keys;
};

struct handshake_rules {
    char **origins;    /* allowed beside the door's own; "*": any */
    const char *local; /* the address that the connection came to: "192.0.2.1:8080" */
    bool tls;
    bool loopback;
};

struct handshake_answer {
    unsigned status;     /* 101, or an HTTP error */
    const char *problem; /* of an error: one line, for a person */
    bool protocol;       /* HANDSHAKE_PROTOCOL is to be named in the answer */
    char accept[HANDSHAKE_ACCEPT_LENGTH + 1];
};

void handshake_check(const struct handshake_request *request, const struct handshake_rules *rules,
                     struct handshake_answer *ret);

/* Whether a page from this origin, with this Host header, may use the door. */
bool handshake_origin_allowed(const char *origin, const char *host,
                              const struct handshake_rules *rules);

#endif
