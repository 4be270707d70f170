/*
 * The loop: what the engine says, who connects, what goes to and fro.
 *
 *     control      relay_protocol: containers and their ports
 *     group        a container: the pidfd of its monitor
 *     port         a listening socket, and where its connections lead to
 *     connection   two sockets and a pipe in each direction, through which the kernel moves the
 * data (splice(2)): none of it is seen here
 *
 * Sockets of connections are watched for edges: an event means that something may go on, and then
 * all that goes on is done, in portions.
 *
 * Ends when nobody is connected and no port is left, at once when the engine has gone, else after a
 * moment without either.
 */
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include <base/alloc.h>
#include <base/socket.h>
#include <base/text.h>
#include <jail/jail.h>
#include <relay/protocol.h>

enum {
    GROUPS_MAX = 4096,
    PORTS_MAX = 8192,
    CONNECTIONS_MAX = 4096, /* six descriptors each */
    CONNECTIONS_EACH = 512, /* of one container */
    PORTION = 65536,        /* bytes that a pipe holds */
    PORTIONS_MAX = 16,      /* in one direction, before others have their turn */
    LINGER_MS = 2000,
    EVENTS = 64,
};

enum source_kind {
    SOURCE_LISTEN,
    SOURCE_CONTROL,
    SOURCE_MONITOR,
    SOURCE_PORT,
    SOURCE_CLIENT,
    SOURCE_TARGET,
};

struct source {
    enum source_kind kind;
    int fd;
    void *owner;
};

struct group {
    struct group *next;
    char container[RELAY_ID_SIZE];
    struct source monitor;
    unsigned ports, connections;
};

struct port {
    struct port *next;
    struct group *group;
    struct source source;
    socklen_t target_size;
    union {
        struct sockaddr any;
        struct sockaddr_in v4;
        struct sockaddr_in6 v6;
    } target;
};

/* One direction. */
struct stream {
    int pipe[2];
    size_t held; /* bytes in the pipe */
    bool ended;  /* nothing more comes */
    bool closed; /* and its end was passed on */
};

struct connection {
    struct connection *next;
    struct group *group;
    struct source client, target;
    struct stream there, back;
    bool connected;
    bool unfinished; /* it had its portions, and can go on */
};

struct server {
    int epoll_fd;
    int spare_fd; /* socket_accept() */
    struct source listen, control;
    struct group *groups;
    struct port *ports;
    struct connection *connections;
    size_t groups_count, ports_count, connections_count, unfinished_count;
    void **garbage; /* owned; what is freed after this round of events */
    size_t garbage_count;
};

static int watch(struct server *server, struct source *source, uint32_t events)
{
    struct epoll_event event = {.events = events, .data.ptr = source};

    return epoll_ctl(server->epoll_fd, EPOLL_CTL_ADD, source->fd, &event) < 0 ? -errno : 0;
}

static void source_open(struct server *server, struct source *source, enum source_kind kind, int fd,
                        void *owner, uint32_t events)
{
    *source = (struct source){kind, fd, owner};
    if (fd >= 0 && watch(server, source, events) < 0)
        close_fd(steal_fd(&source->fd));
}

/* An event of this round may still point at it: the memory is released after the round. */
static void release_later(struct server *server, void *memory)
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

static void group_drop_if_empty(struct server *server, struct group *group)
{
    if (group->ports > 0 || group->connections > 0)
        return;
    for (struct group **at = &server->groups; *at; at = &(*at)->next) {
        if (*at != group)
            continue;
        *at = group->next;
        break;
    }
    close_fd(steal_fd(&group->monitor.fd));
    server->groups_count--;
    release_later(server, group);
}

static void set_unfinished(struct server *server, struct connection *connection, bool unfinished)
{
    if (connection->unfinished == unfinished)
        return;
    connection->unfinished = unfinished;
    server->unfinished_count += unfinished ? 1 : (size_t)-1;
}

static void stream_finish(struct stream *stream)
{
    close_fd(steal_fd(&stream->pipe[0]));
    close_fd(steal_fd(&stream->pipe[1]));
}

/* The group stays, whoever calls drops it when it is empty. */
static void connection_end(struct server *server, struct connection *connection)
{
    for (struct connection **at = &server->connections; *at; at = &(*at)->next) {
        if (*at != connection)
            continue;
        *at = connection->next;
        break;
    }
    set_unfinished(server, connection, false);
    close_fd(steal_fd(&connection->client.fd));
    close_fd(steal_fd(&connection->target.fd));
    stream_finish(&connection->there);
    stream_finish(&connection->back);
    connection->group->connections--;
    server->connections_count--;
    release_later(server, connection);
}

