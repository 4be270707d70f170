/*
 * USB Attached SCSI (T10 UAS r04): several commands at a time, at SuperSpeed each with a stream of
 * its own, else one after the other over pipes that all of them share.
 */
#ifndef USB_UAS_H
#define USB_UAS_H

#include <usb/transport.h>

#include "bot.h"
#include "command.h"
#include "enumerate.h"

struct uas;

/* The interface is claimed and has this setting. The transport is borrowed. recovery_ms: for each
 * task management function. may_fail: when commands are lost again and again it fails rather than
 * ending as if pulled out. -ENODEV, or why there are no streams. */
int uas_create(struct usb_transport *transport, uint8_t interface,
               const struct usb_found_uas *found, uint32_t recovery_ms, bool may_fail,
               struct uas **ret_uas);

/* Commands that may be under way at once, at least 1. */
unsigned uas_depth(const struct uas *uas);

/* 0; -EBUSY: as many as it takes for now are under way, another may be submitted from within the
 * callback of one of them; -ENODEV; -EPROTONOSUPPORT: it has failed, the device is to be spoken to
 * in another way. */
int uas_submit(struct uas *uas, struct usb_command *command);

/* For the end: asks for that of all that are under way, BROKEN unless they come to another before;
 * the device is not told. Nothing may be submitted any more. */
void uas_cancel(struct uas *uas);
bool uas_is_quiet(const struct uas *uas); /* no transfer is under way */

/* recoveries: functions of task management. */
const struct bot_counts *uas_counts(const struct uas *uas);
/* Gives the streams back, but for a device that is gone. It is quiet. NULL is
 * fine. */
void uas_destroy(struct uas *uas);

#endif
