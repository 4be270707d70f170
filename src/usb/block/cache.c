/*
 * The word of an entry, from the highest bit on: the block's number plus one (44 bits: 64 PiB),
 * pins (18 bits), READ (asked for since the clock's hand went by) and READY (the block's bytes are
 * there). 0: unused.
 */
#include <block/cache.h>

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include <base/alloc.h>
#include <block/waiting.h>

enum {
    READY = 1 << 0,
    READ = 1 << 1,
    PIN = 1 << 2,
    PINS = ((1 << 18) - 1) << 2,
    NUMBER_SHIFT = 20,
    GROW = 4, /* times the size asked for, at most */
    STEPS_WITHOUT_LOCK = 32,
    EXPECTED_AT_ONCE = 32, /* reads under way that nobody waits for */
};

struct cache {
    struct block_device *device;
    uint32_t sectors_of_block;
    uint64_t blocks; /* of the device, the last one may be shorter */
    uint64_t entries_wanted, entries_most;

    _Atomic(struct cached *) *buckets;
    size_t buckets_mask;

    pthread_mutex_t lock;
    pthread_cond_t brought;  /* some block became ready, or could not be read */
    struct cached **entries; /* owned */
    size_t count;
    size_t hand;
    unsigned expected; /* reads under way */
    uint64_t misses;
    _Atomic uint64_t hits;
};

struct cache *cache_create(struct block_device *device, uint64_t size)
{
    struct cache *cache = xnew(struct cache);
    uint64_t wanted = size / CACHE_BLOCK < 16 ? 16 : size / CACHE_BLOCK;
    size_t buckets = 64;
    while (buckets < wanted)
        buckets *= 2;
    cache->device = device;
    cache->sectors_of_block = CACHE_BLOCK / device->sector_size;
    cache->blocks = (device->sectors + cache->sectors_of_block - 1) / cache->sectors_of_block;
    cache->entries_wanted = wanted;
    cache->entries_most = wanted * GROW;
    cache->buckets = xcalloc(buckets, sizeof(*cache->buckets));
    cache->buckets_mask = buckets - 1;
    cache->entries = xnew_array(struct cached *, cache->entries_most);
    pthread_mutex_init(&cache->lock, NULL);
    pthread_cond_init(&cache->brought, NULL);
    return cache;
}

void cache_destroy(struct cache *cache)
{
    if (!cache)
        return;
    pthread_mutex_lock(&cache->lock);
    while (cache->expected > 0)
        pthread_cond_wait(&cache->brought, &cache->lock);
    pthread_mutex_unlock(&cache->lock);
    for (size_t i = 0; i < cache->count; i++) {
        free(cache->entries[i]->data);
        free(cache->entries[i]);
    }
    pthread_mutex_destroy(&cache->lock);
    pthread_cond_destroy(&cache->brought);
    free(cache->entries);
    free(cache->buckets);
    free(cache);
}

static _Atomic(struct cached *) *bucket_of(const struct cache *cache, uint64_t number)
{
    uint64_t mixed = number * 0x9E3779B97F4A7C15;
    return &cache->buckets[mixed >> 32 & cache->buckets_mask];
}

static uint64_t number_of(uint64_t word)
{
    return (word >> NUMBER_SHIFT) - 1;
}

/* Pins the entry if it is this block's, whether it is ready or not. Returns the word that it had
 * then, 0 when it is another one's. */
static uint64_t pin_if(struct cached *cached, uint64_t number)
{
    uint64_t word = atomic_load_explicit(&cached->word, memory_order_acquire);
    do
        if (word == 0 || number_of(word) != number)
            return 0;
    while (!atomic_compare_exchange_weak_explicit(&cached->word, &word, (word | READ) + PIN,
                                                  memory_order_acquire, memory_order_acquire));
    return word;
}

void cache_pin(struct cached *cached)
{
    atomic_fetch_add_explicit(&cached->word, PIN, memory_order_relaxed);
}

void cache_put(struct cached *cached)
{
    atomic_fetch_sub_explicit(&cached->word, PIN, memory_order_release);
}

