#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include <base/alloc.h>
#include <block/waiting.h>

#include "medium_internal.h"

/* Writing. The lock `commit` is held. */

static int flush(struct medium *medium, struct error *err)
{
    atomic_store(&medium->content_written, false);
    return block_flush(medium->device, err);
}

/* Sectors that are next to each other go in one request. images[i] is the content of sectors[i]. */
static int write_run(struct medium *medium, uint64_t sector, uint8_t *const *images, size_t count,
                     struct error *err)
{
    uint32_t size = medium->device->sector_size;
    uint8_t *data = block_buffer_alloc(medium->device, count * size);
    for (size_t i = 0; i < count; i++)
        memcpy(data + i * size, images[i], size);
    int r = block_write(medium->device, sector, (uint32_t)count, data, err);
    block_buffer_free(medium->device, data, count * size);
    return r;
}

static int recorded_by_sector(const void *a, const void *b)
{
    const struct recorded *left = *(struct recorded *const *)a,
                          *right = *(struct recorded *const *)b;
    return left->sector < right->sector ? -1 : left->sector > right->sector;
}

/* Writes what was recorded in place, sorted. Nothing is let go. */
static int write_in_place(struct medium *medium, struct recorded **items, size_t count,
                          struct error *err)
{
    size_t most = medium->device->best_size / medium->device->sector_size;
    uint8_t **images = xnew_array(uint8_t *, count ? count : 1);
    int r = 0;
    qsort(items, count, sizeof(*items), recorded_by_sector);
    for (size_t i = 0, run; r == 0 && i < count; i += run) {
        for (run = 0;
             run < most && i + run < count && items[i + run]->sector == items[i]->sector + run;
             run++)
            images[run] = items[i + run]->image;
        r = write_run(medium, items[i]->sector, images, run, err);
    }
    free(images);
    return r;
}

/* Everything that was recorded is in place. */
void medium_let_recorded_go(struct medium *medium)
{
    pthread_mutex_lock(&medium->update);
    for (size_t i = 0; i < medium->recorded.count; i++) {
        struct recorded *recorded = medium->recorded.items[i];
        struct touched *touched = recorded->block->owner;
        touched->recorded[recorded->sector % sectors_of_block(medium)] = NULL;
        medium_let_go(medium, recorded->block);
        free(recorded->image);
        free(recorded);
    }
    medium->recorded.count = 0;
    pthread_mutex_unlock(&medium->update);
}

/* Puts everything recorded in its place, and empties the journal. */
static int checkpoint(struct medium *medium, struct error *err)
{
    if (medium->recorded.count == 0) {
        atomic_store(&medium->in_place, atomic_load(&medium->committed));
        return 0;
    }
    int r = write_in_place(medium, (struct recorded **)medium->recorded.items,
                           medium->recorded.count, err);
    if (r == 0)
        r = flush(medium, err);
    if (r != 0)
        return r;
    medium_let_recorded_go(medium);
    if (medium->has_journal)
        journal_restart(&medium->journal);
    atomic_store(&medium->in_place, atomic_load(&medium->committed));
    return 0;
}

/* A transaction that was taken from the running one. */
struct transaction {
    uint64_t number;
    uint64_t first_sector;
    bool in_use;
    struct list changes; /* with `after` in images */
    struct list earlier;
    uint8_t **images; /* owned, one a change */
};

/* `update` is held: the next updates belong to the next transaction, and so does what they change
 * of the same sectors. Pins and places in touched.count go with the changes. */
static void take(struct medium *medium, struct transaction *ret)
{
    uint32_t size = medium->device->sector_size;
    *ret = (struct transaction){
        .number = medium->transaction++,
        .first_sector = medium->first_sector,
        .in_use = medium->in_use,
        .changes = medium->running,
        .earlier = medium->earlier,
        .images = xnew_array(uint8_t *, medium->running.count ? medium->running.count : 1),
    };
    medium->running = medium->earlier = (struct list){0};
    medium->first_sector = UINT64_MAX;
    medium->epoch = 0;
    for (size_t i = 0; i < ret->changes.count; i++) {
        struct change *change = ret->changes.items[i];
        struct touched *touched = change->block->owner;
        ret->images[i] = xmemdup(sector_data(medium, change->block, change->sector), size);
        touched->changes[change->sector % sectors_of_block(medium)] = NULL;
    }
}

