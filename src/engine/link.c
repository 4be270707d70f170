#include <errno.h>
#include <stdbool.h>
#include <string.h>
#include <sys/socket.h>

#include <base/alloc.h>
#include <base/socket.h>

#include "link.h"

/* Requests a monitor owes an answer; each waiter of the engine stands behind at most one. */
enum { LINK_REQUESTS_MAX = 1024 };

struct open_request {
    struct open_request *next;
    uint32_t number;
    link_reply reply;
    void *data;
};

struct link {
    uv_poll_t poll;
    int fd;
    const struct link_handlers *handlers;
    void *data;
    struct open_request *open;
    size_t open_count;
    uint32_t last_number;
    unsigned version;
    bool dead;      /* nothing is sent or received any more */
    bool destroyed; /* the owner is done with it */
};

static void on_closed(uv_handle_t *handle)
{
    struct link *link = handle->data;

    close_fd(link->fd);
    free(link);
}

static void answer_all_with_nothing(struct link *link)
{
    struct link_message nothing = {0};

    while (link->open) {
        struct open_request *request = link->open;
        link->open = request->next;
        if (request->reply)
            request->reply(&nothing, request->data);
        free(request);
    }
    link->open_count = 0;
}

static void die(struct link *link)
{
    if (link->dead)
        return;
    link->dead = true;
    uv_poll_stop(&link->poll);
    answer_all_with_nothing(link);
    if (!link->destroyed)
        link->handlers->closed(link->data);
}

static void deliver_answer(struct link *link, uint32_t number, const struct link_message *message)
{
    for (struct open_request **at = &link->open; *at; at = &(*at)->next) {
        struct open_request *request = *at;
        if (request->number != number)
            continue;
        *at = request->next;
        link->open_count--;
        if (request->reply)
            request->reply(message, request->data);
        free(request);
        return;
    }
}

static void deliver_event(struct link *link, const struct link_message *message)
{
    const void *event;

    if ((event = link_payload(message, MONITOR_EXITED, sizeof(struct monitor_exited)))) {
        link->handlers->exited(event, link->data);
    } else if ((event = link_payload(message, MONITOR_STARTED, sizeof(struct monitor_pid)))) {
        link->handlers->started(event, link->data);
    } else if ((event =
                    link_payload(message, MONITOR_RESTARTING, sizeof(struct monitor_restarting)))) {
        link->handlers->restarting(event, link->data);
    } else if ((event = link_payload(message, MONITOR_HEALTH, sizeof(struct monitor_health)))) {
        link->handlers->health(event, link->data);
    } else if ((event = link_payload(message, MONITOR_EXEC_EXITED,
                                     sizeof(struct monitor_exec_exited)))) {
        struct monitor_exec_exited copy = *(const struct monitor_exec_exited *)event;
        copy.id[MONITOR_ID_SIZE - 1] = '\0';
        link->handlers->exec_exited(&copy, link->data);
    } else if ((event = link_payload(message, MONITOR_EXEC_RUNNING,
                                     sizeof(struct monitor_exec_running)))) {
        struct monitor_exec_running copy = *(const struct monitor_exec_running *)event;
        copy.id[MONITOR_ID_SIZE - 1] = '\0';
        link->handlers->exec_running(&copy, link->data);
    } else if ((event = link_payload(message, MONITOR_DETACHED, sizeof(struct monitor_detached)))) {
        struct monitor_detached copy = *(const struct monitor_detached *)event;
        copy.exec[MONITOR_ID_SIZE - 1] = '\0';
        link->handlers->detached(&copy, link->data);
    }
}

/* One packet. Returns false when there is none, or the link died. */
static bool receive(struct link *link)
{
    union {
        struct monitor_header header;
        uint64_t aligned[MONITOR_MESSAGE_MAX / sizeof(uint64_t)];
    } packet;
    size_t fds_count = 0;

    ssize_t n = socket_receive(link->fd, &packet, sizeof(packet), NULL, &fds_count);
    if (n == -EAGAIN || n == -EINTR)
        return false;
    if (n < (ssize_t)sizeof(packet.header) || packet.header.magic != MONITOR_MAGIC ||
        packet.header.length != (size_t)n - sizeof(packet.header)) {
        die(link);
        return false;
    }
    struct link_message message = {
        .type = packet.header.type,
        .payload = &packet.aligned[sizeof(packet.header) / sizeof(uint64_t)],
        .length = packet.header.length,
    };
    if (packet.header.request)
        deliver_answer(link, packet.header.request, &message);
    else
        deliver_event(link, &message);
    return !link->dead && !link->destroyed;
}