/* The way of a reader: no lock, nothing waits. */
static struct cached *find_without_lock(struct cache *cache, uint64_t number)
{
    struct cached *at = atomic_load_explicit(bucket_of(cache, number), memory_order_acquire);
    for (int step = 0; at && step < STEPS_WITHOUT_LOCK; step++) {
        uint64_t word = pin_if(at, number);
        if (word & READY)
            return at;
        if (word != 0) { /* on its way: the lock's holders wait for it */
            cache_put(at);
            return NULL;
        }
        at = atomic_load_explicit(&at->next, memory_order_acquire);
    }
    return NULL;
}

/* From here on the lock is held. */

static struct cached *find(struct cache *cache, uint64_t number)
{
    struct cached *at = atomic_load_explicit(bucket_of(cache, number), memory_order_relaxed);
    while (at && pin_if(at, number) == 0)
        at = atomic_load_explicit(&at->next, memory_order_relaxed);
    return at;
}

static void unlink_entry(struct cache *cache, struct cached *cached)
{
    _Atomic(struct cached *) *at = bucket_of(cache, cached->number);
    struct cached *here;
    while ((here = atomic_load_explicit(at, memory_order_relaxed)) && here != cached)
        at = &here->next;
    if (here)
        atomic_store_explicit(at, atomic_load_explicit(&here->next, memory_order_relaxed),
                              memory_order_release);
}

/* Takes an entry from a block that nobody has pinned: its word is 0 then. */
static bool take_unpinned(struct cache *cache, struct cached *cached)
{
    uint64_t word = atomic_load_explicit(&cached->word, memory_order_relaxed);
    if (word & PINS || word == 0)
        return word == 0;
    if (!atomic_compare_exchange_strong_explicit(&cached->word, &word, 0, memory_order_acquire,
                                                 memory_order_relaxed))
        return false;
    unlink_entry(cache, cached);
    return true;
}

/* The clock: whoever was not asked for since the hand came by last gives its place. */
static struct cached *evict(struct cache *cache)
{
    for (size_t steps = 2 * cache->count; steps > 0; steps--) {
        struct cached *cached = cache->entries[cache->hand];
        cache->hand = (cache->hand + 1) % cache->count;
        uint64_t word = atomic_load_explicit(&cached->word, memory_order_relaxed);
        if (word & READ && !(word & PINS))
            atomic_fetch_and_explicit(&cached->word, ~(uint64_t)READ, memory_order_relaxed);
        else if (take_unpinned(cache, cached))
            return cached;
    }
    return NULL;
}

static struct cached *grow(struct cache *cache)
{
    struct cached *cached = xnew(struct cached);
    /* Devices have few pieces of memory of their own: these are for what is moved all the time. */
    cached->data = aligned_alloc(CACHE_BLOCK, CACHE_BLOCK);
    if (!cached->data)
        abort();
    cache->entries[cache->count++] = cached;
    return cached;
}

/* An entry of this block with one pin, which is not ready yet. NULL: all are pinned. */
static struct cached *add(struct cache *cache, uint64_t number)
{
    struct cached *cached = cache->count < cache->entries_wanted ? grow(cache) : evict(cache);
    if (!cached && cache->count < cache->entries_most)
        cached = grow(cache);
    if (!cached)
        return NULL;
    cached->number = number;
    cached->owner = NULL;
    _Atomic(struct cached *) *bucket = bucket_of(cache, number);
    atomic_store_explicit(&cached->next, atomic_load_explicit(bucket, memory_order_relaxed),
                          memory_order_release);
    atomic_store_explicit(&cached->word, (number + 1) << NUMBER_SHIFT | READ | PIN,
                          memory_order_release);
    atomic_store_explicit(bucket, cached, memory_order_release);
    cache->misses++;
    return cached;
}

/* It could not be read: whoever waits for it finds another number. */
static void give_up(struct cache *cache, struct cached *cached)
{
    unlink_entry(cache, cached);
    atomic_fetch_and_explicit(&cached->word, PINS, memory_order_release);
}

