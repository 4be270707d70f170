/*
 * `cloche -H`: a daemon that is somewhere else, reached through cloche-dial(8).
 */
#ifndef CLOCHE_DIAL_H
#define CLOCHE_DIAL_H

#include <base/error.h>

struct rpc_client;

struct dial_options {
    const char *host; /* unix:///PATH, tcp://HOST:PORT or tls://HOST:PORT; NULL: here */
    const char *ca, *cert, *key;
};

/* Connects. Blocks. The client is owned by the caller. */
int dial_connect(const struct dial_options *options, struct rpc_client **ret, struct error *err);

/* Whether descriptors can go along with messages there. */
bool dial_has_descriptors(const struct dial_options *options);

#endif
