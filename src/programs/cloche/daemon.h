/*
 * A daemon on demand.
 *
 * Nobody listens on the instance's socket: under systemd with a unit installed, systemd starts it.
 * Else `cloched [--instance NAME] --ready-fd 3` is started in a session of its own, its messages
 * in RUN/cloched.log. The start is guarded by a lock (RUN/start.lock), so that of many commands at
 * once one starts it and the others find it running. cloched writes to descriptor 3 when its socket
 * listens.
 */
#ifndef CLOCHE_DAEMON_H
#define CLOCHE_DAEMON_H

#include <base/error.h>
#include <base/instance.h>

struct rpc_client;

/* Connects, after a start where needed. Blocks, up to 30 seconds for the start. The client is
 * owned by the caller. */
int daemon_connect(const struct instance *instance, struct rpc_client **ret, struct error *err);

#endif
