/* Where units come from: what a stick and an image have in common, and the image. */
#include <errno.h>
#include <string.h>

#include <base/log.h>
#include <block/file.h>

#include "server.h"

void source_unit(struct server *server, unsigned number, const struct usb_unit_facts *facts,
                 struct block_device *medium)
{
    struct block_device *unseen = NULL;
    pthread_mutex_lock(&server->lock);
    struct server_unit *unit = &server->units[number];
    if (server->unit_count <= number)
        server->unit_count = number + 1;
    unit->facts = *facts;
    unit->is_changed = true;
    if (medium || facts->state != USB_UNIT_READY) {
        unseen = unit->fresh;
        unit->fresh = medium;
        unit->is_lost = true;
    }
    pthread_cond_signal(&server->work);
    pthread_mutex_unlock(&server->lock);
    block_device_destroy(unseen);
}

void source_hold(struct server *server, unsigned number, bool begins)
{
    struct server_unit *unit = &server->units[number];
    pthread_mutex_lock(&server->lock);
    bool was_held = unit->holders > 0;
    unit->holders += begins ? 1 : -1U;
    if (server->source->hold && was_held != (unit->holders > 0))
        server->source->hold(server, number, unit->holders > 0);
    pthread_mutex_unlock(&server->lock);
}

void source_gone(struct server *server, const struct error *failure)
{
    struct usb_stick_said said = {.message = failure ? (char *)error_message(failure) : NULL};
    struct usb_stick_nothing nothing = {0};
    const struct usb_stick_event event = {
        .failed = failure ? &said : NULL,
        .gone = failure ? NULL : &nothing,
    };
    pthread_mutex_lock(&server->lock);
    bool ending = server->is_ending;
    server->state = SOURCE_GONE;
    pthread_mutex_unlock(&server->lock);
    if (ending)
        return;
    if (failure)
        log_failure(LOG_ERROR, failure, "the stick cannot be served");
    else
        log_info("the stick is gone");
    control_tell(server, &event);
    control_finish(server, failure ? SERVER_FAILED : SERVER_GONE);
}

/* An image: one unit, whose medium stays. */

static int image_open(struct server *server, struct error *err)
{
    const struct server_options *options = server->options;
    struct block_device *medium;
    int r = block_file_open(options->fd, options->sector_size, options->read_only, &medium, err);
    if (r != 0)
        return r;
    const struct usb_unit_facts facts = {
        .state = USB_UNIT_READY,
        .write_protected = options->read_only,
        .caching = medium->flushes,
        .discards = medium->discards,
        .sector_size = medium->sector_size,
        .sectors = medium->sectors,
    };
    pthread_mutex_lock(&server->lock);
    server->state = SOURCE_OPEN;
    pthread_mutex_unlock(&server->lock);
    source_unit(server, 0, &facts, medium);
    return 0;
}

static int image_eject(struct server *server, unsigned unit, struct error *err)
{
    (void)server;
    (void)unit;
    return error_set(err, -EOPNOTSUPP, "an image has no medium that could be ejected");
}

static void image_counts(struct server *server, struct usb_stick_counts *ret_counts)
{
    (void)server;
    *ret_counts = (struct usb_stick_counts){0};
}

static void image_close(struct server *server)
{
    (void)server;
}

const struct source_ops image_source = {
    .open = image_open,
    .eject = image_eject,
    .counts = image_counts,
    .close = image_close,
};
