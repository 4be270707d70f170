#include "usb_link.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <base/alloc.h>
#include <base/buffer.h>
#include <base/socket.h>
#include <base/text.h>

enum {
    READ_BYTES = 64 * 1024,
    READS_AT_ONCE = 4,
    SECOND_MS = 1000,
    WAITING_TIMES = 4, /* the patience with what may have to wait for the stick */
    HANDLES = 2,
    CODE_MAX = 4095,           /* errno(3) as the kernel's calls return it */
    BYTES_A_SECOND = 16 << 20, /* a process that says more is not what it was */
    MESSAGES_A_SECOND = 4096,  /* the findings of a check are 1000 */
};

struct request {
    struct request *next;
    uint64_t id;
    bool is_limited;
    unsigned seconds; /* that are left for the answer, if so */
    usb_link_reply reply;
    void *data;
};

/* A line that could not be sent yet. */
struct waiting {
    struct waiting *next;
    char *text; /* owned */
    size_t length, sent;
    int fd; /* owned, until the first byte is sent */
};

struct usb_link {
    int fd;
    uv_poll_t poll;
    uv_timer_t clock; /* of seconds, while there are open requests */
    unsigned patience;
    const struct usb_link_handlers *handlers;
    void *data;
    uint64_t next_id;
    struct request *requests;
    unsigned requests_count;
    struct waiting *waiting, **waiting_end;
    struct buffer input;
    uint64_t second_ms; /* when this second began, in which came: */
    size_t bytes, messages;
    unsigned calls;  /* of handlers and replies under way */
    bool broken;     /* closed() has been called or is about to be */
    unsigned closed; /* handles */
    bool destroyed;  /* freed then, when all of them are closed, too */
};

/* --- the end ---------------------------------------------------------------------------------- */

static void release(struct usb_link *link)
{
    if (link->calls || link->closed < HANDLES || !link->destroyed)
        return;
    buffer_finish(&link->input);
    free(link);
}

static void on_closed(uv_handle_t *handle)
{
    struct usb_link *link = handle->data;

    link->closed++;
    release(link);
}

static void drop_waiting(struct usb_link *link)
{
    while (link->waiting) {
        struct waiting *first = link->waiting;
        link->waiting = first->next;
        close_fd(first->fd);
        free(first->text);
        free(first);
    }
    link->waiting_end = &link->waiting;
}

static void answer_all(struct usb_link *link, const struct error *err)
{
    while (link->requests) {
        struct request *request = link->requests;
        link->requests = request->next;
        link->requests_count--;
        if (request->reply)
            request->reply(err, NULL, request->data);
        free(request);
    }
}

static void shut(struct usb_link *link, const struct error *err)
{
    if (link->fd < 0)
        return;
    uv_poll_stop(&link->poll);
    uv_close((uv_handle_t *)&link->poll, on_closed);
    uv_close((uv_handle_t *)&link->clock, on_closed);
    close_fd(steal_fd(&link->fd));
    drop_waiting(link);
    link->calls++;
    answer_all(link, err);
    link->calls--;
}

static void lose(struct usb_link *link, const char *why, bool is_late)
{
    _cleanup_error_ struct error err = ERROR_INIT;

    if (link->broken || link->destroyed)
        return;
    link->broken = true;
    if (is_late)
        error_set(&err, -ETIMEDOUT, "the process of the stick %s", why);
    else
        error_set(&err, -ENODEV, "the process of the stick has ended: %s", why);
    shut(link, &err);
    link->calls++;
    if (!link->destroyed)
        link->handlers->closed(why, is_late, link->data);
    link->calls--;
    release(link);
}

void usb_link_destroy(struct usb_link *link)
{
    _cleanup_error_ struct error err = ERROR_INIT;

    if (!link)
        return;
    link->destroyed = true;
    error_set(&err, -ECANCELED, "the stick is let go of");
    shut(link, &err);
    release(link);
}

/* --- what comes ------------------------------------------------------------------------------- */

