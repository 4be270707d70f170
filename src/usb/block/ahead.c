#include "ahead.h"

#include <string.h>

#include <block/waiting.h>

void ahead_init(struct ahead *ahead, struct block_device *device)
{
    ahead->device = device;
    pthread_mutex_init(&ahead->lock, NULL);
    pthread_cond_init(&ahead->came, NULL);
}

void ahead_finish(struct ahead *ahead)
{
    pthread_mutex_lock(&ahead->lock);
    for (size_t i = 0; i < AHEAD_PIECES; i++)
        while (ahead->pieces[i].state == AHEAD_PENDING)
            pthread_cond_wait(&ahead->came, &ahead->lock);
    pthread_mutex_unlock(&ahead->lock);
    for (size_t i = 0; i < AHEAD_PIECES; i++)
        if (ahead->pieces[i].data)
            block_buffer_free(ahead->device, ahead->pieces[i].data, AHEAD_PIECE);
    pthread_cond_destroy(&ahead->came);
    pthread_mutex_destroy(&ahead->lock);
}

/* The lock is held. */

static bool holds(const struct ahead_piece *piece, uint64_t offset)
{
    return piece->state != AHEAD_EMPTY && !piece->stale && offset >= piece->offset &&
           offset - piece->offset < piece->size;
}

static struct ahead_piece *find(struct ahead *ahead, uint64_t offset)
{
    for (size_t i = 0; i < AHEAD_PIECES; i++)
        if (holds(&ahead->pieces[i], offset))
            return &ahead->pieces[i];
    return NULL;
}

/* Bytes from offset on before a piece begins. */
static uint64_t gap_before(const struct ahead *ahead, uint64_t offset, uint64_t most)
{
    for (size_t i = 0; i < AHEAD_PIECES; i++) {
        const struct ahead_piece *piece = &ahead->pieces[i];
        if (piece->state != AHEAD_EMPTY && !piece->stale && piece->offset > offset &&
            piece->offset - offset < most)
            most = piece->offset - offset;
    }
    return most;
}

/* One that is empty, or was not used for longest; NULL: all are on their way. */
static struct ahead_piece *find_room(struct ahead *ahead)
{
    struct ahead_piece *best = NULL;
    for (size_t i = 0; i < AHEAD_PIECES; i++) {
        struct ahead_piece *piece = &ahead->pieces[i];
        if (piece->state == AHEAD_EMPTY)
            return piece;
        if (piece->state == AHEAD_READY && (!best || piece->used < best->used))
            best = piece;
    }
    return best;
}

/* Until here. */

static void piece_is_here(struct block_request *request)
{
    struct ahead_piece *piece = request->owner;
    struct ahead *ahead = piece->ahead;
    pthread_mutex_lock(&ahead->lock);
    bool good = request->result == 0 && !piece->stale;
    piece->state = good ? AHEAD_READY : AHEAD_EMPTY;
    piece->stale = false;
    pthread_cond_broadcast(&ahead->came);
    pthread_mutex_unlock(&ahead->lock);
}

/* A piece for bytes that nothing has, or NULL. */
static struct ahead_piece *prepare(struct ahead *ahead, uint64_t offset, uint64_t size)
{
    struct ahead_piece *piece = find_room(ahead);
    if (!piece)
        return NULL;
    if (!piece->data)
        piece->data = block_buffer_alloc(ahead->device, AHEAD_PIECE);
    piece->ahead = ahead;
    piece->state = AHEAD_PENDING;
    piece->offset = offset;
    piece->size = size;
    piece->used = ++ahead->clock;
    ahead->any = true;
    piece->request = (struct block_request){
        .operation = BLOCK_READ,
        .sector = offset / ahead->device->sector_size,
        .count = (uint32_t)(size / ahead->device->sector_size),
        .data = piece->data,
        .done = piece_is_here,
        .owner = piece,
    };
    return piece;
}

void ahead_expect(struct ahead *ahead, uint64_t offset, uint64_t size)
{
    uint32_t sector_size = ahead->device->sector_size;
    uint64_t end = (offset + size) / sector_size * sector_size;
    offset = (offset + sector_size - 1) / sector_size * sector_size;
    while (offset < end) {
        pthread_mutex_lock(&ahead->lock);
        const struct ahead_piece *there = find(ahead, offset);
        uint64_t part = end - offset < AHEAD_PIECE ? end - offset : AHEAD_PIECE;
        struct ahead_piece *piece = NULL;
        if (there) {
            part = there->offset + there->size - offset;
        } else {
            part = gap_before(ahead, offset, part);
            piece = prepare(ahead, offset, part);
        }
        pthread_mutex_unlock(&ahead->lock);
        if (piece)
            block_submit(ahead->device, &piece->request);
        else if (!there)
            break;
        offset += part;
    }
}

size_t ahead_take(struct ahead *ahead, uint64_t offset, uint8_t *data, size_t size, size_t *ret_gap)
{
    struct ahead_piece *piece;
    size_t part = 0;
    pthread_mutex_lock(&ahead->lock);
    while ((piece = find(ahead, offset)) && piece->state == AHEAD_PENDING) {
        block_will_wait();
        pthread_cond_wait(&ahead->came, &ahead->lock);
    }
    if (piece) {
        size_t at = (size_t)(offset - piece->offset);
        part = (size_t)piece->size - at;
        part = part < size ? part : size;
        memcpy(data, piece->data + at, part);
        piece->used = ++ahead->clock;
        if (at + part == piece->size)
            piece->state = AHEAD_EMPTY; /* who reads in order does not come back */
    } else {
        *ret_gap = (size_t)gap_before(ahead, offset, size);
    }
    pthread_mutex_unlock(&ahead->lock);
    return part;
}

void ahead_forget(struct ahead *ahead, uint64_t offset, uint64_t size)
{
    pthread_mutex_lock(&ahead->lock);
    for (size_t i = 0; ahead->any && i < AHEAD_PIECES; i++) {
        struct ahead_piece *piece = &ahead->pieces[i];
        bool apart = offset >= piece->offset + piece->size || piece->offset >= offset + size;
        if (piece->state == AHEAD_EMPTY || apart)
            continue;
        piece->stale = piece->state == AHEAD_PENDING;
        if (piece->state == AHEAD_READY)
            piece->state = AHEAD_EMPTY;
    }
    pthread_mutex_unlock(&ahead->lock);
}
