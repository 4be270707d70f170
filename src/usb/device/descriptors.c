#include <usb/descriptors.h>

#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#include "wire.h"

/* One pass over the bytes of a configuration. */
struct reading {
    const uint8_t *data;
    size_t size, at;
    struct usb_configuration *found;
    uint8_t interfaces_said, endpoints_said; /* of the setting that is read */
    bool companion;                          /* the endpoint has its companion */
    struct error *err;
};

struct form {
    const char *name;
    uint8_t size_min;
    int (*read)(struct reading *reading, const uint8_t *descriptor); /* NULL: not within one */
};

static int lie(const struct reading *reading, const char *name, const char *format, ...)
    _printf_(3, 4);

static int lie(const struct reading *reading, const char *name, const char *format, ...)
{
    va_list args;
    char text[160];
    va_start(args, format);
    vsnprintf(text, sizeof(text), format, args);
    va_end(args);
    return error_set(reading->err, -EPROTO, "configuration, byte %zu: %s descriptor: %s",
                     reading->at, name, text);
}

static struct usb_setting *current_setting(struct reading *reading)
{
    struct usb_configuration *found = reading->found;
    return found->setting_count ? &found->settings[found->setting_count - 1] : NULL;
}

static struct usb_endpoint *current_endpoint(struct reading *reading)
{
    struct usb_setting *setting = current_setting(reading);
    if (!setting || setting->endpoint_count == 0)
        return NULL;
    return &reading->found->endpoints[reading->found->endpoint_count - 1];
}

static int end_setting(struct reading *reading)
{
    struct usb_setting *setting = current_setting(reading);
    if (setting && setting->endpoint_count != reading->endpoints_said)
        return lie(reading, "interface", "the one before has %u endpoints and says %u",
                   setting->endpoint_count, reading->endpoints_said);
    return 0;
}

static int read_interface(struct reading *reading, const uint8_t *descriptor)
{
    struct usb_configuration *found = reading->found;
    struct usb_setting setting = {
        .interface = descriptor[2],
        .alternate = descriptor[3],
        .class = descriptor[5],
        .subclass = descriptor[6],
        .protocol = descriptor[7],
        .endpoints = found->endpoints + found->endpoint_count,
    };
    bool seen = false;
    int r = end_setting(reading);
    if (r != 0)
        return r;
    for (unsigned i = 0; i < found->setting_count; i++) {
        const struct usb_setting *other = &found->settings[i];
        seen |= other->interface == setting.interface;
        if (other->interface == setting.interface && other->alternate == setting.alternate)
            return lie(reading, "interface", "setting %u of interface %u is there twice",
                       setting.alternate, setting.interface);
    }
    if (found->setting_count == USB_SETTINGS_MAX)
        return lie(reading, "interface", "more than %d settings", USB_SETTINGS_MAX);
    reading->endpoints_said = descriptor[4];
    found->interface_count = (uint8_t)(found->interface_count + !seen);
    found->settings[found->setting_count++] = setting;
    return 0;
}

static int read_endpoint(struct reading *reading, const uint8_t *descriptor)
{
    struct usb_configuration *found = reading->found;
    struct usb_setting *setting = current_setting(reading);
    struct usb_endpoint endpoint = {
        .address = descriptor[2],
        .kind = descriptor[3] & 3,
        .max_packet = get_le16(descriptor + 4) & 0x7FF,
        .burst = 1,
    };
    if (!setting)
        return lie(reading, "endpoint", "it belongs to no interface");
    if ((endpoint.address & 0x70) || (endpoint.address & 0x0F) == 0)
        return lie(reading, "endpoint", "address %#x", endpoint.address);
    if (endpoint.max_packet == 0 && endpoint.kind != USB_ISOCHRONOUS)
        return lie(reading, "endpoint", "packets of no bytes");
    if (setting->endpoint_count == reading->endpoints_said)
        return lie(reading, "endpoint", "interface %u says that it has %u", setting->interface,
                   reading->endpoints_said);
    for (unsigned i = 0; i < setting->endpoint_count; i++)
        if (setting->endpoints[i].address == endpoint.address)
            return lie(reading, "endpoint", "address %#x is there twice", endpoint.address);
    if (found->endpoint_count == sizeof(found->endpoints) / sizeof(found->endpoints[0]))
        return lie(reading, "endpoint", "more than %d", found->endpoint_count);
    found->endpoints[found->endpoint_count++] = endpoint;
    setting->endpoint_count++;
    reading->companion = false;
    return 0;
}

