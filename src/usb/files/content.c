/* The content of files, for all kinds. */
#include <files/volume.h>

#include <errno.h>
#include <string.h>

enum {
    EXTENTS = 16,
    IN_ORDER = 2, /* reads, from which on what follows is read ahead */
    WINDOW_STEP = 128 << 10,
    WINDOW = 512 << 10, /* bytes of that */
    LARGE = WINDOW,     /* reads of so many bytes keep the device busy for themselves */
};

/* Moves up to `size` bytes at offset; returns how many, 0 at the end. */
static int64_t move(struct volume *volume, struct node *file, uint64_t offset, uint8_t *data,
                    size_t size, bool write, struct error *err)
{
    struct extent extents[EXTENTS];
    int count = volume->ops->map(volume, file, offset, size, extents, EXTENTS, err);
    int64_t moved = 0;
    for (int i = 0; i < count; i++) {
        size_t part = (size_t)extents[i].length;
        int r = 0;
        if (write)
            r = medium_write_content(volume->medium, extents[i].offset, data + moved, part, err);
        else if (extents[i].offset == EXTENT_ZEROS)
            memset(data + moved, 0, part);
        else
            r = medium_read_content(volume->medium, extents[i].offset, data + moved, part, err);
        if (r != 0)
            return r;
        moved += (int64_t)part;
    }
    return count < 0 ? count : moved;
}

static int64_t move_all(struct volume *volume, struct node *file, uint64_t offset, uint8_t *data,
                        size_t size, bool write, struct error *err)
{
    size_t done = 0;
    while (done < size) {
        int64_t moved = move(volume, file, offset + done, data + done, size - done, write, err);
        if (moved < 0)
            return moved;
        if (moved == 0)
            break;
        done += (size_t)moved;
    }
    return (int64_t)done;
}

/* A read of [offset, end), of several in order: true, and what is to be read ahead by now. Half a
 * window is left when the next one is asked for, so that requests are large. */
static bool is_in_order(struct volume *volume, uint64_t number, uint64_t offset, uint64_t end,
                        uint64_t *ret_from, uint64_t *ret_to)
{
    struct volume_streams *streams = &volume->streams;
    unsigned at = 0;
    pthread_mutex_lock(&streams->lock);
    while (at < VOLUME_STREAMS && streams->items[at].number != number)
        at++;
    if (at == VOLUME_STREAMS)
        at = streams->next++ % VOLUME_STREAMS;
    struct volume_stream *stream = &streams->items[at];
    bool follows = stream->number == number && stream->at == offset;
    *stream = (struct volume_stream){
        .number = number,
        .at = end,
        .reads = follows ? stream->reads + 1 : offset == 0,
        .expected = follows ? stream->expected : 0,
    };
    bool wanted = stream->reads >= IN_ORDER && stream->expected < end + WINDOW / 2;
    if (wanted) {
        *ret_from = stream->expected > offset ? stream->expected : offset;
        *ret_to = stream->expected = (end + WINDOW) / WINDOW_STEP * WINDOW_STEP;
    }
    pthread_mutex_unlock(&streams->lock);
    return wanted;
}

static void read_ahead(struct volume *volume, struct node *file, const struct node_facts *facts,
                       uint64_t offset, size_t size)
{
    struct extent extents[EXTENTS];
    uint64_t from, to;
    if (size >= LARGE || !is_in_order(volume, facts->number, offset, offset + size, &from, &to) ||
        from >= to)
        return;
    int count = volume->ops->map(volume, file, from, to - from, extents, EXTENTS, NULL);
    for (int i = 0; i < count; i++)
        if (extents[i].offset != EXTENT_ZEROS)
            medium_expect_content(volume->medium, extents[i].offset, extents[i].length);
}

int64_t volume_read(struct volume *volume, struct node *file, uint64_t offset, void *data,
                    size_t size, struct error *err)
{
    struct node_facts facts;
    int r = volume->ops->node_facts(volume, file, &facts, err);
    if (r != 0)
        return r;
    if (facts.type != NODE_FILE)
        return error_set(err, -EISDIR, "it is a folder");
    if (offset >= facts.size)
        return 0;
    if (size > facts.size - offset)
        size = (size_t)(facts.size - offset);
    read_ahead(volume, file, &facts, offset, size);
    return move_all(volume, file, offset, data, size, false, err);
}

int64_t volume_write_reserved(struct volume *volume, struct node *file, uint64_t offset,
                              const void *data, size_t size, struct error *err)
{
    return move_all(volume, file, offset, (uint8_t *)data, size, true, err);
}

int64_t volume_write(struct volume *volume, struct node *file, uint64_t offset, const void *data,
                     size_t size, struct error *err)
{
    if (size == 0)
        return 0;
    int r = volume->ops->reserve(volume, file, offset, size, err);
    if (r != 0)
        return r;
    int64_t moved = volume_write_reserved(volume, file, offset, data, size, err);
    if (moved < 0)
        return moved;
    r = volume->ops->wrote(volume, file, offset, (uint64_t)moved, err);
    return r == 0 ? moved : r;
}
