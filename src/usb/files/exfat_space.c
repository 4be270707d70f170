/*
 * The allocation bitmap (7.1), and in memory beside it which clusters may be given away: not those
 * that are taken for what is not written yet, and not those whose freeing is not durable.
 */
#include "exfat.h"

#include <errno.h>
#include <stdarg.h>
#include <stdlib.h>

#include <base/alloc.h>
#include <block/budget.h>

enum {
    PIECE = 64 << 10, /* bytes of the bitmap that are read at once */
    FREED_FIRST = 64,
    CLUSTERS_MOST = 1 << 28, /* of which we keep a bit each: 32 MiB */
    PIECES_PART = 64, /* of the clusters: how many are taken before all are looked at again */
};

static bool is_used(const struct exfat_volume *volume, uint32_t cluster)
{
    uint32_t bit = cluster - EXFAT_FIRST_CLUSTER;
    return volume->used[bit / 64] >> (bit % 64) & 1;
}

static void set_used(struct exfat_volume *volume, uint32_t first, uint32_t count, bool used)
{
    for (uint32_t bit = first - EXFAT_FIRST_CLUSTER; count > 0; bit++, count--) {
        uint64_t mask = UINT64_C(1) << (bit % 64);
        if (used)
            volume->used[bit / 64] |= mask;
        else
            volume->used[bit / 64] &= ~mask;
    }
}

/* Where byte `at` of the bitmap is, and how many follow it there. */
static uint64_t bitmap_at(const struct exfat_volume *volume, uint32_t at, uint32_t *ret_room)
{
    const struct exfat_layout *layout = &volume->layout;
    uint32_t within = at & (layout->cluster_size - 1);
    *ret_room = layout->cluster_size - within;
    return exfat_offset(layout, exfat_runs_cluster(&volume->bitmap, at >> layout->cluster_shift)) +
           within;
}

static void take_bits(struct exfat_volume *volume, uint32_t at, const uint8_t *bits, uint32_t bytes)
{
    for (uint32_t i = 0; i < bytes; i++)
        for (uint32_t bit = 0; bit < 8; bit++) {
            uint32_t cluster = (at + i) * 8 + bit;
            if (cluster >= volume->layout.clusters)
                return;
            if (bits[i] >> bit & 1)
                set_used(volume, cluster + EXFAT_FIRST_CLUSTER, 1, true);
            else
                volume->free++;
        }
}

/* Past the cache, before anything was changed. */
int exfat_space_read(struct exfat_volume *volume, struct error *err)
{
    uint32_t bytes = (volume->layout.clusters + 7) / 8, room = 0;
    if (volume->used)
        return 0;
    if (volume->layout.clusters > CLUSTERS_MOST)
        return error_set(err, -EFBIG, "more clusters than are kept track of: %u",
                         volume->layout.clusters);
    int r = budget_check(bytes, "a volume of so many clusters", err);
    if (r != 0)
        return r;
    uint8_t *piece = medium_buffer(exfat_medium(volume), PIECE);
    volume->used =
        budget_new(BUDGET_FIXED, volume->layout.clusters / 64 + 1, sizeof(volume->used[0]));
    volume->free = 0;
    volume->next = EXFAT_FIRST_CLUSTER;
    for (uint32_t at = 0; r == 0 && at < bytes;) {
        uint64_t offset = bitmap_at(volume, at, &room);
        uint32_t part = bytes - at < room ? bytes - at : room;
        part = part < PIECE ? part : PIECE;
        r = medium_read_content(exfat_medium(volume), offset, piece, part, err);
        if (r == 0)
            take_bits(volume, at, piece, part);
        at += part;
    }
    medium_buffer_free(exfat_medium(volume), piece, PIECE);
    if (r != 0)
        budget_free(BUDGET_FIXED, steal_ptr(volume->used));
    else if (volume->options.discard && !volume->read_only)
        discards_init(&volume->discards, volume->layout.clusters);
    return r;
}

/* Giving away. */

/* Freed clusters whose time has come. */
static void let_go(struct exfat_volume *volume)
{
    uint64_t committed = medium_committed(exfat_medium(volume));
    uint64_t in_place = medium_in_place(exfat_medium(volume));
    size_t kept = 0;
    for (size_t i = 0; i < volume->freed_count; i++) {
        const struct exfat_freed *freed = &volume->freed[i];
        if (freed->update > (freed->folder ? in_place : committed)) {
            volume->freed[kept++] = *freed;
            continue;
        }
        set_used(volume, freed->first, freed->count, false);
        discards_add(&volume->discards, freed->first - EXFAT_FIRST_CLUSTER, freed->count,
                     freed->update, in_place);
    }
    volume->freed_count = kept;
}

