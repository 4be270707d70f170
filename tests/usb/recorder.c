#include "recorder.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include <base/alloc.h>

struct entry {
    bool flush;
    uint64_t sector;
    uint32_t count;
    uint8_t *data;
};

struct recorder {
    struct block_device device; /* first */
    pthread_mutex_t lock;
    uint8_t *disk;
    bool *spoiled;              /* a sector each; NULL: none */
    uint8_t *varying;           /* what is turned of each byte, now and then; NULL: nothing */
    uint8_t *readings, pattern; /* of each sector */
    uint8_t *before;            /* the disk as the log begins; NULL: nothing is kept */
    struct entry *entries;
    size_t count, room;
    int until_failure, failure;
    int discard_failure;
    struct recorder_counts counts;
    unsigned buffers_most;
    struct {
        uint8_t *data;
        size_t size;
    } buffers[RECORDER_BUFFERS];
};

enum { LOST = 0xD5 /* each byte of what was discarded */ };

static void keep(struct recorder *recorder, const struct block_request *request)
{
    size_t size = (size_t)request->count * recorder->device.sector_size;
    if (!recorder->before)
        return;
    if (recorder->count == recorder->room) {
        recorder->room = recorder->room ? recorder->room * 2 : 64;
        recorder->entries = xrealloc(recorder->entries, recorder->room, sizeof(struct entry));
    }
    bool flush = request->operation == BLOCK_FLUSH;
    recorder->entries[recorder->count++] = (struct entry){
        .flush = flush,
        .sector = request->at,
        .count = request->count,
        .data = flush ? NULL : xmemdup(request->data, size),
    };
}

static bool is_spoiled(const struct recorder *recorder, const struct block_request *request)
{
    for (uint64_t i = 0; recorder->spoiled && i < request->count; i++)
        if (recorder->spoiled[request->at + i])
            return true;
    return false;
}

/* All of the data is in one of its own buffers. */
static bool is_lent(const struct recorder *recorder, const struct block_request *request)
{
    size_t size = (size_t)request->count * recorder->device.sector_size;
    uintptr_t at = (uintptr_t)request->data;
    for (size_t i = 0; i < RECORDER_BUFFERS; i++) {
        uintptr_t from = (uintptr_t)recorder->buffers[i].data;
        if (from && at >= from && at + size <= from + recorder->buffers[i].size)
            return true;
    }
    return false;
}

/* What is there afterwards is of no use to anybody: as if that had been written. */
static void discard(struct recorder *recorder, const struct block_request *request)
{
    size_t size = (size_t)request->count * recorder->device.sector_size;
    struct block_request lost = *request;
    uint8_t *at = recorder->disk + request->at * recorder->device.sector_size;
    memset(at, LOST, size);
    lost.data = at;
    keep(recorder, &lost);
    recorder->counts.discards++;
    recorder->counts.sectors_discarded += request->count;
}

static void vary(struct recorder *recorder, const struct block_request *request)
{
    uint32_t size = recorder->device.sector_size;
    for (uint64_t i = 0; recorder->varying && i < request->count; i++) {
        const uint8_t *mask = recorder->varying + (request->at + i) * size;
        if (recorder->pattern >> recorder->readings[request->at + i]++ % 8 & 1)
            for (uint32_t j = 0; j < size; j++)
                ((uint8_t *)request->data)[i * size + j] ^= mask[j];
    }
}

static int carry_out(struct recorder *recorder, const struct block_request *request)
{
    size_t size = (size_t)request->count * recorder->device.sector_size;
    uint8_t *at = recorder->disk + request->at * recorder->device.sector_size;
    if (recorder->until_failure == 0)
        return recorder->failure;
    if (recorder->until_failure > 0)
        recorder->until_failure--;
    if (request->operation <= BLOCK_WRITE && is_lent(recorder, request))
        recorder->counts.sectors_lent += request->count;
    if (request->operation == BLOCK_DISCARD && recorder->discard_failure)
        return recorder->discard_failure;
    switch (request->operation) {
    case BLOCK_READ:
        if (is_spoiled(recorder, request))
            return -EIO;
        memcpy(request->data, at, size);
        vary(recorder, request);
        recorder->counts.reads++;
        recorder->counts.sectors_read += request->count;
        return 0;
    case BLOCK_WRITE:
        keep(recorder, request);
        memcpy(at, request->data, size);
        if (recorder->spoiled)
            memset(recorder->spoiled + request->at, 0, request->count * sizeof(bool));
        recorder->counts.writes++;
        recorder->counts.sectors_written += request->count;
        return 0;
    case BLOCK_FLUSH:
        keep(recorder, request);
        recorder->counts.flushes++;
        return 0;
    case BLOCK_DISCARD:
        discard(recorder, request);
        return 0;
    }
    return -EOPNOTSUPP;
}

