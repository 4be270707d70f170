/*
 * The attach stream at work: the user's stdin, stdout and stderr on one side, the container's
 * monitor on the other (runtime-spec: attach streams). Raw bytes with a terminal, frames of 8 bytes
 * header and data without.
 */
#ifndef CLOCHE_STREAM_H
#define CLOCHE_STREAM_H

#include <stdbool.h>
#include <stdint.h>

#include <base/buffer.h>
#include <base/detach_keys.h>
#include <base/error.h>

#include "terminal.h"

enum stream_end {
    STREAM_ENDED,       /* the other side closed it: the container's program has ended */
    STREAM_DETACHED,    /* the user typed the detach keys */
    STREAM_INTERRUPTED, /* a signal that is not passed on ended us */
};

/* What happens beside the bytes. context is the caller's. */
struct stream_events {
    /* The user's terminal has this size; also called once at the start. */
    void (*resize)(void *context, uint16_t rows, uint16_t columns);
    /* A signal came that is to be passed on. */
    void (*signal)(void *context, int number);
    /* A further descriptor to wait for (-1: none), and what to do when it is readable. Asked
     * again before every wait. */
    int (*watched_fd)(void *context);
    void (*watched)(void *context);
};

struct stream {
    int fd;            /* not owned */
    bool tty;          /* raw bytes, and keys that detach */
    bool with_stdin;   /* pass on ours; its end half-closes the stream */
    bool pass_signals; /* --sig-proxy; otherwise they end us */
    struct detach_keys detach_keys;
    const struct stream_events *events;
    void *context;
    int signal; /* the one that ended us, for STREAM_INTERRUPTED */
};

/* Signals are taken from now on: those that come between attach and stream_run() are not lost.
 * Returns a signalfd for stream_run(); -errno. */
int stream_take_signals(struct error *err);

/* Runs to its end. The user's terminal is raw meanwhile (with_stdin, tty, and stdin is a
 * terminal), and is restored on return. -EPIPE: our own stdout was closed. signals is
 * stream_take_signals()'s, not owned. */
int stream_run(struct stream *stream, int signals, enum stream_end *ret_end, struct error *err);

/* ---- frames, for tests */

enum { FRAME_HEADER = 8, FRAME_STDOUT = 1, FRAME_STDERR = 2 };

/* Where the parser of frames stands. Zeroed: at the start. */
struct frames {
    unsigned char header[FRAME_HEADER];
    unsigned header_length;
    uint32_t left; /* bytes of the current frame still to come */
};

/* Sorts data into the two buffers. -EPROTO: not a frame. */
int frames_parse(struct frames *frames, const unsigned char *data, size_t length,
                 struct buffer *out, struct buffer *err_out);

#endif
