/*
 * Daemons: the one that started the monitor, and those that come through monitor.sock after it.
 * Every message is checked against the table of requests before its handler sees it.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <base/alloc.h>
#include <base/log.h>
#include <base/socket.h>

#include "monitor_internal.h"

struct message {
    struct monitor_header header;
    union {
        char bytes[MONITOR_MESSAGE_MAX - sizeof(struct monitor_header)];
        struct monitor_attach attach;
        struct monitor_attach_before attach_before;
        struct monitor_follow follow;
        struct monitor_policy policy;
        struct monitor_signal signal;
        struct monitor_stop stop;
        struct monitor_resize resize;
        struct monitor_exec exec;
        struct monitor_status status;
        struct monitor_error error;
        struct monitor_pid pid;
        struct monitor_exited exited;
        struct monitor_exec_exited exec_exited;
        struct monitor_exec_running exec_running;
    };
};

static char *socket_path(const struct monitor *monitor)
{
    return xasprintf("%s/monitor.sock", monitor->options->bundle);
}

int control_open(struct monitor *monitor, struct error *err)
{
    _cleanup_free_ char *path = socket_path(monitor);
    int r;

    fcntl(monitor->options->control_fd, F_SETFL, O_NONBLOCK | O_RDWR);
    r = watch_add(monitor->epoll_fd, &monitor->controls[0].watch, WATCH_CONTROL,
                  monitor->options->control_fd, EPOLLIN);
    if (r < 0)
        return error_errno(err, -r, "watch the daemon's socket");
    monitor->controls[0].version = (uint16_t)monitor->options->protocol;
    monitor->daemon = &monitor->controls[0];
    unlink(path); /* of a monitor that was killed; the daemon starts one at a time */
    int fd = socket_listen_unix(path, SOCK_SEQPACKET | SOCK_NONBLOCK, 0600, err);
    if (fd < 0)
        return fd;
    r = watch_add(monitor->epoll_fd, &monitor->listener, WATCH_LISTENER, fd, EPOLLIN);
    return r < 0 ? error_errno(err, -r, "watch %s", path) : 0;
}

void control_stop_listening(struct monitor *monitor)
{
    _cleanup_free_ char *path = socket_path(monitor);

    if (monitor->listener.fd >= 0)
        unlink(path);
    watch_close(monitor->epoll_fd, &monitor->listener);
}

static void control_close(struct monitor *monitor, struct control *control)
{
    watch_close(monitor->epoll_fd, &control->watch);
    control->version = 0;
    if (monitor->daemon == control)
        monitor->daemon = NULL;
}

void control_finish(struct monitor *monitor)
{
    control_stop_listening(monitor);
    for (size_t i = 0; i < CONTROLS_MAX; i++)
        control_close(monitor, &monitor->controls[i]);
}

