#include <errno.h>
#include <unistd.h>

#include <base/alloc.h>
#include <base/buffer.h>

#include "blob.h"
#include "worker.h"

enum {
    FILE_BLOCK = 256 * 1024,
    BLOCKS = 4,            /* that many less one may wait to be summed up (checksum.c) */
    HEADWAY = 1024 * 1024, /* bytes after which earlier failures are forgotten */
};

struct blob {
    struct stream stream;
    const struct blob_source *source;
    struct session_call call;
    char *url;
    char *what;
    uint64_t position; /* bytes given to the reader */
    uint64_t to_skip;  /* of the body: a server that cannot begin in the middle */
    uint64_t last_failure;
    unsigned failures;
    bool open; /* an answer is under way */
    bool
        whole; /* the server has no use for a first byte: all of it, and what is there is skipped */
    int64_t told;
    unsigned next; /* of blocks, the one that is filled next */
    struct buffer blocks[BLOCKS];
};

static ssize_t read_partial(struct blob *blob, const void **block, struct error *err)
{
    uint64_t left = blob->source->partial_length - blob->position;
    struct buffer *next = &blob->blocks[blob->next];

    buffer_clear(next);
    buffer_reserve(next, FILE_BLOCK);
    ssize_t n = pread(blob->source->partial_fd, next->data,
                      left < FILE_BLOCK ? (size_t)left : FILE_BLOCK, (off_t)blob->position);

    if (n <= 0)
        return error_errno(err, n < 0 ? errno : EIO, "read what is there of %s", blob->what);
    blob->position += (uint64_t)n;
    *block = next->data;
    return n;
}

static int ask(struct blob *blob, struct error *err)
{
    session_call_finish(&blob->call);
    blob->call = (struct session_call)SESSION_CALL_INIT;
    blob->call.request.url = blob->url;
    blob->call.request.from = blob->whole ? 0 : blob->position;
    blob->call.what = blob->what;
    return session_begin(blob->source->session, blob->source->lane, &blob->call, err);
}

/* Whether the failure is one of asking for a part. What access and absence mean is known; other
 * refusals (416 above all, and whatever proxies have) may be of the range. */
static bool is_refused_range(const struct blob *blob)
{
    int status = blob->call.response.status;

    return blob->position && !blob->whole &&
           ((status >= 400 && status < 500 && status != 401 && status != 404 && status != 429) ||
            status == 501);
}

/* Where the body begins, as far as the server says it. */
static bool find_first_byte(const struct blob *blob, uint64_t *ret)
{
    const struct http_response *response = &blob->call.response;

    *ret = response->status == 206 ? response->first_byte : 0;
    return (response->status != 206 || response->has_first_byte) && *ret <= blob->position;
}

static int open_answer(struct blob *blob, struct error *err)
{
    _cleanup_error_ struct error reason = ERROR_INIT;
    uint64_t first = 0;
    int r = ask(blob, &reason);

    if (r < 0 && !is_refused_range(blob))
        return error_move(err, &reason);
    if (r < 0 || (!find_first_byte(blob, &first) && !blob->whole)) {
        http_end(blob->source->lane);
        blob->whole = true;
        r = ask(blob, err);
    }
    if (r < 0)
        return r;
    blob->open = true;
    if (!find_first_byte(blob, &first))
        return error_set(err, -EBADMSG, "%s: asked for byte %llu, the server begins elsewhere",
                         blob->what, (unsigned long long)blob->position);
    blob->to_skip = blob->position - first;
    return 0;
}

/* After a break: whether to try once more. Headway makes up for earlier failures. */
static int recover(struct blob *blob, struct error *reason, struct error *err)
{
    struct session *session = blob->source->session;

    http_end(blob->source->lane);
    blob->open = false;
    if (blob->position - blob->last_failure >= HEADWAY)
        blob->failures = 0;
    blob->last_failure = blob->position;
    if (!session_is_passing(reason->code) || ++blob->failures >= session_attempts(session))
        return error_move(err, reason);
    message_item(blob->source->item, "Retrying", blob->position, blob->source->descriptor->size);
    return session_pause(session, blob->failures, 0, err);
}

