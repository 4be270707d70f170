/*
 * Clients of the Docker Engine API that come to a Unix socket.
 */
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>

#include <base/alloc.h>
#include <door/docker.h>
#include <schema/rpc.h>

#include "gate.h"

struct client {
    struct gate *gate;
    const struct listener *listener;
    char address[DOOR_ADDRESS_TEXT];
};

static int open_inside(void *data, struct error *err)
{
    struct client *client = data;
    const struct rpc_introduction introduction = {
        .transport = (char *)(uintptr_t)door_transport_name(client->listener->address.transport),
        .address = client->address,
        .listener = (char *)(uintptr_t)client->listener->url,
    };

    return inside_open(client->gate, &introduction, err);
}

static void on_gone(void *data)
{
    struct client *client = data;
    struct gate *gate = client->gate;

    free(client);
    gate_peer_gone(gate);
}

void docker_admit(struct gate *gate, const struct listener *listener, int fd)
{
    static const struct docker_client_ops ops = {
        .kind = DOCKER_CLIENT_LOCAL, .open_inside = open_inside, .gone = on_gone};
    struct client *client = xnew(struct client);
    struct ucred who = {.uid = (uid_t)-1};
    socklen_t length = sizeof(who);

    client->gate = gate;
    client->listener = listener;
    getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &who, &length);
    snprintf(client->address, sizeof(client->address), "unix:%u:%d", who.uid, who.pid);
    rpc_loop_clear_timer(gate->loop, &gate->exit);
    gate->peers_count++;
    docker_server_accept(gate->docker, fd, &ops, client);
}
