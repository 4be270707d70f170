/*
 * USB/IP: a client of protocol 1.1.1 (Linux, Documentation/usb/usbip_protocol.rst).
 *
 * Messages wait in a list until flush; answers are read into a small buffer, data that is longer
 * straight to where it belongs. A server that says what it must not is as good as gone.
 */
#include <usb/transport.h>

#include <errno.h>
#include <poll.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

#include <base/alloc.h>
#include <base/clock.h>

#include "usbip_import.h"
#include "wire.h"

enum {
    STAGE = 8 << 10, /* bytes that are read without knowing whose they are */
    BEST_TRANSFER = 128 << 10,
    UNLINK_MS = 2000, /* within that an unlink is answered, or else the server hangs */
    VECTORS = 64,     /* of one write */
};

/* On its way to the server: a header and perhaps data. */
struct message {
    struct message *next;
    uint8_t header[USBIP_HEADER];
    const void *data;
    size_t length, sent; /* length: of header and data */
    bool own;            /* freed once it is sent */
};

/* A transfer under way. */
struct pending {
    struct message message;
    struct usb_transfer *transfer;
    struct pending *next;
    uint32_t number, unlink; /* of the commands; unlink 0: not asked for */
    enum usb_status end;     /* when the unlink is answered */
    int64_t deadline;        /* 0: none */
};

struct usbip {
    struct usb_transport transport; /* first */
    int fd, epoll;
    void *epoll_data;
    _Atomic uint32_t events; /* what is waited for; 0: nothing, it is gone */
    uint32_t device, number;
    bool gone;
    struct message *messages, **messages_last;
    struct pending *pendings, **pendings_last;
    unsigned unlinks; /* not yet answered */

    uint8_t stage[STAGE];
    size_t stage_at, stage_end;
    struct pending *receiving; /* its data is being read */
    enum usb_status receiving_status;
    uint32_t received, to_receive;
};

static struct usbip *usbip_of(struct usb_transport *transport)
{
    return (struct usbip *)transport;
}

/* Sending. */

static void set_events(struct usbip *usbip)
{
    uint32_t events = usbip->gone ? 0 : EPOLLIN | (usbip->messages ? EPOLLOUT : 0);
    struct epoll_event event = {.events = events, .data.ptr = usbip->epoll_data};
    if (usbip->epoll < 0 || events == usbip->events)
        return;
    epoll_ctl(usbip->epoll, events ? EPOLL_CTL_MOD : EPOLL_CTL_DEL, usbip->fd, &event);
    usbip->events = events;
}

static void put(struct usbip *usbip, struct message *message)
{
    message->next = NULL;
    *usbip->messages_last = message;
    usbip->messages_last = &message->next;
}

static struct message *unput(struct usbip *usbip)
{
    struct message *message = usbip->messages;
    usbip->messages = message->next;
    if (!usbip->messages)
        usbip->messages_last = &usbip->messages;
    return message;
}

static void unlink_pending(struct usbip *usbip, struct pending *pending)
{
    struct pending **at = &usbip->pendings;
    while (*at != pending)
        at = &(*at)->next;
    *at = pending->next;
    if (!*at)
        usbip->pendings_last = at;
}

static void end(struct usbip *usbip, struct pending *pending, enum usb_status status,
                uint32_t actual)
{
    struct usb_transfer *transfer = pending->transfer;
    unlink_pending(usbip, pending);
    free(pending);
    transfer->backend = NULL;
    usb_transport_end(&usbip->transport, transfer, status, actual);
}

static void lose(struct usbip *usbip)
{
    usbip->gone = true;
    while (usbip->messages) {
        struct message *message = unput(usbip);
        if (message->own)
            free(message);
    }
    usbip->receiving = NULL;
    while (usbip->pendings)
        end(usbip, usbip->pendings, USB_GONE, 0);
    set_events(usbip);
}

