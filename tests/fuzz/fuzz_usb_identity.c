/*
 * libFuzzer target: what the daemon reads of USB devices. The first byte says what the rest is: the
 * descriptors of a device, or a message of the kernel about one.
 *
 * What is called a stick and nothing else has no interface of another kind; names are no paths.
 */
#include <stdlib.h>
#include <string.h>

#include "usb_identity.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void look(bool good)
{
    if (!good)
        abort();
}

static void read_descriptors(const uint8_t *data, size_t size)
{
    _cleanup_error_ struct error err = ERROR_INIT;
    struct usb_identity identity;
    bool other = false;

    if (usb_identity_parse(data, size, &identity, &err) < 0) {
        look(err.code < 0 && err.message);
        return;
    }
    look(identity.classes_count <= USB_CLASSES_MAX);
    for (size_t i = 0; i < identity.classes_count; i++)
        other = other || identity.classes[i] >> 16 != USB_CLASS_STORAGE;
    look(identity.storage_configurations_count <= USB_CONFIGURATIONS_SEEN_MAX &&
         (identity.storage || identity.storage_configurations_count == 0) &&
         (usb_identity_wants(&identity) == 0) == (identity.storage_configurations_count == 0));
    look(!identity.storage_only || (identity.storage && !other && !identity.hub));
}

static void read_uevent(const char *text, size_t size)
{
    struct usb_uevent event;

    if (usb_uevent_parse(text, size, &event))
        look(strlen(event.name) < USB_PORT_MAX && !strchr(event.name, '/') &&
             strcmp(event.name, "..") != 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size == 0)
        return 0;
    if (data[0] == 'd')
        read_descriptors(data + 1, size - 1);
    else
        read_uevent((const char *)data + 1, size - 1);
    return 0;
}