/* Until here. */

static uint32_t sectors_in(const struct cache *cache, uint64_t number)
{
    uint64_t left = cache->device->sectors - number * cache->sectors_of_block;
    return left < cache->sectors_of_block ? (uint32_t)left : cache->sectors_of_block;
}

/* Reads a block that was added, with the lock not held. Its pin stays when it is ready. */
static int bring(struct cache *cache, struct cached *cached, struct error *err)
{
    uint32_t sectors = sectors_in(cache, cached->number);
    int r = block_read(cache->device, cached->number * cache->sectors_of_block, sectors,
                       cached->data, err);
    pthread_mutex_lock(&cache->lock);
    if (r == 0) {
        size_t size = (size_t)sectors * cache->device->sector_size;
        memset(cached->data + size, 0, CACHE_BLOCK - size);
        atomic_fetch_or_explicit(&cached->word, READY, memory_order_release);
    } else {
        give_up(cache, cached);
        cache_put(cached);
    }
    pthread_cond_broadcast(&cache->brought);
    pthread_mutex_unlock(&cache->lock);
    return r;
}

/* Somebody else reads it. True when it is ready; its pin is gone when not. */
static bool wait_for(struct cache *cache, struct cached *cached, uint64_t number)
{
    for (;;) {
        uint64_t word = atomic_load_explicit(&cached->word, memory_order_acquire);
        if (number_of(word) != number)
            break;
        if (word & READY)
            return true;
        block_will_wait();
        pthread_cond_wait(&cache->brought, &cache->lock);
    }
    cache_put(cached);
    return false;
}

int cache_get(struct cache *cache, uint64_t number, struct cached **ret_cached, struct error *err)
{
    if (number >= cache->blocks)
        return error_set(err, -EINVAL, "block %llu is beyond the end", (unsigned long long)number);
    struct cached *cached = find_without_lock(cache, number);
    if (cached) {
        atomic_fetch_add_explicit(&cache->hits, 1, memory_order_relaxed);
        *ret_cached = cached;
        return 0;
    }
    pthread_mutex_lock(&cache->lock);
    while ((cached = find(cache, number)) != NULL) {
        if (wait_for(cache, cached, number)) {
            pthread_mutex_unlock(&cache->lock);
            *ret_cached = cached;
            return 0;
        }
    }
    cached = add(cache, number);
    pthread_mutex_unlock(&cache->lock);
    if (!cached)
        return error_set(err, -ENOMEM, "all %llu blocks of the cache are in use",
                         (unsigned long long)cache->entries_most);
    int r = bring(cache, cached, err);
    if (r == 0)
        *ret_cached = cached;
    return r;
}

/* A run of blocks that is read ahead, in one request. */
struct expected {
    struct block_request request;
    struct cache *cache;
    uint8_t *data;
    size_t size;
    size_t count;
    struct cached *blocks[]; /* each with a pin of ours */
};

static void expected_is_here(struct block_request *request)
{
    struct expected *run = request->owner;
    struct cache *cache = run->cache;
    pthread_mutex_lock(&cache->lock);
    for (size_t i = 0; i < run->count; i++) {
        if (request->result == 0) {
            memcpy(run->blocks[i]->data, run->data + i * CACHE_BLOCK, CACHE_BLOCK);
            atomic_fetch_or_explicit(&run->blocks[i]->word, READY, memory_order_release);
        } else {
            give_up(cache, run->blocks[i]);
        }
        cache_put(run->blocks[i]);
    }
    pthread_cond_broadcast(&cache->brought);
    pthread_mutex_unlock(&cache->lock);
    block_buffer_free(cache->device, run->data, run->size);
    free(run);
    /* With the last one the cache may go. */
    pthread_mutex_lock(&cache->lock);
    cache->expected--;
    pthread_cond_broadcast(&cache->brought);
    pthread_mutex_unlock(&cache->lock);
}

