/*
 * A command is: CBW and data submitted together, up to BOT_DEPTH transfers of data in flight; when
 * all of these have ended, the CSW; when that says so, REQUEST SENSE in the same way. The table
 * says what follows what; paragraphs are those of the specification.
 */
#include "bot_internal.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include <base/alloc.h>

#include "transitions.h"

enum { REQUEST_RESET = 0xFF, REQUEST_MAX_LUN = 0xFE, UNITS_MAX = 16 };

/* Commands in a row that were lost: then the port is reset, then the device is given up. */
enum { LOST_RESET_PORT = 3, LOST_GIVE_UP = 9 };

struct transition TRANSITION(bot, enum bot_event);

static enum bot_event configure(struct bot *bot);
static enum bot_event send_command(struct bot *bot);
static enum bot_event clear_and_ask_status(struct bot *bot);
static enum bot_event ask_sense(struct bot *bot);
static enum bot_event end_good(struct bot *bot);
static enum bot_event end_failed(struct bot *bot);
static enum bot_event recover(struct bot *bot);
static enum bot_event recover_late(struct bot *bot);
static enum bot_event end_gone(struct bot *bot);
static enum bot_event end_no_memory(struct bot *bot);

/* Figures 1 and 2. What is not in the table does not happen in that state. */
static const struct transition transitions[BOT_STATES][BOT_EVENTS] = {
    [BOT_ATTACHED] =
        {[BOT_CONFIGURE] = {BOT_CONFIGURED, configure}, [BOT_GONE] = {BOT_UNCONNECTED, NULL}},
    [BOT_CONFIGURED] = {[BOT_START] = {BOT_READY, NULL}, [BOT_GONE] = {BOT_UNCONNECTED, NULL}},
    [BOT_READY] =
        {[BOT_SUBMIT] = {BOT_BUSY_DATA, send_command}, [BOT_GONE] = {BOT_UNCONNECTED, end_gone}},
    [BOT_BUSY_DATA] =
        {
            [BOT_MOVED] = {BOT_BUSY_STATUS, bot_receive_status},
            [BOT_STALLED] = {BOT_BUSY_STATUS, clear_and_ask_status}, /* 6.7.2, 6.7.3 */
            [BOT_CBW_REFUSED] = {BOT_READY, recover},                /* 6.6.1 */
            [BOT_PASSED] = {BOT_READY, end_good},
            [BOT_FAILED] = {BOT_SENSE_DATA, ask_sense},
            [BOT_PHASE_ERROR] = {BOT_READY, recover},
            [BOT_NO_MEMORY] = {BOT_READY, end_no_memory},
            [BOT_BROKEN] = {BOT_READY, recover},
            [BOT_LATE] = {BOT_READY, recover_late},
            [BOT_GONE] = {BOT_UNCONNECTED, end_gone},
        },
    [BOT_BUSY_STATUS] =
        {
            [BOT_PASSED] = {BOT_READY, end_good},
            [BOT_FAILED] = {BOT_SENSE_DATA, ask_sense},
            [BOT_PHASE_ERROR] = {BOT_READY, recover},                      /* 5.3.3.1 */
            [BOT_STALLED] = {BOT_BUSY_STATUS_AGAIN, clear_and_ask_status}, /* figure 2 */
            [BOT_EMPTY] = {BOT_BUSY_STATUS_AGAIN, bot_receive_status},
            [BOT_BROKEN] = {BOT_READY, recover}, /* 6.3, 6.5: no CSW */
            [BOT_LATE] = {BOT_READY, recover_late},
            [BOT_GONE] = {BOT_UNCONNECTED, end_gone},
        },
    [BOT_BUSY_STATUS_AGAIN] =
        {
            [BOT_PASSED] = {BOT_READY, end_good},
            [BOT_FAILED] = {BOT_SENSE_DATA, ask_sense},
            [BOT_PHASE_ERROR] = {BOT_READY, recover},
            [BOT_STALLED] = {BOT_READY, recover}, /* figure 2 */
            [BOT_EMPTY] = {BOT_READY, recover},
            [BOT_BROKEN] = {BOT_READY, recover},
            [BOT_LATE] = {BOT_READY, recover_late},
            [BOT_GONE] = {BOT_UNCONNECTED, end_gone},
        },
    [BOT_SENSE_DATA] =
        {
            [BOT_MOVED] = {BOT_SENSE_STATUS, bot_receive_status},
            [BOT_STALLED] = {BOT_SENSE_STATUS, clear_and_ask_status},
            [BOT_CBW_REFUSED] = {BOT_READY, recover},
            [BOT_PASSED] = {BOT_READY, end_failed},
            [BOT_FAILED] = {BOT_READY, end_failed},
            [BOT_PHASE_ERROR] = {BOT_READY, recover},
            [BOT_NO_MEMORY] = {BOT_READY, end_no_memory},
            [BOT_BROKEN] = {BOT_READY, recover},
            [BOT_LATE] = {BOT_READY, recover_late},
            [BOT_GONE] = {BOT_UNCONNECTED, end_gone},
        },
    [BOT_SENSE_STATUS] =
        {
            [BOT_PASSED] = {BOT_READY, end_failed},
            [BOT_FAILED] = {BOT_READY, end_failed}, /* then nobody knows why */
            [BOT_PHASE_ERROR] = {BOT_READY, recover},
            [BOT_STALLED] = {BOT_SENSE_STATUS_AGAIN, clear_and_ask_status},
            [BOT_EMPTY] = {BOT_SENSE_STATUS_AGAIN, bot_receive_status},
            [BOT_BROKEN] = {BOT_READY, recover},
            [BOT_LATE] = {BOT_READY, recover_late},
            [BOT_GONE] = {BOT_UNCONNECTED, end_gone},
        },
    [BOT_SENSE_STATUS_AGAIN] =
        {
            [BOT_PASSED] = {BOT_READY, end_failed},
            [BOT_FAILED] = {BOT_READY, end_failed},
            [BOT_PHASE_ERROR] = {BOT_READY, recover},
            [BOT_STALLED] = {BOT_READY, recover},
            [BOT_EMPTY] = {BOT_READY, recover},
            [BOT_BROKEN] = {BOT_READY, recover},
            [BOT_LATE] = {BOT_READY, recover_late},
            [BOT_GONE] = {BOT_UNCONNECTED, end_gone},
        },
};

