/*
 * libFuzzer target: WebSocket frames of clients of the Docker Engine API. The input is read whole,
 * and in pieces whose length its first byte says: both must come to the same stream, the same
 * answers and the same end.
 */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "frames.h"

enum { MOST = 300 }; /* bytes of answers, then pings go without */

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

struct reading {
    struct frames frames;
    struct buffer stream, answers;
};

static void feed(struct reading *reading, const uint8_t *data, size_t size)
{
    char *piece = malloc(size + 1); /* of exactly this size, so that one byte more is seen */

    if (!piece)
        abort();
    memcpy(piece, data, size);
    frames_read(&reading->frames, piece, size, &reading->stream, &reading->answers, MOST);
    free(piece);
}

static bool equal(const struct buffer *one, const struct buffer *other)
{
    return one->length == other->length &&
           (!one->length || memcmp(one->data, other->data, one->length) == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct reading whole = {.stream = BUFFER_INIT}, pieces = {.stream = BUFFER_INIT};

    if (!size)
        return 0;
    size_t step = (size_t)data[0] % 32 + 1;
    data++;
    size--;
    feed(&whole, data, size);
    for (size_t at = 0; at < size; at += step)
        feed(&pieces, data + at, size - at < step ? size - at : step);
    if (!equal(&whole.stream, &pieces.stream) || !equal(&whole.answers, &pieces.answers) ||
        whole.frames.closed != pieces.frames.closed || whole.stream.length > size)
        abort();
    frames_write(&whole.frames, (const char *)data, size, &whole.answers);
    frames_close(&whole.frames, FRAMES_NORMAL, &whole.answers);
    buffer_finish(&whole.stream);
    buffer_finish(&whole.answers);
    buffer_finish(&pieces.stream);
    buffer_finish(&pieces.answers);
    return 0;
}
