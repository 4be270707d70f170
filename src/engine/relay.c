/*
 * What cloche-relay has of a container's ports. For each published port the socket that keeps it
 * from other programs (net_hold()), so that it is kept while no daemon lives, too; and for a port
 * of every address one at [::1], by which it leads there. In the namespaces of an ordinary user it
 * leads by each of them: rules reach nobody outside.
 *
 * The sockets are opened here. Those of an earlier daemon live on in the program, so that they
 * cannot be opened again: it is asked for them (relay/protocol.h).
 */
#include "relay.h"

#include <errno.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <base/alloc.h>
#include <base/log.h>
#include <base/text.h>
#include <relay/protocol.h>

#include "helper.h"

struct relayed {
    struct relay_message is; /* as it is named to the program */
    struct net_publication publication;
    int fd;      /* owned; -1: there is none (yet), or it is the publication's (net_hold()) */
    bool holds;  /* its socket is the one that keeps the port */
    bool lacks;  /* the program has been asked and has none either: another program has the port */
    bool wanted; /* it is published still */
};

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
        if (container_is_active(engine->containers[i]) && engine->containers[i]->relayed_count > 0)
            return true;
    }
    return false;
}

static void on_answer(struct engine *engine, const void *message, size_t size, int fd);

static const struct helper_kind kind = {
    .name = "cloche-relay",
    .socket = "relay.sock",
    .answered = on_answer,
    .again = again,
    .is_missed = is_missed,
};

static struct helper *get(struct engine *engine)
{
    if (!engine->relay)
        engine->relay = helper_create(engine, &kind, engine->relay_program);
    return engine->relay;
}

/* --- which sockets ---------------------------------------------------------------------------- */

static struct relay_address address_of(const struct net_ip *ip, uint16_t port)
{
    struct relay_address address = {.family = ip->family, .port = port};

    memcpy(address.address, &ip->v4, ip->family == AF_INET6 ? sizeof(ip->v6) : sizeof(ip->v4));
    return address;
}

static struct relay_message message_of(const struct container *container, enum relay_type type)
{
    struct relay_message message = {.version = RELAY_VERSION, .type = (uint16_t)type};

    snprintf(message.container, sizeof(message.container), "%s", container->id);
    return message;
}

static struct relayed *find(const struct container *container, const struct relay_message *is)
{
    for (size_t i = 0; i < container->relayed_count; i++) {
        struct relayed *relayed = &container->relayed[i];

        if (relayed->is.use == is->use && relayed->is.protocol == is->protocol &&
            memcmp(&relayed->is.host, &is->host, sizeof(is->host)) == 0)
            return relayed;
    }
    return NULL;
}

/* Of a port at both families the one of IPv6 comes later, and leads. */
static void want(struct container *container, const struct net_publication *publication,
                 enum relay_use use, const struct net_ip *host)
{
    struct relay_message is = message_of(container, RELAY_PORT);
    const bool holds =
        net_ip_equal(host, &publication->host_address) && !net_is_loopback6(publication);

    is.use = (uint16_t)use;
    is.protocol = (uint16_t)publication->protocol;
    is.host = address_of(host, publication->host_port);
    if (use == RELAY_LEAD)
        is.target = address_of(&publication->container_address, publication->container_port);
    struct relayed *relayed = find(container, &is);
    if (!relayed) {
        container->relayed =
            xrealloc(container->relayed, container->relayed_count + 1, sizeof(*container->relayed));
        relayed = &container->relayed[container->relayed_count++];
        *relayed = (struct relayed){.fd = -1};
    }
    relayed->is = is;
    relayed->publication = *publication;
    relayed->holds = holds;
    relayed->wanted = true;
}

/* Outside of our namespaces the socket of [::] serves [::1], too, and no other can be bound there.
 */
static bool is_led_by_another(const struct container *container,
                              const struct net_publication *publication)
{
    for (size_t i = 0; container->engine->rootless && i < container->publications_count; i++) {
        const struct net_publication *other = &container->publications[i];

        if (other->protocol == publication->protocol &&
            other->host_port == publication->host_port && other->host_address.family == AF_INET6 &&
            net_ip_is_any(&other->host_address))
            return true;
    }
    return false;
}

static bool is_led(const struct container *container, const struct net_publication *publication)
{
    return publication->protocol != NET_SCTP &&
           (net_is_loopback6(publication) || (net_ip_is_any(&publication->host_address) &&
                                              !is_led_by_another(container, publication)));
}

static void drop(struct container *container, size_t index)
{
    net_release_loopback(container->relayed[index].fd);
    container->relayed[index] = container->relayed[--container->relayed_count];
}

static void drop_unwanted(struct container *container)
{
    for (size_t i = container->relayed_count; i > 0; i--) {
        if (!container->relayed[i - 1].wanted)
            drop(container, i - 1);
    }
}