static void ports_end(struct server *server, struct group *group)
{
    for (struct port **at = &server->ports; *at;) {
        struct port *port = *at;

        if (port->group != group) {
            at = &port->next;
            continue;
        }
        *at = port->next;
        close_fd(steal_fd(&port->source.fd));
        group->ports--;
        server->ports_count--;
        release_later(server, port);
    }
}

static void connections_end(struct server *server, struct group *group)
{
    for (struct connection *each = server->connections, *next; each; each = next) {
        next = each->next;
        if (each->group == group)
            connection_end(server, each);
    }
}

static void group_end(struct server *server, struct group *group)
{
    ports_end(server, group);
    connections_end(server, group);
    group_drop_if_empty(server, group);
}

/* --- data ------------------------------------------------------------------------------------- */

enum progress { PROGRESS_BLOCKED, PROGRESS_MORE, PROGRESS_FAILED };

/* Whether there is nothing to do now: errno of a splice() that moved nothing. */
static bool must_wait(ssize_t moved)
{
    return moved < 0 && (errno == EAGAIN || errno == EINTR);
}

static enum progress stream_pump(struct stream *stream, int from, int to)
{
    const unsigned flags = SPLICE_F_MOVE | SPLICE_F_NONBLOCK;

    for (int i = 0; i < PORTIONS_MAX; i++) {
        if (stream->held == 0 && !stream->ended) {
            ssize_t moved = splice(from, NULL, stream->pipe[1], NULL, PORTION, flags);

            if (must_wait(moved))
                return PROGRESS_BLOCKED;
            if (moved < 0)
                return PROGRESS_FAILED;
            stream->ended = moved == 0;
            stream->held = (size_t)moved;
        }
        if (stream->held > 0) {
            ssize_t moved = splice(stream->pipe[0], NULL, to, NULL, stream->held, flags);

            if (must_wait(moved))
                return PROGRESS_BLOCKED;
            if (moved <= 0)
                return PROGRESS_FAILED;
            stream->held -= (size_t)moved;
        }
        if (stream->held == 0 && stream->ended) {
            if (!stream->closed)
                (void)shutdown(to, SHUT_WR);
            stream->closed = true;
            return PROGRESS_BLOCKED;
        }
    }
    return PROGRESS_MORE;
}

/* Returns false when the connection is over and its memory about to go. */
static bool connection_pump(struct server *server, struct connection *connection)
{
    struct group *group = connection->group;
    enum progress there =
        stream_pump(&connection->there, connection->client.fd, connection->target.fd);
    enum progress back = PROGRESS_FAILED;

    if (there != PROGRESS_FAILED)
        back = stream_pump(&connection->back, connection->target.fd, connection->client.fd);
    if (there == PROGRESS_FAILED || back == PROGRESS_FAILED ||
        (connection->there.closed && connection->back.closed)) {
        connection_end(server, connection);
        group_drop_if_empty(server, group);
        return false;
    }
    set_unfinished(server, connection, there == PROGRESS_MORE || back == PROGRESS_MORE);
    return true;
}

static void on_connection(struct server *server, struct connection *connection, uint32_t events,
                          bool is_target)
{
    if (!connection->connected) {
        int failure = 0;
        socklen_t size = sizeof(failure);

        if (!is_target || !(events & (EPOLLOUT | EPOLLERR | EPOLLHUP)))
            return;
        if (getsockopt(connection->target.fd, SOL_SOCKET, SO_ERROR, &failure, &size) < 0 ||
            failure != 0) {
            struct group *group = connection->group;

            connection_end(server, connection);
            group_drop_if_empty(server, group);
            return;
        }
        connection->connected = true;
    }
    (void)connection_pump(server, connection);
}

static void go_on(struct server *server)
{
    for (struct connection *each = server->connections, *next; each; each = next) {
        next = each->next;
        if (each->unfinished)
            (void)connection_pump(server, each);
    }
}

/* --- connections ------------------------------------------------------------------------------ */

