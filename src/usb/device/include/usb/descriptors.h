/*
 * Descriptors of a device, which are its own words: every length, count and nesting is checked, and
 * one that lies is refused as a whole. Paragraphs: USB 2.0 chapter 9, USB 3.2 chapter 9, UAS.
 *
 * -EPROTO: what was read is not as it must be; err names the byte and what is there.
 */
#ifndef USB_DESCRIPTORS_H
#define USB_DESCRIPTORS_H

#include <stddef.h>
#include <stdint.h>

#include <base/error.h>

enum {
    USB_DEVICE_SIZE = 18,         /* bytes of a device descriptor */
    USB_CONFIGURATION_SIZE = 9,   /* bytes of a configuration's own, which the rest follows */
    USB_CONFIGURATION_MAX = 4096, /* bytes of a configuration that we look at */
    USB_CONFIGURATIONS_MAX = 8,
    USB_SETTINGS_MAX = 32, /* alternate settings of all interfaces of a configuration */
    USB_ENDPOINTS_MAX = 30,
    USB_STRING_MAX = 255, /* bytes of a string descriptor */
};

enum usb_descriptor_type {
    USB_DESCRIPTOR_DEVICE = 1,
    USB_DESCRIPTOR_CONFIGURATION = 2,
    USB_DESCRIPTOR_STRING = 3,
    USB_DESCRIPTOR_INTERFACE = 4,
    USB_DESCRIPTOR_ENDPOINT = 5,
    USB_DESCRIPTOR_PIPE_USAGE = 0x24, /* within an interface of protocol UAS */
    USB_DESCRIPTOR_COMPANION = 0x30,  /* of an endpoint at SuperSpeed */
};

enum usb_endpoint_kind { USB_CONTROL, USB_ISOCHRONOUS, USB_BULK, USB_INTERRUPT };

/* What an endpoint of UAS is for (UAS 5.3.3.4). */
enum usb_pipe {
    USB_PIPE_NONE,
    USB_PIPE_COMMAND,
    USB_PIPE_STATUS,
    USB_PIPE_IN,
    USB_PIPE_OUT,
};

struct usb_device_descriptor {
    uint16_t version, vendor, product, release; /* version, release: BCD */
    uint8_t class, subclass, protocol;
    uint8_t manufacturer_string, product_string, serial_string; /* 0: none */
    uint8_t configurations;                                     /* 1 to USB_CONFIGURATIONS_MAX */
};

struct usb_endpoint {
    uint8_t address; /* 0x80: towards the host */
    enum usb_endpoint_kind kind;
    uint16_t max_packet; /* bytes, at least 1 */
    uint8_t burst;       /* packets, at least 1 */
    uint8_t stream_bits; /* 2^n streams; 0: none */
    enum usb_pipe pipe;
};

/* One alternate setting of an interface. */
struct usb_setting {
    uint8_t interface, alternate;
    uint8_t class, subclass, protocol;
    uint8_t endpoint_count;
    const struct usb_endpoint *endpoints; /* within the configuration */
};

struct usb_configuration {
    uint8_t value;           /* for SET_CONFIGURATION */
    uint8_t interface_count; /* with different numbers */
    uint8_t setting_count, endpoint_count;
    struct usb_setting settings[USB_SETTINGS_MAX];
    struct usb_endpoint endpoints[USB_ENDPOINTS_MAX * 2];
};

int usb_device_parse(const uint8_t *data, size_t size, struct usb_device_descriptor *ret_device,
                     struct error *err);

/* data: a configuration with all that belongs to it. It points into itself: no copies of it. */
int usb_configuration_parse(const uint8_t *data, size_t size,
                            struct usb_configuration *ret_configuration, struct error *err);

/* Bytes of a whole configuration by its first USB_CONFIGURATION_SIZE: at most
 * USB_CONFIGURATION_MAX. */
int usb_configuration_size(const uint8_t *data, size_t size, struct error *err);

/* The first language that string descriptor 0 lists. */
int usb_languages_parse(const uint8_t *data, size_t size, uint16_t *ret_language,
                        struct error *err);

/* UTF-8 in text, cut where there is no more room; what cannot be shown is '?'. */
int usb_string_parse(const uint8_t *data, size_t size, char *text, size_t room, struct error *err);

#endif
