/* A phase: the CBW and the data together, up to BOT_DEPTH transfers of these in flight; or the CSW.
 * When all of it has ended, that is what happened. */
#include "bot_internal.h"

#include <string.h>

#include "wire.h"

enum { PIECE_LEAST = 16 << 10 }; /* the machine has memory for that much in one, or for nothing */

/* BOT_NOTHING: it is under way. */
static enum bot_event submit(struct bot *bot, struct usb_transfer *transfer)
{
    transfer->timeout_ms = bot->current->timeout_ms;
    transfer->owner = bot;
    int r = usb_transport_submit(bot->transport, transfer);
    if (r != 0)
        return r == -ENODEV ? BOT_GONE : r == -ENOMEM ? BOT_NO_MEMORY : BOT_BROKEN;
    bot->open++;
    return BOT_NOTHING;
}

static void cancel_data(struct bot *bot)
{
    for (int i = 0; i < BOT_DEPTH; i++)
        usb_transport_cancel(bot->transport, &bot->data[i]);
    usb_transport_flush(bot->transport);
}

void bot_cancel_transfers(struct bot *bot)
{
    usb_transport_cancel(bot->transport, &bot->cbw);
    usb_transport_cancel(bot->transport, &bot->csw);
    cancel_data(bot);
}

static void note(struct bot *bot, enum bot_event event)
{
    if (event > bot->worst)
        bot->worst = event;
    bot_cancel_transfers(bot);
}

static const enum bot_event events[] = {
    [USB_STALLED] = BOT_STALLED, [USB_TIMED_OUT] = BOT_LATE, [USB_CANCELLED] = BOT_BROKEN,
    [USB_BABBLE] = BOT_BROKEN,   [USB_FAILED] = BOT_BROKEN,  [USB_GONE] = BOT_GONE,
};

static bool is_csw(const struct bot *bot, const uint8_t *csw, uint32_t size)
{
    return size == BOT_CSW_SIZE && memcmp(csw, "USBS", 4) == 0 && get_le32(csw + 4) == bot->tag;
}

/* 6.3: valid and meaningful. */
static enum bot_event look_at_csw(const struct bot *bot, const uint8_t *csw, uint32_t size)
{
    uint32_t residue = get_le32(csw + 8);
    if (!is_csw(bot, csw, size))
        return BOT_BROKEN;
    if (csw[12] == 2)
        return BOT_PHASE_ERROR;
    if (csw[12] > 2 || residue > bot->current->length)
        return BOT_BROKEN;
    bot->current->residue = residue;
    return csw[12] == 0 ? BOT_PASSED : BOT_FAILED;
}

/* Everything of the first phase has ended. */
static void end_phase(struct bot *bot)
{
    if (bot->worst != BOT_NOTHING)
        bot_happens(bot, bot->worst);
    else if (bot->csw_caught)
        bot_happens(bot, look_at_csw(bot, bot->csw_data, BOT_CSW_SIZE));
    else
        bot_happens(bot, BOT_MOVED);
}

static void give_data(struct bot *bot);

/* Cancelled, since another had come to a bad end. */
static bool is_ours(const struct bot *bot, const struct usb_transfer *transfer)
{
    return transfer->status == USB_CANCELLED && bot->worst != BOT_NOTHING;
}

static void cbw_done(struct usb_transfer *transfer)
{
    struct bot *bot = transfer->owner;
    bot->open--;
    if (transfer->status == USB_STALLED)
        note(bot, BOT_CBW_REFUSED);
    else if (transfer->status != USB_DONE && !is_ours(bot, transfer))
        note(bot, events[transfer->status]);
    else if (transfer->status == USB_DONE && transfer->actual != BOT_CBW_SIZE)
        note(bot, BOT_BROKEN);
    if (bot->worst == BOT_NOTHING && !bot->data_short)
        give_data(bot); /* what there was no memory for */
    if (bot->open == 0)
        end_phase(bot);
}

