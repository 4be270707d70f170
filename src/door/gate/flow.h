/*
 * What waits in a connection: on its way in to the daemon, and out to whoever has come.
 */
#ifndef DOOR_FLOW_H
#define DOOR_FLOW_H

#include <base/buffer.h>

struct flow {
    struct buffer in;
    size_t in_ready; /* bytes of it that may be sent: the rest is a message that is not whole yet */
    struct buffer out;
};

#endif
