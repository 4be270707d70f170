/*
 * Streams of clients. Those of the container, attached or following, are readers of its log: each
 * has a place in the file and is sent what comes after it as it can take it, so that a slow one
 * costs no memory, loses nothing and holds nobody up. The client of an exec session, which has no
 * log, gets the output directly; while it has no room, the session's output is not read.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/sendfile.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

#include <base/alloc.h>

#include "monitor_internal.h"

enum {
    FRAME_HEADER_SIZE = 8,
    BATCH_LINES = 32, /* lines of the log sent in one call */
    PUMP_ROUNDS = 16, /* calls for one client before others get their turn */
    FOLLOW_CHUNK = 256 * 1024,
    DISCARD_ROUNDS = 256,    /* more than a socket's buffer */
    INPUT_CHUNK = 16 * 1024, /* of a client's input; the size of a session's pending input */
};

static void put_frame_header(unsigned char *header, enum stream stream, size_t length)
{
    memset(header, 0, FRAME_HEADER_SIZE);
    header[0] = (unsigned char)stream;
    header[4] = (unsigned char)(length >> 24);
    header[5] = (unsigned char)(length >> 16);
    header[6] = (unsigned char)(length >> 8);
    header[7] = (unsigned char)length;
}

/* How much of the log it is still to get, from its place in its file on. */
static uint64_t left_in_log(const struct monitor *monitor, const struct client *client)
{
    uint64_t end = container_log_end(&monitor->log), place;

    if (!client->file)
        return 0;
    place = client->file->start + client->offset;
    if (end > client->until)
        end = client->until;
    return place < end ? end - place : 0;
}

static bool is_owed(const struct monitor *monitor, const struct client *client)
{
    return client->pending || left_in_log(monitor, client);
}

/* Whether it has had all that it will ever get. */
static bool is_served(const struct monitor *monitor, const struct client *client)
{
    return client->file && client->until != UINT64_MAX && !is_owed(monitor, client);
}

/* Whether its input may still bring something to somebody. */
static bool has_input(const struct client *client)
{
    return (client->flags & MONITOR_ATTACH_STDIN) && !client->input_ended && client->session &&
           session_input_open(client->session);
}

static void update_events(struct monitor *monitor, struct client *client)
{
    /* EPOLLHUP is always told: asked for, so that there is something. One who is gone is only read
     * out: then nothing may be asked while there is no room. */
    uint32_t events = client->gone ? 0 : EPOLLHUP;

    if (has_input(client) && session_takes_input(client->session))
        events |= EPOLLIN;
    if (!client->gone && is_owed(monitor, client))
        events |= EPOLLOUT;
    watch_set(monitor->epoll_fd, &client->watch, events);
}

/* Unread input at close(2) would reach the other side as ECONNRESET in place of the end. */
static void discard_input(int fd)
{
    char data[4096];

    shutdown(fd, SHUT_RDWR);
    for (int i = 0; i < DISCARD_ROUNDS && recv(fd, data, sizeof(data), MSG_DONTWAIT) > 0; i++)
        ;
}

static void client_free(struct monitor *monitor, struct client *client)
{
    struct client **at = &monitor->clients;

    while (*at != client)
        at = &(*at)->next;
    *at = client->next;
    monitor->clients_count--;
    discard_input(client->watch.fd);
    watch_close(monitor->epoll_fd, &client->watch);
    log_file_unref(client->file);
    free(client->pending);
    free(client);
}

bool clients_hold_log(const struct monitor *monitor)
{
    for (const struct client *client = monitor->clients; client; client = client->next) {
        if (client->kind == CLIENT_ATTACH && !client->gone && is_owed(monitor, client) &&
            container_log_goes_next(&monitor->log, client->file))
            return true;
    }
    return false;
}

bool clients_watch_log(const struct monitor *monitor)
{
    for (const struct client *client = monitor->clients; client; client = client->next) {
        if (client->kind == CLIENT_ATTACH && !client->gone)
            return true;
    }
    return false;
}

