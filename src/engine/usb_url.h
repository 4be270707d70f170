/* usbip://HOST[:PORT]/BUSID: a USB device of another machine. Pure. */
#ifndef ENGINE_USB_URL_H
#define ENGINE_USB_URL_H

#include <base/error.h>

enum { USB_URL_MAX = 512, USB_BUS_ID_MAX = 31 }; /* bytes; the latter is the protocol's */

struct usb_url {
    char *host; /* without the brackets of an IPv6 address; all owned */
    char *port;
    char *bus_id;
};

/* -EINVAL. */
int usb_url_parse(const char *text, struct usb_url **ret, struct error *err);
void usb_url_free(struct usb_url *url); /* NULL allowed */

/* The same with the port, for comparison; owned. */
char *usb_url_text(const struct usb_url *url);

#endif
