#include "ring.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <base/alloc.h>

#include "moves.h"

struct slot {
    struct move move;  /* first */
    struct slot *next; /* of those that are free */
    uint64_t cookie;
};

struct ring {
    struct block_device *device;
    bool read_only;
    void (*wake)(void *data);
    void *wake_data;
    int memory;
    struct ring_shared *shared;
    uint8_t *data;
    uint64_t data_size;
    size_t mapped; /* bytes, with a page behind the data that nobody can touch */
    uint32_t submission_head;

    pthread_mutex_t lock; /* for what follows; held shortly, by the device's thread too */
    pthread_cond_t idle;
    uint32_t completion_tail;
    uint32_t under_way;
    struct slot *free;
    struct slot slots[RING_ENTRIES];
};

/* Memory. */

static int make_memory(struct ring *ring, struct error *err)
{
    size_t size = RING_DATA_OFFSET + (size_t)ring->data_size;
    ring->memory = memfd_create("cloche-usb-ring", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    if (ring->memory < 0 || ftruncate(ring->memory, (off_t)size) < 0 ||
        fcntl(ring->memory, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) < 0)
        return error_errno(err, errno, "make the memory of a ring");
    ring->mapped = size + RING_PAGE;
    void *room = mmap(NULL, ring->mapped, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (room == MAP_FAILED)
        return error_errno(err, errno, "map the memory of a ring");
    ring->shared = room;
    if (mmap(room, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, ring->memory, 0) ==
        MAP_FAILED)
        return error_errno(err, errno, "map the memory of a ring");
    ring->data = (uint8_t *)room + RING_DATA_OFFSET;
    return 0;
}

static void ring_free(struct ring *ring)
{
    if (ring->shared)
        munmap(ring->shared, ring->mapped);
    close_fd(ring->memory);
    pthread_mutex_destroy(&ring->lock);
    pthread_cond_destroy(&ring->idle);
    free(ring);
}

int ring_create(struct block_device *device, bool read_only, uint64_t data_size,
                void (*wake)(void *data), void *data, struct ring **ret_ring, struct error *err)
{
    if (data_size < RING_DATA_LEAST || data_size > RING_DATA_MOST || data_size % RING_PAGE)
        return error_set(err, -EINVAL, "a ring with %llu bytes of data",
                         (unsigned long long)data_size);
    struct ring *ring = xnew(struct ring);
    ring->device = device;
    ring->read_only = read_only || device->read_only;
    ring->wake = wake;
    ring->wake_data = data;
    ring->data_size = data_size;
    pthread_mutex_init(&ring->lock, NULL);
    pthread_cond_init(&ring->idle, NULL);
    for (size_t i = 0; i < RING_ENTRIES; i++) {
        ring->slots[i].next = ring->free;
        ring->free = &ring->slots[i];
    }
    int r = make_memory(ring, err);
    if (r != 0)
        ring_free(ring);
    else
        *ret_ring = ring;
    return r;
}

void ring_destroy(struct ring *ring)
{
    if (!ring)
        return;
    pthread_mutex_lock(&ring->lock);
    while (ring->under_way > 0)
        pthread_cond_wait(&ring->idle, &ring->lock);
    pthread_mutex_unlock(&ring->lock);
    ring_free(ring);
}

int ring_memory(const struct ring *ring)
{
    return ring->memory;
}

void ring_welcome(const struct ring *ring, struct ring_welcome *ret_welcome)
{
    const struct block_device *device = ring->device;
    *ret_welcome = (struct ring_welcome){
        .magic = RING_MAGIC,
        .version = RING_VERSION,
        .flags = (ring->read_only ? RING_READ_ONLY : 0U) | (device->flushes ? RING_FLUSHES : 0U) |
                 (device->discards ? RING_DISCARDS : 0U),
        .sector_size = device->sector_size,
        .best_size = device->best_size,
        .sectors = device->sectors,
        .data_size = ring->data_size,
    };
}

/* What is done. */

static void complete(struct ring *ring, struct slot *slot, int result)
{
    pthread_mutex_lock(&ring->lock);
    struct ring_completion *at = &ring->shared->completions[ring->completion_tail % RING_ENTRIES];
    *at = (struct ring_completion){.cookie = slot->cookie, .result = result};
    ring->completion_tail++;
    atomic_store(&ring->shared->completion_tail, ring->completion_tail);
    slot->next = ring->free;
    ring->free = slot;
    if (atomic_exchange(&ring->shared->program_sleeps, 0))
        ring->wake(ring->wake_data);
    if (--ring->under_way == 0)
        pthread_cond_signal(&ring->idle);
    pthread_mutex_unlock(&ring->lock); /* from now on the ring may be gone */
}

static void on_done(struct move *move)
{
    complete(move->owner, (struct slot *)move, move->result);
}

/* What is submitted. */

static void copy_once(struct ring_submission *to, const struct ring_submission *from)
{
    uint64_t words[sizeof(*to) / sizeof(uint64_t)];
    for (size_t i = 0; i < ARRAY_SIZE(words); i++)
        words[i] = __atomic_load_n((const uint64_t *)from + i, __ATOMIC_RELAXED);
    memcpy(to, words, sizeof(*to));
}

static int prepare(struct ring *ring, struct move *move, const struct ring_submission *wanted)
{
    static const enum block_operation operations[] = {
        [RING_READ] = BLOCK_READ,
        [RING_WRITE] = BLOCK_WRITE,
        [RING_FLUSH] = BLOCK_FLUSH,
        [RING_TRIM] = BLOCK_DISCARD,
    };
    if (wanted->operation >= ARRAY_SIZE(operations) ||
        wanted->flags & ~(wanted->operation == RING_WRITE ? RING_DURABLE : 0))
        return -EINVAL;
    move->operation = operations[wanted->operation];
    move->durable = wanted->flags & RING_DURABLE;
    if (move->operation == BLOCK_FLUSH)
        return 0;
    if (move->operation != BLOCK_READ && ring->read_only)
        return -EROFS;
    if (move->operation == BLOCK_DISCARD)
        return move_place(move, wanted->offset, wanted->length);
    if (wanted->data > ring->data_size || wanted->length > ring->data_size - wanted->data)
        return -EFAULT;
    move->data = ring->data + wanted->data;
    return move_place(move, wanted->offset, wanted->length);
}

static void begin(struct ring *ring, struct slot *slot, const struct ring_submission *wanted)
{
    slot->cookie = wanted->cookie;
    slot->move = (struct move){.device = ring->device, .done = on_done, .owner = ring};
    int r = prepare(ring, &slot->move, wanted);
    if (r == 0)
        move_begin(&slot->move);
    else
        complete(ring, slot, r);
}

/* One that is free. NULL with 0: the program has not looked at what is done. */
static int take_slot(struct ring *ring, struct slot **ret_slot, struct error *err)
{
    uint32_t head = atomic_load(&ring->shared->completion_head);
    int r = 0;
    *ret_slot = NULL;
    pthread_mutex_lock(&ring->lock);
    uint32_t unread = ring->completion_tail - head;
    if (unread > RING_ENTRIES)
        r = error_set(err, -EPROTO, "it has looked at what was not done");
    if (r == 0 && unread + ring->under_way < RING_ENTRIES) {
        *ret_slot = ring->free;
        ring->free = ring->free->next;
        ring->under_way++;
    }
    pthread_mutex_unlock(&ring->lock);
    return r;
}

static uint32_t submitted(const struct ring *ring)
{
    return atomic_load(&ring->shared->submission_tail) - ring->submission_head;
}

int ring_take(struct ring *ring, struct error *err)
{
    atomic_store(&ring->shared->door_sleeps, 0);
    for (;;) {
        struct ring_submission wanted;
        struct slot *slot;
        uint32_t count = submitted(ring);
        if (count > RING_ENTRIES)
            return error_set(err, -EPROTO, "it has submitted more than there is room for");
        int r = count > 0 ? take_slot(ring, &slot, err) : 0;
        if (count == 0 || r != 0 || !slot)
            return r;
        copy_once(&wanted, &ring->shared->submissions[ring->submission_head % RING_ENTRIES]);
        ring->submission_head++;
        atomic_store(&ring->shared->submission_head, ring->submission_head);
        begin(ring, slot, &wanted);
    }
}

bool ring_sleep(struct ring *ring)
{
    atomic_store(&ring->shared->door_sleeps, 1);
    if (submitted(ring) == 0)
        return true;
    pthread_mutex_lock(&ring->lock);
    uint32_t unread = ring->completion_tail - atomic_load(&ring->shared->completion_head);
    bool full = unread + ring->under_way >= RING_ENTRIES;
    pthread_mutex_unlock(&ring->lock);
    return full;
}
