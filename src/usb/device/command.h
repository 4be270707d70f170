/* A command of SCSI on its way to a unit and back. */
#ifndef USB_COMMAND_H
#define USB_COMMAND_H

#include <stdint.h>

enum { USB_CDB_MAX = 16, USB_SENSE_MAX = 18 };

enum usb_direction { USB_NO_DATA, USB_DATA_IN, USB_DATA_OUT };

enum usb_outcome {
    USB_COMMAND_GOOD,
    USB_COMMAND_FAILED,    /* the unit says so; sense says why, where sense_size is not 0 */
    USB_COMMAND_BROKEN,    /* it was lost on its way; the way is there again */
    USB_COMMAND_LATE,      /* the same, since nothing came in time */
    USB_COMMAND_SWEPT,     /* the same, and for another one's sake: it may be sent again */
    USB_COMMAND_BUSY,      /* the unit does not take it now */
    USB_COMMAND_NO_MEMORY, /* it was not sent: the machine has none left for transfers now */
    USB_COMMAND_GONE,      /* there is no device any more; so for all that follow */
};

struct usb_command {
    uint8_t unit;
    uint8_t cdb[USB_CDB_MAX], cdb_size;
    enum usb_direction direction;
    void *data; /* borrowed until done */
    uint32_t length;
    uint32_t timeout_ms;

    void (*done)(struct usb_command *command); /* the next one may be submitted from within */
    void *owner;

    enum usb_outcome outcome;
    uint32_t moved;   /* bytes of data that really were */
    uint32_t residue; /* bytes that the device says were not, or are worth nothing */
    uint8_t sense[USB_SENSE_MAX], sense_size;
};

#endif
