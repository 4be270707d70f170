#include <string.h>

#include <schema/utf8.h>

#include "parser.h"

enum { EXCERPT_MAX = 64 }; /* bytes of foreign text in a message */

char *quoted_excerpt(const char *text, size_t length)
{
    struct buffer out = BUFFER_INIT;
    size_t shown = length;

    if (length > EXCERPT_MAX) {
        shown = 0;
        while (shown < EXCERPT_MAX) {
            size_t size = utf8_sequence(text + shown, length - shown);
            shown += size ? size : 1;
        }
    }
    json_quote(&out, text, shown);
    if (shown < length)
        buffer_append_text(&out, "...");
    return buffer_steal(&out);
}

size_t parser_line(const struct parser *parser, size_t place)
{
    const char *at = parser->text, *end = parser->text + place;
    size_t line = 1;

    while ((at = memchr(at, '\n', (size_t)(end - at)))) {
        line++;
        at++;
    }
    return line;
}

static bool is_plain_name(const char *text, size_t length)
{
    if (length == 0 || length > EXCERPT_MAX)
        return false;
    for (size_t i = 0; i < length; i++) {
        char c = text[i];
        if (!((c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
              c == '_' || c == '-'))
            return false;
    }
    return true;
}

/* .name, or ["any text"] for names that would be mistaken for something else. */
static void append_key(struct buffer *path, const char *text, size_t length, bool quote)
{
    if (!quote && is_plain_name(text, length)) {
        if (path->length > 0)
            buffer_append_char(path, '.');
        buffer_append(path, text, length);
        return;
    }
    _cleanup_free_ char *excerpt = quoted_excerpt(text, length);
    buffer_printf(path, "[%s]", excerpt);
}

static void append_path(const struct parser *parser, struct buffer *path)
{
    for (unsigned int i = 0; i < parser->depth; i++) {
        const struct frame *frame = &parser->frames[i];
        if (!frame->value_begun)
            continue;
        if (!frame_has_keys(frame)) {
            buffer_printf(path, "[%zu]", frame->index);
            continue;
        }
        if (frame->kind == FRAME_OBJECT && frame->field) {
            append_key(path, frame->field->name, frame->field->name_length, false);
            continue;
        }
        /* The keys of deeper frames are behind those of this one. */
        size_t end = i + 1 < parser->depth ? parser->frames[i + 1].keys : parser->keys.count;
        const struct key *key = &parser->keys.keys[end - 1];
        append_key(path, key_set_text(&parser->keys, key), key->length, frame->kind == FRAME_MAP);
    }
}

bool parser_fail(struct parser *parser, int code, size_t place, const char *format, ...)
{
    _cleanup_buffer_ struct buffer path = BUFFER_INIT;
    va_list args;

    if (parser->result < 0)
        return false;
    append_path(parser, &path);
    va_start(args, format);
    _cleanup_free_ char *message = xvasprintf(format, args);
    va_end(args);

    parser->result = error_set(parser->err, code, "%s%s%s", buffer_text(&path),
                               path.length > 0 ? ": " : "", message);
    if (parser->source)
        error_context(parser->err, "%s:%zu", parser->source, parser_line(parser, place));
    return false;
}

static const char *expectation(const struct place *place)
{
    if (place->is_array)
        return place->field->flags & JSON_STRING_OR_ARRAY ? "a string or an array" : "an array";
    switch ((enum json_kind)place->field->kind) {
    case JSON_STRING:
        return "a string";
    case JSON_BOOLEAN:
        return "a boolean";
    case JSON_INTEGER:
    case JSON_UNSIGNED:
        return "an integer";
    case JSON_DOUBLE:
        return "a number";
    case JSON_OBJECT:
        return place->field->type->shape == JSON_SHAPE_ARRAY ? "an array" : "an object";
    case JSON_RAW:
        break;
    }
    return "a value";
}

bool parser_fail_expected(struct parser *parser, const struct place *place, enum json_value got)
{
    static const char *const names[] = {
        [VALUE_NULL] = "null",       [VALUE_BOOLEAN] = "a boolean", [VALUE_NUMBER] = "a number",
        [VALUE_STRING] = "a string", [VALUE_ARRAY] = "an array",    [VALUE_OBJECT] = "an object",
    };
    return parser_fail(parser, -EINVAL, parser_position(parser), "expected %s, got %s",
                       expectation(place), names[got]);
}
