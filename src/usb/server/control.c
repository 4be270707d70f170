/* The socket: lines in, lines out. One connection at a time, the newer one wins. */
#include <errno.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>

#include <base/clock.h>
#include <base/log.h>
#include <base/socket.h>

#include "server.h"

enum watch_type { WATCH_LISTENER, WATCH_WAKE, WATCH_CONNECTION };
enum { READ_SIZE = 16 << 10, LAST_WORDS_MS = 2000 };

int control_open(struct server *server, struct error *err)
{
    server->connection.watch.fd = -1;
    server->epoll = epoll_create1(EPOLL_CLOEXEC);
    int wake = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    int r = server->epoll < 0 || wake < 0 ? -errno : 0;
    if (r == 0)
        r = watch_add(server->epoll, &server->listener, WATCH_LISTENER, server->options->listen,
                      EPOLLIN);
    if (r == 0)
        r = watch_add(server->epoll, &server->wake, WATCH_WAKE, wake, EPOLLIN);
    return r < 0 ? error_errno(err, -r, "watch the socket") : 0;
}

void control_wake(struct server *server)
{
    uint64_t one = 1;
    while (write(server->wake.fd, &one, sizeof(one)) < 0 && errno == EINTR)
        ;
}

static void disconnect(struct server *server)
{
    struct connection *connection = &server->connection;
    pthread_mutex_lock(&server->lock);
    server->connection_number = 0;
    server->is_stalled = false;
    buffer_finish(&server->outbox);
    pthread_mutex_unlock(&server->lock);
    watch_close(server->epoll, &connection->watch);
    buffer_finish(&connection->in);
    while (connection->fds_count > 0)
        close(connection->fds[--connection->fds_count]);
}