/* `update` is held. Its changes become recorded sectors, in place of older states of the same. */
static void become_recorded(struct medium *medium, struct transaction *transaction)
{
    for (size_t i = 0; i < transaction->changes.count; i++) {
        struct change *change = transaction->changes.items[i];
        struct touched *touched = change->block->owner;
        unsigned at = (unsigned)(change->sector % sectors_of_block(medium));
        struct recorded *recorded = touched->recorded[at];
        if (recorded) {
            free(recorded->image);
            medium_let_go(medium, change->block);
        } else {
            recorded = touched->recorded[at] = xnew(struct recorded);
            recorded->sector = change->sector;
            recorded->block = change->block; /* with the change's pin and its place in count */
            list_add(&medium->recorded, recorded);
        }
        recorded->image = xmemdup(transaction->images[i], medium->device->sector_size);
    }
}

static void transaction_finish(struct transaction *transaction)
{
    for (size_t i = 0; i < transaction->changes.count; i++) {
        medium_change_free(transaction->changes.items[i]);
        free(transaction->images[i]);
    }
    free(transaction->images);
    medium_forget_earlier(&transaction->earlier, 0);
    list_finish(&transaction->earlier);
    list_finish(&transaction->changes);
}

static int record(struct medium *medium, const struct transaction *transaction, struct error *err)
{
    uint32_t size = medium->device->sector_size, count = (uint32_t)transaction->changes.count;
    struct journal_record record;
    journal_record_start(&medium->journal, count, &record);
    for (uint32_t i = 0; i < count; i++) {
        const struct change *change = transaction->changes.items[i];
        journal_record_target(&record, i, change->sector);
        memcpy(record.before + (size_t)i * size, change->before, size);
        memcpy(record.after + (size_t)i * size, transaction->images[i], size);
    }
    record.in_use = transaction->in_use;
    journal_record_finish(&medium->journal, &record);
    int r = journal_append(&medium->journal, &record, err);
    block_buffer_free(medium->device, record.data, record.size);
    return r;
}

/* The one sector that leads to the journal, before all others. */
static int write_first(struct medium *medium, const struct transaction *transaction,
                       struct error *err)
{
    for (size_t i = 0; i < transaction->changes.count; i++) {
        const struct change *change = transaction->changes.items[i];
        if (change->sector != transaction->first_sector)
            continue;
        int r = write_run(medium, change->sector, &transaction->images[i], 1, err);
        return r == 0 ? flush(medium, err) : r;
    }
    return 0;
}

/* In the order of the journal: content, the record, and then it is durable. */
static int write_journalled(struct medium *medium, const struct transaction *transaction,
                            struct error *err)
{
    int r = atomic_load(&medium->content_written) ? flush(medium, err) : 0;
    if (r == 0)
        r = record(medium, transaction, err);
    if (r == 0)
        r = flush(medium, err);
    if (r == 0 && transaction->first_sector != UINT64_MAX)
        r = write_first(medium, transaction, err);
    return r;
}

struct epoch_item {
    unsigned epoch;
    struct recorded recorded;
};

static int by_epoch(const void *a, const void *b)
{
    const struct epoch_item *left = a, *right = b;
    return left->epoch < right->epoch ? -1 : left->epoch > right->epoch;
}

/* What is to be written without a journal: each sector as it was at the end of each epoch that
 * changed it, by epoch. Owned. */
static struct epoch_item *items_by_epoch(const struct transaction *transaction, size_t *ret_count)
{
    size_t count = 0, most = transaction->changes.count + transaction->earlier.count;
    struct epoch_item *items = xnew_array(struct epoch_item, most ? most : 1);
    for (size_t i = 0; i < transaction->earlier.count; i++) {
        const struct earlier *earlier = transaction->earlier.items[i];
        items[count++] = (struct epoch_item){earlier->epoch,
                                             {.sector = earlier->sector, .image = earlier->image}};
    }
    for (size_t i = 0; i < transaction->changes.count; i++) {
        const struct change *change = transaction->changes.items[i];
        items[count++] = (struct epoch_item){
            change->epoch, {.sector = change->sector, .image = transaction->images[i]}};
    }
    qsort(items, count, sizeof(*items), by_epoch);
    *ret_count = count;
    return items;
}

