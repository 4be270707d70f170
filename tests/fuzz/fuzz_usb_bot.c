/*
 * libFuzzer target: bulk-only transport over a device in the same process, each of whose transfers
 * ends as the input says.
 *
 * Every command ends, once; a good one has a valid CSW behind it; nothing is moved that was not
 * asked for.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "../../src/usb/device/bot.h"
#include "../../src/usb/device/wire.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { IN = 0x81, OUT = 0x02, PENDING_MAX = 64, COMMANDS = 6, PIECE = 64, LENGTH_MAX = 40 * PIECE };

struct model {
    struct usb_transport transport; /* first */
    const uint8_t *input, *end;
    struct usb_transfer *pendings[PENDING_MAX];
    bool cancelled[PENDING_MAX];
    unsigned count;
    uint32_t tag;
    bool answered, gone; /* answered: a CSW that is valid and says good */
};

static void look(bool good)
{
    if (!good)
        abort();
}

/* Behind the input's end: a device that is gone. */
static uint8_t next(struct model *model)
{
    if (model->input < model->end)
        return *model->input++;
    model->gone = true;
    return 0;
}

static int submit(struct usb_transport *transport, struct usb_transfer *transfer)
{
    struct model *model = (struct model *)transport;
    if (model->gone)
        return -ENODEV;
    look(model->count < PENDING_MAX);
    look(transfer->endpoint == IN || transfer->endpoint == OUT || (transfer->endpoint & 15) == 0);
    if (transfer->endpoint == OUT && transfer->length == 31 &&
        memcmp(transfer->data, "USBC", 4) == 0) {
        model->tag = get_le32((uint8_t *)transfer->data + 4);
        model->answered = false;
    }
    model->cancelled[model->count] = false;
    model->pendings[model->count++] = transfer;
    return 0;
}

static void cancel(struct usb_transport *transport, struct usb_transfer *transfer)
{
    struct model *model = (struct model *)transport;
    for (unsigned i = 0; i < model->count; i++)
        if (model->pendings[i] == transfer)
            model->cancelled[i] = true;
}

static void end(struct model *model, unsigned i, enum usb_status status, uint32_t actual)
{
    struct usb_transfer *transfer = model->pendings[i];
    model->count--;
    memmove(model->pendings + i, model->pendings + i + 1,
            (model->count - i) * sizeof(model->pendings[0]));
    memmove(model->cancelled + i, model->cancelled + i + 1, model->count - i);
    usb_transport_end(&model->transport, transfer, status, actual);
}

static uint32_t put_csw(struct model *model, uint8_t *data)
{
    uint8_t flaw = next(model), residue = next(model);
    memcpy(data, flaw == 1 ? "XXXX" : "USBS", 4);
    put_le32(data + 4, flaw == 2 ? model->tag + 1 : model->tag);
    put_le32(data + 8, flaw == 3 ? 1U << 20 : residue);
    data[12] = flaw >= 4 && flaw < 8 ? flaw - 4 : 0;
    model->answered |= flaw == 0 || flaw == 4 || flaw >= 8;
    return flaw == 8 ? 12 : 13;
}

enum how { WHOLE, PART, STALL, NONE, LOST, BABBLES, LATE, VANISHES, STATUS };

static void end_one(struct model *model, unsigned i, uint8_t how)
{
    struct usb_transfer *transfer = model->pendings[i];
    uint32_t part = 0;
    if (transfer->endpoint == IN)
        memset(transfer->data, 0x5A, transfer->length);
    switch (how) {
    case STATUS:
        if (transfer->endpoint == IN && transfer->length >= 13)
            end(model, i, USB_DONE, put_csw(model, transfer->data));
        else
            end(model, i, USB_DONE, transfer->length);
        break;
    case PART:
        part = next(model);
        end(model, i, USB_DONE, part < transfer->length ? part : transfer->length);
        break;
    case STALL:
        end(model, i, USB_STALLED, 0);
        break;
    case NONE:
        end(model, i, USB_DONE, 0);
        break;
    case LOST:
        end(model, i, USB_FAILED, 0);
        break;
    case BABBLES:
        end(model, i, USB_BABBLE, transfer->length);
        break;
    case LATE:
        end(model, i, USB_TIMED_OUT, 0);
        break;
    case VANISHES:
        model->gone = true;
        break;
    default:
        end(model, i, USB_DONE, transfer->length);
    }
}

/* The oldest of an endpoint's; cancelled ones may have been done all the same. */
static void collect(struct usb_transport *transport, int timeout_ms)
{
    struct model *model = (struct model *)transport;
    if (model->count > 0) {
        uint8_t word = next(model);
        unsigned i = 0, wanted = word >> 6;
        while (i + 1 < model->count && i < wanted)
            i++;
        for (unsigned j = 0; j < i; j++)
            if (model->pendings[j]->endpoint == model->pendings[i]->endpoint)
                i = j;
        if (!model->gone && model->cancelled[i] && (word & 0x20))
            end(model, i, USB_CANCELLED, 0);
        else if (!model->gone)
            end_one(model, i, word & 0x0F);
    }
    while (model->gone && model->count > 0)
        end(model, 0, USB_GONE, 0);
}

static int next_timeout(struct usb_transport *transport)
{
    return 0;
}

static int reset(struct usb_transport *transport)
{
    return next((struct model *)transport) % 4 == 0 ? -EIO : 0;
}

static const struct usb_transport_ops ops = {
    .name = "model",
    .submit = submit,
    .cancel = cancel,
    .collect = collect,
    .reset = reset,
    .next_timeout = next_timeout,
};

static void done(struct usb_command *command)
{
    unsigned *ends = command->owner;
    ++*ends;
}

/* False: the device is no longer there. */
static bool carry_out(struct model *model, struct bot *bot)
{
    static uint8_t buffer[LENGTH_MAX];
    unsigned ends = 0;
    uint8_t word = next(model);
    struct usb_command command = {
        .cdb = {0x28},
        .cdb_size = 10,
        .direction = word % 3,
        .data = buffer,
        .length = word % 3 ? (uint32_t)(word >> 2) * (LENGTH_MAX / 63) : 0,
        .timeout_ms = 1000,
        .done = done,
        .owner = &ends,
    };
    if (command.direction && command.length == 0)
        command.length = 5;
    if (bot_submit(bot, &command) != 0)
        return false;
    bool broken = false;
    for (unsigned turns = 0; *(volatile unsigned *)&ends == 0; turns++) {
        look(turns < 10000);
        if (word == 0xFF && !broken) {
            bot_cancel(bot);
            broken = true;
        }
        usb_transport_dispatch(&model->transport);
    }
    look(ends == 1 && command.moved <= command.length && command.residue <= command.length);
    look(command.sense_size <= USB_SENSE_MAX);
    look(command.outcome != USB_COMMAND_GOOD || model->answered);
    return command.outcome != USB_COMMAND_GONE;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct model model = {
        .transport = {.ops = &ops, .max_transfer = PIECE},
        .input = data,
        .end = data + size,
    };
    struct bot *bot = bot_create(&model.transport, 0, IN, OUT, 100);
    bool there = true;
    int units = bot_units(bot);
    look(units == -ENODEV || (units >= 1 && units <= 16));
    for (int i = 0; i < COMMANDS && there; i++)
        there = carry_out(&model, bot);
    look(bot_counts(bot)->failed <= bot_counts(bot)->commands);
    bot_destroy(bot);
    return 0;
}
