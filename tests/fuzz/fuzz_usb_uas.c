/*
 * libFuzzer target: UAS over a device in the same process, each of whose transfers ends as the
 * input says, with streams and without.
 *
 * Every command ends, once; a good one has a sense unit of its tag behind it that says so; nothing
 * is moved that was not asked for; as many as it says are under way at once; closed amid it, all is
 * quiet.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include <base/clock.h>

#include "../../src/usb/device/uas.h"
#include "../../src/usb/device/wire.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { COMMAND = 1, STATUS = 0x82, IN = 0x83, OUT = 4, PENDING_MAX = 128 };
enum { COMMANDS = 24, AT_ONCE = 4, LENGTH_MAX = 256, TURNS_MAX = 20000, TAGS = 256 };

struct model {
    struct usb_transport transport; /* first */
    const uint8_t *input, *end;
    struct usb_transfer *pendings[PENDING_MAX];
    bool cancelled[PENDING_MAX];
    unsigned count;
    bool gone, streams;
    uint16_t tags[AT_ONCE], tag_count; /* of commands and functions, the newest */
    uint16_t tag_of[AT_ONCE];          /* commands by their number, which is in their CDB */
    bool answered[TAGS];               /* a sense unit of this tag that is valid and says good */
};

struct issued {
    struct usb_command command; /* first */
    struct model *model;
    bool under_way;
    unsigned ends;
    uint8_t buffer[LENGTH_MAX];
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
    if (model->input < model->end && *model->input == 0xEE) {
        model->input++;
        return -ENOMEM;
    }
    look(model->count < PENDING_MAX);
    bool shared = transfer->endpoint == COMMAND || (transfer->endpoint & 15) == 0;
    look(shared || transfer->endpoint == STATUS || transfer->endpoint == IN ||
         transfer->endpoint == OUT);
    look((transfer->stream != 0) == (!shared && model->streams));
    if (transfer->endpoint == COMMAND) {
        const uint8_t *unit = transfer->data;
        look(transfer->length == (unit[0] == 1 ? 32 : 16));
        model->tags[model->tag_count++ % AT_ONCE] = get_be16(unit + 2);
        if (unit[0] == 1) {
            model->tag_of[unit[17] % AT_ONCE] = get_be16(unit + 2);
            model->answered[get_be16(unit + 2) % TAGS] = false;
        }
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

static const uint8_t kinds[] = {3, 3, 3, 4, 6, 7, 4, 0x55};
static const uint8_t statuses[] = {0, 2, 8, 0x28, 0x40, 4, 0x18, 0xFF};

/* Bits of a byte: kind, tag; of the next: status, flaw. */
static uint32_t put_unit(struct model *model, const struct usb_transfer *transfer)
{
    uint8_t *data = transfer->data, word = next(model), more = next(model);
    uint16_t tag = transfer->stream ? transfer->stream : model->tags[word >> 3 & (AT_ONCE - 1)];
    uint8_t sense = more >> 6 ? (uint8_t)((more >> 6) * 6) : 0;
    bool other = word & 0x80;
    if (other)
        tag ^= 1;
    memset(data, 0, 64);
    data[0] = kinds[word & 7];
    put_be16(data + 2, tag);
    if (data[0] == 4) {
        data[7] = more;
        return more == 0xFF ? 5 : 8;
    }
    if (data[0] != 3)
        return more == 0xFF ? 3 : 4;
    data[6] = statuses[more & 7];
    data[15] = more & 8 ? 200 : sense;
    uint32_t size = more & 16 ? 9 : 16U + sense;
    bool good = (data[6] == 0 || data[6] == 4) && !(more & 8) && size >= 16;
    model->answered[tag % TAGS] |= good && !(other && model->streams);
    return size;
}

enum how { WHOLE, PART, STALL, NONE, LOST, BABBLES, LATE, VANISHES, UNIT };

static void end_one(struct model *model, unsigned i, uint8_t how)
{
    struct usb_transfer *transfer = model->pendings[i];
    uint32_t part = 0;
    if (transfer->endpoint & 0x80)
        memset(transfer->data, 0x5A, transfer->length);
    switch (how) {
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
        if (transfer->endpoint == STATUS)
            end(model, i, USB_DONE, put_unit(model, transfer));
        else
            end(model, i, USB_DONE, transfer->length);
    }
}

static bool is_oldest(const struct model *model, unsigned i)
{
    const struct usb_transfer *transfer = model->pendings[i];
    for (unsigned j = 0; j < i; j++)
        if (model->pendings[j]->endpoint == transfer->endpoint &&
            model->pendings[j]->stream == transfer->stream)
            return false;
    return true;
}

static void collect(struct usb_transport *transport, int timeout_ms)
{
    struct model *model = (struct model *)transport;
    if (model->count > 0) {
        uint8_t word = next(model);
        unsigned i = (word >> 5) % model->count;
        while (!is_oldest(model, i))
            i--;
        if (!model->gone && model->cancelled[i] && (word & 0x10))
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
    struct model *model = (struct model *)transport;
    look(model->count == 0);
    return next(model) % 8 == 7 ? -EIO : 0;
}

static int alloc_streams(struct usb_transport *transport, uint16_t count, const uint8_t *endpoints,
                         unsigned endpoint_count)
{
    uint8_t word = next((struct model *)transport);
    look(endpoint_count == 3 && count >= 2);
    return word % 16 == 15 ? -ENOMEM : word % 16 == 14 ? 1 : word & 0x10 ? 3 : count;
}

static void free_streams(struct usb_transport *transport, const uint8_t *endpoints,
                         unsigned endpoint_count)
{
    look(((struct model *)transport)->count == 0);
}

static const struct usb_transport_ops ops = {
    .name = "model",
    .submit = submit,
    .cancel = cancel,
    .collect = collect,
    .reset = reset,
    .alloc_streams = alloc_streams,
    .free_streams = free_streams,
    .next_timeout = next_timeout,
};

static void done(struct usb_command *command)
{
    struct issued *issued = (struct issued *)command;
    issued->ends++;
    issued->under_way = false;
    look(command->moved <= command->length && command->residue <= command->length);
    look(command->sense_size <= USB_SENSE_MAX);
    const struct model *model = issued->model;
    look(command->outcome != USB_COMMAND_GOOD || model->answered[model->tag_of[command->cdb[1]]]);
}

/* 0, or what uas_submit() said. */
static int issue(struct model *model, struct uas *uas, struct issued *issued, uint8_t number)
{
    uint8_t word = next(model);
    issued->command = (struct usb_command){
        .unit = word >> 2 & 1,
        .cdb = {0x28, number},
        .cdb_size = 10,
        .direction = word % 3,
        .data = issued->buffer,
        .length = word % 3 ? (uint32_t)(word >> 3) * 8 : 0,
        /* Without streams time decides: of some there is none. */
        .timeout_ms = word & 0x80 ? 0 : 100000,
        .done = done,
    };
    issued->model = model;
    issued->ends = 0;
    issued->under_way = true;
    int r = uas_submit(uas, &issued->command);
    if (r != 0)
        issued->under_way = false;
    look(r != 0 || issued->ends <= 1);
    return r;
}

static unsigned under_way(const struct issued *issued)
{
    unsigned count = 0;
    for (unsigned i = 0; i < AT_ONCE; i++)
        count += issued[i].under_way;
    return count;
}

static void close_all(struct model *model, struct uas *uas, const struct issued *issued)
{
    for (unsigned turns = 0; under_way(issued) > 0 || !uas_is_quiet(uas); turns++) {
        look(turns < TURNS_MAX);
        uas_cancel(uas);
        usb_transport_dispatch(&model->transport);
    }
    look(model->count == 0);
    uas_destroy(uas);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct model model = {
        .transport = {.ops = &ops, .max_transfer = LENGTH_MAX},
        .input = data,
        .end = data + size,
    };
    static struct issued issued[AT_ONCE];
    uint8_t word = next(&model);
    struct usb_found_uas found = {
        .alternate = word >> 1 & 1,
        .command = COMMAND,
        .status = STATUS,
        .in = IN,
        .out = OUT,
        .stream_bits = word & 1 ? 1 + (word >> 4) : 0,
    };
    struct uas *uas;
    bool may_fail = word & 4;
    model.streams = found.stream_bits > 0;
    memset(issued, 0, sizeof(issued));
    if (uas_create(&model.transport, 0, &found, word & 8 ? 0 : 100000, may_fail, &uas) != 0)
        return 0;
    look(uas_depth(uas) >= 1);
    int r = 0;
    for (unsigned sent = 0, turns = 0; sent < COMMANDS && turns < TURNS_MAX; turns++) {
        for (unsigned i = 0; i < AT_ONCE && (r == 0 || r == -EBUSY); i++) {
            if (issued[i].under_way)
                continue;
            r = issue(&model, uas, &issued[i], (uint8_t)i);
            look(r != -EBUSY || under_way(issued) > 0);
            look(r != -EPROTONOSUPPORT || may_fail);
            sent += r == 0;
            if (r != 0)
                break;
        }
        if (r != 0 && r != -EBUSY)
            break;
        r = 0;
        usb_transport_dispatch(&model.transport);
    }
    close_all(&model, uas, issued);
    return 0;
}