/* Without a journal: in place, what is of one side of a barrier before what is of the other. */
static int write_ordered(struct medium *medium, const struct transaction *transaction,
                         struct error *err)
{
    size_t count;
    struct epoch_item *items = items_by_epoch(transaction, &count);
    struct recorded **sorted = xnew_array(struct recorded *, count ? count : 1);
    int r = atomic_load(&medium->content_written) ? flush(medium, err) : 0;
    for (size_t i = 0, run; r == 0 && i < count; i += run) {
        for (run = 0; i + run < count && items[i + run].epoch == items[i].epoch; run++)
            sorted[run] = &items[i + run].recorded;
        r = write_in_place(medium, sorted, run, err);
        if (r == 0)
            r = flush(medium, err);
    }
    free(items);
    free(sorted);
    return r;
}

/* Takes the running transaction when the journal has room for it, which a checkpoint makes. */
static int take_with_room(struct medium *medium, struct transaction *ret, struct error *err)
{
    pthread_mutex_lock(&medium->update);
    while (medium->has_journal && medium->running.count > 0 &&
           !journal_has_room(&medium->journal, (uint32_t)medium->running.count)) {
        pthread_mutex_unlock(&medium->update);
        int r = checkpoint(medium, err);
        if (r != 0)
            return r;
        pthread_mutex_lock(&medium->update);
    }
    take(medium, ret);
    pthread_mutex_unlock(&medium->update);
    return 0;
}

int medium_failed_by(struct medium *medium, int r)
{
    int none = 0;
    if (r < 0)
        atomic_compare_exchange_strong(&medium->failed, &none, r == -ENODEV ? -ENODEV : -EIO);
    return r;
}

static int commit_locked(struct medium *medium, struct error *err)
{
    struct transaction transaction;
    int r = atomic_load(&medium->failed);
    if (r != 0)
        return error_set(err, r, "the medium takes no more writes after an error");
    bool journalled = medium->has_journal;
    r = take_with_room(medium, &transaction, err);
    if (r != 0)
        return r;
    r = behind_write(medium, err);
    if (r != 0)
        ;
    else if (transaction.changes.count == 0)
        r = atomic_load(&medium->content_written) ? flush(medium, err) : 0;
    else if (journalled)
        r = write_journalled(medium, &transaction, err);
    else
        r = write_ordered(medium, &transaction, err);
    pthread_mutex_lock(&medium->update);
    become_recorded(medium, &transaction);
    pthread_mutex_unlock(&medium->update);
    if (r == 0)
        atomic_store(&medium->committed, transaction.number);
    if (!journalled && r == 0) {
        medium_let_recorded_go(medium);
        atomic_store(&medium->in_place, transaction.number);
    }
    transaction_finish(&transaction);
    return r;
}

int medium_commit(struct medium *medium, struct error *err)
{
    block_lock(&medium->commit);
    int r = medium_failed_by(medium, commit_locked(medium, err));
    pthread_mutex_unlock(&medium->commit);
    return r;
}

int medium_sync(struct medium *medium, struct error *err)
{
    return medium->read_only ? 0 : medium_commit(medium, err);
}

/* Commits and puts everything in place; the medium is as any other system would have left it. */
int medium_settle(struct medium *medium, struct error *err)
{
    block_lock(&medium->commit);
    int r = commit_locked(medium, err);
    if (r == 0)
        r = checkpoint(medium, err);
    if (r == 0 && medium->has_journal && medium->journal.header_due) {
        r = journal_write_header(&medium->journal, err);
        if (r == 0)
            r = flush(medium, err);
    }
    medium_failed_by(medium, r);
    pthread_mutex_unlock(&medium->commit);
    return r;
}

bool medium_rests(struct medium *medium, uint64_t now_ms)
{
    return atomic_load(&medium->changes) == medium->tick_changes &&
           now_ms - medium->tick_ms >= MEDIUM_IDLE_MS;
}

int medium_tick(struct medium *medium, uint64_t now_ms, struct error *err)
{
    bounce_rest(&medium->bounce);
    if (medium->read_only || atomic_load(&medium->failed))
        return 0;
    uint64_t changes = atomic_load(&medium->changes);
    if (changes != medium->tick_changes) {
        medium->tick_changes = changes;
        medium->tick_ms = now_ms;
    }
    pthread_mutex_lock(&medium->update);
    bool running = medium->running.count > 0;
    pthread_mutex_unlock(&medium->update);
    if (!running)
        medium->commit_ms = now_ms;
    if (now_ms - medium->tick_ms >= MEDIUM_IDLE_MS)
        return medium_settle(medium, err);
    if (now_ms - medium->commit_ms >= MEDIUM_COMMIT_MS)
        return medium_commit(medium, err);
    return 0;
}
