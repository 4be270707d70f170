/*
 * A channel from the inside: channel.c makes calls and ends them, channel_out.c has what is on its
 * way to the server, channel_in.c takes what comes from it, channel_calls.c is the table of calls
 * that wait for their answers.
 */
#ifndef RPC_CHANNEL_INTERNAL_H
#define RPC_CHANNEL_INTERNAL_H

#include <base/buffer.h>
#include <rpc/channel.h>
#include <rpc/loop.h>
#include <rpc/server.h>

#include "codec.h"

enum { CHANNEL_FDS_MAX = 4 * RPC_FDS_MAX };

/* A call that waits for its answer. */
struct pending {
    struct pending *next; /* in its bucket, or among the spare ones */
    struct rpc_channel *channel;
    int64_t number;
    const struct json_method *method;
    rpc_done done;
    void (*progress)(void *data, const struct rpc_progress *progress);
    void *data;
    bool raw;
    bool held;           /* until the encoding is agreed on: nothing is written yet */
    uint64_t start, end; /* of the request: how many bytes were written up to there, ever */
    uint64_t heard;      /* how often something had come by then */
    struct rpc_timer timer;
};

/* A request that waits until the encoding is agreed on. */
struct held {
    struct held *next;
    int64_t number;       /* 0: a notification */
    struct buffer text;   /* JSON */
    int fds[RPC_FDS_MAX]; /* owned */
    size_t fds_count;
};

/* Descriptors that go with the byte at `at`. */
struct beside {
    uint64_t at;
    int64_t number;       /* of the call; 0: a notification */
    int fds[RPC_FDS_MAX]; /* owned */
    size_t count;
};

/* A part that is not to be sent any more. */
struct cut {
    uint64_t from, to;
};

/* What is on its way. Places are counted from the first byte ever written, so that they stay what
 * they are when what was sent is dropped. */
struct output_queue {
    struct buffer data;
    uint64_t before;       /* place of data's first byte */
    size_t sent;           /* bytes of data */
    struct beside *beside; /* owned; in order, as cuts */
    size_t beside_count;
    struct cut *cuts; /* owned */
    size_t cuts_count;
};

struct rpc_channel {
    struct rpc_loop *loop;
    struct rpc_watch watch; /* fd -1: the connection has ended */
    struct rpc_task flush;
    struct rpc_channel_events events;
    size_t references;
    bool closed;
    int ended; /* why; 0: it stands */
    const struct rpc_codec *codec;
    bool negotiating;
    struct held *held, **last_held;
    size_t held_bytes;

    struct pending **table; /* owned; by number, chained */
    size_t mask, in_flight;
    struct pending *spare;
    int64_t last_number;
    size_t owed;                       /* answers to calls that have ended */
    uint64_t owed_since;               /* the first of them, or the last that came */
    size_t message_max, in_flight_max; /* of the server, as it says */

    struct output_queue out;

    uint64_t heard; /* how often something came */
    struct buffer in;
    size_t searched; /* bytes of in that the codec need not look at again */
    int fds[CHANNEL_FDS_MAX];
    size_t fds_count;
    struct rpc_channel_counts counts;
};

/* ---- channel.c ---- */

/* Somebody up the stack uses it: it is not freed before it is released. */
void channel_hold(struct rpc_channel *channel);
void channel_release(struct rpc_channel *channel);
/* The callback, and the end of the call, which was taken off. Whoever comes here holds the
 * channel. */
void channel_finish(struct pending *pending, const struct rpc_outcome *outcome);
/* How a connection ends that the server, or what it sent, has ended. */
struct channel_end {
    int code;
    int fault;        /* of an error answer that says why and names no call; 0: none came */
    const char *what; /* for a person */
    const char *hint; /* NULL */
};
/* Calls end with it. Again is nothing. */
void channel_end(struct rpc_channel *channel, const struct channel_end *why);

/* ---- channel_out.c ---- */

enum { CHANNEL_KEPT = 256 * 1024 }; /* a larger buffer is given back when it is empty */

void output_finish(struct output_queue *out);
/* Nothing more is sent. */
void output_drop(struct output_queue *out);
/* Bytes that are to be sent, or were cut out and are still there. */
size_t output_length(const struct output_queue *out);
/* Where the next byte is written. */
uint64_t output_end(const struct output_queue *out);
/* The first byte of [from, to) is not sent yet: it never will be, nor the others; their descriptors
 * are closed. */
void output_cut(struct output_queue *out, uint64_t from, uint64_t to);
/* Up to where the server may have got it. */
uint64_t output_sent(const struct output_queue *out);
/* fds go with the byte at `at`, and are taken over. */
void output_add_fds(struct output_queue *out, uint64_t at, int64_t number, const int *fds,
                    size_t count);
/* 0: all is sent; -EAGAIN: the rest later; -ETOOMANYREFS: the first descriptors cannot be sent now,
 * it is us; else the connection is broken. */
int output_flush(struct output_queue *out, int fd, struct rpc_metrics *metrics);

/* ---- channel_in.c ---- */

/* Reads what there is and takes it apart. May end the connection. */
void channel_read(struct rpc_channel *channel);

/* ---- channel_calls.c ---- */

/* A call of the channel's last number. */
struct pending *channel_add_pending(struct rpc_channel *channel);
/* NULL: there is none of that number. */
struct pending *channel_find_pending(struct rpc_channel *channel, int64_t number);
/* Takes the call off, whose time no longer runs; the caller finishes it. NULL as above. */
struct pending *channel_take_pending(struct rpc_channel *channel, int64_t number);
/* Any of them; NULL: there is none. */
struct pending *channel_any_pending(struct rpc_channel *channel);

#endif
