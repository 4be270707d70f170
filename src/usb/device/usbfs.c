/*
 * The kernel's interface is asked directly, not through libusb's transfers: those cost a poll, a
 * second look at what is there and two locks for each end, and only a thread that polls learns of
 * it. Here whoever waits for a command sleeps in the one system call that also fetches its end.
 */
#include "usbfs.h"

#include <errno.h>
#include <linux/usbdevice_fs.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>

#include <base/alloc.h>
#include <base/clock.h>
#include <block/bytes.h>

enum { SETUP = 8 };
enum { LATE = -1 }; /* as a deadline: it has passed */

/* A transfer under way. */
struct flight {
    struct usb_transfer *transfer;
    uint8_t *setup;          /* with its data; NULL: no control transfer */
    struct usbdevfs_urb urb; /* last: it could have packets behind it */
};

static void unlink_flying(struct usbfs *usbfs, const struct usb_transfer *transfer)
{
    struct usb_transfer **at = &usbfs->flying;
    while (*at != transfer)
        at = &(*at)->next;
    *at = transfer->next;
    if (!*at)
        usbfs->flying_last = at;
}

static void end(struct usbfs *usbfs, struct flight *flight, enum usb_status status, int actual)
{
    struct usb_transfer *transfer = flight->transfer;
    uint32_t moved = actual > 0 ? (uint32_t)actual : 0;
    if (moved > transfer->length)
        moved = transfer->length;
    if (flight->setup && (transfer->endpoint & 0x80) && moved > 0)
        memcpy(transfer->data, flight->setup + SETUP, moved);
    if (status == USB_CANCELLED && transfer->deadline == LATE)
        status = USB_TIMED_OUT;
    free(flight->setup);
    free(flight);
    transfer->backend = NULL;
    unlink_flying(usbfs, transfer);
    usb_transport_end(transfer->transport, transfer, status, moved);
}

static void end_urb(struct usbfs *usbfs, struct usbdevfs_urb *urb)
{
    end(usbfs, urb->usercontext, usb_status_of_urb(urb->status), urb->actual_length);
}

/* The kernel has given everything back before it says so. */
static void lose(struct usbfs *usbfs)
{
    if (usbfs->epoll >= 0 && !usbfs->gone)
        epoll_ctl(usbfs->epoll, EPOLL_CTL_DEL, usbfs->fd, NULL);
    usbfs->gone = true;
    while (usbfs->flying)
        end(usbfs, usbfs->flying->backend, USB_GONE, 0);
}

/* USB 2.0, table 9-2, and the data. */
static uint8_t *word_setup(const struct usb_transfer *transfer)
{
    const struct usb_setup *setup = &transfer->setup;
    uint8_t *buffer = xmalloc(SETUP + transfer->length);
    buffer[0] = setup->request_type;
    buffer[1] = setup->request;
    put_le16(buffer + 2, setup->value);
    put_le16(buffer + 4, setup->index);
    put_le16(buffer + 6, (uint16_t)transfer->length);
    if (!(transfer->endpoint & 0x80) && transfer->length > 0)
        memcpy(buffer + SETUP, transfer->data, transfer->length);
    return buffer;
}

bool usbfs_scatters(int fd)
{
    uint32_t capabilities = 0;
    return ioctl(fd, USBDEVFS_GET_CAPABILITIES, &capabilities) == 0 &&
           (capabilities & USBDEVFS_CAP_BULK_SCATTER_GATHER);
}

void usbfs_init(struct usbfs *usbfs, int fd)
{
    *usbfs = (struct usbfs){.fd = fd, .epoll = -1};
    usbfs->flying_last = &usbfs->flying;
    place_init(&usbfs->place, NULL);
    pthread_condattr_t attributes;
    pthread_condattr_init(&attributes);
    pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
    pthread_cond_init(&usbfs->awake, &attributes);
    pthread_condattr_destroy(&attributes);
    pthread_mutex_init(&usbfs->lock, NULL);
}

void usbfs_finish(struct usbfs *usbfs)
{
    pthread_cond_destroy(&usbfs->awake);
    pthread_mutex_destroy(&usbfs->lock);
}

int usbfs_submit(struct usbfs *usbfs, struct usb_transfer *transfer)
{
    bool control = (transfer->endpoint & 0x0F) == 0;
    if (usbfs->gone)
        return -ENODEV;
    struct flight *flight = xnew(struct flight);
    flight->transfer = transfer;
    flight->setup = control ? word_setup(transfer) : NULL;
    flight->urb.type = control ? USBDEVFS_URB_TYPE_CONTROL : USBDEVFS_URB_TYPE_BULK;
    flight->urb.endpoint = control ? 0 : transfer->endpoint;
    flight->urb.stream_id = transfer->stream;
    flight->urb.buffer = control ? flight->setup : transfer->data;
    flight->urb.buffer_length = (int)(transfer->length + (control ? SETUP : 0));
    flight->urb.usercontext = flight;
    if (ioctl(usbfs->fd, USBDEVFS_SUBMITURB, &flight->urb) != 0) {
        int r = errno == ENODEV || errno == ENOMEM ? -errno : -EIO;
        free(flight->setup);
        free(flight);
        return r;
    }
    transfer->backend = flight;
    transfer->deadline = transfer->timeout_ms ? clock_ticks() + transfer->timeout_ms : 0;
    transfer->next = NULL;
    *usbfs->flying_last = transfer;
    usbfs->flying_last = &transfer->next;
    return 0;
}

