/*
 * cloche-dial: the way of `cloche -H` to a daemon on another machine. It connects, over TLS where
 * that is asked for, says on DIAL_STATUS_FD how that went, and moves bytes between the connection
 * and DIAL_CLIENT_FD until both have ended. A program of its own, since the command line is linked
 * statically and looks up no names.
 *
 * usage: cloche-dial tcp|tls HOST PORT CA CERT KEY [NAME [detached]]
 * (paths; "" where there is none). NAME is what the certificate has to be for, HOST if it is not
 * given; detached: it goes on in a process that is nobody's child.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <gnutls/gnutls.h>
#include <netdb.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <base/alloc.h>
#include <base/buffer.h>
#include <base/file.h>
#include <base/socket.h>
#include <base/text.h>

#include "stream.h"

enum {
    CLIENT_FD = 3,
    STATUS_FD = 4,
    BUFFER_SIZE = 64 * 1024,
    DETACHED_SECONDS = 30, /* for connecting: by then nobody waits for it any more */
};

struct destination {
    bool tls;
    const char *host, *port, *ca, *cert, *key, *name;
};

/* ---- connecting ---- */

static int connect_tcp(const struct destination *to, struct error *err)
{
    const struct addrinfo hints = {.ai_socktype = SOCK_STREAM};
    const int on = 1;
    struct addrinfo *list;
    int fd = -1, problem = EADDRNOTAVAIL;

    int r = getaddrinfo(to->host, to->port, &hints, &list);
    if (r != 0)
        return error_set(err, -EHOSTUNREACH, "%s: %s", to->host, gai_strerror(r));
    for (const struct addrinfo *at = list; at && fd < 0; at = at->ai_next) {
        fd = socket(at->ai_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
        if (fd >= 0 && connect(fd, at->ai_addr, at->ai_addrlen) < 0) {
            problem = errno;
            close(fd);
            fd = -1;
        }
    }
    freeaddrinfo(list);
    if (fd < 0)
        return error_errno(err, problem, "connect to %s port %s", to->host, to->port);
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
    setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof(on));
    return fd;
}

static int load(const struct destination *to, gnutls_certificate_credentials_t credentials,
                struct error *err)
{
    int r = text_empty(to->ca)
                ? gnutls_certificate_set_x509_system_trust(credentials)
                : gnutls_certificate_set_x509_trust_file(credentials, to->ca, GNUTLS_X509_FMT_PEM);
    if (r < 0 || (r == 0 && !text_empty(to->ca)))
        return error_set(err, -EINVAL, "authority %s: %s", to->ca,
                         r < 0 ? gnutls_strerror(r) : "there is none in it");
    if (text_empty(to->cert))
        return 0;
    r = gnutls_certificate_set_x509_key_file(credentials, to->cert, to->key, GNUTLS_X509_FMT_PEM);
    return r < 0 ? error_set(err, -EINVAL, "certificate %s with key %s: %s", to->cert, to->key,
                             gnutls_strerror(r))
                 : 0;
}

static bool is_address(const char *host)
{
    unsigned char bytes[16];

    return inet_pton(AF_INET, host, bytes) == 1 || inet_pton(AF_INET6, host, bytes) == 1;
}

/* The certificate has to be for the host that was named. */
static int shake_hands(const struct destination *to, struct stream *stream, struct error *err)
{
    gnutls_certificate_credentials_t credentials;
    gnutls_session_t session;

    gnutls_certificate_allocate_credentials(&credentials);
    int r = load(to, credentials, err);
    if (r < 0)
        return r;
    gnutls_init(&session, GNUTLS_CLIENT);
    stream->session = session;
    gnutls_priority_set_direct(session, "SECURE128:-VERS-ALL:+VERS-TLS1.3:+VERS-TLS1.2", NULL);
    gnutls_credentials_set(session, GNUTLS_CRD_CERTIFICATE, credentials);
    gnutls_session_set_verify_cert(session, to->name, 0);
    if (!is_address(to->name))
        gnutls_server_name_set(session, GNUTLS_NAME_DNS, to->name, strlen(to->name));
    gnutls_transport_set_int(session, stream->fd);
    do
        r = stream_handshake(stream, err);
    while (r == 0);
    if (r < 0)
        return error_context(err, "%s", to->host), r;
    return 0;
}

/* ---- moving bytes ---- */

struct way {
    struct buffer waiting;
    bool ended; /* nothing more comes from where it begins */
    bool shut;  /* and where it ends knows */
};

