#include "carrier.h"

#include <errno.h>
#include <string.h>

#include "scsi.h"
#include "uas.h"

enum { UNITS_TRIES = 4 }; /* the last one after a reset of the port */

static int submit_bot(void *data, struct usb_command *command)
{
    return bot_submit(data, command);
}

static void cancel_bot(void *data)
{
    bot_cancel(data);
}

static bool bot_is_quiet(const void *data)
{
    return true; /* without a command */
}

static const struct bot_counts *counts_of_bot(const void *data)
{
    return bot_counts(data);
}

static void destroy_bot(void *data)
{
    bot_destroy(data);
}

static const struct carrier_ops bot_ops = {
    .protocol = USB_PROTOCOL_BULK_ONLY,
    .submit = submit_bot,
    .cancel = cancel_bot,
    .is_quiet = bot_is_quiet,
    .counts = counts_of_bot,
    .destroy = destroy_bot,
};

static int submit_uas(void *data, struct usb_command *command)
{
    return uas_submit(data, command);
}

static void cancel_uas(void *data)
{
    uas_cancel(data);
}

static bool is_quiet_uas(const void *data)
{
    return uas_is_quiet(data);
}

static const struct bot_counts *counts_of_uas(const void *data)
{
    return uas_counts(data);
}

static void destroy_uas(void *data)
{
    uas_destroy(data);
}

static const struct carrier_ops uas_ops = {
    .protocol = USB_PROTOCOL_UAS,
    .submit = submit_uas,
    .cancel = cancel_uas,
    .is_quiet = is_quiet_uas,
    .counts = counts_of_uas,
    .destroy = destroy_uas,
};

static void close_carrier(struct carrier *carrier)
{
    if (carrier->ops)
        carrier->ops->destroy(carrier->data);
    carrier->ops = NULL;
}

/* Another program may have left another setting. */
static int open_bot(struct carrier *carrier, bool set)
{
    const struct usb_found *found = &carrier->found;
    if (!found->bot.in)
        return -ENOTSUP;
    int r = found->bot.alternate || set
                ? usb_set_alternate(carrier->transport, found->interface, found->bot.alternate)
                : 0;
    if (r != 0)
        return r == -ENODEV ? r : -ENOTSUP;
    carrier->data = bot_create(carrier->transport, found->interface, found->bot.in, found->bot.out,
                               carrier->recovery_ms);
    carrier->ops = &bot_ops;
    carrier->depth = 1;
    return 0;
}

static int open_uas(struct carrier *carrier)
{
    const struct usb_found *found = &carrier->found;
    struct uas *uas;
    if (!found->uas.command)
        return -ENOTSUP;
    int r = found->uas.alternate || found->bot.in
                ? usb_set_alternate(carrier->transport, found->interface, found->uas.alternate)
                : 0;
    if (r == 0)
        r = uas_create(carrier->transport, found->interface, &found->uas, carrier->recovery_ms,
                       found->bot.in != 0, &uas);
    if (r != 0)
        return r == -ENODEV ? r : -ENOTSUP;
    carrier->data = uas;
    carrier->ops = &uas_ops;
    carrier->depth = uas_depth(uas);
    return 0;
}

static void note_end(struct usb_command *command)
{
    *(bool *)command->owner = true;
}

/* Waits. 0 or why it was not submitted. */
static int carry_out(struct carrier *carrier, struct usb_command *command)
{
    bool ended = false;
    command->owner = &ended;
    command->done = note_end;
    int r = carrier->ops->submit(carrier->data, command);
    while (r == 0 && (!ended || !carrier->ops->is_quiet(carrier->data))) {
        int timeout = usb_transport_timeout(carrier->transport);
        carrier->transport->ops->collect(carrier->transport, timeout < 0 ? 1000 : timeout);
        usb_transport_dispatch(carrier->transport);
    }
    return r;
}

/* REPORT LUNS, which no state of a unit keeps from being answered (SPC-4, 6.33). */
static int ask_units(struct carrier *carrier, uint16_t *ret_units)
{
    uint8_t list[SCSI_LUNS_SIZE] = {0};
    struct usb_command command = {.timeout_ms = carrier->recovery_ms};
    int r = -EIO;
    for (int i = 0; r == -EIO && i < UNITS_TRIES; i++) {
        scsi_report_luns(&command, list);
        r = carry_out(carrier, &command);
        if (r == 0 && command.outcome == USB_COMMAND_GONE)
            r = -ENODEV;
        else if (r == 0 && command.outcome != USB_COMMAND_GOOD)
            r = command.outcome == USB_COMMAND_FAILED ? -EOPNOTSUPP : -EIO;
    }
    if (r == -EOPNOTSUPP ||
        (r == 0 && (!scsi_parse_luns(list, command.moved, ret_units) || *ret_units == 0))) {
        *ret_units = 1;
        r = 0;
    }
    return r;
}

int carrier_open(struct carrier *carrier, struct usb_transport *transport,
                 const struct usb_found *found, uint32_t recovery_ms, uint16_t *ret_units)
{
    *carrier = (struct carrier){
        .transport = transport,
        .found = *found,
        .recovery_ms = recovery_ms,
    };
    int r = open_uas(carrier);
    if (r == 0)
        r = ask_units(carrier, ret_units);
    if (r == 0 || r == -ENODEV)
        return r;
    r = carrier_fall_back(carrier);
    int units = r == 0 ? bot_units(carrier->data) : r;
    if (units < 0)
        return units;
    *ret_units = (uint16_t)((1U << units) - 1);
    return 0;
}

int carrier_fall_back(struct carrier *carrier)
{
    if (carrier->ops)
        carrier->before = *carrier->ops->counts(carrier->data);
    close_carrier(carrier);
    return open_bot(carrier, carrier->found.uas.command != 0);
}

struct bot_counts carrier_counts(const struct carrier *carrier)
{
    struct bot_counts counts = carrier->before;
    if (!carrier->ops)
        return counts;
    const struct bot_counts *now = carrier->ops->counts(carrier->data);
    counts.commands += now->commands;
    counts.failed += now->failed;
    counts.recoveries += now->recoveries;
    counts.port_resets += now->port_resets;
    return counts;
}

void carrier_finish(struct carrier *carrier)
{
    close_carrier(carrier);
}
