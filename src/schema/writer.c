#include <math.h>
#include <stdio.h>
#include <string.h>

#include <schema/json.h>
#include <schema/number.h>
#include <schema/utf8.h>

enum { INDENT_PRETTY = 4, INDENT_NARROW = 2 };

enum { BLOCK = 16 };

typedef uint8_t block __attribute__((vector_size(BLOCK)));

/* Whether all of a block stand for themselves in a JSON string. */
static inline bool is_plain_block(const char *text)
{
    uint64_t special[2];
    block bytes;

    memcpy(&bytes, text, BLOCK);
    bytes = (block)((bytes < 0x20) | (bytes == '"') | (bytes == '\\') | (bytes >= 0x7f));
    memcpy(special, &bytes, BLOCK);
    return !(special[0] | special[1]);
}

/* Bytes that stand for themselves in a JSON string, from text on. What is behind the last whole
 * block is looked at with bytes of that once more. */
static size_t plain_run(const char *text, size_t length)
{
    size_t i = 0;

    for (; length - i >= BLOCK && is_plain_block(text + i); i += BLOCK)
        ;
    if (length - i < BLOCK && i > 0 && is_plain_block(text + length - BLOCK))
        return length;
    while (i < length) {
        unsigned char c = (unsigned char)text[i];
        if (c < 0x20 || c == '"' || c == '\\' || c >= 0x7f)
            break;
        i++;
    }
    return i;
}

static void quote_control(struct buffer *out, char c)
{
    static const char names[] = "\"\\\b\f\n\r\t", letters[] = "\"\\bfnrt";
    const char *found = memchr(names, c, sizeof(names) - 1);

    if (found) {
        buffer_append_char(out, '\\');
        buffer_append_char(out, letters[found - names]);
    } else {
        buffer_printf(out, "\\u%04x", (unsigned int)(unsigned char)c);
    }
}

/* A piece of text that does not begin with a plain byte. Returns how long it was. */
static size_t quote_special(struct buffer *out, const char *text, size_t length)
{
    if ((unsigned char)*text <= 0x7f) {
        quote_control(out, *text);
        return 1;
    }
    size_t size = utf8_sequence(text, length);
    if (size > 0) {
        buffer_append(out, text, size);
        return size;
    }
    buffer_append_text(out, "\xef\xbf\xbd"); /* U+FFFD, as Go writes such bytes */
    return 1;
}

void json_quote(struct buffer *out, const char *text, size_t length)
{
    buffer_reserve(out, length + 2);
    out->data[out->length++] = '"';
    while (length > 0) {
        size_t size = plain_run(text, length);
        if (size > 0)
            buffer_append(out, text, size);
        else
            size = quote_special(out, text, length);
        text += size;
        length -= size;
    }
    buffer_append_char(out, '"');
}

void json_writer_init(struct json_writer *writer, struct buffer *out, enum json_layout layout)
{
    *writer = (struct json_writer){.out = out, .layout = layout, .first = true};
}

static void line_break(struct json_writer *writer)
{
    size_t indent = writer->layout == JSON_PRETTY ? INDENT_PRETTY : INDENT_NARROW;

    if (writer->layout != JSON_COMPACT)
        buffer_printf(writer->out, "\n%*s", (int)(writer->depth * indent), "");
}

/* What stands between the value before and the next one. */
static void separate(struct json_writer *writer)
{
    if (writer->after_key) {
        writer->after_key = false;
        return;
    }
    if (!writer->first)
        buffer_append_char(writer->out, ',');
    writer->first = false;
    if (writer->depth > 0)
        line_break(writer);
}

static void begin(struct json_writer *writer, char bracket)
{
    separate(writer);
    buffer_append_char(writer->out, bracket);
    writer->depth++;
    writer->first = true;
}

static void end(struct json_writer *writer, char bracket)
{
    bool empty = writer->first;

    writer->depth--;
    writer->first = false;
    if (!empty)
        line_break(writer);
    buffer_append_char(writer->out, bracket);
}

void json_writer_object_begin(struct json_writer *writer)
{
    begin(writer, '{');
}

void json_writer_object_end(struct json_writer *writer)
{
    end(writer, '}');
}

void json_writer_array_begin(struct json_writer *writer)
{
    begin(writer, '[');
}

void json_writer_array_end(struct json_writer *writer)
{
    end(writer, ']');
}

void json_writer_key(struct json_writer *writer, const char *key)
{
    separate(writer);
    json_quote(writer->out, key, strlen(key));
    buffer_append_text(writer->out, writer->layout == JSON_COMPACT ? ":" : ": ");
    writer->after_key = true;
}

void json_writer_name(struct json_writer *writer, const char *name, size_t length)
{
    struct buffer *out = writer->out;

    if (writer->layout != JSON_COMPACT)
        separate(writer);
    buffer_reserve(out, length + sizeof(",\"\": "));
    if (writer->layout == JSON_COMPACT && !writer->first)
        out->data[out->length++] = ',';
    out->data[out->length++] = '"';
    memcpy(out->data + out->length, name, length);
    out->length += length;
    out->data[out->length++] = '"';
    out->data[out->length++] = ':';
    if (writer->layout != JSON_COMPACT)
        out->data[out->length++] = ' ';
    out->data[out->length] = '\0';
    writer->first = false;
    writer->after_key = true;
}

void json_writer_string(struct json_writer *writer, const char *text)
{
    if (text)
        json_writer_string_length(writer, text, strlen(text));
    else
        json_writer_null(writer);
}

void json_writer_string_length(struct json_writer *writer, const char *text, size_t length)
{
    separate(writer);
    json_quote(writer->out, text, length);
}

void json_writer_integer(struct json_writer *writer, int64_t value)
{
    separate(writer);
    if (value < 0)
        buffer_append_char(writer->out, '-');
    buffer_append_decimal(writer->out, value < 0 ? 0 - (uint64_t)value : (uint64_t)value);
}

void json_writer_unsigned(struct json_writer *writer, uint64_t value)
{
    separate(writer);
    buffer_append_decimal(writer->out, value);
}

void json_writer_number(struct json_writer *writer, double value)
{
    char text[JSON_NUMBER_SIZE];

    if (!isfinite(value)) {
        json_writer_null(writer);
        return;
    }
    separate(writer);
    json_from_double(value, text);
    buffer_append_text(writer->out, text);
}

void json_writer_boolean(struct json_writer *writer, bool value)
{
    json_writer_raw(writer, value ? "true" : "false");
}

void json_writer_null(struct json_writer *writer)
{
    json_writer_raw(writer, "null");
}

void json_writer_raw(struct json_writer *writer, const char *json)
{
    separate(writer);
    buffer_append_text(writer->out, json);
}