static void on_readable(uv_poll_t *poll, int status, int events)
{
    struct link *link = poll->data;

    /* A few packets at a time, so that one monitor cannot keep the loop. */
    for (int i = 0; i < 32 && receive(link); i++)
        ;
}

int link_create(uv_loop_t *loop, int fd, const struct link_handlers *handlers, void *data,
                struct link **ret, struct error *err)
{
    struct link *link = xnew(struct link);

    link->fd = fd;
    link->handlers = handlers;
    link->data = data;
    link->version = MONITOR_PROTOCOL_VERSION;
    int r = uv_poll_init(loop, &link->poll, fd);
    if (r < 0) {
        close_fd(fd);
        free(link);
        return error_errno(err, -r, "watch the monitor's socket");
    }
    link->poll.data = link;
    uv_poll_start(&link->poll, UV_READABLE, on_readable);
    *ret = link;
    return 0;
}

unsigned link_version(const struct link *link)
{
    return link->version;
}

void link_set_version(struct link *link, unsigned version)
{
    link->version = version;
}

void link_destroy(struct link *link)
{
    if (!link || link->destroyed)
        return;
    link->destroyed = true;
    die(link);
    uv_close((uv_handle_t *)&link->poll, on_closed);
}

static bool send_packet(struct link *link, const struct monitor_header *header, const void *payload,
                        const int *fds, size_t fds_count)
{
    uint8_t packet[MONITOR_MESSAGE_MAX];

    memcpy(packet, header, sizeof(*header));
    if (header->length)
        memcpy(packet + sizeof(*header), payload, header->length);
    ssize_t n = socket_send(link->fd, packet, sizeof(*header) + header->length, fds, fds_count);
    return n >= 0;
}

void link_request(struct link *link, enum monitor_type type, const void *payload, size_t length,
                  const int *fds, size_t fds_count, link_reply reply, void *data)
{
    struct link_message nothing = {0};
    struct monitor_header header = {
        .magic = MONITOR_MAGIC,
        .version = (uint16_t)link->version,
        .type = (uint16_t)type,
        .length = (uint32_t)length,
    };

    if (++link->last_number == 0)
        link->last_number = 1;
    header.request = link->last_number;
    /* A monitor that does not read its socket empty is as good as lost for this request: EAGAIN is
     * an answer without content too. */
    if (link->dead || link->open_count >= LINK_REQUESTS_MAX ||
        length > MONITOR_MESSAGE_MAX - sizeof(header) ||
        !send_packet(link, &header, payload, fds, fds_count)) {
        if (reply)
            reply(&nothing, data);
        return;
    }
    struct open_request *request = xnew(struct open_request);
    *request = (struct open_request){link->open, header.request, reply, data};
    link->open = request;
    link->open_count++;
}

const void *link_payload(const struct link_message *message, enum monitor_type type, size_t size)
{
    return message->type == type && message->length >= size ? message->payload : NULL;
}

bool link_status(const struct link_message *message, struct monitor_status *ret)
{
    if (message->type != MONITOR_OK || message->length < MONITOR_STATUS_SIZE_1)
        return false;
    *ret = (struct monitor_status){0};
    memcpy(ret, message->payload,
           message->length < sizeof(*ret) ? MONITOR_STATUS_SIZE_1 : sizeof(*ret));
    return true;
}

int link_error(const struct link_message *message, struct error *err)
{
    const struct monitor_error *error = NULL;

    if (message->type == MONITOR_ERROR || message->type == MONITOR_START_FAILED)
        error = link_payload(message, message->type, sizeof(*error));
    if (!error)
        return error_set(err, -EIO, "the container's monitor did not answer");
    int length = (int)(message->length - sizeof(*error));
    int code = error->code ? error->code : -EIO;
    return error_set(err, code, "%.*s", length, error->text);
}
