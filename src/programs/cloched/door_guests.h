/*
 * Those who come through a door: a server of their own. Beside each connection that the door hands
 * over it says who is behind it (rpc_introduction of runtime-spec/rpc.json), and nothing that comes
 * within the connection changes that. What they may call is in the settings (methods, grants).
 */
#ifndef CLOCHED_DOOR_GUESTS_H
#define CLOCHED_DOOR_GUESTS_H

#include "door.h"

struct door_guests;
struct rpc_request;

/* settings stay the caller's. */
int door_guests_create(const struct door_keeper_options *options,
                       const struct door_settings *settings, struct door_guests **ret,
                       struct error *err);
/* Ends all their connections. NULL is nothing. */
void door_guests_destroy(struct door_guests *guests);

/* Serves a connection (taken over, also on failure) of whoever the text of the door says. -errno:
 * the door has not said it in a proper way, and nobody is served. */
int door_guests_adopt(struct door_guests *guests, int fd, const char *introduction, size_t length,
                      struct error *err);

/* Goes on with these settings. Those who may not come to their place any more, or may do less than
 * before, are closed. */
void door_guests_apply(struct door_guests *guests, const struct door_settings *settings);

/* Answers rpc.whoami of a guest. */
void door_guests_whoami(struct rpc_request *request);

#endif
