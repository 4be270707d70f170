/*
 * What the daemon is told of a peer.
 */
#include <base/alloc.h>
#include <base/text.h>
#include <schema/rpc.h>

#include "gate.h"
#include "tls.h"

int inside_open_peer(struct peer *peer, const char *origin, struct error *err)
{
    struct certificate certificate;

    int r = tls_certificate(peer->stream.session, &certificate, err);
    if (r < 0)
        return r;
    const struct rpc_introduction introduction = {
        .transport = (char *)(uintptr_t)door_transport_name(peer->listener->address.transport),
        .address = peer->address,
        .listener = (char *)(uintptr_t)peer->listener->url,
        .origin = (char *)(uintptr_t)origin,
        .name = certificate.common_name,
        .subject = certificate.subject,
        .names = certificate.names,
        .names_count = strv_length(certificate.names),
        .fingerprint = r ? certificate.fingerprint : NULL,
    };
    int fd = inside_open(peer->gate, &introduction, err);
    certificate_finish(&certificate);
    return fd;
}
