#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include <base/alloc.h>
#include <rpc/server.h>
#include <schema/rpc.h>
#include <schema/scan.h>
#include <schema/utf8.h>

#include "codec.h"

/* ---- in ---- */

static int split(const char *data, size_t length, size_t max, size_t *searched,
                 struct rpc_span *ret)
{
    const char *end = memchr(data + *searched, '\n', length - *searched);

    if (!end) {
        *searched = length;
        *ret = (struct rpc_span){0};
        return length > max ? -EMSGSIZE : 0;
    }
    *searched = 0;
    size_t size = (size_t)(end - data);
    *ret = (struct rpc_span){.text = data, .length = size, .consumed = size + 1};
    return size > max ? -EMSGSIZE : 1;
}

static void set_id(struct rpc_message *message, struct json_token value)
{
    if (!strchr("\"-0123456789n", value.text[0]))
        rpc_message_invalid(message, "\"id\" is neither a string nor a number");
    else if (value.length >= RPC_ID_MAX)
        rpc_message_invalid(message, "\"id\" is longer than %d bytes", RPC_ID_MAX - 1);
    else
        message->id = (struct rpc_part){.text = value.text, .length = value.length};
}

/* A whole number that is not negative, at most max. */
static bool to_number(struct json_token value, uint64_t max, uint64_t *ret)
{
    uint64_t number = 0;

    for (size_t i = 0; i < value.length; i++) {
        if (value.text[i] < '0' || value.text[i] > '9' || number > max)
            return false;
        number = number * 10 + (uint64_t)(value.text[i] - '0');
    }
    if (number > max)
        return false;
    *ret = number;
    return true;
}

static void set_fds(struct rpc_message *message, struct json_token value)
{
    uint64_t count = 0;

    if (to_number(value, RPC_FDS_MAX, &count))
        message->fds = (size_t)count;
    else
        rpc_message_invalid(message, "\"fds\" is not a number from 0 to %d", RPC_FDS_MAX);
}

static void set_timeout(struct rpc_message *message, struct json_token value)
{
    if (!to_number(value, RPC_TIMEOUT_MAX, &message->timeout_ms))
        rpc_message_invalid(message, "\"timeoutMs\" is not a number of milliseconds");
}

static void set_progress(struct rpc_message *message, struct json_token value)
{
    message->progress = value.text[0] == 't';
    if (value.text[0] != 't' && value.text[0] != 'f')
        rpc_message_invalid(message, "\"progress\" is neither true nor false");
}

static void set_method(struct rpc_message *message, struct json_token value)
{
    _cleanup_buffer_ struct buffer name = BUFFER_INIT;
    struct json_scan scan = {.at = value.text, .end = value.text + value.length};
    struct json_problem problem;
    struct json_token token;

    if (value.text[0] != '"' || !json_scan_string(&scan, &token) ||
        (token.escaped && !json_unescape(&token, &name, &problem)))
        rpc_message_invalid(message, "\"method\" is not a name");
    else
        message->method = (struct rpc_part){.text = token.text, .length = token.length};
    if (message->method.text && token.escaped) {
        message->method.length = name.length;
        message->method.text = message->decoded = buffer_steal(&name);
    }
}

static void set_params(struct rpc_message *message, struct json_token value)
{
    if (value.text[0] == 'n') /* null: as some clients write none */
        return;
    if (value.text[0] != '{' && value.text[0] != '[')
        rpc_message_invalid(message, "\"params\" is neither an object nor an array");
    message->positional = value.text[0] == '[';
    message->params = (struct rpc_part){.text = value.text, .length = value.length};
}

static void set_error(struct rpc_message *message, struct json_token value)
{
    if (value.text[0] != '{')
        rpc_message_invalid(message, "\"error\" is not an object");
    message->error = (struct rpc_part){.text = value.text, .length = value.length};
}

