/*
 * A logical unit of a stick as a block device: what bulk-only transport carries, and SCSI says. The
 * one place where device/ and block/ meet.
 */
#ifndef USB_DISK_H
#define USB_DISK_H

#include <block/device.h>
#include <usb/transport.h>

/* A stick whose interfaces of mass storage are claimed, with their units. Device thread. */
struct usb_stick;

enum { USB_CLASSES_SAID_MAX = 32, USB_INTERFACES_SERVED_MAX = 8 };

/* How commands reach it. */
enum usb_protocol { USB_PROTOCOL_BULK_ONLY = 0x50, USB_PROTOCOL_UAS = 0x62 };

struct usb_stick_facts {
    uint16_t vendor, product, release;               /* release: BCD */
    char manufacturer[128], model[128], serial[128]; /* UTF-8, printable; "" where it says none */
    enum usb_speed speed;
    unsigned units;           /* 1 to 16, of all interfaces, numbered on from one to the next */
    unsigned interface_count; /* of mass storage; at least 1 */
    struct usb_interface_facts {
        uint8_t number, protocol;   /* enum usb_protocol */
        unsigned first_unit, units; /* 0 units: there was no number left for them */
    } interfaces[USB_INTERFACES_SERVED_MAX];
    /* Class, subclass and protocol (0xCCSSPP) of all interfaces of all configurations, and its own
     * unless that is 0, without repeats. */
    uint32_t classes[USB_CLASSES_SAID_MAX];
    unsigned class_count;
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
    char serial[33];                          /* of the unit's own page; "": none */
    char name[65];                            /* that is its only in the world; "": none */
    bool removable, write_protected, caching, discards;
    uint32_t sector_size;
    uint64_t sectors;
    char error[160];
};

/* A medium came or went, or the stick is gone. Device thread. */
typedef void (*usb_unit_changed)(struct usb_stick *stick, unsigned unit, void *data);

/* 0: as it is said here. */
struct usb_stick_options {
    uint32_t command_ms;  /* for a command that reads or writes: 30 s */
    uint32_t recovery_ms; /* for each request of a reset recovery: 5 s */
    uint32_t patience_ms; /* for a unit that says that it becomes ready: 30 s */
    uint32_t look_ms; /* a removable medium is looked at so often when nothing else is done: 1 s */
    bool locked_in;   /* its media were by who had it before, who may not have let go of them */
};

/* Reads the descriptors, picks the interface (this waits, some seconds for each that is not
 * answered) and begins with its units, which goes on in usb_stick_run(). The transport is taken
 * over, also on failure. options may be NULL. -ENODEV, -EPROTO (descriptors that lie: err names
 * which), -ENOTSUP (no mass storage that we speak). */
int usb_stick_open(struct usb_transport *transport, const struct usb_stick_options *options,
                   usb_unit_changed changed, void *data, struct usb_stick **ret_stick,
                   struct error *err);
const struct usb_stick_facts *usb_stick_facts(const struct usb_stick *stick);
void usb_stick_unit(const struct usb_stick *stick, unsigned unit, struct usb_unit_facts *ret_facts);

/* The block device of a unit that is ready; NULL: it is not. It is a new one after each change of
 * the medium; the old one answers -ENOMEDIUM. What was got here is given back by
 * block_device_destroy(), from any thread, before the stick is closed. Device thread; requests may
 * come from any. */
struct block_device *usb_stick_disk(struct usb_stick *stick, unsigned unit);

/* Any thread. While it is held a medium that can be taken out is locked in, where the unit can lock
 * it (PREVENT ALLOW MEDIUM REMOVAL). One that is lost is not held any more. */
void usb_stick_hold(struct usb_stick *stick, unsigned unit, bool held);

/* After the requests that are there: flushes, stops the unit and lets go of its medium; result: 0
 * or what the flush came to. Device thread; done from within usb_stick_run(). -ENOMEDIUM: there is
 * nothing to let go of; -EBUSY: it is being done. */
int usb_stick_eject(struct usb_stick *stick, unsigned unit, void (*done)(int result, void *data),
                    void *data, struct error *err);

/* One turn of the device thread: waits for the transport and for requests, at most timeout_ms (-1:
 * for ever), and does what is to be done. 0, or -ENODEV once the stick is gone and every disk of it
 * was given back: until then it answers requests (-ENODEV). */
int usb_stick_run(struct usb_stick *stick, int timeout_ms, struct error *err);
void usb_stick_wake(struct usb_stick *stick); /* any thread: ends the wait of usb_stick_run() */

struct usb_stick_counts {
    uint64_t commands, failed;        /* failed: the unit said so */
    uint32_t recoveries, port_resets; /* of bulk-only transport */
};
void usb_stick_counts(const struct usb_stick *stick, struct usb_stick_counts *ret_counts);

/* Answers every request (-ENODEV), lets go of the interface; waits for what is under way. */
void usb_stick_close(struct usb_stick *stick);

#endif