/* USB 3.2, 9.6.7. */
static int read_companion(struct reading *reading, const uint8_t *descriptor)
{
    struct usb_endpoint *endpoint = current_endpoint(reading);
    if (!endpoint)
        return lie(reading, "companion", "it belongs to no endpoint");
    if (reading->companion)
        return lie(reading, "companion", "endpoint %#x has one already", endpoint->address);
    if (descriptor[2] > 15)
        return lie(reading, "companion", "bursts of %u packets", descriptor[2] + 1);
    if (endpoint->kind == USB_BULK && (descriptor[3] & 0x1F) > 16)
        return lie(reading, "companion", "2^%u streams", descriptor[3] & 0x1F);
    endpoint->burst = (uint8_t)(descriptor[2] + 1);
    endpoint->stream_bits = endpoint->kind == USB_BULK ? descriptor[3] & 0x1F : 0;
    reading->companion = true;
    return 0;
}

/* The number is UAS's only within interfaces of that protocol: elsewhere it is a class's own. */
static int read_pipe_usage(struct reading *reading, const uint8_t *descriptor)
{
    struct usb_setting *setting = current_setting(reading);
    struct usb_endpoint *endpoint = current_endpoint(reading);
    if (!setting || setting->class != 8 || setting->protocol != 0x62)
        return 0;
    if (!endpoint || endpoint->pipe != USB_PIPE_NONE)
        return lie(reading, "pipe usage", "it belongs to no endpoint");
    if (descriptor[2] < USB_PIPE_COMMAND || descriptor[2] > USB_PIPE_OUT)
        return lie(reading, "pipe usage", "there is no pipe %u", descriptor[2]);
    for (unsigned i = 0; i < setting->endpoint_count; i++)
        if (setting->endpoints[i].pipe == descriptor[2])
            return lie(reading, "pipe usage", "two endpoints are pipe %u", descriptor[2]);
    endpoint->pipe = descriptor[2];
    return 0;
}

static const struct form forms[] = {
    [USB_DESCRIPTOR_DEVICE] = {"device", USB_DEVICE_SIZE, NULL},
    [USB_DESCRIPTOR_CONFIGURATION] = {"configuration", USB_CONFIGURATION_SIZE, NULL},
    [USB_DESCRIPTOR_STRING] = {"string", 2, NULL},
    [USB_DESCRIPTOR_INTERFACE] = {"interface", 9, read_interface},
    [USB_DESCRIPTOR_ENDPOINT] = {"endpoint", 7, read_endpoint},
    [USB_DESCRIPTOR_PIPE_USAGE] = {"pipe usage", 3, read_pipe_usage},
    [USB_DESCRIPTOR_COMPANION] = {"companion", 6, read_companion},
};

static const struct form *form_of(uint8_t type)
{
    static const struct form other = {"unknown", 2, NULL};
    return type < sizeof(forms) / sizeof(forms[0]) && forms[type].name ? &forms[type] : &other;
}

/* The descriptor at reading->at. */
static int read_one(struct reading *reading)
{
    const uint8_t *descriptor = reading->data + reading->at;
    size_t left = reading->size - reading->at;
    if (left < 2)
        return lie(reading, "unknown", "it is cut off");
    const struct form *form = form_of(descriptor[1]);
    if (descriptor[0] > left)
        return lie(reading, form->name, "%u bytes, of which %zu are there", descriptor[0], left);
    if (descriptor[0] < form->size_min)
        return lie(reading, form->name, "%u bytes, where %u are needed", descriptor[0],
                   form->size_min);
    if (form->read)
        return form->read(reading, descriptor);
    if (descriptor[1] <= USB_DESCRIPTOR_STRING)
        return lie(reading, form->name, "it is none of a configuration's");
    return 0;
}

/* The length that a descriptor of this type at the start has. */
static int check_start(const uint8_t *data, size_t size, enum usb_descriptor_type type,
                       struct error *err)
{
    const struct form *form = &forms[type];
    if (size < form->size_min)
        return error_set(err, -EPROTO, "%s descriptor: %zu bytes came, where %u are needed",
                         form->name, size, form->size_min);
    if (data[1] != type)
        return error_set(err, -EPROTO, "%s descriptor: type %u", form->name, data[1]);
    if (data[0] < form->size_min || data[0] > size)
        return error_set(err, -EPROTO, "%s descriptor: it says that it has %u bytes, %zu came",
                         form->name, data[0], size);
    return 0;
}