/* What the container writes was not read for the sake of one that has moved on now, or left. */
static void release_log(struct monitor *monitor)
{
    if (!monitor->log.held || clients_hold_log(monitor))
        return;
    monitor->log.held = false;
    session_resume_output(monitor, &monitor->container);
}

/* A client's end of input is the sandbox's, where that is wanted. May free clients that have gone.
 */
static void pass_input_end(struct monitor *monitor, struct session *session, uint32_t flags)
{
    if (session && (flags & MONITOR_ATTACH_STDIN) && session->stdin_once)
        session_end_input(monitor, session);
}

static void client_drop(struct monitor *monitor, struct client *client)
{
    struct session *session = client->session;
    uint32_t flags = client->flags;
    bool exec = client->kind == CLIENT_EXEC;

    client_free(monitor, client);
    pass_input_end(monitor, session, flags);
    release_log(monitor);
    if (exec && session)
        session_resume_output(monitor, session);
}

int client_add(struct monitor *monitor, enum client_kind kind, struct session *session,
               uint32_t flags, const struct log_place *at, int fd, struct error *err)
{
    int type = 0;
    socklen_t length = sizeof(type);

    if (monitor->clients_count >= MONITOR_CLIENTS_MAX) {
        close_fd(fd);
        return error_set(err, -EMFILE, "there are %d attached clients already",
                         MONITOR_CLIENTS_MAX);
    }
    if (getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &length) < 0 || type != SOCK_STREAM) {
        close_fd(fd);
        return error_set(err, -ENOTSOCK, "the stream is not a stream socket");
    }
    fcntl(fd, F_SETFL, O_NONBLOCK | O_RDWR); /* sendfile(2) has no flag for it */
    struct client *client = xnew(struct client);
    *client = (struct client){.next = monitor->clients,
                              .watch = WATCH_INIT,
                              .kind = kind,
                              .session = session,
                              .flags = flags,
                              .offset = at->offset,
                              .until = at->until};
    if (at->file)
        client->file = log_file_ref(at->file);
    int r = watch_add(monitor->epoll_fd, &client->watch, WATCH_CLIENT, fd, EPOLLHUP);
    if (r < 0) {
        log_file_unref(client->file);
        free(client);
        return error_errno(err, -r, "watch the stream");
    }
    monitor->clients = client;
    monitor->clients_count++;
    update_events(monitor, client);
    return 0;
}

/* The other side has closed; what it wrote before may still be on its way in. */
static void client_left(struct monitor *monitor, struct client *client)
{
    struct session *session = client->session;

    if (!has_input(client)) {
        client_drop(monitor, client);
        return;
    }
    client->gone = true;
    free(steal_ptr(client->pending));
    update_events(monitor, client);
    release_log(monitor);
    if (client->kind == CLIENT_EXEC)
        session_resume_output(monitor, session);
}

/* Something could not be sent: nobody reads it any more, or the log cannot be read. */
static void client_failed(struct monitor *monitor, struct client *client, int code)
{
    if (code == -EPIPE || code == -ECONNRESET)
        client_left(monitor, client);
    else
        client_drop(monitor, client);
}

/* ---- direct: exec sessions, and the container's output while the log cannot be written ---- */

static int send_pending(struct client *client)
{
    while (client->pending) {
        ssize_t n = send(client->watch.fd, client->pending + client->at,
                         client->length - client->at, MSG_DONTWAIT | MSG_NOSIGNAL);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return -errno;
        client->at += (size_t)n;
        if (client->at == client->length)
            free(steal_ptr(client->pending));
    }
    return 0;
}

