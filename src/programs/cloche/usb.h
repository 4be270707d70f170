/* The commands of `cloche usb`: usb_ls.c, usb_stick.c, usb_volume.c, usb_policy.c. */
#ifndef CLOCHE_USB_COMMANDS_H
#define CLOCHE_USB_COMMANDS_H

#include "commands.h"

extern const struct command usb_attach_command, usb_check_command, usb_detach_command,
    usb_eject_command, usb_format_command, usb_inspect_command, usb_ls_command, usb_policy_command,
    usb_stats_command;

#endif
