/*
 * TCP: two sockets and a pipe in each direction, through which the kernel moves the data
 * (splice(2)): none of it is seen here. Sockets are watched for edges: an event means that
 * something may go on, and then all that goes on is done, in portions.
 */
#include <errno.h>
#include <fcntl.h>
#include <sys/epoll.h>
#include <unistd.h>

#include <base/alloc.h>
#include <base/socket.h>

#include "server.h"

enum {
    CONNECTIONS_MAX = 4096, /* six descriptors each */
    CONNECTIONS_EACH = 512, /* of one container */
    PORTION = 65536,        /* bytes that a pipe holds */
    PORTIONS_MAX = 16,      /* in one direction, before others have their turn */
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
    source_close(server, &connection->client);
    source_close(server, &connection->target);
    stream_finish(&connection->there);
    stream_finish(&connection->back);
    connection->group->connections--;
    server->connections_count--;
    release_later(server, connection);
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

void connections_event(struct server *server, struct connection *connection, uint32_t events,
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

void connections_go_on(struct server *server)
{
    for (struct connection *each = server->connections, *next; each; each = next) {
        next = each->next;
        if (each->unfinished)
            (void)connection_pump(server, each);
    }
}

/* --- their beginning and end ------------------------------------------------------------------ */

static int open_pipes(struct connection *connection)
{
    if (pipe2(connection->there.pipe, O_CLOEXEC | O_NONBLOCK) < 0)
        return -errno;
    return pipe2(connection->back.pipe, O_CLOEXEC | O_NONBLOCK) < 0 ? -errno : 0;
}

void connections_accept(struct server *server, struct port *port)
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

    int target = port_open_target(port, SOCK_STREAM);
    if (target >= 0 && open_pipes(connection) == 0)
        source_open(server, &connection->client, SOURCE_CLIENT, steal_fd(&fd), connection, edges);
    source_open(server, &connection->target, SOURCE_TARGET, target, connection, edges);
    if (connection->client.fd < 0 || connection->target.fd < 0)
        connection_end(server, connection);
}

void connections_end(struct server *server, struct group *group)
{
    for (struct connection *each = server->connections, *next; each; each = next) {
        next = each->next;
        if (each->group == group)
            connection_end(server, each);
    }
}
