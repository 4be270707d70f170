/*
 * A connection from outside as a stream of bytes: TCP, or TLS over it. Nothing blocks.
 */
#ifndef DOOR_STREAM_H
#define DOOR_STREAM_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

#include <base/error.h>

struct gnutls_session_int;
struct tls;

struct stream {
    int fd;                             /* owned */
    struct gnutls_session_int *session; /* owned; NULL: plain */
    bool unsent;                        /* a record is on its way, and has to be finished first */
    unsigned warnings;                  /* alerts that ended nothing */
};

enum { STREAM_WARNINGS_MAX = 4 }; /* TLS 1.2 has them; nobody has a reason to send any */

/* Takes fd over, also on failure. tls NULL: plain. http: whether HTTP is spoken in it. */
int stream_open(struct stream *stream, int fd, struct tls *tls, bool http, struct error *err);
void stream_finish(struct stream *stream);

/* 1: done (a plain stream is at once), 0: call again when the descriptor is ready (for writing when
 * stream_wants_write()), -EPROTO or -errno with the reason. */
int stream_handshake(struct stream *stream, struct error *err);
bool stream_wants_write(const struct stream *stream);

/* Bytes (0: the end), -EAGAIN, or -errno: the connection is lost. */
ssize_t stream_read(struct stream *stream, void *data, size_t size);
ssize_t stream_write(struct stream *stream, const void *data, size_t length);
/* Whether there is more to read that the descriptor does not tell of. */
bool stream_has_more(const struct stream *stream);
/* Says that nothing more will be written. -EAGAIN: not yet, the descriptor takes nothing; to be
 * called again when it does. */
int stream_shutdown(struct stream *stream);

#endif
