/*
 * A command is: CBW and data submitted together, up to DEPTH transfers of data in flight; when all
 * of these have ended, the CSW; when that says so, REQUEST SENSE in the same way. The table says
 * what follows what; paragraphs are those of the specification.
 */
#include "bot.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include <base/alloc.h>

#include "wire.h"

enum { CBW_SIZE = 31, CSW_SIZE = 13, DEPTH = 16 };
enum { PIECE_LEAST = 16 << 10 }; /* the machine has memory for that much in one, or for nothing */
enum { REQUEST_RESET = 0xFF, REQUEST_MAX_LUN = 0xFE, UNITS_MAX = 16 };

/* Commands in a row that were lost: then the port is reset, then the device is given up. */
enum { LOST_RESET_PORT = 3, LOST_GIVE_UP = 9 };

enum state {
    UNCONNECTED,
    ATTACHED,
    CONFIGURED,
    READY,
    BUSY_DATA, /* CBW and data are under way */
    BUSY_STATUS,
    BUSY_STATUS_AGAIN,
    SENSE_DATA,
    SENSE_STATUS,
    SENSE_STATUS_AGAIN,
    STATES,
};

enum event {
    NOTHING,
    CONFIGURE,
    START,
    SUBMIT,
    MOVED,       /* CBW and as much data as the device wants */
    STALLED,     /* data, or the CSW */
    CBW_REFUSED, /* the CBW was stalled */
    PASSED,      /* a CSW that is valid and meaningful */
    FAILED,
    PHASE_ERROR,
    EMPTY,     /* a packet of no bytes instead of a CSW */
    NO_MEMORY, /* nothing was sent */
    BROKEN,
    LATE,
    GONE,
    EVENTS,
};

struct bot {
    struct usb_transport *transport;
    uint8_t interface, in, out;
    uint32_t recovery_ms, tag;
    enum state state;
    struct usb_command *command; /* the one that was submitted */
    struct usb_command *current; /* that, or sense */
    struct usb_command sense;
    uint8_t sense_data[USB_SENSE_MAX];
    unsigned lost; /* commands in a row */
    struct bot_counts counts;

    /* Transfers of a phase. */
    struct usb_transfer cbw, csw, data[DEPTH];
    uint8_t cbw_data[CBW_SIZE], csw_data[CSW_SIZE];
    unsigned open;       /* under way */
    enum event worst;    /* of them; NOTHING: all is well */
    uint32_t data_given; /* bytes submitted */
    uint32_t piece;      /* bytes of one transfer, at most */
    bool data_short;     /* the device has no more of it */
    bool csw_caught;     /* it came where data were expected */
};

struct transition {
    enum state next;
    enum event (*action)(struct bot *bot); /* what it leads to at once */
};

static enum event configure(struct bot *bot);
static enum event send_command(struct bot *bot);
static enum event ask_status(struct bot *bot);
static enum event clear_and_ask_status(struct bot *bot);
static enum event ask_sense(struct bot *bot);
static enum event end_good(struct bot *bot);
static enum event end_failed(struct bot *bot);
static enum event recover(struct bot *bot);
static enum event recover_late(struct bot *bot);
static enum event end_gone(struct bot *bot);
static enum event end_no_memory(struct bot *bot);