static void take_refusal(const struct usb_stick_failure *from, struct error *err)
{
    _cleanup_free_ char *message = text_make_harmless(xstrdup(from->message), "");
    _cleanup_free_ char *hint = from->hint ? text_make_harmless(xstrdup(from->hint), "") : NULL;

    bool is_code = from->code < 0 && from->code >= -CODE_MAX;

    error_set(err, is_code ? from->code : -EPROTO, "%s", message);
    if (hint)
        error_hint(err, "%s", hint);
}

static void take_answer(struct usb_link *link, const struct usb_stick_message *message)
{
    _cleanup_error_ struct error err = ERROR_INIT;

    for (struct request **at = &link->requests; *at; at = &(*at)->next) {
        struct request *request = *at;
        if (request->id != message->id)
            continue;
        *at = request->next;
        link->requests_count--;
        if (message->error)
            take_refusal(message->error, &err);
        if (request->reply)
            request->reply(message->error ? &err : NULL, message->result, request->data);
        free(request);
        return;
    }
}

static int take_line(struct usb_link *link, const char *text, size_t length)
{
    _cleanup_usb_stick_message_ struct usb_stick_message *message = NULL;

    if (usb_stick_message_parse(text, length, "message", &message, NULL) < 0)
        return -EBADMSG;
    if (message->event)
        link->handlers->event(message->event, link->data);
    else if (message->has_id)
        take_answer(link, message);
    return 0;
}

/* What each costs the loop is the other end's to choose. */
static bool is_too_much(struct usb_link *link, size_t bytes, size_t messages)
{
    uint64_t now = uv_now(link->poll.loop);

    if (now - link->second_ms >= SECOND_MS) {
        link->second_ms = now;
        link->bytes = link->messages = 0;
    }
    link->bytes += bytes;
    link->messages += messages;
    return link->bytes > BYTES_A_SECOND || link->messages > MESSAGES_A_SECOND;
}

static int take_lines(struct usb_link *link)
{
    size_t from = 0;
    int r = 0;

    while (r == 0 && !link->destroyed) {
        const char *start = link->input.data + from;
        const char *end =
            link->input.length > from ? memchr(start, '\n', link->input.length - from) : NULL;
        if (!end)
            break;
        r = is_too_much(link, (size_t)(end - start), 1)
                ? -ENOBUFS
                : take_line(link, start, (size_t)(end - start));
        from += (size_t)(end - start) + 1;
    }
    buffer_consume(&link->input, from);
    return r == 0 && link->input.length > USB_LINK_LINE_MAX ? -EMSGSIZE : r;
}

/* 0: there is no more now. */
static int read_some(struct usb_link *link)
{
    for (int i = 0; i < READS_AT_ONCE && !link->destroyed && link->fd >= 0; i++) {
        buffer_reserve(&link->input, READ_BYTES);
        ssize_t size = read(link->fd, link->input.data + link->input.length, READ_BYTES);
        if (size < 0 && (errno == EAGAIN || errno == EINTR))
            return 0;
        if (size <= 0)
            return size < 0 ? -errno : -EPIPE;
        link->input.length += (size_t)size;
        int r = take_lines(link);
        if (r < 0)
            return r;
    }
    return 0;
}

/* --- what goes -------------------------------------------------------------------------------- */

static int flush(struct usb_link *link)
{
    while (link->waiting) {
        struct waiting *first = link->waiting;
        ssize_t size = socket_send_now(link->fd, first->text + first->sent,
                                       first->length - first->sent, &first->fd, first->fd >= 0);
        if (size == -EAGAIN || size == -EINTR)
            return 0;
        if (size < 0)
            return (int)size;
        close_fd(steal_fd(&first->fd));
        first->sent += (size_t)size;
        if (first->sent < first->length)
            continue;
        link->waiting = first->next;
        if (!link->waiting)
            link->waiting_end = &link->waiting;
        free(first->text);
        free(first);
    }
    return 0;
}

static void on_ready(uv_poll_t *poll, int status, int events);

static void watch(struct usb_link *link)
{
    if (link->fd >= 0)
        uv_poll_start(&link->poll, UV_READABLE | (link->waiting ? UV_WRITABLE : 0), on_ready);
}

static void on_ready(uv_poll_t *poll, int status, int events)
{
    struct usb_link *link = poll->data;

    link->calls++;
    int r = status < 0 ? status : read_some(link);
    if (r == 0 && link->fd >= 0 && !link->destroyed)
        r = flush(link);
    link->calls--;
    if (r < 0)
        lose(link, strerror(-r), false);
    else
        watch(link);
    release(link);
}