static void accept_connection(struct server *server)
{
    struct connection *connection = &server->connection;
    int fd = accept4(server->listener.fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
    if (fd < 0)
        return;
    disconnect(server);
    connection->number++;
    if (watch_add(server->epoll, &connection->watch, WATCH_CONNECTION, fd, EPOLLIN) < 0)
        return;
    pthread_mutex_lock(&server->lock);
    server->connection_number = connection->number;
    pthread_mutex_unlock(&server->lock);
}

/* Lines in. */

static void take_fds(struct connection *connection, struct job *job, size_t count)
{
    memcpy(job->fds, connection->fds, count * sizeof(job->fds[0]));
    connection->fds_count -= count;
    memmove(connection->fds, connection->fds + count,
            connection->fds_count * sizeof(connection->fds[0]));
}

/* False: what comes is no talk, and the connection ends. */
static bool take_line(struct server *server, const char *line, size_t length)
{
    struct connection *connection = &server->connection;
    struct usb_stick_request *request = NULL;
    struct job job;
    _cleanup_error_ struct error err = ERROR_INIT;
    if (usb_stick_request_parse(line, length, NULL, &request, &err) != 0) {
        error_context(&err, "the request");
        control_refuse(server, connection->number, 0, &err);
        return false;
    }
    size_t count = request->has_fds ? request->fds : 0;
    if (count > connection->fds_count) {
        error_set(&err, -EBADMSG, "the request says that %zu descriptors come with it, %zu came",
                  count, connection->fds_count);
        control_refuse(server, connection->number, request->id, &err);
        usb_stick_request_free(request);
        return false;
    }
    take_fds(connection, &job, count);
    job_begin(server, connection->number, request, job.fds, count);
    return true;
}

static bool take_lines(struct server *server)
{
    struct buffer *in = &server->connection.in;
    size_t begin = 0;
    bool good = true;
    for (char *end; good && (end = memchr(in->data + begin, '\n', in->length - begin));) {
        size_t length = (size_t)(end - in->data) - begin;
        good = take_line(server, in->data + begin, length);
        begin += length + 1;
    }
    buffer_consume(in, begin);
    return good && in->length <= REQUEST_MAX;
}

/* False: it is over. */
static bool receive(struct server *server)
{
    struct connection *connection = &server->connection;
    size_t room = FDS_WAITING_MAX - connection->fds_count;
    size_t fds_count = room;
    buffer_reserve(&connection->in, READ_SIZE);
    ssize_t n =
        socket_receive_now(connection->watch.fd, connection->in.data + connection->in.length,
                           READ_SIZE, connection->fds + connection->fds_count, &fds_count);
    if (n == -EAGAIN)
        return true;
    if (n <= 0)
        return false;
    server->is_heard = true;
    connection->fds_count += fds_count;
    connection->in.length += (size_t)n;
    return take_lines(server);
}

/* Lines out. */

/* False: it is over. */
static bool flush(struct server *server)
{
    struct watch *watch = &server->connection.watch;
    ssize_t n = 0;
    pthread_mutex_lock(&server->lock);
    bool stalled = server->is_stalled;
    if (!stalled && server->outbox.length > 0)
        n = socket_send_now(watch->fd, server->outbox.data, server->outbox.length, NULL, 0);
    if (n > 0)
        buffer_consume(&server->outbox, (size_t)n);
    bool more = server->outbox.length > 0;
    pthread_mutex_unlock(&server->lock);
    if (stalled)
        log_warning("whoever is connected does not read: disconnected");
    if (stalled || (n < 0 && n != -EAGAIN))
        return false;
    return watch_set(server->epoll, watch, EPOLLIN | (more ? EPOLLOUT : 0)) == 0;
}

static void send_message(struct server *server, uint64_t connection,
                         const struct usb_stick_message *message)
{
    _cleanup_buffer_ struct buffer line = BUFFER_INIT;
    usb_stick_message_write(message, &line);
    buffer_append_char(&line, '\n');
    pthread_mutex_lock(&server->lock);
    bool there = server->connection_number != 0 &&
                 (connection == 0 || connection == server->connection_number);
    if (there && server->outbox.length + line.length > OUTBOX_MAX)
        server->is_stalled = true;
    else if (there)
        buffer_append(&server->outbox, line.data, line.length);
    pthread_mutex_unlock(&server->lock);
    control_wake(server);
}

void control_answer(struct server *server, uint64_t connection, uint64_t id,
                    const struct usb_stick_result *result)
{
    const struct usb_stick_message message = {
        .version = 1,
        .id = id,
        .has_id = true,
        .result = (struct usb_stick_result *)result,
    };
    send_message(server, connection, &message);
}

void control_refuse(struct server *server, uint64_t connection, uint64_t id,
                    const struct error *failure)
{
    struct usb_stick_failure error = {
        .code = failure->code < 0 ? failure->code : -EIO,
        .message = (char *)error_message(failure),
        .hint = failure->hint,
    };
    const struct usb_stick_message message = {
        .version = 1,
        .id = id,
        .has_id = true,
        .error = &error,
    };
    send_message(server, connection, &message);
}

void control_tell(struct server *server, const struct usb_stick_event *event)
{
    const struct usb_stick_message message = {
        .version = 1,
        .event = (struct usb_stick_event *)event,
    };
    send_message(server, 0, &message);
}

void control_tell_unit(struct server *server, unsigned unit, bool is_ready)
{
    struct usb_stick_unit_event told = {.unit = unit};
    const struct usb_stick_event event = {
        .ready = is_ready ? &told : NULL,
        .changed = is_ready ? NULL : &told,
    };
    control_tell(server, &event);
}

/* The loop. */

static void handle(struct server *server, const struct watch *watch, uint32_t events)
{
    uint64_t count;
    bool good = true;
    switch ((enum watch_type)watch->type) {
    case WATCH_LISTENER:
        accept_connection(server);
        break;
    case WATCH_WAKE:
        if (read(watch->fd, &count, sizeof(count)) < 0)
            break;
        break;
    case WATCH_CONNECTION:
        if (events & (EPOLLIN | EPOLLHUP | EPOLLERR))
            good = receive(server);
        break;
    }
    if (good && server->connection.watch.fd >= 0)
        good = flush(server);
    if (good)
        return;
    flush(server); /* what is wrong with it */
    disconnect(server);
    if (!server->is_heard) {
        log_info(
            "the daemon went before it had said anything, and none will look for this process");
        control_finish(server, SERVER_ENDED);
    }
}

/* ret_timeout: of epoll_wait(), ms. */
static bool goes_on(struct server *server, int64_t *deadline, int *ret_timeout)
{
    pthread_mutex_lock(&server->lock);
    bool over = server->is_over;
    bool unread = server->outbox.length > 0 && !server->is_stalled;
    pthread_mutex_unlock(&server->lock);
    *ret_timeout = -1;
    if (!over)
        return true;
    if (*deadline == 0)
        *deadline = clock_milliseconds() + LAST_WORDS_MS;
    int64_t left = *deadline - clock_milliseconds();
    *ret_timeout = left > 0 ? (int)left : 0;
    return unread && server->connection.watch.fd >= 0 && left > 0;
}

void control_run(struct server *server)
{
    int64_t deadline = 0;
    int timeout;
    while (goes_on(server, &deadline, &timeout)) {
        struct epoll_event event;
        if (epoll_wait(server->epoll, &event, 1, timeout) == 1)
            handle(server, event.data.ptr, event.events);
    }
    disconnect(server);
}

void control_finish(struct server *server, enum server_end end)
{
    pthread_mutex_lock(&server->lock);
    if (!server->is_over)
        server->end = end;
    server->is_over = true;
    pthread_mutex_unlock(&server->lock);
    control_wake(server);
}
