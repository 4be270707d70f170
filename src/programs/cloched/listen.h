/*
 * What makes a daemon the one of its instance: its lock, and its socket.
 */
#ifndef CLOCHED_LISTEN_H
#define CLOCHED_LISTEN_H

#include <base/error.h>
#include <base/instance.h>

/* Takes RUN/cloched.pid, makes RUN when it is missing, and writes our process id. The descriptor
 * holds the lock. -EBUSY: another daemon has it. One that ends is waited for, up to 20 s. */
int listen_lock(const struct instance *instance, struct error *err);

/* The socket that systemd passed (LISTEN_FDS), else a new one in the place of whatever a dead
 * daemon left. Needs the lock. Returns the descriptor. */
int listen_open(const struct instance *instance, struct error *err);

/* Tells systemd (NOTIFY_SOCKET, sd_notify(3)), where there is one. */
void listen_notify(const char *state);

#endif