/* What is not taken at once becomes pending. */
static int send_direct(struct client *client, bool framed, enum stream stream, const char *data,
                       size_t length)
{
    unsigned char header[FRAME_HEADER_SIZE];
    size_t head = framed ? sizeof(header) : 0;
    struct iovec vectors[2] = {
        {.iov_base = header, .iov_len = head},
        {.iov_base = (void *)(uintptr_t)data, .iov_len = length},
    };
    struct msghdr message = {.msg_iov = vectors, .msg_iovlen = 2};

    put_frame_header(header, stream, length);
    ssize_t n = sendmsg(client->watch.fd, &message, MSG_DONTWAIT | MSG_NOSIGNAL);
    if (n < 0 && errno != EAGAIN && errno != EINTR)
        return -errno;
    size_t sent = n < 0 ? 0 : (size_t)n;
    if (sent == head + length)
        return 0;
    client->pending = xmalloc(head + length);
    memcpy(client->pending, header, head);
    memcpy(client->pending + head, data, length);
    client->length = head + length;
    client->at = sent;
    return 0;
}

static struct client *exec_client(const struct monitor *monitor, const struct session *session)
{
    struct client *client = monitor->clients;

    while (client && (client->kind != CLIENT_EXEC || client->session != session || client->gone))
        client = client->next;
    return client;
}

bool clients_exec_blocked(const struct monitor *monitor, const struct session *session)
{
    const struct client *client = exec_client(monitor, session);

    return client && client->pending;
}

static bool wants(const struct client *client, enum stream stream)
{
    return client->flags &
           (stream == STREAM_STDERR ? MONITOR_ATTACH_STDERR : MONITOR_ATTACH_STDOUT);
}

void clients_send_exec(struct monitor *monitor, struct session *session, enum stream stream,
                       const char *data, size_t length)
{
    struct client *client = exec_client(monitor, session);

    if (!client || !wants(client, stream))
        return; /* gone: its process runs on and may print */
    int r = send_direct(client, !session->tty, stream, data, length);
    if (r < 0) {
        client_failed(monitor, client, r);
        return;
    }
    if (client->pending) {
        session_pause_output(monitor, session);
        update_events(monitor, client);
    }
}

/* The end of one client's input may be the end of others that have gone: then the one behind it may
 * not be there any more, and all are looked at again. */
static struct client *next_after(const struct monitor *monitor, size_t count, struct client *next)
{
    return monitor->clients_count == count ? next : monitor->clients;
}

void clients_bypass_log(struct monitor *monitor, enum stream stream, const char *data,
                        size_t length)
{
    struct client *next;

    for (struct client *client = monitor->clients; client; client = next) {
        size_t count = monitor->clients_count;
        next = client->next;
        if (client->kind != CLIENT_ATTACH || client->gone || !wants(client, stream) ||
            is_owed(monitor, client))
            continue;
        int r = send_direct(client, !monitor->options->tty, stream, data, length);
        if (r < 0)
            client_failed(monitor, client, r);
        else
            update_events(monitor, client);
        next = next_after(monitor, count, next);
    }
}

/* ---- from the log ---- */

struct line {
    const char *text; /* with its newline for a full line */
    size_t text_length;
    size_t head;        /* FRAME_HEADER_SIZE or 0 */
    size_t file_length; /* what it takes in the log */
};

struct batch {
    struct line lines[BATCH_LINES];
    unsigned char headers[BATCH_LINES][FRAME_HEADER_SIZE];
    size_t count;
};

/* A line of another shape than ours (cut by a crash, edited by hand) shows nothing. */
static void parse_line(const struct client *client, bool framed, const char *data, size_t length,
                       struct line *line, unsigned char *header)
{
    const char *stream = data + LOG_PREFIX_LENGTH - 9, *tag = data + LOG_PREFIX_LENGTH - 2;

