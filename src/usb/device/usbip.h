/* Numbers of USB/IP 1.1.1, all big-endian: Linux, Documentation/usb/usbip_protocol.rst. */
#ifndef USB_USBIP_H
#define USB_USBIP_H

enum {
    USBIP_VERSION = 0x0111,
    USBIP_REQ_DEVLIST = 0x8005,
    USBIP_REP_DEVLIST = 0x0005,
    USBIP_REQ_IMPORT = 0x8003,
    USBIP_REP_IMPORT = 0x0003,

    USBIP_OPERATION = 8, /* bytes: version, code, status */
    USBIP_BUS_ID = 32,
    USBIP_DEVICE = 312, /* bytes that describe a device */
    USBIP_DEVICE_BUS = 288,
    USBIP_DEVICE_NUMBER = 292,
    USBIP_DEVICE_SPEED = 296,

    USBIP_SUBMIT = 1,
    USBIP_UNLINK = 2,
    USBIP_RET_SUBMIT = 3,
    USBIP_RET_UNLINK = 4,
    USBIP_HEADER = 48, /* bytes of each of these four */
};

#endif
