#include <errno.h>
#include <string.h>

#include "scsi.h"
#include "wire.h"

/* Texts: ASCII, padded with spaces; what is none of it is '?'. */
static void copy_text(const uint8_t *data, size_t size, char *text, size_t room)
{
    size_t length = size < room ? size : room - 1;
    for (size_t i = 0; i < length; i++)
        text[i] = data[i] >= 0x20 && data[i] < 0x7F ? (char)data[i] : data[i] == 0 ? ' ' : '?';
    while (length > 0 && text[length - 1] == ' ')
        length--;
    text[length] = '\0';
}

/* SPC-4 4.5.2: descriptors behind the header of 8 bytes. */
static void parse_descriptors(const uint8_t *data, size_t size, struct scsi_sense *sense)
{
    for (size_t at = 8; at + 2 <= size; at += 2u + data[at + 1]) {
        if (data[at] != 0 || data[at + 1] < 10 || at + 12 > size)
            continue;
        sense->has_information = data[at + 2] & 0x80;
        sense->information = get_be64(data + at + 4);
    }
}

bool scsi_parse_sense(const uint8_t *data, size_t size, struct scsi_sense *ret_sense)
{
    struct scsi_sense sense = {0};
    uint8_t format = size > 0 ? data[0] & 0x7F : 0;
    if (format < 0x70 || format > 0x73 || size < (format < 0x72 ? 14 : 8))
        return false;
    sense.deferred = format & 1;
    if (format < 0x72) {
        sense.key = data[2] & 0x0F;
        sense.code = data[12];
        sense.qualifier = data[13];
        sense.has_information = data[0] & 0x80;
        sense.information = get_be32(data + 3);
    } else {
        sense.key = data[1] & 0x0F;
        sense.code = data[2];
        sense.qualifier = data[3];
        parse_descriptors(data, size, &sense);
    }
    *ret_sense = sense;
    return true;
}

int scsi_parse_inquiry(const uint8_t *data, size_t size, struct scsi_inquiry *ret_inquiry)
{
    if (size < SCSI_INQUIRY_SIZE)
        return -EPROTO;
    *ret_inquiry = (struct scsi_inquiry){
        .qualifier = data[0] >> 5,
        .type = data[0] & 0x1F,
        .version = data[2],
        .removable = data[1] & 0x80,
    };
    copy_text(data + 8, 8, ret_inquiry->vendor, sizeof(ret_inquiry->vendor));
    copy_text(data + 16, 16, ret_inquiry->product, sizeof(ret_inquiry->product));
    copy_text(data + 32, 4, ret_inquiry->revision, sizeof(ret_inquiry->revision));
    return 0;
}

/* Bytes of the page behind its header of 4; -1: it is another one. */
static int page_size(const uint8_t *data, size_t size, enum scsi_page page)
{
    if (size < 4 || data[1] != page)
        return -1;
    size_t said = get_be16(data + 2);
    return (int)(said < size - 4 ? said : size - 4);
}

bool scsi_has_page(const uint8_t *list, size_t size, enum scsi_page page)
{
    int count = page_size(list, size, SCSI_PAGE_LIST);
    return count > 0 && memchr(list + 4, page, (size_t)count);
}

bool scsi_parse_serial(const uint8_t *data, size_t size, char *text, size_t room)
{
    int length = page_size(data, size, SCSI_PAGE_SERIAL);
    if (length <= 0)
        return false;
    copy_text(data + 4, (size_t)length, text, room);
    return text[0] != '\0';
}

enum { BINARY = 1, ASCII = 2, UTF8 = 3 }; /* code sets */

bool scsi_parse_name(const uint8_t *data, size_t size, char *text, size_t room)
{
    int length = page_size(data, size, SCSI_PAGE_NAMES);
    for (int at = 0; at + 4 <= length;) {
        const uint8_t *name = data + 4 + at;
        int name_size = name[3];
        if (name_size > length - at - 4)
            return false;
        at += 4 + name_size;
        if ((name[1] & 0x30) != 0 || name_size == 0) /* not the unit's */
            continue;
        if ((name[0] & 0x0F) == ASCII || (name[0] & 0x0F) == UTF8) {
            copy_text(name + 4, (size_t)name_size, text, room);
            return text[0] != '\0';
        }
        if ((name[0] & 0x0F) != BINARY)
            continue;
        size_t digits = 0;
        for (int i = 0; i < name_size && digits + 2 < room; i++) {
            text[digits++] = "0123456789abcdef"[name[4 + i] >> 4];
            text[digits++] = "0123456789abcdef"[name[4 + i] & 15];
        }
        text[digits] = '\0';
        return true;
    }
    return false;
}

