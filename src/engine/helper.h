/*
 * A program beside the daemon that serves containers while no daemon lives, at most one of a kind
 * and instance: started when it is needed first, found by its socket by later daemons, started
 * again when it has ended and is missed. It takes messages of SOCK_SEQPACKET; some answer.
 */
#ifndef ENGINE_HELPER_H
#define ENGINE_HELPER_H

#include "internal.h"

enum { HELPER_CONTROL_FD = 3, HELPER_LISTEN_FD = 4 }; /* numbers in the program */

struct helper_kind {
    const char *name;   /* of the program */
    const char *socket; /* file in the run folder */
    /* A new connection: what has to be said first. May be NULL. */
    void (*connected)(struct helper *helper);
    /* It answers: the message and its descriptor (owned; -1: none). NULL: it never does. */
    void (*answered)(struct engine *engine, const void *message, size_t size, int fd);
    /* It has ended: whether a container needs it, and some time later, the longer the more often it
     * happened: all of it has to be said again. */
    bool (*is_missed)(struct engine *engine);
    void (*again)(struct engine *engine);
};

/* program: its path; both live as long as the engine. */
struct helper *helper_create(struct engine *engine, const struct helper_kind *kind,
                             const char *program);
/* Starts the program or connects to it, where that has not been done. */
int helper_ensure(struct helper *helper, struct error *err);
/* Nothing where there is no connection; a failure is logged. */
void helper_send(struct helper *helper, const void *message, size_t size, const int *fds,
                 size_t count);
/* Frees it; the program goes on. NULL allowed. */
void helper_close(struct helper *helper);
void helper_unlink(const struct engine *engine, const struct helper_kind *kind);

#endif
