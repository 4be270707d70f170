/*
 * Streams between a client and a container's monitor: attach, logs, and the terminal's size. The
 * daemon makes the socket pair and passes both ends on; no byte goes through it.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <base/alloc.h>
#include <base/clock.h>
#include <base/detach_keys.h>
#include <base/text.h>

#include "events.h"
#include "internal.h"
#include "logconfig.h"
#include "logfile.h"
#include "pause.h"
#include "status.h"

/* A request to the monitor whose answer makes a stream, or a plain "done". */
struct stream_call {
    engine_done done;
    void *data;
    int client_fd; /* the client's end; -1: none */
    bool tty;
};

/* The same, where the log begins in what a monitor cannot read. */
struct attach_call {
    uv_work_t work;
    struct container *container; /* a reference */
    struct monitor_attach how;
    int older_fd;   /* all but the newest file; -1: the monitor reads the log itself */
    uint64_t inode; /* of the newest */
    int client_fd;  /* -1: none */
    engine_done done;
    void *data;
    struct error err;
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

static uint64_t inode_of(int fd)
{
    struct stat status;

    return fstat(fd, &status) < 0 ? 0 : status.st_ino;
}

/* --- attach ----------------------------------------------------------------------------------- */

static uint32_t attach_flags(const struct api_container_attach *how)
{
    return (how->stdin_ ? (uint32_t)MONITOR_ATTACH_STDIN : 0) |
           (how->stdout_ ? (uint32_t)MONITOR_ATTACH_STDOUT : 0) |
           (how->stderr_ ? (uint32_t)MONITOR_ATTACH_STDERR : 0) |
           (how->logs ? (uint32_t)MONITOR_ATTACH_LOGS : 0);
}

int detach_parse(const char *text, struct monitor_detach *ret, struct error *err)
{
    struct detach_keys keys;

    int r = detach_keys_parse(text ? text : "", &keys, err);
    if (r < 0)
        return r;
    ret->count = keys.count;
    memcpy(ret->keys, keys.keys, keys.count);
    return 0;
}

static bool has_left(const struct attachment *attachment)
{
    struct pollfd end = {.fd = attachment->fd};

    return poll(&end, 1, 0) > 0 && end.revents & (POLLHUP | POLLERR);
}

/* Nobody tells of clients that gave up before the start. */
static void drop_those_that_left(struct container *container)
{
    struct attachment **at = &container->attachments;

    while (*at) {
        struct attachment *attachment = *at;
        if (!has_left(attachment)) {
            at = &attachment->next;
            continue;
        }
        *at = attachment->next;
        close(attachment->fd);
        free(attachment);
        container->attachments_count--;
    }
}

/* Before the start: kept until the monitor is there. */
static int keep_attachment(struct container *container, int fd, const struct monitor_attach *how,
                           struct error *err)
{
    struct attachment **end = &container->attachments;

