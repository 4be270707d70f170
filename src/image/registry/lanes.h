/*
 * The layers of an image travel side by side: threads, each with a connection of its own, take one
 * place after the other.
 */
#ifndef REGISTRY_LANES_H
#define REGISTRY_LANES_H

#include <stddef.h>

#include <base/error.h>

#include "http.h"
#include "session.h"

struct lanes {
    struct session *session; /* stopped by the first failure */
    size_t count;            /* of places */
    size_t most;             /* threads; this one is the first of them */
    int (*take)(void *data, size_t place, struct http_lane *lane, struct error *err);
    void *data;
};

/* Returns when all threads have ended, with the first failure; the places that nobody has taken by
 * then are left. */
int lanes_run(const struct lanes *lanes, struct error *err);

#endif