/* --- what does not come ----------------------------------------------------------------------- */

static unsigned seconds_for(const struct usb_link *link, const struct usb_stick_request *request)
{
    if (request->format || request->check || request->eject || request->end)
        return 0;
    return request->status || request->cancel ? link->patience : link->patience * WAITING_TIMES;
}

bool usb_link_is_open(const struct usb_link *link)
{
    return link->fd >= 0 && !link->destroyed;
}

/* Seconds are counted and not looked up: while all of the machine stood still, there were none. */
static void on_second(uv_timer_t *clock)
{
    struct usb_link *link = clock->data;
    bool is_late = false;

    link->calls++;
    for (struct request *request = link->requests; request; request = request->next)
        is_late |= request->seconds && --request->seconds == 0;
    int r = is_late ? read_some(link) : 0; /* it may have come by now */
    is_late = false;
    for (struct request *request = usb_link_is_open(link) ? link->requests : NULL; request;
         request = request->next)
        is_late |= request->seconds == 0 && request->is_limited;
    link->calls--;
    if (r < 0)
        lose(link, strerror(-r), false);
    else if (is_late)
        lose(link, "does not answer", true);
    else if (usb_link_is_open(link) && !link->requests)
        uv_timer_stop(clock);
    release(link);
}

static void count_seconds(struct usb_link *link)
{
    if (usb_link_is_open(link) && !uv_is_active((uv_handle_t *)&link->clock))
        uv_timer_start(&link->clock, on_second, SECOND_MS, SECOND_MS);
}

void usb_link_hurry(struct usb_link *link, uint64_t id, unsigned seconds)
{
    for (struct request *request = link->requests; request; request = request->next) {
        if (request->id != id || (request->is_limited && request->seconds <= seconds))
            continue;
        request->seconds = seconds;
        request->is_limited = true;
    }
}

/* ---------------------------------------------------------------------------------------------- */

uint64_t usb_link_request(struct usb_link *link, struct usb_stick_request *request, int fd,
                          usb_link_reply reply, void *data)
{
    struct waiting *line = xnew(struct waiting);
    struct request *open = xnew(struct request);
    struct buffer text = BUFFER_INIT;

    line->fd = fd >= 0 ? fcntl(fd, F_DUPFD_CLOEXEC, 0) : -1;
    request->version = 1;
    request->id = ++link->next_id;
    request->fds = line->fd >= 0; /* without what could not be copied it is refused */
    request->has_fds = line->fd >= 0;
    usb_stick_request_write(request, &text);
    buffer_append_char(&text, '\n');
    line->length = text.length;
    line->text = buffer_steal(&text);
    *link->waiting_end = line;
    link->waiting_end = &line->next;
    open->id = request->id;
    open->seconds = seconds_for(link, request);
    open->is_limited = open->seconds > 0;
    open->reply = reply;
    open->data = data;
    open->next = link->requests;
    link->requests = open;
    link->requests_count++;
    if (link->fd < 0) /* it is being lost: this is answered with the others */
        drop_waiting(link);
    else if (link->requests_count > USB_LINK_REQUESTS_MAX) /* it does not answer: it ends, later */
        shutdown(link->fd, SHUT_RDWR);
    watch(link);
    count_seconds(link);
    return request->id;
}

int usb_link_connect(uv_loop_t *loop, const char *path, unsigned patience,
                     const struct usb_link_handlers *handlers, void *data, struct usb_link **ret,
                     struct error *err)
{
    int fd = socket_connect_unix(path, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, err);

    if (fd < 0)
        return fd;
    struct usb_link *link = xnew(struct usb_link);
    link->fd = fd;
    link->handlers = handlers;
    link->data = data;
    link->waiting_end = &link->waiting;
    link->poll.data = link;
    link->patience = patience;
    link->clock.data = link;
    uv_timer_init(loop, &link->clock);
    uv_unref((uv_handle_t *)&link->clock);
    uv_poll_init(loop, &link->poll, fd);
    watch(link);
    *ret = link;
    return 0;
}
