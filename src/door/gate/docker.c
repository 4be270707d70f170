/*
 * Clients of the Docker Engine API: those of a Unix socket as they are, those of TCP and TLS
 * through a peer, whose inside is a connection here.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include <base/alloc.h>
#include <base/log.h>
#include <door/docker.h>

#include "gate.h"

struct guest {
    struct gate *gate;
    const struct listener *listener; /* of a Unix socket */
    uint64_t peer;                   /* the number of the peer; 0: of a Unix socket */
    char address[DOOR_ADDRESS_TEXT];
};

static int open_inside(void *data, struct error *err)
{
    const struct guest *guest = data;

    if (!guest->peer)
        return inside_open_local(guest->gate, guest->listener, guest->address, err);
    struct peer *peer = peer_find(guest->gate, guest->peer);
    if (!peer)
        return error_set(err, -ECONNRESET, "the client has left");
    return inside_open(peer, NULL, err);
}

static void on_gone(void *data)
{
    struct guest *guest = data;
    struct gate *gate = guest->gate;
    bool local = !guest->peer;

    free(guest);
    if (local)
        gate_peer_gone(gate);
}

static const struct docker_client_ops guest_ops = {.open_inside = open_inside, .gone = on_gone};

void docker_admit(struct gate *gate, const struct listener *listener, int fd)
{
    struct guest *guest = xnew(struct guest);
    struct ucred who = {.uid = (uid_t)-1};
    socklen_t length = sizeof(who);

    guest->gate = gate;
    guest->listener = listener;
    getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &who, &length);
    snprintf(guest->address, sizeof(guest->address), "unix:%u:%d", who.uid, who.pid);
    rpc_loop_clear_timer(gate->loop, &gate->exit);
    gate->peers_count++;
    docker_server_accept(gate->docker, fd, &guest_ops, guest);
}

int docker_open(struct peer *peer)
{
    struct guest *guest;
    int pair[2];

    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, pair) < 0)
        return -errno;
    guest = xnew(struct guest);
    guest->gate = peer->gate;
    guest->peer = peer->number;
    docker_server_accept(peer->gate->docker, pair[1], &guest_ops, guest);
    return pair[0];
}
