/*
 * Clusters that become a file's, or are its no more. While the clusters of a file follow one
 * another, its set says so and the table says nothing; when they cannot any more, the table is
 * written for all of them before the set leads to it.
 *
 * In each update: clusters are marked, then the set leads to them; the set does not lead to them,
 * then they are free.
 */
#include "exfat.h"

#include <block/bytes.h>

/* Sectors that one update of clusters may change beside the set. */
static unsigned most_sectors(const struct exfat_volume *volume, const struct exfat_node *node)
{
    unsigned most = medium_update_most(exfat_medium(volume));
    unsigned other = exfat_set_sectors(volume, node->place.count);
    return most > other + 8 ? most - other : 8;
}

/* How far from `from` on clusters may be linked by so many sectors: at least one. */
static uint32_t link_to(const struct exfat_volume *volume, const struct exfat_runs *runs,
                        uint32_t from, uint32_t to, bool table, unsigned most,
                        unsigned *ret_sectors)
{
    unsigned sectors = 1; /* of the table: the word that leads to the first new one */
    uint32_t at = from;
    while (at < to) {
        const struct exfat_run *run = exfat_runs_find(runs, at);
        uint32_t count = run->at + run->count - at;
        count = count < to - at ? count : to - at;
        unsigned cost;
        while (cost = exfat_bitmap_sectors(volume, count) +
                      (table ? exfat_table_sectors(volume, count) : 0),
               sectors + cost > most && at == from && count > 1)
            count /= 2;
        if (sectors + cost > most && at > from)
            break;
        sectors += cost;
        at += count;
        if (at < run->at + run->count)
            break;
    }
    *ret_sectors = sectors;
    return at;
}

/* Words of the table for clusters [from, to): each leads to the next one of the runs, the last one
 * to `last`. */
static int write_words(struct exfat_volume *volume, const struct exfat_runs *runs, uint32_t from,
                       uint32_t to, uint32_t last, struct error *err)
{
    uint8_t words[512];
    int r = 0;
    for (uint32_t at = from; r == 0 && at < to;) {
        const struct exfat_run *run = exfat_runs_find(runs, at);
        uint32_t first = run->first + (at - run->at), count = run->at + run->count - at;
        count = count < to - at ? count : to - at;
        count = count < sizeof(words) / 4 ? count : sizeof(words) / 4;
        for (uint32_t i = 0; i < count; i++) {
            uint32_t next = at + i + 1;
            put_le32(words + i * 4, next < to ? exfat_runs_cluster(runs, next) : last);
        }
        r = medium_write(exfat_medium(volume), volume->layout.fat + (uint64_t)first * 4, words,
                         (size_t)count * 4, err);
        at += count;
    }
    return r;
}

/* Of a file whose clusters follow one another: the table says so, too. Nothing reads that yet. */
static int write_chain(struct exfat_volume *volume, struct exfat_node *node, struct error *err)
{
    unsigned most = most_sectors(volume, node);
    uint32_t each = (most - 2) * (medium_sector_size(exfat_medium(volume)) / 4);
    int r = 0;
    for (uint32_t at = 0, to; r == 0 && at < node->linked; at = to) {
        to = node->linked - at < each ? node->linked : at + each;
        uint32_t last = to < node->linked ? exfat_runs_cluster(&node->runs, to) : EXFAT_END;
        r = exfat_begin(volume, exfat_table_sectors(volume, to - at), err);
        if (r == 0)
            r = exfat_finish(volume, write_words(volume, &node->runs, at, to, last, err), err);
    }
    return r;
}

/* Whether the set can go on without the table for clusters up to `to`. */
static bool stays_contiguous(const struct exfat_volume *volume, const struct exfat_node *node,
                             uint32_t to)
{
    if (node == volume->root || (node->linked > 0 && !node->set.contiguous))
        return false;
    return to == 0 || exfat_runs_find(&node->runs, to - 1) == node->runs.items;
}

/* What the set says while only so many of the clusters are there. */
static struct exfat_set set_for(const struct exfat_volume *volume, const struct exfat_node *node,
                                uint32_t clusters, const struct exfat_set *set)
{
    struct exfat_set made = *set;
    uint64_t most = (uint64_t)clusters << volume->layout.cluster_shift;
    made.size = set->size < most ? set->size : most;
    made.valid = set->valid < made.size ? set->valid : made.size;
    made.first = made.size ? node->runs.items[0].first : 0;
    made.contiguous = node->set.contiguous;
    return made;
}

static int link_step(struct exfat_volume *volume, struct exfat_node *node, uint32_t to,
                     unsigned sectors, const struct exfat_set *set, struct error *err)
{
    uint32_t from = node->linked;
    struct exfat_set made = set_for(volume, node, to, set);
    made.contiguous = stays_contiguous(volume, node, to);
    int r = exfat_begin(volume, sectors + exfat_set_sectors(volume, node->place.count), err);
    if (r != 0)
        return r;
    r = exfat_space_mark(volume, &node->runs, from, to, true, err);
    if (r == 0 && !made.contiguous)
        r = write_words(volume, &node->runs, from > 0 ? from - 1 : 0, to, EXFAT_END, err);
    medium_barrier(exfat_medium(volume));
    if (r == 0)
        r = exfat_node_write(volume, node, &made, err);
    r = exfat_finish(volume, r, err);
    if (r != 0)
        return r;
    node->set = made;
    node->linked = to;
    volume->free -= to - from;
    volume->held -= to - from;
    return 0;
}

