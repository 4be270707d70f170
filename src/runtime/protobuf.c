#include <errno.h>
#include <string.h>

#include "protobuf.h"

enum wire_type { WIRE_VARINT = 0, WIRE_64 = 1, WIRE_LENGTH = 2, WIRE_32 = 5 };

enum { WIRE_BITS = 3 };

static void add_varint(struct buffer *out, uint64_t value)
{
    for (; value > 0x7f; value >>= 7)
        buffer_append_char(out, (char)(0x80 | (value & 0x7f)));
    buffer_append_char(out, (char)value);
}

static void add_key(struct buffer *out, unsigned field, enum wire_type type)
{
    add_varint(out, (uint64_t)field << WIRE_BITS | type);
}

void protobuf_add_number(struct buffer *out, unsigned field, uint64_t value)
{
    add_key(out, field, WIRE_VARINT);
    add_varint(out, value);
}

void protobuf_add_text(struct buffer *out, unsigned field, const char *text)
{
    size_t length = strlen(text);

    add_key(out, field, WIRE_LENGTH);
    add_varint(out, length);
    buffer_append(out, text, length);
}

void protobuf_add_message(struct buffer *out, unsigned field, const struct buffer *message)
{
    add_key(out, field, WIRE_LENGTH);
    add_varint(out, message->length);
    buffer_append(out, message->data, message->length);
}

static int take_varint(struct protobuf_reader *reader, uint64_t *ret)
{
    uint64_t value = 0;

    for (unsigned shift = 0; shift < 64; shift += 7) {
        if (reader->at == reader->end)
            return -EBADMSG;
        uint8_t byte = *reader->at++;
        value |= (uint64_t)(byte & 0x7f) << shift;
        if (!(byte & 0x80)) {
            *ret = value;
            return 0;
        }
    }
    return -EBADMSG;
}

int protobuf_next(struct protobuf_reader *reader, struct protobuf_field *ret)
{
    uint64_t key, length = 0;

    if (reader->at == reader->end)
        return 0;
    if (take_varint(reader, &key) < 0 || key >> WIRE_BITS > UINT32_MAX)
        return -EBADMSG;
    *ret = (struct protobuf_field){.number = (unsigned)(key >> WIRE_BITS)};
    switch (key & ((1 << WIRE_BITS) - 1)) {
    case WIRE_VARINT:
        return take_varint(reader, &ret->value) < 0 ? -EBADMSG : 1;
    case WIRE_LENGTH:
        if (take_varint(reader, &length) < 0)
            return -EBADMSG;
        break;
    case WIRE_64:
        length = 8;
        break;
    case WIRE_32:
        length = 4;
        break;
    default:
        return -EBADMSG;
    }
    if (length > (uint64_t)(reader->end - reader->at))
        return -EBADMSG;
    ret->data = reader->at;
    ret->length = (size_t)length;
    reader->at += length;
    return 1;
}
