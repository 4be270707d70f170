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

/* What goes beside the connection that is handed to the daemon: who it speaks for. Never within it:
 * there the client speaks, and nothing that it says may ever be taken for the door's word. */
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
    rpc_introduction_write(&introduction, out);
    certificate_finish(&certificate);
    if (out->length > DOOR_INTRODUCTION_MAX)
        return error_set(err, -EMSGSIZE, "who has come takes too many words");
    return 0;
}

/* One end to the daemon, in a message that says who has come. */
static int hand_over(int control_fd, const struct buffer *introduction, struct error *err)
{
    int pair[2];

    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, pair) < 0)
        return error_errno(err, errno, "make a connection");
    ssize_t n = socket_send(control_fd, introduction->data, introduction->length, &pair[1], 1);
    close(pair[1]);
    if (n < 0) {
        close(pair[0]);
        return error_errno(err, (int)-n, "hand a connection to the daemon");
    }
    return pair[0];
}

int inside_open_local(struct gate *gate, const struct listener *listener, const char *address,
                      struct error *err)
{
    const struct door_config *config = gate->config;
    _cleanup_buffer_ struct buffer text = BUFFER_INIT;
    const struct rpc_introduction introduction = {
        .transport = (char *)(uintptr_t)door_transport_name(listener->address.transport),
        .address = (char *)(uintptr_t)address,
        .listener = (char *)(uintptr_t)listener->url,
    };

    if (config->control_fd < 0)
        return socket_connect_unix(config->connect, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC,
                                   err);
    rpc_introduction_write(&introduction, &text);
    return hand_over(config->control_fd, &text, err);
}

int inside_open(struct peer *peer, const char *origin, struct error *err)
{
    const struct door_config *config = peer->gate->config;
    _cleanup_buffer_ struct buffer introduction = BUFFER_INIT;

    if (config->control_fd < 0)
        return socket_connect_unix(config->connect, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC,
                                   err);
    int r = write_introduction(peer, origin, &introduction, err);
    return r < 0 ? r : hand_over(config->control_fd, &introduction, err);
}