    *line = (struct line){.text = data, .file_length = length};
    if (length <= LOG_PREFIX_LENGTH || data[LOG_PREFIX_LENGTH - 1] != ' ' ||
        (*tag != 'F' && *tag != 'P'))
        return;
    bool is_stderr = memcmp(stream, "stderr", 6) == 0;
    if (!wants(client, is_stderr ? STREAM_STDERR : STREAM_STDOUT))
        return;
    line->text = data + LOG_PREFIX_LENGTH;
    line->text_length = length - LOG_PREFIX_LENGTH - (*tag == 'P');
    line->head = framed && line->text_length ? FRAME_HEADER_SIZE : 0;
    put_frame_header(header, is_stderr ? STREAM_STDERR : STREAM_STDOUT, line->text_length);
}

/* Whole lines of data, as many as fit. */
static void parse_batch(const struct client *client, bool framed, const char *data, size_t length,
                        struct batch *batch)
{
    batch->count = 0;
    while (length && batch->count < BATCH_LINES) {
        const char *newline = memchr(data, '\n', length);
        if (!newline && batch->count)
            return;
        /* No newline in a full buffer: nothing of ours; skipped. */
        size_t piece = newline ? (size_t)(newline - data) + 1 : length;
        parse_line(client, framed, data, piece, &batch->lines[batch->count],
                   batch->headers[batch->count]);
        batch->count++;
        data += piece;
        length -= piece;
    }
}

/* Appends what of [data, data + length) lies behind the first *skip bytes. */
static void add_vector(struct iovec *vectors, size_t *count, const void *data, size_t length,
                       size_t *skip)
{
    size_t cut = *skip < length ? *skip : length;

    *skip -= cut;
    if (length > cut)
        vectors[(*count)++] =
            (struct iovec){.iov_base = (char *)(uintptr_t)data + cut, .iov_len = length - cut};
}

/* Sends the batch from client->sent on; moves the client's place by what was taken. */
static int send_batch(struct client *client, struct batch *batch)
{
    struct iovec vectors[2 * BATCH_LINES];
    struct msghdr message = {.msg_iov = vectors};
    size_t count = 0, skip = client->sent;
    ssize_t n = 0;

    for (size_t i = 0; i < batch->count; i++) {
        add_vector(vectors, &count, batch->headers[i], batch->lines[i].head, &skip);
        add_vector(vectors, &count, batch->lines[i].text, batch->lines[i].text_length, &skip);
    }
    message.msg_iovlen = count;
    if (count)
        n = sendmsg(client->watch.fd, &message, MSG_DONTWAIT | MSG_NOSIGNAL);
    if (n < 0)
        return -errno;
    size_t taken = client->sent + (size_t)n;
    client->sent = 0;
    for (size_t i = 0; i < batch->count; i++) {
        size_t shown = batch->lines[i].head + batch->lines[i].text_length;
        if (taken < shown) {
            client->sent = taken;
            return 0;
        }
        taken -= shown;
        client->offset += batch->lines[i].file_length;
    }
    return 0;
}

static bool in_middle_of_line(const struct client *client)
{
    char before = '\n';

    return client->offset && client->offset < client->file->size &&
           pread(client->file->fd, &before, 1, (off_t)client->offset - 1) == 1 && before != '\n';
}

/* A follower that leaves a file early ends the line that it is in. */
static void enter_next_file(struct client *client)
{
    struct log_file *next = log_file_ref(client->file->next);

    if (client->kind == CLIENT_FOLLOW && in_middle_of_line(client)) {
        client->pending = xstrdup("\n");
        client->length = 1;
        client->at = 0;
    }
    log_file_unref(client->file);
    client->file = next;
    client->offset = 0;
    client->sent = 0;
}

/* What is left of the client's file for it; moves it on to the next file. */
static uint64_t left_in_file(const struct monitor *monitor, struct client *client)
{
    uint64_t left = left_in_log(monitor, client);

    /* A follower does not keep a deleted file alive. */
    while (client->file->next &&
           (client->offset >= client->file->size ||
            (client->kind == CLIENT_FOLLOW && container_log_gone(&monitor->log, client->file)))) {
        enter_next_file(client);
        left = left_in_log(monitor, client);
    }
    uint64_t in_file = client->file->size - client->offset;
    return left < in_file ? left : in_file;
}

