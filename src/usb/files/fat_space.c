/* Which clusters are free: a bit for each, counted from the table before the first change. */
#include "fat_layout.h"

#include <errno.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <base/alloc.h>
#include <block/budget.h>
#include <block/bytes.h>

enum {
    COUNT_PIECE = 256 << 10, /* bytes of the table */
    FREED_FIRST = 64,
    PIECES_PART = 64, /* of the clusters: how many are taken before all are looked at again */
};

static bool is_used(const struct fat_volume *volume, uint32_t cluster)
{
    uint32_t bit = cluster - FAT_FIRST;
    return volume->used[bit / 64] >> (bit % 64) & 1;
}

static void set_used(struct fat_volume *volume, uint32_t first, uint32_t count, bool used)
{
    for (uint32_t bit = first - FAT_FIRST; count > 0; bit++, count--) {
        uint64_t mask = UINT64_C(1) << (bit % 64);
        if (used)
            volume->used[bit / 64] |= mask;
        else
            volume->used[bit / 64] &= ~mask;
    }
}

/* Past the cache, in which the whole table would leave nothing else. Nothing has changed yet. */
static int count_wide(struct fat_volume *volume, uint8_t *piece, struct error *err)
{
    const struct fat_layout *layout = &volume->layout;
    uint32_t size = layout->kind == VOLUME_FAT16 ? 2 : 4, cluster = 0;
    uint64_t table = layout->table_offset + layout->active * layout->table_size;
    uint64_t bytes = ((uint64_t)layout->clusters + FAT_FIRST) * size;
    for (uint64_t at = 0; at < bytes; at += COUNT_PIECE) {
        size_t part = bytes - at < COUNT_PIECE ? (size_t)(bytes - at) : COUNT_PIECE;
        int r = medium_read_content(fat_medium(volume), table + at, piece, part, err);
        if (r != 0)
            return r;
        for (size_t i = 0; i < part; i += size, cluster++) {
            uint32_t value = size == 2 ? get_le16(piece + i) : get_le32(piece + i) & 0x0FFFFFFF;
            if (cluster >= FAT_FIRST && value != 0)
                set_used(volume, cluster, 1, true);
            else if (cluster >= FAT_FIRST)
                volume->free++;
        }
    }
    return 0;
}

static int count_narrow(struct fat_volume *volume, struct error *err)
{
    for (uint32_t i = 0; i < volume->layout.clusters; i++) {
        uint32_t value = 0;
        int r = fat_table_raw(fat_medium(volume), &volume->layout, i + FAT_FIRST, &value, err);
        if (r != 0)
            return r;
        if (value != 0)
            set_used(volume, i + FAT_FIRST, 1, true);
        else
            volume->free++;
    }
    return 0;
}

int fat_space_count(struct fat_volume *volume, struct error *err)
{
    if (volume->used)
        return 0;
    int r = budget_check(volume->layout.clusters / 8, "a volume of so many clusters", err);
    if (r != 0)
        return r;
    volume->used =
        budget_new(BUDGET_FIXED, volume->layout.clusters / 64 + 1, sizeof(volume->used[0]));
    volume->free = 0;
    volume->next = FAT_FIRST;
    if (volume->layout.kind == VOLUME_FAT12) {
        r = count_narrow(volume, err);
    } else {
        uint8_t *piece = medium_buffer(fat_medium(volume), COUNT_PIECE);
        r = count_wide(volume, piece, err);
        medium_buffer_free(fat_medium(volume), piece, COUNT_PIECE);
    }
    if (r != 0)
        budget_free(BUDGET_FIXED, steal_ptr(volume->used));
    else if (volume->options.discard && !volume->read_only)
        discards_init(&volume->discards, volume->layout.clusters);
    return r;
}

/* Freed clusters whose time has come may be given away. */
static void let_go(struct fat_volume *volume)
{
    uint64_t committed = medium_committed(fat_medium(volume));
    uint64_t in_place = medium_in_place(fat_medium(volume));
    size_t kept = 0;
    for (size_t i = 0; i < volume->freed_count; i++) {
        const struct freed *freed = &volume->freed[i];
        if (freed->update > (freed->folder ? in_place : committed)) {
            volume->freed[kept++] = *freed;
            continue;
        }
        set_used(volume, freed->first, freed->count, false);
        discards_add(&volume->discards, freed->first - FAT_FIRST, freed->count, freed->update,
                     in_place);
    }
    volume->freed_count = kept;
}

