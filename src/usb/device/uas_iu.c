#include "uas_iu.h"

#include <errno.h>
#include <string.h>

#include "wire.h"

enum { COMMAND = 0x01, TASK_MANAGEMENT = 0x05 };
enum { HEADER_SIZE = 4, RESPONSE_SIZE = 8, SENSE_SIZE = 16 };

void uas_word_command(uint8_t unit[UAS_COMMAND_SIZE], uint16_t tag,
                      const struct usb_command *command)
{
    memset(unit, 0, UAS_COMMAND_SIZE);
    unit[0] = COMMAND;
    put_be16(unit + 2, tag);
    unit[9] = command->unit; /* peripheral device addressing: SAM-4, 4.6.8 */
    memcpy(unit + 16, command->cdb, command->cdb_size);
}

void uas_word_function(uint8_t unit[UAS_FUNCTION_SIZE], uint16_t tag, enum uas_function function,
                       uint16_t task, uint8_t lun)
{
    memset(unit, 0, UAS_FUNCTION_SIZE);
    unit[0] = TASK_MANAGEMENT;
    put_be16(unit + 2, tag);
    unit[4] = (uint8_t)function;
    put_be16(unit + 6, task);
    unit[9] = lun;
}

static int parse_sense(const uint8_t *data, size_t size, struct uas_iu *iu)
{
    if (size < SENSE_SIZE)
        return -EPROTO;
    iu->status = data[6];
    iu->sense = data + SENSE_SIZE;
    iu->sense_size = get_be16(data + 14);
    return iu->sense_size > size - SENSE_SIZE ? -EPROTO : 0;
}

int uas_parse(const uint8_t *data, size_t size, struct uas_iu *ret_iu)
{
    int r = 0;
    if (size < HEADER_SIZE)
        return -EPROTO;
    struct uas_iu iu = {.kind = data[0], .tag = get_be16(data + 2)};
    switch (data[0]) {
    case UAS_SENSE:
        r = parse_sense(data, size, &iu);
        break;
    case UAS_RESPONSE:
        r = size < RESPONSE_SIZE ? -EPROTO : 0;
        iu.status = r == 0 ? data[7] : 0;
        break;
    case UAS_READ_READY:
    case UAS_WRITE_READY:
        break;
    default:
        r = -EPROTO;
    }
    if (r == 0)
        *ret_iu = iu;
    return r;
}
