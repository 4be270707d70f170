/*
 * libFuzzer target: descriptors of any bytes. The first byte says what the rest is read as.
 *
 * What was read holds what it says: endpoints within the configuration, counts that agree.
 */
#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include <usb/descriptors.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void look(bool good)
{
    if (!good)
        abort();
}

static void read_configuration(const uint8_t *data, size_t size, struct error *err)
{
    struct usb_configuration found;
    unsigned endpoints = 0;
    if (usb_configuration_parse(data, size, &found, err) != 0)
        return;
    for (unsigned i = 0; i < found.setting_count; i++) {
        const struct usb_setting *setting = &found.settings[i];
        look(setting->endpoints == found.endpoints + endpoints);
        endpoints += setting->endpoint_count;
        for (unsigned j = 0; j < setting->endpoint_count; j++)
            look((setting->endpoints[j].address & 0x0F) && setting->endpoints[j].burst);
    }
    look(endpoints == found.endpoint_count && found.interface_count <= found.setting_count);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    _cleanup_error_ struct error err = ERROR_INIT;
    struct usb_device_descriptor device;
    uint16_t language;
    char text[64];
    if (size == 0)
        return 0;
    /* Memory of its own, so that a byte too far is seen. */
    uint8_t *copy = malloc(size - 1 ? size - 1 : 1);
    memcpy(copy, data + 1, size - 1);
    size--;
    switch (data[0] % 4) {
    case 0:
        if (usb_device_parse(copy, size, &device, &err) == 0)
            look(device.configurations > 0);
        break;
    case 1:
        read_configuration(copy, size, &err);
        break;
    case 2:
        usb_languages_parse(copy, size, &language, &err);
        break;
    default:
        if (usb_string_parse(copy, size, text, sizeof(text), &err) == 0)
            look(strlen(text) < sizeof(text));
    }
    look(!err.message || (err.code == -EPROTO && !strchr(err.message, '\n')));
    free(copy);
    return 0;
}
