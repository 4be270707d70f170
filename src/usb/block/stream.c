/*
 * Two pieces: one that the reader is in, the other on its way. They begin small and double as long
 * as the reader goes on in order; one that goes elsewhere costs what is on its way and no more.
 */
#include <block/stream.h>

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include <base/alloc.h>
#include <block/over.h>

enum { PIECES = 2, PIECE_FIRST = 64 << 10, PIECE_MOST = 512 << 10 }; /* bytes */
enum { READ_MOST = 128 << 10 }; /* what is larger is moved as well without us, and not copied */
enum { IN_ORDER = 2 };          /* so many reads in a row are a reader in order */

enum piece_state { PIECE_EMPTY, PIECE_COMING, PIECE_HERE };

struct stream;

struct piece {
    struct block_request request; /* first */
    struct stream *stream;
    enum piece_state state;
    bool stale;                    /* it is COMING, and what comes is not used any more */
    uint64_t first, end;           /* sectors */
    struct block_request *waiting; /* reads of it, by next */
    uint8_t *data;                 /* PIECE_MOST bytes once it was needed; owned */
};

/* A write or discard on its way. */
struct change {
    struct block_request request; /* first */
    struct stream *stream;
    struct block_request *whose;
};

struct stream {
    struct block_over over; /* first */
    pthread_mutex_t lock;   /* of all that follows; held shortly */
    pthread_cond_t came;
    struct piece pieces[PIECES];
    uint64_t next;     /* the sector behind what was read last */
    unsigned in_order; /* reads in a row */
    uint64_t ahead;    /* where the next piece begins */
    uint32_t size;     /* bytes of it */
    unsigned changes;  /* under way */
};

static struct stream *stream_of(struct block_device *device)
{
    return (struct stream *)device;
}

/* To the device below as it is. */
static void pass(struct stream *stream, struct block_request *request)
{
    struct block_device *whole = stream->over.below->whole;
    request->at += stream->over.below->first;
    whole->ops->submit(whole, request);
}

static void answer(struct block_request *request, int result)
{
    request->result = result;
    request->done(request);
}

/* With the lock. */

static bool is_lost(const struct stream *stream)
{
    return stream->over.below->lost && atomic_load(stream->over.below->lost);
}

static struct piece *find(struct stream *stream, const struct block_request *request)
{
    for (unsigned i = 0; i < PIECES; i++) {
        struct piece *piece = &stream->pieces[i];
        if (piece->state != PIECE_EMPTY && !piece->stale && request->at >= piece->first &&
            request->at + request->count <= piece->end)
            return piece;
    }
    return NULL;
}

static void copy(const struct piece *piece, const struct block_request *request)
{
    uint32_t size = piece->stream->over.device.sector_size;
    memcpy(request->data, piece->data + (request->at - piece->first) * size,
           (size_t)request->count * size);
}

static void forget(struct piece *piece)
{
    piece->stale = piece->state == PIECE_COMING;
    if (piece->state == PIECE_HERE)
        piece->state = PIECE_EMPTY;
}

/* There is no reader in order. */
static void stop(struct stream *stream)
{
    stream->in_order = 0;
    for (unsigned i = 0; i < PIECES; i++)
        forget(&stream->pieces[i]);
}

static void follow(struct stream *stream, const struct block_request *request)
{
    uint64_t end = request->at + request->count;
    if (request->at != stream->next || request->count > READ_MOST / stream->over.device.sector_size)
        stop(stream);
    if (stream->in_order++ == 0) {
        stream->ahead = end;
        stream->size = PIECE_FIRST;
    }
    stream->next = end;
    if (stream->ahead < end)
        stream->ahead = end;
    for (unsigned i = 0; i < PIECES; i++)
        if (stream->pieces[i].end <= end)
            forget(&stream->pieces[i]); /* who reads in order does not come back */
}

/* The next piece, to be submitted; NULL: not now. */
static struct piece *prepare(struct stream *stream)
{
    struct piece *piece = stream->pieces;
    uint64_t left = stream->over.device.sectors - stream->ahead;
    uint32_t count = stream->size / stream->over.device.sector_size;
    while (piece < stream->pieces + PIECES && piece->state != PIECE_EMPTY)
        piece++;
    if (piece == stream->pieces + PIECES || stream->in_order < IN_ORDER || left == 0 ||
        stream->changes > 0 || is_lost(stream))
        return NULL;
    if (!piece->data)
        piece->data = block_buffer_alloc(stream->over.below, PIECE_MOST);
    if (count > left)
        count = (uint32_t)left;
    piece->state = PIECE_COMING;
    piece->stale = false;
    piece->first = stream->ahead;
    piece->end = stream->ahead = stream->ahead + count;
    piece->request.sector = piece->first;
    piece->request.count = count;
    piece->request.data = piece->data;
    if (stream->size < PIECE_MOST)
        stream->size *= 2;
    return piece;
}