    drop_those_that_left(container);
    if (container->attachments_count >= ENGINE_ATTACHMENTS_MAX)
        return error_set(err, -EAGAIN, "%d clients are attached already", ENGINE_ATTACHMENTS_MAX);
    while (*end)
        end = &(*end)->next;
    struct attachment *attachment = xnew(struct attachment);
    attachment->fd = fd;
    attachment->how = *how;
    *end = attachment;
    container->attachments_count++;
    return 0;
}

static void ask_to_attach(const struct container *container, const struct monitor_attach *how,
                          int monitor_fd, struct stream_call *call)
{
    bool old = link_version(container->link) < MONITOR_PROTOCOL_VERSION;

    link_request(container->link, MONITOR_ATTACH, how, old ? MONITOR_ATTACH_SIZE_1 : sizeof(*how),
                 &monitor_fd, 1, on_stream_reply, call);
}

static void attach(struct container *container, const struct monitor_attach *how, engine_done done,
                   void *data)
{
    _cleanup_error_ struct error err = ERROR_INIT;
    _cleanup_close_ int client_fd = -1;
    _cleanup_close_ int monitor_fd = -1;
    bool tty = container->effective->tty;

    if (stream_pair(&client_fd, &monitor_fd, &err) < 0) {
        engine_fail(done, data, &err);
    } else if (container->link) {
        event_container(container, "attach", NULL);
        ask_to_attach(container, how, monitor_fd, new_call(done, data, steal_fd(&client_fd), tty));
    } else if (keep_attachment(container, monitor_fd, how, &err) < 0) {
        engine_fail(done, data, &err);
    } else {
        monitor_fd = -1;
        event_container(container, "attach", NULL);
        give_stream(done, data, steal_fd(&client_fd), tty);
    }
}

/* --- with a log whose older files are packed --- */

static void attach_call_free(struct attach_call *call)
{
    container_unref(call->container);
    close_fd(call->older_fd);
    error_finish(&call->err);
    free(call);
}

static int find_older(struct attach_call *call, struct error *err)
{
    const struct container *container = call->container;
    _cleanup_free_ char *path = container_root_path(container, "log");
    _cleanup_free_ char *folder = container_root_path(container, NULL);
    const struct logfile_place oldest = {0, 0};
    struct logfile_set set;
    bool apart = false;
    int r = logfile_set_open(path, container->engine->logpack_program, folder, &set, err);

    if (r < 0)
        return r;
    for (size_t i = 0; i + 1 < set.count; i++)
        apart = apart || set.apart[i];
    if (apart) {
        call->inode = inode_of(set.fds[set.count - 1]);
        call->older_fd = logfile_set_join_older(&set, &oldest, err);
        r = call->older_fd < 0 ? call->older_fd : 0;
    }
    logfile_set_close(&set);
    return r;
}

static void find_older_work(uv_work_t *work)
{
    struct attach_call *call = work->data;

    engine_settle(&call->err, find_older(call, &call->err));
}

/* A monitor of an earlier build gives what it can read itself. */
static void on_before_reply(const struct link_message *message, void *data)
{
    struct attach_call *call = data;
    _cleanup_error_ struct error err = ERROR_INIT;

    if (message->type != MONITOR_OK && link_error(message, &err) == -EBADMSG)
        attach(call->container, &call->how, call->done, call->data);
    else if (message->type != MONITOR_OK)
        engine_fail(call->done, call->data, &err);
    else
        give_stream(call->done, call->data, steal_fd(&call->client_fd),
                    call->container->effective->tty);
    close_fd(call->client_fd);
    attach_call_free(call);
}

static void attach_with_older(struct attach_call *call)
{
    const struct monitor_attach_before where = {.attach = call->how, .inode = call->inode};
    _cleanup_close_ int monitor_fd = -1;

    if (stream_pair(&call->client_fd, &monitor_fd, &call->err) < 0) {
        engine_fail(call->done, call->data, &call->err);
        attach_call_free(call);
        return;
    }
    const int fds[] = {monitor_fd, call->older_fd};
    event_container(call->container, "attach", NULL);
    link_request(call->container->link, MONITOR_ATTACH, &where, sizeof(where), fds, 2,
                 on_before_reply, call);
}

static void find_older_done(uv_work_t *work, int status)
{
    struct attach_call *call = work->data;

    if (call->err.code == 0 && call->older_fd >= 0 && call->container->link) {
        attach_with_older(call);
        return;
    }
    if (call->err.code < 0)
        engine_fail(call->done, call->data, &call->err);
    else
        attach(call->container, &call->how, call->done, call->data);
    attach_call_free(call);
}

void engine_container_attach(struct container *container, const struct api_container_attach *how,
                             engine_done done, void *data)
{
    _cleanup_error_ struct error err = ERROR_INIT;
    const struct link *link = container->link;
    struct monitor_attach wanted = {.flags = attach_flags(how)};

    if (container->effective->tty)
        detach_parse(how->detach_keys, &wanted.detach, &err);
    if (!err.code && container->state == CONTAINER_RESTARTING)
        error_set(&err, -EBUSY, "Container %s is restarting, wait until the container is running",
                  container->id);
    if (!err.code && container_is_paused(container))
        error_set(&err, -EBUSY, "container %s is paused, unpause the container before attach",
                  container->id);
    if (err.code < 0) {
        engine_fail(done, data, &err);
        return;
    }
    if (!how->logs || !link || link_version(link) < MONITOR_PROTOCOL_VERSION) {
        attach(container, &wanted, done, data);
        return;
    }
    struct attach_call *call = xnew(struct attach_call);
    *call = (struct attach_call){.container = container_ref(container),
                                 .how = wanted,
                                 .older_fd = -1,
                                 .client_fd = -1,
                                 .done = done,
                                 .data = data};
    call->work.data = call;
    uv_queue_work(container->engine->loop, &call->work, find_older_work, find_older_done);
}

/* --- logs ------------------------------------------------------------------------------------- */

_Static_assert((int)LOGFILE_FILES_MAX == (int)MONITOR_LOG_FILES_MAX, "the files of a log");

struct logs_call {
    uv_work_t work;
    struct container *container; /* a reference */
    char *path;                  /* owned */
    char *folder;                /* owned; where it lies */
    int64_t tail;                /* < 0: all */
    int64_t since;               /* nanoseconds since 1970 */
    bool follow;
    struct logfile_set set;
    struct logfile_place from;
    int older_fd;     /* for the monitor; -1: it has all of it */
    int fd;           /* what is given when there is no monitor to give it */
    char *attributes; /* owned */
    engine_done done;
    void *data;
    struct error err;
};

static void logs_free(struct logs_call *call)
{
    logfile_set_close(&call->set);
    close_fd(call->older_fd);
    close_fd(call->fd);
    container_unref(call->container);
    error_finish(&call->err);
    free(call->path);
    free(call->folder);
    free(call->attributes);
    free(call);
}

static void give_log(const struct logs_call *call, int fd)
{
    struct engine_result result = ENGINE_RESULT_INIT;

    result.fd = fd;
    result.tty = call->container->effective->tty;
    result.attributes = call->attributes;
    call->done(&result, call->data);
}

static bool is_behind(const struct logfile_place *a, const struct logfile_place *b)
{
    return a->file != b->file ? a->file > b->file : a->offset > b->offset;
}

static int find_place(struct logs_call *call, struct error *err)
{
    struct logfile_place since;
    int r = logfile_set_open(call->path, call->container->engine->logpack_program, call->folder,
                             &call->set, err);

    if (r < 0)
        return r;
    call->from = (struct logfile_place){0, 0};
    if (call->tail >= 0)
        r = logfile_set_tail(&call->set, call->tail, &call->from);
    if (r == 0 && call->since > 0) {
        r = logfile_set_since(&call->set, call->since, &since);
        if (r == 0 && is_behind(&since, &call->from))
            call->from = since;
    }
    return r < 0 ? error_errno(err, -r, "read %s", call->path) : 0;
}

static bool begins_apart(const struct logs_call *call)
{
    return call->set.apart[call->from.file];
}

/* What a monitor cannot read it gets as a file, with everything before the file in use. */
static int find(struct logs_call *call, struct error *err)
{
    int r = find_place(call, err);

    if (r < 0 || !call->follow || !begins_apart(call))
        return r;
    call->older_fd = logfile_set_join_older(&call->set, &call->from, err);
    return call->older_fd < 0 ? call->older_fd : 0;
}

static void find_work(uv_work_t *work)
{
    struct logs_call *call = work->data;

    engine_settle(&call->err, find(call, &call->err));
}

static void join_work(uv_work_t *work)
{
    struct logs_call *call = work->data;

    call->fd = logfile_set_join(&call->set, &call->from, &call->err);
}

static void join_done(uv_work_t *work, int status)
{
    struct logs_call *call = work->data;

    if (call->fd < 0)
        engine_fail(call->done, call->data, &call->err);
    else
        give_log(call, steal_fd(&call->fd));
    logs_free(call);
}

static void give_file(struct logs_call *call)
{
    uv_queue_work(call->container->engine->loop, &call->work, join_work, join_done);
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
        give_log(call, follow->client_fd);
        logs_free(call);
    } else {
        /* The monitor went meanwhile: the files have everything. */
        close_fd(follow->client_fd);
        give_file(call);
    }
    free(follow);
}

