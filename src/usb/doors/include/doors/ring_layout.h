/*
 * What a ring door and a program share (libcloche-usb): the words on the socket, and the memory.
 *
 * The socket is SOCK_SEQPACKET. The program says ring_hello, the door answers ring_welcome and with
 * it the descriptor of the memory, which cannot shrink: struct ring_shared, and from
 * RING_DATA_OFFSET on data. From then on any message means: look at the rings. It is sent to
 * whoever says that they sleep, after what they are to see was written, and whoever sends it clears
 * that word. Waking goes by the socket since a message can be sent without ever waiting, which of
 * an eventfd that a hostile peer has too cannot be said. Numbers are of this machine's order.
 *
 * Each index is written by one side, counts up for ever, and is of the entry index % RING_ENTRIES.
 */
#ifndef DOORS_RING_LAYOUT_H
#define DOORS_RING_LAYOUT_H

#include <stdalign.h>
#include <stdatomic.h>
#include <stdint.h>

#define RING_MAGIC UINT32_C(0x676E6972)

enum {
    RING_VERSION = 1,
    RING_ENTRIES = 256,          /* requests that are under way or have not been looked at */
    RING_DATA_OFFSET = 16 << 10, /* bytes */
    RING_DATA_LEAST = 64 << 10,
    RING_DATA_MOST = 32 << 20,
    RING_PAGE = 4096, /* of which the data's size is a multiple */
};

struct ring_hello {
    uint32_t magic, version;
    uint64_t data_size; /* bytes that are wanted */
};

enum { RING_READ_ONLY = 1 << 0, RING_FLUSHES = 1 << 1, RING_DISCARDS = 1 << 2 };

struct ring_welcome {
    uint32_t magic, version;
    int32_t result; /* 0, or -errno: nothing more comes */
    uint32_t flags;
    uint32_t sector_size, best_size; /* bytes */
    uint64_t sectors, data_size;
};

enum ring_operation { RING_READ, RING_WRITE, RING_FLUSH, RING_TRIM };
enum { RING_DURABLE = 1 << 0 }; /* of RING_WRITE: flushed before it is done */

struct ring_submission {
    uint64_t cookie;
    uint64_t offset; /* bytes on the medium */
    uint64_t data;   /* bytes from the beginning of the data */
    uint32_t length; /* bytes */
    uint16_t operation, flags;
};

struct ring_completion {
    uint64_t cookie;
    int32_t result; /* 0 or -errno */
    uint32_t nothing;
};

struct ring_shared {
    alignas(64) _Atomic uint32_t submission_tail; /* the program's */
    _Atomic uint32_t completion_head;
    _Atomic uint32_t program_sleeps;              /* 1: it wants a message */
    alignas(64) _Atomic uint32_t submission_head; /* the door's */
    _Atomic uint32_t completion_tail;
    _Atomic uint32_t door_sleeps;
    alignas(64) struct ring_submission submissions[RING_ENTRIES];
    struct ring_completion completions[RING_ENTRIES];
};

_Static_assert(sizeof(struct ring_shared) <= RING_DATA_OFFSET, "the data begins behind it");
_Static_assert(sizeof(struct ring_submission) == 32 && sizeof(struct ring_completion) == 16,
               "what is shared has no gaps");

#endif
