#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include <base/alloc.h>
#include <block/waiting.h>

#include "medium_internal.h"

void list_add(struct list *list, void *item)
{
    if (list->count == list->room) {
        list->room = list->room ? list->room * 2 : 64;
        list->items = xrealloc(list->items, list->room, sizeof(*list->items));
    }
    list->items[list->count++] = item;
}

void list_finish(struct list *list)
{
    free(list->items);
    *list = (struct list){0};
}

int medium_open(struct block_device *device, const struct medium_options *options,
                struct medium **ret_medium, struct error *err)
{
    if (CACHE_BLOCK % device->sector_size != 0)
        return error_set(err, -EINVAL, "sectors of %u bytes", device->sector_size);
    if (device->sectors / (CACHE_BLOCK / device->sector_size) >= CACHE_BLOCKS_MOST)
        return error_set(err, -EFBIG, "%llu sectors are more than are managed",
                         (unsigned long long)device->sectors);
    struct cache_facts facts;
    struct medium *medium = xnew(struct medium);
    medium->device = device;
    medium->read_only = options->read_only || device->read_only;
    medium->cache = cache_create(device, options->cache_size ? options->cache_size : CACHE_DEFAULT);
    ahead_init(&medium->ahead, device);
    behind_init(&medium->behind);
    bounce_init(&medium->bounce, device);
    cache_facts(medium->cache, &facts);
    medium->pinned_most = facts.bytes_most / CACHE_BLOCK / PINNED_PART * (PINNED_PART - 1);
    medium->transaction = 1;
    medium->recovered = MEDIUM_NO_JOURNAL;
    medium->first_sector = UINT64_MAX;
    pthread_mutex_init(&medium->update, NULL);
    pthread_mutex_init(&medium->commit, NULL);
    *ret_medium = medium;
    return 0;
}

void medium_cache(const struct medium *medium, struct cache_facts *ret_facts)
{
    cache_facts(medium->cache, ret_facts);
}

uint64_t medium_size(const struct medium *medium)
{
    return medium->device->sectors * medium->device->sector_size;
}

uint32_t medium_sector_size(const struct medium *medium)
{
    return medium->device->sector_size;
}

bool medium_read_only(const struct medium *medium)
{
    return medium->read_only;
}

bool medium_within(const struct medium *medium, uint64_t offset, uint64_t size)
{
    uint64_t end = medium_size(medium);
    return offset <= end && size <= end - offset;
}

int medium_beyond(uint64_t offset, uint64_t size, struct error *err)
{
    return error_set(err, -EINVAL, "%llu bytes at %llu are beyond the volume's end",
                     (unsigned long long)size, (unsigned long long)offset);
}

/* Metadata: reading. */

int medium_read(struct medium *medium, uint64_t offset, void *data, size_t size, struct error *err)
{
    if (!medium_within(medium, offset, size))
        return medium_beyond(offset, size, err);
    uint8_t *to = data;
    while (size > 0) {
        struct cached *block;
        size_t at = offset % CACHE_BLOCK;
        size_t part = CACHE_BLOCK - at < size ? CACHE_BLOCK - at : size;
        int r = cache_get(medium->cache, offset / CACHE_BLOCK, &block, err);
        if (r != 0)
            return r;
        memcpy(to, block->data + at, part);
        cache_put(block);
        to += part;
        offset += part;
        size -= part;
    }
    return 0;
}

void medium_expect(struct medium *medium, uint64_t offset, uint64_t size)
{
    if (size > 0 && medium_within(medium, offset, size))
        cache_expect(medium->cache, offset / CACHE_BLOCK,
                     (offset + size - 1) / CACHE_BLOCK - offset / CACHE_BLOCK + 1);
}

/* Metadata: changing. The lock `update` is held. */

static struct touched *touched_of(struct medium *medium, struct cached *block)
{
    if (!block->owner) {
        block->owner = xnew(struct touched);
        medium->pinned++;
    }
    return block->owner;
}

/* One of its members has become NULL. */
void medium_let_go(struct medium *medium, struct cached *block)
{
    struct touched *touched = block->owner;
    if (--touched->count == 0) {
        medium->pinned--;
        block->owner = NULL;
        free(touched);
    }
    cache_put(block);
}

static struct change **change_at(struct medium *medium, struct cached *block, uint64_t sector)
{
    return &touched_of(medium, block)->changes[sector % sectors_of_block(medium)];
}

/* Without a journal a sector is written as it was at the end of each epoch: else what it carries
 * for one would be on the medium only with what a later one has changed. */
static void keep_earlier(struct medium *medium, const struct change *change, const uint8_t *now)
{
    struct earlier *earlier = xnew(struct earlier);
    *earlier =
        (struct earlier){change->sector, change->epoch, xmemdup(now, medium->device->sector_size)};
    list_add(&medium->earlier, earlier);
}

