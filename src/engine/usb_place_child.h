/* The child's side of usb_place.c: one request on its standard input. */
#ifndef ENGINE_USB_PLACE_CHILD_H
#define ENGINE_USB_PLACE_CHILD_H

#define USB_PLACE_MOUNT "mount:"     /* PATH; says the device of what was mounted */
#define USB_PLACE_UNMOUNT "unmount:" /* MAJOR:MINOR */

enum {
    USB_PLACE_NAMESPACE_FD = 3,
    USB_PLACE_MOUNT_FD = 4,
    USB_PLACE_TIMEOUT_MS = 10 * 1000,
};

#endif
