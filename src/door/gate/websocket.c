#include <arpa/inet.h>
#include <stdlib.h>
#include <string.h>
#include <wslay/wslay.h>

#include <base/alloc.h>
#include <rpc/server.h>

#include "websocket.h"

enum {
    LENGTH_SIZE = 4,         /* bytes in front of a CBOR message, big-endian */
    HEADER_MAX = 10,         /* bytes of a frame's header that a server writes */
    CONTROL_MAX = 125,       /* bytes of a control frame (RFC 6455, 5.5) */
    HELLO_ANSWER_MAX = 4096, /* bytes; longer ones do not agree on an encoding */
    FIN = 0x80,
};

/* The message from the daemon that is on its way out. */
struct outgoing {
    bool open;     /* its first fragment has been sent */
    uint32_t left; /* bytes of a CBOR message that are still to come; 0: none is on its way */
};

struct websocket {
    wslay_event_context_ptr context;
    struct flow *flow;
    const unsigned char *input; /* what wslay may read now */
    size_t input_length;
    size_t message_max;
    size_t message_length; /* of the message that comes in, behind flow->in_ready */
    uint8_t opcode;        /* of the data message that comes in */
    bool in_data;          /* the frame that comes in belongs to it */
    bool hello;            /* the client has asked for another encoding */
    bool cbor;             /* and got it */
    bool closed;
    uint64_t whole; /* messages that came */
    struct outgoing outgoing;
};

/* ---- frames out ---- */

static void write_frame(struct websocket *websocket, uint8_t first, const void *data, size_t length)
{
    struct buffer *out = &websocket->flow->out;
    unsigned char header[HEADER_MAX] = {first};
    size_t size = 2;

    if (length <= CONTROL_MAX) {
        header[1] = (unsigned char)length;
    } else if (length <= UINT16_MAX) {
        header[1] = 126;
        header[2] = (unsigned char)(length >> 8);
        header[3] = (unsigned char)length;
        size = 4;
    } else {
        header[1] = 127;
        for (size_t i = 0; i < 8; i++)
            header[2 + i] = (unsigned char)((uint64_t)length >> (56 - 8 * i));
        size = HEADER_MAX;
    }
    buffer_append(out, header, size);
    buffer_append(out, data, length);
}

void websocket_close(struct websocket *websocket, enum websocket_code code, const char *reason)
{
    unsigned char text[CONTROL_MAX] = {(unsigned char)(code >> 8), (unsigned char)code};
    size_t length = reason ? strlen(reason) : 0;

    if (websocket->closed)
        return;
    websocket->closed = true;
    wslay_event_shutdown_read(websocket->context);
    if (length > sizeof(text) - 2)
        length = sizeof(text) - 2;
    if (length)
        memcpy(text + 2, reason, length);
    write_frame(websocket, FIN | WSLAY_CONNECTION_CLOSE, text, length + 2);
}

void websocket_ping(struct websocket *websocket)
{
    if (!websocket->closed)
        write_frame(websocket, FIN | WSLAY_PING, NULL, 0);
}

uint64_t websocket_whole(const struct websocket *websocket)
{
    return websocket->whole;
}

bool websocket_has_begun(const struct websocket *websocket)
{
    return websocket->opcode != 0;
}

bool websocket_is_closed(const struct websocket *websocket)
{
    return websocket->closed;
}

/* ---- frames in ---- */

static ssize_t on_want_input(wslay_event_context_ptr context, uint8_t *data, size_t size,
                             int flags _unused_, void *user)
{
    struct websocket *websocket = user;
    size_t n = websocket->input_length < size ? websocket->input_length : size;

    if (!n) {
        wslay_event_set_error(context, WSLAY_ERR_WOULDBLOCK);
        return -1;
    }
    memcpy(data, websocket->input, n);
    websocket->input += n;
    websocket->input_length -= n;
    return (ssize_t)n;
}

/* Control frames of wslay's own: pongs, and closes. */
static ssize_t on_output(wslay_event_context_ptr context _unused_, const uint8_t *data,
                         size_t length, int flags _unused_, void *user)
{
    struct websocket *websocket = user;

    buffer_append(&websocket->flow->out, data, length);
    return (ssize_t)length;
}

/* Takes back what there is of the message. */
static void drop_message(struct websocket *websocket)
{
    struct buffer *in = &websocket->flow->in;

    if (in->length > websocket->flow->in_ready) {
        in->length = websocket->flow->in_ready;
        in->data[in->length] = '\0';
    }
    websocket->opcode = 0;
    websocket->in_data = false;
}