bool scsi_parse_limits(const uint8_t *data, size_t size, struct scsi_limits *ret_limits)
{
    int length = page_size(data, size, SCSI_PAGE_LIMITS);
    if (length < 0x0C)
        return false;
    *ret_limits = (struct scsi_limits){.transfer = get_be32(data + 8)};
    if (length >= 0x18) { /* later pages are longer */
        ret_limits->unmap = get_be32(data + 20);
        ret_limits->descriptors = get_be32(data + 24);
    }
    if (length >= 0x28)
        ret_limits->write_same = get_be64(data + 36);
    return true;
}

bool scsi_parse_provisioning(const uint8_t *data, size_t size,
                             struct scsi_provisioning *ret_provisioning)
{
    if (page_size(data, size, SCSI_PAGE_PROVISIONING) < 4)
        return false;
    *ret_provisioning = (struct scsi_provisioning){data[5] & 0x80, data[5] & 0x40};
    return true;
}

bool scsi_parse_luns(const uint8_t *data, size_t size, uint16_t *ret_units)
{
    if (size < 8)
        return false;
    size_t said = get_be32(data), length = said < size - 8 ? said : size - 8;
    uint16_t units = 0;
    /* Peripheral addressing: bus 0 and the number, the rest zero. */
    for (size_t at = 8; at + 8 <= 8 + length; at += 8)
        if (data[at] == 0 && data[at + 1] < 16)
            units = (uint16_t)(units | 1U << data[at + 1]);
    *ret_units = units;
    return units != 0;
}

static bool is_sector_size(uint32_t size)
{
    return size == 512 || size == 1024 || size == 2048 || size == 4096;
}

int scsi_parse_capacity10(const uint8_t *data, size_t size, struct scsi_capacity *ret_capacity)
{
    if (size < 8 || !is_sector_size(get_be32(data + 4)))
        return -EPROTO;
    uint32_t last = get_be32(data);
    *ret_capacity = (struct scsi_capacity){
        .sectors = last == UINT32_MAX ? 0 : (uint64_t)last + 1,
        .sector_size = get_be32(data + 4),
    };
    return 0;
}

int scsi_parse_capacity16(const uint8_t *data, size_t size, struct scsi_capacity *ret_capacity)
{
    if (size < 12 || !is_sector_size(get_be32(data + 8)))
        return -EPROTO;
    uint64_t last = get_be64(data);
    uint32_t sector_size = get_be32(data + 8);
    if (last >= INT64_MAX / sector_size) /* its bytes can be counted */
        return -EPROTO;
    *ret_capacity = (struct scsi_capacity){
        .sectors = last + 1,
        .sector_size = sector_size,
        .discards = size > 14 && (data[14] & 0x80),
    };
    return 0;
}

enum { CACHING_PAGE = 8 };

int scsi_parse_modes(const uint8_t *data, size_t size, bool ten, struct scsi_modes *ret_modes)
{
    struct scsi_modes modes = {0};
    size_t header = ten ? 8 : 4;
    if (size < header)
        return -EPROTO;
    size_t said = ten ? get_be16(data) + 2u : data[0] + 1u;
    size_t descriptors = ten ? get_be16(data + 6) : data[3];
    if (said < size)
        size = said;
    modes.write_protected = data[ten ? 3 : 2] & 0x80;
    for (size_t at = header + descriptors; at + 3 <= size;) {
        bool subpage = data[at] & 0x40;
        size_t page = subpage ? 4u : 2u + data[at + 1];
        if (subpage && at + 4 <= size)
            page += get_be16(data + at + 2);
        if ((data[at] & 0x7F) == CACHING_PAGE && data[at + 1] >= 1) {
            modes.has_caching = true;
            modes.caching = data[at + 2] & 4; /* WCE */
        }
        at += page;
    }
    *ret_modes = modes;
    return 0;
}
