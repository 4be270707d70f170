/*
 * The content of files: whole sectors go between the device and the caller's memory, what is cut at
 * the ends goes through a sector of ours. Blocks of the cache that hold metadata beside content are
 * kept as the device is, since their sectors may be metadata one day.
 */
#include <errno.h>
#include <semaphore.h>
#include <stdlib.h>
#include <string.h>

#include <base/alloc.h>
#include <block/waiting.h>

#include "medium_internal.h"

enum {
    REQUESTS = 16, /* under way at once for one call */
    ZEROS_AT_ONCE = 64 << 10,
    DISCARD_MOST = 1 << 21, /* sectors */
};

static void one_is_done(struct block_request *request)
{
    sem_post(request->owner);
}

static void wait_for(sem_t *waiting, unsigned count)
{
    while (count > 0)
        if (sem_wait(waiting) == 0)
            count--;
}

/* One request: whoever waits for it may do the device's work. */
static int move_once(struct medium *medium, enum block_operation operation, uint64_t sector,
                     uint32_t count, uint8_t *data, struct error *err)
{
    size_t size = (size_t)count * medium->device->sector_size;
    uint8_t *buffer = size >= BOUNCE_LEAST ? bounce_take(&medium->bounce, data) : NULL;
    uint8_t *moved = buffer ? buffer : data;
    int r;
    if (operation == BLOCK_READ) {
        r = block_read(medium->device, sector, count, moved, err);
        if (r == 0 && buffer)
            memcpy(data, buffer, size);
    } else {
        if (buffer) {
            block_will_wait(); /* others need not wait for the copy either */
            memcpy(buffer, data, size);
        }
        r = block_write(medium->device, sector, count, moved, err);
    }
    bounce_give(&medium->bounce, buffer);
    return r;
}

/* Whole sectors, in requests of the best size, up to REQUESTS of them at a time. */
static int move_sectors(struct medium *medium, enum block_operation operation, uint64_t sector,
                        uint64_t count, uint8_t *data, struct error *err)
{
    uint32_t size = medium->device->sector_size, most = medium->device->best_size / size;
    struct block_request requests[REQUESTS];
    sem_t waiting;
    int r = 0;
    if (count <= most)
        return move_once(medium, operation, sector, (uint32_t)count, data, err);
    block_will_wait();
    sem_init(&waiting, 0, 0);
    while (r == 0 && count > 0) {
        unsigned started = 0;
        for (; started < REQUESTS && count > 0; started++) {
            uint32_t part = count < most ? (uint32_t)count : most;
            requests[started] = (struct block_request){
                .operation = operation,
                .sector = sector,
                .count = part,
                .data = data,
                .done = one_is_done,
                .owner = &waiting,
            };
            block_submit(medium->device, &requests[started]);
            sector += part;
            count -= part;
            data += (size_t)part * size;
        }
        wait_for(&waiting, started);
        for (unsigned i = 0; r == 0 && i < started; i++)
            if (requests[i].result != 0)
                r = error_errno(err, -requests[i].result, "%s %u sectors at %llu",
                                operation == BLOCK_READ ? "read" : "write", requests[i].count,
                                (unsigned long long)requests[i].sector);
    }
    sem_destroy(&waiting);
    return r;
}

static int read_part(struct medium *medium, uint64_t offset, uint8_t *data, size_t size,
                     struct error *err)
{
    uint32_t sector_size = medium->device->sector_size;
    uint8_t sector[CACHE_BLOCK]; /* to make memory of the device costs more than the copy */
    int r = block_read(medium->device, offset / sector_size, 1, sector, err);
    if (r == 0)
        memcpy(data, sector + offset % sector_size, size);
    return r;
}

static int write_part(struct medium *medium, uint64_t offset, const uint8_t *data, size_t size,
                      struct error *err)
{
    uint32_t sector_size = medium->device->sector_size;
    uint8_t sector[CACHE_BLOCK];
    int r = block_read(medium->device, offset / sector_size, 1, sector, err);
    if (r == 0) {
        memcpy(sector + offset % sector_size, data, size);
        r = block_write(medium->device, offset / sector_size, 1, sector, err);
    }
    return r;
}

static int move_part(struct medium *medium, enum block_operation operation, uint64_t offset,
                     uint8_t *data, size_t size, struct error *err)
{
    return operation == BLOCK_READ ? read_part(medium, offset, data, size, err)
                                   : write_part(medium, offset, data, size, err);
}