void medium_forget_earlier(struct list *earlier, size_t count)
{
    while (earlier->count > count) {
        struct earlier *last = earlier->items[--earlier->count];
        free(last->image);
        free(last);
    }
}

/* Notes that the running update changes a sector of this block, which the caller has pinned. */
static void note_change(struct medium *medium, struct cached *block, uint64_t sector)
{
    uint32_t size = medium->device->sector_size;
    uint8_t *now = sector_data(medium, block, sector);
    struct change **at = change_at(medium, block, sector);
    struct change *change = *at;
    if (!change) {
        *at = change = xnew(struct change);
        touched_of(medium, block)->count++;
        cache_pin(block);
        change->sector = sector;
        change->block = block;
        change->before = xmemdup(now, size);
        change->epoch = medium->epoch;
        list_add(&medium->running, change);
    }
    if (!change->undo) {
        change->undo = xmemdup(now, size);
        change->undo_epoch = change->epoch;
        list_add(&medium->undoable, change);
    }
    if (change->epoch < medium->epoch && !medium->has_journal)
        keep_earlier(medium, change, now);
    change->epoch = medium->epoch;
}

static void write_block(struct medium *medium, struct cached *block, size_t at, const uint8_t *data,
                        size_t size)
{
    uint32_t sector_size = medium->device->sector_size;
    uint64_t first = block->number * sectors_of_block(medium);
    for (size_t i = at / sector_size; i <= (at + size - 1) / sector_size; i++)
        note_change(medium, block, first + i);
    memcpy(block->data + at, data, size);
}

int medium_write(struct medium *medium, uint64_t offset, const void *data, size_t size,
                 struct error *err)
{
    if (!medium_within(medium, offset, size))
        return medium_beyond(offset, size, err);
    const uint8_t *from = data;
    int r = behind_settle(medium, offset, size, err); /* content of a file that is gone */
    if (r != 0)
        return r;
    while (size > 0) {
        struct cached *block;
        size_t at = offset % CACHE_BLOCK;
        size_t part = CACHE_BLOCK - at < size ? CACHE_BLOCK - at : size;
        r = cache_get(medium->cache, offset / CACHE_BLOCK, &block, err);
        if (r != 0)
            return r;
        write_block(medium, block, at, from, part);
        cache_put(block);
        from += part;
        offset += part;
        size -= part;
    }
    return 0;
}

void medium_change_free(struct change *change)
{
    free(change->before);
    free(change->undo);
    free(change);
}

unsigned medium_update_most(const struct medium *medium)
{
    return medium->has_journal ? journal_record_most(&medium->journal) : CHANGES_MOST;
}

int medium_writable(struct medium *medium, struct error *err)
{
    if (medium->read_only)
        return error_set(err, -EROFS, "the medium is read-only");
    int failed = atomic_load(&medium->failed);
    return failed ? error_set(err, failed, "the medium takes no more writes after an error") : 0;
}

/* Whether the running transaction can take so many sectors more, and the cache so many blocks. The
 * lock `update` is held. */
static bool has_room(const struct medium *medium, unsigned sectors, unsigned most,
                     bool *ret_is_cache_full)
{
    *ret_is_cache_full = medium->pinned > 0 && medium->pinned + sectors > medium->pinned_most;
    return !*ret_is_cache_full && medium->running.count + medium->earlier.count + sectors <= most;
}

int medium_begin(struct medium *medium, unsigned sectors, struct error *err)
{
    unsigned most = medium_update_most(medium);
    if (sectors > most)
        return error_set(err, -E2BIG, "an update of %u sectors: at most %u", sectors, most);
    for (;;) {
        int r = medium_writable(medium, err);
        if (r != 0)
            return r;
        block_lock(&medium->update);
        bool is_cache_full;
        if (has_room(medium, sectors, most, &is_cache_full))
            break;
        pthread_mutex_unlock(&medium->update);
        r = is_cache_full ? medium_settle(medium, err) : medium_commit(medium, err);
        if (r != 0)
            return r;
    }
    medium->in_update = true;
    medium->earlier_kept = medium->earlier.count;
    medium->in_use_before = medium->in_use;
    return 0;
}

/* What was kept to take the update back is not needed any more. */
static void forget_undo(struct medium *medium)
{
    for (size_t i = 0; i < medium->undoable.count; i++) {
        struct change *change = medium->undoable.items[i];
        free(steal_ptr(change->undo));
    }
    medium->undoable.count = 0;
}

void medium_end(struct medium *medium)
{
    forget_undo(medium);
    medium_barrier(medium); /* to the next update */
    medium->in_update = false;
    atomic_fetch_add(&medium->changes, 1);
    pthread_mutex_unlock(&medium->update);
}

