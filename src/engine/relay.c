#include "relay.h"

#include <errno.h>
#include <netinet/in.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <base/alloc.h>
#include <base/log.h>
#include <base/text.h>
#include <relay/protocol.h>

#include "helper.h"

static bool is_relayed(const struct net_publication *publication)
{
    return publication->protocol == NET_TCP && net_ip_is_any(&publication->host_address);
}

static bool has_relayed(const struct container *container)
{
    for (size_t i = 0; i < container->publications_count; i++) {
        if (is_relayed(&container->publications[i]))
            return true;
    }
    return false;
}

/* --- the program ------------------------------------------------------------------------------ */

static void again(struct engine *engine)
{
    for (size_t i = 0; i < engine->containers_count; i++) {
        if (container_is_active(engine->containers[i]))
            relay_update(engine->containers[i]);
    }
}

/* It ends when nobody needs it; that it is gone matters only to those who do. */
static bool is_missed(struct engine *engine)
{
    for (size_t i = 0; i < engine->containers_count; i++) {
        if (container_is_active(engine->containers[i]) && engine->containers[i]->relayed)
            return true;
    }
    return false;
}

static const struct helper_kind kind = {
    .name = "cloche-relay", .socket = "relay.sock", .again = again, .is_missed = is_missed};

static struct helper *get(struct engine *engine)
{
    if (!engine->relay)
        engine->relay = helper_create(engine, &kind, engine->relay_program);
    return engine->relay;
}

/* --- what it is told -------------------------------------------------------------------------- */

static struct relay_message message_of(const struct container *container, enum relay_type type)
{
    struct relay_message message = {.version = RELAY_VERSION, .type = (uint16_t)type};

    snprintf(message.container, sizeof(message.container), "%s", container->id);
    return message;
}

/* Bound together with the one it takes the place of, if there is one; -errno: it is another's, or
 * the machine has no IPv6. */
static int open_port(uint16_t port)
{
    const struct sockaddr_in6 address = {
        .sin6_family = AF_INET6, .sin6_addr = IN6ADDR_LOOPBACK_INIT, .sin6_port = htons(port)};
    const int on = 1;
    _cleanup_close_ int fd = socket(AF_INET6, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

    if (fd < 0 || setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &on, sizeof(on)) < 0 ||
        setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on)) < 0 ||
        setsockopt(fd, SOL_SOCKET, SO_REUSEPORT, &on, sizeof(on)) < 0 ||
        bind(fd, (const struct sockaddr *)&address, sizeof(address)) < 0 ||
        listen(fd, SOMAXCONN) < 0)
        return -errno;
    return steal_fd(&fd);
}

/* Of two families one is enough. */
static bool is_known(const struct container *container, size_t index)
{
    const struct net_publication *publication = &container->publications[index];

    for (size_t i = 0; i < index; i++) {
        if (is_relayed(&container->publications[i]) &&
            container->publications[i].host_port == publication->host_port)
            return true;
    }
    return false;
}

/* Listening sockets for those of its ports that want one; -1 for the others. */
static size_t open_ports(const struct container *container, int *fds)
{
    size_t count = 0;

    for (size_t i = 0; i < container->publications_count; i++) {
        const struct net_publication *publication = &container->publications[i];

        fds[i] = -1;
        if (!is_relayed(publication) || is_known(container, i))
            continue;
        fds[i] = open_port(publication->host_port);
        if (fds[i] < 0)
            log_debug("port %u of [::1] is not relayed: %s", publication->host_port,
                      strerror(-fds[i]));
        count += fds[i] >= 0;
    }
    return count;
}

static void send_ports(struct container *container, const int *fds, int pidfd)
{
    const struct relay_message clear = message_of(container, RELAY_CLEAR);

    helper_send(get(container->engine), &clear, sizeof(clear), NULL, 0);
    for (size_t i = 0; i < container->publications_count; i++) {
        const struct net_publication *publication = &container->publications[i];
        const struct net_ip *target = &publication->container_address;
        struct relay_message message = message_of(container, RELAY_ADD);

        if (fds[i] < 0)
            continue;
        message.target_family = target->family;
        message.target_port = publication->container_port;
        memcpy(message.target, &target->v4,
               target->family == AF_INET6 ? sizeof(target->v6) : sizeof(target->v4));
        helper_send(get(container->engine), &message, sizeof(message), (int[]){fds[i], pidfd}, 2);
    }
}

/* The program is started for those only that have a socket for it: without IPv6 there is none. */
void relay_update(struct container *container)
{
    _cleanup_free_ int *fds = xcalloc(container->publications_count + 1, sizeof(*fds));
    struct engine *engine = container->engine;
    _cleanup_error_ struct error err = ERROR_INIT;

    if (!container->record->monitor_pid || (!engine->relay && !has_relayed(container)))
        return;
    container->relayed = open_ports(container, fds) > 0;
    _cleanup_close_ int pidfd =
        (int)syscall(SYS_pidfd_open, (pid_t)container->record->monitor_pid, 0U);
    if (container->relayed && helper_ensure(get(engine), &err) < 0)
        log_failure(LOG_ERROR, &err, "ports of %.12s are not reached at [::1]", container->id);
    else if (pidfd >= 0 && (engine->relay || container->relayed))
        send_ports(container, fds, pidfd);
    for (size_t i = 0; i < container->publications_count; i++)
        close_fd(fds[i]);
}

void relay_gone(const struct container *container)
{
    const struct relay_message message = message_of(container, RELAY_GONE);

    if (container->engine->relay)
        helper_send(get(container->engine), &message, sizeof(message), NULL, 0);
}

void relay_close(struct engine *engine, bool remove)
{
    helper_close(steal_ptr(engine->relay));
    if (remove)
        helper_unlink(engine, &kind);
}
