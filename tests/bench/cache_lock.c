/*
 * usage: cache-lock [READS] [ROUNDS]
 *
 * Readers of blocks that are in memory: our cache, whose readers take no lock, beside a table of
 * the same buckets under one mutex, and under one read-write lock whose readers pin atomically.
 * Each reader pins a block by chance and lets it go, READS times in all; all three in turn, ROUNDS
 * times, of which the best counts. Prints a table of Markdown.
 */
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include <base/alloc.h>
#include <block/cache.h>

#include "../usb/recorder.h"

enum { BUCKETS = 8192, READERS_MOST = 8, BLOCKS_MOST = 4096, SECTORS = BLOCKS_MOST * 8 };

struct entry {
    struct entry *next;
    uint64_t number;
    _Atomic unsigned pins;
};

/* The ways: each pins a block, and lets it go. */

static struct cache *cache;
static struct entry *buckets[BUCKETS];
static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static pthread_rwlock_t rwlock = PTHREAD_RWLOCK_INITIALIZER;

static struct entry *find(uint64_t number)
{
    struct entry *entry = buckets[number * UINT64_C(0x9E3779B97F4A7C15) >> 51];
    while (entry && entry->number != number)
        entry = entry->next;
    return entry;
}

static bool by_cache(uint64_t number)
{
    struct cached *cached;
    if (cache_get(cache, number, &cached, NULL) != 0)
        return false;
    bool right = cached->number == number;
    cache_put(cached);
    return right;
}

static bool by_mutex(uint64_t number)
{
    pthread_mutex_lock(&mutex);
    struct entry *entry = find(number);
    if (entry)
        entry->pins++;
    pthread_mutex_unlock(&mutex);
    if (!entry)
        return false;
    pthread_mutex_lock(&mutex);
    entry->pins--;
    pthread_mutex_unlock(&mutex);
    return true;
}

static bool by_rwlock(uint64_t number)
{
    pthread_rwlock_rdlock(&rwlock);
    struct entry *entry = find(number);
    if (entry)
        atomic_fetch_add(&entry->pins, 1);
    pthread_rwlock_unlock(&rwlock);
    if (!entry)
        return false;
    atomic_fetch_sub(&entry->pins, 1);
    return true;
}

static bool (*const ways[])(uint64_t number) = {by_cache, by_mutex, by_rwlock};
enum { WAYS = sizeof(ways) / sizeof(ways[0]) };

static void fill(void)
{
    for (uint64_t number = 0; number < BLOCKS_MOST; number++) {
        struct entry *entry = xnew(struct entry);
        struct entry **bucket = &buckets[number * UINT64_C(0x9E3779B97F4A7C15) >> 51];
        entry->number = number;
        entry->next = *bucket;
        *bucket = entry;
        if (!by_cache(number))
            abort();
    }
}

struct reader {
    pthread_t thread;
    unsigned way, blocks;
    uint64_t reads, seed;
    bool failed;
};

static void *read_all(void *data)
{
    struct reader *reader = data;
    uint64_t chance = reader->seed;
    for (uint64_t i = 0; i < reader->reads; i++) {
        chance = chance * UINT64_C(6364136223846793005) + 1442695040888963407u;
        reader->failed |= !ways[reader->way]((chance >> 33) % reader->blocks);
    }
    return NULL;
}

/* Of the whole process: what others on the machine do is not in it. */
static double processor_time(void)
{
    struct timespec now;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now);
    return (double)now.tv_sec * 1e9 + (double)now.tv_nsec;
}

/* Nanoseconds of processor time that a read takes. */
static double measure(unsigned way, unsigned readers, unsigned blocks, uint64_t reads)
{
    struct reader all[READERS_MOST] = {0};
    double begun = processor_time();
    for (unsigned i = 0; i < readers; i++) {
        all[i] = (struct reader){.way = way, .blocks = blocks, .reads = reads, .seed = i + 1};
        if (pthread_create(&all[i].thread, NULL, read_all, &all[i]) != 0)
            abort();
    }
    for (unsigned i = 0; i < readers; i++) {
        pthread_join(all[i].thread, NULL);
        if (all[i].failed)
            abort();
    }
    return (processor_time() - begun) / (double)(reads * readers);
}

static void print_row(unsigned readers, unsigned blocks, uint64_t reads, unsigned rounds)
{
    double best[WAYS] = {0};
    for (unsigned round = 0; round < rounds; round++)
        for (unsigned way = 0; way < WAYS; way++) {
            double took = measure(way, readers, blocks, reads / readers);
            if (round == 0 || took < best[way])
                best[way] = took;
        }
    printf("| %u | %u | %.0f | %.0f | %.0f |\n", readers, blocks, best[0], best[1], best[2]);
    fflush(stdout);
}

int main(int argc, char **argv)
{
    uint64_t reads = argc > 1 ? strtoull(argv[1], NULL, 10) : 1000000;
    unsigned rounds = argc > 2 ? (unsigned)strtoul(argv[2], NULL, 10) : 5;
    struct recorder *recorder = recorder_create(512, SECTORS);
    cache = cache_create(recorder_device(recorder), (uint64_t)BLOCKS_MOST * CACHE_BLOCK * 2);
    fill();
    printf("| readers | blocks | cache | mutex | rwlock |\n|---|---|---|---|---|\n");
    for (unsigned readers = 1; readers <= READERS_MOST; readers *= 2)
        for (unsigned blocks = 64; blocks <= BLOCKS_MOST; blocks *= 64)
            print_row(readers, blocks, reads, rounds);
    cache_destroy(cache);
    recorder_destroy(recorder);
    for (unsigned i = 0; i < BUCKETS; i++)
        for (struct entry *next, *entry = buckets[i]; entry; entry = next) {
            next = entry->next;
            free(entry);
        }
    return 0;
}