static int open_target(const struct port *port)
{
    _cleanup_close_ int fd =
        socket(port->target.any.sa_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

    if (fd < 0)
        return -errno;
    if (connect(fd, &port->target.any, port->target_size) < 0 && errno != EINPROGRESS)
        return -errno;
    return steal_fd(&fd);
}

static int open_pipes(struct connection *connection)
{
    if (pipe2(connection->there.pipe, O_CLOEXEC | O_NONBLOCK) < 0)
        return -errno;
    return pipe2(connection->back.pipe, O_CLOEXEC | O_NONBLOCK) < 0 ? -errno : 0;
}

static void on_port(struct server *server, struct port *port)
{
    const uint32_t edges = EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET;
    struct group *group = port->group;
    _cleanup_close_ int fd =
        socket_accept(port->source.fd, SOCK_CLOEXEC | SOCK_NONBLOCK, &server->spare_fd);

    if (fd < 0 || server->connections_count >= CONNECTIONS_MAX ||
        group->connections >= CONNECTIONS_EACH)
        return;
    struct connection *connection = xnew(struct connection);
    connection->group = group;
    connection->client.fd = connection->target.fd = -1;
    connection->there = connection->back = (struct stream){.pipe = {-1, -1}};
    connection->next = server->connections;
    server->connections = connection;
    server->connections_count++;
    group->connections++;

    int target = open_target(port);
    if (target >= 0 && open_pipes(connection) == 0)
        source_open(server, &connection->client, SOURCE_CLIENT, steal_fd(&fd), connection, edges);
    source_open(server, &connection->target, SOURCE_TARGET, target, connection, edges);
    if (connection->client.fd < 0 || connection->target.fd < 0)
        connection_end(server, connection);
}

/* --- the engine ------------------------------------------------------------------------------- */

static bool read_target(const struct relay_message *message, struct port *port)
{
    if (message->target_family == AF_INET) {
        port->target.v4 =
            (struct sockaddr_in){.sin_family = AF_INET, .sin_port = htons(message->target_port)};
        memcpy(&port->target.v4.sin_addr, message->target, sizeof(port->target.v4.sin_addr));
        port->target_size = sizeof(port->target.v4);
        return true;
    }
    port->target.v6 =
        (struct sockaddr_in6){.sin6_family = AF_INET6, .sin6_port = htons(message->target_port)};
    memcpy(&port->target.v6.sin6_addr, message->target, sizeof(port->target.v6.sin6_addr));
    port->target_size = sizeof(port->target.v6);
    return message->target_family == AF_INET6;
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

static void port_add(struct server *server, const struct relay_message *message, int *fds,
                     size_t fds_count)
{
    if (fds_count < 2 || server->ports_count >= PORTS_MAX || socket_set_nonblocking(fds[0]) < 0)
        return;
    struct group *group = group_get(server, message->container, &fds[1]);
    if (!group)
        return;
    struct port *port = xnew(struct port);
    if (!read_target(message, port)) {
        free(port);
        group_drop_if_empty(server, group);
        return;
    }
    port->group = group;
    port->next = server->ports;
    server->ports = port;
    server->ports_count++;
    group->ports++;
    source_open(server, &port->source, SOURCE_PORT, steal_fd(&fds[0]), port, EPOLLIN);
}

static void handle_message(struct server *server, struct relay_message *message, size_t length,
                           int *fds, size_t fds_count)
{
    if (length != sizeof(*message) || message->version != RELAY_VERSION)
        return;
    message->container[RELAY_ID_SIZE - 1] = '\0';
    struct group *group = group_find(server, message->container);
    switch ((enum relay_type)message->type) {
    case RELAY_CLEAR: /* an empty group stays for the ports that follow */
        if (group)
            ports_end(server, group);
        break;
    case RELAY_ADD:
        port_add(server, message, fds, fds_count);
        break;
    case RELAY_GONE:
        if (group)
            group_end(server, group);
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

    for (int i = 0; i < EVENTS && server->control.fd >= 0; i++) {
        int fds[2] = {-1, -1};
        size_t fds_count = ARRAY_SIZE(fds);
        ssize_t length =
            socket_receive_now(server->control.fd, &message, sizeof(message), fds, &fds_count);

        if (length == -EAGAIN || length == -EINTR)
            break;
        if (length <= 0) {
            close_fd(steal_fd(&server->control.fd));
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
    close_fd(steal_fd(&server->control.fd));
    source_open(server, &server->control, SOURCE_CONTROL, fd, NULL, EPOLLIN);
}

/* --- the loop --------------------------------------------------------------------------------- */

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
        on_connection(server, source->owner, events, source->kind == SOURCE_TARGET);
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

static void serve(struct server *server)
{
    int count = 1;

    while (!may_end(server, count)) {
        struct epoll_event events[EVENTS];
        int timeout = server->unfinished_count > 0 ? 0 : is_needed(server) ? -1 : LINGER_MS;

        count = epoll_wait(server->epoll_fd, events, EVENTS, timeout);
        for (int i = 0; i < count; i++)
            handle(server, events[i].data.ptr, events[i].events);
        if (server->unfinished_count > 0)
            go_on(server);
        while (server->garbage_count > 0)
            free(server->garbage[--server->garbage_count]);
    }
}

static const char *const calls[] = {
    /* connections */
    "connect", "shutdown", "accept4", "getsockopt", "setsockopt", "splice", "pipe2", "fcntl",
    /* the engine */
    "sendmsg", "recvmsg", "write", NULL};

int relay_serve(void)
{
    static struct server server;
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