static int pump_attach(struct monitor *monitor, struct client *client)
{
    uint64_t left = left_in_file(monitor, client);
    struct batch batch;

    ssize_t n = pread(client->file->fd, monitor->scratch->io,
                      left < IO_BUFFER_SIZE ? left : IO_BUFFER_SIZE, (off_t)client->offset);
    if (n <= 0)
        return n < 0 ? -errno : -EIO;
    parse_batch(client, !monitor->options->tty, monitor->scratch->io, (size_t)n, &batch);
    return send_batch(client, &batch);
}

static int pump_follow(struct monitor *monitor, struct client *client)
{
    uint64_t left = left_in_file(monitor, client);
    off_t offset = (off_t)client->offset;

    if (client->pending || left == 0)
        return send_pending(client);
    ssize_t n = sendfile(client->watch.fd, client->file->fd, &offset,
                         left < FOLLOW_CHUNK ? left : FOLLOW_CHUNK);
    if (n <= 0)
        return n < 0 ? -errno : -EIO;
    client->offset = (uint64_t)offset;
    return 0;
}

/* Sends as the client can take it. -EAGAIN: not now; other errors: it is gone. */
static int pump(struct monitor *monitor, struct client *client)
{
    int r = send_pending(client);

    for (int round = 0; r == 0 && round < PUMP_ROUNDS && is_owed(monitor, client); round++)
        r = client->kind == CLIENT_FOLLOW ? pump_follow(monitor, client)
                                          : pump_attach(monitor, client);
    return r == -EINTR ? 0 : r;
}

/* false: the client is gone. */
static bool serve(struct monitor *monitor, struct client *client)
{
    bool was_blocked = client->pending != NULL;
    int r = pump(monitor, client);

    if (r < 0 && r != -EAGAIN) {
        client_failed(monitor, client, r);
        return false;
    }
    if (client->kind == CLIENT_EXEC && !client->pending && !client->session) {
        client_free(monitor, client); /* its session is over and it has everything */
        return false;
    }
    if (is_served(monitor, client)) {
        client_free(monitor, client);
        release_log(monitor);
        return false;
    }
    if (client->kind == CLIENT_EXEC && was_blocked && !client->pending)
        session_resume_output(monitor, client->session);
    update_events(monitor, client);
    release_log(monitor);
    return true;
}

void clients_log_grew(struct monitor *monitor)
{
    struct client *next;

    for (struct client *client = monitor->clients; client; client = next) {
        size_t count = monitor->clients_count;
        next = client->next;
        /* Those that wait for EPOLLOUT come by themselves. */
        if (client->kind != CLIENT_EXEC && !client->gone && !(client->watch.events & EPOLLOUT))
            serve(monitor, client);
        next = next_after(monitor, count, next);
    }
}

/* ---- input ---- */

