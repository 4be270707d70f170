#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <base/alloc.h>
#include <base/text.h>
#include <schema/rpc.h>

#include "codec.h"
#include "fault.h"

static const struct {
    const char *name;
    size_t length;
} members[] = {
#define MEMBER(text)                                                                               \
    {                                                                                              \
        text, sizeof(text) - 1                                                                     \
    }
    [RPC_MEMBER_JSONRPC] = MEMBER("jsonrpc"),   [RPC_MEMBER_ID] = MEMBER("id"),
    [RPC_MEMBER_METHOD] = MEMBER("method"),     [RPC_MEMBER_PARAMS] = MEMBER("params"),
    [RPC_MEMBER_RESULT] = MEMBER("result"),     [RPC_MEMBER_ERROR] = MEMBER("error"),
    [RPC_MEMBER_FDS] = MEMBER("fds"),           [RPC_MEMBER_TIMEOUT] = MEMBER("timeoutMs"),
    [RPC_MEMBER_PROGRESS] = MEMBER("progress"),
#undef MEMBER
};

void rpc_message_invalid(struct rpc_message *message, const char *format, ...)
{
    va_list args;

    if (!message->valid)
        return;
    message->valid = false;
    va_start(args, format);
    vsnprintf(message->problem, sizeof(message->problem), format, args);
    va_end(args);
}

enum rpc_member rpc_message_enter(struct rpc_message *message, const char *name, size_t length,
                                  unsigned *seen)
{
    enum rpc_member member = 0;

    while (member < RPC_MEMBER_NONE &&
           (members[member].length != length || memcmp(members[member].name, name, length) != 0))
        member++;
    if (member == RPC_MEMBER_NONE) {
        rpc_message_invalid(message, "unknown member \"%.*s\"", length < 32 ? (int)length : 32,
                            name);
    } else if (*seen & 1U << member) {
        rpc_message_invalid(message, "\"%s\" comes twice", members[member].name);
        return RPC_MEMBER_NONE;
    } else {
        *seen |= 1U << member;
    }
    return member;
}

void rpc_message_end(struct rpc_message *message, unsigned seen)
{
    bool answer = message->result.text || message->error.text;

    if (!message->method.text && !answer)
        rpc_message_invalid(message, "\"method\" is missing");
    if (message->method.text && answer)
        rpc_message_invalid(message, "both a call and an answer");
    if (message->result.text && message->error.text)
        rpc_message_invalid(message, "both \"result\" and \"error\"");
    if (answer && seen & (1U << RPC_MEMBER_TIMEOUT | 1U << RPC_MEMBER_PROGRESS))
        rpc_message_invalid(message, "members of a call in an answer");
}

struct rpc_message *rpc_frame_add(struct rpc_frame *frame, const struct rpc_bounds *bounds)
{
    if (frame->count >= bounds->batch)
        return NULL;
    if (frame->batch)
        frame->messages = xrealloc(frame->messages, frame->count + 1, sizeof(*frame->messages));
    else
        frame->messages = &frame->single;
    struct rpc_message *message = &frame->messages[frame->count++];
    memset(message, 0, offsetof(struct rpc_message, problem));
    message->valid = true;
    message->timeout_ms = RPC_NO_TIMEOUT;
    return message;
}

void rpc_frame_finish(struct rpc_frame *frame)
{
    for (size_t i = 0; i < frame->count; i++)
        free(frame->messages[i].decoded);
    if (frame->batch)
        free(frame->messages);
    frame->messages = NULL;
    frame->count = 0;
}

const struct rpc_codec *rpc_codec_find(const char *name)
{
    static const struct rpc_codec *const codecs[] = {&rpc_codec_json, &rpc_codec_cbor};

    for (size_t i = 0; i < sizeof(codecs) / sizeof(codecs[0]); i++) {
        if (text_equal(codecs[i]->name, name))
            return codecs[i];
    }
    return NULL;
}

void rpc_write_error(const struct rpc_codec *codec, struct buffer *out, struct rpc_part id,
                     int code, const char *message, const char *where, const char *hint)
{
    struct rpc_fault_data data = {.what = (char *)(uintptr_t)fault_word(code),
                                  .where = (char *)(uintptr_t)where,
                                  .hint = (char *)(uintptr_t)hint};
    struct rpc_fault fault = {
        .code = code, .message = (char *)(uintptr_t)(message ? message : ""), .data = &data};

    codec->error(out, id, &fault);
}
