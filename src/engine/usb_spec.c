/* What of a container's specification is about sticks, before anything is done about it. */
#include <errno.h>
#include <string.h>

#include <base/text.h>
#include <engine/usb.h>

#include "usb.h"
#include "usb_internal.h"

static int check_device(const char *text, struct error *err)
{
    uint16_t vendor, product;
    const char *serial;

    return usb_device_parse(text, &vendor, &product, &serial, err);
}

static int check_storage(const struct api_container_spec *spec, size_t index, struct error *err)
{
    const struct api_usb_storage *storage = spec->usb_storage[index];

    if (storage->target[0] != '/' || strspn(storage->target, "/.") == strlen(storage->target))
        return error_set(err, -EINVAL,
                         "invalid --usb-storage: '%s' is no absolute path below the root",
                         storage->target);
    for (size_t i = 0; i < index; i++) {
        if (text_equal(spec->usb_storage[i]->target, storage->target))
            return error_set(err, -EINVAL, "Duplicate mount point: %s", storage->target);
    }
    for (size_t i = 0; i < spec->mounts_count; i++) {
        if (text_equal(spec->mounts[i]->target, storage->target))
            return error_set(err, -EINVAL, "Duplicate mount point: %s", storage->target);
    }
    return storage->device ? check_device(storage->device, err) : 0;
}

static int check_block(const struct api_container_spec *spec, size_t index, struct error *err)
{
    const struct api_usb_block *block = spec->usb_blocks[index];
    bool is_ring = text_equal(block->via, "ring");
    uint16_t vendor, product;
    const char *serial;

    if (block->target[0] != '/' || strspn(block->target, "/.") == strlen(block->target))
        return error_set(err, -EINVAL,
                         "invalid --usb-block: '%s' is no absolute path below the root",
                         block->target);
    if (!is_ring && (!text_starts_with(block->target, "/dev/") || strchr(block->target, ':') ||
                     !block->target[strlen("/dev/")]))
        return error_set(err, -EINVAL,
                         "invalid --usb-block: '%s' is no path below /dev, where its node is to be",
                         block->target);
    for (size_t i = 0; i < index; i++) {
        if (text_equal(spec->usb_blocks[i]->target, block->target))
            return error_set(err, -EINVAL, "Duplicate block device: %s", block->target);
    }
    return block->device ? usb_device_parse(block->device, &vendor, &product, &serial, err) : 0;
}

static int check_blocks(const struct api_container_spec *spec, struct error *err)
{
    int r = 0;

    for (size_t i = 0; r == 0 && i < spec->usb_blocks_count; i++)
        r = check_block(spec, i, err);
    return r;
}

int usb_spec_check(const struct api_container_spec *spec, struct error *err)
{
    int r = 0;

    for (size_t i = 0; r == 0 && i < spec->usb_storage_count; i++)
        r = check_storage(spec, i, err);
    for (size_t i = 0; r == 0 && i < spec->usb_devices_count; i++)
        r = check_device(spec->usb_devices[i], err);
    return r == 0 ? check_blocks(spec, err) : r;
}
