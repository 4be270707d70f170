/*
 * What listens beyond Unix sockets: the part of the gate that cloche-docker does not have.
 */
#include <errno.h>
#include <fcntl.h>
#include <unistd.h>

#include <base/file.h>
#include <base/log.h>
#include <base/text.h>

#include "gate.h"
#include "tls.h"

static int check(const struct door_config *config, struct error *err)
{
    struct tls *tls;

    if (!config->tls_cert != !config->tls_key)
        return error_set(err, -EINVAL, "a certificate and its key come together");
    if (!config->tls_cert && (config->tls_client_ca || config->tls_crl))
        return error_set(err, -EINVAL, "a client authority is nothing without a certificate");
    int r = tls_create(config, &tls, err);
    if (r == 0)
        tls_destroy(tls);
    if (r == 0 && config->page) {
        _cleanup_free_ char *page = NULL;
        r = file_read_at(AT_FDCWD, config->page, DOOR_FILE_MAX, &page, NULL, err);
        if (r < 0)
            error_context(err, "page");
    }
    return r < 0 ? r : 0;
}

static int prepare(struct gate *gate, struct error *err)
{
    bool http = false;

    for (size_t i = 0; i < gate->listeners_count; i++)
        http |= door_transport_is_http(gate->listeners[i].address.transport);
    int r = tls_create(gate->config, &gate->tls, err);
    if (r == 0 && http)
        r = http_create(gate, &gate->http, err);
    return r;
}

/* Whoever is refused here gets no word: it would cost more than what it is refused for. */
static void admit(struct gate *gate, struct listener *listener, int fd,
                  const struct sockaddr_storage *address)
{
    bool tls = door_transport_is_tls(listener->address.transport);
    struct source *source = source_enter(gate, address, tls);

    if (!source) {
        char text[DOOR_ADDRESS_TEXT];
        door_address_format(address, text);
        if (gate_may_log(gate, NULL))
            log_warning("%s at %s: too many connections from there", text, listener->url);
        close(fd);
        return;
    }
    /* Half of the room is for those who have shown who they are. */
    if (gate->peers_count >= gate->config->connections ||
        gate->handshakes > (gate->config->connections + 1) / 2)
        peers_drop_handshake(gate);
    rpc_loop_clear_timer(gate->loop, &gate->exit);
    peer_create(gate, listener, fd, source, address);
}

/* What was trusted before is held by the sessions until they have been looked at. */
static int trust(struct gate *gate, const int *fds, size_t count, struct error *err)
{
    struct tls *trusted = NULL;

    int r = count ? tls_trust(fds[0], count > 1 ? fds[1] : -1, &trusted, err) : 0;
    if (r < 0)
        return r;
    peers_check(gate, trusted);
    if (trusted) {
        tls_destroy(gate->trust);
        gate->trust = trusted;
    }
    return 0;
}

static void finish(struct gate *gate)
{
    peers_end(gate);
    sources_finish(gate);
    http_destroy(gate->http);
    tls_destroy(gate->tls);
    tls_destroy(gate->trust);
}

static const struct gate_network network = {
    .check = check, .prepare = prepare, .admit = admit, .trust = trust, .finish = finish};
const struct gate_network *const gate_network = &network;
