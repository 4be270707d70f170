#include <errno.h>
#include <string.h>

#include <rpc/server.h>
#include <schema/cbor.h>
#include <schema/rpc.h>
#include <schema/utf8.h>

#include "codec.h"

enum { LENGTH_SIZE = 4 };

/* ---- in ---- */

static int split(const char *data, size_t length, size_t max, size_t *searched,
                 struct rpc_span *ret)
{
    const unsigned char *head = (const unsigned char *)data;

    *searched = 0;
    *ret = (struct rpc_span){0};
    if (length < LENGTH_SIZE)
        return 0;
    size_t size = (size_t)head[0] << 24 | (size_t)head[1] << 16 | (size_t)head[2] << 8 | head[3];
    if (length - LENGTH_SIZE >= size)
        *ret = (struct rpc_span){
            .text = data + LENGTH_SIZE, .length = size, .consumed = size + LENGTH_SIZE};
    if (size > max)
        return -EMSGSIZE;
    return ret->consumed != 0;
}

static enum cbor_major major_of(struct rpc_part part)
{
    struct cbor_scan scan = {.at = (const unsigned char *)part.text,
                             .end = (const unsigned char *)part.text + part.length};
    struct cbor_item item;

    return cbor_scan_head(&scan, &item) ? item.major : CBOR_TAG;
}

static bool to_number(struct rpc_part part, uint64_t max, uint64_t *ret)
{
    struct cbor_scan scan = {.at = (const unsigned char *)part.text,
                             .end = (const unsigned char *)part.text + part.length};
    struct cbor_item item;

    if (!cbor_scan_head(&scan, &item) || item.major != CBOR_UNSIGNED || item.value > max)
        return false;
    *ret = item.value;
    return true;
}

/* What JSON has as a text, and messages show. */
static bool to_text(struct rpc_part part, struct rpc_part *ret)
{
    struct cbor_scan scan = {.at = (const unsigned char *)part.text,
                             .end = (const unsigned char *)part.text + part.length};

    return cbor_scan_text(&scan, &ret->text, &ret->length) &&
           (utf8_is_plain(ret->text, ret->length) ||
            (utf8_check(ret->text, ret->length) == ret->length &&
             !memchr(ret->text, '\0', ret->length)));
}

static bool is_simple(struct rpc_part part, int value)
{
    return part.length == 1 && (unsigned char)part.text[0] == value;
}

/* Whole and of definite length, null, or a float. */
static void set_id(struct rpc_message *message, struct rpc_part value)
{
    enum cbor_major major = major_of(value);
    unsigned char first = (unsigned char)value.text[0];
    struct rpc_part text;
    bool fits = (major == CBOR_TEXT && to_text(value, &text)) || major == CBOR_UNSIGNED ||
                major == CBOR_NEGATIVE || first == CBOR_NULL ||
                (first > CBOR_NULL + 2 && first <= CBOR_DOUBLE);

    if (!fits)
        rpc_message_invalid(message, "\"id\" is neither a text (UTF-8) nor a number");
    else if (value.length >= RPC_ID_MAX)
        rpc_message_invalid(message, "\"id\" is longer than %d bytes", RPC_ID_MAX - 1);
    else
        message->id = value;
}

static void set_params(struct rpc_message *message, struct rpc_part value)
{
    enum cbor_major major = major_of(value);

    if (is_simple(value, CBOR_NULL)) /* as some clients write none */
        return;
    if (major != CBOR_MAP && major != CBOR_ARRAY)
        rpc_message_invalid(message, "\"params\" is neither a map nor an array");
    message->positional = major == CBOR_ARRAY;
    message->params = value;
}

static void set_error(struct rpc_message *message, struct rpc_part value)
{
    if (major_of(value) != CBOR_MAP)
        rpc_message_invalid(message, "\"error\" is not a map");
    message->error = value;
}

static void set_progress(struct rpc_message *message, struct rpc_part value)
{
    message->progress = is_simple(value, CBOR_TRUE);
    if (!message->progress && !is_simple(value, CBOR_FALSE))
        rpc_message_invalid(message, "\"progress\" is neither true nor false");
}