/* Of what is removed, only memory knows. */
static void link_removed(struct exfat_volume *volume, struct exfat_node *node, uint32_t clusters,
                         const struct exfat_set *set)
{
    node->set = set_for(volume, node, clusters, set);
    node->linked = clusters;
}

int exfat_link(struct exfat_volume *volume, struct exfat_node *node, uint32_t clusters,
               const struct exfat_set *set, struct error *err)
{
    unsigned most = most_sectors(volume, node);
    int r = 0;
    if (node->removed) {
        link_removed(volume, node, clusters, set);
        return 0;
    }
    do {
        bool table = !stays_contiguous(volume, node, clusters);
        unsigned sectors = 0;
        uint32_t to = link_to(volume, &node->runs, node->linked, clusters, table, most, &sectors);
        if (node->linked > 0 && node->set.contiguous && !stays_contiguous(volume, node, to))
            r = write_chain(volume, node, err);
        if (r == 0)
            r = link_step(volume, node, to, sectors, set, err);
    } while (r == 0 && node->linked < clusters);
    return r;
}

/* Freeing. */

unsigned exfat_free_sectors(const struct exfat_volume *volume, const struct exfat_runs *runs,
                            uint32_t from, uint32_t to)
{
    unsigned sectors = 1; /* of the table: the end */
    for (uint32_t at = from; at < to;) {
        const struct exfat_run *run = exfat_runs_find(runs, at);
        uint32_t count = run->at + run->count - at;
        count = count < to - at ? count : to - at;
        sectors += exfat_bitmap_sectors(volume, count);
        at += count;
    }
    return sectors;
}

/* The first cluster of those before `to`, from `keep` on, that may be freed by so many sectors. */
static uint32_t free_down_to(const struct exfat_volume *volume, const struct exfat_runs *runs,
                             uint32_t keep, uint32_t to, unsigned most)
{
    unsigned sectors = 1;
    uint32_t at = to;
    while (at > keep) {
        const struct exfat_run *run = exfat_runs_find(runs, at - 1);
        uint32_t start = run->at < keep ? keep : run->at, count = at - start;
        while (count > 1 && sectors + exfat_bitmap_sectors(volume, count) > most)
            count /= 2;
        unsigned cost = exfat_bitmap_sectors(volume, count);
        if (sectors + cost > most && at < to)
            break;
        sectors += cost;
        at -= count;
        if (at > start)
            break;
    }
    return at;
}

/* The set becomes this one, and then the clusters from keep on are free on the medium. */
static int free_step(struct exfat_volume *volume, struct exfat_node *node, uint32_t keep,
                     const struct exfat_set *set, struct error *err)
{
    struct exfat_set made = set_for(volume, node, keep, set);
    uint32_t to = node->linked;
    int r = exfat_begin(volume,
                        exfat_free_sectors(volume, &node->runs, keep, to) +
                            exfat_set_sectors(volume, node->place.count),
                        err);
    if (r != 0)
        return r;
    r = exfat_node_write(volume, node, &made, err);
    if (r == 0 && keep > 0 && keep < to && !made.contiguous)
        r = exfat_set_next(exfat_medium(volume), &volume->layout,
                           exfat_runs_cluster(&node->runs, keep - 1), EXFAT_END, err);
    medium_barrier(exfat_medium(volume));
    if (r == 0)
        r = exfat_space_mark(volume, &node->runs, keep, to, false, err);
    uint64_t update = medium_running(exfat_medium(volume));
    r = exfat_finish(volume, r, err);
    if (r != 0)
        return r;
    node->freed_by = update;
    node->set = made;
    node->linked = keep;
    volume->free += to - keep;
    volume->held += to - keep;
    return 0;
}

int exfat_shrink(struct exfat_volume *volume, struct exfat_node *node, uint32_t keep,
                 unsigned sectors, struct error *err)
{
    unsigned most = most_sectors(volume, node);
    while (exfat_free_sectors(volume, &node->runs, keep, node->linked) > sectors) {
        uint32_t to = free_down_to(volume, &node->runs, keep, node->linked, most);
        int r = free_step(volume, node, to, &node->set, err);
        if (r != 0)
            return r;
    }
    return 0;
}

int exfat_unlink(struct exfat_volume *volume, struct exfat_node *node, uint32_t keep,
                 const struct exfat_set *set, struct error *err)
{
    if (node->removed) {
        link_removed(volume, node, keep, set);
        return 0;
    }
    int r = exfat_shrink(volume, node, keep, most_sectors(volume, node), err);
    return r == 0 ? free_step(volume, node, keep, set, err) : r;
}

uint32_t exfat_frees_from(const struct exfat_volume *volume, const struct exfat_node *node,
                          unsigned sectors)
{
    return free_down_to(volume, &node->runs, 0, node->linked, sectors);
}

int exfat_free_lost(struct exfat_volume *volume, const struct exfat_runs *runs, uint32_t to,
                    struct error *err)
{
    unsigned most = medium_update_most(exfat_medium(volume));
    int r = 0;
    while (r == 0 && to > 0) {
        uint32_t from = free_down_to(volume, runs, 0, to, most);
        r = exfat_begin(volume, exfat_free_sectors(volume, runs, from, to), err);
        if (r == 0)
            r = exfat_finish(volume, exfat_space_mark(volume, runs, from, to, false, err), err);
        to = from;
    }
    return r;
}
