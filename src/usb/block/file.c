#include <block/file.h>

#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <pthread.h>
#include <stdatomic.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <base/alloc.h>
#include <block/queue.h>

enum { BEST_SIZE = 1 << 20 };

struct block_file {
    struct block_device device; /* first: it is what others have */
    int fd;
    pthread_t thread;
    struct block_queue queue;
    atomic_bool ending;
};

/* All of it; a file that ends early, since somebody made it shorter, is an error of the medium. */
static int move(const struct block_file *file, const struct block_request *request)
{
    bool write = request->operation == BLOCK_WRITE;
    char *data = request->data;
    size_t left = (size_t)request->count * file->device.sector_size;
    off_t at = (off_t)(request->at * file->device.sector_size);
    while (left > 0) {
        ssize_t moved = write ? pwrite(file->fd, data, left, at) : pread(file->fd, data, left, at);
        if (moved < 0 && errno == EINTR)
            continue;
        if (moved <= 0)
            return moved < 0 && errno != ENOSPC ? -errno : -EIO;
        data += moved;
        at += moved;
        left -= (size_t)moved;
    }
    return 0;
}

static int discard(const struct block_file *file, const struct block_request *request)
{
    off_t size = (off_t)request->count * file->device.sector_size;
    off_t at = (off_t)(request->at * file->device.sector_size);
    if (fallocate(file->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, at, size) == 0)
        return 0;
    return errno == ENOSYS ? -EOPNOTSUPP : -errno;
}

static int carry_out(const struct block_file *file, const struct block_request *request)
{
    switch (request->operation) {
    case BLOCK_READ:
    case BLOCK_WRITE:
        return move(file, request);
    case BLOCK_FLUSH:
        return fdatasync(file->fd) == 0 ? 0 : -errno;
    case BLOCK_DISCARD:
        return discard(file, request);
    }
    return -EOPNOTSUPP;
}

static void *work(void *data)
{
    struct block_file *file = data;
    while (!atomic_load(&file->ending)) {
        struct block_request *next, *request = block_queue_take(&file->queue);
        if (!request)
            block_queue_wait(&file->queue);
        for (; request; request = next) {
            next = request->next;
            request->result = carry_out(file, request);
            request->done(request);
        }
    }
    return NULL;
}

static void submit(struct block_device *whole, struct block_request *request)
{
    block_queue_put(&((struct block_file *)whole)->queue, request);
}

static void destroy(struct block_device *device)
{
    struct block_file *file = (struct block_file *)device;
    atomic_store(&file->ending, true);
    block_queue_wake(&file->queue);
    pthread_join(file->thread, NULL);
    block_queue_finish(&file->queue);
    close_fd(file->fd);
    free(file);
}

static const struct block_device_ops file_ops = {.submit = submit, .destroy = destroy};

static int size_of(int fd, uint64_t *ret_size, struct error *err)
{
    struct stat status;
    if (fstat(fd, &status) != 0)
        return error_errno(err, errno, "look at the image");
    *ret_size = (uint64_t)status.st_size;
    if (S_ISBLK(status.st_mode) && ioctl(fd, BLKGETSIZE64, ret_size) != 0)
        return error_errno(err, errno, "ask for the size of the device");
    if (!S_ISREG(status.st_mode) && !S_ISBLK(status.st_mode))
        return error_set(err, -EINVAL, "neither a file nor a block device");
    return 0;
}

int block_file_open(int fd, uint32_t sector_size, bool read_only, struct block_device **ret_device,
                    struct error *err)
{
    uint64_t size = 0;
    int r = size_of(fd, &size, err);
    if (r == 0 && (sector_size < 512 || sector_size > 4096 || (sector_size & (sector_size - 1))))
        r = error_set(err, -EINVAL, "no sector size: %u", sector_size);
    if (r == 0 && size < sector_size)
        r = error_set(err, -EINVAL, "it has no sectors: %llu bytes", (unsigned long long)size);
    if (r != 0) {
        close_fd(fd);
        return r;
    }
    struct block_file *file = xnew(struct block_file);
    file->fd = fd;
    file->device = (struct block_device){
        .ops = &file_ops,
        .whole = &file->device,
        .sector_size = sector_size,
        .sectors = size / sector_size,
        .best_size = BEST_SIZE,
        .read_only = read_only,
        .flushes = true,
        .discards = true,
    };
    r = block_queue_init(&file->queue, err);
    if (r == 0) {
        r = -pthread_create(&file->thread, NULL, work, file);
        if (r != 0)
            error_errno(err, -r, "start the image's thread");
    }
    if (r != 0) {
        block_queue_finish(&file->queue);
        close_fd(fd);
        free(file);
        return r;
    }
    *ret_device = &file->device;
    return 0;
}