static void set_member(struct rpc_message *message, enum rpc_member member, struct rpc_part value)
{
    uint64_t number = 0;
    struct rpc_part text;

    switch (member) {
    case RPC_MEMBER_JSONRPC:
        if (!to_text(value, &text) || text.length != 3 || memcmp(text.text, "2.0", 3) != 0)
            rpc_message_invalid(message, "\"jsonrpc\" is not \"2.0\"");
        break;
    case RPC_MEMBER_ID:
        set_id(message, value);
        break;
    case RPC_MEMBER_METHOD:
        if (!to_text(value, &message->method))
            rpc_message_invalid(message, "\"method\" is not a name (UTF-8)");
        break;
    case RPC_MEMBER_PARAMS:
        set_params(message, value);
        break;
    case RPC_MEMBER_RESULT:
        message->result = value;
        break;
    case RPC_MEMBER_ERROR:
        set_error(message, value);
        break;
    case RPC_MEMBER_FDS:
        if (!to_number(value, RPC_FDS_MAX, &number))
            rpc_message_invalid(message, "\"fds\" is not a number from 0 to %d", RPC_FDS_MAX);
        message->fds = (size_t)number;
        break;
    case RPC_MEMBER_TIMEOUT:
        if (!to_number(value, RPC_TIMEOUT_MAX, &message->timeout_ms))
            rpc_message_invalid(message, "\"timeoutMs\" is not a number of milliseconds");
        break;
    case RPC_MEMBER_PROGRESS:
        set_progress(message, value);
        break;
    case RPC_MEMBER_NONE:
        break;
    }
}

/* Whether the array or map has come to its end, whose break is taken. */
static bool at_end(struct cbor_scan *scan, const struct cbor_item *item, uint64_t count)
{
    if (item->info != 31)
        return count >= item->value;
    if (scan->at == scan->end || *scan->at != CBOR_BREAK)
        return false;
    scan->at++;
    return true;
}

/* False: not CBOR. */
static bool parse_members(struct cbor_scan *scan, const struct cbor_item *map, unsigned depth,
                          struct rpc_message *message)
{
    unsigned seen = 0;

    for (uint64_t i = 0; !at_end(scan, map, i); i++) {
        struct rpc_part key, value;
        if (!cbor_scan_text(scan, &key.text, &key.length))
            return false;
        value.text = (const char *)scan->at;
        if (!cbor_scan_skip(scan, depth))
            return false;
        value.length = (size_t)((const char *)scan->at - value.text);
        set_member(message, rpc_message_enter(message, key.text, key.length, &seen), value);
    }
    rpc_message_end(message, seen);
    return true;
}

static bool parse_message(struct cbor_scan *scan, unsigned depth, const struct rpc_bounds *bounds,
                          struct rpc_frame *frame)
{
    struct rpc_message *message = rpc_frame_add(frame, bounds);
    struct cbor_scan before = *scan;
    struct cbor_item item;

    if (!message) {
        scan->problem = "too many calls in a batch";
        return false;
    }
    if (!cbor_scan_head(scan, &item))
        return false;
    if (item.major == CBOR_MAP)
        return parse_members(scan, &item, depth - 1, message);
    *scan = before;
    rpc_message_invalid(message, "a message is a map");
    return cbor_scan_skip(scan, depth);
}

static bool parse_frame(struct cbor_scan *scan, const struct rpc_bounds *bounds,
                        struct rpc_frame *frame)
{
    struct cbor_scan before = *scan;
    unsigned depth = (unsigned)bounds->depth;
    struct cbor_item item;

    if (!cbor_scan_head(scan, &item))
        return false;
    if (item.major != CBOR_ARRAY) {
        *scan = before;
        return parse_message(scan, depth, bounds, frame);
    }
    frame->batch = true;
    for (uint64_t i = 0; !at_end(scan, &item, i); i++) {
        if (!parse_message(scan, depth - 1, bounds, frame))
            return false;
    }
    return true;
}

static bool is_limit(const char *problem)
{
    return problem && (strstr(problem, "too many") || strstr(problem, "too deep"));
}

static int parse(const char *text, size_t length, const struct rpc_bounds *bounds,
                 struct rpc_frame *ret, struct error *err)
{
    const unsigned char *data = (const unsigned char *)text;
    struct cbor_scan scan = {.at = data, .end = data + length};

    ret->batch = false;
    ret->messages = NULL;
    ret->count = 0;
    if (parse_frame(&scan, bounds, ret) && scan.at == scan.end)
        return 0;
    rpc_frame_finish(ret);
    if (is_limit(scan.problem))
        return error_set(err, -EFBIG, "at byte %zu: %s", (size_t)(scan.at - data), scan.problem);
    return error_set(err, -EBADMSG, "not CBOR: at byte %zu: %s", (size_t)(scan.at - data),
                     scan.problem ? scan.problem : "something follows the message");
}