static uint32_t end_of(const struct exfat_volume *volume)
{
    return volume->layout.clusters + EXFAT_FIRST_CLUSTER;
}

static uint32_t free_from(const struct exfat_volume *volume, uint32_t from, uint32_t most)
{
    uint32_t count = 0, end = end_of(volume);
    while (count < most && from + count < end && !is_used(volume, from + count))
        count++;
    return count;
}

static uint32_t next_free(const struct exfat_volume *volume, uint32_t from)
{
    uint32_t end = end_of(volume);
    while (from < end) {
        uint32_t bit = from - EXFAT_FIRST_CLUSTER;
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
static uint32_t find_piece(const struct exfat_volume *volume, uint32_t want, uint32_t *ret_first)
{
    uint32_t end = end_of(volume), best = 0;
    for (int round = 0; round < 2 && best < want; round++) {
        uint32_t at = round == 0 ? volume->next : EXFAT_FIRST_CLUSTER;
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
static uint32_t find_some(struct exfat_volume *volume, uint32_t want, uint32_t *ret_first)
{
    uint32_t end = end_of(volume);
    if (volume->in_pieces == 0) {
        uint32_t count = find_piece(volume, want, ret_first);
        volume->in_pieces = count < want ? volume->layout.clusters / PIECES_PART : 0;
        return count;
    }
    uint32_t at = next_free(volume, volume->next);
    if (at == end)
        at = next_free(volume, EXFAT_FIRST_CLUSTER);
    uint32_t count = at < end ? free_from(volume, at, want) : 0;
    volume->in_pieces -= count < volume->in_pieces ? count : volume->in_pieces;
    *ret_first = at;
    return count;
}

static void take(struct exfat_volume *volume, uint32_t first, uint32_t count)
{
    set_used(volume, first, count, true);
    discards_forget(&volume->discards, first - EXFAT_FIRST_CLUSTER, count);
    volume->held += count;
    volume->next = first + count < end_of(volume) ? first + count : EXFAT_FIRST_CLUSTER;
}

bool exfat_space_discard(struct exfat_volume *volume)
{
    if (volume->damaged)
        return false;
    let_go(volume);
    return discards_next(&volume->discards, exfat_medium(volume),
                         exfat_offset(&volume->layout, EXFAT_FIRST_CLUSTER),
                         volume->layout.cluster_size);
}

int exfat_space_contiguous(struct exfat_volume *volume, uint32_t want, uint32_t *ret_first)
{
    let_go(volume);
    if (find_piece(volume, want, ret_first) < want)
        return -ENOSPC;
    take(volume, *ret_first, want);
    return 0;
}

/* What was freed lately may be given away when it is in place. */
static int wait_for_freed(struct exfat_volume *volume, struct error *err)
{
    int r = volume->freed_count > 0 ? medium_settle(exfat_medium(volume), err) : 0;
    let_go(volume);
    return r;
}

static int take_pieces(struct exfat_volume *volume, uint32_t end, struct exfat_runs *runs,
                       struct error *err)
{
    bool waited = false;
    while (runs->clusters < end) {
        uint32_t first = 0, count = find_some(volume, end - runs->clusters, &first);
        if (count > 0) {
            take(volume, first, count);
            exfat_runs_add(runs, first, count);
            continue;
        }
        int r =
            waited ? error_set(err, -ENOSPC, "the volume is full") : wait_for_freed(volume, err);
        waited = true;
        if (r != 0)
            return r;
    }
    return 0;
}

int exfat_space_take(struct exfat_volume *volume, uint64_t want, uint32_t near,
                     struct exfat_runs *runs, struct error *err)
{
    uint32_t had = runs->clusters;
    if (want > volume->free - volume->held)
        return error_set(err, -ENOSPC, "the volume is full");
    let_go(volume);
    if (near > 0 && want > 0 && exfat_is_cluster(&volume->layout, near)) {
        uint32_t count = free_from(volume, near, (uint32_t)want);
        if (count > 0) {
            take(volume, near, count);
            exfat_runs_add(runs, near, count);
        }
    }
    int r = take_pieces(volume, had + (uint32_t)want, runs, err);
    if (r != 0) {
        exfat_space_give_back(volume, runs, had);
        exfat_runs_cut(runs, had);
    }
    return r;
}

/* The part of a run within [from, to) of its file. */
static struct exfat_run part_of(const struct exfat_run *run, uint32_t from, uint32_t to)
{
    uint32_t start = run->at < from ? from : run->at;
    uint32_t end = run->at + run->count < to ? run->at + run->count : to;
    return (struct exfat_run){start, run->first + (start - run->at), start < end ? end - start : 0};
}

void exfat_space_give_back(struct exfat_volume *volume, const struct exfat_runs *runs,
                           uint32_t from)
{
    for (size_t i = 0; i < runs->count; i++) {
        struct exfat_run part = part_of(&runs->items[i], from, UINT32_MAX);
        if (part.count > 0)
            set_used(volume, part.first, part.count, false);
        volume->held -= part.count;
    }
}

static bool grow_freed(struct exfat_volume *volume)
{
    size_t room = volume->freed_room ? volume->freed_room * 2 : FREED_FIRST;
    if (budget_check((room - volume->freed_room) * sizeof(struct exfat_freed), "so many pieces",
                     NULL) != 0)
        return false;
    volume->freed = budget_resize(BUDGET_FIXED, volume->freed, room, sizeof(struct exfat_freed));
    volume->freed_room = room;
    return true;
}

void exfat_space_freed(struct exfat_volume *volume, const struct exfat_runs *runs, uint32_t from,
                       uint32_t to, uint64_t update, bool folder)
{
    for (size_t i = 0; i < runs->count; i++) {
        struct exfat_run part = part_of(&runs->items[i], from, to);
        if (part.count == 0)
            continue;
        if (volume->freed_count == volume->freed_room && !grow_freed(volume))
            return; /* the rest stays taken until the volume is mounted again */
        volume->freed[volume->freed_count++] =
            (struct exfat_freed){part.first, part.count, update, folder};
    }
}

/* The medium's bitmap, within an update. */

static int mark_bits(struct exfat_volume *volume, uint32_t bit, uint32_t count, bool used,
                     struct error *err)
{
    uint8_t bits[512];
    while (count > 0) {
        uint32_t room, at = bit / 8, skip = bit % 8;
        uint64_t offset = bitmap_at(volume, at, &room);
        room = room < sizeof(bits) ? room : (uint32_t)sizeof(bits);
        uint32_t part = count < room * 8 - skip ? count : room * 8 - skip;
        uint32_t bytes = (skip + part + 7) / 8;
        int r = medium_read(exfat_medium(volume), offset, bits, bytes, err);
        for (uint32_t i = skip; i < skip + part; i++) {
            if (used)
                bits[i / 8] |= (uint8_t)(1 << i % 8);
            else
                bits[i / 8] &= (uint8_t) ~(1 << i % 8);
        }
        if (r == 0)
            r = medium_write(exfat_medium(volume), offset, bits, bytes, err);
        if (r != 0)
            return r;
        bit += part;
        count -= part;
    }
    return 0;
}

int exfat_space_mark(struct exfat_volume *volume, const struct exfat_runs *runs, uint32_t from,
                     uint32_t to, bool used, struct error *err)
{
    int r = 0;
    for (size_t i = 0; r == 0 && i < runs->count; i++) {
        struct exfat_run part = part_of(&runs->items[i], from, to);
        if (part.count > 0)
            r = mark_bits(volume, part.first - EXFAT_FIRST_CLUSTER, part.count, used, err);
    }
    return r;
}

unsigned exfat_bitmap_sectors(const struct exfat_volume *volume, uint32_t clusters)
{
    return clusters / (8 * medium_sector_size(exfat_medium(volume))) + 2;
}

unsigned exfat_table_sectors(const struct exfat_volume *volume, uint32_t clusters)
{
    return clusters / (medium_sector_size(exfat_medium(volume)) / 4) + 2;
}

/* Updates. */

int exfat_damage(struct exfat_volume *volume, struct error *err, const char *format, ...)
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

int exfat_begin(struct exfat_volume *volume, unsigned sectors, struct error *err)
{
    if (volume->damaged || volume->read_only)
        return error_set(err, -EROFS, "the volume is damaged: it takes no more writes");
    return medium_begin(exfat_medium(volume), sectors, err);
}

int exfat_finish(struct exfat_volume *volume, int r, struct error *err)
{
    if (r == 0)
        medium_end(exfat_medium(volume));
    else
        medium_abort(exfat_medium(volume));
    return r;
}
