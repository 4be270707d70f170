#include "body.h"

#include <string.h>

void body_begin(struct body *body, const struct head *head)
{
    *body = (struct body){.chunked = head->chunked};
    if (head->chunked)
        body->state = BODY_SIZE;
    else if (head->length > 0)
        body->left = (uint64_t)head->length;
    else
        body->state = BODY_DONE;
}

/* The bytes of a line that begins here, with its end; 0: it is not whole. */
static size_t whole_line(struct body *body, const char *text, size_t length)
{
    size_t most = length < BODY_LINE_MAX ? length : BODY_LINE_MAX;
    const char *end = memmem(text, most, "\r\n", 2);

    if (end)
        return (size_t)(end - text) + 2;
    if (most == BODY_LINE_MAX)
        body->state = BODY_BROKEN;
    return 0;
}

static int digit_of(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    if (c >= 'a' && c <= 'f')
        return c - 'a' + 10;
    return c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
}

/* RFC 9112, 7.1: what stands behind a semicolon is an extension, and ignored. */
static void read_size(struct body *body, const char *line)
{
    uint64_t size = 0;
    int digit, digits = 0;

    for (; (digit = digit_of(*line)) >= 0; line++) {
        if (++digits > 15) {
            body->state = BODY_BROKEN;
            return;
        }
        size = size << 4 | (uint64_t)digit;
    }
    if (!digits || !*line || !strchr("; \t\r", *line)) {
        body->state = BODY_BROKEN;
        return;
    }
    body->left = size;
    body->state = size ? BODY_DATA : BODY_TRAILERS;
}

static void read_trailer(struct body *body, size_t line)
{
    body->trailers += line;
    if (line == 2)
        body->state = BODY_DONE;
    else if (body->trailers > BODY_TRAILERS_MAX)
        body->state = BODY_BROKEN;
}

static size_t read_data(struct body *body, const char *text, size_t length, size_t most,
                        const char **ret_data, size_t *ret_length)
{
    size_t part = length < body->left ? length : (size_t)body->left;

    part = part < most ? part : most;
    *ret_data = text;
    *ret_length = part;
    body->left -= part;
    if (!body->left)
        body->state = body->chunked ? BODY_CHUNK_END : BODY_DONE;
    return part;
}

size_t body_read(struct body *body, const char *text, size_t length, size_t most,
                 const char **ret_data, size_t *ret_length)
{
    *ret_length = 0;
    if (body->state == BODY_DATA)
        return read_data(body, text, length, most, ret_data, ret_length);
    if (body->state == BODY_CHUNK_END) {
        if (length < 2)
            return 0;
        body->state = memcmp(text, "\r\n", 2) == 0 ? BODY_SIZE : BODY_BROKEN;
        return body->state == BODY_BROKEN ? 0 : 2;
    }
    if (body->state != BODY_SIZE && body->state != BODY_TRAILERS)
        return 0;
    size_t line = whole_line(body, text, length);
    if (line && body->state == BODY_SIZE)
        read_size(body, text);
    else if (line)
        read_trailer(body, line);
    return body->state == BODY_BROKEN ? 0 : line;
}
