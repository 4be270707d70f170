#include "behind.h"

#include <string.h>

#include <block/waiting.h>

#include "medium_internal.h"

void behind_init(struct behind *behind)
{
    pthread_mutex_init(&behind->lock, NULL);
}

void behind_finish(struct medium *medium)
{
    struct behind *behind = &medium->behind;
    block_buffer_free(medium->device, behind->data, BEHIND_MOST);
    pthread_mutex_destroy(&behind->lock);
}

/* The lock is held. */

static bool has_some(const struct behind *behind, uint64_t offset, uint64_t size)
{
    size_t held = atomic_load(&behind->size);
    return held > 0 && offset < behind->offset + held && behind->offset < offset + size;
}

/* After a failure nobody may take it for written: the medium takes no more updates, since what
 * leads to it may be among them. */
static int write_out(struct medium *medium, struct error *err)
{
    struct behind *behind = &medium->behind;
    uint32_t sector_size = medium->device->sector_size;
    size_t size = atomic_load(&behind->size);
    if (size == 0)
        return 0;
    int r = block_write(medium->device, behind->offset / sector_size,
                        (uint32_t)(size / sector_size), behind->data, err);
    atomic_store(&medium->content_written, true); /* again: a flush may have been meanwhile */
    /* Again: what was read from the device since then is older. */
    cache_patch(medium->cache, behind->offset, behind->data, size);
    atomic_store(&behind->size, 0);
    return medium_failed_by(medium, r);
}

static void add(struct medium *medium, uint64_t offset, const void *data, size_t size)
{
    struct behind *behind = &medium->behind;
    if (!behind->data)
        behind->data = block_buffer_alloc(medium->device, BEHIND_MOST);
    if (atomic_load(&behind->size) == 0)
        behind->offset = offset;
    size_t at = (size_t)(offset - behind->offset);
    memcpy(behind->data + at, data, size);
    if (at + size > atomic_load(&behind->size))
        atomic_store(&behind->size, at + size);
    atomic_store(&medium->content_written, true);
    cache_patch(medium->cache, offset, data, size);
    ahead_forget(&medium->ahead, offset, size);
}

/* Until here. */

int behind_keep(struct medium *medium, uint64_t offset, const void *data, size_t size,
                struct error *err)
{
    struct behind *behind = &medium->behind;
    int r = 0;
    block_lock(&behind->lock);
    size_t held = atomic_load(&behind->size);
    bool fits = held == 0 || (offset >= behind->offset && offset <= behind->offset + held &&
                              offset + size <= behind->offset + BEHIND_MOST);
    if (!fits)
        r = write_out(medium, err);
    if (r == 0)
        add(medium, offset, data, size);
    pthread_mutex_unlock(&behind->lock);
    return r;
}

int behind_write(struct medium *medium, struct error *err)
{
    struct behind *behind = &medium->behind;
    block_lock(&behind->lock);
    int r = write_out(medium, err);
    pthread_mutex_unlock(&behind->lock);
    return r;
}

int behind_settle(struct medium *medium, uint64_t offset, uint64_t size, struct error *err)
{
    struct behind *behind = &medium->behind;
    int r = 0;
    if (atomic_load(&behind->size) == 0)
        return 0;
    block_lock(&behind->lock);
    if (has_some(behind, offset, size))
        r = write_out(medium, err);
    pthread_mutex_unlock(&behind->lock);
    return r;
}

void behind_expect(struct medium *medium, uint64_t offset, uint64_t size)
{
    struct behind *behind = &medium->behind;
    block_lock(&behind->lock);
    if (!has_some(behind, offset, size))
        ahead_expect(&medium->ahead, offset, size);
    pthread_mutex_unlock(&behind->lock);
}