/* What is wanted of the monitor: to follow, or to send what lies in several files. One of version 1
 * has a single file. */
static bool needs_monitor(const struct logs_call *call)
{
    const struct container *container = call->container;

    return container->link &&
           (call->follow || (call->from.file + 1 < call->set.count && !begins_apart(call) &&
                             link_version(container->link) == MONITOR_PROTOCOL_VERSION));
}

static void ask_monitor(struct logs_call *call, int monitor_fd, int client_fd)
{
    const struct container *container = call->container;
    bool apart = call->older_fd >= 0;
    size_t file = apart ? call->set.count - 1 : call->from.file;
    const int fds[] = {monitor_fd, call->older_fd};
    struct monitor_follow where = {
        .offset = apart ? 0 : (uint64_t)call->from.offset,
        .inode = inode_of(call->set.fds[file]),
        .flags = call->follow ? 0 : MONITOR_FOLLOW_NOT,
    };
    bool old = link_version(container->link) < MONITOR_PROTOCOL_VERSION;
    struct follow_call *follow = xnew(struct follow_call);

    *follow = (struct follow_call){call, client_fd};
    link_request(container->link, MONITOR_FOLLOW, &where,
                 old ? MONITOR_FOLLOW_SIZE_1 : sizeof(where), fds, apart ? 2 : 1, on_follow_reply,
                 follow);
}

