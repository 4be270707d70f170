#include "enumerate.h"

#include <errno.h>
#include <stdlib.h>

#include <base/alloc.h>
#include <usb/descriptors.h>

enum { GET_DESCRIPTOR = 6, GET_CONFIGURATION = 8, REQUEST_MS = 2000 };
enum { KNOWN_MAX = USB_DEVICE_SIZE + USB_CONFIGURATIONS_MAX * USB_CONFIGURATION_MAX };

/* Mass Storage Class Overview: class, subclass "SCSI transparent". */
enum { CLASS_STORAGE = 8, SUBCLASS_SCSI = 6 };

static int get_descriptor(struct usb_transport *transport, enum usb_descriptor_type type,
                          uint8_t index, uint16_t language, void *data, uint16_t size)
{
    struct usb_setup setup = {0x80, GET_DESCRIPTOR, (uint16_t)(type << 8 | index), language, size};
    return usb_control(transport, &setup, data, REQUEST_MS);
}

/* What is known of the device, read as it is asked for. */
struct source {
    struct usb_transport *transport;
    uint8_t *data; /* owned; NULL: over endpoint 0 */
    size_t size, at;
};

/* As the kernel has read them before anybody judged the device: it may say something else now. */
static int source_open(struct source *source, struct error *err)
{
    struct usb_transport *transport = source->transport;
    if (!transport->ops->descriptors)
        return 0;
    source->data = xcalloc(1, KNOWN_MAX);
    int r = transport->ops->descriptors(transport, source->data, KNOWN_MAX);
    if (r < 0)
        return error_errno(err, -r, "read what the kernel knows of the device");
    source->size = (size_t)r;
    return 0;
}

static int read_device(struct source *source, struct usb_device_descriptor *device,
                       struct error *err)
{
    uint8_t data[USB_DEVICE_SIZE];
    if (source->data) {
        source->at = source->size < sizeof(data) ? source->size : sizeof(data);
        return usb_device_parse(source->data, source->at, device, err);
    }
    int r = get_descriptor(source->transport, USB_DESCRIPTOR_DEVICE, 0, 0, data, sizeof(data));
    if (r < 0)
        return error_errno(err, -r, "read the device descriptor");
    return usb_device_parse(data, (size_t)r, device, err);
}

/* Bytes, in *ret_data for as long as the source is. */
static int find_configuration(struct source *source, const uint8_t **ret_data, struct error *err)
{
    const uint8_t *data = source->data + source->at;
    size_t left = source->size - source->at;
    int r = usb_configuration_size(data, left, err);
    if (r < 0)
        return r;
    if ((size_t)r > left)
        return error_set(err, -EPROTO, "a configuration ends behind what is known of the device");
    source->at += (size_t)r;
    *ret_data = data;
    return r;
}

static int read_configuration(struct source *source, uint8_t index,
                              struct usb_configuration *configuration, struct error *err)
{
    uint8_t buffer[USB_CONFIGURATION_MAX];
    const uint8_t *data = buffer;
    enum usb_descriptor_type type = USB_DESCRIPTOR_CONFIGURATION;
    int r;
    if (source->data) {
        r = find_configuration(source, &data, err);
        return r < 0 ? r : usb_configuration_parse(data, (size_t)r, configuration, err);
    }
    r = get_descriptor(source->transport, type, index, 0, buffer, USB_CONFIGURATION_SIZE);
    if (r >= 0)
        r = usb_configuration_size(buffer, (size_t)r, err);
    else
        return error_errno(err, -r, "read configuration %u", index);
    if (r < 0)
        return r;
    r = get_descriptor(source->transport, type, index, 0, buffer, (uint16_t)r);
    if (r < 0)
        return error_errno(err, -r, "read configuration %u", index);
    return usb_configuration_parse(buffer, (size_t)r, configuration, err);
}

/* One bulk endpoint each way. */
static bool find_bot(const struct usb_setting *setting, struct usb_found_bot *ret_bot)
{
    struct usb_found_bot bot = {.alternate = setting->alternate};
    for (unsigned i = 0; i < setting->endpoint_count; i++) {
        const struct usb_endpoint *endpoint = &setting->endpoints[i];
        uint8_t *place = endpoint->address & 0x80 ? &bot.in : &bot.out;
        if (endpoint->kind == USB_BULK && *place == 0)
            *place = endpoint->address;
    }
    if (!bot.in || !bot.out)
        return false;
    *ret_bot = bot;
    return true;
}

