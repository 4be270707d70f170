#include "moves.h"

#include <errno.h>

int move_place(struct move *move, uint64_t offset, uint64_t length)
{
    uint32_t sector_size = move->device->sector_size;
    uint64_t size = move->device->sectors * sector_size;
    if (offset > size || length > size - offset)
        return -ENOSPC;
    if (length == 0 || offset % sector_size || length % sector_size)
        return -EINVAL;
    move->sector = offset / sector_size;
    move->left = length / sector_size;
    return 0;
}

static uint32_t piece(const struct move *move)
{
    uint32_t most = MOVE_PIECE / move->device->sector_size;
    if (move->operation == BLOCK_DISCARD)
        most = UINT32_MAX;
    return move->left < most ? (uint32_t)move->left : most;
}

static void submit(struct move *move);

static void finish(struct move *move, int result)
{
    move->result = result;
    move->done(move);
}

static void flush_done(struct block_request *request)
{
    finish((struct move *)request, request->result);
}

static void flush(struct move *move)
{
    move->request = (struct block_request){.operation = BLOCK_FLUSH, .done = flush_done};
    block_submit(move->device, &move->request);
}

static void piece_done(struct block_request *request)
{
    struct move *move = (struct move *)request;
    uint32_t count = request->count;
    if (request->result != 0) {
        finish(move, request->result);
        return;
    }
    move->sector += count;
    move->left -= count;
    if (move->data && !move->repeats)
        move->data += (size_t)count * move->device->sector_size;
    if (move->left > 0)
        submit(move);
    else if (move->durable)
        flush(move);
    else
        finish(move, 0);
}

static void submit(struct move *move)
{
    move->request = (struct block_request){
        .operation = move->operation,
        .sector = move->sector,
        .count = piece(move),
        .data = move->data,
        .done = piece_done,
    };
    block_submit(move->device, &move->request);
}

void move_begin(struct move *move)
{
    if (move->operation == BLOCK_FLUSH)
        flush(move);
    else
        submit(move);
}
