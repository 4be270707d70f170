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
    uint8_t interface;
    struct usb_found_bot bot; /* at least one of both */
    struct usb_found_uas uas;
};

struct usb_found_all {
    uint8_t configuration;
    unsigned count; /* at least 1 */
    struct usb_found interfaces[USB_INTERFACES_SERVED_MAX];
};

/* Reads the descriptors (of a device of this machine those that the kernel has read, over endpoint
 * 0 else), sets the configuration where the machine has not, and claims the interfaces of mass
 * storage, whose settings are the caller's to choose. Waits. -ENODEV, -EPROTO, -ENOTSUP as
 * usb_stick_open(). */
int usb_enumerate(struct usb_transport *transport, struct usb_stick_facts *ret_facts,
                  struct usb_found_all *ret_found, struct error *err);

#endif
