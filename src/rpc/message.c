#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <yajl/yajl_parse.h>

#include <base/alloc.h>
#include <base/text.h>
#include <rpc/server.h>
#include <schema/rpc.h>

#include "message.h"

enum member {
    MEMBER_JSONRPC,
    MEMBER_ID,
    MEMBER_METHOD,
    MEMBER_PARAMS,
    MEMBER_RESULT,
    MEMBER_ERROR,
    MEMBER_FDS,
    MEMBER_COUNT,
    MEMBER_NONE = MEMBER_COUNT,
};

static const char *const member_names[MEMBER_COUNT] = {
    [MEMBER_JSONRPC] = "jsonrpc", [MEMBER_ID] = "id",         [MEMBER_METHOD] = "method",
    [MEMBER_PARAMS] = "params",   [MEMBER_RESULT] = "result", [MEMBER_ERROR] = "error",
    [MEMBER_FDS] = "fds",
};

enum value { VALUE_NULL, VALUE_BOOLEAN, VALUE_NUMBER, VALUE_STRING, VALUE_OBJECT, VALUE_ARRAY };

struct parser {
    yajl_handle yajl;
    const char *text;
    struct rpc_line *line;
    unsigned depth;
    struct rpc_message *message; /* whose members are read; NULL: between messages */
    unsigned seen;               /* bits of enum member */
    enum member member;
    size_t value_start; /* somewhere before the current member's value, behind its key */
    bool too_much;
    bool at_end; /* yajl is told that nothing follows: its count of bytes begins anew */
};

static void invalid(struct rpc_message *message, const char *format, ...) _printf_(2, 3);

static void invalid(struct rpc_message *message, const char *format, ...)
{
    va_list args;

    if (!message->valid)
        return; /* the first is the one to tell */
    message->valid = false;
    va_start(args, format);
    vsnprintf(message->problem, sizeof(message->problem), format, args);
    va_end(args);
}

/* Depth of a message's own members: 1, in a batch 2. */
static unsigned member_depth(const struct parser *parser)
{
    return parser->line->batch ? 2 : 1;
}

static int begin_message(struct parser *parser)
{
    struct rpc_line *line = parser->line;

    if (line->count >= RPC_BATCH_MAX) {
        parser->too_much = true;
        return 0;
    }
    line->messages = xrealloc(line->messages, line->count + 1, sizeof(*line->messages));
    parser->message = &line->messages[line->count++];
    *parser->message = (struct rpc_message){.valid = true};
    parser->seen = 0;
    parser->member = MEMBER_NONE;
    return 1;
}

static void end_message(struct parser *parser)
{
    struct rpc_message *message = parser->message;
    bool answer = message->result.text || message->error.text;

    if (!(parser->seen & 1U << MEMBER_JSONRPC))
        invalid(message, "\"jsonrpc\":\"2.0\" is missing");
    if (!message->method && !answer)
        invalid(message, "\"method\" is missing");
    if (message->method && answer)
        invalid(message, "both a call and an answer");
    if (message->result.text && message->error.text)
        invalid(message, "both \"result\" and \"error\"");
    parser->message = NULL;
}

/* The text of the value that ends here, without what stands before it. yajl takes \v and \f for
 * white space, too. */
static struct rpc_part value_part(const struct parser *parser)
{
    size_t end = yajl_get_bytes_consumed(parser->yajl), start = parser->value_start;

    while (start < end && strchr(" \t\r\n\v\f:", parser->text[start]))
        start++;
    return (struct rpc_part){.text = parser->text + start, .length = end - start};
}

static void set_id(struct rpc_message *message, enum value kind, struct rpc_part part)
{
    if (kind != VALUE_STRING && kind != VALUE_NUMBER && kind != VALUE_NULL)
        invalid(message, "\"id\" is neither a string nor a number");
    else if (part.length >= sizeof(message->id))
        invalid(message, "\"id\" is longer than %d bytes", RPC_ID_MAX - 1);
    else
        memcpy(message->id, part.text, part.length);
}