void medium_abort(struct medium *medium)
{
    uint32_t size = medium->device->sector_size;
    size_t kept = 0;
    for (size_t i = 0; i < medium->running.count; i++) {
        struct change *change = medium->running.items[i];
        if (change->undo) {
            memcpy(sector_data(medium, change->block, change->sector), change->undo, size);
            if (memcmp(change->undo, change->before, size) == 0) {
                *change_at(medium, change->block, change->sector) = NULL;
                medium_let_go(medium, change->block);
                medium_change_free(change);
                continue;
            }
            free(steal_ptr(change->undo));
            change->epoch = change->undo_epoch;
        }
        medium->running.items[kept++] = change;
    }
    medium->running.count = kept;
    medium->undoable.count = 0;
    medium_forget_earlier(&medium->earlier, medium->earlier_kept);
    medium->in_use = medium->in_use_before;
    medium->in_update = false;
    pthread_mutex_unlock(&medium->update);
}

void medium_barrier(struct medium *medium)
{
    medium->epoch++;
}

void medium_first(struct medium *medium, uint64_t offset)
{
    medium->first_sector = offset / medium->device->sector_size;
}

uint64_t medium_running(struct medium *medium)
{
    return medium->transaction;
}

uint64_t medium_committed(struct medium *medium)
{
    return atomic_load(&medium->committed);
}

uint64_t medium_in_place(struct medium *medium)
{
    return atomic_load(&medium->in_place);
}

/* The journal. */

static int journal_place(const struct medium *medium, uint64_t offset, uint64_t size,
                         struct error *err)
{
    uint32_t sector_size = medium->device->sector_size;
    if (!medium_within(medium, offset, size))
        return medium_beyond(offset, size, err);
    if (offset % sector_size || size % sector_size || size < MEDIUM_JOURNAL_LEAST ||
        size > MEDIUM_JOURNAL_MOST)
        return error_set(err, -EINVAL, "no place for a journal: %llu bytes at %llu",
                         (unsigned long long)size, (unsigned long long)offset);
    return 0;
}

static int recover(struct medium *medium, uint64_t offset, uint64_t size, bool only_look,
                   enum medium_recovery *ret_recovery, struct error *err)
{
    *ret_recovery = MEDIUM_NO_JOURNAL;
    if (journal_place(medium, offset, size, NULL) != 0)
        return 0;
    int r = journal_recover(medium->device, offset / medium->device->sector_size, size, only_look,
                            ret_recovery, &medium->was_in_use, err);
    medium->in_use = medium->was_in_use;
    cache_drop(medium->cache);
    medium->recovered = *ret_recovery;
    return r;
}

int medium_recover(struct medium *medium, uint64_t offset, uint64_t size,
                   enum medium_recovery *ret_recovery, struct error *err)
{
    return recover(medium, offset, size, medium->read_only, ret_recovery, err);
}

int medium_look(struct medium *medium, uint64_t offset, uint64_t size,
                enum medium_recovery *ret_recovery, struct error *err)
{
    return recover(medium, offset, size, true, ret_recovery, err);
}

enum medium_recovery medium_recovered(const struct medium *medium)
{
    return medium->recovered;
}

bool medium_was_in_use(const struct medium *medium)
{
    return medium->was_in_use;
}

void medium_set_in_use(struct medium *medium, bool in_use)
{
    medium->in_use = in_use;
}

int medium_journal(struct medium *medium, uint64_t offset, uint64_t size, struct error *err)
{
    int r = medium_writable(medium, err);
    if (r == 0)
        r = journal_place(medium, offset, size, err);
    if (r != 0)
        return r;
    /* A commit that is under way ends as it began. */
    pthread_mutex_lock(&medium->commit);
    pthread_mutex_lock(&medium->update);
    r = journal_make(&medium->journal, medium->device, offset / medium->device->sector_size, size,
                     medium->in_use, err);
    if (r == 0)
        r = block_flush(medium->device, err);
    medium->has_journal = r == 0;
    pthread_mutex_unlock(&medium->update);
    pthread_mutex_unlock(&medium->commit);
    return r;
}

bool medium_has_journal(const struct medium *medium)
{
    return medium->has_journal;
}

/* Changes that will not be written any more. */
static void abandon(struct medium *medium)
{
    for (size_t i = 0; i < medium->running.count; i++) {
        struct change *change = medium->running.items[i];
        *change_at(medium, change->block, change->sector) = NULL;
        medium_let_go(medium, change->block);
        medium_change_free(change);
    }
    list_finish(&medium->running);
    list_finish(&medium->undoable);
    medium_forget_earlier(&medium->earlier, 0);
    list_finish(&medium->earlier);
    medium_let_recorded_go(medium);
    list_finish(&medium->recorded);
}

int medium_close(struct medium *medium, struct error *err)
{
    if (!medium)
        return 0;
    int r = medium->read_only ? 0 : medium_settle(medium, err);
    if (r == -ENODEV)
        r = 0;
    abandon(medium);
    ahead_finish(&medium->ahead);
    behind_finish(medium);
    bounce_finish(&medium->bounce);
    cache_destroy(medium->cache);
    pthread_mutex_destroy(&medium->update);
    pthread_mutex_destroy(&medium->commit);
    free(medium);
    return r;
}