/* Free clusters from `from` on, at most `most`. */
static uint32_t free_from(const struct fat_volume *volume, uint32_t from, uint32_t most)
{
    uint32_t count = 0, end = volume->layout.clusters + FAT_FIRST;
    while (count < most && from + count < end && !is_used(volume, from + count))
        count++;
    return count;
}

/* The next free one from `from` on; the end when there is none. */
static uint32_t next_free(const struct fat_volume *volume, uint32_t from)
{
    uint32_t end = volume->layout.clusters + FAT_FIRST;
    while (from < end) {
        uint32_t bit = from - FAT_FIRST;
        if (bit % 64 == 0 && volume->used[bit / 64] == UINT64_MAX)
            from += 64;
        else if (is_used(volume, from))
            from++;
        else
            return from;
    }
    return end;
}

/* A piece of `want` clusters, or the largest there is, from `next` on and round. */
static uint32_t find_piece(const struct fat_volume *volume, uint32_t want, uint32_t *ret_first)
{
    uint32_t end = volume->layout.clusters + FAT_FIRST, best = 0;
    for (int round = 0; round < 2 && best < want; round++) {
        uint32_t at = round == 0 ? volume->next : FAT_FIRST;
        while (best < want && (at = next_free(volume, at)) < end) {
            uint32_t count = free_from(volume, at, want);
            if (count > best) {
                best = count;
                *ret_first = at;
            }
            at += count;
        }
    }
    return best;
}

/* After all of it was looked through in vain, the next one will do, until much has changed: who
 * takes space of a volume in pieces does not look through it once for each. */
static uint32_t find_some(struct fat_volume *volume, uint32_t want, uint32_t *ret_first)
{
    uint32_t end = volume->layout.clusters + FAT_FIRST;
    if (volume->in_pieces == 0) {
        uint32_t count = find_piece(volume, want, ret_first);
        volume->in_pieces = count < want ? volume->layout.clusters / PIECES_PART : 0;
        return count;
    }
    uint32_t at = next_free(volume, volume->next);
    if (at == end)
        at = next_free(volume, FAT_FIRST);
    uint32_t count = at < end ? free_from(volume, at, want) : 0;
    volume->in_pieces -= count < volume->in_pieces ? count : volume->in_pieces;
    *ret_first = at;
    return count;
}

static void take(struct fat_volume *volume, uint32_t first, uint32_t count)
{
    set_used(volume, first, count, true);
    discards_forget(&volume->discards, first - FAT_FIRST, count);
    volume->held += count;
    volume->next = first + count < volume->layout.clusters + FAT_FIRST ? first + count : FAT_FIRST;
}

bool fat_space_discard(struct fat_volume *volume)
{
    if (volume->damaged)
        return false;
    let_go(volume);
    return discards_next(&volume->discards, fat_medium(volume),
                         fat_cluster_offset(&volume->layout, FAT_FIRST),
                         volume->layout.cluster_size);
}

int fat_space_contiguous(struct fat_volume *volume, uint32_t want, uint32_t *ret_first)
{
    let_go(volume);
    if (find_piece(volume, want, ret_first) < want)
        return -ENOSPC;
    take(volume, *ret_first, want);
    return 0;
}

/* What was freed lately becomes free for others when it is in place. */
static int wait_for_freed(struct fat_volume *volume, struct error *err)
{
    int r = volume->freed_count > 0 ? medium_settle(fat_medium(volume), err) : 0;
    let_go(volume);
    return r;
}

