/* Whole units as block devices: a descriptor that came with a request becomes a door. While a unit
 * is given out its volumes are taken. */
#include <errno.h>
#include <stdlib.h>

#include <base/alloc.h>
#include <base/log.h>
#include <base/text.h>

#include "server.h"

static const char giving_out[] = "block";

/* On a thread of the door. */
static void note_end(struct stick_block *block, int result, const char *message)
{
    struct server *server = block->server;
    pthread_mutex_lock(&server->lock);
    block->ended = true;
    block->result = result;
    block->message = xstrdup(message);
    pthread_cond_signal(&server->work);
    pthread_mutex_unlock(&server->lock);
}

static void nbd_ended(struct nbd_door *door, int result, const char *message, void *data)
{
    (void)door;
    note_end(data, result, message);
}

static void cuse_ended(struct cuse_door *door, int result, const char *message, void *data)
{
    (void)door;
    note_end(data, result, message);
}

static void ring_ended(struct ring_door *door, int result, const char *message, void *data)
{
    (void)door;
    note_end(data, result, message);
}

static void close_door(struct stick_block *block)
{
    switch (block->kind) {
    case BLOCK_DOOR_NBD:
        nbd_door_close(block->nbd);
        break;
    case BLOCK_DOOR_CUSE:
        cuse_door_close(block->cuse);
        break;
    case BLOCK_DOOR_RING:
        ring_door_close(block->ring);
        break;
    }
}

/* Closing. */

static void block_free(struct stick_block *block)
{
    if (!block->read_only)
        source_hold(block->server, block->unit, false);
    block_device_destroy(block->stream);
    block_device_destroy(block->part);
    free(block->message);
    free(block);
}

/* The one who closes it; NULL: it is closed already. */
static struct stick_block *take_down(struct server *server, unsigned unit)
{
    pthread_mutex_lock(&server->lock);
    while (server->units[unit].block && server->units[unit].block->is_closing)
        pthread_cond_wait(&server->changed, &server->lock);
    struct stick_block *block = server->units[unit].block;
    if (block)
        block->is_closing = true;
    pthread_mutex_unlock(&server->lock);
    return block;
}

/* What its volumes are is not known any more where it could be written. */
static void give_back(struct server *server, const struct stick_block *block)
{
    struct server_unit *unit = &server->units[block->unit];
    unit_give(server, block->unit, !block->read_only);
    pthread_mutex_lock(&server->lock);
    unit->block = NULL;
    if (!block->read_only && unit->is_read) {
        unit->is_rescanned = true;
        pthread_cond_signal(&server->work);
    }
    pthread_cond_broadcast(&server->changed);
    pthread_mutex_unlock(&server->lock);
}

static void tell_end(const struct stick_block *block, const char *reason, const char *error)
{
    struct usb_stick_unblocked unblocked = {
        .block = block->number,
        .unit = block->unit,
        .reason = (char *)reason,
        .error = (char *)error,
    };
    const struct usb_stick_event event = {.unblocked = &unblocked};
    control_tell(block->server, &event);
}

int block_close(struct server *server, unsigned unit, const char *reason, struct error *err)
{
    _cleanup_error_ struct error own = ERROR_INIT;
    struct stick_block *block = take_down(server, unit);
    if (!block)
        return 0;
    close_door(block);
    block_device_destroy(steal_ptr(block->stream)); /* what it reads from is the unit's */
    int r = block->read_only ? 0 : block_flush(block->part, &own);
    if (r == -ENODEV || r == -ENOMEDIUM) /* whoever wrote was told */
        r = 0;
    const char *error = r != 0                         ? error_message(&own)
                        : text_equal(reason, "failed") ? block->message
                                                       : NULL;
    give_back(server, block);
    if (reason) /* whoever hears of it may have it again */
        tell_end(block, reason, error);
    block_free(block);
    return r == 0 ? 0 : error_move(err, &own);
}

int block_to_reap(const struct server *server)
{
    for (unsigned i = 0; i < server->unit_count; i++) {
        const struct stick_block *block = server->units[i].block;
        if (block && block->ended && !block->is_closing)
            return (int)i;
    }
    return -1;
}

