/*
 * A channel from the inside: channel.c moves bytes and messages, channel_calls.c has the table of
 * calls that wait for their answers.
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
    uint64_t end; /* of the request: how many bytes were written up to there */
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

/* Descriptors that go with the byte at `at` of the output. */
struct beside {
    size_t at;
    int fds[RPC_FDS_MAX]; /* owned */
    size_t count;
};

struct rpc_channel {
    struct rpc_loop *loop;
    struct rpc_watch watch; /* fd -1: the connection has ended */
    struct rpc_task flush;
    struct rpc_channel_events events;
    size_t references;
    bool closed;
    const struct rpc_codec *codec;
    bool negotiating;
    struct held *held, **last_held;
    size_t held_bytes;

    struct pending **table; /* owned; by number, chained */
    size_t mask, in_flight;
    struct pending *spare;
    int64_t last_number;

    struct buffer out;
    size_t sent;           /* bytes of out */
    uint64_t sent_before;  /* those that are no longer in out */
    struct beside *beside; /* owned */
    size_t beside_count;

    struct buffer in;
    size_t searched; /* bytes of in that the codec need not look at again */
    int fds[CHANNEL_FDS_MAX];
    size_t fds_count;
    struct rpc_channel_counts counts;
};

/* A call of the channel's last number. */
struct pending *channel_add_pending(struct rpc_channel *channel);
/* NULL: there is none of that number. */
struct pending *channel_find_pending(struct rpc_channel *channel, int64_t number);
/* Takes the call off, whose time no longer runs; the caller finishes it. NULL as above. */
struct pending *channel_take_pending(struct rpc_channel *channel, int64_t number);

#endif
