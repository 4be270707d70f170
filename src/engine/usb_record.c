/* What the next daemon is to know of a stick with a process. */
#include <fcntl.h>
#include <stdlib.h>

#include <base/alloc.h>
#include <base/file.h>
#include <base/log.h>

#include "usb_internal.h"

static struct usb_settings_placed **placed_of(const struct stick *stick, size_t *ret_count)
{
    struct usb_settings_placed **list = NULL;
    size_t count = 0;

    for (const struct usb_place *place = stick->places; place; place = place->next) {
        if (place->device == 0)
            continue;
        struct usb_settings_placed *placed = xnew(struct usb_settings_placed);
        *placed = (struct usb_settings_placed){
            .number = place->number,
            .container = xstrdup(place->container),
            .pid = place->pid,
            .target = xstrdup(place->target),
            .device = place->device,
            .volume = place->volume,
            .read_only = place->read_only,
            .begun = !place->placed,
            .has_begun = true,
        };
        list = xrealloc(list, count + 1, sizeof(struct usb_settings_placed *));
        list[count++] = placed;
    }
    *ret_count = count;
    return list ? list : xnew_array(struct usb_settings_placed *, 1);
}

void stick_record(const struct stick *stick)
{
    _cleanup_free_ char *path = usb_run_path(stick->usb, stick->key, ".json");
    _cleanup_buffer_ struct buffer text = BUFFER_INIT;
    _cleanup_error_ struct error err = ERROR_INIT;
    struct usb_settings_record record = {
        .version = 1,
        .id = (char *)(uintptr_t)stick->id,
        .url = stick->url,
        .pid = stick->pid,
        .user = stick->user,
        .has_user = !stick->is_old,
        .started = stick->started,
        .bus = stick->identity.bus,
        .device = stick->identity.device,
        .has_bus = true,
        .has_device = true,
        .authorized = stick->authorized,
        .has_authorized = true,
        .configuration = stick->chosen,
        .has_configuration = stick->chosen != 0,
        .wanted = stick->wanted,
        .has_wanted = true,
        .locked = stick->locked,
        .has_locked = true,
    };

    if (!stick->pid)
        return;
    record.mounts = placed_of(stick, &record.mounts_count);
    record.blocks = usb_blocks_record(stick, &record.blocks_count);
    usb_settings_record_write(&record, &text);
    if (file_replace_at(AT_FDCWD, path, text.data, text.length, 0600, &err) < 0)
        log_failure(LOG_ERROR, &err, "the next daemon will not know the stick at %s", stick->id);
    for (size_t i = 0; i < record.mounts_count; i++)
        usb_settings_placed_free(record.mounts[i]);
    free(record.mounts);
    for (size_t i = 0; i < record.blocks_count; i++)
        usb_settings_given_free(record.blocks[i]);
    free(record.blocks);
}
