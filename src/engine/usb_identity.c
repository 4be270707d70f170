#include "usb_identity.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include <base/alloc.h>
#include <base/text.h>

/* USB 2.0, 9.6 */
enum {
    DESCRIPTOR_DEVICE = 1,
    DESCRIPTOR_CONFIGURATION = 2,
    DESCRIPTOR_INTERFACE = 4,
    DEVICE_BYTES = 18,
    CONFIGURATION_BYTES = 9,
    INTERFACE_BYTES = 9,
};

/* What cloche-usb speaks: SCSI (or what passes for it) by bulk-only transport or UAS. */
static bool is_storage(uint32_t triple)
{
    uint32_t protocol = triple & 0xff;

    return triple >> 16 == USB_CLASS_STORAGE && (triple >> 8 & 0xff) == 0x06 &&
           (protocol == 0x50 || protocol == 0x62);
}

static int add_class(struct usb_identity *identity, const uint8_t *bytes, struct error *err)
{
    uint32_t triple = (uint32_t)bytes[0] << 16 | (uint32_t)bytes[1] << 8 | bytes[2];

    for (size_t i = 0; i < identity->classes_count; i++) {
        if (identity->classes[i] == triple)
            return 0;
    }
    if (identity->classes_count == USB_CLASSES_MAX)
        return error_set(err, -EBADMSG, "more than %d kinds of interfaces", USB_CLASSES_MAX);
    identity->classes[identity->classes_count++] = triple;
    identity->hub = identity->hub || bytes[0] == USB_CLASS_HUB;
    return 0;
}

static void note_storage(struct usb_identity *identity, uint8_t configuration)
{
    size_t count = identity->storage_configurations_count;

    if (configuration == 0 || count == USB_CONFIGURATIONS_SEEN_MAX ||
        (count > 0 && identity->storage_configurations[count - 1] == configuration))
        return;
    identity->storage_configurations[identity->storage_configurations_count++] = configuration;
}

uint8_t usb_identity_wants(const struct usb_identity *identity)
{
    for (size_t i = 0; i < identity->storage_configurations_count; i++) {
        if (identity->storage_configurations[i] == identity->configuration)
            return 0;
    }
    return identity->storage_configurations_count ? identity->storage_configurations[0] : 0;
}

/* An interface, within a configuration of this value. */
static int add_interface(struct usb_identity *identity, const uint8_t *at, uint8_t configuration,
                         struct error *err)
{
    int r = add_class(identity, at + 5, err);

    if (r == 0 && is_storage((uint32_t)at[5] << 16 | (uint32_t)at[6] << 8 | at[7]))
        note_storage(identity, configuration);
    return r;
}

static int parse_configurations(const uint8_t *at, size_t size, struct usb_identity *identity,
                                struct error *err)
{
    uint8_t configuration = 0;
    int r = 0;

    while (r == 0 && size > 0) {
        if (size < 2 || at[0] < 2 || at[0] > size)
            return error_set(err, -EBADMSG, "a descriptor is longer than what is there");
        if (at[1] == DESCRIPTOR_INTERFACE && at[0] < INTERFACE_BYTES)
            return error_set(err, -EBADMSG, "an interface descriptor is too short");
        if (at[1] == DESCRIPTOR_CONFIGURATION)
            configuration = at[0] < CONFIGURATION_BYTES ? 0 : at[5];
        if (at[1] == DESCRIPTOR_INTERFACE)
            r = add_interface(identity, at, configuration, err);
        size -= at[0];
        at += at[0];
    }
    return r;
}

static void judge(struct usb_identity *identity, size_t interfaces_from)
{
    identity->storage_only = identity->classes_count > interfaces_from;
    for (size_t i = interfaces_from; i < identity->classes_count; i++) {
        bool storage = is_storage(identity->classes[i]);
        identity->storage = identity->storage || storage;
        identity->storage_only = identity->storage_only && storage;
    }
    /* Its own class stands beside those of its interfaces: another one is something else. */
    for (size_t i = 0; i < interfaces_from; i++)
        identity->storage_only =
            identity->storage_only && identity->classes[i] >> 16 == USB_CLASS_STORAGE;
}