int usb_device_parse(const uint8_t *data, size_t size, struct usb_device_descriptor *ret_device,
                     struct error *err)
{
    int r = check_start(data, size, USB_DESCRIPTOR_DEVICE, err);
    if (r != 0)
        return r;
    if (data[17] == 0 || data[17] > USB_CONFIGURATIONS_MAX)
        return error_set(err, -EPROTO, "device descriptor: %u configurations", data[17]);
    *ret_device = (struct usb_device_descriptor){
        .version = get_le16(data + 2),
        .class = data[4],
        .subclass = data[5],
        .protocol = data[6],
        .vendor = get_le16(data + 8),
        .product = get_le16(data + 10),
        .release = get_le16(data + 12),
        .manufacturer_string = data[14],
        .product_string = data[15],
        .serial_string = data[16],
        .configurations = data[17],
    };
    return 0;
}

int usb_configuration_size(const uint8_t *data, size_t size, struct error *err)
{
    int r = check_start(data, size, USB_DESCRIPTOR_CONFIGURATION, err);
    if (r != 0)
        return r;
    uint16_t total = get_le16(data + 2);
    if (total < data[0] || total > USB_CONFIGURATION_MAX)
        return error_set(err, -EPROTO, "configuration descriptor: %u bytes altogether", total);
    return total;
}

int usb_configuration_parse(const uint8_t *data, size_t size,
                            struct usb_configuration *ret_configuration, struct error *err)
{
    int total = usb_configuration_size(data, size, err);
    if (total < 0)
        return total;
    if ((size_t)total > size)
        return error_set(err, -EPROTO, "configuration descriptor: %d bytes altogether, %zu came",
                         total, size);
    memset(ret_configuration, 0, sizeof(*ret_configuration));
    ret_configuration->value = data[5];
    struct reading reading = {
        .data = data,
        .size = (size_t)total,
        .at = data[0],
        .found = ret_configuration,
        .err = err,
    };
    int r = 0;
    for (; r == 0 && reading.at < reading.size; reading.at += data[reading.at])
        r = read_one(&reading);
    if (r == 0)
        r = end_setting(&reading);
    if (r == 0 && ret_configuration->interface_count != data[4])
        r = error_set(err, -EPROTO, "configuration descriptor: %u interfaces, it says %u",
                      ret_configuration->interface_count, data[4]);
    return r;
}

int usb_languages_parse(const uint8_t *data, size_t size, uint16_t *ret_language, struct error *err)
{
    int r = check_start(data, size, USB_DESCRIPTOR_STRING, err);
    if (r == 0 && data[0] < 4)
        r = error_set(err, -EPROTO, "string descriptor: no languages");
    if (r == 0)
        *ret_language = get_le16(data + 2);
    return r;
}

static bool is_printable(uint32_t character)
{
    bool control = character < 0x20 || (character >= 0x7F && character < 0xA0);
    bool surrogate = character >= 0xD800 && character < 0xE000;
    bool turns = (character >= 0x200B && character < 0x2010) ||
                 (character >= 0x2028 && character < 0x2030) ||
                 (character >= 0x2060 && character < 0x2070) || character >= 0xFFF0;
    return !control && !surrogate && !turns && character != 0xFEFF;
}

/* At most 4 bytes; how many. */
static size_t put_utf8(uint32_t character, char text[4])
{
    if (character < 0x80) {
        text[0] = (char)character;
        return 1;
    }
    if (character < 0x800) {
        text[0] = (char)(0xC0 | character >> 6);
        text[1] = (char)(0x80 | (character & 0x3F));
        return 2;
    }
    text[0] = (char)(0xE0 | character >> 12);
    text[1] = (char)(0x80 | (character >> 6 & 0x3F));
    text[2] = (char)(0x80 | (character & 0x3F));
    return 3;
}

int usb_string_parse(const uint8_t *data, size_t size, char *text, size_t room, struct error *err)
{
    int r = check_start(data, size, USB_DESCRIPTOR_STRING, err);
    if (r != 0)
        return r;
    if (data[0] % 2)
        return error_set(err, -EPROTO, "string descriptor: half a character");
    size_t length = 0;
    for (size_t at = 2; at < data[0]; at += 2) {
        uint16_t unit = get_le16(data + at);
        char bytes[4];
        if (unit == 0)
            break;
        size_t more = put_utf8(is_printable(unit) ? unit : '?', bytes);
        if (length + more >= room)
            break;
        memcpy(text + length, bytes, more);
        length += more;
    }
    text[length] = '\0';
    return 0;
}