void block_reap(struct server *server, unsigned unit)
{
    _cleanup_error_ struct error err = ERROR_INIT;
    pthread_mutex_lock(&server->lock);
    const struct stick_block *block = server->units[unit].block;
    int result = block ? block->result : 0;
    pthread_mutex_unlock(&server->lock);
    const char *reason = result == 0 || result == -ECONNRESET ? "closed"
                         : result == -ENODEV                  ? "gone"
                                                              : "failed";
    if (block_close(server, unit, reason, &err) != 0)
        log_failure(LOG_ERROR, &err, "unit %u: not all that was written is there", unit);
}

/* Opening. */

static int open_door(struct job *job, struct stick_block *block, struct error *err)
{
    const struct usb_stick_block *wanted = job->request->block;
    const struct nbd_door_options nbd = {block->read_only, wanted->negotiates, nbd_ended, block};
    const struct cuse_door_options cuse = {wanted->name ? wanted->name : "usbblk0",
                                           block->read_only, cuse_ended, block};
    const struct ring_door_options ring = {block->read_only, ring_ended, block};
    int fd = steal_fd(&job->fds[0]);
    switch (block->kind) {
    case BLOCK_DOOR_NBD:
        return nbd_door_open(block->stream, fd, &nbd, &block->nbd, err);
    case BLOCK_DOOR_CUSE:
        return cuse_door_open(block->stream, fd, &cuse, &block->cuse, err);
    case BLOCK_DOOR_RING:
        break;
    }
    return ring_door_open(block->stream, fd, &ring, &block->ring, err);
}

static enum block_door_kind kind_of(const char *door)
{
    return text_equal(door, "nbd")    ? BLOCK_DOOR_NBD
           : text_equal(door, "cuse") ? BLOCK_DOOR_CUSE
                                      : BLOCK_DOOR_RING;
}

static int make(struct job *job, unsigned unit, struct stick_block **ret_block, struct error *err)
{
    const struct usb_stick_block *wanted = job->request->block;
    struct block_device *medium = job->server->units[unit].medium, *part;
    int r = block_part(medium, 0, medium->sectors, &part, err);
    if (r != 0)
        return r;
    struct stick_block *block = xnew(struct stick_block);
    block->server = job->server;
    block->unit = unit;
    block->kind = kind_of(wanted->door);
    block->part = part;
    block->stream = block_stream_create(part);
    block->read_only = wanted->read_only || part->read_only;
    if (!block->read_only)
        source_hold(job->server, unit, true);
    r = open_door(job, block, err);
    if (r != 0)
        block_free(block);
    else
        *ret_block = block;
    return r;
}

int job_block(struct job *job, struct usb_stick_result *result, struct error *err)
{
    struct server *server = job->server;
    unsigned unit = job->request->block->unit;
    struct stick_block *block = NULL;
    int r = unit_take(server, unit, giving_out, err);
    if (r != 0)
        return r;
    r = make(job, unit, &block, err);
    if (r != 0) {
        unit_give(server, unit, false);
        return r;
    }
    result->block = xnew(struct usb_stick_blocked);
    pthread_mutex_lock(&server->lock);
    block->number = ++server->last_block;
    server->units[unit].block = block;
    status_of_block(block, result->block);
    pthread_cond_signal(&server->work); /* it may have ended already */
    pthread_cond_broadcast(&server->changed);
    pthread_mutex_unlock(&server->lock);
    return 0;
}

int job_unblock(struct job *job, struct usb_stick_result *result, struct error *err)
{
    struct server *server = job->server;
    uint32_t number = job->request->unblock->block;
    int unit = -1;
    (void)result;
    pthread_mutex_lock(&server->lock);
    for (unsigned i = 0; i < server->unit_count; i++)
        if (server->units[i].block && server->units[i].block->number == number)
            unit = (int)i;
    pthread_mutex_unlock(&server->lock);
    if (unit < 0)
        return error_set(err, -ENOENT, "there is no block device %u", number);
    return block_close(server, (unsigned)unit, NULL, err);
}
