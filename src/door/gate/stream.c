#include <errno.h>
#include <gnutls/gnutls.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <base/cleanup.h>

#include "stream.h"
#include "tls.h"

int stream_open(struct stream *stream, int fd, struct tls *tls, bool http, struct error *err)
{
    *stream = (struct stream){.fd = fd};
    int r = tls ? tls_session(tls, fd, http, &stream->session, err) : 0;

    if (r < 0) {
        close_fd(fd);
        stream->fd = -1;
    }
    return r;
}

void stream_finish(struct stream *stream)
{
    if (stream->session)
        gnutls_deinit(stream->session);
    close_fd(stream->fd);
    *stream = (struct stream){.fd = -1};
}

/* What is wrong with the certificate that was shown. */
static int refuse_certificate(struct stream *stream, struct error *err)
{
    unsigned status = gnutls_session_get_verify_cert_status(stream->session);
    gnutls_datum_t text = {NULL, 0};

    gnutls_certificate_verification_status_print(status, GNUTLS_CRT_X509, &text, 0);
    error_set(err, -EPROTO, "TLS: %s",
              text.data ? (char *)text.data : "the certificate is refused");
    gnutls_free(text.data);
    return -EPROTO;
}

int stream_handshake(struct stream *stream, struct error *err)
{
    if (!stream->session)
        return 1;
    for (;;) {
        int r = gnutls_handshake(stream->session);
        if (r == GNUTLS_E_SUCCESS)
            return 1;
        if (r == GNUTLS_E_AGAIN)
            return 0;
        if (r == GNUTLS_E_INTERRUPTED || !gnutls_error_is_fatal(r))
            continue;
        gnutls_alert_send_appropriate(stream->session, r);
        if (r == GNUTLS_E_FATAL_ALERT_RECEIVED)
            return error_set(err, -EPROTO, "TLS: the other side said: %s",
                             gnutls_alert_get_name(gnutls_alert_get(stream->session)));
        if (r == GNUTLS_E_CERTIFICATE_VERIFICATION_ERROR)
            return refuse_certificate(stream, err);
        return error_set(err, -EPROTO, "TLS: %s", gnutls_strerror(r));
    }
}

bool stream_wants_write(const struct stream *stream)
{
    return stream->session && gnutls_record_get_direction(stream->session) == 1;
}

static ssize_t tls_read(struct stream *stream, void *data, size_t size)
{
    ssize_t n;

    do
        n = gnutls_record_recv(stream->session, data, size);
    while (n == GNUTLS_E_INTERRUPTED);
    if (n >= 0)
        return n;
    /* The library tells of each one, without end. */
    if (n == GNUTLS_E_WARNING_ALERT_RECEIVED && ++stream->warnings > STREAM_WARNINGS_MAX)
        return -ECONNRESET;
    if (n == GNUTLS_E_AGAIN || n == GNUTLS_E_WARNING_ALERT_RECEIVED)
        return -EAGAIN;
    /* RFC 5246 7.2.2: a handshake that is not wanted may be answered so, and then ended. */
    if (n == GNUTLS_E_REHANDSHAKE)
        gnutls_alert_send(stream->session, GNUTLS_AL_WARNING, GNUTLS_A_NO_RENEGOTIATION);
    return -ECONNRESET;
}

ssize_t stream_read(struct stream *stream, void *data, size_t size)
{
    ssize_t n;

    if (stream->session)
        return tls_read(stream, data, size);
    do
        n = recv(stream->fd, data, size, 0);
    while (n < 0 && errno == EINTR);
    return n < 0 ? -errno : n;
}

static ssize_t tls_write(struct stream *stream, const void *data, size_t length)
{
    ssize_t n;

    /* A record that did not fit is kept by the library, which wants to be called without data. */
    do
        n = gnutls_record_send(stream->session, stream->unsent ? NULL : data,
                               stream->unsent ? 0 : length);
    while (n == GNUTLS_E_INTERRUPTED);
    stream->unsent = n == GNUTLS_E_AGAIN;
    if (n >= 0)
        return n;
    return n == GNUTLS_E_AGAIN ? -EAGAIN : -ECONNRESET;
}

ssize_t stream_write(struct stream *stream, const void *data, size_t length)
{
    ssize_t n;

    if (stream->session)
        return tls_write(stream, data, length);
    do
        n = send(stream->fd, data, length, MSG_NOSIGNAL);
    while (n < 0 && errno == EINTR);
    return n < 0 ? -errno : n;
}

bool stream_has_more(const struct stream *stream)
{
    return stream->session && gnutls_record_check_pending(stream->session) > 0;
}

int stream_shutdown(struct stream *stream)
{
    if (stream->session && gnutls_bye(stream->session, GNUTLS_SHUT_WR) == GNUTLS_E_AGAIN)
        return -EAGAIN;
    shutdown(stream->fd, SHUT_WR);
    return 0;
}
