/* A stream that is told of on its way. */
#include <base/alloc.h>
#include <base/text.h>

#include "stream.h"
#include "worker.h"

struct told_stream {
    struct stream stream;
    struct stream *source;
    char *item;
    const char *step;
    uint64_t done, total;
    int64_t last;
    bool ended;
};

static ssize_t told_read(struct stream *stream, const void **block, struct error *err)
{
    struct told_stream *self = (struct told_stream *)stream;
    ssize_t n = stream_read(self->source, block, err);

    if (n > 0) {
        self->done += (uint64_t)n;
        message_item_progress(&self->last, self->item, self->step, self->done, self->total);
    } else if (n == 0 && !self->ended) {
        self->ended = true;
        message_item(self->item, self->step, self->done, self->total);
    }
    return n;
}

static void told_destroy(struct stream *stream)
{
    struct told_stream *self = (struct told_stream *)stream;

    free(self->item);
    free(self);
}

struct stream *stream_told(struct stream *source, const char *item, const char *step,
                           uint64_t total)
{
    static const struct stream_ops ops = {told_read, told_destroy};
    struct told_stream *self = xnew(struct told_stream);

    self->stream.ops = &ops;
    self->stream.kept = source->kept;
    self->source = source;
    self->item = xstrdup(item);
    self->step = step;
    self->total = total;
    return &self->stream;
}
