/*
 * What a power cut left: the records are read, compared with the medium, and carried out if nobody
 * has written there since.
 *
 * A sector that a record names has had one state after another: before the first record, after it,
 * after the next one. When it was being written as the power went, its first or last bytes are of
 * the newest state and the others of one before that. A sector that is anything else was written by
 * somebody else; then all records are old, and nothing is carried out. A sector that cannot be read
 * was being written.
 */
#include "journal.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include <base/alloc.h>
#include <block/bytes.h>

enum { UNREADABLE_MOST = 128 }; /* sectors of a journal: a device that reads fewer is broken */

/* One sector of one record. */
struct image {
    uint64_t target;
    uint32_t order; /* of its record */
    const uint8_t *before, *after;
};

struct recovery {
    struct block_device *device;
    uint64_t first, size; /* of the journal: sector, bytes */
    uint8_t *data;        /* all of the journal */
    uint64_t salt, sequence, position, generation;
    bool in_use; /* as the newest header or record says */
    struct image *images;
    size_t count;
};

static uint32_t sector_size(const struct recovery *recovery)
{
    return recovery->device->sector_size;
}

/* Whether an error is of these sectors, and not of all there are. */
static bool is_of_the_place(int r)
{
    return r != 0 && r != -ENODEV && r != -ENOMEDIUM;
}

/* Reads sectors of the journal. Those that were being written when the power went, and bad ones,
 * cannot be read: they are zeros, and the sums end the records there. */
static int read_part(struct recovery *recovery, uint32_t at, uint32_t count, unsigned *unreadable,
                     struct error *err)
{
    uint8_t *data = recovery->data + (size_t)at * sector_size(recovery);
    int r = block_read(recovery->device, recovery->first + at, count, data, err);
    if (!is_of_the_place(r) || *unreadable == UNREADABLE_MOST)
        return r;
    if (err)
        error_finish(err);
    if (count == 1) {
        memset(data, 0, sector_size(recovery));
        (*unreadable)++;
        return 0;
    }
    r = read_part(recovery, at, count / 2, unreadable, err);
    return r == 0 ? read_part(recovery, at + count / 2, count - count / 2, unreadable, err) : r;
}

static bool header_is_ours(const struct recovery *recovery, const uint8_t *header)
{
    uint32_t size = sector_size(recovery);
    uint64_t position = get_le64(header + HEADER_POSITION);
    return memcmp(header + HEADER_MAGIC, JOURNAL_HEADER_MAGIC, 8) == 0 &&
           get_le32(header + HEADER_VERSION) == JOURNAL_VERSION &&
           get_le32(header + HEADER_SUM) == journal_sum(header, size, HEADER_SUM) &&
           get_le32(header + HEADER_SECTOR_SIZE) == size &&
           get_le64(header + HEADER_OFFSET) == recovery->first * size &&
           get_le64(header + HEADER_JOURNAL_SIZE) == recovery->size &&
           get_le64(header + HEADER_VOLUME_SIZE) == recovery->device->sectors * size &&
           position >= HEADERS * size && position <= recovery->size && position % size == 0;
}

/* Each in its sector, the newer one of them: what is written next follows either, whatever a stick
 * says they are. */
static bool find_header(struct recovery *recovery)
{
    bool found = false;
    for (uint64_t i = 0; i < HEADERS; i++) {
        const uint8_t *header = recovery->data + i * sector_size(recovery);
        if (!header_is_ours(recovery, header))
            continue;
        uint64_t generation = get_le64(header + HEADER_GENERATION);
        if (generation % HEADERS != i ||
            (found && generation - recovery->generation > UINT64_MAX / 2))
            continue;
        recovery->generation = generation;
        recovery->salt = get_le64(header + HEADER_SALT);
        recovery->sequence = get_le64(header + HEADER_SEQUENCE);
        recovery->position = get_le64(header + HEADER_POSITION);
        recovery->in_use = get_le32(header + HEADER_FLAGS) & HEADER_IN_USE;
        found = true;
    }
    return found;
}