static void set_fds(struct rpc_message *message, enum value kind, struct rpc_part part)
{
    _cleanup_free_ char *text = xstrndup(part.text, part.length);
    uint64_t count = 0;

    if (kind != VALUE_NUMBER || text_to_u64(text, 0, RPC_FDS_MAX, &count) < 0)
        invalid(message, "\"fds\" is not a number from 0 to %d", RPC_FDS_MAX);
    message->fds = (size_t)count;
}

/* string, length: of a VALUE_STRING, decoded. */
static void set_member(struct parser *parser, enum value kind, const char *string, size_t length)
{
    struct rpc_message *message = parser->message;
    struct rpc_part part = value_part(parser);

    switch (parser->member) {
    case MEMBER_JSONRPC:
        if (kind != VALUE_STRING || length != 3 || memcmp(string, "2.0", 3) != 0)
            invalid(message, "\"jsonrpc\" is not \"2.0\"");
        break;
    case MEMBER_ID:
        set_id(message, kind, part);
        break;
    case MEMBER_METHOD:
        if (kind != VALUE_STRING || memchr(string, '\0', length))
            invalid(message, "\"method\" is not a name");
        else
            message->method = xstrndup(string, length);
        break;
    case MEMBER_PARAMS:
        if (kind != VALUE_OBJECT)
            invalid(message, "\"params\" is not an object");
        message->params = part;
        break;
    case MEMBER_RESULT:
        message->result = part;
        break;
    case MEMBER_ERROR:
        if (kind != VALUE_OBJECT)
            invalid(message, "\"error\" is not an object");
        message->error = part;
        break;
    case MEMBER_FDS:
        set_fds(message, kind, part);
        break;
    case MEMBER_NONE:
        break;
    }
    parser->member = MEMBER_NONE;
}

/* A whole value has ended at the current depth. */
static int take_value(struct parser *parser, enum value kind, const char *string, size_t length)
{
    if (parser->at_end && parser->depth)
        return 1; /* a number at the end of a line that is not complete */
    if (parser->message && parser->depth == member_depth(parser)) {
        set_member(parser, kind, string, length);
        return 1;
    }
    if (parser->message)
        return 1; /* inside of params, result or error: their readers look at it */
    /* Where a message should stand. */
    if (!begin_message(parser))
        return 0;
    invalid(parser->message, "a message is an object");
    parser->message = NULL;
    return 1;
}

static int on_null(void *context)
{
    return take_value(context, VALUE_NULL, NULL, 0);
}

static int on_boolean(void *context, int value)
{
    return take_value(context, VALUE_BOOLEAN, NULL, 0);
}

static int on_number(void *context, const char *text, size_t length)
{
    return take_value(context, VALUE_NUMBER, NULL, 0);
}

static int on_string(void *context, const unsigned char *text, size_t length)
{
    return take_value(context, VALUE_STRING, (const char *)text, length);
}

static int descend(struct parser *parser)
{
    if (parser->depth >= RPC_DEPTH_MAX) {
        parser->too_much = true;
        return 0;
    }
    parser->depth++;
    return 1;
}

static int on_map_begin(void *context)
{
    struct parser *parser = context;

    if (!parser->message && parser->depth + 1 == member_depth(parser) && !begin_message(parser))
        return 0;
    return descend(parser);
}

static int on_map_key(void *context, const unsigned char *key, size_t length)
{
    struct parser *parser = context;

    if (!parser->message || parser->depth != member_depth(parser))
        return 1;
    parser->value_start = yajl_get_bytes_consumed(parser->yajl);
    parser->member = MEMBER_NONE;
    for (enum member member = 0; member < MEMBER_COUNT; member++) {
        if (strlen(member_names[member]) == length && !memcmp(member_names[member], key, length))
            parser->member = member;
    }
    if (parser->member == MEMBER_NONE)
        invalid(parser->message, "unknown member \"%.*s\"", length < 32 ? (int)length : 32, key);
    else if (parser->seen & 1U << parser->member) {
        invalid(parser->message, "\"%s\" comes twice", member_names[parser->member]);
        parser->member = MEMBER_NONE;
    } else {
        parser->seen |= 1U << parser->member;
    }
    return 1;
}

