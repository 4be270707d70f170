#include "stick.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>

#include <base/alloc.h>

static void submit(struct block_device *whole, struct block_request *request)
{
    struct disk *disk = (struct disk *)whole;
    struct usb_stick *stick = disk->unit->stick;
    bool attended = request->attended; /* it may be done as soon as it is put */
    bool first = block_queue_push(&disk->queue, request);
    if (first && !attended && !atomic_load(&stick->awake) && !atomic_load(&stick->attended))
        block_queue_wake(&disk->queue);
}

static void attend(struct block_device *whole, const atomic_bool *done)
{
    stick_attend(((struct disk *)whole)->unit, done);
}

static void *buffer_alloc(struct block_device *device, size_t size)
{
    struct usb_transport *transport = ((struct disk *)device)->unit->stick->transport;
    return transport->ops->buffer_alloc ? transport->ops->buffer_alloc(transport, size) : NULL;
}

static bool buffer_free(struct block_device *device, void *buffer, size_t size)
{
    struct usb_transport *transport = ((struct disk *)device)->unit->stick->transport;
    return transport->ops->buffer_free && transport->ops->buffer_free(transport, buffer, size);
}

/* The device thread frees it. */
static void destroy(struct block_device *device)
{
    struct disk *disk = (struct disk *)device;
    struct usb_stick *stick = disk->unit->stick;
    pthread_mutex_lock(&stick->returning);
    disk->returned = true;
    usb_stick_wake(stick);
    pthread_mutex_unlock(&stick->returning);
}

static const struct block_device_ops disk_ops = {
    .submit = submit,
    .attend = attend,
    .buffer_alloc = buffer_alloc,
    .buffer_free = buffer_free,
    .destroy = destroy,
};

struct disk *disk_create(struct unit *unit, struct error *err)
{
    const struct usb_unit_facts *facts = &unit->facts;
    struct usb_stick *stick = unit->stick;
    struct disk *disk = xnew(struct disk);
    disk->unit = unit;
    disk->device = (struct block_device){
        .ops = &disk_ops,
        .whole = &disk->device,
        .sector_size = facts->sector_size,
        .sectors = facts->sectors,
        .best_size = COMMAND_MAX,
        .read_only = facts->write_protected,
        .flushes = facts->caching,
        .discards = facts->discards,
        .lost = &disk->gone,
    };
    int r = block_queue_init(&disk->queue, err);
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = disk};
    if (r == 0 && (epoll_ctl(stick->epoll, EPOLL_CTL_ADD, disk->queue.wake, &event) != 0 ||
                   epoll_ctl(stick->quiet, EPOLL_CTL_ADD, disk->queue.wake, &event) != 0))
        r = error_errno(err, errno, "watch for requests");
    if (r != 0) {
        block_queue_finish(&disk->queue);
        free(disk);
        return NULL;
    }
    disk->next = stick->disks;
    stick->disks = disk;
    return disk;
}

void disk_free(struct disk *disk)
{
    struct disk **at = &disk->unit->stick->disks;
    while (*at != disk)
        at = &(*at)->next;
    *at = disk->next;
    block_queue_finish(&disk->queue);
    free(disk);
}

static void answer(struct block_request *request, int result)
{
    request->result = result;
    request->done(request);
}

void disk_take(struct disk *disk)
{
    struct unit *unit = disk->unit;
    struct block_request *next, *request = block_queue_take(&disk->queue);
    for (; request; request = next) {
        next = request->next;
        request->next = NULL;
        if (disk->gone) {
            answer(request, disk->gone);
        } else if (unit->eject) {
            answer(request, -ENOMEDIUM);
        } else if (request->operation == BLOCK_FLUSH && unit->cannot_flush) {
            answer(request, requests_flushed(unit));
        } else {
            *unit->last = request;
            unit->last = &request->next;
        }
    }
}

static struct block_request *first_waiting(struct unit *unit)
{
    struct block_request *request = unit->first;
    unit->first = request->next;
    if (!unit->first)
        unit->last = &unit->first;
    return request;
}

void requests_take(struct lane *lane)
{
    lane->request = first_waiting(lane->unit);
    lane->progress = lane->tries = lane->attentions = 0;
    lane->due = lane->patience_end = 0;
    lane->doomed = 0;
}

static void answer_lane(struct lane *lane, int result)
{
    struct block_request *request = lane->request;
    lane->request = NULL;
    answer(request, result);
}

void requests_answer(struct unit *unit, int result)
{
    for (unsigned i = 0; i < LANES_MAX; i++) {
        struct lane *lane = &unit->lanes[i];
        if (lane->request && lane->flying)
            lane->doomed = result;
        else if (lane->request)
            answer_lane(lane, result);
    }
    while (unit->first)
        answer(first_waiting(unit), result);
}

void requests_doom(struct lane *lane)
{
    answer_lane(lane, lane->doomed);
}

/* What a flush makes durable has ended before; where both use the unit's memory, too. */
bool request_is_alone(const struct block_request *request)
{
    return request->operation == BLOCK_FLUSH || request->operation == BLOCK_DISCARD;
}

int requests_flushed(struct unit *unit)
{
    int r = unit->write_lost ? -EIO : 0;
    unit->unflushed = unit->write_lost = false;
    return r;
}

