/*
 * Several small writes at once, of files that programs write one after the other: where these are
 * next to each other on the medium, one request of the device carries them all.
 *
 * A write that ends its file is made longer by zeros, up to where the next write of the file may
 * begin or its cluster ends: what is behind the end of a file is nobody's, so that no sector has to
 * be read to be put back, and the next file begins where this one ends.
 */
#include "content.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include <base/alloc.h>

enum { PAGE = 4096 /* as content.c keeps writes apart */ };

static uint64_t round_up(uint64_t value, uint64_t to)
{
    return (value + to - 1) / to * to;
}

/* How many zeros may follow. */
static uint64_t slack_of(struct volume *volume, const struct content_move *write)
{
    struct node_facts facts;
    uint64_t end = write->offset + write->size;
    if (volume->ops->node_facts(volume, write->file, &facts, NULL) != 0 || facts.size > end)
        return 0;
    uint64_t page = round_up(end, PAGE), cluster = round_up(end, volume->cluster_size);
    return (page < cluster ? page : cluster) - end;
}

/* Where it goes, if that is one place, of whole sectors. */
static bool find_place(struct volume *volume, struct content_piece *piece)
{
    const struct content_move *write = piece->write;
    uint32_t sector = medium_sector_size(volume->medium);
    struct extent extents[2];
    int count = volume->ops->map(volume, write->file, write->offset, write->size, extents, 2, NULL);
    if (count != 1 || extents[0].offset == EXTENT_ZEROS || extents[0].length != write->size)
        return false;
    piece->at = extents[0].offset;
    piece->length = write->size + slack_of(volume, write);
    return piece->at % sector == 0 && piece->length % sector == 0;
}

static int by_place(const void *a, const void *b)
{
    const struct content_piece *left = *(struct content_piece *const *)a,
                               *right = *(struct content_piece *const *)b;
    return left->at < right->at ? -1 : left->at > right->at;
}

static void write_alone(struct volume *volume, struct content_piece *piece)
{
    piece->result = volume_write_content(volume, piece->write, piece->data, &piece->error);
}

/* When it fails, each fares for itself. */
static void write_run(struct volume *volume, struct content_piece *const *run, size_t count)
{
    uint64_t size = run[count - 1]->at + run[count - 1]->length - run[0]->at;
    uint8_t *data = medium_buffer(volume->medium, (size_t)size), *to = data;
    for (size_t i = 0; i < count; to += run[i++]->length) {
        size_t own = (size_t)run[i]->write->size;
        memcpy(to, run[i]->data, own);
        memset(to + own, 0, (size_t)run[i]->length - own);
    }
    int r = medium_write_content(volume->medium, run[0]->at, data, (size_t)size, NULL);
    medium_buffer_free(volume->medium, data, (size_t)size);
    for (size_t i = 0; r != 0 && i < count; i++)
        write_alone(volume, run[i]);
}

void volume_write_pieces(struct volume *volume, struct content_piece *pieces, size_t count)
{
    struct content_piece *placed[CONTENT_PIECES];
    size_t found = 0;
    for (size_t i = 0; i < count; i++) {
        pieces[i].result = 0;
        if (found < CONTENT_PIECES && find_place(volume, &pieces[i]))
            placed[found++] = &pieces[i];
        else
            write_alone(volume, &pieces[i]);
    }
    qsort(placed, found, sizeof(placed[0]), by_place);
    for (size_t i = 0, run; i < found; i += run) {
        for (run = 1; i + run < found &&
                      placed[i + run]->at == placed[i + run - 1]->at + placed[i + run - 1]->length;)
            run++;
        write_run(volume, &placed[i], run);
    }
}
