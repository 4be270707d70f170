/*
 * What a build says. Stages work at the same time, but people read them one after the other, as
 * docker's classic builder shows them: a stage behind the one that is shown is kept back.
 */
#include <errno.h>
#include <poll.h>
#include <stdarg.h>
#include <string.h>
#include <unistd.h>

#include <base/alloc.h>

#include "build.h"

void build_output_init(struct build_output *output, int fd, int cancel_fd, bool quiet)
{
    *output = (struct build_output){.fd = fd, .cancel_fd = cancel_fd, .quiet = quiet};
    pthread_mutex_init(&output->lock, NULL);
    pthread_cond_init(&output->changed, NULL);
    build_output_divide(output, 1);
}

static void free_lanes(struct build_output *output)
{
    for (size_t i = 0; i < output->count; i++)
        buffer_finish(&output->lanes[i].text);
    free(output->lanes);
}

void build_output_finish(struct build_output *output)
{
    free_lanes(output);
    pthread_mutex_destroy(&output->lock);
    pthread_cond_destroy(&output->changed);
}

void build_output_divide(struct build_output *output, size_t lanes)
{
    free_lanes(output);
    output->lanes = xnew_array(struct build_lane, lanes + 1);
    output->count = lanes;
    output->front = 0;
}

/* The client's end may be slow, and not blocking. */
static void write_out(struct build_output *output, const char *data, size_t length)
{
    while (length && output->fd >= 0 && !output->broken) {
        struct pollfd fds[2] = {{output->fd, POLLOUT, 0}, {output->cancel_fd, POLLIN, 0}};
        if (poll(fds, 2, -1) < 0 && errno != EINTR)
            output->broken = true;
        /* The end of it is still told, to whoever reads it at once. */
        if (!fds[0].revents && fds[1].revents && poll(fds, 1, BUILD_LAST_WORDS_MS) <= 0)
            output->broken = true;
        if (!fds[0].revents || output->broken)
            continue;
        /* A piece that a pipe takes at once: it may be one that blocks. */
        ssize_t n = write(output->fd, data, length < 4096 ? length : 4096);
        if (n < 0 && errno != EINTR && errno != EAGAIN)
            output->broken = true;
        if (n > 0) {
            data += n;
            length -= (size_t)n;
        }
    }
}

static void put(struct build_output *output, size_t lane, const struct buffer *line)
{
    pthread_mutex_lock(&output->lock);
    while (lane < output->count && lane > output->front && !output->broken &&
           output->lanes[lane].text.length > BUILD_LANE_MAX)
        pthread_cond_wait(&output->changed, &output->lock);
    if (lane >= output->count || lane == output->front)
        write_out(output, line->data, line->length);
    else
        buffer_append(&output->lanes[lane].text, line->data, line->length);
    pthread_mutex_unlock(&output->lock);
}

void build_output_end_lane(struct build_output *output, size_t lane)
{
    pthread_mutex_lock(&output->lock);
    output->lanes[lane].ended = true;
    while (output->front < output->count && output->lanes[output->front].ended) {
        if (++output->front < output->count) {
            struct buffer *text = &output->lanes[output->front].text;
            write_out(output, text->data, text->length);
            buffer_finish(text);
        }
    }
    pthread_cond_broadcast(&output->changed);
    pthread_mutex_unlock(&output->lock);
}

static void put_message(struct build_output *output, size_t lane,
                        const struct api_build_message *message)
{
    _cleanup_buffer_ struct buffer line = BUFFER_INIT;

    api_build_message_write(message, &line);
    buffer_append_char(&line, '\n');
    put(output, lane, &line);
}

void build_say_text(struct build_output *output, size_t lane, const char *text, size_t length)
{
    _cleanup_free_ char *copy = xstrndup(text, length);
    const struct api_build_message message = {.stream = copy};

    if (!output->quiet && length)
        put_message(output, lane, &message);
}

void build_say(struct build_output *output, size_t lane, const char *format, ...)
{
    va_list args;

    va_start(args, format);
    _cleanup_free_ char *text = xvasprintf(format, args);
    va_end(args);
    build_say_text(output, lane, text, strlen(text));
}

void build_tell(struct build_output *output, const struct api_build_message *message)
{
    put_message(output, output->count, message);
}
