/*
 * WebSocket frames (RFC 6455) of a server for a stream of bytes: what data frames bring is the
 * stream's, wherever messages begin and end; what goes out is binary. No input or output.
 *
 * It is not wslay's, as the gate's: cloche-docker has no libraries, and a stream without messages
 * needs none of what is difficult there.
 */
#ifndef DOOR_DOCKER_FRAMES_H
#define DOOR_DOCKER_FRAMES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <base/buffer.h>

#include "head.h"

enum {
    FRAMES_HEAD_MAX = 14,      /* bytes of a frame before its data, the mask included */
    FRAMES_CONTROL_MAX = 125,  /* bytes of a ping, pong or close (5.5) */
    FRAMES_ACCEPT_LENGTH = 28, /* Base64 of a SHA-1 */
};

enum frames_code { /* of an end (7.4.1) */
                   FRAMES_NORMAL = 1000,
                   FRAMES_PROTOCOL_ERROR = 1002,
};

struct frames {
    unsigned char head[FRAMES_HEAD_MAX];
    size_t head_length;
    bool in_frame;   /* the head is whole */
    bool in_message; /* the last data frame was not its message's last */
    uint64_t left;   /* bytes of the frame that are to come */
    uint64_t read;   /* and have come */
    char control[FRAMES_CONTROL_MAX];
    bool closed; /* the end was said: nothing is read or written any more */
};

/* Whether this is a WebSocket's request, with what the answer's Sec-WebSocket-Accept has to say. On
 * false *ret_problem says what is wrong. */
bool frames_handshake(const struct head *head, char ret_accept[FRAMES_ACCEPT_LENGTH + 1],
                      const char **ret_problem);

/* Reads all of the client's bytes: the stream's go to `to`, answers to pings and the end of the
 * WebSocket to `out`. While `out` has more than `most` bytes, pings are not answered. A frame that
 * makes no sense is the end. */
void frames_read(struct frames *frames, const char *data, size_t length, struct buffer *to,
                 struct buffer *out, size_t most);

/* A piece of the stream for the client. */
void frames_write(struct frames *frames, const char *data, size_t length, struct buffer *out);

/* Says the end, once. */
void frames_close(struct frames *frames, enum frames_code code, struct buffer *out);

#endif