void usb_identity_set_classes(struct usb_identity *identity, const uint32_t *classes, size_t count)
{
    identity->classes_count = count < USB_CLASSES_MAX ? count : USB_CLASSES_MAX;
    memcpy(identity->classes, classes, identity->classes_count * sizeof(classes[0]));
    judge(identity, 0);
}

int usb_identity_parse(const uint8_t *descriptors, size_t size, struct usb_identity *ret,
                       struct error *err)
{
    struct usb_identity identity = {.vendor = 0};
    int r = 0;

    if (size < DEVICE_BYTES || descriptors[0] < DEVICE_BYTES || descriptors[0] > size ||
        descriptors[1] != DESCRIPTOR_DEVICE)
        return error_set(err, -EBADMSG, "there is no device descriptor");
    identity.vendor = (uint16_t)(descriptors[8] | descriptors[9] << 8);
    identity.product = (uint16_t)(descriptors[10] | descriptors[11] << 8);
    identity.release = (uint16_t)(descriptors[12] | descriptors[13] << 8);
    if (descriptors[4] != 0)
        r = add_class(&identity, descriptors + 4, err);
    size_t own = identity.classes_count;
    if (r == 0)
        r = parse_configurations(descriptors + descriptors[0], size - descriptors[0], &identity,
                                 err);
    if (r < 0)
        return r;
    judge(&identity, own);
    *ret = identity;
    return 0;
}

/* --- names ----------------------------------------------------------------------------------- */

bool usb_is_bus(const char *name)
{
    return text_starts_with(name, "usb") && name[3] && strlen(name) < USB_PORT_MAX &&
           strspn(name + 3, "0123456789") == strlen(name + 3);
}

bool usb_is_port(const char *name)
{
    size_t bus = strspn(name, "0123456789");

    return bus > 0 && name[bus] == '-' && name[bus + 1] && strlen(name) < USB_PORT_MAX &&
           strspn(name + bus + 1, "0123456789.") == strlen(name + bus + 1) && !strstr(name, "..") &&
           name[bus + 1] != '.' && name[strlen(name) - 1] != '.';
}

/* --- uevents ---------------------------------------------------------------------------------- */

/* The value of KEY=value among texts that end with a NUL each. */
static const char *value_of(const char *message, size_t size, const char *key)
{
    size_t length = strlen(key);

    for (const char *at = message; at < message + size; at += strlen(at) + 1) {
        if (strncmp(at, key, length) == 0 && at[length] == '=')
            return at + length + 1;
    }
    return NULL;
}

static enum usb_action action_of(const char *word)
{
    static const struct {
        const char *word;
        enum usb_action action;
    } actions[] = {
        {"add", USB_ACTION_ADD},
        {"bind", USB_ACTION_BIND},
        {"remove", USB_ACTION_REMOVE},
    };

    for (size_t i = 0; i < ARRAY_SIZE(actions); i++) {
        if (text_equal(word, actions[i].word))
            return actions[i].action;
    }
    return USB_ACTION_OTHER;
}

bool usb_uevent_parse(const char *message, size_t size, struct usb_uevent *ret)
{
    if (size == 0 || message[size - 1] != '\0')
        return false;
    const char *path = value_of(message, size, "DEVPATH");
    const char *name = path ? strrchr(path, '/') : NULL;
    if (!name || !text_equal(value_of(message, size, "SUBSYSTEM"), "usb") ||
        !text_equal(value_of(message, size, "DEVTYPE"), "usb_device"))
        return false;
    name++;
    if (!usb_is_port(name) && !usb_is_bus(name))
        return false;
    *ret = (struct usb_uevent){.action = action_of(value_of(message, size, "ACTION"))};
    snprintf(ret->name, sizeof(ret->name), "%s", name);
    return true;
}
