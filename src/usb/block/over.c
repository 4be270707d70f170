#include <block/over.h>

static struct block_device *below(struct block_device *over)
{
    return ((struct block_over *)over)->below->whole;
}

void block_over_init(struct block_over *over, struct block_device *device,
                     const struct block_device_ops *ops)
{
    over->device = *device;
    over->device.ops = ops;
    over->device.whole = &over->device;
    over->device.first = 0;
    over->below = device;
}

struct block_request block_over_request(const struct block_request *request,
                                        void (*done)(struct block_request *request))
{
    return (struct block_request){
        .operation = request->operation,
        .sector = request->at,
        .count = request->count,
        .data = request->data,
        .done = done,
        .attended = request->attended,
    };
}

void block_over_attend(struct block_device *over, const atomic_bool *done)
{
    struct block_device *device = below(over);
    if (device->ops->attend)
        device->ops->attend(device, done);
}

void *block_over_buffer_alloc(struct block_device *over, size_t size)
{
    struct block_device *device = below(over);
    return device->ops->buffer_alloc ? device->ops->buffer_alloc(device, size) : NULL;
}

bool block_over_buffer_free(struct block_device *over, void *buffer, size_t size)
{
    struct block_device *device = below(over);
    return device->ops->buffer_free && device->ops->buffer_free(device, buffer, size);
}