/* Sectors that one command may be about. */
static uint32_t sectors_max(const struct unit *unit, enum block_operation operation)
{
    const struct scsi_limits *limits = &unit->limits;
    if (operation != BLOCK_DISCARD) {
        uint32_t most = COMMAND_MAX / unit->facts.sector_size;
        return limits->transfer && limits->transfer < most ? limits->transfer : most;
    }
    if (unit->provisioning.unmap)
        return limits->unmap;
    return limits->write_same && limits->write_same < UINT16_MAX ? (uint32_t)limits->write_same
                                                                 : UINT16_MAX;
}

void requests_word(struct lane *lane)
{
    struct unit *unit = lane->unit;
    struct usb_command *command = &lane->command;
    const struct block_request *request = lane->request;
    uint32_t size = unit->facts.sector_size, most = sectors_max(unit, request->operation);
    uint32_t left = request->count - lane->progress;
    uint64_t sector = request->at + lane->progress;
    uint8_t *data = (uint8_t *)request->data + (size_t)lane->progress * size;
    lane->moving = left < most ? left : most;
    switch (request->operation) {
    case BLOCK_READ:
        scsi_read(command, sector, lane->moving, size, data);
        break;
    case BLOCK_WRITE:
        scsi_write(command, sector, lane->moving, size, data);
        break;
    case BLOCK_FLUSH:
        scsi_synchronize_cache(command, unit->facts.sectors > UINT32_MAX);
        command->timeout_ms *= FLUSH_FACTOR;
        break;
    case BLOCK_DISCARD:
        memset(unit->answer, 0, ANSWER_SIZE);
        if (unit->provisioning.unmap)
            scsi_unmap(command, sector, lane->moving, unit->answer);
        else
            scsi_write_same_unmap(command, sector, lane->moving, size, unit->answer);
        command->timeout_ms *= FLUSH_FACTOR;
        break;
    }
}

/* Another try, or the end of it. */
static void try_again(struct lane *lane, unsigned *tries, unsigned most, int result)
{
    if (++*tries >= most)
        answer_lane(lane, result);
}

static void wait_for_it(struct lane *lane, int64_t now)
{
    if (!lane->patience_end)
        lane->patience_end = now + lane->unit->stick->options.patience_ms;
    lane->due = now + WAIT_MS;
    if (now >= lane->patience_end)
        answer_lane(lane, -ETIMEDOUT);
}

static void moved(struct lane *lane)
{
    struct unit *unit = lane->unit;
    const struct usb_command *command = &lane->command;
    const struct block_request *request = lane->request;
    if (stick_moved(unit->channel, command) != command->length) {
        try_again(lane, &lane->tries, TRIES, -EIO);
        return;
    }
    unit->has_moved = true;
    lane->progress += lane->moving;
    lane->tries = lane->attentions = 0;
    lane->due = lane->patience_end = 0;
    unit->unflushed |= request->operation == BLOCK_WRITE && unit->facts.caching;
    if (request->operation == BLOCK_FLUSH)
        answer_lane(lane, requests_flushed(unit));
    else if (lane->progress == request->count)
        answer_lane(lane, 0);
}

/* A read has nothing to do with it. */
static void write_lost(struct lane *lane)
{
    struct unit *unit = lane->unit;
    switch (lane->request->operation) {
    case BLOCK_READ:
        try_again(lane, &lane->attentions, ATTENTIONS, -EIO);
        break;
    case BLOCK_FLUSH:
        answer_lane(lane, requests_flushed(unit));
        break;
    default: /* the next flush says so, too */
        answer_lane(lane, -EIO);
    }
}

static void refused(struct lane *lane)
{
    struct unit *unit = lane->unit;
    switch (lane->request->operation) {
    case BLOCK_FLUSH: /* no cache that it would know of */
        unit->cannot_flush = true;
        answer_lane(lane, requests_flushed(unit));
        break;
    case BLOCK_DISCARD:
        answer_lane(lane, -EOPNOTSUPP);
        break;
    default:
        answer_lane(lane, -EIO);
    }
}

void requests_done(struct lane *lane, enum verdict verdict, int64_t now)
{
    struct unit *unit = lane->unit;
    switch (verdict) {
    case VERDICT_GOOD:
        moved(lane);
        break;
    case VERDICT_AGAIN:
    case VERDICT_RESET:
        try_again(lane, &lane->attentions, ATTENTIONS, -EIO);
        break;
    case VERDICT_LOST:
        try_again(lane, &lane->tries, TRIES, -EIO);
        break;
    case VERDICT_LATE:
        try_again(lane, &lane->tries, TRIES, -ETIMEDOUT);
        break;
    case VERDICT_START:
        unit->wants_start = true;
        wait_for_it(lane, now);
        break;
    case VERDICT_WAIT:
        wait_for_it(lane, now);
        break;
    case VERDICT_EMPTY:
        unit_lose_medium(unit, USB_UNIT_EMPTY, -ENOMEDIUM, "no medium");
        break;
    case VERDICT_CHANGED:
        unit_lose_medium(unit, USB_UNIT_WAITING, -ENOMEDIUM, "another medium");
        break;
    case VERDICT_PROTECTED:
        answer_lane(lane, -EROFS);
        break;
    case VERDICT_REFUSED:
        refused(lane);
        break;
    case VERDICT_WRITE_LOST:
        write_lost(lane);
        break;
    case VERDICT_ERROR:
        answer_lane(lane, -EIO);
        break;
    }
}