/* Figures 1 and 2. What is not in the table does not happen in that state. */
static const struct transition transitions[STATES][EVENTS] =
    {
        [ATTACHED] = {[CONFIGURE] = {CONFIGURED, configure}, [GONE] = {UNCONNECTED, NULL}},
        [CONFIGURED] = {[START] = {READY, NULL}, [GONE] = {UNCONNECTED, NULL}},
        [READY] = {[SUBMIT] = {BUSY_DATA, send_command}, [GONE] = {UNCONNECTED, end_gone}},
        [BUSY_DATA] =
            {
                [MOVED] = {BUSY_STATUS, ask_status},
                [STALLED] = {BUSY_STATUS, clear_and_ask_status}, /* 6.7.2, 6.7.3 */
                [CBW_REFUSED] = {READY, recover},                /* 6.6.1 */
                [PASSED] = {READY, end_good},
                [FAILED] = {SENSE_DATA, ask_sense},
                [PHASE_ERROR] = {READY, recover},
                [NO_MEMORY] = {READY, end_no_memory},
                [BROKEN] = {READY, recover},
                [LATE] = {READY, recover_late},
                [GONE] = {UNCONNECTED, end_gone},
            },
        [BUSY_STATUS] =
            {
                [PASSED] = {READY, end_good},
                [FAILED] = {SENSE_DATA, ask_sense},
                [PHASE_ERROR] = {READY, recover},                      /* 5.3.3.1 */
                [STALLED] = {BUSY_STATUS_AGAIN, clear_and_ask_status}, /* figure 2 */
                [EMPTY] = {BUSY_STATUS_AGAIN, ask_status},
                [BROKEN] = {READY, recover}, /* 6.3, 6.5: no CSW */
                [LATE] = {READY, recover_late},
                [GONE] = {UNCONNECTED, end_gone},
            },
        [BUSY_STATUS_AGAIN] =
            {
                [PASSED] = {READY, end_good},
                [FAILED] = {SENSE_DATA, ask_sense},
                [PHASE_ERROR] = {READY, recover},
                [STALLED] = {READY, recover}, /* figure 2 */
                [EMPTY] = {READY, recover},
                [BROKEN] = {READY, recover},
                [LATE] = {READY, recover_late},
                [GONE] = {UNCONNECTED, end_gone},
            },
        [SENSE_DATA] =
            {
                [MOVED] = {SENSE_STATUS, ask_status},
                [STALLED] = {SENSE_STATUS, clear_and_ask_status},
                [CBW_REFUSED] = {READY, recover},
                [PASSED] = {READY, end_failed},
                [FAILED] = {READY, end_failed},
                [PHASE_ERROR] = {READY, recover},
                [NO_MEMORY] = {READY, end_no_memory},
                [BROKEN] = {READY, recover},
                [LATE] = {READY, recover_late},
                [GONE] = {UNCONNECTED, end_gone},
            },
        [SENSE_STATUS] =
            {
                [PASSED] = {READY, end_failed},
                [FAILED] = {READY, end_failed}, /* then nobody knows why */
                [PHASE_ERROR] = {READY, recover},
                [STALLED] = {SENSE_STATUS_AGAIN, clear_and_ask_status},
                [EMPTY] = {SENSE_STATUS_AGAIN, ask_status},
                [BROKEN] = {READY, recover},
                [LATE] = {READY, recover_late},
                [GONE] = {UNCONNECTED, end_gone},
            },
        [SENSE_STATUS_AGAIN] =
            {
                [PASSED] = {READY, end_failed},
                [FAILED] = {READY, end_failed},
                [PHASE_ERROR] = {READY, recover},
                [STALLED] = {READY, recover},
                [EMPTY] = {READY, recover},
                [BROKEN] = {READY, recover},
                [LATE] = {READY, recover_late},
                [GONE] = {UNCONNECTED, end_gone},
            },
};

static void happens(struct bot *bot, enum event event)
{
    while (event != NOTHING) {
        const struct transition *transition = &transitions[bot->state][event];
        bot->state = transition->next;
        event = transition->action ? transition->action(bot) : NOTHING;
    }
}

/* Transfers. */

/* NOTHING: it is under way. */
static enum event submit(struct bot *bot, struct usb_transfer *transfer)
{
    transfer->timeout_ms = bot->current->timeout_ms;
    transfer->owner = bot;
    int r = usb_transport_submit(bot->transport, transfer);
    if (r != 0)
        return r == -ENODEV ? GONE : r == -ENOMEM ? NO_MEMORY : BROKEN;
    bot->open++;
    return NOTHING;
}

