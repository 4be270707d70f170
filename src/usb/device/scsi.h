/*
 * SCSI: commands in words of the unit, and what units answer, which is not to be believed.
 *
 * Parsers take any bytes; false or -EPROTO: these are none of that kind. What is beyond their end
 * is zero.
 */
#ifndef USB_SCSI_H
#define USB_SCSI_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "command.h"

enum {
    SCSI_INQUIRY_SIZE = 36, /* sticks are known that stumble over more */
    SCSI_PAGE_SIZE = 255,
    SCSI_LUNS_SIZE = 8 + 16 * 8,
    SCSI_MODES_SIZE = 192,
    SCSI_UNMAP_SIZE = 24,
};

enum scsi_page { /* vital product data: SPC-4 7.8, SBC-3 6.6 */
                 SCSI_PAGE_LIST = 0x00,
                 SCSI_PAGE_SERIAL = 0x80,
                 SCSI_PAGE_NAMES = 0x83,
                 SCSI_PAGE_LIMITS = 0xB0,
                 SCSI_PAGE_PROVISIONING = 0xB2,
};

/* These fill in what the command is; unit, time-out and callback are the caller's. */
void scsi_test_unit_ready(struct usb_command *command);
void scsi_inquiry(struct usb_command *command, void *data);
void scsi_inquiry_page(struct usb_command *command, enum scsi_page page, void *data);
void scsi_report_luns(struct usb_command *command, void *data);
void scsi_read_capacity10(struct usb_command *command, void *data);
void scsi_read_capacity16(struct usb_command *command, void *data);
void scsi_mode_sense6(struct usb_command *command, void *data);
void scsi_mode_sense10(struct usb_command *command, void *data);
void scsi_start_stop(struct usb_command *command, bool start, bool load_or_eject);
void scsi_prevent_removal(struct usb_command *command, bool prevent);

/* Of 10 bytes where sector and count fit, else of 16; count at most UINT32_MAX / sector_size. */
void scsi_read(struct usb_command *command, uint64_t sector, uint32_t count, uint32_t sector_size,
               void *data);
void scsi_write(struct usb_command *command, uint64_t sector, uint32_t count, uint32_t sector_size,
                void *data);
void scsi_synchronize_cache(struct usb_command *command, bool sixteen);
void scsi_unmap(struct usb_command *command, uint64_t sector, uint32_t count, void *data);
/* data: a sector of zeros. */
void scsi_write_same_unmap(struct usb_command *command, uint64_t sector, uint32_t count,
                           uint32_t sector_size, void *data);

/* SPC-4 4.5; fixed and descriptor format. */
enum scsi_key {
    SCSI_NO_SENSE = 0,
    SCSI_RECOVERED = 1,
    SCSI_NOT_READY = 2,
    SCSI_MEDIUM_ERROR = 3,
    SCSI_HARDWARE_ERROR = 4,
    SCSI_ILLEGAL_REQUEST = 5,
    SCSI_UNIT_ATTENTION = 6,
    SCSI_DATA_PROTECT = 7,
    SCSI_ABORTED = 0xB,
};

struct scsi_sense {
    enum scsi_key key;
    uint8_t code, qualifier;
    bool deferred; /* of a command before this one */
    bool has_information;
    uint64_t information; /* often the sector */
};
bool scsi_parse_sense(const uint8_t *data, size_t size, struct scsi_sense *ret_sense);

struct scsi_inquiry {
    uint8_t qualifier, type; /* qualifier 0: there is a unit; type 0: a disk */
    uint8_t version;         /* 5: SPC-3 */
    bool removable;
    char vendor[9], product[17], revision[5]; /* printable, without spaces at the end */
};
int scsi_parse_inquiry(const uint8_t *data, size_t size, struct scsi_inquiry *ret_inquiry);

/* Whether the list of pages has this one. */
bool scsi_has_page(const uint8_t *list, size_t size, enum scsi_page page);
/* Printable. False: none. */
bool scsi_parse_serial(const uint8_t *data, size_t size, char *text, size_t room);
/* The first name of the unit itself that is a text or a number, the latter in hex digits. */
bool scsi_parse_name(const uint8_t *data, size_t size, char *text, size_t room);

struct scsi_limits {
    uint32_t transfer;    /* sectors; 0: not said */
    uint32_t unmap;       /* sectors; 0: no UNMAP */
    uint32_t descriptors; /* of an UNMAP */
    uint64_t write_same;  /* sectors; 0: not said */
};
bool scsi_parse_limits(const uint8_t *data, size_t size, struct scsi_limits *ret_limits);

struct scsi_provisioning {
    bool unmap, write_same;
};
bool scsi_parse_provisioning(const uint8_t *data, size_t size,
                             struct scsi_provisioning *ret_provisioning);

/* Bit n: there is a unit n, of 0 to 15. */
bool scsi_parse_luns(const uint8_t *data, size_t size, uint16_t *ret_units);

struct scsi_capacity {
    uint64_t sectors; /* 0: more than the command can say */
    uint32_t sector_size;
    bool discards; /* LBPME */
};
int scsi_parse_capacity10(const uint8_t *data, size_t size, struct scsi_capacity *ret_capacity);
int scsi_parse_capacity16(const uint8_t *data, size_t size, struct scsi_capacity *ret_capacity);

struct scsi_modes {
    bool write_protected;
    bool has_caching, caching; /* caching: written data may be in a cache */
};
int scsi_parse_modes(const uint8_t *data, size_t size, bool ten, struct scsi_modes *ret_modes);

#endif