void usbfs_cancel(struct usbfs *usbfs, struct usb_transfer *transfer)
{
    struct flight *flight = transfer->backend;
    if (flight)
        ioctl(usbfs->fd, USBDEVFS_DISCARDURB, &flight->urb);
}

void usbfs_expire(struct usbfs *usbfs)
{
    int64_t now = clock_ticks();
    for (struct usb_transfer *transfer = usbfs->flying; transfer; transfer = transfer->next) {
        if (transfer->deadline <= 0 || transfer->deadline > now)
            continue;
        transfer->deadline = LATE;
        usbfs_cancel(usbfs, transfer);
    }
}

void usbfs_wait(struct usbfs *usbfs, pthread_mutex_t *lock)
{
    void *urb = NULL;
    usbfs->waits = true;
    pthread_mutex_unlock(lock);
    bool is_there =
        place_counts(&usbfs->place) && ioctl(usbfs->fd, USBDEVFS_REAPURBNDELAY, &urb) == 0;
    if (is_there || ioctl(usbfs->fd, USBDEVFS_REAPURB, &urb) == 0)
        place_note(&usbfs->place, !is_there);
    else
        urb = NULL;
    pthread_mutex_lock(&usbfs->lock);
    usbfs->reaped = urb;
    usbfs->waits = false;
    pthread_cond_signal(&usbfs->awake);
    pthread_mutex_unlock(&usbfs->lock);
    pthread_mutex_lock(lock);
}

static struct timespec in_future(int timeout_ms)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    time.tv_sec += timeout_ms / 1000;
    time.tv_nsec += (long)(timeout_ms % 1000) * 1000000;
    time.tv_sec += time.tv_nsec / CLOCK_SECOND;
    time.tv_nsec %= CLOCK_SECOND;
    return time;
}

/* False: somebody sleeps in usbfs_wait() still. */
static bool is_left(struct usbfs *usbfs, int timeout_ms)
{
    pthread_mutex_lock(&usbfs->lock);
    if (usbfs->waits && timeout_ms != 0) {
        struct timespec end = in_future(timeout_ms);
        while (usbfs->waits && pthread_cond_timedwait(&usbfs->awake, &usbfs->lock, &end) == 0)
            ;
    }
    bool left = !usbfs->waits;
    pthread_mutex_unlock(&usbfs->lock);
    return left;
}

/* One that has ended. False: there is none, and errno says why. */
static bool reap(struct usbfs *usbfs)
{
    void *urb = NULL;
    if (ioctl(usbfs->fd, USBDEVFS_REAPURBNDELAY, &urb) != 0)
        return false;
    end_urb(usbfs, urb);
    return true;
}

/* Where none has, waits for one. As above. */
static bool reap_or_wait(struct usbfs *usbfs, int timeout_ms)
{
    bool waits = timeout_ms != 0 && !usbfs->gone, found = reap(usbfs);
    if (found && waits)
        place_note(&usbfs->place, false);
    if (found || !waits || errno != EAGAIN)
        return found;
    poll(&(struct pollfd){.fd = usbfs->fd, .events = POLLOUT}, 1, timeout_ms);
    found = reap(usbfs);
    if (found)
        place_note(&usbfs->place, true);
    return found;
}

void usbfs_collect(struct usbfs *usbfs, int timeout_ms)
{
    if (!is_left(usbfs, timeout_ms)) {
        usbfs_expire(usbfs);
        return;
    }
    if (usbfs->reaped) {
        end_urb(usbfs, usbfs->reaped);
        usbfs->reaped = NULL;
        return; /* what else there is, the next one finds */
    }
    bool more = reap_or_wait(usbfs, timeout_ms);
    if (more && timeout_ms == 0)
        place_look(&usbfs->place);
    int why = more ? 0 : errno;
    while (more && usbfs->flying) {
        more = reap(usbfs);
        why = more ? 0 : errno;
    }
    if (why == ENODEV)
        lose(usbfs);
    usbfs_expire(usbfs);
}

int usbfs_watch(struct usbfs *usbfs, int epoll, void *data, struct error *err)
{
    struct epoll_event event = {.events = EPOLLOUT, .data.ptr = data};
    if (epoll_ctl(epoll, EPOLL_CTL_ADD, usbfs->fd, &event) != 0)
        return error_errno(err, errno, "watch the device");
    usbfs->epoll = epoll;
    return 0;
}

int usbfs_next_timeout(const struct usbfs *usbfs)
{
    int64_t first = INT64_MAX;
    for (const struct usb_transfer *transfer = usbfs->flying; transfer; transfer = transfer->next)
        if (transfer->deadline > 0 && transfer->deadline < first)
            first = transfer->deadline;
    if (first == INT64_MAX)
        return -1;
    int64_t left = first - clock_ticks();
    return left > 0 ? (int)left : 0;
}
