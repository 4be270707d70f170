/*
 * Who may have which USB device: rules that were added at run time, those of the configuration, and
 * what applies when none fits. The first that fits counts.
 */
#ifndef ENGINE_USB_POLICY_H
#define ENGINE_USB_POLICY_H

#include <schema/management.h>

#include "usb_identity.h"

enum usb_verdict {
    USB_ALLOW,  /* cloche-usb may have it; it is a stick and nothing else, or a rule says so */
    USB_KERNEL, /* the kernel's drivers */
    USB_DENY,
};

/* Whether the rule can be understood. -EINVAL. Pure, as the rest. */
int usb_rule_check(const struct api_usb_rule *rule, struct error *err);

/* place: the port, or "usbip:HOST:PORT/BUSID". */
bool usb_rule_fits(const struct api_usb_rule *rule, const struct usb_identity *identity,
                   const char *place);

/* What a rule (NULL: none fits) comes to. Hubs are the kernel's unless a rule denies them; what is
 * allowed and has no storage is the kernel's. */
enum usb_verdict usb_rule_verdict(const struct api_usb_rule *rule,
                                  const struct usb_identity *identity, bool exclusive);

/* VENDOR:PRODUCT[:SERIAL] as the options of containers have it. -EINVAL. */
int usb_device_parse(const char *text, uint16_t *ret_vendor, uint16_t *ret_product,
                     const char **ret_serial, struct error *err);
bool usb_device_fits(const char *text, const struct usb_identity *identity);

#endif
