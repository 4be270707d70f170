#include <usb/transport.h>

#include <errno.h>

enum { REQUEST_MS = 2000 }; /* a standard request; USB 2.0 9.2.6.4 allows 500 ms without data */

/* USB 2.0, tables 9-3 and 9-4. */
enum { CLEAR_FEATURE = 1, SET_CONFIGURATION = 9, SET_INTERFACE = 11 };
enum { TO_DEVICE = 0, TO_INTERFACE = 1, TO_ENDPOINT = 2 };

int usb_transport_submit(struct usb_transport *transport, struct usb_transfer *transfer)
{
    transfer->actual = 0;
    transfer->transport = transport;
    return transport->ops->submit(transport, transfer);
}

void usb_transport_cancel(struct usb_transport *transport, struct usb_transfer *transfer)
{
    transport->ops->cancel(transport, transfer);
}

void usb_transport_flush(struct usb_transport *transport)
{
    if (transport->ops->flush)
        transport->ops->flush(transport);
}

int usb_transport_watch(struct usb_transport *transport, int epoll, void *data, struct error *err)
{
    return transport->ops->watch(transport, epoll, data, err);
}

void usb_transport_destroy(struct usb_transport *transport)
{
    if (transport)
        transport->ops->destroy(transport);
}

enum usb_status usb_status_of_urb(int status)
{
    switch (status) {
    case 0:
    case -EREMOTEIO: /* short, where somebody minds */
        return USB_DONE;
    case -EPIPE:
        return USB_STALLED;
    case -EOVERFLOW:
        return USB_BABBLE;
    case -ENOENT:
    case -ECONNRESET:
        return USB_CANCELLED;
    case -ENODEV:
    case -ESHUTDOWN:
        return USB_GONE;
    default:
        return USB_FAILED;
    }
}

void usb_transport_end(struct usb_transport *transport, struct usb_transfer *transfer,
                       enum usb_status status, uint32_t actual)
{
    transfer->status = status;
    transfer->actual = actual;
    transfer->next = NULL;
    if (!transport->ended)
        transport->ended_last = &transport->ended;
    *transport->ended_last = transfer;
    transport->ended_last = &transfer->next;
}

bool usb_transport_dispatch(struct usb_transport *transport)
{
    transport->ops->collect(transport, 0);
    bool any = transport->ended != NULL;
    while (transport->ended) {
        struct usb_transfer *transfer = transport->ended;
        transport->ended = transfer->next;
        transfer->done(transfer);
    }
    return any;
}

int usb_transport_timeout(struct usb_transport *transport)
{
    return transport->ended ? 0 : transport->ops->next_timeout(transport);
}

/* It has not been dispatched: waiting is over. */
static bool take_ended(struct usb_transport *transport, struct usb_transfer *wanted)
{
    struct usb_transfer **at = &transport->ended;
    for (; *at; at = &(*at)->next) {
        if (*at != wanted)
            continue;
        *at = wanted->next;
        if (!wanted->next)
            transport->ended_last = at;
        return true;
    }
    return false;
}

static const int results[] = {
    [USB_STALLED] = -EPIPE, [USB_TIMED_OUT] = -ETIMEDOUT, [USB_CANCELLED] = -EIO,
    [USB_BABBLE] = -EIO,    [USB_FAILED] = -EIO,          [USB_GONE] = -ENODEV,
};

int usb_control(struct usb_transport *transport, const struct usb_setup *setup, void *data,
                uint32_t timeout_ms)
{
    struct usb_transfer transfer = {
        .endpoint = setup->request_type & 0x80,
        .setup = *setup,
        .data = data,
        .length = setup->length,
        .timeout_ms = timeout_ms,
    };
    int r = usb_transport_submit(transport, &transfer);
    if (r != 0)
        return r;
    usb_transport_flush(transport);
    while (!take_ended(transport, &transfer)) {
        int timeout = transport->ops->next_timeout(transport);
        transport->ops->collect(transport, timeout < 0 ? (int)timeout_ms : timeout);
    }
    return transfer.status == USB_DONE ? (int)transfer.actual : results[transfer.status];
}

/* Without data. */
static int request(struct usb_transport *transport, uint8_t recipient, uint8_t number,
                   uint16_t value, uint16_t index)
{
    struct usb_setup setup = {recipient, number, value, index, 0};
    int r = usb_control(transport, &setup, NULL, REQUEST_MS);
    return r > 0 ? 0 : r;
}

int usb_set_configuration(struct usb_transport *transport, uint8_t value)
{
    if (transport->ops->set_configuration)
        return transport->ops->set_configuration(transport, value);
    return request(transport, TO_DEVICE, SET_CONFIGURATION, value, 0);
}

int usb_set_alternate(struct usb_transport *transport, uint8_t interface, uint8_t alternate)
{
    if (transport->ops->set_alternate)
        return transport->ops->set_alternate(transport, interface, alternate);
    return request(transport, TO_INTERFACE, SET_INTERFACE, alternate, interface);
}

int usb_clear_halt(struct usb_transport *transport, uint8_t endpoint)
{
    if (transport->ops->clear_halt)
        return transport->ops->clear_halt(transport, endpoint);
    return request(transport, TO_ENDPOINT, CLEAR_FEATURE, 0, endpoint);
}

int usb_claim(struct usb_transport *transport, uint8_t interface)
{
    return transport->ops->claim ? transport->ops->claim(transport, interface) : 0;
}

int usb_release(struct usb_transport *transport, uint8_t interface)
{
    return transport->ops->release ? transport->ops->release(transport, interface) : 0;
}

int usb_alloc_streams(struct usb_transport *transport, uint16_t count, const uint8_t *endpoints,
                      unsigned endpoint_count)
{
    if (!transport->ops->alloc_streams)
        return -ENOTSUP;
    int r = transport->ops->alloc_streams(transport, count, endpoints, endpoint_count);
    return r == 0 ? -ENOTSUP : r > count ? count : r;
}

void usb_free_streams(struct usb_transport *transport, const uint8_t *endpoints,
                      unsigned endpoint_count)
{
    if (transport->ops->free_streams)
        transport->ops->free_streams(transport, endpoints, endpoint_count);
}

int usb_reset(struct usb_transport *transport)
{
    if (transport->shared)
        return -EBUSY;
    return transport->ops->reset(transport);
}
