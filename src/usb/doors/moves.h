/*
 * What a client of a block door asks for, carried out without a thread that waits: in pieces that
 * the device likes, the next of which is submitted when one is done. Door threads begin moves; they
 * end on the device's thread, or on the caller's where nothing has to reach the device.
 */
#ifndef DOORS_MOVES_H
#define DOORS_MOVES_H

#include <block/device.h>

enum { MOVE_PIECE = 1 << 20 }; /* bytes */

struct move {
    struct block_request request; /* first */

    /* Set by whoever begins it. */
    struct block_device *device;
    enum block_operation operation;
    bool durable;    /* what was written is flushed before it is done */
    bool repeats;    /* every piece is written from the beginning of data, MOVE_PIECE bytes */
    uint64_t sector; /* within the device, as the ones after it: move_place() */
    uint64_t left;   /* sectors */
    uint8_t *data;   /* borrowed until done */
    void (*done)(struct move *move); /* must not wait */
    void *owner;

    int result; /* as of struct block_request; of the first piece that failed */
};

/* Bytes [offset, offset + length) of the device: -EINVAL: not whole sectors, or none; -ENOSPC:
 * beyond its end. Else 0 with sector and left. */
int move_place(struct move *move, uint64_t offset, uint64_t length);

/* done is called once, perhaps before this returns. */
void move_begin(struct move *move);

#endif