static void submit(struct block_device *device, struct block_request *request)
{
    struct recorder *recorder = (struct recorder *)device;
    pthread_mutex_lock(&recorder->lock);
    request->result = carry_out(recorder, request);
    pthread_mutex_unlock(&recorder->lock);
    request->done(request);
}

static void forget_log(struct recorder *recorder)
{
    for (size_t i = 0; i < recorder->count; i++)
        free(recorder->entries[i].data);
    recorder->count = 0;
    free(steal_ptr(recorder->before));
}

static void destroy(struct block_device *device)
{
    struct recorder *recorder = (struct recorder *)device;
    forget_log(recorder);
    free(recorder->entries);
    free(recorder->spoiled);
    free(recorder->varying);
    free(recorder->readings);
    free(recorder->disk);
    pthread_mutex_destroy(&recorder->lock);
    free(recorder);
}

static void *buffer_alloc(struct block_device *device, size_t size)
{
    struct recorder *recorder = (struct recorder *)device;
    uint8_t *data = NULL;
    pthread_mutex_lock(&recorder->lock);
    for (size_t i = 0; !data && i < recorder->buffers_most; i++) {
        if (recorder->buffers[i].data)
            continue;
        data = recorder->buffers[i].data = xmalloc(size);
        recorder->buffers[i].size = size;
        recorder->counts.lent++;
    }
    pthread_mutex_unlock(&recorder->lock);
    return data;
}

static bool buffer_free(struct block_device *device, void *buffer, size_t size)
{
    struct recorder *recorder = (struct recorder *)device;
    bool found = false;
    pthread_mutex_lock(&recorder->lock);
    for (size_t i = 0; !found && i < RECORDER_BUFFERS; i++) {
        found = recorder->buffers[i].data == buffer && recorder->buffers[i].size == size;
        if (found)
            free(steal_ptr(recorder->buffers[i].data));
    }
    recorder->counts.lent -= found;
    pthread_mutex_unlock(&recorder->lock);
    return found;
}

static const struct block_device_ops recorder_ops = {
    .submit = submit, .buffer_alloc = buffer_alloc, .buffer_free = buffer_free, .destroy = destroy};

struct recorder *recorder_create(uint32_t sector_size, uint64_t sectors)
{
    struct recorder *recorder = xnew(struct recorder);
    recorder->device = (struct block_device){
        .ops = &recorder_ops,
        .whole = &recorder->device,
        .sector_size = sector_size,
        .sectors = sectors,
        .best_size = 64 << 10,
        .flushes = true,
        .discards = true,
    };
    recorder->disk = xcalloc(sectors, sector_size);
    recorder->until_failure = -1;
    pthread_mutex_init(&recorder->lock, NULL);
    return recorder;
}

void recorder_lend(struct recorder *recorder, unsigned buffers)
{
    pthread_mutex_lock(&recorder->lock);
    recorder->buffers_most = buffers < RECORDER_BUFFERS ? buffers : RECORDER_BUFFERS;
    pthread_mutex_unlock(&recorder->lock);
}

struct block_device *recorder_device(struct recorder *recorder)
{
    return &recorder->device;
}

void recorder_destroy(struct recorder *recorder)
{
    destroy(&recorder->device);
}

uint8_t *recorder_disk(struct recorder *recorder)
{
    return recorder->disk;
}

uint64_t recorder_size(const struct recorder *recorder)
{
    return recorder->device.sectors * recorder->device.sector_size;
}

void recorder_start(struct recorder *recorder)
{
    forget_log(recorder);
    recorder->before = xmemdup(recorder->disk, recorder_size(recorder));
}

