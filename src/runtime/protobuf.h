/*
 * As much of Protocol Buffers' wire format as criu's messages need (protobuf.dev, "Encoding"):
 * integers and booleans as varints, texts and messages with a length.
 */
#ifndef RUNTIME_PROTOBUF_H
#define RUNTIME_PROTOBUF_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <base/buffer.h>

void protobuf_add_number(struct buffer *out, unsigned field, uint64_t value); /* also booleans */
void protobuf_add_text(struct buffer *out, unsigned field, const char *text);
void protobuf_add_message(struct buffer *out, unsigned field, const struct buffer *message);

struct protobuf_reader {
    const uint8_t *at, *end;
};

struct protobuf_field {
    unsigned number;
    uint64_t value;      /* a number */
    const uint8_t *data; /* else; borrowed from what is read */
    size_t length;
};

/* 1: a field; 0: the end; -EBADMSG: not a message. Fields of fixed size are given as data. */
int protobuf_next(struct protobuf_reader *reader, struct protobuf_field *ret);

#endif