static void cancel_data(struct bot *bot)
{
    for (int i = 0; i < DEPTH; i++)
        usb_transport_cancel(bot->transport, &bot->data[i]);
    usb_transport_flush(bot->transport);
}

static void cancel_all(struct bot *bot)
{
    usb_transport_cancel(bot->transport, &bot->cbw);
    usb_transport_cancel(bot->transport, &bot->csw);
    cancel_data(bot);
}

static void note(struct bot *bot, enum event event)
{
    if (event > bot->worst)
        bot->worst = event;
    cancel_all(bot);
}

static const enum event events[] = {
    [USB_STALLED] = STALLED, [USB_TIMED_OUT] = LATE, [USB_CANCELLED] = BROKEN,
    [USB_BABBLE] = BROKEN,   [USB_FAILED] = BROKEN,  [USB_GONE] = GONE,
};

static bool is_csw(const struct bot *bot, const uint8_t *csw, uint32_t size)
{
    return size == CSW_SIZE && memcmp(csw, "USBS", 4) == 0 && get_le32(csw + 4) == bot->tag;
}

/* 6.3: valid and meaningful. */
static enum event look_at_csw(const struct bot *bot, const uint8_t *csw, uint32_t size)
{
    uint32_t residue = get_le32(csw + 8);
    if (!is_csw(bot, csw, size))
        return BROKEN;
    if (csw[12] == 2)
        return PHASE_ERROR;
    if (csw[12] > 2 || residue > bot->current->length)
        return BROKEN;
    bot->current->residue = residue;
    return csw[12] == 0 ? PASSED : FAILED;
}

/* Everything of the first phase has ended. */
static void end_phase(struct bot *bot)
{
    if (bot->worst != NOTHING)
        happens(bot, bot->worst);
    else if (bot->csw_caught)
        happens(bot, look_at_csw(bot, bot->csw_data, CSW_SIZE));
    else
        happens(bot, MOVED);
}

static void give_data(struct bot *bot);

/* Cancelled, since another had come to a bad end. */
static bool is_ours(const struct bot *bot, const struct usb_transfer *transfer)
{
    return transfer->status == USB_CANCELLED && bot->worst != NOTHING;
}

static void cbw_done(struct usb_transfer *transfer)
{
    struct bot *bot = transfer->owner;
    bot->open--;
    if (transfer->status == USB_STALLED)
        note(bot, CBW_REFUSED);
    else if (transfer->status != USB_DONE && !is_ours(bot, transfer))
        note(bot, events[transfer->status]);
    else if (transfer->status == USB_DONE && transfer->actual != CBW_SIZE)
        note(bot, BROKEN);
    if (bot->worst == NOTHING && !bot->data_short)
        give_data(bot); /* what there was no memory for */
    if (bot->open == 0)
        end_phase(bot);
}

static void catch_csw(struct bot *bot, const struct usb_transfer *transfer)
{
    memcpy(bot->csw_data, transfer->data, CSW_SIZE);
    bot->csw_caught = bot->data_short = true;
}

/* Some send it in place of all of the data. */
static bool is_csw_instead(const struct bot *bot, const struct usb_transfer *transfer)
{
    return bot->current->direction == USB_DATA_IN && bot->current->moved == 0 &&
           transfer->status == USB_DONE && transfer->actual < transfer->length &&
           is_csw(bot, transfer->data, transfer->actual);
}

/* Behind a short one there may only be the CSW. */
static void look_behind(struct bot *bot, const struct usb_transfer *transfer)
{
    if (transfer->actual == 0 && transfer->status == USB_STALLED)
        bot->worst = bot->worst ? bot->worst : STALLED;
    else if (transfer->status == USB_TIMED_OUT || transfer->status == USB_GONE)
        note(bot, events[transfer->status]);
    else if (transfer->actual == 0)
        return;
    else if (transfer->actual != CSW_SIZE || bot->csw_caught)
        note(bot, BROKEN);
    else
        catch_csw(bot, transfer);
}