/* UAS 5.3.3: four bulk endpoints that say which pipe each is, and have its direction. At SuperSpeed
 * all but that for commands have streams. */
static bool find_uas(const struct usb_setting *setting, enum usb_speed speed,
                     struct usb_found_uas *ret_uas)
{
    struct usb_found_uas uas = {.alternate = setting->alternate};
    uint8_t *const places[] = {
        [USB_PIPE_COMMAND] = &uas.command,
        [USB_PIPE_STATUS] = &uas.status,
        [USB_PIPE_IN] = &uas.in,
        [USB_PIPE_OUT] = &uas.out,
    };
    uint8_t bits = speed < USB_SUPER ? 0 : 16;
    for (unsigned i = 0; i < setting->endpoint_count; i++) {
        const struct usb_endpoint *endpoint = &setting->endpoints[i];
        bool in = endpoint->pipe == USB_PIPE_STATUS || endpoint->pipe == USB_PIPE_IN;
        if (endpoint->pipe == USB_PIPE_NONE)
            continue;
        if (endpoint->kind != USB_BULK || in != !!(endpoint->address & 0x80))
            return false;
        *places[endpoint->pipe] = endpoint->address;
        if (endpoint->pipe != USB_PIPE_COMMAND && endpoint->stream_bits < bits)
            bits = endpoint->stream_bits;
    }
    uas.stream_bits = bits;
    if (!uas.command || !uas.status || !uas.in || !uas.out || (speed >= USB_SUPER && bits == 0))
        return false;
    *ret_uas = uas;
    return true;
}

static int note_class(struct usb_stick_facts *facts, uint8_t class, uint8_t subclass,
                      uint8_t protocol, struct error *err)
{
    uint32_t triple = (uint32_t) class << 16 | (uint32_t)subclass << 8 | protocol;
    for (unsigned i = 0; i < facts->class_count; i++)
        if (facts->classes[i] == triple)
            return 0;
    if (facts->class_count == USB_CLASSES_SAID_MAX)
        return error_set(err, -EPROTO, "more than %d kinds of interfaces", USB_CLASSES_SAID_MAX);
    facts->classes[facts->class_count++] = triple;
    return 0;
}

static int note_classes(struct usb_stick_facts *facts,
                        const struct usb_configuration *configuration, struct error *err)
{
    int r = 0;
    for (unsigned i = 0; r == 0 && i < configuration->setting_count; i++) {
        const struct usb_setting *setting = &configuration->settings[i];
        r = note_class(facts, setting->class, setting->subclass, setting->protocol, err);
    }
    return r;
}

/* That of this number, or a new one; NULL: there is no room. */
static struct usb_found *found_of(struct usb_found_all *all, uint8_t interface)
{
    unsigned i = 0;
    while (i < all->count && all->interfaces[i].interface != interface)
        i++;
    if (i == USB_INTERFACES_SERVED_MAX)
        return NULL;
    if (i == all->count)
        all->interfaces[i] = (struct usb_found){.interface = interface};
    return &all->interfaces[i];
}

/* Both protocols are settings of one interface. */
static void find_setting(struct usb_found_all *all, const struct usb_setting *setting,
                         enum usb_speed speed)
{
    struct usb_found *found = found_of(all, setting->interface);
    if (!found || setting->class != CLASS_STORAGE || setting->subclass != SUBCLASS_SCSI)
        return;
    bool is_bot = setting->protocol == USB_PROTOCOL_BULK_ONLY && !found->bot.in &&
                  find_bot(setting, &found->bot);
    bool is_uas = setting->protocol == USB_PROTOCOL_UAS && !found->uas.command &&
                  find_uas(setting, speed, &found->uas);
    if ((is_bot || is_uas) && found == &all->interfaces[all->count])
        all->count++;
}

/* False: there is none. */
static bool find_storage(const struct usb_configuration *configuration, enum usb_speed speed,
                         struct usb_found_all *ret_all)
{
    struct usb_found_all all = {.configuration = configuration->value};
    for (unsigned i = 0; i < configuration->setting_count; i++)
        find_setting(&all, &configuration->settings[i], speed);
    if (all.count == 0)
        return false;
    *ret_all = all;
    return true;
}

