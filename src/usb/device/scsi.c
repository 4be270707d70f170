#include "scsi.h"

#include <string.h>

#include "wire.h"

enum operation { /* SPC-4 and SBC-3, each in its paragraph of the same name */
                 TEST_UNIT_READY = 0x00,
                 INQUIRY = 0x12,
                 MODE_SENSE_6 = 0x1A,
                 START_STOP_UNIT = 0x1B,
                 PREVENT_ALLOW_MEDIUM_REMOVAL = 0x1E,
                 READ_CAPACITY_10 = 0x25,
                 READ_10 = 0x28,
                 WRITE_10 = 0x2A,
                 SYNCHRONIZE_CACHE_10 = 0x35,
                 UNMAP = 0x42,
                 MODE_SENSE_10 = 0x5A,
                 READ_16 = 0x88,
                 WRITE_16 = 0x8A,
                 SYNCHRONIZE_CACHE_16 = 0x91,
                 WRITE_SAME_16 = 0x93,
                 SERVICE_ACTION_IN_16 = 0x9E,
                 REPORT_LUNS = 0xA0,
};

enum { READ_CAPACITY_16 = 0x10, CAPACITY_10_SIZE = 8, CAPACITY_16_SIZE = 32 };
enum { ALL_PAGES = 0x3F };

static uint8_t *word(struct usb_command *command, enum operation operation, uint8_t size,
                     enum usb_direction direction, void *data, uint32_t length)
{
    memset(command->cdb, 0, sizeof(command->cdb));
    command->cdb[0] = (uint8_t)operation;
    command->cdb_size = size;
    command->direction = length ? direction : USB_NO_DATA;
    command->data = data;
    command->length = length;
    return command->cdb;
}

void scsi_test_unit_ready(struct usb_command *command)
{
    word(command, TEST_UNIT_READY, 6, USB_NO_DATA, NULL, 0);
}

void scsi_inquiry(struct usb_command *command, void *data)
{
    uint8_t *cdb = word(command, INQUIRY, 6, USB_DATA_IN, data, SCSI_INQUIRY_SIZE);
    put_be16(cdb + 3, SCSI_INQUIRY_SIZE);
}

void scsi_inquiry_page(struct usb_command *command, enum scsi_page page, void *data)
{
    uint8_t *cdb = word(command, INQUIRY, 6, USB_DATA_IN, data, SCSI_PAGE_SIZE);
    cdb[1] = 1;
    cdb[2] = (uint8_t)page;
    put_be16(cdb + 3, SCSI_PAGE_SIZE);
}

void scsi_report_luns(struct usb_command *command, void *data)
{
    uint8_t *cdb = word(command, REPORT_LUNS, 12, USB_DATA_IN, data, SCSI_LUNS_SIZE);
    put_be32(cdb + 6, SCSI_LUNS_SIZE);
}

void scsi_read_capacity10(struct usb_command *command, void *data)
{
    word(command, READ_CAPACITY_10, 10, USB_DATA_IN, data, CAPACITY_10_SIZE);
}

void scsi_read_capacity16(struct usb_command *command, void *data)
{
    uint8_t *cdb = word(command, SERVICE_ACTION_IN_16, 16, USB_DATA_IN, data, CAPACITY_16_SIZE);
    cdb[1] = READ_CAPACITY_16;
    put_be32(cdb + 10, CAPACITY_16_SIZE);
}

void scsi_mode_sense6(struct usb_command *command, void *data)
{
    uint8_t *cdb = word(command, MODE_SENSE_6, 6, USB_DATA_IN, data, SCSI_MODES_SIZE);
    cdb[2] = ALL_PAGES;
    cdb[4] = SCSI_MODES_SIZE;
}

void scsi_mode_sense10(struct usb_command *command, void *data)
{
    uint8_t *cdb = word(command, MODE_SENSE_10, 10, USB_DATA_IN, data, SCSI_MODES_SIZE);
    cdb[2] = ALL_PAGES;
    put_be16(cdb + 7, SCSI_MODES_SIZE);
}

void scsi_start_stop(struct usb_command *command, bool start, bool load_or_eject)
{
    uint8_t *cdb = word(command, START_STOP_UNIT, 6, USB_NO_DATA, NULL, 0);
    cdb[4] = (uint8_t)(start | load_or_eject << 1);
}

void scsi_prevent_removal(struct usb_command *command, bool prevent)
{
    uint8_t *cdb = word(command, PREVENT_ALLOW_MEDIUM_REMOVAL, 6, USB_NO_DATA, NULL, 0);
    cdb[4] = prevent;
}

static void move(struct usb_command *command, bool write, uint64_t sector, uint32_t count,
                 uint32_t sector_size, void *data)
{
    enum usb_direction direction = write ? USB_DATA_OUT : USB_DATA_IN;
    if (sector <= UINT32_MAX && count <= UINT16_MAX) {
        uint8_t *cdb =
            word(command, write ? WRITE_10 : READ_10, 10, direction, data, count * sector_size);
        put_be32(cdb + 2, (uint32_t)sector);
        put_be16(cdb + 7, (uint16_t)count);
    } else {
        uint8_t *cdb =
            word(command, write ? WRITE_16 : READ_16, 16, direction, data, count * sector_size);
        put_be64(cdb + 2, sector);
        put_be32(cdb + 10, count);
    }
}

void scsi_read(struct usb_command *command, uint64_t sector, uint32_t count, uint32_t sector_size,
               void *data)
{
    move(command, false, sector, count, sector_size, data);
}

void scsi_write(struct usb_command *command, uint64_t sector, uint32_t count, uint32_t sector_size,
                void *data)
{
    move(command, true, sector, count, sector_size, data);
}

void scsi_synchronize_cache(struct usb_command *command, bool sixteen)
{
    if (sixteen)
        word(command, SYNCHRONIZE_CACHE_16, 16, USB_NO_DATA, NULL, 0);
    else
        word(command, SYNCHRONIZE_CACHE_10, 10, USB_NO_DATA, NULL, 0);
}

void scsi_unmap(struct usb_command *command, uint64_t sector, uint32_t count, void *data)
{
    uint8_t *cdb = word(command, UNMAP, 10, USB_DATA_OUT, data, SCSI_UNMAP_SIZE);
    uint8_t *list = data;
    put_be16(cdb + 7, SCSI_UNMAP_SIZE);
    memset(list, 0, SCSI_UNMAP_SIZE);
    put_be16(list, SCSI_UNMAP_SIZE - 2);
    put_be16(list + 2, 16); /* one descriptor */
    put_be64(list + 8, sector);
    put_be32(list + 16, count);
}

void scsi_write_same_unmap(struct usb_command *command, uint64_t sector, uint32_t count,
                           uint32_t sector_size, void *data)
{
    uint8_t *cdb = word(command, WRITE_SAME_16, 16, USB_DATA_OUT, data, sector_size);
    cdb[1] = 8; /* UNMAP */
    put_be64(cdb + 2, sector);
    put_be32(cdb + 10, count);
}