static void data_done(struct usb_transfer *transfer)
{
    struct bot *bot = transfer->owner;
    bool in = bot->current->direction == USB_DATA_IN;
    bot->open--;
    if (bot->data_short) {
        look_behind(bot, transfer);
    } else if (is_csw_instead(bot, transfer)) {
        catch_csw(bot, transfer);
        cancel_data(bot);
    } else if (!is_ours(bot, transfer)) {
        bot->current->moved += transfer->actual;
        if (transfer->status != USB_DONE) {
            note(bot, events[transfer->status]);
        } else if (transfer->actual < transfer->length) {
            bot->data_short = true;
            if (!in)
                bot->worst = BROKEN;
            cancel_data(bot);
        } else if (bot->worst == NOTHING) {
            transfer->done = NULL; /* free again */
            give_data(bot);
        }
    }
    if (bot->open == 0)
        end_phase(bot);
}

/* Of what is left as much as there is memory for. */
static enum event submit_piece(struct bot *bot, struct usb_transfer *transfer, uint32_t left)
{
    for (;;) {
        transfer->length = left < bot->piece ? left : bot->piece;
        enum event event = submit(bot, transfer);
        if (event != NO_MEMORY || transfer->length <= PIECE_LEAST)
            return event;
        bot->piece = transfer->length / 2 / PIECE_LEAST * PIECE_LEAST;
        if (bot->piece < PIECE_LEAST)
            bot->piece = PIECE_LEAST;
    }
}

/* As many transfers as are free and needed. */
static void give_data(struct bot *bot)
{
    const struct usb_command *command = bot->current;
    for (int i = 0; i < DEPTH && bot->data_given < command->length; i++) {
        struct usb_transfer *transfer = &bot->data[i];
        uint32_t left = command->length - bot->data_given;
        if (transfer->done)
            continue;
        transfer->endpoint = command->direction == USB_DATA_IN ? bot->in : bot->out;
        transfer->data = (uint8_t *)command->data + bot->data_given;
        transfer->done = data_done;
        enum event event = submit_piece(bot, transfer, left);
        if (event != NOTHING)
            transfer->done = NULL;
        if (event == NO_MEMORY && bot->open > 0)
            break; /* when one of these has ended there may be some */
        if (event != NOTHING) {
            note(bot, event == NO_MEMORY ? BROKEN : event);
            return;
        }
        bot->data_given += transfer->length;
    }
    usb_transport_flush(bot->transport);
}

static void csw_done(struct usb_transfer *transfer)
{
    struct bot *bot = transfer->owner;
    bot->open--;
    if (transfer->status != USB_DONE)
        happens(bot, events[transfer->status]);
    else if (transfer->actual == 0)
        happens(bot, EMPTY);
    else
        happens(bot, look_at_csw(bot, bot->csw_data, transfer->actual));
}

/* Actions. */

static enum event configure(struct bot *bot)
{
    bot->cbw.endpoint = bot->out;
    bot->cbw.data = bot->cbw_data;
    bot->cbw.length = CBW_SIZE;
    bot->cbw.done = cbw_done;
    bot->csw.endpoint = bot->in;
    bot->csw.data = bot->csw_data;
    bot->csw.length = CSW_SIZE;
    bot->csw.done = csw_done;
    return START;
}

/* 5.1 */
static void word_cbw(struct bot *bot)
{
    const struct usb_command *command = bot->current;
    uint8_t *cbw = bot->cbw_data;
    memset(cbw, 0, CBW_SIZE);
    memcpy(cbw, "USBC", 4);
    put_le32(cbw + 4, ++bot->tag);
    put_le32(cbw + 8, command->length);
    cbw[12] = command->direction == USB_DATA_IN ? 0x80 : 0;
    cbw[13] = command->unit;
    cbw[14] = command->cdb_size;
    memcpy(cbw + 15, command->cdb, command->cdb_size);
}

