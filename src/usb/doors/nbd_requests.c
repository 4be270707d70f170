/*
 * The requests of an NBD client: many at a time.
 *
 *     take_one      reads a request, and what is to be written; waits while too much is under way
 *     move_begin    on its way to the device (moves.c)
 *     on_done       on the device's thread: to the writer
 *     write_replies the writer's thread: answers, in the order in which things are done
 *
 * A request that cannot be is answered as such, by the writer too: nobody else writes to the
 * socket. Bytes that are no request end the connection.
 */
#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include <base/alloc.h>

#include "moves.h"
#include "nbd_internal.h"
#include "nbd_protocol.h"

enum { BYTES_MOST = NBD_DOOR_REQUEST }; /* of requests under way */

struct request {
    uint16_t flags, command;
    uint64_t cookie, offset;
    uint32_t length;
};

struct slot {
    struct move move; /* first */
    struct slot *next;
    struct request request;
    uint8_t *data;
    size_t size; /* of data */
};

struct talk {
    struct nbd *nbd;
    pthread_t writer;
    pthread_mutex_t lock;  /* for all below; held shortly, by the device's thread too */
    pthread_cond_t less;   /* is under way */
    pthread_cond_t more;   /* for the writer */
    struct slot *finished; /* oldest first */
    struct slot **finished_end;
    unsigned under_way;
    size_t bytes;
    bool ends;             /* the reader takes no more */
    bool is_broken;        /* the writer's: nothing can be sent any more */
    _Atomic bool has_gone; /* the device */
};

/* Answers. */

static uint32_t error_of(int r)
{
    switch (-r) {
    case 0:
        return 0;
    case EPERM:
    case EROFS:
        return EPERM;
    case EINVAL:
        return EINVAL;
    case ENOSPC:
        return ENOSPC;
    case EOPNOTSUPP:
        return EOPNOTSUPP;
    default:
        return EIO;
    }
}

static void chunk_head(uint8_t *head, const struct request *request, uint16_t type, uint32_t length)
{
    nbd_put32(head, NBD_CHUNK_MAGIC);
    nbd_put16(head + 4, NBD_DONE);
    nbd_put16(head + 6, type);
    nbd_put64(head + 8, request->cookie);
    nbd_put32(head + 16, length);
}

static int reply_structured(const struct nbd *nbd, const struct slot *slot)
{
    const struct request *request = &slot->request;
    uint8_t head[NBD_CHUNK_SIZE + 8];
    if (slot->move.result != 0) {
        chunk_head(head, request, NBD_CHUNK_ERROR, 6);
        nbd_put32(head + NBD_CHUNK_SIZE, error_of(slot->move.result));
        nbd_put16(head + NBD_CHUNK_SIZE + 4, 0);
        return nbd_send(nbd, head, NBD_CHUNK_SIZE + 6, NULL, 0, NULL);
    }
    chunk_head(head, request, NBD_CHUNK_DATA, 8 + request->length);
    nbd_put64(head + NBD_CHUNK_SIZE, request->offset);
    return nbd_send(nbd, head, sizeof(head), slot->data, request->length, NULL);
}

static int reply(const struct nbd *nbd, const struct slot *slot)
{
    const struct request *request = &slot->request;
    bool reads = request->command == NBD_READ;
    uint8_t head[NBD_REPLY_SIZE];
    if (reads && nbd->structured)
        return reply_structured(nbd, slot);
    nbd_put32(head, NBD_REPLY_MAGIC);
    nbd_put32(head + 4, error_of(slot->move.result));
    nbd_put64(head + 8, request->cookie);
    bool has_data = reads && slot->move.result == 0;
    return nbd_send(nbd, head, sizeof(head), has_data ? slot->data : NULL,
                    has_data ? request->length : 0, NULL);
}

static void slot_free(struct talk *talk, struct slot *slot)
{
    block_buffer_free(talk->nbd->device, slot->data, slot->size);
    pthread_mutex_lock(&talk->lock);
    talk->under_way--;
    talk->bytes -= slot->size;
    pthread_cond_signal(&talk->less);
    pthread_mutex_unlock(&talk->lock);
    free(slot);
}

/* What is broken, or has no device any more, wakes the reader: its socket is shut. */
static void answer(struct talk *talk, struct slot *slot)
{
    int result = slot->move.result;
    if (!talk->is_broken && reply(talk->nbd, slot) != 0)
        talk->is_broken = true;
    if (result == -ENODEV || result == -ENOMEDIUM)
        talk->has_gone = true;
    if (talk->is_broken || talk->has_gone)
        shutdown(talk->nbd->fd, talk->is_broken ? SHUT_RDWR : SHUT_RD);
    slot_free(talk, slot);
}

/* The next one that is done; NULL: there will be none. */
static struct slot *next_finished(struct talk *talk)
{
    pthread_mutex_lock(&talk->lock);
    while (!talk->finished && !(talk->ends && talk->under_way == 0))
        pthread_cond_wait(&talk->more, &talk->lock);
    struct slot *slot = talk->finished;
    if (slot)
        talk->finished = slot->next;
    if (!talk->finished)
        talk->finished_end = &talk->finished;
    pthread_mutex_unlock(&talk->lock);
    return slot;
}

static void *write_replies(void *data)
{
    struct talk *talk = data;
    for (struct slot *slot; (slot = next_finished(talk));)
        answer(talk, slot);
    return NULL;
}

/* Requests. */

