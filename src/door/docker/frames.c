#include "frames.h"

#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include <base/alloc.h>
#include <base/text.h>

#include "base64.h"
#include "sha1.h"

enum { FIN = 0x80, RESERVED = 0x70, OPCODE = 0x0f, MASKED = 0x80, CONTROL = 0x08, MASK_SIZE = 4 };

enum opcode {
    OPCODE_CONTINUATION = 0,
    OPCODE_TEXT = 1,
    OPCODE_BINARY = 2,
    OPCODE_CLOSE = 8,
    OPCODE_PING = 9,
    OPCODE_PONG = 10,
};

#define GUID "258EAFA5-E914-47DA-95CA-C5AB0DC85B11" /* 1.3 */

/* ---- handshake ---- */

static bool key_is_valid(const char *key)
{
    size_t length = 0;
    char *bytes = key && strlen(key) == 24 ? base64_decode(key, &length) : NULL;

    free(bytes);
    return bytes && length == 16;
}

bool frames_handshake(const struct head *head, char ret_accept[FRAMES_ACCEPT_LENGTH + 1],
                      const char **ret_problem)
{
    const char *upgrade = head_field(head, "Upgrade");
    const char *version = head_field(head, "Sec-WebSocket-Version");
    const char *key = head_field(head, "Sec-WebSocket-Key");
    unsigned char digest[SHA1_LENGTH];

    *ret_problem = "this is for a WebSocket: connect with ws:// or wss://";
    if (!head->upgrade || !upgrade || strcasecmp(upgrade, "websocket") != 0)
        return false;
    *ret_problem = "Sec-WebSocket-Version must be 13";
    if (!text_equal(version, "13"))
        return false;
    *ret_problem = "Sec-WebSocket-Key must be 16 bytes in Base64";
    if (!key_is_valid(key))
        return false;
    _cleanup_free_ char *text = xasprintf("%s" GUID, key);
    sha1(text, strlen(text), digest);
    _cleanup_free_ char *accept = base64_encode((const char *)digest, sizeof(digest));
    memcpy(ret_accept, accept, FRAMES_ACCEPT_LENGTH + 1);
    return true;
}

/* ---- out ---- */

static void write_frame(enum opcode opcode, const char *data, size_t length, struct buffer *out)
{
    char head[10] = {(char)(FIN | opcode)};
    size_t size = length <= FRAMES_CONTROL_MAX ? 2 : length <= UINT16_MAX ? 4 : 10;

    head[1] = (char)(size == 2 ? length : size == 4 ? 126 : 127);
    for (size_t i = 2; i < size; i++)
        head[i] = (char)((uint64_t)length >> (8 * (size - 1 - i)));
    buffer_append(out, head, size);
    buffer_append(out, data, length);
}

void frames_write(struct frames *frames, const char *data, size_t length, struct buffer *out)
{
    if (!frames->closed && length)
        write_frame(OPCODE_BINARY, data, length, out);
}

void frames_close(struct frames *frames, enum frames_code code, struct buffer *out)
{
    const char data[2] = {(char)(code >> 8), (char)code};

    if (!frames->closed)
        write_frame(OPCODE_CLOSE, data, sizeof(data), out);
    frames->closed = true;
}

/* ---- in ---- */

static bool is_control(const struct frames *frames)
{
    return frames->head[0] & CONTROL;
}

/* Bytes of the head, as far as its first two tell. */
static size_t head_size(const struct frames *frames)
{
    unsigned length = frames->head[1] & ~(unsigned)MASKED;

    if (frames->head_length < 2)
        return 2;
    return 2 + (length == 126 ? 2 : length == 127 ? 8 : 0) + MASK_SIZE;
}

static bool opcode_fits(const struct frames *frames)
{
    bool fin = frames->head[0] & FIN;

    switch (frames->head[0] & OPCODE) {
    case OPCODE_CONTINUATION:
        return frames->in_message;
    case OPCODE_TEXT:
    case OPCODE_BINARY:
        return !frames->in_message;
    case OPCODE_CLOSE:
    case OPCODE_PING:
    case OPCODE_PONG:
        return fin && (frames->head[1] & ~(unsigned)MASKED) <= FRAMES_CONTROL_MAX;
    default:
        return false;
    }
}

/* Lengths are in the shortest form, and below 2^63 (5.2). */
static bool read_length(struct frames *frames)
{
    unsigned first = frames->head[1] & ~(unsigned)MASKED;
    size_t bytes = first == 126 ? 2 : first == 127 ? 8 : 0;
    uint64_t length = bytes ? 0 : first;

    for (size_t i = 0; i < bytes; i++)
        length = length << 8 | frames->head[2 + i];
    frames->left = length;
    frames->read = 0;
    return length <= INT64_MAX && (bytes != 2 || length > FRAMES_CONTROL_MAX) &&
           (bytes != 8 || length > UINT16_MAX);
}

/* The two bytes tell enough to refuse it. */
static bool begins_well(const struct frames *frames)
{
    return !(frames->head[0] & RESERVED) && frames->head[1] & MASKED && opcode_fits(frames);
}

static void end_frame(struct frames *frames, struct buffer *out, size_t most)
{
    frames->in_frame = false;
    frames->head_length = 0;
    switch (frames->head[0] & OPCODE) {
    case OPCODE_CLOSE:
        frames_close(frames, frames->read == 1 ? FRAMES_PROTOCOL_ERROR : FRAMES_NORMAL, out);
        break;
    case OPCODE_PING:
        if (out->length <= most)
            write_frame(OPCODE_PONG, frames->control, (size_t)frames->read, out);
        break;
    case OPCODE_PONG:
        break;
    default:
        frames->in_message = !(frames->head[0] & FIN);
    }
}

static size_t read_head(struct frames *frames, const char *data, size_t length, struct buffer *out)
{
    size_t used = 0;

    while (used < length && frames->head_length < head_size(frames)) {
        frames->head[frames->head_length++] = (unsigned char)data[used++];
        if (frames->head_length == 2 && !begins_well(frames)) {
            frames_close(frames, FRAMES_PROTOCOL_ERROR, out);
            return used;
        }
    }
    if (frames->head_length < head_size(frames))
        return used;
    frames->in_frame = read_length(frames);
    if (!frames->in_frame)
        frames_close(frames, FRAMES_PROTOCOL_ERROR, out);
    return used;
}

static size_t read_data(struct frames *frames, const char *data, size_t length, struct buffer *to)
{
    const unsigned char *mask = frames->head + frames->head_length - MASK_SIZE;
    size_t count = length < frames->left ? length : (size_t)frames->left;
    char *at = frames->control + (is_control(frames) ? frames->read : 0);

    if (!is_control(frames)) {
        buffer_reserve(to, count);
        at = to->data + to->length;
        to->length += count;
        to->data[to->length] = '\0';
    }
    for (size_t i = 0; i < count; i++)
        at[i] = (char)((unsigned char)data[i] ^ mask[(frames->read + i) % MASK_SIZE]);
    frames->read += count;
    frames->left -= count;
    return count;
}

void frames_read(struct frames *frames, const char *data, size_t length, struct buffer *to,
                 struct buffer *out, size_t most)
{
    size_t used = 0;

    while (used < length && !frames->closed) {
        if (!frames->in_frame)
            used += read_head(frames, data + used, length - used, out);
        if (frames->in_frame)
            used += read_data(frames, data + used, length - used, to);
        if (frames->in_frame && !frames->left && !frames->closed)
            end_frame(frames, out, most);
    }
}