static enum event send_command(struct bot *bot)
{
    word_cbw(bot);
    bot->worst = NOTHING;
    bot->data_given = 0;
    bot->piece = bot->transport->max_transfer;
    bot->data_short = bot->csw_caught = false;
    bot->current->moved = bot->current->residue = 0;
    bot->counts.commands++;
    for (int i = 0; i < DEPTH; i++)
        bot->data[i].done = NULL;
    enum event event = submit(bot, &bot->cbw);
    if (event != NOTHING)
        return event;
    give_data(bot);
    return NOTHING;
}

static enum event ask_status(struct bot *bot)
{
    memset(bot->csw_data, 0, CSW_SIZE);
    enum event event = submit(bot, &bot->csw);
    if (event != NOTHING)
        return event == NO_MEMORY ? BROKEN : event;
    usb_transport_flush(bot->transport);
    return NOTHING;
}

static enum event clear_and_ask_status(struct bot *bot)
{
    bool out = bot->state != BUSY_STATUS_AGAIN && bot->state != SENSE_STATUS_AGAIN &&
               bot->current->direction == USB_DATA_OUT;
    int r = usb_clear_halt(bot->transport, out ? bot->out : bot->in);
    if (r != 0)
        return r == -ENODEV ? GONE : BROKEN;
    return ask_status(bot);
}

static enum event ask_sense(struct bot *bot)
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

static enum event end(struct bot *bot, enum usb_outcome outcome)
{
    struct usb_command *command = bot->command;
    bot->command = bot->current = NULL;
    if (command) {
        command->outcome = outcome;
        command->done(command);
    }
    return NOTHING;
}

static enum event end_good(struct bot *bot)
{
    bot->lost = 0;
    return end(bot, USB_COMMAND_GOOD);
}

static enum event end_failed(struct bot *bot)
{
    bot->lost = 0;
    bot->command->sense_size = (uint8_t)bot->sense.moved;
    memcpy(bot->command->sense, bot->sense_data, bot->sense.moved);
    return end(bot, USB_COMMAND_FAILED);
}

static enum event end_no_memory(struct bot *bot)
{
    return end(bot, USB_COMMAND_NO_MEMORY);
}

static enum event end_gone(struct bot *bot)
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

static enum event recover_as(struct bot *bot, enum usb_outcome outcome)
{
    bot->lost++;
    if (bot->lost >= LOST_GIVE_UP)
        return GONE;
    int r = bot->lost % LOST_RESET_PORT ? reset_recovery(bot) : -EIO;
    if (r < 0 && r != -ENODEV) {
        bot->counts.port_resets++;
        r = usb_reset(bot->transport);
    }
    return r < 0 ? GONE : end(bot, outcome);
}

static enum event recover(struct bot *bot)
{
    return recover_as(bot, USB_COMMAND_BROKEN);
}

static enum event recover_late(struct bot *bot)
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
    bot->state = ATTACHED;
    happens(bot, CONFIGURE);
    return bot;
}

int bot_units(struct bot *bot)
{
    uint8_t last = 0;
    struct usb_setup setup = {0xA1, REQUEST_MAX_LUN, 0, bot->interface, 1};
    int r = usb_control(bot->transport, &setup, &last, bot->recovery_ms);
    if (r == -ENODEV) {
        happens(bot, GONE);
        return r;
    }
    return r == 1 && last < UNITS_MAX ? last + 1 : 1;
}

int bot_submit(struct bot *bot, struct usb_command *command)
{
    if (bot->state != READY)
        return bot->state == UNCONNECTED ? -ENODEV : -EBUSY;
    command->sense_size = 0;
    bot->command = bot->current = command;
    happens(bot, SUBMIT);
    return 0;
}

void bot_cancel(struct bot *bot)
{
    if (!bot->command)
        return;
    if (bot->worst == NOTHING)
        bot->worst = BROKEN;
    cancel_all(bot);
}

const struct bot_counts *bot_counts(const struct bot *bot)
{
    return &bot->counts;
}

void bot_destroy(struct bot *bot)
{
    free(bot);
}
