/*
 * A growing byte buffer. The data is always followed by a NUL that length does not count, so that
 * it can be read as a string. Not thread-safe.
 */
#ifndef BASE_BUFFER_H
#define BASE_BUFFER_H

#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <base/cleanup.h>

struct buffer {
    char *data;      /* owned; NULL until the first append */
    size_t length;   /* bytes in use */
    size_t capacity; /* bytes allocated */
};

#define BUFFER_INIT                                                                                \
    {                                                                                              \
        NULL, 0, 0                                                                                 \
    }

void buffer_reserve(struct buffer *buffer, size_t more);
void buffer_append(struct buffer *buffer, const void *data, size_t length);
void buffer_append_text(struct buffer *buffer, const char *text);
static inline void buffer_append_char(struct buffer *buffer, char c);
void buffer_append_decimal(struct buffer *buffer, uint64_t value);
void buffer_printf(struct buffer *buffer, const char *format, ...) _printf_(2, 3);
void buffer_vprintf(struct buffer *buffer, const char *format, va_list args);
void buffer_consume(struct buffer *buffer, size_t length); /* drops bytes from the front */
void buffer_clear(struct buffer *buffer);                  /* length 0, memory kept */
const char *buffer_text(const struct buffer *buffer);      /* "" when empty, never NULL */
char *buffer_steal(struct buffer *buffer); /* owned text, never NULL; buffer empty */
void buffer_finish(struct buffer *buffer);

static inline void buffer_append_char(struct buffer *buffer, char c)
{
    if (buffer->capacity < buffer->length + 2)
        buffer_reserve(buffer, 1);
    buffer->data[buffer->length++] = c;
    buffer->data[buffer->length] = '\0';
}

#define _cleanup_buffer_ _cleanup_(buffer_finish)

#endif