/* Until here. */

/* Who waited has it from the piece, or where that failed asks for itself. */
static void end_wait(struct piece *piece, struct block_request *request)
{
    if (piece->request.result == 0) {
        copy(piece, request);
        answer(request, 0);
    } else {
        request->attended = false; /* whoever attended has long done so */
        pass(piece->stream, request);
    }
}

static void piece_came(struct block_request *request)
{
    struct piece *piece = (struct piece *)request;
    struct stream *stream = piece->stream;
    pthread_mutex_lock(&stream->lock);
    while (piece->waiting) {
        struct block_request *waiting = piece->waiting;
        piece->waiting = waiting->next;
        pthread_mutex_unlock(&stream->lock);
        end_wait(piece, waiting);
        pthread_mutex_lock(&stream->lock);
    }
    piece->state = request->result == 0 && !piece->stale ? PIECE_HERE : PIECE_EMPTY;
    if (request->result != 0)
        stop(stream);
    pthread_cond_broadcast(&stream->came);
    pthread_mutex_unlock(&stream->lock);
}

static void read_sectors(struct stream *stream, struct block_request *request)
{
    pthread_mutex_lock(&stream->lock);
    struct piece *piece = is_lost(stream) ? NULL : find(stream, request);
    bool is_here = piece && piece->state == PIECE_HERE;
    if (is_here) {
        copy(piece, request);
    } else if (piece) {
        struct block_request **last = &piece->waiting;
        while (*last)
            last = &(*last)->next;
        request->next = NULL;
        *last = request;
    }
    follow(stream, request);
    struct piece *next = prepare(stream);
    pthread_mutex_unlock(&stream->lock);
    if (!piece)
        pass(stream, request);
    if (next)
        block_submit(stream->over.below, &next->request);
    if (is_here)
        answer(request, 0);
}

static void change_done(struct block_request *request)
{
    struct change *change = (struct change *)request;
    struct stream *stream = change->stream;
    struct block_request *whose = change->whose;
    int result = request->result;
    pthread_mutex_lock(&stream->lock);
    stream->changes--;
    pthread_mutex_unlock(&stream->lock);
    free(change);
    answer(whose, result);
}

/* Nothing is read ahead from before it is submitted until it is done, in whichever order the device
 * does things. */
static void change_sectors(struct stream *stream, struct block_request *request)
{
    struct change *change = xnew(struct change);
    change->request = block_over_request(request, change_done);
    change->stream = stream;
    change->whose = request;
    pthread_mutex_lock(&stream->lock);
    stop(stream);
    stream->changes++;
    pthread_mutex_unlock(&stream->lock);
    block_submit(stream->over.below, &change->request);
}

static void submit(struct block_device *whole, struct block_request *request)
{
    struct stream *stream = stream_of(whole);
    switch (request->operation) {
    case BLOCK_READ:
        read_sectors(stream, request);
        break;
    case BLOCK_FLUSH:
        pass(stream, request);
        break;
    case BLOCK_WRITE:
    case BLOCK_DISCARD:
        change_sectors(stream, request);
        break;
    }
}

static void destroy(struct block_device *device)
{
    struct stream *stream = stream_of(device);
    pthread_mutex_lock(&stream->lock);
    for (unsigned i = 0; i < PIECES; i++)
        while (stream->pieces[i].state == PIECE_COMING)
            pthread_cond_wait(&stream->came, &stream->lock);
    pthread_mutex_unlock(&stream->lock);
    for (unsigned i = 0; i < PIECES; i++)
        block_buffer_free(stream->over.below, stream->pieces[i].data, PIECE_MOST);
    pthread_cond_destroy(&stream->came);
    pthread_mutex_destroy(&stream->lock);
    free(stream);
}

static const struct block_device_ops stream_ops = {
    .submit = submit,
    .attend = block_over_attend,
    .buffer_alloc = block_over_buffer_alloc,
    .buffer_free = block_over_buffer_free,
    .destroy = destroy,
};

struct block_device *block_stream_create(struct block_device *below)
{
    struct stream *stream = xnew(struct stream);
    block_over_init(&stream->over, below, &stream_ops);
    pthread_mutex_init(&stream->lock, NULL);
    pthread_cond_init(&stream->came, NULL);
    for (unsigned i = 0; i < PIECES; i++) {
        struct piece *piece = &stream->pieces[i];
        piece->stream = stream;
        piece->request.operation = BLOCK_READ;
        piece->request.done = piece_came;
        piece->request.owner = piece;
    }
    return &stream->over.device;
}
