#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <base/alloc.h>
#include <base/text.h>
#include <rpc/server.h>
#include <schema/rpc.h>
#include <schema/scan.h>
#include <schema/utf8.h>

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

static void end_message(struct rpc_message *message, unsigned seen)
{
    bool answer = message->result.text || message->error.text;

    if (!(seen & 1U << MEMBER_JSONRPC))
        invalid(message, "\"jsonrpc\":\"2.0\" is missing");
    if (!message->method.text && !answer)
        invalid(message, "\"method\" is missing");
    if (message->method.text && answer)
        invalid(message, "both a call and an answer");
    if (message->result.text && message->error.text)
        invalid(message, "both \"result\" and \"error\"");
}

static void set_id(struct rpc_message *message, struct json_token value)
{
    if (!strchr("\"-0123456789n", value.text[0]))
        invalid(message, "\"id\" is neither a string nor a number");
    else if (value.length >= RPC_ID_MAX)
        invalid(message, "\"id\" is longer than %d bytes", RPC_ID_MAX - 1);
    else
        message->id = (struct rpc_part){.text = value.text, .length = value.length};
}

static void set_fds(struct rpc_message *message, struct json_token value)
{
    _cleanup_free_ char *text = xstrndup(value.text, value.length);

    uint64_t count = 0;
    if (text_to_u64(text, 0, RPC_FDS_MAX, &count) < 0)
        invalid(message, "\"fds\" is not a number from 0 to %d", RPC_FDS_MAX);
    message->fds = (size_t)count;
}

static void set_method(struct rpc_message *message, struct json_token value)
{
    _cleanup_buffer_ struct buffer name = BUFFER_INIT;
    struct json_scan scan = {.at = value.text, .end = value.text + value.length};
    struct json_problem problem;
    struct json_token token;

    if (value.text[0] != '"' || !json_scan_string(&scan, &token) ||
        (token.escaped && !json_unescape(&token, &name, &problem)))
        invalid(message, "\"method\" is not a name");
    else
        message->method = (struct rpc_part){.text = token.text, .length = token.length};
    if (message->method.text && token.escaped) {
        message->method.length = name.length;
        message->method.text = message->decoded = buffer_steal(&name);
    }
}

static void set_member(struct rpc_message *message, enum member member, struct json_token value)
{
    struct rpc_part part = {.text = value.text, .length = value.length};

    switch (member) {
    case MEMBER_JSONRPC:
        if (value.length != 5 || memcmp(value.text, "\"2.0\"", 5) != 0)
            invalid(message, "\"jsonrpc\" is not \"2.0\"");
        break;
    case MEMBER_ID:
        set_id(message, value);
        break;
    case MEMBER_METHOD:
        set_method(message, value);
        break;
    case MEMBER_PARAMS:
        if (value.text[0] != '{')
            invalid(message, "\"params\" is not an object");
        message->params = part;
        break;
    case MEMBER_RESULT:
        message->result = part;
        break;
    case MEMBER_ERROR:
        if (value.text[0] != '{')
            invalid(message, "\"error\" is not an object");
        message->error = part;
        break;
    case MEMBER_FDS:
        set_fds(message, value);
        break;
    case MEMBER_NONE:
        break;
    }
}

static enum member find_member(struct json_token key)
{
    enum member member = 0;

    /* The names of ours need no escapes. */
    while (member < MEMBER_COUNT && (strlen(member_names[member]) != key.length ||
                                     memcmp(member_names[member], key.text, key.length) != 0))
        member++;
    return member;
}

static enum member enter_member(struct rpc_message *message, struct json_token key, unsigned *seen)
{
    enum member member = find_member(key);

    if (member == MEMBER_NONE) {
        invalid(message, "unknown member \"%.*s\"", key.length < 32 ? (int)key.length : 32,
                key.text);
    } else if (*seen & 1U << member) {
        invalid(message, "\"%s\" comes twice", member_names[member]);
        return MEMBER_NONE;
    } else {
        *seen |= 1U << member;
    }
    return member;
}

static bool expect(struct json_scan *scan, char c)
{
    json_scan_blank(scan);
    if (json_scan_peek(scan) != c)
        return false;
    scan->at++;
    json_scan_blank(scan);
    return true;
}