size_t recorder_moments(const struct recorder *recorder)
{
    return recorder->count;
}

static unsigned next_chance(unsigned *seed)
{
    *seed = *seed * 1103515245 + 12345;
    return *seed >> 16;
}

static void write_whole(const struct recorder *recorder, const struct entry *entry, uint8_t *disk)
{
    uint32_t size = recorder->device.sector_size;
    memcpy(disk + entry->sector * size, entry->data, (size_t)entry->count * size);
}

/* Each sector of the write for itself: there, not there, or its first or last bytes are. */
static void write_torn(const struct recorder *recorder, const struct entry *entry, unsigned *seed,
                       uint8_t *disk)
{
    uint32_t size = recorder->device.sector_size;
    for (uint32_t i = 0; i < entry->count; i++) {
        uint8_t *to = disk + (entry->sector + i) * size;
        const uint8_t *from = entry->data + (size_t)i * size;
        size_t cut = next_chance(seed) % size;
        switch (next_chance(seed) % 4) {
        case 0:
            memcpy(to, from, size);
            break;
        case 1:
            memcpy(to, from, cut);
            break;
        case 2:
            memcpy(to + cut, from + cut, size - cut);
            break;
        default:
            break;
        }
    }
}

void recorder_cut(const struct recorder *recorder, size_t moment, enum recorder_loss loss,
                  unsigned seed, uint8_t *ret_disk)
{
    size_t flushed = 0;
    for (size_t i = 0; i < moment; i++)
        if (recorder->entries[i].flush)
            flushed = i + 1;
    memcpy(ret_disk, recorder->before, recorder_size(recorder));
    for (size_t i = 0; i < moment; i++) {
        const struct entry *entry = &recorder->entries[i];
        if (entry->flush)
            continue;
        if (i < flushed || loss == LOSS_NONE)
            write_whole(recorder, entry, ret_disk);
        else if (loss == LOSS_CHANCE && next_chance(&seed) % 2)
            write_whole(recorder, entry, ret_disk);
        else if (loss == LOSS_TORN)
            write_torn(recorder, entry, &seed, ret_disk);
    }
}

void recorder_spoil(struct recorder *recorder, uint64_t sector, uint64_t count)
{
    pthread_mutex_lock(&recorder->lock);
    if (!recorder->spoiled)
        recorder->spoiled = xcalloc(recorder->device.sectors, sizeof(bool));
    for (uint64_t i = 0; i < count; i++)
        recorder->spoiled[sector + i] = true;
    pthread_mutex_unlock(&recorder->lock);
}

void recorder_vary(struct recorder *recorder, uint8_t pattern, uint64_t offset, const uint8_t *mask,
                   size_t size)
{
    uint64_t whole = recorder_size(recorder);
    if (offset >= whole)
        return;
    pthread_mutex_lock(&recorder->lock);
    if (!recorder->varying) {
        recorder->varying = xcalloc(1, whole);
        recorder->readings = xcalloc(1, recorder->device.sectors);
    }
    recorder->pattern = pattern;
    memcpy(recorder->varying + offset, mask, size < whole - offset ? size : whole - offset);
    pthread_mutex_unlock(&recorder->lock);
}

bool recorder_last_write(const struct recorder *recorder, size_t moment, uint64_t *ret_sector,
                         uint32_t *ret_count)
{
    if (moment == 0 || recorder->entries[moment - 1].flush)
        return false;
    *ret_sector = recorder->entries[moment - 1].sector;
    *ret_count = recorder->entries[moment - 1].count;
    return true;
}

void recorder_fail(struct recorder *recorder, int n, int error)
{
    pthread_mutex_lock(&recorder->lock);
    recorder->until_failure = n < 0 ? -1 : n;
    recorder->failure = error;
    pthread_mutex_unlock(&recorder->lock);
}

void recorder_fail_discards(struct recorder *recorder, int error)
{
    pthread_mutex_lock(&recorder->lock);
    recorder->discard_failure = error;
    pthread_mutex_unlock(&recorder->lock);
}

struct recorder_counts recorder_counts(const struct recorder *recorder)
{
    return recorder->counts;
}
