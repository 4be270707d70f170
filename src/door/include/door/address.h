/*
 * Where a door listens, written as a URL: tcp://127.0.0.1:7070, tls://0.0.0.0:7071,
 * ws://[::1]:8080, wss://192.0.2.1:8443; of the Docker Engine API docker+unix:///run/docker.sock,
 * docker+tls://0.0.0.0:2376, docker+tcp://127.0.0.1:2375.
 *
 * Hosts are literal addresses, or "localhost" for 127.0.0.1: nothing is looked up.
 */
#ifndef DOOR_ADDRESS_H
#define DOOR_ADDRESS_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/socket.h>

#include <base/error.h>

enum door_transport {
    DOOR_TCP,         /* a JSON message a line, or CBOR behind a length */
    DOOR_TLS,         /* the same in TLS */
    DOOR_WS,          /* WebSocket at /rpc over HTTP */
    DOOR_WSS,         /* the same over HTTPS */
    DOOR_DOCKER_UNIX, /* the Docker Engine API on a Unix socket */
    DOOR_DOCKER_TCP,
    DOOR_DOCKER_TLS,
};

struct door_address {
    enum door_transport transport;
    uint16_t port; /* 0: chosen by the kernel */
    bool loopback; /* only this machine can reach it */
    struct sockaddr_storage socket;
    socklen_t socket_length;
};

/* -EINVAL with what is wrong with it. */
int door_address_parse(const char *text, struct door_address *ret, struct error *err);

/* "tcp", "tls", "ws", "wss", "docker+unix" ... */
const char *door_transport_name(enum door_transport transport);
bool door_transport_is_tls(enum door_transport transport);
bool door_transport_is_http(enum door_transport transport); /* WebSockets */
bool door_transport_is_docker(enum door_transport transport);

/* A listening socket there (O_CLOEXEC, non-blocking), also for an address that the machine does not
 * have yet. -errno. */
int door_address_listen(const struct door_address *address, const char *text, struct error *err);

/* "192.0.2.1:8443" or "[2001:db8::1]:8443". */
enum { DOOR_ADDRESS_TEXT = 64 };
void door_address_format(const struct sockaddr_storage *address, char ret[DOOR_ADDRESS_TEXT]);

#endif