static uint32_t record_count(const uint8_t *record)
{
    return get_le32(record + RECORD_COUNT) & ~RECORD_IN_USE;
}

/* Whether the next record is here; its size and count are those of its own bytes then. */
static bool record_is_here(const struct recovery *recovery, const uint8_t *record, uint64_t room)
{
    if (room < sector_size(recovery) ||
        memcmp(record + RECORD_MAGIC, JOURNAL_RECORD_MAGIC, 8) != 0 ||
        get_le64(record + RECORD_SALT) != recovery->salt ||
        get_le64(record + RECORD_SEQUENCE) != recovery->sequence)
        return false;
    uint64_t size = get_le64(record + RECORD_SIZE);
    uint32_t count = record_count(record);
    return count > 0 && size <= room &&
           size == journal_front(count, sector_size(recovery)) +
                       2 * (uint64_t)count * sector_size(recovery) &&
           get_le32(record + RECORD_SUM) == journal_sum(record, size, RECORD_SUM);
}

static bool target_is_allowed(const struct recovery *recovery, uint64_t target)
{
    uint64_t sectors = recovery->size / sector_size(recovery);
    return target < recovery->device->sectors &&
           (target < recovery->first || target - recovery->first >= sectors);
}

static bool add_record(struct recovery *recovery, const uint8_t *record, uint32_t order)
{
    uint32_t count = record_count(record), size = sector_size(recovery);
    const uint8_t *before = record + journal_front(count, size);
    const uint8_t *after = before + (size_t)count * size;
    recovery->images = xrealloc(recovery->images, recovery->count + count, sizeof(struct image));
    for (uint32_t i = 0; i < count; i++) {
        uint64_t target = get_le64(record + RECORD_TARGETS + (size_t)i * 8);
        if (!target_is_allowed(recovery, target))
            return false;
        recovery->images[recovery->count++] =
            (struct image){target, order, before + (size_t)i * size, after + (size_t)i * size};
    }
    return true;
}

static int by_target(const void *a, const void *b)
{
    const struct image *left = a, *right = b;
    if (left->target != right->target)
        return left->target < right->target ? -1 : 1;
    return left->order < right->order ? -1 : left->order > right->order;
}

/* All records there are. False: what is recorded cannot be. */
static bool read_records(struct recovery *recovery)
{
    uint32_t order = 0;
    for (;;) {
        const uint8_t *record = recovery->data + recovery->position;
        if (!record_is_here(recovery, record, recovery->size - recovery->position))
            break;
        if (!add_record(recovery, record, order++))
            return false;
        recovery->in_use = get_le32(record + RECORD_COUNT) & RECORD_IN_USE;
        recovery->position += get_le64(record + RECORD_SIZE);
        recovery->sequence++;
    }
    if (recovery->count > 0)
        qsort(recovery->images, recovery->count, sizeof(struct image), by_target);
    return true;
}

/* The images of one target, in order: count of them. */
static size_t same_target(const struct recovery *recovery, size_t i)
{
    size_t count = 1;
    while (i + count < recovery->count &&
           recovery->images[i + count].target == recovery->images[i].target)
        count++;
    return count;
}

/* Each one begins where the one before ended. */
static bool is_chain(const struct recovery *recovery, const struct image *images, size_t count)
{
    for (size_t i = 1; i < count; i++)
        if (images[i].order == images[i - 1].order ||
            memcmp(images[i].before, images[i - 1].after, sector_size(recovery)) != 0)
            return false;
    return true;
}

/* Whether `now` is what writing `after` over `before` may have left: all of one, or the first or
 * last bytes of `after`, or both where recovery was cut off, too; between them `before`. */
