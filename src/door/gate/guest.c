/*
 * Clients of the Docker Engine API that come over TCP and TLS: through a peer, whose inside is a
 * connection here.
 */
#include <errno.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include <base/alloc.h>
#include <door/docker.h>

#include "gate.h"

struct guest {
    struct gate *gate;
    uint64_t peer; /* its number */
};

static int open_inside(void *data, struct error *err)
{
    const struct guest *guest = data;
    struct peer *peer = peer_find(guest->gate, guest->peer);

    if (!peer)
        return error_set(err, -ECONNRESET, "the client has left");
    return inside_open_peer(peer, NULL, err);
}

int docker_open(struct peer *peer)
{
    static const struct docker_client_ops plain = {
        .kind = DOCKER_CLIENT_PLAIN, .open_inside = open_inside, .gone = free};
    static const struct docker_client_ops tls = {
        .kind = DOCKER_CLIENT_TLS, .open_inside = open_inside, .gone = free};
    struct guest *guest;
    int pair[2];

    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, pair) < 0)
        return -errno;
    guest = xnew(struct guest);
    guest->gate = peer->gate;
    guest->peer = peer->number;
    docker_server_accept(peer->gate->docker, pair[1], peer->stream.session ? &tls : &plain, guest);
    return pair[0];
}