void bot_happens(struct bot *bot, enum bot_event event)
{
    GO_ALONG(transitions, bot, event);
}

/* Actions. */

static enum bot_event configure(struct bot *bot)
{
    bot_word_transfers(bot);
    return BOT_START;
}

static enum bot_event send_command(struct bot *bot)
{
    bot->counts.commands++;
    return bot_send(bot);
}

static enum bot_event clear_and_ask_status(struct bot *bot)
{
    bool out = bot->state != BOT_BUSY_STATUS_AGAIN && bot->state != BOT_SENSE_STATUS_AGAIN &&
               bot->current->direction == USB_DATA_OUT;
    int r = usb_clear_halt(bot->transport, out ? bot->out : bot->in);
    if (r != 0)
        return r == -ENODEV ? BOT_GONE : BOT_BROKEN;
    return bot_receive_status(bot);
}

static enum bot_event ask_sense(struct bot *bot)
{
    bot->counts.failed++;
    bot->sense = (struct usb_command){
        .unit = bot->command->unit,
        .cdb = {0x03, [4] = USB_SENSE_MAX},
        .cdb_size = 6,
        .direction = USB_DATA_IN,
        .data = bot->sense_data,
        .length = USB_SENSE_MAX,
        .timeout_ms = bot->command->timeout_ms,
    };
    bot->current = &bot->sense;
    return send_command(bot);
}