/* Adds as many blocks from number on as are not there, with the lock held. */
static size_t add_run(struct cache *cache, uint64_t number, uint64_t count, struct cached **blocks)
{
    size_t added = 0;
    for (; added < count; added++) {
        struct cached *cached = find(cache, number + added);
        if (cached) {
            cache_put(cached);
            break;
        }
        cached = add(cache, number + added);
        if (!cached)
            break;
        blocks[added] = cached;
    }
    return added;
}

void cache_expect(struct cache *cache, uint64_t number, uint64_t count)
{
    /* The last block may be shorter than the others: it is left to who asks for it. */
    uint64_t whole = cache->device->sectors / cache->sectors_of_block;
    uint64_t most = cache->device->best_size / CACHE_BLOCK;
    most = most < 1 ? 1 : most > cache->entries_wanted / 4 ? cache->entries_wanted / 4 : most;
    for (uint64_t end = number + count; number < end && number < whole;) {
        uint64_t length = end - number < most ? end - number : most;
        length = whole - number < length ? whole - number : length;
        struct expected *run = xcalloc(1, sizeof(*run) + length * sizeof(run->blocks[0]));
        pthread_mutex_lock(&cache->lock);
        run->count =
            cache->expected < EXPECTED_AT_ONCE ? add_run(cache, number, length, run->blocks) : 0;
        cache->expected += run->count > 0;
        pthread_mutex_unlock(&cache->lock);
        number += run->count > 0 ? run->count : 1;
        if (run->count == 0) {
            free(run);
            continue;
        }
        run->cache = cache;
        run->size = run->count * CACHE_BLOCK;
        run->data = block_buffer_alloc(cache->device, run->size);
        run->request = (struct block_request){
            .operation = BLOCK_READ,
            .sector = run->blocks[0]->number * cache->sectors_of_block,
            .count = (uint32_t)run->count * cache->sectors_of_block,
            .data = run->data,
            .done = expected_is_here,
            .owner = run,
        };
        block_submit(cache->device, &run->request);
    }
}

void cache_patch(struct cache *cache, uint64_t offset, const void *data, size_t size)
{
    const uint8_t *from = data;
    pthread_mutex_lock(&cache->lock);
    for (size_t part; size > 0; offset += part, from += part, size -= part) {
        size_t at = offset % CACHE_BLOCK;
        part = CACHE_BLOCK - at < size ? CACHE_BLOCK - at : size;
        struct cached *cached = find(cache, offset / CACHE_BLOCK);
        if (!cached || !wait_for(cache, cached, offset / CACHE_BLOCK))
            continue;
        memcpy(cached->data + at, from, part);
        cache_put(cached);
    }
    pthread_mutex_unlock(&cache->lock);
}

void cache_forget(struct cache *cache, uint64_t offset, uint64_t size)
{
    uint64_t first = offset / CACHE_BLOCK, end = (offset + size + CACHE_BLOCK - 1) / CACHE_BLOCK;
    pthread_mutex_lock(&cache->lock);
    for (size_t i = 0; i < cache->count; i++) {
        uint64_t word = atomic_load_explicit(&cache->entries[i]->word, memory_order_relaxed);
        if (word != 0 && number_of(word) >= first && number_of(word) < end)
            take_unpinned(cache, cache->entries[i]);
    }
    pthread_mutex_unlock(&cache->lock);
}

void cache_drop(struct cache *cache)
{
    pthread_mutex_lock(&cache->lock);
    for (size_t i = 0; i < cache->count; i++)
        take_unpinned(cache, cache->entries[i]);
    pthread_mutex_unlock(&cache->lock);
}

void cache_facts(struct cache *cache, struct cache_facts *ret_facts)
{
    pthread_mutex_lock(&cache->lock);
    *ret_facts = (struct cache_facts){
        .hits = atomic_load_explicit(&cache->hits, memory_order_relaxed),
        .misses = cache->misses,
        .bytes = cache->count * CACHE_BLOCK,
        .bytes_most = cache->entries_most * CACHE_BLOCK,
    };
    pthread_mutex_unlock(&cache->lock);
}