/* ---- values ---- */

static int read_value(const struct json_type *type, const char *text, size_t length, void **ret,
                      struct error *err)
{
    return cbor_parse(type, text, length, ret, err);
}

static int read_positional(const struct json_type *type, const char *text, size_t length,
                           void **ret, struct error *err)
{
    return cbor_parse_positional(type, text, length, ret, err);
}

static void append_byte(struct buffer *out, int byte)
{
    buffer_append_char(out, (char)byte);
}

static void write_json(const char *text, size_t length, struct buffer *out)
{
    if (cbor_from_json(text, length, out, NULL) < 0)
        append_byte(out, CBOR_NULL);
}

/* ---- out ---- */

#define APPEND_TEXT(out, literal) cbor_append_text(out, literal, sizeof(literal) - 1)

static size_t begin(struct buffer *out)
{
    static const char room[LENGTH_SIZE];

    buffer_append(out, room, LENGTH_SIZE);
    return out->length - LENGTH_SIZE;
}

static void end(struct buffer *out, size_t mark)
{
    size_t length = out->length - mark - LENGTH_SIZE;

    for (size_t i = LENGTH_SIZE; i > 0; i--, length >>= 8)
        out->data[mark + i - 1] = (char)(unsigned char)length;
}

static void append_fds(struct buffer *out, size_t fds)
{
    if (!fds)
        return;
    APPEND_TEXT(out, "fds");
    cbor_append_head(out, CBOR_UNSIGNED, fds);
}

static void request_begin(struct buffer *out, const struct rpc_head *head)
{
    bool timed = head->timeout_ms != RPC_NO_TIMEOUT;

    cbor_append_head(out, CBOR_MAP,
                     1U + (head->number != 0) + timed + head->progress + head->params +
                         (head->fds != 0));
    if (head->number) {
        APPEND_TEXT(out, "id");
        cbor_append_head(out, CBOR_UNSIGNED, (uint64_t)head->number);
    }
    APPEND_TEXT(out, "method");
    cbor_append_text(out, head->method, strlen(head->method));
    if (timed) {
        APPEND_TEXT(out, "timeoutMs");
        cbor_append_head(out, CBOR_UNSIGNED, head->timeout_ms);
    }
    if (head->progress) {
        APPEND_TEXT(out, "progress");
        append_byte(out, CBOR_TRUE);
    }
    append_fds(out, head->fds);
    if (head->params)
        APPEND_TEXT(out, "params");
}

static void request_end(struct buffer *out, const struct rpc_head *head)
{
}

static void append_id(struct buffer *out, struct rpc_part id)
{
    APPEND_TEXT(out, "id");
    if (id.text)
        buffer_append(out, id.text, id.length);
    else
        append_byte(out, CBOR_NULL);
}

static void result_begin(struct buffer *out, struct rpc_part id, size_t fds)
{
    cbor_append_head(out, CBOR_MAP, 2U + (fds != 0));
    append_id(out, id);
    append_fds(out, fds);
    APPEND_TEXT(out, "result");
}

static void result_end(struct buffer *out, size_t fds)
{
}

static void write_error(struct buffer *out, struct rpc_part id, const void *fault)
{
    cbor_append_head(out, CBOR_MAP, 2);
    append_id(out, id);
    APPEND_TEXT(out, "error");
    cbor_write(&rpc_fault_type, fault, out);
}

static void batch_next(struct buffer *out)
{
    if (!out->length)
        append_byte(out, CBOR_ARRAY_BEGIN);
}

static void batch_end(struct buffer *out)
{
    append_byte(out, CBOR_BREAK);
}

static void to_json(struct rpc_part id, struct buffer *out)
{
    size_t start = out->length;

    if (cbor_to_json(id.text, id.length, out, NULL) == 0)
        return;
    out->length = start;
    buffer_append_text(out, "null");
}

static int64_t id_number(struct rpc_part id)
{
    uint64_t number;

    return id.text && to_number(id, INT64_MAX, &number) ? (int64_t)number : -1;
}

const struct rpc_codec rpc_codec_cbor = {
    .name = "cbor",
    .split = split,
    .parse = parse,
    .read = read_value,
    .read_positional = read_positional,
    .write = cbor_write,
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
