/*
 * Messages to a program that does not read fast enough just now: kept in order, with their
 * descriptors, until its socket takes them again.
 */
#ifndef ENGINE_OUTBOX_H
#define ENGINE_OUTBOX_H

#include <stdbool.h>
#include <stddef.h>

enum {
    OUTBOX_BYTES_MAX = 64 * 1024 * 1024, /* of messages that wait */
    OUTBOX_FDS_MAX = 4,                  /* beside one message */
    OUTBOX_WAITING_FDS_MAX = 2048,       /* beside all that wait: the daemon needs others, too */
};

struct outbox {
    struct outbox_message *first, **end;
    size_t bytes, fds_count;
};

#define OUTBOX_INIT                                                                                \
    {                                                                                              \
        .first = NULL                                                                              \
    }

/* Sends the message on a socket that keeps messages apart, or keeps a copy of it and of its
 * descriptors. Does not block. -ENOBUFS: too much waits already; other failures: nobody will read.
 * The descriptors stay the caller's. */
int outbox_send(struct outbox *outbox, int socket_fd, const void *data, size_t size, const int *fds,
                size_t count);

/* Sends what waits, as far as the socket takes it. */
int outbox_flush(struct outbox *outbox, int socket_fd);

/* Waits until the socket takes something of what waits, at most timeout_ms, and sends that.
 * -ETIMEDOUT: it takes nothing. */
int outbox_drain(struct outbox *outbox, int socket_fd, int timeout_ms);

/* Whether somebody has to call outbox_flush() when the socket can be written. */
bool outbox_waits(const struct outbox *outbox);

/* Forgets what waits. */
void outbox_clear(struct outbox *outbox);

#endif
