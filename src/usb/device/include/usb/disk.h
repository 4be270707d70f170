/*
 * A logical unit of a stick as a block device: what bulk-only transport or UAS carry, and SCSI
 * says. The one place where device/ and block/ meet.
 */
#ifndef USB_DISK_H
#define USB_DISK_H

#include <block/device.h>
#include <usb/transport.h>

/* A stick whose interface is claimed, with its units. Device thread. */
struct usb_stick;

struct usb_stick_facts {
    uint16_t vendor, product, release;               /* release: BCD */
    char manufacturer[128], model[128], serial[128]; /* UTF-8, printable; "" where it says none */
    uint8_t interface, protocol;                     /* 0x50 bulk-only, 0x62 UAS */
    enum usb_speed speed;
    unsigned units; /* 1 to 16 */
};

enum usb_unit_state {
    USB_UNIT_WAITING, /* becomes ready: NOT READY, UNIT ATTENTION */
    USB_UNIT_READY,
    USB_UNIT_EMPTY,  /* no medium; looked at again every second */
    USB_UNIT_FAILED, /* given up; error says why */
};

struct usb_unit_facts {
    enum usb_unit_state state;
    char vendor[9], product[17], revision[5]; /* of INQUIRY, printable, without spaces at the end */
    bool removable, write_protected, caching, discards;
    uint32_t sector_size;
    uint64_t sectors;
    char error[160];
};

/* A medium came or went, or the stick is gone. Device thread. */
typedef void (*usb_unit_changed)(struct usb_stick *stick, unsigned unit, void *data);

/* Reads the descriptors, picks the interface and begins with its units; goes on in dispatch. The
 * transport is taken over. -ENODEV, -EPROTO (descriptors that lie: err names which), -ENOTSUP (no
 * mass storage that we speak). */
int usb_stick_open(struct usb_transport *transport, usb_unit_changed changed, void *data,
                   struct usb_stick **ret_stick, struct error *err);
const struct usb_stick_facts *usb_stick_facts(const struct usb_stick *stick);
void usb_stick_unit(const struct usb_stick *stick, unsigned unit, struct usb_unit_facts *ret_facts);

/* The block device of a unit that is ready; lives until the medium changes or the stick is closed.
 * Its requests may come from any thread. */
struct block_device *usb_stick_disk(struct usb_stick *stick, unsigned unit);

/* Flushes, stops the unit and lets go of its medium; done on the device thread. */
int usb_stick_eject(struct usb_stick *stick, unsigned unit, void (*done)(int result, void *data),
                    void *data, struct error *err);

/* One turn of the device thread: waits for the transport and for submitted requests, at most
 * timeout_ms
 * (-1: for ever). 0, or -ENODEV once the stick is gone and every request was answered. */
int usb_stick_run(struct usb_stick *stick, int timeout_ms, struct error *err);
void usb_stick_wake(struct usb_stick *stick); /* any thread: ends the wait of usb_stick_run() */

/* Answers every request (-ENODEV), lets go of the interface. */
void usb_stick_close(struct usb_stick *stick);

#endif
