#include <string.h>

#include "log_lines.h"

enum {
    TIME_LENGTH = 30,  /* 2026-11-20T10:00:00.123456789Z */
    STREAM_LENGTH = 6, /* stdout, stderr */
    HEADER_LENGTH = TIME_LENGTH + 1 + STREAM_LENGTH + 1 + 1 + 1,
    ENTRY_MAX = 1024 * 1024, /* more without a newline is no log of ours */
};

static bool is_entry(const char *line, size_t length)
{
    if (length < HEADER_LENGTH || line[TIME_LENGTH - 1] != 'Z' || line[TIME_LENGTH] != ' ')
        return false;
    const char *stream = line + TIME_LENGTH + 1;
    if (strncmp(stream, "stdout ", STREAM_LENGTH + 1) != 0 &&
        strncmp(stream, "stderr ", STREAM_LENGTH + 1) != 0)
        return false;
    const char *tag = stream + STREAM_LENGTH + 1;
    return (tag[0] == 'F' || tag[0] == 'P') && tag[1] == ' ';
}

/* One entry, without its newline. */
static void write_entry(struct log_reader *reader, const char *line, size_t length,
                        struct buffer *out, struct buffer *err_out)
{
    if (!is_entry(line, length)) {
        buffer_append(out, line, length);
        buffer_append_char(out, '\n');
        return;
    }
    /* Times of one form compare as texts. */
    if (reader->since && strncmp(line, reader->since, TIME_LENGTH) < 0)
        return;
    if (reader->until && strncmp(line, reader->until, TIME_LENGTH) > 0) {
        reader->ended = true;
        return;
    }
    size_t stream = line[TIME_LENGTH + 4] == 'e';
    bool whole = line[HEADER_LENGTH - 2] == 'F';
    struct buffer *to = stream ? err_out : out;

    if (reader->timestamps && !reader->in_line[stream]) {
        buffer_append(to, line, TIME_LENGTH);
        buffer_append_char(to, ' ');
    }
    if (reader->details && !reader->in_line[stream]) {
        buffer_append_text(to, reader->details);
        buffer_append_char(to, ' ');
    }
    buffer_append(to, line + HEADER_LENGTH, length - HEADER_LENGTH);
    if (whole)
        buffer_append_char(to, '\n');
    reader->in_line[stream] = !whole;
}

void log_reader_feed(struct log_reader *reader, const char *data, size_t length, struct buffer *out,
                     struct buffer *err_out)
{
    while (length && !reader->ended) {
        const char *newline = memchr(data, '\n', length);
        size_t take = newline ? (size_t)(newline - data) : length;

        if (reader->rest.length || !newline)
            buffer_append(&reader->rest, data, take);
        if (newline && reader->rest.length) {
            write_entry(reader, reader->rest.data, reader->rest.length, out, err_out);
            buffer_clear(&reader->rest);
        } else if (newline) {
            write_entry(reader, data, take, out, err_out);
        } else if (reader->rest.length > ENTRY_MAX) {
            buffer_append(out, reader->rest.data, reader->rest.length);
            buffer_clear(&reader->rest);
        }
        take += newline ? 1 : 0;
        data += take;
        length -= take;
    }
}

void log_reader_finish(struct log_reader *reader)
{
    buffer_finish(&reader->rest);
}