static void set_member(struct rpc_message *message, enum rpc_member member, struct json_token value)
{
    switch (member) {
    case RPC_MEMBER_JSONRPC:
        if (value.length != 5 || memcmp(value.text, "\"2.0\"", 5) != 0)
            rpc_message_invalid(message, "\"jsonrpc\" is not \"2.0\"");
        break;
    case RPC_MEMBER_ID:
        set_id(message, value);
        break;
    case RPC_MEMBER_METHOD:
        set_method(message, value);
        break;
    case RPC_MEMBER_PARAMS:
        set_params(message, value);
        break;
    case RPC_MEMBER_RESULT:
        message->result = (struct rpc_part){.text = value.text, .length = value.length};
        break;
    case RPC_MEMBER_ERROR:
        set_error(message, value);
        break;
    case RPC_MEMBER_FDS:
        set_fds(message, value);
        break;
    case RPC_MEMBER_TIMEOUT:
        set_timeout(message, value);
        break;
    case RPC_MEMBER_PROGRESS:
        set_progress(message, value);
        break;
    case RPC_MEMBER_NONE:
        break;
    }
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
        /* The names of ours need no escapes. */
        if (!json_scan_string(scan, &key) || !expect(scan, ':') ||
            !json_scan_skip(scan, depth, &value))
            return false;
        set_member(message, rpc_message_enter(message, key.text, key.length, &seen), value);
        if (!expect(scan, ','))
            break;
        if (json_scan_peek(scan) != '"')
            return false;
    }
    if (!expect(scan, '}'))
        return false;
    if (!(seen & 1U << RPC_MEMBER_JSONRPC))
        rpc_message_invalid(message, "\"jsonrpc\":\"2.0\" is missing");
    rpc_message_end(message, seen);
    return true;
}

static bool parse_message(struct json_scan *scan, unsigned depth, const struct rpc_bounds *bounds,
                          struct rpc_frame *frame)
{
    struct rpc_message *message = rpc_frame_add(frame, bounds);
    struct json_token token;

    if (!message) {
        scan->problem = "too many calls in a batch";
        return false;
    }
    if (json_scan_peek(scan) == '{')
        return parse_members(scan, depth - 1, message);
    if (!json_scan_skip(scan, depth, &token))
        return false;
    json_scan_blank(scan);
    rpc_message_invalid(message, "a message is an object");
    return true;
}

static bool parse_batch(struct json_scan *scan, const struct rpc_bounds *bounds,
                        struct rpc_frame *frame)
{
    frame->batch = true;
    if (!expect(scan, '['))
        return false;
    if (expect(scan, ']'))
        return true;
    do {
        if (!parse_message(scan, (unsigned)bounds->depth - 1, bounds, frame))
            return false;
    } while (expect(scan, ','));
    return expect(scan, ']');
}

static bool is_limit(const char *problem)
{
    return problem && (strstr(problem, "too many") || strstr(problem, "too deep"));
}

static int parse(const char *text, size_t length, const struct rpc_bounds *bounds,
                 struct rpc_frame *ret, struct error *err)
{
    struct json_scan scan = {.at = text, .end = text + length};
    size_t valid = utf8_check(text, length);

    if (valid < length)
        return error_set(err, -EBADMSG, "not UTF-8: at byte %zu", valid);
    ret->batch = false;
    ret->messages = NULL;
    ret->count = 0;
    json_scan_blank(&scan);
    bool ok = json_scan_peek(&scan) == '['
                  ? parse_batch(&scan, bounds, ret)
                  : parse_message(&scan, (unsigned)bounds->depth, bounds, ret);
    if (ok && scan.at == scan.end)
        return 0;
    rpc_frame_finish(ret);
    if (is_limit(scan.problem))
        return error_set(err, -EFBIG, "at byte %zu: %s", (size_t)(scan.at - text), scan.problem);
    return error_set(err, -EBADMSG, "not JSON: at byte %zu: %s", (size_t)(scan.at - text),
                     scan.problem ? scan.problem : "something else is expected");
}