int fat_space_take(struct fat_volume *volume, uint32_t want, uint32_t near, struct runs *runs,
                   struct error *err)
{
    uint32_t had = runs->clusters;
    bool waited = false;
    if (want > volume->free - volume->held)
        return error_set(err, -ENOSPC, "the volume is full");
    let_go(volume);
    if (near > 0 && want > 0 && fat_is_cluster(&volume->layout, near)) {
        uint32_t count = free_from(volume, near, want);
        if (count > 0) {
            take(volume, near, count);
            runs_add(runs, near, count);
        }
    }
    while (runs->clusters - had < want) {
        uint32_t left = want - (runs->clusters - had), first = 0;
        uint32_t count = find_some(volume, left, &first);
        if (count > 0) {
            take(volume, first, count);
            runs_add(runs, first, count);
            continue;
        }
        int r =
            waited ? error_set(err, -ENOSPC, "the volume is full") : wait_for_freed(volume, err);
        waited = true;
        if (r != 0) {
            fat_space_give_back(volume, runs, had);
            runs_cut(runs, had);
            return r;
        }
    }
    return 0;
}

void fat_space_give_back(struct fat_volume *volume, const struct runs *runs, uint32_t from)
{
    for (size_t i = 0; i < runs->count; i++) {
        const struct run *run = &runs->items[i];
        uint32_t skip = run->at < from ? from - run->at : 0;
        if (skip < run->count) {
            set_used(volume, run->first + skip, run->count - skip, false);
            volume->held -= run->count - skip;
        }
    }
}

static bool grow_freed(struct fat_volume *volume)
{
    size_t room = volume->freed_room ? volume->freed_room * 2 : FREED_FIRST;
    if (budget_check((room - volume->freed_room) * sizeof(struct freed), "so many pieces", NULL) !=
        0)
        return false;
    volume->freed = budget_resize(BUDGET_FIXED, volume->freed, room, sizeof(struct freed));
    volume->freed_room = room;
    return true;
}

void fat_space_freed(struct fat_volume *volume, const struct runs *runs, uint32_t from,
                     uint32_t count, uint64_t update, bool folder)
{
    for (size_t i = 0; i < runs->count; i++) {
        const struct run *run = &runs->items[i];
        uint32_t start = run->at < from ? from : run->at, end = run->at + run->count;
        if (end > from + count)
            end = from + count;
        if (start >= end)
            continue;
        if (volume->freed_count == volume->freed_room && !grow_freed(volume))
            return; /* the rest stays taken until the volume is mounted again */
        volume->freed[volume->freed_count++] =
            (struct freed){run->first + (start - run->at), end - start, update, folder};
    }
}

/* Updates. */

int fat_damage(struct fat_volume *volume, struct error *err, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    _cleanup_free_ char *what = xvasprintf(format, args);
    va_end(args);
    volume->damaged = true;
    error_set(err, -EUCLEAN, "the volume is damaged: %s", what);
    error_hint(err, "check and repair it");
    return -EUCLEAN;
}

int fat_begin(struct fat_volume *volume, unsigned sectors, struct error *err)
{
    if (volume->damaged)
        return error_set(err, -EROFS, "the volume is damaged: it takes no more writes");
    return medium_begin(fat_medium(volume), sectors + 1, err);
}

static int write_info(struct fat_volume *volume, struct error *err)
{
    uint64_t at = volume->layout.info_offset;
    uint8_t lead[4], info[12];
    if (at == 0)
        return 0;
    int r = medium_read(fat_medium(volume), at, lead, sizeof(lead), err);
    if (r == 0)
        r = medium_read(fat_medium(volume), at + INFO_AT, info, sizeof(info), err);
    if (r != 0 || get_le32(lead) != INFO_LEAD || get_le32(info) != INFO_MAGIC)
        return r;
    if (get_le32(info + 4) == volume->free)
        return 0;
    put_le32(info + 4, volume->free);
    put_le32(info + 8, volume->next);
    return medium_write(fat_medium(volume), at + INFO_AT, info, sizeof(info), err);
}

int fat_finish(struct fat_volume *volume, int r, struct error *err)
{
    if (r == 0)
        r = write_info(volume, err);
    if (r == 0)
        medium_end(fat_medium(volume));
    else
        medium_abort(fat_medium(volume));
    return r;
}

/* A journal may be as small as it can be: there is room for the rest beside. */
unsigned fat_table_most(const struct fat_volume *volume)
{
    unsigned most = medium_update_most(fat_medium(volume));
    return most > FAT_OTHER_SECTORS + 4 ? most - FAT_OTHER_SECTORS : 4;
}
