#include "usb_policy.h"

#include <errno.h>
#include <fnmatch.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <base/alloc.h>
#include <base/text.h>

enum { HEX = 16, ID_DIGITS = 4 };

static bool parse_hex(const char *text, size_t digits, unsigned *ret)
{
    if (strspn(text, "0123456789abcdefABCDEF") < digits)
        return false;
    char part[ID_DIGITS + 1];
    snprintf(part, sizeof(part), "%.*s", (int)digits, text);
    *ret = (unsigned)strtoul(part, NULL, HEX);
    return true;
}

/* "CC", "CC:SS", "CC:SS:PP" as a value and the bits of it that count. */
static bool parse_class(const char *text, uint32_t *ret_value, uint32_t *ret_mask)
{
    uint32_t value = 0, mask = 0;
    size_t length = strlen(text);

    if (length != 2 && length != 5 && length != 8)
        return false;
    for (size_t i = 0; i < 3 && 3 * i < length; i++) {
        unsigned byte;
        if (!parse_hex(text + 3 * i, 2, &byte) ||
            (text[3 * i + 2] != '\0' && text[3 * i + 2] != ':'))
            return false;
        value |= byte << (16 - 8 * i);
        mask |= 0xffU << (16 - 8 * i);
    }
    *ret_value = value;
    *ret_mask = mask;
    return true;
}

static int check_id(const char *name, const char *text, struct error *err)
{
    unsigned number;

    if (!text || (strlen(text) == ID_DIGITS && parse_hex(text, ID_DIGITS, &number)))
        return 0;
    return error_set(err, -EINVAL, "rule for USB devices: %s: '%s' is not four hex digits", name,
                     text);
}

int usb_rule_check(const struct api_usb_rule *rule, struct error *err)
{
    uint32_t value, mask;
    int r = check_id("vendor", rule->vendor, err);

    if (r == 0)
        r = check_id("product", rule->product, err);
    for (size_t i = 0; r == 0 && i < rule->classes_count; i++) {
        if (!parse_class(rule->classes[i], &value, &mask))
            r = error_set(err, -EINVAL,
                          "rule for USB devices: classes: '%s' is not CC, CC:SS or CC:SS:PP in hex",
                          rule->classes[i]);
    }
    return r;
}

static bool fits_id(const char *text, uint16_t id)
{
    unsigned number;

    return !text || (parse_hex(text, ID_DIGITS, &number) && number == id);
}

static bool has_only_classes(const struct api_usb_rule *rule, const struct usb_identity *identity)
{
    for (size_t i = 0; i < identity->classes_count; i++) {
        bool found = false;
        for (size_t j = 0; j < rule->classes_count; j++) {
            uint32_t value, mask;
            found = found || (parse_class(rule->classes[j], &value, &mask) &&
                              (identity->classes[i] & mask) == value);
        }
        if (!found)
            return false;
    }
    return identity->classes_count > 0;
}

bool usb_rule_fits(const struct api_usb_rule *rule, const struct usb_identity *identity,
                   const char *place)
{
    return fits_id(rule->vendor, identity->vendor) && fits_id(rule->product, identity->product) &&
           (!rule->serial || fnmatch(rule->serial, identity->serial, 0) == 0) &&
           (!rule->port || fnmatch(rule->port, place, 0) == 0) &&
           (!rule->classes || has_only_classes(rule, identity)) &&
           (!rule->has_storage_only || rule->storage_only == identity->storage_only);
}

enum usb_verdict usb_rule_verdict(const struct api_usb_rule *rule,
                                  const struct usb_identity *identity, bool exclusive)
{
    if (rule && text_equal(rule->action, "deny"))
        return USB_DENY;
    if (rule && text_equal(rule->action, "kernel"))
        return USB_KERNEL;
    if (identity->hub)
        return USB_KERNEL;
    if (rule)
        return identity->storage ? USB_ALLOW : USB_KERNEL;
    if (identity->storage_only)
        return USB_ALLOW;
    return exclusive ? USB_DENY : USB_KERNEL;
}

int usb_device_parse(const char *text, uint16_t *ret_vendor, uint16_t *ret_product,
                     const char **ret_serial, struct error *err)
{
    unsigned vendor, product;
    size_t length = strlen(text);

    if (length < 2 * ID_DIGITS + 1 || !parse_hex(text, ID_DIGITS, &vendor) ||
        text[ID_DIGITS] != ':' || !parse_hex(text + ID_DIGITS + 1, ID_DIGITS, &product) ||
        (length > 2 * ID_DIGITS + 1 &&
         (text[2 * ID_DIGITS + 1] != ':' || length == 2 * ID_DIGITS + 2))) {
        return error_set(err, -EINVAL,
                         "invalid USB device '%.80s': VENDOR:PRODUCT[:SERIAL] is wanted, the first "
                         "two in four hex digits",
                         text);
    }
    *ret_vendor = (uint16_t)vendor;
    *ret_product = (uint16_t)product;
    *ret_serial = length > 2 * ID_DIGITS + 1 ? text + 2 * ID_DIGITS + 2 : NULL;
    return 0;
}

bool usb_device_fits(const char *text, const struct usb_identity *identity)
{
    uint16_t vendor, product;
    const char *serial;

    return usb_device_parse(text, &vendor, &product, &serial, NULL) == 0 &&
           vendor == identity->vendor && product == identity->product &&
           (!serial || text_equal(serial, identity->serial));
}
