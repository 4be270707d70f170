/*
 * The loop: what the engine says, who connects, what goes to and fro.
 *
 *     control      relay_protocol: containers and their ports
 *     group        a container: the pidfd of its monitor
 *     port         a socket of the engine's, and where those who come by it are led
 *     connection   TCP (connections.c)
 *     flow         UDP (flows.c)
 *
 * Ends when nobody is connected and no port is left, at once when the engine has gone, else after a
 * moment without either.
 */
#include "server.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

#include <base/alloc.h>
#include <base/socket.h>
#include <base/text.h>
#include <jail/jail.h>

enum {
    GROUPS_MAX = 4096,
    PORTS_MAX = 24576, /* of 8192 published ones (net/net.h) up to three each */
    LINGER_MS = 2000,
    EVENTS = 64,
};

static int watch(struct server *server, struct source *source, uint32_t events)
{
    struct epoll_event event = {.events = events, .data.ptr = source};

    return epoll_ctl(server->epoll_fd, EPOLL_CTL_ADD, source->fd, &event) < 0 ? -errno : 0;
}

void source_open(struct server *server, struct source *source, enum source_kind kind, int fd,
                 void *owner, uint32_t events)
{
    *source = (struct source){kind, fd, owner};
    if (fd >= 0 && watch(server, source, events) < 0)
        close_fd(steal_fd(&source->fd));
}

/* The kernel forgets a closed descriptor only with the last one of the same file, and the engine
 * may have another. */
void source_close(struct server *server, struct source *source)
{
    if (source->fd < 0)
        return;
    (void)epoll_ctl(server->epoll_fd, EPOLL_CTL_DEL, source->fd, NULL);
    close_fd(steal_fd(&source->fd));
}

void release_later(struct server *server, void *memory)
{
    server->garbage = xrealloc(server->garbage, server->garbage_count + 1, sizeof(void *));
    server->garbage[server->garbage_count++] = memory;
}

/* --- containers ------------------------------------------------------------------------------- */

static struct group *group_find(const struct server *server, const char *container)
{
    for (struct group *group = server->groups; group; group = group->next) {
        if (text_equal(group->container, container))
            return group;
    }
    return NULL;
}

void group_drop_if_empty(struct server *server, struct group *group)
{
    if (group->ports || group->connections > 0)
        return;
    for (struct group **at = &server->groups; *at; at = &(*at)->next) {
        if (*at != group)
            continue;
        *at = group->next;
        break;
    }
    source_close(server, &group->monitor);
    server->groups_count--;
    release_later(server, group);
}

static void ports_name(struct group *group, bool named)
{
    for (struct port *port = group->ports; port; port = port->next)
        port->named = named;
}

static void ports_end_unnamed(struct server *server, struct group *group)
{
    for (struct port **at = &group->ports; *at;) {
        struct port *port = *at;

        if (port->named) {
            at = &port->next;
            continue;
        }
        *at = port->next;
        flows_end(server, port);
        source_close(server, &port->source);
        server->ports_count--;
        release_later(server, port);
    }
}

static void group_end(struct server *server, struct group *group)
{
    ports_name(group, false);
    ports_end_unnamed(server, group);
    connections_end(server, group);
    group_drop_if_empty(server, group);
}

/* --- ports ------------------------------------------------------------------------------------ */

