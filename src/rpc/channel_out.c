/*
 * What a channel sends: one buffer, so that what is written in one round goes out in one piece,
 * with descriptors beside it, and without what was cut out because nobody waits for it any more.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include <base/alloc.h>
#include <base/socket.h>

#include "channel_internal.h"

/* What was sent is dropped when it is so much, and not less than what is still to be sent: else a
 * queue that is never empty would keep every byte that was ever in it. */
enum { COMPACT_MIN = 64 * 1024 };

static void close_fds(const struct beside *beside)
{
    for (size_t i = 0; i < beside->count; i++)
        close_fd(beside->fds[i]);
}

void output_drop(struct output_queue *out)
{
    for (size_t i = 0; i < out->beside_count; i++)
        close_fds(&out->beside[i]);
    out->beside_count = out->cuts_count = 0;
}

void output_finish(struct output_queue *out)
{
    output_drop(out);
    buffer_finish(&out->data);
    free(out->beside);
    free(out->cuts);
}

size_t output_length(const struct output_queue *out)
{
    return out->data.length - out->sent;
}

uint64_t output_end(const struct output_queue *out)
{
    return out->before + out->data.length;
}

uint64_t output_sent(const struct output_queue *out)
{
    return out->before + out->sent;
}

void output_add_fds(struct output_queue *out, uint64_t at, int64_t number, const int *fds,
                    size_t count)
{
    struct beside beside = {.at = at, .number = number, .count = count};

    if (!count)
        return;
    memcpy(beside.fds, fds, count * sizeof(*fds));
    out->beside = xrealloc(out->beside, out->beside_count + 1, sizeof(*out->beside));
    out->beside[out->beside_count++] = beside;
}

/* ---- what is not to be sent ---- */

static void drop_fds(struct output_queue *out, uint64_t from, uint64_t to)
{
    size_t kept = 0;

    for (size_t i = 0; i < out->beside_count; i++) {
        if (out->beside[i].at >= from && out->beside[i].at < to)
            close_fds(&out->beside[i]);
        else
            out->beside[kept++] = out->beside[i];
    }
    out->beside_count = kept;
}

/* In their order: mostly that in which calls were made, so the place is looked for from the end. */
static void add_cut(struct output_queue *out, uint64_t from, uint64_t to)
{
    size_t place = out->cuts_count++;

    out->cuts = xrealloc(out->cuts, out->cuts_count, sizeof(*out->cuts));
    for (; place && out->cuts[place - 1].from > from; place--)
        out->cuts[place] = out->cuts[place - 1];
    out->cuts[place] = (struct cut){.from = from, .to = to};
}

/* Cuts at the end of the data need not be remembered: it ends there. */
static void shorten(struct output_queue *out)
{
    while (out->cuts_count && out->cuts[out->cuts_count - 1].to == output_end(out)) {
        out->data.length = (size_t)(out->cuts[--out->cuts_count].from - out->before);
        out->data.data[out->data.length] = '\0';
    }
}

void output_cut(struct output_queue *out, uint64_t from, uint64_t to)
{
    drop_fds(out, from, to);
    add_cut(out, from, to);
    shorten(out);
}

static void skip_cuts(struct output_queue *out)
{
    size_t skipped = 0;

    while (skipped < out->cuts_count && out->cuts[skipped].from == output_sent(out))
        out->sent = (size_t)(out->cuts[skipped++].to - out->before);
    out->cuts_count -= skipped;
    if (skipped && out->cuts_count)
        memmove(out->cuts, out->cuts + skipped, out->cuts_count * sizeof(*out->cuts));
}

/* ---- sending ---- */

/* Up to where one send goes: descriptors belong to the first byte of theirs. */
static size_t next_stop(const struct output_queue *out, bool with_fds)
{
    uint64_t stop = output_end(out);

    if (out->beside_count > with_fds && out->beside[with_fds].at < stop)
        stop = out->beside[with_fds].at;
    if (out->cuts_count && out->cuts[0].from < stop)
        stop = out->cuts[0].from;
    return (size_t)(stop - out->before);
}

static void drop_first_fds(struct output_queue *out)
{
    close_fds(&out->beside[0]);
    out->beside_count--;
    memmove(out->beside, out->beside + 1, out->beside_count * sizeof(*out->beside));
}

static void drop_sent(struct output_queue *out)
{
    out->before += out->sent;
    buffer_consume(&out->data, out->sent);
    out->sent = 0;
    if (!out->data.length && out->data.capacity > CHANNEL_KEPT)
        buffer_finish(&out->data);
}

int output_flush(struct output_queue *out, int fd, struct rpc_metrics *metrics)
{
    ssize_t n = 0;

    for (skip_cuts(out); n >= 0 && output_length(out); skip_cuts(out)) {
        bool with_fds = out->beside_count && out->beside[0].at == output_sent(out);
        n = socket_send(fd, out->data.data + out->sent, next_stop(out, with_fds) - out->sent,
                        with_fds ? out->beside[0].fds : NULL, with_fds ? out->beside[0].count : 0);
        if (n < 0)
            break;
        if (with_fds)
            drop_first_fds(out);
        out->sent += (size_t)n;
        if (metrics)
            rpc_metrics_add(&metrics->bytes_out, (uint64_t)n);
    }
    if (n >= 0 || (out->sent >= COMPACT_MIN && out->sent >= out->data.length / 2))
        drop_sent(out);
    return n < 0 ? (int)n : 0;
}
