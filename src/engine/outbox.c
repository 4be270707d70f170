#include "outbox.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>

#include <base/alloc.h>
#include <base/file.h>
#include <base/socket.h>

struct outbox_message {
    struct outbox_message *next;
    int fds[OUTBOX_FDS_MAX];
    size_t fds_count, size;
    char data[];
};

static void message_free(struct outbox_message *message)
{
    for (size_t i = 0; i < message->fds_count; i++)
        close_fd(message->fds[i]);
    free(message);
}

static int keep(struct outbox *outbox, const void *data, size_t size, const int *fds, size_t count)
{
    if (outbox->bytes + size > OUTBOX_BYTES_MAX ||
        outbox->fds_count + count > OUTBOX_WAITING_FDS_MAX)
        return -ENOBUFS;
    struct outbox_message *message = xcalloc(1, sizeof(*message) + size);
    message->size = size;
    memcpy(message->data, data, size);
    for (; message->fds_count < count; message->fds_count++) {
        int fd = fcntl(fds[message->fds_count], F_DUPFD_CLOEXEC, 3);

        if (fd < 0) {
            int failure = errno;

            message_free(message);
            return -failure;
        }
        message->fds[message->fds_count] = fd;
    }
    if (!outbox->first)
        outbox->end = &outbox->first;
    *outbox->end = message;
    outbox->end = &message->next;
    outbox->bytes += size;
    outbox->fds_count += count;
    return 0;
}

int outbox_send(struct outbox *outbox, int socket_fd, const void *data, size_t size, const int *fds,
                size_t count)
{
    if (count > OUTBOX_FDS_MAX)
        return -E2BIG;
    if (!outbox->first) {
        ssize_t n = socket_send_now(socket_fd, data, size, fds, count);

        if (n != -EAGAIN)
            return n < 0 ? (int)n : 0;
    }
    return keep(outbox, data, size, fds, count);
}

int outbox_flush(struct outbox *outbox, int socket_fd)
{
    while (outbox->first) {
        struct outbox_message *message = outbox->first;
        ssize_t n = socket_send_now(socket_fd, message->data, message->size, message->fds,
                                    message->fds_count);

        if (n < 0)
            return n == -EAGAIN ? 0 : (int)n;
        outbox->first = message->next;
        outbox->bytes -= message->size;
        outbox->fds_count -= message->fds_count;
        message_free(message);
    }
    return 0;
}

int outbox_drain(struct outbox *outbox, int socket_fd, int timeout_ms)
{
    struct pollfd poll_fd = {.fd = socket_fd, .events = POLLOUT};
    const struct outbox_message *first = outbox->first;
    int r = poll(&poll_fd, 1, timeout_ms);

    if (r < 0)
        return -errno;
    if (r > 0)
        r = outbox_flush(outbox, socket_fd);
    return r == 0 && outbox->first == first ? -ETIMEDOUT : r;
}

bool outbox_waits(const struct outbox *outbox)
{
    return outbox->first != NULL;
}

void outbox_clear(struct outbox *outbox)
{
    while (outbox->first) {
        struct outbox_message *message = outbox->first;

        outbox->first = message->next;
        message_free(message);
    }
    outbox->bytes = outbox->fds_count = 0;
}
