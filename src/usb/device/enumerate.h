/* What a device says that it is, and which part of it is mass storage. */
#ifndef USB_ENUMERATE_H
#define USB_ENUMERATE_H

#include <usb/disk.h>

/* An alternate setting that speaks bulk-only transport; in 0: there is none. */
struct usb_found_bot {
    uint8_t alternate;
    uint8_t in, out; /* endpoints */
};

/* One that speaks UAS; command 0: there is none. */
struct usb_found_uas {
    uint8_t alternate;
    uint8_t command, status, in, out; /* endpoints */
    uint8_t stream_bits;              /* the fewest of status, in, out: 2^n streams; 0: none */
};

struct usb_found {
    uint8_t configuration, interface;
    struct usb_found_bot bot; /* at least one of both */
    struct usb_found_uas uas;
};

/* Reads the descriptors over endpoint 0, sets the configuration and claims the interface, whose
 * setting is the caller's to choose. facts->protocol is still 0. Waits. -ENODEV, -EPROTO, -ENOTSUP
 * as usb_stick_open(). */
int usb_enumerate(struct usb_transport *transport, struct usb_stick_facts *ret_facts,
                  struct usb_found *ret_found, struct error *err);

#endif