static void fail(struct websocket *websocket, enum websocket_code code, const char *reason)
{
    drop_message(websocket);
    websocket_close(websocket, code, reason);
}

static void begin_message(struct websocket *websocket, uint8_t opcode)
{
    static const char room[LENGTH_SIZE] = {0};
    bool binary = opcode == WSLAY_BINARY_FRAME;

    if (binary != websocket->cbor) {
        fail(websocket, WEBSOCKET_UNSUPPORTED,
             binary ? "binary messages are for CBOR, which rpc.hello agrees on"
                    : "text messages are for JSON, and CBOR was agreed on");
        return;
    }
    websocket->opcode = opcode;
    websocket->message_length = 0;
    if (binary)
        buffer_append(&websocket->flow->in, room, sizeof(room));
}

static void on_frame_start(wslay_event_context_ptr context _unused_,
                           const struct wslay_event_on_frame_recv_start_arg *frame, void *user)
{
    struct websocket *websocket = user;

    /* A code has two bytes (5.5.1); wslay takes one for none. */
    if (frame->opcode == WSLAY_CONNECTION_CLOSE && frame->payload_length == 1)
        fail(websocket, WEBSOCKET_PROTOCOL_ERROR, "half a code");
    websocket->in_data = !wslay_is_ctrl_frame(frame->opcode);
    if (!websocket->in_data || websocket->closed)
        return;
    if (frame->opcode != WSLAY_CONTINUATION_FRAME)
        begin_message(websocket, frame->opcode);
    if (websocket->closed)
        return;
    if (frame->payload_length > websocket->message_max - websocket->message_length) {
        fail(websocket, WEBSOCKET_TOO_BIG, "the message is too long");
        return;
    }
    websocket->message_length += (size_t)frame->payload_length;
}

static void on_frame_chunk(wslay_event_context_ptr context _unused_,
                           const struct wslay_event_on_frame_recv_chunk_arg *chunk, void *user)
{
    struct websocket *websocket = user;
    struct buffer *in = &websocket->flow->in;

    if (!websocket->in_data || websocket->closed || !chunk->data_length)
        return;
    size_t from = in->length;
    buffer_append(in, chunk->data, chunk->data_length);
    if (websocket->opcode != WSLAY_TEXT_FRAME)
        return;
    for (size_t i = from; i < in->length; i++)
        if (in->data[i] == '\n')
            in->data[i] = ' ';
}

static void end_text(struct websocket *websocket)
{
    struct buffer *in = &websocket->flow->in;
    size_t start = websocket->flow->in_ready;
    size_t length = in->length - start;

    /* An empty line would be passed over; this one is answered as what it is, no JSON. */
    if (length == 0)
        buffer_append_char(in, ' ');
    if (length && memmem(in->data + start, length, "rpc.hello", 9))
        websocket->hello = true;
    buffer_append_char(in, '\n');
}

static void end_binary(struct websocket *websocket)
{
    struct buffer *in = &websocket->flow->in;
    uint32_t length = htonl((uint32_t)websocket->message_length);

    memcpy(in->data + websocket->flow->in_ready, &length, sizeof(length));
}

static void on_message(wslay_event_context_ptr context _unused_,
                       const struct wslay_event_on_msg_recv_arg *message, void *user)
{
    struct websocket *websocket = user;

    if (websocket->closed || wslay_is_ctrl_frame(message->opcode))
        return;
    if (websocket->opcode == WSLAY_TEXT_FRAME)
        end_text(websocket);
    else
        end_binary(websocket);
    websocket->flow->in_ready = websocket->flow->in.length;
    websocket->opcode = 0;
    websocket->whole++;
}

void websocket_receive(struct websocket *websocket, const void *data, size_t length)
{
    if (websocket->closed)
        return;
    websocket->input = data;
    websocket->input_length = length;
    int r = wslay_event_recv(websocket->context);
    if (websocket->closed) /* by us, while it read */
        return;
    if (r != 0) {
        fail(websocket, WEBSOCKET_PROTOCOL_ERROR, "the frame is malformed");
        return;
    }
    wslay_event_send(websocket->context);
    if (wslay_event_get_close_sent(websocket->context)) {
        drop_message(websocket);
        websocket->closed = true;
    }
}

/* ---- from the daemon ---- */

static void send_part(struct websocket *websocket, uint8_t opcode, const char *data, size_t length,
                      bool last)
{
    struct outgoing *outgoing = &websocket->outgoing;
    uint8_t first = outgoing->open ? WSLAY_CONTINUATION_FRAME : opcode;

    write_frame(websocket, (uint8_t)(first | (last ? FIN : 0)), data, length);
    outgoing->open = !last;
}

