/*
 * Content of files. Room for a write is taken in memory only; when the content was written, one
 * update links the clusters and sets the sizes. What is behind the valid size is zeros by the
 * format, whatever is in the clusters.
 */
#include "exfat.h"

#include <errno.h>

#include "content.h"
#include "times.h"

static bool is_reserved(const struct exfat_node *file)
{
    return file->reserved_end > file->reserved_from;
}

static uint64_t end_of(const struct exfat_node *file)
{
    return is_reserved(file) && file->reserved_end > file->set.size ? file->reserved_end
                                                                    : file->set.size;
}

/* The bytes from offset on that are alike: real ones, or zeros. Returns whether they are real. */
static bool part_is_real(const struct exfat_node *file, uint64_t offset, uint64_t *end)
{
    uint64_t valid = file->set.valid, edge = *end;
    bool real = true;
    if (offset < valid) {
        edge = valid;
        if (is_reserved(file) && file->reserved_from <= valid && file->reserved_end > valid)
            edge = file->reserved_end;
    } else if (is_reserved(file) && offset >= file->reserved_from && offset < file->reserved_end) {
        edge = file->reserved_end;
    } else {
        real = false;
        if (is_reserved(file) && offset < file->reserved_from)
            edge = file->reserved_from;
    }
    *end = edge < *end ? edge : *end;
    return real;
}

static struct extent extent_at(const struct exfat_volume *volume, const struct exfat_node *file,
                               uint64_t offset, uint64_t end)
{
    const struct exfat_layout *layout = &volume->layout;
    const struct exfat_run *run =
        exfat_runs_find(&file->runs, (uint32_t)(offset >> layout->cluster_shift));
    uint64_t in = offset - ((uint64_t)run->at << layout->cluster_shift);
    uint64_t room = ((uint64_t)run->count << layout->cluster_shift) - in;
    return (struct extent){exfat_offset(layout, run->first) + in,
                           room < end - offset ? room : end - offset};
}

int exfat_map(struct exfat_volume *volume, struct exfat_node *file, uint64_t offset,
              uint64_t length, struct extent *extents, size_t room, struct error *err)
{
    uint64_t all = end_of(file);
    size_t count = 0;
    if (offset >= all)
        return 0;
    all = length < all - offset ? offset + length : all;
    int r = exfat_runs_load(volume, file, exfat_clusters_for(&volume->layout, all), err);
    if (r != 0)
        return r;
    while (count < room && offset < all) {
        uint64_t end = all;
        struct extent extent = {.offset = EXTENT_ZEROS};
        if (part_is_real(file, offset, &end))
            extent = extent_at(volume, file, offset, end);
        else
            extent.length = end - offset;
        extents[count++] = extent;
        offset += extent.length;
    }
    return (int)count;
}

/* Zeros on the medium, where the clusters are the file's already. */
static int zero(struct exfat_volume *volume, struct exfat_node *file, uint64_t from, uint64_t to,
                struct error *err)
{
    int r = 0;
    while (r == 0 && from < to) {
        struct extent extent = extent_at(volume, file, from, to);
        r = medium_zero_content(exfat_medium(volume), extent.offset, extent.length, err);
        from += extent.length;
    }
    return r;
}

/* Clusters in memory up to `bytes` of the file. */
static int take_up_to(struct exfat_volume *volume, struct exfat_node *file, uint64_t bytes,
                      struct error *err)
{
    uint64_t want = exfat_clusters_for(&volume->layout, bytes);
    int r = exfat_runs_load(volume, file, UINT64_MAX, err);
    if (r != 0 || want <= file->runs.clusters)
        return r;
    uint32_t have = file->runs.clusters;
    uint32_t near = have ? exfat_runs_cluster(&file->runs, have - 1) + 1 : 0;
    return exfat_space_take(volume, want - have, near, &file->runs, err);
}

/* Bytes [from, to) are announced, too. */
static void reserve(struct exfat_node *file, uint64_t from, uint64_t to)
{
    if (!is_reserved(file) || from < file->reserved_from)
        file->reserved_from = from;
    if (to > file->reserved_end)
        file->reserved_end = to;
}

int exfat_reserve(struct exfat_volume *volume, struct exfat_node *file, uint64_t offset,
                  uint64_t length, struct error *err)
{
    if (length > INT64_MAX || offset > INT64_MAX - length)
        return error_set(err, -EFBIG, "a file of exFAT has at most 8 EiB");
    if (length == 0)
        return 0;
    uint64_t written = file->set.valid;
    int r = take_up_to(volume, file, offset + length, err);
    if (r != 0)
        return r;
    if (is_reserved(file) && file->reserved_from <= written && file->reserved_end > written)
        written = file->reserved_end; /* another write is under way, or the step before this one */
    if (offset > written) {
        uint64_t to = offset - written > CONTENT_STEP ? written + CONTENT_STEP : offset;
        r = zero(volume, file, written, to, err);
        if (r != 0)
            return r;
        reserve(file, written, to);
        if (to < offset)
            return 1;
    }
    reserve(file, offset < written ? offset : written, offset + length);
    return 0;
}

int exfat_wrote(struct exfat_volume *volume, struct exfat_node *file, uint64_t end, bool dated,
                struct error *err)
{
    struct exfat_set set = file->set;
    if (end > end_of(file))
        return error_set(err, -EINVAL, "a write that was not announced");
    set.size = end > set.size ? end : set.size;
    set.valid = end > set.valid ? end : set.valid;
    if (!dated)
        set.modified = exfat_time_from(volume, times_now());
    set.attributes |= EXFAT_ARCHIVE;
    int r = exfat_runs_load(volume, file, UINT64_MAX, err);
    if (r == 0)
        r = exfat_link(volume, file, (uint32_t)exfat_clusters_for(&volume->layout, set.size), &set,
                       err);
    if (r == 0 && end >= file->reserved_end)
        file->reserved_from = file->reserved_end = 0;
    return r;
}

void exfat_unreserve(struct exfat_volume *volume, struct exfat_node *file)
{
    if (file->complete && file->runs.clusters > file->linked) {
        exfat_space_give_back(volume, &file->runs, file->linked);
        exfat_runs_cut(&file->runs, file->linked);
    }
    file->reserved_from = file->reserved_end = 0;
}

static int shorten(struct exfat_volume *volume, struct exfat_node *file,
                   const struct exfat_set *set, struct error *err)
{
    uint32_t keep = (uint32_t)exfat_clusters_for(&volume->layout, set->size);
    uint32_t had = file->linked;
    int r = exfat_unlink(volume, file, keep, set, err);
    if (r == 0 && keep < had) {
        exfat_space_freed(volume, &file->runs, keep, had, file->freed_by, false);
        volume->held -= had - keep;
        exfat_runs_cut(&file->runs, keep);
    }
    return r;
}

int exfat_truncate(struct exfat_volume *volume, struct exfat_node *file, struct exfat_set *set,
                   struct error *err)
{
    if (set->size > INT64_MAX)
        return error_set(err, -EFBIG, "a file of exFAT has at most 8 EiB");
    int r = exfat_runs_load(volume, file, UINT64_MAX, err);
    if (r != 0)
        return r;
    exfat_unreserve(volume, file);
    if (set->size < file->set.size) {
        set->valid = set->valid < set->size ? set->valid : set->size;
        return shorten(volume, file, set, err);
    }
    r = take_up_to(volume, file, set->size, err);
    if (r == 0)
        r = exfat_link(volume, file, (uint32_t)exfat_clusters_for(&volume->layout, set->size), set,
                       err);
    if (r != 0)
        exfat_unreserve(volume, file);
    return r;
}