int port_open_target(const struct port *port, int type)
{
    _cleanup_close_ int fd =
        socket(port->target.any.sa_family, type | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

    if (fd < 0)
        return -errno;
    if (connect(fd, &port->target.any, port->target_size) < 0 && errno != EINPROGRESS)
        return -errno;
    return steal_fd(&fd);
}

static void set_target(struct port *port, const struct relay_address *target)
{
    if (target->family == AF_INET) {
        port->target.v4 =
            (struct sockaddr_in){.sin_family = AF_INET, .sin_port = htons(target->port)};
        memcpy(&port->target.v4.sin_addr, target->address, sizeof(port->target.v4.sin_addr));
        port->target_size = sizeof(port->target.v4);
    } else {
        port->target.v6 =
            (struct sockaddr_in6){.sin6_family = AF_INET6, .sin6_port = htons(target->port)};
        memcpy(&port->target.v6.sin6_addr, target->address, sizeof(port->target.v6.sin6_addr));
        port->target_size = sizeof(port->target.v6);
    }
}

/* Whether it says what we can do. */
static bool is_sound(const struct relay_message *message)
{
    if (message->use == RELAY_HOLD)
        return true;
    return message->use == RELAY_LEAD &&
           (message->protocol == IPPROTO_TCP || message->protocol == IPPROTO_UDP) &&
           (message->target.family == AF_INET || message->target.family == AF_INET6);
}

static struct port *port_find(const struct group *group, const struct relay_message *wanted)
{
    for (struct port *port = group->ports; port; port = port->next) {
        if (port->is.use == wanted->use && port->is.protocol == wanted->protocol &&
            memcmp(&port->is.host, &wanted->host, sizeof(wanted->host)) == 0)
            return port;
    }
    return NULL;
}

static struct port *port_create(struct server *server, struct group *group,
                                const struct relay_message *message)
{
    struct port *port = xnew(struct port);

    port->group = group;
    port->is = *message;
    port->source.fd = -1;
    port->next = group->ports;
    group->ports = port;
    server->ports_count++;
    return port;
}

/* A socket that comes takes the place of one that the engine has made useless. */
static void port_set_socket(struct server *server, struct port *port, int fd)
{
    source_close(server, &port->source);
    if (port->is.use == RELAY_HOLD)
        port->source = (struct source){SOURCE_PORT, fd, port};
    else
        source_open(server, &port->source, SOURCE_PORT, fd, port, EPOLLIN);
}

static struct group *group_get(struct server *server, const char *container, int *pidfd)
{
    struct group *group = group_find(server, container);

    if (group || server->groups_count >= GROUPS_MAX)
        return group;
    group = xnew(struct group);
    memcpy(group->container, container, sizeof(group->container));
    group->next = server->groups;
    server->groups = group;
    server->groups_count++;
    source_open(server, &group->monitor, SOURCE_MONITOR, steal_fd(pidfd), group, EPOLLIN);
    return group;
}

/* --- the engine ------------------------------------------------------------------------------- */

static void watch_control(struct server *server, uint32_t events)
{
    struct epoll_event event = {.events = events, .data.ptr = &server->control};

    (void)epoll_ctl(server->epoll_fd, EPOLL_CTL_MOD, server->control.fd, &event);
}

static void forget_answer(struct server *server)
{
    close_fd(steal_fd(&server->answer_fd));
    server->answer_waits = false;
}

/* While the engine does not read, we do not either: one answer is all that ever waits. */
static void send_answer(struct server *server)
{
    ssize_t sent = socket_send_now(server->control.fd, &server->answer, sizeof(server->answer),
                                   &server->answer_fd, server->answer_fd >= 0 ? 1 : 0);

    if (sent == -EAGAIN) {
        if (!server->answer_waits)
            watch_control(server, EPOLLOUT);
        server->answer_waits = true;
        return;
    }
    if (server->answer_waits)
        watch_control(server, EPOLLIN);
    forget_answer(server);
}

static void answer(struct server *server, const struct relay_message *asked,
                   const struct port *port)
{
    server->answer = *asked;
    server->answer_fd = port ? fcntl(port->source.fd, F_DUPFD_CLOEXEC, 0) : -1;
    server->answer.type = server->answer_fd >= 0 ? RELAY_KEPT : RELAY_LACKING;
    send_answer(server);
}

static void port_add(struct server *server, const struct relay_message *message, int *fds,
                     size_t fds_count)
{
    const bool has_socket = fds_count >= 2;

    if (fds_count < 1 || !is_sound(message) || (has_socket && socket_set_nonblocking(fds[1]) < 0))
        return;
    struct group *group = group_get(server, message->container, &fds[0]);
    struct port *port = group ? port_find(group, message) : NULL;
    if (!port && has_socket && group && server->ports_count < PORTS_MAX)
        port = port_create(server, group, message);
    if (port) {
        port->named = true;
        set_target(port, &message->target);
    }
    if (port && has_socket)
        port_set_socket(server, port, steal_fd(&fds[1]));
    if (!has_socket)
        answer(server, message, port);
}

static void handle_message(struct server *server, struct relay_message *message, size_t length,
                           int *fds, size_t fds_count)
{
    if (length != sizeof(*message) || message->version != RELAY_VERSION)
        return;
    message->container[RELAY_ID_SIZE - 1] = '\0';
    struct group *group = group_find(server, message->container);
    switch ((enum relay_type)message->type) {
    case RELAY_BEGIN:
        if (group)
            ports_name(group, false);
        break;
    case RELAY_PORT:
        port_add(server, message, fds, fds_count);
        break;
    case RELAY_END:
        if (group)
            ports_end_unnamed(server, group);
        break;
    case RELAY_GONE:
        if (group)
            group_end(server, group);
        break;
    case RELAY_KEPT:
    case RELAY_LACKING:
        break;
    }
}

static void drop_empty_groups(struct server *server)
{
    for (struct group *group = server->groups, *next; group; group = next) {
        next = group->next;
        group_drop_if_empty(server, group);
    }
}

static void on_control(struct server *server)
{
    struct relay_message message;

    if (server->answer_waits)
        send_answer(server);
    for (int i = 0; i < EVENTS && server->control.fd >= 0 && !server->answer_waits; i++) {
        int fds[2] = {-1, -1};
        size_t fds_count = ARRAY_SIZE(fds);
        ssize_t length =
            socket_receive_now(server->control.fd, &message, sizeof(message), fds, &fds_count);

        if (length == -EAGAIN || length == -EINTR)
            break;
        if (length <= 0) {
            source_close(server, &server->control);
            break;
        }
        handle_message(server, &message, (size_t)length, fds, fds_count);
        for (size_t j = 0; j < ARRAY_SIZE(fds); j++)
            close_fd(fds[j]);
    }
    drop_empty_groups(server);
}

static void on_listen(struct server *server)
{
    int fd = socket_accept(server->listen.fd, SOCK_CLOEXEC | SOCK_NONBLOCK, &server->spare_fd);

    if (fd < 0)
        return;
    forget_answer(server);
    source_close(server, &server->control);
    source_open(server, &server->control, SOURCE_CONTROL, fd, NULL, EPOLLIN);
}

/* --- the loop --------------------------------------------------------------------------------- */

static void on_port(struct server *server, struct port *port)
{
    if (port->is.protocol == IPPROTO_UDP)
        flows_receive(server, port);
    else
        connections_accept(server, port);
}

static void handle(struct server *server, struct source *source, uint32_t events)
{
    if (source->fd < 0)
        return; /* ended by an event before */
    switch (source->kind) {
    case SOURCE_LISTEN:
        on_listen(server);
        break;
    case SOURCE_CONTROL:
        on_control(server);
        break;
    case SOURCE_MONITOR:
        group_end(server, source->owner);
        break;
    case SOURCE_PORT:
        on_port(server, source->owner);
        break;
    case SOURCE_CLIENT:
    case SOURCE_TARGET:
        connections_event(server, source->owner, events, source->kind == SOURCE_TARGET);
        break;
    case SOURCE_FLOW:
        flows_event(server, source->owner);
        break;
    }
}

static bool is_needed(const struct server *server)
{
    return server->ports_count > 0 || server->connections_count > 0;
}

/* The engine may just be about to say something, in particular the first thing: it gets a moment.
 */
static bool may_end(const struct server *server, int events)
{
    return !is_needed(server) && (server->control.fd < 0 || events == 0);
}

static int wait_ms(struct server *server)
{
    int expiry = flows_expire(server);

    if (server->unfinished_count > 0)
        return 0;
    return is_needed(server) ? expiry : LINGER_MS;
}

static void serve(struct server *server)
{
    int count = 1;

    while (!may_end(server, count)) {
        struct epoll_event events[EVENTS];

        count = epoll_wait(server->epoll_fd, events, EVENTS, wait_ms(server));
        for (int i = 0; i < count; i++)
            handle(server, events[i].data.ptr, events[i].events);
        if (server->unfinished_count > 0)
            connections_go_on(server);
        while (server->garbage_count > 0)
            free(server->garbage[--server->garbage_count]);
    }
}

static const char *const calls[] = {
    /* connections, flows */
    "connect", "shutdown", "accept4", "getsockopt", "setsockopt", "splice", "pipe2", "fcntl",
    "recvfrom", "sendto", "clock_gettime",
    /* the engine */
    "sendmsg", "recvmsg", "write", NULL};

int relay_serve(void)
{
    static struct server server = {.answer_fd = -1};
    _cleanup_error_ struct error err = ERROR_INIT;

    jail_allow_descriptors();
    server.epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    server.spare_fd = fcntl(server.epoll_fd, F_DUPFD_CLOEXEC, 0);
    if (server.epoll_fd < 0 || jail_enter("cloche-relay", calls, &err) < 0) {
        dprintf(STDERR_FILENO, "cloche-relay: %s\n", error_message(&err));
        return 1;
    }
    source_open(&server, &server.listen, SOURCE_LISTEN, RELAY_LISTEN_FD, NULL, EPOLLIN);
    source_open(&server, &server.control, SOURCE_CONTROL, RELAY_CONTROL_FD, NULL, EPOLLIN);
    serve(&server);
    return 0;
}
