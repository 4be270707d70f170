/* Bulk-only transport's parts: bot.c what follows what, bot_transfers.c the transfers of a command.
 */
#ifndef USB_BOT_INTERNAL_H
#define USB_BOT_INTERNAL_H

#include "bot.h"

enum { BOT_CBW_SIZE = 31, BOT_CSW_SIZE = 13, BOT_DEPTH = 16 };

enum bot_state {
    BOT_UNCONNECTED = 1,
    BOT_ATTACHED,
    BOT_CONFIGURED,
    BOT_READY,
    BOT_BUSY_DATA, /* CBW and data are under way */
    BOT_BUSY_STATUS,
    BOT_BUSY_STATUS_AGAIN,
    BOT_SENSE_DATA,
    BOT_SENSE_STATUS,
    BOT_SENSE_STATUS_AGAIN,
    BOT_STATES,
};

enum bot_event {
    BOT_NOTHING,
    BOT_CONFIGURE,
    BOT_START,
    BOT_SUBMIT,
    BOT_MOVED,       /* CBW and as much data as the device wants */
    BOT_STALLED,     /* data, or the CSW */
    BOT_CBW_REFUSED, /* the CBW was stalled */
    BOT_PASSED,      /* a CSW that is valid and meaningful */
    BOT_FAILED,
    BOT_PHASE_ERROR,
    BOT_EMPTY,     /* a packet of no bytes instead of a CSW */
    BOT_NO_MEMORY, /* nothing was sent */
    BOT_BROKEN,
    BOT_LATE,
    BOT_GONE,
    BOT_EVENTS,
};

struct bot {
    struct usb_transport *transport;
    uint8_t interface, in, out;
    uint32_t recovery_ms, tag;
    enum bot_state state;
    struct usb_command *command; /* the one that was submitted */
    struct usb_command *current; /* that, or sense */
    struct usb_command sense;
    uint8_t sense_data[USB_SENSE_MAX];
    unsigned lost; /* commands in a row */
    struct bot_counts counts;

    /* Transfers of a phase. */
    struct usb_transfer cbw, csw, data[BOT_DEPTH];
    uint8_t cbw_data[BOT_CBW_SIZE], csw_data[BOT_CSW_SIZE];
    unsigned open;        /* under way */
    enum bot_event worst; /* of them; BOT_NOTHING: all is well */
    uint32_t data_given;  /* bytes submitted */
    uint32_t piece;       /* bytes of one transfer, at most */
    bool data_short;      /* the device has no more of it */
    bool csw_caught;      /* it came where data were expected */
};

/* bot.c */
void bot_happens(struct bot *bot, enum bot_event event);

/* bot_transfers.c */
void bot_word_transfers(struct bot *bot); /* what of them never changes */
/* The current command's CBW and data. BOT_NOTHING: they are under way, as the next one. */
enum bot_event bot_send(struct bot *bot);
enum bot_event bot_receive_status(struct bot *bot);
void bot_cancel_transfers(struct bot *bot);

#endif