/* ---- values ---- */

static int read_value(const struct json_type *type, const char *text, size_t length, void **ret,
                      struct error *err)
{
    return json_parse(type, text, length, NULL, ret, err);
}

static void write_json(const char *text, size_t length, struct buffer *out)
{
    buffer_append(out, text, length);
}

/* ---- out ---- */

#define APPEND(out, literal) buffer_append(out, literal, sizeof(literal) - 1)

static void append_number(struct buffer *out, uint64_t number)
{
    char digits[20];
    size_t at = sizeof(digits);

    do
        digits[--at] = (char)('0' + number % 10);
    while (number /= 10);
    buffer_append(out, digits + at, sizeof(digits) - at);
}

static size_t begin(struct buffer *out)
{
    return out->length;
}

static void end(struct buffer *out, size_t mark)
{
    buffer_append_char(out, '\n');
}

static void request_begin(struct buffer *out, const struct rpc_head *head)
{
    APPEND(out, "{\"jsonrpc\":\"2.0\",");
    if (head->number) {
        APPEND(out, "\"id\":");
        append_number(out, (uint64_t)head->number);
        buffer_append_char(out, ',');
    }
    APPEND(out, "\"method\":");
    json_quote(out, head->method, strlen(head->method));
    if (head->timeout_ms != RPC_NO_TIMEOUT) {
        APPEND(out, ",\"timeoutMs\":");
        append_number(out, head->timeout_ms);
    }
    if (head->progress)
        APPEND(out, ",\"progress\":true");
    if (head->params)
        APPEND(out, ",\"params\":");
}

static void request_end(struct buffer *out, const struct rpc_head *head)
{
    if (head->fds)
        buffer_printf(out, ",\"fds\":%zu", head->fds);
    buffer_append_char(out, '}');
}

static void result_begin(struct buffer *out, struct rpc_part id, size_t fds)
{
    APPEND(out, "{\"jsonrpc\":\"2.0\",\"id\":");
    buffer_append(out, id.text, id.length);
    APPEND(out, ",\"result\":");
}

static void result_end(struct buffer *out, size_t fds)
{
    if (fds)
        buffer_printf(out, ",\"fds\":%zu", fds);
    buffer_append_char(out, '}');
}

static void write_error(struct buffer *out, struct rpc_part id, const void *fault)
{
    APPEND(out, "{\"jsonrpc\":\"2.0\",\"id\":");
    buffer_append(out, id.text ? id.text : "null", id.text ? id.length : strlen("null"));
    APPEND(out, ",\"error\":");
    rpc_fault_write(fault, out);
    buffer_append_char(out, '}');
}

static void batch_next(struct buffer *out)
{
    buffer_append_char(out, out->length ? ',' : '[');
}

static void batch_end(struct buffer *out)
{
    buffer_append_char(out, ']');
}

static void to_json(struct rpc_part id, struct buffer *out)
{
    buffer_append(out, id.text, id.length);
}

static int64_t id_number(struct rpc_part id)
{
    int64_t number = 0;

    if (id.length == 0 || id.length > 18)
        return -1;
    for (size_t i = 0; i < id.length; i++) {
        if (id.text[i] < '0' || id.text[i] > '9')
            return -1;
        number = number * 10 + (id.text[i] - '0');
    }
    return number;
}

const struct rpc_codec rpc_codec_json = {
    .name = "json",
    .split = split,
    .parse = parse,
    .read = read_value,
    .read_positional = json_parse_positional,
    .write = json_write,
    .write_json = write_json,
    .begin = begin,
    .end = end,
    .request_begin = request_begin,
    .request_end = request_end,
    .result_begin = result_begin,
    .result_end = result_end,
    .error = write_error,
    .batch_next = batch_next,
    .batch_end = batch_end,
    .to_json = to_json,
    .id_number = id_number,
};
