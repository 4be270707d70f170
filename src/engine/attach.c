/*
 * Streams between a client and a container's monitor: attach, logs, and the terminal's size. The
 * daemon makes the socket pair and passes both ends on; no byte goes through it.
 */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include <base/alloc.h>
#include <base/clock.h>
#include <base/text.h>

#include "events.h"
#include "internal.h"
#include "logfile.h"
#include "status.h"

/* A request to the monitor whose answer makes a stream, or a plain "done". */
struct stream_call {
    engine_done done;
    void *data;
    int client_fd; /* the client's end; -1: none */
    bool tty;
};

static int stream_pair(int *ret_client_fd, int *ret_monitor_fd, struct error *err)
{
    int pair[2];

    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) < 0)
        return error_errno(err, errno, "make a stream");
    *ret_client_fd = pair[0];
    *ret_monitor_fd = pair[1];
    return 0;
}

static void give_stream(engine_done done, void *data, int fd, bool tty)
{
    struct engine_result result = ENGINE_RESULT_INIT;

    result.fd = fd;
    result.tty = tty;
    done(&result, data);
}

static void on_stream_reply(const struct link_message *message, void *data)
{
    struct stream_call *call = data;
    _cleanup_error_ struct error err = ERROR_INIT;

    if (message->type == MONITOR_OK) {
        give_stream(call->done, call->data, call->client_fd, call->tty);
    } else {
        link_error(message, &err);
        close_fd(call->client_fd);
        engine_fail(call->done, call->data, &err);
    }
    free(call);
}

static struct stream_call *new_call(engine_done done, void *data, int client_fd, bool tty)
{
    struct stream_call *call = xnew(struct stream_call);

    *call = (struct stream_call){done, data, client_fd, tty};
    return call;
}

/* --- attach ----------------------------------------------------------------------------------- */

static uint32_t attach_flags(const struct api_container_attach *how)
{
    return (how->stdin_ ? (uint32_t)MONITOR_ATTACH_STDIN : 0) |
           (how->stdout_ ? (uint32_t)MONITOR_ATTACH_STDOUT : 0) |
           (how->stderr_ ? (uint32_t)MONITOR_ATTACH_STDERR : 0) |
           (how->logs ? (uint32_t)MONITOR_ATTACH_LOGS : 0);
}

/* Before the start: kept until the monitor is there. */
static int keep_attachment(struct container *container, int fd, uint32_t flags, struct error *err)
{
    struct attachment **end = &container->attachments;

    if (container->attachments_count >= ENGINE_ATTACHMENTS_MAX)
        return error_set(err, -EAGAIN, "%d clients are attached already", ENGINE_ATTACHMENTS_MAX);
    while (*end)
        end = &(*end)->next;
    struct attachment *attachment = xnew(struct attachment);
    attachment->fd = fd;
    attachment->flags = flags;
    *end = attachment;
    container->attachments_count++;
    return 0;
}

void engine_container_attach(struct container *container, const struct api_container_attach *how,
                             engine_done done, void *data)
{
    _cleanup_error_ struct error err = ERROR_INIT;
    _cleanup_close_ int client_fd = -1;
    _cleanup_close_ int monitor_fd = -1;
    struct monitor_attach attach = {.flags = attach_flags(how)};
    bool tty = container->effective->tty;

    if (stream_pair(&client_fd, &monitor_fd, &err) < 0) {
        engine_fail(done, data, &err);
    } else if (container->link) {
        event_container(container, "attach", NULL);
        link_request(container->link, MONITOR_ATTACH, &attach, sizeof(attach), &monitor_fd, 1,
                     on_stream_reply, new_call(done, data, steal_fd(&client_fd), tty));
    } else if (keep_attachment(container, monitor_fd, attach.flags, &err) < 0) {
        engine_fail(done, data, &err);
    } else {
        monitor_fd = -1;
        event_container(container, "attach", NULL);
        give_stream(done, data, steal_fd(&client_fd), tty);
    }
}

/* --- logs ------------------------------------------------------------------------------------- */

struct logs_call {
    uv_work_t work;
    struct container *container; /* a reference */
    char *path;                  /* owned */
    int64_t tail;                /* < 0: all */
    int64_t since;               /* nanoseconds since 1970 */
    bool follow;
    int fd; /* the log, at offset */
    off_t offset;
    engine_done done;
    void *data;
    struct error err;
};

static void logs_free(struct logs_call *call)
{
    close_fd(call->fd);
    container_unref(call->container);
    error_finish(&call->err);
    free(call->path);
    free(call);
}

