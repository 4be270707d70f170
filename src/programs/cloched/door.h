/*
 * The daemon's side of cloche-door: the sockets that it listens on are opened here and passed on.
 *
 *     door_keeper_create()   the configuration is checked and the sockets listen; no process runs
 *     ... a client comes     cloche-door is started with the sockets and takes it
 *     ... nobody has come for a while, and it ends: the sockets are watched here again
 *     ... it crashed: the same, after a pause that doubles each time
 *
 * A door hands in its connections over a socket that nobody else has; door_guests.h serves them.
 */
#ifndef CLOCHED_DOOR_H
#define CLOCHED_DOOR_H

#include <stdbool.h>

#include <base/error.h>

struct door_settings;
struct rpc_loop;
struct rpc_server;
struct door_keeper;

enum {
    DOOR_FALLBACK_ID = 65527, /* user and group; systemd leaves 65520 to 65533 alone */
    DOOR_EXIT_SECONDS = 60,   /* without a connection, unless the settings say otherwise */
    DOOR_RETRY_MIN_MS = 100,  /* after a crash */
    DOOR_RETRY_MAX_MS = 30000,
    DOOR_STEADY_MS = 60000, /* whoever has run for so long begins anew with the shortest pause */
    DOOR_BIND_MS = 3000,    /* for the door of a daemon that was killed to let its sockets go */
};

struct door_keeper_options {
    struct rpc_loop *loop;
    struct door_settings *settings; /* taken over, also on failure */
    const char *libexec;            /* where the program is, */
    const char *program;            /* NULL: cloche-door */
    bool known;                     /* the settings are our own: nothing has to be checked */
    const char *document;           /* for rpc.discover; must stay */
    void *context;                  /* of the methods */
    int (*add_methods)(struct rpc_server *server, struct error *err);
};

/* Blocks while the door checks its configuration. -errno with what is wrong with it; options are
 * taken over on failure, too. */
int door_keeper_create(const struct door_keeper_options *options, struct door_keeper **ret,
                       struct error *err);
/* Goes on with these settings (taken over, also on failure): places that are not named any more are
 * closed, others opened (one that cannot be is logged, and missing). A running door takes no more
 * clients if anything has changed that it has read, and goes on with those that it has; clients
 * whose place, certificate or rights are gone are closed. -errno with what is wrong: everything
 * stays. Blocks as door_keeper_create() does. */
int door_keeper_apply(struct door_keeper *keeper, struct door_settings *settings,
                      struct error *err);
/* What is wrong with settings, without a keeper. Blocks. */
int door_keeper_check(struct door_settings *settings, const char *libexec, struct error *err);
/* The door is ended; its connections are the server's to end. Before the server. NULL is nothing.
 */
void door_keeper_destroy(struct door_keeper *keeper);

#endif
