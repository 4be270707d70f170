/*
 * The content of files, for all kinds: where it is, by map, reserve and wrote, and who may move it
 * at a time.
 *
 * Whoever moves content of a file, or cuts it, stands in the volume's list, in the order in which
 * they came, until the end. Each waits for those before it that are in its way: between map and the
 * last byte the clusters stay the file's, nobody reads what is not written yet, and no sector has
 * two writers, of whom each puts back what was there before the other one.
 */
#include "content.h"

#include <errno.h>
#include <string.h>
#include <time.h>

#include <block/waiting.h>

enum {
    EXTENTS = 16,
    SECTOR_MOST = 4096,
    OTHERS_NS = 100000,
    IN_ORDER = 2, /* reads, from which on what follows is read ahead */
    WINDOW_STEP = 128 << 10,
    WINDOW = 512 << 10,   /* bytes of that */
    LARGE = WINDOW,       /* reads of so many bytes keep the device busy for themselves */
    SMALL = 64 << 10,     /* files, or beginnings of such, that may be read one after the other */
    SMALL_GAP = 16 << 10, /* between them on the medium: more of it would be read for nothing */
    SMALL_WINDOW = 256 << 10,
};

void volume_init(struct volume *volume, const struct volume_ops *ops, struct medium *medium)
{
    *volume = (struct volume){.ops = ops, .medium = medium};
    pthread_mutex_init(&volume->streams.lock, NULL);
    pthread_mutex_init(&volume->content_lock, NULL);
    pthread_cond_init(&volume->content_moved, NULL);
}

void volume_finish(struct volume *volume)
{
    pthread_mutex_destroy(&volume->streams.lock);
    pthread_mutex_destroy(&volume->content_lock);
    pthread_cond_destroy(&volume->content_moved);
}

/* Who waits for whom. */

static uint64_t end_of(const struct content_move *move)
{
    return move->size > UINT64_MAX - move->offset ? UINT64_MAX : move->offset + move->size;
}

static bool has_same_sector(const struct content_move *a, const struct content_move *b)
{
    uint64_t mask = ~(uint64_t)(SECTOR_MOST - 1);
    return a->size > 0 && b->size > 0 && (a->offset & mask) <= ((end_of(b) - 1) & mask) &&
           (b->offset & mask) <= ((end_of(a) - 1) & mask);
}

/* What is between them may become zeros, from the last sector of the first one on. */
static bool meets_gap(const struct content_move *earlier, const struct content_move *later)
{
    return end_of(earlier) % SECTOR_MOST != 0 && end_of(earlier) < later->offset;
}

static bool is_in_the_way(const struct content_move *earlier, const struct content_move *later)
{
    if (earlier->file != later->file)
        return false;
    if (earlier->what == CONTENT_CUT || later->what == CONTENT_CUT)
        return true;
    if (earlier->what == CONTENT_READ && later->what == CONTENT_READ)
        return false;
    if (earlier->what == CONTENT_WRITE && later->what == CONTENT_WRITE &&
        (earlier->state != CONTENT_MOVING || earlier->broken || earlier->cleans ||
         meets_gap(earlier, later)))
        return true;
    return has_same_sector(earlier, later);
}

static bool must_wait(const struct volume *volume, const struct content_move *move)
{
    for (const struct content_move *at = volume->content; at != move; at = at->next)
        if (is_in_the_way(at, move))
            return true;
    return false;
}

/* The lock is held. Where the one before it is. */
static struct content_move **stand_last(struct volume *volume, struct content_move *move,
                                        struct node *file, enum content_what what, uint64_t offset,
                                        uint64_t size)
{
    struct content_move **last = &volume->content;
    *move = (struct content_move){.file = file, .what = what, .offset = offset, .size = size};
    while (*last)
        last = &(*last)->next;
    *last = move;
    return last;
}

bool volume_content_try(struct volume *volume, struct content_move *move, struct node *file,
                        enum content_what what, uint64_t offset, uint64_t size)
{
    pthread_mutex_lock(&volume->content_lock);
    struct content_move **at = stand_last(volume, move, file, what, offset, size);
    bool free = !must_wait(volume, move);
    if (free)
        move->state = what == CONTENT_WRITE ? CONTENT_TAKES_ROOM : CONTENT_MOVING;
    else
        *at = NULL;
    pthread_mutex_unlock(&volume->content_lock);
    return free;
}

