/* Runs of clusters, in memory and from the table. */
#include "exfat.h"

#include <errno.h>
#include <stdlib.h>

#include <base/alloc.h>
#include <block/budget.h>

enum { RUNS_MOST = 4 << 20 }; /* of one file; a stick may say that there are more */

void exfat_runs_add(struct exfat_runs *runs, uint32_t first, uint32_t count)
{
    struct exfat_run *last = runs->count ? &runs->items[runs->count - 1] : NULL;
    if (last && last->first + last->count == first) {
        last->count += count;
    } else {
        if (runs->count == runs->room) {
            runs->room = runs->room ? runs->room * 2 : 4;
            runs->items = budget_resize(BUDGET_KEPT, runs->items, runs->room, sizeof(*runs->items));
        }
        runs->items[runs->count++] = (struct exfat_run){runs->clusters, first, count};
    }
    runs->clusters += count;
}

void exfat_runs_cut(struct exfat_runs *runs, uint32_t clusters)
{
    while (runs->count > 0 && runs->items[runs->count - 1].at >= clusters)
        runs->count--;
    if (runs->count > 0) {
        struct exfat_run *last = &runs->items[runs->count - 1];
        if (last->count > clusters - last->at)
            last->count = clusters - last->at;
    }
    runs->clusters = clusters < runs->clusters ? clusters : runs->clusters;
}

void exfat_runs_finish(struct exfat_runs *runs)
{
    budget_free(BUDGET_KEPT, runs->items);
    *runs = (struct exfat_runs){0};
}

const struct exfat_run *exfat_runs_find(const struct exfat_runs *runs, uint32_t at)
{
    size_t low = 0, high = runs->count;
    while (high - low > 1) {
        size_t middle = low + (high - low) / 2;
        if (runs->items[middle].at <= at)
            low = middle;
        else
            high = middle;
    }
    return &runs->items[low];
}

uint32_t exfat_runs_cluster(const struct exfat_runs *runs, uint32_t at)
{
    const struct exfat_run *run = exfat_runs_find(runs, at);
    return run->first + (at - run->at);
}

/* The cluster behind the last one of the runs, or first. 0: the chain ends. */
static int next_of(struct exfat_volume *volume, const struct exfat_runs *runs, uint32_t first,
                   uint32_t *ret_next, struct error *err)
{
    uint32_t next = first;
    int r = 0;
    if (runs->clusters > 0)
        r = exfat_next(exfat_medium(volume), &volume->layout,
                       exfat_runs_cluster(runs, runs->clusters - 1), &next, err);
    if (r != 0)
        return r;
    if (next != EXFAT_END && !exfat_is_cluster(&volume->layout, next))
        return exfat_damage(volume, err, "a chain leads to cluster %u", next);
    *ret_next = next == EXFAT_END ? 0 : next;
    return 0;
}

static int add_next(struct exfat_volume *volume, struct exfat_runs *runs, uint32_t next,
                    struct error *err)
{
    if (runs->count >= RUNS_MOST)
        return error_set(err, -EFBIG, "a file in more than %d pieces", RUNS_MOST);
    if (runs->count == runs->room) {
        int r = budget_check(runs->room * sizeof(*runs->items), "a file in so many pieces", err);
        if (r != 0)
            return r;
    }
    exfat_runs_add(runs, next, 1);
    return runs->clusters > volume->layout.clusters
               ? exfat_damage(volume, err, "a chain that does not end")
               : 0;
}

/* Brent's: a chain that goes round comes back to the cluster that is kept, of which a later one is
 * kept after twice as many steps. */
struct round {
    uint32_t kept, steps, most;
};

static bool goes_round(struct round *round, uint32_t next)
{
    if (next == round->kept)
        return true;
    if (round->steps++ == round->most)
        *round = (struct round){.kept = next, .most = round->most * 2 + 1};
    return false;
}

int exfat_chain_load(struct exfat_volume *volume, uint32_t first, uint64_t clusters,
                     struct exfat_runs *runs, struct error *err)
{
    uint64_t root_most = (uint64_t)EXFAT_FOLDER_MOST >> volume->layout.cluster_shift;
    uint64_t most = clusters ? clusters : root_most;
    struct round round = {0};
    uint32_t next = 0;
    int r;
    most = most ? most : 1;
    while ((r = next_of(volume, runs, first, &next, err)) == 0 && next != 0) {
        if (runs->clusters == most)
            return clusters ? 0 : exfat_damage(volume, err, "the root folder is too long");
        r = goes_round(&round, next) ? exfat_damage(volume, err, "a chain goes round")
                                     : add_next(volume, runs, next, err);
        if (r != 0)
            return r;
    }
    if (r == 0 && runs->clusters < clusters)
        r = exfat_damage(volume, err, "a chain ends after %u clusters of %llu", runs->clusters,
                         (unsigned long long)clusters);
    return r;
}

static int load_contiguous(struct exfat_volume *volume, struct exfat_node *node, uint64_t all,
                           struct error *err)
{
    uint32_t first = node->set.first;
    if (all > 0 && (!exfat_is_cluster(&volume->layout, first) ||
                    all > volume->layout.clusters - (first - EXFAT_FIRST_CLUSTER)))
        return exfat_damage(volume, err, "clusters of a file are beyond the volume's end");
    if (all > 0)
        exfat_runs_add(&node->runs, first, (uint32_t)all);
    return 0;
}

int exfat_runs_load(struct exfat_volume *volume, struct exfat_node *node, uint64_t clusters,
                    struct error *err)
{
    uint64_t all = exfat_clusters_for(&volume->layout, node->set.size);
    int r = 0;
    node->used = atomic_fetch_add_explicit(&volume->clock, 1, memory_order_relaxed);
    if (node->complete)
        return 0;
    if (node == volume->root) {
        r = exfat_chain_load(volume, volume->layout.root, 0, &node->runs, err);
        all = node->runs.clusters;
    } else if (all > volume->layout.clusters) {
        r = exfat_damage(volume, err, "a file is larger than the volume");
    } else if (node->set.contiguous) {
        r = load_contiguous(volume, node, all, err);
    } else {
        clusters = clusters < all ? clusters : all;
        if (clusters > node->runs.clusters)
            r = exfat_chain_load(volume, node->set.first, clusters, &node->runs, err);
    }
    if (r == 0 && node->runs.clusters == all) {
        node->complete = true;
        node->linked = node->runs.clusters;
    }
    return r;
}