/* 0: whole sectors within the device, and flags that we know. */
static int check(const struct nbd *nbd, struct slot *slot)
{
    const struct request *request = &slot->request;
    bool changes = request->command == NBD_WRITE || request->command == NBD_TRIM ||
                   request->command == NBD_WRITE_ZEROES;
    unsigned known = NBD_FUA | (request->command == NBD_WRITE_ZEROES ? NBD_NO_HOLE : 0u);
    if (request->flags & ~known)
        return -EINVAL;
    if (changes && nbd->read_only)
        return -EROFS;
    if (request->command == NBD_FLUSH)
        return 0;
    if (request->command != NBD_READ && !changes)
        return -EINVAL;
    int r = move_place(&slot->move, request->offset, request->length);
    return r == -ENOSPC && request->command != NBD_WRITE ? -EINVAL : r;
}

static void on_done(struct move *move)
{
    struct talk *talk = move->owner;
    struct slot *slot = (struct slot *)move;
    slot->next = NULL;
    pthread_mutex_lock(&talk->lock);
    *talk->finished_end = slot;
    talk->finished_end = &slot->next;
    pthread_cond_signal(&talk->more);
    pthread_mutex_unlock(&talk->lock); /* from now on the talk may be over */
}

static void prepare(struct slot *slot)
{
    static const enum block_operation operations[] = {
        [NBD_READ] = BLOCK_READ,    [NBD_WRITE] = BLOCK_WRITE,        [NBD_FLUSH] = BLOCK_FLUSH,
        [NBD_TRIM] = BLOCK_DISCARD, [NBD_WRITE_ZEROES] = BLOCK_WRITE,
    };
    struct move *move = &slot->move;
    move->operation = operations[slot->request.command];
    move->durable = slot->request.flags & NBD_FUA && move->operation != BLOCK_READ;
    move->repeats = slot->request.command == NBD_WRITE_ZEROES;
    move->data = slot->data;
    if (move->repeats)
        memset(slot->data, 0, slot->size);
}

static size_t buffer_size(const struct slot *slot)
{
    const struct request *request = &slot->request;
    if (request->command == NBD_WRITE || (request->command == NBD_READ && slot->move.result == 0))
        return request->length;
    if (request->command != NBD_WRITE_ZEROES || slot->move.result != 0)
        return 0;
    return request->length < MOVE_PIECE ? request->length : MOVE_PIECE;
}

/* Counts it as under way, when it fits in. */
static void admit(struct talk *talk, struct slot *slot)
{
    slot->size = buffer_size(slot);
    pthread_mutex_lock(&talk->lock);
    while (talk->under_way >= NBD_DOOR_DEPTH ||
           (talk->under_way > 0 && talk->bytes + slot->size > BYTES_MOST))
        pthread_cond_wait(&talk->less, &talk->lock);
    talk->under_way++;
    talk->bytes += slot->size;
    pthread_mutex_unlock(&talk->lock);
    if (slot->size > 0)
        slot->data = block_buffer_alloc(talk->nbd->device, slot->size);
}

static int begin(struct talk *talk, struct slot *slot, struct error *err)
{
    int r = 0;
    slot->move.device = talk->nbd->device;
    slot->move.owner = talk;
    slot->move.done = on_done;
    slot->move.result = check(talk->nbd, slot);
    admit(talk, slot);
    if (slot->request.command == NBD_WRITE)
        r = nbd_receive(talk->nbd, slot->data, slot->size, err);
    if (r != 0) {
        slot_free(talk, slot);
        return r;
    }
    if (slot->move.result == 0) {
        prepare(slot);
        move_begin(&slot->move);
    } else {
        on_done(&slot->move);
    }
    return 0;
}

/* 1: the client takes its leave. */
static int take_one(struct talk *talk, struct error *err)
{
    uint8_t raw[NBD_REQUEST_SIZE];
    int r = nbd_receive(talk->nbd, raw, sizeof(raw), err);
    if (r != 0)
        return r;
    if (nbd_get32(raw) != NBD_REQUEST_MAGIC)
        return error_set(err, -EPROTO, "what the client sent is no request");
    const struct request request = {
        .flags = nbd_get16(raw + 4),
        .command = nbd_get16(raw + 6),
        .cookie = nbd_get64(raw + 8),
        .offset = nbd_get64(raw + 16),
        .length = nbd_get32(raw + 24),
    };
    bool moves = request.command == NBD_READ || request.command == NBD_WRITE;
    if (request.command == NBD_DISCONNECT)
        return 1;
    if (moves && request.length > NBD_DOOR_REQUEST)
        return error_set(err, -EPROTO, "a request of %u bytes", request.length);
    struct slot *slot = xnew(struct slot);
    slot->request = request;
    return begin(talk, slot, err);
}

/* What is under way is answered. */
static void finish(struct talk *talk)
{
    pthread_mutex_lock(&talk->lock);
    talk->ends = true;
    pthread_cond_signal(&talk->more);
    pthread_mutex_unlock(&talk->lock);
    pthread_join(talk->writer, NULL);
}

int nbd_take_requests(struct nbd *nbd, struct error *err)
{
    struct talk talk = {
        .nbd = nbd,
        .lock = PTHREAD_MUTEX_INITIALIZER,
        .less = PTHREAD_COND_INITIALIZER,
        .more = PTHREAD_COND_INITIALIZER,
        .finished_end = &talk.finished,
    };
    int r = pthread_create(&talk.writer, NULL, write_replies, &talk);
    if (r != 0)
        return error_errno(err, r, "start the thread that answers an NBD client");
    while (r == 0)
        r = take_one(&talk, err);
    finish(&talk);
    if (talk.has_gone)
        return error_set(err, -ENODEV, "the device is gone");
    return r == 1 ? 0 : r;
}
