#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <base/alloc.h>
#include <base/socket.h>
#include <base/text.h>
#include <schema/rpc.h>

#include "gate.h"
#include "tls.h"

/* The first message of a connection that is handed to the daemon: who it speaks for. A
 * notification: the daemon has nothing to say to it, and closes what it does not like. */
static int write_introduction(struct peer *peer, const char *origin, struct buffer *out,
                              struct error *err)
{
    enum door_transport transport = peer->listener->address.transport;
    struct certificate certificate;

    int r = tls_certificate(peer->stream.session, &certificate, err);
    if (r < 0)
        return r;
    const struct rpc_introduction introduction = {
        .transport = (char *)(uintptr_t)door_transport_name(transport),
        .address = peer->address,
        .listener = (char *)(uintptr_t)peer->listener->url,
        .origin = (char *)(uintptr_t)origin,
        .name = certificate.common_name,
        .subject = certificate.subject,
        .names = certificate.names,
        .names_count = strv_length(certificate.names),
        .fingerprint = r ? certificate.fingerprint : NULL,
    };
    buffer_append_text(out, "{\"jsonrpc\":\"2.0\",\"method\":\"rpc.peer\",\"params\":");
    rpc_introduction_write(&introduction, out);
    buffer_append_text(out, "}\n");
    certificate_finish(&certificate);
    return 0;
}

/* One end to the daemon, beside a byte. */
static int hand_over(int control_fd, struct error *err)
{
    int pair[2];

    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, pair) < 0)
        return error_errno(err, errno, "make a connection");
    ssize_t n = socket_send(control_fd, "c", 1, &pair[1], 1);
    close(pair[1]);
    if (n < 0) {
        close(pair[0]);
        return error_errno(err, (int)-n, "hand a connection to the daemon");
    }
    return pair[0];
}

int inside_open(struct peer *peer, const char *origin, struct buffer *ret_first, struct error *err)
{
    const struct door_config *config = peer->gate->config;
    _cleanup_buffer_ struct buffer first = BUFFER_INIT;

    if (config->control_fd < 0)
        return socket_connect_unix(config->connect, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC,
                                   err);
    int r = write_introduction(peer, origin, &first, err);
    if (r < 0)
        return r;
    int fd = hand_over(config->control_fd, err);
    if (fd >= 0) {
        *ret_first = first;
        first = (struct buffer)BUFFER_INIT;
    }
    return fd;
}
