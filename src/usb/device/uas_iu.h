/*
 * Information units of UAS (USB Attached SCSI, r04, chapter 6): words for the command pipe, and
 * what the status pipe says, which is not to be believed.
 */
#ifndef USB_UAS_IU_H
#define USB_UAS_IU_H

#include <stddef.h>

#include "command.h"

enum {
    UAS_COMMAND_SIZE = 32,
    UAS_FUNCTION_SIZE = 16,
    UAS_STATUS_MAX = 512, /* bytes that are asked for; a sense unit has at most 16 and 252 */
};

enum uas_function { /* table 20 */
                    UAS_ABORT_TASK = 0x01,
                    UAS_RESET_UNIT = 0x08,
};

enum uas_kind {
    UAS_SENSE = 0x03, /* a command has ended */
    UAS_RESPONSE = 0x04,
    UAS_READ_READY = 0x06,
    UAS_WRITE_READY = 0x07,
};

enum { /* table 18 */
       UAS_FUNCTION_COMPLETE = 0x00,
       UAS_FUNCTION_SUCCEEDED = 0x08,
};

/* SAM-4, 5.3.1 */
enum uas_status {
    UAS_GOOD = 0x00,
    UAS_CHECK_CONDITION = 0x02,
    UAS_CONDITION_MET = 0x04,
    UAS_BUSY = 0x08,
    UAS_SET_FULL = 0x28,
    UAS_ABORTED = 0x40,
};

struct uas_iu {
    enum uas_kind kind;
    uint16_t tag;
    uint8_t status;       /* of UAS_SENSE: of SAM; of UAS_RESPONSE: its code */
    const uint8_t *sense; /* within the unit */
    size_t sense_size;
};

void uas_word_command(uint8_t unit[UAS_COMMAND_SIZE], uint16_t tag,
                      const struct usb_command *command);
/* task: the tag of the command that UAS_ABORT_TASK is about. */
void uas_word_function(uint8_t unit[UAS_FUNCTION_SIZE], uint16_t tag, enum uas_function function,
                       uint16_t task, uint8_t lun);

/* 0, -EPROTO: it is none, or not as long as it says. */
int uas_parse(const uint8_t *data, size_t size, struct uas_iu *ret_iu);

#endif