static void catch_csw(struct bot *bot, const struct usb_transfer *transfer)
{
    memcpy(bot->csw_data, transfer->data, BOT_CSW_SIZE);
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
        bot->worst = bot->worst ? bot->worst : BOT_STALLED;
    else if (transfer->status == USB_TIMED_OUT || transfer->status == USB_GONE)
        note(bot, events[transfer->status]);
    else if (transfer->actual == 0)
        return;
    else if (transfer->actual != BOT_CSW_SIZE || bot->csw_caught)
        note(bot, BOT_BROKEN);
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
                bot->worst = BOT_BROKEN;
            cancel_data(bot);
        } else if (bot->worst == BOT_NOTHING) {
            transfer->done = NULL; /* free again */
            give_data(bot);
        }
    }
    if (bot->open == 0)
        end_phase(bot);
}

/* Of what is left as much as there is memory for. */
static enum bot_event submit_piece(struct bot *bot, struct usb_transfer *transfer, uint32_t left)
{
    for (;;) {
        transfer->length = left < bot->piece ? left : bot->piece;
        enum bot_event event = submit(bot, transfer);
        if (event != BOT_NO_MEMORY || transfer->length <= PIECE_LEAST)
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
    for (int i = 0; i < BOT_DEPTH && bot->data_given < command->length; i++) {
        struct usb_transfer *transfer = &bot->data[i];
        uint32_t left = command->length - bot->data_given;
        if (transfer->done)
            continue;
        transfer->endpoint = command->direction == USB_DATA_IN ? bot->in : bot->out;
        transfer->data = (uint8_t *)command->data + bot->data_given;
        transfer->done = data_done;
        enum bot_event event = submit_piece(bot, transfer, left);
        if (event != BOT_NOTHING)
            transfer->done = NULL;
        if (event == BOT_NO_MEMORY && bot->open > 0)
            break; /* when one of these has ended there may be some */
        if (event != BOT_NOTHING) {
            note(bot, event == BOT_NO_MEMORY ? BOT_BROKEN : event);
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
        bot_happens(bot, events[transfer->status]);
    else if (transfer->actual == 0)
        bot_happens(bot, BOT_EMPTY);
    else
        bot_happens(bot, look_at_csw(bot, bot->csw_data, transfer->actual));
}

void bot_word_transfers(struct bot *bot)
{
    bot->cbw.endpoint = bot->out;
    bot->cbw.data = bot->cbw_data;
    bot->cbw.length = BOT_CBW_SIZE;
    bot->cbw.done = cbw_done;
    bot->csw.endpoint = bot->in;
    bot->csw.data = bot->csw_data;
    bot->csw.length = BOT_CSW_SIZE;
    bot->csw.done = csw_done;
}

/* 5.1 */
static void word_cbw(struct bot *bot)
{
    const struct usb_command *command = bot->current;
    uint8_t *cbw = bot->cbw_data;
    memset(cbw, 0, BOT_CBW_SIZE);
    memcpy(cbw, "USBC", 4);
    put_le32(cbw + 4, ++bot->tag);
    put_le32(cbw + 8, command->length);
    cbw[12] = command->direction == USB_DATA_IN ? 0x80 : 0;
    cbw[13] = command->unit;
    cbw[14] = command->cdb_size;
    memcpy(cbw + 15, command->cdb, command->cdb_size);
}

enum bot_event bot_send(struct bot *bot)
{
    word_cbw(bot);
    bot->worst = BOT_NOTHING;
    bot->data_given = 0;
    bot->piece = bot->transport->max_transfer;
    bot->data_short = bot->csw_caught = false;
    bot->current->moved = bot->current->residue = 0;
    for (int i = 0; i < BOT_DEPTH; i++)
        bot->data[i].done = NULL;
    enum bot_event event = submit(bot, &bot->cbw);
    if (event != BOT_NOTHING)
        return event;
    give_data(bot);
    return BOT_NOTHING;
}

enum bot_event bot_receive_status(struct bot *bot)
{
    memset(bot->csw_data, 0, BOT_CSW_SIZE);
    enum bot_event event = submit(bot, &bot->csw);
    if (event != BOT_NOTHING)
        return event == BOT_NO_MEMORY ? BOT_BROKEN : event;
    usb_transport_flush(bot->transport);
    return BOT_NOTHING;
}