static int gather(const struct usbip *usbip, struct iovec *vectors)
{
    int count = 0;
    for (const struct message *message = usbip->messages; message && count + 2 <= VECTORS;
         message = message->next) {
        size_t sent = message->sent, data_sent = sent > USBIP_HEADER ? sent - USBIP_HEADER : 0;
        if (sent < USBIP_HEADER)
            vectors[count++] =
                (struct iovec){(uint8_t *)message->header + sent, USBIP_HEADER - sent};
        if (message->length > USBIP_HEADER)
            vectors[count++] = (struct iovec){(uint8_t *)message->data + data_sent,
                                              message->length - USBIP_HEADER - data_sent};
    }
    return count;
}

static void count_sent(struct usbip *usbip, size_t sent)
{
    while (usbip->messages) {
        struct message *message = usbip->messages;
        size_t left = message->length - message->sent;
        if (sent < left) {
            message->sent += sent;
            return;
        }
        sent -= left;
        message->sent = message->length;
        unput(usbip);
        if (message->own)
            free(message);
    }
}

static void flush(struct usb_transport *transport)
{
    struct usbip *usbip = usbip_of(transport);
    while (usbip->messages) {
        struct iovec vectors[VECTORS];
        struct msghdr header = {.msg_iov = vectors, .msg_iovlen = (size_t)gather(usbip, vectors)};
        ssize_t sent = sendmsg(usbip->fd, &header, MSG_NOSIGNAL | MSG_DONTWAIT);
        if (sent < 0 && errno == EINTR)
            continue;
        if (sent < 0 && errno != EAGAIN)
            lose(usbip);
        if (sent < 0)
            break;
        count_sent(usbip, (size_t)sent);
    }
    set_events(usbip);
}

static uint32_t next_number(struct usbip *usbip)
{
    if (++usbip->number == 0)
        usbip->number = 1;
    return usbip->number;
}

static void put_setup(uint8_t *at, const struct usb_transfer *transfer)
{
    const struct usb_setup *setup = &transfer->setup;
    at[0] = setup->request_type;
    at[1] = setup->request;
    put_le16(at + 2, setup->value);
    put_le16(at + 4, setup->index);
    put_le16(at + 6, (uint16_t)transfer->length);
}

static int submit(struct usb_transport *transport, struct usb_transfer *transfer)
{
    struct usbip *usbip = usbip_of(transport);
    bool in = transfer->endpoint & 0x80, control = (transfer->endpoint & 0x0F) == 0;
    if (usbip->gone)
        return -ENODEV;
    struct pending *pending = xnew(struct pending);
    pending->transfer = transfer;
    pending->number = next_number(usbip);
    if (transfer->timeout_ms)
        pending->deadline = clock_milliseconds() + transfer->timeout_ms;
    uint8_t *header = pending->message.header;
    put_be32(header, USBIP_SUBMIT);
    put_be32(header + 4, pending->number);
    put_be32(header + 8, usbip->device);
    put_be32(header + 12, in);
    put_be32(header + 16, transfer->endpoint & 0x0F);
    put_be32(header + 24, transfer->length);
    if (control)
        put_setup(header + 40, transfer);
    pending->message.data = transfer->data;
    pending->message.length = USBIP_HEADER + (in ? 0 : transfer->length);
    put(usbip, &pending->message);
    *usbip->pendings_last = pending;
    usbip->pendings_last = &pending->next;
    transfer->backend = pending;
    return 0;
}

/* Asks the server for the transfer's end, which is this one unless another comes first. */
static void ask_unlink(struct usbip *usbip, struct pending *pending, enum usb_status status)
{
    if (pending->unlink)
        return;
    struct message *message = xnew(struct message);
    pending->unlink = next_number(usbip);
    pending->end = status;
    pending->deadline = clock_milliseconds() + UNLINK_MS;
    usbip->unlinks++;
    put_be32(message->header, USBIP_UNLINK);
    put_be32(message->header + 4, pending->unlink);
    put_be32(message->header + 8, usbip->device);
    put_be32(message->header + 20, pending->number);
    message->length = USBIP_HEADER;
    message->own = true;
    put(usbip, message);
}

static void cancel(struct usb_transport *transport, struct usb_transfer *transfer)
{
    if (transfer->backend)
        ask_unlink(usbip_of(transport), transfer->backend, USB_CANCELLED);
}

/* Receiving. */

