/*
 * Blocks of a device in memory, for many readers.
 *
 * A reader that finds its block takes no lock: it walks the chain of a bucket and pins the entry by
 * one compare-and-exchange on a word that holds the block's number, its pins and its state
 * together. So an entry that was given to another block meanwhile cannot be pinned by mistake, and
 * a walk that was led astray finds nothing at worst; then, and to bring blocks in, the cache's lock
 * is taken. Entries are never freed while the cache lives.
 *
 * A block is CACHE_BLOCK bytes, the last one of a device may be shorter. Who has it pinned may read
 * it. The cache does not order readers and writers of a block's bytes: whoever changes them sees to
 * that.
 */
#ifndef BLOCK_CACHE_H
#define BLOCK_CACHE_H

#include <block/device.h>

enum { CACHE_BLOCK = 4096 };
#define CACHE_BLOCKS_MOST ((UINT64_C(1) << 44) - 2) /* of a device: their numbers have 44 bits */

struct cache;

/* A block in memory. */
struct cached {
    _Atomic uint64_t word; /* cache.c */
    _Atomic(struct cached *) next;
    uint64_t number; /* fixed while it is pinned: bytes number * CACHE_BLOCK of the device */
    uint8_t *data;
    void *owner; /* of whoever keeps it pinned to change it; NULL in blocks brought in */
};

struct cache_facts {
    uint64_t hits, misses; /* blocks asked for */
    uint64_t bytes;        /* memory of blocks */
    uint64_t bytes_most;   /* more than this are never taken */
};

/* size: bytes of blocks that are kept; where more are pinned at once, up to four times as many. */
struct cache *cache_create(struct block_device *device, uint64_t size);
void cache_destroy(struct cache *cache); /* nothing is pinned; NULL is fine */

/* Pins a block, reading it when it is not there. -ENOMEM: as many are pinned as may be. */
int cache_get(struct cache *cache, uint64_t number, struct cached **ret_cached, struct error *err);
void cache_pin(struct cached *cached); /* once more */
void cache_put(struct cached *cached);

/* Brings blocks in that will be asked for: starts to, and does not wait. */
void cache_expect(struct cache *cache, uint64_t number, uint64_t count);

/* Bytes of the device were written past the cache: blocks that are here become as the device is. */
void cache_patch(struct cache *cache, uint64_t offset, const void *data, size_t size);

/* Bytes of the device are not known any more: blocks of them that nobody has pinned are forgotten.
 */
void cache_forget(struct cache *cache, uint64_t offset, uint64_t size);

/* Forgets every block that nobody has pinned. */
void cache_drop(struct cache *cache);

void cache_facts(struct cache *cache, struct cache_facts *ret_facts);

#endif
