/* A CUSE door's thread. */
#include <doors/cuse.h>

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <base/alloc.h>

#include "cuse_talk.h"

enum { BEGIN_MS = 10000 };

struct cuse_door {
    struct cuse_talk talk;
    struct cuse_door_options options;
    int fd, stop;
    pthread_t thread;
    uint8_t *message, *answer; /* CUSE_MESSAGE bytes each; of the device where it has some */
};

/* 1: it is to stop; -ENODEV: the kernel has given the device up. */
static int serve_one(struct cuse_door *door, int timeout, struct error *err)
{
    struct pollfd waiting[] = {{.fd = door->fd, .events = POLLIN},
                               {.fd = door->stop, .events = POLLIN}};
    int count = poll(waiting, 2, timeout);
    if (count == 0)
        return error_set(err, -ETIMEDOUT, "the kernel does not begin");
    if (count < 0 && errno == EINTR)
        return 0;
    if (count < 0 || waiting[1].revents)
        return 1;
    ssize_t size = read(door->fd, door->message, CUSE_MESSAGE);
    if (size < 0 && (errno == EAGAIN || errno == EINTR || errno == ENOENT))
        return 0; /* whoever asked was interrupted */
    if (size < 0)
        return error_errno(err, errno, "read from /dev/cuse");
    ssize_t length = cuse_answer(&door->talk, door->message, (size_t)size, door->answer, err);
    if (length < 0)
        return (int)length;
    if (length > 0 && write(door->fd, door->answer, (size_t)length) < 0 && errno != ENOENT)
        return error_errno(err, errno, "answer to /dev/cuse");
    return 0;
}

static void *work(void *data)
{
    struct cuse_door *door = data;
    _cleanup_error_ struct error err = ERROR_INIT;
    int r = 0;
    while (r == 0)
        r = serve_one(door, -1, &err);
    if (r < 0 && door->options.ended)
        door->options.ended(door, r, error_message(&err), door->options.data);
    return NULL;
}

static int begin(struct cuse_door *door, struct error *err)
{
    const char *name = door->options.name;
    int r = 0;
    if (!name[0] || strlen(name) >= CUSE_DOOR_NAME_MAX || strpbrk(name, "/=., \n"))
        return error_set(err, -EINVAL, "no device can be called '%s'", name);
    memcpy(door->talk.name, name, strlen(name) + 1);
    door->stop = eventfd(0, EFD_CLOEXEC);
    if (door->stop < 0)
        return error_errno(err, errno, "eventfd");
    while (r == 0 && !door->talk.has_begun)
        r = serve_one(door, BEGIN_MS, err);
    if (r == 0)
        r = -pthread_create(&door->thread, NULL, work, door);
    if (r > 0)
        r = error_set(err, -EIO, "the descriptor cannot be waited for");
    if (r < 0)
        error_context(err, "CUSE");
    return r;
}

static void finish(struct cuse_door *door)
{
    close_fd(door->fd);
    close_fd(door->stop);
    block_buffer_free(door->talk.medium, door->message, CUSE_MESSAGE);
    block_buffer_free(door->talk.medium, door->answer, CUSE_MESSAGE);
    free(door);
}

int cuse_door_open(struct block_device *medium, int fd, const struct cuse_door_options *options,
                   struct cuse_door **ret_door, struct error *err)
{
    struct cuse_door *door = xnew(struct cuse_door);
    door->talk.medium = medium;
    door->talk.read_only = options->read_only || medium->read_only;
    door->options = *options;
    door->fd = fd;
    door->stop = -1;
    door->message = block_buffer_alloc(medium, CUSE_MESSAGE);
    door->answer = block_buffer_alloc(medium, CUSE_MESSAGE);
    int r = begin(door, err);
    door->options.name = NULL;
    if (r < 0)
        finish(door);
    else
        *ret_door = door;
    return r < 0 ? r : 0;
}

void cuse_door_close(struct cuse_door *door)
{
    const uint64_t one = 1;
    if (!door)
        return;
    while (write(door->stop, &one, sizeof(one)) < 0 && errno == EINTR)
        ;
    pthread_join(door->thread, NULL);
    finish(door);
}