/* RET_SUBMIT. False: a lie. */
static bool take_submitted(struct usbip *usbip, const uint8_t *header)
{
    uint32_t number = get_be32(header + 4), actual = get_be32(header + 24);
    enum usb_status status = usb_status_of_urb((int32_t)get_be32(header + 20));
    struct pending *pending = usbip->pendings;
    while (pending && pending->number != number)
        pending = pending->next;
    if (!pending || pending->message.sent < pending->message.length ||
        actual > pending->transfer->length)
        return false;
    if (status == USB_CANCELLED && pending->unlink)
        status = pending->end;
    if ((pending->transfer->endpoint & 0x80) && actual > 0) {
        usbip->receiving = pending;
        usbip->receiving_status = status;
        usbip->received = 0;
        usbip->to_receive = actual;
        return true;
    }
    end(usbip, pending, status, actual);
    return true;
}

/* RET_UNLINK; that of a transfer which came to its end before is late. */
static bool take_unlinked(struct usbip *usbip, const uint8_t *header)
{
    uint32_t number = get_be32(header + 4);
    if (usbip->unlinks == 0 || number == 0) /* which is no request's */
        return false;
    usbip->unlinks--;
    for (struct pending *pending = usbip->pendings; pending; pending = pending->next) {
        if (pending->unlink != number)
            continue;
        if (pending->message.sent < pending->message.length)
            return false;
        end(usbip, pending, pending->end, 0);
        break;
    }
    return true;
}

static void count_received(struct usbip *usbip, size_t size)
{
    usbip->received += (uint32_t)size;
    if (usbip->received == usbip->to_receive) {
        struct pending *pending = usbip->receiving;
        usbip->receiving = NULL;
        end(usbip, pending, usbip->receiving_status, usbip->to_receive);
    }
}

static uint8_t *receive_at(const struct usbip *usbip)
{
    return (uint8_t *)usbip->receiving->transfer->data + usbip->received;
}

/* What is in the stage. False: a lie. */
static bool take_stage(struct usbip *usbip)
{
    for (;;) {
        const uint8_t *at = usbip->stage + usbip->stage_at;
        size_t left = usbip->stage_end - usbip->stage_at;
        if (usbip->receiving) {
            size_t wanted = usbip->to_receive - usbip->received;
            size_t size = left < wanted ? left : wanted;
            memcpy(receive_at(usbip), at, size);
            usbip->stage_at += size;
            count_received(usbip, size);
            if (size < wanted)
                return true;
            continue;
        }
        if (left < USBIP_HEADER)
            return true;
        usbip->stage_at += USBIP_HEADER;
        uint32_t what = get_be32(at);
        bool good = what == USBIP_RET_SUBMIT   ? take_submitted(usbip, at)
                    : what == USBIP_RET_UNLINK ? take_unlinked(usbip, at)
                                               : false;
        if (!good)
            return false;
    }
}

/* False: there is nothing more for now. */
static bool receive(struct usbip *usbip)
{
    memmove(usbip->stage, usbip->stage + usbip->stage_at, usbip->stage_end - usbip->stage_at);
    usbip->stage_end -= usbip->stage_at;
    usbip->stage_at = 0;
    size_t direct = usbip->receiving ? usbip->to_receive - usbip->received : 0;
    size_t room = STAGE - usbip->stage_end;
    struct iovec vectors[] = {
        {direct ? receive_at(usbip) : NULL, direct},
        {usbip->stage + usbip->stage_end, room},
    };
    struct msghdr header = {.msg_iov = vectors, .msg_iovlen = 2};
    ssize_t got = recvmsg(usbip->fd, &header, MSG_DONTWAIT);
    if (got < 0 && (errno == EAGAIN || errno == EINTR))
        return errno == EINTR;
    if (got <= 0) {
        lose(usbip);
        return false;
    }
    size_t size = (size_t)got, first = size < direct ? size : direct;
    if (direct)
        count_received(usbip, first);
    usbip->stage_end += size - first;
    if (!take_stage(usbip)) {
        lose(usbip);
        return false;
    }
    return size == direct + room;
}

