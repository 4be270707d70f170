#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <string.h>
#include <sys/un.h>
#include <unistd.h>

#include <base/alloc.h>
#include <base/socket.h>
#include <base/text.h>
#include <door/address.h>

enum { BACKLOG = 128 };

static const char *const names[] = {
    [DOOR_TCP] = "tcp",
    [DOOR_TLS] = "tls",
    [DOOR_WS] = "ws",
    [DOOR_WSS] = "wss",
    [DOOR_DOCKER_UNIX] = "docker+unix",
    [DOOR_DOCKER_TCP] = "docker+tcp",
    [DOOR_DOCKER_TLS] = "docker+tls",
};

const char *door_transport_name(enum door_transport transport)
{
    return names[transport];
}

bool door_transport_is_tls(enum door_transport transport)
{
    return transport == DOOR_TLS || transport == DOOR_WSS || transport == DOOR_DOCKER_TLS;
}

bool door_transport_is_http(enum door_transport transport)
{
    return transport == DOOR_WS || transport == DOOR_WSS;
}

bool door_transport_is_docker(enum door_transport transport)
{
    return transport == DOOR_DOCKER_UNIX || transport == DOOR_DOCKER_TCP ||
           transport == DOOR_DOCKER_TLS;
}

/* Behind "scheme://", or NULL. */
static const char *parse_scheme(const char *text, enum door_transport *ret)
{
    for (size_t i = 0; i < ARRAY_SIZE(names); i++) {
        size_t length = strlen(names[i]);
        if (strncmp(text, names[i], length) == 0 && text_starts_with(text + length, "://")) {
            *ret = (enum door_transport)i;
            return text + length + 3;
        }
    }
    return NULL;
}

static bool set_ipv4(const char *host, struct door_address *address)
{
    struct sockaddr_in *in = (struct sockaddr_in *)&address->socket;

    if (inet_pton(AF_INET, text_equal(host, "localhost") ? "127.0.0.1" : host, &in->sin_addr) != 1)
        return false;
    in->sin_family = AF_INET;
    in->sin_port = htons(address->port);
    address->socket_length = sizeof(*in);
    address->loopback = ntohl(in->sin_addr.s_addr) >> 24 == 127;
    return true;
}

static bool set_ipv6(const char *host, struct door_address *address)
{
    struct sockaddr_in6 *in6 = (struct sockaddr_in6 *)&address->socket;

    if (inet_pton(AF_INET6, host, &in6->sin6_addr) != 1)
        return false;
    in6->sin6_family = AF_INET6;
    in6->sin6_port = htons(address->port);
    address->socket_length = sizeof(*in6);
    address->loopback = IN6_IS_ADDR_LOOPBACK(&in6->sin6_addr);
    return true;
}

/* What is longer is refused: the daemon makes such sockets below its run folder. */
static int set_path(const char *text, const char *path, struct door_address *address,
                    struct error *err)
{
    struct sockaddr_un *un = (struct sockaddr_un *)&address->socket;

    if (path[0] != '/' || strlen(path) >= sizeof(un->sun_path))
        return error_set(err, -EINVAL, "'%s' needs an absolute path of at most %zu bytes", text,
                         sizeof(un->sun_path) - 1);
    un->sun_family = AF_UNIX;
    strcpy(un->sun_path, path);
    address->socket_length = sizeof(*un);
    address->loopback = true;
    return 0;
}

int door_address_parse(const char *text, struct door_address *ret, struct error *err)
{
    struct door_address address = {0};
    uint64_t port;

    const char *rest = parse_scheme(text, &address.transport);
    if (!rest) {
        error_set(err, -EINVAL,
                  "'%s' does not begin with tcp://, tls://, ws://, wss:// or docker+tls://", text);
        return error_hint(err, "For example: tls://0.0.0.0:7071"), -EINVAL;
    }
    if (address.transport == DOOR_DOCKER_UNIX) {
        int r = set_path(text, rest, &address, err);
        if (r == 0)
            *ret = address;
        return r;
    }
    const char *colon = strrchr(rest, ':');
    if (!colon || text_to_u64(colon + 1, 0, UINT16_MAX, &port) < 0)
        return error_set(err, -EINVAL, "'%s' has no port number from 0 to 65535 at its end", text);
    address.port = (uint16_t)port;
    bool brackets = rest[0] == '[' && colon > rest && colon[-1] == ']';
    _cleanup_free_ char *host = brackets ? xstrndup(rest + 1, (size_t)(colon - rest) - 2)
                                         : xstrndup(rest, (size_t)(colon - rest));
    if (!(brackets ? set_ipv6(host, &address) : set_ipv4(host, &address))) {
        error_set(err, -EINVAL, "'%s': '%s' is not an address", text, host);
        return error_hint(err, "An IPv4 address, an IPv6 address in brackets, or localhost"),
               -EINVAL;
    }
    *ret = address;
    return 0;
}

static int bind_and_listen(int fd, const struct door_address *address)
{
    const int on = 1;
    bool ipv6 = address->socket.ss_family == AF_INET6;

    if (setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on)) < 0 ||
        (ipv6 && setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &on, sizeof(on)) < 0))
        return -errno;
    /* At boot the daemon may come before the network. */
    setsockopt(fd, ipv6 ? IPPROTO_IPV6 : IPPROTO_IP, ipv6 ? IPV6_FREEBIND : IP_FREEBIND, &on,
               sizeof(on));
    if (bind(fd, (const struct sockaddr *)&address->socket, address->socket_length) < 0 ||
        listen(fd, BACKLOG) < 0)
        return -errno;
    return 0;
}

/* In the place of what a dead daemon has left: whoever calls this is the one who may. */
static int listen_unix(const char *path, struct error *err)
{
    if (unlink(path) < 0 && errno != ENOENT)
        return error_errno(err, errno, "remove the old socket %s", path);
    return socket_listen_unix(path, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0660, err);
}

int door_address_listen(const struct door_address *address, const char *text, struct error *err)
{
    if (address->transport == DOOR_DOCKER_UNIX)
        return listen_unix(((const struct sockaddr_un *)&address->socket)->sun_path, err);
    _cleanup_close_ int fd =
        socket(address->socket.ss_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

    int r = fd < 0 ? -errno : bind_and_listen(fd, address);
    if (r < 0) {
        error_errno(err, -r, "listen on %s", text);
        if (r == -EADDRINUSE)
            error_hint(err, "Another program listens there: ss -ltnp 'sport = :%u'", address->port);
        return r;
    }
    return steal_fd(&fd);
}

void door_address_format(const struct sockaddr_storage *address, char ret[DOOR_ADDRESS_TEXT])
{
    const struct sockaddr_in *in = (const struct sockaddr_in *)address;
    const struct sockaddr_in6 *in6 = (const struct sockaddr_in6 *)address;
    char host[INET6_ADDRSTRLEN] = "?";

    if (address->ss_family == AF_INET6) {
        inet_ntop(AF_INET6, &in6->sin6_addr, host, sizeof(host));
        snprintf(ret, DOOR_ADDRESS_TEXT, "[%s]:%u", host, ntohs(in6->sin6_port));
    } else {
        inet_ntop(AF_INET, &in->sin_addr, host, sizeof(host));
        snprintf(ret, DOOR_ADDRESS_TEXT, "%s:%u", host, ntohs(in->sin_port));
    }
}
