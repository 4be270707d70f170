/*
 * libFuzzer target: what units answer. The first byte says to what.
 *
 * What was read is within its limits, and texts are printable.
 */
#include <stdlib.h>
#include <string.h>

#include "../../src/usb/device/scsi.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void look(bool good)
{
    if (!good)
        abort();
}

static void look_at_text(const char *text, size_t room)
{
    look(strlen(text) < room);
    for (; *text; text++)
        look(*text >= 0x20 && *text < 0x7F);
}

static void read_inquiry(const uint8_t *data, size_t size)
{
    struct scsi_inquiry inquiry;
    if (scsi_parse_inquiry(data, size, &inquiry) != 0)
        return;
    look_at_text(inquiry.vendor, sizeof(inquiry.vendor));
    look_at_text(inquiry.product, sizeof(inquiry.product));
    look_at_text(inquiry.revision, sizeof(inquiry.revision));
}

static void read_pages(const uint8_t *data, size_t size)
{
    struct scsi_limits limits;
    struct scsi_provisioning provisioning;
    char text[20];
    scsi_has_page(data, size, SCSI_PAGE_LIMITS);
    scsi_parse_limits(data, size, &limits);
    scsi_parse_provisioning(data, size, &provisioning);
    if (scsi_parse_serial(data, size, text, sizeof(text)))
        look_at_text(text, sizeof(text));
    if (scsi_parse_name(data, size, text, sizeof(text)))
        look_at_text(text, sizeof(text));
}

static void read_capacity(const uint8_t *data, size_t size, bool sixteen)
{
    struct scsi_capacity capacity;
    int r = sixteen ? scsi_parse_capacity16(data, size, &capacity)
                    : scsi_parse_capacity10(data, size, &capacity);
    if (r == 0)
        look(capacity.sector_size >= 512 && capacity.sector_size <= 4096 &&
             capacity.sectors <= INT64_MAX / capacity.sector_size);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct scsi_sense sense;
    struct scsi_modes modes;
    uint16_t units;
    if (size == 0)
        return 0;
    /* Memory of its own, so that a byte too far is seen. */
    uint8_t *copy = malloc(size - 1 ? size - 1 : 1);
    memcpy(copy, data + 1, size - 1);
    size--;
    switch (data[0] % 7) {
    case 0:
        if (scsi_parse_sense(copy, size, &sense))
            look(sense.key <= 0x0F);
        break;
    case 1:
        read_inquiry(copy, size);
        break;
    case 2:
        read_pages(copy, size);
        break;
    case 3:
        if (scsi_parse_luns(copy, size, &units))
            look(units != 0);
        break;
    case 4:
        read_capacity(copy, size, false);
        break;
    case 5:
        read_capacity(copy, size, true);
        break;
    default:
        scsi_parse_modes(copy, size, size % 2, &modes);
    }
    free(copy);
    return 0;
}