static void end_late(struct usbip *usbip)
{
    int64_t now = clock_milliseconds();
    for (struct pending *pending = usbip->pendings; pending; pending = pending->next) {
        if (!pending->deadline || pending->deadline > now)
            continue;
        if (pending->unlink) {
            lose(usbip);
            return;
        }
        ask_unlink(usbip, pending, USB_TIMED_OUT);
    }
}

static void collect(struct usb_transport *transport, int timeout_ms)
{
    struct usbip *usbip = usbip_of(transport);
    flush(transport);
    if (usbip->gone)
        return;
    if (timeout_ms != 0) {
        short events = (short)(usbip->messages ? POLLIN | POLLOUT : POLLIN);
        poll(&(struct pollfd){.fd = usbip->fd, .events = events}, 1, timeout_ms);
        flush(transport);
    }
    while (!usbip->gone && receive(usbip))
        ;
    end_late(usbip);
    flush(transport);
}

static void wait_for_more(struct usb_transport *transport, int timeout_ms, pthread_mutex_t *lock)
{
    struct usbip *usbip = usbip_of(transport);
    struct pollfd watched = {.fd = usbip->fd, .events = (short)atomic_load(&usbip->events)};
    pthread_mutex_unlock(lock);
    if (watched.events)
        poll(&watched, 1, timeout_ms);
    pthread_mutex_lock(lock);
}

static int next_timeout(struct usb_transport *transport)
{
    int64_t first = 0;
    for (struct pending *pending = usbip_of(transport)->pendings; pending; pending = pending->next)
        if (pending->deadline && (!first || pending->deadline < first))
            first = pending->deadline;
    if (!first)
        return -1;
    int64_t left = first - clock_milliseconds();
    return left > 0 ? (int)left : 0;
}

static int watch(struct usb_transport *transport, int epoll, void *data, struct error *err)
{
    struct usbip *usbip = usbip_of(transport);
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = data};
    if (epoll_ctl(epoll, EPOLL_CTL_ADD, usbip->fd, &event) != 0)
        return error_errno(err, errno, "watch the connection to the USB/IP server");
    usbip->epoll = epoll;
    usbip->epoll_data = data;
    usbip->events = EPOLLIN;
    set_events(usbip);
    return 0;
}

/* SET_FEATURE(PORT_RESET) to the port: the server does not pass it on but resets the device. */
static int reset(struct usb_transport *transport)
{
    struct usb_setup setup = {0x23, 3, 4, 0, 0};
    int r = usb_control(transport, &setup, NULL, 5000);
    return r > 0 ? 0 : r;
}

static void destroy(struct usb_transport *transport)
{
    struct usbip *usbip = usbip_of(transport);
    while (usbip->messages) {
        struct message *message = unput(usbip);
        if (message->own)
            free(message);
    }
    close(usbip->fd);
    free(usbip);
}

static const struct usb_transport_ops usbip_ops = {
    .name = "usbip",
    .submit = submit,
    .cancel = cancel,
    .flush = flush,
    .collect = collect,
    .wait = wait_for_more,
    .reset = reset,
    .watch = watch,
    .next_timeout = next_timeout,
    .destroy = destroy,
};

int usb_usbip_open(int fd, const char *bus_id, unsigned timeout_ms,
                   struct usb_transport **ret_transport, struct error *err)
{
    uint8_t answer[USBIP_OPERATION + USBIP_DEVICE];
    int r = usbip_import(fd, bus_id, timeout_ms, answer, err);
    if (r != 0) {
        close(fd);
        return r;
    }
    const uint8_t *device = answer + USBIP_OPERATION;
    struct usbip *usbip = xnew(struct usbip);
    usbip->transport.ops = &usbip_ops;
    usbip->transport.speed = usbip_speed(get_be32(device + USBIP_DEVICE_SPEED));
    usbip->transport.max_transfer = BEST_TRANSFER;
    usbip->fd = fd;
    usbip->epoll = -1;
    usbip->device = get_be32(device + USBIP_DEVICE_BUS) << 16 |
                    (get_be32(device + USBIP_DEVICE_NUMBER) & 0xFFFF);
    usbip->messages_last = &usbip->messages;
    usbip->pendings_last = &usbip->pendings;
    *ret_transport = &usbip->transport;
    return 0;
}