/* Nothing came: it has shut its half, or there is nothing now (errno). */
static void end_input(struct monitor *monitor, struct client *client, ssize_t n)
{
    if (n < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    if (client->gone) {
        client_drop(monitor, client);
        return;
    }
    client->input_ended = true;
    pass_input_end(monitor, client->session, client->flags);
    update_events(monitor, client);
}

void client_set_detach(struct client *client, const struct monitor_detach *detach)
{
    if (!client->session->tty || detach->count > MONITOR_DETACH_KEYS_MAX)
        return;
    client->detach.count = detach->count;
    memcpy(client->detach.keys, detach->keys, detach->count);
}

/* The client goes, its container's input stays as it is. */
static void detach(struct monitor *monitor, struct client *client)
{
    struct monitor_detached event = {0};

    memcpy(event.exec, client->session->id, sizeof(event.exec));
    client->flags &= ~(uint32_t)MONITOR_ATTACH_STDIN;
    client_drop(monitor, client);
    control_send_new(monitor, MONITOR_DETACHED, &event, sizeof(event));
}

static bool is_client(const struct monitor *monitor, const struct client *client)
{
    for (const struct client *at = monitor->clients; at; at = at->next) {
        if (at == client)
            return true;
    }
    return false;
}

/* As many keys as a person types at once: what is held back of the sequence needs room, too. */
static void read_typed(struct monitor *monitor, struct client *client)
{
    enum { TYPED_CHUNK = 1024 };
    struct session *session = client->session;
    unsigned char typed[TYPED_CHUNK], passed[TYPED_CHUNK + DETACH_KEYS_MAX];
    size_t length = 0;

    ssize_t n = recv(client->watch.fd, typed, sizeof(typed), MSG_DONTWAIT);
    if (n <= 0) {
        end_input(monitor, client, n);
        return;
    }
    bool detached = detach_keys_filter(&client->detach, typed, (size_t)n, passed, &length);
    if (length)
        session_write_input(monitor, session, (const char *)passed, length);
    /* Clients that had gone may have been freed meanwhile. */
    if (detached && is_client(monitor, client))
        detach(monitor, client);
}

static void read_input(struct monitor *monitor, struct client *client)
{
    struct session *session = client->session;

    if (client->detach.count) {
        read_typed(monitor, client);
        return;
    }
    ssize_t n = recv(client->watch.fd, monitor->scratch->io, INPUT_CHUNK, MSG_DONTWAIT);
    if (n <= 0)
        end_input(monitor, client, n);
    else
        session_write_input(monitor, session, monitor->scratch->io, (size_t)n);
}

void clients_input_changed(struct monitor *monitor, struct session *session)
{
    struct client *next;

    for (struct client *client = monitor->clients; client; client = next) {
        next = client->next;
        if (client->session != session)
            continue;
        if (client->gone && !has_input(client))
            client_free(monitor, client);
        else
            update_events(monitor, client);
    }
}

void client_ready(struct monitor *monitor, struct client *client, uint32_t events)
{
    monitor_use_scratch(monitor);
    if (events & EPOLLOUT) {
        deadline_touch(monitor, DEADLINE_LINGER, LINGER_MS);
        if (!serve(monitor, client))
            return;
    }
    if (events & EPOLLIN)
        read_input(monitor, client);
    else if (events & (EPOLLHUP | EPOLLERR))
        client_left(monitor, client);
}

/* ---- the end ---- */

void clients_session_over(struct monitor *monitor, struct session *session)
{
    struct client *next;

    for (struct client *client = monitor->clients; client; client = next) {
        next = client->next;
        if (client->session != session)
            continue;
        client->session = NULL;
        if (client->gone || (client->kind == CLIENT_EXEC && !client->pending))
            client_free(monitor, client);
        else
            update_events(monitor, client);
    }
}

bool clients_close_served(struct monitor *monitor)
{
    struct client *next;

    for (struct client *client = monitor->clients; client; client = next) {
        next = client->next;
        if (client->gone || !is_owed(monitor, client))
            client_free(monitor, client);
    }
    return monitor->clients != NULL;
}

/* Those that are attached get what this run wrote, and then their end. */
void clients_run_over(struct monitor *monitor)
{
    uint64_t end = container_log_end(&monitor->log);
    struct client *next;

    for (struct client *client = monitor->clients; client; client = next) {
        next = client->next;
        if (client->kind != CLIENT_ATTACH || client->until != UINT64_MAX)
            continue;
        client->until = end;
        client->session = NULL;
        if (client->gone || is_served(monitor, client))
            client_free(monitor, client);
        else
            update_events(monitor, client);
    }
    release_log(monitor);
}

void clients_finish(struct monitor *monitor)
{
    while (monitor->clients)
        client_free(monitor, monitor->clients);
}
