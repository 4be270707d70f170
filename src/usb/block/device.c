#include <block/device.h>

#include <errno.h>
#include <semaphore.h>
#include <stdlib.h>

#include <base/alloc.h>
#include <block/waiting.h>

enum { SOON = 64 << 10 }; /* bytes that are moved before others could take over */

_Thread_local void (*block_before_waiting)(void);

bool block_within(const struct block_device *device, uint64_t sector, uint64_t count)
{
    return sector <= device->sectors && count <= device->sectors - sector;
}

/* What need not reach the device: 1 when it must. */
static int look(const struct block_device *device, const struct block_request *request)
{
    if (request->operation == BLOCK_FLUSH)
        return device->flushes && !device->read_only ? 1 : 0;
    if (request->count == 0 || !block_within(device, request->sector, request->count))
        return -EINVAL;
    if (request->operation != BLOCK_READ && device->read_only)
        return -EROFS;
    if (request->operation == BLOCK_DISCARD && !device->discards)
        return -EOPNOTSUPP;
    return 1;
}

void block_submit(struct block_device *device, struct block_request *request)
{
    int r = look(device, request);
    if (r <= 0) {
        request->result = r;
        request->done(request);
        return;
    }
    request->result = -EINPROGRESS;
    request->at = device->first + request->sector;
    device->whole->ops->submit(device->whole, request);
}

struct waiting {
    sem_t done;
    atomic_bool is_done;
};

static void wake(struct block_request *request)
{
    struct waiting *waiting = request->owner;
    atomic_store(&waiting->is_done, true);
    sem_post(&waiting->done);
}

static const char *const operation_names[] = {
    [BLOCK_READ] = "read",
    [BLOCK_WRITE] = "write",
    [BLOCK_FLUSH] = "flush",
    [BLOCK_DISCARD] = "discard",
};

static int submit_and_wait(struct block_device *device, enum block_operation operation,
                           uint64_t sector, uint32_t count, void *data, struct error *err)
{
    const struct block_device_ops *ops = device->whole->ops;
    struct waiting waiting = {.is_done = false};
    sem_init(&waiting.done, 0, 0);
    struct block_request request = {
        .operation = operation,
        .sector = sector,
        .count = count,
        .data = data,
        .done = wake,
        .owner = &waiting,
        .attended = ops->attend != NULL,
    };
    block_submit(device, &request);
    if (ops->attend && !atomic_load(&waiting.is_done))
        ops->attend(device->whole, &waiting.is_done);
    while (sem_wait(&waiting.done) != 0)
        ;
    sem_destroy(&waiting.done);
    if (request.result == 0)
        return 0;
    if (operation == BLOCK_FLUSH)
        return error_errno(err, -request.result, "flush");
    return error_errno(err, -request.result, "%s %u sectors at %llu", operation_names[operation],
                       count, (unsigned long long)sector);
}

int block_read(struct block_device *device, uint64_t sector, uint32_t count, void *data,
               struct error *err)
{
    if ((uint64_t)count * device->sector_size > SOON)
        block_will_wait();
    return submit_and_wait(device, BLOCK_READ, sector, count, data, err);
}

int block_write(struct block_device *device, uint64_t sector, uint32_t count, const void *data,
                struct error *err)
{
    if ((uint64_t)count * device->sector_size > SOON)
        block_will_wait();
    return submit_and_wait(device, BLOCK_WRITE, sector, count, (void *)data, err);
}

int block_discard(struct block_device *device, uint64_t sector, uint32_t count, struct error *err)
{
    block_will_wait();
    return submit_and_wait(device, BLOCK_DISCARD, sector, count, NULL, err);
}

int block_flush(struct block_device *device, struct error *err)
{
    if (device->flushes && !device->read_only)
        block_will_wait();
    return submit_and_wait(device, BLOCK_FLUSH, 0, 0, NULL, err);
}

enum { PAGE = 4096 };

void *block_buffer_alloc(struct block_device *device, size_t size)
{
    struct block_device *whole = device->whole;
    void *buffer = whole->ops->buffer_alloc ? whole->ops->buffer_alloc(whole, size) : NULL;
    if (buffer)
        return buffer;
    if (posix_memalign(&buffer, PAGE, size) != 0)
        abort();
    return buffer;
}

void block_buffer_free(struct block_device *device, void *buffer, size_t size)
{
    struct block_device *whole = device->whole;
    if (!buffer || (whole->ops->buffer_free && whole->ops->buffer_free(whole, buffer, size)))
        return;
    free(buffer);
}

static const struct block_device_ops part_ops;

int block_part(struct block_device *device, uint64_t first, uint64_t count,
               struct block_device **ret_part, struct error *err)
{
    if (count == 0 || !block_within(device, first, count))
        return error_set(err, -EINVAL, "%llu sectors at %llu are not within the %llu of the device",
                         (unsigned long long)count, (unsigned long long)first,
                         (unsigned long long)device->sectors);
    struct block_device *part = xnew(struct block_device);
    *part = *device;
    part->ops = &part_ops;
    part->first = device->first + first;
    part->sectors = count;
    *ret_part = part;
    return 0;
}

static void part_destroy(struct block_device *part)
{
    free(part);
}

/* Requests go to the whole device. */
static const struct block_device_ops part_ops = {.destroy = part_destroy};

void block_device_destroy(struct block_device *device)
{
    if (device)
        device->ops->destroy(device);
}