static void find_done(uv_work_t *work, int status)
{
    struct logs_call *call = work->data;
    _cleanup_close_ int monitor_fd = -1;
    int client_fd = -1;

    if (call->err.code < 0) {
        engine_fail(call->done, call->data, &call->err);
        logs_free(call);
    } else if (!needs_monitor(call) || stream_pair(&client_fd, &monitor_fd, NULL) < 0) {
        give_file(call);
    } else {
        ask_monitor(call, monitor_fd, client_fd);
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
    if (!log_config_readable(container->effective->log_config)) {
        error_set(&err, -EOPNOTSUPP, "configured logging driver does not support reading");
        engine_fail(done, data, &err);
        return;
    }
    struct logs_call *call = xnew(struct logs_call);
    call->work.data = call;
    call->container = container_ref(container);
    call->path = container_root_path(container, "log");
    call->folder = container_root_path(container, NULL);
    call->tail = how->has_tail ? how->tail : -1;
    call->since = since;
    call->follow = how->follow;
    call->attributes = log_config_attributes(container->effective);
    call->fd = call->older_fd = -1;
    call->done = done;
    call->data = data;
    uv_queue_work(container->engine->loop, &call->work, find_work, find_done);
}

/* --- terminal --------------------------------------------------------------------------------- */

static void tell_resize(const struct container *container, const struct api_container_resize *size)
{
    _cleanup_free_ char *height = xasprintf("%u", (unsigned)size->rows);
    _cleanup_free_ char *width = xasprintf("%u", (unsigned)size->columns);

    event_container(container, "resize",
                    (struct event_attribute[]){{"height", height}, {"width", width}, {NULL, NULL}});
}

/* What has no terminal has no size: nothing is to be done, as docker has it. */
static void on_resize_reply(const struct link_message *message, void *data)
{
    struct stream_call *call = data;
    _cleanup_error_ struct error err = ERROR_INIT;

    if (message->type == MONITOR_OK || link_error(message, &err) == -ENOTTY)
        give_stream(call->done, call->data, -1, false);
    else
        engine_fail(call->done, call->data, &err);
    free(call);
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
    link_request(container->link, MONITOR_RESIZE, &resize, sizeof(resize), NULL, 0, on_resize_reply,
                 new_call(done, data, -1, false));
}
