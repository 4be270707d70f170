/*
 * USB Mass Storage Class, Bulk-Only Transport 1.0: one command at a time.
 */
#ifndef USB_BOT_H
#define USB_BOT_H

#include <usb/transport.h>

#include "command.h"

struct bot;

struct bot_counts {
    uint64_t commands, failed;
    uint32_t recoveries, port_resets;
};

/* The interface is claimed. The transport is borrowed. recovery_ms: for each request of a reset
 * recovery. */
struct bot *bot_create(struct usb_transport *transport, uint8_t interface, uint8_t in, uint8_t out,
                       uint32_t recovery_ms);

/* Bulk-only transport 3.2; waits. Units, 1 to 16; a device of one unit may stall it. -ENODEV. */
int bot_units(struct bot *bot);

/* 0, -EBUSY: one is under way, -ENODEV. */
int bot_submit(struct bot *bot, struct usb_command *command);

/* Asks for the end of the one that is under way: BROKEN, unless it comes to another end before. */
void bot_cancel(struct bot *bot);

const struct bot_counts *bot_counts(const struct bot *bot);
void bot_destroy(struct bot *bot); /* no command may be under way */

#endif
