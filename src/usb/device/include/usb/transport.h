/*
 * What carries transfers to one device and back: libusb, USB/IP over TCP, a model in the same
 * process.
 *
 * All functions belong to the device thread, which also gets all callbacks, from
 * within usb_transport_dispatch() only. Nothing blocks but the requests that say so.
 */
#ifndef USB_TRANSPORT_H
#define USB_TRANSPORT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <base/error.h>

/* USB 2.0, table 9-2. In the machine's byte order. */
struct usb_setup {
    uint8_t request_type, request;
    uint16_t value, index, length;
};

enum usb_status {
    USB_DONE,      /* as many bytes as `actual` says, which may be fewer than were asked for */
    USB_STALLED,   /* the endpoint is halted until clear_halt */
    USB_TIMED_OUT, /* cancelled by its time-out; `actual` bytes were moved */
    USB_CANCELLED,
    USB_BABBLE, /* the device sent more than was asked for */
    USB_FAILED, /* on the wire */
    USB_GONE,   /* the device is no longer there; so for all that follow */
};

struct usb_transfer {
    uint8_t endpoint;       /* its address, 0x80 for towards the host; 0 or 0x80: control */
    uint16_t stream;        /* of bulk endpoints with streams, from 1; else 0 */
    struct usb_setup setup; /* control only; setup.length is not looked at, length is */
    void *data;             /* borrowed until done */
    uint32_t length;        /* bytes */
    uint32_t timeout_ms;    /* 0: none */

    uint32_t actual; /* bytes moved */
    enum usb_status status;
    void (*done)(struct usb_transfer *transfer);
    void *owner; /* the submitter's */

    void *backend; /* the transport's, while it is under way */
};

struct usb_transport;

struct usb_transport_ops {
    const char *name;

    /* Takes the transfer; done is called once from dispatch, whatever happens, for those of one
     * endpoint in order. 0 or -errno (nothing was taken): -ENODEV, -ENOMEM. */
    int (*submit)(struct usb_transport *transport, struct usb_transfer *transfer);

    /* Asks for its end; done still comes. */
    void (*cancel)(struct usb_transport *transport, struct usb_transfer *transfer);

    /* These wait, up to some seconds: 0, -ENODEV, -EIO, -ETIMEDOUT, -EOPNOTSUPP. */
    int (*set_configuration)(struct usb_transport *transport, uint8_t value);
    int (*claim)(struct usb_transport *transport, uint8_t interface);
    int (*release)(struct usb_transport *transport, uint8_t interface);
    int (*set_alternate)(struct usb_transport *transport, uint8_t interface, uint8_t alternate);
    int (*clear_halt)(struct usb_transport *transport, uint8_t endpoint);
    int (*reset)(struct usb_transport *transport); /* the port; the interfaces are claimed again */

    /* Bulk streams for these endpoints; returns how many (at least 1), or -EOPNOTSUPP. */
    int (*alloc_streams)(struct usb_transport *transport, uint16_t wanted, const uint8_t *endpoints,
                         size_t count);

    /* Memory that needs no copy on its way; NULL: there is none (left). Any thread. */
    void *(*buffer_alloc)(struct usb_transport *transport, size_t size);
    void (*buffer_free)(struct usb_transport *transport, void *buffer, size_t size);

    /* Registers what it waits for with this epoll descriptor, each with the given data; keeps that
     * up to date from then on. */
    int (*watch)(struct usb_transport *transport, int epoll, void *data, struct error *err);

    /* Something of its descriptors is ready, or the time of next_timeout has come: callbacks run.
     */
    void (*dispatch)(struct usb_transport *transport);

    /* ms until dispatch must be called even if nothing is ready; -1: never. */
    int (*next_timeout)(struct usb_transport *transport);

    /* No transfer may be under way. */
    void (*destroy)(struct usb_transport *transport);
};

enum usb_speed { USB_LOW, USB_FULL, USB_HIGH, USB_SUPER, USB_SUPER_PLUS };

/* The first member of every transport. */
struct usb_transport {
    const struct usb_transport_ops *ops;
    enum usb_speed speed;
    uint32_t max_transfer; /* bytes of one bulk transfer that is moved best */
};

/* fd: an open /dev/bus/usb/BBB/DDD, taken over. */
int usb_libusb_open(int fd, struct usb_transport **ret_transport, struct error *err);

/* fd: a connected stream to a USB/IP server, taken over; bus_id is imported ("1-1"). Waits for the
 * answer, at most timeout_ms. */
int usb_usbip_open(int fd, const char *bus_id, unsigned timeout_ms,
                   struct usb_transport **ret_transport, struct error *err);

#endif