void volume_content_begin(struct volume *volume, struct content_move *move, struct node *file,
                          enum content_what what, uint64_t offset, uint64_t size)
{
    pthread_mutex_lock(&volume->content_lock);
    stand_last(volume, move, file, what, offset, size);
    while (must_wait(volume, move)) {
        block_will_wait();
        pthread_cond_wait(&volume->content_moved, &volume->content_lock);
    }
    move->state = what == CONTENT_WRITE ? CONTENT_TAKES_ROOM : CONTENT_MOVING;
    pthread_mutex_unlock(&volume->content_lock);
}

void volume_content_end(struct volume *volume, struct content_move *move)
{
    pthread_mutex_lock(&volume->content_lock);
    struct content_move **at = &volume->content;
    while (*at != move)
        at = &(*at)->next;
    *at = move->next;
    pthread_cond_broadcast(&volume->content_moved);
    pthread_mutex_unlock(&volume->content_lock);
}

/* Who let go of a lock and takes it again at once would be before all who wait for it. */
void volume_let_others(void)
{
    block_will_wait();
    nanosleep(&(struct timespec){.tv_nsec = OTHERS_NS}, NULL);
}

/* Writes. */

static bool is_other_write(const struct content_move *at, const struct content_move *write)
{
    return at != write && at->file == write->file && at->what == CONTENT_WRITE &&
           at->state != CONTENT_WAITS;
}

/* One that must end first. */
static bool has_earlier(const struct volume *volume, const struct content_move *write)
{
    for (const struct content_move *at = volume->content; at; at = at->next)
        if (is_other_write(at, write) && at->state == CONTENT_MOVING && at->offset < write->offset)
            return true;
    return false;
}

/* What is behind it would be behind a gap. */
static void has_failed(struct volume *volume, struct content_move *write)
{
    write->broken = write->cleans = true;
    for (struct content_move *at = volume->content; at; at = at->next)
        if (is_other_write(at, write) && at->offset > write->offset)
            at->broken = true;
}

/* After a failure the last one gives back what was reserved: there is not what was to be there. */
static void leave(struct volume *volume, struct content_move *write)
{
    struct content_move *other = NULL;
    pthread_mutex_lock(&volume->content_lock);
    if (write->cleans)
        for (other = volume->content; other && !is_other_write(other, write);)
            other = other->next;
    if (other)
        other->cleans = true;
    pthread_mutex_unlock(&volume->content_lock);
    if (write->cleans && !other)
        volume->ops->unreserve(volume, write->file);
    volume_content_end(volume, write);
}

static int take_room(struct volume *volume, struct content_move *write, struct error *err)
{
    int r = volume->ops->reserve(volume, write->file, write->offset, write->size, err);
    if (r != 0) {
        leave(volume, write);
        return r;
    }
    pthread_mutex_lock(&volume->content_lock);
    write->state = CONTENT_MOVING;
    pthread_cond_broadcast(&volume->content_moved);
    pthread_mutex_unlock(&volume->content_lock);
    return 0;
}

static int check_size(uint64_t offset, uint64_t size, struct error *err)
{
    if (size == 0 || offset > UINT64_MAX - size)
        return error_set(err, -EINVAL, "a write of %llu bytes", (unsigned long long)size);
    return 0;
}

int volume_write_begin(struct volume *volume, struct content_move *write, struct node *file,
                       uint64_t offset, uint64_t size, struct error *err)
{
    int r = check_size(offset, size, err);
    if (r != 0)
        return r;
    volume_content_begin(volume, write, file, CONTENT_WRITE, offset, size);
    return take_room(volume, write, err);
}

int volume_write_try(struct volume *volume, struct content_move *write, struct node *file,
                     uint64_t offset, uint64_t size, struct error *err)
{
    int r = check_size(offset, size, err);
    if (r != 0)
        return r;
    if (!volume_content_try(volume, write, file, CONTENT_WRITE, offset, size))
        return -EAGAIN;
    return take_room(volume, write, err);
}

