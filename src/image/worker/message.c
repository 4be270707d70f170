#include <errno.h>
#include <pthread.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>

#include <base/alloc.h>
#include <base/buffer.h>
#include <image/descriptors.h>

#include "limits.h"
#include "worker.h"

enum { PROGRESS_INTERVAL_MS = 250, READ_SIZE = 64 * 1024 };

/* The engine sends one line. */
int message_read_request(struct image_worker_request **ret, struct error *err)
{
    _cleanup_buffer_ struct buffer line = BUFFER_INIT;

    while (!line.length || line.data[line.length - 1] != '\n') {
        if (line.length > REQUEST_MAX)
            return error_set(err, -EFBIG, "the request is larger than %d bytes", REQUEST_MAX);
        buffer_reserve(&line, READ_SIZE);
        ssize_t n = recv(IMAGE_FD_CONTROL, line.data + line.length, READ_SIZE - 1, 0);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return error_errno(err, errno, "read the request");
        if (n == 0)
            return error_set(err, -EPIPE, "the request ends in the middle");
        line.length += (size_t)n;
    }
    return image_worker_request_parse(line.data, line.length - 1, "request", ret, err);
}

/* The last message is worth waiting for; progress is not. */
static int send_message(const struct image_worker_message *message, int flags)
{
    _cleanup_buffer_ struct buffer line = BUFFER_INIT;

    image_worker_message_write(message, &line);
    buffer_append_char(&line, '\n');
    for (size_t sent = 0; sent < line.length;) {
        ssize_t n = send(IMAGE_FD_CONTROL, line.data + sent, line.length - sent,
                         MSG_NOSIGNAL | (sent ? 0 : flags));
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return -errno;
        sent += (size_t)n;
    }
    return 0;
}

static int64_t now_milliseconds(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC_COARSE, &now);
    return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

/* Lines of several threads do not mix. */
static void tell(const char *item, const char *step, uint64_t bytes, uint64_t total, int flags)
{
    static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
    struct image_worker_progress progress = {
        .step = (char *)step,
        .bytes = bytes,
        .item = (char *)item,
        .total = total,
        .has_total = total != 0,
    };
    const struct image_worker_message message = {.progress = &progress};

    pthread_mutex_lock(&mutex);
    send_message(&message, flags);
    pthread_mutex_unlock(&mutex);
}

void message_progress(const char *step, uint64_t bytes)
{
    static _Thread_local int64_t last;

    message_item_progress(&last, NULL, step, bytes, 0);
}

void message_item_progress(int64_t *last, const char *item, const char *step, uint64_t bytes,
                           uint64_t total)
{
    int64_t now = now_milliseconds();

    if (!*last)
        *last = now;
    if (now - *last < PROGRESS_INTERVAL_MS)
        return;
    *last = now;
    tell(item, step, bytes, total, MSG_DONTWAIT);
}

void message_item(const char *item, const char *step, uint64_t bytes, uint64_t total)
{
    tell(item, step, bytes, total, 0);
}

int message_result(const struct image_worker_result *result)
{
    const struct image_worker_message message = {.result = (struct image_worker_result *)result};

    return send_message(&message, 0);
}

int message_failure(const struct error *err)
{
    struct image_worker_failure failure = {
        .code = err->code < 0 ? err->code : -EIO,
        .message = (char *)error_message(err),
        .hint = err->hint,
    };
    const struct image_worker_message message = {.failure = &failure};

    return send_message(&message, 0);
}
