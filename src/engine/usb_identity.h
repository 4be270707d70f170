/*
 * What a USB device says that it is, as the kernel shows it below /sys/bus/usb/devices: its
 * descriptors byte by byte and its strings come from the device, so that nothing in them is
 * believed before it has been checked. And the kernel's uevents about such devices.
 */
#ifndef ENGINE_USB_IDENTITY_H
#define ENGINE_USB_IDENTITY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <base/error.h>

enum {
    USB_TEXT_MAX = 256,    /* bytes of a string, UTF-8 */
    USB_PORT_MAX = 32,     /* of "1-1.4.2" */
    USB_CLASSES_MAX = 32,  /* different ones of a device: more make it none of ours */
    USB_UEVENT_MAX = 8192, /* bytes of a message */
    USB_DESCRIPTORS_MAX = 64 * 1024,
    USB_CONFIGURATIONS_SEEN_MAX = 8,
    USB_CLASS_STORAGE = 0x08,
    USB_CLASS_HUB = 0x09,
};

struct usb_identity {
    char port[USB_PORT_MAX]; /* the kernel's name: bus and ports */
    uint16_t vendor, product, release;
    /* Class, subclass and protocol (0xCCSSPP) of all interfaces of all configurations, without
     * repeats, in the order they came; the device's own class too, unless that is 0. */
    uint32_t classes[USB_CLASSES_MAX];
    size_t classes_count;
    bool storage;      /* some interface is mass storage that cloche-usb can use */
    bool storage_only; /* all of them are */
    bool hub;
    char serial[USB_TEXT_MAX], manufacturer[USB_TEXT_MAX], model[USB_TEXT_MAX];
    char speed[16];       /* Mbit/s */
    unsigned bus, device; /* numbers in /dev/bus/usb; 0: not known */
    /* Of its node; 0: not known. */
    unsigned major_number, minor_number;
    uint8_t configuration; /* that the kernel has set; 0: none, its interfaces are not there */
    /* Those with mass storage that cloche-usb can use, in their order; others are not seen. */
    uint8_t storage_configurations[USB_CONFIGURATIONS_SEEN_MAX];
    size_t storage_configurations_count;
};

/* The part of it that descriptors say: a device descriptor and then its configurations, as the
 * file `descriptors` has them. -EBADMSG: they make no sense. */
int usb_identity_parse(const uint8_t *descriptors, size_t size, struct usb_identity *ret,
                       struct error *err);

/* The configuration that is to be set for cloche-usb; 0: the one that is set will do, or none
 * would.
 */
uint8_t usb_identity_wants(const struct usb_identity *identity);

/* classes, as a device that is reached from elsewhere has them. */
void usb_identity_set_classes(struct usb_identity *identity, const uint32_t *classes, size_t count);

/* Whether a text is the name of a device ("1-1.4") there, or of a bus ("usb1"). */
bool usb_is_port(const char *name);
bool usb_is_bus(const char *name);

enum usb_action {
    USB_ACTION_OTHER,
    USB_ACTION_ADD,    /* known, without a configuration yet */
    USB_ACTION_BIND,   /* has its configuration */
    USB_ACTION_REMOVE, /* gone */
};

struct usb_uevent {
    enum usb_action action;
    char name[USB_PORT_MAX]; /* of the device or bus */
};

/* A message of the kernel. false: not about a USB device as a whole, or not to be understood. */
bool usb_uevent_parse(const char *message, size_t size, struct usb_uevent *ret);

#endif