/* A container that never ran has an empty log. */
static int open_log(const char *path, struct error *err)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);

    if (fd < 0 && errno == ENOENT)
        fd = memfd_create("empty log", MFD_CLOEXEC);
    return fd < 0 ? error_errno(err, errno, "open %s", path) : fd;
}

static void logs_work(uv_work_t *work)
{
    struct logs_call *call = work->data;

    call->fd = open_log(call->path, &call->err);
    if (call->fd < 0)
        return;
    if (call->tail >= 0)
        call->offset = logfile_tail(call->fd, call->tail);
    if (call->since > 0) {
        off_t since = logfile_since(call->fd, call->since);
        call->offset = since > call->offset ? since : call->offset;
    }
    if (call->offset < 0 || lseek(call->fd, call->offset, SEEK_SET) < 0)
        error_set(&call->err, -EIO, "read %s", call->path);
}

static void give_file(struct logs_call *call)
{
    give_stream(call->done, call->data, steal_fd(&call->fd), call->container->effective->tty);
    logs_free(call);
}

struct follow_call {
    struct logs_call *logs;
    int client_fd;
};

static void on_follow_reply(const struct link_message *message, void *data)
{
    struct follow_call *follow = data;
    struct logs_call *call = follow->logs;

    if (message->type == MONITOR_OK) {
        give_stream(call->done, call->data, follow->client_fd, call->container->effective->tty);
        logs_free(call);
    } else {
        /* The monitor went meanwhile: the file has everything. */
        close_fd(follow->client_fd);
        give_file(call);
    }
    free(follow);
}

static void logs_done(uv_work_t *work, int status)
{
    struct logs_call *call = work->data;
    struct container *container = call->container;
    struct monitor_follow where = {.offset = (uint64_t)call->offset};
    _cleanup_close_ int monitor_fd = -1;
    int client_fd = -1;

    if (call->err.code < 0) {
        engine_fail(call->done, call->data, &call->err);
        logs_free(call);
    } else if (!call->follow || !container->link ||
               stream_pair(&client_fd, &monitor_fd, NULL) < 0) {
        give_file(call);
    } else {
        struct follow_call *follow = xnew(struct follow_call);
        *follow = (struct follow_call){call, client_fd};
        link_request(container->link, MONITOR_FOLLOW, &where, sizeof(where), &monitor_fd, 1,
                     on_follow_reply, follow);
    }
}

void engine_container_logs(struct container *container, const struct api_container_logs *how,
                           engine_done done, void *data)
{
    _cleanup_error_ struct error err = ERROR_INIT;
    int64_t since = 0;

    if (!text_empty(how->since) && clock_parse(how->since, &since) < 0) {
        error_set(&err, -EINVAL, "'%.64s' is not an RFC 3339 time", how->since);
        engine_fail(done, data, &err);
        return;
    }
    struct logs_call *call = xnew(struct logs_call);
    call->work.data = call;
    call->container = container_ref(container);
    call->path = container_root_path(container, "log");
    call->tail = how->has_tail ? how->tail : -1;
    call->since = since;
    call->follow = how->follow;
    call->fd = -1;
    call->done = done;
    call->data = data;
    uv_queue_work(container->engine->loop, &call->work, logs_work, logs_done);
}

/* --- terminal --------------------------------------------------------------------------------- */

static void tell_resize(const struct container *container, const struct api_container_resize *size)
{
    _cleanup_free_ char *height = xasprintf("%u", (unsigned)size->rows);
    _cleanup_free_ char *width = xasprintf("%u", (unsigned)size->columns);

    event_container(container, "resize",
                    (struct event_attribute[]){{"height", height}, {"width", width}, {NULL, NULL}});
}

void engine_container_resize(struct container *container, const struct api_container_resize *size,
                             engine_done done, void *data)
{
    struct monitor_resize resize = {.rows = size->rows, .columns = size->columns};
    _cleanup_error_ struct error err = ERROR_INIT;

    if (size->exec_id)
        strncpy(resize.exec, size->exec_id, sizeof(resize.exec) - 1);
    if (!container->link) {
        error_set(&err, -EBUSY, "container %s is not running", container->id);
        engine_fail(done, data, &err);
        return;
    }
    if (!size->exec_id)
        tell_resize(container, size);
    link_request(container->link, MONITOR_RESIZE, &resize, sizeof(resize), NULL, 0, on_stream_reply,
                 new_call(done, data, -1, false));
}