static enum bot_event end(struct bot *bot, enum usb_outcome outcome)
{
    struct usb_command *command = bot->command;
    bot->command = bot->current = NULL;
    if (command) {
        command->outcome = outcome;
        command->done(command);
    }
    return BOT_NOTHING;
}

static enum bot_event end_good(struct bot *bot)
{
    bot->lost = 0;
    return end(bot, USB_COMMAND_GOOD);
}

static enum bot_event end_failed(struct bot *bot)
{
    bot->lost = 0;
    bot->command->sense_size = (uint8_t)bot->sense.moved;
    memcpy(bot->command->sense, bot->sense_data, bot->sense.moved);
    return end(bot, USB_COMMAND_FAILED);
}

static enum bot_event end_no_memory(struct bot *bot)
{
    return end(bot, USB_COMMAND_NO_MEMORY);
}

static enum bot_event end_gone(struct bot *bot)
{
    return end(bot, USB_COMMAND_GONE);
}

/* 5.3.4 */
static int reset_recovery(struct bot *bot)
{
    struct usb_setup reset = {0x21, REQUEST_RESET, 0, bot->interface, 0};
    bot->counts.recoveries++;
    int r = usb_control(bot->transport, &reset, NULL, bot->recovery_ms);
    if (r >= 0)
        r = usb_clear_halt(bot->transport, bot->in);
    if (r >= 0)
        r = usb_clear_halt(bot->transport, bot->out);
    return r;
}

static enum bot_event recover_as(struct bot *bot, enum usb_outcome outcome)
{
    bot->lost++;
    if (bot->lost >= LOST_GIVE_UP)
        return BOT_GONE;
    bool shared = bot->transport->shared; /* then it is tried again without the port's */
    int r = bot->lost % LOST_RESET_PORT || shared ? reset_recovery(bot) : -EIO;
    if (r < 0 && r != -ENODEV && !shared) {
        bot->counts.port_resets++;
        r = usb_reset(bot->transport);
    }
    return r == -ENODEV || (r < 0 && !shared) ? BOT_GONE : end(bot, outcome);
}

static enum bot_event recover(struct bot *bot)
{
    return recover_as(bot, USB_COMMAND_BROKEN);
}

static enum bot_event recover_late(struct bot *bot)
{
    return recover_as(bot, USB_COMMAND_LATE);
}

/* From outside. */

struct bot *bot_create(struct usb_transport *transport, uint8_t interface, uint8_t in, uint8_t out,
                       uint32_t recovery_ms)
{
    struct bot *bot = xnew(struct bot);
    bot->transport = transport;
    bot->interface = interface;
    bot->in = in;
    bot->out = out;
    bot->recovery_ms = recovery_ms;
    bot->state = BOT_ATTACHED;
    bot_happens(bot, BOT_CONFIGURE);
    return bot;
}

int bot_units(struct bot *bot)
{
    uint8_t last = 0;
    struct usb_setup setup = {0xA1, REQUEST_MAX_LUN, 0, bot->interface, 1};
    int r = usb_control(bot->transport, &setup, &last, bot->recovery_ms);
    if (r == -ENODEV) {
        bot_happens(bot, BOT_GONE);
        return r;
    }
    return r == 1 && last < UNITS_MAX ? last + 1 : 1;
}

int bot_submit(struct bot *bot, struct usb_command *command)
{
    if (bot->state != BOT_READY)
        return bot->state == BOT_UNCONNECTED ? -ENODEV : -EBUSY;
    command->sense_size = 0;
    bot->command = bot->current = command;
    bot_happens(bot, BOT_SUBMIT);
    return 0;
}

void bot_cancel(struct bot *bot)
{
    if (!bot->command)
        return;
    if (bot->worst == BOT_NOTHING)
        bot->worst = BOT_BROKEN;
    bot_cancel_transfers(bot);
}

const struct bot_counts *bot_counts(const struct bot *bot)
{
    return &bot->counts;
}

void bot_destroy(struct bot *bot)
{
    free(bot);
}
