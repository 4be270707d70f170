/* Devices in this machine's own ports, by libusb. */
#ifndef USB_LIBUSB_H
#define USB_LIBUSB_H

#include <usb/transport.h>

/* fd: an open /dev/bus/usb/BBB/DDD, taken over. It is all that is needed: no other device, no udev,
 * no sysfs is looked at. Claiming an interface takes it from a driver of the kernel's, which does
 * not get it back. configuration: that the kernel has set, which stays; 0: the device is asked, and
 * is set another one where it needs one. */
int usb_libusb_open(int fd, uint8_t configuration, struct usb_transport **ret_transport,
                    struct error *err);
/* Who resets it, where the one who has it open may not: 0 or -errno. data is kept. */
void usb_libusb_reset_by(struct usb_transport *transport, int (*reset)(void *data), void *data);

#endif
