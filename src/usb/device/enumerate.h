/* What a device says that it is, and which part of it is mass storage. */
#ifndef USB_ENUMERATE_H
#define USB_ENUMERATE_H

#include <usb/disk.h>

struct usb_found {
    uint8_t configuration, interface, alternate;
    uint8_t in, out; /* endpoints */
};

/* Reads the descriptors over endpoint 0, sets the configuration and claims the interface. Waits.
 * -ENODEV, -EPROTO, -ENOTSUP as usb_stick_open(). */
int usb_enumerate(struct usb_transport *transport, struct usb_stick_facts *ret_facts,
                  struct usb_found *ret_found, struct error *err);

#endif