static void list(struct container *container)
{
    const struct net_ip loopback = net_ip_v6(in6addr_loopback);

    for (size_t i = 0; i < container->relayed_count; i++)
        container->relayed[i].wanted = false;
    for (size_t i = 0; !container->ports_by_plugins && i < container->publications_count; i++) {
        const struct net_publication *publication = &container->publications[i];

        if (!net_is_loopback6(publication))
            want(container, publication, container->engine->rootless ? RELAY_LEAD : RELAY_HOLD,
                 &publication->host_address);
        if (is_led(container, publication))
            want(container, publication, RELAY_LEAD, &loopback);
    }
    drop_unwanted(container);
}

/* A socket, which stays its owner's, or -errno. */
static int socket_of(struct engine *engine, struct relayed *relayed)
{
    const struct net_publication *publication = &relayed->publication;

    if (relayed->holds)
        return net_hold(engine->net, publication);
    if (relayed->fd < 0) {
        int fd = net_open_loopback(engine->net, publication->protocol, publication->host_port);

        if (fd < 0)
            return fd;
        relayed->fd = fd;
    }
    return relayed->fd;
}

/* --- what it is told -------------------------------------------------------------------------- */

static void send_port(struct container *container, struct relayed *relayed, int pidfd)
{
    int fds[] = {pidfd, socket_of(container->engine, relayed)};

    if (fds[1] >= 0 || (fds[1] == -EADDRINUSE && !relayed->lacks))
        helper_send(get(container->engine), &relayed->is, sizeof(relayed->is), fds,
                    fds[1] >= 0 ? 2 : 1);
    else
        log_debug("port %u of container %.12s has no socket: %s", relayed->is.host.port,
                  container->id, strerror(-fds[1]));
}

static void send_ports(struct container *container, int pidfd)
{
    struct relay_message edge = message_of(container, RELAY_BEGIN);

    helper_send(get(container->engine), &edge, sizeof(edge), NULL, 0);
    for (size_t i = 0; i < container->relayed_count; i++)
        send_port(container, &container->relayed[i], pidfd);
    edge.type = RELAY_END;
    helper_send(get(container->engine), &edge, sizeof(edge), NULL, 0);
}

void relay_update(struct container *container)
{
    struct engine *engine = container->engine;
    _cleanup_error_ struct error err = ERROR_INIT;

    if (!container->record->monitor_pid || !engine->net)
        return;
    list(container);
    if (container->relayed_count == 0 && !engine->relay)
        return;
    _cleanup_close_ int pidfd =
        (int)syscall(SYS_pidfd_open, (pid_t)container->record->monitor_pid, 0U);
    if (pidfd < 0)
        return;
    if (container->relayed_count > 0 && helper_ensure(get(engine), &err) < 0)
        log_failure(LOG_ERROR, &err, "ports of %.12s are not reached at [::1]", container->id);
    else
        send_ports(container, pidfd);
}

/* Nobody has the socket: it may have been that of a run that has just ended, whose end the program
 * had still to be told. */
static void on_lacking(struct container *container, struct relayed *relayed)
{
    relayed->lacks = true;
    int fd = socket_of(container->engine, relayed);
    if (fd >= 0)
        relay_update(container);
    else
        log_warning("port %u of container %.12s: another program has it at this machine, too (%s)",
                    relayed->is.host.port, container->id, strerror(-fd));
}

static void on_answer(struct engine *engine, const void *message, size_t size, int fd)
{
    const struct relay_message *answer = message;
    _cleanup_close_ int socket_fd = fd;

    if (size != sizeof(*answer) || answer->version != RELAY_VERSION)
        return;
    for (size_t i = 0; i < engine->containers_count; i++) {
        struct container *container = engine->containers[i];

        if (!text_equal(container->id, answer->container))
            continue;
        struct relayed *relayed = find(container, answer);
        if (!relayed)
            return;
        if (answer->type != RELAY_KEPT || fd < 0)
            on_lacking(container, relayed);
        else if (relayed->holds)
            net_take_hold(engine->net, &relayed->publication, steal_fd(&socket_fd));
        else if (relayed->fd < 0)
            relayed->fd = steal_fd(&socket_fd);
        return;
    }
}

void relay_release(struct container *container)
{
    while (container->relayed_count > 0)
        drop(container, container->relayed_count - 1);
}

void relay_gone(struct container *container)
{
    const struct relay_message message = message_of(container, RELAY_GONE);

    relay_release(container);
    if (container->engine->relay)
        helper_send(get(container->engine), &message, sizeof(message), NULL, 0);
}

void relay_forget(struct container *container)
{
    for (size_t i = 0; i < container->relayed_count; i++)
        close_fd(container->relayed[i].fd);
    container->relayed_count = 0;
    free(steal_ptr(container->relayed));
}

void relay_close(struct engine *engine, bool remove)
{
    helper_close(steal_ptr(engine->relay));
    if (remove)
        helper_unlink(engine, &kind);
}