/* Connections of root only (mode 0600); one that says nothing gives way to the next. */
void control_listener_ready(struct monitor *monitor)
{
    int fd = accept4(monitor->listener.fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
    struct control *place = NULL;

    if (fd < 0)
        return;
    for (size_t i = 0; i < CONTROLS_MAX; i++) {
        struct control *control = &monitor->controls[i];
        if (control == monitor->daemon)
            continue;
        if (!place || control->watch.fd < 0)
            place = control;
    }
    control_close(monitor, place);
    watch_add(monitor->epoll_fd, &place->watch, WATCH_CONTROL, fd, EPOLLIN);
}

/* ---- sending ---- */

/* A daemon that does not read loses the connection: it can come again and ask. */
static int send_to(struct monitor *monitor, struct control *control, enum monitor_type type,
                   uint32_t request, const void *payload, size_t length)
{
    struct message message;

    if (length > sizeof(message.bytes))
        length = sizeof(message.bytes);
    message.header = (struct monitor_header){
        .magic = MONITOR_MAGIC,
        .version = control->version ? control->version : MONITOR_PROTOCOL_VERSION,
        .type = (uint16_t)type,
        .request = request,
        .length = (uint32_t)length,
    };
    if (length)
        memcpy(message.bytes, payload, length);
    ssize_t n = socket_send(control->watch.fd, &message, sizeof(message.header) + length, NULL, 0);
    if (n < 0)
        shutdown(control->watch.fd, SHUT_RDWR); /* closed by its next event */
    return n < 0 ? (int)n : 0;
}

int control_send(struct monitor *monitor, enum monitor_type type, uint32_t request,
                 const void *payload, size_t length)
{
    if (!monitor->daemon)
        return -ENOTCONN;
    return send_to(monitor, monitor->daemon, type, request, payload, length);
}

void control_send_new(struct monitor *monitor, enum monitor_type type, const void *payload,
                      size_t length)
{
    if (monitor->daemon && monitor->daemon->version >= 2)
        control_send(monitor, type, 0, payload, length);
}

static void send_error_to(struct monitor *monitor, struct control *control, enum monitor_type type,
                          uint32_t request, int code, const char *text)
{
    struct message message;
    size_t room = sizeof(message.bytes) - sizeof(message.error), length = strlen(text);

    if (length > room)
        length = room;
    message.error.code = code;
    memcpy(message.error.text, text, length);
    send_to(monitor, control, type, request, &message.error, sizeof(message.error) + length);
}

void control_send_error(struct monitor *monitor, enum monitor_type type, uint32_t request, int code,
                        const char *text)
{
    if (monitor->daemon)
        send_error_to(monitor, monitor->daemon, type, request, code, text);
}

uint32_t control_request_for(const struct monitor *monitor, const struct session *session)
{
    return session->asked_by == monitor->daemon_generation ? session->request : 0;
}

/* ---- requests: each answers itself, or returns -errno with err set to be answered so ---- */

static int on_status(struct monitor *monitor, const struct message *message, int *fd,
                     struct error *err)
{
    struct monitor_status status;

    container_fill_status(monitor, &status);
    bool old = message->header.version < 2;
    if (old && status.state == MONITOR_STATE_RESTARTING)
        status.state = MONITOR_STATE_STARTING;
    control_send(monitor, MONITOR_OK, message->header.request, &status,
                 old ? MONITOR_STATUS_SIZE_1 : sizeof(status));
    return 0;
}

static int on_hello(struct monitor *monitor, const struct message *message, int *fd,
                    struct error *err)
{
    execs_tell(monitor);
    return on_status(monitor, message, fd, err);
}

static int send_ok(struct monitor *monitor, const struct message *message)
{
    control_send(monitor, MONITOR_OK, message->header.request, NULL, 0);
    return 0;
}

static int on_start(struct monitor *monitor, const struct message *message, int *fd,
                    struct error *err)
{
    if (monitor->phase != PHASE_CREATED)
        return error_set(err, -EALREADY, "the container was started already");
    int r = message->header.version < 2 ? 0 : restart_set_policy(monitor, &message->policy, err);
    if (r == 0)
        container_start(monitor, message->header.request);
    return r;
}

static bool is_attach_before(const struct monitor_header *header)
{
    return header->type == MONITOR_ATTACH && header->version >= 2 &&
           header->length == sizeof(struct monitor_attach_before);
}

static int on_attach(struct monitor *monitor, const struct message *message, int *fd,
                     struct error *err)
{
    uint32_t flags = message->attach.flags;
    struct log_place at = {.until = UINT64_MAX};
    bool before = fd[1] >= 0;

    if (!monitor->log.file)
        return error_set(err, -EIO, "there is no log");
    if (before != is_attach_before(&message->header))
        return error_set(err, -EBADMSG, "an attach request is malformed");
    at.file = flags & MONITOR_ATTACH_LOGS
                  ? container_log_find(&monitor->log, before ? message->attach_before.inode : 0)
                  : log_file_ref(monitor->log.file);
    at.offset = flags & MONITOR_ATTACH_LOGS ? 0 : at.file->size;
    if (before)
        at.file = container_log_before(at.file, steal_fd(&fd[1]));
    int r = client_add(monitor, CLIENT_ATTACH, &monitor->container, flags, &at, steal_fd(fd), err);
    log_file_unref(at.file);
    if (r >= 0)
        client_set_detach(monitor->clients, &message->attach.detach);
    return r < 0 ? r : send_ok(monitor, message);
}

/* An inode of 0 is the file in use, in container_log_find() the oldest. */
static int find_place(struct monitor *monitor, const struct monitor_follow *follow,
                      struct log_place *ret, struct error *err)
{
    struct container_log *log = &monitor->log;

    if (!log->file)
        return error_set(err, -EIO, "there is no log");
    ret->file = follow->inode ? container_log_find(log, follow->inode) : log_file_ref(log->file);
    ret->offset = follow->offset;
    ret->until = follow->flags & MONITOR_FOLLOW_NOT ? container_log_end(log) : UINT64_MAX;
    if (ret->offset <= ret->file->size)
        return 0;
    error_set(err, -ERANGE, "the log has only %llu bytes", (unsigned long long)ret->file->size);
    log_file_unref(ret->file);
    return -ERANGE;
}

static int on_follow(struct monitor *monitor, const struct message *message, int *fd,
                     struct error *err)
{
    struct log_place at;

    int r = find_place(monitor, &message->follow, &at, err);
    if (r < 0)
        return r;
    if (fd[1] >= 0)
        at.file = container_log_before(at.file, steal_fd(&fd[1]));
    r = client_add(monitor, CLIENT_FOLLOW, NULL, 0, &at, steal_fd(fd), err);
    log_file_unref(at.file);
    return r < 0 ? r : send_ok(monitor, message);
}

static int on_signal(struct monitor *monitor, const struct message *message, int *fd,
                     struct error *err)
{
    int r = container_signal(monitor, message->signal.signal, err);

    return r < 0 ? r : send_ok(monitor, message);
}

static int on_stop(struct monitor *monitor, const struct message *message, int *fd,
                   struct error *err)
{
    int r = container_stop(monitor, message->stop.signal, message->stop.timeout_ms, err);

    return r < 0 ? r : send_ok(monitor, message);
}

static int on_resize(struct monitor *monitor, const struct message *message, int *fd,
                     struct error *err)
{
    const struct monitor_resize *resize = &message->resize;
    struct session *session = &monitor->container;

    if (!memchr(resize->exec, '\0', sizeof(resize->exec)))
        return error_set(err, -EINVAL, "the exec session's name has no end");
    if (resize->exec[0])
        session = exec_find(monitor, resize->exec);
    if (!session)
        return error_set(err, -ENOENT, "there is no exec session %s", resize->exec);
    int r = session_resize(session, resize->rows, resize->columns);
    return r < 0 ? error_errno(err, -r, "set the size of the terminal") : send_ok(monitor, message);
}

static int on_exec(struct monitor *monitor, const struct message *message, int *fd,
                   struct error *err)
{
    return exec_start(monitor, message->header.request, &message->exec, fd, err);
}

static int on_update(struct monitor *monitor, const struct message *message, int *fd,
                     struct error *err)
{
    int r = restart_update_policy(monitor, &message->policy, err);

    return r < 0 ? r : send_ok(monitor, message);
}

enum descriptors { NO_FD, ONE_FD, PERHAPS_FD, ONE_OR_TWO_FDS };

static const struct request {
    int (*handle)(struct monitor *monitor, const struct message *message, int *fd,
                  struct error *err);
    size_t length;
    enum descriptors descriptors;
    uint16_t since;    /* version; 0: the first */
    bool other_before; /* before it the request had length_before */
    size_t length_before;
} requests[] = {
    [MONITOR_HELLO] = {on_hello, 0, NO_FD},
    [MONITOR_START] = {on_start, sizeof(struct monitor_policy), NO_FD, 2, true, 0},
    [MONITOR_ATTACH] = {on_attach, sizeof(struct monitor_attach), ONE_OR_TWO_FDS, 2, true,
                        MONITOR_ATTACH_SIZE_1},
    [MONITOR_FOLLOW] = {on_follow, sizeof(struct monitor_follow), ONE_OR_TWO_FDS, 2, true,
                        MONITOR_FOLLOW_SIZE_1},
    [MONITOR_SIGNAL] = {on_signal, sizeof(struct monitor_signal), NO_FD},
    [MONITOR_STOP] = {on_stop, sizeof(struct monitor_stop), NO_FD},
    [MONITOR_RESIZE] = {on_resize, sizeof(struct monitor_resize), NO_FD},
    [MONITOR_EXEC] = {on_exec, sizeof(struct monitor_exec), PERHAPS_FD, 2, true,
                      MONITOR_EXEC_SIZE_1},
    [MONITOR_STATUS] = {on_status, 0, NO_FD},
    [MONITOR_UPDATE] = {on_update, sizeof(struct monitor_policy), NO_FD, 2},
};

static int check_message(const struct message *message, size_t received, size_t fds_count,
                         struct error *err)
{
    const struct monitor_header *header = &message->header;

    if (received < sizeof(*header) || header->magic != MONITOR_MAGIC ||
        header->length != received - sizeof(*header))
        return error_set(err, -EBADMSG, "not a message of the monitor's protocol");
    if (header->version > MONITOR_PROTOCOL_VERSION ||
        header->version + 1 < MONITOR_PROTOCOL_VERSION || header->version == 0)
        return error_set(err, -EPROTONOSUPPORT, "protocol version %u; this monitor speaks %d",
                         header->version, MONITOR_PROTOCOL_VERSION);
    if (header->type >= ARRAY_SIZE(requests) || !requests[header->type].handle)
        return error_set(err, -ENOSYS, "unknown request %u", header->type);
    const struct request *request = &requests[header->type];
    bool before = header->version < request->since;
    if (before && !request->other_before)
        return error_set(err, -ENOSYS, "request %u is newer than version %u", header->type,
                         header->version);
    size_t length = before ? request->length_before : request->length;
    if ((header->length != length && !is_attach_before(header)) || header->request == 0)
        return error_set(err, -EBADMSG, "request %u is malformed", header->type);
    static const size_t least[] = {[ONE_FD] = 1, [ONE_OR_TWO_FDS] = 1};
    static const size_t most[] = {[ONE_FD] = 1, [PERHAPS_FD] = 1, [ONE_OR_TWO_FDS] = 2};
    if (fds_count < least[request->descriptors] || fds_count > most[request->descriptors])
        return error_set(err, -EBADMSG, "request %u with %zu descriptors", header->type, fds_count);
    return 0;
}

/* The newest HELLO takes over. Before it, a connection that is not the daemon's may say nothing. */
static int check_sender(struct monitor *monitor, struct control *control,
                        const struct message *message, struct error *err)
{
    if (message->header.type == MONITOR_HELLO) {
        if (monitor->daemon && monitor->daemon != control)
            control_close(monitor, monitor->daemon);
        monitor->daemon = control;
        monitor->daemon_generation++;
        control->version = message->header.version;
    }
    return monitor->daemon == control ? 0 : error_set(err, -EPROTO, "HELLO comes first");
}

static void handle(struct monitor *monitor, struct control *control, const struct message *message,
                   size_t received, int *fd, size_t fds_count)
{
    _cleanup_error_ struct error err = ERROR_INIT;

    int r = check_message(message, received, fds_count, &err);
    if (r == 0)
        r = check_sender(monitor, control, message, &err);
    if (r == 0)
        r = requests[message->header.type].handle(monitor, message, fd, &err);
    if (r >= 0)
        return;
    uint32_t number = received >= sizeof(message->header) ? message->header.request : 0;
    send_error_to(monitor, control, MONITOR_ERROR, number, r, error_message(&err));
}

static void daemon_left(struct monitor *monitor, struct control *control)
{
    bool was_daemon = monitor->daemon == control;

    control_close(monitor, control);
    if (was_daemon && monitor->phase == PHASE_CREATED)
        monitor->phase = PHASE_DONE; /* nobody will say START */
}

void control_ready(struct monitor *monitor, struct control *control, uint32_t events)
{
    struct message message;
    int fds[SOCKET_FDS_MAX] = {-1, -1};
    size_t count = ARRAY_SIZE(fds);

    ssize_t n = socket_receive(control->watch.fd, &message, sizeof(message), fds, &count);
    if (n == -EAGAIN)
        return;
    if (n <= 0) {
        daemon_left(monitor, control);
        return;
    }
    /* Zeroed, so that no handler reads what an earlier message left. */
    memset((char *)&message + n, 0, sizeof(message) - (size_t)n);
    handle(monitor, control, &message, (size_t)n, &fds[0], count);
    for (size_t i = 0; i < count; i++)
        close_fd(fds[i]);
}