int volume_write_end(struct volume *volume, struct content_move *write, int r, struct error *err)
{
    pthread_mutex_lock(&volume->content_lock);
    while (has_earlier(volume, write)) {
        block_will_wait();
        pthread_cond_wait(&volume->content_moved, &volume->content_lock);
    }
    if (r == 0 && write->broken)
        r = error_set(err, -EIO, "what is before it could not be written");
    if (r != 0)
        has_failed(volume, write);
    pthread_mutex_unlock(&volume->content_lock);
    if (r == 0) {
        r = volume->ops->wrote(volume, write->file, write->offset, write->size, write->dated, err);
        pthread_mutex_lock(&volume->content_lock);
        if (r != 0)
            has_failed(volume, write);
        pthread_mutex_unlock(&volume->content_lock);
    }
    leave(volume, write);
    return r;
}

/* Bytes. */

/* A file's first bytes are read. Files that were written one after the other are next to each other
 * on the medium, and are often read one after the other: then what is behind them is read ahead,
 * whosever it is. What is of no file yet is forgotten when it becomes content. */
static void expect_neighbours(struct volume *volume, uint64_t at, uint64_t size)
{
    struct volume_streams *streams = &volume->streams;
    uint64_t from, to = 0, end = at + size, whole = medium_size(volume->medium);
    pthread_mutex_lock(&streams->lock);
    bool follows = at >= streams->small_end && at - streams->small_end <= SMALL_GAP;
    streams->small_reads = follows ? streams->small_reads + 1 : 1;
    streams->small_end = end;
    if (!follows || streams->small_expected < end)
        streams->small_expected = at;
    from = streams->small_expected;
    if (streams->small_reads > IN_ORDER && from < end + SMALL_WINDOW / 2)
        to = streams->small_expected = end + SMALL_WINDOW < whole ? end + SMALL_WINDOW : whole;
    pthread_mutex_unlock(&streams->lock);
    if (from < to)
        medium_expect_content(volume->medium, from, to - from);
}

/* Moves up to `size` bytes at offset; returns how many, 0 at the end. */
static int64_t move(struct volume *volume, struct node *file, uint64_t offset, uint8_t *data,
                    size_t size, bool write, struct error *err)
{
    struct extent extents[EXTENTS];
    int count = volume->ops->map(volume, file, offset, size, extents, EXTENTS, err);
    int64_t moved = 0;
    if (!write && offset == 0 && size <= SMALL && count > 0 && extents[0].offset != EXTENT_ZEROS)
        expect_neighbours(volume, extents[0].offset, extents[0].length);
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
    if (size >= LARGE || offset + size >= facts->size ||
        !is_in_order(volume, facts->number, offset, offset + size, &from, &to) || from >= to)
        return;
    int count = volume->ops->map(volume, file, from, to - from, extents, EXTENTS, NULL);
    for (int i = 0; i < count; i++)
        if (extents[i].offset != EXTENT_ZEROS)
            medium_expect_content(volume->medium, extents[i].offset, extents[i].length);
}

static int64_t read_up_to_end(struct volume *volume, struct node *file, uint64_t offset, void *data,
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

int64_t volume_read(struct volume *volume, struct node *file, uint64_t offset, void *data,
                    size_t size, struct error *err)
{
    struct content_move read;
    volume_content_begin(volume, &read, file, CONTENT_READ, offset, size);
    int64_t moved = read_up_to_end(volume, file, offset, data, size, err);
    volume_content_end(volume, &read);
    return moved;
}

int volume_write_content(struct volume *volume, const struct content_move *write, const void *data,
                         struct error *err)
{
    int64_t moved = move_all(volume, write->file, write->offset, (uint8_t *)data,
                             (size_t)write->size, true, err);
    if (moved >= 0 && (uint64_t)moved < write->size)
        return error_set(err, -EIO, "there is less of the file than was reserved");
    return moved < 0 ? (int)moved : 0;
}

int64_t volume_write(struct volume *volume, struct node *file, uint64_t offset, const void *data,
                     size_t size, struct error *err)
{
    struct content_move write;
    if (size == 0)
        return 0;
    int r = volume_write_begin(volume, &write, file, offset, size, err);
    if (r != 0)
        return r;
    r = volume_write_end(volume, &write, volume_write_content(volume, &write, data, err), err);
    return r == 0 ? (int64_t)size : r;
}