static int on_map_end(void *context)
{
    struct parser *parser = context;

    if (parser->message && parser->depth == member_depth(parser)) {
        end_message(parser);
        parser->depth--;
        return 1;
    }
    parser->depth--;
    return take_value(parser, VALUE_OBJECT, NULL, 0);
}

static int on_array_begin(void *context)
{
    struct parser *parser = context;

    if (parser->depth == 0)
        parser->line->batch = true;
    return descend(parser);
}

static int on_array_end(void *context)
{
    struct parser *parser = context;

    parser->depth--;
    return parser->depth == 0 ? 1 : take_value(parser, VALUE_ARRAY, NULL, 0);
}

static const yajl_callbacks callbacks = {
    .yajl_null = on_null,
    .yajl_boolean = on_boolean,
    .yajl_number = on_number,
    .yajl_string = on_string,
    .yajl_start_map = on_map_begin,
    .yajl_map_key = on_map_key,
    .yajl_end_map = on_map_end,
    .yajl_start_array = on_array_begin,
    .yajl_end_array = on_array_end,
};

static int run_parser(struct parser *parser, size_t length, struct error *err)
{
    yajl_status status = yajl_parse(parser->yajl, (const unsigned char *)parser->text, length);

    parser->at_end = true;
    if (status == yajl_status_ok)
        status = yajl_complete_parse(parser->yajl);
    if (status == yajl_status_ok)
        return 0;
    if (parser->too_much)
        return error_set(err, -EBADMSG, "deeper than %d levels, or more than %d calls",
                         RPC_DEPTH_MAX, RPC_BATCH_MAX);
    return error_set(err, -EBADMSG, "not JSON: at byte %zu", yajl_get_bytes_consumed(parser->yajl));
}

int rpc_line_parse(const char *text, size_t length, struct rpc_line *ret, struct error *err)
{
    struct rpc_line line = {0};
    struct parser parser = {.text = text, .line = &line};

    parser.yajl = yajl_alloc(&callbacks, NULL, &parser);
    if (!parser.yajl)
        abort();
    int r = run_parser(&parser, length, err);
    yajl_free(parser.yajl);
    if (r < 0) {
        rpc_line_finish(&line);
        return r;
    }
    *ret = line;
    return 0;
}

void rpc_line_finish(struct rpc_line *line)
{
    for (size_t i = 0; i < line->count; i++)
        free(line->messages[i].method);
    free(line->messages);
    *line = (struct rpc_line){0};
}

void rpc_write_result(struct buffer *out, const char *id, const char *result, size_t fds_count)
{
    buffer_printf(out, "{\"jsonrpc\":\"2.0\",\"id\":%s,\"result\":", id);
    buffer_append_text(out, result);
    if (fds_count)
        buffer_printf(out, ",\"fds\":%zu", fds_count);
    buffer_append_char(out, '}');
}

void rpc_write_error(struct buffer *out, const char *id, int code, const char *message,
                     const char *where, const char *hint)
{
    struct rpc_fault_data data = {.where = (char *)(uintptr_t)where,
                                  .hint = (char *)(uintptr_t)hint};
    struct rpc_fault fault = {
        .code = code, .message = (char *)(uintptr_t)message, .data = where || hint ? &data : NULL};

    buffer_printf(out, "{\"jsonrpc\":\"2.0\",\"id\":%s,\"error\":", id[0] ? id : "null");
    rpc_fault_write(&fault, out);
    buffer_append_char(out, '}');
}