static bool take(struct way *way, const char *data, ssize_t n)
{
    if (n == -EAGAIN || n == -EINTR)
        return true;
    if (n > 0)
        buffer_append(&way->waiting, data, (size_t)n);
    way->ended = n <= 0;
    return n >= 0;
}

static ssize_t read_client(void *data, size_t size)
{
    ssize_t n = recv(CLIENT_FD, data, size, 0);

    return n < 0 ? -errno : n;
}

static ssize_t write_client(const void *data, size_t length)
{
    ssize_t n = send(CLIENT_FD, data, length, MSG_NOSIGNAL);

    return n < 0 ? -errno : n;
}

static bool sent(struct way *way, ssize_t n)
{
    if (n > 0)
        buffer_consume(&way->waiting, (size_t)n);
    return n >= 0 || n == -EAGAIN || n == -EINTR;
}

static short wanted(const struct way *from, const struct way *to)
{
    return (short)((!from->ended && from->waiting.length < BUFFER_SIZE ? POLLIN : 0) |
                   (to->waiting.length ? POLLOUT : 0));
}

/* One round. false: the connection is lost. */
static bool move(struct stream *stream, struct way *out, struct way *in)
{
    char data[BUFFER_SIZE / 4];
    struct pollfd ready[] = {{CLIENT_FD, wanted(out, in), 0}, {stream->fd, wanted(in, out), 0}};
    if (out->ended && !out->shut)
        ready[1].events |= POLLOUT;
    bool more = stream_has_more(stream) && ready[1].events & POLLIN;

    if (poll(ready, ARRAY_SIZE(ready), more ? 0 : -1) < 0)
        return errno == EINTR;
    if (ready[0].revents & (POLLIN | POLLHUP | POLLERR) && !out->ended &&
        !take(out, data, read_client(data, sizeof(data))))
        return false;
    if ((more || ready[1].revents & (POLLIN | POLLHUP | POLLERR)) && !in->ended &&
        !take(in, data, stream_read(stream, data, sizeof(data))))
        return false;
    if (out->waiting.length &&
        !sent(out, stream_write(stream, out->waiting.data, out->waiting.length)))
        return false;
    if (in->waiting.length && !sent(in, write_client(in->waiting.data, in->waiting.length)))
        return false;
    if (out->ended && !out->waiting.length && !out->shut) {
        out->shut = stream_shutdown(stream) == 0;
    }
    return true;
}

/* Until the daemon has said all it will. */
static void relay(struct stream *stream)
{
    struct way out = {.waiting = BUFFER_INIT}, in = {.waiting = BUFFER_INIT};

    socket_set_nonblocking(CLIENT_FD);
    socket_set_nonblocking(stream->fd);
    while (!(in.ended && !in.waiting.length) && move(stream, &out, &in))
        ;
    buffer_finish(&out.waiting);
    buffer_finish(&in.waiting);
}

/* ---- the program ---- */

/* "1", or what went wrong and perhaps, on a line of its own, what to try. */
static void tell(const struct error *err)
{
    _cleanup_free_ char *text =
        err ? xasprintf("%s\n%s", error_message(err), err->hint ? err->hint : "") : xstrdup("1");

    file_write_all(STATUS_FD, text, strlen(text));
    close(STATUS_FD);
}

int main(int argc, char **argv)
{
    _cleanup_error_ struct error err = ERROR_INIT;

    if (argc < 7 || argc > 9)
        return EXIT_FAILURE;
    if (argc == 9 && fork() != 0)
        return EXIT_SUCCESS;
    alarm(argc == 9 ? DETACHED_SECONDS : 0);
    signal(SIGPIPE, SIG_IGN);
    const struct destination to = {.tls = text_equal(argv[1], "tls"),
                                   .host = argv[2],
                                   .port = argv[3],
                                   .ca = argv[4],
                                   .cert = argv[5],
                                   .key = argv[6],
                                   .name = argc > 7 ? argv[7] : argv[2]};
    struct stream stream = {.fd = connect_tcp(&to, &err)};
    int r = stream.fd < 0 ? stream.fd : to.tls ? shake_hands(&to, &stream, &err) : 0;
    tell(r < 0 ? &err : NULL);
    alarm(0);
    if (r == 0)
        relay(&stream);
    stream_finish(&stream);
    return r < 0 ? EXIT_FAILURE : EXIT_SUCCESS;
}