/* The part of a block that is new. */
static ssize_t take(struct blob *blob, const char *data, size_t length, const void **block,
                    struct error *err)
{
    size_t skipped = blob->to_skip < length ? (size_t)blob->to_skip : length;

    blob->to_skip -= skipped;
    length -= skipped;
    if (length > blob->source->descriptor->size - blob->position)
        return error_set(err, -EBADMSG, "%s: longer than the %llu bytes of the manifest",
                         blob->what, (unsigned long long)blob->source->descriptor->size);
    blob->position += length;
    *block = data + skipped;
    message_item_progress(&blob->told, blob->source->item, "Downloading", blob->position,
                          blob->source->descriptor->size);
    if (blob->position == blob->source->descriptor->size)
        message_item(blob->source->item, "Verifying Checksum", 0, 0);
    return (ssize_t)length;
}

static int ended_early(const struct blob *blob, struct error *err)
{
    return error_set(err, -ECONNRESET, "%s: ends after %llu of %llu bytes", blob->what,
                     (unsigned long long)blob->position,
                     (unsigned long long)blob->source->descriptor->size);
}

static ssize_t read_network(struct blob *blob, const void **block, struct error *err)
{
    for (;;) {
        _cleanup_error_ struct error reason = ERROR_INIT;
        struct buffer *next = &blob->blocks[blob->next];
        int r = blob->open ? 0 : open_answer(blob, &reason);
        ssize_t n = r < 0 ? r : http_take(blob->source->lane, next, &reason);
        if (n > 0)
            n = take(blob, next->data, next->length, block, &reason);
        else if (n == 0)
            n = ended_early(blob, &reason);
        if (n > 0)
            return n;
        if (n == 0) /* only what was there already */
            continue;
        r = r < 0 ? error_move(err, &reason) : recover(blob, &reason, err);
        if (r < 0)
            return r;
    }
}

static ssize_t read_block(struct blob *blob, const void **block, struct error *err)
{
    if (blob->position < blob->source->partial_length)
        return read_partial(blob, block, err);
    ssize_t n = read_network(blob, block, err);
    *blob->source->ret_broken = n < 0 && n != -EBADMSG;
    return n;
}

static ssize_t blob_read(struct stream *stream, const void **block, struct error *err)
{
    struct blob *blob = (struct blob *)stream;

    if (blob->position < blob->source->descriptor->size ||
        blob->position < blob->source->partial_length) {
        ssize_t n = read_block(blob, block, err);
        if (n > 0)
            blob->next = (blob->next + 1) % BLOCKS;
        return n;
    }
    /* To the end of the answer, so that its connection can be used again. */
    while (blob->open) {
        const void *rest;
        ssize_t n = http_read(blob->source->lane, &rest, NULL);
        if (n > 0)
            return error_set(err, -EBADMSG, "%s: longer than the %llu bytes of the manifest",
                             blob->what, (unsigned long long)blob->source->descriptor->size);
        http_end(blob->source->lane);
        blob->open = false;
    }
    return 0;
}

static void blob_destroy(struct stream *stream)
{
    struct blob *blob = (struct blob *)stream;

    if (blob->open)
        http_end(blob->source->lane);
    session_call_finish(&blob->call);
    for (size_t i = 0; i < BLOCKS; i++)
        buffer_finish(&blob->blocks[i]);
    free(blob->url);
    free(blob->what);
    free(blob);
}

struct stream *blob_stream(const struct blob_source *source)
{
    static const struct stream_ops ops = {blob_read, blob_destroy};
    struct blob *blob = xnew(struct blob);

    blob->stream.ops = &ops;
    blob->stream.kept = BLOCKS - 1;
    blob->source = source;
    blob->url =
        session_url(source->session, "%s/blobs/%s", source->repository, source->descriptor->digest);
    blob->what = xasprintf("blob %.19s", source->descriptor->digest);
    return &blob->stream;
}
