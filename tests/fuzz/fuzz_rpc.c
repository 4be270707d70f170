/*
 * libFuzzer target: any bytes as a line of the management socket. What the parts of a message point
 * to must lie in the line, and an id that was taken must be fit to be sent back.
 */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <rpc/server.h>
#include <schema/rpc.h>

#include "message.h"

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
    _cleanup_buffer_ struct buffer answer = BUFFER_INIT;
    struct rpc_line line;

    if (!message->id.text)
        return;
    rpc_write_error(&answer, message->id, RPC_NOT_FOUND, "message", "where", "hint");
    if (rpc_line_parse(answer.data, answer.length, &line, NULL) < 0 || line.count != 1 ||
        !line.messages[0].valid || line.messages[0].id.length != message->id.length ||
        memcmp(line.messages[0].id.text, message->id.text, message->id.length) != 0)
        abort();
    rpc_line_finish(&line);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const char *text = (const char *)data;
    struct rpc_line line;

    if (size > RPC_MESSAGE_MAX || rpc_line_parse(text, size, &line, NULL) < 0)
        return 0;
    if (line.count > RPC_BATCH_MAX || (!line.batch && line.count != 1))
        abort();
    for (size_t i = 0; i < line.count; i++) {
        struct rpc_message *message = &line.messages[i];
        check_part(&message->params, text, size);
        check_part(&message->result, text, size);
        check_part(&message->error, text, size);
        if (message->fds > RPC_FDS_MAX && message->valid)
            abort();
        check_id(message);
    }
    rpc_line_finish(&line);
    return 0;
}