/* What it says is worth nothing for what we do: a string that cannot be read is none. */
static void read_string(struct usb_transport *transport, uint8_t index, uint16_t language,
                        char *text, size_t room)
{
    uint8_t data[USB_STRING_MAX];
    text[0] = '\0';
    if (index == 0)
        return;
    int r = get_descriptor(transport, USB_DESCRIPTOR_STRING, index, language, data, sizeof(data));
    if (r > 0)
        usb_string_parse(data, (size_t)r, text, room, NULL);
}

static void read_strings(struct usb_transport *transport,
                         const struct usb_device_descriptor *device, struct usb_stick_facts *facts)
{
    uint8_t data[USB_STRING_MAX];
    uint16_t language;
    int r = get_descriptor(transport, USB_DESCRIPTOR_STRING, 0, 0, data, sizeof(data));
    if (r <= 0 || usb_languages_parse(data, (size_t)r, &language, NULL) != 0)
        return;
    read_string(transport, device->manufacturer_string, language, facts->manufacturer,
                sizeof(facts->manufacturer));
    read_string(transport, device->product_string, language, facts->model, sizeof(facts->model));
    read_string(transport, device->serial_string, language, facts->serial, sizeof(facts->serial));
}

/* Setting the one that is there already would reset all of the device. */
static int configure(struct usb_transport *transport, const struct usb_found_all *found,
                     struct error *err)
{
    uint8_t value = transport->configuration;
    struct usb_setup setup = {0x80, GET_CONFIGURATION, 0, 0, 1};
    int r = value ? 1 : usb_control(transport, &setup, &value, REQUEST_MS);
    if (r != 1 || value != found->configuration)
        r = usb_set_configuration(transport, found->configuration);
    if (r < 0)
        return error_errno(err, -r, "set configuration %u", found->configuration);
    for (unsigned i = 0; i < found->count; i++) {
        r = usb_claim(transport, found->interfaces[i].interface);
        if (r < 0)
            return error_errno(err, -r, "claim interface %u", found->interfaces[i].interface);
    }
    return 0;
}

static int not_found(const struct usb_transport *transport,
                     const struct usb_device_descriptor *device, struct error *err)
{
    error_set(err, -ENOTSUP,
              "device %04x:%04x has no interface for mass storage that is spoken here (SCSI by "
              "bulk-only transport or UAS)",
              device->vendor, device->product);
    return transport->configuration
               ? error_context(err, "configuration %u, which the kernel has set",
                               transport->configuration)
               : -ENOTSUP;
}

static int look(struct source *source, struct usb_device_descriptor *device,
                struct usb_stick_facts *facts, struct usb_found_all *ret_found, struct error *err)
{
    const struct usb_transport *transport = source->transport;
    struct usb_configuration *configuration = xnew(struct usb_configuration);
    bool found = false;
    int r = source_open(source, err);
    if (r == 0)
        r = read_device(source, device, err);
    if (r == 0 && device->class != 0)
        r = note_class(facts, device->class, device->subclass, device->protocol, err);
    for (uint8_t i = 0; r == 0 && i < device->configurations; i++) {
        r = read_configuration(source, i, configuration, err);
        if (r == 0)
            r = note_classes(facts, configuration, err);
        if (r == 0 && !found &&
            (!transport->configuration || transport->configuration == configuration->value))
            found = find_storage(configuration, transport->speed, ret_found);
    }
    free(configuration);
    return r == 0 && !found ? not_found(transport, device, err) : r;
}

int usb_enumerate(struct usb_transport *transport, struct usb_stick_facts *ret_facts,
                  struct usb_found_all *ret_found, struct error *err)
{
    struct source source = {.transport = transport};
    struct usb_device_descriptor device;
    *ret_facts = (struct usb_stick_facts){0};
    int r = look(&source, &device, ret_facts, ret_found, err);
    free(source.data);
    if (r == 0)
        r = configure(transport, ret_found, err);
    if (r != 0)
        return r == -EPIPE || r == -EIO || r == -ETIMEDOUT ? -EPROTO : r;
    ret_facts->vendor = device.vendor;
    ret_facts->product = device.product;
    ret_facts->release = device.release;
    ret_facts->speed = transport->speed;
    read_strings(transport, &device, ret_facts);
    return 0;
}
