/*
 * Those who come through a door: a server of their own, whose connections begin with rpc.peer
 * (runtime-spec/rpc.json), in which the door says who is behind them. Until then, and from anybody
 * who is not let in by the settings (methods, grants), nothing can be called.
 */
#ifndef CLOCHED_DOOR_GUESTS_H
#define CLOCHED_DOOR_GUESTS_H

#include "door.h"

struct rpc_request;
struct rpc_server;

/* Connections are given to it with rpc_server_adopt(); their tag is their struct door_settings. */
int door_guests_create(const struct door_keeper_options *options, struct rpc_server **ret,
                       struct error *err);

/* Answers rpc.whoami of a guest. */
void door_guests_whoami(struct rpc_request *request);

#endif