static bool pass(const char **at, const char *end, const char *word)
{
    size_t length = strlen(word);

    if ((size_t)(end - *at) < length || memcmp(*at, word, length) != 0)
        return false;
    *at += length;
    return true;
}

/* A number or a text, as the client has written it. */
static void pass_id(const char **at, const char *end)
{
    bool text = *at < end && **at == '"';

    for (*at += text; *at < end && (text ? **at != '"' : **at != ','); ++*at)
        *at += text && **at == '\\' && *at + 1 < end;
    *at += text && *at < end;
}

/* The daemon's text is compact, and its answer to rpc.hello begins so: further in, and in other
 * messages, the same words may be anybody's, say of a container's label. */
static void notice_encoding(struct websocket *websocket, const char *line, size_t length)
{
    const char *end = line + length;

    if (!websocket->hello || length > HELLO_ANSWER_MAX ||
        !pass(&line, end, "{\"jsonrpc\":\"2.0\",\"id\":"))
        return;
    pass_id(&line, end);
    if (pass(&line, end, ",\"result\":{\"encoding\":\"cbor\""))
        websocket->cbor = true;
}

/* Bytes taken; 0: more are needed. */
static size_t forward_text(struct websocket *websocket, const char *data, size_t length)
{
    const char *newline = memchr(data, '\n', length);
    size_t end = newline ? (size_t)(newline - data) : length;

    if (!newline && length < WEBSOCKET_FRAGMENT)
        return 0;
    if (newline && !websocket->outgoing.open)
        notice_encoding(websocket, data, end);
    send_part(websocket, WSLAY_TEXT_FRAME, data, end, newline);
    return newline ? end + 1 : end;
}

static size_t forward_binary(struct websocket *websocket, const char *data, size_t length)
{
    struct outgoing *outgoing = &websocket->outgoing;

    if (length < outgoing->left && length < WEBSOCKET_FRAGMENT)
        return 0;
    size_t part = length < outgoing->left ? length : outgoing->left;
    outgoing->left -= (uint32_t)part;
    send_part(websocket, WSLAY_BINARY_FRAME, data, part, outgoing->left == 0);
    return part;
}

/* The length in front of a CBOR message; false: it is none. */
static bool begin_binary(struct websocket *websocket, const char *data)
{
    uint32_t length;

    memcpy(&length, data, sizeof(length));
    length = ntohl(length);
    websocket->outgoing.left = length;
    return length > 0 && length <= RPC_ANSWER_MAX;
}

/* No JSON text begins with a byte that a length below RPC_ANSWER_MAX begins with. */
static bool is_text(const struct websocket *websocket, char first)
{
    return !websocket->cbor || (unsigned char)first > RPC_ANSWER_MAX >> 24;
}

bool websocket_forward(struct websocket *websocket, struct buffer *from)
{
    struct outgoing *outgoing = &websocket->outgoing;
    size_t done = 0;

    while (!websocket->closed && done < from->length) {
        const char *data = from->data + done;
        size_t length = from->length - done;
        bool between = !outgoing->open && !outgoing->left;
        if (between && !is_text(websocket, *data)) {
            if (length < LENGTH_SIZE)
                break;
            if (!begin_binary(websocket, data))
                return false;
            done += LENGTH_SIZE;
            continue;
        }
        size_t taken = outgoing->left ? forward_binary(websocket, data, length)
                                      : forward_text(websocket, data, length);
        if (!taken)
            break;
        done += taken;
    }
    buffer_consume(from, done);
    return true;
}

/* ---- the WebSocket itself ---- */

struct websocket *websocket_create(struct flow *flow, size_t message_max)
{
    const struct wslay_event_callbacks callbacks = {
        .recv_callback = on_want_input,
        .send_callback = on_output,
        .on_frame_recv_start_callback = on_frame_start,
        .on_frame_recv_chunk_callback = on_frame_chunk,
        .on_msg_recv_callback = on_message,
    };
    struct websocket *websocket = xnew(struct websocket);

    websocket->flow = flow;
    websocket->message_max = message_max;
    if (wslay_event_context_server_init(&websocket->context, &callbacks, websocket) != 0)
        abort(); /* only for want of memory */
    wslay_event_config_set_no_buffering(websocket->context, 1);
    return websocket;
}

void websocket_destroy(struct websocket *websocket)
{
    if (!websocket)
        return;
    wslay_event_context_free(websocket->context);
    free(websocket);
}
