/*
 * libFuzzer target: any bytes on the management socket, in the encoding CODEC. The messages that
 * come out are the same whether the bytes come at once or one by one; what the parts of a message
 * point to must lie in it; an id that was taken must be fit to be sent back; parameters are read by
 * a type, or are not.
 */
#include <errno.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <rpc/server.h>
#include <schema/json.h>
#include <schema/rpc.h>

#include "codec.h"

static const struct rpc_codec *const codec = &CODEC;
static const struct rpc_bounds bounds = {.depth = RPC_DEPTH_MAX, .batch = RPC_BATCH_MAX};

enum { FRAME_MAX = 2048 };

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check_part(const struct rpc_part *part, const char *text, size_t length)
{
    if (part->text && (part->text < text || part->length > length ||
                       part->text + part->length > text + length || part->length == 0))
        abort();
}

/* An answer with this id must be read as one message again. */
static void check_id(const struct rpc_message *message)
{
    _cleanup_buffer_ struct buffer answer = BUFFER_INIT, json = BUFFER_INIT;
    struct rpc_frame frame;

    if (!message->id.text)
        return;
    codec->to_json(message->id, &json);
    (void)codec->id_number(message->id);
    rpc_write_error(codec, &answer, message->id, RPC_NOT_FOUND, "message", "where", "hint");
    if (codec->parse(answer.data, answer.length, &bounds, &frame, NULL) < 0 || frame.count != 1 ||
        !frame.messages[0].valid || frame.messages[0].id.length != message->id.length ||
        memcmp(frame.messages[0].id.text, message->id.text, message->id.length) != 0)
        abort();
    rpc_frame_finish(&frame);
}

static void read_params(const struct rpc_message *message)
{
    static const struct json_type *const types[] = {&rpc_hello_type, &rpc_cancel_type,
                                                    &rpc_progress_type, &rpc_document_type};

    for (size_t i = 0; message->params.text && i < sizeof(types) / sizeof(types[0]); i++) {
        void *value = NULL;
        if ((message->positional ? codec->read_positional : codec->read)(
                types[i], message->params.text, message->params.length, &value, NULL) == 0)
            json_free(types[i], value);
    }
}

static void check_frame(const char *text, size_t length)
{
    struct rpc_frame frame;

    if (codec->parse(text, length, &bounds, &frame, NULL) < 0)
        return;
    if (frame.count > RPC_BATCH_MAX || (!frame.batch && frame.count != 1))
        abort();
    for (size_t i = 0; i < frame.count; i++) {
        struct rpc_message *message = &frame.messages[i];
        check_part(&message->params, text, length);
        check_part(&message->result, text, length);
        check_part(&message->error, text, length);
        if (message->fds > RPC_FDS_MAX && message->valid)
            abort();
        if (message->timeout_ms != RPC_NO_TIMEOUT && message->timeout_ms > RPC_TIMEOUT_MAX &&
            message->valid)
            abort();
        check_id(message);
        if (message->valid)
            read_params(message);
    }
    rpc_frame_finish(&frame);
}

/* Where the frame at `start` ends: as much of the data as it needs, byte by byte; 0: nowhere. */
static size_t split_slowly(const char *data, size_t length)
{
    struct rpc_span span;
    size_t searched = 0;

    for (size_t have = 1; have <= length; have++) {
        int r = codec->split(data, have, FRAME_MAX, &searched, &span);
        if (r < 0 && !span.consumed)
            return 0;
        if (r != 0)
            return span.consumed;
    }
    return 0;
}

static void check_stream(const char *data, size_t length)
{
    size_t start = 0;

    while (start < length) {
        struct rpc_span span;
        size_t searched = 0;
        int r = codec->split(data + start, length - start, FRAME_MAX, &searched, &span);
        if (r == 0 || (r < 0 && !span.consumed))
            break;
        if (span.consumed > length - start || span.text < data + start ||
            span.text + span.length > data + start + span.consumed)
            abort();
        if (r > 0 && split_slowly(data + start, length - start) != span.consumed)
            abort();
        if (r > 0 && span.length)
            check_frame(span.text, span.length);
        start += span.consumed;
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const char *text = (const char *)data;

    if (size > RPC_MESSAGE_MAX)
        return 0;
    check_stream(text, size);
    check_frame(text, size);
    return 0;
}
