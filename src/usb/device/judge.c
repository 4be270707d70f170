/* What the end of a command means. */
#include "stick.h"

uint32_t stick_moved(const struct channel *channel, const struct usb_command *command)
{
    uint32_t said = command->length - command->residue;
    return channel->residue_lies || command->moved < said ? command->moved : said;
}

/* SPC-4, annex on codes. */
enum {
    CODE_NOT_READY = 0x04,
    CODE_CHANGED = 0x28,
    CODE_RESET = 0x29,
    CODE_PARAMETERS = 0x2A,
    CODE_NO_MEDIUM = 0x3A,
    CODE_OPERATING = 0x3F,
    WANTS_START = 2,
    CAPACITY_CHANGED = 9, /* of CODE_PARAMETERS */
    OTHER_INQUIRY = 3,    /* of CODE_OPERATING: INQUIRY data have changed */
};

static enum verdict judge_attention(const struct scsi_sense *sense)
{
    switch (sense->code) {
    case CODE_CHANGED:
        return VERDICT_CHANGED;
    case CODE_RESET:
        return VERDICT_RESET;
    case CODE_PARAMETERS: /* what was known of it is wrong: it is looked at anew */
        return sense->qualifier == CAPACITY_CHANGED ? VERDICT_CHANGED : VERDICT_AGAIN;
    case CODE_OPERATING:
        return sense->qualifier == OTHER_INQUIRY ? VERDICT_CHANGED : VERDICT_AGAIN;
    default:
        return VERDICT_AGAIN;
    }
}

static enum verdict judge_sense(const struct scsi_sense *sense)
{
    switch (sense->key) {
    case SCSI_RECOVERED:
        return VERDICT_GOOD;
    case SCSI_NOT_READY:
        if (sense->code == CODE_NO_MEDIUM)
            return VERDICT_EMPTY;
        if (sense->code == CODE_NOT_READY && sense->qualifier == WANTS_START)
            return VERDICT_START;
        return VERDICT_WAIT;
    case SCSI_ILLEGAL_REQUEST:
        return VERDICT_REFUSED;
    case SCSI_UNIT_ATTENTION:
        return judge_attention(sense);
    case SCSI_DATA_PROTECT:
        return VERDICT_PROTECTED;
    case SCSI_MEDIUM_ERROR:
    case SCSI_HARDWARE_ERROR:
        return VERDICT_ERROR;
    default: /* aborted, and what has no meaning for disks */
        return VERDICT_LOST;
    }
}

enum verdict judge(const struct usb_command *command)
{
    struct scsi_sense sense;
    if (command->outcome == USB_COMMAND_GOOD)
        return VERDICT_GOOD;
    if (command->outcome == USB_COMMAND_LATE)
        return VERDICT_LATE;
    if (command->outcome == USB_COMMAND_NO_MEMORY || command->outcome == USB_COMMAND_BUSY)
        return VERDICT_WAIT;
    if (command->outcome == USB_COMMAND_SWEPT)
        return VERDICT_AGAIN;
    if (command->outcome != USB_COMMAND_FAILED ||
        !scsi_parse_sense(command->sense, command->sense_size, &sense))
        return VERDICT_LOST;
    /* A write before this one has failed, and nobody was told. */
    return sense.deferred ? VERDICT_WRITE_LOST : judge_sense(&sense);
}
