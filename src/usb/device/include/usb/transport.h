/*
 * What carries transfers to one device and back: libusb, USB/IP over TCP, a model in the same
 * process.
 *
 * All functions belong to one thread at a time, the one that has the stick; it also gets all
 * callbacks, from within usb_transport_dispatch() only. Nothing blocks but what says so; and that
 * takes in what comes meanwhile, whose callbacks run in the next dispatch.
 */
#ifndef USB_TRANSPORT_H
#define USB_TRANSPORT_H

#include <pthread.h>
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

struct usb_transport;

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

    /* The transport's, while it is under way. */
    struct usb_transport *transport;
    void *backend;
    int64_t deadline; /* milliseconds; 0: none */
    struct usb_transfer *next;
};

enum usb_speed { USB_LOW, USB_FULL, USB_HIGH, USB_SUPER, USB_SUPER_PLUS };

/* The first member of every transport. */
struct usb_transport {
    const struct usb_transport_ops *ops;
    enum usb_speed speed;
    uint32_t max_transfer; /* bytes of one bulk transfer that is moved best */
    bool shared; /* several interfaces are served: no one of them resets the port of all */
    /* That the machine has chosen, and which stays; 0: there is nobody else who chooses. */
    uint8_t configuration;

    /* Of transport.c: ended, their callbacks are still to run. Oldest first. */
    struct usb_transfer *ended, **ended_last;
};

struct usb_transport_ops {
    const char *name;

    /* Takes the transfer; it ends once, whatever happens, those of one endpoint in order. It may be
     * put aside until flush. 0 or -errno (nothing was taken): -ENODEV; -ENOMEM, which others that
     * end may change; -EIO and others. */
    int (*submit)(struct usb_transport *transport, struct usb_transfer *transfer);

    /* Asks for its end, which still comes; bounded, however deaf the device is. */
    void (*cancel)(struct usb_transport *transport, struct usb_transfer *transfer);

    /* Sends what was put aside. NULL: nothing is. */
    void (*flush)(struct usb_transport *transport);

    /* Waits for something to come, at most timeout_ms; takes it in, ends what has had its time.
     * Ends transfers by usb_transport_end(), runs no callbacks. */
    void (*collect)(struct usb_transport *transport, int timeout_ms);

    /* Sleeps until there is something for the collect(0) that follows it, without the lock under
     * which all else is called, which it has again when it comes back. It may come back for
     * nothing; it does when expire has ended a transfer, and without expire after timeout_ms. One
     * thread at a time. NULL: the device thread waits for all. */
    void (*wait)(struct usb_transport *transport, int timeout_ms, pthread_mutex_t *lock);
    /* Asks for the end of transfers that have had their time. NULL: collect does. */
    void (*expire)(struct usb_transport *transport);

    /* These wait, up to some seconds: 0, -ENODEV, -EIO, -ETIMEDOUT. NULL: the standard request over
     * endpoint 0 is all there is to it. */
    int (*set_configuration)(struct usb_transport *transport, uint8_t value);
    int (*set_alternate)(struct usb_transport *transport, uint8_t interface, uint8_t alternate);
    int (*clear_halt)(struct usb_transport *transport, uint8_t endpoint);

    /* The device descriptor and the configurations behind it, as the machine has read them once;
     * bytes, or -errno. NULL: the device is asked. */
    int (*descriptors)(struct usb_transport *transport, uint8_t *data, size_t size);

    /* NULL: there is nothing to it. */
    int (*claim)(struct usb_transport *transport, uint8_t interface);
    int (*release)(struct usb_transport *transport, uint8_t interface);

    /* Of these bulk endpoints: how many streams they have from now on, at most count; until
     * free_streams, which is called before a reset or another setting. -ENOTSUP, -ENOMEM, -ENODEV,
     * -EIO. These wait. NULL: there are no streams. */
    int (*alloc_streams)(struct usb_transport *transport, uint16_t count, const uint8_t *endpoints,
                         unsigned endpoint_count);
    void (*free_streams)(struct usb_transport *transport, const uint8_t *endpoints,
                         unsigned endpoint_count);

    /* The port; configuration and claims are as before afterwards. Waits. */
    int (*reset)(struct usb_transport *transport);

    /* Memory that needs no copy on its way; NULL: there is none (left). Any thread. NULL as a
     * member: there is none. */
    void *(*buffer_alloc)(struct usb_transport *transport, size_t size);
    /* False: it is none of the transport's. */
    bool (*buffer_free)(struct usb_transport *transport, void *buffer, size_t size);

    /* Registers what it waits for with this epoll descriptor, each with the given data; keeps that
     * up to date from then on. */
    int (*watch)(struct usb_transport *transport, int epoll, void *data, struct error *err);

    /* ms until dispatch must be called even if nothing is ready; -1: never. */
    int (*next_timeout)(struct usb_transport *transport);

    /* No transfer may be under way. */
    void (*destroy)(struct usb_transport *transport);
};

int usb_transport_submit(struct usb_transport *transport, struct usb_transfer *transfer);
void usb_transport_cancel(struct usb_transport *transport, struct usb_transfer *transfer);
void usb_transport_flush(struct usb_transport *transport);
int usb_transport_watch(struct usb_transport *transport, int epoll, void *data, struct error *err);
void usb_transport_destroy(struct usb_transport *transport); /* NULL is fine */

/* Something of its descriptors is ready, or the time of usb_transport_timeout() has come: callbacks
 * run. False: there was nothing. */
bool usb_transport_dispatch(struct usb_transport *transport);
int usb_transport_timeout(struct usb_transport *transport); /* ms; -1: none */

/* Transports only: what the status of Linux's URBs means, which USB/IP sends as it is. */
enum usb_status usb_status_of_urb(int status);
/* Transports only: the transfer is over; its callback runs in the next dispatch. */
void usb_transport_end(struct usb_transport *transport, struct usb_transfer *transfer,
                       enum usb_status status, uint32_t actual);

/* These wait. Bytes moved, or -EPIPE (stalled), -ENODEV, -ETIMEDOUT, -EIO. */
int usb_control(struct usb_transport *transport, const struct usb_setup *setup, void *data,
                uint32_t timeout_ms);
/* 0, or as above. */
int usb_set_configuration(struct usb_transport *transport, uint8_t value);
int usb_set_alternate(struct usb_transport *transport, uint8_t interface, uint8_t alternate);
int usb_clear_halt(struct usb_transport *transport, uint8_t endpoint);
int usb_claim(struct usb_transport *transport, uint8_t interface);
int usb_release(struct usb_transport *transport, uint8_t interface);
/* At least 1, or -errno. */
int usb_alloc_streams(struct usb_transport *transport, uint16_t count, const uint8_t *endpoints,
                      unsigned endpoint_count);
void usb_free_streams(struct usb_transport *transport, const uint8_t *endpoints,
                      unsigned endpoint_count);
int usb_reset(struct usb_transport *transport); /* -EBUSY: it is shared */

/* fd: a connected stream to a USB/IP server, taken over; bus_id is imported ("1-1"). Waits for the
 * answer, at most timeout_ms. */
int usb_usbip_open(int fd, const char *bus_id, unsigned timeout_ms,
                   struct usb_transport **ret_transport, struct error *err);

#endif