static bool is_mix(const uint8_t *before, const uint8_t *after, const uint8_t *now, size_t size)
{
    size_t first = 0, end = size;
    while (first < size && now[first] == after[first])
        first++;
    while (end > first && now[end - 1] == after[end - 1])
        end--;
    return memcmp(now + first, before + first, end - first) == 0;
}

/* What is written in place is the newest state of all, over any one that was there. */
static bool is_untouched(const struct recovery *recovery, const struct image *images, size_t count,
                         const uint8_t *now)
{
    const uint8_t *newest = images[count - 1].after;
    for (size_t i = 0; i < count; i++)
        if (is_mix(images[i].before, newest, now, sector_size(recovery)))
            return true;
    return false;
}

/* 1: every target is as these records left it. */
static int compare(const struct recovery *recovery, struct error *err)
{
    uint32_t size = sector_size(recovery);
    uint8_t *now = block_buffer_alloc(recovery->device, size);
    int r = 1;
    for (size_t i = 0, count; r == 1 && i < recovery->count; i += count) {
        const struct image *images = &recovery->images[i];
        count = same_target(recovery, i);
        int read = block_read(recovery->device, images->target, 1, now, err);
        if (read != 0 && !is_of_the_place(read))
            r = read;
        else if (!is_chain(recovery, images, count) ||
                 (read == 0 && !is_untouched(recovery, images, count, now)))
            r = 0;
    }
    block_buffer_free(recovery->device, now, size);
    return r;
}

static int carry_out(const struct recovery *recovery, struct error *err)
{
    for (size_t i = 0, count; i < recovery->count; i += count) {
        const struct image *images = &recovery->images[i];
        count = same_target(recovery, i);
        int r = block_write(recovery->device, images->target, 1, images[count - 1].after, err);
        if (r != 0)
            return r;
    }
    return block_flush(recovery->device, err);
}

/* The records that were read do not matter any more. */
static int empty(const struct recovery *recovery, struct error *err)
{
    struct journal journal = {
        .device = recovery->device,
        .first = recovery->first,
        .size = recovery->size,
        .salt = recovery->salt,
        .generation = recovery->generation,
        .sequence = recovery->sequence,
        .in_use = recovery->in_use,
    };
    journal_restart(&journal);
    int r = journal_write_header(&journal, err);
    return r == 0 ? block_flush(recovery->device, err) : r;
}

static int work(struct recovery *recovery, bool only_look, enum medium_recovery *ret_recovery,
                struct error *err)
{
    *ret_recovery = MEDIUM_NO_JOURNAL;
    uint32_t sectors = (uint32_t)(recovery->size / sector_size(recovery));
    unsigned unreadable = 0;
    int r = read_part(recovery, 0, sectors, &unreadable, err);
    if (r != 0 || !find_header(recovery))
        return r;
    bool possible = read_records(recovery);
    if (possible && recovery->count == 0) {
        *ret_recovery = MEDIUM_NOTHING;
        return 0;
    }
    if (only_look) {
        *ret_recovery = MEDIUM_PENDING;
        return 0;
    }
    r = possible ? compare(recovery, err) : 0;
    if (r < 0)
        return r;
    *ret_recovery = r == 1 ? MEDIUM_REPLAYED : MEDIUM_DISCARDED;
    recovery->in_use &= r == 1; /* nor is it ours any more */
    r = r == 1 ? carry_out(recovery, err) : 0;
    return r == 0 ? empty(recovery, err) : r;
}

int journal_recover(struct block_device *device, uint64_t first, uint64_t size, bool only_look,
                    enum medium_recovery *ret_recovery, bool *ret_in_use, struct error *err)
{
    struct recovery recovery = {.device = device, .first = first, .size = size};
    recovery.data = block_buffer_alloc(device, size);
    int r = work(&recovery, only_look, ret_recovery, err);
    *ret_in_use = recovery.in_use;
    if (r != 0)
        error_context(err, "journal");
    block_buffer_free(device, recovery.data, size);
    free(recovery.images);
    return r;
}