/* At the bracket. False: not JSON. */
static bool parse_members(struct json_scan *scan, unsigned depth, struct rpc_message *message)
{
    struct json_token key, value;
    unsigned seen = 0;

    if (!expect(scan, '{'))
        return false;
    while (json_scan_peek(scan) == '"') {
        if (!json_scan_string(scan, &key) || !expect(scan, ':') ||
            !json_scan_skip(scan, depth, &value))
            return false;
        set_member(message, enter_member(message, key, &seen), value);
        if (!expect(scan, ','))
            break;
        if (json_scan_peek(scan) != '"')
            return false;
    }
    if (!expect(scan, '}'))
        return false;
    end_message(message, seen);
    return true;
}

static bool parse_message(struct json_scan *scan, unsigned depth, struct rpc_line *line)
{
    struct json_token token;

    if (line->count >= RPC_BATCH_MAX) {
        scan->problem = "too many calls in a batch";
        return false;
    }
    if (line->batch)
        line->messages = xrealloc(line->messages, line->count + 1, sizeof(*line->messages));
    else
        line->messages = &line->single;
    struct rpc_message *message = &line->messages[line->count++];
    memset(message, 0, offsetof(struct rpc_message, problem));
    message->valid = true;
    if (json_scan_peek(scan) == '{')
        return parse_members(scan, depth - 1, message);
    if (!json_scan_skip(scan, depth, &token))
        return false;
    json_scan_blank(scan);
    invalid(message, "a message is an object");
    return true;
}

static bool parse_batch(struct json_scan *scan, struct rpc_line *line)
{
    line->batch = true;
    if (!expect(scan, '['))
        return false;
    if (expect(scan, ']'))
        return true;
    do {
        if (!parse_message(scan, RPC_DEPTH_MAX - 1, line))
            return false;
    } while (expect(scan, ','));
    return expect(scan, ']');
}

int rpc_line_parse(const char *text, size_t length, struct rpc_line *ret, struct error *err)
{
    struct json_scan scan = {.at = text, .end = text + length};
    size_t valid = utf8_check(text, length);

    if (valid < length)
        return error_set(err, -EBADMSG, "not UTF-8: at byte %zu", valid);
    ret->batch = false;
    ret->messages = NULL;
    ret->count = 0;
    json_scan_blank(&scan);
    bool ok = json_scan_peek(&scan) == '[' ? parse_batch(&scan, ret)
                                           : parse_message(&scan, RPC_DEPTH_MAX, ret);
    if (ok && scan.at == scan.end)
        return 0;
    rpc_line_finish(ret);
    return error_set(err, -EBADMSG, "not JSON: at byte %zu: %s", (size_t)(scan.at - text),
                     scan.problem ? scan.problem : "something else is expected");
}

void rpc_line_finish(struct rpc_line *line)
{
    for (size_t i = 0; i < line->count; i++)
        free(line->messages[i].decoded);
    if (line->batch)
        free(line->messages);
    line->messages = NULL;
    line->count = 0;
}

void rpc_write_result_begin(struct buffer *out, struct rpc_part id)
{
    buffer_append_text(out, "{\"jsonrpc\":\"2.0\",\"id\":");
    buffer_append(out, id.text, id.length);
    buffer_append_text(out, ",\"result\":");
}

void rpc_write_result_end(struct buffer *out, size_t fds_count)
{
    if (fds_count)
        buffer_printf(out, ",\"fds\":%zu", fds_count);
    buffer_append_char(out, '}');
}

void rpc_write_error(struct buffer *out, struct rpc_part id, int code, const char *message,
                     const char *where, const char *hint)
{
    struct rpc_fault_data data = {.where = (char *)(uintptr_t)where,
                                  .hint = (char *)(uintptr_t)hint};
    struct rpc_fault fault = {
        .code = code, .message = (char *)(uintptr_t)message, .data = where || hint ? &data : NULL};

    buffer_append_text(out, "{\"jsonrpc\":\"2.0\",\"id\":");
    buffer_append(out, id.text ? id.text : "null", id.text ? id.length : strlen("null"));
    buffer_append_text(out, ",\"error\":");
    rpc_fault_write(&fault, out);
    buffer_append_char(out, '}');
}