/* The part up to the first whole sector, whole sectors, the part behind the last one. */
static int move(struct medium *medium, enum block_operation operation, uint64_t offset,
                uint8_t *data, size_t size, struct error *err)
{
    uint32_t sector_size = medium->device->sector_size;
    size_t cut = (size_t)(offset % sector_size);
    int r = 0;
    if (cut > 0) {
        size_t part = sector_size - cut < size ? sector_size - cut : size;
        r = move_part(medium, operation, offset, data, part, err);
        offset += part;
        data += part;
        size -= part;
    }
    size_t whole = size / sector_size;
    if (r == 0 && whole > 0)
        r = move_sectors(medium, operation, offset / sector_size, whole, data, err);
    offset += whole * sector_size;
    data += whole * sector_size;
    size -= whole * sector_size;
    if (r == 0 && size > 0)
        r = move_part(medium, operation, offset, data, size, err);
    return r;
}

int medium_read_content(struct medium *medium, uint64_t offset, void *data, size_t size,
                        struct error *err)
{
    if (!medium_within(medium, offset, size))
        return medium_beyond(offset, size, err);
    uint8_t *to = data;
    int r = behind_settle(medium, offset, size, err);
    for (size_t part = 0; r == 0 && size > 0; offset += part, to += part, size -= part) {
        size_t gap = 0;
        part = ahead_take(&medium->ahead, offset, to, size, &gap);
        if (part > 0)
            continue;
        part = gap;
        r = move(medium, BLOCK_READ, offset, to, part, err);
    }
    return r;
}

void medium_expect_content(struct medium *medium, uint64_t offset, uint64_t size)
{
    if (medium_within(medium, offset, size))
        behind_expect(medium, offset, size);
}

static int write_now(struct medium *medium, uint64_t offset, const void *data, size_t size,
                     struct error *err)
{
    int r = behind_settle(medium, offset, size, err);
    if (r == 0)
        r = move(medium, BLOCK_WRITE, offset, (uint8_t *)data, size, err);
    atomic_store(&medium->content_written, true);
    cache_patch(medium->cache, offset, data, size);
    ahead_forget(&medium->ahead, offset, size);
    return r;
}

int medium_write_content(struct medium *medium, uint64_t offset, const void *data, size_t size,
                         struct error *err)
{
    if (!medium_within(medium, offset, size))
        return medium_beyond(offset, size, err);
    int r = medium_writable(medium, err);
    if (r != 0 || size == 0)
        return r;
    uint32_t sector_size = medium->device->sector_size;
    return size <= BEHIND_PIECE && offset % sector_size == 0 && size % sector_size == 0
               ? behind_keep(medium, offset, data, size, err)
               : write_now(medium, offset, data, size, err);
}

int medium_zero_content(struct medium *medium, uint64_t offset, uint64_t size, struct error *err)
{
    size_t most = size < ZEROS_AT_ONCE ? (size_t)size : ZEROS_AT_ONCE;
    uint8_t *zeros = medium_buffer(medium, ZEROS_AT_ONCE);
    int r = medium_within(medium, offset, size) ? medium_writable(medium, err)
                                                : medium_beyond(offset, size, err);
    memset(zeros, 0, most);
    for (uint64_t done = 0; r == 0 && done < size; done += most) {
        size_t part = size - done < most ? (size_t)(size - done) : most;
        r = write_now(medium, offset + done, zeros, part, err);
    }
    medium_buffer_free(medium, zeros, ZEROS_AT_ONCE);
    return r;
}

void *medium_buffer(struct medium *medium, size_t size)
{
    uint8_t *buffer = size <= medium->device->best_size ? bounce_lend(&medium->bounce) : NULL;
    return buffer ? buffer : block_buffer_alloc(medium->device, size);
}

void medium_buffer_free(struct medium *medium, void *buffer, size_t size)
{
    if (!bounce_give(&medium->bounce, buffer))
        block_buffer_free(medium->device, buffer, size);
}

int medium_discard(struct medium *medium, uint64_t offset, uint64_t size, struct error *err)
{
    uint32_t sector_size = medium->device->sector_size;
    uint64_t first = (offset + sector_size - 1) / sector_size, end = (offset + size) / sector_size;
    if (!medium_within(medium, offset, size))
        return medium_beyond(offset, size, err);
    int r = medium_writable(medium, err);
    if (r == 0)
        r = behind_settle(medium, offset, size, err);
    ahead_forget(&medium->ahead, offset, size);
    while (r == 0 && first < end) {
        uint32_t part = end - first < DISCARD_MOST ? (uint32_t)(end - first) : DISCARD_MOST;
        r = block_discard(medium->device, first, part, err);
        first += part;
    }
    cache_forget(medium->cache, offset, size);
    return r;
}
